//! A room without a socket: the engine, its clients and the network between them, in virtual time.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bedside_sfu::core::Rng;
use bedside_sfu::core::api::{
    ClientTraits, Command, DataChannelKind, DataSender, Event, Grant, Input, Join, LeaveReason,
    NodeEvent, Output, Path, Private, Profile, Quality, Relayed, Request, Resume, RoomKey,
    RoomSpec, SessionEvent, SessionKey, TrackSid,
};
use bedside_sfu::core::engine::{Core, CoreConfig, Limits, WallClock};
use bedside_sfu::core::peer::{Crypto, Identity};
use bedside_sfu::core::rtcp;
use bytes::Bytes;
use rand_chacha::rand_core::SeedableRng as _;

use crate::client::Client;
use crate::line::Line;
use crate::pipe::Pipe;
use crate::source::Source;

pub const ROOM: RoomKey = RoomKey(1);
/// The shard that the core is; one whose number needs both of its letters.
pub const SHARD: u16 = 300;

/// What travels, and when it arrives.
type Flight = Reverse<(Instant, u64, Option<usize>, Path, Vec<u8>)>;

pub struct World {
    pub core: Core,
    pub now: Instant,
    pub start: Instant,
    pub clients: Vec<Client>,
    /// What the node's owner was told.
    pub facts: Vec<NodeEvent>,
    /// One way.
    pub delay: Duration,
    /// Of media, towards the server and from it: 0..=1.
    pub loss: (f64, f64),
    pub line: Line,
    /// How often the engine was woken by its own wish.
    pub timeouts: u64,
    /// From the server to single clients.
    pub pipes: BTreeMap<usize, Pipe>,
    pub crypto: Crypto,
    identity: Arc<Identity>,
    rng: Rng,
    flights: BinaryHeap<Flight>,
    flown: u64,
    sessions: u64,
}

/// The relay of these tests: the first byte says to whom (0 = all, else an ASCII name of that
/// length), the next four are the sequence.
fn relay(sender: &DataSender<'_>, _kind: DataChannelKind, message: &[u8]) -> Option<Relayed> {
    let (&len, rest) = message.split_first()?;
    let (name, rest) = rest.split_at_checked(usize::from(len))?;
    let (sequence, body) = rest.split_first_chunk()?;
    let mut payload = sender.identity.as_bytes().to_vec();
    payload.push(b':');
    payload.extend_from_slice(body);
    let name = String::from_utf8(name.to_vec()).ok()?;
    Some(Relayed {
        payload: Bytes::from(payload),
        to_identities: if len == 0 { vec![] } else { vec![name] },
        to_sids: vec![],
        sequence: u32::from_be_bytes(*sequence),
    })
}

/// A message for [`relay`].
pub fn message(to: &str, sequence: u32, body: &str) -> Bytes {
    let mut message = vec![to.len() as u8];
    message.extend_from_slice(to.as_bytes());
    message.extend_from_slice(&sequence.to_be_bytes());
    message.extend_from_slice(body.as_bytes());
    Bytes::from(message)
}

impl World {
    /// A world with one open room.
    pub fn new(crypto: Crypto) -> Self {
        Self::with(crypto, 0, Some(Duration::from_secs(300)))
    }

    pub fn with(crypto: Crypto, max_participants: u32, empty_timeout: Option<Duration>) -> Self {
        let now = Instant::now();
        let identity = Arc::new(Identity::generate().unwrap());
        let config = CoreConfig {
            shard: SHARD,
            candidates: vec![server()],
            tcp_candidates: Vec::new(),
            identity: Arc::clone(&identity),
            relay,
            wall: WallClock { at: now, unix_micros: 1_800_000_000_000_000 },
            limits: Limits::default(),
            crypto,
        };
        let mut world = Self {
            core: Core::new(now, config, [7; 32]),
            now,
            start: now,
            clients: Vec::new(),
            facts: Vec::new(),
            delay: Duration::from_millis(10),
            loss: (0.0, 0.0),
            line: Line::default(),
            timeouts: 0,
            pipes: BTreeMap::new(),
            crypto,
            identity,
            rng: Rng::from_seed([8; 32]),
            flights: BinaryHeap::new(),
            flown: 0,
            sessions: 0,
        };
        world.command(Command::OpenRoom(Box::new(RoomSpec {
            room: ROOM,
            name: Private("room".into()),
            metadata: Private(String::new()),
            max_participants,
            empty_timeout,
            departure_timeout: empty_timeout,
            playout_delay: None,
        })));
        world
    }

