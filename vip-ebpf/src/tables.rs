//! The maps as the pipeline's tables.

use core::ptr::from_ref;

use aya_ebpf::{helpers::generated::bpf_ktime_get_boot_ns, maps::lpm_trie::Key};
use vip_common::{
    pipeline::{Advertised, Claim, ClaimOutcome, SourceQuestion, Tables},
    tables::{
        Advert, Config, Direction, EipNetwork, Event, Grant, GrantKey, HostEntry, MacKey, Members,
        MeterClass, Move, NextHop, RouteEntry, SubnetEntry, Target, VniAddress, VniEntry, Way,
        index::{self, EIP_ROOT, Node},
    },
    wire::Ipv4,
};

use crate::{
    apart, maps,
    record::{Port, Vip, look_up},
};

/// The maps of this object.
pub(crate) struct Maps;

impl Tables for Maps {
    type Vip = Vip;
    type Port = Port;

    #[inline(always)]
    fn now(&self) -> u64 {
        // SAFETY: the helper has no preconditions.
        unsafe { bpf_ktime_get_boot_ns() }
    }

    #[inline(always)]
    fn config(&self) -> Option<&Config> {
        maps::CONFIG.get(0)
    }

    #[inline(always)]
    fn eip(&self, address: Ipv4) -> Option<Target> {
        let root = EIP_ROOT;
        index::find(&root, &VniAddress::eip(address), node, scattered)
    }

    #[inline(always)]
    fn address(&self, root: u32, key: &VniAddress) -> Option<Target> {
        match apart::find_address(root, key.vni, key.address.raw()) {
            0 => None,
            word => Some(Target::from_word(word)),
        }
    }

    #[inline(always)]
    fn port_by_mac(&self, key: &MacKey) -> Option<u32> {
        // SAFETY: memory of an element stays one of this map's elements. One that is removed may be reused at once, so a frame
        // under way may see another entry's value, as it would have an instant later; the agent writes words whole.
        unsafe { maps::MACS.get(key) }.copied()
    }

    #[inline(always)]
    fn port_by_interface(&self, ifindex: u32) -> Option<u32> {
        // SAFETY: as in `port_by_mac`.
        unsafe { maps::IFPORTS.get(ifindex) }.copied()
    }

    #[inline(always)]
    fn port(&self, index: u32) -> Option<Port> {
        Port::find(index)
    }

    #[inline(always)]
    fn grant(&self, key: &GrantKey) -> Option<&Grant> {
        // SAFETY: as in `port_by_mac`.
        unsafe { maps::GRANTS.get(key) }
    }

    #[inline(always)]
    fn vip(&self, slot: u32) -> Option<Vip> {
        Vip::find(slot)
    }

    #[inline(always)]
    fn advert(&self, key: &GrantKey) -> Option<Advert> {
        // SAFETY: as in `port_by_mac`.
        unsafe { maps::ADVERTS.get(key) }.copied()
    }

    #[inline(always)]
    fn put_advert(&self, key: &GrantKey, advert: &Advert) {
        let _no_room = maps::ADVERTS.insert(key, advert, 0);
    }

    #[inline(always)]
    fn remove_advert(&self, key: &GrantKey) {
        let _not_there = maps::ADVERTS.remove(key);
    }

    #[inline(always)]
    fn members(&self, slot: u32) -> Option<&Members> {
        maps::MEMBERS.get(slot)
    }

    #[inline(always)]
    fn subnet(&self, key: &VniAddress) -> Option<&SubnetEntry> {
        maps::SUBNETS.get(Key::new(64, key.trie_key()))
    }

    #[inline(always)]
    fn route(&self, destination: Ipv4) -> Option<&RouteEntry> {
        maps::ROUTES.get(Key::new(32, destination))
    }

    #[inline(always)]
    fn next_hop(&self, address: Ipv4) -> Option<&NextHop> {
        // SAFETY: as in `port_by_mac`.
        unsafe { maps::NEXTHOPS.get(address) }
    }

    #[inline(always)]
    fn host(&self, index: u32) -> Option<&HostEntry> {
        maps::HOSTS.get(index)
    }

    #[inline(always)]
    fn vtep(&self, address: Ipv4) -> Option<u32> {
        // SAFETY: as in `port_by_mac`.
        unsafe { maps::VTEPS.get(address) }.copied()
    }

    #[inline(always)]
    fn vni(&self, vni: u32) -> Option<&VniEntry> {
        // SAFETY: as in `port_by_mac`.
        unsafe { maps::VNIS.get(vni) }
    }

