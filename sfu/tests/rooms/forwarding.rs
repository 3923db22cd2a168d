//! Media from one to the others.

use std::time::Duration;

use bedside_sfu::core::api::{ParticipantState, Request, SessionEvent, TrackSid, Unreceived};
use bedside_sfu::core::peer::Crypto;

use crate::source::Source;
use crate::world::World;

/// Announces and offers a source, and waits until everyone knows.
pub fn publish(world: &mut World, client: usize, source: Source) -> TrackSid {
    let cid = source.cid.clone();
    let announced = world.clients[client].publish(source);
    world.request(client, Request::AddTrack(Box::new(announced)));
    world.offer(client);
    world.run_ms(200);
    world.clients[client].published[&cid].sid.clone()
}

/// Two people in a room, one with a microphone and a simulcast camera.
pub fn call(crypto: Crypto) -> (World, usize, usize, TrackSid, TrackSid) {
    let mut world = World::new(crypto);
    let doctor = world.join_as("doctor", Default::default(), |client| client.receive_on(3, 3));
    let patient = world.join_as("patient", Default::default(), |client| client.receive_on(3, 3));
    world.run_ms(2_000);
    let now = world.now;
    let voice = publish(&mut world, patient, Source::audio(now, "mic", "", 1_000));
    let rids = ["q", "h", "f"];
    let face = publish(&mut world, patient, Source::video(now, "cam", "", 2_000, &rids));
    (world, doctor, patient, voice, face)
}

fn both_ways(crypto: Crypto) {
    let (mut world, doctor, patient, voice, face) = call(crypto);
    world.run_ms(3_000);
    let info = world.clients[doctor].others.values().find(|info| info.tracks.len() == 2).unwrap();
    assert_eq!(info.state, ParticipantState::Active);
    assert_eq!(info.tracks[1].mime_type, "video/vp8");
    let client = &world.clients[doctor];
    let sound = client.stream_of(&voice).unwrap();
    assert!((140..=170).contains(&sound.len()), "{}", sound.len());
    sound.check_whole();
    let picture = client.stream_of(&face).unwrap();
    picture.check_whole();
    // The best layer has three packets in a frame, 25 frames in a second.
    let last = world.now - Duration::from_secs(1);
    assert!((70..=80).contains(&picture.since(last).count()), "{}", picture.since(last).count());
    let now = world.now;
    let voice = publish(&mut world, doctor, Source::audio(now, "mic", "", 5_000));
    world.run_ms(1_000);
    world.clients[patient].stream_of(&voice).unwrap().check_whole();
    assert!(
        world.told(patient, |event| matches!(event, SessionEvent::TrackSubscribed { .. })) == 2
    );
}

#[test]
fn media_flows_both_ways() {
    both_ways(Crypto::Clear);
}

#[test]
fn media_flows_both_ways_sealed() {
    both_ways(Crypto::Real);
}

#[test]
fn the_server_may_be_the_dtls_client() {
    let mut world = World::new(Crypto::Real);
    let doctor = world.join_as("doctor", Default::default(), |client| {
        client.receive_on(1, 1);
        client.setup_sent = bedside_sfu::core::sdp::Setup::Passive;
    });
    let patient =
        world.join_as("patient", Default::default(), |client| client.server_active = true);
    world.run_ms(2_000);
    let now = world.now;
    let face = publish(&mut world, patient, Source::video(now, "cam", "", 2_000, &[]));
    world.run_ms(1_000);
    world.clients[doctor].stream_of(&face).unwrap().check_whole();
    let each = if crate::TWO_CONNECTIONS { 2 } else { 1 };
    assert_eq!(world.core.counters().peers_connected, 2 * each);
}

#[test]
fn a_late_joiner_gets_everything_in_its_first_answer() {
    let (mut world, _, _, voice, face) = call(Crypto::Clear);
    world.run_ms(1_000);
    let guest = world.join_as("guest", Default::default(), |client| client.receive_on(3, 3));
    assert_eq!(world.clients[guest].carried.len(), 2);
    world.run_ms(300);
    for track in [voice, face] {
        let stream = world.clients[guest].stream_of(&track).unwrap();
        assert!(stream.len() > 5);
        stream.check_whole();
    }
    let asked = world.told(guest, |event| matches!(event, SessionEvent::SectionsNeeded { .. }));
    assert_eq!(asked, 0);
}

