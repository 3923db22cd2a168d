//! Pictures on lines that lose packets: what repair leaves, and how long they stand still.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use bedside_sfu::core::api::TrackSid;
use bedside_sfu::core::peer::Crypto;

use crate::forwarding::publish;
use crate::source::Source;
use crate::world::World;

/// One way between a client and the server: a round trip of 40 ms.
const DELAY: Duration = Duration::from_millis(20);

struct Room {
    world: World,
    viewer: usize,
    patient: usize,
    face: TrackSid,
}

fn room(seed: u8) -> Room {
    let mut world = World::new(Crypto::Clear);
    world.delay = DELAY;
    let viewer = world.join_as("viewer", Default::default(), |client| {
        client.asks_again = true;
        client.asks_after = Some(DELAY * 2 + Duration::from_millis(10));
        client.receive_on(1, 1);
    });
    let patient = world.join_as("patient", Default::default(), |client| client.receive_on(1, 1));
    world.run_ms(1_000);
    let source = Source::video(world.now, "cam", "", 2_000, &[]);
    let face = publish(&mut world, patient, source);
    world.run_ms(1_000);
    world.reseed(seed);
    Room { world, viewer, patient, face }
}

/// What a viewer saw.
#[derive(Debug)]
struct Sight {
    /// Share of the packets that came later than they would have without loss.
    late: f64,
    /// Of those, by how many ms in the middle, and of which nineteen of twenty were sooner.
    repair_ms: (u64, u64),
    /// Share of the packets that never came.
    lost: f64,
    /// Share of the source's pictures that came.
    shown: f64,
    /// Share of the time in which the picture stood for 150 ms longer than usual.
    frozen: f64,
}

impl Room {
    fn see(&mut self, loss: (f64, f64), seconds: u64) -> Sight {
        self.world.loss = loss;
        let begin = self.world.now;
        for _ in 0..seconds {
            for (client, fraction) in [(self.viewer, loss.1), (self.patient, loss.1)] {
                self.world.report_loss(client, (fraction * 256.0) as u8);
            }
            self.world.run_ms(1_000);
        }
        let end = self.world.now;
        self.world.loss = (0.0, 0.0);
        self.world.run_ms(3_000);
        let stream = self.world.clients[self.viewer].stream_of(&self.face).unwrap();
        stream.check_order();
        let (first, _) = stream.seen.first_key_value().unwrap();
        let (last, _) = stream.seen.last_key_value().unwrap();
        let never = (*first..*last).filter(|at| !stream.seen.contains_key(at)).count();
        let base = stream.seen.values().next().unwrap();
        let due = |timestamp: u32| {
            base.at
                + Duration::from_micros(u64::from(timestamp.wrapping_sub(base.timestamp)) * 100 / 9)
        };
        let mut late: Vec<u64> = stream
            .seen
            .values()
            .map(|seen| seen.at.saturating_duration_since(due(seen.timestamp)).as_millis() as u64)
            .filter(|late| *late > 2)
            .collect();
        late.sort_unstable();
        // A frame is shown when it and all before it are there.
        let mut frames: BTreeMap<u32, Instant> = BTreeMap::new();
        for seen in stream.seen.values() {
            let there =
                frames.entry(seen.timestamp.wrapping_sub(base.timestamp)).or_insert(seen.at);
            *there = (*there).max(seen.at);
        }
        let (mut shown, mut frozen) = (base.at, Duration::ZERO);
        for there in frames.values() {
            let next = shown.max(*there);
            let stood = next - shown;
            if stood > Duration::from_millis(40 + 150) {
                frozen += stood;
            }
            shown = next;
        }
        let len = stream.len() as f64;
        let during = frames.keys().map(|ticks| due(base.timestamp.wrapping_add(*ticks)));
        let during = during.filter(|at| (begin..end).contains(at)).count();
        let at = |share: usize| late.get(late.len() * share / 100).copied().unwrap_or(0);
        Sight {
            late: late.len() as f64 / len,
            repair_ms: (at(50), at(95)),
            lost: never as f64 / len,
            // Twenty-five in a second.
            shown: during as f64 / (25 * seconds) as f64,
            frozen: frozen.as_secs_f64() / (shown - base.at).as_secs_f64(),
        }
    }
}

/// At most this share of the time the picture may stand, and next to nothing may be lost for good.
fn check(burst: f64, loss: (f64, f64), only_viewer: Option<bool>, limit: f64) {
    let mut room = room(3);
    room.world.line.burst = burst;
    room.world.line.only = only_viewer.map(|viewer| {
        let client = if viewer { room.viewer } else { room.patient };
        room.world.clients[client].address
    });
    let sight = room.see(loss, 30);
    assert!(
        sight.frozen <= limit && sight.lost <= 0.015 && sight.shown >= 0.9,
        "{loss:?} in runs of {burst}: {sight:.3?}"
    );
}

#[test]
fn pictures_survive_loss_on_the_way_up() {
    check(1.0, (0.05, 0.0), None, 0.02);
    check(1.0, (0.2, 0.0), None, 0.07);
    check(3.0, (0.05, 0.0), None, 0.05);
}

#[test]
fn pictures_survive_loss_on_the_way_down() {
    check(1.0, (0.0, 0.05), None, 0.02);
    check(1.0, (0.0, 0.2), None, 0.05);
    check(3.0, (0.0, 0.05), None, 0.05);
}

/// One of the two on a line that loses both ways: requests for repair are lost with it.
#[test]
fn pictures_survive_one_bad_line() {
    check(1.0, (0.2, 0.2), Some(true), 0.11);
    check(1.0, (0.2, 0.2), Some(false), 0.08);
    check(1.0, (0.1, 0.1), None, 0.07);
}

#[test]
fn repair_comes_after_a_round_trip() {
    let mut room = room(5);
    let sight = room.see((0.05, 0.0), 30);
    // Found out by the next packet, which may be of the next frame, then asked for at once.
    assert!(sight.repair_ms.0 <= 45 && sight.repair_ms.1 <= 100, "{sight:?}");
    assert!(sight.late > 0.03, "{sight:?}");
    let mut room = self::room(5);
    let sight = room.see((0.0, 0.05), 30);
    assert!(sight.repair_ms.0 <= 45 && sight.repair_ms.1 <= 160, "{sight:?}");
}

/// A line so bad that repair is given up now and then: a keyframe goes on, and not one each second.
#[test]
fn what_is_given_up_brings_a_keyframe() {
    let mut room = room(6);
    let asked = |room: &Room| {
        room.world.clients[room.patient].sources[0].encodings[0].keyframes_asked.len()
    };
    let before = asked(&room);
    room.world.line.burst = 40.0;
    let sight = room.see((0.5, 0.0), 30);
    assert!(sight.lost > 0.001, "{sight:?}");
    let asked = asked(&room) - before;
    assert!((1..=40).contains(&asked), "{asked}");
}
