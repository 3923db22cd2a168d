//! The pictures and sounds that every participant of a process plays: read once, shared by all.

use std::sync::OnceLock;

use bedside_sfu::core::api::MediaKind;

use crate::timed;

/// Pictures in a second.
pub(crate) const FRAME_RATE: u32 = 20;
/// Length of one Opus packet in milliseconds.
pub(crate) const AUDIO_PACKET_MS: u32 = 20;
/// Length of every loop.
const LOOP_SECONDS: usize = 5;
/// Size of the picture without simulcast.
pub(crate) const FRAME_SIZE: (u32, u32) = (640, 360);
/// Sizes of the simulcast layers.
pub(crate) const LAYER_SIZES: [(u32, u32); 3] = [(160, 90), (320, 180), FRAME_SIZE];
/// Temporal layers of the frames of a simulcast layer, in turn.
const TEMPORAL: [u8; 4] = [0, 2, 1, 2];

/// What a stream plays.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Content {
    /// Opus.
    Tone,
    /// VP8 by itself, a keyframe each second.
    Face,
    /// VP8 with three temporal layers: one of [`LAYER_SIZES`].
    Layer(usize),
    /// No media: packets of a browser's sizes that carry the time at which they left.
    Timed(MediaKind),
}

impl Content {
    pub(crate) const fn kind(self) -> MediaKind {
        match self {
            Self::Tone => MediaKind::Audio,
            Self::Face | Self::Layer(_) => MediaKind::Video,
            Self::Timed(kind) => kind,
        }
    }

    /// Pictures in a second.
    pub(crate) const fn frame_rate(self) -> u32 {
        match self {
            Self::Timed(_) => timed::FRAME_RATE,
            Self::Tone | Self::Face | Self::Layer(_) => FRAME_RATE,
        }
    }
}

/// The media that is played in a loop.
#[derive(Debug)]
pub(crate) struct Loops {
    /// VP8 frames, the first a keyframe.
    face: Vec<Frame>,
    /// Of each size, the best quality first.
    layers: [Vec<Vec<Frame>>; 3],
    /// Pictures that are none.
    timed: OnceLock<Vec<Frame>>,
    /// Opus packets.
    pub(crate) audio: Vec<Vec<u8>>,
}

/// One encoded picture.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Frame {
    /// VP8 bitstream.
    pub(crate) data: &'static [u8],
    /// Decodable by itself.
    pub(crate) key: bool,
    /// Temporal layer; 0 where there are none.
    pub(crate) temporal: u8,
    /// Made from a frame of the lowest temporal layer alone.
    pub(crate) syncs: bool,
}

impl Loops {
    /// The loops of this process.
    pub(crate) fn shared() -> &'static Self {
        static LOOPS: OnceLock<Loops> = OnceLock::new();
        LOOPS.get_or_init(|| Self {
            face: read_ivf(include_bytes!("../media/face.ivf"), &[0]),
            layers: [
                vec![layered(include_bytes!("../media/layer-90-40.ivf"))],
                vec![
                    layered(include_bytes!("../media/layer-180-100.ivf")),
                    layered(include_bytes!("../media/layer-180-60.ivf")),
                    layered(include_bytes!("../media/layer-180-40.ivf")),
                ],
                vec![
                    layered(include_bytes!("../media/layer-360-300.ivf")),
                    layered(include_bytes!("../media/layer-360-200.ivf")),
                    layered(include_bytes!("../media/layer-360-130.ivf")),
                ],
            ],
            timed: OnceLock::new(),
            audio: read_ogg(include_bytes!("../media/hum.ogg")),
        })
    }

    /// The qualities that a loop is there in.
    pub(crate) fn qualities(&self, content: Content) -> usize {
        match content {
            Content::Tone | Content::Face | Content::Timed(_) => 1,
            Content::Layer(layer) => self.layers.get(layer).map_or(1, Vec::len),
        }
    }

    /// The frames of a loop, best quality 0; none of the tone.
    pub(crate) fn frames(&self, content: Content, quality: usize) -> &[Frame] {
        match content {
            Content::Tone | Content::Timed(MediaKind::Audio) => &[],
            Content::Face => &self.face,
            Content::Timed(MediaKind::Video) => self.timed.get_or_init(timed),
            Content::Layer(layer) => {
                let found = self.layers.get(layer).and_then(|qualities| qualities.get(quality));
                found.map_or(&[], Vec::as_slice)
            }
        }
    }

    /// The frame at a place in a loop.
    pub(crate) fn frame(&self, content: Content, quality: usize, index: usize) -> Option<Frame> {
        let frames = self.frames(content, quality);
        frames.get(index % frames.len().max(1)).copied()
    }

    /// The Opus packet at a place in the loop.
    pub(crate) fn packet(&self, index: usize) -> Option<&[u8]> {
        self.audio.get(index % self.audio.len().max(1)).map(Vec::as_slice)
    }

    /// The place of the first keyframe of a loop at `index` or after it.
    pub(crate) fn next_keyframe(&self, content: Content, index: usize) -> usize {
        // Keyframes are at the same places in every quality.
        let is_key = |at: &usize| self.frame(content, 0, *at).is_some_and(|frame| frame.key);
        (index..index + self.frames(content, 0).len()).find(is_key).unwrap_or(index)
    }

    /// Bytes of a loop in a second, and the packets they are cut into at the least.
    pub(crate) fn rate(&self, content: Content, quality: usize, packet: usize) -> (usize, usize) {
        let sizes: Vec<usize> = match content {
            Content::Tone => self.audio.iter().map(Vec::len).collect(),
            Content::Timed(MediaKind::Audio) => {
                (0..self.audio.len()).map(timed::sound_len).collect()
            }
            Content::Face | Content::Layer(_) | Content::Timed(MediaKind::Video) => {
                self.frames(content, quality).iter().map(|frame| frame.data.len()).collect()
            }
        };
        let seconds = match content {
            Content::Timed(MediaKind::Video) => sizes.len() / timed::FRAME_RATE as usize,
            Content::Tone | Content::Face | Content::Layer(_) | Content::Timed(_) => LOOP_SECONDS,
        };
        let seconds = seconds.max(1);
        let packets: usize = sizes.iter().map(|size| size.div_ceil(packet)).sum();
        (sizes.iter().sum::<usize>() / seconds, packets / seconds)
    }
}

