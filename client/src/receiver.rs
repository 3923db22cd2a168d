//! One received track: what came, what is missing, what to ask for again, what to report.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bedside_sfu::core::api::MediaKind;
use bedside_sfu::core::codec::{Codec, keyframe_start};
use bedside_sfu::core::red;
use bedside_sfu::core::rtcp::ReportBlock;
use bedside_sfu::core::rtp::Header;

use crate::frames::Piece;
use crate::lipsync::LipSync;
use crate::picture::Screen;
use crate::playout::{Origin, Playout, opus_samples};
use crate::stats::ReceivedTrack;
use crate::timed::{self, Ear, Heard};

/// Missing packets kept at a time; a larger hole is given up at once. As in libwebrtc.
const MAX_MISSING: usize = 1000;
/// A missing packet is asked for so often …
const MAX_ASKS: u8 = 10;
/// … a round trip apart, but no less than this.
const ASK_INTERVAL: Duration = Duration::from_millis(20);
/// What was asked for in vain may still come for so long: the other side may have to wait for it, too.
const LAST_CHANCE: Duration = Duration::from_secs(2);
/// Reordered packets are given this long before the first asking.
const REORDER: Duration = Duration::from_millis(8);
/// How much of the past the share of missing audio packets keeps with each packet.
const LOSS_MEMORY: f64 = 0.996;
/// A missing audio packet is worth waiting for so long for each per cent that is missing.
const WAIT_PER_PERCENT_MS: f64 = 20.0;
/// Samples of an audio packet before one has come.
const USUAL_SAMPLES: u64 = 960;
/// Between two keyframe requests.
const KEYFRAME_INTERVAL: Duration = Duration::from_millis(500);

/// What an answer says of a track that we receive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ReceiveParameters {
    pub(crate) sid: String,
    /// Tracks of one stream are played together.
    pub(crate) stream: String,
    pub(crate) kind: MediaKind,
    pub(crate) codec: Codec,
    pub(crate) ssrc: u32,
    pub(crate) rtx_ssrc: Option<u32>,
    /// Payload type of redundant audio.
    pub(crate) red_type: Option<u8>,
    /// Extension that says which frames need which.
    pub(crate) descriptor_id: Option<u8>,
    /// The other side repairs what is asked for.
    pub(crate) nack: bool,
}

/// A packet that has not come.
#[derive(Clone, Copy, Debug)]
struct Missing {
    sequence: u64,
    since: Instant,
    ask_at: Instant,
    asks: u8,
}

/// A packet, opened.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Packet<'p> {
    pub(crate) payload: &'p [u8],
    /// Value of the dependency descriptor, if it has one.
    pub(crate) descriptor: Option<&'p [u8]>,
}

/// What the track is played on.
#[derive(Debug)]
enum Output {
    Speaker(Playout),
    Screen(Screen),
    /// Nothing: timed packets are only counted.
    Ear(Arc<dyn Ear>),
}

/// A track that is being received.
#[derive(Debug)]
pub(crate) struct Receiver {
    pub(crate) parameters: ReceiveParameters,
    /// Of a picture: with the sound of its stream.
    pub(crate) lip_sync: LipSync,
    totals: ReceivedTrack,
    /// First and highest sequence number, unwrapped.
    range: Option<(u64, u64)>,
    missing: Vec<Missing>,
    last_at: Option<Instant>,
    last_transit: Option<i64>,
    epoch: Instant,
    /// RFC 3550 §A.8, in media clock units, times 16.
    jitter: u64,
    /// Middle of the last sender report's NTP time, and when it came.
    sender_report: Option<(u32, Instant)>,
    /// Expected and received at the last report.
    reported: (u64, u64),
    keyframe_wanted: bool,
    keyframe_asked: Option<Instant>,
    output: Output,
    /// Share of audio packets missing of late, and how long one is.
    loss: f64,
    samples: u64,
    round_trip: Duration,
    /// The server has paused the picture; its sender is muted.
    paused: (bool, bool),
}

impl Receiver {
    pub(crate) fn new(
        now: Instant,
        parameters: ReceiveParameters,
        ear: Option<Arc<dyn Ear>>,
    ) -> Self {
        let totals = ReceivedTrack::new(parameters.sid.clone(), parameters.kind);
        let output = match (ear, parameters.kind) {
            (Some(ear), _) => Output::Ear(ear),
            (None, MediaKind::Audio) => Output::Speaker(Playout::new(now)),
            (None, MediaKind::Video) => Output::Screen(Screen::new(now)),
        };
        Self {
            parameters,
            lip_sync: LipSync::default(),
            totals,
            range: None,
            missing: Vec::new(),
            last_at: None,
            last_transit: None,
            epoch: now,
            jitter: 0,
            sender_report: None,
            reported: (0, 0),
            keyframe_wanted: false,
            keyframe_asked: None,
            output,
            loss: 0.0,
            samples: USUAL_SAMPLES,
            round_trip: Duration::ZERO,
            paused: (false, false),
        }
    }

