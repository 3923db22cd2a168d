//! The state machine, request by request.

use std::time::{Duration, Instant};

use super::*;
use crate::auth::{PasswordAlgorithm, credential, long_term_key};
use crate::message::{Integrity, Key, Writer};
use crate::{Quotas, Secret};

const UNIX: u64 = 1_700_000_000;

fn address(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

/// A listener with two media addresses, and one client that knows its credential.
struct Bench {
    server: Server,
    ledger: Ledger,
    now: Now,
    tuple: Tuple,
    user: String,
    nonce: Vec<u8>,
    transactions: u8,
}

impl Bench {
    fn new() -> Self {
        Self::with(|_| {})
    }

    fn with(change: impl FnOnce(&mut Config)) -> Self {
        let peers = vec![address("203.0.113.1:40000"), address("[2001:db8::1]:40000")];
        let relayed = peers.iter().map(SocketAddr::ip).collect();
        let mut config = Config::new(Secret::new(b"bench"), peers, relayed);
        config.quotas = Quotas { strangers_per_second: 1_000, ..Quotas::default() };
        change(&mut config);
        let mut ledger = Ledger::new(&config);
        for name in ["ann", "bob"] {
            ledger.allow(name);
        }
        let now = Now { at: Instant::now(), unix: UNIX };
        let tuple =
            Tuple { client: address("198.51.100.7:1234"), server: address("203.0.113.1:3478") };
        let terms = Arc::new(Terms::new(&config));
        let nonce = terms.checker.nonce(UNIX, tuple.client, false);
        let server = Server::for_datagrams(now.at, terms, 3);
        Self { server, ledger, now, tuple, user: "ann".to_owned(), nonce, transactions: 0 }
    }

    fn later(&mut self, seconds: u64) {
        self.now.at += Duration::from_secs(seconds);
        self.now.unix += seconds;
        self.nonce = self.server.terms.checker.nonce(self.now.unix, self.tuple.client, false);
    }

    /// Another client of the same participant.
    fn move_to(&mut self, client: &str) {
        self.tuple.client = address(client);
        self.nonce = self.server.terms.checker.nonce(self.now.unix, self.tuple.client, false);
    }

    fn raw(&mut self, bytes: &[u8]) -> Vec<u8> {
        assert_eq!(self.server.pass(self.now.at, self.tuple, bytes), Passage::Request);
        let mut out = Vec::new();
        self.server.answer(self.now, self.tuple, bytes, &mut self.ledger, &mut out);
        out
    }

    fn key(&self) -> (String, Key) {
        let (name, password) = credential(&Secret::new(b"bench"), &self.user, UNIX + 100);
        let key = long_term_key(PasswordAlgorithm::Md5, &name, "bedside", &password);
        (name, key)
    }

    fn signed(&mut self, method: Method, attributes: &[(u16, &[u8])]) -> Vec<u8> {
        self.transactions += 1;
        let mut writer = Writer::new(method, Class::Request, [self.transactions; 12]);
        for (kind, value) in attributes {
            writer = match *kind {
                attribute::XOR_PEER_ADDRESS => {
                    writer.address(*kind, address(std::str::from_utf8(value).unwrap()))
                }
                _ => writer.attribute(*kind, value),
            };
        }
        let (name, key) = self.key();
        writer
            .attribute(attribute::USERNAME, name.as_bytes())
            .attribute(attribute::REALM, b"bedside")
            .attribute(attribute::NONCE, &self.nonce)
            .integrity(Integrity::Sha1, &key)
            .fingerprint()
    }

    /// Asks; an error is its code. Answers to known people are signed.
    fn ask(&mut self, method: Method, attributes: &[(u16, &[u8])]) -> Result<Vec<u8>, u16> {
        let request = self.signed(method, attributes);
        let answer = self.raw(&request);
        let message = Message::parse(&answer).expect("an answer");
        match message.class {
            Class::Success => {
                assert!(message.verify(&self.key().1), "signed");
                Ok(answer)
            }
            Class::Error => Err(message.error_code().unwrap()),
            Class::Request | Class::Indication => panic!("{message:?}"),
        }
    }

    fn allocate(&mut self, more: &[(u16, &[u8])]) -> Result<Vec<u8>, u16> {
        let mut attributes = vec![(attribute::REQUESTED_TRANSPORT, &[17, 0, 0, 0][..])];
        attributes.extend(more);
        self.ask(Method::Allocate, &attributes)
    }

    fn permit(&mut self, peer: &str) -> Result<Vec<u8>, u16> {
        self.ask(Method::CreatePermission, &[(attribute::XOR_PEER_ADDRESS, peer.as_bytes())])
    }

    fn bind(&mut self, number: u16, peer: &str) -> Result<Vec<u8>, u16> {
        let [a, b] = number.to_be_bytes();
        let attributes: [(u16, &[u8]); 2] = [
            (attribute::CHANNEL_NUMBER, &[a, b, 0, 0]),
            (attribute::XOR_PEER_ADDRESS, peer.as_bytes()),
        ];
        self.ask(Method::ChannelBind, &attributes)
    }

    fn refresh(&mut self, lifetime: u32) -> Result<Vec<u8>, u16> {
        self.ask(Method::Refresh, &[(attribute::LIFETIME, &lifetime.to_be_bytes())])
    }

    /// Sends by an indication; says where it went.
    fn send(&mut self, peer: &str, data: &[u8]) -> Option<(SocketAddr, SocketAddr)> {
        let bytes = Writer::new(Method::Send, Class::Indication, [9; 12])
            .address(attribute::XOR_PEER_ADDRESS, address(peer))
            .attribute(attribute::DATA, data)
            .finish();
        match self.server.pass(self.now.at, self.tuple, &bytes) {
            Passage::Media { from, to, data: passed, .. } => {
                assert_eq!(passed, data);
                Some((from, to))
            }
            Passage::Dropped => None,
            Passage::Request => panic!("a Send indication is no request"),
        }
    }

    fn channel(&mut self, number: u16, data: &[u8]) -> Option<SocketAddr> {
        let mut bytes = message::channel_data_head(number, data.len() as u16).to_vec();
        bytes.extend_from_slice(data);
        match self.server.pass(self.now.at, self.tuple, &bytes) {
            Passage::Media { to, .. } => Some(to),
            Passage::Dropped => None,
            Passage::Request => panic!("ChannelData is no request"),
        }
    }

    fn back(&mut self, peer: &str, segment: usize, train: &[u8]) -> Option<(usize, Vec<u8>)> {
        let relay = self.server.relay_of(self.tuple).unwrap();
        let mut out = Vec::new();
        let (now, peer) = (self.now.at, address(peer));
        let wrapped = self.server.wrap(now, relay, peer, segment, train, &mut out)?;
        assert_eq!(wrapped.tuple, self.tuple);
        Some((wrapped.segment, out))
    }
}

const V4: &str = "203.0.113.1:40000";
const V6: &str = "[2001:db8::1]:40000";

fn relayed(answer: &[u8]) -> Vec<SocketAddr> {
    let message = Message::parse(answer).unwrap();
    message.addresses(attribute::XOR_RELAYED_ADDRESS).map(Option::unwrap).collect()
}

#[test]
fn an_allocation_shows_a_media_address_with_a_port_of_its_own() {
    let mut bench = Bench::new();
    let answer = bench.allocate(&[]).unwrap();
    let first = relayed(&answer);
    assert_eq!(first.len(), 1);
    assert_eq!(first[0].ip(), address(V4).ip());
    assert_ne!(first[0].port(), 40_000);
    let message = Message::parse(&answer).unwrap();
    assert_eq!(message.word(attribute::LIFETIME), Some(600));
    assert_eq!(message.address(attribute::XOR_MAPPED_ADDRESS), Some(bench.tuple.client));
    bench.move_to("198.51.100.7:1235");
    let second = relayed(&bench.allocate(&[]).unwrap());
    assert_ne!(first, second);
    assert_eq!(bench.server.counters.allocations, 2);
}

#[test]
fn the_same_allocate_again_gets_the_same_answer_and_another_one_437() {
    let mut bench = Bench::new();
    let request = bench.signed(
        Method::Allocate,
        &[(attribute::REQUESTED_TRANSPORT, &[17, 0, 0, 0]), (attribute::EVEN_PORT, &[0x80])],
    );
    let first = bench.raw(&request);
    assert_eq!(Message::parse(&first).unwrap().class, Class::Success);
    assert_eq!(bench.raw(&request), first, "a retransmission");
    assert_eq!(bench.server.counters.allocated, 1);
    assert_eq!(bench.allocate(&[]), Err(437));
}

#[test]
fn who_has_not_signed_is_asked_to_with_a_nonce() {
    let mut bench = Bench::new();
    let bare = Writer::new(Method::Allocate, Class::Request, [1; 12])
        .attribute(attribute::REQUESTED_TRANSPORT, &[17, 0, 0, 0])
        .finish();
    let answer = bench.raw(&bare);
    assert!(answer.len() * 2 <= bare.len() * 5, "{} for {}", answer.len(), bare.len());
    let message = Message::parse(&answer).unwrap();
    assert_eq!(message.error_code(), Some(401));
    assert_eq!(message.attribute(attribute::REALM), Some(&b"bedside"[..]));
    assert!(message.attribute(attribute::NONCE).is_some());
    assert_eq!(message.attribute(attribute::PASSWORD_ALGORITHMS), None, "no room");
    let longer = Writer::new(Method::Allocate, Class::Request, [1; 12])
        .attribute(attribute::REQUESTED_TRANSPORT, &[17, 0, 0, 0])
        .attribute(attribute::SOFTWARE, &[b'x'; 40])
        .finish();
    let answer = bench.raw(&longer);
    let message = Message::parse(&answer).unwrap();
    assert!(message.attribute(attribute::PASSWORD_ALGORITHMS).is_some());
    let short = Writer::new(Method::Allocate, Class::Request, [1; 12]).finish();
    assert_eq!(bench.raw(&short), b"", "nothing that small is answered enough");
    assert_eq!(bench.server.counters.withheld, 1);
}

#[test]
fn the_longest_realm_still_fits_the_answer_to_the_shortest_allocate() {
    let mut bench = Bench::with(|config| config.realm = "r".repeat(crate::MAX_REALM));
    for fingerprint in [false, true] {
        let writer = Writer::new(Method::Allocate, Class::Request, [1; 12])
            .attribute(attribute::REQUESTED_TRANSPORT, &[17, 0, 0, 0]);
        let bare = if fingerprint { writer.fingerprint() } else { writer.finish() };
        let answer = bench.raw(&bare);
        let message = Message::parse(&answer).unwrap();
        assert_eq!(message.attribute(attribute::REALM).map(<[u8]>::len), Some(crate::MAX_REALM));
    }
}

#[test]
fn no_answer_to_a_stranger_is_larger_than_it_may_be() {
    let mut bench = Bench::new();
    let kinds = [Method::Binding, Method::Allocate, Method::Refresh, Method::ChannelBind];
    let (name, _) = bench.key();
    for method in kinds {
        for unknown in [false, true] {
            for filler in 0..40 {
                for fingerprint in [false, true] {
                    let mut writer = Writer::new(method, Class::Request, [1; 12]);
                    if filler > 0 {
                        writer = writer.attribute(attribute::SOFTWARE, &vec![b'x'; filler * 4]);
                    }
                    if unknown {
                        writer = writer.attribute(0x7777, b"");
                    }
                    if filler > 20 {
                        writer = writer
                            .attribute(attribute::USERNAME, name.as_bytes())
                            .attribute(attribute::REALM, b"bedside")
                            .attribute(attribute::NONCE, b"stale")
                            .integrity(Integrity::Sha1, &Key::new(b"wrong".to_vec()));
                    }
                    let asked = if fingerprint { writer.fingerprint() } else { writer.finish() };
                    bench.now.at += Duration::from_millis(10);
                    let answer = bench.raw(&asked);
                    assert!(answer.len() * 2 <= asked.len() * 5, "{method:?} {filler}");
                }
            }
        }
    }
}

#[test]
fn a_binding_is_answered_small() {
    let mut bench = Bench::new();
    let asked = Writer::new(Method::Binding, Class::Request, [1; 12]).finish();
    let answer = bench.raw(&asked);
    let message = Message::parse(&answer).unwrap();
    assert_eq!(message.address(attribute::XOR_MAPPED_ADDRESS), Some(bench.tuple.client));
    assert!(answer.len() * 10 <= asked.len() * 16);
    let strange = Writer::new(Method::Binding, Class::Request, [1; 12])
        .attribute(0x0003, &[0, 0, 0, 6])
        .finish();
    let answer = bench.raw(&strange);
    let message = Message::parse(&answer).unwrap();
    assert_eq!(message.error_code(), Some(420), "CHANGE-REQUEST");
    assert_eq!(message.attribute(attribute::UNKNOWN_ATTRIBUTES), Some(&[0, 3][..]));
}

#[test]
fn credentials_end_by_time_for_new_allocations_only_and_with_the_participant() {
    let mut bench = Bench::new();
    bench.allocate(&[]).unwrap();
    bench.later(101);
    assert!(bench.refresh(600).is_ok(), "it may keep what it has");
    bench.move_to("198.51.100.7:9");
    assert_eq!(bench.allocate(&[]), Err(401), "the credential has expired");
    bench.move_to("198.51.100.7:1234");
    bench.ledger.free("ann");
    assert_eq!(bench.refresh(600), Err(401));
    bench.server.sweep(bench.now.at, &mut bench.ledger);
    assert_eq!(bench.server.counters.allocations, 0);
    assert_eq!(bench.server.closed().count(), 1);
}

#[test]
fn a_nonce_of_another_client_is_stale() {
    let mut bench = Bench::new();
    bench.tuple.client = address("198.51.100.8:1234");
    assert_eq!(bench.allocate(&[]), Err(438));
}

#[test]
fn allocate_says_what_is_wrong_with_it() {
    let mut bench = Bench::new();
    let transport = |value| vec![(attribute::REQUESTED_TRANSPORT, value)];
    assert_eq!(bench.ask(Method::Allocate, &[]), Err(400), "no transport");
    assert_eq!(bench.ask(Method::Allocate, &transport(&[17][..])), Err(400), "cut");
    assert_eq!(bench.ask(Method::Allocate, &transport(&[6, 0, 0, 0][..])), Err(442), "TCP");
    let v4: (u16, &[u8]) = (attribute::REQUESTED_ADDRESS_FAMILY, &[1, 0, 0, 0]);
    let odd: (u16, &[u8]) = (attribute::REQUESTED_ADDRESS_FAMILY, &[3, 0, 0, 0]);
    let more_v6: (u16, &[u8]) = (attribute::ADDITIONAL_ADDRESS_FAMILY, &[2, 0, 0, 0]);
    let more_v4: (u16, &[u8]) = (attribute::ADDITIONAL_ADDRESS_FAMILY, &[1, 0, 0, 0]);
    let token: (u16, &[u8]) = (attribute::RESERVATION_TOKEN, &[7; 8]);
    let pair: (u16, &[u8]) = (attribute::EVEN_PORT, &[0x80]);
    for (attributes, code) in [
        (vec![odd], 440),
        (vec![v4, more_v6], 400),
        (vec![more_v4], 400),
        (vec![pair, more_v6], 400),
        (vec![token, pair], 400),
        (vec![token, v4], 400),
        (vec![token, more_v6], 400),
        (vec![token], 508),
        (vec![(attribute::RESERVATION_TOKEN, &[7; 7])], 400),
        (vec![(attribute::EVEN_PORT, &[])], 400),
        (vec![(attribute::LIFETIME, &[0, 0, 1])], 400),
        (vec![(0x7F00, &[])], 420),
    ] {
        assert_eq!(bench.allocate(&attributes), Err(code), "{attributes:?}");
    }
    assert_eq!(bench.server.counters.allocated, 0);
    assert!(bench.allocate(&[(attribute::DONT_FRAGMENT, &[])]).is_ok());
}

#[test]
fn families_are_given_as_asked() {
    let v6: (u16, &[u8]) = (attribute::REQUESTED_ADDRESS_FAMILY, &[2, 0, 0, 0]);
    let both: (u16, &[u8]) = (attribute::ADDITIONAL_ADDRESS_FAMILY, &[2, 0, 0, 0]);
    let mut bench = Bench::new();
    let answer = relayed(&bench.allocate(&[v6]).unwrap());
    assert!(answer.len() == 1 && answer[0].ip() == address(V6).ip());
    bench.move_to("198.51.100.7:2");
    let answer = relayed(&bench.allocate(&[both]).unwrap());
    assert!(answer.len() == 2 && answer[0].is_ipv4() && answer[1].is_ipv6());

    let mut only_v4 = Bench::with(|config| config.relayed.retain(IpAddr::is_ipv4));
    assert_eq!(only_v4.allocate(&[v6]), Err(440));
    let answer = only_v4.allocate(&[both]).unwrap();
    assert_eq!(relayed(&answer).len(), 1);
    let message = Message::parse(&answer).unwrap();
    assert_eq!(message.attribute(attribute::ADDRESS_ERROR_CODE), Some(&[2, 0, 4, 40][..]));

    let mut only_v6 = Bench::with(|config| config.relayed.retain(IpAddr::is_ipv6));
    assert_eq!(only_v6.allocate(&[]), Err(440), "without a word it is IPv4");
}

#[test]
fn a_pair_of_ports_for_two_allocations() {
    let mut bench = Bench::new();
    let answer = bench.allocate(&[(attribute::EVEN_PORT, &[0x80])]).unwrap();
    let message = Message::parse(&answer).unwrap();
    let token = message.attribute(attribute::RESERVATION_TOKEN).unwrap().to_vec();
    let first = relayed(&answer)[0];
    assert!(first.port().is_multiple_of(2));
    bench.move_to("198.51.100.7:3");
    let answer = bench.allocate(&[(attribute::RESERVATION_TOKEN, &token)]).unwrap();
    assert_eq!(relayed(&answer)[0].port(), first.port() + 1);
}

#[test]
fn lifetimes_are_bounded_and_end() {
    let mut bench = Bench::new();
    let lifetime = |answer: &[u8]| Message::parse(answer).unwrap().word(attribute::LIFETIME);
    let long = u32::MAX.to_be_bytes();
    let answer = bench.allocate(&[(attribute::LIFETIME, &long)]).unwrap();
    assert_eq!(lifetime(&answer), Some(3_600));
    assert_eq!(lifetime(&bench.refresh(1).unwrap()), Some(600));
    bench.permit(V4).unwrap();
    assert!(bench.send(V4, b"x").is_some());
    bench.later(600);
    assert!(bench.send(V4, b"x").is_none(), "before anybody sweeps");
    assert_eq!(bench.refresh(600), Err(437));
    assert_eq!(bench.permit(V4), Err(437));
    bench.server.sweep(bench.now.at, &mut bench.ledger);
    assert_eq!((bench.server.closed().count(), bench.server.counters.allocations), (1, 0));
}

#[test]
fn who_comes_after_its_allocation_expired_gets_another() {
    let mut bench = Bench::new();
    bench.allocate(&[]).unwrap();
    bench.now.at += Duration::from_secs(600);
    bench.allocate(&[]).unwrap();
    assert_eq!((bench.server.closed().count(), bench.server.counters.allocations), (1, 1));
}

#[test]
fn refresh_with_nothing_deletes_and_by_family() {
    let mut bench = Bench::new();
    assert_eq!(bench.refresh(600), Err(437), "nothing there");
    bench.allocate(&[(attribute::ADDITIONAL_ADDRESS_FAMILY, &[2, 0, 0, 0])]).unwrap();
    let zero = 0_u32.to_be_bytes();
    let v6: (u16, &[u8]) = (attribute::REQUESTED_ADDRESS_FAMILY, &[2, 0, 0, 0]);
    bench.ask(Method::Refresh, &[(attribute::LIFETIME, &zero), v6]).unwrap();
    assert_eq!(bench.ask(Method::Refresh, &[v6]), Err(443), "it has no IPv6 any more");
    assert_eq!(bench.permit(V6), Err(443));
    assert!(bench.permit(V4).is_ok());
    bench.refresh(0).unwrap();
    assert_eq!(bench.refresh(0), Err(437));
    assert_eq!(bench.server.counters.allocations, 0);
}

#[test]
fn somebody_else_may_not_touch_it() {
    let mut bench = Bench::new();
    bench.allocate(&[]).unwrap();
    bench.user = "bob".to_owned();
    assert_eq!(bench.refresh(0), Err(441));
    assert_eq!(bench.permit(V4), Err(441));
    assert_eq!(bench.bind(0x4000, V4), Err(441));
    bench.user = "eve".to_owned();
    assert_eq!(bench.refresh(0), Err(401), "nobody has let eve in");
}

#[test]
fn permissions_are_for_our_addresses_and_last_five_minutes() {
    let mut bench = Bench::new();
    bench.allocate(&[]).unwrap();
    assert!(bench.send(V4, b"x").is_none(), "without permission");
    assert_eq!(bench.ask(Method::CreatePermission, &[]), Err(400));
    assert_eq!(bench.permit("203.0.113.2:40000"), Err(403));
    assert_eq!(bench.permit(V6), Err(443));
    let one_bad: [(u16, &[u8]); 2] = [
        (attribute::XOR_PEER_ADDRESS, V4.as_bytes()),
        (attribute::XOR_PEER_ADDRESS, b"127.0.0.1:40000"),
    ];
    assert_eq!(bench.ask(Method::CreatePermission, &one_bad), Err(403));
    assert!(bench.send(V4, b"x").is_none(), "all or none");
    bench.permit("203.0.113.1:0").unwrap();
    let (from, to) = bench.send(V4, b"hello").unwrap();
    assert_eq!((from.ip(), to), (address(V4).ip(), address(V4)));
    assert!(bench.send("203.0.113.1:5432", b"x").is_none(), "our address, not our media");
    bench.later(300);
    assert!(bench.send(V4, b"x").is_none());
    assert!(bench.server.counters.no_permission >= 4);
}

#[test]
fn channels_carry_both_ways() {
    let mut bench = Bench::new();
    bench.allocate(&[]).unwrap();
    for (number, peer, code) in [
        (0x3FFF, V4, 400),
        (0x8000, V4, 400),
        (0x4000, "203.0.113.1:1", 403),
        (0x4000, "127.0.0.1:40000", 403),
        (0x4000, V6, 443),
    ] {
        assert_eq!(bench.bind(number, peer), Err(code), "{number:x} {peer}");
    }
    assert!(bench.channel(0x4000, b"x").is_none());
    bench.bind(0x4000, V4).unwrap();
    bench.bind(0x4000, V4).unwrap();
    assert_eq!(bench.bind(0x4001, V4), Err(400), "the peer has one");
    assert_eq!(bench.channel(0x4000, b"hello"), Some(address(V4)));
    assert!(bench.send(V4, b"x").is_some(), "a channel is a permission");
    let (segment, out) = bench.back(V4, 3, b"aaabbbcc").unwrap();
    assert_eq!(segment, 7);
    let pieces: Vec<_> = out.chunks(segment).map(message::parse_channel_data).collect();
    assert_eq!(
        pieces,
        [Some((0x4000, &b"aaa"[..])), Some((0x4000, &b"bbb"[..])), Some((0x4000, &b"cc"[..]))]
    );
    bench.later(599);
    assert!(bench.channel(0x4000, b"x").is_some());
}

#[test]
fn a_channel_ends_after_ten_minutes() {
    let mut bench = Bench::new();
    bench.allocate(&[(attribute::LIFETIME, &3_600_u32.to_be_bytes())]).unwrap();
    bench.bind(0x4000, V4).unwrap();
    bench.later(600);
    assert!(bench.channel(0x4000, b"x").is_none());
    assert_eq!(bench.back(V4, 10, b"x"), None);
    bench.bind(0x4001, V4).unwrap();
    assert!(bench.channel(0x4001, b"x").is_some());
}

#[test]
fn data_without_a_channel_comes_as_an_indication() {
    let mut bench = Bench::new();
    bench.allocate(&[(attribute::ADDITIONAL_ADDRESS_FAMILY, &[2, 0, 0, 0])]).unwrap();
    assert_eq!(bench.back(V4, 10, b"hello"), None, "without permission");
    for peer in [V4, V6] {
        bench.permit(peer).unwrap();
        let (segment, out) = bench.back(peer, 5, b"helloworldabc").unwrap();
        let mut seen = Vec::new();
        for bytes in out.chunks(segment) {
            let message = Message::parse(bytes).unwrap();
            assert_eq!((message.method, message.class), (Method::Data, Class::Indication));
            assert_eq!(message.address(attribute::XOR_PEER_ADDRESS), Some(address(peer)));
            seen.extend_from_slice(message.attribute(attribute::DATA).unwrap());
        }
        assert_eq!(seen, b"helloworldabc");
    }
    assert_eq!(bench.back("203.0.113.9:1", 5, b"x"), None);
    let relay = Relay(bench.server.relay_of(bench.tuple).unwrap().0 + 256);
    let mut out = Vec::new();
    assert_eq!(bench.server.wrap(bench.now.at, relay, address(V4), 5, b"x", &mut out), None);
}

#[test]
fn quotas_and_capacity() {
    let mut bench = Bench::with(|config| {
        config.quotas.allocations_of_participant = 2;
        config.ports = 50_000..=50_002;
    });
    for (port, want) in [(1, None), (2, None), (3, Some(486))] {
        bench.move_to(&format!("198.51.100.7:{port}"));
        assert_eq!(bench.allocate(&[]).err(), want);
    }
    bench.user = "bob".to_owned();
    for (port, want) in [(4, None), (5, Some(508))] {
        bench.move_to(&format!("198.51.100.7:{port}"));
        assert_eq!(bench.allocate(&[]).err(), want);
    }
    assert_eq!(bench.server.counters.quota, 2);
}

#[test]
fn strangers_are_answered_at_a_rate_and_known_people_always() {
    let mut bench = Bench::with(|config| config.quotas.strangers_per_second = 1);
    let asked = Writer::new(Method::Binding, Class::Request, [1; 12]).finish();
    let answered = (0..100).filter(|_| !bench.raw(&asked).is_empty()).count();
    assert_eq!(answered, 3);
    bench.allocate(&[]).unwrap();
    for _ in 0..100 {
        bench.permit(V4).unwrap();
    }
}

#[test]
fn sha_256_is_answered_with_sha_256() {
    let mut bench = Bench::new();
    let (name, _) = bench.key();
    let (_, password) = credential(&Secret::new(b"bench"), "ann", UNIX + 100);
    let key = long_term_key(PasswordAlgorithm::Sha256, &name, "bedside", &password);
    let nonce = bench.server.terms.checker.nonce(UNIX, bench.tuple.client, true);
    let request = Writer::new(Method::Allocate, Class::Request, [5; 12])
        .attribute(attribute::REQUESTED_TRANSPORT, &[17, 0, 0, 0])
        .attribute(attribute::USERNAME, name.as_bytes())
        .attribute(attribute::REALM, b"bedside")
        .attribute(attribute::NONCE, &nonce)
        .attribute(attribute::PASSWORD_ALGORITHMS, &[0, 2, 0, 0, 0, 1, 0, 0])
        .attribute(attribute::PASSWORD_ALGORITHM, &[0, 2, 0, 0])
        .integrity(Integrity::Sha256, &key)
        .finish();
    let answer = bench.raw(&request);
    let message = Message::parse(&answer).unwrap();
    assert_eq!((message.class, message.integrity()), (Class::Success, Some(Integrity::Sha256)));
    assert!(message.verify(&key));
}

#[test]
fn on_a_stream_channel_data_is_padded() {
    let mut bench = Bench::new();
    bench.server = Server::for_stream(Arc::clone(&bench.server.terms), 255);
    bench.allocate(&[]).unwrap();
    bench.bind(0x4000, V4).unwrap();
    let (_, out) = bench.back(V4, 5, b"helloabc").unwrap();
    assert_eq!(out.len(), 4 + 8 + 4 + 4);
    assert_eq!(message::length_on_stream(&out), Some(Ok(12)));
    let bare = Writer::new(Method::Allocate, Class::Request, [1; 12]).finish();
    assert!(!bench.raw(&bare).is_empty(), "nobody asks in another's name");
}

#[test]
fn lengths_that_lie_read_nothing_foreign() {
    let mut bench = Bench::new();
    bench.allocate(&[]).unwrap();
    bench.bind(0x4000, V4).unwrap();
    let at = bench.now.at;
    // DATA of 35,510 bytes with four of them there.
    let mut bytes = Writer::new(Method::Send, Class::Indication, [9; 12])
        .address(attribute::XOR_PEER_ADDRESS, address(V4))
        .attribute(attribute::DATA, b"four")
        .finish();
    let place = bytes.len() - 6;
    bytes[place..place + 2].copy_from_slice(&35_510_u16.to_be_bytes());
    assert_eq!(bench.server.pass(at, bench.tuple, &bytes), Passage::Dropped);
    let mut bytes = message::channel_data_head(0x4000, 35_510).to_vec();
    bytes.extend_from_slice(b"four");
    assert_eq!(bench.server.pass(at, bench.tuple, &bytes), Passage::Dropped);
    assert_eq!(bench.server.counters.to_media, 0);
}
