//! The media clock that a subscriber sees, over switches from stream to stream.
//!
//! Each stream has a clock of its own; sender reports tell what each showed at which moment of the
//! publisher's wall clock (RFC 3550 §6.4.1). So a switch keeps sound and picture together. Without
//! reports the time that has passed here is taken.

use std::time::Instant;

use super::Packet;
use crate::core::context::ticks;
use crate::core::layers::Layer;

/// A clock by reports that is further ahead of the time passed, in seconds, is not believed.
const MAX_AHEAD: u32 = 2;
/// One that is further behind what was sent, in parts of a second, neither.
const MAX_BEHIND: u32 = 2;

/// The clocks of a track's streams.
#[derive(Clone, Copy)]
pub(in crate::core) struct Clocks<'t> {
    /// Ticks in a second.
    pub(in crate::core) rate: u32,
    /// With the publisher's reports.
    pub(in crate::core) layers: &'t [Layer],
}

impl Clocks<'_> {
    /// What one stream's clock shows beyond another's at the same moment.
    fn between(&self, from: usize, to: usize) -> Option<u32> {
        let report = |layer: usize| self.layers.get(layer).and_then(|layer| layer.report);
        let ((from, _), (to, _)) = (report(from)?, report(to)?);
        let later = i128::from(to.ntp.wrapping_sub(from.ntp) as i64);
        // Rounded: many switches must not add up to a drift.
        let ticks = (later * i128::from(self.rate) + (1 << 31)) >> 32;
        Some(to.rtp_timestamp.wrapping_sub(from.rtp_timestamp).wrapping_sub(ticks as u32))
    }
}

/// The media clock of one subscription.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Clock {
    /// The stream that `exact` is for.
    stream: Option<usize>,
    /// What to subtract so that time goes on as it passes.
    exact: u32,
    /// More is added for now: an exact clock would go back.
    ahead: bool,
    /// Media clock of the newest packet.
    newest: u32,
}

impl Clock {
    /// A stream's numbers mean something else from now on.
    pub(super) fn forget(&mut self, stream: usize) {
        if self.stream == Some(stream) {
            self.stream = None;
        }
    }

    /// Nothing of the streams so far says anything about those to come.
    pub(super) fn forget_all(&mut self) {
        self.stream = None;
    }

    /// What to subtract, not counting what was added for a moment.
    pub(super) const fn exact(&self) -> u32 {
        self.exact
    }

    /// What to subtract from the clock of a stream that begins with this packet; `sent` is what was
    /// sent last, and when.
    pub(super) fn start(
        &mut self,
        now: Instant,
        clocks: &Clocks<'_>,
        sent: Option<(Instant, u32)>,
        packet: &Packet<'_>,
    ) -> u32 {
        let before = self.stream.replace(packet.layer);
        self.newest = packet.timestamp;
        let Some((at, last)) = sent else {
            (self.exact, self.ahead) = (0, false);
            return 0;
        };
        let passed = ticks(now.saturating_duration_since(at), clocks.rate).max(1);
        let expected = last.wrapping_add(passed);
        let known = before.and_then(|before| match before == packet.layer {
            true => Some(self.exact),
            false => Some(self.exact.wrapping_add(clocks.between(before, packet.layer)?)),
        });
        let believable = |exact: &u32| {
            let shown = packet.timestamp.wrapping_sub(*exact);
            let ahead = shown.wrapping_sub(expected) as i32;
            let behind = last.wrapping_sub(shown) as i32;
            i64::from(ahead) <= i64::from(clocks.rate * MAX_AHEAD)
                && i64::from(behind) <= i64::from(clocks.rate / MAX_BEHIND)
        };
        let by_time = packet.timestamp.wrapping_sub(expected);
        self.exact = known.filter(believable).unwrap_or(by_time);
        self.shift(last, packet.timestamp)
    }

    /// The exact shift, or the one that goes on by the least step.
    fn shift(&mut self, last: u32, timestamp: u32) -> u32 {
        let shown = timestamp.wrapping_sub(self.exact);
        self.ahead = shown.wrapping_sub(last) as i32 <= 0;
        if self.ahead { timestamp.wrapping_sub(last.wrapping_add(1)) } else { self.exact }
    }

    /// Takes note of the newest packet. Returns another shift that is valid from it on, where the
    /// clock is ahead and a picture begins: the streams are not encoded at the same speed, so what
    /// was sent last may show what the new stream repeats.
    pub(super) fn go_on(&mut self, last: u32, packet: &Packet<'_>, next: bool) -> Option<u32> {
        let begins = next && packet.timestamp != self.newest;
        self.newest = packet.timestamp;
        if !self.ahead || !begins {
            return None;
        }
        Some(self.shift(last, packet.timestamp))
    }
}
