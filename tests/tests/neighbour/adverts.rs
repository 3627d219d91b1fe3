//! VRRP between members whose interfaces are on a bridge.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use vip_lab::{
    Lab,
    capture::Capture,
    frame::Frame,
    keepalived::{Keepalived, KeepalivedConfig, State},
    poll_until,
};

use crate::stage::{SOON, Stage, VIP, VIP_ID};

/// Protocol number of VRRP.
const VRRP: u8 = 112;

/// Adverts to look at: one a second.
const ADVERTS: usize = 5;

fn is_advert(frame: &Frame) -> bool {
    frame.ipv4().is_some_and(|ip| ip.protocol == VRRP)
}

#[test]
fn each_advert_reaches_the_other_member_once_and_nobody_else() {
    Lab::run(|lab| {
        let stage = Stage::build(lab)?;
        let vipd = stage.start_vipd()?;
        let (sent, received) =
            (Capture::start(stage.host.netns(), "tap0")?, Capture::start(stage.host.netns(), "tap1")?);
        let elsewhere =
            [Capture::start(stage.host.netns(), "tap2")?, Capture::start(stage.host.netns(), "br0")?];
        let vip = ipnetwork::Ipv4Network::new(VIP, 22)?;
        let mut master =
            Keepalived::start(&stage.first, &KeepalivedConfig::cloudpods("first", State::Master, vip))?;
        let backup =
            Keepalived::start(&stage.second, &KeepalivedConfig::cloudpods("second", State::Backup, vip))?;
        vipd.wait_for_owner(VIP_ID, "first", Duration::from_secs(30))?;
        sent.clear();
        received.clear();
        poll_until(Duration::from_secs(30), "some adverts", || {
            sent.count(|frame| is_advert(frame) && !frame.outgoing).ok().filter(|count| *count >= ADVERTS)
        })?;
        ensure!(backup.state().map(|(state, _)| state) == Some(State::Backup), "two masters");
        master.kill9()?;
        // The kernel numbers packets (RFC 791, identification): each advert has bytes of its own.
        let adverts: Vec<_> = sent.matching(|frame| is_advert(frame) && !frame.outgoing)?;
        let last = adverts.last().context("no adverts")?.bytes.clone();
        received.wait_for(SOON, "the last advert", |frame| frame.outgoing && frame.bytes == last)?;
        for advert in &adverts {
            let copies = received.count(|frame| frame.outgoing && frame.bytes == advert.bytes)?;
            ensure!(copies == 1, "an advert was delivered {copies} times: {advert:?}");
        }
        for capture in &elsewhere {
            let strays = capture.count(is_advert)?;
            ensure!(strays == 0, "{strays} adverts have reached somebody who is no member");
        }
        Ok(())
    });
}
