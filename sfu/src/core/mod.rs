//! The pure part of the engine. No runtime, socket, thread, clock, lock or randomness of its own.

pub mod api;
pub mod codec;
pub mod counters;
pub mod ice;
pub mod peer;
pub mod rtcp;
pub mod rtp;
pub mod sdp;
pub mod srtp;
pub mod twcc;

/// The engine's randomness, seeded by its owner.
pub type Rng = rand_chacha::ChaCha20Rng;
