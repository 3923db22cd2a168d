//! One track being forwarded to one subscriber: its stream's numbers, and its packets' bytes.

use std::time::{Duration, Instant};

use super::api::{MediaKind, TrackSid};
use super::codec::Vp8;
use super::keyframes::Viewer;
use super::ladder::Target;
use super::layers::Wish;
use super::protection::Redundancy;
use super::red;
use super::rtp;
use super::sealed::Sealed;
use super::spans::{Shift, Spans};

/// Packets sent again lately, to answer a repeated request for one only once per round trip.
const RESENT: usize = 64;
/// Each packet sent earns one repair, and so many can be saved up: more is no repair of a call, and
/// would let one client make us send without end.
const MAX_CREDIT: u32 = 512;

/// A packet of a publisher, read once for all subscriptions.
#[derive(Clone, Copy, Debug)]
pub(super) struct Packet<'p> {
    /// Its layer.
    pub(super) layer: usize,
    /// Extended sequence number.
    pub(super) index: u64,
    /// Last of its frame.
    pub(super) marker: bool,
    /// The publisher's media clock.
    pub(super) timestamp: u32,
    /// A subscription can start here.
    pub(super) starts: bool,
    /// The payload with its redundancy, where the publisher sends redundant audio.
    pub(super) red: Option<&'p [u8]>,
    /// The sounds before it, to make redundancy of.
    pub(super) olds: red::Olds<'p>,
    /// Dependency descriptor; empty when there is none.
    pub(super) descriptor: &'p [u8],
    /// What is to be rewritten in a VP8 payload.
    pub(super) vp8: Option<Vp8>,
    /// Without padding and redundancy.
    pub(super) payload: &'p [u8],
}

/// What the subscriber's description says about the section that carries the track.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Binding {
    /// The section.
    pub(super) mid: String,
    /// Payload type of the track's codec.
    pub(super) payload_type: u8,
    /// Payload type of its repair.
    pub(super) repair_type: Option<u8>,
    /// Payload type of redundant audio, when both sides read it.
    pub(super) red_type: Option<u8>,
    /// Id of the dependency descriptor, 0 = not taken.
    pub(super) descriptor_id: u8,
    /// Id of the transport-wide number, 0 = not taken.
    pub(super) number_id: u8,
}

/// What a sound is wrapped in.
#[derive(Clone, Copy, Debug)]
enum Wrapping<'p> {
    /// Nothing.
    None,
    /// The redundancy that its publisher made.
    Publishers(&'p [u8]),
    /// So many earlier sounds, from our own memory.
    Ours(u8),
}

/// What becomes of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Send it with these numbers.
    Send(Shift),
    /// Not for this subscriber.
    Drop,
    /// It would be, after a keyframe.
    NeedsKeyframe,
}

/// A subscription.
#[derive(Debug)]
pub(super) struct Subscription {
    /// Slab key of the track in its room.
    pub(super) track: usize,
    /// The track's id.
    pub(super) sid: TrackSid,
    /// Audio or video.
    pub(super) kind: MediaKind,
    /// Order in which subscriptions were made: sections are filled so.
    pub(super) order: u64,
    /// Where it goes; `None` until a section is found.
    pub(super) binding: Option<Binding>,
    /// The client has no codec for it.
    pub(super) unreadable: bool,
    /// Our stream.
    pub(super) ssrc: u32,
    /// Our repair stream.
    pub(super) repair_ssrc: u32,
    /// What the subscriber wants.
    pub(super) wish: Wish,
    /// What it should get.
    pub(super) target: Option<Target>,
    /// What it gets.
    pub(super) current: Option<Target>,
    /// Packets sent, repair not counted.
    pub(super) packets: u32,
    /// Payload octets sent.
    pub(super) octets: u32,
    /// Lost, as the subscriber last reported.
    pub(super) reported_lost: i32,
    /// What its sound is wrapped in.
    pub(super) redundancy: Redundancy,
    /// Its keyframe requests.
    pub(super) viewer: Viewer,
    spans: Spans,
    sent: Sent,
    repair_sequence: u16,
    resent: [(u16, Option<Instant>); RESENT],
    sealed: Sealed,
    credit: u32,
}

/// The highest numbers sent.
#[derive(Clone, Copy, Debug)]
struct Sent {
    at: Option<Instant>,
    sequence: u16,
    timestamp: u32,
    picture: u16,
    tl0: u8,
    frame: u16,
}

