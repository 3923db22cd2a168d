//! Who speaks, by the loudness that clients write into their audio packets (RFC 6464).

use std::time::{Duration, Instant};

use super::api::{SessionEvent, Speaker};
use super::context::Context;
use super::room::Room;

/// How often speakers are compared.
pub(super) const INTERVAL: Duration = Duration::from_millis(400);
/// Speech is louder than this (−dBov).
const THRESHOLD: u8 = 35;
/// Of the interval a speaker must speak so much.
const ACTIVE_PERCENT: u32 = 40;
/// What a packet counts for when the stream does not tell.
const PACKET_MS: u32 = 20;
/// No packet counts for more: silence between two of them is not speech.
const MAX_PACKET_MS: u32 = 60;

/// How loud one participant was in the current interval.
#[derive(Debug, Default)]
pub(super) struct Voice {
    loud_ms: u32,
    loudest: Option<u8>,
    last_timestamp: Option<u32>,
    /// In eighths; what others were told.
    told: u8,
}

impl Voice {
    /// Takes note of one packet's loudness.
    pub(super) fn hear(&mut self, level: u8, timestamp: u32, clock: u32) {
        let per_ms = (clock / 1_000).max(1);
        let ticks = self.last_timestamp.replace(timestamp).map(|last| timestamp.wrapping_sub(last));
        let ms = ticks.map_or(PACKET_MS, |ticks| ticks / per_ms);
        if level <= THRESHOLD {
            self.loud_ms += if (1..=MAX_PACKET_MS).contains(&ms) { ms } else { PACKET_MS };
            self.loudest = Some(self.loudest.map_or(level, |loudest| loudest.min(level)));
        }
    }

    /// Others believe that it speaks.
    pub(super) const fn is_told(&self) -> bool {
        self.told > 0
    }

    /// What others know of it, in eighths.
    pub(super) const fn told(&self) -> u8 {
        self.told
    }

    /// Ends the interval. Returns the level in eighths if it differs from what was told.
    fn settle(&mut self) -> Option<u8> {
        let window = INTERVAL.as_millis() as u32;
        let (loud, loudest) = (self.loud_ms.min(window), self.loudest);
        (self.loud_ms, self.loudest) = (0, None);
        let level = match loudest {
            Some(loudest) if loud * 100 >= window * ACTIVE_PERCENT => {
                // Spoken for half of the time sounds half as loud.
                let linear = 10f32.powf(-f32::from(loudest) / 20.0) * loud as f32 / window as f32;
                ((linear * 8.0).ceil() as u8).clamp(1, 8)
            }
            _ => 0,
        };
        let changed = level != self.told;
        self.told = level;
        changed.then_some(level)
    }
}

impl Room {
    /// Compares the speakers and tells everyone about changes of those it receives, and of itself.
    pub(super) fn compare_speakers(&mut self, ctx: &mut Context<'_>) {
        let mut changes = Vec::new();
        for (key, participant) in &mut self.participants {
            let changed = participant.voice.settle();
            if participant.voice.is_told() {
                participant.tally.spoke(participant.voice.told());
            }
            let Some(eighths) = changed else { continue };
            if participant.grant.hidden {
                continue;
            }
            let level = f32::from(eighths) / 8.0;
            let speaker =
                Speaker { participant: participant.sid.clone(), level, active: eighths > 0 };
            changes.push((key, speaker));
        }
        if changes.is_empty() {
            return;
        }
        for (key, listener) in &self.participants {
            let heard =
                changes.iter().filter(|(who, _)| *who == key || self.receives(listener, *who));
            let speakers: Vec<Speaker> = heard.map(|(_, speaker)| speaker.clone()).collect();
            if !speakers.is_empty() {
                ctx.tell(listener.session, SessionEvent::Speakers(speakers));
            }
        }
    }

    /// Compares the speakers when it is time.
    pub(super) fn speakers_due(&mut self, ctx: &mut Context<'_>) {
        if ctx.now >= self.speakers_at {
            self.speakers_at = next(self.speakers_at, ctx.now);
            self.compare_speakers(ctx);
        }
    }
}

fn next(planned: Instant, now: Instant) -> Instant {
    let next = planned + INTERVAL;
    if next > now { next } else { now + INTERVAL }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn speak(voice: &mut Voice, from: u32, packets: u32, level: u8) -> Option<u8> {
        for at in from..from + packets {
            voice.hear(level, at * 960, 48_000);
        }
        voice.settle()
    }

    #[test]
    fn speech_is_told_once_and_so_is_its_end() {
        let mut voice = Voice::default();
        assert_eq!(speak(&mut voice, 0, 20, 10), Some(3));
        assert_eq!(speak(&mut voice, 20, 20, 10), None);
        assert_eq!(speak(&mut voice, 40, 20, 127), Some(0));
        assert_eq!(speak(&mut voice, 60, 20, 127), None);
    }

    #[test]
    fn quiet_or_short_sounds_are_no_speech() {
        let mut voice = Voice::default();
        assert_eq!(speak(&mut voice, 0, 20, 36), None);
        assert_eq!(speak(&mut voice, 20, 7, 5), None);
        assert_eq!(speak(&mut voice, 27, 8, 35), Some(1));
    }

    #[test]
    fn the_loudest_is_one_and_no_more() {
        let mut voice = Voice::default();
        assert_eq!(speak(&mut voice, 0, 40, 0), Some(8));
    }
}
