//! A real node on loopback: real sockets, real DTLS and SRTP, and everything a stranger may send.

#![allow(clippy::indexing_slicing, clippy::unwrap_used, reason = "a test may fail by panicking")]

mod caller;

use std::collections::HashMap;
use std::io::Write as _;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, UdpSocket};
use std::sync::mpsc::Sender;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bedside_sfu::core::Rng;
use bedside_sfu::core::api::{
    Command, DataChannelKind, DataSender, Event, Grant, Join, LeaveReason, Private, Profile,
    Relayed as RelayedData, RoomKey, RoomSpec, SessionEvent, SessionKey,
};
use bedside_sfu::node::{Busy, Node, NodeConfig, Outlets, RelayOutlet, StartError};
use bytes::Bytes;
use caller::{Caller, Events, Relayed};
use rand_chacha::rand_core::{Rng as _, SeedableRng as _};
use tokio::io::AsyncReadExt as _;

fn no_data(_: &DataSender<'_>, _: DataChannelKind, _: &[u8]) -> Option<RelayedData> {
    None
}

fn config() -> NodeConfig {
    NodeConfig {
        bind: IpAddr::V4(Ipv4Addr::LOCALHOST),
        first_port: 0,
        shards: 1,
        tcp: false,
        advertise: Vec::new(),
        shared_tcp: None,
        outlets: Outlets::default(),
        relay: no_data,
        commands: 256,
        events: 1_024,
    }
}

fn open(room: RoomKey) -> Command {
    Command::OpenRoom(Box::new(RoomSpec {
        room,
        name: Private::new("room".to_owned()),
        metadata: Private::default(),
        max_participants: 0,
        empty_timeout: None,
        departure_timeout: None,
        playout_delay: None,
    }))
}

fn join(room: RoomKey, session: SessionKey) -> Command {
    let identity = Private::new(format!("person {}", session.0));
    Command::Join(Box::new(Join {
        room,
        session,
        profile: Profile { identity, ..Profile::default() },
        grant: Grant::default(),
        auto_subscribe: true,
        adaptive_stream: false,
        allow_pause: true,
        client: Default::default(),
    }))
}

/// Runs all callers until the condition holds.
fn run(
    callers: &mut [Caller],
    events: &mut Events,
    what: &str,
    mut done: impl FnMut(&[Caller]) -> bool,
) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !done(callers) {
        assert!(Instant::now() < deadline, "{what}: never");
        for caller in callers.iter_mut() {
            caller.step(events);
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Two callers in one room, both sending and receiving.
fn call(node: &Node, events: &mut Events, bind: IpAddr) -> [Caller; 2] {
    call_as(node, events, bind, |caller| caller)
}

/// The same, of changed callers.
fn call_as(
    node: &Node,
    events: &mut Events,
    bind: IpAddr,
    change: impl Fn(Caller) -> Caller,
) -> [Caller; 2] {
    let handle = node.handle();
    let room = handle.mint_room();
    handle.send(room, open(room)).unwrap();
    [0, 1]
        .map(|_| {
            let session = handle.mint_session();
            handle.send(room, join(room, session)).unwrap();
            change(Caller::new(handle.clone(), room, session, bind))
        })
        .map(|mut caller| {
            run(std::slice::from_mut(&mut caller), events, "keys", |all| all[0].connected());
            caller
        })
}

/// Media of both has come to both, from now on.
fn media_crosses(callers: &mut [Caller], events: &mut Events) {
    let before: Vec<_> = callers.iter().map(|caller| caller.heard()).collect();
    run(callers, events, "media both ways", |all| {
        all.iter().zip(&before).all(|(caller, before)| caller.heard() >= before + 50)
    });
}

#[test]
fn two_persons_exchange_media() {
    let (node, receiver) = Node::start(config()).unwrap();
    let mut events = Events::new(receiver);
    let mut callers = call(&node, &mut events, IpAddr::V4(Ipv4Addr::LOCALHOST));
    media_crosses(&mut callers, &mut events);
    let counters = node.handle().counters();
    assert!(counters.rtp_packets_in >= 100 && counters.rtp_packets_out >= 100, "{counters:?}");
    assert_eq!((counters.rooms, counters.participants), (1, 2), "{counters:?}");
    assert_eq!(counters.send_failures, 0, "{counters:?}");
    let port = node.ports()[0];
    node.stop();
    UdpSocket::bind((Ipv4Addr::LOCALHOST, port)).expect("the port is free after the stop");
}

#[test]
fn an_unspecified_ipv6_address_serves_both_families() {
    let bind = IpAddr::V6(Ipv6Addr::UNSPECIFIED);
    if UdpSocket::bind((Ipv6Addr::LOCALHOST, 0)).is_err() {
        return; // a machine without IPv6
    }
    for local in [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)] {
        let (node, receiver) =
            Node::start(NodeConfig { bind, advertise: vec![local], ..config() }).unwrap();
        let mut events = Events::new(receiver);
        let mut callers = call(&node, &mut events, local);
        media_crosses(&mut callers, &mut events);
    }
}

#[test]
fn media_crosses_over_tcp_and_another_connection_takes_over() {
    let (node, receiver) = Node::start(NodeConfig { tcp: true, shards: 2, ..config() }).unwrap();
    let mut events = Events::new(receiver);
    let bind = IpAddr::V4(Ipv4Addr::LOCALHOST);
    for _ in 0..2 {
        let mut callers = call_as(&node, &mut events, bind, Caller::over_tcp);
        media_crosses(&mut callers, &mut events);
        callers[0].reconnect();
        media_crosses(&mut callers, &mut events);
    }
    let counters = node.handle().counters();
    assert_eq!((counters.tcp_refused, counters.tcp_dropped), (0, 0), "{counters:?}");
    let (port, stop) = (node.ports()[0], Instant::now());
    node.stop();
    assert!(stop.elapsed() < Duration::from_secs(2));
    std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, port)).expect("the port is free");
}

