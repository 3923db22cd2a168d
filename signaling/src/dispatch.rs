//! What the doors, the session tasks and the event loop share: who has which session, which rooms
//! are open, and the way to the engine.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bedside_sfu::core::api::{
    Command, Event, LeaveReason, NodeEvent, ParticipantInfo, ParticipantSid, ParticipantState,
    Private, RoomInfo, RoomKey, RoomSnapshot, SessionEvent, SessionKey,
};
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{mpsc, oneshot, watch};
use tracing::{debug, warn};

use crate::SignalingConfig;
use crate::counters::SignalingCounters;
use crate::engine::{Busy, Engine};
use crate::limits;
use crate::rooms::{Directory, DoorRefusal, Doorkeeper, Fact, RoomPlan, RoomSettings};

/// Shared by everything that serves a session.
pub(crate) struct Shared {
    pub(crate) config: SignalingConfig,
    pub(crate) door: Arc<dyn Doorkeeper>,
    pub(crate) counters: Arc<SignalingCounters>,
    engine: Arc<dyn Engine>,
    facts: mpsc::Sender<Fact>,
    phase: AtomicU8,
    state: Mutex<State>,
}

/// One lock for everything that changes together; it is held for look-ups only.
#[derive(Default)]
struct State {
    directory: Directory,
    sessions: HashMap<SessionKey, Seat>,
    /// The newest session of each participant.
    newest: HashMap<ParticipantSid, SessionKey>,
    /// Facts were lost; a snapshot is due.
    snapshot_due: bool,
    /// Who waits until its commands are done, by the number of the last one.
    confirmations: HashMap<u64, (RoomKey, oneshot::Sender<()>)>,
    next_confirmation: u64,
}

struct Seat {
    room: RoomKey,
    participant: Option<ParticipantSid>,
    events: mpsc::Sender<SessionEvent>,
    cut: watch::Sender<Option<Cut>>,
}

/// Why a session's task is to end its session without an event of the engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cut {
    /// Its client or its task did not keep up, or events were lost: come back.
    Resume,
    /// A newer session of the same participant took over: say nothing.
    Superseded,
    /// The server stops.
    Shutdown,
}

/// A session's place in the table. Dropping it tells the engine that the session is gone.
pub(crate) struct Place {
    shared: Arc<Shared>,
    pub(crate) room: RoomKey,
    pub(crate) session: SessionKey,
    pub(crate) events: mpsc::Receiver<SessionEvent>,
    pub(crate) cut: watch::Receiver<Option<Cut>>,
}

const SERVING: u8 = 0;
const DRAINING: u8 = 1;
const STOPPING: u8 = 2;

impl Shared {
    pub(crate) fn new(
        config: SignalingConfig,
        engine: Arc<dyn Engine>,
        door: Arc<dyn Doorkeeper>,
        facts: mpsc::Sender<Fact>,
    ) -> Self {
        Self {
            config,
            door,
            counters: Arc::default(),
            engine,
            facts,
            phase: AtomicU8::new(SERVING),
            state: Mutex::default(),
        }
    }

    pub(crate) fn send(&self, room: RoomKey, command: Command) -> Result<(), Busy> {
        self.engine.send(room, command)
    }

    /// Would this person find the room full? Asked before an upgrade; the engine decides.
    pub(crate) fn is_full(&self, room: &str, identity: &str, plan: &RoomPlan) -> bool {
        let state = self.state();
        let known = state.directory.plan(room).filter(|_| !plan.fixed);
        let limit = known.unwrap_or(plan).max_participants;
        state.directory.is_full(room, identity, limit)
    }

    /// May somebody come into this room now, as far as the phase of the server goes?
    pub(crate) fn admits(&self, room: &str) -> Result<(), DoorRefusal> {
        match self.phase.load(Ordering::Relaxed) {
            SERVING => Ok(()),
            DRAINING if self.state().directory.key(room).is_some() => Ok(()),
            _ => Err(DoorRefusal::Draining),
        }
    }

    /// The key of the open room of that name.
    pub(crate) fn room(&self, name: &str) -> Option<RoomKey> {
        self.state().directory.key(name)
    }

    /// The key of the open room of that name; opens it where there is none.
    pub(crate) fn open_room(&self, name: &str, plan: &RoomPlan) -> Result<RoomKey, Busy> {
        let mut state = self.state();
        if let Some(key) = state.directory.key(name) {
            let limit = |known: &mut RoomPlan| known.max_participants = plan.max_participants;
            let changed = if plan.fixed { state.directory.replan(name, limit) } else { None };
            if let Some(spec) = changed {
                self.engine.send(key, Command::OpenRoom(Box::new(spec)))?;
            }
            return Ok(key);
        }
        let key = self.engine.mint_room();
        let spec = state.directory.open(name, key, plan);
        let sent = self.engine.send(key, Command::OpenRoom(Box::new(spec)));
        if sent.is_err() {
            state.directory.close(key);
        }
        sent.map(|()| key)
    }

