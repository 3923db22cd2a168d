//! H.264 payloads (RFC 6184): where a keyframe starts.

const IDR: u8 = 5;
const SPS: u8 = 7;
const STAP_A: u8 = 24;
const FU_A: u8 = 28;

/// A parameter set or the first slice of an IDR picture, alone, aggregated or fragmented.
pub(super) fn keyframe_start(payload: &[u8]) -> bool {
    let Some((&first, rest)) = payload.split_first() else { return false };
    match first & 0x1F {
        STAP_A => {
            let mut rest = rest;
            while let Some((size, tail)) = rest.split_first_chunk() {
                let size = usize::from(u16::from_be_bytes(*size));
                let Some((unit, tail)) = tail.split_at_checked(size) else { return false };
                if unit.split_first().is_some_and(|(kind, body)| starts(*kind, body)) {
                    return true;
                }
                rest = tail;
            }
            false
        }
        FU_A => rest
            .split_first()
            .is_some_and(|(&header, body)| header & 0x80 != 0 && starts(header, body)),
        _ => starts(first, rest),
    }
}

fn starts(kind: u8, body: &[u8]) -> bool {
    match kind & 0x1F {
        SPS => true,
        // first_mb_in_slice is an exponential Golomb code; 0 is the single bit 1.
        IDR => body.first().is_some_and(|byte| byte & 0x80 != 0),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::keyframe_start as starts;

    #[test]
    fn h264_keyframes_are_seen_in_every_packaging() {
        assert!(starts(&[0x67, 1]) && starts(&[0x65, 0x88]));
        assert!(!starts(&[0x65, 0x40]), "a later slice of the picture");
        assert!(!starts(&[0x41, 0x88]) && !starts(&[0x68]) && !starts(&[]));
        assert!(starts(&[0x78, 0, 2, 0x09, 0x10, 0, 2, 0x67, 0x42, 0, 1, 0x68]));
        assert!(!starts(&[0x78, 0, 1, 0x68, 0, 2, 0x41, 0x9A]));
        assert!(!starts(&[0x78, 0, 9, 0x67]), "a unit longer than the packet");
        assert!(starts(&[0x7C, 0x85, 0xB8]) && starts(&[0x7C, 0x87]));
        assert!(!starts(&[0x7C, 0x05, 0xB8]), "a middle fragment");
        assert!(!starts(&[0x7C, 0x81, 0xB8]) && !starts(&[0x7C]));
    }
}
