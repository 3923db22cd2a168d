//! Data channels over SCTP over DTLS (RFC 8831, RFC 8832).
//!
//! Which channel is which says its label, never its stream id: browsers number them differently.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use rtc_datachannel::data_channel::{DataChannel, DataChannelConfig, DataChannelMessage};
use rtc_datachannel::message::message_channel_open::ChannelType;
use rtc_sctp::{
    Association, AssociationHandle, ClientConfig, DatagramEvent, Endpoint, EndpointConfig, Event,
    Payload, PayloadProtocolIdentifier as Ppi, ServerConfig, StreamEvent, TransportConfig,
};
use rtc_shared::TransportProtocol;
use sansio::Protocol as _;

use super::dtls::REMOTE;
use super::packets::ForwardGuard;
use super::{ChannelRole, DtlsRole, SendDataError};
use crate::core::api::DataChannelKind;

/// The largest message, both ways; `a=max-message-size` of our SDP.
pub(super) const MAX_MESSAGE: usize = 65_535;
/// Bytes that may wait to be sent or acknowledged on one channel.
const MAX_BUFFERED: usize = 256 * 1024;
/// Channels and associations that the other side may make.
const MAX_CHANNELS: usize = 64;
const MAX_ASSOCIATIONS: usize = 16;

/// What came out of the channels.
#[derive(Debug)]
pub(super) enum ChannelEvent {
    Open(DataChannelKind),
    Data { kind: DataChannelKind, payload: Bytes },
    OtherData { label: String, payload: Bytes },
}

/// The SCTP endpoint of a peer and its channels.
pub(super) struct Channels {
    endpoint: Endpoint,
    /// A repeated INIT makes the endpoint start another association; which one lives is known when
    /// the first is connected.
    associations: BTreeMap<usize, Association>,
    connected: Option<usize>,
    channels: Vec<Channel>,
    opens: bool,
    starts: bool,
    role: DtlsRole,
    guard: ForwardGuard,
    events: VecDeque<ChannelEvent>,
    transmits: VecDeque<Bytes>,
}

struct Channel {
    stream: u16,
    kind: Option<DataChannelKind>,
    channel: DataChannel,
    open: bool,
}

impl Channel {
    fn new(stream: u16, channel: DataChannel) -> Self {
        let kind = match channel.config().label.as_str() {
            "_reliable" => Some(DataChannelKind::Reliable),
            "_lossy" => Some(DataChannelKind::Lossy),
            "_data_track" => Some(DataChannelKind::Track),
            _ => None,
        };
        Self { stream, kind, open: channel.is_handshake_complete(), channel }
    }
}

fn transport() -> TransportConfig {
    TransportConfig::default().with_max_message_size(MAX_MESSAGE as u32)
}

impl Channels {
    pub(super) fn new(role: DtlsRole, channels: ChannelRole) -> Self {
        let server = (!channels.starts()).then(|| Arc::new(ServerConfig::new(transport())));
        let endpoint =
            Endpoint::new(REMOTE, TransportProtocol::UDP, Arc::new(EndpointConfig::new()), server);
        Self {
            endpoint,
            associations: BTreeMap::new(),
            connected: None,
            channels: Vec::new(),
            opens: channels.creates(),
            starts: channels.starts(),
            role,
            guard: ForwardGuard::new(channels.starts()),
            events: VecDeque::new(),
            transmits: VecDeque::new(),
        }
    }

    /// DTLS is up.
    pub(super) fn start(&mut self, now: Instant) {
        if !self.starts {
            return;
        }
        let configuration = ClientConfig::new(transport());
        if let Ok((handle, association)) = self.endpoint.connect(now, configuration, REMOTE) {
            self.associations.insert(handle.0, association);
        }
        self.drain(now);
    }

    /// Takes a decrypted packet.
    pub(super) fn handle(&mut self, now: Instant, packet: Bytes) {
        if !self.guard.admits(&packet) {
            return;
        }
        match self.endpoint.handle(now, REMOTE, None, packet) {
            Some((handle, DatagramEvent::NewAssociation(association))) => {
                // The endpoint cannot forget it; so it is asked not to make any more.
                self.associations.insert(handle.0, association);
                if self.associations.len() >= MAX_ASSOCIATIONS {
                    self.endpoint.reject_new_associations();
                }
            }
            Some((handle, DatagramEvent::AssociationEvent(event))) => {
                if let Some(association) = self.associations.get_mut(&handle.0) {
                    association.handle_event(event);
                }
            }
            Some(_) | None => {}
        }
        self.drain(now);
    }

