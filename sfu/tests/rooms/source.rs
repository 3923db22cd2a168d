//! What a test client sends: Opus-like and VP8-like packets with numbers that can be checked, and an
//! honest answer to keyframe and repair requests.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use bedside_sfu::core::red::{self, Old};
use bedside_sfu::core::rtp;

pub const MID: u8 = 4;
pub const RID: u8 = 10;
pub const REPAIRED: u8 = 11;
pub const TWCC: u8 = 3;
pub const LEVEL: u8 = 1;

pub const OPUS: u8 = 111;
pub const RED: u8 = 63;
pub const DESCRIPTOR: u8 = 12;
pub const VP8: u8 = 96;
pub const VP9: u8 = 98;
pub const H264: u8 = 102;
pub const AV1: u8 = 45;
pub const RTX: u8 = 97;

/// One encoding.
pub struct Encoding {
    pub rid: String,
    pub ssrc: u32,
    pub repair_ssrc: u32,
    pub sequence: u16,
    pub active: bool,
    /// Bytes in a packet, packets in a frame.
    pub shape: (usize, usize),
    /// [`VP8`], [`VP9`], [`H264`] or [`AV1`].
    pub payload_type: u8,
    pub keyframe_wanted: bool,
    /// So many times as long as other pictures.
    pub keyframes_are: usize,
    pub keyframes_asked: Vec<Instant>,
    pub resent: u64,
    in_keyframe: bool,
    repair_sequence: u16,
    clock_base: u32,
    /// How much too fast its media clock is.
    pub skew_ppm: i64,
    picture: u16,
    tl0: u8,
    sent: BTreeMap<u16, (bool, u32, Vec<u8>)>,
    /// The sound before, and its time.
    before: Option<(u32, Vec<u8>)>,
}

/// One track being sent.
pub struct Source {
    pub cid: String,
    pub mid: String,
    pub video: bool,
    pub encodings: Vec<Encoding>,
    pub muted: bool,
    /// −dBov of what is said.
    pub level: u8,
    pub red: bool,
    pub announce_ssrc: bool,
    pub padding_each: Option<u32>,
    pub started: Instant,
    next: Instant,
    frame: u32,
}

impl Source {
    pub fn audio(now: Instant, cid: &str, mid: &str, ssrc: u32) -> Self {
        Self::new(now, cid, mid, false, vec![Encoding::new("", ssrc, 60_000, (80, 1))])
    }

    pub fn video(now: Instant, cid: &str, mid: &str, ssrc: u32, rids: &[&str]) -> Self {
        let encoding = |(at, rid): (u32, &&str)| {
            let at_usize = at as usize;
            Encoding::new(
                rid,
                ssrc + 10 * at,
                65_000 + at as u16 * 200,
                (300 + 100 * at_usize, 1 + at_usize),
            )
        };
        let encodings = if rids.is_empty() {
            vec![Encoding::new("", ssrc, 65_500, (900, 3))]
        } else {
            (0..).zip(rids).map(encoding).collect()
        };
        Self::new(now, cid, mid, true, encodings)
    }

    fn new(now: Instant, cid: &str, mid: &str, video: bool, encodings: Vec<Encoding>) -> Self {
        Self {
            cid: cid.into(),
            mid: mid.into(),
            video,
            announce_ssrc: encodings.len() == 1,
            encodings,
            muted: false,
            level: 20,
            red: false,
            padding_each: None,
            started: now,
            next: now,
            frame: 0,
        }
    }

    /// What an encoding's media clock shows.
    pub fn clock(&self, encoding: &Encoding, now: Instant) -> u32 {
        let micros = (now - self.started).as_micros() as u64;
        encoding.shows(micros, if self.video { 90_000 } else { 48_000 })
    }

    pub fn due(&self) -> Instant {
        self.next
    }

