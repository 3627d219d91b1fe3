//! Frames that are not what they say, on the underlay and from guests.

use std::net::Ipv4Addr;

use anyhow::{Result, ensure};
use vip_lab::{
    Cluster, ClusterConfig, Lab, Mac, RawSender,
    capture::Capture,
    cluster::{FIRST, Placed, SECOND, THIRD, VIP_ID, WEB},
    frame::{self, Arp, ArpOperation, Frame},
    poll_until,
    scene::{VIP, constant_mac},
    underlay::{ROUTER, vtep},
    vxlan::Outer,
};

use crate::stage::{PORT, SOON, each, ensure_echoes, ensure_pings, epoch, take, tunnelled, watch};

/// The cluster, where `first` owns the VIP, and a sender on the segment that is no host: the router.
struct Stage {
    cluster: Cluster,
    sender: RawSender,
    /// The MAC of the router.
    from: Mac,
}

impl Stage {
    fn start(lab: &Lab) -> Result<Self> {
        let unchecked = Placed {
            name: "unchecked",
            checked: false,
            ..Placed::new("unchecked", 2, WEB, [192, 168, 7, 200])
        };
        let mut config = ClusterConfig::usual().with(unchecked);
        // With EIPs they have a way out.
        config.objects.push_str(
            "  - { id: unchecked-eip, address: 203.0.113.12, port: unchecked }\n\
             \x20 - { id: second-eip, address: 203.0.113.13, port: second }\n",
        );
        let cluster = Cluster::start(lab, config)?;
        take(&cluster, "first")?;
        let sender = RawSender::new(cluster.underlay().router(), "eth0")?;
        Ok(Self { cluster, sender, from: Mac([2, 0xee, 0, 0, 0, 1]) })
    }

    /// Headers as from the first host to the second.
    fn outer(&self) -> Result<Outer> {
        Ok(Outer {
            macs: (self.from, self.cluster.host(2)?.uplink_mac()?),
            source: vtep(1),
            destination: vtep(2),
            source_port: 50_000,
            vni: WEB.vni,
        })
    }

    /// A datagram to the second guest, inside these headers, is dropped and counted; the guest gets nothing.
    fn must_drop(&self, outer: Outer, inner: &[u8], reason: &str) -> Result<()> {
        let tap = self.cluster.host(2)?.netns();
        let captures = [Capture::start(tap, "tap0")?, Capture::start(tap, "tap1")?];
        let before = self.cluster.drops(2, reason)?;
        self.sender.send(&outer.around(inner)?)?;
        poll_until(SOON, &format!("the frame to be dropped as {reason}"), || {
            (self.cluster.drops(2, reason).ok()? == before + 1).then_some(())
        })?;
        for capture in captures {
            let delivered =
                capture.count(|frame| frame.outgoing && frame.bytes.get(12..) == inner.get(12..))?;
            ensure!(
                delivered == 0,
                "{delivered} frames were delivered although they were counted as {reason}"
            );
        }
        Ok(())
    }
}

#[test]
fn frames_that_are_not_what_they_say_are_refused() {
    Lab::run(|lab| {
        let mut stage = Stage::start(lab)?;
        each!(&mut stage;
            vxlan_counts_only_from_a_listed_vtep_to_the_own_one,
            claims_inside_vxlan_move_nothing_and_reach_nobody,
            a_frame_that_was_forwarded_once_is_not_forwarded_again,
            guests_never_reach_a_vtep_and_never_speak_as_one_bypass_or_not,
            frames_inside_vxlan_that_are_no_guests_are_counted_and_gone,
            a_question_inside_vxlan_by_a_plain_far_end_is_answered_through_the_tunnel,
            vxlan_of_a_vpc_that_is_not_in_the_state_reaches_the_hosts_own_device
        )
    });
}

/// A datagram from the first guest to the second.
fn datagram() -> Result<Vec<u8>> {
    frame::udp((FIRST.mac(), SECOND.mac()), (FIRST.address, PORT), (SECOND.address, PORT), b"from far away")
}

