//! Members on two hosts that take themselves for the master at the same time: VRRP decides where claims do not.

use std::{
    net::UdpSocket,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle, sleep},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use vip_lab::{
    Cluster, ClusterConfig, Guest, Lab, Netns, RawSender, Vipd,
    capture::Capture,
    cluster::{Placed, VIP_ID, WEB},
    frame::Advert,
    keepalived::{Keepalived, KeepalivedConfig, State},
    poll_until,
    scene::{EIP, PREFIX, VIP},
};

use crate::stage::{
    ELECTION, OTHER_PORT, SOON, add_vip, claim_at_once, ensure_all_at, epoch, finish_whole, owner_field,
    restart, socket, stream, take, wait_for_more, wait_for_ping,
};

/// VRID of the Cloudpods example.
const VRID: u8 = 66;

/// Long enough for a second assignment to show.
const CALM: Duration = Duration::from_secs(4);

/// Keeps VRRP adverts from a guest, which then takes itself for the only one.
pub(crate) fn deafen(guest: &Netns) -> Result<()> {
    guest.nft("add table ip lab")?;
    guest.nft("add chain ip lab in { type filter hook input priority 0 ; }")?;
    guest.nft("add rule ip lab in ip protocol 112 drop")?;
    Ok(())
}

/// Lets them come again.
fn let_hear(guest: &Netns) -> Result<()> {
    guest.nft("delete table ip lab")?;
    Ok(())
}

/// The Cloudpods configuration of a keepalived that claims when it becomes the master and never again.
pub(crate) fn claims_once(name: &str, state: State) -> Result<String> {
    let vip = ipnetwork::Ipv4Network::new(VIP, PREFIX)?;
    let text = KeepalivedConfig::cloudpods(name, state, vip).render()?;
    let quiet = "global_defs {
    vrrp_garp_master_delay 0
    vrrp_garp_master_refresh 0
    vrrp_garp_lower_prio_repeat 0";
    Ok(text.replacen("global_defs {", quiet, 1))
}

/// Whether a host shows that several members are masters.
pub(crate) fn shows_conflict(vipd: &Vipd) -> Result<bool> {
    let shown = vipd.vip(VIP_ID)?;
    let state = shown.get("state").and_then(Value::as_str).context("a VIP without state")?;
    Ok(state == "conflict")
}

/// Waits until the hosts of both members, who hear both, show that they are masters, or no longer.
pub(crate) fn wait_for_conflict(cluster: &Cluster, is_on: bool) -> Result<()> {
    for host in [1, 2] {
        let vipd = cluster.vipd(host)?;
        poll_until(ELECTION, &format!("a conflict on hv{host} to be {is_on}"), || {
            (shows_conflict(vipd).ok()? == is_on).then_some(())
        })?;
    }
    Ok(())
}

/// Fails if the VIP gets another epoch on any host within `time`, or a host shows a conflict other than `conflict`.
fn ensure_stays(cluster: &Cluster, before: u64, conflict: bool, time: Duration) -> Result<()> {
    let start = Instant::now();
    while start.elapsed() < time {
        for (number, vipd) in (1..).zip(cluster.vipds()) {
            let vip = vipd.vip(VIP_ID)?;
            ensure!(epoch(&vip)? == before, "epoch {before} is over on hv{number}: {vip}");
            ensure!(number > 2 || shows_conflict(vipd)? == conflict, "hv{number}: {vip}");
        }
        sleep(Duration::from_millis(50));
    }
    Ok(())
}

/// The epoch of a guest's claim, as its host remembers it.
fn epoch_of_claim(vipd: &Vipd, name: &str) -> Result<u64> {
    let moves = vipd.vipctl(&["history", VIP_ID, "-o", "json"])?;
    let of_guest = |entry: &&Value| entry.get("port").and_then(Value::as_str) == Some(name);
    let last = moves.as_array().and_then(|moves| moves.iter().find(of_guest));
    let last = last.with_context(|| format!("{name} never had the VIP: {moves}"))?;
    let form = last.get("learned_from").and_then(Value::as_str).unwrap_or_default();
    ensure!(form.starts_with("garp"), "no claim: {last}");
    last.get("epoch").and_then(Value::as_u64).with_context(|| format!("no epoch in {last}"))
}

