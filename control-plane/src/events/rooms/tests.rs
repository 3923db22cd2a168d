//! What a book tells of facts, whatever comes twice, late or not at all.

use bedside_sfu::core::api::{AddTrack, Grant, MediaKind, Profile, RoomSid, Source, TrackSid};
use serde_json::Value;

use super::*;
use crate::Private;
use crate::events::samples;

fn room(sid: &str) -> RoomInfo {
    RoomInfo {
        sid: RoomSid(sid.into()),
        name: Private::new("ward".to_owned()),
        metadata: Private::new("m".to_owned()),
        max_participants: 4,
        created_at_ms: 5_500,
        participants: 0,
        publishers: 0,
        empty_timeout: Some(Duration::from_secs(300)),
        departure_timeout: Some(Duration::from_secs(20)),
        recording: false,
    }
}

fn person(state: ParticipantState, tracks: &[&str]) -> ParticipantInfo {
    let announced = AddTrack {
        cid: String::new(),
        name: Private::default(),
        kind: MediaKind::Audio,
        source: Source::Microphone,
        muted: false,
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
    };
    let track = |sid: &&str| TrackInfo {
        sid: TrackSid((*sid).into()),
        muted: false,
        mid: String::new(),
        mime_type: String::new(),
        simulcast: false,
        announced: announced.clone(),
    };
    ParticipantInfo {
        sid: ParticipantSid("PA_1".into()),
        profile: Arc::new(Profile {
            identity: Private::new("ann".to_owned()),
            ..Profile::default()
        }),
        grant: Grant::default(),
        state,
        tracks: tracks.iter().map(track).collect(),
        data_tracks: Vec::new(),
        joined_at_ms: 7_000,
        version: 1,
    }
}

fn came(state: ParticipantState, tracks: &[&str]) -> Fact {
    Fact::Participant { room: "ward".to_owned(), info: person(state, tracks) }
}

fn opened(sid: &str) -> Fact {
    Fact::RoomStarted { room: "ward".to_owned(), info: room(sid) }
}

fn messages(book: &mut Book, fact: &Fact) -> Vec<Value> {
    let told = book.hear(fact, samples::at("2026-01-30T14:30:00Z"));
    let body = |event: &Event| match &event.news {
        News::Room { name, body: Told(body), .. } => {
            let body: Value = serde_json::from_str(body).unwrap();
            assert_eq!(body["event"], name.as_str());
            assert_eq!(body["id"], event.id.to_string());
            body
        }
        other => panic!("{other:?}"),
    };
    told.iter().map(body).collect()
}

fn names(book: &mut Book, fact: &Fact) -> Vec<String> {
    let told = messages(book, fact);
    told.iter().map(|body| body["event"].as_str().unwrap().to_owned()).collect()
}

const GONE: ParticipantState = ParticipantState::Disconnected(LeaveReason::ClientInitiated);

#[test]
fn a_room_s_life_is_told_once() {
    use ParticipantState::{Active, Joined};
    let mut book = Book::default();
    assert_eq!(names(&mut book, &opened("RM_1")), ["room_started"]);
    assert!(names(&mut book, &opened("RM_1")).is_empty());
    assert!(names(&mut book, &came(Joined, &[])).is_empty());
    assert_eq!(names(&mut book, &came(Active, &[])), ["participant_joined"]);
    assert!(names(&mut book, &came(Active, &[])).is_empty());
    let published = messages(&mut book, &came(Active, &["TR_AM1"]));
    assert_eq!(published.len(), 1);
    let told = &published[0];
    assert_eq!(told["event"], "track_published");
    assert_eq!(told["createdAt"], "1769783400");
    assert_eq!((&told["room"]["sid"], &told["room"]["numPublishers"]), (&"RM_1".into(), &1.into()));
    assert_eq!(
        (&told["room"]["emptyTimeout"], &told["room"]["creationTime"]),
        (&300.into(), &"5".into())
    );
    assert_eq!(told["participant"]["identity"], "ann");
    assert_eq!(told["participant"]["joinedAtMs"], "7000");
    assert_eq!(
        (&told["track"]["sid"], &told["track"]["source"]),
        (&"TR_AM1".into(), &"MICROPHONE".into())
    );
    assert_eq!(
        names(&mut book, &came(Active, &["TR_AM2"])),
        ["track_unpublished", "track_published"]
    );
    assert_eq!(names(&mut book, &came(GONE, &[])), ["track_unpublished", "participant_left"]);
    let reason = LeaveReason::RoomDeleted;
    let finished = Fact::RoomFinished { room: "ward".to_owned(), reason };
    let over = messages(&mut book, &finished);
    assert_eq!((over.len(), &over[0]["event"]), (1, &"room_finished".into()));
    assert_eq!(over[0]["roomEndReason"], "ROOM_END_API_DELETE");
    assert!(names(&mut book, &finished).is_empty());
}

#[test]
fn who_never_had_media_did_not_join() {
    let mut book = Book::default();
    names(&mut book, &opened("RM_1"));
    names(&mut book, &came(ParticipantState::Joined, &[]));
    assert_eq!(names(&mut book, &came(GONE, &[])), ["participant_connection_aborted"]);
}

#[test]
fn the_whole_truth_makes_good_what_was_lost() {
    let mut book = Book::default();
    let truth = |rooms: &[(&str, &[ParticipantInfo])]| Fact::Snapshot {
        rooms: rooms
            .iter()
            .map(|(sid, people)| ("ward".to_owned(), Some(room(sid)), people.to_vec()))
            .collect(),
    };
    let ann = [person(ParticipantState::Active, &["TR_AM1"])];
    let all = ["room_started", "participant_joined", "track_published"];
    assert_eq!(names(&mut book, &truth(&[("RM_1", &ann)])), all);
    assert!(names(&mut book, &truth(&[("RM_1", &ann)])).is_empty());
    let left = ["track_unpublished", "participant_left"];
    assert_eq!(names(&mut book, &truth(&[("RM_1", &[])])), left);
    // The same name is another room by now.
    assert_eq!(names(&mut book, &truth(&[("RM_2", &[])])), ["room_finished", "room_started"]);
    assert_eq!(names(&mut book, &truth(&[])), ["room_finished"]);
}

#[test]
fn a_stranger_s_check_is_not_told() {
    let mut book = Book::default();
    let name = format!("{}abc", checks::ROOM_PREFIX);
    let fact = Fact::RoomStarted { room: name, info: room("RM_1") };
    assert!(names(&mut book, &fact).is_empty());
}
