//! The state machine of one listener (RFC 8656): allocations, permissions, channels.
//!
//! Whoever receives bytes from a client calls [`Server::pass`]: most of them are media, which it
//! unwraps without asking anybody. What it calls a request goes to [`Server::answer`], together
//! with the node's ledger. What comes back for an allocation is wrapped by [`Server::wrap`]. Time
//! is an argument; nothing here waits, sends or locks.

mod requests;
#[cfg(test)]
mod tests;

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustc_hash::FxHashMap;
use slab::Slab;

use crate::auth::Checker;
use crate::counters::Counters;
use crate::message::{self, Class, HEADER, Message, Method, attribute};
use crate::quota::{Family, Lease, Ledger, PerFamily, Strangers};
use crate::{Config, Relay};

/// How long a permission lasts (RFC 8656 §9).
const PERMISSION: Duration = Duration::from_secs(300);
/// How long a channel lasts (RFC 8656 §12).
const CHANNEL: Duration = Duration::from_secs(600);
/// The first two bytes of a Send indication.
const SEND: [u8; 2] = [0x00, 0x16];

/// The time, on both clocks that are needed.
#[derive(Clone, Copy, Debug)]
pub struct Now {
    /// For everything that lasts.
    pub at: Instant,
    /// For credentials and nonces: seconds since 1970.
    pub unix: u64,
}

/// Who talks to which address of ours. A listener speaks one protocol, which makes it five.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Tuple {
    /// The client's address.
    pub client: SocketAddr,
    /// Ours.
    pub server: SocketAddr,
}

/// What all listeners of a node have in common.
#[derive(Debug)]
pub struct Terms {
    checker: Checker,
    peers: Box<[SocketAddr]>,
    relayed: PerFamily<Option<IpAddr>>,
    strangers_per_second: u32,
    seed: u64,
}

impl Terms {
    /// As configured.
    pub fn new(config: &Config) -> Self {
        let mut relayed = PerFamily::default();
        for family in Family::BOTH {
            let first = config.relayed.iter().find(|ip| Family::of(**ip) == family);
            *relayed.get_mut(family) = first.copied();
        }
        let seed = aws_lc_rs::hmac::sign(&config.secret.derive("strangers"), b"");
        let seed = seed.as_ref().first_chunk().map_or(0, |bytes| u64::from_be_bytes(*bytes));
        Self {
            checker: Checker::new(config.realm.clone(), config.secret.clone()),
            peers: config.peers.clone().into(),
            relayed,
            strangers_per_second: config.quotas.strangers_per_second,
            seed,
        }
    }
}

/// What bytes from a client are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Passage<'d> {
    /// For a media address of ours.
    Media {
        /// Whose.
        relay: Relay,
        /// The client's relayed address.
        from: SocketAddr,
        /// The media address.
        to: SocketAddr,
        /// What was sent.
        data: &'d [u8],
    },
    /// Perhaps a request: [`Server::answer`] knows.
    Request,
    /// Nothing, or nothing that this client may do; counted.
    Dropped,
}

/// Where a wrapped train goes, and in what pieces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wrapped {
    /// From which address of ours to which client.
    pub tuple: Tuple,
    /// Bytes of each datagram but the last, which may be shorter.
    pub segment: usize,
}

/// One relayed address.
#[derive(Clone, Copy, Debug)]
struct Relayed {
    address: SocketAddr,
    expires: Instant,
}

#[derive(Clone, Copy, Debug)]
struct Channel {
    number: u16,
    peer: SocketAddr,
    expires: Instant,
}

/// One client's allocation.
#[derive(Debug)]
struct Allocation {
    tuple: Tuple,
    lease: Lease,
    relayed: PerFamily<Option<Relayed>>,
    /// Of the request that made it, so that the same one gets the same answer.
    transaction: [u8; 12],
    lifetime: u32,
    /// Asked for, too, and not to be had.
    missing: Option<Family>,
    permissions: Vec<(IpAddr, Instant)>,
    channels: Vec<Channel>,
}

