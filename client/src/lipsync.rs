//! Sound and picture of one person together: whichever is earlier waits for the other, as
//! libwebrtc's stream synchronisation has it.

use std::time::Duration;

/// A difference that nobody notices, in microseconds.
const UNNOTICED: i64 = 30_000;
/// The most that a delay changes at a time.
const STEP: i64 = 80_000;
/// How much a new difference weighs against those before it.
const WEIGHT: i64 = 4;

/// How long each of the two has to wait at least.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct LipSync {
    average: i64,
    audio: i64,
    video: i64,
}

impl LipSync {
    /// Compares the delays of now; called once in a second.
    pub(crate) fn compare(&mut self, audio: Duration, video: Duration) {
        let difference = video.as_micros() as i64 - audio.as_micros() as i64;
        self.average = (self.average * (WEIGHT - 1) + difference) / WEIGHT;
        if self.average.abs() < UNNOTICED {
            return;
        }
        let step = (self.average / 2).clamp(-STEP, STEP);
        self.average = 0;
        // What waits for the other's sake is released before the other has to wait.
        if step > 0 && self.video > 0 {
            self.video = (self.video - step).max(0);
        } else if step > 0 {
            self.audio = (audio.as_micros() as i64).max(self.audio) + step;
        } else if self.audio > 0 {
            self.audio = (self.audio + step).max(0);
        } else {
            self.video = (video.as_micros() as i64).max(self.video) - step;
        }
    }

    /// How long sound waits at least.
    pub(crate) const fn audio(&self) -> Duration {
        Duration::from_micros(self.audio.unsigned_abs())
    }

    /// How long pictures wait at least.
    pub(crate) const fn video(&self) -> Duration {
        Duration::from_micros(self.video.unsigned_abs())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Delays after twenty seconds, of a sound and a picture that need these.
    fn settle(sync: &mut LipSync, audio_ms: u64, video_ms: u64) -> (u128, u128) {
        let own = [audio_ms, video_ms].map(Duration::from_millis);
        for _ in 0..40 {
            sync.compare(own[0].max(sync.audio()), own[1].max(sync.video()));
        }
        (own[0].max(sync.audio()).as_millis(), own[1].max(sync.video()).as_millis())
    }

    #[test]
    fn the_earlier_waits_for_the_later() {
        let mut sync = LipSync::default();
        let (audio, video) = settle(&mut sync, 40, 300);
        assert!(video == 300 && (180..=330).contains(&audio), "{audio} {video}");
        let (audio, video) = settle(&mut sync, 40, 60);
        assert!(video <= 120 && audio <= video + 120, "released: {audio} {video}");
        let (audio, video) = settle(&mut sync, 400, 60);
        assert!(audio == 400 && (280..=430).contains(&video), "{audio} {video}");
    }

    #[test]
    fn a_small_difference_is_left_alone() {
        let mut sync = LipSync::default();
        assert_eq!(settle(&mut sync, 50, 70), (50, 70));
    }
}
