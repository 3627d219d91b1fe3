//! The oracles hold for what a search begins with, and around it.

use vip_fuzz::{
    Target, check,
    mutate::{Random, mutate},
    seeds,
};

#[test]
fn the_oracles_hold_for_every_seed() {
    let seeds = seeds::all();
    let mut failed = 0;
    for target in Target::ALL {
        assert!(seeds.iter().any(|input| target.takes(input)), "{} has no seeds", target.name());
    }
    for input in &seeds {
        if let Err(violation) = check(input) {
            failed += 1;
            println!("{violation}\n{input:?}\n");
        }
    }
    assert_eq!(failed, 0, "of {} seeds", seeds.len());
}

#[test]
fn the_oracles_hold_near_the_seeds() {
    let count: u64 =
        std::env::var("VIP_FUZZ_CASES").ok().and_then(|text| text.parse().ok()).unwrap_or(10_000);
    let seeds = seeds::all();
    for number in 0..count {
        let mut random = Random::new(number);
        let Some(seed) = seeds.get(random.below(seeds.len())) else { continue };
        let mut input = seed.clone();
        mutate(&mut input, seed.target(), &mut random);
        if let Err(violation) = check(&input) {
            panic!("number {number}: {violation}\n{input:?}");
        }
    }
}