impl Allocation {
    fn relayed_for(&self, now: Instant, peer: IpAddr) -> Option<SocketAddr> {
        let relayed = (*self.relayed.get(Family::of(peer)))?;
        (relayed.expires > now).then_some(relayed.address)
    }

    fn permits(&self, now: Instant, peer: IpAddr) -> bool {
        self.permissions.iter().any(|(ip, expires)| *ip == peer && *expires > now)
    }

    fn permit(&mut self, now: Instant, peer: IpAddr) {
        let expires = now + PERMISSION;
        match self.permissions.iter_mut().find(|(ip, _)| *ip == peer) {
            Some(permission) => permission.1 = expires,
            None => self.permissions.push((peer, expires)),
        }
    }

    fn has_expired(&self, now: Instant) -> bool {
        let alive = |family: Family| self.relayed.get(family).is_some_and(|r| r.expires > now);
        !Family::BOTH.into_iter().any(alive)
    }
}

/// The allocations of one listener.
#[derive(Debug)]
pub struct Server {
    terms: Arc<Terms>,
    listener: u8,
    allocations: Slab<Allocation>,
    places: FxHashMap<Tuple, usize>,
    relays: FxHashMap<u64, usize>,
    /// The allocation of the last datagram: they come in batches.
    last: Option<(Tuple, usize)>,
    /// Over UDP only: elsewhere nobody can ask in another's name.
    strangers: Option<Strangers>,
    /// Whether messages are padded as on a stream.
    stream: bool,
    indications: u64,
    closed: Vec<Relay>,
    /// What it has counted.
    pub counters: Counters,
}

impl Server {
    /// For datagrams. The numbers of its allocations end with `listener`.
    pub fn for_datagrams(now: Instant, terms: Arc<Terms>, listener: u8) -> Self {
        let strangers = Strangers::new(now, terms.strangers_per_second, terms.seed);
        Self { strangers: Some(strangers), ..Self::for_stream(terms, listener).unpadded() }
    }

    /// For one stream.
    pub fn for_stream(terms: Arc<Terms>, listener: u8) -> Self {
        Self {
            terms,
            listener,
            allocations: Slab::new(),
            places: FxHashMap::default(),
            relays: FxHashMap::default(),
            last: None,
            strangers: None,
            stream: true,
            indications: 0,
            closed: Vec::new(),
            counters: Counters::default(),
        }
    }

    fn unpadded(mut self) -> Self {
        self.stream = false;
        self
    }

