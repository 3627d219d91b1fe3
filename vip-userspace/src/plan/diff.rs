//! The way from what the tables contain to what they shall contain.

use std::{
    cmp::Ordering,
    collections::{BTreeMap, BTreeSet},
    iter,
};

use vip_common::{
    tables::{
        AddressKind, EipNetwork, Grant, GrantKey, MAX_MEMBERS, Members, PortEntry, PortFlags, SourceEip,
        Target,
    },
    wire::Ipv4,
};

use super::{
    Step,
    contents::{AddressEntry, Contents, MacPlace, Place, host_of, interface_of},
};

/// The steps from `now` to `then`, in an order that keeps the promises of the [module](super).
///
/// Frees first, look-ups before what they lead to; then adds, the other way round. An entry that stays is changed by a
/// single update, except an address that passes to another tenant or object: it is removed, and added at the end.
///
/// Takes time by the number of entries, and memory by the number of differences.
pub fn diff(now: &Contents, then: &Contents) -> Vec<Step> {
    let mut plan = Plan { now, then, gone: Gone::default(), stripped: BTreeSet::new(), steps: Vec::new() };
    plan.remove_look_ups();
    plan.remove_rights();
    plan.release_interfaces();
    plan.free();
    plan.add_objects();
    plan.add_rights();
    plan.add_look_ups();
    plan.free_hosts();
    plan.rehome();
    plan.steps
}

struct Plan<'a> {
    now: &'a Contents,
    then: &'a Contents,
    gone: Gone,
    /// Addresses that are in both and lose their EIP first.
    stripped: BTreeSet<Place>,
    steps: Vec<Step>,
}

/// Look-ups that are removed first, rising.
#[derive(Default)]
struct Gone {
    eips: Vec<Ipv4>,
    addresses: Vec<Place>,
    macs: Vec<MacPlace>,
}

/// Slots and port indexes that do not belong to the same address in both.
struct Moved {
    slots: BTreeSet<u32>,
    ports: BTreeSet<u32>,
}

impl Moved {
    fn between(now: &Contents, then: &Contents) -> Self {
        let slots = both(&now.members, &then.members).filter(|(_, old, new)| {
            old.map(|vip| (vip.vni, vip.address)) != new.map(|vip| (vip.vni, vip.address))
        });
        let ports = both(&now.ports, &then.ports).filter(|(_, old, new)| {
            old.map(|port| (port.vni, port.address)) != new.map(|port| (port.vni, port.address))
        });
        Self {
            slots: slots.map(|(slot, ..)| *slot).collect(),
            ports: ports.map(|(index, ..)| *index).collect(),
        }
    }

    /// Whether what an EIP leads to is among them.
    fn has(&self, target: Target) -> bool {
        match target.kind() {
            Some(AddressKind::Vip(slot)) => self.slots.contains(&slot),
            Some(AddressKind::Fixed(index)) => self.ports.contains(&index),
            _ => true,
        }
    }
}

/// The entries of both, by key: side by side, because a search for each would cost more than all else.
fn both<'a, K: Ord, V>(
    now: &'a BTreeMap<K, V>,
    then: &'a BTreeMap<K, V>,
) -> impl Iterator<Item = (&'a K, Option<&'a V>, Option<&'a V>)> {
    let (mut now, mut then) = (now.iter().peekable(), then.iter().peekable());
    iter::from_fn(move || {
        let first = match (now.peek(), then.peek()) {
            (Some((old, _)), Some((new, _))) => old.cmp(new),
            (Some(_), None) => Ordering::Less,
            (None, _) => Ordering::Greater,
        };
        let old = if first.is_le() { now.next() } else { None };
        let new = if first.is_ge() { then.next() } else { None };
        let (key, _) = old.or(new)?;
        Some((key, old.map(|(_, value)| value), new.map(|(_, value)| value)))
    })
}

/// The entries of `now` that `then` has not in an acceptable form.
fn removed<'a, K: Ord, V>(
    now: &'a BTreeMap<K, V>,
    then: &'a BTreeMap<K, V>,
    stays: impl Fn(&K, &V, &V) -> bool,
) -> impl Iterator<Item = &'a K> {
    both(now, then)
        .filter(move |(key, old, new)| old.is_some_and(|old| !new.is_some_and(|new| stays(key, old, new))))
        .map(|(key, _, _)| key)
}

