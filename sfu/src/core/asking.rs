//! When a publisher is asked for what is missing of a stream, and when no more.
//!
//! On a line that never reorders the first request leaves at once: waiting only makes the picture
//! late. Where packets were seen to overtake each other it waits as long as they did. A request or its
//! answer may be lost too, so it is repeated as soon as an answer would have come: a round trip and
//! what its variation may add, measured on the answers themselves, then ever rarer.

use std::ops::Range;
use std::time::{Duration, Instant};

use super::reception::Via;

/// Packets waited for at the most.
const MAX_MISSING: usize = 512;
/// Numbers asked for at once: a request stays below 1,100 bytes however they are spread.
const MAX_ASKED: usize = 256;
/// Requests for one packet.
const MAX_TRIES: u32 = 10;
/// Gaps of one burst are asked for together.
const GATHER: Duration = Duration::from_millis(1);
/// Reordering is waited for up to this.
const MAX_WAIT: Duration = Duration::from_millis(40);
/// After so many packets in order the wait is halved.
const CALM: u32 = 500;
/// A repeated request waits at least this.
const MIN_RETRY: Duration = Duration::from_millis(20);
/// So many answers in a row that came after several requests are no accident.
const UNCLEAR: u32 = 8;
/// The weight of one packet in the smoothed loss.
const SMOOTHING: f32 = 1.0 / 64.0;
/// From this loss on requests are doubled.
const LOSSY: f32 = 0.04;
/// A request is doubled after this: not in the same burst of loss, if it is short.
const DOUBLE: Duration = Duration::from_millis(15);
/// What an answer may take beyond its usual time before it is taken for lost.
const SLACK: Duration = Duration::from_millis(5);

/// What a stream's packets are worth waiting for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Patience {
    /// The round trip to the publisher, as far as reports tell; used until repair itself was measured.
    round_trip: Duration,
    /// A packet missing for longer is given up.
    limit: Duration,
    /// Requests are doubled: each is followed by another soon after. They are small, senders answer
    /// one of both, and that both are lost is rare.
    doubled: bool,
}

impl Patience {
    /// A picture stands still until it is whole: three round trips and more are worth it, within
    /// what viewers bear.
    /// `loss` is that of the way to the publisher, which requests take.
    pub(super) fn video(round_trip: Duration, loss: f32) -> Self {
        let limit = round_trip * 7 / 2;
        let limit = limit.clamp(Duration::from_secs(1), Duration::from_millis(2_500));
        Self { round_trip, limit, doubled: loss >= LOSSY }
    }

    /// Sound is played out before long.
    pub(super) const fn audio(round_trip: Duration) -> Self {
        Self { round_trip, limit: Duration::from_millis(250), doubled: true }
    }
}

/// What is missing of one stream.
#[derive(Debug, Default)]
pub(super) struct Asking {
    /// Lowest number first.
    missing: Vec<Missing>,
    due: Option<Instant>,
    trip: Trip,
    /// How long to wait for packets that were overtaken.
    wait: Duration,
    /// Packets in order since the wait was last changed.
    in_order: u32,
    /// Smoothed share of packets that are missing at first; lines are often bad both ways.
    loss: f32,
}

#[derive(Clone, Copy, Debug)]
struct Missing {
    index: u64,
    since: Instant,
    /// Requests made, doubles included.
    asked: u32,
    /// Requests made, doubles not counted, and when the last of them was.
    rounds: u32,
    last: Instant,
    ask_at: Instant,
}

impl Missing {
    /// Takes note of a request; returns when the next is due.
    fn asked_for(&mut self, now: Instant, answer: Duration, doubled: bool) -> Instant {
        let double = doubled && self.asked % 2 == 1;
        self.asked += 1;
        if !double {
            self.rounds += 1;
            self.last = now;
        }
        let wait = answer * (8 + self.rounds) / 8;
        if doubled && !double { now + DOUBLE.min(wait / 2) } else { self.last + wait }
    }
}