/// Serves a listener that all shards share, as the program's port 443 is.
fn share_door(listener: std::net::TcpListener, node: &Node) {
    let handle = node.handle();
    listener.set_nonblocking(true).unwrap();
    let serve = async move {
        let listener = tokio::net::TcpListener::from_std(listener).unwrap();
        loop {
            let (mut stream, remote) = listener.accept().await.unwrap();
            let handle = handle.clone();
            tokio::spawn(async move {
                // As somebody who had to look what it is.
                let mut peeked = [0; 10];
                stream.read_exact(&mut peeked).await.unwrap();
                handle.accept_tcp(stream, remote, Bytes::copy_from_slice(&peeked)).await;
            });
        }
    };
    std::thread::spawn(|| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.unwrap().block_on(serve);
    });
}

#[test]
fn a_shared_tcp_port_finds_the_shard() {
    let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let door = listener.local_addr().unwrap();
    let shared_tcp = Some(door.port());
    let (node, receiver) = Node::start(NodeConfig { shards: 3, shared_tcp, ..config() }).unwrap();
    share_door(listener, &node);
    let mut events = Events::new(receiver);
    let bind = IpAddr::V4(Ipv4Addr::LOCALHOST);
    for _ in 0..3 {
        let mut callers = call_as(&node, &mut events, bind, |caller| caller.through(door));
        media_crosses(&mut callers, &mut events);
        callers[1].reconnect();
        media_crosses(&mut callers, &mut events);
    }
    assert_eq!(node.handle().counters().tcp_refused, 0);
    for opening in [&b"\0\x14 this is no check of anybody"[..], &[0xFF; 40], &[0; 12]] {
        let mut stranger = TcpStream::connect(door).unwrap();
        stranger.write_all(opening).unwrap();
        stranger.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        let mut nothing = Vec::new();
        let _reset = std::io::Read::read_to_end(&mut stranger, &mut nothing);
        assert!(nothing.is_empty());
    }
    assert_eq!(node.handle().counters().tcp_refused, 3);
}

/// Where clients of relays wait for what the node sends them.
type Back = Arc<Mutex<HashMap<u64, Sender<(SocketAddr, Vec<u8>)>>>>;

struct Outlet(Back);

impl RelayOutlet for Outlet {
    fn send(&mut self, relay: u64, from: SocketAddr, segment: usize, train: Bytes) -> u64 {
        let back = self.0.lock().unwrap();
        let Some(client) = back.get(&relay) else { return train.len().div_ceil(segment) as u64 };
        train.chunks(segment).filter(|data| client.send((from, data.to_vec())).is_err()).count()
            as u64
    }
}

