//! How one RTP stream arrives: extended sequence numbers, repeats, loss, jitter (RFC 3550 §6.4.1,
//! appendix A), and which packets are missing; [`super::asking`] decides when to ask for them.

use std::time::{Duration, Instant};

use super::asking::{Asking, Patience};
use super::rtcp::ReportBlock;

/// Sequence numbers remembered to tell a late packet from a repeated one.
const WINDOW: u64 = 2_048;
/// A jump further than this is no loss that repair could heal.
const MAX_GAP: u64 = 256;
/// A jump further than this is no loss either: the sender has moved on (RFC 3550 appendix A.1).
const MAX_DROPOUT: u64 = 3_000;
/// After so many packets in a row from beyond the window, the sender has started anew.
const RESTART_AFTER: u32 = 32;
/// The reception of one stream.
#[derive(Debug)]
pub(super) struct Reception {
    /// Bit per sequence number, modulo [`WINDOW`].
    seen: [u64; WINDOW as usize / 64],
    first: u64,
    highest: u64,
    received: u64,
    stale: u32,
    jitter: Jitter,
    reported: (u64, u64),
    given_up: u64,
    /// Given up before that was taken.
    gone: u64,
    asking: Asking,
}

#[derive(Debug, Default)]
struct Jitter {
    epoch: Option<Instant>,
    transit: Option<i64>,
    /// In 1/16 of a clock tick.
    scaled: u32,
}

/// What a packet is to its stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Arrival {
    /// Extended sequence number.
    pub(super) index: u64,
    /// Higher than every one before.
    pub(super) newest: bool,
    /// It left a gap too wide for repair.
    pub(super) torn: bool,
    /// It left a gap; when to ask for what is missing.
    pub(super) ask_at: Option<Instant>,
}

impl Arrival {
    const fn late(index: u64) -> Self {
        Self { index, newest: false, torn: false, ask_at: None }
    }
}

/// How a packet came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Via {
    /// On the media stream, as it was first sent; or again, where there is no other way.
    Media,
    /// On the repair stream.
    Repair,
}

impl Reception {
    /// Nothing has arrived.
    pub(super) fn new() -> Self {
        Self {
            seen: [0; WINDOW as usize / 64],
            first: 0,
            highest: 0,
            received: 0,
            stale: 0,
            jitter: Jitter::default(),
            reported: (0, 0),
            given_up: 0,
            gone: 0,
            asking: Asking::default(),
        }
    }

    /// Whether a packet has arrived.
    pub(super) const fn started(&self) -> bool {
        self.received > 0
    }

    /// Takes note of a packet. `None`: seen before, or too old to tell.
    pub(super) fn record(&mut self, now: Instant, sequence: u16, via: Via) -> Option<Arrival> {
        if !self.started() {
            // One cycle up, so that packets from before the first have a number too.
            let index = (1 << 16) + u64::from(sequence);
            (self.first, self.highest) = (index, index);
            self.received = 1;
            self.mark(index);
            return Some(Arrival { newest: true, ..Arrival::late(index) });
        }
        let ahead = sequence.wrapping_sub(self.highest as u16);
        if ahead != 0 && ahead < 0x8000 {
            return Some(self.advance(now, u64::from(ahead)));
        }
        let behind = u64::from((self.highest as u16).wrapping_sub(sequence));
        let index = self.highest - behind;
        if behind >= WINDOW {
            self.stale += 1;
            if self.stale < RESTART_AFTER {
                return None;
            }
            return Some(self.advance(now, u64::from(ahead)));
        }
        if self.is_marked(index) {
            return None;
        }
        self.mark(index);
        self.received += 1;
        self.asking.came(now, index, via);
        Some(Arrival::late(index))
    }

    /// A packet was restored from what others carry. `false`: it is not missing. The loss is still
    /// one: the sender is told of it, and adds what its codec has against it.
    pub(super) fn restore(&mut self, index: u64) -> bool {
        let missing = index >= self.first
            && index < self.highest
            && self.highest - index < WINDOW
            && !self.is_marked(index);
        if missing {
            self.mark(index);
            self.asking.restored(index);
        }
        missing
    }

