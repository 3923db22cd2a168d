//! The template dependency structure: what the frames of a stream are to its decode targets.

use super::bits::Reader;
use super::read_indications;

/// The id of a template has six bits.
pub(super) const MAX_TEMPLATES: usize = 64;
/// Five bits count the decode targets.
pub(super) const MAX_TARGETS: usize = 32;
/// There are at most as many chains as targets.
pub(super) const MAX_CHAINS: usize = 32;
/// An AV1 decoder keeps eight pictures.
pub(super) const MAX_DIFFERENCES: usize = 8;
/// An AV1 spatial id has two bits.
const MAX_SPATIAL: usize = 4;
/// An AV1 temporal id has three bits.
const MAX_TEMPORAL: u8 = 8;

/// One kind of frame.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Template {
    /// Four bits for each chain, the first lowest.
    chains: u128,
    /// Two bits for each target, the first lowest.
    pub(super) indications: u64,
    /// Four bits for each difference, less one, the first lowest.
    differences: u32,
    difference_count: u8,
    pub(super) spatial: u8,
    pub(super) temporal: u8,
}

impl Template {
    /// Distance to the previous frame of a chain; 0 at its start.
    pub(super) const fn chain_difference(&self, chain: u8) -> u8 {
        (self.chains >> (chain as u32 % 32 * 4)) as u8 & 15
    }

    /// Distances to the frames it predicts from.
    pub(super) fn differences(&self) -> impl Iterator<Item = u8> {
        (0..u32::from(self.difference_count))
            .map(|index| (self.differences >> (index * 4)) as u8 % 16 + 1)
    }

    fn read_differences(&mut self, rest: &mut Reader<'_>) -> Option<()> {
        while rest.flag()? {
            if usize::from(self.difference_count) == MAX_DIFFERENCES {
                return None;
            }
            self.differences |= rest.bits(4)? << (u32::from(self.difference_count) * 4);
            self.difference_count += 1;
        }
        Some(())
    }
}

/// One decode target.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct DecodeTarget {
    spatial: u8,
    temporal: u8,
    /// The chain that protects it.
    chain: u8,
}

/// What a stream is made of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Structure {
    templates: [Template; MAX_TEMPLATES],
    template_count: u8,
    /// Id of the first template.
    first_template: u8,
    targets: [DecodeTarget; MAX_TARGETS],
    target_count: u8,
    chain_count: u8,
    resolutions: [(u16, u16); MAX_SPATIAL],
    resolution_count: u8,
    max_spatial: u8,
    max_temporal: u8,
}

impl Structure {
    /// Reads one; `None` when it ends early or exceeds what AV1 allows.
    pub(super) fn read(rest: &mut Reader<'_>) -> Option<Self> {
        let mut new = Self {
            templates: [Template::default(); MAX_TEMPLATES],
            template_count: 0,
            first_template: rest.byte(6)?,
            targets: [DecodeTarget::default(); MAX_TARGETS],
            target_count: rest.byte(5)? + 1,
            chain_count: 0,
            resolutions: [(0, 0); MAX_SPATIAL],
            resolution_count: 0,
            max_spatial: 0,
            max_temporal: 0,
        };
        new.read_layers(rest)?;
        let targets = new.targets();
        let kinds = usize::from(new.template_count);
        for template in new.templates.iter_mut().take(kinds) {
            template.indications = read_indications(rest, targets)?;
        }
        for template in new.templates.iter_mut().take(kinds) {
            template.read_differences(rest)?;
        }
        new.read_chains(rest)?;
        new.find_layers_of_targets();
        if rest.flag()? {
            new.read_resolutions(rest)?;
        }
        Some(new)
    }

    fn read_layers(&mut self, rest: &mut Reader<'_>) -> Option<()> {
        let (mut spatial, mut temporal) = (0u8, 0u8);
        for template in &mut self.templates {
            (template.spatial, template.temporal) = (spatial, temporal);
            self.template_count += 1;
            self.max_spatial = spatial;
            self.max_temporal = self.max_temporal.max(temporal);
            match rest.bits(2)? {
                0 => {}
                1 => temporal += 1,
                2 => (spatial, temporal) = (spatial + 1, 0),
                _ => return Some(()),
            }
            if usize::from(spatial) == MAX_SPATIAL || temporal == MAX_TEMPORAL {
                return None;
            }
        }
        None
    }

