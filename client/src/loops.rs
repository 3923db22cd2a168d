//! The pictures and sounds that every participant of a process plays: read once, shared by all.

use std::sync::OnceLock;

/// Pictures in a second.
pub(crate) const FRAME_RATE: u32 = 20;
/// Length of one Opus packet in milliseconds.
pub(crate) const AUDIO_PACKET_MS: u32 = 20;
/// Size of the pictures.
pub(crate) const FRAME_SIZE: (u32, u32) = (640, 360);

/// The media that is played in a loop.
#[derive(Debug)]
pub(crate) struct Loops {
    /// VP8 frames, the first a keyframe.
    pub(crate) video: Vec<Frame>,
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
}

impl Loops {
    /// The loops of this process.
    pub(crate) fn shared() -> &'static Self {
        static LOOPS: OnceLock<Loops> = OnceLock::new();
        LOOPS.get_or_init(|| Self {
            video: read_ivf(include_bytes!("../media/face.ivf")),
            audio: read_ogg(include_bytes!("../media/hum.ogg")),
        })
    }

    /// The frame at a place in the loop.
    pub(crate) fn frame(&self, index: usize) -> Option<Frame> {
        self.video.get(index % self.video.len().max(1)).copied()
    }

    /// The Opus packet at a place in the loop.
    pub(crate) fn packet(&self, index: usize) -> Option<&[u8]> {
        self.audio.get(index % self.audio.len().max(1)).map(Vec::as_slice)
    }

    /// The place of the first keyframe at `index` or after it.
    pub(crate) fn next_keyframe(&self, index: usize) -> usize {
        let is_key = |at: &usize| self.frame(*at).is_some_and(|frame| frame.key);
        (index..index + self.video.len()).find(is_key).unwrap_or(index)
    }
}

/// Frames of an IVF file (32 bytes of header, then 12 bytes before each frame).
fn read_ivf(file: &'static [u8]) -> Vec<Frame> {
    let mut frames = Vec::new();
    let mut rest = file.get(32..).unwrap_or_default();
    while let Some((head, tail)) = rest.split_first_chunk::<12>() {
        let [s0, s1, s2, s3, ..] = *head;
        let size = u32::from_le_bytes([s0, s1, s2, s3]) as usize;
        let Some((data, tail)) = tail.split_at_checked(size) else { break };
        // RFC 6386 §9.1: the lowest bit of the frame tag is 0 in a keyframe.
        let key = data.first().is_some_and(|byte| byte & 1 == 0);
        frames.push(Frame { data, key });
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
        assert_eq!(loops.video.len(), 100);
        let keys: Vec<_> = (0..100).filter(|at| loops.video[*at].key).collect();
        assert_eq!(keys, [0, 20, 40, 60, 80], "a keyframe each second");
        assert!(loops.video.iter().all(|frame| frame.data.len() > 100));
        assert_eq!(loops.audio.len(), 250);
        // RFC 6716 §3.1: configuration with 20 ms frames, mono, one frame in the packet.
        for packet in &loops.audio {
            let (configuration, rest) = (packet[0] >> 3, packet[0] & 7);
            assert!(matches!(configuration, 1 | 5 | 9 | 13 | 15 | 19 | 23 | 27 | 31) && rest == 0);
        }
        let total: usize = loops.video.iter().map(|frame| frame.data.len()).sum();
        assert!((150_000..250_000).contains(&total), "{total}");
    }

    #[test]
    fn the_next_keyframe_is_found_across_the_end() {
        let loops = Loops::shared();
        assert_eq!(loops.next_keyframe(0), 0);
        assert_eq!(loops.next_keyframe(1), 20);
        assert_eq!(loops.next_keyframe(81), 100);
        assert_eq!(loops.next_keyframe(181), 200);
    }
}
