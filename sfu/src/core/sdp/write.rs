//! Writing the answer.

use std::fmt::Write;
use std::net::SocketAddr;

use super::{Description, Direction, Extension, PayloadType, Section, SectionKind};
use crate::core::ice::Credentials;
use crate::core::peer::DtlsRole;

/// The largest data message we take; announced in every description.
const MAX_MESSAGE_SIZE: u32 = 65_535;

/// The header extensions that we take up where they are offered. They go into **every** live
/// section, also idle ones and those we send in: Chromium leaves an extension out of all later
/// sections once answers have refused it, and then cannot offer simulcast.
const EXTENSIONS: [Extension; 8] = [
    Extension::Mid,
    Extension::Rid,
    Extension::RepairedRid,
    Extension::TransportCc,
    Extension::AudioLevel,
    Extension::AbsSendTime,
    Extension::DependencyDescriptor,
    Extension::PlayoutDelay,
];

/// What we put into one answered section.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fill {
    /// Take the client's media.
    Receive {
        /// Encoding name, any letter case.
        codec: String,
        /// Take repair packets.
        rtx: bool,
        /// Ask for redundant audio.
        red: bool,
        /// What the Opus encoder is asked for.
        opus: OpusWish,
    },
    /// Send media to the client.
    Send {
        /// Encoding name, any letter case.
        codec: String,
        /// The stream we repair on.
        rtx_ssrc: Option<u32>,
        /// The track is redundant audio.
        red: bool,
        /// Stream id of the track.
        stream: String,
        /// Track id.
        track: String,
        /// The stream we send on.
        ssrc: u32,
    },
    /// Send media to the client, in any codec of these that it offers; it may change.
    SendAny {
        /// Encoding names, any letter case.
        codecs: &'static [&'static str],
        /// The stream we repair on.
        rtx_ssrc: Option<u32>,
        /// Stream id of the track.
        stream: String,
        /// Track id.
        track: String,
        /// The stream we send on.
        ssrc: u32,
    },
    /// Nothing for now; the section stays usable.
    Idle,
    /// Port 0: the client recycles the section.
    Reject,
}

/// What we ask of a client's Opus encoder (RFC 7587 §6.1).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OpusWish {
    /// Send next to nothing in silence.
    pub dtx: bool,
    /// Two channels, at the bitrate they are worth.
    pub stereo: bool,
}

impl OpusWish {
    const fn parameters(self) -> &'static str {
        match (self.dtx, self.stereo) {
            (false, false) => "",
            (true, false) => "usedtx=1",
            (false, true) => "stereo=1;maxaveragebitrate=510000",
            (true, true) => "usedtx=1;stereo=1;maxaveragebitrate=510000",
        }
    }
}

/// Our side of a description.
#[derive(Clone, Copy, Debug)]
pub struct Local<'a> {
    /// ICE credentials.
    pub credentials: &'a Credentials,
    /// SHA-256 of our certificate, `AB:CD:…`.
    pub fingerprint: &'a str,
    /// Our DTLS role. An offer says `actpass` whatever this is.
    pub setup: DtlsRole,
    /// Where we can be reached by UDP.
    pub candidates: &'a [SocketAddr],
    /// Where we wait for TCP connections.
    pub tcp_candidates: &'a [SocketAddr],
    /// Session id: constant for one peer.
    pub session: u64,
    /// Version: one more for every description of the session.
    pub version: u32,
}

/// Answers an offer, `fills` being in the order of its sections. A fill that the offer does not allow
/// (a codec that is not offered, a direction that is not there) is answered as idle; what the client
/// has rejected stays rejected.
#[must_use]
pub fn write_answer(offer: &Description, local: &Local<'_>, fills: &[Fill]) -> String {
    let fills = fills.iter().chain(std::iter::repeat(&Fill::Idle));
    let plans: Vec<Plan<'_>> =
        offer.sections.iter().zip(fills).map(|(section, fill)| plan(section, fill)).collect();
    let mut out = Text::with_capacity(512 + plans.len() * 1024);
    let live = plans.iter().filter(|plan| plan.role != Role::Reject);
    out.session(local, live.map(|plan| plan.section.mid.as_str()), true);
    for plan in &plans {
        out.answered(plan, local);
    }
    out.0
}

