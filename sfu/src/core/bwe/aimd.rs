//! The rate that the delay allows: up by small steps, down to a share of what arrives
//! (draft-ietf-rmcat-gcc-02 §5.5), and further down while a queue stands on the way.

use super::trendline::Usage;
use super::{MAX_BPS, MIN_BPS};

/// What remains of the arriving rate when the queue grows.
const DECREASE: f64 = 0.85;
/// The same while a queue stands that must go away, and while a long one does.
const DRAIN: f64 = 0.7;
const DRAIN_LONG: f64 = 0.55;
/// A queue from here on allows no more; from here on it must go away; from here on quickly.
const HOLD_US: i64 = 50_000;
const STANDING_US: i64 = 100_000;
const LONG_US: i64 = 200_000;
/// A queue as short as this is none.
const EMPTY_US: i64 = 30_000;
/// What does not go away within this time is not ours.
const DRAIN_LIMIT_US: u64 = 2_500_000;
/// Growth in a second while nobody knows how much the link carries.
const GROWTH: f64 = 1.08;
/// The rate may be so many times what arrives.
const MAX_RATIO: f64 = 1.5;
/// A source below this share of the rate is limited by itself.
const LIMITED: f64 = 0.65;
/// How long a measured capacity counts.
const CAPACITY_US: u64 = 30_000_000;

/// What the rate is controlled by.
#[derive(Clone, Copy, Debug)]
pub(super) struct Evidence {
    pub(super) at_us: u64,
    pub(super) usage: Usage,
    /// Arriving lately: over half a second, and over the last moments.
    pub(super) acknowledged: Option<f64>,
    pub(super) recent: Option<f64>,
    /// Sent lately.
    pub(super) sending: f64,
    pub(super) standing_us: i64,
    pub(super) round_trip_us: u64,
    /// Nothing above this is of use.
    pub(super) ceiling: f64,
}

/// What a full link carried.
#[derive(Clone, Copy, Debug)]
struct Capacity {
    mean: f64,
    /// Relative, squared.
    variance: f64,
    at_us: u64,
}

impl Capacity {
    fn spread(&self) -> f64 {
        3.0 * self.variance.sqrt() * self.mean
    }
}

/// A queue is being let go away.
#[derive(Clone, Copy, Debug)]
struct Drain {
    since_us: u64,
    /// The rate before, the longest queue seen, and what arrived meanwhile.
    before: f64,
    longest_us: i64,
    capacity: f64,
}

/// What the owner has to do besides.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Verdict {
    Fine,
    /// The queue that stands is not ours: it is part of the delay from now on.
    Accept,
}

/// The rate, and what it was learned from.
#[derive(Debug)]
pub(super) struct RateControl {
    bps: f64,
    capacity: Option<Capacity>,
    drain: Option<Drain>,
    /// Updates in a row that saw a standing queue.
    standing: u32,
    updated_us: Option<u64>,
    decreased_us: Option<u64>,
}

impl RateControl {
    pub(super) const fn new(bps: f64) -> Self {
        Self { bps, capacity: None, drain: None, standing: 0, updated_us: None, decreased_us: None }
    }

    pub(super) const fn bps(&self) -> f64 {
        self.bps
    }

    /// Whether a queue is being let go away.
    pub(super) const fn is_draining(&self) -> bool {
        self.drain.is_some()
    }

    /// Whether the link was seen full lately.
    pub(super) fn knows_capacity(&self, at_us: u64) -> bool {
        self.capacity.is_some_and(|capacity| at_us.saturating_sub(capacity.at_us) < CAPACITY_US)
    }

    /// A probe showed that the link carries this much.
    pub(super) fn set(&mut self, bps: f64) {
        self.bps = bps.clamp(MIN_BPS as f64, MAX_BPS as f64);
        if self.capacity.is_some_and(|capacity| bps > capacity.mean + capacity.spread()) {
            self.capacity = None;
        }
    }

    /// A probe filled the link, which carried this much.
    pub(super) fn filled(&mut self, at_us: u64, bps: f64) {
        self.capacity.get_or_insert(Capacity { mean: bps, variance: 0.01, at_us });
    }

    /// Takes in what a feedback message told.
    pub(super) fn update(&mut self, evidence: &Evidence) -> Verdict {
        let passed = evidence.at_us.saturating_sub(self.updated_us.unwrap_or(evidence.at_us));
        self.updated_us = Some(evidence.at_us);
        self.standing =
            if evidence.standing_us > STANDING_US { self.standing.saturating_add(1) } else { 0 };
        let verdict = if self.drain.is_some() {
            self.go_on_draining(evidence)
        } else {
            self.react(evidence, passed.min(1_000_000) as f64 / 1e6);
            Verdict::Fine
        };
        self.bps = self.bps.clamp(MIN_BPS as f64, MAX_BPS as f64);
        verdict
    }

