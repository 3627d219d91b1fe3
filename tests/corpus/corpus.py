#!/usr/bin/env python3
"""A corpus of packets through the 1:1 translation, judged by scapy.

Reads from standard input what the fixtures' world is (JSON): for each way through the forwarder, MACs and addresses before and
after it, how many hops it has, and the address of the sender's gateway if it has one here. Writes one JSON object a line:

    {"name", "class", "way", "frame": hex, "out": hex or null, "drop": null or {"reason", "hop", "told": hex or null}}

`told` is the ICMP error that reaches the sender of what is dropped, as that sees it.

What must come out is never computed from the frame: it is the same packet, built from scratch with the translated addresses,
and scapy computes its lengths and checksums. A corruption is a difference to the right checksum, the same before and after.

Needs scapy; its release is pinned where the virtual environment is made.
"""

import argparse
import json
import logging
import random
import struct
import sys
from dataclasses import dataclass, field, replace
from ipaddress import IPv4Address
from typing import Callable, Optional

# Only packets are built here: that there is no route for them is no news.
logging.getLogger("scapy.runtime").setLevel(logging.ERROR)

from scapy.compat import raw  # noqa: E402
from scapy.layers.inet import (  # noqa: E402
    ICMP,
    IP,
    TCP,
    UDP,
    IPOption_EOL,
    IPOption_NOP,
    IPOption_Router_Alert,
    IPOption_RR,
    in4_pseudoheader,
)
from scapy.layers.l2 import GRE, Ether  # noqa: E402
from scapy.layers.sctp import SCTP, SCTPChunkData  # noqa: E402
from scapy.packet import Raw  # noqa: E402
from scapy.utils import checksum  # noqa: E402

SEED = 3022
"""Any number, but always the same: a failure must be there again in the next run."""

MTU = 1500
DATA = 1400
"""Most bytes of data in a packet."""

# Checksum fields by protocol: where, of those that cover the pseudo-header (RFC 9293, 768, 3828, 4340).
ICMP_PROTOCOL, TCP_PROTOCOL, UDP_PROTOCOL, DCCP_PROTOCOL, UDP_LITE_PROTOCOL = 1, 6, 17, 33, 136
SUMS = {TCP_PROTOCOL: 16, UDP_PROTOCOL: 6, DCCP_PROTOCOL: 6, UDP_LITE_PROTOCOL: 6}
HEADER_SUM = 10
ICMP_SUM = 2

ERRORS = [(3, code) for code in range(16)] + [(11, 0), (11, 1), (12, 0), (12, 1), (12, 2)]
"""ICMP errors that a translation carries, by type and code (RFC 792, 1812)."""

PORTS = [20, 21, 22, 53, 80, 123, 443, 500, 4500, 8080, 40000, 65535, 0, 1]
"""Without 67 and 68: a guest's DHCP is not translated."""


@dataclass(frozen=True)
class View:
    """What differs of a packet before and after its way."""

    macs: tuple
    source: str
    destination: str
    hops: int

    def quoted(self) -> "View":
        """The view of the packet that an error with this view is about: it went the other way."""
        return View(self.macs, self.destination, self.source, 0)


Transport = Callable[[View], tuple]
"""Gives protocol number and bytes of an IPv4 payload."""


@dataclass(frozen=True)
class Packet:
    """All of a packet that stays the same on its way."""

    transport: Transport
    ttl: int = 64
    tos: int = 0
    identification: int = 0
    dont_fragment: bool = False
    options: tuple = ()
    part: Optional[tuple] = None
    """First byte, end, and whether more fragments follow; None: not fragmented."""
    header_wrong_by: int = 0
    padding: bytes = b""
    """Behind the packet, in the frame alone."""

    def datagram(self, view: View) -> bytes:
        protocol, payload = self.transport(view)
        flags, offset = ("DF" if self.dont_fragment else 0), 0
        if self.part:
            offset, end, more = self.part
            payload, flags = payload[offset:end], ("MF" if more else 0)
        header = IP(
            src=view.source,
            dst=view.destination,
            ttl=self.ttl - view.hops,
            tos=self.tos,
            id=self.identification,
            flags=flags,
            frag=offset // 8,
            proto=protocol,
            options=list(self.options),
        )
        return wrong_by(raw(header / Raw(payload)), HEADER_SUM, self.header_wrong_by)

    def frame(self, view: View) -> bytes:
        source, destination = view.macs
        ethernet = Ether(src=source, dst=destination, type=0x0800)
        return raw(ethernet / Raw(self.datagram(view))) + self.padding


