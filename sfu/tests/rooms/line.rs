//! What the lines between clients and server do to media, and a witness of all that the server seals.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::net::SocketAddr;
use std::time::Duration;

use bedside_sfu::core::Rng;
use rand_chacha::rand_core::Rng as _;

/// Beside [`crate::world::World::loss`] and `delay`.
#[derive(Default)]
pub struct Line {
    /// Packets lost in a row, in the mean; below 2 each is lost or not by itself. A chain of two
    /// states after Gilbert and Elliott, all lost in the bad one.
    pub burst: f64,
    /// Up to so much more delay, for each packet by itself: they overtake each other.
    pub jitter: Duration,
    /// Packets that arrive twice: 0..=1.
    pub duplicates: f64,
    /// Only this client's line is bad, where given.
    pub only: Option<SocketAddr>,
    /// In the bad state.
    bad: HashMap<(bool, SocketAddr), bool>,
    /// What was sealed under each number of each stream.
    sealed: HashMap<(SocketAddr, u32, u16), u64>,
}

pub fn chance(rng: &mut Rng) -> f64 {
    f64::from(rng.next_u32()) / f64::from(u32::MAX)
}

impl Line {
    pub fn loses(&mut self, rng: &mut Rng, up: bool, client: SocketAddr, loss: f64) -> bool {
        if self.only.is_some_and(|only| only != client) || loss <= 0.0 {
            return false;
        }
        if self.burst < 2.0 {
            return chance(rng) < loss;
        }
        let bad = self.bad.entry((up, client)).or_default();
        let leaves = if *bad { 1.0 / self.burst } else { loss / (1.0 - loss) / self.burst };
        *bad ^= chance(rng) < leaves;
        *bad
    }

    pub fn more_delay(&self, rng: &mut Rng) -> Duration {
        self.jitter.mul_f64(if self.jitter.is_zero() { 0.0 } else { chance(rng) })
    }

    pub fn doubles(&self, rng: &mut Rng) -> bool {
        self.duplicates > 0.0 && chance(rng) < self.duplicates
    }

    /// A datagram leaves the server. Two different ones under one number would share a nonce, and give
    /// the key stream away.
    pub fn witness(&mut self, to: SocketAddr, datagram: &[u8]) {
        let [first, second, a, b, ..] = *datagram else { return };
        let rtcp = (192..224).contains(&second);
        let Some(ssrc) = datagram.get(8..12).filter(|_| first >= 128 && !rtcp) else { return };
        let ssrc = u32::from_be_bytes(ssrc.try_into().unwrap());
        let mut hasher = DefaultHasher::new();
        datagram.hash(&mut hasher);
        let sequence = u16::from_be_bytes([a, b]);
        let before = self.sealed.insert((to, ssrc, sequence), hasher.finish());
        let same = before.is_none_or(|before| before == hasher.finish());
        assert!(same, "two ciphertexts under number {sequence} of stream {ssrc}");
        // The other half of the numbers is from the round before, or not used yet.
        self.sealed.remove(&(to, ssrc, sequence.wrapping_add(0x8000)));
    }
}