#[test]
fn missing_sections_are_asked_for_once_and_together() {
    let mut world = World::new(Crypto::Clear);
    let doctor = world.join("doctor");
    let patient = world.join("patient");
    world.run_ms(500);
    for at in 0..3u32 {
        let now = world.now;
        let client = &mut world.clients[patient];
        let mic = client.publish(Source::audio(now, &format!("mic{at}"), "", 1_000 + 100 * at));
        let cam =
            client.publish(Source::video(now, &format!("cam{at}"), "", 2_000 + 100 * at, &[]));
        world.request(patient, Request::AddTrack(Box::new(mic)));
        world.request(patient, Request::AddTrack(Box::new(cam)));
    }
    world.offer(patient);
    world.run_ms(1_000);
    let questions: Vec<(u32, u32)> = world.clients[doctor]
        .log
        .iter()
        .filter_map(|event| match event {
            SessionEvent::SectionsNeeded { audio, video } => Some((*audio, *video)),
            _ => None,
        })
        .collect();
    if crate::TWO_CONNECTIONS {
        // The first one has data alone.
        assert!(questions.is_empty());
        assert_eq!(world.told(doctor, |event| matches!(event, SessionEvent::Offer { .. })), 2);
    } else {
        assert_eq!(questions, [(3, 3)]);
    }
    assert_eq!(world.clients[doctor].carried.len(), 6);
    for stream in world.clients[doctor].streams.values() {
        stream.check_whole();
    }
}

#[test]
fn an_unanswered_question_is_repeated() {
    let mut world = World::new(Crypto::Clear);
    let doctor =
        world.join_as("doctor", Default::default(), |client| client.obeys_questions = false);
    let patient = world.join("patient");
    world.run_ms(500);
    let now = world.now;
    publish(&mut world, patient, Source::audio(now, "mic", "", 1_000));
    world.run_ms(6_900);
    let asked = world.told(doctor, |event| matches!(event, SessionEvent::SectionsNeeded { .. }));
    assert_eq!(asked, if crate::TWO_CONNECTIONS { 0 } else { 3 });
}

#[test]
fn layers_are_switched_without_a_gap() {
    let (mut world, doctor, patient, _, face) = call(Crypto::Clear);
    world.run_ms(1_000);
    let settings = |quality, height| Request::TrackSettings {
        tracks: vec![face.clone()],
        disabled: false,
        quality,
        width: 0,
        height,
        fps: 0,
    };
    use bedside_sfu::core::api::Quality;
    let mut sizes = Vec::new();
    for wish in [Quality::Low, Quality::High, Quality::Medium, Quality::Low, Quality::Medium] {
        world.request(doctor, settings(wish, 0));
        world.run_ms(500);
        let stream = world.clients[doctor].stream_of(&face).unwrap();
        sizes.push(stream.seen.last_key_value().unwrap().1.payload.len());
    }
    assert_eq!(sizes, [300, 500, 400, 300, 400]);
    // The publisher stops its upper layers one by one, and starts them again.
    for (active, size) in
        [([true, true, false], 400), ([true, false, false], 300), ([true; 3], 500)]
    {
        world.request(doctor, settings(Quality::High, 0));
        for (encoding, active) in world.clients[patient].sources[1].encodings.iter_mut().zip(active)
        {
            encoding.active = active;
        }
        world.run_ms(1_500);
        let stream = world.clients[doctor].stream_of(&face).unwrap();
        assert_eq!(stream.seen.last_key_value().unwrap().1.payload.len(), size);
    }
    let stream = world.clients[doctor].stream_of(&face).unwrap();
    stream.check_whole();
    // The subscriber's clock keeps pace with time over all switches.
    let (first, last) =
        (stream.seen.first_key_value().unwrap().1, stream.seen.last_key_value().unwrap().1);
    let ticks = last.timestamp.wrapping_sub(first.timestamp) as f64 / 90_000.0;
    let passed = (last.at - first.at).as_secs_f64();
    assert!((ticks - passed).abs() < 0.05, "{ticks} {passed}");
}

#[test]
fn a_disabled_track_pauses_and_goes_on_without_a_gap() {
    let (mut world, doctor, _, voice, face) = call(Crypto::Clear);
    world.run_ms(1_000);
    let set = |world: &mut World, disabled| {
        let tracks = vec![face.clone(), voice.clone()];
        let quality = bedside_sfu::core::api::Quality::High;
        world.request(
            doctor,
            Request::TrackSettings { tracks, disabled, quality, width: 0, height: 0, fps: 0 },
        );
    };
    set(&mut world, true);
    world.run_ms(50);
    let paused = world.now;
    world.run_ms(1_000);
    for track in [&face, &voice] {
        assert_eq!(world.clients[doctor].stream_of(track).unwrap().since(paused).count(), 0);
    }
    set(&mut world, false);
    let resumed = world.now;
    world.run_ms(500);
    for track in [&face, &voice] {
        let stream = world.clients[doctor].stream_of(track).unwrap();
        stream.check_whole();
        let first = stream.since(resumed).next().unwrap();
        assert!(first.keyframe || track == &voice);
        assert!(first.at - resumed < Duration::from_millis(120));
    }
}

