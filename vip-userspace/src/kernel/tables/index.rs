//! NODES and SCATTERED: what addresses are.
//!
//! See [`vip_common::tables::index`] for the tree. Here is who builds it: a prefix gets a page when [`CROWD`] addresses share it,
//! and gives the page back when the last one leaves. Without a free page addresses stay scattered, which costs time but no address.
//! So the memory is at most a page per level for each crowd, 256 bytes an address, plus an entry of SCATTERED for each of the others;
//! a full /24 costs 4 bytes an address.
//!
//! Programs look up all the time. A page is filled before a branch leads to it; entries of SCATTERED that a page has taken over
//! go when no program can be looking for them there any more; a page that was given back rests before it is used again.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    sync::{Mutex, MutexGuard, PoisonError},
    thread,
    time::{Duration, Instant},
};

use aya::maps::Map;
use vip_common::{
    tables::{
        Target, VniAddress,
        index::{Branch, EIP_ROOT, LEVELS, find_in},
        names,
    },
    wire::Ipv4,
};

use super::{HashTable, KernelError, pages::Pages};
use crate::kernel::syscall;

/// Addresses with a common prefix that are worth a page.
const CROWD: usize = 16;

/// How long a page rests after it was given back: a program that found it before is done long before.
const REST: Duration = Duration::from_secs(1);

/// How long to wait for the programs where the kernel cannot tell when they are done.
const GRACE: Duration = Duration::from_millis(100);

/// VNI (0: EIPs) and address in host order, so that addresses of one prefix are neighbours.
type Key = (u32, u32);

/// A change of the index: an address and what it shall be; `None`: nothing.
pub type Change = (VniAddress, Option<Target>);

/// EIP or address of a VPC → what it is.
pub struct AddressIndex {
    pages: Pages,
    scattered: HashTable<VniAddress, Target>,
    /// Pages that only VPCs' roots may have.
    reserve: u32,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Root page by VNI; 0: EIPs.
    roots: BTreeMap<u32, u32>,
    /// Words in use, by page.
    used: BTreeMap<u32, u16>,
    /// Lowest page that was never used.
    fresh: u32,
    free: Vec<u32>,
    resting: Vec<(Instant, u32)>,
    /// What SCATTERED has.
    scattered: BTreeMap<Key, Target>,
    /// Entries of SCATTERED that a page has taken over.
    shadowed: Vec<VniAddress>,
}

impl State {
    fn root_of(&self, vni: u32) -> Result<u32, KernelError> {
        self.roots.get(&vni).copied().ok_or(KernelError::NoRoot { vni })
    }
}

fn key_of(address: VniAddress) -> Key {
    (address.vni, u32::from_be_bytes(address.address.octets()))
}

fn address_of((vni, address): Key) -> VniAddress {
    VniAddress { vni, address: Ipv4::new(address.to_be_bytes()) }
}

/// The octet of an address that a level looks at.
fn octet((_, address): Key, level: usize) -> u8 {
    address.to_be_bytes().get(level).copied().unwrap_or_default()
}

/// First and last key with the same octets as `key` up to and including a level.
fn prefix((vni, address): Key, level: usize) -> std::ops::RangeInclusive<Key> {
    let host = u32::MAX.checked_shr(8 * (u32::try_from(level).unwrap_or(0) + 1)).unwrap_or(0);
    (vni, address & !host)..=(vni, address | host)
}

impl AddressIndex {
    /// The index, empty or as another process left it. `roots`: the roots of the VPCs that are in other tables. `reserve`: how many
    /// VPCs there may be.
    pub(super) fn open(
        nodes: Map,
        scattered: Map,
        roots: impl IntoIterator<Item = (u32, u32)>,
        reserve: u32,
    ) -> Result<Self, KernelError> {
        let pages = Pages::open(nodes)?;
        let scattered = HashTable::new(names::SCATTERED, scattered)?;
        let mut state = State { roots: roots.into_iter().collect(), ..State::default() };
        state.roots.insert(0, EIP_ROOT);
        let mut all: Vec<u32> = Vec::new();
        for &root in state.roots.values() {
            recover(&pages, root, 0, &mut state.used, &mut all);
        }
        all.sort_unstable();
        state.fresh = all.last().map_or(1, |last| last + 1);
        let mut present = all.into_iter().peekable();
        for page in 0..state.fresh {
            if present.next_if_eq(&page).is_none() {
                state.free.push(page);
            }
        }
        let index = Self { pages, scattered, reserve, state: Mutex::new(State::default()) };
        for (address, target) in index.scattered.entries()? {
            let is_reached = state.roots.get(&address.vni).is_some_and(|root| {
                find_in(*root, &address, |page, octet| index.pages.word(page, octet)) == Branch::Scattered
            });
            if is_reached {
                state.scattered.insert(key_of(address), target);
            } else {
                state.shadowed.push(address);
            }
        }
        index.forget_shadowed(&mut state)?;
        *index.lock() = state;
        Ok(index)
    }

