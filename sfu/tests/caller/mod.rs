//! A person with a socket: joins a room of a real node, sends a tone and a picture made of
//! numbered bytes, and counts what arrives unharmed.

use std::collections::HashMap;
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, TcpStream, UdpSocket};
use std::sync::Arc;
use std::sync::mpsc::Receiver;
use std::time::{Duration, Instant};

use bedside_sfu::core::Rng;
use bedside_sfu::core::api::{
    AddTrack, Command, Event, MediaKind, Path, Private, Request, RoomKey, SessionEvent, SessionKey,
    Source,
};
use bedside_sfu::core::ice::Credentials;
use bedside_sfu::core::peer::{
    ChannelRole, Crypto, DtlsRole, IceRole, Identity, Peer, PeerConfig, PeerEvent, Received,
};
use bedside_sfu::core::rtp::write_header;
use bedside_sfu::core::sdp::{
    self, Direction, Extension, Local, OfferSection, PayloadType, SectionKind, write_offer,
};
use bedside_sfu::node::{NodeHandle, RelayInlet};
use rand_chacha::rand_core::SeedableRng as _;
use tokio::sync::mpsc;

/// The node's events, sorted by session.
pub(crate) struct Events {
    receiver: mpsc::Receiver<Event>,
    waiting: HashMap<SessionKey, Vec<SessionEvent>>,
}

impl Events {
    pub(crate) fn new(receiver: mpsc::Receiver<Event>) -> Self {
        Self { receiver, waiting: HashMap::new() }
    }

    fn of(&mut self, session: SessionKey) -> Vec<SessionEvent> {
        while let Ok(event) = self.receiver.try_recv() {
            if let Event::Session { session, event } = event {
                self.waiting.entry(session).or_default().push(event);
            }
        }
        self.waiting.remove(&session).unwrap_or_default()
    }
}

pub(crate) struct Caller {
    handle: NodeHandle,
    room: RoomKey,
    session: SessionKey,
    socket: UdpSocket,
    /// Everything goes by TCP instead.
    tcp: Option<Framed>,
    over_tcp: bool,
    /// The TCP port is somebody else's.
    door: Option<SocketAddr>,
    /// Everything goes by a relay instead.
    relayed: Option<Relayed>,
    identity: Arc<Identity>,
    credentials: Credentials,
    sections: Vec<OfferSection>,
    version: u32,
    peer: Option<Peer>,
    server: Option<SocketAddr>,
    connected: bool,
    next_packet: Instant,
    sequence: u16,
    last_sent: Vec<u8>,
    heard: usize,
}

const PACKET_INTERVAL: Duration = Duration::from_millis(5);

impl Caller {
    pub(crate) fn new(
        handle: NodeHandle,
        room: RoomKey,
        session: SessionKey,
        bind: IpAddr,
    ) -> Self {
        let socket = UdpSocket::bind((bind, 0)).unwrap();
        socket.set_nonblocking(true).unwrap();
        let mut seed = [5; 32];
        seed[..8].copy_from_slice(&session.0.to_le_bytes());
        let sections = [Direction::SendOnly, Direction::RecvOnly]
            .into_iter()
            .flat_map(|direction| [(true, direction), (false, direction)])
            .enumerate()
            .map(|(index, (audio, direction))| section(session, index, audio, direction))
            .collect();
        Self {
            handle,
            room,
            session,
            socket,
            tcp: None,
            over_tcp: false,
            door: None,
            relayed: None,
            identity: Arc::new(Identity::generate().unwrap()),
            credentials: Credentials::random(&mut Rng::from_seed(seed)),
            sections,
            version: 0,
            peer: None,
            server: None,
            connected: false,
            next_packet: Instant::now(),
            sequence: 0,
            last_sent: Vec::new(),
            heard: 0,
        }
    }

    /// Will go by ICE-TCP.
    pub(crate) fn over_tcp(self) -> Self {
        Self { over_tcp: true, ..self }
    }

    /// Will go by ICE-TCP at a door that all shards share.
    pub(crate) fn through(self, door: SocketAddr) -> Self {
        Self { door: Some(door), over_tcp: true, ..self }
    }

    /// Will go by a relay.
    pub(crate) fn over_relay(self, relayed: Relayed) -> Self {
        Self { relayed: Some(relayed), ..self }
    }

    /// Cuts the TCP connection and makes another one.
    pub(crate) fn reconnect(&mut self) {
        self.tcp = self.door.or(self.server).map(Framed::connect);
    }

    pub(crate) fn connected(&self) -> bool {
        self.connected
    }

    /// Media packets that came as another caller sent them.
    pub(crate) fn heard(&self) -> usize {
        self.heard
    }

    pub(crate) fn server(&self) -> Option<SocketAddr> {
        self.server
    }

    /// The last media packet, sealed.
    pub(crate) fn last_sent(&self) -> &[u8] {
        &self.last_sent
    }

