//! What comes out of the engine: to one session, to the node's owner, and the whole truth.

use std::time::Duration;

use super::{
    AddTrack, DataTrack, DataTrackInfo, Grant, LeaveReason, ParticipantInfo, ParticipantSid,
    Private, RoomKey, RoomSid, SessionKey, TrackInfo, TrackSid,
};

/// Room facts that a joining client gets.
#[derive(Clone, Debug)]
pub struct RoomInfo {
    /// This life of the room.
    pub sid: RoomSid,
    /// Its name.
    pub name: Private<String>,
    /// Its metadata.
    pub metadata: Private<String>,
    /// Limit, 0 = none.
    pub max_participants: u32,
    /// Wall clock at the opening, milliseconds since 1970.
    pub created_at_ms: i64,
    /// Participants now, hidden ones not counted.
    pub participants: u32,
    /// Those of them that publish.
    pub publishers: u32,
    /// How long it stands empty before anybody comes.
    pub empty_timeout: Option<Duration>,
    /// How long it stands empty when everybody has left.
    pub departure_timeout: Option<Duration>,
    /// A recorder is present.
    pub recording: bool,
}

/// Why a join, a resume or a request was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// No such room on this node.
    #[error("requested room does not exist")]
    NoRoom,
    /// The room is full.
    #[error("room is full")]
    RoomFull,
    /// No such participant, or not the same identity: join again.
    #[error("participant is not known here")]
    NoParticipant,
    /// The grant does not allow it.
    #[error("not allowed")]
    NotAllowed,
    /// No such track.
    #[error("no such track")]
    NoTrack,
    /// Too many of them.
    #[error("limit exceeded")]
    LimitExceeded,
    /// The offer cannot be understood or answered.
    #[error("offer cannot be answered")]
    BadOffer,
    /// The node takes no new rooms.
    #[error("node is draining")]
    Draining,
    /// The room is encrypted from end to end: there is nothing that a recorder could record.
    #[error("room is end-to-end encrypted")]
    Encrypted,
    /// A data track's handle cannot be used.
    #[error("handle is not valid")]
    InvalidHandle,
    /// Another of the publisher's data tracks has this handle.
    #[error("handle is taken")]
    DuplicateHandle,
    /// A data track's name is empty or too long.
    #[error("name is not valid")]
    InvalidName,
    /// Another of the publisher's data tracks has this name.
    #[error("name is taken")]
    DuplicateName,
}

/// Why a track that somebody wants does not reach it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unreceived {
    /// There is no such track.
    NoTrack,
    /// The client has no codec that the track comes in.
    Codec,
    /// The track is encrypted from end to end, and whoever wants it is a recorder.
    Encrypted,
}

/// What the packets of a data track are named by on the way to one subscriber.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DataHandle {
    /// In the packets.
    pub handle: u16,
    /// Whose.
    pub participant: ParticipantSid,
    /// Whose, by identity.
    pub identity: Private<String>,
    /// Which.
    pub track: TrackSid,
}

/// One speaker's level.
#[derive(Clone, Debug, PartialEq)]
pub struct Speaker {
    /// Who.
    pub participant: ParticipantSid,
    /// 0..=1, in steps of 1/8; 0 when no longer active.
    pub level: f32,
    /// Speaking now.
    pub active: bool,
}

/// How good a participant's connection is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum QualityLevel {
    /// Nothing comes from it any more.
    Lost,
    /// Speech suffers, or pictures stand still.
    Poor,
    /// Defects are noticed.
    Good,
    /// Hardly a defect.
    Excellent,
}

/// What one session is told of data tracks.
#[derive(Clone, Debug)]
pub enum DataTrackEvent {
    /// One's own has its id now.
    Published(DataTrackInfo),
    /// One's own was refused.
    Refused {
        /// The announcement.
        announced: Box<DataTrack>,
        /// Why.
        refusal: Refusal,
    },
    /// One's own is gone: taken back, or taken away.
    Unpublished(DataTrackInfo),
    /// One has none with this handle.
    Unknown {
        /// The handle.
        handle: u16,
    },
    /// All that this session receives, and what their packets are named by.
    Handles(Vec<DataHandle>),
}

