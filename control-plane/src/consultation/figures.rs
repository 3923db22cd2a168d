//! What was measured of a person's media, over all its stays in the room.

/// How good a connection was, in one word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Quality {
    /// Hardly a defect.
    Excellent,
    /// Defects were noticed.
    Good,
    /// Speech suffered, or pictures stood still.
    Poor,
}

impl Quality {
    /// The word used in the API and in the tables.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Excellent => "excellent",
            Self::Good => "good",
            Self::Poor => "poor",
        }
    }
}

/// Averages over the time that was measured; what was not measured is empty.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Figures {
    /// How long it was measured.
    pub seconds: i64,
    /// Mean opinion, 1 (bad) to 4.4.
    pub score: Option<f64>,
    /// Packets of its own that never came, in percent.
    pub packet_loss_percent: Option<f64>,
    /// Bits per second of the video it sent.
    pub video_bitrate_bps: Option<i64>,
    /// Loudness while it spoke, 0 to 1.
    pub audio_level: Option<f64>,
}

impl Figures {
    /// Both stays together, each weighing as long as it was.
    #[must_use]
    pub fn with(&self, other: &Self) -> Self {
        let own = self.seconds.max(0);
        let more = other.seconds.max(0);
        let mean = |a: Option<f64>, b: Option<f64>| match (a, b) {
            (Some(a), Some(b)) if own + more > 0 => {
                Some((a * own as f64 + b * more as f64) / (own + more) as f64)
            }
            (a, b) => b.or(a),
        };
        let bitrate = |figures: &Self| figures.video_bitrate_bps.map(|bps| bps as f64);
        Self {
            seconds: own.saturating_add(more),
            score: mean(self.score, other.score),
            packet_loss_percent: mean(self.packet_loss_percent, other.packet_loss_percent),
            video_bitrate_bps: mean(bitrate(self), bitrate(other)).map(|bps| bps.round() as i64),
            audio_level: mean(self.audio_level, other.audio_level),
        }
    }

    /// The word for the score: the same thresholds as of a running connection.
    pub fn quality(&self) -> Option<Quality> {
        self.score.map(|score| match score {
            score if score >= 4.0 => Quality::Excellent,
            score if score >= 3.0 => Quality::Good,
            _ => Quality::Poor,
        })
    }
}
