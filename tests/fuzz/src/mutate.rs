//! Changes of inputs that know what a packet is: one field becomes a value that means something in the world, or the packet another
//! one; afterwards lengths and checksums are right again, most of the time, or nothing deep would ever be reached.

use std::net::Ipv4Addr;

use vip_lab::{
    Mac,
    fixtures::world::{
        ABSENT_EIP, BACKUP_EIP, CLIENT_EIP, DB_EIP, ELSEWHERE, FREE_EIP, GREEN_EIP, GUESTS, HOST, NEAR,
        NEAR_UNKNOWN, OUTLYING_EIP, OUTSIDE, ROUTER, UNLISTED, UNLISTED_MAC, UPLINK_MAC, VIPS, WEB_EIP,
        constant_mac, vrrp_mac,
    },
};

use crate::{
    Input, Target, Variation,
    frame::{
        Arp, DCCP, ETHERNET, ICMP, ICMP_ERROR, IPV4, Ipv4, TCP, TYPE_ARP, TYPE_IPV4, UDP, UDP_LITE, VRRP,
        address, byte, put, sum, word,
    },
    input::Entry,
};

/// Longest frame that is made, in bytes: longer than the longest ICMP error that is translated.
pub const LONGEST: usize = 9600;

/// Pseudo-random numbers from a seed (SplitMix64), so that a run can be repeated.
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// The numbers of a seed.
    pub const fn new(seed: u64) -> Self {
        Self(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut word = self.0;
        word = (word ^ word >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ word >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        word ^ word >> 31
    }

    /// A number below `end`, which is not 0.
    pub fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.next() % end as u64).unwrap_or_default()
    }

    fn byte(&mut self) -> u8 {
        let [byte, ..] = self.next().to_le_bytes();
        byte
    }

    fn one_of<T: Copy>(&mut self, from: &[T], default: T) -> T {
        from.get(self.below(from.len())).copied().unwrap_or(default)
    }

    fn is_one_in(&mut self, count: usize) -> bool {
        self.below(count) == 0
    }
}

/// Changes an input, which stays the target's.
pub fn mutate(input: &mut Input, target: Target, random: &mut Random) {
    for _ in 0..=random.below(3) {
        one(input, target, random);
    }
    if !random.is_one_in(4) {
        repair(&mut input.frame);
    }
    input.frame.truncate(LONGEST);
}

fn one(input: &mut Input, target: Target, random: &mut Random) {
    match random.below(20) {
        0 => input.variation = input.variation.toggled(random.below(Variation::COUNT)),
        1 => input.tagged ^= random.is_one_in(4),
        2 | 3 if target == Target::Port => another_sender(input, random),
        4 => resize(&mut input.frame, random),
        5 => turn_into_arp(input, random),
        6 => wrap_into_error(&mut input.frame, random),
        7 => become_new_packet(input, random),
        _ => field(&mut input.frame, random),
    }
}

/// Anybody's address, in the world or outside.
fn any_address(random: &mut Random) -> Ipv4Addr {
    let eips = [WEB_EIP, CLIENT_EIP, BACKUP_EIP, FREE_EIP, DB_EIP, GREEN_EIP, ABSENT_EIP, OUTLYING_EIP];
    let others = [
        OUTSIDE,
        HOST,
        ELSEWHERE,
        UNLISTED,
        NEAR.0,
        NEAR_UNKNOWN,
        ROUTER.0,
        Ipv4Addr::UNSPECIFIED,
        Ipv4Addr::BROADCAST,
        Ipv4Addr::LOCALHOST,
        Ipv4Addr::new(224, 0, 0, 18),
        Ipv4Addr::new(198, 51, 100, 255),
        Ipv4Addr::new(203, 0, 113, 17),
        Ipv4Addr::new(203, 0, 113, 18),
        Ipv4Addr::new(10, 3, 0, 99),
    ];
    match random.below(4) {
        0 => random.one_of(&eips, WEB_EIP).address,
        1 => random.one_of(&VIPS.map(|vip| vip.address), OUTSIDE),
        2 => random.one_of(&GUESTS.map(|guest| guest.address), OUTSIDE),
        _ if random.is_one_in(4) => random.one_of(&GUESTS.map(|guest| guest.subnet.gateway), OUTSIDE),
        _ => random.one_of(&others, OUTSIDE),
    }
}

