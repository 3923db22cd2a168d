//! How the numbers of a publisher's packets map to those that one subscriber sees.
//!
//! A *span* is a run of one layer's packets. Within a plain span all packets are forwarded, and their
//! sequence numbers are shifted by one constant. Where packets are left out all the time (temporal
//! and spatial layers), a ring remembers for each number given away lately which packet it belongs
//! to; it is made when the first packet is left out, and serves all spans from then on.
//!
//! What follows a packet left out moves up, so that the subscriber sees no gap of our making. A packet
//! that is missing keeps a number for the case that it comes late. Older spans are kept for a
//! while, for late packets and for the subscriber's repair requests.

use super::frames::{Set, only};
use super::ladder::{LAYERS, Target};

/// Spans remembered besides the newest. Padding comes in bursts and a burst makes one span.
const REMEMBERED: usize = 32;
/// Numbers the ring remembers: a second of the fastest stream.
const RING: usize = 1_024;

/// Constants to subtract from a publisher's numbers, and what else is particular to a packet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Shift {
    /// Sequence number.
    pub(super) sequence: u16,
    /// Media clock.
    pub(super) timestamp: u32,
    /// Picture id of VP8 or VP9.
    pub(super) picture: u16,
    /// TL0PICIDX.
    pub(super) tl0: u8,
    /// KEYIDX.
    pub(super) key: u8,
    /// Frame number of the dependency descriptor.
    pub(super) frame: u16,
    /// The layers the subscriber got when the packet's number was given away.
    pub(super) limit: Limit,
    /// The packet is the last of its picture for this subscriber.
    pub(super) marked: bool,
    /// Only the number is used: the packet goes without payload.
    pub(super) empty: bool,
}

/// Spatial and temporal layer of a target, in one byte.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Limit(u8);

impl Limit {
    /// That of a target.
    pub(super) const fn of(target: Target) -> Self {
        Self(target.spatial * LAYERS as u8 + target.temporal)
    }

    /// Highest spatial layer.
    pub(super) const fn spatial(self) -> u8 {
        self.0 / LAYERS as u8
    }

    /// Highest temporal layer.
    pub(super) const fn temporal(self) -> u8 {
        self.0 % LAYERS as u8
    }

    /// As a target of whichever stream.
    pub(super) const fn target(self) -> Target {
        Target { stream: 0, spatial: self.spatial(), temporal: self.temporal() }
    }

    /// Spatial and temporal layer up to which a decoder may hope; our highest stands for all above.
    pub(super) fn reach(self) -> (u8, u8) {
        const HIGHEST: u8 = LAYERS as u8 - 1;
        let reach = |layer: u8| if layer == HIGHEST { u8::MAX } else { layer };
        (reach(self.spatial()), reach(self.temporal()))
    }

    /// As a set of one.
    pub(super) const fn set(self) -> Set {
        only(self.spatial(), self.temporal())
    }
}

#[derive(Clone, Copy, Debug)]
struct Span {
    layer: usize,
    /// Extended sequence number of its first packet.
    start: u64,
    /// One after its last; `u64::MAX` while it is open.
    end: u64,
    /// The number that its first packet has for the subscriber, extended.
    first: u64,
    /// One after the number of its last; known when it is closed.
    after: u64,
    /// Of all its packets; in the ring each has its own sequence, picture and limit.
    shift: Shift,
    /// Its packets are in the ring.
    mapped: bool,
}

impl Span {
    const fn is_open(&self) -> bool {
        self.end == u64::MAX
    }

    const fn holds(&self, layer: usize, index: u64) -> bool {
        self.layer == layer && self.start <= index && index < self.end
    }
}

/// Whose a number is.
#[derive(Clone, Copy, Debug, Default)]
struct Entry {
    /// Low bits of the extended sequence number.
    index: u32,
    picture: u16,
    limit: Limit,
    flags: u8,
}

