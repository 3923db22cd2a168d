//! Sound on lines that lose packets, both ways: what is left of the loss at the play-out.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use bedside_sfu::core::api::{Request, TrackSid};
use bedside_sfu::core::peer::Crypto;
use bedside_sfu::core::{red, rtcp};

use crate::source::{OPUS, RED, Source};
use crate::stream::{Seen, Stream};
use crate::world::World;

/// One way between a client and the server: a round trip of 40 ms.
const DELAY: Duration = Duration::from_millis(20);
/// A sound is played so long after it could have been there.
const PLAY_OUT: Duration = Duration::from_millis(120);

/// The sounds of one packet: when each was said, in ms, and the media clock it comes with.
fn sounds(seen: &Seen) -> Vec<(u32, u32)> {
    let said = |payload: &[u8]| u32::from_be_bytes(*payload.first_chunk().unwrap());
    if seen.payload_type == OPUS {
        return vec![(said(&seen.payload), seen.timestamp)];
    }
    assert_eq!(seen.payload_type, RED);
    let olds = red::blocks(&seen.payload);
    let olds = olds.iter().flatten();
    let mut all: Vec<(u32, u32)> =
        olds.map(|old| (said(old.payload), seen.timestamp.wrapping_sub(old.offset))).collect();
    all.push((said(red::primary(&seen.payload).unwrap()), seen.timestamp));
    all
}

/// When each sound was first there. Every copy of a sound must come with the same time.
fn heard(stream: &Stream) -> BTreeMap<u32, Instant> {
    let mut heard: BTreeMap<u32, Instant> = BTreeMap::new();
    let mut base = None;
    for seen in stream.seen.values() {
        for (said, timestamp) in sounds(seen) {
            let here = timestamp.wrapping_sub(said * 48);
            assert_eq!(*base.get_or_insert(here), here, "a sound under another's time");
            let first = heard.entry(said).or_insert(seen.at);
            *first = (*first).min(seen.at);
        }
    }
    heard
}

struct Room {
    world: World,
    voice: TrackSid,
    patient: usize,
    /// Reads redundant audio, asks for nothing.
    reader: usize,
    /// Neither.
    plain: usize,
    /// Asks again, reads no redundant audio.
    asker: usize,
}

fn room(seed: u8, red: bool) -> Room {
    let mut world = World::new(Crypto::Clear);
    world.delay = DELAY;
    let mut join = |name: &str, reads_red: bool, asks_again: bool| {
        world.join_as(name, Default::default(), |client| {
            client.tells_arrivals = false;
            client.reads_red = reads_red;
            client.asks_again = asks_again;
            client.receive_on(1, 0);
        })
    };
    let (reader, plain, asker) =
        (join("reader", true, false), join("plain", false, false), join("asker", false, true));
    let patient = world.join_as("patient", Default::default(), |client| {
        client.tells_arrivals = false;
        client.repeats_sound = true;
    });
    world.run_ms(1_000);
    let mut source = Source::audio(world.now, "mic", "", 1_000);
    source.red = red;
    let mut announced = world.clients[patient].publish(source);
    announced.disable_red = false;
    world.request(patient, Request::AddTrack(Box::new(announced)));
    world.offer(patient);
    world.run_ms(1_200);
    let voice = world.clients[patient].published["mic"].sid.clone();
    world.reseed(seed);
    Room { world, voice, patient, reader, plain, asker }
}

