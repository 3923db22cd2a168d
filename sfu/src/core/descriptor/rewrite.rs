//! Telling one receiver that it gets fewer layers than the sender makes.

use super::bits::Writer;
use super::{Fields, Structure};

/// Copies a descriptor with `active` as its active decode targets, and returns the length of what is
/// in `out`. `structure` is the one in force where the descriptor brings none.
///
/// A decoder shows the highest active spatial layer, and waits for it: who is sent less than all
/// must be told so, with each structure and at each change, until the packet has arrived. Returns 0
/// when the descriptor is malformed or the result does not fit; then it is to be left as it is.
#[must_use]
pub fn mask_targets(
    descriptor: &[u8],
    structure: &Structure,
    active: u32,
    out: &mut [u8; 255],
) -> usize {
    try_mask(descriptor, structure, active, out).unwrap_or(0)
}

/// Bits in front of the extended fields.
const MANDATORY_BITS: usize = 24;

fn try_mask(bytes: &[u8], known: &Structure, active: u32, out: &mut [u8; 255]) -> Option<usize> {
    let mut fields = Fields::read(bytes)?;
    let mut copied = fields.rest;
    let extended = copied.position() > MANDATORY_BITS;
    let own;
    let structure = if fields.has_structure {
        (own, fields) = fields.read_structure()?;
        &own
    } else {
        known
    };
    let targets = structure.targets();
    let structure_end = fields.rest.position();
    let custom = structure_end + if fields.has_active { targets as usize } else { 0 };
    fields.finish(structure)?;
    let end = fields.rest.position();

    let mut writer = Writer::new(out);
    copied.seek(0);
    writer.copy(&mut copied, MANDATORY_BITS)?;
    let flags = if extended { copied.bits(5)? } else { 0 };
    writer.bits(5, flags | 0b01000)?;
    writer.copy(&mut copied, structure_end)?;
    writer.bits(targets, active & structure.all_targets())?;
    copied.seek(custom);
    writer.copy(&mut copied, end)?;
    Some(writer.len())
}
