//! Relayed datagrams, in process: from the TURN server's threads to the shards, and back.
//!
//! Each of those threads has an inlet of its own. It gathers what it received in *parcels*, one for
//! each shard, and hands them over whole; a shard gives empty parcels back, so that after a while
//! nothing is allocated. What waits is bounded, and the oldest goes first. The other way, a shard
//! hands its trains to an outlet that the owner of the node provides.

use std::fmt;
use std::net::SocketAddr;
use std::os::fd::AsFd as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Instant;

use bytes::{Bytes, BytesMut};
use crossbeam_queue::ArrayQueue;

use nix::poll::{PollFd, PollFlags, ppoll};

use super::{Gate, StartError};
use crate::core::api::{Input, Path, Transmit};

/// Parcels that may wait for a shard.
const PARCELS: usize = 1_024;
/// Bytes that may wait for a shard; as much as its socket holds.
const MAX_WAITING: usize = 4 << 20;
/// A parcel is handed over when it holds this much.
const PARCEL: usize = 48 << 10;
/// Empty parcels kept for the next ones.
const SPARE: usize = 64;
/// Memory taken at once for what leaves.
const ARENA: usize = 32 << 10;

/// The way back to relayed clients, from one shard. Must not wait.
pub trait RelayOutlet: Send + 'static {
    /// Hands over datagrams of `segment` bytes each (the last may be shorter) from a media address of
    /// ours to the client of a relay. Returns how many datagrams were thrown away for them.
    fn send(&mut self, relay: u64, from: SocketAddr, segment: usize, train: Bytes) -> u64;
}

/// Makes the outlet of each shard, by its number.
#[derive(Clone)]
pub struct Outlets(Arc<dyn Fn(usize) -> Box<dyn RelayOutlet> + Send + Sync>);

impl Outlets {
    /// Outlets as this function makes them.
    pub fn new(make: impl Fn(usize) -> Box<dyn RelayOutlet> + Send + Sync + 'static) -> Self {
        Self(Arc::new(make))
    }

    pub(super) fn of_shard(&self, shard: usize) -> Outlet {
        Outlet { way: (self.0)(shard), arena: BytesMut::new() }
    }
}

impl Default for Outlets {
    /// Nobody is relayed.
    fn default() -> Self {
        Self::new(|_| Box::new(Nobody))
    }
}

impl fmt::Debug for Outlets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Outlets")
    }
}

/// Without TURN there is no relay.
struct Nobody;

impl RelayOutlet for Nobody {
    fn send(&mut self, _: u64, _: SocketAddr, segment: usize, train: Bytes) -> u64 {
        train.len().div_ceil(segment.max(1)) as u64
    }
}

/// A shard's outlet, and the memory of what is on its way there.
pub(super) struct Outlet {
    way: Box<dyn RelayOutlet>,
    arena: BytesMut,
}

impl Outlet {
    /// Hands over a train. Returns how many datagrams were thrown away for it.
    pub(super) fn send(&mut self, relay: u64, from: SocketAddr, transmit: &Transmit<'_>) -> u64 {
        let contents = transmit.contents;
        if self.arena.capacity() < contents.len() {
            self.arena.reserve(contents.len().max(ARENA));
        }
        self.arena.extend_from_slice(contents);
        self.way.send(relay, from, transmit.segment_size, self.arena.split().freeze())
    }
}

/// Datagrams for one shard.
#[derive(Debug)]
struct Parcel {
    bytes: Vec<u8>,
    contents: Vec<Content>,
    received: Instant,
}

#[derive(Clone, Copy, Debug)]
enum Content {
    /// The next bytes are a datagram.
    Datagram { path: Path, len: usize },
    /// A relay is no more.
    Closed { relay: u64 },
}

/// What waits for one shard.
#[derive(Debug)]
pub(super) struct Hatch {
    port: u16,
    gate: Arc<Gate>,
    full: ArrayQueue<Parcel>,
    waiting: AtomicUsize,
    spare: ArrayQueue<Parcel>,
    dropped: AtomicU64,
}

impl Hatch {
    /// The hatch of the shard with this port.
    pub(super) fn new(port: u16, gate: Arc<Gate>) -> Self {
        Self {
            port,
            gate,
            full: ArrayQueue::new(PARCELS),
            waiting: AtomicUsize::new(0),
            spare: ArrayQueue::new(SPARE),
            dropped: AtomicU64::new(0),
        }
    }

    /// Whether nothing waits.
    pub(super) fn is_empty(&self) -> bool {
        self.full.is_empty()
    }

