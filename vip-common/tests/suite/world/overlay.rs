//! Several hosts with one state.

use etherparse::{IpNumber, Ipv4Header};
use vip_common::{
    engine::MemoryTables,
    tables::{ConfigFlags, HostEntry, VniEntry},
    wire::{Ipv4, Mac},
};
use zerocopy::FromBytes as _;

use super::plan::{HOSTS, PORTS, VNIS, host_mac, vtep};

/// Several hosts with one state, seen from one of them.
#[derive(Clone, Debug)]
pub(crate) struct Overlay {
    /// The host whose tables they are.
    pub(crate) here: u32,
    /// The host of each port.
    pub(crate) places: Vec<u32>,
    /// Longest IP packet of a guest between hosts; 0: nobody knows.
    pub(crate) mtu: u16,
    /// Hosts whose MAC nobody knows.
    pub(crate) strangers: Vec<u32>,
    /// Hosts that no route leads to.
    pub(crate) lost: Vec<u32>,
    /// Whether MACs of next hops are believed.
    pub(crate) believed: bool,
    /// Whether nobody is learned.
    pub(crate) learning_waits: bool,
}

impl Default for Overlay {
    /// All ports are here, on the first host, which reaches both others.
    fn default() -> Self {
        Self {
            here: 1,
            places: vec![1; PORTS as usize],
            mtu: 0,
            strangers: Vec::new(),
            lost: Vec::new(),
            believed: true,
            learning_waits: false,
        }
    }
}

impl Overlay {
    pub(crate) fn place(&self, port: u32) -> u32 {
        self.places[port as usize - 1]
    }

    /// The entry of HOSTS for another host: headers by etherparse.
    fn entry(&self, host: u32) -> HostEntry {
        let mut header = Ipv4Header {
            dont_fragment: true,
            time_to_live: 64,
            protocol: IpNumber::UDP,
            source: vtep(self.here).octets(),
            destination: vtep(host).octets(),
            ..Ipv4Header::default()
        };
        header.total_len = 0;
        header.header_checksum = header.calc_header_checksum();
        let is_lost = self.lost.contains(&host);
        let mac = if is_lost || self.strangers.contains(&host) { Mac::ZERO } else { host_mac(host) };
        let ethernet = [&mac.octets()[..], &host_mac(self.here).octets(), &[8, 0]].concat();
        HostEntry {
            ethernet: vip_common::wire::Ethernet::read_from_bytes(&ethernet).expect("14 bytes"),
            ip: vip_common::wire::Ipv4Header::read_from_bytes(&header.to_bytes()).expect("20 bytes"),
            mtu: self.mtu,
            next_hop: if is_lost { Ipv4::UNSPECIFIED } else { vtep(host) },
            zero: 0,
        }
    }

    pub(super) fn fill(&self, tables: &mut MemoryTables) {
        for host in 1..=HOSTS {
            tables.vteps.insert(vtep(host), host);
            if host != self.here {
                tables.hosts.insert(host, self.entry(host));
            }
        }
        for vni in VNIS {
            tables.vnis.insert(vni, VniEntry { root: 0 });
        }
        let now = tables.now.get();
        if let Some(config) = &mut tables.config {
            config.vtep = vtep(self.here);
            config.uplink_mac = host_mac(self.here);
            config.neighbours_until = if self.believed { u64::MAX } else { now };
            if self.learning_waits {
                config.flags = config.flags.with(ConfigFlags::LEARNING_WAITS);
            }
        }
    }
}
