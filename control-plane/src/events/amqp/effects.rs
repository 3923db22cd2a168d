//! What a message that was understood does: one change of one consultation, stored together with
//! the message's id, so that a repeated delivery does nothing.

use std::sync::Arc;

use uuid::Uuid;

use crate::Private;
use crate::audit::{Deed, Origin, Who};
use crate::consultation::{Actor, Consultation, Step};
use crate::control::{ChangeError, Control};
use crate::events::inbound::{Create, Inbound, Kind, Which};
use crate::events::{Event, News, Sink};
use crate::sessions::{CreateError, NewSession};
use crate::store;
use crate::store::outbox::{Along, MessageId};

/// Where messages come from, in the inbox.
const SOURCE: &str = "rabbitmq";
/// Who asks, where the message does not say who.
const SERVICE: &str = "appointments";

/// What is left to do with the message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::events) enum Effect {
    /// Nothing: it has taken effect, or needs none.
    Done,
    /// It may be followed later, when what it builds upon has come.
    NotYet(&'static str),
    /// The same, but if that never comes it was no matter of ours.
    NotYetOrNever,
    /// It can never be followed.
    Never(&'static str),
}

/// Follows a message. An error is the database's: try again.
pub(super) async fn apply(control: &Control, inbound: &Inbound) -> Result<Effect, ChangeError> {
    let id = inbound.message_id.clone();
    apply_once(control, inbound, MessageId { source: SOURCE.to_owned(), id, place: None }).await
}

/// [`apply`], for a message that came another way.
pub(in crate::events) async fn apply_once(
    control: &Control,
    inbound: &Inbound,
    message: MessageId,
) -> Result<Effect, ChangeError> {
    let clinic = inbound.clinic.as_deref().unwrap_or(&control.config.events_clinic);
    // What a message changes is in the audit log like what a request does; the broker vouches for
    // who sent it.
    let who = Who {
        clinic: clinic.to_owned(),
        id: message.source.clone(),
        kind: "service",
        credential: None,
    };
    let deed = Deed::of(who, action(&inbound.kind), Origin::of_message(&message.id));
    deed.run(follow(control, inbound, clinic, message)).await
}

/// What the audit log says of it.
const fn action(kind: &Kind) -> &'static str {
    match kind {
        Kind::Create(_) | Kind::Unusable { .. } => "TAKE appointment.video.create",
        Kind::AppointmentCreated(_) => "TAKE appointment.created",
        Kind::AppointmentConfirmed { .. } => "TAKE appointment.confirmed",
        Kind::Start { .. } => "TAKE appointment.video.start",
        Kind::End { .. } => "TAKE appointment.video.end",
        Kind::AppointmentCancelled { .. } => "TAKE appointment.cancelled",
        Kind::NotOurs => "TAKE (none of ours)",
    }
}

async fn follow(
    control: &Control,
    inbound: &Inbound,
    clinic: &str,
    message: MessageId,
) -> Result<Effect, ChangeError> {
    let hand = Hand { control, inbound, clinic, message };
    match &inbound.kind {
        Kind::Create(create) => hand.create(create, true).await,
        Kind::AppointmentCreated(create) => hand.create(create, false).await,
        Kind::AppointmentConfirmed { create: Some(create), .. } => hand.create(create, false).await,
        // Too little to make one from: then somebody else makes it, or has.
        Kind::AppointmentConfirmed { create: None, .. } | Kind::NotOurs => Ok(Effect::Done),
        Kind::Unusable { appointment_id, error } => {
            hand.creation_failed(appointment_id, error).await?;
            Ok(Effect::Never(error))
        }
        Kind::Start { which, doctor_id, at: _ } => {
            let actor = hand.reported(doctor_id.clone(), None);
            hand.step(which, &actor, &Step::Start).await
        }
        Kind::End { which, ended_by, role, at: _ } => {
            let actor = hand.reported(ended_by.clone(), *role);
            hand.step(which, &actor, &Step::End(None)).await
        }
        Kind::AppointmentCancelled { appointment_id, reason } => {
            let which = Which { appointment: Some(appointment_id.clone()), ..Which::default() };
            let actor = hand.reported(None, None);
            match hand.step(&which, &actor, &Step::DropAppointment(reason.clone())).await? {
                // Its create may come later, by another queue; or it never had a consultation.
                Effect::NotYet(_) => Ok(Effect::NotYetOrNever),
                effect => Ok(effect),
            }
        }
    }
}

/// One message in hand.
struct Hand<'a> {
    control: &'a Control,
    inbound: &'a Inbound,
    clinic: &'a str,
    message: MessageId,
}