/// Something that is done again and again until this is dropped.
struct Repeated {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<Result<()>>>,
}

impl Repeated {
    fn start(every: Duration, mut act: impl FnMut() -> Result<()> + Send + 'static) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = thread::spawn(move || {
            let mut due = Instant::now();
            while !stopped.load(Ordering::Relaxed) {
                act()?;
                // What a busy machine was late for is left out.
                due = (due + every).max(Instant::now());
                while Instant::now() < due && !stopped.load(Ordering::Relaxed) {
                    sleep(due.saturating_duration_since(Instant::now()).min(Duration::from_millis(20)));
                }
            }
            Ok(())
        });
        Self { stop, thread: Some(thread) }
    }

    /// A member advertises the VIP as often as it says, with this priority and interval in seconds.
    fn adverts(guest: &Guest, priority: u8, interval: u8) -> Result<Self> {
        Self::some_adverts(guest, priority, interval, usize::MAX)
    }

    /// The same, so many times at most.
    fn some_adverts(guest: &Guest, priority: u8, interval: u8, count: usize) -> Result<Self> {
        const TTL: u8 = 255;
        let sender = RawSender::new(guest.netns(), "eth0")?;
        let advert = Advert { vrid: VRID, priority, interval, address: VIP };
        let frame = advert.frame(guest.mac(), guest.address(), TTL)?;
        let mut numbers = 0..count;
        Ok(Self::start(Duration::from_secs(interval.into()), move || {
            numbers.next().map_or(Ok(()), |_| sender.send(&frame))
        }))
    }

    /// Ends it.
    fn stop(mut self) -> Result<()> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread
            .take()
            .map_or(Ok(()), |thread| thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
    }
}

impl Drop for Repeated {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // Whoever wanted to know has called stop().
            let _ = thread.join();
        }
    }
}

/// A busy member: 500 datagrams a second from the VIP to a guest that is no member.
struct Talk {
    sending: Repeated,
    listener: UdpSocket,
}

impl Talk {
    fn start(cluster: &Cluster, name: &str) -> Result<Self> {
        let third = cluster.guest("third")?;
        let listener = socket(third.netns(), third.address(), OTHER_PORT)?;
        let (sender, to) = (socket(cluster.guest(name)?.netns(), VIP, 0)?, (third.address(), OTHER_PORT));
        let sending = Repeated::start(Duration::from_millis(2), move || {
            sender.send_to(b"from the VIP", to)?;
            Ok(())
        });
        Ok(Self { sending, listener })
    }

    /// Ends it; fails unless the datagrams arrive.
    fn stop(self) -> Result<()> {
        let (_, from) = self.listener.recv_from(&mut [0; 64]).context("nothing came from the VIP")?;
        ensure!(from.ip() == VIP, "a datagram came from {from}");
        self.sending.stop()
    }
}

/// The master of two keepalived, on the first host, never repeats its claim, and the second one does not hear it: it has claimed later.
/// Returns that claim's epoch as well.
fn usurped(cluster: &Cluster) -> Result<(Keepalived, Keepalived, Capture, u64)> {
    let (first, second) = (cluster.guest("first")?, cluster.guest("second")?);
    let master = Keepalived::start_with(first, &claims_once("first", State::Master)?)?;
    let before = epoch(&cluster.wait_for_owner(VIP_ID, "first", ELECTION)?)?;
    let claims =
        Capture::start_keeping(first.netns(), "eth0", |frame| frame.outgoing && frame.announces(VIP))?;
    deafen(second.netns())?;
    let usurper = Keepalived::start_with(second, &claims_once("second", State::Backup)?)?;
    // It may lose it again within three seconds, and a look takes time: what its host remembers is as good.
    let host = cluster.vipd(2)?;
    let claimed = poll_until(ELECTION, "the second one's claim", || epoch_of_claim(host, "second").ok())?;
    ensure!(claimed == before + 1, "epoch {before}, and then {claimed}");
    Ok((master, usurper, claims, claimed))
}

