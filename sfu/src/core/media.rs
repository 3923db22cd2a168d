//! The path of a packet: read once, then written and sealed for each subscriber.

use std::time::Instant;

use super::api::{MediaKind, Path};
use super::cache::Cached;
use super::codec::{Codec, keyframe_start};
use super::context::Context;
use super::frames::{Frame, Ids, Reading};
use super::hearing;
use super::keyframes::Need;
use super::link::{Class, Link, Way};
use super::peer::{DropReason, Received};
use super::reception::Via;
use super::red;
use super::room::Room;
use super::rtcp;
use super::rtp::{self, Header};
use super::streams::{Bound, Marks};
use super::subscription::{Clocks, Packet, Verdict};
use super::track::Track;

/// So many refused packets of one request are a hole that repair will not close before a keyframe
/// does. A viewer's decoder would ask for that seconds later only.
const HOPELESS: u32 = 8;

impl Room {
    /// A datagram for one participant.
    pub(super) fn datagram(
        &mut self,
        ctx: &mut Context<'_>,
        (key, way): (usize, Way),
        path: Path,
        received: Instant,
        data: &mut [u8],
    ) {
        let link = self.participants.get_mut(key).and_then(|other| other.links.get_mut(way));
        let Some(link) = link else {
            ctx.counters.dropped_unknown += 1;
            return;
        };
        let check = data.first().is_some_and(|first| *first < 4);
        // Media can bring a silent peer back, but gives it nothing to send or to plan.
        match link.peer.handle_datagram(ctx.now, path, data) {
            Received::Rtp { packet, header_len: _ } => {
                self.media(ctx, key, received, packet);
                self.take_events(ctx, key, way);
            }
            Received::Rtcp(compound) => {
                self.reports_came(ctx, key, compound);
                self.take_events(ctx, key, way);
            }
            Received::Handled => {
                self.peer_events(ctx, key, way);
                if check {
                    self.route_here(ctx, key, way, path);
                }
            }
            Received::Dropped(reason) => {
                count_drop(ctx, reason);
                self.peer_events(ctx, key, way);
            }
        }
    }

    /// An RTP packet, opened.
    fn media(&mut self, ctx: &mut Context<'_>, key: usize, received: Instant, packet: &[u8]) {
        ctx.counters.rtp_packets_in += 1;
        let header = Header::parse(packet);
        let body = header.and_then(|header| Some((header, rtp::payload(packet, &header)?)));
        let Some((header, payload)) = body else {
            ctx.counters.dropped_malformed += 1;
            return;
        };
        let Some(sender) = self.participants.get_mut(key) else { return };
        sender.uplink.came(packet.len());
        let marks = sender.streams.marks(packet);
        if let (Some(number), Some(recorder)) = (marks.feedback, &mut sender.streams.feedback) {
            recorder.record(number, received);
        }
        let bound = sender.streams.get(header.ssrc);
        let Some(bound) = bound.or_else(|| self.bind(key, &header, &marks)) else {
            ctx.counters.dropped_unbound += 1;
            return;
        };
        if !bound.repair {
            return self.forward(ctx, key, received, bound, &header, &marks, payload);
        }
        ctx.counters.rtx_in += 1;
        // RFC 4588 §4: the original sequence number, then the original payload. Padding alone is a
        // probe of the sender's estimator.
        if let Some((original, payload)) = payload.split_first_chunk() {
            let header = Header { sequence: u16::from_be_bytes(*original), ..header };
            self.forward(ctx, key, received, bound, &header, &marks, payload);
        }
    }

    /// A stream not seen before: its section and layer names tell what it is. Repair may come first.
    fn bind(&mut self, key: usize, header: &Header, marks: &Marks<'_>) -> Option<Bound> {
        let mid = marks.mid?;
        let here = |track: &Track| track.owner == key && track.info.mid.as_bytes() == mid;
        let (at, track) = self.tracks.iter_mut().find(|(_, track)| here(track))?;
        let repair = marks.repaired_rid.is_some() || track.repair_type == Some(header.payload_type);
        let rid = if repair { marks.repaired_rid } else { marks.rid };
        let layer = track.layer_of(rid)?;
        let bound = Bound { track: at, layer, repair };
        if !self.participants.get_mut(key)?.streams.bind(header.ssrc, bound) {
            return None;
        }
        let slot = track.layers.get_mut(layer)?;
        if repair {
            slot.repair_ssrc = header.ssrc;
        } else {
            let replaced = slot.ssrc != 0 && slot.ssrc != header.ssrc;
            slot.ssrc = header.ssrc;
            if replaced {
                slot.restart();
                track.sounds.clear();
                slot.repair_ssrc = 0;
                self.participants.get_mut(key)?.streams.forget_repair(at, layer);
                for (subscriber, subscription) in &track.subscribers {
                    let person = self.participants.get_mut(*subscriber);
                    let sub = person.and_then(|person| person.subscriptions.get_mut(*subscription));
                    if let Some(sub) = sub {
                        sub.forget_layer(layer);
                    }
                }
            }
        }
        track.describe_layers();
        Some(bound)
    }

