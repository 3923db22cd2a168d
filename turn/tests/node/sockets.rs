//! Real relay sockets, for the tools of others: media that sends what it is handed to the network
//! and brings the answers back. Only tests have this; the server's own code opens no socket for an
//! allocation.

use std::collections::HashMap;
use std::net::{SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use bedside_turn::{Backhaul, Config, Media, Node, Relay};
use bytes::Bytes;

use crate::address;

/// One relayed address with a socket behind it.
struct Relayed {
    relay: Relay,
    socket: UdpSocket,
    gone: Arc<AtomicBool>,
}

impl Drop for Relayed {
    fn drop(&mut self) {
        self.gone.store(true, Ordering::Relaxed);
    }
}

/// Media with sockets.
#[derive(Clone, Default)]
pub struct Sockets {
    open: Arc<Mutex<HashMap<SocketAddr, Relayed>>>,
    back: Arc<OnceLock<Backhaul>>,
}

impl Sockets {
    fn open(&self, relay: Relay, at: SocketAddr) -> Relayed {
        let socket = UdpSocket::bind(at).unwrap();
        socket.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
        let gone = Arc::new(AtomicBool::new(false));
        let (reader, ended, back) =
            (socket.try_clone().unwrap(), Arc::clone(&gone), Arc::clone(&self.back));
        std::thread::spawn(move || {
            let mut buffer = vec![0; 65_536];
            while !ended.load(Ordering::Relaxed) {
                if let Ok((length, peer)) = reader.recv_from(&mut buffer) {
                    let train = Bytes::copy_from_slice(&buffer[..length]);
                    back.get().unwrap().send(relay, peer, length.max(1), train);
                }
            }
        });
        Relayed { relay, socket, gone }
    }
}

impl Media for Sockets {
    fn deliver(&mut self, relay: Relay, from: SocketAddr, to: SocketAddr, data: &[u8]) {
        let mut open = self.open.lock().unwrap();
        // A port that was given again has another allocation.
        if open.get(&from).is_some_and(|relayed| relayed.relay != relay) {
            open.remove(&from);
        }
        let relayed = open.entry(from).or_insert_with(|| self.open(relay, from));
        let _ = relayed.socket.send_to(data, to);
    }

    fn flush(&mut self) {}

    fn closed(&mut self, relay: Relay) {
        self.open.lock().unwrap().retain(|_, relayed| relayed.relay != relay);
    }
}

/// A node that relays to these peers by real sockets, with one UDP socket.
pub fn start(mut config: Config, peers: Vec<SocketAddr>) -> Node {
    config.peers = peers;
    let sockets = Sockets::default();
    let media = sockets.clone();
    let udp = vec![address("127.0.0.1:0")];
    let node = Node::start(config, udp, move |_| Box::new(media.clone())).unwrap();
    sockets.back.set(node.backhaul()).unwrap();
    node
}
