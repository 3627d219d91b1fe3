//! Frames that the agent itself sends.

use std::io;

use socket2::{Domain, SockAddr, SockAddrStorage, Socket, Type};

use super::NetError;

/// Sends whole Ethernet frames through one interface, and receives none.
///
/// The frames leave as if the host's stack had sent them, so the interface's egress hooks and queue apply.
#[derive(Debug)]
pub struct PacketSocket {
    socket: Socket,
    ifindex: u32,
}

impl PacketSocket {
    /// Opens a socket in the calling thread's network namespace (packet(7); `CAP_NET_RAW`).
    ///
    /// It is bound with protocol 0: no frame that passes the interface is ever copied to it.
    pub fn open(ifindex: u32) -> Result<Self, NetError> {
        let open = || -> io::Result<Socket> {
            let socket = Socket::new(Domain::PACKET, Type::RAW.nonblocking().cloexec(), None)?;
            socket.bind(&address(ifindex)?)?;
            Ok(socket)
        };
        match open() {
            Ok(socket) => Ok(Self { socket, ifindex }),
            Err(source) if matches!(source.raw_os_error(), Some(libc::ENODEV | libc::ENXIO)) => {
                Err(NetError::NoSuchInterface { operation: "open a packet socket", ifindex })
            }
            Err(source) => Err(NetError::PacketSocket { ifindex, source }),
        }
    }

    /// Sends one frame, Ethernet header included, without waiting: a full queue is an error (`WouldBlock`), because what
    /// the agent sends (ARP) is repeated anyway.
    pub fn send(&self, frame: &[u8]) -> Result<(), NetError> {
        let failed = |source| NetError::Send { ifindex: self.ifindex, len: frame.len(), source };
        match self.socket.send(frame) {
            Ok(sent) if sent == frame.len() => Ok(()),
            Ok(_) => Err(failed(io::ErrorKind::WriteZero.into())),
            Err(source) if matches!(source.raw_os_error(), Some(libc::ENODEV | libc::ENXIO)) => {
                Err(NetError::NoSuchInterface { operation: "send a frame", ifindex: self.ifindex })
            }
            Err(source) => Err(failed(source)),
        }
    }
}

/// The address "all of this interface, no protocol". socket2 knows the family but builds no address of it, and no safe crate
/// in the tree does.
fn address(ifindex: u32) -> io::Result<SockAddr> {
    let ifindex = i32::try_from(ifindex).map_err(|_| io::Error::from_raw_os_error(libc::ENODEV))?;
    let family = libc::sa_family_t::try_from(libc::AF_PACKET).map_err(io::Error::other)?;
    let mut storage = SockAddrStorage::zeroed();
    // SAFETY: sockaddr_ll is one of the kernel's address types, made of integers only, and so fits the storage in size and
    // alignment; view_as promises no more than socket2 demands for such types.
    let link: &mut libc::sockaddr_ll = unsafe { storage.view_as() };
    link.sll_family = family;
    link.sll_ifindex = ifindex;
    let len = libc::socklen_t::try_from(size_of::<libc::sockaddr_ll>()).map_err(io::Error::other)?;
    // SAFETY: the storage holds a sockaddr_ll, written through the line above over zeroes, and len is that type's size.
    Ok(unsafe { SockAddr::new(storage, len) })
}
