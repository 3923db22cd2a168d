//! A second codec for those who cannot read the first.

use bedside_sfu::core::api::{
    AddTrack, AnnouncedCodec, Grant, Refusal, Request, SessionEvent, TrackSid, Unreceived,
};
use bedside_sfu::core::peer::Crypto;
use bedside_sfu::core::sdp::Direction;

use crate::source::{Source, VP8, VP9};
use crate::world::World;

const PREFER_REGRESSION: i32 = 0;
const SIMULCAST: i32 = 1;
const OFF: [bool; 3] = [false; 3];
const ALL: [bool; 3] = [true; 3];

fn codec(name: &str, cid: &str) -> AnnouncedCodec {
    AnnouncedCodec { codec: name.into(), cid: cid.into(), ..AnnouncedCodec::default() }
}

/// A patient who sends VP9 and can send VP8, and a doctor who reads both.
fn pair(policy: i32) -> (World, usize, usize, TrackSid) {
    let mut world = World::new(Crypto::Clear);
    let doctor = world.join_as("doctor", Grant::default(), |client| client.receive_on(1, 1));
    let patient = world.join("patient");
    world.run_ms(500);
    let mut source = Source::video(world.now, "cam", "", 2_000, &[]);
    source.encodings[0].payload_type = VP9;
    let mut announced = world.clients[patient].publish(source);
    announced.codecs = vec![codec("vp9", "cam"), codec("vp8", "")];
    announced.backup_codec_policy = policy;
    world.request(patient, Request::AddTrack(Box::new(announced)));
    world.offer(patient);
    world.run_ms(1_000);
    let face = world.clients[patient].published["cam"].sid.clone();
    (world, doctor, patient, face)
}

/// Somebody who cannot read VP9.
fn guest(world: &mut World) -> usize {
    let guest = world.join_as("guest", Grant::default(), |client| {
        client.lacks = "VP9";
        client.receive_on(1, 1);
    });
    world.run_ms(800);
    guest
}

fn announce_backup(world: &mut World, patient: usize, face: &TrackSid) -> AddTrack {
    let source = Source::video(world.now, "cam-vp8", "", 3_000, &["q", "h", "f"]);
    let mut announced = world.clients[patient].publish(source);
    announced.codecs = vec![codec("vp8", "cam-vp8")];
    announced.backup_of = Some(face.clone());
    announced
}

fn send_backup(world: &mut World, patient: usize, face: &TrackSid) {
    let announced = announce_backup(world, patient, face);
    world.request(patient, Request::AddTrack(Box::new(announced)));
    world.offer(patient);
    world.run_ms(1_000);
}

/// What the publisher was last told of its codecs.
fn wanted(world: &World, patient: usize) -> Option<Vec<(String, [bool; 3])>> {
    world.clients[patient].log.iter().rev().find_map(|event| match event {
        SessionEvent::SubscribedQuality { codecs, .. } => Some(codecs.clone()),
        _ => None,
    })
}

fn both(vp9: [bool; 3], vp8: [bool; 3]) -> Option<Vec<(String, [bool; 3])>> {
    Some(vec![("vp9".into(), vp9), ("vp8".into(), vp8)])
}

fn failures(world: &World, client: usize) -> usize {
    world.told(client, |event| {
        matches!(event, SessionEvent::SubscriptionFailed { why: Unreceived::Codec, .. })
    })
}

/// The codec of what came last, which must have come now.
fn newest(world: &World, client: usize, face: &TrackSid) -> Option<u8> {
    let (_, newest) = world.clients[client].stream_of(face)?.seen.last_key_value()?;
    ((world.now - newest.at).as_millis() < 150).then_some(newest.payload_type)
}

#[test]
fn each_gets_the_codec_that_it_can_read() {
    let (mut world, doctor, patient, face) = pair(SIMULCAST);
    assert_eq!(wanted(&world, patient), None, "nobody lacks anything");
    let guest = guest(&mut world);
    assert_eq!(wanted(&world, patient), both(ALL, ALL));
    send_backup(&mut world, patient, &face);
    assert_eq!(newest(&world, guest, &face), Some(VP8));
    assert_eq!(newest(&world, doctor, &face), Some(VP9));
    for client in [guest, doctor] {
        world.clients[client].stream_of(&face).unwrap().check_order();
    }
    let stream = world.clients[doctor].stream_of(&face).unwrap();
    assert!(stream.missing().unwrap().is_empty(), "nothing happens to who reads the first");
    assert_eq!((failures(&world, guest), failures(&world, doctor)), (0, 0));
    // It is one track for everybody.
    let tracks = world.clients[doctor].tracks_of_others();
    assert_eq!(tracks.len(), 1);
    assert_eq!((&tracks[0].sid, tracks[0].mime_type.as_str()), (&face, "video/vp9"));
    let backup = &tracks[0].announced.codecs[1];
    assert_eq!((backup.cid.as_str(), backup.mid.is_empty()), ("cam-vp8", false));
    assert_eq!(world.core.counters().tracks, 1);
    // Rungs are wanted of each codec by itself.
    world.wish(guest, &face, 0);
    world.run_ms(5_500);
    assert_eq!(wanted(&world, patient), both(ALL, [true, false, false]));
    world.request(guest, Request::Leave);
    world.run_ms(5_500);
    assert_eq!(wanted(&world, patient), both(ALL, OFF));
    // The next one finds it there.
    let again = guest_again(&mut world);
    assert_eq!(wanted(&world, patient), both(ALL, ALL));
    assert_eq!(newest(&world, again, &face), Some(VP8));
}

