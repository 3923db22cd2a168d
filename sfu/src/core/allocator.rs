//! Who gets how much of a receiver's link: pure arithmetic.
//!
//! What voices use is taken off first. Then every video gets its lowest rung before any gets a second,
//! screens first; then the one that is furthest from what is wanted of it goes up a rung, as long as
//! that fits. What goes up must fit with room to spare and some time after the last step down; what
//! does not fit any more goes down at once.

use std::time::{Duration, Instant};

use super::ladder::RUNGS;

/// What goes up must fit this many hundredths of its cost.
const ROOM_TO_RISE: u64 = 115;
/// A first rung needs less: no picture is worse than one that may be paused again.
const ROOM_TO_START: u64 = 100;
/// What is there stays while it costs no more than this many hundredths of the budget: rates are
/// measured over a second, and pictures differ.
const TOLERANCE: u64 = 105;
/// A first rung stays longer: its keyframe counts for a second, and a link that cannot carry it
/// will say so by an estimate that falls further.
const TOLERANCE_OF_FIRST: u64 = 130;
/// The least time between a step down and the next step up.
const HOLD: Duration = Duration::from_secs(2);
/// A paused video comes back sooner.
const RESUME_HOLD: Duration = Duration::from_millis(1_000);
/// Sooner still after a probe that found much more.
const FOUND_HOLD: Duration = Duration::from_millis(100);
/// A step up that is taken back within this was a mistake: the next one waits twice as long …
const MISTAKE: Duration = Duration::from_secs(6);
/// … but no longer than this.
const LONGEST_HOLD: Duration = Duration::from_secs(16);

/// What one video could get.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Demand {
    costs: [u64; RUNGS],
    len: usize,
    /// The rung it has.
    pub(super) current: Option<usize>,
    /// It never had one: it need not wait for its first.
    pub(super) fresh: bool,
    /// A screen: read rather than looked at.
    pub(super) screen: bool,
    /// Its lowest rung is given, whether it fits or not.
    pub(super) kept: bool,
}

impl Demand {
    /// Without rungs.
    pub(super) fn new(screen: bool, fresh: bool) -> Self {
        Self { screen, fresh, ..Self::default() }
    }

    /// Adds a rung above the others. One that costs no more than those below it replaces them.
    pub(super) fn push(&mut self, bps: u64) -> usize {
        let at = self.len.min(RUNGS - 1);
        if let Some(cost) = self.costs.get_mut(at) {
            *cost = bps;
        }
        self.len = at + 1;
        at
    }

    /// Leaves the lowest rungs only.
    pub(super) fn shorten(&mut self, len: usize) {
        self.len = self.len.min(len.max(1));
    }

    /// The cost of a rung.
    pub(super) fn cost(&self, rung: usize) -> Option<u64> {
        self.costs.get(..self.len)?.get(rung).copied()
    }

    /// The cost of everything that is wanted.
    pub(super) fn whole(&self) -> u64 {
        self.costs.iter().take(self.len).copied().max().unwrap_or(0)
    }

    /// The next rung above `from` that is not dearer than a better one.
    fn next(&self, from: Option<usize>) -> Option<(usize, u64)> {
        let first = from.map_or(0, |from| from + 1);
        let mut best: Option<(usize, u64)> = None;
        for rung in first..self.len {
            let cost = self.cost(rung)?;
            if best.is_none_or(|(_, least)| cost <= least) {
                best = Some((rung, cost));
            }
        }
        best
    }
}

/// What there is to share out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Budget {
    /// Bits in a second for video.
    pub(super) bps: u64,
    /// Videos may go up.
    pub(super) may_rise: bool,
    /// Paused videos may come back.
    pub(super) may_resume: bool,
}

/// When steps up are allowed.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Patience {
    fell: Option<Instant>,
    /// The budget then.
    bps: u64,
    rose: Option<Instant>,
    hold: Option<Duration>,
}

