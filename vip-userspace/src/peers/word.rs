//! Who owns a VIP, as hosts tell each other.

use std::net::Ipv4Addr;

use crate::state::Id;

/// Groups of VIPs whose words are compared at once.
pub const BUCKETS: usize = 64;

/// A VIP, as every host calls it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Vip {
    /// VNI of its VPC.
    pub vni: u32,
    /// Its address.
    pub address: Ipv4Addr,
}

impl Vip {
    /// The group that it belongs to, below [`BUCKETS`].
    pub fn bucket(self) -> usize {
        let place = u64::from(self.vni) << 32 | u64::from(self.address.to_bits());
        usize::try_from(mix(place) % BUCKETS as u64).unwrap_or_default()
    }
}

/// The port that owns a VIP.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holder {
    /// Its id.
    pub port: Id,
    /// The host that it lives on.
    pub host: Id,
    /// VRID whose virtual router MAC it receives the VIP by; 0: its own MAC.
    pub vrid: u8,
}

/// An owner's word without indexes: what [`OwnerWord`](vip_common::tables::OwnerWord) says, as every host understands it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Word {
    /// Number of the last change of owner; 0: there was none.
    pub epoch: u64,
    /// Whether the owner claimed the VIP.
    pub claimed: bool,
    /// The owner; `None`: nobody.
    pub holder: Option<Holder>,
}

impl Word {
    /// Largest epoch: the word in the tables has 35 bits for it.
    pub const MAX_EPOCH: u64 = (1 << 35) - 1;

    /// What orders the words of one VIP: epoch, claimed before learned, the id of the owner's host bytewise; nobody's comes first.
    pub fn order(&self) -> (u64, bool, &[u8]) {
        (self.epoch, self.claimed, self.holder.as_ref().map_or(&[], |holder| holder.host.as_bytes()))
    }

    /// Whether the owner lives on a host.
    pub fn is_held_on(&self, host: &str) -> bool {
        self.holder.as_ref().is_some_and(|holder| *holder.host == *host)
    }

    /// The same owner from a later epoch on.
    #[must_use]
    pub fn raised_to(&self, epoch: u64) -> Self {
        Self { epoch: epoch.min(Self::MAX_EPOCH), ..self.clone() }
    }

    /// A number that tells words of a VIP apart, the same on every host; 0 of a word that never changed. The sum over the VIPs of
    /// a bucket tells whether two hosts know the same. Both ends are authenticated, so nobody looks for equal ones.
    pub fn print(&self, vip: Vip) -> u64 {
        if *self == Self::default() {
            return 0;
        }
        let (port, host, vrid) = match &self.holder {
            Some(Holder { port, host, vrid }) => (port.as_bytes(), host.as_bytes(), *vrid),
            None => (&[][..], &[][..], 0),
        };
        // FNV-1a over the parts, each id with its length.
        let length = |text: &[u8]| u64::try_from(text.len()).unwrap_or(u64::MAX).to_le_bytes();
        let parts: [&[u8]; 8] = [
            &vip.vni.to_le_bytes(),
            &vip.address.octets(),
            &self.epoch.to_le_bytes(),
            &[u8::from(self.claimed), vrid],
            &length(port),
            port,
            &length(host),
            host,
        ];
        let hash = parts.iter().copied().flatten().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
        });
        mix(hash)
    }
}

/// Spreads each bit over all others (the finaliser of splitmix64).
fn mix(mut number: u64) -> u64 {
    number = (number ^ number >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    number = (number ^ number >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    number ^ number >> 31
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    const VIP: Vip = Vip { vni: 4001, address: Ipv4Addr::new(192, 168, 7, 246) };

    fn word(epoch: u64, claimed: bool, port: &str, host: &str) -> Word {
        Word { epoch, claimed, holder: Some(Holder { port: port.into(), host: host.into(), vrid: 0 }) }
    }

    #[test]
    fn epoch_decides_then_the_claim_then_the_host_and_never_the_port() {
        let rising = [
            Word { epoch: 4, ..Word::default() },
            word(4, false, "z", "a"),
            word(4, true, "z", "a"),
            word(4, true, "a", "b"),
            word(4, true, "a", "ba"),
            Word { epoch: 5, ..Word::default() },
            word(5, false, "a", "a"),
        ];
        assert!(rising.is_sorted_by(|one, other| one.order() < other.order()));
        assert_eq!(word(4, true, "p", "a").order(), word(4, true, "q", "a").order());
    }

    #[test]
    fn words_that_differ_in_anything_have_different_prints() {
        let vrid = Word {
            holder: Some(Holder { port: "p".into(), host: "h".into(), vrid: 66 }),
            ..word(4, true, "p", "h")
        };
        let words = [
            word(4, true, "p", "h"),
            word(4, false, "p", "h"),
            word(5, true, "p", "h"),
            word(4, true, "ph", ""),
            word(4, true, "", "ph"),
            Word { epoch: 4, ..Word::default() },
            vrid,
            Word::default(),
        ];
        let other = Vip { vni: 4002, ..VIP };
        let prints: BTreeSet<u64> = words.iter().map(|word| word.print(VIP)).collect();
        assert_eq!(prints.len(), words.len());
        assert_eq!(Word::default().print(VIP), 0);
        assert_ne!(word(4, true, "p", "h").print(VIP), word(4, true, "p", "h").print(other));
    }

    #[test]
    fn neighbouring_vips_spread_over_the_buckets() {
        let vips = (0..1000).map(|n| Vip { vni: 4001, address: Ipv4Addr::from_bits(0xc0a8_0000 + n) });
        let buckets: BTreeSet<usize> = vips.map(Vip::bucket).collect();
        assert_eq!(buckets.len(), BUCKETS);
    }
}
