//! What is done with hostile bytes: they must not panic, must end soon, and what is left must hold
//! together. `tests/fuzz` runs the same functions under a coverage-guided fuzzer.

use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use bedside_turn::auth::{PasswordAlgorithm, long_term_key};
use bedside_turn::message::{
    self, Class, Integrity, Key, Message, Method, Writer, attribute, short_term_key,
};
use bedside_turn::quota::Ledger;
use bedside_turn::server::{Now, Passage, Server, Terms, Tuple};
use bedside_turn::{Config, Relay, Secret, credential};

/// A name and what it does.
pub type Target = (&'static str, fn(&[u8]));

/// All of them.
pub const TARGETS: [Target; 2] = [("turn_message", codec), ("turn_requests", requests)];

/// The clock that nobody looks at.
fn epoch() -> Instant {
    static EPOCH: OnceLock<Instant> = OnceLock::new();
    *EPOCH.get_or_init(Instant::now)
}

/// What is read is found again in what is written from it.
fn codec(data: &[u8]) {
    if let Some(Ok(length)) = message::length_on_stream(data) {
        assert!((4..=65_552).contains(&length));
    }
    if let Some((channel, payload)) = message::parse_channel_data(data) {
        assert!(message::CHANNELS.contains(&channel) && payload.len() + 4 <= data.len());
    }
    let Ok(read) = Message::parse(data) else { return };
    assert_eq!(message::length_on_stream(data), Some(Ok(data.len())));
    let key = short_term_key("a password");
    assert!(!read.verify(&key), "nobody knows it");
    let mut writer = Writer::new(read.method, read.class, read.transaction);
    let mut length = message::HEADER;
    for (kind, value) in read.attributes() {
        length += 4 + value.len().next_multiple_of(4);
        let signs = [attribute::MESSAGE_INTEGRITY, attribute::MESSAGE_INTEGRITY_SHA256];
        if kind != attribute::FINGERPRINT && !signs.contains(&kind) {
            writer = writer.attribute(kind, value);
        }
        let _ = (read.attribute(kind), read.address(kind), read.word(kind));
    }
    assert_eq!(length, data.len(), "nothing is left over");
    let _ = (read.error_code(), read.unknown(&[]).count());
    if writer.length() + 60 > usize::from(u16::MAX) {
        return;
    }
    for integrity in [Integrity::Sha1, Integrity::Sha256] {
        let again = writer.clone().integrity(integrity, &key).fingerprint();
        let again = Message::parse(&again).unwrap();
        assert!(again.verify(&key) && again.integrity() == Some(integrity));
        let peers = |m: &Message<'_>| m.addresses(attribute::XOR_PEER_ADDRESS).count();
        assert!(peers(&again) >= peers(&read));
    }
}

const CLIENTS: u8 = 3;
const PARTICIPANTS: [&str; 2] = ["ann", "bob"];
const PEERS: [&str; 3] = ["192.0.2.1:40000", "[2001:db8::1]:40000", "10.0.0.1:22"];
const UNIX: u64 = 1_700_000_000;

/// Reads a sequence of steps.
struct Steps<'a>(&'a [u8]);

impl<'a> Steps<'a> {
    fn byte(&mut self) -> Option<u8> {
        let (first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*first)
    }

    fn some(&mut self, most: u8) -> &'a [u8] {
        let length = usize::from(self.byte().unwrap_or(0) % most).min(self.0.len());
        let (taken, rest) = self.0.split_at(length);
        self.0 = rest;
        taken
    }
}

/// A server, what it hands on, and clients that know how to sign.
struct World {
    server: Server,
    ledger: Ledger,
    now: Now,
    nonces: [Vec<u8>; CLIENTS as usize],
    relays: Vec<Relay>,
    sent: u8,
}

