//! The loop of one shard: wait, take commands, drain the socket, let the core work, send.
//!
//! Work per turn is bounded: a flood of datagrams cannot keep commands or deadlines waiting, and
//! what was received is sent before more is read.

use std::io;
use std::os::fd::AsFd as _;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::Receiver;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use nix::poll::{PollFd, PollFlags, ppoll};
use nix::sys::time::TimeSpec;
use rustc_hash::FxHashMap;
use tokio::sync::mpsc;
use tokio::sync::mpsc::Sender;
use tokio::sync::mpsc::error::TrySendError;

use super::collect::Collect;
use super::relay::{Hatch, Outlet};
use super::socket::{Batch, Socket};
use super::tcp::{Inbound, Outbox};
use super::{Gate, Queues};
use crate::core::api::{Command, Event, Input, Output, Path};
use crate::core::engine::Core;

/// Commands per turn.
const COMMANDS: usize = 64;
/// Frames of TCP connections per turn.
const FRAMES: usize = 128;
/// Parcels of relayed datagrams per turn.
const PARCELS: usize = 64;
/// Memory taken at once for what goes to one TCP connection.
const ARENA: usize = 16 << 10;
/// Receive calls per turn; each brings up to 32 buffers of coalesced datagrams.
const BATCHES: usize = 4;
/// How soon a shard that lost events looks again whether there is room for a resync.
const RESYNC_RETRY: Duration = Duration::from_millis(20);

/// Which shard of how many.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    pub(super) shard: u64,
    pub(super) shards: u64,
}

/// Everything that one shard's thread owns.
pub(super) struct Shard {
    place: Place,
    core: Core,
    socket: Socket,
    batch: Batch,
    collect: Collect,
    gate: Arc<Gate>,
    commands: Receiver<Command>,
    /// Found while going to sleep; it is the next one.
    next_command: Option<Command>,
    frames: mpsc::Receiver<Inbound>,
    /// Found while going to sleep; it is the next one.
    next_frame: Option<Inbound>,
    /// Each with memory of its own: what waits for a slow client holds nobody else's.
    outboxes: FxHashMap<u64, (Arc<Outbox>, BytesMut)>,
    /// What came through TURN, and the way back.
    hatch: Arc<Hatch>,
    outlet: Outlet,
    events: Sender<Event>,
    resync: bool,
    /// When the core wants to be called without input.
    deadline: Option<Instant>,
    /// The last receive left nothing behind, at this time.
    drained_at: Option<Instant>,
    counts: Counts,
}

/// What the shard counts beside its core.
#[derive(Default)]
struct Counts {
    turns: u64,
    impossible_sources: u64,
    events_lost: u64,
    resyncs: u64,
    tcp_dropped: u64,
    relay_dropped: u64,
    /// Datagrams in and out, this turn.
    packets: u32,
}

impl Shard {
    pub(super) fn new(
        place: Place,
        core: Core,
        socket: Socket,
        gate: Arc<Gate>,
        queues: Queues,
    ) -> Self {
        let Queues { commands, frames, hatch, outlet, events } = queues;
        Self {
            place,
            core,
            socket,
            batch: Batch::new(),
            collect: Collect::new(Instant::now()),
            gate,
            commands,
            next_command: None,
            frames,
            next_frame: None,
            outboxes: FxHashMap::default(),
            hatch,
            outlet,
            events,
            resync: false,
            deadline: None,
            drained_at: None,
            counts: Counts::default(),
        }
    }

    /// Runs until the gate says stop. Commands that came before the stop are still carried out.
    pub(super) fn run(mut self) {
        loop {
            let stopping = self.gate.stop.load(Ordering::SeqCst);
            let now = Instant::now();
            let idle = self.take_commands(now);
            self.drain(now);
            self.take_frames(now);
            self.take_relayed(now);
            if self.deadline.is_some_and(|deadline| deadline <= now) {
                self.core.handle_input(now, Input::Timeout);
            }
            self.flush(now);
            self.resync();
            self.publish(now);
            if stopping && idle {
                return;
            }
            self.wait();
        }
    }

