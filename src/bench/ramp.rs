//! Which level is measured next: upwards until one breaks, then between the last good and the first
//! broken one until they are close.

/// Levels grow by this much while all is well.
const GROWTH: f64 = 1.5;
/// The search ends when good and broken are so close, as a share of the good one.
const CLOSE: f64 = 0.05;

/// The search.
#[derive(Clone, Debug)]
pub(super) struct Ramp {
    /// Levels that were asked for; empty: search.
    list: Vec<u64>,
    next: Option<u64>,
    most: u64,
    good: Option<u64>,
    broken: Option<u64>,
}

impl Ramp {
    /// From `from` upwards to `most`.
    pub(super) fn search(from: u64, most: u64) -> Self {
        let most = most.max(from);
        Self { list: Vec::new(), next: Some(from), most, good: None, broken: None }
    }

    /// These, until one breaks.
    pub(super) fn these(levels: &[u64]) -> Self {
        let mut list = levels.to_vec();
        list.sort_unstable_by(|a, b| b.cmp(a));
        list.dedup();
        let (most, next) = (list.first().copied().unwrap_or(0), list.pop());
        Self { list, next, most, good: None, broken: None }
    }

    /// The level to measure, if there is one.
    pub(super) const fn level(&self) -> Option<u64> {
        self.next
    }

    /// How the level went.
    pub(super) fn told(&mut self, listed: bool, good: bool) {
        let Some(level) = self.next.take() else { return };
        if good {
            self.good = Some(level);
        } else {
            self.broken = Some(level);
        }
        self.next = match (listed, good) {
            (true, true) => self.list.pop(),
            (true, false) => None,
            (false, _) => self.between(level),
        };
    }

    fn between(&self, level: u64) -> Option<u64> {
        let Some(broken) = self.broken else {
            let grown = ((level as f64 * GROWTH) as u64).max(level + 1).min(self.most);
            return (grown > level).then_some(grown);
        };
        let good = self.good.unwrap_or(0);
        let apart = broken.saturating_sub(good);
        let close = ((good as f64 * CLOSE) as u64).max(1);
        (apart > close).then_some(good + apart / 2)
    }

    /// The highest level that held all bounds.
    pub(super) const fn good(&self) -> Option<u64> {
        self.good
    }

    /// The lowest level that did not.
    pub(super) const fn broken(&self) -> Option<u64> {
        self.broken
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs a search on a server that carries so much.
    fn run(mut ramp: Ramp, listed: bool, carries: u64) -> (Vec<u64>, Option<u64>) {
        let mut seen = Vec::new();
        while let Some(level) = ramp.level() {
            seen.push(level);
            ramp.told(listed, level <= carries);
            assert!(seen.len() < 60, "{seen:?}");
        }
        (seen, ramp.good())
    }

    #[test]
    fn the_search_comes_close_to_what_the_server_carries() {
        for carries in 1..400 {
            let (seen, good) = run(Ramp::search(10, 1000), false, carries);
            let good = good.unwrap();
            let close = (good / 20).max(1);
            assert!(good <= carries && carries - good <= close, "{carries}: {good}, {seen:?}");
            let mut levels = seen.clone();
            levels.sort_unstable();
            levels.dedup();
            assert_eq!(levels.len(), seen.len(), "none twice: {seen:?}");
        }
    }

    #[test]
    fn a_server_that_carries_nothing_is_told_so() {
        let (seen, good) = run(Ramp::search(10, 1000), false, 0);
        assert_eq!(good, None);
        assert_eq!(seen.last(), Some(&1));
    }

    #[test]
    fn the_search_ends_at_the_most() {
        let (seen, good) = run(Ramp::search(10, 40), false, 1000);
        assert_eq!((seen.as_slice(), good), ([10, 15, 22, 33, 40].as_slice(), Some(40)));
        assert_eq!(run(Ramp::search(10, 5), false, 1000), (vec![10], Some(10)));
    }

    #[test]
    fn a_list_is_taken_upwards_until_one_breaks() {
        let list = Ramp::these(&[50, 10, 20, 20]);
        assert_eq!(run(list.clone(), true, 20), (vec![10, 20, 50], Some(20)));
        assert_eq!(run(list.clone(), true, 15), (vec![10, 20], Some(10)));
        assert_eq!(run(list, true, 5), (vec![10], None));
        assert_eq!(run(Ramp::these(&[]), true, 5), (vec![], None));
    }
}
