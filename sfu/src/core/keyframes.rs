//! When a publisher is asked for a keyframe of one layer.
//!
//! Two needs are kept apart. Somebody who cannot see anything yet (a new subscriber, a switch, media
//! torn beyond repair) is served at once: a keyframe that is asked for already and under way will do
//! for them too, else one is asked for. A viewer who repeats the request of its decoder is damped,
//! so that a bad line of one does not cost the others their picture quality.

use std::time::{Duration, Instant};

/// The least distance of two requests that start somebody.
const START_DISTANCE: Duration = Duration::from_millis(100);
/// An answer is overdue when it takes this much longer than a round trip: encoders finish the frame
/// at hand, and a keyframe is long.
const ANSWER_SLACK: Duration = Duration::from_millis(100);
/// Requests without an answer grow apart up to this.
const MAX_RETRY: Duration = Duration::from_secs(1);
/// Requests that start somebody, saved up at the most.
const START_BUDGET: u32 = 6;
/// What earns one more of them.
const START_EARNED: Duration = Duration::from_millis(300);
/// The least distance of a viewer's request to any request before: two in a second.
const REPEAT_DISTANCE: Duration = Duration::from_millis(500);
/// Where others watch too, a viewer's requests grow apart up to this.
const MAX_REPEAT: Duration = Duration::from_secs(4);
/// A viewer that was content for so long starts afresh.
const CONTENT: Duration = Duration::from_secs(10);

/// Who needs a keyframe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Need {
    /// Somebody who has no picture of this layer yet, or cannot have one any more.
    Start,
    /// A viewer whose decoder asks.
    Repeat,
    /// A request that had to wait.
    Due,
}

/// The keyframe requests of one layer.
#[derive(Debug, Default)]
pub(super) struct Keyframes {
    asked: Option<Instant>,
    came: Option<Instant>,
    /// Extended sequence number of the newest keyframe's first packet.
    newest: u64,
    due: Option<Instant>,
    /// Requests since the last keyframe.
    unanswered: u32,
    /// Starts spent beyond what time has earned, as the time when all is earned again.
    spent_until: Option<Instant>,
}

impl Keyframes {
    /// Someone needs a keyframe. `true`: ask the publisher now; else the request waits until
    /// [`Self::due`], unless it is met before.
    pub(super) fn want(&mut self, now: Instant, need: Need, round_trip: Duration) -> bool {
        let at = match need {
            Need::Start => self.start_at(now, round_trip),
            Need::Repeat => self.asked.map_or(now, |asked| asked + REPEAT_DISTANCE),
            Need::Due => match self.due {
                Some(due) => due,
                None => return false,
            },
        };
        if at > now {
            self.due = Some(self.due.map_or(at, |due| due.min(at)));
            return false;
        }
        if need == Need::Start {
            self.spent_until = Some(self.spent_until.map_or(now, |at| at.max(now)) + START_EARNED);
        }
        self.unanswered += 1;
        self.asked = Some(now);
        self.due = None;
        true
    }

    /// When a request that starts somebody may leave.
    fn start_at(&self, now: Instant, round_trip: Duration) -> Instant {
        let Some(asked) = self.asked else { return now };
        let under_way = self.came.is_none_or(|came| came < asked);
        let distance = if under_way {
            let tries = self.unanswered.clamp(1, 8);
            let answer = (round_trip + ANSWER_SLACK) * (tries + 1) / 2;
            answer.max(START_DISTANCE).min(MAX_RETRY.max(round_trip * 2))
        } else {
            START_DISTANCE
        };
        let saved_up = START_EARNED * (START_BUDGET - 1);
        let earned = self.spent_until.and_then(|at| at.checked_sub(saved_up));
        earned.map_or(asked + distance, |earned| earned.max(asked + distance))
    }

    /// When a delayed request is to be made.
    pub(super) const fn due(&self) -> Option<Instant> {
        self.due
    }

    /// A keyframe has come, beginning with this packet: nobody waits any more.
    pub(super) fn came(&mut self, now: Instant, index: u64) {
        self.came = Some(now);
        self.newest = self.newest.max(index);
        self.due = None;
        self.unanswered = 0;
    }

    /// Whether what a packet was needed for has been replaced by a keyframe behind it.
    pub(super) const fn supersedes(&self, index: u64) -> bool {
        index < self.newest
    }

    /// Whether a request that left a viewer a round trip ago knew the newest keyframe.
    pub(super) fn answered(&self, now: Instant, round_trip: Duration) -> bool {
        self.came.is_some_and(|came| now.saturating_duration_since(came) < round_trip)
    }
}

/// The requests of one viewer.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Viewer {
    passed: Option<Instant>,
    /// Requests passed on without a pause.
    streak: u32,
}

