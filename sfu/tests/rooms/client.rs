//! A test client: offers as browsers do, sends its sources, and keeps book of all that it receives.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bedside_sfu::core::Rng;
use bedside_sfu::core::api::{
    AddTrack, DataChannelKind, LeaveReason, MediaKind, ParticipantInfo, ParticipantSid, Path,
    Private, SessionEvent, SessionKey, Source as Shows, TrackInfo, TrackSid,
};
use bedside_sfu::core::codec::Vp8;
use bedside_sfu::core::ice::Credentials;
use bedside_sfu::core::peer::{
    ChannelRole, Crypto, DtlsRole, IceRole, Identity, Peer, PeerConfig, PeerEvent, Received,
};
use bedside_sfu::core::rtcp::{self, Rtcp};
use bedside_sfu::core::rtp::{self, Header};
use bedside_sfu::core::sdp::{
    self, Description, Direction, Extension, Local, OfferSection, PayloadType, Section,
    SectionKind, Setup,
};
use bedside_sfu::core::twcc::Recorder;
use bytes::Bytes;
use rand_chacha::rand_core::SeedableRng as _;

use crate::receiver::Receiver;
use crate::source::{
    AV1, DESCRIPTOR, H264, LEVEL, MID, OPUS, RED, REPAIRED, RID, RTX, Source, TWCC, VP8, VP9,
};
use crate::stream::{Seen, Stream};
use crate::world::server;

/// How often a subscriber asks again for what it misses.
const ASK_EACH: Duration = Duration::from_millis(60);

/// How often a subscriber tells what arrived, as browsers do.
const TELL_EACH: Duration = Duration::from_millis(50);

/// What a subscriber says about arrivals.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lie {
    /// One packet of a hundred came; nothing can be received.
    NothingCame,
    /// Everything came in no time; 10 Gbit/s can be received.
    AllAtOnce,
    /// Numbers and times without sense.
    Garbage,
}

pub struct Client {
    pub number: usize,
    pub name: String,
    pub session: SessionKey,
    pub address: SocketAddr,
    pub me: Option<ParticipantSid>,
    pub auto_subscribe: bool,
    pub adaptive: bool,
    pub server_active: bool,
    pub reads_red: bool,
    pub has_video_codec: bool,
    /// A codec that it cannot decode.
    pub lacks: &'static str,
    /// Cannot use sections again that were inactive.
    pub idle_stays_open: bool,
    pub asks_again: bool,
    /// Asks at once, and again after this long, as browsers do after a round trip.
    pub asks_after: Option<Duration>,
    pub obeys_questions: bool,
    /// Sends only what it was told that anybody wants.
    pub dynacast: bool,
    /// Tells when packets arrived.
    pub tells_arrivals: bool,
    /// … and does not tell the truth.
    pub lie: Option<Lie>,
    /// Its videos may be paused.
    pub allow_pause: bool,
    /// Reads no answers.
    pub quiet: bool,
    pub setup_sent: Setup,
    pub peer: Option<Peer>,
    /// The connection it receives on, where that is another.
    pub receiver: Option<Receiver>,
    /// Its answer to the server's offer, to be sent.
    pub to_answer: Option<(u32, String)>,
    pub sections: Vec<OfferSection>,
    pub sources: Vec<Source>,
    pub streams: BTreeMap<u32, Stream>,
    pub repair_packets: u64,
    /// Sends sound again when asked, as browsers do.
    pub repeats_sound: bool,
    pub padding_packets: u64,
    /// Bytes of all media that came.
    pub octets: u64,
    /// Packets with and without a transport-wide number.
    pub numbered: (u64, u64),
    pub log: Vec<SessionEvent>,
    pub others: BTreeMap<ParticipantSid, ParticipantInfo>,
    pub published: BTreeMap<String, TrackInfo>,
    pub carried: BTreeMap<String, TrackSid>,
    pub answer: Option<Description>,
    pub data: Vec<(DataChannelKind, String)>,
    /// Of data tracks.
    pub packets: Vec<Bytes>,
    pub ended: Option<(LeaveReason, bool)>,
    pub feedback: u64,
    pub feedback_packets: u64,
    pub reported: Vec<(Instant, rtcp::ReportBlock)>,
    crypto: Crypto,
    identity: Arc<Identity>,
    credentials: Credentials,
    offers: u32,
    twcc: u16,
    next_ask: Option<Instant>,
    asked: BTreeMap<(u32, u64), Instant>,
    sealed_sounds: BTreeMap<(u32, u16), Vec<u8>>,
    arrivals: Option<Recorder>,
    next_told: Option<Instant>,
    outgoing: Vec<(Path, Vec<u8>)>,
}

