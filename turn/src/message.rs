//! STUN and TURN messages on the wire (RFC 8489 §5, RFC 8656 §17–18), and ChannelData
//! (RFC 8656 §12.4).
//!
//! [`Message::parse`] borrows from the datagram and checks the whole layout once, so that reading
//! attributes afterwards cannot fail. Nothing here keeps state, looks at a clock or sends.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use aws_lc_rs::{constant_time, hmac};

/// The fixed word that tells STUN from anything else (RFC 8489 §5).
pub const MAGIC_COOKIE: u32 = 0x2112_A442;

/// Bytes of every message's head.
pub const HEADER: usize = 20;
const FINGERPRINT_XOR: u32 = 0x5354_554E;
/// A cut MESSAGE-INTEGRITY-SHA256 has no fewer bytes (RFC 8489 §14.6).
const SHORTEST_SHA256: usize = 16;

/// What a message is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Method {
    /// RFC 8489 §3.
    Binding,
    /// RFC 8656 §7.
    Allocate,
    /// RFC 8656 §8.
    Refresh,
    /// RFC 8656 §11.1.
    Send,
    /// RFC 8656 §11.3.
    Data,
    /// RFC 8656 §9.
    CreatePermission,
    /// RFC 8656 §12.
    ChannelBind,
}

impl Method {
    const fn bits(self) -> u16 {
        match self {
            Self::Binding => 0x001,
            Self::Allocate => 0x003,
            Self::Refresh => 0x004,
            Self::Send => 0x006,
            Self::Data => 0x007,
            Self::CreatePermission => 0x008,
            Self::ChannelBind => 0x009,
        }
    }

    const fn from_bits(bits: u16) -> Option<Self> {
        Some(match bits {
            0x001 => Self::Binding,
            0x003 => Self::Allocate,
            0x004 => Self::Refresh,
            0x006 => Self::Send,
            0x007 => Self::Data,
            0x008 => Self::CreatePermission,
            0x009 => Self::ChannelBind,
            _ => return None,
        })
    }
}

/// Which side of an exchange a message is (RFC 8489 §5).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Class {
    /// Wants an answer.
    Request,
    /// Wants none.
    Indication,
    /// Answers: done.
    Success,
    /// Answers: refused.
    Error,
}

impl Class {
    const fn bits(self) -> u16 {
        match self {
            Self::Request => 0,
            Self::Indication => 1,
            Self::Success => 2,
            Self::Error => 3,
        }
    }
}

/// Attribute numbers (RFC 8489 §18.3, RFC 8656 §18).
pub mod attribute {
    /// USERNAME.
    pub const USERNAME: u16 = 0x0006;
    /// MESSAGE-INTEGRITY.
    pub const MESSAGE_INTEGRITY: u16 = 0x0008;
    /// ERROR-CODE.
    pub const ERROR_CODE: u16 = 0x0009;
    /// UNKNOWN-ATTRIBUTES.
    pub const UNKNOWN_ATTRIBUTES: u16 = 0x000A;
    /// CHANNEL-NUMBER.
    pub const CHANNEL_NUMBER: u16 = 0x000C;
    /// LIFETIME, seconds.
    pub const LIFETIME: u16 = 0x000D;
    /// XOR-PEER-ADDRESS.
    pub const XOR_PEER_ADDRESS: u16 = 0x0012;
    /// DATA.
    pub const DATA: u16 = 0x0013;
    /// REALM.
    pub const REALM: u16 = 0x0014;
    /// NONCE.
    pub const NONCE: u16 = 0x0015;
    /// XOR-RELAYED-ADDRESS.
    pub const XOR_RELAYED_ADDRESS: u16 = 0x0016;
    /// REQUESTED-ADDRESS-FAMILY.
    pub const REQUESTED_ADDRESS_FAMILY: u16 = 0x0017;
    /// EVEN-PORT.
    pub const EVEN_PORT: u16 = 0x0018;
    /// REQUESTED-TRANSPORT.
    pub const REQUESTED_TRANSPORT: u16 = 0x0019;
    /// DONT-FRAGMENT.
    pub const DONT_FRAGMENT: u16 = 0x001A;
    /// MESSAGE-INTEGRITY-SHA256.
    pub const MESSAGE_INTEGRITY_SHA256: u16 = 0x001C;
    /// PASSWORD-ALGORITHM.
    pub const PASSWORD_ALGORITHM: u16 = 0x001D;
    /// USERHASH.
    pub const USERHASH: u16 = 0x001E;
    /// XOR-MAPPED-ADDRESS.
    pub const XOR_MAPPED_ADDRESS: u16 = 0x0020;
    /// RESERVATION-TOKEN.
    pub const RESERVATION_TOKEN: u16 = 0x0022;
    /// ADDITIONAL-ADDRESS-FAMILY.
    pub const ADDITIONAL_ADDRESS_FAMILY: u16 = 0x8000;
    /// ADDRESS-ERROR-CODE.
    pub const ADDRESS_ERROR_CODE: u16 = 0x8001;
    /// PASSWORD-ALGORITHMS.
    pub const PASSWORD_ALGORITHMS: u16 = 0x8002;
    /// SOFTWARE.
    pub const SOFTWARE: u16 = 0x8022;
    /// FINGERPRINT.
    pub const FINGERPRINT: u16 = 0x8028;
}

