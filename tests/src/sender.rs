//! Sending frames that no stack would send.

use std::os::fd::{AsRawFd as _, OwnedFd};

use anyhow::{Context as _, Result, ensure};
use nix::sys::socket::{MsgFlags, send};

use crate::{
    Netns,
    packet_socket::{Taking, open},
};

/// Sends hand-made frames on one interface, as they are.
#[derive(Debug)]
pub struct RawSender {
    socket: OwnedFd,
    interface: String,
}

impl RawSender {
    /// Opens `interface` of a namespace for sending.
    pub fn new(netns: &Netns, interface: &str) -> Result<Self> {
        Ok(Self { socket: open(netns, interface, Taking::Nothing)?, interface: interface.to_owned() })
    }

    /// Sends one frame, Ethernet header first.
    pub fn send(&self, frame: &[u8]) -> Result<()> {
        let sent = send(self.socket.as_raw_fd(), frame, MsgFlags::empty())
            .with_context(|| format!("cannot send a frame of {} bytes on {}", frame.len(), self.interface))?;
        ensure!(sent == frame.len(), "only {sent} of {} bytes left {}", frame.len(), self.interface);
        Ok(())
    }
}
