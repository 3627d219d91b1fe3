//! The way from what the tables contain to what they shall contain.

use std::collections::BTreeMap;

use vip_common::{
    tables::{
        AddressKind, EipNetwork, GrantKey, MAX_MEMBERS, Members, PortEntry, PortFlags, SourceEip, Target,
    },
    wire::Ipv4,
};

use super::{
    Step,
    contents::{AddressEntry, Contents, Place},
};

/// The steps from `now` to `then`, in an order that keeps the promises of the [module](super).
///
/// Frees first, look-ups before what they lead to; then adds, the other way round. An entry that stays is changed by a
/// single update, except an address that passes to another tenant or object: it is removed, and added at the end.
pub fn diff(now: &Contents, then: &Contents) -> Vec<Step> {
    let mut plan = Plan { now, then, steps: Vec::new() };
    plan.remove_look_ups();
    plan.remove_rights();
    plan.release_interfaces();
    plan.free();
    plan.add_objects();
    plan.add_rights();
    plan.add_look_ups();
    plan.steps
}

struct Plan<'a> {
    now: &'a Contents,
    then: &'a Contents,
    steps: Vec<Step>,
}

/// The entries of `now` that `then` has not in an acceptable form.
fn removed<'a, K: Ord, V>(
    now: &'a BTreeMap<K, V>,
    then: &'a BTreeMap<K, V>,
    stays: impl Fn(&K, &V, &V) -> bool,
) -> impl Iterator<Item = &'a K> {
    now.iter()
        .filter(move |&(key, old)| !then.get(key).is_some_and(|new| stays(key, old, new)))
        .map(|(key, _)| key)
}

/// The entries of `then` that `now` has not, or has with another value.
fn changed<'a, K: Ord, V: PartialEq>(
    now: &'a BTreeMap<K, V>,
    then: &'a BTreeMap<K, V>,
) -> impl Iterator<Item = (&'a K, &'a V)> {
    then.iter().filter(|(key, new)| now.get(key) != Some(new))
}

