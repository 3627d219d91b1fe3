//! What the demo plays on: the lab with its guests, and vipd.

use std::fmt::Write as _;

use anyhow::Result;
use serde_json::Value;

use super::{
    role::{Pair, Role},
    timeline::{Actor, Timeline},
};
pub(super) use crate::scene::{EIP, PREFIX, VIP, VIP_ID};
use crate::{
    Binaries, EipReach, Guest, GuestConfig, Host, Lab, Outside, Vipd, VipdConfig, scene::EIP_NETWORKS,
};

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

/// Lab and vipd; once vipd serves, a [`Scene`](super::scene::Scene) can begin on it.
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
        for (path, why, ports) in paths(&status) {
            timeline.say(Actor::Vipd, &format!("reaches {ports} by {path},"));
            timeline.say(Actor::Vipd, &format!("because {why}"));
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
}

/// How vipd says it reaches its ports: path, reason, and the ports that have both in common.
fn paths(status: &Value) -> Vec<(String, String, String)> {
    let mut paths: Vec<(String, String, String)> = Vec::new();
    for port in status.pointer("/ports").and_then(Value::as_array).into_iter().flatten() {
        let field = |name: &str| port.get(name).and_then(Value::as_str).unwrap_or("?").to_owned();
        let (path, why, port) =
            (field("path"), field("why"), format!("{} on {}", field("id"), field("interface")));
        match paths.iter_mut().find(|known| (&known.0, &known.1) == (&path, &why)) {
            Some((.., ports)) => {
                ports.push_str(" and ");
                ports.push_str(&port);
            }
            None => paths.push((path, why, port)),
        }
    }
    paths
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn ports_with_the_same_path_for_the_same_reason_are_told_together() {
        let port = |id, path, why| json!({ "id": id, "interface": "tap", "path": path, "why": why });
        let status =
            json!({ "ports": [port("a", "xdp", "x"), port("b", "uplink-tc", "y"), port("c", "xdp", "x")] });
        let told = paths(&status);
        let ports: Vec<&str> = told.iter().map(|(.., ports)| ports.as_str()).collect();
        assert_eq!(ports, ["a on tap and c on tap", "b on tap"]);
    }
}
