//! Replay windows, and the small map that finds the one of an SSRC.

/// Which of the newest `64 * WORDS` packet indexes were seen (RFC 3711 §3.3.2). Bit `i` of the
/// ring stands for the index that is `i` modulo its size.
#[derive(Clone, Debug)]
pub(super) struct Window<const WORDS: usize> {
    /// The highest index seen; `None` before the first.
    top: Option<u64>,
    seen: [u64; WORDS],
}

impl<const WORDS: usize> Default for Window<WORDS> {
    fn default() -> Self {
        Self { top: None, seen: [0; WORDS] }
    }
}

impl<const WORDS: usize> Window<WORDS> {
    const SIZE: u64 = 64 * WORDS as u64;

    /// The 48-bit index that a sequence number most likely stands for (RFC 3711 §3.3.1); `None`
    /// when that would lie before the very first packet.
    pub(super) fn extend(&self, sequence: u16) -> Option<u64> {
        let Some(top) = self.top else { return Some(u64::from(sequence)) };
        let [low, high, ..] = top.to_le_bytes();
        let ahead = sequence.wrapping_sub(u16::from_le_bytes([low, high])).cast_signed();
        top.checked_add_signed(i64::from(ahead)).filter(|index| index >> 48 == 0)
    }

    /// Neither seen before nor too old to tell.
    pub(super) fn is_fresh(&self, index: u64) -> bool {
        let Some(top) = self.top else { return true };
        if index > top {
            return true;
        }
        let (word, bit) = Self::place(index);
        top - index < Self::SIZE && self.seen.get(word).is_some_and(|seen| seen & bit == 0)
    }

    /// Marks an index as seen.
    pub(super) fn accept(&mut self, index: u64) {
        match self.top {
            Some(top) if index <= top => {}
            Some(top) if index - top < Self::SIZE => {
                for passed in top + 1..index {
                    self.set(passed, false);
                }
                self.top = Some(index);
            }
            Some(_) | None => {
                self.seen = [0; WORDS];
                self.top = Some(index);
            }
        }
        self.set(index, true);
    }

    fn set(&mut self, index: u64, seen: bool) {
        let (word, bit) = Self::place(index);
        if let Some(word) = self.seen.get_mut(word) {
            *word = if seen { *word | bit } else { *word & !bit };
        }
    }

    const fn place(index: u64) -> (usize, u64) {
        ((index / 64) as usize % WORDS, 1 << (index % 64))
    }
}

/// A map by SSRC: open addressing over a table of small numbers, values in order of arrival.
///
/// The standard map hashes with a keyed function that costs more than the rest of the look-up; an
/// SSRC that collides on purpose only slows its own sender down, and no further than the limit.
#[derive(Debug)]
pub(super) struct SsrcMap<T> {
    /// Place in `entries` plus one; 0 = free. A power of two long, never more than half full.
    table: Vec<u16>,
    entries: Vec<(u32, T)>,
    limit: usize,
}

impl<T: Default> SsrcMap<T> {
    /// An empty map for at most `limit` SSRCs.
    pub(super) fn new(limit: usize) -> Self {
        Self { table: Vec::new(), entries: Vec::new(), limit: limit.min(usize::from(u16::MAX) - 1) }
    }

    /// How many SSRCs it holds.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    /// No further SSRC fits.
    pub(super) fn is_full(&self) -> bool {
        self.entries.len() >= self.limit
    }

    /// The value of an SSRC.
    pub(super) fn get(&self, ssrc: u32) -> Option<&T> {
        let (_, entry) = self.find(ssrc);
        self.entries.get(entry?).map(|(_, value)| value)
    }

    /// The value of an SSRC, made now if there is room.
    pub(super) fn get_or_insert(&mut self, ssrc: u32) -> Option<&mut T> {
        let (_, entry) = self.find(ssrc);
        let entry = match entry {
            Some(entry) => entry,
            None => self.insert(ssrc)?,
        };
        self.entries.get_mut(entry).map(|(_, value)| value)
    }

