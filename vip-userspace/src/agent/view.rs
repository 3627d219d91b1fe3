//! The objects as the operator sees them.

use std::{cell::RefCell, collections::BTreeMap};

use vip_common::{
    tables::{Move, OwnerWord, Traffic, Way},
    wire::Mac,
};

use super::{
    error::chain,
    hosts::WayView,
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
    state::{
        Eip, EipTarget, Id, Label, MacAddr, Objects, Port, Ref, Rights, Router, State, Subnet, Vip, Vpc,
    },
};

/// The objects of a list that are asked for.
fn chosen<T>(all: &Objects<T>, id: Option<&str>) -> Vec<Ref<T>> {
    match id {
        Some(id) => all.find(id).into_iter().collect(),
        None => all.refs().collect(),
    }
}

/// Name and remark of an object.
fn words<T>(all: &Objects<T>, object: Ref<T>) -> (Option<String>, Option<String>) {
    let Label { name, remark } = all.label(object);
    (name.map(str::to_owned), remark.map(str::to_owned))
}

fn rights(of: Rights) -> Vec<Right> {
    [(of.own, Right::Own), (of.source, Right::Source)]
        .into_iter()
        .filter_map(|(set, right)| set.then_some(right))
        .collect()
}

/// The ids of objects.
fn ids<T>(all: &Objects<T>, objects: impl IntoIterator<Item = Ref<T>>) -> Vec<String> {
    objects.into_iter().map(|object| all.id(object).to_owned()).collect()
}

/// How many objects of a list belong to each one of another.
fn count<T>(of: impl Iterator<Item = Ref<T>>, all: &Objects<T>) -> Vec<usize> {
    let mut counts = vec![0; all.len()];
    for object in of {
        if let Some(count) = counts.get_mut(object.index() as usize) {
            *count += 1;
        }
    }
    counts
}

fn counted<T>(counts: &[usize], object: Ref<T>) -> usize {
    counts.get(object.index() as usize).copied().unwrap_or_default()
}

/// One look at the published facts, for the whole of an answer.
struct View<'a> {
    shared: &'a Shared,
    facts: &'a Published,
    state: &'a State,
    /// Why something could not be read, if so: the answer is worth nothing then.
    unread: RefCell<Option<String>>,
    clock: Option<BootClock>,
}

/// What leads to the objects of a list, and what they are bound to: all of it from one pass over the state.
#[derive(Default)]
struct Relations {
    /// The EIPs by what they lead to.
    eips: BTreeMap<EipTarget, Ref<Eip>>,
    /// What each port is bound to.
    bound: BTreeMap<Ref<Port>, Vec<(Ref<Vip>, Rights)>>,
}

impl Relations {
    /// Of those EIPs and ports that the answer is about: a state may have a million others.
    fn of(
        state: &State,
        wants_eip: impl Fn(EipTarget) -> bool,
        wants_port: impl Fn(Ref<Port>) -> bool,
    ) -> Self {
        let eips = state.eips.iter().filter(|(_, eip)| wants_eip(eip.target));
        let mut relations =
            Self { eips: eips.map(|(id, eip)| (eip.target, id)).collect(), ..Self::default() };
        for (id, vip) in state.vips.iter() {
            for binding in state.bindings(vip).iter().filter(|binding| wants_port(binding.port)) {
                relations.bound.entry(binding.port).or_default().push((id, binding.rights));
            }
        }
        relations
    }
}

