//! How the numbers of a publisher's packets map to those that one subscriber sees.
//!
//! A *span* is a run of one layer's packets whose sequence numbers are shifted by one constant. A new
//! span begins at a layer switch, and after packets that are not forwarded (padding), so that the
//! subscriber sees no gap of our making. Older spans are kept for a while: a packet that comes late
//! takes the number that was left for it, and a subscriber's repair request is mapped back.

/// Spans remembered. Padding comes in bursts and a burst makes one span.
const REMEMBERED: usize = 24;

/// Constants to subtract from a publisher's numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Shift {
    /// Sequence number.
    pub(super) sequence: u16,
    /// Media clock.
    pub(super) timestamp: u32,
    /// VP8 picture id.
    pub(super) picture: u16,
    /// VP8 TL0PICIDX.
    pub(super) tl0: u8,
    /// Frame number of the dependency descriptor.
    pub(super) frame: u16,
}

#[derive(Clone, Copy, Debug)]
struct Span {
    layer: usize,
    /// Extended sequence number of its first packet.
    start: u64,
    /// One after its last; `u64::MAX` while it is open.
    end: u64,
    shift: Shift,
}

/// The spans of one subscription.
#[derive(Debug, Default)]
pub(super) struct Spans {
    /// Nearly all packets belong to it, so it lies with the subscription and not behind a pointer.
    newest: Option<Span>,
    /// The others, oldest first.
    older: Vec<Span>,
    /// Highest extended sequence number forwarded in the newest span.
    last: u64,
}

impl Spans {
    /// Begins a span at the packet `index` of a layer.
    pub(super) fn begin(&mut self, layer: usize, index: u64, shift: Shift) {
        self.end();
        if let Some(before) =
            self.newest.replace(Span { layer, start: index, end: u64::MAX, shift })
        {
            if self.older.len() + 1 == REMEMBERED {
                self.older.remove(0);
            }
            self.older.push(before);
        }
        self.last = index;
    }

    /// Closes the newest span after the last packet that was forwarded.
    pub(super) fn end(&mut self) {
        if let Some(open) = self.newest.as_mut().filter(|span| span.end == u64::MAX) {
            open.end = self.last + 1;
        }
    }

    /// Forgets all closed spans of a layer.
    pub(super) fn forget(&mut self, layer: usize) {
        let stale = |span: &Span| span.layer == layer && span.end != u64::MAX;
        self.newest = self.newest.filter(|span| !stale(span));
        self.older.retain(|span| !stale(span));
    }

    /// Highest extended sequence number of the open span, and its shift.
    pub(super) fn open(&self) -> Option<(u64, Shift)> {
        let open = self.newest.filter(|span| span.end == u64::MAX)?;
        Some((self.last, open.shift))
    }

    /// Takes note that a packet of the open span was forwarded.
    pub(super) fn forwarded(&mut self, index: u64) {
        self.last = self.last.max(index);
    }

    /// The newest packet of the open span is not forwarded: what follows moves up by one.
    pub(super) fn skip(&mut self, index: u64) {
        let Some(open) = self.newest.filter(|span| span.end == u64::MAX) else { return };
        let shift = Shift { sequence: open.shift.sequence.wrapping_add(1), ..open.shift };
        if open.start == index {
            // Nothing of this span was sent yet, so it need not be remembered.
            if let Some(open) = &mut self.newest {
                (open.start, open.shift) = (index + 1, shift);
            }
        } else {
            self.last = index - 1;
            self.begin(open.layer, index + 1, shift);
        }
        self.last = index;
    }

    /// The shift for a packet, if it belongs to what this subscriber gets.
    pub(super) fn find(&self, layer: usize, index: u64) -> Option<Shift> {
        let holds = |span: &&Span| span.layer == layer && (span.start..span.end).contains(&index);
        self.all().find(holds).map(|span| span.shift)
    }

    /// Newest first.
    fn all(&self) -> impl Iterator<Item = &Span> {
        self.newest.iter().chain(self.older.iter().rev())
    }

    /// The packet behind a number that the subscriber has seen or missed.
    pub(super) fn source(&self, sequence: u16) -> Option<(usize, u64, Shift)> {
        self.all().find_map(|span| {
            let newest = if span.end == u64::MAX { self.last } else { span.end.checked_sub(1)? };
            let there = sequence.wrapping_add(span.shift.sequence);
            let behind = u64::from((newest as u16).wrapping_sub(there));
            let index = newest.checked_sub(behind)?;
            (index >= span.start && behind < 0x8000).then_some((span.layer, index, span.shift))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shift(sequence: u16) -> Shift {
        Shift { sequence, ..Shift::default() }
    }

    #[test]
    fn late_packets_find_the_span_that_was_valid_for_them() {
        let mut spans = Spans::default();
        spans.begin(0, 100, shift(40));
        spans.forwarded(105);
        spans.skip(106);
        spans.skip(107);
        spans.forwarded(109);
        assert_eq!(spans.find(0, 103), Some(shift(40)));
        assert_eq!(spans.find(0, 106), None, "padding has no number");
        assert_eq!(spans.find(0, 108), Some(shift(42)));
        assert_eq!(spans.find(0, 99), None);
        assert_eq!(spans.find(1, 103), None);
        spans.begin(1, 500, shift(432));
        assert_eq!(spans.find(0, 104), Some(shift(40)));
        assert_eq!(spans.find(0, 110), None, "came after the switch");
    }

    #[test]
    fn requests_are_mapped_back_over_switches_and_wraps() {
        let mut spans = Spans::default();
        spans.begin(0, 65_530, shift(65_500));
        spans.forwarded(65_540);
        spans.begin(2, 7_000, shift(7_000u16.wrapping_sub(41)));
        spans.forwarded(7_003);
        assert_eq!(spans.source(35), Some((0, 65_535, shift(65_500))));
        assert_eq!(spans.source(40), Some((0, 65_540, shift(65_500))));
        assert_eq!(spans.source(41).map(|found| (found.0, found.1)), Some((2, 7_000)));
        assert_eq!(spans.source(45), None, "not sent yet");
        assert_eq!(spans.source(29), None, "never sent");
    }

    #[test]
    fn a_burst_of_padding_takes_one_span() {
        let mut spans = Spans::default();
        spans.begin(0, 0, shift(0));
        for at in 1..2_000 {
            spans.skip(at);
        }
        assert_eq!(spans.all().count(), 2);
        assert_eq!(spans.find(0, 2_000), Some(shift(1_999)));
        assert_eq!(spans.find(0, 0), Some(shift(0)));
    }

    #[test]
    fn a_closed_subscription_takes_nothing() {
        let mut spans = Spans::default();
        spans.begin(0, 10, shift(0));
        spans.end();
        assert_eq!(spans.open(), None);
        assert_eq!(spans.find(0, 11), None);
        assert!(spans.source(10).is_some());
    }
}
