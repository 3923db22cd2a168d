//! What goes into the engine and what comes out: plain data, in the words of the room model.
//!
//! A *session* is one client's signal connection; it is named by a [`SessionKey`] that the caller
//! mints. A participant outlives its sessions (a resume brings a new session to the same
//! participant). Every [`Event::Session`] is addressed to the newest session of a participant.
//! Ids that clients see (`RM_…`, `PA_…`, `TR_…`) are minted by the engine.

mod events;

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

pub use events::{
    DataHandle, DataTrackEvent, Event, NodeEvent, QualityLevel, Refusal, RoomInfo, RoomSnapshot,
    SessionEvent, Speaker, Stay, Unreceived,
};

/// A value that must never reach a log, a metric or a URL: no `Display`, and `Debug` shows `…`.
#[derive(Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Private<T>(pub T);

impl<T> Private<T> {
    /// Wraps a value.
    pub const fn new(value: T) -> Self {
        Self(value)
    }

    /// The value; the caller answers for where it goes.
    pub const fn reveal(&self) -> &T {
        &self.0
    }
}

impl<T> fmt::Debug for Private<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("…")
    }
}

/// One room of this process. Minted by whoever opens the room, never used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RoomKey(pub u64);

/// One signal session. Minted by signaling, never used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SessionKey(pub u64);

/// `RM_…`: the name of one life of a room, as clients see it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RoomSid(pub Arc<str>);

/// `PA_…`: one presence of a person in a room.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ParticipantSid(pub Arc<str>);

/// `TR_…`: one published track. Two letters tell kind and source: `AM`, `VC`, `VS`, `AS`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TrackSid(pub Arc<str>);

/// Where a participant's datagrams come from and go to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Path {
    /// A UDP flow. `local` is the address the client used to reach us (answers leave from it).
    Udp {
        /// Our address as the client sees it arrive.
        local: SocketAddr,
        /// The client's address.
        remote: SocketAddr,
    },
    /// A framed TCP connection (RFC 4571).
    Tcp {
        /// Its number; the listener gives each one once.
        connection: u64,
        /// The client's address.
        remote: SocketAddr,
    },
    /// A TURN allocation of this node: known by its number, for an address can be claimed.
    Relay {
        /// Its number; the TURN server gives each one once.
        relay: u64,
        /// The media address that the client wants to reach (answers come from it).
        local: SocketAddr,
        /// The relayed address, which is nowhere but in messages.
        remote: SocketAddr,
    },
}

/// Audio or video.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum MediaKind {
    /// An audio track.
    Audio,
    /// A video track.
    Video,
}

/// What a track shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Source {
    /// Not said.
    Unknown,
    /// A camera.
    Camera,
    /// A microphone.
    Microphone,
    /// A shared screen or window.
    Screen,
    /// The sound of a shared screen.
    ScreenAudio,
}

/// A rung of the quality ladder as clients name it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Quality {
    /// Lowest layer.
    Low,
    /// Middle layer.
    Medium,
    /// Highest layer.
    High,
}

/// Which data channel a message travels on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum DataChannelKind {
    /// `_reliable`: ordered, retransmitted.
    Reliable,
    /// `_lossy`: unordered, sent once.
    Lossy,
    /// `_data_track`: unordered, sent once; the packets of data tracks.
    Track,
}

/// The rights of a participant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grant {
    /// May publish tracks.
    pub publish: bool,
    /// May receive tracks.
    pub subscribe: bool,
    /// May send data messages.
    pub publish_data: bool,
    /// Sources it may publish; empty means all.
    pub sources: Vec<Source>,
    /// May change its own name, metadata and attributes.
    pub update_own_metadata: bool,
    /// Is not shown to others.
    pub hidden: bool,
    /// Is a recorder.
    pub recorder: bool,
}

impl Default for Grant {
    fn default() -> Self {
        Self {
            publish: true,
            subscribe: true,
            publish_data: true,
            sources: Vec::new(),
            update_own_metadata: false,
            hidden: false,
            recorder: false,
        }
    }
}

/// What others see of a person. The engine carries it and does not look into it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Profile {
    /// Unique in a room; a second join by the same identity replaces the first.
    pub identity: Private<String>,
    /// Display name.
    pub name: Private<String>,
    /// Free text of the application.
    pub metadata: Private<String>,
    /// Free pairs of the application.
    pub attributes: Private<BTreeMap<String, String>>,
    /// Participant kind, as the door's protocol numbers it.
    pub kind: i32,
    /// Client-to-client protocol version, copied to the others.
    pub client_protocol: i32,
    /// Client capabilities, copied to the others.
    pub capabilities: Vec<i32>,
}

