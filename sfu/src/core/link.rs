//! A participant's peer and what waits to leave through it.

use std::time::Instant;

use super::bwe::{Cargo, Estimator};
use super::counters::Counters;
use super::outgoing::Outgoing;
use super::peer::Peer;
use super::rtp;

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

/// The estimate before anything is known: two lower layers fit, and probes double it within a second.
const START_BPS: u64 = 500_000;
/// What sealing adds to a packet: the tag of AES-GCM (RFC 7714 §5.2).
const TAG: usize = 16;

/// What a packet is for: who may wait, and for whom.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Class {
    /// Leaves at once.
    Audio,
    /// Waits while the link is full.
    Video,
    /// Sent again: leaves at once.
    Repair,
    /// Of a probe.
    #[allow(dead_code, reason = "probes send it")]
    Padding,
}

impl Class {
    const fn cargo(self) -> Cargo {
        match self {
            Self::Audio | Self::Video => Cargo::Media,
            Self::Repair => Cargo::Repair,
            Self::Padding => Cargo::Padding,
        }
    }
}

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
    /// What the link carries; made when there is something to send.
    pub(super) estimator: Option<Box<Estimator>>,
    /// Id of the header extension that carries transport-wide numbers; 0 = not taken.
    number_id: u8,
    route: Route,
    queued: bool,
}

impl Link {
    /// A link with nothing to send.
    pub(super) fn new(peer: Peer, route: Route, ssrc: u32, active: bool) -> Self {
        let outgoing = Outgoing::default();
        Self {
            peer: Box::new(peer),
            outgoing,
            ssrc,
            active,
            estimator: None,
            number_id: 0,
            route,
            queued: false,
        }
    }

    /// The other side receives media, and reports on numbers in the header extension `number_id`
    /// (0 = it does not).
    pub(super) fn receives(&mut self, now: Instant, number_id: u8) {
        self.number_id = number_id;
        self.estimator.get_or_insert_with(|| Box::new(Estimator::new(now, START_BPS)));
    }

    /// Writes an RTP packet with `write`, which returns the header's length, numbers, seals and queues
    /// it. Returns the length of what was queued.
    pub(super) fn send_rtp(
        &mut self,
        now: Instant,
        class: Class,
        departures: &mut Departures,
        counters: &mut Counters,
        write: impl FnOnce(&mut Vec<u8>) -> Option<usize>,
    ) -> Option<usize> {
        let path = self.peer.path()?;
        self.equip(departures);
        let (buffer, start) = self.outgoing.buffer();
        let sealed = write(buffer).is_some_and(|header| {
            if let Some(estimator) = self.estimator.as_mut().filter(|_| self.number_id != 0) {
                let len = buffer.len() - start + TAG;
                let number = estimator.sent(now, len, class.cargo(), None);
                rtp::set_first_extension(buffer, start, self.number_id, number);
            }
            self.peer.seal_rtp(buffer, start, header)
        });
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
