//! What the programs tell, and what follows: moves, silent owners, announcements.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::Ipv4Addr,
    ops::Range,
    time::{Duration, Instant},
};

use vip_common::{
    tables::{
        Advert, ClaimForm, EipNetwork, Event, EventKind, GrantKey, MeterClass, OwnerEntry, OwnerWord,
        Pending, PortEntry, Target,
    },
    wire::Mac,
};

use super::{
    conflicts::Change,
    error::chain,
    history::Record,
    late_claims::may_have_been_claimed,
    owners,
    owners::Waited,
    run::Agent,
    silent_owner::Use,
    words::{PART, Unjudged},
};
use crate::{
    kernel::{KernelError, Tables},
    net::{BootClock, LinkKind, NetError, PacketSocket, Route, announcement, request},
    plan::unjustified,
    state::Id,
};

/// How long after its due time a claim that waited is looked at: a packet that takes it tells so itself.
const AFTER_PACKETS: Duration = Duration::from_millis(5);

/// What a refused frame is told apart by in the log: port and reason.
pub(super) type Refusal = (u32, u32);

/// The MAC that an owner receives a VIP by.
fn mac_of(port: &PortEntry, word: OwnerWord) -> Mac {
    match word.vrid() {
        0 => port.mac,
        vrid => Mac::of_vrid(vrid),
    }
}

/// Whether a port that had a VIP when it was last looked at has it, but by a later epoch: it may have been without it meanwhile.
fn came_back(before: OwnerWord, now: OwnerWord) -> bool {
    now.port() != 0 && before.port() == now.port() && before.epoch() != now.epoch()
}

/// The owners' words, by slot, of slots in the tables.
fn present_words(
    tables: &Tables,
    slots: impl Iterator<Item = u32>,
) -> impl Iterator<Item = (u32, OwnerWord)> {
    slots.filter_map(|slot| Some((slot, tables.vips.load(slot).ok()?.word)))
}

impl Agent {
    /// Reacts to events.
    pub(super) async fn take_events(&mut self, batch: &[Event]) {
        let now = Instant::now();
        let of_kind = |kind| batch.iter().filter(move |event| event.kind() == Some(kind));
        // Before everything else: while they do not know, other hosts send to the owner before.
        self.tell_peers(of_kind(EventKind::Moved).map(|event| event.slot));
        let claims = |event: &&Event| matches!(event.kind(), Some(EventKind::Damped | EventKind::Repeated));
        self.tell_claims(&batch.iter().filter(claims).map(|event| event.slot).collect::<Vec<_>>());
        // Answers first: a use that stands before the answer must not win over it.
        for event in of_kind(EventKind::OwnerAnswered) {
            self.silent.answered(event.slot, event.port);
        }
        let mut moved = BTreeSet::new();
        let mut unheard = BTreeSet::new();
        for event in batch {
            match event.kind() {
                Some(EventKind::Moved) => {
                    moved.insert(event.slot);
                    self.take_move(event);
                    if self.late.moved(event.slot, event.port) {
                        unheard.insert(event.slot);
                    }
                }
                Some(EventKind::Damped) => {
                    self.expect_late(event.slot, now);
                    tracing::debug!(
                        vip = %self.vip_name(event.slot),
                        port = %self.port_name(event.port),
                        "a claim waits, because the VIP moved too often"
                    );
                }
                Some(EventKind::Refused) => self.log_refusal(event, now),
                Some(EventKind::MemberUses | EventKind::Advertises) => {
                    // The programs tell of uses and adverts now and then, and of both by turns that whichever comes first takes: a rival
                    // that also uses the VIP may never be told of as one.
                    let is_judged = self.judge_masters(event.slot);
                    // The only master uses the VIP, though it sends nothing from it. Of several it is decided who has it.
                    let is_use = event.kind() == Some(EventKind::MemberUses)
                        || !self.conflicts.slots().contains(&event.slot);
                    if is_judged || is_use && self.take_use(event, now) {
                        moved.insert(event.slot);
                        unheard.insert(event.slot);
                    }
                }
                // The other hosts are told already.
                Some(EventKind::Repeated | EventKind::OwnerAnswered) => {}
                None => tracing::debug!(?event, "an event of another version"),
            }
        }
        self.ask_silent_owners(now);
        self.follow_moves(&moved, &unheard).await;
    }