/// Why bytes are no message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParseError {
    /// Shorter than a header, no magic cookie, or the first two bits are not zero.
    #[error("not a STUN message")]
    NotStun,
    /// The length field does not fit the bytes, or an attribute runs over the end.
    #[error("lengths do not fit")]
    BadLength,
    /// A method this server has no business with.
    #[error("unknown method")]
    UnknownMethod,
    /// FINGERPRINT is there and wrong (RFC 8489 §14.7).
    #[error("fingerprint does not match")]
    BadFingerprint,
}

/// A message, borrowed from its datagram.
#[derive(Clone, Copy, Debug)]
pub struct Message<'a> {
    /// What it is about.
    pub method: Method,
    /// Which side of the exchange.
    pub class: Class,
    /// Names the exchange.
    pub transaction: [u8; 12],
    bytes: &'a [u8],
}

impl<'a> Message<'a> {
    /// Reads one message that fills `bytes` exactly (RFC 8489 §6.3).
    pub fn parse(bytes: &'a [u8]) -> Result<Self, ParseError> {
        let (head, body) = bytes.split_at_checked(HEADER).ok_or(ParseError::NotStun)?;
        let kind = be16(head, 0);
        if kind & 0xC000 != 0 || be32(head, 4) != MAGIC_COOKIE {
            return Err(ParseError::NotStun);
        }
        if usize::from(be16(head, 2)) != body.len() || body.len() % 4 != 0 {
            return Err(ParseError::BadLength);
        }
        let class = match (kind >> 7 & 2) | (kind >> 4 & 1) {
            0 => Class::Request,
            1 => Class::Indication,
            2 => Class::Success,
            _ => Class::Error,
        };
        let bits = (kind & 0x000F) | (kind >> 1 & 0x0070) | (kind >> 2 & 0x0F80);
        let method = Method::from_bits(bits).ok_or(ParseError::UnknownMethod)?;
        let mut transaction = [0; 12];
        transaction.copy_from_slice(head.get(8..20).ok_or(ParseError::NotStun)?);
        let message = Self { method, class, transaction, bytes };
        message.check_layout()?;
        Ok(message)
    }

    /// Every attribute lies inside, and FINGERPRINT, if there, is last and right.
    fn check_layout(&self) -> Result<(), ParseError> {
        let mut end = HEADER;
        for (at, kind, value) in self.attributes_at() {
            end = at + 4 + value.len().next_multiple_of(4);
            if kind == attribute::FINGERPRINT {
                let sum = crc32fast::hash(self.bytes.get(..at).unwrap_or_default());
                let fits = value.len() == 4 && be32(value, 0) == sum ^ FINGERPRINT_XOR;
                if !fits || end != self.bytes.len() {
                    return Err(ParseError::BadFingerprint);
                }
            }
        }
        if end == self.bytes.len() { Ok(()) } else { Err(ParseError::BadLength) }
    }

    fn attributes_at(&self) -> impl Iterator<Item = (usize, u16, &'a [u8])> {
        let bytes = self.bytes;
        let mut at = HEADER;
        std::iter::from_fn(move || {
            let head = bytes.get(at..at + 4)?;
            let len = usize::from(be16(head, 2));
            let value = bytes.get(at + 4..at + 4 + len)?;
            let here = at;
            at += 4 + len.next_multiple_of(4);
            (at <= bytes.len()).then(|| (here, be16(head, 0), value))
        })
    }

    /// All attributes in order: number and value.
    pub fn attributes(&self) -> impl Iterator<Item = (u16, &'a [u8])> {
        self.attributes_at().map(|(_, kind, value)| (kind, value))
    }

