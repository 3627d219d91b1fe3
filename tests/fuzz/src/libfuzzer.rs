//! What libFuzzer calls.

use libfuzzer_sys::{Corpus, fuzzer_mutate};

use crate::{
    Input, Target, check,
    mutate::{Random, mutate},
};

/// Runs an input of the target; others are no use to it.
///
/// # Panics
///
/// An oracle does not hold.
pub fn run(target: Target, data: &[u8]) -> Corpus {
    let Some(input) = Input::read(data).filter(|input| target.takes(input)) else { return Corpus::Reject };
    if let Err(violation) = check(&input) {
        panic!("{violation}\n{input:?}");
    }
    Corpus::Keep
}

/// Changes the input in the first `size` bytes of `data`: one of four times by libFuzzer's own means. Gives the new size.
pub fn change(target: Target, data: &mut [u8], size: usize, most: usize, seed: u32) -> usize {
    let mut random = Random::new(seed.into());
    let structured = std::env::var_os(crate::PLAIN).is_none() && random.below(4) != 0;
    let input = data.get(..size).and_then(Input::read).filter(|_| structured);
    let Some(mut input) = input else { return fuzzer_mutate(data, size, most) };
    if !target.takes(&input) {
        input.entry = match target {
            Target::Uplink => crate::Entry::Uplink,
            Target::Port => crate::Entry::Port(0),
        };
    }
    mutate(&mut input, target, &mut random);
    let bytes = input.write();
    let length = bytes.len().min(most).min(data.len());
    for (to, from) in data.iter_mut().zip(bytes.iter().take(length)) {
        *to = *from;
    }
    length
}

/// The whole of a target's program.
#[macro_export]
macro_rules! target {
    ($target:expr) => {
        libfuzzer_sys::fuzz_target!(|data: &[u8]| -> libfuzzer_sys::Corpus {
            $crate::libfuzzer::run($target, data)
        });
        libfuzzer_sys::fuzz_mutator!(|data: &mut [u8], size: usize, max_size: usize, seed: u32| {
            $crate::libfuzzer::change($target, data, size, max_size, seed)
        });
    };
}
