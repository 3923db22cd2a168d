//! Threads and sockets around the pure core.
//!
//! A node is a number of shards. A shard is one thread that owns one UDP port, one core and so
//! whole rooms with all their state; shards share nothing. Commands go in by bounded queues that
//! nobody waits on (a full one is [`Busy`] to the caller), events come out by one bounded channel
//! (a full one makes the shard send [`Event::Resync`] when there is room again).

mod collect;
mod relay;
mod shard;
mod socket;
mod tcp;

use std::future::Future;
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::thread::JoinHandle;
use std::time::{Instant, SystemTime};

use bytes::Bytes;
use nix::sys::eventfd::{EfdFlags, EventFd};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::mpsc;

pub use self::collect::Collect;
use self::relay::{Hatch, Outlet};
pub use self::relay::{Outlets, RelayInlet, RelayOutlet, RelayQueue};
pub use self::socket::{Batch, Datagram, ImpossibleSource, Socket};
use self::tcp::{Door, House, Inbound, Tcp};
use crate::core::api::{Command, Event, RelayFn, RoomKey, SessionKey};
use crate::core::counters::Counters;
use crate::core::engine::{Core, CoreConfig, Limits, WallClock};
use crate::core::peer::{Crypto, Identity, IdentityError};

/// What a node is made of.
#[derive(Clone, Debug)]
pub struct NodeConfig {
    /// Address to bind; an unspecified IPv6 address takes IPv4 too.
    pub bind: IpAddr,
    /// The shards take this port, the next, and so on; 0 = any free ones.
    pub first_port: u16,
    /// How many shards; one per core for media.
    pub shards: usize,
    /// Listen on TCP, too, on the ports of the same numbers (ICE-TCP).
    pub tcp: bool,
    /// Addresses that clients are told. Empty: the bound address.
    pub advertise: Vec<IpAddr>,
    /// A TCP port of someone who hands over its ICE-TCP connections ([`NodeHandle::accept_tcp`]);
    /// clients are told of it on every advertised address. A shard whose port has this number leaves
    /// the listening to them.
    pub shared_tcp: Option<u16>,
    /// The way back to clients who come through TURN.
    pub outlets: Outlets,
    /// Reads and rewrites data messages.
    pub relay: RelayFn,
    /// Commands that may wait for each shard.
    pub commands: usize,
    /// Events that may wait for their reader.
    pub events: usize,
}

/// Why a node does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Someone else has the port.
    #[error("UDP port {port} on {address} is taken")]
    PortTaken {
        /// Which.
        port: u16,
        /// Where.
        address: IpAddr,
    },
    /// The port cannot be bound for another reason.
    #[error("cannot bind UDP port {port} on {address}: {source}")]
    Bind {
        /// Which.
        port: u16,
        /// Where.
        address: IpAddr,
        /// Why not.
        source: std::io::Error,
    },
    /// The TCP port of the same number is not to be had.
    #[error("cannot listen on TCP port {port} on {address}: {source}")]
    Listen {
        /// Which.
        port: u16,
        /// Where.
        address: IpAddr,
        /// Why not.
        source: std::io::Error,
    },
    /// The ports of the last shards would be above 65535.
    #[error("{shards} shards do not fit above UDP port {first_port}")]
    Ports {
        /// The first.
        first_port: u16,
        /// How many.
        shards: usize,
    },
    /// A node without a shard carries nothing.
    #[error("a node needs at least one shard")]
    NoShard,
    /// Bound to every address, told none: clients would not know where to send.
    #[error("an address to advertise is needed when media is bound to {0}")]
    NoAddress(IpAddr),
    /// No certificate.
    #[error("cannot make the node's certificate")]
    Identity(#[from] IdentityError),
    /// The system gives no thread, event descriptor or randomness.
    #[error("the system refuses {what}: {source}")]
    System {
        /// What was asked.
        what: &'static str,
        /// The system's words.
        source: std::io::Error,
    },
}

/// The command's queue is full, or the node has stopped. Nothing was done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the node is busy")]
pub struct Busy;

/// A shard whose socket may hold less than this loses packets in bursts. The kernel counts
/// overhead too, so this is a few hundred packets.
const SMALL_BUFFER: usize = 1 << 20;

/// Running shards. Dropping it stops them.
#[derive(Debug)]
pub struct Node {
    handle: NodeHandle,
    ports: Vec<u16>,
    threads: Vec<JoinHandle<()>>,
    /// Ends after the shards, so that their last words leave.
    tcp: Option<Tcp>,
}

