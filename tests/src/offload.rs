//! What a network card does with a frame whose driver left work to it, and packets whose checksums are looked at.
//!
//! The sums here are plain additions over whole packets (RFC 1071). They share no code with the forwarder, which only mends, and none
//! with the kernel.

use std::net::SocketAddrV4;

use anyhow::{Context as _, Result, bail, ensure};
use etherparse::{NetSlice, SlicedPacket, TransportSlice};

use crate::{
    Mac,
    tap::{Large, Offload, Segments, TapFrame},
};

/// Bytes of the Ethernet header.
const ETHERNET: usize = 14;

/// Where fields of an IPv4 header stand, from its begin.
const IP_LENGTH: usize = 2;
const IP_ID: usize = 4;
const IP_PROTOCOL: usize = 9;
const IP_CHECKSUM: usize = 10;
const IP_ADDRESSES: usize = 12;

/// Where fields of transport headers stand.
const TCP_SEQUENCE: usize = 4;
const TCP_DATA_OFFSET: usize = 12;
const TCP_FLAGS: usize = 13;
const TCP_CHECKSUM: usize = 16;
const UDP_HEADER: usize = 8;
const UDP_LENGTH: usize = 4;
const UDP_CHECKSUM: usize = 6;

/// FIN and PSH, which only the last of several segments has.
const LAST_FLAGS: u8 = 0x09;

/// Protocol numbers.
const TCP: u8 = 6;
const UDP: u8 = 17;

/// The sum of RFC 1071 over bytes, folded to 16 bits, not inverted.
pub fn sum(bytes: &[u8]) -> u16 {
    add(bytes.chunks(2).map(|word| match word {
        [high, low] => u16::from_be_bytes([*high, *low]),
        [high] => u16::from_be_bytes([*high, 0]),
        _ => 0,
    }))
}

/// The one's complement sum of words.
fn add(words: impl IntoIterator<Item = u16>) -> u16 {
    words.into_iter().fold(0, |sum: u16, word| {
        let (sum, carry) = sum.overflowing_add(word);
        // After a carry the sum is below 0xffff.
        sum + u16::from(carry)
    })
}

/// The sum of the pseudo-header of a packet from its IPv4 header on, for `length` bytes of transport header and payload
/// (RFC 768, RFC 9293 section 3.1).
pub fn pseudo_header(ip: &[u8], length: usize) -> Result<u16> {
    let addresses = ip.get(IP_ADDRESSES..IP_ADDRESSES + 8).context("a packet without addresses")?;
    let protocol = *ip.get(IP_PROTOCOL).context("a packet without a protocol")?;
    Ok(add([sum(addresses), u16::from(protocol), u16::try_from(length)?]))
}

fn word(bytes: &[u8], at: usize) -> Result<u16> {
    let word = bytes.get(at..).and_then(<[u8]>::first_chunk).context("a packet that ends too early")?;
    Ok(u16::from_be_bytes(*word))
}

fn set(bytes: &mut [u8], at: usize, value: u16) -> Result<()> {
    let place = bytes.get_mut(at..at + 2).context("a packet that ends too early")?;
    place.copy_from_slice(&value.to_be_bytes());
    Ok(())
}

/// Bytes of the IPv4 header of a frame.
fn ip_header(frame: &[u8]) -> Result<usize> {
    let first = frame.get(ETHERNET).context("a frame without an IPv4 header")?;
    Ok(usize::from(first & 0xf) * 4)
}

/// Puts the pseudo-header's sum in place of the checksum of a frame of TCP or UDP, as a driver does that leaves the rest to its
/// device.
pub fn leave_checksum(frame: &mut [u8]) -> Result<Offload> {
    let ip = frame.get(ETHERNET..).context("a frame without a packet")?;
    let field = match ip.get(IP_PROTOCOL) {
        Some(&TCP) => TCP_CHECKSUM,
        Some(&UDP) => UDP_CHECKSUM,
        other => bail!("protocol {other:?} is neither TCP nor UDP"),
    };
    let header = ip_header(frame)?;
    let pseudo = pseudo_header(ip, ip.len() - header)?;
    let start = ETHERNET + header;
    set(frame, start + field, pseudo)?;
    Ok(Offload { checksum: Some((u16::try_from(start)?, u16::try_from(field)?)), segments: None })
}

impl TapFrame {
    /// The frame with its checksum put in, from its place to the frame's end, as a device does that does not cut it.
    pub fn complete(&self) -> Result<Vec<u8>> {
        let mut bytes = self.bytes.clone();
        if let Some((start, offset)) = self.offload.checksum {
            put_checksum(&mut bytes, usize::from(start), usize::from(offset))?;
        }
        Ok(bytes)
    }

    /// The frames that a device makes of it: one, or the segments of a large one, all with their checksums.
    pub fn on_the_wire(&self) -> Result<Vec<Vec<u8>>> {
        match self.offload.segments {
            Some(segments) => self.cut(segments),
            None => Ok(vec![self.complete()?]),
        }
    }

