//! Guests that lie: nothing of it reaches another guest or the outside, and each lie is counted under its own reason.
#![cfg(feature = "kernel")]

use std::{
    collections::BTreeMap,
    net::{Ipv4Addr, UdpSocket},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use vip_lab::{
    Announcement, Guest, Lab, Mac, Netns, RawSender,
    capture::Capture,
    frame::{self, Arp, ArpOperation, Frame},
    poll_until,
    scene::{EIP, EIP_NEIGHBOUR, FIXED_EIP, GATEWAY, Scene, Setting, VIP, VIP_ID, constant_mac},
};

const SHORT: Duration = Duration::from_secs(10);

/// How often each lie is told.
const TIMES: u64 = 3;

/// An address of the subnet that nobody has.
const UNLISTED: Ipv4Addr = Ipv4Addr::new(192, 168, 7, 10);

/// An address of nobody's network (TEST-NET-1, RFC 5737).
const FOREIGN: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);

/// The MAC of no guest.
const FORGED: Mac = Mac([0x02, 0, 0, 0, 0, 0x66]);

/// The virtual router MAC of VRID 66 (RFC 5798 section 7.3), which the state allows nobody.
const ROUTER: Mac = Mac([0, 0, 0x5e, 0, 1, 66]);

/// A port where nobody listens, and what an honest datagram to it says.
const HONEST: (u16, &[u8]) = (7777, b"honest");

/// A frame that must not get through, and why it is dropped.
struct Lie {
    what: &'static str,
    frame: Vec<u8>,
    reason: &'static str,
}

fn lie(what: &'static str, frame: Vec<u8>, reason: &'static str) -> Lie {
    Lie { what, frame, reason }
}

/// An unsolicited answer "`address` is at `mac`", told to one guest.
fn poison(mac: Mac, address: Ipv4Addr, victim: &Guest) -> Vec<u8> {
    let arp = Arp {
        operation: ArpOperation::REPLY,
        sender_mac: mac,
        sender: address,
        target_mac: victim.mac(),
        target: victim.address(),
    };
    arp.frame(mac, victim.mac())
}

/// Where lies by UDP go.
const LIE_PORT: u16 = 9;

/// A datagram with these addresses.
fn datagram(macs: (Mac, Mac), from: Ipv4Addr, to: Ipv4Addr) -> Result<Vec<u8>> {
    frame::udp(macs, (from, 40_000), (to, LIE_PORT), b"a lie")
}

/// Who watches what gets through: all other guests, and the client.
struct Audience<'scene> {
    scene: &'scene Scene,
    uplink: Mac,
    guests: Vec<(&'scene Guest, Capture)>,
    client: Capture,
}

impl<'scene> Audience<'scene> {
    /// Everybody but the liar.
    fn without(scene: &'scene Scene, liar: &Guest) -> Result<Self> {
        let status = scene.status()?;
        let uplink =
            status.pointer("/uplink/mac").and_then(Value::as_str).context("the uplink has no MAC")?;
        let others = scene.guests().into_iter().filter(|guest| guest.name() != liar.name());
        let guests = others
            .map(|guest| Ok((guest, Capture::start(guest.netns(), "eth0")?)))
            .collect::<Result<Vec<_>>>()?;
        let client = Capture::start(scene.outside.netns(), "eth0")?;
        Ok(Self { scene, uplink: uplink.parse()?, guests, client })
    }

    /// Fails if anybody has got anything that is not true. An honest datagram to each comes after whatever was sent
    /// before it.
    fn ensure_nothing_seen(&self) -> Result<()> {
        let third = &self.scene.third;
        for (guest, capture) in &self.guests {
            let teller = if guest.name() == third.name() { &self.scene.first } else { third };
            let macs = (teller.mac(), guest.mac());
            tell_honestly(teller, macs, guest.address())?;
            capture.wait_for(SHORT, "an honest datagram", is_honest)?;
            let lies = capture.matching(|frame| !frame.outgoing && !self.is_true_inside(frame))?;
            ensure!(lies.is_empty(), "{} was told {lies:#?}", guest.name());
        }
        tell_honestly(third, (third.mac(), constant_mac(GATEWAY)), EIP_NEIGHBOUR)?;
        self.client.wait_for(SHORT, "an honest datagram", is_honest)?;
        let lies = self.client.matching(|frame| !frame.outgoing && !self.is_true_outside(frame))?;
        ensure!(lies.is_empty(), "the client was told {lies:#?}");
        Ok(())
    }