/// The streams and first numbers of a new subscription, drawn by the room.
#[derive(Clone, Copy, Debug)]
pub(super) struct Streams {
    /// Our stream.
    pub(super) ssrc: u32,
    /// Our repair stream.
    pub(super) repair_ssrc: u32,
    /// The first sequence numbers follow these.
    pub(super) sequences: (u16, u16),
}

impl Subscription {
    /// A subscription that has no section yet.
    pub(super) fn new(
        track: usize,
        sid: TrackSid,
        kind: MediaKind,
        order: u64,
        streams: Streams,
        wish: Wish,
    ) -> Self {
        let (sequence, repair_sequence) = streams.sequences;
        Self {
            track,
            sid,
            kind,
            order,
            binding: None,
            unreadable: false,
            ssrc: streams.ssrc,
            repair_ssrc: streams.repair_ssrc,
            wish,
            target: None,
            current: None,
            packets: 0,
            octets: 0,
            reported_lost: 0,
            redundancy: Redundancy::AtLeast(0),
            viewer: Viewer::default(),
            spans: Spans::default(),
            // The upper half of the number space is left free, so that the first packets are not
            // mistaken for a wrap by receivers that guess the rollover counter.
            sent: Sent {
                at: None,
                sequence: sequence & 0x7FFF,
                timestamp: 0,
                picture: 0,
                tl0: 0,
                frame: 0,
            },
            repair_sequence: repair_sequence & 0x7FFF,
            resent: [(0, None); RESENT],
            sealed: Sealed::default(),
            credit: 0,
        }
    }

    /// Whether packets can be sent at all.
    pub(super) const fn is_flowing(&self) -> bool {
        self.binding.is_some() && !self.wish.disabled
    }

    /// Whether it gets a layer, or waits to get it.
    pub(super) fn needs(&self, layer: usize) -> bool {
        let of = |target: Option<Target>| {
            target.is_some_and(|target| usize::from(target.stream) == layer)
        };
        self.is_flowing() && (of(self.current) || of(self.target))
    }

    /// Stops in place; the next packet that starts something goes on without a gap.
    pub(super) fn pause(&mut self) {
        self.spans.end();
        self.current = None;
    }

    /// Index of the track's layer that it gets.
    pub(super) fn stream(&self) -> Option<usize> {
        self.current.map(|current| usize::from(current.stream))
    }

    /// Index of the track's layer that it should get.
    pub(super) fn wanted(&self) -> Option<usize> {
        self.target.map(|target| usize::from(target.stream))
    }

    /// The layer's numbers mean other packets from now on.
    pub(super) fn forget_layer(&mut self, layer: usize) {
        if self.stream() == Some(layer) {
            self.pause();
        }
        self.spans.forget(layer);
    }

    /// Decides about a packet of the track.
    pub(super) fn admit(&mut self, now: Instant, clock: u32, packet: &Packet<'_>) -> Verdict {
        if self.stream() != Some(packet.layer) {
            if self.wanted() == Some(packet.layer) && packet.starts {
                return Verdict::Send(self.start(now, clock, packet));
            }
            // A late packet of an earlier layer still has its place.
            return match self.spans.find(packet.layer, packet.index) {
                Some(shift) => Verdict::Send(shift),
                None if self.wanted() == Some(packet.layer) => Verdict::NeedsKeyframe,
                None => Verdict::Drop,
            };
        }
        let newest = self.spans.open().is_some_and(|(last, _)| packet.index > last);
        if newest && packet.payload.is_empty() {
            self.skip(now, packet);
            return Verdict::Drop;
        }
        let Some(shift) = self.spans.find(packet.layer, packet.index) else { return Verdict::Drop };
        if newest {
            self.spans.forwarded(packet.index);
            self.note(now, &shift, packet);
        }
        Verdict::Send(shift)
    }

    /// The newest packet is nothing but padding: what follows moves up by one. Numbers of packets that
    /// are missing before it stay theirs, and so do the pictures they may carry.
    fn skip(&mut self, now: Instant, packet: &Packet<'_>) {
        let Some((last, shift)) = self.spans.open() else { return };
        let missing = packet.index.saturating_sub(last + 1) as u16;
        self.sent.at = Some(now);
        self.sent.sequence = (packet.index as u16).wrapping_sub(shift.sequence.wrapping_add(1));
        self.sent.timestamp = packet.timestamp.wrapping_sub(shift.timestamp);
        self.sent.picture = self.sent.picture.wrapping_add(missing);
        self.sent.tl0 = self.sent.tl0.wrapping_add(missing as u8);
        self.sent.frame = self.sent.frame.wrapping_add(missing);
        self.spans.skip(packet.index);
    }

