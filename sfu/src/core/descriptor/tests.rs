//! Descriptors made by hand, as the specification's examples are laid out, and hostile ones.

use rand_chacha::rand_core::{Rng as _, SeedableRng as _};

use super::bits::Writer;
use super::*;

/// Spatial and temporal layer, indications, differences, chain differences.
type Kind<'a> = (u8, u8, &'a str, &'a [u32], &'a [u32]);

struct Layout<'a> {
    kinds: &'a [Kind<'a>],
    /// The chain of each target.
    protected_by: &'a [u32],
    chains: u32,
    sizes: &'a [(u32, u32)],
}

const L1T3: Layout<'_> = Layout {
    kinds: &[
        (0, 0, "SSS", &[], &[0]),
        (0, 0, "SSS", &[4], &[4]),
        (0, 1, "-DS", &[2], &[2]),
        (0, 2, "--D", &[1], &[1]),
        (0, 2, "--D", &[1], &[3]),
    ],
    protected_by: &[0, 0, 0],
    chains: 1,
    sizes: &[(640, 360)],
};

const L3T3_KEY: Layout<'_> = Layout {
    kinds: &[
        (0, 0, "SSSSSSSSS", &[], &[0, 0, 0]),
        (0, 0, "SSS------", &[12], &[12, 11, 10]),
        (0, 1, "-DS------", &[6], &[6, 5, 4]),
        (0, 2, "--D------", &[3], &[3, 2, 1]),
        (1, 0, "---SSSSSS", &[1], &[1, 1, 1]),
        (1, 0, "---SSS---", &[12], &[1, 12, 11]),
        (1, 1, "----DS---", &[6], &[7, 6, 5]),
        (1, 2, "-----D---", &[3], &[4, 3, 2]),
        (2, 0, "------SSS", &[1], &[2, 1, 1]),
        (2, 0, "------SSS", &[12], &[2, 1, 12]),
        (2, 1, "-------DS", &[6], &[8, 7, 6]),
        (2, 2, "--------D", &[3], &[5, 4, 3]),
    ],
    protected_by: &[0, 0, 0, 1, 1, 1, 2, 2, 2],
    chains: 3,
    sizes: &[(160, 90), (320, 180), (640, 360)],
};

const L3T3: Layout<'_> = Layout {
    kinds: &[
        (0, 0, "SSSSSSSSS", &[], &[0, 0, 0]),
        (0, 0, "SSSRRRRRR", &[12], &[12, 11, 10]),
        (0, 1, "-DS-RR-RR", &[6], &[6, 5, 4]),
        (0, 2, "--D--R--R", &[3], &[3, 2, 1]),
        (1, 0, "---SSSSSS", &[1], &[1, 1, 1]),
        (1, 0, "---SSSRRR", &[12, 1], &[1, 1, 11]),
        (1, 1, "----DS-RR", &[6, 1], &[7, 6, 5]),
        (1, 2, "-----D--R", &[3, 1], &[4, 3, 2]),
        (2, 0, "------SSS", &[1], &[2, 1, 1]),
        (2, 0, "------SSS", &[12, 1], &[2, 1, 1]),
        (2, 1, "-------DS", &[6, 1], &[8, 7, 6]),
        (2, 2, "--------D", &[3, 1], &[5, 4, 3]),
    ],
    protected_by: &[0, 0, 0, 1, 1, 1, 2, 2, 2],
    chains: 3,
    sizes: &[(160, 90), (320, 180), (640, 360)],
};

fn bits_of(indications: &str) -> impl Iterator<Item = u32> {
    indications.chars().map(|c| "-DSR".find(c).unwrap() as u32)
}

/// `ns(n)` of the AV1 specification.
fn write_below(writer: &mut Writer<'_>, bound: u32, value: u32) {
    let width = u32::BITS - bound.leading_zeros();
    let short = (1 << width) - bound;
    if value < short {
        writer.bits(width - 1, value).unwrap();
    } else {
        writer.bits(width, value + short).unwrap();
    }
}

