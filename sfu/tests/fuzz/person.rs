//! One person with its peer, its offers and a book of what it received.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use bedside_sfu::core::Rng;
use bedside_sfu::core::api::{
    AddTrack, MediaKind, ParticipantSid, Path, Private, SessionEvent, SessionKey, Source as Shows,
    TrackSid,
};
use bedside_sfu::core::codec::Vp8;
use bedside_sfu::core::ice::Credentials;
use bedside_sfu::core::peer::{
    ChannelRole, Crypto, DtlsRole, IceRole, Identity, Peer, PeerConfig, PeerEvent, Received,
};
use bedside_sfu::core::rtcp::{self, Rtcp};
use bedside_sfu::core::rtp::{self, Header};
use bedside_sfu::core::sdp::{
    self, Description, Direction, Extension, Local, OfferSection, PayloadType, SectionKind,
};

use crate::receiver::Receiver;
use crate::source::{LEVEL, MID, OPUS, REPAIRED, RID, RTX, Source, TWCC, VP8};
use crate::world::server;

/// One received stream by extended sequence number: media clock and payload.
#[derive(Default)]
pub struct Stream {
    pub seen: BTreeMap<u64, (u32, Vec<u8>)>,
    highest: Option<u64>,
}

impl Stream {
    fn put(&mut self, sequence: u16, timestamp: u32, payload: &[u8], may_repeat: bool) {
        let highest = self.highest.unwrap_or_else(|| (1 << 20) + u64::from(sequence));
        let step = sequence.wrapping_sub(highest as u16) as i16;
        let index = highest.wrapping_add_signed(i64::from(step));
        self.highest = Some(self.highest.map_or(index, |highest| highest.max(index)));
        let new = (timestamp, payload.to_vec());
        if let Some(before) = self.seen.get(&index) {
            assert!(may_repeat, "one number was used twice");
            assert_eq!(*before, new, "a repair differs from what was sent");
        }
        self.seen.insert(index, new);
    }

    pub fn check_order(&self) {
        let media = self.seen.values().filter(|(_, payload)| !payload.is_empty());
        let clocks: Vec<u32> = media.map(|(clock, _)| *clock).collect();
        for pair in clocks.windows(2) {
            let step = pair[1].wrapping_sub(pair[0]) as i32;
            assert!(step >= 0, "the clock went back by {step}");
        }
    }

    pub fn missing(&self) -> usize {
        let first = self.seen.first_key_value().map_or(0, |(first, _)| *first);
        let last = self.seen.last_key_value().map_or(0, |(last, _)| *last + 1);
        (last - first) as usize - self.seen.len()
    }

    /// Pictures follow one another without a gap in their ids.
    pub fn check_pictures(&self) {
        let ids = self.seen.values().filter_map(|(_, payload)| Vp8::parse(payload)?.picture_id);
        let ids: Vec<u16> = ids.map(|(_, id, _)| id).collect();
        for pair in ids.windows(2) {
            assert!(pair[1].wrapping_sub(pair[0]) & 0x7FFF <= 1, "a picture is missing");
        }
    }
}

pub struct Person {
    pub name: String,
    pub session: Option<SessionKey>,
    pub sid: Option<ParticipantSid>,
    pub address: SocketAddr,
    pub sections: Vec<OfferSection>,
    pub sources: Vec<Source>,
    pub peer: Option<Peer>,
    pub answer: Option<Description>,
    /// The connection it receives on, where that is another.
    pub receiver: Option<Receiver>,
    /// Its answer to the server's offer, to be sent.
    pub to_answer: Option<(u32, String)>,
    pub open_offers: BTreeSet<u32>,
    pub streams: BTreeMap<u32, Stream>,
    pub log: Vec<SessionEvent>,
    pub ended: bool,
    pub obeys: bool,
    /// Keyframe requests that came: when, for which stream.
    pub asked: Vec<(Instant, u32)>,
    /// Numbers that it was asked for again.
    pub repairs_asked: Vec<(Instant, u32, u16)>,
    pub reports: Vec<rtcp::ReportBlock>,
    pub feedback: Vec<Instant>,
    pub carried: Vec<(String, TrackSid)>,
    repair_numbers: BTreeSet<(u32, u16)>,
    versions: BTreeMap<ParticipantSid, u32>,
    twcc: u16,
    credentials: Credentials,
    identity: Arc<Identity>,
    offers: u32,
    out: VecDeque<(Path, Vec<u8>)>,
}