    #[inline(always)]
    fn network(&self, index: u16) -> Option<&EipNetwork> {
        maps::NETWORKS.get(u32::from(index))
    }

    #[inline(always)]
    fn record_move(&self, index: u32, record: &Move) {
        if let Some(entry) = maps::MOVES.get_ptr_mut(index) {
            // SAFETY: one CPU only wins the epoch whose record this is; a reader checks the epoch.
            unsafe { *entry = *record };
        }
    }

    #[inline(always)]
    fn take_pending(&self, slot: u32) {
        apart::take_pending(slot);
    }

    #[inline(always)]
    fn take_claim(&self, claim: &Claim) -> ClaimOutcome {
        match apart::take_claim(claim.slot, claim.port, u32::from(claim.vrid), claim.form.number()) {
            0 => ClaimOutcome::Accepted,
            _ => ClaimOutcome::Waiting,
        }
    }

    #[inline(always)]
    fn learn_unowned(&self, claim: &Claim) {
        apart::learn_unowned(claim.slot, claim.port, u32::from(claim.vrid), claim.form.number());
    }

    #[inline(always)]
    fn report_use(&self, slot: u32, port: u32) {
        apart::report_use(slot, port);
    }

    #[inline(always)]
    fn advertised(&self, advertised: &Advertised) {
        let &Advertised { slot, port, address, interval, vrid, priority } = advertised;
        apart::advertised(slot, port, address.raw(), interval, u32::from(vrid) << 8 | u32::from(priority));
    }

    #[inline(always)]
    fn source_of(&self, question: &SourceQuestion) -> u32 {
        let &SourceQuestion { port, source, destination, vrid, unicast } = question;
        apart::source_of(port, source.raw(), destination.raw(), u32::from(vrid), u32::from(unicast))
    }

    #[inline(always)]
    fn notify(&self, event: &Event) {
        send(event);
    }

    #[inline(always)]
    fn may_send_error(&self) -> bool {
        let class = MeterClass::IcmpError;
        // SAFETY: the element belongs to this CPU, which runs one program at a time in this context.
        maps::METERS
            .get_ptr_mut(class as u32)
            .is_some_and(|meter| unsafe { (*meter).admit(class, self.now()) })
    }

    #[inline(always)]
    fn observe(&self, decision: u64) {
        if maps::OBSERVED.load() != 0
            && let Some(last) = maps::VERDICTS.get_ptr_mut(0)
        {
            // SAFETY: the element belongs to this CPU.
            unsafe { *last = decision };
        }
    }

    #[inline(always)]
    fn count_drop(&self, reason: u32) {
        if let Some(packets) = maps::DROPS.get_ptr_mut(reason) {
            // SAFETY: the element belongs to this CPU.
            unsafe { *packets += 1 };
        }
    }

    #[inline(always)]
    fn count_port(&self, port: Port, direction: Direction, bytes: usize) {
        port.count(direction, bytes);
    }

    #[inline(always)]
    fn count_vip(&self, vip: Vip, way: Way, direction: Direction, bytes: usize) {
        vip.count(way, direction, bytes);
    }
}

/// The page whose number is at a place: in another page, or on the stack.
#[inline(always)]
pub(crate) fn node<'n>(number: &u32) -> Option<&'n Node> {
    // SAFETY: the look-up reads four bytes; a page is never shorter than its type, and words of pages change whole.
    unsafe { look_up(from_ref(&maps::NODES).cast_mut().cast(), number)?.cast::<Node>().as_ref() }
}

#[inline(always)]
pub(crate) fn scattered(key: &VniAddress) -> Option<Target> {
    // SAFETY: as in `port_by_mac`.
    unsafe { maps::SCATTERED.get(key) }.copied()
}

/// Sends an event. In line with its callers, which are rarely called and out of line themselves: a frame of its own takes 32
/// bytes of the 512 that a chain of calls has on Linux 6.1.
#[inline(always)]
fn send(event: &Event) {
    let Some(kind) = event.kind() else { return };
    let class = kind.class();
    let Some(meter) = maps::METERS.get_ptr_mut(class as u32) else { return };
    // SAFETY: the element belongs to this CPU, which runs one program at a time in this context.
    let meter = unsafe { &mut *meter };
    if !meter.admit(class, event.at) {
        return;
    }
    // Written in place: a copy of its own would take stack.
    match maps::EVENTS.reserve::<Event>(0) {
        Some(mut entry) => {
            entry.write(*event);
            entry.submit(0);
        }
        None => meter.lost += 1,
    }
}