/// What is sent to the EIP now goes to a guest, all of it.
fn ensure_serves_all(cluster: &Cluster, name: &str) -> Result<()> {
    let stream = stream(cluster, cluster.client(), EIP, &["first", "second"])?;
    let known = Instant::now();
    wait_for_more(&stream, cluster.guest(name)?, 2000)?;
    ensure_all_at(&finish_whole(stream)?, cluster.guest(name)?, known)
}

/// Keepalived's issue 20, with a backup that stays master.
#[test]
fn a_busy_master_that_never_claims_again_gets_the_vip_back_from_one_of_lower_priority_that_claimed_last() {
    Lab::run(|lab| {
        let cluster = Cluster::start(lab, ClusterConfig::usual())?;
        let (_master, mut usurper, claims, claimed) = usurped(&cluster)?;
        let talk = Talk::start(&cluster, "first")?;
        wait_for_conflict(&cluster, true)?;
        let vip = cluster.wait_for_owner(VIP_ID, "first", ELECTION)?;
        ensure!(owner_field(&vip, "learned_from") == Some("vrrp"), "{vip}");
        ensure!(epoch(&vip)? == claimed + 1, "not the epoch after {claimed}: {vip}");
        ensure_stays(&cluster, claimed + 1, true, CALM)?;
        talk.stop()?;
        ensure_serves_all(&cluster, "first")?;
        // It ends when the other one is silent, and that changes nothing.
        usurper.kill9()?;
        wait_for_conflict(&cluster, false)?;
        ensure_stays(&cluster, claimed + 1, false, CALM)?;
        let again = claims.count(|_| true)?;
        ensure!(again == 0, "the master has claimed {again} times more");
        Ok(())
    });
}

/// Keepalived's issue 20, with a backup that gave way at once and a service that says nothing unasked.
#[test]
fn a_quiet_master_gets_the_vip_back_from_one_that_claimed_last_and_gave_way_at_once() {
    Lab::run(|lab| {
        let cluster = Cluster::start(lab, ClusterConfig::usual())?;
        let (_master, usurper, claims, claimed) = usurped(&cluster)?;
        let mark = usurper.log().mark();
        let_hear(cluster.guest("second")?.netns())?;
        usurper.wait_for_state(mark, State::Backup, ELECTION)?;
        let vip = cluster.wait_for_owner(VIP_ID, "first", ELECTION)?;
        ensure!(owner_field(&vip, "learned_from") == Some("silent_owner"), "{vip}");
        ensure!(epoch(&vip)? == claimed + 1, "not the epoch after {claimed}: {vip}");
        ensure_serves_all(&cluster, "first")?;
        ensure_stays(&cluster, claimed + 1, false, CALM)?;
        let again = claims.count(|_| true)?;
        ensure!(again == 0, "the master has claimed {again} times more");
        Ok(())
    });
}

#[test]
fn two_masters_for_less_than_three_intervals_are_no_conflict_and_move_nothing() {
    /// Seconds.
    const INTERVAL: u8 = 2;
    let intervals = |number: u32| number * Duration::from_secs(INTERVAL.into());
    Lab::run(|lab| {
        let cluster = Cluster::start(lab, ClusterConfig::usual())?;
        let (first, second) = (cluster.guest("first")?, cluster.guest("second")?);
        add_vip(&cluster, &["first", "second"])?;
        let before = epoch(&take(&cluster, "second")?)?;
        // A master of old, and of higher priority than the owner.
        let _first = Repeated::adverts(first, 100, INTERVAL)?;
        ensure_stays(&cluster, before, false, intervals(4))?;
        for _ in 0..2 {
            // The last one comes two intervals after the first.
            let doubled = Repeated::some_adverts(second, 99, INTERVAL, 3)?;
            ensure_stays(&cluster, before, false, intervals(2))?;
            doubled.stop()?;
            // It is silent for more than three, and begins anew.
            ensure_stays(&cluster, before, false, intervals(5))?;
        }
        // With more of them it is a conflict.
        let _second = Repeated::adverts(second, 99, INTERVAL)?;
        wait_for_conflict(&cluster, true)?;
        let vip = cluster.wait_for_owner(VIP_ID, "first", SOON)?;
        ensure!(owner_field(&vip, "learned_from") == Some("vrrp") && epoch(&vip)? == before + 1, "{vip}");
        ensure_stays(&cluster, before + 1, true, intervals(4))
    });
}

