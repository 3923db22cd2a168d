//! When what one client says again and again is applied: at once, but not again before a moment has
//! passed, and ever more slowly while there is no end to it. What comes meanwhile is applied together.

use std::time::{Duration, Instant};

/// The least distance of two applications.
const DISTANCE: Duration = Duration::from_millis(100);
/// What earns one more of them …
const EARNED: Duration = Duration::from_millis(400);
/// … and how many are saved up at the most: a page that is scrolled has them.
const BUDGET: u32 = 10;

/// The pace of one kind of wishes.
#[derive(Debug, Default)]
pub(super) struct Settling {
    next: Option<Instant>,
    waits: bool,
    /// Applications spent beyond what time has earned, as the time when all is earned again.
    spent_until: Option<Instant>,
}

impl Settling {
    /// When what waits is to be applied.
    pub(super) fn due(&self) -> Option<Instant> {
        self.next.filter(|_| self.waits)
    }

    /// Something was said, or is due. `None`: it is to be applied now; else then.
    pub(super) fn wait(&mut self, now: Instant) -> Option<Instant> {
        if let Some(next) = self.next.filter(|next| *next > now) {
            self.waits = true;
            return Some(next);
        }
        let spent_until = self.spent_until.map_or(now, |at| at.max(now)) + EARNED;
        let earned = spent_until.checked_sub(EARNED * (BUDGET - 1)).unwrap_or(now);
        self.spent_until = Some(spent_until);
        self.next = Some(earned.max(now + DISTANCE));
        self.waits = false;
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn applied(settling: &mut Settling, from: Instant, millis: u64) -> usize {
        let moments = (0..millis).map(|ms| from + Duration::from_millis(ms));
        moments.filter(|at| settling.wait(*at).is_none()).count()
    }

    #[test]
    fn a_burst_is_applied_quickly_and_a_flood_slowly() {
        let start = Instant::now() + Duration::from_secs(60);
        let mut settling = Settling::default();
        assert_eq!(settling.wait(start), None, "at once");
        assert_eq!(settling.due(), None, "nothing waits");
        assert!(settling.wait(start + Duration::from_millis(1)).is_some());
        assert_eq!(settling.due(), Some(start + DISTANCE));
        assert_eq!(applied(&mut settling, start + DISTANCE, 800), 8);
        let flood = applied(&mut settling, start + Duration::from_secs(2), 10_000);
        assert!((25..=34).contains(&flood), "{flood}");
        let calm = start + Duration::from_secs(30);
        assert_eq!(applied(&mut settling, calm, 900), 9);
    }
}
