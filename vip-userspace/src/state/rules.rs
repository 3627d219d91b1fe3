//! What has to be true of all objects together.

use std::collections::BTreeSet;

use super::{
    Eip, Kind, MAX_OWNERS_PER_VIP, MAX_VIPS_PER_PORT, Port, Ref, State, Subnet, Vip, Vpc,
    draft::About,
    error::Report,
    overlap::{Coverage, overlapping},
};

/// What is known of the objects besides the state, for messages, and to leave out what is wrong in itself.
#[derive(Debug)]
pub(super) struct Abouts {
    pub(super) subnets: About,
    pub(super) ports: About,
    pub(super) vips: About,
    pub(super) eips: About,
}

/// Judges the resolved lists together.
pub(super) struct Judge<'s> {
    state: &'s State,
    abouts: &'s Abouts,
}

impl<'s> Judge<'s> {
    /// Of a state in which wrong objects may stand.
    pub(super) fn new(state: &'s State, abouts: &'s Abouts) -> Self {
        Self { state, abouts }
    }

    /// Reports what is wrong.
    pub(super) fn judge(&self, report: &mut Report) {
        self.overlaps(report);
        self.covered_eips(report);
        self.quotas(report);
    }

    /// The subnets that are right in themselves.
    fn subnets(&self) -> impl Iterator<Item = (Ref<Subnet>, &'s Subnet)> {
        let right = |subnet: &Ref<Subnet>| self.abouts.subnets.is_right(*subnet);
        self.state.subnets.iter().filter(move |(subnet, _)| right(subnet))
    }

    /// Overlapping subnets: within a VPC, between peers, and between two peers of one VPC, which could not tell
    /// them apart.
    fn overlaps(&self, report: &mut Report) {
        let state = self.state;
        let mut by_vpc: Vec<Vec<(Ref<Subnet>, &Subnet)>> = vec![Vec::new(); state.vpcs.len()];
        for (id, subnet) in self.subnets() {
            if let Some(of_vpc) = by_vpc.get_mut(subnet.vpc.index() as usize) {
                of_vpc.push((id, subnet));
            }
        }
        let of = |vpc: Ref<Vpc>| by_vpc.get(vpc.index() as usize).into_iter().flatten().copied();
        let mut seen = BTreeSet::new();
        for (vpc, Vpc { peers, .. }) in state.vpcs.iter() {
            let own = overlapping(of(vpc));
            let reachable = of(vpc).chain(peers.iter().flat_map(|peer| of(*peer)));
            let foreign =
                overlapping(reachable).into_iter().filter(|((_, one), (_, other))| one.vpc != other.vpc);
            for (one, other) in own.into_iter().chain(foreign) {
                let ((one_id, one), (other_id, other)) = self.by_line(one, other);
                if !seen.insert((one_id, other_id)) {
                    continue;
                }
                let what =
                    format!("{} overlaps {} of subnet {}", other.cidr, one.cidr, state.subnets.id(one_id));
                let id = |vpc| state.vpcs.id(vpc);
                let (why, advice) = if one.vpc == other.vpc {
                    (String::new(), "give each subnet of a VPC its own addresses")
                } else if one.vpc == vpc || other.vpc == vpc {
                    let why = format!(", and the VPCs {} and {} are peered", id(one.vpc), id(other.vpc));
                    (why, "renumber one of the two, or end the peering")
                } else {
                    let why = format!(
                        ", and vpc {} is peered with both {} and {}",
                        id(vpc),
                        id(one.vpc),
                        id(other.vpc)
                    );
                    (why, "renumber one of the two, or end one of the peerings")
                };
                let subject = format!("{} {}", Kind::Subnet, state.subnets.id(other_id));
                report.add(self.abouts.subnets.line(other_id), subject, format!("cidr: {what}{why}"), advice);
            }
        }
    }

    /// The subnet that was written first, then the other.
    fn by_line<T>(
        &self,
        one: (Ref<Subnet>, T),
        other: (Ref<Subnet>, T),
    ) -> ((Ref<Subnet>, T), (Ref<Subnet>, T)) {
        let line = |subnet| self.abouts.subnets.line(subnet);
        if line(one.0) <= line(other.0) { (one, other) } else { (other, one) }
    }

    /// EIPs whose address a subnet holds: that VPC's guests would take a public address for a neighbour's.
    fn covered_eips(&self, report: &mut Report) {
        let coverage = Coverage::of(self.subnets());
        for (id, Eip { address, .. }) in self.state.eips.iter() {
            let Some((subnet, Subnet { cidr, .. })) = coverage.find(*address) else { continue };
            if !self.abouts.eips.is_right(id) {
                continue;
            }
            let subject = format!("{} {}", Kind::Eip, self.state.eips.id(id));
            let what =
                format!("address: {address} lies in subnet {} ({cidr})", self.state.subnets.id(subnet));
            let advice = "use an address outside the subnets of all VPCs";
            report.add(self.abouts.eips.line(id), subject, what, advice);
        }
    }

    /// What the default profile allows: as much as the loosest of the clouds that have profiles.
    fn quotas(&self, report: &mut Report) {
        let mut vips_of = vec![0_u32; self.state.ports.len()];
        let right = |vip: &Ref<Vip>| self.abouts.vips.is_right(*vip);
        for (id, vip) in self.state.vips.iter().filter(|(vip, _)| right(vip)) {
            let mut count = 0;
            for binding in self.state.bindings(vip).iter().filter(|binding| binding.rights.own) {
                count += 1;
                if let Some(vips) = vips_of.get_mut(binding.port.index() as usize) {
                    *vips += 1;
                }
            }
            if count > MAX_OWNERS_PER_VIP {
                let subject = format!("{} {}", Kind::Vip, self.state.vips.id(id));
                let what = format!("{count} ports may own it; profile default allows {MAX_OWNERS_PER_VIP}");
                report.add(self.abouts.vips.line(id), subject, what, "bind fewer ports");
            }
        }
        for (port, count) in (0..).map(Ref::<Port>::at).zip(vips_of) {
            if count as usize > MAX_VIPS_PER_PORT {
                let subject = format!("{} {}", Kind::Port, self.state.ports.id(port));
                let what = format!("it may own {count} VIPs; profile default allows {MAX_VIPS_PER_PORT}");
                report.add(self.abouts.ports.line(port), subject, what, "bind it to fewer VIPs");
            }
        }
    }
}
