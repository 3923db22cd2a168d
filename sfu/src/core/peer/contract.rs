//! What goes into a peer and what comes out of it: plain data.

use std::sync::Arc;

use bytes::Bytes;

use super::identity::{Fingerprint, Identity};
use super::{Credentials, SrtpProfile};
use crate::core::api::{DataChannelKind, Path};
use crate::core::srtp;

/// Who starts the DTLS handshake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DtlsRole {
    /// We send the ClientHello.
    Active,
    /// We wait for it.
    Passive,
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

/// Who starts the association under the data channels, and who creates them on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChannelRole {
    /// We do both: a client of one connection, or on the one that it publishes by.
    Open,
    /// The other side does both.
    Wait,
    /// The other side starts, we create: a server, on the connection that clients receive on.
    Offer,
    /// We start, the other side creates.
    Take,
}

impl ChannelRole {
    pub(super) const fn starts(self) -> bool {
        matches!(self, Self::Open | Self::Take)
    }

    pub(super) const fn creates(self) -> bool {
        matches!(self, Self::Open | Self::Offer)
    }
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
    /// Who makes the data channels.
    pub channels: ChannelRole,
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
#[repr(u8)]
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
    /// DTLS that is malformed, or does not belong to the handshake or association.
    BadDtls,
}

impl DropReason {
    /// How many there are.
    pub const COUNT: usize = 11;
}

/// What a peer tells its owner.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PeerEvent {
    /// A check proved this path: route its packets here.
    Proved(Path),
    /// This path is no longer ours.
    Forgot(Path),
    /// [`Peer::ufrags`](super::Peer::ufrags) has changed.
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
    /// [`Peer::close`](super::Peer::close) was called.
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
    /// Authenticated STUN messages.
    pub checks: u64,
    /// RTP and RTCP packets not sealed: before the keys, their index was used before, or there are
    /// too many SSRCs.
    pub seal_refused: u64,
    /// Data messages received.
    pub messages_in: u64,
    /// Data messages taken to be sent.
    pub messages_out: u64,
    drops: [u64; DropReason::COUNT],
}

impl PeerCounters {
    /// Datagrams dropped for this reason.
    pub fn dropped(&self, reason: DropReason) -> u64 {
        self.drops.get(reason as usize).copied().unwrap_or(0)
    }

    pub(super) fn count_drop(&mut self, reason: DropReason) {
        if let Some(count) = self.drops.get_mut(reason as usize) {
            *count += 1;
        }
    }
}

impl From<srtp::Refusal> for DropReason {
    fn from(refusal: srtp::Refusal) -> Self {
        match refusal {
            srtp::Refusal::Malformed => Self::Malformed,
            srtp::Refusal::BadTag => Self::BadTag,
            srtp::Refusal::Replayed => Self::Replayed,
            srtp::Refusal::TooManySsrcs => Self::TooManySsrcs,
        }
    }
}
