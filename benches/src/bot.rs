//! One participant of the load: real ICE, DTLS and SRTP towards the server, plain packets of the
//! same size towards the floor. It keeps no jitter buffer and decodes nothing.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Result;
use bedside_sfu::core::Rng;
use bedside_sfu::core::api::Path;
use bedside_sfu::core::ice::Credentials;
use bedside_sfu::core::peer::{
    ChannelRole, Crypto, DtlsRole, IceRole, Identity, Peer, PeerConfig, PeerEvent, Received,
};
use bedside_sfu::core::rtcp::{
    ReportBlock, Rtcp, SenderInfo, packets, write_receiver_report, write_sender_report,
};
use bedside_sfu::core::rtp::{Header, write_header};
use bedside_sfu::core::sdp::{
    Description, Direction, Extension, Local, OfferSection, PayloadType, SectionKind, Setup,
    write_offer,
};
use bedside_sfu::node::Datagram;

use crate::load::Packet;

/// What a server adds to a packet it seals; the floor's packets are longer by as much.
const TAG: usize = 16;
/// Ends each payload, behind the time of sending.
const MAGIC: [u8; 4] = *b"bed!";
/// One in so many received packets is opened and checked.
const CHECKED: u64 = 32;

const MID: u8 = 4;
const SEND_TIME: u8 = 2;
const TRANSPORT: u8 = 3;
const LEVEL: u8 = 1;

/// Who a bot is.
#[derive(Clone, Copy, Debug)]
pub struct Role {
    /// Its room.
    pub room: u64,
    /// Its session; unique.
    pub session: u64,
    /// It sends audio and video.
    pub publishes: bool,
    /// It receives the tracks of so many others.
    pub receives: usize,
    /// Its own address.
    pub address: SocketAddr,
    /// The server's.
    pub server: SocketAddr,
}

/// What it has seen.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    /// RTP packets sent.
    pub sent: u64,
    /// RTP packets received.
    pub received: u64,
    /// Of these, audio (short packets).
    pub audio: u64,
    /// Opened and right.
    pub good: u64,
    /// Opened and wrong, or not to be opened.
    pub bad: u64,
    /// RTCP packets received.
    pub rtcp: u64,
    /// Way from here to here, of the checked packets.
    pub delays: Vec<Duration>,
}

/// One participant.
#[derive(Debug)]
pub struct Bot {
    /// Who it is.
    pub role: Role,
    /// What it has seen since the last [`Bot::reset`].
    pub seen: Seen,
    /// The server wants a keyframe.
    pub keyframe_wanted: bool,
    /// Media can flow.
    pub connected: bool,
    epoch: Instant,
    identity: Arc<Identity>,
    credentials: Credentials,
    sections: Vec<OfferSection>,
    version: u32,
    peer: Option<Peer>,
    audio: Stream,
    video: Stream,
    picture: u16,
    transport: u16,
    heard: Vec<Heard>,
}

/// A stream it sends.
#[derive(Debug)]
struct Stream {
    ssrc: u32,
    payload_type: u8,
    mid: [u8; 1],
    sequence: u16,
    timestamp: u32,
    packets: u32,
    octets: u32,
}

/// A stream it receives.
#[derive(Debug)]
struct Heard {
    ssrc: u32,
    highest: u16,
    cycles: u32,
    report: Option<(u32, Instant)>,
}

impl Bot {
    /// Not connected yet. Towards a floor it never will be, and sends plain packets.
    pub fn new(role: Role, epoch: Instant, identity: Arc<Identity>, rng: &mut Rng) -> Self {
        let ssrc = u32::try_from(role.session).unwrap_or_default() * 16 + 1;
        let stream = |offset: u32, payload_type, mid| Stream {
            ssrc: ssrc + offset,
            payload_type,
            mid: [mid],
            sequence: 1_000,
            timestamp: 0,
            packets: 0,
            octets: 0,
        };
        let mut sections = Vec::new();
        if role.publishes {
            sections.push(section(true, Direction::SendOnly, 0, Some(ssrc)));
            sections.push(section(false, Direction::SendOnly, 1, Some(ssrc + 1)));
        }
        for _ in 0..role.receives {
            sections.push(section(true, Direction::RecvOnly, sections.len(), None));
            sections.push(section(false, Direction::RecvOnly, sections.len(), None));
        }
        Self {
            role,
            seen: Seen::default(),
            keyframe_wanted: true,
            connected: false,
            epoch,
            identity,
            credentials: Credentials::random(rng),
            sections,
            version: 0,
            peer: None,
            audio: stream(0, 111, b'0'),
            video: stream(1, 96, b'1'),
            picture: 0,
            transport: 0,
            heard: Vec::new(),
        }
    }

