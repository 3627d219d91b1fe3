//! The internet checksum (RFC 1071), updated incrementally (RFC 1624).
//!
//! A translated packet's checksum is never computed from its bytes: that would turn a corrupted packet into one that
//! looks intact. It is mended by the difference of the words that changed, equation 3 of RFC 1624: `HC' = ~(~HC + ~m + m')`.
//! Sums run over the machine's reading of the bytes; RFC 1071 §2(B) shows that the byte order does not matter.

use crate::wire::{Be16, Ipv4};

/// A running one's complement sum of 16-bit words, not yet folded.
///
/// Sixteen bits of room above the low word take more than 20 000 additions before a carry is lost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[must_use]
pub struct Sum(u32);

impl Sum {
    /// Adds one 16-bit word.
    #[inline(always)]
    pub const fn add(self, word: Be16) -> Self {
        Self(self.0 + word.raw() as u32)
    }

    /// The sum of 32-bit words, their carries added in again: as the kernel keeps sums.
    #[inline(always)]
    pub const fn of_words(sum: u32) -> Self {
        // Modulo 2¹⁶ − 1 the upper half weighs as much as the lower.
        Self((sum >> 16) + (sum & 0xffff))
    }

    /// Both sums.
    #[inline(always)]
    pub const fn plus(self, other: Self) -> Self {
        Self(self.0 + other.0)
    }

    /// Adds the words of an address.
    #[inline(always)]
    pub const fn add_address(self, address: Ipv4) -> Self {
        self.plus(Self::of_words(address.raw()))
    }

    /// The difference that replacing `from` by `to` makes.
    #[inline(always)]
    pub const fn replace(self, from: Be16, to: Be16) -> Self {
        Self(self.0 + (!from.raw()) as u32 + to.raw() as u32)
    }

    /// The difference that replacing the address `from` by `to` makes.
    #[inline(always)]
    pub const fn replace_address(self, from: Ipv4, to: Ipv4) -> Self {
        // Modulo 2¹⁶ − 1 the bits above the lower word weigh as much as if they began anew at its end.
        let both = (!from.raw()) as u64 + to.raw() as u64;
        Self(self.0 + (both >> 16) as u32 + (both & 0xffff) as u32)
    }

    /// The sum in 16 bits.
    #[inline(always)]
    const fn fold(self) -> u16 {
        let once = (self.0 & 0xffff) + (self.0 >> 16);
        ((once & 0xffff) + (once >> 16)) as u16
    }

    /// The checksum field over the bytes that were added.
    #[inline(always)]
    pub const fn checksum(self) -> Be16 {
        Be16::from_raw(!self.fold())
    }
}

/// The checksum field after the words behind `change` were replaced (RFC 1624, equation 3).
#[inline(always)]
#[must_use]
pub const fn update(field: Be16, change: Sum) -> Be16 {
    Be16::from_raw(!Sum(change.0 + (!field.raw()) as u32).fold())
}

/// Like [`update`], for UDP and UDP-Lite: a field of 0 means that the sender computed none and stays, and a result of 0
/// is sent as 0xffff (RFC 768).
#[inline(always)]
#[must_use]
pub const fn update_udp(field: Be16, change: Sum) -> Be16 {
    if field.raw() == 0 {
        return field;
    }
    let updated = update(field, change);
    if updated.raw() == 0 { Be16::from_raw(0xffff) } else { updated }
}
