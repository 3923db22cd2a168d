//! ICE-TCP (RFC 6544, passive): framed connections (RFC 4571) for networks that let no UDP out.
//!
//! One thread serves all connections of a node. A frame that came goes by a bounded queue to the
//! shard of the port that was called, and a full queue holds up the readers, so that TCP slows the
//! senders. What the shard sends waits in the connection's own outbox; a client that reads too
//! slowly loses the oldest, as on any network. A connection must begin with a Binding request and
//! get an answer, which only an authenticated one does, and get answers for as long as it lasts;
//! strangers are cut off after a moment, and so is who was somebody once.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use bytes::{Buf as _, Bytes, BytesMut};
use crossbeam_queue::ArrayQueue;
use nix::sys::resource::{Resource, getrlimit};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::sync::{Notify, mpsc};
use tokio::time::{sleep, timeout};

use super::{Gate, StartError};
use crate::core::api::Path;
use crate::core::ice::{shard_of, stun_username};

/// The longest frame taken; what our clients send stays below an Ethernet frame.
const MAX_FRAME: usize = 4_096;
/// Frames that may wait for a shard.
const INBOX: usize = 512;
/// Trains that may wait for one client.
const TRAINS: usize = 256;
/// Bytes that may wait for one client: a second and a half of good video.
const MAX_WAITING: usize = 384 << 10;
/// What the kernel may hold back in each direction: more would only be delay.
const KERNEL_BUFFER: usize = 128 << 10;
/// A connection has so long to prove whose it is.
const PROVE_LIMIT: Duration = Duration::from_secs(10);
/// Frames taken before it has.
const FRAMES_UNPROVED: u32 = 16;
/// ICE asks again every few seconds; who says nothing for so long is gone, and whom the engine tells
/// nothing for so long is nobody's any more.
const SILENCE: Duration = Duration::from_secs(30);
/// A client that takes nothing for so long is gone.
const STALLED: Duration = Duration::from_secs(15);
/// Connections of a node at the most; fewer where the process may not open twice as many files, so
/// that a flood of them leaves descriptors to everything else.
const MAX_CONNECTIONS: usize = 4_096;
/// Connections of one address. A whole hospital may sit behind it, but not the whole node.
const MAX_FROM_ONE: usize = 1_024;
/// Connections of one address that have not proved whose they are.
const MAX_UNPROVED: usize = 64;
/// After an error of the listener (no descriptors left), not at once again.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// How long last words may take to leave when the node stops.
const GOODBYE: Duration = Duration::from_millis(200);

/// What a connection tells its shard.
#[derive(Debug)]
pub(super) enum Inbound {
    /// A frame.
    Frame {
        /// Over which connection.
        path: Path,
        /// When it was read.
        received: Instant,
        /// Its content.
        data: BytesMut,
    },
    /// It exists now, and this is the way out.
    Opened {
        /// Its number.
        connection: u64,
        /// What waits for it.
        outbox: Arc<Outbox>,
    },
    /// It is no more.
    Closed {
        /// Its number.
        connection: u64,
        /// What the engine knows it as.
        path: Path,
    },
}

/// Datagrams that wait for one client.
#[derive(Debug)]
pub(super) struct Outbox {
    trains: ArrayQueue<Train>,
    waiting: AtomicUsize,
    bell: Notify,
    /// Something was added since the reader looked.
    answered: AtomicBool,
}

#[derive(Debug)]
struct Train {
    segment: usize,
    contents: Bytes,
}

impl Train {
    fn datagrams(&self) -> u64 {
        self.contents.len().div_ceil(self.segment.max(1)) as u64
    }
}

impl Outbox {
    fn new() -> Self {
        Self {
            trains: ArrayQueue::new(TRAINS),
            waiting: AtomicUsize::new(0),
            bell: Notify::new(),
            answered: AtomicBool::new(false),
        }
    }

    /// Adds datagrams of `segment` bytes each (the last may be shorter). Returns how many older ones
    /// had to go for them.
    pub(super) fn push(&self, segment: usize, contents: Bytes) -> u64 {
        // The engine answers authenticated requests only.
        self.answered.store(true, Ordering::Relaxed);
        let len = contents.len();
        let mut dropped = 0;
        while self.waiting.load(Ordering::Relaxed) + len > MAX_WAITING
            && let Some(oldest) = self.pop()
        {
            dropped += oldest.datagrams();
        }
        self.waiting.fetch_add(len, Ordering::Relaxed);
        if let Some(oldest) = self.trains.force_push(Train { segment, contents }) {
            self.waiting.fetch_sub(oldest.contents.len(), Ordering::Relaxed);
            dropped += oldest.datagrams();
        }
        self.bell.notify_one();
        dropped
    }

