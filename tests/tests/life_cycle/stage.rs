//! One host with two guests that share a VIP, and an EIP that leads to it.

use std::{
    net::{Ipv4Addr, SocketAddrV4},
    time::{Duration, SystemTime},
};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use vip_lab::{
    Announcement, Binaries, EipReach, Guest, GuestConfig, Host, Lab, Outside, Vipd, VipdConfig, poll_until,
    stream::UdpStream,
};

pub(crate) const VIP_ID: &str = "web-vip";
pub(crate) const VIP: Ipv4Addr = Ipv4Addr::new(192, 168, 7, 246);
pub(crate) const FIRST: Ipv4Addr = Ipv4Addr::new(192, 168, 7, 247);

/// Leads to the VIP.
pub(crate) const EIP: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 10);

/// Where streams go.
pub(crate) const PORT: u16 = 9000;

/// For what should happen soon, on a machine that is busy.
pub(crate) const SOON: Duration = Duration::from_secs(20);

/// The state in force at the start.
pub(crate) const STATE: &str = r#"hosts:   [{ id: hv1, vtep: 198.51.100.1 }]
vpcs:    [{ id: blue, vni: 4001 }]
subnets: [{ id: web, vpc: blue, cidr: 192.168.4.0/22, gateway: 192.168.4.1 }]
ports:
  - { id: first, subnet: web, address: 192.168.7.247, mac: "02:00:00:00:07:f7", host: hv1, interface: tap0 }
  - { id: second, subnet: web, address: 192.168.7.248, mac: "02:00:00:00:07:f8", host: hv1, interface: tap1 }
groups:  [{ id: web, members: [first, second] }]
vips:    [{ id: web-vip, subnet: web, address: 192.168.7.246, group: web }]
eips:    [{ id: web-eip, address: 203.0.113.10, vip: web-vip }]
"#;

/// vipd's configuration: EIPs are on-link, the client is a neighbour in their network and its gateway.
pub(crate) fn config() -> VipdConfig {
    VipdConfig::new("hv1")
        .with("eip_networks: [{ id: public, cidr: 203.0.113.0/24, gateway: 203.0.113.254 }]")
}

/// The first guest: port `first`. XDP delivers to it, because it has GRO on.
pub(crate) fn first_guest() -> Result<GuestConfig> {
    Ok(GuestConfig::new("first", "tap0", "02:00:00:00:07:f7", "192.168.7.247/22")?.with_gro())
}

/// The second guest: port `second`. The uplink's TC program delivers to it.
pub(crate) fn second_guest() -> Result<GuestConfig> {
    GuestConfig::new("second", "tap1", "02:00:00:00:07:f8", "192.168.7.248/22")
}

/// Everything is there. Fields are dropped from the first to the last: vipd before what it works on.
pub(crate) struct Stage {
    pub(crate) vipd: Vipd,
    pub(crate) first: Guest,
    pub(crate) second: Guest,
    pub(crate) outside: Outside,
    pub(crate) host: Host,
}

impl Stage {
    /// vipd serves [`STATE`], both guests have the VIP on their interface, `first` has claimed it.
    pub(crate) fn start(lab: &Lab) -> Result<Self> {
        let host = lab.add_host("hv1")?;
        let outside = host.add_outside(EipReach::OnLink)?;
        let first = host.add_guest(&first_guest()?)?;
        let second = host.add_guest(&second_guest()?)?;
        let vipd = Vipd::start(&host, &Binaries::from_env()?, &config(), STATE)?;
        let mut stage = Self { vipd, first, second, outside, host };
        stage.vipd.ready()?;
        stage.first.add_vip_address(VIP)?;
        stage.second.add_vip_address(VIP)?;
        claim(&stage.first)?;
        stage.vipd.wait_for_owner(VIP_ID, "first", SOON)?;
        stage.must_serve(EIP, &stage.first)?;
        Ok(stage)
    }

    /// Numbered datagrams from the client to an EIP; both guests listen.
    pub(crate) fn stream(&self, eip: Ipv4Addr, rate: u32, time: Duration) -> Result<UdpStream> {
        let receivers = [self.first.netns(), self.second.netns()];
        UdpStream::start(self.outside.netns(), SocketAddrV4::new(eip, PORT), rate, time, &receivers)
    }