    /// Begins with a layer so that all numbers go on from where they are; the media clock by the time
    /// that has passed.
    fn start(&mut self, now: Instant, clock: u32, packet: &Packet<'_>) -> Shift {
        let sent = self.sent;
        let mut shift = Shift {
            sequence: (packet.index as u16).wrapping_sub(sent.sequence.wrapping_add(1)),
            ..Shift::default()
        };
        if let Some(at) = sent.at {
            let passed = now.saturating_duration_since(at).as_micros() as u64;
            let ticks = (passed * u64::from(clock) / 1_000_000).max(1) as u32;
            shift.timestamp = packet.timestamp.wrapping_sub(sent.timestamp.wrapping_add(ticks));
            if let Some((_, picture, _)) = packet.vp8.and_then(|vp8| vp8.picture_id) {
                shift.picture = picture.wrapping_sub(sent.picture.wrapping_add(1));
            }
            if let Some((_, tl0)) = packet.vp8.and_then(|vp8| vp8.tl0_picture_index) {
                shift.tl0 = tl0.wrapping_sub(sent.tl0.wrapping_add(1));
            }
            if let Some(frame) = frame_number(packet.descriptor) {
                shift.frame = frame.wrapping_sub(sent.frame.wrapping_add(1));
            }
        }
        self.spans.begin(packet.layer, packet.index, shift);
        self.current = self.target;
        self.note(now, &shift, packet);
        shift
    }

    /// Remembers the numbers of the newest packet.
    fn note(&mut self, now: Instant, shift: &Shift, packet: &Packet<'_>) {
        self.sent.at = Some(now);
        self.sent.sequence = (packet.index as u16).wrapping_sub(shift.sequence);
        self.sent.timestamp = packet.timestamp.wrapping_sub(shift.timestamp);
        if let Some((_, picture, _)) = packet.vp8.and_then(|vp8| vp8.picture_id) {
            self.sent.picture = picture.wrapping_sub(shift.picture);
        }
        if let Some((_, tl0)) = packet.vp8.and_then(|vp8| vp8.tl0_picture_index) {
            self.sent.tl0 = tl0.wrapping_sub(shift.tl0);
        }
        if let Some(frame) = frame_number(packet.descriptor) {
            self.sent.frame = frame.wrapping_sub(shift.frame);
        }
    }

    /// Appends a packet with its new numbers; returns the header's length. `None`: no section.
    pub(super) fn write(
        &self,
        out: &mut Vec<u8>,
        shift: &Shift,
        packet: &Packet<'_>,
    ) -> Option<usize> {
        let binding = self.binding.as_ref()?;
        let sequence = (packet.index as u16).wrapping_sub(shift.sequence);
        let sound = binding.payload_type;
        let (payload_type, wrapping) = match (binding.red_type, self.wrapping(packet)) {
            (None, _) | (_, Wrapping::None) => (sound, Wrapping::None),
            (Some(red_type), wrapping) => (red_type, wrapping),
        };
        let len = self.header(out, payload_type, sequence, self.ssrc, shift, packet);
        match wrapping {
            Wrapping::None => append_payload(out, packet.payload, shift, packet.vp8.as_ref()),
            Wrapping::Publishers(blocks) => {
                let start = out.len();
                out.extend_from_slice(blocks);
                red::retype(out.get_mut(start..).unwrap_or_default(), sound);
            }
            Wrapping::Ours(distance) => {
                let olds = self.olds(shift, packet, distance);
                red::write(out, sound, &olds, packet.payload);
            }
        }
        Some(len)
    }

