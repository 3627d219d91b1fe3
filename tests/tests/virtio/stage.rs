//! A hypervisor whose uplink is a card of the machine, with guests that are programs behind taps.

use std::{
    net::{Ipv4Addr, SocketAddrV4, UdpSocket},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use vip_lab::{
    Binaries, EipReach, Host, Lab, Mac, Outside, Vipd, VipdConfig,
    etherparse::{SlicedPacket, TransportSlice},
    frame::{self, Arp},
    offload::{checked, leave_checksum},
    scene::{self, EIP, EIP_NETWORKS, GATEWAY, GUESTS, VIP, VIP_ID, constant_mac},
    tap::{Large, Offload, Segments, Tap, TapFrame},
};

pub(crate) const SHORT: Duration = Duration::from_secs(20);

/// The port that guests serve.
pub(crate) const PORT: u16 = 7000;

/// A guest: its end of the tap, and what it is called.
pub(crate) struct TapGuest {
    pub(crate) name: &'static str,
    pub(crate) mac: Mac,
    pub(crate) address: Ipv4Addr,
    pub(crate) tap: Tap,
}

/// Fields are dropped from the first to the last.
pub(crate) struct Stage {
    pub(crate) vipd: Vipd,
    pub(crate) guests: [TapGuest; 3],
    pub(crate) outside: Outside,
    pub(crate) host: Host,
}

impl Stage {
    pub(crate) fn start(lab: &Lab) -> Result<Self> {
        let host = lab.add_host("hv1")?;
        let outside = host.add_outside_on_cards(EipReach::OnLink)?;
        let guest = |(name, interface, mac, address): (&'static str, &str, &str, &str)| -> Result<TapGuest> {
            let tap = Tap::create(host.netns(), interface)?;
            Ok(TapGuest { name, mac: mac.parse()?, address: address.parse()?, tap })
        };
        let [first, second, third] = GUESTS;
        let guests = [guest(first)?, guest(second)?, guest(third)?];
        let config = VipdConfig::new("hv1").with(EIP_NETWORKS).with("xdp_mode: native");
        let mut vipd = Vipd::start(&host, &Binaries::from_env()?, &config, &scene::state(true)?)?;
        vipd.ready()?;
        Ok(Self { vipd, guests, outside, host })
    }

    /// A guest claims the VIP, and vipd says that it is its owner.
    pub(crate) fn claim(&self, guest: &TapGuest) -> Result<Value> {
        let frame = Arp::gratuitous_request(guest.mac, VIP).frame(guest.mac, Mac::BROADCAST);
        guest.tap.send(&frame, Offload::default())?;
        self.vipd.wait_for_owner(VIP_ID, guest.name, SHORT)
    }

    /// A client outside: a socket that knows the EIP's port.
    pub(crate) fn client(&self) -> Result<UdpSocket> {
        self.outside.netns().exec(|| {
            let socket =
                UdpSocket::bind((scene::EIP_NEIGHBOUR, 0)).context("cannot open a client's socket")?;
            socket.connect((EIP, PORT)).context("cannot connect a client's socket")?;
            socket.set_read_timeout(Some(SHORT)).context("cannot limit a client's wait")?;
            Ok(socket)
        })
    }

    /// The client sends a word, and this guest and nobody else gets it, translated and with right checksums. Gives the
    /// client's address.
    pub(crate) fn reaches(&self, client: &UdpSocket, word: &str, owner: &TapGuest) -> Result<SocketAddrV4> {
        client.send(word.as_bytes()).context("the client cannot send")?;
        let frame = owner.receive(word, |udp| udp == word.as_bytes())?;
        let packet = checked(&frame.complete()?)?;
        ensure!(packet.destination == SocketAddrV4::new(VIP, PORT), "{packet:?}");
        for other in self.guests.iter().filter(|other| other.name != owner.name) {
            let strayed = other.tap.receive(Duration::ZERO, word, |frame| carries(frame, word.as_bytes()));
            ensure!(strayed.is_err(), "{} got what was {}'s", other.name, owner.name);
        }
        Ok(packet.source)
    }
}

impl TapGuest {
    /// The UDP datagram that this guest receives, as `wanted` chooses by its payload.
    pub(crate) fn receive(&self, what: &str, wanted: impl Fn(&[u8]) -> bool) -> Result<TapFrame> {
        self.tap.receive(SHORT, what, |frame| udp_payload(frame).is_some_and(|payload| wanted(&payload)))
    }

    /// Sends a datagram from the VIP by the gateway; the checksum is left to whoever sends it on.
    pub(crate) fn reply(&self, to: SocketAddrV4, word: &str) -> Result<()> {
        let macs = (self.mac, constant_mac(GATEWAY));
        let mut frame = frame::udp(macs, (VIP, PORT), (*to.ip(), to.port()), word.as_bytes())?;
        let offload = leave_checksum(&mut frame)?;
        self.tap.send(&frame, offload)
    }

    /// Sends TCP from an address of this guest in one frame of many segments, as a driver with TSO does.
    pub(crate) fn send_segments(
        &self,
        destination: Mac,
        from: SocketAddrV4,
        to: SocketAddrV4,
        payload: &[u8],
        segment: u16,
    ) -> Result<()> {
        let ends = ((*from.ip(), from.port()), (*to.ip(), to.port()));
        let mut frame = frame::tcp((self.mac, destination), ends.0, ends.1, payload)?;
        let checksum = leave_checksum(&mut frame)?;
        let headers = u16::try_from(frame.len() - payload.len())?;
        let segments = Some(Segments { kind: Large::Tcp, headers, payload: segment });
        self.tap.send(&frame, Offload { segments, ..checksum })
    }
}

fn udp_payload(frame: &TapFrame) -> Option<Vec<u8>> {
    let packet = SlicedPacket::from_ethernet(&frame.bytes).ok()?;
    let Some(TransportSlice::Udp(udp)) = packet.transport else { return None };
    Some(udp.payload().to_vec())
}

fn carries(frame: &TapFrame, word: &[u8]) -> bool {
    udp_payload(frame).is_some_and(|payload| payload == word)
}