impl Layout<'_> {
    fn targets(&self) -> u32 {
        self.protected_by.len() as u32
    }

    fn write(&self, writer: &mut Writer<'_>, first_template: u32) {
        writer.bits(6, first_template).unwrap();
        writer.bits(5, self.targets() - 1).unwrap();
        for (index, kind) in self.kinds.iter().enumerate() {
            let step = match self.kinds.get(index + 1) {
                None => 3,
                Some(next) if next.0 > kind.0 => 2,
                Some(next) if next.1 > kind.1 => 1,
                Some(_) => 0,
            };
            writer.bits(2, step).unwrap();
        }
        for kind in self.kinds {
            bits_of(kind.2).for_each(|bits| writer.bits(2, bits).unwrap());
        }
        for kind in self.kinds {
            kind.3.iter().for_each(|diff| writer.bits(5, 16 | (diff - 1)).unwrap());
            writer.bits(1, 0).unwrap();
        }
        write_below(writer, self.targets() + 1, self.chains);
        if self.chains > 0 {
            self.protected_by.iter().for_each(|chain| write_below(writer, self.chains, *chain));
            for kind in self.kinds {
                kind.4.iter().for_each(|diff| writer.bits(4, *diff).unwrap());
            }
        }
        writer.bits(1, u32::from(!self.sizes.is_empty())).unwrap();
        for (width, height) in self.sizes {
            writer.bits(16, width - 1).unwrap();
            writer.bits(16, height - 1).unwrap();
        }
    }

    /// The descriptor of a keyframe's first packet.
    fn key(&self, first_template: u32, frame: u32) -> Vec<u8> {
        let mut bytes = [0; 255];
        let mut writer = Writer::new(&mut bytes);
        head(&mut writer, first_template, frame);
        writer.bits(5, 0b10000).unwrap();
        self.write(&mut writer, first_template);
        let len = writer.len();
        bytes[..len].to_vec()
    }

    /// Descriptors that have seen the keyframe.
    fn learnt(&self) -> Descriptors {
        let mut descriptors = Descriptors::default();
        assert!(descriptors.read(&self.key(0, 100)).unwrap().has_structure);
        descriptors
    }
}

/// Starts and ends the frame.
fn head(writer: &mut Writer<'_>, template: u32, frame: u32) {
    writer.bits(2, 0b11).unwrap();
    writer.bits(6, template).unwrap();
    writer.bits(16, frame).unwrap();
}

fn plain(template: u8, frame: u16) -> [u8; 3] {
    let [high, low] = frame.to_be_bytes();
    [0xC0 | template, high, low]
}

#[test]
fn single_stream_with_three_temporal_layers() {
    let mut descriptors = Descriptors::default();
    assert_eq!(descriptors.read(&plain(0, 99)), None, "nothing is known yet");
    let key = descriptors.read(&L1T3.key(0, 100)).unwrap();
    assert!(key.starts_frame && key.ends_frame && key.has_structure);
    assert_eq!((key.frame_number, key.spatial, key.temporal), (100, 0, 0));
    assert_eq!((key.resolution, key.active_targets), (Some((640, 360)), Some(0b111)));
    assert_eq!((key.chain_difference(0), key.differences().len()), (None, 0));

    let frame = descriptors.read(&plain(2, 102)).unwrap();
    let structure = descriptors.structure().unwrap();
    assert_eq!((structure.targets(), structure.chains(), structure.highest()), (3, 1, (0, 2)));
    assert_eq!((frame.spatial, frame.temporal, frame.has_structure), (0, 1, false));
    assert_eq!((frame.active_targets, frame.active), (None, 0b111));
    assert_eq!((frame.differences(), frame.chain_difference(0)), (&[2u16][..], Some(2)));
    let needed: Vec<_> = (0..4).map(|t| frame.needed_for(structure, 0, t)).collect();
    assert_eq!(needed, [false, true, true, true]);
    let switch: Vec<_> = (0..4).map(|t| frame.switch_at(structure, 0, t)).collect();
    assert_eq!(switch, [false, false, true, true]);
    assert_eq!(frame.indication(1), Indication::Discardable);
    assert_eq!(frame.indication(200), Indication::NotPresent);
    assert_eq!(descriptors.read(&plain(5, 103)), None, "there is no such template");
}

