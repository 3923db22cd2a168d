//! The one place where consultations change: decide, store, tell.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use chrono::{DateTime, Utc};
use uuid::Uuid;

use crate::ControlConfig;
use crate::audit;
use crate::audit::ledger::Ledger;
use crate::consultation::{Actor, Consultation, Happening, Refusal, Step, Transition};
use crate::counters::ControlCounters;
use crate::events::{self, Sink};
use crate::idle::Idle;
use crate::jwks::Jwks;
use crate::live::{Live, LiveSession};
use crate::revocation::Revoked;
use crate::rooms::Rooms;
use crate::service_keys::KnownKeys;
use crate::store::outbox::{Along, MessageId};
use crate::store::{self, Db, Saved};
use crate::timers::{self, Alarms};

/// How long a change may take to be stored before its asker is told that the database is away.
const SAVE_TIMEOUT: Duration = Duration::from_secs(5);

/// How many facts may wait to be stored while the database is away; older ones stay.
const MAX_UNSAVED: usize = 1_000;

/// Attempts against another process that changes the same consultation.
const MAX_ATTEMPTS: usize = 5;

/// Why a change did not happen.
#[derive(Debug, thiserror::Error)]
pub enum ChangeError {
    /// No such consultation in this clinic.
    #[error("there is no such consultation")]
    NotFound,
    /// The consultation is not in the right state.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// Its patient has not paid.
    #[error("the appointment of this consultation is not paid")]
    PaymentRequired,
    /// The database does not answer.
    #[error("the database does not answer")]
    Database(#[source] sqlx::Error),
    /// Somebody else kept changing the same consultation.
    #[error("the consultation is being changed by others")]
    Busy,
}

impl From<sqlx::Error> for ChangeError {
    fn from(error: sqlx::Error) -> Self {
        Self::Database(error)
    }
}

/// What became of one attempt at a step.
pub(crate) enum Tried {
    /// It is done, and this is the new state.
    Done(Arc<Consultation>),
    /// There was nothing to do.
    Nothing,
    /// Somebody else changed the consultation first; it is to be loaded again.
    Stale,
}

/// Everything the control plane holds.
pub(crate) struct Control {
    pub(crate) config: ControlConfig,
    pub(crate) db: Db,
    /// The identity service's keys.
    pub(crate) jwks: Option<Arc<Jwks>>,
    /// Service keys that were seen a moment ago.
    pub(crate) keys: KnownKeys,
    /// Who does nothing, and since when.
    pub(crate) idle: Idle,
    /// Connection checks that run.
    pub(crate) checks: crate::checks::Running,
    /// Credentials that are good no more.
    pub(crate) revoked: Revoked,
    /// This process among those that share the database.
    pub(crate) instance: Uuid,
    /// Audit rows that no transaction takes along.
    pub(crate) ledger: Ledger,
    pub(crate) live: Live,
    pub(crate) rooms: Rooms,
    pub(crate) counters: ControlCounters,
    /// What is known of links that tokens came from.
    pub(crate) links: Mutex<HashMap<Uuid, crate::links::Known>>,
    /// Who has sent how much.
    pub(crate) limiters: crate::api::Limiters,
    /// What the parts of the server have said of themselves.
    pub(crate) pulse: crate::health::Pulse,
    /// Where events go.
    pub(crate) sinks: Vec<Sink>,
    /// Where it goes what rooms tell.
    pub(crate) room_sinks: Vec<Sink>,
    /// What rooms have told.
    pub(crate) reporter: events::rooms::Reporter,
    /// Rung when events were stored.
    pub(crate) outbox_rang: tokio::sync::Notify,
    /// Turns true when the process ends.
    pub(crate) ending: tokio::sync::watch::Sender<bool>,
    /// Held by what runs behind the requests, to its end.
    pub(crate) running: tokio::sync::Mutex<()>,
    /// When what is in memory is due.
    pub(crate) alarms: Alarms,
    /// The way to the chat's writer.
    pub(crate) chat: crate::chat::writer::Writer,
    /// Files and pictures.
    pub(crate) files: crate::attachments::files::Files,
    /// One place for each upload that is being read.
    pub(crate) uploads: tokio::sync::Semaphore,
}

impl Control {
    /// The consultation as it is now: from memory, else from the database.
    pub(crate) async fn look(
        &self,
        clinic: &str,
        id: Uuid,
    ) -> Result<Arc<Consultation>, ChangeError> {
        audit::about(id);
        let known = self.live.find(id).and_then(|live| live.consultation());
        let consultation = match known {
            Some(consultation) => consultation,
            None => {
                let stored = self.within(self.db.session(clinic, id)).await?;
                Arc::new(stored.ok_or(ChangeError::NotFound)?)
            }
        };
        if consultation.clinic == clinic { Ok(consultation) } else { Err(ChangeError::NotFound) }
    }

