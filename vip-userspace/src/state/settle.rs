//! From drafts in the file's order to the state in the order of ids.

use super::{
    Binding, EipTarget, State, Vpc,
    draft::Draft,
    model::Peering,
    objects::{Objects, Order},
    resolve::Drafts,
    rules::Abouts,
};

impl Drafts {
    /// Sorts all objects by their ids, and has their references follow.
    pub(super) fn finish(self) -> (State, Abouts) {
        let Self { hosts, vpcs, subnets, ports, groups, vips, eips, peerings, interfaces, bindings } = self;
        let (hosts, _, of_hosts) = hosts.finish();
        let (mut vpcs, _, of_vpcs) = vpcs.finish();
        let (mut subnets, of_each_subnet, of_subnets) = subnets.finish();
        let (mut ports, of_each_port, of_ports) = ports.finish();
        let (mut groups, ..) = groups.finish();
        let (mut vips, of_each_vip, of_vips) = vips.finish();
        let (mut eips, about_targets, _) = eips.finish();
        for subnet in subnets.values_mut() {
            subnet.vpc = of_vpcs.now(subnet.vpc);
        }
        for port in ports.values_mut() {
            port.subnet = of_subnets.now(port.subnet);
            port.host = of_hosts.now(port.host);
        }
        for group in groups.values_mut() {
            group.members.iter_mut().for_each(|port| *port = of_ports.now(*port));
            group.members.sort_unstable();
        }
        let mut sorted = Vec::with_capacity(bindings.len());
        for vip in vips.values_mut() {
            vip.subnet = of_subnets.now(vip.subnet);
            let (begin, count) = vip.bindings;
            let own = bindings.get(begin as usize..(begin + count) as usize).unwrap_or_default();
            let begin = sorted.len();
            sorted.extend(own.iter().map(|binding| Binding { port: of_ports.now(binding.port), ..*binding }));
            if let Some(own) = sorted.get_mut(begin..) {
                own.sort_unstable_by_key(|binding| binding.port);
            }
            // As many as before, of which the number was small enough.
            vip.bindings.0 = u32::try_from(begin).unwrap_or(u32::MAX);
        }
        for eip in eips.values_mut() {
            eip.target = match eip.target {
                EipTarget::Vip(vip) => EipTarget::Vip(of_vips.now(vip)),
                EipTarget::Port(port) => EipTarget::Port(of_ports.now(port)),
            };
        }
        let peerings = peer(peerings, &of_vpcs, &mut vpcs);
        let mut interfaces =
            if of_ports.is_as_before() { interfaces } else { interfaces.in_order(of_ports.old()) };
        interfaces.shrink();
        let abouts =
            Abouts { subnets: of_each_subnet, ports: of_each_port, vips: of_each_vip, eips: about_targets };
        let bindings = sorted;
        let state = State { hosts, vpcs, subnets, ports, groups, vips, eips, peerings, interfaces, bindings };
        (state, abouts)
    }
}

/// Sorts the peerings, and tells the VPCs of their peers.
fn peer(peerings: Draft<Peering>, of_vpcs: &Order, vpcs: &mut Objects<Vpc>) -> Objects<Peering> {
    let (mut peerings, ..) = peerings.finish();
    for Peering { vpcs: pair } in peerings.values_mut() {
        *pair = pair.map(|vpc| of_vpcs.now(vpc));
        let [lesser, greater] = *pair;
        if let Some(vpc) = vpcs.get_mut(lesser) {
            vpc.peers.push(greater);
        }
        if let Some(vpc) = vpcs.get_mut(greater) {
            vpc.peers.push(lesser);
        }
    }
    vpcs.values_mut().for_each(|vpc| vpc.peers.sort_unstable());
    peerings
}
