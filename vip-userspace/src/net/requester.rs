//! Requests to the kernel over one netlink protocol, with answers.
//!
//! Why not rtnetlink's handle: it hides the message headers, and with them the mark of a dump that changed while it was
//! being read (`NLM_F_DUMP_INTR`). A port that is missing from such a dump would look like a port that is gone.

use std::{fmt::Debug, io, time::Duration};

use futures_util::{Stream, StreamExt as _};
use netlink_packet_core::{
    NLM_F_ACK, NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_REQUEST, NetlinkDeserializable, NetlinkHeader,
    NetlinkMessage, NetlinkPayload, NetlinkSerializable,
};
use netlink_proto::ConnectionHandle;
use netlink_sys::{AsyncSocket as _, SocketAddr};
use tokio::time::timeout;

use super::NetError;

/// How long an answer may take. The kernel answers from memory; only a lost answer takes longer.
const PATIENCE: Duration = Duration::from_secs(5);

/// How often a list is asked for until it is consistent. Each attempt reads the whole list, so creating interfaces at
/// full speed does not exhaust it.
const ATTEMPTS: u32 = 32;

/// A netlink socket for requests and their answers; `T` is the protocol's message type.
///
/// Cheap to clone; the socket closes when the last clone is dropped.
#[derive(Debug, Clone)]
pub(super) struct Requester<T: Debug> {
    handle: ConnectionHandle<T>,
}

impl<T> Requester<T>
where
    T: NetlinkSerializable + NetlinkDeserializable + Clone + Debug + Unpin + Send + 'static,
    NetlinkPayload<T>: From<T>,
{
    /// Opens a socket of a netlink protocol (`NETLINK_…`) in the calling thread's network namespace and starts the task
    /// that serves it.
    pub(super) fn open(protocol: isize, operation: &'static str) -> Result<Self, NetError> {
        let failed = |source| NetError::Open { operation, source };
        let (mut connection, handle, _unsolicited) =
            netlink_proto::new_connection::<T>(protocol).map_err(failed)?;
        // The end of a dump carries its error, and an acknowledgement tells success from a lost answer.
        connection.set_forward_done(true);
        connection.set_forward_ack(true);
        // Kernel 4.20: filters in a dump request are obeyed, not ignored.
        connection.socket_mut().socket_mut().set_netlink_get_strict_chk(true).map_err(failed)?;
        tokio::spawn(connection);
        Ok(Self { handle })
    }

    /// Asks for one object.
    pub(super) async fn get(
        &self,
        operation: &'static str,
        ifindex: Option<u32>,
        message: T,
    ) -> Result<T, NetError> {
        let mut answers = self.send(operation, NLM_F_REQUEST, message)?;
        loop {
            match self.answer(operation, &mut answers).await?.payload {
                NetlinkPayload::InnerMessage(message) => return Ok(message),
                NetlinkPayload::Error(error) if error.code.is_some() => {
                    return Err(NetError::refused(operation, ifindex, error.to_io()));
                }
                _ => {}
            }
        }
    }

    /// Has something done, with the given `NLM_F_…` modifiers (create, replace), and waits until it is.
    pub(super) async fn order(
        &self,
        operation: &'static str,
        ifindex: Option<u32>,
        modifiers: u16,
        message: T,
    ) -> Result<(), NetError> {
        let mut answers = self.send(operation, NLM_F_REQUEST | NLM_F_ACK | modifiers, message)?;
        loop {
            if let NetlinkPayload::Error(error) = self.answer(operation, &mut answers).await?.payload {
                return match error.code {
                    None => Ok(()),
                    Some(_) => Err(NetError::refused(operation, ifindex, error.to_io())),
                };
            }
        }
    }

    /// Asks for a list, again and again until it did not change while it was read, and hands each object to `collect`,
    /// which starts from `empty` at each attempt.
    pub(super) async fn dump<C>(
        &self,
        operation: &'static str,
        message: T,
        empty: impl Fn() -> C,
        mut collect: impl FnMut(&mut C, T),
    ) -> Result<C, NetError> {
        for _ in 0..ATTEMPTS {
            let mut collection = empty();
            let mut interrupted = false;
            // The kernel never acknowledges a dump; asked to, netlink-proto waits for the list's end. Without that it takes
            // the first entry for the whole answer where a family forgets NLM_F_MULTI, and netdev does (kernel 6.18).
            let flags = NLM_F_REQUEST | NLM_F_DUMP | NLM_F_ACK;
            let mut answers = self.send(operation, flags, message.clone())?;
            loop {
                let answer = self.answer(operation, &mut answers).await?;
                interrupted |= answer.header.flags & NLM_F_DUMP_INTR != 0;
                match answer.payload {
                    NetlinkPayload::InnerMessage(message) => collect(&mut collection, message),
                    NetlinkPayload::Done(done) if done.code == 0 => break,
                    NetlinkPayload::Done(done) => {
                        let source = io::Error::from_raw_os_error(done.code.saturating_neg());
                        return Err(NetError::refused(operation, None, source));
                    }
                    NetlinkPayload::Error(error) if error.code.is_some() => {
                        return Err(NetError::refused(operation, None, error.to_io()));
                    }
                    _ => {}
                }
            }
            if !interrupted {
                return Ok(collection);
            }
        }
        Err(NetError::Unsettled { operation, attempts: ATTEMPTS })
    }

    fn send(
        &self,
        operation: &'static str,
        flags: u16,
        message: T,
    ) -> Result<impl Stream<Item = NetlinkMessage<T>> + Unpin + use<T>, NetError> {
        let mut header = NetlinkHeader::default();
        header.flags = flags;
        let kernel = SocketAddr::new(0, 0);
        self.handle
            .request(NetlinkMessage::new(header, message.into()), kernel)
            .map_err(|closed| NetError::Refused { operation, source: io::Error::other(closed) })
    }

    async fn answer(
        &self,
        operation: &'static str,
        answers: &mut (impl Stream<Item = NetlinkMessage<T>> + Unpin),
    ) -> Result<NetlinkMessage<T>, NetError> {
        match timeout(PATIENCE, answers.next()).await {
            Ok(Some(answer)) => Ok(answer),
            // The stream ends without an answer only when the socket's task is gone, which takes the runtime with it.
            Ok(None) => Err(NetError::Refused { operation, source: io::ErrorKind::BrokenPipe.into() }),
            Err(_elapsed) => Err(NetError::NoAnswer { operation, waited: PATIENCE }),
        }
    }
}
