//! TURN over streams: TCP, and what somebody else has decrypted.
//!
//! A stream is a client with a state machine of its own. It may stay for as long as it has an
//! allocation; without one it is cut off after a moment. What media sends to it waits in its
//! outbox, and whoever reads too slowly loses the oldest.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::{Buf as _, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::sync::{Notify, watch};
use tokio::time::{sleep, sleep_until};

use crate::counters::Counters;
use crate::message;
use crate::node::{House, STREAMS};
use crate::outbox::{Outbox, Train};
use crate::quota::household;
use crate::server::{Now, Passage, Server, Tuple};
use crate::{Media, Quotas, Relay, Transport};

/// A stream without an allocation is cut off after this.
const PROVE_LIMIT: Duration = Duration::from_secs(15);
/// Messages that it may send until it has one.
const MESSAGES_UNPROVED: u32 = 64;
/// A client that takes nothing for so long is gone.
const STALLED: Duration = Duration::from_secs(15);
/// How often a stream looks whether its allocation has expired.
const TICK: Duration = Duration::from_secs(5);
/// Longer messages are none of ours: a datagram and its wrapping.
const MAX_MESSAGE: usize = 4_096;
/// How much is read at once, before and after the client has an allocation.
const READ: (usize, usize) = (1_024, 16 << 10);
/// Wrapped bytes on their way to the client at once; answers may add a little.
const WRITE: usize = 32 << 10;
/// Trains that may wait for one client, and their bytes: a second of good video.
const WAITING: (usize, usize) = (256, 384 << 10);
/// After a failed accept, which is mostly a lack of descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// The way in for media that goes to a stream.
#[derive(Debug)]
pub(crate) struct Inlet {
    outbox: Outbox,
    bell: Notify,
}

impl Inlet {
    fn new() -> Self {
        Self { outbox: Outbox::new(WAITING.0, WAITING.1), bell: Notify::new() }
    }

    pub(crate) fn push(&self, train: Train) -> u64 {
        let dropped = self.outbox.push(train);
        self.bell.notify_one();
        dropped
    }
}

/// Who has streams open.
#[derive(Debug)]
pub(crate) struct Parties {
    most: usize,
    most_from_one: usize,
    open: Mutex<(usize, HashMap<IpAddr, Party>)>,
}

/// The streams of one address.
#[derive(Debug, Default)]
struct Party {
    open: usize,
    unproved: usize,
}

impl Parties {
    pub(crate) fn new(quotas: &Quotas) -> Self {
        let (most, most_from_one) = (quotas.streams, quotas.streams_from_address);
        Self { most, most_from_one, open: Mutex::default() }
    }

    /// A place for a stream from this address, unless there are too many.
    fn admit(self: &Arc<Self>, from: IpAddr) -> Option<Guest> {
        let from = household(from);
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if open.0 >= self.most {
            return None;
        }
        let party = open.1.entry(from).or_default();
        if party.open >= self.most_from_one || party.unproved >= self.most_from_one.div_ceil(4) {
            return None;
        }
        party.open += 1;
        party.unproved += 1;
        open.0 += 1;
        Some(Guest { parties: Arc::clone(self), from, unproved: true })
    }
}

/// One stream's place.
#[derive(Debug)]
struct Guest {
    parties: Arc<Parties>,
    from: IpAddr,
    unproved: bool,
}

impl Guest {
    fn has_proved(&mut self) {
        if std::mem::take(&mut self.unproved) {
            let mut open = self.parties.open.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(party) = open.1.get_mut(&self.from) {
                party.unproved -= 1;
            }
        }
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        self.has_proved();
        let mut open = self.parties.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.0 -= 1;
        if let Some(party) = open.1.get_mut(&self.from) {
            party.open -= 1;
            if party.open == 0 {
                open.1.remove(&self.from);
            }
        }
    }
}

/// Waits before the next attempt to accept.
pub(crate) async fn pause() {
    sleep(ACCEPT_PAUSE).await;
}

/// Serves one stream to its end.
pub(crate) async fn serve<S>(
    house: Arc<House>,
    changes: watch::Receiver<u64>,
    stream: S,
    tuple: Tuple,
    transport: Transport,
) where
    S: AsyncRead + AsyncWrite + Unpin + Send,
{
    let Some(guest) = house.parties.admit(tuple.client.ip()) else {
        house.refused();
        return;
    };
    let mut client = Client::new(house, tuple, transport, guest);
    client.serve(changes, stream).await;
}

