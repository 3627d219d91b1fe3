//! What must hold for any frame in any variation of the fixtures' world, and what looks for a frame for which it does not.
//!
//! An [`Input`] is a frame, where it comes from, and what is different from [the world](vip_lab::fixtures::world) of the
//! fixtures. [`check()`] runs it through the pipeline, and what comes of it on through the pipeline as the wire would: through both
//! stages of the uplink, as the answer of who received it, as what comes back. Each [`Step`] is judged by the [`oracle`]s, none of
//! which knows how the pipeline decides: they read frames and tables themselves and have a checksum of their own.
//!
//! `cargo xtask fuzz` has libFuzzer make the inputs, beginning with the fixtures' frames ([`seeds`]) and changing them by what
//! [`mutate`] knows of packets. Whatever it found once is a file of [`regressions`], which `cargo test` runs.

mod check;
pub mod facts;
pub mod frame;
pub mod input;
#[cfg(feature = "libfuzzer")]
pub mod libfuzzer;
pub mod mutate;
pub mod oracle;
pub mod regressions;
pub mod seeds;
pub mod step;
pub mod variation;

pub use self::{
    check::check,
    input::{Entry, Input, Target},
    oracle::{Oracle, Violation},
    step::{Step, Wire},
    variation::Variation,
};

/// The variable that turns the changes of [`mutate`] off, to compare: libFuzzer's own are left.
pub const PLAIN: &str = "VIP_FUZZ_PLAIN";
