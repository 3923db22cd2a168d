//! What the engine must see of the codecs it forwards: names, keyframe starts, and the VP8 fields
//! that are rewritten at a layer switch. Frames are never decoded.

/// A codec by its name in SDP.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Codec {
    /// RFC 7587.
    Opus,
    /// Redundant audio, RFC 2198.
    Red,
    /// RFC 7741.
    Vp8,
    /// RFC 6184.
    H264,
    /// RFC 9628.
    Vp9,
    /// The AV1 RTP specification.
    Av1,
    /// Anything else; passes through unseen.
    Other,
}

impl Codec {
    /// By encoding name, in any letter case, with or without the media type before it.
    #[must_use]
    pub fn from_name(name: &str) -> Self {
        let name = name.rsplit_once('/').map_or(name, |(_, name)| name);
        let known = [Self::Opus, Self::Red, Self::Vp8, Self::H264, Self::Vp9, Self::Av1];
        known
            .into_iter()
            .find(|codec| codec.name().eq_ignore_ascii_case(name))
            .unwrap_or(Self::Other)
    }

    /// The encoding name in lower case; empty for [`Codec::Other`].
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Opus => "opus",
            Self::Red => "red",
            Self::Vp8 => "vp8",
            Self::H264 => "h264",
            Self::Vp9 => "vp9",
            Self::Av1 => "av1",
            Self::Other => "",
        }
    }

    /// Whether it carries pictures ([`Codec::Other`] counts as no).
    #[must_use]
    pub const fn is_video(self) -> bool {
        match self {
            Self::Vp8 | Self::H264 | Self::Vp9 | Self::Av1 => true,
            Self::Opus | Self::Red | Self::Other => false,
        }
    }

    /// Ticks of its RTP clock in a second.
    #[must_use]
    pub const fn clock_rate(self) -> u32 {
        match self {
            Self::Opus | Self::Red => 48_000,
            Self::Vp8 | Self::H264 | Self::Vp9 | Self::Av1 | Self::Other => 90_000,
        }
    }
}

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
    /// First packet of a keyframe.
    pub keyframe_start: bool,
}

impl Vp8 {
    /// Reads the descriptor; `None` when the payload ends inside it.
    #[must_use]
    pub fn parse(payload: &[u8]) -> Option<Self> {
        let first = *payload.first()?;
        let mut found = Self::default();
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
                found.temporal = (fields & 0x20 != 0).then_some(byte >> 6);
                at += 1;
            }
        }
        // Start of partition 0, and the inverse key frame bit of the frame header is 0.
        let starts = first & 0x10 != 0 && first & 0x07 == 0;
        found.keyframe_start = starts && payload.get(at).is_some_and(|byte| byte & 1 == 0);
        Some(found)
    }
}

/// Whether a payload begins a frame that needs no other frame. `dependency_descriptor` is the value
/// of that header extension, if the packet has it.
#[must_use]
pub fn keyframe_start(codec: Codec, payload: &[u8], dependency_descriptor: Option<&[u8]>) -> bool {
    match codec {
        Codec::Vp8 => Vp8::parse(payload).is_some_and(|descriptor| descriptor.keyframe_start),
        Codec::H264 => h264_keyframe_start(payload),
        Codec::Vp9 => vp9_keyframe_start(payload),
        Codec::Av1 | Codec::Other if dependency_descriptor.is_some() => {
            dependency_descriptor.is_some_and(descriptor_starts_sequence)
        }
        Codec::Av1 => av1_starts_sequence(payload),
        Codec::Opus | Codec::Red | Codec::Other => false,
    }
}

const H264_IDR: u8 = 5;
const H264_SPS: u8 = 7;
const H264_STAP_A: u8 = 24;
const H264_FU_A: u8 = 28;

/// A parameter set or the first slice of an IDR picture, alone, aggregated or fragmented.
fn h264_keyframe_start(payload: &[u8]) -> bool {
    let Some((&first, rest)) = payload.split_first() else { return false };
    match first & 0x1F {
        H264_STAP_A => {
            let mut rest = rest;
            while let Some((size, tail)) = rest.split_first_chunk() {
                let size = usize::from(u16::from_be_bytes(*size));
                let Some((unit, tail)) = tail.split_at_checked(size) else { return false };
                if unit.split_first().is_some_and(|(kind, body)| h264_starts(*kind, body)) {
                    return true;
                }
                rest = tail;
            }
            false
        }
        H264_FU_A => rest
            .split_first()
            .is_some_and(|(&header, body)| header & 0x80 != 0 && h264_starts(header, body)),
        _ => h264_starts(first, rest),
    }
}

fn h264_starts(kind: u8, body: &[u8]) -> bool {
    match kind & 0x1F {
        H264_SPS => true,
        // first_mb_in_slice is an exponential Golomb code; 0 is the single bit 1.
        H264_IDR => body.first().is_some_and(|byte| byte & 0x80 != 0),
        _ => false,
    }
}

