//! Which subnets overlap, and which one holds an address: both by sorting, so that a million stay feasible.

use std::net::Ipv4Addr;

use super::{Ref, Subnet};

/// A subnet and which one it is.
type Known<'s> = (Ref<Subnet>, &'s Subnet);

/// Pairs of overlapping subnets: each one with the widest-reaching before it. Empty exactly when none overlap.
pub(super) fn overlapping<'s>(subnets: impl Iterator<Item = Known<'s>>) -> Vec<(Known<'s>, Known<'s>)> {
    let mut pairs = Vec::new();
    let mut widest: Option<Known<'_>> = None;
    for subnet in sorted(subnets) {
        match widest {
            Some(before) if subnet.1.cidr.network() <= before.1.cidr.broadcast() => {
                pairs.push((before, subnet));
            }
            _ => {}
        }
        widest = Some(wider(widest, subnet));
    }
    pairs
}

/// Answers which subnet holds an address, over the subnets of all VPCs.
pub(super) struct Coverage<'s> {
    /// First address of each subnet in rising order, with the widest-reaching subnet so far.
    reach: Vec<(Ipv4Addr, Known<'s>)>,
}

impl<'s> Coverage<'s> {
    /// Prepares the answers.
    pub(super) fn of(subnets: impl Iterator<Item = Known<'s>>) -> Self {
        let mut widest = None;
        let reach = sorted(subnets).into_iter().map(|subnet| {
            let now = wider(widest, subnet);
            widest = Some(now);
            (subnet.1.cidr.network(), now)
        });
        Self { reach: reach.collect() }
    }

    /// One of the subnets that hold the address.
    pub(super) fn find(&self, address: Ipv4Addr) -> Option<Known<'s>> {
        let begun = self.reach.partition_point(|(first, _)| *first <= address);
        let (_, widest) = self.reach.get(begun.checked_sub(1)?)?;
        (address <= widest.1.cidr.broadcast()).then_some(*widest)
    }
}

fn sorted<'s>(subnets: impl Iterator<Item = Known<'s>>) -> Vec<Known<'s>> {
    let mut subnets: Vec<_> = subnets.collect();
    subnets.sort_by_key(|(_, subnet)| (subnet.cidr.network(), subnet.cidr.prefix()));
    subnets
}

fn wider<'s>(so_far: Option<Known<'s>>, next: Known<'s>) -> Known<'s> {
    match so_far {
        Some(widest) if widest.1.cidr.broadcast() >= next.1.cidr.broadcast() => widest,
        _ => next,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::state::Router;

    fn subnet(bits: u32, prefix: u8) -> Subnet {
        let address = Ipv4Addr::from(bits & (u32::MAX << (32 - prefix)));
        let cidr = ipnetwork::Ipv4Network::new(address, prefix).expect("a good prefix");
        Subnet { vpc: Ref::at(0), cidr, gateway: address, router: Router::Vip }
    }

    /// Few different bits, so that subnets meet often.
    fn subnets() -> impl Strategy<Value = Vec<Subnet>> {
        let one = (0_u32..64, 26_u8..31).prop_map(|(bits, prefix)| subnet(0x0a00_0000 | (bits << 2), prefix));
        proptest::collection::vec(one, 0..12)
    }

    fn known(subnets: &[Subnet]) -> impl Iterator<Item = Known<'_>> {
        (0..).map(Ref::at).zip(subnets)
    }

    proptest! {
        #[test]
        fn an_overlap_is_found_exactly_when_two_subnets_share_an_address(subnets in subnets()) {
            let share = subnets.iter().enumerate().any(|(index, one)| {
                subnets.iter().skip(index + 1).any(|other| one.cidr.overlaps(other.cidr))
            });
            let pairs = overlapping(known(&subnets));
            prop_assert_eq!(!pairs.is_empty(), share);
            prop_assert!(pairs.iter().all(|((_, one), (_, other))| one.cidr.overlaps(other.cidr)));
        }

        #[test]
        fn an_address_is_covered_exactly_when_a_subnet_holds_it(subnets in subnets(), last in 0_u32..300) {
            let address = Ipv4Addr::from(0x0a00_0000 | last);
            let found = Coverage::of(known(&subnets)).find(address);
            prop_assert_eq!(found.is_some(), subnets.iter().any(|subnet| subnet.cidr.contains(address)));
            prop_assert!(found.is_none_or(|(_, subnet)| subnet.cidr.contains(address)));
        }
    }
}
