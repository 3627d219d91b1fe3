//! The headers of VXLAN (RFC 7348), built without the forwarder's code.

use std::net::Ipv4Addr;

use super::world::{self, VNI};
use crate::{Mac, offload::sum, vxlan};

/// What stands before a frame between hosts: IPv4 without options and with DF, TTL 64, UDP without checksum.
#[derive(Clone, Copy, Debug)]
pub(super) struct Outer {
    /// Ethernet source and destination.
    macs: (Mac, Mac),
    /// IPv4 source and destination.
    vteps: (Ipv4Addr, Ipv4Addr),
    /// UDP source port.
    source_port: u16,
}

impl Outer {
    /// From this host to another, without a source port yet.
    pub(super) fn to(host: u32) -> Self {
        let macs = (world::UPLINK_MAC, world::host_mac(host));
        Self { macs, vteps: (world::OWN_VTEP, world::vtep(host)), source_port: 0 }
    }

    /// From another host to this one, as its sender sends it.
    pub(super) fn from(host: u32) -> Self {
        let macs = (world::host_mac(host), world::UPLINK_MAC);
        Self { macs, vteps: (world::vtep(host), world::OWN_VTEP), source_port: 50_000 }
    }

    /// The headers with lengths 0.
    pub(super) fn without_lengths(self) -> Vec<u8> {
        self.bytes(0, 0)
    }

    /// A frame behind the headers.
    pub(super) fn around(self, inner: &[u8]) -> Vec<u8> {
        const UDP_AND_VXLAN: usize = 16;
        let udp = u16::try_from(UDP_AND_VXLAN + inner.len()).unwrap_or(u16::MAX);
        [self.bytes(20 + udp, udp), inner.to_vec()].concat()
    }

    fn bytes(self, total_length: u16, udp_length: u16) -> Vec<u8> {
        let Self { macs, vteps, source_port } = self;
        let [total, udp] = [total_length, udp_length].map(u16::to_be_bytes);
        let before = [0x45, 0, total[0], total[1], 0, 0, 0x40, 0, 64, 17];
        let (from, to) = (vteps.0.octets(), vteps.1.octets());
        let checksum = !sum(&[before.as_slice(), &from, &to].concat());
        let [_, a, b, c] = VNI.to_be_bytes();
        [
            macs.1.0.as_slice(),
            &macs.0.0,
            &[0x08, 0x00],
            &before,
            &checksum.to_be_bytes(),
            &from,
            &to,
            &source_port.to_be_bytes(),
            &vxlan::PORT.to_be_bytes(),
            &udp,
            &[0, 0],
            &[0x08, 0, 0, 0, a, b, c, 0],
        ]
        .concat()
    }
}
