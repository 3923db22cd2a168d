//! The codec and the state machine against their corpus and seeded mutations of it. The corpus has
//! what clients send and what once failed; `scripts/fuzz` looks for more with the same functions.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    unreachable_pub,
    reason = "tests may fail loudly"
)]

mod targets;

use std::fs;
use std::path::Path;

use targets::TARGETS;

/// Mutations of a target.
const MUTATIONS: usize = 4_000;

fn corpus(target: &str) -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/parsers/corpus").join(target);
    let mut paths: Vec<_> =
        fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    // The same order everywhere, so that the same seed makes the same mutations.
    paths.sort();
    paths.iter().map(|path| fs::read(path).unwrap()).collect()
}

#[test]
fn every_target_survives_its_corpus() {
    for (name, target) in TARGETS {
        let corpus = corpus(name);
        assert!(!corpus.is_empty(), "{name} has no corpus");
        for input in &corpus {
            target(input);
            for cut in 0..input.len().min(200) {
                target(&input[..cut]);
            }
        }
    }
}

/// Numbers that look random and are always the same.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (self.0 ^ self.0 >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        ((mixed ^ mixed >> 27) >> 16) as usize % bound.max(1)
    }
}

#[test]
fn every_target_survives_mutations() {
    for (name, target) in TARGETS {
        let corpus = corpus(name);
        let mut numbers = Numbers(7);
        for _ in 0..MUTATIONS {
            target(&mutated(&mut numbers, &corpus));
        }
    }
}

/// One of the corpus with a few things done to it.
fn mutated(numbers: &mut Numbers, corpus: &[Vec<u8>]) -> Vec<u8> {
    let mut input = corpus[numbers.below(corpus.len())].clone();
    for _ in 0..=numbers.below(6) {
        let at = numbers.below(input.len());
        match numbers.below(6) {
            0 if !input.is_empty() => input[at] ^= 1 << numbers.below(8),
            1 if !input.is_empty() => input[at] = numbers.below(256) as u8,
            2 => input.truncate(at),
            3 => input.insert(at, numbers.below(256) as u8),
            4 if !input.is_empty() => {
                let piece = input[at..(at + numbers.below(64)).min(input.len())].to_vec();
                let to = numbers.below(input.len());
                input.splice(to..to, piece);
            }
            _ => {
                let other = &corpus[numbers.below(corpus.len())];
                input.truncate(at);
                input.extend(&other[numbers.below(other.len()).min(other.len())..]);
            }
        }
    }
    input
}
