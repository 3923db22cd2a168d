//! A participant against a server that is a mirror: what it publishes comes back to it, with packets
//! missing on the way, so that every repair is seen from both ends. Real sockets, real encryption.

#![allow(
    clippy::indexing_slicing,
    clippy::result_large_err,
    clippy::unwrap_used,
    reason = "a test may stop where it stands; the handshake callback's error is not ours"
)]

use std::collections::HashMap;
use std::io::Read;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE;
use bedside_client::proto::signal_request::Message as Request;
use bedside_client::proto::signal_response::Message as Response;
use bedside_client::{
    ConnectOptions, DataMessage, LeaveCause, Participant, ParticipantEvent, Publish, proto,
};
use bedside_sfu::core::Rng;
use bedside_sfu::core::api::{DataChannelKind, MediaKind, Path, Private};
use bedside_sfu::core::ice::Credentials;
use bedside_sfu::core::peer::{
    ChannelRole, Crypto, DtlsRole, IceRole, Identity, Peer, PeerConfig, PeerEvent, Received,
};
use bedside_sfu::core::rtcp::{self, Rtcp};
use bedside_sfu::core::rtp::{self, Header};
use bedside_sfu::core::sdp::{self, Fill, Local, OpusWish, SectionKind};
use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use prost::Message as _;
use rand::SeedableRng as _;
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::mpsc;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::handshake::server;

const AUDIO_OUT: u32 = 1000;
const VIDEO_OUT: u32 = 2000;
const REPAIR_OUT: u32 = 2001;

/// What the mirror has seen.
#[derive(Debug, Default)]
struct Seen {
    joins: u32,
    resumes: u32,
    sync_states: Vec<proto::SyncState>,
    ufrags: Vec<String>,
    mutes: Vec<bool>,
    pings: u32,
    left: bool,
    nacked_by_client: u64,
    repaired_by_client: u64,
    sender_reports: u64,
    report_blocks: u64,
    feedback: u64,
    /// Resumes answered with "join again".
    forgotten: u32,
}

struct Mirror {
    /// Remember nobody who resumes.
    forgetful: bool,
    listener: TcpListener,
    socket: UdpSocket,
    identity: Arc<Identity>,
    rng: Rng,
    peer: Option<Peer>,
    credentials: Credentials,
    remote_ufrag: String,
    version: u32,
    next: HashMap<u32, u16>,
    sent: HashMap<(u32, u16), Vec<u8>>,
    transport: u16,
    incoming: u64,
    outgoing: u64,
    asked: Vec<u16>,
    seen: Seen,
}