    /// The first attribute of this number (later ones are ignored, RFC 8489 §14) that stands
    /// before MESSAGE-INTEGRITY; what follows that is not authenticated and does not count.
    pub fn attribute(&self, kind: u16) -> Option<&'a [u8]> {
        for (found, value) in self.attributes() {
            if found == kind {
                return Some(value);
            }
            if is_integrity(found) {
                return None;
            }
        }
        None
    }

    /// Numbers of signed attributes that a reader must understand (RFC 8489 §14) and that are not
    /// among `known`.
    pub fn unknown(&self, known: &[u16]) -> impl Iterator<Item = u16> {
        let signed = self.attributes_at().map(|(_, kind, _)| kind);
        signed
            .take_while(|kind| !is_integrity(*kind))
            .filter(|kind| *kind < 0x8000 && !known.contains(kind))
    }

    /// An address attribute, un-XORed (RFC 8489 §14.2).
    pub fn address(&self, kind: u16) -> Option<SocketAddr> {
        self.unxored(self.attribute(kind)?)
    }

    /// All address attributes of this number that are signed; `None` for what is no address.
    pub fn addresses(&self, kind: u16) -> impl Iterator<Item = Option<SocketAddr>> {
        let signed = self.attributes().take_while(|(found, _)| !is_integrity(*found));
        signed.filter(move |(found, _)| *found == kind).map(|(_, value)| self.unxored(value))
    }

    fn unxored(&self, value: &[u8]) -> Option<SocketAddr> {
        let port = be16(value.get(..4)?, 2) ^ (MAGIC_COOKIE >> 16) as u16;
        let ip = value.get(4..)?;
        match (value.get(1)?, ip.len()) {
            (1, 4) => {
                let v4 = Ipv4Addr::from(be32(ip, 0) ^ MAGIC_COOKIE);
                Some(SocketAddr::new(IpAddr::V4(v4), port))
            }
            (2, 16) => {
                let mask = xor_mask(&self.transaction);
                let mut octets = [0; 16];
                for (to, (a, b)) in octets.iter_mut().zip(ip.iter().zip(mask)) {
                    *to = a ^ b;
                }
                Some(SocketAddr::new(IpAddr::V6(Ipv6Addr::from(octets)), port))
            }
            _ => None,
        }
    }

    /// A 32-bit attribute such as LIFETIME.
    pub fn word(&self, kind: u16) -> Option<u32> {
        let value = self.attribute(kind)?;
        (value.len() == 4).then(|| be32(value, 0))
    }

    /// ERROR-CODE (RFC 8489 §14.8).
    pub fn error_code(&self) -> Option<u16> {
        let value = self.attribute(attribute::ERROR_CODE)?;
        let (class, number) = (value.get(2)? & 7, *value.get(3)?);
        Some(u16::from(class) * 100 + u16::from(number))
    }

    /// How the message is signed, if it is; with both, the stronger counts (RFC 8489 §9.2.4).
    pub fn integrity(&self) -> Option<Integrity> {
        let mut found = None;
        for (kind, _) in self.attributes() {
            match kind {
                attribute::MESSAGE_INTEGRITY_SHA256 => return Some(Integrity::Sha256),
                attribute::MESSAGE_INTEGRITY => found = Some(Integrity::Sha1),
                _ => {}
            }
        }
        found
    }

    /// Is it signed, and by this key (RFC 8489 §14.5, §14.6)?
    pub fn verify(&self, key: &Key) -> bool {
        let Some(integrity) = self.integrity() else { return false };
        let kind = integrity.attribute();
        let place = self.attributes_at().find(|a| a.1 == kind);
        let Some((at, _, tag)) = place else { return false };
        let whole = integrity.bytes();
        let fits = match integrity {
            Integrity::Sha1 => tag.len() == whole,
            Integrity::Sha256 => (SHORTEST_SHA256..=whole).contains(&tag.len()),
        };
        let signed = self.bytes.get(..at).and_then(|bytes| bytes.split_at_checked(HEADER));
        let Some((head, body)) = signed.filter(|_| fits) else { return false };
        // The length that the signer saw ends behind its own attribute.
        let Some(head) = with_length(head, body.len() + 4 + tag.len()) else { return false };
        let mut context = hmac::Context::with_key(&key.of(integrity));
        context.update(&head);
        context.update(body);
        let made = context.sign();
        let made = made.as_ref().get(..tag.len()).unwrap_or_default();
        constant_time::verify_slices_are_equal(made, tag).is_ok()
    }
}

const fn is_integrity(kind: u16) -> bool {
    matches!(kind, attribute::MESSAGE_INTEGRITY | attribute::MESSAGE_INTEGRITY_SHA256)
}

/// Which hash signs a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Integrity {
    /// MESSAGE-INTEGRITY (RFC 8489 §14.5).
    Sha1,
    /// MESSAGE-INTEGRITY-SHA256 (RFC 8489 §14.6).
    Sha256,
}