    /// Takes a packet of the stream itself.
    pub(crate) fn media(&mut self, now: Instant, header: &Header, packet: Packet<'_>) {
        if let Some((sequence, asked)) = self.take(now, header.sequence) {
            // Audio has no repair stream: what was asked for comes again as it was.
            let repaired = asked && self.parameters.kind == MediaKind::Audio;
            self.totals.repaired += u64::from(repaired);
            self.count(now, header, packet, repaired);
            self.put_out(now, sequence, header, packet, repaired);
        }
    }

    /// Takes a packet of the repair stream.
    pub(crate) fn repair(&mut self, now: Instant, header: &Header, packet: Packet<'_>) {
        // Without a body it is padding: a probe.
        let Some((original, payload)) = packet.payload.split_first_chunk() else { return };
        let sequence = u16::from_be_bytes(*original);
        if self.range.is_some()
            && let Some((sequence, _)) = self.take(now, sequence)
        {
            let packet = Packet { payload, ..packet };
            self.totals.repaired += 1;
            self.count(now, header, packet, true);
            self.put_out(now, sequence, header, packet, true);
        }
    }

    /// Hears or sees what a packet brings.
    fn put_out(
        &mut self,
        now: Instant,
        sequence: u64,
        header: &Header,
        packet: Packet<'_>,
        repaired: bool,
    ) {
        let (codec, red_type) = (self.parameters.codec, self.parameters.red_type);
        match &mut self.output {
            Output::Screen(screen) => {
                let mut piece = Piece::read(codec, packet.payload, packet.descriptor);
                piece.timestamp = header.timestamp;
                piece.ends = header.marker;
                piece.repaired = repaired;
                screen.insert(now, sequence, piece, self.round_trip);
            }
            Output::Speaker(playout) => {
                let is_red = red_type == Some(header.payload_type);
                let payload = packet.payload;
                let newest = if is_red { red::primary(payload) } else { Some(payload) };
                let samples = opus_samples(newest.unwrap_or_default());
                if samples == 0 {
                    return;
                }
                self.samples = samples;
                let origin = if repaired { Origin::Repaired } else { Origin::Direct };
                playout.insert(now, header.timestamp, samples, origin);
                let olds = if is_red { red::blocks(payload) } else { red::Olds::default() };
                for old in olds.iter().flatten() {
                    let timestamp = header.timestamp.wrapping_sub(old.offset);
                    let samples = opus_samples(old.payload);
                    playout.insert(now, timestamp, samples, Origin::Redundant);
                }
            }
            Output::Ear(ear) => {
                if let Some(left) = timed::read_stamp(packet.payload) {
                    ear.heard(Heard { left, came: now, repaired });
                }
            }
        }
    }

    /// Whether anything has come yet.
    pub(crate) const fn is_flowing(&self) -> bool {
        self.range.is_some()
    }

    /// How long it waits before it is heard or seen, and has to wait at least.
    pub(crate) fn delay(&mut self, least: Duration) -> Duration {
        match &mut self.output {
            Output::Speaker(playout) => playout.delay(least),
            Output::Screen(screen) => screen.delay(least),
            Output::Ear(_) => least,
        }
    }

    /// Notes that the server has paused the picture, or the sender is muted; `None`: as before.
    pub(crate) fn pause(&mut self, now: Instant, paused: Option<bool>, muted: Option<bool>) {
        self.paused = (paused.unwrap_or(self.paused.0), muted.unwrap_or(self.paused.1));
        if let Output::Screen(screen) = &mut self.output {
            screen.pause(now, self.paused.0 || self.paused.1);
        }
    }