#[test]
fn spatial_layers_that_meet_at_keyframes() {
    let mut descriptors = L3T3_KEY.learnt();
    let structure = descriptors.structure().unwrap().clone();
    assert_eq!((structure.targets(), structure.chains(), structure.highest()), (9, 3, (2, 2)));
    let layers: Vec<_> = (0..9).map(|target| structure.layer(target).unwrap()).collect();
    assert_eq!(layers[..5], [(0, 0), (0, 1), (0, 2), (1, 0), (1, 1)]);
    assert_eq!(
        (structure.chain(0), structure.chain(8), structure.chain(9)),
        (Some(0), Some(2), None)
    );
    assert_eq!(structure.resolution(1), Some((320, 180)));
    assert_eq!(structure.resolution(3), None);

    // The keyframe's lower layers are for the upper targets too; later frames are for their own.
    let key = descriptors.read(&plain(4, 101)).unwrap();
    assert!(!key.needed_for(&structure, 0, 2) && key.needed_for(&structure, 2, 0));
    assert!(key.switch_at(&structure, 1, 0) && key.switch_at(&structure, 2, 2));
    assert_eq!(key.resolution, Some((320, 180)));
    let base = descriptors.read(&plain(1, 112)).unwrap();
    assert!(base.needed_for(&structure, 0, 0) && !base.needed_for(&structure, 1, 0));
    let top = descriptors.read(&plain(11, 114)).unwrap();
    assert!(top.needed_for(&structure, 2, 2) && !top.needed_for(&structure, 2, 1));
    assert_eq!((0..3).map(|c| top.chain_difference(c).unwrap()).collect::<Vec<_>>(), [5, 4, 3]);
    assert_eq!(top.chain_difference(3), None);
}

#[test]
fn spatial_layers_that_build_on_each_other() {
    let mut descriptors = L3T3.learnt();
    let structure = descriptors.structure().unwrap().clone();
    let base = descriptors.read(&plain(2, 106)).unwrap();
    assert!(base.needed_for(&structure, 2, 1) && !base.needed_for(&structure, 2, 0));
    assert_eq!(base.indication(4), Indication::Required);
    assert!(!base.switch_at(&structure, 2, 1), "required, but no place to begin");
    assert_eq!(descriptors.read(&plain(9, 114)).unwrap().differences(), [12, 1]);
}

#[test]
fn what_differs_from_the_template_is_read() {
    let mut descriptors = L3T3_KEY.learnt();
    let mut bytes = [0; 255];
    let mut writer = Writer::new(&mut bytes);
    head(&mut writer, 1, 700);
    writer.bits(5, 0b01111).unwrap();
    writer.bits(9, 0b0_0011_1111).unwrap();
    bits_of("SSSRRRDD-").for_each(|bits| writer.bits(2, bits).unwrap());
    for (nibbles, difference) in [(1, 16), (2, 200), (3, 4096)] {
        writer.bits(2, nibbles).unwrap();
        writer.bits(nibbles * 4, difference - 1).unwrap();
    }
    writer.bits(2, 0).unwrap();
    [200, 0, 7].into_iter().for_each(|chain| writer.bits(8, chain).unwrap());
    let len = writer.len();
    let found = descriptors.read(&bytes[..len]).unwrap();
    assert_eq!(found.active_targets, Some(0b0_0011_1111));
    assert_eq!(found.differences(), [16, 200, 4096]);
    assert_eq!(found.indication(3), Indication::Required);
    assert_eq!(found.indication(8), Indication::NotPresent);
    let chains: Vec<_> = (0..3).map(|chain| found.chain_difference(chain)).collect();
    assert_eq!(chains, [Some(200), None, Some(7)]);
    for cut in 0..len {
        assert!(L3T3_KEY.learnt().read(&bytes[..cut]).is_none_or(|_| cut == 3), "cut at {cut}");
    }

    // The upper spatial layer is no longer made: who wants it gets the best there is.
    let structure = descriptors.structure().unwrap().clone();
    let middle = descriptors.read(&plain(5, 701)).unwrap();
    assert_eq!((middle.active_targets, middle.active), (None, 0b0_0011_1111));
    assert!(middle.needed_for(&structure, 2, 2) && !middle.needed_for(&structure, 0, 2));
    assert_eq!(structure.target(2, 2, 0b0_0011_1111), Some(5));
    assert_eq!(structure.target(2, 2, 0), None);
}