/// What the engine must know of a client's software.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClientTraits {
    /// Take the DTLS client role where the offer leaves the choice (`actpass`). Only for client
    /// families tested so; the default (`false`) is the passive role.
    pub dtls_active: bool,
    /// Accept AES_CM_128_HMAC_SHA1_80 when we are the DTLS client (WHIP, unknown families).
    pub allow_cm: bool,
    /// This client's subscriptions can receive RED audio.
    pub reads_red: bool,
    /// It has two connections: one to publish by, which it offers, and one to receive on, which we do.
    pub two_connections: bool,
    /// A section that was inactive in two of our offers is of no use to it any more: those whose track
    /// has gone are offered open, without a stream.
    pub idle_stays_open: bool,
}

/// How long receivers hold pictures back, for smoothness or for speed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PlayoutDelay {
    /// At least.
    pub min_ms: u16,
    /// At the most.
    pub max_ms: u16,
}

impl PlayoutDelay {
    /// As the header extension `playout-delay` writes it: two numbers of 12 bits, in 10 ms.
    pub(super) fn bytes(self) -> [u8; 3] {
        let tens = |ms: u16| u32::from(ms / 10).min(0xFFF);
        let (min, max) = (tens(self.min_ms), tens(self.max_ms.max(self.min_ms)));
        let [_, high, middle, low] = (min << 12 | max).to_be_bytes();
        [high, middle, low]
    }
}

/// A room to open.
#[derive(Clone, Debug)]
pub struct RoomSpec {
    /// Its key.
    pub room: RoomKey,
    /// The name that clients know.
    pub name: Private<String>,
    /// Free text of the application.
    pub metadata: Private<String>,
    /// How many participants at the most; 0 = no limit.
    pub max_participants: u32,
    /// Close the room when it has stood empty this long before the first participant. `None`: only
    /// by command.
    pub empty_timeout: Option<Duration>,
    /// Close the room when it has stood empty this long after the last participant. `None`: only by
    /// command.
    pub departure_timeout: Option<Duration>,
    /// How long receivers hold pictures back. `None`: as their publishers say, if they do.
    pub playout_delay: Option<PlayoutDelay>,
}

/// A person comes in. The grant was checked by the caller: without a grant there is no peer.
#[derive(Clone, Debug)]
pub struct Join {
    /// The room; it must be open.
    pub room: RoomKey,
    /// The session that the events go to.
    pub session: SessionKey,
    /// What others see.
    pub profile: Profile,
    /// What it may do.
    pub grant: Grant,
    /// Subscribe to every track without being asked.
    pub auto_subscribe: bool,
    /// The client adapts layers to its elements: start low.
    pub adaptive_stream: bool,
    /// Video may be paused where the path is too weak for it: audio goes first.
    pub allow_pause: bool,
    /// What we know of its software.
    pub client: ClientTraits,
}

/// A new session for a participant that is still here, with the rights that it has by now: whoever
/// asks may know older ones.
#[derive(Clone, Debug)]
pub struct Resume {
    /// The room.
    pub room: RoomKey,
    /// The new session.
    pub session: SessionKey,
    /// Who resumes.
    pub participant: ParticipantSid,
    /// Must be the participant's identity.
    pub identity: Private<String>,
}

/// One announced encoding ladder rung.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LayerInfo {
    /// Rung.
    pub quality: Quality,
    /// Pixels.
    pub width: u32,
    /// Pixels.
    pub height: u32,
    /// Target, bits per second.
    pub bitrate_bps: u32,
    /// `rid` of a simulcast layer, empty without simulcast.
    pub rid: String,
    /// Media SSRC once known, else 0.
    pub ssrc: u32,
    /// Repair SSRC once known, else 0.
    pub repair_ssrc: u32,
    /// Index, 0 = lowest.
    pub spatial: u8,
}

/// A codec that the publisher announced for a track.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AnnouncedCodec {
    /// Name without `video/`, as sent.
    pub codec: String,
    /// The client's id of the sender that carries it; empty for a backup not yet sent.
    pub cid: String,
    /// How the layers are carried, as the door's protocol numbers it.
    pub layer_mode: i32,
    /// Section of the publisher's offer that carries it as a backup; empty while none does.
    pub mid: String,
    /// Its rungs as a backup, any order; the first codec's are the track's.
    pub layers: Vec<LayerInfo>,
}

