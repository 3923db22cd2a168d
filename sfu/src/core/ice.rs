//! ICE: the lite agent of the server and a small controlling agent for the headless client.

use rand_chacha::rand_core::Rng as _;

use super::Rng;

/// One side's short-term credentials (RFC 8445 §5.3).
#[derive(Clone, PartialEq, Eq)]
pub struct Credentials {
    /// User name fragment; routes a first packet.
    pub ufrag: String,
    /// Password; authenticates.
    pub pwd: String,
}

impl Credentials {
    /// Fresh ones: 48 random bits to route by and 144 to authenticate by.
    pub fn random(rng: &mut Rng) -> Self {
        Self { ufrag: random_word(rng, 8), pwd: random_word(rng, 24) }
    }
}

impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Credentials").field("ufrag", &self.ufrag).finish_non_exhaustive()
    }
}

fn random_word(rng: &mut Rng, length: usize) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut bytes = vec![0; length];
    rng.fill_bytes(&mut bytes);
    bytes.iter().filter_map(|b| ALPHABET.get(usize::from(b & 63))).map(|b| char::from(*b)).collect()
}

/// The local ufrag that a Binding request names, to route an unknown path's first packet by.
///
/// Nothing is verified here. `None`: not a Binding request, or one without a user name.
pub fn stun_username(data: &[u8]) -> Option<&str> {
    let (header, mut rest) = data.split_at_checked(20)?;
    if !header.starts_with(&[0, 1]) || header.get(4..8)? != [0x21, 0x12, 0xa4, 0x42] {
        return None;
    }
    while let Some((&[kind_high, kind_low, length_high, length_low], tail)) =
        rest.split_first_chunk()
    {
        let length = usize::from(u16::from_be_bytes([length_high, length_low]));
        if [kind_high, kind_low] == [0, 6] {
            let name = std::str::from_utf8(tail.get(..length)?).ok()?;
            return name.split_once(':').map(|(local, _)| local);
        }
        rest = tail.get(length.next_multiple_of(4)..)?;
    }
    None
}
