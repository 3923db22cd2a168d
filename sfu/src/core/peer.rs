//! One WebRTC endpoint without a socket or a clock: ICE, DTLS, SRTP and data channels.
//!
//! The engine feeds it datagrams and time, and takes events and control datagrams out of it.
//! Media goes past its queues: [`Peer::handle_datagram`] opens a packet in place,
//! [`Peer::seal_rtp`] seals one in place, and the caller sends it to [`Peer::path`].

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;

use super::api::{DataChannelKind, Path};
pub use super::ice::Credentials;
pub use super::srtp::SrtpProfile;

/// The certificate that all peers of a shard show.
#[derive(Debug)]
pub struct Identity {
    fingerprint: String,
}

impl Identity {
    /// Makes a fresh self-signed certificate (P-256).
    ///
    /// # Errors
    /// The cryptography library refused.
    pub fn generate() -> Result<Self, IdentityError> {
        Ok(Self { fingerprint: String::new() })
    }

    /// SHA-256 of the certificate as SDP writes it: `AB:CD:…`.
    pub fn fingerprint(&self) -> &str {
        &self.fingerprint
    }
}

/// No certificate could be made.
#[derive(Debug, thiserror::Error)]
#[error("certificate: {0}")]
pub struct IdentityError(String);

/// Who starts the DTLS handshake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DtlsRole {
    /// We send the ClientHello.
    Active,
    /// We wait for it.
    Passive,
}

/// The hash of a certificate, as SDP carries it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fingerprint {
    /// `sha-256`, `sha-384` or `sha-512`, lower case.
    pub algorithm: String,
    /// `AB:CD:…`, upper case.
    pub value: String,
}

/// The ICE agent to be.
#[derive(Clone, Debug)]
pub enum IceRole {
    /// The server: answers checks, sends none.
    Lite {
        /// Our credentials.
        local: Credentials,
    },
    /// The headless client: checks the candidates with USE-CANDIDATE and keeps consent.
    Controlling {
        /// Our credentials.
        local: Credentials,
        /// The server's.
        remote: Credentials,
        /// Where the server may be reached, best first.
        candidates: Vec<Path>,
    },
}

/// Whether packets are protected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Crypto {
    /// DTLS and SRTP.
    Real,
    /// Neither: connected at the first authenticated check, packets in clear, one datagram per
    /// data message. For the simulator, which must repeat itself, and for fuzzers.
    Clear,
}

/// What a peer is made from.
#[derive(Clone, Debug)]
pub struct PeerConfig {
    /// The certificate to show.
    pub identity: Arc<Identity>,
    /// Our DTLS role.
    pub role: DtlsRole,
    /// The certificate the other side must show.
    pub remote_fingerprint: Fingerprint,
    /// The ICE agent.
    pub ice: IceRole,
    /// In the active role, offer AES_CM_128_HMAC_SHA1_80 too.
    pub allow_cm: bool,
    /// Protection.
    pub crypto: Crypto,
    /// Create the data channels ourselves (the client does; the server waits for them).
    pub open_channels: bool,
}

/// Why no peer could be made.
#[derive(Debug, thiserror::Error)]
pub enum PeerError {
    /// SHA-1, or something unknown.
    #[error("fingerprint algorithm not accepted")]
    FingerprintAlgorithm,
    /// The fingerprint has not the length of its algorithm or is no hex.
    #[error("malformed fingerprint")]
    Fingerprint,
    /// The DTLS library refused the configuration.
    #[error("dtls configuration: {0}")]
    Dtls(String),
}

/// What became of a datagram.
#[derive(Debug)]
pub enum Received<'d> {
    /// An RTP packet, its tag verified and gone.
    Rtp {
        /// Header and plain payload.
        packet: &'d mut [u8],
        /// Length of the header with its extensions.
        header_len: usize,
    },
    /// A compound RTCP packet, plain.
    Rtcp(&'d [u8]),
    /// The peer took it (STUN, DTLS); poll for events and transmits.
    Handled,
    /// It changed nothing.
    Dropped(DropReason),
}

/// Why a datagram was dropped. Each has its counter in [`PeerCounters`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DropReason {
    /// The peer is closed.
    Closed,
    /// It came on a path that no check has proved.
    UnprovedPath,
    /// Neither STUN, DTLS, RTP nor RTCP, or cut short.
    Malformed,
    /// STUN that is malformed or of a kind we do not serve.
    BadStun,
    /// STUN whose user name or integrity is not ours.
    UnauthenticatedStun,
    /// Media before the keys.
    NoKeys,
    /// The tag does not verify.
    BadTag,
    /// Seen before, or too old to tell.
    Replayed,
    /// No room for one more SSRC.
    TooManySsrcs,
    /// A repeated handshake flight, kept from the DTLS library on purpose.
    RepeatedFlight,
    /// DTLS that the library refused.
    BadDtls,
}

