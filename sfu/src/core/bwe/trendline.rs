//! Whether the delay grows: the slope of a line through the last groups' accumulated delay, held
//! against a threshold that adapts to how restless the link is (draft-ietf-rmcat-gcc-02 §5.4, the
//! filter being libwebrtc's line instead of the draft's Kalman filter).

use std::collections::VecDeque;

/// Groups the line goes through.
const WINDOW: usize = 20;
/// Share of the old value in the smoothed delay.
const SMOOTHING: f64 = 0.9;
/// The slope counts at most as often as there were groups, but no more than this.
const MAX_GROUPS: u32 = 60;
const GAIN: f64 = 4.0;
/// The threshold: at first, and its bounds.
const FIRST_THRESHOLD: f64 = 12.5;
const MIN_THRESHOLD: f64 = 6.0;
const MAX_THRESHOLD: f64 = 600.0;
/// How quickly it rises and falls, per millisecond.
const RISE: f64 = 0.008_7;
const FALL: f64 = 0.039;
/// A trend this far above the threshold is a real change; the threshold does not follow it.
const MAX_EXCESS: f64 = 15.0;
/// The trend must be above the threshold for so long.
const OVERUSE_MS: f64 = 10.0;

/// What the delay says of the link.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Usage {
    /// The queue grows.
    Over,
    Normal,
    /// The queue empties.
    Under,
}

/// The line and its threshold.
#[derive(Debug)]
pub(super) struct Trendline {
    /// Time since the first group and smoothed delay, both in milliseconds.
    points: VecDeque<(f64, f64)>,
    first_at: Option<i64>,
    accumulated: f64,
    smoothed: f64,
    groups: u32,
    threshold: f64,
    adapted_at: Option<i64>,
    over_ms: f64,
    over_count: u32,
    slope: f64,
    usage: Usage,
}

impl Trendline {
    /// Allocates its window: nothing does later.
    pub(super) fn new() -> Self {
        Self {
            points: VecDeque::with_capacity(WINDOW + 1),
            first_at: None,
            accumulated: 0.0,
            smoothed: 0.0,
            groups: 0,
            threshold: FIRST_THRESHOLD,
            adapted_at: None,
            over_ms: 0.0,
            over_count: 0,
            slope: 0.0,
            usage: Usage::Normal,
        }
    }

    pub(super) const fn usage(&self) -> Usage {
        self.usage
    }

    /// Forgets the line, keeps the threshold.
    pub(super) fn clear(&mut self) {
        self.points.clear();
        self.first_at = None;
        self.accumulated = 0.0;
        self.smoothed = 0.0;
        self.groups = 0;
        self.over_ms = 0.0;
        self.over_count = 0;
        self.slope = 0.0;
        self.usage = Usage::Normal;
    }

    /// Takes in how far two groups lay apart, in microseconds.
    pub(super) fn update(&mut self, sent_us: i64, arrived_us: i64, at_us: i64) {
        let first_at = *self.first_at.get_or_insert(at_us);
        let sent_ms = sent_us as f64 / 1e3;
        self.accumulated += arrived_us as f64 / 1e3 - sent_ms;
        self.smoothed = SMOOTHING * self.smoothed + (1.0 - SMOOTHING) * self.accumulated;
        self.groups = (self.groups + 1).min(1_000);
        let at_ms = at_us.saturating_sub(first_at) as f64 / 1e3;
        self.points.push_back((at_ms, self.smoothed));
        if self.points.len() > WINDOW {
            self.points.pop_front();
        }
        let slope =
            if self.points.len() == WINDOW { self.fit().unwrap_or(self.slope) } else { self.slope };
        self.detect(slope, sent_ms, at_us);
    }

