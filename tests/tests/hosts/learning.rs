//! A host with fresh tables waits for its peers before it learns owners from ordinary traffic; claims count at once.

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use vip_lab::{
    Cluster, ClusterConfig, Guest, Lab, RawSender,
    capture::Capture,
    cluster::{PEERS_PORT, Placed, VIP_ID, WEB},
    frame, poll_until,
    scene::VIP,
    underlay::{Cut, ROUTER, vtep},
};

use crate::stage::{
    PORT, SOON, add_vip, begin_with_fresh_tables, claim_at_once, ensure_pings, epoch, owner_field, take,
};

/// Starts, until one of them is looked at while the host waits: the wait takes seconds, and so may a look at a busy machine.
const STARTS: usize = 5;

const BESIDE: Placed = Placed {
    name: "beside",
    host: 2,
    subnet: WEB,
    address: std::net::Ipv4Addr::new(192, 168, 7, 250),
    gro: false,
    checked: true,
};

/// Datagrams from the VIP, by its second member, to a guest beside it: each that arrives was handled by its host's programs.
struct Traffic {
    sender: RawSender,
    frame: Vec<u8>,
    arrived: Capture,
}

impl Traffic {
    fn between(from: &Guest, to: &Guest) -> Result<Self> {
        let frame = frame::udp(
            (from.mac(), to.mac()),
            (VIP, PORT),
            (to.address(), PORT),
            b"from the VIP, claiming nothing",
        )?;
        let (sender, arrived) = (RawSender::new(from.netns(), "eth0")?, Capture::start(to.netns(), "eth0")?);
        Ok(Self { sender, frame, arrived })
    }

    /// Sends one, and waits until one has arrived.
    fn pass(&self) -> Result<()> {
        self.arrived.clear();
        poll_until(SOON, "a datagram from the VIP to arrive", || {
            self.sender.send(&self.frame).ok()?;
            let came = self.arrived.count(|frame| !frame.outgoing && frame.bytes == self.frame).ok()?;
            (came > 0).then_some(())
        })
    }
}

/// Whether the status of the second host says that it waits.
fn is_learning(cluster: &Cluster) -> Result<bool> {
    let status = cluster.vipd(2)?.vipctl(&["status", "-o", "json"])?;
    status.pointer("/peers/learning").and_then(Value::as_bool).context("the status does not say it")
}

#[test]
fn a_claim_before_the_peers_have_answered_holds_and_then_beats_what_they_remember() {
    Lab::run(|lab| {
        let mut cluster = Cluster::start(lab, ClusterConfig::usual().with(BESIDE))?;
        add_vip(&cluster, &["second"])?;
        // Several moves, so that the first epoch of new tables would lose.
        let mut before = 0;
        for name in ["first", "second", "first"] {
            before = epoch(&take(&cluster, name)?)?;
        }
        // Without its address the host cannot ask, and waits until it has it: longer than for answers, so that there is time to look.
        let netns = cluster.host(2)?.netns().clone();
        let address = format!("{}/24 dev eth0", vtep(2));
        netns.ip(&format!("address delete {address}"))?;
        begin_with_fresh_tables(&mut cluster, 2)?;
        claim_at_once(cluster.guest("second")?)?;
        let held = cluster.vipd(2)?.wait_for_owner(VIP_ID, "second", SOON)?;
        ensure!(epoch(&held)? < before, "of epoch {before} or later, which nobody has told: {held}");
        ensure_pings(cluster.guest("beside")?.netns(), VIP)?;
        for host in [1, 3] {
            ensure!(cluster.vipd(host)?.owner(VIP_ID)?.as_deref() == Some("first"), "hv{host} was told");
        }
        ensure!(is_learning(&cluster)?, "the host does not wait any more");

        netns.ip(&format!("address add {address}"))?;
        netns.ip(&format!("route add default via {ROUTER}"))?;
        let told = cluster.wait_for_owner(VIP_ID, "second", SOON)?;
        ensure!(epoch(&told)? > before, "not above epoch {before}: {told}");
        for vipd in cluster.vipds() {
            vipd.wait_for_owner(VIP_ID, "second", SOON)?;
            ensure!(epoch(&vipd.vip(VIP_ID)?)? == epoch(&told)?, "hosts differ from {told}");
        }
        ensure_pings(cluster.guest("third")?.netns(), VIP)
    });
}

#[test]
fn ordinary_traffic_makes_nobody_the_owner_while_peers_may_still_tell_who_is() {
    Lab::run(|lab| {
        let mut cluster = Cluster::start(lab, ClusterConfig::usual().with(BESIDE))?;
        let before = epoch(&take(&cluster, "first")?)?;
        let traffic = Traffic::between(cluster.guest("second")?, cluster.guest("beside")?)?;

        // Its peers are listed and silent.
        cluster.underlay().cut(cluster.host(2)?.netns(), Cut::Peers(PEERS_PORT))?;
        let mut looks = 0;
        for _ in 0..STARTS {
            begin_with_fresh_tables(&mut cluster, 2)?;
            loop {
                traffic.pass()?;
                let owner = cluster.vipd(2)?.owner(VIP_ID)?;
                // It waited all the time, if it does so still.
                if !is_learning(&cluster)? {
                    break;
                }
                ensure!(owner.is_none(), "{owner:?} was learned before the peers were heard");
                looks += 1;
            }
            if looks > 0 {
                break;
            }
        }
        ensure!(looks > 0, "the host never waited when it was looked at");

        // Nobody has answered, and the wait is over.
        poll_until(SOON, "the sender to be learned", || {
            traffic.pass().ok()?;
            (cluster.vipd(2).ok()?.owner(VIP_ID).ok()?.as_deref() == Some("second")).then_some(())
        })?;
        let learned = cluster.vipd(2)?.vip(VIP_ID)?;
        ensure!(owner_field(&learned, "learned_from") == Some("data"), "{learned}");

        // Whoever claimed is the owner again, also here, as soon as the peers are heard.
        cluster.underlay().heal()?;
        let told = cluster.wait_for_owner(VIP_ID, "first", SOON)?;
        ensure!(epoch(&told)? == before, "another epoch than {before}: {told}");

        // With peers that answer the wait ends by their answers, and the same traffic makes nobody the owner.
        begin_with_fresh_tables(&mut cluster, 2)?;
        poll_until(SOON, "the answers", || (!is_learning(&cluster).ok()?).then_some(()))?;
        traffic.pass()?;
        let told = cluster.wait_for_owner(VIP_ID, "first", SOON)?;
        ensure!(epoch(&told)? == before, "another epoch than {before}: {told}");
        Ok(())
    });
}
