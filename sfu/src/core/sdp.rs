//! Session descriptions (RFC 8866, RFC 8829): what a client offers, what we answer; and what we offer
//! ourselves, as a server or for a client of our own.
//!
//! Reading keeps what the engine needs and passes over every line it does not know. The answer echoes
//! the offer's payload types, codec names and formats letter by letter: browsers match them so.

mod offer;
mod parse;
mod write;

use std::net::SocketAddr;

pub use offer::{OfferSection, write_lite_offer, write_offer};
pub use parse::{MAX_LEN, MAX_SECTIONS, SdpError, parse};
pub use write::{Fill, Local, OpusWish, write_answer};

use super::peer::Fingerprint;

/// One description as the other side wrote it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Description {
    /// ICE user name fragment.
    pub ufrag: String,
    /// ICE password.
    pub pwd: String,
    /// Hash of its certificate.
    pub fingerprint: Fingerprint,
    /// DTLS roles it accepts.
    pub setup: Setup,
    /// Its sections, in order.
    pub sections: Vec<Section>,
    /// UDP host candidates. The server ignores them; the client sends its checks there.
    pub candidates: Vec<SocketAddr>,
}

impl Description {
    /// The id that an extension has in this description. In a bundle an id means one thing, so any
    /// section may say it.
    #[must_use]
    pub fn extension_id(&self, extension: Extension) -> Option<u8> {
        self.sections.iter().find_map(|section| section.extension_id(extension))
    }
}

/// The DTLS roles that a description leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Setup {
    /// Either.
    ActPass,
    /// It sends the ClientHello.
    Active,
    /// It waits.
    Passive,
}

/// One media section.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Section {
    /// What it carries.
    pub kind: SectionKind,
    /// Media name as written.
    pub media: String,
    /// Transport protocol as written.
    pub protocol: String,
    /// Its name in the bundle.
    pub mid: String,
    /// Port 0 and not merely `bundle-only`: this section is dead and may be recycled.
    pub rejected: bool,
    /// From its writer's view.
    pub direction: Direction,
    /// Payload types, preferred first.
    pub codecs: Vec<PayloadType>,
    /// Header extensions: id, meaning, URI.
    pub extensions: Vec<(u8, Extension, String)>,
    /// Simulcast layers that its writer sends, in its order.
    pub rids: Vec<String>,
    /// Stream and track id.
    pub msid: Option<(String, String)>,
    /// Streams named in `ssrc` lines, in order.
    pub ssrcs: Vec<u32>,
    /// Media stream and its repair stream.
    pub fid: Vec<(u32, u32)>,
}

impl Section {
    /// The best payload type of this codec: for H.264 the one that most receivers decode
    /// (packetization mode 1, baseline before main, high last), for VP9 and AV1 profile 0, else the
    /// first.
    #[must_use]
    pub fn codec(&self, name: &str) -> Option<&PayloadType> {
        let named = self.codecs.iter().filter(|codec| codec.name.eq_ignore_ascii_case(name));
        // `min_by_key` keeps the first of equals, so the writer's order decides the rest.
        named.min_by_key(|codec| codec.rank())
    }

    /// The payload type that repairs this one (RFC 4588 §8.6).
    #[must_use]
    pub fn rtx_of(&self, pt: u8) -> Option<&PayloadType> {
        self.codecs.iter().find(|codec| {
            codec.name.eq_ignore_ascii_case("rtx")
                && codec.parameter("apt").and_then(|apt| apt.parse().ok()) == Some(pt)
        })
    }

    /// The redundant audio that wraps this payload type (RFC 2198).
    #[must_use]
    pub fn red_of(&self, pt: u8) -> Option<&PayloadType> {
        self.codecs.iter().find(|codec| {
            codec.name.eq_ignore_ascii_case("red")
                && codec.fmtp.split('/').next().and_then(|first| first.parse().ok()) == Some(pt)
        })
    }

    /// Whether its writer sends here.
    #[must_use]
    pub const fn sends(&self) -> bool {
        !self.rejected && matches!(self.direction, Direction::SendOnly | Direction::SendRecv)
    }

    /// Whether its writer receives here.
    #[must_use]
    pub const fn receives(&self) -> bool {
        !self.rejected && matches!(self.direction, Direction::RecvOnly | Direction::SendRecv)
    }

    /// The id of a header extension in this section.
    #[must_use]
    pub fn extension_id(&self, extension: Extension) -> Option<u8> {
        let found = self.extensions.iter().find(|(_, known, _)| *known == extension);
        found.map(|(id, _, _)| *id)
    }
}

/// What a section carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SectionKind {
    /// Sound.
    Audio,
    /// Pictures.
    Video,
    /// Data channels.
    Application,
    /// Nothing we know; always answered with port 0.
    Other,
}