#[test]
fn of_two_masters_of_one_priority_the_one_of_the_higher_address_is_assigned() {
    Lab::run(|lab| {
        let cluster = Cluster::start(lab, ClusterConfig::usual())?;
        let (first, second) = (cluster.guest("first")?, cluster.guest("second")?);
        ensure!(second.address() > first.address(), "the wrong one has the higher address");
        second.add_vip_address(VIP)?;
        let before = epoch(&take(&cluster, "first")?)?;
        let _masters = [Repeated::adverts(first, 100, 1)?, Repeated::adverts(second, 100, 1)?];
        wait_for_conflict(&cluster, true)?;
        cluster.wait_for_owner(VIP_ID, "second", SOON)?;
        let vip = cluster.vipd(2)?.vip(VIP_ID)?;
        ensure!(owner_field(&vip, "learned_from") == Some("vrrp") && epoch(&vip)? == before + 1, "{vip}");
        ensure_stays(&cluster, before + 1, true, CALM)?;
        ensure_serves_all(&cluster, "second")
    });
}

#[test]
fn without_vipd_on_its_host_no_master_is_assigned_until_it_returns_and_claims_count() {
    Lab::run(|lab| {
        let mut config = ClusterConfig::usual().with(Placed::new("fourth", 2, WEB, [192, 168, 7, 250]));
        config.objects = config.objects.replace("[first, second]", "[first, second, fourth]");
        let mut cluster = Cluster::start(lab, config)?;
        add_vip(&cluster, &["first", "second", "fourth"])?;
        let before = epoch(&take(&cluster, "second")?)?;
        cluster.vipd_mut(1)?.kill9()?;
        let _masters = [
            Repeated::adverts(cluster.guest("first")?, 100, 1)?,
            Repeated::adverts(cluster.guest("second")?, 99, 1)?,
        ];
        // The other member's host sees what it is, and leaves it to the host of the one that should own it.
        let second = cluster.vipd(2)?;
        poll_until(ELECTION, "a conflict on hv2", || shows_conflict(second).ok()?.then_some(()))?;
        ensure_others_stay(&cluster, "second", before)?;
        restart(&mut cluster, 1)?;
        let vip = cluster.wait_for_owner(VIP_ID, "first", ELECTION)?;
        ensure!(owner_field(&vip, "learned_from") == Some("vrrp") && epoch(&vip)? == before + 1, "{vip}");
        wait_for_conflict(&cluster, true)?;
        ensure_stays(&cluster, before + 1, true, CALM)?;
        // Claims count while it is away, and nothing but them.
        cluster.vipd_mut(1)?.kill9()?;
        claim_at_once(cluster.guest("fourth")?)?;
        for host in [2, 3] {
            cluster.vipd(host)?.wait_for_owner(VIP_ID, "fourth", SOON)?;
        }
        wait_for_ping(cluster.guest("third")?.netns(), VIP)?;
        ensure_others_stay(&cluster, "fourth", before + 2)?;
        // Back, it hears of the claim before it decides.
        restart(&mut cluster, 1)?;
        let vip = cluster.wait_for_owner(VIP_ID, "first", ELECTION)?;
        ensure!(owner_field(&vip, "learned_from") == Some("vrrp") && epoch(&vip)? == before + 3, "{vip}");
        ensure_stays(&cluster, before + 3, true, CALM)
    });
}

/// Fails unless the hosts other than the first one show this owner, and still do later.
fn ensure_others_stay(cluster: &Cluster, name: &str, since: u64) -> Result<()> {
    let start = Instant::now();
    while start.elapsed() < CALM {
        for host in [2, 3] {
            let vip = cluster.vipd(host)?.vip(VIP_ID)?;
            let is_owner = owner_field(&vip, "port") == Some(name) && epoch(&vip)? == since;
            ensure!(is_owner, "hv{host} does not show {name} with epoch {since}: {vip}");
        }
        sleep(Duration::from_millis(50));
    }
    Ok(())
}