    fn is_true_inside(&self, frame: &Frame) -> bool {
        let guests = self.scene.guests().map(|guest| (guest.mac(), guest.address()));
        let constant = [VIP, GATEWAY].map(|address| (constant_mac(address), address));
        let is_true = |arp: Arp| {
            let said = (arp.sender_mac, arp.sender);
            // vipd itself asks an owner from the VIP's constant MAC, which no guest may send from.
            guests.contains(&said) || constant.contains(&said) || frame.source() == Some(constant_mac(VIP))
        };
        is_expected(frame) || frame.arp().is_some_and(is_true)
    }

    fn is_true_outside(&self, frame: &Frame) -> bool {
        let is_true = |arp: Arp| {
            arp.sender_mac == self.uplink && [vip_lab::UNDERLAY_HOST, EIP, FIXED_EIP].contains(&arp.sender)
        };
        is_expected(frame) || frame.arp().is_some_and(is_true)
    }
}

fn tell_honestly(teller: &Guest, macs: (Mac, Mac), to: Ipv4Addr) -> Result<()> {
    let (port, text) = HONEST;
    let frame = frame::udp(macs, (teller.address(), port), (to, port), text)?;
    RawSender::new(teller.netns(), "eth0")?.send(&frame)
}

fn is_honest(frame: &Frame) -> bool {
    !frame.outgoing && frame.udp().is_some_and(|(_, port, text)| (port, text) == HONEST)
}

/// An honest datagram, or the error message that nobody listens there: no lie is ICMP. Nor is one IPv6, which kernels
/// speak unasked and which the forwarder leaves alone.
fn is_expected(frame: &Frame) -> bool {
    const IPV6: u16 = 0x86dd;
    const ICMP: u8 = 1;
    let icmp = frame.ipv4().is_some_and(|ip| ip.protocol == ICMP);
    is_honest(frame) || icmp || frame.ether_type() == Some(IPV6)
}

/// Tells each lie, and fails unless it is counted under its reason, and nothing under any other.
fn tell(scene: &Scene, liar: &Guest, lies: &[Lie]) -> Result<()> {
    let sender = RawSender::new(liar.netns(), "eth0")?;
    for Lie { what, frame, reason } in lies {
        let before = scene.drops()?;
        let mut expected = before.clone();
        *expected.get_mut(*reason).with_context(|| format!("vipctl knows no reason {reason}"))? += TIMES;
        for _ in 0..TIMES {
            sender.send(frame)?;
        }
        let mut last = before.clone();
        let counted = poll_until(SHORT, "the drops to be counted", || {
            last = scene.drops().ok()?;
            (last == expected).then_some(())
        });
        counted.with_context(|| {
            format!(
                "{what}, {TIMES} times, was counted as {:?} instead of {reason}",
                difference(&before, &last)
            )
        })?;
    }
    Ok(())
}

fn difference(before: &BTreeMap<String, u64>, after: &BTreeMap<String, u64>) -> Vec<String> {
    let grown = |(reason, count): (&String, &u64)| {
        let growth = count - before.get(reason)?;
        (growth != 0).then(|| format!("{growth} {reason}"))
    };
    after.iter().filter_map(grown).collect()
}

/// The first guest takes the VIP and everybody knows everybody. Gives the VIP as JSON.
fn settle(scene: &Scene) -> Result<Value> {
    scene.first.add_vip_address(VIP)?;
    scene.first.arping(Announcement::Request, VIP)?;
    let vip = scene.vipd.wait_for_owner(VIP_ID, scene.first.name(), SHORT)?;
    for guest in scene.guests() {
        for neighbour in neighbours_of(scene, guest) {
            ensure!(
                guest.netns().ping(neighbour, 1)?.received == 1,
                "{} does not reach {neighbour}",
                guest.name()
            );
        }
    }
    Ok(vip)
}