    pub fn command(&mut self, command: Command) {
        self.core.handle_input(self.now, Input::Command(command));
        self.drain();
    }

    pub fn request(&mut self, client: usize, request: Request) {
        let session = self.clients[client].session;
        self.command(Command::Request { session, request });
    }

    /// A person joins and offers, as browsers do.
    pub fn join(&mut self, name: &str) -> usize {
        self.join_as(name, Grant::default(), |_| {})
    }

    pub fn join_as(&mut self, name: &str, grant: Grant, set_up: impl FnOnce(&mut Client)) -> usize {
        let session = self.session();
        let number = self.clients.len();
        let mut client =
            Client::new(number, name, session, self.crypto, Arc::clone(&self.identity));
        set_up(&mut client);
        let join = Join {
            room: ROOM,
            session,
            profile: Profile { identity: Private(name.into()), ..Profile::default() },
            grant,
            auto_subscribe: client.auto_subscribe,
            adaptive_stream: client.adaptive,
            allow_pause: client.allow_pause,
            client: ClientTraits {
                dtls_active: client.server_active,
                reads_red: client.reads_red,
                two_connections: client.receiver.is_some(),
                idle_stays_open: client.idle_stays_open,
                ..ClientTraits::default()
            },
        };
        self.clients.push(client);
        self.command(Command::Join(Box::new(join)));
        self.offer(number);
        number
    }

    pub fn session(&mut self) -> SessionKey {
        self.sessions += 1;
        SessionKey(self.sessions)
    }

    pub fn offer(&mut self, client: usize) {
        let (id, sdp) = self.clients[client].write_offer();
        self.request(client, Request::Offer { id, sdp });
    }

    /// A client's signal connection breaks and it resumes with an ICE restart, as browsers do.
    pub fn resume(&mut self, client: usize) {
        self.resume_without_offer(client);
        self.clients[client].restart_ice(&mut self.rng);
        self.offer(client);
    }

    /// … and offers nothing itself.
    pub fn resume_without_offer(&mut self, client: usize) {
        let session = self.session();
        let it = &mut self.clients[client];
        it.session = session;
        it.ended = None;
        let participant = it.me.clone().unwrap();
        let resume =
            Resume { room: ROOM, session, participant, identity: Private(it.name.clone()) };
        self.command(Command::Resume(Box::new(resume)));
    }

    /// A person joins and says nothing more.
    pub fn join_quietly(&mut self, name: &str) -> usize {
        let session = self.session();
        let number = self.clients.len();
        let identity = Arc::clone(&self.identity);
        self.clients.push(Client::new(number, name, session, self.crypto, identity));
        self.clients[number].quiet = true;
        let join = Join {
            room: ROOM,
            session,
            profile: Profile { identity: Private(name.into()), ..Profile::default() },
            grant: Grant::default(),
            auto_subscribe: true,
            adaptive_stream: false,
            allow_pause: true,
            client: ClientTraits {
                two_connections: crate::TWO_CONNECTIONS,
                ..ClientTraits::default()
            },
        };
        self.command(Command::Join(Box::new(join)));
        number
    }

    pub fn reseed(&mut self, seed: u8) {
        self.rng = Rng::from_seed([seed; 32]);
    }

