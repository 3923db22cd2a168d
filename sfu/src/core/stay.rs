//! What a participant's stay adds up to, for whoever keeps books: told once, when it goes.
//!
//! It is summed where the same things are valued anyway, every five seconds (`quality`) and when
//! speakers are compared, so it costs nothing per packet.

use super::api::Stay;
use super::quality::WINDOW;

/// Sums over the windows of a stay.
#[derive(Debug, Default)]
pub(super) struct Tally {
    windows: u32,
    scores: f64,
    /// Windows in which something came, and their lost shares.
    heard: u32,
    lost: f64,
    /// Windows with a camera on, and its bits in a second.
    filmed: u32,
    video_bps: u64,
    /// Intervals in which it spoke, and their levels in eighths.
    spoke: u32,
    eighths: u64,
}

impl Tally {
    /// A window has ended: its score, the share that was lost of what should have come, and what
    /// its best picture cost.
    pub(super) fn window(&mut self, score: f32, lost: Option<f32>, video_bps: Option<u64>) {
        self.windows += 1;
        self.scores += f64::from(score);
        if let Some(lost) = lost {
            self.heard += 1;
            self.lost += f64::from(lost);
        }
        if let Some(bps) = video_bps {
            self.filmed += 1;
            self.video_bps += bps;
        }
    }

    /// It spoke so loud, in eighths.
    pub(super) fn spoke(&mut self, eighths: u8) {
        self.spoke += 1;
        self.eighths += u64::from(eighths);
    }

    /// The averages, if there is at least one window.
    pub(super) fn stay(&self) -> Option<Stay> {
        let mean = |sum: f64, of: u32| (of > 0).then(|| sum / f64::from(of));
        Some(Stay {
            seconds: self.windows.saturating_mul(WINDOW.as_secs() as u32),
            score: mean(self.scores, self.windows)?,
            lost_percent: mean(self.lost * 100.0, self.heard),
            video_bps: self.video_bps.checked_div(u64::from(self.filmed)),
            audio_level: mean(self.eighths as f64 / 8.0, self.spoke),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stay_is_the_mean_of_what_was_measured() {
        let mut tally = Tally::default();
        assert_eq!(tally.stay(), None, "too short to say anything");
        tally.window(4.0, None, None);
        let short = tally.stay().expect("one window");
        assert_eq!((short.seconds, short.score), (5, 4.0));
        assert_eq!((short.lost_percent, short.video_bps, short.audio_level), (None, None, None));
        tally.window(2.0, Some(0.5), Some(100_000));
        tally.window(3.0, Some(0.25), Some(300_000));
        tally.spoke(4);
        tally.spoke(8);
        let stay = tally.stay().expect("three windows");
        assert_eq!((stay.seconds, stay.score), (15, 3.0));
        assert_eq!((stay.lost_percent, stay.video_bps), (Some(37.5), Some(200_000)));
        assert_eq!(stay.audio_level, Some(0.75));
    }
}