    /// Does what follows when VIPs in the slots `moved` have; nobody on the owner's bridge has heard of those in `unheard`.
    async fn follow_moves(&mut self, moved: &BTreeSet<u32>, unheard: &BTreeSet<u32>) {
        if !moved.is_empty() {
            self.look_at_words_of(moved);
            self.owners_changed().await;
        }
        for &slot in unheard {
            if let Err(error) = self.tell_bridge(slot) {
                tracing::debug!(
                    "the new owner of {} was not announced: {}",
                    self.vip_name(slot),
                    chain(&error)
                );
            }
        }
    }

    fn take_move(&mut self, event: &Event) {
        let port = |index: u32| (index != 0).then(|| self.port_name(index));
        let Some(form) = ClaimForm::from_number(event.form) else { return };
        let record = Record {
            epoch: event.epoch,
            at: event.at,
            port: port(event.port),
            previous: port(event.previous),
            form,
        };
        let new = self.shared.history().merge(event.slot, [record]);
        self.log_moves(event.slot, &new);
    }

    fn log_moves(&self, slot: u32, moves: &[Record]) {
        let vip = self.vip_name(slot);
        for Record { epoch, at: _, port, previous, form } in moves {
            let name = |id: &Option<Id>| id.as_ref().map_or_else(|| "nobody".to_owned(), ToString::to_string);
            let (from, to) = (name(previous), name(port));
            tracing::info!(%vip, epoch, form = form.name(), "{vip} moved from {from} to {to}");
        }
    }

    fn log_refusal(&mut self, event: &Event, now: Instant) {
        let Some(before) = self.quiet.admit((event.port, event.reason), now) else { return };
        let reason = event.reason().map_or("unknown", |reason| reason.name());
        tracing::warn!(
            port = %self.port_name(event.port),
            address = %event.address,
            mac = %event.mac,
            not_logged_before = before,
            "refused: {reason}"
        );
    }

    /// A member that does not own a VIP uses it, or advertises it. Tells whether the VIP moved.
    fn take_use(&mut self, event: &Event, now: Instant) -> bool {
        let (slot, member) = (event.slot, event.port);
        let Ok(entry) = self.tables.vips.load(slot) else { return false };
        let may_own =
            self.contents.near().grants.get(&(member, slot)).is_some_and(|grant| grant.rights.may_own());
        // Adverts are heard on other hosts, too; what they ask for, the member's own host asks.
        let is_here = self.contents.port_here(member).is_some();
        if entry.word.port() == 0 || entry.word.port() == member || !may_own || !is_here {
            return false;
        }
        // Only the owner's own host can ask it.
        if self.tell_of_use(slot, entry.word) {
            self.silent.uses_elsewhere(slot, entry.word, member);
            return false;
        }
        // An answer may be among what was lost.
        self.forget_cases_of_lost_events();
        let Use::TakesOver(word) = self.silent.member_uses(slot, entry.word, now) else { return false };
        self.replace_silent(slot, word, member)
    }

    /// A member takes over from an owner that is silent. Tells whether the VIP moved.
    fn replace_silent(&self, slot: u32, word: OwnerWord, member: u32) -> bool {
        owners::take_over(&self.tables, slot, word, member, ClaimForm::SilentOwner).unwrap_or_else(|error| {
            tracing::error!("the silent owner of {} stays: {}", self.vip_name(slot), chain(&error));
            false
        })
    }

    /// A guest of another host uses a VIP that a guest here owns, since `epoch`. Tells whether that one has been silent for so long that it is
    /// to be replaced; if not, it is asked.
    pub(super) fn is_silent(&mut self, slot: u32, epoch: u64, now: Instant) -> bool {
        let Ok(entry) = self.tables.vips.load(slot) else { return false };
        if entry.word.epoch() != epoch || self.contents.port_here(entry.word.port()).is_none() {
            return false;
        }
        self.forget_cases_of_lost_events();
        let verdict = self.silent.member_uses(slot, entry.word, now);
        self.ask_silent_owners(now);
        verdict == Use::TakesOver(entry.word)
    }