impl Node {
    /// Binds all ports, then starts all shards. The events of all of them come from the receiver.
    pub fn start(config: NodeConfig) -> Result<(Self, mpsc::Receiver<Event>), StartError> {
        let sockets = bind(&config)?;
        let ports: Vec<u16> = sockets.iter().map(|(socket, _)| socket.local().port()).collect();
        let smallest = sockets.iter().filter_map(|(socket, _)| socket.receive_buffer().ok()).min();
        if let Some(bytes) = smallest.filter(|bytes| *bytes < SMALL_BUFFER) {
            tracing::warn!(bytes, "small UDP receive buffer: raise net.core.rmem_max to 4194304");
        }
        let (events, receiver) = mpsc::channel(config.events.max(1));
        let mut gates = Vec::new();
        let mut queues = Vec::new();
        for _ in 0..config.shards {
            let (sender, queue) = sync_channel(config.commands.max(1));
            gates.push(Arc::new(Gate::new(sender)?));
            queues.push(queue);
        }
        let (mut doors, mut inboxes, mut hatches) = (Vec::new(), Vec::new(), Vec::new());
        for (gate, port) in gates.iter().zip(&ports) {
            let (inbox, frames) = tcp::inbox();
            doors.push(Door { gate: Arc::clone(gate), inbox });
            inboxes.push(frames);
            hatches.push(Arc::new(Hatch::new(*port, Arc::clone(gate))));
        }
        let handle = NodeHandle {
            gates: gates.into(),
            doors: doors.into(),
            hatches: hatches.into(),
            house: House::open(),
            next_room: Arc::new(AtomicU64::new(0)),
            next_session: Arc::new(AtomicU64::new(0)),
        };
        let identity = Arc::new(Identity::generate()?);
        let mut node = Self { handle, ports, threads: Vec::new(), tcp: None };
        let mut listening = Vec::new();
        let queues = queues.into_iter().zip(inboxes);
        for (index, ((socket, listener), (commands, frames))) in
            sockets.into_iter().zip(queues).enumerate()
        {
            let (Some(door), Some(hatch)) =
                (node.handle.doors.get(index), node.handle.hatches.get(index))
            else {
                break;
            };
            listening.extend(listener.map(|listener| (listener, door.clone())));
            let (hatch, outlet) = (Arc::clone(hatch), config.outlets.of_shard(index));
            let queues = Queues { commands, frames, hatch, outlet, events: events.clone() };
            let thread = node.spawn(index, &config, &identity, socket, queues)?;
            node.threads.push(thread);
        }
        let listens = !listening.is_empty();
        node.tcp = listens.then(|| Tcp::start(listening, &node.handle.house)).transpose()?;
        Ok((node, receiver))
    }

    fn spawn(
        &self,
        index: usize,
        config: &NodeConfig,
        identity: &Arc<Identity>,
        socket: Socket,
        queues: Queues,
    ) -> Result<JoinHandle<()>, StartError> {
        let now = Instant::now();
        let since_epoch = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        let unix_micros = since_epoch.map_or(0, |t| u64::try_from(t.as_micros()).unwrap_or(0));
        let candidates = candidates(config, socket.local())?;
        let shared = |port| candidates.iter().map(move |at| SocketAddr::new(at.ip(), port));
        let mut tcp_candidates = if config.tcp { candidates.clone() } else { Vec::new() };
        let shared = config.shared_tcp.into_iter().flat_map(shared);
        tcp_candidates.extend(shared.filter(|at| !(config.tcp && candidates.contains(at))));
        let core = CoreConfig {
            tcp_candidates,
            candidates,
            shard: u16::try_from(index).unwrap_or(u16::MAX),
            identity: Arc::clone(identity),
            relay: config.relay,
            wall: WallClock { at: now, unix_micros },
            limits: Limits::default(),
            crypto: Crypto::Real,
        };
        let mut seed = [0; 32];
        aws_lc_rs::rand::fill(&mut seed).map_err(|_| StartError::System {
            what: "randomness",
            source: std::io::Error::other("aws-lc-rs has none"),
        })?;
        let gate = self.handle.gates.get(index).map(Arc::clone);
        let gate = gate.ok_or(StartError::NoShard)?;
        let (shard, shards) = (index as u64, config.shards as u64);
        let place = shard::Place { shard, shards };
        std::thread::Builder::new()
            .name(format!("shard-{index}"))
            .spawn(move || {
                let _running = Running::new(&gate);
                let core = Core::new(now, core, seed);
                shard::Shard::new(place, core, socket, gate, queues).run();
            })
            .map_err(|source| StartError::System { what: "a thread", source })
    }

