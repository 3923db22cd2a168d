//! What no subscriber may ever see, looked for with random sources, lines and wishes.
//!
//! Streams of several kinds send through a line that loses, repairs, reorders and repeats; targets
//! change at random. Looked for: gaps of our making, numbers used twice, clocks that go back, jumps
//! of picture ids, frames whose references were left out, pictures without their last marker, and
//! repairs that differ from the original.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use rand_chacha::rand_core::{Rng as _, SeedableRng as _};

use super::super::*;
use super::subscription;
use crate::core::Rng;
use crate::core::codec::Codec;
use crate::core::frames::Frames;
use crate::core::layers::Layer;
use crate::core::reception::{Reception, Via};
use crate::core::rtcp::SenderInfo;
use crate::core::rtp;

const FRAME_MS: u64 = 33;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// One layer, no ids to rewrite.
    H264,
    /// VP8 without temporal layers.
    Vp8,
    /// VP8 with three temporal layers.
    Vp8T3,
    /// VP9 with three temporal layers, as simulcast.
    Vp9T3,
    /// VP9, three spatial layers that predict from each other always.
    L3T3,
    /// The same, with prediction between them in keyframes only.
    L3T3Key,
}

impl Kind {
    const fn codec(self) -> Codec {
        match self {
            Self::H264 => Codec::H264,
            Self::Vp8 | Self::Vp8T3 => Codec::Vp8,
            Self::Vp9T3 | Self::L3T3 | Self::L3T3Key => Codec::Vp9,
        }
    }

    const fn spatials(self) -> u8 {
        match self {
            Self::L3T3 | Self::L3T3Key => 3,
            Self::H264 | Self::Vp8 | Self::Vp8T3 | Self::Vp9T3 => 1,
        }
    }

    const fn temporals(self) -> u8 {
        match self {
            Self::H264 | Self::Vp8 => 1,
            Self::Vp8T3 | Self::Vp9T3 | Self::L3T3 | Self::L3T3Key => 3,
        }
    }
}

/// A frame of one spatial layer: stream, number of its picture, layer.
type FrameKey = (usize, u64, u8);

#[derive(Clone, Debug)]
struct Sample {
    stream: usize,
    sequence: u16,
    timestamp: u32,
    marker: bool,
    payload: Vec<u8>,
    frame: FrameKey,
    captured_ms: u64,
    /// The frames it predicts from.
    references: Vec<FrameKey>,
    starts: bool,
}

/// One encoder.
struct Encoder {
    kind: Kind,
    stream: usize,
    sequence: u16,
    clock: u32,
    picture: u16,
    wide: bool,
    tl0: u8,
    pictures: u64,
    /// Pictures since the keyframe.
    since: u64,
    wanted: bool,
    active: bool,
    /// Newest frame by spatial and temporal layer.
    last: BTreeMap<(u8, u8), FrameKey>,
}

impl Encoder {
    fn encode(&mut self, rng: &mut Rng, ms: u64, out: &mut Vec<Sample>) {
        let key = std::mem::take(&mut self.wanted) || self.pictures == 0;
        self.since = if key { 0 } else { self.since + 1 };
        let temporal = match self.kind.temporals() {
            1 => 0,
            _ => [0, 2, 1, 2][self.since as usize % 4],
        };
        self.picture = self.picture.wrapping_add(1) & if self.wide { 0x7FFF } else { 0x7F };
        self.tl0 = self.tl0.wrapping_add(u8::from(temporal == 0));
        self.pictures += 1;
        if key {
            self.last.clear();
        }
        let spatials = self.kind.spatials();
        for spatial in 0..spatials {
            let frame = (self.stream, self.pictures, spatial);
            let references = self.references(key, spatial, temporal);
            let packets = 1 + rng.next_u32() % 3;
            for at in 0..packets {
                let (first, last) = (at == 0, at + 1 == packets);
                let mut payload = self.head(key, spatial, temporal, first, last);
                payload.extend_from_slice(&[self.stream as u8, spatial, at as u8]);
                payload.extend_from_slice(&self.pictures.to_be_bytes());
                out.push(Sample {
                    stream: self.stream,
                    sequence: self.sequence,
                    timestamp: self.clock.wrapping_add((ms * 90) as u32),
                    marker: last && spatial + 1 == spatials,
                    payload,
                    frame,
                    captured_ms: ms,
                    references: references.clone(),
                    starts: key && first && spatial == 0,
                });
                self.sequence = self.sequence.wrapping_add(1);
            }
        }
        for spatial in 0..spatials {
            self.last.insert((spatial, temporal), (self.stream, self.pictures, spatial));
            if temporal == 0 {
                self.last.retain(|(s, t), _| *s != spatial || *t == 0 || self.kind == Kind::Vp8T3);
            }
        }
    }