impl Client {
    pub fn new(
        number: usize,
        name: &str,
        session: SessionKey,
        crypto: Crypto,
        identity: Arc<Identity>,
    ) -> Self {
        let mut rng = Rng::from_seed([number as u8 + 100; 32]);
        let mut client = Self {
            number,
            name: name.into(),
            session,
            address: SocketAddr::from(([127, 0, 0, 1], 40_000 + number as u16)),
            me: None,
            auto_subscribe: true,
            adaptive: false,
            server_active: false,
            reads_red: false,
            has_video_codec: true,
            lacks: "",
            idle_stays_open: false,
            asks_again: false,
            asks_after: None,
            asked: BTreeMap::new(),
            obeys_questions: true,
            dynacast: false,
            tells_arrivals: true,
            lie: None,
            allow_pause: true,
            quiet: false,
            setup_sent: Setup::ActPass,
            peer: None,
            receiver: crate::TWO_CONNECTIONS
                .then(|| Receiver::new(number, crypto, Arc::clone(&identity))),
            to_answer: None,
            sections: Vec::new(),
            sources: Vec::new(),
            streams: BTreeMap::new(),
            repair_packets: 0,
            repeats_sound: false,
            sealed_sounds: BTreeMap::new(),
            padding_packets: 0,
            octets: 0,
            numbered: (0, 0),
            log: Vec::new(),
            others: BTreeMap::new(),
            published: BTreeMap::new(),
            carried: BTreeMap::new(),
            answer: None,
            data: Vec::new(),
            packets: Vec::new(),
            ended: None,
            feedback: 0,
            feedback_packets: 0,
            reported: Vec::new(),
            crypto,
            identity,
            credentials: Credentials::random(&mut rng),
            offers: 0,
            twcc: 0,
            next_ask: None,
            arrivals: None,
            next_told: None,
            outgoing: Vec::new(),
        };
        client.sections.push(section("data", SectionKind::Application, Direction::SendRecv));
        client
    }

    /// Adds sections to receive on.
    pub fn receive_on(&mut self, audio: u32, video: u32) {
        if self.receiver.is_some() {
            return;
        }
        for (count, kind) in [(audio, SectionKind::Audio), (video, SectionKind::Video)] {
            for _ in 0..count {
                let mid = self.sections.len().to_string();
                let mut section = section(&mid, kind, Direction::RecvOnly);
                if kind == SectionKind::Video && !self.has_video_codec {
                    section.codecs = vec![payload_type(120, "H265", "90000", "")];
                }
                section.codecs.retain(|codec| codec.name != self.lacks);
                self.sections.push(section);
            }
        }
    }

    /// Adds a section to send on, and its announcement.
    pub fn publish(&mut self, mut source: Source) -> AddTrack {
        let mid = self.sections.len().to_string();
        source.mid.clone_from(&mid);
        let kind = if source.video { SectionKind::Video } else { SectionKind::Audio };
        let mut section = section(&mid, kind, Direction::SendOnly);
        section.msid = Some(("stream".into(), source.cid.clone()));
        section.rids = source.encodings.iter().map(|encoding| encoding.rid.clone()).collect();
        section.rids.retain(|rid| !rid.is_empty());
        if source.announce_ssrc {
            section.ssrc = source.encodings.first().map(|encoding| encoding.ssrc);
            let repair = source.encodings.first().map(|encoding| encoding.repair_ssrc);
            section.rtx_ssrc = repair.filter(|_| source.video);
        }
        self.sections.push(section);
        let announced = announcement(&source);
        self.sources.push(source);
        announced
    }

    pub fn section(&mut self, mid: &str) -> &mut OfferSection {
        self.sections.iter_mut().find(|section| section.mid == mid).unwrap()
    }

