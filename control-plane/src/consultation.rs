//! The consultation: what a doctor and a patient go through, as a state machine.
//!
//! ```text
//! SCHEDULED ──▶ WAITING ──▶ IN_PROGRESS ⇄ PAUSED ──▶ COMPLETED
//!     └───────────┴──▶ CANCELLED, NO_SHOW      (before it began)
//!     └───────────┴───────────┴──────────┴──▶ FAILED
//!                 ▲
//!                 └── NO_SHOW; COMPLETED, soon after   (opened again)
//! ```
//!
//! Pure: no clock, no database, no randomness. Time is an argument, and each step returns the
//! [`Transition`]s it made, with actor, time and reason; an empty answer means that nothing was
//! left to do (a repeated request). Who may ask for a step is decided by the door that calls.

mod course;
mod device;
mod figures;
mod people;
mod words;

use chrono::{DateTime, Utc};
use uuid::Uuid;

use crate::Private;

pub use device::{Device, DeviceKind};
pub use figures::{Figures, Quality};
pub use words::{Happening, Mode, PersonRole, Presence, Sense, Status};

/// One person who has come to a consultation.
#[derive(Clone, Debug, PartialEq)]
pub struct Person {
    /// Its id in the clinic.
    pub user_id: String,
    /// Display name.
    pub name: Private<String>,
    /// What it is here.
    pub role: PersonRole,
    /// Where it stands.
    pub presence: Presence,
    /// May it enter the room? Kept over a reload, taken back by sending back or revoking.
    pub admitted: bool,
    /// Since when it waits.
    pub waiting_since: Option<DateTime<Utc>>,
    /// First time in the room.
    pub joined_at: Option<DateTime<Utc>>,
    /// Last time it went.
    pub left_at: Option<DateTime<Utc>>,
    /// How often it came back to the room.
    pub rejoin_count: i64,
    /// What it came with last.
    pub device: Device,
    /// Since when its connection is lost and waited for.
    pub lost_since: Option<DateTime<Utc>>,
    /// How often it tried to come back since then.
    pub reconnect_attempts: i64,
    /// It went because its connection did not come back.
    pub connection_lost: bool,
    /// What was measured of its media.
    pub figures: Figures,
}

impl Person {
    /// Holds a place in the room: let in and not gone.
    const fn takes_seat(&self) -> bool {
        match self.presence {
            Presence::Waiting | Presence::Left => false,
            Presence::Admitted | Presence::Connected | Presence::Reconnecting => self.admitted,
        }
    }
}

/// A consultation with everyone who has come to it.
#[derive(Clone, Debug, PartialEq)]
pub struct Consultation {
    /// Its id.
    pub id: Uuid,
    /// Whose it is; nothing crosses from one clinic to another.
    pub clinic: String,
    /// The appointment it belongs to; ad-hoc ones have none.
    pub appointment_id: Option<String>,
    /// What the two exchange.
    pub mode: Mode,
    /// Planned begin.
    pub scheduled_start: DateTime<Utc>,
    /// Planned length.
    pub scheduled_minutes: i64,
    /// The room that carries it.
    pub room_name: String,
    /// What clients know that room by; none before it was first opened.
    pub room_sid: Option<String>,
    /// Where it stands.
    pub status: Status,
    /// Who treats.
    pub doctor_id: String,
    /// Display name.
    pub doctor_name: Private<String>,
    /// Who is treated.
    pub patient_id: String,
    /// Display name.
    pub patient_name: Private<String>,
    /// How many persons may be in the room at once, the doctor included.
    pub max_participants: i64,
    /// Everyone who has come, in the order of coming.
    pub people: Vec<Person>,
    /// First time that the patient came.
    pub patient_joined_at: Option<DateTime<Utc>>,
    /// First time that the doctor came.
    pub doctor_joined_at: Option<DateTime<Utc>>,
    /// When it began: it was started, somebody was let in, or both were connected.
    pub actual_start: Option<DateTime<Utc>>,
    /// Who began it; none = the server, because both were connected.
    pub started_by: Option<String>,
    /// When doctor and patient first had media at the same time.
    pub both_connected_at: Option<DateTime<Utc>>,
    /// Since when it is interrupted.
    pub paused_at: Option<DateTime<Utc>>,
    /// How long it was interrupted, without the interruption that lasts.
    pub paused_seconds: i64,
    /// When it was over.
    pub actual_end: Option<DateTime<Utc>>,
    /// From begin to end; interruptions count.
    pub duration_seconds: Option<i64>,
    /// Why it ended.
    pub end_reason: Option<String>,
    /// Who ended it; none = the server.
    pub ended_by: Option<String>,
    /// What that person is here.
    pub ended_by_role: Option<PersonRole>,
    /// When it was last opened again.
    pub reopened_at: Option<DateTime<Utc>>,
    /// It runs, and nobody has media since then.
    pub quiet_since: Option<DateTime<Utc>>,
    /// When a timer was next due, as of the last stored change.
    pub due_at: Option<DateTime<Utc>>,
    /// When it was made.
    pub created_at: DateTime<Utc>,
    /// Rises by one with each stored change.
    pub revision: i64,
}