    /// The ids of its tracks in announcements: audio, video.
    pub fn tracks(&self) -> [String; 2] {
        [0, 1].map(|track| format!("track-{}-{track}", self.role.session))
    }

    /// The next offer, with more sections for receiving.
    pub fn offer(&mut self, audio: u32, video: u32) -> (u32, String) {
        for _ in 0..audio {
            self.sections.push(section(true, Direction::RecvOnly, self.sections.len(), None));
        }
        for _ in 0..video {
            self.sections.push(section(false, Direction::RecvOnly, self.sections.len(), None));
        }
        self.version += 1;
        let tracks = self.tracks();
        for (section, track) in self.sections.iter_mut().zip(tracks) {
            if section.direction == Direction::SendOnly {
                section.msid = Some(("-".to_owned(), track));
            }
        }
        let local = Local {
            credentials: &self.credentials,
            fingerprint: self.identity.fingerprint(),
            setup: DtlsRole::Active,
            candidates: &[],
            tcp_candidates: &[],
            session: self.role.session,
            version: self.version,
        };
        (self.version, write_offer(&local, &self.sections))
    }

    /// The first answer starts the connection; later ones change nothing here.
    pub fn answered(&mut self, now: Instant, sdp: &str) -> Result<()> {
        if self.peer.is_some() {
            return Ok(());
        }
        let Description { ufrag, pwd, fingerprint, setup, .. } =
            bedside_sfu::core::sdp::parse(sdp)?;
        let path = Path::Udp { local: self.role.address, remote: self.role.server };
        self.peer = Some(Peer::new(
            now,
            PeerConfig {
                identity: Arc::clone(&self.identity),
                role: if setup == Setup::Active { DtlsRole::Passive } else { DtlsRole::Active },
                remote_fingerprint: fingerprint,
                ice: IceRole::Controlling {
                    local: self.credentials.clone(),
                    remote: Credentials { ufrag, pwd },
                    candidates: vec![path],
                },
                allow_cm: false,
                crypto: Crypto::Real,
                channels: ChannelRole::Wait,
            },
        )?);
        Ok(())
    }

    /// Forgets what was seen.
    pub fn reset(&mut self) {
        self.seen = Seen::default();
    }

    /// Timers, and what the connection itself wants to send.
    pub fn maintain(&mut self, now: Instant, mut send: impl FnMut(&[u8])) {
        let Some(peer) = &mut self.peer else { return };
        if peer.poll_timeout().is_some_and(|at| at <= now) {
            peer.handle_timeout(now);
        }
        while let Some(event) = peer.poll_event() {
            match event {
                PeerEvent::Connected { .. } => self.connected = true,
                PeerEvent::Closed(_) => self.connected = false,
                PeerEvent::Proved(_)
                | PeerEvent::Forgot(_)
                | PeerEvent::UfragsChanged
                | PeerEvent::ChannelOpen(_)
                | PeerEvent::Data { .. }
                | PeerEvent::OtherData { .. }
                | PeerEvent::Unreachable
                | PeerEvent::Reachable => {}
            }
        }
        while let Some((_, datagram)) = peer.poll_transmit() {
            send(&datagram);
        }
    }