    fn references(&self, key: bool, spatial: u8, temporal: u8) -> Vec<FrameKey> {
        let mut found = Vec::new();
        if spatial > 0 && (key || self.kind == Kind::L3T3) {
            found.push((self.stream, self.pictures, spatial - 1));
        }
        if key {
            return found;
        }
        let below = if self.syncs(temporal) { 0 } else { temporal };
        let temporals = if self.kind == Kind::Vp8T3 {
            // The base layer, and whatever is not older than the last synchronisation.
            0..=below
        } else {
            0..=temporal.saturating_sub(1)
        };
        found.extend(temporals.filter_map(|temporal| self.last.get(&(spatial, temporal))));
        found
    }

    /// Y of VP8: the first picture of each upper layer in a group of eight.
    fn syncs(&self, temporal: u8) -> bool {
        temporal > 0 && self.since % 8 < 3
    }

    fn head(&self, key: bool, spatial: u8, temporal: u8, first: bool, last: bool) -> Vec<u8> {
        let id = self.picture.to_be_bytes();
        let id = if self.wide { vec![id[0] | 0x80, id[1]] } else { vec![id[1]] };
        let mut head = Vec::new();
        match self.kind {
            Kind::H264 => head.extend([if key { 0x67 } else { 0x41 }, 0x88]),
            Kind::Vp8 | Kind::Vp8T3 => {
                let layered = self.kind == Kind::Vp8T3;
                head.push(0x80 | u8::from(first) << 4);
                head.push(if layered { 0xE0 } else { 0xC0 });
                head.extend(id);
                head.push(self.tl0);
                if layered {
                    head.push(temporal << 6 | u8::from(self.syncs(temporal)) << 5);
                }
                head.push(u8::from(!key));
            }
            Kind::Vp9T3 | Kind::L3T3 | Kind::L3T3Key => {
                let alone = self.kind != Kind::L3T3 && !key;
                let between = spatial > 0 && !alone;
                head.push(
                    0xA0 | u8::from(!key) << 6
                        | u8::from(first) << 3
                        | u8::from(last) << 2
                        | u8::from(key && first && spatial == 0) << 1
                        | u8::from(alone),
                );
                head.extend(id);
                head.push(temporal << 5 | 0x10 | spatial << 1 | u8::from(between));
                head.push(self.tl0);
                if key && first && spatial == 0 {
                    head.push((self.kind.spatials() - 1) << 5);
                }
            }
        }
        head
    }
}

/// What the subscriber got under one number.
struct Got {
    /// Extended sequence number.
    number: u64,
    bytes: Vec<u8>,
    header: usize,
    timestamp: u32,
    marker: bool,
    empty: bool,
    sample: usize,
}

struct World {
    rng: Rng,
    now: Instant,
    start: Instant,
    kind: Kind,
    encoders: Vec<Encoder>,
    layers: Vec<Layer>,
    frames: Vec<Frames>,
    receptions: Vec<Reception>,
    samples: Vec<Sample>,
    arrived: BTreeSet<usize>,
    /// Sample by stream and extended number.
    places: BTreeMap<(usize, u64), usize>,
    /// To arrive after so many other packets.
    late: Vec<(u32, usize)>,
    sub: Subscription,
    got: BTreeMap<u64, Got>,
    highest: Option<u64>,
    /// Whose the numbers are that were passed over.
    kept: BTreeMap<u64, (usize, u64)>,
    loss: u32,
    with_reports: bool,
    switches: Vec<u64>,
}

