//! How much redundancy a receiver's sound is given, by what its link loses.
//!
//! A receiver without loss gets what the publisher made: Chromium repeats each sound once, which
//! costs nothing to pass on, and heals the first losses before any report tells of them.

use std::time::{Duration, Instant};

/// Loss from which on a sound is repeated in so many packets after it. Two copies leave p³ of a loss
/// of p; the third is for losses in a row.
const STEPS: [f32; 3] = [0.01, 0.04, 0.10];
/// Less is given only after the loss has been lower for so long.
const CALM: Duration = Duration::from_secs(10);
/// A smoothed loss follows a rising one in this share of a report, a falling one in the other.
const RISE: f32 = 0.5;
const FALL: f32 = 0.15;

/// What a receiver's sound is wrapped in, where both sides read redundant audio.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Redundancy {
    /// Nothing, also where the publisher made some: there is no room for it.
    Stripped,
    /// What the publisher made, and so many earlier sounds at least.
    AtLeast(u8),
}

/// The redundancy of one receiver.
#[derive(Debug, Default)]
pub(super) struct Protection {
    reported: f32,
    distance: u8,
    /// Since when less would do.
    calm: Option<Instant>,
}

impl Protection {
    /// A receiver report's share of lost packets, in 1/256.
    pub(super) fn report(&mut self, fraction_lost: u8) {
        let loss = f32::from(fraction_lost) / 256.0;
        let weight = if loss > self.reported { RISE } else { FALL };
        self.reported += (loss - self.reported) * weight;
    }

    /// Smoothed loss of the reports, 0..=1.
    pub(super) const fn reported(&self) -> f32 {
        self.reported
    }

    /// How many packets after its own repeat a sound by now.
    pub(super) const fn distance(&self) -> u8 {
        self.distance
    }

    /// How many packets after its own repeat a sound, given the loss of now. More at once, less after
    /// a while without need; nothing where the link has no room for it.
    pub(super) fn update(&mut self, now: Instant, loss: f32, tight: bool) -> Redundancy {
        let wanted = STEPS.iter().filter(|step| loss >= **step).count() as u8;
        if tight {
            (self.distance, self.calm) = (0, None);
            return Redundancy::Stripped;
        }
        if wanted >= self.distance {
            (self.distance, self.calm) = (wanted, None);
        } else {
            let since = *self.calm.get_or_insert(now);
            if now.saturating_duration_since(since) >= CALM {
                self.distance -= 1;
                self.calm = Some(now);
            }
        }
        Redundancy::AtLeast(self.distance)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn redundancy_rises_at_once_and_falls_step_by_step() {
        let (mut protection, start) = (Protection::default(), Instant::now());
        let mut at = |ms: u64, loss| {
            let redundancy = protection.update(start + Duration::from_millis(ms), loss, false);
            let Redundancy::AtLeast(distance) = redundancy else { panic!("there is room") };
            distance
        };
        assert_eq!([at(0, 0.0), at(50, 0.009), at(100, 0.01), at(150, 0.2)], [0, 0, 1, 3]);
        assert_eq!([at(200, 0.06), at(10_199, 0.06), at(10_200, 0.06)], [3, 3, 2]);
        assert_eq!([at(10_250, 0.0), at(20_250, 0.0), at(20_300, 0.0)], [2, 1, 1]);
        assert_eq!([at(25_000, 0.02), at(34_000, 0.0), at(43_999, 0.0)], [1, 1, 1]);
        assert_eq!(at(44_000, 0.0), 0);
    }

    #[test]
    fn a_tight_link_gets_none() {
        let (mut protection, now) = (Protection::default(), Instant::now());
        assert_eq!(protection.update(now, 0.3, false), Redundancy::AtLeast(3));
        assert_eq!(protection.update(now, 0.3, true), Redundancy::Stripped);
        assert_eq!(protection.update(now, 0.3, false), Redundancy::AtLeast(3));
    }

    #[test]
    fn reports_are_followed_faster_upwards() {
        let mut protection = Protection::default();
        (0..3).for_each(|_| protection.report(51));
        assert!((0.15..0.2).contains(&protection.reported()), "{}", protection.reported());
        (0..3).for_each(|_| protection.report(0));
        assert!(protection.reported() > 0.1);
        (0..30).for_each(|_| protection.report(0));
        assert!(protection.reported() < 0.01);
    }
}