    /// Appends one packet of its media to `out`, ready to be sent. `false`: cannot be sent now.
    pub fn pack(&mut self, now: Instant, packet: Packet, out: &mut Vec<u8>) -> bool {
        let start = out.len();
        let at = now.saturating_duration_since(self.epoch);
        let stream = if packet.audio { &mut self.audio } else { &mut self.video };
        if packet.first {
            let rate = if packet.audio { 48_000.0 } else { 90_000.0 };
            stream.timestamp = (at.as_secs_f64() * rate) as u64 as u32;
            self.picture = self.picture.wrapping_add(1) & 0x7FFF;
        }
        stream.sequence = stream.sequence.wrapping_add(1);
        stream.packets = stream.packets.wrapping_add(1);
        stream.octets = stream.octets.wrapping_add(u32::try_from(packet.payload).unwrap_or(0));
        self.transport = self.transport.wrapping_add(1);
        let transport = self.transport.to_be_bytes();
        let extensions: [(u8, &[u8]); 4] = [
            (MID, &stream.mid),
            (TRANSPORT, &transport),
            (SEND_TIME, &[0; 3]),
            (LEVEL, &[0x80 | 30]),
        ];
        let extensions = extensions.get(..if packet.audio { 4 } else { 3 }).unwrap_or_default();
        let header = write_header(
            out,
            packet.last,
            stream.payload_type,
            stream.sequence,
            stream.timestamp,
            stream.ssrc,
            extensions,
        );
        let payload = out.len();
        if !packet.audio {
            let [high, low] = (0x8000 | self.picture).to_be_bytes();
            let start_of_partition = if packet.first { 0x10 } else { 0 };
            let interframe = u8::from(!packet.keyframe);
            out.extend_from_slice(&[0x80 | start_of_partition, 0x80, high, low, interframe]);
        }
        let stamp = u64::try_from(at.as_nanos()).unwrap_or(0).to_be_bytes();
        out.resize(payload + packet.payload - stamp.len() - MAGIC.len(), 0x55);
        out.extend_from_slice(&stamp);
        out.extend_from_slice(&MAGIC);
        let sealed = match &mut self.peer {
            None => {
                out.resize(out.len() + TAG, 0);
                true
            }
            Some(peer) => peer.seal_rtp(out, start, header),
        };
        if !sealed {
            out.truncate(start);
            return false;
        }
        self.seen.sent += 1;
        true
    }

    /// Takes a datagram.
    pub fn receive(&mut self, now: Instant, datagram: Datagram<'_>) {
        let is_rtp = match *datagram.data {
            [128..=191, kind, ..] => !(192..=223).contains(&kind),
            _ => false,
        };
        if is_rtp {
            self.seen.received += 1;
            self.seen.audio += u64::from(datagram.data.len() < 200);
            self.hear(datagram.data);
            if self.seen.received.is_multiple_of(CHECKED) {
                self.check(now, datagram);
            }
            return;
        }
        let path = Path::Udp { local: datagram.local, remote: datagram.remote };
        let Some(peer) = &mut self.peer else { return };
        if let Received::Rtcp(compound) = peer.handle_datagram(now, path, datagram.data) {
            self.seen.rtcp += 1;
            for packet in packets(compound).flatten() {
                match packet {
                    Rtcp::Pli { .. } | Rtcp::Fir { .. } => self.keyframe_wanted = true,
                    Rtcp::SenderReport { ssrc, info, .. } => {
                        let middle = (info.ntp >> 16) as u32;
                        let heard = self.heard.iter_mut().find(|heard| heard.ssrc == ssrc);
                        if let Some(heard) = heard {
                            heard.report = Some((middle, now));
                        }
                    }
                    _ => {}
                }
            }
        }
    }

    /// The header is in clear: enough for truthful reports.
    fn hear(&mut self, packet: &[u8]) {
        let Some(Header { ssrc, sequence, .. }) = Header::parse(packet) else { return };
        let Some(heard) = self.heard.iter_mut().find(|heard| heard.ssrc == ssrc) else {
            self.heard.push(Heard { ssrc, highest: sequence, cycles: 0, report: None });
            return;
        };
        if sequence.wrapping_sub(heard.highest) < 0x8000 {
            heard.cycles += u32::from(sequence < heard.highest);
            heard.highest = sequence;
        }
    }

