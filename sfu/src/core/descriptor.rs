//! The dependency descriptor (AV1 RTP specification, appendix A): which frames a receiver of some
//! layer needs, told in a header extension that also end-to-end encryption leaves readable.
//!
//! A stream tells its *structure* with each keyframe: templates of frames, and the decode targets
//! (combinations of spatial and temporal layer) somebody may want. Every other packet names a
//! template and what differs from it. All is kept in arrays of fixed size, and what exceeds them is
//! refused.

mod bits;
mod rewrite;
mod structure;
#[cfg(test)]
mod tests;

use bits::Reader;
pub use rewrite::mask_targets;
pub use structure::Structure;
use structure::{MAX_CHAINS, MAX_DIFFERENCES, MAX_TARGETS};

/// What a frame is to a decode target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Indication {
    /// Not for this target.
    NotPresent,
    /// For this target, and nothing later predicts from it.
    Discardable,
    /// From here on the target can be decoded, if its chain is whole.
    Switch,
    /// Later frames of the target predict from it.
    Required,
}

impl Indication {
    const fn from_bits(bits: u64) -> Self {
        match bits & 3 {
            0 => Self::NotPresent,
            1 => Self::Discardable,
            2 => Self::Switch,
            _ => Self::Required,
        }
    }
}

/// One packet's descriptor, understood by the structure in force.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Descriptor {
    /// First packet of the frame.
    pub starts_frame: bool,
    /// Last packet of the frame.
    pub ends_frame: bool,
    /// Counts the frames of all layers.
    pub frame_number: u16,
    /// Spatial layer of the frame.
    pub spatial: u8,
    /// Temporal layer of the frame.
    pub temporal: u8,
    /// The packet carries a structure, as the first of a keyframe does.
    pub has_structure: bool,
    /// Width and height of the frame's spatial layer, if the structure tells them.
    pub resolution: Option<(u16, u16)>,
    /// The decode targets the packet says are being produced, one bit each.
    pub active_targets: Option<u32>,
    /// The decode targets being produced as far as is known with this packet.
    pub active: u32,
    /// Two bits for each target, the first target lowest.
    indications: u64,
    /// Distance to the previous frame of each chain.
    chains: [u8; MAX_CHAINS],
    /// Distances to the frames this one predicts from.
    differences: [u16; MAX_DIFFERENCES],
    difference_count: u8,
}

impl Descriptor {
    /// Whether a receiver of this layer needs the frame; the others may be spared it. Where the
    /// layer is not produced, what is meant is the best one below it.
    #[must_use]
    pub fn needed_for(&self, structure: &Structure, spatial: u8, temporal: u8) -> bool {
        match structure.target(spatial, temporal, self.active) {
            Some(target) => self.indication(target) != Indication::NotPresent,
            None => self.spatial <= spatial && self.temporal <= temporal,
        }
    }

    /// Whether a receiver may begin to decode this layer here, if it has all of the layer's chain.
    #[must_use]
    pub fn switch_at(&self, structure: &Structure, spatial: u8, temporal: u8) -> bool {
        structure
            .target(spatial, temporal, self.active)
            .is_some_and(|target| self.indication(target) == Indication::Switch)
    }

    /// What the frame is to a decode target.
    #[must_use]
    pub fn indication(&self, target: u8) -> Indication {
        let shift = u32::from(target) * 2;
        Indication::from_bits(self.indications.checked_shr(shift).unwrap_or_default())
    }

    /// How many frames ago the previous frame of a chain was; `None` at the chain's start.
    #[must_use]
    pub fn chain_difference(&self, chain: u8) -> Option<u8> {
        self.chains.get(usize::from(chain)).copied().filter(|difference| *difference != 0)
    }

    /// How many frames ago each frame was from which this one predicts.
    #[must_use]
    pub fn differences(&self) -> &[u16] {
        self.differences.get(..usize::from(self.difference_count)).unwrap_or_default()
    }
}

/// Two frames further apart than this are of different lives of a stream, not reordered.
const REORDERED: u16 = 512;

/// The newest structure of one stream, by which its packets are understood.
#[derive(Clone, Debug, Default)]
pub struct Descriptors {
    /// Kept once a stream shows to have descriptors.
    structure: Option<Box<Structure>>,
    active: u32,
    /// Frame numbers at which the structure and the active targets were told.
    told: (u16, u16),
}

impl Descriptors {
    /// Reads a packet's descriptor. `None` when it is malformed, or its structure is not known.
    pub fn read(&mut self, bytes: &[u8]) -> Option<Descriptor> {
        let fields = Fields::read(bytes)?;
        if fields.has_structure {
            let (new, mut fields) = fields.read_structure()?;
            let found = fields.finish(&new)?;
            self.learn(new, &found);
            return Some(found);
        }
        let mut fields = fields;
        let mut found = fields.finish(self.structure.as_deref()?)?;
        self.follow(found.frame_number);
        match found.active_targets {
            Some(active) if !is_before(found.frame_number, self.told.1) => {
                (self.active, self.told.1) = (active, found.frame_number);
            }
            Some(_) => {}
            None => found.active = self.active,
        }
        Some(found)
    }