    /// The way in for commands.
    pub fn handle(&self) -> NodeHandle {
        self.handle.clone()
    }

    /// The UDP port of each shard.
    pub fn ports(&self) -> Vec<u16> {
        self.ports.clone()
    }

    /// The media addresses that clients are told: the only peers that a relay may reach.
    pub fn addresses(&self, advertise: &[IpAddr]) -> Vec<SocketAddr> {
        let ports = self.ports.iter();
        ports.flat_map(|port| advertise.iter().map(|ip| SocketAddr::new(*ip, *port))).collect()
    }

    /// Stops all shards and waits for them. Rooms that shall close with a reason are told so by
    /// [`Command::Shutdown`] before.
    pub fn stop(mut self) {
        self.halt();
    }

    fn halt(&mut self) {
        for gate in self.handle.gates.iter() {
            gate.stop();
        }
        for thread in self.threads.drain(..) {
            if thread.join().is_err() {
                tracing::error!("a shard had panicked");
            }
        }
        self.tcp = None;
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.halt();
    }
}

/// The way in for commands; cheap to clone.
#[derive(Clone, Debug)]
pub struct NodeHandle {
    gates: Arc<[Arc<Gate>]>,
    doors: Arc<[Door]>,
    hatches: Arc<[Arc<Hatch>]>,
    house: Arc<House>,
    next_room: Arc<AtomicU64>,
    next_session: Arc<AtomicU64>,
}

impl NodeHandle {
    /// A new room's key. Rooms go round the shards; the key names the shard.
    pub fn mint_room(&self) -> RoomKey {
        RoomKey(self.next_room.fetch_add(1, Ordering::Relaxed))
    }

    /// A new session's key.
    pub fn mint_session(&self) -> SessionKey {
        SessionKey(self.next_session.fetch_add(1, Ordering::Relaxed))
    }

    /// Hands a command to the shard of a room; [`Command::Shutdown`] goes to every shard. Never
    /// waits.
    pub fn send(&self, room: RoomKey, command: Command) -> Result<(), Busy> {
        if matches!(command, Command::Shutdown) {
            let told = self.gates.iter().filter(|gate| gate.send(Command::Shutdown).is_ok());
            return if told.count() == self.gates.len() { Ok(()) } else { Err(Busy) };
        }
        let shard = room.0.checked_rem(self.gates.len() as u64).unwrap_or(0);
        let gate = usize::try_from(shard).ok().and_then(|shard| self.gates.get(shard));
        gate.ok_or(Busy)?.send(command)
    }

    /// Serves an ICE-TCP connection that somebody else has accepted, until it ends; `already_read` is
    /// what was read of it before. It may be encrypted: only its bytes matter.
    pub fn accept_tcp<S>(
        &self,
        stream: S,
        remote: SocketAddr,
        already_read: Bytes,
    ) -> impl Future<Output = ()> + Send + use<S>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let (house, doors) = (Arc::clone(&self.house), Arc::clone(&self.doors));
        async move { tcp::serve(&house, &doors, stream, remote, &already_read).await }
    }

    /// The way in for relayed datagrams; each thread that receives them needs one of its own.
    pub fn relay_inlet(&self) -> RelayInlet {
        RelayInlet::new(&self.hatches)
    }

    /// Whether every shard's thread is there. A node that has lost one should be replaced.
    pub fn is_running(&self) -> bool {
        self.gates.iter().all(|gate| gate.running.load(Ordering::Relaxed))
    }

    /// The counters of all shards together, as of each one's last turn.
    pub fn counters(&self) -> Counters {
        let mut sum = Counters::default();
        for gate in self.gates.iter() {
            sum.add(&gate.counters());
        }
        sum
    }
}

/// What a shard's thread shares with everyone else.
#[derive(Debug)]
struct Gate {
    commands: SyncSender<Command>,
    refused: AtomicU64,
    tcp_refused: AtomicU64,
    bell: EventFd,
    asleep: AtomicBool,
    stop: AtomicBool,
    running: AtomicBool,
    values: [AtomicU64; Counters::COUNT],
}

impl Gate {
    fn new(commands: SyncSender<Command>) -> Result<Self, StartError> {
        let flags = EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK;
        let bell = EventFd::from_flags(flags).map_err(|error| StartError::System {
            what: "an event descriptor",
            source: error.into(),
        })?;
        Ok(Self {
            commands,
            refused: AtomicU64::new(0),
            tcp_refused: AtomicU64::new(0),
            bell,
            asleep: AtomicBool::new(false),
            stop: AtomicBool::new(false),
            // Before its thread runs, so that nobody sees a node that is not there yet.
            running: AtomicBool::new(true),
            values: std::array::from_fn(|_| AtomicU64::new(0)),
        })
    }

