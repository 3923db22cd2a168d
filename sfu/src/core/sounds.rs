//! The newest sounds of a track, in clear: what redundancy is made of, and what tells the time of a
//! packet that is missing.

use super::protection::Load;
use super::red::{MAX_OLD, Old, Olds};

/// Packets kept: 320 ms of sound.
const SLOTS: usize = 16;
/// The longest payload kept: 190 kbit/s. Nobody repeats more.
const SLOT: usize = 480;

/// A fixed ring of about 8 KiB. Takes no memory before the first packet.
#[derive(Debug, Default)]
pub(super) struct Sounds {
    slots: Vec<Slot>,
    bytes: Vec<u8>,
}

#[derive(Clone, Copy, Debug)]
struct Slot {
    /// Extended sequence number; 0 = empty, streams begin higher.
    index: u64,
    timestamp: u32,
    /// 0 = too long to be kept.
    len: u16,
}

impl Sounds {
    /// Keeps a packet under its extended sequence number.
    pub(super) fn put(&mut self, index: u64, timestamp: u32, payload: &[u8]) {
        if self.slots.is_empty() {
            self.slots.resize(SLOTS, Slot { index: 0, timestamp: 0, len: 0 });
            self.bytes.resize(SLOTS * SLOT, 0);
        }
        let at = index as usize % SLOTS;
        let Some(slot) = self.slots.get_mut(at) else { return };
        if slot.index > index {
            return;
        }
        let place = self.bytes.get_mut(at * SLOT..at * SLOT + payload.len());
        let place = place.filter(|_| payload.len() <= SLOT);
        *slot =
            Slot { index, timestamp, len: place.as_ref().map_or(0, |place| place.len() as u16) };
        if let Some(place) = place {
            place.copy_from_slice(payload);
        }
    }

    /// Forgets everything: numbers mean other packets from now on.
    pub(super) fn clear(&mut self) {
        self.slots.clear();
    }

    /// The sounds before a packet, as far as they are here.
    pub(super) fn before(&self, index: u64, timestamp: u32) -> Olds<'_> {
        let mut olds = Olds::default();
        for (place, distance) in olds.iter_mut().rev().zip(1..=MAX_OLD as u8) {
            *place = index.checked_sub(u64::from(distance)).and_then(|earlier| {
                let (then, payload) = self.get(earlier)?;
                let offset = timestamp.wrapping_sub(then);
                (!payload.is_empty()).then_some(Old { distance, offset, payload })
            });
        }
        olds
    }

    /// Whether a missing packet can have this time: after those before it and before those after it.
    pub(super) fn fits(&self, index: u64, timestamp: u32) -> bool {
        let time = |index| self.get(index).map(|(time, _)| time);
        let reach = SLOTS as u64 - 1;
        let lower = (index.saturating_sub(reach)..index).rev().find_map(time);
        let upper = (index + 1..=index + reach).find_map(time);
        let rises = |from: u32, to: u32| (1..0x8000_0000).contains(&to.wrapping_sub(from));
        self.get(index).is_none()
            && lower.is_none_or(|lower| rises(lower, timestamp))
            && upper.is_some_and(|upper| rises(timestamp, upper))
    }

    /// Adds what the newest sounds cost. Over such a short time this is the talk of now; silence,
    /// which comes rarely, costs nothing.
    pub(super) fn weigh(&self, clock: u32, load: &mut Load) {
        let kept = || self.slots.iter().filter(|slot| slot.index > 0);
        let newest = kept().max_by_key(|slot| slot.index);
        let oldest = kept().min_by_key(|slot| slot.index);
        let Some((oldest, newest)) = oldest.zip(newest) else { return };
        let ticks = u64::from(newest.timestamp.wrapping_sub(oldest.timestamp));
        let later = || kept().filter(|slot| slot.index != oldest.index);
        let bits = later().map(|slot| u64::from(slot.len) * 8).sum::<u64>();
        let packets = later().count() as u64;
        let per_second = |count: u64| (count * u64::from(clock)).checked_div(ticks).unwrap_or(0);
        load.packets_per_second += per_second(packets);
        load.payload_bps += per_second(bits);
    }

    fn get(&self, index: u64) -> Option<(u32, &[u8])> {
        let at = index as usize % SLOTS;
        let slot = self.slots.get(at).filter(|slot| slot.index == index && index > 0)?;
        let payload = self.bytes.get(at * SLOT..at * SLOT + usize::from(slot.len))?;
        Some((slot.timestamp, payload))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BASE: u64 = 1 << 16;

    #[test]
    fn the_last_three_come_back_with_their_age() {
        let mut sounds = Sounds::default();
        assert_eq!(sounds.before(BASE, 0), Olds::default());
        for at in 0..40u64 {
            sounds.put(
                BASE + at,
                (u32::MAX - 2_000).wrapping_add(960 * at as u32),
                &[at as u8; 80],
            );
        }
        let now = (u32::MAX - 2_000).wrapping_add(960 * 40);
        let olds = sounds.before(BASE + 40, now).map(Option::unwrap);
        assert_eq!(
            olds.map(|old| (old.distance, old.offset, old.payload[0])),
            [(3, 2_880, 37), (2, 1_920, 38), (1, 960, 39)]
        );
        sounds.put(BASE + 40, now, &[0; SLOT + 1]);
        let olds = sounds.before(BASE + 41, now.wrapping_add(960));
        assert_eq!(olds.map(|old| old.is_some()), [true, true, false], "too long to be kept");
        sounds.clear();
        assert_eq!(sounds.before(BASE + 41, now), Olds::default());
    }

    #[test]
    fn what_sound_costs_is_seen() {
        let (mut sounds, mut load) = (Sounds::default(), Load::default());
        sounds.weigh(48_000, &mut load);
        assert_eq!((load.packets_per_second, load.payload_bps), (0, 0));
        (0..40u32).for_each(|at| sounds.put(BASE + u64::from(at), at * 960, &[1; 120]));
        sounds.weigh(48_000, &mut load);
        assert_eq!((load.packets_per_second, load.payload_bps), (50, 48_000));
    }

    #[test]
    fn a_missing_packet_lies_between_its_neighbours() {
        let mut sounds = Sounds::default();
        assert!(!sounds.fits(BASE + 2, 5), "nothing is known");
        sounds.put(BASE, 10_000, &[1; 9]);
        sounds.put(BASE + 3, 12_880, &[1; 9]);
        let fits = [(1, 10_960), (2, 11_920), (1, 10_000), (1, 12_880), (1, 9_000), (0, 10_500)];
        let fits = fits.map(|(at, time)| sounds.fits(BASE + at, time));
        assert_eq!(fits, [true, true, false, false, false, false]);
        sounds.put(BASE + 1, 10_960, &[2; 9]);
        assert!(!sounds.fits(BASE + 2, 10_960), "that is the time of the one before");
    }

    #[test]
    fn a_late_packet_displaces_no_newer_one() {
        let mut sounds = Sounds::default();
        sounds.put(BASE + SLOTS as u64, 9_000, &[2; 10]);
        sounds.put(BASE, 1_000, &[1; 10]);
        let olds = sounds.before(BASE + SLOTS as u64 + 1, 9_960);
        assert_eq!(olds[2].unwrap().payload, [2; 10]);
    }

    #[test]
    fn it_stays_within_its_memory() {
        let mut sounds = Sounds::default();
        (0..100).for_each(|at| sounds.put(BASE + at, 0, &[0; SLOT]));
        let bytes = sounds.bytes.capacity() + sounds.slots.capacity() * size_of::<Slot>();
        assert!(bytes <= 8 << 10, "{bytes}");
    }
}
