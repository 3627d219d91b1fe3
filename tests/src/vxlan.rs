//! VXLAN as the wire has it (RFC 7348), taken apart and built without the forwarder's code.

use std::net::Ipv4Addr;

use anyhow::{Context as _, Result, ensure};
use etherparse::{LaxNetSlice, PacketBuilder, TransportSlice};

use crate::{Mac, frame::Frame, offload::sum};

/// The UDP port that IANA has given VXLAN (RFC 7348 section 5).
pub const PORT: u16 = 4789;

/// Bytes of the VXLAN header.
const HEADER: usize = 8;

/// The flag I: the VNI is valid.
const VNI_IS_VALID: u8 = 0x08;

/// Bytes of an IPv4 header without options.
const PLAIN_IPV4: usize = 20;

/// A frame inside VXLAN, and what stands before it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tunnelled {
    /// Where it comes from: the sender's VTEP.
    pub source: Ipv4Addr,
    /// Where it goes to: the receiver's VTEP.
    pub destination: Ipv4Addr,
    /// The outer source port, which tells flows apart.
    pub source_port: u16,
    /// The VNI, 24 bits.
    pub vni: u32,
    /// The guest's frame, with time and direction of the outer one.
    pub inner: Frame,
}

impl Frame {
    /// The frame inside, if this is VXLAN with a valid VNI.
    pub fn tunnelled(&self) -> Option<Tunnelled> {
        let packet = self.packet()?;
        let (Some(LaxNetSlice::Ipv4(ip)), Some(TransportSlice::Udp(udp))) = (packet.net, packet.transport)
        else {
            return None;
        };
        let (header, inner) = udp.payload().split_at_checked(HEADER)?;
        let [flags, _, _, _, a, b, c, _] = *header else { return None };
        (udp.destination_port() == PORT && flags & VNI_IS_VALID != 0).then(|| Tunnelled {
            source: ip.header().source_addr(),
            destination: ip.header().destination_addr(),
            source_port: udp.source_port(),
            vni: u32::from_be_bytes([0, a, b, c]),
            inner: Frame { at: self.at, outgoing: self.outgoing, bytes: inner.to_vec() },
        })
    }

    /// Fails unless the outer headers are those of an honest VTEP: IPv4 without options and with a right checksum, DF, TTL 64, no fragment,
    /// lengths that fit, a source port of the dynamic range as RFC 7348 section 4.1 wants, or of the forwarder's mark for what it sends on
    /// a second time (16384 to 32767); no UDP checksum; nothing set in VXLAN that is reserved.
    pub fn check_outer(&self) -> Result<()> {
        let packet = self.packet().context("the frame cannot be taken apart")?;
        let (Some(LaxNetSlice::Ipv4(ip)), Some(TransportSlice::Udp(udp))) = (&packet.net, &packet.transport)
        else {
            anyhow::bail!("no UDP over IPv4: {self:?}");
        };
        let header = ip.header();
        ensure!(header.slice().len() == PLAIN_IPV4, "the outer header has options: {self:?}");
        ensure!(sum(header.slice()) == u16::MAX, "the outer IPv4 checksum is wrong: {self:?}");
        ensure!(header.ttl() == 64, "the outer TTL is {}", header.ttl());
        ensure!(header.dont_fragment() && !ip.payload().fragmented, "the outer packet may be cut: {self:?}");
        let length = usize::from(header.total_len());
        ensure!(self.bytes.len() == 14 + length, "{} bytes for a packet of {length}", self.bytes.len());
        ensure!(usize::from(udp.length()) == length - PLAIN_IPV4, "UDP's length is {}", udp.length());
        ensure!(udp.checksum() == 0, "a UDP checksum over IPv4: {:#06x}", udp.checksum());
        ensure!(udp.destination_port() == PORT, "to port {}", udp.destination_port());
        let source = udp.source_port();
        ensure!(
            matches!(source, 49152..=65535 | 16384..=32767),
            "the source port {source} is in neither range"
        );
        let header = udp.payload().first_chunk::<HEADER>().context("no VXLAN header")?;
        ensure!(
            matches!(header, [VNI_IS_VALID, 0, 0, 0, _, _, _, 0]),
            "reserved bits of VXLAN are set: {header:02x?}"
        );
        Ok(())
    }
}

