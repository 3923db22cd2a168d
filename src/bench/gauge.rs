//! Counts and times the packets of a measurement. Sent and received are counted by the time at which a
//! packet left, so that both speak of the same packets.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use bedside_client::{Ear, Heard};
use hdrhistogram::{CreationError, Histogram};

/// Parts that participants are spread over, so that threads rarely meet.
const PARTS: usize = 16;
/// Longest delay that is told apart.
const LONGEST_US: u64 = 60_000_000;

/// Distribution of times in microseconds.
pub(super) type Times = Histogram<u32>;

/// An empty distribution: three digits are told apart.
pub(super) fn times() -> Result<Times, CreationError> {
    Histogram::new_with_bounds(1, LONGEST_US, 3)
}

/// Adds one.
pub(super) fn record(times: &mut Times, time: Duration) {
    times.saturating_record(u64::try_from(time.as_micros()).unwrap_or(u64::MAX));
}

/// Counts within one stretch of time.
pub(super) struct Gauge {
    epoch: Instant,
    /// Nanoseconds after the epoch; nothing is counted while both are the same.
    start: AtomicU64,
    end: AtomicU64,
    parts: Vec<Part>,
}

struct Part {
    sent: AtomicU64,
    came: AtomicU64,
    repaired: AtomicU64,
    times: Mutex<PartTimes>,
}

struct PartTimes {
    delays: Times,
    late: Times,
}

/// What a measurement has seen.
#[derive(Clone, Debug)]
pub(super) struct Seen {
    /// Packets that left.
    pub(super) sent: u64,
    /// Packets that came, each once for each receiver.
    pub(super) came: u64,
    /// Of those, asked for again.
    pub(super) repaired: u64,
    /// How long they were on the way.
    pub(super) delays: Times,
    /// How late they left.
    pub(super) late: Times,
}

impl Gauge {
    /// Counts nothing yet.
    pub(super) fn new() -> Result<Self, CreationError> {
        let part = |_| {
            Ok(Part {
                sent: AtomicU64::new(0),
                came: AtomicU64::new(0),
                repaired: AtomicU64::new(0),
                times: Mutex::new(PartTimes { delays: times()?, late: times()? }),
            })
        };
        Ok(Self {
            epoch: Instant::now(),
            start: AtomicU64::new(0),
            end: AtomicU64::new(0),
            parts: (0..PARTS).map(part).collect::<Result<_, CreationError>>()?,
        })
    }

    /// Counts packets that leave from `start` on. That has to be a moment ahead: every thread must
    /// know by then.
    pub(super) fn open(&self, start: Instant) {
        self.end.store(u64::MAX, Ordering::SeqCst);
        self.start.store(self.since(start), Ordering::SeqCst);
    }

    /// Counts packets no more that leave from `end` on, which is a moment ahead, too.
    pub(super) fn close(&self, end: Instant) {
        self.end.store(self.since(end), Ordering::SeqCst);
    }

    /// What was seen, and forgets it.
    pub(super) fn take(&self) -> Result<Seen, CreationError> {
        self.start.store(0, Ordering::SeqCst);
        self.end.store(0, Ordering::SeqCst);
        let mut seen = Seen { sent: 0, came: 0, repaired: 0, delays: times()?, late: times()? };
        for part in &self.parts {
            seen.sent += part.sent.swap(0, Ordering::Relaxed);
            seen.came += part.came.swap(0, Ordering::Relaxed);
            seen.repaired += part.repaired.swap(0, Ordering::Relaxed);
            let mut own = part.times.lock().unwrap_or_else(PoisonError::into_inner);
            // All have the same bounds.
            let _fits = seen.delays.add(&own.delays);
            let _fits = seen.late.add(&own.late);
            own.delays.reset();
            own.late.reset();
        }
        Ok(seen)
    }

    fn since(&self, at: Instant) -> u64 {
        u64::try_from(at.saturating_duration_since(self.epoch).as_nanos()).unwrap_or(u64::MAX)
    }