    pub fn write_offer(&mut self) -> (u32, String) {
        self.offers += 1;
        let local = Local {
            credentials: &self.credentials,
            fingerprint: self.identity.fingerprint(),
            setup: DtlsRole::Active,
            candidates: &[],
            tcp_candidates: &[],
            session: 7,
            version: self.offers,
        };
        let mut text = sdp::write_offer(&local, &self.sections);
        if self.setup_sent == Setup::Passive {
            text = text.replace("a=setup:actpass", "a=setup:passive");
        }
        (self.offers, text)
    }

    pub fn restart_ice(&mut self, rng: &mut Rng) {
        self.credentials = Credentials::random(rng);
        if let Some(peer) = &mut self.peer {
            peer.restart_ice(self.credentials.clone());
        }
    }

    /// Another address from now on, as after a NAT rebinding.
    pub fn move_to(&mut self, now: Instant, address: SocketAddr) {
        self.address = address;
        let remote = self.answer.as_ref().map(credentials).unwrap();
        let path = self.path();
        self.peer.as_mut().unwrap().set_remote(now, &remote, vec![path]);
        if let Some(receiver) = &mut self.receiver {
            let port = address.port() + 1_000;
            receiver.move_to(now, SocketAddr::new(address.ip(), port));
        }
    }

    fn path(&self) -> Path {
        Path::Udp { local: self.address, remote: server() }
    }

    /// Takes an event; returns whether to offer again.
    pub fn told(&mut self, now: Instant, event: SessionEvent) -> bool {
        let mut offers = false;
        match &event {
            SessionEvent::Joined { me, others, .. } => {
                self.me = Some(me.sid.clone());
                self.others = others.iter().map(|info| (info.sid.clone(), info.clone())).collect();
            }
            SessionEvent::Resumed { participants, .. } => {
                let everyone = participants.iter();
                self.others = everyone.map(|info| (info.sid.clone(), info.clone())).collect();
            }
            SessionEvent::Participants(infos) => {
                for info in infos {
                    if let Some(before) = self.others.get(&info.sid) {
                        assert!(info.version > before.version, "versions rise");
                    }
                    self.others.insert(info.sid.clone(), info.clone());
                }
            }
            SessionEvent::Answer { id, sdp, mid_to_track } if !self.quiet => {
                assert_eq!(*id, self.offers);
                self.answered(now, sdp, mid_to_track.clone());
            }
            SessionEvent::Offer { id, sdp, mid_to_track } if !self.quiet => {
                self.offered(now, *id, sdp, mid_to_track.clone());
            }
            SessionEvent::SectionsNeeded { audio, video } if self.obeys_questions => {
                self.receive_on(*audio, *video);
                offers = true;
            }
            SessionEvent::TrackPublished { cid, track } => {
                self.published.insert(cid.clone(), track.clone());
            }
            SessionEvent::SubscribedQuality { track, codecs } if self.dynacast => {
                self.send_only(track, &codecs[0].1);
            }
            SessionEvent::Left { reason, resume } => self.ended = Some((*reason, *resume)),
            _ => {}
        }
        self.log.push(event);
        offers
    }

    /// Starts and stops the encodings of a track, as SDKs do: by the rank of their names.
    fn send_only(&mut self, track: &TrackSid, rungs: &[bool; 3]) {
        let published = self.published.values();
        let Some(info) = published.into_iter().find(|info| info.sid == *track) else { return };
        let cid = &info.announced.cid;
        let Some(source) = self.sources.iter_mut().find(|source| source.cid == *cid) else {
            return;
        };
        for encoding in &mut source.encodings {
            let rank = ["q", "h", "f"].iter().position(|rid| *rid == encoding.rid).unwrap_or(0);
            encoding.keyframe_wanted |= rungs[rank] && !encoding.active;
            encoding.active = rungs[rank];
        }
    }

    fn answered(&mut self, now: Instant, text: &str, carried: Vec<(String, TrackSid)>) {
        let answer = sdp::parse(text).unwrap();
        assert_eq!(answer.sections.len(), self.sections.len());
        if self.receiver.is_none() {
            self.carries(&answer, carried);
        } else {
            assert!(carried.is_empty(), "it is not received on here");
        }
        let remote = credentials(&answer);
        let candidates = vec![self.path()];
        match &mut self.peer {
            None => {
                let role = match answer.setup {
                    Setup::Active => DtlsRole::Passive,
                    _ => DtlsRole::Active,
                };
                let local = self.credentials.clone();
                let config = PeerConfig {
                    identity: Arc::clone(&self.identity),
                    role,
                    remote_fingerprint: answer.fingerprint.clone(),
                    ice: IceRole::Controlling { local, remote, candidates },
                    allow_cm: false,
                    crypto: self.crypto,
                    channels: ChannelRole::Open,
                };
                self.peer = Some(Peer::new(now, config).unwrap());
            }
            Some(peer) => {
                if self.answer.as_ref().is_some_and(|before| before.ufrag != answer.ufrag) {
                    peer.set_remote(now, &remote, candidates);
                }
            }
        }
        self.answer = Some(answer);
    }

