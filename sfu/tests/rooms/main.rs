//! Whole rooms in virtual time, without a socket: real peers on both sides, a seeded network between.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    missing_docs,
    unreachable_pub,
    reason = "scenarios may fail loudly"
)]

/// Clients have one connection for both directions.
pub const TWO_CONNECTIONS: bool = false;

mod backup;
mod bandwidth;
mod client;
mod data;
mod data_tracks;
mod dynacast;
mod encrypted;
mod forwarding;
mod hostile;
mod lies;
mod line;
mod lipsync;
mod people;
mod picture;
mod pipe;
mod presence;
mod quality;
mod receiver;
mod repair;
mod rights;
mod sound;
mod source;
mod stream;
mod watching;
mod world;
