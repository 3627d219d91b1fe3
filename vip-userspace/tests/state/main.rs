//! The desired state: what is taken, what is refused.

mod bindings;
mod documents;
mod properties;
mod refusal;
mod valid;
mod values;
