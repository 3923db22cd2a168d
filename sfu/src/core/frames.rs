//! What a packet's frame is to those who want less than the whole stream.
//!
//! A stream may hold spatial and temporal layers, described by its codec's payload (VP8, VP9) or by
//! the dependency descriptor (AV1, VP9, H.264, VP8). All are brought to one form: sets of targets, read
//! once per packet, so that each subscriber's decision is a test of one bit.

use super::codec::{Codec, Vp8, Vp9};
use super::descriptor::{Descriptor, Descriptors, Structure};
use super::ladder::{LAYERS, Place, Target};

/// A set of targets within a stream: one bit for each spatial and temporal layer.
pub(super) type Set = u16;

/// Every target.
pub(super) const ALL: Set = Set::MAX;
/// All temporal layers of the lowest spatial one.
const ROW: Set = (1 << LAYERS) - 1;
/// Pictures without its highest spatial layer after which a stream has lost it.
const LOST_TOP: u8 = 15;
const HIGHEST: u8 = LAYERS as u8 - 1;
/// No decode target stands for a layer.
const NO_TARGET: u8 = u8::MAX;

/// The set of one target. What is above the highest counts as the highest.
pub(super) const fn only(spatial: u8, temporal: u8) -> Set {
    1 << (low(spatial) * LAYERS as u8 + low(temporal))
}

/// The targets of one spatial layer, from a temporal layer upwards.
pub(super) const fn from(spatial: u8, temporal: u8) -> Set {
    (ROW << low(temporal) & ROW) << (low(spatial) * LAYERS as u8)
}

const fn low(layer: u8) -> u8 {
    if layer < HIGHEST { layer } else { HIGHEST }
}

/// A packet's frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Frame {
    /// The stream has layers that can be left out.
    pub(super) layered: bool,
    /// Its spatial layer.
    pub(super) spatial: u8,
    /// Its temporal layer.
    pub(super) temporal: u8,
    /// The highest spatial layer of the stream for now.
    pub(super) top: u8,
    /// The packet is the frame's first.
    pub(super) begins: bool,
    /// The packet is the frame's last, as far as the packet tells.
    pub(super) ends: bool,
    /// Who needs it.
    pub(super) needed: Set,
    /// Who can be served from here on, having received it.
    pub(super) opens: Set,
    /// Who has received what is below it may take it (VP8: Y).
    pub(super) steps: bool,
    /// Who has received up to its temporal layer may take the higher ones from here on (VP9: U).
    pub(super) lifts: bool,
}

impl Frame {
    /// Of a stream that has no layers, or tells nothing of them.
    pub(super) const PLAIN: Self = Self {
        layered: false,
        spatial: 0,
        temporal: 0,
        top: 0,
        begins: false,
        ends: false,
        needed: ALL,
        opens: 0,
        steps: false,
        lifts: false,
    };

    fn of_vp8(vp8: &Vp8) -> Self {
        let Some(temporal) = vp8.temporal else { return Self::PLAIN };
        let needed = (0..=HIGHEST).fold(0, |set, spatial| set | from(spatial, temporal));
        Self {
            layered: true,
            temporal: low(temporal),
            begins: vp8.starts_frame,
            needed,
            opens: if vp8.keyframe_start { ALL } else { 0 },
            steps: vp8.starts_frame && vp8.layer_sync && temporal > 0,
            ..Self::PLAIN
        }
    }

    fn of_vp9(vp9: &Vp9, top: u8) -> Self {
        let (spatial, temporal) = (low(vp9.spatial), low(vp9.temporal));
        // What no upper layer predicts from is for its own layer alone; whoever wants more than the
        // stream has gets the highest that it has.
        let wants = |target: &u8| match (*target).min(top) {
            target if target == spatial => true,
            target => target > spatial && !vp9.not_for_upper,
        };
        let needed =
            (0..=HIGHEST).filter(wants).fold(0, |set, target| set | from(target, temporal));
        Self {
            layered: vp9.layered,
            spatial,
            temporal,
            top,
            begins: vp9.starts_frame,
            ends: vp9.ends_frame,
            needed: if vp9.layered { needed } else { ALL },
            opens: if vp9.keyframe_start { ALL } else { 0 },
            steps: false,
            lifts: vp9.starts_frame && vp9.switching_up,
        }
    }

    /// Whether the packet is the last one of its picture for who gets a target.
    pub(super) fn is_last_for(&self, target: Target) -> bool {
        self.ends && self.spatial == target.spatial.min(self.top)
    }

    /// Where its packets are counted.
    pub(super) const fn place(&self) -> Place {
        let above = if self.spatial < self.top { from(self.spatial + 1, self.temporal) } else { 0 };
        Place {
            spatial: self.spatial,
            temporal: self.temporal,
            shared: above != 0 && self.needed & above != 0,
        }
    }
}

