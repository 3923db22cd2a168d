//! When to let datagrams gather before reading them.
//!
//! A wake-up costs more than a datagram. A listener with little to do reads each as it comes; a
//! busy one lets them gather for a moment, so that one turn carries several. What comes through a
//! relay waits for the engine's own gathering, too, so this moment is short.

use std::time::{Duration, Instant};

/// The moment; a timer is late by some 50 µs more.
const HOLD: Duration = Duration::from_micros(250);
/// Traffic is judged over this long.
const WINDOW: Duration = Duration::from_millis(100);
/// Datagrams in and out per window from which gathering pays: 10,000 per second.
const BUSY: u64 = 1_000;

/// Decides from what went by lately.
#[derive(Debug)]
pub(crate) struct Pace {
    since: Instant,
    total: u64,
    busy: bool,
}

impl Pace {
    /// Begins as idle.
    pub(crate) const fn new(now: Instant) -> Self {
        Self { since: now, total: 0, busy: false }
    }

    /// Told once per turn how many datagrams there have been in all.
    pub(crate) fn count(&mut self, now: Instant, total: u64) {
        let elapsed = now.saturating_duration_since(self.since);
        if elapsed >= WINDOW {
            let new = total.wrapping_sub(self.total) as f64;
            self.busy = new * WINDOW.as_secs_f64() >= BUSY as f64 * elapsed.as_secs_f64();
            (self.since, self.total) = (now, total);
        }
    }

    /// How long to wait between waking up and reading.
    pub(crate) const fn hold(&self) -> Duration {
        if self.busy { HOLD } else { Duration::ZERO }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quiet_listener_never_waits_and_a_busy_one_does() {
        let mut now = Instant::now();
        let (mut pace, mut total) = (Pace::new(now), 0);
        for (per_millisecond, holds) in [(5, false), (15, true), (0, false)] {
            for _ in 0..300 {
                now += Duration::from_millis(1);
                total += per_millisecond;
                pace.count(now, total);
            }
            assert_eq!(!pace.hold().is_zero(), holds, "{per_millisecond} per millisecond");
        }
        pace.count(now + Duration::from_secs(60), total + 2_000);
        assert!(pace.hold().is_zero(), "2,000 in a minute");
    }
}
