//! The words of a consultation: its statuses, and what its people are and do.
//!
//! Each is written in the API and in the tables exactly as `as_str` says.

use serde::{Deserialize, Serialize};

/// Where a consultation stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Status {
    /// Planned, nobody has come yet.
    Scheduled,
    /// Somebody is here, nobody has been let in.
    Waiting,
    /// It has begun.
    InProgress,
    /// Interrupted on purpose.
    Paused,
    /// Ended by the doctor.
    Completed,
    /// Called off before it began.
    Cancelled,
    /// Somebody did not come.
    NoShow,
    /// Ended by a technical failure.
    Failed,
}

impl Status {
    /// Every status, in the order of its index.
    pub const ALL: [Self; 8] = [
        Self::Scheduled,
        Self::Waiting,
        Self::InProgress,
        Self::Paused,
        Self::Completed,
        Self::Cancelled,
        Self::NoShow,
        Self::Failed,
    ];

    /// The word used in the API and in the tables.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Scheduled => "SCHEDULED",
            Self::Waiting => "WAITING",
            Self::InProgress => "IN_PROGRESS",
            Self::Paused => "PAUSED",
            Self::Completed => "COMPLETED",
            Self::Cancelled => "CANCELLED",
            Self::NoShow => "NO_SHOW",
            Self::Failed => "FAILED",
        }
    }

    /// Reads the word back.
    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|status| status.as_str() == word)
    }

    /// Its place in [`Self::ALL`].
    pub const fn index(self) -> usize {
        self as usize
    }

    /// Nothing follows this status.
    pub const fn is_over(self) -> bool {
        match self {
            Self::Completed | Self::Cancelled | Self::NoShow | Self::Failed => true,
            Self::Scheduled | Self::Waiting | Self::InProgress | Self::Paused => false,
        }
    }
}

/// What the two exchange.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Mode {
    /// Picture and sound.
    Video,
    /// Sound only.
    Audio,
    /// Text only.
    Chat,
}

impl Mode {
    /// The word used in the API and in the tables.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Video => "VIDEO",
            Self::Audio => "AUDIO",
            Self::Chat => "CHAT",
        }
    }

    /// Reads the word back.
    pub fn parse(word: &str) -> Option<Self> {
        [Self::Video, Self::Audio, Self::Chat].into_iter().find(|mode| mode.as_str() == word)
    }
}

/// What a person is in a consultation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PersonRole {
    /// The person cared for.
    Patient,
    /// The clinician.
    Doctor,
    /// A relative or an interpreter.
    Guest,
}

impl PersonRole {
    /// The word used in the API and in the tables.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Patient => "patient",
            Self::Doctor => "doctor",
            Self::Guest => "guest",
        }
    }

    /// The word of the join answer.
    pub const fn as_type(self) -> &'static str {
        match self {
            Self::Patient => "PATIENT",
            Self::Doctor => "DOCTOR",
            Self::Guest => "GUEST",
        }
    }

    /// Reads the word back.
    pub fn parse(word: &str) -> Option<Self> {
        [Self::Patient, Self::Doctor, Self::Guest].into_iter().find(|role| role.as_str() == word)
    }
}

/// Where a person stands right now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Presence {
    /// In the waiting room.
    Waiting,
    /// Let in, not in the room yet.
    Admitted,
    /// In the room.
    Connected,
    /// In the room, but its media has fallen silent.
    Reconnecting,
    /// Gone.
    Left,
}

impl Presence {
    /// Every presence.
    pub const ALL: [Self; 5] =
        [Self::Waiting, Self::Admitted, Self::Connected, Self::Reconnecting, Self::Left];

    /// The word used in the API and in the tables.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Admitted => "admitted",
            Self::Connected => "connected",
            Self::Reconnecting => "reconnecting",
            Self::Left => "left",
        }
    }

    /// Reads the word back.
    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|presence| presence.as_str() == word)
    }
}

/// What a person is perceived by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Sense {
    /// The microphone.
    Audio,
    /// The camera.
    Video,
}

/// What happened, as stored in `session_events`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Happening {
    /// The consultation was made.
    Created,
    /// The patient came for the first time or again.
    PatientJoined,
    /// The doctor came for the first time or again.
    DoctorJoined,
    /// A guest came.
    GuestJoined,
    /// A waiting person was let in.
    Admitted,
    /// A person was put back into the waiting room.
    SentBack,
    /// A person went.
    Left,
    /// A waiting person's page has gone.
    WentAway,
    /// A person was kept out.
    Removed,
    /// Media is up.
    Connected,
    /// Media is up again.
    Reconnected,
    /// Media has fallen silent.
    Reconnecting,
    /// A person tries to come back.
    ReconnectAttempt,
    /// Presence in the room has ended.
    Disconnected,
    /// … because the connection did not come back.
    ConnectionLost,
    /// A person goes on by another device.
    DeviceChanged,
    /// A person's media was measured.
    Measured,
    /// The consultation began.
    Started,
    /// Doctor and patient have media, for the first time.
    BothConnected,
    /// It was interrupted.
    Paused,
    /// It went on.
    Resumed,
    /// It is over.
    Ended,
    /// It is over, by a technical failure.
    Failed,
    /// Its end was taken back.
    Reopened,
    /// It is planned for another time.
    Rescheduled,
    /// The room that carries it was opened.
    RoomOpened,
    /// A person's camera or microphone was muted, or is heard and seen again.
    Muted(Sense, bool),
}

impl Happening {
    /// The word in `session_events.event_type`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::PatientJoined => "patient_joined",
            Self::DoctorJoined => "doctor_joined",
            Self::GuestJoined => "guest_joined",
            Self::Admitted => "admitted",
            Self::SentBack => "sent_back",
            Self::Left => "left",
            Self::WentAway => "went_away",
            Self::Removed => "removed",
            Self::Connected => "participant.connected",
            Self::Reconnected => "participant.reconnected",
            Self::Reconnecting => "participant.reconnecting",
            Self::ReconnectAttempt => "participant.reconnect_attempt",
            Self::Disconnected => "participant.disconnected",
            Self::ConnectionLost => "participant.connection_lost",
            Self::DeviceChanged => "participant.device_changed",
            Self::Measured => "participant.measured",
            Self::Started => "started",
            Self::BothConnected => "both_connected",
            Self::Paused => "paused",
            Self::Resumed => "resumed",
            Self::Ended => "ended",
            Self::Failed => "failed",
            Self::Reopened => "reopened",
            Self::Rescheduled => "rescheduled",
            Self::RoomOpened => "room_opened",
            Self::Muted(Sense::Audio, true) => "audio_muted",
            Self::Muted(Sense::Audio, false) => "audio_unmuted",
            Self::Muted(Sense::Video, true) => "video_muted",
            Self::Muted(Sense::Video, false) => "video_unmuted",
        }
    }
}