/// An outer header that somebody makes up.
#[derive(Clone, Copy, Debug)]
pub struct Outer {
    /// Ethernet source and destination.
    pub macs: (Mac, Mac),
    /// IPv4 source.
    pub source: Ipv4Addr,
    /// IPv4 destination.
    pub destination: Ipv4Addr,
    /// UDP source port.
    pub source_port: u16,
    /// VNI.
    pub vni: u32,
}

impl Outer {
    /// A frame inside these headers; UDP has a checksum, as some VTEPs send it.
    pub fn around(&self, inner: &[u8]) -> Result<Vec<u8>> {
        let Self { macs, source, destination, source_port, vni } = *self;
        let [_, a, b, c] = vni.to_be_bytes();
        let payload = [&[VNI_IS_VALID, 0, 0, 0, a, b, c, 0], inner].concat();
        let builder = PacketBuilder::ethernet2(macs.0.0, macs.1.0)
            .ipv4(source.octets(), destination.octets(), 64)
            .udp(source_port, PORT);
        let mut frame = Vec::new();
        builder.write(&mut frame, &payload).context("cannot build a frame")?;
        Ok(frame)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;
    use crate::frame::Arp;

    const MACS: (Mac, Mac) = (Mac([2, 0, 0, 0, 0, 1]), Mac([2, 0, 0, 0, 0, 2]));

    fn outer() -> Outer {
        let (source, destination) = (Ipv4Addr::new(172, 31, 0, 1), Ipv4Addr::new(172, 31, 0, 2));
        Outer { macs: MACS, source, destination, source_port: 50_000, vni: 0x000a_0b0c }
    }

    fn frame(bytes: Vec<u8>) -> Frame {
        Frame { at: Instant::now(), outgoing: false, bytes }
    }

    #[test]
    fn a_tunnelled_frame_is_taken_apart_as_it_was_built() {
        let inner = Arp::probe(MACS.0, Ipv4Addr::new(10, 0, 0, 1)).frame(MACS.0, Mac::BROADCAST);
        let found = frame(outer().around(&inner).expect("it is short")).tunnelled().expect("VXLAN");
        assert_eq!((found.vni, found.source_port, found.inner.bytes), (0x000a_0b0c, 50_000, inner));
        assert_eq!((found.source, found.destination), (outer().source, outer().destination));
    }

    #[test]
    fn without_the_flag_or_the_port_it_is_none() {
        let bytes = outer().around(&[0; 60]).expect("it is short");
        // Ethernet, IPv4, UDP: the flags stand at 42, the destination port at 36.
        for at in [36, 37, 42] {
            let mut other = bytes.clone();
            *other.get_mut(at).expect("within") ^= 0x08;
            assert!(frame(other).tunnelled().is_none(), "byte {at}");
        }
    }

    #[test]
    fn outer_headers_are_judged() {
        let mut right = outer().around(&[0; 60]).expect("it is short");
        // The builder sets a checksum of UDP, which the judge does not want.
        for at in [40, 41] {
            *right.get_mut(at).expect("within") = 0;
        }
        frame(right.clone()).check_outer().expect("an honest VTEP's");
        // Length, fragment and DF, TTL, checksum, source port, UDP's length and checksum, flags, reserved bytes.
        for at in [17, 20, 21, 22, 25, 34, 39, 41, 42, 43, 45, 49] {
            let mut wrong = right.clone();
            *wrong.get_mut(at).expect("within") ^= 0x40;
            assert!(frame(wrong).check_outer().is_err(), "byte {at}");
        }
    }
}