    /// Most addresses that it can have, all of them scattered.
    pub fn capacity(&self) -> u32 {
        self.scattered.capacity()
    }

    /// Pages that there are, and how many are in use.
    pub fn pages(&self) -> (u32, u32) {
        let in_use = u32::try_from(self.lock().used.len()).unwrap_or(u32::MAX);
        (self.pages.len(), in_use)
    }

    /// Addresses that have no page.
    pub fn scattered(&self) -> usize {
        self.lock().scattered.len()
    }

    /// The root page of a VPC, which gets one now if it has none. [`KernelError::TableFull`] if there are more VPCs than subnets.
    pub fn root(&self, vni: u32) -> Result<u32, KernelError> {
        let mut state = self.lock();
        if let Some(root) = state.roots.get(&vni) {
            return Ok(*root);
        }
        let root = self
            .take_page(&mut state, 0)
            .ok_or(KernelError::TableFull { table: names::NODES, capacity: self.pages.len() })?;
        state.roots.insert(vni, root);
        Ok(root)
    }

    /// Gives the root pages of all VPCs back that have no addresses and are not in `vnis`.
    pub fn retain_roots(&self, vnis: &BTreeSet<u32>) {
        let mut state = self.lock();
        let State { roots, used, resting, .. } = &mut *state;
        let rested = Instant::now() + REST;
        roots.retain(|vni, root| {
            let stays = *vni == 0 || vnis.contains(vni) || used.get(root).is_some_and(|used| *used > 0);
            if !stays {
                used.remove(root);
                resting.push((rested, *root));
            }
            stays
        });
    }

    /// What an address is.
    pub fn get(&self, address: &VniAddress) -> Option<Target> {
        let state = self.lock();
        let root = *state.roots.get(&address.vni)?;
        match find_in(root, address, |page, octet| self.pages.word(page, octet)) {
            Branch::Nothing => None,
            Branch::Scattered => state.scattered.get(&key_of(*address)).copied(),
            Branch::Node(word) => Some(Target::from_word(word)),
        }
    }

    /// Every address.
    pub fn entries(&self) -> Vec<(VniAddress, Target)> {
        let state = self.lock();
        let mut entries: Vec<(VniAddress, Target)> =
            state.scattered.iter().map(|(key, target)| (address_of(*key), *target)).collect();
        for (&vni, &root) in &state.roots {
            self.collect(root, 0, (vni, 0), &mut entries);
        }
        entries
    }

    fn collect(&self, page: u32, level: usize, key: Key, entries: &mut Vec<(VniAddress, Target)>) {
        for (octet, word) in self.pages.words(page) {
            let key = (key.0, key.1 | u32::from(octet) << (8 * (LEVELS - 1 - level)));
            if level == LEVELS - 1 {
                entries.push((address_of(key), Target::from_word(word)));
            } else if let Branch::Node(next) = Branch::of(word) {
                self.collect(next, level + 1, key, entries);
            }
        }
    }

    /// Makes changes, one after the other, each seen whole by the programs. Neighbours among new addresses get their pages at
    /// once. [`KernelError::TableFull`] leaves the changes before it made.
    pub fn apply(&self, changes: &[Change]) -> Result<(), KernelError> {
        let mut state = self.lock();
        let made = self.make(&mut state, changes);
        let forgotten = self.forget_shadowed(&mut state);
        made.and(forgotten)
    }

    fn make(&self, state: &mut State, changes: &[Change]) -> Result<(), KernelError> {
        let of = |(address, _): &Change| prefix(key_of(*address), LEVELS - 2);
        for neighbours in changes.chunk_by(|a, b| of(a) == of(b)) {
            let mut crowd = neighbours.iter().filter(|(_, target)| target.is_some()).count();
            for (address, target) in neighbours {
                match target {
                    Some(target) => {
                        self.insert(state, key_of(*address), *target, crowd)?;
                        crowd -= 1;
                    }
                    None => self.remove(state, key_of(*address))?,
                }
            }
        }
        Ok(())
    }

    /// `crowd`: how many addresses of the same /24 are still to be added, this one included.
    fn insert(&self, state: &mut State, key: Key, target: Target, crowd: usize) -> Result<(), KernelError> {
        let address = address_of(key);
        let mut page = state.root_of(key.0)?;
        for level in 0..LEVELS - 1 {
            let octet = octet(key, level);
            let before = Branch::of(self.pages.word(page, octet));
            if let Branch::Node(next) = before {
                page = next;
                continue;
            }
            let others = state.scattered.range(prefix(key, level)).filter(|(other, _)| **other != key);
            let gathered = others.take(CROWD).count() + crowd;
            let next = if gathered >= CROWD { self.take_page(state, self.reserve) } else { None };
            let Some(next) = next else {
                self.scattered.insert(address, target)?;
                state.scattered.insert(key, target);
                self.set(state, page, octet, Branch::Scattered.word());
                return Ok(());
            };
            self.move_in(state, next, level + 1, key);
            self.set(state, page, octet, Branch::Node(next).word());
            page = next;
        }
        self.set(state, page, octet(key, LEVELS - 1), target.word());
        Ok(())
    }

