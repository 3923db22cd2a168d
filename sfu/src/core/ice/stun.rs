//! The little of STUN (RFC 8489) that ICE needs: Binding requests and their answers.
//!
//! A message is read in place and remembers where its integrity covers it; nothing in it may be
//! believed before [`Message::verify`] says so.

use std::net::{IpAddr, SocketAddr};

use aws_lc_rs::hmac;

/// Fixed header.
const HEADER: usize = 20;
const COOKIE: u32 = 0x2112_A442;

const USERNAME: u16 = 0x0006;
const MESSAGE_INTEGRITY: u16 = 0x0008;
const ERROR_CODE: u16 = 0x0009;
const UNKNOWN_ATTRIBUTES: u16 = 0x000A;
const XOR_MAPPED_ADDRESS: u16 = 0x0020;
const PRIORITY: u16 = 0x0024;
const USE_CANDIDATE: u16 = 0x0025;
const FINGERPRINT: u16 = 0x8028;
const ICE_CONTROLLING: u16 = 0x802A;

/// Comprehension-required attributes that we know, though most of them say nothing to us
/// (MAPPED-ADDRESS, REALM, NONCE, MESSAGE-INTEGRITY-SHA256, PASSWORD-ALGORITHM, USERHASH …).
const KNOWN: [u16; 12] = [
    0x0001,
    USERNAME,
    MESSAGE_INTEGRITY,
    ERROR_CODE,
    UNKNOWN_ATTRIBUTES,
    0x0014,
    0x0015,
    0x001C,
    0x001E,
    XOR_MAPPED_ADDRESS,
    PRIORITY,
    USE_CANDIDATE,
];

/// Identifies a request and its answer.
pub(super) type Transaction = [u8; 12];

/// What a message is. All have the Binding method.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Class {
    Request,
    Indication,
    Success,
    Error,
}

/// A message that is well formed. Not more than that.
#[derive(Debug)]
pub(super) struct Message<'d> {
    pub(super) class: Class,
    pub(super) transaction: Transaction,
    pub(super) username: Option<&'d str>,
    pub(super) use_candidate: bool,
    /// Comprehension-required attributes that we do not know: the first few.
    pub(super) unknown: Unknown,
    header: &'d [u8; HEADER],
    /// The attributes in front of the integrity, and its value.
    integrity: Option<(&'d [u8], &'d [u8])>,
}

/// At most four attribute types; enough to refuse by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Unknown {
    kinds: [u16; 4],
    count: usize,
}

impl Unknown {
    fn push(&mut self, kind: u16) {
        if let Some(free) = self.kinds.get_mut(self.count) {
            *free = kind;
            self.count += 1;
        }
    }

    /// The attribute types.
    pub(super) fn kinds(&self) -> &[u16] {
        self.kinds.get(..self.count).unwrap_or_default()
    }
}

impl<'d> Message<'d> {
    /// Reads a Binding message; `None` if it is malformed, of another method, or its FINGERPRINT
    /// is wrong.
    pub(super) fn parse(data: &'d [u8]) -> Option<Self> {
        let (header, attributes) = data.split_first_chunk::<HEADER>()?;
        let &[k0, k1, l0, l1, c0, c1, c2, c3, transaction @ ..] = header;
        let length = usize::from(u16::from_be_bytes([l0, l1]));
        let cookie = u32::from_be_bytes([c0, c1, c2, c3]);
        if cookie != COOKIE || length != attributes.len() || length % 4 != 0 {
            return None;
        }
        let class = match u16::from_be_bytes([k0, k1]) {
            0x0001 => Class::Request,
            0x0011 => Class::Indication,
            0x0101 => Class::Success,
            0x0111 => Class::Error,
            _ => return None,
        };
        let mut message = Self {
            class,
            transaction,
            username: None,
            use_candidate: false,
            unknown: Unknown::default(),
            header,
            integrity: None,
        };
        message.read_attributes(data, attributes)?;
        Some(message)
    }

