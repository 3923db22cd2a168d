//! Which layers of its stream a subscriber gets, picture by picture.
//!
//! A set tells which targets are *intact*: everything they need since the last keyframe (or the last
//! frame at which they could be entered) was forwarded. A packet left out breaks those that need it;
//! a keyframe or a switching point mends them. So up and down are one rule: another target is taken
//! at the start of a picture, if it is intact. Where each spatial layer stands alone between
//! keyframes, even the way down needs one.

use super::Packet;
use crate::core::frames::{ALL, Frame, Set, from, only};
use crate::core::ladder::{LAYERS, Target};

/// The layers of one subscription's current stream.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Selection {
    intact: Set,
    top: u8,
    /// Media clock of the picture at hand.
    picture: Option<u32>,
    /// Media clock and spatial layer of the newest packet's frame, if it was left out.
    left_out: Option<(u32, u8)>,
    waits: bool,
    /// Spatial layers stand alone between keyframes: a lower one is not part of a higher one.
    alone: bool,
}

impl Selection {
    /// Begins with a keyframe.
    pub(super) fn start(&mut self, packet: &Packet<'_>) {
        *self = Self {
            intact: ALL,
            top: packet.frame.top,
            picture: Some(packet.timestamp),
            left_out: None,
            waits: false,
            alone: self.alone,
        };
    }

    /// A keyframe of this stream is needed to get what is wanted.
    pub(super) const fn waits(&self) -> bool {
        self.waits
    }

    /// Whether a packet left out belongs to the same frame as the one before, also left out: then
    /// so does what is missing between them. Takes note of it.
    pub(super) fn leaves_out(&mut self, packet: &Packet<'_>) -> bool {
        let frame = Some((packet.timestamp, packet.frame.spatial));
        std::mem::replace(&mut self.left_out, frame) == frame
    }

    /// Decides about the newest packet of the stream: what the subscriber gets from here on, and
    /// whether this packet is part of it. `next`: no packet is missing before it.
    pub(super) fn choose(
        &mut self,
        packet: &Packet<'_>,
        next: bool,
        current: Target,
        target: Target,
    ) -> (Target, bool) {
        let frame = &packet.frame;
        self.follow(frame.top);
        if !next {
            self.miss(current);
        }
        if packet.starts {
            self.intact = ALL;
        }
        if frame.steps {
            self.intact |= self.stepped(frame);
        }
        let fresh = next && frame.begins && self.picture != Some(packet.timestamp);
        self.picture = Some(packet.timestamp);
        let current = if fresh { self.pick(current, target) } else { current };
        let forwarded = frame.needed & self.intact & only(current.spatial, current.temporal) != 0;
        if forwarded {
            self.left_out = None;
            self.intact |= frame.opens | self.lifted(frame);
        } else {
            self.intact &= !frame.needed;
            self.alone |= frame.spatial < current.spatial.min(self.top);
            // Nothing that can be decoded is left of it.
            self.waits |= self.intact & only(current.spatial, current.temporal) == 0;
        }
        (current, forwarded)
    }

    /// Packets are missing. Should they come late, those that the subscriber does not get now will
    /// not be forwarded, so nothing but what it gets stays intact.
    pub(super) fn miss(&mut self, current: Target) {
        let row = current.spatial.min(self.top);
        let part = |spatial: &u8| {
            let spatial = (*spatial).min(self.top);
            spatial == row || spatial < row && !self.alone
        };
        let rows = (0..LAYERS as u8).filter(part);
        let kept = rows.fold(0, |set, spatial| {
            let above = if current.temporal + 1 == LAYERS as u8 {
                0
            } else {
                from(spatial, current.temporal + 1)
            };
            set | from(spatial, 0) & !above
        });
        self.intact &= kept;
    }

    /// Another number of spatial layers. Targets above the highest are served by it.
    fn follow(&mut self, top: u8) {
        if top < self.top {
            let row = |spatial: u8| from(spatial, 0);
            let shift = u32::from(top) * LAYERS as u32;
            let highest = (self.intact & row(top)) >> shift;
            for spatial in top + 1..LAYERS as u8 {
                let place = u32::from(spatial) * LAYERS as u32;
                self.intact = self.intact & !row(spatial) | highest << place;
            }
        }
        self.top = top;
    }

    /// The targets that a frame makes intact by depending on the layer below alone.
    fn stepped(&self, frame: &Frame) -> Set {
        let below = frame.temporal.saturating_sub(1);
        let ready = |spatial: &u8| self.intact & only(*spatial, below) != 0;
        let rows = (0..LAYERS as u8).filter(ready);
        rows.fold(0, |set, spatial| set | only(spatial, frame.temporal))
    }

    /// The targets that a frame makes intact, because what follows does not look back beyond it.
    fn lifted(&self, frame: &Frame) -> Set {
        if !frame.lifts {
            return 0;
        }
        let ready = |spatial: &u8| self.intact & only(*spatial, frame.temporal) != 0;
        let rows = (0..LAYERS as u8).filter(ready);
        rows.fold(0, |set, spatial| set | from(spatial, frame.temporal))
    }

    /// The best that can be had now on the way from `current` to `target`.
    fn pick(&mut self, current: Target, target: Target) -> Target {
        let goal = match target.stream.cmp(&current.stream) {
            std::cmp::Ordering::Equal => target,
            // It waits for a keyframe of a smaller stream. Room may be short, so it gets the least.
            std::cmp::Ordering::Less => Target { temporal: 0, ..current },
            std::cmp::Ordering::Greater => current,
        };
        let (wanted, have) = (goal.spatial.min(self.top), current.spatial.min(self.top));
        let mut spatial = wanted;
        loop {
            let stays = spatial == have && wanted < have;
            let most = if stays { 0 } else { goal.temporal };
            let mut temporals = (0..=most).rev();
            if let Some(temporal) =
                temporals.find(|temporal| self.intact & only(spatial, *temporal) != 0)
            {
                self.waits = spatial != wanted;
                let exact = if spatial == have { current.spatial } else { spatial };
                let spatial = if spatial == wanted { goal.spatial } else { exact };
                return Target { stream: current.stream, spatial, temporal };
            }
            if spatial == have {
                self.waits = true;
                return current;
            }
            spatial = if wanted < have { spatial + 1 } else { spatial - 1 };
        }
    }
}