    /// Sends bytes from this caller's address.
    pub(crate) fn send_raw(&mut self, bytes: &[u8]) {
        if let (Some(relayed), Some(server)) = (&mut self.relayed, self.server) {
            relayed.inlet.push(relayed.number, relayed.address, server, bytes);
            return relayed.inlet.flush();
        }
        match (&mut self.tcp, self.server) {
            (Some(tcp), _) => tcp.send(bytes),
            (None, Some(server)) => {
                let _ = self.socket.send_to(bytes, server);
            }
            (None, None) => {}
        }
    }

    /// Does what is due.
    pub(crate) fn step(&mut self, events: &mut Events) {
        for event in events.of(self.session) {
            self.told(event);
        }
        let now = Instant::now();
        let mut buffer = [0; 2_048];
        while let Ok((len, from)) = self.socket.recv_from(&mut buffer) {
            self.receive(now, from, &mut buffer[..len]);
        }
        while let (Some(mut frame), Some(server)) =
            (self.tcp.as_mut().and_then(Framed::receive), self.server)
        {
            self.receive(now, server, &mut frame);
        }
        while let Some((from, mut datagram)) =
            self.relayed.as_mut().and_then(|relayed| relayed.back.try_recv().ok())
        {
            self.receive(now, from, &mut datagram);
        }
        if self.connected && now >= self.next_packet {
            self.next_packet = now + PACKET_INTERVAL;
            self.send_media(true);
            self.send_media(false);
        }
        let Some(peer) = &mut self.peer else { return };
        if peer.poll_timeout().is_some_and(|at| at <= now) {
            peer.handle_timeout(now);
        }
        while let Some(event) = peer.poll_event() {
            if matches!(event, PeerEvent::Connected { .. }) {
                self.connected = true;
            }
            assert!(!matches!(event, PeerEvent::Closed(_)), "{event:?}");
        }
        let datagrams: Vec<_> = std::iter::from_fn(|| peer.poll_transmit()).collect();
        for (_, datagram) in datagrams {
            self.send_raw(&datagram);
        }
    }

    fn told(&mut self, event: SessionEvent) {
        match event {
            SessionEvent::Joined { .. } => {
                for section in 0..2 {
                    self.ask(Request::AddTrack(Box::new(track(self.session, section))));
                }
                self.offer();
            }
            SessionEvent::SectionsNeeded { audio, video } => {
                let wanted =
                    [(true, audio), (false, video)].map(|(kind, n)| vec![kind; n as usize]);
                for audio in wanted.concat() {
                    let index = self.sections.len();
                    self.sections.push(section(self.session, index, audio, Direction::RecvOnly));
                }
                self.offer();
            }
            SessionEvent::Answer { sdp, .. } if self.peer.is_none() => self.answered(&sdp),
            SessionEvent::Refused(refusal) => panic!("refused: {refusal}"),
            SessionEvent::Left { reason, .. } => panic!("put out: {reason:?}"),
            _ => {}
        }
    }

    fn ask(&self, request: Request) {
        self.handle.send(self.room, Command::Request { session: self.session, request }).unwrap();
    }

    fn offer(&mut self) {
        self.version += 1;
        let local = Local {
            credentials: &self.credentials,
            fingerprint: self.identity.fingerprint(),
            setup: DtlsRole::Active,
            candidates: &[],
            tcp_candidates: &[],
            session: self.session.0,
            version: self.version,
        };
        let sdp = write_offer(&local, &self.sections);
        self.ask(Request::Offer { id: self.version, sdp });
    }

    fn answered(&mut self, answer: &str) {
        assert_eq!(self.over_tcp, answer.contains("typ host tcptype passive"), "{answer}");
        let answer = sdp::parse(answer).unwrap();
        let local = self.socket.local_addr().unwrap();
        let server = *answer.candidates.first().expect("the answer names an address");
        self.server = Some(server);
        self.tcp = self.over_tcp.then(|| Framed::connect(self.door.unwrap_or(server)));
        let config = PeerConfig {
            identity: Arc::clone(&self.identity),
            role: DtlsRole::Active,
            remote_fingerprint: answer.fingerprint,
            ice: IceRole::Controlling {
                local: self.credentials.clone(),
                remote: Credentials { ufrag: answer.ufrag, pwd: answer.pwd },
                candidates: vec![Path::Udp { local, remote: server }],
            },
            allow_cm: false,
            crypto: Crypto::Real,
            channels: ChannelRole::Wait,
        };
        self.peer = Some(Peer::new(Instant::now(), config).unwrap());
    }

    fn receive(&mut self, now: Instant, remote: SocketAddr, datagram: &mut [u8]) {
        let Some(peer) = &mut self.peer else { return };
        let path = Path::Udp { local: self.socket.local_addr().unwrap(), remote };
        if let Received::Rtp { packet, .. } = peer.handle_datagram(now, path, datagram) {
            let payload = packet.len().checked_sub(PATTERN.len()).unwrap();
            assert_eq!(packet[payload..], PATTERN, "a packet was changed on its way");
            self.heard += 1;
        }
    }

