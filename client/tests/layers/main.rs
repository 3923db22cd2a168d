//! Recorded layers through a whole room in virtual time: switched at random, and what comes out is
//! decoded by ffmpeg without an error.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    dead_code,
    missing_docs,
    unreachable_pub,
    reason = "scenarios may fail loudly; the room is the one of the engine's own scenarios"
)]

/// Clients have one connection for both directions.
pub const TWO_CONNECTIONS: bool = false;

#[path = "../../../sfu/tests/rooms/client.rs"]
mod client;
mod decode;
#[path = "../../../sfu/tests/rooms/line.rs"]
mod line;
#[path = "../../../sfu/tests/rooms/pipe.rs"]
mod pipe;
#[path = "../../../sfu/tests/rooms/receiver.rs"]
mod receiver;
#[path = "../../../sfu/tests/rooms/source.rs"]
mod source;
#[path = "../../../sfu/tests/rooms/stream.rs"]
mod stream;
mod unpack;
#[path = "../../../sfu/tests/rooms/world.rs"]
mod world;