/// Whom a guest talks to: the gateway, the other guests, and the VIP unless it is its own.
fn neighbours_of(scene: &Scene, guest: &Guest) -> Vec<Ipv4Addr> {
    let vip = (guest.name() != scene.first.name()).then_some(VIP);
    let others = scene.guests().map(Guest::address).into_iter().filter(|address| *address != guest.address());
    [GATEWAY].into_iter().chain(vip).chain(others).collect()
}

/// What a guest's kernel holds for the MAC of a neighbour.
fn cached_mac(netns: &Netns, neighbour: Ipv4Addr) -> Result<Mac> {
    let shown: Value =
        serde_json::from_str(&netns.ip(&format!("-json neighbour show {neighbour} dev eth0"))?)?;
    let mac = shown.pointer("/0/lladdr").and_then(Value::as_str);
    mac.with_context(|| format!("{} knows no MAC of {neighbour}: {shown}", netns.label()))?.parse()
}

/// Fails unless the VIP is as it was and everybody's neighbours are who they are.
fn ensure_unmoved(scene: &Scene, before: &Value) -> Result<()> {
    let after = scene.vipd.vip(VIP_ID)?;
    ensure!(after.get("owner") == before.get("owner"), "the owner changed: {before} and then {after}");
    for guest in scene.guests() {
        for neighbour in neighbours_of(scene, guest) {
            let known = scene.guests().into_iter().find(|guest| guest.address() == neighbour);
            let expected = known.map_or_else(|| constant_mac(neighbour), Guest::mac);
            let cached = cached_mac(guest.netns(), neighbour)?;
            ensure!(cached == expected, "{} holds {cached} for the MAC of {neighbour}", guest.name());
        }
    }
    let report = scene.outside.netns().ping(EIP, 2)?;
    ensure!(report.received == report.sent, "the VIP is not served: {report:?}");
    Ok(())
}

/// A lie in ARP is the same from everybody: who claims to be the gateway, or another guest.
fn lies_about_others(liar: &Guest, victim: &Guest, other: &Guest) -> Vec<Lie> {
    let me = liar.mac();
    let shout = |arp: Arp| arp.frame(me, Mac::BROADCAST);
    let (gateway, fixed) = ("arp_gateway", "arp_fixed_address");
    vec![
        lie("a gratuitous request of the gateway", shout(Arp::gratuitous_request(me, GATEWAY)), gateway),
        lie("a gratuitous reply of the gateway", shout(Arp::gratuitous_reply(me, GATEWAY)), gateway),
        lie("an answer as the gateway", poison(me, GATEWAY, victim), gateway),
        lie("a question as the gateway", shout(Arp::question(me, GATEWAY, victim.address())), gateway),
        lie("an announcement of a guest's address", shout(Arp::announcement(me, other.address())), fixed),
        lie(
            "a gratuitous reply of a guest's address",
            shout(Arp::gratuitous_reply(me, other.address())),
            fixed,
        ),
        lie("an answer as another guest", poison(me, other.address(), victim), fixed),
        lie(
            "a question as another guest",
            shout(Arp::question(me, other.address(), victim.address())),
            fixed,
        ),
    ]
}

/// Says that it is the VIP, and is no member.
fn lies_about_the_vip(liar: &Guest, victim: &Guest) -> Vec<Lie> {
    let me = liar.mac();
    let shout = |arp: Arp| arp.frame(me, Mac::BROADCAST);
    let reason = "claim_not_member";
    vec![
        lie("a gratuitous request of the VIP", shout(Arp::gratuitous_request(me, VIP)), reason),
        lie("a gratuitous reply of the VIP", shout(Arp::gratuitous_reply(me, VIP)), reason),
        lie("an announcement of the VIP", shout(Arp::announcement(me, VIP)), reason),
        lie("an answer as the VIP", poison(me, VIP, victim), reason),
        lie("a question as the VIP", shout(Arp::question(me, VIP, victim.address())), reason),
        lie("a probe for the VIP", shout(Arp::probe(me, VIP)), "probe_not_member"),
    ]
}

