//! Sound against loss: packets lost on the way to us come back from the redundancy of later ones, and
//! each receiver gets the redundancy that its line needs.

use std::time::Instant;

use super::api::MediaKind;
use super::context::Context;
use super::link::Link;
use super::protection::{Load, fitting};
use super::red::{self, MAX_OLD, Old};
use super::room::Room;
use super::rtcp;
use super::spans::Shift;
use super::streams::Bound;
use super::subscription::{Packet, Subscription};

impl Room {
    /// A sound came, and is about to be forwarded. What was lost before it and is repeated in it goes
    /// first, under its own number and time, as it would have come. It is recorded as received, so
    /// nothing else will ever be sent under that number: not the original either, should it come.
    pub(super) fn sound_came(
        &mut self,
        ctx: &mut Context<'_>,
        key: usize,
        bound: Bound,
        clock: u32,
        level: Option<u8>,
        packet: &Packet<'_>,
    ) {
        let Some(track) = self.tracks.get_mut(bound.track) else { return };
        if let Some(sender) = self.participants.get_mut(key) {
            if let Some(level) = level {
                sender.voice.hear(level, packet.timestamp, clock);
            }
            let ssrc = track.layers.get(bound.layer).map_or(0, |layer| layer.ssrc);
            sender.uplink.heard(ctx.now, ssrc, packet.timestamp, clock);
        }
        if packet.payload.is_empty() {
            return;
        }
        track.sounds.put(packet.index, packet.timestamp, packet.payload);
        let Some(redundancy) = packet.red else { return };
        for old in red::blocks(redundancy).iter().flatten() {
            self.restore(ctx, bound, clock, packet, old);
        }
    }

    fn restore(
        &mut self,
        ctx: &mut Context<'_>,
        bound: Bound,
        clock: u32,
        carrier: &Packet<'_>,
        old: &Old<'_>,
    ) {
        let Some(track) = self.tracks.get_mut(bound.track) else { return };
        let Some(layer) = track.layers.get_mut(bound.layer) else { return };
        let Some(index) = carrier.index.checked_sub(u64::from(old.distance)) else { return };
        let timestamp = carrier.timestamp.wrapping_sub(old.offset);
        if !track.sounds.fits(index, timestamp) || !layer.reception.restore(index) {
            return;
        }
        track.sounds.put(index, timestamp, old.payload);
        ctx.counters.red_restored += 1;
        // Nobody begins with it: some that came after it may have gone by already, and their numbers
        // would stay open.
        let packet = Packet {
            index,
            marker: false,
            timestamp,
            restored: true,
            red: None,
            payload: old.payload,
            ..*carrier
        };
        self.fan_out(ctx, bound.track, clock, &packet);
    }

    /// Tells publishers whose way to us is full to send less.
    pub(super) fn relieve(&mut self, ctx: &mut Context<'_>) {
        for (_, person) in &mut self.participants {
            let Some(bps) = person.uplink.review(ctx.now) else { continue };
            let (media, Some(link)) = (person.streams.any, person.links.source()) else { continue };
            let sender = link.ssrc;
            let write = |out: &mut Vec<u8>| rtcp::write_remb(out, sender, media, bps);
            link.send_rtcp(ctx.departures, ctx.counters, write);
        }
    }

    /// Gives each receiver the redundancy that its line needs now.
    pub(super) fn protect(&mut self, now: Instant) {
        for (_, person) in &mut self.participants {
            let mut load = Load::default();
            for (_, sub) in person.subscriptions.iter().filter(|(_, sub)| sub.is_flowing()) {
                if let Some(track) = self.tracks.get(sub.track) {
                    track.sounds.weigh(track.clock, &mut load);
                }
            }
            let (loss, estimate) = (person.downlink_loss(), person.downlink_estimate());
            let fit = estimate.map_or(MAX_OLD as u8, |estimate| fitting(estimate, &load));
            let redundancy = person.protection.update(now, loss, fit);
            for (_, sub) in &mut person.subscriptions {
                if sub.kind == MediaKind::Audio {
                    sub.redundancy = redundancy;
                }
            }
        }
    }
}

/// Sends earlier sealed sounds once more, after a sound was sent: to lossy receivers that read no
/// redundancy those before it, which costs no more than redundancy would; and to any a late sound
/// itself, because nothing after it repeats it. The same datagram under the same number is no second
/// ciphertext; receivers drop what they have.
pub(super) fn echo(
    ctx: &mut Context<'_>,
    link: &mut Link,
    sub: &Subscription,
    shift: &Shift,
    packet: &Packet<'_>,
) {
    let sequence = (packet.index as u16).wrapping_sub(shift.sequence);
    for back in sub.echoes(packet) {
        let datagram = sub.sealed(sequence.wrapping_sub(back));
        if datagram.is_some_and(|datagram| link.send_again(ctx.departures, ctx.counters, datagram))
        {
            ctx.counters.sounds_echoed += 1;
        }
    }
}
