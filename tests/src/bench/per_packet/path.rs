//! The ways of a packet through the programs.

use std::{net::Ipv4Addr, ops::RangeInclusive};

use anyhow::{Context as _, Result, ensure};
use etherparse::PacketBuilder;
use vip_userspace::kernel::RunnerProgram;

use super::super::{
    forwarder::Counted,
    harness::{Entry, FRAME, Hook, State},
    outer::Outer,
    world::{self, Owners, World},
};
use crate::{Mac, frame::Arp};

/// A way of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Path {
    /// From outside to an EIP, delivered to the owner of its VIP.
    EipIn,
    /// From outside to an address that is nobody's: to the stack.
    Unknown,
    /// ARP from outside for an EIP: answered.
    ArpEip,
    /// A guest's ARP for a VIP: answered.
    ArpVip,
    /// A claim that moves its VIP.
    ClaimMoves,
    /// A claim that waits, because its VIP alternates too fast.
    ClaimWaits,
    /// From a VIP out as its EIP.
    SnatOut,
    /// From a guest to a VIP of its subnet.
    GuestToVip,
    /// From outside to an EIP, to the owner of its VIP on another host.
    EipToRemote,
    /// From a guest to a VIP of its subnet, whose owner is on another host.
    GuestToRemote,
    /// From another host to a VIP, delivered to its owner here.
    VxlanToLocal,
    /// From another host to a VIP that has moved on: to its owner's host.
    VxlanOnward,
}

/// Packets that one interface receives.
pub(super) struct Slice {
    /// The interface.
    pub(super) ifindex: u32,
    /// The harness's state.
    pub(super) state: State,
}

/// What must come of a packet.
pub(super) struct Expected {
    /// Return code.
    pub(super) code: u32,
    /// The packet afterwards.
    pub(super) packet: Vec<u8>,
    /// Where the packet goes to another host: the outer source ports that it may have, any of them for a flow. That of `packet`
    /// is 0.
    pub(super) source_ports: Option<RangeInclusive<u16>>,
}

/// Source ports of what comes from its sender's host (RFC 7348 section 5: the dynamic range), and of what is sent on.
const FRESH: RangeInclusive<u16> = 49_152..=65_535;
const ONWARD: RangeInclusive<u16> = 16_384..=32_767;

const XDP_PASS: u32 = 2;
const XDP_TX: u32 = 3;
const XDP_REDIRECT: u32 = 4;
const TC_ACT_SHOT: u32 = 2;
const TC_ACT_REDIRECT: u32 = 7;

/// A UDP datagram that fills a frame of 64 bytes.
fn udp(macs: (Mac, Mac), from: Ipv4Addr, to: Ipv4Addr, ttl: u8) -> Result<Vec<u8>> {
    const PAYLOAD: [u8; 18] = *b"eighteen bytes....";
    let builder =
        PacketBuilder::ethernet2(macs.0.0, macs.1.0).ipv4(from.octets(), to.octets(), ttl).udp(40_000, 7);
    let mut frame = Vec::new();
    builder.write(&mut frame, &PAYLOAD).context("cannot build a frame")?;
    Ok(frame)
}

/// An ARP packet, padded as Ethernet wants it.
fn arp(packet: &Arp, source: Mac, destination: Mac) -> Vec<u8> {
    let mut frame = packet.frame(source, destination);
    frame.resize(FRAME, 0);
    frame
}

/// A MAC whose last four bytes the harness fills in.
const VIP_MAC: Mac = Mac([0x06, 0x56, 0, 0, 0, 0]);

const NOBODY: Ipv4Addr = Ipv4Addr::UNSPECIFIED;

const NEIGHBOUR_MAC: Mac = Mac([2, 0, 0, 0, 1, world::NEIGHBOUR.to_le_bytes()[0]]);

