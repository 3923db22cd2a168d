//! Which packets are lost: one at a time, or in runs (Gilbert–Elliott).
//!
//! The choice depends on the seed and on how many packets came before, never on time: so the same
//! seed loses the same packets on a fast and on a slow machine.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng as _, SeedableRng as _};

use crate::profile::{Conditions, Runs};

/// A number in 0..1.
pub(crate) fn unit(rng: &mut ChaCha8Rng) -> f64 {
    // 53 bits are what an f64 holds exactly.
    (rng.next_u64() >> 11) as f64 / (1_u64 << 53) as f64
}

/// An own stream of numbers for one purpose, so that purposes do not disturb each other.
pub(crate) fn stream(seed: u64, number: u64) -> ChaCha8Rng {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    rng.set_stream(number);
    rng
}

/// Decides packet by packet.
pub(crate) struct Loss {
    rng: ChaCha8Rng,
    /// Packets that are still lost in the run that has begun.
    run: u64,
    /// The last packet ended a run: the next one passes, or two runs would be one.
    ended: bool,
}

impl Loss {
    pub(crate) fn new(rng: ChaCha8Rng) -> Self {
        Self { rng, run: 0, ended: false }
    }

    /// Is the next packet lost? Draws two numbers whatever the answer.
    pub(crate) fn next(&mut self, conditions: &Conditions) -> bool {
        let (chance, length) = (unit(&mut self.rng), unit(&mut self.rng));
        let share = conditions.loss_percent / 100.0;
        let Some(runs) = conditions.runs() else {
            self.run = 0;
            return chance < share;
        };
        if self.run == 0 && !self.ended && chance < Self::begins(share, runs.mean()) {
            self.run = Self::length(&runs, length);
        }
        self.ended = self.run == 1;
        let lost = self.run > 0;
        self.run = self.run.saturating_sub(1);
        lost
    }

    /// Chance that a run begins at a packet that may begin one. Of each cycle, `mean` packets are
    /// lost, one passes for certain, and `1 / chance - 1` more pass on average.
    fn begins(share: f64, mean: f64) -> f64 {
        if share >= 1.0 {
            return 1.0;
        }
        let passing = mean * (1.0 - share) / share;
        1.0 / passing.max(1.0)
    }

    fn length(runs: &Runs, random: f64) -> u64 {
        match *runs {
            Runs::Mean(mean) if mean <= 1.0 => 1,
            // Geometric, by inversion.
            Runs::Mean(mean) => {
                1 + ((1.0 - random).ln() / (1.0 - 1.0 / mean).ln()).floor().clamp(0.0, 1e6) as u64
            }
            Runs::Between(low, high) => low + (random * (high - low + 1) as f64) as u64,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PACKETS: usize = 200_000;

    fn pattern(seed: u64, conditions: &Conditions) -> Vec<bool> {
        let mut loss = Loss::new(stream(seed, 0));
        (0..PACKETS).map(|_| loss.next(conditions)).collect()
    }

    fn share(pattern: &[bool]) -> f64 {
        pattern.iter().filter(|lost| **lost).count() as f64 / pattern.len() as f64
    }

    fn runs(pattern: &[bool]) -> Vec<usize> {
        pattern.split(|lost| !lost).map(<[bool]>::len).filter(|length| *length > 0).collect()
    }

    fn mean(lengths: &[usize]) -> f64 {
        lengths.iter().sum::<usize>() as f64 / lengths.len() as f64
    }

    #[test]
    fn independent_loss_is_as_asked() {
        for percent in [0.0, 5.0, 20.0, 60.0, 100.0] {
            let found = pattern(1, &Conditions { loss_percent: percent, ..Conditions::default() });
            assert!(
                (share(&found) - percent / 100.0).abs() < 0.005,
                "{percent}: {}",
                share(&found)
            );
        }
        let found = pattern(1, &Conditions { loss_percent: 20.0, ..Conditions::default() });
        // Independent packets at 20 % fall in runs of 1 / 0.8.
        assert!((mean(&runs(&found)) - 1.25).abs() < 0.02, "{}", mean(&runs(&found)));
    }

    #[test]
    fn runs_have_the_asked_mean_and_share() {
        for (percent, burst) in [(10.0, 5.0), (3.0, 3.0), (30.0, 8.0)] {
            let asked = Conditions { loss_percent: percent, burst, ..Conditions::default() };
            let found = pattern(3, &asked);
            assert!((share(&found) - percent / 100.0).abs() < 0.01, "{percent}: {}", share(&found));
            let mean = mean(&runs(&found));
            assert!((mean - burst).abs() < burst * 0.06, "{burst}: {mean}");
        }
    }

    #[test]
    fn runs_stay_in_their_bounds() {
        let asked = Conditions {
            loss_percent: 10.0,
            burst_between: Some((5, 20)),
            ..Conditions::default()
        };
        let found = pattern(4, &asked);
        let lengths = runs(&found);
        // The last run may be cut by the end of the test.
        let whole = lengths.get(..lengths.len() - 1).unwrap();
        assert_eq!(whole.iter().min(), Some(&5));
        assert_eq!(whole.iter().max(), Some(&20));
        assert!((mean(whole) - 12.5).abs() < 0.4, "{}", mean(whole));
        assert!((share(&found) - 0.1).abs() < 0.01, "{}", share(&found));
    }

    #[test]
    fn the_seed_decides_and_nothing_else() {
        let asked = Conditions { loss_percent: 20.0, ..Conditions::default() };
        assert_eq!(pattern(7, &asked), pattern(7, &asked));
        assert_ne!(pattern(7, &asked), pattern(8, &asked));
    }
}
