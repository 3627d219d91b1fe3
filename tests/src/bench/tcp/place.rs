//! One client, one hypervisor and one guest for each way through the hypervisor: alike but for what the hypervisor does.

use std::{fs, net::Ipv4Addr};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use vip_userspace::config::UplinkPath;

use super::{
    flow::{Flow, Measured},
    wire::Wire,
};
use crate::{
    Announcement, Binaries, EIP_POOL, Guest, GuestConfig, Host, Lab, Netns, UNDERLAY_HOST, UNDERLAY_OUTSIDE,
    Vipd, VipdConfig, poll_until,
};

const VIP: Ipv4Addr = Ipv4Addr::new(192, 168, 7, 246);
const EIP: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 10);
const PRIVATE: &str = "192.168.4.0/22";
const GATEWAY: &str = "192.168.4.1/22";
const GUEST: &str = "192.168.7.247/22";
const GUEST_MAC: &str = "02:00:00:00:07:f7";

const STATE: &str = r#"hosts:   [{ id: hv1, vtep: 198.51.100.1 }]
vpcs:    [{ id: blue, vni: 4001 }]
subnets: [{ id: web, vpc: blue, cidr: 192.168.4.0/22, gateway: 192.168.4.1 }]
ports:   [{ id: guest, subnet: web, address: 192.168.7.247, mac: "02:00:00:00:07:f7", host: hv1, interface: tap0 }]
vips:    [{ id: vip, subnet: web, address: 192.168.7.246, ports: [guest] }]
eips:    [{ id: eip, address: 203.0.113.10, vip: vip }]
"#;

const START: std::time::Duration = std::time::Duration::from_secs(20);

/// Who does the job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Subject {
    /// The kernel, without translation: the client knows the inner address.
    Routing,
    /// nftables with connections.
    Conntrack,
    /// nftables without: a rule for each direction.
    Stateless,
    /// The forwarder, with this path of the uplink.
    Forwarder(UplinkPath),
}

impl Subject {
    pub(super) const ALL: [Self; 6] = [
        Self::Routing,
        Self::Conntrack,
        Self::Stateless,
        Self::Forwarder(UplinkPath::Xdp),
        Self::Forwarder(UplinkPath::Tc),
        Self::Forwarder(UplinkPath::Split),
    ];

    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Routing => "kernel routing, no NAT",
            Self::Conntrack => "nftables DNAT, conntrack",
            Self::Stateless => "nftables, stateless",
            Self::Forwarder(UplinkPath::Xdp) => "forwarder, xdp",
            Self::Forwarder(UplinkPath::Tc) => "forwarder, tc",
            Self::Forwarder(UplinkPath::Split) => "forwarder, split",
        }
    }

    /// A name for namespaces.
    const fn label(self) -> &'static str {
        match self {
            Self::Routing => "routing",
            Self::Conntrack => "conntrack",
            Self::Stateless => "stateless",
            Self::Forwarder(path) => path.word(),
        }
    }

    /// Whether it has XDP on the uplink.
    const fn has_xdp(self) -> bool {
        matches!(self, Self::Forwarder(UplinkPath::Xdp | UplinkPath::Split))
    }

    const fn rules(self) -> Option<&'static str> {
        match self {
            Self::Conntrack => Some(
                "table ip bench { chain c { type nat hook prerouting priority dstnat; \
                 ip daddr 203.0.113.10 counter dnat to 192.168.7.246; }\n}\n",
            ),
            Self::Stateless => Some(
                "table ip bench { chain c { type filter hook prerouting priority raw; \
                 ip daddr 203.0.113.10 counter notrack ip daddr set 192.168.7.246; \
                 iifname tap0 ip saddr 192.168.7.246 notrack ip saddr set 203.0.113.10; }\n}\n",
            ),
            Self::Routing | Self::Forwarder(_) => None,
        }
    }
}

/// What the client's end of the uplink's cable does by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Frames {
    /// What a veth does by default: segments of 64 kB cross it whole, with their checksums still to be computed.
    Whole,
    /// What a wire carries: frames of the MTU with complete checksums, received as a NIC's driver receives them. The
    /// hypervisor's end has GRO on, as NICs have.
    Mtu,
}

/// The namespaces of one subject. Fields are dropped from the first to the last: vipd before what it works on.
pub(super) struct Place {
    pub(super) subject: Subject,
    vipd: Option<Vipd>,
    guest: Guest,
    wire: Wire,
    client: Netns,
    host: Host,
    /// Payload that went through, to the guest and from it, and connections.
    payload: [u64; 3],
    /// What the host had counted when the place was made.
    before: Counted,
}