/// A publisher announces a track before its offer carries it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AddTrack {
    /// The client's id of the track.
    pub cid: String,
    /// Application name of the track.
    pub name: Private<String>,
    /// Audio or video.
    pub kind: MediaKind,
    /// What it shows.
    pub source: Source,
    /// Starts muted.
    pub muted: bool,
    /// Pixels of the original.
    pub width: u32,
    /// Pixels of the original.
    pub height: u32,
    /// Announced rungs, any order.
    pub layers: Vec<LayerInfo>,
    /// Announced codecs, wanted first.
    pub codecs: Vec<AnnouncedCodec>,
    /// An earlier track that this is the backup codec of.
    pub backup_of: Option<TrackSid>,
    /// Name of the group of tracks it belongs to.
    pub stream: String,
    /// Do not use Opus DTX.
    pub disable_dtx: bool,
    /// Do not use RED.
    pub disable_red: bool,
    /// Stereo audio.
    pub stereo: bool,
    /// Encryption, as the door's protocol numbers it (0 = none). Payloads are then never altered.
    pub encryption: i32,
    /// Audio features, as the door's protocol numbers them.
    pub audio_features: Vec<i32>,
    /// Backup codec policy, as the door's protocol numbers it.
    pub backup_codec_policy: i32,
}

/// A published track as others see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TrackInfo {
    /// Its id.
    pub sid: TrackSid,
    /// Muted now.
    pub muted: bool,
    /// Section of the publisher's offer; empty until an offer carried it.
    pub mid: String,
    /// `audio/opus`, `video/vp8` …; empty until known.
    pub mime_type: String,
    /// More than one simulcast layer.
    pub simulcast: bool,
    /// The announcement, layers sorted low to high and filled with rid and SSRC as they are known.
    pub announced: AddTrack,
}

/// A track of data frames, as its publisher announces it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DataTrack {
    /// What its packets name it by on the way from the publisher; never 0.
    pub handle: u16,
    /// Unique among the publisher's data tracks.
    pub name: Private<String>,
    /// Encryption of its frames, as the door's protocol numbers it (0 = none).
    pub encryption: i32,
    /// What its frames are like, in the words of the door's protocol; passed on as it is.
    pub format: bytes::Bytes,
}

/// A published data track as others see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DataTrackInfo {
    /// Its id.
    pub sid: TrackSid,
    /// The announcement.
    pub announced: DataTrack,
}

/// Life of a participant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ParticipantState {
    /// Signal session is there, media is not yet.
    Joined,
    /// Media transport is up.
    Active,
    /// Gone; see the reason.
    Disconnected(LeaveReason),
}

/// Why a participant left or a room ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LeaveReason {
    /// The client said so.
    ClientInitiated,
    /// The same identity joined again.
    DuplicateIdentity,
    /// The server stops.
    ServerShutdown,
    /// Removed by command.
    ParticipantRemoved,
    /// The room was deleted by command.
    RoomDeleted,
    /// The room closed because it was empty or ended.
    RoomClosed,
    /// What the client believes does not fit what we know; it should join again.
    StateMismatch,
    /// It never became active (60 s).
    JoinFailure,
    /// Its media transport failed or fell silent and it did not resume.
    ConnectionTimeout,
    /// The media transport could not be set up (DTLS, keys).
    MediaFailure,
}

/// A participant as others see it. `version` rises by one with each change.
#[derive(Clone, Debug)]
pub struct ParticipantInfo {
    /// Its id.
    pub sid: ParticipantSid,
    /// What others see.
    pub profile: Arc<Profile>,
    /// Its rights.
    pub grant: Grant,
    /// Where it stands.
    pub state: ParticipantState,
    /// Its tracks.
    pub tracks: Vec<TrackInfo>,
    /// Its data tracks.
    pub data_tracks: Vec<DataTrackInfo>,
    /// Wall clock at the join, milliseconds since 1970.
    pub joined_at_ms: i64,
    /// Change counter.
    pub version: u32,
}