    fn pop(&self) -> Option<Train> {
        let train = self.trains.pop()?;
        self.waiting.fetch_sub(train.contents.len(), Ordering::Relaxed);
        Some(train)
    }
}

/// The thread that serves the connections. Dropping it ends them.
#[derive(Debug)]
pub(super) struct Tcp {
    stop: Arc<Notify>,
    thread: Option<JoinHandle<()>>,
}

/// The way into the shard that connections belong to.
#[derive(Clone, Debug)]
pub(super) struct Door {
    pub(super) gate: Arc<Gate>,
    pub(super) inbox: mpsc::Sender<Inbound>,
}

/// A queue from connections to a shard.
pub(super) fn inbox() -> (mpsc::Sender<Inbound>, mpsc::Receiver<Inbound>) {
    mpsc::channel(INBOX)
}

impl Tcp {
    /// Listens.
    pub(super) fn start(
        doors: Vec<(std::net::TcpListener, Door)>,
        house: &Arc<House>,
    ) -> Result<Self, StartError> {
        let refused = |what| move |source| StartError::System { what, source };
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(refused("an event loop"))?;
        let stop = Arc::new(Notify::new());
        let stopped = Arc::clone(&stop);
        let house = Arc::clone(house);
        let thread = std::thread::Builder::new().name("ice-tcp".to_owned());
        let thread = thread
            .spawn(move || {
                runtime.block_on(async {
                    for (listener, door) in doors {
                        tokio::spawn(listen(listener, door, Arc::clone(&house)));
                    }
                    stopped.notified().await;
                    sleep(GOODBYE).await;
                });
            })
            .map_err(refused("a thread"))?;
        Ok(Self { stop, thread: Some(thread) })
    }
}

impl Drop for Tcp {
    fn drop(&mut self) {
        self.stop.notify_one();
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the thread of TCP connections had panicked");
        }
    }
}

/// Connections that the process can afford.
fn places() -> usize {
    let files = getrlimit(Resource::RLIMIT_NOFILE).map_or(u64::MAX, |(soft, _)| soft);
    usize::try_from(files / 2).unwrap_or(usize::MAX).min(MAX_CONNECTIONS)
}

/// What all connections share.
#[derive(Debug)]
pub(super) struct House {
    places: usize,
    next: AtomicU64,
    open: AtomicUsize,
    parties: Mutex<HashMap<IpAddr, Party>>,
}

/// The connections of one address.
#[derive(Debug, Default)]
struct Party {
    open: usize,
    unproved: usize,
}

impl House {
    /// With as many places as the process can afford.
    pub(super) fn open() -> Arc<Self> {
        Arc::new(Self::new(places()))
    }

    fn new(places: usize) -> Self {
        let (next, open) = (AtomicU64::new(0), AtomicUsize::new(0));
        Self { places, next, open, parties: Mutex::default() }
    }

    /// A place for a connection from this address, unless there are too many.
    fn admit(self: &Arc<Self>, from: IpAddr) -> Option<Guest> {
        if self.open.load(Ordering::Relaxed) >= self.places {
            return None;
        }
        let from = household(from);
        let mut parties = self.parties.lock().unwrap_or_else(PoisonError::into_inner);
        let party = parties.entry(from).or_default();
        if party.open >= MAX_FROM_ONE || party.unproved >= MAX_UNPROVED {
            return None;
        }
        party.open += 1;
        party.unproved += 1;
        self.open.fetch_add(1, Ordering::Relaxed);
        Some(Guest { house: Arc::clone(self), from, unproved: true })
    }

    fn with_party(&self, from: IpAddr, change: impl FnOnce(&mut Party)) {
        let mut parties = self.parties.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(party) = parties.get_mut(&from) else { return };
        change(party);
        if party.open == 0 {
            parties.remove(&from);
        }
    }
}

/// Whose an address is: with IPv6 everybody has a whole network of them.
const fn household(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(_) => address,
        IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() >> 64 << 64)),
    }
}