    fn check(&mut self, now: Instant, datagram: Datagram<'_>) {
        let received = datagram.received;
        let path = Path::Udp { local: datagram.local, remote: datagram.remote };
        let plain: Option<&[u8]> = match &mut self.peer {
            None => datagram.data.split_last_chunk::<TAG>().map(|(packet, _)| packet),
            Some(peer) => match peer.handle_datagram(now, path, datagram.data) {
                Received::Rtp { packet, .. } => Some(packet),
                Received::Rtcp(_) | Received::Handled | Received::Dropped(_) => None,
            },
        };
        let stamp = plain
            .and_then(|plain| plain.strip_suffix(&MAGIC))
            .and_then(|rest| rest.last_chunk::<8>())
            .map(|stamp| Duration::from_nanos(u64::from_be_bytes(*stamp)));
        let sent = stamp.and_then(|stamp| self.epoch.checked_add(stamp));
        match sent {
            Some(sent) if sent <= now => {
                self.seen.good += 1;
                self.seen.delays.push(received.saturating_duration_since(sent));
            }
            Some(_) | None => self.seen.bad += 1,
        }
    }

    /// Once a second: sender reports of what it sends, receiver reports of what it hears.
    pub fn report(&mut self, now: Instant, out: &mut Vec<u8>) -> bool {
        let Some(peer) = &mut self.peer else { return false };
        let start = out.len();
        let blocks: Vec<ReportBlock> = self
            .heard
            .iter()
            .take(31)
            .map(|heard| ReportBlock {
                ssrc: heard.ssrc,
                highest: heard.cycles << 16 | u32::from(heard.highest),
                lsr: heard.report.map_or(0, |(middle, _)| middle),
                dlsr: heard.report.map_or(0, |(_, at)| {
                    (now.saturating_duration_since(at).as_secs_f64() * 65_536.0) as u32
                }),
                ..ReportBlock::default()
            })
            .collect();
        let at = now.saturating_duration_since(self.epoch);
        let mut said = false;
        for (stream, rate) in [(&self.audio, 48_000.0), (&self.video, 90_000.0)] {
            if stream.packets > 0 {
                let info = SenderInfo {
                    ntp: (at.as_secs_f64() * 4_294_967_296.0) as u64,
                    rtp_timestamp: (at.as_secs_f64() * rate) as u64 as u32,
                    packets: stream.packets,
                    octets: stream.octets,
                };
                let blocks = if said { &[] } else { blocks.as_slice() };
                write_sender_report(out, stream.ssrc, &info, blocks);
                said = true;
            }
        }
        if !said {
            write_receiver_report(out, self.audio.ssrc, &blocks);
        }
        let sealed = peer.seal_rtcp(out, start);
        if !sealed {
            out.truncate(start);
        }
        sealed
    }
}

/// A section as a browser would offer it, with the least that is useful.
fn section(audio: bool, direction: Direction, index: usize, ssrc: Option<u32>) -> OfferSection {
    let codec = |pt, name: &str, rate: &str, fmtp: &str, feedback: &[&str]| PayloadType {
        pt,
        name: name.to_owned(),
        rate: rate.to_owned(),
        fmtp: fmtp.to_owned(),
        feedback: feedback.iter().map(|line| (*line).to_owned()).collect(),
    };
    let video = ["goog-remb", "transport-cc", "ccm fir", "nack", "nack pli"];
    let mut extensions = vec![
        (MID, Extension::Mid),
        (TRANSPORT, Extension::TransportCc),
        (SEND_TIME, Extension::AbsSendTime),
    ];
    let (kind, codecs) = if audio {
        extensions.push((LEVEL, Extension::AudioLevel));
        let fmtp = "minptime=10;useinbandfec=1";
        (SectionKind::Audio, vec![codec(111, "opus", "48000/2", fmtp, &["transport-cc", "nack"])])
    } else {
        let repair = codec(97, "rtx", "90000", "apt=96", &[]);
        (SectionKind::Video, vec![codec(96, "VP8", "90000", "", &video), repair])
    };
    OfferSection {
        kind,
        mid: index.to_string(),
        direction,
        codecs,
        extensions,
        rids: Vec::new(),
        msid: None,
        ssrc,
        rtx_ssrc: ssrc.filter(|_| !audio).map(|ssrc| ssrc + 1),
    }
}
