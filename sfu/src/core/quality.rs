//! How good each participant's connection is: a number from 1 (bad) to 4.4, and a word for it.
//!
//! Each window of five seconds is valued by the E-model in its short form: delay, jitter and the
//! loss that is left after repair. Only media that should flow counts: what is muted, paused,
//! disabled, not wanted by anybody or silent by discontinuous transmission says nothing about a
//! connection. The way up is what arrives here of a participant's own tracks, the way down is what
//! it reports about ours; the worse one counts. A word falls fast and recovers slowly.
//!
//! *Lost* is told only of somebody whose peer does not answer any more, never by a bad score: a
//! client that hears it of itself gives up its connection.

use std::time::{Duration, Instant};

use rustc_hash::FxHashMap;

use super::api::{MediaKind, ParticipantSid, QualityLevel, SessionEvent, Source};
use super::context::Context;
use super::participant::Participant;
use super::room::Room;
use super::rtcp::ReportBlock;
use super::subscription::Subscription;
use super::track::Track;

/// The length of a window.
pub(super) const WINDOW: Duration = Duration::from_secs(5);
/// A window with fewer packets of a stream says nothing of it (discontinuous transmission).
const ENOUGH: u64 = 10;
/// How much of the way to a window's score is gone, when it is lower.
const FALL: f32 = 0.8;
/// … and when it is higher.
const RISE: f32 = 0.4;
/// Hardly a defect from this score on; 5 % of lost speech is just below.
const EXCELLENT: f32 = 4.0;
/// Tolerable from this score on.
const GOOD: f32 = 3.0;
/// A word is only taken back upwards when its threshold is passed by this much.
const MARGIN: f32 = 0.1;
/// What is told first of somebody who was lost and answers again.
const RETURNED: f32 = 2.5;
/// Nothing of pictures for so long is a standing picture.
const STANDING: Duration = Duration::from_millis(500);
/// What a rung costs that flowed before and is wanted.
const RUNG_COST: f32 = 15.0;
/// Makes differences of counters positive.
const OFFSET: i64 = 1 << 40;

/// What is known of one participant's connection.
#[derive(Debug, Default)]
pub(super) struct Connection {
    /// Smoothed; `None` before the first window.
    score: Option<f32>,
    /// What others were told, and the score then.
    told: Option<(QualityLevel, f32)>,
    /// Expected and lost packets of each stream, sent or received, at the end of the last window.
    before: FxHashMap<u32, (u64, u64)>,
    /// What the participant reported of our streams since then.
    reports: FxHashMap<u32, Reported>,
    /// Looks at pictures that should have moved, and those at which they stood.
    watched: (u32, u32),
}

/// What a receiver said of one stream, and how many packets it had been sent by then.
#[derive(Clone, Copy, Debug)]
struct Reported {
    sent: u32,
    highest: u32,
    lost: i32,
    jitter: u32,
}

/// One stream in one window.
#[derive(Clone, Copy, Debug)]
struct Part {
    kind: MediaKind,
    /// Lost for good, 0..=1.
    lost: f32,
    jitter: Duration,
}

impl Connection {
    /// A receiver reports on a stream of ours, after it was sent so many packets.
    pub(super) fn reported(&mut self, block: &ReportBlock, sent: u32) {
        let ReportBlock { highest, lost, jitter, .. } = *block;
        self.reports.insert(block.ssrc, Reported { sent, highest, lost, jitter });
    }

    /// What is new of a stream since the last window: packets expected, and their lost share.
    fn advance(&mut self, ssrc: u32, expected: u64, lost: u64) -> Option<f32> {
        let (expected_before, lost_before) = self.before.insert(ssrc, (expected, lost))?;
        let expected = expected.checked_sub(expected_before).filter(|more| *more >= ENOUGH)?;
        let lost = lost.saturating_sub(lost_before).min(expected);
        Some(lost as f32 / expected as f32)
    }

    /// Ends the window: goes some of the way to its score.
    fn settle(&mut self, window: f32) {
        let score = self.score.get_or_insert(window);
        *score += (window - *score) * if window < *score { FALL } else { RISE };
    }