impl Mirror {
    async fn new() -> (Self, String) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let mut rng = Rng::from_seed([9; 32]);
        let mirror = Self {
            forgetful: false,
            listener,
            socket: UdpSocket::bind("127.0.0.1:0").await.unwrap(),
            identity: Arc::new(Identity::generate().unwrap()),
            credentials: Credentials::random(&mut rng),
            rng,
            peer: None,
            remote_ufrag: String::new(),
            version: 0,
            next: HashMap::new(),
            sent: HashMap::new(),
            transport: 0,
            incoming: 0,
            outgoing: 0,
            asked: Vec::new(),
            seen: Seen::default(),
        };
        (mirror, url)
    }

    /// Serves until the client has left.
    async fn run(mut self) -> Seen {
        let mut socket: Option<WebSocketStream<TcpStream>> = None;
        let mut buffer = [0; 2048];
        while !self.seen.left {
            tokio::select! {
                accepted = self.listener.accept() => {
                    let (stream, _) = accepted.unwrap();
                    socket = Some(self.accept(stream).await);
                }
                message = async {
                    match &mut socket {
                        Some(socket) => socket.next().await,
                        None => std::future::pending().await,
                    }
                } => match message {
                    Some(Ok(Message::Binary(bytes))) => {
                        let request = proto::SignalRequest::decode(bytes).unwrap();
                        for response in self.request(request.message.unwrap()) {
                            send(socket.as_mut().unwrap(), response).await;
                        }
                    }
                    Some(Ok(_)) => {}
                    Some(Err(_)) | None => socket = None,
                },
                received = self.socket.recv_from(&mut buffer) => {
                    let (length, from) = received.unwrap();
                    self.datagram(from, &mut buffer[..length]);
                }
                () = tokio::time::sleep(Duration::from_millis(10)) => {}
            }
            self.housekeeping();
        }
        self.seen
    }

    async fn accept(&mut self, stream: TcpStream) -> WebSocketStream<TcpStream> {
        let mut uri = None;
        let callback = |request: &server::Request, response: server::Response| {
            assert_eq!(request.headers()["authorization"], "Bearer token");
            uri = Some(request.uri().clone());
            Ok(response)
        };
        let mut socket = tokio_tungstenite::accept_hdr_async(stream, callback).await.unwrap();
        let uri = uri.unwrap();
        assert_eq!(uri.path(), "/rtc/v1");
        let query = uri.query().unwrap().strip_prefix("join_request=").unwrap();
        let wrapped = URL_SAFE.decode(query).unwrap();
        let wrapped = proto::WrappedJoinRequest::decode(wrapped.as_slice()).unwrap();
        let mut plain = Vec::new();
        let mut inflated = flate2::read::GzDecoder::new(wrapped.join_request.as_slice());
        inflated.read_to_end(&mut plain).unwrap();
        let join = proto::JoinRequest::decode(plain.as_slice()).unwrap();
        if join.reconnect {
            assert_eq!(join.participant_sid, "PA_me");
            if self.forgetful {
                self.seen.forgotten += 1;
                let again = proto::LeaveRequest { reason: 6, action: 2, ..Default::default() };
                send(&mut socket, Response::Leave(again)).await;
                return socket;
            }
            self.seen.resumes += 1;
            let reconnect = proto::ReconnectResponse { last_message_seq: 1, ..Default::default() };
            send(&mut socket, Response::Reconnect(reconnect)).await;
            return socket;
        }
        self.seen.joins += 1;
        self.peer = None;
        self.remote_ufrag.clear();
        let me = proto::ParticipantInfo { sid: "PA_me".to_owned(), ..Default::default() };
        let joined = proto::JoinResponse {
            participant: Some(me),
            ping_interval: 1,
            ping_timeout: 3,
            ..Default::default()
        };
        send(&mut socket, Response::Join(joined)).await;
        let answer = self.answer(&join.publisher_offer.unwrap());
        send(&mut socket, Response::Answer(answer)).await;
        socket
    }

    fn request(&mut self, request: Request) -> Vec<Response> {
        match request {
            Request::Offer(offer) => vec![Response::Answer(self.answer(&offer))],
            Request::AddTrack(add) => {
                let track = proto::TrackInfo {
                    sid: format!("TR_{}", add.name),
                    r#type: add.r#type,
                    ..Default::default()
                };
                let published = proto::TrackPublishedResponse { cid: add.cid, track: Some(track) };
                vec![Response::TrackPublished(published)]
            }
            Request::Mute(mute) => {
                self.seen.mutes.push(mute.muted);
                Vec::new()
            }
            Request::PingReq(ping) => {
                self.seen.pings += 1;
                let timestamp = ping.timestamp;
                vec![Response::PongResp(proto::Pong { last_ping_timestamp: timestamp, timestamp })]
            }
            Request::SyncState(state) => {
                self.seen.sync_states.push(state);
                Vec::new()
            }
            Request::Leave(leave) => {
                assert_eq!(leave.reason, 1);
                self.seen.left = true;
                Vec::new()
            }
            other => panic!("unexpected {other:?}"),
        }
    }

    fn answer(&mut self, offer: &proto::SessionDescription) -> proto::SessionDescription {
        let read = sdp::parse(&offer.sdp).unwrap();
        if self.remote_ufrag != read.ufrag {
            self.remote_ufrag.clone_from(&read.ufrag);
            self.seen.ufrags.push(read.ufrag.clone());
            self.credentials = Credentials::random(&mut self.rng);
            match &mut self.peer {
                Some(peer) => peer.restart_ice(self.credentials.clone()),
                None => {
                    let config = PeerConfig {
                        identity: self.identity.clone(),
                        role: DtlsRole::Passive,
                        remote_fingerprint: read.fingerprint.clone(),
                        ice: IceRole::Lite { local: self.credentials.clone() },
                        allow_cm: false,
                        crypto: Crypto::Real,
                        channels: ChannelRole::Wait,
                    };
                    self.peer = Some(Peer::new(Instant::now(), config).unwrap());
                }
            }
        }
        let published = read.sections.iter().filter(|section| section.sends()).count() > 1;
        let fills: Vec<Fill> = read
            .sections
            .iter()
            .map(|section| match (section.kind, section.mid.as_str()) {
                (SectionKind::Audio, "0") if published => outgoing("opus", AUDIO_OUT, None),
                (SectionKind::Video, "3") if published => {
                    outgoing("vp8", VIDEO_OUT, Some(REPAIR_OUT))
                }
                (SectionKind::Audio, _) if section.sends() => incoming("opus"),
                (SectionKind::Video, _) if section.sends() => incoming("vp8"),
                _ => Fill::Idle,
            })
            .collect();
        self.version += 1;
        let local = Local {
            credentials: &self.credentials,
            fingerprint: self.identity.fingerprint(),
            setup: DtlsRole::Passive,
            candidates: &[self.socket.local_addr().unwrap()],
            tcp_candidates: &[],
            session: 1,
            version: self.version,
        };
        let sdp = sdp::write_answer(&read, &local, &fills);
        proto::SessionDescription {
            r#type: "answer".to_owned(),
            sdp,
            id: offer.id,
            ..Default::default()
        }
    }

    fn datagram(&mut self, remote: SocketAddr, datagram: &mut [u8]) {
        let Some(mut peer) = self.peer.take() else { return };
        let path = Path::Udp { local: self.socket.local_addr().unwrap(), remote };
        match peer.handle_datagram(Instant::now(), path, datagram) {
            Received::Rtp { packet, .. } => {
                let packet = packet.to_vec();
                self.media(&mut peer, &packet);
            }
            Received::Rtcp(compound) => {
                let compound = compound.to_vec();
                self.feedback(&mut peer, &compound);
            }
            Received::Handled | Received::Dropped(_) => {}
        }
        self.peer = Some(peer);
    }

    /// Sends a packet back under its own stream; each eleventh is lost at first, and so is each
    /// seventeenth that comes in.
    fn media(&mut self, peer: &mut Peer, packet: &[u8]) {
        let header = Header::parse(packet).unwrap();
        let payload = rtp::payload(packet, &header).unwrap();
        if header.payload_type == 97 {
            self.seen.repaired_by_client += 1;
            let original = u16::from_be_bytes([payload[0], payload[1]]);
            assert!(self.asked.contains(&original));
            return;
        }
        self.incoming += 1;
        if header.payload_type == 96 && self.incoming.is_multiple_of(17) {
            self.asked.push(header.sequence);
            let mut nack = Vec::new();
            rtcp::write_nack(&mut nack, 1, header.ssrc, &[header.sequence]);
            self.seal_rtcp(peer, nack);
        }
        let ssrc = if header.payload_type == 111 { AUDIO_OUT } else { VIDEO_OUT };
        let sequence = self.next.entry(ssrc).or_insert(65_500);
        let taken = *sequence;
        *sequence = sequence.wrapping_add(1);
        let header = Header { sequence: taken, ssrc, ..header };
        self.outgoing += 1;
        let lose = self.outgoing.is_multiple_of(11);
        let sealed = self.seal(peer, &header, payload, lose);
        let kept =
            if ssrc == AUDIO_OUT { sealed } else { [&taken.to_be_bytes()[..], payload].concat() };
        self.sent.insert((ssrc, taken), kept);
    }

    fn feedback(&mut self, peer: &mut Peer, compound: &[u8]) {
        for packet in rtcp::packets(compound) {
            match packet.unwrap() {
                Rtcp::Nack { media, lost, .. } => {
                    for sequence in lost {
                        self.seen.nacked_by_client += 1;
                        let kept = self.sent[&(media, sequence)].clone();
                        if media == AUDIO_OUT {
                            self.transmit(peer, &kept);
                            continue;
                        }
                        let next = self.next.entry(REPAIR_OUT).or_insert(7);
                        let taken = *next;
                        *next += 1;
                        let header = Header {
                            marker: false,
                            payload_type: 97,
                            sequence: taken,
                            timestamp: 0,
                            ssrc: REPAIR_OUT,
                            len: 12,
                            padding: false,
                        };
                        self.seal(peer, &header, &kept, false);
                    }
                }
                Rtcp::SenderReport { reports, .. } => {
                    self.seen.sender_reports += 1;
                    self.seen.report_blocks += reports.count() as u64;
                }
                Rtcp::ReceiverReport { reports, .. } => {
                    self.seen.report_blocks += reports.count() as u64;
                }
                Rtcp::Twcc(_) => self.seen.feedback += 1,
                _ => {}
            }
        }
    }

    fn seal(&mut self, peer: &mut Peer, header: &Header, payload: &[u8], lose: bool) -> Vec<u8> {
        let mut out = Vec::new();
        self.transport = self.transport.wrapping_add(1);
        let len = rtp::write_header(
            &mut out,
            header.marker,
            header.payload_type,
            header.sequence,
            header.timestamp,
            header.ssrc,
            &[(3, &self.transport.to_be_bytes())],
        );
        out.extend_from_slice(payload);
        assert!(peer.seal_rtp(&mut out, 0, len));
        if !lose {
            self.transmit(peer, &out);
        }
        out
    }

    fn seal_rtcp(&self, peer: &mut Peer, mut compound: Vec<u8>) {
        assert!(peer.seal_rtcp(&mut compound, 0));
        self.transmit(peer, &compound);
    }

    fn transmit(&self, peer: &Peer, datagram: &[u8]) {
        if let Some(Path::Udp { remote, .. }) = peer.path() {
            let _ = self.socket.try_send_to(datagram, remote);
        }
    }

    fn housekeeping(&mut self) {
        let now = Instant::now();
        let Some(mut peer) = self.peer.take() else { return };
        if peer.poll_timeout().is_some_and(|at| at <= now) {
            peer.handle_timeout(now);
        }
        while let Some(event) = peer.poll_event() {
            if let PeerEvent::Data { kind, payload } = event {
                let packet = proto::DataPacket::decode(payload).unwrap();
                let echo = proto::DataPacket {
                    participant_sid: "PA_mirror".to_owned(),
                    participant_identity: "mirror".to_owned(),
                    ..packet
                };
                let echo = Bytes::from(echo.encode_to_vec());
                peer.send_data(now, kind, &echo).unwrap();
            }
        }
        while let Some((path, datagram)) = peer.poll_transmit() {
            if let Path::Udp { remote, .. } = path {
                let _ = self.socket.try_send_to(&datagram, remote);
            }
        }
        self.peer = Some(peer);
    }
}