    fn read_chains(&mut self, rest: &mut Reader<'_>) -> Option<()> {
        let count = rest.below(self.targets() + 1)?;
        self.chain_count = u8::try_from(count).ok()?;
        if count == 0 {
            return Some(());
        }
        for target in self.targets.iter_mut().take(usize::from(self.target_count)) {
            target.chain = u8::try_from(rest.below(count)?).ok()?;
        }
        for template in self.templates.iter_mut().take(usize::from(self.template_count)) {
            for chain in 0..count {
                template.chains |= u128::from(rest.bits(4)?) << (chain * 4);
            }
        }
        Some(())
    }

    /// A target's layer is the highest of the frames that are for it.
    fn find_layers_of_targets(&mut self) {
        let templates = self.templates.iter().take(usize::from(self.template_count));
        for template in templates {
            for (index, target) in self.targets.iter_mut().enumerate() {
                if template.indications >> (index * 2) & 3 != 0 {
                    target.spatial = target.spatial.max(template.spatial);
                    target.temporal = target.temporal.max(template.temporal);
                }
            }
        }
    }

    fn read_resolutions(&mut self, rest: &mut Reader<'_>) -> Option<()> {
        for resolution in self.resolutions.iter_mut().take(usize::from(self.max_spatial) + 1) {
            let (width, height) = (rest.word(16)?, rest.word(16)?);
            *resolution = (width.saturating_add(1), height.saturating_add(1));
            self.resolution_count += 1;
        }
        Some(())
    }

    /// The template with an id.
    pub(super) fn template(&self, id: u8) -> Option<&Template> {
        let index = id.wrapping_sub(self.first_template) % MAX_TEMPLATES as u8;
        self.templates.get(..usize::from(self.template_count))?.get(usize::from(index))
    }

    /// The number of decode targets, 1 to 32.
    #[must_use]
    pub fn targets(&self) -> u32 {
        u32::from(self.target_count)
    }

    /// All decode targets, one bit each.
    #[must_use]
    pub fn all_targets(&self) -> u32 {
        u32::MAX >> (MAX_TARGETS as u32).saturating_sub(self.targets()).min(31)
    }

    /// The number of chains.
    #[must_use]
    pub const fn chains(&self) -> u8 {
        self.chain_count
    }

    /// The highest spatial and temporal layer.
    #[must_use]
    pub const fn highest(&self) -> (u8, u8) {
        (self.max_spatial, self.max_temporal)
    }

    /// Width and height of a spatial layer, if they are told.
    #[must_use]
    pub fn resolution(&self, spatial: u8) -> Option<(u16, u16)> {
        self.resolutions
            .get(..usize::from(self.resolution_count))?
            .get(usize::from(spatial))
            .copied()
    }

    /// The spatial and temporal layer of a decode target.
    #[must_use]
    pub fn layer(&self, target: u8) -> Option<(u8, u8)> {
        let targets = self.targets.get(..usize::from(self.target_count))?;
        targets.get(usize::from(target)).map(|target| (target.spatial, target.temporal))
    }

    /// The chain that protects a decode target.
    #[must_use]
    pub fn chain(&self, target: u8) -> Option<u8> {
        let targets = self.targets.get(..usize::from(self.target_count))?;
        let target = targets.get(usize::from(target))?;
        (target.chain < self.chain_count).then_some(target.chain)
    }

    /// The best of the `active` decode targets that is not above a layer: the highest spatial layer
    /// first, then the highest temporal one.
    #[must_use]
    pub fn target(&self, spatial: u8, temporal: u8, active: u32) -> Option<u8> {
        let mut best: Option<(u8, DecodeTarget)> = None;
        let targets = self.targets.iter().take(usize::from(self.target_count));
        for (index, target) in (0u8..).zip(targets) {
            let fits = target.spatial <= spatial && target.temporal <= temporal;
            let better = best.is_none_or(|(_, best)| {
                (target.spatial, target.temporal) > (best.spatial, best.temporal)
            });
            if fits && better && active >> index & 1 != 0 {
                best = Some((index, *target));
            }
        }
        best.map(|(index, _)| index)
    }

    /// The `active` bits for a receiver of one layer: all decode targets that are not above it.
    #[must_use]
    pub fn targets_up_to(&self, spatial: u8, temporal: u8) -> u32 {
        let targets = self.targets.iter().take(usize::from(self.target_count));
        (0u32..).zip(targets).fold(0, |bits, (index, target)| {
            let fits = target.spatial <= spatial && target.temporal <= temporal;
            bits | u32::from(fits) << index
        })
    }
}
