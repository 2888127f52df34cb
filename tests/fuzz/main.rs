//! Runs what `fuzz/` fuzzes on its corpus and on random changes of it: no tool is needed, and the same every time.
//!
//! `TOLLGATE_FUZZ_SEED` and `TOLLGATE_FUZZ_CHANGES` make other changes, and more of them.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "this is a test")]

mod bodies;

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use bodies::TARGETS;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

/// Changes per target, without a wish.
const CHANGES: u64 = 400;

/// A body's input is not longer than this after changes.
const MAX_BYTES: usize = 4096;

#[test]
fn the_corpus_and_changes_of_it_are_taken() {
    let number = |variable: &str, otherwise: u64| {
        std::env::var(variable).map_or(otherwise, |text| text.parse().expect("a number"))
    };
    let (seed, changes) = (
        number("TOLLGATE_FUZZ_SEED", 1),
        number("TOLLGATE_FUZZ_CHANGES", CHANGES),
    );
    for (name, body) in TARGETS {
        let corpus = corpus(name);
        assert!(corpus.len() >= 5, "the corpus of {name} is not there");
        let mut random = StdRng::seed_from_u64(seed);
        let changed = (0..changes).map(|_| change(&mut random, &corpus));
        for input in corpus.iter().cloned().chain(changed) {
            let taken = catch_unwind(AssertUnwindSafe(|| body(&input)));
            assert!(
                taken.is_ok(),
                "{name} does not take {} (seed {seed})",
                input.escape_ascii()
            );
        }
    }
}

/// What `fuzz/corpus` holds for a target, always in the same order.
fn corpus(name: &str) -> Vec<Vec<u8>> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("fuzz/corpus")
        .join(name);
    let mut files: Vec<_> = fs::read_dir(directory)
        .expect("a corpus")
        .map(|entry| entry.unwrap().path())
        .collect();
    files.sort();
    files.iter().map(|file| fs::read(file).unwrap()).collect()
}

/// An input of the corpus with one to four changes.
fn change(random: &mut StdRng, corpus: &[Vec<u8>]) -> Vec<u8> {
    let mut input = corpus[random.random_range(0..corpus.len())].clone();
    for _ in 0..random.random_range(1..=4) {
        let at = random.random_range(0..=input.len());
        match random.random_range(0..6) {
            0 => input.truncate(at),
            1 => input.insert(at, random.random()),
            2 if at < input.len() => input[at] = random.random(),
            3 if at < input.len() => input[at] ^= 1 << random.random_range(0..8),
            4 if at < input.len() => {
                let end = random.random_range(at..=input.len());
                input.drain(at..end);
            }
            _ => {
                // a part of another one
                let other = &corpus[random.random_range(0..corpus.len())];
                let from = random.random_range(0..=other.len());
                let to = random.random_range(from..=other.len());
                input.splice(at..at, other[from..to].iter().copied());
            }
        }
    }
    input.truncate(MAX_BYTES);
    input
}