fn vxlan_counts_only_from_a_listed_vtep_to_the_own_one(stage: &mut Stage) -> Result<()> {
    let outer = stage.outer()?;
    // Right, to show that what follows is refused for one reason alone.
    let capture = Capture::start(stage.cluster.host(2)?.netns(), "tap0")?;
    stage.sender.send(&outer.around(&datagram()?)?)?;
    capture.wait_for(SOON, "the honest datagram", |frame| {
        frame.outgoing && frame.udp().is_some_and(|(_, _, payload)| payload == b"from far away")
    })?;
    stage.must_drop(Outer { source: ROUTER, ..outer }, &datagram()?, "vtep_unknown")?;
    stage.must_drop(Outer { destination: vtep(3), ..outer }, &datagram()?, "vtep_not_ours")?;
    // By its own address nobody else speaks either.
    stage.must_drop(Outer { source: vtep(2), ..outer }, &datagram()?, "vtep_unknown")
}

fn claims_inside_vxlan_move_nothing_and_reach_nobody(stage: &mut Stage) -> Result<()> {
    let before = stage.cluster.vipd(2)?.vip(VIP_ID)?;
    let outer = stage.outer()?;
    let reply = |mac: Mac, to: Ipv4Addr| Arp {
        operation: ArpOperation::REPLY,
        sender_mac: mac,
        sender: VIP,
        target_mac: SECOND.mac(),
        target: to,
    };
    for mac in [FIRST.mac(), SECOND.mac(), THIRD.mac(), constant_mac(VIP), Mac([0, 0, 0x5e, 0, 1, 66])] {
        for claim in
            [Arp::gratuitous_request(mac, VIP), Arp::gratuitous_reply(mac, VIP), Arp::announcement(mac, VIP)]
        {
            stage.must_drop(outer, &claim.frame(mac, Mac::BROADCAST), "overlay_claim")?;
        }
    }
    // An answer that nobody has asked for, with another MAC than guests are told.
    stage.must_drop(
        outer,
        &reply(THIRD.mac(), SECOND.address).frame(THIRD.mac(), SECOND.mac()),
        "overlay_claim",
    )?;
    for vipd in stage.cluster.vipds() {
        let after = vipd.vip(VIP_ID)?;
        ensure!(
            after.pointer("/owner/port") == before.pointer("/owner/port")
                && epoch(&after)? == epoch(&before)?,
            "the VIP moved: {before} and then {after}"
        );
    }
    Ok(())
}

fn a_frame_that_was_forwarded_once_is_not_forwarded_again(stage: &mut Stage) -> Result<()> {
    /// Of the range that marks frames which a previous owner's host sends on.
    const MARKED: u16 = 20_000;
    // To the VIP, at a host that has not got it.
    let inner =
        frame::udp((THIRD.mac(), constant_mac(VIP)), (THIRD.address, PORT), (VIP, PORT), b"where is it?")?;
    let outer = Outer { source: vtep(3), ..stage.outer()? };
    let capture = watch(&stage.cluster, 2)?;
    stage.sender.send(&outer.around(&inner)?)?;
    let on = capture.wait_for(SOON, "the frame on its way to the owner", |frame| {
        !frame.outgoing && frame.tunnelled().is_some_and(|found| found.destination == vtep(1))
    })?;
    on.check_outer()?;
    let on = on.tunnelled().expect("it was waited for");
    ensure!((16_384..32_768).contains(&on.source_port), "sent on without a mark: {on:?}");
    ensure!(on.source == vtep(2) && on.inner.bytes == inner, "sent on changed: {on:?}");
    capture.clear();
    let before = stage.cluster.drops(2, "forwarded_twice")?;
    stage.sender.send(&Outer { source_port: MARKED, ..outer }.around(&inner)?)?;
    poll_until(SOON, "the frame to be dropped", || {
        (stage.cluster.drops(2, "forwarded_twice").ok()? == before + 1).then_some(())
    })?;
    ensure!(tunnelled(&capture)?.is_empty(), "it was sent on: {:?}", tunnelled(&capture)?);
    Ok(())
}

/// The frame in a VLAN.
fn tagged(frame: &[u8], vlan: u8) -> Vec<u8> {
    let (macs, rest) = frame.split_at(12);
    [macs, &[0x81, 0, 0, vlan], rest].concat()
}

