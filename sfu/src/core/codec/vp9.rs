//! VP9 payload descriptors (RFC 9628 §4.2), in flexible and non-flexible mode.

/// The VP9 payload descriptor. Offsets count from the start of the payload, and the bytes they name
/// are there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Vp9 {
    /// Offset, value, and whether it has 15 bits (else 7).
    pub picture_id: Option<(usize, u16, bool)>,
    /// Offset and value; only in non-flexible mode.
    pub tl0_picture_index: Option<(usize, u8)>,
    /// Spatial layer; 0 where the packet does not say.
    pub spatial: u8,
    /// Temporal layer; 0 where the packet does not say.
    pub temporal: u8,
    /// B: first packet of a layer frame.
    pub starts_frame: bool,
    /// E: last packet of a layer frame.
    pub ends_frame: bool,
    /// P: predicts from an earlier picture.
    pub inter_picture: bool,
    /// D: predicts from the spatial layer below, in the same picture.
    pub inter_layer: bool,
    /// U: from here on a receiver may take this temporal layer.
    pub switching_up: bool,
    /// Z: no higher spatial layer of the picture predicts from this one.
    pub not_for_upper: bool,
    /// F: the packet names the pictures it predicts from.
    pub flexible: bool,
    /// The layer indices are present.
    pub layered: bool,
    /// First packet of a keyframe: of the lowest layer, and predicts from nothing.
    pub keyframe_start: bool,
    /// V: what the stream is made of, as told with keyframes.
    pub structure: Option<Vp9Structure>,
    /// Length of the descriptor.
    pub length: usize,
}

/// The scalability structure, without its picture group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Vp9Structure {
    /// How many spatial layers there are, 1 to 8.
    pub spatial_layers: u8,
    /// Width and height by spatial layer.
    pub sizes: Option<[(u16, u16); 8]>,
}

/// At most three pictures are named in flexible mode.
const MAX_REFERENCES: usize = 3;

