//! Writing an offer, for a client of our own.

use super::write::{Local, Text};
use super::{Direction, Extension, PayloadType, SectionKind};

/// One section to offer.
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

/// Writes an offer. Its DTLS role is `actpass`: the answer decides.
#[must_use]
pub fn write_offer(local: &Local<'_>, sections: &[OfferSection]) -> String {
    let mut out = Text::with_capacity(512 + sections.len() * 1024);
    out.session(local, sections.iter().map(|section| section.mid.as_str()), false);
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