/// The pictures of timed packets.
fn timed() -> Vec<Frame> {
    timed::frames().map(|(data, key)| Frame { data, key, temporal: 0, syncs: false }).collect()
}

/// A file whose frames have temporal layers.
fn layered(file: &'static [u8]) -> Vec<Frame> {
    read_ivf(file, &TEMPORAL)
}

/// Frames of an IVF file (32 bytes of header, then 12 bytes before each frame), in the temporal
/// layers of `pattern` in turn.
fn read_ivf(file: &'static [u8], pattern: &[u8]) -> Vec<Frame> {
    let mut frames = Vec::new();
    let mut layers = pattern.iter().copied().enumerate().cycle();
    let mut rest = file.get(32..).unwrap_or_default();
    while let Some((head, tail)) = rest.split_first_chunk::<12>() {
        let [s0, s1, s2, s3, ..] = *head;
        let size = u32::from_le_bytes([s0, s1, s2, s3]) as usize;
        let Some((data, tail)) = tail.split_at_checked(size) else { break };
        // RFC 6386 §9.1: the lowest bit of the frame tag is 0 in a keyframe.
        let key = data.first().is_some_and(|byte| byte & 1 == 0);
        // The encoder makes the last frame of a turn from the one before it, the others from the first.
        let (place, temporal) = layers.next().unwrap_or_default();
        frames.push(Frame { data, key, temporal, syncs: place == 1 || place == 2 });
        rest = tail;
    }
    frames
}

/// Opus packets of an Ogg file (RFC 3533 §6), without the two header packets (RFC 7845 §3) and
/// without the last one, which is shorter than it plays.
fn read_ogg(file: &[u8]) -> Vec<Vec<u8>> {
    let mut packets = Vec::new();
    let mut open = Vec::new();
    let mut rest = file;
    while let Some((head, tail)) = rest.split_first_chunk::<27>() {
        let segments = usize::from(head.last().copied().unwrap_or_default());
        let Some((table, mut body)) = tail.split_at_checked(segments) else { break };
        for length in table {
            let Some((segment, after)) = body.split_at_checked(usize::from(*length)) else { break };
            open.extend_from_slice(segment);
            body = after;
            if *length < 255 {
                packets.push(std::mem::take(&mut open));
            }
        }
        rest = body;
    }
    packets.pop();
    packets.into_iter().skip(2).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_loops_in_the_tree_are_what_the_packetiser_expects() {
        let loops = Loops::shared();
        assert_eq!(loops.face.len(), 100);
        let keys: Vec<_> = (0..100).filter(|at| loops.face[*at].key).collect();
        assert_eq!(keys, [0, 20, 40, 60, 80], "a keyframe each second");
        assert!(loops.face.iter().all(|frame| frame.data.len() > 100));
        assert_eq!(loops.audio.len(), 250);
        // RFC 6716 §3.1: configuration with 20 ms frames, mono, one frame in the packet.
        for packet in &loops.audio {
            let (configuration, rest) = (packet[0] >> 3, packet[0] & 7);
            assert!(matches!(configuration, 1 | 5 | 9 | 13 | 15 | 19 | 23 | 27 | 31) && rest == 0);
        }
        let total: usize = loops.face.iter().map(|frame| frame.data.len()).sum();
        assert!((150_000..250_000).contains(&total), "{total}");
    }

    #[test]
    fn simulcast_layers_have_one_keyframe_and_three_temporal_layers() {
        let loops = Loops::shared();
        for (layer, rate) in [(0, 4_000..7_000), (1, 10_000..15_000), (2, 30_000..40_000)] {
            let content = Content::Layer(layer);
            for quality in 0..loops.qualities(content) {
                let frames = loops.frames(content, quality);
                assert_eq!(frames.len(), 100);
                assert!(frames[0].key && frames[1..].iter().all(|frame| !frame.key));
                let turn: Vec<_> =
                    frames[4..8].iter().map(|one| (one.temporal, one.syncs)).collect();
                assert_eq!(turn, [(0, false), (2, true), (1, true), (2, false)]);
            }
            assert!(rate.contains(&loops.rate(content, 0, 1200).0), "{layer}");
            let rates = (0..loops.qualities(content)).map(|one| loops.rate(content, one, 1200).0);
            assert!(rates.is_sorted_by(|better, worse| better > worse));
        }
        assert_eq!(loops.rate(Content::Tone, 0, 1200).1, 50);
    }

    #[test]
    fn the_next_keyframe_is_found_across_the_end() {
        let loops = Loops::shared();
        assert_eq!(loops.next_keyframe(Content::Face, 0), 0);
        assert_eq!(loops.next_keyframe(Content::Face, 1), 20);
        assert_eq!(loops.next_keyframe(Content::Face, 81), 100);
        assert_eq!(loops.next_keyframe(Content::Face, 181), 200);
    }
}
