//! Bit by bit, the highest first.

/// Reads a slice; every read says `None` at its end.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    pub(super) const fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    /// The bit that is read next.
    pub(super) const fn position(&self) -> usize {
        self.at
    }

    /// Goes to a bit.
    pub(super) const fn seek(&mut self, bit: usize) {
        self.at = bit;
    }

    /// A number of up to 32 bits.
    pub(super) fn bits(&mut self, count: u32) -> Option<u32> {
        let mut value = 0u64;
        let mut open = count.min(32);
        while open > 0 {
            let byte = *self.bytes.get(self.at / 8)?;
            let left = 8 - (self.at % 8) as u32;
            let take = left.min(open);
            let part = u64::from(byte) >> (left - take) & ((1 << take) - 1);
            value = value << take | part;
            self.at += take as usize;
            open -= take;
        }
        u32::try_from(value).ok()
    }

    /// One bit.
    pub(super) fn flag(&mut self) -> Option<bool> {
        Some(self.bits(1)? != 0)
    }

    /// A number of up to 8 bits.
    pub(super) fn byte(&mut self, count: u32) -> Option<u8> {
        u8::try_from(self.bits(count)?).ok()
    }

    /// A number of up to 16 bits.
    pub(super) fn word(&mut self, count: u32) -> Option<u16> {
        u16::try_from(self.bits(count)?).ok()
    }

    /// A number below `bound`, in the shortest form (`ns(n)` of the AV1 specification).
    pub(super) fn below(&mut self, bound: u32) -> Option<u32> {
        let width = u32::BITS - bound.leading_zeros();
        let short = (1 << width) - bound;
        let value = self.bits(width.checked_sub(1)?)?;
        if value < short {
            return Some(value);
        }
        Some((value << 1) - short + self.bits(1)?)
    }
}

/// Writes into a slice of zeros; every write says `None` when it is full.
#[derive(Debug)]
pub(super) struct Writer<'a> {
    bytes: &'a mut [u8],
    at: usize,
}

impl<'a> Writer<'a> {
    /// Clears the slice.
    pub(super) fn new(bytes: &'a mut [u8]) -> Self {
        bytes.fill(0);
        Self { bytes, at: 0 }
    }

    /// Bytes begun.
    pub(super) const fn len(&self) -> usize {
        self.at.div_ceil(8)
    }

    /// The lowest `count` bits of a number.
    pub(super) fn bits(&mut self, count: u32, value: u32) -> Option<()> {
        let mut open = count.min(32);
        while open > 0 {
            let byte = self.bytes.get_mut(self.at / 8)?;
            let left = 8 - (self.at % 8) as u32;
            let take = left.min(open);
            let part = u64::from(value) >> (open - take) & ((1 << take) - 1);
            // At most eight bits, so nothing is cut.
            *byte |= (part << (left - take)) as u8;
            self.at += take as usize;
            open -= take;
        }
        Some(())
    }

    /// The bits of a reader up to a position.
    pub(super) fn copy(&mut self, from: &mut Reader<'_>, end: usize) -> Option<()> {
        while from.position() < end {
            let count = (end - from.position()).min(32) as u32;
            self.bits(count, from.bits(count)?)?;
        }
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_cross_bytes_both_ways() {
        let widths = [1u32, 7, 3, 13, 32, 5, 16, 32, 2];
        let values = [1u32, 0x55, 5, 0x1ABC, 0xDEAD_BEEF, 17, 0xFFFE, 1, 2];
        let mut bytes = [0xFF; 14];
        let mut writer = Writer::new(&mut bytes);
        for (width, value) in widths.into_iter().zip(values) {
            writer.bits(width, value).unwrap();
        }
        assert_eq!(writer.len(), 14);
        assert_eq!(writer.bits(2, 0), None, "one bit is left");
        let mut reader = Reader::new(&bytes);
        for (width, value) in widths.into_iter().zip(values) {
            assert_eq!(reader.bits(width), Some(value));
        }
        assert_eq!((reader.bits(0), reader.bits(2)), (Some(0), None));
    }

    #[test]
    fn short_forms_are_read() {
        // Below 5: 0, 1, 2 in two bits; 3, 4 in three.
        let mut reader = Reader::new(&[0b0001_1011, 0b1110_0000]);
        let read: Vec<_> = (0..5).map(|_| reader.below(5)).collect();
        assert_eq!(read, [Some(0), Some(1), Some(2), Some(4), Some(3)]);
        assert_eq!(Reader::new(&[]).below(1), Some(0), "nothing to choose, nothing read");
        assert_eq!(Reader::new(&[]).below(0), None);
    }
}
