//! A sender that obeys the estimator: a voice that leaves at once, pictures on one of three rungs
//! that wait for the pacer, and probes; and the receiver that tells what arrived.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use rand_chacha::rand_core::{Rng as _, SeedableRng as _};

use super::link::{Link, Profile};
use crate::core::Rng;
use crate::core::bwe::{Cargo, Estimator, Probe};
use crate::core::twcc::Recorder;

/// The clock's step.
const STEP_US: u64 = 500;
/// Voice: 100 bytes each 20 ms.
const VOICE_BYTES: usize = 100;
pub(super) const VOICE_BPS: u64 = 40_000;
/// What the pictures cost.
const RUNGS: [u64; 3] = [150_000, 500_000, 1_700_000];
const FRAME_US: u64 = 50_000;

/// What a run is made of, besides the link.
#[derive(Clone, Debug)]
pub(super) struct Setup {
    pub(super) seconds: f64,
    pub(super) start_bps: u64,
    pub(super) feedback_us: u64,
    pub(super) feedback_loss: f64,
    /// The way back takes so long.
    pub(super) back_ms: f64,
    /// Rungs there are, and from which second on pictures are sent.
    pub(super) rungs: usize,
    pub(super) pictures_from: f64,
    /// The pictures cost whatever may be spent, as an encoder's of its own do.
    pub(super) elastic: bool,
    pub(super) seed: u8,
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            seconds: 30.0,
            start_bps: 300_000,
            feedback_us: 50_000,
            feedback_loss: 0.0,
            back_ms: 20.0,
            rungs: 3,
            pictures_from: 0.0,
            elastic: false,
            seed: 1,
        }
    }
}

/// How it was, each 100 ms.
#[derive(Clone, Copy, Debug)]
pub(super) struct Moment {
    pub(super) second: f64,
    pub(super) target: f64,
    /// Longest wait in the link's queue.
    pub(super) queue_ms: f64,
    /// Arrived, all told, and pictures alone.
    pub(super) arrived_bps: f64,
    pub(super) sent_bps: f64,
    pub(super) rung: Option<usize>,
}

struct Run {
    now_us: u64,
    start: Instant,
    setup: Setup,
    estimator: Estimator,
    link: Link,
    rng: Rng,
    recorder: Recorder,
    /// Transport-wide numbers and messages on their way, by arrival.
    under_way: BTreeMap<(u64, u64), (u16, usize)>,
    messages: BTreeMap<(u64, u64), Vec<u8>>,
    serial: u64,
    queue: VecDeque<usize>,
    paced_us: f64,
    probe: Option<(Probe, u32, usize, f64)>,
    rung: Option<usize>,
    key: bool,
    sent: usize,
    arrived: usize,
}

/// Runs the loop.
pub(super) fn run(profile: Profile, setup: Setup) -> Vec<Moment> {
    let start = Instant::now();
    let mut run = Run {
        now_us: 0,
        start,
        estimator: Estimator::new(start, setup.start_bps),
        link: Link::new(profile, setup.seed),
        rng: Rng::from_seed([setup.seed.wrapping_add(100); 32]),
        recorder: Recorder::new(start),
        setup,
        under_way: BTreeMap::new(),
        messages: BTreeMap::new(),
        serial: 0,
        queue: VecDeque::new(),
        paced_us: 0.0,
        probe: None,
        rung: None,
        key: false,
        sent: 0,
        arrived: 0,
    };
    let mut moments = Vec::new();
    let mut queue_ms = 0.0_f64;
    while (run.now_us as f64) < run.setup.seconds * 1e6 {
        run.step();
        queue_ms = queue_ms.max(run.link.waiting_ms(run.now_us as f64));
        run.now_us += STEP_US;
        if run.now_us.is_multiple_of(100_000) {
            moments.push(Moment {
                second: run.now_us as f64 / 1e6,
                target: run.estimator.target_bps() as f64,
                queue_ms,
                arrived_bps: run.arrived as f64 * 80.0,
                sent_bps: run.sent as f64 * 80.0,
                rung: run.rung,
            });
            (run.sent, run.arrived, queue_ms) = (0, 0, 0.0);
        }
    }
    moments
}

impl Run {
    fn now(&self) -> Instant {
        self.start + Duration::from_micros(self.now_us)
    }

    fn step(&mut self) {
        self.receive();
        if self.now_us.is_multiple_of(20_000) {
            self.send(VOICE_BYTES, Cargo::Media, None);
        }
        if self.now_us.is_multiple_of(50_000) {
            self.allocate();
        }
        if self.now_us % FRAME_US == 10_000
            && self.now_us as f64 >= self.setup.pictures_from * 1e6
            && let Some(rung) = self.rung
        {
            self.picture(self.cost(rung));
        }
        if self.estimator.poll_timeout().is_some_and(|due| due <= self.now()) {
            self.estimator.handle_timeout(self.now());
        }
        if self.probe.is_none() {
            let probe = self.estimator.poll_probe(self.now());
            self.probe = probe.map(|probe| (probe, 0, 0, self.now_us as f64));
        }
        self.pace();
    }

