//! Owners that may not own.

use vip_common::tables::OwnerWord;

use super::{Contents, Step};

/// Steps that end what nobody granted: the ownership of a port without the right to own, or by the virtual router MAC of
/// a VRID that is not allowed (any more).
///
/// A program that looked a right up just before it was taken away may still write the word, and so does an agent that
/// died between two steps; therefore the words are judged by themselves, again after the [rest](super::REST). `words` are
/// (slot, word) pairs.
pub fn unjustified(contents: &Contents, words: impl IntoIterator<Item = (u32, OwnerWord)>) -> Vec<Step> {
    words
        .into_iter()
        .filter(|&(slot, word)| {
            word.port() != 0
                && !contents.grants.get(&(word.port(), slot)).is_some_and(|grant| {
                    grant.rights.may_own() && (word.vrid() == 0 || grant.allows_vrid(word.vrid()))
                })
        })
        .map(|(slot, word)| Step::Release { slot, port: Some(word.port()) })
        .collect()
}

#[cfg(test)]
mod tests {
    use vip_common::tables::{Grant, Rights};

    use super::*;

    #[test]
    fn only_owners_by_right_stay() {
        let grant = |rights, vrids| Grant { rights, zero: [0; 3], vrids };
        let mut contents = Contents::default();
        contents.grants.insert((1, 0), grant(Rights::OWN, [66, 0, 0, 0]));
        contents.grants.insert((2, 0), grant(Rights::SOURCE, [0; 4]));
        let judge = |port, vrid| unjustified(&contents, [(0, OwnerWord::new(5, true, port, vrid))]);
        assert_eq!(judge(0, 0), []);
        assert_eq!(judge(1, 0), []);
        assert_eq!(judge(1, 66), []);
        assert_eq!(judge(1, 67), [Step::Release { slot: 0, port: Some(1) }]);
        assert_eq!(judge(2, 0), [Step::Release { slot: 0, port: Some(2) }]);
        assert_eq!(judge(3, 0), [Step::Release { slot: 0, port: Some(3) }]);
    }
}