/// What a client asks of its own participant.
#[derive(Clone, Debug)]
pub enum Request {
    /// An SDP offer. Answered by [`SessionEvent::Answer`] with the same id.
    Offer {
        /// Echoed in the answer.
        id: u32,
        /// RFC 8866 text.
        sdp: String,
    },
    /// The answer to a [`SessionEvent::Offer`].
    Answer {
        /// Of the offer; 0 where the client does not say it.
        id: u32,
        /// RFC 8866 text.
        sdp: String,
    },
    /// Announce a track.
    AddTrack(Box<AddTrack>),
    /// Mute or unmute one's own track.
    Mute {
        /// Which.
        track: TrackSid,
        /// The new state.
        muted: bool,
    },
    /// Audio features or video size of one's own track changed.
    UpdateTrack {
        /// Which.
        track: TrackSid,
        /// New audio features.
        audio_features: Option<Vec<i32>>,
        /// New width and height.
        size: Option<(u32, u32)>,
    },
    /// Subscribe to or unsubscribe from tracks.
    Subscribe {
        /// Which.
        tracks: Vec<TrackSid>,
        /// Wanted or not.
        subscribe: bool,
    },
    /// Watch one publisher on the sections of the first offer, which is yet to come: what flows there
    /// changes without another one. Nobody else's tracks are received.
    Watch {
        /// Whom; `None`: the first that has a picture.
        publisher: Option<Private<String>>,
    },
    /// What the subscriber wants of tracks.
    TrackSettings {
        /// Which.
        tracks: Vec<TrackSid>,
        /// Forward nothing for now.
        disabled: bool,
        /// Rung wanted where no size is given.
        quality: Quality,
        /// Element size, 0 = not given.
        width: u32,
        /// Element size, 0 = not given.
        height: u32,
        /// Frames per second wanted at the most, 0 = not given.
        fps: u32,
    },
    /// Who may subscribe to this participant's tracks.
    SubscriptionPermission {
        /// Everyone may.
        all_participants: bool,
        /// Otherwise: these.
        allowed: Vec<TrackPermission>,
    },
    /// Change what others see. `None` = unchanged; an empty attribute value deletes it.
    UpdateProfile {
        /// Name to echo in the answer.
        request_id: u32,
        /// New name.
        name: Option<Private<String>>,
        /// New metadata.
        metadata: Option<Private<String>>,
        /// Changed attributes.
        attributes: Private<BTreeMap<String, String>>,
    },
    /// Publish a data track; answered by [`DataTrackEvent::Published`] or
    /// [`DataTrackEvent::Refused`].
    PublishDataTrack(Box<DataTrack>),
    /// Take a data track back; answered by [`DataTrackEvent::Unpublished`] or
    /// [`DataTrackEvent::Unknown`].
    UnpublishDataTrack {
        /// Its handle.
        handle: u16,
    },
    /// Subscribe to or unsubscribe from data tracks; answered by [`DataTrackEvent::Handles`].
    SubscribeData {
        /// Which, and whether each is wanted.
        tracks: Vec<(TrackSid, bool)>,
    },
    /// What a resuming client believes.
    SyncState {
        /// Tracks it believes it publishes, data tracks too (an unknown one forces a new join).
        published: Vec<TrackSid>,
        /// Subscriptions: with auto-subscribe the unwanted, without it the wanted.
        subscription: Option<(Vec<TrackSid>, bool)>,
        /// Tracks whose forwarding it has switched off.
        disabled: Vec<TrackSid>,
        /// Last reliable sequence seen of each sender; newer ones are sent again.
        received: Vec<(ParticipantSid, u32)>,
    },
    /// The client leaves.
    Leave,
}

/// One line of a subscription permission.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TrackPermission {
    /// The subscriber, by sid …
    pub sid: Option<ParticipantSid>,
    /// … or by identity.
    pub identity: Option<Private<String>>,
    /// All tracks …
    pub all_tracks: bool,
    /// … or these.
    pub tracks: Vec<TrackSid>,
}

/// What is to change about a participant. `None` = as it is.
#[derive(Clone, Debug)]
pub struct ParticipantUpdate {
    /// Where.
    pub room: RoomKey,
    /// Who.
    pub identity: Private<String>,
    /// New name.
    pub name: Option<Private<String>>,
    /// New metadata.
    pub metadata: Option<Private<String>>,
    /// Changed attributes; an empty value deletes.
    pub attributes: Private<BTreeMap<String, String>>,
    /// New rights.
    pub grant: Option<Grant>,
}