const KINDS: [Kind; 6] =
    [Kind::H264, Kind::Vp8, Kind::Vp8T3, Kind::Vp9T3, Kind::L3T3, Kind::L3T3Key];

impl World {
    fn new(seed: u64) -> Self {
        let mut rng = Rng::seed_from_u64(seed);
        let start = Instant::now() + Duration::from_secs(1_000);
        let kind = KINDS[rng.next_u32() as usize % KINDS.len()];
        let streams = if kind.spatials() > 1 { 1 } else { 1 + rng.next_u32() as usize % 3 };
        let with_reports = rng.next_u32() % 3 > 0;
        let wide = rng.next_u32() % 4 > 0;
        let mut encoders = Vec::new();
        let mut layers = Vec::new();
        for stream in 0..streams {
            let clock = rng.next_u32();
            encoders.push(Encoder {
                kind,
                stream,
                sequence: rng.next_u32() as u16,
                clock,
                picture: rng.next_u32() as u16 & if wide { 0x7FFF } else { 0x7F },
                wide,
                tl0: rng.next_u32() as u8,
                pictures: 0,
                since: 0,
                wanted: true,
                active: true,
                last: BTreeMap::new(),
            });
            let mut layer = Layer::new(String::new(), 0);
            if with_reports {
                let ms = rng.next_u32() % 1_000;
                let ntp = (u64::from(ms) << 32) / 1_000 + (1 << 40);
                let rtp_timestamp = clock.wrapping_add(ms * 90);
                let info = SenderInfo { ntp, rtp_timestamp, packets: 1, octets: 1 };
                layer.report = Some((info, start));
            }
            layers.push(layer);
        }
        let mut sub = subscription();
        sub.target = None;
        let loss = [0, 0, 20, 80, 200][rng.next_u32() as usize % 5];
        Self {
            now: start,
            start,
            kind,
            frames: (0..streams).map(|_| Frames::default()).collect(),
            receptions: (0..streams).map(|_| Reception::new()).collect(),
            encoders,
            layers,
            samples: Vec::new(),
            arrived: BTreeSet::new(),
            places: BTreeMap::new(),
            late: Vec::new(),
            sub,
            got: BTreeMap::new(),
            highest: None,
            kept: BTreeMap::new(),
            loss,
            with_reports,
            switches: Vec::new(),
            rng,
        }
    }

    fn chance(&mut self, of_thousand: u32) -> bool {
        self.rng.next_u32() % 1_000 < of_thousand
    }

    fn below(&mut self, bound: usize) -> usize {
        self.rng.next_u32() as usize % bound
    }

    fn run(&mut self, pictures: u64) {
        for picture in 0..pictures {
            let ms = picture * FRAME_MS;
            self.now = self.start + Duration::from_millis(ms);
            self.change_wishes();
            let mut samples = Vec::new();
            for at in 0..self.encoders.len() {
                if self.chance(8) && self.encoders.len() > 1 {
                    self.encoders[at].active ^= true;
                }
                if self.chance(10) {
                    self.encoders[at].wanted = true;
                }
                if self.encoders[at].active {
                    self.encoders[at].encode(&mut self.rng, ms, &mut samples);
                }
                if self.chance(60) {
                    self.pad(at, ms, &mut samples);
                }
            }
            for sample in samples {
                self.transport(sample);
            }
        }
        for (_, sample) in std::mem::take(&mut self.late) {
            self.arrive(sample, Via::Repair);
        }
    }

    fn change_wishes(&mut self) {
        if self.sub.target.is_none() || self.chance(60) {
            let target = Target {
                stream: self.below(self.encoders.len()) as u8,
                spatial: self.below(4) as u8,
                temporal: self.below(4) as u8,
            };
            self.sub.target = (!self.chance(60)).then_some(target);
        }
        if self.chance(10) {
            self.sub.pause();
        }
    }