#[test]
fn padding_leaves_no_gap() {
    let (mut world, doctor, patient, _, face) = call(Crypto::Clear);
    world.clients[patient].sources[1].padding_each = Some(2);
    world.run_ms(3_000);
    let stream = world.clients[doctor].stream_of(&face).unwrap();
    assert!(stream.len() > 200);
    stream.check_whole();
    assert!(stream.seen.values().all(|seen| !seen.payload.is_empty()));
}

#[test]
fn ended_sections_are_given_back_and_used_again() {
    use bedside_sfu::core::sdp::Direction;
    let (mut world, doctor, patient, _, face) = call(Crypto::Clear);
    world.run_ms(500);
    let before = world.clients[doctor].sections.len();
    let mut old = face;
    for round in 0..4u32 {
        let source = world.clients[patient].sources.pop().unwrap();
        let mid = source.mid;
        world.clients[patient].section(&mid).direction = Direction::Inactive;
        world.clients[patient].section(&mid).ssrc = None;
        world.offer(patient);
        let answer = world.clients[patient].answer.as_ref().unwrap();
        let ended = answer.sections.iter().find(|section| section.mid == mid).unwrap();
        assert!(ended.rejected, "port 0 lets the client recycle the section");
        world.run_ms(300);
        let seen = world.clients[doctor].tracks_of_others();
        assert!(seen.iter().all(|track| track.sid != old), "others are told of the end");
        let now = world.now;
        let source =
            Source::video(now, &format!("cam{round}"), "", 3_000 + 100 * round, &["q", "h"]);
        old = publish(&mut world, patient, source);
        world.run_ms(500);
        let stream = world.clients[doctor].stream_of(&old).unwrap();
        assert!(stream.len() > 10);
        stream.check_whole();
    }
    assert_eq!(world.clients[doctor].sections.len(), before, "receiving sections are used again");
    assert_eq!(world.core.counters().tracks, 2);
}

#[test]
fn the_offer_may_come_before_the_announcement() {
    let mut world = World::new(Crypto::Clear);
    let doctor = world.join_as("doctor", Default::default(), |client| client.receive_on(1, 1));
    let patient = world.join("patient");
    world.run_ms(500);
    let now = world.now;
    let announced = world.clients[patient].publish(Source::video(now, "cam", "", 2_000, &[]));
    world.offer(patient);
    world.run_ms(300);
    assert!(world.clients[doctor].tracks_of_others().is_empty());
    world.request(patient, Request::AddTrack(Box::new(announced)));
    world.run_ms(500);
    let face = world.clients[patient].published["cam"].sid.clone();
    world.clients[doctor].stream_of(&face).unwrap().check_whole();
}

#[test]
fn a_client_without_the_codec_is_told() {
    let mut world = World::new(Crypto::Clear);
    let doctor = world.join_as("doctor", Default::default(), |client| {
        client.has_video_codec = false;
        client.receive_on(1, 1);
    });
    let patient = world.join("patient");
    world.run_ms(500);
    let now = world.now;
    let face = publish(&mut world, patient, Source::video(now, "cam", "", 2_000, &[]));
    world.run_ms(5_000);
    let failed = |event: &SessionEvent| matches!(event, SessionEvent::SubscriptionFailed { track, why: Unreceived::Codec } if *track == face);
    assert_eq!(world.told(doctor, failed), 1);
    let asked = world.told(doctor, |event| matches!(event, SessionEvent::SectionsNeeded { .. }));
    assert!(asked <= 1, "{asked}: sections would not help");
}

#[test]
fn mute_is_told_and_silence_changes_no_layer() {
    let (mut world, doctor, patient, _, face) = call(Crypto::Clear);
    world.run_ms(1_000);
    world.request(patient, Request::Mute { track: face.clone(), muted: true });
    world.clients[patient].sources[1].muted = true;
    world.run_ms(3_000);
    let track = world.clients[doctor].tracks_of_others();
    assert!(track.iter().find(|track| track.sid == face).unwrap().muted);
    let silent = world.now;
    let asked = world.core.counters().pli_out;
    world.clients[patient].sources[1].muted = false;
    world.request(patient, Request::Mute { track: face.clone(), muted: false });
    world.run_ms(500);
    let stream = world.clients[doctor].stream_of(&face).unwrap();
    stream.check_whole();
    assert!(stream.since(silent).next().is_some_and(|seen| seen.payload.len() == 500));
    assert_eq!(world.core.counters().pli_out, asked);
    assert!(!world.clients[doctor].tracks_of_others().iter().any(|track| track.muted));
}

