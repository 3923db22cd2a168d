//! The packets of one layer that subscribers may ask for again: a ring of payloads in clear, shared
//! by all subscriptions of the layer.

use std::time::{Duration, Instant};

/// Packets a ring remembers at the most.
const SLOTS: usize = 1_024;
/// First size of a ring; most layers never need more.
const FIRST_BYTES: usize = 32 << 10;
/// A ring never grows beyond this.
const MAX_BYTES: usize = 1 << 20;
/// A ring that overwrites packets younger than this is too small.
const WANTED_AGE: Duration = Duration::from_millis(1_500);

/// The ring of one layer. Takes no memory before the first packet.
#[derive(Debug, Default)]
pub(super) struct Cache {
    slots: Vec<Slot>,
    bytes: Vec<u8>,
    /// Bytes written since the beginning of time; position in the ring modulo its size.
    written: u64,
}

#[derive(Clone, Copy, Debug)]
struct Slot {
    index: u64,
    at: Option<Instant>,
    start: u64,
    descriptor: usize,
    payload: usize,
    marker: bool,
    timestamp: u32,
}

const EMPTY: Slot =
    Slot { index: 0, at: None, start: 0, descriptor: 0, payload: 0, marker: false, timestamp: 0 };

/// One packet as it came from the publisher.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Cached<'c> {
    /// Last of its frame.
    pub(super) marker: bool,
    /// The publisher's media clock.
    pub(super) timestamp: u32,
    /// Dependency descriptor; empty when there is none.
    pub(super) descriptor: &'c [u8],
    /// Payload without padding.
    pub(super) payload: &'c [u8],
}

impl Cache {
    /// Keeps a packet under its extended sequence number.
    pub(super) fn put(&mut self, now: Instant, index: u64, packet: &Cached<'_>) {
        let len = packet.descriptor.len() + packet.payload.len();
        if self.slots.is_empty() {
            self.slots.resize(SLOTS, EMPTY);
            self.bytes.resize(FIRST_BYTES, 0);
        }
        if len > self.bytes.len() {
            return;
        }
        let size = self.bytes.len() as u64;
        let at = self.written % size;
        // A packet lies in one piece: what does not fit before the end begins at the start.
        let skip = if at + len as u64 > size { size - at } else { 0 };
        let start = self.written + skip;
        let from = (start % size) as usize;
        let Some(room) = self.bytes.get_mut(from..from + len) else { return };
        let (descriptor, payload) = room.split_at_mut(packet.descriptor.len());
        descriptor.copy_from_slice(packet.descriptor);
        payload.copy_from_slice(packet.payload);
        self.written = start + len as u64;
        let slot = Slot {
            index,
            at: Some(now),
            start,
            descriptor: packet.descriptor.len(),
            payload: packet.payload.len(),
            marker: packet.marker,
            timestamp: packet.timestamp,
        };
        if let Some(old) = self.slots.get_mut(index as usize % SLOTS) {
            *old = slot;
        }
        if skip > 0 && self.grow_if_short(now, index) {
            self.put(now, index, packet);
        }
    }

    /// The packet with this extended sequence number, if it is still there.
    pub(super) fn get(&self, index: u64) -> Option<Cached<'_>> {
        let slot = self.slots.get(index as usize % SLOTS)?;
        let size = self.bytes.len() as u64;
        if slot.at.is_none() || slot.index != index || self.written > slot.start + size {
            return None;
        }
        let from = (slot.start % size) as usize;
        let both = self.bytes.get(from..from + slot.descriptor + slot.payload)?;
        let (descriptor, payload) = both.split_at_checked(slot.descriptor)?;
        let Slot { marker, timestamp, .. } = *slot;
        Some(Cached { marker, timestamp, descriptor, payload })
    }

    /// Doubles the ring when a whole round took less time than a repair may need. What it held is
    /// forgotten, which happens a few times in the life of a layer. Returns whether it grew.
    fn grow_if_short(&mut self, now: Instant, newest: u64) -> bool {
        let size = self.bytes.len();
        let oldest =
            (newest.saturating_sub(SLOTS as u64 - 1)..newest).find(|at| self.get(*at).is_some());
        let slot = oldest.and_then(|at| self.slots.get(at as usize % SLOTS));
        let age = slot.and_then(|slot| slot.at).map(|at| now.saturating_duration_since(at));
        let short = size < MAX_BYTES && age.is_some_and(|age| age < WANTED_AGE);
        if short {
            self.bytes.resize(size * 2, 0);
            self.slots.fill(EMPTY);
            self.written = 0;
        }
        short
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packet(payload: &[u8]) -> Cached<'_> {
        Cached { marker: true, timestamp: 7, descriptor: &[], payload }
    }

    #[test]
    fn a_packet_comes_back_as_it_was() {
        let mut cache = Cache::default();
        assert_eq!(cache.get(5), None);
        let kept = Cached { descriptor: &[9, 9], ..packet(&[1, 2, 3]) };
        cache.put(Instant::now(), 5, &kept);
        assert_eq!(cache.get(5), Some(kept));
        assert_eq!(cache.get(5 + SLOTS as u64), None);
        assert_eq!(cache.get(4), None);
    }

    #[test]
    fn the_ring_never_gives_out_overwritten_bytes() {
        let mut cache = Cache::default();
        let mut now = Instant::now();
        for index in 0..5_000u64 {
            now += Duration::from_millis(20);
            let payload = vec![index as u8; 100 + (index as usize * 37) % 1_100];
            cache.put(now, index, &packet(&payload));
            let oldest = index.saturating_sub(SLOTS as u64 + 10);
            let alive = (oldest..=index).filter(|at| {
                cache.get(*at).is_some_and(|kept| {
                    assert!(kept.payload.iter().all(|byte| *byte == *at as u8), "packet {at}");
                    true
                })
            });
            assert!(alive.count() > 0);
        }
        assert!(cache.bytes.len() <= MAX_BYTES);
    }

    #[test]
    fn a_fast_layer_gets_a_larger_ring() {
        let mut cache = Cache::default();
        let mut now = Instant::now();
        for index in 0..2_000u64 {
            now += Duration::from_millis(4);
            cache.put(now, index, &packet(&[0; 1_200]));
        }
        // 1,200 bytes each 4 ms is 300 kB/s.
        assert!(cache.get(1_999 - 300).is_some(), "1.2 s are kept");
        assert!(cache.bytes.len() < MAX_BYTES);
    }
}