    /// A subscriber asks for a rung: 0 = lowest.
    pub fn wish(&mut self, client: usize, track: &TrackSid, rung: usize) {
        let tracks = vec![track.clone()];
        let quality = [Quality::Low, Quality::Medium, Quality::High][rung];
        let settings = Request::TrackSettings {
            tracks,
            disabled: false,
            quality,
            width: 0,
            height: 0,
            fps: 0,
        };
        self.request(client, settings);
    }

    /// The stream that carries a track to a client.
    pub fn stream_ssrc(&self, client: usize, track: &TrackSid) -> u32 {
        let client = &self.clients[client];
        let mid = client.carried.iter().find(|(_, sid)| *sid == track).unwrap().0;
        let incoming = client.incoming().unwrap();
        incoming.sections.iter().find(|section| section.mid == *mid).unwrap().ssrcs[0]
    }

    /// A publisher reports on all its streams.
    pub fn send_reports(&mut self, client: usize) {
        self.send_reports_of(client, 0, |_| true);
    }

    /// A publisher, whose wall clock is so much too fast, reports on some of its sources.
    pub fn send_reports_of(
        &mut self,
        client: usize,
        wall_ppm: u32,
        which: impl Fn(&Source) -> bool,
    ) {
        let now = self.now;
        // The publisher's clock is nine days and a bit ahead of ours.
        let since = (now - self.start) + (now - self.start) * wall_ppm / 1_000_000;
        let since = since + Duration::from_secs(800_000);
        let fraction = (u64::from(since.subsec_micros()) << 32) / 1_000_000;
        let ntp = (since.as_secs() + 4_000_000_000) << 32 | fraction;
        let reports: Vec<(u32, u32)> = self.clients[client]
            .sources
            .iter()
            .filter(|source| which(source))
            .flat_map(|source| {
                source.encodings.iter().map(|all| (all.ssrc, source.clock(all, now)))
            })
            .collect();
        for (ssrc, rtp_timestamp) in reports {
            let info = rtcp::SenderInfo { ntp, rtp_timestamp, packets: 1, octets: 1 };
            self.clients[client].report(|out| rtcp::write_sender_report(out, ssrc, &info, &[]));
        }
    }

    /// Runs until this much later.
    pub fn run(&mut self, duration: Duration) {
        let end = self.now + duration;
        self.clients_work();
        loop {
            let core = match self.drain() {
                Some(at) if at <= self.now => {
                    self.core.handle_input(self.now, Input::Timeout);
                    self.timeouts += 1;
                    continue;
                }
                at => at,
            };
            let flight = self.flights.peek().map(|Reverse((at, ..))| *at);
            let clients = self.clients.iter().filter_map(Client::due);
            match clients.chain(core).chain(flight).min() {
                Some(next) if next <= end => self.now = self.now.max(next),
                _ => {
                    self.now = end;
                    return;
                }
            }
            self.deliver();
            self.clients_work();
        }
    }

    pub fn run_ms(&mut self, ms: u64) {
        self.run(Duration::from_millis(ms));
    }

    fn deliver(&mut self) {
        while self.flights.peek().is_some_and(|Reverse((at, ..))| *at <= self.now) {
            let Some(Reverse((_, _, to, path, mut bytes))) = self.flights.pop() else { return };
            match to {
                Some(client) => self.clients[client].datagram(self.now, path, &mut bytes),
                None => {
                    let data = &mut bytes[..];
                    let input = Input::Datagram { path, received: self.now, data };
                    self.core.handle_input(self.now, input);
                }
            }
        }
    }

    fn clients_work(&mut self) {
        for number in 0..self.clients.len() {
            self.clients[number].work(self.now);
            for (path, bytes) in self.clients[number].take_outgoing() {
                self.send_up(path, bytes);
            }
        }
    }

    /// From a client to the server.
    pub fn send_up(&mut self, path: Path, bytes: Vec<u8>) {
        let Path::Udp { local, remote } = path else { return };
        if !self.lost(true, local, &bytes) {
            self.fly(None, Path::Udp { local: remote, remote: local }, bytes);
        }
    }

