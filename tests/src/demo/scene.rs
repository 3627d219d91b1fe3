//! What the demo plays on: the lab, vipd and the two guests of the Cloudpods example.

use std::{
    fmt::Write as _,
    net::{Ipv4Addr, SocketAddrV4},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use ipnetwork::Ipv4Network;
use serde_json::Value;

use super::{
    role::{Pair, Role},
    timeline::{Actor, Timeline},
};
use crate::{
    Binaries, EipReach, Guest, GuestConfig, Host, Lab, Nginx, Outside, Vipd, VipdConfig,
    capture::Capture,
    frame::Frame,
    http::{self, Fetch, Fetcher},
    keepalived::{Keepalived, KeepalivedConfig, State},
    stream::UdpStream,
};

/// The VIP's id in the state.
pub(super) const VIP_ID: &str = "nginx-vip";

/// The VIP.
pub(super) const VIP: Ipv4Addr = Ipv4Addr::new(192, 168, 7, 246);

/// Prefix length of the VIP and of the guests' addresses.
const PREFIX: u8 = 22;

/// The EIP that is bound to it.
pub(super) const EIP: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 10);

/// Where the numbered datagrams go, beside the page.
pub(super) const DATAGRAM_PORT: u16 = 9000;

/// Numbered datagrams a second while the VIP moves: the next one is never far when the claim comes.
pub(super) const DATAGRAMS: u32 = 1000;

/// EtherType of ARP.
const ARP: u16 = 0x0806;

/// Protocol number of VRRP.
const VRRP: u8 = 112;

/// vipd's EIP network: the client is a neighbour in it, and has the address of its gateway.
const EIP_NETWORKS: &str = "eip_networks: [{ id: public, cidr: 203.0.113.0/24, gateway: 203.0.113.254 }]";

/// A page is asked for this often,
const FETCH_INTERVAL: Duration = Duration::from_millis(100);
/// and has so long to come. Shorter than TCP's first repetition (1 s, RFC 6298 section 2): what was lost counts as lost.
const FETCH_TIME: Duration = Duration::from_millis(500);

/// How long nginx may take to answer its own guest.
const NGINX_TIME: Duration = Duration::from_secs(5);

/// What vipd is told.
fn state() -> Result<String> {
    let mut text = String::from(
        "hosts:   [{ id: hv1, vtep: 198.51.100.1 }]\n\
         vpcs:    [{ id: blue, vni: 4001 }]\n\
         subnets: [{ id: web, vpc: blue, cidr: 192.168.4.0/22, gateway: 192.168.4.1 }]\n\
         ports:\n",
    );
    for role in Role::ALL {
        writeln!(
            text,
            "  - {{ id: {}, subnet: web, address: {}, mac: \"{}\", host: hv1, interface: {} }}",
            role.name(),
            role.address(),
            role.mac(),
            role.interface()
        )?;
    }
    let members = Role::ALL.map(Role::name).join(", ");
    writeln!(text, "groups:  [{{ id: nginx, members: [{members}] }}]")?;
    writeln!(text, "vips:    [{{ id: {VIP_ID}, subnet: web, address: {VIP}, group: nginx }}]")?;
    writeln!(text, "eips:    [{{ id: web-eip, address: {EIP}, vip: {VIP_ID} }}]")?;
    Ok(text)
}

/// What runs in a guest.
#[derive(Debug)]
pub(super) struct Service {
    keepalived: Keepalived,
    nginx: Nginx,
}

/// Lab and vipd; once vipd serves, [`Stage::open`] makes a [`Scene`] of it.
#[derive(Debug)]
pub(super) struct Stage {
    /// The agent.
    pub(super) vipd: Vipd,
    guests: Pair<Guest>,
    /// The client.
    pub(super) outside: Outside,
    /// The hypervisor.
    pub(super) host: Host,
}

impl Stage {
    /// Lab and guests stand; vipd begins to start, nothing else runs.
    pub(super) fn build(lab: &Lab, binaries: &Binaries, timeline: &mut Timeline) -> Result<Self> {
        let host = lab.add_host("hv1")?;
        let outside = host.add_outside(EipReach::OnLink)?;
        let guests = Pair::try_new(|role| {
            let address = format!("{}/{PREFIX}", role.address());
            host.add_guest(&GuestConfig::new(role.name(), role.interface(), role.mac(), &address)?)
        })?;
        timeline.say(Actor::Demo, "built the lab: four network namespaces with veth cables between them");
        timeline.flush();
        let config = VipdConfig::new("hv1").with(EIP_NETWORKS);
        let vipd = Vipd::start(&host, binaries, &config, &state()?)?;
        Ok(Self { vipd, guests, outside, host })
    }

    /// Waits until vipd serves, and tells how it reaches the guests.
    pub(super) fn wait_for_vipd(&mut self, timeline: &mut Timeline) -> Result<()> {
        self.vipd.ready()?;
        let status = self.status()?;
        let at = |pointer: &str| status.pointer(pointer).and_then(Value::as_str).unwrap_or("?");
        timeline.say(
            Actor::Vipd,
            &format!("serves, with XDP on {} in {} mode", at("/uplink/name"), at("/uplink/xdp")),
        );
        for port in status.pointer("/ports").and_then(Value::as_array).into_iter().flatten() {
            let field = |name: &str| port.get(name).and_then(Value::as_str).unwrap_or("?");
            let (id, interface, path, why) = (field("id"), field("interface"), field("path"), field("why"));
            timeline.say(Actor::Vipd, &format!("reaches {id} on {interface} by {path}: {why}"));
        }
        timeline.flush();
        Ok(())
    }