impl Path {
    /// All, in the order in which they are measured: claims last, because they change the owners.
    pub(super) const ALL: [Self; 12] = [
        Self::EipIn,
        Self::Unknown,
        Self::ArpEip,
        Self::ArpVip,
        Self::SnatOut,
        Self::GuestToVip,
        Self::VxlanToLocal,
        Self::EipToRemote,
        Self::GuestToRemote,
        Self::VxlanOnward,
        Self::ClaimMoves,
        Self::ClaimWaits,
    ];

    /// For tables.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::EipIn => "EIP in to local VIP",
            Self::Unknown => "unknown address, passed",
            Self::ArpEip => "ARP for an EIP, answered",
            Self::ArpVip => "guest's ARP for a VIP, answered",
            Self::ClaimMoves => "claim that moves",
            Self::ClaimWaits => "claim that waits (damped)",
            Self::SnatOut => "VIP out as its EIP",
            Self::GuestToVip => "guest to VIP",
            Self::EipToRemote => "EIP in to VIP on another host",
            Self::GuestToRemote => "guest to VIP on another host",
            Self::VxlanToLocal => "VXLAN in to local VIP",
            Self::VxlanOnward => "VXLAN in, sent on to the VIP's new host",
        }
    }

    /// Where the owners are.
    pub(super) const fn owners(self) -> Owners {
        match self {
            Self::EipToRemote | Self::GuestToRemote | Self::VxlanOnward => Owners::Elsewhere,
            _ => Owners::Here,
        }
    }

    /// The kind of program.
    pub(super) const fn hook(self) -> Hook {
        match self {
            Self::EipIn
            | Self::Unknown
            | Self::ArpEip
            | Self::EipToRemote
            | Self::VxlanToLocal
            | Self::VxlanOnward => Hook::Xdp,
            _ => Hook::Tc,
        }
    }

    /// The forwarder's program.
    pub(super) const fn program(self) -> RunnerProgram {
        match self.hook() {
            Hook::Xdp => RunnerProgram::Uplink,
            Hook::Tc => RunnerProgram::Port,
        }
    }

    /// The harness's program.
    pub(super) const fn harness(self) -> Entry {
        match self {
            Self::EipIn | Self::Unknown => Entry::new("xdp_to"),
            Self::ArpEip => Entry::new("xdp_asked"),
            Self::ArpVip => Entry::new("tc_asked"),
            Self::ClaimMoves | Self::ClaimWaits => Entry::new("tc_claimed"),
            Self::SnatOut => Entry::new("tc_from"),
            Self::GuestToVip => Entry::new("tc_to_by_mac"),
            Self::GuestToRemote => Entry::new("tc_to_by_mac").single(),
            Self::EipToRemote => Entry::new("xdp_to_far"),
            Self::VxlanToLocal | Self::VxlanOnward => Entry::tunnelled("xdp_inside"),
        }
    }

    /// The C program that does this job with one hash look-up.
    pub(super) const fn one_hash(self) -> Option<&'static str> {
        match self {
            Self::EipIn | Self::Unknown => Some("one_hash"),
            Self::EipToRemote => Some("far_eip"),
            Self::GuestToRemote => Some("tc_to_far"),
            Self::VxlanToLocal => Some("from_far"),
            Self::VxlanOnward => Some("onward"),
            _ => None,
        }
    }

    /// The same with two.
    pub(super) const fn two_hashes(self) -> Option<&'static str> {
        match self {
            Self::EipIn | Self::Unknown => Some("two_hashes"),
            _ => None,
        }
    }

    /// Whether it can be measured with so many entries; else why not.
    pub(super) fn possible(self, world: World) -> Result<(), &'static str> {
        match self {
            Self::ClaimMoves if world.entries < 1000 => {
                Err("a VIP moves eight times at once and then once a second: too few to measure")
            }
            Self::ClaimWaits if world.entries > 1000 => {
                Err("VIPs regain a move a second, faster than a run comes back to each")
            }
            _ => Ok(()),
        }
    }

    /// The packets: all entries, by the interfaces that they come from.
    pub(super) fn slices(self, world: World) -> Result<Vec<Slice>> {
        let one = |ifindex, frame: &[u8], first: Ipv4Addr| -> Result<Vec<Slice>> {
            let mut state = State::new(frame)?;
            (state.count, state.first) = (world.entries, first.into());
            Ok(vec![Slice { ifindex, state }])
        };
        let neighbour = world::port_interface(world::NEIGHBOUR);
        match self {
            Self::EipIn | Self::ArpEip | Self::EipToRemote => {
                one(1, &self.frame(world, 0, NOBODY)?, world::FIRST_EIP)
            }
            Self::Unknown => one(1, &self.frame(world, 0, NOBODY)?, world::FIRST_UNKNOWN),
            Self::VxlanToLocal | Self::VxlanOnward => {
                one(1, &self.frame(world, 0, NOBODY)?, world::FIRST_VIP)
            }
            Self::ArpVip | Self::GuestToVip | Self::GuestToRemote => {
                one(neighbour, &self.frame(world, 0, NOBODY)?, world::FIRST_VIP)
            }
            Self::ClaimMoves | Self::ClaimWaits => {
                let mut slices = one(
                    world::port_interface(world::STANDBY),
                    &self.frame(world, world::STANDBY, NOBODY)?,
                    world::FIRST_VIP,
                )?;
                for slice in &mut slices {
                    slice.state.stride = stride(world.entries);
                }
                Ok(slices)
            }
            Self::SnatOut => self.by_owner(world),
        }
    }

    /// The packets of all VIPs, each by the port that owns it.
    pub(super) fn by_owner(self, world: World) -> Result<Vec<Slice>> {
        let owners = (0..world.owners).filter(|port| world.owned_by(*port) > 0);
        owners
            .map(|port| {
                let mut state = State::new(&self.frame(world, port, NOBODY)?)?;
                state.first = world::FIRST_VIP.into();
                (state.count, state.offset, state.step) = (world.owned_by(port), port, world.owners);
                state.stride = 1 % state.count;
                Ok(Slice { ifindex: world::port_interface(port), state })
            })
            .collect()
    }

    /// The frame about an address, sent by a port where it is a guest's.
    fn frame(self, _world: World, port: u32, address: Ipv4Addr) -> Result<Vec<u8>> {
        let constant = |address: Ipv4Addr| {
            if address == NOBODY { VIP_MAC } else { world::vip_mac(address) }
        };
        match self {
            Self::EipIn | Self::Unknown | Self::EipToRemote => {
                udp((world::ROUTER_MAC, world::UPLINK_MAC), world::CLIENT, address, 64)
            }
            Self::ArpEip => {
                let question = Arp::question(world::ROUTER_MAC, world::ROUTER, address);
                Ok(arp(&question, world::ROUTER_MAC, Mac::BROADCAST))
            }
            Self::ArpVip => {
                let speaker = world::port_address(world::NEIGHBOUR);
                Ok(arp(&Arp::question(NEIGHBOUR_MAC, speaker, address), NEIGHBOUR_MAC, Mac::BROADCAST))
            }
            Self::ClaimMoves | Self::ClaimWaits => {
                let mac = world::port_mac(port);
                Ok(arp(&Arp::gratuitous_request(mac, address), mac, Mac::BROADCAST))
            }
            Self::SnatOut => {
                let macs = (world::port_mac(port), world::vip_mac(world::GATEWAY));
                udp(macs, address, world::CLIENT, 64)
            }
            Self::GuestToVip | Self::GuestToRemote => {
                let speaker = world::port_address(world::NEIGHBOUR);
                udp((NEIGHBOUR_MAC, constant(address)), speaker, address, 64)
            }
            Self::VxlanToLocal | Self::VxlanOnward => {
                Ok(Outer::from(world::host_of(FAR)).around(&far_guest(constant(address), address)?))
            }
        }
    }

    /// What must come of the packet of an entry: built anew, by code that the forwarder has no part in.
    pub(super) fn expected(self, world: World, vips: &[u32], number: u32) -> Result<Expected> {
        let vip_of = |eip: u32| vips.get(eip as usize).copied().context("an EIP without a VIP");
        let vip_address = |vip| world::nth(world::FIRST_VIP, vip);
        let eip_address = |eip| world::nth(world::FIRST_EIP, eip);
        let owner_mac = |vip| world::port_mac(world.owner_of(vip));
        let gateway = world::vip_mac(world::GATEWAY);
        let far_host = |vip| world::host_of(world::far_owner_of(vip));
        let (code, packet) = match self {
            Self::EipIn => {
                let vip = vip_of(number)?;
                (XDP_REDIRECT, udp((gateway, owner_mac(vip)), world::CLIENT, vip_address(vip), 63)?)
            }
            Self::Unknown => (XDP_PASS, self.frame(world, 0, world::nth(world::FIRST_UNKNOWN, number))?),
            Self::ArpEip => {
                let asker = (world::ROUTER_MAC, world::ROUTER);
                (XDP_TX, answer((world::UPLINK_MAC, eip_address(number)), asker))
            }
            Self::ArpVip => {
                let vip = vip_address(number);
                let asker = (NEIGHBOUR_MAC, world::port_address(world::NEIGHBOUR));
                (TC_ACT_REDIRECT, answer((world::vip_mac(vip), vip), asker))
            }
            Self::ClaimMoves | Self::ClaimWaits => {
                (TC_ACT_SHOT, self.frame(world, world::STANDBY, vip_address(number))?)
            }
            Self::SnatOut => {
                let macs = (world::UPLINK_MAC, world::ROUTER_MAC);
                let eip = eip_address(world.eip_of(number));
                (TC_ACT_REDIRECT, udp(macs, eip, world::CLIENT, 63)?)
            }
            Self::GuestToVip => {
                let macs = (NEIGHBOUR_MAC, owner_mac(number));
                let speaker = world::port_address(world::NEIGHBOUR);
                (TC_ACT_REDIRECT, udp(macs, speaker, vip_address(number), 64)?)
            }
            Self::EipToRemote => {
                let vip = vip_of(number)?;
                let macs = (gateway, world::vip_mac(vip_address(vip)));
                let inner = udp(macs, world::CLIENT, vip_address(vip), 63)?;
                (XDP_TX, Outer::to(far_host(vip)).around(&inner))
            }
            Self::GuestToRemote => {
                let inner = self.frame(world, 0, vip_address(number))?;
                (TC_ACT_REDIRECT, Outer::to(far_host(number)).around(&inner))
            }
            Self::VxlanToLocal => (XDP_REDIRECT, far_guest(owner_mac(number), vip_address(number))?),
            Self::VxlanOnward => {
                let vip = vip_address(number);
                let inner = far_guest(world::vip_mac(vip), vip)?;
                (XDP_TX, Outer::to(far_host(number)).around(&inner))
            }
        };
        let source_ports = match self {
            Self::EipToRemote | Self::GuestToRemote => Some(FRESH),
            Self::VxlanOnward => Some(ONWARD),
            _ => None,
        };
        Ok(Expected { code, packet, source_ports })
    }

    /// Whether the counters say that exactly `runs` packets went this way, over all entries, and nothing else happened. Gives
    /// what they say.
    pub(super) fn account(
        self,
        world: World,
        before: &Counted,
        after: &Counted,
        runs: u64,
    ) -> Result<String> {
        ensure!(before.drops == after.drops, "packets were dropped: {:?}", after.drops);
        let eips_in = after.eips.packets_in - before.eips.packets_in;
        let eips_out = after.eips.packets_out - before.eips.packets_out;
        let vips_in = after.vips.packets_in - before.vips.packets_in;
        let vips_out = after.vips.packets_out - before.vips.packets_out;
        let moves = after.moves - before.moves;
        let found = (eips_in, eips_out, vips_in, vips_out);
        let wanted = match self {
            Self::EipIn | Self::EipToRemote => (runs, 0, runs, 0),
            Self::SnatOut => (0, runs, 0, runs),
            Self::GuestToVip | Self::GuestToRemote | Self::VxlanToLocal => (0, 0, runs, 0),
            _ => (0, 0, 0, 0),
        };
        ensure!(found == wanted, "of {runs} packets, EIPs and VIPs counted {found:?} (in, out, in, out)");
        let onward = after.onward - before.onward;
        let wanted = if self == Self::VxlanOnward { runs } else { 0 };
        ensure!(onward == wanted, "of {runs} packets {onward} were sent on to other hosts");
        match self {
            Self::ClaimMoves => ensure!(moves == runs, "{runs} claims made {moves} moves"),
            // Each VIP regains a move a second.
            Self::ClaimWaits => {
                ensure!(moves * 10 < runs, "{runs} claims were to wait, and made {moves} moves");
                ensure!(after.waiting == world.entries, "claims wait for {} VIPs only", after.waiting);
            }
            _ => ensure!(moves == 0, "{moves} VIPs moved"),
        }
        Ok(match self {
            Self::EipIn | Self::EipToRemote => {
                let used = after.eips_used;
                spread_evenly(used, world, runs)?;
                format!(
                    "EIPs counted {eips_in} packets for {runs} runs, {used} of {} EIPs some",
                    world.entries
                )
            }
            Self::SnatOut => format!("EIPs counted {eips_out} packets out for {runs} runs"),
            Self::VxlanOnward => format!("VIPs counted {onward} packets sent on for {runs} runs"),
            Self::GuestToVip | Self::GuestToRemote | Self::VxlanToLocal => {
                format!("VIPs counted {vips_in} packets for {runs} runs")
            }
            Self::ClaimMoves => format!("epochs grew by {moves} for {runs} claims"),
            Self::ClaimWaits => {
                format!(
                    "epochs grew by {moves} for {runs} claims, one waits for each of {} VIPs",
                    after.waiting
                )
            }
            Self::Unknown | Self::ArpEip | Self::ArpVip => {
                format!("no counter moved in {runs} runs, none of which missed the program")
            }
        })
    }
}