    /// The host of a VIP's owner says that it is silent: the member here that uses the VIP takes over.
    pub(super) async fn take_silent(&mut self, slot: u32, epoch: u64) {
        let Some((word, member)) = self.silent.silent_elsewhere(slot, epoch) else { return };
        let may_own =
            self.contents.near().grants.get(&(member, slot)).is_some_and(|grant| grant.rights.may_own());
        if may_own && self.contents.port_here(member).is_some() && self.replace_silent(slot, word, member) {
            let slots = BTreeSet::from([slot]);
            self.follow_moves(&slots, &slots).await;
        }
    }

    /// Looks which members of a VIP take themselves for the master. Tells whether the VIP moved.
    fn judge_masters(&mut self, slot: u32) -> bool {
        // Who owns what by now, other hosts may not have told yet.
        if Instant::now() < self.judges_from {
            return false;
        }
        let change = match self.masters(slot) {
            Ok((adverts, now)) => self.conflicts.judge(slot, &adverts, now),
            Err(error) => {
                tracing::warn!("who advertises {} is not known: {}", self.vip_name(slot), chain(&error));
                return false;
            }
        };
        let Some(change) = change else { return false };
        self.shared.conflicts().clone_from(self.conflicts.slots());
        let vip = self.vip_name(slot);
        let Change::Began { master } = change else {
            tracing::info!(%vip, "the conflict about {vip} is over");
            return false;
        };
        let port = self.port_name(master);
        tracing::warn!(%vip, "conflict: several members advertise {vip} at once; {port} has the highest priority");
        // That of another host is made the owner there.
        if self.contents.port_here(master).is_none() {
            return false;
        }
        let assigned = self.tables.vips.load(slot).and_then(|entry| {
            let is_owner = entry.word.port() == master;
            Ok(!is_owner && owners::take_over(&self.tables, slot, entry.word, master, ClaimForm::Vrrp)?)
        });
        assigned.unwrap_or_else(|error| {
            tracing::error!("{port} does not become the owner of {vip}: {}", chain(&error));
            false
        })
    }

    /// What the members of a VIP advertise, by port index, and the time in nanoseconds since boot.
    fn masters(&self, slot: u32) -> Result<(BTreeMap<u32, Advert>, u64), KernelError> {
        let members = self.contents.near().members.get(&slot);
        let mut adverts = BTreeMap::new();
        for port in members.map(|members| members.ports).unwrap_or_default() {
            if port != 0
                && let Some(advert) = self.tables.adverts.get(&GrantKey { port, slot })?
            {
                adverts.insert(port, advert);
            }
        }
        Ok((adverts, BootClock::now()?.boot_ns()))
    }

    /// Looks whether conflicts are over.
    pub(super) fn look_at_conflicts(&mut self) {
        for slot in self.conflicts.slots().clone() {
            self.judge_masters(slot);
        }
    }

    /// Looks when the claim that waits for a VIP is due, if there is one.
    fn expect_late(&mut self, slot: u32, now: Instant) {
        let Ok(OwnerEntry { pending, .. }) = self.tables.vips.load(slot) else { return };
        if pending != Pending::NONE {
            self.late.waits(slot, pending.port(), now);
        }
    }

    /// Makes claims effective that have waited, where no packet did.
    pub(super) async fn take_late_claims(&mut self, now: Instant) {
        let mut moved = BTreeSet::new();
        for (slot, port) in self.late.due(now) {
            let grants = &self.contents.near().grants;
            match owners::take_pending(&self.tables, slot, |port| grants.get(&(port, slot)).copied()) {
                Ok(Waited::Gone) => {}
                // A packet that comes by is earlier.
                Ok(Waited::Waits(left)) => {
                    let due = now + Duration::from_millis(left.into()) + AFTER_PACKETS;
                    self.late.waits(slot, port, due);
                }
                Ok(Waited::Taken) => {
                    self.late.moved(slot, port);
                    moved.insert(slot);
                }
                Err(error) => {
                    tracing::error!("a claim of {} still waits: {}", self.vip_name(slot), chain(&error));
                }
            }
        }
        self.follow_moves(&moved, &moved).await;
    }

