//! Calls about the people in a room: list, get, remove, mute, change, subscribe.

use std::collections::BTreeMap;
use std::time::Duration;

use bedside_sfu::core::api::{
    Command, LeaveReason, ParticipantInfo, ParticipantUpdate, Private, RoomKey, TrackInfo,
};
use livekit_protocol as lk;
use tokio::time::{Instant, sleep};

use super::twirp::{Code, Error, error};
use super::{BUSY, Call};
use crate::engine::Busy;
use crate::limits;
use crate::livekit::convert;

/// How long a client may take to mute itself.
const MUTED: Duration = Duration::from_secs(3);
/// How often it is looked whether it has.
const LOOK: Duration = Duration::from_millis(50);

pub(super) async fn list(
    call: &Call,
    asked: lk::ListParticipantsRequest,
) -> Result<lk::ListParticipantsResponse, Error> {
    call.administers(&asked.room)?;
    let people = call.shared.people(&asked.room);
    Ok(lk::ListParticipantsResponse {
        participants: people.iter().map(convert::participant).collect(),
    })
}

pub(super) async fn get(
    call: &Call,
    asked: lk::RoomParticipantIdentity,
) -> Result<lk::ParticipantInfo, Error> {
    let (_, info) = person(call, &asked.room, &asked.identity)?;
    Ok(convert::participant(&info))
}

pub(super) async fn remove(
    call: &Call,
    asked: lk::RoomParticipantIdentity,
) -> Result<lk::RemoveParticipantResponse, Error> {
    let (room, _) = person(call, &asked.room, &asked.identity)?;
    let identity = Private::new(asked.identity);
    let reason = LeaveReason::ParticipantRemoved;
    let command = Command::Remove { room, identity, reason };
    call.shared.send(room, command).map_err(|Busy| BUSY)?;
    call.done(room).await?;
    Ok(lk::RemoveParticipantResponse {})
}

pub(super) async fn mute(
    call: &Call,
    asked: lk::MuteRoomTrackRequest,
) -> Result<lk::MuteRoomTrackResponse, Error> {
    let (room, info) = person(call, &asked.room, &asked.identity)?;
    let track = track(&info, &asked.track_sid)?;
    // Nobody is to be heard or seen again without having done something for it.
    if !asked.muted && track.muted && !call.shared.config.allow_remote_unmute {
        return Err(error(Code::FailedPrecondition, "a track is unmuted by its publisher only"));
    }
    if track.muted != asked.muted {
        let command = Command::MuteTrack { room, track: track.sid.clone(), muted: asked.muted };
        call.shared.send(room, command).map_err(|Busy| BUSY)?;
        call.done(room).await?;
    }
    let until = Instant::now() + MUTED;
    loop {
        let (_, info) = person(call, &asked.room, &asked.identity)?;
        let track = self::track(&info, &asked.track_sid)?;
        if track.muted == asked.muted {
            return Ok(lk::MuteRoomTrackResponse { track: Some(convert::track(track)) });
        }
        if Instant::now() >= until {
            return Err(error(Code::DeadlineExceeded, "the publisher did not do it in time"));
        }
        sleep(LOOK).await;
    }
}

pub(super) async fn update(
    call: &Call,
    asked: lk::UpdateParticipantRequest,
) -> Result<lk::ParticipantInfo, Error> {
    let (room, info) = person(call, &asked.room, &asked.identity)?;
    let attributes: BTreeMap<String, String> = asked.attributes.into_iter().collect();
    if asked.name.len() > limits::NAME
        || asked.metadata.len() > limits::METADATA
        || !attributes_fit(&info, &attributes)
    {
        return Err(error(Code::InvalidArgument, "a name, metadata or attributes are too long"));
    }
    let text = |text: String| (!text.is_empty()).then(|| Private::new(text));
    let grant = asked.permission.map(|permission| {
        let mut grant = convert::grant(&permission);
        grant.hidden &= call.shared.config.allow_hidden;
        grant
    });
    let command = Command::UpdateParticipant(Box::new(ParticipantUpdate {
        room,
        identity: Private::new(asked.identity.clone()),
        name: text(asked.name),
        metadata: text(asked.metadata),
        attributes: Private::new(attributes),
        grant,
    }));
    call.shared.send(room, command).map_err(|Busy| BUSY)?;
    call.done(room).await?;
    let (_, info) = person(call, &asked.room, &asked.identity)?;
    Ok(convert::participant(&info))
}

/// Would all of them together still be within bounds?
fn attributes_fit(info: &ParticipantInfo, changed: &BTreeMap<String, String>) -> bool {
    let kept =
        info.profile.attributes.reveal().iter().filter(|(key, _)| !changed.contains_key(*key));
    let all = kept.chain(changed.iter().filter(|(_, value)| !value.is_empty()));
    let bytes: usize = all.map(|(key, value)| key.len() + value.len()).sum();
    bytes <= limits::ATTRIBUTES
}

pub(super) async fn subscribe(
    call: &Call,
    asked: lk::UpdateSubscriptionsRequest,
) -> Result<lk::UpdateSubscriptionsResponse, Error> {
    let (room, _) = person(call, &asked.room, &asked.identity)?;
    let tracks = lk::UpdateSubscription {
        track_sids: asked.track_sids,
        subscribe: asked.subscribe,
        participant_tracks: asked.participant_tracks,
    };
    let (tracks, subscribe) = convert::subscription_parts(tracks);
    let identity = Private::new(asked.identity);
    let command = Command::UpdateSubscriptions { room, identity, tracks, subscribe };
    call.shared.send(room, command).map_err(|Busy| BUSY)?;
    call.done(room).await?;
    Ok(lk::UpdateSubscriptionsResponse {})
}

/// Somebody in a room that the token administers.
fn person(call: &Call, room: &str, identity: &str) -> Result<(RoomKey, ParticipantInfo), Error> {
    call.administers(room)?;
    let key = call.room(room)?;
    let info = call.shared.person(room, identity);
    let info = info.ok_or_else(|| error(Code::NotFound, "no such participant"))?;
    Ok((key, info))
}

fn track<'a>(info: &'a ParticipantInfo, sid: &str) -> Result<&'a TrackInfo, Error> {
    let found = info.tracks.iter().find(|track| *track.sid.0 == *sid);
    found.ok_or_else(|| error(Code::NotFound, "no such track"))
}
