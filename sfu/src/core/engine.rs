//! The engine of one shard: rooms behind one front door, without a socket, a thread or a clock.
//!
//! Feed it with [`Core::handle_input`], then poll [`Core::poll_output`] until it says
//! [`Output::Timeout`]. A room that panics is closed with an event; the others go on.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rand_chacha::rand_core::SeedableRng as _;
use rustc_hash::FxHashMap;
use slab::Slab;

use super::Rng;
use super::api::{
    Command, Event, Input, LeaveReason, NodeEvent, Output, Path, Refusal, RelayFn, RoomKey,
    RoomSnapshot, RoomSpec, SessionEvent, SessionKey,
};
use super::context::{Context, Routes};
use super::counters::Counters;
use super::ice::stun_username;
use super::link::{Departures, Route};
use super::outgoing::Outgoing;
use super::peer::{Crypto, Identity};
use super::room::Room;

/// Told to the sessions of a room whose code panicked: they should join again.
const AFTER_PANIC: LeaveReason = LeaveReason::StateMismatch;

/// How old a gauge may be that changed without a command.
const COUNT: Duration = Duration::from_millis(500);

/// What an engine is made from.
#[derive(Clone, Debug)]
pub struct CoreConfig {
    /// Where clients can reach us by UDP: every answer names these.
    pub candidates: Vec<SocketAddr>,
    /// Where they can reach us by TCP (RFC 6544, passive), for networks that let no UDP out.
    pub tcp_candidates: Vec<SocketAddr>,
    /// Its number among those that share a door; the user names of its peers tell it.
    pub shard: u16,
    /// The certificate of all its peers.
    pub identity: Arc<Identity>,
    /// Opens and closes the envelope of data messages.
    pub relay: RelayFn,
    /// What the wall clock showed at one instant.
    pub wall: WallClock,
    /// What one client may take.
    pub limits: Limits,
    /// Whether packets are protected; anything but [`Crypto::Real`] is for simulators.
    pub crypto: Crypto,
}

/// The wall clock at one instant; the engine goes on from there by its instants.
#[derive(Clone, Copy, Debug)]
pub struct WallClock {
    /// The instant.
    pub at: Instant,
    /// Microseconds since 1970 at that instant.
    pub unix_micros: u64,
}

/// What one client may take.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Announced tracks that no offer carries yet.
    pub pending_tracks: usize,
    /// Published tracks.
    pub tracks: usize,
    /// Tracks it may say something about.
    pub remembered_tracks: usize,
    /// Packets repaired for one request.
    pub repairs_per_request: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { pending_tracks: 20, tracks: 64, remembered_tracks: 2_048, repairs_per_request: 128 }
    }
}

/// The engine of one shard.
#[derive(Debug)]
pub struct Core {
    config: CoreConfig,
    rng: Rng,
    counters: Counters,
    rooms: Slab<Room>,
    keys: FxHashMap<RoomKey, usize>,
    routes: Routes,
    events: VecDeque<Event>,
    departures: Departures,
    /// Farewells being sent, and how many.
    leaving: Option<Outgoing>,
    /// Planned timeouts of rooms; outdated entries are passed over.
    timers: BinaryHeap<Reverse<(Instant, usize)>>,
    /// Gauges must be counted anew.
    stale: bool,
    /// When they are, though no command came.
    count_at: Instant,
    /// The latest time of an input.
    latest: Instant,
}

impl Core {
    /// An engine without rooms. `seed` is all the randomness it will ever have.
    #[must_use]
    pub fn new(now: Instant, config: CoreConfig, seed: [u8; 32]) -> Self {
        Self {
            config,
            rng: Rng::from_seed(seed),
            counters: Counters::default(),
            rooms: Slab::new(),
            keys: FxHashMap::default(),
            routes: Routes::default(),
            events: VecDeque::new(),
            departures: Departures::default(),
            leaving: None,
            timers: BinaryHeap::new(),
            stale: false,
            count_at: now,
            latest: now,
        }
    }