    /// What an offer of the server's own carries.
    fn offered(&mut self, now: Instant, id: u32, text: &str, carried: Vec<(String, TrackSid)>) {
        self.carries(&sdp::parse(text).unwrap(), carried);
        let (seeing, red, lacks) = (self.has_video_codec, self.reads_red, self.lacks);
        let receiver = self.receiver.as_mut().filter(|receiver| !receiver.mute);
        let reads = |section: &Section| {
            (seeing || section.kind != SectionKind::Video) && section.codec(lacks).is_none()
        };
        self.to_answer = receiver.map(|receiver| (id, receiver.answer(now, text, reads, red)));
    }

    fn carries(&mut self, description: &Description, carried: Vec<(String, TrackSid)>) {
        for (mid, sid) in &carried {
            let publisher =
                self.others.values().find(|info| info.tracks.iter().any(|track| track.sid == *sid));
            assert!(publisher.is_some(), "the publisher must be known before its track is carried");
            let section = description.sections.iter().find(|section| section.mid == *mid).unwrap();
            assert_eq!(section.msid.as_ref().unwrap().1, *sid.0);
        }
        self.carried = carried.into_iter().collect();
    }

    /// The description of what it receives.
    pub fn incoming(&self) -> Option<&Description> {
        self.receiver.as_ref().map_or(self.answer.as_ref(), |receiver| receiver.offer.as_ref())
    }

    /// The peer that it receives by.
    pub fn receiving(&mut self) -> Option<&mut Peer> {
        match &mut self.receiver {
            Some(receiver) => receiver.peer.as_mut(),
            None => self.peer.as_mut(),
        }
    }

    /// Its peers are gone, without a word.
    pub fn vanish(&mut self) -> (Option<Peer>, Option<Peer>) {
        (self.peer.take(), self.receiver.as_mut().and_then(|receiver| receiver.peer.take()))
    }

    /// They are there again.
    pub fn come_back(&mut self, (peer, other): (Option<Peer>, Option<Peer>)) {
        self.peer = peer;
        if let Some(receiver) = &mut self.receiver {
            receiver.peer = other;
        }
    }

    pub fn due(&self) -> Option<Instant> {
        let other = self.receiver.as_ref().and_then(|receiver| receiver.peer.as_ref());
        let both = || self.peer.iter().chain(other);
        let sends = self.peer.as_ref().is_some_and(|peer| peer.path().is_some());
        let media = both().any(|peer| peer.path().is_some());
        let sources = self.sources.iter().filter(|_| sends).map(Source::due);
        let tells = self.next_told.filter(|_| media && self.tells_arrivals);
        let peers = both().filter_map(Peer::poll_timeout);
        sources.chain(peers).chain(self.next_ask.filter(|_| media)).chain(tells).min()
    }

    pub fn work(&mut self, now: Instant) {
        let other = self.receiver.as_mut().and_then(|receiver| receiver.peer.as_mut());
        for peer in self.peer.iter_mut().chain(other) {
            if peer.poll_timeout().is_some_and(|at| at <= now) {
                peer.handle_timeout(now);
            }
            while let Some(event) = peer.poll_event() {
                if let PeerEvent::Data { kind: DataChannelKind::Track, payload } = event {
                    self.packets.push(payload);
                } else if let PeerEvent::Data { kind, payload } = event {
                    self.data.push((kind, String::from_utf8_lossy(&payload).into_owned()));
                }
            }
        }
        let (sources, twcc, outgoing) = (&mut self.sources, &mut self.twcc, &mut self.outgoing);
        let sealed = &mut self.sealed_sounds;
        if let Some((peer, path)) =
            self.peer.as_mut().and_then(|peer| Some(peer.path()).flatten().map(|path| (peer, path)))
        {
            for source in sources {
                source.work(now, twcc, &mut |mut packet, len| {
                    let header = Header::parse(&packet).unwrap();
                    assert!(peer.seal_rtp(&mut packet, 0, len));
                    if matches!(header.payload_type, OPUS | RED) {
                        sealed.insert((header.ssrc, header.sequence), packet.clone());
                    }
                    outgoing.push((path, packet));
                });
            }
        }
        if self.asks_again {
            self.ask_again(now);
        }
        if self.tells_arrivals {
            self.tell_arrivals(now);
        }
    }