    fn read_attributes(&mut self, data: &'d [u8], attributes: &'d [u8]) -> Option<()> {
        let mut rest = attributes;
        while !rest.is_empty() {
            let before = attributes.len() - rest.len();
            let (&[k0, k1, l0, l1], tail) = rest.split_first_chunk()?;
            let length = usize::from(u16::from_be_bytes([l0, l1]));
            let value = tail.get(..length)?;
            rest = tail.get(length.next_multiple_of(4)..)?;
            let kind = u16::from_be_bytes([k0, k1]);
            if kind == FINGERPRINT {
                // RFC 8489 §14.7: the last one, over everything in front of it.
                let claimed = u32::from_be_bytes(*value.first_chunk()?);
                let covered = data.get(..HEADER + before)?;
                return (length == 4 && rest.is_empty() && claimed == fingerprint(covered))
                    .then_some(());
            }
            // RFC 8489 §14.5: whatever else follows the integrity is ignored.
            if self.integrity.is_none() {
                self.read_attribute(kind, value, attributes.get(..before)?)?;
            }
        }
        Some(())
    }

    fn read_attribute(&mut self, kind: u16, value: &'d [u8], before: &'d [u8]) -> Option<()> {
        match kind {
            // 513 bytes at the most (RFC 8489 §14.3).
            USERNAME if value.len() <= 513 => {
                self.username = Some(std::str::from_utf8(value).ok()?)
            }
            USERNAME => return None,
            USE_CANDIDATE => self.use_candidate = true,
            MESSAGE_INTEGRITY if value.len() == 20 => self.integrity = Some((before, value)),
            MESSAGE_INTEGRITY => return None,
            kind if kind < 0x8000 && !KNOWN.contains(&kind) => self.unknown.push(kind),
            _ => {}
        }
        Some(())
    }

    /// Whether its MESSAGE-INTEGRITY was made with this key. Without one it never verifies.
    pub(super) fn verify(&self, key: &hmac::Key) -> bool {
        let Some((covered, tag)) = self.integrity else { return false };
        let wanted = integrity(key, self.header, covered);
        aws_lc_rs::constant_time::verify_slices_are_equal(wanted.as_ref(), tag).is_ok()
    }

    /// The address that a success response says we come from.
    #[cfg(test)]
    pub(super) fn mapped_address(data: &[u8]) -> Option<SocketAddr> {
        let mut rest = data.get(HEADER..)?;
        loop {
            let (&[k0, k1, l0, l1], tail) = rest.split_first_chunk()?;
            let length = usize::from(u16::from_be_bytes([l0, l1]));
            if u16::from_be_bytes([k0, k1]) == XOR_MAPPED_ADDRESS {
                let (&[_, family, p0, p1], ip) = tail.get(..length)?.split_first_chunk()?;
                let port = u16::from_be_bytes([p0, p1]) ^ 0x2112;
                let mask = data.get(4..HEADER)?;
                let clear: Vec<u8> = ip.iter().zip(mask).map(|(a, b)| a ^ b).collect();
                let ip = match family {
                    1 => IpAddr::from(*clear.first_chunk::<4>()?),
                    _ => IpAddr::from(*clear.first_chunk::<16>()?),
                };
                return Some(SocketAddr::new(ip, port));
            }
            rest = tail.get(length.next_multiple_of(4)..)?;
        }
    }
}

/// The key of a password. RFC 8489 §9.1.1 would run it through OpaqueString first; ice-chars need
/// no such thing.
pub(super) fn key(password: &str) -> hmac::Key {
    hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, password.as_bytes())
}

/// A success response. `mapped` is where the request came from.
pub(super) fn success(transaction: &Transaction, mapped: SocketAddr, key: &hmac::Key) -> Vec<u8> {
    let mut out = start(0x0101, transaction);
    let mask = u128::from(COOKIE) << 96 | u128_of(transaction);
    let port = (mapped.port() ^ 0x2112).to_be_bytes();
    match mapped.ip() {
        IpAddr::V4(ip) => {
            let ip = (ip.to_bits() ^ COOKIE).to_be_bytes();
            attribute(&mut out, XOR_MAPPED_ADDRESS, &[&[0, 1], &port[..], &ip[..]]);
        }
        IpAddr::V6(ip) => {
            let ip = (ip.to_bits() ^ mask).to_be_bytes();
            attribute(&mut out, XOR_MAPPED_ADDRESS, &[&[0, 2], &port[..], &ip[..]]);
        }
    }
    finish(out, key)
}

/// The refusal of a request with unknown comprehension-required attributes (RFC 8489 §6.3.1).
pub(super) fn unknown_attribute(
    transaction: &Transaction,
    unknown: &Unknown,
    key: &hmac::Key,
) -> Vec<u8> {
    let mut out = start(0x0111, transaction);
    attribute(&mut out, ERROR_CODE, &[&[0, 0, 4, 20], b"Unknown Attribute"]);
    let kinds = unknown.kinds.map(u16::to_be_bytes);
    let kinds = kinds.as_flattened().get(..2 * unknown.count).unwrap_or_default();
    attribute(&mut out, UNKNOWN_ATTRIBUTES, &[kinds]);
    finish(out, key)
}

