//! The consultation: what a doctor and a patient go through, as a state machine.
//!
//! ```text
//! SCHEDULED ──▶ WAITING ──▶ IN_PROGRESS ⇄ PAUSED ──▶ COMPLETED
//!     └───────────┴──▶ CANCELLED, NO_SHOW      (before it began)
//!     └───────────┴───────────┴──────────┴──▶ FAILED
//! ```
//!
//! Pure: no clock, no database, no randomness. Time is an argument, and each step returns the
//! [`Transition`]s it made, with actor, time and reason; an empty answer means that nothing was
//! left to do (a repeated request). Who may ask for a step is decided by the door that calls.

mod words;

use chrono::{DateTime, Utc};
use uuid::Uuid;

use crate::Private;

pub use words::{Happening, Mode, PersonRole, Presence, Status};

/// One person who has come to a consultation.
#[derive(Clone, Debug, PartialEq, Eq)]
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
#[derive(Clone, Debug, PartialEq, Eq)]
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
    /// When somebody was first let in.
    pub actual_start: Option<DateTime<Utc>>,
    /// When it was over.
    pub actual_end: Option<DateTime<Utc>>,
    /// From begin to end.
    pub duration_seconds: Option<i64>,
    /// Why it ended.
    pub end_reason: Option<String>,
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
    /// The server itself: a fact about the room, a timer.
    Server,
}

impl Actor {
    /// The id, where there is one.
    pub fn id(&self) -> Option<&str> {
        match self {
            Self::Person(id) | Self::Service(id) => Some(id),
            Self::Server => None,
        }
    }
}

