//! Frames put together from packets, and whether they can be decoded.

use std::time::Instant;

use bedside_sfu::core::codec::{Codec, Vp8};

/// Packets remembered.
const RING: u64 = 2048;

/// One packet of a video track, as far as frames go.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Piece {
    pub(crate) timestamp: u32,
    /// First packet of its frame, as its codec says; `None`: the codec does not say.
    pub(crate) begins: Option<bool>,
    /// Last packet of its frame.
    pub(crate) ends: bool,
    /// Begins a frame that needs no other.
    pub(crate) key: bool,
    pub(crate) picture: Picture,
    /// Of a keyframe whose codec we read; 0 = not known.
    pub(crate) height: u16,
    /// It came again because it was asked for.
    pub(crate) repaired: bool,
    /// Nothing in it: it only keeps the numbers together.
    pub(crate) filler: bool,
}

/// What a payload descriptor says of the place of a frame among others.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Picture {
    /// Picture id, and how many bits it has.
    pub(crate) id: Option<(u16, u32)>,
    /// Number of the last frame of the lowest temporal layer.
    pub(crate) base: Option<u8>,
    pub(crate) temporal: u8,
    /// Needs only the lowest temporal layer.
    pub(crate) syncs: bool,
}

impl Piece {
    /// Reads a packet's payload.
    pub(crate) fn read(codec: Codec, payload: &[u8], descriptor: Option<&[u8]>) -> Self {
        if payload.is_empty() {
            return Self { filler: true, ..Self::default() };
        }
        let key = bedside_sfu::core::codec::keyframe_start(codec, payload, descriptor);
        let mut piece = Self { key, ..Self::default() };
        if codec == Codec::Vp8
            && let Some(vp8) = Vp8::parse(payload)
        {
            piece.begins = payload.first().map(|first| first & 0x17 == 0x10);
            piece.picture = Picture {
                id: vp8.picture_id.map(|(_, id, wide)| (id, if wide { 15 } else { 7 })),
                base: vp8.tl0_picture_index.map(|(_, base)| base),
                temporal: vp8.temporal.unwrap_or(0),
                syncs: vp8_syncs(payload),
            };
            piece.height = if key { vp8_height(payload) } else { 0 };
        } else if let Some(first) = descriptor.and_then(<[u8]>::first) {
            piece.begins = Some(first & 0x80 != 0);
        }
        piece
    }
}

/// The Y bit of the VP8 payload descriptor (RFC 7741 §4.2).
fn vp8_syncs(payload: &[u8]) -> bool {
    let Some(fields) =
        payload.get(1).filter(|_| payload.first().is_some_and(|byte| byte & 0x80 != 0))
    else {
        return false;
    };
    let wide = payload.get(2).is_some_and(|byte| byte & 0x80 != 0);
    let id = if fields & 0x80 == 0 { 0 } else { 1 + usize::from(wide) };
    let at = 2 + id + usize::from(fields & 0x40 != 0);
    fields & 0x20 != 0 && payload.get(at).is_some_and(|byte| byte & 0x20 != 0)
}

/// The height in the header of a keyframe (RFC 6386 §9.1).
fn vp8_height(payload: &[u8]) -> u16 {
    let start = payload.windows(3).take(12).position(|bytes| bytes == [0x9D, 0x01, 0x2A]);
    let found = start.and_then(|at| payload.get(at + 5..at + 7)?.first_chunk().copied());
    found.map_or(0, |height| u16::from_le_bytes(height) & 0x3FFF)
}

/// A frame whose packets are all there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Frame {
    /// First and last packet.
    pub(crate) packets: (u64, u64),
    pub(crate) timestamp: u32,
    pub(crate) key: bool,
    pub(crate) picture: Picture,
    pub(crate) height: u16,
    /// A packet of it had to be sent again.
    pub(crate) repaired: bool,
    pub(crate) complete: Instant,
}

/// Puts frames together.
#[derive(Debug)]
pub(crate) struct Assembler {
    ring: Box<[Option<(u64, Piece)>]>,
}

impl Assembler {
    pub(crate) fn new() -> Self {
        Self { ring: vec![None; RING as usize].into_boxed_slice() }
    }

    fn get(&self, sequence: u64) -> Option<Piece> {
        let slot = self.ring.get((sequence % RING) as usize)?.as_ref();
        slot.filter(|(number, _)| *number == sequence).map(|(_, piece)| *piece)
    }