    fn cut(&self, Segments { kind, headers: _, payload: most }: Segments) -> Result<Vec<Vec<u8>>> {
        let (start, offset) = self.offload.checksum.context("a large packet whose checksum is not left")?;
        let (start, offset) = (usize::from(start), usize::from(offset));
        let (expected, header) = match kind {
            Large::Tcp => {
                let words = self.bytes.get(start + TCP_DATA_OFFSET).context("no TCP header")? >> 4;
                (TCP_CHECKSUM, usize::from(words) * 4)
            }
            Large::Udp => (UDP_CHECKSUM, UDP_HEADER),
        };
        ensure!(offset == expected, "the checksum of {kind:?} is {offset} bytes behind its begin");
        ensure!(most > 0, "segments of no bytes");
        ensure!(self.bytes.len() > start + header, "a large packet without payload");
        let (headers, payload) = self.bytes.split_at(start + header);
        let whole = u16::try_from(self.bytes.len() - start)?;
        let count = payload.len().div_ceil(usize::from(most));
        let chunks = payload.chunks(usize::from(most)).enumerate();
        chunks
            .map(|(number, chunk)| {
                let mut frame = [headers, chunk].concat();
                let length = frame.len() - ETHERNET;
                let here = u16::try_from(frame.len() - start)?;
                set(&mut frame, ETHERNET + IP_LENGTH, u16::try_from(length)?)?;
                let id = word(&frame, ETHERNET + IP_ID)?.wrapping_add(u16::try_from(number)?);
                set(&mut frame, ETHERNET + IP_ID, id)?;
                set(&mut frame, ETHERNET + IP_CHECKSUM, 0)?;
                let ip = frame.get(ETHERNET..start).context("no IPv4 header")?;
                let checksum = !sum(ip);
                set(&mut frame, ETHERNET + IP_CHECKSUM, checksum)?;
                match kind {
                    Large::Tcp => {
                        let at = start + TCP_SEQUENCE;
                        let place = frame.get_mut(at..at + 4).context("no TCP header")?;
                        let first = u32::from_be_bytes(place.try_into()?);
                        let gone = u32::from(most) * u32::try_from(number)?;
                        place.copy_from_slice(&first.wrapping_add(gone).to_be_bytes());
                        if number + 1 < count {
                            *frame.get_mut(start + TCP_FLAGS).context("no TCP header")? &= !LAST_FLAGS;
                        }
                    }
                    Large::Udp => set(&mut frame, start + UDP_LENGTH, here)?,
                }
                // The pseudo-header's sum as it came: with this segment's length in place of the whole's.
                let pseudo = word(&frame, start + offset)?;
                set(&mut frame, start + offset, add([pseudo, !whole, here]))?;
                put_checksum(&mut frame, start, offset)?;
                Ok(frame)
            })
            .collect()
    }
}

/// Sums from `start` to the end, the pseudo-header's sum in the field included, and puts the checksum in. UDP's is never 0, which
/// would say that there is none (RFC 768).
fn put_checksum(bytes: &mut [u8], start: usize, offset: usize) -> Result<()> {
    let covered = bytes.get(start..).context("a checksum that begins behind the frame")?;
    let checksum = match !sum(covered) {
        0 if offset == UDP_CHECKSUM => u16::MAX,
        checksum => checksum,
    };
    set(bytes, start + offset, checksum)
}

/// Fails unless what came is what was expected, and names the first byte that is not.
pub fn same(came: &[u8], expected: &[u8]) -> Result<()> {
    let at = came.iter().zip(expected).take_while(|(came, expected)| came == expected).count();
    ensure!(
        came == expected,
        "byte {at} is {:02x?} instead of {:02x?}; {} bytes came instead of {}",
        came.get(at),
        expected.get(at),
        came.len(),
        expected.len()
    );
    Ok(())
}

/// A packet of right checksums, as far as tests look at it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Packet {
    /// Destination MAC.
    pub receiver: Mac,
    /// Source address and port.
    pub source: SocketAddrV4,
    /// Destination address and port.
    pub destination: SocketAddrV4,
    /// Time to live.
    pub ttl: u8,
    /// TCP's number of the first byte; 0 for UDP.
    pub sequence: u32,
    /// Whether it has a transport checksum: UDP may have none.
    pub has_checksum: bool,
    /// What it carries.
    pub payload: Vec<u8>,
}