#[test]
fn late_structures_and_masks_do_not_undo_newer_ones() {
    let mut descriptors = Descriptors::default();
    descriptors.read(&L3T3_KEY.key(0, 65_500)).unwrap();
    assert_eq!(descriptors.active(), 0x1FF, "the first is taken whatever its number");
    descriptors.read(&L1T3.key(20, 50)).unwrap();
    assert_eq!(descriptors.structure().unwrap().targets(), 3);
    let late = descriptors.read(&L3T3_KEY.key(0, 65_530)).unwrap();
    assert_eq!(late.active_targets, Some(0x1FF), "it is understood by itself");
    assert_eq!(descriptors.structure().unwrap().targets(), 3);
    assert_eq!(descriptors.read(&plain(4, 65_531)), None, "a template of the older structure");
    assert!(descriptors.read(&plain(20 + 4, 51)).is_some());
    let structure = descriptors.structure().unwrap().clone();
    let mut out = [0; 255];
    let len = mask_targets(&plain(21, 60), &structure, 0b001, &mut out);
    descriptors.read(&out[..len]).unwrap();
    let len = mask_targets(&plain(21, 56), &structure, 0b011, &mut out);
    assert_eq!(descriptors.read(&out[..len]).unwrap().active, 0b011);
    assert_eq!(descriptors.active(), 0b001);
    // Long after, numbers have wrapped; what is told now is news.
    for frame in (60..65_400u16).step_by(1_000) {
        descriptors.read(&plain(21, frame)).unwrap();
    }
    let len = mask_targets(&plain(21, 20), &structure, 0b111, &mut out);
    descriptors.read(&out[..len]).unwrap();
    assert_eq!(descriptors.active(), 0b111);
}

#[test]
fn a_mask_changes_nothing_else() {
    for layout in [&L1T3, &L3T3_KEY, &L3T3] {
        let structure = layout.learnt().structure().unwrap().clone();
        let key = layout.key(0, 100);
        let custom = [0xC1, 0, 9, 0b0001_0001, 0b0001_0000];
        for original in [&key[..], &plain(1, 7), &custom] {
            for active in [0b001, structure.all_targets(), u32::MAX] {
                let mut out = [0xEE; 255];
                let len = mask_targets(original, &structure, active, &mut out);
                assert!(len > 0 && len <= original.len() + 2);
                let mut before = layout.learnt().read(original).unwrap();
                let after = layout.learnt().read(&out[..len]).unwrap();
                before.active = active & structure.all_targets();
                before.active_targets = Some(before.active);
                assert_eq!(after, before);
                let mut again = [0; 255];
                assert_eq!(mask_targets(&out[..len], &structure, active, &mut again), len);
                assert_eq!(again[..len], out[..len]);
                let mut learnt = Descriptors::default();
                if learnt.read(&out[..len]).is_some() {
                    assert_eq!(learnt.structure(), Some(&structure));
                }
            }
        }
    }
    let structure = L1T3.learnt().structure().unwrap().clone();
    assert_eq!(structure.targets_up_to(0, 1), 0b011);
    assert_eq!(mask_targets(&[0xC0, 0], &structure, 1, &mut [0; 255]), 0, "cut short");
    assert_eq!(mask_targets(&plain(40, 7), &structure, 1, &mut [0; 255]), 0, "no such template");
}

