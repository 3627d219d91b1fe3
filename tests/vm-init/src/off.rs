//! Switching the machine off so that its status reaches `cargo xtask vm`.

use std::{
    io::{self, Write as _},
    process::ExitCode,
};

use nix::{
    sys::{
        reboot::{RebootMode, reboot},
        termios::tcdrain,
    },
    unistd::sync,
};

/// Everything was run. QEMU ends with twice this and one, 33: no error of QEMU's own (1), and no status that a panic of
/// the guest gives (0).
pub(crate) const PASSED: u8 = 16;
/// The machine could not do what it was to do; QEMU ends with 35.
pub(crate) const BROKEN: u8 = 17;

/// QEMU's device `isa-debug-exit`, as its command line places it.
const EXIT_PORT: u16 = 0xf4;

/// Ends the machine; returns only if it cannot.
pub(crate) fn switch_off(status: u8) -> ExitCode {
    // The console is a serial line, which is slower than the writing of it.
    if let Err(error) = io::stdout().flush().and_then(|()| tcdrain(io::stdout()).map_err(io::Error::from)) {
        eprintln!("cannot write to the console: {error}");
    }
    sync();
    exit_qemu(status);
    // Not in QEMU, or without its exit device.
    match reboot(RebootMode::RB_POWER_OFF) {
        Ok(never) => match never {},
        Err(error) => eprintln!("cannot switch off: {error}"),
    }
    ExitCode::FAILURE
}

#[cfg(target_arch = "x86_64")]
fn exit_qemu(status: u8) {
    // SAFETY: asks for the right to write one port, and touches no memory.
    let granted = unsafe { libc::ioperm(libc::c_ulong::from(EXIT_PORT), 1, 1) };
    if granted != 0 {
        println!("warning: cannot reach the exit device: {}", io::Error::last_os_error());
        return;
    }
    // SAFETY: the kernel has granted this port above, and a port write touches no memory. Without the device it does
    // nothing.
    unsafe {
        std::arch::asm!("out dx, al", in("dx") EXIT_PORT, in("al") status, options(nomem, nostack, preserves_flags));
    }
}

#[cfg(not(target_arch = "x86_64"))]
fn exit_qemu(_status: u8) {
    println!("warning: no exit device on this architecture (port {EXIT_PORT:#x})");
}