impl Entry {
    const fn of(index: u64, shift: &Shift, flags: u8) -> Self {
        Self { index: index as u32, picture: shift.picture, limit: shift.limit, flags }
    }
}

const MARKED: u8 = 1;
const EMPTY: u8 = 2;

/// A packet that has a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Found {
    /// Its number, extended.
    number: u64,
    /// What becomes of it.
    pub(super) shift: Shift,
    mapped: bool,
}

/// The spans of one subscription.
#[derive(Debug)]
pub(super) struct Spans {
    /// Nearly all packets belong to it, so it lies with the subscription and not behind a pointer.
    newest: Option<Span>,
    /// The others, oldest first.
    older: Vec<Span>,
    /// Highest extended sequence number of the newest span that was decided about.
    last: u64,
    /// The number that is given away next, extended.
    next: u64,
    /// By number; empty until a packet is left out.
    ring: Vec<Entry>,
}

impl Spans {
    /// Nothing was forwarded; the first number follows `sequence`.
    pub(super) const fn new(sequence: u16) -> Self {
        Self {
            newest: None,
            older: Vec::new(),
            last: 0,
            // Numbers can be counted back from here.
            next: (1 << 16) + sequence as u64 + 1,
            ring: Vec::new(),
        }
    }

    /// Begins a span at the packet `index` of a layer, which gets the next number.
    pub(super) fn begin(&mut self, layer: usize, index: u64, shift: Shift, marked: bool) -> Shift {
        self.open(layer, index, shift);
        self.last = index.wrapping_sub(1);
        self.forward(index, marked)
    }

    /// The media clock is shifted otherwise from the packet `index` on, which follows the last one.
    pub(super) fn turn(&mut self, index: u64, timestamp: u32) {
        if let Some(open) = self.newest.filter(Span::is_open) {
            self.open(open.layer, index, Shift { timestamp, ..open.shift });
        }
    }

    /// Opens a span whose first packet is still to come.
    fn open(&mut self, layer: usize, start: u64, shift: Shift) {
        self.end();
        let sequence = (start as u16).wrapping_sub(self.next as u16);
        let shift = Shift { sequence, marked: false, empty: false, ..shift };
        let mapped = !self.ring.is_empty();
        let (first, end) = (self.next, u64::MAX);
        let span = Span { layer, start, end, first, after: first, shift, mapped };
        // A span that gave no number away need not be remembered.
        let before = self.newest.replace(span).filter(|before| before.first < self.next);
        if let Some(before) = before {
            if self.older.len() == REMEMBERED {
                self.older.remove(0);
            } else if self.older.is_empty() {
                self.older.reserve_exact(REMEMBERED);
            }
            self.older.push(before);
        }
    }

    /// Closes the newest span after the last packet that was decided about.
    pub(super) fn end(&mut self) {
        if let Some(open) = self.newest.as_mut().filter(|span| span.is_open()) {
            (open.end, open.after) = (self.last.wrapping_add(1), self.next);
        }
    }

    /// Forgets all closed spans of a layer.
    pub(super) fn forget(&mut self, layer: usize) {
        let stale = |span: &Span| span.layer == layer && !span.is_open();
        self.older.retain(|span| !stale(span));
        self.newest = self.newest.filter(|span| !stale(span));
    }

    /// Forgets all closed spans: their indexes mean other packets from now on.
    pub(super) fn forget_all(&mut self) {
        self.older.clear();
        self.newest = self.newest.filter(Span::is_open);
    }

    /// Highest extended sequence number decided about in the open span, and its shift.
    pub(super) fn current(&self) -> Option<(u64, Shift)> {
        let open = self.newest.filter(Span::is_open)?;
        Some((self.last, open.shift))
    }