    /// Takes one step with a consultation: decides, stores, then tells everyone.
    pub(crate) async fn step(
        &self,
        clinic: &str,
        id: Uuid,
        actor: &Actor,
        step: &Step,
    ) -> Result<Arc<Consultation>, ChangeError> {
        self.step_once(clinic, id, actor, step, None).await
    }

    /// [`Self::step`], because of a message: one that has taken effect before changes nothing.
    pub(crate) async fn step_once(
        &self,
        clinic: &str,
        id: Uuid,
        actor: &Actor,
        step: &Step,
        message: Option<&MessageId>,
    ) -> Result<Arc<Consultation>, ChangeError> {
        // Nobody enters an unknown id into memory.
        self.look(clinic, id).await?;
        let live = self.live.enter(id);
        let result = {
            let _gate = live.gate.lock().await;
            self.step_in_turn(&live, clinic, id, actor, step, message).await
        };
        drop(live);
        self.live.let_go(id);
        result
    }

    /// The gate of `live` is held.
    pub(crate) async fn step_in_turn(
        &self,
        live: &LiveSession,
        clinic: &str,
        id: Uuid,
        actor: &Actor,
        step: &Step,
        message: Option<&MessageId>,
    ) -> Result<Arc<Consultation>, ChangeError> {
        for _ in 0..MAX_ATTEMPTS {
            let before = self.load(live, clinic, id).await?;
            let now = store::now();
            match self.try_step(live, &before, now, actor, step, message).await? {
                Tried::Done(after) => return Ok(after),
                Tried::Nothing => return Ok(before),
                Tried::Stale => {}
            }
        }
        Err(ChangeError::Busy)
    }

    /// One attempt at a step, from a known state: decides, stores, tells. The gate is held.
    pub(crate) async fn try_step(
        &self,
        live: &LiveSession,
        before: &Arc<Consultation>,
        now: DateTime<Utc>,
        actor: &Actor,
        step: &Step,
        message: Option<&MessageId>,
    ) -> Result<Tried, ChangeError> {
        let mut after = Consultation::clone(before);
        let made = after.apply(now, actor, step)?;
        if made.is_empty() {
            if message.is_some() {
                let along = Along { message, ..Along::default() };
                self.within(self.db.append_events(&along, now)).await?;
            }
            return Ok(Tried::Nothing);
        }
        match self.save(live, before, &mut after, &made, message).await {
            Ok(Saved::Yes) => {}
            Ok(Saved::Repeated) => return Ok(Tried::Nothing),
            Ok(Saved::Stale) => {
                live.inner().consultation = None;
                return Ok(Tried::Stale);
            }
            // Nobody gains a right by it: it takes effect now and is stored later.
            Err(ChangeError::Database(_)) if message.is_none() && same_rights(before, &after) => {
                keep_unsaved(live, &made);
                audit::deferred();
            }
            Err(error) => return Err(error),
        }
        let after = Arc::new(after);
        live.inner().consultation = Some(Arc::clone(&after));
        self.tell(live, before, &after, &made);
        Ok(Tried::Done(after))
    }

