//! The sections of this participant's offers, and what the answers make of them.

use bedside_sfu::core::api::MediaKind;
use bedside_sfu::core::codec::Codec;
use bedside_sfu::core::sdp::{
    Description, Direction, Extension, Local, OfferSection, PayloadType, Section, SectionKind,
    write_offer,
};

use crate::receiver::ReceiveParameters;
use crate::sender::{SendParameters, Sender};

/// Payload type of redundant audio, as browsers have it.
const RED: u8 = 63;

/// Sections for receiving that the first offer has of each kind, as browsers have it.
const FIRST_SECTIONS: u32 = 3;
/// More is asked of us by mistake only.
const MAX_SECTIONS: usize = 120;

const AUDIO_EXTENSIONS: [(u8, Extension); 4] = [
    (1, Extension::AudioLevel),
    (2, Extension::AbsSendTime),
    (3, Extension::TransportCc),
    (4, Extension::Mid),
];
const VIDEO_EXTENSIONS: [(u8, Extension); 6] = [
    (2, Extension::AbsSendTime),
    (3, Extension::TransportCc),
    (4, Extension::Mid),
    (10, Extension::Rid),
    (11, Extension::RepairedRid),
    (13, Extension::DependencyDescriptor),
];

/// What a section of ours is for.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Purpose {
    Receive(MediaKind),
    Data,
    /// A published track, by its stream id.
    Send {
        kind: MediaKind,
        cid: String,
        /// Names of the simulcast layers; with those the streams are not named.
        rids: Vec<String>,
        ssrc: u32,
        rtx_ssrc: u32,
    },
}

/// The state of offering and answering. One offer is under way at a time.
#[derive(Debug)]
pub(crate) struct Negotiation {
    sections: Vec<Purpose>,
    session: u64,
    version: u32,
    next_id: u32,
    outstanding: Option<u32>,
    wanted: bool,
    last_offer: Option<Numbered>,
    last_answer: Option<Numbered>,
}

/// A description and its id.
pub(crate) type Numbered = (u32, String);

impl Negotiation {
    /// Sections to receive in (if that is wanted) and the data section.
    pub(crate) fn new(session: u64, subscribe: bool) -> Self {
        let mut sections = Vec::new();
        if subscribe {
            for kind in [MediaKind::Audio, MediaKind::Video] {
                sections.extend((0..FIRST_SECTIONS).map(|_| Purpose::Receive(kind)));
            }
        }
        sections.push(Purpose::Data);
        Self {
            sections,
            // RFC 8866 §5.2 wants it to fit 63 bits.
            session: session >> 1,
            version: 0,
            next_id: 1,
            outstanding: None,
            wanted: true,
            last_offer: None,
            last_answer: None,
        }
    }

    /// The name of the next section.
    pub(crate) fn next_mid(&self) -> String {
        self.sections.len().to_string()
    }

    /// Appends the section of a published track, of which these are the streams.
    pub(crate) fn add_track(&mut self, senders: &[Sender]) {
        let Some(first) = senders.first() else { return };
        let rids = senders.iter().map(|sender| sender.rid.clone());
        self.sections.push(Purpose::Send {
            kind: first.kind(),
            cid: first.cid.clone(),
            rids: rids.filter(|rid| !rid.is_empty()).collect(),
            ssrc: first.ssrc,
            rtx_ssrc: first.rtx_ssrc,
        });
        self.wanted = true;
    }

    /// Appends sections to receive in, and asks for an offer.
    pub(crate) fn add_receivers(&mut self, audio: u32, video: u32) {
        for (kind, count) in [(MediaKind::Audio, audio), (MediaKind::Video, video)] {
            let room = MAX_SECTIONS.saturating_sub(self.sections.len());
            let count = (count as usize).min(room);
            self.sections.extend((0..count).map(|_| Purpose::Receive(kind)));
        }
        self.wanted = true;
    }

    /// Asks for an offer.
    pub(crate) const fn want(&mut self) {
        self.wanted = true;
    }

    /// Forgets an offer whose answer was lost with its signal connection.
    pub(crate) const fn forget(&mut self) {
        self.outstanding = None;
    }

