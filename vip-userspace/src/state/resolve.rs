//! From the written state to the resolved one: ids, references, and what is true of one object by itself.
//!
//! Lists are resolved in the order of their references, so each finds what it refers to. An object that is wrong
//! stays *declared*: who refers to it is not reported on top.

use std::{
    collections::{BTreeMap, HashMap},
    fmt,
    net::Ipv4Addr,
};

use super::{
    EipTarget, Host, Id, Kind, MAX_VNI, MacAddr, Port, Router, State, Subnet, Vpc,
    document::{self, Document, Object},
    error::Report,
    words::{self, Complaint},
    yaml::At,
};

/// The object that a problem is about.
#[derive(Clone, Copy)]
pub(super) struct Subject<'i> {
    pub(super) kind: Kind,
    pub(super) id: &'i Id,
    /// Line of its id.
    pub(super) line: u32,
}

impl fmt::Display for Subject<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.kind, self.id)
    }
}

/// What the lists read so far have said.
pub(super) struct Resolver<'h> {
    own_host: Option<&'h str>,
    pub(super) report: Report,
    pub(super) state: State,
    /// Each id's line, also of objects that are wrong.
    declared: BTreeMap<Kind, HashMap<Id, u32>>,
    /// Who has an address of a VPC: a port, a VIP, or a subnet as its gateway.
    addresses: HashMap<(Id, Ipv4Addr), (Kind, Id)>,
    /// Which port has a MAC of a VPC.
    macs: HashMap<(Id, MacAddr), Id>,
    /// Which port has an interface of a host.
    interfaces: HashMap<(Id, String), Id>,
    vnis: HashMap<u32, Id>,
    vteps: HashMap<Ipv4Addr, Id>,
    /// Which EIP has a public address.
    eip_addresses: HashMap<Ipv4Addr, Id>,
    /// Which EIP leads to a target.
    eip_targets: HashMap<EipTarget, Id>,
}

impl<'h> Resolver<'h> {
    /// Begins with nothing known.
    pub(super) fn new(own_host: Option<&'h str>) -> Self {
        Self {
            own_host,
            report: Report::default(),
            state: State::default(),
            declared: BTreeMap::new(),
            addresses: HashMap::new(),
            macs: HashMap::new(),
            interfaces: HashMap::new(),
            vnis: HashMap::new(),
            vteps: HashMap::new(),
            eip_addresses: HashMap::new(),
            eip_targets: HashMap::new(),
        }
    }

    /// Resolves a whole document. The state is good only if the report stays empty.
    pub(super) fn resolve(mut self, document: Document) -> (State, Report) {
        if !self.is_whole(&document) {
            return (self.state, self.report);
        }
        let Document { hosts, vpcs, subnets, ports, groups, vips, eips, peerings } = document;
        self.each(hosts, Self::host);
        self.own_host_is_listed();
        self.each(vpcs, Self::vpc);
        self.each(subnets, Self::subnet);
        self.each(ports, Self::port);
        self.each(groups, Self::group);
        self.each(vips, Self::vip);
        self.each(eips, Self::eip);
        for peering in peerings.into_iter().flatten() {
            self.peering(peering);
        }
        self.judge_together();
        (self.state, self.report)
    }

    /// Whether nothing is missing that a whole document has.
    fn is_whole(&mut self, document: &Document) -> bool {
        let required = [
            (Kind::Host, document.hosts.is_some()),
            (Kind::Vpc, document.vpcs.is_some()),
            (Kind::Subnet, document.subnets.is_some()),
            (Kind::Port, document.ports.is_some()),
        ];
        let missing: Vec<_> = required
            .iter()
            .filter(|(_, there)| !there)
            .map(|(kind, _)| format!("`{}`", kind.list()))
            .collect();
        let what = if missing.len() == required.len() {
            "it is empty".to_owned()
        } else if !missing.is_empty() {
            format!("{} is missing, as in a file that was cut off", missing.join(", "))
        } else if document.hosts.as_ref().is_some_and(Vec::is_empty) {
            "`hosts` is empty, and without a host nothing forwards".to_owned()
        } else {
            return true;
        };
        self.report.add(
            None,
            "document",
            format!("{what}: refused, never read as a wish to delete everything"),
            "write `hosts` with at least one host, and `vpcs`, `subnets` and `ports`, as `[]` where there are none",
        );
        false
    }