    /// Notes that a sequence number has come. Gives it unwrapped, and whether it had been asked for;
    /// nothing when it had come before.
    fn take(&mut self, now: Instant, sequence: u16) -> Option<(u64, bool)> {
        let Some((first, highest)) = self.range else {
            // One cycle up, so that an earlier packet has a number, too.
            let start = 65_536 + u64::from(sequence);
            self.range = Some((start, start));
            self.keyframe_wanted = self.parameters.kind == MediaKind::Video;
            return Some((start, false));
        };
        let distance = sequence.wrapping_sub(highest as u16) as i16;
        let unwrapped = highest.saturating_add_signed(i64::from(distance));
        if unwrapped > highest {
            self.range = Some((first, unwrapped));
            for _ in highest + 1..unwrapped.min(highest + MAX_MISSING as u64) {
                self.loss = self.loss * LOSS_MEMORY + (1.0 - LOSS_MEMORY);
            }
            self.loss *= LOSS_MEMORY;
            self.miss(now, highest + 1..unwrapped);
            return Some((unwrapped, false));
        }
        match self.missing.iter().position(|missing| missing.sequence == unwrapped) {
            Some(at) => {
                let missing = self.missing.swap_remove(at);
                Some((unwrapped, missing.asks > 0))
            }
            None if unwrapped < first => None,
            None => {
                self.totals.repeated += 1;
                None
            }
        }
    }

    fn miss(&mut self, now: Instant, hole: std::ops::Range<u64>) {
        if self.missing.len() as u64 + (hole.end - hole.start) > MAX_MISSING as u64 {
            self.totals.lost += self.missing.len() as u64 + (hole.end - hole.start);
            self.missing.clear();
            self.keyframe_wanted = self.parameters.kind == MediaKind::Video;
            return;
        }
        let missing = |sequence| Missing { sequence, since: now, ask_at: now + REORDER, asks: 0 };
        self.missing.extend(hole.map(missing));
    }

    fn count(&mut self, now: Instant, header: &Header, packet: Packet<'_>, repaired: bool) {
        self.totals.packets += 1;
        self.totals.bytes += packet.payload.len() as u64;
        if let Some(last) = self.last_at.replace(now) {
            let gap = now.saturating_duration_since(last);
            self.totals.longest_gap = self.totals.longest_gap.max(gap);
        }
        let video = self.parameters.kind == MediaKind::Video;
        if header.marker || !video {
            self.totals.frames += 1;
        }
        let codec = self.parameters.codec;
        if video && keyframe_start(codec, packet.payload, packet.descriptor) {
            self.totals.keyframes += 1;
            self.keyframe_wanted = false;
        }
        // A repair's delay says nothing about the path (RFC 4588 §8.3 keeps it out of reports).
        if !repaired {
            self.measure_jitter(now, header.timestamp);
        }
    }

    fn measure_jitter(&mut self, now: Instant, timestamp: u32) {
        let rate = u128::from(self.parameters.codec.clock_rate());
        let elapsed = now.saturating_duration_since(self.epoch).as_micros();
        let arrival = (elapsed * rate / 1_000_000) as u32;
        let transit = i64::from(arrival.wrapping_sub(timestamp));
        if let Some(last) = self.last_transit.replace(transit) {
            let difference = u64::from((transit - last).unsigned_abs() as u32);
            // A wrap of the clock is no jitter.
            if difference < rate as u64 * 10 {
                self.jitter = (self.jitter + difference).saturating_sub((self.jitter + 8) >> 4);
            }
        }
    }

    /// Takes the time of a sender report.
    pub(crate) const fn sender_report(&mut self, now: Instant, ntp: u64) {
        self.sender_report = Some(((ntp >> 16) as u32, now));
    }

    /// Collects the sequence numbers to ask for now.
    pub(crate) fn asks(&mut self, now: Instant, round_trip: Duration, out: &mut Vec<u16>) {
        self.round_trip = round_trip;
        let interval = ASK_INTERVAL.max(round_trip);
        let before = self.missing.len();
        self.missing.retain(|missing| missing.asks <= MAX_ASKS || missing.ask_at > now);
        self.totals.lost += (before - self.missing.len()) as u64;
        // A screen notices by itself that it cannot go on.
        let blind = matches!(self.output, Output::Ear(_));
        self.keyframe_wanted |=
            blind && before > self.missing.len() && self.parameters.kind == MediaKind::Video;
        let mut missing = std::mem::take(&mut self.missing);
        for missing in missing.iter_mut().filter(|missing| missing.ask_at <= now) {
            missing.asks += 1;
            if missing.asks > MAX_ASKS {
                missing.ask_at = now + LAST_CHANCE;
                continue;
            }
            missing.ask_at = now + interval;
            if self.parameters.nack && self.is_worth_asking(now, missing) {
                self.totals.nacked += 1;
                out.push(missing.sequence as u16);
            }
        }
        self.missing = missing;
        out.sort_unstable_by_key(|sequence| {
            sequence.wrapping_sub(self.range.map_or(0, |(_, highest)| highest as u16) ^ 0x8000)
        });
    }

