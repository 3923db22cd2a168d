//! Live consultations: the state in memory, and who listens to it.
//!
//! A consultation that somebody touched is kept here until it is over. That makes three things
//! possible: the door of a room answers without the database, facts about rooms take effect while
//! the database is away, and everyone on a channel hears of a change in the same order.
//!
//! The locks are short and never held across an await; the *gate* of a consultation is an
//! asynchronous lock that puts its changes in a row.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use axum::extract::ws::Utf8Bytes;
use tokio::sync::mpsc;
use uuid::Uuid;

use bedside_signaling::ParticipantSid;

use crate::access::Caller;
use crate::channel::limits::Bucket;
use crate::consultation::{Consultation, PersonRole, Sense, Step, Transition};
use crate::frames::{Notice, ServerFrame};
use crate::queue::Queues;
use crate::view::{self, Viewer};

/// How many frames may wait for a client that does not read.
const MAX_QUEUED_FRAMES: usize = 1_024;

/// What a channel's task is told to do.
#[derive(Debug)]
pub(crate) enum Outgoing {
    /// Send this.
    Frame {
        /// The consultation it is about; none = it is for the person or the list.
        session: Option<Uuid>,
        text: Utf8Bytes,
    },
    /// Say goodbye and end.
    Close(CloseReason),
}

/// Why the server ends a channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CloseReason {
    /// No valid token in time, or the token has ended.
    Unauthorized,
    /// The link was revoked, or the person may not see this consultation.
    Forbidden,
    /// Too many bad frames.
    Policy,
    /// The client did not read.
    TooSlow,
    /// Nothing was heard for too long.
    Idle,
    /// Nobody did anything for too long.
    SignedOut,
}

/// The hearing end of one WebSocket, or of one consultation on it.
#[derive(Clone, Debug)]
pub(crate) struct Listener {
    pub(crate) id: u64,
    pub(crate) user_id: String,
    /// The names of what it showed.
    credential: Vec<String>,
    /// Hears everything and is nobody in the consultation: a service, an administrator.
    pub(crate) observer: bool,
    /// The consultation it listens to.
    session: Option<Uuid>,
    /// Messages up to this number reached it another way.
    heard: i64,
    mailbox: Mailbox,
}

/// Where the frames of one WebSocket are put.
#[derive(Clone, Debug)]
pub(crate) struct Mailbox {
    queue: mpsc::Sender<Outgoing>,
    overflow: Arc<tokio::sync::Notify>,
}

/// The task's end of a [`Mailbox`].
pub(crate) struct Inbox {
    pub(crate) queue: mpsc::Receiver<Outgoing>,
    /// Notified when a frame did not fit.
    pub(crate) overflow: Arc<tokio::sync::Notify>,
}

impl Mailbox {
    pub(crate) fn new() -> (Self, Inbox) {
        let (sender, receiver) = mpsc::channel(MAX_QUEUED_FRAMES);
        let overflow = Arc::new(tokio::sync::Notify::new());
        let mailbox = Self { queue: sender, overflow: Arc::clone(&overflow) };
        (mailbox, Inbox { queue: receiver, overflow })
    }

    fn push(&self, outgoing: Outgoing) {
        if let Err(mpsc::error::TrySendError::Full(_)) = self.queue.try_send(outgoing) {
            self.overflow.notify_one();
        }
    }
}

impl Listener {
    pub(crate) fn new(
        mailbox: &Mailbox,
        session: Option<Uuid>,
        caller: &Caller,
        observer: bool,
    ) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let id = NEXT.fetch_add(1, Ordering::Relaxed);
        Self {
            id,
            user_id: caller.0.user_id.clone(),
            credential: caller.1.names().map(str::to_owned).collect(),
            observer,
            session,
            heard: 0,
            mailbox: mailbox.clone(),
        }
    }

    fn came_by(&self, credential: &str) -> bool {
        self.credential.iter().any(|name| name == credential)
    }

    /// Messages up to this number need not be told.
    pub(crate) const fn has_heard(&mut self, sequence: i64) {
        self.heard = sequence;
    }

    /// Queues a frame; a client whose queue is full is cut, nobody waits for it.
    pub(crate) fn tell(&self, text: Utf8Bytes) {
        self.mailbox.push(Outgoing::Frame { session: self.session, text });
    }

    pub(crate) fn close(&self, reason: CloseReason) {
        self.mailbox.push(Outgoing::Close(reason));
    }
}