    /// Takes a packet; `complete` gets the frames that it completes: its own, or, where only the end
    /// of one frame tells where the next begins, that one, too.
    pub(crate) fn insert(
        &mut self,
        now: Instant,
        sequence: u64,
        piece: Piece,
        mut complete: impl FnMut(Frame),
    ) {
        if let Some(slot) = self.ring.get_mut((sequence % RING) as usize) {
            *slot = Some((sequence, piece));
        }
        if !piece.filler
            && let Some(frame) = self.around(now, sequence)
        {
            complete(frame);
        }
        if (piece.ends || piece.filler)
            && self.get(sequence + 1).is_some_and(|next| !next.filler && next.begins.is_none())
            && let Some(frame) = self.around(now, sequence + 1)
        {
            complete(frame);
        }
    }

    /// The frame of this packet, if all of it is there.
    fn around(&self, now: Instant, sequence: u64) -> Option<Frame> {
        let middle = self.get(sequence)?;
        let mut first = sequence;
        let start = loop {
            let piece = self.get(first).filter(|piece| piece.timestamp == middle.timestamp)?;
            let before = self.get(first.checked_sub(1)?);
            let begins = piece.begins.unwrap_or_else(|| {
                before.is_some_and(|before| before.ends || before.filler) || piece.key
            });
            // A frame that spans several payloads which all say that they begin one (spatial layers)
            // begins with the first of its time.
            let more = before.is_some_and(|before| {
                !before.filler && before.timestamp == middle.timestamp && !before.ends
            });
            if begins && !more {
                break piece;
            }
            first -= 1;
        };
        let mut last = sequence;
        while !self.get(last)?.ends {
            last += 1;
            self.get(last).filter(|piece| piece.timestamp == middle.timestamp)?;
        }
        let mut pieces = (first..=last).filter_map(|number| self.get(number));
        Some(Frame {
            packets: (first, last),
            timestamp: middle.timestamp,
            key: start.key,
            picture: start.picture,
            height: start.height,
            repaired: pieces.any(|piece| piece.repaired),
            complete: now,
        })
    }

    /// Whether nothing but fillers lies between two packets.
    pub(crate) fn adjoins(&self, last: u64, first: u64) -> bool {
        first > last
            && first - last < RING
            && (last + 1..first).all(|number| self.get(number).is_some_and(|piece| piece.filler))
    }
}

/// What has been decoded, as far as it decides what can be decoded next.
#[derive(Debug, Default)]
pub(crate) struct Chain {
    /// The last decoded frame's last packet.
    last: Option<u64>,
    /// The last decoded frame of the lowest temporal layer: its number there.
    base: Option<u8>,
    /// All pictures from that one up to this id were decoded.
    unbroken: Option<u16>,
}

impl Chain {
    /// Whether a frame can be decoded now.
    pub(crate) fn takes(&self, frame: &Frame, assembler: &Assembler) -> bool {
        if frame.key {
            return true;
        }
        let Some(last) = self.last else { return false };
        let (Some(base), Some((id, bits))) = (frame.picture.base, frame.picture.id) else {
            // Without numbers of their own frames need the one before them.
            return assembler.adjoins(last, frame.packets.0);
        };
        let follows = self.unbroken.is_some_and(|last| id == next(last, bits));
        match frame.picture.temporal {
            0 => self.base.is_some_and(|last| base == last.wrapping_add(1)),
            _ => self.base == Some(base) && (frame.picture.syncs || follows),
        }
    }

    /// Takes note of a decoded frame.
    pub(crate) fn decoded(&mut self, frame: &Frame) {
        self.last = Some(frame.packets.1);
        let Some((id, bits)) = frame.picture.id else { return };
        let follows = self.unbroken.is_some_and(|last| id == next(last, bits));
        if frame.picture.temporal == 0 {
            self.base = frame.picture.base;
            self.unbroken = Some(id);
        } else if follows {
            self.unbroken = Some(id);
        }
    }
}