#[test]
fn media_crosses_by_relays_until_they_end() {
    let back = Back::default();
    let outlets = {
        let back = Arc::clone(&back);
        Outlets::new(move |_| Box::new(Outlet(Arc::clone(&back))))
    };
    let (node, receiver) = Node::start(NodeConfig { shards: 2, outlets, ..config() }).unwrap();
    let mut events = Events::new(receiver);
    let numbers = std::cell::Cell::new(0);
    let bind = IpAddr::V4(Ipv4Addr::LOCALHOST);
    // Nobody listens at a relayed address, but the machine may: what comes from there is forged.
    let socket = UdpSocket::bind((bind, 0)).unwrap();
    let claimed = socket.local_addr().unwrap();
    for _ in 0..2 {
        let mut callers = call_as(&node, &mut events, bind, |caller| {
            numbers.set(numbers.get() + 1);
            let number = numbers.get();
            let address = SocketAddr::new(bind, if number == 1 { claimed.port() } else { 9 });
            let (sender, back_) = std::sync::mpsc::channel();
            back.lock().unwrap().insert(number, sender);
            let inlet = node.handle().relay_inlet();
            caller.over_relay(Relayed { number, address, inlet, back: back_ })
        });
        media_crosses(&mut callers, &mut events);
        if numbers.get() == 2 {
            assert_eq!(node.handle().counters().relay_dropped, 0);
            let server = callers[0].server().unwrap();
            socket.send_to(callers[0].last_sent(), server).unwrap();
            run(&mut callers, &mut events, "the claim is refused", |_| {
                node.handle().counters().dropped_claimed == 1
            });
        }
    }
    assert_eq!(node.handle().counters().dropped_unknown, 0, "{:?}", node.handle().counters());
    let mut inlet = node.handle().relay_inlet();
    (1..=4).for_each(|number| inlet.closed(number));
    inlet.flush();
    let unknown = [0x80; 40];
    for number in 1..=4 {
        for port in node.ports() {
            inlet.push(number, claimed, SocketAddr::new(bind, port), &unknown);
        }
    }
    inlet.flush();
    let deadline = Instant::now() + Duration::from_secs(10);
    while node.handle().counters().dropped_unknown < 8 {
        assert!(Instant::now() < deadline, "{:?}", node.handle().counters());
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn strangers_on_tcp_are_cut_off_and_harm_nobody() {
    let (node, receiver) = Node::start(NodeConfig { tcp: true, ..config() }).unwrap();
    let mut events = Events::new(receiver);
    let bind = IpAddr::V4(Ipv4Addr::LOCALHOST);
    let mut callers = call_as(&node, &mut events, bind, Caller::over_tcp);
    let server = callers[0].server().unwrap();
    let mut rng = Rng::from_seed([8; 32]);
    let mut binding = vec![0, 20, 0, 1, 0, 0, 0x21, 0x12, 0xA4, 0x42];
    binding.resize(22, 7);
    let openings: [&[u8]; 5] =
        [b"GET / HTTP/1.1\r\n\r\n", &[0xFF; 300], &[0, 3, 1, 2, 3], &[0x16, 3, 1, 0, 9], &binding];
    for round in 0..50 {
        let mut stranger = TcpStream::connect(server).unwrap();
        let _ = stranger.write_all(openings[round % openings.len()]);
        let mut noise = vec![0; 2_000];
        rng.fill_bytes(&mut noise);
        let _ = stranger.write_all(&noise);
        if round % 7 == 0 {
            // Half a frame, and never the rest.
            let _ = stranger.write_all(&[1, 0, 0]);
        }
    }
    media_crosses(&mut callers, &mut events);
    let idle: Vec<_> = (0..80).map(|_| TcpStream::connect(server).unwrap()).collect();
    media_crosses(&mut callers, &mut events);
    let counters = node.handle().counters();
    assert!(counters.tcp_refused >= 40, "{counters:?}");
    drop(idle);
    media_crosses(&mut callers, &mut events);
}

/// Whether the other side closes, rather than taking more and more.
fn is_cut_off(stranger: &mut TcpStream, bytes: &[u8]) -> bool {
    stranger.set_write_timeout(Some(Duration::from_secs(1))).unwrap();
    let start = Instant::now();
    while start.elapsed() < Duration::from_secs(5) {
        if stranger.write_all(bytes).is_err() {
            return true;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    false
}

#[test]
fn frames_that_say_nothing_prove_nothing() {
    let (node, _receiver) = Node::start(NodeConfig { tcp: true, ..config() }).unwrap();
    let server = SocketAddr::from((Ipv4Addr::LOCALHOST, node.ports()[0]));
    let mut binding = vec![0, 20, 0, 1, 0, 0, 0x21, 0x12, 0xA4, 0x42];
    binding.resize(22, 7);
    for opening in [&[][..], &binding] {
        for flood in [&[0, 0][..], &[0, 1, 7]] {
            let mut stranger = TcpStream::connect(server).unwrap();
            stranger.write_all(opening).unwrap();
            assert!(is_cut_off(&mut stranger, flood), "{flood:?} after {opening:?}");
        }
    }
    assert_eq!(node.handle().counters().tcp_refused, 4);
    assert!(node.handle().counters().dropped_unknown <= 2 * 16, "{:?}", node.handle().counters());
}

#[test]
fn rooms_on_all_shards_work() {
    let (node, receiver) = Node::start(NodeConfig { shards: 3, ..config() }).unwrap();
    let mut events = Events::new(receiver);
    let ports = node.ports();
    assert_eq!(ports.len(), 3);
    let mut used = Vec::new();
    for _ in 0..3 {
        let mut callers = call(&node, &mut events, IpAddr::V4(Ipv4Addr::LOCALHOST));
        media_crosses(&mut callers, &mut events);
        used.push(callers[0].server().unwrap().port());
    }
    used.sort_unstable();
    let mut ports = ports;
    ports.sort_unstable();
    assert_eq!(used, ports, "rooms go round the shards");
    assert_eq!(node.handle().counters().rooms, 3);
}

/// A datagram that a stranger may send: noise, or something that looks like one of ours.
fn hostile(rng: &mut Rng, kind: u32, victim: &[u8]) -> Vec<u8> {
    // Mostly ordinary sizes, now and then nothing at all or all that UDP can carry.
    let len = match rng.next_u32() % 100 {
        0 => 0,
        1 => 65_000,
        len => len * 14,
    };
    let mut bytes = vec![0; len as usize];
    rng.fill_bytes(&mut bytes);
    let head: &[u8] = match kind % 8 {
        0 => &[],
        1 => &[0, 1, 0, 60, 0x21, 0x12, 0xa4, 0x42], // a Binding request
        2 => &[1, 1, 0, 8, 0x21, 0x12, 0xa4, 0x42],  // a Binding response
        3 => &[0x80, 111],                           // RTP
        4 => &[0x90, 96, 0, 1, 0, 0, 0, 1, 0, 0, 0, 1, 0xbe, 0xde, 0xff, 0xff],
        5 => &[0x81, 201, 0xff, 0xff], // a receiver report
        6 => &[22, 0xfe, 0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff], // a handshake record
        _ => victim,
    };
    let shared = head.len().min(bytes.len());
    bytes[..shared].copy_from_slice(&head[..shared]);
    bytes
}

#[test]
fn strangers_disturb_nobody() {
    let (node, receiver) = Node::start(config()).unwrap();
    let mut events = Events::new(receiver);
    let mut callers = call(&node, &mut events, IpAddr::V4(Ipv4Addr::LOCALHOST));
    media_crosses(&mut callers, &mut events);
    let before = node.handle().counters();
    let stranger = UdpSocket::bind("127.0.0.1:0").unwrap();
    let target = SocketAddr::new(config().bind, node.ports()[0]);
    let mut rng = Rng::from_seed([3; 32]);
    let victim = callers[0].last_sent().to_vec();
    for round in 0..40 {
        for kind in 0..500 {
            let _ = stranger.send_to(&hostile(&mut rng, kind, &victim), target);
            // The same from a proved path: only the tag tells.
            callers[1].send_raw(&hostile(&mut rng, kind, &victim));
        }
        if round % 10 == 0 {
            media_crosses(&mut callers, &mut events);
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    media_crosses(&mut callers, &mut events);
    let after = node.handle().counters();
    let dropped = |c: &bedside_sfu::core::counters::Counters| {
        c.dropped_unknown
            + c.dropped_unauthentic
            + c.dropped_malformed
            + c.dropped_replayed
            + c.dropped_other
    };
    assert!(dropped(&after) > dropped(&before) + 10_000, "{before:?} {after:?}");
    assert_eq!((after.rooms, after.participants), (1, 2), "{after:?}");
    assert_eq!(after.room_panics, 0);
}

#[test]
fn a_full_command_queue_is_busy_and_recovers() {
    let (node, receiver) = Node::start(NodeConfig { commands: 2, ..config() }).unwrap();
    let _events = Events::new(receiver);
    let handle = node.handle();
    let room = handle.mint_room();
    let mut refused = 0;
    for _ in 0..200_000 {
        if handle.send(room, open(room)) == Err(Busy) {
            refused += 1;
        }
    }
    assert!(refused > 0, "a queue of two took 200,000 commands");
    assert_eq!(handle.counters().commands_refused, refused);
    let deadline = Instant::now() + Duration::from_secs(5);
    while handle.send(room, Command::CloseRoom { room, reason: LeaveReason::RoomDeleted }).is_err()
    {
        assert!(Instant::now() < deadline, "the queue never moved");
        std::thread::yield_now();
    }
    while handle.counters().rooms != 0 {
        assert!(Instant::now() < deadline, "the room was not closed");
        std::thread::yield_now();
    }
}

#[test]
fn lost_events_end_in_the_whole_truth() {
    let (node, mut receiver) = Node::start(NodeConfig { events: 8, ..config() }).unwrap();
    let handle = node.handle();
    let room = handle.mint_room();
    handle.send(room, open(room)).unwrap();
    let sessions: Vec<_> = (0..30).map(|_| handle.mint_session()).collect();
    for session in &sessions {
        handle.send(room, join(room, *session)).unwrap();
    }
    let deadline = Instant::now() + Duration::from_secs(5);
    while handle.counters().participants < 30 || handle.counters().events_lost == 0 {
        assert!(Instant::now() < deadline, "{:?}", handle.counters());
        std::thread::sleep(Duration::from_millis(1));
    }
    let rooms = loop {
        match receiver.try_recv() {
            Ok(Event::Resync { shard: 0, shards: 1, rooms }) => break rooms,
            Ok(Event::Resync { shard, shards, .. }) => panic!("shard {shard} of {shards}"),
            Ok(Event::Session { .. } | Event::Node { .. }) => {}
            Err(_) => std::thread::sleep(Duration::from_millis(1)),
        }
        assert!(Instant::now() < deadline, "no resync came");
    };
    assert_eq!(rooms.len(), 1);
    assert_eq!(rooms[0].room, room);
    let mut named: Vec<_> =
        rooms[0].participants.iter().filter_map(|(_, session)| *session).collect();
    named.sort_unstable();
    assert_eq!(named, sessions);
    assert!(handle.counters().resyncs >= 1);
    // Events flow again.
    let late = handle.mint_session();
    handle.send(room, join(room, late)).unwrap();
    loop {
        match receiver.try_recv() {
            Ok(Event::Session { session, event: SessionEvent::Joined { others, .. } })
                if session == late =>
            {
                assert_eq!(others.len(), 30);
                break;
            }
            Ok(_) => {}
            Err(_) => std::thread::sleep(Duration::from_millis(1)),
        }
        assert!(Instant::now() < deadline, "no event after the resync");
    }
}

#[test]
fn a_taken_port_is_named() {
    let taken = UdpSocket::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    let error = Node::start(NodeConfig { first_port: port, ..config() }).unwrap_err();
    assert!(matches!(error, StartError::PortTaken { port: named, .. } if named == port));
    assert!(error.to_string().contains(&port.to_string()), "{error}");
    // Also when only the second shard's port is taken.
    let error = Node::start(NodeConfig { first_port: port - 1, shards: 2, ..config() });
    assert!(error.unwrap_err().to_string().contains(&port.to_string()));
}

#[test]
fn what_cannot_work_is_refused_at_the_start() {
    let taken = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let first_port = taken.local_addr().unwrap().port();
    let error = Node::start(NodeConfig { tcp: true, first_port, ..config() }).unwrap_err();
    assert!(matches!(error, StartError::Listen { port, .. } if port == first_port), "{error}");
    drop(taken);
    let start = |config| Node::start(config).map(|_| ()).unwrap_err();
    let error = start(NodeConfig { shards: 0, ..config() });
    assert!(matches!(error, StartError::NoShard), "{error}");
    let error = start(NodeConfig { first_port: 65_535, shards: 2, ..config() });
    assert!(matches!(error, StartError::Ports { .. }), "{error}");
    let bind = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
    let error = start(NodeConfig { bind, ..config() });
    assert!(matches!(error, StartError::NoAddress(_)), "{error}");
}

#[test]
fn a_stopped_node_takes_no_commands() {
    let (node, _receiver) = Node::start(config()).unwrap();
    let handle = node.handle();
    let room = handle.mint_room();
    handle.send(room, open(room)).unwrap();
    handle.send(room, Command::Shutdown).unwrap();
    assert!(handle.is_running());
    node.stop();
    assert!(!handle.is_running());
    assert_eq!(handle.counters().rooms, 0, "what came before the stop was carried out");
    assert_eq!(handle.send(room, open(room)), Err(Busy));
}
