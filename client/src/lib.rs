//! A headless participant: joins a room by the client protocol that the SDKs speak, plays a picture
//! and a tone that were encoded beforehand, and receives what the others send.
//!
//! It is the synthetic patient of the demo, the load of the benchmarks and the bot of the tests. It
//! is handed a room token and makes none. The WebRTC endpoint, SDP, RTP and RTCP are those of the
//! media engine; the clock, the socket and the signal connection are its own. What it says about
//! reception is true: it asks for what is missing, reports what is lost, and feeds back arrival
//! times; it does not decode.
//!
//! One task serves one participant, and the encoded media is shared, so that one process can play
//! hundreds.
//!
//! ```no_run
//! # async fn example(token: String) -> Result<(), bedside_client::ConnectError> {
//! use bedside_client::{ConnectOptions, Participant, ParticipantEvent, Publish};
//!
//! let mut options = ConnectOptions::new("ws://127.0.0.1:8000", token);
//! options.publish = Publish { microphone: true, camera: true, ..Publish::default() };
//! let (participant, mut events) = Participant::connect(options).await?;
//! while let Some(event) = events.recv().await {
//!     if matches!(event, ParticipantEvent::Left(_)) {
//!         break;
//!     }
//! }
//! # drop(participant);
//! # Ok(())
//! # }
//! ```

mod call;
mod data;
mod delays;
mod frames;
mod lipsync;
mod loops;
mod media;
mod negotiation;
mod participant;
mod picture;
mod playout;
mod receiver;
pub mod recording;
mod sender;
mod session;
mod signal;
mod stats;
mod timed;
mod uplink;
mod wire;

pub use livekit_protocol as proto;
pub use participant::{
    ConnectError, ConnectOptions, DataMessage, Gone, LeaveCause, Participant, ParticipantEvent,
    Publish,
};
pub use signal::SignalError;
pub use stats::{
    AudioPlayout, Freeze, ReceivedTrack, SentTrack, Stats, UplinkEstimate, VideoPlayout,
};
pub use timed::{Ear, Heard};