    /// Queues a message.
    pub(super) fn send(
        &mut self,
        now: Instant,
        kind: DataChannelKind,
        payload: &Bytes,
    ) -> Result<(), SendDataError> {
        if payload.len() > MAX_MESSAGE {
            return Err(SendDataError::TooLarge);
        }
        let channel = self.channels.iter().rev().find(|c| c.open && c.kind == Some(kind));
        let stream = channel.ok_or(SendDataError::NoChannel)?.stream;
        let association = self.connected.and_then(|handle| self.associations.get_mut(&handle));
        let association = association.ok_or(SendDataError::NoChannel)?;
        let mut stream = association.stream(stream).map_err(|_| SendDataError::NoChannel)?;
        let buffered = stream.buffered_amount().map_err(|_| SendDataError::NoChannel)?;
        if buffered + payload.len() > MAX_BUFFERED {
            return Err(SendDataError::Full);
        }
        let sent = if payload.is_empty() {
            // SCTP has no empty messages (RFC 8831 §6.6).
            stream.write_chunk_with_ppi(now, &Bytes::from_static(&[0]), Ppi::BinaryEmpty)
        } else {
            stream.write_chunk_with_ppi(now, payload, Ppi::Binary)
        };
        sent.map_err(|_| SendDataError::NoChannel)?;
        self.drain(now);
        Ok(())
    }

    /// Queues an ABORT: the other side learns of the end at once.
    pub(super) fn abort(&mut self, now: Instant) {
        for association in self.associations.values_mut() {
            // Only a closed association refuses.
            let _ = association.abort();
        }
        self.drain(now);
    }

    pub(super) fn poll_event(&mut self) -> Option<ChannelEvent> {
        self.events.pop_front()
    }

