//! A participant's peers, and what waits to leave through each.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use super::api::Path;
use super::bwe::{Cargo, Estimator};
use super::counters::Counters;
use super::outgoing::Outgoing;
use super::pacer::Pacer;
use super::peer::Peer;
use super::rtp::{self, Header};

/// Which of a participant's links.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Way {
    /// The one for everything; where there are two, the one that we send by.
    Down,
    /// The one that it publishes by, where that is another.
    Up,
}

/// Which link of which participant in which room: slab keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Route {
    /// The room's key in the engine.
    pub(super) room: usize,
    /// The participant's key in the room.
    pub(super) participant: usize,
    /// Which of its links.
    pub(super) way: Way,
}

/// A participant's links: one for both directions, or one for each.
#[derive(Debug, Default)]
pub(super) struct Links {
    /// It has one connection to publish by and another to receive on.
    pub(super) split: bool,
    /// The way to it; made at its first offer, or at its first answer where there are two.
    pub(super) down: Option<Link>,
    /// The way from it, where that is another.
    pub(super) up: Option<Link>,
}

impl Links {
    /// Where the link is kept that its media comes by.
    pub(super) const fn source_way(&self) -> Way {
        if self.split { Way::Up } else { Way::Down }
    }

    /// The link that its media comes by.
    pub(super) fn source(&mut self) -> Option<&mut Link> {
        self.get_mut(self.source_way())
    }

    /// One of them.
    pub(super) fn get(&self, way: Way) -> Option<&Link> {
        match way {
            Way::Down => self.down.as_ref(),
            Way::Up => self.up.as_ref(),
        }
    }

    /// One of them.
    pub(super) fn get_mut(&mut self, way: Way) -> Option<&mut Link> {
        match way {
            Way::Down => self.down.as_mut(),
            Way::Up => self.up.as_mut(),
        }
    }

    /// All that are there.
    pub(super) fn all(&self) -> impl Iterator<Item = &Link> {
        self.down.iter().chain(&self.up)
    }

    /// Takes a new link in.
    pub(super) fn put(&mut self, way: Way, link: Link) {
        match way {
            Way::Down => self.down = Some(link),
            Way::Up => self.up = Some(link),
        }
    }
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
/// The least time between two looks for a probe.
const ASK_DISTANCE: Duration = Duration::from_millis(5);
/// What sealing adds to a packet: the tag of AES-GCM (RFC 7714 §5.2).
const TAG: usize = 16;

/// Bytes sent since the beginning.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Tally {
    /// Voices.
    pub(super) audio: u64,
    /// Videos, when first sent.
    pub(super) video: u64,
    /// What was sent again.
    pub(super) repair: u64,
}

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
    /// When video may leave.
    pub(super) pacer: Pacer,
    /// What it was used for.
    pub(super) tally: Tally,
    /// There is a stream that may carry padding.
    pub(super) paddable: bool,
    /// When the estimator was last asked for a probe.
    asked: Instant,
    path: Option<Path>,
    given_up: Vec<u32>,
    gave_up: Option<Instant>,
    route: Route,
    queued: bool,
}

