//! Many short texts in two allocations.

/// Texts, by number from 0 on. Of a million ids, a `String` each would cost several times their length.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Names {
    text: String,
    /// Where each one ends; it begins where the one before it ends.
    ends: Vec<u32>,
}

impl Names {
    /// Room for so many texts of so many bytes in all.
    pub(super) fn with_capacity(count: usize, bytes: usize) -> Self {
        Self { text: String::with_capacity(bytes), ends: Vec::with_capacity(count) }
    }

    /// Adds a text; it gets the next number.
    ///
    /// # Panics
    ///
    /// If all texts together are longer than 4 GiB: they stand in one file, and longer ones are refused.
    pub(super) fn push(&mut self, name: &str) {
        self.text.push_str(name);
        self.ends.push(u32::try_from(self.text.len()).expect("texts of one file of less than 4 GiB"));
    }

    /// The text with a number; empty if there is none.
    pub(super) fn get(&self, number: u32) -> &str {
        let number = number as usize;
        let begin =
            number.checked_sub(1).and_then(|before| self.ends.get(before)).map_or(0, |end| *end as usize);
        let Some(&end) = self.ends.get(number) else { return "" };
        self.text.get(begin..end as usize).unwrap_or_default()
    }

    /// The same texts in another order: first the one whose number stands first.
    pub(super) fn in_order(&self, numbers: impl ExactSizeIterator<Item = u32>) -> Self {
        let mut names = Self::with_capacity(numbers.len(), self.text.len());
        numbers.for_each(|number| names.push(self.get(number)));
        names
    }

    /// Gives back what was reserved and not used.
    pub(super) fn shrink(&mut self) {
        self.text.shrink_to_fit();
        self.ends.shrink_to_fit();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_text_is_found_by_its_number_also_in_another_order() {
        let mut names = Names::default();
        for name in ["b", "", "aé"] {
            names.push(name);
        }
        assert_eq!([names.get(0), names.get(1), names.get(2), names.get(3)], ["b", "", "aé", ""]);
        let turned = names.in_order([2, 0, 1].into_iter());
        assert_eq!([turned.get(0), turned.get(1), turned.get(2)], ["aé", "b", ""]);
    }
}