/// Sends from a MAC that it has not.
fn lies_about_macs(liar: &Guest, victim: &Guest, owner: &Guest) -> Result<Vec<Lie>> {
    let me = liar.mac();
    let claim = Arp::gratuitous_request;
    let to_victim = |mac: Mac| datagram((mac, victim.mac()), liar.address(), victim.address());
    let source = "source_mac";
    Ok(vec![
        lie(
            "the owner's claim, repeated",
            claim(owner.mac(), VIP).frame(owner.mac(), Mac::BROADCAST),
            source,
        ),
        lie("a claim as the owner", claim(owner.mac(), VIP).frame(me, Mac::BROADCAST), "arp_sender_mac"),
        lie("a claim by a virtual router", claim(ROUTER, VIP).frame(ROUTER, Mac::BROADCAST), source),
        lie("a claim with a foreign MAC", claim(me, VIP).frame(FORGED, Mac::BROADCAST), source),
        lie("a claim of no MAC", claim(Mac::ZERO, VIP).frame(me, Mac::BROADCAST), "arp_malformed"),
        lie(
            "a claim of everybody's MAC",
            claim(Mac::BROADCAST, VIP).frame(me, Mac::BROADCAST),
            "arp_malformed",
        ),
        lie("a datagram from a foreign MAC", to_victim(FORGED)?, source),
        lie("a datagram from another guest's MAC", to_victim(owner.mac())?, source),
        lie("a datagram from the gateway's MAC", to_victim(constant_mac(GATEWAY))?, source),
    ])
}

#[test]
fn a_stranger_neither_claims_the_vip_nor_poisons_a_neighbour() {
    Lab::run(|lab| {
        let scene = Scene::start(lab, Setting::default())?;
        let vip = settle(&scene)?;
        let (owner, victim, liar) = (&scene.first, &scene.second, &scene.third);
        let audience = Audience::without(&scene, liar)?;
        tell(&scene, liar, &lies_about_the_vip(liar, victim))?;
        tell(&scene, liar, &lies_about_macs(liar, victim, owner)?)?;
        tell(&scene, liar, &lies_about_others(liar, victim, owner))?;
        let unlisted = Arp::announcement(liar.mac(), UNLISTED).frame(liar.mac(), Mac::BROADCAST);
        let answer = poison(liar.mac(), UNLISTED, victim);
        tell(
            &scene,
            liar,
            &[
                lie("an announcement of an address without owner", unlisted, "arp_foreign_sender"),
                lie("an answer as nobody", answer, "arp_foreign_sender"),
            ],
        )?;
        audience.ensure_nothing_seen()?;
        ensure_unmoved(&scene, &vip)
    });
}

#[test]
fn a_stranger_takes_no_vip_that_nobody_owns() {
    Lab::run(|lab| {
        let scene = Scene::start(lab, Setting::default())?;
        let (victim, liar) = (&scene.second, &scene.third);
        let audience = Audience::without(&scene, liar)?;
        tell(&scene, liar, &lies_about_the_vip(liar, victim))?;
        let frame = datagram((liar.mac(), constant_mac(GATEWAY)), VIP, EIP_NEIGHBOUR)?;
        tell(&scene, liar, &[lie("a datagram from the VIP", frame, "source_address")])?;
        audience.ensure_nothing_seen()?;
        let vip = scene.vipd.vip(VIP_ID)?;
        ensure!(vip.get("state").and_then(Value::as_str) == Some("unowned"), "{vip}");
        ensure!(scene.history()?.is_empty(), "{:?}", scene.history());
        Ok(())
    });
}

