//! The index of addresses: a tree of pages, as an MMU has it, one octet of the address per level.
//!
//! EIPs come from pools and the addresses of a VPC from its subnets, so where there is one address there are usually more: four
//! array look-ups find it, at four bytes per address of a full /24. Where an address stands alone, its branch ends early in
//! [`Branch::Scattered`], and SCATTERED (a hash) has it: one address never costs pages of its own.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::{Target, VniAddress};

/// Levels of the tree: octets of an address.
pub const LEVELS: usize = 4;

/// Page that is the root of the EIPs' tree. No branch leads to it, so a branch of 0 leads nowhere.
pub const EIP_ROOT: u32 = 0;

/// A page of NODES: for each value of an octet, where the branch leads. 1024 bytes.
///
/// On the last level the words are [`Target`]s, on the others [`Branch`]es; 0 is nothing on both.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Node {
    words: [u32; 256],
}

impl Node {
    /// The word for an octet.
    #[inline(always)]
    pub fn word(&self, octet: u8) -> u32 {
        match self.words.get(octet as usize) {
            Some(word) => *word,
            // An octet has no more values than there are words; the compiler removes this.
            None => 0,
        }
    }
}

/// Where a branch of a page above the last level leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Branch {
    /// No address has this prefix.
    Nothing,
    /// To the page with this number.
    Node(u32),
    /// The addresses with this prefix are in SCATTERED.
    Scattered,
}

impl Branch {
    /// Above all numbers of pages.
    const SCATTERED: u32 = 7 << Target::NUMBER_BITS;

    /// The branch of a page's word.
    #[inline(always)]
    pub const fn of(word: u32) -> Self {
        match word {
            0 => Self::Nothing,
            Self::SCATTERED => Self::Scattered,
            node => Self::Node(node),
        }
    }

    /// The word.
    pub const fn word(self) -> u32 {
        match self {
            Self::Nothing => 0,
            Self::Node(node) => node,
            Self::Scattered => Self::SCATTERED,
        }
    }
}

/// What an address is, found from the root page of its VPC's tree on (of EIPs: [`EIP_ROOT`]).
#[inline(always)]
pub fn find<'n>(
    root: u32,
    key: &VniAddress,
    node: impl Fn(u32) -> Option<&'n Node>,
    scattered: impl FnOnce(&VniAddress) -> Option<Target>,
) -> Option<Target> {
    match find_in(root, key, |page, octet| node(page).map_or(0, |node| node.word(octet))) {
        Branch::Nothing => None,
        Branch::Node(word) => Some(Target::from_word(word)),
        Branch::Scattered => scattered(key),
    }
}

/// The branch that an address is at the end of: the word of a [`Branch::Node`] is then its [`Target`]'s. `word` reads a word of a
/// page, and nothing beyond the last page.
#[inline(always)]
pub fn find_in(root: u32, key: &VniAddress, word: impl Fn(u32, u8) -> u32) -> Branch {
    let [a, b, c, d] = key.address.octets();
    let mut page = root;
    for octet in [a, b, c] {
        match Branch::of(word(page, octet)) {
            Branch::Node(next) => page = next,
            end => return end,
        }
    }
    Branch::of(word(page, d))
}

const _: () = assert!(size_of::<Node>() == 1024);