    /// Sends the questions that are due.
    pub(super) fn ask_silent_owners(&mut self, now: Instant) {
        for (slot, word) in self.silent.due(now) {
            let asked = self.ask(slot, word).unwrap_or_else(|error| {
                tracing::debug!("the owner of {} was not asked: {}", self.vip_name(slot), chain(&error));
                false
            });
            if !asked {
                self.silent.not_asked(slot);
            }
        }
    }

    /// Asks an owner whether it is still there, by an ARP probe (RFC 5227 section 1.1) to it alone. `false`: it
    /// has no interface to ask it by.
    fn ask(&self, slot: u32, word: OwnerWord) -> Result<bool, NetError> {
        let (Some(members), Some(port)) =
            (self.contents.near().members.get(&slot), self.contents.port_here(word.port()))
        else {
            return Ok(false);
        };
        let owner = mac_of(port, word).octets();
        let asker = Mac::of_address(members.address).octets();
        let frame = request(asker, owner, asker, Ipv4Addr::UNSPECIFIED, members.address.into());
        PacketSocket::open(port.ifindex)?.send(&frame)?;
        Ok(true)
    }

    /// Announces a VIP's owner on the Linux bridge that its port belongs to, as its own claim would have if it had gone on there:
    /// neighbours that are no ports know the owner by its real MAC.
    fn tell_bridge(&self, slot: u32) -> Result<(), NetError> {
        let Some(members) = self.contents.near().members.get(&slot) else { return Ok(()) };
        let word = self.words.get(slot);
        let Some(port) = self.contents.port_here(word.port()) else { return Ok(()) };
        let link = self.links.links().get(port.ifindex);
        let master = link.and_then(|link| link.master.as_ref());
        let Some(bridge) = master.filter(|master| master.kind == LinkKind::Bridge) else { return Ok(()) };
        let frame = announcement(mac_of(port, word).octets(), members.address.into());
        PacketSocket::open(bridge.ifindex)?.send(&frame)
    }

    /// Forgets questions whose answers may be among the events that were lost. That the owners are to be read anew is left to the regular
    /// look, which has not seen the loss then.
    fn forget_cases_of_lost_events(&mut self) {
        if let Ok(lost) = self.tables.meters.lost(MeterClass::Ownership) {
            self.silent.events_lost(lost);
        }
    }

    /// Tells whether events were lost since the last regular look. Open questions are forgotten then.
    fn notice_lost_events(&mut self) -> bool {
        let Ok(lost) = self.tables.meters.lost(MeterClass::Ownership) else { return false };
        self.silent.events_lost(lost);
        let before = std::mem::replace(&mut self.lost, lost);
        if lost != before {
            tracing::warn!("{} events were lost; reads the owners anew", lost.wrapping_sub(before));
        }
        lost != before
    }

    /// Tells the other hosts of claims that the events which were lost since the last look may have been about.
    fn tell_lost_claims(&mut self) {
        let Ok(lost) = self.tables.meters.lost(MeterClass::Waiting) else { return };
        let lost = self.late.events_lost(lost);
        if lost == 0 {
            return;
        }
        tracing::warn!(
            "{lost} events about claims that changed no owner were lost; tells the other hosts anew"
        );
        // Without a clock each that ever moved is told.
        let boot_ns = BootClock::now().map_or(0, |clock| clock.boot_ns());
        let claimed = |slot: &u32| {
            let entry = self.tables.vips.load(*slot).ok()?;
            let is_here = self.contents.port_here(entry.word.port()).is_some();
            may_have_been_claimed(&entry, is_here, boot_ns).then_some(*slot)
        };
        let slots: Vec<u32> = self.contents.near().members.keys().filter_map(claimed).collect();
        let now = Instant::now();
        for &slot in &slots {
            self.expect_late(slot, now);
        }
        self.tell_claims(&slots);
    }