impl Person {
    pub fn new(name: &str, address: SocketAddr, identity: Arc<Identity>, rng: &mut Rng) -> Self {
        Self {
            name: name.into(),
            session: None,
            sid: None,
            address,
            sections: vec![section("data", SectionKind::Application, Direction::SendRecv)],
            sources: Vec::new(),
            peer: None,
            answer: None,
            receiver: None,
            to_answer: None,
            open_offers: BTreeSet::new(),
            streams: BTreeMap::new(),
            log: Vec::new(),
            ended: false,
            obeys: true,
            asked: Vec::new(),
            repairs_asked: Vec::new(),
            reports: Vec::new(),
            feedback: Vec::new(),
            carried: Vec::new(),
            repair_numbers: BTreeSet::new(),
            versions: BTreeMap::new(),
            twcc: 0,
            credentials: Credentials::random(rng),
            identity,
            offers: 0,
            out: VecDeque::new(),
        }
    }

    /// Adds a source and the section that carries it; returns its announcement.
    pub fn publish(&mut self, cid: &str, ssrc: u32, rids: &[&str], video: bool) -> AddTrack {
        let mid = self.sections.len().to_string();
        let kind = if video { SectionKind::Video } else { SectionKind::Audio };
        let mut section = section(&mid, kind, Direction::SendOnly);
        section.msid = Some(("stream".into(), cid.into()));
        section.rids = rids.iter().filter(|rid| !rid.is_empty()).map(|rid| (*rid).into()).collect();
        self.sections.push(section);
        self.sources.push(Source::new(cid, &mid, ssrc, rids, video));
        announcement(cid, video)
    }

    pub fn receive_on(&mut self, audio: u32, video: u32) {
        for (count, kind) in [(audio, SectionKind::Audio), (video, SectionKind::Video)] {
            for _ in 0..count {
                let mid = self.sections.len().to_string();
                self.sections.push(section(&mid, kind, Direction::RecvOnly));
            }
        }
    }

    pub fn write_offer(&mut self) -> (u32, String) {
        self.offers += 1;
        self.open_offers.insert(self.offers);
        let local = Local {
            credentials: &self.credentials,
            fingerprint: self.identity.fingerprint(),
            setup: DtlsRole::Active,
            candidates: &[],
            tcp_candidates: &[],
            session: 7,
            version: self.offers,
        };
        (self.offers, sdp::write_offer(&local, &self.sections))
    }

    pub fn restart_ice(&mut self, rng: &mut Rng) {
        self.credentials = Credentials::random(rng);
        if let Some(peer) = &mut self.peer {
            peer.restart_ice(self.credentials.clone());
        }
    }

    pub fn path(&self) -> Path {
        Path::Udp { local: self.address, remote: server() }
    }

    pub fn move_to(&mut self, now: Instant, address: SocketAddr) {
        self.address = address;
        let path = self.path();
        if let (Some(peer), Some(answer)) = (&mut self.peer, &self.answer) {
            let remote = Credentials { ufrag: answer.ufrag.clone(), pwd: answer.pwd.clone() };
            peer.set_remote(now, &remote, vec![path]);
        }
    }

    /// Takes an event; returns whether it wants to offer.
    pub fn told(&mut self, now: Instant, event: SessionEvent) -> bool {
        assert!(!self.ended, "{} is told {event:?} after its end", self.name);
        let mut offers = false;
        match &event {
            SessionEvent::Joined { me, others, .. } => {
                self.sid = Some(me.sid.clone());
                assert!(others.iter().all(|other| !other.grant.hidden), "hidden one shown");
            }
            SessionEvent::Resumed { participants, .. } => {
                let own = |sid: &ParticipantSid| Some(sid) == self.sid.as_ref();
                assert!(participants.iter().all(|one| own(&one.sid) || !one.grant.hidden));
            }
            SessionEvent::Participants(infos) => {
                for info in infos {
                    let own = Some(&info.sid) == self.sid.as_ref();
                    assert!(own || !info.grant.hidden, "hidden one shown");
                    let before = self.versions.insert(info.sid.clone(), info.version);
                    assert!(before.is_none_or(|before| before < info.version), "versions rise");
                }
            }
            SessionEvent::Answer { id, sdp, mid_to_track } => {
                assert!(self.open_offers.remove(id), "an answer that nobody asked for");
                let mids: BTreeSet<&String> = mid_to_track.iter().map(|(mid, _)| mid).collect();
                assert_eq!(mids.len(), mid_to_track.len(), "two tracks on one section");
                if self.receiver.is_none() {
                    self.carried.clone_from(mid_to_track);
                }
                self.answered(now, sdp);
            }
            SessionEvent::Offer { id, sdp, mid_to_track } => {
                let mids: BTreeSet<&String> = mid_to_track.iter().map(|(mid, _)| mid).collect();
                assert_eq!(mids.len(), mid_to_track.len(), "two tracks on one section");
                self.carried.clone_from(mid_to_track);
                let receiver = self.receiver.as_mut().unwrap();
                self.to_answer = Some((*id, receiver.answer(now, sdp, |_| true, false)));
            }
            SessionEvent::SectionsNeeded { audio, video } if self.obeys => {
                self.receive_on(*audio, *video);
                offers = true;
            }
            SessionEvent::Left { .. } | SessionEvent::Refused(_) => {
                self.ended = true;
                self.to_answer = None;
                self.open_offers.clear();
            }
            _ => {}
        }
        self.log.push(event);
        offers
    }

