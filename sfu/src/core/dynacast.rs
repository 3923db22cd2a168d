//! Which rungs of a video track anybody wants, so that its publisher need not send the others.
//!
//! A subscriber wants what it said, also while the bandwidth does not allow it: else nothing would
//! be there when it does. More is told to the publisher at once, less only when it has held for
//! [`PATIENCE`]: an encoder that is started costs everybody a keyframe.

use std::time::{Duration, Instant};

use super::api::{LayerInfo, MediaKind, Quality, SessionEvent};
use super::context::Context;
use super::layers::Wish;
use super::room::Room;
use super::track::Track;

/// How long a rung is kept that nobody wants any more.
const PATIENCE: Duration = Duration::from_secs(5);
/// Rungs of the ladder as clients name them.
const RUNGS: usize = 3;

/// How many rungs of one track are wanted, lowest first, and what its publisher was told.
#[derive(Debug)]
pub(super) struct Demand {
    told: usize,
    /// Since when nobody wants a rung.
    unwanted: [Option<Instant>; RUNGS],
    /// Pictures have come since they were last wanted and not muted.
    pub(super) moved: bool,
}

impl Demand {
    /// Publishers begin with all rungs, though nobody wants them yet.
    pub(super) const fn new() -> Self {
        Self { told: RUNGS, unwanted: [None; RUNGS], moved: false }
    }

    /// So many rungs are wanted now. Returns how many to tell the publisher, if that changed.
    fn update(&mut self, now: Instant, wanted: usize) -> Option<usize> {
        for (rung, since) in self.unwanted.iter_mut().enumerate() {
            match (rung < wanted, *since) {
                (true, _) => *since = None,
                (false, None) => *since = Some(now),
                (false, Some(_)) => {}
            }
        }
        let missed = |since: &Option<Instant>| {
            since.is_none_or(|since| now.saturating_duration_since(since) < PATIENCE)
        };
        let kept = self.unwanted.iter().rposition(missed).map_or(0, |rung| rung + 1);
        let told = if wanted > self.told { wanted } else { kept.min(self.told) };
        let changed = told != self.told;
        self.told = told;
        changed.then_some(told)
    }

    /// Whether each rung is to be sent, as the publisher was told.
    fn rungs(&self) -> [bool; RUNGS] {
        std::array::from_fn(|rung| rung < self.told)
    }

    /// The publisher was told to stop altogether.
    pub(super) const fn is_nothing(&self) -> bool {
        self.told == 0
    }

    /// Whether the publisher was told to stop a rung.
    const fn has_stopped(&self, rung: usize) -> bool {
        rung >= self.told
    }
}

/// How many rungs of a ladder (low to high) must be sent to serve a wish that is not disabled.
/// `layers` is how many there are, announced or not.
fn rungs_for(ladder: &[LayerInfo], layers: usize, wish: &Wish) -> usize {
    let count = layers.max(ladder.len());
    let highest = count.saturating_sub(1);
    let at = wish.rung(count, |at| ladder.get(at).map_or(0, |rung| rung.height));
    if at >= highest {
        return RUNGS;
    }
    ladder.get(at).map_or(at, |rung| rank(rung.quality)) + 1
}

const fn rank(quality: Quality) -> usize {
    match quality {
        Quality::Low => 0,
        Quality::Medium => 1,
        Quality::High => 2,
    }
}

impl Track {
    /// Layers that the publisher was told to stop do not flow, whatever of them is still on the way.
    fn stop_layers(&mut self) {
        let single = self.layers.len() == 1;
        for (at, layer) in self.layers.iter_mut().enumerate() {
            let named = self.info.announced.layers.get(at).filter(|_| !single);
            let rung = named.map_or(if single { 0 } else { at }, |named| rank(named.quality));
            let stopped = self.demand.has_stopped(rung);
            if stopped != layer.stopped {
                layer.stopped = stopped;
                layer.heard = None;
            }
        }
    }
}

impl Room {
    /// Compares what subscribers want of a track with what its publisher was told.
    pub(super) fn review_demand(&mut self, ctx: &mut Context<'_>, key: usize) {
        let Some(track) = self.tracks.get(key) else { return };
        if track.kind() != MediaKind::Video {
            return;
        }
        let (ladder, layers) = (&track.info.announced.layers, track.layers.len());
        let rungs = track.subscribers.iter().filter_map(|(subscriber, subscription)| {
            let sub = self.participants.get(*subscriber)?.subscriptions.get(*subscription)?;
            let wants = !sub.wish.disabled && !sub.unreadable;
            wants.then(|| rungs_for(ladder, layers, &sub.wish))
        });
        let wanted = rungs.max().unwrap_or(0);
        let asks = track.backup.is_none()
            && track.subscribers.iter().any(|(subscriber, subscription)| {
                let person = self.participants.get(*subscriber);
                let sub = person.and_then(|person| person.subscriptions.get(*subscription));
                sub.is_some_and(|sub| sub.awaits_backup && !sub.wish.disabled)
            });
        let Some(track) = self.tracks.get_mut(key) else { return };
        let asked = std::mem::replace(&mut track.backup_asked, asks) != asks;
        let changed = track.demand.update(ctx.now, wanted).is_some();
        if changed {
            track.stop_layers();
        }
        if changed || asked && track.backup.is_none() {
            self.tell_demand(ctx, key);
        }
    }

