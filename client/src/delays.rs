//! How much audio to hold back: the target of the play-out buffer.
//!
//! Two bounds, as libwebrtc's NetEq has them. The first is the 95 % quantile of the largest arrival
//! delay of each half second. The second weighs packets that come late because they were reordered
//! or sent again: waiting for them costs delay, not waiting costs loss, and one per cent of loss is
//! worth 20 ms.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// Width of a bucket of delays.
const BUCKET_MS: u64 = 20;
/// Buckets: delays of up to two seconds are told apart.
const BUCKETS: usize = 100;
/// Arrival delay counts from the fastest packet of this time.
const HISTORY: Duration = Duration::from_secs(2);
/// One sample of the first bound for each such time.
const INTERVAL: Duration = Duration::from_millis(500);
/// Share of the half seconds whose packets all come in time.
const QUANTILE: f64 = 0.95;
/// How much of the past each sample of the first and of the second bound keeps.
const FORGET: [f64; 2] = [0.983, 0.9993];
/// Delay that one per cent of loss is worth.
const MS_PER_LOSS_PERCENT: f64 = 20.0;
/// The target before anything is known, and its bounds. Browsers hold back 30 to 50 ms on clean links.
const START: Duration = Duration::from_millis(80);
const BOUNDS: (Duration, Duration) = (Duration::from_millis(40), Duration::from_millis(1000));

/// A histogram that forgets.
#[derive(Debug)]
struct Histogram {
    shares: Box<[f64]>,
    forget: f64,
    samples: u32,
}

impl Histogram {
    fn new(forget: f64) -> Self {
        Self { shares: vec![0.0; BUCKETS].into_boxed_slice(), forget, samples: 0 }
    }

    fn add(&mut self, bucket: usize) {
        self.samples = self.samples.saturating_add(1);
        // Young histograms forget faster, so that the first samples do not weigh for ever.
        let young = 1.0 - 2.0 / f64::from(self.samples + 1);
        let keep = self.forget.min(young);
        for share in &mut self.shares {
            *share *= keep;
        }
        if let Some(share) = self.shares.get_mut(bucket.min(BUCKETS - 1)) {
            *share += 1.0 - keep;
        }
    }

    fn quantile(&self, share: f64) -> usize {
        let mut sum = 0.0;
        let found = self.shares.iter().position(|part| {
            sum += part;
            sum >= share
        });
        found.unwrap_or(BUCKETS - 1)
    }

    /// The bucket where delay and what is lost by it cost least together.
    fn cheapest(&self) -> usize {
        let (mut best, mut least, mut late) = (0, f64::INFINITY, 1.0);
        for (bucket, share) in self.shares.iter().enumerate() {
            late = (late - share).max(0.0);
            let cost = (bucket as u64 * BUCKET_MS) as f64 + 100.0 * MS_PER_LOSS_PERCENT * late;
            if cost < least {
                (best, least) = (bucket, cost);
            }
        }
        best
    }
}

/// The delays of one stream's packets.
#[derive(Debug)]
pub(crate) struct Delays {
    epoch: Instant,
    /// Arrival minus media time of late packets, with their arrival, rising: the first is the least.
    least: VecDeque<(Instant, i64)>,
    /// The least of all times.
    floor: i64,
    underrun: Histogram,
    reorder: Histogram,
    interval_end: Option<Instant>,
    worst: Duration,
    reordered: bool,
    target: Duration,
    /// For the picture's sake.
    least_target: Duration,
}

impl Delays {
    pub(crate) fn new(now: Instant) -> Self {
        let [underrun, reorder] = FORGET;
        Self {
            epoch: now,
            least: VecDeque::new(),
            floor: i64::MAX,
            underrun: Histogram::new(underrun),
            reorder: Histogram::new(reorder),
            interval_end: None,
            worst: Duration::ZERO,
            reordered: false,
            target: START,
            least_target: Duration::ZERO,
        }
    }

