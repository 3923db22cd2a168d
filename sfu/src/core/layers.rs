//! The layers of a published track: what arrives of each, and which one a subscription gets.

use std::time::{Duration, Instant};

use super::api::Quality;
use super::cache::Cache;
use super::frames::{Frame, Frames};
use super::keyframes::Keyframes;
use super::ladder::Meter;
use super::reception::Reception;
use super::rtcp::SenderInfo;
use super::rtp::Header;

/// A layer not heard for so long, while another one is heard, has stopped.
const STOPPED: Duration = Duration::from_millis(700);
/// One that has so many pictures in a second shows sooner that it has stopped: viewers look at a
/// picture that stands until they get another layer.
const LIVELY: u8 = 10;
const LIVELY_STOPPED: Duration = Duration::from_millis(350);
/// A publisher that is short of bandwidth stops its upper layers and begins them again, more than
/// once. One that stopped is taken again when it has lasted for so long.
const LASTING: Duration = Duration::from_secs(1);

/// One encoding of a track.
#[derive(Debug)]
pub(super) struct Layer {
    /// Its name in the publisher's description; empty without simulcast.
    pub(super) rid: String,
    /// Announced height in pixels, 0 = not said.
    pub(super) height: u32,
    /// Media stream; 0 = not known yet.
    pub(super) ssrc: u32,
    /// Repair stream; 0 = not known yet.
    pub(super) repair_ssrc: u32,
    /// How the media stream arrives.
    pub(super) reception: Reception,
    /// What subscribers may ask for again.
    pub(super) cache: Cache,
    /// The publisher's last report, and when it came.
    pub(super) report: Option<(SenderInfo, Instant)>,
    /// When media last came.
    pub(super) heard: Option<Instant>,
    /// It stopped by itself, and has not lasted since.
    pub(super) lapsed: bool,
    /// Since when it comes again.
    back: Option<Instant>,
    /// The publisher was told to stop it: it does not flow, though its last packets still come.
    pub(super) stopped: bool,
    /// When its publisher is asked for a keyframe.
    pub(super) keyframes: Keyframes,
    /// What it costs.
    pub(super) meter: Meter,
    /// What it tells of its own layers.
    pub(super) frames: Frames,
}

impl Layer {
    /// A layer of which nothing has come.
    pub(super) fn new(rid: String, height: u32) -> Self {
        Self {
            rid,
            height,
            ssrc: 0,
            repair_ssrc: 0,
            reception: Reception::new(),
            cache: Cache::default(),
            report: None,
            heard: None,
            lapsed: false,
            back: None,
            stopped: false,
            keyframes: Keyframes::default(),
            meter: Meter::default(),
            frames: Frames::default(),
        }
    }

    /// Another stream carries the layer from now on.
    pub(super) fn restart(&mut self) {
        self.reception = Reception::new();
        self.cache = Cache::default();
        self.meter = Meter::default();
        self.frames = Frames::default();
        self.report = None;
        self.keyframes = Keyframes::default();
    }

    /// Whether a stream, or its repair, is the one of now: numbers of two streams do not mix.
    pub(super) const fn is_carried_by(&self, ssrc: u32) -> bool {
        ssrc == self.ssrc || ssrc == self.repair_ssrc
    }

    /// Whether it has not stopped, where `newest` is when any layer of the track was heard last: while
    /// all are silent (muted, a still picture) nothing has stopped.
    pub(super) fn flows(&self, newest: Instant, now: Instant) -> bool {
        let silent = |heard| newest.saturating_duration_since(heard);
        let heard = self.heard.is_some_and(|heard| silent(heard) < STOPPED && now >= heard);
        heard && !self.lapsed
    }

    /// Looks whether it has stopped by itself, or lasts again. `lowest`: there is nothing below it.
    fn watch(&mut self, newest: Instant, now: Instant, lowest: bool) {
        let Some(heard) = self.heard else {
            (self.lapsed, self.back) = (false, None);
            return;
        };
        let silent = newest.saturating_duration_since(heard);
        let lively = self.meter.fps(self.meter.top().1) >= LIVELY;
        if silent >= if lively { LIVELY_STOPPED } else { STOPPED } {
            (self.lapsed, self.back) = (true, None);
        } else if self.lapsed && silent < LIVELY_STOPPED / 2 {
            let since = *self.back.get_or_insert(now);
            self.lapsed = !lowest && now.saturating_duration_since(since) < LASTING;
        }
    }

