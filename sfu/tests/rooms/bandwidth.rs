//! Receivers behind narrow links: what they get, and what the others do not notice of it.

use std::time::{Duration, Instant};

use bedside_sfu::core::api::{SessionEvent, TrackSid};
use bedside_sfu::core::peer::Crypto;

use crate::client::{Client, Lie};
use crate::forwarding::publish;
use crate::pipe::Pipe;
use crate::source::Source;
use crate::world::World;

/// Payload sizes tell the layers apart.
const SIZES: [usize; 3] = [800, 900, 1_000];

struct Call {
    world: World,
    doctor: usize,
    viewers: Vec<usize>,
    voice: TrackSid,
    face: TrackSid,
}

/// A doctor with a camera of 165, 550 and 1,650 kbit/s and a microphone of 45, and viewers.
fn call(viewers: usize, set_up: impl Fn(usize, &mut Client)) -> Call {
    let mut world = World::new(Crypto::Clear);
    world.delay = Duration::from_millis(30);
    let doctor = world.join_as("doctor", Default::default(), |client| client.receive_on(1, 1));
    let viewers = (0..viewers).map(|number| {
        world.join_as(&format!("viewer {number}"), Default::default(), |client| {
            client.receive_on(3, 3);
            client.asks_again = true;
            client.tells_arrivals = true;
            set_up(number, client);
        })
    });
    let viewers = viewers.collect();
    world.run_ms(1_000);
    let now = world.now;
    let voice = publish(&mut world, doctor, Source::audio(now, "mic", "", 1_000));
    let mut camera = Source::video(now, "cam", "", 2_000, &["q", "h", "f"]);
    for ((encoding, size), packets) in camera.encodings.iter_mut().zip(SIZES).zip([1, 3, 8]) {
        encoding.shape = (size, packets);
        encoding.keyframes_are = 4;
    }
    let face = publish(&mut world, doctor, camera);
    Call { world, doctor, viewers, voice, face }
}

impl Call {
    fn narrow(&mut self, viewer: usize, kbps: u64) {
        self.world.pipes.insert(self.viewers[viewer], Pipe::new(kbps * 1_000, 1_000));
    }

    fn client(&self, viewer: usize) -> &Client {
        &self.world.clients[self.viewers[viewer]]
    }

    /// The layers that came since a time, and how many packets of each.
    fn layers(&self, viewer: usize, since: Instant) -> [usize; 3] {
        let stream = self.client(viewer).stream_of(&self.face).unwrap();
        let mut counts = [0; 3];
        for seen in stream.since(since) {
            if let Some(layer) = SIZES.iter().position(|size| *size == seen.payload.len()) {
                counts[layer] += 1;
            }
        }
        counts
    }

    /// Sounds that came in the last so many milliseconds, of each second 50.
    fn sounds(&self, viewer: usize, ms: u64) -> usize {
        let since = self.world.now - Duration::from_millis(ms);
        self.client(viewer).stream_of(&self.voice).unwrap().since(since).count()
    }

    fn states(&self, viewer: usize) -> Vec<bool> {
        let states = self.client(viewer).log.iter().filter_map(|event| match event {
            SessionEvent::StreamState { paused, track, .. } if *track == self.face => Some(*paused),
            _ => None,
        });
        states.collect()
    }

    fn last(&self, ms: u64) -> Instant {
        self.world.now - Duration::from_millis(ms)
    }
}

#[test]
fn a_wide_link_carries_everything_and_every_packet_is_numbered() {
    let mut call = call(1, |_, _| {});
    call.world.run_ms(8_000);
    let [low, middle, high] = call.layers(0, call.last(3_000));
    assert_eq!((low, middle), (0, 0));
    assert!((590..=610).contains(&high), "{high}");
    let client = call.client(0);
    assert_eq!(client.numbered.1, 0, "without a number");
    assert!(client.padding_packets > 0, "probes");
    assert_eq!(call.states(0), []);
    let stream = client.stream_of(&call.face).unwrap();
    stream.check_order();
    assert_eq!(stream.missing(), Some(vec![]), "a gap of our making");
}

#[test]
fn a_narrow_link_carries_the_voice_and_a_small_picture() {
    let mut call = call(1, |_, _| {});
    call.narrow(0, 300);
    call.world.run_ms(8_000);
    let pipe = call.world.pipes.get_mut(&call.viewers[0]).unwrap();
    (pipe.longest, pipe.dropped) = (Duration::ZERO, 0);
    call.world.run_ms(10_000);
    let pipe = call.world.pipes[&call.viewers[0]];
    assert!(pipe.longest < Duration::from_millis(300), "{:?}", pipe.longest);
    assert_eq!(pipe.dropped, 0);
    let [low, middle, high] = call.layers(0, call.last(10_000));
    assert_eq!((middle, high), (0, 0));
    assert!(low > 200, "{low}");
    assert!((495..=505).contains(&call.sounds(0, 10_000)), "{}", call.sounds(0, 10_000));
    call.client(0).stream_of(&call.face).unwrap().check_order();
}