    fn insert(&mut self, ssrc: u32) -> Option<usize> {
        if self.is_full() {
            return None;
        }
        let entry = self.entries.len();
        self.entries.push((ssrc, T::default()));
        if self.table.len() < 2 * self.entries.len() {
            self.rebuild();
        } else {
            self.link(ssrc, entry);
        }
        Some(entry)
    }

    fn rebuild(&mut self) {
        let length = (4 * self.entries.len()).next_power_of_two().max(16);
        self.table = vec![0; length];
        for entry in 0..self.entries.len() {
            if let Some(&(ssrc, _)) = self.entries.get(entry) {
                self.link(ssrc, entry);
            }
        }
    }

    fn link(&mut self, ssrc: u32, entry: usize) {
        let (slot, _) = self.find(ssrc);
        if let (Some(slot), Ok(number)) = (self.table.get_mut(slot), u16::try_from(entry + 1)) {
            *slot = number;
        }
    }

    /// The slot where the search for an SSRC ends, and its entry if it has one.
    fn find(&self, ssrc: u32) -> (usize, Option<usize>) {
        let mask = self.table.len().wrapping_sub(1);
        // Fibonacci hashing: the high bits of the product depend on all bits of the SSRC.
        let mut slot = (ssrc.wrapping_mul(0x9E37_79B1) >> 16) as usize & mask;
        while let Some(&number) = self.table.get(slot) {
            let Some(entry) = usize::from(number).checked_sub(1) else { return (slot, None) };
            if self.entries.get(entry).is_some_and(|(found, _)| *found == ssrc) {
                return (slot, Some(entry));
            }
            slot = (slot + 1) & mask;
        }
        (slot, None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_index_is_fresh_once_and_within_the_window() {
        let mut window = Window::<16>::default();
        window.accept(5000);
        assert!(!window.is_fresh(5000));
        assert!(window.is_fresh(5000 - 1023) && !window.is_fresh(5000 - 1024));
        window.accept(5000 - 1023);
        assert!(!window.is_fresh(5000 - 1023));
        // A step ahead clears what it passes, and the oldest falls out.
        window.accept(5500);
        assert!(window.is_fresh(5499) && window.is_fresh(5001) && !window.is_fresh(5000));
        assert!(!window.is_fresh(5000 - 1023));
        window.accept(50_000);
        assert!(window.is_fresh(49_999) && !window.is_fresh(5500));
    }

    #[test]
    fn every_index_of_a_shuffled_run_is_accepted_exactly_once() {
        let mut window = Window::<2>::default();
        let mut taken = 0;
        for round in 0..2 {
            for base in (0..10_000_u64).step_by(50) {
                for step in 0..50 {
                    let index = base + (step * 7) % 50;
                    if window.is_fresh(index) {
                        assert_eq!(round, 0, "index {index} twice");
                        window.accept(index);
                        taken += 1;
                    }
                }
            }
        }
        assert_eq!(taken, 10_000);
    }

    #[test]
    fn sequence_numbers_extend_across_the_wrap() {
        let mut window = Window::<16>::default();
        assert_eq!(window.extend(65_535), Some(65_535));
        window.accept(65_535);
        assert_eq!(window.extend(0), Some(65_536));
        window.accept(65_536);
        assert_eq!(window.extend(65_534), Some(65_534));
        assert_eq!(window.extend(32_767), Some(65_536 + 32_767));
        let mut young = Window::<16>::default();
        young.accept(3);
        assert_eq!(young.extend(65_535), None, "before the first packet");
    }

    #[test]
    fn the_map_finds_what_it_holds_and_ends_at_its_limit() {
        let mut map = SsrcMap::<u32>::new(1000);
        assert!(map.get(7).is_none());
        // Same low and same high bits: worst cases of the hash.
        let ssrcs = (0..1000_u32).map(|n| if n % 2 == 0 { n << 16 } else { n });
        for ssrc in ssrcs.clone() {
            *map.get_or_insert(ssrc).unwrap() = !ssrc;
        }
        for ssrc in ssrcs {
            assert_eq!(map.get(ssrc), Some(&!ssrc));
        }
        assert!(map.is_full() && map.get_or_insert(0xFFFF_FFFF).is_none());
        assert!(map.get(0xFFFF_FFFF).is_none());
    }
}