/// Which way media flows, from the writer's view.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// Both ways.
    SendRecv,
    /// From the writer.
    SendOnly,
    /// To the writer.
    RecvOnly,
    /// Not at all.
    Inactive,
}

impl Direction {
    const fn name(self) -> &'static str {
        match self {
            Self::SendRecv => "sendrecv",
            Self::SendOnly => "sendonly",
            Self::RecvOnly => "recvonly",
            Self::Inactive => "inactive",
        }
    }
}

/// One payload type of a section.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PayloadType {
    /// Its number.
    pub pt: u8,
    /// Encoding name in the writer's letter case.
    pub name: String,
    /// Clock rate and channels: `90000`, `48000/2`.
    pub rate: String,
    /// Format parameters as written.
    pub fmtp: String,
    /// RTCP feedback kinds: `nack`, `nack pli`, `transport-cc` …
    pub feedback: Vec<String>,
}

impl PayloadType {
    /// One format parameter by key, in any letter case of the key.
    #[must_use]
    pub fn parameter(&self, key: &str) -> Option<&str> {
        self.fmtp.split(';').find_map(|pair| {
            let (name, value) = pair.split_once('=')?;
            name.trim().eq_ignore_ascii_case(key).then(|| value.trim())
        })
    }

    /// Lower is better among payload types of one name.
    fn rank(&self) -> u32 {
        if self.name.eq_ignore_ascii_case("h264") {
            let mode = u32::from(self.parameter("packetization-mode") != Some("1"));
            // Profile and constraint bits, RFC 6184 §8.1; without the parameter: baseline.
            let profile = self.parameter("profile-level-id").unwrap_or("42000a");
            let profile = match profile.get(..4).map(str::to_ascii_lowercase).as_deref() {
                Some("42e0") => 0,
                Some(profile) if profile.starts_with("42") => 1,
                Some(profile) if profile.starts_with("4d") => 2,
                _ => 3,
            };
            // High is worse than any mode of the others: many receivers cannot decode it.
            return if profile == 3 { 8 + mode } else { 4 * mode + profile };
        }
        let profile = self.parameter("profile-id").or_else(|| self.parameter("profile"));
        u32::from(profile.is_some_and(|profile| profile != "0"))
    }
}

/// A header extension by its meaning.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Extension {
    /// Section of a packet (RFC 8843).
    Mid,
    /// Simulcast layer (RFC 8852).
    Rid,
    /// Simulcast layer that a repair packet belongs to (RFC 8852).
    RepairedRid,
    /// Transport-wide sequence number.
    TransportCc,
    /// Loudness of a packet (RFC 6464).
    AudioLevel,
    /// Absolute send time.
    AbsSendTime,
    /// AV1 dependency descriptor.
    DependencyDescriptor,
    /// Coordination of video orientation (3GPP TS 26.114).
    VideoOrientation,
    /// Playout delay limits.
    PlayoutDelay,
    /// Absolute capture time.
    AbsCaptureTime,
    /// Any other.
    Other,
}

impl Extension {
    const KNOWN: [Self; 10] = [
        Self::Mid,
        Self::Rid,
        Self::RepairedRid,
        Self::TransportCc,
        Self::AudioLevel,
        Self::AbsSendTime,
        Self::DependencyDescriptor,
        Self::VideoOrientation,
        Self::PlayoutDelay,
        Self::AbsCaptureTime,
    ];

    /// By URI.
    #[must_use]
    pub fn from_uri(uri: &str) -> Self {
        Self::KNOWN.into_iter().find(|known| known.uri() == uri).unwrap_or(Self::Other)
    }

    /// Its URI; empty for [`Extension::Other`].
    #[must_use]
    pub const fn uri(self) -> &'static str {
        match self {
            Self::Mid => "urn:ietf:params:rtp-hdrext:sdes:mid",
            Self::Rid => "urn:ietf:params:rtp-hdrext:sdes:rtp-stream-id",
            Self::RepairedRid => "urn:ietf:params:rtp-hdrext:sdes:repaired-rtp-stream-id",
            Self::TransportCc => {
                "http://www.ietf.org/id/draft-holmer-rmcat-transport-wide-cc-extensions-01"
            }
            Self::AudioLevel => "urn:ietf:params:rtp-hdrext:ssrc-audio-level",
            Self::AbsSendTime => "http://www.webrtc.org/experiments/rtp-hdrext/abs-send-time",
            Self::DependencyDescriptor => {
                "https://aomediacodec.github.io/av1-rtp-spec/#dependency-descriptor-rtp-header-extension"
            }
            Self::VideoOrientation => "urn:3gpp:video-orientation",
            Self::PlayoutDelay => "http://www.webrtc.org/experiments/rtp-hdrext/playout-delay",
            Self::AbsCaptureTime => "http://www.webrtc.org/experiments/rtp-hdrext/abs-capture-time",
            Self::Other => "",
        }
    }
}

#[cfg(test)]
mod tests;