    /// What is sent to an EIP now reaches this guest and not the other.
    pub(crate) fn must_serve(&self, eip: Ipv4Addr, guest: &Guest) -> Result<()> {
        let report = self.stream(eip, 100, Duration::from_millis(200))?.finish()?;
        let (sent, received) = (report.sent.len(), report.receiver(guest.netns())?.arrivals.len());
        ensure!(
            received == sent && report.duplicates() == 0,
            "{} got {received} of {sent} datagrams to {eip}, the others {:?}",
            guest.name(),
            report.receivers.iter().map(|it| (&it.namespace, it.arrivals.len())).collect::<Vec<_>>()
        );
        Ok(())
    }

    /// The VIP as vipctl shows it.
    pub(crate) fn vip(&self) -> Result<Value> {
        self.vipd.vip(VIP_ID)
    }

    /// vipd's status.
    pub(crate) fn status(&self) -> Result<Value> {
        self.vipd.vipctl(&["status", "-o", "json"])
    }

    /// Waits until the status satisfies a condition, and gives it.
    pub(crate) fn wait_for_status(&self, what: &str, holds: impl Fn(&Value) -> bool) -> Result<Value> {
        let mut last = None;
        let waited = poll_until(SOON, what, || {
            last = self.status().ok();
            last.clone().filter(&holds)
        });
        waited.with_context(|| format!("the status is {last:#?}"))
    }

    /// Waits until the file in force is the one that stands there.
    pub(crate) fn wait_for_sync(&self, state: &str) -> Result<Value> {
        self.wait_for_status(&format!("the state to be {state}"), |status| {
            status.pointer("/sync/state").and_then(Value::as_str) == Some(state)
        })
    }
}

/// A guest takes the VIP by gratuitous ARP.
pub(crate) fn claim(guest: &Guest) -> Result<()> {
    guest.arping(Announcement::Request, VIP)
}

/// All that was sent arrived, once.
pub(crate) fn must_be_whole(stream: UdpStream) -> Result<()> {
    let report = stream.finish()?;
    let lost = report.lost();
    let first = report.sent.first().copied();
    let at =
        |(number, at): &(u64, std::time::Instant)| (*number, first.map(|first| at.duration_since(first)));
    ensure!(
        lost.is_empty() && report.duplicates() == 0,
        "{} of {} datagrams were lost and {} doubled, at {:.0} a second; the first and the last lost: {:?} {:?}",
        lost.len(),
        report.sent.len(),
        report.duplicates(),
        report.rate(),
        lost.first().map(at),
        lost.last().map(at),
    );
    ensure!(!report.sent.is_empty(), "nothing was sent");
    Ok(())
}

/// Waits until a guest has got `more` datagrams of a running stream from now on.
pub(crate) fn wait_for_more(stream: &UdpStream, guest: &Guest, more: usize) -> Result<()> {
    let enough = stream.received(guest.netns()) + more;
    poll_until(SOON, &format!("{more} more datagrams at {}", guest.name()), || {
        (stream.received(guest.netns()) >= enough).then_some(())
    })
}

/// Two pictures of a VIP show the same ownership: owner, epoch, since, `learned_from`.
pub(crate) fn must_be_same_ownership(before: &Value, after: &Value) -> Result<()> {
    let part = |vip: &Value, pointer: &str| vip.pointer(pointer).cloned().unwrap_or_default();
    for pointer in [
        "/state",
        "/epoch",
        "/owner/port",
        "/owner/host",
        "/owner/mac",
        "/owner/epoch",
        "/owner/learned_from",
    ] {
        let (before, after) = (part(before, pointer), part(after, pointer));
        ensure!(before == after, "{pointer} was {before} and is {after}");
    }
    // The programs stamp with the boot clock, and the wall clock is adjusted against that one all the time.
    let (before, after) = (since(before)?, since(after)?);
    let apart = after.duration_since(before).or_else(|_| before.duration_since(after))?;
    ensure!(apart < Duration::from_millis(500), "since has moved by {apart:?}");
    Ok(())
}

/// When the present ownership began.
pub(crate) fn since(vip: &Value) -> Result<SystemTime> {
    let text = vip.pointer("/owner/since").and_then(Value::as_str);
    let text = text.with_context(|| format!("no since in {vip}"))?;
    humantime::parse_rfc3339(text).with_context(|| format!("since {text} is not RFC 3339"))
}

/// The number at a place of vipctl's answer.
pub(crate) fn number(value: &Value, pointer: &str) -> Result<u64> {
    value
        .pointer(pointer)
        .and_then(Value::as_u64)
        .with_context(|| format!("no number at {pointer} in {value}"))
}
