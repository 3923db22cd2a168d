//! The rate that losses allow. Most losses on radio links have nothing to do with how much is sent,
//! and sending less does not make them fewer; a policer's or a short queue's do. So losses lower the
//! rate only where they are seen to grow with it: by comparing quiet and busy moments, or, when all
//! moments are alike, by sending less for a while and looking.

use super::history::Settled;

/// Observations kept, and how long one lasts at least.
const OBSERVATIONS: usize = 24;
const OBSERVATION_US: u64 = 200_000;
const MIN_PACKETS: u32 = 20;
/// Observations on either side of a comparison, at least.
const SIDE: usize = 4;
/// Busy moments must be so much busier for a comparison, and lose so much more to blame the rate.
const CONTRAST: f64 = 1.25;
const DIFFERENCE: f64 = 0.04;
/// How sure the comparison has to be, in standard errors.
const SURE: f64 = 3.0;
/// Losses above the explained ones that ask for an explanation.
const UNEXPLAINED: f64 = 0.08;
/// More than this above the explained ones is not waited out.
const HEAVY: f64 = 0.4;
/// More than this is never put up with: nothing can be seen through it.
const UNBEARABLE: f64 = 0.45;
/// A trial: this share of the rate, for so many observations; losses that stay above this share of
/// what they were are not cured by it.
const DIP: f64 = 0.7;
const TRIAL: u32 = 6;
const CURED: f64 = 0.6;
/// Without having sent less than this share a trial tells nothing.
const LESS: f64 = 0.93;
/// How quickly the explained losses follow what is lost, for each observation.
const FALLING: f64 = 0.05;
const RISING: f64 = 0.02;
/// Trials that showed nothing are so far apart at first, twice as far each time, and at most so far.
const FIRST_PAUSE_US: u64 = 10_000_000;
const MAX_PAUSE_US: u64 = 80_000_000;
/// What a bound leaves of what came through, and how it grows in a second without losses.
const MARGIN: f64 = 0.95;
const GROWTH: f64 = 1.1;

#[derive(Clone, Copy, Default, Debug)]
struct Observation {
    bps: f64,
    packets: u32,
    loss: f64,
}

/// Means over some observations.
#[derive(Clone, Copy, PartialEq, Debug)]
struct Side {
    bps: f64,
    loss: f64,
    /// Of the mean loss, squared.
    error: f64,
}

impl Side {
    fn of(observations: impl Iterator<Item = Observation> + Clone) -> Option<Self> {
        let count = observations.clone().count();
        if count < SIDE {
            return None;
        }
        let n = count as f64;
        let packets: f64 = observations.clone().map(|one| f64::from(one.packets)).sum();
        let bps = observations.clone().map(|one| one.bps).sum::<f64>() / n;
        let loss = observations.clone().map(|one| one.loss).sum::<f64>() / n;
        let spread = observations.map(|one| (one.loss - loss).powi(2)).sum::<f64>() / (n - 1.0);
        // A few moments without a loss do not prove that there is none.
        let chance = loss.max(0.01) * (1.0 - loss).max(0.01) / packets.max(1.0);
        Some(Self { bps, loss, error: (spread / n).max(chance) })
    }
}

/// What a comparison of quiet and busy moments tells.
#[derive(Clone, Copy, PartialEq, Debug)]
enum Finding {
    /// All moments were alike, or too few.
    Unknown,
    /// The losses have nothing to do with the rate.
    Apart,
    /// Losses grow with the rate: this much comes through; how it was in the busy moments; how many
    /// standard errors the difference is.
    Bound { bps: f64, busy: Side, sure: f64 },
}

/// Less is sent, and it shows whether less is lost: if not, the rate was not to blame.
#[derive(Clone, Copy, Debug)]
struct Trial {
    before: Side,
    /// The bound before, which comes back then.
    bound: Option<f64>,
    /// What is sent meanwhile, if no bound says it.
    bps: Option<f64>,
    /// Observations to go.
    left: u32,
}