/// Why a stream is not read any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Broken;

/// Writes some of it; when there is nothing, makes what was written leave.
async fn write(writer: &mut (impl AsyncWrite + Unpin), rest: &[u8]) -> Result<usize, Broken> {
    if rest.is_empty() {
        return writer.flush().await.map(|()| 0).map_err(|_| Broken);
    }
    match writer.write(rest).await {
        Ok(bytes @ 1..) => Ok(bytes),
        Ok(0) | Err(_) => Err(Broken),
    }
}

/// One client on a stream.
struct Client {
    house: Arc<House>,
    tuple: Tuple,
    transport: Transport,
    guest: Guest,
    server: Server,
    media: Box<dyn Media>,
    inlet: Arc<Inlet>,
    /// The allocation that others find our inlet by.
    relay: Option<Relay>,
    /// Since when there has been none.
    without: Option<Instant>,
    messages: u32,
    buffer: BytesMut,
    answer: Vec<u8>,
    /// On its way to the client, and how far it is.
    out: Vec<u8>,
    sent: usize,
    /// Where the message ends that is being written, if they are written one by one.
    message_end: usize,
    told: Counters,
}

impl Client {
    fn new(house: Arc<House>, tuple: Tuple, transport: Transport, guest: Guest) -> Self {
        let server = Server::for_stream(Arc::clone(&house.terms), STREAMS);
        let media = house.media_for_stream();
        let mut client = Self {
            house,
            tuple,
            transport,
            guest,
            server,
            media,
            inlet: Arc::new(Inlet::new()),
            relay: None,
            without: Some(Instant::now()),
            messages: 0,
            buffer: BytesMut::new(),
            answer: Vec::new(),
            out: Vec::new(),
            sent: 0,
            message_end: 0,
            told: Counters::default(),
        };
        client.server.counters.streams = 1;
        client.publish();
        client
    }

    async fn serve<S>(&mut self, mut changes: watch::Receiver<u64>, stream: S)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send,
    {
        let (mut reader, mut writer) = tokio::io::split(stream);
        let mut moved = Instant::now();
        let mut tick = Instant::now() + TICK;
        let mut unflushed = false;
        loop {
            self.fill();
            let waits = self.sent < self.out.len();
            let until = if waits { tick.min(moved + STALLED) } else { tick };
            let mut ended = false;
            self.buffer.reserve(if self.relay.is_some() { READ.1 } else { READ.0 });
            let end = self.write_until();
            let rest = self.out.get(self.sent..end).unwrap_or_default();
            tokio::select! {
                // Whoever does not take answers is asked nothing more.
                read = reader.read_buf(&mut self.buffer), if self.out.len() < 2 * WRITE => {
                    ended = !matches!(read, Ok(1..)) || self.take().is_err();
                }
                wrote = write(&mut writer, rest), if waits || unflushed => match wrote {
                    Ok(bytes) => {
                        self.sent += bytes;
                        moved = Instant::now();
                        unflushed = waits;
                    }
                    Err(Broken) => ended = true,
                },
                () = self.inlet.bell.notified(), if !waits => {}
                changed = changes.changed() => {
                    ended = changed.is_err() || self.sweep();
                }
                () = sleep_until(until.into()) => {}
            }
            let now = Instant::now();
            if now >= tick {
                tick = now + TICK;
                ended |= self.sweep();
            }
            if !waits {
                moved = now;
            }
            self.publish();
            if ended || now >= moved + STALLED {
                break;
            }
        }
        // Tells the other side, unless it has gone already.
        let _ = tokio::time::timeout(Duration::from_secs(1), writer.shutdown()).await;
    }

    /// Wraps what media has sent, when the client has taken everything of before.
    fn fill(&mut self) {
        if self.sent < self.out.len() {
            return;
        }
        self.out.clear();
        (self.sent, self.message_end) = (0, 0);
        let now = Instant::now();
        while self.out.len() < WRITE
            && let Some(train) = self.inlet.outbox.pop()
        {
            let Train { relay, from, segment, contents } = train;
            self.server.wrap(now, relay, from, segment, &contents, &mut self.out);
        }
        if self.out.capacity() > 4 * WRITE {
            self.out.shrink_to(WRITE);
        }
    }

