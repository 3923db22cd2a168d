//! How full the way from a publisher is, and what it may send while it is too full.
//!
//! A sender's own estimate follows a queue that grows. One that has grown to its end only loses, and
//! senders take that for a bad radio link: sound stays half a second late for as long as the call
//! lasts. We see that queue: sounds are made by an even clock, so how much later they come than the
//! earliest did is what they waited. While they wait for long, the publisher is told to send less
//! (REMB, which senders obey as an upper bound beside their own estimate).

use std::time::{Duration, Instant};

/// What is looked at together.
const WINDOW: Duration = Duration::from_millis(500);
/// With fewer sounds in a window nothing is known.
const SOUNDS: u32 = 5;
/// When even the earliest sound of a window has waited for so long, a queue stands.
const STANDING_US: i64 = 120_000;
/// And now it is gone.
const CLEAR_US: i64 = 40_000;
/// A queue that falls by so much in a window is being drained.
const DRAINING_US: i64 = 25_000;
/// What is told needs so long to take effect.
const EFFECT: Duration = Duration::from_secs(1);
/// The earliest sounds are remembered for one to two times this: clocks drift.
const MEMORY: Duration = Duration::from_secs(30);
/// A clock that jumps by more has been started anew.
const JUMP_US: i64 = 2_000_000;
/// What a cut leaves.
const CUT: f64 = 0.7;
/// After so many cuts without any effect it is no queue: a clock has lost time, or the way is longer.
const VAIN: u8 = 5;
/// Nobody is told to send less than this.
const FLOOR_BPS: u64 = 60_000;
/// Below this share of where the queue began the bound rises fast, then ever faster from slow.
const NEAR: f64 = 0.85;
const FAST: f64 = 1.15;
const STEP: f64 = 0.01;
const STEPS: u32 = 15;
/// Above this share of where the queue began there is no bound any more.
const FREE: f64 = 1.5;
/// How that is said, and how often, as it may be lost.
const UNBOUND_BPS: u64 = 1_000_000_000;
const FAREWELLS: u8 = 3;

/// The way from one publisher.
#[derive(Debug, Default)]
pub(super) struct Uplink {
    clock: Option<Clock>,
    /// Least delay of the current and the last stretch of memory.
    base: (Option<i64>, Option<i64>),
    turned: Option<Instant>,
    window: Option<Instant>,
    least: Option<i64>,
    sounds: u32,
    bytes: u64,
    queue_us: i64,
    bound: Option<Bound>,
    farewells: u8,
}

/// A publisher's media clock against ours.
#[derive(Debug)]
struct Clock {
    start: Instant,
    last: u32,
    ticks: i64,
    ssrc: u32,
}

/// What the publisher is held to.
#[derive(Debug)]
struct Bound {
    bps: f64,
    /// Where the queue began.
    knee: f64,
    cut_at: Instant,
    /// Cuts in a row after which the queue did not fall.
    vain: u8,
    /// Windows in a row without a queue.
    clear: u32,
}

impl Uplink {
    /// A packet came.
    pub(super) const fn came(&mut self, bytes: usize) {
        self.bytes += bytes as u64;
    }

    /// A sound came, made at `timestamp` of its stream's clock.
    pub(super) fn heard(&mut self, now: Instant, ssrc: u32, timestamp: u32, rate: u32) {
        let fresh = || Clock { start: now, last: timestamp, ticks: 0, ssrc };
        let base = self.base();
        let clock = self.clock.get_or_insert_with(fresh);
        if clock.ssrc != ssrc {
            *clock = fresh();
            (self.base, self.least) = ((None, None), None);
        }
        clock.ticks += i64::from(timestamp.wrapping_sub(clock.last) as i32);
        clock.last = timestamp;
        let passed = now.saturating_duration_since(clock.start).as_micros() as i64;
        let delay = passed - clock.ticks * 1_000_000 / i64::from(rate.max(1));
        if base.is_some_and(|base| (delay - base).abs() > JUMP_US) {
            *clock = fresh();
            (self.base, self.least) = ((Some(0), None), None);
            return;
        }
        self.sounds += 1;
        self.least = Some(self.least.map_or(delay, |least| least.min(delay)));
        self.base.0 = Some(self.base.0.map_or(delay, |base| base.min(delay)));
    }

    fn base(&self) -> Option<i64> {
        self.base.0.into_iter().chain(self.base.1).min()
    }

    /// Looks at what came. Returns what the publisher is to be told, in bits per second.
    pub(super) fn review(&mut self, now: Instant) -> Option<u64> {
        let passed = now.saturating_duration_since(*self.window.get_or_insert(now));
        if passed < WINDOW {
            return None;
        }
        let turned = *self.turned.get_or_insert(now);
        let rate = self.bytes as f64 * 8.0 / passed.as_secs_f64();
        let (least, sounds) = (self.least.take(), std::mem::take(&mut self.sounds));
        (self.window, self.bytes) = (Some(now), 0);
        if let Some((least, base)) = least.zip(self.base()).filter(|_| sounds >= SOUNDS) {
            let before = std::mem::replace(&mut self.queue_us, least - base);
            self.judge(now, rate, before);
        }
        if now.saturating_duration_since(turned) >= MEMORY {
            self.base = (None, self.base.0);
            self.turned = Some(now);
        }
        if let Some(bound) = &self.bound {
            return Some(bound.bps as u64);
        }
        self.farewells = self.farewells.checked_sub(1)?;
        Some(UNBOUND_BPS)
    }

