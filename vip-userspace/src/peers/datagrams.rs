//! Words in datagrams.

use super::message::{MOST_WORDS, News, length_of, room_for_words};

/// Words for a host, as many in a datagram as there is room for.
pub(super) struct Datagrams {
    /// Those that are full, and the last one.
    pub(super) filled: Vec<Vec<News>>,
    /// Bytes that the words of a datagram may have, and that are left in the last one.
    room: usize,
    left: usize,
}

impl Datagrams {
    pub(super) fn new(sender: &str, receiver: &str) -> Self {
        Self { filled: Vec::new(), room: room_for_words(sender, receiver), left: 0 }
    }

    /// Adds a word.
    pub(super) fn add(&mut self, told: News) {
        let length = length_of(&told);
        let last = self.filled.last_mut();
        if let Some(news) = last.filter(|news| news.len() < MOST_WORDS && length <= self.left) {
            news.push(told);
        } else {
            self.filled.push(vec![told]);
            self.left = self.room;
        }
        self.left = self.left.saturating_sub(length);
    }
}
