//! One stream of a published track: packets out of the loops, a history to repair from, sender
//! reports. A track with simulcast has several of these.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bedside_sfu::core::api::MediaKind;
use bedside_sfu::core::bwe::Cargo;
use bedside_sfu::core::red::{self, Old, Olds};
use bedside_sfu::core::rtcp::{ReportBlock, SenderInfo};
use bedside_sfu::core::rtp;

use crate::loops::{AUDIO_PACKET_MS, Content, Frame, Loops};
use crate::stats::SentTrack;
use crate::timed::{self, Ear};

/// Largest RTP packet before protection, as browsers have it.
const MAX_PACKET: usize = 1200;
/// VP8 payload descriptor: extended, with a picture id of 15 bits; with temporal layers also their
/// numbers.
const PLAIN_DESCRIPTOR: usize = 4;
const LAYERED_DESCRIPTOR: usize = 6;
/// A repair packet repeats the sequence number in its payload (RFC 4588 §4).
const RTX_OVERHEAD: usize = 2;
/// What protection adds to a packet.
const TAG: usize = 16;
/// Video packets that can be repaired: several seconds.
const HISTORY: usize = 512;
/// Audio packets that can be repaired: a bit more than a second.
const SEALED: usize = 64;
/// Loudness that we announce: voice, 18 dB below overload (RFC 6464 §3).
const AUDIO_LEVEL: u8 = 0x80 | 18;
/// A stall that is made up for; after a longer one the time between is skipped.
const MAX_BEHIND: Duration = Duration::from_millis(500);
/// A better quality, or another layer, is waited for at least so long.
const QUALITY_REST: Duration = Duration::from_secs(2);
/// Rate credit that may be saved up, in time.
const MAX_CREDIT: f64 = 0.2;

/// What the answer says about sending this track.
#[derive(Clone, Debug)]
pub(crate) struct SendParameters {
    pub(crate) payload_type: u8,
    pub(crate) rtx_payload_type: Option<u8>,
    pub(crate) red_payload_type: Option<u8>,
    pub(crate) mid_id: Option<u8>,
    pub(crate) rid_id: Option<u8>,
    pub(crate) repaired_rid_id: Option<u8>,
    pub(crate) abs_send_time_id: Option<u8>,
    pub(crate) transport_cc_id: Option<u8>,
    pub(crate) audio_level_id: Option<u8>,
}

/// A packet as the loops can make it again.
#[derive(Clone, Copy, Debug)]
struct Sent {
    sequence: u16,
    timestamp: u32,
    /// Place in the loop, of this quality.
    index: usize,
    quality: usize,
    picture_id: u16,
    /// Number of the last frame of the lowest temporal layer.
    base: u8,
    /// Part of the frame.
    part: u16,
    parts: u16,
    /// Earlier packets whose sound it repeats.
    repeats: u8,
    resent: Option<Instant>,
    /// When it left, where it carries that.
    left: Option<Instant>,
}

/// A stream that is being sent.
#[derive(Debug)]
pub(crate) struct Sender {
    pub(crate) content: Content,
    pub(crate) cid: String,
    pub(crate) mid: String,
    /// Name of the simulcast layer; empty without simulcast.
    pub(crate) rid: String,
    pub(crate) sid: String,
    pub(crate) ssrc: u32,
    pub(crate) rtx_ssrc: u32,
    pub(crate) muted: bool,
    /// Someone wants it, by the server's word.
    pub(crate) wanted: bool,
    /// Earlier packets to repeat in each audio packet.
    pub(crate) redundancy: u8,
    /// Bits a second that the link has for it; `None`: all it needs.
    allotted: Option<u64>,
    credit: f64,
    /// Which of the loop's qualities is played, and since when.
    quality: usize,
    quality_at: Option<Instant>,
    /// While it is off: since when it would fit.
    room_since: Option<Instant>,
    parameters: Option<SendParameters>,
    /// The mid is sent until the other side has reported on the stream, as browsers do.
    announce_mid: bool,
    sequence: u16,
    rtx_sequence: u16,
    timestamp: u32,
    sent_at: Option<Instant>,
    next_at: Option<Instant>,
    index: usize,
    picture_id: u16,
    base: u8,
    /// Audio packets sent without a pause.
    spoken: usize,
    /// Packets that wait for their turn.
    queue: VecDeque<Sent>,
    history: Box<[Option<Sent>]>,
    /// Audio has no repair stream: its packets are kept as they went out and sent once more, since
    /// a second packet under one sequence number must not differ from the first.
    sealed: Box<[(u16, Vec<u8>)]>,
    /// Is told when timed packets leave.
    pub(crate) ear: Option<Arc<dyn Ear>>,
    /// How late what is sent now is.
    behind: Duration,
    totals: SentTrack,
}

