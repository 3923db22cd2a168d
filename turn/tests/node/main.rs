//! A whole node on loopback: what clients see of it, and coturn's own tools against it.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    missing_docs,
    unreachable_pub,
    reason = "tests may fail loudly"
)]

mod client;
mod coturn;
mod flood;
mod peers;
mod relaying;
mod sockets;
mod streams;

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant};

use bedside_turn::{Backhaul, Config, Media, Node, Relay, Secret};
use bytes::Bytes;

/// The media address of most tests. Nothing listens there.
pub const PEER: &str = "127.0.0.1:40000";
/// And its like.
pub const PEER_V6: &str = "[::1]:40000";

/// An address that is written well.
pub fn address(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

/// What credentials are made with.
pub fn secret() -> Secret {
    Secret::new(b"a secret of tests")
}

/// A node's usual configuration.
pub fn config() -> Config {
    let peers = vec![address(PEER), address(PEER_V6)];
    let relayed = peers.iter().map(SocketAddr::ip).collect();
    let mut config = Config::new(secret(), peers, relayed);
    config.quotas.strangers_per_second = 1_000;
    config
}

/// What media was handed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delivered {
    pub relay: Relay,
    pub from: SocketAddr,
    pub to: SocketAddr,
    pub data: Vec<u8>,
}

/// Media that remembers, and sends everything back where it came from.
#[derive(Clone, Default)]
pub struct Mirror {
    pub seen: Arc<Mutex<Vec<Delivered>>>,
    pub closed: Arc<Mutex<Vec<Relay>>>,
    /// Told, and not handed over yet.
    closing: Vec<Relay>,
    pub back: Arc<OnceLock<Backhaul>>,
}

impl Media for Mirror {
    fn deliver(&mut self, relay: Relay, from: SocketAddr, to: SocketAddr, data: &[u8]) {
        // Before the client can know.
        self.seen.lock().unwrap().push(Delivered { relay, from, to, data: data.to_vec() });
        if let Some(back) = self.back.get() {
            back.send(relay, to, data.len().max(1), Bytes::copy_from_slice(data));
        }
    }

    fn flush(&mut self) {
        self.closed.lock().unwrap().append(&mut self.closing);
    }

    fn closed(&mut self, relay: Relay) {
        self.closing.push(relay);
    }
}

/// A node whose media is a mirror, with one UDP socket.
pub fn mirrored(config: Config) -> (Node, Mirror) {
    let mirror = Mirror::default();
    let media = mirror.clone();
    let node = Node::start(config, vec![address("127.0.0.1:0")], move |_| Box::new(media.clone()));
    let node = node.unwrap();
    mirror.back.set(node.backhaul()).unwrap();
    (node, mirror)
}

/// Waits until it is so.
pub fn eventually(what: &str, mut is_so: impl FnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(30);
    while !is_so() {
        assert!(Instant::now() < end, "never: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}