    /// Lets a new page, which nothing leads to yet, take over the scattered addresses of its prefix.
    fn move_in(&self, state: &mut State, page: u32, level: usize, key: Key) {
        let range = prefix(key, level - 1);
        let moved: Vec<(Key, Target)> =
            state.scattered.range(range).map(|(key, target)| (*key, *target)).collect();
        for (key, target) in moved {
            let octet = octet(key, level);
            if level == LEVELS - 1 {
                state.scattered.remove(&key);
                state.shadowed.push(address_of(key));
                self.set(state, page, octet, target.word());
            } else {
                self.set(state, page, octet, Branch::Scattered.word());
            }
        }
    }

    fn remove(&self, state: &mut State, key: Key) -> Result<(), KernelError> {
        let mut way = Vec::with_capacity(LEVELS);
        let mut page = state.root_of(key.0)?;
        for level in 0..LEVELS - 1 {
            let octet = octet(key, level);
            way.push((page, octet));
            match Branch::of(self.pages.word(page, octet)) {
                Branch::Nothing => return Ok(()),
                Branch::Node(next) => page = next,
                Branch::Scattered => {
                    if state.scattered.remove(&key).is_some() {
                        self.scattered.remove(&address_of(key))?;
                    }
                    if state.scattered.range(prefix(key, level)).next().is_none() {
                        self.unset(state, &way);
                    }
                    return Ok(());
                }
            }
        }
        way.push((page, octet(key, LEVELS - 1)));
        self.unset(state, &way);
        Ok(())
    }

    /// Sets the last word of a way from the root to 0, and gives back the pages that are empty then.
    fn unset(&self, state: &mut State, way: &[(u32, u8)]) {
        for &(page, octet) in way.iter().rev() {
            self.set(state, page, octet, 0);
            let is_empty = state.used.get(&page).is_some_and(|used| *used == 0);
            if !is_empty || way.first().is_some_and(|(root, _)| *root == page) {
                return;
            }
            state.used.remove(&page);
            state.resting.push((Instant::now() + REST, page));
        }
    }

    fn set(&self, state: &mut State, page: u32, octet: u8, word: u32) {
        let used = state.used.entry(page).or_default();
        match (self.pages.word(page, octet), word) {
            (0, 0) => {}
            (0, _) => *used += 1,
            (_, 0) => *used -= 1,
            (_, _) => {}
        }
        self.pages.set(page, octet, word);
    }

    /// An empty page, if there are more than `reserve`.
    fn take_page(&self, state: &mut State, reserve: u32) -> Option<u32> {
        let now = Instant::now();
        let State { resting, free, .. } = state;
        resting.retain(|(rested, page)| {
            let rests = *rested > now;
            if !rests {
                free.push(*page);
            }
            rests
        });
        let roots = u32::try_from(state.roots.len()).unwrap_or(u32::MAX);
        let left = (self.pages.len() - state.fresh) as usize + state.free.len();
        // Each VPC that has its root already needs no reserve.
        if left <= reserve.saturating_sub(roots) as usize {
            return None;
        }
        let page = state.free.pop().unwrap_or_else(|| {
            state.fresh += 1;
            state.fresh - 1
        });
        self.pages.clear(page);
        state.used.insert(page, 0);
        Some(page)
    }

    /// Removes what pages have taken over from SCATTERED.
    fn forget_shadowed(&self, state: &mut State) -> Result<(), KernelError> {
        if state.shadowed.is_empty() {
            return Ok(());
        }
        if let Err(error) = syscall::wait_for_programs() {
            tracing::debug!(%error, "the kernel does not tell when programs are done; waiting {GRACE:?} instead");
            thread::sleep(GRACE);
        }
        while let Some(address) = state.shadowed.last() {
            // It may have become scattered again meanwhile.
            if !state.scattered.contains_key(&key_of(*address)) {
                self.scattered.remove(address)?;
            }
            state.shadowed.pop();
        }
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Finds the pages of a tree.
fn recover(pages: &Pages, page: u32, level: usize, used: &mut BTreeMap<u32, u16>, all: &mut Vec<u32>) {
    let mut count = 0;
    all.push(page);
    for (_, word) in pages.words(page) {
        count += 1;
        if level < LEVELS - 1
            && let Branch::Node(next) = Branch::of(word)
        {
            recover(pages, next, level + 1, used, all);
        }
    }
    used.insert(page, count);
}

impl fmt::Debug for AddressIndex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (pages, in_use) = self.pages();
        write!(f, "AddressIndex({in_use} of {pages} pages)")
    }
}
