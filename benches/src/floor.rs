//! The kernel floor: a forwarder that does nothing but receive and send.
//!
//! It uses the server's own socket code and gathers packets by the same rule, copies each packet
//! for each subscriber and sends trains of equal size. No keys, no rewriting, no state. What a
//! server costs beside this is what the server itself costs.
//!
//! A second kind, `plain`, does the same with one system call per packet each way. The ratio of
//! the two tells whether this program is as good a floor as the one that the design was chosen by.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::ops::Range;
use std::os::fd::{AsFd as _, BorrowedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use anyhow::Result;
use bedside_sfu::node::{Batch, Collect, Socket};
use nix::poll::{PollFd, PollFlags, ppoll};
use nix::sys::time::TimeSpec;

use crate::process::{Ask, Cost, Tell, asked, pin, tell};

/// Who gets whose packets.
#[derive(Default)]
struct Routes {
    from: HashMap<SocketAddr, usize>,
    to: Vec<Vec<SocketAddr>>,
}

impl Routes {
    fn new(table: Vec<(SocketAddr, Vec<SocketAddr>)>) -> Self {
        let from = table.iter().enumerate().map(|(index, (from, _))| (*from, index)).collect();
        Self { from, to: table.into_iter().map(|(_, to)| to).collect() }
    }
}

/// How it does its work.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Kind {
    /// `recvfrom` and `sendto`.
    Plain,
    /// Segmentation offload both ways, each packet at once.
    Offload,
    /// The same, and packets gather when there are many.
    Collect,
}

#[derive(Default)]
struct Counted {
    packets_in: AtomicU64,
    packets_out: AtomicU64,
    failures: AtomicU64,
    turns: AtomicU64,
}

/// Runs as the child.
pub fn run(kind: Kind) -> Result<()> {
    pin(0);
    let counted = Arc::new(Counted::default());
    let (routes, received) = channel();
    let address = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0);
    let for_loop = Arc::clone(&counted);
    let port = match kind {
        Kind::Plain => {
            let socket = UdpSocket::bind(address)?;
            socket.set_nonblocking(true)?;
            let _ = nix::sys::socket::setsockopt(
                &socket,
                nix::sys::socket::sockopt::RcvBuf,
                &(4 << 20),
            );
            let port = socket.local_addr()?.port();
            std::thread::spawn(move || plain(&socket, &received, &for_loop));
            port
        }
        Kind::Offload | Kind::Collect => {
            let socket = Socket::bind(address)?;
            let port = socket.local().port();
            let collect = kind == Kind::Collect;
            std::thread::spawn(move || {
                Floor::new(socket, collect).run(&received, &for_loop);
            });
            port
        }
    };
    tell(&Tell::Ready { port })?;
    for ask in asked() {
        match ask? {
            Ask::Routes(table) => {
                routes.send(Routes::new(table))?;
            }
            Ask::Report => {
                let value = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
                tell(&Tell::Report(Cost::now(
                    value(&counted.packets_in),
                    value(&counted.packets_out),
                    value(&counted.failures),
                    value(&counted.turns),
                )?))?;
            }
            other => anyhow::bail!("the floor does not know {other:?}"),
        }
    }
    Ok(())
}

fn plain(socket: &UdpSocket, new_routes: &Receiver<Routes>, counted: &Counted) {
    let mut routes = Routes::default();
    let mut buffer = [0; 2_048];
    loop {
        if let Ok(table) = new_routes.try_recv() {
            routes = table;
        }
        poll(socket.as_fd(), Duration::from_millis(10));
        counted.turns.fetch_add(1, Ordering::Relaxed);
        while let Ok((len, from)) = socket.recv_from(&mut buffer) {
            let packet = buffer.get(..len).unwrap_or_default();
            let route = routes.from.get(&from).filter(|_| is_rtp(packet));
            let Some(route) = route else { continue };
            counted.packets_in.fetch_add(1, Ordering::Relaxed);
            for subscriber in routes.to.get(*route).into_iter().flatten() {
                match socket.send_to(packet, subscriber) {
                    Ok(_) => counted.packets_out.fetch_add(1, Ordering::Relaxed),
                    Err(_) => counted.failures.fetch_add(1, Ordering::Relaxed),
                };
            }
        }
    }
}