const fn next(id: u16, bits: u32) -> u16 {
    id.wrapping_add(1) & ((1 << bits) - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn piece(frame: u32, begins: bool, ends: bool) -> Piece {
        Piece { timestamp: frame * 4500, begins: Some(begins), ends, ..Piece::default() }
    }

    fn insert(assembler: &mut Assembler, sequence: u64, piece: Piece) -> Vec<(u64, u64)> {
        let mut frames = Vec::new();
        assembler.insert(Instant::now(), sequence, piece, |frame| frames.push(frame.packets));
        frames
    }

    #[test]
    fn a_frame_is_complete_with_its_last_packet_in_any_order() {
        let mut assembler = Assembler::new();
        assert!(insert(&mut assembler, 12, piece(1, false, true)).is_empty());
        assert!(insert(&mut assembler, 10, piece(1, true, false)).is_empty());
        assert_eq!(insert(&mut assembler, 11, piece(1, false, false)), [(10, 12)]);
        assert_eq!(insert(&mut assembler, 13, piece(2, true, true)), [(13, 13)]);
        assert!(insert(&mut assembler, 15, piece(3, false, true)).is_empty());
    }

    #[test]
    fn where_the_codec_does_not_say_a_frame_begins_after_the_last_one() {
        let mut assembler = Assembler::new();
        let of = |frame, ends| Piece { begins: None, ..piece(frame, false, ends) };
        assert_eq!(insert(&mut assembler, 1, Piece { key: true, ..of(1, true) }), [(1, 1)]);
        assert!(insert(&mut assembler, 3, of(2, true)).is_empty());
        assert_eq!(insert(&mut assembler, 2, of(2, false)), [(2, 3)]);
        assert!(insert(&mut assembler, 6, of(4, true)).is_empty(), "the one before is missing");
        assert!(insert(&mut assembler, 5, Piece { filler: true, ..Piece::default() }) == [(6, 6)]);
        assert_eq!(insert(&mut assembler, 4, of(3, true)), [(4, 4)]);
    }

    #[test]
    fn spatial_layers_of_one_time_are_one_frame() {
        let mut assembler = Assembler::new();
        assert!(insert(&mut assembler, 1, piece(1, true, false)).is_empty());
        assert!(insert(&mut assembler, 2, piece(1, true, false)).is_empty());
        assert_eq!(insert(&mut assembler, 3, piece(1, true, true)), [(1, 3)]);
    }

    fn frame(id: u16, base: u8, temporal: u8, syncs: bool) -> Frame {
        let number = u64::from(id);
        Frame {
            packets: (number, number),
            timestamp: u32::from(id) * 4500,
            key: false,
            picture: Picture { id: Some((id, 15)), base: Some(base), temporal, syncs },
            height: 0,
            repaired: false,
            complete: Instant::now(),
        }
    }

    #[test]
    fn temporal_layers_need_what_they_are_made_from() {
        let assembler = Assembler::new();
        let mut chain = Chain::default();
        assert!(!chain.takes(&frame(1, 1, 0, false), &assembler), "nothing was decoded yet");
        chain.decoded(&Frame { key: true, ..frame(0x7FFE, 255, 0, false) });
        assert!(chain.takes(&frame(0x7FFF, 255, 2, true), &assembler));
        assert!(chain.takes(&frame(0, 255, 1, true), &assembler), "needs the lowest only");
        assert!(!chain.takes(&frame(1, 255, 2, false), &assembler), "one before it is missing");
        assert!(chain.takes(&frame(2, 0, 0, false), &assembler), "the next of the lowest");
        assert!(!chain.takes(&frame(6, 1, 0, false), &assembler), "one of the lowest is missing");
        assert!(!chain.takes(&frame(3, 0, 2, true), &assembler), "its lowest is missing");
        chain.decoded(&frame(0x7FFF, 255, 2, true));
        chain.decoded(&frame(0, 255, 1, true));
        assert!(chain.takes(&frame(1, 255, 2, false), &assembler));
    }

    #[test]
    fn without_numbers_nothing_may_be_missing() {
        let mut assembler = Assembler::new();
        let mut chain = Chain::default();
        let plain = |number| Frame { picture: Picture::default(), ..frame(number, 0, 0, false) };
        chain.decoded(&Frame { key: true, ..plain(1) });
        assert!(chain.takes(&plain(2), &assembler) && !chain.takes(&plain(3), &assembler));
        insert(&mut assembler, 2, Piece { filler: true, ..Piece::default() });
        assert!(chain.takes(&plain(3), &assembler));
    }

    #[test]
    fn the_descriptor_of_vp8_is_read() {
        let read = |payload: &[u8]| Piece::read(Codec::Vp8, payload, None);
        let full = read(&[0x90, 0xE0, 0x93, 0x21, 0x44, 0x60, 0x01]);
        let picture =
            Picture { id: Some((0x1321, 15)), base: Some(0x44), temporal: 1, syncs: true };
        assert_eq!((full.picture, full.begins, full.key), (picture, Some(true), false));
        assert!(!read(&[0x90, 0xE0, 0x93, 0x21, 0x44, 0x40, 0x01]).picture.syncs);
        assert!(read(&[0x90, 0xE0, 0x13, 0x44, 0x60, 0x01]).picture.syncs);
        assert_eq!(read(&[0x80, 0x80, 0x81, 0x01, 0x05]).begins, Some(false));
        assert!(read(&[0x10, 0x00]).key && read(&[]).filler);
        let key = [0x10, 0, 1, 2, 0x9D, 0x01, 0x2A, 0x80, 0x02, 0x68, 0x41];
        assert_eq!((read(&key).height, read(&key[..10]).height), (360, 0));
    }
}