    fn answered(&mut self, now: Instant, text: &str) {
        let answer = sdp::parse(text).unwrap();
        let path = self.path();
        let remote = Credentials { ufrag: answer.ufrag.clone(), pwd: answer.pwd.clone() };
        match &mut self.peer {
            None => {
                let local = self.credentials.clone();
                let config = PeerConfig {
                    identity: Arc::clone(&self.identity),
                    role: DtlsRole::Active,
                    remote_fingerprint: answer.fingerprint.clone(),
                    ice: IceRole::Controlling { local, remote, candidates: vec![path] },
                    allow_cm: false,
                    crypto: Crypto::Clear,
                    channels: ChannelRole::Open,
                };
                self.peer = Some(Peer::new(now, config).unwrap());
            }
            Some(peer) if self.answer.as_ref().is_some_and(|old| old.ufrag != answer.ufrag) => {
                peer.set_remote(now, &remote, vec![path]);
            }
            Some(_) => {}
        }
        self.answer = Some(answer);
    }

    pub fn due(&self) -> Option<Instant> {
        let other = self.receiver.as_ref().and_then(|receiver| receiver.peer.as_ref());
        self.peer.iter().chain(other).filter_map(Peer::poll_timeout).min()
    }

    pub fn work(&mut self, now: Instant) {
        let other = self.receiver.as_mut().map(|receiver| &mut receiver.peer);
        for slot in [Some(&mut self.peer), other].into_iter().flatten() {
            let Some(peer) = slot else { continue };
            if peer.poll_timeout().is_some_and(|at| at <= now) {
                peer.handle_timeout(now);
            }
            let closed = |peer: &mut Peer| {
                std::iter::from_fn(|| peer.poll_event()).any(|e| matches!(e, PeerEvent::Closed(_)))
            };
            if closed(peer) {
                *slot = None;
            }
        }
    }

    /// Sends what its sources make in this tick.
    pub fn tick(&mut self, ms: u64) -> Vec<Vec<u8>> {
        if self.peer.as_ref().is_none_or(|peer| peer.path().is_none()) {
            return Vec::new();
        }
        let twcc = &mut self.twcc;
        self.sources.iter_mut().flat_map(|source| source.packets(ms, twcc)).collect()
    }

    pub fn send(&mut self, packet: Vec<u8>) {
        let path = self.path();
        self.out.push_back((path, packet));
    }

    pub fn rtcp(&mut self, write: impl FnOnce(&mut Vec<u8>)) {
        let mut packet = Vec::new();
        write(&mut packet);
        self.send(packet);
    }

    pub fn take_out(&mut self) -> Vec<(Path, Vec<u8>)> {
        let mut all: Vec<_> = self.out.drain(..).collect();
        let other = self.receiver.as_mut().and_then(|receiver| receiver.peer.as_mut());
        for peer in self.peer.iter_mut().chain(other) {
            all.extend(std::iter::from_fn(|| peer.poll_transmit()));
        }
        all
    }

    /// Whether an address is one of its own.
    pub fn is_at(&self, address: SocketAddr) -> bool {
        let other = self.receiver.as_ref().map(|receiver| receiver.address);
        self.address == address || other == Some(address)
    }

    pub fn datagram(&mut self, now: Instant, local: SocketAddr, bytes: &mut [u8]) {
        let path = Path::Udp { local, remote: server() };
        let peer = match &mut self.receiver {
            Some(receiver) if receiver.address == local => receiver.peer.as_mut(),
            Some(_) | None => self.peer.as_mut(),
        };
        let Some(peer) = peer else { return };
        match peer.handle_datagram(now, path, bytes) {
            Received::Rtp { packet, .. } => {
                let packet = packet.to_vec();
                self.media(&packet);
            }
            Received::Rtcp(compound) => {
                let compound = compound.to_vec();
                self.control(now, &compound);
            }
            Received::Handled | Received::Dropped(_) => {}
        }
    }