fn guest_again(world: &mut World) -> usize {
    let again = guest(world);
    world.run_ms(1_000);
    again
}

#[test]
fn where_two_encoders_are_too_many_all_get_the_backup() {
    let (mut world, doctor, patient, face) = pair(PREFER_REGRESSION);
    let guest = guest(&mut world);
    send_backup(&mut world, patient, &face);
    for client in [guest, doctor] {
        assert_eq!(newest(&world, client, &face), Some(VP8));
        world.clients[client].stream_of(&face).unwrap().check_order();
    }
    world.run_ms(5_500);
    assert_eq!(wanted(&world, patient), both(OFF, ALL));
    // Whoever comes later gets it too.
    let late = world.join_as("late", Grant::default(), |client| client.receive_on(1, 1));
    world.run_ms(1_000);
    assert_eq!(newest(&world, late, &face), Some(VP8));
    let told = world.told(patient, |event| matches!(event, SessionEvent::TrackSubscribed { .. }));
    assert_eq!(told, 1);
}

#[test]
fn a_backup_that_ends_gives_the_first_codec_back() {
    let (mut world, doctor, patient, face) = pair(PREFER_REGRESSION);
    let guest = guest(&mut world);
    send_backup(&mut world, patient, &face);
    assert_eq!(newest(&world, doctor, &face), Some(VP8));
    let at = world.clients[patient].sources.iter().position(|source| source.cid == "cam-vp8");
    let source = world.clients[patient].sources.remove(at.unwrap());
    world.clients[patient].section(&source.mid).direction = Direction::Inactive;
    world.offer(patient);
    world.run_ms(1_500);
    assert_eq!(newest(&world, doctor, &face), Some(VP9));
    assert_eq!(newest(&world, guest, &face), None);
    assert_eq!(wanted(&world, patient), both(ALL, ALL), "it is asked for again");
    assert_eq!(failures(&world, guest), 0);
    // The first one's end is the end of both.
    let source = world.clients[patient].sources.remove(0);
    world.clients[patient].section(&source.mid).direction = Direction::Inactive;
    world.offer(patient);
    world.run_ms(500);
    assert!(world.clients[doctor].tracks_of_others().is_empty());
    assert_eq!(world.core.counters().tracks, 0);
}

#[test]
fn mute_leave_and_rights_take_both_along() {
    let (mut world, doctor, patient, face) = pair(SIMULCAST);
    let guest = guest(&mut world);
    send_backup(&mut world, patient, &face);
    world.request(patient, Request::Mute { track: face.clone(), muted: true });
    world.run_ms(200);
    assert!(world.clients[guest].tracks_of_others()[0].muted);
    let subscribe = Request::Subscribe { tracks: vec![face.clone()], subscribe: false };
    world.request(guest, subscribe);
    world.run_ms(400);
    assert_eq!(newest(&world, guest, &face), None);
    assert_eq!(newest(&world, doctor, &face), Some(VP9));
    world.request(guest, Request::Subscribe { tracks: vec![face.clone()], subscribe: true });
    world.run_ms(1_000);
    assert_eq!(newest(&world, guest, &face), Some(VP8));
    world.request(patient, Request::Leave);
    world.run_ms(300);
    assert_eq!(world.core.counters().tracks, 0);
    assert_eq!(world.core.counters().room_panics, 0);
}

#[test]
fn a_backup_must_be_of_a_track_of_ones_own() {
    let (mut world, doctor, patient, face) = pair(SIMULCAST);
    let refusals = |world: &World, client: usize| -> Vec<Refusal> {
        let refused = |event: &SessionEvent| match event {
            SessionEvent::TrackRefused { refusal, .. } => Some(*refusal),
            _ => None,
        };
        world.clients[client].log.iter().filter_map(refused).collect()
    };
    let foreign = announce_backup(&mut world, doctor, &face);
    world.request(doctor, Request::AddTrack(Box::new(foreign)));
    assert_eq!(refusals(&world, doctor), [Refusal::NoTrack]);
    send_backup(&mut world, patient, &face);
    let second = announce_backup(&mut world, patient, &face);
    world.request(patient, Request::AddTrack(Box::new(second)));
    assert_eq!(refusals(&world, patient), [Refusal::NotAllowed]);
}
