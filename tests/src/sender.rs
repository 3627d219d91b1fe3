//! Sending frames that no stack would send.

use std::{
    os::fd::{AsRawFd as _, OwnedFd},
    panic, thread,
};

use anyhow::{Context as _, Result, ensure};
use nix::{
    sched::{CpuSet, sched_getcpu, sched_setaffinity},
    sys::socket::{MsgFlags, send},
    unistd::Pid,
};

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

    /// Sends frames that are handled in this order at the other end of a veth: all from one CPU, whose backlog is a
    /// queue. Frames of two CPUs may overtake each other.
    ///
    /// # Panics
    ///
    /// When the thread that sends panics.
    pub fn send_in_order(&self, frames: &[&[u8]]) -> Result<()> {
        let send_all = || {
            let mut cpus = CpuSet::new();
            cpus.set(sched_getcpu().context("cannot tell the CPU")?)?;
            // 0 is the calling thread: one of its own, so that the caller's stays free.
            sched_setaffinity(Pid::from_raw(0), &cpus).context("cannot stay on one CPU")?;
            frames.iter().try_for_each(|frame| self.send(frame))
        };
        thread::scope(|scope| scope.spawn(send_all).join())
            .unwrap_or_else(|panic| panic::resume_unwind(panic))
    }
}