class Unfit(Exception):
    """These random values do not make a packet of the class."""


def wrong_by(data: bytes, place: int, difference: int) -> bytes:
    """The bytes with the checksum at `place` off by a difference, in one's complement."""
    if not difference:
        return data
    (right,) = struct.unpack_from("!H", data, place)
    total = right + difference
    wrong = (total & 0xFFFF) + (total >> 16)
    # Both are zero in one's complement, so which of them it becomes is nobody's rule.
    if {right, wrong} & {0, 0xFFFF}:
        raise Unfit
    return data[:place] + struct.pack("!H", wrong) + data[place + 2 :]


def summed(message: bytes) -> bytes:
    """The ICMP message with its checksum, whatever stood there."""
    message = message[:ICMP_SUM] + b"\0\0" + message[ICMP_SUM + 2 :]
    return message[:ICMP_SUM] + struct.pack("!H", checksum(message)) + message[ICMP_SUM + 2 :]


# ---- Transports: each draws its values once, and builds with them as often as it is asked.


def some_bytes(rng: random.Random, length: int) -> bytes:
    return rng.randbytes(length)


def carried(view: View, layers) -> bytes:
    """The bytes of layers behind an IPv4 header without options, whose checksums cover the view's addresses."""
    return raw(IP(src=view.source, dst=view.destination) / layers)[20:]


def tcp(rng, size) -> Transport:
    options = rng.choice(
        [
            [],
            [("MSS", 1460), ("SAckOK", b""), ("Timestamp", (rng.getrandbits(32), 0)), ("NOP", None), ("WScale", 7)],
            [("NOP", None), ("NOP", None), ("Timestamp", (rng.getrandbits(32), rng.getrandbits(32)))],
        ]
    )
    layer = TCP(
        sport=rng.choice(PORTS),
        dport=rng.choice(PORTS),
        seq=rng.getrandbits(32),
        ack=rng.getrandbits(32),
        flags=rng.choice(["S", "SA", "A", "PA", "FA", "R", "RA", "PAU", "SEC"]),
        window=rng.getrandbits(16),
        urgptr=rng.getrandbits(16),
        options=options,
    ) / Raw(some_bytes(rng, size))
    return lambda view: (TCP_PROTOCOL, carried(view, layer.copy()))


def udp(rng, size, **fields) -> Transport:
    layer = UDP(sport=rng.choice(PORTS), dport=rng.choice(PORTS), **fields) / Raw(some_bytes(rng, size))
    return lambda view: (UDP_PROTOCOL, carried(view, layer.copy()))


def udp_without_checksum(rng, size) -> Transport:
    return udp(rng, size, chksum=0)


def udp_that_sums_to_zero(rng, size, view: View) -> Transport:
    """A datagram whose checksum with the view's addresses is zero, and so sent as 0xffff (RFC 768)."""
    ports = dict(sport=rng.choice(PORTS), dport=rng.choice(PORTS))
    data = some_bytes(rng, size)

    def layer(word):
        return UDP(**ports) / Raw(struct.pack("!H", word) + data)

    # The checksum of all the rest, added to it, makes a sum of nothing but ones.
    (word,) = struct.unpack_from("!H", carried(view, layer(0)), 6)
    if carried(view, layer(word))[6:8] != b"\xff\xff":
        raise Unfit
    return lambda view: (UDP_PROTOCOL, carried(view, layer(word)))


def covered(view: View, protocol, head, data, coverage) -> bytes:
    """Head and data with the checksum, at byte 6, over pseudo-header and the first `coverage` bytes: scapy has no such layer."""
    whole = head[:6] + b"\0\0" + head[8:] + data
    pseudo = in4_pseudoheader(protocol, IP(src=view.source, dst=view.destination), len(whole))
    total = checksum(pseudo + whole[:coverage])
    if protocol == UDP_LITE_PROTOCOL and total == 0:
        total = 0xFFFF
    return whole[:6] + struct.pack("!H", total) + whole[8:]