/// One consultation in memory.
#[derive(Default)]
pub(crate) struct LiveSession {
    /// Held while a change is decided, stored and told.
    pub(crate) gate: tokio::sync::Mutex<()>,
    /// Held while stored messages are told, and while a listener catches up with them.
    pub(crate) telling: tokio::sync::Mutex<()>,
    inner: Mutex<Inner>,
}

#[derive(Default)]
pub(crate) struct Inner {
    /// What we know; none before the first look.
    pub(crate) consultation: Option<Arc<Consultation>>,
    /// Happened, told, but not stored yet.
    pub(crate) unsaved: Vec<Transition>,
    /// Facts to be taken in.
    pub(crate) facts: VecDeque<Step>,
    /// A task is taking in facts.
    pub(crate) taking: bool,
    /// Waiting people whose page has gone; their place is kept.
    pub(crate) away: HashSet<String>,
    /// People in the room whose media has fallen silent, and since when (milliseconds since 1970).
    pub(crate) silent: HashMap<String, i64>,
    /// Which cameras and microphones are muted, by whose they are.
    pub(crate) muted: HashMap<(String, Sense), bool>,
    /// The newest presence of each person in the room.
    pub(crate) presences: HashMap<String, ParticipantSid>,
    /// What each person may still write.
    writing: HashMap<String, Bucket>,
    listeners: Vec<Listener>,
}

impl LiveSession {
    pub(crate) fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn consultation(&self) -> Option<Arc<Consultation>> {
        self.inner().consultation.clone()
    }

    pub(crate) fn listen(&self, listener: Listener) {
        self.inner().listeners.push(listener);
    }

    /// Takes a listener out; `true` = it was the last one of its person.
    pub(crate) fn unlisten(&self, id: u64, user_id: &str) -> bool {
        let mut inner = self.inner();
        inner.listeners.retain(|listener| listener.id != id);
        !inner.listeners.iter().any(|listener| listener.user_id == user_id)
    }

    pub(crate) fn is_listening(&self, user_id: &str) -> bool {
        self.inner().listeners.iter().any(|listener| listener.user_id == user_id)
    }

    /// Takes one message from what a person may write now.
    pub(crate) fn may_write(&self, user_id: &str, now: Instant) -> bool {
        let mut inner = self.inner();
        if let Some(bucket) = inner.writing.get_mut(user_id) {
            return bucket.take(now);
        }
        inner.writing.entry(user_id.to_owned()).or_insert_with(|| Bucket::new(now)).take(now)
    }

    /// Everyone with a channel open, observers left out.
    pub(crate) fn online(&self) -> Vec<String> {
        let mut online: Vec<String> = Vec::new();
        for listener in self.inner().listeners.iter().filter(|listener| !listener.observer) {
            if !online.contains(&listener.user_id) {
                online.push(listener.user_id.clone());
            }
        }
        online
    }

    /// Tells everyone who has a channel open now, as far as they may see each other.
    pub(crate) fn tell_presence(&self, consultation: &Consultation) {
        let online = self.online();
        for listener in self.inner().listeners.iter() {
            let sees = |who: &&String| match viewer(consultation, listener) {
                Viewer::Staff | Viewer::Everything => true,
                Viewer::Outside(me) => **who == *me || **who == consultation.doctor_id,
            };
            let online = online.iter().filter(sees).cloned().collect();
            listener.tell(ServerFrame::Presence { session_id: consultation.id, online }.text());
        }
    }

    fn listeners(&self) -> Vec<Listener> {
        self.inner().listeners.clone()
    }

    /// Ends every channel that came by a credential; tells whose they were.
    fn close_credential(&self, credential: &str) -> Vec<String> {
        let came_by = self.listeners().into_iter().filter(|listener| listener.came_by(credential));
        came_by
            .map(|listener| {
                listener.close(CloseReason::Forbidden);
                listener.user_id
            })
            .collect()
    }

    /// Gives a frame about a chat message to everyone who may read it.
    pub(crate) fn tell_message(
        &self,
        consultation: &Consultation,
        sequence: Option<i64>,
        frame: &Utf8Bytes,
    ) {
        for listener in self.inner().listeners.iter() {
            let new = sequence.is_none_or(|sequence| sequence > listener.heard);
            if new && (listener.observer || may_chat(consultation, &listener.user_id)) {
                listener.tell(frame.clone());
            }
        }
    }

    /// Tells everyone on the channel what has changed.
    pub(crate) fn tell_change(&self, before: Option<&Consultation>, after: &Consultation) {
        for listener in self.listeners() {
            for frame in news(before, after, &listener) {
                listener.tell(frame);
            }
        }
    }
}