/// Anybody's MAC.
fn any_mac(random: &mut Random) -> Mac {
    match random.below(6) {
        0 => UPLINK_MAC,
        1 => random.one_of(&GUESTS.map(|guest| guest.mac), UPLINK_MAC),
        2 => constant_mac(any_address(random)),
        3 => vrrp_mac(random.one_of(&[66, 67, 68, 0], 66)),
        4 => random.one_of(&[Mac::BROADCAST, Mac::ZERO, Mac([1, 0, 0x5e, 0, 0, 18])], Mac::BROADCAST),
        _ => random.one_of(&[UNLISTED_MAC, ROUTER.1, NEAR.1], UNLISTED_MAC),
    }
}

/// Another guest sends the same, from its own addresses or still from those that are there.
fn another_sender(input: &mut Input, random: &mut Random) {
    // Seldom nobody.
    let number = random.below(GUESTS.len() * 4 + 1) / 4;
    input.entry = Entry::Port(u8::try_from(number).unwrap_or_default());
    let Some(guest) = input.entry.guest() else { return };
    let Mac(mac) = guest.mac;
    put(&mut input.frame, 6, &mac);
    if random.is_one_in(4) {
        return;
    }
    let held: Vec<_> = VIPS.iter().filter(|vip| vip.subnet.index == guest.subnet.index).collect();
    let vip = held.get(random.below(held.len() + 2)).map_or(guest.address, |vip| vip.address);
    let at = match word(&input.frame, 12) {
        Some(TYPE_ARP) => {
            put(&mut input.frame, 22, &mac);
            28
        }
        _ => 26,
    };
    put(&mut input.frame, at, &vip.octets());
    if random.is_one_in(2) {
        let Mac(gateway) = constant_mac(guest.subnet.gateway);
        put(&mut input.frame, 0, &gateway);
    }
}

fn resize(frame: &mut Vec<u8>, random: &mut Random) {
    if random.is_one_in(2) {
        frame.truncate(random.below(frame.len() + 1));
    } else {
        let most = if random.is_one_in(8) { LONGEST } else { 64 };
        let more = random.below(most);
        frame.extend((0..more).map(|_| random.byte()));
    }
}

/// Says something in ARP.
fn turn_into_arp(input: &mut Input, random: &mut Random) {
    let frame = &mut input.frame;
    frame.resize(frame.len().max(Arp::END), 0);
    let sender = input.entry.guest().map_or(UPLINK_MAC, |guest| guest.mac);
    let Mac(mac) = if random.is_one_in(4) { any_mac(random) } else { sender };
    let Mac(to) = if random.is_one_in(2) { any_mac(random) } else { Mac::BROADCAST };
    let (from, asked) = (any_address(random), any_address(random));
    let asked = if random.is_one_in(2) { from } else { asked };
    let Mac(target) = if random.is_one_in(2) { Mac::ZERO } else { any_mac(random) };
    let operation = if random.is_one_in(3) { 2 } else { 1 };
    for (at, bytes) in [
        (0, to.as_slice()),
        (6, &mac),
        (12, &TYPE_ARP.to_be_bytes()),
        (14, &[0, 1, 8, 0, 6, 4, 0, operation]),
        (22, &mac),
        (28, &from.octets()),
        (32, &target),
        (38, &asked.octets()),
    ] {
        put(frame, at, bytes);
    }
}

/// A packet of the sender's, or from outside, to somebody.
fn become_new_packet(input: &mut Input, random: &mut Random) {
    let guest = input.entry.guest();
    let (from, to, source) = match guest {
        Some(guest) => (guest.mac, constant_mac(guest.subnet.gateway), guest.address),
        None => (ROUTER.1, UPLINK_MAC, OUTSIDE),
    };
    let (Mac(from), Mac(to)) = (from, to);
    let protocol = random.one_of(&[ICMP, TCP, UDP, UDP_LITE, DCCP, VRRP, 132, 47], TCP);
    let ttl = random.one_of(&[0, 1, 2, 64, 255], 64);
    let mut frame = [to, from].concat();
    frame.extend(TYPE_IPV4.to_be_bytes());
    frame.extend([0x45, 0, 0, 0, 0, 1, 0, 0, ttl, protocol, 0, 0]);
    frame.extend(source.octets());
    frame.extend(any_address(random).octets());
    let kind = random.one_of(&[0, 8, 3, 11, 12, 5, 4], 8);
    frame.extend(if protocol == ICMP { [kind, 0, 0, 0] } else { [0x9c, 0x40, 0, 80] });
    frame.extend((0..random.below(60)).map(|_| random.byte()));
    input.frame = frame;
}