    /// Says whether none are left.
    fn take_commands(&mut self, now: Instant) -> bool {
        for _ in 0..COMMANDS {
            let next = self.next_command.take().or_else(|| self.commands.try_recv().ok());
            let Some(command) = next else { return true };
            self.core.handle_input(now, Input::Command(command));
        }
        false
    }

    fn drain(&mut self, now: Instant) {
        self.drained_at = None;
        for _ in 0..BATCHES {
            match self.socket.receive(&mut self.batch) {
                Ok(()) => {}
                Err(error) => {
                    // Any other error concerns one datagram; the next turn goes on behind it.
                    if error.kind() == io::ErrorKind::WouldBlock {
                        self.drained_at = Some(now);
                    }
                    return;
                }
            }
            let at = self.batch.received_at();
            for datagram in self.batch.datagrams() {
                let Ok(datagram) = datagram else {
                    self.counts.impossible_sources += 1;
                    continue;
                };
                self.counts.packets += 1;
                let path = Path::Udp { local: datagram.local, remote: datagram.remote };
                let (received, data) = (datagram.received, datagram.data);
                self.core.handle_input(at, Input::Datagram { path, received, data });
            }
            if !self.batch.is_full() {
                self.drained_at = Some(at);
                return;
            }
        }
    }

    /// What came over TCP connections.
    fn take_frames(&mut self, now: Instant) {
        for _ in 0..FRAMES {
            let next = self.next_frame.take().or_else(|| self.frames.try_recv().ok());
            let Some(inbound) = next else { return };
            match inbound {
                Inbound::Frame { path, received, mut data } => {
                    self.counts.packets += 1;
                    let data = &mut *data;
                    self.core.handle_input(now, Input::Datagram { path, received, data });
                }
                Inbound::Opened { connection, outbox } => {
                    self.outboxes.insert(connection, (outbox, BytesMut::new()));
                }
                Inbound::Closed { connection, path } => {
                    self.outboxes.remove(&connection);
                    self.core.handle_input(now, Input::Closed { path });
                }
            }
        }
        // More wait: the bell may have rung for the last time.
        self.drained_at = None;
    }

    /// What came through TURN.
    fn take_relayed(&mut self, now: Instant) {
        let (core, packets) = (&mut self.core, &mut self.counts.packets);
        for _ in 0..PARCELS {
            let taken = self.hatch.take(|input| {
                *packets += 1;
                core.handle_input(now, input);
            });
            if taken.is_none() {
                return;
            }
        }
        // More wait: the bell may have rung for the last time.
        self.drained_at = None;
    }

    fn flush(&mut self, now: Instant) {
        loop {
            match self.core.poll_output() {
                Output::Transmit(transmit) => {
                    let (size, contents) = (transmit.segment_size, transmit.contents);
                    let datagrams = contents.len().div_ceil(size.max(1));
                    self.counts.packets += u32::try_from(datagrams).unwrap_or(u32::MAX);
                    match transmit.path {
                        Path::Udp { local, remote } => {
                            self.socket.send(now, local.ip(), remote, size, contents);
                        }
                        Path::Tcp { connection, remote: _ } => {
                            let outbox = self.outboxes.get_mut(&connection);
                            let Some((outbox, arena)) = outbox else { continue };
                            if arena.capacity() < contents.len() {
                                arena.reserve(contents.len().max(ARENA));
                            }
                            arena.extend_from_slice(contents);
                            let train = arena.split().freeze();
                            self.counts.tcp_dropped += outbox.push(size, train);
                        }
                        Path::Relay { relay, local, remote: _ } => {
                            let dropped = self.outlet.send(relay, local, &transmit);
                            self.counts.relay_dropped += dropped;
                        }
                    }
                }
                Output::Event(event) => {
                    tell(&self.events, &mut self.resync, &mut self.counts.events_lost, event);
                }
                Output::Timeout(deadline) => {
                    self.deadline = deadline;
                    return;
                }
            }
        }
    }

