//! Reads the plain part of YAML and JSON that programs write a state in, ten times as fast as all of YAML can be read.
//!
//! Lists of objects in block or flow style, JSON included; words that are plain or quoted without escapes; comments. Whatever
//! else there is (anchors, tags, multi-line words, an unknown field, a mistake) is [`NotPlain`]: then the whole text is read
//! again by the YAML library, which takes it or says what is wrong and where. Nothing is taken here that the library would
//! refuse or read differently; tests compare the two.

mod cursor;
mod fields;
mod sections;
#[cfg(test)]
mod tests;

pub(super) use self::{cursor::NotPlain, fields::Fields, sections::Sections};