    /// Opens a room for an administrator, or changes one that is open.
    pub(crate) fn make_room(
        &self,
        name: &str,
        mut plan: RoomPlan,
        settings: &RoomSettings,
    ) -> Result<RoomKey, Busy> {
        let open = self.change_room(name, |plan| settings.apply(plan))?;
        if let Some(key) = open {
            return Ok(key);
        }
        settings.apply(&mut plan);
        self.open_room(name, &plan)
    }

    /// Changes a room's metadata.
    pub(crate) fn set_metadata(&self, name: &str, text: &Private<String>) -> Result<(), Busy> {
        self.change_room(name, |plan| plan.metadata.clone_from(text.reveal())).map(drop)
    }

    /// Changes the plan of an open room; `None` where it is not open.
    fn change_room(
        &self,
        name: &str,
        change: impl FnOnce(&mut RoomPlan),
    ) -> Result<Option<RoomKey>, Busy> {
        let mut state = self.state();
        let Some(key) = state.directory.key(name) else { return Ok(None) };
        if let Some(spec) = state.directory.replan(name, change) {
            self.engine.send(key, Command::OpenRoom(Box::new(spec)))?;
        }
        Ok(Some(key))
    }

    /// The plan of an open room whose plan is nobody's but its maker's: whoever has a token for it
    /// may come in.
    pub(crate) fn made_room(&self, name: &str) -> Option<RoomPlan> {
        self.state().directory.plan(name).filter(|plan| !plan.fixed).cloned()
    }

    /// An open room.
    pub(crate) fn room_info(&self, name: &str) -> Option<RoomInfo> {
        self.state().directory.room(name)
    }

    /// The open rooms that are wanted.
    pub(crate) fn rooms(&self, wanted: impl Fn(&str) -> bool) -> Vec<RoomInfo> {
        let state = self.state();
        let names = state.directory.names().filter(|name| wanted(name));
        names.filter_map(|name| state.directory.room(name)).collect()
    }

    /// Everybody in a room.
    pub(crate) fn people(&self, room: &str) -> Vec<ParticipantInfo> {
        self.state().directory.participants(room).cloned().collect()
    }

    /// Somebody in a room.
    pub(crate) fn person(&self, room: &str, identity: &str) -> Option<ParticipantInfo> {
        let state = self.state();
        let is = |info: &&ParticipantInfo| info.profile.identity.reveal() == identity;
        state.directory.participants(room).find(is).cloned()
    }

    /// Was no message with this mark sent to the room before?
    pub(crate) fn is_news(&self, room: &str, nonce: &[u8]) -> bool {
        self.state().directory.is_news(room, nonce)
    }

    /// Forgets a room that the engine says it does not have.
    pub(crate) fn forget_room(&self, key: RoomKey) {
        self.state().directory.close(key);
    }

    /// A place for a new session. Events for it may come as soon as a command names it.
    pub(crate) fn seat(self: &Arc<Self>, room: RoomKey) -> Place {
        let session = self.engine.mint_session();
        let (events, to_read) = mpsc::channel(limits::SESSION_EVENTS);
        let (cut, to_watch) = watch::channel(None);
        let seat = Seat { room, participant: None, events, cut };
        self.state().sessions.insert(session, seat);
        self.counters.sessions.up();
        Place { shared: Arc::clone(self), room, session, events: to_read, cut: to_watch }
    }

    /// This session speaks for that participant now; an older one of it is cut silently.
    pub(crate) fn take_over(&self, session: SessionKey, participant: &ParticipantSid) {
        let mut state = self.state();
        let Some(seat) = state.sessions.get_mut(&session) else { return };
        seat.participant = Some(participant.clone());
        let older = state.newest.insert(participant.clone(), session);
        if let Some(seat) = older.filter(|o| *o != session).and_then(|o| state.sessions.get(&o)) {
            seat.cut.send_replace(Some(Cut::Superseded));
        }
    }

    /// Takes one event of the engine.
    pub(crate) fn dispatch(&self, event: Event) {
        match event {
            Event::Session { session, event } => self.to_session(session, event),
            Event::Node { room, event } => self.to_books(room, event),
            Event::Resync { shard, shards, rooms } => self.resync(shard, shards, &rooms),
        }
    }

    /// Ends every session; clients may come back.
    pub(crate) fn cut_all(&self) {
        for seat in self.state().sessions.values() {
            seat.cut.send_replace(Some(Cut::Resume));
        }
    }

    pub(crate) fn command_room(
        &self,
        room: &str,
        command: impl FnOnce(RoomKey) -> Command,
    ) -> bool {
        let key = self.room(room);
        key.is_some_and(|key| self.engine.send(key, command(key)).is_ok())
    }

    pub(crate) fn command_participant(
        &self,
        room: &str,
        identity: &str,
        command: impl FnOnce(RoomKey, Private<String>) -> Command,
    ) -> bool {
        if !self.state().directory.has(room, identity) {
            return false;
        }
        self.command_room(room, |key| command(key, Private::new(identity.to_owned())))
    }