impl<'a> View<'a> {
    fn of(shared: &'a Shared, facts: &'a Published) -> Result<Self, Unavailable> {
        let Some(state) = facts.state.as_deref() else {
            let reason = facts.sync.error.clone().unwrap_or_else(|| "it was not looked for yet".to_owned());
            return Err(Unavailable::NoState { reason });
        };
        let (clock, unread) = (BootClock::now().ok(), RefCell::default());
        Ok(Self { shared, facts, state, unread, clock })
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
    fn eip_of(&self, relations: &Relations, target: EipTarget) -> Option<String> {
        relations.eips.get(&target).map(|eip| self.state.eips.id(*eip).to_owned())
    }

    /// The word of a VIP; one that is not in the tables is unowned.
    fn word(&self, vip: Ref<Vip>) -> OwnerWord {
        let slot = self.facts.assigned.vips.get(vip);
        slot.and_then(|slot| self.read(self.shared.tables.vips.load(slot)))
            .map_or(OwnerWord::default(), |entry| entry.word)
    }

    /// The port that owns a VIP.
    fn owner(&self, vip: Ref<Vip>) -> Option<(Ref<Port>, OwnerWord)> {
        let word = self.word(vip);
        let port = self.facts.names.present_port(word.port()).filter(|_| word.port() != 0)?;
        Some((port, word))
    }

    /// Words for people about a moment of the programs' clock.
    fn time(&self, boot_ns: u64) -> Option<Timestamp> {
        self.clock.map(|clock| Timestamp::new(clock.system_time(boot_ns)))
    }

    fn hosts(&self, id: Option<&str>) -> Vec<HostView> {
        let state = self.state;
        let ports = count(state.ports.values().map(|port| port.host), &state.hosts);
        let view = |host| {
            let (name, remark) = words(&state.hosts, host);
            let id = state.hosts.id(host);
            let way = self.read(self.shared.way(self.facts, host)).flatten();
            let WayView { next_hop, mac, mtu, why } = way.unwrap_or_default();
            HostView {
                id: id.to_owned(),
                vtep: state.hosts[host].vtep,
                this: *id == *self.shared.config.host,
                ports: counted(&ports, host),
                name,
                remark,
                reachable: why.is_none(),
                next_hop,
                next_hop_mac: mac,
                mtu,
                why,
            }
        };
        chosen(&state.hosts, id).into_iter().map(view).collect()
    }

    fn vpcs(&self, id: Option<&str>) -> Vec<VpcView> {
        let state = self.state;
        let ports = count(state.ports.values().map(|port| state.vpc_of_port(port)), &state.vpcs);
        let vips = count(state.vips.values().map(|vip| state.vpc_of_vip(vip)), &state.vpcs);
        let view = |vpc| {
            let (name, remark) = words(&state.vpcs, vpc);
            let Vpc { vni, peers } = &state.vpcs[vpc];
            let subnets = state.subnets.iter().filter(|(_, subnet)| subnet.vpc == vpc).map(|(id, _)| id);
            VpcView {
                id: state.vpcs.id(vpc).to_owned(),
                vni: *vni,
                peers: ids(&state.vpcs, peers.iter().copied()),
                subnets: ids(&state.subnets, subnets),
                ports: counted(&ports, vpc),
                vips: counted(&vips, vpc),
                name,
                remark,
            }
        };
        chosen(&state.vpcs, id).into_iter().map(view).collect()
    }

    fn subnets(&self, id: Option<&str>) -> Vec<SubnetView> {
        let state = self.state;
        let ports = count(state.ports.values().map(|port| port.subnet), &state.subnets);
        let vips = count(state.vips.values().map(|vip| vip.subnet), &state.subnets);
        let view = |subnet| {
            let (name, remark) = words(&state.subnets, subnet);
            let Subnet { vpc, cidr, gateway, router } = &state.subnets[subnet];
            SubnetView {
                id: state.subnets.id(subnet).to_owned(),
                vpc: state.vpcs.id(*vpc).to_owned(),
                cidr: *cidr,
                gateway: *gateway,
                router: match router {
                    Router::Vip => RouterView::Vip,
                    Router::External => RouterView::External,
                },
                ports: counted(&ports, subnet),
                vips: counted(&vips, subnet),
                name,
                remark,
            }
        };
        chosen(&state.subnets, id).into_iter().map(view).collect()
    }

    fn ports(&self, id: Option<&str>) -> Vec<PortView> {
        let ports = chosen(&self.state.ports, id);
        let wanted = |port: Ref<Port>| id.is_none() || ports.contains(&port);
        let of_ports = |target| matches!(target, EipTarget::Port(port) if wanted(port));
        let relations = Relations::of(self.state, of_ports, wanted);
        ports.iter().map(|port| self.port(&relations, *port)).collect()
    }

    fn port(&self, relations: &Relations, port: Ref<Port>) -> PortView {
        let state = self.state;
        let (name, remark) = words(&state.ports, port);
        let what = &state.ports[port];
        let bound = relations.bound.get(&port).map_or(&[][..], Vec::as_slice);
        let owns = bound.iter().map(|(vip, _)| *vip);
        let owns = owns.filter(|vip| self.owner(*vip).is_some_and(|(owner, _)| owner == port));
        let host = state.hosts.id(what.host);
        let here = *host == *self.shared.config.host;
        let interface = state.interface(port);
        PortView {
            id: state.ports.id(port).to_owned(),
            vpc: state.vpcs.id(state.vpc_of_port(what)).to_owned(),
            subnet: state.subnets.id(what.subnet).to_owned(),
            address: what.address,
            mac: what.mac,
            host: host.to_owned(),
            interface: interface.to_owned(),
            vlan: what.vlan,
            ifindex: self.facts.interface(interface, what.vlan).filter(|_| here).map(|facts| facts.ifindex),
            source_dest_check: what.source_dest_check,
            eip: self.eip_of(relations, EipTarget::Port(port)),
            owns: ids(&state.vips, owns),
            bound: bound
                .iter()
                .map(|(vip, of)| VipBinding { vip: state.vips.id(*vip).to_owned(), rights: rights(*of) })
                .collect(),
            name,
            remark,
        }
    }

    fn vips(&self, id: Option<&str>) -> Vec<VipView> {
        let vips = chosen(&self.state.vips, id);
        let of_vips = |target| matches!(target, EipTarget::Vip(vip) if id.is_none() || vips.contains(&vip));
        let relations = Relations::of(self.state, of_vips, |_| false);
        vips.iter().map(|vip| self.vip(&relations, *vip)).collect()
    }

    fn vip(&self, relations: &Relations, vip: Ref<Vip>) -> VipView {
        let state = self.state;
        let (name, remark) = words(&state.vips, vip);
        let what = &state.vips[vip];
        let owner = self.owner(vip).map(|(port, word)| self.owner_view(vip, port, word));
        let tables = &self.shared.tables;
        let slot = self.facts.assigned.vips.get(vip);
        let traffic = slot.and_then(|slot| self.read(tables.vips.all_traffic(slot))).unwrap_or_default();
        let Traffic { packets_in, bytes_in, packets_out, bytes_out } = traffic;
        let onward = slot.and_then(|slot| self.read(tables.vips.traffic(slot, Way::Onward)));
        let onward = onward.unwrap_or_default();
        VipView {
            id: state.vips.id(vip).to_owned(),
            vpc: state.vpcs.id(state.vpc_of_vip(what)).to_owned(),
            subnet: state.subnets.id(what.subnet).to_owned(),
            address: what.address,
            state: match slot {
                Some(slot) if self.shared.conflicts().contains(&slot) => VipState::Conflict,
                _ if owner.is_some() => VipState::Owned,
                _ => VipState::Unowned,
            },
            epoch: owner.as_ref().map_or_else(|| self.word(vip).epoch(), |owner| owner.epoch),
            owner,
            bound: state
                .bindings(what)
                .iter()
                .map(|binding| PortBinding {
                    port: state.ports.id(binding.port).to_owned(),
                    rights: rights(binding.rights),
                })
                .collect(),
            eip: self.eip_of(relations, EipTarget::Vip(vip)),
            vrids: what.vrids().collect(),
            packets_in,
            bytes_in,
            packets_out,
            bytes_out,
            packets_onward: onward.packets_in,
            bytes_onward: onward.bytes_in,
            name,
            remark,
        }
    }

    fn owner_view(&self, vip: Ref<Vip>, port: Ref<Port>, word: OwnerWord) -> OwnerView {
        let state = self.state;
        let entry = self.facts.assigned.vips.get(vip).and_then(|slot| {
            let entry = self.read(self.shared.tables.moves.get(Move::index(slot, word.epoch())))?;
            (entry.epoch == word.epoch() && entry.port == word.port() && entry.at != 0).then_some(entry)
        });
        let Port { host, mac, .. } = &state.ports[port];
        let mac = match word.vrid() {
            0 => *mac,
            vrid => MacAddr::new(Mac::of_vrid(vrid).octets()),
        };
        OwnerView {
            port: state.ports.id(port).to_owned(),
            host: state.hosts.id(*host).to_owned(),
            mac,
            epoch: word.epoch(),
            since: entry.and_then(|entry| self.time(entry.at)),
            learned_from: entry
                .and_then(|entry| vip_common::tables::ClaimForm::from_number(entry.form))
                .map(|form| form.name().to_owned()),
        }
    }

    fn eip(&self, eip: Ref<Eip>) -> EipView {
        let state = self.state;
        let (name, remark) = words(&state.eips, eip);
        let &Eip { address, target } = &state.eips[eip];
        let port_id = |port| state.ports.id(port).to_owned();
        let (vpc, vip, port, inner, served_by) = match target {
            EipTarget::Vip(vip) => {
                let what = &state.vips[vip];
                let served_by = self.owner(vip).map(|(port, _)| port_id(port));
                let id = state.vips.id(vip).to_owned();
                (state.vpc_of_vip(what), Some(id), None, what.address, served_by)
            }
            EipTarget::Port(port) => {
                let what = &state.ports[port];
                (state.vpc_of_port(what), None, Some(port_id(port)), what.address, Some(port_id(port)))
            }
        };
        let tables = &self.shared.tables;
        let index = self.facts.assigned.eips.get(eip);
        let traffic = index.and_then(|index| match target {
            EipTarget::Vip(_) => self.read(tables.vips.traffic(index, Way::Eip)),
            EipTarget::Port(_) => self.read(tables.ports.traffic(index)),
        });
        let traffic = traffic.unwrap_or_default();
        let Traffic { packets_in, bytes_in, packets_out, bytes_out } = traffic;
        let network = self.shared.config.eip_networks.iter().find(|network| network.cidr.contains(address));
        EipView {
            id: state.eips.id(eip).to_owned(),
            address,
            vpc: state.vpcs.id(vpc).to_owned(),
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
        }
    }
}

impl Source for Shared {
    fn hosts(&self, id: Option<&str>) -> Result<Vec<HostView>, Unavailable> {
        let facts = self.published();
        let view = View::of(self, &facts)?;
        view.answer(view.hosts(id))
    }