    /// Looks what bytes from a client are, and unwraps media.
    pub fn pass<'d>(&mut self, now: Instant, tuple: Tuple, data: &'d [u8]) -> Passage<'d> {
        let passed = match data.first_chunk::<2>() {
            Some([0x40..=0x7F, _]) => self.pass_channel(now, tuple, data),
            Some(&SEND) => self.pass_indication(now, tuple, data),
            Some([0x00..=0x3F, _]) if data.len() >= HEADER => return Passage::Request,
            Some(_) | None => {
                self.counters.malformed += 1;
                return Passage::Dropped;
            }
        };
        let Some(passed) = passed else { return Passage::Dropped };
        self.counters.to_media += 1;
        if let Passage::Media { data, .. } = passed {
            self.counters.to_media_bytes += data.len() as u64;
        }
        passed
    }

    fn pass_channel<'d>(
        &mut self,
        now: Instant,
        tuple: Tuple,
        bytes: &'d [u8],
    ) -> Option<Passage<'d>> {
        let Some((number, data)) = message::parse_channel_data(bytes) else {
            self.counters.malformed += 1;
            return None;
        };
        let found = self.find(tuple).and_then(|allocation| {
            let alive = |c: &&Channel| c.number == number && c.expires > now;
            let to = allocation.channels.iter().find(alive)?.peer;
            let from = allocation.relayed_for(now, to.ip())?;
            Some(Passage::Media { relay: allocation.lease.relay, from, to, data })
        });
        if found.is_none() {
            self.counters.no_permission += 1;
        }
        found
    }

    fn pass_indication<'d>(
        &mut self,
        now: Instant,
        tuple: Tuple,
        bytes: &'d [u8],
    ) -> Option<Passage<'d>> {
        let read = Message::parse(bytes).ok().and_then(|message| {
            let known = [
                attribute::XOR_PEER_ADDRESS,
                attribute::DATA,
                attribute::DONT_FRAGMENT,
                attribute::REQUESTED_ADDRESS_FAMILY,
            ];
            // RFC 8489 §6.3.2: an indication with something that has to be understood is no
            // indication for us.
            let understood = message.unknown(&known).next().is_none();
            let to = message.address(attribute::XOR_PEER_ADDRESS)?;
            let data = message.attribute(attribute::DATA)?;
            understood.then_some((to, data))
        });
        let Some((to, data)) = read else {
            self.counters.malformed += 1;
            return None;
        };
        let ours = self.terms.peers.contains(&to);
        let found = self.find(tuple).filter(|_| ours).and_then(|allocation| {
            let from = allocation.relayed_for(now, to.ip())?;
            let permitted = allocation.permits(now, to.ip());
            let relay = allocation.lease.relay;
            permitted.then_some(Passage::Media { relay, from, to, data })
        });
        if found.is_none() {
            self.counters.no_permission += 1;
        }
        found
    }

    fn find(&mut self, tuple: Tuple) -> Option<&Allocation> {
        let place = match self.last {
            Some((last, place)) if last == tuple => place,
            Some(_) | None => {
                let place = *self.places.get(&tuple)?;
                self.last = Some((tuple, place));
                place
            }
        };
        self.allocations.get(place)
    }

    /// Appends datagrams of `segment` bytes each (the last may be shorter) from a media address as
    /// the client of an allocation has to see them. `None`: not for this client, or not now.
    pub fn wrap(
        &mut self,
        now: Instant,
        relay: Relay,
        peer: SocketAddr,
        segment: usize,
        train: &[u8],
        out: &mut Vec<u8>,
    ) -> Option<Wrapped> {
        let segment = segment.max(1);
        let datagrams = train.len().div_ceil(segment) as u64;
        let wrapped = self.wrap_all(now, relay, peer, segment, train, out);
        if wrapped.is_some() {
            self.counters.to_clients += datagrams;
            self.counters.to_clients_bytes += train.len() as u64;
        } else {
            self.counters.no_way_back += datagrams;
        }
        wrapped
    }

    fn wrap_all(
        &mut self,
        now: Instant,
        relay: Relay,
        peer: SocketAddr,
        segment: usize,
        train: &[u8],
        out: &mut Vec<u8>,
    ) -> Option<Wrapped> {
        let allocation = self.allocations.get(*self.relays.get(&relay.0)?)?;
        allocation.relayed_for(now, peer.ip())?;
        let tuple = allocation.tuple;
        let longest = u16::try_from(segment.min(train.len())).ok()?;
        let channel = allocation.channels.iter().find(|c| c.peer == peer && c.expires > now);
        if let Some(Channel { number, .. }) = channel {
            for data in train.chunks(segment) {
                let length = u16::try_from(data.len()).unwrap_or(longest);
                out.extend_from_slice(&message::channel_data_head(*number, length));
                out.extend_from_slice(data);
                if self.stream {
                    out.resize(out.len() + data.len().next_multiple_of(4) - data.len(), 0);
                }
            }
            return Some(Wrapped { tuple, segment: segment + 4 });
        }
        if !allocation.permits(now, peer.ip()) || longest > u16::MAX - 64 {
            return None;
        }
        let before = out.len();
        let mut whole = 0;
        for data in train.chunks(segment) {
            self.indications = self.indications.wrapping_add(1);
            let transaction = transaction(self.terms.seed, self.indications);
            message::push_data_indication(out, transaction, peer, data);
            whole = if whole == 0 { out.len() - before } else { whole };
        }
        Some(Wrapped { tuple, segment: whole })
    }

    /// Drops what has expired, and what belongs to participants who have left.
    pub fn sweep(&mut self, now: Instant, ledger: &mut Ledger) {
        let gone = |(_, allocation): &(usize, &Allocation)| {
            allocation.has_expired(now) || !ledger.is_good(&allocation.lease)
        };
        let gone: Vec<usize> = self.allocations.iter().filter(gone).map(|(at, _)| at).collect();
        for place in gone {
            self.remove(place, ledger);
        }
    }

    /// Drops everything.
    pub fn clear(&mut self, ledger: &mut Ledger) {
        let all: Vec<usize> = self.allocations.iter().map(|(at, _)| at).collect();
        for place in all {
            self.remove(place, ledger);
        }
    }

    /// Allocations that were dropped since the last call.
    pub fn closed(&mut self) -> impl Iterator<Item = Relay> {
        self.closed.drain(..)
    }

    /// The allocation of this client, if it has one.
    pub fn relay_of(&self, tuple: Tuple) -> Option<Relay> {
        let place = self.places.get(&tuple)?;
        self.allocations.get(*place).map(|allocation| allocation.lease.relay)
    }

    fn remove(&mut self, place: usize, ledger: &mut Ledger) {
        let Some(allocation) = self.allocations.try_remove(place) else { return };
        ledger.close(&allocation.lease);
        self.places.remove(&allocation.tuple);
        self.relays.remove(&allocation.lease.relay.0);
        self.closed.push(allocation.lease.relay);
        self.last = None;
        self.counters.allocations -= 1;
    }

    fn insert(&mut self, allocation: Allocation) -> usize {
        let (tuple, relay) = (allocation.tuple, allocation.lease.relay);
        let place = self.allocations.insert(allocation);
        self.places.insert(tuple, place);
        self.relays.insert(relay.0, place);
        self.counters.allocations += 1;
        self.counters.allocated += 1;
        place
    }
}