/// What the engine is told.
#[derive(Clone, Debug)]
pub enum Command {
    /// Open a room; one that is open already takes the settings, tells what changed and goes on.
    OpenRoom(Box<RoomSpec>),
    /// Close a room and everything in it.
    CloseRoom {
        /// Which.
        room: RoomKey,
        /// Told to everyone in it.
        reason: LeaveReason,
    },
    /// A person comes in; answered by [`SessionEvent::Joined`] or [`SessionEvent::Refused`].
    Join(Box<Join>),
    /// A new session for a participant; answered by [`SessionEvent::Resumed`] or `Refused`.
    Resume(Box<Resume>),
    /// A session's client asks something.
    Request {
        /// Who asks.
        session: SessionKey,
        /// What.
        request: Request,
    },
    /// The signal connection is gone without a leave; the participant stays while its media lives.
    SessionGone {
        /// Which.
        session: SessionKey,
    },
    /// Remove a participant by identity.
    Remove {
        /// Where.
        room: RoomKey,
        /// Who.
        identity: Private<String>,
        /// Told to it and to the others.
        reason: LeaveReason,
    },
    /// Change a participant's rights.
    UpdateGrant {
        /// Where.
        room: RoomKey,
        /// Who.
        identity: Private<String>,
        /// The new rights.
        grant: Grant,
    },
    /// Change what others see of a participant, and its rights.
    UpdateParticipant(Box<ParticipantUpdate>),
    /// Subscribe a participant to tracks, or unsubscribe it, as if its client had asked.
    UpdateSubscriptions {
        /// Where.
        room: RoomKey,
        /// Who.
        identity: Private<String>,
        /// Which.
        tracks: Vec<TrackSid>,
        /// Wanted or not.
        subscribe: bool,
    },
    /// Ask a publisher to mute a track.
    MuteTrack {
        /// Where.
        room: RoomKey,
        /// Which.
        track: TrackSid,
        /// The wanted state.
        muted: bool,
    },
    /// Send a data message of the server's own.
    SendData {
        /// Where.
        room: RoomKey,
        /// Which channel.
        channel: DataChannelKind,
        /// The message as it goes on the channel.
        payload: bytes::Bytes,
        /// Receivers by identity; empty (with `to_sids` empty) = everyone.
        to: Vec<Private<String>>,
        /// Receivers by id.
        to_sids: Vec<ParticipantSid>,
    },
    /// Answered by [`NodeEvent::Confirmed`] when all that was commanded before is done and told.
    Confirm {
        /// On whose shard; it need not be open.
        room: RoomKey,
        /// Echoed.
        number: u64,
    },
    /// Close every room with [`LeaveReason::ServerShutdown`].
    Shutdown,
}

/// What the engine must know of a data message's sender to relay it.
#[derive(Clone, Debug)]
pub struct DataSender<'a> {
    /// Its id; empty when the sender is hidden.
    pub sid: &'a str,
    /// Its identity; empty when the sender is hidden.
    pub identity: &'a str,
    /// It is an agent (may speak for others in transcriptions and text streams).
    pub agent: bool,
}

/// A message made ready to be relayed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Relayed {
    /// What goes out on the same channel kind.
    pub payload: bytes::Bytes,
    /// Receivers by identity; empty (with `to_sids` empty) = everyone but the sender.
    pub to_identities: Vec<String>,
    /// Receivers by id.
    pub to_sids: Vec<String>,
    /// Reliable sequence of this sender, 0 = none. Repeats are dropped.
    pub sequence: u32,
}

/// Turns a message as it came from a channel into what is relayed, or nothing if it must be
/// dropped. The engine does not know the envelope of the door's protocol; this function does.
pub type RelayFn = fn(&DataSender<'_>, DataChannelKind, &[u8]) -> Option<Relayed>;

/// What goes into the engine.
#[derive(Debug)]
pub enum Input<'a> {
    /// A datagram, opened in place.
    Datagram {
        /// Where it came in.
        path: Path,
        /// When the kernel got it, for feedback.
        received: Instant,
        /// Its bytes.
        data: &'a mut [u8],
    },
    /// A path is no more: its connection has ended.
    Closed {
        /// Which.
        path: Path,
    },
    /// A relay is no more, and with it all its paths.
    RelayClosed {
        /// Which.
        relay: u64,
    },
    /// A command.
    Command(Command),
    /// The time that [`Output::Timeout`] named has come (or any later time).
    Timeout,
}

/// Datagrams for one path: one, or a train of equal size (only the last may be shorter).
#[derive(Clone, Copy, Debug)]
pub struct Transmit<'a> {
    /// Where to.
    pub path: Path,
    /// Size of each datagram of the train.
    pub segment_size: usize,
    /// The datagrams, one behind the other.
    pub contents: &'a [u8],
}

/// What comes out of the engine; poll until [`Output::Timeout`].
#[derive(Debug)]
pub enum Output<'a> {
    /// Send these now.
    Transmit(Transmit<'a>),
    /// Tell this.
    Event(Event),
    /// Nothing more until new input or this instant.
    Timeout(Option<Instant>),
}