/// What takes packets: seals and sends them.
pub(crate) trait Outlet {
    /// Sends one RTP packet that `write` appends to a buffer, returning the header's length. Gives
    /// the datagram as it went out, or `None` when nothing can be sent now.
    fn rtp(&mut self, write: &mut dyn FnMut(&mut Vec<u8>) -> usize) -> Option<&[u8]>;
    /// Sends a datagram of [`Outlet::rtp`] once more.
    fn again(&mut self, datagram: &[u8]);
    /// The transport-wide number of a packet of this size that goes out now.
    fn transport_sequence(&mut self, now: Instant, bytes: usize, cargo: Cargo) -> u16;
    /// Whether video waits for its turn.
    fn is_paced(&self) -> bool;
    /// What time it is at this moment.
    fn clock(&self) -> Instant;
}

/// The stream of a packet, and what it is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Media,
    /// On the repair stream, with this payload type.
    Repair(u8, Cargo),
}

impl Sender {
    pub(crate) fn new(
        content: Content,
        rid: String,
        mid: String,
        cid: String,
        numbers: [u32; 4],
    ) -> Self {
        let [ssrc, rtx_ssrc, start, timestamp] = numbers;
        let kind = content.kind();
        Self {
            content,
            cid,
            mid,
            sid: String::new(),
            ssrc: ssrc | 1,
            rtx_ssrc: rtx_ssrc & !1,
            muted: false,
            wanted: true,
            redundancy: 0,
            allotted: None,
            credit: 0.0,
            quality: 0,
            quality_at: None,
            room_since: None,
            parameters: None,
            announce_mid: true,
            // Start below the middle: no wrap before the key exchange settles (RFC 3711 §3.3.1).
            sequence: start as u16 & 0x7FFF,
            rtx_sequence: (start >> 16) as u16 & 0x7FFF,
            timestamp,
            sent_at: None,
            next_at: None,
            index: 0,
            picture_id: (timestamp >> 8) as u16 & 0x7FFF,
            base: timestamp as u8,
            spoken: 0,
            queue: VecDeque::new(),
            history: match kind {
                MediaKind::Audio => Box::default(),
                MediaKind::Video => vec![None; HISTORY].into_boxed_slice(),
            },
            sealed: match kind {
                MediaKind::Audio => vec![(0, Vec::new()); SEALED].into_boxed_slice(),
                MediaKind::Video => Box::default(),
            },
            ear: None,
            behind: Duration::ZERO,
            totals: SentTrack { kind, rid: rid.clone(), ..SentTrack::default() },
            rid,
        }
    }

    pub(crate) const fn kind(&self) -> MediaKind {
        self.content.kind()
    }

    /// Takes what the answer says; media flows from the next [`Sender::play`] on.
    pub(crate) fn configure(&mut self, parameters: Option<SendParameters>) {
        self.parameters = parameters;
    }

    /// Whether an answer takes this stream.
    pub(crate) const fn is_taken(&self) -> bool {
        self.parameters.is_some()
    }

    /// Bits a second with everything around the media, in the best quality.
    pub(crate) fn full_rate(&self) -> u64 {
        self.rate_of(0)
    }

    /// Bits a second in the lowest quality.
    pub(crate) fn least_rate(&self) -> u64 {
        self.rate_of(Loops::shared().qualities(self.content) - 1)
    }

