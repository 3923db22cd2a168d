//! Redundant audio (RFC 2198): a packet that carries its own sound and those of packets before it.
//!
//! A redundant block names its age in media clock ticks, not the packet it repeats. Senders repeat
//! what they sent just before, so a block belongs to the packet that lies as many numbers back as
//! the block lies before the newest; [`blocks`] tells that distance, and who restores a packet has to
//! check it against the times of its neighbours.

/// Redundant blocks read from one packet, and written into one.
pub const MAX_OLD: usize = 3;
/// Redundant blocks a packet may name; more is nonsense.
const MAX_NAMED: usize = 8;
/// The greatest age that a block header can say (14 bits).
pub const MAX_OFFSET: u32 = 0x3FFF;
/// The greatest length that a block header can say (10 bits).
pub const MAX_LEN: usize = 0x3FF;
/// Payloads are not made larger than this, whatever the loss: nobody's path fragments it.
pub const MAX_PAYLOAD: usize = 1_100;
/// What silence is sent as; not worth repeating.
const SILENCE: usize = 2;

/// The sound of an earlier packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Old<'p> {
    /// Packets between it and the one that carries it, plus one.
    pub distance: u8,
    /// Its age in ticks of the media clock.
    pub offset: u32,
    /// Its payload; never empty.
    pub payload: &'p [u8],
}

/// Earlier sounds, in the order of a packet: oldest first.
pub type Olds<'p> = [Option<Old<'p>>; MAX_OLD];

/// The newest block; `None` when the packet contradicts itself.
#[must_use]
pub fn primary(payload: &[u8]) -> Option<&[u8]> {
    let (mut rest, mut skip) = (payload, 0usize);
    loop {
        let (&first, tail) = rest.split_first()?;
        if first & 0x80 == 0 {
            return tail.get(skip..);
        }
        let (header, tail) = rest.split_first_chunk::<4>()?;
        skip += usize::from(read_header(*header).1);
        rest = tail;
    }
}

/// The redundant blocks next to the newest, oldest first. Blocks of another payload type than the
/// newest (comfort noise), without age or without content are left out; of a packet that contradicts
/// itself there are none.
#[must_use]
pub fn blocks(payload: &[u8]) -> Olds<'_> {
    read_blocks(payload).unwrap_or_default()
}

fn read_blocks(payload: &[u8]) -> Option<Olds<'_>> {
    let mut named = 0usize;
    let mut headers = payload;
    while headers.first()? & 0x80 != 0 {
        headers = headers.get(4..)?;
        named += 1;
        if named > MAX_NAMED {
            return None;
        }
    }
    let (&payload_type, mut content) = headers.split_first()?;
    let mut headers = payload;
    let mut olds = Olds::default();
    for distance in (1..=named).rev() {
        let (header, rest) = headers.split_first_chunk::<4>()?;
        headers = rest;
        let (offset, len) = read_header(*header);
        let (block, rest) = content.split_at_checked(usize::from(len))?;
        content = rest;
        let [first, ..] = *header;
        let sound = first & 0x7F == payload_type && offset > 0 && !block.is_empty();
        if sound && let Some(place) = MAX_OLD.checked_sub(distance) {
            let old = Old { distance: distance as u8, offset, payload: block };
            olds.get_mut(place)?.replace(old);
        }
    }
    Some(olds)
}

/// Age and length in a block's header.
const fn read_header([_, a, b, c]: [u8; 4]) -> (u32, u16) {
    let [offset_high, offset_low] = [a as u32, b as u32];
    (offset_high << 6 | offset_low >> 2, ((b & 3) as u16) << 8 | c as u16)
}

/// Writes one payload type into all block headers: each client has its own numbers.
pub fn retype(payload: &mut [u8], payload_type: u8) {
    let mut rest = payload;
    while let Some((first, tail)) = rest.split_first_mut() {
        let more = *first & 0x80 != 0;
        *first = *first & 0x80 | payload_type & 0x7F;
        match tail.get_mut(3..) {
            Some(tail) if more => rest = tail,
            _ => return,
        }
    }
}

/// Appends a payload of the newest sound and of those before it that fit: not too old for their
/// header, and all together no more than [`MAX_PAYLOAD`], in which newer ones go first. Silence is
/// not repeated. Returns how many earlier sounds it carries.
pub fn write(out: &mut Vec<u8>, payload_type: u8, olds: &Olds<'_>, newest: &[u8]) -> usize {
    let mut room = MAX_PAYLOAD.saturating_sub(1 + newest.len());
    let mut taken = Olds::default();
    for (place, old) in taken.iter_mut().zip(olds).rev() {
        let fits = |old: &Old<'_>| {
            let len = old.payload.len();
            let worth = len > SILENCE && len <= MAX_LEN && len + 4 <= room;
            worth && (1..=MAX_OFFSET).contains(&old.offset)
        };
        *place = old.filter(fits);
        room -= place.map_or(0, |old| old.payload.len() + 4);
    }
    let payload_type = payload_type & 0x7F;
    let taken = taken.iter().flatten();
    for old in taken.clone() {
        let len = old.payload.len() as u32;
        out.push(0x80 | payload_type);
        let [_, rest @ ..] = (old.offset << 10 | len).to_be_bytes();
        out.extend_from_slice(&rest);
    }
    out.push(payload_type);
    for old in taken.clone() {
        out.extend_from_slice(old.payload);
    }
    out.extend_from_slice(newest);
    taken.count()
}

