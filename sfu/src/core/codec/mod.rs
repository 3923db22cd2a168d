//! What the engine must see of the codecs it forwards: names, keyframe starts, layers, and the
//! fields that are rewritten at a layer switch. Frames are never decoded.

mod av1;
mod h264;
mod vp8;
mod vp9;

pub use vp8::Vp8;
pub use vp9::{Vp9, Vp9Structure};

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

/// Whether a payload begins a frame that needs no other frame. `dependency_descriptor` is the value
/// of that header extension, if the packet has it.
#[must_use]
pub fn keyframe_start(codec: Codec, payload: &[u8], dependency_descriptor: Option<&[u8]>) -> bool {
    match codec {
        Codec::Vp8 => Vp8::parse(payload).is_some_and(|descriptor| descriptor.keyframe_start),
        Codec::H264 => h264::keyframe_start(payload),
        Codec::Vp9 => Vp9::parse(payload).is_some_and(|found| found.keyframe_start),
        Codec::Av1 | Codec::Other if dependency_descriptor.is_some() => {
            dependency_descriptor.is_some_and(descriptor_starts_sequence)
        }
        Codec::Av1 => av1::starts_sequence(payload),
        Codec::Opus | Codec::Red | Codec::Other => false,
    }
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
                assert!(found.key_index.is_none_or(|(at, value)| bytes[at] & 0x1F == value));
            }
            if let Some(found) = Vp9::parse(bytes) {
                assert!(found.length <= bytes.len());
                assert!(found.picture_id.is_none_or(|(at, _, wide)| {
                    at + usize::from(wide) < found.length && bytes[at] >> 7 == u8::from(wide)
                }));
                assert!(found.tl0_picture_index.is_none_or(|(at, value)| bytes[at] == value));
            }
        }
    }
}
