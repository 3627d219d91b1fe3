//! Which columns each kind has in CSV and in tables.

use std::fmt::{Display, Write as _};

use super::{
    model::{
        EipView, HostView, MoveView, OwnerView, PortBinding, PortView, Right, RouterView, SubnetView,
        VipBinding, VipState, VipView, VpcView,
    },
    render::{Column, Tabular},
};

impl Tabular for HostView {
    const COLUMNS: &'static [Column<Self>] = &[
        Column::shown("id", "HOST", |host| host.id.clone()),
        Column::shown("vtep", "VTEP", |host| host.vtep.to_string()),
        Column::shown("this", "THIS", |host| host.this.to_string()),
        Column::shown("ports", "PORTS", |host| host.ports.to_string()),
        Column::shown("name", "NAME", |host| optional(host.name.as_ref())),
        Column::csv("remark", |host| optional(host.remark.as_ref())),
        Column::shown("reachable", "REACHABLE", |host| host.reachable.to_string()),
        Column::shown("next_hop", "NEXT HOP", |host| optional(host.next_hop)),
        Column::shown("next_hop_mac", "ITS MAC", |host| optional(host.next_hop_mac)),
        Column::shown("mtu", "MTU", |host| optional(host.mtu)),
        Column::shown("why", "WHY NOT", |host| optional(host.why.as_ref())),
    ];
}

impl Tabular for VpcView {
    const COLUMNS: &'static [Column<Self>] = &[
        Column::shown("id", "VPC", |vpc| vpc.id.clone()),
        Column::shown("vni", "VNI", |vpc| vpc.vni.to_string()),
        Column::shown("peers", "PEERS", |vpc| vpc.peers.join(" ")),
        Column::shown("subnets", "SUBNETS", |vpc| vpc.subnets.join(" ")),
        Column::shown("ports", "PORTS", |vpc| vpc.ports.to_string()),
        Column::shown("vips", "VIPS", |vpc| vpc.vips.to_string()),
        Column::shown("name", "NAME", |vpc| optional(vpc.name.as_ref())),
        Column::csv("remark", |vpc| optional(vpc.remark.as_ref())),
    ];
}

impl Tabular for SubnetView {
    const COLUMNS: &'static [Column<Self>] = &[
        Column::shown("id", "SUBNET", |subnet| subnet.id.clone()),
        Column::shown("vpc", "VPC", |subnet| subnet.vpc.clone()),
        Column::shown("cidr", "CIDR", |subnet| subnet.cidr.to_string()),
        Column::shown("gateway", "GATEWAY", |subnet| subnet.gateway.to_string()),
        Column::shown("router", "ROUTER", |subnet| router(subnet.router).to_owned()),
        Column::shown("ports", "PORTS", |subnet| subnet.ports.to_string()),
        Column::shown("vips", "VIPS", |subnet| subnet.vips.to_string()),
        Column::shown("name", "NAME", |subnet| optional(subnet.name.as_ref())),
        Column::csv("remark", |subnet| optional(subnet.remark.as_ref())),
    ];
}

impl Tabular for PortView {
    const COLUMNS: &'static [Column<Self>] = &[
        Column::shown("id", "PORT", |port| port.id.clone()),
        Column::shown("vpc", "VPC", |port| port.vpc.clone()),
        Column::csv("subnet", |port| port.subnet.clone()),
        Column::shown("address", "ADDRESS", |port| port.address.to_string()),
        Column::shown("mac", "MAC", |port| port.mac.to_string()),
        Column::shown("host", "HOST", |port| port.host.clone()),
        Column::shown("interface", "INTERFACE", |port| port.interface.clone()),
        Column::csv("vlan", |port| optional(port.vlan)),
        Column::shown("ifindex", "IFINDEX", |port| optional(port.ifindex)),
        Column::shown("source_dest_check", "CHECK", |port| port.source_dest_check.to_string()),
        Column::shown("eip", "EIP", |port| optional(port.eip.as_ref())),
        Column::shown("owns", "OWNS", |port| port.owns.join(" ")),
        Column::csv("bound", |port| vip_bindings(&port.bound)),
        Column::csv("name", |port| optional(port.name.as_ref())),
        Column::csv("remark", |port| optional(port.remark.as_ref())),
    ];
}