    /// What a sound is wrapped in for this subscriber.
    const fn wrapping<'p>(&self, packet: &Packet<'p>) -> Wrapping<'p> {
        match (self.redundancy, packet.red) {
            (Redundancy::Stripped, _) | (Redundancy::AtLeast(0), None) => Wrapping::None,
            // Publishers repeat each sound once.
            (Redundancy::AtLeast(0 | 1), Some(blocks)) => Wrapping::Publishers(blocks),
            (Redundancy::AtLeast(distance), _) => Wrapping::Ours(distance),
        }
    }

    /// The earlier sounds that this subscriber may be sent again: those it had a number for, on the
    /// same clock.
    fn olds<'p>(&self, shift: &Shift, packet: &Packet<'p>, distance: u8) -> red::Olds<'p> {
        packet.olds.map(|old| {
            let old = old.filter(|old| old.distance <= distance)?;
            let index = packet.index.checked_sub(u64::from(old.distance))?;
            let then = self.spans.find(packet.layer, index)?;
            (then.timestamp == shift.timestamp).then_some(old)
        })
    }

    /// Appends a repair packet (RFC 4588 §4) for one sent before.
    pub(super) fn write_repair(
        &mut self,
        out: &mut Vec<u8>,
        shift: &Shift,
        packet: &Packet<'_>,
    ) -> Option<usize> {
        let payload_type = self.binding.as_ref()?.repair_type?;
        self.repair_sequence = self.repair_sequence.wrapping_add(1);
        let len =
            self.header(out, payload_type, self.repair_sequence, self.repair_ssrc, shift, packet);
        let original = (packet.index as u16).wrapping_sub(shift.sequence);
        out.extend_from_slice(&original.to_be_bytes());
        append_payload(out, packet.payload, shift, packet.vp8.as_ref());
        Some(len)
    }

    fn header(
        &self,
        out: &mut Vec<u8>,
        payload_type: u8,
        sequence: u16,
        ssrc: u32,
        shift: &Shift,
        packet: &Packet<'_>,
    ) -> usize {
        let timestamp = packet.timestamp.wrapping_sub(shift.timestamp);
        let ids = self.binding.as_ref().map(|binding| (binding.number_id, binding.descriptor_id));
        let (number_id, id) = ids.unwrap_or_default();
        // The number itself is set when the packet leaves.
        let number = (number_id, &[0, 0][..]);
        if id == 0 || packet.descriptor.is_empty() {
            return rtp::write_header(
                out,
                packet.marker,
                payload_type,
                sequence,
                timestamp,
                ssrc,
                &[number],
            );
        }
        let mut descriptor = [0; 255];
        let len = packet.descriptor.len().min(descriptor.len());
        let (value, _) = descriptor.split_at_mut(len);
        value.copy_from_slice(packet.descriptor.get(..len).unwrap_or(&[]));
        if let (Some(frame), Some(place)) = (frame_number(value), value.get_mut(1..3)) {
            place.copy_from_slice(&frame.wrapping_sub(shift.frame).to_be_bytes());
        }
        let elements = [number, (id, &*value)];
        rtp::write_header(out, packet.marker, payload_type, sequence, timestamp, ssrc, &elements)
    }

    /// Counts a packet that was sent; audio is kept as it was sealed.
    pub(super) fn count(&mut self, shift: &Shift, packet: &Packet<'_>, datagram: &[u8]) {
        self.packets = self.packets.wrapping_add(1);
        self.credit = (self.credit + 1).min(MAX_CREDIT);
        self.octets = self.octets.wrapping_add(packet.payload.len() as u32);
        if self.kind == MediaKind::Audio {
            self.sealed.put((packet.index as u16).wrapping_sub(shift.sequence), datagram);
        }
    }

    /// The audio datagram with this number, as it was sealed.
    pub(super) fn sealed(&self, sequence: u16) -> Option<&[u8]> {
        self.sealed.get(sequence)
    }

    /// The packet behind a number that the subscriber asks for again; `None` when it was never sent
    /// or was sent again less than a round trip ago.
    pub(super) fn asked_again(
        &mut self,
        now: Instant,
        sequence: u16,
        round_trip: Duration,
    ) -> Option<(usize, u64, Shift)> {
        let found = self.spans.source(sequence)?;
        let memory = self.resent.get_mut(usize::from(sequence) % RESENT)?;
        let (before, at) = *memory;
        let recent = at.is_some_and(|at| now.saturating_duration_since(at) < round_trip);
        if before == sequence && recent {
            return None;
        }
        self.credit = self.credit.checked_sub(1)?;
        *memory = (sequence, Some(now));
        Some(found)
    }

    /// What to subtract from the current layer's media clock; `None` while nothing flows.
    pub(super) fn clock_shift(&self) -> Option<u32> {
        self.spans.open().map(|(_, shift)| shift.timestamp)
    }
}