/// The offloading kind, in the shape of a shard.
struct Floor {
    socket: Socket,
    batch: Batch,
    collect: Option<Collect>,
    routes: Routes,
    /// Packets of this turn, one behind the other.
    arena: Vec<u8>,
    /// Of each: the route that it takes, and where in the arena it is.
    packets: Vec<(usize, Range<usize>)>,
    train: Vec<u8>,
    sent: u64,
}

impl Floor {
    fn new(socket: Socket, collect: bool) -> Self {
        Self {
            socket,
            batch: Batch::new(),
            collect: collect.then(|| Collect::new(Instant::now())),
            routes: Routes::default(),
            arena: Vec::new(),
            packets: Vec::new(),
            train: Vec::new(),
            sent: 0,
        }
    }

    fn run(&mut self, new_routes: &Receiver<Routes>, counted: &Counted) {
        let mut drained_at = Instant::now();
        loop {
            if let Ok(table) = new_routes.try_recv() {
                self.routes = table;
            }
            let now = Instant::now();
            let drained = self.drain();
            let packets = self.packets.len() as u64;
            let before = self.sent;
            self.forward(now);
            let sent = self.sent - before;
            counted.packets_in.fetch_add(packets, Ordering::Relaxed);
            counted.packets_out.store(self.sent, Ordering::Relaxed);
            counted.failures.store(self.socket.failures(), Ordering::Relaxed);
            counted.turns.fetch_add(1, Ordering::Relaxed);
            if let Some(collect) = &mut self.collect {
                collect.count(now, u32::try_from(packets + sent).unwrap_or(u32::MAX));
            }
            if drained {
                drained_at = self.batch.received_at().max(drained_at);
                self.wait(drained_at);
            }
        }
    }

    fn drain(&mut self) -> bool {
        for _ in 0..4 {
            if let Err(error) = self.socket.receive(&mut self.batch) {
                return error.kind() == io::ErrorKind::WouldBlock;
            }
            for datagram in self.batch.datagrams().flatten() {
                let route = self.routes.from.get(&datagram.remote);
                let Some(route) = route.filter(|_| is_rtp(datagram.data)) else { continue };
                let start = self.arena.len();
                self.arena.extend_from_slice(datagram.data);
                self.packets.push((*route, start..self.arena.len()));
            }
            if !self.batch.is_full() {
                return true;
            }
        }
        false
    }

    /// Subscriber by subscriber, so that consecutive packets of one size become one train.
    fn forward(&mut self, now: Instant) {
        self.packets.sort_by_key(|(route, _)| *route);
        for of_route in self.packets.chunk_by(|a, b| a.0 == b.0) {
            let route = of_route.first().map_or(0, |packet| packet.0);
            for subscriber in self.routes.to.get(route).into_iter().flatten() {
                let mut size = 0;
                for (_, at) in of_route {
                    let packet = self.arena.get(at.clone()).unwrap_or_default();
                    if packet.len() != size {
                        send(&mut self.socket, now, *subscriber, size, &mut self.train);
                        size = packet.len();
                    }
                    self.train.extend_from_slice(packet);
                }
                send(&mut self.socket, now, *subscriber, size, &mut self.train);
                self.sent += of_route.len() as u64;
            }
        }
        self.arena.clear();
        self.packets.clear();
    }

    fn wait(&self, drained_at: Instant) {
        let started = Instant::now();
        if !poll(self.socket.as_fd(), Duration::from_millis(10)) {
            return;
        }
        let hold = self.collect.as_ref().map_or(Duration::ZERO, Collect::hold);
        if !hold.is_zero() {
            let now = Instant::now();
            let waited = now - started > Duration::from_micros(20);
            let until = if waited { now } else { drained_at } + hold;
            std::thread::sleep(until.saturating_duration_since(now));
        }
    }
}

fn send(socket: &mut Socket, now: Instant, to: SocketAddr, size: usize, train: &mut Vec<u8>) {
    if !train.is_empty() {
        socket.send(now, IpAddr::V4(Ipv4Addr::LOCALHOST), to, size, train);
        train.clear();
    }
}

fn is_rtp(packet: &[u8]) -> bool {
    matches!(packet, [128..=191, kind, ..] if !(192..=223).contains(kind))
}

fn poll(fd: BorrowedFd<'_>, timeout: Duration) -> bool {
    let mut fds = [PollFd::new(fd, PollFlags::POLLIN)];
    matches!(ppoll(&mut fds, Some(TimeSpec::from_duration(timeout)), None), Ok(1..))
}
