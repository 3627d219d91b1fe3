//! Sockets whose packets come with the kernel's receive times, and raw sockets on one interface.

use std::{
    io::IoSliceMut,
    os::fd::{AsFd, AsRawFd as _, OwnedFd},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use nix::{
    cmsg_space,
    errno::Errno,
    libc,
    net::if_::if_nametoindex,
    sys::{
        socket::{
            AddressFamily, ControlMessageOwned, LinkAddr, MsgFlags, SockFlag, SockType, SockaddrLike as _,
            bind, recvmsg, setsockopt, socket, sockopt,
        },
        time::{TimeSpec, TimeVal, TimeValLike as _},
    },
};

use crate::{Netns, clock::Clock};

/// Room for a second of 50 000 large packets a second, the reader thread standing still.
const RECEIVE_BUFFER: usize = 64 << 20;

/// How long a reader may sleep before it looks whether it should end.
const READ_TIME: Duration = Duration::from_millis(20);

/// The longest frame: a GSO packet of 64 KiB with its headers.
pub(crate) const LONGEST: usize = (64 << 10) + 256;

/// One packet off a socket.
pub(crate) struct Received {
    /// Length of the packet, which stands at the start of the reader's buffer.
    pub(crate) length: usize,
    /// When the receiving stack saw it.
    pub(crate) at: Instant,
    /// Whether it was on its way out of the interface (packet sockets only).
    pub(crate) outgoing: bool,
    /// Packets that the socket's full buffer has lost since it was made (`SO_RXQ_OVFL`).
    pub(crate) overflowed: u32,
}

/// Reads packets with their times from any datagram or packet socket.
pub(crate) struct StampedSocket<S> {
    socket: S,
    clock: Clock,
}

impl<S: AsFd> StampedSocket<S> {
    /// Prepares the socket: a large buffer, stamps, and reads that come back at least every 20 ms.
    pub(crate) fn new(socket: S) -> Result<Self> {
        let fd = socket.as_fd();
        setsockopt(&fd, sockopt::RcvBufForce, &RECEIVE_BUFFER).context("cannot enlarge a socket's buffer")?;
        setsockopt(&fd, sockopt::ReceiveTimestampns, &true).context("cannot ask for receive times")?;
        setsockopt(&fd, sockopt::RxqOvfl, &1).context("cannot ask for a socket's losses")?;
        let limit = TimeVal::milliseconds(i64::try_from(READ_TIME.as_millis())?);
        setsockopt(&fd, sockopt::ReceiveTimeout, &limit).context("cannot limit a socket's reads")?;
        Ok(Self { socket, clock: Clock::read() })
    }

    pub(crate) fn socket(&self) -> &S {
        &self.socket
    }

    /// The next packet, copied to the start of `buffer`; None when none came within 20 ms.
    pub(crate) fn receive(&self, buffer: &mut [u8]) -> Result<Option<Received>> {
        let mut control = cmsg_space!(TimeSpec, u32);
        let mut parts = [IoSliceMut::new(buffer)];
        let fd = self.socket.as_fd().as_raw_fd();
        let message = match recvmsg::<LinkAddr>(fd, &mut parts, Some(&mut control), MsgFlags::empty()) {
            Ok(message) => message,
            // ENETDOWN: the interface is down or was taken away; what comes back under its name is another one.
            Err(Errno::EAGAIN | Errno::EINTR | Errno::ENETDOWN) => return Ok(None),
            Err(error) => return Err(error).context("cannot read from a socket"),
        };
        let (mut at, mut overflowed) = (Instant::now(), 0);
        for part in message.cmsgs().context("the kernel's control messages do not fit")? {
            match part {
                ControlMessageOwned::ScmTimestampns(stamp) => at = self.clock.instant(stamp),
                ControlMessageOwned::RxqOvfl(count) => overflowed = count,
                _ => {}
            }
        }
        let outgoing = message.address.is_some_and(|from| from.pkttype() == libc::PACKET_OUTGOING);
        Ok(Some(Received { length: message.bytes, at, outgoing, overflowed }))
    }
}

/// Frames that a packet socket's full buffer has lost since the last reading (packet(7), `PACKET_STATISTICS`).
pub(crate) fn lost_frames(socket: &impl AsFd) -> Result<u32> {
    let mut statistics = libc::tpacket_stats { tp_packets: 0, tp_drops: 0 };
    let mut length = libc::socklen_t::try_from(size_of_val(&statistics))?;
    let fd = socket.as_fd().as_raw_fd();
    let (level, option) = (libc::SOL_PACKET, libc::PACKET_STATISTICS);
    // SAFETY: the pointers are to a live tpacket_stats and to its length, which bounds what the kernel writes; the
    // struct is two integers, so whatever is written is valid. nix has no such option and no public way to add one.
    let result =
        unsafe { libc::getsockopt(fd, level, option, (&raw mut statistics).cast(), &raw mut length) };
    Errno::result(result).context("cannot read a packet socket's statistics")?;
    Ok(statistics.tp_drops)
}

/// Which frames a packet socket is given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Taking {
    /// All, in both directions.
    Everything,
    /// None: the socket only sends.
    Nothing,
}

/// A raw packet socket (packet(7)) on one interface of a namespace.
pub(crate) fn open(netns: &Netns, interface: &str, taking: Taking) -> Result<OwnedFd> {
    netns.exec(|| {
        let index =
            if_nametoindex(interface).with_context(|| format!("there is no interface {interface}"))?;
        // Without a protocol the socket takes nothing until it is bound: no frame of another interface slips in.
        let socket = socket(AddressFamily::Packet, SockType::Raw, SockFlag::SOCK_CLOEXEC, None)
            .context("cannot open a packet socket")?;
        let protocol = match taking {
            Taking::Everything => u16::try_from(libc::ETH_P_ALL)?.to_be(),
            Taking::Nothing => 0,
        };
        bind(socket.as_raw_fd(), &link_address(index, protocol)?)
            .with_context(|| format!("cannot bind a packet socket to {interface}"))?;
        Ok(socket)
    })
}

/// The address of an interface; `protocol` in network byte order.
fn link_address(index: u32, protocol: u16) -> Result<LinkAddr> {
    let address = libc::sockaddr_ll {
        sll_family: u16::try_from(libc::AF_PACKET)?,
        sll_protocol: protocol,
        sll_ifindex: i32::try_from(index)?,
        sll_hatype: 0,
        sll_pkttype: 0,
        sll_halen: 0,
        sll_addr: [0; 8],
    };
    let length = libc::socklen_t::try_from(size_of_val(&address))?;
    // SAFETY: the pointer is to a live sockaddr_ll of exactly `length` bytes, and its family is AF_PACKET; from_raw
    // copies it. nix has no other way to make a LinkAddr.
    match unsafe { LinkAddr::from_raw((&raw const address).cast(), Some(length)) } {
        Some(address) => Ok(address),
        None => bail!("the address of interface {index} was refused"),
    }
}
