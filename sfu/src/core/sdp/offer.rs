//! Writing an offer: for a client of our own, and to clients that the server offers to.

use super::write::{Local, Text};
use super::{Direction, Extension, PayloadType, SectionKind};

/// One section to offer. One of media without a codec is dead: port 0, and of no bundle.
#[derive(Clone, Debug)]
pub struct OfferSection {
    /// What it carries.
    pub kind: SectionKind,
    /// Its name in the bundle.
    pub mid: String,
    /// From our view.
    pub direction: Direction,
    /// Payload types, preferred first.
    pub codecs: Vec<PayloadType>,
    /// Header extensions; one id means one thing in all sections.
    pub extensions: Vec<(u8, Extension)>,
    /// Simulcast layers that we send.
    pub rids: Vec<String>,
    /// Stream and track id of what we send.
    pub msid: Option<(String, String)>,
    /// The stream we send on; none with simulcast.
    pub ssrc: Option<u32>,
    /// The stream we repair on.
    pub rtx_ssrc: Option<u32>,
}

impl OfferSection {
    fn is_dead(&self) -> bool {
        matches!(self.kind, SectionKind::Audio | SectionKind::Video) && self.codecs.is_empty()
    }
}

/// Writes a client's offer. Its DTLS role is `actpass`: the answer decides.
#[must_use]
pub fn write_offer(local: &Local<'_>, sections: &[OfferSection]) -> String {
    write(local, sections, false)
}

/// Writes the offer of a server, which checks nothing itself (RFC 8445 §2.5).
#[must_use]
pub fn write_lite_offer(local: &Local<'_>, sections: &[OfferSection]) -> String {
    write(local, sections, true)
}

fn write(local: &Local<'_>, sections: &[OfferSection], lite: bool) -> String {
    let mut out = Text::with_capacity(512 + sections.len() * 1024);
    let live = sections.iter().filter(|section| !section.is_dead());
    out.session(local, live.map(|section| section.mid.as_str()), lite);
    for section in sections {
        out.offered(section, local);
    }
    out.0
}

impl Text {
    fn offered(&mut self, section: &OfferSection, local: &Local<'_>) {
        let media = match section.kind {
            SectionKind::Audio => "audio",
            SectionKind::Video => "video",
            SectionKind::Application | SectionKind::Other => {
                self.line(format_args!("m=application 9 UDP/DTLS/SCTP webrtc-datachannel"));
                self.transport(local, "actpass", &section.mid);
                return self.data();
            }
        };
        if section.is_dead() {
            self.line(format_args!("m={media} 0 UDP/TLS/RTP/SAVPF 0\r\nc=IN IP4 0.0.0.0"));
            return self.line(format_args!("a=mid:{}\r\na=inactive", section.mid));
        }
        let formats: Vec<String> =
            section.codecs.iter().map(|codec| codec.pt.to_string()).collect();
        self.line(format_args!("m={media} 9 UDP/TLS/RTP/SAVPF {}", formats.join(" ")));
        self.transport(local, "actpass", &section.mid);
        self.line(format_args!("a=rtcp-mux\r\na=rtcp-rsize\r\na={}", section.direction.name()));
        for codec in &section.codecs {
            let feedback: Vec<&str> = codec.feedback.iter().map(String::as_str).collect();
            self.codec(codec, "", &feedback);
        }
        for (id, extension) in &section.extensions {
            self.line(format_args!("a=extmap:{id} {}", extension.uri()));
        }
        if !section.rids.is_empty() {
            for rid in &section.rids {
                self.line(format_args!("a=rid:{rid} send"));
            }
            self.line(format_args!("a=simulcast:send {}", section.rids.join(";")));
        }
        if let Some((stream, track)) = &section.msid {
            self.line(format_args!("a=msid:{stream} {track}"));
            if let Some(ssrc) = section.ssrc {
                self.streams(stream, ssrc, section.rtx_ssrc);
            }
        }
    }
}