/// One connection's place.
struct Guest {
    house: Arc<House>,
    from: IpAddr,
    unproved: bool,
}

impl Guest {
    fn has_proved(&mut self) {
        if std::mem::take(&mut self.unproved) {
            self.house.with_party(self.from, |party| party.unproved -= 1);
        }
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        self.has_proved();
        self.house.with_party(self.from, |party| party.open -= 1);
        self.house.open.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Takes connections for one shard, for ever.
async fn listen(listener: std::net::TcpListener, door: Door, house: Arc<House>) {
    let Ok(listener) = TcpListener::from_std(listener) else { return };
    loop {
        let Ok((stream, remote)) = listener.accept().await else {
            sleep(ACCEPT_PAUSE).await;
            continue;
        };
        let remote = SocketAddr::new(remote.ip().to_canonical(), remote.port());
        let Some(guest) = house.admit(remote.ip()) else {
            door.gate.tcp_refused.fetch_add(1, Ordering::Relaxed);
            continue;
        };
        // Best effort: without them the connection works, with more delay.
        let _ = stream.set_nodelay(true);
        let socket = socket2::SockRef::from(&stream);
        let _ = socket.set_send_buffer_size(KERNEL_BUFFER);
        let _ = socket.set_recv_buffer_size(KERNEL_BUFFER);
        let connection = Connection::new(remote, door.clone(), guest);
        tokio::spawn(connection.serve(stream, BytesMut::new()));
    }
}

/// Serves a connection that somebody else has accepted, on a port that all shards share: the user
/// name in its first check says which of them it is for. Ends with the connection.
pub(super) async fn serve<S>(
    house: &Arc<House>,
    doors: &[Door],
    mut stream: S,
    remote: SocketAddr,
    already_read: &[u8],
) where
    S: AsyncRead + AsyncWrite + Unpin + Send,
{
    let remote = SocketAddr::new(remote.ip().to_canonical(), remote.port());
    let refused = || {
        if let Some(door) = doors.first() {
            door.gate.tcp_refused.fetch_add(1, Ordering::Relaxed);
        }
    };
    let Some(guest) = house.admit(remote.ip()) else { return refused() };
    let mut buffer = BytesMut::from(already_read);
    let door = timeout(PROVE_LIMIT, first_door(doors, &mut stream, &mut buffer)).await;
    let Ok(Some(door)) = door else { return refused() };
    Connection::new(remote, door.clone(), guest).serve(stream, buffer).await;
}

/// The shard that the first frame names. The frame stays in the buffer.
async fn first_door<'d, S>(
    doors: &'d [Door],
    stream: &mut S,
    buffer: &mut BytesMut,
) -> Option<&'d Door>
where
    S: AsyncRead + Unpin,
{
    loop {
        match take_frame(&mut buffer.clone()) {
            Some(Ok(data)) => {
                let shard = stun_username(&data).and_then(shard_of)?;
                return doors.get(usize::from(shard));
            }
            Some(Err(_)) => return None,
            None => {}
        }
        buffer.reserve(MAX_FRAME);
        match stream.read_buf(buffer).await {
            Ok(1..) => {}
            Ok(0) | Err(_) => return None,
        }
    }
}

/// One client's connection.
struct Connection {
    number: u64,
    remote: SocketAddr,
    outbox: Arc<Outbox>,
    door: Door,
    guest: Guest,
}

impl Connection {
    fn new(remote: SocketAddr, door: Door, guest: Guest) -> Self {
        let number = guest.house.next.fetch_add(1, Ordering::Relaxed);
        Self { number, remote, outbox: Arc::new(Outbox::new()), door, guest }
    }

    /// Serves until the end; `buffer` holds what was read before.
    async fn serve<S>(mut self, stream: S, buffer: BytesMut)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send,
    {
        let (connection, path) =
            (self.number, Path::Tcp { connection: self.number, remote: self.remote });
        let outbox = Arc::clone(&self.outbox);
        let (reader, writer) = tokio::io::split(stream);
        let writing = write(Arc::clone(&outbox), writer);
        let told = tokio::select! {
            told = self.read(reader, buffer, path) => told,
            () = writing => true,
        };
        if told {
            self.tell(Inbound::Closed { connection, path }).await;
        }
    }