    fn react(&mut self, evidence: &Evidence, seconds: f64) {
        if self.standing >= 2 || (self.standing == 1 && evidence.usage == Usage::Over) {
            self.begin_draining(evidence);
            return;
        }
        match evidence.usage {
            Usage::Over => self.decrease(evidence),
            Usage::Under => {}
            Usage::Normal if evidence.standing_us > HOLD_US => {}
            Usage::Normal => self.increase(evidence, seconds),
        }
    }

    /// What arrives now. While a queue stands the link is busy, and that is what it carries; without
    /// one, the last moments may just have been quiet.
    fn measured(&self, evidence: &Evidence) -> f64 {
        if evidence.standing_us < EMPTY_US {
            let both = evidence.recent.into_iter().chain(evidence.acknowledged);
            return both.reduce(f64::max).unwrap_or(self.bps);
        }
        evidence.recent.or(evidence.acknowledged).unwrap_or(self.bps)
    }

    /// A source that sends less than it may has not filled the link: what arrives tells little.
    fn lowered(&self, evidence: &Evidence, share: f64, measured: f64) -> f64 {
        let lowered = share * measured;
        let limited = evidence.sending < LIMITED * self.bps;
        if limited { lowered.max(DRAIN * self.bps) } else { lowered }.min(self.bps)
    }

    fn decrease(&mut self, evidence: &Evidence) {
        let pause = evidence.round_trip_us.clamp(50_000, 200_000) + 50_000;
        let measured = self.measured(evidence);
        let soon = self.decreased_us.is_some_and(|at| evidence.at_us.saturating_sub(at) < pause);
        let limited = evidence.sending < LIMITED * self.bps;
        if (soon && measured > 0.5 * self.bps) || (limited && evidence.standing_us < EMPTY_US) {
            return;
        }
        self.note_capacity(evidence.at_us, measured);
        self.bps = self.lowered(evidence, DECREASE, measured);
        self.decreased_us = Some(evidence.at_us);
    }

    fn note_capacity(&mut self, at_us: u64, measured: f64) {
        let fresh = Capacity { mean: measured, variance: 0.01, at_us };
        self.capacity = Some(match self.capacity {
            Some(old) if (measured - old.mean).abs() <= old.spread() => {
                let mean = 0.8 * old.mean + 0.2 * measured;
                let error = (measured - mean) / mean.max(1.0);
                let variance = (0.9 * old.variance + 0.1 * error * error).clamp(0.001, 0.02);
                Capacity { mean, variance, at_us }
            }
            Some(_) | None => fresh,
        });
    }

    fn begin_draining(&mut self, evidence: &Evidence) {
        let capacity = self.measured(evidence);
        let drain = Drain {
            since_us: evidence.at_us,
            before: self.bps,
            longest_us: evidence.standing_us,
            capacity,
        };
        self.drain = Some(drain);
        self.drop_for(&drain, evidence);
    }

    fn drop_for(&mut self, drain: &Drain, evidence: &Evidence) {
        let share = if evidence.standing_us > LONG_US { DRAIN_LONG } else { DRAIN };
        self.bps = self.lowered(evidence, share, drain.capacity);
        self.decreased_us = Some(evidence.at_us);
    }

    fn go_on_draining(&mut self, evidence: &Evidence) -> Verdict {
        let Some(mut drain) = self.drain else { return Verdict::Fine };
        let passed = evidence.at_us.saturating_sub(drain.since_us);
        if evidence.standing_us < EMPTY_US {
            self.drain = None;
            // A queue of ours empties by what we do not send; what went away faster was a hiccup.
            if (passed as i64) < drain.longest_us {
                self.bps = drain.before;
            } else {
                self.note_capacity(evidence.at_us, drain.capacity);
                self.bps = self.bps.max(0.92 * drain.capacity).min(drain.before);
            }
            return Verdict::Fine;
        }
        if passed > DRAIN_LIMIT_US {
            self.drain = None;
            self.note_capacity(evidence.at_us, drain.capacity);
            self.bps = self.bps.max(DECREASE * drain.capacity).min(drain.before);
            return Verdict::Accept;
        }
        drain.longest_us = drain.longest_us.max(evidence.standing_us);
        // While the queue stands the link is busy, and what arrives is what it carries.
        if evidence.standing_us > HOLD_US {
            drain.capacity = drain.capacity.min(self.measured(evidence));
        }
        self.drop_for(&drain, evidence);
        self.drain = Some(drain);
        Verdict::Fine
    }