impl World {
    fn new(stream: bool) -> Self {
        let ours: Vec<SocketAddr> = PEERS[..2].iter().map(|p| p.parse().unwrap()).collect();
        let relayed = ours.iter().map(SocketAddr::ip).collect();
        let mut config = Config::new(Secret::new(b"fuzz"), ours, relayed);
        config.ports = 50_000..=50_003;
        config.quotas.strangers_per_second = 1_000_000;
        let mut ledger = Ledger::new(&config);
        PARTICIPANTS.iter().for_each(|name| ledger.allow(name));
        let terms = Arc::new(Terms::new(&config));
        let server = if stream {
            Server::for_stream(terms, 255)
        } else {
            Server::for_datagrams(epoch(), terms, 0)
        };
        let now = Now { at: epoch(), unix: UNIX };
        Self { server, ledger, now, nonces: Default::default(), relays: Vec::new(), sent: 0 }
    }

    fn tuple(client: u8) -> Tuple {
        let client = format!("198.51.100.1:{}", 1_000 + u16::from(client % CLIENTS));
        Tuple { client: client.parse().unwrap(), server: "192.0.2.1:3478".parse().unwrap() }
    }

    fn key(name: &str, realm: &str) -> (String, Key) {
        let (user, password) = credential(&Secret::new(b"fuzz"), name, UNIX + 10_000);
        let key = long_term_key(PasswordAlgorithm::Md5, &user, realm, &password);
        (user, key)
    }

    /// What a client sends, and what it gets for it.
    fn receive(&mut self, client: u8, bytes: &[u8]) -> Vec<u8> {
        let tuple = Self::tuple(client);
        match self.server.pass(self.now.at, tuple, bytes) {
            Passage::Media { relay, from, to, data } => {
                assert!(
                    PEERS[..2].iter().any(|peer| to == peer.parse::<SocketAddr>().unwrap()),
                    "{to}"
                );
                assert_eq!(from.is_ipv4(), to.is_ipv4());
                assert!((50_000..=50_003).contains(&from.port()) && data.len() < bytes.len());
                assert_eq!(self.server.relay_of(tuple), Some(relay));
                Vec::new()
            }
            Passage::Dropped => Vec::new(),
            Passage::Request => {
                let mut out = Vec::new();
                self.server.answer(self.now, tuple, bytes, &mut self.ledger, &mut out);
                self.relays.extend(self.server.relay_of(tuple));
                out
            }
        }
    }

    /// A request that is signed well, with whatever attributes the input wants.
    fn ask(&mut self, client: u8, steps: &mut Steps<'_>) -> Option<()> {
        let methods =
            [Method::Allocate, Method::Refresh, Method::CreatePermission, Method::ChannelBind];
        let choice = steps.byte()?;
        let method = methods[usize::from(choice % 4)];
        let name = PARTICIPANTS[usize::from(choice / 4 % 2)];
        self.sent = self.sent.wrapping_add(1);
        let transaction = if choice >= 0xF0 { [1; 12] } else { [self.sent; 12] };
        let mut writer = Writer::new(method, Class::Request, transaction);
        if choice & 8 == 0 {
            writer = writer
                .attribute(attribute::REQUESTED_TRANSPORT, &[17, 0, 0, 0])
                .attribute(attribute::CHANNEL_NUMBER, &[0x40, choice >> 6, 0, 0])
                .address(
                    attribute::XOR_PEER_ADDRESS,
                    PEERS[usize::from(choice >> 4 & 1)].parse().unwrap(),
                );
        }
        for _ in 0..steps.byte()? % 4 {
            let kinds = [
                attribute::LIFETIME,
                attribute::REQUESTED_ADDRESS_FAMILY,
                attribute::ADDITIONAL_ADDRESS_FAMILY,
                attribute::EVEN_PORT,
                attribute::RESERVATION_TOKEN,
                attribute::XOR_PEER_ADDRESS,
                attribute::CHANNEL_NUMBER,
                attribute::REQUESTED_TRANSPORT,
            ];
            let kind = steps.byte()?;
            let known = kinds.get(usize::from(kind)).copied();
            let kind = known.unwrap_or_else(|| u16::from(kind) << 8 | 1);
            writer = writer.attribute(kind, steps.some(24));
        }
        let nonce = &self.nonces[usize::from(client % CLIENTS)];
        let (user, key) = Self::key(name, "bedside");
        let request = writer
            .attribute(attribute::USERNAME, user.as_bytes())
            .attribute(attribute::REALM, b"bedside")
            .attribute(attribute::NONCE, nonce)
            .integrity(Integrity::Sha1, &key)
            .finish();
        let answer = self.receive(client, &request);
        let answer = Message::parse(&answer).expect("who signs is answered");
        assert_eq!(answer.transaction, transaction);
        if let Some(nonce) = answer.attribute(attribute::NONCE) {
            self.nonces[usize::from(client % CLIENTS)] = nonce.to_vec();
        } else {
            assert!(answer.verify(&key), "what it gets is signed");
        }
        Some(())
    }

