//! What the doors of the older contracts have in common: which consultation is meant, for whom
//! the caller acts, and what comes of it. The rules are the native API's; only the words differ.
//!
//! A path or a body that names an *appointment* never finds a session by its id, and the other way
//! round; only `consultation/{id}` takes either, the session first.

use std::sync::Arc;

use axum::http::StatusCode;
use uuid::Uuid;

use super::problem::Problem;
use super::video_view::{Arrival, Entry};
use super::video_words::{APPOINTMENT, DOCTOR, NAME, USER, Words};
use crate::access::Caller;
use crate::consultation::{Actor, Consultation, Device, PersonRole, Status, Step};
use crate::permissions::Permission;
use crate::sessions::Joined;
use crate::{ControlPlane, Private, text};

/// A consultation that the caller takes part in.
pub(super) type Found = Result<Arc<Consultation>, Problem>;

/// By the id of the session.
pub(super) async fn of_session(state: &ControlPlane, caller: &Caller, id: Uuid) -> Found {
    own(caller, state.control.look(&caller.0.clinic, id).await?)
}

/// By the id of the appointment.
pub(super) async fn of_appointment(state: &ControlPlane, caller: &Caller, id: &str) -> Found {
    if !text::is_id(id) {
        return Err(Problem::not_found("there is nothing with this id"));
    }
    let found = state.control.of_appointment(&caller.0.clinic, id).await?;
    own(caller, found.ok_or_else(|| Problem::not_found("this appointment has no consultation"))?)
}

/// By either; an id that is both is the session's.
pub(super) async fn of_either(state: &ControlPlane, caller: &Caller, id: &str) -> Found {
    if let Ok(session) = Uuid::try_parse(id) {
        match state.control.look(&caller.0.clinic, session).await {
            Ok(found) => return own(caller, found),
            Err(crate::ChangeError::NotFound) => {}
            Err(error) => return Err(error.into()),
        }
    }
    of_appointment(state, caller, id).await
}

/// By what the body says.
pub(super) async fn of_body(state: &ControlPlane, caller: &Caller, words: &Words) -> Found {
    if let Some(id) = words.session()? {
        let found = of_session(state, caller, id).await?;
        return match words.id(APPOINTMENT)? {
            Some(other) if found.appointment_id.as_ref() != Some(&other) => {
                Err(Problem::not_found("this appointment has no such session"))
            }
            _ => Ok(found),
        };
    }
    match words.id(APPOINTMENT)? {
        Some(id) => of_appointment(state, caller, &id).await,
        None => Err(Problem::invalid("appointmentId or sessionId says which consultation")),
    }
}

fn own(caller: &Caller, consultation: Arc<Consultation>) -> Found {
    if caller.takes_part(&consultation) {
        Ok(consultation)
    } else {
        Err(Problem::forbidden("this consultation is somebody else's"))
    }
}

/// For whom the caller acts.
#[derive(Debug)]
pub(super) struct Acting {
    pub(super) user_id: String,
    pub(super) name: Option<Private<String>>,
}

/// People act as themselves, services for a doctor, a patient, or a guest where there is room for
/// one. A role that is named must be the one that the person has.
pub(super) fn acting(
    caller: &Caller,
    consultation: &Consultation,
    words: &Words,
    names: &[&'static str],
) -> Result<Acting, Problem> {
    let named = words.id(names)?;
    let role = words.role()?;
    let info = words.inner(&["userInfo", "user_info"])?.unwrap_or_default();
    let name = match words.name(NAME)? {
        Some(name) => Some(name),
        None => info.name(NAME)?,
    };
    let (user_id, name) = if caller.is_staff() {
        let user_id = match (named, role) {
            (Some(user_id), _) => user_id,
            (None, Some(PersonRole::Doctor)) => consultation.doctor_id.clone(),
            (None, Some(PersonRole::Patient)) => consultation.patient_id.clone(),
            (None, Some(PersonRole::Guest) | None) => {
                return Err(Problem::invalid("userId says for whom the service acts"));
            }
        };
        (user_id, name)
    } else {
        if named.is_some_and(|named| named != caller.0.user_id) {
            return Err(Problem::forbidden("one acts only as oneself"));
        }
        (caller.0.user_id.clone(), caller.0.name.clone().or(name))
    };
    let known = consultation.role_of(&user_id);
    if role.is_some_and(|role| role != known) {
        return Err(Problem::forbidden("this person has another role in the consultation"));
    }
    if known == PersonRole::Guest && consultation.max_participants <= 2 {
        return Err(Problem::forbidden("this person does not take part in the consultation"));
    }
    Ok(Acting { user_id, name })
}

/// Joins for somebody.
pub(super) async fn enter(
    state: &ControlPlane,
    caller: &Caller,
    consultation: &Consultation,
    acting: &Acting,
) -> Result<Joined, Problem> {
    caller.may(Permission::JoinConsultations)?;
    let (clinic, id) = (&caller.0.clinic, consultation.id);
    let actor = actor(caller, consultation, acting);
    let name = acting.name.clone();
    let device = Device::default();
    let joined = state.control.join(clinic, id, &actor, &acting.user_id, name, device).await?;
    if matches!(joined, Joined::Room(_)) {
        state.control.tell_token(consultation, &acting.user_id);
    }
    Ok(joined)
}

/// What a join gives, ready to be put into a contract's words. 202 = the person waits.
pub(super) async fn arrival<'a>(
    state: &'a ControlPlane,
    consultation: &'a Consultation,
    acting: &'a Acting,
    joined: &'a Joined,
) -> Result<(StatusCode, Arrival<'a>), Problem> {
    let (status, entry) = match joined {
        Joined::Room(access) => (StatusCode::OK, Entry::Room(access)),
        Joined::Waiting { position } => (StatusCode::ACCEPTED, Entry::Waiting(*position)),
    };
    let config = &state.control.config;
    let arrival = Arrival {
        consultation,
        user_id: &acting.user_id,
        entry,
        page: page(state, consultation, &acting.user_id).await?,
        api_key: config.keys.first().map(|pair| pair.key.clone()).unwrap_or_default(),
        public_url: &config.public_url,
    };
    Ok((status, arrival))
}