    /// Datagrams that the shard was too slow to take.
    pub(super) fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    /// Takes out one parcel and shows each of its contents. `None`: nothing waits.
    pub(super) fn take(&self, mut show: impl FnMut(Input<'_>)) -> Option<()> {
        let mut parcel = self.pop()?;
        let mut rest = parcel.bytes.as_mut_slice();
        for content in parcel.contents.iter().copied() {
            match content {
                Content::Datagram { path, len } => {
                    let Some((data, tail)) = rest.split_at_mut_checked(len) else { break };
                    rest = tail;
                    show(Input::Datagram { path, received: parcel.received, data });
                }
                Content::Closed { relay } => show(Input::RelayClosed { relay }),
            }
        }
        self.give_back(parcel);
        Some(())
    }

    fn push(&self, parcel: Parcel) {
        let len = parcel.bytes.len();
        while self.waiting.load(Ordering::Relaxed) + len > MAX_WAITING
            && let Some(oldest) = self.pop()
        {
            self.lose(oldest);
        }
        self.waiting.fetch_add(len, Ordering::Relaxed);
        if let Some(oldest) = self.full.force_push(parcel) {
            self.waiting.fetch_sub(oldest.bytes.len(), Ordering::Relaxed);
            self.lose(oldest);
        }
        self.gate.wake();
    }

    fn pop(&self) -> Option<Parcel> {
        let parcel = self.full.pop()?;
        self.waiting.fetch_sub(parcel.bytes.len(), Ordering::Relaxed);
        Some(parcel)
    }

    fn lose(&self, parcel: Parcel) {
        self.dropped.fetch_add(parcel.contents.len() as u64, Ordering::Relaxed);
        self.give_back(parcel);
    }

    fn give_back(&self, mut parcel: Parcel) {
        parcel.bytes.clear();
        parcel.contents.clear();
        // There are enough: this one goes.
        let _ = self.spare.push(parcel);
    }

    fn fresh(&self) -> Parcel {
        let received = Instant::now();
        match self.spare.pop() {
            Some(parcel) => Parcel { received, ..parcel },
            None => Parcel { bytes: Vec::new(), contents: Vec::new(), received },
        }
    }
}

/// The way in for relayed datagrams; one for each thread that receives them.
#[derive(Debug)]
pub struct RelayInlet {
    shards: Vec<(Arc<Hatch>, Option<Parcel>)>,
}

impl RelayInlet {
    pub(super) fn new(hatches: &[Arc<Hatch>]) -> Self {
        Self { shards: hatches.iter().map(|hatch| (Arc::clone(hatch), None)).collect() }
    }

    /// Takes one datagram that a relay's client sent to a media address of ours; `from` is the
    /// relayed address. What goes to a port that is no shard's is nobody's.
    pub fn push(&mut self, relay: u64, from: SocketAddr, to: SocketAddr, data: &[u8]) {
        let shard = self.shards.iter_mut().find(|(hatch, _)| hatch.port == to.port());
        let Some((hatch, place)) = shard else { return };
        let parcel = place.get_or_insert_with(|| hatch.fresh());
        parcel.bytes.extend_from_slice(data);
        let path = Path::Relay { relay, local: to, remote: from };
        parcel.contents.push(Content::Datagram { path, len: data.len() });
        if parcel.bytes.len() >= PARCEL
            && let Some(parcel) = place.take()
        {
            hatch.push(parcel);
        }
    }

    /// A relay is no more; its clients' paths end with the next [`RelayInlet::flush`].
    pub fn closed(&mut self, relay: u64) {
        for (hatch, place) in &mut self.shards {
            let parcel = place.get_or_insert_with(|| hatch.fresh());
            parcel.contents.push(Content::Closed { relay });
        }
    }

    /// Hands over what was gathered; to be called whenever no more is there at once.
    pub fn flush(&mut self) {
        for (hatch, parcel) in &mut self.shards {
            if let Some(parcel) = parcel.take() {
                hatch.push(parcel);
            }
        }
    }
}

impl Clone for RelayInlet {
    /// A way in of its own; what was gathered stays with the first.
    fn clone(&self) -> Self {
        Self { shards: self.shards.iter().map(|(hatch, _)| (Arc::clone(hatch), None)).collect() }
    }
}

/// A shard's end of the inlets without the shard: to measure what relaying itself costs.
#[derive(Debug)]
pub struct RelayQueue {
    hatch: Arc<Hatch>,
}

impl RelayQueue {
    /// A queue for what is sent to a media address with this port.
    pub fn open(port: u16) -> Result<(RelayInlet, Self), StartError> {
        let (commands, _nobody) = std::sync::mpsc::sync_channel(1);
        let hatch = Arc::new(Hatch::new(port, Arc::new(Gate::new(commands)?)));
        Ok((RelayInlet::new(&[Arc::clone(&hatch)]), Self { hatch }))
    }