    /// A media packet, or one recovered by repair: to the cache and to all who want it.
    #[expect(clippy::too_many_arguments, reason = "one packet, taken apart once")]
    fn forward(
        &mut self,
        ctx: &mut Context<'_>,
        key: usize,
        received: Instant,
        bound: Bound,
        header: &Header,
        marks: &Marks<'_>,
        payload: &[u8],
    ) {
        let (now, playout) = (ctx.now, self.playout_delay.or(marks.playout));
        let Some(track) = self.tracks.get_mut(bound.track) else { return };
        let (codec, clock) = (track.codec, track.clock);
        let video = track.kind() == MediaKind::Video;
        let Some(layer) = track.layers.get_mut(bound.layer) else { return };
        if !layer.is_carried_by(header.ssrc) {
            ctx.counters.dropped_unbound += 1;
            return;
        }
        let via = if bound.repair { Via::Repair } else { Via::Media };
        let Some(arrival) = layer.reception.record(now, header.sequence, via) else {
            ctx.counters.dropped_replayed += u64::from(!bound.repair);
            return;
        };
        let first = layer.heard.is_none() && !layer.stopped;
        let redundant = track.red_type == Some(header.payload_type) && !bound.repair;
        let Some(plain) = (if redundant { red::primary(payload) } else { Some(payload) }) else {
            ctx.counters.dropped_malformed += 1;
            return;
        };
        let read = layer.frames.read(codec, header.timestamp, plain, marks.descriptor);
        if !bound.repair {
            layer.reception.measure(received, header.timestamp, clock);
            layer.weigh(now, &read.frame, header, plain.len());
        }
        let starts =
            arrival.newest && !plain.is_empty() && (!video || begins(codec, plain, &read, marks));
        if starts && video {
            layer.keyframes.came(now, arrival.index);
        }
        if video && !plain.is_empty() && !track.subscribers.is_empty() {
            let kept = Cached {
                marker: header.marker,
                timestamp: header.timestamp,
                descriptor: marks.descriptor,
                payload: plain,
            };
            layer.cache.put(now, arrival.index, &kept);
        }
        let packet = Packet {
            layer: bound.layer,
            index: arrival.index,
            marker: header.marker,
            timestamp: header.timestamp,
            starts,
            restored: false,
            red: redundant.then_some(payload),
            olds: red::Olds::default(),
            descriptor: marks.descriptor,
            playout: playout.filter(|_| video),
            structure: None,
            frame: read.frame,
            ids: read.ids,
            payload: plain,
        };
        if let Some(ask_at) = arrival.ask_at {
            self.wake(ask_at);
        }
        if first {
            self.retarget(ctx, bound.track);
        }
        if arrival.torn {
            self.interrupt(bound);
        }
        if !video {
            self.sound_came(ctx, key, bound, clock, marks.level, &packet);
        }
        if self.fan_out(ctx, bound.track, clock, &packet) && video {
            self.ask_keyframe(ctx, bound.track, bound.layer, Need::Start);
        }
    }

    /// A gap too wide for repair: subscribers go on behind it without one, video at a keyframe. A jump
    /// in their numbers could be taken for a wrap.
    fn interrupt(&mut self, bound: Bound) {
        let Some(track) = self.tracks.get(bound.track) else { return };
        for (subscriber, subscription) in &track.subscribers {
            let person = self.participants.get_mut(*subscriber);
            let sub = person.and_then(|person| person.subscriptions.get_mut(*subscription));
            if let Some(sub) = sub.filter(|sub| sub.stream() == Some(bound.layer)) {
                sub.pause();
            }
        }
    }

