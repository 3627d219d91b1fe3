//! VRRP's virtual MACs (RFC 9568 section 7.3) across hosts.

use anyhow::{Context as _, Result, ensure};
use vip_lab::{
    Cluster, ClusterConfig, Lab, Mac,
    capture::Capture,
    cluster::VIP_ID,
    frame::Frame,
    keepalived::{Keepalived, KeepalivedConfig, State},
    poll_until,
    scene::{EIP, PREFIX, VIP},
};

use crate::stage::{ELECTION, SOON, owner_field, wait_for_ping};

/// 00:00:5e:00:01 and the VRID of the Cloudpods example, 66.
const VIRTUAL: Mac = Mac([0, 0, 0x5e, 0, 1, 66]);

#[test]
fn keepalived_with_a_virtual_mac_moves_the_vip_between_hosts() {
    Lab::run(|lab| {
        let mut config = ClusterConfig::usual();
        config.objects = config.objects.replace("group: web }", "group: web, vrids: [66] }");
        ensure!(config.objects.contains("vrids"), "no VIP in {}", config.objects);
        let cluster = Cluster::start(lab, config)?;
        let vip = ipnetwork::Ipv4Network::new(VIP, PREFIX)?;
        let config = |name: &str, state: State| KeepalivedConfig {
            virtual_mac: true,
            ..KeepalivedConfig::cloudpods(name, state, vip)
        };
        let mut master = Keepalived::start(cluster.guest("first")?, &config("first", State::Master))?;
        let backup = Keepalived::start(cluster.guest("second")?, &config("second", State::Backup))?;
        let served_by = |name: &str| -> Result<()> {
            cluster.wait_for_owner(VIP_ID, name, ELECTION)?;
            for (number, vipd) in (1..).zip(cluster.vipds()) {
                let shown = vipd.vip(VIP_ID)?;
                ensure!(
                    owner_field(&shown, "mac") == Some(VIRTUAL.to_string().as_str()),
                    "hv{number}: {shown}"
                );
            }
            let seen = Capture::start(cluster.guest(name)?.netns(), "eth0")?;
            wait_for_ping(cluster.guest("third")?.netns(), VIP)?;
            wait_for_ping(cluster.client(), EIP)?;
            seen.wait_for_count(SOON, "two requests to the virtual MAC", 2, |frame| {
                frame.destination() == Some(VIRTUAL)
                    && frame.ipv4().is_some_and(|ip| (ip.destination, ip.protocol) == (VIP, 1))
            })
            .with_context(|| name.to_owned())?;
            Ok(())
        };
        served_by("first")?;
        poll_until(ELECTION, "the backup to settle", || (backup.state()?.0 == State::Backup).then_some(()))?;
        let mark = backup.log().mark();
        master.stop()?;
        backup.wait_for_state(mark, State::Master, ELECTION)?;
        served_by("second")
    });
}

#[test]
fn a_virtual_mac_of_a_vrid_that_the_vip_does_not_allow_claims_nothing() {
    Lab::run(|lab| {
        // `vrids` is not given: none are allowed.
        let cluster = Cluster::start(lab, ClusterConfig::usual())?;
        let vip = ipnetwork::Ipv4Network::new(VIP, PREFIX)?;
        let config = KeepalivedConfig {
            virtual_mac: true,
            ..KeepalivedConfig::cloudpods("first", State::Master, vip)
        };
        let (tap, before) =
            (Capture::start(cluster.host(1)?.netns(), "tap0")?, cluster.drops(1, "source_mac")?);
        let from_virtual = |frame: &Frame| !frame.outgoing && frame.source() == Some(VIRTUAL);
        let master = Keepalived::start(cluster.guest("first")?, &config)?;
        master.wait_for_state(vip_lab::LogMark::default(), State::Master, ELECTION)?;
        tap.wait_for(SOON, "the VIP's announcement from the virtual MAC", |frame| {
            from_virtual(frame) && frame.announces(VIP)
        })?;
        // It is one of those.
        let sent = u64::try_from(tap.count(from_virtual)?)?;
        poll_until(SOON, "all that is from the virtual MAC to be dropped", || {
            (cluster.drops(1, "source_mac").ok()? >= before + sent).then_some(())
        })?;
        for vipd in cluster.vipds() {
            ensure!(vipd.owner(VIP_ID)?.is_none(), "a virtual MAC that is not allowed owns the VIP");
        }
        Ok(())
    });
}