    fn send_media(&mut self, audio: bool) {
        let Some(peer) = &mut self.peer else { return };
        self.sequence = self.sequence.wrapping_add(1);
        let (section, pt) = if audio { (0, 111) } else { (1, 96) };
        let timestamp = u32::from(self.sequence) * 960;
        let mid = [b'0' + section];
        let mut packet = Vec::with_capacity(256);
        let header = write_header(
            &mut packet,
            true,
            pt,
            self.sequence,
            timestamp,
            ssrc(self.session, usize::from(section)),
            &[(4, &mid)],
        );
        if !audio {
            // A whole VP8 keyframe in each packet.
            packet.extend_from_slice(&[0x10, 0, 0, 0, 0x9d, 0x01, 0x2a, 0x80, 2, 0x68, 1]);
        }
        packet.extend_from_slice(&PATTERN);
        assert!(peer.seal_rtp(&mut packet, 0, header), "sealing works once there are keys");
        self.send_raw(&packet);
        self.last_sent = packet;
    }
}

/// An allocation without a TURN server around it.
pub(crate) struct Relayed {
    pub(crate) number: u64,
    pub(crate) address: SocketAddr,
    pub(crate) inlet: RelayInlet,
    /// What the node sends, and from which address.
    pub(crate) back: Receiver<(SocketAddr, Vec<u8>)>,
}

/// A framed connection (RFC 4571).
struct Framed {
    stream: TcpStream,
    buffer: Vec<u8>,
    /// A check was sent: before one, nothing else may be.
    checked: bool,
}

impl Framed {
    fn connect(server: SocketAddr) -> Self {
        let stream = TcpStream::connect(server).unwrap();
        stream.set_nonblocking(true).unwrap();
        Self { stream, buffer: Vec::new(), checked: false }
    }

    fn send(&mut self, datagram: &[u8]) {
        self.checked |= datagram[0] == 0;
        if !self.checked {
            return;
        }
        let len = u16::try_from(datagram.len()).unwrap();
        // What does not fit the kernel's buffer is not written by these tests.
        self.stream.write_all(&[&len.to_be_bytes(), datagram].concat()).unwrap();
    }

    fn receive(&mut self) -> Option<Vec<u8>> {
        let mut piece = [0; 4_096];
        match self.stream.read(&mut piece) {
            Ok(0) => panic!("the server has cut the connection"),
            Ok(len) => self.buffer.extend_from_slice(&piece[..len]),
            Err(error) => assert_eq!(error.kind(), ErrorKind::WouldBlock),
        }
        let len = usize::from(u16::from_be_bytes(*self.buffer.first_chunk()?));
        if self.buffer.len() < 2 + len {
            return None;
        }
        let rest = self.buffer.split_off(2 + len);
        Some(std::mem::replace(&mut self.buffer, rest).split_off(2))
    }
}

/// Ends every payload.
const PATTERN: [u8; 40] = [0xa7; 40];

fn ssrc(session: SessionKey, section: usize) -> u32 {
    u32::try_from(session.0 * 64).unwrap() + u32::try_from(section).unwrap() * 2 + 1
}

fn cid(session: SessionKey, section: usize) -> String {
    format!("track-{}-{section}", session.0)
}

fn section(session: SessionKey, index: usize, audio: bool, direction: Direction) -> OfferSection {
    let sends = direction == Direction::SendOnly;
    let codec = |pt, name: &str, rate: &str, fmtp: &str| PayloadType {
        pt,
        name: name.to_owned(),
        rate: rate.to_owned(),
        fmtp: fmtp.to_owned(),
        feedback: vec!["nack".to_owned(), "transport-cc".to_owned()],
    };
    let codecs = match audio {
        true => vec![codec(111, "opus", "48000/2", "useinbandfec=1")],
        false => vec![codec(96, "VP8", "90000", ""), codec(97, "rtx", "90000", "apt=96")],
    };
    OfferSection {
        kind: if audio { SectionKind::Audio } else { SectionKind::Video },
        mid: index.to_string(),
        direction,
        codecs,
        extensions: vec![(4, Extension::Mid), (3, Extension::TransportCc)],
        rids: Vec::new(),
        msid: sends.then(|| ("-".to_owned(), cid(session, index))),
        ssrc: sends.then(|| ssrc(session, index)),
        rtx_ssrc: (sends && !audio).then(|| ssrc(session, index) + 1),
    }
}

fn track(session: SessionKey, section: usize) -> AddTrack {
    let audio = section == 0;
    AddTrack {
        cid: cid(session, section),
        name: Private::default(),
        kind: if audio { MediaKind::Audio } else { MediaKind::Video },
        source: if audio { Source::Microphone } else { Source::Camera },
        muted: false,
        width: if audio { 0 } else { 640 },
        height: if audio { 0 } else { 360 },
        layers: Vec::new(),
        codecs: Vec::new(),
        backup_of: None,
        stream: String::new(),
        disable_dtx: false,
        disable_red: false,
        stereo: false,
        encryption: 0,
        audio_features: Vec::new(),
        backup_codec_policy: 0,
    }
}
