//! TURN (RFC 8656) for one purpose: to bring media to our own sockets through networks that let
//! nothing else out.
//!
//! **Relay-to-self.** An allocation has no socket. What a client sends to a permitted peer is
//! handed to [`Media`] in this process, and what comes back enters by [`Backhaul`]. The only peers
//! are the media addresses of [`Config::peers`], so there is nothing else that could be reached.
//!
//! - Pure: `message` (codec), `auth` (credentials, nonces), `quota` (who may have how many),
//!   `server` (the state machine). Time, keys and randomness are arguments.
//! - Around them: `udp` (a thread per socket, in batches), `stream` (TCP, and what somebody else
//!   has decrypted), and [`Node`], which starts them and is asked to let participants in.
//!
//! A credential is good for one participant, and only between [`Node::allow`] and [`Node::free`].

pub mod auth;
mod counters;
pub mod message;
mod node;
mod outbox;
mod pace;
pub mod quota;
pub mod server;
mod socket;
mod stream;
mod udp;

use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;

pub use self::auth::{Secret, credential};
pub use self::counters::Counters;
pub use self::node::{Backhaul, Node, StartError, Streams};

/// Number of an allocation; unique for the process' life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Relay(pub u64);

/// Where datagrams go that clients send to permitted peers. Each listener has its own, and calls it
/// on its own thread.
pub trait Media: Send + 'static {
    /// One datagram, from a relayed address to one of [`Config::peers`].
    fn deliver(&mut self, relay: Relay, from: SocketAddr, to: SocketAddr, data: &[u8]);
    /// No more for now: whoever waits for what was delivered or closed may be woken.
    fn flush(&mut self);
    /// The allocation is gone; nothing more comes from it. [`Media::flush`] follows.
    fn closed(&mut self, _relay: Relay) {}
}

/// A longer realm makes the answer to the shortest request longer than strangers get it.
pub const MAX_REALM: usize = 20;

/// How a stream came to us.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Transport {
    /// In clear.
    Tcp,
    /// Decrypted by whoever hands it over.
    Tls,
}

/// What a node is made of.
#[derive(Clone, Debug)]
pub struct Config {
    /// REALM in answers; part of every key. [`MAX_REALM`] bytes at the most.
    pub realm: String,
    /// Makes and checks credentials.
    pub secret: Secret,
    /// Our media addresses as clients know them: the only peers that there are.
    pub peers: Vec<SocketAddr>,
    /// What XOR-RELAYED-ADDRESS shows, the first of each family. A family that is not here cannot
    /// be allocated.
    pub relayed: Vec<IpAddr>,
    /// Ports of relayed addresses. Nothing listens there: they only have to differ.
    pub ports: RangeInclusive<u16>,
    /// How much of everything one client may have.
    pub quotas: Quotas,
}

impl Config {
    /// The usual ports and quotas.
    pub fn new(secret: Secret, peers: Vec<SocketAddr>, relayed: Vec<IpAddr>) -> Self {
        let (realm, quotas) = ("bedside".to_owned(), Quotas::default());
        // The range of RFC 8656 §7.2.
        Self { realm, secret, peers, relayed, ports: 49_152..=65_535, quotas }
    }
}

/// How much of everything one client may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quotas {
    /// Allocations of one participant. A browser makes one per network interface and URL, and
    /// makes new ones before it gives up the old.
    pub allocations_of_participant: u32,
    /// Allocations from one address; many people may share it.
    pub allocations_from_address: u32,
    /// Answers per second to one address that has proved nothing, over UDP.
    pub strangers_per_second: u32,
    /// Streams open at once.
    pub streams: usize,
    /// Streams from one address, of which a quarter may be without an allocation.
    pub streams_from_address: usize,
}

impl Default for Quotas {
    fn default() -> Self {
        Self {
            allocations_of_participant: 12,
            allocations_from_address: 256,
            strangers_per_second: 10,
            streams: 4_096,
            streams_from_address: 256,
        }
    }
}
