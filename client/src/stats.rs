//! What a participant has sent and received.

use std::time::Duration;

use bedside_sfu::core::api::MediaKind;

/// A snapshot of one participant, a fifth of a second old at the most.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Stats {
    /// Media can flow.
    pub connected: bool,
    /// Published tracks.
    pub sent: Vec<SentTrack>,
    /// Tracks received now or earlier.
    pub received: Vec<ReceivedTrack>,
    /// Signal sessions resumed.
    pub resumes: u64,
    /// Full joins after the first.
    pub rejoins: u64,
    /// Transport-wide feedback messages sent.
    pub feedback_sent: u64,
    /// Transport-wide feedback messages received.
    pub feedback_received: u64,
    /// Data messages sent.
    pub data_sent: u64,
    /// Data messages received.
    pub data_received: u64,
    /// Datagrams that the kernel did not take.
    pub unsent: u64,
    /// Packets of streams that no answer has named.
    pub unknown_packets: u64,
    /// Events that nobody took in time.
    pub missed_events: u64,
}

/// One published track.
#[derive(Clone, Debug, PartialEq)]
pub struct SentTrack {
    /// Its id.
    pub sid: String,
    /// Audio or video.
    pub kind: MediaKind,
    /// Muted now.
    pub muted: bool,
    /// Packets, repairs not counted.
    pub packets: u64,
    /// Payload bytes, repairs not counted.
    pub bytes: u64,
    /// Frames.
    pub frames: u64,
    /// Packets asked for again.
    pub nacked: u64,
    /// Packets sent again.
    pub repaired: u64,
    /// Keyframe requests received.
    pub keyframe_requests: u64,
    /// Lost in all, as the other side reports.
    pub remote_lost: i64,
    /// Lost of late, as the other side reports, in 1/256.
    pub remote_fraction_lost: u8,
    /// Round trip by the last report.
    pub round_trip: Option<Duration>,
}

impl Default for SentTrack {
    fn default() -> Self {
        Self {
            sid: String::new(),
            kind: MediaKind::Audio,
            muted: false,
            packets: 0,
            bytes: 0,
            frames: 0,
            nacked: 0,
            repaired: 0,
            keyframe_requests: 0,
            remote_lost: 0,
            remote_fraction_lost: 0,
            round_trip: None,
        }
    }
}

/// One received track.
#[derive(Clone, Debug, PartialEq)]
pub struct ReceivedTrack {
    /// Its id.
    pub sid: String,
    /// Audio or video.
    pub kind: MediaKind,
    /// An answer still carries it.
    pub active: bool,
    /// Packets, each counted once.
    pub packets: u64,
    /// Payload bytes of those.
    pub bytes: u64,
    /// Video frames whose last packet came, or audio packets.
    pub frames: u64,
    /// Keyframes begun.
    pub keyframes: u64,
    /// Packets that never came.
    pub lost: u64,
    /// Packets that came by repair.
    pub repaired: u64,
    /// Packets that came again without need.
    pub repeated: u64,
    /// Packets asked for again (each asking counts).
    pub nacked: u64,
    /// Keyframe requests sent.
    pub keyframe_requests: u64,
    /// Interarrival jitter.
    pub jitter: Duration,
    /// Longest time between two packets since the first.
    pub longest_gap: Duration,
}

impl ReceivedTrack {
    pub(crate) const fn new(sid: String, kind: MediaKind) -> Self {
        Self {
            sid,
            kind,
            active: true,
            packets: 0,
            bytes: 0,
            frames: 0,
            keyframes: 0,
            lost: 0,
            repaired: 0,
            repeated: 0,
            nacked: 0,
            keyframe_requests: 0,
            jitter: Duration::ZERO,
            longest_gap: Duration::ZERO,
        }
    }
}