    fn pad(&mut self, stream: usize, ms: u64, out: &mut Vec<Sample>) {
        let encoder = &mut self.encoders[stream];
        for _ in 0..1 + self.rng.next_u32() % 3 {
            out.push(Sample {
                stream,
                sequence: encoder.sequence,
                timestamp: encoder.clock.wrapping_add((ms * 90) as u32),
                marker: false,
                payload: Vec::new(),
                frame: (stream, u64::MAX, 0),
                captured_ms: ms,
                references: Vec::new(),
                starts: false,
            });
            encoder.sequence = encoder.sequence.wrapping_add(1);
        }
    }

    fn transport(&mut self, sample: Sample) {
        let at = self.samples.len();
        self.samples.push(sample);
        if self.chance(self.loss) {
            // Most are repaired, after the packets of up to some pictures.
            if self.chance(700) {
                let after = 1 + self.below(60) as u32;
                self.late.push((after, at));
            }
        } else if self.chance(30) {
            let after = 1 + self.below(4) as u32;
            self.late.push((after, at));
        } else {
            self.arrive(at, Via::Media);
        }
        let mut due = Vec::new();
        self.late.retain_mut(|(after, at)| {
            *after -= 1;
            if *after == 0 {
                due.push(*at);
            }
            *after > 0
        });
        for at in due {
            self.arrive(at, Via::Repair);
        }
    }

    fn arrive(&mut self, at: usize, via: Via) {
        self.forward(at, via);
        if self.chance(20) {
            self.forward(at, via);
        }
        if self.chance(100) {
            self.repair();
        }
    }

    fn forward(&mut self, at: usize, via: Via) {
        let sample = self.samples[at].clone();
        let stream = sample.stream;
        let Some(arrival) = self.receptions[stream].record(self.now, sample.sequence, via) else {
            return;
        };
        self.arrived.insert(at);
        self.places.insert((stream, arrival.index), at);
        let codec = self.kind.codec();
        let read = self.frames[stream].read(codec, sample.timestamp, &sample.payload, &[]);
        if codec != Codec::H264 {
            assert_eq!(read.keyframe_start, sample.starts);
        }
        let packet = Packet {
            layer: stream,
            index: arrival.index,
            marker: sample.marker,
            timestamp: sample.timestamp,
            starts: sample.starts && arrival.newest,
            restored: false,
            red: None,
            olds: red::Olds::default(),
            descriptor: &[],
            playout: None,
            structure: None,
            frame: read.frame,
            ids: read.ids,
            payload: &sample.payload,
        };
        if arrival.torn && self.sub.stream() == Some(stream) {
            self.sub.pause();
        }
        let before = self.sub.stream();
        let clocks = Clocks { rate: 90_000, layers: &self.layers };
        let verdict = self.sub.admit(self.now, &clocks, &packet);
        if verdict == Verdict::NeedsKeyframe || self.sub.waits() {
            let wanted = self.sub.wanted().unwrap_or(stream);
            if self.rng.next_u32().is_multiple_of(8) {
                self.encoders[wanted].wanted = true;
            }
        }
        if let Verdict::Send(shift) = verdict {
            if self.sub.stream() != before {
                self.switches.push(sample.captured_ms);
            }
            let mut bytes = Vec::new();
            let header = self.sub.write(&mut bytes, &shift, &packet).unwrap();
            self.sub.count(&shift, &packet, &bytes);
            self.take(bytes, header, &shift, at);
        }
    }

    /// A packet reaches the subscriber.
    fn take(&mut self, bytes: Vec<u8>, header: usize, shift: &Shift, sample: usize) {
        let parsed = rtp::Header::parse(&bytes).unwrap();
        let sequence = parsed.sequence;
        let number = match self.highest {
            None => u64::from(sequence) + (1 << 16),
            Some(highest) => {
                highest.wrapping_add(i64::from(sequence.wrapping_sub(highest as u16) as i16) as u64)
            }
        };
        for missing in self.highest.map_or(number, |highest| highest + 1)..number {
            let (layer, index, _) = self.sub.spans.source(missing as u16).unwrap();
            self.kept.insert(missing, (layer, index));
        }
        self.highest = Some(self.highest.map_or(number, |highest| highest.max(number)));
        let got = Got {
            number,
            header,
            timestamp: parsed.timestamp,
            marker: parsed.marker,
            empty: shift.empty || bytes.len() == header,
            sample,
            bytes,
        };
        assert_eq!(shift.empty, got.empty && !self.samples[sample].payload.is_empty());
        assert!(self.got.insert(number, got).is_none(), "number {number} used twice");
    }

