//! From the written state to the resolved one: ids, references, and what is true of one object by itself.
//!
//! Lists are resolved in the order of their references, so each finds what it refers to. An object that is wrong
//! stays *declared*: who refers to it is not reported on top.

use std::{fmt, net::Ipv4Addr};

use ipnetwork::Ipv4Network;

use super::{
    Binding, Eip, EipTarget, Group, Host, Kind, MAX_VNI, MacAddr, Port, Ref, Router, State, Subnet, Vip, Vpc,
    document::{self, Lists, Object, Word},
    draft::{Draft, Unique},
    error::Report,
    model::Peering,
    names::Names,
    rules::Judge,
    words::{self, Complaint},
    yaml::At,
};
use crate::vlan::Vlan;

/// The object that a problem is about.
#[derive(Clone, Copy)]
pub(super) struct Subject<'i> {
    pub(super) kind: Kind,
    pub(super) id: &'i str,
    /// Line of its id.
    pub(super) line: u32,
}

impl fmt::Display for Subject<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.kind, self.id)
    }
}

/// The objects so far, by kind. A reference is a place in the file's order.
#[derive(Debug, Default)]
pub(super) struct Drafts {
    pub(super) hosts: Draft<Host>,
    pub(super) vpcs: Draft<Vpc>,
    pub(super) subnets: Draft<Subnet>,
    pub(super) ports: Draft<Port>,
    pub(super) groups: Draft<Group>,
    pub(super) vips: Draft<Vip>,
    pub(super) eips: Draft<Eip>,
    pub(super) peerings: Draft<Peering>,
    /// Of the ports.
    pub(super) interfaces: Names,
    /// Of the VIPs.
    pub(super) bindings: Vec<Binding>,
}

/// A kind of object that can be declared.
pub(super) trait Drafted: Sized {
    /// Which kind it is.
    const KIND: Kind;

    /// What stands for an object of which nothing is known.
    fn blank() -> Self;

    fn of(drafts: &Drafts) -> &Draft<Self>;

    fn of_mut(drafts: &mut Drafts) -> &mut Draft<Self>;
}

macro_rules! drafted {
    ($($kind:ident, $list:ident, $blank:expr;)*) => {$(
        impl Drafted for $kind {
            const KIND: Kind = Kind::$kind;

            fn blank() -> Self {
                $blank
            }

            fn of(drafts: &Drafts) -> &Draft<Self> {
                &drafts.$list
            }

            fn of_mut(drafts: &mut Drafts) -> &mut Draft<Self> {
                &mut drafts.$list
            }
        }
    )*};
}

/// The address of what has none.
const NOWHERE: Ipv4Addr = Ipv4Addr::UNSPECIFIED;

drafted! {
    Host, hosts, Self { vtep: NOWHERE };
    Vpc, vpcs, Self::default();
    Subnet, subnets, Self {
        vpc: Ref::default(), cidr: Ipv4Network::from(NOWHERE), gateway: NOWHERE, router: Router::Vip
    };
    Port, ports, Self {
        subnet: Ref::default(),
        host: Ref::default(),
        address: NOWHERE,
        mac: MacAddr::new([0; 6]),
        vlan: None,
        source_dest_check: true,
    };
    Group, groups, Self::default();
    Vip, vips, Self { subnet: Ref::default(), address: NOWHERE, bindings: (0, 0), vrids: [0; 4] };
    Eip, eips, Self { address: NOWHERE, target: EipTarget::Port(Ref::default()) };
}

/// Who has an address of a VPC: a port, a VIP, or a subnet as its gateway. In one word: the kind stands in the highest bits.
#[derive(Clone, Copy)]
enum Holder {
    Port(Ref<Port>),
    Vip(Ref<Vip>),
    Gateway(Ref<Subnet>),
}

impl Holder {
    const VIP: u32 = 1 << 30;
    const GATEWAY: u32 = 1 << 31;

    fn number(self) -> u32 {
        match self {
            Self::Port(port) => port.index(),
            Self::Vip(vip) => vip.index() | Self::VIP,
            Self::Gateway(subnet) => subnet.index() | Self::GATEWAY,
        }
    }

    fn of(number: u32) -> Self {
        if number & Self::GATEWAY != 0 {
            Self::Gateway(Ref::at(number & !Self::GATEWAY))
        } else if number & Self::VIP != 0 {
            Self::Vip(Ref::at(number & !Self::VIP))
        } else {
            Self::Port(Ref::at(number))
        }
    }
}

