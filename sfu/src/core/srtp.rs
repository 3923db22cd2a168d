//! SRTP and SRTCP: sealing and opening of RTP and RTCP packets in place.
//!
//! A session belongs to one DTLS handshake and holds a key set for each direction. Opening and
//! sealing allocate nothing beyond the first packet of an SSRC, and nothing at all is kept for an
//! SSRC whose packets do not authenticate. The rules are those of RFC 3711 (AES_CM_128) and
//! RFC 7714 (AES-GCM).

mod cipher;
mod window;

use cipher::Keys;
use window::{SsrcMap, Window};

/// How the media of a peer is protected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SrtpProfile {
    /// AEAD_AES_128_GCM (RFC 7714).
    AeadAes128Gcm,
    /// AEAD_AES_256_GCM (RFC 7714).
    AeadAes256Gcm,
    /// AES_CM_128_HMAC_SHA1_80 (RFC 3711).
    AesCm128HmacSha1_80,
    /// Not at all: the simulator's peers.
    Clear,
}

impl SrtpProfile {
    /// Bytes of master key and of master salt for one direction.
    const fn lengths(self) -> (usize, usize) {
        match self {
            Self::AeadAes128Gcm => (16, 12),
            Self::AeadAes256Gcm => (32, 12),
            Self::AesCm128HmacSha1_80 => (16, 14),
            Self::Clear => (0, 0),
        }
    }

    /// Bytes of keying material for both directions (RFC 5764 §4.2).
    pub(super) const fn keying_length(self) -> usize {
        let (key, salt) = self.lengths();
        2 * (key + salt)
    }
}

/// Why a packet was not opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    /// Too short, or an SRTCP packet that is not encrypted.
    Malformed,
    /// The tag does not verify.
    BadTag,
    /// Seen before, or too old to tell.
    Replayed,
    /// No room for one more SSRC.
    TooManySsrcs,
}

/// Keys and packet indexes of both directions.
pub(super) struct Session {
    inbound: Inbound,
    outbound: Outbound,
}

impl Session {
    /// Splits the exported keying material: client key, server key, client salt, server salt.
    /// `None` when its length is not the profile's, or for [`SrtpProfile::Clear`].
    pub(super) fn new(profile: SrtpProfile, material: &[u8], we_are_client: bool) -> Option<Self> {
        let (key_length, salt_length) = profile.lengths();
        let (client_key, rest) = material.split_at_checked(key_length)?;
        let (server_key, rest) = rest.split_at_checked(key_length)?;
        let (client_salt, server_salt) = rest.split_at_checked(salt_length)?;
        if server_salt.len() != salt_length {
            return None;
        }
        let client = Keys::derive(profile, client_key, client_salt)?;
        let server = Keys::derive(profile, server_key, server_salt)?;
        let (ours, theirs) = if we_are_client { (client, server) } else { (server, client) };
        Some(Self { inbound: Inbound::new(theirs), outbound: Outbound::new(ours) })
    }

    /// Opens an RTP packet in place; the length of header and plain payload.
    pub(super) fn open_rtp(&mut self, buf: &mut [u8], header_len: usize) -> Result<usize, Refusal> {
        self.inbound.open_rtp(buf, header_len)
    }

    /// Opens a compound RTCP packet in place; its plain length.
    pub(super) fn open_rtcp(&mut self, buf: &mut [u8]) -> Result<usize, Refusal> {
        self.inbound.open_rtcp(buf)
    }

    /// Seals the RTP packet `buf[start..]`; `false`, and nothing is changed, when its index was
    /// used before or is too old to tell.
    pub(super) fn seal_rtp(&mut self, buf: &mut Vec<u8>, start: usize, header_len: usize) -> bool {
        self.outbound.seal_rtp(buf, start, header_len).is_some()
    }

    /// Seals the compound RTCP packet `buf[start..]`.
    pub(super) fn seal_rtcp(&mut self, buf: &mut Vec<u8>, start: usize) -> bool {
        self.outbound.seal_rtcp(buf, start).is_some()
    }
}

/// Packets that a replay window of RTP tells apart; RTCP is rare and in order.
type RtpWindow = Window<16>;
type RtcpWindow = Window<2>;

/// Hours of publishing and unpublishing need some hundred SSRCs; a flood must end somewhere.
const MAX_SSRCS: usize = 2048;
/// What we send takes two for each track that anyone in the room ever published, so others must not be
/// able to use them up by publishing again and again.
const MAX_OUTBOUND: usize = 16_384;