    /// Takes the arrival of a packet whose media time is `media` since some fixed point. Returns how
    /// much later it is than the fastest ever: what it has spent in queues.
    pub(crate) fn arrived(&mut self, now: Instant, media: Duration, in_order: bool) -> Duration {
        let arrival = now.saturating_duration_since(self.epoch).as_micros() as i64;
        let transit = arrival - media.as_micros() as i64;
        while self.least.front().is_some_and(|(at, _)| *at + HISTORY < now) {
            self.least.pop_front();
        }
        while self.least.back().is_some_and(|(_, other)| *other >= transit) {
            self.least.pop_back();
        }
        self.least.push_back((now, transit));
        let least = self.least.front().map_or(transit, |(_, least)| *least);
        let late = Duration::from_micros(transit.saturating_sub(least).unsigned_abs());
        self.reordered |= !in_order;
        if self.reordered {
            self.reorder.add(if in_order { 0 } else { bucket(late) });
        }
        if in_order {
            self.sample(now, late);
        }
        self.floor = self.floor.min(transit);
        let quantile = self.underrun.quantile(QUANTILE);
        let mut target = if self.underrun.samples == 0 { START } else { until(quantile) };
        if self.reordered {
            target = target.max(until(self.reorder.cheapest()));
        }
        self.target = target.clamp(BOUNDS.0, BOUNDS.1);
        Duration::from_micros(transit.saturating_sub(self.floor).unsigned_abs())
    }

    fn sample(&mut self, now: Instant, late: Duration) {
        match self.interval_end {
            Some(end) if end <= now => {
                self.underrun.add(bucket(self.worst));
                self.worst = late;
                self.interval_end = Some(now + INTERVAL);
            }
            Some(_) => self.worst = self.worst.max(late),
            None => {
                self.worst = late;
                self.interval_end = Some(now + INTERVAL);
            }
        }
    }

    /// Hold back at least so much.
    pub(crate) const fn set_least(&mut self, least: Duration) {
        self.least_target = least;
    }

    /// How much audio to hold back.
    pub(crate) fn target(&self) -> Duration {
        self.target.max(self.least_target)
    }
}

const fn bucket(late: Duration) -> usize {
    late.as_millis() as usize / BUCKET_MS as usize
}

const fn until(bucket: usize) -> Duration {
    Duration::from_millis((bucket as u64 + 1) * BUCKET_MS)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn feed(delays: &mut Delays, start: Instant, count: u64, late_ms: impl Fn(u64) -> (u64, bool)) {
        for packet in 0..count {
            let (late, in_order) = late_ms(packet);
            let media = Duration::from_millis(20 * packet);
            delays.arrived(start + media + Duration::from_millis(late), media, in_order);
        }
    }

    #[test]
    fn an_even_stream_needs_little() {
        let start = Instant::now();
        let mut delays = Delays::new(start);
        assert_eq!(delays.target(), START);
        feed(&mut delays, start, 500, |_| (3, true));
        assert_eq!(delays.target(), BOUNDS.0);
    }

    #[test]
    fn the_target_follows_the_jitter() {
        let start = Instant::now();
        let mut delays = Delays::new(start);
        feed(&mut delays, start, 1000, |packet| (packet * 7 % 90, true));
        assert_eq!(delays.target(), Duration::from_millis(100));
    }

    #[test]
    fn late_packets_are_waited_for_if_they_are_worth_it() {
        let start = Instant::now();
        let mut frequent = Delays::new(start);
        feed(
            &mut frequent,
            start,
            2000,
            |packet| if packet % 10 == 3 { (110, false) } else { (0, true) },
        );
        assert_eq!(frequent.target(), Duration::from_millis(120), "10 % are worth 200 ms");
        let mut rare = Delays::new(start);
        feed(
            &mut rare,
            start,
            2000,
            |packet| if packet % 50 == 3 { (110, false) } else { (0, true) },
        );
        assert_eq!(rare.target(), BOUNDS.0, "2 % are worth 40 ms");
    }

    #[test]
    fn a_path_that_has_become_longer_is_the_new_normal_but_for_its_queue() {
        let start = Instant::now();
        let mut delays = Delays::new(start);
        let at = |ms| start + Duration::from_millis(ms);
        assert_eq!(delays.arrived(at(50), Duration::ZERO, true), Duration::ZERO);
        assert_eq!(delays.arrived(at(100), Duration::from_millis(20), true).as_millis(), 30);
        for packet in 2..4000_u64 {
            let media = Duration::from_millis(20 * packet);
            assert_eq!(delays.arrived(at(80) + media, media, true).as_millis(), 30);
        }
        assert_eq!(delays.target(), BOUNDS.0);
    }
}
