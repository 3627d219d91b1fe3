//! ARP frames that the agent sends itself (RFC 826, RFC 5227).

use std::net::Ipv4Addr;

use etherparse::{ArpEthIpv4Packet, ArpOperation, EtherType, Ethernet2Header};

/// Length in bytes of an ARP frame: Ethernet header and packet. Drivers pad it to the minimum of 60.
pub const ARP_FRAME_LEN: usize = Ethernet2Header::LEN + ArpEthIpv4Packet::LEN;

const BROADCAST: [u8; 6] = [0xff; 6];

/// RFC 826: the target hardware address of a request is unknown, RFC 5227 section 1.1: it should be zero.
const UNKNOWN: [u8; 6] = [0; 6];

/// An ARP request "who has `target_ip`? tell `sender_ip` at `sender_mac`", from `source_mac` to `destination_mac`
/// (broadcast, or unicast to ask one neighbour whether it is still there). MACs in wire order.
pub fn request(
    source_mac: [u8; 6],
    destination_mac: [u8; 6],
    sender_mac: [u8; 6],
    sender_ip: Ipv4Addr,
    target_ip: Ipv4Addr,
) -> [u8; ARP_FRAME_LEN] {
    let packet = ArpEthIpv4Packet {
        operation: ArpOperation::REQUEST,
        sender_mac,
        sender_ipv4: sender_ip.octets(),
        target_mac: UNKNOWN,
        target_ipv4: target_ip.octets(),
    };
    frame(source_mac, destination_mac, &packet)
}

/// An ARP reply "`sender_ip` is at `sender_mac`" to `target_ip` at `target_mac`, from `source_mac` to `destination_mac`.
/// MACs in wire order.
pub fn reply(
    source_mac: [u8; 6],
    destination_mac: [u8; 6],
    sender_mac: [u8; 6],
    sender_ip: Ipv4Addr,
    target_mac: [u8; 6],
    target_ip: Ipv4Addr,
) -> [u8; ARP_FRAME_LEN] {
    let packet = ArpEthIpv4Packet {
        operation: ArpOperation::REPLY,
        sender_mac,
        sender_ipv4: sender_ip.octets(),
        target_mac,
        target_ipv4: target_ip.octets(),
    };
    frame(source_mac, destination_mac, &packet)
}

/// An announcement "`ip` is at `mac`" to everybody: a broadcast request whose sender and target address are the same
/// (RFC 5227 section 3, gratuitous ARP).
pub fn announcement(mac: [u8; 6], ip: Ipv4Addr) -> [u8; ARP_FRAME_LEN] {
    request(mac, BROADCAST, mac, ip, ip)
}

fn frame(source: [u8; 6], destination: [u8; 6], packet: &ArpEthIpv4Packet) -> [u8; ARP_FRAME_LEN] {
    let header = Ethernet2Header { source, destination, ether_type: EtherType::ARP };
    let mut frame = [0; ARP_FRAME_LEN];
    let (first, second) = frame.split_at_mut(Ethernet2Header::LEN);
    first.copy_from_slice(&header.to_bytes());
    second.copy_from_slice(&packet.to_bytes());
    frame
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: [u8; 6] = [2, 0, 0, 0, 0, 0xa];
    const B: [u8; 6] = [2, 0, 0, 0, 0, 0xb];

    #[test]
    fn a_unicast_request_is_laid_out_as_rfc_826_says() {
        let frame = request(A, B, A, Ipv4Addr::new(192, 0, 2, 1), Ipv4Addr::new(192, 0, 2, 2));
        let expected: [u8; 42] = [
            2, 0, 0, 0, 0, 0xb, 2, 0, 0, 0, 0, 0xa, 0x08, 0x06, // Ethernet
            0, 1, 0x08, 0, 6, 4, 0, 1, // hardware, protocol, lengths, operation
            2, 0, 0, 0, 0, 0xa, 192, 0, 2, 1, // sender
            0, 0, 0, 0, 0, 0, 192, 0, 2, 2, // target
        ];
        assert_eq!(frame, expected);
    }

    #[test]
    fn a_reply_carries_both_ends_and_the_operation_two() {
        let frame = reply(A, B, A, Ipv4Addr::new(192, 0, 2, 1), B, Ipv4Addr::new(192, 0, 2, 2));
        assert_eq!(frame.get(20..22), Some([0, 2].as_slice()));
        assert_eq!(frame.get(22..28), Some(A.as_slice()));
        assert_eq!(frame.get(32..38), Some(B.as_slice()));
    }

    #[test]
    fn an_announcement_is_a_broadcast_request_for_the_own_address_with_no_target_mac() {
        let frame = announcement(A, Ipv4Addr::new(203, 0, 113, 10));
        assert_eq!(frame.get(..6), Some([0xff; 6].as_slice()));
        assert_eq!(frame.get(20..22), Some([0, 1].as_slice()));
        assert_eq!(frame.get(28..32), frame.get(38..42));
        assert_eq!(frame.get(32..38), Some([0; 6].as_slice()));
    }
}