    fn tell_arrivals(&mut self, now: Instant) {
        if self.next_told.is_none_or(|at| at > now) {
            return;
        }
        self.next_told = None;
        while let Some(arrivals) = self.arrivals.as_mut().filter(|arrivals| arrivals.pending()) {
            let mut packet = Vec::new();
            arrivals.write(&mut packet, 1, 2);
            if self.lie == Some(Lie::Garbage) {
                let at = 12 + self.numbered.0 as usize % (packet.len() - 12);
                packet[at] ^= self.numbered.0 as u8 | 1;
            }
            self.send_rtcp(|out| out.extend_from_slice(&packet));
        }
        let bits: u32 = match self.lie {
            Some(Lie::NothingCame) => 0,
            Some(Lie::AllAtOnce) => 16 << 18 | 160_000,
            Some(Lie::Garbage) | None => return,
        };
        // draft-alvestrand-rmcat-remb-03 §2.2.
        let remb = [0x8F, 206, 0, 5, 0, 0, 0, 1, 0, 0, 0, 0, b'R', b'E', b'M', b'B'];
        let rest = (1 << 24 | bits).to_be_bytes();
        self.send_rtcp(|out| out.extend_from_slice(&[&remb[..], &rest, &[0, 0, 0, 9]].concat()));
    }

    fn ask_again(&mut self, now: Instant) {
        if self.next_ask.is_some_and(|at| at > now) {
            return;
        }
        let each = self.asks_after.map_or(ASK_EACH, |_| Duration::from_millis(10));
        self.next_ask = Some(now + each);
        let mut asks = Vec::new();
        for (ssrc, stream) in &self.streams {
            let Some((first, newest)) = stream.seen.keys().next().copied().zip(stream.highest)
            else {
                continue;
            };
            let recent = first.max(newest.saturating_sub(500))..newest;
            let recent = recent.filter(|at| !stream.seen.contains_key(at));
            let asked = &mut self.asked;
            let due = recent.filter(|at| {
                let Some(after) = self.asks_after else { return true };
                let last = asked.entry((*ssrc, *at)).or_insert(now - after);
                let due = now - *last >= after;
                *last = if due { now } else { *last };
                due
            });
            let lost: Vec<u16> = due.map(|at| at as u16).collect();
            if !lost.is_empty() {
                asks.push((*ssrc, lost));
            }
        }
        for (media, lost) in asks {
            self.send_rtcp(|out| rtcp::write_nack(out, 1, media, &lost));
        }
    }

    /// Says something of what it receives.
    pub fn send_rtcp(&mut self, write: impl FnOnce(&mut Vec<u8>)) {
        let mut packet = Vec::new();
        write(&mut packet);
        let Some(peer) = self.receiving() else { return };
        let Some(path) = peer.path() else { return };
        if peer.seal_rtcp(&mut packet, 0) {
            self.outgoing.push((path, packet));
        }
    }

    /// Says something of what it sends.
    pub fn report(&mut self, write: impl FnOnce(&mut Vec<u8>)) {
        let mut packet = Vec::new();
        write(&mut packet);
        let Some(peer) = &mut self.peer else { return };
        let Some(path) = peer.path() else { return };
        if peer.seal_rtcp(&mut packet, 0) {
            self.outgoing.push((path, packet));
        }
    }

    /// Reports all that it receives, as receivers do each second.
    pub fn report_back(&mut self) {
        let block = |(ssrc, stream): (&u32, &Stream)| {
            let lost = stream.missing()?.len() as i32;
            let highest = stream.highest? as u32;
            let (ssrc, fraction_lost) = (*ssrc, 0);
            Some(rtcp::ReportBlock {
                ssrc,
                fraction_lost,
                lost,
                highest,
                jitter: 0,
                lsr: 0,
                dlsr: 0,
            })
        };
        let blocks: Vec<_> = self.streams.iter().filter_map(block).collect();
        self.send_rtcp(|out| rtcp::write_receiver_report(out, 1, &blocks));
    }