impl Viewer {
    /// Whether a viewer's request is passed on. `shared`: others watch the same layer.
    pub(super) fn passes(&mut self, now: Instant, shared: bool) -> bool {
        let Some(passed) = self.passed else {
            (self.passed, self.streak) = (Some(now), 0);
            return true;
        };
        let since = now.saturating_duration_since(passed);
        if since >= CONTENT {
            self.streak = 0;
        }
        let distance = REPEAT_DISTANCE * (1 << self.streak.min(3));
        if shared && since < distance.min(MAX_REPEAT) {
            return false;
        }
        if since >= REPEAT_DISTANCE {
            self.streak += 1;
            self.passed = Some(now);
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROUND_TRIP: Duration = Duration::from_millis(60);

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    /// Times in ms at which a request left, of those made at `times`.
    fn left(keyframes: &mut Keyframes, start: Instant, need: Need, times: &[u64]) -> Vec<u64> {
        let leaves = |at: &&u64| keyframes.want(start + ms(**at), need, ROUND_TRIP);
        times.iter().filter(leaves).copied().collect()
    }

    #[test]
    fn the_first_leaves_at_once_and_serves_who_comes_meanwhile() {
        let (mut keyframes, start) = (Keyframes::default(), Instant::now());
        assert_eq!(left(&mut keyframes, start, Need::Start, &[0, 10, 50, 100, 159]), [0]);
        assert_eq!(keyframes.due(), Some(start + ms(160)), "the answer is overdue then");
        keyframes.came(start + ms(90), 1);
        assert_eq!(keyframes.due(), None);
        assert_eq!(left(&mut keyframes, start, Need::Due, &[160, 200]), [0; 0]);
    }

    #[test]
    fn after_a_keyframe_a_new_need_is_served_at_once() {
        let (mut keyframes, start) = (Keyframes::default(), Instant::now());
        assert_eq!(left(&mut keyframes, start, Need::Repeat, &[0]), [0]);
        keyframes.came(start + ms(80), 1);
        assert_eq!(left(&mut keyframes, start, Need::Start, &[81, 99, 101, 130]), [101]);
    }

    #[test]
    fn an_answer_that_does_not_come_is_asked_for_again_ever_rarer() {
        let (mut keyframes, start) = (Keyframes::default(), Instant::now());
        let all: Vec<u64> = (0..10_000).collect();
        let times = left(&mut keyframes, start, Need::Start, &all);
        assert!((15..=18).contains(&times.len()), "{times:?}");
        assert!(times[1] == 160 && times[2] <= 410, "{times:?}");
    }

    #[test]
    fn starts_have_a_budget() {
        let (mut keyframes, start) = (Keyframes::default(), Instant::now());
        let mut count = 0u32;
        for at in 0..10_000 {
            let now = start + ms(at);
            // The answer is always there, and always somebody new.
            if keyframes.want(now, Need::Start, ROUND_TRIP) {
                count += 1;
                keyframes.came(now + ms(1), at);
            }
        }
        assert!((36..=41).contains(&count), "{count}");
    }

    #[test]
    fn repeats_are_two_in_a_second_and_hold_nobody_up() {
        let (mut keyframes, start) = (Keyframes::default(), Instant::now());
        let mut repeats = Vec::new();
        let mut served = None;
        for at in 0..10_000u64 {
            let now = start + ms(at);
            if keyframes.want(now, Need::Repeat, ROUND_TRIP) {
                repeats.push(at);
                keyframes.came(now + ms(60), at);
            }
            if at >= 5_250 && served.is_none() && keyframes.want(now, Need::Start, ROUND_TRIP) {
                served = Some(at);
            }
        }
        assert!(repeats.len() <= 20, "{}", repeats.len());
        assert_eq!(served, Some(5_250));
    }

    #[test]
    fn a_request_made_before_the_keyframe_was_seen_is_stale() {
        let (mut keyframes, start) = (Keyframes::default(), Instant::now());
        assert!(!keyframes.answered(start, ROUND_TRIP));
        keyframes.came(start, 1);
        assert!(keyframes.answered(start + ms(59), ROUND_TRIP));
        assert!(!keyframes.answered(start + ms(60), ROUND_TRIP));
    }

    #[test]
    fn one_viewer_cannot_storm_the_others() {
        let start = Instant::now();
        let passed = |shared: bool, seconds: u64| {
            let mut viewer = Viewer::default();
            let asks = (0..seconds * 20).map(|at| start + ms(50 * at));
            asks.filter(|at| viewer.passes(*at, shared)).count()
        };
        assert!(passed(true, 20) <= 9, "{}", passed(true, 20));
        assert_eq!(passed(false, 20), 400, "alone it harms nobody but itself");
    }
}
