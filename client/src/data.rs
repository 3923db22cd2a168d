//! Data messages: their envelope, what waits for a channel, what is told again after a resume.

use std::collections::{HashMap, VecDeque};
use std::time::Instant;

use bedside_sfu::core::api::{DataChannelKind, Private};
use bedside_sfu::core::peer::{Peer, SendDataError};
use bytes::Bytes;
use livekit_protocol as proto;
use prost::Message as _;

use crate::participant::DataMessage;

/// Messages that may wait for their channel.
const MAX_WAITING: usize = 64;
/// Reliable messages kept for a resume.
const MAX_KEPT: usize = 64;

/// Data of one participant.
#[derive(Debug, Default)]
pub(crate) struct Data {
    waiting: VecDeque<(DataChannelKind, Bytes)>,
    /// Reliable messages sent of late, with their sequence numbers.
    kept: VecDeque<(u32, Bytes)>,
    sequence: u32,
    /// Last reliable sequence number of each sender.
    received_up_to: HashMap<String, u32>,
    pub(crate) sent: u64,
    pub(crate) received: u64,
}

impl Data {
    /// Queues a message.
    pub(crate) fn push(&mut self, message: DataMessage) {
        if self.waiting.len() >= MAX_WAITING {
            return;
        }
        let to: Vec<String> = message.to.iter().map(|to| to.reveal().clone()).collect();
        let reliable = message.kind == DataChannelKind::Reliable;
        let kind = if reliable {
            self.sequence += 1;
            proto::data_packet::Kind::Reliable
        } else {
            proto::data_packet::Kind::Lossy
        };
        let user = proto::UserPacket {
            payload: message.payload.to_vec(),
            topic: (!message.topic.is_empty()).then_some(message.topic),
            ..Default::default()
        };
        let packet = proto::DataPacket {
            destination_identities: to,
            sequence: if reliable { self.sequence } else { 0 },
            value: Some(proto::data_packet::Value::User(user)),
            ..Default::default()
        };
        #[allow(deprecated, reason = "servers of older make read the kind here")]
        let packet = proto::DataPacket { kind: kind.into(), ..packet };
        let bytes = Bytes::from(packet.encode_to_vec());
        if reliable {
            if self.kept.len() == MAX_KEPT {
                self.kept.pop_front();
            }
            self.kept.push_back((self.sequence, bytes.clone()));
        }
        self.waiting.push_back((message.kind, bytes));
    }

    /// Sends what waits, as far as the channels take it.
    pub(crate) fn flush(&mut self, now: Instant, peer: &mut Peer) {
        for (kind, bytes) in std::mem::take(&mut self.waiting) {
            match peer.send_data(now, kind, &bytes) {
                Ok(()) => self.sent += 1,
                Err(SendDataError::NoChannel | SendDataError::Full) => {
                    self.waiting.push_back((kind, bytes));
                }
                Err(SendDataError::TooLarge) => {}
            }
        }
    }

    /// Sends again what the server has not seen, by the last sequence number it names.
    pub(crate) fn replay(&mut self, last_seen: u32) {
        let unseen = self.kept.iter().filter(|(sequence, _)| *sequence > last_seen);
        for (_, bytes) in unseen {
            let message = (DataChannelKind::Reliable, bytes.clone());
            if !self.waiting.contains(&message) {
                self.waiting.push_back(message);
            }
        }
    }

    /// Opens a message that came; repeats and kinds that are no user message give nothing.
    pub(crate) fn open(&mut self, kind: DataChannelKind, bytes: Bytes) -> Option<DataMessage> {
        let packet = proto::DataPacket::decode(bytes).ok()?;
        if kind == DataChannelKind::Reliable && packet.sequence > 0 {
            let last = self.received_up_to.entry(packet.participant_sid).or_default();
            if packet.sequence <= *last {
                return None;
            }
            *last = packet.sequence;
        }
        self.received += 1;
        let Some(proto::data_packet::Value::User(user)) = packet.value else { return None };
        Some(DataMessage {
            kind,
            topic: user.topic.unwrap_or_default(),
            payload: user.payload.into(),
            from: Private::new(packet.participant_identity),
            to: packet.destination_identities.into_iter().map(Private::new).collect(),
        })
    }

    /// What was received, for a resume.
    pub(crate) fn receive_states(&self) -> Vec<proto::DataChannelReceiveState> {
        let state = |(sid, last): (&String, &u32)| proto::DataChannelReceiveState {
            publisher_sid: sid.clone(),
            last_seq: *last,
        };
        self.received_up_to.iter().map(state).collect()
    }

    /// A new presence begins: numbering starts over.
    pub(crate) fn restart(&mut self) {
        *self = Self { sent: self.sent, received: self.received, ..Self::default() };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(kind: DataChannelKind, payload: &'static [u8]) -> DataMessage {
        DataMessage {
            kind,
            topic: "t".to_owned(),
            payload: Bytes::from_static(payload),
            from: Private::default(),
            to: vec![Private::new("doctor".to_owned())],
        }
    }

    #[test]
    fn a_message_opens_as_it_was_sent_and_once() {
        let mut sender = Data::default();
        sender.push(message(DataChannelKind::Reliable, b"hello"));
        sender.push(message(DataChannelKind::Lossy, b"x"));
        let mut receiver = Data::default();
        let (_, first) = sender.waiting[0].clone();
        let opened = receiver.open(DataChannelKind::Reliable, first.clone()).unwrap();
        assert_eq!(opened, message(DataChannelKind::Reliable, b"hello"));
        assert!(receiver.open(DataChannelKind::Reliable, first).is_none(), "a repeat");
        let (_, lossy) = sender.waiting[1].clone();
        assert!(receiver.open(DataChannelKind::Lossy, lossy.clone()).is_some());
        assert!(receiver.open(DataChannelKind::Lossy, lossy).is_some());
        assert!(receiver.open(DataChannelKind::Lossy, Bytes::from_static(&[0xFF; 9])).is_none());
        assert_eq!(receiver.receive_states()[0].last_seq, 1);
    }

    #[test]
    fn a_resume_sends_again_what_was_not_seen() {
        let mut data = Data::default();
        for _ in 0..3 {
            data.push(message(DataChannelKind::Reliable, b"m"));
        }
        data.waiting.clear();
        data.replay(2);
        assert_eq!(data.waiting.len(), 1);
        data.replay(0);
        assert_eq!(data.waiting.len(), 3, "and nothing twice");
    }
}