    /// Takes note of a media packet and what it costs; padding is none.
    pub(super) fn weigh(&mut self, now: Instant, frame: &Frame, header: &Header, payload: usize) {
        if payload == 0 {
            return;
        }
        if !self.stopped {
            self.heard = Some(now);
        }
        self.meter.count(frame.place(), header.timestamp, header.len + payload);
    }
}

/// What a subscriber wants to see of a track.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Wish {
    /// Nothing for now.
    pub(super) disabled: bool,
    /// The rung, where no height is given.
    pub(super) quality: Quality,
    /// Height of the element in pixels; 0 = not given.
    pub(super) height: u32,
    /// Pictures in a second that are enough; 0 = not given.
    pub(super) fps: u8,
}

impl Wish {
    /// Which of so many sizes is wanted, by their heights, lowest first.
    pub(super) fn rung(&self, sizes: usize, height: impl Fn(usize) -> u32) -> usize {
        let highest = sizes.saturating_sub(1);
        if self.height > 0 && (0..sizes).all(|at| height(at) > 0) {
            // A tenth less than the element is not seen.
            let enough = |at: &usize| u64::from(height(*at)) * 10 >= u64::from(self.height) * 9;
            return (0..sizes).find(enough).unwrap_or(highest);
        }
        match self.quality {
            Quality::Low => 0,
            Quality::Medium => 1.min(highest),
            Quality::High => highest,
        }
    }

    /// Before the subscriber has said anything.
    pub(super) const fn initial(adaptive: bool) -> Self {
        let quality = if adaptive { Quality::Low } else { Quality::High };
        Self { disabled: false, quality, height: 0, fps: 0 }
    }
}

/// The layer to forward: the wanted one, or the highest below it that flows, or else the lowest that
/// flows. `None`: nothing has come yet.
pub(super) fn choose(layers: &[Layer], wish: &Wish, now: Instant) -> Option<usize> {
    let wanted = wanted(layers, wish);
    let newest = newest(layers)?;
    let flows = |layer: &Layer| layer.flows(newest, now);
    let below = layers.iter().take(wanted + 1).rposition(flows);
    below.or_else(|| layers.iter().position(flows))
}

/// Looks which layers of a track have stopped by themselves.
pub(super) fn watch(layers: &mut [Layer], now: Instant) {
    let Some(newest) = newest(layers) else { return };
    for (at, layer) in layers.iter_mut().enumerate() {
        layer.watch(newest, now, at == 0);
    }
    if !layers.iter().any(|layer| layer.flows(newest, now)) {
        layers.iter_mut().for_each(|layer| layer.lapsed = false);
    }
}

/// When any of the layers was heard last.
pub(super) fn newest(layers: &[Layer]) -> Option<Instant> {
    layers.iter().filter_map(|layer| layer.heard).max()
}

/// The layer that a wish names, whether it flows or not.
fn wanted(layers: &[Layer], wish: &Wish) -> usize {
    wish.rung(layers.len(), |at| layers.get(at).map_or(0, |layer| layer.height))
}

