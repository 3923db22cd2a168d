//! How much one client may say: a token bucket for frames, strikes for bad ones.
//!
//! Pure: time is an argument.

use std::time::{Duration, Instant};

/// Messages a second that a person may send for ever.
const SUSTAINED: f64 = 50.0;
/// Messages that it may send at once; other frames twice as many of both.
const BURST: f64 = 200.0;
/// Bad frames within [`WINDOW`] that end a channel.
const MAX_STRIKES: u32 = 3;
/// Dropped frames within [`WINDOW`] that end a channel.
const MAX_DROPPED: u32 = 1_000;
const WINDOW: Duration = Duration::from_secs(10);

/// What to do with a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Take it.
    Take,
    /// Refuse it and say so.
    Refuse,
    /// Refuse it in silence: it was said a moment ago.
    Drop,
    /// The client is hostile: end the channel.
    End,
}

/// What may be spent: it fills by a rate, up to what may be spent at once.
#[derive(Debug)]
pub(crate) struct Bucket {
    left: f64,
    filled: Instant,
    /// How many such shares it has.
    shares: f64,
}

impl Bucket {
    /// What one person may write.
    pub(crate) const fn new(now: Instant) -> Self {
        Self::of(1.0, now)
    }

    const fn of(shares: f64, now: Instant) -> Self {
        Self { left: BURST * shares, filled: now, shares }
    }

    /// Takes one; `false` = nothing is left.
    pub(crate) fn take(&mut self, now: Instant) -> bool {
        let since = now.saturating_duration_since(self.filled).as_secs_f64();
        let most = BURST * self.shares;
        self.left = (SUSTAINED * self.shares).mul_add(since, self.left).min(most);
        self.filled = now;
        let enough = self.left >= 1.0;
        if enough {
            self.left -= 1.0;
        }
        enough
    }
}

/// One client's allowance. Messages have a bucket of their own (they are counted per person, whatever
/// way they come); this one is for all the other frames.
pub(crate) struct Allowance {
    frames: Bucket,
    told: Option<Instant>,
    strikes: Window,
    dropped: Window,
}

impl Allowance {
    pub(crate) fn new(now: Instant) -> Self {
        Self {
            // Whoever hears fifty messages a second may answer each, and more.
            frames: Bucket::of(2.0, now),
            told: None,
            strikes: Window::new(now),
            dropped: Window::new(now),
        }
    }

    /// A frame came.
    pub(crate) fn frame(&mut self, now: Instant) -> Verdict {
        if self.frames.take(now) {
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

    /// A message was one too many: each is answered, until it is a flood.
    pub(crate) fn refused(&mut self, now: Instant) -> Verdict {
        if self.dropped.count(now) > MAX_DROPPED { Verdict::End } else { Verdict::Refuse }
    }

    /// A frame was none of ours.
    pub(crate) fn strike(&mut self, now: Instant) -> Verdict {
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
        assert_eq!(taken, 400);
        let mut bucket = Bucket::new(start);
        let taken = (0..1_000).filter(|_| bucket.take(start)).count();
        assert_eq!(taken, 200);
        // Ten seconds at 50 messages a second: nothing is refused.
        for message in 1..=500u32 {
            assert!(bucket.take(start + Duration::from_secs(10) * message / 500));
        }
        // And at 60: what the burst had saved up, and then five in six.
        let start = start + Duration::from_secs(60);
        let sent = (0..6_000u32).map(|n| start + Duration::from_secs(100) * n / 6_000);
        let taken = sent.filter(|now| bucket.take(*now)).count();
        assert!((5_195..=5_200).contains(&taken), "{taken}");
    }

    #[test]
    fn the_refusal_is_said_once_a_second_and_a_flood_ends_it() {
        let start = Instant::now();
        let mut allowance = Allowance::new(start);
        let verdicts: Vec<_> = (0..1_500).map(|_| allowance.frame(start)).collect();
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
