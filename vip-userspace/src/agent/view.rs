//! The objects as the operator sees them.

use std::{cell::RefCell, collections::BTreeMap};

use vip_common::{
    tables::{AddressKind, Move, OwnerWord, Traffic, Way},
    wire::Mac,
};

use super::{
    error::chain,
    shared::{Published, Shared},
};
use crate::{
    api::{
        Source, Timestamp, Unavailable,
        model::{
            EipView, HostView, MoveView, OwnerView, PortBinding, PortView, Right, RouterView, SubnetView,
            VipBinding, VipState, VipView, VpcView,
        },
        status::StatusView,
    },
    kernel::KernelError,
    net::BootClock,
    state::{Eip, EipTarget, Id, Kind, MacAddr, Port, Rights, Router, State, Subnet, Vip, Vpc},
};

/// The objects of a list that are asked for.
fn chosen<'a, T>(all: &'a BTreeMap<Id, T>, id: Option<&str>) -> Vec<&'a T> {
    match id {
        Some(id) => all.get(id).into_iter().collect(),
        None => all.values().collect(),
    }
}

/// Name and remark of an object.
fn words(state: &State, kind: Kind, id: &Id) -> (Option<String>, Option<String>) {
    state.label(kind, id).map_or((None, None), |label| (label.name.clone(), label.remark.clone()))
}

fn rights(of: Rights) -> Vec<Right> {
    [(of.own, Right::Own), (of.source, Right::Source)]
        .into_iter()
        .filter_map(|(set, right)| set.then_some(right))
        .collect()
}

fn strings<'a>(ids: impl IntoIterator<Item = &'a Id>) -> Vec<String> {
    ids.into_iter().map(ToString::to_string).collect()
}

/// One look at the published facts, for the whole of an answer.
struct View<'a> {
    shared: &'a Shared,
    facts: &'a Published,
    state: &'a State,
    /// Why something could not be read, if so: the answer is worth nothing then.
    unread: RefCell<Option<String>>,
    clock: Option<BootClock>,
    /// The EIPs by what they lead to.
    eips: BTreeMap<&'a EipTarget, &'a Id>,
    /// What each port is bound to.
    bound: BTreeMap<&'a Id, Vec<(&'a Vip, Rights)>>,
}

impl<'a> View<'a> {
    fn of(shared: &'a Shared, facts: &'a Published) -> Result<Self, Unavailable> {
        let Some(state) = facts.state.as_deref() else {
            let reason = facts.sync.error.clone().unwrap_or_else(|| "it was not looked for yet".to_owned());
            return Err(Unavailable::NoState { reason });
        };
        let eips = state.eips.values().map(|eip| (&eip.target, &eip.id)).collect();
        let mut bound: BTreeMap<&Id, Vec<(&Vip, Rights)>> = BTreeMap::new();
        for vip in state.vips.values() {
            for (port, rights) in &vip.bindings {
                bound.entry(port).or_default().push((vip, *rights));
            }
        }
        let (clock, unread) = (BootClock::now().ok(), RefCell::default());
        Ok(Self { shared, facts, state, unread, clock, eips, bound })
    }