    /// Whether there has been room for so long that a layer may start that is off.
    pub(crate) fn may_start(&mut self, now: Instant, room: bool) -> bool {
        let since = *self.room_since.get_or_insert(now);
        if !room {
            self.room_since = None;
        }
        room && now.saturating_duration_since(since) >= QUALITY_REST
    }

    fn rate_of(&self, quality: usize) -> u64 {
        let (bytes, packets) = Loops::shared().rate(self.content, quality, self.capacity());
        let copies = match self.content {
            Content::Tone => usize::from(self.redundancy),
            Content::Face | Content::Layer(_) | Content::Timed(_) => 0,
        };
        let around = rtp::MIN_HEADER + self.extensions() + TAG + 4 * copies;
        ((bytes * (1 + copies) + packets * around) * 8) as u64
    }

    /// Takes what the link has for it: a lower quality, and if that does not suffice fewer frames; none
    /// comes at 0. A stream that starts again, or changes its quality, does so with a keyframe.
    /// Timed packets are the same load whatever the link carries.
    pub(crate) fn allot(&mut self, now: Instant, allotted: Option<u64>) {
        if self.is_timed() {
            return;
        }
        let lowest = Loops::shared().qualities(self.content) - 1;
        if self.allotted == Some(0) && allotted != Some(0) {
            self.index = Loops::shared().next_keyframe(self.content, self.index);
            self.credit = 0.0;
            (self.quality, self.quality_at) = (lowest, Some(now));
        }
        self.allotted = allotted;
        let Some(allotted) = allotted.filter(|bps| *bps > 0) else {
            return if allotted.is_none() {
                self.play_quality(now, 0)
            };
        };
        let fits = |quality: &usize| self.rate_of(*quality) <= allotted;
        self.play_quality(now, (0..lowest).find(fits).unwrap_or(lowest));
    }

    /// Goes to a lower quality at once, to a better one when the last change is a while ago.
    fn play_quality(&mut self, now: Instant, quality: usize) {
        let rested =
            self.quality_at.is_none_or(|at| now.saturating_duration_since(at) >= QUALITY_REST);
        if quality > self.quality || quality < self.quality && rested {
            self.quality = quality;
            self.quality_at = Some(now);
            self.credit = self.credit.max(0.0);
            self.index = Loops::shared().next_keyframe(self.content, self.index);
        }
    }

    const fn is_timed(&self) -> bool {
        matches!(self.content, Content::Timed(_))
    }

    /// Whether frames go out now.
    pub(crate) fn flows(&self) -> bool {
        self.is_taken() && !self.muted && self.wanted && self.allotted != Some(0)
    }

    /// When the next frame is due.
    pub(crate) fn due(&self) -> Option<Instant> {
        self.next_at.filter(|_| self.parameters.is_some())
    }

    /// Starts the clock of this track; `phase` keeps the participants of a process from sending all
    /// at one instant.
    pub(crate) fn start(&mut self, at: Instant) {
        self.next_at.get_or_insert(at);
    }

    /// Sends what is due, or puts it in the queue.
    pub(crate) fn play(&mut self, now: Instant, outlet: &mut dyn Outlet) {
        while let Some(due) = self.due().filter(|due| *due <= now) {
            let interval = self.interval();
            // After a long stall the missed frames are gone; the media clock goes on.
            let behind = now.saturating_duration_since(due);
            let missed =
                if behind > MAX_BEHIND { behind.div_duration_f64(interval) as u32 } else { 0 };
            self.behind = behind;
            self.next_at = Some(due + interval * (missed + 1));
            self.timestamp = self.timestamp.wrapping_add(self.ticks() * (missed + 1));
            if self.flows() && self.affords(interval) {
                self.sent_at = Some(now);
                self.frame(now, outlet);
            } else if !self.flows() {
                self.spoken = 0;
            }
        }
    }

