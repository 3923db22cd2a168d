//! The rungs of a track: what can be forwarded of it, and what each costs, as measured.
//!
//! A rung is a *target*: one simulcast stream, and within it the highest spatial and temporal layer.
//! Each stream has a meter that is fed per packet with two additions, and read each 200 ms.

use std::time::{Duration, Instant};

/// Spatial and temporal layers told apart: two bits each. What is higher counts to the highest.
pub(super) const LAYERS: usize = 4;
const CELLS: usize = LAYERS * LAYERS;
/// How often a meter is read.
const INTERVAL: Duration = Duration::from_millis(200);
/// Readings a rate is made from: a second.
const READINGS: usize = 5;
/// Rungs of a track at the most.
pub(super) const RUNGS: usize = 12;

/// What of a track one subscriber gets. Order: low to high.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Target {
    /// Simulcast layer: index of the track's layer; 0 without simulcast.
    pub(super) stream: u8,
    /// Highest spatial layer within the stream; 0 with simulcast.
    pub(super) spatial: u8,
    /// Highest temporal layer.
    pub(super) temporal: u8,
}

impl Target {
    /// Everything that a stream holds.
    pub(super) const fn whole(stream: u8) -> Self {
        Self { stream, spatial: LAYERS as u8 - 1, temporal: LAYERS as u8 - 1 }
    }
}

/// One rung of a track's ladder, as measured.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Rung {
    /// What is forwarded.
    pub(super) target: Target,
    /// What that costs now: RTP headers and payloads, bits in a second.
    pub(super) bps: u64,
    /// Height in pixels, 0 = unknown.
    pub(super) height: u32,
    /// Pictures in a second, 0 = unknown.
    pub(super) fps: u8,
}

/// The rungs of a track, lowest first: only those that flow.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Rungs {
    rungs: [Rung; RUNGS],
    len: usize,
}

impl Rungs {
    /// Appends a rung; one too many is left out.
    pub(super) fn push(&mut self, rung: Rung) {
        if let Some(place) = self.rungs.get_mut(self.len) {
            *place = rung;
            self.len += 1;
        }
    }

    /// Lowest first.
    pub(super) fn as_slice(&self) -> &[Rung] {
        self.rungs.get(..self.len).unwrap_or_default()
    }
}

/// Where a packet stands within its stream.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Place {
    /// Spatial layer, below [`LAYERS`].
    pub(super) spatial: u8,
    /// Temporal layer, below [`LAYERS`].
    pub(super) temporal: u8,
    /// Higher spatial layers need it too.
    pub(super) shared: bool,
}

/// Octets and pictures of one stream, by layer.
#[derive(Debug, Default)]
pub(super) struct Meter {
    /// What is counted until the next reading.
    open: Reading,
    /// The last readings, newest first.
    closed: [Reading; READINGS],
    known: usize,
    began: Option<Instant>,
    /// Media clock of the newest picture.
    picture: Option<u32>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Reading {
    micros: u32,
    /// Needed by one spatial layer alone, by spatial and temporal layer.
    own: [u32; CELLS],
    /// Needed by the spatial layers above as well.
    shared: [u32; CELLS],
    pictures: [u16; LAYERS],
}

impl Meter {
    /// Counts a packet of so many octets.
    pub(super) fn count(&mut self, place: Place, timestamp: u32, octets: usize) {
        let cell = cell(place.spatial, place.temporal);
        let table = if place.shared { &mut self.open.shared } else { &mut self.open.own };
        if let Some(sum) = table.get_mut(cell) {
            *sum = sum.saturating_add(octets as u32);
        }
        if self.picture != Some(timestamp) {
            self.picture = Some(timestamp);
            if let Some(pictures) = self.open.pictures.get_mut(usize::from(place.temporal)) {
                *pictures = pictures.saturating_add(1);
            }
        }
    }

    /// Closes the open reading when it is due.
    pub(super) fn read(&mut self, now: Instant) {
        let Some(began) = self.began else {
            self.began = Some(now);
            return;
        };
        let passed = now.saturating_duration_since(began);
        if passed < INTERVAL {
            return;
        }
        self.open.micros = passed.as_micros().try_into().unwrap_or(u32::MAX);
        self.closed.rotate_right(1);
        if let Some(newest) = self.closed.first_mut() {
            *newest = std::mem::take(&mut self.open);
        }
        self.known = (self.known + 1).min(READINGS);
        self.began = Some(now);
    }

    /// Whether a rate can be told.
    pub(super) const fn is_known(&self) -> bool {
        self.known > 0
    }