impl Link {
    /// A link with nothing to send.
    pub(super) fn new(now: Instant, peer: Peer, route: Route, ssrc: u32, active: bool) -> Self {
        let outgoing = Outgoing::default();
        Self {
            peer: Box::new(peer),
            outgoing,
            ssrc,
            active,
            estimator: None,
            number_id: 0,
            pacer: Pacer::new(now),
            tally: Tally::default(),
            paddable: false,
            asked: now,
            path: None,
            given_up: Vec::new(),
            gave_up: None,
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

    /// Writes an RTP packet with `write`, which returns the header's length. It is numbered, sealed and
    /// queued; video waits in clear while the link is full. Returns the length of what was queued, 0
    /// for what waits. `None`: it will not leave.
    pub(super) fn send_rtp(
        &mut self,
        now: Instant,
        class: Class,
        departures: &mut Departures,
        counters: &mut Counters,
        write: impl FnOnce(&mut Vec<u8>) -> Option<usize>,
    ) -> Option<usize> {
        let path = self.peer.path()?;
        if class == Class::Repair && !self.pacer.repair_passes(now) {
            counters.repair_refused += 1;
            return None;
        }
        self.equip(departures);
        let (buffer, start) = self.outgoing.buffer();
        let Some(header) = write(buffer) else {
            self.outgoing.abandon(start);
            return None;
        };
        if class == Class::Video && !self.pacer.passes(now) {
            self.hold(now, start, header, departures, counters);
            return Some(0);
        }
        let len = self.seal(now, class, path, start, header)?;
        counters.rtp_packets_out += 1;
        counters.bytes_out += len as u64;
        if class == Class::Padding {
            counters.padding_out += 1;
        }
        self.queue(departures);
        Some(len)
    }

    /// Numbers and seals what was written since `start`.
    fn seal(
        &mut self,
        now: Instant,
        class: Class,
        path: Path,
        start: usize,
        header: usize,
    ) -> Option<usize> {
        let (buffer, _) = self.outgoing.buffer();
        let len = buffer.len().saturating_sub(start) + TAG;
        match class {
            Class::Audio => self.tally.audio += len as u64,
            Class::Video => self.tally.video += len as u64,
            Class::Repair => self.tally.repair += len as u64,
            Class::Padding => {}
        }
        if let Some(estimator) = self.estimator.as_mut().filter(|_| self.number_id != 0) {
            let probe = self.pacer.left(now, len);
            if class == Class::Repair {
                self.pacer.repaired(now, len);
            }
            let number = estimator.sent(now, len, class.cargo(), probe);
            rtp::set_first_extension(buffer, start, self.number_id, number);
        }
        if !self.peer.seal_rtp(buffer, start, header) {
            self.outgoing.abandon(start);
            return None;
        }
        Some(self.outgoing.commit(path, start))
    }

    /// Moves what was written since `start` to where it waits. Where there is no room, everything that
    /// waits is given up.
    fn hold(
        &mut self,
        now: Instant,
        start: usize,
        header: usize,
        departures: &mut Departures,
        counters: &mut Counters,
    ) {
        let (buffer, _) = self.outgoing.buffer();
        let packet = buffer.get(start..).unwrap_or_default();
        let held = self.pacer.push(now, packet, header);
        let header = Header::parse(packet);
        self.outgoing.abandon(start);
        if !held {
            self.give_up(now, departures, counters);
            if let Some(header) = header {
                self.send_empty(now, &header, departures, counters);
            }
        }
    }

    /// Sends what waits and may leave now. What has waited too long is given up: the streams it belongs
    /// to are left in `given_up`.
    pub(super) fn pace(
        &mut self,
        now: Instant,
        departures: &mut Departures,
        counters: &mut Counters,
    ) {
        let path = self.peer.path();
        if self.pacer.is_stale(now) || path.is_none() {
            self.give_up(now, departures, counters);
        }
        let Some(path) = path else { return self.pacer.give_up_probe() };
        while self.pacer.is_ready(now) {
            self.equip(departures);
            let (buffer, start) = self.outgoing.buffer();
            let Some(waiting) = self.pacer.pop() else { break };
            buffer.extend_from_slice(waiting.packet);
            let header = waiting.header;
            if let Some(len) = self.seal(now, Class::Video, path, start, header) {
                counters.rtp_packets_out += 1;
                counters.bytes_out += len as u64;
                self.queue(departures);
            }
        }
        self.pacer.turned(now);
    }

    /// Gives up all that waits.
    fn give_up(&mut self, now: Instant, departures: &mut Departures, counters: &mut Counters) {
        while let Some(waiting) = self.pacer.pop() {
            if let Some(header) = Header::parse(waiting.packet) {
                self.send_empty(now, &header, departures, counters);
            }
        }
    }

    /// Sends a packet without its payload: nobody has seen its number, but later ones follow it, and the
    /// receiver is to see no gap.
    fn send_empty(
        &mut self,
        now: Instant,
        header: &Header,
        departures: &mut Departures,
        counters: &mut Counters,
    ) {
        let Header { payload_type, sequence, timestamp, ssrc, .. } = *header;
        counters.paced_out += 1;
        self.gave_up = Some(now);
        if !self.given_up.contains(&ssrc) {
            self.given_up.push(ssrc);
        }
        let Some(path) = self.peer.path() else { return };
        self.equip(departures);
        let (buffer, start) = self.outgoing.buffer();
        let number = [(self.number_id, &[0, 0][..])];
        let len =
            rtp::write_header(buffer, false, payload_type, sequence, timestamp, ssrc, &number);
        if let Some(len) = self.seal(now, Class::Video, path, start, len) {
            counters.rtp_packets_out += 1;
            counters.bytes_out += len as u64;
            self.queue(departures);
        }
    }

    /// The streams whose packets were given up since this was asked last.
    pub(super) fn take_given_up(&mut self) -> Vec<u32> {
        self.gave_up = None;
        std::mem::take(&mut self.given_up)
    }

    /// How fast video and repair may leave from now on, while so much is needed. Without a word from
    /// the receiver the start is only kept from being a flood.
    pub(super) fn set_rates(&mut self, now: Instant, needed_bps: u64, told: bool) {
        let Some(estimator) = self.estimator.as_ref().filter(|_| self.number_id != 0) else {
            return;
        };
        let (pacing, target) = (estimator.pacing_bps(), estimator.target_bps());
        // What is sent although it does not fit must not pile up here.
        let pacing = pacing.max(needed_bps + needed_bps / 5);
        if told {
            self.pacer.set_rates(now, pacing, target / 4 * 3);
        } else {
            self.pacer.set_rates(now, pacing * 3, 0);
        }
    }

    /// Begins the probe that the estimator wants, if there is one and it can be sent.
    pub(super) fn begin_probe(&mut self, now: Instant) -> bool {
        if !self.paddable || self.pacer.is_probing() || self.number_id == 0 {
            return false;
        }
        let Some(estimator) = &mut self.estimator else { return false };
        self.asked = now;
        estimator.handle_timeout(now);
        let probe = estimator.poll_probe(now);
        if let Some(probe) = probe {
            self.pacer.begin(now, probe);
        }
        probe.is_some()
    }

    /// When it has something to do that the peer does not know of.
    pub(super) fn due(&self) -> Option<Instant> {
        let asks = self.paddable && !self.pacer.is_probing() && self.number_id != 0;
        let estimator = self.estimator.as_ref().filter(|_| asks);
        let probe = estimator.and_then(|estimator| estimator.poll_timeout());
        let probe = probe.map(|at| at.max(self.asked + ASK_DISTANCE));
        self.gave_up.into_iter().chain(self.pacer.due()).chain(probe).min()
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

    /// Takes note of the path in use: behind another address lies another network.
    pub(super) fn note_path(&mut self, now: Instant) {
        let Some(path) = self.peer.path() else { return };
        let before = self.path.replace(path);
        let moved = before.is_some_and(|before| network(before) != network(path));
        if let Some(estimator) = self.estimator.as_mut().filter(|_| moved) {
            estimator.path_changed(now);
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

/// What tells networks apart: a port alone is no other way.
const fn network(path: Path) -> (u64, IpAddr) {
    match path {
        Path::Udp { local: _, remote } => (0, remote.ip()),
        Path::Tcp { connection: _, remote } => (1, remote.ip()),
        // Where its client is, is not told; another allocation may be over another transport.
        Path::Relay { relay, local: _, remote } => (relay.saturating_add(2), remote.ip()),
    }
}