#[test]
fn redundant_audio_goes_to_those_who_read_it() {
    let mut world = World::new(Crypto::Clear);
    let reader = world.join_as("reader", Default::default(), |client| {
        client.reads_red = true;
        client.receive_on(1, 0);
    });
    let other = world.join_as("other", Default::default(), |client| client.receive_on(1, 0));
    let patient = world.join("patient");
    world.run_ms(500);
    let mut source = Source::audio(world.now, "mic", "", 1_000);
    source.red = true;
    let voice = publish(&mut world, patient, source);
    world.run_ms(500);
    let red = world.clients[reader].stream_of(&voice).unwrap();
    let plain = world.clients[other].stream_of(&voice).unwrap();
    assert!(red.seen.values().all(|seen| seen.payload_type == 63));
    assert!(red.seen.values().skip(1).all(|seen| seen.payload.len() == 4 + 84 + 1 + 84));
    assert!(plain.seen.values().all(|seen| seen.payload_type == 111 && seen.payload.len() == 84));
    assert!(red.len() > 20 && plain.len() > 20);
}

#[test]
fn unsubscribed_tracks_stop_and_come_back() {
    let (mut world, doctor, _, _, face) = call(Crypto::Clear);
    world.run_ms(500);
    let say = |subscribe| Request::Subscribe { tracks: vec![face.clone()], subscribe };
    world.request(doctor, say(false));
    world.run_ms(500);
    assert_eq!(world.clients[doctor].carried.len(), 1, "the section was taken back");
    let stopped = world.now;
    world.run_ms(500);
    assert!(
        world.clients[doctor]
            .streams
            .values()
            .all(|stream| { stream.since(stopped).all(|seen| seen.payload_type == 111) })
    );
    world.request(doctor, say(true));
    world.run_ms(500);
    let stream = world.clients[doctor].stream_of(&face).unwrap();
    assert!(stream.len() > 10);
    stream.check_whole();
}

#[test]
fn every_codec_passes_and_switches_layers() {
    use bedside_sfu::core::api::AnnouncedCodec;

    use crate::source::{AV1, H264, VP8, VP9};
    for (payload_type, name) in [(VP8, "VP8"), (H264, "h264"), (VP9, "vp9"), (AV1, "av1")] {
        let mut world = World::new(Crypto::Clear);
        let doctor = world.join_as("doctor", Default::default(), |client| client.receive_on(1, 1));
        let patient = world.join("patient");
        world.run_ms(500);
        let mut source = Source::video(world.now, "cam", "", 2_000, &["q", "h", "f"]);
        for encoding in &mut source.encodings {
            encoding.payload_type = payload_type;
        }
        let mut announced = world.clients[patient].publish(source);
        let codec = AnnouncedCodec { codec: name.into(), cid: "cam".into(), ..Default::default() };
        announced.codecs.push(codec);
        world.request(patient, Request::AddTrack(Box::new(announced)));
        world.offer(patient);
        world.run_ms(1_000);
        let face = world.clients[patient].published["cam"].sid.clone();
        for rung in [0, 2, 1] {
            world.wish(doctor, &face, rung);
            world.run_ms(600);
            let stream = world.clients[doctor].stream_of(&face).unwrap();
            let newest = stream.seen.last_key_value().unwrap().1;
            let expected = (300 + 100 * rung, payload_type);
            assert_eq!((newest.payload.len(), newest.payload_type), expected, "{name}");
        }
        let stream = world.clients[doctor].stream_of(&face).unwrap();
        stream.check_whole();
        let mut frame: Option<u16> = None;
        for seen in stream.seen.values() {
            assert_eq!(seen.descriptor.is_empty(), payload_type != AV1);
            let number = seen.descriptor.get(1..).and_then(<[u8]>::first_chunk);
            let number = number.map(|bytes| u16::from_be_bytes(*bytes));
            if let (Some(now), Some(then)) = (number, frame) {
                assert!(now - then <= 1, "{name}: frame numbers go on");
            }
            frame = number;
        }
    }
}

#[test]
fn a_recycled_section_ends_its_track() {
    use bedside_sfu::core::sdp::Direction;
    let (mut world, doctor, patient, voice, _) = call(Crypto::Clear);
    world.run_ms(500);
    let old = world.clients[patient].sources.remove(0);
    let section = world.clients[patient].section(&old.mid);
    // A new name on the same line, and nothing sent: the old section was never seen inactive.
    section.mid = "fresh".into();
    section.direction = Direction::RecvOnly;
    (section.msid, section.ssrc) = (None, None);
    world.offer(patient);
    world.run_ms(200);
    assert!(world.clients[doctor].tracks_of_others().iter().all(|track| track.sid != voice));
    assert_eq!(world.clients[doctor].tracks_of_others().len(), 1);
}
