//! Sound on lines that lose packets, both ways: what is left of the loss at the play-out.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use bedside_sfu::core::api::TrackSid;
use bedside_sfu::core::peer::Crypto;
use bedside_sfu::core::red;

use crate::client::{Seen, Stream};
use crate::forwarding::publish;
use crate::source::{OPUS, RED, Source};
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
            client.reads_red = reads_red;
            client.asks_again = asks_again;
            client.receive_on(1, 0);
        })
    };
    let (reader, plain, asker) =
        (join("reader", true, false), join("plain", false, false), join("asker", false, true));
    let patient = world.join_as("patient", Default::default(), |client| {
        client.repeats_sound = true;
    });
    world.run_ms(1_000);
    let mut source = Source::audio(world.now, "mic", "", 1_000);
    source.red = red;
    let voice = publish(&mut world, patient, source);
    world.run_ms(1_000);
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

#[test]
fn sound_survives_loss() {
    for burst in [1.0, 3.0] {
        for loss in [0.05, 0.1, 0.2, 0.3] {
            for (up, down) in [(1.0, 0.0), (0.0, 1.0), (1.0, 1.0)] {
                let mut room = room(3, true);
                room.world.line.burst = burst;
                let left = room.residual((loss * up, loss * down), 60);
                let left = left.map(|share| share * 100.0);
                eprintln!("burst {burst} loss {loss} up {up} down {down}: {left:.2?}");
            }
        }
    }
}