/// What the host counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Counted {
    /// Packets that the kernel routed.
    routed: u64,
    /// Packets that XDP sent on from the uplink.
    redirected: u64,
    /// Bytes of the EIP in both directions, or packets that nftables' rule for it saw.
    eip: [u64; 2],
    /// Packets that the forwarder dropped.
    dropped: u64,
}

impl Place {
    /// Makes the namespaces and has the subject do its job.
    ///
    /// `wire` is the wire's program.
    pub(super) fn build(lab: &Lab, subject: Subject, wire: &[u8]) -> Result<Self> {
        let label = subject.label();
        let host = lab.add_host(label)?;
        let client = lab.add_netns(&format!("{label}-client"))?;
        let wire = Wire::connect(lab, label, wire, &client, host.netns())?;
        host.netns().ip(&format!("address add {UNDERLAY_HOST}/24 dev eth0"))?;
        client.ip(&format!("address add {UNDERLAY_OUTSIDE}/24 dev eth0"))?;
        client.ip(&format!("route add {EIP_POOL} via {UNDERLAY_HOST}"))?;
        let guest = GuestConfig::new(&format!("{label}-guest"), "tap0", GUEST_MAC, GUEST)?.with_gro();
        let guest = host.add_guest(&guest)?;
        let netns = host.netns();
        guest.add_vip_address(VIP)?;
        let vipd = if let Subject::Forwarder(path) = subject {
            let config = VipdConfig::new("hv1").with(&format!("uplink_path: {}", path.word()));
            let mut vipd = Vipd::start(&host, &Binaries::from_env()?, &config, STATE)?;
            vipd.ready()?;
            guest.arping(Announcement::Request, VIP)?;
            vipd.wait_for_owner("vip", "guest", START)?;
            Some(vipd)
        } else {
            host.enable_forwarding()?;
            netns.ip(&format!("address add {GATEWAY} dev tap0"))?;
            client.ip(&format!("route add {PRIVATE} via {UNDERLAY_HOST}"))?;
            None
        };
        if let Some(rules) = subject.rules() {
            let file = netns.directory().join(format!("{label}.rules"));
            fs::write(&file, rules).context("cannot write rules")?;
            netns.check(&["nft", "-f", file.to_str().context("a path that is text")?])?;
        }
        let (payload, before) = ([0; 3], Counted::default());
        let mut place = Self { subject, vipd, guest, wire, client, host, payload, before };
        place.set(Frames::Mtu)?;
        place.wait_until_it_serves()?;
        place.before = place.counted()?;
        Ok(place)
    }

    /// Where the client connects to.
    fn address(&self) -> Ipv4Addr {
        if self.subject == Subject::Routing { VIP } else { EIP }
    }

    fn wait_until_it_serves(&self) -> Result<()> {
        poll_until(START, &format!("{} to serve", self.subject.name()), || {
            let report = self.client.ping(self.address(), 1).ok()?;
            (report.received == 1).then_some(())
        })
    }

    /// Sets what the client sends, and how it reaches the uplink.
    pub(super) fn set(&mut self, frames: Frames) -> Result<()> {
        // Native XDP on a veth takes no frames but those of a wire.
        let is_wire = frames == Frames::Mtu || self.subject.has_xdp();
        let (client, gro) = if is_wire { ("off", "on") } else { ("on", "off") };
        if !is_wire {
            self.wire.become_bridge();
        }
        self.client.check(&["ethtool", "-K", "eth0", "tx", client, "tso", client, "gso", client])?;
        self.host.netns().check(&["ethtool", "-K", "eth0", "gro", gro])?;
        if is_wire { self.wire.become_wire() } else { Ok(()) }
    }

    /// Opens connections and lets `measure` use them.
    pub(super) fn measure(
        &mut self,
        connections: usize,
        measure: impl FnOnce(&[Flow]) -> Result<Measured>,
    ) -> Result<f64> {
        let flows: Vec<Flow> = (0..connections)
            .map(|_| Flow::open(&self.client, self.guest.netns(), self.address()))
            .collect::<Result<_>>()?;
        let Measured { rate, to_guest, to_client } = measure(&flows)?;
        for (sum, more) in self.payload.iter_mut().zip([to_guest, to_client, connections as u64]) {
            *sum += more;
        }
        Ok(rate)
    }

