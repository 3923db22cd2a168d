//! How much one client may say: a token bucket for frames, strikes for bad ones.
//!
//! Pure: time is an argument.

use std::time::{Duration, Instant};

/// Frames a second that a client may send for ever.
const SUSTAINED: f64 = 50.0;
/// Frames that it may send at once.
const BURST: f64 = 200.0;
/// Bad frames within [`WINDOW`] that end a channel.
const MAX_STRIKES: u32 = 3;
/// Dropped frames within [`WINDOW`] that end a channel.
const MAX_DROPPED: u32 = 1_000;
const WINDOW: Duration = Duration::from_secs(10);

/// What to do with a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Take it.
    Take,
    /// Refuse it and say so.
    Refuse,
    /// Refuse it in silence: it was said a moment ago.
    Drop,
    /// The client is hostile: end the channel.
    End,
}

/// One client's allowance.
pub(super) struct Allowance {
    frames: f64,
    filled: Instant,
    told: Option<Instant>,
    strikes: Window,
    dropped: Window,
}

impl Allowance {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            frames: BURST,
            filled: now,
            told: None,
            strikes: Window::new(now),
            dropped: Window::new(now),
        }
    }

    /// A frame came.
    pub(super) fn frame(&mut self, now: Instant) -> Verdict {
        let since = now.saturating_duration_since(self.filled).as_secs_f64();
        self.frames = SUSTAINED.mul_add(since, self.frames).min(BURST);
        self.filled = now;
        if self.frames >= 1.0 {
            self.frames -= 1.0;
            return Verdict::Take;
        }
        if self.dropped.count(now) > MAX_DROPPED {
            return Verdict::End;
        }
        let told = |at: Instant| now.saturating_duration_since(at) < Duration::from_secs(1);
        if self.told.is_some_and(told) {
            return Verdict::Drop;
        }
        self.told = Some(now);
        Verdict::Refuse
    }

    /// A frame was none of ours.
    pub(super) fn strike(&mut self, now: Instant) -> Verdict {
        if self.strikes.count(now) >= MAX_STRIKES { Verdict::End } else { Verdict::Refuse }
    }
}

/// Counts within a window of time.
struct Window {
    began: Instant,
    count: u32,
}

impl Window {
    const fn new(now: Instant) -> Self {
        Self { began: now, count: 0 }
    }

    fn count(&mut self, now: Instant) -> u32 {
        if now.saturating_duration_since(self.began) > WINDOW {
            *self = Self::new(now);
        }
        self.count = self.count.saturating_add(1);
        self.count
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_passes_and_then_the_sustained_rate() {
        let start = Instant::now();
        let mut allowance = Allowance::new(start);
        let taken = (0..1_000).filter(|_| allowance.frame(start) == Verdict::Take).count();
        assert_eq!(taken, 200);
        let mut allowance = Allowance::new(start);
        // Ten seconds at 49 frames a second: nothing is refused.
        for frame in 0..490u32 {
            let now = start + Duration::from_secs(10) * frame / 490;
            assert_eq!(allowance.frame(now), Verdict::Take);
        }
    }

    #[test]
    fn the_refusal_is_said_once_a_second_and_a_flood_ends_it() {
        let start = Instant::now();
        let mut allowance = Allowance::new(start);
        let verdicts: Vec<_> = (0..1_300).map(|_| allowance.frame(start)).collect();
        assert_eq!(verdicts.iter().filter(|v| **v == Verdict::Refuse).count(), 1);
        assert_eq!(verdicts.iter().filter(|v| **v == Verdict::Drop).count(), 999);
        assert_eq!(verdicts.last(), Some(&Verdict::End));
    }

    #[test]
    fn three_strikes_in_ten_seconds_end_it() {
        let start = Instant::now();
        let mut allowance = Allowance::new(start);
        assert_eq!(allowance.strike(start), Verdict::Refuse);
        assert_eq!(allowance.strike(start), Verdict::Refuse);
        assert_eq!(allowance.strike(start + Duration::from_secs(9)), Verdict::End);
        let mut allowance = Allowance::new(start);
        for strike in 0..20 {
            assert_eq!(allowance.strike(start + Duration::from_secs(6) * strike), Verdict::Refuse);
        }
    }
}
