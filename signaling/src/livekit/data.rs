//! Data messages: who said it is ours to say, the rest is passed on as it came.
//!
//! A data message is a protobuf `DataPacket`. Its sender fields are overwritten with what we know
//! of the sender; receivers are read out of it; everything else, fields of the future included,
//! keeps its bytes and its order. So the envelope is patched on the wire and never decoded into a
//! type that would forget what it does not know.

use bedside_sfu::core::api::{DataChannelKind, DataSender, Relayed};
use bytes::Bytes;

/// Fields of `DataPacket`.
mod packet {
    pub(super) const KIND: u32 = 1;
    pub(super) const USER: u32 = 2;
    pub(super) const SPEAKER: u32 = 3;
    pub(super) const IDENTITY: u32 = 4;
    pub(super) const DESTINATION_IDENTITIES: u32 = 5;
    pub(super) const TRANSCRIPTION: u32 = 7;
    pub(super) const CHAT: u32 = 9;
    pub(super) const STREAM_HEADER: u32 = 13;
    pub(super) const STREAM_TRAILER: u32 = 15;
    pub(super) const SEQUENCE: u32 = 16;
    pub(super) const SID: u32 = 17;
}

/// Fields of `UserPacket`.
mod user {
    pub(super) const SID: u32 = 1;
    pub(super) const DESTINATION_SIDS: u32 = 3;
    pub(super) const IDENTITY: u32 = 5;
    pub(super) const DESTINATION_IDENTITIES: u32 = 6;
}

const LOSSY: u64 = 1;
/// Receivers of one message.
const MAX_RECEIVERS: usize = 1_000;

/// Makes a message from a client's channel ready to be relayed; `None` drops it: it is malformed,
/// or its kind is not this sender's to send.
pub fn relay(sender: &DataSender<'_>, channel: DataChannelKind, message: &[u8]) -> Option<Relayed> {
    if channel == DataChannelKind::Track {
        // Packets of data tracks have no envelope.
        return None;
    }
    let read = Envelope::read(sender, message)?;
    let mut out = Vec::with_capacity(message.len() + sender.sid.len() + sender.identity.len() + 16);
    match channel {
        // The reliable kind is zero, and zero is not written.
        DataChannelKind::Reliable | DataChannelKind::Track => {}
        DataChannelKind::Lossy => write_varint_field(&mut out, packet::KIND, LOSSY),
    }
    let (identity, sid) = match read.speaks_as {
        Some((identity, sid)) => (identity, sid),
        None => (sender.identity, sender.sid),
    };
    write_text_field(&mut out, packet::IDENTITY, identity);
    for to in &read.to_identities {
        write_text_field(&mut out, packet::DESTINATION_IDENTITIES, to);
    }
    for field in read.kept {
        match field.value {
            Value::Bytes(content) if field.number == packet::USER => {
                let content = user_packet(identity, sid, &read.to_identities, content)?;
                write_bytes_field(&mut out, packet::USER, &content);
            }
            Value::Bytes(_) | Value::Varint(_) | Value::Fixed => out.extend_from_slice(field.raw),
        }
    }
    write_text_field(&mut out, packet::SID, sid);
    Some(Relayed {
        payload: Bytes::from(out),
        to_identities: read.to_identities.into_iter().map(str::to_owned).collect(),
        to_sids: read.to_sids.into_iter().map(str::to_owned).collect(),
        sequence: read.sequence,
    })
}

/// What the patch needs of a message.
struct Envelope<'a> {
    /// Fields that go on, in their order.
    kept: Vec<Field<'a>>,
    to_identities: Vec<&'a str>,
    to_sids: Vec<&'a str>,
    sequence: u32,
    /// Identity and sid that an agent speaks for.
    speaks_as: Option<(&'a str, &'a str)>,
}

impl<'a> Envelope<'a> {
    fn read(sender: &DataSender<'_>, message: &'a [u8]) -> Option<Self> {
        let mut read = Self {
            kept: Vec::new(),
            to_identities: Vec::new(),
            to_sids: Vec::new(),
            sequence: 0,
            speaks_as: None,
        };
        let (mut claimed, mut may_claim) = (("", ""), false);
        for field in Fields(message) {
            let field = field?;
            match field.number {
                packet::KIND => _ = field.varint()?,
                packet::IDENTITY => claimed.0 = field.text()?,
                packet::SID => claimed.1 = field.text()?,
                packet::DESTINATION_IDENTITIES => read.to(field.text()?),
                packet::SEQUENCE => {
                    read.sequence = u32::try_from(field.varint()?).ok()?;
                    read.kept.push(field);
                }
                packet::USER => {
                    read.user(field.bytes()?)?;
                    read.kept.push(field);
                }
                // Who speaks is ours to say.
                packet::SPEAKER => return None,
                packet::TRANSCRIPTION if !sender.agent => return None,
                packet::TRANSCRIPTION
                | packet::CHAT
                | packet::STREAM_HEADER..=packet::STREAM_TRAILER => {
                    may_claim = sender.agent;
                    read.kept.push(field);
                }
                _ => read.kept.push(field),
            }
        }
        if may_claim && !claimed.0.is_empty() {
            read.speaks_as = Some(claimed);
        }
        let receivers = read.to_identities.len() + read.to_sids.len();
        (receivers <= MAX_RECEIVERS).then_some(read)
    }

