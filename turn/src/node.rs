//! A running TURN server: its listeners, and what is asked of it from outside.

use std::collections::HashMap;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::thread::JoinHandle;
use std::time::SystemTime;

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::sync::watch;

use crate::counters::{Counters, Published};
use crate::outbox::Train;
use crate::quota::Ledger;
use crate::server::{Terms, Tuple};
use crate::socket::Socket;
use crate::stream::{self, Inlet, Parties};
use crate::udp::{Gate, Listener};
use crate::{Config, MAX_REALM, Media, Relay, Transport};

/// The listener's number in allocations of streams; UDP sockets have those below.
pub(crate) const STREAMS: u8 = 255;

/// Why a node does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Someone else has the port.
    #[error("UDP {0} is taken")]
    PortTaken(SocketAddr),
    /// The address cannot be bound for another reason.
    #[error("cannot bind UDP {address}: {source}")]
    Bind {
        /// Where.
        address: SocketAddr,
        /// Why not.
        source: io::Error,
    },
    /// Nobody could be told it.
    #[error("the realm has no byte or more than {MAX_REALM}")]
    Realm,
    /// More sockets than allocations can tell apart.
    #[error("at most 255 UDP addresses")]
    TooMany,
    /// The system gives no thread or event descriptor.
    #[error("the system refuses {what}: {source}")]
    System {
        /// What was asked.
        what: &'static str,
        /// The system's words.
        source: io::Error,
    },
}

type MediaFactory = dyn Fn(usize) -> Box<dyn Media> + Send + Sync;

/// What all listeners share. Nothing of it is locked for a datagram but for reading.
pub(crate) struct House {
    pub(crate) terms: Arc<Terms>,
    ledger: Mutex<Ledger>,
    /// Goes up when somebody has left.
    generation: AtomicU64,
    gates: Vec<Arc<Gate>>,
    inlets: RwLock<HashMap<u64, Arc<Inlet>>>,
    pub(crate) parties: Arc<Parties>,
    /// What streams have counted.
    pub(crate) published: Published,
    media: Box<MediaFactory>,
}

impl fmt::Debug for House {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("House")
    }
}

impl House {
    pub(crate) fn ledger(&self) -> MutexGuard<'_, Ledger> {
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn generation(&self) -> u64 {
        self.generation.load(Ordering::SeqCst)
    }

    /// Seconds since 1970.
    #[expect(clippy::unused_self, reason = "the house has the clock that listeners go by")]
    pub(crate) fn unix(&self) -> u64 {
        SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |t| t.as_secs())
    }

    pub(crate) fn media_for_stream(&self) -> Box<dyn Media> {
        (self.media)(self.gates.len())
    }

    pub(crate) fn remember(&self, relay: Relay, inlet: Arc<Inlet>) {
        self.inlets.write().unwrap_or_else(PoisonError::into_inner).insert(relay.0, inlet);
    }

    pub(crate) fn forget(&self, relay: Relay) {
        self.inlets.write().unwrap_or_else(PoisonError::into_inner).remove(&relay.0);
    }

    /// A stream was turned away or broke the rules.
    pub(crate) fn refused(&self) {
        self.published.add(&Counters { streams_refused: 1, ..Counters::default() });
    }
}

/// Running listeners. Dropping it stops them, and ends all streams.
#[derive(Debug)]
pub struct Node {
    house: Arc<House>,
    local: Vec<SocketAddr>,
    threads: Vec<JoinHandle<()>>,
    changes: watch::Sender<u64>,
}

impl Node {
    /// Binds `udp`, then starts a thread for each. `media` is asked once per listener, by its index
    /// in `udp`, and once per stream, with the index behind the last.
    pub fn start(
        config: Config,
        udp: Vec<SocketAddr>,
        media: impl Fn(usize) -> Box<dyn Media> + Send + Sync + 'static,
    ) -> Result<Self, StartError> {
        if udp.len() >= usize::from(STREAMS) {
            return Err(StartError::TooMany);
        }
        if config.realm.is_empty() || config.realm.len() > MAX_REALM {
            return Err(StartError::Realm);
        }
        let sockets = udp.into_iter().map(bind).collect::<Result<Vec<_>, _>>()?;
        let gates = sockets.iter().map(|_| Gate::new().map(Arc::new)).collect::<io::Result<_>>();
        let refused = |what| move |source| StartError::System { what, source };
        let house = Arc::new(House {
            terms: Arc::new(Terms::new(&config)),
            ledger: Mutex::new(Ledger::new(&config)),
            generation: AtomicU64::new(0),
            gates: gates.map_err(refused("an event descriptor"))?,
            inlets: RwLock::default(),
            parties: Arc::new(Parties::new(&config.quotas)),
            published: Published::new(),
            media: Box::new(media),
        });
        let local = sockets.iter().map(Socket::local).collect();
        let changes = watch::Sender::new(0);
        let mut node = Self { house, local, threads: Vec::new(), changes };
        for (index, socket) in (0u8..).zip(sockets) {
            let house = Arc::clone(&node.house);
            let Some(gate) = house.gates.get(usize::from(index)).map(Arc::clone) else { continue };
            let media = (house.media)(usize::from(index));
            let thread = std::thread::Builder::new()
                .name(format!("turn-{index}"))
                .spawn(move || Listener::new(socket, house, gate, media, index).run())
                .map_err(refused("a thread"))?;
            node.threads.push(thread);
        }
        Ok(node)
    }