    fn counted(&self) -> Result<Counted> {
        let host = self.host.netns();
        let statistics = host.check(&["ethtool", "-S", "eth0"])?;
        let redirected = statistics
            .lines()
            .filter_map(|line| line.split_once("_xdp_redirect:")?.1.trim().parse::<u64>().ok())
            .sum();
        let mut counted = Counted { routed: routed(&self.host)?, redirected, ..Counted::default() };
        let number = |value: &Value, pointer: &str| {
            value.pointer(pointer).and_then(Value::as_u64).with_context(|| format!("no {pointer} in {value}"))
        };
        if let Some(vipd) = &self.vipd {
            let eip = vipd.vipctl(&["get", "eips", "eip", "-o", "json"])?;
            counted.eip = [number(&eip, "/bytes_in")?, number(&eip, "/bytes_out")?];
            let status = vipd.vipctl(&["status", "-o", "json"])?;
            let drops = status.get("drops").and_then(Value::as_array).context("the status names no drops")?;
            for drop in drops {
                counted.dropped += number(drop, "/packets")?;
            }
        } else if self.subject.rules().is_some() {
            let shown: Value = serde_json::from_str(&host.check(&["nft", "-j", "list", "ruleset"])?)?;
            let rules = shown.get("nftables").and_then(Value::as_array).context("nft shows no rules")?;
            let packets =
                rules.iter().filter_map(|entry| entry.pointer("/rule/expr").and_then(Value::as_array));
            let counters = packets.flatten().filter_map(|part| part.pointer("/counter/packets")?.as_u64());
            counted.eip = [counters.sum(), 0];
        }
        Ok(counted)
    }

    /// Whether what was measured went the subject's way: what the host has counted against what was sent.
    pub(super) fn account(&self) -> Result<String> {
        let (before, after) = (self.before, self.counted()?);
        let [to_guest, to_client, connections] = self.payload;
        let routed = after.routed - before.routed;
        let redirected = after.redirected - before.redirected;
        let name = self.subject.name();
        let megabytes = |bytes: u64| bytes / 1_000_000;
        ensure!(to_guest > 0 && to_client > 0, "{name}: nothing was sent both ways");
        let Subject::Forwarder(path) = self.subject else {
            ensure!(routed > connections, "{name}: the kernel routed {routed} packets only");
            let seen = after.eip[0] - before.eip[0];
            ensure!(
                self.subject == Subject::Routing || seen >= connections,
                "{name}: the rule saw {seen} packets of {connections} connections"
            );
            return Ok(format!(
                "{name}: {connections} connections, the kernel routed {routed} packets{}",
                if self.subject == Subject::Routing {
                    String::new()
                } else {
                    format!(", {seen} matched the rule")
                }
            ));
        };
        let [eip_in, eip_out] = [after.eip[0] - before.eip[0], after.eip[1] - before.eip[1]];
        ensure!(routed == 0, "{name}: the kernel routed {routed} packets");
        ensure!(eip_in >= to_guest, "{name}: the EIP counted {eip_in} bytes in, {to_guest} were sent");
        ensure!(eip_out >= to_client, "{name}: the EIP counted {eip_out} bytes out, {to_client} were sent");
        ensure!(
            after.dropped == before.dropped,
            "{name}: {} packets were dropped",
            after.dropped - before.dropped
        );
        match path {
            UplinkPath::Xdp => {
                ensure!(redirected * 1500 >= to_guest, "{name}: XDP redirected {redirected} packets");
            }
            UplinkPath::Tc => ensure!(redirected == 0, "{name}: XDP redirected {redirected} packets"),
            // SYNs, and again if one was lost.
            UplinkPath::Split => ensure!(
                (connections..connections * 2).contains(&redirected),
                "{name}: XDP redirected {redirected} packets of {connections} connections"
            ),
        }
        Ok(format!(
            "{name}: {connections} connections, {} MB of payload in and {} MB out, the EIP counted {} and {}; XDP redirected \
             {redirected} packets, the kernel routed none",
            megabytes(to_guest),
            megabytes(to_client),
            megabytes(eip_in),
            megabytes(eip_out)
        ))
    }
}

/// Packets that the kernel has routed.
fn routed(host: &Host) -> Result<u64> {
    // That of the thread: /proc/net is the process's.
    let text = host.netns().exec(|| {
        fs::read_to_string("/proc/thread-self/net/snmp").context("cannot read the kernel's IP counters")
    })?;
    let mut lines = text.lines().filter_map(|line| line.strip_prefix("Ip: "));
    let (names, values) = (lines.next().unwrap_or_default(), lines.next().unwrap_or_default());
    let found = names.split(' ').zip(values.split(' ')).find(|(name, _)| *name == "ForwDatagrams");
    found.and_then(|(_, value)| value.parse().ok()).context("the kernel counts no routed packets")
}
