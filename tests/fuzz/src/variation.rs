//! How a world may differ from the fixtures'.

use std::fmt;

use vip_common::tables::{
    ClaimForm, ConfigFlags, DAMPING_BURST, DAMPING_INTERVAL_NS, OwnerWord, Pending, PortFlags, RouteKind,
    SourceEip,
};
use vip_lab::fixtures::{
    World,
    world::{
        BACKUP, BRIDGED, BYPASS, CLIENT, ELSEWHERE, FREE_VIP, GREEN_CLIENT, HV2, HV3, MASTER, OUTLYING,
        PEERED, REAL, VRRP_VIP, WEB_VIP,
    },
};

/// The moment of all frames, in nanoseconds since boot: long after it, so that times before exist.
const NOW: u64 = 1_000_000_000_000;

/// One difference: what a reader calls it, and what it does.
type Change = (&'static str, fn(&mut World));

/// All differences, by bit. Files of the corpus and of the regressions name them by number: new ones come last.
const CHANGES: [Change; 22] = [
    ("the backup owns the web VIP", |world| world.own(WEB_VIP, BACKUP)),
    ("nobody owns the web VIP", |world| world.disown(WEB_VIP)),
    ("the master owns the web VIP by VRID 66", |world| {
        world.set_word(WEB_VIP, OwnerWord::new(WEB_VIP.epoch, true, MASTER.index, 66));
    }),
    ("the bridged guest owns the free VIP", |world| world.own(FREE_VIP, BRIDGED)),
    ("the backup's claim of the web VIP is due", |world| {
        let claim = Pending::new(BACKUP.index, 67, ClaimForm::GarpRequest, NOW - DAMPING_INTERVAL_NS);
        world.set_entry(WEB_VIP, |entry| entry.pending = claim);
    }),
    ("the web VIP has moved too often, and the backup's claim waits", |world| {
        let claim = Pending::new(BACKUP.index, 0, ClaimForm::GarpReply, NOW + DAMPING_INTERVAL_NS);
        world.set_entry(WEB_VIP, |entry| {
            entry.pending = claim;
            entry.damped_until = NOW + DAMPING_BURST * DAMPING_INTERVAL_NS;
        });
    }),
    ("a claim of the free VIP is due whose claimant has lost the right to own it", |world| {
        let claim = Pending::new(REAL.index, 0, ClaimForm::GarpRequest, NOW - DAMPING_INTERVAL_NS);
        world.set_entry(FREE_VIP, |entry| entry.pending = claim);
    }),
    ("the master takes no XDP frames", |world| {
        world.set_port(MASTER, |port| port.flags = PortFlags::default());
    }),
    ("TCP is TC's", |world| set_flag(world, ConfigFlags::TCP_BY_TC, true)),
    ("the uplink cannot return frames", |world| set_flag(world, ConfigFlags::UPLINK_RETURNS, false)),
    ("EIPs are not announced", |world| set_flag(world, ConfigFlags::ANNOUNCE_EIPS, false)),
    ("the neighbours are not believed", |world| {
        if let Some(config) = world.tables.config.as_mut() {
            config.neighbours_until = NOW;
        }
    }),
    ("the guest without check has an EIP", |world| {
        let eip = SourceEip::new(std::net::Ipv4Addr::new(203, 0, 113, 17).into(), 0);
        world.tables.eips.insert(eip.address, vip_common::tables::Target::port(BYPASS.index));
        world.set_port(BYPASS, |port| port.eip = eip);
    }),
    ("the client has no check", |world| {
        world.set_port(CLIENT, |port| port.flags = port.flags.with(PortFlags::BYPASS));
    }),
    ("the guest behind somebody else's router has no check", |world| {
        world.set_port(OUTLYING, |port| port.flags = port.flags.with(PortFlags::BYPASS));
    }),
    ("the VRRP VIP has an EIP", |world| {
        let eip = SourceEip::new(std::net::Ipv4Addr::new(203, 0, 113, 18).into(), 0);
        world.tables.eips.insert(eip.address, vip_common::tables::Target::vip(VRRP_VIP.slot));
        world.set_vip(VRRP_VIP, |entry| entry.eip = eip);
    }),
    ("the way out is narrow, and so are the guests' interfaces", |world| {
        /// Shorter than any MTU that matters, so that short frames are too long.
        const NARROW: u32 = 128;
        if let Some(config) = world.tables.config.as_mut() {
            config.uplink_mtu = NARROW;
        }
        for port in world.tables.ports.values_mut() {
            port.mtu = NARROW;
        }
    }),
    ("the default route leads elsewhere", |world| {
        world.tables.routes.clear();
        world.add_route(ELSEWHERE, 32, RouteKind::OnLink);
    }),
    ("the guests' interfaces take no more than every host does", |world| {
        for port in world.tables.ports.values_mut() {
            // RFC 791 section 3.1.
            port.mtu = 576;
        }
    }),
    ("the master is on another host, and a guest of the green VPC and the peer's on a third", |world| {
        world.add_hosts();
        world.place(MASTER, HV2);
        world.place(GREEN_CLIENT, HV3);
        world.place(PEERED, HV3);
    }),
    ("the backup and the real server are on a third host", |world| {
        world.add_hosts();
        world.place(BACKUP, HV3);
        world.place(REAL, HV3);
    }),
    ("the client and the guest without check are on another host", |world| {
        world.add_hosts();
        world.place(CLIENT, HV2);
        world.place(BYPASS, HV2);
    }),
];

fn set_flag(world: &mut World, flag: ConfigFlags, on: bool) {
    let Some(config) = world.tables.config.as_mut() else { return };
    let all = [ConfigFlags::ANNOUNCE_EIPS, ConfigFlags::UPLINK_RETURNS, ConfigFlags::TCP_BY_TC];
    config.flags = all
        .into_iter()
        .filter(|each| if *each == flag { on } else { config.flags.has(*each) })
        .fold(ConfigFlags::default(), ConfigFlags::with);
}

/// A set of differences.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub struct Variation(u32);

impl Variation {
    /// Differences that there are.
    pub const COUNT: usize = CHANGES.len();

    /// The way out, and the guests' interfaces, are narrow.
    pub const NARROW: Self = Self(1 << 16);

    /// The guests' interfaces take no more than every host does.
    pub const LEAST: Self = Self(1 << 18);

    /// Each of the ways in which guests are on other hosts.
    pub const HOSTS: [Self; 3] = [Self(1 << 19), Self(1 << 20), Self(1 << 21)];

    /// The set with these bits; those that mean nothing stay away.
    pub const fn of_bits(bits: u32) -> Self {
        Self(bits & ((1 << Self::COUNT) - 1))
    }

    /// Its bits.
    pub const fn bits(self) -> u32 {
        self.0
    }

    /// The set with a difference more, or without it if it was there.
    #[must_use]
    pub const fn toggled(self, difference: usize) -> Self {
        Self(self.0 ^ 1 << (difference % Self::COUNT))
    }

    /// The world.
    pub fn world(self) -> World {
        let mut world = World::at(NOW);
        for (_, change) in self.changes() {
            change(&mut world);
        }
        world
    }

    fn changes(self) -> impl Iterator<Item = &'static Change> {
        CHANGES.iter().enumerate().filter(move |(bit, _)| self.0 >> bit & 1 != 0).map(|(_, change)| change)
    }
}

impl fmt::Debug for Variation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0 == 0 {
            return write!(f, "all is as in the fixtures");
        }
        let names: Vec<_> = self.changes().map(|(name, _)| *name).collect();
        write!(f, "{}", names.join("; "))
    }
}