    /// Sends a packet to all subscribers that take it. Returns whether one waits for a keyframe.
    pub(super) fn fan_out(
        &mut self,
        ctx: &mut Context<'_>,
        key: usize,
        clock: u32,
        packet: &Packet<'_>,
    ) -> bool {
        let Some(track) = self.tracks.get(key) else { return false };
        let clocks = Clocks { rate: clock, layers: &track.layers };
        let structure = track.layers.get(packet.layer).and_then(|layer| layer.frames.structure());
        let class = if track.kind() == MediaKind::Video { Class::Video } else { Class::Audio };
        let olds = track.sounds.before(packet.index, packet.timestamp);
        let packet = &Packet { structure, olds, ..*packet };
        let (mut waiting, mut held) = (false, None);
        for (subscriber, subscription) in &track.subscribers {
            let Some(person) = self.participants.get_mut(*subscriber) else { continue };
            let Some(sub) = person.subscriptions.get_mut(*subscription) else { continue };
            let Some(link) = person.links.down.as_mut().filter(|_| sub.is_flowing()) else {
                continue;
            };
            if link.peer.path().is_none() {
                // Numbers must not be used up by packets that cannot leave.
                sub.pause();
                continue;
            }
            match sub.admit(ctx.now, &clocks, packet) {
                Verdict::Send(shift) => {
                    let write = |out: &mut Vec<u8>| sub.write(out, &shift, packet);
                    let len = link.send_rtp(ctx.now, class, ctx.departures, ctx.counters, write);
                    if let Some(len) = len {
                        sub.count(&shift, packet, link.outgoing.last(len));
                        if class == Class::Audio {
                            hearing::echo(ctx, link, sub, &shift, packet);
                        }
                    }
                    if len == Some(0) {
                        held = held.into_iter().chain(link.due()).min();
                    }
                }
                Verdict::NeedsKeyframe => waiting = true,
                Verdict::Drop => {}
            }
            waiting |= sub.waits();
        }
        if let Some(due) = held {
            self.wake(due);
        }
        waiting
    }

    /// Asks the publisher for a keyframe of a layer, now or as soon as the distance allows.
    pub(super) fn ask_keyframe(
        &mut self,
        ctx: &mut Context<'_>,
        key: usize,
        at: usize,
        need: Need,
    ) {
        let Some(track) = self.tracks.get_mut(key) else { return };
        let Some(layer) = track.layers.get_mut(at).filter(|layer| layer.ssrc != 0) else { return };
        let Some(owner) = self.participants.get_mut(track.owner) else { return };
        if !layer.keyframes.want(ctx.now, need, owner.round_trip) {
            if let Some(due) = layer.keyframes.due() {
                self.wake(due);
            }
            return;
        }
        let media = layer.ssrc;
        let Some(link) = owner.links.source() else { return };
        let sender = link.ssrc;
        let write = |out: &mut Vec<u8>| rtcp::write_pli(out, sender, media);
        if link.send_rtcp(ctx.departures, ctx.counters, write) {
            ctx.counters.pli_out += 1;
        }
    }