    /// The subscriber asks for one of the last packets again.
    fn repair(&mut self) {
        let Some(highest) = self.highest else { return };
        let number = highest - self.below(100) as u64;
        let Some(got) = self.got.get(&number) else { return };
        let Some((layer, index, shift)) = self.sub.spans.source(number as u16) else { return };
        assert_eq!(self.places.get(&(layer, index)), Some(&got.sample), "another packet");
        let sample = &self.samples[got.sample];
        let packet = Packet {
            layer,
            index,
            marker: sample.marker,
            timestamp: sample.timestamp,
            starts: false,
            restored: false,
            red: None,
            olds: red::Olds::default(),
            descriptor: &[],
            playout: None,
            structure: None,
            frame: Frame::PLAIN,
            ids: Ids::of(self.kind.codec(), &sample.payload),
            payload: &sample.payload,
        };
        let mut bytes = Vec::new();
        self.sub.write(&mut bytes, &shift, &packet).unwrap();
        assert_eq!(bytes, got.bytes, "the repair differs: {:?}", sample.frame);
    }

    fn check(&self) {
        self.check_gaps();
        self.check_clock();
        self.check_references();
        self.check_markers();
        if self.kind.codec() != Codec::H264 {
            self.check_ids();
        }
        if self.with_reports {
            self.check_lip_sync();
        }
    }

    fn check_gaps(&self) {
        for (number, place) in &self.kept {
            let came = self.places.contains_key(place);
            assert_eq!(came, self.got.contains_key(number), "{number} is of {place:?}");
        }
    }

    fn check_clock(&self) {
        let mut last: Option<&Got> = None;
        for got in self.got.values() {
            if let Some(last) = last {
                let step = got.timestamp.wrapping_sub(last.timestamp) as i32;
                let same = self.samples[last.sample].frame.1 == self.samples[got.sample].frame.1;
                let padding = |got: &Got| self.samples[got.sample].payload.is_empty();
                assert!(step >= 0, "the clock goes back by {step}");
                assert!(same || step > 0 || padding(got) || padding(last), "pictures at one time");
            }
            last = Some(got);
        }
    }

    /// Samples of each frame.
    fn by_frame(&self) -> BTreeMap<FrameKey, Vec<usize>> {
        let mut frames: BTreeMap<FrameKey, Vec<usize>> = BTreeMap::new();
        for (at, sample) in self.samples.iter().enumerate() {
            if !sample.payload.is_empty() {
                frames.entry(sample.frame).or_default().push(at);
            }
        }
        frames
    }

    /// A frame that was sent predicts from frames that were sent.
    fn check_references(&self) {
        let frames = self.by_frame();
        let full = self.got.values().filter(|got| !got.empty);
        let sent: BTreeSet<usize> = full.map(|got| got.sample).collect();
        for at in &sent {
            for reference in &self.samples[*at].references {
                let any = frames[reference].iter().any(|at| sent.contains(at));
                let whole = frames[reference]
                    .iter()
                    .all(|at| sent.contains(at) || !self.arrived.contains(at));
                // Lost altogether on its way to us is not our fault.
                let lost = frames[reference].iter().all(|at| !self.arrived.contains(at));
                // Where a stream begins, packets that overtook its first one came too late.
                let overtaken = any && self.loss > 0;
                assert!(
                    whole && (any || lost) || overtaken,
                    "{:?} {:?} without {reference:?}",
                    self.kind,
                    self.samples[*at].frame
                );
            }
        }
    }

