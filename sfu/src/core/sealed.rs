//! Sealed audio packets of one subscription, kept for a moment so that they can be sent again.
//!
//! Audio has no repair stream, and two packets must never be sealed under one number. So what is sent
//! again is the datagram itself, byte for byte (RFC 3711 §9.1).

/// Packets kept: 640 ms of audio, if they fit.
const SLOTS: usize = 32;
/// Bytes kept: at 250 bytes each, which is a sound with one earlier, 640 ms.
const BYTES: usize = 8 << 10;
/// A datagram longer than this would displace too many others.
const LONGEST: usize = BYTES / 4;

/// The ring. Takes no memory before the first packet.
#[derive(Debug, Default)]
pub(super) struct Sealed {
    slots: Vec<Slot>,
    bytes: Vec<u8>,
    /// Bytes written since the beginning of time; position in the ring modulo its size.
    written: u64,
}

#[derive(Clone, Copy, Debug)]
struct Slot {
    sequence: u16,
    /// 0 = empty.
    len: u16,
    start: u64,
}

impl Sealed {
    /// Keeps a datagram under its sequence number.
    pub(super) fn put(&mut self, sequence: u16, datagram: &[u8]) {
        if self.slots.is_empty() {
            self.slots.resize(SLOTS, Slot { sequence: 0, len: 0, start: 0 });
            self.bytes.resize(BYTES, 0);
        }
        let Some(slot) = self.slots.get_mut(usize::from(sequence) % SLOTS) else { return };
        *slot = Slot { sequence, len: 0, start: 0 };
        let len = datagram.len();
        if len > LONGEST {
            return;
        }
        // A datagram lies in one piece: what does not fit before the end begins at the start.
        let at = self.written as usize % BYTES;
        let skip = if at + len > BYTES { BYTES - at } else { 0 };
        let start = self.written + skip as u64;
        let from = start as usize % BYTES;
        let Some(place) = self.bytes.get_mut(from..from + len) else { return };
        place.copy_from_slice(datagram);
        self.written = start + len as u64;
        *slot = Slot { sequence, len: len as u16, start };
    }

    /// The datagram with this sequence number, if it is still there.
    pub(super) fn get(&self, sequence: u16) -> Option<&[u8]> {
        let slot = self.slots.get(usize::from(sequence) % SLOTS)?;
        let overwritten = self.written > slot.start + BYTES as u64;
        if slot.sequence != sequence || slot.len == 0 || overwritten {
            return None;
        }
        let from = slot.start as usize % BYTES;
        self.bytes.get(from..from + usize::from(slot.len))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_kept_comes_back_until_the_ring_comes_round() {
        let mut sealed = Sealed::default();
        assert_eq!(sealed.get(0), None);
        for sequence in 65_530..65_536u32 + 10 {
            sealed.put(sequence as u16, &[sequence as u8; 100]);
        }
        assert_eq!(sealed.get(65_530), Some(&[250; 100][..]));
        assert_eq!(sealed.get(9), Some(&[9; 100][..]));
        assert_eq!(sealed.get(10), None);
        sealed.put(65_530u16.wrapping_add(SLOTS as u16), &[1; 10]);
        assert_eq!(sealed.get(65_530), None);
    }

    #[test]
    fn overwritten_bytes_are_never_given_out() {
        let mut sealed = Sealed::default();
        for sequence in 0..3_000u16 {
            let len = 40 + usize::from(sequence) * 37 % 900;
            sealed.put(sequence, &vec![sequence as u8; len]);
            let oldest = sequence.saturating_sub(SLOTS as u16 + 2);
            let kept = (oldest..=sequence).filter_map(|at| Some((at, sealed.get(at)?)));
            let kept: Vec<(u16, &[u8])> = kept.collect();
            assert!(kept.len() >= 8.min(usize::from(sequence) + 1), "{}", kept.len());
            for (at, datagram) in kept {
                assert!(datagram.iter().all(|byte| *byte == at as u8), "packet {at}");
                assert_eq!(datagram.len(), 40 + usize::from(at) * 37 % 900);
            }
        }
    }

    #[test]
    fn sounds_with_redundancy_are_kept_for_half_a_second() {
        let mut sealed = Sealed::default();
        // 80 bytes of sound, an earlier one of 80, headers, extensions, tag.
        (0..100).for_each(|sequence| sealed.put(sequence, &[1; 80 + 80 + 5 + 12 + 12 + 16]));
        assert!(sealed.get(99 - 25).is_some());
    }

    #[test]
    fn a_packet_too_large_displaces_what_was_there() {
        let mut sealed = Sealed::default();
        sealed.put(1, &[1; 10]);
        sealed.put(1 + SLOTS as u16, &[2; LONGEST + 1]);
        assert_eq!(sealed.get(1), None);
        assert_eq!(sealed.get(1 + SLOTS as u16), None);
    }
}
