//! Sealed audio packets of one subscription, kept for a moment so that they can be sent again.
//!
//! Audio has no repair stream, and two packets must never be sealed under one number. So what is sent again is the
//! datagram itself, byte for byte (RFC 3711 §9.1).

/// Packets kept: 640 ms of audio.
const SLOTS: usize = 32;
/// Bytes kept; a packet larger than a fair share is not kept.
const BYTES: usize = 8 << 10;
const SLOT: usize = BYTES / SLOTS;

/// The ring. Takes no memory before the first packet.
#[derive(Debug, Default)]
pub(super) struct Sealed {
    /// Sequence number and length; 0 = empty.
    slots: Vec<(u16, usize)>,
    bytes: Vec<u8>,
}

impl Sealed {
    /// Keeps a datagram under its sequence number.
    pub(super) fn put(&mut self, sequence: u16, datagram: &[u8]) {
        if self.slots.is_empty() {
            self.slots.resize(SLOTS, (0, 0));
            self.bytes.resize(BYTES, 0);
        }
        let at = usize::from(sequence) % SLOTS;
        let fits = datagram.len() <= SLOT;
        if let Some(slot) = self.slots.get_mut(at) {
            *slot = (sequence, if fits { datagram.len() } else { 0 });
        }
        if fits && let Some(place) = self.bytes.get_mut(at * SLOT..at * SLOT + datagram.len()) {
            place.copy_from_slice(datagram);
        }
    }

    /// The datagram with this sequence number, if it is still there.
    pub(super) fn get(&self, sequence: u16) -> Option<&[u8]> {
        let at = usize::from(sequence) % SLOTS;
        let (kept, len) = *self.slots.get(at)?;
        let datagram = self.bytes.get(at * SLOT..at * SLOT + len)?;
        (kept == sequence && len > 0).then_some(datagram)
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
    fn a_packet_too_large_displaces_what_was_there() {
        let mut sealed = Sealed::default();
        sealed.put(1, &[1; 10]);
        sealed.put(1 + SLOTS as u16, &[2; SLOT + 1]);
        assert_eq!(sealed.get(1), None);
        assert_eq!(sealed.get(1 + SLOTS as u16), None);
    }
}