    /// The next offer, if one is wanted and none is under way.
    pub(crate) fn offer(&mut self, local: Local<'_>) -> Option<Numbered> {
        if !self.wanted || self.outstanding.is_some() {
            return None;
        }
        self.wanted = false;
        self.version += 1;
        let id = self.next_id;
        self.next_id += 1;
        self.outstanding = Some(id);
        let sections: Vec<OfferSection> = self
            .sections
            .iter()
            .enumerate()
            .map(|(index, purpose)| purpose.section(index.to_string()))
            .collect();
        let local = Local { session: self.session, version: self.version, ..local };
        let offer = (id, write_offer(&local, &sections));
        self.last_offer = Some(offer.clone());
        Some(offer)
    }

    /// Takes note of an answer; false when it answers nothing that is under way.
    pub(crate) fn answered(&mut self, id: u32, sdp: &str) -> bool {
        if self.outstanding != Some(id) {
            return false;
        }
        self.outstanding = None;
        self.last_answer = Some((id, sdp.to_owned()));
        true
    }

    /// The last offer and answer, each with its id, for a resume.
    pub(crate) fn last(&self) -> (Option<Numbered>, Option<Numbered>) {
        (self.last_offer.clone(), self.last_answer.clone())
    }
}

impl Purpose {
    fn section(&self, mid: String) -> OfferSection {
        let (kind, direction) = match self {
            Self::Data => (SectionKind::Application, Direction::SendRecv),
            Self::Receive(kind) => (section_kind(*kind), Direction::RecvOnly),
            Self::Send { kind, .. } => (section_kind(*kind), Direction::SendOnly),
        };
        let sends = direction == Direction::SendOnly;
        let (codecs, extensions) = match kind {
            SectionKind::Audio => (audio_codecs(), AUDIO_EXTENSIONS.to_vec()),
            SectionKind::Video => (video_codecs(sends), VIDEO_EXTENSIONS.to_vec()),
            SectionKind::Application | SectionKind::Other => (Vec::new(), Vec::new()),
        };
        let section = OfferSection {
            kind,
            mid,
            direction,
            codecs,
            extensions,
            rids: Vec::new(),
            msid: None,
            ssrc: None,
            rtx_ssrc: None,
        };
        match self {
            Self::Data | Self::Receive(_) => section,
            Self::Send { cid, rids, ssrc, rtx_ssrc, .. } => {
                let named = rids.is_empty();
                let repaired = named && kind == SectionKind::Video;
                OfferSection {
                    rids: rids.clone(),
                    msid: Some(("bedside".to_owned(), cid.clone())),
                    ssrc: named.then_some(*ssrc),
                    rtx_ssrc: repaired.then_some(*rtx_ssrc),
                    ..section
                }
            }
        }
    }
}

const fn section_kind(kind: MediaKind) -> SectionKind {
    match kind {
        MediaKind::Audio => SectionKind::Audio,
        MediaKind::Video => SectionKind::Video,
    }
}

fn codec(pt: u8, name: &str, rate: &str, fmtp: &str, feedback: &[&str]) -> PayloadType {
    PayloadType {
        pt,
        name: name.to_owned(),
        rate: rate.to_owned(),
        fmtp: fmtp.to_owned(),
        feedback: feedback.iter().map(|kind| (*kind).to_owned()).collect(),
    }
}

fn audio_codecs() -> Vec<PayloadType> {
    let feedback = &["transport-cc", "nack"];
    vec![
        codec(111, "opus", "48000/2", "minptime=10;useinbandfec=1", feedback),
        codec(RED, "red", "48000/2", "111/111", &[]),
    ]
}

/// VP8 is what the loop is made of; the others are only received (and counted, not decoded).
fn video_codecs(sending: bool) -> Vec<PayloadType> {
    let feedback = &["transport-cc", "ccm fir", "nack", "nack pli"];
    let baseline = "level-asymmetry-allowed=1;packetization-mode=1;profile-level-id=42e01f";
    let all = [
        (96, "VP8", ""),
        (102, "H264", baseline),
        (98, "VP9", "profile-id=0"),
        (45, "AV1", "level-idx=5;profile=0;tier=0"),
    ];
    let taken = if sending { 1 } else { all.len() };
    all.into_iter()
        .take(taken)
        .flat_map(|(pt, name, fmtp)| {
            let repair = codec(pt + 1, "rtx", "90000", &format!("apt={pt}"), &[]);
            [codec(pt, name, "90000", fmtp, feedback), repair]
        })
        .collect()
}