impl Room {
    /// Shares of sounds that were not there in time to be played, in the order of the fields.
    fn residual(&mut self, loss: (f64, f64), seconds: u64) -> [f64; 3] {
        self.world.loss = loss;
        // The reports of all receivers, once a second.
        let fraction = (loss.1 * 256.0) as u8;
        let from = self.world.now + Duration::from_secs(4);
        for _ in 0..seconds + 4 {
            for client in [self.reader, self.plain, self.asker] {
                self.world.report_loss(client, fraction);
            }
            self.world.run_ms(1_000);
        }
        let until = self.world.now;
        self.world.loss = (0.0, 0.0);
        self.world.run_ms(500);
        [self.reader, self.plain, self.asker].map(|client| {
            let stream = self.world.clients[client].stream_of(&self.voice).unwrap();
            stream.check_order();
            let heard = heard(stream);
            let started = self.world.clients[self.patient].sources[0].started;
            let said = |at: &u32| started + Duration::from_millis(u64::from(*at));
            let all = (0..).map(|at| at * 20).skip_while(|at| said(at) < from);
            let all: Vec<u32> = all.take_while(|at| said(at) < until).collect();
            let in_time = |at: &&u32| {
                heard.get(*at).is_some_and(|there| *there <= said(at) + DELAY * 2 + PLAY_OUT)
            };
            1.0 - all.iter().filter(in_time).count() as f64 / all.len() as f64
        })
    }
}

/// What is left of a loss, in per cent, may be this much: reads redundancy, neither, asks again.
fn check(burst: f64, loss: (f64, f64), limits: [f64; 3]) {
    let mut room = room(3, true);
    room.world.line.burst = burst;
    let left = room.residual(loss, 60).map(|share| share * 100.0);
    let within = left.iter().zip(limits).all(|(left, limit)| *left <= limit);
    assert!(within, "{loss:?} in runs of {burst}: {left:.2?} of {limits:?}");
}

#[test]
fn sound_survives_loss_on_the_way_up() {
    check(1.0, (0.05, 0.0), [0.3, 0.3, 0.3]);
    check(1.0, (0.2, 0.0), [1.2, 1.2, 1.4]);
    check(3.0, (0.05, 0.0), [1.5, 1.5, 1.7]);
}

#[test]
fn sound_survives_loss_on_the_way_down() {
    check(1.0, (0.0, 0.05), [0.3, 0.9, 0.2]);
    check(1.0, (0.0, 0.2), [0.5, 1.6, 0.6]);
    check(3.0, (0.0, 0.05), [3.5, 1.8, 0.8]);
}

#[test]
fn sound_survives_loss_both_ways() {
    check(1.0, (0.05, 0.05), [0.3, 0.8, 0.3]);
    check(1.0, (0.2, 0.2), [1.5, 2.3, 2.0]);
    check(1.0, (0.3, 0.3), [6.0, 8.0, 7.0]);
}

#[test]
fn what_is_restored_takes_its_own_place_once() {
    let mut room = room(9, true);
    // Nothing is sent again, so only redundancy can bring it.
    room.world.clients[room.patient].repeats_sound = false;
    let left = room.residual((0.02, 0.0), 30);
    assert!(left[1] < 0.003, "{left:?}");
    let restored = room.world.core.counters().red_restored;
    assert!((15..=60).contains(&restored), "{restored} of 1,700");
    let stream = room.world.clients[room.plain].stream_of(&room.voice).unwrap();
    assert_eq!(stream.repeated, 0);
    assert!(stream.missing().unwrap().len() <= 5);
    // The loss is no secret to the sender.
    let mut blocks = room.world.clients[room.patient].reported.iter().rev();
    let (_, last) = blocks.find(|(_, block)| block.ssrc == 1_000).unwrap();
    assert!(last.lost as u64 >= restored, "{last:?}");
}

#[test]
fn sound_without_redundancy_is_asked_for_and_made_redundant_by_us() {
    let mut room = room(4, false);
    let left = room.residual((0.0, 0.2), 30);
    assert!(left[0] < 0.006 && left[1] < 0.02, "{left:?}");
    let wrapped = |client: usize| {
        let stream = room.world.clients[client].stream_of(&room.voice).unwrap();
        stream.seen.values().rev().take(100).filter(|seen| seen.payload_type == RED).count()
    };
    assert_eq!((wrapped(room.reader), wrapped(room.plain)), (100, 0));
    let asked = room.world.core.counters().nack_out;
    let left = room.residual((0.2, 0.0), 30);
    assert!(left[1] < 0.12, "one answer of two is in time: {left:?}");
    assert!(room.world.core.counters().nack_out > asked + 100);
}