/// Where a layer stands on the ladder by its name: `q h f`, or `2 1 0` (low to high). Unknown names
/// keep the order of the description.
pub(super) fn sort_rids(rids: &mut [String]) {
    const LADDERS: [[&str; 3]; 2] = [["q", "h", "f"], ["2", "1", "0"]];
    for ladder in LADDERS {
        let rank = |rid: &String| ladder.iter().position(|name| name == rid);
        if rids.iter().all(|rid| rank(rid).is_some()) {
            rids.sort_by_key(|rid| rank(rid));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::ladder::Place;
    use super::*;

    fn ladder(now: Instant, ages_ms: [Option<u64>; 3]) -> Vec<Layer> {
        let rung = |(height, age): (u32, Option<u64>)| {
            let mut layer = Layer::new(String::new(), height);
            layer.heard = age.map(|age| now - Duration::from_millis(age));
            layer
        };
        [180, 360, 720].into_iter().zip(ages_ms).map(rung).collect()
    }

    const BEST: Wish = Wish { disabled: false, quality: Quality::High, height: 0, fps: 0 };

    #[test]
    fn the_highest_that_flows_is_chosen() {
        let now = Instant::now() + Duration::from_secs(60);
        assert_eq!(choose(&ladder(now, [Some(5), Some(9), Some(30)]), &BEST, now), Some(2));
        assert_eq!(choose(&ladder(now, [Some(5), Some(9), Some(800)]), &BEST, now), Some(1));
        assert_eq!(choose(&ladder(now, [Some(5), None, None]), &BEST, now), Some(0));
        assert_eq!(choose(&ladder(now, [None, None, None]), &BEST, now), None);
    }

    #[test]
    fn silence_of_all_layers_changes_nothing() {
        let now = Instant::now() + Duration::from_secs(60);
        assert_eq!(
            choose(&ladder(now, [Some(9_000), Some(9_010), Some(9_020)]), &BEST, now),
            Some(2)
        );
    }

    /// So many pictures a second of the layers that flow, for so long.
    fn pass(layers: &mut [Layer], now: &mut Instant, fps: u32, ms: u32, flows: [bool; 3]) {
        for _ in 0..ms * fps / 1_000 {
            *now += Duration::from_secs(1) / fps;
            for (layer, flows) in layers.iter_mut().zip(flows) {
                if flows {
                    layer.heard = Some(*now);
                    layer.ssrc += 90_000 / fps;
                    layer.meter.count(Place::default(), layer.ssrc, 500);
                }
                layer.meter.read(*now);
            }
            watch(layers, *now);
        }
    }

    #[test]
    fn a_layer_that_comes_and_goes_is_taken_again_when_it_lasts() {
        let mut now = Instant::now();
        let mut layers = ladder(now, [None; 3]);
        let all = [true; 3];
        pass(&mut layers, &mut now, 20, 2_000, all);
        assert_eq!(choose(&layers, &BEST, now), Some(2), "a first one is taken at once");
        pass(&mut layers, &mut now, 20, 300, [true, true, false]);
        assert_eq!(choose(&layers, &BEST, now), Some(2));
        pass(&mut layers, &mut now, 20, 100, [true, true, false]);
        assert_eq!(choose(&layers, &BEST, now), Some(1));
        pass(&mut layers, &mut now, 20, 900, all);
        assert_eq!(choose(&layers, &BEST, now), Some(1));
        pass(&mut layers, &mut now, 20, 200, all);
        assert_eq!(choose(&layers, &BEST, now), Some(2));
    }

    #[test]
    fn few_pictures_a_second_are_waited_for() {
        let mut now = Instant::now();
        let mut layers = ladder(now, [None; 3]);
        pass(&mut layers, &mut now, 5, 2_000, [true; 3]);
        pass(&mut layers, &mut now, 5, 600, [true, true, false]);
        assert_eq!(choose(&layers, &BEST, now), Some(2));
        pass(&mut layers, &mut now, 5, 200, [true, true, false]);
        assert_eq!(choose(&layers, &BEST, now), Some(1));
    }

    #[test]
    fn the_last_that_flows_is_never_waited_for() {
        let mut now = Instant::now();
        let mut layers = ladder(now, [None; 3]);
        pass(&mut layers, &mut now, 20, 2_000, [true; 3]);
        pass(&mut layers, &mut now, 20, 1_000, [true, false, false]);
        pass(&mut layers, &mut now, 20, 1_000, [false, false, true]);
        assert_eq!(choose(&layers, &BEST, now), Some(2));
    }

    #[test]
    fn wishes_name_a_rung_by_size_or_quality() {
        let now = Instant::now() + Duration::from_secs(60);
        let all = ladder(now, [Some(1), Some(1), Some(1)]);
        let of = |height, quality| choose(&all, &Wish { quality, height, ..BEST }, now);
        assert_eq!(of(0, Quality::Low), Some(0));
        assert_eq!(of(0, Quality::Medium), Some(1));
        assert_eq!(of(180, Quality::High), Some(0));
        assert_eq!(of(200, Quality::High), Some(0), "a tenth less will do");
        assert_eq!(of(201, Quality::High), Some(1));
        assert_eq!(of(2_000, Quality::Low), Some(2));
    }

    #[test]
    fn a_wanted_layer_that_does_not_flow_is_replaced() {
        let now = Instant::now() + Duration::from_secs(60);
        let low = Wish { quality: Quality::Low, ..BEST };
        assert_eq!(choose(&ladder(now, [None, Some(1), Some(1)]), &low, now), Some(1));
    }

    #[test]
    fn known_names_are_sorted_low_to_high() {
        let sorted = |names: &[&str]| {
            let mut rids: Vec<String> = names.iter().map(ToString::to_string).collect();
            sort_rids(&mut rids);
            rids.join("")
        };
        assert_eq!(sorted(&["f", "q", "h"]), "qhf");
        assert_eq!(sorted(&["0", "1", "2"]), "210");
        assert_eq!(sorted(&["hi", "lo"]), "hilo");
    }
}