    fn state(&self) -> &'a State {
        self.state
    }

    /// What was read; `None`, and no answer in the end, if it could not be.
    fn read<T>(&self, result: Result<T, KernelError>) -> Option<T> {
        result.map_err(|error| *self.unread.borrow_mut() = Some(chain(&error))).ok()
    }

    /// The answer, if all that it was made of could be read.
    fn answer<T>(&self, answer: T) -> Result<T, Unavailable> {
        self.unread.take().map_or(Ok(answer), |reason| Err(Unavailable::Unread { reason }))
    }

    /// The EIP that leads to a target.
    fn eip_of(&self, target: &EipTarget) -> Option<String> {
        self.eips.get(target).map(ToString::to_string)
    }

    /// The word of a VIP; one that is not in the tables is unowned.
    fn word(&self, vip: &Id) -> OwnerWord {
        let slot = self.facts.vips.get(vip);
        slot.and_then(|&slot| self.read(self.shared.tables.vips.load(slot)))
            .map_or(OwnerWord::default(), |entry| entry.word)
    }

    /// The port that owns a VIP.
    fn owner(&self, vip: &Id) -> Option<(&'a Port, OwnerWord)> {
        let word = self.word(vip);
        let name = self.facts.port_names.get(&word.port()).filter(|_| word.port() != 0)?;
        Some((self.state().ports.get(name)?, word))
    }

    /// Words for people about a moment of the programs' clock.
    fn time(&self, boot_ns: u64) -> Option<Timestamp> {
        self.clock.map(|clock| Timestamp::new(clock.system_time(boot_ns)))
    }

    fn host(&self, host: &crate::state::Host) -> HostView {
        let (name, remark) = words(self.state(), Kind::Host, &host.id);
        HostView {
            id: host.id.to_string(),
            vtep: host.vtep,
            this: *host.id == *self.shared.config.host,
            ports: self.state().ports.values().filter(|port| port.host == host.id).count(),
            name,
            remark,
        }
    }

    fn vpc(&self, vpc: &Vpc) -> VpcView {
        let state = self.state();
        let (name, remark) = words(state, Kind::Vpc, &vpc.id);
        let subnets = state.subnets.values().filter(|subnet| subnet.vpc == vpc.id).map(|subnet| &subnet.id);
        VpcView {
            id: vpc.id.to_string(),
            vni: vpc.vni,
            peers: strings(&vpc.peers),
            subnets: strings(subnets),
            ports: state.ports.values().filter(|port| port.vpc == vpc.id).count(),
            vips: state.vips.values().filter(|vip| vip.vpc == vpc.id).count(),
            name,
            remark,
        }
    }

    fn subnet(&self, subnet: &Subnet) -> SubnetView {
        let state = self.state();
        let (name, remark) = words(state, Kind::Subnet, &subnet.id);
        SubnetView {
            id: subnet.id.to_string(),
            vpc: subnet.vpc.to_string(),
            cidr: subnet.cidr,
            gateway: subnet.gateway,
            router: match subnet.router {
                Router::Vip => RouterView::Vip,
                Router::External => RouterView::External,
            },
            ports: state.ports.values().filter(|port| port.subnet == subnet.id).count(),
            vips: state.vips.values().filter(|vip| vip.subnet == subnet.id).count(),
            name,
            remark,
        }
    }

    fn port(&self, port: &Port) -> PortView {
        let state = self.state();
        let (name, remark) = words(state, Kind::Port, &port.id);
        let bound = self.bound.get(&port.id).map_or(&[][..], Vec::as_slice);
        let owns = bound.iter().map(|(vip, _)| &vip.id);
        let owns = owns.filter(|vip| self.owner(vip).is_some_and(|(owner, _)| owner.id == port.id));
        let here = *port.host == *self.shared.config.host;
        PortView {
            id: port.id.to_string(),
            vpc: port.vpc.to_string(),
            subnet: port.subnet.to_string(),
            address: port.address,
            mac: port.mac,
            host: port.host.to_string(),
            interface: port.interface.clone(),
            ifindex: self.facts.interfaces.get(&port.interface).filter(|_| here).map(|facts| facts.ifindex),
            source_dest_check: port.source_dest_check,
            eip: self.eip_of(&EipTarget::Port(Id::clone(&port.id))),
            owns: strings(owns),
            bound: bound
                .iter()
                .map(|(vip, of)| VipBinding { vip: vip.id.to_string(), rights: rights(*of) })
                .collect(),
            name,
            remark,
        }
    }

    fn vip(&self, vip: &Vip) -> VipView {
        let state = self.state();
        let (name, remark) = words(state, Kind::Vip, &vip.id);
        let owner = self.owner(&vip.id).map(|(port, word)| self.owner_view(vip, port, word));
        let tables = &self.shared.tables;
        let slot = self.facts.vips.get(&vip.id);
        let traffic = slot.and_then(|&slot| self.read(tables.vips.all_traffic(slot))).unwrap_or_default();
        let Traffic { packets_in, bytes_in, packets_out, bytes_out } = traffic;
        VipView {
            id: vip.id.to_string(),
            vpc: vip.vpc.to_string(),
            subnet: vip.subnet.to_string(),
            address: vip.address,
            state: if owner.is_some() { VipState::Owned } else { VipState::Unowned },
            epoch: owner.as_ref().map_or_else(|| self.word(&vip.id).epoch(), |owner| owner.epoch),
            owner,
            bound: vip
                .bindings
                .iter()
                .map(|(port, of)| PortBinding { port: port.to_string(), rights: rights(*of) })
                .collect(),
            eip: self.eip_of(&EipTarget::Vip(Id::clone(&vip.id))),
            vrids: vip.vrids.iter().copied().collect(),
            packets_in,
            bytes_in,
            packets_out,
            bytes_out,
            name,
            remark,
        }
    }

    fn owner_view(&self, vip: &Vip, port: &Port, word: OwnerWord) -> OwnerView {
        let entry = self.facts.vips.get(&vip.id).and_then(|&slot| {
            let entry = self.read(self.shared.tables.moves.get(Move::index(slot, word.epoch())))?;
            (entry.epoch == word.epoch() && entry.port == word.port() && entry.at != 0).then_some(entry)
        });
        let mac = match word.vrid() {
            0 => port.mac,
            vrid => MacAddr::new(Mac::of_vrid(vrid).octets()),
        };
        OwnerView {
            port: port.id.to_string(),
            host: port.host.to_string(),
            mac,
            epoch: word.epoch(),
            since: entry.and_then(|entry| self.time(entry.at)),
            learned_from: entry
                .and_then(|entry| vip_common::tables::ClaimForm::from_number(entry.form))
                .map(|form| form.name().to_owned()),
        }
    }

    fn eip(&self, eip: &Eip) -> Option<EipView> {
        let state = self.state();
        let (name, remark) = words(state, Kind::Eip, &eip.id);
        let (vpc, vip, port, inner, served_by) = match &eip.target {
            EipTarget::Vip(id) => {
                let vip = state.vips.get(id)?;
                let served_by = self.owner(id).map(|(port, _)| port.id.to_string());
                (&vip.vpc, Some(id.to_string()), None, vip.address, served_by)
            }
            EipTarget::Port(id) => {
                let port = state.ports.get(id)?;
                (&port.vpc, None, Some(id.to_string()), port.address, Some(id.to_string()))
            }
        };
        let tables = &self.shared.tables;
        let target = self.facts.eips.get(&eip.id).and_then(|target| target.kind());
        let traffic = match target {
            Some(AddressKind::Vip(slot)) => self.read(tables.vips.traffic(slot, Way::Eip)),
            Some(AddressKind::Fixed(index)) => self.read(tables.ports.traffic(index)),
            _ => None,
        }
        .unwrap_or_default();
        let Traffic { packets_in, bytes_in, packets_out, bytes_out } = traffic;
        let network =
            self.shared.config.eip_networks.iter().find(|network| network.cidr.contains(eip.address));
        Some(EipView {
            id: eip.id.to_string(),
            address: eip.address,
            vpc: vpc.to_string(),
            vip,
            port,
            inner,
            served_by,
            network: network.map(|network| network.id.clone()),
            packets_in,
            bytes_in,
            packets_out,
            bytes_out,
            name,
            remark,
        })
    }
}