/// A check of the controlling agent: it nominates the pair at once (RFC 8445 §8.1.1).
pub(super) fn check(
    transaction: &Transaction,
    username: &str,
    tie_breaker: u64,
    key: &hmac::Key,
) -> Vec<u8> {
    let mut out = start(0x0001, transaction);
    attribute(&mut out, USERNAME, &[username.as_bytes()]);
    // A host candidate's peer-reflexive priority: 110, local preference 65535, component 1.
    attribute(&mut out, PRIORITY, &[&0x6EFF_FFFF_u32.to_be_bytes()]);
    attribute(&mut out, ICE_CONTROLLING, &[&tie_breaker.to_be_bytes()]);
    attribute(&mut out, USE_CANDIDATE, &[]);
    finish(out, key)
}

fn u128_of(transaction: &Transaction) -> u128 {
    transaction.iter().fold(0, |sum, byte| sum << 8 | u128::from(*byte))
}

/// A header whose length is filled in by [`finish`]. Every message here fits 160 bytes.
pub(super) fn start(kind: u16, transaction: &Transaction) -> Vec<u8> {
    let mut out = Vec::with_capacity(160);
    out.extend_from_slice(&kind.to_be_bytes());
    out.extend_from_slice(&[0, 0]);
    out.extend_from_slice(&COOKIE.to_be_bytes());
    out.extend_from_slice(transaction);
    out
}

pub(super) fn attribute(out: &mut Vec<u8>, kind: u16, value: &[&[u8]]) {
    let length: usize = value.iter().map(|part| part.len()).sum();
    out.extend_from_slice(&kind.to_be_bytes());
    out.extend_from_slice(&u16::try_from(length).unwrap_or(u16::MAX).to_be_bytes());
    for part in value {
        out.extend_from_slice(part);
    }
    out.resize(out.len().next_multiple_of(4), 0);
}

/// Appends MESSAGE-INTEGRITY and FINGERPRINT.
pub(super) fn finish(mut out: Vec<u8>, key: &hmac::Key) -> Vec<u8> {
    if let Some((header, covered)) = out.split_first_chunk::<HEADER>() {
        let tag = integrity(key, header, covered);
        attribute(&mut out, MESSAGE_INTEGRITY, &[tag.as_ref()]);
    }
    let length = u16::try_from(out.len() + 8 - HEADER).unwrap_or(u16::MAX);
    if let Some(field) = out.get_mut(2..4) {
        field.copy_from_slice(&length.to_be_bytes());
    }
    let sum = fingerprint(&out);
    attribute(&mut out, FINGERPRINT, &[&sum.to_be_bytes()]);
    out
}

/// RFC 8489 §14.5: over header and attributes in front, the header's length counting up to the end
/// of the integrity itself.
fn integrity(key: &hmac::Key, header: &[u8; HEADER], covered: &[u8]) -> hmac::Tag {
    let &[k0, k1, _, _, rest @ ..] = header;
    let [l0, l1] = u16::try_from(covered.len() + 24).unwrap_or(u16::MAX).to_be_bytes();
    let mut context = hmac::Context::with_key(key);
    context.update(&[k0, k1, l0, l1]);
    context.update(&rest);
    context.update(covered);
    context.sign()
}

/// RFC 8489 §14.7.
fn fingerprint(covered: &[u8]) -> u32 {
    let mut sum = u32::MAX;
    for byte in covered {
        let [low, ..] = sum.to_le_bytes();
        sum = sum >> 8 ^ CRC.get(usize::from(low ^ byte)).copied().unwrap_or(0);
    }
    !sum ^ 0x5354_554E
}

/// CRC-32 (ISO 3309), by byte.
#[allow(clippy::indexing_slicing, reason = "evaluated at compile time, index bounded by the loop")]
const CRC: [u32; 256] = {
    let mut table = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        let mut sum = byte as u32;
        let mut bit = 0;
        while bit < 8 {
            sum = if sum & 1 == 1 { sum >> 1 ^ 0xEDB8_8320 } else { sum >> 1 };
            bit += 1;
        }
        table[byte] = sum;
        byte += 1;
    }
    table
};