    /// The last packet of a picture has the marker, and no other.
    fn check_markers(&self) {
        let mut pictures: BTreeMap<(usize, u64), Vec<&Got>> = BTreeMap::new();
        for got in self.got.values().filter(|got| !got.empty) {
            let (stream, picture, _) = self.samples[got.sample].frame;
            pictures.entry((stream, picture)).or_default().push(got);
        }
        let by_frame = self.by_frame();
        let newest = self.got.values().next_back().map(|got| self.samples[got.sample].frame);
        for (key, packets) in pictures {
            let numbers = packets.iter().map(|got| got.number);
            let whole = numbers.clone().max().unwrap() - numbers.min().unwrap() + 1;
            let early = packets.iter().rev().skip(1).any(|got| got.marker);
            assert!(!early, "{key:?} ends twice");
            let arrived = |at: &usize| self.arrived.contains(at);
            let frames = (0..self.kind.spatials()).map(|spatial| (key.0, key.1, spatial));
            let lossless = frames.flat_map(|frame| by_frame[&frame].clone()).all(|at| arrived(&at));
            let cut = newest.is_some_and(|newest| (newest.0, newest.1) == key)
                || self.switches.len() > 1
                || self.loss > 0;
            if lossless && whole == packets.len() as u64 && !cut {
                assert!(packets.last().unwrap().marker, "{:?} {key:?} does not end", self.kind);
            }
        }
    }

    fn check_ids(&self) {
        let mut last: Option<(&Got, u16, u8)> = None;
        for got in self.got.values() {
            if got.empty {
                last = None;
                continue;
            }
            let ids = Ids::of(self.kind.codec(), &got.bytes[got.header..]);
            let (picture, tl0) = (ids.picture.unwrap(), ids.tl0.unwrap().1);
            let mask = if picture.2 { 0x7FFF } else { 0x7F };
            let sample = &self.samples[got.sample];
            if let Some((before, id, level)) = last.filter(|last| last.0.number + 1 == got.number) {
                let other = &self.samples[before.sample];
                let step = picture.1.wrapping_sub(id) & mask;
                let levels = tl0.wrapping_sub(level);
                let (from, to) = (other.frame, sample.frame);
                let dense = self.kind.codec() == Codec::Vp8;
                if (from.0, from.1) == (to.0, to.1) {
                    assert_eq!((step, levels), (0, 0), "within {to:?}");
                } else if dense && sample.starts {
                    // What was missing before padding may have been pictures.
                    assert!((1..8).contains(&step) && (1..8).contains(&levels), "{step} {levels}");
                } else if dense {
                    assert_eq!(step, 1, "{:?} {from:?} to {to:?}", self.kind);
                    assert!(levels <= 1, "TL0 by {levels}");
                } else {
                    assert!(
                        (1..64).contains(&step),
                        "{:?} {from:?} to {to:?} by {step}",
                        self.kind
                    );
                }
            }
            last = Some((got, picture.1, tl0));
        }
    }

    /// The subscriber's clock is the publisher's, but for moments after a switch.
    fn check_lip_sync(&self) {
        let Some(first) = self.got.values().next() else { return };
        let offset = |got: &Got| {
            let captured = self.samples[got.sample].captured_ms * 90;
            got.timestamp.wrapping_sub(captured as u32)
        };
        let base = offset(first);
        let mut off_beat = 0;
        for got in self.got.values() {
            let off = offset(got).wrapping_sub(base) as i32;
            // A switch to a stream that is a picture behind is ahead until a picture begins.
            assert!((-2..=2 * 90 * FRAME_MS as i32).contains(&off), "out of step by {off}");
            off_beat += usize::from(off > 90);
        }
        assert!(off_beat * 20 <= self.got.len() + 200, "{off_beat} packets out of step");
    }
}

#[test]
fn nothing_a_subscriber_must_not_see() {
    for seed in 0..600 {
        let run = std::panic::catch_unwind(|| {
            let mut world = World::new(seed);
            world.run(120);
            world.check();
            world.got.len()
        });
        assert!(run.is_ok(), "seed {seed}");
    }
}
