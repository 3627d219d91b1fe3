//! Log lines of the programs, in builds with the feature `log` only.

/// Logs deliveries and drops of a program; nothing without the feature `log`.
macro_rules! log_verdict {
    ($ctx:expr, $program:literal, $verdict:expr) => {
        #[cfg(feature = "log")]
        match $verdict {
            Verdict::Drop(reason) => {
                aya_log_ebpf::debug!($ctx, "{}: dropped for reason {}", $program, reason)
            }
            Verdict::Deliver { port, ifindex } => {
                aya_log_ebpf::debug!($ctx, "{}: to port {} on interface {}", $program, port, ifindex)
            }
            _ => {}
        }
    };
}
pub(crate) use log_verdict;