/// May this person write to and read from the chat? The doctor, and whoever was let in.
pub(crate) fn may_chat(consultation: &Consultation, user_id: &str) -> bool {
    consultation.role_of(user_id) == PersonRole::Doctor
        || consultation.person(user_id).is_some_and(|person| person.admitted)
}

/// How much of a consultation a listener may see.
pub(crate) fn viewer<'a>(consultation: &Consultation, listener: &'a Listener) -> Viewer<'a> {
    // Details are asked for over HTTP: here they would only grow old.
    if listener.observer || may_chat(consultation, &listener.user_id) {
        Viewer::Everything
    } else {
        Viewer::Outside(&listener.user_id)
    }
}

/// The whole state as one frame.
pub(crate) fn status_frame(consultation: &Consultation, viewer: Viewer<'_>) -> Utf8Bytes {
    ServerFrame::SessionStatus {
        session_id: consultation.id,
        status: consultation.status.as_str(),
        participants: view::people(consultation, viewer),
    }
    .text()
}

/// The frames that bring one listener from `before` to `after`.
fn news(
    before: Option<&Consultation>,
    after: &Consultation,
    listener: &Listener,
) -> Vec<Utf8Bytes> {
    let mut frames = Vec::new();
    let me = listener.user_id.as_str();
    let viewer = viewer(after, listener);
    let presence = |consultation: Option<&Consultation>, user_id: &str| {
        consultation.and_then(|c| c.person(user_id)).map(|person| person.presence)
    };
    for person in &after.people {
        let seen = match viewer {
            Viewer::Staff | Viewer::Everything => true,
            Viewer::Outside(me) => person.user_id == me || person.role == PersonRole::Doctor,
        };
        if seen && presence(before, &person.user_id) != Some(person.presence) {
            let status = if person.connection_lost {
                "CONNECTION_LOST".to_owned()
            } else {
                person.presence.as_str().to_uppercase()
            };
            let frame =
                ServerFrame::ParticipantStatus { participant_id: &person.user_id, status: &status };
            frames.push(frame.text());
        }
    }
    let was_admitted = before.and_then(|c| c.person(me)).is_some_and(|person| person.admitted);
    let is_admitted = after.person(me).is_some_and(|person| person.admitted);
    let over = after.status.is_over();
    if is_admitted && !was_admitted && after.role_of(me) != PersonRole::Doctor {
        frames.push(ServerFrame::Admitted {}.text());
    }
    if was_admitted && !is_admitted && !over {
        frames.push(ServerFrame::SentBack {}.text());
    }
    frames.push(status_frame(after, viewer));
    frames
}

/// A doctor's list, or a clinic's.
#[derive(Clone, Debug)]
pub(crate) struct ListListener {
    pub(crate) clinic: String,
    /// Only this doctor's; none = the whole clinic's.
    pub(crate) doctor_id: Option<String>,
    pub(crate) listener: Listener,
}