    /// The highest spatial and temporal layer of the last second.
    pub(super) fn top(&self) -> (u8, u8) {
        let mut top = (0, 0);
        for spatial in 0..LAYERS as u8 {
            for temporal in 0..LAYERS as u8 {
                if self.octets(cell(spatial, temporal)) > 0 {
                    top = (top.0.max(spatial), top.1.max(temporal));
                }
            }
        }
        top
    }

    fn octets(&self, cell: usize) -> u64 {
        let of = |table: &[u32; CELLS]| u64::from(table.get(cell).copied().unwrap_or(0));
        self.closed.iter().map(|reading| of(&reading.own) + of(&reading.shared)).sum()
    }

    /// What forwarding up to these layers costs, in bits a second.
    pub(super) fn bps(&self, spatial: u8, temporal: u8) -> u64 {
        let mut octets = 0;
        let mut micros = 0;
        for reading in self.closed.iter().take(self.known) {
            micros += u64::from(reading.micros);
            for below in 0..=temporal {
                let own = reading.own.get(cell(spatial, below)).copied().unwrap_or(0);
                let shared =
                    (0..=spatial).filter_map(|under| reading.shared.get(cell(under, below)));
                octets += u64::from(own) + shared.map(|sum| u64::from(*sum)).sum::<u64>();
            }
        }
        (octets * 8_000_000).checked_div(micros).unwrap_or(0)
    }

    /// Pictures in a second up to a temporal layer.
    pub(super) fn fps(&self, temporal: u8) -> u8 {
        let known = self.closed.iter().take(self.known);
        let (mut pictures, mut micros) = (0u64, 0u64);
        for reading in known {
            micros += u64::from(reading.micros);
            let below = reading.pictures.iter().take(usize::from(temporal) + 1);
            pictures += below.map(|count| u64::from(*count)).sum::<u64>();
        }
        let rounded = (pictures * 1_000_000 + micros / 2).checked_div(micros).unwrap_or(0);
        rounded.try_into().unwrap_or(u8::MAX)
    }
}

fn cell(spatial: u8, temporal: u8) -> usize {
    let highest = LAYERS - 1;
    usize::from(spatial).min(highest) * LAYERS + usize::from(temporal).min(highest)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A second of 30 pictures, three temporal layers, 100 octets each.
    fn second(meter: &mut Meter, start: Instant, places: &[(u8, bool)]) {
        meter.read(start);
        for picture in 0..30u32 {
            let temporal = [0, 2, 1, 2][picture as usize % 4];
            for (spatial, shared) in places {
                let place = Place { spatial: *spatial, temporal, shared: *shared };
                meter.count(place, picture * 3_000, 100);
            }
            meter.read(start + Duration::from_millis(u64::from(picture) * 1_000 / 30));
        }
        meter.read(start + Duration::from_secs(1));
    }

    #[test]
    fn rates_add_up_over_temporal_layers() {
        let mut meter = Meter::default();
        second(&mut meter, Instant::now(), &[(0, false)]);
        assert_eq!(meter.top(), (0, 2));
        let fps: Vec<u8> = (0..3).map(|temporal| meter.fps(temporal)).collect();
        assert!((7..=8).contains(&fps[0]) && (14..=16).contains(&fps[1]), "{fps:?}");
        assert!((29..=31).contains(&fps[2]), "{fps:?}");
        assert!((23_000..25_500).contains(&meter.bps(0, 2)), "{}", meter.bps(0, 2));
        assert!((11_000..13_500).contains(&meter.bps(0, 1)), "{}", meter.bps(0, 1));
        assert_eq!(meter.bps(0, 3), meter.bps(0, 2));
    }

    #[test]
    fn shared_layers_are_paid_by_those_above() {
        let mut meter = Meter::default();
        second(&mut meter, Instant::now(), &[(0, true), (1, true), (2, true)]);
        assert!(meter.bps(2, 2) > meter.bps(0, 2) * 29 / 10);
        let mut meter = Meter::default();
        second(&mut meter, Instant::now(), &[(0, false), (1, false), (2, false)]);
        assert_eq!(meter.bps(2, 2), meter.bps(0, 2), "each stands alone");
        assert_eq!(meter.top(), (2, 2));
    }

    #[test]
    fn silence_brings_a_rate_to_zero() {
        let (mut meter, start) = (Meter::default(), Instant::now());
        second(&mut meter, start, &[(0, false)]);
        for tenth in 10..25 {
            meter.read(start + Duration::from_millis(tenth * 100));
        }
        assert_eq!((meter.bps(0, 3), meter.fps(3)), (0, 0));
    }

    #[test]
    fn no_more_rungs_than_fit() {
        let mut rungs = Rungs::default();
        (0..20).for_each(|bps| rungs.push(Rung { bps, ..Rung::default() }));
        assert_eq!(rungs.as_slice().len(), RUNGS);
    }
}