/// What one session is told.
#[derive(Clone, Debug)]
pub enum SessionEvent {
    /// The join worked. Always the first event of a joining session.
    Joined {
        /// The room.
        room: RoomInfo,
        /// Oneself.
        me: ParticipantInfo,
        /// The others.
        others: Vec<ParticipantInfo>,
    },
    /// The resume worked. Always the first event of a resuming session.
    Resumed {
        /// Last reliable data sequence that we have from this client.
        last_data_sequence: u32,
        /// The room.
        room: RoomInfo,
        /// Everyone, oneself included.
        participants: Vec<ParticipantInfo>,
    },
    /// The join or resume was refused; nothing follows.
    Refused(Refusal),
    /// An answer to an offer.
    Answer {
        /// Echo of the offer's id.
        id: u32,
        /// RFC 8866 text.
        sdp: String,
        /// Which track each section carries towards the client.
        mid_to_track: Vec<(String, TrackSid)>,
    },
    /// An offer of ours, for the connection that the client receives on. One at a time.
    Offer {
        /// Names the offer; its answer names it too.
        id: u32,
        /// RFC 8866 text.
        sdp: String,
        /// Which track each section carries towards the client.
        mid_to_track: Vec<(String, TrackSid)>,
    },
    /// The client must add sections and offer again; zero and zero = offer again as it is.
    SectionsNeeded {
        /// New audio sections.
        audio: u32,
        /// New video sections.
        video: u32,
    },
    /// Participants changed (or left: [`ParticipantState::Disconnected`](super::ParticipantState::Disconnected)).
    Participants(Vec<ParticipantInfo>),
    /// An announced track has its id now.
    TrackPublished {
        /// The client's id.
        cid: String,
        /// The track.
        track: TrackInfo,
    },
    /// An announcement was refused.
    TrackRefused {
        /// The announcement.
        announced: Box<AddTrack>,
        /// Why.
        refusal: Refusal,
    },
    /// One's own track was taken away.
    TrackUnpublished {
        /// Which.
        track: TrackSid,
    },
    /// One's own track has its first subscriber.
    TrackSubscribed {
        /// Which.
        track: TrackSid,
    },
    /// May this session receive a track?
    SubscriptionAllowed {
        /// Whose.
        participant: ParticipantSid,
        /// Which.
        track: TrackSid,
        /// Yes or no.
        allowed: bool,
    },
    /// A subscription could not be made.
    SubscriptionFailed {
        /// Which.
        track: TrackSid,
        /// Why.
        why: Unreceived,
    },
    /// Something about data tracks.
    DataTrack(DataTrackEvent),
    /// The server wants this track muted.
    MuteRequested {
        /// Which.
        track: TrackSid,
        /// The wanted state.
        muted: bool,
    },
    /// Answer to [`Request::UpdateProfile`](super::Request::UpdateProfile).
    ProfileUpdated {
        /// Echo.
        request_id: u32,
        /// `None` = done.
        refusal: Option<Refusal>,
    },
    /// One's own rights changed.
    GrantChanged(Grant),
    /// Who speaks: changes only.
    Speakers(Vec<Speaker>),
    /// Which rungs of one's own track anybody wants: the others need not be sent.
    SubscribedQuality {
        /// Which.
        track: TrackSid,
        /// Lower-case name of each codec, and whether low, medium and high are wanted of it.
        codecs: Vec<(String, [bool; 3])>,
    },
    /// A subscribed track is not forwarded for want of bandwidth, or is again.
    StreamState {
        /// Whose.
        participant: ParticipantSid,
        /// Which.
        track: TrackSid,
        /// Not forwarded now.
        paused: bool,
    },
    /// Whose connection changed: its level, and the score behind it (0..=5).
    Quality(Vec<(ParticipantSid, QualityLevel, f32)>),
    /// The room's facts changed (count, metadata, recording).
    Room(RoomInfo),
    /// The session ends here; nothing follows. `resume`: the client may come back to the same
    /// participant.
    Left {
        /// Why.
        reason: LeaveReason,
        /// Whether a resume makes sense.
        resume: bool,
    },
}

/// What was measured of a participant's media while it was there. What was not measured is empty.
#[derive(Clone, Debug, PartialEq)]
pub struct Stay {
    /// How long.
    pub seconds: u32,
    /// Mean opinion, 1 (bad) to 4.4.
    pub score: f64,
    /// Packets of its own that never came, in percent.
    pub lost_percent: Option<f64>,
    /// The best of its pictures, bits in a second.
    pub video_bps: Option<u64>,
    /// Loudness while it spoke, 0 to 1.
    pub audio_level: Option<f64>,
}

/// What the node tells about its rooms, for whoever keeps books.
#[derive(Clone, Debug)]
pub enum NodeEvent {
    /// A room was opened.
    RoomStarted {
        /// Its facts.
        info: RoomInfo,
    },
    /// A room's settings or metadata changed.
    RoomChanged {
        /// Its facts now.
        info: RoomInfo,
    },
    /// Everything that was commanded before is done and told.
    Confirmed {
        /// Echo of [`Command::Confirm`](super::Command::Confirm).
        number: u64,
    },
    /// A room is gone.
    RoomFinished {
        /// Why.
        reason: LeaveReason,
    },
    /// A participant came in (signal only), became active, resumed, changed or left.
    Participant {
        /// Its state now.
        info: ParticipantInfo,
    },
    /// A participant is about to leave: what its stay was like.
    Measured {
        /// Who.
        participant: ParticipantSid,
        /// Whose.
        identity: Private<String>,
        /// What was measured.
        stay: Stay,
    },
    /// A participant's media fell silent (`false`) or came back (`true`).
    Reachable {
        /// Who.
        participant: ParticipantSid,
        /// Whose.
        identity: Private<String>,
        /// Answering now.
        reachable: bool,
    },
}

/// What comes out of the engine.
#[derive(Clone, Debug)]
pub enum Event {
    /// For one session.
    Session {
        /// Which.
        session: SessionKey,
        /// What.
        event: SessionEvent,
    },
    /// For the node's owner.
    Node {
        /// Which room.
        room: RoomKey,
        /// What.
        event: NodeEvent,
    },
    /// Events were lost because nobody took them. What follows is the whole truth about the rooms
    /// whose key modulo `shards` is `shard`; their sessions that are not named here must be cut and
    /// told to resume.
    Resync {
        /// The shard that lost events.
        shard: u64,
        /// How many shards there are.
        shards: u64,
        /// All its rooms.
        rooms: Vec<RoomSnapshot>,
    },
}

/// The whole truth about one room.
#[derive(Clone, Debug)]
pub struct RoomSnapshot {
    /// Which.
    pub room: RoomKey,
    /// Its facts.
    pub info: RoomInfo,
    /// Everyone in it, and the session each has now.
    pub participants: Vec<(ParticipantInfo, Option<SessionKey>)>,
}
