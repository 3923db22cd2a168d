//! Who watches is shown one publisher after the other in the sections of one offer.

use std::time::Duration;

use bedside_sfu::core::api::{Command, Grant, Private, Request, SessionEvent};
use bedside_sfu::core::peer::Crypto;

use crate::forwarding::publish;
use crate::source::Source;
use crate::world::{ROOM, World};

/// Somebody who watches with one section for sound and one for pictures.
fn watch(world: &mut World, publisher: Option<&str>) -> usize {
    let watcher = world.join_quietly("watcher");
    let client = &mut world.clients[watcher];
    client.quiet = false;
    client.receive_on(1, 1);
    let publisher = publisher.map(|name| Private(name.to_owned()));
    world.request(watcher, Request::Watch { publisher });
    world.offer(watcher);
    watcher
}

/// Somebody with a microphone and a camera.
fn appear(world: &mut World, name: &str, ssrc: u32) -> usize {
    let person = world.join(name);
    world.run_ms(500);
    let now = world.now;
    publish(world, person, Source::audio(now, "mic", "", ssrc));
    publish(world, person, Source::video(now, "cam", "", ssrc + 100, &[]));
    person
}

/// Packets of sound and pictures that came in the last second.
fn lately(world: &World, watcher: usize) -> (usize, usize) {
    let client = &world.clients[watcher];
    let since = world.now - Duration::from_secs(1);
    let count = |section: usize| {
        let ssrc = client.answer.as_ref().unwrap().sections[section].ssrcs[0];
        client.streams.get(&ssrc).map_or(0, |stream| stream.since(since).count())
    };
    (count(1), count(2))
}

fn flows(world: &World, watcher: usize) -> bool {
    let (sounds, pictures) = lately(world, watcher);
    (40..=60).contains(&sounds) && pictures >= 20
}

/// How often a publisher was told that one of its tracks has somebody.
fn watched(world: &World, publisher: usize) -> usize {
    world.told(publisher, |event| matches!(event, SessionEvent::TrackSubscribed { .. }))
}

#[test]
fn the_first_publisher_is_followed_by_the_next_without_a_gap() {
    for crypto in [Crypto::Clear, Crypto::Real] {
        let mut world = World::new(crypto);
        let watcher = watch(&mut world, None);
        world.run_ms(1_000);
        assert_eq!(lately(&world, watcher), (0, 0), "nobody is there yet");
        let patient = appear(&mut world, "patient", 1_000);
        world.run_ms(1_500);
        assert!(flows(&world, watcher), "{:?}", lately(&world, watcher));
        let doctor = appear(&mut world, "doctor", 5_000);
        world.run_ms(1_500);
        assert!(flows(&world, watcher));
        assert_eq!(world.clients[watcher].streams.len(), 2, "the first one stays");
        world.request(patient, Request::Leave);
        world.run_ms(2_000);
        assert!(flows(&world, watcher), "{:?}", lately(&world, watcher));
        world.request(doctor, Request::Leave);
        world.run_ms(1_500);
        assert_eq!(lately(&world, watcher), (0, 0));
        appear(&mut world, "patient", 9_000);
        world.run_ms(1_500);
        assert!(flows(&world, watcher));
        let client = &world.clients[watcher];
        assert_eq!(client.streams.len(), 2, "all came on the same two streams");
        client.streams.values().for_each(|stream| stream.check_whole());
        let asked = |event: &SessionEvent| {
            matches!(event, SessionEvent::SectionsNeeded { .. } | SessionEvent::Offer { .. })
        };
        assert_eq!(world.told(watcher, asked), 0, "it cannot offer again");
    }
}

#[test]
fn a_named_publisher_is_waited_for_and_nobody_else_is_shown() {
    let mut world = World::new(Crypto::Clear);
    appear(&mut world, "patient", 1_000);
    let watcher = watch(&mut world, Some("doctor"));
    world.run_ms(1_500);
    assert_eq!(lately(&world, watcher), (0, 0));
    appear(&mut world, "doctor", 5_000);
    world.run_ms(1_500);
    assert!(flows(&world, watcher));
    // The same person again replaces the old one, and is followed.
    appear(&mut world, "doctor", 8_000);
    world.run_ms(1_500);
    assert!(flows(&world, watcher));
    let client = &world.clients[watcher];
    client.streams.values().for_each(|stream| stream.check_whole());
    assert_eq!(client.streams.len(), 2);
}

#[test]
fn a_picture_goes_before_a_voice_alone() {
    let mut world = World::new(Crypto::Clear);
    let watcher = watch(&mut world, None);
    let patient = world.join("patient");
    world.run_ms(500);
    let now = world.now;
    publish(&mut world, patient, Source::audio(now, "mic", "", 1_000));
    world.run_ms(1_500);
    assert_eq!((lately(&world, watcher).1, watched(&world, patient)), (0, 1));
    let doctor = appear(&mut world, "doctor", 5_000);
    world.run_ms(1_500);
    assert!(flows(&world, watcher));
    // The patient's voice goes to the doctor, too, who has no section for it.
    assert_eq!(watched(&world, doctor), 2);
}

#[test]
fn a_right_taken_away_stops_it_and_given_back_lets_it_go_on() {
    let mut world = World::new(Crypto::Clear);
    appear(&mut world, "patient", 1_000);
    let watcher = watch(&mut world, None);
    world.run_ms(1_500);
    assert!(flows(&world, watcher));
    for subscribe in [false, true] {
        let grant = Grant { subscribe, ..Grant::default() };
        let identity = Private("watcher".to_owned());
        world.command(Command::UpdateGrant { room: ROOM, identity, grant });
        world.run_ms(1_500);
        assert_eq!(flows(&world, watcher), subscribe);
        assert!(subscribe || lately(&world, watcher) == (0, 0));
    }
    world.clients[watcher].streams.values().for_each(|stream| stream.check_whole());
}

#[test]
fn a_restart_of_ice_changes_nothing_else() {
    let mut world = World::new(Crypto::Real);
    appear(&mut world, "patient", 1_000);
    let watcher = watch(&mut world, None);
    world.run_ms(1_500);
    let before = world.clients[watcher].answer.clone().unwrap();
    world.resume(watcher);
    world.run_ms(1_500);
    let after = world.clients[watcher].answer.clone().unwrap();
    assert_ne!(before.ufrag, after.ufrag);
    for (before, after) in before.sections.iter().zip(&after.sections) {
        assert_eq!((&before.ssrcs, &before.msid), (&after.ssrcs, &after.msid));
    }
    assert!(flows(&world, watcher));
    world.clients[watcher].streams.values().for_each(|stream| stream.check_whole());
}