/// The observations and what follows from them.
#[derive(Debug)]
pub(super) struct LossBound {
    open: Settled,
    last_us: Option<u64>,
    ring: [Observation; OBSERVATIONS],
    taken: usize,
    smoothed: f64,
    /// Losses that the rate is not to blame for.
    explained: f64,
    bound: Option<f64>,
    trial: Option<Trial>,
    /// No trial before, and how long to wait after the next that shows nothing.
    tried_until_us: u64,
    pause_us: u64,
}

impl Default for LossBound {
    fn default() -> Self {
        Self {
            open: Settled::default(),
            last_us: None,
            ring: [Observation::default(); OBSERVATIONS],
            taken: 0,
            smoothed: 0.0,
            explained: 0.0,
            bound: None,
            trial: None,
            tried_until_us: 0,
            pause_us: FIRST_PAUSE_US,
        }
    }
}

impl LossBound {
    /// The share lost lately.
    pub(super) const fn loss(&self) -> f64 {
        self.smoothed
    }

    /// The share lost whatever the rate: what arrives is that much less than what the link takes.
    pub(super) fn inherent(&self) -> f64 {
        if self.bound.is_some() { 0.0 } else { self.smoothed.min(0.4) }
    }

    /// The rate that losses allow, if they limit it.
    pub(super) fn bps(&self) -> Option<f64> {
        let trial = self.trial.and_then(|trial| trial.bps);
        self.bound.into_iter().chain(trial).reduce(f64::min)
    }

    /// The bound alone.
    pub(super) const fn bound(&self) -> Option<f64> {
        self.bound
    }

    /// Whether a trial goes on, which a probe would spoil.
    pub(super) const fn is_trying(&self) -> bool {
        self.trial.is_some()
    }

    /// A probe came through at this rate.
    pub(super) fn lift(&mut self, bps: f64) {
        self.bound = self.bound.map(|bound| bound.max(bps));
    }

    /// Takes in packets whose fate is known now; `loaded` says that a queue stands on the way, whose
    /// overflow the delay already answers.
    pub(super) fn update(&mut self, settled: &Settled, loaded: bool) {
        self.open.join(settled);
        if self.open.packets == 0 {
            return;
        }
        let begin = self.last_us.filter(|at| self.open.last_us < *at + 2_000_000);
        let span = self.open.last_us.saturating_sub(begin.unwrap_or(self.open.first_us));
        if span < OBSERVATION_US || self.open.packets < MIN_PACKETS {
            return;
        }
        let open = std::mem::take(&mut self.open);
        self.last_us = Some(open.last_us);
        let observation = Observation {
            bps: open.bytes as f64 * 8e6 / span as f64,
            packets: open.packets,
            loss: f64::from(open.lost) / f64::from(open.packets),
        };
        let weight = if self.taken < 4 { 0.5 } else { 0.2 };
        self.smoothed += (observation.loss - self.smoothed) * weight;
        if !loaded {
            self.observe(observation, open.last_us, span as f64 / 1e6);
        }
    }

    fn observe(&mut self, observation: Observation, at_us: u64, seconds: f64) {
        if let Some(slot) = self.ring.get_mut(self.taken % OBSERVATIONS) {
            *slot = observation;
        }
        self.taken += 1;
        let Some(recent) = Side::of(self.latest(SIDE)) else { return };
        let apart = recent.loss - self.explained;
        if self.trial.is_none() && self.bound.is_none() && apart < UNEXPLAINED {
            self.explained += apart * if apart < 0.0 { FALLING } else { RISING };
        }
        if self.trial.is_none() && recent.loss < UNEXPLAINED / 2.0 + self.explained {
            let grown = self.bound.map(|bound| bound * GROWTH.powf(seconds));
            // Far above what is sent it bounds nothing.
            self.bound = grown.filter(|bound| *bound < 4.0 * recent.bps.max(100_000.0));
        }
        let surely = observation.loss.min(recent.loss - 2.0 * recent.error.sqrt());
        let cut = self.trial.is_some_and(|trial| trial.bps.is_none());
        if !cut && surely > UNBEARABLE.min(self.explained + HEAVY) {
            self.limit(self.carried(), recent);
        } else if let Some(trial) = self.trial {
            self.go_on(trial, &recent, at_us);
        } else {
            self.judge(&recent, at_us);
        }
    }

