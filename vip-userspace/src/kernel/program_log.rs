//! Log lines of programs that were built to log (`cargo xtask build --log`).

use aya_log::{EbpfLogger, Error};
use tokio::io::{Interest, unix::AsyncFd};

use super::Dataplane;

impl Dataplane {
    /// Passes the programs' log lines on to this process's log, for as long as its runtime lives. Whether the programs log at
    /// all: those of a release do not.
    pub fn follow_log(&mut self) -> bool {
        let logger = match EbpfLogger::init(&mut self.ebpf) {
            Ok(logger) => logger,
            Err(Error::MapNotFound) => return false,
            Err(error) => {
                tracing::warn!("the programs' log cannot be read: {error}");
                return false;
            }
        };
        // SAFETY: the logger's descriptor is that of the ring it owns: the same one, and open, for as long as the logger lives,
        // which the AsyncFd owns in turn. tokio offers no safe way.
        let mut logger = match unsafe { AsyncFd::register_with_interest(logger, Interest::READABLE) } {
            Ok(logger) => logger,
            Err(error) => {
                let error = std::io::Error::from(error);
                tracing::warn!("the programs' log cannot be waited for: {error}");
                return false;
            }
        };
        tokio::spawn(async move {
            // Ends with the runtime: an error of the descriptor is the only other way out.
            while let Ok(mut ready) = logger.readable_mut().await {
                ready.get_inner_mut().flush();
                ready.clear_ready();
            }
        });
        true
    }
}