#[cfg(test)]
mod tests {
    use rand_chacha::rand_core::{Rng as _, SeedableRng as _};

    use super::*;

    /// Two old blocks of 2 and 3 bytes, and a newest of 4.
    const PACKET: [u8; 18] = [0xEF, 0, 0, 2, 0xEF, 0, 0, 3, 0x6F, 1, 1, 2, 2, 2, 3, 3, 3, 3];

    fn old(distance: u8, payload: &[u8]) -> Option<Old<'_>> {
        Some(Old { distance, offset: 960 * u32::from(distance), payload })
    }

    fn written(olds: &Olds<'_>, newest: &[u8]) -> (usize, Vec<u8>) {
        let mut out = Vec::new();
        (write(&mut out, 111, olds, newest), out)
    }

    #[test]
    fn the_newest_block_is_found() {
        assert_eq!(primary(&PACKET), Some(&[3u8; 4][..]));
        assert_eq!(primary(&[0x6F, 9]), Some(&[9u8][..]));
    }

    #[test]
    fn every_cut_is_survived() {
        for len in 0..PACKET.len() {
            let cut = &PACKET[..len];
            assert!(primary(cut).is_none_or(|block| block.len() < 4));
            let all: usize = blocks(cut).iter().flatten().map(|old| old.payload.len()).sum();
            assert!(all <= 5);
            retype(&mut cut.to_vec(), 96);
        }
    }

    #[test]
    fn payload_types_are_changed_and_nothing_else() {
        let mut packet = PACKET;
        retype(&mut packet, 96);
        assert_eq!([packet[0], packet[4], packet[8]], [0xE0, 0xE0, 0x60]);
        retype(&mut packet, 0x6F);
        assert_eq!(packet, PACKET);
    }

    #[test]
    fn what_is_written_is_read_again() {
        let olds = [old(3, &[3; 70]), old(2, &[2; 80]), old(1, &[1; 90])];
        let (carried, packet) = written(&olds, &[9; 100]);
        assert_eq!((carried, packet.len()), (3, 3 * 4 + 1 + 340));
        assert_eq!(blocks(&packet), olds);
        assert_eq!(primary(&packet), Some(&[9; 100][..]));
        let (carried, packet) = written(&Olds::default(), &[9]);
        assert_eq!((carried, &*packet), (0, &[111, 9][..]));
    }

    #[test]
    fn what_a_header_cannot_say_is_left_out() {
        let long = [7; MAX_LEN + 1];
        let ancient = Old { distance: 3, offset: MAX_OFFSET + 1, payload: &[1; 9] };
        let oldest = Some(Old { offset: MAX_OFFSET, ..ancient });
        assert_eq!(written(&[Some(ancient), old(2, &long), old(1, &[1, 2])], &[9]).0, 0);
        let (carried, packet) = written(&[oldest, None, old(1, &long[..MAX_LEN])], &[9]);
        assert_eq!(carried, 2);
        // Its distance is that of its place: a header does not say more.
        let oldest = oldest.map(|old| Old { distance: 2, ..old });
        assert_eq!(blocks(&packet), [None, oldest, old(1, &long[..MAX_LEN])]);
    }

    #[test]
    fn newer_sounds_go_first_where_not_all_fit() {
        let big = [5; 400];
        let (carried, packet) = written(&[old(3, &big), old(2, &big), old(1, &big)], &[9; 200]);
        assert_eq!(carried, 2);
        assert!(packet.len() <= MAX_PAYLOAD);
        assert_eq!(blocks(&packet)[1..], [old(2, &big), old(1, &big)]);
        assert_eq!(written(&[None, None, old(1, &big)], &[9; 1_200]).0, 0);
    }

    #[test]
    fn blocks_of_another_kind_are_no_sound() {
        // The older block is comfort noise, the other has no age.
        let packet = [0x80 | 13, 0x0F, 0x00, 1, 0x80 | 111, 0, 0, 1, 111, 1, 2, 3];
        assert_eq!(blocks(&packet), [None; 3]);
        assert_eq!(primary(&packet), Some(&[3][..]));
    }

    #[test]
    fn hostile_packets_end_nothing() {
        let mut rng = crate::core::Rng::from_seed([5; 32]);
        let olds = [old(3, &[3; 70]), old(2, &[2; 80]), old(1, &[1; 90])];
        let (_, whole) = written(&olds, &[9; 100]);
        for round in 0..200_000u32 {
            let mut packet = match round % 3 {
                0 => whole.clone(),
                1 => vec![0xFF; rng.next_u32() as usize % 64],
                _ => vec![0; rng.next_u32() as usize % 200],
            };
            for _ in 0..1 + round % 8 {
                let len = packet.len().max(1);
                if let Some(byte) = packet.get_mut(rng.next_u32() as usize % len) {
                    *byte = rng.next_u32() as u8;
                }
            }
            packet.truncate(rng.next_u32() as usize % (packet.len() + 1));
            let read = blocks(&packet);
            let all: usize = read.iter().flatten().map(|old| old.payload.len()).sum();
            assert!(all <= packet.len());
            let distances: Vec<u8> = read.iter().flatten().map(|old| old.distance).collect();
            assert!(distances.windows(2).all(|pair| pair[0] > pair[1]));
            let _ = primary(&packet);
            retype(&mut packet, 96);
        }
    }
}