struct Inbound {
    keys: Keys,
    rtp: SsrcMap<RtpWindow>,
    rtcp: SsrcMap<RtcpWindow>,
}

impl Inbound {
    fn new(keys: Keys) -> Self {
        Self { keys, rtp: SsrcMap::new(MAX_SSRCS), rtcp: SsrcMap::new(MAX_SSRCS) }
    }

    fn open_rtp(&mut self, buf: &mut [u8], header_len: usize) -> Result<usize, Refusal> {
        let (ssrc, sequence) = rtp_names(buf).ok_or(Refusal::Malformed)?;
        let index = match self.rtp.get(ssrc) {
            Some(window) => {
                let index = window.extend(sequence).ok_or(Refusal::Replayed)?;
                if !window.is_fresh(index) {
                    return Err(Refusal::Replayed);
                }
                index
            }
            None if self.rtp.is_full() => return Err(Refusal::TooManySsrcs),
            None => u64::from(sequence),
        };
        let length = self.keys.open_rtp(buf, header_len, ssrc, index)?;
        // Only now: a forged packet leaves no trace.
        self.rtp.get_or_insert(ssrc).ok_or(Refusal::TooManySsrcs)?.accept(index);
        Ok(length)
    }

    fn open_rtcp(&mut self, buf: &mut [u8]) -> Result<usize, Refusal> {
        let ssrc = rtcp_ssrc(buf).ok_or(Refusal::Malformed)?;
        let index = self.keys.rtcp_index(buf).ok_or(Refusal::Malformed)?;
        match self.rtcp.get(ssrc) {
            Some(window) if !window.is_fresh(u64::from(index)) => return Err(Refusal::Replayed),
            Some(_) => {}
            None if self.rtcp.is_full() => return Err(Refusal::TooManySsrcs),
            None => {}
        }
        let length = self.keys.open_rtcp(buf, ssrc, index)?;
        let window = self.rtcp.get_or_insert(ssrc).ok_or(Refusal::TooManySsrcs)?;
        window.accept(u64::from(index));
        Ok(length)
    }
}

struct Outbound {
    keys: Keys,
    /// Which indexes are used up. Sealing two different packets under one would hand out their
    /// difference and, with GCM, the authentication key.
    rtp: SsrcMap<RtpWindow>,
    rtcp_index: u32,
}

impl Outbound {
    fn new(keys: Keys) -> Self {
        Self { keys, rtp: SsrcMap::new(MAX_OUTBOUND), rtcp_index: 0 }
    }

    fn seal_rtp(&mut self, buf: &mut Vec<u8>, start: usize, header_len: usize) -> Option<()> {
        let packet = buf.get(start..)?;
        let (ssrc, sequence) = rtp_names(packet)?;
        if packet.len() < header_len {
            return None;
        }
        let window = self.rtp.get_or_insert(ssrc)?;
        let index = window.extend(sequence)?;
        if !window.is_fresh(index) {
            return None;
        }
        window.accept(index);
        self.keys.seal_rtp(buf, start, header_len, ssrc, index)
    }

    fn seal_rtcp(&mut self, buf: &mut Vec<u8>, start: usize) -> Option<()> {
        let ssrc = rtcp_ssrc(buf.get(start..)?)?;
        // 31 bits (RFC 3711 §3.4); one counter for all SSRCs keeps every pair unique.
        let index = self.rtcp_index.checked_add(1).filter(|index| index >> 31 == 0)?;
        self.rtcp_index = index;
        self.keys.seal_rtcp(buf, start, ssrc, index)
    }
}

/// SSRC and sequence number of an RTP packet.
fn rtp_names(packet: &[u8]) -> Option<(u32, u16)> {
    let &[_, _, s0, s1, _, _, _, _, c0, c1, c2, c3] = packet.first_chunk::<12>()?;
    Some((u32::from_be_bytes([c0, c1, c2, c3]), u16::from_be_bytes([s0, s1])))
}

/// SSRC of the first packet of a compound RTCP packet.
fn rtcp_ssrc(packet: &[u8]) -> Option<u32> {
    let &[_, _, _, _, c0, c1, c2, c3] = packet.first_chunk::<8>()?;
    Some(u32::from_be_bytes([c0, c1, c2, c3]))
}

#[cfg(test)]
mod tests;