    /// The newest packet of the open span is forwarded under the next number. What is missing before it
    /// keeps numbers of its own.
    pub(super) fn forward(&mut self, index: u64, marked: bool) -> Shift {
        let Some(open) = self.newest.filter(Span::is_open) else { return Shift::default() };
        if !open.mapped {
            self.next += index.wrapping_sub(self.last);
            self.last = index;
            return Shift { marked, ..open.shift };
        }
        self.reserve(index);
        let sequence = (index as u16).wrapping_sub(self.next as u16);
        self.put(Entry::of(index, &open.shift, if marked { MARKED } else { 0 }));
        self.last = index;
        Shift { sequence, marked, ..open.shift }
    }

    /// Gives numbers to what is missing before a packet of the open, mapped span.
    fn reserve(&mut self, index: u64) {
        let Some(open) = self.newest else { return };
        // The caller takes wider gaps for the end of a span; the ring need not hold more anyway.
        let first = (self.last + 1).max(index.saturating_sub(RING as u64));
        for index in first..index {
            self.put(Entry::of(index, &open.shift, 0));
        }
    }

    fn put(&mut self, entry: Entry) {
        if let Some(slot) = self.ring.get_mut(self.next as usize % RING) {
            *slot = entry;
        }
        self.next += 1;
    }

    /// The newest packet of the open span is left out: what follows moves up by one. With `reserve`,
    /// what is missing before it keeps its numbers; `picture` is the shift of the pictures after it.
    pub(super) fn leave_out(&mut self, index: u64, reserve: bool, picture: u16) {
        self.map(index, reserve);
        if let Some(open) = self.newest.as_mut() {
            open.shift.picture = picture;
        }
        self.last = index;
    }

    /// Spans from now on use the ring.
    pub(super) fn prepare(&mut self) {
        if self.ring.is_empty() {
            self.ring.resize(RING, Entry::default());
        }
    }

    /// From the packet `index` on (the next one, or one that is left out) the ring is used.
    fn map(&mut self, index: u64, reserve: bool) {
        let Some(open) = self.newest.filter(Span::is_open) else { return };
        if open.mapped {
            if reserve {
                self.reserve(index);
            }
            return;
        }
        self.prepare();
        if reserve {
            self.next += index - 1 - self.last;
            self.last = index - 1;
        }
        self.open(open.layer, index, open.shift);
    }

    /// Other layers are forwarded from the packet `index` on, which follows the last one.
    pub(super) fn limit(&mut self, index: u64, limit: Limit) {
        self.map(index, true);
        if let Some(open) = &mut self.newest {
            open.shift.limit = limit;
        }
    }

    /// The newest packet of the open span is nothing but padding: what follows moves up by one.
    pub(super) fn skip(&mut self, index: u64) {
        let Some(open) = self.newest.filter(Span::is_open) else { return };
        if open.mapped {
            return self.leave_out(index, true, open.shift.picture);
        }
        self.next += index - 1 - self.last;
        self.last = index - 1;
        self.open(open.layer, index + 1, open.shift);
        self.last = index;
    }

    /// The number of a packet and what becomes of it, if it belongs to what this subscriber gets.
    pub(super) fn find(&self, layer: usize, index: u64) -> Option<Found> {
        let span = self.all().find(|span| span.holds(layer, index))?;
        if !span.mapped {
            let number = span.first + (index - span.start);
            return Some(Found { number, shift: span.shift, mapped: false });
        }
        let (mut low, mut high) = (self.oldest().max(span.first), self.after(span));
        while low < high {
            let middle = low + (high - low) / 2;
            let entry = self.ring.get(middle as usize % RING)?;
            let behind = (index as u32).wrapping_sub(entry.index) as i32;
            match behind {
                0 => return Some(found(span, middle, index, entry)),
                1.. => low = middle + 1,
                _ => high = middle,
            }
        }
        None
    }

    /// The lowest number that the ring still remembers.
    const fn oldest(&self) -> u64 {
        self.next.saturating_sub(RING as u64)
    }

