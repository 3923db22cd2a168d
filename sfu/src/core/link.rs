//! A participant's peer and what waits to leave through it.

use std::time::Instant;

use super::counters::Counters;
use super::outgoing::Outgoing;
use super::peer::Peer;

/// Which participant of which room: slab keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Route {
    /// The room's key in the engine.
    pub(super) room: usize,
    /// The participant's key in the room.
    pub(super) participant: usize,
}

/// What sending changes outside the participant.
#[derive(Debug, Default)]
pub(super) struct Departures {
    /// Participants with something to send.
    pub(super) waiting: Vec<Route>,
    /// What participants that are gone had still to send.
    pub(super) farewells: Vec<Outgoing>,
    /// Empty arenas. The one used last is taken first: its memory is still in the processor's cache.
    spare: Vec<Outgoing>,
}

/// Arenas kept for the next turn.
const SPARE: usize = 256;

/// The way to one participant.
#[derive(Debug)]
pub(super) struct Link {
    /// The endpoint.
    pub(super) peer: Box<Peer>,
    /// What waits.
    pub(super) outgoing: Outgoing,
    /// Our own stream id in reports.
    pub(super) ssrc: u32,
    /// We are the DTLS client.
    pub(super) active: bool,
    route: Route,
    queued: bool,
}

impl Link {
    /// A link with nothing to send.
    pub(super) fn new(peer: Peer, route: Route, ssrc: u32, active: bool) -> Self {
        let outgoing = Outgoing::default();
        Self { peer: Box::new(peer), outgoing, ssrc, active, route, queued: false }
    }

    /// Writes an RTP packet with `write`, which returns the header's length, seals and queues it.
    /// Returns the length of what was queued.
    pub(super) fn send_rtp(
        &mut self,
        departures: &mut Departures,
        counters: &mut Counters,
        write: impl FnOnce(&mut Vec<u8>) -> Option<usize>,
    ) -> Option<usize> {
        let path = self.peer.path()?;
        self.equip(departures);
        let (buffer, start) = self.outgoing.buffer();
        let sealed = write(buffer).is_some_and(|header| self.peer.seal_rtp(buffer, start, header));
        if !sealed {
            self.outgoing.abandon(start);
            return None;
        }
        let len = self.outgoing.commit(path, start);
        counters.rtp_packets_out += 1;
        counters.bytes_out += len as u64;
        self.queue(departures);
        Some(len)
    }

    /// Queues an RTP datagram that was sealed before, byte for byte.
    pub(super) fn send_again(
        &mut self,
        departures: &mut Departures,
        counters: &mut Counters,
        datagram: &[u8],
    ) -> bool {
        let Some(path) = self.peer.path() else { return false };
        self.equip(departures);
        counters.rtp_packets_out += 1;
        counters.bytes_out += self.outgoing.push(path, datagram) as u64;
        self.queue(departures);
        true
    }

    /// Writes a compound RTCP packet, seals and queues it.
    pub(super) fn send_rtcp(
        &mut self,
        departures: &mut Departures,
        counters: &mut Counters,
        write: impl FnOnce(&mut Vec<u8>),
    ) -> bool {
        let Some(path) = self.peer.path() else { return false };
        self.equip(departures);
        let (buffer, start) = self.outgoing.buffer();
        write(buffer);
        if buffer.len() == start || !self.peer.seal_rtcp(buffer, start) {
            self.outgoing.abandon(start);
            return false;
        }
        counters.rtcp_out += 1;
        counters.bytes_out += self.outgoing.commit(path, start) as u64;
        self.queue(departures);
        true
    }

    /// Queues what the peer itself wants to send.
    pub(super) fn flush(&mut self, departures: &mut Departures, counters: &mut Counters) {
        let mut any = false;
        while let Some((path, datagram)) = self.peer.poll_transmit() {
            self.equip(departures);
            counters.bytes_out += self.outgoing.push(path, &datagram) as u64;
            any = true;
        }
        if any {
            self.queue(departures);
        }
    }

    /// Ends the peer; what it still has to say leaves without it.
    pub(super) fn close(
        mut self,
        now: Instant,
        departures: &mut Departures,
        counters: &mut Counters,
    ) {
        self.peer.close(now);
        self.flush(departures, counters);
        if !self.outgoing.is_empty() {
            departures.farewells.push(self.outgoing);
        }
    }

    /// The engine has taken all that waited: the arena is free for others.
    pub(super) fn emptied(&mut self, departures: &mut Departures) {
        self.queued = false;
        let arena = std::mem::take(&mut self.outgoing);
        if departures.spare.len() < SPARE {
            departures.spare.push(arena);
        }
    }

    /// Takes an arena that others have used, if there is one and none here.
    fn equip(&mut self, departures: &mut Departures) {
        if self.outgoing.is_unused()
            && let Some(arena) = departures.spare.pop()
        {
            self.outgoing = arena;
        }
    }

    fn queue(&mut self, departures: &mut Departures) {
        if !self.queued {
            self.queued = true;
            departures.waiting.push(self.route);
        }
    }
}
