//! What signaling counts: plain atomics that the metrics page reads.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// A number that several threads raise.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// One more.
    pub fn up(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    /// One less (gauges only).
    pub fn down(&self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }

    /// Adds some.
    pub fn add(&self, more: u64) {
        self.0.fetch_add(more, Ordering::Relaxed);
    }

    /// Its value now.
    pub fn value(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Everything that is counted.
#[derive(Debug, Default)]
pub struct SignalingCounters {
    /// Signal sessions open now.
    pub sessions: Counter,
    /// Joins that got their `join` message.
    pub joins: Counter,
    /// Resumes that got their `reconnect` message.
    pub resumes: Counter,
    /// Resumes of a participant that is no longer here; the client joins again.
    pub resumes_unknown: Counter,
    /// Refused: no token, or one that does not verify.
    pub refused_token: Counter,
    /// Refused: the token does not open the room, or the doorkeeper said no.
    pub refused_not_allowed: Counter,
    /// Refused: the request could not be understood.
    pub refused_bad_request: Counter,
    /// Refused: no such room.
    pub refused_no_room: Counter,
    /// Refused: the room is full.
    pub refused_full: Counter,
    /// Refused: draining, or the node or the doorkeeper did not answer.
    pub refused_unavailable: Counter,
    /// Messages that are no protobuf of ours.
    pub malformed: Counter,
    /// Messages of a kind that is not known or not served.
    pub unknown: Counter,
    /// Text frames, which no SDK sends.
    pub text_frames: Counter,
    /// Messages refused for their size or number.
    pub over_limit: Counter,
    /// Sessions cut because their client did not read.
    pub slow_readers: Counter,
    /// Sessions cut because their client fell silent.
    pub silent: Counter,
    /// `join` messages that were held back because a client would not bear them.
    pub invalid_joins: Counter,
    /// Facts that did not reach the keeper of books at once (a snapshot follows).
    pub facts_lost: Counter,
    /// Calls of administrators.
    pub admin_requests: Counter,
    /// Of them refused: no token, or one that does not verify.
    pub admin_refused_token: Counter,
    /// Of them refused: the token does not grant it.
    pub admin_refused_grant: Counter,
    /// Of them failed for another reason.
    pub admin_failed: Counter,
    /// From the request of a join until its media transport is up.
    pub join_times: Histogram,
}

impl SignalingCounters {
    /// Every number with its name and what it means, for the metrics page. `Gauge: ` starts the
    /// meaning of those that also fall; `refused_` starts the name of refused joins.
    pub fn values(&self) -> [(&'static str, &'static str, u64); 22] {
        let refused = "Joins refused before the upgrade.";
        [
            ("signal_sessions", "Gauge: Signal sessions open now.", self.sessions.value()),
            ("joins", "Joins that got their first message.", self.joins.value()),
            ("resumes", "Resumes that got their first message.", self.resumes.value()),
            (
                "resumes_unknown",
                "Resumes of a participant that is no longer here.",
                self.resumes_unknown.value(),
            ),
            ("refused_token", refused, self.refused_token.value()),
            ("refused_not_allowed", refused, self.refused_not_allowed.value()),
            ("refused_bad_request", refused, self.refused_bad_request.value()),
            ("refused_no_room", refused, self.refused_no_room.value()),
            ("refused_full", refused, self.refused_full.value()),
            ("refused_unavailable", refused, self.refused_unavailable.value()),
            ("signal_malformed", "Signal messages that are no protobuf.", self.malformed.value()),
            ("signal_unknown", "Signal messages that are not served.", self.unknown.value()),
            ("signal_text_frames", "Text frames at the room door.", self.text_frames.value()),
            ("signal_over_limit", "Signal messages refused for size.", self.over_limit.value()),
            ("slow_readers", "Sessions cut: client did not read.", self.slow_readers.value()),
            ("silent_sessions", "Sessions cut: client fell silent.", self.silent.value()),
            ("invalid_joins", "Join messages held back.", self.invalid_joins.value()),
            ("facts_lost", "Facts that came late, in a snapshot.", self.facts_lost.value()),
            ("admin_requests", "Calls of room administrators.", self.admin_requests.value()),
            (
                "admin_refused_token",
                "Calls of room administrators refused for their token.",
                self.admin_refused_token.value(),
            ),
            (
                "admin_refused_grant",
                "Calls of room administrators refused for want of a grant.",
                self.admin_refused_grant.value(),
            ),
            (
                "admin_failed",
                "Calls of room administrators that failed otherwise.",
                self.admin_failed.value(),
            ),
        ]
    }
}

/// Counts durations in fixed buckets.
#[derive(Debug, Default)]
pub struct Histogram {
    counts: [Counter; Self::BOUNDS_MS.len()],
    above: Counter,
    sum_micros: Counter,
}

impl Histogram {
    /// Upper bounds of the buckets, milliseconds.
    pub const BOUNDS_MS: [u64; 12] =
        [25, 50, 100, 150, 200, 300, 500, 750, 1_000, 2_000, 5_000, 10_000];

    /// Counts one.
    pub fn record(&self, took: Duration) {
        self.sum_micros.add(u64::try_from(took.as_micros()).unwrap_or(u64::MAX));
        let mut buckets = Self::BOUNDS_MS.iter().zip(&self.counts);
        match buckets.find(|(bound, _)| took <= Duration::from_millis(**bound)) {
            Some((_, count)) => count.up(),
            None => self.above.up(),
        }
    }

    /// Pairs of upper bound (seconds; infinite at the end) and how many took at most that long.
    pub fn cumulative(&self) -> Vec<(f64, u64)> {
        let mut total = 0;
        let bounds = Self::BOUNDS_MS.iter().map(|ms| Duration::from_millis(*ms).as_secs_f64());
        bounds
            .chain([f64::INFINITY])
            .zip(self.counts.iter().chain([&self.above]))
            .map(|(bound, count)| {
                total += count.value();
                (bound, total)
            })
            .collect()
    }

    /// Sum of all, seconds.
    pub fn sum_seconds(&self) -> f64 {
        Duration::from_micros(self.sum_micros.value()).as_secs_f64()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_counts_in_its_bucket_and_all_above() {
        let times = Histogram::default();
        for ms in [25, 26, 9_999, 60_000] {
            times.record(Duration::from_millis(ms));
        }
        let counted = times.cumulative();
        assert_eq!(counted[0], (0.025, 1));
        assert_eq!(counted[1], (0.05, 2));
        assert_eq!(counted[11], (10.0, 3));
        assert_eq!(counted[12], (f64::INFINITY, 4));
        assert!((times.sum_seconds() - 70.05).abs() < 1e-9);
    }
}
