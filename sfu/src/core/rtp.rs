//! RTP packets (RFC 3550 §5, RFC 8285): reading in place and writing headers.
//!
//! Total functions on byte slices. What a packet claims about its own lengths is checked once, here;
//! nothing in this file allocates, and nothing panics on any input.

/// Smallest RTP header.
pub const MIN_HEADER: usize = 12;
/// RFC 8285 §4.2: one-byte extension elements.
const ONE_BYTE: u16 = 0xBEDE;
/// RFC 8285 §4.3: two-byte extension elements; the low four bits are application bits.
const TWO_BYTE: u16 = 0x1000;

/// The fields of a header that forwarding needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Last packet of a frame (video) or first of a talk spurt (audio).
    pub marker: bool,
    /// Payload type.
    pub payload_type: u8,
    /// Sequence number.
    pub sequence: u16,
    /// Media clock.
    pub timestamp: u32,
    /// Synchronisation source.
    pub ssrc: u32,
    /// Length including CSRCs and extensions.
    pub len: usize,
    /// The packet ends in padding.
    pub padding: bool,
}

impl Header {
    /// Reads the header, or `None` when the packet is not RTP or shorter than it says.
    #[must_use]
    pub fn parse(packet: &[u8]) -> Option<Self> {
        let len = header_len(packet)?;
        let fixed: &[u8; MIN_HEADER] = packet.first_chunk()?;
        let [first, second, s0, s1, t0, t1, t2, t3, c0, c1, c2, c3] = *fixed;
        Some(Self {
            marker: second & 0x80 != 0,
            payload_type: second & 0x7F,
            sequence: u16::from_be_bytes([s0, s1]),
            timestamp: u32::from_be_bytes([t0, t1, t2, t3]),
            ssrc: u32::from_be_bytes([c0, c1, c2, c3]),
            len,
            padding: first & 0x20 != 0,
        })
    }
}

/// Length of the header with CSRCs and extension block; `None` when the packet is shorter than that.
#[must_use]
pub fn header_len(packet: &[u8]) -> Option<usize> {
    let first = *packet.first()?;
    if first >> 6 != 2 {
        return None;
    }
    let mut len = csrc_end(first);
    if first & 0x10 != 0 {
        let words = be16(packet.get(len + 2..len + 4)?)?;
        len += 4 + 4 * usize::from(words);
    }
    (packet.len() >= len).then_some(len)
}

/// The header extension elements of a packet; empty when it has none or is malformed.
#[must_use]
pub fn extensions(packet: &[u8]) -> Extensions<'_> {
    extension_block(packet).unwrap_or(Extensions { rest: &[], two_byte: false })
}

fn extension_block(packet: &[u8]) -> Option<Extensions<'_>> {
    let first = *packet.first()?;
    if first >> 6 != 2 || first & 0x10 == 0 {
        return None;
    }
    let at = csrc_end(first);
    let profile = be16(packet.get(at..at + 2)?)?;
    let words = usize::from(be16(packet.get(at + 2..at + 4)?)?);
    let rest = packet.get(at + 4..at + 4 + 4 * words)?;
    match profile {
        ONE_BYTE => Some(Extensions { rest, two_byte: false }),
        profile if profile & 0xFFF0 == TWO_BYTE => Some(Extensions { rest, two_byte: true }),
        _ => None,
    }
}

/// Iterator over header extension elements, `(id, value)`.
#[derive(Clone, Debug)]
pub struct Extensions<'p> {
    rest: &'p [u8],
    two_byte: bool,
}

impl<'p> Iterator for Extensions<'p> {
    type Item = (u8, &'p [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let (&first, tail) = self.rest.split_first()?;
            if first == 0 {
                self.rest = tail;
                continue;
            }
            let (id, len, tail) = if self.two_byte {
                let (&len, tail) = tail.split_first()?;
                (first, usize::from(len), tail)
            } else {
                (first >> 4, usize::from(first & 15) + 1, tail)
            };
            // RFC 8285 §4.2: id 15 ends a one-byte block, whatever follows.
            if !self.two_byte && id == 15 {
                self.rest = &[];
                return None;
            }
            let Some((value, tail)) = tail.split_at_checked(len) else {
                self.rest = &[];
                return None;
            };
            self.rest = tail;
            // A one-byte element with id 0 and a length is padding that says so clumsily.
            if id != 0 {
                return Some((id, value));
            }
        }
    }
}

/// The payload without padding; `None` when the padding is longer than what there is.
#[must_use]
pub fn payload<'p>(packet: &'p [u8], header: &Header) -> Option<&'p [u8]> {
    let body = packet.get(header.len..)?;
    if !header.padding {
        return Some(body);
    }
    let padding = usize::from(*body.last()?);
    if padding == 0 {
        return None;
    }
    body.get(..body.len().checked_sub(padding)?)
}

