//! What happens on the stage: nginx and keepalived of the Cloudpods example in both guests, the client outside, and
//! captures of what passes between them.

use std::{
    net::{Ipv4Addr, SocketAddrV4},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use ipnetwork::Ipv4Network;
use serde_json::Value;

use super::{
    role::{Pair, Role},
    stage::{EIP, PREFIX, Stage, VIP, VIP_ID},
    timeline::{Actor, Timeline},
};
use crate::{
    Nginx,
    capture::Capture,
    frame::Frame,
    http::{self, Fetch, Fetcher},
    keepalived::{Keepalived, KeepalivedConfig, State},
    stream::UdpStream,
};

/// Where the numbered datagrams go, beside the page.
pub(super) const DATAGRAM_PORT: u16 = 9000;

/// Numbered datagrams a second while the VIP moves: the next one is never far when the claim comes.
pub(super) const DATAGRAMS: u32 = 1000;

/// EtherType of ARP.
const ARP: u16 = 0x0806;

/// Protocol number of VRRP.
const VRRP: u8 = 112;

/// A page is asked for this often,
const FETCH_INTERVAL: Duration = Duration::from_millis(100);
/// and has so long to come. Shorter than TCP's first repetition (1 s, RFC 6298 section 2): what was lost counts as lost.
const FETCH_TIME: Duration = Duration::from_millis(500);

/// How long nginx may take to answer its own guest.
const NGINX_TIME: Duration = Duration::from_secs(5);

/// What runs in a guest.
#[derive(Debug)]
pub(super) struct Service {
    keepalived: Keepalived,
    nginx: Nginx,
}

/// Everybody plays. Fields are dropped from the first to the last: watchers before what they watch.
#[derive(Debug)]
pub(super) struct Scene<'stage> {
    fetcher: Option<Fetcher>,
    client: Capture,
    captures: Pair<Capture>,
    services: Pair<Service>,
    stage: &'stage Stage,
}

impl<'stage> Scene<'stage> {
    /// Starts nginx and keepalived in both guests, the preferred one first.
    pub(super) fn begin(stage: &'stage Stage, timeline: &mut Timeline) -> Result<Self> {
        let captures = Pair::try_new(|role| Capture::start(stage.host.netns(), role.interface()))?;
        let client = Capture::start(stage.outside.netns(), "eth0")?;
        let services = Pair::try_new(|role| {
            let (guest, name) = (stage.guest(role), role.name());
            let nginx = Nginx::start(guest, &format!("{name}\n"))?;
            let vip = Ipv4Network::new(VIP, PREFIX)?;
            let config =
                KeepalivedConfig::cloudpods(name, role.state(), vip).with_check(nginx.health_script());
            let priority = config.priority;
            timeline.say(
                Actor::Demo,
                &format!("starts nginx and keepalived on {name}: priority {priority}, +2 while nginx runs"),
            );
            timeline.flush();
            anyhow::Ok(Service { keepalived: Keepalived::start(guest, &config)?, nginx })
        })?;
        Ok(Self { fetcher: None, client, captures, services, stage })
    }

    /// The client asks for the page again and again from now on.
    pub(super) fn start_client(&mut self, timeline: &mut Timeline) -> Result<()> {
        timeline.say(Actor::Client, &format!("asks for http://{EIP}/ ten times a second from now on"));
        let page = SocketAddrV4::new(EIP, 80);
        self.fetcher =
            Some(Fetcher::start(self.stage.outside.netns(), page, "/", FETCH_INTERVAL, FETCH_TIME)?);
        Ok(())
    }

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

    /// The requests that are over; none before the client starts.
    pub(super) fn fetches(&self) -> Vec<Fetch> {
        self.fetcher.as_ref().map(Fetcher::fetches).unwrap_or_default()
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
