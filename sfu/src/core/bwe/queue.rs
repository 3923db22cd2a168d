//! The queue that stands on the way: how much later packets arrive than the fastest did lately. The
//! trend sees a queue grow; only this sees one that stays.

/// The fastest packet of the last two to one windows is the base.
const BASE_US: u64 = 6_000_000;
/// The queue is what even the fastest packet of the last two to one windows waited: jitter is none.
const RECENT_US: u64 = 100_000;
/// A delay as far as this from the base belongs to another clock.
const JUMP_US: i64 = 20_000_000;

/// Share of a packet in the mean jitter.
const JITTER_SHARE: f64 = 0.02;

/// The least of the last two windows.
#[derive(Clone, Copy, Default, Debug)]
struct Least {
    until: u64,
    now: Option<i64>,
    before: Option<i64>,
}

impl Least {
    fn add(&mut self, at: u64, value: i64, window: u64) {
        if at >= self.until {
            // After a pause the window before last is stale.
            self.before = if at >= self.until.saturating_add(window) { None } else { self.now };
            self.now = None;
            self.until = at.saturating_add(window);
        }
        self.now = Some(self.now.map_or(value, |now| now.min(value)));
    }

    fn get(&self) -> Option<i64> {
        self.now.into_iter().chain(self.before).min()
    }
}

/// One-way delays, relative to the fastest.
#[derive(Default, Debug)]
pub(super) struct Queue {
    base: Least,
    recent: Least,
    jitter_us: f64,
}

impl Queue {
    /// A packet's times at either end.
    pub(super) fn add(&mut self, sent: u64, arrived: i64) {
        let delay = arrived.saturating_sub(sent as i64);
        if let Some(base) = self.base.get()
            && delay.saturating_sub(base).saturating_abs() > JUMP_US
        {
            *self = Self::default();
        }
        self.base.add(sent, delay, BASE_US);
        self.recent.add(sent, delay, RECENT_US);
        let above = delay.saturating_sub(self.recent.get().unwrap_or(delay)) as f64;
        self.jitter_us += (above - self.jitter_us) * JITTER_SHARE;
    }

    /// How long the queue is, in microseconds.
    pub(super) fn standing_us(&self) -> i64 {
        match (self.recent.get(), self.base.get()) {
            (Some(recent), Some(base)) => recent.saturating_sub(base).max(0),
            (Some(_) | None, _) => 0,
        }
    }

    /// How much later than the fastest packets arrive on average, in microseconds.
    pub(super) const fn jitter_us(&self) -> f64 {
        self.jitter_us
    }

    /// The delay as it is now is the base: it does not yield.
    pub(super) fn accept(&mut self) {
        self.base = Least { before: None, ..self.recent };
        self.base.until = self.recent.until.saturating_add(BASE_US);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_standing_queue_is_seen_and_jitter_is_not() {
        let mut queue = Queue::default();
        let clock = -7_000_000_i64;
        for step in 0..100_u64 {
            let jitter = (step % 5) as i64 * 10_000;
            queue.add(step * 10_000, clock + step as i64 * 10_000 + 40_000 + jitter);
            assert_eq!(queue.standing_us(), 0);
        }
        for step in 100..150_u64 {
            queue.add(step * 10_000, clock + step as i64 * 10_000 + 240_000);
        }
        assert_eq!(queue.standing_us(), 200_000);
        queue.accept();
        assert_eq!(queue.standing_us(), 0);
        // What never goes away is the base in the end.
        for step in 150..2_000_u64 {
            queue.add(step * 10_000, clock + step as i64 * 10_000 + 300_000);
        }
        assert_eq!(queue.standing_us(), 0);
        queue.add(20_000_000, i64::MIN);
        queue.add(20_000_000, i64::MAX);
        assert_eq!(queue.standing_us(), 0);
    }
}
