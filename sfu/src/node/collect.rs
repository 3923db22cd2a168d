//! When to let packets gather before reading them.
//!
//! A wake-up costs more than a packet. With little traffic each packet is read as it comes; with
//! much, packets gather for a moment, so that one turn carries several and those for one
//! subscriber leave as one train. The price is delay, so it is bounded: no packet waits more than
//! 1 ms for this reason.

use std::time::{Duration, Instant};

/// The longest gathering. Below 1 ms by what a timer may be late.
const HOLD: Duration = Duration::from_micros(900);
/// Traffic is judged over this long: three frames of a video at 30 per second.
const WINDOW: Duration = Duration::from_millis(100);
/// Packets in and out per window from which gathering pays: some four calls of two persons. A node
/// with one call never gathers.
const BUSY: u32 = 500;

/// Decides from what went by lately.
#[derive(Debug)]
pub struct Collect {
    since: Instant,
    packets: u32,
    busy: bool,
}

impl Collect {
    /// Begins as idle.
    pub const fn new(now: Instant) -> Self {
        Self { since: now, packets: 0, busy: false }
    }

    /// Told once per turn how many packets came and went.
    pub fn count(&mut self, now: Instant, packets: u32) {
        self.packets = self.packets.saturating_add(packets);
        let elapsed = now.saturating_duration_since(self.since);
        if elapsed >= WINDOW {
            let windows = elapsed.as_secs_f64() / WINDOW.as_secs_f64();
            self.busy = f64::from(self.packets) >= f64::from(BUSY) * windows;
            self.since = now;
            self.packets = 0;
        }
    }

    /// How long packets may gather from the arrival of the first.
    pub const fn hold(&self) -> Duration {
        if self.busy { HOLD } else { Duration::ZERO }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_call_is_never_held_up_and_many_are() {
        let mut now = Instant::now();
        let mut collect = Collect::new(now);
        for _ in 0..1_000 {
            now += Duration::from_millis(1);
            collect.count(now, 2); // 2,000 per second
            assert_eq!(collect.hold(), Duration::ZERO);
        }
        for _ in 0..200 {
            now += Duration::from_millis(1);
            collect.count(now, 6);
        }
        assert!(!collect.hold().is_zero());
        assert!(collect.hold() <= Duration::from_millis(1));
    }

    #[test]
    fn silence_ends_it() {
        let mut now = Instant::now();
        let mut collect = Collect::new(now);
        for _ in 0..200 {
            now += Duration::from_millis(1);
            collect.count(now, 50);
        }
        assert!(!collect.hold().is_zero());
        now += Duration::from_secs(3);
        collect.count(now, 1);
        assert!(collect.hold().is_zero());
    }
}
