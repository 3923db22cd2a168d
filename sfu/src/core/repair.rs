//! What is done about packets that a publisher's stream lacks: asking for them, and what follows when
//! they do not come.

use super::api::MediaKind;
use super::asking::Patience;
use super::cache::{Cache, Cached};
use super::codec::{Codec, Vp8, Vp9};
use super::context::Context;
use super::keyframes::Need;
use super::room::Room;
use super::rtcp;

impl Room {
    /// Repair and keyframe requests to the publisher of a track.
    pub(super) fn repair_due(&mut self, ctx: &mut Context<'_>, key: usize) {
        let Some(track) = self.tracks.get_mut(key) else { return };
        let (kind, codec) = (track.kind(), track.codec);
        let Some(owner) = self.participants.get(track.owner) else { return };
        let patience = match kind {
            MediaKind::Audio => Patience::audio(owner.round_trip),
            MediaKind::Video => Patience::video(owner.round_trip, owner.downlink_loss()),
        };
        let (mut due, mut broken) = (0u32, 0u32);
        for (at, layer) in track.layers.iter_mut().enumerate() {
            let bit = 1 << at.min(31);
            if layer.keyframes.due().is_some_and(|due| due <= ctx.now) {
                due |= bit;
            }
            if layer.reception.next_ask().is_none_or(|due| due > ctx.now) {
                continue;
            }
            let needed = track.subscribers.iter().any(|(subscriber, subscription)| {
                let person = self.participants.get(*subscriber);
                let sub = person.and_then(|person| person.subscriptions.get(*subscription));
                sub.is_some_and(|sub| sub.needs(at))
            });
            if !needed {
                // The line is weak enough without repair that nobody looks at.
                layer.reception.forgo();
                continue;
            }
            self.numbers.clear();
            let (cache, keyframes) = (&layer.cache, &layer.keyframes);
            layer.reception.asks(ctx.now, &patience, &mut self.numbers, |index| {
                if !keyframes.supersedes(index) && !is_discardable(codec, cache, index) {
                    broken |= bit;
                }
            });
            let owner = self.participants.get_mut(track.owner);
            let link = owner.and_then(|owner| owner.links.source());
            let Some(link) = link.filter(|_| !self.numbers.is_empty()) else { continue };
            let (sender, media, lost) = (link.ssrc, layer.ssrc, &self.numbers);
            let write = |out: &mut Vec<u8>| rtcp::write_nack(out, sender, media, lost);
            if link.send_rtcp(ctx.departures, ctx.counters, write) {
                ctx.counters.nack_out += lost.len() as u64;
            }
        }
        for at in 0..32 {
            if broken & 1 << at != 0 && kind == MediaKind::Video {
                self.ask_keyframe(ctx, key, at, Need::Start);
            } else if due & 1 << at != 0 {
                self.ask_keyframe(ctx, key, at, Need::Due);
            }
        }
    }
}

/// Whether a packet that never came was surely of a frame that no other needs: its neighbours are
/// there, and nothing between them or cut by the gap is of the lowest temporal layer.
fn is_discardable(codec: Codec, cache: &Cache, index: u64) -> bool {
    let place = |packet: Cached<'_>| Place::read(codec, &packet);
    let before = index.checked_sub(1).and_then(|before| cache.get(before)).and_then(place);
    let Some((before, after)) = before.zip(cache.get(index + 1).and_then(place)) else {
        return false;
    };
    if before.timestamp == after.timestamp {
        return before.temporal > 0;
    }
    let cut = !before.ends && before.temporal == 0 || !after.starts && after.temporal == 0;
    let lowest = after.lowest.wrapping_sub(before.lowest);
    !cut && lowest == u8::from(after.temporal == 0)
}

/// Where a packet stands among the frames of its stream.
struct Place {
    timestamp: u32,
    temporal: u8,
    /// Frames of the lowest temporal layer so far, its own included.
    lowest: u8,
    starts: bool,
    ends: bool,
}

impl Place {
    fn read(codec: Codec, packet: &Cached<'_>) -> Option<Self> {
        let (temporal, lowest, starts) = match codec {
            Codec::Vp8 => {
                let vp8 = Vp8::parse(packet.payload)?;
                (vp8.temporal?, vp8.tl0_picture_index?.1, vp8.starts_frame)
            }
            Codec::Vp9 => {
                let vp9 = Vp9::parse(packet.payload)?;
                let starts = vp9.starts_frame && vp9.spatial == 0;
                (vp9.temporal, vp9.tl0_picture_index?.1, starts)
            }
            Codec::H264 | Codec::Av1 | Codec::Opus | Codec::Red | Codec::Other => return None,
        };
        let Cached { timestamp, marker: ends, .. } = *packet;
        Some(Self { timestamp, temporal, lowest, starts, ends })
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    /// A VP8 packet: first of its frame, temporal layer, count of the lowest one.
    fn put(cache: &mut Cache, index: u64, frame: u32, parts: (bool, bool), tid: u8, tl0: u8) {
        let (starts, marker) = parts;
        let start = if starts { 0x90 } else { 0x80 };
        let payload = [start, 0xE0, 0x80, frame as u8, tl0, tid << 6, 1, 0, 0];
        let packet =
            Cached { marker, timestamp: frame * 3_000, descriptor: &[], payload: &payload };
        cache.put(Instant::now(), index, &packet);
    }

    #[test]
    fn a_hole_in_an_upper_temporal_layer_breaks_nothing() {
        let mut cache = Cache::default();
        let whole = (true, true);
        put(&mut cache, 10, 1, whole, 0, 7);
        put(&mut cache, 11, 2, (true, false), 2, 7);
        // 12 is the rest of frame 2, or all of another.
        put(&mut cache, 13, 4, whole, 1, 7);
        put(&mut cache, 15, 6, whole, 0, 8);
        put(&mut cache, 17, 8, whole, 0, 10);
        put(&mut cache, 18, 9, (true, false), 0, 11);
        put(&mut cache, 20, 9, (false, true), 0, 11);
        put(&mut cache, 22, 11, (false, true), 1, 11);
        put(&mut cache, 23, 12, (true, false), 2, 11);
        put(&mut cache, 25, 12, (false, true), 2, 11);
        let discardable = |index| is_discardable(Codec::Vp8, &cache, index);
        let holes = [12, 14, 16, 19, 21, 24, 26, 9].map(discardable);
        // 16 hides a frame of the lowest layer, 19 is part of one; at the ends nothing is known.
        assert_eq!(holes, [true, true, false, false, true, true, false, false]);
        assert!(!is_discardable(Codec::H264, &cache, 12), "it does not say");
    }
}