    fn advance(&mut self, now: Instant, ahead: u64) -> Arrival {
        let index = self.highest + ahead;
        for skipped in self.highest + 1..index.min(self.highest + 1 + WINDOW) {
            self.unmark(skipped);
        }
        let torn = ahead > MAX_GAP;
        let mut ask_at = None;
        if torn {
            self.given_up += self.asking.abandon();
            if ahead > MAX_DROPOUT {
                self.first += ahead - 1;
            } else {
                self.given_up += ahead - 1;
            }
        } else if ahead > 1 {
            let (at, refused) = self.asking.miss(now, self.highest + 1..index);
            self.given_up += refused;
            ask_at = Some(at);
        } else {
            self.asking.in_order();
        }
        self.highest = index;
        self.stale = 0;
        self.received += 1;
        self.mark(index);
        Arrival { index, newest: true, torn, ask_at }
    }

    /// Interarrival jitter, RFC 3550 appendix A.8. Repair must not be fed here.
    pub(super) fn measure(&mut self, at: Instant, timestamp: u32, clock: u32) {
        let epoch = *self.jitter.epoch.get_or_insert(at);
        let micros = at.saturating_duration_since(epoch).as_micros() as u64;
        let arrival = (micros * u64::from(clock) / 1_000_000) as u32;
        let transit = i64::from(arrival.wrapping_sub(timestamp) as i32);
        if let Some(before) = self.jitter.transit.replace(transit) {
            let difference = (transit - before).unsigned_abs();
            // A jump of the sender's clock is no jitter.
            if difference < u64::from(clock) {
                let scaled = self.jitter.scaled;
                self.jitter.scaled = scaled + difference as u32 - ((scaled + 8) >> 4);
            }
        }
    }

    /// When [`Self::asks`] has something, if ever.
    pub(super) const fn next_ask(&self) -> Option<Instant> {
        self.asking.due()
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
        let count = &mut self.given_up;
        self.asking.asks(now, patience, into, |index| {
            *count += 1;
            given_up(index);
        });
    }

    /// Nobody needs this stream now: nothing is asked for.
    pub(super) fn forgo(&mut self) {
        self.given_up += self.asking.abandon();
    }

    /// Packets that repair has given up since the last call.
    pub(super) fn take_given_up(&mut self) -> u64 {
        self.gone += self.given_up;
        std::mem::take(&mut self.given_up)
    }

    /// Packets expected since the start, and those that will not come any more.
    pub(super) const fn totals(&self) -> (u64, u64) {
        (self.highest + 1 - self.first, self.gone + self.given_up)
    }

    /// The interarrival jitter, on a media clock of so many ticks in a second.
    pub(super) fn jitter(&self, clock: u32) -> Duration {
        let micros = u64::from(self.jitter.scaled >> 4) * 1_000_000 / u64::from(clock.max(1));
        Duration::from_micros(micros)
    }

    fn lost(&self) -> i64 {
        (self.highest + 1 - self.first) as i64 - self.received as i64
    }

    /// The report of this stream; resets the interval that `fraction_lost` covers.
    pub(super) fn report(&mut self, ssrc: u32) -> ReportBlock {
        let expected = self.highest + 1 - self.first;
        let (expected_before, received_before) = self.reported;
        self.reported = (expected, self.received);
        let interval = expected - expected_before;
        let lost = interval as i64 - (self.received - received_before) as i64;
        let fraction_lost = match (interval, u64::try_from(lost)) {
            (0, _) | (_, Err(_)) => 0,
            (interval, Ok(lost)) => (lost * 256 / interval).min(255) as u8,
        };
        ReportBlock {
            ssrc,
            fraction_lost,
            lost: self.lost().clamp(-0x80_0000, 0x7F_FFFF) as i32,
            // The artificial first cycle is not the sender's.
            highest: (self.highest - (1 << 16)) as u32,
            jitter: self.jitter.scaled >> 4,
            lsr: 0,
            dlsr: 0,
        }
    }

    fn mark(&mut self, index: u64) {
        if let Some(word) = self.seen.get_mut((index % WINDOW / 64) as usize) {
            *word |= 1 << (index % 64);
        }
    }

