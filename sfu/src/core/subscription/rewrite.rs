//! Writing a packet with the numbers that one subscriber sees.

use super::{Binding, Packet, Subscription};
use crate::core::descriptor::mask_targets;
use crate::core::frames::Ids;
use crate::core::protection::Redundancy;
use crate::core::red;
use crate::core::rtp;
use crate::core::spans::Shift;

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

impl Subscription {
    /// Appends a packet with its new numbers; returns the header's length. `None`: no section.
    pub(in crate::core) fn write(
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
            Wrapping::None => append_payload(out, packet, shift),
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
            (then.shift.timestamp == shift.timestamp).then_some(old)
        })
    }

    /// Appends a repair packet (RFC 4588 §4) for one sent before.
    pub(in crate::core) fn write_repair(
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
        append_payload(out, packet, shift);
        Some(len)
    }

    /// Whether its repair stream can carry padding that the receiver reports on.
    pub(in crate::core) fn takes_padding(&self) -> bool {
        let numbered = |binding: &Binding| binding.repair_type.is_some() && binding.number_id != 0;
        self.binding.as_ref().is_some_and(numbered)
    }

    /// Appends a packet of padding on the repair stream, of so many bytes behind the header.
    pub(in crate::core) fn write_padding(&mut self, out: &mut Vec<u8>, len: u8) -> Option<usize> {
        let Binding { number_id, repair_type, .. } = *self.binding.as_ref()?;
        self.repair_sequence = self.repair_sequence.wrapping_add(1);
        let start = out.len();
        let header = rtp::write_header(
            out,
            false,
            repair_type?,
            self.repair_sequence,
            self.sent.at.map_or(0, |(_, timestamp)| timestamp),
            self.repair_ssrc,
            &[(number_id, &[0, 0][..])],
        );
        // RFC 3550 §5.1: the P bit, and the last byte counts all of them.
        *out.get_mut(start)? |= 0x20;
        out.resize(start + header + usize::from(len), 0);
        *out.last_mut()? = len;
        Some(header)
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
        let ids = self.binding.as_ref();
        let ids = ids.map(|binding| (binding.number_id, binding.descriptor_id, binding.playout_id));
        let (number_id, id, playout_id) = ids.unwrap_or_default();
        // Id 0 is left out.
        let playout = packet.playout.as_ref().filter(|_| !shift.empty);
        let playout = playout.map_or((0, &[][..]), |value| (playout_id, &value[..]));
        // The number itself is set when the packet leaves.
        let number = (number_id, &[0, 0][..]);
        let marker = (packet.marker || shift.marked) && !shift.empty;
        if id == 0 || packet.descriptor.is_empty() || shift.empty {
            let elements = [number, playout];
            return rtp::write_header(
                out,
                marker,
                payload_type,
                sequence,
                timestamp,
                ssrc,
                &elements,
            );
        }
        let mut descriptor = [0; 255];
        let len = copy_descriptor(&mut descriptor, shift, packet);
        let value = descriptor.get_mut(..len).unwrap_or_default();
        if let (Some(frame), Some(place)) = (frame_number(value), value.get_mut(1..3)) {
            place.copy_from_slice(&frame.wrapping_sub(shift.frame).to_be_bytes());
        }
        let elements = [number, (id, &*value), playout];
        rtp::write_header(out, marker, payload_type, sequence, timestamp, ssrc, &elements)
    }
}

/// Copies the dependency descriptor, and returns its length. Who gets less than the whole stream is
/// told so with each frame: a decoder shows the highest layer it is promised, and waits for it.
fn copy_descriptor(out: &mut [u8; 255], shift: &Shift, packet: &Packet<'_>) -> usize {
    let begins = packet.descriptor.first().is_some_and(|first| first & 0x80 != 0);
    if let Some((structure, active)) = packet.structure.filter(|_| begins) {
        let (spatial, temporal) = shift.limit.reach();
        let promised = structure.targets_up_to(spatial, temporal) & active;
        if promised != active {
            let len = mask_targets(packet.descriptor, structure, promised, out);
            if len > 0 {
                return len;
            }
        }
    }
    let len = packet.descriptor.len().min(out.len());
    if let (Some(place), Some(value)) = (out.get_mut(..len), packet.descriptor.get(..len)) {
        place.copy_from_slice(value);
    }
    len
}

/// Frame number of a dependency descriptor: the second and third byte.
pub(super) fn frame_number(descriptor: &[u8]) -> Option<u16> {
    Some(u16::from_be_bytes(*descriptor.get(1..)?.first_chunk()?))
}

/// The payload with the numbers in its unencrypted head rewritten: what follows is never looked at,
/// and goes as it came, so that end-to-end encryption holds.
fn append_payload(out: &mut Vec<u8>, packet: &Packet<'_>, shift: &Shift) {
    if shift.empty {
        return;
    }
    let start = out.len();
    out.extend_from_slice(packet.payload);
    if packet.ids != Ids::default()
        && let Some(payload) = out.get_mut(start..)
    {
        rewrite_ids(payload, &packet.ids, shift);
    }
}

fn rewrite_ids(payload: &mut [u8], ids: &Ids, shift: &Shift) {
    match ids.picture {
        Some((at, picture, true)) => {
            let picture = picture.wrapping_sub(shift.picture) | 0x8000;
            if let Some(place) = payload.get_mut(at..at + 2) {
                place.copy_from_slice(&picture.to_be_bytes());
            }
        }
        Some((at, picture, false)) => {
            if let Some(place) = payload.get_mut(at) {
                *place = (picture.wrapping_sub(shift.picture) & 0x7F) as u8;
            }
        }
        None => {}
    }
    if let Some((at, tl0)) = ids.tl0
        && let Some(place) = payload.get_mut(at)
    {
        *place = tl0.wrapping_sub(shift.tl0);
    }
    if let Some((at, key)) = ids.key
        && let Some(place) = payload.get_mut(at)
    {
        *place = *place & 0xE0 | key.wrapping_sub(shift.key) & 0x1F;
    }
}
