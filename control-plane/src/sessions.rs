//! Making consultations and joining them.

use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Datelike as _, Utc};
use serde::Serialize;
use uuid::Uuid;

use crate::chat::writer::Job;
use crate::consultation::{
    Actor, Consultation, Device, Happening, Mode, PersonRole, Status, Step, Transition,
};
use crate::control::{ChangeError, Control};
use crate::events::{self, Event, News};
use crate::store::outbox::{Along, MessageId};
use crate::store::{EventRow, Page};
use crate::{Private, audit, rooms, store, text, timers, view};

/// The length of a consultation for which nobody said one.
const DEFAULT_MINUTES: i64 = 15;
/// The longest consultation.
pub(crate) const MAX_MINUTES: i64 = 120;
/// For when a consultation may be planned: what follows from it, to the end of its links, has years
/// of four digits too, which sort as they should.
const YEARS: std::ops::RangeInclusive<i32> = 1970..=9998;
/// The most persons that one consultation may be raised to.
const MAX_PARTICIPANTS: i64 = 16;

/// A consultation to make.
#[derive(Clone, Debug)]
pub struct NewSession {
    /// The appointment it belongs to; one consultation per appointment.
    pub appointment_id: Option<String>,
    /// Who treats. May be absent only where the appointment already has a consultation.
    pub doctor_id: Option<String>,
    /// Display name; the id if absent.
    pub doctor_name: Option<String>,
    /// Who is treated. May be absent only where the appointment already has a consultation.
    pub patient_id: Option<String>,
    /// Display name; the id if absent.
    pub patient_name: Option<String>,
    /// What the two exchange.
    pub mode: Mode,
    /// Planned begin; now if absent.
    pub scheduled_start: Option<DateTime<Utc>>,
    /// Planned length, 1 to 120; 15 if absent.
    pub scheduled_minutes: Option<i64>,
    /// How many persons may be in the room at once, 2 to 16; 2 if absent.
    pub max_participants: Option<i64>,
}

impl NewSession {
    /// Could a consultation be made of it?
    pub(crate) fn check(&self) -> Result<(), CreateError> {
        planned("", self).map(drop)
    }
}