    /// What to tell others, if it is not what they know.
    fn news(&mut self) -> Option<(QualityLevel, f32)> {
        let score = self.score?;
        let level = level(score, self.told.map(|(level, _)| level));
        let changed = self.told.is_none_or(|(told, _)| told != level);
        self.told = changed.then_some((level, rounded(score))).or(self.told);
        self.told.filter(|_| changed)
    }
}

/// The word for a score, where another one was told before.
fn level(score: f32, before: Option<QualityLevel>) -> QualityLevel {
    let reaches = |threshold: f32, level: QualityLevel| {
        let margin = if before.is_some_and(|before| before < level) { MARGIN } else { 0.0 };
        score >= threshold + margin
    };
    if reaches(EXCELLENT, QualityLevel::Excellent) {
        QualityLevel::Excellent
    } else if reaches(GOOD, QualityLevel::Good) {
        QualityLevel::Good
    } else {
        QualityLevel::Poor
    }
}

fn rounded(score: f32) -> f32 {
    (score * 10.0).round() / 10.0
}

/// The E-model's rating for a delay (one way, with what jitter adds) and a loss in percent.
fn rating(delay_ms: f32, lost_percent: f32) -> f32 {
    let delay = if delay_ms < 160.0 { delay_ms / 40.0 } else { (delay_ms - 120.0) / 10.0 };
    93.2 - delay - 2.5 * lost_percent
}

/// The mean opinion for a rating.
fn opinion(rating: f32) -> f32 {
    let r = rating.clamp(0.0, 100.0);
    (1.0 + 0.035 * r + 7e-6 * r * (r - 60.0) * (100.0 - r)).clamp(1.0, 5.0)
}

impl Part {
    fn rating(&self, round_trip: Duration) -> f32 {
        let one_way = round_trip.as_secs_f32() * 500.0;
        match self.kind {
            MediaKind::Audio => {
                let jitter = self.jitter.as_secs_f32() * 1_000.0;
                rating(one_way + 2.0 * jitter + 10.0, self.lost * 100.0)
            }
            // Packets of one picture leave in a train, which looks like jitter and is none. A lost
            // packet costs the pictures up to the next keyframe.
            MediaKind::Video => rating(one_way + 10.0, self.lost * 200.0),
        }
    }
}

impl Track {
    /// Whether its streams should flow, for all that we know.
    fn is_due(&self) -> bool {
        !self.info.muted && (self.kind() == MediaKind::Audio || !self.demand.is_nothing())
    }

    /// Rungs that flowed, are wanted and do not flow now.
    fn missing_rungs(&self, now: Instant) -> usize {
        let newest = super::layers::newest(&self.layers);
        let gone = |newest: Instant| {
            let heard = self.layers.iter().filter(|layer| layer.heard.is_some());
            heard.filter(|layer| !layer.flows(newest, now)).count()
        };
        newest.map_or(0, gone)
    }
}

impl Room {
    /// Looks at everybody's pictures: do they move? To be called at even distances.
    pub(super) fn watch_pictures(&mut self, now: Instant) {
        let late = |heard: Option<Instant>| {
            heard.is_some_and(|at| now.saturating_duration_since(at) > STANDING)
        };
        for (key, person) in &mut self.participants {
            let (mut newest, mut expected) = (None, false);
            for (_, track) in self.tracks.iter_mut().filter(|(_, track)| track.owner == key) {
                if !track.is_due() {
                    track.demand.moved = false;
                    continue;
                }
                let heard = super::layers::newest(&track.layers);
                newest = newest.max(heard);
                // A shared screen may rest, and a camera needs time to start.
                let moves = track.info.announced.source != Source::Screen
                    && track.kind() == MediaKind::Video
                    && heard.is_some();
                track.demand.moved |= moves && !late(heard);
                expected |= track.demand.moved;
            }
            // Sound that comes shows that it is the camera which rests, not the way.
            let stands = late(newest);
            if expected {
                let (watched, stood) = &mut person.connection.watched;
                *watched += 1;
                *stood += u32::from(stands);
            }
        }
    }