/// What somebody wants to happen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// A person comes (the doctor straight in, others to the waiting room).
    Arrive {
        /// Who.
        user_id: String,
        /// Its name, if it brings one.
        name: Option<Private<String>>,
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
    /// A person's presence in the room has ended.
    Disconnect(String),
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
    /// A technical failure.
    Fail(String),
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

    /// The person, if it has come.
    pub fn person(&self, user_id: &str) -> Option<&Person> {
        self.people.iter().find(|person| person.user_id == user_id)
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
            Step::Arrive { user_id, name } => self.arrive(&mut log, user_id, name.as_ref())?,
            Step::Admit(user_id) => self.admit(&mut log, user_id)?,
            Step::SendBack(user_id) => self.send_back(&mut log, user_id)?,
            Step::Leave(user_id) => self.leave(&mut log, user_id)?,
            Step::GoAway(user_id) => self.go_away(&mut log, user_id)?,
            Step::Remove(user_id) => self.remove(&mut log, user_id)?,
            Step::Connect(user_id) => self.connect(&mut log, user_id)?,
            Step::Lose(user_id) => self.lose(&mut log, user_id)?,
            Step::Disconnect(user_id) => self.disconnect(&mut log, user_id)?,
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
            Step::Fail(reason) => self.finish(&mut log, Status::Failed, Some(reason))?,
        }
        Ok(log.made)
    }

    fn arrive(
        &mut self,
        log: &mut Log<'_>,
        user_id: &str,
        name: Option<&Private<String>>,
    ) -> Result<(), Refusal> {
        self.must_not_be_over()?;
        let role = self.role_of(user_id);
        let known_name = match role {
            PersonRole::Doctor => self.doctor_name.clone(),
            PersonRole::Patient => self.patient_name.clone(),
            PersonRole::Guest => Private::new(String::new()),
        };
        let seat_free = self.seats_taken() < self.max_participants;
        let index = match self.people.iter().position(|person| person.user_id == user_id) {
            Some(index) => index,
            None => {
                self.people.push(Person {
                    user_id: user_id.to_owned(),
                    name: known_name,
                    role,
                    presence: Presence::Left,
                    admitted: role == PersonRole::Doctor,
                    waiting_since: None,
                    joined_at: None,
                    left_at: None,
                    rejoin_count: 0,
                });
                self.people.len() - 1
            }
        };
        let Some(person) = self.people.get_mut(index) else { return Err(Refusal::NotHere) };
        if person.presence != Presence::Left {
            return Ok(());
        }
        if let Some(name) = name.filter(|name| !name.reveal().is_empty()) {
            person.name = name.clone();
        }
        if role == PersonRole::Doctor {
            // Only the server's own `Remove` takes this away, and a new link gives it back.
            person.admitted = true;
        } else if !seat_free {
            // Somebody took the place meanwhile: wait again, like anybody else.
            person.admitted = false;
        }
        if person.admitted {
            person.presence = Presence::Admitted;
        } else {
            person.presence = Presence::Waiting;
            person.waiting_since.get_or_insert(log.now);
        }
        let (happening, first) = match role {
            PersonRole::Doctor => (Happening::DoctorJoined, Some(&mut self.doctor_joined_at)),
            PersonRole::Patient => (Happening::PatientJoined, Some(&mut self.patient_joined_at)),
            PersonRole::Guest => (Happening::GuestJoined, None),
        };
        if let Some(first) = first {
            first.get_or_insert(log.now);
        }
        if self.status == Status::Scheduled {
            self.status = Status::Waiting;
        }
        log.person(happening, user_id, self.status);
        Ok(())
    }

    fn admit(&mut self, log: &mut Log<'_>, user_id: &str) -> Result<(), Refusal> {
        self.must_not_be_over()?;
        let full = self.seats_taken() >= self.max_participants;
        let person = self.person_mut(user_id)?;
        if person.role == PersonRole::Doctor || person.admitted {
            return Ok(());
        }
        if person.presence != Presence::Waiting {
            return Err(Refusal::NotHere);
        }
        if full {
            return Err(Refusal::Full);
        }
        person.admitted = true;
        person.presence = Presence::Admitted;
        person.waiting_since = None;
        log.person(Happening::Admitted, user_id, self.status);
        match self.status {
            Status::Scheduled | Status::Waiting => {
                self.status = Status::InProgress;
                self.actual_start.get_or_insert(log.now);
                log.all(Happening::Started, self.status, None);
            }
            Status::InProgress | Status::Paused => {}
            Status::Completed | Status::Cancelled | Status::NoShow | Status::Failed => {}
        }
        Ok(())
    }

    fn send_back(&mut self, log: &mut Log<'_>, user_id: &str) -> Result<(), Refusal> {
        self.must_not_be_over()?;
        let person = self.person_mut(user_id)?;
        if person.role == PersonRole::Doctor {
            return Err(Refusal::Doctor);
        }
        if !person.admitted {
            return Ok(());
        }
        person.admitted = false;
        person.presence = match person.presence {
            Presence::Left => Presence::Left,
            Presence::Waiting
            | Presence::Admitted
            | Presence::Connected
            | Presence::Reconnecting => Presence::Waiting,
        };
        person.waiting_since = Some(log.now);
        log.person(Happening::SentBack, user_id, self.status);
        Ok(())
    }

    fn leave(&mut self, log: &mut Log<'_>, user_id: &str) -> Result<(), Refusal> {
        let person = self.person_mut(user_id)?;
        // Somebody who went away gives up its place in the queue.
        if person.presence == Presence::Left && person.waiting_since.is_none() {
            return Ok(());
        }
        person.waiting_since = None;
        person.presence = Presence::Left;
        person.left_at = Some(log.now);
        log.person(Happening::Left, user_id, self.status);
        Ok(())
    }

    fn go_away(&mut self, log: &mut Log<'_>, user_id: &str) -> Result<(), Refusal> {
        let person = self.person_mut(user_id)?;
        if person.presence != Presence::Waiting {
            return Ok(());
        }
        person.presence = Presence::Left;
        person.left_at = Some(log.now);
        log.person(Happening::WentAway, user_id, self.status);
        Ok(())
    }

    fn remove(&mut self, log: &mut Log<'_>, user_id: &str) -> Result<(), Refusal> {
        let person = self.person_mut(user_id)?;
        if !person.admitted && person.presence == Presence::Left {
            return Ok(());
        }
        person.admitted = false;
        person.waiting_since = None;
        person.presence = Presence::Left;
        person.left_at = Some(log.now);
        log.person(Happening::Removed, user_id, self.status);
        Ok(())
    }

    fn connect(&mut self, log: &mut Log<'_>, user_id: &str) -> Result<(), Refusal> {
        self.must_not_be_over()?;
        let person = self.person_mut(user_id)?;
        if !person.admitted {
            return Err(Refusal::NotHere);
        }
        let happening = match person.presence {
            Presence::Connected => return Ok(()),
            Presence::Reconnecting => Happening::Reconnected,
            Presence::Waiting | Presence::Admitted | Presence::Left => {
                if person.joined_at.is_some() {
                    person.rejoin_count += 1;
                }
                Happening::Connected
            }
        };
        person.presence = Presence::Connected;
        person.joined_at.get_or_insert(log.now);
        log.person(happening, user_id, self.status);
        Ok(())
    }

    fn lose(&mut self, log: &mut Log<'_>, user_id: &str) -> Result<(), Refusal> {
        let person = self.person_mut(user_id)?;
        if person.presence == Presence::Connected {
            person.presence = Presence::Reconnecting;
            log.person(Happening::Reconnecting, user_id, self.status);
        }
        Ok(())
    }

    fn disconnect(&mut self, log: &mut Log<'_>, user_id: &str) -> Result<(), Refusal> {
        let person = self.person_mut(user_id)?;
        match person.presence {
            Presence::Connected | Presence::Reconnecting => {
                person.presence = Presence::Left;
                person.left_at = Some(log.now);
                log.person(Happening::Disconnected, user_id, self.status);
            }
            // Sent back, or the fact is older than what we know.
            Presence::Waiting | Presence::Admitted | Presence::Left => {}
        }
        Ok(())
    }

    fn pause(&mut self, log: &mut Log<'_>) -> Result<(), Refusal> {
        self.must_not_be_over()?;
        match self.status {
            Status::Paused => {}
            Status::InProgress => {
                self.status = Status::Paused;
                log.all(Happening::Paused, self.status, None);
            }
            Status::Scheduled
            | Status::Waiting
            | Status::Completed
            | Status::Cancelled
            | Status::NoShow
            | Status::Failed => return Err(Refusal::WrongStatus(self.status)),
        }
        Ok(())
    }

    fn resume(&mut self, log: &mut Log<'_>) -> Result<(), Refusal> {
        self.must_not_be_over()?;
        match self.status {
            Status::InProgress => {}
            Status::Paused => {
                self.status = Status::InProgress;
                log.all(Happening::Resumed, self.status, None);
            }
            Status::Scheduled
            | Status::Waiting
            | Status::Completed
            | Status::Cancelled
            | Status::NoShow
            | Status::Failed => return Err(Refusal::WrongStatus(self.status)),
        }
        Ok(())
    }

    /// Cancelled and no-show are only for what never began.
    fn call_off(
        &mut self,
        log: &mut Log<'_>,
        status: Status,
        reason: Option<&str>,
    ) -> Result<(), Refusal> {
        if matches!(self.status, Status::InProgress | Status::Paused) {
            return Err(Refusal::WrongStatus(self.status));
        }
        self.finish(log, status, reason)
    }

    fn finish(
        &mut self,
        log: &mut Log<'_>,
        status: Status,
        reason: Option<&str>,
    ) -> Result<(), Refusal> {
        if self.status == status {
            return Ok(());
        }
        self.must_not_be_over()?;
        self.status = status;
        self.actual_end = Some(log.now);
        self.duration_seconds =
            Some(self.actual_start.map_or(0, |start| (log.now - start).num_seconds().max(0)));
        self.end_reason = reason.map(str::to_owned);
        for person in &mut self.people {
            person.waiting_since = None;
            if person.presence != Presence::Left {
                person.presence = Presence::Left;
                person.left_at = Some(log.now);
            }
        }
        log.all(Happening::Ended, status, reason);
        Ok(())
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
