//! One WebRTC endpoint without a socket or a clock: ICE, DTLS, SRTP and data channels.
//!
//! The engine feeds it datagrams and time, and takes events and control datagrams out of it.
//! Media goes past its queues: [`Peer::handle_datagram`] opens a packet in place,
//! [`Peer::seal_rtp`] seals one in place, and the caller sends it to [`Peer::path`].

mod channels;
mod contract;
mod dtls;
mod identity;
mod packets;
mod provider;
mod records;

use std::collections::VecDeque;
use std::fmt;
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::api::{DataChannelKind, Path};
pub use super::ice::Credentials;
use super::ice::{self, Agent, AgentEvent};
use super::rtp;
use super::srtp::Session;
pub use super::srtp::SrtpProfile;
use channels::{ChannelEvent, Channels, MAX_MESSAGE};
pub use contract::{
    ChannelRole, CloseReason, Crypto, DropReason, DtlsRole, IceRole, PeerConfig, PeerCounters,
    PeerError, PeerEvent, Received, SendDataError,
};
use dtls::{Dtls, DtlsEvent};
use identity::CertificateHash;
pub use identity::{Fingerprint, Identity, IdentityError};

/// Sending ends after this long without an authenticated packet (RFC 7675 has 30 s; browsers take
/// 15 s for a failure).
const CONSENT: Duration = Duration::from_secs(15);
/// First bytes of what [`Crypto::Clear`] sends in place of DTLS: a data message, a goodbye.
const CLEAR_DATA: u8 = 23;
const CLEAR_CLOSE: u8 = 21;

/// One WebRTC endpoint.
pub struct Peer {
    agent: Agent,
    transport: Transport,
    state: State,
    /// Nothing was silent for longer than [`CONSENT`].
    reachable: bool,
    /// When to look whether it still is. Not moved by each packet: looked at when it has come.
    consent_at: Instant,
    last_authenticated: Instant,
    events: VecDeque<PeerEvent>,
    transmits: VecDeque<(Path, Vec<u8>)>,
    counters: PeerCounters,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Connecting,
    Connected,
    Closed,
}

enum Transport {
    Real(Box<Protected>),
    Clear,
}

/// DTLS and what its keys protect.
struct Protected {
    dtls: Dtls,
    srtp: Option<Session>,
    channels: Channels,
}

impl fmt::Debug for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Peer").field("state", &self.state).finish_non_exhaustive()
    }
}

impl Peer {
    /// A peer that waits for its first check, or starts to send its own.
    ///
    /// # Errors
    /// The fingerprint is not one we accept, or DTLS refuses its configuration.
    pub fn new(now: Instant, config: PeerConfig) -> Result<Self, PeerError> {
        let remote = CertificateHash::parse(&config.remote_fingerprint)?;
        let agent = match config.ice {
            IceRole::Lite { local } => Agent::lite(local),
            IceRole::Controlling { local, remote, candidates } => {
                Agent::controlling(now, local, &remote, candidates)
            }
        };
        let transport = match config.crypto {
            Crypto::Clear => Transport::Clear,
            Crypto::Real => Transport::Real(Box::new(Protected {
                dtls: Dtls::new(config.identity, config.role, remote, config.allow_cm)?,
                srtp: None,
                channels: Channels::new(config.role, config.channels),
            })),
        };
        Ok(Self {
            agent,
            transport,
            state: State::Connecting,
            reachable: true,
            consent_at: now + CONSENT,
            last_authenticated: now,
            events: VecDeque::new(),
            transmits: VecDeque::new(),
            counters: PeerCounters::default(),
        })
    }

    /// Our newest credentials.
    pub fn credentials(&self) -> &Credentials {
        self.agent.credentials()
    }

    /// Every local ufrag that still authenticates, newest last.
    pub fn ufrags(&self) -> impl Iterator<Item = &str> {
        self.agent.ufrags()
    }

    /// Adds fresh local credentials. The old ones stay valid until the first check with these.
    pub fn restart_ice(&mut self, local: Credentials) {
        self.agent.restart(local);
        self.take_agent();
    }

    /// Only for [`IceRole::Controlling`]: checks these candidates with these credentials from now
    /// on (the answer to an ICE restart, or another local address of ours). The path in use stays
    /// until another one answers.
    pub fn set_remote(&mut self, now: Instant, remote: &Credentials, candidates: Vec<Path>) {
        self.agent.set_remote(now, remote, candidates);
    }