    /// Tells a participant again which rungs of its tracks are wanted: it may have missed it.
    pub(super) fn repeat_demand(&self, ctx: &mut Context<'_>, owner: usize) {
        for track in self.tracks_of(owner) {
            self.tell_demand(ctx, track);
        }
    }

    fn tell_demand(&self, ctx: &mut Context<'_>, key: usize) {
        let main = self.tracks.get(key).and_then(|track| track.primary).unwrap_or(key);
        let Some(track) = self.tracks.get(main) else { return };
        let owner = self.participants.get(track.owner);
        let Some(owner) = owner.filter(|_| track.kind() == MediaKind::Video) else { return };
        let mut codecs = vec![(track.codec_name.clone(), track.demand.rungs())];
        if let Some(name) = track.backup_codec() {
            let backup = track.backup.and_then(|backup| self.tracks.get(backup));
            let rungs = backup.map_or([track.backup_asked; RUNGS], |backup| backup.demand.rungs());
            codecs.push((name.to_ascii_lowercase(), rungs));
        }
        let told = SessionEvent::SubscribedQuality { track: track.info.sid.clone(), codecs };
        ctx.tell(owner.session, told);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ladder(rungs: &[(Quality, u32)]) -> Vec<LayerInfo> {
        let rung = |(quality, height): &(Quality, u32)| LayerInfo {
            quality: *quality,
            width: 0,
            height: *height,
            bitrate_bps: 0,
            rid: String::new(),
            ssrc: 0,
            repair_ssrc: 0,
            spatial: 0,
        };
        rungs.iter().map(rung).collect()
    }

    fn wish(quality: Quality, height: u32) -> Wish {
        Wish { quality, height, ..Wish::initial(false) }
    }

    #[test]
    fn more_is_told_at_once_and_less_after_five_seconds() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let mut demand = Demand::new();
        assert_eq!(demand.update(at(0), 0), None);
        assert_eq!(demand.update(at(4_999), 0), None);
        assert_eq!(demand.update(at(5_000), 0), Some(0));
        assert_eq!(demand.update(at(6_000), 1), Some(1));
        assert_eq!(demand.update(at(6_010), 3), Some(3));
        assert_eq!(demand.update(at(6_020), 2), None);
        assert_eq!(demand.update(at(9_000), 1), None);
        assert_eq!(demand.update(at(11_020), 1), Some(2), "the middle left later");
        assert_eq!(demand.update(at(13_999), 1), None);
        assert_eq!(demand.update(at(14_000), 1), Some(1));
        assert_eq!(demand.rungs(), [true, false, false]);
    }

    #[test]
    fn who_changes_its_mind_in_time_changes_nothing() {
        let start = Instant::now();
        let mut demand = Demand::new();
        for turn in 0..100 {
            let wanted = if turn % 2 == 0 { 3 } else { 0 };
            assert_eq!(demand.update(start + Duration::from_secs(4) * turn, wanted), None);
        }
    }

    #[test]
    fn wishes_become_rungs_of_any_ladder() {
        use Quality::{High, Low, Medium};
        let full = ladder(&[(Low, 180), (Medium, 360), (High, 720)]);
        for (height, quality, expected) in [
            (0, Low, 1),
            (0, Medium, 2),
            (0, High, 3),
            (180, High, 1),
            (200, High, 1),
            (201, High, 2),
            (4_000, Low, 3),
            (u32::MAX, Low, 3),
        ] {
            assert_eq!(
                rungs_for(&full, 3, &wish(quality, height)),
                expected,
                "{height} {quality:?}"
            );
        }
        let short = ladder(&[(Low, 180), (Medium, 360)]);
        assert_eq!(rungs_for(&short, 2, &wish(Low, 0)), 1);
        assert_eq!(rungs_for(&short, 2, &wish(Medium, 0)), 3, "its best");
        for single in [ladder(&[(High, 720)]), ladder(&[(Low, 0)]), ladder(&[])] {
            assert_eq!(rungs_for(&single, 1, &wish(Low, 90)), 3);
        }
        let unsized_ = ladder(&[(Low, 0), (Medium, 0), (High, 0)]);
        assert_eq!(rungs_for(&unsized_, 3, &wish(Low, 720)), 1, "the name counts then");
        assert_eq!(rungs_for(&[], 3, &wish(Medium, 360)), 2, "not announced at all");
    }
}
