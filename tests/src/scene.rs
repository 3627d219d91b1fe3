//! The scene that most tests play on: the two guests of the Cloudpods example, a third one beside them, a client
//! outside, and vipd between them.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    net::{Ipv4Addr, SocketAddrV4},
};

use anyhow::{Context as _, Result};
use serde_json::Value;

use crate::{Binaries, EipReach, Guest, GuestConfig, Host, Lab, Mac, Outside, Vipd, VipdConfig};

/// The subnet's gateway, which the forwarder is.
pub const GATEWAY: Ipv4Addr = Ipv4Addr::new(192, 168, 4, 1);

/// The VIP.
pub const VIP: Ipv4Addr = Ipv4Addr::new(192, 168, 7, 246);

/// The VIP's id in the state.
pub const VIP_ID: &str = "nginx-vip";

/// The EIP that is bound to the VIP.
pub const EIP: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 10);

/// The EIP that is bound to the third guest's fixed address.
pub const FIXED_EIP: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 11);

/// The outside client's address in the EIP network, with [`EipReach::OnLink`].
pub const EIP_NEIGHBOUR: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 254);

/// Prefix length of the subnet.
pub const PREFIX: u8 = 22;

/// The EIP network, in which the client is a neighbour and has the address of the gateway.
pub const EIP_NETWORKS: &str = "eip_networks: [{ id: public, cidr: 203.0.113.0/24, gateway: 203.0.113.254 }]";

/// Name, interface, MAC and address of the guests.
pub const GUESTS: [(&str, &str, &str, &str); 3] = [
    ("nginx-master", "tap0", "02:00:00:00:07:f7", "192.168.7.247"),
    ("nginx-slave", "tap1", "02:00:00:00:07:f8", "192.168.7.248"),
    ("other", "tap2", "02:00:00:00:07:f9", "192.168.7.249"),
];

/// What differs between scenes.
#[derive(Clone, Copy, Debug)]
pub struct Setting {
    /// How the client reaches EIPs.
    pub reach: EipReach,
    /// Whether the first guest has GRO on: XDP delivers to it then. The others never have.
    pub first_has_gro: bool,
    /// Whether the third guest's source/destination check is on.
    pub third_is_checked: bool,
}

impl Default for Setting {
    /// The client is a neighbour, XDP delivers to the first guest, all are checked.
    fn default() -> Self {
        Self { reach: EipReach::OnLink, first_has_gro: true, third_is_checked: true }
    }
}

/// The scene. Fields are dropped from the first to the last: vipd goes before what it serves.
#[derive(Debug)]
pub struct Scene {
    /// The agent; it serves.
    pub vipd: Vipd,
    /// A member of the VIP's group, `nginx-master`.
    pub first: Guest,
    /// A member of the VIP's group, `nginx-slave`.
    pub second: Guest,
    /// A guest of the same subnet without any right to the VIP, `other`.
    pub third: Guest,
    /// The client.
    pub outside: Outside,
    /// The hypervisor.
    pub host: Host,
}

impl Scene {
    /// Makes host, guests and client, starts vipd, and waits until it serves. Nobody has the VIP.
    pub fn start(lab: &Lab, setting: Setting) -> Result<Self> {
        let host = lab.add_host("hv1")?;
        let outside = host.add_outside(setting.reach)?;
        let guest = |(name, interface, mac, address): (&str, &str, &str, &str), gro: bool| {
            let config = GuestConfig::new(name, interface, mac, &format!("{address}/{PREFIX}"))?;
            host.add_guest(&GuestConfig { gro, ..config })
        };
        let [first, second, third] = GUESTS;
        let (first, second, third) =
            (guest(first, setting.first_has_gro)?, guest(second, false)?, guest(third, false)?);
        let mut config = VipdConfig::new("hv1");
        if setting.reach == EipReach::OnLink {
            config = config.with(EIP_NETWORKS);
        }
        let mut vipd =
            Vipd::start(&host, &Binaries::from_env()?, &config, &state(setting.third_is_checked)?)?;
        vipd.ready()?;
        Ok(Self { vipd, first, second, third, outside, host })
    }

    /// All guests, the first first.
    pub fn guests(&self) -> [&Guest; 3] {
        [&self.first, &self.second, &self.third]
    }

    /// What `vipctl status` shows.
    pub fn status(&self) -> Result<Value> {
        self.vipd.vipctl(&["status", "-o", "json"])
    }

    /// Whether the kernel tells what XDP can do with an interface (Linux 6.3): only then a veth is served by XDP.
    pub fn xdp_features_are_told(&self) -> Result<bool> {
        let status = self.status()?;
        let why = status.pointer("/ports/0/why").and_then(Value::as_str).context("the status has no port")?;
        Ok(!why.starts_with("this kernel does not tell"))
    }

    /// Packets dropped so far, by reason.
    pub fn drops(&self) -> Result<BTreeMap<String, u64>> {
        self.vipd.drops()
    }

    /// The VIP's moves that `vipctl history` still shows, oldest first.
    pub fn history(&self) -> Result<Vec<Value>> {
        let shown = self.vipd.vipctl(&["history", VIP_ID, "-o", "json"])?;
        let mut moves = shown.as_array().cloned().context("`vipctl history -o json` printed no array")?;
        moves.sort_by_key(|entry| entry.get("epoch").and_then(Value::as_u64));
        Ok(moves)
    }
}

/// The state of the scene: both members, the third guest, the VIP and both EIPs.
pub fn state(third_is_checked: bool) -> Result<String> {
    let mut text = String::from(
        "hosts:   [{ id: hv1, vtep: 198.51.100.1 }]\n\
         vpcs:    [{ id: blue, vni: 4001 }]\n\
         subnets: [{ id: web, vpc: blue, cidr: 192.168.4.0/22, gateway: 192.168.4.1 }]\n\
         ports:\n",
    );
    for (name, interface, mac, address) in GUESTS {
        let check = third_is_checked || name != "other";
        writeln!(
            text,
            "  - {{ id: {name}, subnet: web, address: {address}, mac: \"{mac}\", host: hv1, \
             interface: {interface}, source_dest_check: {check} }}"
        )?;
    }
    writeln!(text, "groups:  [{{ id: nginx, members: [nginx-master, nginx-slave] }}]")?;
    writeln!(text, "vips:    [{{ id: {VIP_ID}, subnet: web, address: {VIP}, group: nginx }}]")?;
    writeln!(text, "eips:")?;
    writeln!(text, "  - {{ id: web-eip, address: {EIP}, vip: {VIP_ID} }}")?;
    writeln!(text, "  - {{ id: other-eip, address: {FIXED_EIP}, port: other }}")?;
    Ok(text)
}

/// The MAC that guests are told of a VIP or of a gateway, whoever is behind it: 06:56 and the four address bytes.
pub fn constant_mac(address: Ipv4Addr) -> Mac {
    let [a, b, c, d] = address.octets();
    Mac([0x06, 0x56, a, b, c, d])
}

/// The page's address behind an EIP, VIP or guest.
pub fn page_of(address: Ipv4Addr) -> SocketAddrV4 {
    SocketAddrV4::new(address, 80)
}