    /// Audio is asked for only if it can come before its turn, or if so much is missing that play-out
    /// waits for it, as NetEq decides. Video always is.
    fn is_worth_asking(&self, now: Instant, missing: &Missing) -> bool {
        let Output::Speaker(playout) = &self.output else { return true };
        let highest = self.range.map_or(0, |(_, highest)| highest);
        let back = highest.saturating_sub(missing.sequence) * self.samples;
        let age = now.saturating_duration_since(missing.since);
        let worth = Duration::from_millis((self.loss * 100.0 * WAIT_PER_PERCENT_MS) as u64);
        playout.time_to_play(back) > self.round_trip || age + self.round_trip < worth
    }

    /// When the next asking is due.
    pub(crate) fn due(&self) -> Option<Instant> {
        self.missing.iter().map(|missing| missing.ask_at).min()
    }

    /// Whether a keyframe must be asked for now.
    pub(crate) fn asks_keyframe(&mut self, now: Instant) -> bool {
        let rested = self
            .keyframe_asked
            .is_none_or(|asked| now.saturating_duration_since(asked) >= KEYFRAME_INTERVAL);
        let stuck = match &mut self.output {
            Output::Screen(screen) => screen.is_stuck(now),
            Output::Speaker(_) | Output::Ear(_) => false,
        };
        self.keyframe_wanted |= stuck;
        if !self.keyframe_wanted || !rested {
            return false;
        }
        self.keyframe_asked = Some(now);
        self.totals.keyframe_requests += 1;
        true
    }

    /// What a receiver report says now; nothing before the first packet.
    pub(crate) fn report(&mut self, now: Instant) -> Option<ReportBlock> {
        let (first, highest) = self.range?;
        let expected = highest - first + 1;
        let received = self.totals.packets;
        let (expected_before, received_before) =
            std::mem::replace(&mut self.reported, (expected, received));
        let interval = expected.saturating_sub(expected_before);
        let lost = interval.saturating_sub(received.saturating_sub(received_before));
        let fraction = (lost * 256).checked_div(interval).unwrap_or(0).min(255);
        let (lsr, dlsr) = self.sender_report.map_or((0, 0), |(lsr, at)| {
            let since = now.saturating_duration_since(at).as_micros();
            (lsr, (since * 65_536 / 1_000_000) as u32)
        });
        Some(ReportBlock {
            ssrc: self.parameters.ssrc,
            fraction_lost: fraction as u8,
            lost: expected.saturating_sub(received).min(0x7F_FFFF) as i32,
            // The cycle that numbering starts in is ours alone.
            highest: (highest - 65_536) as u32,
            jitter: (self.jitter >> 4) as u32,
            lsr,
            dlsr,
        })
    }