    /// A packet came late: it takes its number with or without its payload.
    pub(super) fn settle(&mut self, found: &Found, marked: bool, empty: bool) {
        if !found.mapped || found.number < self.oldest() {
            return;
        }
        if let Some(entry) = self.ring.get_mut(found.number as usize % RING) {
            let flags = [(marked, MARKED), (empty, EMPTY)];
            entry.flags |= flags.iter().filter(|(set, _)| *set).map(|(_, flag)| flag).sum::<u8>();
        }
    }

    /// Newest first.
    fn all(&self) -> impl Iterator<Item = &Span> {
        self.newest.iter().chain(self.older.iter().rev())
    }

    /// One after the number of a span's last packet.
    const fn after(&self, span: &Span) -> u64 {
        if span.is_open() { self.next } else { span.after }
    }

    /// The packet behind a number that the subscriber has seen or missed.
    pub(super) fn source(&self, sequence: u16) -> Option<(usize, u64, Shift)> {
        let newest = self.next - 1;
        let behind = u64::from((newest as u16).wrapping_sub(sequence));
        let number = newest.checked_sub(behind).filter(|_| behind < 0x8000)?;
        let holds = |span: &&Span| span.first <= number && number < self.after(span);
        let span = self.all().find(holds)?;
        if !span.mapped {
            return Some((span.layer, span.start + (number - span.first), span.shift));
        }
        if number < self.oldest() {
            return None;
        }
        let entry = self.ring.get(number as usize % RING)?;
        let last = if span.is_open() { self.last } else { span.end.checked_sub(1)? };
        let index = last.checked_sub(u64::from((last as u32).wrapping_sub(entry.index)))?;
        let found = found(span, number, index, entry);
        (index >= span.start).then_some((span.layer, index, found.shift))
    }
}