    /// Takes one datagram; media is opened in place.
    pub fn handle_datagram<'d>(
        &mut self,
        now: Instant,
        path: Path,
        data: &'d mut [u8],
    ) -> Received<'d> {
        let result = self.receive(now, path, data);
        if let Received::Dropped(reason) = result {
            self.counters.count_drop(reason);
        }
        result
    }

    /// RFC 7983: the first byte tells the protocols apart.
    fn receive<'d>(&mut self, now: Instant, path: Path, data: &'d mut [u8]) -> Received<'d> {
        if self.state == State::Closed {
            return Received::Dropped(DropReason::Closed);
        }
        let first = data.first().copied().unwrap_or(u8::MAX);
        if first < 4 {
            return self.receive_stun(now, path, data);
        }
        if !self.agent.is_proved(path) {
            return Received::Dropped(DropReason::UnprovedPath);
        }
        match first {
            20..=63 => match &self.transport {
                Transport::Real(_) => self.receive_dtls(now, data),
                Transport::Clear => self.receive_clear(now, data),
            },
            128..=191 => {
                // RFC 5761 §4: RTCP packet types.
                let rtcp = data.get(1).is_some_and(|kind| (192..224).contains(kind));
                if rtcp { self.receive_rtcp(now, data) } else { self.receive_rtp(now, data) }
            }
            _ => Received::Dropped(DropReason::Malformed),
        }
    }

    fn receive_stun<'d>(&mut self, now: Instant, path: Path, data: &[u8]) -> Received<'d> {
        match self.agent.handle(now, path, data) {
            Ok(()) => {}
            Err(ice::Refusal::Malformed) => return Received::Dropped(DropReason::BadStun),
            Err(ice::Refusal::Unauthenticated) => {
                return Received::Dropped(DropReason::UnauthenticatedStun);
            }
        }
        self.counters.checks += 1;
        self.take_agent();
        self.authenticated(now);
        if self.agent.selected().is_some() {
            self.start(now);
        }
        Received::Handled
    }

    /// The first authenticated check: there is a path to talk over.
    fn start(&mut self, now: Instant) {
        match &mut self.transport {
            Transport::Clear if self.state == State::Connecting => {
                self.connected(now, SrtpProfile::Clear);
                use DataChannelKind::{Lossy, Reliable, Track};
                self.events.extend([Reliable, Lossy, Track].map(PeerEvent::ChannelOpen));
            }
            Transport::Clear => {}
            Transport::Real(protected) => {
                if let Some(event) = protected.dtls.start(now) {
                    self.take_dtls(now, vec![event]);
                }
                self.flush(now);
            }
        }
    }

    fn connected(&mut self, now: Instant, profile: SrtpProfile) {
        self.state = State::Connected;
        self.consent_at = now + CONSENT;
        self.events.push_back(PeerEvent::Connected { profile });
    }

    fn receive_dtls<'d>(&mut self, now: Instant, data: &[u8]) -> Received<'d> {
        let Transport::Real(protected) = &mut self.transport else {
            return Received::Dropped(DropReason::BadDtls);
        };
        let mut events = Vec::new();
        let result = protected.dtls.handle(now, data, &mut events);
        self.take_dtls(now, events);
        self.flush(now);
        match result {
            Ok(()) => Received::Handled,
            Err(reason) => Received::Dropped(reason),
        }
    }

    fn take_dtls(&mut self, now: Instant, events: Vec<DtlsEvent>) {
        for event in events {
            match event {
                DtlsEvent::Complete => self.install_keys(now),
                DtlsEvent::Data(packet) => {
                    self.authenticated(now);
                    if let Transport::Real(protected) = &mut self.transport {
                        protected.channels.handle(now, packet.freeze());
                    }
                }
                DtlsEvent::Ended(reason) => self.end(now, reason),
            }
        }
    }

    fn install_keys(&mut self, now: Instant) {
        let Transport::Real(protected) = &mut self.transport else { return };
        let we_are_client = protected.dtls.role() == DtlsRole::Active;
        let session = protected.dtls.keys().and_then(|(profile, material)| {
            Some((profile, Session::new(profile, material.as_ref(), we_are_client)?))
        });
        let Some((profile, session)) = session else {
            protected.dtls.close(now);
            return self.end(now, CloseReason::NoKeys);
        };
        protected.srtp = Some(session);
        protected.channels.start(now);
        self.authenticated(now);
        self.connected(now, profile);
    }

    fn receive_rtp<'d>(&mut self, now: Instant, data: &'d mut [u8]) -> Received<'d> {
        let Some(header_len) = rtp::header_len(data) else {
            return Received::Dropped(DropReason::Malformed);
        };
        let opened = match &mut self.transport {
            Transport::Clear => Ok(data.len()),
            Transport::Real(protected) => match &mut protected.srtp {
                Some(session) => session.open_rtp(data, header_len),
                None => return Received::Dropped(DropReason::NoKeys),
            },
        };
        match opened.map(|length| data.get_mut(..length)) {
            Ok(Some(packet)) => {
                self.authenticated(now);
                Received::Rtp { packet, header_len }
            }
            Ok(None) => Received::Dropped(DropReason::Malformed),
            Err(refusal) => Received::Dropped(refusal.into()),
        }
    }

    fn receive_rtcp<'d>(&mut self, now: Instant, data: &'d mut [u8]) -> Received<'d> {
        let opened = match &mut self.transport {
            Transport::Clear => Ok(data.len()),
            Transport::Real(protected) => match &mut protected.srtp {
                Some(session) => session.open_rtcp(data),
                None => return Received::Dropped(DropReason::NoKeys),
            },
        };
        match opened.map(|length| data.get(..length)) {
            Ok(Some(packet)) => {
                self.authenticated(now);
                Received::Rtcp(packet)
            }
            Ok(None) => Received::Dropped(DropReason::Malformed),
            Err(refusal) => Received::Dropped(refusal.into()),
        }
    }

    fn receive_clear<'d>(&mut self, now: Instant, data: &[u8]) -> Received<'d> {
        match data {
            [CLEAR_DATA, kind @ 0..=2, payload @ ..] => {
                self.authenticated(now);
                self.counters.messages_in += 1;
                let payload = Bytes::copy_from_slice(payload);
                let kind = match kind {
                    0 => DataChannelKind::Reliable,
                    1 => DataChannelKind::Lossy,
                    _ => DataChannelKind::Track,
                };
                self.events.push_back(PeerEvent::Data { kind, payload });
                Received::Handled
            }
            [CLEAR_CLOSE] => {
                self.end(now, CloseReason::Remote);
                Received::Handled
            }
            _ => Received::Dropped(DropReason::BadDtls),
        }
    }

    /// A tag verified: the other side still wants our packets.
    fn authenticated(&mut self, now: Instant) {
        self.last_authenticated = now;
        if !self.reachable {
            self.reachable = true;
            self.consent_at = now + CONSENT;
            self.events.push_back(PeerEvent::Reachable);
        }
    }

    fn end(&mut self, now: Instant, reason: CloseReason) {
        if self.state != State::Closed {
            self.flush(now);
            self.state = State::Closed;
            self.events.push_back(PeerEvent::Closed(reason));
        }
    }

    fn take_agent(&mut self) {
        while let Some(transmit) = self.agent.poll_transmit() {
            self.transmits.push_back(transmit);
        }
        while let Some(event) = self.agent.poll_event() {
            self.events.push_back(match event {
                AgentEvent::Proved(path) => PeerEvent::Proved(path),
                AgentEvent::Forgot(path) => PeerEvent::Forgot(path),
                AgentEvent::UfragsChanged => PeerEvent::UfragsChanged,
            });
        }
    }

    /// Moves channel packets into DTLS, and DTLS datagrams onto the path.
    fn flush(&mut self, now: Instant) {
        let Transport::Real(protected) = &mut self.transport else { return };
        while let Some(event) = protected.channels.poll_event() {
            let event = match event {
                ChannelEvent::Open(kind) => PeerEvent::ChannelOpen(kind),
                ChannelEvent::Data { kind, payload } => PeerEvent::Data { kind, payload },
                ChannelEvent::OtherData { label, payload } => {
                    PeerEvent::OtherData { label, payload }
                }
            };
            let message = !matches!(event, PeerEvent::ChannelOpen(_));
            self.counters.messages_in += u64::from(message);
            self.events.push_back(event);
        }
        while let Some(packet) = protected.channels.poll_transmit() {
            // Only a closed association refuses, and then nobody waits for the packet.
            let _ = protected.dtls.write(now, &packet);
        }
        while let Some(datagram) = protected.dtls.poll_transmit() {
            // Without consent it is lost; the protocols repeat what matters.
            if let Some(path) = self.agent.selected().filter(|_| self.reachable) {
                self.transmits.push_back((path, datagram));
            }
        }
    }

    /// The next event.
    pub fn poll_event(&mut self) -> Option<PeerEvent> {
        self.events.pop_front()
    }

    /// The next control datagram (STUN, DTLS, SCTP); never media.
    pub fn poll_transmit(&mut self) -> Option<(Path, Vec<u8>)> {
        self.transmits.pop_front()
    }

    /// When [`Peer::handle_timeout`] wants to be called.
    pub fn poll_timeout(&self) -> Option<Instant> {
        if self.state == State::Closed {
            return None;
        }
        let consent = (self.state == State::Connected && self.reachable).then_some(self.consent_at);
        let (dtls, channels) = match &self.transport {
            Transport::Clear => (None, None),
            Transport::Real(protected) => {
                (protected.dtls.poll_timeout(), protected.channels.poll_timeout())
            }
        };
        [self.agent.poll_timeout(), dtls, channels, consent].into_iter().flatten().min()
    }

    /// Time has come; early and late calls do no harm.
    pub fn handle_timeout(&mut self, now: Instant) {
        if self.state == State::Closed {
            return;
        }
        self.agent.handle_timeout(now);
        self.take_agent();
        if let Transport::Real(protected) = &mut self.transport {
            protected.channels.handle_timeout(now);
            if let Some(event) = protected.dtls.handle_timeout(now) {
                self.take_dtls(now, vec![event]);
            }
            self.flush(now);
        }
        self.look_at_consent(now);
    }

    fn look_at_consent(&mut self, now: Instant) {
        if self.state != State::Connected || !self.reachable || self.consent_at > now {
            return;
        }
        self.consent_at = self.last_authenticated + CONSENT;
        if self.consent_at <= now {
            self.reachable = false;
            self.events.push_back(PeerEvent::Unreachable);
        }
    }

    /// Whether it was heard of lately; one that never connected counts as such.
    pub fn is_reachable(&self) -> bool {
        self.reachable
    }

    /// Whether packets from this path are taken.
    pub fn is_proved(&self, path: Path) -> bool {
        self.agent.is_proved(path)
    }

    /// A path's connection has ended.
    pub fn forget_path(&mut self, path: Path) {
        self.agent.forget(path);
        self.take_agent();
    }

    /// Where media goes now. `None` before the keys, after the end, and while unreachable.
    pub fn path(&self) -> Option<Path> {
        let sends = self.state == State::Connected && self.reachable;
        self.agent.selected().filter(|_| sends)
    }

    /// Seals the RTP packet `buf[start..]` in place and appends its tag. `false`: not sealed, and
    /// `buf` must not be sent; a packet whose index was used before is refused.
    ///
    /// Start an SSRC with a sequence number below 2^15: a receiver that misses the packets before
    /// the first wrap cannot know that there was one (RFC 3711 §3.3.1).
    pub fn seal_rtp(&mut self, buf: &mut Vec<u8>, start: usize, header_len: usize) -> bool {
        let sealed = match &mut self.transport {
            Transport::Clear => self.state == State::Connected,
            Transport::Real(protected) => protected
                .srtp
                .as_mut()
                .is_some_and(|session| session.seal_rtp(buf, start, header_len)),
        };
        self.counters.seal_refused += u64::from(!sealed);
        sealed
    }

    /// Seals the compound RTCP packet `buf[start..]` in place and appends index and tag.
    pub fn seal_rtcp(&mut self, buf: &mut Vec<u8>, start: usize) -> bool {
        let sealed = match &mut self.transport {
            Transport::Clear => self.state == State::Connected,
            Transport::Real(protected) => {
                protected.srtp.as_mut().is_some_and(|session| session.seal_rtcp(buf, start))
            }
        };
        self.counters.seal_refused += u64::from(!sealed);
        sealed
    }

    /// Queues a data message.
    ///
    /// # Errors
    /// The channel is not open, its buffer is full, or the message too large.
    pub fn send_data(
        &mut self,
        now: Instant,
        kind: DataChannelKind,
        payload: &Bytes,
    ) -> Result<(), SendDataError> {
        if self.state != State::Connected {
            return Err(SendDataError::NoChannel);
        }
        match &mut self.transport {
            Transport::Real(protected) => protected.channels.send(now, kind, payload)?,
            Transport::Clear => {
                if payload.len() > MAX_MESSAGE {
                    return Err(SendDataError::TooLarge);
                }
                let kind = match kind {
                    DataChannelKind::Reliable => 0,
                    DataChannelKind::Lossy => 1,
                    DataChannelKind::Track => 2,
                };
                self.send_clear(&[&[CLEAR_DATA, kind], payload]);
            }
        }
        self.counters.messages_out += 1;
        self.flush(now);
        Ok(())
    }

    fn send_clear(&mut self, parts: &[&[u8]]) {
        if let Some(path) = self.agent.selected().filter(|_| self.reachable) {
            self.transmits.push_back((path, parts.concat()));
        }
    }

    /// Says goodbye (SCTP ABORT and close_notify) and ends.
    pub fn close(&mut self, now: Instant) {
        if self.state == State::Closed {
            return;
        }
        match &mut self.transport {
            Transport::Clear => self.send_clear(&[&[CLEAR_CLOSE]]),
            Transport::Real(protected) => {
                protected.channels.abort(now);
                while let Some(packet) = protected.channels.poll_transmit() {
                    let _ = protected.dtls.write(now, &packet);
                }
                protected.dtls.close(now);
            }
        }
        self.end(now, CloseReason::Local);
    }

    /// When a packet was last authenticated (creation time before the first).
    pub fn last_authenticated(&self) -> Instant {
        self.last_authenticated
    }

    /// What was seen and refused.
    pub fn counters(&self) -> &PeerCounters {
        &self.counters
    }
}

#[cfg(test)]
mod tests;
