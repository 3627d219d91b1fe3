//! Objects while their file is being read: in its order, the wrong ones among them.

use std::{
    cell::Cell,
    hash::{BuildHasher as _, Hash},
};

use hashbrown::{DefaultHashBuilder, HashTable, hash_table::Entry};

use super::{
    names::Names,
    objects::{Label, Labels, Objects, Order, Ref},
};

/// Which of many numbered things has a key, without the keys: each thing says its own.
///
/// A map with the keys in it would take several times the memory, while the text of the file is in memory too.
#[derive(Debug, Default)]
pub(super) struct Unique {
    numbers: HashTable<u32>,
    hasher: DefaultHashBuilder,
}

impl Unique {
    /// The thing with this key has the number. Tells which had it before.
    pub(super) fn put<K: Hash + Eq>(
        &mut self,
        key: &K,
        number: u32,
        key_of: impl Fn(u32) -> K,
    ) -> Option<u32> {
        match self.entry(key, key_of) {
            Entry::Occupied(mut entry) => Some(std::mem::replace(entry.get_mut(), number)),
            Entry::Vacant(entry) => {
                entry.insert(number);
                None
            }
        }
    }

    /// The thing with this key has the number, unless another one has the key: then it is told.
    fn claim<K: Hash + Eq>(&mut self, key: &K, number: u32, key_of: impl Fn(u32) -> K) -> Result<(), u32> {
        match self.entry(key, key_of) {
            Entry::Occupied(entry) => Err(*entry.get()),
            Entry::Vacant(entry) => {
                entry.insert(number);
                Ok(())
            }
        }
    }

    fn entry<K: Hash + Eq>(&mut self, key: &K, key_of: impl Fn(u32) -> K) -> Entry<'_, u32> {
        let Self { numbers, hasher } = self;
        let same = |other: &u32| key_of(*other) == *key;
        numbers.entry(hasher.hash_one(key), same, |other| hasher.hash_one(key_of(*other)))
    }

    /// Which thing has the key.
    pub(super) fn find<K: Hash + Eq>(&self, key: &K, key_of: impl Fn(u32) -> K) -> Option<u32> {
        self.numbers.find(self.hasher.hash_one(key), |other| key_of(*other) == *key).copied()
    }
}

/// The objects of one kind so far. A reference is the place in the file's order.
#[derive(Debug)]
pub(super) struct Draft<T> {
    ids: Names,
    by_id: Unique,
    /// What was asked for last: neighbours in a list often refer to the same object.
    found: Cell<Option<Ref<T>>>,
    objects: Vec<T>,
    labels: Labels,
    about: About,
}

/// What is known of objects besides what they are.
#[derive(Debug, Default)]
pub(super) struct About {
    /// The line of each one's id.
    lines: Vec<u32>,
    /// Those that are wrong in themselves. They are declared: who refers to one is not to blame.
    wrong: Vec<u32>,
}

impl About {
    /// The line of an object's id.
    pub(super) fn line<T>(&self, object: Ref<T>) -> u32 {
        self.lines.get(object.index() as usize).copied().unwrap_or_default()
    }

    /// Whether the object is what was written.
    pub(super) fn is_right<T>(&self, object: Ref<T>) -> bool {
        self.wrong.binary_search(&object.index()).is_err()
    }

    fn in_order(self, order: &Order) -> Self {
        let lines =
            order.old().map(|old| self.lines.get(old as usize).copied().unwrap_or_default()).collect();
        let mut wrong: Vec<u32> =
            self.wrong.into_iter().map(|old| order.now(Ref::<()>::at(old)).index()).collect();
        wrong.sort_unstable();
        Self { lines, wrong }
    }
}

impl<T> Default for Draft<T> {
    fn default() -> Self {
        Self {
            ids: Names::default(),
            by_id: Unique::default(),
            found: Cell::new(None),
            objects: Vec::new(),
            labels: Labels::default(),
            about: About::default(),
        }
    }
}

impl<T> Draft<T> {
    /// Adds an object of which nothing is known yet but its id and the words for people; an error is the object that has the id
    /// already. `blank` stands for the object until it is [set](Self::set).
    pub(super) fn declare(
        &mut self,
        id: &str,
        line: u32,
        label: Label<'_>,
        blank: T,
    ) -> Result<Ref<T>, Ref<T>> {
        let number = u32::try_from(self.objects.len()).expect("objects of one file of less than 4 GiB");
        let ids = &self.ids;
        self.by_id.claim(&id, number, |other| ids.get(other)).map_err(Ref::at)?;
        self.ids.push(id);
        self.objects.push(blank);
        self.labels.push(number, label);
        self.about.lines.push(line);
        Ok(Ref::at(number))
    }

    /// Says what the object is.
    pub(super) fn set(&mut self, object: Ref<T>, what: T) {
        if let Some(place) = self.objects.get_mut(object.index() as usize) {
            *place = what;
        }
    }

    /// The object declared last is wrong in itself.
    pub(super) fn last_is_wrong(&mut self) {
        self.about
            .wrong
            .extend(u32::try_from(self.objects.len()).ok().and_then(|count| count.checked_sub(1)));
    }

    /// Which object has an id, be it right or wrong.
    pub(super) fn find(&self, id: &str) -> Option<Ref<T>> {
        if let Some(again) = self.found.get().filter(|found| self.ids.get(found.index()) == id) {
            return Some(again);
        }
        let found = self.by_id.find(&id, |other| self.ids.get(other)).map(Ref::at);
        self.found.set(found.or(self.found.get()));
        found
    }

    /// The id of an object.
    pub(super) fn id(&self, object: Ref<T>) -> &str {
        self.ids.get(object.index())
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.objects.len()
    }

    /// The object, be it right or wrong.
    pub(super) fn get(&self, object: Ref<T>) -> Option<&T> {
        self.objects.get(object.index() as usize)
    }

    /// The object, unless it is wrong.
    pub(super) fn right(&self, object: Ref<T>) -> Option<&T> {
        self.get(object).filter(|_| self.about.is_right(object))
    }

    /// The line of an object's id.
    pub(super) fn line(&self, object: Ref<T>) -> u32 {
        self.about.line(object)
    }

    /// Sorts the objects by id. What they refer to is left as it is.
    pub(super) fn finish(self) -> (Objects<T>, About, Order) {
        let Self { ids, by_id, found: _, objects, labels, about } = self;
        drop(by_id);
        let (objects, order) = Objects::sorted(ids, objects, labels);
        let about = about.in_order(&order);
        (objects, about, order)
    }
}
