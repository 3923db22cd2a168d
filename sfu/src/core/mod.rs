//! The pure part of the engine. No runtime, socket, thread, clock, lock or randomness of its own.

pub mod api;
mod asking;
pub mod bwe;
mod cache;
pub mod codec;
mod context;
pub mod counters;
mod data;
pub mod descriptor;
mod dynacast;
pub mod engine;
mod feedback;
mod hearing;
pub mod ice;
mod keyframes;
mod ladder;
mod layers;
mod link;
mod media;
mod negotiation;
mod outgoing;
mod participant;
pub mod peer;
mod peering;
mod protection;
mod quality;
mod reception;
pub mod red;
mod repair;
mod requests;
mod room;
pub mod rtcp;
pub mod rtp;
pub mod sdp;
mod sealed;
mod sounds;
mod spans;
mod speakers;
pub mod srtp;
mod streams;
mod subscribing;
mod subscription;
mod track;
pub mod twcc;

/// The engine's randomness, seeded by its owner.
pub type Rng = rand_chacha::ChaCha20Rng;