#[test]
fn nothing_from_a_foreign_address_leaves_a_guest() {
    Lab::run(|lab| {
        let scene = Scene::start(lab, Setting::default())?;
        let vip = settle(&scene)?;
        let (owner, victim, liar) = (&scene.first, &scene.second, &scene.third);
        let audience = Audience::without(&scene, liar)?;
        let mut lies = Vec::new();
        for from in [UNLISTED, FOREIGN, owner.address(), victim.address(), VIP, GATEWAY, EIP, FIXED_EIP] {
            for (mac, to) in [
                (victim.mac(), victim.address()),
                (constant_mac(VIP), VIP),
                (constant_mac(GATEWAY), EIP_NEIGHBOUR),
                (constant_mac(GATEWAY), victim.address()),
                (Mac::BROADCAST, Ipv4Addr::BROADCAST),
            ] {
                let frame = datagram((liar.mac(), mac), from, to)?;
                lies.push(lie("a datagram from a foreign address", frame, "source_address"));
            }
        }
        let misled = datagram((liar.mac(), victim.mac()), liar.address(), owner.address())?;
        lies.push(lie("a datagram to another's address at a guest's MAC", misled, "destination_not_own"));
        let own = datagram((owner.mac(), constant_mac(VIP)), owner.address(), VIP)?;
        tell(&scene, liar, &lies)?;
        audience.ensure_nothing_seen()?;
        tell(&scene, owner, &[lie("the owner's datagram to its own VIP", own, "owner_loop")])?;
        ensure_unmoved(&scene, &vip)
    });
}

#[test]
fn a_guest_is_no_dhcp_server() {
    Lab::run(|lab| {
        let scene = Scene::start(lab, Setting::default())?;
        let vip = settle(&scene)?;
        let (victim, liar) = (&scene.second, &scene.third);
        let audience = Audience::without(&scene, liar)?;
        let offer = |mac: Mac, to: Ipv4Addr| {
            frame::udp((liar.mac(), mac), (liar.address(), 67), (to, 68), b"an offer")
        };
        tell(
            &scene,
            liar,
            &[
                lie("an offer to one", offer(victim.mac(), victim.address())?, "dhcp_server"),
                lie("an offer to all", offer(Mac::BROADCAST, Ipv4Addr::BROADCAST)?, "dhcp_server"),
            ],
        )?;
        audience.ensure_nothing_seen()?;
        ensure_unmoved(&scene, &vip)
    });
}

#[test]
fn adverts_of_a_stranger_and_adverts_from_afar_reach_no_member() {
    Lab::run(|lab| {
        let scene = Scene::start(lab, Setting::default())?;
        let vip = settle(&scene)?;
        let (owner, member, stranger) = (&scene.first, &scene.second, &scene.third);
        let advert = |guest: &Guest, ttl: u8| frame::vrrp(guest.mac(), guest.address(), 66, VIP, ttl);
        {
            let audience = Audience::without(&scene, stranger)?;
            let frame = advert(stranger, 255)?;
            tell(&scene, stranger, &[lie("a stranger's advert", frame, "vrrp_not_member")])?;
            let frame = frame::vrrp(stranger.mac(), member.address(), 66, VIP, 255)?;
            tell(&scene, stranger, &[lie("an advert as a member", frame, "source_address")])?;
            audience.ensure_nothing_seen()?;
        }
        let audience = Audience::without(&scene, member)?;
        tell(&scene, member, &[lie("an advert with a TTL of 254", advert(member, 254)?, "vrrp_ttl")])?;
        audience.ensure_nothing_seen()?;

        // A member's own advert goes to the members, and to nobody else.
        let at = |guest: &Guest| Capture::start(guest.netns(), "eth0");
        let (at_owner, at_stranger) = (at(owner)?, at(stranger)?);
        let is_advert = |frame: &Frame| !frame.outgoing && frame.ipv4().is_some_and(|ip| ip.protocol == 112);
        let frame = advert(member, 255)?;
        RawSender::new(member.netns(), "eth0")?.send(&frame)?;
        let seen = at_owner.wait_for(SHORT, "the member's advert", is_advert)?;
        ensure!(seen.bytes.starts_with(&frame), "the advert was changed: {seen:?}");
        tell_honestly(owner, (owner.mac(), stranger.mac()), stranger.address())?;
        at_stranger.wait_for(SHORT, "an honest datagram", is_honest)?;
        ensure!(at_stranger.count(is_advert)? == 0, "a stranger got a member's advert");
        let at_client = &audience.client;
        let earlier = at_client.count(is_honest)?;
        tell_honestly(stranger, (stranger.mac(), constant_mac(GATEWAY)), EIP_NEIGHBOUR)?;
        at_client.wait_for_count(SHORT, "an honest datagram", earlier + 1, is_honest)?;
        ensure!(at_client.count(is_advert)? == 0, "the outside got a member's advert");
        ensure_unmoved(&scene, &vip)
    });
}

