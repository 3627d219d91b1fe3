//! The socket that the hosts tell each other by.

use std::{
    io,
    net::{Ipv4Addr, SocketAddr, SocketAddrV4},
};

use tokio::net::UdpSocket;

use super::message::LONGEST;

/// Bytes of datagrams that the kernel may keep while the agent is busy; it grants at most `net.core.rmem_max`.
const RECEIVE_BUFFER: usize = 4 << 20;

/// A UDP socket on this host's VTEP.
#[derive(Debug)]
pub struct PeerSocket {
    socket: UdpSocket,
    port: u16,
    /// One byte more than a datagram may have, so that a longer one is not taken for one of them.
    buffer: Box<[u8; LONGEST + 1]>,
}

impl PeerSocket {
    /// Binds the VTEP and the port, which all hosts have in common. The address must be one of this host's.
    pub fn bind(vtep: Ipv4Addr, port: u16) -> io::Result<Self> {
        let socket = std::net::UdpSocket::bind(SocketAddrV4::new(vtep, port))?;
        socket.set_nonblocking(true)?;
        socket2::SockRef::from(&socket).set_recv_buffer_size(RECEIVE_BUFFER)?;
        Ok(Self { socket: UdpSocket::from_std(socket)?, port, buffer: Box::new([0; LONGEST + 1]) })
    }

    /// The VTEP and the port.
    pub fn local_address(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }

    /// Waits until there may be a datagram. Cancel-safe.
    pub async fn readable(&self) -> io::Result<()> {
        self.socket.readable().await
    }

    /// The next datagram and the address that it came from; `None`: there is none at the moment.
    pub fn receive(&mut self) -> io::Result<Option<(Ipv4Addr, &[u8])>> {
        loop {
            match self.socket.try_recv_from(self.buffer.as_mut_slice()) {
                Ok((length, SocketAddr::V4(from))) => {
                    return Ok(Some((*from.ip(), self.buffer.get(..length).unwrap_or_default())));
                }
                Ok((_, SocketAddr::V6(_))) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(None),
                Err(error) => return Err(error),
            }
        }
    }

    /// Sends a datagram to a host's VTEP. One that the kernel has no room for, or no way for, is lost like one that the network
    /// loses: what matters is sent again.
    pub fn send(&self, vtep: Ipv4Addr, datagram: &[u8]) -> io::Result<()> {
        // Not through the runtime, which may not know yet that the socket is writable.
        let to = SocketAddrV4::new(vtep, self.port);
        socket2::SockRef::from(&self.socket).send_to(datagram, &to.into()).map(drop)
    }
}