    /// Writes what is due. `twcc` counts the packets of the whole client.
    pub fn work(&mut self, now: Instant, twcc: &mut u16, send: &mut dyn FnMut(Vec<u8>, usize)) {
        while self.next <= now {
            let ms = (self.next - self.started).as_millis() as u32;
            self.next += Duration::from_millis(if self.video { 40 } else { 20 });
            self.frame += 1;
            if self.muted {
                continue;
            }
            let (frame, video, mid, level, red) =
                (self.frame, self.video, self.mid.as_str(), self.level, self.red);
            let pads = self.padding_each.is_some_and(|each| frame % each == 0);
            for encoding in self.encodings.iter_mut().filter(|encoding| encoding.active) {
                if video {
                    encoding.picture(frame, ms, mid, twcc, send);
                    if pads {
                        encoding.padding(ms, mid, twcc, send);
                    }
                } else {
                    encoding.sound(ms, mid, level, red, twcc, send);
                }
            }
        }
    }
}

impl Encoding {
    fn new(rid: &str, ssrc: u32, sequence: u16, shape: (usize, usize)) -> Self {
        Self {
            rid: rid.into(),
            ssrc,
            repair_ssrc: ssrc + 1,
            sequence,
            active: true,
            shape,
            payload_type: VP8,
            keyframe_wanted: true,
            keyframes_are: 1,
            keyframes_asked: Vec::new(),
            resent: 0,
            in_keyframe: false,
            repair_sequence: 17,
            skew_ppm: 0,
            clock_base: ssrc.wrapping_mul(0x9E37_79B9),
            picture: ssrc as u16 & 0x7FFF,
            tl0: ssrc as u8,
            sent: BTreeMap::new(),
            before: None,
        }
    }

    /// What its media clock shows after so long.
    fn shows(&self, micros: u64, rate: u64) -> u32 {
        let skewed = micros as i64 + micros as i64 * self.skew_ppm / 1_000_000;
        self.clock_base.wrapping_add((skewed as u64 * rate / 1_000_000) as u32)
    }

    fn sound(
        &mut self,
        ms: u32,
        mid: &str,
        level: u8,
        red: bool,
        twcc: &mut u16,
        send: &mut dyn FnMut(Vec<u8>, usize),
    ) {
        let mut sound = ms.to_be_bytes().to_vec();
        sound.resize(sound.len() + self.shape.0, 0xA0);
        let timestamp = self.shows(u64::from(ms) * 1_000, 48_000);
        let before = self.before.replace((timestamp, sound.clone()));
        let mut payload = Vec::new();
        if red {
            let old = before.as_ref().map(|(then, payload)| {
                let offset = timestamp.wrapping_sub(*then);
                Old { distance: 1, offset, payload }
            });
            red::write(&mut payload, OPUS, &[None, None, old], &sound);
        } else {
            payload = sound;
        }
        *twcc = twcc.wrapping_add(1);
        let number = twcc.to_be_bytes();
        let level = [level];
        let extensions: [(u8, &[u8]); 3] =
            [(MID, mid.as_bytes()), (TWCC, &number), (LEVEL, &level)];
        let mut packet = Vec::new();
        let pt = if red { RED } else { OPUS };
        let len = rtp::write_header(
            &mut packet,
            false,
            pt,
            self.sequence,
            timestamp,
            self.ssrc,
            &extensions,
        );
        packet.extend_from_slice(&payload);
        self.sequence = self.sequence.wrapping_add(1);
        send(packet, len);
    }

    fn picture(
        &mut self,
        frame: u32,
        ms: u32,
        mid: &str,
        twcc: &mut u16,
        send: &mut dyn FnMut(Vec<u8>, usize),
    ) {
        let key = std::mem::take(&mut self.keyframe_wanted);
        self.in_keyframe = key;
        self.picture = (self.picture + 1) & 0x7FFF;
        self.tl0 = self.tl0.wrapping_add(1);
        let packets = self.shape.1 * if key { self.keyframes_are } else { 1 };
        for at in 0..packets {
            let mut payload = self.head(key, at == 0);
            payload.extend_from_slice(&frame.to_be_bytes());
            payload.extend_from_slice(self.rid.as_bytes());
            payload.resize(self.shape.0, at as u8);
            let marker = at + 1 == packets;
            self.media(marker, self.shows(u64::from(ms) * 1_000, 90_000), payload, mid, twcc, send);
        }
    }