/// Numbers in a payload that have to go on when the stream is switched.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Ids {
    /// Picture id: offset, value, and whether it has 15 bits (else 7).
    pub(super) picture: Option<(usize, u16, bool)>,
    /// TL0PICIDX: offset and value.
    pub(super) tl0: Option<(usize, u8)>,
    /// KEYIDX: offset and value, 5 bits.
    pub(super) key: Option<(usize, u8)>,
    /// A picture left out leaves no gap in the picture ids: VP8 receivers wait for what is missing,
    /// while VP9 pictures name each other by distance.
    pub(super) dense: bool,
}

impl Ids {
    /// Those of a payload.
    pub(super) fn of(codec: Codec, payload: &[u8]) -> Self {
        match codec {
            Codec::Vp8 => Vp8::parse(payload).map_or_else(Self::default, |vp8| Self::of_vp8(&vp8)),
            Codec::Vp9 => Vp9::parse(payload).map_or_else(Self::default, |vp9| Self::of_vp9(&vp9)),
            Codec::Opus | Codec::Red | Codec::H264 | Codec::Av1 | Codec::Other => Self::default(),
        }
    }

    const fn of_vp8(vp8: &Vp8) -> Self {
        Self {
            picture: vp8.picture_id,
            tl0: vp8.tl0_picture_index,
            key: vp8.key_index,
            dense: true,
        }
    }

    const fn of_vp9(vp9: &Vp9) -> Self {
        Self { picture: vp9.picture_id, tl0: vp9.tl0_picture_index, key: None, dense: false }
    }
}

/// What a packet tells of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Reading {
    /// Its frame.
    pub(super) frame: Frame,
    /// Its numbers.
    pub(super) ids: Ids,
    /// A subscription can begin here.
    pub(super) keyframe_start: bool,
}

/// What one stream has told of its layers.
#[derive(Debug)]
pub(super) struct Frames {
    descriptors: Descriptors,
    /// The decode target for each target of ours, under the structure and the active ones of now.
    table: [u8; LAYERS * LAYERS],
    active: u32,
    highest: (u8, u8),
    top: Top,
}

/// The highest spatial layer of a VP9 stream: told with keyframes, else seen.
#[derive(Clone, Copy, Debug, Default)]
struct Top {
    layer: u8,
    /// Highest of the picture at hand, and its media clock.
    picture: Option<(u32, u8)>,
    missed: u8,
}

impl Default for Frames {
    fn default() -> Self {
        Self {
            descriptors: Descriptors::default(),
            table: [NO_TARGET; LAYERS * LAYERS],
            active: 0,
            highest: (0, 0),
            top: Top::default(),
        }
    }
}

impl Frames {
    /// Reads a packet. Without payload it is padding, and tells nothing.
    pub(super) fn read(
        &mut self,
        codec: Codec,
        timestamp: u32,
        payload: &[u8],
        descriptor: &[u8],
    ) -> Reading {
        let nothing = Reading { frame: Frame::PLAIN, ids: Ids::default(), keyframe_start: false };
        if payload.is_empty() {
            return nothing;
        }
        let start = |frame| Reading { frame, ..nothing };
        match codec {
            Codec::Vp8 => Vp8::parse(payload).map_or(nothing, |vp8| Reading {
                // A sender that describes its frames leaves the temporal layer out of the payload.
                frame: match vp8.temporal {
                    Some(_) => Frame::of_vp8(&vp8),
                    None => self.described(descriptor).unwrap_or(Frame::PLAIN),
                },
                ids: Ids::of_vp8(&vp8),
                keyframe_start: vp8.keyframe_start,
            }),
            Codec::Vp9 => Vp9::parse(payload).map_or(nothing, |vp9| {
                let top = self.top.see(&vp9, timestamp);
                let frame = self.described(descriptor);
                Reading {
                    frame: frame.unwrap_or_else(|| Frame::of_vp9(&vp9, top)),
                    ids: Ids::of_vp9(&vp9),
                    keyframe_start: vp9.keyframe_start,
                }
            }),
            Codec::H264 | Codec::Av1 | Codec::Other => {
                start(self.described(descriptor).unwrap_or(Frame::PLAIN))
            }
            Codec::Opus | Codec::Red => nothing,
        }
    }

    /// The newest structure, and which of its decode targets are being produced.
    pub(super) fn structure(&self) -> Option<(&Structure, u32)> {
        Some((self.descriptors.structure()?, self.active))
    }

    /// The frame as its descriptor has it. `None`: no descriptor, or none that can be understood.
    fn described(&mut self, bytes: &[u8]) -> Option<Frame> {
        if bytes.is_empty() {
            return None;
        }
        let found = self.descriptors.read(bytes)?;
        if found.has_structure || self.descriptors.active() != self.active {
            self.tabulate();
        }
        let mut frame = Frame {
            layered: self.highest != (0, 0),
            spatial: low(found.spatial),
            temporal: low(found.temporal),
            top: low(self.top_target().max(found.spatial)),
            begins: found.starts_frame,
            ends: found.ends_frame,
            ..Frame::PLAIN
        };
        if frame.layered {
            (frame.needed, frame.opens) = self.sets(&found);
        }
        Some(frame)
    }

