//! Reading a description line by line.

use std::net::{IpAddr, SocketAddr};

use super::{Description, Direction, Extension, PayloadType, Section, SectionKind, Setup};
use crate::core::peer::Fingerprint;

/// Longest description read, in bytes. A room of 15 cameras offers 86 kB.
pub const MAX_LEN: usize = 512 * 1024;
/// Most sections read.
pub const MAX_SECTIONS: usize = 128;
/// Most payload types, extensions, layers or streams kept of one section.
const MAX_PER_SECTION: usize = 128;
/// Most candidates kept.
const MAX_CANDIDATES: usize = 32;
/// Longest section name: the header extension that carries it is short (RFC 8843 §15).
const MAX_MID: usize = 32;

/// Why a description cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SdpError {
    /// Longer than [`MAX_LEN`].
    #[error("description is too long")]
    TooLong,
    /// More than [`MAX_SECTIONS`].
    #[error("description has too many sections")]
    TooManySections,
    /// It does not begin with `v=0`.
    #[error("this is not a session description")]
    NotSdp,
    /// No section.
    #[error("description has no section")]
    NoSection,
    /// A section without a name, with an impossible one, or two of one name.
    #[error("a section has no proper name")]
    BadMid,
    /// No ICE user name or password.
    #[error("description has no ICE credentials")]
    NoCredentials,
    /// No certificate hash by an algorithm that we accept.
    #[error("description has no acceptable fingerprint")]
    NoFingerprint,
}

/// Reads an offer or an answer. Lines that it does not know are passed over.
///
/// # Errors
/// When something is missing without which no media can flow, or a limit is passed.
pub fn parse(sdp: &str) -> Result<Description, SdpError> {
    if sdp.len() > MAX_LEN {
        return Err(SdpError::TooLong);
    }
    if !sdp.starts_with("v=0") {
        return Err(SdpError::NotSdp);
    }
    let mut reader = Reader::default();
    for line in sdp.lines() {
        // A stray control character could be taken for a line end by whoever reads what we echo.
        let Some((key, value)) = line.split_once('=') else { continue };
        if value.contains(|letter: char| letter.is_control()) {
            continue;
        }
        match key {
            "m" => reader.start_section(value)?,
            "a" => reader.attribute(value),
            _ => {}
        }
    }
    reader.finish()
}

/// The transport of the session or of one section; in a bundle the first live one counts.
#[derive(Clone, Debug, Default)]
struct Transport {
    ufrag: Option<String>,
    pwd: Option<String>,
    fingerprint: Option<Fingerprint>,
    setup: Option<Setup>,
}

impl Transport {
    fn attribute(&mut self, name: &str, value: &str) {
        match name {
            "ice-ufrag" => self.ufrag = Some(value.to_owned()),
            "ice-pwd" => self.pwd = Some(value.to_owned()),
            "fingerprint" => self.fingerprint = self.fingerprint.take().or_else(|| hash(value)),
            "setup" => {
                self.setup = match value {
                    "active" => Some(Setup::Active),
                    "passive" => Some(Setup::Passive),
                    _ => Some(Setup::ActPass),
                }
            }
            _ => {}
        }
    }

    /// Takes what `other` has and this has not. Credentials only come in pairs.
    fn fill_from(&mut self, other: Self) {
        if self.ufrag.is_none() || self.pwd.is_none() {
            (self.ufrag, self.pwd) = (other.ufrag, other.pwd);
        }
        self.fingerprint = self.fingerprint.take().or(other.fingerprint);
        self.setup = self.setup.or(other.setup);
    }
}

/// A fingerprint by an algorithm that is still trusted, of the right length.
fn hash(value: &str) -> Option<Fingerprint> {
    let (algorithm, value) = value.split_once(' ')?;
    let algorithm = algorithm.to_ascii_lowercase();
    let octets = match algorithm.as_str() {
        "sha-256" => 32,
        "sha-384" => 48,
        "sha-512" => 64,
        _ => return None,
    };
    let value = value.trim().to_ascii_uppercase();
    let is_octet = |octet: &str| octet.len() == 2 && u8::from_str_radix(octet, 16).is_ok();
    let proper = value.split(':').all(is_octet) && value.split(':').count() == octets;
    proper.then_some(Fingerprint { algorithm, value })
}

#[derive(Default)]
struct Reader {
    session: Transport,
    /// Default direction, if the session names one.
    direction: Option<Direction>,
    sections: Vec<(Section, Transport)>,
    candidates: Vec<SocketAddr>,
}

impl Reader {
    fn start_section(&mut self, value: &str) -> Result<(), SdpError> {
        if self.sections.len() >= MAX_SECTIONS {
            return Err(SdpError::TooManySections);
        }
        let mut words = value.split(' ');
        let media = words.next().unwrap_or_default().to_owned();
        let port = words.next().unwrap_or_default();
        let protocol = words.next().unwrap_or_default().to_owned();
        let codecs = words
            .filter_map(|word| word.parse().ok())
            .filter(|pt| *pt < 128)
            .take(MAX_PER_SECTION)
            .map(|pt| PayloadType { pt, ..PayloadType::default() })
            .collect();
        let section = Section {
            kind: kind(&media, &protocol),
            media,
            protocol,
            mid: String::new(),
            rejected: port == "0",
            direction: self.direction.unwrap_or(Direction::SendRecv),
            codecs,
            extensions: Vec::new(),
            rids: Vec::new(),
            msid: None,
            ssrcs: Vec::new(),
            fid: Vec::new(),
        };
        self.sections.push((section, Transport::default()));
        Ok(())
    }

