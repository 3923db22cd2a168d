//! The RTP streams that a participant sends: which track and layer each one is, and what the header
//! extensions of its packets mean.

use std::time::Instant;

use rustc_hash::FxHashMap;

use super::rtp;
use super::sdp::{Description, Extension};
use super::twcc::Recorder;

/// Streams bound per participant at the most; a publisher of 15 simulcast tracks needs 90.
const MAX_BOUND: usize = 512;

/// What a stream carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Bound {
    /// The track's key in the room.
    pub(super) track: usize,
    /// Its layer.
    pub(super) layer: usize,
    /// Repair packets of that layer.
    pub(super) repair: bool,
}

/// The streams of one participant.
#[derive(Debug, Default)]
pub(super) struct Streams {
    bound: FxHashMap<u32, Bound>,
    ids: Ids,
    /// Arrivals to tell the sender's estimator about.
    pub(super) feedback: Option<Recorder>,
    /// Any stream of it, for feedback packets.
    pub(super) any: u32,
    /// Our wall clock minus the sender's, as NTP counts; smoothed towards the least seen.
    pub(super) clock_offset: Option<i64>,
}

/// Ids of header extensions; 0 = not negotiated.
#[derive(Clone, Copy, Debug, Default)]
struct Ids {
    mid: u8,
    rid: u8,
    repaired_rid: u8,
    feedback: u8,
    level: u8,
    descriptor: u8,
    playout: u8,
}

/// The header extensions of one packet.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Marks<'p> {
    /// Section.
    pub(super) mid: Option<&'p [u8]>,
    /// Layer.
    pub(super) rid: Option<&'p [u8]>,
    /// Layer that it repairs.
    pub(super) repaired_rid: Option<&'p [u8]>,
    /// Loudness: 0 = loudest, 127 = silence.
    pub(super) level: Option<u8>,
    /// Dependency descriptor; empty when there is none.
    pub(super) descriptor: &'p [u8],
    /// How long to hold pictures back.
    pub(super) playout: Option<[u8; 3]>,
    /// Transport-wide number.
    pub(super) feedback: Option<u16>,
}

impl Streams {
    /// Learns the extension ids of a description. In a bundle one id means one thing.
    pub(super) fn learn(&mut self, now: Instant, offer: &Description) {
        let id = |extension| offer.extension_id(extension).unwrap_or(0);
        self.ids = Ids {
            mid: id(Extension::Mid),
            rid: id(Extension::Rid),
            repaired_rid: id(Extension::RepairedRid),
            feedback: id(Extension::TransportCc),
            level: id(Extension::AudioLevel),
            descriptor: id(Extension::DependencyDescriptor),
            playout: id(Extension::PlayoutDelay),
        };
        if self.ids.feedback != 0 && self.feedback.is_none() {
            self.feedback = Some(Recorder::new(now));
        }
    }

    /// Reads the header extensions of a packet.
    pub(super) fn marks<'p>(&self, packet: &'p [u8]) -> Marks<'p> {
        let (mut marks, ids) = (Marks::default(), &self.ids);
        for (id, value) in rtp::extensions(packet) {
            if id == ids.feedback {
                marks.feedback = value.first_chunk().map(|bytes| u16::from_be_bytes(*bytes));
            } else if id == ids.mid {
                marks.mid = Some(value);
            } else if id == ids.level {
                marks.level = value.first().map(|byte| byte & 0x7F);
            } else if id == ids.rid {
                marks.rid = Some(value);
            } else if id == ids.repaired_rid {
                marks.repaired_rid = Some(value);
            } else if id == ids.descriptor {
                marks.descriptor = value;
            } else if id == ids.playout {
                marks.playout = value.first_chunk().copied();
            }
        }
        marks
    }

    /// What a stream carries.
    pub(super) fn get(&self, ssrc: u32) -> Option<Bound> {
        self.bound.get(&ssrc).copied()
    }

    /// Binds a stream; `false` when there are too many.
    pub(super) fn bind(&mut self, ssrc: u32, bound: Bound) -> bool {
        if self.bound.len() >= MAX_BOUND && !self.bound.contains_key(&ssrc) {
            return false;
        }
        self.bound.insert(ssrc, bound);
        self.any = ssrc;
        true
    }

    /// Forgets the repair streams of a layer.
    pub(super) fn forget_repair(&mut self, track: usize, layer: usize) {
        self.bound
            .retain(|_, bound| !(bound.repair && bound.track == track && bound.layer == layer));
    }

    /// Forgets the streams of a track.
    pub(super) fn forget_track(&mut self, track: usize) {
        self.bound.retain(|_, bound| bound.track != track);
    }

    /// Takes note of a sender report's clock. The least difference is the one with the least delay in
    /// it; a drifting clock is followed slowly.
    pub(super) fn measure_clock(&mut self, our_ntp: u64, their_ntp: u64) {
        let offset = our_ntp.wrapping_sub(their_ntp) as i64;
        self.clock_offset = Some(match self.clock_offset {
            // The clock is the sender's word: any value may come.
            Some(before) => match offset.wrapping_sub(before) {
                later @ 1..=0xFFFF_FFFF => before.wrapping_add(later / 64),
                _ => offset,
            },
            None => offset,
        });
    }
}
