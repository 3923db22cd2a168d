//! One direction of a link, in virtual time: rate, queue, delay, jitter, loss, outages.

use rand_chacha::rand_core::{Rng as _, SeedableRng as _};

use crate::core::Rng;

/// IP and UDP headers.
const HEADERS: usize = 28;

/// How packets get lost.
#[derive(Clone, Copy, Debug)]
pub(super) enum Loss {
    /// Each with the same chance.
    Random(f64),
    /// In runs: mean share, and mean length of a run.
    Runs(f64, f64),
}

/// What the link does to packets.
#[derive(Clone, Debug)]
pub(super) struct Profile {
    /// (from which second, bit/s)
    pub(super) rate: Vec<(f64, f64)>,
    pub(super) queue_ms: f64,
    pub(super) delay_ms: f64,
    /// Up to so much more, evenly; packets overtake each other if not `ordered`.
    pub(super) jitter_ms: f64,
    pub(super) ordered: bool,
    pub(super) loss: Loss,
    /// Nothing passes between these seconds.
    pub(super) outages: Vec<(f64, f64)>,
    /// Another flow on the same link, in bit/s, between these seconds.
    pub(super) other: Option<(f64, f64, f64)>,
}

impl Default for Profile {
    fn default() -> Self {
        Self {
            rate: vec![(0.0, 100e6)],
            queue_ms: 300.0,
            delay_ms: 20.0,
            jitter_ms: 0.0,
            ordered: true,
            loss: Loss::Random(0.0),
            outages: Vec::new(),
            other: None,
        }
    }
}

/// A link at work. Times are microseconds since its start.
#[derive(Debug)]
pub(super) struct Link {
    profile: Profile,
    rng: Rng,
    busy_until: f64,
    latest: f64,
    in_run: bool,
    other_us: f64,
    pub(super) dropped: u64,
}

impl Link {
    pub(super) fn new(profile: Profile, seed: u8) -> Self {
        let rng = Rng::from_seed([seed; 32]);
        Self {
            profile,
            rng,
            busy_until: 0.0,
            latest: 0.0,
            in_run: false,
            other_us: 0.0,
            dropped: 0,
        }
    }

    fn chance(&mut self) -> f64 {
        f64::from(self.rng.next_u32()) / (f64::from(u32::MAX) + 1.0)
    }

    pub(super) fn rate(&self, at_us: f64) -> f64 {
        let mut passed = self.profile.rate.iter().filter(|(from, _)| at_us >= from * 1e6);
        passed.next_back().map_or(1e9, |(_, bps)| *bps)
    }

    /// How long a packet would wait now, in milliseconds.
    pub(super) fn waiting_ms(&self, at_us: f64) -> f64 {
        (self.busy_until - at_us).max(0.0) / 1e3
    }

    fn loses(&mut self) -> bool {
        match self.profile.loss {
            Loss::Random(share) => self.chance() < share,
            Loss::Runs(share, length) => {
                let end = 1.0 / length;
                let begin = end * share / (1.0 - share);
                let turn = self.chance();
                self.in_run = if self.in_run { turn >= end } else { turn < begin };
                self.in_run
            }
        }
    }

    fn others(&mut self, at_us: f64) {
        let Some((bps, from, to)) = self.profile.other else { return };
        self.other_us = self.other_us.max(from * 1e6);
        let gap = 1_228.0 * 8e6 / bps;
        while self.other_us < at_us && self.other_us < to * 1e6 {
            let at = self.other_us;
            if self.waiting_ms(at) < self.profile.queue_ms {
                self.busy_until = self.busy_until.max(at) + 1_228.0 * 8e6 / self.rate(at);
            }
            self.other_us += gap;
        }
    }

    /// A packet enters; when it leaves, if it does.
    pub(super) fn pass(&mut self, at_us: f64, bytes: usize) -> Option<f64> {
        self.others(at_us);
        let lost = self.loses();
        let out =
            self.profile.outages.iter().any(|(from, to)| (from * 1e6..to * 1e6).contains(&at_us));
        if lost || out || self.waiting_ms(at_us) > self.profile.queue_ms {
            self.dropped += 1;
            return None;
        }
        let takes = (bytes + HEADERS) as f64 * 8e6 / self.rate(at_us);
        self.busy_until = self.busy_until.max(at_us) + takes;
        let jitter = self.chance() * self.profile.jitter_ms * 1e3;
        let mut arrival = self.busy_until + self.profile.delay_ms * 1e3 + jitter;
        if self.profile.ordered {
            arrival = arrival.max(self.latest);
            self.latest = arrival;
        }
        Some(arrival)
    }
}