impl Tabular for VipView {
    const COLUMNS: &'static [Column<Self>] = &[
        Column::shown("id", "VIP", |vip| vip.id.clone()),
        Column::shown("vpc", "VPC", |vip| vip.vpc.clone()),
        Column::csv("subnet", |vip| vip.subnet.clone()),
        Column::shown("address", "ADDRESS", |vip| vip.address.to_string()),
        Column::shown("state", "STATE", |vip| vip_state(vip.state).to_owned()),
        Column::shown("owner.port", "OWNER", |vip| of_owner(vip, |owner| Some(owner.port.clone()))),
        Column::shown("owner.host", "HOST", |vip| of_owner(vip, |owner| Some(owner.host.clone()))),
        Column::csv("owner.mac", |vip| of_owner(vip, |owner| Some(owner.mac))),
        Column::csv("owner.epoch", |vip| of_owner(vip, |owner| Some(owner.epoch))),
        Column::shown("owner.since", "SINCE", |vip| of_owner(vip, |owner| owner.since)),
        Column::shown("owner.learned_from", "LEARNED FROM", |vip| {
            of_owner(vip, |owner| owner.learned_from.clone())
        }),
        Column::shown("epoch", "EPOCH", |vip| vip.epoch.to_string()),
        Column::csv("bound", |vip| port_bindings(&vip.bound)),
        Column::shown("eip", "EIP", |vip| optional(vip.eip.as_ref())),
        Column::csv("vrids", |vip| vip.vrids.iter().map(u8::to_string).collect::<Vec<_>>().join(" ")),
        Column::csv("packets_in", |vip| vip.packets_in.to_string()),
        Column::csv("bytes_in", |vip| vip.bytes_in.to_string()),
        Column::csv("packets_out", |vip| vip.packets_out.to_string()),
        Column::csv("bytes_out", |vip| vip.bytes_out.to_string()),
        Column::csv("packets_onward", |vip| vip.packets_onward.to_string()),
        Column::csv("bytes_onward", |vip| vip.bytes_onward.to_string()),
        Column::csv("name", |vip| optional(vip.name.as_ref())),
        Column::csv("remark", |vip| optional(vip.remark.as_ref())),
    ];
}

impl Tabular for EipView {
    const COLUMNS: &'static [Column<Self>] = &[
        Column::shown("id", "EIP", |eip| eip.id.clone()),
        Column::shown("address", "ADDRESS", |eip| eip.address.to_string()),
        Column::shown("vpc", "VPC", |eip| eip.vpc.clone()),
        Column::shown("vip", "VIP", |eip| optional(eip.vip.as_ref())),
        Column::shown("port", "PORT", |eip| optional(eip.port.as_ref())),
        Column::shown("inner", "INNER", |eip| eip.inner.to_string()),
        Column::shown("served_by", "SERVED BY", |eip| optional(eip.served_by.as_ref())),
        Column::csv("network", |eip| optional(eip.network.as_ref())),
        Column::shown("packets_in", "PACKETS IN", |eip| eip.packets_in.to_string()),
        Column::csv("bytes_in", |eip| eip.bytes_in.to_string()),
        Column::shown("packets_out", "PACKETS OUT", |eip| eip.packets_out.to_string()),
        Column::csv("bytes_out", |eip| eip.bytes_out.to_string()),
        Column::csv("name", |eip| optional(eip.name.as_ref())),
        Column::csv("remark", |eip| optional(eip.remark.as_ref())),
    ];
}

impl Tabular for MoveView {
    const COLUMNS: &'static [Column<Self>] = &[
        Column::shown("epoch", "EPOCH", |change| change.epoch.to_string()),
        Column::shown("at", "AT", |change| change.at.to_string()),
        Column::shown("port", "OWNER", |change| optional(change.port.as_ref())),
        Column::shown("host", "HOST", |change| optional(change.host.as_ref())),
        Column::shown("previous", "BEFORE", |change| optional(change.previous.as_ref())),
        Column::shown("learned_from", "LEARNED FROM", |change| change.learned_from.clone()),
    ];
}

/// The text of a value that need not be there.
pub(super) fn optional<T: Display>(value: Option<T>) -> String {
    value.map_or_else(String::new, |value| value.to_string())
}

fn of_owner<T: Display>(vip: &VipView, part: impl Fn(&OwnerView) -> Option<T>) -> String {
    optional(vip.owner.as_ref().and_then(part))
}

const fn router(router: RouterView) -> &'static str {
    match router {
        RouterView::Vip => "vip",
        RouterView::External => "external",
    }
}

const fn vip_state(state: VipState) -> &'static str {
    match state {
        VipState::Owned => "owned",
        VipState::Unowned => "unowned",
        VipState::Conflict => "conflict",
    }
}

fn vip_bindings(bindings: &[VipBinding]) -> String {
    bind(bindings.iter().map(|VipBinding { vip, rights }| (vip.as_str(), rights.as_slice())))
}

fn port_bindings(bindings: &[PortBinding]) -> String {
    bind(bindings.iter().map(|PortBinding { port, rights }| (port.as_str(), rights.as_slice())))
}

/// `id=own+source id=own`: no id has these signs in it.
fn bind<'a>(bindings: impl Iterator<Item = (&'a str, &'a [Right])>) -> String {
    let mut text = String::new();
    for (id, rights) in bindings {
        if !text.is_empty() {
            text.push(' ');
        }
        text.push_str(id);
        for (index, right) in rights.iter().enumerate() {
            let sign = if index == 0 { '=' } else { '+' };
            let right = match right {
                Right::Own => "own",
                Right::Source => "source",
            };
            // Writing to a string cannot fail.
            let _ = write!(text, "{sign}{right}");
        }
    }
    text
}