    /// Whether the allotted rate leaves room for a frame now.
    fn affords(&mut self, interval: Duration) -> bool {
        let (MediaKind::Video, Some(allotted)) = (self.kind(), self.allotted) else {
            // What was sent while there was room is not held against it later.
            self.credit = 0.0;
            return true;
        };
        let rate = allotted as f64;
        self.credit = (self.credit + rate * interval.as_secs_f64()).min(rate * MAX_CREDIT);
        self.credit >= 0.0
    }

    fn interval(&self) -> Duration {
        match self.kind() {
            MediaKind::Audio => Duration::from_millis(AUDIO_PACKET_MS as u64),
            MediaKind::Video => {
                Duration::from_micros(1_000_000 / u64::from(self.content.frame_rate()))
            }
        }
    }

    const fn ticks(&self) -> u32 {
        match self.kind() {
            MediaKind::Audio => 48 * AUDIO_PACKET_MS,
            MediaKind::Video => 90_000 / self.content.frame_rate(),
        }
    }

    fn frame(&mut self, now: Instant, outlet: &mut dyn Outlet) {
        let picture = Loops::shared().frame(self.content, self.quality, self.index);
        let size = picture.map_or(0, |frame| frame.data.len());
        let parts = size.div_ceil(self.capacity()).max(1);
        if picture.is_some_and(|frame| frame.temporal == 0) {
            self.base = self.base.wrapping_add(1);
        }
        for part in 0..parts {
            let sent = Sent {
                sequence: self.sequence,
                timestamp: self.timestamp,
                index: self.index,
                quality: self.quality,
                picture_id: self.picture_id,
                base: self.base,
                part: part as u16,
                parts: parts as u16,
                repeats: self.redundancy.min(self.spoken.min(red::MAX_OLD) as u8),
                resent: None,
                left: None,
            };
            self.sequence = self.sequence.wrapping_add(1);
            if let Some(slot) = self.history.get_mut(usize::from(sent.sequence) % HISTORY) {
                *slot = Some(sent);
            }
            if outlet.is_paced() && self.kind() == MediaKind::Video && !self.is_timed() {
                self.queue.push_back(sent);
            } else {
                self.packet(now, sent, Way::Media, outlet);
            }
        }
        let around = rtp::MIN_HEADER + self.extensions() + TAG;
        self.credit -= ((size + parts * around) * 8) as f64;
        self.index += 1;
        self.spoken += 1;
        self.picture_id = self.picture_id.wrapping_add(1) & 0x7FFF;
        self.totals.frames += 1;
    }

    fn picture(&self, sent: Sent) -> Option<Frame> {
        Loops::shared().frame(self.content, sent.quality, sent.index)
    }

    /// Whether packets wait.
    pub(crate) fn is_waiting(&self) -> bool {
        !self.queue.is_empty()
    }

    /// Sends the packet that waits longest; gives its size.
    pub(crate) fn send_next(&mut self, now: Instant, outlet: &mut dyn Outlet) -> usize {
        self.queue.pop_front().map_or(0, |sent| self.packet(now, sent, Way::Media, outlet))
    }

    /// Sends something again for no reason but to fill a probe; gives its size, 0 when there is
    /// nothing.
    pub(crate) fn pad(&mut self, now: Instant, outlet: &mut dyn Outlet) -> usize {
        let Some(repair) = self.parameters.as_ref().and_then(|known| known.rtx_payload_type) else {
            return 0;
        };
        let newest = self.sequence.wrapping_sub(1).wrapping_sub(self.queue.len() as u16);
        let largest = (0..8).filter_map(|back| self.remembered(newest.wrapping_sub(back)));
        let Some(sent) = largest.max_by_key(|sent| self.body_len(*sent)) else { return 0 };
        self.packet(now, sent, Way::Repair(repair, Cargo::Padding), outlet)
    }

    fn remembered(&self, sequence: u16) -> Option<Sent> {
        let slot = self.history.get(usize::from(sequence) % HISTORY).copied().flatten();
        slot.filter(|sent| sent.sequence == sequence)
    }

    /// Media bytes that fit one packet. Counted with every extension, so that a frame is cut the same
    /// way when it is sent again without the mid.
    fn capacity(&self) -> usize {
        MAX_PACKET - rtp::MIN_HEADER - self.extensions() - RTX_OVERHEAD - self.descriptor_len()
    }