    /// What `vipctl status` shows.
    pub(super) fn status(&self) -> Result<Value> {
        self.vipd.vipctl(&["status", "-o", "json"])
    }

    /// A guest.
    pub(super) fn guest(&self, role: Role) -> &Guest {
        self.guests.of(role)
    }

    /// Starts nginx and keepalived in both guests, the preferred one first, and then the client.
    pub(super) fn open(&self, timeline: &mut Timeline) -> Result<Scene<'_>> {
        let captures = Pair::try_new(|role| Capture::start(self.host.netns(), role.interface()))?;
        let services = Pair::try_new(|role| {
            let guest = self.guest(role);
            let nginx = Nginx::start(guest, role.name())?;
            let vip = Ipv4Network::new(VIP, PREFIX)?;
            let config =
                KeepalivedConfig::cloudpods(role.name(), role.state(), vip).with_check(nginx.health_script());
            let (name, priority) = (role.name(), config.priority);
            timeline.say(
                Actor::Demo,
                &format!("starts nginx and keepalived on {name} (priority {priority}, +2 while nginx runs)"),
            );
            timeline.flush();
            anyhow::Ok(Service { keepalived: Keepalived::start(guest, &config)?, nginx })
        })?;
        timeline.say(Actor::Client, &format!("asks for http://{EIP}/ ten times a second from now on"));
        timeline.flush();
        let client = Capture::start(self.outside.netns(), "eth0")?;
        let page = SocketAddrV4::new(EIP, 80);
        let fetcher = Fetcher::start(self.outside.netns(), page, "/", FETCH_INTERVAL, FETCH_TIME)?;
        Ok(Scene { fetcher, client, captures, services, stage: self })
    }
}

/// Everybody plays. Fields are dropped from the first to the last: watchers before what they watch.
#[derive(Debug)]
pub(super) struct Scene<'stage> {
    fetcher: Fetcher,
    client: Capture,
    captures: Pair<Capture>,
    services: Pair<Service>,
    stage: &'stage Stage,
}

impl Scene<'_> {
    /// The states that a guest's keepalived entered, oldest first, and when.
    pub(super) fn transitions(&self, role: Role) -> Vec<(State, Instant)> {
        let transitions = self.services.of(role).keepalived.transitions();
        transitions.into_iter().map(|(state, line)| (state, line.at)).collect()
    }

    /// Every announcement of the VIP by a guest so far, oldest first.
    pub(super) fn claims(&self, role: Role) -> Result<Vec<Frame>> {
        // The EtherType is looked at first: most frames are datagrams, and this is called often.
        let claims =
            |frame: &Frame| frame.ether_type() == Some(ARP) && !frame.outgoing && frame.announces(VIP);
        self.captures.of(role).matching(claims)
    }

    /// How many VRRP adverts the host has delivered to a guest.
    pub(super) fn adverts_to(&self, role: Role) -> Result<usize> {
        let advert = |frame: &Frame| frame.outgoing && frame.ipv4().is_some_and(|ipv4| ipv4.protocol == VRRP);
        self.captures.of(role).count(advert)
    }

    /// What passed the host's end of a guest's cable.
    pub(super) fn frames_at(&self, role: Role) -> Result<Vec<Frame>> {
        self.captures.of(role).frames()
    }

    /// What passed the client's interface.
    pub(super) fn client_frames(&self) -> Result<Vec<Frame>> {
        self.client.frames()
    }

    /// The pages so far.
    pub(super) fn fetches(&self) -> Vec<Fetch> {
        self.fetcher.fetches()
    }

    /// Stops a guest's nginx so that the health script cannot start it.
    pub(super) fn stop_nginx(&self, role: Role) -> Result<()> {
        self.services.of(role).nginx.stop()
    }

    /// Starts a guest's nginx again. The health script may be faster as soon as the configuration is back: what counts
    /// is that it answers.
    pub(super) fn start_nginx(&self, role: Role) -> Result<()> {
        let started = self.services.of(role).nginx.begin();
        let local = SocketAddrV4::new(Ipv4Addr::LOCALHOST, 80);
        let answered = http::get(self.stage.guest(role).netns(), local, "/", NGINX_TIME);
        if answered.is_ok() { Ok(()) } else { started }
    }

    /// Starts numbered datagrams from the client to the EIP, received by whoever has the VIP.
    pub(super) fn start_datagrams(&self, time: Duration) -> Result<UdpStream> {
        let to = SocketAddrV4::new(EIP, DATAGRAM_PORT);
        let receivers = Role::ALL.map(|role| self.stage.guest(role).netns());
        UdpStream::start(self.stage.outside.netns(), to, DATAGRAMS, time, &receivers)
    }

    /// How many of the datagrams a guest has got.
    pub(super) fn received(&self, stream: &UdpStream, role: Role) -> usize {
        stream.received(self.stage.guest(role).netns())
    }

    /// The VIP as `vipctl get vips` shows it.
    pub(super) fn vip(&self) -> Result<Value> {
        self.stage.vipd.vip(VIP_ID)
    }

    /// The VIP's moves as `vipctl history` shows them, oldest first.
    pub(super) fn history(&self) -> Result<Vec<Value>> {
        let shown = self.stage.vipd.vipctl(&["history", VIP_ID, "-o", "json"])?;
        let mut moves = shown.as_array().cloned().context("`vipctl history -o json` printed no array")?;
        moves.reverse();
        Ok(moves)
    }

    /// What `vipctl status` shows.
    pub(super) fn status(&self) -> Result<Value> {
        self.stage.status()
    }

    /// Ends client and captures; what runs in the guests goes on while it is held.
    pub(super) fn stop_watching(self) -> Pair<Service> {
        self.services
    }
}
