//! VP8 payload descriptors: what of them is rewritten at a layer switch.

/// The VP8 payload descriptor (RFC 7741 §4.2). Offsets count from the start of the payload, and the
/// bytes they name are there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Vp8 {
    /// Offset, value, and whether it has 15 bits (else 7).
    pub picture_id: Option<(usize, u16, bool)>,
    /// Offset and value.
    pub tl0_picture_index: Option<(usize, u8)>,
    /// Temporal layer.
    pub temporal: Option<u8>,
    /// Y: predicts from the base layer alone, so a receiver may take its temporal layer from here.
    pub layer_sync: bool,
    /// Offset and value (5 bits) of the keyframe counter.
    pub key_index: Option<(usize, u8)>,
    /// N: no other frame predicts from this one, so it can be dropped.
    pub non_reference: bool,
    /// First packet of a frame.
    pub starts_frame: bool,
    /// First packet of a keyframe.
    pub keyframe_start: bool,
}

impl Vp8 {
    /// Reads the descriptor; `None` when the payload ends inside it.
    #[must_use]
    pub fn parse(payload: &[u8]) -> Option<Self> {
        let first = *payload.first()?;
        let mut found = Self { non_reference: first & 0x20 != 0, ..Self::default() };
        let mut at = 1;
        if first & 0x80 != 0 {
            let fields = *payload.get(at)?;
            at += 1;
            if fields & 0x80 != 0 {
                let high = *payload.get(at)?;
                let wide = high & 0x80 != 0;
                let value = if wide {
                    u16::from_be_bytes([high & 0x7F, *payload.get(at + 1)?])
                } else {
                    u16::from(high)
                };
                found.picture_id = Some((at, value, wide));
                at += if wide { 2 } else { 1 };
            }
            if fields & 0x40 != 0 {
                found.tl0_picture_index = Some((at, *payload.get(at)?));
                at += 1;
            }
            if fields & 0x30 != 0 {
                let byte = *payload.get(at)?;
                if fields & 0x20 != 0 {
                    found.temporal = Some(byte >> 6);
                    found.layer_sync = byte & 0x20 != 0;
                }
                found.key_index = (fields & 0x10 != 0).then_some((at, byte & 0x1F));
                at += 1;
            }
        }
        // Start of partition 0, and the inverse key frame bit of the frame header is 0.
        found.starts_frame = first & 0x10 != 0 && first & 0x07 == 0;
        found.keyframe_start =
            found.starts_frame && payload.get(at).is_some_and(|byte| byte & 1 == 0);
        Some(found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn vp8_offsets_point_at_the_fields() {
        let all = [0x90, 0xE0, 0x93, 0x21, 0x44, 0x60, 0x00, 1];
        let found = Vp8::parse(&all).unwrap();
        assert_eq!(found.picture_id, Some((2, 0x1321, true)));
        assert_eq!(found.tl0_picture_index, Some((4, 0x44)));
        assert_eq!(found.temporal, Some(1));
        assert!(found.keyframe_start);
        let short = Vp8::parse(&[0x90, 0x80, 0x7F, 0x01]).unwrap();
        assert_eq!(short.picture_id, Some((2, 0x7F, false)));
        assert!(!short.keyframe_start, "an interframe");
        assert_eq!(short.temporal, None);
        assert!(Vp8::parse(&[0x10, 0x00]).unwrap().keyframe_start, "no extension at all");
        assert!(!Vp8::parse(&[0x00, 0x00]).unwrap().keyframe_start, "not the frame's start");
        assert!(!Vp8::parse(&[0x11, 0x00]).unwrap().keyframe_start, "not the first partition");
        for cut in 0..6 {
            assert_eq!(Vp8::parse(&all[..cut]), None, "cut at {cut}");
        }
        assert!(found.layer_sync && !found.non_reference && found.key_index.is_none());
        let bits = Vp8::parse(&[0xB0, 0x30, 0xB5, 0x01]).unwrap();
        assert!(bits.non_reference && bits.layer_sync && bits.starts_frame);
        assert_eq!((bits.temporal, bits.key_index), (Some(2), Some((2, 0x15))));
        let counter = Vp8::parse(&[0x80, 0x10, 0xF5, 0x01]).unwrap();
        assert_eq!((counter.temporal, counter.key_index), (None, Some((2, 0x15))));
        assert!(!counter.layer_sync && !counter.starts_frame);
        assert!(!Vp8::parse(&all[..6]).unwrap().keyframe_start);
    }
}
