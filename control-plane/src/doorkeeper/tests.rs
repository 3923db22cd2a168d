//! What rooms tell, as it is kept.

use std::time::Duration;

use bedside_sfu::core::api::{
    AddTrack, Grant, MediaKind, ParticipantSid, Profile, RoomInfo, RoomSid, TrackInfo, TrackSid,
};
use serde_json::json;
use uuid::Uuid;

use super::*;
use crate::testing::{Database, World, doctor, on_both_databases, path, patient};

on_both_databases!(rooms_and_mutes_are_on_record);

fn track(source: Source, muted: bool) -> TrackInfo {
    TrackInfo {
        sid: TrackSid(format!("TR_{source:?}").as_str().into()),
        muted,
        mid: String::new(),
        mime_type: String::new(),
        simulcast: false,
        announced: AddTrack {
            cid: String::new(),
            name: Private::default(),
            kind: MediaKind::Video,
            source,
            muted,
            width: 0,
            height: 0,
            layers: Vec::new(),
            codecs: Vec::new(),
            backup_of: None,
            stream: String::new(),
            disable_dtx: false,
            disable_red: false,
            stereo: false,
            encryption: 0,
            audio_features: Vec::new(),
            backup_codec_policy: 0,
        },
    }
}

fn fact(room: &str, identity: &str, state: ParticipantState, tracks: &[(Source, bool)]) -> Fact {
    let profile = Profile { identity: Private::new(identity.to_owned()), ..Profile::default() };
    let info = ParticipantInfo {
        sid: ParticipantSid("PA_x".into()),
        profile: Arc::new(profile),
        grant: Grant::default(),
        state,
        tracks: tracks.iter().map(|(source, muted)| track(*source, *muted)).collect(),
        data_tracks: Vec::new(),
        joined_at_ms: 0,
        version: 1,
    };
    Fact::Participant { room: room.to_owned(), info }
}

/// The types of what happened, of those that the test is about.
async fn kept(world: &World, id: Uuid) -> Vec<String> {
    let (_, page) = world.get(&path(id, "/events?limit=200"), &doctor()).await;
    let items = page["items"].as_array().expect("a page").clone();
    let types = items.iter().map(|item| item["eventType"].as_str().expect("a type").to_owned());
    types.filter(|word| word.ends_with("muted") || word == "room_opened").collect()
}

async fn rooms_and_mutes_are_on_record(database: Database) {
    let world = World::new(database).await;
    let id = world.session().await;
    world.post(&path(id, "/join"), &patient(), json!(null)).await;
    world.post(&path(id, "/admit"), &doctor(), json!({"userId": "pat"})).await;
    let (_, session) = world.get(&path(id, ""), &doctor()).await;
    let room = session["roomName"].as_str().expect("a room").to_owned();
    let control = &world.plane.control;
    let active = ParticipantState::Active;
    let gone = ParticipantState::Disconnected(LeaveReason::ClientInitiated);
    let (camera, microphone) = (Source::Camera, Source::Microphone);
    let opened = |sid: &str| Fact::RoomStarted {
        room: room.clone(),
        info: RoomInfo {
            sid: RoomSid(sid.into()),
            name: Private::new(room.clone()),
            metadata: Private::default(),
            max_participants: 2,
            created_at_ms: 0,
            participants: 0,
            publishers: 0,
            empty_timeout: None,
            departure_timeout: None,
            recording: false,
        },
    };
    for fact in [
        opened("RM_first"),
        opened("RM_first"),
        fact(&room, "pat", active, &[]),
        fact(&room, "pat", active, &[(camera, false), (microphone, false)]),
        fact(&room, "pat", active, &[(camera, true), (microphone, false)]),
        fact(&room, "pat", active, &[(camera, true), (microphone, false)]),
        fact(&room, "pat", active, &[(camera, false), (microphone, true)]),
        fact(&room, "pat", active, &[(Source::Screen, true), (camera, false), (microphone, true)]),
        fact(&room, "stranger", active, &[(camera, true)]),
        fact(&room, "pat", gone, &[]),
        // Back, as everybody is at first.
        fact(&room, "pat", active, &[(camera, false), (microphone, false)]),
        opened("RM_second"),
    ] {
        control.hear(fact);
    }
    let expected = ["room_opened", "video_muted", "video_unmuted", "audio_muted", "room_opened"];
    let late = tokio::time::Instant::now() + Duration::from_secs(60);
    loop {
        let kept = kept(&world, id).await;
        if kept.len() >= expected.len() {
            assert_eq!(kept, expected);
            break;
        }
        assert!(tokio::time::Instant::now() < late, "{kept:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let stored = control.db.session("demo", id).await.expect("reads").expect("it is there");
    assert_eq!(stored.room_sid.as_deref(), Some("RM_second"));
}