/// Appends a header and returns its length. The two-byte form is used only when an element needs it
/// (id above 14, a value longer than 16 bytes, or an empty value). Values longer than 255 bytes and
/// id 0 are left out: no element can carry them.
pub fn write_header(
    out: &mut Vec<u8>,
    marker: bool,
    payload_type: u8,
    sequence: u16,
    timestamp: u32,
    ssrc: u32,
    extensions: &[(u8, &[u8])],
) -> usize {
    let start = out.len();
    let fits = |(id, value): &&(u8, &[u8])| *id != 0 && value.len() <= 255;
    let mut elements = extensions.iter().filter(fits).peekable();
    let first = if elements.peek().is_some() { 0x90 } else { 0x80 };
    out.extend_from_slice(&[first, u8::from(marker) << 7 | payload_type & 0x7F]);
    out.extend_from_slice(&sequence.to_be_bytes());
    out.extend_from_slice(&timestamp.to_be_bytes());
    out.extend_from_slice(&ssrc.to_be_bytes());
    if elements.peek().is_none() {
        return out.len() - start;
    }
    let long = |(id, value): &(u8, &[u8])| *id > 14 || value.is_empty() || value.len() > 16;
    let two_byte = extensions.iter().filter(fits).any(long);
    let block = out.len();
    out.extend_from_slice(&if two_byte { TWO_BYTE } else { ONE_BYTE }.to_be_bytes());
    out.extend_from_slice(&[0, 0]);
    for (id, value) in elements {
        // `fits` and `two_byte` keep both casts and the shift exact.
        let len = value.len() as u8;
        if two_byte {
            out.extend_from_slice(&[*id, len]);
        } else {
            out.push(*id << 4 | (len - 1));
        }
        out.extend_from_slice(value);
    }
    let body = out.len() - block - 4;
    out.resize(block + 4 + body.next_multiple_of(4), 0);
    let words = body.div_ceil(4) as u16;
    if let Some(length) = out.get_mut(block + 2..block + 4) {
        length.copy_from_slice(&words.to_be_bytes());
    }
    out.len() - start
}

/// Sets the first header extension element of the packet at `start`, if it has this id and two bytes:
/// what [`write_header`] left room for, and is known only when the packet leaves.
pub fn set_first_extension(buffer: &mut [u8], start: usize, id: u8, value: u16) {
    let Some(packet) = buffer.get_mut(start..) else { return };
    let Some([first, ..]) = packet.first_chunk::<MIN_HEADER>() else { return };
    let block = csrc_end(*first);
    if first & 0x10 == 0 {
        return;
    }
    let Some([p0, p1, _, _, head, len, ..]) = packet.get(block..block + 8) else { return };
    let at = if u16::from_be_bytes([*p0, *p1]) == ONE_BYTE {
        (*head == id << 4 | 1).then_some(block + 5)
    } else {
        (*head == id && *len == 2).then_some(block + 6)
    };
    if let Some(place) = at.and_then(|at| packet.get_mut(at..at + 2)) {
        place.copy_from_slice(&value.to_be_bytes());
    }
}

/// Where the CSRC list of a packet with this first byte ends.
const fn csrc_end(first: u8) -> usize {
    MIN_HEADER + 4 * (first & 15) as usize
}

fn be16(bytes: &[u8]) -> Option<u16> {
    Some(u16::from_be_bytes(*bytes.first_chunk()?))
}

#[cfg(test)]
mod tests {
    use rand_chacha::rand_core::{Rng as _, SeedableRng as _};

    use super::*;

    fn packet(extensions: &[(u8, &[u8])], payload: &[u8]) -> Vec<u8> {
        let mut out = vec![0xEE; 3];
        let len = write_header(&mut out, true, 96, 65_535, 7, 0xDEAD_BEEF, extensions);
        assert_eq!(out.len(), 3 + len);
        out.drain(..3);
        out.extend_from_slice(payload);
        out
    }

    #[test]
    fn a_written_header_reads_back() {
        let short: &[(u8, &[u8])] = &[(1, b"0"), (3, &[1, 2]), (14, &[9; 16])];
        let bytes = packet(short, b"body");
        let header = Header::parse(&bytes).unwrap();
        assert!(header.marker && !header.padding);
        assert_eq!((header.payload_type, header.sequence), (96, 65_535));
        assert_eq!((header.timestamp, header.ssrc), (7, 0xDEAD_BEEF));
        assert_eq!(header.len % 4, 0);
        assert_eq!(bytes[12..14], [0xBE, 0xDE]);
        assert_eq!(extensions(&bytes).collect::<Vec<_>>(), short);
        assert_eq!(payload(&bytes, &header), Some(&b"body"[..]));
    }

