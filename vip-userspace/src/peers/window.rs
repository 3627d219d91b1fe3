//! Which numbers of datagrams were taken already.

/// How far behind the highest number a datagram may come: farther than a burst can be reordered.
const WIDTH: u64 = 128;

/// The numbers taken inside one pair of sessions: each is taken once, and none that is too far behind.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Window {
    highest: u64,
    /// Bit `n`: the number that is `n` below the highest was taken.
    taken: u128,
}

impl Window {
    /// Takes a number. Tells whether it is new; numbers begin at 1.
    pub(super) fn take(&mut self, number: u64) -> bool {
        if number > self.highest {
            let step = number - self.highest;
            self.taken = if step < WIDTH { self.taken << step } else { 0 };
            self.taken |= 1;
            self.highest = number;
            return true;
        }
        let behind = self.highest - number;
        if number == 0 || behind >= WIDTH || self.taken >> behind & 1 != 0 {
            return false;
        }
        self.taken |= 1 << behind;
        true
    }

    /// Whether the number is the highest of all.
    pub(super) fn is_highest(&self, number: u64) -> bool {
        self.highest == number
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_is_too_far_behind_is_not_taken_whether_it_came_or_not() {
        let mut window = Window::default();
        assert!(window.take(WIDTH + 1));
        assert!(!window.take(1));
        assert!(window.take(2));
        assert!(!window.take(2));
        assert!(!window.take(0));
    }

    proptest! {
        #[test]
        fn each_number_is_taken_once_in_any_order(numbers in proptest::collection::vec(1_u64..400, 0..600)) {
            let mut window = Window::default();
            let (mut taken, mut highest) = (BTreeSet::new(), 0);
            for number in numbers {
                let new = !taken.contains(&number) && number + WIDTH > highest;
                prop_assert_eq!(window.take(number), new);
                taken.insert(number);
                highest = highest.max(number);
                prop_assert_eq!(window.is_highest(number), number == highest);
            }
        }
    }
}