    fn lost(&mut self, up: bool, client: SocketAddr, bytes: &[u8]) -> bool {
        // Only media: what repeats itself is tested with the peer.
        let media = bytes.first().is_some_and(|first| *first >= 128);
        let loss = if up { self.loss.0 } else { self.loss.1 };
        media && self.line.loses(&mut self.rng, up, client, loss)
    }

    /// A client reports what share of its packets is lost, in 1/256.
    pub fn report_loss(&mut self, client: usize, fraction_lost: u8) {
        let client = &mut self.clients[client];
        let block = |ssrc: &u32| rtcp::ReportBlock {
            ssrc: *ssrc,
            fraction_lost,
            lost: 0,
            highest: 0,
            jitter: 0,
            lsr: 0,
            dlsr: 0,
        };
        let blocks: Vec<rtcp::ReportBlock> = client.streams.keys().map(block).collect();
        client.send_rtcp(|out| rtcp::write_receiver_report(out, 1, &blocks));
    }

    fn fly(&mut self, to: Option<usize>, path: Path, bytes: Vec<u8>) {
        let pipe = to.and_then(|to| self.pipes.get_mut(&to));
        let through = pipe.map_or(Some(self.now), |pipe| pipe.pass(self.now, bytes.len()));
        let Some(through) = through else { return };
        let media = bytes.first().is_some_and(|first| *first >= 128);
        let copies = 1 + u64::from(media && self.line.doubles(&mut self.rng));
        for _ in 0..copies {
            self.flown += 1;
            let jitter = self.line.more_delay(&mut self.rng);
            let at = through + self.delay + if media { jitter } else { Duration::ZERO };
            self.flights.push(Reverse((at, self.flown, to, path, bytes.clone())));
        }
    }

    fn drain(&mut self) -> Option<Instant> {
        loop {
            let (path, trains) = match self.core.poll_output() {
                Output::Timeout(at) => return at,
                Output::Event(event) => {
                    self.event(event);
                    continue;
                }
                Output::Transmit(transmit) => {
                    let segments = transmit.contents.chunks(transmit.segment_size);
                    let segments: Vec<Vec<u8>> = segments.map(<[u8]>::to_vec).collect();
                    (transmit.path, segments)
                }
            };
            let Path::Udp { local, remote } = path else { continue };
            for bytes in trains {
                let to = self.clients.iter().position(|client| {
                    let other = client.receiver.as_ref().map(|receiver| receiver.address);
                    client.address == remote || other == Some(remote)
                });
                self.line.witness(remote, &bytes);
                if !self.lost(false, remote, &bytes)
                    && let Some(to) = to
                {
                    self.fly(Some(to), Path::Udp { local: remote, remote: local }, bytes);
                }
            }
        }
    }

    fn event(&mut self, event: Event) {
        match event {
            Event::Session { session, event } => {
                let now = self.now;
                let client = self.clients.iter_mut().find(|client| client.session == session);
                let Some(client) = client else { return };
                let offers = client.told(now, event);
                let number = client.number;
                if let Some((id, sdp)) = client.to_answer.take() {
                    self.request(number, Request::Answer { id, sdp });
                }
                if offers {
                    self.offer(number);
                }
            }
            Event::Node { room: _, event } => self.facts.push(event),
            Event::Resync { .. } => panic!("the core never asks for a resync"),
        }
    }

    pub fn left(&self, client: usize) -> Option<(LeaveReason, bool)> {
        self.clients[client].ended
    }

    pub fn told(&self, client: usize, matches: impl Fn(&SessionEvent) -> bool) -> usize {
        self.clients[client].log.iter().filter(|event| matches(event)).count()
    }
}

pub fn server() -> SocketAddr {
    "127.0.0.1:7882".parse().unwrap()
}
