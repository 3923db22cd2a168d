//! How good a connection is, as people are told of it.

use bedside_sfu::core::api::{
    Grant, NodeEvent, ParticipantSid, Quality, QualityLevel, Request, SessionEvent, TrackSid,
};
use bedside_sfu::core::peer::Crypto;

use crate::forwarding::{call, publish};
use crate::source::Source;
use crate::world::World;

use QualityLevel::{Excellent, Good, Lost, Poor};

/// What a client was told of another, in order.
fn told(world: &World, listener: usize, about: usize) -> Vec<QualityLevel> {
    let who: &ParticipantSid = world.clients[about].me.as_ref().unwrap();
    let log = world.clients[listener].log.iter();
    let changes = log.filter_map(|event| match event {
        SessionEvent::Quality(changes) => Some(changes),
        _ => None,
    });
    let changes = changes.flatten().inspect(|(_, _, score)| assert!((0.0..=5.0).contains(score)));
    changes.filter(|(of, ..)| of == who).map(|(_, level, _)| *level).collect()
}

/// Runs while everybody reports what they receive.
fn run(world: &mut World, seconds: u32) {
    for _ in 0..seconds {
        world.run_ms(1_000);
        for client in &mut world.clients {
            if client.peer.is_some() {
                client.report_back();
            }
        }
    }
}

fn mute(world: &mut World, client: usize, track: &TrackSid, source: usize, muted: bool) {
    world.clients[client].sources[source].muted = muted;
    world.request(client, Request::Mute { track: track.clone(), muted });
}

#[test]
fn a_good_connection_is_told_once_to_all_whom_it_concerns() {
    let (mut world, doctor, patient, ..) = call(Crypto::Clear);
    run(&mut world, 20);
    for listener in [doctor, patient] {
        assert_eq!(told(&world, listener, patient), [Excellent]);
    }
    assert_eq!(told(&world, doctor, doctor), [Excellent]);
    assert_eq!(told(&world, patient, doctor), [], "it receives nothing of the doctor");
    // Who comes later hears it without waiting for the next window.
    let guest = world.join_as("guest", Grant::default(), |client| client.receive_on(2, 2));
    assert_eq!(told(&world, guest, patient), [Excellent]);
    // And who comes back.
    world.resume(doctor);
    assert_eq!(told(&world, doctor, patient), [Excellent; 2]);
}

#[test]
fn loss_on_the_way_up_is_the_publishers_and_no_one_elses() {
    let (mut world, doctor, patient, ..) = call(Crypto::Clear);
    run(&mut world, 10);
    world.loss = (0.35, 0.0);
    run(&mut world, 12);
    assert_eq!(told(&world, patient, patient).last(), Some(&Poor));
    assert_eq!(told(&world, doctor, patient).last(), Some(&Poor));
    assert_eq!(told(&world, doctor, doctor), [Excellent]);
    world.loss = (0.0, 0.0);
    run(&mut world, 40);
    assert_eq!(told(&world, doctor, patient).last(), Some(&Excellent), "it recovers");
    let words = told(&world, doctor, patient);
    assert!(!words.contains(&Lost) && words.len() <= 6, "{words:?}");
}

#[test]
fn a_stay_is_told_once_when_it_ends() {
    let (mut world, _, patient, ..) = call(Crypto::Clear);
    run(&mut world, 10);
    world.loss = (0.35, 0.0);
    run(&mut world, 20);
    let measured = |world: &World| {
        let stays = world.facts.iter().filter_map(|fact| match fact {
            NodeEvent::Measured { identity, stay, .. } => {
                Some((identity.reveal().clone(), stay.clone()))
            }
            NodeEvent::RoomStarted { .. }
            | NodeEvent::RoomChanged { .. }
            | NodeEvent::RoomFinished { .. }
            | NodeEvent::Confirmed { .. }
            | NodeEvent::Participant { .. }
            | NodeEvent::Reachable { .. } => None,
        });
        stays.collect::<Vec<_>>()
    };
    assert_eq!(measured(&world), []);
    world.request(patient, Request::Leave);
    world.run_ms(100);
    let told = measured(&world);
    let [(who, stay)] = told.as_slice() else { panic!("one stay: {told:?}") };
    assert_eq!(who, "patient");
    assert!((20..=30).contains(&stay.seconds), "{stay:?}");
    assert!((1.0..4.0).contains(&stay.score), "{stay:?}");
    assert!(stay.lost_percent.is_some_and(|lost| lost > 0.0 && lost < 50.0), "{stay:?}");
    assert!(stay.video_bps.is_some_and(|bps| bps > 10_000), "{stay:?}");
}