    fn vpcs(&self, id: Option<&str>) -> Result<Vec<VpcView>, Unavailable> {
        let facts = self.published();
        let view = View::of(self, &facts)?;
        view.answer(view.vpcs(id))
    }

    fn subnets(&self, id: Option<&str>) -> Result<Vec<SubnetView>, Unavailable> {
        let facts = self.published();
        let view = View::of(self, &facts)?;
        view.answer(view.subnets(id))
    }

    fn ports(&self, id: Option<&str>) -> Result<Vec<PortView>, Unavailable> {
        let facts = self.published();
        let view = View::of(self, &facts)?;
        view.answer(view.ports(id))
    }

    fn vips(&self, id: Option<&str>) -> Result<Vec<VipView>, Unavailable> {
        let facts = self.published();
        let view = View::of(self, &facts)?;
        view.answer(view.vips(id))
    }

    fn eips(&self, id: Option<&str>) -> Result<Vec<EipView>, Unavailable> {
        let facts = self.published();
        let view = View::of(self, &facts)?;
        let all = chosen(&view.state.eips, id).into_iter();
        view.answer(all.map(|eip| view.eip(eip)).collect())
    }

    fn status(&self) -> Result<StatusView, Unavailable> {
        self.status_view().map_err(|error| Unavailable::Unread { reason: chain(&error) })
    }

    fn history(&self, vip: &str) -> Result<Option<Vec<MoveView>>, Unavailable> {
        let facts = self.published();
        let view = View::of(self, &facts)?;
        let Some(vip) = view.state.vips.find(vip) else { return Ok(None) };
        let Some(slot) = view.facts.assigned.vips.get(vip) else { return view.answer(Some(Vec::new())) };
        // A copy: what is new in the tables is for the agent to find and to tell.
        let mut history = Self::history(self).copy_of(slot);
        history.merge(slot, view.read(self.moves(slot, &view.facts.names)).unwrap_or_default());
        let host = |port: &Id| Some(view.state.hosts.id(view.state.ports.named(port)?.host));
        let moves = history.of(slot).filter_map(|record| {
            Some(MoveView {
                epoch: record.epoch,
                at: view.time(record.at)?,
                port: record.port.as_ref().map(ToString::to_string),
                host: record.port.as_ref().and_then(host).map(str::to_owned),
                previous: record.previous.as_ref().map(ToString::to_string),
                learned_from: record.form.name().to_owned(),
            })
        });
        view.answer(Some(moves.collect()))
    }
}