    fn judge(&mut self, now: Instant, rate: f64, before: i64) {
        let queue = self.queue_us;
        let settled = |bound: &Bound| now.saturating_duration_since(bound.cut_at) >= EFFECT;
        if queue > STANDING_US {
            if before - queue > DRAINING_US {
                if let Some(bound) = &mut self.bound {
                    bound.vain = 0;
                }
                return;
            }
            if self.bound.as_ref().is_some_and(|bound| !settled(bound)) {
                return;
            }
            let vain = self.bound.as_ref().map_or(0, |bound| bound.vain + 1);
            if vain >= VAIN {
                (self.base, self.bound) = ((None, None), None);
                self.farewells = FAREWELLS;
                return;
            }
            let knee = self.bound.as_ref().map_or(rate, |bound| bound.bps.min(rate));
            let bps = (knee * CUT).max(FLOOR_BPS as f64);
            self.bound = Some(Bound { bps, knee, cut_at: now, vain, clear: 0 });
            return;
        }
        let Some(bound) = self.bound.as_mut().filter(|bound| settled(bound)) else { return };
        if queue > CLEAR_US {
            bound.clear = 0;
            return;
        }
        bound.clear = (bound.clear + 1).min(STEPS);
        let slow = 1.0 + STEP * f64::from(bound.clear);
        bound.bps *= if bound.bps < bound.knee * NEAR { FAST } else { slow };
        if bound.bps > bound.knee * FREE {
            (self.bound, self.farewells) = (None, FAREWELLS);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    /// A publisher behind a narrow link with a queue of half a second, which obeys.
    struct Line {
        uplink: Uplink,
        now: Instant,
        ms: u64,
        queue_bits: f64,
        /// What the sender would send.
        wish_bps: f64,
        told_bps: Option<u64>,
        /// What its clock lacks, in milliseconds.
        skew: u64,
    }

    impl Line {
        fn new(wish_bps: f64) -> Self {
            let (uplink, now) = (Uplink::default(), Instant::now());
            Self { uplink, now, ms: 0, queue_bits: 0.0, wish_bps, told_bps: None, skew: 0 }
        }

        /// Seconds pass. Returns the queue at the end, in milliseconds.
        fn pass(&mut self, seconds: u64, rate_bps: f64) -> f64 {
            for _ in 0..seconds * 50 {
                self.ms += 20;
                let told = self.told_bps.map_or(f64::MAX, |bps| bps as f64);
                let sent = self.wish_bps.min(told) * 0.02;
                let room = rate_bps * 0.5;
                self.queue_bits = (self.queue_bits + sent - rate_bps * 0.02).clamp(0.0, room);
                let waits = Duration::from_secs_f64(self.queue_bits / rate_bps);
                let came = self.now + MS * self.ms as u32 + waits;
                self.uplink.heard(came, 1, ((self.ms - self.skew) * 48) as u32, 48_000);
                self.uplink.came((sent.min(rate_bps * 0.02) / 8.0) as usize);
                if let Some(bps) = self.uplink.review(self.now + MS * self.ms as u32) {
                    self.told_bps = Some(bps);
                }
            }
            self.queue_bits / rate_bps * 1000.0
        }
    }

    #[test]
    fn a_wide_link_is_left_alone() {
        let mut line = Line::new(500_000.0);
        assert!(line.pass(120, 2e6) < 1.0);
        assert_eq!(line.told_bps, None);
    }

    #[test]
    fn a_standing_queue_is_drained_and_stays_short() {
        let mut line = Line::new(500_000.0);
        line.pass(5, 2e6);
        assert!(line.pass(10, 200_000.0) < 150.0);
        let queues: Vec<f64> = (0..30).map(|_| line.pass(1, 200_000.0)).collect();
        let mean = queues.iter().sum::<f64>() / 30.0;
        assert!(mean < 120.0, "{mean}: {queues:?}");
        assert!(line.told_bps.is_some_and(|bps| bps >= FLOOR_BPS));
    }

    #[test]
    fn it_ends_when_there_is_room_again() {
        let mut line = Line::new(500_000.0);
        line.pass(5, 2e6);
        line.pass(20, 300_000.0);
        line.pass(12, 2e6);
        assert_eq!(line.told_bps, Some(UNBOUND_BPS));
        line.told_bps = None;
        line.pass(60, 2e6);
        assert_eq!(line.told_bps, None, "said often enough");
    }

    #[test]
    fn clocks_that_jump_or_drift_are_no_queue() {
        let (mut uplink, start) = (Uplink::default(), Instant::now());
        for n in 0..20_000u32 {
            let now = start + MS * n * 20;
            // 100 parts in a million slow, and another clock in the middle.
            let ticks = (f64::from(n) * 959.9) as u32;
            let timestamp = if n < 10_000 { ticks } else { ticks.wrapping_sub(0x4000_0000) };
            uplink.heard(now, 1, timestamp, 48_000);
            assert_eq!(uplink.review(now), None, "{n}");
        }
        uplink.heard(start + MS * 400_000, 2, 77, 0);
    }

    #[test]
    fn a_clock_that_loses_time_holds_nobody_down_for_long() {
        let mut line = Line::new(500_000.0);
        line.pass(5, 2e6);
        // The microphone pauses for a second, its clock with it.
        line.skew += 1_000;
        line.pass(8, 2e6);
        assert_eq!(line.told_bps, Some(UNBOUND_BPS));
        line.told_bps = None;
        line.pass(60, 2e6);
        assert_eq!(line.told_bps, None);
    }

    #[test]
    fn silence_tells_nothing() {
        let (mut uplink, start) = (Uplink::default(), Instant::now());
        (0..10).for_each(|n| uplink.heard(start + MS * n * 20, 1, n * 960, 48_000));
        uplink.review(start);
        for n in 1..100u32 {
            // Comfort noise, late.
            uplink.heard(start + MS * (n * 400 + 300), 1, n * 19_200, 48_000);
            assert_eq!(uplink.review(start + MS * n * 500), None);
        }
    }
}