impl Drafts {
    fn vpc_of(&self, subnet: Ref<Subnet>) -> u32 {
        self.subnets.get(subnet).map_or(0, |subnet| subnet.vpc.index())
    }

    /// The VPC and the address that somebody has.
    fn held(&self, number: u32) -> (u32, Ipv4Addr) {
        match Holder::of(number) {
            Holder::Port(port) => {
                self.ports.get(port).map_or((0, NOWHERE), |port| (self.vpc_of(port.subnet), port.address))
            }
            Holder::Vip(vip) => {
                self.vips.get(vip).map_or((0, NOWHERE), |vip| (self.vpc_of(vip.subnet), vip.address))
            }
            Holder::Gateway(subnet) => {
                (self.vpc_of(subnet), self.subnets.get(subnet).map_or(NOWHERE, |subnet| subnet.gateway))
            }
        }
    }

    /// The VPC and the MAC of a port.
    fn mac(&self, number: u32) -> (u32, [u8; 6]) {
        self.ports
            .get(Ref::at(number))
            .map_or((0, [0; 6]), |port| (self.vpc_of(port.subnet), port.mac.octets()))
    }

    /// The host, the interface and the VLAN of a port.
    fn interface(&self, number: u32) -> (u32, &str, Option<Vlan>) {
        let port = self.ports.get(Ref::at(number));
        let (host, vlan) = port.map_or((0, None), |port| (port.host.index(), port.vlan));
        (host, self.interfaces.get(number), vlan)
    }
}

/// What the lists read so far have said.
pub(super) struct Resolver<'h> {
    own_host: Option<&'h str>,
    pub(super) report: Report,
    pub(super) drafts: Drafts,
    /// Who has an address of a VPC; see [`Holder`].
    addresses: Unique,
    /// Which port has a MAC of a VPC.
    macs: Unique,
    /// Which port has an interface of a host.
    interfaces: Unique,
    /// Which VPC has a number.
    vnis: Unique,
    /// Which host has a tunnel address.
    vteps: Unique,
    /// Which EIP has a public address.
    eip_addresses: Unique,
    /// Which EIP leads to a target.
    eip_targets: Unique,
}

impl<'h> Resolver<'h> {
    /// Begins with nothing known.
    pub(super) fn new(own_host: Option<&'h str>) -> Self {
        Self {
            own_host,
            report: Report::default(),
            drafts: Drafts::default(),
            addresses: Unique::default(),
            macs: Unique::default(),
            interfaces: Unique::default(),
            vnis: Unique::default(),
            vteps: Unique::default(),
            eip_addresses: Unique::default(),
            eip_targets: Unique::default(),
        }
    }

    /// Resolves a whole document. The state is good only if the report stays empty.
    pub(super) fn resolve<'t, L: Lists<'t>>(mut self, lists: &mut L) -> Result<(State, Report), L::Error> {
        if !self.has_all_lists(lists) {
            return Ok((State::default(), self.report));
        }
        self.each(lists, Self::host)?;
        if self.drafts.hosts.len() == 0 {
            self.refuse_whole("`hosts` is empty, and without a host nothing forwards");
            return Ok((State::default(), self.report));
        }
        self.own_host_is_listed();
        self.each(lists, Self::vpc)?;
        self.each(lists, Self::subnet)?;
        self.each(lists, Self::port)?;
        // What is known of all ports gives its memory back: a million more objects may follow.
        self.macs = Unique::default();
        self.interfaces = Unique::default();
        self.each(lists, Self::group)?;
        self.each(lists, Self::vip)?;
        self.addresses = Unique::default();
        self.each(lists, Self::eip)?;
        self.eip_addresses = Unique::default();
        self.eip_targets = Unique::default();
        lists.each(|peering| self.peering(&peering))?;
        let (state, abouts) = self.drafts.finish();
        Judge::new(&state, &abouts).judge(&mut self.report);
        Ok((state, self.report))
    }

