//! Notifications that the kernel sends by multicast.

use std::{future::poll_fn, io, task::Poll};

use netlink_sys::{AsyncSocket as _, Socket, SocketAddr, TokioSocket};

use super::NetError;

/// Bytes of notifications the kernel may keep for us while we are busy; it grants at most `net.core.rmem_max`.
const RECEIVE_BUFFER: usize = 4 << 20;

/// Room for one datagram, in bytes; the kernel puts one notification into each, and they are a few hundred bytes long. A
/// longer one would be cut, which the reader of its messages notices.
const DATAGRAM: usize = 32 << 10;

/// What a read brought.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Notice {
    /// One datagram: one or more netlink messages.
    Messages(Vec<u8>),
    /// The kernel had to throw notifications away: only a new snapshot tells what happened.
    Lost,
}

/// A netlink socket that only listens.
pub(super) struct Listener {
    socket: TokioSocket,
    operation: &'static str,
}

impl Listener {
    /// Joins multicast groups (by number) of a netlink protocol in the calling thread's network namespace.
    pub(super) fn join(protocol: isize, groups: &[u32], operation: &'static str) -> Result<Self, NetError> {
        let open = || -> io::Result<TokioSocket> {
            let mut socket = TokioSocket::new(protocol)?;
            let raw: &mut Socket = socket.socket_mut();
            raw.set_rx_buf_sz(RECEIVE_BUFFER)?;
            raw.bind(&SocketAddr::new(0, 0))?;
            groups.iter().try_for_each(|&group| raw.add_membership(group))?;
            Ok(socket)
        };
        let socket = open().map_err(|source| NetError::Open { operation, source })?;
        Ok(Self { socket, operation })
    }

    /// Waits for the next notification. Cancel-safe: a datagram is either returned or still in the socket.
    pub(super) async fn next(&mut self) -> Result<Notice, NetError> {
        poll_fn(|context| self.poll_next(context)).await
    }

    /// Takes all notifications that have arrived and forgets them; for watches that take a new snapshot anyway.
    pub(super) async fn drain(&mut self) -> Result<(), NetError> {
        poll_fn(|context| {
            loop {
                match self.poll_next(context) {
                    Poll::Ready(Ok(_)) => {}
                    Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                    Poll::Pending => return Poll::Ready(Ok(())),
                }
            }
        })
        .await
    }

    fn poll_next(&mut self, context: &mut std::task::Context<'_>) -> Poll<Result<Notice, NetError>> {
        let mut datagram = Vec::with_capacity(DATAGRAM);
        match self.socket.poll_recv_from(context, &mut datagram) {
            Poll::Pending => Poll::Pending,
            Poll::Ready(Ok(_)) => Poll::Ready(Ok(Notice::Messages(datagram))),
            Poll::Ready(Err(error)) if error.raw_os_error() == Some(libc::ENOBUFS) => {
                Poll::Ready(Ok(Notice::Lost))
            }
            Poll::Ready(Err(source)) => {
                Poll::Ready(Err(NetError::Listen { operation: self.operation, source }))
            }
        }
    }
}