/// Who asked for a step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Actor {
    /// A person, by its id.
    Person(String),
    /// Another service of the clinic, by its id.
    Service(String),
    /// Another service tells who did it.
    Reported {
        /// The service.
        service: String,
        /// Who did it, if the service says so.
        by: Option<String>,
        /// What that person is, if the service says so.
        role: Option<PersonRole>,
    },
    /// The server itself: a fact about the room, a timer.
    Server,
}

impl Actor {
    /// The id, where there is one.
    pub fn id(&self) -> Option<&str> {
        match self {
            Self::Person(id) | Self::Service(id) | Self::Reported { by: Some(id), .. } => Some(id),
            Self::Reported { service, by: None, .. } => Some(service),
            Self::Server => None,
        }
    }
}

/// What somebody wants to happen.
#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    /// A person comes (the doctor straight in, others to the waiting room).
    Arrive {
        /// Who.
        user_id: String,
        /// Its name, if it brings one.
        name: Option<Private<String>>,
        /// What it comes with, as far as it tells.
        device: Device,
    },
    /// Let a waiting person in.
    Admit(String),
    /// Put a person back into the waiting room.
    SendBack(String),
    /// A person says that it goes.
    Leave(String),
    /// A waiting person's page has been gone for a while; it keeps its place in the queue.
    GoAway(String),
    /// A person is to be kept out: its link was revoked.
    Remove(String),
    /// A person's media is up.
    Connect(String),
    /// A person's media has fallen silent.
    Lose(String),
    /// A person whose media has fallen silent tries to come back.
    Attempt(String),
    /// Its connection has not come back in time.
    GiveUp(String),
    /// A person's presence in the room has ended.
    Disconnect(String),
    /// A person's media was measured.
    Measure {
        /// Whose.
        user_id: String,
        /// What came out of this stay.
        figures: Figures,
    },
    /// Begin, whoever is here.
    Start,
    /// Interrupt.
    Pause,
    /// Go on.
    Resume,
    /// Finish.
    End(Option<String>),
    /// Call off, before it began.
    Cancel(Option<String>),
    /// Somebody did not come.
    NoShow(Option<String>),
    /// The appointment is off: cancel, or end if it has begun.
    DropAppointment(Option<String>),
    /// A technical failure.
    Fail(String),
    /// Take the end back.
    Reopen,
    /// The room that carries it is open.
    OpenRoom {
        /// Its id there.
        sid: String,
    },
    /// A person's camera or microphone was muted, or was not any more.
    Mute {
        /// Whose.
        user_id: String,
        /// Which.
        sense: Sense,
        /// The new state.
        muted: bool,
    },
    /// Plan what has not begun for another time.
    Reschedule {
        /// Planned begin.
        start: DateTime<Utc>,
        /// Planned length, if that was said too.
        minutes: Option<i64>,
    },
}

