//! Why the agent could not start, or had to end.

use std::path::PathBuf;

use crate::{
    api::server::ServerError, kernel::KernelError, net::NetError, peers::KeyError, state::StateError,
};

/// The agent cannot start or go on. Whatever forwards at that moment goes on.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    /// The programs or their tables.
    #[error(transparent)]
    Kernel(#[from] KernelError),

    /// The host's network.
    #[error(transparent)]
    Net(#[from] NetError),

    /// The operator's socket.
    #[error(transparent)]
    Server(#[from] ServerError),

    /// The secret that the hosts share.
    #[error(transparent)]
    Key(#[from] KeyError),

    /// The first state is not valid, and there are no tables from an earlier start that could go on.
    #[error(transparent)]
    State(#[from] StateError),

    /// The first state does not fit this host, and there are no tables from an earlier start that could go on.
    #[error("{}: {problems}", path.display())]
    Unfit {
        /// The state's file.
        path: PathBuf,
        /// What does not fit, one line per problem.
        problems: String,
    },

    /// More EIP networks than the tables have room for.
    #[error(
        "{configured} eip_networks are configured, but the tables hold {most}; join some, or leave the routed ones out"
    )]
    TooManyNetworks {
        /// How many there are.
        configured: usize,
        /// How many there can be.
        most: usize,
    },

    /// The uplink belongs to something whose routes and neighbours cannot be followed.
    #[error(
        "the uplink {uplink} is a member of a {kind}: only a bridge's or a bond's members can be an uplink; take it out \
         of there, or name another uplink"
    )]
    UnsupportedStack {
        /// The uplink's name.
        uplink: String,
        /// Kind of its master.
        kind: String,
    },

    /// The uplink is no Ethernet interface.
    #[error("the uplink {uplink} has no MAC address: name an Ethernet interface")]
    NoMac {
        /// The uplink's name.
        uplink: String,
    },

    /// The state's file cannot be watched.
    #[error("cannot watch the directory of {}", path.display())]
    Watch {
        /// The state's file.
        path: PathBuf,
        /// What the watcher says.
        source: notify::Error,
    },
}

/// An error with all its causes in one line.
pub(super) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        // Transparent errors say the same twice.
        if !text.ends_with(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        source = cause.source();
    }
    text
}