    /// The next packet for DTLS.
    pub(super) fn poll_transmit(&mut self) -> Option<Bytes> {
        self.transmits.pop_front()
    }

    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.associations.values().filter_map(Association::poll_timeout).min()
    }

    pub(super) fn handle_timeout(&mut self, now: Instant) {
        if self.poll_timeout().is_none_or(|due| due > now) {
            return;
        }
        for association in self.associations.values_mut() {
            association.handle_timeout(now);
        }
        self.drain(now);
    }

    /// Takes everything out of the associations. Reading and opening may queue packets, so those
    /// come last.
    fn drain(&mut self, now: Instant) {
        let handles: Vec<usize> = self.associations.keys().copied().collect();
        for handle in handles {
            self.drain_events(now, handle);
        }
        let mut ended = Vec::new();
        for (&handle, association) in &mut self.associations {
            while let Some(transmit) = association.poll_transmit(now) {
                if let Payload::RawEncode(packets) = transmit.message {
                    packets.iter().for_each(|packet| self.guard.sent(packet));
                    self.transmits.extend(packets);
                }
            }
            while let Some(event) = association.poll_endpoint_event() {
                ended.push((handle, event));
            }
        }
        for (handle, event) in ended {
            self.endpoint.handle_event(AssociationHandle(handle), event);
            self.associations.remove(&handle);
            if self.connected == Some(handle) {
                self.connected = None;
                self.channels.clear();
            }
        }
    }

    fn drain_events(&mut self, now: Instant, handle: usize) {
        while let Some(event) = self.associations.get_mut(&handle).and_then(Association::poll) {
            match event {
                Event::Connected => self.connect(now, handle),
                Event::AssociationLost { id, .. } => self.channels.retain(|c| c.stream != id),
                Event::Stream(StreamEvent::Readable { id }) if self.is_current(handle) => {
                    self.read(now, handle, id);
                }
                Event::Stream(StreamEvent::Finished { id }) if self.is_current(handle) => {
                    self.channels.retain(|channel| channel.stream != id);
                }
                _ => {}
            }
        }
    }

    fn is_current(&self, handle: usize) -> bool {
        self.connected == Some(handle)
    }

    /// The first association that is connected stays; the others came of a repeated INIT.
    fn connect(&mut self, now: Instant, handle: usize) {
        if self.connected.is_some() {
            return;
        }
        self.connected = Some(handle);
        self.associations.retain(|other, _| *other == handle);
        self.endpoint.reject_new_associations();
        if self.opens {
            self.open_all(now, handle);
        }
    }

    fn open_all(&mut self, now: Instant, handle: usize) {
        const LABELS: [(&str, ChannelType); 3] = [
            ("_lossy", ChannelType::PartialReliableRexmitUnordered),
            ("_reliable", ChannelType::Reliable),
            ("_data_track", ChannelType::PartialReliableRexmitUnordered),
        ];
        // RFC 8832 §6: the DTLS client takes even stream ids, the server odd ones.
        let first = match self.role {
            DtlsRole::Active => 0,
            DtlsRole::Passive => 1,
        };
        for ((label, channel_type), id) in LABELS.into_iter().zip((first..).step_by(2)) {
            let config =
                DataChannelConfig { channel_type, label: label.to_owned(), ..Default::default() };
            let Some(association) = self.associations.get_mut(&handle) else { return };
            let Ok(channel) = DataChannel::dial(config, handle, id) else { continue };
            if association.open_stream(id, Ppi::Binary).is_err() {
                continue;
            }
            let mut channel = Channel::new(id, channel);
            settle(now, association, &mut channel);
            self.channels.push(channel);
        }
    }

    fn read(&mut self, now: Instant, handle: usize, id: u16) {
        while let Some(association) = self.associations.get_mut(&handle) {
            let Ok(mut stream) = association.stream(id) else { return };
            let Ok(Some(chunks)) = stream.read_sctp() else { return };
            // An oversized message is dropped; what follows it is not.
            let Ok(payload) = chunks.to_payload(MAX_MESSAGE) else { continue };
            let number = self.channels.iter().position(|channel| channel.stream == id);
            match (chunks.ppi, number.and_then(|number| self.channels.get_mut(number))) {
                (Ppi::Dcep, Some(channel)) => {
                    // ACK of our OPEN; anything else is no business of an open channel.
                    let message = DataChannelMessage {
                        stream_id: id,
                        ppi: Ppi::Dcep,
                        payload,
                        ..Default::default()
                    };
                    if !channel.open && channel.channel.handle_read(message).is_ok() {
                        channel.open = channel.channel.is_handshake_complete();
                        if channel.open {
                            self.events.extend(channel.kind.map(ChannelEvent::Open));
                        }
                    }
                }
                (Ppi::Dcep, None) => {
                    if self.channels.len() < MAX_CHANNELS
                        && let Some(channel) = accept(now, association, handle, id, &payload)
                    {
                        self.events.extend(channel.kind.map(ChannelEvent::Open));
                        self.channels.push(channel);
                    }
                }
                (ppi, Some(channel)) => {
                    let empty = matches!(ppi, Ppi::StringEmpty | Ppi::BinaryEmpty);
                    let payload = if empty { Bytes::new() } else { payload.freeze() };
                    self.events.push_back(match channel.kind {
                        Some(kind) => ChannelEvent::Data { kind, payload },
                        None => {
                            let label = channel.channel.config().label.clone();
                            ChannelEvent::OtherData { label, payload }
                        }
                    });
                }
                (_, None) => {}
            }
        }
    }
}

/// Answers an OPEN.
fn accept(
    now: Instant,
    association: &mut Association,
    handle: usize,
    id: u16,
    open: &[u8],
) -> Option<Channel> {
    let config = DataChannelConfig::default();
    let channel = DataChannel::accept(config, handle, id, Ppi::Dcep, open).ok()?;
    let mut channel = Channel::new(id, channel);
    settle(now, association, &mut channel);
    Some(channel)
}

/// Gives a stream the reliability of its channel and sends the channel's OPEN or ACK. Those are
/// reliable and ordered whatever the channel is (RFC 8832 §6), so they go first.
fn settle(now: Instant, association: &mut Association, channel: &mut Channel) {
    let config = channel.channel.config().clone();
    let (unordered, reliability) = DataChannel::get_reliability_params(config.channel_type);
    let Ok(mut stream) = association.stream(channel.stream) else { return };
    while let Some(message) = channel.channel.poll_write() {
        // A stream that was just found takes a short message; if not, the channel never opens.
        let _ = stream.write_chunk_with_ppi(now, &message.payload.freeze(), message.ppi);
    }
    let _ = stream.set_reliability_params(unordered, reliability, config.reliability_parameter);
}
