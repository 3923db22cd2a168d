//! The running product from outside: what scripts and clients of others rely on, held against the
//! real binary as a process on free ports. Nothing here uses a type of ours but the headless
//! participant, which speaks the room protocol.

#![allow(missing_docs, reason = "tests are not an interface")]
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test fails by panicking")]

mod api;
mod channel;
mod cli;
mod doors;
mod golden;
mod life;
mod rooms;
mod support;