    /// Answers a subscriber's request for packets: video on its repair stream, audio by the same
    /// datagram once more.
    pub(super) fn resend(
        &mut self,
        ctx: &mut Context<'_>,
        key: usize,
        media: u32,
        lost: impl Iterator<Item = u16>,
    ) {
        let Some(person) = self.participants.get_mut(key) else { return };
        // Those who ask again after their own round trip must not come too early for ours.
        let round_trip = person.round_trip * 7 / 10;
        let times = person.repair_times();
        let Some(at) = person.sending.get(&media) else { return };
        let Some(sub) = person.subscriptions.get_mut(*at) else { return };
        let Some(track) = self.tracks.get(sub.track) else { return };
        let Some(link) = &mut person.links.down else { return };
        let repairs = sub.binding.as_ref().is_some_and(|binding| binding.repair_type.is_some());
        let copies = sub.copies(track.red_type.is_some());
        let (of, mut refused) = (sub.track, Refused::default());
        self.numbers.clear();
        self.numbers.extend(lost.take(ctx.config.limits.repairs_per_request));
        for &sequence in &self.numbers {
            ctx.counters.nack_in += 1;
            if is_repeated(sequence, copies, &self.numbers) {
                continue;
            }
            let Some((at, index, shift)) = sub.asked_again(ctx.now, sequence, round_trip) else {
                continue;
            };
            if !repairs {
                let again = sub.sealed(sequence);
                let sent = again.is_some_and(|datagram| {
                    link.send_again(ctx.departures, ctx.counters, datagram)
                });
                ctx.counters.rtx_out += u64::from(sent);
                continue;
            }
            let Some(layer) = track.layers.get(at) else { continue };
            let Some(kept) = layer.cache.get(index) else {
                refused.count(at);
                continue;
            };
            let packet = Packet {
                layer: at,
                index,
                marker: kept.marker,
                timestamp: kept.timestamp,
                starts: false,
                restored: false,
                red: None,
                olds: red::Olds::default(),
                descriptor: kept.descriptor,
                playout: None,
                structure: layer.frames.structure(),
                frame: Frame::PLAIN,
                ids: Ids::of(track.codec, kept.payload),
                payload: kept.payload,
            };
            for time in 0..times {
                if time > 0 && !sub.spend() {
                    break;
                }
                let write = |out: &mut Vec<u8>| sub.write_repair(out, &shift, &packet);
                if send_repair(ctx, link, write) {
                    ctx.counters.rtx_out += 1;
                } else if time == 0 {
                    refused.count(at);
                }
            }
        }
        if refused.packets >= HOPELESS {
            self.ask_keyframe(ctx, of, refused.layer, Need::Repeat);
        }
    }
}

/// What was asked for and cannot be sent again: it is kept no more, or the link has no room for it.
#[derive(Clone, Copy, Debug, Default)]
struct Refused {
    layer: usize,
    packets: u32,
}

impl Refused {
    const fn count(&mut self, layer: usize) {
        self.packets = if self.layer == layer { self.packets + 1 } else { 1 };
        self.layer = layer;
    }
}

/// Whether a sound comes again in a later packet that is not missing as well: so many after it carry
/// a copy. Sent once more it would come later than that, and the receiver would hold back all that
/// follows to be in time for such stragglers.
fn is_repeated(sequence: u16, copies: u16, missing: &[u16]) -> bool {
    (1..=copies).any(|after| !missing.contains(&sequence.wrapping_add(after)))
}

fn send_repair(
    ctx: &mut Context<'_>,
    link: &mut Link,
    write: impl FnOnce(&mut Vec<u8>) -> Option<usize>,
) -> bool {
    link.send_rtp(ctx.now, Class::Repair, ctx.departures, ctx.counters, write).is_some()
}

/// Whether a subscription to a video layer can start at this packet.
fn begins(codec: Codec, payload: &[u8], read: &Reading, marks: &Marks<'_>) -> bool {
    if matches!(codec, Codec::Vp8 | Codec::Vp9) {
        return read.keyframe_start;
    }
    let descriptor = Some(marks.descriptor).filter(|descriptor| !descriptor.is_empty());
    // Of a codec we do not know, any packet may be the one.
    codec == Codec::Other && descriptor.is_none() || keyframe_start(codec, payload, descriptor)
}

fn count_drop(ctx: &mut Context<'_>, reason: DropReason) {
    let counters = &mut *ctx.counters;
    let counter = match reason {
        DropReason::UnauthenticatedStun | DropReason::BadTag => &mut counters.dropped_unauthentic,
        DropReason::Replayed => &mut counters.dropped_replayed,
        DropReason::Malformed | DropReason::BadStun => &mut counters.dropped_malformed,
        DropReason::Closed
        | DropReason::UnprovedPath
        | DropReason::NoKeys
        | DropReason::TooManySsrcs
        | DropReason::RepeatedFlight
        | DropReason::BadDtls => &mut counters.dropped_other,
    };
    *counter += 1;
}

#[cfg(test)]
mod tests {
    use super::is_repeated;

    #[test]
    fn a_sound_is_sent_again_only_if_its_copies_are_missing_too() {
        assert!(!is_repeated(7, 0, &[7]), "nobody repeats it");
        assert!(is_repeated(7, 1, &[7]));
        assert!(!is_repeated(7, 1, &[7, 8]) && is_repeated(8, 1, &[7, 8]));
        assert!(is_repeated(7, 2, &[7, 8]) && !is_repeated(7, 2, &[7, 8, 9]));
        assert!(!is_repeated(0xFFFF, 1, &[0xFFFF, 0]));
    }
}