    fn attribute(&mut self, line: &str) {
        let (name, value) = line.split_once(':').unwrap_or((line, ""));
        if name == "candidate" && self.candidates.len() < MAX_CANDIDATES {
            let found = candidate(value).filter(|address| !self.candidates.contains(address));
            self.candidates.extend(found);
        }
        match self.sections.last_mut() {
            None => {
                self.session.attribute(name, value);
                self.direction = direction(name).or(self.direction);
            }
            Some((section, transport)) => {
                transport.attribute(name, value);
                section.attribute(name, value);
            }
        }
    }

    fn finish(self) -> Result<Description, SdpError> {
        if self.sections.is_empty() {
            return Err(SdpError::NoSection);
        }
        // What a section says of itself goes before what the session says of all.
        let mut transport = Transport::default();
        let mut sections: Vec<Section> = Vec::with_capacity(self.sections.len());
        for (section, own) in self.sections {
            let proper = !section.mid.is_empty()
                && section.mid.len() <= MAX_MID
                && section.mid.bytes().all(|byte| byte.is_ascii_graphic())
                && sections.iter().all(|other| other.mid != section.mid);
            if !proper {
                return Err(SdpError::BadMid);
            }
            if !section.rejected {
                transport.fill_from(own);
            }
            sections.push(section);
        }
        transport.fill_from(self.session);
        let (Some(ufrag), Some(pwd)) = (transport.ufrag, transport.pwd) else {
            return Err(SdpError::NoCredentials);
        };
        Ok(Description {
            ufrag,
            pwd,
            fingerprint: transport.fingerprint.ok_or(SdpError::NoFingerprint)?,
            setup: transport.setup.unwrap_or(Setup::ActPass),
            sections,
            candidates: self.candidates,
        })
    }
}

impl Section {
    fn attribute(&mut self, name: &str, value: &str) {
        let (first, tail) = value.split_once(' ').unwrap_or((value, ""));
        match name {
            // Firefox: port 0 with this line is alive, its transport is another section's.
            "bundle-only" => self.rejected = false,
            "mid" => self.mid = value.trim().to_owned(),
            "rtpmap" => {
                let (name, rate) = tail.split_once('/').unwrap_or((tail, ""));
                for codec in self.payload_types(first) {
                    codec.name = name.to_owned();
                    codec.rate = rate.to_owned();
                }
            }
            "fmtp" => {
                for codec in self.payload_types(first) {
                    codec.fmtp = tail.to_owned();
                }
            }
            "rtcp-fb" => {
                for codec in self.payload_types(first) {
                    if codec.feedback.len() < 16 {
                        codec.feedback.push(tail.to_owned());
                    }
                }
            }
            "extmap" if self.extensions.len() < MAX_PER_SECTION => {
                let id = first.split('/').next().and_then(|id| id.parse().ok());
                let uri = tail.split(' ').next().unwrap_or_default();
                if let Some(id) = id.filter(|id| *id != 0) {
                    self.extensions.push((id, Extension::from_uri(uri), uri.to_owned()));
                }
            }
            "rid" if tail.starts_with("send") && self.rids.len() < 8 => {
                self.rids.push(first.to_owned());
            }
            "msid" => self.msid = Some((first.to_owned(), tail.to_owned())),
            "ssrc" if self.ssrcs.len() < MAX_PER_SECTION => {
                let ssrc = first.parse().ok().filter(|ssrc| !self.ssrcs.contains(ssrc));
                self.ssrcs.extend(ssrc);
            }
            "ssrc-group" if first == "FID" && self.fid.len() < MAX_PER_SECTION => {
                let mut pair = tail.split(' ').filter_map(|ssrc| ssrc.parse().ok());
                self.fid.extend(pair.next().zip(pair.next()));
            }
            _ => self.direction = direction(name).unwrap_or(self.direction),
        }
    }

    /// The payload types that a line speaks of: one, or all (`*` in RFC 4585 §4.2).
    fn payload_types<'s>(
        &'s mut self,
        name: &'s str,
    ) -> impl Iterator<Item = &'s mut PayloadType> + use<'s> {
        let number: Option<u8> = name.parse().ok();
        self.codecs.iter_mut().filter(move |codec| name == "*" || Some(codec.pt) == number)
    }
}

fn kind(media: &str, protocol: &str) -> SectionKind {
    match media {
        "audio" if protocol.contains("RTP/SAVP") => SectionKind::Audio,
        "video" if protocol.contains("RTP/SAVP") => SectionKind::Video,
        "application" if protocol.contains("DTLS/SCTP") => SectionKind::Application,
        _ => SectionKind::Other,
    }
}

fn direction(name: &str) -> Option<Direction> {
    match name {
        "sendrecv" => Some(Direction::SendRecv),
        "sendonly" => Some(Direction::SendOnly),
        "recvonly" => Some(Direction::RecvOnly),
        "inactive" => Some(Direction::Inactive),
        _ => None,
    }
}

/// A UDP host candidate of the first component (RFC 8839 §5.1) whose address is a number.
fn candidate(value: &str) -> Option<SocketAddr> {
    let mut words = value.split(' ');
    let (_foundation, component, protocol) = (words.next()?, words.next()?, words.next()?);
    let (_priority, address, port) = (words.next()?, words.next()?, words.next()?);
    let (label, kind) = (words.next()?, words.next()?);
    let wanted = component == "1"
        && protocol.eq_ignore_ascii_case("udp")
        && (label, kind) == ("typ", "host");
    let address: IpAddr = address.parse().ok()?;
    let port: u16 = port.parse().ok()?;
    (wanted && port != 0).then_some(SocketAddr::new(address, port))
}