    fn increase(&mut self, evidence: &Evidence, seconds: f64) {
        let Some(arriving) = evidence.acknowledged else { return };
        if self.capacity.is_some_and(|capacity| arriving > capacity.mean + capacity.spread()) {
            self.capacity = None;
        }
        let near = self.capacity.is_some_and(|capacity| self.bps > 0.85 * capacity.mean);
        let step = if near && self.knows_capacity(evidence.at_us) {
            // About one packet in each response time.
            let frame_bits = self.bps / 30.0;
            let packet_bits = frame_bits / (frame_bits / 9_600.0).ceil().max(1.0);
            let response = (evidence.round_trip_us as f64 / 1e6 + 0.1) * 2.0;
            (packet_bits / response).max(4_000.0) * seconds
        } else {
            (self.bps * (GROWTH.powf(seconds) - 1.0)).max(1_000.0 * seconds)
        };
        let limit = (MAX_RATIO * arriving + 10_000.0).min(evidence.ceiling);
        self.bps = self.bps.max((self.bps + step).min(limit));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn evidence(at_ms: u64, usage: Usage, arriving: f64, standing_ms: i64) -> Evidence {
        Evidence {
            at_us: at_ms * 1_000,
            usage,
            acknowledged: Some(arriving),
            recent: Some(arriving),
            sending: arriving,
            standing_us: standing_ms * 1_000,
            round_trip_us: 50_000,
            ceiling: 1e9,
        }
    }

    #[test]
    fn grows_while_the_delay_is_calm_and_not_far_beyond_what_arrives() {
        let mut rate = RateControl::new(300_000.0);
        for step in 0..100 {
            rate.update(&evidence(step * 100, Usage::Normal, 290_000.0, 0));
        }
        assert!((440_000.0..=445_000.0).contains(&rate.bps()), "{}", rate.bps());
        assert!(!rate.knows_capacity(10_000_000));
    }

    #[test]
    fn falls_to_a_share_of_what_arrives_and_grows_slowly_near_it() {
        let mut rate = RateControl::new(2_000_000.0);
        rate.set(1_200_000.0);
        rate.update(&evidence(0, Usage::Over, 1_000_000.0, 40));
        assert!((849_000.0..851_000.0).contains(&rate.bps()), "{}", rate.bps());
        rate.update(&evidence(50, Usage::Over, 900_000.0, 40));
        assert!(rate.bps() > 849_000.0, "not again at once");
        let before = rate.bps() + 10_000.0;
        rate.set(before);
        for step in 1..=10 {
            rate.update(&evidence(100 + step * 100, Usage::Normal, 850_000.0, 0));
        }
        assert!((before + 4_000.0..before + 60_000.0).contains(&rate.bps()), "{}", rate.bps());
    }

    #[test]
    fn a_standing_queue_is_drained_and_the_rate_comes_back() {
        let mut rate = RateControl::new(2_000_000.0);
        for step in 0..10 {
            rate.update(&evidence(step * 50, Usage::Normal, 200_000.0, 300));
        }
        assert!(rate.is_draining() && rate.bps() < 120_000.0, "{}", rate.bps());
        rate.update(&evidence(1_500, Usage::Under, 150_000.0, 10));
        assert!(!rate.is_draining());
        assert!((180_000.0..190_000.0).contains(&rate.bps()), "{}", rate.bps());
    }

    #[test]
    fn a_hiccup_costs_nothing_and_a_queue_of_others_is_accepted() {
        let mut rate = RateControl::new(1_000_000.0);
        rate.update(&evidence(0, Usage::Normal, 1_000_000.0, 300));
        rate.update(&evidence(50, Usage::Normal, 1_000_000.0, 300));
        assert!(rate.is_draining());
        rate.update(&evidence(200, Usage::Normal, 1_000_000.0, 0));
        assert!((rate.bps() - 1_000_000.0).abs() < 1.0);
        let mut accepted = 0;
        for step in 0..40 {
            let verdict = rate.update(&evidence(1_000 + step * 100, Usage::Normal, 800_000.0, 150));
            accepted += u32::from(verdict == Verdict::Accept);
        }
        assert!(accepted >= 1 && rate.bps() > 400_000.0);
    }

    #[test]
    fn a_source_that_sends_little_does_not_pull_the_rate_down_to_itself() {
        let mut rate = RateControl::new(1_000_000.0);
        rate.update(&evidence(0, Usage::Over, 32_000.0, 5));
        assert!((rate.bps() - 1_000_000.0).abs() < 1.0, "jitter");
        rate.update(&evidence(400, Usage::Over, 32_000.0, 80));
        assert!((rate.bps() - 700_000.0).abs() < 1.0, "{}", rate.bps());
    }
}
