//! How many bytes a second passed lately, at either end.

/// Width of a bin.
const BIN_US: i64 = 25_000;
/// Bins kept: a power of two, so that finding one is cheap.
const BINS: usize = 32;
/// Times that go back further than this belong to another clock: counting starts anew.
const BACK_US: i64 = 3_000_000;

/// Bytes by time, in bins.
#[derive(Debug)]
pub(super) struct Throughput {
    bins: [u32; BINS],
    /// The bin being filled, counted from time zero, and when it begins; `None` before the first
    /// packet.
    newest: Option<i64>,
    begin_us: i64,
    /// When the first packet since the start came, and the latest.
    first_us: i64,
    latest_us: i64,
}

impl Default for Throughput {
    fn default() -> Self {
        Self { bins: [0; BINS], newest: None, begin_us: i64::MAX, first_us: 0, latest_us: 0 }
    }
}

impl Throughput {
    /// Counts `bytes` at a time.
    pub(super) fn add(&mut self, at_us: i64, bytes: u16) {
        // Nearly always the bin of the packet before: no division then.
        let bin = if (0..BIN_US).contains(&at_us.saturating_sub(self.begin_us)) {
            self.newest.unwrap_or(0)
        } else {
            let Some(bin) = self.turn(at_us) else { return };
            bin
        };
        self.latest_us = self.latest_us.max(at_us);
        if let Some(slot) = self.bins.get_mut(bin.rem_euclid(BINS as i64) as usize) {
            *slot = slot.saturating_add(u32::from(bytes));
        }
    }

    /// The bin of a time that is not in the newest one; `None` for what is too old.
    fn turn(&mut self, at_us: i64) -> Option<i64> {
        let bin = at_us.div_euclid(BIN_US);
        match self.newest {
            Some(newest) if at_us >= self.latest_us.saturating_sub(BACK_US) => {
                if bin > newest {
                    self.advance(newest, bin);
                } else if newest - bin >= BINS as i64 {
                    return None;
                }
            }
            Some(_) | None => {
                *self = Self { first_us: at_us, latest_us: at_us, ..Self::default() };
                self.advance(bin, bin);
            }
        }
        Some(bin)
    }

    fn advance(&mut self, newest: i64, bin: i64) {
        if bin.saturating_sub(newest) >= BINS as i64 {
            self.bins = [0; BINS];
        } else {
            for skipped in newest + 1..=bin {
                if let Some(slot) = self.bins.get_mut(skipped.rem_euclid(BINS as i64) as usize) {
                    *slot = 0;
                }
            }
        }
        self.newest = Some(bin);
        self.begin_us = bin.saturating_mul(BIN_US);
    }

    /// The rate over the last `bins` full bins and the one being filled, if so much time was seen.
    pub(super) fn bps(&self, bins: usize) -> Option<f64> {
        self.newest?;
        let begin = self.begin_us.saturating_sub(bins as i64 * BIN_US);
        if self.first_us > begin.saturating_add(BIN_US) || bins >= BINS {
            return None;
        }
        let span = self.latest_us.saturating_sub(begin).max(1);
        Some(self.sum(bins) * 8e6 / span as f64)
    }

    /// Bytes in the last bins.
    fn sum(&self, bins: usize) -> f64 {
        let newest = self.newest.unwrap_or(0);
        (0..=bins as i64)
            .filter_map(|back| self.bins.get((newest - back).rem_euclid(BINS as i64) as usize))
            .map(|bytes| f64::from(*bytes))
            .sum()
    }

    /// The same, as far as it is not older than `since_us`: nothing if it is.
    pub(super) fn bps_since(&self, bins: usize, since_us: i64) -> f64 {
        if self.latest_us < since_us {
            0.0
        } else {
            self.sum(bins) * 8e6 / ((bins as i64 + 1) * BIN_US) as f64
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_steady_rate_is_told() {
        let mut meter = Throughput::default();
        assert_eq!(meter.bps(20), None);
        for step in 0..200 {
            meter.add(1_000_000 + step * 10_000, 1_000);
        }
        for bins in [6, 20] {
            let bps = meter.bps(bins).unwrap();
            assert!((700_000.0..900_000.0).contains(&bps), "{bps}");
        }
        // Silence counts.
        meter.add(3_400_000, 0);
        assert!(meter.bps(20).unwrap() < 200_000.0);
    }

    #[test]
    fn any_times_are_survived() {
        let mut meter = Throughput::default();
        for at in [0, i64::MAX / 2, 5, -5_000_000, i64::MIN / 2, 4_000_000, 3_999_000, 9_000_000] {
            meter.add(at, 1_500);
            assert!(meter.bps(20).unwrap_or(0.0) >= 0.0);
        }
        assert_eq!(meter.newest, Some(360));
    }
}