    /// Values the window that ends, and tells what changed to those whom it concerns.
    pub(super) fn value_connections(&mut self, ctx: &mut Context<'_>) {
        let everyone: Vec<usize> = self.participants.iter().map(|(key, _)| key).collect();
        let mut changes = Vec::new();
        for key in everyone {
            let (window, lost) = self.window_score(ctx.now, key);
            let video_bps = self.best_picture(ctx.now, key);
            let Some(person) = self.participants.get_mut(key) else { continue };
            if !person.presence.reachable || !person.was_active() {
                continue;
            }
            person.tally.window(window, lost, video_bps);
            person.connection.settle(window);
            if let Some((level, score)) = person.connection.news() {
                changes.push((key, person.sid.clone(), level, score));
            }
        }
        self.tell_quality(ctx, &changes);
    }

    /// The score of the window that ends, and the mean share that its own streams lost.
    fn window_score(&mut self, now: Instant, key: usize) -> (f32, Option<f32>) {
        let mut ratings = rating(0.0, 0.0);
        let mut parts = self.parts_up(key);
        let own = parts.iter().map(|part| part.lost).sum::<f32>();
        let lost = (!parts.is_empty()).then(|| own / parts.len() as f32);
        parts.extend(self.parts_down(key));
        let Some(person) = self.participants.get_mut(key) else { return (0.0, None) };
        let round_trip = person.round_trip;
        ratings = ratings.min(rating(round_trip.as_secs_f32() * 500.0 + 10.0, 0.0));
        for part in parts {
            ratings = ratings.min(part.rating(round_trip));
        }
        let (watched, stood) = std::mem::take(&mut person.connection.watched);
        if watched > 0 {
            ratings -= 100.0 * stood as f32 / watched as f32;
        }
        let own = self.tracks.iter().filter(|(_, track)| track.owner == key && track.is_due());
        let missing: usize = own.map(|(_, track)| track.missing_rungs(now)).sum();
        (opinion(ratings - RUNG_COST * missing as f32), lost)
    }

    /// What the best of a participant's pictures costs, bits in a second.
    fn best_picture(&self, now: Instant, key: usize) -> Option<u64> {
        let own = self.tracks.iter().map(|(_, track)| track).filter(|track| {
            track.owner == key && track.kind() == MediaKind::Video && track.is_due()
        });
        let best = own.filter_map(|track| track.rungs(now).as_slice().last().map(|rung| rung.bps));
        best.max().filter(|bps| *bps > 0)
    }

    /// What came of a participant's own tracks.
    fn parts_up(&mut self, key: usize) -> Vec<Part> {
        let mut parts = Vec::new();
        let Some(person) = self.participants.get_mut(key) else { return parts };
        for (_, track) in self.tracks.iter().filter(|(_, track)| track.owner == key) {
            let (kind, due) = (track.kind(), track.is_due());
            for layer in track.layers.iter().filter(|layer| layer.reception.started()) {
                let (expected, lost) = layer.reception.totals();
                let lost = person.connection.advance(layer.ssrc, expected, lost);
                if let Some(lost) = lost.filter(|_| due && !layer.stopped) {
                    let jitter = layer.reception.jitter(track.clock);
                    parts.push(Part { kind, lost, jitter });
                }
            }
        }
        parts
    }