    /// Something comes back from a media address.
    fn wrap(&mut self, steps: &mut Steps<'_>) -> Option<()> {
        let choice = steps.byte()?;
        let relay = self.relays.get(usize::from(choice >> 4)).copied().unwrap_or(Relay(77));
        let peer = PEERS[usize::from(choice % 3)].parse().unwrap();
        let (segment, train) = (usize::from(steps.byte()?), steps.some(64));
        let mut out = Vec::new();
        let wrapped = self.server.wrap(self.now.at, relay, peer, segment, train, &mut out);
        match wrapped {
            Some(wrapped) => {
                assert_eq!(self.server.relay_of(wrapped.tuple), Some(relay));
                assert!(choice % 3 != 2, "nothing comes from there");
            }
            None => assert!(out.is_empty()),
        }
        Some(())
    }

    fn step(&mut self, steps: &mut Steps<'_>) -> Option<()> {
        let step = steps.byte()?;
        let client = step >> 4;
        match step & 15 {
            0..=4 => self.ask(client, steps)?,
            5 => {
                self.receive(client, steps.some(255));
            }
            6 | 7 => {
                let peer = PEERS[usize::from(steps.byte()? % 3)].parse().unwrap();
                let bytes = Writer::new(Method::Send, Class::Indication, [2; 12])
                    .address(attribute::XOR_PEER_ADDRESS, peer)
                    .attribute(attribute::DATA, steps.some(64))
                    .finish();
                self.receive(client, &bytes);
            }
            8 => {
                let head = message::channel_data_head(0x4000 | u16::from(steps.byte()?), 8);
                self.receive(client, &[&head[..], &[7; 8]].concat());
            }
            9 | 10 => self.wrap(steps)?,
            11 => {
                let seconds = u64::from(steps.byte()?) * 4;
                self.now.at += Duration::from_secs(seconds);
                self.now.unix += seconds;
            }
            12 => self.server.sweep(self.now.at, &mut self.ledger),
            13 => self.ledger.free(PARTICIPANTS[usize::from(client % 2)]),
            _ => self.ledger.allow(PARTICIPANTS[usize::from(client % 2)]),
        }
        Some(())
    }
}

/// A sequence of requests, data and time: what is handed on is always meant for a media address,
/// and nothing is left when everything is over.
fn requests(data: &[u8]) {
    let mut steps = Steps(data);
    let mut world = World::new(steps.byte().is_some_and(|byte| byte & 1 == 1));
    for _ in 0..200 {
        if world.step(&mut steps).is_none() {
            break;
        }
    }
    world.server.clear(&mut world.ledger);
    assert_eq!(world.server.counters.allocations, 0);
    // Reservations end with their owners, and then every port can be had again.
    for name in PARTICIPANTS {
        world.ledger.free(name);
        world.ledger.allow(name);
    }
    // The credentials may have expired on the way.
    world.now.unix = UNIX;
    world.nonces = Default::default();
    let mut ports = Vec::new();
    for client in 0..CLIENTS {
        // The first time it learns the nonce.
        for _ in 0..2 {
            world.ask(client, &mut Steps(&[0, 0]));
        }
        ports.extend(world.server.relay_of(World::tuple(client)));
    }
    assert_eq!(ports.len(), usize::from(CLIENTS), "a port or a place was lost");
}