/// Frame number of a dependency descriptor: the second and third byte.
fn frame_number(descriptor: &[u8]) -> Option<u16> {
    Some(u16::from_be_bytes(*descriptor.get(1..)?.first_chunk()?))
}

fn append_payload(out: &mut Vec<u8>, payload: &[u8], shift: &Shift, vp8: Option<&Vp8>) {
    let start = out.len();
    out.extend_from_slice(payload);
    let Some(vp8) = vp8 else { return };
    match vp8.picture_id {
        Some((at, picture, true)) => {
            let picture = picture.wrapping_sub(shift.picture) | 0x8000;
            if let Some(place) = out.get_mut(start + at..start + at + 2) {
                place.copy_from_slice(&picture.to_be_bytes());
            }
        }
        Some((at, picture, false)) => {
            if let Some(place) = out.get_mut(start + at) {
                *place = (picture.wrapping_sub(shift.picture) & 0x7F) as u8;
            }
        }
        None => {}
    }
    if let Some((at, tl0)) = vp8.tl0_picture_index
        && let Some(place) = out.get_mut(start + at)
    {
        *place = tl0.wrapping_sub(shift.tl0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::api::Quality;

    fn subscription() -> Subscription {
        let streams = Streams { ssrc: 1, repair_ssrc: 2, sequences: (99, 499) };
        let wish = Wish { disabled: false, quality: Quality::High, height: 0, fps: 0 };
        let sid = TrackSid("TR_VC".into());
        let mut sub = Subscription::new(0, sid, MediaKind::Video, 0, streams, wish);
        sub.binding = Some(Binding {
            mid: "3".into(),
            payload_type: 96,
            repair_type: Some(97),
            red_type: None,
            descriptor_id: 12,
            number_id: 0,
        });
        sub.target = Some(Target::whole(0));
        sub
    }

    fn packet(layer: usize, index: u64, payload: &[u8]) -> Packet<'_> {
        Packet {
            layer,
            index,
            marker: false,
            timestamp: 1_000 * index as u32,
            starts: true,
            red: None,
            olds: red::Olds::default(),
            descriptor: &[],
            vp8: Vp8::parse(payload),
            payload,
        }
    }

    fn sent(sub: &mut Subscription, now: Instant, packet: &Packet<'_>) -> Option<(Vec<u8>, usize)> {
        let Verdict::Send(shift) = sub.admit(now, 90_000, packet) else { return None };
        let mut out = Vec::new();
        let len = sub.write(&mut out, &shift, packet).unwrap();
        Some((out, len))
    }

    fn numbers(sent: &(Vec<u8>, usize)) -> (u16, u32) {
        let header = rtp::Header::parse(&sent.0).unwrap();
        (header.sequence, header.timestamp)
    }

    #[test]
    fn the_first_number_follows_the_drawn_one_and_the_clock_is_kept() {
        let (mut sub, now) = (subscription(), Instant::now());
        let first = sent(&mut sub, now, &packet(0, 70_000, &[0x10, 0])).unwrap();
        assert_eq!(numbers(&first), (100, 70_000_000));
    }

    #[test]
    fn without_a_keyframe_nothing_starts() {
        let (mut sub, now) = (subscription(), Instant::now());
        let delta = Packet { starts: false, ..packet(0, 70_000, &[0x10, 1]) };
        assert_eq!(sub.admit(now, 90_000, &delta), Verdict::NeedsKeyframe);
        assert_eq!(sub.admit(now, 90_000, &Packet { layer: 1, ..delta }), Verdict::Drop);
    }

    #[test]
    fn a_switch_goes_on_with_all_numbers() {
        let (mut sub, now) = (subscription(), Instant::now());
        // X, then I and L: picture ids of 15 and of 7 bits.
        let wide = [0x90, 0xC0, 0x81, 0x02, 7, 0];
        sent(&mut sub, now, &packet(0, 70_000, &wide)).unwrap();
        sub.target = Some(Target::whole(1));
        let later = now + Duration::from_millis(100);
        let other = [0x90, 0xC0, 0xA0, 0x00, 200, 0];
        let switched = sent(&mut sub, later, &packet(1, 90_000, &other)).unwrap();
        assert_eq!(numbers(&switched), (101, 70_000_000 + 9_000));
        assert_eq!(switched.0[switched.1..], [0x90, 0xC0, 0x81, 0x03, 8, 0]);
        sub.target = Some(Target::whole(2));
        let narrow = [0x90, 0xC0, 0x05, 100, 0];
        let switched = sent(&mut sub, later, &packet(2, 80_000, &narrow)).unwrap();
        assert_eq!(switched.0[switched.1..], [0x90, 0xC0, 0x04, 9, 0]);
        // What the first layer still owed keeps its place.
        let late = Packet { starts: false, ..packet(0, 70_000, &wide) };
        assert_eq!(numbers(&sent(&mut sub, later, &late).unwrap()).0, 100);
    }

    #[test]
    fn the_descriptors_frame_number_goes_on_too() {
        let (mut sub, now) = (subscription(), Instant::now());
        let first =
            Packet { descriptor: &[0x80, 0x01, 0x00, 0x80], vp8: None, ..packet(0, 70_000, &[1]) };
        sent(&mut sub, now, &first).unwrap();
        sub.target = Some(Target::whole(1));
        let second =
            Packet { descriptor: &[0x80, 0x77, 0x77, 0x80], vp8: None, ..packet(1, 90_000, &[1]) };
        let (out, _) = sent(&mut sub, now, &second).unwrap();
        let (id, descriptor) = rtp::extensions(&out).next().unwrap();
        assert_eq!((id, descriptor), (12, &[0x80, 0x01, 0x01, 0x80][..]));
    }

    #[test]
    fn a_repair_names_the_original_and_repeats_its_bytes() {
        let (mut sub, now) = (subscription(), Instant::now());
        let payload = [0x90, 0x80, 0x81, 0x02, 0];
        let original = packet(0, 70_000, &payload);
        sent(&mut sub, now, &original).unwrap();
        (0..2).for_each(|_| sub.count(&Shift::default(), &original, &[]));
        let round_trip = Duration::from_millis(50);
        let (layer, index, shift) = sub.asked_again(now, 100, round_trip).unwrap();
        assert_eq!((layer, index), (0, 70_000));
        let mut out = Vec::new();
        let len = sub.write_repair(&mut out, &shift, &packet(0, 70_000, &payload)).unwrap();
        let header = rtp::Header::parse(&out).unwrap();
        assert_eq!((header.payload_type, header.ssrc, header.sequence), (97, 2, 500));
        assert_eq!(out[len..], [[0, 100].as_slice(), &payload].concat());
        assert_eq!(sub.asked_again(now, 100, round_trip), None, "once in a round trip");
        assert_eq!(sub.asked_again(now, 101, round_trip), None, "never sent");
        assert!(sub.asked_again(now + round_trip, 100, round_trip).is_some());
    }

    #[test]
    fn repair_has_a_budget() {
        let (mut sub, now) = (subscription(), Instant::now());
        for index in 70_000..71_000 {
            let packet = packet(0, index, &[0x10, 0]);
            sub.admit(now, 90_000, &packet);
            sub.count(&Shift::default(), &packet, &[]);
        }
        let asked = (100..1_100).filter(|at| sub.asked_again(now, *at, Duration::ZERO).is_some());
        assert_eq!(asked.count(), MAX_CREDIT as usize);
        let hour = Duration::from_secs(3_600);
        assert_eq!(sub.asked_again(now + hour, 1_000, Duration::ZERO), None, "time earns nothing");
        sub.count(&Shift::default(), &packet(0, 71_000, &[0x10, 0]), &[]);
        assert!(sub.asked_again(now, 1_000, Duration::ZERO).is_some());
    }

    #[test]
    fn padding_after_a_gap_leaves_the_gap_its_numbers() {
        let (mut sub, now) = (subscription(), Instant::now());
        let payload = [0x90, 0x80, 0x81, 0x02, 0];
        sent(&mut sub, now, &packet(0, 70_000, &payload)).unwrap();
        let padding = Packet { starts: false, vp8: None, ..packet(0, 70_003, &[]) };
        assert_eq!(sub.admit(now, 90_000, &padding), Verdict::Drop);
        sub.target = Some(Target::whole(1));
        let next = sent(&mut sub, now, &packet(1, 80_000, &payload)).unwrap();
        assert_eq!(numbers(&next).0, 103, "101 and 102 may still come");
        let late = Packet { starts: false, ..packet(0, 70_002, &payload) };
        assert_eq!(numbers(&sent(&mut sub, now, &late).unwrap()).0, 102);
    }
}