    /// What a participant reported of what it was sent. Its reports count a packet as lost that came
    /// again on another stream or as redundancy, so what is repaired is estimated: nearly all, but
    /// what was lost twice.
    fn parts_down(&mut self, key: usize) -> Vec<Part> {
        let mut parts = Vec::new();
        let Some(person) = self.participants.get_mut(key) else { return parts };
        let Participant { subscriptions, connection, protection, .. } = person;
        let reports = std::mem::take(&mut connection.reports);
        for (_, sub) in subscriptions.iter() {
            let Some(report) = reports.get(&sub.ssrc) else { continue };
            let Some(track) = self.tracks.get(sub.track) else { continue };
            // Numbers that never came to us are missing there too, and are not lost on this way: what
            // counts is what was sent and did not arrive.
            let arrived = i64::from(report.highest) - i64::from(report.lost);
            let lost = OFFSET + i64::from(report.sent) - arrived;
            let (sent, lost) = (u64::from(report.sent), u64::try_from(lost).unwrap_or(0));
            let lost = connection.advance(sub.ssrc, sent, lost);
            let Some(lost) = lost.filter(|_| sub.is_flowing() && track.is_due()) else { continue };
            let binding = sub.binding.as_ref();
            let again = binding.map_or(0, |to| match sub.kind {
                MediaKind::Audio if to.red_type.is_none() => 0,
                // Losses come in groups, so further repeats help less than they could.
                MediaKind::Audio => i32::from(protection.distance()).clamp(1, 2),
                MediaKind::Video => i32::from(to.repair_type.is_some()),
            });
            let lost = lost.powi(1 + again);
            let jitter = u64::from(report.jitter) * 1_000_000 / u64::from(track.clock.max(1));
            let jitter = Duration::from_micros(jitter).min(WINDOW);
            parts.push(Part { kind: sub.kind, lost, jitter });
        }
        let streams = subscriptions.iter().map(|(_, sub)| sub.ssrc);
        let own = self.tracks.iter().filter(|(_, track)| track.owner == key);
        let own = own.flat_map(|(_, track)| track.layers.iter().map(|layer| layer.ssrc));
        let alive: Vec<u32> = streams.chain(own).collect();
        connection.before.retain(|ssrc, _| alive.contains(ssrc));
        parts
    }

    /// A participant does not answer any more, or does again.
    pub(super) fn note_reachable(&mut self, ctx: &mut Context<'_>, key: usize, reachable: bool) {
        let Some(person) = self.participants.get_mut(key) else { return };
        if !person.was_active() {
            return;
        }
        let (level, score) =
            if reachable { (QualityLevel::Poor, RETURNED) } else { (QualityLevel::Lost, 0.0) };
        if reachable && person.connection.told.is_none_or(|(told, _)| told != QualityLevel::Lost) {
            return;
        }
        person.connection.score = Some(score.max(1.0));
        person.connection.told = Some((level, score));
        let sid = person.sid.clone();
        self.tell_quality(ctx, &[(key, sid, level, score)]);
    }

    /// Tells a newcomer what it has missed: of everybody whom it receives, and of itself.
    pub(super) fn repeat_quality(&self, ctx: &mut Context<'_>, key: usize) {
        let known = |(key, person): (usize, &Participant)| {
            let (level, score) = person.connection.told?;
            Some((key, person.sid.clone(), level, score))
        };
        let all: Vec<_> = self.participants.iter().filter_map(known).collect();
        if let Some(listener) = self.participants.get(key) {
            self.tell_listener(ctx, key, listener, &all);
        }
    }

    /// Tells a new subscriber about its publisher.
    pub(super) fn introduce_quality(&self, ctx: &mut Context<'_>, listener: usize, owner: usize) {
        let is_of = |sub: &Subscription| {
            self.tracks.get(sub.track).is_some_and(|track| track.owner == owner)
        };
        let Some(owner) = self.participants.get(owner) else { return };
        let Some(listener) = self.participants.get(listener) else { return };
        let first = listener.subscriptions.iter().filter(|(_, sub)| is_of(sub)).count() == 1;
        if let Some((level, score)) = owner.connection.told.filter(|_| first) {
            let told = vec![(owner.sid.clone(), level, score)];
            ctx.tell(listener.session, SessionEvent::Quality(told));
        }
    }

    fn tell_quality(&self, ctx: &mut Context<'_>, changes: &[Change]) {
        if !changes.is_empty() {
            for (key, listener) in &self.participants {
                self.tell_listener(ctx, key, listener, changes);
            }
        }
    }