async fn send(socket: &mut WebSocketStream<TcpStream>, message: Response) {
    let response = proto::SignalResponse { message: Some(message) };
    // The client may have cut the connection meanwhile.
    let _ = socket.send(Message::Binary(response.encode_to_vec().into())).await;
}

fn incoming(codec: &str) -> Fill {
    Fill::Receive { codec: codec.to_owned(), rtx: true, red: false, opus: OpusWish::default() }
}

fn outgoing(codec: &str, ssrc: u32, rtx_ssrc: Option<u32>) -> Fill {
    Fill::Send {
        codec: codec.to_owned(),
        rtx_ssrc,
        red: false,
        stream: "PA_mirror|x".to_owned(),
        track: format!("TR_{codec}"),
        ssrc,
    }
}

async fn wait_for(
    events: &mut mpsc::Receiver<ParticipantEvent>,
    wanted: impl Fn(&ParticipantEvent) -> bool,
) -> ParticipantEvent {
    let found = tokio::time::timeout(Duration::from_secs(15), async {
        loop {
            let event = events.recv().await.expect("events end with Left");
            if wanted(&event) {
                return event;
            }
        }
    });
    found.await.expect("event in time")
}

fn text(kind: DataChannelKind) -> DataMessage {
    DataMessage {
        kind,
        topic: "t".to_owned(),
        payload: Bytes::from_static(b"hello"),
        from: Private::default(),
        to: Vec::new(),
    }
}