    /// Shows everything that waits, and waits until there is something, as a shard does.
    pub fn take(&self, mut show: impl FnMut(Input<'_>)) {
        let gate = &self.hatch.gate;
        while self.hatch.is_empty() {
            gate.asleep.store(true, Ordering::SeqCst);
            if self.hatch.is_empty() {
                let mut bell = [PollFd::new(gate.bell.as_fd(), PollFlags::POLLIN)];
                // An error (a signal) ends the wait early, which is harmless.
                let _ = ppoll(&mut bell, None, None);
                let _ = gate.bell.read();
            }
            gate.asleep.store(false, Ordering::SeqCst);
        }
        while self.hatch.take(&mut show).is_some() {}
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::sync_channel;

    use super::*;

    fn hatch(port: u16) -> Arc<Hatch> {
        let (commands, _) = sync_channel(1);
        Arc::new(Hatch::new(port, Arc::new(Gate::new(commands).unwrap())))
    }

    fn address(port: u16) -> SocketAddr {
        ([192, 0, 2, 1], port).into()
    }

    fn taken(hatch: &Hatch) -> Vec<(Path, Vec<u8>)> {
        let mut taken = Vec::new();
        let show = |input: Input<'_>| match input {
            Input::Datagram { path, data, .. } => taken.push((path, data.to_vec())),
            other => panic!("{other:?}"),
        };
        let mut show = show;
        while hatch.take(&mut show).is_some() {}
        taken
    }

    #[test]
    fn datagrams_come_out_at_the_shard_that_was_called() {
        let hatches = [hatch(7_000), hatch(7_001)];
        let mut inlet = RelayInlet::new(&hatches);
        inlet.push(1, address(20_000), address(7_000), b"one");
        inlet.push(2, address(20_001), address(7_001), b"");
        inlet.push(2, address(20_001), address(7_001), b"three");
        inlet.push(2, address(20_001), address(7_002), b"nobody's");
        assert!(hatches.iter().all(|hatch| hatch.is_empty()), "nothing before the flush");
        inlet.flush();
        let path =
            |relay, port, to| Path::Relay { relay, local: address(to), remote: address(port) };
        assert_eq!(taken(&hatches[0]), [(path(1, 20_000, 7_000), b"one".to_vec())]);
        let both = [b"".to_vec(), b"three".to_vec()];
        assert_eq!(taken(&hatches[1]), both.map(|data| (path(2, 20_001, 7_001), data)));
    }

    #[test]
    fn a_slow_shard_loses_the_oldest_and_a_full_parcel_leaves_early() {
        let hatches = [hatch(7_000)];
        let mut inlet = RelayInlet::new(&hatches);
        let size = 1 << 10;
        for number in 0..5_000_u64 {
            inlet.push(number, address(1), address(7_000), &vec![0; size]);
        }
        let waiting = hatches[0].waiting.load(Ordering::Relaxed);
        assert!(waiting <= MAX_WAITING && waiting > MAX_WAITING / 2, "{waiting}");
        inlet.flush();
        let left = taken(&hatches[0]);
        assert_eq!(left.len() as u64 + hatches[0].dropped(), 5_000);
        assert!(matches!(left.last().unwrap().0, Path::Relay { relay: 4_999, .. }));
        assert_eq!(hatches[0].waiting.load(Ordering::Relaxed), 0);
        for number in 0..2 * PARCELS as u64 {
            inlet.push(number, address(1), address(7_000), b"small");
            inlet.flush();
        }
        assert_eq!(taken(&hatches[0]).len(), PARCELS);
    }

    #[test]
    fn empty_parcels_are_used_again() {
        let hatches = [hatch(7_000)];
        let mut inlet = RelayInlet::new(&hatches);
        inlet.push(1, address(1), address(7_000), b"first");
        inlet.flush();
        assert_eq!(taken(&hatches[0]).len(), 1);
        assert_eq!(hatches[0].spare.len(), 1);
        inlet.push(1, address(1), address(7_000), b"second");
        assert_eq!(hatches[0].spare.len(), 0);
        inlet.flush();
        assert_eq!(taken(&hatches[0])[0].1, b"second");
    }

    #[test]
    fn without_an_outlet_everything_is_lost_and_counted() {
        let mut outlet = Outlets::default().of_shard(0);
        let path = Path::Relay { relay: 1, local: address(1), remote: address(2) };
        let transmit = Transmit { path, segment_size: 2, contents: b"12345" };
        assert_eq!(outlet.send(1, address(1), &transmit), 3);
    }
}