/// Takes a frame of TCP or UDP apart. A wrong checksum or length of the IPv4 or transport header is an error, and so are bytes behind
/// the packet, but for the padding of a short frame.
pub fn checked(frame: &[u8]) -> Result<Packet> {
    let sliced = SlicedPacket::from_ethernet(frame).context("the frame cannot be taken apart")?;
    let Some(NetSlice::Ipv4(ip)) = &sliced.net else { bail!("no IPv4 packet: {sliced:?}") };
    let header = ip.header();
    ensure!(sum(header.slice()) == u16::MAX, "the IPv4 checksum is wrong: {:02x?}", header.slice());
    let length = usize::from(header.total_len());
    let padding = frame.len() - ETHERNET - length;
    ensure!(padding == 0 || frame.len() <= 60, "{padding} bytes behind the packet");

    let addresses = (header.source_addr(), header.destination_addr());
    let (ports, sequence, stored, transport, payload) = match &sliced.transport {
        Some(TransportSlice::Udp(udp)) => {
            let ports = (udp.source_port(), udp.destination_port());
            ensure!(
                usize::from(udp.length()) == ip.payload().payload.len(),
                "UDP's length is {}",
                udp.length()
            );
            (ports, 0, Some(udp.checksum()).filter(|&sum| sum != 0), udp.slice(), udp.payload())
        }
        Some(TransportSlice::Tcp(tcp)) => {
            let ports = (tcp.source_port(), tcp.destination_port());
            (ports, tcp.sequence_number(), Some(tcp.checksum()), tcp.slice(), tcp.payload())
        }
        other => bail!("neither TCP nor UDP: {other:?}"),
    };
    if let Some(stored) = stored {
        let total = add([pseudo_header(header.slice(), transport.len())?, sum(transport)]);
        ensure!(total == u16::MAX, "the transport checksum {stored:#06x} is off by {:#06x}", !total);
    }
    Ok(Packet {
        receiver: Mac(*frame.first_chunk().context("a frame without a header")?),
        source: SocketAddrV4::new(addresses.0, ports.0),
        destination: SocketAddrV4::new(addresses.1, ports.1),
        ttl: header.ttl(),
        sequence,
        has_checksum: stored.is_some(),
        payload: payload.to_vec(),
    })
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;
    use crate::frame;

    const MACS: (Mac, Mac) = (Mac([2, 0, 0, 0, 0, 1]), Mac([2, 0, 0, 0, 0, 2]));
    const FROM: (Ipv4Addr, u16) = (Ipv4Addr::new(192, 0, 2, 1), 1000);
    const TO: (Ipv4Addr, u16) = (Ipv4Addr::new(192, 0, 2, 2), 2000);

    #[test]
    fn the_sum_is_that_of_rfc_1071() {
        // The example of its section 3.
        assert_eq!(sum(&[0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7]), 0xddf2);
        assert_eq!(sum(&[0xff, 0xff, 0x01]), 0x0100);
    }

    #[test]
    fn a_checksum_that_was_left_is_the_one_that_a_stack_computes() {
        for whole in [
            frame::tcp(MACS, FROM, TO, b"odd").expect("it is short"),
            frame::udp(MACS, FROM, TO, b"even").expect("it is short"),
        ] {
            let mut bytes = whole.clone();
            let offload = leave_checksum(&mut bytes).expect("TCP or UDP");
            assert_ne!(bytes, whole);
            assert!(checked(&bytes).is_err(), "a sum of the pseudo-header alone is no checksum");
            let completed = TapFrame { offload, bytes }.on_the_wire().expect("well formed");
            assert_eq!(completed, [whole]);
        }
    }

    #[test]
    fn segments_have_the_bytes_of_the_whole_and_right_headers() {
        let payload: Vec<u8> = (0..=250).cycle().take(3000).collect();
        for kind in [Large::Tcp, Large::Udp] {
            let (mut bytes, headers) = match kind {
                Large::Tcp => (frame::tcp(MACS, FROM, TO, &payload).expect("it fits"), 54),
                Large::Udp => (frame::udp(MACS, FROM, TO, &payload).expect("it fits"), 42),
            };
            let segments = Some(Segments { kind, headers, payload: 1400 });
            let offload = Offload { segments, ..leave_checksum(&mut bytes).expect("TCP or UDP") };
            let frames = TapFrame { offload, bytes }.on_the_wire().expect("well formed");
            let packets: Vec<_> =
                frames.iter().map(|frame| checked(frame).expect("right checksums")).collect();
            let lengths: Vec<_> = packets.iter().map(|packet| packet.payload.len()).collect();
            assert_eq!(lengths, [1400, 1400, 200]);
            let joined: Vec<u8> = packets.iter().flat_map(|packet| packet.payload.clone()).collect();
            assert_eq!(joined, payload);
            let numbers: Vec<_> = packets.iter().map(|packet| packet.sequence).collect();
            assert_eq!(numbers, if kind == Large::Tcp { [1, 1401, 2801] } else { [0, 0, 0] });
        }
    }

    #[test]
    fn a_packet_with_one_wrong_bit_is_refused_and_no_checksum_is_none() {
        let whole = frame::udp(MACS, FROM, TO, b"hello").expect("it is short");
        assert!(checked(&whole).expect("right").has_checksum);
        // From the IPv4 header on: the MACs have no checksum here.
        for at in ETHERNET..whole.len() {
            let mut wrong = whole.clone();
            *wrong.get_mut(at).expect("within") ^= 1;
            assert!(checked(&wrong).is_err(), "byte {at}");
        }
        let mut without = whole;
        set(&mut without, ETHERNET + 20 + UDP_CHECKSUM, 0).expect("within");
        assert!(!checked(&without).expect("right").has_checksum);
    }
}
