//! A network interface as the kernel describes it.

use std::fmt;

use netlink_packet_route::link::{
    InfoData, InfoKind, InfoVlan, LinkAttribute, LinkFlags, LinkInfo, LinkMessage, LinkXdp, VlanProtocol,
    XdpAttached,
};

/// What kind of interface it is: the name under which the kernel's driver registered (`ip -d link` shows it).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LinkKind {
    /// No kind: a physical or paravirtual NIC, or the loopback interface.
    Device,
    /// One end of a veth pair.
    Veth,
    /// A tun or tap device.
    Tun,
    /// A Linux bridge.
    Bridge,
    /// A bond.
    Bond,
    /// The datapath of Open vSwitch, or one of its internal ports.
    OpenVSwitch,
    /// Anything else, by the driver's name: `vlan`, `vxlan`, `dummy`, `macvtap`, …
    Other(String),
}

impl From<&InfoKind> for LinkKind {
    fn from(kind: &InfoKind) -> Self {
        match kind {
            InfoKind::Veth => Self::Veth,
            InfoKind::Tun => Self::Tun,
            InfoKind::Bridge => Self::Bridge,
            InfoKind::Bond => Self::Bond,
            InfoKind::Other(name) if name == "openvswitch" => Self::OpenVSwitch,
            other => Self::Other(other.to_string()),
        }
    }
}

impl fmt::Display for LinkKind {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Self::Device => "device",
            Self::Veth => "veth",
            Self::Tun => "tun",
            Self::Bridge => "bridge",
            Self::Bond => "bond",
            Self::OpenVSwitch => "openvswitch",
            Self::Other(name) => name,
        })
    }
}

/// The interface that another one is a member of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Master {
    /// Its ifindex.
    pub ifindex: u32,
    /// Its kind: bridge, bond, Open vSwitch, or another (`team`, `vrf`, …).
    pub kind: LinkKind,
}

/// Which frames of another interface a VLAN interface has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct VlanTag {
    /// The other interface's ifindex.
    pub on: u32,
    /// The tag's type: a provider's (IEEE 802.1ad) instead of a customer's (IEEE 802.1Q).
    pub provider: bool,
    /// The VLAN's number.
    pub id: u16,
}

/// How an XDP program is attached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum XdpAttachmentMode {
    /// In the driver: sees frames before the kernel builds an skb.
    Native,
    /// In the stack, on skbs.
    Generic,
    /// In the NIC's hardware.
    Hardware,
    /// In several places at once.
    Multiple,
}

/// The XDP program that is attached to an interface, whoever did it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct XdpAttachment {
    /// Where it sits.
    pub mode: XdpAttachmentMode,
    /// The program's id; `None` if there are several.
    pub program: Option<u32>,
}

/// A network interface of this namespace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    /// Its number, never used again for another one while the namespace lives.
    pub ifindex: u32,
    /// Its name, at most 15 bytes; may change and pass to another interface.
    pub name: String,
    /// Its Ethernet address in wire order; `None` if it has none (a tun device, for example).
    pub mac: Option<[u8; 6]>,
    /// The largest packet it carries, in bytes without the Ethernet header.
    pub mtu: u32,
    /// Set up by the administrator (`IFF_UP`).
    pub up: bool,
    /// Up and operational (`IFF_RUNNING`, RFC 2863).
    pub running: bool,
    /// Something is plugged in: the other end of a veth is up, a tap's file is open, a NIC has link.
    pub carrier: bool,
    /// Its driver.
    pub kind: LinkKind,
    /// The bridge, bond or switch that it is a member of.
    pub master: Option<Master>,
    /// Whose frames it has, if it is a VLAN interface on another one of this namespace.
    pub vlan: Option<VlanTag>,
    /// The XDP program on it, so that somebody else's can be refused by name and our own mode be verified.
    pub xdp: Option<XdpAttachment>,
}

impl Link {
    /// Reads the kernel's description: the interface, still without its master, and the master's ifindex, whose kind
    /// stands in that one's own description. `None` if the name is missing, which the kernel always sends.
    pub(super) fn from_message(message: &LinkMessage) -> Option<(Self, Option<u32>)> {
        let mut name = None;
        let mut master = None;
        let (mut on, mut elsewhere, mut tag) = (None, false, None);
        let mut link = Self {
            ifindex: message.header.index,
            name: String::new(),
            mac: None,
            mtu: 0,
            up: message.header.flags.contains(LinkFlags::Up),
            running: message.header.flags.contains(LinkFlags::Running),
            carrier: message.header.flags.contains(LinkFlags::LowerUp),
            kind: LinkKind::Device,
            master: None,
            vlan: None,
            xdp: None,
        };
        for attribute in &message.attributes {
            match attribute {
                LinkAttribute::IfName(value) => name = Some(value.clone()),
                LinkAttribute::Address(value) => link.mac = value.as_slice().try_into().ok(),
                LinkAttribute::Mtu(value) => link.mtu = *value,
                LinkAttribute::Carrier(value) => link.carrier = *value != 0,
                LinkAttribute::Controller(ifindex) => master = Some(*ifindex),
                LinkAttribute::Link(ifindex) => on = Some(*ifindex),
                LinkAttribute::LinkNetNsId(_) => elsewhere = true,
                LinkAttribute::LinkInfo(infos) => {
                    for info in infos {
                        match info {
                            LinkInfo::Kind(kind) => link.kind = kind.into(),
                            LinkInfo::Data(InfoData::Vlan(data)) => tag = vlan_tag(data),
                            _ => {}
                        }
                    }
                }
                LinkAttribute::Xdp(attributes) => link.xdp = xdp_attachment(attributes),
                _ => {}
            }
        }
        link.name = name?;
        link.vlan =
            on.filter(|_| !elsewhere).zip(tag).map(|(on, (provider, id))| VlanTag { on, provider, id });
        Some((link, master))
    }
}

/// Whether a VLAN interface's tag is a provider's, and its number.
fn vlan_tag(data: &[InfoVlan]) -> Option<(bool, u16)> {
    let mut provider = false;
    let mut id = None;
    for attribute in data {
        match attribute {
            InfoVlan::Id(value) => id = Some(*value),
            InfoVlan::Protocol(protocol) => provider = *protocol == VlanProtocol::Ieee8021Ad,
            _ => {}
        }
    }
    id.map(|id| (provider, id))
}

fn xdp_attachment(attributes: &[LinkXdp]) -> Option<XdpAttachment> {
    let mut mode = None;
    let mut program = None;
    for attribute in attributes {
        match attribute {
            LinkXdp::Attached(XdpAttached::Driver) => mode = Some(XdpAttachmentMode::Native),
            LinkXdp::Attached(XdpAttached::SocketBuffer) => mode = Some(XdpAttachmentMode::Generic),
            LinkXdp::Attached(XdpAttached::Hardware) => mode = Some(XdpAttachmentMode::Hardware),
            LinkXdp::Attached(XdpAttached::Multiple) => mode = Some(XdpAttachmentMode::Multiple),
            LinkXdp::ProgId(id) => program = Some(*id),
            _ => {}
        }
    }
    mode.map(|mode| XdpAttachment { mode, program })
}