#[test]
fn a_link_too_narrow_for_pictures_pauses_them_and_they_come_back() {
    let mut call = call(1, |_, _| {});
    call.world.run_ms(3_000);
    call.narrow(0, 100);
    call.world.run_ms(12_000);
    assert_eq!(call.states(0), [true]);
    let shown: usize = call.layers(0, call.last(5_000)).iter().sum();
    assert_eq!(shown, 0);
    let sounds = call.sounds(0, 5_000);
    assert!((248..=252).contains(&sounds), "{sounds}");
    call.narrow(0, 5_000);
    let back = call.world.now;
    call.world.run_ms(3_000);
    assert_eq!(call.states(0), [true, false]);
    let stream = call.client(0).stream_of(&call.face).unwrap();
    let first = stream.since(back).next().unwrap();
    assert!(first.keyframe && first.at - back < Duration::from_secs(3));
    call.world.run_ms(6_000);
    assert!(call.layers(0, call.last(1_000))[2] > 150);
}

#[test]
fn a_hole_too_large_to_repair_is_closed_by_a_keyframe() {
    let mut call = call(1, |_, _| {});
    call.narrow(0, 900);
    call.world.run_ms(10_000);
    call.world.loss = (0.0, 1.0);
    call.world.run_ms(2_000);
    call.world.loss = (0.0, 0.0);
    let before = *call.world.core.counters();
    call.world.run_ms(500);
    let after = call.world.core.counters();
    assert!(after.repair_refused > before.repair_refused + 8, "{after:?}");
    assert_eq!(after.pli_in, before.pli_in, "the viewer has not lost its patience yet");
    assert!(after.pli_out > before.pli_out, "{after:?}");
}

#[test]
fn what_may_not_be_paused_goes_on() {
    let mut call = call(1, |_, client| client.allow_pause = false);
    call.narrow(0, 100);
    call.world.run_ms(10_000);
    assert_eq!(call.states(0), []);
    assert!(call.layers(0, call.last(5_000))[0] > 20);
}

#[test]
fn a_step_down_is_followed_and_a_step_up_found() {
    let mut call = call(1, |_, _| {});
    call.narrow(0, 3_000);
    call.world.run_ms(6_000);
    assert!(call.layers(0, call.last(1_000))[2] > 150);
    call.narrow(0, 900);
    // A probe that comes while the queue of before drains may be misread: then the next one counts.
    call.world.run_ms(12_000);
    let [low, middle, high] = call.layers(0, call.last(4_000));
    assert!(middle > 250 && high == 0, "{low} {middle} {high}");
    assert_eq!(call.states(0).len() % 2, 0, "nothing stays paused");
    call.narrow(0, 3_000);
    call.world.run_ms(8_000);
    assert!(call.layers(0, call.last(1_000))[2] > 150);
    call.client(0).stream_of(&call.face).unwrap().check_order();
}

#[test]
fn one_bad_receiver_costs_the_others_nothing() {
    let mut call = call(4, |_, _| {});
    call.narrow(2, 150);
    call.world.run_ms(15_000);
    for viewer in [0, 1, 3] {
        let [low, middle, high] = call.layers(viewer, call.last(10_000));
        assert_eq!((low, middle), (0, 0), "viewer {viewer}");
        assert!((1_990..=2_060).contains(&high), "viewer {viewer}: {high}");
        assert_eq!(call.states(viewer), []);
    }
    let source = &call.world.clients[call.doctor].sources[1];
    let best = &source.encodings[2].keyframes_asked;
    let late = best.iter().filter(|at| **at > call.last(10_000)).count();
    assert_eq!(late, 0, "keyframes of the best layer");
    let sounds = call.sounds(2, 10_000);
    assert!((495..=505).contains(&sounds), "{sounds}");
}

#[test]
fn who_never_tells_what_arrived_gets_everything() {
    let mut call = call(1, |_, client| client.tells_arrivals = false);
    call.world.run_ms(8_000);
    assert!(call.layers(0, call.last(1_000))[2] > 150);
    // The first probes ask whether an answer comes; without one there are no more.
    let padding = call.client(0).padding_packets;
    assert!(padding < 40, "{padding}");
    let camera = &mut call.world.clients[call.doctor].sources[1].encodings[2];
    camera.shape.1 = 40;
    call.world.run_ms(2_000);
    let all = call.layers(0, call.last(1_000))[2];
    assert!((950..=1_050).contains(&all), "{all} of 1,000: 8 Mbit/s");
    assert_eq!(call.client(0).padding_packets, padding);
}

#[test]
fn liars_change_only_what_they_get() {
    let lies = [Lie::NothingCame, Lie::AllAtOnce, Lie::Garbage];
    let mut call = call(4, |number, client| client.lie = lies.get(number).copied());
    for viewer in 0..3 {
        call.narrow(viewer, 1_000);
    }
    call.world.run_ms(15_000);
    let [low, middle, high] = call.layers(3, call.last(10_000));
    assert_eq!((low, middle), (0, 0));
    assert!((1_990..=2_010).contains(&high), "{high}");
    let best = &call.world.clients[call.doctor].sources[1].encodings[2].keyframes_asked;
    assert!(best.len() < 20, "{}", best.len());
}
