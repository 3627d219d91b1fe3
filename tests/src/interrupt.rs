//! Ctrl-C: labs of this process are taken down before it ends.

use std::{process, sync::Once, thread};

use signal_hook::{
    consts::{SIGHUP, SIGINT, SIGTERM},
    iterator::Signals,
};

use crate::lab;

static REGISTERED: Once = Once::new();

/// From now on SIGINT, SIGTERM and SIGHUP remove every lab of this process and then end it with 128 + the signal's
/// number, as a shell reports it.
///
/// A program calls this once, early; [`crate::Lab::run`] calls it for tests. A process that may have no handlers
/// prints why and goes on: the next lab sweeps up after it.
pub fn remove_labs_on_signal() {
    REGISTERED.call_once(|| match Signals::new([SIGINT, SIGTERM, SIGHUP]) {
        Ok(mut signals) => {
            thread::spawn(move || {
                if let Some(signal) = signals.forever().next() {
                    lab::remove_all();
                    process::exit(128 + signal);
                }
            });
        }
        Err(error) => eprintln!("labs are not removed on Ctrl-C: no signal handler: {error}"),
    });
}