    fn cost(&self, rung: usize) -> u64 {
        let spare = self.estimator.target_bps().saturating_sub(VOICE_BPS);
        if self.setup.elastic { spare.min(RUNGS[2]) } else { RUNGS[rung] }
    }

    fn picture(&mut self, bps: u64) {
        let mean = bps as f64 * FRAME_US as f64 / 8e6;
        let spread = 0.8 + 0.4 * f64::from(self.rng.next_u32()) / f64::from(u32::MAX);
        let size = mean * spread * if std::mem::take(&mut self.key) { 4.0 } else { 1.0 };
        let packets = (size / 1_150.0).ceil() as usize;
        for _ in 0..packets {
            self.queue.push_back((size / packets as f64) as usize);
        }
        // What waits too long is of no use.
        while self.queue.len() > 400 {
            self.queue.pop_front();
        }
    }

    fn pace(&mut self) {
        let now = self.now_us as f64;
        while let Some((probe, packets, bytes, due)) = self.probe
            && due <= now
        {
            let queued = self.queue.pop_front();
            let size = queued.unwrap_or_else(|| (probe.bytes / 5).clamp(150, 1_100));
            let cargo = if queued.is_some() { Cargo::Media } else { Cargo::Padding };
            self.send(size, cargo, Some(probe.id));
            let (packets, bytes) = (packets + 1, bytes + size);
            let due = due + size as f64 * 8e6 / probe.bps as f64;
            let complete = packets >= probe.packets && bytes >= probe.bytes;
            self.probe = (!complete).then_some((probe, packets, bytes, due));
        }
        if self.probe.is_some() {
            return;
        }
        self.paced_us = self.paced_us.max(now - 5_000.0);
        while self.paced_us <= now
            && let Some(size) = self.queue.pop_front()
        {
            self.send(size, Cargo::Media, None);
            self.paced_us += size as f64 * 8e6 / self.estimator.pacing_bps() as f64;
        }
    }

    fn send(&mut self, bytes: usize, cargo: Cargo, probe: Option<u32>) {
        let number = self.estimator.sent(self.now(), bytes, cargo, probe);
        self.sent += bytes;
        if let Some(arrival) = self.link.pass(self.now_us as f64, bytes) {
            self.serial += 1;
            self.under_way.insert((arrival as u64, self.serial), (number, bytes));
        }
    }

    fn receive(&mut self) {
        while let Some(first) = self.under_way.first_entry()
            && first.key().0 <= self.now_us
        {
            let ((at, _), (number, bytes)) = first.remove_entry();
            // The receiver's clock is its own.
            self.recorder.record(number, self.start + Duration::from_micros(at + 3_000_000));
            self.arrived += bytes;
        }
        if self.now_us.is_multiple_of(self.setup.feedback_us) {
            let mut packet = Vec::new();
            while self.recorder.write(&mut packet, 1, 2) {
                let message = std::mem::take(&mut packet);
                let lost = f64::from(self.rng.next_u32()) / f64::from(u32::MAX);
                if lost >= self.setup.feedback_loss {
                    let at = self.now_us + (self.setup.back_ms * 1e3) as u64;
                    self.serial += 1;
                    self.messages.insert((at, self.serial), message);
                }
            }
        }
        while let Some(first) = self.messages.first_entry()
            && first.key().0 <= self.now_us
        {
            let message = first.remove();
            self.estimator.feedback(self.now(), &message);
        }
    }

    /// The highest rung that fits; a higher one than now only with room to spare.
    fn allocate(&mut self) {
        let rungs =
            if self.now_us as f64 >= self.setup.pictures_from * 1e6 { self.setup.rungs } else { 0 };
        let target = self.estimator.target_bps() as f64;
        let fits = |at: usize| {
            if self.setup.elastic {
                return target > 60e3;
            }
            let cost = (VOICE_BPS + RUNGS[at]) as f64;
            target >= cost * if self.rung.is_none_or(|now| at > now) { 1.05 } else { 0.97 }
        };
        let rung = (0..rungs).rev().find(|at| fits(*at));
        if rung != self.rung && self.setup.elastic {
            self.rung = rung;
        } else if rung != self.rung {
            self.key = true;
            self.queue.clear();
            self.rung = rung;
        }
        let cost = |at: Option<usize>| VOICE_BPS + at.map_or(0, |at| RUNGS[at]);
        let most = cost(rungs.checked_sub(1));
        self.estimator.needs(self.now(), cost(rung), most);
    }
}