/// What an answer lets us send in a section of ours; `None` = nothing.
pub(crate) fn send_parameters(section: &Section) -> Option<SendParameters> {
    if !section.receives() {
        return None;
    }
    let wanted = if section.kind == SectionKind::Audio { "opus" } else { "vp8" };
    let codec = section.codec(wanted)?;
    Some(SendParameters {
        payload_type: codec.pt,
        rtx_payload_type: section.rtx_of(codec.pt).map(|repair| repair.pt),
        red_payload_type: section.red_of(codec.pt).map(|red| red.pt),
        mid_id: section.extension_id(Extension::Mid),
        rid_id: section.extension_id(Extension::Rid),
        repaired_rid_id: section.extension_id(Extension::RepairedRid),
        abs_send_time_id: section.extension_id(Extension::AbsSendTime),
        transport_cc_id: section
            .extension_id(Extension::TransportCc)
            .filter(|_| codec.feedback.iter().any(|kind| kind == "transport-cc")),
        audio_level_id: section.extension_id(Extension::AudioLevel),
    })
}

/// The tracks that an answer carries towards us.
pub(crate) fn receive_parameters(answer: &Description) -> Vec<ReceiveParameters> {
    answer.sections.iter().filter(|section| section.sends()).filter_map(received).collect()
}

fn received(section: &Section) -> Option<ReceiveParameters> {
    let kind = match section.kind {
        SectionKind::Audio => MediaKind::Audio,
        SectionKind::Video => MediaKind::Video,
        SectionKind::Application | SectionKind::Other => return None,
    };
    let is_media = |codec: &&PayloadType| {
        !["rtx", "red"].iter().any(|name| codec.name.eq_ignore_ascii_case(name))
    };
    let codec = section.codecs.iter().find(is_media)?;
    let ssrc = *section.ssrcs.first()?;
    let repair = section.fid.iter().find(|(media, _)| *media == ssrc);
    let (stream, sid) = section.msid.clone()?;
    Some(ReceiveParameters {
        sid,
        stream,
        kind,
        codec: Codec::from_name(&codec.name),
        ssrc: repair.map_or(ssrc, |(media, _)| *media),
        rtx_ssrc: repair.map(|(_, repair)| *repair),
        red_type: section.red_of(codec.pt).map(|red| red.pt),
        descriptor_id: section.extension_id(Extension::DependencyDescriptor),
        nack: codec.feedback.iter().any(|kind| kind == "nack"),
    })
}

#[cfg(test)]
mod tests {
    use bedside_sfu::core::ice::Credentials;
    use bedside_sfu::core::peer::DtlsRole;
    use bedside_sfu::core::sdp::{Fill, OpusWish, parse, write_answer};

    use super::*;
    use crate::loops::Content;

    fn sender(content: Content, rid: &str, negotiation: &Negotiation) -> Sender {
        let (rid, mid) = (rid.to_owned(), negotiation.next_mid());
        Sender::new(content, rid, mid, "cid".to_owned(), [2, 3, 4, 5])
    }

    fn local<'a>(credentials: &'a Credentials, fingerprint: &'a str) -> Local<'a> {
        Local {
            credentials,
            fingerprint,
            setup: DtlsRole::Active,
            candidates: &[],
            tcp_candidates: &[],
            session: 1,
            version: 1,
        }
    }