    /// How much is written at once. A record of TLS can be read only when all of it has come, so
    /// that each message has one of its own: on a slow line the first need not wait for the last.
    fn write_until(&mut self) -> usize {
        match self.transport {
            Transport::Tcp => return self.out.len(),
            Transport::Tls => {}
        }
        if self.message_end <= self.sent {
            let rest = self.out.get(self.sent..).unwrap_or_default();
            let length = message::length_on_stream(rest).and_then(Result::ok);
            self.message_end = self.sent + length.unwrap_or(rest.len());
        }
        self.message_end
    }

    /// Takes all whole messages that were read.
    fn take(&mut self) -> Result<(), Broken> {
        let now = Instant::now();
        let mut delivered = false;
        let done = loop {
            let length = match message::length_on_stream(&self.buffer) {
                None => break Ok(()),
                Some(Ok(length)) if length <= MAX_MESSAGE => length,
                Some(Ok(_) | Err(_)) => break Err(Broken),
            };
            let Some(bytes) = self.buffer.get(..length) else { break Ok(()) };
            match self.server.pass(now, self.tuple, bytes) {
                Passage::Media { relay, from, to, data } => {
                    self.media.deliver(relay, from, to, data);
                    delivered = true;
                }
                Passage::Request => {
                    let now = Now { at: now, unix: self.house.unix() };
                    let mut ledger = self.house.ledger();
                    self.server.answer(now, self.tuple, bytes, &mut ledger, &mut self.answer);
                    drop(ledger);
                    self.out.extend_from_slice(&self.answer);
                    self.note_allocation();
                }
                Passage::Dropped => {}
            }
            self.buffer.advance(length);
            self.messages += u32::from(self.relay.is_none());
            if self.messages > MESSAGES_UNPROVED {
                break Err(Broken);
            }
        };
        if delivered {
            self.media.flush();
        }
        if done.is_err() {
            self.house.refused();
        }
        done
    }

    /// Lets others find us by the number of our allocation, as long as we have one.
    fn note_allocation(&mut self) {
        let mut any = false;
        for relay in self.server.closed() {
            self.media.closed(relay);
            any = true;
        }
        if any {
            self.media.flush();
        }
        let relay = self.server.relay_of(self.tuple);
        if relay == self.relay {
            return;
        }
        if let Some(old) = self.relay {
            self.house.forget(old);
        }
        if let Some(new) = relay {
            self.house.remember(new, Arc::clone(&self.inlet));
            self.guest.has_proved();
            self.messages = 0;
        }
        self.without = relay.is_none().then(Instant::now);
        self.relay = relay;
    }

    /// Drops what has expired; says whether the stream is at its end.
    fn sweep(&mut self) -> bool {
        if self.relay.is_some() {
            self.server.sweep(Instant::now(), &mut self.house.ledger());
            self.note_allocation();
            // Nobody will come back to a stream of which we took the allocation.
            return self.relay.is_none();
        }
        self.without.is_some_and(|since| since.elapsed() >= PROVE_LIMIT)
    }

    fn publish(&mut self) {
        let new = self.server.counters.since(&self.told);
        self.house.published.add(&new);
        self.told = self.server.counters;
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        self.server.clear(&mut self.house.ledger());
        self.note_allocation();
        self.server.counters.streams = 0;
        self.publish();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_address_gets_so_many_places() {
        let quotas = Quotas { streams: 10, streams_from_address: 8, ..Quotas::default() };
        let parties = Arc::new(Parties::new(&quotas));
        let from = IpAddr::from([192, 0, 2, 1]);
        let mut guests: Vec<Guest> = (0..2).map(|_| parties.admit(from).unwrap()).collect();
        assert!(parties.admit(from).is_none(), "a quarter without an allocation");
        assert!(parties.admit(IpAddr::from([192, 0, 2, 2])).is_some());
        while guests.len() < 8 {
            guests.iter_mut().for_each(Guest::has_proved);
            guests.push(parties.admit(from).unwrap());
        }
        guests.iter_mut().for_each(Guest::has_proved);
        assert!(parties.admit(from).is_none(), "others want to get in, too");
        let others: Vec<Guest> =
            (2..4).map(|last| parties.admit(IpAddr::from([192, 0, 2, last])).unwrap()).collect();
        assert!(parties.admit(IpAddr::from([192, 0, 2, 9])).is_none(), "full");
        drop((guests, others));
        let open = parties.open.lock().unwrap();
        assert!(open.0 == 0 && open.1.is_empty());
    }
}