/// RFC 9628 §4.2: begins a frame, predicts from nothing, and is of the lowest spatial layer.
fn vp9_keyframe_start(payload: &[u8]) -> bool {
    let Some((&first, rest)) = payload.split_first() else { return false };
    let (has_id, predicted, layered) = (first & 0x80 != 0, first & 0x40 != 0, first & 0x20 != 0);
    if predicted || first & 0x08 == 0 {
        return false;
    }
    if !layered {
        return true;
    }
    let skip = match (has_id, rest.first()) {
        (false, _) => 0,
        (true, Some(byte)) if byte & 0x80 != 0 => 2,
        (true, _) => 1,
    };
    rest.get(skip).is_some_and(|byte| byte >> 1 & 7 == 0)
}

/// Aggregation header: N = first packet of a coded video sequence, Z = continues an earlier unit.
fn av1_starts_sequence(payload: &[u8]) -> bool {
    payload.first().is_some_and(|byte| byte & 0x88 == 0x08)
}

/// A descriptor that starts a frame and carries the template structure, as key frames must.
fn descriptor_starts_sequence(descriptor: &[u8]) -> bool {
    let start = descriptor.first().is_some_and(|byte| byte & 0x80 != 0);
    start && descriptor.get(3).is_some_and(|byte| byte & 0x80 != 0)
}

#[cfg(test)]
mod tests {
    use rand_chacha::rand_core::{Rng as _, SeedableRng as _};

    use super::*;

    #[test]
    fn names_are_known_in_any_case_and_with_their_media_type() {
        assert_eq!(Codec::from_name("VP8"), Codec::Vp8);
        assert_eq!(Codec::from_name("video/h264"), Codec::H264);
        assert_eq!(Codec::from_name("audio/RED"), Codec::Red);
        assert_eq!(Codec::from_name("H265"), Codec::Other);
        assert_eq!(Codec::from_name(""), Codec::Other);
        assert!(Codec::Av1.is_video() && !Codec::Red.is_video());
        assert_eq!((Codec::Opus.clock_rate(), Codec::Vp9.clock_rate()), (48_000, 90_000));
    }

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
        assert!(!Vp8::parse(&all[..6]).unwrap().keyframe_start);
    }

    #[test]
    fn h264_keyframes_are_seen_in_every_packaging() {
        let starts = |payload: &[u8]| keyframe_start(Codec::H264, payload, None);
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

    #[test]
    fn vp9_keyframes_are_of_the_lowest_layer() {
        let starts = |payload: &[u8]| keyframe_start(Codec::Vp9, payload, None);
        assert!(starts(&[0x08]) && starts(&[0x88, 0x80, 0x01]));
        assert!(starts(&[0xA8, 0x81, 0x01, 0x00]) && starts(&[0xA8, 0x01, 0x00]));
        assert!(!starts(&[0xA8, 0x81, 0x01, 0x02]), "spatial layer 1");
        assert!(!starts(&[0xC8, 0x80, 0x01]) && !starts(&[0x80, 0x80, 0x01]));
        assert!(!starts(&[0xA8, 0x81]) && !starts(&[]));
    }

    #[test]
    fn av1_sequences_start_by_header_or_descriptor() {
        assert!(keyframe_start(Codec::Av1, &[0x18], None));
        assert!(!keyframe_start(Codec::Av1, &[0x98], None), "continues an earlier unit");
        assert!(
            !keyframe_start(Codec::Av1, &[0x10], None) && !keyframe_start(Codec::Av1, &[], None)
        );
        // The descriptor decides where there is one: encrypted payloads say nothing.
        assert!(keyframe_start(Codec::Av1, &[0x10], Some(&[0xC0, 0, 1, 0x80, 0])));
        assert!(!keyframe_start(Codec::Av1, &[0x18], Some(&[0xC0, 0, 1])));
        assert!(!keyframe_start(Codec::Av1, &[0x18], Some(&[0x40, 0, 1, 0x80])));
        assert!(!keyframe_start(Codec::Opus, &[0x18], None));
    }

    #[test]
    fn random_bytes_are_survived() {
        let mut rng = crate::core::Rng::from_seed([3; 32]);
        let codecs = [Codec::Vp8, Codec::H264, Codec::Vp9, Codec::Av1, Codec::Opus, Codec::Other];
        for _ in 0..30_000 {
            let mut bytes = [0; 24];
            rng.fill_bytes(&mut bytes);
            let bytes = &bytes[..rng.next_u32() as usize % 25];
            for codec in codecs {
                let _ = keyframe_start(codec, bytes, None);
                let _ = keyframe_start(codec, &[], Some(bytes));
            }
            if let Some(found) = Vp8::parse(bytes) {
                assert!(
                    found
                        .picture_id
                        .is_none_or(|(at, _, wide)| at + usize::from(wide) < bytes.len())
                );
                assert!(found.tl0_picture_index.is_none_or(|(at, value)| bytes[at] == value));
            }
        }
    }
}
