//! What can go wrong between the agent and the kernel.

use std::{io, path::PathBuf, time::Duration};

/// An operation that the kernel did not carry out, or did not answer.
///
/// Every variant names the operation; those about one interface name the interface as `ifindex`, because a name may
/// already belong to another one.
#[derive(Debug, thiserror::Error)]
pub enum NetError {
    /// No netlink socket: the process lacks file descriptors, or the kernel lacks the protocol.
    #[error("cannot open a netlink socket to {operation}")]
    Open {
        /// What the socket was meant for.
        operation: &'static str,
        /// The system's reason.
        source: io::Error,
    },

    /// A notification socket broke; anything but lost notifications, which are mended without an error.
    #[error("cannot read the kernel's notifications to {operation}")]
    Listen {
        /// What the notifications are about.
        operation: &'static str,
        /// The system's reason.
        source: io::Error,
    },

    /// The kernel refused a request that is not about one interface.
    #[error("the kernel refused to {operation}")]
    Refused {
        /// What was asked.
        operation: &'static str,
        /// The kernel's reason.
        source: io::Error,
    },

    /// The kernel refused a request about one interface.
    #[error("the kernel refused to {operation} on interface {ifindex}")]
    RefusedOn {
        /// What was asked.
        operation: &'static str,
        /// The interface.
        ifindex: u32,
        /// The kernel's reason.
        source: io::Error,
    },

    /// The interface does not exist (any more) in this network namespace.
    #[error("cannot {operation}: there is no interface {ifindex} in this network namespace")]
    NoSuchInterface {
        /// What was asked.
        operation: &'static str,
        /// The interface.
        ifindex: u32,
    },

    /// The kernel did not answer. It answers from memory, so an answer got lost to a full socket buffer: try again.
    #[error("the kernel did not answer within {} s when asked to {operation}; try again", waited.as_secs())]
    NoAnswer {
        /// What was asked.
        operation: &'static str,
        /// How long the agent waited.
        waited: Duration,
    },

    /// A list changed under the kernel's hands each time it was asked for, so no consistent one could be read.
    #[error("cannot {operation}: the list changed during each of {attempts} attempts; try again")]
    Unsettled {
        /// What was asked.
        operation: &'static str,
        /// How often.
        attempts: u32,
    },

    /// The answer lacks what the kernel always sends: it is not the kernel interface that this program knows.
    #[error("the kernel's answer lacks {missing} when asked to {operation}")]
    Incomplete {
        /// What was asked.
        operation: &'static str,
        /// What was not there.
        missing: &'static str,
    },

    /// A frame could not be sent.
    #[error("cannot send a frame of {len} bytes through interface {ifindex}")]
    Send {
        /// The interface.
        ifindex: u32,
        /// Length of the frame in bytes, Ethernet header included.
        len: usize,
        /// The system's reason; `WouldBlock` means that the interface's queue is full.
        source: io::Error,
    },

    /// A packet socket could not be opened or bound.
    #[error("cannot open a packet socket on interface {ifindex} (CAP_NET_RAW is needed)")]
    PacketSocket {
        /// The interface.
        ifindex: u32,
        /// The system's reason.
        source: io::Error,
    },

    /// The path cannot be looked at.
    #[error("cannot find out which file system holds {}", path.display())]
    FileSystem {
        /// The path asked for.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },

    /// Pins need a BPF file system, and this path is neither on one nor where one is mounted by convention.
    #[error(
        "{} is not on a BPF file system; choose a path below /sys/fs/bpf, or mount one there: mount -t bpf bpf DIR",
        path.display()
    )]
    NotBpffs {
        /// The path asked for.
        path: PathBuf,
    },

    /// Mounting was refused.
    #[error("cannot mount a BPF file system on {} (CAP_SYS_ADMIN is needed)", path.display())]
    Mount {
        /// The mount point.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },

    /// The kernel does not tell the time.
    #[error("cannot read {clock}")]
    Clock {
        /// The clock's name in clock_gettime(2).
        clock: &'static str,
        /// The system's reason.
        source: io::Error,
    },
}

impl NetError {
    /// Sorts a refusal by the kernel: an interface that is not there has its own variant, because callers wait for it to
    /// come back instead of giving up.
    pub(super) fn refused(operation: &'static str, ifindex: Option<u32>, source: io::Error) -> Self {
        match (ifindex, source.raw_os_error()) {
            (Some(ifindex), Some(libc::ENODEV | libc::ENXIO)) => Self::NoSuchInterface { operation, ifindex },
            (Some(ifindex), _) => Self::RefusedOn { operation, ifindex, source },
            (None, _) => Self::Refused { operation, source },
        }
    }

    /// The errno with which the kernel refused, if it did.
    pub(super) fn errno(&self) -> Option<i32> {
        match self {
            Self::Refused { source, .. } | Self::RefusedOn { source, .. } => source.raw_os_error(),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn errno(code: i32) -> io::Error {
        io::Error::from_raw_os_error(code)
    }

    #[test]
    fn a_missing_interface_is_told_apart_from_a_refusal() {
        let gone = NetError::refused("read statistics", Some(7), errno(libc::ENODEV));
        assert!(matches!(gone, NetError::NoSuchInterface { ifindex: 7, .. }));
        let denied = NetError::refused("read statistics", Some(7), errno(libc::EPERM));
        assert!(matches!(denied, NetError::RefusedOn { ifindex: 7, .. }));
        assert_eq!(denied.errno(), Some(libc::EPERM));
        assert_eq!(denied.to_string(), "the kernel refused to read statistics on interface 7");
    }
}