    fn unmark(&mut self, index: u64) {
        if let Some(word) = self.seen.get_mut((index % WINDOW / 64) as usize) {
            *word &= !(1 << (index % 64));
        }
    }

    fn is_marked(&self, index: u64) -> bool {
        let word = self.seen.get((index % WINDOW / 64) as usize);
        word.is_some_and(|word| word & 1 << (index % 64) != 0)
    }
}

#[cfg(test)]
mod tests {

    use super::*;

    fn feed(reception: &mut Reception, now: Instant, sequences: &[u16]) -> Vec<Option<u64>> {
        let one = |sequence: &u16| reception.record(now, *sequence, Via::Media);
        sequences.iter().map(one).map(|arrival| arrival.map(|arrival| arrival.index)).collect()
    }

    #[test]
    fn numbers_are_extended_over_the_wrap_and_repeats_found() {
        let mut reception = Reception::new();
        let found = feed(&mut reception, Instant::now(), &[65_534, 65_535, 1, 0, 0, 65_534, 2]);
        let base = (1 << 16) + 65_534;
        let expected = [
            Some(base),
            Some(base + 1),
            Some(base + 3),
            Some(base + 2),
            None,
            None,
            Some(base + 4),
        ];
        assert_eq!(found, expected);
        assert_eq!(reception.report(1).lost, 0);
    }

    #[test]
    fn packets_before_the_first_are_late_not_new() {
        let mut reception = Reception::new();
        let now = Instant::now();
        let first = reception.record(now, 0, Via::Media).unwrap();
        let before = reception.record(now, 65_535, Via::Media).unwrap();
        assert_eq!(before.index + 1, first.index);
        assert!(!before.newest);
    }

    #[test]
    fn what_is_restored_is_missing_no_more_but_was_lost() {
        let mut reception = Reception::new();
        let now = Instant::now();
        feed(&mut reception, now, &[10, 13]);
        let base = (1 << 16) + 10;
        let restored = [base - 1, base, base + 1, base + 1, base + 3, base + 4];
        let restored = restored.map(|index| reception.restore(index));
        assert_eq!(restored, [false, false, true, false, false, false]);
        assert_eq!(feed(&mut reception, now, &[11, 12, 12]), [None, Some(base + 2), None]);
        assert_eq!(reception.next_ask(), None);
        assert_eq!(reception.report(1).lost, 1);
    }

    #[test]
    fn a_wide_jump_is_torn_and_not_asked_for() {
        let mut reception = Reception::new();
        let now = Instant::now();
        feed(&mut reception, now, &[10]);
        assert!(reception.record(now, 5_000, Via::Media).unwrap().torn);
        assert_eq!(reception.next_ask(), None);
    }

    #[test]
    fn a_restarted_sender_is_followed_after_a_while() {
        let mut reception = Reception::new();
        let now = Instant::now();
        feed(&mut reception, now, &[30_000]);
        let taken = (0..100).filter(|at| reception.record(now, *at, Via::Media).is_some()).count();
        assert_eq!(taken, 69);
    }

    #[test]
    fn reports_tell_loss_of_the_interval_and_in_all() {
        let mut reception = Reception::new();
        let now = Instant::now();
        feed(&mut reception, now, &[0, 1, 3]);
        let report = reception.report(7);
        assert_eq!((report.lost, report.fraction_lost, report.highest), (1, 64, 3));
        feed(&mut reception, now, &[4, 5]);
        let report = reception.report(7);
        assert_eq!((report.lost, report.fraction_lost, report.highest), (1, 0, 5));
    }

    #[test]
    fn steady_arrivals_have_no_jitter_and_uneven_ones_do() {
        let start = Instant::now();
        let mut steady = Reception::new();
        let mut uneven = Reception::new();
        steady.record(start, 0, Via::Media);
        uneven.record(start, 0, Via::Media);
        for at in 0..200u32 {
            let due = start + Duration::from_millis(20) * at;
            steady.measure(due, at * 960, 48_000);
            uneven.measure(due + Duration::from_millis(10) * (at % 2), at * 960, 48_000);
        }
        assert_eq!(steady.report(1).jitter, 0);
        // 10 ms is 480 ticks.
        assert!((400..=500).contains(&uneven.report(1).jitter));
    }
}
