//! What nobody wants is not sent, and what is wanted comes at once.

use bedside_sfu::core::api::{Grant, Quality, Request, SessionEvent, TrackSid};
use bedside_sfu::core::peer::Crypto;

use crate::forwarding::{call, publish};
use crate::source::Source;
use crate::world::World;

/// A patient who sends only what is wanted, and a doctor who has subscribed to nothing.
fn alone() -> (World, usize, usize, TrackSid) {
    let mut world = World::new(Crypto::Clear);
    let doctor = world.join_as("doctor", Grant::default(), |client| {
        client.receive_on(3, 3);
        client.auto_subscribe = false;
    });
    let patient = world.join_as("patient", Grant::default(), |client| client.dynacast = true);
    world.run_ms(500);
    let now = world.now;
    let source = Source::video(now, "cam", "", 2_000, &["q", "h", "f"]);
    let face = publish(&mut world, patient, source);
    (world, doctor, patient, face)
}

fn subscribe(world: &mut World, client: usize, track: &TrackSid, subscribe: bool) {
    let tracks = vec![track.clone()];
    world.request(client, Request::Subscribe { tracks, subscribe });
}

fn disable(world: &mut World, client: usize, track: &TrackSid) {
    let (tracks, quality) = (vec![track.clone()], Quality::High);
    let settings =
        Request::TrackSettings { tracks, disabled: true, quality, width: 0, height: 0, fps: 0 };
    world.request(client, settings);
}

/// Everything that the publisher was told about a track.
fn told(world: &World, client: usize, track: &TrackSid) -> Vec<[bool; 3]> {
    let rungs = |event: &SessionEvent| match event {
        SessionEvent::SubscribedQuality { track: of, codecs } if of == track => {
            assert_eq!(codecs.len(), 1);
            assert_eq!(codecs[0].0, "vp8");
            Some(codecs[0].1)
        }
        _ => None,
    };
    world.clients[client].log.iter().filter_map(rungs).collect()
}

const OFF: [bool; 3] = [false; 3];
const LOW: [bool; 3] = [true, false, false];
const MEDIUM: [bool; 3] = [true, true, false];
const ALL: [bool; 3] = [true; 3];

/// The size of the newest packet tells the layer: 300, 400, 500.
fn newest(world: &World, client: usize, track: &TrackSid) -> usize {
    let stream = world.clients[client].stream_of(track).unwrap();
    stream.seen.last_key_value().unwrap().1.payload.len()
}

#[test]
fn nothing_is_sent_that_nobody_wants() {
    let (mut world, doctor, patient, face) = alone();
    world.run_ms(5_500);
    assert_eq!(told(&world, patient, &face), [OFF]);
    let before = world.core.counters().rtp_packets_in;
    world.run_ms(2_000);
    assert_eq!(world.core.counters().rtp_packets_in, before);
    // Up, rung by rung, at once.
    world.wish(doctor, &face, 0);
    subscribe(&mut world, doctor, &face, true);
    assert_eq!(told(&world, patient, &face), [OFF, LOW]);
    world.run_ms(300);
    assert_eq!(newest(&world, doctor, &face), 300);
    world.wish(doctor, &face, 2);
    assert_eq!(told(&world, patient, &face), [OFF, LOW, ALL]);
    world.run_ms(200);
    assert_eq!(newest(&world, doctor, &face), 500, "within two round trips and a frame");
    // Down with patience, and all at the end.
    world.wish(doctor, &face, 1);
    world.run_ms(4_900);
    assert_eq!(told(&world, patient, &face), [OFF, LOW, ALL]);
    assert_eq!(newest(&world, doctor, &face), 400);
    world.run_ms(200);
    assert_eq!(told(&world, patient, &face), [OFF, LOW, ALL, MEDIUM]);
    let stream = world.clients[doctor].stream_of(&face).unwrap();
    stream.check_order();
    assert!(stream.missing().unwrap().is_empty());
    subscribe(&mut world, doctor, &face, false);
    world.run_ms(5_200);
    assert_eq!(told(&world, patient, &face), [OFF, LOW, ALL, MEDIUM, OFF]);
}