/// Whether so many runs reached about as many entries as chance would have it: n (1 - e^(-runs/n)).
fn spread_evenly(used: u32, world: World, runs: u64) -> Result<()> {
    let entries = f64::from(world.entries);
    #[expect(clippy::cast_precision_loss, reason = "runs are millions")]
    let expected = entries * (1.0 - (-(runs as f64) / entries).exp());
    ensure!(
        f64::from(used) >= 0.95 * expected.floor(),
        "{runs} packets reached {used} of {entries} EIPs: they were not random"
    );
    Ok(())
}

/// The guest on another host that speaks to VIPs: number of a port.
const FAR: u32 = world::PORTS;

/// What that guest sends.
fn far_guest(to_mac: Mac, to: Ipv4Addr) -> Result<Vec<u8>> {
    udp((world::port_mac(FAR), to_mac), world::port_address(FAR), to, 64)
}

/// An ARP reply.
fn answer(speaker: (Mac, Ipv4Addr), asker: (Mac, Ipv4Addr)) -> Vec<u8> {
    let reply = Arp {
        operation: etherparse::ArpOperation::REPLY,
        sender_mac: speaker.0,
        sender: speaker.1,
        target_mac: asker.0,
        target: asker.1,
    };
    arp(&reply, speaker.0, asker.0)
}

/// A way through all numbers below `count` in far jumps.
fn stride(count: u32) -> u32 {
    const PRIME: u32 = 611_953;
    PRIME % count.max(1)
}