impl Patience {
    /// Something went down, with this budget.
    pub(super) fn fell(&mut self, now: Instant, bps: u64) {
        let hold = self.hold.unwrap_or(HOLD);
        let mistaken =
            self.rose.take().is_some_and(|rose| now.saturating_duration_since(rose) < MISTAKE);
        self.hold = mistaken.then(|| (hold * 2).min(LONGEST_HOLD));
        self.fell = Some(now);
        self.bps = bps;
    }

    /// Something went up.
    pub(super) fn rose(&mut self, now: Instant) {
        self.rose = Some(now);
    }

    /// Whether something may go up, with this budget.
    pub(super) fn may_rise(&self, now: Instant, bps: u64) -> bool {
        self.waited(now, bps, self.hold.unwrap_or(HOLD))
    }

    /// Whether a paused video may come back.
    pub(super) fn may_resume(&self, now: Instant, bps: u64) -> bool {
        self.waited(now, bps, self.hold.map_or(RESUME_HOLD, |hold| hold / 2))
    }

    /// A budget that has grown by half has been found by a probe: there is nothing to wait for.
    fn waited(&self, now: Instant, bps: u64, hold: Duration) -> bool {
        let found = self.hold.is_none() && bps > self.bps.saturating_mul(3) / 2;
        let hold = if found { FOUND_HOLD } else { hold };
        self.fell.is_none_or(|fell| now.saturating_duration_since(fell) >= hold)
    }
}

/// Shares the budget out; into `rungs` goes what each demand gets.
pub(super) fn share(budget: Budget, demands: &[Demand], rungs: &mut Vec<Option<usize>>) {
    rungs.clear();
    rungs.resize(demands.len(), None);
    let mut used = 0u64;
    // Screens, then what is shown already, so that the same ones stay.
    for class in 0..4 {
        for (demand, rung) in demands.iter().zip(rungs.iter_mut()) {
            let rank = u8::from(!demand.screen) * 2 + u8::from(demand.current.is_none());
            if rank != class {
                continue;
            }
            let Some((lowest, cost)) = demand.next(None) else { continue };
            if demand.kept || fits(budget, demand, lowest, used, cost) {
                used = used.saturating_add(cost);
                *rung = Some(lowest);
            }
        }
    }
    while let Some((at, rung, more)) = best_step(budget, demands, rungs, used) {
        used = used.saturating_add(more);
        if let Some(place) = rungs.get_mut(at) {
            *place = Some(rung);
        }
    }
}

/// The step up that helps most: of whom, to which rung, at which cost.
fn best_step(
    budget: Budget,
    demands: &[Demand],
    rungs: &[Option<usize>],
    used: u64,
) -> Option<(usize, usize, u64)> {
    let mut best: Option<(u64, usize, usize, u64)> = None;
    for (at, (demand, has)) in demands.iter().zip(rungs).enumerate() {
        let Some(has) = *has else { continue };
        let Some((rung, cost)) = demand.next(Some(has)) else { continue };
        let now = demand.cost(has).unwrap_or(0);
        let more = cost.saturating_sub(now);
        if !fits(budget, demand, rung, used, more) {
            continue;
        }
        // Thousandths of what is wanted. What is there already goes before what is not, unless it has
        // much more; a screen before a face.
        let mut level = now.saturating_mul(1_000) / demand.whole().max(1);
        if demand.current >= Some(rung) {
            level = level * 6 / 10;
        }
        if demand.screen {
            level /= 2;
        }
        if best.is_none_or(|(least, ..)| level < least) {
            best = Some((level, at, rung, more));
        }
    }
    best.map(|(_, at, rung, more)| (at, rung, more))
}

/// Whether a step to a rung fits. A step up needs room to spare.
fn fits(budget: Budget, demand: &Demand, rung: usize, used: u64, more: u64) -> bool {
    let sum = used.saturating_add(more);
    let first = Some(rung) == demand.next(None).map(|(at, _)| at);
    if demand.current >= Some(rung) {
        let tolerance = if first { TOLERANCE_OF_FIRST } else { TOLERANCE };
        return sum <= budget.bps.saturating_mul(tolerance) / 100;
    }
    let allowed = match demand.current {
        _ if demand.fresh => true,
        Some(_) => budget.may_rise,
        None => budget.may_resume && (rung == 0 || budget.may_rise),
    };
    let room = if demand.current.is_none() && first { ROOM_TO_START } else { ROOM_TO_RISE };
    allowed && sum.saturating_mul(room) / 100 <= budget.bps
}