    fn extensions(&self) -> usize {
        let rid = if self.rid.is_empty() { 0 } else { 1 + self.rid.len() };
        4 + (2 + self.mid.len() + rid + 4 + 3).next_multiple_of(4)
    }

    const fn descriptor_len(&self) -> usize {
        match self.content {
            Content::Tone | Content::Timed(MediaKind::Audio) => 0,
            Content::Face | Content::Timed(MediaKind::Video) => PLAIN_DESCRIPTOR,
            Content::Layer(_) => LAYERED_DESCRIPTOR,
        }
    }

    /// About how long the payload of a packet is.
    fn body_len(&self, sent: Sent) -> usize {
        let loops = Loops::shared();
        match self.content {
            Content::Tone => {
                let packet = loops.packet(sent.index).map_or(0, <[u8]>::len);
                packet + usize::from(sent.repeats) * (packet + 4)
            }
            Content::Timed(MediaKind::Audio) => timed::sound_len(sent.index),
            Content::Face | Content::Layer(_) | Content::Timed(MediaKind::Video) => {
                let frame = self.picture(sent).map_or(0, |frame| frame.data.len());
                frame / usize::from(sent.parts.max(1)) + self.descriptor_len()
            }
        }
    }

    /// Sends one packet, or sends it again. Gives its size, 0 when nothing went out.
    fn packet(&mut self, now: Instant, sent: Sent, way: Way, outlet: &mut dyn Outlet) -> usize {
        let Some(parameters) = self.parameters.clone() else { return 0 };
        let sent = self.timed(sent, way, outlet);
        let redundant = parameters.red_payload_type.filter(|_| self.redundancy > 0);
        let (payload_type, sequence, ssrc, cargo) = match way {
            Way::Media => {
                let payload_type = redundant.unwrap_or(parameters.payload_type);
                (payload_type, sent.sequence, self.ssrc, Cargo::Media)
            }
            Way::Repair(payload_type, cargo) => {
                let sequence = self.rtx_sequence;
                self.rtx_sequence = sequence.wrapping_add(1);
                (payload_type, sequence, self.rtx_ssrc, cargo)
            }
        };
        let marker = self.kind() == MediaKind::Video && sent.part + 1 == sent.parts;
        let clock = abs_send_time(now);
        let size = rtp::MIN_HEADER + self.extensions() + self.body_len(sent) + TAG;
        let transport = parameters
            .transport_cc_id
            .map(|_| outlet.transport_sequence(now, size, cargo).to_be_bytes());
        let mut body = 0;
        let this = &*self;
        let datagram = outlet.rtp(&mut |out| {
            let extensions = this.extensions_of(&parameters, way, &clock, transport.as_ref());
            let before = out.len();
            let time = sent.timestamp;
            let header =
                rtp::write_header(out, marker, payload_type, sequence, time, ssrc, &extensions);
            if way != Way::Media {
                out.extend_from_slice(&sent.sequence.to_be_bytes());
            }
            this.write_payload(out, sent, redundant.map(|_| parameters.payload_type));
            body = out.len() - before - header;
            header
        });
        let Some(datagram) = datagram else { return 0 };
        let slot = usize::from(sequence) % self.sealed.len().max(1);
        if let Some((kept, bytes)) = self.sealed.get_mut(slot) {
            *kept = sequence;
            bytes.clear();
            bytes.extend_from_slice(datagram);
        }
        match way {
            Way::Repair(_, Cargo::Padding) => self.totals.padding += 1,
            Way::Repair(..) => self.totals.repaired += 1,
            Way::Media => {
                self.totals.packets += 1;
                self.totals.bytes += body as u64;
                if let (Some(ear), Some(left)) = (&self.ear, sent.left) {
                    ear.left(left, self.behind);
                }
            }
        }
        size
    }