    /// The gate of `live` is held.
    pub(crate) async fn load(
        &self,
        live: &LiveSession,
        clinic: &str,
        id: Uuid,
    ) -> Result<Arc<Consultation>, ChangeError> {
        if let Some(known) = live.consultation() {
            return if known.clinic == clinic { Ok(known) } else { Err(ChangeError::NotFound) };
        }
        let stored = self.within(self.db.session(clinic, id)).await?;
        let consultation = Arc::new(stored.ok_or(ChangeError::NotFound)?);
        self.live.know_room(&consultation);
        self.arm(&consultation);
        live.inner().consultation = Some(Arc::clone(&consultation));
        Ok(consultation)
    }

    /// Stores `after` with everything that is still unsaved; its revision rises if it worked.
    async fn save(
        &self,
        live: &LiveSession,
        before: &Consultation,
        after: &mut Consultation,
        made: &[Transition],
        message: Option<&MessageId>,
    ) -> Result<Saved, ChangeError> {
        let unsaved = live.inner().unsaved.clone();
        let all: Vec<Transition> = unsaved.into_iter().chain(made.iter().cloned()).collect();
        let expected = before.revision;
        after.revision = expected + 1;
        after.due_at = timers::due(after, &self.config.timers).map(|due| due.at);
        let events = events::told_by(after, &all);
        let along = Along { events: &events, sinks: &self.sinks, message };
        let billing = self.config.billing;
        let saved = self.db.save_session(after, expected, &all, &along, billing, store::now());
        match self.within(saved).await {
            Ok(Saved::Yes) => {
                live.inner().unsaved.clear();
                if !events.is_empty() {
                    self.outbox_rang.notify_waiters();
                }
                Ok(Saved::Yes)
            }
            other => {
                after.revision = expected;
                other
            }
        }
    }

    /// Tells rooms, counters, channels and lists what has happened.
    fn tell(
        &self,
        live: &LiveSession,
        before: &Consultation,
        after: &Consultation,
        made: &[Transition],
    ) {
        for transition in made {
            let about = transition.user_id.as_deref();
            match transition.happening {
                Happening::SentBack | Happening::Removed | Happening::Left => {
                    if let Some(user_id) = about {
                        self.rooms.remove(&after.room_name, user_id);
                    }
                }
                Happening::Ended | Happening::Failed => self.rooms.close(&after.room_name),
                Happening::Admitted => self.counters.admissions.add(),
                Happening::Created
                | Happening::PatientJoined
                | Happening::DoctorJoined
                | Happening::GuestJoined
                | Happening::WentAway
                | Happening::Connected
                | Happening::Reconnected
                | Happening::Reconnecting
                | Happening::ReconnectAttempt
                | Happening::Disconnected
                | Happening::ConnectionLost
                | Happening::DeviceChanged
                | Happening::Measured
                | Happening::Started
                | Happening::BothConnected
                | Happening::Reopened
                | Happening::Rescheduled
                | Happening::RoomOpened
                | Happening::Muted(..)
                | Happening::Paused
                | Happening::Resumed => {}
            }
            tracing::info!(
                session = %after.id,
                happening = transition.happening.as_str(),
                status = after.status.as_str(),
                "consultation"
            );
        }
        self.counters.moved(Some(before.status), after.status);
        self.arm(after);
        live.tell_change(Some(before), after);
        self.live.queue_up(after);
        self.live.tell_lists(after);
        self.write_lines(after, made);
        self.notify_change(after, made);
    }

    /// Takes in a fact about a person in a room. Returns at once; facts of one consultation are
    /// taken in the order they came, and take effect even while the database is away.
    pub(crate) fn note(self: &Arc<Self>, live: &Arc<LiveSession>, step: Step) {
        {
            let mut inner = live.inner();
            if inner.facts.len() >= MAX_UNSAVED {
                tracing::warn!("a consultation has too many facts waiting; one is dropped");
                return;
            }
            inner.facts.push_back(step);
            if std::mem::replace(&mut inner.taking, true) {
                return;
            }
        }
        let control = Arc::clone(self);
        let live = Arc::clone(live);
        tokio::spawn(async move { control.take_facts(live).await });
    }