fn guests_never_reach_a_vtep_and_never_speak_as_one_bypass_or_not(stage: &mut Stage) -> Result<()> {
    let gateway = constant_mac(WEB.gateway);
    let watched = [1, 2, 3].map(|host| watch(&stage.cluster, host));
    let mut expected = stage.cluster.drops(2, "vtep_address")?;
    for name in ["unchecked", "second"] {
        let guest = stage.cluster.guest(name)?;
        let sender = RawSender::new(guest.netns(), "eth0")?;
        let to = |address: Ipv4Addr| {
            frame::udp((guest.mac(), gateway), (guest.address(), PORT), (address, 4789), b"to a VTEP")
        };
        for host in 1..=3 {
            let packet = to(vtep(host))?;
            // With tags, too: a bridge takes the outer one off where its VLAN leaves untagged.
            let once = tagged(&packet, 1);
            for frame in [&packet, &once, &tagged(&once, 2)] {
                sender.send(frame)?;
                expected += 1;
            }
            let claim = Arp::announcement(guest.mac(), vtep(host)).frame(guest.mac(), Mac::BROADCAST);
            sender.send(&tagged(&claim, 1))?;
            expected += 1;
        }
        // From one: a checked port's source address is wrong before that.
        if name == "unchecked" {
            let from =
                frame::udp((guest.mac(), THIRD.mac()), (vtep(1), PORT), (THIRD.address, PORT), b"to a VTEP")?;
            sender.send(&from)?;
            expected += 1;
        }
    }
    poll_until(SOON, "all of them to be dropped", || {
        (stage.cluster.drops(2, "vtep_address").ok()? == expected).then_some(())
    })?;
    for capture in watched {
        let escaped =
            capture?.count(|frame| frame.udp().is_some_and(|(_, _, payload)| payload == b"to a VTEP"))?;
        ensure!(escaped == 0, "{escaped} of them were seen on the underlay");
    }
    Ok(())
}

fn vxlan_of_a_vpc_that_is_not_in_the_state_reaches_the_hosts_own_device(stage: &mut Stage) -> Result<()> {
    const FOREIGN: u32 = 5000;
    for (here, there) in [(1, 2), (2, 1)] {
        let netns = stage.cluster.host(here)?.netns();
        netns.ip(&format!(
            "link add name vxlan0 type vxlan id {FOREIGN} local {} remote {} dstport 4789",
            vtep(here),
            vtep(there)
        ))?;
        netns.ip(&format!("address add 10.99.0.{here}/24 dev vxlan0"))?;
        netns.ip("link set dev vxlan0 up")?;
    }
    ensure_pings(stage.cluster.host(1)?.netns(), Ipv4Addr::new(10, 99, 0, 2))?;
    // And ours beside it.
    let second = stage.cluster.guest("second")?;
    ensure_echoes(stage.cluster.guest("first")?.netns(), SECOND.address, second, SECOND.address)
}

fn frames_inside_vxlan_that_are_no_guests_are_counted_and_gone(stage: &mut Stage) -> Result<()> {
    let outer = stage.outer()?;
    let ethernet =
        |to: Mac, kind: u16| [to.0.as_slice(), &FIRST.mac().0, &kind.to_be_bytes(), &[0; 46]].concat();
    // QEMU's announcement after a migration says who has a MAC, and no address: here it moves nothing.
    stage.must_drop(outer, &ethernet(Mac::BROADCAST, 0x8035), "overlay_type")?;
    stage.must_drop(outer, &ethernet(SECOND.mac(), 0x86dd), "overlay_type")?;
    let mut group = datagram()?;
    group.get_mut(..6).expect("a header").copy_from_slice(&[1, 0, 0x5e, 0, 0, 9]);
    stage.must_drop(outer, &group, "overlay_group")?;
    let mut cut = datagram()?;
    cut.truncate(20);
    stage.must_drop(outer, &cut, "vxlan_malformed")
}

fn a_question_inside_vxlan_by_a_plain_far_end_is_answered_through_the_tunnel(
    stage: &mut Stage,
) -> Result<()> {
    let capture = watch(&stage.cluster, 2)?;
    let asker = THIRD.mac();
    let question = Arp::question(asker, THIRD.address, SECOND.address);
    let outer = Outer { source: vtep(3), ..stage.outer()? };
    stage.sender.send(&outer.around(&question.frame(asker, Mac::BROADCAST))?)?;
    let answers = |frame: &Frame| {
        frame.tunnelled().is_some_and(|found| {
            found.destination == vtep(3)
                && found.inner.arp().is_some_and(|arp| {
                    (arp.operation, arp.sender, arp.sender_mac)
                        == (ArpOperation::REPLY, SECOND.address, SECOND.mac())
                })
        })
    };
    let answer = capture.wait_for(SOON, "the answer", |frame| !frame.outgoing && answers(frame))?;
    answer.check_outer()
}