    #[test]
    fn the_two_byte_form_is_used_where_it_must_be() {
        for long in [(15, &[1_u8][..]), (1, &[7; 17]), (200, &[8; 255]), (2, &[])] {
            let bytes = packet(&[(3, b"ab"), long], b"x");
            assert_eq!(bytes[12..14], [0x10, 0x00]);
            assert_eq!(extensions(&bytes).collect::<Vec<_>>(), [(3, &b"ab"[..]), long]);
        }
        assert_eq!(packet(&[], b"").len(), 12);
        assert_eq!(packet(&[(0, b"a"), (1, &[0; 256])], b"").len(), 12);
    }

    #[test]
    fn the_first_element_can_be_set_afterwards() {
        let long = [6; 20];
        for rest in [&[(5, &[6][..])][..], &[(5, &long[..])], &[]] {
            let elements = [&[(3, &[0, 0][..])][..], rest].concat();
            let mut bytes = vec![0xEE; 5];
            bytes.extend(packet(&elements, b"body"));
            let before = bytes.clone();
            set_first_extension(&mut bytes, 5, 4, 0x1234);
            assert_eq!(bytes, before, "another id");
            set_first_extension(&mut bytes, 5, 3, 0x1234);
            let expected = [&[(3, &[0x12, 0x34][..])][..], rest].concat();
            assert_eq!(extensions(&bytes[5..]).collect::<Vec<_>>(), expected);
            for cut in 0..30 {
                set_first_extension(&mut bytes[..cut], 5, 3, 0);
            }
        }
    }

    #[test]
    fn csrcs_and_padding_are_counted() {
        let mut bytes = vec![0xB2, 0x6F, 0, 1, 0, 0, 0, 2, 0, 0, 0, 3];
        bytes.extend([0xAA; 8]);
        bytes.extend([0xBE, 0xDE, 0, 1, 0x10, 0x85, 0, 0]);
        bytes.extend([1, 2, 3, 0, 0, 3]);
        let header = Header::parse(&bytes).unwrap();
        assert_eq!(header.len, 28);
        assert_eq!(extensions(&bytes).collect::<Vec<_>>(), [(1, &[0x85][..])]);
        assert_eq!(payload(&bytes, &header), Some(&[1, 2, 3][..]));
        // All padding is an empty payload; more than all is malformed, and so is none.
        for (last, expected) in [(6, Some(&[][..])), (7, None), (0, None)] {
            *bytes.last_mut().unwrap() = last;
            assert_eq!(payload(&bytes, &header), expected);
        }
    }

    #[test]
    fn elements_that_lie_about_their_length_end_the_walk() {
        let block = |profile: [u8; 2], body: [u8; 8]| {
            let mut bytes = vec![0x90, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
            bytes.extend(profile);
            bytes.extend([0, 2]);
            bytes.extend(body);
            bytes
        };
        let one = block([0xBE, 0xDE], [0x10, 1, 0, 0x2F, 1, 2, 3, 4]);
        assert_eq!(extensions(&one).collect::<Vec<_>>(), [(1, &[1][..])]);
        let stop = block([0xBE, 0xDE], [0x10, 1, 0xF0, 9, 0x20, 2, 0, 0]);
        assert_eq!(extensions(&stop).collect::<Vec<_>>(), [(1, &[1][..])]);
        let two = block([0x10, 0x0F], [7, 0, 8, 1, 5, 9, 200, 1]);
        assert_eq!(extensions(&two).collect::<Vec<_>>(), [(7, &[][..]), (8, &[5][..])]);
        assert_eq!(extensions(&block([0x12, 0x34], [1; 8])).count(), 0);
    }

    #[test]
    fn every_truncation_and_random_bytes_are_survived() {
        let whole = packet(&[(1, b"abc"), (4, &[5; 20])], b"payload");
        let full = header_len(&whole).unwrap();
        for cut in 0..whole.len() {
            let short = &whole[..cut];
            assert_eq!(header_len(short).is_some(), cut >= full);
            assert_eq!(Header::parse(short).is_some(), cut >= full);
            assert!(cut >= full || extensions(short).count() == 0);
        }
        let mut rng = crate::core::Rng::from_seed([1; 32]);
        for _ in 0..20_000 {
            let mut bytes = [0; 48];
            rng.fill_bytes(&mut bytes);
            bytes[0] = 0x80 | bytes[0] & 0x3F;
            let bytes = &bytes[..rng.next_u32() as usize % 49];
            let total: usize = extensions(bytes).map(|(_, value)| value.len()).sum();
            assert!(total <= bytes.len());
            if let Some(header) = Header::parse(bytes) {
                assert!(header.len <= bytes.len());
                let _ = payload(bytes, &header);
            }
        }
    }
}