    /// The regular look: what the events should have told. Of many VIPs it takes a part each time, and all when events were lost.
    pub(super) async fn look_at_owners(&mut self) {
        let mut changed = if self.notice_lost_events() {
            self.look_at_words();
            let all: Vec<u32> = self.contents.near().members.keys().copied().collect();
            self.read_moves(&all, true);
            true
        } else {
            let members = &self.contents.near().members;
            let part = |first| members.range(first..).take(PART).map(|(slot, _)| *slot).collect();
            let (slots, range) = self.words.next_part(part);
            self.look_at_range(range, &slots)
        };
        if self.end_unjustified() {
            changed |= self.look_at_words();
        }
        // After the words, which are told first.
        self.tell_lost_claims();
        if changed {
            self.owners_changed().await;
        }
    }

    /// Compares the owners' words with what was last seen, and reads the moves of those that changed. Tells whether any did.
    pub(super) fn look_at_words(&mut self) -> bool {
        let slots: Vec<u32> = self.contents.near().members.keys().copied().collect();
        self.look_at_range(0..u32::MAX, &slots)
    }

    /// The same for those slots in the tables that are in a range.
    fn look_at_range(&mut self, range: Range<u32>, slots: &[u32]) -> bool {
        let first = self.words.is_empty();
        let (mut words, mut late, mut again) = (Vec::new(), Vec::new(), BTreeSet::new());
        for &slot in slots {
            let Ok(entry) = self.tables.vips.load(slot) else { continue };
            if entry.pending != Pending::NONE {
                late.push(slot);
            }
            if came_back(self.words.get(slot), entry.word) {
                again.insert(slot);
            }
            words.push((slot, entry.word));
        }
        let (changed, any) = self.words.see_all(range, words.into_iter());
        // Those that nobody told of: the event was lost, or there was no vipd.
        let now = Instant::now();
        for slot in late {
            self.expect_late(slot, now);
        }
        self.tell_peers(changed.iter().copied());
        self.announce_again(&again);
        // Those before the start are history, not news.
        self.read_moves(&changed, !first);
        any
    }

    /// Looks at the words of a few slots: what the programs told of.
    pub(super) fn look_at_words_of(&mut self, slots: &BTreeSet<u32>) {
        let members = &self.contents.near().members;
        let present = slots.iter().copied().filter(|slot| members.contains_key(slot));
        let (mut changed, mut again) = (Vec::new(), BTreeSet::new());
        for (slot, word) in present_words(&self.tables, present) {
            let before = self.words.get(slot);
            if self.words.see(slot, word) {
                changed.push(slot);
            }
            if came_back(before, word) {
                again.insert(slot);
            }
        }
        self.tell_peers(changed.iter().copied());
        self.announce_again(&again);
        self.read_moves(&changed, true);
    }

    /// Reads the moves that the tables remember of slots; `tell`: logs those that are new.
    fn read_moves(&self, slots: &[u32], tell: bool) {
        for &slot in slots {
            let records = self.shared.read_moves(slot, &self.names);
            let new = self.shared.history().merge(slot, records);
            if tell {
                self.log_moves(slot, &new);
            }
        }
    }

    /// Ends ownerships that nobody has the right to, as far as words or rights have changed. Tells whether there were any.
    fn end_unjustified(&mut self) -> bool {
        let contents = self.contents.near();
        let words: Vec<(u32, OwnerWord)> = match self.words.take_unjudged() {
            Unjudged::All => present_words(&self.tables, contents.members.keys().copied()).collect(),
            Unjudged::Slots(slots) => {
                let present = slots.into_iter().filter(|slot| contents.members.contains_key(slot));
                present_words(&self.tables, present).collect()
            }
        };
        let steps = unjustified(contents, words);
        let problems = self.carry_out(&steps);
        if !problems.is_empty() {
            self.words.judge_all();
        }
        self.set_problems("owners", problems);
        !steps.is_empty()
    }