    #[test]
    fn offers_follow_one_another_and_grow() {
        let credentials = Credentials { ufrag: "u".to_owned(), pwd: "p".to_owned() };
        let fingerprint = ["0A"; 32].join(":");
        let local = local(&credentials, &fingerprint);
        let mut negotiation = Negotiation::new(77, true);
        let (id, sdp) = negotiation.offer(local).unwrap();
        assert_eq!((id, parse(&sdp).unwrap().sections.len()), (1, 7));
        negotiation.add_receivers(1, 0);
        assert!(negotiation.offer(local).is_none(), "one at a time");
        assert!(!negotiation.answered(9, ""), "an answer to nothing");
        assert!(negotiation.answered(1, "answer"));
        let sender = sender(Content::Face, "", &negotiation);
        negotiation.add_track(std::slice::from_ref(&sender));
        assert_eq!(sender.mid, "8");
        let (id, sdp) = negotiation.offer(local).unwrap();
        let offer = parse(&sdp).unwrap();
        assert_eq!((id, offer.sections.len()), (2, 9));
        assert_eq!(offer.sections[8].fid, [(sender.ssrc, sender.rtx_ssrc)]);
        assert_eq!(offer.sections[8].msid.as_ref().unwrap().1, "cid");
        assert!(sdp.contains("o=- 38 2 "));
    }

    #[test]
    fn an_answer_says_what_to_send_and_what_comes() {
        let credentials = Credentials { ufrag: "u".to_owned(), pwd: "p".to_owned() };
        let fingerprint = ["0A"; 32].join(":");
        let local = local(&credentials, &fingerprint);
        let mut negotiation = Negotiation::new(1, true);
        negotiation.add_track(&[sender(Content::Tone, "", &negotiation)]);
        let (_, sdp) = negotiation.offer(local).unwrap();
        let mut fills = vec![Fill::Idle; 8];
        fills[3] = Fill::Send {
            codec: "vp8".to_owned(),
            rtx_ssrc: Some(8),
            red: false,
            stream: "PA|TR_v".to_owned(),
            track: "TR_v".to_owned(),
            ssrc: 7,
        };
        fills[7] = Fill::Receive {
            codec: "opus".to_owned(),
            rtx: true,
            red: true,
            opus: OpusWish::default(),
        };
        let answer = parse(&write_answer(&parse(&sdp).unwrap(), &local, &fills)).unwrap();
        let expected = ReceiveParameters {
            sid: "TR_v".to_owned(),
            stream: "PA|TR_v".to_owned(),
            kind: MediaKind::Video,
            codec: Codec::Vp8,
            ssrc: 7,
            rtx_ssrc: Some(8),
            red_type: None,
            descriptor_id: Some(13),
            nack: true,
        };
        assert_eq!(receive_parameters(&answer), [expected]);
        let parameters = send_parameters(&answer.sections[7]).unwrap();
        assert_eq!((parameters.payload_type, parameters.rtx_payload_type), (111, None));
        assert_eq!((parameters.mid_id, parameters.transport_cc_id), (Some(4), Some(3)));
        assert_eq!(parameters.red_payload_type, Some(RED));
        assert!(send_parameters(&answer.sections[0]).is_none());
    }

    #[test]
    fn simulcast_layers_are_named_and_their_streams_are_not() {
        let credentials = Credentials { ufrag: "u".to_owned(), pwd: "p".to_owned() };
        let fingerprint = ["0A"; 32].join(":");
        let local = local(&credentials, &fingerprint);
        let mut negotiation = Negotiation::new(1, false);
        let layers = [(Content::Layer(1), "q"), (Content::Layer(2), "h")];
        let senders = layers.map(|(content, rid)| sender(content, rid, &negotiation));
        negotiation.add_track(&senders);
        let offer = parse(&negotiation.offer(local).unwrap().1).unwrap();
        assert_eq!(offer.sections[1].rids, ["q", "h"]);
        assert!(offer.sections[1].ssrcs.is_empty() && offer.sections[1].fid.is_empty());
        let fill = Fill::Receive {
            codec: "vp8".to_owned(),
            rtx: true,
            red: false,
            opus: OpusWish::default(),
        };
        let answer = parse(&write_answer(&offer, &local, &[Fill::Idle, fill])).unwrap();
        let parameters = send_parameters(&answer.sections[1]).unwrap();
        assert_eq!((parameters.rid_id, parameters.repaired_rid_id), (Some(10), Some(11)));
        assert_eq!(parameters.rtx_payload_type, Some(97));
    }
}