/// Everything that is live.
#[derive(Default)]
pub(crate) struct Live {
    sessions: Mutex<HashMap<Uuid, Arc<LiveSession>>>,
    rooms: Mutex<HashMap<String, Uuid>>,
    lists: Mutex<Vec<ListListener>>,
    /// Who wants to hear what concerns them in whatever consultation, by clinic and person.
    people: Mutex<HashMap<(String, String), Vec<Listener>>>,
    queues: Mutex<Queues>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Live {
    /// The consultation, entered if it was not there.
    pub(crate) fn enter(&self, id: Uuid) -> Arc<LiveSession> {
        Arc::clone(lock(&self.sessions).entry(id).or_default())
    }

    /// The consultation, if it is there.
    pub(crate) fn find(&self, id: Uuid) -> Option<Arc<LiveSession>> {
        lock(&self.sessions).get(&id).cloned()
    }

    /// The consultation that a room carries, if it is live.
    pub(crate) fn of_room(&self, room: &str) -> Option<Arc<LiveSession>> {
        let id = lock(&self.rooms).get(room).copied()?;
        self.find(id)
    }

    /// Everything live.
    pub(crate) fn all(&self) -> Vec<Arc<LiveSession>> {
        lock(&self.sessions).values().cloned().collect()
    }

    /// Remembers which consultation a room carries.
    pub(crate) fn know_room(&self, consultation: &Consultation) {
        lock(&self.rooms).insert(consultation.room_name.clone(), consultation.id);
    }

    /// Lets go of a consultation that is over, or was never known, once nobody listens and
    /// everything is stored.
    pub(crate) fn let_go(&self, id: Uuid) {
        let mut sessions = lock(&self.sessions);
        let Some(session) = sessions.get(&id) else { return };
        let room = {
            let inner = session.inner();
            let done = inner.consultation.as_ref().is_none_or(|c| c.status.is_over());
            let idle = inner.listeners.is_empty() && inner.unsaved.is_empty() && !inner.taking;
            if !done || !idle {
                return;
            }
            inner.consultation.as_ref().map(|c| c.room_name.clone())
        };
        // Somebody else holds it: it will be asked to let go again.
        if Arc::strong_count(session) > 1 {
            return;
        }
        sessions.remove(&id);
        drop(sessions);
        if let Some(room) = room {
            lock(&self.rooms).remove(&room);
        }
    }

    /// [`Self::let_go`] of everything that may go.
    pub(crate) fn let_go_of_all(&self) {
        let ids: Vec<Uuid> = lock(&self.sessions).keys().copied().collect();
        for id in ids {
            self.let_go(id);
        }
    }

    pub(crate) fn listen_list(&self, list: ListListener) {
        lock(&self.lists).push(list);
    }

    pub(crate) fn unlisten_list(&self, id: u64) {
        lock(&self.lists).retain(|list| list.listener.id != id);
    }

    pub(crate) fn listen_person(&self, clinic: &str, listener: Listener) {
        let key = (clinic.to_owned(), listener.user_id.clone());
        lock(&self.people).entry(key).or_default().push(listener);
    }

    pub(crate) fn unlisten_person(&self, clinic: &str, listener: &Listener) {
        let key = (clinic.to_owned(), listener.user_id.clone());
        let mut people = lock(&self.people);
        if let Some(listeners) = people.get_mut(&key) {
            listeners.retain(|known| known.id != listener.id);
            if listeners.is_empty() {
                people.remove(&key);
            }
        }
    }

    /// Tells a person something, wherever it listens for itself.
    pub(crate) fn notify(&self, clinic: &str, user_id: &str, frame: impl FnOnce() -> Utf8Bytes) {
        let people = lock(&self.people);
        let Some(listeners) = people.get(&(clinic.to_owned(), user_id.to_owned())) else { return };
        let frame = frame();
        for listener in listeners {
            listener.tell(frame.clone());
        }
    }

    /// Brings the doctor's queue up to date and tells whose place has changed.
    pub(crate) fn queue_up(&self, consultation: &Consultation) {
        let moved = lock(&self.queues).update(consultation);
        for place in moved {
            let position = place.position;
            if let Some(session) = self.find(place.session) {
                for listener in session.inner().listeners.iter() {
                    if listener.user_id == place.user_id && !listener.observer {
                        listener.tell(ServerFrame::Waiting { position }.text());
                    }
                }
            }
            self.notify(&consultation.clinic, &place.user_id, || {
                ServerFrame::Notification {
                    session_id: place.session,
                    notice: Notice::Position { position },
                }
                .text()
            });
        }
    }

    /// A waiting person's place among all who wait for the same doctor, from 1.
    pub(crate) fn place(&self, consultation: &Consultation, user_id: &str) -> Option<usize> {
        lock(&self.queues).place(consultation, user_id)
    }

    /// Tells every list that shows this consultation.
    pub(crate) fn tell_lists(&self, consultation: &Consultation) {
        let lists: Vec<Listener> = lock(&self.lists)
            .iter()
            .filter(|list| {
                list.clinic == consultation.clinic
                    && list.doctor_id.as_ref().is_none_or(|id| *id == consultation.doctor_id)
            })
            .map(|list| list.listener.clone())
            .collect();
        if lists.is_empty() {
            return;
        }
        let session = view::session(consultation, Viewer::Everything);
        let frame = ServerFrame::SessionChanged { session: &session }.text();
        for listener in lists {
            listener.tell(frame.clone());
        }
    }

    /// Ends every channel that came by a credential; tells who was in which consultation.
    pub(crate) fn close_credential(&self, clinic: &str, credential: &str) -> Vec<(Uuid, String)> {
        let mut people = Vec::new();
        for session in self.all() {
            let Some(consultation) = session.consultation().filter(|c| c.clinic == clinic) else {
                continue;
            };
            let users = session.close_credential(credential);
            people.extend(users.into_iter().map(|user_id| (consultation.id, user_id)));
        }
        let lists = lock(&self.lists).clone();
        for list in lists.into_iter().filter(|list| list.clinic == clinic) {
            if list.listener.came_by(credential) {
                list.listener.close(CloseReason::Forbidden);
            }
        }
        for listener in lock(&self.people).values().flatten() {
            if listener.came_by(credential) {
                listener.close(CloseReason::Forbidden);
            }
        }
        people
    }
}