impl Integrity {
    const fn attribute(self) -> u16 {
        match self {
            Self::Sha1 => attribute::MESSAGE_INTEGRITY,
            Self::Sha256 => attribute::MESSAGE_INTEGRITY_SHA256,
        }
    }

    const fn bytes(self) -> usize {
        match self {
            Self::Sha1 => 20,
            Self::Sha256 => 32,
        }
    }
}

/// What signs messages; shows nothing of itself.
#[derive(Clone)]
pub struct Key(Vec<u8>);

impl Key {
    /// Of bytes that somebody derived.
    pub const fn new(bytes: Vec<u8>) -> Self {
        Self(bytes)
    }

    fn of(&self, integrity: Integrity) -> hmac::Key {
        let algorithm = match integrity {
            Integrity::Sha1 => hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY,
            Integrity::Sha256 => hmac::HMAC_SHA256,
        };
        hmac::Key::new(algorithm, &self.0)
    }
}

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Key")
    }
}

/// Writes one message.
#[derive(Clone, Debug)]
pub struct Writer {
    bytes: Vec<u8>,
    transaction: [u8; 12],
}

impl Writer {
    /// Begins a message.
    pub fn new(method: Method, class: Class, transaction: [u8; 12]) -> Self {
        Self::reuse(Vec::with_capacity(128), method, class, transaction)
    }

    /// Begins a message in memory that is there already.
    pub fn reuse(mut bytes: Vec<u8>, method: Method, class: Class, transaction: [u8; 12]) -> Self {
        bytes.clear();
        bytes.extend(kind_bits(method, class).to_be_bytes());
        bytes.extend([0, 0]);
        bytes.extend(MAGIC_COOKIE.to_be_bytes());
        bytes.extend(transaction);
        Self { bytes, transaction }
    }

    /// Bytes so far.
    pub fn length(&self) -> usize {
        self.bytes.len()
    }

    /// Adds an attribute. Values longer than 65,532 bytes are cut there.
    #[must_use]
    pub fn attribute(mut self, kind: u16, value: &[u8]) -> Self {
        let value = value.get(..value.len().min(65_532)).unwrap_or_default();
        self.bytes.extend(kind.to_be_bytes());
        self.bytes.extend(u16::try_from(value.len()).unwrap_or(u16::MAX).to_be_bytes());
        self.bytes.extend(value);
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
        self
    }

    /// Adds an address, XORed (RFC 8489 §14.2).
    #[must_use]
    pub fn address(self, kind: u16, address: SocketAddr) -> Self {
        let mut value = Vec::with_capacity(20);
        push_address(&mut value, address, &self.transaction);
        self.attribute(kind, &value)
    }

    /// Adds ERROR-CODE (RFC 8489 §14.8).
    #[must_use]
    pub fn error(self, code: u16, reason: &str) -> Self {
        let mut value = vec![0, 0, (code / 100) as u8, (code % 100) as u8];
        value.extend(reason.as_bytes());
        self.attribute(attribute::ERROR_CODE, &value)
    }

    /// Signs what is there so far.
    #[must_use]
    pub fn integrity(mut self, integrity: Integrity, key: &Key) -> Self {
        self.set_length(4 + integrity.bytes());
        let tag = hmac::sign(&key.of(integrity), &self.bytes);
        self.attribute(integrity.attribute(), tag.as_ref())
    }

    /// Adds FINGERPRINT and ends the message.
    #[must_use]
    pub fn fingerprint(mut self) -> Vec<u8> {
        self.set_length(8);
        let sum = crc32fast::hash(&self.bytes) ^ FINGERPRINT_XOR;
        self.attribute(attribute::FINGERPRINT, &sum.to_be_bytes()).finish()
    }

    /// Ends the message.
    #[must_use]
    pub fn finish(mut self) -> Vec<u8> {
        self.set_length(0);
        self.bytes
    }

    fn set_length(&mut self, more: usize) {
        let length = self.bytes.len() - HEADER + more;
        if let Some(place) = self.bytes.get_mut(2..4) {
            place.copy_from_slice(&u16::try_from(length).unwrap_or(u16::MAX).to_be_bytes());
        }
    }
}

/// The key of short-term credentials (RFC 8489 §9.1.1).
pub fn short_term_key(password: &str) -> Key {
    Key::new(password.as_bytes().to_vec())
}

/// The numbers that channels have. RFC 8656 §12 ends them at 0x4FFF, so that other protocols fit
/// beside TURN on one port; on ours there is none, and clients of RFC 5766 take any up to 0x7FFF.
pub const CHANNELS: std::ops::RangeInclusive<u16> = 0x4000..=0x7FFF;

