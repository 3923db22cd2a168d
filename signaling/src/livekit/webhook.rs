//! What happens in rooms, as the receivers of the server SDKs read it: one JSON message each.

use bedside_sfu::core::api::{LeaveReason, ParticipantInfo, RoomInfo, TrackInfo};
use livekit_protocol as lk;

use super::convert;

/// What happened in a room.
#[derive(Clone, Copy, Debug)]
pub enum RoomNews<'a> {
    /// It was opened.
    Started,
    /// It is gone.
    Finished(LeaveReason),
    /// Somebody's media is up.
    Joined(&'a ParticipantInfo),
    /// Somebody left.
    Left(&'a ParticipantInfo),
    /// Somebody left whose media was never up.
    Aborted(&'a ParticipantInfo),
    /// Somebody publishes a track.
    Published(&'a ParticipantInfo, &'a TrackInfo),
    /// A track is no more.
    Unpublished(&'a ParticipantInfo, &'a TrackInfo),
}

impl RoomNews<'_> {
    /// Its name for receivers.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Started => "room_started",
            Self::Finished(_) => "room_finished",
            Self::Joined(_) => "participant_joined",
            Self::Left(_) => "participant_left",
            Self::Aborted(_) => "participant_connection_aborted",
            Self::Published(..) => "track_published",
            Self::Unpublished(..) => "track_unpublished",
        }
    }

    const fn about(&self) -> (Option<&ParticipantInfo>, Option<&TrackInfo>) {
        match self {
            Self::Started | Self::Finished(_) => (None, None),
            Self::Joined(info) | Self::Left(info) | Self::Aborted(info) => (Some(info), None),
            Self::Published(info, track) | Self::Unpublished(info, track) => {
                (Some(info), Some(track))
            }
        }
    }
}

/// The message, with its id and its time in seconds since 1970.
pub fn message(news: &RoomNews<'_>, room: &RoomInfo, id: String, created_at: i64) -> String {
    let (participant, track) = news.about();
    let end = match news {
        RoomNews::Finished(reason) => end_reason(*reason),
        RoomNews::Started
        | RoomNews::Joined(_)
        | RoomNews::Left(_)
        | RoomNews::Aborted(_)
        | RoomNews::Published(..)
        | RoomNews::Unpublished(..) => lk::RoomEndReason::RoomEndUnknown,
    };
    let event = lk::WebhookEvent {
        event: news.name().to_owned(),
        room: Some(convert::room(room)),
        participant: participant.map(convert::participant),
        track: track.map(convert::track),
        id,
        created_at,
        room_end_reason: end as i32,
        ..lk::WebhookEvent::default()
    };
    serde_json::to_string(&event).unwrap_or_default()
}

const fn end_reason(reason: LeaveReason) -> lk::RoomEndReason {
    match reason {
        LeaveReason::RoomDeleted => lk::RoomEndReason::RoomEndApiDelete,
        LeaveReason::RoomClosed => lk::RoomEndReason::RoomEndIdleTimeout,
        LeaveReason::ServerShutdown => lk::RoomEndReason::RoomEndServerShutdown,
        LeaveReason::ClientInitiated
        | LeaveReason::DuplicateIdentity
        | LeaveReason::ParticipantRemoved
        | LeaveReason::StateMismatch
        | LeaveReason::JoinFailure
        | LeaveReason::ConnectionTimeout
        | LeaveReason::MediaFailure => lk::RoomEndReason::RoomEndUnknown,
    }
}
