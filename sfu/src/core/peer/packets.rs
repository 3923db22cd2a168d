//! A look at SCTP packets before the library sees them.
//!
//! rtc-sctp 0.21.1 obeys a FORWARD-TSN (RFC 3758 §3.2) by counting up to the number it names, one
//! by one: a single packet of 20 bytes can hold a shard up for seconds. A true one names a number
//! not far behind what we have acknowledged, so that is what is let through.

/// Header of an SCTP packet.
const HEADER: usize = 12;
const DATA: u8 = 0;
const INIT: u8 = 1;
const INIT_ACK: u8 = 2;
const SACK: u8 = 3;
const COOKIE_ECHO: u8 = 10;
const COOKIE_ACK: u8 = 11;
const FORWARD_TSN: u8 = 0xC0;
/// How far ahead of our last acknowledgement. A sender has this many small messages under way only
/// on a path far better than those that lose them.
const MAX_AHEAD: u32 = 16_384;

/// Knows what we have acknowledged.
#[derive(Debug)]
pub(super) struct ForwardGuard {
    acknowledged: Option<u32>,
    opens: bool,
}

impl ForwardGuard {
    /// `opens`: we start the association, with a server that we trust that far.
    pub(super) fn new(opens: bool) -> Self {
        Self { acknowledged: None, opens }
    }

    /// Takes note of a packet of ours.
    pub(super) fn sent(&mut self, packet: &[u8]) {
        for (kind, chunk) in chunks(packet).map_while(|chunk| chunk) {
            if kind == SACK {
                self.acknowledged = number(chunk).or(self.acknowledged);
            }
        }
    }

    /// Whether a packet may be handed on.
    pub(super) fn admits(&self, packet: &[u8]) -> bool {
        let mut plain = true;
        for chunk in chunks(packet) {
            let Some((kind, chunk)) = chunk else {
                plain = false;
                break;
            };
            match kind {
                // The library refuses an INIT with company, and takes the other two whole.
                INIT | DATA | COOKIE_ECHO => {}
                // Its cookie is noise, and would be mistaken for the same thing at each repeat.
                INIT_ACK if self.opens => {}
                COOKIE_ACK => plain &= chunk.len() == 4,
                SACK => plain &= is_sound_sack(chunk),
                FORWARD_TSN => {
                    if !self.is_near(chunk) {
                        return false;
                    }
                }
                _ => plain = false,
            }
        }
        // The library goes on behind what it has understood of a chunk, not behind the length that
        // the chunk claims. Where the two may differ, a FORWARD-TSN may hide anywhere.
        plain || self.hides_none(packet)
    }

    fn is_near(&self, forward: &[u8]) -> bool {
        let ahead = number(forward)
            .zip(self.acknowledged)
            .map(|(named, acknowledged)| named.wrapping_sub(acknowledged));
        // Behind is fine: nothing happens then.
        ahead.is_some_and(|ahead| ahead <= MAX_AHEAD || ahead > u32::MAX / 2 + 1)
    }

    fn hides_none(&self, packet: &[u8]) -> bool {
        let chunks = packet.get(HEADER..).unwrap_or_default();
        (0..chunks.len()).step_by(4).filter_map(|at| chunks.get(at..)).all(|rest| {
            let &[FORWARD_TSN, _, l0, l1, _, _, _, _, ..] = rest else { return true };
            let length = usize::from(u16::from_be_bytes([l0, l1]));
            let sound = length >= 8 && length.is_multiple_of(4) && length <= rest.len();
            !sound || self.is_near(rest)
        })
    }
}

/// The chunks of a packet as their lengths have it; `None` for one that is cut short.
fn chunks(packet: &[u8]) -> impl Iterator<Item = Option<(u8, &[u8])>> {
    let mut rest = packet.get(HEADER..).unwrap_or_default();
    std::iter::from_fn(move || {
        let &kind = rest.first()?;
        let length = rest.get(2..4).and_then(|l| l.first_chunk()).map(|l| u16::from_be_bytes(*l));
        let length = usize::from(length.unwrap_or(0));
        let chunk = rest.get(..length).filter(|_| length >= 4);
        rest = match chunk {
            Some(_) => rest.get(length.next_multiple_of(4)..).unwrap_or_default(),
            None => &[],
        };
        Some(chunk.map(|chunk| (kind, chunk)))
    })
}

/// The TSN that SACK and FORWARD-TSN begin with.
fn number(chunk: &[u8]) -> Option<u32> {
    chunk.get(4..8)?.first_chunk().map(|bytes| u32::from_be_bytes(*bytes))
}

/// Exactly as long as its counts say.
fn is_sound_sack(chunk: &[u8]) -> bool {
    let Some(&[g0, g1, d0, d1]) = chunk.get(12..16).and_then(|counts| counts.first_chunk()) else {
        return false;
    };
    let entries =
        usize::from(u16::from_be_bytes([g0, g1])) + usize::from(u16::from_be_bytes([d0, d1]));
    chunk.len() == 16 + 4 * entries
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packet(chunks: &[&[u8]]) -> Vec<u8> {
        [&[0; HEADER], &chunks.concat()[..]].concat()
    }

    fn forward(tsn: u32) -> Vec<u8> {
        [&[FORWARD_TSN, 0, 0, 8][..], &tsn.to_be_bytes()].concat()
    }

    fn sack(tsn: u32) -> Vec<u8> {
        [&[SACK, 0, 0, 16][..], &tsn.to_be_bytes(), &[0; 8]].concat()
    }

    #[test]
    fn a_forward_tsn_may_go_a_little_ahead_of_our_acknowledgement() {
        let mut guard = ForwardGuard::new(false);
        assert!(!guard.admits(&packet(&[&forward(1)])), "nothing was acknowledged yet");
        guard.sent(&packet(&[&sack(u32::MAX - 5)]));
        for near in [0, 1, MAX_AHEAD] {
            assert!(guard.admits(&packet(&[&forward(near.wrapping_add(u32::MAX - 5))])));
        }
        assert!(guard.admits(&packet(&[&forward(u32::MAX - 500)])));
        for far in [MAX_AHEAD + 1, 1 << 24, 1 << 30, (1 << 31) - 1] {
            let far = forward(far.wrapping_add(u32::MAX - 5));
            assert!(!guard.admits(&packet(&[&far])));
            assert!(!guard.admits(&packet(&[&sack(1), &far])));
        }
    }

    #[test]
    fn a_forward_tsn_cannot_hide_in_another_chunk() {
        let mut guard = ForwardGuard::new(false);
        guard.sent(&packet(&[&sack(100)]));
        let far = forward(1 << 30);
        let hidden = |kind| !guard.admits(&packet(&[&[kind, 0, 0, 12], &far]));
        assert!([INIT_ACK, 4, 5, 6, 7, 8, 9, 14, 130].into_iter().all(hidden));
        // COOKIE-ACK has no value; these eight bytes would be read as a chunk.
        assert!(!guard.admits(&packet(&[&[11, 0, 0, 12], &far])));
        // A SACK longer than its counts.
        let mut long = sack(100);
        long[3] = 24;
        assert!(!guard.admits(&packet(&[&long, &far])));
        assert!(!guard.admits(&packet(&[&[11, 0, 255, 255], &far])));
        // In a message it is only a message.
        let data = [&[DATA, 3, 0, 24][..], &[0; 12], &far].concat();
        assert!(guard.admits(&packet(&[&data, &sack(100)])));
        assert!(guard.admits(&packet(&[&[11, 0, 0, 4]])));
        for length in 0..20 {
            let _ = guard.admits(&packet(&[&far])[..length]);
        }
    }
}