#[test]
fn a_stopped_layer_is_not_waited_for() {
    let (mut world, doctor, patient, face) = alone();
    world.wish(doctor, &face, 0);
    subscribe(&mut world, doctor, &face, true);
    world.run_ms(6_000);
    assert_eq!(told(&world, patient, &face), [LOW]);
    // A second one wants the best, which does not flow: it gets the lowest until then.
    world.clients[patient].dynacast = false;
    let guest = world.join_as("guest", Grant::default(), |client| client.receive_on(1, 1));
    world.run_ms(400);
    assert_eq!(told(&world, patient, &face), [LOW, ALL]);
    assert_eq!(newest(&world, guest, &face), 300);
    let asked = &world.clients[patient].sources[0].encodings[2].keyframes_asked;
    assert!(asked.is_empty(), "no use to ask for keyframes of what does not flow");
    for encoding in &mut world.clients[patient].sources[0].encodings {
        encoding.active = true;
    }
    world.run_ms(200);
    assert_eq!(newest(&world, guest, &face), 500);
    assert_eq!(newest(&world, doctor, &face), 300);
    for client in [guest, doctor] {
        let stream = world.clients[client].stream_of(&face).unwrap();
        stream.check_order();
        assert!(stream.missing().unwrap().is_empty());
    }
}

#[test]
fn a_publisher_who_does_not_listen_is_served_all_the_same() {
    let (mut world, doctor, patient, _, face) = call(Crypto::Clear);
    disable(&mut world, doctor, &face);
    world.run_ms(6_000);
    assert_eq!(told(&world, patient, &face), [OFF]);
    world.wish(doctor, &face, 2);
    world.run_ms(200);
    assert_eq!(told(&world, patient, &face), [OFF, ALL]);
    assert_eq!(newest(&world, doctor, &face), 500);
}

#[test]
fn the_most_demanding_subscriber_counts_also_unseen() {
    let (mut world, doctor, patient, face) = alone();
    world.wish(doctor, &face, 0);
    subscribe(&mut world, doctor, &face, true);
    world.run_ms(5_500);
    let unseen = Grant { hidden: true, recorder: true, ..Grant::default() };
    let recorder = world.join_as("recorder", unseen, |client| client.receive_on(1, 1));
    world.run_ms(300);
    assert_eq!(told(&world, patient, &face), [LOW, ALL]);
    assert_eq!(newest(&world, recorder, &face), 500);
    world.request(recorder, Request::Leave);
    world.run_ms(5_200);
    assert_eq!(told(&world, patient, &face), [LOW, ALL, LOW], "who leaves wants nothing");
    world.request(doctor, Request::Leave);
    world.run_ms(5_200);
    assert_eq!(told(&world, patient, &face).last(), Some(&OFF));
}

#[test]
fn a_resume_tells_it_again_and_a_new_track_starts_anew() {
    let (mut world, doctor, patient, face) = alone();
    world.run_ms(5_500);
    assert_eq!(told(&world, patient, &face), [OFF]);
    world.resume(patient);
    assert_eq!(told(&world, patient, &face), [OFF, OFF]);
    // The camera goes on again as a new track, with all its layers.
    let now = world.now;
    let again = Source::video(now, "again", "", 3_000, &["q", "h", "f"]);
    let again = publish(&mut world, patient, again);
    assert_eq!(told(&world, patient, &again), [] as [[bool; 3]; 0]);
    subscribe(&mut world, doctor, &again, true);
    world.run_ms(500);
    assert_eq!(newest(&world, doctor, &again), 500);
    assert_eq!(told(&world, patient, &again), [] as [[bool; 3]; 0], "nothing changed");
    assert_eq!(told(&world, patient, &face), [OFF, OFF]);
}

#[test]
fn a_flood_of_settings_is_bounded_and_the_last_one_holds() {
    let (mut world, doctor, patient, _, face) = call(Crypto::Clear);
    world.run_ms(1_000);
    let before = world.core.counters().pli_out;
    let events = world.clients[patient].log.len();
    for round in 0..1_000 {
        world.wish(doctor, &face, round % 3);
        if round % 7 == 0 {
            disable(&mut world, doctor, &face);
        }
        world.run_ms(1);
    }
    world.wish(doctor, &face, 1);
    world.run_ms(500);
    assert_eq!(newest(&world, doctor, &face), 400);
    // Three layers, one request each 300 ms.
    assert!(world.core.counters().pli_out - before <= 3 * 5);
    let told: Vec<_> = world.clients[patient].log[events..].iter().collect();
    assert!(told.is_empty(), "nothing is told of changes of mind: {told:?}");
    world.clients[doctor].stream_of(&face).unwrap().check_order();
}