/// What a fill comes to, given what the offer has.
struct Plan<'a> {
    section: &'a Section,
    /// Payload types of the answer, preferred first.
    codecs: Vec<&'a PayloadType>,
    role: Role<'a>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Role<'a> {
    Data,
    Receive(OpusWish),
    Send { stream: &'a str, track: &'a str, ssrc: u32, rtx_ssrc: Option<u32> },
    Idle,
    Reject,
}

fn plan<'a>(section: &'a Section, fill: &'a Fill) -> Plan<'a> {
    let idle =
        || Plan { section, codecs: section.codecs.first().into_iter().collect(), role: Role::Idle };
    if section.rejected || section.kind == SectionKind::Other || *fill == Fill::Reject {
        return Plan { role: Role::Reject, ..idle() };
    }
    if section.kind == SectionKind::Application {
        return Plan { section, codecs: Vec::new(), role: Role::Data };
    }
    let (name, rtx, red, role) = match fill {
        Fill::Receive { codec, rtx, red, opus } if section.sends() => {
            (codec, *rtx, *red, Role::Receive(*opus))
        }
        Fill::Send { codec, rtx_ssrc, red, stream, track, ssrc } if section.receives() => {
            let role = Role::Send { stream, track, ssrc: *ssrc, rtx_ssrc: *rtx_ssrc };
            (codec, rtx_ssrc.is_some(), *red, role)
        }
        Fill::SendAny { codecs, rtx_ssrc, stream, track, ssrc } if section.receives() => {
            let role = Role::Send { stream, track, ssrc: *ssrc, rtx_ssrc: *rtx_ssrc };
            return plan_any(section, codecs, role).unwrap_or_else(idle);
        }
        Fill::Receive { .. }
        | Fill::Send { .. }
        | Fill::SendAny { .. }
        | Fill::Idle
        | Fill::Reject => return idle(),
    };
    let Some(codec) = section.codec(name) else { return idle() };
    let red = section.red_of(codec.pt).filter(|_| red && section.kind == SectionKind::Audio);
    let rtx = section.rtx_of(codec.pt).filter(|_| rtx);
    let role = match role {
        // A repair stream without a payload type could not be told from anything else.
        Role::Send { stream, track, ssrc, .. } if rtx.is_none() => {
            Role::Send { stream, track, ssrc, rtx_ssrc: None }
        }
        role => role,
    };
    Plan { section, codecs: red.into_iter().chain([codec]).chain(rtx).collect(), role }
}

/// A section that may carry several codecs, each with what repairs it, in the order of the offer.
fn plan_any<'a>(section: &'a Section, names: &[&str], role: Role<'a>) -> Option<Plan<'a>> {
    let mut media: Vec<&PayloadType> =
        names.iter().filter_map(|name| section.codec(name)).collect();
    media.sort_by_key(|codec| section.codecs.iter().position(|other| other.pt == codec.pt));
    let Role::Send { stream, track, ssrc, rtx_ssrc } = role else { return None };
    let repairs = |codec: &&PayloadType| section.rtx_of(codec.pt).is_some();
    // A repair stream without a payload type could not be told from anything else.
    let rtx_ssrc = rtx_ssrc.filter(|_| media.iter().any(repairs));
    let repair = |codec: &PayloadType| section.rtx_of(codec.pt).filter(|_| rtx_ssrc.is_some());
    let codecs: Vec<&PayloadType> =
        media.iter().flat_map(|codec| [*codec].into_iter().chain(repair(codec))).collect();
    let role = Role::Send { stream, track, ssrc, rtx_ssrc };
    (!codecs.is_empty()).then_some(Plan { section, codecs, role })
}