    /// Reads until the end; says whether the shard knows of the connection.
    async fn read(
        &mut self,
        mut reader: impl AsyncRead + Unpin,
        mut buffer: BytesMut,
        path: Path,
    ) -> bool {
        let (mut life, mut frames, mut told) = (Life::new(Instant::now()), 0u32, false);
        loop {
            while let Some(frame) = take_frame(&mut buffer) {
                frames = frames.saturating_add(1);
                // Empty ones say nothing, but count.
                let fits = frame.as_ref().is_ok_and(|data| {
                    (life.is_proved() || frames <= FRAMES_UNPROVED)
                        && (told || data.is_empty() || is_binding(data))
                });
                let Some(data) = frame.ok().filter(|_| fits) else {
                    self.door.gate.tcp_refused.fetch_add(1, Ordering::Relaxed);
                    return told;
                };
                if data.is_empty() {
                    continue;
                }
                if !told {
                    let (connection, outbox) = (self.number, Arc::clone(&self.outbox));
                    self.tell(Inbound::Opened { connection, outbox }).await;
                    told = true;
                }
                self.tell(Inbound::Frame { path, received: Instant::now(), data }).await;
            }
            buffer.reserve(2 * MAX_FRAME);
            let wait = life.until().saturating_duration_since(Instant::now());
            match timeout(wait, reader.read_buf(&mut buffer)).await {
                Ok(Ok(1..)) => life.heard = Instant::now(),
                Ok(Ok(0) | Err(_)) => return told,
                Err(_) => {}
            }
            self.look(&mut life);
            // A sender that is always ready is never timed out, and a shard may have ended before
            // a connection that somebody else accepted.
            if life.until() <= Instant::now() || self.door.inbox.is_closed() {
                return told;
            }
        }
    }

    /// Takes note of what the engine has said since the last look.
    fn look(&mut self, life: &mut Life) {
        if self.outbox.answered.swap(false, Ordering::Relaxed) {
            self.guest.has_proved();
            life.answered = Some(Instant::now());
        }
    }

    async fn tell(&self, inbound: Inbound) {
        // Fails when the shard has ended.
        let _ = self.door.inbox.send(inbound).await;
        self.door.gate.wake();
    }
}

/// What keeps a connection alive.
struct Life {
    opened: Instant,
    heard: Instant,
    answered: Option<Instant>,
}

impl Life {
    const fn new(now: Instant) -> Self {
        Self { opened: now, heard: now, answered: None }
    }

    const fn is_proved(&self) -> bool {
        self.answered.is_some()
    }