    fn counts(&self, left: Instant) -> bool {
        let left = self.since(left);
        let start = self.start.load(Ordering::Relaxed);
        start > 0 && left >= start && left < self.end.load(Ordering::Relaxed)
    }

    fn part(&self, number: u64) -> Option<&Part> {
        let part = usize::try_from(number).unwrap_or(0) % self.parts.len().max(1);
        self.parts.get(part)
    }
}

impl fmt::Debug for Gauge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Gauge").finish_non_exhaustive()
    }
}

/// One participant's ear.
#[derive(Debug)]
pub(super) struct Tap {
    gauge: Arc<Gauge>,
    number: u64,
    /// Its packets count in the measurement.
    counted: bool,
    first: OnceLock<Instant>,
}

impl Tap {
    /// An ear for the participant with this number.
    pub(super) const fn new(gauge: Arc<Gauge>, number: u64, counted: bool) -> Self {
        Self { gauge, number, counted, first: OnceLock::new() }
    }

    /// When the first packet came.
    pub(super) fn first(&self) -> Option<Instant> {
        self.first.get().copied()
    }
}

impl Ear for Tap {
    fn left(&self, at: Instant, behind: Duration) {
        if !self.counted || !self.gauge.counts(at) {
            return;
        }
        if let Some(part) = self.gauge.part(self.number) {
            part.sent.fetch_add(1, Ordering::Relaxed);
            let mut times = part.times.lock().unwrap_or_else(PoisonError::into_inner);
            record(&mut times.late, behind);
        }
    }

    fn heard(&self, packet: Heard) {
        self.first.get_or_init(|| packet.came);
        if !self.counted || !self.gauge.counts(packet.left) {
            return;
        }
        if let Some(part) = self.gauge.part(self.number) {
            part.came.fetch_add(1, Ordering::Relaxed);
            part.repaired.fetch_add(u64::from(packet.repaired), Ordering::Relaxed);
            let mut times = part.times.lock().unwrap_or_else(PoisonError::into_inner);
            record(&mut times.delays, packet.came.saturating_duration_since(packet.left));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn packets_count_by_when_they_left() {
        let gauge = Arc::new(Gauge::new().unwrap());
        let (here, there) =
            (Tap::new(gauge.clone(), 1, true), Tap::new(gauge.clone(), 2 + PARTS as u64, true));
        let other = Tap::new(gauge.clone(), 3, false);
        let start = Instant::now() + MS;
        let pass = |left: Instant, ways: u32| {
            here.left(left, 2 * MS);
            other.left(left, MS);
            for _ in 0..ways {
                let packet = Heard { left, came: left + 3 * MS, repaired: false };
                there.heard(packet);
                other.heard(packet);
            }
        };
        pass(start, 1);
        assert_eq!(gauge.take().unwrap().sent, 0, "closed");
        gauge.open(start);
        pass(start - MS / 2, 1);
        pass(start, 1);
        pass(start + 5 * MS, 0);
        gauge.close(start + 10 * MS);
        pass(start + 9 * MS, 1);
        pass(start + 10 * MS, 1);
        let seen = gauge.take().unwrap();
        assert_eq!((seen.sent, seen.came, seen.repaired), (3, 2, 0));
        assert_eq!((seen.delays.len(), seen.late.len()), (2, 3));
        assert!((2_990..=3_010).contains(&seen.delays.value_at_quantile(0.99)));
        assert!((1_990..=2_010).contains(&seen.late.value_at_quantile(0.5)));
        assert_eq!(there.first(), Some(start + 3 * MS));
        let seen = gauge.take().unwrap();
        assert_eq!((seen.sent, seen.came, seen.delays.len()), (0, 0, 0), "forgotten");
    }

    #[test]
    fn no_delay_is_too_long() {
        let mut times = times().unwrap();
        for time in [Duration::ZERO, Duration::from_secs(1_000_000), Duration::MAX] {
            record(&mut times, time);
        }
        assert_eq!(times.len(), 3);
    }
}