#[cfg(test)]
mod tests {
    use rand_chacha::rand_core::{Rng as _, SeedableRng as _};

    use super::*;

    fn video(costs: &[u64], current: Option<usize>) -> Demand {
        let mut demand = Demand { current, ..Demand::default() };
        costs.iter().for_each(|kbps| {
            demand.push(kbps * 1_000);
        });
        demand
    }

    const LADDER: [u64; 3] = [150, 500, 1_700];

    fn given(kbps: u64, demands: &[Demand]) -> Vec<Option<usize>> {
        let mut rungs = Vec::new();
        let budget = Budget { bps: kbps * 1_000, may_rise: true, may_resume: true };
        share(budget, demands, &mut rungs);
        rungs
    }

    #[test]
    fn one_video_gets_what_fits() {
        for (kbps, current, expected) in [
            (0, None, None),
            (149, None, None),
            (150, None, Some(0)),
            (116, Some(0), Some(0)),
            (115, Some(0), None),
            (500, Some(0), Some(0)),
            (575, Some(0), Some(1)),
            (480, Some(1), Some(1)),
            (470, Some(1), Some(0)),
            (1_620, Some(2), Some(2)),
            (1_955, None, Some(2)),
            (100_000, Some(0), Some(2)),
        ] {
            let demand = video(&LADDER, current);
            assert_eq!(given(kbps, &[demand]), [expected], "{kbps} kbit/s from {current:?}");
        }
    }

    #[test]
    fn nobody_gets_a_second_rung_before_all_have_one() {
        let all = [video(&LADDER, Some(2)), video(&LADDER, None), video(&LADDER, None)];
        assert_eq!(given(520, &all), [Some(0); 3]);
        assert_eq!(given(350, &all), [Some(0), Some(0), None]);
        assert_eq!(given(100, &all), [None; 3]);
    }

    #[test]
    fn steps_up_are_shared_fairly() {
        let all = [video(&LADDER, Some(0)), video(&LADDER, Some(0))];
        assert_eq!(given(1_150, &all), [Some(1); 2]);
        assert_eq!(given(2_530, &all), [Some(2), Some(1)]);
        let uneven = [video(&LADDER, Some(2)), video(&LADDER, Some(0))];
        assert_eq!(given(2_530, &uneven), [Some(2), Some(1)]);
        assert_eq!(given(1_850, &uneven), [Some(1), Some(1)], "better two fair ones");
        let near = [video(&[150, 500, 700], Some(2)), video(&[150, 500, 700], Some(1))];
        assert_eq!(given(1_300, &near), [Some(2), Some(1)], "what is there stays");
    }

    #[test]
    fn a_screen_goes_before_faces() {
        let screen = Demand { screen: true, ..video(&[200, 1_500], None) };
        let all = [video(&LADDER, Some(0)), screen];
        assert_eq!(given(200, &all), [None, Some(0)]);
        assert_eq!(given(190, &all), [Some(0), None], "better a face than nothing");
        assert_eq!(given(1_900, &all), [Some(0), Some(1)]);
    }

    #[test]
    fn what_may_not_be_paused_keeps_its_lowest_rung() {
        let kept = Demand { kept: true, ..video(&LADDER, None) };
        assert_eq!(given(0, &[kept, video(&LADDER, None)]), [Some(0), None]);
    }

    #[test]
    fn a_rung_dearer_than_a_better_one_is_passed_over() {
        let odd = video(&[300, 200, 900], None);
        assert_eq!(given(250, &[odd]), [Some(1)]);
        assert_eq!(given(2_000, &[odd]), [Some(2)]);
        assert_eq!(given(100, &[video(&[], None)]), [None]);
    }