    fn sets(&self, found: &Descriptor) -> (Set, Set) {
        use super::descriptor::Indication::{Discardable, NotPresent, Required, Switch};
        let (mut needed, mut opens) = (0, 0);
        for (bit, target) in self.table.iter().enumerate() {
            let set = 1 << bit;
            if *target == NO_TARGET {
                // Nothing of this target is produced: it gets what is not above it.
                let (spatial, temporal) = (bit / LAYERS, bit % LAYERS);
                let fits = usize::from(found.spatial) <= spatial
                    && usize::from(found.temporal) <= temporal;
                needed |= if fits { set } else { 0 };
                continue;
            }
            match found.indication(*target) {
                NotPresent => {}
                Discardable | Required => needed |= set,
                Switch => (needed, opens) = (needed | set, opens | set),
            }
        }
        (needed, opens)
    }

    fn tabulate(&mut self) {
        self.active = self.descriptors.active();
        let Some(structure) = self.descriptors.structure() else { return };
        self.highest = structure.highest();
        for (bit, slot) in self.table.iter_mut().enumerate() {
            let whole = |layer: usize| {
                // Our highest stands for everything above it too.
                if layer == LAYERS - 1 { u8::MAX } else { layer as u8 }
            };
            let (spatial, temporal) = (whole(bit / LAYERS), whole(bit % LAYERS));
            *slot = structure.target(spatial, temporal, self.active).unwrap_or(NO_TARGET);
        }
    }

    /// The highest spatial layer of the decode targets being produced.
    fn top_target(&self) -> u8 {
        let highest = self.table.last().copied().unwrap_or(NO_TARGET);
        let structure = self.descriptors.structure();
        structure.and_then(|structure| structure.layer(highest)).map_or(0, |(spatial, _)| spatial)
    }
}

impl Top {
    fn see(&mut self, vp9: &Vp9, timestamp: u32) -> u8 {
        let spatial = low(vp9.spatial);
        if let Some(structure) = vp9.structure {
            (self.layer, self.missed) = (low(structure.spatial_layers.saturating_sub(1)), 0);
        }
        if spatial >= self.layer {
            (self.layer, self.missed) = (spatial, 0);
        }
        match &mut self.picture {
            Some((at, highest)) if *at == timestamp => *highest = spatial.max(*highest),
            Some((at, highest)) if timestamp.wrapping_sub(*at) < 1 << 31 => {
                if *highest < self.layer {
                    self.missed += 1;
                    if self.missed >= LOST_TOP {
                        (self.layer, self.missed) = (*highest, 0);
                    }
                }
                (*at, *highest) = (timestamp, spatial);
            }
            // A late one tells nothing.
            Some(_) => {}
            None => self.picture = Some((timestamp, spatial)),
        }
        self.layer
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// P, B and E, Z; spatial and temporal layer.
    fn vp9(frames: &mut Frames, at: u32, layer: (u8, u8), key: bool, alone: bool) -> Frame {
        let first = 0xAC | u8::from(!key) << 6 | u8::from(alone);
        let payload = [first, 0x81, at as u8, layer.1 << 5 | layer.0 << 1, 0, 0xAA];
        frames.read(Codec::Vp9, at, &payload, &[]).frame
    }

    #[test]
    fn layers_that_stand_alone_are_for_their_own_viewers_only() {
        let mut frames = Frames::default();
        for spatial in 0..3 {
            vp9(&mut frames, 1, (spatial, 0), true, false);
        }
        let low = vp9(&mut frames, 2, (0, 1), false, true);
        assert_eq!(low.needed, from(0, 1));
        let top = vp9(&mut frames, 2, (2, 1), false, true);
        assert_eq!(top.needed, from(2, 1) | from(3, 1), "and of those who want even more");
        let key = vp9(&mut frames, 3, (0, 0), true, false);
        assert_eq!((key.needed, key.opens), (ALL, ALL));
        assert!(key.place().shared && !low.place().shared);
    }

    #[test]
    fn a_top_layer_that_stopped_is_given_up() {
        let mut frames = Frames::default();
        for spatial in 0..3 {
            vp9(&mut frames, 1, (spatial, 0), true, false);
        }
        let mut tops = (2..30).map(|at| {
            vp9(&mut frames, at, (0, 0), false, true);
            vp9(&mut frames, at, (1, 0), false, true).top
        });
        assert_eq!(tops.next(), Some(2));
        assert_eq!(tops.last(), Some(1));
    }

    #[test]
    fn bytes_at_random_are_survived() {
        use rand_chacha::rand_core::{Rng as _, SeedableRng as _};
        let mut rng = crate::core::Rng::seed_from_u64(5);
        let mut frames = Frames::default();
        let codecs = [Codec::Vp8, Codec::Vp9, Codec::Av1, Codec::H264, Codec::Opus, Codec::Other];
        for _ in 0..20_000 {
            let mut bytes = [0; 40];
            rng.fill_bytes(&mut bytes);
            let (payload, descriptor) = bytes.split_at(rng.next_u32() as usize % 40);
            for codec in codecs {
                let read = frames.read(codec, rng.next_u32(), payload, descriptor);
                assert!(read.frame.spatial <= HIGHEST && read.frame.top <= HIGHEST);
            }
        }
    }
}
