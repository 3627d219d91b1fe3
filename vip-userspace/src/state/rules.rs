//! What has to be true of all objects together.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    Id, Kind, MAX_OWNERS_PER_VIP, MAX_VIPS_PER_PORT, Problem, Subnet,
    overlap::{Coverage, overlapping},
    resolve::Resolver,
};

impl Resolver<'_> {
    /// Judges the resolved lists together.
    pub(super) fn judge_together(&mut self) {
        let overlaps = self.overlaps();
        let covered = self.covered_eips();
        let quotas = self.quotas();
        for Problem { line, subject, what, advice } in overlaps.into_iter().chain(covered).chain(quotas) {
            self.report.add(line, subject, what, advice);
        }
    }

    /// Overlapping subnets: within a VPC, between peers, and between two peers of one VPC, which could not tell
    /// them apart.
    fn overlaps(&self) -> Vec<Problem> {
        let mut by_vpc: BTreeMap<&Id, Vec<&Subnet>> = BTreeMap::new();
        for subnet in self.state.subnets.values() {
            by_vpc.entry(&subnet.vpc).or_default().push(subnet);
        }
        let of = |vpc: &Id| by_vpc.get(vpc).into_iter().flatten().copied();
        let mut seen = BTreeSet::new();
        let mut problems = Vec::new();
        for vpc in self.state.vpcs.values() {
            let own = overlapping(of(&vpc.id));
            let reachable = of(&vpc.id).chain(vpc.peers.iter().flat_map(of));
            let foreign = overlapping(reachable).into_iter().filter(|(one, other)| one.vpc != other.vpc);
            for (one, other) in own.into_iter().chain(foreign) {
                let (one, other) = self.by_line(one, other);
                if !seen.insert((&one.id, &other.id)) {
                    continue;
                }
                let what = format!("{} overlaps {} of subnet {}", other.cidr, one.cidr, one.id);
                let (why, advice) = if one.vpc == other.vpc {
                    (String::new(), "give each subnet of a VPC its own addresses")
                } else if one.vpc == vpc.id || other.vpc == vpc.id {
                    let why = format!(", and the VPCs {} and {} are peered", one.vpc, other.vpc);
                    (why, "renumber one of the two, or end the peering")
                } else {
                    let why =
                        format!(", and vpc {} is peered with both {} and {}", vpc.id, one.vpc, other.vpc);
                    (why, "renumber one of the two, or end one of the peerings")
                };
                problems.push(self.problem(Kind::Subnet, &other.id, format!("cidr: {what}{why}"), advice));
            }
        }
        problems
    }

    /// The subnet that was written first, then the other.
    fn by_line<'s>(&self, one: &'s Subnet, other: &'s Subnet) -> (&'s Subnet, &'s Subnet) {
        let line = |subnet: &Subnet| self.line_of(Kind::Subnet, &subnet.id);
        if line(one) <= line(other) { (one, other) } else { (other, one) }
    }

    /// EIPs whose address a subnet holds: that VPC's guests would take a public address for a neighbour's.
    fn covered_eips(&self) -> Vec<Problem> {
        let coverage = Coverage::of(self.state.subnets.values());
        let covered = self.state.eips.values().filter_map(|eip| Some((eip, coverage.find(eip.address)?)));
        covered
            .map(|(eip, subnet)| {
                let what = format!("address: {} lies in subnet {} ({})", eip.address, subnet.id, subnet.cidr);
                self.problem(Kind::Eip, &eip.id, what, "use an address outside the subnets of all VPCs")
            })
            .collect()
    }

    /// What the default profile allows: as much as the loosest of the clouds that have profiles.
    fn quotas(&self) -> Vec<Problem> {
        let mut problems = Vec::new();
        let mut vips_of: BTreeMap<&Id, usize> = BTreeMap::new();
        for vip in self.state.vips.values() {
            let owners = vip.bindings.iter().filter(|(_, rights)| rights.own);
            let mut count = 0;
            for (port, _) in owners {
                count += 1;
                *vips_of.entry(port).or_default() += 1;
            }
            if count > MAX_OWNERS_PER_VIP {
                let what = format!("{count} ports may own it; profile default allows {MAX_OWNERS_PER_VIP}");
                problems.push(self.problem(Kind::Vip, &vip.id, what, "bind fewer ports"));
            }
        }
        for (port, count) in vips_of {
            if count > MAX_VIPS_PER_PORT {
                let what = format!("it may own {count} VIPs; profile default allows {MAX_VIPS_PER_PORT}");
                problems.push(self.problem(Kind::Port, port, what, "bind it to fewer VIPs"));
            }
        }
        problems
    }

    fn problem(&self, kind: Kind, id: &Id, what: String, advice: &str) -> Problem {
        Problem {
            line: self.line_of(kind, id),
            subject: format!("{kind} {id}"),
            what,
            advice: advice.to_owned(),
        }
    }
}