fn found(span: &Span, number: u64, index: u64, entry: &Entry) -> Found {
    let shift = Shift {
        sequence: (index as u16).wrapping_sub(number as u16),
        picture: entry.picture,
        limit: entry.limit,
        marked: entry.flags & MARKED != 0,
        empty: entry.flags & EMPTY != 0,
        ..span.shift
    };
    Found { number, shift, mapped: true }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sequence(spans: &Spans, layer: usize, index: u64) -> Option<u16> {
        let found = spans.find(layer, index)?;
        Some((index as u16).wrapping_sub(found.shift.sequence))
    }

    fn forward(spans: &mut Spans, index: u64) -> u16 {
        (index as u16).wrapping_sub(spans.forward(index, false).sequence)
    }

    #[test]
    fn late_packets_find_the_span_that_was_valid_for_them() {
        let mut spans = Spans::new(59);
        spans.begin(0, 100, Shift::default(), false);
        assert_eq!(forward(&mut spans, 105), 65);
        spans.skip(106);
        spans.skip(107);
        assert_eq!(forward(&mut spans, 109), 67);
        assert_eq!(sequence(&spans, 0, 103), Some(63));
        assert_eq!(sequence(&spans, 0, 106), None, "padding has no number");
        assert_eq!(sequence(&spans, 0, 108), Some(66));
        assert_eq!(sequence(&spans, 0, 99), None);
        assert_eq!(sequence(&spans, 1, 103), None);
        spans.begin(1, 500, Shift::default(), false);
        assert_eq!(sequence(&spans, 1, 500), Some(68));
        assert_eq!(sequence(&spans, 0, 104), Some(64));
        assert_eq!(sequence(&spans, 0, 110), None, "came after the switch");
    }

    #[test]
    fn requests_are_mapped_back_over_switches_and_wraps() {
        let mut spans = Spans::new(29);
        spans.begin(0, 65_530, Shift::default(), false);
        forward(&mut spans, 65_540);
        spans.begin(2, 7_000, Shift::default(), false);
        forward(&mut spans, 7_003);
        let source = |sequence| spans.source(sequence).map(|found| (found.0, found.1));
        assert_eq!(source(35), Some((0, 65_535)));
        assert_eq!(source(40), Some((0, 65_540)));
        assert_eq!(source(41), Some((2, 7_000)));
        assert_eq!(source(45), None, "not sent yet");
        assert_eq!(source(29), None, "never sent");
    }

    #[test]
    fn a_burst_of_padding_takes_one_span() {
        let mut spans = Spans::new(9);
        spans.begin(0, 0, Shift::default(), false);
        (1..2_000).for_each(|at| spans.skip(at));
        assert_eq!(spans.all().count(), 2);
        assert_eq!(forward(&mut spans, 2_000), 11);
        assert_eq!(sequence(&spans, 0, 0), Some(10));
    }

    #[test]
    fn a_closed_subscription_takes_nothing() {
        let mut spans = Spans::new(9);
        spans.begin(0, 10, Shift::default(), false);
        spans.end();
        assert_eq!(spans.current(), None);
        assert_eq!(spans.find(0, 11), None);
        assert!(spans.source(10).is_some());
    }

    #[test]
    fn what_is_left_out_for_long_leaves_no_gap_and_takes_one_span() {
        let mut spans = Spans::new(65_000);
        spans.begin(0, 1_000, Shift::default(), false);
        let mut expected = 65_001u16;
        for index in 1_001..9_000 {
            if index % 2 == 0 {
                expected = expected.wrapping_add(1);
                assert_eq!(forward(&mut spans, index), expected);
            } else {
                spans.leave_out(index, true, 0);
            }
        }
        assert!(spans.all().count() <= 3);
        let newest = spans.source(expected).unwrap();
        assert_eq!((newest.0, newest.1), (0, 8_998));
        let before = spans.source(expected.wrapping_sub(1_000)).unwrap();
        assert_eq!(before.1, 8_998 - 2_000);
        assert_eq!(sequence(&spans, 0, before.1), Some(expected.wrapping_sub(1_000)));
        assert_eq!(sequence(&spans, 0, 8_997), None, "left out");
        assert_eq!(spans.source(expected.wrapping_sub(1_100)), None, "too long ago");
    }

    #[test]
    fn the_missing_keep_their_numbers_with_what_was_valid_then() {
        let mut spans = Spans::new(99);
        let limit = |spatial, temporal| Limit::of(Target { stream: 0, spatial, temporal });
        let shift = Shift { picture: 5, limit: limit(0, 1), ..Shift::default() };
        spans.begin(0, 10, shift, false);
        spans.leave_out(11, true, 6);
        // 12 and 13 are missing.
        spans.leave_out(14, true, 7);
        spans.limit(15, limit(0, 2));
        let sent = spans.forward(15, false);
        assert_eq!((15u16.wrapping_sub(sent.sequence), sent.picture), (103, 7));
        let late = spans.find(0, 13).unwrap();
        assert_eq!(13u16.wrapping_sub(late.shift.sequence), 102);
        assert_eq!((late.shift.limit, late.shift.picture), (limit(0, 1), 6));
        spans.settle(&late, false, true);
        assert!(spans.source(102).unwrap().2.empty);
        assert!(!spans.source(101).unwrap().2.empty);
    }

    #[test]
    fn old_spans_keep_their_ring_over_switches() {
        let mut spans = Spans::new(0);
        spans.begin(0, 100, Shift::default(), false);
        spans.leave_out(101, true, 0);
        forward(&mut spans, 102);
        spans.begin(1, 500, Shift::default(), false);
        spans.leave_out(501, true, 0);
        forward(&mut spans, 502);
        let sources: Vec<_> =
            (1..=4).map(|at| spans.source(at).map(|found| (found.0, found.1))).collect();
        assert_eq!(sources, [Some((0, 100)), Some((0, 102)), Some((1, 500)), Some((1, 502))]);
        assert_eq!(sequence(&spans, 0, 102), Some(2));
        spans.forget(0);
        assert_eq!(spans.source(2), None);
        assert_eq!(sequence(&spans, 1, 502), Some(4));
    }
}