    /// Receivers are also named inside of user packets, in older clients only there.
    fn user(&mut self, content: &'a [u8]) -> Option<()> {
        for field in Fields(content) {
            let field = field?;
            match field.number {
                user::DESTINATION_IDENTITIES => self.to(field.text()?),
                user::DESTINATION_SIDS => self.to_sids.push(field.text()?),
                user::SID | user::IDENTITY => _ = field.text()?,
                _ => {}
            }
        }
        Some(())
    }

    fn to(&mut self, identity: &'a str) {
        if !self.to_identities.contains(&identity) {
            self.to_identities.push(identity);
        }
    }
}

/// The same sender and receivers again inside of a user packet.
fn user_packet(identity: &str, sid: &str, to: &[&str], content: &[u8]) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(content.len() + identity.len() + sid.len() + 16);
    write_text_field(&mut out, user::SID, sid);
    for field in Fields(content) {
        let field = field?;
        match field.number {
            user::SID | user::IDENTITY | user::DESTINATION_IDENTITIES => {}
            _ => out.extend_from_slice(field.raw),
        }
    }
    write_text_field(&mut out, user::IDENTITY, identity);
    for identity in to {
        write_text_field(&mut out, user::DESTINATION_IDENTITIES, identity);
    }
    Some(out)
}

/// One field as it stands on the wire.
struct Field<'a> {
    number: u32,
    value: Value<'a>,
    raw: &'a [u8],
}

enum Value<'a> {
    Varint(u64),
    Bytes(&'a [u8]),
    Fixed,
}

impl<'a> Field<'a> {
    fn varint(&self) -> Option<u64> {
        match self.value {
            Value::Varint(value) => Some(value),
            Value::Bytes(_) | Value::Fixed => None,
        }
    }

    fn bytes(&self) -> Option<&'a [u8]> {
        match self.value {
            Value::Bytes(value) => Some(value),
            Value::Varint(_) | Value::Fixed => None,
        }
    }

    fn text(&self) -> Option<&'a str> {
        std::str::from_utf8(self.bytes()?).ok()
    }
}

/// Reads fields one after the other; `Some(None)` = malformed, and the end.
struct Fields<'a>(&'a [u8]);

impl<'a> Iterator for Fields<'a> {
    type Item = Option<Field<'a>>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let field = read_field(self.0);
        let read = field.as_ref().map_or(self.0.len(), |field| field.raw.len());
        self.0 = self.0.get(read..).unwrap_or_default();
        Some(field)
    }
}

fn read_field(input: &[u8]) -> Option<Field<'_>> {
    let (tag, rest) = read_varint(input)?;
    let number = u32::try_from(tag >> 3).ok().filter(|number| *number != 0)?;
    let (value, rest) = match tag & 7 {
        0 => {
            let (value, rest) = read_varint(rest)?;
            (Value::Varint(value), rest)
        }
        1 => (Value::Fixed, rest.split_at_checked(8)?.1),
        2 => {
            let (len, rest) = read_varint(rest)?;
            let (bytes, rest) = rest.split_at_checked(usize::try_from(len).ok()?)?;
            (Value::Bytes(bytes), rest)
        }
        5 => (Value::Fixed, rest.split_at_checked(4)?.1),
        // Groups are gone from the language; 6 and 7 never were.
        _ => return None,
    };
    let raw = input.get(..input.len() - rest.len())?;
    Some(Field { number, value, raw })
}

fn read_varint(input: &[u8]) -> Option<(u64, &[u8])> {
    let mut value = 0_u64;
    for (index, byte) in input.iter().take(10).enumerate() {
        value |= u64::from(byte & 0x7f).checked_shl(7 * u32::try_from(index).ok()?)?;
        if byte & 0x80 == 0 {
            return Some((value, input.get(index + 1..)?));
        }
    }
    None
}

fn write_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(u8::try_from(value & 0x7f).unwrap_or_default() | 0x80);
        value >>= 7;
    }
    out.push(u8::try_from(value).unwrap_or_default());
}

fn write_varint_field(out: &mut Vec<u8>, number: u32, value: u64) {
    write_varint(out, u64::from(number) << 3);
    write_varint(out, value);
}

fn write_bytes_field(out: &mut Vec<u8>, number: u32, bytes: &[u8]) {
    write_varint(out, u64::from(number) << 3 | 2);
    write_varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

/// An empty text is not written.
fn write_text_field(out: &mut Vec<u8>, number: u32, text: &str) {
    if !text.is_empty() {
        write_bytes_field(out, number, text.as_bytes());
    }
}

#[cfg(test)]
#[path = "data_tests.rs"]
mod tests;
