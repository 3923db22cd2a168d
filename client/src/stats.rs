//! What a participant has sent and received.

use std::time::{Duration, Instant};

use bedside_sfu::core::api::MediaKind;

/// A snapshot of one participant, a fifth of a second old at the most; a second, if it has an ear.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Stats {
    /// Media can flow.
    pub connected: bool,
    /// Published tracks; of simulcast each layer.
    pub sent: Vec<SentTrack>,
    /// What the link is thought to carry, once the other side gives transport-wide feedback.
    pub uplink: Option<UplinkEstimate>,
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
    /// Simulcast layer; empty without simulcast.
    pub rid: String,
    /// Muted now.
    pub muted: bool,
    /// Frames go out now: it is wanted, not muted, and the link has room for it.
    pub flows: bool,
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
    /// Packets sent again only to probe the link.
    pub padding: u64,
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
            rid: String::new(),
            muted: false,
            flows: false,
            packets: 0,
            bytes: 0,
            frames: 0,
            nacked: 0,
            repaired: 0,
            padding: 0,
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
    /// What was heard of an audio track.
    pub audio: AudioPlayout,
    /// What was seen of a video track.
    pub video: VideoPlayout,
}

impl ReceivedTrack {
    pub(crate) fn new(sid: String, kind: MediaKind) -> Self {
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
            audio: AudioPlayout::default(),
            video: VideoPlayout::default(),
        }
    }
}

/// What was heard, by the play-out model.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AudioPlayout {
    /// Time since the first packet.
    pub played: Duration,
    /// Of that, made up because the audio was not there.
    pub concealed: Duration,
    /// Of that, nothing at all: concealment that went on has faded.
    pub silent: Duration,
    /// Packets of which something was played.
    pub packets: u64,
    /// How long all of those waited before, together.
    pub waited: Duration,
    /// The longest wait.
    pub longest_delay: Duration,
    /// How long packets are to wait now.
    pub target: Duration,
    /// Played from the redundancy of a later packet.
    pub from_redundancy: u64,
    /// Played because they were sent again.
    pub from_repair: u64,
    /// Came after their time.
    pub late: u64,
    /// Left out to lower the delay.
    pub removed: Duration,
    /// Stretched to raise it.
    pub inserted: Duration,
    /// 95 % of the packets spent less than this in queues on the way.
    pub queue_p95: Duration,
}

/// What was seen, by the play-out model.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct VideoPlayout {
    /// Frames shown.
    pub frames: u64,
    /// Of those, keyframes.
    pub keyframes: u64,
    /// Frames whose packets all came.
    pub assembled: u64,
    /// Height of the last keyframe shown, where its codec tells; else 0.
    pub height: u16,
    /// When the first one was shown.
    pub first_frame: Option<Instant>,
    /// Time since the first frame without pauses.
    pub watched: Duration,
    /// Gaps of at least three mean gaps and of 150 ms more than the mean.
    pub freezes: u64,
    /// Their length together.
    pub frozen: Duration,
    /// The last ones, oldest first.
    pub log: Vec<Freeze>,
    /// Longest time between two frames.
    pub longest_gap: Duration,
    /// Time in pauses: the server, or the sender, has said that no picture comes.
    pub paused: Duration,
    /// In such a pause now.
    pub paused_now: bool,
    /// How long frames waited once they were complete, together.
    pub delay: Duration,
    /// How long frames are to wait now.
    pub target: Duration,
}

/// The picture stood still.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Freeze {
    /// Since the frame of this time.
    pub from: Instant,
    /// For so long.
    pub lasted: Duration,
}

/// What one's own link upwards is thought to carry.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct UplinkEstimate {
    /// Bits a second.
    pub bps: u64,
    /// Share of the packets lost, smoothed.
    pub loss: f32,
    /// Round trip time.
    pub round_trip: Option<Duration>,
}
