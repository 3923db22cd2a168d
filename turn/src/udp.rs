//! The thread of one UDP socket: drain it in batches, take what comes back from media, sleep.
//!
//! Work per turn is bounded, so that a flood from one side cannot keep the other waiting. Nothing
//! is allocated for a datagram, and the node's ledger is locked for requests only.

use std::os::fd::AsFd as _;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, ppoll};
use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::sys::time::TimeSpec;

use crate::Media;
use crate::counters::{Counters, Published};
use crate::node::House;
use crate::outbox::{Outbox, Train};
use crate::pace::Pace;
use crate::server::{Now, Passage, Server, Tuple};
use crate::socket::{Batch, Socket};

/// Receive calls per turn; each brings up to 32 buffers of coalesced datagrams.
const BATCHES: usize = 4;
/// Trains per turn.
const TRAINS: usize = 256;
/// Trains that may wait for a listener, and their bytes: some 100 ms at 100,000 datagrams per
/// second.
const WAITING: (usize, usize) = (8_192, 16 << 20);
/// How often expired allocations are looked for.
const SWEEP: Duration = Duration::from_secs(1);

/// What others may touch of a listener.
#[derive(Debug)]
pub(crate) struct Gate {
    outbox: Outbox,
    bell: EventFd,
    asleep: AtomicBool,
    stop: AtomicBool,
    dropped: AtomicU64,
    pub(crate) published: Published,
}

impl Gate {
    pub(crate) fn new() -> std::io::Result<Self> {
        let flags = EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK;
        Ok(Self {
            outbox: Outbox::new(WAITING.0, WAITING.1),
            bell: EventFd::from_flags(flags)?,
            asleep: AtomicBool::new(false),
            stop: AtomicBool::new(false),
            dropped: AtomicU64::new(0),
            published: Published::new(),
        })
    }

    pub(crate) fn push(&self, train: Train) -> u64 {
        let dropped = self.outbox.push(train);
        if dropped != 0 {
            self.dropped.fetch_add(dropped, Ordering::Relaxed);
        }
        self.wake();
        dropped
    }

    /// Rings only for a sleeper. The listener says that it sleeps *before* it looks for work for
    /// the last time, and we look at the flag *after* the work is there, so one sees the other.
    pub(crate) fn wake(&self) {
        if self.asleep.swap(false, Ordering::SeqCst) {
            // Fails only when the counter is full, and then the bell rings already.
            let _ = self.bell.write(1);
        }
    }

    pub(crate) fn stop(&self) {
        self.stop.store(true, Ordering::SeqCst);
        self.wake();
    }
}

/// Everything that one listener's thread owns.
pub(crate) struct Listener {
    socket: Socket,
    batch: Batch,
    server: Server,
    media: Box<dyn Media>,
    house: Arc<House>,
    gate: Arc<Gate>,
    /// Answers and wrapped trains.
    out: Vec<u8>,
    pace: Pace,
    generation: u64,
    next_sweep: Instant,
    /// The last turn left nothing behind.
    drained: bool,
}

impl Listener {
    pub(crate) fn new(
        socket: Socket,
        house: Arc<House>,
        gate: Arc<Gate>,
        media: Box<dyn Media>,
        index: u8,
    ) -> Self {
        let now = Instant::now();
        let server = Server::for_datagrams(now, Arc::clone(&house.terms), index);
        let (batch, out) = (Batch::new(), Vec::with_capacity(1 << 16));
        let (generation, next_sweep) = (house.generation(), now + SWEEP);
        Self {
            socket,
            batch,
            server,
            media,
            house,
            gate,
            out,
            pace: Pace::new(now),
            generation,
            next_sweep,
            drained: true,
        }
    }

    /// Runs until the gate says stop. A panic costs the allocations of this listener, which
    /// clients make anew, and not the listener.
    pub(crate) fn run(mut self) {
        while !self.gate.stop.load(Ordering::SeqCst) {
            if catch_unwind(AssertUnwindSafe(|| self.turn())).is_err() {
                self.clear();
                self.server.counters.panics += 1;
            }
        }
        self.clear();
    }

