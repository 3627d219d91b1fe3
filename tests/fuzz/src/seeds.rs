//! What a search begins with: the frames of the fixtures.

use std::{collections::BTreeSet, fs, path::Path};

use anyhow::{Context as _, Result};
use vip_lab::fixtures;

use crate::{Input, Target, Variation, mutate};

/// The fixtures' frames where they come from, each once, in the world without a variation, and some that no
/// fixture has.
pub fn all() -> Vec<Input> {
    let mut seen = BTreeSet::new();
    let fixtures = fixtures::all();
    let frames = fixtures.iter().map(|fixture| Input::of_fixture(fixture.program, &fixture.frame));
    let mut seeds: Vec<_> = frames.filter(|input| seen.insert(input.write())).collect();
    seeds.extend(too_long_an_error(&seeds));
    let too_long: Vec<_> = seeds.iter().flat_map(too_long).collect();
    seeds.extend(too_long);
    let among_hosts: Vec<_> = seeds
        .iter()
        .filter(|seed| seed.variation == Variation::default())
        .flat_map(|seed| Variation::HOSTS.map(|variation| Input { variation, ..seed.clone() }))
        .collect();
    seeds.extend(among_hosts);
    seeds
}

/// A packet that is longer than interfaces take, if it is: as it is, and with the other DF.
fn too_long(seed: &Input) -> Vec<Input> {
    const DF: u8 = 0x40;
    let place = crate::frame::ETHERNET + 6;
    let length = crate::frame::Ipv4::of(&seed.frame).map_or(0, |ip| ip.length());
    let Some(flags) = crate::frame::byte(&seed.frame, place).filter(|_| length > 576) else {
        return Vec::new();
    };
    [
        (Variation::NARROW, flags),
        (Variation::LEAST, flags),
        (Variation::NARROW, flags ^ DF),
        (Variation::LEAST, flags ^ DF),
    ]
    .into_iter()
    .map(|(variation, flags)| {
        let mut input = Input { variation, ..seed.clone() };
        crate::frame::put(&mut input.frame, place, &[flags]);
        mutate::repair(&mut input.frame);
        input
    })
    .collect()
}

/// An ICMP error longer than what is translated: random changes hardly make one.
fn too_long_an_error(seeds: &[Input]) -> Option<Input> {
    let error = |input: &&Input| {
        crate::frame::Ipv4::of(&input.frame).is_some_and(|ip| ip.icmp_type(&input.frame) == Some(3))
    };
    let mut input = seeds.iter().find(error)?.clone();
    input.frame.resize(mutate::LONGEST, 0);
    mutate::repair(&mut input.frame);
    Some(input)
}

/// Writes the seeds of a target into a folder, a file each; tells how many.
///
/// # Errors
///
/// The folder cannot be written.
pub fn write(target: Target, folder: &Path) -> Result<usize> {
    fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let seeds: Vec<_> = all().into_iter().filter(|input| target.takes(input)).collect();
    for (number, input) in seeds.iter().enumerate() {
        let path = folder.join(format!("seed-{number:04}"));
        fs::write(&path, input.write()).with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(seeds.len())
}
