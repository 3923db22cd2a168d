//! How much redundancy a receiver's sound is given, by what its link loses.
//!
//! A receiver without loss gets what the publisher made: Chromium repeats each sound once, which
//! costs nothing to pass on, and heals the first losses before any report tells of them.

use std::time::{Duration, Instant};

use super::red::MAX_OLD;

/// Loss from which on a sound is repeated in so many packets after it. Two copies leave p³ of a loss
/// of p; the third is for losses in a row.
const STEPS: [f32; 3] = [0.01, 0.04, 0.10];
/// Less is given only after the loss has been lower for so long.
const CALM: Duration = Duration::from_secs(10);
/// More is given only after there has been room for it for so long.
const STEADY: Duration = Duration::from_secs(2);
/// What a packet of sound costs beside its payload: UDP, RTP, its extensions and the seal's tag.
const OVERHEAD: u64 = 72;
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
    /// Copies that there is room for, and since when there has been room for more.
    room: Option<u8>,
    steady: Option<Instant>,
}

/// How many copies of each sound fit in half of a link: where more is spent on them, it is they that
/// fill it, and the loss that they are to heal is of their own making.
pub(super) fn fitting(estimate_bps: u64, sound: &Load) -> u8 {
    let (packets, payload) = (sound.packets_per_second, sound.payload_bps);
    let rest = (estimate_bps / 2).saturating_sub(payload + packets * OVERHEAD * 8);
    let fit = rest.checked_div(payload).unwrap_or(MAX_OLD as u64);
    fit.min(MAX_OLD as u64) as u8
}

/// What the sounds of one receiver cost before anything is repeated.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Load {
    pub(super) packets_per_second: u64,
    pub(super) payload_bps: u64,
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
    /// a while without need; nothing where the link has no room for it. `fit`: copies there is room
    /// for.
    pub(super) fn update(&mut self, now: Instant, loss: f32, fit: u8) -> Redundancy {
        let room = self.room(now, fit);
        if room == 0 {
            (self.distance, self.calm) = (0, None);
            return Redundancy::Stripped;
        }
        let wanted = STEPS.iter().filter(|step| loss >= **step).count() as u8;
        let wanted = wanted.min(room);
        self.distance = self.distance.min(room);
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

    fn room(&mut self, now: Instant, fit: u8) -> u8 {
        let room = self.room.get_or_insert(fit);
        if fit <= *room {
            (*room, self.steady) = (fit, None);
        } else {
            let since = *self.steady.get_or_insert(now);
            if now.saturating_duration_since(since) >= STEADY {
                (*room, self.steady) = (*room + 1, Some(now));
            }
        }
        *room
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn redundancy_rises_at_once_and_falls_step_by_step() {
        let (mut protection, start) = (Protection::default(), Instant::now());
        let mut at = |ms: u64, loss| {
            let redundancy = protection.update(start + Duration::from_millis(ms), loss, 3);
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
    fn a_narrow_link_gets_what_fits() {
        let (mut protection, start) = (Protection::default(), Instant::now());
        let mut at = |ms: u64, fit| protection.update(start + Duration::from_millis(ms), 0.3, fit);
        assert_eq!(at(0, 3), Redundancy::AtLeast(3));
        assert_eq!(at(100, 1), Redundancy::AtLeast(1));
        assert_eq!(at(200, 0), Redundancy::Stripped);
        // More only when it stays.
        assert_eq!([at(300, 3), at(2_299, 3)], [Redundancy::Stripped; 2]);
        assert_eq!(at(2_300, 3), Redundancy::AtLeast(1));
        assert_eq!([at(2_400, 1), at(2_500, 3)], [Redundancy::AtLeast(1); 2]);
        assert_eq!(at(4_500, 3), Redundancy::AtLeast(2));
    }

    #[test]
    fn copies_take_half_of_a_link_at_most() {
        let voice = Load { packets_per_second: 50, payload_bps: 48_000 };
        let fit = [100_000, 200_000, 270_000, 350_000, 450_000, 5_000_000];
        assert_eq!(fit.map(|bps| fitting(bps, &voice)), [0, 0, 1, 2, 3, 3]);
        let quiet = Load { packets_per_second: 50, payload_bps: 16_000 };
        assert_eq!(fitting(200_000, &quiet), 3);
        assert_eq!(fitting(10_000, &Load::default()), 3, "there is no sound yet");
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
