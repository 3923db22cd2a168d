//! Rooms under hostile and random use, in virtual time and without a socket: packets in clear, so that
//! whatever the engine would seal twice is seen.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    dead_code,
    missing_docs,
    unreachable_pub,
    reason = "scenarios may fail loudly"
)]

mod abuse;
mod person;
#[path = "../rooms/receiver.rs"]
mod receiver;
mod sequences;
mod source;
mod world;