/// The packet becomes what an ICMP error is about.
fn wrap_into_error(frame: &mut Vec<u8>, random: &mut Random) {
    let Some(ip) = Ipv4::of(frame) else { return };
    let bytes =
        if random.is_one_in(2) { ip.end - ip.start } else { ip.payload - ip.start + random.below(12) };
    let quote: Vec<u8> = frame.iter().skip(ETHERNET).take(bytes).copied().collect();
    let kind = random.one_of(&[3, 11, 12, 4, 5], 3);
    let mut error = frame.get(..12).unwrap_or_default().to_vec();
    error.extend(TYPE_IPV4.to_be_bytes());
    error.extend([0x45, 0, 0, 0, 0, 2, 0, 0, 64, ICMP, 0, 0]);
    // From whom the packet was for to whom sent it, or between anybody.
    let (source, destination) = (ip.destination, ip.source);
    let ends = match random.below(4) {
        0 => [any_address(random), destination],
        1 => [source, any_address(random)],
        _ => [source, destination],
    };
    error.extend(ends.iter().flat_map(Ipv4Addr::octets));
    error.extend([kind, random.byte() & 3, 0, 0, 0, 0, 5, 0xa0]);
    error.extend(quote);
    *frame = error;
}

/// One field of the headers, or of the quote, becomes a value that means something.
fn field(frame: &mut Vec<u8>, random: &mut Random) {
    let payload = Ipv4::of(frame).map_or(ETHERNET + IPV4, |ip| ip.payload);
    let quote = payload + ICMP_ERROR;
    let start = if random.is_one_in(4) { quote } else { ETHERNET };
    match random.below(18) {
        0 => put_mac(frame, 0, random),
        1 => put_mac(frame, 6, random),
        2 => {
            let kind = random.one_of(&[TYPE_IPV4, TYPE_ARP, 0x8100, 0x88a8, 0x86dd], TYPE_IPV4);
            put(frame, 12, &kind.to_be_bytes());
        }
        3 | 4 => put_address(frame, start + 12, random),
        5 | 6 => put_address(frame, start + 16, random),
        7 => {
            let protocol = random.one_of(&[ICMP, TCP, UDP, UDP_LITE, DCCP, VRRP, 2, 47, 50, 51, 132], ICMP);
            put(frame, start + 9, &[protocol]);
        }
        8 => {
            let ttl = random.one_of(&[0, 1, 2, 3, 64, 255], 1);
            put(frame, start + 8, &[ttl]);
        }
        9 => {
            let fragment = random.one_of(&[0_u16, 0x4000, 0x2000, 0x2001, 1, 2, 3, 4, 5, 0x1fff, 0x8000], 0);
            put(frame, start + 6, &fragment.to_be_bytes());
        }
        10 => options(frame, start, random),
        11 => {
            let kind = random.one_of(&[0, 3, 4, 5, 8, 11, 12, 13, 0x21, 0x31], 3);
            let at = if start == quote { quote + IPV4 } else { payload };
            put(frame, at, &[kind]);
        }
        12 => {
            let ports = random.one_of(&[[0, 67, 0, 68], [0, 68, 0, 67], [0, 80, 0x9c, 0x40]], [0, 67, 0, 68]);
            put(frame, payload, &ports);
        }
        13 => {
            let flags = random.one_of(&[0x02, 0x12, 0x10, 0x18, 0x04], 0x02);
            put(frame, payload + 13, &[flags]);
        }
        14 => {
            if let Some(addresses) = frame.get_mut(26..34) {
                addresses.rotate_left(4);
            }
        }
        15 => {
            // A checksum that is wrong, or none, unless it is mended.
            let at = payload + random.one_of(&[2, 6, 16], 6);
            let value = random.one_of(&[[0, 0], [0xff, 0xff], [0x12, 0x34]], [0, 0]);
            put(frame, at, &value);
        }
        16 => advertisement(frame, payload, random),
        _ => {
            let at = random.below(frame.len() + 1);
            put(frame, at, &[random.byte()]);
        }
    }
}