    /// The bytes of a packet that tell its codec's keyframes.
    fn head(&self, key: bool, first: bool) -> Vec<u8> {
        let [high, low] = (self.picture | 0x8000).to_be_bytes();
        match self.payload_type {
            // Fragments of an IDR or another slice.
            H264 => vec![0x7C, u8::from(first) << 7 | if key { 5 } else { 1 }, 0x80],
            VP9 => vec![u8::from(!key) << 6 | u8::from(first) << 3],
            AV1 => vec![0x10],
            _ => {
                let start = if first { 0x90 } else { 0x80 };
                vec![start, 0xE0, high, low, self.tl0, 0, u8::from(!key)]
            }
        }
    }

    /// The dependency descriptor of the packet at hand.
    fn descriptor(&self, payload: &[u8], key: bool) -> Vec<u8> {
        let first = payload.last() == Some(&0);
        let [high, low] = self.picture.to_be_bytes();
        let mut descriptor = vec![u8::from(first) << 7, high, low];
        if key {
            // The template structure makes it long, as in real streams.
            descriptor.extend_from_slice(&[0x80; 30]);
        }
        descriptor
    }

    fn media(
        &mut self,
        marker: bool,
        timestamp: u32,
        payload: Vec<u8>,
        mid: &str,
        twcc: &mut u16,
        send: &mut dyn FnMut(Vec<u8>, usize),
    ) {
        *twcc = twcc.wrapping_add(1);
        let number = twcc.to_be_bytes();
        let mut extensions: Vec<(u8, &[u8])> = vec![(MID, mid.as_bytes()), (TWCC, &number)];
        if !self.rid.is_empty() {
            extensions.push((RID, self.rid.as_bytes()));
        }
        let descriptor = self.descriptor(&payload, self.in_keyframe);
        if self.payload_type == AV1 {
            extensions.push((DESCRIPTOR, &descriptor));
        }
        let mut packet = Vec::new();
        let (sequence, ssrc, pt) = (self.sequence, self.ssrc, self.payload_type);
        let len =
            rtp::write_header(&mut packet, marker, pt, sequence, timestamp, ssrc, &extensions);
        packet.extend_from_slice(&payload);
        self.sent.insert(sequence, (marker, timestamp, payload));
        if self.sent.len() > 2_000 {
            self.sent.pop_first();
        }
        self.sequence = self.sequence.wrapping_add(1);
        send(packet, len);
    }

    /// A packet of nothing but padding, as estimators send them.
    fn padding(
        &mut self,
        ms: u32,
        mid: &str,
        twcc: &mut u16,
        send: &mut dyn FnMut(Vec<u8>, usize),
    ) {
        let timestamp = self.shows(u64::from(ms) * 1_000, 90_000);
        let mut padded = |mut packet: Vec<u8>, len: usize| {
            packet.resize(len + 200, 0);
            packet[0] |= 0x20;
            *packet.last_mut().unwrap() = 200;
            send(packet, len);
        };
        self.media(false, timestamp, Vec::new(), mid, twcc, &mut padded);
    }

    /// Sends a packet again on the repair stream.
    pub fn resend(&mut self, sequence: u16, mid: &str, twcc: &mut u16) -> Option<(Vec<u8>, usize)> {
        let (marker, timestamp, payload) = self.sent.get(&sequence)?;
        *twcc = twcc.wrapping_add(1);
        let number = twcc.to_be_bytes();
        let mut extensions: Vec<(u8, &[u8])> = vec![(MID, mid.as_bytes()), (TWCC, &number)];
        if !self.rid.is_empty() {
            extensions.push((REPAIRED, self.rid.as_bytes()));
        }
        self.repair_sequence = self.repair_sequence.wrapping_add(1);
        let mut packet = Vec::new();
        let len = rtp::write_header(
            &mut packet,
            *marker,
            RTX,
            self.repair_sequence,
            *timestamp,
            self.repair_ssrc,
            &extensions,
        );
        packet.extend_from_slice(&sequence.to_be_bytes());
        packet.extend_from_slice(payload);
        self.resent += 1;
        Some((packet, len))
    }
}
