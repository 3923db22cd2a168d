//! The play-out of one audio track as a browser would do it, without the sound: which samples are
//! there when they are due, which have to be made up, and how long everything waits.
//!
//! The model follows libwebrtc's NetEq in steps of 10 ms. A packet counts when it is there before
//! its turn, whether it came directly, in a later packet's redundancy or by repair. Speech is played
//! a little faster when more is held than wanted ([`Delays`]), and a little slower when less. When
//! the next packet is not there it is concealed; once a later one is there and the gap is filled, or
//! more is held than wanted, play-out goes on from that. Concealment fades to silence.
//!
//! Time passes when packets come or counts are read, so the model needs no timer.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::delays::Delays;
use crate::stats::AudioPlayout;

/// One step.
const TICK: Duration = Duration::from_millis(10);
/// Samples in a step.
const STEP: u64 = 480;
/// Samples in a millisecond.
const PER_MS: u64 = 48;
/// Packets held at the most, as in NetEq.
const MAX_HELD: usize = 200;
/// Steps between two changes of speed.
const STRETCH_REST: u32 = 5;
/// Steps after which a gap is not waited for any more, and after which concealment is silence.
const MAX_WAIT: u32 = 10;
const FADED: u32 = 15;
/// After concealment that was heard, play-out starts again at this share of the target only.
const RESTART_SHARE: u64 = 2;
const AUDIBLE_GAP: u32 = 7;
/// Queueing delays are counted in buckets of 10 ms, up to two seconds.
const QUEUE_BUCKETS: usize = 200;

/// How a packet came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    /// By itself, in its turn or a little later.
    Direct,
    /// In the redundancy of a later packet.
    Redundant,
    /// Sent again because it was asked for.
    Repaired,
}

#[derive(Clone, Copy, Debug)]
struct Held {
    samples: u64,
    arrived: Instant,
    origin: Origin,
    begun: bool,
}

/// The play-out of one track.
#[derive(Debug)]
pub(crate) struct Playout {
    /// By media time in samples, unwrapped.
    held: BTreeMap<u64, Held>,
    newest: Option<u64>,
    /// The next sample to play.
    next: u64,
    /// When the next step is due.
    clock: Option<Instant>,
    delays: Delays,
    /// Smoothed samples held.
    level: f64,
    since_stretch: u32,
    /// Steps of the concealment under way.
    concealing: u32,
    queue: Box<[u32]>,
    delay_sum: Duration,
    begun: u32,
    totals: AudioPlayout,
}

impl Playout {
    pub(crate) fn new(now: Instant) -> Self {
        Self {
            held: BTreeMap::new(),
            newest: None,
            next: 0,
            clock: None,
            delays: Delays::new(now),
            level: 0.0,
            since_stretch: 0,
            concealing: 0,
            queue: vec![0; QUEUE_BUCKETS].into_boxed_slice(),
            delay_sum: Duration::ZERO,
            begun: 0,
            totals: AudioPlayout::default(),
        }
    }

    /// Takes the audio of one packet.
    pub(crate) fn insert(&mut self, now: Instant, timestamp: u32, samples: u64, origin: Origin) {
        self.advance(now);
        let (media, in_order) = self.unwrap(timestamp);
        if origin != Origin::Redundant {
            let in_order = in_order && origin == Origin::Direct;
            let since = Duration::from_micros(media * 1000 / PER_MS);
            let late = self.delays.arrived(now, since, in_order);
            let bucket = (late.as_millis() / 10) as usize;
            if in_order && let Some(count) = self.queue.get_mut(bucket.min(QUEUE_BUCKETS - 1)) {
                *count += 1;
            }
        }
        if self.clock.is_none() {
            self.clock = Some(now);
            self.next = media;
        }
        if media + samples <= self.next {
            // Redundancy of what was played is no news.
            self.totals.late += u64::from(origin != Origin::Redundant);
            return;
        }
        let held = Held { samples, arrived: now, origin, begun: false };
        self.held.entry(media).or_insert(held);
        if self.held.len() > MAX_HELD {
            self.held.pop_first();
            self.next = self.held.keys().next().copied().unwrap_or(self.next).max(self.next);
        }
    }

    /// Media time without wraps, and whether it is the newest.
    fn unwrap(&mut self, timestamp: u32) -> (u64, bool) {
        // One cycle up, so that an earlier packet has a time, too.
        let Some(newest) = self.newest else {
            let media = (1 << 32) + u64::from(timestamp);
            self.newest = Some(media);
            return (media, true);
        };
        let distance = timestamp.wrapping_sub(newest as u32) as i32;
        let media = newest.saturating_add_signed(i64::from(distance));
        self.newest = Some(newest.max(media));
        (media, media >= newest)
    }

    /// Plays everything that is due by `now`.
    pub(crate) fn advance(&mut self, now: Instant) {
        while let Some(at) = self.clock.filter(|at| *at <= now) {
            self.clock = Some(at + TICK);
            self.step(at);
        }
    }

    /// How long sound waits now, and has to wait at least.
    pub(crate) fn delay(&mut self, least: Duration) -> Duration {
        self.delays.set_least(least);
        self.delays.target()
    }

    /// Time until a sample is played that lies `back` samples before the newest packet.
    pub(crate) fn time_to_play(&self, back: u64) -> Duration {
        let media = self.newest.unwrap_or(0).saturating_sub(back);
        Duration::from_micros(media.saturating_sub(self.next) * 1000 / PER_MS)
    }