    /// Takes one input. A `now` before an earlier one counts as that one: callers read their clock
    /// before they read their socket, and what depends on ages must not see negative ones.
    pub fn handle_input(&mut self, now: Instant, input: Input<'_>) {
        let now = self.latest.max(now);
        self.latest = now;
        match input {
            Input::Datagram { path, received, data } => self.datagram(now, path, received, data),
            Input::Closed { path } => self.closed(now, path),
            Input::RelayClosed { relay } => {
                for path in self.routes.of_relay(relay) {
                    self.closed(now, path);
                }
            }
            Input::Command(command) => {
                self.stale = true;
                self.command(now, command);
            }
            Input::Timeout => self.timeout(now),
        }
    }

    /// The next output; [`Output::Timeout`] when there is no other.
    pub fn poll_output(&mut self) -> Output<'_> {
        if let Some(event) = self.events.pop_front() {
            return Output::Event(event);
        }
        // Looked for by key and borrowed once found: what is returned borrows from the arena.
        while let Some(route) = self.departures.waiting.last().copied() {
            let link = self.link(route);
            if link.is_some_and(|link| !link.outgoing.is_empty()) {
                break;
            }
            let person = self.rooms.get_mut(route.room);
            let person = person.and_then(|room| room.participants.get_mut(route.participant));
            if let Some(link) = person.and_then(|person| person.links.get_mut(route.way)) {
                link.emptied(&mut self.departures);
            }
            self.departures.waiting.pop();
        }
        if self.leaving.as_mut().is_none_or(Outgoing::is_empty) {
            self.leaving = self.departures.farewells.pop();
        }
        if let Some(route) = self.departures.waiting.last().copied() {
            let train = self.link(route).and_then(|link| link.outgoing.take());
            return train.map_or(Output::Timeout(None), Output::Transmit);
        }
        if self.leaving.is_some() {
            let train = self.leaving.as_mut().and_then(Outgoing::take);
            return train.map_or(Output::Timeout(None), Output::Transmit);
        }
        if std::mem::take(&mut self.stale) {
            Self::count(&self.rooms, &mut self.counters);
        }
        Output::Timeout(Self::next_timer(&self.rooms, &mut self.timers))
    }

    /// What was counted. Gauges are as of the last [`Output::Timeout`].
    #[must_use]
    pub const fn counters(&self) -> &Counters {
        &self.counters
    }

    /// The whole truth about all rooms.
    #[must_use]
    pub fn snapshot(&self) -> Vec<RoomSnapshot> {
        self.rooms.iter().map(|(_, room)| room.snapshot()).collect()
    }

    fn link(&mut self, route: Route) -> Option<&mut super::link::Link> {
        let person = self.rooms.get_mut(route.room)?.participants.get_mut(route.participant)?;
        person.links.get_mut(route.way)
    }

    fn datagram(&mut self, now: Instant, path: Path, received: Instant, data: &mut [u8]) {
        self.counters.bytes_in += data.len() as u64;
        if let Path::Udp { remote, .. } = path
            && self.routes.relayed.contains(&remote)
        {
            self.counters.dropped_claimed += 1;
            return;
        }
        // STUN goes by its user name: an address may have been another participant's before.
        let named = if data.first().is_some_and(|first| *first < 4) {
            let route = stun_username(data).and_then(|name| self.routes.ufrags.get(name));
            self.counters.stun_requests += u64::from(route.is_some());
            route
        } else {
            None
        };
        let Some(route) = named.or_else(|| self.routes.paths.get(&path)).copied() else {
            self.counters.dropped_unknown += 1;
            return;
        };
        self.with_room(now, route.room, |room, ctx| {
            room.datagram(ctx, (route.participant, route.way), path, received, data);
        });
    }

    fn closed(&mut self, now: Instant, path: Path) {
        let Some(route) = self.routes.unprove(path) else { return };
        self.with_room(now, route.room, |room, ctx| {
            room.path_closed(ctx, route.participant, route.way, path);
        });
    }

    fn timeout(&mut self, now: Instant) {
        // Counting visits everyone in every room, and each room has many timeouts a second.
        if now >= self.count_at {
            self.count_at = now + COUNT;
            self.stale = true;
        }
        while let Some(Reverse((at, index))) =
            self.timers.peek().copied().filter(|top| top.0.0 <= now)
        {
            self.timers.pop();
            let room = self.rooms.get_mut(index).filter(|room| room.deadline == Some(at));
            if let Some(room) = room {
                // Taken off the heap, so whatever it plans next is put there again.
                room.deadline = None;
                self.with_room(now, index, |room, ctx| room.handle_timeout(ctx));
            }
        }
    }

    fn command(&mut self, now: Instant, command: Command) {
        match command {
            Command::OpenRoom(spec) => self.open(now, *spec),
            Command::CloseRoom { room, reason } => {
                self.in_room(now, room, |room, ctx| room.close(ctx, reason));
            }
            Command::Join(join) => {
                let (room, session) = (join.room, join.session);
                if !self.in_room(now, room, |room, ctx| room.join(ctx, &join)) {
                    self.refuse(session, Refusal::NoRoom);
                }
            }
            Command::Resume(resume) => {
                let (room, session) = (resume.room, resume.session);
                if !self.in_room(now, room, |room, ctx| room.resume(ctx, &resume)) {
                    self.refuse(session, Refusal::NoParticipant);
                }
            }
            Command::Request { session, request } => {
                self.for_session(now, session, |room, ctx, key| room.request(ctx, key, request));
            }
            Command::SessionGone { session } => {
                self.for_session(now, session, |room, ctx, key| room.session_gone(ctx, key));
            }
            Command::Remove { room, identity, reason } => {
                self.in_room(now, room, |room, ctx| {
                    if let Some(key) = room.by_identity(&identity) {
                        room.remove(ctx, key, reason);
                    }
                });
            }
            Command::UpdateGrant { room, identity, grant } => {
                self.in_room(now, room, |room, ctx| {
                    if let Some(key) = room.by_identity(&identity) {
                        room.set_grant(ctx, key, grant);
                    }
                });
            }
            Command::MuteTrack { room, track, muted } => {
                self.in_room(now, room, |room, ctx| room.mute_track(ctx, &track, muted));
            }
            Command::UpdateParticipant(update) => {
                self.in_room(now, update.room, |room, ctx| room.update_participant(ctx, *update));
            }
            Command::UpdateSubscriptions { room, identity, tracks, subscribe } => {
                self.in_room(now, room, |room, ctx| {
                    room.update_subscriptions(ctx, &identity, tracks, subscribe);
                });
            }
            Command::SendData { room, channel, payload, to, to_sids } => {
                self.in_room(now, room, |room, ctx| {
                    room.send_server_data(ctx, channel, payload, to, &to_sids);
                });
            }
            Command::Confirm { room, number } => {
                let event = NodeEvent::Confirmed { number };
                self.events.push_back(Event::Node { room, event });
            }
            Command::Shutdown => {
                let rooms: Vec<usize> = self.rooms.iter().map(|(index, _)| index).collect();
                for index in rooms {
                    let reason = LeaveReason::ServerShutdown;
                    self.with_room(now, index, |room, ctx| room.close(ctx, reason));
                }
            }
        }
    }

    fn open(&mut self, now: Instant, spec: RoomSpec) {
        let key = spec.room;
        if self.keys.contains_key(&key) {
            self.in_room(now, key, |room, ctx| room.replan(ctx, &spec));
            return;
        }
        let entry = self.rooms.vacant_key();
        let (mut ctx, rooms) = self.parts(now);
        let room = Room::open(&mut ctx, entry, spec);
        let planned = room.deadline;
        rooms.insert(room);
        self.keys.insert(key, entry);
        self.timers.extend(planned.map(|at| Reverse((at, entry))));
    }

    fn refuse(&mut self, session: SessionKey, refusal: Refusal) {
        let event = SessionEvent::Refused(refusal);
        self.events.push_back(Event::Session { session, event });
    }

    fn for_session(
        &mut self,
        now: Instant,
        session: SessionKey,
        work: impl FnOnce(&mut Room, &mut Context<'_>, usize),
    ) {
        let Some(route) = self.routes.sessions.get(&session).copied() else { return };
        self.with_room(now, route.room, |room, ctx| {
            work(room, ctx, route.participant);
            room.plan();
        });
    }

    fn in_room(
        &mut self,
        now: Instant,
        key: RoomKey,
        work: impl FnOnce(&mut Room, &mut Context<'_>),
    ) -> bool {
        let Some(index) = self.keys.get(&key).copied() else { return false };
        self.with_room(now, index, |room, ctx| {
            work(room, ctx);
            room.plan();
        });
        true
    }

    /// Lets a room work. One that panics is taken down, and nothing else with it.
    fn with_room(
        &mut self,
        now: Instant,
        index: usize,
        work: impl FnOnce(&mut Room, &mut Context<'_>),
    ) {
        let (mut ctx, rooms) = self.parts(now);
        let Some(room) = rooms.get_mut(index) else { return };
        let (before, people) = (room.deadline, room.participants.len());
        // What a room may leave half done is itself, and it is thrown away then.
        let done = catch_unwind(AssertUnwindSafe(|| {
            #[cfg(test)]
            assert!(!room.sabotaged, "sabotaged");
            work(room, &mut ctx);
        }));
        let planned = room.deadline;
        let finished = room.finished;
        self.stale |= room.participants.len() != people;
        if done.is_err() {
            return self.after_panic(index);
        }
        if let Some(reason) = finished {
            return self.end(index, reason);
        }
        if let Some(at) = planned.filter(|_| planned != before) {
            self.timers.push(Reverse((at, index)));
        }
    }

    fn after_panic(&mut self, index: usize) {
        self.counters.room_panics += 1;
        let sessions = self.rooms.get(index).map(Room::sessions).unwrap_or_default();
        for session in sessions {
            let event = SessionEvent::Left { reason: AFTER_PANIC, resume: false };
            self.events.push_back(Event::Session { session, event });
        }
        self.end(index, AFTER_PANIC);
    }

    fn end(&mut self, index: usize, reason: LeaveReason) {
        self.stale = true;
        let Some(room) = self.rooms.try_remove(index) else { return };
        self.keys.remove(&room.key);
        self.routes.forget_room(index);
        let event = NodeEvent::RoomFinished { reason };
        self.events.push_back(Event::Node { room: room.key, event });
    }

    fn parts(&mut self, now: Instant) -> (Context<'_>, &mut Slab<Room>) {
        let ctx = Context {
            now,
            config: &self.config,
            rng: &mut self.rng,
            counters: &mut self.counters,
            events: &mut self.events,
            routes: &mut self.routes,
            departures: &mut self.departures,
        };
        (ctx, &mut self.rooms)
    }

    fn next_timer(
        rooms: &Slab<Room>,
        timers: &mut BinaryHeap<Reverse<(Instant, usize)>>,
    ) -> Option<Instant> {
        while let Some(Reverse((at, index))) = timers.peek().copied() {
            if rooms.get(index).is_some_and(|room| room.deadline == Some(at)) {
                return Some(at);
            }
            timers.pop();
        }
        None
    }

    fn count(rooms: &Slab<Room>, counters: &mut Counters) {
        let (mut participants, mut tracks, mut subscriptions, mut paused) = (0, 0, 0, 0);
        for (_, room) in rooms {
            participants += room.participants.len();
            tracks += room.tracks.iter().filter(|(_, track)| track.primary.is_none()).count();
            let flowing = room.participants.iter().flat_map(|(_, person)| &person.subscriptions);
            let flowing = flowing.filter(|(_, sub)| sub.is_flowing());
            for (_, sub) in flowing {
                *(if sub.paused_by_us { &mut paused } else { &mut subscriptions }) += 1u64;
            }
        }
        counters.rooms = rooms.len() as u64;
        counters.participants = participants as u64;
        counters.tracks = tracks as u64;
        counters.subscriptions = subscriptions;
        counters.paused = paused;
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::api::{Join, Private, Profile};
    use super::*;

    fn core(now: Instant) -> Core {
        let config = CoreConfig {
            shard: 0,
            candidates: Vec::new(),
            tcp_candidates: Vec::new(),
            identity: Arc::new(Identity::generate().unwrap()),
            relay: |_, _, _| None,
            wall: WallClock { at: now, unix_micros: 0 },
            limits: Limits::default(),
            crypto: Crypto::Clear,
        };
        Core::new(now, config, [1; 32])
    }

    fn events(core: &mut Core) -> Vec<Event> {
        let mut found = Vec::new();
        loop {
            match core.poll_output() {
                Output::Event(event) => found.push(event),
                Output::Transmit(_) => {}
                Output::Timeout(_) => return found,
            }
        }
    }

    fn open(core: &mut Core, now: Instant, room: u64) {
        let spec = RoomSpec {
            room: RoomKey(room),
            name: Private(String::new()),
            metadata: Private(String::new()),
            max_participants: 0,
            empty_timeout: Some(Duration::from_secs(10)),
            departure_timeout: Some(Duration::from_secs(10)),
            playout_delay: None,
        };
        core.handle_input(now, Input::Command(Command::OpenRoom(Box::new(spec))));
    }

    fn join(core: &mut Core, now: Instant, room: u64, session: u64) {
        let join = Join {
            room: RoomKey(room),
            session: SessionKey(session),
            profile: Profile { identity: Private(session.to_string()), ..Profile::default() },
            grant: super::super::api::Grant::default(),
            auto_subscribe: true,
            adaptive_stream: false,
            allow_pause: true,
            client: super::super::api::ClientTraits::default(),
        };
        core.handle_input(now, Input::Command(Command::Join(Box::new(join))));
    }

    #[test]
    fn a_panic_closes_one_room_and_no_other() {
        let now = Instant::now();
        let mut core = core(now);
        for room in [1, 2] {
            open(&mut core, now, room);
            join(&mut core, now, room, room);
        }
        events(&mut core);
        core.rooms.iter_mut().next().unwrap().1.sabotaged = true;
        join(&mut core, now, 1, 3);
        let told = events(&mut core);
        let left = told.iter().any(|event| {
            matches!(
                event,
                Event::Session { session: SessionKey(1), event: SessionEvent::Left { .. } }
            )
        });
        let finished = told.iter().any(|event| {
            let closed = NodeEvent::RoomFinished { reason: AFTER_PANIC };
            matches!(event, Event::Node { room: RoomKey(1), event } if format!("{event:?}") == format!("{closed:?}"))
        });
        assert!(left && finished);
        assert_eq!((core.counters().room_panics, core.counters().rooms), (1, 1));
        join(&mut core, now, 2, 4);
        let joined = events(&mut core).iter().any(|event| {
            matches!(
                event,
                Event::Session { session: SessionKey(4), event: SessionEvent::Joined { .. } }
            )
        });
        assert!(joined, "the other room goes on");
        assert_eq!(core.snapshot().len(), 1);
    }

    #[test]
    fn rooms_are_opened_once_and_time_is_kept_for_each() {
        let start = Instant::now();
        let mut core = core(start);
        open(&mut core, start, 1);
        open(&mut core, start, 1);
        open(&mut core, start + Duration::from_secs(1), 2);
        let begins = |event: &&Event| {
            matches!(event, Event::Node { event: NodeEvent::RoomStarted { .. }, .. })
        };
        assert_eq!(events(&mut core).iter().filter(begins).count(), 2);
        let Output::Timeout(Some(due)) = core.poll_output() else {
            panic!("rooms close when empty")
        };
        assert_eq!(due, start + Duration::from_secs(10));
        core.handle_input(due, Input::Timeout);
        events(&mut core);
        assert_eq!(core.counters().rooms, 1);
        let Output::Timeout(Some(due)) = core.poll_output() else { panic!("one is left") };
        core.handle_input(due, Input::Timeout);
        events(&mut core);
        assert_eq!(core.counters().rooms, 0);
        assert!(matches!(core.poll_output(), Output::Timeout(None)));
    }

    #[test]
    fn a_session_of_no_room_is_refused() {
        let now = Instant::now();
        let mut core = core(now);
        join(&mut core, now, 7, 1);
        let told = events(&mut core);
        assert!(matches!(
            told.as_slice(),
            [Event::Session { event: SessionEvent::Refused(Refusal::NoRoom), .. }]
        ));
    }
}
