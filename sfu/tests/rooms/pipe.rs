//! A narrow link: a rate and a queue of limited length.

use std::time::{Duration, Instant};

#[derive(Clone, Copy, Debug)]
pub struct Pipe {
    pub bps: u64,
    /// What does not fit this much time is dropped.
    pub queue: Duration,
    free: Option<Instant>,
    pub dropped: u64,
    /// The longest anything waited since this was set to zero.
    pub longest: Duration,
}

impl Pipe {
    pub fn new(bps: u64, queue_ms: u64) -> Self {
        let queue = Duration::from_millis(queue_ms);
        Self { bps, queue, free: None, dropped: 0, longest: Duration::ZERO }
    }

    /// When a datagram has got through; `None`: it is dropped.
    pub fn pass(&mut self, now: Instant, bytes: usize) -> Option<Instant> {
        let begins = self.free.map_or(now, |free| free.max(now));
        if begins - now > self.queue {
            self.dropped += 1;
            return None;
        }
        // IP and UDP headers take their time too.
        let through = begins + Duration::from_nanos((bytes as u64 + 28) * 8_000_000_000 / self.bps);
        self.longest = self.longest.max(through - now);
        self.free = Some(through);
        Some(through)
    }
}