    /// Declares and resolves the objects of one list.
    fn each<T: Object>(&mut self, list: Option<Vec<At<T>>>, resolve: fn(&mut Self, Subject<'_>, &T)) {
        for At { value: mut object, .. } in list.into_iter().flatten() {
            let (id, line) = (Id::from(object.id().value.as_str()), object.id().line);
            let subject = Subject { kind: T::KIND, id: &id, line };
            if let Err(complaint) = words::judge_id(&id) {
                self.complain(line, subject, "id", complaint);
            }
            let declared = self.declared.entry(T::KIND).or_default();
            if let Some(first) = declared.get(&id) {
                let what = format!("the id is used in line {first} already");
                self.report.add(line, subject, what, "give each object of a kind its own id");
                continue;
            }
            declared.insert(Id::clone(&id), line);
            if let Some(label) = object.take_label() {
                self.state.labels.insert((T::KIND, Id::clone(&id)), label);
            }
            resolve(self, subject, &object);
        }
    }

    fn own_host_is_listed(&mut self) {
        let Some(own) = self.own_host else { return };
        if self.line_of(Kind::Host, own).is_none() {
            let what = "this host is not listed under `hosts`";
            self.report.add(None, format!("host {own}"), what, "list it, or correct the host's own id");
        }
    }

    fn host(&mut self, subject: Subject<'_>, raw: &document::Host) {
        let Some(vtep) = self.address(subject, "vtep", &raw.vtep) else { return };
        let id = Id::clone(subject.id);
        if let Some(other) = self.vteps.insert(vtep, Id::clone(&id)) {
            let what = format!("vtep: {vtep} is that of host {other} already");
            self.report.add(raw.vtep.line, subject, what, "give each host its own tunnel address");
        }
        self.state.hosts.insert(Id::clone(&id), Host { id, vtep });
    }

    fn vpc(&mut self, subject: Subject<'_>, raw: &document::Vpc) {
        let At { value, line } = raw.vni;
        let Some(vni) = u32::try_from(value).ok().filter(|vni| (1..=MAX_VNI).contains(vni)) else {
            let what = format!("vni: {value} is not a VNI");
            self.report.add(line, subject, what, format!("use a number from 1 to {MAX_VNI}"));
            return;
        };
        let id = Id::clone(subject.id);
        if let Some(other) = self.vnis.insert(vni, Id::clone(&id)) {
            let what = format!("vni: {vni} is that of vpc {other} already");
            self.report.add(line, subject, what, "give each VPC its own number");
        }
        self.state.vpcs.insert(Id::clone(&id), Vpc { id, vni, peers: [].into() });
    }

    fn subnet(&mut self, subject: Subject<'_>, raw: &document::Subnet) {
        let vpc = self.reference(subject, Kind::Vpc, &raw.vpc);
        let gateway = self.address(subject, "gateway", &raw.gateway);
        let router = self.router(subject, raw.router.as_ref());
        let cidr = match words::read_cidr(&raw.cidr.value) {
            Ok(cidr) => cidr,
            Err(complaint) => return self.complain(raw.cidr.line, subject, "cidr", complaint),
        };
        let Some(gateway) = gateway else { return };
        if let Err(complaint) = words::judge_place(gateway, cidr, &subject.to_string()) {
            self.complain(raw.gateway.line, subject, "gateway", complaint);
        }
        let (Some(vpc), Some(router)) = (vpc, router) else { return };
        self.hold(subject, "gateway", raw.gateway.line, &vpc, gateway);
        let id = Id::clone(subject.id);
        self.state.subnets.insert(Id::clone(&id), Subnet { id, vpc, cidr, gateway, router });
    }

    fn router(&mut self, subject: Subject<'_>, raw: Option<&At<String>>) -> Option<Router> {
        let Some(At { value, line }) = raw else { return Some(Router::Vip) };
        match value.as_str() {
            "vip" => Some(Router::Vip),
            "external" => Some(Router::External),
            other => {
                let what = format!("router: `{}` is unknown", other.escape_debug());
                self.report.add(*line, subject, what, "write vip or external");
                None
            }
        }
    }

    fn port(&mut self, subject: Subject<'_>, raw: &document::Port) {
        if let Some(vlan) = &raw.vlan {
            let what = "vlan: this build does not tag VLANs yet";
            self.report.add(vlan.line, subject, what, "remove the field");
        }
        let subnet = self.subnet_of(subject, &raw.subnet);
        let address = self.address(subject, "address", &raw.address);
        let mac = self.mac(subject, &raw.mac);
        let host = self.reference(subject, Kind::Host, &raw.host);
        if let Err(complaint) = words::judge_interface(&raw.interface.value) {
            self.complain(raw.interface.line, subject, "interface", complaint);
        }
        if let Some(host) = &host {
            self.attach(subject, host, raw.host.line, &raw.interface);
        }
        let (Some(subnet), Some(mac), Some(host)) = (subnet, mac, host) else { return };
        if let Some(other) = self.macs.insert((Id::clone(&subnet.vpc), mac), Id::clone(subject.id)) {
            let what = format!("mac: {mac} is that of port {other} in the same VPC already");
            self.report.add(raw.mac.line, subject, what, "give each port of a VPC its own MAC");
        }
        let Some(address) = address else { return };
        self.place(subject, raw.address.line, &subnet, address);
        let Subnet { id, vpc, .. } = subnet;
        let port = Port {
            id: Id::clone(subject.id),
            subnet: id,
            vpc,
            address,
            mac,
            host,
            interface: raw.interface.value.clone(),
            source_dest_check: raw.source_dest_check.unwrap_or(true),
        };
        self.state.ports.insert(Id::clone(subject.id), port);
    }

    /// Notes a port's interface, and judges the host it is on.
    fn attach(&mut self, subject: Subject<'_>, host: &Id, host_line: u32, interface: &At<String>) {
        if self.own_host.is_some_and(|own| own != &**host) {
            let what = format!("host: it lives on host {host}: this build forwards on one host only");
            self.report.add(host_line, subject, what, "leave the port out, or move it to this host");
        }
        let key = (Id::clone(host), interface.value.clone());
        if let Some(other) = self.interfaces.insert(key, Id::clone(subject.id)) {
            let what =
                format!("interface: `{}` of host {host} is that of port {other} already", interface.value);
            self.report.add(interface.line, subject, what, "give each port of a host its own interface");
        }
    }

    fn mac(&mut self, subject: Subject<'_>, raw: &At<String>) -> Option<MacAddr> {
        let judged = match raw.value.parse::<MacAddr>() {
            Err(error) => Err((format!("`{}` is {error}", raw.value.escape_debug()), "correct it")),
            Ok(mac) if mac.is_zero() || mac.is_multicast() => {
                Err((format!("no station sends from {mac}"), "use the guest NIC's own unicast MAC"))
            }
            Ok(mac) if mac.is_constant_range() => Err((
                format!(
                    "06:56:… are the MACs by which VIPs and gateways are answered for, so {mac} is not free"
                ),
                "give the guest's NIC another MAC",
            )),
            Ok(mac) if mac.is_vrrp_virtual() => Err((
                format!("{mac} is a virtual router's MAC and no NIC's own"),
                "write the NIC's own MAC, and allow the virtual one by the VIP's `vrids`",
            )),
            Ok(mac) => Ok(mac),
        };
        match judged {
            Ok(mac) => Some(mac),
            Err((what, advice)) => {
                self.complain(raw.line, subject, "mac", (what, advice.to_owned()));
                None
            }
        }
    }

    /// Reads an address, or notes what is wrong with it.
    pub(super) fn address(
        &mut self,
        subject: Subject<'_>,
        field: &str,
        raw: &At<String>,
    ) -> Option<Ipv4Addr> {
        match words::read_address(&raw.value) {
            Ok(address) => Some(address),
            Err(complaint) => {
                self.complain(raw.line, subject, field, complaint);
                None
            }
        }
    }

    /// Judges the place of a port's or VIP's address in its subnet, and takes the address.
    pub(super) fn place(&mut self, subject: Subject<'_>, line: u32, subnet: &Subnet, address: Ipv4Addr) {
        if let Err(complaint) = words::judge_place(address, subnet.cidr, &format!("subnet {}", subnet.id)) {
            self.complain(line, subject, "address", complaint);
        }
        self.hold(subject, "address", line, &subnet.vpc, address);
    }

    /// Takes an address of a VPC for one object.
    fn hold(&mut self, subject: Subject<'_>, field: &str, line: u32, vpc: &Id, address: Ipv4Addr) {
        let holder = (subject.kind, Id::clone(subject.id));
        let Some((kind, other)) = self.addresses.insert((Id::clone(vpc), address), holder) else { return };
        let whose = if kind == Kind::Subnet { "the gateway" } else { "that" };
        let what = format!("{field}: {address} is {whose} of {kind} {other} in the same VPC already");
        self.report.add(line, subject, what, "give each port, VIP and gateway of a VPC its own address");
    }

    /// The id that is meant, if there is such an object, be it right or wrong.
    pub(super) fn reference(&mut self, subject: Subject<'_>, kind: Kind, raw: &At<String>) -> Option<Id> {
        let known = self.declared.get(&kind).and_then(|ids| ids.get_key_value(raw.value.as_str()));
        if let Some((id, _)) = known {
            return Some(Id::clone(id));
        }
        let what = format!("there is no {kind} `{}`", raw.value.escape_debug());
        let advice = format!("add it to `{}` or correct the name", kind.list());
        self.report.add(raw.line, subject, what, advice);
        None
    }

    /// The subnet that is meant; none where there is none or where it is wrong itself.
    pub(super) fn subnet_of(&mut self, subject: Subject<'_>, raw: &At<String>) -> Option<Subnet> {
        let id = self.reference(subject, Kind::Subnet, raw)?;
        self.state.subnets.get(&id).cloned()
    }

    /// The line of an object's id.
    pub(super) fn line_of(&self, kind: Kind, id: &str) -> Option<u32> {
        self.declared.get(&kind)?.get(id).copied()
    }

    /// Which host has a tunnel address.
    pub(super) fn host_with(&self, vtep: Ipv4Addr) -> Option<&Id> {
        self.vteps.get(&vtep)
    }

    /// Takes a public address and a target for one EIP.
    pub(super) fn bind_eip(
        &mut self,
        subject: Subject<'_>,
        (address, address_line): (Ipv4Addr, u32),
        (target, target_line): (&EipTarget, u32),
    ) {
        if let Some(other) = self.eip_addresses.insert(address, Id::clone(subject.id)) {
            let what = format!("address: {address} is that of eip {other} already");
            self.report.add(address_line, subject, what, "give each EIP its own address");
        }
        if let Some(other) = self.eip_targets.insert(target.clone(), Id::clone(subject.id)) {
            let (kind, id) = match target {
                EipTarget::Vip(id) => (Kind::Vip, id),
                EipTarget::Port(id) => (Kind::Port, id),
            };
            let what = format!("{kind}: eip {other} leads to {kind} {id} already");
            self.report.add(target_line, subject, what, "bind one EIP to each VIP or port");
        }
    }

    /// Notes what is wrong with a field.
    pub(super) fn complain(
        &mut self,
        line: u32,
        subject: Subject<'_>,
        field: &str,
        (what, advice): Complaint,
    ) {
        self.report.add(line, subject, format!("{field}: {what}"), advice);
    }
}