#[test]
fn keyframes_need_the_long_form_of_extensions() {
    assert!(L3T3_KEY.key(0, 1).len() > 16 && L3T3_KEY.key(0, 1).len() < 80);
    assert!(L1T3.key(0, 1).len() > 16);
}

#[test]
fn what_is_too_much_is_refused() {
    let mut learnt = Descriptors::default();
    let kinds = [(0, 0, "S", &[][..], &[][..]); 64];
    let many =
        |kinds: &[Kind<'_>]| Layout { kinds, protected_by: &[0], chains: 0, sizes: &[] }.key(0, 1);
    assert!(learnt.read(&many(&kinds)).is_some(), "64 templates");
    let kinds = [(0, 0, "S", &[][..], &[][..]); 65];
    assert_eq!(learnt.read(&many(&kinds)), None);
    let kinds: Vec<_> = (0..5).map(|spatial| (spatial, 0, "S", &[][..], &[][..])).collect();
    assert!(learnt.read(&many(&kinds[..4])).is_some());
    assert_eq!(learnt.read(&many(&kinds)), None, "a fifth spatial layer");
    let nine = [(0, 0, "S", &[1u32; 9][..], &[][..])];
    assert_eq!(learnt.read(&many(&nine)), None, "nine references");
    let wide = [(0, 0, "SSSSSSSSSSSSSSSSSSSSSSSSSSSSSSSS", &[1u32; 8][..], &[1u32; 32][..])];
    let chains: Vec<u32> = (0..32).collect();
    let widest = Layout { kinds: &wide, protected_by: &chains, chains: 32, sizes: &[(1 << 16, 1)] };
    let found = learnt.read(&widest.key(63, 2)).unwrap();
    assert_eq!((found.active, found.indication(31)), (u32::MAX, Indication::Switch));
    assert_eq!((found.chain_difference(31), found.resolution), (Some(1), Some((u16::MAX, 1))));
    assert_eq!((found.differences().len(), learnt.structure().unwrap().chain(31)), (8, Some(31)));
}

#[test]
fn cut_flipped_and_random_bytes_are_survived() {
    let mut rng = crate::core::Rng::from_seed([5; 32]);
    let learnt = L3T3_KEY.learnt();
    let structure = learnt.structure().unwrap();
    let mut out = [0; 255];
    for layout in [&L1T3, &L3T3_KEY, &L3T3] {
        let key = layout.key(0, 100);
        for cut in 0..key.len() {
            assert_eq!(Descriptors::default().read(&key[..cut]), None, "cut at {cut}");
            assert_eq!(mask_targets(&key[..cut], structure, 1, &mut out) > 0, cut == 3);
        }
        for bit in 0..key.len() * 8 {
            let mut key = key.clone();
            key[bit / 8] ^= 0x80 >> (bit % 8);
            let _ = learnt.clone().read(&key);
            assert!(mask_targets(&key, structure, 1, &mut out) <= 255);
        }
    }
    let mut open = learnt.clone();
    for _ in 0..20_000 {
        let mut bytes = [0; 255];
        rng.fill_bytes(&mut bytes);
        let bytes = &bytes[..rng.next_u32() as usize % 256];
        if let Some(found) = open.read(bytes) {
            let structure = open.structure().unwrap();
            assert!(found.spatial < 4 && found.temporal < 8 && found.differences().len() <= 8);
            let _ = found.needed_for(structure, 1, 1) | found.switch_at(structure, 3, 7);
        }
        let _ = mask_targets(bytes, structure, rng.next_u32(), &mut out);
    }
}