    pub fn send_data(&mut self, now: Instant, kind: DataChannelKind, message: &Bytes) {
        self.peer.as_mut().unwrap().send_data(now, kind, message).unwrap();
    }

    pub fn take_outgoing(&mut self) -> Vec<(Path, Vec<u8>)> {
        let mut all = std::mem::take(&mut self.outgoing);
        let other = self.receiver.as_mut().and_then(|receiver| receiver.peer.as_mut());
        for peer in self.peer.iter_mut().chain(other) {
            all.extend(std::iter::from_fn(|| peer.poll_transmit()));
        }
        all
    }

    pub fn datagram(&mut self, now: Instant, path: Path, bytes: &mut [u8]) {
        let received = self.receiver.as_ref().is_some_and(
            |receiver| matches!(path, Path::Udp { local, .. } if local == receiver.address),
        );
        let peer = if received { self.receiving() } else { self.peer.as_mut() };
        let Some(peer) = peer else { return };
        match peer.handle_datagram(now, path, bytes) {
            Received::Rtp { packet, header_len: _ } => {
                let packet = packet.to_vec();
                self.media(now, &packet);
            }
            Received::Rtcp(compound) => {
                let compound = compound.to_vec();
                self.control(now, &compound);
            }
            Received::Handled | Received::Dropped(_) => {}
        }
    }

    fn media(&mut self, now: Instant, packet: &[u8]) {
        let header = Header::parse(packet).unwrap();
        let payload = rtp::payload(packet, &header).unwrap();
        self.octets += packet.len() as u64;
        self.note_arrival(now, packet);
        let sections = self.incoming().into_iter().flat_map(|description| &description.sections);
        let repair = sections.into_iter().find_map(|section| {
            section.fid.iter().find(|(_, repair)| *repair == header.ssrc).map(|(media, _)| *media)
        });
        let (ssrc, sequence, payload) = match repair {
            Some(media) => {
                if payload.is_empty() {
                    self.padding_packets += 1;
                    return;
                }
                self.repair_packets += 1;
                let (original, payload) = payload.split_first_chunk().unwrap();
                (media, u16::from_be_bytes(*original), payload)
            }
            None => (header.ssrc, header.sequence, payload),
        };
        let vp8 = if header.payload_type == VP8 || header.payload_type == RTX {
            Vp8::parse(payload)
        } else {
            None
        };
        let seen = Seen {
            at: now,
            timestamp: header.timestamp,
            payload_type: header.payload_type,
            picture: vp8.and_then(|vp8| vp8.picture_id).map(|(_, picture, _)| picture),
            tl0: vp8.and_then(|vp8| vp8.tl0_picture_index).map(|(_, tl0)| tl0),
            keyframe: vp8.is_some_and(|vp8| vp8.keyframe_start),
            descriptor: rtp::extensions(packet)
                .find(|(id, _)| *id == DESCRIPTOR)
                .map_or(Vec::new(), |(_, value)| value.to_vec()),
            payload: payload.to_vec(),
        };
        self.streams.entry(ssrc).or_default().put(sequence, seen);
    }

    fn note_arrival(&mut self, now: Instant, packet: &[u8]) {
        let number = rtp::extensions(packet).next().filter(|(id, _)| *id == TWCC);
        let Some((_, number)) = number else {
            self.numbered.1 += 1;
            return;
        };
        self.numbered.0 += 1;
        let number = u16::from_be_bytes(number.try_into().unwrap());
        let arrivals = self.arrivals.get_or_insert_with(|| Recorder::new(now));
        match self.lie {
            Some(Lie::NothingCame) if number % 100 != 0 => {}
            Some(Lie::AllAtOnce) => {
                let at = self.next_told.unwrap_or(now + TELL_EACH) - TELL_EACH;
                (0..3).for_each(|more| arrivals.record(number.wrapping_add(more), at));
            }
            _ => arrivals.record(number, now),
        }
        self.next_told.get_or_insert(now + TELL_EACH);
    }