def udp_lite(rng, size, partial=False) -> Transport:
    """RFC 3828: a coverage of 0 is all of it, else at least the header."""
    data = some_bytes(rng, size)
    coverage = rng.randint(8, 8 + size) if partial else 0
    head = struct.pack("!HHHH", rng.choice(PORTS), rng.choice(PORTS), coverage, 0)
    covers = coverage or len(head) + size
    return lambda view: (UDP_LITE_PROTOCOL, covered(view, UDP_LITE_PROTOCOL, head, data, covers))


def dccp(rng, size, partial=False) -> Transport:
    """RFC 4340 section 5.1: a DATA packet with long sequence numbers; section 9.2: coverage 1 is the header alone."""
    data = some_bytes(rng, size)
    words = 4
    coverage = rng.randint(1, min(15, 1 + size // 4)) if partial else 0
    head = struct.pack("!HHBBHBBHI", rng.choice(PORTS), rng.choice(PORTS), words, coverage, 0, 2 << 1 | 1, 0, 0, 7)
    covers = len(head) + (coverage - 1) * 4 if coverage else len(head) + size
    return lambda view: (DCCP_PROTOCOL, covered(view, DCCP_PROTOCOL, head, data, covers))


def sctp(rng, size) -> Transport:
    data = some_bytes(rng, size)
    fields = dict(sport=rng.choice(PORTS), dport=rng.choice(PORTS), tag=rng.getrandbits(32))
    chunk = dict(tsn=rng.getrandbits(32), beginning=1, ending=1, data=data)
    return lambda view: (132, carried(view, SCTP(**fields) / SCTPChunkData(**chunk)))


def gre(rng, size) -> Transport:
    inner = IP(src="10.9.8.7", dst="10.9.8.6") / UDP(sport=1, dport=2) / Raw(some_bytes(rng, size))
    key = rng.getrandbits(32)
    return lambda view: (47, carried(view, GRE(chksum_present=1, key_present=1, key=key) / inner.copy()))


def opaque(protocol, data: bytes) -> Transport:
    """Bytes that nothing changes."""
    return lambda view: (protocol, data)


def esp(rng, size) -> Transport:
    """Security parameters index, sequence number, ciphertext (RFC 4303)."""
    return opaque(50, some_bytes(rng, 8 + size))


def ah(rng, size) -> Transport:
    """RFC 4302: no translator can mend its integrity check, so the receiver drops it; on the way it is like any other."""
    head = struct.pack("!BBHII", 6, 4, 0, rng.getrandbits(32), 1) + some_bytes(rng, 12)
    return opaque(51, head + some_bytes(rng, size))


def unknown(rng, size) -> Transport:
    """Protocols without a rule of their own, whose first bytes may look like anything."""
    others = [number for number in range(256) if number not in (1, 2, 112, *SUMS)]
    return opaque(rng.choice(others), some_bytes(rng, size))


def icmp(rng, size, kind, code=0) -> Transport:
    message = ICMP(type=kind, code=code) / Raw(some_bytes(rng, size))
    if kind in (0, 8, 13, 14):
        message[ICMP].id, message[ICMP].seq = rng.getrandbits(16), rng.getrandbits(16)
    return lambda view: (ICMP_PROTOCOL, carried(view, message.copy()))


def echo(rng, size) -> Transport:
    return icmp(rng, size, rng.choice([0, 8]))


def error(rng, about: Packet, cut, kind_code=None, behind=b"", to_quoted=View.quoted, length=0) -> Transport:
    """An ICMP error about a packet, of which it quotes the first `cut` bytes; None: all."""
    kind, code = kind_code or rng.choice(ERRORS)
    # What these bytes mean depends on type and code: a pointer, an MTU, the length of the quote (RFC 4884).
    rest = bytes([rng.getrandbits(8), length]) + struct.pack("!H", rng.randint(576, MTU))

    def build(view):
        quote = about.datagram(to_quoted(view))[:cut]
        message = struct.pack("!BBH", kind, code, 0) + rest + quote + behind
        return ICMP_PROTOCOL, summed(message)

    return build


TRANSPORTS = [
    tcp,
    udp,
    udp_without_checksum,
    udp_lite,
    lambda rng, size: udp_lite(rng, size, partial=True),
    dccp,
    sctp,
    gre,
    esp,
    unknown,
    echo,
]
SUMMED = [tcp, udp, udp_lite, dccp]


def corrupted(rng, transport: Transport, place=None) -> Transport:
    """The transport with a checksum that is wrong before and after, by the same difference."""
    difference = rng.randint(1, 0xFFFE)

    def build(view):
        protocol, data = transport(view)
        return protocol, wrong_by(data, SUMS[protocol] if place is None else place, difference)

    return build


# ---- What all packets vary in.


def size_of(rng, number) -> int:
    """Lengths of data: the shortest first, then any, odd and even."""
    return number if number < 4 else rng.choice([rng.randint(0, 64), rng.randint(0, DATA), DATA - 1, DATA])


def options_of(rng, words) -> tuple:
    """IPv4 options of so many words."""
    if words == 0:
        return ()
    forms = [[IPOption_NOP()] * (4 * words - 1) + [IPOption_EOL()]]
    forms.append([IPOption_Router_Alert()] + [IPOption_NOP()] * (4 * words - 4))
    forms.append([IPOption_RR(pointer=4, routers=["0.0.0.0"] * (words - 1)), IPOption_EOL()])
    return tuple(rng.choice(forms))


def varied(rng, transport: Transport, way, **fields) -> Packet:
    """A packet with random values in all that no rule is about, and any TTL that outlives the way."""
    shortest = way.hops + 1
    values = dict(
        ttl=rng.choice([shortest, rng.randint(shortest, 255), 64, 128, 255]),
        tos=rng.getrandbits(8),
        identification=rng.getrandbits(16),
        dont_fragment=rng.random() < 0.5,
        options=options_of(rng, rng.choice([0, 0, 0, 0, rng.randint(1, 10)])),
        padding=some_bytes(rng, rng.choice([0, 0, 0, rng.randint(1, 46)])),
    )
    values.update(fields)
    return Packet(transport, **values)


def whole_length(packet: Packet) -> int:
    """How many bytes of payload the packet has before it is cut, whatever its addresses are."""
    return len(packet.transport(View(("", ""), "192.0.2.1", "192.0.2.2", 0))[1])


# ---- Classes. Each gives a packet, and the reason and hop of its drop if it must not come out.


def somebody(rng) -> str:
    """A public address that is in no table of the world: 20.0.0.0 to 99.255.255.255."""
    return str(IPv4Address(rng.randint(0x14000000, 0x63FFFFFF)))


@dataclass(frozen=True)
class Way:
    """A way through the forwarder; a missing address is anybody's outside."""

    name: str
    before: dict
    after: dict
    hops: int
    gateway: Optional[str]

    def views(self, rng) -> tuple:
        peer = somebody(rng)

        def view(side, hops):
            return View(tuple(side["macs"]), side["source"] or peer, side["destination"] or peer, hops)

        return view(self.before, 0), view(self.after, self.hops)


@dataclass
class Draw:
    """What a class draws from."""

    rng: random.Random
    way: Way
    number: int
    before: View
    after: View
    said: list = field(default_factory=list)

    def size(self) -> int:
        size = size_of(self.rng, self.number)
        self.said.append(f"size {size}")
        return size

    def packet(self, transport, **fields) -> Packet:
        return varied(self.rng, transport, self.way, **fields)


def plain(make):
    return lambda draw: (draw.packet(make(draw.rng, draw.size())), None)


def becomes_zero(draw):
    """Its checksum comes to zero with the addresses that it gets."""
    return draw.packet(udp_that_sums_to_zero(draw.rng, draw.size(), draw.after)), None


def was_zero(draw):
    return draw.packet(udp_that_sums_to_zero(draw.rng, draw.size(), draw.before)), None


def header_length(draw):
    words = 10 - draw.number % 11
    draw.said.append(f"ihl {5 + words}")
    make = draw.rng.choice(TRANSPORTS)
    return draw.packet(make(draw.rng, size_of(draw.rng, draw.number)), options=options_of(draw.rng, words)), None


def fragment(which):
    """One part of a packet. Each comes alone to a forwarder that has seen no other, so their order is any."""

    def make(draw):
        rng = draw.rng
        packet = draw.packet(rng.choice(TRANSPORTS)(rng, rng.randint(64, DATA)))
        length = whole_length(packet)
        cuts = sorted(rng.sample(range(24, length, 8), 2))
        bounds = dict(first=(0, cuts[0], True), middle=(cuts[0], cuts[1], True), last=(cuts[1], length, False))
        draw.said.append(f"bytes {bounds[which][0]} to {bounds[which][1]} of {length}")
        return replace(packet, part=bounds[which]), None

    return make


def fragment_before_checksum(draw):
    """A later fragment that begins inside the TCP header (RFC 3128). The first, of 8 bytes, has no checksum and is dropped, so
    nobody will read the one that may be here: bytes, of which none changes."""
    packet = draw.packet(opaque(TCP_PROTOCOL, some_bytes(draw.rng, draw.rng.randint(16, DATA))))
    return replace(packet, part=(8, whole_length(packet), False)), None


def tiny(draw):
    """A first fragment that ends before its checksum does (RFC 1858)."""
    rng = draw.rng
    make = rng.choice(SUMMED + [echo])
    packet = draw.packet(make(rng, rng.randint(32, 200)))
    place = SUMS.get(packet.transport(draw.before)[0], ICMP_SUM)
    length = rng.randint(0, place + 1)
    draw.said.append(f"{length} bytes of {make.__name__}")
    return replace(packet, part=(0, length, rng.random() < 0.7)), ("tiny_fragment", 1)


def just_long_enough(draw):
    """The same, with one byte more than the longest that is dropped."""
    packet = draw.packet(draw.rng.choice(SUMMED)(draw.rng, 64))
    return replace(packet, part=(0, SUMS[packet.transport(draw.before)[0]] + 2, True)), None


def wrong(draw):
    return draw.packet(corrupted(draw.rng, draw.rng.choice(SUMMED)(draw.rng, draw.size()))), None


def wrong_in_first_fragment(draw):
    packet, _ = wrong(draw)
    return replace(packet, part=(0, max(24, whole_length(packet) // 16 * 8), True)), None


def wrong_query(draw):
    """Its checksum covers no address: nothing changes."""
    return draw.packet(corrupted(draw.rng, echo(draw.rng, draw.size()), ICMP_SUM)), None


def padded(draw):
    packet = draw.packet(draw.rng.choice(TRANSPORTS)(draw.rng, draw.number % 30))
    padding = some_bytes(draw.rng, draw.rng.randint(1, 46))
    draw.said.append(f"{len(padding)} behind")
    return replace(packet, padding=padding), None


def hops_left(draw):
    """The shortest life that is long enough, and the longest."""
    least = draw.way.hops + 1
    ttl = [least, least + 1, 64, 255][draw.number % 4]
    draw.said.append(f"ttl {ttl}")
    return draw.packet(draw.rng.choice(TRANSPORTS)(draw.rng, 20), ttl=ttl), None


def expired(draw):
    ttl = draw.number % (draw.way.hops + 1)
    draw.said.append(f"ttl {ttl}")
    packet = draw.packet(draw.rng.choice(TRANSPORTS)(draw.rng, 20), ttl=ttl)
    return packet, ("ttl_expired", max(ttl, 1), (11, 0, 0))


NARROW = 1000
"""What every interface takes of packets that are too big."""


def too_big(draw):
    """Longer than the interface takes where the translation ends: the uplink's, the receiver's. Nobody may cut it."""
    make = draw.rng.choice([tcp, udp, udp_lite, dccp, echo, esp, unknown])
    size = draw.rng.randint(NARROW, DATA)
    draw.said.append(f"size {size}")
    packet = draw.packet(make(draw.rng, size), dont_fragment=True)
    return packet, ("too_big", draw.way.hops, (3, 4, NARROW))


def told(draw, packet: Packet, hop, kind_code_mtu) -> bytes:
    """The error about a packet that was dropped at a hop, as its sender sees it: RFC 792, RFC 1191 section 4, RFC 1812 section 4.3.2."""
    sender = draw.before
    kind, code, mtu = kind_code_mtu
    # At the second hop the packet had lost a TTL, and the error has come one hop back.
    about = packet.datagram(replace(sender, hops=hop - 1))
    message = summed(struct.pack("!BBHHH", kind, code, 0, 0, mtu) + about[: 576 - 28])
    by = draw.way.gateway if hop == 1 and draw.way.gateway else sender.destination
    header = IP(src=by, dst=sender.source, ttl=64 - (hop - 1), tos=0xC0, id=0, flags="DF", proto=ICMP_PROTOCOL)
    source, destination = sender.macs
    return raw(Ether(src=destination, dst=source, type=0x0800) / Raw(raw(header / Raw(message))))


def quoted_packet(rng, transport=None, most=600, **fields) -> Packet:
    """A packet that an error is about: what was left of its life does not matter."""
    transport = transport or rng.choice(TRANSPORTS)(rng, rng.randint(0, most))
    values = dict(ttl=rng.randint(1, 255), identification=rng.getrandbits(16), dont_fragment=rng.random() < 0.5)
    values.update(fields)
    return Packet(transport, **values)


def header_bytes(packet: Packet) -> int:
    return 4 * IP(raw(IP(options=list(packet.options)))).ihl


def quotes(cut_of, **fields):
    """An error with a quote of so many bytes, which `cut_of` tells from the quoted packet; None: all."""

    def make(draw):
        about = quoted_packet(draw.rng, **fields)
        cut = cut_of(draw.rng, about)
        draw.said.append("all" if cut is None else f"{cut} bytes")
        return draw.packet(error(draw.rng, about, cut)), None

    return make


def whole(_rng, _about):
    return None


def header_and_8(_rng, about):
    return header_bytes(about) + 8


def header_alone(_rng, about):
    return header_bytes(about)


def any_length(rng, about):
    return rng.randint(header_bytes(about), header_bytes(about) + 40)


def error_about_options(draw):
    words = 10 - draw.number % 10
    about = quoted_packet(draw.rng, options=options_of(draw.rng, words))
    draw.said.append(f"ihl {5 + words}")
    return draw.packet(error(draw.rng, about, draw.rng.choice([None, 28 + 4 * words, 20 + 4 * words]))), None


def error_about_first_fragment(draw):
    about = quoted_packet(draw.rng, draw.rng.choice(TRANSPORTS)(draw.rng, 200))
    return draw.packet(error(draw.rng, replace(about, part=(0, 8 * draw.rng.randint(1, 10), True)), None)), None


def error_about_later_fragment(draw):
    """Its bytes are no transport header, even if they look like one: like a checksum, or like an error of their own."""
    rng = draw.rng
    _, message = error(rng, quoted_packet(rng, udp(rng, 100)), None)(draw.before)
    transports = [udp(rng, 200), opaque(TCP_PROTOCOL, some_bytes(rng, 200)), opaque(ICMP_PROTOCOL, bytes(8) + message)]
    about = quoted_packet(rng, rng.choice(transports))
    return draw.packet(error(rng, replace(about, part=(8, 100, rng.random() < 0.5)), None)), None


def error_about_query(draw):
    """An echo or timestamp in the quote: its checksum covers no address."""
    about = quoted_packet(draw.rng, icmp(draw.rng, draw.rng.randint(0, 64), draw.rng.choice([0, 8, 13, 14])))
    return draw.packet(error(draw.rng, about, draw.rng.choice([None, 20, 24, 28]))), None


def error_about_wrong_checksum(draw):
    about = quoted_packet(draw.rng, corrupted(draw.rng, draw.rng.choice(SUMMED)(draw.rng, 40)))
    return draw.packet(error(draw.rng, about, None)), None


def error_about_wrong_header_checksum(draw):
    """Some routers quote a header whose TTL they have changed already, and not the checksum."""
    about = quoted_packet(draw.rng, header_wrong_by=draw.rng.randint(1, 0xFFFE))
    return draw.packet(error(draw.rng, about, draw.rng.choice([None, 28, 20]))), None


def error_about_no_checksum(draw):
    about = quoted_packet(draw.rng, udp_without_checksum(draw.rng, 40))
    return draw.packet(error(draw.rng, about, draw.rng.choice([None, 28]))), None


def error_about_sum_of_zero(draw):
    """The quoted UDP checksum comes to zero with one of the two addresses."""
    view = draw.rng.choice([draw.before, draw.after]).quoted()
    about = quoted_packet(draw.rng, udp_that_sums_to_zero(draw.rng, 40, view))
    return draw.packet(error(draw.rng, about, draw.rng.choice([None, 28]))), None


def error_by_router(draw):
    """The sender of the error is somebody on the way, outside, and not whom the quoted packet went to or came from."""
    # The quoted packet went the other way, and whoever sent it is told: only its destination may be another.
    change = {"destination": somebody(draw.rng)} if draw.way.before["source"] is None else {}
    transport = error(
        draw.rng, quoted_packet(draw.rng), None, to_quoted=lambda view: replace(view.quoted(), **change)
    )
    return draw.packet(transport), None


def error_with_extension(draw):
    """128 bytes of quote, padded with zeroes, and an extension with a label stack behind it (RFC 4884, 4950)."""
    about = quoted_packet(draw.rng, udp(draw.rng, 400))
    labels = struct.pack("!HBBI", 8, 1, 1, draw.rng.getrandbits(32))
    extension = struct.pack("!BBH", 0x20, 0, checksum(b"\x20\0\0\0" + labels)) + labels
    return draw.packet(error(draw.rng, about, 128, (11, 0), behind=extension, length=32)), None


def error_behind_options(draw):
    words = 10 - draw.number % 10
    draw.said.append(f"ihl {5 + words}")
    transport = error(draw.rng, quoted_packet(draw.rng), None)
    return draw.packet(transport, options=options_of(draw.rng, words)), None


def later_fragment_of_error(draw):
    packet = draw.packet(error(draw.rng, quoted_packet(draw.rng, udp(draw.rng, 200)), None))
    return replace(packet, part=(64, whole_length(packet), False)), None


def first_fragment_of_error(draw):
    """Its checksum covers what is elsewhere."""
    packet = draw.packet(error(draw.rng, quoted_packet(draw.rng, udp(draw.rng, 200)), None))
    return replace(packet, part=(0, 64, True)), ("icmp_error", 1)


def error_about_error(draw):
    """There are none (RFC 1122 section 3.2.2), and the quote in the quote would tell an address."""
    inner = error(draw.rng, quoted_packet(draw.rng), draw.rng.choice([None, 28]))
    about = quoted_packet(draw.rng, draw.rng.choice([inner, icmp(draw.rng, 28, 5, 1), icmp(draw.rng, 28, 4)]))
    return draw.packet(error(draw.rng, about, None)), ("icmp_error", 1)


def wrong_error(draw):
    """RFC 5508 section 4.2 REQ-3: dropped."""
    transport = error(draw.rng, quoted_packet(draw.rng), draw.rng.choice([None, 28, 20]))
    return draw.packet(corrupted(draw.rng, transport, ICMP_SUM)), ("icmp_checksum", 1)


def error_about_somebody_else(draw):
    """The quoted packet is none that was translated on its way back: its address here is another's; or not of whom the error is for."""
    stranger = somebody(draw.rng)
    from_inside = draw.way.before["source"] is not None
    side = draw.rng.choice(["source", "destination"] if from_inside else ["source"])
    draw.said.append(f"other {side}")
    transport = error(
        draw.rng,
        quoted_packet(draw.rng),
        draw.rng.choice([None, 28]),
        to_quoted=lambda view: replace(view.quoted(), **{side: stranger}),
    )
    return draw.packet(transport), ("icmp_error", 1)


def error_with_short_quote(draw):
    about = quoted_packet(draw.rng, options=options_of(draw.rng, draw.rng.choice([0, 1, 10])))
    cut = draw.rng.randint(0, header_bytes(about) - 1)
    draw.said.append(f"{cut} bytes")
    return draw.packet(error(draw.rng, about, cut)), ("icmp_error", 1)


def error_with_no_packet(draw):
    """What is quoted is no IPv4 header (version 6, or a length below 5 words), with the right address at the right place."""
    about = quoted_packet(draw.rng)
    first = draw.rng.choice([0x65, 0x44, 0x40, 0x05])
    transport = error(draw.rng, about, 28)

    def build(view):
        protocol, message = transport(view)
        return protocol, summed(message[:8] + bytes([first]) + message[9:])

    return draw.packet(build), ("icmp_error", 1)


def redirect(draw):
    about = quoted_packet(draw.rng)
    return draw.packet(error(draw.rng, about, None, (5, draw.rng.randint(0, 3)))), ("icmp_redirect", 1)


def source_quench(draw):
    """Deprecated (RFC 6633)."""
    return draw.packet(error(draw.rng, quoted_packet(draw.rng), None, (4, 0))), ("icmp_error", 1)


CLASSES = {
    "tcp": plain(tcp),
    "udp": plain(udp),
    "udp_without_checksum": plain(udp_without_checksum),
    "udp_whose_checksum_becomes_zero": becomes_zero,
    "udp_whose_checksum_was_zero": was_zero,
    "udp_lite": plain(udp_lite),
    "udp_lite_partly_covered": plain(lambda rng, size: udp_lite(rng, size, partial=True)),
    "dccp": plain(dccp),
    "dccp_partly_covered": plain(lambda rng, size: dccp(rng, size, partial=True)),
    "sctp": plain(sctp),
    "gre": plain(gre),
    "esp": plain(esp),
    "ah": plain(ah),
    "unknown_protocol": plain(unknown),
    "icmp_echo": plain(echo),
    "icmp_timestamp": plain(lambda rng, _size: icmp(rng, 12, rng.choice([13, 14]))),
    "icmp_other_query": plain(lambda rng, size: icmp(rng, size, rng.choice([15, 16, 17, 18, 42, 43, 255]))),
    "header_length": header_length,
    "first_fragment": fragment("first"),
    "middle_fragment": fragment("middle"),
    "last_fragment": fragment("last"),
    "fragment_inside_tcp_header": fragment_before_checksum,
    "tiny_first_fragment": tiny,
    "least_first_fragment": just_long_enough,
    "wrong_checksum": wrong,
    "wrong_checksum_in_first_fragment": wrong_in_first_fragment,
    "wrong_echo_checksum": wrong_query,
    "padding": padded,
    "ttl": hops_left,
    "ttl_expired": expired,
    "too_big": too_big,
    "error_about_all": quotes(whole),
    "error_about_8_bytes": quotes(header_and_8, most=60),
    "error_about_header": quotes(header_alone),
    "error_about_any_length": quotes(any_length),
    "error_about_large_packet": quotes(whole, most=1300),
    "error_about_options": error_about_options,
    "error_about_first_fragment": error_about_first_fragment,
    "error_about_later_fragment": error_about_later_fragment,
    "error_about_query": error_about_query,
    "error_about_wrong_checksum": error_about_wrong_checksum,
    "error_about_wrong_header_checksum": error_about_wrong_header_checksum,
    "error_about_no_checksum": error_about_no_checksum,
    "error_about_sum_of_zero": error_about_sum_of_zero,
    "error_by_router": error_by_router,
    "error_with_extension": error_with_extension,
    "error_behind_options": error_behind_options,
    "error_later_fragment": later_fragment_of_error,
    "error_first_fragment": first_fragment_of_error,
    "error_about_error": error_about_error,
    "error_wrong_checksum": wrong_error,
    "error_about_somebody_else": error_about_somebody_else,
    "error_with_short_quote": error_with_short_quote,
    "error_with_no_packet": error_with_no_packet,
    "redirect": redirect,
    "source_quench": source_quench,
}


def case(name, way: Way, number: int) -> dict:
    """One packet. Its random numbers are its own, so that other classes and ways change nothing about it."""
    rng = random.Random(f"{SEED} {name} {way.name} {number}")
    while True:
        before, after = way.views(rng)
        draw = Draw(rng, way, number, before, after)
        try:
            packet, drop = CLASSES[name](draw)
            frame = packet.frame(before)
            out = None if drop else packet.frame(after)
            error = told(draw, packet, *drop[1:]) if drop and len(drop) == 3 else None
        except Unfit:
            continue
        if len(frame) - len(packet.padding) <= 14 + MTU:
            break
    said = ["corpus", name, way.name, str(number), *draw.said]
    return {
        "name": "_".join(said).replace(" ", "_"),
        "class": f"corpus_{name}",
        "way": way.name,
        "frame": frame.hex(),
        "out": out.hex() if out else None,
        "drop": {"reason": drop[0], "hop": drop[1], "told": error and error.hex()} if drop else None,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description="Writes a corpus of packets and what must come of them.")
    parser.add_argument("--packets", type=int, default=3000, help="how many, at least (default: %(default)s)")
    packets = parser.parse_args().packets
    world = json.load(sys.stdin)
    ways = [Way(name, way["before"], way["after"], way["hops"], way["gateway"]) for name, way in world.items()]
    kinds = [(name, way) for name in CLASSES for way in ways]
    for number in range(-(-packets // len(kinds))):
        for name, way in kinds:
            print(json.dumps(case(name, way, number)))


if __name__ == "__main__":
    main()