impl Source for Shared {
    fn hosts(&self, id: Option<&str>) -> Result<Vec<HostView>, Unavailable> {
        let facts = self.published();
        let view = View::of(self, &facts)?;
        let all = chosen(&view.state().hosts, id).into_iter();
        view.answer(all.map(|host| view.host(host)).collect())
    }

    fn vpcs(&self, id: Option<&str>) -> Result<Vec<VpcView>, Unavailable> {
        let facts = self.published();
        let view = View::of(self, &facts)?;
        let all = chosen(&view.state().vpcs, id).into_iter();
        view.answer(all.map(|vpc| view.vpc(vpc)).collect())
    }

    fn subnets(&self, id: Option<&str>) -> Result<Vec<SubnetView>, Unavailable> {
        let facts = self.published();
        let view = View::of(self, &facts)?;
        let all = chosen(&view.state().subnets, id).into_iter();
        view.answer(all.map(|subnet| view.subnet(subnet)).collect())
    }

    fn ports(&self, id: Option<&str>) -> Result<Vec<PortView>, Unavailable> {
        let facts = self.published();
        let view = View::of(self, &facts)?;
        let all = chosen(&view.state().ports, id).into_iter();
        view.answer(all.map(|port| view.port(port)).collect())
    }

    fn vips(&self, id: Option<&str>) -> Result<Vec<VipView>, Unavailable> {
        let facts = self.published();
        let view = View::of(self, &facts)?;
        let all = chosen(&view.state().vips, id).into_iter();
        view.answer(all.map(|vip| view.vip(vip)).collect())
    }

    fn eips(&self, id: Option<&str>) -> Result<Vec<EipView>, Unavailable> {
        let facts = self.published();
        let view = View::of(self, &facts)?;
        let all = chosen(&view.state().eips, id).into_iter();
        view.answer(all.filter_map(|eip| view.eip(eip)).collect())
    }

    fn status(&self) -> Result<StatusView, Unavailable> {
        self.status_view().map_err(|error| Unavailable::Unread { reason: chain(&error) })
    }

    fn history(&self, vip: &str) -> Result<Option<Vec<MoveView>>, Unavailable> {
        let facts = self.published();
        let view = View::of(self, &facts)?;
        if !view.state().vips.contains_key(vip) {
            return Ok(None);
        }
        let Some(&slot) = view.facts.vips.get(vip) else { return Ok(Some(Vec::new())) };
        // A copy: what is new in the tables is for the agent to find and to tell.
        let mut history = Self::history(self).copy_of(slot);
        history.merge(slot, view.read(self.moves(slot, &view.facts.port_names)).unwrap_or_default());
        let moves = history.of(slot).filter_map(|record| {
            Some(MoveView {
                epoch: record.epoch,
                at: view.time(record.at)?,
                port: record.port.as_ref().map(ToString::to_string),
                previous: record.previous.as_ref().map(ToString::to_string),
                learned_from: record.form.name().to_owned(),
            })
        });
        view.answer(Some(moves.collect()))
    }
}
