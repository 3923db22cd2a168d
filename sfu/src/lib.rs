//! The media engine: rooms whose tracks are forwarded between participants.
//!
//! `core` is pure: datagrams, commands and time go in; datagrams and events come out. `node` gives
//! it threads and sockets. The engine knows rooms, participants, tracks and layers; it knows
//! nothing of doctors, tokens or databases.

pub mod core;
pub mod node;
