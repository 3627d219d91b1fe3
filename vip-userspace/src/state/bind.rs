//! Resolving what binds ports together: groups, VIPs, EIPs and peerings.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    Binding, Eip, EipTarget, Group, Kind, MAX_VRIDS, Port, Ref, Rights, Vip,
    document::{self, Word},
    model::Peering,
    objects::Label,
    resolve::{Resolver, Subject},
    yaml::At,
};

impl Resolver<'_> {
    /// Resolves one group.
    pub(super) fn group(
        &mut self,
        subject: Subject<'_>,
        group: Ref<Group>,
        raw: &document::Group<'_>,
    ) -> bool {
        let members = self.ports(subject, "members", &raw.members);
        let ports = members.keys().filter_map(|port| self.drafts.ports.right(*port));
        let names: BTreeSet<&str> = ports.map(|port| self.drafts.subnets.id(port.subnet)).collect();
        if names.len() > 1 {
            let names: Vec<&str> = names.into_iter().collect();
            let what = format!("its members are in several subnets: {}", names.join(", "));
            self.report.add(subject.line, subject, what, "make one group per subnet");
        }
        self.drafts.groups.set(group, Group { members: members.into_keys().collect() });
        true
    }

    /// Resolves one VIP.
    pub(super) fn vip(&mut self, subject: Subject<'_>, vip: Ref<Vip>, raw: &document::Vip<'_>) -> bool {
        let subnet = self.subnet_of(subject, &raw.subnet);
        let address = self.address(subject, "address", &raw.address);
        let vrids = self.vrids(subject, raw.vrids.as_deref().unwrap_or_default());
        if let (Some(group), Some(_)) = (&raw.group, &raw.ports) {
            let what = "it has both `group` and `ports`";
            self.report.add(group.line, subject, what, "keep one of them");
        }
        let mut bound: BTreeMap<Ref<Port>, (Rights, u32)> = BTreeMap::new();
        let owners = self.owners(subject, raw.group.as_ref(), raw.ports.as_deref().unwrap_or_default());
        for (port, line) in owners {
            bound.entry(port).or_insert((Rights::default(), line)).0.own = true;
        }
        let sources = self.ports(subject, "real_servers", raw.real_servers.as_deref().unwrap_or_default());
        for (port, line) in sources {
            bound.entry(port).or_insert((Rights::default(), line)).0.source = true;
        }
        let (Some(subnet), Some(address)) = (subnet, address) else { return false };
        let all = &mut self.drafts.bindings;
        let begin = u32::try_from(all.len()).expect("bindings of one file of less than 4 GiB");
        all.extend(bound.iter().map(|(&port, &(rights, _))| Binding { port, rights }));
        let count = u32::try_from(bound.len()).expect("bindings of one file of less than 4 GiB");
        self.drafts.vips.set(vip, Vip { subnet, address, bindings: (begin, count), vrids });
        self.place_vip(subject, raw.address.line, vip);
        for (port, (_, line)) in bound {
            let drafts = &self.drafts;
            let elsewhere = drafts.ports.right(port).map(|port| port.subnet).filter(|other| *other != subnet);
            if let Some(other) = elsewhere {
                let (port, subnets) = (drafts.ports.id(port), &drafts.subnets);
                let what = format!(
                    "port {port} is in subnet {}, the VIP in {}",
                    subnets.id(other),
                    subnets.id(subnet)
                );
                self.report.add(line, subject, what, "bind ports of the VIP's own subnet only");
            }
        }
        true
    }

    /// Ports with the right to own a VIP, each with the line that gives it.
    fn owners(
        &mut self,
        subject: Subject<'_>,
        group: Option<&Word<'_>>,
        ports: &[Word<'_>],
    ) -> BTreeMap<Ref<Port>, u32> {
        let mut owners = self.ports(subject, "ports", ports);
        if let Some(raw) = group
            && let Some(group) = self.reference::<Group>(subject, raw)
            && let Some(group) = self.drafts.groups.get(group)
        {
            owners.extend(group.members.iter().map(|member| (*member, raw.line)));
        }
        owners
    }

    /// The ports that a list names, each with its line.
    fn ports(&mut self, subject: Subject<'_>, field: &str, list: &[Word<'_>]) -> BTreeMap<Ref<Port>, u32> {
        let mut ports = BTreeMap::new();
        for raw in list {
            let Some(port) = self.reference::<Port>(subject, raw) else { continue };
            if ports.insert(port, raw.line).is_some() {
                let what = format!("{field}: port {} is listed twice", raw.value);
                self.report.add(raw.line, subject, what, "list it once");
            }
        }
        ports
    }

    fn vrids(&mut self, subject: Subject<'_>, list: &[At<u64>]) -> [u8; MAX_VRIDS] {
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
        let mut kept = [0; MAX_VRIDS];
        for (place, vrid) in kept.iter_mut().zip(vrids) {
            *place = vrid;
        }
        kept
    }

    /// Resolves one EIP.
    pub(super) fn eip(&mut self, subject: Subject<'_>, eip: Ref<Eip>, raw: &document::Eip<'_>) -> bool {
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
            (Some(vip), None) => (self.reference(subject, vip).map(EipTarget::Vip), vip.line),
            (None, Some(port)) => (self.reference(subject, port).map(EipTarget::Port), port.line),
            (Some(_), Some(port)) => {
                let what = "it has both `vip` and `port` as its target";
                self.report.add(port.line, subject, what, "keep one of them");
                return false;
            }
            (None, None) => {
                let what = "it has no target";
                self.report.add(subject.line, subject, what, "name a `vip` or a `port`");
                return false;
            }
        };
        let (Some(address), Some(target)) = (address, target) else { return false };
        self.drafts.eips.set(eip, Eip { address, target });
        self.bind_eip(subject, eip, (raw.address.line, line));
        true
    }

    /// Resolves one peering. It has no id: its VPCs name it.
    pub(super) fn peering(&mut self, At { value: raw, line }: &At<document::Peering<'_>>) {
        let line = *line;
        let names: Vec<&str> = raw.vpcs.iter().map(|vpc| &*vpc.value).collect();
        let id = names.join("+");
        let subject = Subject { kind: Kind::Peering, id: &id, line };
        let [one, other] = raw.vpcs.as_slice() else {
            let what = format!("it has {} VPCs", raw.vpcs.len());
            return self.report.add(line, subject, what, "write one peering for each pair of VPCs");
        };
        let vpcs = (self.reference(subject, one), self.reference(subject, other));
        let (Some(mut lesser), Some(mut greater)) = vpcs else { return };
        if lesser == greater {
            return self.report.add(line, subject, "it peers a VPC with itself", "name two different VPCs");
        }
        let mut names = [&*one.value, &*other.value];
        if !names.is_sorted() {
            names.reverse();
            (lesser, greater) = (greater, lesser);
        }
        let pair = names.join("+");
        let peerings = &mut self.drafts.peerings;
        let label = Label { name: raw.name.as_deref(), remark: raw.remark.as_deref() };
        if peerings.declare(&pair, line, label, Peering { vpcs: [lesser, greater] }).is_err() {
            let what = "the two VPCs are peered already";
            self.report.add(line, subject, what, "keep one of the two peerings");
        }
    }
}