/// The time from a request to its answer, smoothed as in RFC 6298 §2.
#[derive(Debug, Default)]
struct Trip {
    smoothed: Option<Duration>,
    variation: Duration,
    /// Answers in a row that came after several requests.
    unclear: u32,
}

impl Trip {
    fn measure(&mut self, took: Duration) {
        self.unclear = 0;
        match self.smoothed {
            None => (self.smoothed, self.variation) = (Some(took), took / 4),
            Some(before) => {
                self.variation = (self.variation * 3 + before.abs_diff(took)) / 4;
                self.smoothed = Some((before * 7 + took) / 8);
            }
        }
    }

    /// An answer after several requests: to which of them cannot be told. One that comes too soon
    /// after the last, or many in a row, show that the way is longer than thought.
    fn unclear(&mut self, early: bool) {
        self.unclear += 1;
        if early || self.unclear >= UNCLEAR {
            self.smoothed = self.smoothed.map(|usual| usual * 3 / 2);
            self.unclear = 0;
        }
    }

    /// When an answer would have come.
    fn patience(&self, guess: Duration) -> Duration {
        let (usual, variation) = match self.smoothed {
            Some(smoothed) => (smoothed, self.variation),
            None => (guess, guess / 4),
        };
        (usual + (variation * 4).min(usual / 2) + SLACK).max(MIN_RETRY)
    }
}

impl Asking {
    /// The next packet in order came.
    pub(super) fn in_order(&mut self) {
        self.loss -= self.loss * SMOOTHING;
        self.in_order += 1;
        if self.in_order >= CALM {
            self.in_order = 0;
            self.wait = if self.wait < GATHER { Duration::ZERO } else { self.wait / 2 };
        }
    }

    /// Packets are missing. Returns when to ask for them, and how many are too many to wait for.
    pub(super) fn miss(&mut self, now: Instant, gap: Range<u64>) -> (Instant, u64) {
        let ask_at = now + self.wait.max(GATHER);
        self.loss += (1.0 - self.loss) * SMOOTHING * (gap.end - gap.start).min(8) as f32;
        let room = MAX_MISSING.saturating_sub(self.missing.len());
        let refused = (gap.end - gap.start).saturating_sub(room as u64);
        let new = |index| Missing { index, since: now, asked: 0, rounds: 0, last: now, ask_at };
        self.missing.extend(gap.take(room).map(new));
        if room > 0 {
            self.due = Some(self.due.map_or(ask_at, |due| due.min(ask_at)));
        }
        (ask_at, refused)
    }

    /// A missing packet came.
    pub(super) fn came(&mut self, now: Instant, index: u64, via: Via) {
        let Some(missing) = self.remove(index) else { return };
        let late = now.saturating_duration_since(missing.since);
        let answer = now.saturating_duration_since(missing.last);
        let usual = self.trip.smoothed.unwrap_or(Duration::ZERO);
        // Audio is repaired on its own stream; an answer comes no sooner than usual.
        let early = answer < usual / 2;
        let overtaken = via == Via::Media && (missing.rounds == 0 || missing.rounds == 1 && early);
        if overtaken {
            self.in_order = 0;
            self.wait = self.wait.max(late + late / 4).min(MAX_WAIT);
        } else if missing.rounds == 1 {
            self.trip.measure(answer);
        } else if missing.rounds > 1 {
            self.trip.unclear(early);
        }
    }

    /// A missing packet is not needed any more.
    pub(super) fn restored(&mut self, index: u64) {
        self.remove(index);
    }

    fn remove(&mut self, index: u64) -> Option<Missing> {
        let at = self.missing.binary_search_by_key(&index, |missing| missing.index).ok()?;
        let missing = self.missing.remove(at);
        if self.missing.is_empty() {
            self.due = None;
        }
        Some(missing)
    }

    /// Nothing is asked for any more. Returns how many packets are given up.
    pub(super) fn abandon(&mut self) -> u64 {
        let count = self.missing.len() as u64;
        self.missing.clear();
        self.due = None;
        count
    }

