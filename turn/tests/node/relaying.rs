//! Datagrams both ways over UDP, who may, and until when.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use bedside_turn::message::{Message, attribute, parse_channel_data};
use bedside_turn::{Config, Media, Node, Relay, StartError};

use crate::client::{Client, looks_virtual};
use crate::{Mirror, PEER, PEER_V6, address, config, eventually, mirrored};

#[test]
fn what_is_sent_reaches_media_and_comes_back() {
    let (node, mirror) = mirrored(config());
    node.allow("ann");
    let mut client = Client::udp(node.local()[0], "ann");
    let relayed = client.allocate().unwrap();
    assert!(looks_virtual(&relayed), "{relayed:?}");
    client.permit(address(PEER_V6)).unwrap();
    client.bind(0x4001, address(PEER)).unwrap();
    client.send(address(PEER_V6), b"by indication");
    let bytes = client.wire.receive(Duration::from_secs(30)).unwrap();
    let message = Message::parse(&bytes).unwrap();
    assert_eq!(message.attribute(attribute::DATA), Some(&b"by indication"[..]));
    assert_eq!(message.address(attribute::XOR_PEER_ADDRESS), Some(address(PEER_V6)));
    client.send_channel(0x4001, b"by channel");
    let bytes = client.wire.receive(Duration::from_secs(30)).unwrap();
    assert_eq!(parse_channel_data(&bytes), Some((0x4001, &b"by channel"[..])));
    let seen = mirror.seen.lock().unwrap().clone();
    assert_eq!(seen.len(), 2);
    assert_eq!((seen[0].from, seen[0].to), (relayed[1], address(PEER_V6)));
    assert_eq!((seen[1].from, seen[1].to), (relayed[0], address(PEER)));
    assert_eq!(seen[0].relay, seen[1].relay);
    eventually("it is counted", || {
        let counters = node.counters();
        (counters.allocations, counters.to_media, counters.to_clients) == (1, 2, 2)
    });
}

#[test]
fn a_leaver_has_nothing_two_seconds_later() {
    // A machine that is busy with something else may be late once.
    let took: Vec<Duration> = (0..3).map(|_| leave()).collect();
    assert!(took.iter().any(|took| *took < Duration::from_secs(2)), "{took:?}");
}

/// How long it takes until a leaver's allocations are gone.
fn leave() -> Duration {
    let (node, mirror) = mirrored(config());
    node.allow("ann");
    node.allow("bob");
    let mut clients: Vec<Client> = (0..4).map(|_| Client::udp(node.local()[0], "ann")).collect();
    let mut bob = Client::udp(node.local()[0], "bob");
    for client in clients.iter_mut().chain([&mut bob]) {
        client.allocate().unwrap();
        client.bind(0x4000, address(PEER)).unwrap();
    }
    let start = Instant::now();
    node.free("ann");
    eventually("only bob's is left", || node.counters().allocations == 1);
    let took = start.elapsed();
    assert_eq!(mirror.closed.lock().unwrap().len(), 4);
    assert_eq!(clients[0].refresh(600), Err(401));
    assert_eq!(clients[0].allocate(), Err(401));
    clients[0].send_channel(0x4000, b"late");
    bob.send_channel(0x4000, b"hello");
    assert!(bob.wire.receive(Duration::from_secs(30)).is_some());
    assert_eq!(mirror.seen.lock().unwrap().len(), 1, "bob's alone");
    node.allow("ann");
    clients[0].allocate().unwrap();
    took
}

#[test]
fn the_seventh_is_one_too_many_and_others_get_theirs() {
    let mut config = config();
    config.quotas.allocations_of_participant = 6;
    let (node, _mirror) = mirrored(config);
    node.allow("ann");
    node.allow("bob");
    let mut clients: Vec<Client> = (0..50).map(|_| Client::udp(node.local()[0], "ann")).collect();
    let given = clients.iter_mut().map(Client::allocate).filter(Result::is_ok).count();
    assert_eq!(given, 6);
    assert_eq!(clients[49].allocate(), Err(486));
    Client::udp(node.local()[0], "bob").allocate().unwrap();
}

#[test]
fn a_listener_survives_what_goes_wrong_in_media() {
    struct Broken;
    impl Media for Broken {
        fn deliver(&mut self, _: Relay, _: SocketAddr, _: SocketAddr, data: &[u8]) {
            assert_ne!(data, b"a bug");
        }
        fn flush(&mut self) {}
    }
    let node = Node::start(config(), vec![address("127.0.0.1:0")], |_| Box::new(Broken)).unwrap();
    node.allow("ann");
    let mut client = Client::udp(node.local()[0], "ann");
    client.allocate().unwrap();
    client.permit(address(PEER)).unwrap();
    client.send(address(PEER), b"a bug");
    eventually("it is counted", || node.counters().panics == 1);
    assert_eq!(client.refresh(600), Err(437));
    client.allocate().unwrap();
    client.permit(address(PEER)).unwrap();
}

#[test]
fn a_node_says_why_it_does_not_start() {
    let (node, mirror) = mirrored(config());
    let start = |config, at| Node::start(config, vec![at], move |_| Box::new(Mirror::default()));
    let taken = start(config(), node.local()[0]);
    assert!(matches!(taken, Err(StartError::PortTaken(at)) if at == node.local()[0]));
    let elsewhere = start(config(), address("192.0.2.1:0"));
    assert!(matches!(elsewhere, Err(StartError::Bind { .. })));
    let config = Config { realm: "x".repeat(21), ..config() };
    assert!(matches!(start(config, address("127.0.0.1:0")), Err(StartError::Realm)));
    drop(mirror);
}

#[test]
fn a_node_ends_when_it_is_dropped() {
    let (node, mirror) = mirrored(config());
    node.allow("ann");
    let local = node.local()[0];
    Client::udp(local, "ann").allocate().unwrap();
    drop(node);
    assert_eq!(mirror.closed.lock().unwrap().len(), 1);
    let again = std::net::UdpSocket::bind(local);
    assert!(again.is_ok(), "the port is free");
}