/// The entries of `then` that `now` has not as they shall be.
fn added<'a, K: Ord, V>(
    now: &'a BTreeMap<K, V>,
    then: &'a BTreeMap<K, V>,
    is_there: impl Fn(&K, &V, &V) -> bool,
) -> impl Iterator<Item = (&'a K, &'a V)> {
    both(now, then).filter_map(move |(key, old, new)| {
        let new = new?;
        (!old.is_some_and(|old| is_there(key, old, new))).then_some((key, new))
    })
}

/// The entries of `then` that `now` has not, or has with another value.
fn changed<'a, K: Ord, V: PartialEq>(
    now: &'a BTreeMap<K, V>,
    then: &'a BTreeMap<K, V>,
) -> impl Iterator<Item = (&'a K, &'a V)> {
    added(now, then, |_, old, new| old == new)
}

impl Plan<'_> {
    fn remove_look_ups(&mut self) {
        let Self { now, then, gone, steps, .. } = self;
        let moved = Moved::between(now, then);
        steps.extend(
            removed(&now.interfaces, &then.interfaces, |_, old, new| old == new)
                .map(|k| Step::RemoveInterface(*k)),
        );
        gone.eips =
            removed(&now.eips, &then.eips, |_, old, new| old == new && !moved.has(*old)).copied().collect();
        steps.extend(gone.eips.iter().map(|eip| Step::RemoveEip(*eip)));
        gone.addresses =
            removed(&now.addresses, &then.addresses, |place, old, _| address_stays(then, *place, old))
                .copied()
                .collect();
        steps.extend(gone.addresses.iter().map(|place| Step::RemoveAddress(*place)));
        gone.macs =
            removed(&now.macs, &then.macs, |place, old, new| old == new && then.port_has_mac(*old, *place))
                .copied()
                .collect();
        steps.extend(gone.macs.iter().map(|place| Step::RemoveMac(*place)));
        steps.extend(
            removed(&now.subnets, &then.subnets, |_, old, new| old.vni == new.vni)
                .map(|k| Step::RemoveSubnet(*k)),
        );
        steps.extend(
            removed(&now.vteps, &then.vteps, |_, old, new| old == new).map(|vtep| Step::RemoveVtep(*vtep)),
        );
        steps.extend(now.vnis.difference(&then.vnis).map(|vni| Step::RemoveVni(*vni)));
        self.strip_eips();
    }

    /// An EIP that passes to another address is taken from the old one first.
    fn strip_eips(&mut self) {
        let Self { now, then, stripped, steps, .. } = self;
        let losing: BTreeMap<Ipv4, (Place, AddressEntry)> = both(&now.addresses, &then.addresses)
            .filter_map(|(place, old, new)| {
                let (old, new) = (old?, new?);
                let loses = old.eip.is_some() && old.eip.address != new.eip.address;
                (loses && address_stays(then, *place, old)).then_some((old.eip.address, (*place, *old)))
            })
            .collect();
        if losing.is_empty() {
            return;
        }
        for entry in then.addresses.values().filter(|entry| entry.eip.is_some()) {
            if let Some(&(place, old)) = losing.get(&entry.eip.address) {
                stripped.insert(place);
                steps.push(Step::SetAddress(place, AddressEntry { eip: SourceEip::default(), ..old }));
            }
        }
    }

    /// Ownerships end before and after the right goes: before, so that no owner is left without one; after, because a
    /// claim may have come in between.
    fn remove_rights(&mut self) {
        let mut releases: Vec<Step> = removed(&self.now.members, &self.then.members, |_, _, _| true)
            .map(|&slot| Step::Release { slot, port: None })
            .collect();
        let mut changes = Vec::new();
        let mut forgotten = Vec::new();
        for (&(port, slot), old, new) in both(&self.now.grants, &self.then.grants) {
            let Some(old) = old else { continue };
            let key = GrantKey { port, slot };
            if loses_ownership(*old, new.copied()) {
                releases.push(Step::Release { slot, port: Some(port) });
            }
            match new {
                None => {
                    changes.push(Step::RemoveGrant(key));
                    forgotten.push(Step::ForgetPort { slot, port });
                }
                Some(new) if narrows(*old, *new) => changes.push(Step::SetGrant(key, *new)),
                Some(_) => {}
            }
        }
        self.steps.extend(releases.iter().copied());
        self.steps.extend(changes);
        self.steps.extend(releases);
        // Last: a release is a move, too.
        self.steps.extend(forgotten);
    }

    /// Ports whose interface went, changed, or takes no XDP frames any more. An interface that passes to another port is
    /// let go of first, and what its guest owned ends.
    fn release_interfaces(&mut self) {
        for (&index, old, new) in both(&self.now.ports, &self.then.ports) {
            let Some((old, new)) = old.zip(new) else { continue };
            let dev = self.now.port_devs.get(&index);
            let entry = released(old, new);
            if entry != *old {
                self.steps.push(Step::SetPort(index, entry));
            }
            if dev.is_some_and(|dev| self.then.port_devs.get(&index) != Some(dev)) {
                self.steps.push(Step::RemovePortDev(index));
            }
            // One that passes to another host takes along what it owns.
            if leaves_interface(old, new) && !new.flags.has(PortFlags::REMOTE) {
                let owned = self.now.grants.range((index, 0)..=(index, u32::MAX));
                self.steps.extend(
                    owned
                        .filter(|(_, grant)| grant.rights.may_own())
                        .map(|(&(_, slot), _)| Step::Release { slot, port: Some(index) }),
                );
            }
        }
    }

    fn free(&mut self) {
        let Self { now, then, steps, .. } = self;
        for (&slot, old, new) in both(&now.members, &then.members) {
            match (old, new) {
                (Some(_), None) => steps.push(Step::ClearMembers(slot)),
                (Some(old), Some(new)) => {
                    let both = common_members(old, new);
                    if both != *old {
                        steps.push(Step::SetMembers(slot, both));
                    }
                }
                (None, _) => {}
            }
        }
        for &index in removed(&now.ports, &then.ports, |_, _, _| true) {
            steps.push(Step::ClearPort(index));
            steps.push(Step::RemovePortDev(index));
        }
        // Devices of ports that never were, left by an agent that died.
        let strays = now.port_devs.keys().filter(|index| !now.ports.contains_key(index));
        steps.extend(
            strays
                .filter(|index| !then.port_devs.contains_key(index))
                .map(|&index| Step::RemovePortDev(index)),
        );
    }

    fn add_objects(&mut self) {
        let Self { now, then, steps, .. } = self;
        steps.extend(
            removed(&now.networks, &then.networks, |_, _, _| true)
                .map(|&index| Step::SetNetwork(index, EipNetwork::default())),
        );
        steps.extend(
            changed(&now.networks, &then.networks).map(|(&index, network)| Step::SetNetwork(index, *network)),
        );
        // Before ports and members lead there. Those that nothing leads to any more go at the very end.
        steps.extend(changed(&now.hosts, &then.hosts).map(|(&index, &vtep)| Step::SetHost(index, vtep)));
        steps.extend(
            changed(&now.port_devs, &then.port_devs)
                .map(|(&index, &ifindex)| Step::SetPortDev(index, ifindex)),
        );
        let ports = added(&now.ports, &then.ports, |_, old, new| released(old, new) == *new);
        steps.extend(ports.map(|(&index, port)| Step::SetPort(index, *port)));
        for (&slot, old, new) in both(&now.members, &then.members) {
            match (old, new) {
                (None, Some(new)) => steps.extend([Step::FreshSlot(slot), Step::SetMembers(slot, *new)]),
                (Some(old), Some(new)) if common_members(old, new) != *new => {
                    steps.push(Step::SetMembers(slot, *new));
                }
                (_, _) => {}
            }
        }
        steps.extend(changed(&now.eips, &then.eips).map(|(_, target)| Step::FreshEip(*target)));
    }

    fn add_rights(&mut self) {
        let Self { now, then, steps, .. } = self;
        let grants = added(&now.grants, &then.grants, |_, old, new| old == new || narrows(*old, *new));
        steps.extend(grants.map(|(&(port, slot), grant)| Step::SetGrant(GrantKey { port, slot }, *grant)));
    }

    fn add_look_ups(&mut self) {
        let Self { now, then, gone, stripped, steps } = self;
        steps.extend(
            changed(&now.subnets, &then.subnets).map(|(prefix, entry)| Step::SetSubnet(*prefix, *entry)),
        );
        steps.extend(changed(&now.vteps, &then.vteps).map(|(&vtep, &index)| Step::SetVtep(vtep, index)));
        steps.extend(then.vnis.difference(&now.vnis).map(|vni| Step::SetVni(*vni)));
        let addresses = added(&now.addresses, &then.addresses, |place, old, new| {
            let eip = if stripped.contains(place) { SourceEip::default() } else { old.eip };
            AddressEntry { eip, ..*old } == *new && gone.addresses.binary_search(place).is_err()
        });
        steps.extend(addresses.map(|(place, entry)| Step::SetAddress(*place, *entry)));
        let macs = added(&now.macs, &then.macs, |place, old, new| {
            old == new && gone.macs.binary_search(place).is_err()
        });
        steps.extend(macs.map(|(place, &index)| Step::SetMac(*place, index)));
        let eips =
            added(&now.eips, &then.eips, |eip, old, new| old == new && gone.eips.binary_search(eip).is_err());
        steps.extend(eips.map(|(eip, entry)| Step::SetEip(*eip, *entry)));
        steps.extend(
            changed(&now.interfaces, &then.interfaces)
                .map(|(&ifindex, &index)| Step::SetInterface(ifindex, index)),
        );
    }
}