/// One thing that happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transition {
    /// What.
    pub happening: Happening,
    /// To whom, if to one person.
    pub user_id: Option<String>,
    /// Status before.
    pub from: Status,
    /// Status after.
    pub to: Status,
    /// Who asked.
    pub actor: Actor,
    /// When.
    pub at: DateTime<Utc>,
    /// Why, if somebody said so.
    pub reason: Option<String>,
}

/// Why a step is not possible.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Nothing follows its status.
    #[error("the consultation is over ({})", .0.as_str())]
    Over(Status),
    /// The step does not fit the status.
    #[error("not possible while the consultation is {}", .0.as_str())]
    WrongStatus(Status),
    /// This person has not come.
    #[error("this person is not here")]
    NotHere,
    /// Every place in the room is taken.
    #[error("the room of this consultation is full")]
    Full,
    /// The doctor is always admitted.
    #[error("the doctor does not wait")]
    Doctor,
    /// It ended too long ago.
    #[error("the consultation ended too long ago to be opened again")]
    TooLate,
}

impl Consultation {
    /// What a user is in this consultation: doctor, patient, or else a guest.
    pub fn role_of(&self, user_id: &str) -> PersonRole {
        if user_id == self.doctor_id {
            PersonRole::Doctor
        } else if user_id == self.patient_id {
            PersonRole::Patient
        } else {
            PersonRole::Guest
        }
    }

    /// What whoever asked is in this consultation; services and the server are nothing.
    pub fn role_of_actor(&self, actor: &Actor) -> Option<PersonRole> {
        match actor {
            Actor::Person(id) => Some(self.role_of(id)),
            Actor::Reported { role: Some(role), .. } => Some(*role),
            Actor::Reported { by: Some(id), role: None, .. } => {
                let known = *id == self.doctor_id || *id == self.patient_id;
                known.then(|| self.role_of(id))
            }
            Actor::Reported { by: None, role: None, .. } | Actor::Service(_) | Actor::Server => {
                None
            }
        }
    }

    /// The person, if it has come.
    pub fn person(&self, user_id: &str) -> Option<&Person> {
        self.people.iter().find(|person| person.user_id == user_id)
    }

    /// When it is over, if it takes place as planned.
    pub fn planned_end(&self) -> DateTime<Utc> {
        let length = chrono::Duration::minutes(self.scheduled_minutes.clamp(0, 24 * 60));
        self.scheduled_start.checked_add_signed(length).unwrap_or(self.scheduled_start)
    }

    /// May this person be in the room now? The doctor always, others once let in.
    pub fn may_enter(&self, user_id: &str) -> bool {
        !self.status.is_over() && self.person(user_id).is_some_and(|person| person.admitted)
    }

    /// Everyone in the waiting room, first come first.
    pub fn waiting(&self) -> Vec<&Person> {
        let mut waiting: Vec<&Person> =
            self.people.iter().filter(|person| person.presence == Presence::Waiting).collect();
        waiting.sort_by_key(|person| person.waiting_since);
        waiting
    }

    /// A person's place in the queue, from 1.
    pub fn position(&self, user_id: &str) -> Option<usize> {
        self.waiting().iter().position(|person| person.user_id == user_id).map(|index| index + 1)
    }