    fn step(&mut self, at: Instant) {
        self.totals.played += TICK;
        self.since_stretch = self.since_stretch.saturating_add(1);
        while let Some((media, held)) = self.held.first_key_value()
            && media + held.samples <= self.next
        {
            self.held.pop_first();
        }
        // Of a packet that is being played, what is left of it.
        let left = |(media, held): (&u64, &Held)| media + held.samples - (*media).max(self.next);
        let held: u64 = self.held.iter().map(left).sum();
        let keep = match self.delays.target().as_millis() {
            0..=20 => 251.0,
            21..=60 => 252.0,
            61..=140 => 253.0,
            _ => 254.0,
        } / 256.0;
        self.level = self.level * keep + held as f64 * (1.0 - keep);
        let first = self.held.first_key_value().map(|(media, _)| *media);
        match first {
            Some(media) if media <= self.next && !self.waits_for_more(held) => self.play(at),
            Some(media) if media > self.next && self.goes_on_from(media, held) => {
                self.next = media;
                self.play(at);
            }
            Some(_) | None => self.conceal(),
        }
    }

    /// After a long gap a little is collected first, or the next gap would follow at once.
    fn waits_for_more(&self, held: u64) -> bool {
        (AUDIBLE_GAP..AUDIBLE_GAP + MAX_WAIT).contains(&self.concealing)
            && held < self.target() / RESTART_SHARE
    }

    /// Whether the gap before a later packet is over.
    fn goes_on_from(&self, media: u64, held: u64) -> bool {
        let filled = media - self.next <= u64::from(self.concealing) * STEP;
        let begun = self.concealing > 0;
        begun && (filled || self.concealing >= MAX_WAIT || held >= self.target())
    }

    fn target(&self) -> u64 {
        self.delays.target().as_millis() as u64 * PER_MS
    }

    fn conceal(&mut self) {
        self.concealing += 1;
        if self.concealing > FADED {
            self.totals.silent += TICK;
        } else {
            self.totals.concealed += TICK;
        }
    }

    fn play(&mut self, at: Instant) {
        self.concealing = 0;
        self.begin(at);
        let target = self.target() as f64;
        let low = (target * 0.75).max(target - (85 * PER_MS) as f64);
        let high = target.max(low + (20 * PER_MS) as f64);
        let rested = self.since_stretch >= STRETCH_REST;
        if (self.level >= high * 4.0 || rested && self.level >= high) && self.covers(STEP) {
            self.since_stretch = 0;
            self.level -= STEP as f64;
            self.totals.removed += TICK;
            self.next += STEP;
            self.begin(at);
        } else if rested && self.level < low {
            self.since_stretch = 0;
            self.level += STEP as f64;
            self.totals.inserted += TICK;
            return;
        }
        self.next += STEP;
    }

    fn covering(&self, media: u64) -> Option<u64> {
        let (start, held) = self.held.range(..=media).next_back()?;
        (start + held.samples > media).then_some(*start)
    }

    fn covers(&self, ahead: u64) -> bool {
        self.covering(self.next + ahead).is_some()
    }

    /// Counts the packet that is being played, once.
    fn begin(&mut self, at: Instant) {
        let Some(start) = self.covering(self.next) else { return };
        let Some(held) = self.held.get_mut(&start).filter(|held| !held.begun) else { return };
        held.begun = true;
        let delay = at.saturating_duration_since(held.arrived);
        self.delay_sum += delay;
        self.begun += 1;
        self.totals.longest_delay = self.totals.longest_delay.max(delay);
        match held.origin {
            Origin::Direct => {}
            Origin::Redundant => self.totals.from_redundancy += 1,
            Origin::Repaired => self.totals.from_repair += 1,
        }
    }

    /// What has been played until now.
    pub(crate) fn totals(&self) -> AudioPlayout {
        let packets: u32 = self.queue.iter().sum();
        let mut sum = 0;
        let most = |count: &u32| {
            sum += count;
            u64::from(sum) * 100 >= u64::from(packets) * 95
        };
        let bucket = self.queue.iter().position(most).unwrap_or(0);
        AudioPlayout {
            packets: u64::from(self.begun),
            waited: self.delay_sum,
            target: self.delays.target(),
            queue_p95: Duration::from_millis(bucket as u64 * 10),
            ..self.totals.clone()
        }
    }
}

/// Samples in an Opus packet at 48 kHz (RFC 6716 §3.1, §3.2); nothing in an empty one.
pub(crate) fn opus_samples(packet: &[u8]) -> u64 {
    let Some((&first, rest)) = packet.split_first() else { return 0 };
    let configuration = first >> 3;
    let frame = match (configuration, configuration & 3) {
        (0..12, size @ 0..3) => 480 << size,
        (0..12, _) => 2880,
        (12..16, size) => 480 << (size & 1),
        (_, size) => 120 << size,
    };
    let frames = match first & 3 {
        0 => 1,
        1 | 2 => 2,
        _ => u64::from(rest.first().map_or(0, |count| count & 0x3F)),
    };
    // RFC 6716 §3.4: never more than 120 ms.
    (frame * frames).min(5760)
}

#[cfg(test)]
#[path = "playout_tests.rs"]
mod tests;