    /// Where UDP is bound.
    pub fn local(&self) -> &[SocketAddr] {
        &self.local
    }

    /// The way back to clients.
    pub fn backhaul(&self) -> Backhaul {
        Backhaul { house: Arc::clone(&self.house) }
    }

    /// The way in for streams.
    pub fn streams(&self) -> Streams {
        Streams { house: Arc::clone(&self.house), changes: self.changes.subscribe() }
    }

    /// Lets a participant allocate.
    pub fn allow(&self, participant: &str) {
        self.house.ledger().allow(participant);
    }

    /// Takes all allocations of a participant away, and refuses its credential until it is allowed
    /// again.
    pub fn free(&self, participant: &str) {
        self.house.ledger().free(participant);
        let generation = self.house.generation.fetch_add(1, Ordering::SeqCst) + 1;
        for gate in &self.house.gates {
            gate.wake();
        }
        self.changes.send_replace(generation);
    }

    /// What was counted so far.
    pub fn counters(&self) -> Counters {
        let gates = self.house.gates.iter().map(|gate| gate.published.get());
        gates.fold(self.house.published.get(), |sum, more| sum.plus(&more))
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        for gate in &self.house.gates {
            gate.stop();
        }
        for thread in self.threads.drain(..) {
            // A listener that has panicked has said so already.
            let _ = thread.join();
        }
    }
}

fn bind(address: SocketAddr) -> Result<Socket, StartError> {
    Socket::bind(address).map_err(|source| {
        if source.kind() == io::ErrorKind::AddrInUse {
            StartError::PortTaken(address)
        } else {
            StartError::Bind { address, source }
        }
    })
}

/// The way back to clients, from any thread.
#[derive(Clone, Debug)]
pub struct Backhaul {
    house: Arc<House>,
}

impl Backhaul {
    /// Datagrams of `segment` bytes each (the last may be shorter) from a media address to the
    /// client of an allocation. Returns how many older ones had to go for them.
    pub fn send(&self, relay: Relay, from: SocketAddr, segment: usize, train: Bytes) -> u64 {
        let train = Train { relay, from, segment, contents: train };
        let [.., listener] = relay.0.to_be_bytes();
        if let Some(gate) = self.house.gates.get(usize::from(listener)) {
            return gate.push(train);
        }
        let inlets = self.house.inlets.read().unwrap_or_else(PoisonError::into_inner);
        let inlet = inlets.get(&relay.0).map(Arc::clone);
        drop(inlets);
        let Some(inlet) = inlet else {
            let no_way_back = train.datagrams();
            self.house.published.add(&Counters { no_way_back, ..Counters::default() });
            return 0;
        };
        let dropped = inlet.push(train);
        if dropped != 0 {
            self.house.published.add(&Counters { dropped, ..Counters::default() });
        }
        dropped
    }
}

/// The way in for streams.
#[derive(Clone, Debug)]
pub struct Streams {
    house: Arc<House>,
    changes: watch::Receiver<u64>,
}

impl Streams {
    /// Serves one stream to its end. Bytes that were read already must be read again from it.
    pub async fn serve<S>(
        &self,
        stream: S,
        client: SocketAddr,
        local: SocketAddr,
        transport: Transport,
    ) where
        S: AsyncRead + AsyncWrite + Unpin + Send,
    {
        let canonical = |a: SocketAddr| SocketAddr::new(a.ip().to_canonical(), a.port());
        let tuple = Tuple { client: canonical(client), server: canonical(local) };
        stream::serve(Arc::clone(&self.house), self.changes.clone(), stream, tuple, transport)
            .await;
    }

    /// Serves all connections of a listener, for ever.
    pub async fn listen(&self, listener: TcpListener) {
        loop {
            let Ok((stream, client)) = listener.accept().await else {
                stream::pause().await;
                continue;
            };
            let Ok(local) = stream.local_addr() else { continue };
            // Best effort: without it the connection works, with more delay.
            let _ = stream.set_nodelay(true);
            let streams = self.clone();
            tokio::spawn(async move { streams.serve(stream, client, local, Transport::Tcp).await });
        }
    }
}