fn put_mac(frame: &mut [u8], at: usize, random: &mut Random) {
    let Mac(mac) = any_mac(random);
    put(frame, at, &mac);
}

fn put_address(frame: &mut [u8], at: usize, random: &mut Random) {
    put(frame, at, &any_address(random).octets());
}

/// More or fewer options behind an IPv4 header.
fn options(frame: &mut Vec<u8>, start: usize, random: &mut Random) {
    let Some(ip) = Ipv4::header(frame, start) else { return };
    let words = random.below(11);
    let length = words * 4;
    frame.splice(start + IPV4..ip.payload, std::iter::repeat_n(1, length));
    put(frame, start, &[0x45 + u8::try_from(words).unwrap_or_default()]);
}

/// A VRRP advertisement of some addresses (RFC 3768 section 5.1).
fn advertisement(frame: &mut Vec<u8>, payload: usize, random: &mut Random) {
    frame.resize(frame.len().max(payload), 0);
    frame.truncate(payload);
    let count = random.one_of(&[0_u8, 1, 2, 9, 255], 1);
    frame.extend([0x21, 66, 100, count, 0, 1, 0, 0]);
    for _ in 0..count.min(10) {
        frame.extend(any_address(random).octets());
    }
    for (at, bytes) in [(0, [1, 0, 0x5e, 0, 0, 18].as_slice()), (22, &[255, VRRP]), (30, &[224, 0, 0, 18])] {
        put(frame, at, bytes);
    }
}

/// Makes lengths and checksums right, of a quote too.
pub fn repair(frame: &mut Vec<u8>) {
    if word(frame, 12) != Some(TYPE_IPV4) || frame.len() < ETHERNET + IPV4 {
        return;
    }
    repair_packet(frame, ETHERNET, true);
}

/// Repairs the packet whose header begins at `start` and whose payload, or what is quoted of it, ends with the frame.
fn repair_packet(frame: &mut Vec<u8>, start: usize, whole: bool) {
    let words = byte(frame, start).map_or(5, |first| first & 0xf).clamp(5, 15);
    let payload = start + usize::from(words) * 4;
    frame.resize(frame.len().max(payload), 0);
    put(frame, start, &[0x40 | words]);
    let length = u16::try_from(frame.len() - start).unwrap_or(u16::MAX);
    if whole {
        put(frame, start + 2, &length.to_be_bytes());
    }
    if let Some(ip) = Ipv4::header(frame, start) {
        let is_error = matches!(ip.icmp_type(frame), Some(3 | 4 | 5 | 11 | 12));
        if is_error && whole && frame.len() >= payload + ICMP_ERROR + IPV4 {
            repair_packet(frame, payload + ICMP_ERROR, false);
        }
        if let Some((at, pseudo)) = checksum(frame, &ip) {
            mend(frame, at, payload, pseudo);
        }
    }
    put(frame, start + 10, &[0, 0]);
    let header = frame.get(start..payload).map(sum).unwrap_or_default();
    put(frame, start + 10, &(!header).to_be_bytes());
}

/// Place of a transport's checksum and the sum of its pseudo-header; None: it has none, or computed none.
fn checksum(frame: &[u8], ip: &Ipv4) -> Option<(usize, u16)> {
    if ip.fragment != 0 {
        return None;
    }
    if ip.protocol == ICMP {
        return (ip.payload + 4 <= ip.end).then_some((ip.payload + 2, 0));
    }
    let at = ip.transport_checksum(frame)?;
    let [high, low] = u16::try_from(ip.end - ip.payload).ok()?.to_be_bytes();
    let (source, destination) = (address(frame, ip.start + 12)?, address(frame, ip.start + 16)?);
    let pseudo = [&source.octets(), &destination.octets(), [0, ip.protocol, high, low].as_slice()].concat();
    Some((at, sum(&pseudo)))
}

fn mend(frame: &mut [u8], at: usize, from: usize, pseudo: u16) {
    put(frame, at, &[0, 0]);
    let covered = frame.get(from..).map(sum).unwrap_or_default();
    let mended = !crate::frame::add(covered, pseudo);
    // 0 would mean none, in UDP.
    put(frame, at, &if mended == 0 { u16::MAX } else { mended }.to_be_bytes());
}