#[test]
fn a_member_answers_for_the_vip_only_as_its_owner() {
    Lab::run(|lab| {
        let scene = Scene::start(lab, Setting::default())?;
        let vip = settle(&scene)?;
        let (member, victim) = (&scene.second, &scene.third);
        let me = member.mac();
        let audience = Audience::without(&scene, member)?;
        tell(
            &scene,
            member,
            &[
                lie("an answer as the VIP", poison(me, VIP, victim), "arp_not_owner"),
                lie(
                    "a question as the VIP for a neighbour that is not listed",
                    Arp::question(me, VIP, UNLISTED).frame(me, Mac::BROADCAST),
                    "arp_not_owner",
                ),
            ],
        )?;
        tell(&scene, member, &lies_about_others(member, victim, &scene.first))?;
        audience.ensure_nothing_seen()?;
        ensure_unmoved(&scene, &vip)
    });
}

#[test]
fn a_port_whose_check_is_off_sends_from_foreign_addresses_and_lies_in_arp_no_more_than_others() {
    Lab::run(|lab| {
        let scene = Scene::start(lab, Setting { third_is_checked: false, ..Setting::default() })?;
        let vip = settle(&scene)?;
        let (owner, victim, router) = (&scene.first, &scene.second, &scene.third);
        {
            let audience = Audience::without(&scene, router)?;
            tell(&scene, router, &lies_about_the_vip(router, victim))?;
            tell(&scene, router, &lies_about_macs(router, victim, owner)?)?;
            tell(&scene, router, &lies_about_others(router, victim, owner))?;
            // Not even a router's packets leave as somebody's EIP.
            for from in [FOREIGN, UNLISTED, VIP, owner.address()] {
                let frame = datagram((router.mac(), constant_mac(GATEWAY)), from, EIP_NEIGHBOUR)?;
                tell(&scene, router, &[lie("a foreign datagram to the outside", frame, "no_route")])?;
            }
            audience.ensure_nothing_seen()?;
        }
        // Somebody listens, so that the victim does not answer with errors to foreign addresses.
        let _listener = victim.netns().exec(|| Ok(UdpSocket::bind((Ipv4Addr::UNSPECIFIED, LIE_PORT))?))?;
        let before = scene.drops()?;
        let (sender, at_victim) =
            (RawSender::new(router.netns(), "eth0")?, Capture::start(victim.netns(), "eth0")?);
        for from in [FOREIGN, UNLISTED, VIP, owner.address()] {
            sender.send(&datagram((router.mac(), victim.mac()), from, victim.address())?)?;
            at_victim.wait_for(SHORT, &format!("a datagram from {from}"), |frame| {
                frame.source() == Some(router.mac()) && frame.ipv4().is_some_and(|ip| ip.source == from)
            })?;
        }
        let offer = frame::udp(
            (router.mac(), victim.mac()),
            (router.address(), 67),
            (victim.address(), 68),
            b"an offer",
        )?;
        sender.send(&offer)?;
        at_victim.wait_for(SHORT, "an offer", |frame| frame.udp() == Some((67, 68, b"an offer")))?;

        // It receives what is sent to its MAC, to whatever address.
        let at_router = Capture::start(router.netns(), "eth0")?;
        let frame = datagram((victim.mac(), router.mac()), victim.address(), FOREIGN)?;
        RawSender::new(victim.netns(), "eth0")?.send(&frame)?;
        at_router.wait_for(SHORT, "a datagram to be routed", |frame| {
            !frame.outgoing && frame.ipv4().is_some_and(|ip| ip.destination == FOREIGN)
        })?;
        ensure!(scene.drops()? == before, "{:?}", difference(&before, &scene.drops()?));
        ensure_unmoved(&scene, &vip)
    });
}