impl Vp9 {
    /// Reads the descriptor; `None` when the payload ends inside it or it contradicts itself.
    #[must_use]
    pub fn parse(payload: &[u8]) -> Option<Self> {
        let first = *payload.first()?;
        let has = |bit: u8| first & bit != 0;
        let mut found = Self {
            starts_frame: has(0x08),
            ends_frame: has(0x04),
            inter_picture: has(0x40),
            not_for_upper: has(0x01),
            flexible: has(0x10),
            layered: has(0x20),
            ..Self::default()
        };
        let mut at = 1;
        if has(0x80) {
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
        if found.layered {
            let layer = *payload.get(at)?;
            at += 1;
            found.temporal = layer >> 5;
            found.switching_up = layer & 0x10 != 0;
            found.spatial = layer >> 1 & 7;
            found.inter_layer = layer & 1 != 0;
            if !found.flexible {
                found.tl0_picture_index = Some((at, *payload.get(at)?));
                at += 1;
            }
        }
        if found.flexible && found.inter_picture {
            at = skip_references(payload, at)?;
        }
        if has(0x02) {
            let (structure, end) = read_structure(payload, at)?;
            (found.structure, at) = (Some(structure), end);
        }
        found.length = at;
        found.keyframe_start = found.starts_frame && !found.inter_picture && found.spatial == 0;
        Some(found)
    }
}

/// The end of the list of picture differences; its last entry says so.
fn skip_references(payload: &[u8], at: usize) -> Option<usize> {
    let list = payload.get(at..)?.iter().take(MAX_REFERENCES);
    let last = list.into_iter().position(|entry| entry & 1 == 0)?;
    Some(at + last + 1)
}

/// The scalability structure that begins at `at`, and where it ends.
fn read_structure(payload: &[u8], mut at: usize) -> Option<(Vp9Structure, usize)> {
    let first = *payload.get(at)?;
    at += 1;
    let spatial_layers = (first >> 5) + 1;
    let mut sizes = None;
    if first & 0x10 != 0 {
        let mut read = [(0, 0); 8];
        for size in read.iter_mut().take(usize::from(spatial_layers)) {
            let (bytes, _) = payload.get(at..)?.split_first_chunk::<4>()?;
            let [w1, w0, h1, h0] = *bytes;
            *size = (u16::from_be_bytes([w1, w0]), u16::from_be_bytes([h1, h0]));
            at += 4;
        }
        sizes = Some(read);
    }
    if first & 0x08 != 0 {
        let pictures = *payload.get(at)?;
        at += 1;
        for _ in 0..pictures {
            let references = *payload.get(at)? >> 2 & 3;
            at += 1 + usize::from(references);
        }
        payload.get(..at)?;
    }
    Some((Vp9Structure { spatial_layers, sizes }, at))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Non-flexible, 15-bit id, T1 S2, with all of a structure: 3 sizes and a group of 4 pictures.
    const FULL: [u8; 29] = [
        0xAE, 0x92, 0x34, 0x35, 0x77, 0x58, 0, 160, 0, 90, 1, 64, 0, 180, 2, 128, 1, 104, 4, 0x00,
        0x44, 1, 0x24, 2, 0x58, 1, 3, 0xAA, 0xBB,
    ];

    #[test]
    fn every_field_is_read_in_non_flexible_mode() {
        let found = Vp9::parse(&FULL).unwrap();
        assert_eq!(found.picture_id, Some((1, 0x1234, true)));
        assert_eq!(found.tl0_picture_index, Some((4, 0x77)));
        assert_eq!((found.spatial, found.temporal), (2, 1));
        assert!(found.starts_frame && found.ends_frame && found.layered && found.switching_up);
        assert!(found.inter_layer && !found.inter_picture && !found.flexible);
        assert!(!found.keyframe_start, "of an upper layer");
        let structure = found.structure.unwrap();
        assert_eq!(structure.spatial_layers, 3);
        assert_eq!(structure.sizes.unwrap()[..3], [(160, 90), (320, 180), (640, 360)]);
        assert_eq!(found.length, 27);
        for cut in 0..27 {
            assert_eq!(Vp9::parse(&FULL[..cut]), None, "cut at {cut}");
        }
        assert!(Vp9::parse(&FULL[..27]).is_some());
    }

    #[test]
    fn flexible_mode_names_its_references_and_has_no_tl0() {
        // I P L F B E; 7-bit id; T2 S1 U D; three differences.
        let bytes = [0xFC, 0x55, 0x53, 0x03, 0x05, 0x06, 0xDD];
        let found = Vp9::parse(&bytes).unwrap();
        assert_eq!(found.picture_id, Some((1, 0x55, false)));
        assert_eq!(found.tl0_picture_index, None);
        assert_eq!((found.spatial, found.temporal), (1, 2));
        assert!(found.switching_up && found.inter_layer && found.inter_picture && found.flexible);
        assert_eq!(found.length, 6);
        for cut in 0..6 {
            assert_eq!(Vp9::parse(&bytes[..cut]), None, "cut at {cut}");
        }
        assert_eq!(Vp9::parse(&[0xFC, 0x55, 0x53, 0x03, 0x05, 0x07, 0x08]), None, "four of them");
        assert_eq!(Vp9::parse(&[0xBC, 0x55, 0x00]).unwrap().length, 3, "none without P");
    }

    #[test]
    fn keyframes_are_of_the_lowest_layer() {
        let starts = |payload: &[u8]| Vp9::parse(payload).is_some_and(|found| found.keyframe_start);
        assert!(starts(&[0x08]) && starts(&[0x88, 0x80, 0x01]));
        assert!(starts(&[0xA8, 0x81, 0x01, 0x00, 9]) && starts(&[0xA8, 0x01, 0x00, 9]));
        assert!(!starts(&[0xA8, 0x81, 0x01, 0x02, 9]), "spatial layer 1");
        assert!(!starts(&[0xC8, 0x80, 0x01]) && !starts(&[0x80, 0x80, 0x01]));
        assert!(!starts(&[0xA8, 0x81]) && !starts(&[]));
    }
}