    /// Whether nothing is missing that a whole document has.
    fn has_all_lists<'t>(&mut self, lists: &impl Lists<'t>) -> bool {
        let required = [Kind::Host, Kind::Vpc, Kind::Subnet, Kind::Port];
        let missing: Vec<_> = required
            .iter()
            .filter(|kind| !lists.has(**kind))
            .map(|kind| format!("`{}`", kind.list()))
            .collect();
        if missing.len() == required.len() {
            self.refuse_whole("it is empty");
        } else if !missing.is_empty() {
            self.refuse_whole(&format!("{} is missing, as in a file that was cut off", missing.join(", ")));
        }
        missing.is_empty()
    }

    fn refuse_whole(&mut self, what: &str) {
        self.report.add(
            None,
            "document",
            format!("{what}: refused, never read as a wish to delete everything"),
            "write `hosts` with at least one host, and `vpcs`, `subnets` and `ports`, as `[]` where there are none",
        );
    }

    /// Declares and resolves the objects of one list. `resolve` says whether an object is right in itself.
    fn each<'t, L: Lists<'t>, T: Object<'t>, K: Drafted>(
        &mut self,
        lists: &mut L,
        resolve: fn(&mut Self, Subject<'_>, Ref<K>, &T) -> bool,
    ) -> Result<(), L::Error> {
        lists.each(|At { value: object, .. }: At<T>| {
            let At { value: id, line } = object.id();
            let (id, line) = (&**id, *line);
            let subject = Subject { kind: T::KIND, id, line };
            if let Err(complaint) = words::judge_id(id) {
                self.complain(line, subject, "id", complaint);
            }
            let drafts = K::of_mut(&mut self.drafts);
            let declared = match drafts.declare(id, line, object.label(), K::blank()) {
                Ok(declared) => declared,
                Err(first) => {
                    let what = format!("the id is used in line {} already", drafts.line(first));
                    return self.report.add(line, subject, what, "give each object of a kind its own id");
                }
            };
            if !resolve(self, subject, declared, &object) {
                K::of_mut(&mut self.drafts).last_is_wrong();
            }
        })
    }

    fn own_host_is_listed(&mut self) {
        let Some(own) = self.own_host else { return };
        if self.drafts.hosts.find(own).is_none() {
            let what = "this host is not listed under `hosts`";
            self.report.add(None, format!("host {own}"), what, "list it, or correct the host's own id");
        }
    }

    fn host(&mut self, subject: Subject<'_>, host: Ref<Host>, raw: &document::Host<'_>) -> bool {
        let Some(vtep) = self.address(subject, "vtep", &raw.vtep) else { return false };
        let hosts = &mut self.drafts.hosts;
        hosts.set(host, Host { vtep });
        let vtep_of = |number| hosts.get(Ref::at(number)).map_or(NOWHERE, |host| host.vtep);
        if let Some(other) = self.vteps.put(&vtep, host.index(), vtep_of) {
            let what = format!("vtep: {vtep} is that of host {} already", hosts.id(Ref::at(other)));
            self.report.add(raw.vtep.line, subject, what, "give each host its own tunnel address");
        }
        true
    }

    fn vpc(&mut self, subject: Subject<'_>, vpc: Ref<Vpc>, raw: &document::Vpc<'_>) -> bool {
        let At { value, line } = raw.vni;
        let Some(vni) = u32::try_from(value).ok().filter(|vni| (1..=MAX_VNI).contains(vni)) else {
            let what = format!("vni: {value} is not a VNI");
            self.report.add(line, subject, what, format!("use a number from 1 to {MAX_VNI}"));
            return false;
        };
        let vpcs = &mut self.drafts.vpcs;
        vpcs.set(vpc, Vpc { vni, peers: Vec::new() });
        let vni_of = |number| vpcs.get(Ref::at(number)).map_or(0, |vpc| vpc.vni);
        if let Some(other) = self.vnis.put(&vni, vpc.index(), vni_of) {
            let what = format!("vni: {vni} is that of vpc {} already", vpcs.id(Ref::at(other)));
            self.report.add(line, subject, what, "give each VPC its own number");
        }
        true
    }

    fn subnet(&mut self, subject: Subject<'_>, subnet: Ref<Subnet>, raw: &document::Subnet<'_>) -> bool {
        let vpc = self.reference(subject, &raw.vpc);
        let gateway = self.address(subject, "gateway", &raw.gateway);
        let router = self.router(subject, raw.router.as_ref());
        let cidr = match words::read_cidr(&raw.cidr.value) {
            Ok(cidr) => cidr,
            Err(complaint) => {
                self.complain(raw.cidr.line, subject, "cidr", complaint);
                return false;
            }
        };
        let Some(gateway) = gateway else { return false };
        if let Err(complaint) = words::judge_place(gateway, cidr, || subject.to_string()) {
            self.complain(raw.gateway.line, subject, "gateway", complaint);
        }
        let (Some(vpc), Some(router)) = (vpc, router) else { return false };
        self.drafts.subnets.set(subnet, Subnet { vpc, cidr, gateway, router });
        self.hold(subject, "gateway", raw.gateway.line, Holder::Gateway(subnet));
        true
    }

    fn router(&mut self, subject: Subject<'_>, raw: Option<&Word<'_>>) -> Option<Router> {
        let Some(At { value, line }) = raw else { return Some(Router::Vip) };
        match &**value {
            "vip" => Some(Router::Vip),
            "external" => Some(Router::External),
            other => {
                let what = format!("router: `{}` is unknown", other.escape_debug());
                self.report.add(*line, subject, what, "write vip or external");
                None
            }
        }
    }

    fn port(&mut self, subject: Subject<'_>, port: Ref<Port>, raw: &document::Port<'_>) -> bool {
        let vlan =
            raw.vlan.as_ref().map(|vlan| Vlan::read(&vlan.value).map_err(|complaint| (vlan.line, complaint)));
        let vlan = match vlan.transpose() {
            Ok(vlan) => Some(vlan),
            Err((line, complaint)) => {
                self.complain(line, subject, "vlan", complaint);
                None
            }
        };
        let subnet = self.subnet_of(subject, &raw.subnet);
        let address = self.address(subject, "address", &raw.address);
        let mac = self.mac(subject, &raw.mac);
        let host = self.reference(subject, &raw.host);
        if let Err(complaint) = words::judge_interface(&raw.interface.value) {
            self.complain(raw.interface.line, subject, "interface", complaint);
        }
        self.drafts.interfaces.push(&raw.interface.value);
        let blank = Port::blank();
        // Also of a port that is wrong, what is right of it counts below.
        let known = Port {
            subnet: subnet.unwrap_or(blank.subnet),
            host: host.unwrap_or(blank.host),
            address: address.unwrap_or(blank.address),
            mac: mac.unwrap_or(blank.mac),
            vlan: vlan.flatten(),
            source_dest_check: raw.source_dest_check.unwrap_or(true),
        };
        self.drafts.ports.set(port, known);
        if let (Some(host), Some(vlan)) = (host, vlan) {
            self.attach(subject, (port, host), (&raw.interface, vlan));
        }
        let (Some(subnet), Some(mac), Some(_), Some(_)) = (subnet, mac, host, vlan) else { return false };
        let drafts = &self.drafts;
        let of = |number| drafts.mac(number);
        if let Some(other) = self.macs.put(&of(port.index()), port.index(), of) {
            let other = drafts.ports.id(Ref::at(other));
            let what = format!("mac: {mac} is that of port {other} in the same VPC already");
            self.report.add(raw.mac.line, subject, what, "give each port of a VPC its own MAC");
        }
        let Some(address) = address else { return false };
        self.place(subject, raw.address.line, subnet, (address, Holder::Port(port)));
        true
    }

    /// Takes an interface of a host, or a VLAN on it, for one port.
    fn attach(
        &mut self,
        subject: Subject<'_>,
        (port, host): (Ref<Port>, Ref<Host>),
        (interface, vlan): (&Word<'_>, Option<Vlan>),
    ) {
        let drafts = &self.drafts;
        let host = drafts.hosts.id(host);
        let of = |number| drafts.interface(number);
        if let Some(other) = self.interfaces.put(&of(port.index()), port.index(), of) {
            let other = drafts.ports.id(Ref::at(other));
            let name = &interface.value;
            let (what, advice) = match vlan {
                None => (
                    format!("interface: `{name}` of host {host} is that of port {other} already"),
                    "give each port of a host its own interface",
                ),
                Some(vlan) => (
                    format!("vlan: {vlan} on `{name}` of host {host} is that of port {other} already"),
                    "give each port on an interface its own VLAN",
                ),
            };
            self.report.add(interface.line, subject, what, advice);
        }
    }

    fn mac(&mut self, subject: Subject<'_>, raw: &Word<'_>) -> Option<MacAddr> {
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
    pub(super) fn address(&mut self, subject: Subject<'_>, field: &str, raw: &Word<'_>) -> Option<Ipv4Addr> {
        match words::read_address(&raw.value) {
            Ok(address) => Some(address),
            Err(complaint) => {
                self.complain(raw.line, subject, field, complaint);
                None
            }
        }
    }

    /// Judges the place of a port's or VIP's address in its subnet, and takes the address.
    fn place(
        &mut self,
        subject: Subject<'_>,
        line: u32,
        subnet: Ref<Subnet>,
        (address, holder): (Ipv4Addr, Holder),
    ) {
        let subnets = &self.drafts.subnets;
        let Some(Subnet { cidr, .. }) = subnets.get(subnet) else { return };
        let judged = words::judge_place(address, *cidr, || format!("subnet {}", subnets.id(subnet)));
        if let Err(complaint) = judged {
            self.complain(line, subject, "address", complaint);
        }
        self.hold(subject, "address", line, holder);
    }

    /// As [`Self::place`], of a VIP.
    pub(super) fn place_vip(&mut self, subject: Subject<'_>, line: u32, vip: Ref<Vip>) {
        let Some(&Vip { subnet, address, .. }) = self.drafts.vips.get(vip) else { return };
        self.place(subject, line, subnet, (address, Holder::Vip(vip)));
    }

    /// Takes an address of a VPC for one object.
    fn hold(&mut self, subject: Subject<'_>, field: &str, line: u32, holder: Holder) {
        let drafts = &self.drafts;
        let of = |number| drafts.held(number);
        let held = of(holder.number());
        let Some(other) = self.addresses.put(&held, holder.number(), of) else { return };
        let (whose, kind, other) = match Holder::of(other) {
            Holder::Port(port) => ("that", Kind::Port, drafts.ports.id(port)),
            Holder::Vip(vip) => ("that", Kind::Vip, drafts.vips.id(vip)),
            Holder::Gateway(subnet) => ("the gateway", Kind::Subnet, drafts.subnets.id(subnet)),
        };
        let (_, address) = held;
        let what = format!("{field}: {address} is {whose} of {kind} {other} in the same VPC already");
        self.report.add(line, subject, what, "give each port, VIP and gateway of a VPC its own address");
    }

    /// The object that is meant, if there is such a one, be it right or wrong.
    pub(super) fn reference<K: Drafted>(&mut self, subject: Subject<'_>, raw: &Word<'_>) -> Option<Ref<K>> {
        let known = K::of(&self.drafts).find(&raw.value);
        if known.is_none() {
            let what = format!("there is no {} `{}`", K::KIND, raw.value.escape_debug());
            let advice = format!("add it to `{}` or correct the name", K::KIND.list());
            self.report.add(raw.line, subject, what, advice);
        }
        known
    }

    /// The subnet that is meant; none where there is none or where it is wrong itself.
    pub(super) fn subnet_of(&mut self, subject: Subject<'_>, raw: &Word<'_>) -> Option<Ref<Subnet>> {
        let subnet = self.reference(subject, raw)?;
        self.drafts.subnets.right(subnet).map(|_| subnet)
    }

    /// Which host has a tunnel address.
    pub(super) fn host_with(&self, vtep: Ipv4Addr) -> Option<&str> {
        let hosts = &self.drafts.hosts;
        let vtep_of = |number| hosts.get(Ref::at(number)).map_or(NOWHERE, |host| host.vtep);
        self.vteps.find(&vtep, vtep_of).map(|number| hosts.id(Ref::at(number)))
    }

    /// Takes a public address and a target for one EIP, which is set already.
    pub(super) fn bind_eip(
        &mut self,
        subject: Subject<'_>,
        eip: Ref<Eip>,
        (address_line, target_line): (u32, u32),
    ) {
        let Self { drafts: Drafts { eips, ports, vips, .. }, eip_addresses, eip_targets, report, .. } = self;
        let Some(&Eip { address, target }) = eips.get(eip) else { return };
        let address_of = |number| eips.get(Ref::at(number)).map_or(NOWHERE, |eip| eip.address);
        if let Some(other) = eip_addresses.put(&address, eip.index(), address_of) {
            let what = format!("address: {address} is that of eip {} already", eips.id(Ref::at(other)));
            report.add(address_line, subject, what, "give each EIP its own address");
        }
        let target_of = |number| eips.get(Ref::at(number)).map(|eip| eip.target);
        if let Some(other) = eip_targets.put(&Some(target), eip.index(), target_of) {
            let (kind, id) = match target {
                EipTarget::Vip(vip) => (Kind::Vip, vips.id(vip)),
                EipTarget::Port(port) => (Kind::Port, ports.id(port)),
            };
            let what = format!("{kind}: eip {} leads to {kind} {id} already", eips.id(Ref::at(other)));
            report.add(target_line, subject, what, "bind one EIP to each VIP or port");
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