impl Plan<'_> {
    /// Ports and members that led to these lead elsewhere by now.
    fn free_hosts(&mut self) {
        let gone = removed(&self.now.hosts, &self.then.hosts, |_, _, _| true);
        self.steps.extend(gone.map(|&index| Step::ClearHost(index)));
    }

    /// A port that comes to this host keeps its VIPs, but no claim from before that counts against those from after it. The other hosts
    /// hear of it from this one. Last: the word never tells of a host that the port's entry does not.
    fn rehome(&mut self) {
        for (&port, old, new) in both(&self.now.ports, &self.then.ports) {
            let Some((old, new)) = old.zip(new) else { continue };
            if !comes_here(old, new) {
                continue;
            }
            let owned = self.then.grants.range((port, 0)..=(port, u32::MAX));
            let owned = owned.filter(|(_, grant)| grant.rights.may_own());
            self.steps.extend(owned.map(|(&(_, slot), _)| Step::Rehome { slot, port }));
        }
    }
}

/// Whether a grant lets a port own no more what it let it own.
fn loses_ownership(old: Grant, new: Option<Grant>) -> bool {
    old.rights.may_own() && !new.is_some_and(|new| new.rights.may_own())
}

/// Whether a grant is changed before owners end. A virtual router MAC that is not allowed any more must not be claimed with.
fn narrows(old: Grant, new: Grant) -> bool {
    loses_ownership(old, Some(new)) || (old.rights.may_own() && old.vrids != new.vrids)
}

