//! A guest that is a program: it holds the other end of a tap and speaks as virtio-net does, with a header before each frame.

use std::{
    fs::{File, OpenOptions},
    io::{Read as _, Write as _},
    os::{
        fd::{AsFd as _, AsRawFd as _},
        unix::fs::OpenOptionsExt as _,
    },
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use nix::{
    errno::Errno,
    libc,
    poll::{PollFd, PollFlags, PollTimeout, poll},
};

use crate::Netns;

/// `struct virtio_net_hdr` (virtio 1.2, section 5.1.6): what stands before each frame.
const HEADER: usize = 10;

/// The longest frame: a GSO packet of 64 KiB with its headers.
const LONGEST: usize = (64 << 10) + 256;

/// `VIRTIO_NET_HDR_F_NEEDS_CSUM`: the checksum field holds the pseudo-header's sum, and whoever sends the frame on completes it.
const NEEDS_CHECKSUM: u8 = 1;
/// `VIRTIO_NET_HDR_GSO_NONE`, `VIRTIO_NET_HDR_GSO_TCPV4` and `VIRTIO_NET_HDR_GSO_UDP_L4`.
const GSO_NONE: u8 = 0;
const GSO_TCP4: u8 = 1;
const GSO_UDP: u8 = 5;

/// `TUN_F_USO4` and `TUN_F_USO6` (Linux 6.2), which only go together.
const LARGE_UDP: u32 = 0x20 | 0x40;

/// What a driver leaves to the device.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Offload {
    /// The checksum of what begins at `start` (bytes from the frame's begin) is to be put `offset` bytes behind that.
    pub checksum: Option<(u16, u16)>,
    /// The frame is to be cut into segments.
    pub segments: Option<Segments>,
}

/// What a large packet carries over IPv4.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Large {
    /// One TCP segment of many.
    Tcp,
    /// One UDP datagram of many.
    Udp,
}

/// How a large packet is to be cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segments {
    /// What is cut.
    pub kind: Large,
    /// Bytes of all headers, which each segment repeats.
    pub headers: u16,
    /// Most bytes of payload in a segment.
    pub payload: u16,
}

impl Offload {
    fn header(self) -> [u8; HEADER] {
        let (flags, (start, offset)) = match self.checksum {
            Some(place) => (NEEDS_CHECKSUM, place),
            None => (0, (0, 0)),
        };
        let (kind, headers, payload) = match self.segments {
            Some(Segments { kind: Large::Tcp, headers, payload }) => (GSO_TCP4, headers, payload),
            Some(Segments { kind: Large::Udp, headers, payload }) => (GSO_UDP, headers, payload),
            None => (GSO_NONE, 0, 0),
        };
        // Taps have the byte order of the machine unless they are told otherwise.
        let words = [headers, payload, start, offset].map(u16::to_ne_bytes);
        let mut header = [flags, kind, 0, 0, 0, 0, 0, 0, 0, 0];
        for (place, byte) in header.iter_mut().skip(2).zip(words.into_iter().flatten()) {
            *place = byte;
        }
        header
    }

    fn parse(header: [u8; HEADER]) -> Result<Self> {
        let [flags, kind, h0, h1, p0, p1, s0, s1, o0, o1] = header;
        let word = |low, high| u16::from_ne_bytes([low, high]);
        let checksum = (flags & NEEDS_CHECKSUM != 0).then(|| (word(s0, s1), word(o0, o1)));
        let kind = match kind {
            GSO_NONE => return Ok(Self { checksum, segments: None }),
            GSO_TCP4 => Large::Tcp,
            GSO_UDP => Large::Udp,
            _ => bail!("a frame of GSO type {kind}, which was not asked for"),
        };
        let segments = Segments { kind, headers: word(h0, h1), payload: word(p0, p1) };
        Ok(Self { checksum, segments: Some(segments) })
    }
}

/// A frame off a tap.
#[derive(Clone, Debug)]
pub struct TapFrame {
    /// What the kernel left to the device.
    pub offload: Offload,
    /// From the Ethernet header on.
    pub bytes: Vec<u8>,
}

/// What a guest's driver takes from its device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Offers {
    /// Complete checksums and frames of the MTU's size only.
    Nothing,
    /// Partial checksums and large TCP packets: `VIRTIO_NET_F_GUEST_CSUM` and `VIRTIO_NET_F_GUEST_TSO4`.
    LargeTcp,
    /// Large UDP packets too: `VIRTIO_NET_F_GUEST_USO4` and its sibling for IPv6 (Linux 6.2).
    LargeUdp,
}

impl Offers {
    /// For `TUNSETOFFLOAD`.
    fn flags(self) -> u32 {
        match self {
            Self::Nothing => 0,
            Self::LargeTcp => libc::TUN_F_CSUM | libc::TUN_F_TSO4,
            Self::LargeUdp => libc::TUN_F_CSUM | libc::TUN_F_TSO4 | LARGE_UDP,
        }
    }
}

/// The guest's end of a tap interface, which exists as long as this does.
#[derive(Debug)]
pub struct Tap {
    file: File,
    interface: String,
}

impl Tap {
    /// Makes the interface in a namespace, up, for a driver that takes partial checksums and large TCP packets.
    pub fn create(netns: &Netns, interface: &str) -> Result<Self> {
        Self::create_with(netns, interface, Offers::LargeTcp)
    }

