//! What a test client saw of one stream, and what must hold of it.

use std::collections::BTreeMap;
use std::time::Instant;

use bedside_sfu::core::rtcp;

/// One packet as a subscriber saw it.
#[derive(Clone, Debug)]
pub struct Seen {
    pub at: Instant,
    pub timestamp: u32,
    pub payload_type: u8,
    pub picture: Option<u16>,
    pub tl0: Option<u8>,
    pub keyframe: bool,
    pub descriptor: Vec<u8>,
    pub payload: Vec<u8>,
}

/// One stream as a subscriber saw it, by extended sequence number.
#[derive(Default)]
pub struct Stream {
    pub seen: BTreeMap<u64, Seen>,
    pub repeated: u64,
    pub reports: Vec<(Instant, rtcp::SenderInfo)>,
    pub highest: Option<u64>,
}

impl Stream {
    pub fn put(&mut self, sequence: u16, seen: Seen) {
        let index = match self.highest {
            None => (1 << 20) + u64::from(sequence),
            Some(highest) => {
                highest.wrapping_add_signed(i64::from(sequence.wrapping_sub(highest as u16) as i16))
            }
        };
        self.highest = Some(self.highest.map_or(index, |highest| highest.max(index)));
        if let Some(before) = self.seen.insert(index, seen.clone()) {
            self.repeated += 1;
            assert!(before.payload == seen.payload, "two packets under number {index}");
            assert_eq!(before.timestamp, seen.timestamp, "two packets under number {index}");
        }
    }

    /// Numbers that never came; `None` when nothing came at all.
    pub fn missing(&self) -> Option<Vec<u64>> {
        let (first, _) = self.seen.first_key_value()?;
        let (last, _) = self.seen.last_key_value()?;
        Some((*first..*last).filter(|at| !self.seen.contains_key(at)).collect())
    }

    /// What must hold of every stream, whatever was lost on the way: clocks and picture ids never go
    /// back, and packets of one picture share them.
    pub fn check_order(&self) {
        let mut before: Option<&Seen> = None;
        for seen in self.seen.values().filter(|seen| !seen.payload.is_empty()) {
            if let Some(before) = before {
                let step = seen.timestamp.wrapping_sub(before.timestamp) as i32;
                assert!(step >= 0, "the clock went back by {step}");
                if let (Some(now), Some(then)) = (seen.picture, before.picture) {
                    let pictures = now.wrapping_sub(then) & 0x7FFF;
                    assert!(pictures < 0x4000, "picture id went back");
                    assert_eq!(pictures == 0, step == 0, "a picture has one time");
                }
            }
            before = Some(seen);
        }
    }

    /// What must hold of a stream when nothing was lost.
    pub fn check_whole(&self) {
        self.check_order();
        assert_eq!(self.missing(), Some(vec![]), "a gap of our making");
        let pictures: Vec<u16> = self.seen.values().filter_map(|seen| seen.picture).collect();
        for pair in pictures.windows(2) {
            assert!(pair[1].wrapping_sub(pair[0]) & 0x7FFF <= 1, "a picture is missing");
        }
        let layers: Vec<u8> = self.seen.values().filter_map(|seen| seen.tl0).collect();
        for pair in layers.windows(2) {
            assert!(pair[1].wrapping_sub(pair[0]) <= 1, "a TL0 picture is missing");
        }
    }

    pub fn len(&self) -> usize {
        self.seen.len()
    }

    pub fn since(&self, at: Instant) -> impl Iterator<Item = &Seen> {
        self.seen.values().filter(move |seen| seen.at >= at)
    }
}