/// Whether the old value may stand until the new one replaces it: what it leads to stays as it is.
fn address_stays(then: &Contents, place: Place, old: &AddressEntry) -> bool {
    match old.kind {
        AddressKind::Fixed(port) => then.port_is_at(port, place),
        AddressKind::Vip(slot) => then.vip_is_at(slot, place),
        AddressKind::Gateway(_) | AddressKind::ExternalGateway(_) => true,
    }
}

/// Whether the interface that a port has here is no more its own.
fn leaves_interface(old: &PortEntry, new: &PortEntry) -> bool {
    interface_of(old).is_some() && interface_of(old) != interface_of(new)
}

/// Whether a port passes from another host to this one.
fn comes_here(old: &PortEntry, new: &PortEntry) -> bool {
    old.flags.has(PortFlags::REMOTE) && !new.flags.has(PortFlags::REMOTE)
}

/// A port without the interface, and without the right to XDP frames, that it loses. One that comes from another host leads nowhere
/// for a moment, because its number must not be taken for an interface's; between two other hosts it passes by one store.
fn released(old: &PortEntry, new: &PortEntry) -> PortEntry {
    if host_of(old).is_some() && comes_here(old, new) || leaves_interface(old, new) {
        PortEntry { ifindex: 0, mtu: 0, flags: without_xdp(old.flags), ..*old }
    } else if old.flags.has(PortFlags::TAKES_XDP) && !new.flags.has(PortFlags::TAKES_XDP) {
        PortEntry { flags: without_xdp(old.flags), ..*old }
    } else {
        *old
    }
}

/// The new value with only those members, and only those hosts of them, that the slot has already.
fn common_members(old: &Members, new: &Members) -> Members {
    let mut ports = [0; MAX_MEMBERS];
    let both = new.ports.iter().filter(|port| **port != 0 && old.ports.contains(port));
    for (place, port) in ports.iter_mut().zip(both) {
        *place = *port;
    }
    let mut hosts = [0; MAX_MEMBERS];
    let both = new.hosts.iter().filter(|host| **host != 0 && old.hosts.contains(host));
    for (place, host) in hosts.iter_mut().zip(both) {
        *place = *host;
    }
    Members { ports, hosts, ..*new }
}

fn without_xdp(flags: PortFlags) -> PortFlags {
    flags.without(PortFlags::TAKES_XDP.with(PortFlags::TAKES_XDP_FRAGS))
}
