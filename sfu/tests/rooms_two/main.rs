//! The scenarios of `rooms` once more, with clients that have two connections: one to publish by, and
//! one to receive on, which the server offers.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    missing_docs,
    unreachable_pub,
    reason = "scenarios may fail loudly"
)]

/// Clients have a connection for each direction.
pub const TWO_CONNECTIONS: bool = true;

mod offers;

#[path = "../rooms/backup.rs"]
mod backup;
#[path = "../rooms/bandwidth.rs"]
mod bandwidth;
#[path = "../rooms/client.rs"]
mod client;
#[path = "../rooms/data.rs"]
mod data;
#[path = "../rooms/data_tracks.rs"]
mod data_tracks;
#[path = "../rooms/dynacast.rs"]
mod dynacast;
#[path = "../rooms/encrypted.rs"]
mod encrypted;
#[path = "../rooms/forwarding.rs"]
mod forwarding;
#[path = "../rooms/hostile.rs"]
mod hostile;
#[path = "../rooms/lies.rs"]
mod lies;
#[path = "../rooms/line.rs"]
mod line;
#[path = "../rooms/lipsync.rs"]
mod lipsync;
#[path = "../rooms/people.rs"]
mod people;
#[path = "../rooms/picture.rs"]
mod picture;
#[path = "../rooms/pipe.rs"]
mod pipe;
#[path = "../rooms/presence.rs"]
mod presence;
#[path = "../rooms/quality.rs"]
mod quality;
#[path = "../rooms/receiver.rs"]
mod receiver;
#[path = "../rooms/repair.rs"]
mod repair;
#[path = "../rooms/rights.rs"]
mod rights;
#[path = "../rooms/sound.rs"]
mod sound;
#[path = "../rooms/source.rs"]
mod source;
#[path = "../rooms/stream.rs"]
mod stream;
#[path = "../rooms/world.rs"]
mod world;