    /// Takes one step. On refusal nothing has changed.
    pub fn apply(
        &mut self,
        now: DateTime<Utc>,
        actor: &Actor,
        step: &Step,
    ) -> Result<Vec<Transition>, Refusal> {
        let mut log = Log { now, actor, status: self.status, made: Vec::new() };
        match step {
            Step::Arrive { user_id, name, device } => {
                self.arrive(&mut log, user_id, name.as_ref(), device)?;
            }
            Step::Admit(user_id) => self.admit(&mut log, user_id)?,
            Step::SendBack(user_id) => self.send_back(&mut log, user_id)?,
            Step::Leave(user_id) => self.leave(&mut log, user_id)?,
            Step::GoAway(user_id) => self.go_away(&mut log, user_id)?,
            Step::Remove(user_id) => self.remove(&mut log, user_id)?,
            Step::Connect(user_id) => self.connect(&mut log, user_id)?,
            Step::Lose(user_id) => self.lose(&mut log, user_id)?,
            Step::Attempt(user_id) => self.attempt(&mut log, user_id)?,
            Step::GiveUp(user_id) => self.give_up(&mut log, user_id)?,
            Step::Disconnect(user_id) => self.disconnect(&mut log, user_id)?,
            Step::Measure { user_id, figures } => self.measure(&mut log, user_id, figures)?,
            Step::Start => self.start(&mut log)?,
            Step::Pause => self.pause(&mut log)?,
            Step::Resume => self.resume(&mut log)?,
            Step::End(reason) => {
                let reason = reason.as_deref().unwrap_or("completed");
                self.finish(&mut log, Status::Completed, Some(reason))?;
            }
            Step::Cancel(reason) => {
                self.call_off(&mut log, Status::Cancelled, reason.as_deref())?
            }
            Step::NoShow(reason) => self.call_off(&mut log, Status::NoShow, reason.as_deref())?,
            Step::DropAppointment(reason) => self.drop_appointment(&mut log, reason.as_deref())?,
            Step::Fail(reason) => self.finish(&mut log, Status::Failed, Some(reason))?,
            Step::Reopen => self.reopen(&mut log)?,
            Step::OpenRoom { sid } => self.open_room(&mut log, sid)?,
            Step::Mute { user_id, sense, muted } => self.mute(&mut log, user_id, *sense, *muted)?,
            Step::Reschedule { start, minutes } => self.reschedule(&mut log, *start, *minutes)?,
        }
        let made = log.made;
        if !made.is_empty() {
            self.listen_for_quiet(now);
        }
        Ok(made)
    }

    /// Whoever comes, goes or changes something while nobody has media makes the quiet begin anew.
    fn listen_for_quiet(&mut self, now: DateTime<Utc>) {
        let running = matches!(self.status, Status::InProgress | Status::Paused);
        let here = |person: &Person| {
            matches!(person.presence, Presence::Connected | Presence::Reconnecting)
        };
        self.quiet_since = (running && !self.people.iter().any(here)).then_some(now);
    }

    fn must_not_be_over(&self) -> Result<(), Refusal> {
        if self.status.is_over() { Err(Refusal::Over(self.status)) } else { Ok(()) }
    }

    fn person_mut(&mut self, user_id: &str) -> Result<&mut Person, Refusal> {
        self.people.iter_mut().find(|person| person.user_id == user_id).ok_or(Refusal::NotHere)
    }

    /// The doctor's place is always kept.
    fn seats_taken(&self) -> i64 {
        let others = self
            .people
            .iter()
            .filter(|person| person.role != PersonRole::Doctor && person.takes_seat());
        1 + i64::try_from(others.count()).unwrap_or(i64::MAX - 1)
    }
}

/// Collects what one step made.
struct Log<'a> {
    now: DateTime<Utc>,
    actor: &'a Actor,
    status: Status,
    made: Vec<Transition>,
}

impl Log<'_> {
    fn person(&mut self, happening: Happening, user_id: &str, to: Status) {
        self.push(happening, Some(user_id.to_owned()), to, None);
    }

    fn all(&mut self, happening: Happening, to: Status, reason: Option<&str>) {
        self.push(happening, None, to, reason.map(str::to_owned));
    }

    fn push(
        &mut self,
        happening: Happening,
        user_id: Option<String>,
        to: Status,
        reason: Option<String>,
    ) {
        let transition = Transition {
            happening,
            user_id,
            from: self.status,
            to,
            actor: self.actor.clone(),
            at: self.now,
            reason,
        };
        self.status = to;
        self.made.push(transition);
    }
}

#[cfg(test)]
mod tests;
