//! The objects of one kind, small enough that a million of them are kept.

use std::{
    cmp::Ordering,
    fmt,
    hash::{Hash, Hasher},
    marker::PhantomData,
    ops::Index,
};

use super::names::Names;

/// Which object of a kind: its place in the order of ids, from 0 on. It is good for the state that it came from.
pub struct Ref<T> {
    index: u32,
    of: PhantomData<fn() -> T>,
}

impl<T> Ref<T> {
    /// The object at a place.
    pub(crate) const fn at(index: u32) -> Self {
        Self { index, of: PhantomData }
    }

    /// Its place.
    pub const fn index(self) -> u32 {
        self.index
    }
}

// By hand, because derived ones would ask the same of `T`.
impl<T> Clone for Ref<T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Ref<T> {}

impl<T> Default for Ref<T> {
    fn default() -> Self {
        Self::at(0)
    }
}

impl<T> PartialEq for Ref<T> {
    fn eq(&self, other: &Self) -> bool {
        self.index == other.index
    }
}

impl<T> Eq for Ref<T> {}

impl<T> PartialOrd for Ref<T> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<T> Ord for Ref<T> {
    fn cmp(&self, other: &Self) -> Ordering {
        self.index.cmp(&other.index)
    }
}

impl<T> Hash for Ref<T> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.index.hash(state);
    }
}

impl<T> fmt::Debug for Ref<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "#{}", self.index)
    }
}

/// Words for people about one object: they never touch traffic.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Label<'s> {
    /// A display name.
    pub name: Option<&'s str>,
    /// Anything an operator wants to remember.
    pub remark: Option<&'s str>,
}

/// The labels of those objects that have one.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Labels {
    /// Places of the objects, rising.
    of: Vec<u32>,
    /// Whether there is a name, and a remark.
    present: Vec<(bool, bool)>,
    /// Name and remark of each.
    words: Names,
}

impl Labels {
    /// Notes the words of an object that stands behind all before; of one without any, nothing.
    pub(super) fn push(&mut self, index: u32, label: Label<'_>) {
        let Label { name, remark } = label;
        if name.is_some() || remark.is_some() {
            self.of.push(index);
            self.present.push((name.is_some(), remark.is_some()));
            self.words.push(name.unwrap_or_default());
            self.words.push(remark.unwrap_or_default());
        }
    }

    fn get(&self, index: u32) -> Label<'_> {
        let Ok(at) = self.of.binary_search(&index) else { return Label::default() };
        let (name, remark) = self.present.get(at).copied().unwrap_or_default();
        let first = u32::try_from(at * 2).unwrap_or(u32::MAX);
        Label { name: name.then(|| self.words.get(first)), remark: remark.then(|| self.words.get(first + 1)) }
    }

    /// The same labels for objects in another order.
    fn in_order(&self, order: &Order) -> Self {
        let mut labels = Self::default();
        if !self.of.is_empty() {
            (0..).zip(order.old()).for_each(|(new, old)| labels.push(new, self.get(old)));
        }
        labels
    }

    fn shrink(&mut self) {
        self.of.shrink_to_fit();
        self.present.shrink_to_fit();
        self.words.shrink();
    }
}

/// The objects of one kind, in the order of their ids.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Objects<T> {
    ids: Names,
    rows: Vec<T>,
    labels: Labels,
}

impl<T> Default for Objects<T> {
    fn default() -> Self {
        Self { ids: Names::default(), rows: Vec::new(), labels: Labels::default() }
    }
}

