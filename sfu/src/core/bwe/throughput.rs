//! How many bytes a second passed lately, at either end.

/// Width of a bin.
const BIN_US: i64 = 25_000;
/// Bins kept: a second.
const BINS: usize = 40;
/// Times that go back further than this belong to another clock: counting starts anew.
const BACK_US: i64 = 3_000_000;

/// Bytes by time, in bins.
#[derive(Debug)]
pub(super) struct Throughput {
    bins: [u32; BINS],
    /// The bin being filled, counted from time zero; `None` before the first packet.
    newest: Option<i64>,
    /// When the first packet since the start came, and the latest.
    first_us: i64,
    latest_us: i64,
}

impl Default for Throughput {
    fn default() -> Self {
        Self { bins: [0; BINS], newest: None, first_us: 0, latest_us: 0 }
    }
}

impl Throughput {
    /// Counts `bytes` at a time.
    pub(super) fn add(&mut self, at_us: i64, bytes: u16) {
        let bin = at_us.div_euclid(BIN_US);
        let newest = match self.newest {
            Some(newest) if at_us >= self.latest_us.saturating_sub(BACK_US) => newest,
            Some(_) | None => {
                *self = Self {
                    newest: Some(bin),
                    first_us: at_us,
                    latest_us: at_us,
                    ..Self::default()
                };
                bin
            }
        };
        if bin > newest {
            self.advance(newest, bin);
        } else if newest - bin >= BINS as i64 {
            return;
        }
        self.latest_us = self.latest_us.max(at_us);
        if let Some(slot) = self.bins.get_mut(bin.rem_euclid(BINS as i64) as usize) {
            *slot = slot.saturating_add(u32::from(bytes));
        }
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
    }

    /// The rate over the last `bins` full bins and the one being filled, if so much time was seen.
    pub(super) fn bps(&self, bins: usize) -> Option<f64> {
        let newest = self.newest?;
        let begin = (newest - bins as i64) * BIN_US;
        if self.first_us > begin + BIN_US || bins >= BINS {
            return None;
        }
        let bytes: u64 = (0..=bins as i64)
            .filter_map(|back| self.bins.get((newest - back).rem_euclid(BINS as i64) as usize))
            .map(|bytes| u64::from(*bytes))
            .sum();
        let span = self.latest_us.saturating_sub(begin).max(1);
        Some(bytes as f64 * 8e6 / span as f64)
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