    /// Takes a structure; a late keyframe does not undo a newer one.
    fn learn(&mut self, new: Structure, found: &Descriptor) {
        match &mut self.structure {
            Some(_) if is_before(found.frame_number, self.told.0) => return,
            Some(kept) => **kept = new,
            None => self.structure = Some(Box::new(new)),
        }
        self.active = found.active;
        self.told = (found.frame_number, found.frame_number);
    }

    /// Keeps what was told long ago from looking like the future when frame numbers wrap.
    const fn follow(&mut self, frame: u16) {
        if matches!(frame.wrapping_sub(self.told.0), 0x4000..0x8000) {
            self.told.0 = frame.wrapping_sub(2 * REORDERED);
        }
        if matches!(frame.wrapping_sub(self.told.1), 0x4000..0x8000) {
            self.told.1 = frame.wrapping_sub(2 * REORDERED);
        }
    }

    /// The newest structure.
    #[must_use]
    pub fn structure(&self) -> Option<&Structure> {
        self.structure.as_deref()
    }

    /// The decode targets being produced, one bit each.
    #[must_use]
    pub const fn active(&self) -> u32 {
        self.active
    }
}

/// Whether a frame number is a little older than another.
const fn is_before(frame: u16, other: u16) -> bool {
    let distance = other.wrapping_sub(frame);
    distance != 0 && distance <= REORDERED
}

/// The head of a descriptor, and the reader behind it.
struct Fields<'a> {
    rest: Reader<'a>,
    starts_frame: bool,
    ends_frame: bool,
    template: u8,
    frame_number: u16,
    has_structure: bool,
    has_active: bool,
    custom_indications: bool,
    custom_differences: bool,
    custom_chains: bool,
}

/// Bytes of a descriptor that has nothing but the mandatory fields.
const MANDATORY: usize = 3;

impl<'a> Fields<'a> {
    fn read(bytes: &'a [u8]) -> Option<Self> {
        let mut rest = Reader::new(bytes);
        let (starts_frame, ends_frame) = (rest.flag()?, rest.flag()?);
        let (template, frame_number) = (rest.byte(6)?, rest.word(16)?);
        let extended = bytes.len() > MANDATORY;
        let mut flag = || if extended { rest.flag() } else { Some(false) };
        Some(Self {
            starts_frame,
            ends_frame,
            template,
            frame_number,
            has_structure: flag()?,
            has_active: flag()?,
            custom_indications: flag()?,
            custom_differences: flag()?,
            custom_chains: flag()?,
            rest,
        })
    }

    /// Reads the structure that `has_structure` promises.
    fn read_structure(mut self) -> Option<(Structure, Self)> {
        let structure = Structure::read(&mut self.rest)?;
        Some((structure, self))
    }

    /// Reads what follows the structure: the active targets, and what differs from the template.
    fn finish(&mut self, structure: &Structure) -> Option<Descriptor> {
        let rest = &mut self.rest;
        let all = structure.all_targets();
        let told = if self.has_active { Some(rest.bits(structure.targets())?) } else { None };
        let active_targets = told.or_else(|| self.has_structure.then_some(all));
        let template = structure.template(self.template)?;
        let mut found = Descriptor {
            starts_frame: self.starts_frame,
            ends_frame: self.ends_frame,
            frame_number: self.frame_number,
            spatial: template.spatial,
            temporal: template.temporal,
            has_structure: self.has_structure,
            resolution: structure.resolution(template.spatial),
            active_targets,
            active: active_targets.unwrap_or(all),
            indications: template.indications,
            chains: [0; MAX_CHAINS],
            differences: [0; MAX_DIFFERENCES],
            difference_count: 0,
        };
        if self.custom_indications {
            found.indications = read_indications(rest, structure.targets())?;
        }
        if self.custom_differences {
            found.read_differences(rest)?;
        } else {
            for (to, from) in found.differences.iter_mut().zip(template.differences()) {
                *to = u16::from(from);
                found.difference_count += 1;
            }
        }
        for (chain, to) in (0..structure.chains()).zip(found.chains.iter_mut()) {
            *to = if self.custom_chains { rest.byte(8)? } else { template.chain_difference(chain) };
        }
        Some(found)
    }
}

impl Descriptor {
    /// Differences of the frame itself: each has its size before it, and a size of 0 ends the list.
    fn read_differences(&mut self, rest: &mut Reader<'_>) -> Option<()> {
        loop {
            let nibbles = rest.bits(2)?;
            if nibbles == 0 {
                return Some(());
            }
            let slot = self.differences.get_mut(usize::from(self.difference_count))?;
            *slot = rest.word(nibbles * 4)? + 1;
            self.difference_count += 1;
        }
    }
}

/// Two bits for each target, the first target lowest.
fn read_indications(rest: &mut Reader<'_>, targets: u32) -> Option<u64> {
    let mut indications = 0;
    for target in 0..targets.min(MAX_TARGETS as u32) {
        indications |= u64::from(rest.bits(2)?) << (target * 2);
    }
    Some(indications)
}