    /// The slope of the line with the least squared distances.
    fn fit(&self) -> Option<f64> {
        let count = self.points.len() as f64;
        let (sum_x, sum_y) =
            self.points.iter().fold((0.0, 0.0), |(x, y), point| (x + point.0, y + point.1));
        let (mean_x, mean_y) = (sum_x / count, sum_y / count);
        let (mut above, mut below) = (0.0, 0.0);
        for (x, y) in &self.points {
            above += (x - mean_x) * (y - mean_y);
            below += (x - mean_x) * (x - mean_x);
        }
        (below > 0.0).then(|| above / below)
    }

    fn detect(&mut self, slope: f64, sent_ms: f64, at_us: i64) {
        let trend = f64::from(self.groups.min(MAX_GROUPS)) * slope * GAIN;
        if trend > self.threshold {
            self.over_ms += if self.over_count == 0 { sent_ms / 2.0 } else { sent_ms };
            self.over_count += 1;
            if self.over_ms > OVERUSE_MS && self.over_count > 1 && slope >= self.slope {
                self.over_ms = 0.0;
                self.over_count = 0;
                self.usage = Usage::Over;
            }
        } else {
            self.over_ms = 0.0;
            self.over_count = 0;
            self.usage = if trend < -self.threshold { Usage::Under } else { Usage::Normal };
        }
        self.slope = slope;
        self.adapt(trend.abs(), at_us);
    }

    fn adapt(&mut self, trend: f64, at_us: i64) {
        let last = self.adapted_at.replace(at_us).unwrap_or(at_us);
        if trend > self.threshold + MAX_EXCESS {
            return;
        }
        let rate = if trend < self.threshold { FALL } else { RISE };
        let passed_ms = (at_us.saturating_sub(last) as f64 / 1e3).clamp(0.0, 100.0);
        self.threshold += rate * (trend - self.threshold) * passed_ms;
        self.threshold = self.threshold.clamp(MIN_THRESHOLD, MAX_THRESHOLD);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Groups each 20 ms whose delay grows by what `extra` says, in microseconds.
    fn run(line: &mut Trendline, from: i64, extra: impl Fn(i64) -> i64) -> Vec<Usage> {
        let mut at = from;
        (0..60)
            .map(|step| {
                let arrived = 20_000 + extra(step);
                at += arrived;
                line.update(20_000, arrived, at);
                line.usage()
            })
            .collect()
    }

    #[test]
    fn a_growing_delay_is_overuse_and_a_shrinking_one_underuse() {
        let mut line = Trendline::new();
        assert!(run(&mut line, 0, |_| 0).iter().all(|usage| *usage == Usage::Normal));
        let seen = run(&mut line, 2_000_000, |_| 3_000);
        let first = seen.iter().position(|usage| *usage == Usage::Over).unwrap();
        assert!(first < 22, "after {first} groups");
        let seen = run(&mut line, 4_000_000, |_| -3_000);
        assert_eq!(seen.last(), Some(&Usage::Under));
        line.clear();
        assert_eq!(line.usage(), Usage::Normal);
    }

    #[test]
    fn restlessness_is_no_overuse() {
        let mut line = Trendline::new();
        let mut over = 0;
        for round in 0..20 {
            let seen = run(&mut line, round * 2_000_000, |step| {
                // A fixed pattern of up to 15 ms either way that sums up to nothing.
                [0, 15, -12, 4, -7, 9, -9, 3, -3, 0][step as usize % 10] * 1_000
            });
            over += seen.iter().filter(|usage| **usage == Usage::Over).count();
        }
        assert!(over < 12, "{over} of 1,200");
    }

    #[test]
    fn any_times_are_survived() {
        let mut line = Trendline::new();
        for (sent, arrived, at) in
            [(0, 0, 0), (0, 0, 0), (i64::MAX, 0, i64::MIN), (1, i64::MAX, i64::MAX), (5, 5, 0)]
        {
            for _ in 0..30 {
                line.update(sent, arrived, at);
                assert!(line.threshold >= MIN_THRESHOLD && line.threshold <= MAX_THRESHOLD);
            }
        }
    }
}
