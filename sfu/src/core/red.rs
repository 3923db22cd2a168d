//! Redundant audio (RFC 2198): the newest block of a packet, and the payload types of its blocks.

/// The newest block; `None` when the packet contradicts itself.
pub(super) fn primary(payload: &[u8]) -> Option<&[u8]> {
    let (mut rest, mut skip) = (payload, 0usize);
    loop {
        let (&first, tail) = rest.split_first()?;
        if first & 0x80 == 0 {
            return tail.get(skip..);
        }
        let (header, tail) = rest.split_first_chunk::<4>()?;
        let [_, _, high, low] = *header;
        skip += usize::from(u16::from_be_bytes([high, low]) & 0x3FF);
        rest = tail;
    }
}

/// Writes one payload type into all block headers: each client has its own numbers.
pub(super) fn retype(payload: &mut [u8], payload_type: u8) {
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

#[cfg(test)]
mod tests {
    use super::*;

    /// Two old blocks of 2 and 3 bytes, and a newest of 4.
    const PACKET: [u8; 18] = [0xEF, 0, 0, 2, 0xEF, 0, 0, 3, 0x6F, 1, 1, 2, 2, 2, 3, 3, 3, 3];

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
}