    fn tell_listener(
        &self,
        ctx: &mut Context<'_>,
        key: usize,
        listener: &Participant,
        changes: &[Change],
    ) {
        let concerns = |(who, _, level, _): &&Change| {
            // Who hears it is not lost.
            let itself = *who == key && *level != QualityLevel::Lost;
            itself || self.receives(listener, *who)
        };
        let told = changes.iter().filter(concerns);
        let told: Vec<_> =
            told.map(|(_, sid, level, score)| (sid.clone(), *level, *score)).collect();
        if !told.is_empty() {
            ctx.tell(listener.session, SessionEvent::Quality(told));
        }
    }

    /// Whether somebody subscribes to anything of another.
    pub(super) fn receives(&self, listener: &Participant, owner: usize) -> bool {
        let of = |track: usize| self.tracks.get(track).map(|track| track.owner);
        listener.subscriptions.iter().any(|(_, sub)| of(sub.track) == Some(owner))
    }
}

/// Whose connection changed, and to what.
type Change = (usize, ParticipantSid, QualityLevel, f32);

#[cfg(test)]
mod tests {
    use super::*;

    fn part(kind: MediaKind, lost: f32, jitter_ms: u64) -> Part {
        Part { kind, lost, jitter: Duration::from_millis(jitter_ms) }
    }

    fn score(part: Part, round_trip_ms: u64) -> f32 {
        opinion(part.rating(Duration::from_millis(round_trip_ms)))
    }

    #[test]
    fn loss_delay_and_jitter_cost_what_the_model_says() {
        let sound = |lost, jitter, trip| score(part(MediaKind::Audio, lost, jitter), trip);
        let close = |a: f32, b: f32| assert!((a - b).abs() < 0.02, "{a} {b}");
        close(sound(0.0, 0, 40), 4.39);
        close(sound(0.05, 2, 100), 3.99);
        close(sound(0.1, 2, 100), 3.43);
        close(sound(0.2, 10, 100), 2.12);
        close(sound(0.0, 0, 500), 3.99);
        close(sound(0.0, 150, 500), 2.53);
        close(sound(1.0, 0, 0), 1.0);
        assert!(score(part(MediaKind::Video, 0.05, 40), 100) < sound(0.05, 0, 100));
    }

    #[test]
    fn words_fall_at_once_and_return_with_a_margin() {
        use QualityLevel::{Excellent, Good, Lost, Poor};
        assert_eq!(level(4.0, None), Excellent);
        assert_eq!(level(4.0, Some(Good)), Good);
        assert_eq!(level(4.1, Some(Good)), Excellent);
        assert_eq!(level(3.99, Some(Excellent)), Good);
        assert_eq!(level(3.05, Some(Poor)), Poor);
        assert_eq!(level(3.05, Some(Good)), Good);
        assert_eq!(level(1.0, Some(Lost)), Poor, "no score is a loss");
    }

    #[test]
    fn a_bad_window_is_seen_at_once_and_forgotten_slowly() {
        let mut connection = Connection::default();
        connection.settle(4.4);
        assert_eq!(connection.news(), Some((QualityLevel::Excellent, 4.4)));
        connection.settle(4.3);
        assert_eq!(connection.news(), None);
        connection.settle(1.2);
        assert_eq!(connection.news(), Some((QualityLevel::Poor, 1.8)));
        let windows = (0..20).take_while(|_| {
            connection.settle(4.4);
            connection.news().is_none_or(|(level, _)| level != QualityLevel::Excellent)
        });
        assert_eq!(windows.count(), 4, "20 s");
    }

    #[test]
    fn short_windows_say_nothing_and_odd_numbers_do_no_harm() {
        let mut connection = Connection::default();
        assert_eq!(connection.advance(1, 100, 50), None, "the first is a base only");
        assert_eq!(connection.advance(1, 109, 50), None, "too few");
        assert_eq!(connection.advance(1, 209, 60), Some(0.1));
        assert_eq!(connection.advance(1, 20, 0), None, "started anew");
        assert_eq!(connection.advance(1, 40, 500), Some(1.0));
        assert_eq!(connection.advance(1, 60, 0), Some(0.0));
        assert_eq!(connection.advance(1, u64::from(u32::MAX), u64::MAX), Some(1.0));
    }
}