    async fn take_facts(&self, live: Arc<LiveSession>) {
        let mut id = None;
        {
            let _gate = live.gate.lock().await;
            loop {
                let fact = {
                    let mut inner = live.inner();
                    let fact = inner.facts.pop_front();
                    if fact.is_none() {
                        inner.taking = false;
                    }
                    fact
                };
                let Some(step) = fact else { break };
                let Some(before) = live.consultation() else { continue };
                id = Some(before.id);
                let mut after = Consultation::clone(&before);
                // Refused: the fact is older than what we know, or about nobody of ours.
                let Ok(made) = after.apply(store::now(), &Actor::Server, &step) else { continue };
                if made.is_empty() {
                    continue;
                }
                keep_unsaved(&live, &made);
                let after = Arc::new(after);
                live.inner().consultation = Some(Arc::clone(&after));
                self.tell(&live, &before, &after, &made);
            }
            self.store_unsaved(&live).await;
        }
        drop(live);
        if let Some(id) = id {
            self.live.let_go(id);
        }
    }

    /// Stores what took effect while the database was away. The gate is held.
    async fn store_unsaved(&self, live: &LiveSession) {
        let Some(before) = live.consultation() else { return };
        if live.inner().unsaved.is_empty() {
            return;
        }
        let mut after = Consultation::clone(&before);
        match self.save(live, &before, &mut after, &[], None).await {
            Ok(Saved::Yes | Saved::Repeated) => live.inner().consultation = Some(Arc::new(after)),
            Ok(Saved::Stale) => {
                // Another process has moved on; its word counts, our facts will come again.
                let mut inner = live.inner();
                inner.unsaved.clear();
                inner.consultation = None;
            }
            Err(error) => tracing::warn!(%error, "facts of a consultation wait to be stored"),
        }
    }

    /// Once in a while: stores what could not be stored before, and lets go of what is over.
    pub(crate) async fn retry_unsaved(&self) {
        for live in self.live.all() {
            let waiting = !live.inner().unsaved.is_empty();
            if waiting {
                let _gate = live.gate.lock().await;
                self.store_unsaved(&live).await;
            }
        }
        self.live.let_go_of_all();
    }

    /// A database call with an end.
    pub(crate) async fn within<T>(
        &self,
        call: impl Future<Output = Result<T, sqlx::Error>>,
    ) -> Result<T, ChangeError> {
        let result = match tokio::time::timeout(SAVE_TIMEOUT, call).await {
            Ok(result) => result,
            Err(_) => Err(sqlx::Error::PoolTimedOut),
        };
        result.map_err(|error| {
            self.counters.database_failures.add();
            tracing::warn!(error = %kind_of(&error), "the database did not answer");
            ChangeError::Database(error)
        })
    }

    /// The time by which a token that lives this long has ended.
    pub(crate) fn ends_in(ttl: Duration) -> DateTime<Utc> {
        store::now() + chrono::Duration::from_std(ttl).unwrap_or_else(|_| chrono::Duration::zero())
    }
}

/// The kind of a database error: its text may quote a value, and values are personal.
pub(crate) fn kind_of(error: &sqlx::Error) -> String {
    match error {
        sqlx::Error::Database(error) => {
            format!("database error {}", error.code().unwrap_or_default())
        }
        sqlx::Error::Io(error) => format!("i/o error: {:?}", error.kind()),
        sqlx::Error::PoolTimedOut => "no answer in time".to_owned(),
        sqlx::Error::PoolClosed => "closed".to_owned(),
        _ => "other".to_owned(),
    }
}

/// Nobody was let in or put out, and the status stayed.
fn same_rights(before: &Consultation, after: &Consultation) -> bool {
    let admitted = |consultation: &Consultation| {
        let people = consultation.people.iter();
        people.filter(|p| p.admitted).map(|p| p.user_id.clone()).collect::<Vec<_>>()
    };
    before.status == after.status && admitted(before) == admitted(after)
}

fn keep_unsaved(live: &LiveSession, made: &[Transition]) {
    let mut inner = live.inner();
    let room = MAX_UNSAVED.saturating_sub(inner.unsaved.len());
    inner.unsaved.extend(made.iter().take(room).cloned());
}