    pub(crate) fn totals(&mut self, now: Instant, active: bool) -> ReceivedTrack {
        match &mut self.output {
            Output::Speaker(playout) => {
                playout.advance(now);
                self.totals.audio = playout.totals();
            }
            Output::Screen(screen) => {
                screen.advance(now);
                self.totals.video = screen.totals(now);
            }
            Output::Ear(_) => {}
        }
        let rate = u64::from(self.parameters.codec.clock_rate());
        let jitter = Duration::from_micros((self.jitter >> 4) * 1_000_000 / rate);
        ReceivedTrack { active, jitter, ..self.totals.clone() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn receiver(now: Instant) -> Receiver {
        Receiver::new(
            now,
            ReceiveParameters {
                sid: "TR_x".to_owned(),
                stream: "PA_x".to_owned(),
                kind: MediaKind::Video,
                codec: Codec::Vp8,
                ssrc: 9,
                rtx_ssrc: Some(10),
                red_type: None,
                descriptor_id: None,
                nack: true,
            },
            None,
        )
    }

    fn header(sequence: u16) -> Header {
        Header {
            marker: true,
            payload_type: 96,
            sequence,
            timestamp: u32::from(sequence) * 4500,
            ssrc: 9,
            len: 12,
            padding: false,
        }
    }

    const KEY: Packet<'static> = packet(&[0x90, 0x80, 0x80, 0x01, 0x00]);
    const DELTA: Packet<'static> = packet(&[0x90, 0x80, 0x80, 0x02, 0x01]);

    const fn packet(payload: &[u8]) -> Packet<'_> {
        Packet { payload, descriptor: None }
    }

    fn at(start: Instant, millis: u64) -> Instant {
        start + Duration::from_millis(millis)
    }

    #[test]
    fn a_hole_is_asked_for_until_it_is_filled() {
        let start = Instant::now();
        let mut receiver = receiver(start);
        for sequence in [65_534, 65_535, 2, 3] {
            receiver.media(start, &header(sequence), KEY);
        }
        let mut asks = Vec::new();
        receiver.asks(at(start, 1), Duration::ZERO, &mut asks);
        assert!(asks.is_empty(), "a reordered packet gets a moment");
        receiver.asks(at(start, 10), Duration::ZERO, &mut asks);
        assert_eq!(asks, [0, 1]);
        receiver.media(at(start, 12), &header(1), DELTA);
        receiver.repair(
            at(start, 20),
            &header(500),
            packet(&[&[0, 0][..], DELTA.payload].concat()),
        );
        receiver.repair(
            at(start, 21),
            &header(501),
            packet(&[&[0, 0][..], DELTA.payload].concat()),
        );
        asks.clear();
        receiver.asks(at(start, 200), Duration::ZERO, &mut asks);
        assert!(asks.is_empty());
        let totals = receiver.totals(start, true);
        assert_eq!((totals.packets, totals.repaired, totals.repeated), (6, 1, 1));
        assert_eq!((totals.lost, totals.nacked, totals.frames), (0, 2, 6));
        let report = receiver.report(at(start, 300)).unwrap();
        assert_eq!((report.lost, report.fraction_lost, report.highest), (0, 0, 65_536 + 3));
    }

    #[test]
    fn what_never_comes_is_lost_and_a_keyframe_is_asked_for() {
        let start = Instant::now();
        let mut receiver = receiver(start);
        receiver.media(start, &header(1), KEY);
        assert!(!receiver.asks_keyframe(start));
        receiver.media(start, &header(3), DELTA);
        let mut asks = Vec::new();
        for step in 0..42 {
            receiver.asks(at(start, 70 * step), Duration::ZERO, &mut asks);
            receiver.media(at(start, 70 * step), &header(4 + step as u16), DELTA);
        }
        assert_eq!(asks.len(), usize::from(MAX_ASKS));
        assert_eq!(receiver.totals(start, true).lost, 1);
        assert!(!receiver.asks_keyframe(at(start, 2900)), "a repair may still come");
        assert!(receiver.asks_keyframe(at(start, 3100)));
        assert!(!receiver.asks_keyframe(at(start, 3200)), "throttled");
        receiver.media(at(start, 3300), &header(46), KEY);
        assert!(!receiver.asks_keyframe(at(start, 4000)));
        let report = receiver.report(at(start, 4000)).unwrap();
        assert_eq!((report.lost, report.fraction_lost), (1, 5));
    }

    #[test]
    fn a_track_that_starts_without_a_keyframe_asks_for_one() {
        let start = Instant::now();
        let mut receiver = receiver(start);
        receiver.media(start, &header(1), DELTA);
        assert!(receiver.asks_keyframe(start));
    }

    #[test]
    fn an_impossible_hole_is_given_up_at_once() {
        let start = Instant::now();
        let mut receiver = receiver(start);
        receiver.media(start, &header(1), KEY);
        receiver.media(start, &header(10_000), DELTA);
        assert_eq!(receiver.totals(start, true).lost, 9_998);
        assert_eq!(receiver.due(), None);
        assert!(receiver.asks_keyframe(start));
    }

    #[test]
    fn reports_carry_the_delay_since_the_sender_report() {
        let start = Instant::now();
        let mut receiver = receiver(start);
        assert!(receiver.report(start).is_none());
        receiver.media(start, &header(1), KEY);
        receiver.sender_report(start, 0x1122_3344_5566_7788);
        let report = receiver.report(at(start, 500)).unwrap();
        assert_eq!((report.lsr, report.dlsr), (0x3344_5566, 32_768));
    }

    #[test]
    fn a_steady_stream_has_no_jitter_and_an_uneven_one_has() {
        let start = Instant::now();
        let mut receiver = receiver(start);
        for step in 0..100 {
            receiver.media(at(start, 50 * u64::from(step)), &header(step), DELTA);
        }
        assert!(receiver.totals(start, true).jitter < Duration::from_micros(500));
        for step in 100..200_u16 {
            let late = u64::from(step % 2) * 20;
            receiver.media(at(start, 50 * u64::from(step) + late), &header(step), DELTA);
        }
        let jitter = receiver.totals(start, true).jitter;
        assert!((10..21).contains(&jitter.as_millis()), "{jitter:?}");
        assert_eq!(receiver.totals(start, true).longest_gap.as_millis(), 70);
    }
}
