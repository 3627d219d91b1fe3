//! Where the VIPs move: members with keepalived on the first two hosts, clients beside them, on the third host and outside.

use std::{
    fmt::Write as _,
    fs,
    net::Ipv4Addr,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context as _, Result};
use ipnetwork::Ipv4Network;

use crate::{
    Binaries, Cluster, ClusterConfig, Guest, Lab,
    cluster::{Placed, WEB},
    keepalived::Keepalived,
};

/// The moves go around several VIPs: one alone may move eight times at once and then once a second.
pub(super) const VIPS: usize = 4;

/// Seconds between two adverts (VRRP version 3, RFC 9568 section 5.2.7): a member that wants a VIP takes it within 0.4 s.
const ADVERT_INTERVAL: &str = "0.1";

/// Priority of a member, and what it has more of while it is to have the VIP.
const PRIORITY: u8 = 100;
const PREFERRED: u8 = 50;

/// How long the first election may take.
const ELECTION: Duration = Duration::from_secs(30);

/// The members, by the number of their host less one.
pub(super) const MEMBERS: [Placed; 2] = [member("member1", 1, 247), member("member2", 2, 248)];

/// Clients beside the members.
pub(super) const BESIDE: [Placed; 2] = [member("beside1", 1, 201), member("beside2", 2, 202)];

/// The client on the third host.
pub(super) const ELSEWHERE: Placed = member("elsewhere", 3, 203);

/// All guests are of one subnet. XDP delivers to them: they have GRO on.
const fn member(name: &'static str, host: u8, last: u8) -> Placed {
    Placed { gro: true, ..Placed::new(name, host, WEB, [192, 168, 7, last]) }
}

/// A VIP, by its number from 0.
pub(super) fn vip(number: usize) -> Ipv4Addr {
    Ipv4Addr::new(192, 168, 7, last_octet(231, number))
}

/// The EIP that leads to it.
pub(super) fn eip(number: usize) -> Ipv4Addr {
    Ipv4Addr::new(203, 0, 113, last_octet(31, number))
}

fn last_octet(first: u8, number: usize) -> u8 {
    u8::try_from(number).unwrap_or_default().saturating_add(first)
}

/// Its id in the state.
pub(super) fn vip_id(number: usize) -> String {
    format!("vip{}", number + 1)
}

/// Cluster and keepalived. Fields are dropped from the first to the last.
#[derive(Debug)]
pub(super) struct Stage {
    keepalived: Vec<Keepalived>,
    /// Hosts, guests, agents.
    pub(super) cluster: Cluster,
    directory: PathBuf,
}

impl Stage {
    /// Everything stands and serves; nobody has a VIP.
    pub(super) fn build(lab: &Lab, binaries: &Binaries, hosts: u8) -> Result<Self> {
        let mut guests = MEMBERS.to_vec();
        guests.extend(BESIDE);
        guests.push(ELSEWHERE);
        let config = ClusterConfig { hosts, guests, objects: objects()?, ..ClusterConfig::usual() };
        let cluster = Cluster::start_with(lab, config, binaries)?;
        for placed in MEMBERS {
            let member = cluster.guest(placed.name)?.netns();
            // What reaches a member is received and counted, whether keepalived has the address there or not.
            for number in 0..VIPS {
                member.ip(&format!("address add {}/32 dev lo", vip(number)))?;
            }
        }
        Ok(Self { keepalived: Vec::new(), cluster, directory: lab.directory().to_owned() })
    }

    /// Starts keepalived in both members; the first one gets all VIPs.
    pub(super) fn elect(&mut self) -> Result<()> {
        for number in 0..VIPS {
            self.prefer(number, 0)?;
        }
        for (index, placed) in MEMBERS.iter().enumerate() {
            let guest = self.cluster.guest(placed.name)?;
            self.keepalived.push(Keepalived::start_with(guest, &self.keepalived_config(index, guest)?)?);
        }
        for number in 0..VIPS {
            let [first, _] = MEMBERS;
            self.cluster.wait_for_owner(&vip_id(number), first.name, ELECTION)?;
        }
        Ok(())
    }

    /// Gives a member the higher priority for a VIP: its keepalived sees the files change, and takes the VIP when it has heard adverts of
    /// lower priority for long enough.
    pub(super) fn prefer(&self, vip: usize, member: usize) -> Result<()> {
        for index in 0..MEMBERS.len() {
            let file = self.track_file(index, vip);
            let value = if index == member { "1" } else { "0" };
            fs::write(&file, value).with_context(|| format!("cannot write {}", file.display()))?;
        }
        Ok(())
    }

    fn track_file(&self, member: usize, vip: usize) -> PathBuf {
        self.directory.join(format!("member{}-prefers-vip{}", member + 1, vip + 1))
    }

    fn keepalived_config(&self, member: usize, guest: &Guest) -> Result<String> {
        let mut text = format!(
            "global_defs {{\n    router_id {}\n    vrrp_version 3\n    script_user root\n    enable_script_security\n}}\n",
            guest.name()
        );
        for number in 0..VIPS {
            let (name, file) = (vip_id(number), self.track_file(member, number));
            let address = Ipv4Network::new(vip(number), WEB.prefix)?;
            writeln!(text, "track_file {name} {{\n    file {}\n    weight {PREFERRED}\n}}", file.display())?;
            writeln!(text, "vrrp_instance {name} {{\n    state BACKUP\n    interface eth0")?;
            writeln!(text, "    virtual_router_id {}\n    priority {PRIORITY}", number + 1)?;
            writeln!(text, "    advert_int {ADVERT_INTERVAL}\n    track_file {{\n        {name}\n    }}")?;
            writeln!(text, "    virtual_ipaddress {{\n        {address}\n    }}\n}}")?;
        }
        Ok(text)
    }

    /// Where configurations, logs and sockets are.
    pub(super) fn directory(&self) -> &Path {
        &self.directory
    }
}

/// Groups, VIPs and EIPs of the state.
fn objects() -> Result<String> {
    let members = MEMBERS.map(|member| member.name).join(", ");
    let mut text = format!("groups:\n  - {{ id: members, members: [{members}] }}\nvips:\n");
    for number in 0..VIPS {
        writeln!(
            text,
            "  - {{ id: {}, subnet: {}, address: {}, group: members }}",
            vip_id(number),
            WEB.id,
            vip(number)
        )?;
    }
    text.push_str("eips:\n");
    for number in 0..VIPS {
        writeln!(text, "  - {{ id: eip{}, address: {}, vip: {} }}", number + 1, eip(number), vip_id(number))?;
    }
    Ok(text)
}