    /// What came through just now.
    fn carried(&self) -> f64 {
        self.latest(2).map(|one| one.bps * (1.0 - one.loss)).sum::<f64>() / 2.0
    }

    /// Looks for what explains the losses.
    fn judge(&mut self, recent: &Side, at_us: u64) {
        self.absolve();
        let surely = recent.loss - 2.0 * recent.error.sqrt();
        let free = at_us >= self.tried_until_us || surely > self.explained + 2.0 * UNEXPLAINED;
        match self.compare() {
            Finding::Bound { bps, busy, sure }
                if (free || sure > 2.0 * SURE)
                    && recent.loss > DIFFERENCE
                    && self.bound.is_none_or(|bound| MARGIN * bps < bound) =>
            {
                self.limit(bps, busy);
            }
            Finding::Apart => {
                self.explained = self.explained.max(recent.loss);
                self.bound = None;
            }
            Finding::Unknown
                if free
                    && Side::of(self.latest(2 * SIDE)).is_some_and(|side| {
                        let sure = UNEXPLAINED.max(SURE * side.error.sqrt());
                        self.taken >= 2 * SIDE && side.loss > self.explained + sure
                    }) =>
            {
                let bps = Some(DIP * recent.bps);
                let bound = self.bound;
                self.trial = Some(Trial { before: *recent, bound, bps, left: TRIAL });
            }
            Finding::Bound { .. } | Finding::Unknown => {}
        }
    }

    /// What is lost well below the bound is not lost by exceeding it.
    fn absolve(&mut self) {
        if let Some((bound, side)) = self.bound.zip(Side::of(self.latest(2 * SIDE)))
            && side.bps < 0.8 * bound
            && side.loss > DIFFERENCE.max(2.0 * side.error.sqrt())
        {
            self.explained = self.explained.max(side.loss);
            self.bound = None;
        }
    }

    fn go_on(&mut self, mut trial: Trial, recent: &Side, at_us: u64) {
        trial.left = trial.left.saturating_sub(1);
        self.trial = (trial.left > 0).then_some(trial);
        if trial.left > 0 {
            return;
        }
        let before = &trial.before;
        if recent.bps > LESS * before.bps {
            return;
        }
        let chance = SURE * (recent.error + before.error).sqrt();
        let may_be_chance = recent.loss > DIFFERENCE && recent.loss > before.loss - chance;
        if may_be_chance || recent.loss > CURED * before.loss {
            self.explained = self.explained.max(recent.loss);
            self.bound = trial.bound;
            self.tried_until_us = at_us.saturating_add(self.pause_us);
            self.pause_us = (2 * self.pause_us).min(MAX_PAUSE_US);
        } else if recent.loss > self.explained + UNEXPLAINED {
            // Better, and not yet well.
            self.limit(recent.bps * (1.0 - recent.loss), *recent);
        } else if trial.bps.is_some() {
            let through = trial.before.bps * (1.0 - trial.before.loss) / (1.0 - recent.loss);
            self.bound = Some(MARGIN * through);
        }
    }

    fn limit(&mut self, bps: f64, before: Side) {
        let (bps, bound) = (MARGIN * bps, self.bound);
        self.bound = Some(bound.map_or(bps, |bound| bound.min(bps)));
        self.trial = Some(Trial { before, bound, bps: None, left: TRIAL });
    }

    fn latest(&self, count: usize) -> impl Iterator<Item = Observation> + Clone {
        let from = self.taken.saturating_sub(count);
        (from..self.taken).filter_map(|at| self.ring.get(at % OBSERVATIONS).copied())
    }