impl Plan<'_> {
    /// The contents after the steps so far.
    fn reached(&self) -> Contents {
        let mut now = self.now.clone();
        self.steps.iter().for_each(|step| now.apply(step));
        now
    }

    fn remove_look_ups(&mut self) {
        let Self { now, then, steps } = self;
        steps.extend(
            removed(&now.interfaces, &then.interfaces, |_, old, new| old == new)
                .map(|k| Step::RemoveInterface(*k)),
        );
        steps.extend(
            removed(&now.eips, &then.eips, |_, old, new| old == new && eip_stays(now, then, *old))
                .map(|k| Step::RemoveEip(*k)),
        );
        steps.extend(
            removed(&now.addresses, &then.addresses, |place, old, _| address_stays(then, *place, old))
                .map(|k| Step::RemoveAddress(*k)),
        );
        steps.extend(
            removed(&now.macs, &then.macs, |place, old, new| old == new && then.port_has_mac(*old, *place))
                .map(|k| Step::RemoveMac(*k)),
        );
        steps.extend(
            removed(&now.subnets, &then.subnets, |_, old, new| old.vni == new.vni)
                .map(|k| Step::RemoveSubnet(*k)),
        );
        self.strip_eips();
    }

    /// An EIP that passes to another address is taken from the old one first.
    fn strip_eips(&mut self) {
        let owner: BTreeMap<Ipv4, Place> = self
            .then
            .addresses
            .iter()
            .filter(|(_, entry)| entry.eip.is_some())
            .map(|(place, entry)| (entry.eip.address, *place))
            .collect();
        for (place, old) in &self.now.addresses {
            let passes_on = owner.get(&old.eip.address).is_some_and(|heir| heir != place);
            if passes_on && self.then.addresses.contains_key(place) && address_stays(self.then, *place, old) {
                self.steps.push(Step::SetAddress(*place, AddressEntry { eip: SourceEip::default(), ..*old }));
            }
        }
    }

    /// Ownerships end before and after the right goes: before, so that no owner is left without one; after, because a
    /// claim may have come in between.
    fn remove_rights(&mut self) {
        let mut releases: Vec<Step> = self
            .now
            .members
            .keys()
            .filter(|slot| !self.then.members.contains_key(slot))
            .map(|&slot| Step::Release { slot, port: None })
            .collect();
        let mut changes = Vec::new();
        let mut forgotten = Vec::new();
        for (&(port, slot), old) in &self.now.grants {
            let key = GrantKey { port, slot };
            let new = self.then.grants.get(&(port, slot));
            let lost = old.rights.may_own() && !new.is_some_and(|new| new.rights.may_own());
            if lost {
                releases.push(Step::Release { slot, port: Some(port) });
            }
            match new {
                None => {
                    changes.push(Step::RemoveGrant(key));
                    forgotten.push(Step::ForgetPort { slot, port });
                }
                // A virtual router MAC that is not allowed any more must not be claimed with before the owner's end.
                Some(new) if lost || (old.rights.may_own() && old.vrids != new.vrids) => {
                    changes.push(Step::SetGrant(key, *new));
                }
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
        for (&index, old) in &self.now.ports {
            let Some(new) = self.then.ports.get(&index) else { continue };
            let dev = self.now.port_devs.get(&index);
            let leaves = old.ifindex != 0 && old.ifindex != new.ifindex;
            if leaves {
                let entry = PortEntry { ifindex: 0, flags: without_xdp(old.flags), ..*old };
                self.steps.push(Step::SetPort(index, entry));
            } else if old.flags.has(PortFlags::TAKES_XDP) && !new.flags.has(PortFlags::TAKES_XDP) {
                self.steps.push(Step::SetPort(index, PortEntry { flags: without_xdp(old.flags), ..*old }));
            }
            if dev.is_some_and(|dev| self.then.port_devs.get(&index) != Some(dev)) {
                self.steps.push(Step::RemovePortDev(index));
            }
            if leaves {
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
        let Self { now, then, steps } = self;
        for (&slot, old) in &now.members {
            match then.members.get(&slot) {
                None => steps.push(Step::ClearMembers(slot)),
                Some(new) => {
                    let both = common_members(old, new);
                    if both != *old {
                        steps.push(Step::SetMembers(slot, both));
                    }
                }
            }
        }
        for (&index, _) in now.ports.iter().filter(|(index, _)| !then.ports.contains_key(index)) {
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
        let now = &self.reached();
        let Self { then, steps, .. } = self;
        let gone = now.networks.keys().filter(|index| !then.networks.contains_key(index));
        steps.extend(gone.map(|&index| Step::SetNetwork(index, EipNetwork::default())));
        steps.extend(
            changed(&now.networks, &then.networks).map(|(&index, network)| Step::SetNetwork(index, *network)),
        );
        steps.extend(
            changed(&now.port_devs, &then.port_devs)
                .map(|(&index, &ifindex)| Step::SetPortDev(index, ifindex)),
        );
        steps.extend(changed(&now.ports, &then.ports).map(|(&index, port)| Step::SetPort(index, *port)));
        for (&slot, new) in &then.members {
            match now.members.get(&slot) {
                None => steps.extend([Step::FreshSlot(slot), Step::SetMembers(slot, *new)]),
                Some(old) if old != new => steps.push(Step::SetMembers(slot, *new)),
                Some(_) => {}
            }
        }
        let fresh = then.eips.iter().filter(|(eip, target)| self.now.eips.get(eip) != Some(target));
        steps.extend(fresh.map(|(_, target)| Step::FreshEip(*target)));
    }

    fn add_rights(&mut self) {
        let now = self.reached();
        let grants = changed(&now.grants, &self.then.grants);
        self.steps
            .extend(grants.map(|(&(port, slot), grant)| Step::SetGrant(GrantKey { port, slot }, *grant)));
    }

    fn add_look_ups(&mut self) {
        let now = self.reached();
        let Self { then, steps, .. } = self;
        steps.extend(
            changed(&now.subnets, &then.subnets).map(|(prefix, entry)| Step::SetSubnet(*prefix, *entry)),
        );
        steps.extend(
            changed(&now.addresses, &then.addresses).map(|(place, entry)| Step::SetAddress(*place, *entry)),
        );
        steps.extend(changed(&now.macs, &then.macs).map(|(place, &index)| Step::SetMac(*place, index)));
        steps.extend(changed(&now.eips, &then.eips).map(|(eip, entry)| Step::SetEip(*eip, *entry)));
        steps.extend(
            changed(&now.interfaces, &then.interfaces)
                .map(|(&ifindex, &index)| Step::SetInterface(ifindex, index)),
        );
    }
}

/// Whether an EIP's target stays what it is.
fn eip_stays(now: &Contents, then: &Contents, target: Target) -> bool {
    match target.kind() {
        Some(AddressKind::Vip(slot)) => {
            now.members.get(&slot).is_some_and(|vip| then.vip_is_at(slot, (vip.vni, vip.address)))
        }
        Some(AddressKind::Fixed(index)) => {
            now.ports.get(&index).is_some_and(|port| then.port_is_at(index, (port.vni, port.address)))
        }
        _ => false,
    }
}

/// Whether the old value may stand until the new one replaces it: what it leads to stays as it is.
fn address_stays(then: &Contents, place: Place, old: &AddressEntry) -> bool {
    match old.kind {
        AddressKind::Fixed(port) => then.port_is_at(port, place),
        AddressKind::Vip(slot) => then.vip_is_at(slot, place),
        AddressKind::Gateway(_) | AddressKind::ExternalGateway(_) => true,
    }
}

/// The new value with only those members that the slot has already.
fn common_members(old: &Members, new: &Members) -> Members {
    let mut ports = [0; MAX_MEMBERS];
    let both = new.ports.iter().filter(|port| **port != 0 && old.ports.contains(port));
    for (place, port) in ports.iter_mut().zip(both) {
        *place = *port;
    }
    Members { ports, ..*new }
}

fn without_xdp(flags: PortFlags) -> PortFlags {
    [PortFlags::BYPASS, PortFlags::BRIDGED, PortFlags::EXTERNAL_ROUTER]
        .into_iter()
        .filter(|flag| flags.has(*flag))
        .fold(PortFlags::default(), PortFlags::with)
}
