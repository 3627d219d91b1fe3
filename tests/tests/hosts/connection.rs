//! TCP connections to the VIP, and what becomes of them.

use std::{
    io::{ErrorKind, Read as _, Write as _},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    time::Duration,
};

use anyhow::{Context as _, Result, bail, ensure};
use vip_lab::{
    Cluster, Guest, Netns, capture::Capture, etherparse::TransportSlice, frame::Frame, poll_until,
};

use crate::stage::SOON;

/// Where servers listen.
pub(crate) const SERVICE: u16 = 7000;

/// What is said, and echoed.
const WORD: &[u8; 5] = b"hello";

/// Whether a frame that came in is for the service.
fn is_for_service(frame: &Frame) -> bool {
    let is_for =
        |transport| matches!(transport, TransportSlice::Tcp(tcp) if tcp.destination_port() == SERVICE);
    !frame.outgoing && frame.packet().and_then(|packet| packet.transport).is_some_and(is_for)
}

/// A capture of what comes to a guest for the service.
pub(crate) fn watch_service(guest: &Guest) -> Result<Capture> {
    Capture::start_keeping(guest.netns(), "eth0", is_for_service)
}

/// A connection and the server's end of it.
pub(crate) struct Connection {
    client: TcpStream,
    server: TcpStream,
}

impl Connection {
    /// From a namespace to an address, where one of these guests answers.
    pub(crate) fn open(cluster: &Cluster, from: &Netns, to: Ipv4Addr, servers: &[&str]) -> Result<Self> {
        let listen = |name: &&str| -> Result<TcpListener> {
            let address = (Ipv4Addr::UNSPECIFIED, SERVICE);
            let listener = cluster.guest(name)?.netns().exec(|| Ok(TcpListener::bind(address)?))?;
            listener.set_nonblocking(true)?;
            Ok(listener)
        };
        let listeners = servers.iter().map(listen).collect::<Result<Vec<_>>>()?;
        let client = from.exec(|| Ok(TcpStream::connect_timeout(&SocketAddr::from((to, SERVICE)), SOON)?))?;
        let (server, _) = poll_until(SOON, "a server to take the connection", || {
            listeners.iter().find_map(|listener| listener.accept().ok())
        })?;
        for end in [&client, &server] {
            end.set_read_timeout(Some(SOON))?;
            end.set_write_timeout(Some(SOON))?;
            end.set_nodelay(true)?;
        }
        Ok(Self { client, server })
    }

    /// The client says something.
    pub(crate) fn say(&mut self) -> Result<()> {
        Ok(self.client.write_all(WORD)?)
    }

    /// Fails unless what the client said arrives, and its echo.
    pub(crate) fn ensure_heard(&mut self) -> Result<()> {
        let mut word = [0; WORD.len()];
        self.server.read_exact(&mut word).context("the word did not arrive")?;
        self.server.write_all(&word)?;
        self.client.read_exact(&mut word).context("the echo did not arrive")?;
        ensure!(&word == WORD, "the echo is {word:?}");
        Ok(())
    }

    /// Fails if what the client said arrives within half a second.
    pub(crate) fn ensure_unheard(&mut self) -> Result<()> {
        self.server.set_read_timeout(Some(Duration::from_millis(500)))?;
        let early = self.server.read(&mut [0; WORD.len()]);
        self.server.set_read_timeout(Some(SOON))?;
        match early {
            Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(()),
            other => bail!("the old owner still got it, or lost the connection: {other:?}"),
        }
    }

    /// Fails unless a word and its echo pass.
    pub(crate) fn ensure_alive(&mut self) -> Result<()> {
        self.say()?;
        self.ensure_heard()
    }

    /// Fails unless the client is told that its connection is gone.
    pub(crate) fn ensure_reset(&mut self) -> Result<()> {
        self.say()?;
        match self.client.read(&mut [0; WORD.len()]) {
            Err(error) if error.kind() == ErrorKind::ConnectionReset => Ok(()),
            Err(error) => bail!("the connection hangs: {error}"),
            Ok(length) => bail!("{length} bytes came from somebody who has no such connection"),
        }
    }
}