/// A ChannelData message: channel number and payload (RFC 8656 §12.4). Padding is ignored.
pub fn parse_channel_data(bytes: &[u8]) -> Option<(u16, &[u8])> {
    let (head, rest) = bytes.split_at_checked(4)?;
    let channel = be16(head, 0);
    let payload = rest.get(..usize::from(be16(head, 2)))?;
    CHANNELS.contains(&channel).then_some((channel, payload))
}

/// How long the message is that begins so on a stream, with the padding that streams have
/// (RFC 8489 §6.2.2, RFC 8656 §12.5). `None`: four bytes are needed to know.
pub fn length_on_stream(bytes: &[u8]) -> Option<Result<usize, ParseError>> {
    let head = bytes.get(..4)?;
    let length = usize::from(be16(head, 2));
    Some(match be16(head, 0) >> 14 {
        0 if length % 4 == 0 => Ok(HEADER + length),
        0 => Err(ParseError::BadLength),
        1 => Ok((4 + length).next_multiple_of(4)),
        _ => Err(ParseError::NotStun),
    })
}

/// Appends a Data indication (RFC 8656 §11.4).
pub fn push_data_indication(
    out: &mut Vec<u8>,
    transaction: [u8; 12],
    peer: SocketAddr,
    data: &[u8],
) {
    let address = if peer.is_ipv4() { 12 } else { 24 };
    let length = address + 4 + data.len().next_multiple_of(4);
    out.extend(kind_bits(Method::Data, Class::Indication).to_be_bytes());
    out.extend(u16::try_from(length).unwrap_or(u16::MAX).to_be_bytes());
    out.extend(MAGIC_COOKIE.to_be_bytes());
    out.extend(transaction);
    out.extend(attribute::XOR_PEER_ADDRESS.to_be_bytes());
    out.extend([0, if peer.is_ipv4() { 8 } else { 20 }]);
    push_address(out, peer, &transaction);
    out.extend(attribute::DATA.to_be_bytes());
    out.extend(u16::try_from(data.len()).unwrap_or(u16::MAX).to_be_bytes());
    out.extend_from_slice(data);
    out.resize(out.len() + data.len().next_multiple_of(4) - data.len(), 0);
}

/// The head of a ChannelData message.
pub fn channel_data_head(channel: u16, length: u16) -> [u8; 4] {
    let ([a, b], [c, d]) = (channel.to_be_bytes(), length.to_be_bytes());
    [a, b, c, d]
}

fn kind_bits(method: Method, class: Class) -> u16 {
    let (m, c) = (method.bits(), class.bits());
    (m & 0x000F) | (m & 0x0070) << 1 | (m & 0x0F80) << 2 | (c & 1) << 4 | (c & 2) << 7
}

/// An address as a value, XORed (RFC 8489 §14.2).
fn push_address(out: &mut Vec<u8>, address: SocketAddr, transaction: &[u8; 12]) {
    let port = address.port() ^ (MAGIC_COOKIE >> 16) as u16;
    out.extend([0, if address.is_ipv4() { 1 } else { 2 }]);
    out.extend(port.to_be_bytes());
    match address.ip() {
        IpAddr::V4(v4) => out.extend((u32::from(v4) ^ MAGIC_COOKIE).to_be_bytes()),
        IpAddr::V6(v6) => {
            let mask = xor_mask(transaction);
            out.extend(v6.octets().iter().zip(mask).map(|(a, b)| a ^ b));
        }
    }
}

fn xor_mask(transaction: &[u8; 12]) -> impl Iterator<Item = u8> + '_ {
    MAGIC_COOKIE.to_be_bytes().into_iter().chain(transaction.iter().copied())
}

fn with_length(head: &[u8], length: usize) -> Option<[u8; HEADER]> {
    let mut out = [0; HEADER];
    out.copy_from_slice(head.get(..HEADER)?);
    let [a, b] = u16::try_from(length).ok()?.to_be_bytes();
    out[2] = a;
    out[3] = b;
    Some(out)
}

/// Big-endian word at `at`; zero where the caller's length check was wrong.
fn be16(bytes: &[u8], at: usize) -> u16 {
    bytes.get(at..at + 2).map_or(0, |b| b.iter().fold(0, |n, b| n << 8 | u16::from(*b)))
}

fn be32(bytes: &[u8], at: usize) -> u32 {
    bytes.get(at..at + 4).map_or(0, |b| b.iter().fold(0, |n, b| n << 8 | u32::from(*b)))
}

#[cfg(test)]
mod tests;
