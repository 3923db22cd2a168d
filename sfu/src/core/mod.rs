//! The pure part of the engine. No runtime, socket, thread, clock, lock or randomness of its own.

pub mod api;
pub mod counters;
pub mod ice;
pub mod peer;
pub mod srtp;

/// The engine's randomness, seeded by its owner.
pub type Rng = rand_chacha::ChaCha20Rng;
