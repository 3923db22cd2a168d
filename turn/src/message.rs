//! STUN and TURN messages on the wire (RFC 8489 §5, RFC 8656 §17–18), and ChannelData
//! (RFC 8656 §12.4).
//!
//! [`Message::parse`] borrows from the datagram and checks the whole layout once, so that reading
//! attributes afterwards cannot fail. Nothing here keeps state, looks at a clock or sends.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use aws_lc_rs::hmac;

/// The fixed word that tells STUN from anything else (RFC 8489 §5).
pub const MAGIC_COOKIE: u32 = 0x2112_A442;

const HEADER: usize = 20;
const FINGERPRINT_XOR: u32 = 0x5354_554E;
const INTEGRITY_BYTES: usize = 20;

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
    /// REQUESTED-TRANSPORT.
    pub const REQUESTED_TRANSPORT: u16 = 0x0019;
    /// XOR-MAPPED-ADDRESS.
    pub const XOR_MAPPED_ADDRESS: u16 = 0x0020;
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
            if found == attribute::MESSAGE_INTEGRITY {
                return None;
            }
        }
        None
    }

    /// An address attribute, un-XORed (RFC 8489 §14.2).
    pub fn address(&self, kind: u16) -> Option<SocketAddr> {
        let value = self.attribute(kind)?;
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

    /// Is MESSAGE-INTEGRITY there and made with this key (RFC 8489 §14.5)?
    pub fn verify(&self, key: &hmac::Key) -> bool {
        let place = self.attributes_at().find(|a| a.1 == attribute::MESSAGE_INTEGRITY);
        let Some((at, _, tag)) = place else { return false };
        let Some((head, body)) = self.bytes.get(..at).and_then(|b| b.split_at_checked(HEADER))
        else {
            return false;
        };
        let Some(head) = with_length(head, body.len() + 4 + INTEGRITY_BYTES) else { return false };
        // One buffer, because `hmac::verify` compares in constant time but takes one slice.
        let signed = [&head[..], body].concat();
        hmac::verify(key, &signed, tag).is_ok()
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
        let (m, c) = (method.bits(), class.bits());
        let kind =
            (m & 0x000F) | (m & 0x0070) << 1 | (m & 0x0F80) << 2 | (c & 1) << 4 | (c & 2) << 7;
        let mut bytes = Vec::with_capacity(128);
        bytes.extend(kind.to_be_bytes());
        bytes.extend([0, 0]);
        bytes.extend(MAGIC_COOKIE.to_be_bytes());
        bytes.extend(transaction);
        Self { bytes, transaction }
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
        let port = (address.port() ^ (MAGIC_COOKIE >> 16) as u16).to_be_bytes();
        let mut value = vec![0, if address.is_ipv4() { 1 } else { 2 }, port[0], port[1]];
        match address.ip() {
            IpAddr::V4(v4) => value.extend((u32::from(v4) ^ MAGIC_COOKIE).to_be_bytes()),
            IpAddr::V6(v6) => {
                let mask = xor_mask(&self.transaction);
                value.extend(v6.octets().iter().zip(mask).map(|(a, b)| a ^ b));
            }
        }
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
    pub fn integrity(mut self, key: &hmac::Key) -> Self {
        self.set_length(4 + INTEGRITY_BYTES);
        let tag = hmac::sign(key, &self.bytes);
        self.attribute(attribute::MESSAGE_INTEGRITY, tag.as_ref())
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
pub fn short_term_key(password: &str) -> hmac::Key {
    hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, password.as_bytes())
}

/// A ChannelData message: channel number and payload (RFC 8656 §12.4). Padding is ignored.
pub fn parse_channel_data(bytes: &[u8]) -> Option<(u16, &[u8])> {
    let (head, rest) = bytes.split_at_checked(4)?;
    let channel = be16(head, 0);
    let payload = rest.get(..usize::from(be16(head, 2)))?;
    (0x4000..=0x4FFF).contains(&channel).then_some((channel, payload))
}

/// The head of a ChannelData message.
pub fn channel_data_head(channel: u16, length: u16) -> [u8; 4] {
    let ([a, b], [c, d]) = (channel.to_be_bytes(), length.to_be_bytes());
    [a, b, c, d]
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
mod tests {
    use super::*;

    /// RFC 5769 §2.1, a Binding request with short-term credentials.
    const SAMPLE: &str = "000100582112a442b7e7a701bc34d686fa87dfae802200105354554e207465737420636c69656e74002400046e0001ff80290008932ff9b151263b36000600096576746a3a68367659202020000800149aeaa70cbfd8cb56781ef2b5b2d3f249c1b571a280280004e57a3bcf";
    /// RFC 5769 §2.3, its IPv6 answer.
    const ANSWER_V6: &str = "010100482112a442b7e7a701bc34d686fa87dfae8022000b7465737420766563746f7220002000140002a1470113a9faa5d3f179bc25f4b5bed2b9d900080014a382954e4be67bf11784c97c8292c275bfe3ed4180280004c8fb0b4c";

    fn bytes(text: &str) -> Vec<u8> {
        (0..text.len())
            .step_by(2)
            .map(|i| u8::from_str_radix(&text[i..i + 2], 16).unwrap())
            .collect()
    }

    #[test]
    fn reads_the_request_of_rfc_5769() {
        let raw = bytes(SAMPLE);
        let message = Message::parse(&raw).unwrap();
        assert_eq!((message.method, message.class), (Method::Binding, Class::Request));
        assert_eq!(message.attribute(attribute::USERNAME), Some(&b"evtj:h6vY"[..]));
        assert!(message.verify(&short_term_key("VOkJxbRl1RmTxUk/WvJxBt")));
        assert!(!message.verify(&short_term_key("another password")));
    }

    #[test]
    fn reads_the_ipv6_answer_of_rfc_5769() {
        let raw = bytes(ANSWER_V6);
        let message = Message::parse(&raw).unwrap();
        assert_eq!(message.class, Class::Success);
        let want: SocketAddr = "[2001:db8:1234:5678:11:2233:4455:6677]:32853".parse().unwrap();
        assert_eq!(message.address(attribute::XOR_MAPPED_ADDRESS), Some(want));
        assert!(message.verify(&short_term_key("VOkJxbRl1RmTxUk/WvJxBt")));
    }

    #[test]
    fn what_is_written_is_read_back() {
        let key = short_term_key("secret");
        let peer: SocketAddr = "203.0.113.9:4000".parse().unwrap();
        let raw = Writer::new(Method::Allocate, Class::Error, [7; 12])
            .error(486, "Allocation Quota Reached")
            .address(attribute::XOR_PEER_ADDRESS, peer)
            .attribute(attribute::LIFETIME, &600u32.to_be_bytes())
            .attribute(attribute::REALM, b"odd")
            .integrity(&key)
            .fingerprint();
        let message = Message::parse(&raw).unwrap();
        assert_eq!((message.method, message.class), (Method::Allocate, Class::Error));
        assert_eq!(message.error_code(), Some(486));
        assert_eq!(message.address(attribute::XOR_PEER_ADDRESS), Some(peer));
        assert_eq!(message.word(attribute::LIFETIME), Some(600));
        assert_eq!(message.attribute(attribute::REALM), Some(&b"odd"[..]));
        assert!(message.verify(&key));
    }

    #[test]
    fn every_method_and_class_survives() {
        use Class::{Error, Indication, Request, Success};
        use Method::{
            Allocate, Binding, ChannelBind, CreatePermission, Data, Refresh, Send as SendMethod,
        };
        for method in [Binding, Allocate, Refresh, SendMethod, Data, CreatePermission, ChannelBind]
        {
            for class in [Request, Indication, Success, Error] {
                let raw = Writer::new(method, class, [1; 12]).finish();
                let message = Message::parse(&raw).unwrap();
                assert_eq!((message.method, message.class), (method, class));
            }
        }
    }

    #[test]
    fn attributes_behind_the_signature_do_not_count() {
        let raw = Writer::new(Method::Binding, Class::Request, [1; 12])
            .integrity(&short_term_key("x"))
            .attribute(attribute::USERNAME, b"forged")
            .finish();
        assert_eq!(Message::parse(&raw).unwrap().attribute(attribute::USERNAME), None);
    }

    #[test]
    fn damaged_messages_are_refused_and_never_panic() {
        let raw = bytes(SAMPLE);
        let key = short_term_key("VOkJxbRl1RmTxUk/WvJxBt");
        for cut in 0..raw.len() {
            assert!(Message::parse(&raw[..cut]).is_err(), "cut at {cut}");
        }
        // FINGERPRINT itself is not signed: without its number it is an attribute to ignore.
        for bit in 0..(raw.len() - 8) * 8 {
            let mut bad = raw.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            let accepted = Message::parse(&bad).is_ok_and(|m| m.verify(&key));
            assert!(!accepted, "bit {bit} flipped and still authentic");
        }
    }

    #[test]
    fn channel_data_goes_both_ways() {
        let mut raw = channel_data_head(0x4001, 3).to_vec();
        raw.extend(b"abc\0");
        assert_eq!(parse_channel_data(&raw), Some((0x4001, &b"abc"[..])));
        assert_eq!(parse_channel_data(&raw[..6]), None);
        assert_eq!(parse_channel_data(&[0x50, 0, 0, 0]), None);
    }
}