    fn send(&self, command: Command) -> Result<(), Busy> {
        match self.commands.try_send(command) {
            Ok(()) => {
                self.wake();
                Ok(())
            }
            Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => {
                self.refused.fetch_add(1, Ordering::Relaxed);
                Err(Busy)
            }
        }
    }

    fn stop(&self) {
        self.stop.store(true, Ordering::SeqCst);
        self.wake();
    }

    /// Rings only for a sleeper. The shard says that it sleeps *before* it looks at its queue for
    /// the last time, and we look at the flag *after* the command is in the queue, so one of the
    /// two sees the other.
    fn wake(&self) {
        if self.asleep.swap(false, Ordering::SeqCst) {
            // Fails only when the counter is full, and then the bell rings already.
            let _ = self.bell.write(1);
        }
    }

    fn publish(&self, counters: &Counters) {
        for (to, value) in self.values.iter().zip(counters.values()) {
            to.store(value, Ordering::Relaxed);
        }
    }

    fn counters(&self) -> Counters {
        let mut values = [0; Counters::COUNT];
        for (to, value) in values.iter_mut().zip(&self.values) {
            *to = value.load(Ordering::Relaxed);
        }
        let mut counters = Counters::from_values(values);
        counters.commands_refused = self.refused.load(Ordering::Relaxed);
        counters.tcp_refused = self.tcp_refused.load(Ordering::Relaxed);
        counters
    }
}

/// Tells that a shard's thread is gone, however it ends.
struct Running(Arc<Gate>);

impl Running {
    fn new(gate: &Arc<Gate>) -> Self {
        Self(Arc::clone(gate))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.0.running.store(false, Ordering::Relaxed);
    }
}

/// Ways into and out of a shard.
struct Queues {
    commands: Receiver<Command>,
    frames: mpsc::Receiver<Inbound>,
    hatch: Arc<Hatch>,
    outlet: Outlet,
    events: mpsc::Sender<Event>,
}

/// How often a free UDP port is drawn whose TCP port may be taken.
const DRAWS: usize = 32;

/// Binds the sockets of all shards.
fn bind(config: &NodeConfig) -> Result<Vec<(Socket, Option<TcpListener>)>, StartError> {
    if config.shards == 0 {
        return Err(StartError::NoShard);
    }
    let ports = |shard: usize| match config.first_port {
        0 => Some(0),
        first => u16::try_from(shard).ok().and_then(|shard| first.checked_add(shard)),
    };
    let too_many = || StartError::Ports { first_port: config.first_port, shards: config.shards };
    (0..config.shards)
        .map(|shard| {
            let port = ports(shard).ok_or_else(too_many)?;
            let draws = if port == 0 { DRAWS } else { 1 };
            let mut last = bind_shard(config, port);
            for _ in 1..draws {
                if !matches!(last, Err(StartError::Listen { .. })) {
                    break;
                }
                last = bind_shard(config, port);
            }
            last
        })
        .collect()
}

/// A UDP port and, where it is asked for, the TCP port of the same number.
fn bind_shard(config: &NodeConfig, port: u16) -> Result<(Socket, Option<TcpListener>), StartError> {
    let address = config.bind;
    let socket =
        Socket::bind(SocketAddr::new(address, port)).map_err(|source| match source.kind() {
            std::io::ErrorKind::AddrInUse => StartError::PortTaken { port, address },
            _ => StartError::Bind { port, address, source },
        })?;
    if !config.tcp {
        return Ok((socket, None));
    }
    let port = socket.local().port();
    if config.shared_tcp == Some(port) {
        return Ok((socket, None));
    }
    let refused = |source| StartError::Listen { port, address, source };
    let listener = socket::listen(SocketAddr::new(address, port)).map_err(refused)?;
    Ok((socket, Some(listener)))
}

/// What clients of a shard are told.
fn candidates(config: &NodeConfig, local: SocketAddr) -> Result<Vec<SocketAddr>, StartError> {
    if !config.advertise.is_empty() {
        let told = config.advertise.iter().map(|ip| SocketAddr::new(*ip, local.port()));
        return Ok(told.collect());
    }
    if local.ip().is_unspecified() {
        return Err(StartError::NoAddress(local.ip()));
    }
    Ok(vec![local])
}