/// Why a consultation was not made.
#[derive(Debug, thiserror::Error)]
pub enum CreateError {
    /// A field is missing or does not fit.
    #[error("{0}")]
    Invalid(&'static str),
    /// The database does not answer.
    #[error(transparent)]
    Change(#[from] ChangeError),
}

/// Where a join leads.
#[derive(Clone, Debug)]
pub enum Joined {
    /// Into the room.
    Room(Box<RoomAccess>),
    /// Into the waiting room.
    Waiting {
        /// Place in the queue, from 1.
        position: usize,
    },
}

/// The right to enter a room now.
#[derive(Clone, Debug)]
pub struct RoomAccess {
    /// The room token.
    pub access_token: Private<String>,
    /// The room.
    pub room_name: String,
    /// Who the bearer is in the room.
    pub identity: Private<String>,
    /// What the bearer is in the consultation.
    pub role: PersonRole,
    /// When the token ends.
    pub expires_at: DateTime<Utc>,
    /// Where the room's door is, as client SDKs want it.
    pub url: String,
}

/// A STUN or TURN server in the answer to a join.
#[derive(Clone, Debug, Serialize, utoipa::ToSchema)]
pub struct IceServerView {
    /// `turn:…`, `turns:…`, `stun:…`.
    pub urls: Vec<String>,
    /// Name for TURN.
    pub username: String,
    /// Password for TURN.
    pub credential: String,
}

impl Control {
    /// Makes a consultation, or finds the one that its appointment has. `true` = made now.
    pub(crate) async fn create(
        &self,
        clinic: &str,
        actor: &Actor,
        new: &NewSession,
    ) -> Result<(Arc<Consultation>, bool), CreateError> {
        self.create_once(clinic, actor, new, None, None).await
    }

    /// [`Self::create`], because of a message: one that has taken effect before changes nothing.
    pub(crate) async fn create_once(
        &self,
        clinic: &str,
        actor: &Actor,
        new: &NewSession,
        correlation_id: Option<&str>,
        message: Option<&MessageId>,
    ) -> Result<(Arc<Consultation>, bool), CreateError> {
        if let Some(appointment_id) = &new.appointment_id {
            must(text::is_id(appointment_id), "appointmentId is empty, too long or not text")?;
            if let Some(known) = self.of_appointment(clinic, appointment_id).await? {
                return Ok((known, false));
            }
        }
        let mut consultation = planned(clinic, new)?;
        consultation.due_at = timers::due(&consultation, &self.config.timers).map(|due| due.at);
        audit::about(consultation.id);
        let created = Transition {
            happening: Happening::Created,
            user_id: None,
            from: Status::Scheduled,
            to: Status::Scheduled,
            actor: actor.clone(),
            at: consultation.created_at,
            reason: None,
        };
        let mut events = events::told_by(&consultation, std::slice::from_ref(&created));
        for event in &mut events {
            event.correlation_id = correlation_id.map(str::to_owned);
        }
        let along = Along { events: &events, sinks: &self.sinks, message };
        let stored = self.within(self.db.insert_session(&consultation, &created, &along)).await?;
        if !stored {
            // Somebody was faster with the same appointment.
            let appointment_id = consultation.appointment_id.as_deref().unwrap_or_default();
            let known = self.of_appointment(clinic, appointment_id).await?;
            return Ok((known.ok_or(ChangeError::Busy)?, false));
        }
        self.outbox_rang.notify_waiters();
        self.counters.moved(None, Status::Scheduled);
        tracing::info!(session = %consultation.id, "consultation created");
        let consultation = Arc::new(consultation);
        self.live.tell_lists(&consultation);
        Ok((consultation, true))
    }

    /// A page of consultations, and where the next one begins.
    pub(crate) async fn page(
        &self,
        clinic: &str,
        page: Page,
    ) -> Result<(Vec<Arc<Consultation>>, Option<(DateTime<Utc>, Uuid)>), ChangeError> {
        let limit = usize::try_from(page.limit).unwrap_or(0);
        let page = Page { limit: page.limit + 1, ..page };
        let mut stored = self.within(self.db.sessions(clinic, &page)).await?;
        let more = stored.len() > limit;
        stored.truncate(limit);
        let next = stored.last().filter(|_| more).map(|last| (last.scheduled_start, last.id));
        let newest = stored.into_iter().map(|stored| {
            let live = self.live.find(stored.id).and_then(|live| live.consultation());
            live.unwrap_or_else(|| Arc::new(stored))
        });
        let newest: Vec<_> = newest.collect();
        audit::listed(newest.iter().map(|consultation| consultation.id));
        Ok((newest, next))
    }

    /// A page of what happened to a consultation, and where the next one begins.
    pub(crate) async fn events(
        &self,
        id: Uuid,
        after: Option<(DateTime<Utc>, Uuid)>,
        limit: i64,
    ) -> Result<(Vec<EventRow>, Option<(DateTime<Utc>, Uuid)>), ChangeError> {
        let mut rows = self.within(self.db.session_events(id, after, limit + 1)).await?;
        let more = rows.len() > usize::try_from(limit).unwrap_or(0);
        rows.truncate(usize::try_from(limit).unwrap_or(0));
        let next = rows.last().filter(|_| more).map(|row| (row.created_at, row.id));
        Ok((rows, next))
    }

    /// The consultation of an appointment.
    pub(crate) async fn of_appointment(
        &self,
        clinic: &str,
        appointment_id: &str,
    ) -> Result<Option<Arc<Consultation>>, ChangeError> {
        let stored = self.within(self.db.session_of_appointment(clinic, appointment_id)).await?;
        let Some(stored) = stored else { return Ok(None) };
        audit::about(stored.id);
        let live = self.live.find(stored.id).and_then(|live| live.consultation());
        Ok(Some(live.unwrap_or_else(|| Arc::new(stored))))
    }

    /// A person comes: the doctor and whoever was let in get a room token, others wait.
    pub(crate) async fn join(
        &self,
        clinic: &str,
        id: Uuid,
        actor: &Actor,
        user_id: &str,
        name: Option<Private<String>>,
        device: Device,
    ) -> Result<Joined, ChangeError> {
        audit::subject(user_id);
        // Whoever was let in may come again at any time.
        audit::deferred();
        let consultation = self.look(clinic, id).await?;
        self.must_be_paid(&consultation, user_id).await?;
        let step = Step::Arrive { user_id: user_id.to_owned(), name, device };
        let consultation = self.step(clinic, id, actor, &step).await?;
        if !consultation.may_enter(user_id) {
            self.counters.waits.add();
            let position = self.live.place(&consultation, user_id).unwrap_or(1);
            return Ok(Joined::Waiting { position });
        }
        let person = consultation.person(user_id).ok_or(ChangeError::NotFound)?;
        let keys = self.config.keys.first().ok_or(ChangeError::Busy)?;
        let ttl = self.config.room_token_ttl;
        let token = rooms::room_token(keys, &consultation, person, ttl);
        self.counters.joins.add();
        Ok(Joined::Room(Box::new(RoomAccess {
            access_token: Private::new(token),
            room_name: consultation.room_name.clone(),
            identity: Private::new(user_id.to_owned()),
            role: person.role,
            expires_at: Self::ends_in(ttl),
            url: socket_url(&self.config.public_url),
        })))
    }

    /// Tells others that somebody was given a room token. Nobody waits for it: who was let in comes
    /// in also while the database is away, and then it is told later.
    pub(crate) fn tell_token(&self, consultation: &Consultation, user_id: &str) {
        let role = consultation.role_of(user_id);
        let news = News::TokenGenerated { user_id: user_id.to_owned(), role };
        let event = Event::of(consultation, store::now(), news);
        if self.chat.give(Job::Tell(Box::new(event))).is_err() {
            self.counters.events_lost.add();
        }
    }
}

/// `http` → `ws`, `https` → `wss`.
pub(crate) fn socket_url(public_url: &str) -> String {
    let base = public_url.trim_end_matches('/');
    base.strip_prefix("http").map_or_else(|| base.to_owned(), |rest| format!("ws{rest}"))
}

fn must(holds: bool, otherwise: &'static str) -> Result<(), CreateError> {
    if holds { Ok(()) } else { Err(CreateError::Invalid(otherwise)) }
}

/// Checks every field and fills in the defaults.
pub(crate) fn planned(clinic: &str, new: &NewSession) -> Result<Consultation, CreateError> {
    let (Some(doctor_id), Some(patient_id)) = (&new.doctor_id, &new.patient_id) else {
        return Err(CreateError::Invalid(
            "doctorId and patientId are needed: the appointment is not known",
        ));
    };
    let name = |name: &Option<String>, id: &String| {
        name.clone().filter(|name| !name.trim().is_empty()).unwrap_or_else(|| id.clone())
    };
    let doctor_name = name(&new.doctor_name, doctor_id);
    let patient_name = name(&new.patient_name, patient_id);
    let scheduled_minutes = new.scheduled_minutes.unwrap_or(DEFAULT_MINUTES);
    let max_participants = new.max_participants.unwrap_or(2);
    must(text::is_id(doctor_id), "doctorId is empty, too long or not text")?;
    must(text::is_id(patient_id), "patientId is empty, too long or not text")?;
    must(doctor_id != patient_id, "doctorId and patientId are the same")?;
    must(text::is_name(&doctor_name), "doctorName is too long or not text")?;
    must(text::is_name(&patient_name), "patientName is too long or not text")?;
    must(
        (1..=MAX_MINUTES).contains(&scheduled_minutes),
        "scheduledDurationMinutes must be from 1 to 120",
    )?;
    must(
        (2..=MAX_PARTICIPANTS).contains(&max_participants),
        "maxParticipants must be from 2 to 16",
    )?;
    let now = store::now();
    let scheduled_start = new.scheduled_start.unwrap_or(now);
    must(YEARS.contains(&scheduled_start.year()), "scheduledStartTime must be from 1970 to 9998")?;
    Ok(Consultation {
        id: Uuid::new_v4(),
        clinic: clinic.to_owned(),
        appointment_id: new.appointment_id.clone(),
        mode: new.mode,
        scheduled_start,
        scheduled_minutes,
        room_name: rooms::new_room_name(),
        room_sid: None,
        status: Status::Scheduled,
        doctor_id: doctor_id.clone(),
        doctor_name: Private::new(doctor_name),
        patient_id: patient_id.clone(),
        patient_name: Private::new(patient_name),
        max_participants,
        people: Vec::new(),
        patient_joined_at: None,
        doctor_joined_at: None,
        actual_start: None,
        started_by: None,
        both_connected_at: None,
        paused_at: None,
        paused_seconds: 0,
        actual_end: None,
        duration_seconds: None,
        end_reason: None,
        ended_by: None,
        ended_by_role: None,
        reopened_at: None,
        quiet_since: None,
        due_at: None,
        created_at: now,
        revision: 0,
    })
}

/// How long after its planned end a consultation's links stay good if it never takes place.
pub(crate) const LINK_GRACE: Duration = Duration::from_secs(24 * 3600);

/// The JSON answer to a join that leads into a room.
#[derive(Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct RoomAnswer {
    /// The room token.
    access_token: String,
    room_name: String,
    identity: String,
    /// `PATIENT`, `DOCTOR`, `GUEST`.
    participant_type: &'static str,
    ice_servers: Vec<IceServerView>,
    token_expires_at: String,
    /// WebSocket base for client SDKs.
    url: String,
    /// `own`: our nodes carry the media.
    provider: &'static str,
}

impl RoomAnswer {
    pub(crate) fn new(access: &RoomAccess, ice_servers: Vec<IceServerView>) -> Self {
        Self {
            access_token: access.access_token.reveal().clone(),
            room_name: access.room_name.clone(),
            identity: access.identity.reveal().clone(),
            participant_type: access.role.as_type(),
            ice_servers,
            token_expires_at: view::time(access.expires_at),
            url: access.url.clone(),
            provider: "own",
        }
    }
}

/// The JSON answer to a join that leads into the waiting room.
#[derive(Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct WaitingAnswer {
    /// `WAITING`.
    pub(crate) status: &'static str,
    /// Place in the queue, from 1.
    pub(crate) position: usize,
    /// The consultation's channel.
    pub(crate) channel_url: String,
}
