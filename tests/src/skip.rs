//! Tests that cannot run where they are.

use std::io::{self, Write as _};

/// Begins the line that tells of a skipped test.
pub const SKIPPED: &str = "skipped: ";

/// Tells that a test does not run here, and why; the test then returns. `cargo xtask` counts these lines.
///
/// A test that asks whether it can run asks for the thing itself, never for a kernel's version; the reason names the version.
pub fn skip(test: &str, reason: &str) {
    // Not by println!, whose output test programs keep from sight when a test passes. The line before ends in the middle.
    let told = writeln!(io::stdout().lock(), "\n{SKIPPED}{test}: {reason}");
    if let Err(error) = told {
        panic!("cannot tell that {test} is skipped: {error}");
    }
}
