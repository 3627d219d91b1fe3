//! Tests that cannot run where they are.

use std::io::{self, Write as _};

/// Why tests of XDP's path to a guest's veth do not run on kernels before that.
pub const NEEDS_XDP_FEATURES: &str =
    "needs a kernel that tells what XDP can do with an interface (Linux 6.3)";

/// Begins the line that tells of a skipped test.
pub const SKIPPED: &str = "skipped: ";

/// Tells that a test does not run here, and why; the test then returns. `cargo xtask` counts these lines.
///
/// A test that asks whether it can run asks for the thing itself, never for a kernel's version; the reason names the version.
///
/// # Panics
/// When standard output cannot be written to: a test that is left out in silence would count as passed.
pub fn skip(test: &str, reason: &str) {
    // Not by println!, whose output test programs keep from sight when a test passes. The line before ends in the middle.
    let told = writeln!(io::stdout().lock(), "\n{SKIPPED}{test}: {reason}");
    if let Err(error) = told {
        panic!("cannot tell that {test} is skipped: {error}");
    }
}