#[test]
fn loss_on_the_way_down_is_the_subscribers() {
    let (mut world, doctor, patient, ..) = call(Crypto::Clear);
    run(&mut world, 10);
    world.loss = (0.0, 0.3);
    run(&mut world, 12);
    assert_eq!(told(&world, doctor, doctor).last(), Some(&Poor));
    assert_eq!(told(&world, doctor, patient), [Excellent], "the patient sends well");
    assert_eq!(told(&world, patient, patient), [Excellent]);
}

#[test]
fn what_is_muted_silent_or_switched_off_counts_against_nobody() {
    let (mut world, doctor, patient, voice, face) = call(Crypto::Clear);
    run(&mut world, 10);
    // Muted, both; then the camera alone; then discontinuous speech: a packet each 400 ms.
    mute(&mut world, patient, &voice, 0, true);
    mute(&mut world, patient, &face, 1, true);
    run(&mut world, 15);
    mute(&mut world, patient, &voice, 0, false);
    run(&mut world, 15);
    for turn in 0..40 {
        world.clients[patient].sources[0].muted = turn % 20 != 0;
        world.run_ms(400);
    }
    world.clients[patient].sources[0].muted = false;
    mute(&mut world, patient, &face, 1, false);
    run(&mut world, 10);
    // Switched off by the subscriber, then stopped by the publisher because nobody wants it.
    let (tracks, quality) = (vec![face.clone()], Quality::High);
    let off =
        Request::TrackSettings { tracks, disabled: true, quality, width: 0, height: 0, fps: 0 };
    world.request(doctor, off);
    world.clients[patient].dynacast = true;
    run(&mut world, 15);
    assert!(world.clients[patient].sources[1].encodings.iter().all(|encoding| !encoding.active));
    world.wish(doctor, &face, 0);
    run(&mut world, 15);
    for (listener, about) in [(doctor, patient), (patient, patient), (doctor, doctor)] {
        assert_eq!(told(&world, listener, about), [Excellent], "{listener} of {about}");
    }
}

#[test]
fn a_camera_that_stops_is_no_bad_line_while_sound_comes() {
    let (mut world, doctor, patient, ..) = call(Crypto::Clear);
    run(&mut world, 10);
    world.clients[patient].sources[1].muted = true;
    run(&mut world, 15);
    assert_eq!(told(&world, doctor, patient), [Excellent]);
    // But when everything stands for most of the time, it is.
    for _ in 0..8 {
        for (muted, ms) in [(true, 1_500), (false, 500)] {
            for source in &mut world.clients[patient].sources {
                source.muted = muted;
            }
            world.run_ms(ms);
        }
    }
    assert_eq!(told(&world, doctor, patient).last(), Some(&Poor));
}

#[test]
fn rungs_that_break_away_are_noticed() {
    let (mut world, doctor, patient, ..) = call(Crypto::Clear);
    run(&mut world, 10);
    world.clients[patient].sources[1].encodings[2].active = false;
    run(&mut world, 10);
    assert_eq!(told(&world, doctor, patient), [Excellent, Good]);
}

#[test]
fn lost_is_told_of_the_silent_only_and_never_to_itself() {
    let (mut world, doctor, patient, ..) = call(Crypto::Clear);
    run(&mut world, 6);
    // A cut cable: nothing of it arrives any more.
    let cut = world.clients[patient].vanish();
    let sources = std::mem::take(&mut world.clients[patient].sources);
    world.run_ms(18_000);
    assert_eq!(told(&world, doctor, patient).last(), Some(&Lost));
    // It comes back with a new session and the same peer.
    world.clients[patient].come_back(cut);
    world.clients[patient].sources = sources;
    world.resume(patient);
    world.run_ms(2_000);
    assert_eq!(told(&world, doctor, patient).last(), Some(&Poor));
    run(&mut world, 40);
    assert_eq!(told(&world, doctor, patient).last(), Some(&Excellent));
    assert!(!told(&world, patient, patient).contains(&Lost));
}

#[test]
fn a_voice_alone_is_valued_too() {
    let mut world = World::new(Crypto::Clear);
    let doctor = world.join_as("doctor", Grant::default(), |client| client.receive_on(2, 0));
    let patient = world.join("patient");
    world.run_ms(500);
    let now = world.now;
    publish(&mut world, patient, Source::audio(now, "mic", "", 1_000));
    run(&mut world, 10);
    assert_eq!(told(&world, doctor, patient), [Excellent]);
    world.loss = (0.07, 0.0);
    run(&mut world, 10);
    assert_eq!(told(&world, doctor, patient), [Excellent, Good]);
    world.delay = std::time::Duration::from_millis(10);
    world.loss = (0.3, 0.0);
    run(&mut world, 10);
    assert_eq!(told(&world, doctor, patient), [Excellent, Good, Poor]);
}