    /// It ends then, unless something happens before.
    fn until(&self) -> Instant {
        match self.answered {
            Some(answered) => answered.min(self.heard) + SILENCE,
            None => self.opened + PROVE_LIMIT,
        }
    }
}

/// Writes what comes into the outbox; ends when the client does not take it.
async fn write(outbox: Arc<Outbox>, mut writer: impl AsyncWrite + Unpin) {
    let mut framed = Vec::new();
    loop {
        outbox.bell.notified().await;
        while let Some(train) = outbox.pop() {
            framed.clear();
            for datagram in train.contents.chunks(train.segment.max(1)) {
                let Ok(len) = u16::try_from(datagram.len()) else { continue };
                framed.extend_from_slice(&len.to_be_bytes());
                framed.extend_from_slice(datagram);
            }
            let written = async {
                writer.write_all(&framed).await?;
                // What is encrypted may wait in between.
                writer.flush().await
            };
            match timeout(STALLED, written).await {
                Ok(Ok(())) => {}
                Ok(Err(_)) | Err(_) => return,
            }
        }
    }
}

/// The next whole frame; an error when it is longer than anything we take.
fn take_frame(buffer: &mut BytesMut) -> Option<io::Result<BytesMut>> {
    let len = usize::from(u16::from_be_bytes(*buffer.first_chunk()?));
    if len > MAX_FRAME {
        return Some(Err(io::ErrorKind::InvalidData.into()));
    }
    if buffer.len() < 2 + len {
        return None;
    }
    buffer.advance(2);
    Some(Ok(buffer.split_to(len)))
}

/// Whether it can be a Binding request (RFC 8489 §6).
fn is_binding(data: &[u8]) -> bool {
    data.starts_with(&[0, 1]) && data.get(4..8) == Some(&[0x21, 0x12, 0xA4, 0x42])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_taken_whole_however_they_are_cut() {
        let mut buffer = BytesMut::new();
        let mut taken = Vec::new();
        for byte in [0, 2, 7, 8, 0, 0, 0, 1, 9, 0] {
            buffer.extend_from_slice(&[byte]);
            while let Some(frame) = take_frame(&mut buffer) {
                taken.push(frame.unwrap().to_vec());
            }
        }
        assert_eq!(taken, [vec![7, 8], vec![], vec![9]]);
        buffer.extend_from_slice(&[0x11, 0xFF]);
        assert!(take_frame(&mut buffer).is_none(), "waits for 0x0011 bytes");
        buffer.clear();
        buffer.extend_from_slice(&[0xFF, 0xFF]);
        assert!(take_frame(&mut buffer).unwrap().is_err());
    }

    #[test]
    fn a_slow_client_loses_the_oldest() {
        let outbox = Outbox::new();
        let train = Bytes::from(vec![0; 60_000]);
        let dropped: u64 = (0..10).map(|_| outbox.push(1_200, train.clone())).sum();
        assert_eq!(dropped, 4 * 50, "six trains fit");
        assert!(outbox.waiting.load(Ordering::Relaxed) <= MAX_WAITING);
        let small: u64 = (0..300).map(|_| outbox.push(10, Bytes::from_static(&[1; 10]))).sum();
        assert_eq!(small, 6 * 50 + 44, "256 trains fit");
        let left = std::iter::from_fn(|| outbox.pop()).count();
        assert_eq!((left, outbox.waiting.load(Ordering::Relaxed)), (TRAINS, 0));
    }

    #[test]
    fn one_address_gets_so_many_places() {
        let house = Arc::new(House::new(2_000));
        let from = IpAddr::from([192, 0, 2, 1]);
        let mut guests: Vec<Guest> =
            (0..MAX_UNPROVED).map(|_| house.admit(from).unwrap()).collect();
        assert!(house.admit(from).is_none());
        assert!(house.admit(IpAddr::from([192, 0, 2, 2])).is_some());
        guests[0].has_proved();
        assert!(house.admit(from).is_some());
        while guests.len() < MAX_FROM_ONE {
            guests.last_mut().unwrap().has_proved();
            guests.push(house.admit(from).unwrap());
        }
        guests.iter_mut().for_each(Guest::has_proved);
        assert!(house.admit(from).is_none(), "others want to get in, too");
        drop(guests);
        assert_eq!(house.open.load(Ordering::Relaxed), 0);
        assert!(house.parties.lock().unwrap().is_empty());
    }

    #[test]
    fn a_network_of_ipv6_is_one_address() {
        let house = Arc::new(House::new(2_000));
        let from = |low: u16| IpAddr::from([0x2001, 0xdb8, 0, 7, 0, 0, 0, low]);
        let guests: Vec<Guest> =
            (0..MAX_UNPROVED as u16).map(|low| house.admit(from(low)).unwrap()).collect();
        assert!(house.admit(from(999)).is_none());
        assert!(house.admit(IpAddr::from([0x2001, 0xdb8, 0, 8, 0, 0, 0, 1])).is_some());
        drop(guests);
    }

    #[test]
    fn a_full_house_is_full() {
        let house = Arc::new(House::new(2));
        let guests = [1, 2].map(|low| house.admit(IpAddr::from([192, 0, 2, low])).unwrap());
        assert!(house.admit(IpAddr::from([192, 0, 2, 3])).is_none());
        drop(guests);
        assert!(house.admit(IpAddr::from([192, 0, 2, 3])).is_some());
        assert!((1..=MAX_CONNECTIONS).contains(&places()));
    }

    #[test]
    fn who_is_not_answered_any_more_is_cut_off_however_much_it_says() {
        let start = Instant::now();
        let mut life = Life::new(start);
        assert_eq!(life.until(), start + PROVE_LIMIT);
        life.heard = start + Duration::from_secs(9);
        assert_eq!(life.until(), start + PROVE_LIMIT, "nobody yet");
        life.answered = Some(start + Duration::from_secs(9));
        life.heard = start + Duration::from_secs(20);
        assert_eq!(life.until(), start + Duration::from_secs(9) + SILENCE);
    }
}