impl Hand<'_> {
    fn reported(&self, by: Option<String>, role: Option<crate::consultation::PersonRole>) -> Actor {
        Actor::Reported { service: SERVICE.to_owned(), by, role }
    }

    /// `answer`: the sender waits for an answer even if the consultation is there already.
    async fn create(&self, create: &Create, answer: bool) -> Result<Effect, ChangeError> {
        let actor = Actor::Service(SERVICE.to_owned());
        let new = new_session(create);
        let correlation_id = self.inbound.correlation_id.as_deref();
        let control = self.control;
        if create.scheduled_start < store::now() - chrono::Duration::minutes(create_minutes(create))
        {
            tracing::warn!(
                "a consultation is planned in the past: is events.naive_timezone right?"
            );
        }
        let made = control
            .create_once(self.clinic, &actor, &new, correlation_id, Some(&self.message))
            .await;
        match made {
            Ok((consultation, true)) => {
                let (session, appointment) = (consultation.id, &create.appointment_id);
                tracing::info!(%session, appointment, "video session created");
                Ok(Effect::Done)
            }
            Ok((_, false)) if !answer => Ok(Effect::Done),
            Ok((consultation, false)) => {
                let consultation = self.plan_anew(consultation, create, &actor).await?;
                // The same words again, to the one who asks.
                let mut event =
                    Event::of(&consultation, consultation.created_at, News::SessionCreated {});
                event.correlation_id = self.inbound.correlation_id.clone();
                self.tell(&[event], &[Sink::RabbitMq]).await?;
                Ok(Effect::Done)
            }
            Err(CreateError::Invalid(error)) => {
                self.creation_failed(&create.appointment_id, error).await?;
                Ok(Effect::Never(error))
            }
            Err(CreateError::Change(error)) => Err(error),
        }
    }

    /// The appointment was moved, if the time it is created for now is another one. A consultation
    /// that has begun or is over stays as it is.
    async fn plan_anew(
        &self,
        known: Arc<Consultation>,
        create: &Create,
        actor: &Actor,
    ) -> Result<Arc<Consultation>, ChangeError> {
        let (start, minutes) = (create.scheduled_start, create.scheduled_minutes);
        let step = Step::Reschedule { start, minutes };
        // Without the message, which the answer takes along: a second time changes nothing.
        match self.control.step(&known.clinic, known.id, actor, &step).await {
            Ok(planned) => Ok(planned),
            Err(ChangeError::Refused(_)) => Ok(known),
            Err(error) => Err(error),
        }
    }

    async fn creation_failed(&self, appointment_id: &str, error: &str) -> Result<(), ChangeError> {
        tracing::error!(error, "a consultation could not be made for an appointment");
        let event = Event {
            id: Uuid::now_v7(),
            at: store::now(),
            clinic: self.clinic.to_owned(),
            correlation_id: self.inbound.correlation_id.clone(),
            about: None,
            news: News::CreationFailed {
                appointment_id: appointment_id.to_owned(),
                error: error.to_owned(),
            },
        };
        self.tell(&[event], &self.control.sinks).await
    }

    async fn tell(&self, events: &[Event], sinks: &[Sink]) -> Result<(), ChangeError> {
        let control = self.control;
        let along = Along { events, sinks, message: Some(&self.message) };
        if control.within(control.db.append_events(&along, store::now())).await? {
            control.outbox_rang.notify_waiters();
        }
        Ok(())
    }

    async fn step(&self, which: &Which, actor: &Actor, step: &Step) -> Result<Effect, ChangeError> {
        let Some(found) = self.find(which).await? else {
            return Ok(Effect::NotYet("there is no such consultation"));
        };
        let message = Some(&self.message);
        match self.control.step_once(&found.clinic, found.id, actor, step, message).await {
            Ok(_) => Ok(Effect::Done),
            Err(ChangeError::Refused(refusal)) => {
                // What it asks for came too late, or was done by somebody else's word.
                tracing::warn!(session = %found.id, %refusal, event = self.inbound.kind.name(), "not followed");
                Ok(Effect::Done)
            }
            Err(ChangeError::NotFound) => Ok(Effect::NotYet("there is no such consultation")),
            Err(
                error @ (ChangeError::PaymentRequired
                | ChangeError::Database(_)
                | ChangeError::Busy),
            ) => Err(error),
        }
    }

    /// By our id, by its room, by its appointment. Our ids and room names are ours alone: where
    /// the message names no clinic they say which one it is.
    async fn find(&self, which: &Which) -> Result<Option<Arc<Consultation>>, ChangeError> {
        let control = self.control;
        let asked = self.inbound.clinic.as_deref();
        let mut owners = Vec::new();
        if let Some(id) = which.session {
            owners.extend(control.within(control.db.owner_of_session(id)).await?);
        }
        if let Some(room) = &which.room {
            owners.extend(control.within(control.db.owner_of_room(room)).await?);
        }
        let ours = |(_, clinic): &(Uuid, String)| asked.is_none_or(|asked| asked == clinic);
        if let Some((id, clinic)) = owners.into_iter().find(ours) {
            return control.look(&clinic, id).await.map(Some);
        }
        match &which.appointment {
            Some(appointment) => control.of_appointment(self.clinic, appointment).await,
            None => Ok(None),
        }
    }
}

fn create_minutes(create: &Create) -> i64 {
    create.scheduled_minutes.unwrap_or(15)
}

fn new_session(create: &Create) -> NewSession {
    let name = |name: &Option<Private<String>>| name.as_ref().map(|name| name.reveal().clone());
    NewSession {
        appointment_id: Some(create.appointment_id.clone()),
        doctor_id: Some(create.doctor_id.clone()),
        doctor_name: name(&create.doctor_name),
        patient_id: Some(create.patient_id.clone()),
        patient_name: name(&create.patient_name),
        mode: create.mode,
        scheduled_start: Some(create.scheduled_start),
        scheduled_minutes: create.scheduled_minutes,
        max_participants: None,
    }
}