    fn control(&mut self, now: Instant, compound: &[u8]) {
        for packet in rtcp::packets(compound) {
            match packet.unwrap() {
                Rtcp::SenderReport { ssrc, info, .. } => {
                    self.streams.entry(ssrc).or_default().reports.push((now, info));
                }
                Rtcp::ReceiverReport { reports, .. } => {
                    self.reported.extend(reports.map(|block| (now, block)));
                }
                Rtcp::Nack { media, lost, .. } => {
                    for sequence in lost {
                        self.resend(media, sequence);
                    }
                }
                Rtcp::Pli { media, .. } => {
                    let encodings =
                        self.sources.iter_mut().flat_map(|source| &mut source.encodings);
                    for encoding in encodings.filter(|encoding| encoding.ssrc == media) {
                        encoding.keyframe_wanted = true;
                        encoding.keyframes_asked.push(now);
                    }
                }
                Rtcp::Twcc(feedback) => {
                    self.feedback += 1;
                    let feedback = bedside_sfu::core::twcc::parse(feedback).unwrap();
                    let arrived = feedback.packets().filter(|(_, at)| at.is_some()).count();
                    self.feedback_packets += arrived as u64;
                }
                _ => {}
            }
        }
    }

    fn resend(&mut self, media: u32, sequence: u16) {
        let path = self.peer.as_ref().and_then(Peer::path);
        let sound = self.sealed_sounds.get(&(media, sequence)).filter(|_| self.repeats_sound);
        if let Some((path, sound)) = path.zip(sound) {
            return self.outgoing.push((path, sound.clone()));
        }
        let (sources, twcc) = (&mut self.sources, &mut self.twcc);
        let packet = sources.iter_mut().find_map(|source| {
            let Source { encodings, mid, .. } = source;
            let encoding = encodings.iter_mut().find(|encoding| encoding.ssrc == media)?;
            encoding.resend(sequence, mid, twcc)
        });
        let Some((mut packet, len)) = packet else { return };
        let Some(peer) = &mut self.peer else { return };
        if let Some(path) = peer.path()
            && peer.seal_rtp(&mut packet, 0, len)
        {
            self.outgoing.push((path, packet));
        }
    }

    /// The stream that carries a track now.
    pub fn stream_of(&self, track: &TrackSid) -> Option<&Stream> {
        let mid = self.carried.iter().find(|(_, sid)| *sid == track).map(|(mid, _)| mid)?;
        let section = self.incoming()?.sections.iter().find(|section| section.mid == *mid)?;
        self.streams.get(section.ssrcs.first()?)
    }

    /// The ids of all tracks that others publish now.
    pub fn tracks_of_others(&self) -> Vec<TrackInfo> {
        let others = self.others.values().filter(|info| Some(&info.sid) != self.me.as_ref());
        others.flat_map(|info| info.tracks.clone()).collect()
    }
}

fn credentials(answer: &Description) -> Credentials {
    Credentials { ufrag: answer.ufrag.clone(), pwd: answer.pwd.clone() }
}

pub fn announcement(source: &Source) -> AddTrack {
    AddTrack {
        cid: source.cid.clone(),
        name: Private(String::new()),
        kind: if source.video { MediaKind::Video } else { MediaKind::Audio },
        source: if source.video { Shows::Camera } else { Shows::Microphone },
        muted: false,
        width: 0,
        height: 0,
        layers: Vec::new(),
        codecs: Vec::new(),
        backup_of: None,
        stream: String::new(),
        disable_dtx: false,
        disable_red: !source.red,
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

fn section(mid: &str, kind: SectionKind, direction: Direction) -> OfferSection {
    let codecs = match kind {
        SectionKind::Audio => vec![
            payload_type(OPUS, "opus", "48000/2", "useinbandfec=1"),
            payload_type(RED, "red", "48000/2", "111/111"),
        ],
        SectionKind::Video => vec![
            payload_type(VP8, "VP8", "90000", ""),
            payload_type(RTX, "rtx", "90000", "apt=96"),
            payload_type(VP9, "VP9", "90000", "profile-id=0"),
            payload_type(H264, "H264", "90000", "packetization-mode=1;profile-level-id=42e01f"),
            payload_type(AV1, "AV1", "90000", ""),
        ],
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
            (DESCRIPTOR, Extension::DependencyDescriptor),
        ],
        rids: Vec::new(),
        msid: None,
        ssrc: None,
        rtx_ssrc: None,
    }
}
