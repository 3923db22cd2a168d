//! What a `join` must hold before it leaves. Some clients refuse to connect without these fields,
//! and one family of SDKs aborts its process over a ping interval of zero.

use livekit_protocol as lk;

/// A field that a client would not bear to miss.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a join message lacks {0}")]
pub struct Lacks(pub &'static str);

/// Checks an outgoing `join`.
pub fn join(message: &lk::JoinResponse) -> Result<(), Lacks> {
    let need = |there: bool, what| if there { Ok(()) } else { Err(Lacks(what)) };
    let room = message.room.as_ref().ok_or(Lacks("the room"))?;
    need(room.sid.starts_with("RM_"), "the room's id")?;
    need(!room.name.is_empty(), "the room's name")?;
    let me = message.participant.as_ref().ok_or(Lacks("the participant"))?;
    participant(me)?;
    need(me.permission.is_some(), "the participant's permission")?;
    for other in &message.other_participants {
        participant(other)?;
        need(other.sid != me.sid, "a participant's id of its own")?;
    }
    let server = message.server_info.as_ref().ok_or(Lacks("the server's facts"))?;
    need(!server.version.is_empty(), "the server's version")?;
    need(message.ping_interval > 0, "the ping interval")?;
    need(message.ping_timeout > message.ping_interval, "a ping timeout above the interval")
}

fn participant(info: &lk::ParticipantInfo) -> Result<(), Lacks> {
    let need = |there: bool, what| if there { Ok(()) } else { Err(Lacks(what)) };
    need(info.sid.starts_with("PA_"), "a participant's id")?;
    need(!info.identity.is_empty(), "a participant's identity")?;
    let tracks = info.tracks.iter().all(|track| track.sid.starts_with("TR_"));
    need(tracks, "a track's id")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn good() -> lk::JoinResponse {
        let person = |sid: &str| lk::ParticipantInfo {
            sid: sid.into(),
            identity: "ann".into(),
            permission: Some(lk::ParticipantPermission::default()),
            tracks: vec![lk::TrackInfo { sid: "TR_AM1".into(), ..lk::TrackInfo::default() }],
            ..lk::ParticipantInfo::default()
        };
        lk::JoinResponse {
            room: Some(lk::Room { sid: "RM_1".into(), name: "ward".into(), ..lk::Room::default() }),
            participant: Some(person("PA_1")),
            other_participants: vec![person("PA_2")],
            ping_interval: 5,
            ping_timeout: 15,
            server_info: Some(lk::ServerInfo { version: "1".into(), ..lk::ServerInfo::default() }),
            ..lk::JoinResponse::default()
        }
    }

    #[test]
    fn a_complete_join_passes() {
        assert_eq!(join(&good()), Ok(()));
    }

    #[test]
    fn a_join_with_a_gap_does_not_leave() {
        type Damage = fn(&mut lk::JoinResponse);
        let damages: [Damage; 14] = [
            |m| m.room = None,
            |m| m.room.as_mut().unwrap().sid.clear(),
            |m| m.room.as_mut().unwrap().name.clear(),
            |m| m.participant = None,
            |m| m.participant.as_mut().unwrap().sid.clear(),
            |m| m.participant.as_mut().unwrap().identity.clear(),
            |m| m.participant.as_mut().unwrap().permission = None,
            |m| m.participant.as_mut().unwrap().tracks[0].sid.clear(),
            |m| m.other_participants[0].sid.clear(),
            |m| m.other_participants[0].sid = "PA_1".into(),
            |m| m.server_info = None,
            |m| m.server_info.as_mut().unwrap().version.clear(),
            |m| m.ping_interval = 0,
            |m| m.ping_timeout = 0,
        ];
        for (index, damage) in damages.iter().enumerate() {
            let mut message = good();
            damage(&mut message);
            assert!(join(&message).is_err(), "damage {index} was not seen");
        }
    }
}
