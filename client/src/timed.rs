//! Packets for measuring: of a browser's sizes, without any media in them, each with the time at which
//! it left. Whoever receives them in the same process knows how long they were on their way.

use std::fmt;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

/// Ends each payload, behind the time.
const MAGIC: [u8; 4] = *b"bed!";
/// Bytes of time and magic.
pub(crate) const STAMP: usize = 12;

/// Frames of the picture in a second.
pub(crate) const FRAME_RATE: u32 = 30;
/// Frames of the loop: six seconds, with two keyframes.
const FRAMES: usize = 180;
/// Frames from one keyframe to the next.
const KEY_EVERY: usize = 90;
/// Bits a second of the whole loop.
const VIDEO_BPS: usize = 1_200_000;
/// A keyframe is so many times as large as another.
const KEY_SIZE: usize = 3;
/// Sizes of sounds.
const SOUND: std::ops::RangeInclusive<usize> = 80..=100;
/// Opus, full band, 20 ms, mono (RFC 6716 §3.1).
const OPUS: u8 = 31 << 3;

/// Listens to the timed packets of one participant. Called from its task: it must not wait.
pub trait Ear: fmt::Debug + Send + Sync {
    /// A packet has left at `at`, `behind` its time. Repairs are not told.
    fn left(&self, at: Instant, behind: Duration);
    /// A packet has come, for the first time.
    fn heard(&self, packet: Heard);
}

/// A timed packet that has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Heard {
    /// When it left.
    pub left: Instant,
    /// When the kernel had it.
    pub came: Instant,
    /// It was asked for again.
    pub repaired: bool,
}

/// What the times are counted from.
fn epoch() -> Instant {
    static EPOCH: OnceLock<Instant> = OnceLock::new();
    *EPOCH.get_or_init(Instant::now)
}

/// Puts the time over the end of a payload. One that is too short stays as it is.
pub(crate) fn write_stamp(payload: &mut [u8], left: Instant) {
    let nanos = left.saturating_duration_since(epoch()).as_nanos() as u64;
    if let Some(end) = payload.last_chunk_mut::<STAMP>() {
        let (time, magic) = end.split_at_mut(STAMP - MAGIC.len());
        time.copy_from_slice(&nanos.to_be_bytes());
        magic.copy_from_slice(&MAGIC);
    }
}

/// The time in a payload; nothing in one that carries none.
pub(crate) fn read_stamp(payload: &[u8]) -> Option<Instant> {
    let end = payload.last_chunk::<STAMP>()?;
    let (time, magic) = end.split_first_chunk()?;
    if *magic != MAGIC {
        return None;
    }
    epoch().checked_add(Duration::from_nanos(u64::from_be_bytes(*time)))
}

/// The payload of one sound, without a time yet.
pub(crate) fn write_sound(out: &mut Vec<u8>, index: usize) {
    out.push(OPUS);
    out.resize(out.len() + sound_len(index) - 1, 0);
}

/// How long that is.
pub(crate) fn sound_len(index: usize) -> usize {
    SOUND.start() + index * 7 % (SOUND.end() - SOUND.start() + 1)
}

/// The pictures: VP8's first bytes (RFC 6386 §9.1), and nothing behind them. Made once.
pub(crate) fn frames() -> impl Iterator<Item = (&'static [u8], bool)> {
    let keys = FRAMES / KEY_EVERY;
    let seconds = FRAMES / FRAME_RATE as usize;
    let even = VIDEO_BPS / 8 * seconds / (FRAMES + keys * (KEY_SIZE - 1));
    (0..FRAMES).map(move |at| {
        let key = at % KEY_EVERY == 0;
        // As uneven as an encoder's, the same in each run, even in the long run.
        let size = even * (850 + at * 29 % 60 * 5) / 997 * if key { KEY_SIZE } else { 1 };
        let mut data = vec![0; size];
        let head: &[u8] = if key {
            &[0x10, 0, 0, 0x9D, 0x01, 0x2A, 0x80, 0x02, 0x68, 0x01]
        } else {
            &[0x11, 0, 0]
        };
        for (byte, head) in data.iter_mut().zip(head) {
            *byte = *head;
        }
        (&*data.leak(), key)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_read_as_it_was_written() {
        let left = epoch() + Duration::from_nanos(123_456_789);
        let mut payload = vec![7; 20];
        assert_eq!(read_stamp(&payload), None);
        write_stamp(&mut payload, left);
        assert_eq!(read_stamp(&payload), Some(left));
        assert_eq!(payload.get(..8), Some(&[7; 8][..]), "the rest is left alone");
        payload.pop();
        assert_eq!(read_stamp(&payload), None);
        assert_eq!(read_stamp(&[]), None);
        let mut short = [1; 5];
        write_stamp(&mut short, left);
        assert_eq!(short, [1; 5]);
    }

    #[test]
    fn any_bytes_for_a_time_do_no_harm() {
        let mut payload = vec![0xFF; 8];
        payload.extend_from_slice(&MAGIC);
        let _any = read_stamp(&payload);
    }

    #[test]
    fn pictures_are_those_of_the_rate() {
        let frames: Vec<_> = frames().collect();
        let bytes: usize = frames.iter().map(|(data, _)| data.len()).sum();
        let bps = bytes * 8 * FRAME_RATE as usize / FRAMES;
        assert!((1_150_000..1_250_000).contains(&bps), "{bps}");
        assert_eq!(frames.iter().filter(|(_, key)| *key).count(), 2);
        assert!(frames.iter().all(|(data, key)| (data[0] & 1 == 0) == *key));
        assert!(frames.iter().all(|(data, _)| (3_000..20_000).contains(&data.len())));
    }

    #[test]
    fn sounds_are_of_a_browsers_sizes() {
        for index in 0..100 {
            let mut out = vec![9];
            write_sound(&mut out, index);
            assert!(SOUND.contains(&(out.len() - 1)));
            assert_eq!(out.len() - 1, sound_len(index));
        }
    }
}
