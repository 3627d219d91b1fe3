//! Incremental checksums against full ones, which etherparse computes.

use etherparse::{IpNumber, Ipv4Header, TcpHeader, UdpHeader, checksum::Sum16BitWords};
use proptest::{collection::vec, prelude::*};
use vip_common::{
    checksum::{Sum, update, update_udp},
    engine::FramePacket,
    pipeline::{EditFailed, Packet as _},
    wire::{Be16, Ipv4},
};

use crate::cases;

fn address(octets: [u8; 4]) -> Ipv4 {
    Ipv4::new(octets)
}

/// The same number in one's complement arithmetic, in which 0 and 0xffff are one.
fn congruent(left: u16, right: u16) -> bool {
    left % 0xffff == right % 0xffff
}

/// How far a field is from what it should be, in one's complement arithmetic.
fn error_of(field: u16, right: u16) -> u32 {
    (u32::from(field) + 0xffff - u32::from(right)) % 0xffff
}

proptest! {
    #![proptest_config(cases(2000))]

    #[test]
    fn sum_of_words_is_what_etherparse_sums(bytes in vec(any::<[u8; 2]>(), 0..800)) {
        let ours = bytes.iter().fold(Sum::default(), |sum, pair| sum.add(Be16::new(u16::from_be_bytes(*pair))));
        let theirs = Sum16BitWords::new().add_slice(&bytes.concat()).ones_complement();
        prop_assert_eq!(ours.checksum().raw(), theirs);
    }

    #[test]
    fn header_checksum_follows_addresses_and_ttl(
        payload in 0..1480_u16,
        ttl in 1..=255_u8,
        protocol in any::<u8>(),
        (source, destination) in any::<([u8; 4], [u8; 4])>(),
        (new_source, new_destination) in any::<([u8; 4], [u8; 4])>(),
        identification in any::<u16>(),
    ) {
        let mut header =
            Ipv4Header::new(payload, ttl, IpNumber(protocol), source, destination).expect("a short payload");
        header.identification = identification;
        let before = header.calc_header_checksum();
        let old = Be16::new(u16::from_be_bytes([ttl, protocol]));
        let new = Be16::new(u16::from_be_bytes([ttl - 1, protocol]));
        let change = Sum::default()
            .replace_address(address(source), address(new_source))
            .replace_address(address(destination), address(new_destination))
            .replace(old, new);
        (header.source, header.destination, header.time_to_live) = (new_source, new_destination, ttl - 1);
        prop_assert_eq!(update(Be16::new(before), change).get(), header.calc_header_checksum());
    }

    #[test]
    fn tcp_checksum_follows_an_address(
        data in vec(any::<u8>(), 0..64),
        (ports, sequence) in any::<((u16, u16), u32)>(),
        (from, to, other) in any::<([u8; 4], [u8; 4], [u8; 4])>(),
    ) {
        let header = TcpHeader::new(ports.0, ports.1, sequence, 512);
        let full = |source| header.calc_checksum_ipv4_raw(source, other, &data).expect("a short segment");
        let change = Sum::default().replace_address(address(from), address(to));
        prop_assert_eq!(update(Be16::new(full(from)), change).get(), full(to));
    }

    #[test]
    fn udp_checksum_follows_an_address_and_is_never_sent_as_zero(
        data in vec(any::<u8>(), 0..64),
        ports in any::<(u16, u16)>(),
        (from, to, other) in any::<([u8; 4], [u8; 4], [u8; 4])>(),
    ) {
        let header = UdpHeader::without_ipv4_checksum(ports.0, ports.1, data.len()).expect("a short datagram");
        let full = |source| header.calc_checksum_ipv4_raw(source, other, &data).expect("a short datagram");
        let change = Sum::default().replace_address(address(from), address(to));
        let updated = update_udp(Be16::new(full(from)), change).get();
        prop_assert_ne!(updated, 0);
        prop_assert_eq!(updated, full(to));
    }

    #[test]
    fn a_corrupted_checksum_stays_wrong_by_the_same_difference(
        (field, right) in any::<(u16, u16)>(),
        (from, to) in any::<([u8; 4], [u8; 4])>(),
    ) {
        let change = Sum::default().replace_address(address(from), address(to));
        let (field_after, right_after) = (update(Be16::new(field), change), update(Be16::new(right), change));
        prop_assert_eq!(error_of(field_after.get(), right_after.get()), error_of(field, right));
    }

    #[test]
    fn there_and_back_is_where_it_began(field in any::<u16>(), (from, to) in any::<([u8; 4], [u8; 4])>()) {
        let (from, to) = (address(from), address(to));
        let there = Sum::default().replace_address(from, to);
        let back = Sum::default().replace_address(to, from);
        let returned = update(update(Be16::new(field), there), back).get();
        prop_assert!(congruent(returned, field));
        let returned = update_udp(update_udp(Be16::new(field), there), back).get();
        prop_assert!(congruent(returned, field));
        prop_assert_eq!(returned == 0, field == 0);
    }
}

#[test]
fn a_udp_checksum_of_zero_stays_zero() {
    for (from, to) in [([0; 4], [255; 4]), ([10, 0, 0, 1], [203, 0, 113, 9]), ([1; 4], [1; 4])] {
        let change = Sum::default().replace_address(address(from), address(to));
        assert_eq!(update_udp(Be16::new(0), change).get(), 0);
    }
}

#[test]
fn a_udp_checksum_that_comes_out_as_zero_is_sent_as_all_ones() {
    // ~HC + ~m + m' = 0xfffe + 0 + 1 = 0xffff, of which the complement is 0.
    let change = Sum::default().replace(Be16::new(0xffff), Be16::new(1));
    assert_eq!(update(Be16::new(1), change).get(), 0);
    assert_eq!(update_udp(Be16::new(1), change).get(), 0xffff);
}

#[test]
fn the_example_of_rfc_1624_comes_out_right() {
    // RFC 1624 §4: HC = 0xdd2f, m = 0x5555, m' = 0x3285; the older equation gives 0xffff where 0x0000 is right.
    let change = Sum::default().replace(Be16::new(0x5555), Be16::new(0x3285));
    assert_eq!(update(Be16::new(0xdd2f), change).get(), 0);
}

#[test]
fn carries_are_folded_until_none_is_left() {
    // 0x1ffff folds to 0x10000, which folds once more.
    let twice = Sum::default().add(Be16::from_raw(0xffff)).add(Be16::from_raw(0xffff)).add(Be16::from_raw(1));
    assert_eq!(twice.checksum().raw(), !1);
    let most = (0..65_535).fold(Sum::default(), |sum, _| sum.add(Be16::from_raw(0xffff)));
    assert_eq!(most.checksum().raw(), 0);
    assert_eq!(Sum::default().checksum().raw(), 0xffff);
}

#[test]
fn replacing_a_word_by_itself_changes_nothing() {
    for field in [0x0001_u16, 0x1234, 0x8000, 0xfffe] {
        for word in [0_u16, 1, 0x5555, 0xffff] {
            let change = Sum::default().replace(Be16::new(word), Be16::new(word));
            assert_eq!(update(Be16::new(field), change).get(), field);
        }
    }
}

#[test]
fn a_field_beyond_the_end_is_not_mended() {
    let mut packet = FramePacket::new(&[0; 7]);
    let (from, to) = (address([1; 4]), address([2; 4]));
    assert_eq!(packet.mend_transport_checksum(6, false, from, to), Err(EditFailed));
    assert_eq!(packet.mend_transport_checksum(4, false, from, to), Ok(()));
    assert_eq!(packet.into_bytes()[..4], [0; 4]);
}