    /// Does what depends on who owns what.
    pub(super) async fn owners_changed(&mut self) {
        // First what the outside waits for.
        self.choose_announcements();
        self.announce(Instant::now());
        self.tend_bridges().await;
    }

    /// Finds the EIPs in networks that the uplink is in: only there does anybody ask for them by ARP.
    pub(super) fn find_announceable(&mut self) {
        let networks = &self.config.eip_networks;
        let routes = self.routes.table();
        let on_link = |eip: Ipv4Addr| {
            networks.iter().any(|network| network.cidr.contains(eip))
                || matches!(routes.lookup(eip), Some((_, Route::OnLink { .. })))
        };
        self.announceable = self.contents.eips().filter(|(eip, _)| on_link(*eip)).collect();
        self.choose_announcements();
    }

    /// Announces the EIPs whose owner is here.
    fn choose_announcements(&mut self) {
        let has_interface = |index: u32| self.contents.port_here(index).is_some();
        let is_here = |target: Target| match (target.as_vip(), target.as_port()) {
            (Some(slot), _) => has_interface(self.words.get(slot).port()),
            (None, Some(port)) => has_interface(port),
            (None, None) => false,
        };
        let wanted = self.config.announce_eips && self.uplink.is_some();
        let has_way = |eip| self.networks.interface_of(eip) != EipNetwork::MISSING;
        let eips = self.announceable.iter().filter(|(_, target)| wanted && is_here(*target));
        let here: BTreeSet<Ipv4Addr> = eips.map(|(eip, _)| *eip).filter(|eip| has_way(*eip)).collect();
        self.announcer.set(here, Instant::now());
    }

    /// Announces the EIPs of VIPs anew whose owner is here: another host may have announced them meanwhile.
    pub(super) fn announce_again(&mut self, slots: &BTreeSet<u32>) {
        if slots.is_empty() {
            return;
        }
        let is_of = |target: Target| target.as_vip().is_some_and(|slot| slots.contains(&slot));
        let eips = self.announceable.iter().filter(|(_, target)| is_of(*target)).map(|(eip, _)| *eip);
        self.announcer.forget_some(&eips.collect());
        self.choose_announcements();
        self.announce(Instant::now());
    }

    /// Sends the announcements that are due.
    pub(super) fn announce(&mut self, now: Instant) {
        let due = self.announcer.due(now);
        let Some(uplink) = self.uplink.as_ref().filter(|_| !due.is_empty()) else { return };
        let mut by_interface: BTreeMap<u32, Vec<Ipv4Addr>> = BTreeMap::new();
        for eip in due {
            let ifindex = match self.networks.interface_of(eip) {
                0 => uplink.ifindex,
                ifindex => ifindex,
            };
            by_interface.entry(ifindex).or_default().push(eip);
        }
        for (ifindex, eips) in by_interface {
            let sent = PacketSocket::open(ifindex).and_then(|socket| {
                eips.iter().try_for_each(|&eip| socket.send(&announcement(uplink.mac, eip)))
            });
            if let Err(error) = sent {
                // Each is repeated, and neighbours that ask are answered.
                tracing::debug!("EIPs were not announced: {}", chain(&error));
            }
        }
    }

    pub(super) fn port_name(&self, index: u32) -> Id {
        self.names.port(index)
    }

    /// The id of the VIP in a slot.
    pub(super) fn vip_name(&self, slot: u32) -> Id {
        self.names.vip(slot)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_owner_of_a_later_epoch_came_back_and_one_with_another_mac_or_claim_did_not() {
        let word = OwnerWord::new(4, true, 7, 0);
        assert!(came_back(word, OwnerWord::new(6, true, 7, 0)));
        for same in [word, OwnerWord::new(4, true, 7, 66), OwnerWord::new(4, false, 7, 0)] {
            assert!(!came_back(word, same));
        }
        assert!(!came_back(word, OwnerWord::new(5, true, 8, 0)), "it is another one");
        assert!(!came_back(OwnerWord::new(4, true, 0, 0), OwnerWord::new(5, true, 0, 0)), "it is nobody");
    }
}