/// The transaction of an indication: nobody answers it, so it only has to differ.
fn transaction(seed: u64, number: u64) -> [u8; 12] {
    let mut bytes = [0; 12];
    let number = number.wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ seed;
    let spread = seed.to_be_bytes().into_iter().chain(number.to_be_bytes()).skip(4);
    for (to, from) in bytes.iter_mut().zip(spread) {
        *to = from;
    }
    bytes
}

/// What a request may ask for that has to be understood.
const UNDERSTOOD: [u16; 16] = [
    attribute::USERNAME,
    attribute::MESSAGE_INTEGRITY,
    attribute::CHANNEL_NUMBER,
    attribute::LIFETIME,
    attribute::XOR_PEER_ADDRESS,
    attribute::DATA,
    attribute::REALM,
    attribute::NONCE,
    attribute::REQUESTED_ADDRESS_FAMILY,
    attribute::EVEN_PORT,
    attribute::REQUESTED_TRANSPORT,
    attribute::DONT_FRAGMENT,
    attribute::MESSAGE_INTEGRITY_SHA256,
    attribute::PASSWORD_ALGORITHM,
    attribute::USERHASH,
    attribute::RESERVATION_TOKEN,
];

/// Is it a request that can be answered at all?
fn request(data: &[u8]) -> Option<Message<'_>> {
    let message = Message::parse(data).ok()?;
    let answerable = match message.method {
        Method::Binding
        | Method::Allocate
        | Method::Refresh
        | Method::CreatePermission
        | Method::ChannelBind => true,
        Method::Send | Method::Data => false,
    };
    (message.class == Class::Request && answerable).then_some(message)
}