/// The page on which this person takes part.
async fn page(
    state: &ControlPlane,
    consultation: &Consultation,
    user_id: &str,
) -> Result<String, Problem> {
    let base = state.control.config.public_url.trim_end_matches('/');
    Ok(match consultation.role_of(user_id) {
        PersonRole::Patient => patient_link(state, consultation).await?,
        PersonRole::Doctor => format!("{base}/doctor"),
        PersonRole::Guest => format!("{base}/visit"),
    })
}

/// The patient's join link, for those who may have it.
pub(super) async fn link_for(
    state: &ControlPlane,
    caller: &Caller,
    consultation: &Consultation,
) -> Result<Option<String>, Problem> {
    let patient = consultation.role_of(&caller.0.user_id) == PersonRole::Patient;
    let leads = caller.leads(consultation) && caller.may(Permission::ManageLinks).is_ok();
    if consultation.status.is_over() || !(patient || leads) {
        return Ok(None);
    }
    patient_link(state, consultation).await.map(Some)
}

async fn patient_link(
    state: &ControlPlane,
    consultation: &Consultation,
) -> Result<String, Problem> {
    Ok(state.control.attendee_url(consultation).await?)
}

/// Ends it, as its doctor or for them. Asking again does no harm.
pub(super) async fn end(
    state: &ControlPlane,
    caller: &Caller,
    consultation: &Consultation,
    words: &Words,
) -> Found {
    let reason = words.text(&["reason", "end_reason", "endReason"])?;
    if reason.as_ref().is_some_and(|reason| !text::is_reason(reason)) {
        return Err(Problem::invalid("reason is empty, too long or not text"));
    }
    let actor = leader(caller, consultation, words)?;
    let step = Step::End(reason);
    Ok(state.control.step(&caller.0.clinic, consultation.id, &actor, &step).await?)
}

/// Starts it, as its doctor or for them. Asking again does no harm.
pub(super) async fn start(
    state: &ControlPlane,
    caller: &Caller,
    consultation: &Consultation,
    words: &Words,
) -> Found {
    let actor = leader(caller, consultation, words)?;
    let started = matches!(consultation.status, Status::InProgress | Status::Paused);
    if started {
        return state.control.look(&caller.0.clinic, consultation.id).await.map_err(Into::into);
    }
    Ok(state.control.step(&caller.0.clinic, consultation.id, &actor, &Step::Start).await?)
}

/// Who leads the consultation here: its doctor, or a service in the doctor's name or its own.
fn leader(caller: &Caller, consultation: &Consultation, words: &Words) -> Result<Actor, Problem> {
    let only = "only the doctor of the consultation may do this";
    if !caller.leads(consultation) {
        return Err(Problem::forbidden(only));
    }
    let names: &[&[&str]] = &[USER, DOCTOR];
    let names = names.concat();
    if caller.is_staff() && words.any(&names)?.is_none() && words.role()?.is_none() {
        return Ok(caller.actor());
    }
    let acting = acting(caller, consultation, words, &names)?;
    if consultation.role_of(&acting.user_id) == PersonRole::Doctor {
        Ok(actor(caller, consultation, &acting))
    } else {
        Err(Problem::forbidden(only))
    }
}

/// The record of a consultation names the person, and the service that asked.
fn actor(caller: &Caller, consultation: &Consultation, acting: &Acting) -> Actor {
    if !caller.is_staff() {
        return caller.actor();
    }
    Actor::Reported {
        service: caller.0.user_id.clone(),
        by: Some(acting.user_id.clone()),
        role: Some(consultation.role_of(&acting.user_id)),
    }
}
