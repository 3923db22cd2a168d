//! The parsers under libFuzzer: `scripts/fuzz TARGET SECONDS`. What is done with an input is in
//! `tests/parsers/targets.rs` of `sfu` and `turn`; the target is named by the environment, so that
//! one build has them all.
#![no_main]

#[path = "../../../sfu/tests/parsers/targets.rs"]
mod engine;
#[path = "../../../turn/tests/parsers/targets.rs"]
mod turn;

use std::sync::OnceLock;

use libfuzzer_sys::fuzz_target;

fn target() -> fn(&[u8]) {
    static TARGET: OnceLock<fn(&[u8])> = OnceLock::new();
    *TARGET.get_or_init(|| {
        let name = std::env::var("FUZZ_TARGET").expect("FUZZ_TARGET names a target");
        let mut all = engine::TARGETS.into_iter().chain(turn::TARGETS);
        let found = all.find(|(known, _)| *known == name);
        found.expect("FUZZ_TARGET names a target").1
    })
}

fuzz_target!(|data: &[u8]| target()(data));