    #[test]
    fn without_leave_nothing_rises_but_what_is_new() {
        let budget = Budget { bps: 10_000_000, may_rise: false, may_resume: false };
        let mut rungs = Vec::new();
        let fresh = Demand { fresh: true, ..video(&LADDER, None) };
        let all = [video(&LADDER, Some(1)), video(&LADDER, None), fresh];
        share(budget, &all, &mut rungs);
        assert_eq!(rungs, [Some(1), None, Some(2)]);
        share(Budget { may_resume: true, ..budget }, &all, &mut rungs);
        assert_eq!(rungs, [Some(1), Some(0), Some(2)]);
    }

    #[test]
    fn mistakes_make_patient() {
        let mut patience = Patience::default();
        let mut now = Instant::now();
        assert!(patience.may_rise(now, 0) && patience.may_resume(now, 0));
        for hold in [2, 4, 8, 16, 16] {
            patience.fell(now, 500);
            assert!(!patience.may_rise(now + Duration::from_millis(hold * 1_000 - 1), 700));
            assert!(patience.may_resume(now + Duration::from_millis(hold * 500), 700));
            assert_eq!(patience.may_rise(now + FOUND_HOLD, 800), hold == 2, "a probe found more");
            now += Duration::from_secs(hold);
            assert!(patience.may_rise(now, 700));
            patience.rose(now);
            now += Duration::from_secs(1);
        }
        now += MISTAKE;
        patience.fell(now, 500);
        assert!(patience.may_rise(now + HOLD, 700), "that step up had lasted");
    }

    #[test]
    fn whatever_comes_the_sum_fits_and_the_same_again_is_the_same() {
        let mut rng = crate::core::Rng::from_seed([6; 32]);
        let mut draw = |below: u32| u64::from(rng.next_u32() % below);
        for _ in 0..20_000 {
            let mut demands = Vec::new();
            for _ in 0..draw(6) {
                let costs: Vec<u64> = (0..draw(7)).map(|_| draw(2_000)).collect();
                let current =
                    (draw(2) == 0 && !costs.is_empty()).then(|| draw(costs.len() as u32) as usize);
                let screen = draw(4) == 0;
                demands.push(Demand { screen, ..video(&costs, current) });
            }
            let kbps = draw(8_000);
            let first = given(kbps, &demands);
            let cost = |rungs: &[Option<usize>], demands: &[Demand]| -> u64 {
                let pairs = demands.iter().zip(rungs);
                pairs.filter_map(|(demand, rung)| demand.cost((*rung)?)).sum()
            };
            assert!(cost(&first, &demands) <= kbps * 1_300, "{kbps} {demands:?} {first:?}");
            for (demand, rung) in demands.iter_mut().zip(&first) {
                demand.current = *rung;
            }
            let again = given(kbps, &demands);
            let mut settled = demands.clone();
            for (demand, rung) in settled.iter_mut().zip(&again) {
                demand.current = *rung;
            }
            let more = given(kbps * 2, &settled);
            let shown = |rungs: &[Option<usize>]| rungs.iter().flatten().count();
            assert!(shown(&more) >= shown(&again), "more budget, fewer videos");
        }
    }

    #[test]
    fn a_steady_budget_settles() {
        let mut rng = crate::core::Rng::from_seed([7; 32]);
        for _ in 0..5_000 {
            let count = 1 + rng.next_u32() % 5;
            let mut demands: Vec<Demand> = (0..count).map(|_| video(&LADDER, None)).collect();
            let kbps = u64::from(rng.next_u32() % 9_000);
            let mut before = Vec::new();
            for round in 0..10 {
                let rungs = given(kbps, &demands);
                for (demand, rung) in demands.iter_mut().zip(&rungs) {
                    demand.current = *rung;
                }
                assert!(round < 4 || rungs == before, "{kbps}: {before:?} then {rungs:?}");
                before = rungs;
            }
            let least = before.iter().flatten().min();
            assert!(
                least.is_none_or(|least| *least > 0 || before.iter().flatten().all(|r| *r < 2))
                    || kbps < 1_150 * u64::from(count) + 1_955,
                "{kbps}: {before:?}"
            );
        }
    }
}
