//! Waiting longer after each failure, and never in step with others.

use std::time::Duration;

/// The first wait at the longest.
const FIRST: Duration = Duration::from_millis(500);
/// The longest wait: what piled up while the broker was away leaves within a minute of its return.
const LONGEST: Duration = Duration::from_secs(15);

/// How often it failed in a row.
#[derive(Debug, Default)]
pub(super) struct Backoff {
    failures: u32,
}

impl Backoff {
    /// It worked.
    pub(super) const fn reset(&mut self) {
        self.failures = 0;
    }

    /// It failed: how long to wait. `dice` is any random number; the wait is between half of the
    /// bound and the bound, so that many that lost one broker do not come back as one.
    pub(super) fn failed(&mut self, dice: u64) -> Duration {
        let bound = FIRST.saturating_mul(1 << self.failures.min(16)).min(LONGEST);
        self.failures = self.failures.saturating_add(1);
        let half = bound / 2;
        let spread = u64::try_from(half.as_millis()).unwrap_or(u64::MAX).saturating_add(1);
        half + Duration::from_millis(dice % spread)
    }

    /// The same with a random number of the system's.
    pub(super) fn after_failure(&mut self) -> Duration {
        // A v4 UUID is random in its first and last eight bytes.
        self.failed(uuid::Uuid::new_v4().as_u64_pair().1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_to_a_bound_and_differ() {
        let mut backoff = Backoff::default();
        let highest: Vec<u128> = (0..8).map(|_| backoff.failed(u64::MAX / 2).as_millis()).collect();
        assert!(highest.iter().all(|wait| (250..=15_000).contains(wait)), "{highest:?}");
        assert!(highest[5] >= 7_500, "{highest:?}");
        let two = [backoff.failed(1), backoff.failed(4_000)];
        assert_ne!(two[0], two[1]);
        backoff.reset();
        assert!(backoff.failed(7) <= FIRST);
        for _ in 0..100 {
            assert!(backoff.after_failure() <= LONGEST);
        }
    }
}
