//! When the frames of a video track are seen, and when the picture stands still.
//!
//! The model follows libwebrtc in outline. A frame is shown at its media time plus a delay that
//! covers the jitter of the last seconds, and a round trip more once packets had to be sent again; or
//! as soon as it can be decoded, if that is later. At its time the oldest decodable frame is taken,
//! and what is older is given up. A freeze is a gap of at least three mean gaps and of 150 ms more
//! than the mean. While the server has paused the picture, or its sender is muted, nothing counts.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use bedside_sfu::core::codec::Codec;

use crate::frames::{Assembler, Chain, Frame, Piece};
use crate::stats::{Freeze, VideoPlayout};

/// Frames whose delays decide.
const DELAYS: usize = 200;
/// Share of them that must be in time.
const QUANTILE: usize = 95;
/// Decoding and showing a frame, and the imprecision of timers.
const OVERHEAD_MICROS: i64 = 10_000;
/// Repairs after which a round trip is added.
const REPAIRS: u32 = 3;
/// The delay changes by so much of the time that passes.
const CHANGE_DIVISOR: i64 = 10;
/// Complete frames that wait for others.
const MAX_WAITING: usize = 256;
/// Gaps whose mean decides what a freeze is, and how many there must be.
const GAPS: usize = 30;
const FEWEST_GAPS: usize = 5;
/// A freeze is longer than the mean by this.
const STILL: Duration = Duration::from_millis(150);
/// Freezes remembered one by one.
const MAX_FREEZES: usize = 256;
/// No frame for so long while packets come: a keyframe is needed; sooner while none has come yet.
const STUCK: Duration = Duration::from_secs(3);
const STUCK_AT_START: Duration = Duration::from_millis(200);

/// The picture of one track.
#[derive(Debug)]
pub(crate) struct Screen {
    assembler: Assembler,
    chain: Chain,
    waiting: Vec<Frame>,
    timing: Timing,
    gaps: Gaps,
    /// Media time of the last frame shown.
    shown: Option<i64>,
    /// When decoding last went on, or packets first came.
    moved: Option<Instant>,
    asked: Option<Instant>,
    last_packet: Option<Instant>,
    totals: VideoPlayout,
}

impl Screen {
    pub(crate) fn new(now: Instant) -> Self {
        Self {
            assembler: Assembler::new(),
            chain: Chain::default(),
            waiting: Vec::new(),
            timing: Timing::new(now),
            gaps: Gaps::default(),
            shown: None,
            moved: None,
            asked: None,
            last_packet: None,
            totals: VideoPlayout::default(),
        }
    }

    /// Takes a packet.
    pub(crate) fn insert(
        &mut self,
        now: Instant,
        sequence: u64,
        piece: Piece,
        round_trip: Duration,
    ) {
        self.advance(now);
        self.timing.round_trip = round_trip;
        self.moved.get_or_insert(now);
        self.last_packet = Some(now);
        let Self { assembler, waiting, .. } = self;
        let before = waiting.len();
        assembler.insert(now, sequence, piece, |frame| waiting.push(frame));
        for at in before..self.waiting.len() {
            if let Some(frame) = self.waiting.get(at).copied() {
                self.timing.arrived(&frame);
                self.totals.assembled += 1;
            }
        }
        if self.waiting.len() > MAX_WAITING {
            self.waiting.remove(0);
        }
        self.advance(now);
    }

    /// Shows what is due by `now`.
    pub(crate) fn advance(&mut self, now: Instant) {
        while let Some((frame, media)) = self.next() {
            let due = self.timing.due(media).max(frame.complete);
            let due = self.gaps.last.map_or(due, |last| due.max(last));
            if due > now {
                return;
            }
            self.chain.decoded(&frame);
            self.waiting.retain(|other| self.timing.media(other.timestamp) > media);
            self.shown = Some(media);
            self.moved = Some(due);
            self.asked = None;
            self.totals.frames += 1;
            self.totals.keyframes += u64::from(frame.key);
            if frame.height > 0 {
                self.totals.height = frame.height;
            }
            self.totals.delay += due.saturating_duration_since(frame.complete);
            self.gaps.shown(due, &mut self.totals);
        }
    }

    /// The oldest frame that can be decoded.
    fn next(&self) -> Option<(Frame, i64)> {
        let media = |frame: &&Frame| self.timing.media(frame.timestamp);
        let newer = |frame: &&Frame| self.shown.is_none_or(|shown| media(frame) > shown);
        let decodable = |frame: &&Frame| self.chain.takes(frame, &self.assembler);
        let frame = self.waiting.iter().filter(newer).filter(decodable).min_by_key(media)?;
        Some((*frame, self.timing.media(frame.timestamp)))
    }

    /// The server has paused the picture, or its sender is muted; or that is over.
    pub(crate) fn pause(&mut self, now: Instant, paused: bool) {
        self.advance(now);
        if paused {
            self.gaps.paused.get_or_insert(now);
        } else if self.gaps.paused.is_some() {
            self.moved = Some(now);
            self.asked = None;
        }
        self.totals.paused_now = paused;
    }

    /// How long frames wait now, and have to wait at least.
    pub(crate) fn delay(&mut self, least: Duration) -> Duration {
        self.timing.least_delay = least.as_micros() as i64;
        Duration::from_micros(self.timing.delay.max(0).unsigned_abs())
    }

    /// Whether nothing could be decoded for so long that a keyframe must be asked for.
    pub(crate) fn is_stuck(&mut self, now: Instant) -> bool {
        self.advance(now);
        let limit = if self.totals.frames == 0 { STUCK_AT_START } else { STUCK };
        let since = self.asked.or(self.moved);
        let flows =
            self.last_packet.is_some_and(|last| now.saturating_duration_since(last) < STUCK);
        let stuck =
            flows && since.is_some_and(|since| now.saturating_duration_since(since) >= limit);
        if stuck {
            self.asked = Some(now);
        }
        stuck
    }