#[test]
fn without_loss_the_publishers_redundancy_passes_as_it_is() {
    let mut room = room(5, true);
    assert_eq!(room.residual((0.0, 0.0), 5), [0.0; 3]);
    let stream = room.world.clients[room.reader].stream_of(&room.voice).unwrap();
    assert!(stream.seen.values().skip(1).all(|seen| seen.payload.len() == 4 + 84 + 1 + 84));
    assert_eq!(room.world.core.counters().sounds_echoed, 0);
}

#[test]
fn redundancy_falls_when_the_loss_is_over() {
    let mut room = room(6, true);
    let copies = |room: &Room| {
        let stream = room.world.clients[room.reader].stream_of(&room.voice).unwrap();
        let last = stream.seen.values().next_back().unwrap();
        red::blocks(&last.payload).iter().flatten().count()
    };
    room.residual((0.0, 0.3), 2);
    assert_eq!(copies(&room), 3);
    room.residual((0.0, 0.0), 9);
    assert_eq!(copies(&room), 3, "not at once");
    room.residual((0.0, 0.0), 60);
    assert_eq!(copies(&room), 1, "what the publisher makes");
}

/// Encrypted end to end: nobody can take it apart, so nothing may be wrapped or restored; the same
/// datagram once more is no harm.
#[test]
fn encrypted_sound_is_never_wrapped() {
    let mut world = World::new(Crypto::Clear);
    world.delay = DELAY;
    let reader = world.join_as("reader", Default::default(), |client| {
        client.tells_arrivals = false;
        client.reads_red = true;
        client.receive_on(1, 0);
    });
    let patient = world.join("patient");
    world.run_ms(1_000);
    let source = Source::audio(world.now, "mic", "", 1_000);
    let mut announced = world.clients[patient].publish(source);
    announced.encryption = 1;
    announced.disable_red = false;
    world.request(patient, Request::AddTrack(Box::new(announced)));
    world.offer(patient);
    world.run_ms(500);
    let voice = world.clients[patient].published["mic"].sid.clone();
    world.loss = (0.1, 0.2);
    for _ in 0..10 {
        world.report_loss(reader, 51);
        world.run_ms(1_000);
    }
    let stream = world.clients[reader].stream_of(&voice).unwrap();
    assert!(stream.len() > 300 && stream.seen.values().all(|seen| seen.payload_type == OPUS));
    let counters = world.core.counters();
    assert_eq!(counters.red_restored, 0);
    assert!(counters.sounds_echoed > 500, "{counters:?}");
}

#[test]
fn a_sound_is_sent_again_twice_if_the_first_answer_is_lost() {
    let mut room = room(7, false);
    room.world.run_ms(500);
    let media = room.world.stream_ssrc(room.asker, &room.voice);
    let stream = room.world.clients[room.asker].stream_of(&room.voice).unwrap();
    let lost = *stream.seen.last_key_value().unwrap().0 as u16;
    let before = room.world.core.counters().rtx_out;
    // Three in a breath are one request, two a round trip later another.
    for (after, asks) in [(0, 3), (100, 2)] {
        room.world.run_ms(after);
        for _ in 0..asks {
            room.world.clients[room.asker]
                .send_rtcp(|out| rtcp::write_nack(out, 1, media, &[lost]));
        }
    }
    room.world.run_ms(30);
    assert_eq!(room.world.core.counters().rtx_out, before + 2);
}

/// Whatever lines do: no number is sealed twice (the world's witness sees to it), every sound comes
/// under its own time, and clocks never go back.
#[test]
fn no_number_means_two_sounds_under_any_seed() {
    for seed in 0..10u8 {
        let mut room = room(seed, seed % 3 != 0);
        room.world.line.jitter = Duration::from_millis(15 * u64::from(seed % 4));
        room.world.line.duplicates = 0.05 * f64::from(seed % 3);
        room.world.line.burst = f64::from(seed % 5);
        let loss = 0.04 * f64::from(seed);
        room.residual((loss, loss), 8);
        let counters = room.world.core.counters();
        assert_eq!(counters.red_restored > 0, seed % 3 != 0 && seed > 0, "seed {seed}");
    }
}
