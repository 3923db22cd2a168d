//! Every parser against its corpus and seeded mutations of it. The corpus has real packets and what
//! once made a parser fail; `scripts/fuzz` looks for more with the same functions.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    unreachable_pub,
    reason = "tests may fail loudly"
)]

mod targets;

use std::fs;
use std::path::Path;

use bedside_sfu::core::Rng;
use rand_chacha::rand_core::{Rng as _, SeedableRng as _};
use targets::TARGETS;

/// Mutations of a target; its inputs take a microsecond to a millisecond each.
const MUTATIONS: usize = 1_500;
/// No input is longer than a datagram, but for descriptions.
const MAX_INPUT: usize = 16 * 1024;

fn corpus(target: &str) -> Vec<Vec<u8>> {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests");
    let mut folders = vec![tests.join("parsers/corpus").join(target)];
    if target == "sdp" {
        folders.push(tests.join("fixtures"));
    }
    let mut paths: Vec<_> = folders
        .iter()
        .flat_map(|folder| fs::read_dir(folder).unwrap())
        .map(|entry| entry.unwrap().path())
        .collect();
    // The same order everywhere, so that the same seed makes the same mutations.
    paths.sort();
    paths.iter().map(|path| fs::read(path).unwrap()).collect()
}

#[test]
fn every_parser_survives_its_corpus() {
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

#[test]
fn every_parser_survives_mutations() {
    for (index, (name, target)) in (0u8..).zip(TARGETS) {
        let corpus = corpus(name);
        let mut rng = Rng::from_seed([index; 32]);
        for _ in 0..MUTATIONS {
            target(&mutated(&mut rng, &corpus));
        }
    }
}

fn below(rng: &mut Rng, bound: usize) -> usize {
    rng.next_u32() as usize % bound.max(1)
}

/// One of the corpus with a few things done to it.
fn mutated(rng: &mut Rng, corpus: &[Vec<u8>]) -> Vec<u8> {
    let mut input = corpus[below(rng, corpus.len())].clone();
    for _ in 0..=below(rng, 6) {
        let at = below(rng, input.len());
        match below(rng, 7) {
            0 if !input.is_empty() => input[at] ^= 1 << below(rng, 8),
            1 if !input.is_empty() => input[at] = [0, 1, 0x7F, 0x80, 0xFF][below(rng, 5)],
            2 => input.truncate(at),
            3 => input.insert(at, rng.next_u32() as u8),
            4 if !input.is_empty() => {
                let end = (at + below(rng, 16)).min(input.len());
                rng.fill_bytes(&mut input[at..end]);
            }
            5 if !input.is_empty() => {
                let piece = input[at..(at + below(rng, 64)).min(input.len())].to_vec();
                let to = below(rng, input.len());
                input.splice(to..to, piece);
            }
            _ => {
                let other = &corpus[below(rng, corpus.len())];
                input.truncate(at);
                input.extend(&other[below(rng, other.len()).min(other.len())..]);
            }
        }
    }
    input.truncate(MAX_INPUT);
    input
}