    /// When [`Self::asks`] has something to do.
    pub(super) const fn due(&self) -> Option<Instant> {
        self.due
    }

    /// The time that repair takes, as measured; before that, `guess`.
    pub(super) fn round_trip(&self, guess: Duration) -> Duration {
        self.trip.smoothed.unwrap_or(guess)
    }

    /// Collects the sequence numbers to ask for now, plans the next time, and tells `given_up` what
    /// is not worth waiting for any more.
    pub(super) fn asks(
        &mut self,
        now: Instant,
        patience: &Patience,
        into: &mut Vec<u16>,
        mut given_up: impl FnMut(u64),
    ) {
        let answer = self.trip.patience(patience.round_trip);
        let usual = self.round_trip(patience.round_trip);
        let doubled = patience.doubled || self.loss >= LOSSY;
        let mut due: Option<Instant> = None;
        self.missing.retain_mut(|missing| {
            let waited = now.saturating_duration_since(missing.since);
            let mut at = missing.ask_at;
            if at <= now {
                if waited >= patience.limit || missing.asked >= MAX_TRIES {
                    given_up(missing.index);
                    return false;
                }
                let in_time = waited + usual <= patience.limit;
                if in_time && into.len() < MAX_ASKED {
                    into.push(missing.index as u16);
                    at = missing.asked_for(now, answer, doubled);
                } else if in_time {
                    at = now + GATHER;
                } else {
                    // No answer to a new request could be in time; one to the last may.
                    at = missing.since + patience.limit;
                }
                missing.ask_at = at.min(missing.since + patience.limit).max(now + GATHER);
                at = missing.ask_at;
            }
            due = Some(due.map_or(at, |due| due.min(at)));
            true
        });
        self.due = due;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GUESS: Duration = Duration::from_millis(100);

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    /// What is asked for at a time, and what given up.
    fn asks(asking: &mut Asking, now: Instant, patience: &Patience) -> (Vec<u16>, Vec<u64>) {
        let (mut asked, mut given_up) = (Vec::new(), Vec::new());
        if asking.due().is_some_and(|due| due <= now) {
            asking.asks(now, patience, &mut asked, |index| given_up.push(index));
        }
        (asked, given_up)
    }

    /// The times in ms at which one missing packet is asked for, and when it is given up.
    fn times(asking: &mut Asking, start: Instant, patience: &Patience) -> (Vec<u64>, u64) {
        asking.miss(start, 7..8);
        let mut asked = Vec::new();
        for at in 0..10_000 {
            let (asks, given_up) = asks(asking, start + ms(at), patience);
            asked.extend(asks.iter().map(|_| at));
            if !given_up.is_empty() {
                return (asked, at);
            }
        }
        panic!("never given up");
    }

    /// A gap that is answered after a time.
    fn answer(asking: &mut Asking, now: Instant, index: u64, took: Duration) {
        (0..200).for_each(|_| asking.in_order());
        asking.miss(now, index..index + 1);
        asks(asking, now + ms(1), &Patience::video(GUESS, 0.0));
        asking.came(now + ms(1) + took, index, Via::Repair);
    }

    #[test]
    fn the_first_request_leaves_at_once_where_nothing_is_reordered() {
        let (mut asking, now) = (Asking::default(), Instant::now());
        assert_eq!(asking.miss(now, 5..8), (now + GATHER, 0));
        let patience = Patience::video(GUESS, 0.0);
        assert_eq!(asks(&mut asking, now, &patience).0, [0u16; 0]);
        assert_eq!(asks(&mut asking, now + GATHER, &patience).0, [5, 6, 7]);
    }

    #[test]
    fn where_packets_overtake_each_other_it_waits_as_long_as_they_did() {
        let (mut asking, now) = (Asking::default(), Instant::now());
        asking.miss(now, 5..6);
        asking.came(now + ms(8), 5, Via::Media);
        assert_eq!(asking.due(), None);
        assert_eq!(asking.miss(now, 9..10).0, now + ms(10));
        for _ in 0..CALM * 5 {
            asking.in_order();
        }
        assert_eq!(asking.miss(now, 11..12).0, now + GATHER, "forgotten after a while");
        asking.came(now + ms(300), 11, Via::Media);
        assert_eq!(asking.miss(now, 13..14).0, now + MAX_WAIT, "nobody waits for ever");
    }

    #[test]
    fn requests_are_repeated_after_the_round_trip_that_repair_takes() {
        let (mut asking, start) = (Asking::default(), Instant::now());
        for index in 0..20 {
            answer(&mut asking, start, index, ms(40 + index % 3));
        }
        let trip = asking.round_trip(GUESS);
        assert!((40..=42).contains(&trip.as_millis()), "{trip:?}");
        let (asked, given_up) = times(&mut asking, start, &Patience::video(GUESS, 0.0));
        assert_eq!(asked.len() as u32, MAX_TRIES);
        assert!((45..=65).contains(&(asked[1] - asked[0])), "{asked:?}");
        assert!(asked.windows(3).all(|of| of[2] - of[1] >= of[1] - of[0]), "ever rarer: {asked:?}");
        assert!((700..=1_001).contains(&given_up), "{given_up}");
    }

    #[test]
    fn a_long_way_is_waited_for() {
        let patience = Patience::video(ms(500), 0.0);
        let (asked, given_up) = times(&mut Asking::default(), Instant::now(), &patience);
        assert!((2..=3).contains(&asked.len()), "{asked:?}");
        assert_eq!(given_up, 1_750);
        assert_eq!(
            times(&mut Asking::default(), Instant::now(), &Patience::video(ms(2_000), 0.0)).1,
            2_500
        );
    }

    #[test]
    fn sound_is_asked_for_only_while_it_can_be_in_time() {
        let short = times(&mut Asking::default(), Instant::now(), &Patience::audio(ms(40)));
        assert!(
            (4..=7).contains(&short.0.len()) && short.0.iter().all(|at| *at <= 210),
            "{short:?}"
        );
        assert_eq!(short.1, 250);
        let long = times(&mut Asking::default(), Instant::now(), &Patience::audio(ms(300)));
        assert_eq!(long, (vec![], 250));
    }

    #[test]
    fn requests_on_a_lossy_way_go_in_pairs() {
        let patience = Patience::video(ms(100), 0.1);
        let (asked, _) = times(&mut Asking::default(), Instant::now(), &patience);
        assert!(asked.len() >= 8, "{asked:?}");
        assert!(asked[2] - asked[0] >= 150, "the second of a pair is no new request: {asked:?}");
    }

    #[test]
    fn a_way_that_grew_longer_is_found_out() {
        let (mut asking, start) = (Asking::default(), Instant::now());
        answer(&mut asking, start, 1, ms(40));
        let patience = Patience::video(GUESS, 0.0);
        let mut now = start;
        for index in 2..60 {
            now += ms(1_000);
            asking.miss(now, index..index + 1);
            let took = 380 + index * 7 % 40;
            for at in 0..took {
                asks(&mut asking, now + ms(at), &patience);
            }
            asking.came(now + ms(took), index, Via::Repair);
        }
        let trip = asking.round_trip(GUESS);
        assert!((200..=420).contains(&trip.as_millis()), "{trip:?}");
    }

    #[test]
    fn the_number_of_packets_waited_for_is_bounded() {
        let (mut asking, now) = (Asking::default(), Instant::now());
        assert_eq!(asking.miss(now, 0..600).1, 88);
        assert_eq!(asking.miss(now, 700..800).1, 100);
        let (asked, _) = asks(&mut asking, now + GATHER, &Patience::video(GUESS, 0.0));
        assert_eq!(asked.len(), MAX_ASKED);
        let (asked, _) = asks(&mut asking, now + GATHER * 2, &Patience::video(GUESS, 0.0));
        assert_eq!(asked[0] as usize, MAX_ASKED);
        assert_eq!(asking.abandon(), 512);
        assert_eq!(asking.due(), None);
    }
}