#[tokio::test]
async fn a_participant_publishes_receives_repairs_resumes_and_leaves() {
    let (mirror, url) = Mirror::new().await;
    let mirror = tokio::spawn(mirror.run());
    let mut options = ConnectOptions::new(url, "token");
    options.publish = Publish { microphone: true, camera: true, ..Publish::default() };
    let (participant, mut events) = Participant::connect(options).await.unwrap();
    wait_for(&mut events, |event| matches!(event, ParticipantEvent::Connected)).await;

    for kind in [DataChannelKind::Reliable, DataChannelKind::Lossy] {
        participant.send_data(text(kind)).await.unwrap();
        let echoed = |event: &ParticipantEvent| matches!(event, ParticipantEvent::Data(_));
        let ParticipantEvent::Data(message) = wait_for(&mut events, echoed).await else { panic!() };
        assert_eq!((message.kind, message.from.reveal().as_str()), (kind, "mirror"));
        assert_eq!(message.payload, &b"hello"[..]);
    }
    tokio::time::sleep(Duration::from_millis(2500)).await;

    participant.cut_signal().await.unwrap();
    wait_for(&mut events, |event| matches!(event, ParticipantEvent::Resumed)).await;
    tokio::time::sleep(Duration::from_millis(1500)).await;

    let stats = participant.stats();
    assert!(stats.connected);
    assert_eq!((stats.resumes, stats.rejoins, stats.missed_events), (1, 0, 0));
    assert_eq!((stats.data_sent, stats.data_received), (2, 2));
    assert_eq!(stats.received.len(), 2);
    for track in &stats.received {
        assert!(track.packets > 60 && track.active, "{track:?}");
        assert!(track.repaired > 0 || track.kind == MediaKind::Audio, "{track:?}");
        // Audio that could not come before its turn is not asked for.
        let audio = track.kind == MediaKind::Audio;
        assert!(track.nacked > 0 && (track.lost == 0 || audio), "{track:?}");
        assert!(track.longest_gap < Duration::from_millis(500), "{track:?}");
    }
    let video = stats.received.iter().find(|track| track.kind == MediaKind::Video).unwrap();
    assert!(video.frames > 50 && video.keyframes >= 3, "{video:?}");
    // What is repaired on its way to the mirror comes back out of order, and does not decode.
    assert!(video.video.frames > 0 && video.video.first_frame.is_some(), "{video:?}");
    let audio = stats.received.iter().find(|track| track.kind == MediaKind::Audio).unwrap();
    assert!(audio.audio.from_repair > 0 && audio.audio.packets > 60, "{audio:?}");
    let sent = stats.sent.iter().find(|track| track.kind == MediaKind::Video).unwrap();
    assert_eq!(sent.sid, "TR_camera");
    assert!(sent.nacked > 0 && sent.repaired == sent.nacked, "{sent:?}");

    participant.mute(MediaKind::Audio, true).await.unwrap();
    tokio::time::sleep(Duration::from_millis(300)).await;
    let muted = participant.stats().sent[0].packets;
    tokio::time::sleep(Duration::from_millis(400)).await;
    assert!(participant.stats().sent[0].packets <= muted + 1);

    participant.leave().await.unwrap();
    let left = wait_for(&mut events, |event| matches!(event, ParticipantEvent::Left(_))).await;
    assert!(matches!(left, ParticipantEvent::Left(LeaveCause::Asked)));
    let seen = tokio::time::timeout(Duration::from_secs(5), mirror).await.unwrap().unwrap();
    assert_eq!((seen.joins, seen.resumes, seen.ufrags.len()), (1, 1, 2));
    assert_eq!(seen.sync_states[0].publish_tracks.len(), 2);
    assert!(seen.sync_states[0].answer.is_some() && seen.sync_states[0].offer.is_some());
    assert_eq!(seen.mutes, [true]);
    assert!(seen.pings > 0 && seen.nacked_by_client > 0);
    assert!(seen.repaired_by_client > 0 && seen.sender_reports > 3);
    assert!(seen.report_blocks > 3 && seen.feedback > 20, "{seen:?}");
}

