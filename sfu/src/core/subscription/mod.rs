//! One track being forwarded to one subscriber: its stream's numbers, and its packets' bytes.

mod clock;
mod rewrite;
mod select;

use std::ops::Range;
use std::time::{Duration, Instant};

use super::api::{MediaKind, TrackSid};
use super::descriptor::Structure;
use super::frames::{Frame, Ids};
use super::keyframes::Viewer;
use super::ladder::Target;
use super::layers::Wish;
use super::protection::Redundancy;
use super::red;
use super::sealed::Sealed;
use super::spans::{Found, Limit, Shift, Spans};
use clock::Clock;
pub(super) use clock::Clocks;
use rewrite::frame_number;
use select::Selection;

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
    /// It was lost, and comes from the redundancy of a later one.
    pub(super) restored: bool,
    /// The payload with its redundancy, where the publisher sends redundant audio.
    pub(super) red: Option<&'p [u8]>,
    /// The sounds before it, to make redundancy of.
    pub(super) olds: red::Olds<'p>,
    /// Dependency descriptor; empty when there is none.
    pub(super) descriptor: &'p [u8],
    /// How long receivers are to hold the picture back, as the header extension says it.
    pub(super) playout: Option<[u8; 3]>,
    /// The newest structure of the stream's descriptors, and the decode targets being produced.
    pub(super) structure: Option<(&'p Structure, u32)>,
    /// What its frame is to the layers.
    pub(super) frame: Frame,
    /// What is to be rewritten in the payload.
    pub(super) ids: Ids,
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
    /// Id of the playout delay, 0 = not taken.
    pub(super) playout_id: u8,
    /// Id of the transport-wide number, 0 = not taken.
    pub(super) number_id: u8,
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
    /// … but for its backup, which is not sent yet.
    pub(super) awaits_backup: bool,
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
    /// The link carries too little for it: nothing is sent.
    pub(super) paused_by_us: bool,
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
    clock: Clock,
    selection: Selection,
    sent: Sent,
    repair_sequence: u16,
    resent: [(u16, Option<Instant>); RESENT],
    sealed: Sealed,
    credit: u32,
}

