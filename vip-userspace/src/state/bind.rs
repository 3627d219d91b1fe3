//! Resolving what binds ports together: groups, VIPs, EIPs and peerings.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    Eip, EipTarget, Group, Id, Kind, Label, MAX_VRIDS, Rights, Vip, document,
    resolve::{Resolver, Subject},
    yaml::At,
};

impl Resolver<'_> {
    /// Resolves one group.
    pub(super) fn group(&mut self, subject: Subject<'_>, raw: &document::Group) {
        let members = self.ports(subject, "members", &raw.members);
        let subnets: BTreeSet<&Id> =
            members.keys().filter_map(|id| self.state.ports.get(id)).map(|port| &port.subnet).collect();
        if subnets.len() > 1 {
            let names: Vec<_> = subnets.iter().map(|id| &***id).collect();
            let what = format!("its members are in several subnets: {}", names.join(", "));
            self.report.add(subject.line, subject, what, "make one group per subnet");
        }
        let id = Id::clone(subject.id);
        self.state.groups.insert(Id::clone(&id), Group { id, members: members.into_keys().collect() });
    }

    /// Resolves one VIP.
    pub(super) fn vip(&mut self, subject: Subject<'_>, raw: &document::Vip) {
        let subnet = self.subnet_of(subject, &raw.subnet);
        let address = self.address(subject, "address", &raw.address);
        let vrids = self.vrids(subject, raw.vrids.as_deref().unwrap_or_default());
        if let (Some(group), Some(_)) = (&raw.group, &raw.ports) {
            let what = "it has both `group` and `ports`";
            self.report.add(group.line, subject, what, "keep one of them");
        }
        let mut bound: BTreeMap<Id, (Rights, u32)> = BTreeMap::new();
        let owners = self.owners(subject, raw.group.as_ref(), raw.ports.as_deref().unwrap_or_default());
        for (port, line) in owners {
            bound.entry(port).or_insert((Rights::default(), line)).0.own = true;
        }
        let sources = self.ports(subject, "real_servers", raw.real_servers.as_deref().unwrap_or_default());
        for (port, line) in sources {
            bound.entry(port).or_insert((Rights::default(), line)).0.source = true;
        }
        let (Some(subnet), Some(address)) = (subnet, address) else { return };
        self.place(subject, raw.address.line, &subnet, address);
        for (id, (_, line)) in &bound {
            let Some(port) = self.state.ports.get(id) else { continue };
            if port.subnet != subnet.id {
                let what = format!("port {id} is in subnet {}, the VIP in {}", port.subnet, subnet.id);
                self.report.add(*line, subject, what, "bind ports of the VIP's own subnet only");
            }
        }
        let vip = Vip {
            id: Id::clone(subject.id),
            subnet: subnet.id,
            vpc: subnet.vpc,
            address,
            bindings: bound.into_iter().map(|(port, (rights, _))| (port, rights)).collect(),
            vrids,
        };
        self.state.vips.insert(Id::clone(subject.id), vip);
    }

    /// Ports with the right to own a VIP, each with the line that gives it.
    fn owners(
        &mut self,
        subject: Subject<'_>,
        group: Option<&At<String>>,
        ports: &[At<String>],
    ) -> BTreeMap<Id, u32> {
        let mut owners = self.ports(subject, "ports", ports);
        if let Some(raw) = group
            && let Some(id) = self.reference(subject, Kind::Group, raw)
            && let Some(group) = self.state.groups.get(&id)
        {
            owners.extend(group.members.iter().map(|member| (Id::clone(member), raw.line)));
        }
        owners
    }

    /// The ports that a list names, each with its line.
    fn ports(&mut self, subject: Subject<'_>, field: &str, list: &[At<String>]) -> BTreeMap<Id, u32> {
        let mut ports = BTreeMap::new();
        for raw in list {
            let Some(id) = self.reference(subject, Kind::Port, raw) else { continue };
            if ports.contains_key(&id) {
                let what = format!("{field}: port {id} is listed twice");
                self.report.add(raw.line, subject, what, "list it once");
            }
            ports.insert(id, raw.line);
        }
        ports
    }

    fn vrids(&mut self, subject: Subject<'_>, list: &[At<u64>]) -> BTreeSet<u8> {
        let mut vrids = BTreeSet::new();
        if let Some(over) = list.get(MAX_VRIDS) {
            let what = format!("vrids: {} of them, but a VIP can allow {MAX_VRIDS}", list.len());
            self.report.add(over.line, subject, what, "keep those its members really use");
        }
        for &At { value, line } in list {
            let Some(vrid) = u8::try_from(value).ok().filter(|vrid| *vrid != 0) else {
                let what = format!("vrids: {value} is not a VRID");
                self.report.add(line, subject, what, "use numbers from 1 to 255");
                continue;
            };
            if !vrids.insert(vrid) {
                let what = format!("vrids: {vrid} is listed twice");
                self.report.add(line, subject, what, "list it once");
            }
        }
        vrids
    }

    /// Resolves one EIP.
    pub(super) fn eip(&mut self, subject: Subject<'_>, raw: &document::Eip) {
        if let Some(bandwidth) = &raw.bandwidth_mbps {
            let what = "bandwidth_mbps: this build does not limit bandwidth yet";
            self.report.add(bandwidth.line, subject, what, "remove the field");
        }
        let address = self.address(subject, "address", &raw.address);
        if let Some(host) = address.and_then(|address| self.host_with(address)) {
            let what = format!("address: {} is the tunnel address of host {host}", raw.address.value);
            self.report.add(raw.address.line, subject, what, "use a public address that nobody has");
        }
        let (target, line) = match (&raw.vip, &raw.port) {
            (Some(vip), None) => (self.reference(subject, Kind::Vip, vip).map(EipTarget::Vip), vip.line),
            (None, Some(port)) => (self.reference(subject, Kind::Port, port).map(EipTarget::Port), port.line),
            (Some(_), Some(port)) => {
                let what = "it has both `vip` and `port` as its target";
                return self.report.add(port.line, subject, what, "keep one of them");
            }
            (None, None) => {
                let what = "it has no target";
                return self.report.add(subject.line, subject, what, "name a `vip` or a `port`");
            }
        };
        let (Some(address), Some(target)) = (address, target) else { return };
        self.bind_eip(subject, (address, raw.address.line), (&target, line));
        let id = Id::clone(subject.id);
        self.state.eips.insert(Id::clone(&id), Eip { id, address, target });
    }

    /// Resolves one peering. It has no id: its VPCs name it.
    pub(super) fn peering(&mut self, At { value: raw, line }: At<document::Peering>) {
        let names: Vec<_> = raw.vpcs.iter().map(|vpc| vpc.value.as_str()).collect();
        let id = Id::from(names.join("+"));
        let subject = Subject { kind: Kind::Peering, id: &id, line };
        let [one, other] = raw.vpcs.as_slice() else {
            let what = format!("it has {} VPCs", raw.vpcs.len());
            return self.report.add(line, subject, what, "write one peering for each pair of VPCs");
        };
        let ids = (self.reference(subject, Kind::Vpc, one), self.reference(subject, Kind::Vpc, other));
        let (Some(one), Some(other)) = ids else { return };
        if one == other {
            return self.report.add(line, subject, "it peers a VPC with itself", "name two different VPCs");
        }
        let pair = if one < other { (one, other) } else { (other, one) };
        let (lesser, greater) = &pair;
        if let Some(vpc) = self.state.vpcs.get_mut(lesser) {
            vpc.peers.insert(Id::clone(greater));
        }
        if let Some(vpc) = self.state.vpcs.get_mut(greater) {
            vpc.peers.insert(Id::clone(lesser));
        }
        if let Some(label) = Label::of(raw.name, raw.remark) {
            self.state.labels.insert((Kind::Peering, Id::from(format!("{lesser}+{greater}"))), label);
        }
        if !self.state.peerings.insert(pair) {
            self.report.add(line, subject, "the two VPCs are peered already", "keep one of the two peerings");
        }
    }
}