    fn media(&mut self, packet: &[u8]) {
        let header = Header::parse(packet).unwrap();
        let payload = rtp::payload(packet, &header).unwrap();
        let sections = self.incoming().into_iter().flat_map(|answer| &answer.sections);
        let repairs = sections.flat_map(|section| &section.fid);
        let repaired = repairs.into_iter().find(|(_, repair)| *repair == header.ssrc).copied();
        if let Some((media, _)) = repaired {
            let fresh = self.repair_numbers.insert((header.ssrc, header.sequence));
            assert!(fresh, "a repair number was used twice");
            // Padding alone is a probe.
            if payload.is_empty() {
                return;
            }
            let (original, payload) = payload.split_first_chunk().unwrap();
            let stream = self.streams.entry(media).or_default();
            stream.put(u16::from_be_bytes(*original), header.timestamp, payload, true);
        } else {
            let stream = self.streams.entry(header.ssrc).or_default();
            // Audio is sent again as the very same datagram.
            let audio = header.payload_type == OPUS;
            stream.put(header.sequence, header.timestamp, payload, audio);
        }
    }

    fn control(&mut self, now: Instant, compound: &[u8]) {
        for packet in rtcp::packets(compound) {
            match packet.unwrap() {
                Rtcp::Pli { media, .. } => {
                    self.asked.push((now, media));
                    let layers = self.sources.iter_mut().flat_map(|source| &mut source.layers);
                    layers.filter(|layer| layer.ssrc == media).for_each(|it| it.key_wanted = true);
                }
                Rtcp::Nack { media, lost, .. } => {
                    self.repairs_asked.extend(lost.map(|number| (now, media, number)));
                }
                Rtcp::ReceiverReport { reports, .. } => self.reports.extend(reports),
                Rtcp::Twcc(message) => {
                    assert!(bedside_sfu::core::twcc::parse(message).is_some());
                    self.feedback.push(now);
                }
                _ => {}
            }
        }
    }

    /// The description of what it receives.
    fn incoming(&self) -> Option<&Description> {
        self.receiver.as_ref().map_or(self.answer.as_ref(), |receiver| receiver.offer.as_ref())
    }

    /// The stream that carries a track.
    pub fn stream_of(&self, track: &TrackSid) -> Option<&Stream> {
        self.streams.get(&self.ssrc_of(track)?)
    }

    pub fn ssrc_of(&self, track: &TrackSid) -> Option<u32> {
        let (mid, _) = self.carried.iter().find(|(_, sid)| sid == track)?;
        let answer = self.incoming()?;
        let section = answer.sections.iter().find(|section| section.mid == *mid)?;
        section.ssrcs.first().copied()
    }
}

pub fn announcement(cid: &str, video: bool) -> AddTrack {
    AddTrack {
        cid: cid.into(),
        name: Private(String::new()),
        kind: if video { MediaKind::Video } else { MediaKind::Audio },
        source: if video { Shows::Camera } else { Shows::Microphone },
        muted: false,
        width: 0,
        height: 0,
        layers: Vec::new(),
        codecs: Vec::new(),
        backup_of: None,
        stream: String::new(),
        disable_dtx: false,
        disable_red: true,
        stereo: false,
        encryption: 0,
        audio_features: Vec::new(),
        backup_codec_policy: 0,
    }
}

fn payload_type(pt: u8, name: &str, rate: &str, fmtp: &str) -> PayloadType {
    PayloadType {
        pt,
        name: name.into(),
        rate: rate.into(),
        fmtp: fmtp.into(),
        feedback: vec!["nack".into(), "nack pli".into(), "transport-cc".into()],
    }
}

pub fn section(mid: &str, kind: SectionKind, direction: Direction) -> OfferSection {
    let codecs = match kind {
        SectionKind::Audio => vec![payload_type(OPUS, "opus", "48000/2", "")],
        SectionKind::Video => {
            vec![payload_type(VP8, "VP8", "90000", ""), payload_type(RTX, "rtx", "90000", "apt=96")]
        }
        SectionKind::Application | SectionKind::Other => vec![],
    };
    OfferSection {
        kind,
        mid: mid.into(),
        direction,
        codecs,
        extensions: vec![
            (LEVEL, Extension::AudioLevel),
            (TWCC, Extension::TransportCc),
            (MID, Extension::Mid),
            (RID, Extension::Rid),
            (REPAIRED, Extension::RepairedRid),
        ],
        rids: Vec::new(),
        msid: None,
        ssrc: None,
        rtx_ssrc: None,
    }
}