    /// The packet with the time at which it leaves, if it carries that. A repair keeps the first one.
    fn timed(&mut self, mut sent: Sent, way: Way, outlet: &dyn Outlet) -> Sent {
        if self.is_timed() && (way == Way::Media || sent.left.is_none()) {
            sent.left = Some(outlet.clock());
            let slot = self.history.get_mut(usize::from(sent.sequence) % HISTORY);
            if let Some(kept) = slot.and_then(Option::as_mut)
                && kept.sequence == sent.sequence
            {
                kept.left = sent.left;
            }
        }
        sent
    }

    /// The header extensions of a packet; those with an id of 0 are left out by the writer.
    fn extensions_of<'e>(
        &'e self,
        parameters: &SendParameters,
        way: Way,
        clock: &'e [u8; 3],
        transport: Option<&'e [u8; 2]>,
    ) -> [(u8, &'e [u8]); 5] {
        let audio = self.kind() == MediaKind::Audio;
        let layer = !self.rid.is_empty();
        // Reports on the stream say nothing of its repair stream: that one keeps its names.
        let repair = way != Way::Media && layer;
        let mid = parameters.mid_id.filter(|_| self.announce_mid || repair);
        let rid = match way {
            Way::Media => parameters.rid_id.filter(|_| layer && self.announce_mid),
            Way::Repair(..) => parameters.repaired_rid_id.filter(|_| layer),
        };
        let level = parameters.audio_level_id.filter(|_| audio);
        let number = transport.map_or(&[][..], |number| &number[..]);
        [
            (mid.unwrap_or(0), self.mid.as_bytes()),
            (rid.unwrap_or(0), self.rid.as_bytes()),
            (parameters.abs_send_time_id.unwrap_or(0), clock),
            (parameters.transport_cc_id.filter(|_| transport.is_some()).unwrap_or(0), number),
            (level.unwrap_or(0), &[AUDIO_LEVEL]),
        ]
    }

    /// `wrapped`: the payload type inside redundant audio.
    fn write_payload(&self, out: &mut Vec<u8>, sent: Sent, wrapped: Option<u8>) {
        let loops = Loops::shared();
        match self.content {
            Content::Tone => {
                let newest = loops.packet(sent.index).unwrap_or_default();
                let Some(payload_type) = wrapped else {
                    return out.extend_from_slice(newest);
                };
                let mut olds = Olds::default();
                for (old, distance) in olds.iter_mut().rev().zip(1..=sent.repeats) {
                    let index = sent.index.checked_sub(usize::from(distance));
                    let offset = u32::from(distance) * self.ticks();
                    let payload = index.and_then(|index| loops.packet(index));
                    *old = payload.map(|payload| Old { distance, offset, payload });
                }
                red::write(out, payload_type, &olds, newest);
            }
            Content::Timed(MediaKind::Audio) => timed::write_sound(out, sent.index),
            Content::Face | Content::Layer(_) | Content::Timed(MediaKind::Video) => {
                let Some(frame) = self.picture(sent) else { return };
                self.write_descriptor(out, sent, frame);
                let parts = usize::from(sent.parts);
                let range = part_of(frame.data.len(), usize::from(sent.part), parts);
                out.extend_from_slice(frame.data.get(range).unwrap_or_default());
            }
        }
        if let Some(left) = sent.left {
            timed::write_stamp(out, left);
        }
    }

    /// The VP8 payload descriptor (RFC 7741 §4.2).
    fn write_descriptor(&self, out: &mut Vec<u8>, sent: Sent, frame: Frame) {
        let start = if sent.part == 0 { 0x90 } else { 0x80 };
        let [high, low] = sent.picture_id.to_be_bytes();
        match self.content {
            Content::Tone | Content::Face | Content::Timed(_) => {
                out.extend_from_slice(&[start, 0x80, high | 0x80, low]);
            }
            Content::Layer(_) => {
                let unused = if frame.temporal == 2 { 0x20 } else { 0 };
                let layer = frame.temporal << 6 | u8::from(frame.syncs) << 5;
                out.extend_from_slice(&[start | unused, 0xE0, high | 0x80, low, sent.base, layer]);
            }
        }
    }

    /// Answers a NACK from the history: video on the repair stream, audio as it went out. What was
    /// sent again less than a round trip ago is still on its way.
    pub(crate) fn repair(
        &mut self,
        now: Instant,
        lost: impl Iterator<Item = u16>,
        outlet: &mut dyn Outlet,
    ) {
        let repair = self.parameters.as_ref().and_then(|parameters| parameters.rtx_payload_type);
        let rest = self.totals.round_trip.unwrap_or_default() * 9 / 10;
        for sequence in lost.take(HISTORY) {
            self.totals.nacked += 1;
            let slot = usize::from(sequence) % self.sealed.len().max(1);
            if let Some((kept, bytes)) = self.sealed.get(slot)
                && *kept == sequence
                && !bytes.is_empty()
            {
                outlet.again(bytes);
                self.totals.repaired += 1;
            }
            let Some(slot) = self.history.get_mut(usize::from(sequence) % HISTORY) else {
                continue;
            };
            let fresh = |sent: &&mut Sent| {
                let rested = |at| now.saturating_duration_since(at) >= rest;
                sent.sequence == sequence && sent.resent.is_none_or(rested)
            };
            let found = slot.as_mut().filter(fresh).map(|sent| {
                sent.resent = Some(now);
                *sent
            });
            if let (Some(sent), Some(repair)) = (found, repair) {
                self.packet(now, sent, Way::Repair(repair, Cargo::Repair), outlet);
            }
        }
    }

    /// Answers a keyframe request: the next frame is the next keyframe of the loop.
    pub(crate) fn keyframe(&mut self) {
        if self.kind() == MediaKind::Video {
            self.totals.keyframe_requests += 1;
            self.index = Loops::shared().next_keyframe(self.content, self.index);
            self.credit = self.credit.max(0.0);
        }
    }

    /// Takes what a receiver reports of this track.
    pub(crate) fn reported(&mut self, report: &ReportBlock, round_trip: Option<Duration>) {
        self.announce_mid = false;
        self.totals.remote_lost = i64::from(report.lost);
        self.totals.remote_fraction_lost = report.fraction_lost;
        self.totals.round_trip = round_trip.or(self.totals.round_trip);
    }

    /// What a sender report says now; nothing before the first packet.
    pub(crate) fn report(&self, now: Instant, ntp: u64) -> Option<SenderInfo> {
        let since = now.saturating_duration_since(self.next_at?.checked_sub(self.interval())?);
        self.sent_at?;
        let rate = match self.kind() {
            MediaKind::Audio => 48_000,
            MediaKind::Video => 90_000,
        };
        let elapsed = since.as_micros() as u64 * rate / 1_000_000;
        Some(SenderInfo {
            ntp,
            rtp_timestamp: self.timestamp.wrapping_add(elapsed as u32),
            packets: self.totals.packets as u32,
            octets: self.totals.bytes as u32,
        })
    }

    pub(crate) fn totals(&self) -> SentTrack {
        SentTrack {
            sid: self.sid.clone(),
            muted: self.muted,
            flows: self.flows(),
            ..self.totals.clone()
        }
    }
}

/// The bytes of one part of a frame that is cut about evenly, the last parts being one byte longer.
const fn part_of(size: usize, part: usize, parts: usize) -> std::ops::Range<usize> {
    let (base, longer) = (size / parts, size % parts);
    let shorter = parts - longer;
    let start = part * base + part.saturating_sub(shorter);
    let len = base + (part >= shorter) as usize;
    start..start + len
}

/// Seconds in 6.18 fixed point, wrapping each 64 s.
fn abs_send_time(now: Instant) -> [u8; 3] {
    static ZERO: std::sync::OnceLock<Instant> = std::sync::OnceLock::new();
    let since = now.saturating_duration_since(*ZERO.get_or_init(|| now));
    let ticks = (since.as_micros() << 18) / 1_000_000;
    let [.., b2, b1, b0] = (ticks as u32).to_be_bytes();
    [b2, b1, b0]
}

#[cfg(test)]
#[path = "sender_tests.rs"]
mod tests;