/// The highest numbers sent, or kept for packets that are missing.
#[derive(Clone, Copy, Debug, Default)]
struct Sent {
    /// When the newest packet came, and its media clock as sent.
    at: Option<(Instant, u32)>,
    picture: u16,
    tl0: u8,
    key: u8,
    frame: u16,
    /// The publisher's id of the picture left out last.
    left_out: Option<u16>,
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
            awaits_backup: false,
            ssrc: streams.ssrc,
            repair_ssrc: streams.repair_ssrc,
            wish,
            target: None,
            current: None,
            paused_by_us: false,
            packets: 0,
            octets: 0,
            reported_lost: 0,
            redundancy: Redundancy::AtLeast(0),
            viewer: Viewer::default(),
            // The upper half of the number space is left free, so that the first packets are not
            // mistaken for a wrap by receivers that guess the rollover counter.
            spans: Spans::new(sequence & 0x7FFF),
            clock: Clock::default(),
            selection: Selection::default(),
            sent: Sent::default(),
            repair_sequence: repair_sequence & 0x7FFF,
            resent: [(0, None); RESENT],
            sealed: Sealed::default(),
            credit: 0,
        }
    }

    /// Goes on with another track: the stream and its numbers stay, and nothing that was sent can be
    /// found among the packets of the new one.
    pub(super) fn redirect(&mut self, track: usize, sid: TrackSid, binding: Binding) {
        self.pause();
        self.spans.forget_all();
        self.clock.forget_all();
        (self.track, self.sid, self.binding) = (track, sid, Some(binding));
        (self.target, self.paused_by_us, self.unreadable) = (None, false, false);
        (self.viewer, self.selection) = (Viewer::default(), Selection::default());
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
        self.clock.forget(layer);
    }

    /// A keyframe is needed to get the wanted layers of the stream it gets.
    pub(super) const fn waits(&self) -> bool {
        self.selection.waits()
    }

    /// Decides about a packet of the track.
    pub(super) fn admit(
        &mut self,
        now: Instant,
        clocks: &Clocks<'_>,
        packet: &Packet<'_>,
    ) -> Verdict {
        let current = self.current.filter(|_| self.stream() == Some(packet.layer));
        let (Some(current), Some((last, Shift { limit, .. }))) = (current, self.spans.current())
        else {
            return self.elsewhere(now, clocks, packet);
        };
        if packet.index <= last {
            return self.late(packet).unwrap_or(Verdict::Drop);
        }
        let Some(target) = self.target else {
            self.pause();
            return Verdict::Drop;
        };
        if packet.payload.is_empty() {
            if packet.index != last + 1 {
                self.selection.miss(current);
            }
            self.skip(packet, last);
            return Verdict::Drop;
        }
        let next = packet.index == last + 1;
        let sent = self.sent.at.map_or(0, |(_, timestamp)| timestamp);
        if let Some(timestamp) = self.clock.go_on(sent, packet, next) {
            self.spans.turn(packet.index, timestamp);
        }
        if !packet.frame.layered {
            if current.stream == target.stream {
                self.current = Some(target);
            }
            return Verdict::Send(self.forward(now, packet, false));
        }
        let (chosen, forwarded) = self.selection.choose(packet, next, current, target);
        self.current = Some(chosen);
        if next && Limit::of(chosen) != limit {
            self.spans.limit(packet.index, Limit::of(chosen));
        }
        if !forwarded {
            self.leave_out(now, packet);
            return Verdict::Drop;
        }
        Verdict::Send(self.forward(now, packet, packet.frame.is_last_for(chosen)))
    }

    /// A packet of a stream that is not the current one, or while nothing flows.
    fn elsewhere(&mut self, now: Instant, clocks: &Clocks<'_>, packet: &Packet<'_>) -> Verdict {
        let target = self.target.filter(|_| self.wanted() == Some(packet.layer));
        if let Some(target) = target.filter(|_| packet.starts && !packet.restored) {
            return Verdict::Send(self.start(now, clocks, packet, target));
        }
        // A late packet of an earlier stream still has its place.
        match self.late(packet) {
            Some(verdict) => verdict,
            None if target.is_some() => Verdict::NeedsKeyframe,
            None => Verdict::Drop,
        }
    }

    /// A packet that is not the newest: it takes the number that was kept for it. When it turns out
    /// not to be wanted the number goes alone, so that nobody waits for it.
    fn late(&mut self, packet: &Packet<'_>) -> Option<Verdict> {
        let found: Found = self.spans.find(packet.layer, packet.index)?;
        let limit = found.shift.limit;
        let empty = packet.frame.layered && packet.frame.needed & limit.set() == 0;
        let marked = !empty && packet.frame.layered && packet.frame.is_last_for(limit.target());
        self.spans.settle(&found, marked, empty);
        Some(Verdict::Send(Shift { marked, empty, ..found.shift }))
    }

    /// The newest packet, and it is forwarded.
    fn forward(&mut self, now: Instant, packet: &Packet<'_>, marked: bool) -> Shift {
        let shift = self.spans.forward(packet.index, marked);
        self.note(now, &shift, packet);
        shift
    }

    /// The newest packet is of layers that the subscriber does not get: what follows moves up.
    fn leave_out(&mut self, now: Instant, packet: &Packet<'_>) {
        let Some((_, mut shift)) = self.spans.current() else { return };
        let between = self.selection.leaves_out(packet);
        if let Some((_, picture, _)) = packet.ids.picture.filter(|_| packet.ids.dense)
            && self.sent.left_out.replace(picture) != Some(picture)
        {
            shift.picture = shift.picture.wrapping_add(1);
        }
        self.spans.leave_out(packet.index, !between, shift.picture);
        self.note(now, &shift, packet);
    }

    /// The newest packet is nothing but padding: what follows moves up by one. Numbers of packets that
    /// are missing before it stay theirs, and so do the pictures they may carry.
    fn skip(&mut self, packet: &Packet<'_>, last: u64) {
        let missing = packet.index.saturating_sub(last + 1) as u16;
        self.sent.picture = self.sent.picture.wrapping_add(missing);
        self.sent.tl0 = self.sent.tl0.wrapping_add(missing as u8);
        self.sent.frame = self.sent.frame.wrapping_add(missing);
        self.spans.skip(packet.index);
    }

    /// Begins with a stream so that all numbers go on from where they are.
    fn start(
        &mut self,
        now: Instant,
        clocks: &Clocks<'_>,
        packet: &Packet<'_>,
        target: Target,
    ) -> Shift {
        let sent = self.sent;
        let timestamp = self.clock.start(now, clocks, sent.at, packet);
        let mut shift = Shift { timestamp, limit: Limit::of(target), ..Shift::default() };
        if sent.at.is_some() {
            let ids = &packet.ids;
            if let Some((_, picture, _)) = ids.picture {
                shift.picture = picture.wrapping_sub(sent.picture.wrapping_add(1));
            }
            if let Some((_, tl0)) = ids.tl0 {
                shift.tl0 = tl0.wrapping_sub(sent.tl0.wrapping_add(1));
            }
            if let Some((_, key)) = ids.key {
                shift.key = key.wrapping_sub(sent.key.wrapping_add(1));
            }
            if let Some(frame) = frame_number(packet.descriptor) {
                shift.frame = frame.wrapping_sub(sent.frame.wrapping_add(1));
            }
        }
        let marked = packet.frame.layered && packet.frame.is_last_for(target);
        if packet.frame.layered && target != Target::whole(target.stream) {
            self.spans.prepare();
        }
        let shift = self.spans.begin(packet.layer, packet.index, shift, marked);
        self.selection.start(packet);
        self.current = Some(target);
        self.sent.left_out = None;
        self.note(now, &shift, packet);
        shift
    }

    /// Remembers the numbers of the newest packet.
    fn note(&mut self, now: Instant, shift: &Shift, packet: &Packet<'_>) {
        self.sent.at = Some((now, packet.timestamp.wrapping_sub(shift.timestamp)));
        if let Some((_, picture, _)) = packet.ids.picture {
            self.sent.picture = picture.wrapping_sub(shift.picture);
        }
        if let Some((_, tl0)) = packet.ids.tl0 {
            self.sent.tl0 = tl0.wrapping_sub(shift.tl0);
        }
        if let Some((_, key)) = packet.ids.key {
            self.sent.key = key.wrapping_sub(shift.key);
        }
        if let Some(frame) = frame_number(packet.descriptor) {
            self.sent.frame = frame.wrapping_sub(shift.frame);
        }
    }

    /// Counts a packet that was sent; audio is kept as it was sealed.
    pub(super) fn count(&mut self, shift: &Shift, packet: &Packet<'_>, datagram: &[u8]) {
        self.packets = self.packets.wrapping_add(1);
        self.credit = (self.credit + 1).min(MAX_CREDIT);
        let octets = if shift.empty { 0 } else { packet.payload.len() };
        self.octets = self.octets.wrapping_add(octets as u32);
        if self.kind == MediaKind::Audio {
            self.sealed.put((packet.index as u16).wrapping_sub(shift.sequence), datagram);
        }
    }

    /// How many numbers back lie the sealed sounds to send once more with this one.
    pub(super) fn echoes(&self, packet: &Packet<'_>) -> Range<u16> {
        let Redundancy::AtLeast(distance) = self.redundancy else { return 0..0 };
        let unread = self.binding.as_ref().is_some_and(|binding| binding.red_type.is_none());
        match distance {
            0 => 0..0,
            _ if !packet.starts => 0..1,
            1 | 2 => 1..if unread { 2 } else { 1 },
            _ => 1..if unread { 3 } else { 1 },
        }
    }

    /// In how many packets after its own each sound comes again; `published`: its publisher repeats
    /// each once.
    pub(super) fn copies(&self, published: bool) -> u16 {
        let read = self.binding.as_ref().is_some_and(|binding| binding.red_type.is_some());
        match self.redundancy {
            Redundancy::AtLeast(distance) if read => distance.max(u8::from(published)).into(),
            Redundancy::AtLeast(_) | Redundancy::Stripped => 0,
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

    /// Takes the price of one more repair from what was earned; `false`: there is nothing left.
    pub(super) const fn spend(&mut self) -> bool {
        let left = self.credit.checked_sub(1);
        if let Some(left) = left {
            self.credit = left;
        }
        left.is_some()
    }

    /// What to subtract from the current layer's media clock; `None` while nothing flows.
    pub(super) fn clock_shift(&self) -> Option<u32> {
        self.spans.current().map(|_| self.clock.exact())
    }
}

#[cfg(test)]
mod tests;