    /// The same for a driver that takes these.
    pub fn create_with(netns: &Netns, interface: &str, offers: Offers) -> Result<Self> {
        let file = netns.exec(|| {
            let file = attach(interface)?;
            offer(&file, offers).with_context(|| format!("cannot set the offloads of {interface}"))?;
            Ok(file)
        })?;
        netns.ip(&format!("link set dev {interface} up"))?;
        Ok(Self { file, interface: interface.to_owned() })
    }

    /// Whether taps of this kernel take large UDP packets, asked of one that is made for that and gone afterwards.
    pub fn takes_large_udp(netns: &Netns) -> Result<bool> {
        netns.exec(|| match offer(&attach("asked")?, Offers::LargeUdp) {
            Ok(()) => Ok(true),
            Err(Errno::EINVAL) => Ok(false),
            Err(error) => Err(error).context("cannot set the offloads of a tap"),
        })
    }

    /// The interface's name.
    pub fn interface(&self) -> &str {
        &self.interface
    }

    /// Sends a frame to the host.
    pub fn send(&self, frame: &[u8], offload: Offload) -> Result<()> {
        let bytes = [&offload.header(), frame].concat();
        let written = (&self.file).write(&bytes);
        let written =
            written.with_context(|| format!("cannot send {} bytes on {}", frame.len(), self.interface))?;
        ensure!(written == bytes.len(), "only {written} of {} bytes left on {}", bytes.len(), self.interface);
        Ok(())
    }

    /// The next frame from the host for which `wanted` holds, waited for at most `limit`; `what` names it in the error.
    /// Others are passed over.
    pub fn receive(
        &self,
        limit: Duration,
        what: &str,
        wanted: impl Fn(&TapFrame) -> bool,
    ) -> Result<TapFrame> {
        let deadline = Instant::now() + limit;
        let mut others = 0;
        loop {
            let Some(frame) = self.next(deadline.saturating_duration_since(Instant::now()))? else {
                bail!(
                    "waited {limit:?} in vain for {what} on {}; {others} other frames came",
                    self.interface
                );
            };
            if wanted(&frame) {
                return Ok(frame);
            }
            others += 1;
        }
    }

    fn next(&self, limit: Duration) -> Result<Option<TapFrame>> {
        let mut buffer = vec![0; HEADER + LONGEST];
        let mut ready = [PollFd::new(self.file.as_fd(), PollFlags::POLLIN)];
        let milliseconds = PollTimeout::try_from(limit).unwrap_or(PollTimeout::MAX);
        if poll(&mut ready, milliseconds).context("cannot wait for a tap")? == 0 {
            return Ok(None);
        }
        let length =
            (&self.file).read(&mut buffer).with_context(|| format!("cannot read from {}", self.interface))?;
        buffer.truncate(length);
        let (header, bytes) = buffer.split_first_chunk().context("a frame without its header")?;
        Ok(Some(TapFrame { offload: Offload::parse(*header)?, bytes: bytes.to_vec() }))
    }
}

/// Makes the interface in the namespace of the calling thread and gives its other end (`TUNSETIFF`).
fn attach(interface: &str) -> Result<File> {
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(libc::O_NONBLOCK)
        .open("/dev/net/tun")
        .context("cannot open /dev/net/tun: has this kernel no tun?")?;
    // SAFETY: the struct is made of integers and unions of integers, for which zero bytes are valid.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    ensure!(interface.len() < libc::IFNAMSIZ, "{interface} is too long a name for an interface");
    for (place, byte) in request.ifr_name.iter_mut().zip(interface.bytes()) {
        *place = libc::c_char::from_ne_bytes([byte]);
    }
    let flags = libc::IFF_TAP | libc::IFF_NO_PI | libc::IFF_VNET_HDR;
    request.ifr_ifru.ifru_flags = libc::c_short::try_from(flags)?;
    // SAFETY: TUNSETIFF reads and writes the ifreq that the pointer leads to, which lives here. nix has no such call.
    let made = unsafe { libc::ioctl(file.as_raw_fd(), libc::TUNSETIFF, &raw mut request) };
    Errno::result(made).with_context(|| format!("cannot make the tap {interface}"))?;
    Ok(file)
}

/// Tells a tap what the driver takes (`TUNSETOFFLOAD`).
fn offer(file: &File, offers: Offers) -> nix::Result<()> {
    let flags = libc::c_ulong::from(offers.flags());
    // SAFETY: TUNSETOFFLOAD takes its argument as a number and touches no memory of ours.
    let offered = unsafe { libc::ioctl(file.as_raw_fd(), libc::TUNSETOFFLOAD, flags) };
    Errno::result(offered).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn segments(kind: Large, headers: u16) -> Segments {
        Segments { kind, headers, payload: 1400 }
    }

    #[test]
    fn offloads_survive_their_header() {
        for offload in [
            Offload::default(),
            Offload { checksum: Some((34, 16)), segments: None },
            Offload { checksum: Some((34, 16)), segments: Some(segments(Large::Tcp, 54)) },
            Offload { checksum: Some((34, 6)), segments: Some(segments(Large::Udp, 42)) },
        ] {
            assert_eq!(Offload::parse(offload.header()).ok(), Some(offload));
        }
    }

    #[test]
    fn a_segmentation_that_nobody_offered_is_refused() {
        assert!(Offload::parse([0, 3, 0, 0, 0, 0, 0, 0, 0, 0]).is_err());
    }
}