    /// Compares the busier third of the latest observations with the quieter.
    fn compare(&self) -> Finding {
        let mut rates = [f64::INFINITY; OBSERVATIONS];
        let count = self.taken.min(OBSERVATIONS);
        for (slot, one) in rates.iter_mut().zip(self.latest(OBSERVATIONS)) {
            *slot = one.bps;
        }
        let third = count / 3;
        rates.sort_unstable_by(f64::total_cmp);
        let bounds = rates.get(third).zip(rates.get(count.saturating_sub(third + 1)));
        let Some((quiet, busy)) = bounds else { return Finding::Unknown };
        let quiet = Side::of(self.latest(OBSERVATIONS).filter(|one| one.bps <= *quiet));
        let busy = Side::of(self.latest(OBSERVATIONS).filter(|one| one.bps >= *busy));
        let Some((quiet, busy)) = quiet.zip(busy) else { return Finding::Unknown };
        if busy.bps < CONTRAST * quiet.bps {
            return Finding::Unknown;
        }
        // What the difference would be if the busy moments' losses were all the rate's.
        let through = busy.bps * (1.0 - busy.loss);
        let expected = busy.loss - (1.0 - through / quiet.bps.max(1.0)).max(0.0);
        let (difference, error) = (busy.loss - quiet.loss, (quiet.error + busy.error).sqrt());
        if difference > DIFFERENCE.max(expected / 2.0) && difference > SURE * error {
            let bps = through / (1.0 - quiet.loss).max(0.1);
            Finding::Bound { bps, busy, sure: difference / error }
        } else if expected > DIFFERENCE / 2.0 && difference + 2.0 * error < expected / 2.0 {
            Finding::Apart
        } else {
            Finding::Unknown
        }
    }
}

#[cfg(test)]
mod tests {
    use rand_chacha::rand_core::{Rng as _, SeedableRng as _};

    use super::*;
    use crate::core::Rng;

    /// Sends at `rate(second, bound)` through a link that loses by `lose(rate)`; gives the bounds.
    fn run(
        seconds: u64,
        rate: impl Fn(f64) -> f64,
        lose: impl Fn(f64) -> f64,
    ) -> (LossBound, Vec<f64>) {
        let mut rng = Rng::from_seed([8; 32]);
        let mut losses = LossBound::default();
        let (mut bounds, mut owed) = (Vec::new(), 0.0);
        for step in 0..seconds * 20 {
            let sending = rate(step as f64 / 20.0).min(losses.bps().unwrap_or(1e9));
            owed += sending / 20.0 / 8_000.0;
            let packets = owed as u32;
            owed -= f64::from(packets);
            let lost = (0..packets)
                .filter(|_| f64::from(rng.next_u32()) / f64::from(u32::MAX) < lose(sending))
                .count() as u32;
            let settled = Settled {
                packets,
                lost,
                bytes: u64::from(packets) * 1_000,
                lost_bytes: u64::from(lost) * 1_000,
                first_us: step * 50_000,
                last_us: step * 50_000 + 45_000,
            };
            losses.update(&settled, false);
            bounds.push(losses.bps().unwrap_or(1e9));
        }
        (losses, bounds)
    }

    #[test]
    fn losses_that_do_not_depend_on_the_rate_do_not_limit_it() {
        for share in [0.05, 0.1, 0.2, 0.3] {
            let rate =
                |at: f64| if at < 2.0 { 300_000.0 } else { 1_700_000.0 + 200_000.0 * at.sin() };
            let (losses, bounds) = run(60, rate, |_| share);
            assert!((losses.loss() - share).abs() < 0.1);
            let low = bounds.iter().filter(|bound| **bound < 1_500_000.0).count();
            assert!(low < 90, "{share}: {low} of {}", bounds.len());
        }
    }

    #[test]
    fn losses_that_begin_later_are_looked_into_once() {
        let (losses, bounds) = run(60, |_| 1_500_000.0, |_| 0.12);
        let low = bounds.iter().filter(|bound| **bound < 1_400_000.0).count();
        assert!((20..90).contains(&low), "{low}");
        assert!(losses.explained > 0.05);
    }

    #[test]
    fn a_policer_bounds_the_rate() {
        for (wanted, carried) in [(1_500_000.0, 1_000_000.0), (2_000_000.0, 500_000.0)] {
            let wanted_at = |at: f64| wanted * (1.0 + 0.2 * (at * 3.0).sin());
            let (_, bounds) = run(60, wanted_at, |rate: f64| (1.0 - carried / rate).max(0.0));
            let late = &bounds[10 * 20..];
            let high = late.iter().filter(|bound| **bound > 1.25 * carried).count();
            let low = late.iter().filter(|bound| **bound < 0.6 * carried).count();
            assert!(high < late.len() / 5 && low < late.len() / 20, "{carried}: {high} {low}");
        }
    }
}