/// A description being written. Writing to a string cannot fail, so results are dropped in one place.
pub(super) struct Text(pub(super) String);

impl Text {
    pub(super) fn with_capacity(capacity: usize) -> Self {
        Self(String::with_capacity(capacity))
    }

    /// Appends one line.
    pub(super) fn line(&mut self, line: std::fmt::Arguments<'_>) {
        let _ = write!(self.0, "{line}\r\n");
    }

    /// Appends the lines before the first section.
    pub(super) fn session<'m>(
        &mut self,
        local: &Local<'_>,
        mids: impl Iterator<Item = &'m str>,
        lite: bool,
    ) {
        self.line(format_args!("v=0"));
        self.line(format_args!("o=- {} {} IN IP4 127.0.0.1", local.session, local.version));
        self.line(format_args!("s=-\r\nt=0 0"));
        let mids: Vec<&str> = mids.collect();
        self.line(format_args!("a=group:BUNDLE {}", mids.join(" ")));
        if lite {
            self.line(format_args!("a=ice-lite"));
        }
        self.line(format_args!("a=extmap-allow-mixed\r\na=msid-semantic: WMS *"));
    }

    /// Appends what every live section has: transport, name, candidates.
    pub(super) fn transport(&mut self, local: &Local<'_>, setup: &str, mid: &str) {
        self.line(format_args!("c=IN IP4 0.0.0.0"));
        self.line(format_args!("a=ice-ufrag:{}", local.credentials.ufrag));
        self.line(format_args!("a=ice-pwd:{}", local.credentials.pwd));
        self.line(format_args!("a=fingerprint:sha-256 {}", local.fingerprint));
        self.line(format_args!("a=setup:{setup}"));
        self.line(format_args!("a=mid:{mid}"));
        for (index, address) in (0u32..).zip(local.candidates.iter().take(64)) {
            // RFC 8445 §5.1.2.1: host type, decreasing local preference, first component.
            let priority = 126 << 24 | (65_535 - index) << 8 | 255;
            let (ip, port) = (address.ip(), address.port());
            let number = index + 1;
            self.line(format_args!("a=candidate:{number} 1 udp {priority} {ip} {port} typ host"));
        }
        let number = local.candidates.len();
        for (index, address) in (0u32..).zip(local.tcp_candidates.iter().take(64)) {
            // RFC 6544 §4.2: below every UDP candidate; 4 is the direction preference of passive.
            let priority = 90 << 24 | 4 << 21 | (8_191 - index) << 8 | 255;
            let (ip, port, number) = (address.ip(), address.port(), number as u32 + index + 1);
            self.line(format_args!(
                "a=candidate:{number} 1 tcp {priority} {ip} {port} typ host tcptype passive"
            ));
        }
        if !local.candidates.is_empty() {
            self.line(format_args!("a=end-of-candidates"));
        }
    }

    /// Appends what a data section has beside its transport.
    pub(super) fn data(&mut self) {
        self.line(format_args!("a=sctp-port:5000\r\na=max-message-size:{MAX_MESSAGE_SIZE}"));
    }

    /// Appends one payload type, parameters beside its own, and the feedback it is to get.
    pub(super) fn codec(&mut self, codec: &PayloadType, more: &str, feedback: &[&str]) {
        let pt = codec.pt;
        if !codec.name.is_empty() {
            self.line(format_args!("a=rtpmap:{pt} {}/{}", codec.name, codec.rate));
        }
        let between = if codec.fmtp.is_empty() || more.is_empty() { "" } else { ";" };
        if !codec.fmtp.is_empty() || !more.is_empty() {
            self.line(format_args!("a=fmtp:{pt} {}{between}{more}", codec.fmtp));
        }
        for kind in feedback {
            self.line(format_args!("a=rtcp-fb:{pt} {kind}"));
        }
    }

    /// Appends the streams of a track: its own, and the one that repairs it.
    pub(super) fn streams(&mut self, cname: &str, ssrc: u32, rtx_ssrc: Option<u32>) {
        if let Some(rtx) = rtx_ssrc {
            self.line(format_args!("a=ssrc-group:FID {ssrc} {rtx}"));
        }
        for ssrc in [ssrc].into_iter().chain(rtx_ssrc) {
            self.line(format_args!("a=ssrc:{ssrc} cname:{cname}"));
        }
    }

    fn answered(&mut self, plan: &Plan<'_>, local: &Local<'_>) {
        let section = plan.section;
        let numbers: Vec<String> = plan.codecs.iter().map(|codec| codec.pt.to_string()).collect();
        let formats = match section.kind {
            SectionKind::Application => "webrtc-datachannel".to_owned(),
            // A section needs a format, also a dead one.
            _ if numbers.is_empty() => "0".to_owned(),
            _ => numbers.join(" "),
        };
        let (media, protocol) = (&section.media, &section.protocol);
        if plan.role == Role::Reject {
            self.line(format_args!("m={media} 0 {protocol} {formats}\r\nc=IN IP4 0.0.0.0"));
            self.line(format_args!("a=mid:{}\r\na=inactive", section.mid));
            return;
        }
        self.line(format_args!("m={media} 9 {protocol} {formats}"));
        let setup = match local.setup {
            DtlsRole::Active => "active",
            DtlsRole::Passive => "passive",
        };
        self.transport(local, setup, &section.mid);
        let direction = match plan.role {
            Role::Data => return self.data(),
            Role::Receive(_) => Direction::RecvOnly,
            Role::Send { .. } => Direction::SendOnly,
            Role::Idle | Role::Reject => Direction::Inactive,
        };
        self.line(format_args!("a=rtcp-mux\r\na=rtcp-rsize\r\na={}", direction.name()));
        for codec in &plan.codecs {
            let wish = match plan.role {
                Role::Receive(wish) if codec.name.eq_ignore_ascii_case("opus") => wish.parameters(),
                _ => "",
            };
            self.codec(codec, wish, feedback(section.kind, codec, plan.role));
        }
        for (id, extension, uri) in &section.extensions {
            if EXTENSIONS.contains(extension) {
                self.line(format_args!("a=extmap:{id} {uri}"));
            }
        }
        self.ends(plan);
    }

    /// What only sections with media have.
    fn ends(&mut self, plan: &Plan<'_>) {
        match plan.role {
            Role::Receive(_) if !plan.section.rids.is_empty() => {
                for rid in &plan.section.rids {
                    self.line(format_args!("a=rid:{rid} recv"));
                }
                self.line(format_args!("a=simulcast:recv {}", plan.section.rids.join(";")));
            }
            Role::Send { stream, track, ssrc, rtx_ssrc } => {
                self.line(format_args!("a=msid:{stream} {track}"));
                self.streams(stream, ssrc, rtx_ssrc);
            }
            Role::Receive(_) | Role::Data | Role::Idle | Role::Reject => {}
        }
    }
}

/// The feedback we give (receiving) or take (sending). Repair and redundancy have none of their own.
/// No `goog-remb`: receivers need not estimate for us, and senders obey our bound without it.
fn feedback(kind: SectionKind, codec: &PayloadType, role: Role<'_>) -> &'static [&'static str] {
    let plain = !["rtx", "red"].iter().any(|name| codec.name.eq_ignore_ascii_case(name));
    match (kind, role) {
        (_, Role::Data | Role::Idle | Role::Reject) => &[],
        _ if !plain => &[],
        // Browsers do not offer `nack` for audio, and honour it.
        (SectionKind::Audio, _) => &["transport-cc", "nack"],
        (SectionKind::Video, _) => &["transport-cc", "ccm fir", "nack", "nack pli"],
        (SectionKind::Application | SectionKind::Other, _) => &[],
    }
}