#[tokio::test]
async fn a_participant_that_was_forgotten_joins_again() {
    let (mut mirror, url) = Mirror::new().await;
    mirror.forgetful = true;
    let mirror = tokio::spawn(mirror.run());
    let mut options = ConnectOptions::new(url, "token");
    options.publish = Publish { microphone: true, ..Publish::default() };
    let (participant, mut events) = Participant::connect(options).await.unwrap();
    let connected = |event: &ParticipantEvent| matches!(event, ParticipantEvent::Connected);
    wait_for(&mut events, connected).await;
    participant.cut_signal().await.unwrap();
    wait_for(&mut events, |event| matches!(event, ParticipantEvent::Joined { .. })).await;
    wait_for(&mut events, connected).await;
    tokio::time::sleep(Duration::from_millis(600)).await;
    let stats = participant.stats();
    assert_eq!((stats.resumes, stats.rejoins), (0, 1));
    assert!(stats.sent[0].packets > 10, "{stats:?}");
    participant.leave().await.unwrap();
    let seen = tokio::time::timeout(Duration::from_secs(5), mirror).await.unwrap().unwrap();
    assert_eq!((seen.joins, seen.forgotten), (2, 1));
}

#[tokio::test]
async fn a_closed_door_is_told_at_once() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("ws://{}", listener.local_addr().unwrap());
    drop(listener);
    let refused = Participant::connect(ConnectOptions::new(url, "token")).await;
    assert!(matches!(refused, Err(bedside_client::ConnectError::Signal(_))));
}