    /// What has been seen until `now`.
    pub(crate) fn totals(&self, now: Instant) -> VideoPlayout {
        let mut totals = self.totals.clone();
        totals.target = Duration::from_micros(self.timing.delay.max(0).unsigned_abs());
        self.gaps.unfinished(now, &mut totals);
        totals
    }
}

/// Media time, and the delay after it at which frames are shown.
#[derive(Debug)]
struct Timing {
    epoch: Instant,
    first: Option<u32>,
    /// Completion minus media time of the last frames that needed no repair, in microseconds.
    delays: VecDeque<i64>,
    least: i64,
    delay: i64,
    /// For the sound's sake.
    least_delay: i64,
    changed: Option<Instant>,
    repairs: u32,
    round_trip: Duration,
}

impl Timing {
    const fn new(now: Instant) -> Self {
        Self {
            epoch: now,
            first: None,
            delays: VecDeque::new(),
            least: 0,
            delay: OVERHEAD_MICROS,
            least_delay: 0,
            changed: None,
            repairs: 0,
            round_trip: Duration::ZERO,
        }
    }

    /// Microseconds since the first frame's time. Half a cycle of the clock is more than six hours.
    fn media(&self, timestamp: u32) -> i64 {
        let since = timestamp.wrapping_sub(self.first.unwrap_or(timestamp)) as i32;
        i64::from(since) * 1_000_000 / i64::from(Codec::Vp8.clock_rate())
    }

    fn arrived(&mut self, frame: &Frame) {
        self.first.get_or_insert(frame.timestamp);
        let at = frame.complete.saturating_duration_since(self.epoch).as_micros() as i64;
        let delay = at - self.media(frame.timestamp);
        if frame.repaired {
            self.repairs = self.repairs.saturating_add(1);
        } else {
            if self.delays.len() == DELAYS {
                self.delays.pop_front();
            }
            self.delays.push_back(delay);
        }
        let mut sorted: Vec<i64> = self.delays.iter().copied().collect();
        let at = (sorted.len() * QUANTILE / 100).min(sorted.len().saturating_sub(1));
        let jitter = if sorted.is_empty() {
            self.least = delay;
            0
        } else {
            let (below, quantile, _) = sorted.select_nth_unstable(at);
            let least = below.iter().copied().min().unwrap_or(*quantile);
            self.least = least;
            *quantile - least
        };
        let repair = if self.repairs >= REPAIRS { self.round_trip.as_micros() as i64 } else { 0 };
        let goal = jitter + repair + OVERHEAD_MICROS;
        self.approach(frame.complete, goal.max(self.least_delay));
    }

    /// Moves the delay towards its goal, by a tenth of the time that has passed.
    fn approach(&mut self, now: Instant, goal: i64) {
        let since = self.changed.replace(now);
        let passed = since.map_or(Duration::ZERO, |since| now.saturating_duration_since(since));
        let most = passed.as_micros() as i64 / CHANGE_DIVISOR;
        self.delay += (goal - self.delay).clamp(-most, most);
    }

    /// When a frame is to be shown.
    fn due(&self, media: i64) -> Instant {
        let since = media.saturating_add(self.least).saturating_add(self.delay).max(0);
        self.epoch + Duration::from_micros(since.unsigned_abs())
    }
}

/// The gaps between frames shown.
#[derive(Debug, Default)]
struct Gaps {
    last: Option<Instant>,
    recent: VecDeque<Duration>,
    paused: Option<Instant>,
}

impl Gaps {
    fn shown(&mut self, at: Instant, totals: &mut VideoPlayout) {
        let Some(last) = self.last.replace(at) else {
            totals.first_frame = Some(at);
            self.paused = None;
            return;
        };
        let until = self.paused.take().map_or(at, |paused| paused.clamp(last, at));
        totals.paused += at.saturating_duration_since(until);
        let gap = until.saturating_duration_since(last);
        totals.watched += gap;
        totals.longest_gap = totals.longest_gap.max(gap);
        if self.is_freeze(gap) {
            totals.freezes += 1;
            totals.frozen += gap;
            if totals.log.len() == MAX_FREEZES {
                totals.log.remove(0);
            }
            totals.log.push(Freeze { from: last, lasted: gap });
        }
        if until == at {
            if self.recent.len() == GAPS {
                self.recent.pop_front();
            }
            self.recent.push_back(gap);
        }
    }

    fn is_freeze(&self, gap: Duration) -> bool {
        if self.recent.len() < FEWEST_GAPS {
            return false;
        }
        let mean = self.recent.iter().sum::<Duration>() / self.recent.len() as u32;
        gap >= (3 * mean).max(mean + STILL)
    }

    /// Counts the gap that lasts, as if it ended now.
    fn unfinished(&self, now: Instant, totals: &mut VideoPlayout) {
        let Some(last) = self.last else { return };
        let until = self.paused.map_or(now, |paused| paused.clamp(last, now.max(last)));
        let gap = until.saturating_duration_since(last);
        totals.paused += now.saturating_duration_since(until);
        totals.watched += gap;
        totals.longest_gap = totals.longest_gap.max(gap);
        if self.is_freeze(gap) {
            totals.freezes += 1;
            totals.frozen += gap;
            totals.log.push(Freeze { from: last, lasted: gap });
        }
    }
}

#[cfg(test)]
#[path = "picture_tests.rs"]
mod tests;