    pub(crate) fn drain(&self) {
        self.phase.fetch_max(DRAINING, Ordering::Relaxed);
    }

    pub(crate) fn shutdown(&self) {
        self.phase.fetch_max(STOPPING, Ordering::Relaxed);
        let state = self.state();
        for room in state.directory.keys() {
            let close = Command::CloseRoom { room, reason: LeaveReason::ServerShutdown };
            if self.engine.send(room, close).is_err() {
                warn!("a room could not be told of the shutdown");
            }
        }
        for seat in state.sessions.values() {
            seat.cut.send_replace(Some(Cut::Shutdown));
        }
    }

    pub(crate) fn size(&self) -> (usize, usize) {
        self.state().directory.size()
    }

    fn to_session(&self, session: SessionKey, event: SessionEvent) {
        let state = self.state();
        let Some(seat) = state.sessions.get(&session) else { return };
        match seat.events.try_send(event) {
            Ok(()) | Err(TrySendError::Closed(_)) => {}
            Err(TrySendError::Full(_)) => {
                self.counters.slow_readers.up();
                seat.cut.send_replace(Some(Cut::Resume));
            }
        }
    }

    /// Ends when everything that this room's shard was told before is done, and the directory knows
    /// of it.
    pub(crate) fn confirmed(&self, room: RoomKey) -> Result<oneshot::Receiver<()>, Busy> {
        let (done, waiting) = oneshot::channel();
        let mut state = self.state();
        let number = state.next_confirmation;
        state.next_confirmation = number.wrapping_add(1);
        state.confirmations.retain(|_, (_, waiting)| !waiting.is_closed());
        state.confirmations.insert(number, (room, done));
        self.engine.send(room, Command::Confirm { room, number })?;
        Ok(waiting)
    }

    fn to_books(&self, room: RoomKey, event: NodeEvent) {
        let mut state = self.state();
        if let NodeEvent::Confirmed { number } = event {
            if let Some((_, waiting)) = state.confirmations.remove(&number) {
                let _nobody_waits = waiting.send(());
            }
            return;
        }
        let Some(fact) = state.directory.apply(room, event) else { return };
        match &fact {
            Fact::Participant { room, info } => match info.state {
                ParticipantState::Joined | ParticipantState::Active => {
                    self.config.ice_servers.present(room, info);
                }
                ParticipantState::Disconnected(_) => self.config.ice_servers.left(&info.sid),
            },
            // Whoever was in it when its code failed has left without a word.
            Fact::RoomFinished { .. } | Fact::Snapshot { .. } => self.count_heads(&state),
            Fact::RoomStarted { .. }
            | Fact::RoomChanged { .. }
            | Fact::Reachable { .. }
            | Fact::Measured { .. } => {}
        }
        self.tell(&mut state, fact);
    }

    fn count_heads(&self, state: &State) {
        self.config.ice_servers.all(&mut state.directory.people());
    }

    /// Hands on a fact, or a snapshot of everything where facts were lost before.
    fn tell(&self, state: &mut State, fact: Fact) {
        let fact = if state.snapshot_due { state.directory.snapshot() } else { fact };
        state.snapshot_due = match self.facts.try_send(fact) {
            Ok(()) | Err(TrySendError::Closed(_)) => false,
            Err(TrySendError::Full(_)) => {
                self.counters.facts_lost.up();
                true
            }
        };
    }

    /// A shard lost events. An answer may be among them, so all its clients must resume: their
    /// media goes on meanwhile.
    fn resync(&self, shard: u64, shards: u64, rooms: &[RoomSnapshot]) {
        let mut state = self.state();
        warn!(shard, rooms = rooms.len(), "events were lost, clients are told to resume");
        let of_shard = |room: RoomKey| room.0.checked_rem(shards) == Some(shard);
        state.directory.resync(rooms, of_shard);
        for seat in state.sessions.values().filter(|seat| of_shard(seat.room)) {
            seat.cut.send_replace(Some(Cut::Resume));
        }
        // The word may have been among what was lost; the directory knows all of it now.
        state.confirmations.retain(|_, (room, _)| !of_shard(*room));
        self.count_heads(&state);
        let fact = state.directory.snapshot();
        self.tell(&mut state, fact);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut state = self.shared.state();
        let seat = state.sessions.remove(&self.session);
        if let Some(participant) = seat.and_then(|seat| seat.participant)
            && state.newest.get(&participant) == Some(&self.session)
        {
            state.newest.remove(&participant);
        }
        drop(state);
        self.shared.counters.sessions.down();
        let gone = Command::SessionGone { session: self.session };
        if self.shared.engine.send(self.room, gone).is_err() {
            // The participant then leaves when its media falls silent.
            debug!("the node was too busy to hear that a session is gone");
        }
    }
}