/// What a peer tells its owner.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PeerEvent {
    /// A check proved this path: route its packets here.
    Proved(Path),
    /// This path is no longer ours.
    Forgot(Path),
    /// [`Peer::ufrags`] has changed.
    UfragsChanged,
    /// Media can flow.
    Connected {
        /// What the two sides agreed on.
        profile: SrtpProfile,
    },
    /// A data channel is open both ways.
    ChannelOpen(DataChannelKind),
    /// A message from `_reliable` or `_lossy`.
    Data {
        /// Which.
        kind: DataChannelKind,
        /// The message.
        payload: Bytes,
    },
    /// A message from another channel.
    OtherData {
        /// The channel's label.
        label: String,
        /// The message.
        payload: Bytes,
    },
    /// Nothing authenticated for 15 s: sending has stopped.
    Unreachable,
    /// Something authenticated again.
    Reachable,
    /// The end; nothing follows.
    Closed(CloseReason),
}

/// Why a peer ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CloseReason {
    /// [`Peer::close`] was called.
    Local,
    /// The other side said goodbye.
    Remote,
    /// The other side's certificate is not the announced one.
    WrongFingerprint,
    /// DTLS failed.
    HandshakeFailed,
    /// DTLS was not done in time.
    HandshakeTimeout,
    /// DTLS agreed on no SRTP profile that we serve.
    NoKeys,
}

/// Why a data message was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SendDataError {
    /// That channel is not open.
    #[error("channel is not open")]
    NoChannel,
    /// Too much is waiting to be sent.
    #[error("send buffer is full")]
    Full,
    /// Longer than 65,535 bytes.
    #[error("message is too large")]
    TooLarge,
}

/// What a peer has seen and refused since it was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PeerCounters {
    /// Authenticated Binding requests.
    pub checks: u64,
    /// Datagrams refused, by reason.
    pub drops: [u64; 11],
    /// Packets not sealed because their SSRC and index were used before, or had no room.
    pub seal_refused: u64,
}

/// One WebRTC endpoint.
#[derive(Debug)]
pub struct Peer {
    credentials: Credentials,
    events: VecDeque<PeerEvent>,
    transmits: VecDeque<(Path, Vec<u8>)>,
    last_authenticated: Instant,
    counters: PeerCounters,
}

impl Peer {
    /// A peer that waits for its first check.
    ///
    /// # Errors
    /// The fingerprint is not one we accept, or DTLS refuses its configuration.
    pub fn new(now: Instant, config: PeerConfig) -> Result<Self, PeerError> {
        let credentials = match config.ice {
            IceRole::Lite { local } | IceRole::Controlling { local, .. } => local,
        };
        Ok(Self {
            credentials,
            events: VecDeque::new(),
            transmits: VecDeque::new(),
            last_authenticated: now,
            counters: PeerCounters::default(),
        })
    }

    /// Our newest credentials.
    pub fn credentials(&self) -> &Credentials {
        &self.credentials
    }

    /// Every local ufrag that still authenticates, newest last.
    pub fn ufrags(&self) -> impl Iterator<Item = &str> {
        std::iter::once(self.credentials.ufrag.as_str())
    }

    /// Adds fresh local credentials. The old ones stay valid until the first check with these.
    pub fn restart_ice(&mut self, local: Credentials) {
        self.credentials = local;
        self.events.push_back(PeerEvent::UfragsChanged);
    }

    /// Takes one datagram; media is opened in place.
    pub fn handle_datagram<'d>(
        &mut self,
        _now: Instant,
        _path: Path,
        _data: &'d mut [u8],
    ) -> Received<'d> {
        Received::Dropped(DropReason::NoKeys)
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
        None
    }

    /// Time has come; early and late calls do no harm.
    pub fn handle_timeout(&mut self, _now: Instant) {}

    /// Where media goes now. `None` before the keys, after the end, and while unreachable.
    pub fn path(&self) -> Option<Path> {
        None
    }

    /// Seals the RTP packet `buf[start..]` in place and appends its tag. `false`: not sealed, and
    /// `buf` must not be sent.
    pub fn seal_rtp(&mut self, _buf: &mut Vec<u8>, _start: usize, _header_len: usize) -> bool {
        false
    }

    /// Seals the compound RTCP packet `buf[start..]` in place and appends index and tag.
    pub fn seal_rtcp(&mut self, _buf: &mut Vec<u8>, _start: usize) -> bool {
        false
    }

    /// Queues a data message.
    ///
    /// # Errors
    /// The channel is not open, its buffer is full, or the message too large.
    pub fn send_data(
        &mut self,
        _now: Instant,
        _kind: DataChannelKind,
        _payload: &Bytes,
    ) -> Result<(), SendDataError> {
        Err(SendDataError::NoChannel)
    }

    /// Says goodbye and ends.
    pub fn close(&mut self, _now: Instant) {
        self.events.push_back(PeerEvent::Closed(CloseReason::Local));
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