    fn turn(&mut self) {
        let now = Instant::now();
        self.drained = true;
        self.drain();
        self.take_trains(now);
        self.sweep(now);
        self.publish();
        let Counters { to_media, to_clients, .. } = self.server.counters;
        self.pace.count(now, to_media.wrapping_add(to_clients));
        self.wait();
    }

    fn clear(&mut self) {
        self.server.clear(&mut self.house.ledger());
        self.close();
        self.publish();
    }

    fn drain(&mut self) {
        for _ in 0..BATCHES {
            match self.socket.receive(&mut self.batch) {
                Ok(()) => {}
                Err(error) => {
                    // Any other error concerns one datagram; the next turn goes on behind it.
                    self.drained &= error.kind() == std::io::ErrorKind::WouldBlock;
                    return;
                }
            }
            self.pass_batch(Instant::now());
            if !self.batch.is_full() {
                return;
            }
        }
        self.drained = false;
    }

    fn pass_batch(&mut self, now: Instant) {
        let mut delivered = false;
        for (client, server, bytes) in self.batch.datagrams() {
            let tuple = Tuple { client, server };
            match self.server.pass(now, tuple, bytes) {
                Passage::Media { relay, from, to, data } => {
                    self.media.deliver(relay, from, to, data);
                    delivered = true;
                }
                Passage::Request => {
                    let now = Now { at: now, unix: self.house.unix() };
                    let mut ledger = self.house.ledger();
                    self.server.answer(now, tuple, bytes, &mut ledger, &mut self.out);
                    drop(ledger);
                    let length = self.out.len();
                    self.socket.send(now.at, server.ip(), client, length, &self.out);
                }
                Passage::Dropped => {}
            }
        }
        if delivered {
            self.media.flush();
        }
        self.close();
    }

    fn take_trains(&mut self, now: Instant) {
        for _ in 0..TRAINS {
            let Some(train) = self.gate.outbox.pop() else { return };
            self.out.clear();
            let Train { relay, from, segment, contents } = train;
            let wrapped = self.server.wrap(now, relay, from, segment, &contents, &mut self.out);
            let Some(wrapped) = wrapped else { continue };
            let Tuple { client, server } = wrapped.tuple;
            self.socket.send(now, server.ip(), client, wrapped.segment, &self.out);
        }
        self.drained = false;
    }

    fn sweep(&mut self, now: Instant) {
        let generation = self.house.generation();
        if generation == self.generation && now < self.next_sweep {
            return;
        }
        self.generation = generation;
        self.next_sweep = now + SWEEP;
        if self.server.counters.allocations > 0 {
            self.server.sweep(now, &mut self.house.ledger());
            self.close();
        }
    }

    fn close(&mut self) {
        let mut any = false;
        for relay in self.server.closed() {
            self.media.closed(relay);
            any = true;
        }
        if any {
            self.media.flush();
        }
    }

    fn publish(&mut self) {
        self.server.counters.send_failures = self.socket.failures;
        self.server.counters.dropped = self.gate.dropped.load(Ordering::Relaxed);
        self.gate.published.set(&self.server.counters);
    }

    /// Sleeps until there is something to do.
    fn wait(&self) {
        if !self.drained {
            return;
        }
        self.gate.asleep.store(true, Ordering::SeqCst);
        let idle = self.gate.outbox.is_empty()
            && self.house.generation() == self.generation
            && !self.gate.stop.load(Ordering::SeqCst);
        if idle {
            let mut fds = [
                PollFd::new(self.gate.bell.as_fd(), PollFlags::POLLIN),
                PollFd::new(self.socket.as_fd(), PollFlags::POLLIN),
            ];
            // Without allocations nothing expires.
            let until = (self.server.counters.allocations > 0)
                .then(|| self.next_sweep.saturating_duration_since(Instant::now()));
            // An error (a signal) ends the wait early, which is harmless.
            let _ = ppoll(&mut fds, until.map(TimeSpec::from_duration), None);
            if fds.first().and_then(PollFd::any).unwrap_or(true) {
                let _ = self.gate.bell.read();
            }
        }
        self.gate.asleep.store(false, Ordering::SeqCst);
        // Nobody has to ring while more gathers: the next turn finds it.
        let hold = self.pace.hold();
        if idle && !hold.is_zero() {
            std::thread::sleep(hold);
        }
    }
}