impl<T> Objects<T> {
    /// Sorts the objects by their ids, which are all different, and tells how. What the objects refer to is left as it is.
    pub(super) fn sorted(mut ids: Names, mut objects: Vec<T>, mut labels: Labels) -> (Self, Order) {
        let count = u32::try_from(objects.len()).unwrap_or(u32::MAX);
        let is_sorted = (1..count).all(|index| ids.get(index - 1) < ids.get(index));
        if is_sorted {
            ids.shrink();
            objects.shrink_to_fit();
            labels.shrink();
            return (Self { ids, rows: objects, labels }, Order { old: None, new: None, count });
        }
        let mut old: Vec<u32> = (0..count).collect();
        old.sort_unstable_by(|one, other| ids.get(*one).cmp(ids.get(*other)));
        let mut new = vec![0; old.len()];
        for (index, &before) in (0..).zip(&old) {
            if let Some(place) = new.get_mut(before as usize) {
                *place = index;
            }
        }
        let order = Order { old: Some(old), new: Some(new), count };
        let mut sorted: Vec<Option<T>> = objects.into_iter().map(Some).collect();
        let objects =
            order.old().filter_map(|before| sorted.get_mut(before as usize).and_then(Option::take)).collect();
        ids = ids.in_order(order.old());
        labels = labels.in_order(&order);
        (Self { ids, rows: objects, labels }, order)
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Which object has an id.
    pub fn find(&self, id: &str) -> Option<Ref<T>> {
        let (mut first, mut end) = (0, u32::try_from(self.rows.len()).unwrap_or(u32::MAX));
        while first < end {
            let middle = first + (end - first) / 2;
            match self.ids.get(middle).cmp(id) {
                Ordering::Less => first = middle + 1,
                Ordering::Equal => return Some(Ref::at(middle)),
                Ordering::Greater => end = middle,
            }
        }
        None
    }

    /// The object with an id.
    pub fn named(&self, id: &str) -> Option<&T> {
        self.find(id).map(|object| &self[object])
    }

    /// The id of an object.
    pub fn id(&self, object: Ref<T>) -> &str {
        self.ids.get(object.index)
    }

    /// The words for people of an object.
    pub fn label(&self, object: Ref<T>) -> Label<'_> {
        self.labels.get(object.index)
    }

    /// All of them, in the order of their ids.
    pub fn refs(&self) -> impl ExactSizeIterator<Item = Ref<T>> + use<T> {
        (0..u32::try_from(self.rows.len()).unwrap_or(u32::MAX)).map(Ref::at)
    }

    /// All of them with their ids' places.
    pub fn iter(&self) -> impl Iterator<Item = (Ref<T>, &T)> {
        self.refs().zip(&self.rows)
    }

    /// All of them.
    pub fn values(&self) -> impl ExactSizeIterator<Item = &T> {
        self.rows.iter()
    }

    /// All ids, rising.
    pub fn ids(&self) -> impl ExactSizeIterator<Item = &str> {
        self.refs().map(|object| self.ids.get(object.index))
    }

    pub(super) fn get_mut(&mut self, object: Ref<T>) -> Option<&mut T> {
        self.rows.get_mut(object.index as usize)
    }

    pub(super) fn values_mut(&mut self) -> impl Iterator<Item = &mut T> {
        self.rows.iter_mut()
    }
}

impl<T> Index<Ref<T>> for Objects<T> {
    type Output = T;

    fn index(&self, object: Ref<T>) -> &T {
        self.rows.get(object.index as usize).expect("a reference of the same state")
    }
}

impl<T: PartialEq> Objects<T> {
    /// Whether ids and objects are the same; labels may differ.
    pub(super) fn same_but_labels(&self, other: &Self) -> bool {
        let Self { ids, rows, labels: _ } = self;
        *ids == other.ids && *rows == other.rows
    }
}

/// How objects were sorted.
#[derive(Debug)]
pub(super) struct Order {
    /// Former places by place; none if nothing moved.
    old: Option<Vec<u32>>,
    /// Places by former place.
    new: Option<Vec<u32>>,
    count: u32,
}

impl Order {
    /// The former places, in the new order.
    pub(super) fn old(&self) -> impl ExactSizeIterator<Item = u32> {
        let count = self.old.as_ref().map_or(self.count as usize, Vec::len);
        (0..count).map(|index| match &self.old {
            Some(old) => old.get(index).copied().unwrap_or_default(),
            None => u32::try_from(index).unwrap_or(u32::MAX),
        })
    }

    /// Whether all stayed in their places.
    pub(super) fn is_as_before(&self) -> bool {
        self.new.is_none()
    }

    /// Where an object is now.
    pub(super) fn now<T>(&self, before: Ref<T>) -> Ref<T> {
        match &self.new {
            Some(new) => Ref::at(new.get(before.index as usize).copied().unwrap_or_default()),
            None => before,
        }
    }
}
