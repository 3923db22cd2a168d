//! What publishers send, and when: packets as a browser makes them, or the constant bursts that
//! the kernel floor is checked with.
//!
//! A browser's video encoder makes frames of uneven size. The packetizer cuts a frame into equal
//! parts, the last ones one byte longer where it does not come out even, so a train of equal sizes
//! breaks once a frame. The pacer lets them out in small bursts. Audio comes as single packets.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// What one publisher sends.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Load {
    /// 2.5 Mbit/s of video at 30 frames per second and one audio packet each 20 ms.
    Browser,
    /// Bursts of four packets of 1,200 bytes, nothing else.
    Constant {
        /// Packets per second.
        rate: f64,
    },
}

/// One packet to be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packet {
    /// Audio, else video.
    pub audio: bool,
    /// Bytes of RTP payload.
    pub payload: usize,
    /// First of a frame.
    pub first: bool,
    /// Last of a frame.
    pub last: bool,
    /// Part of a keyframe.
    pub keyframe: bool,
}

/// The schedule of one publisher.
#[derive(Debug)]
pub struct Schedule {
    load: Load,
    frame: u64,
    keyframe_wanted: bool,
    waiting: VecDeque<Packet>,
    next_frame: Instant,
    next_burst: Instant,
    next_audio: Instant,
}

/// Bytes that a browser puts into one packet beside headers.
const PAYLOAD: usize = 1_150;
const FRAME: Duration = Duration::from_nanos(33_333_333);
const FRAME_BYTES: f64 = 2_500_000.0 / 8.0 / 30.0;
const AUDIO: Duration = Duration::from_millis(20);
const AUDIO_PAYLOAD: usize = 100;
/// A pacer's turn, and what it lets out in one.
const PACER: Duration = Duration::from_millis(5);
const BURST: usize = 4;

impl Schedule {
    /// Begins at `start`, shifted by a part of a frame so that publishers do not march in step.
    pub fn new(load: Load, start: Instant, number: usize) -> Self {
        let shift = (number as f64 * 0.618_034).fract();
        let start = start + FRAME.mul_f64(shift);
        Self {
            load,
            frame: number as u64,
            keyframe_wanted: true,
            waiting: VecDeque::new(),
            next_frame: start,
            next_burst: start,
            next_audio: start + AUDIO.mul_f64(shift),
        }
    }

    /// Whether a burst leaves as one train, as a network card that coalesces would hand it over.
    pub const fn is_train(&self) -> bool {
        matches!(self.load, Load::Constant { .. })
    }

    /// The next frame will be a keyframe.
    pub const fn want_keyframe(&mut self) {
        self.keyframe_wanted = true;
    }

    /// Fills `out` with the packets that are due.
    pub fn due(&mut self, now: Instant, out: &mut Vec<Packet>) {
        match self.load {
            Load::Browser => self.browser(now, out),
            Load::Constant { rate } => {
                while self.next_burst <= now {
                    self.next_burst += Duration::from_secs_f64(BURST as f64 / rate);
                    let (first, last) = (self.frame.is_multiple_of(8), false);
                    self.frame += 1;
                    let keyframe = std::mem::take(&mut self.keyframe_wanted) || first;
                    let packet =
                        Packet { audio: false, payload: PAYLOAD, first: keyframe, last, keyframe };
                    out.extend([packet; BURST]);
                }
            }
        }
    }

    fn browser(&mut self, now: Instant, out: &mut Vec<Packet>) {
        while self.next_audio <= now {
            self.next_audio += AUDIO;
            let payload = AUDIO_PAYLOAD;
            out.push(Packet { audio: true, payload, first: true, last: false, keyframe: false });
        }
        while self.next_frame <= now {
            if self.waiting.is_empty() {
                self.next_burst = self.next_frame;
            }
            self.next_frame += FRAME;
            self.encode();
        }
        while self.next_burst <= now && !self.waiting.is_empty() {
            self.next_burst += PACER;
            out.extend(self.waiting.drain(..self.waiting.len().min(BURST)));
        }
    }

    /// One frame of uneven size; a keyframe is three times as large.
    fn encode(&mut self) {
        self.frame += 1;
        let keyframe = std::mem::take(&mut self.keyframe_wanted);
        let uneven = 0.7 + 0.6 * ((self.frame * 29) % 61) as f64 / 60.0;
        let size = FRAME_BYTES * uneven * if keyframe { 3.0 } else { 1.0 };
        let parts: Vec<usize> = split(size as usize, PAYLOAD).collect();
        let count = parts.len();
        for (index, payload) in parts.into_iter().enumerate() {
            let (first, last) = (index == 0, index + 1 == count);
            self.waiting.push_back(Packet { audio: false, payload, first, last, keyframe });
        }
    }
}

/// Cuts a frame into as few parts as fit, almost equal, the longer ones last.
pub fn split(size: usize, most: usize) -> impl Iterator<Item = usize> {
    let parts = size.div_ceil(most).max(1);
    let (each, longer) = (size / parts, size % parts);
    (0..parts).map(move |part| each + usize::from(part >= parts - longer))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_is_cut_evenly_with_the_longer_parts_last() {
        assert_eq!(split(10, 4).collect::<Vec<_>>(), [3, 3, 4]);
        assert_eq!(split(9, 4).collect::<Vec<_>>(), [3, 3, 3]);
        assert_eq!(split(4, 4).collect::<Vec<_>>(), [4]);
        assert_eq!(split(11, 4).collect::<Vec<_>>(), [3, 4, 4]);
    }

    #[test]
    fn a_browser_sends_two_and_a_half_megabits_and_fifty_audio_packets() {
        let start = Instant::now();
        let mut schedule = Schedule::new(Load::Browser, start, 3);
        let mut out = Vec::new();
        for millisecond in 0..10_000 {
            let before = out.len();
            schedule.due(start + Duration::from_millis(millisecond), &mut out);
            assert!(out.len() - before <= BURST + 1, "bursts stay small");
        }
        let audio = out.iter().filter(|packet| packet.audio).count();
        let video: usize = out.iter().filter(|p| !p.audio).map(|p| p.payload * 8 / 10).sum();
        assert!((490..=510).contains(&audio), "{audio}");
        assert!((2_400_000..2_650_000).contains(&video), "{video}");
        assert!(out.iter().all(|packet| packet.payload <= PAYLOAD));
    }

    #[test]
    fn constant_load_keeps_its_rate() {
        let start = Instant::now();
        let mut schedule = Schedule::new(Load::Constant { rate: 400.0 }, start, 0);
        let mut out = Vec::new();
        for millisecond in 0..5_000 {
            schedule.due(start + Duration::from_millis(millisecond), &mut out);
        }
        assert!((1_990..=2_004).contains(&out.len()), "{}", out.len());
    }
}
