//! A hypervisor with six guests that are programs behind taps: neighbours, a VIP's owner, a router whose check is off, another
//! subnet, another VPC.

use std::{net::Ipv4Addr, time::Duration};

use anyhow::{Context as _, Result, ensure};
use vip_lab::{
    Binaries, EipReach, Host, Lab, Mac, Outside, Vipd, VipdConfig,
    frame::Arp,
    scene::{EIP, EIP_NETWORKS, FIXED_EIP, GATEWAY, VIP, VIP_ID, constant_mac},
    tap::{Offers, Offload, Tap},
};

pub(crate) const SOON: Duration = Duration::from_secs(20);

/// The EIP of the guest that sends.
pub(crate) const FIRST_EIP: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 12);

/// The gateways of the other subnet and of the other VPC's.
const FAR_GATEWAY: Ipv4Addr = Ipv4Addr::new(192, 168, 8, 1);
const PEER_GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 20, 0, 1);

/// A guest of the stage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Who {
    /// It sends.
    First,
    /// The VIP's owner.
    Owner,
    /// A neighbour with an EIP of its own.
    Neighbour,
    /// A neighbour that routes: its check is off.
    Router,
    /// In another subnet of the VPC.
    Far,
    /// In a VPC that the first is a peer of.
    Peer,
}

/// Whom, id, subnet, gateway, interface, MAC and address of the guests, in the order of [`Stage::guest`].
const GUESTS: [(Who, &str, &str, Ipv4Addr, &str, Mac, Ipv4Addr); 6] = [
    (Who::First, "first", "web", GATEWAY, "tap0", mac(1), Ipv4Addr::new(192, 168, 7, 247)),
    (Who::Owner, "owner", "web", GATEWAY, "tap1", mac(2), Ipv4Addr::new(192, 168, 7, 248)),
    (Who::Neighbour, "neighbour", "web", GATEWAY, "tap2", mac(3), Ipv4Addr::new(192, 168, 7, 249)),
    (Who::Router, "router", "web", GATEWAY, "tap3", mac(4), Ipv4Addr::new(192, 168, 7, 250)),
    (Who::Far, "far", "db", FAR_GATEWAY, "tap4", mac(5), Ipv4Addr::new(192, 168, 8, 10)),
    (Who::Peer, "peer", "shop", PEER_GATEWAY, "tap5", mac(6), Ipv4Addr::new(10, 20, 0, 10)),
];

const fn mac(number: u8) -> Mac {
    Mac([2, 0, 0, 0, 9, number])
}

/// A guest: its end of the tap, and what it is called.
pub(crate) struct TapGuest {
    who: Who,
    pub(crate) mac: Mac,
    pub(crate) address: Ipv4Addr,
    /// The MAC that it is told of its gateway.
    pub(crate) gateway: Mac,
    pub(crate) tap: Tap,
}

/// Fields are dropped from the first to the last.
pub(crate) struct Stage {
    pub(crate) vipd: Vipd,
    guests: Vec<TapGuest>,
    pub(crate) outside: Outside,
    pub(crate) host: Host,
    /// What the guests' drivers take.
    pub(crate) offers: Offers,
}

impl Stage {
    /// Guests whose drivers take what `offers` says. The uplink completes no checksums and cuts nothing: what leaves it is what a
    /// wire carries.
    pub(crate) fn start(lab: &Lab, offers: Offers) -> Result<Self> {
        let host = lab.add_host("hv1")?;
        let outside = host.add_outside(EipReach::OnLink)?;
        let without = ["tx", "off", "tso", "off", "gso", "off", "tx-udp-segmentation", "off"];
        host.netns().check(&[["ethtool", "-K", "eth0"].as_slice(), &without].concat())?;
        // Captures outside see what came, not what GRO made of it. Nothing here needs what XDP would send back by that veth.
        outside.netns().check(&["ethtool", "-K", "eth0", "gro", "off"])?;
        let guests = GUESTS.map(|(who, _, _, gateway, interface, mac, address)| -> Result<TapGuest> {
            let tap = Tap::create_with(host.netns(), interface, offers)?;
            Ok(TapGuest { who, mac, address, gateway: constant_mac(gateway), tap })
        });
        let guests = guests.into_iter().collect::<Result<Vec<_>>>()?;
        let config = VipdConfig::new("hv1").with(EIP_NETWORKS);
        let mut vipd = Vipd::start(&host, &Binaries::from_env()?, &config, &state())?;
        vipd.ready()?;
        let stage = Self { vipd, guests, outside, host, offers };
        let owner = stage.guest(Who::Owner)?;
        let claim = Arp::gratuitous_request(owner.mac, VIP).frame(owner.mac, Mac::BROADCAST);
        owner.tap.send(&claim, Offload::default())?;
        stage.vipd.wait_for_owner(VIP_ID, "owner", SOON)?;
        Ok(stage)
    }

    pub(crate) fn guest(&self, who: Who) -> Result<&TapGuest> {
        self.guests.iter().find(|guest| guest.who == who).context("there is no such guest")
    }

    /// Fails if anything was dropped, for whatever reason.
    pub(crate) fn ensure_nothing_was_dropped(&self) -> Result<()> {
        let mut drops = self.vipd.drops()?;
        drops.retain(|_, &mut packets| packets != 0);
        ensure!(drops.is_empty(), "packets were dropped: {drops:?}");
        Ok(())
    }
}

fn state() -> String {
    let ports: String = GUESTS
        .map(|(who, id, subnet, _, interface, mac, address)| {
            let check = who != Who::Router;
            format!(
                "  - {{ id: {id}, subnet: {subnet}, address: {address}, mac: \"{mac}\", host: hv1, \
                 interface: {interface}, source_dest_check: {check} }}\n"
            )
        })
        .concat();
    format!(
        "hosts:   [{{ id: hv1, vtep: 198.51.100.1 }}]\n\
         vpcs:    [{{ id: blue, vni: 4001 }}, {{ id: green, vni: 4002 }}]\n\
         peerings: [{{ vpcs: [blue, green] }}]\n\
         subnets:\n\
         \x20 - {{ id: web, vpc: blue, cidr: 192.168.4.0/22, gateway: {GATEWAY} }}\n\
         \x20 - {{ id: db, vpc: blue, cidr: 192.168.8.0/24, gateway: {FAR_GATEWAY} }}\n\
         \x20 - {{ id: shop, vpc: green, cidr: 10.20.0.0/24, gateway: {PEER_GATEWAY} }}\n\
         ports:\n{ports}\
         vips:    [{{ id: {VIP_ID}, subnet: web, address: {VIP}, ports: [owner] }}]\n\
         eips:\n\
         \x20 - {{ id: vip-eip, address: {EIP}, vip: {VIP_ID} }}\n\
         \x20 - {{ id: neighbour-eip, address: {FIXED_EIP}, port: neighbour }}\n\
         \x20 - {{ id: first-eip, address: {FIRST_EIP}, port: first }}\n"
    )
}