    /// After lost events: the whole truth, once a quarter of the channel is free.
    fn resync(&mut self) {
        if !self.resync || self.events.capacity() < self.events.max_capacity().div_ceil(4) {
            return;
        }
        let Place { shard, shards } = self.place;
        let event = Event::Resync { shard, shards, rooms: self.core.snapshot() };
        self.resync = false;
        let lost = &mut self.counts.events_lost;
        tell(&self.events, &mut self.resync, lost, event);
        if !self.resync {
            self.counts.resyncs += 1;
        }
    }

    fn publish(&mut self, now: Instant) {
        self.counts.turns += 1;
        let mut counters = *self.core.counters();
        counters.dropped_source = self.counts.impossible_sources;
        counters.send_failures = self.socket.failures();
        counters.events_lost = self.counts.events_lost;
        counters.resyncs = self.counts.resyncs;
        counters.turns = self.counts.turns;
        counters.tcp_connections = self.outboxes.len() as u64;
        counters.tcp_dropped = self.counts.tcp_dropped;
        counters.relay_dropped = self.counts.relay_dropped + self.hatch.dropped();
        self.gate.publish(&counters);
        self.collect.count(now, std::mem::take(&mut self.counts.packets));
    }

    /// Sleeps until there is something to do.
    fn wait(&mut self) {
        let Some(drained_at) = self.drained_at else { return };
        self.gate.asleep.store(true, Ordering::SeqCst);
        self.next_command = self.commands.try_recv().ok();
        self.next_frame = self.next_frame.take().or_else(|| self.frames.try_recv().ok());
        let nothing = self.next_command.is_none() && self.next_frame.is_none();
        let nothing = nothing && self.hatch.is_empty();
        if nothing && !self.gate.stop.load(Ordering::SeqCst) {
            self.sleep(drained_at);
        }
        self.gate.asleep.store(false, Ordering::SeqCst);
    }

    fn sleep(&self, drained_at: Instant) {
        let retry = self.resync.then(|| Instant::now() + RESYNC_RETRY);
        let deadline = [self.deadline, retry].into_iter().flatten().min();
        let ready = self.poll(deadline, true);
        let hold = self.collect.hold();
        if hold.is_zero() || !ready.datagrams || ready.bell {
            return;
        }
        // What was there at once may have come any time since the socket was last empty.
        let arrived = if ready.waited { Instant::now() } else { drained_at };
        let until = arrived + hold;
        self.poll(Some(deadline.map_or(until, |deadline| deadline.min(until))), false);
    }

    /// Waits for the bell, and for datagrams if asked; until the deadline.
    fn poll(&self, deadline: Option<Instant>, datagrams: bool) -> Ready {
        let timeout = deadline.map(|at| at.saturating_duration_since(Instant::now()));
        let mut fds = [
            PollFd::new(self.gate.bell.as_fd(), PollFlags::POLLIN),
            PollFd::new(self.socket.as_fd(), PollFlags::POLLIN),
        ];
        let watched = if datagrams { 2 } else { 1 };
        let started = Instant::now();
        // An error (a signal) ends the wait early, which is harmless.
        let _ = ppoll(
            fds.get_mut(..watched).unwrap_or_default(),
            timeout.map(TimeSpec::from_duration),
            None,
        );
        let waited = started.elapsed() > Duration::from_micros(20);
        let [bell, socket] = fds.map(|fd| fd.any().unwrap_or(true));
        if bell {
            let _ = self.gate.bell.read();
        }
        Ready { datagrams: socket, bell, waited }
    }
}

/// What ended a wait.
struct Ready {
    datagrams: bool,
    bell: bool,
    /// It was not there at once.
    waited: bool,
}

/// Hands out an event, or takes note that the reader no longer knows the truth.
fn tell(events: &Sender<Event>, resync: &mut bool, lost: &mut u64, event: Event) {
    if *resync {
        *lost += 1;
        return;
    }
    match events.try_send(event) {
        // Without a reader nobody is misled.
        Ok(()) | Err(TrySendError::Closed(_)) => {}
        Err(TrySendError::Full(_)) => {
            *resync = true;
            *lost += 1;
        }
    }
}
