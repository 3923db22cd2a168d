//! What was: `/api/v1/consultations/history`, `…/sessions/{id}/summary`, and the call history of
//! the older contract, `/api/video/history`.

use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Path, Query, State};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::problem::Problem;
use super::sessions::{ListAnswer, limit, own, read_cursor, write_cursor};
use super::video_words::{mode, status, time_in_text};
use crate::access::Caller;
use crate::consultation::{Consultation, Mode};
use crate::permissions::Permission;
use crate::store::{self, Past};
use crate::token::ApiRole;
use crate::{ControlPlane, audit, text, view};

/// The page of the older contract beyond which nobody turns.
const MAX_PAGE: i64 = 1_000;

/// Which consultations of the past.
#[derive(Deserialize, utoipa::IntoParams)]
#[serde(rename_all = "camelCase")]
#[into_params(parameter_in = Query)]
pub(crate) struct HistoryQuery {
    /// Only these; without it everything that is over.
    status: Option<String>,
    /// `VIDEO`, `AUDIO`, `CHAT`.
    #[serde(alias = "consultationMode")]
    mode: Option<String>,
    /// Planned to begin then or later.
    from: Option<String>,
    /// Planned to begin earlier than that.
    to: Option<String>,
    /// Only with this doctor.
    #[serde(alias = "doctor_id")]
    doctor_id: Option<String>,
    /// Only with this patient.
    #[serde(alias = "patient_id")]
    patient_id: Option<String>,
    /// From 1 to 200; 50 if absent.
    #[param(minimum = 1, maximum = 200)]
    limit: Option<i64>,
    /// `nextCursor` of the page before.
    cursor: Option<String>,
}

/// A consultation of the past.
#[derive(Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct HistoryItem {
    session_id: Uuid,
    appointment_id: Option<String>,
    doctor_id: String,
    doctor_name: String,
    patient_id: String,
    patient_name: String,
    consultation_mode: &'static str,
    status: &'static str,
    scheduled_start_time: String,
    /// Planned, in minutes.
    scheduled_duration: i64,
    start_time: Option<String>,
    end_time: Option<String>,
    /// In minutes, rounded.
    actual_duration: Option<i64>,
    /// The same, in seconds.
    actual_duration_seconds: Option<i64>,
    end_reason: Option<String>,
}

impl HistoryItem {
    fn new(consultation: &Consultation) -> Self {
        Self {
            session_id: consultation.id,
            appointment_id: consultation.appointment_id.clone(),
            doctor_id: consultation.doctor_id.clone(),
            doctor_name: consultation.doctor_name.reveal().clone(),
            patient_id: consultation.patient_id.clone(),
            patient_name: consultation.patient_name.reveal().clone(),
            consultation_mode: consultation.mode.as_str(),
            status: consultation.status.as_str(),
            scheduled_start_time: view::time(consultation.scheduled_start),
            scheduled_duration: consultation.scheduled_minutes,
            start_time: consultation.actual_start.map(view::time),
            end_time: consultation.actual_end.map(view::time),
            actual_duration: consultation.duration_seconds.map(minutes),
            actual_duration_seconds: consultation.duration_seconds,
            end_reason: consultation.end_reason.clone(),
        }
    }
}

/// The caller's consultations of the past, or the clinic's; the newest planned begin first.
#[utoipa::path(get, path = "/api/v1/consultations/history", params(HistoryQuery),
    responses((status = 200, body = ListAnswer<HistoryItem>)))]
pub(crate) async fn history(
    State(state): State<ControlPlane>,
    caller: Caller,
    query: Result<Query<HistoryQuery>, QueryRejection>,
) -> Result<Json<ListAnswer<HistoryItem>>, Problem> {
    let Query(query) = query.map_err(|_| Problem::invalid("the query does not fit"))?;
    let zone = state.control.config.naive_timezone;
    let at = |text: Option<&str>, name: &str| {
        let read = text.map(|text| {
            time_in_text(text, zone).ok_or_else(|| Problem::invalid(format!("{name} is no time")))
        });
        read.transpose()
    };
    let (from, to) = (at(query.from.as_deref(), "from")?, at(query.to.as_deref(), "to")?);
    let cursor = query.cursor.as_deref();
    let after = cursor
        .map(|text| read_cursor(text).ok_or_else(|| Problem::invalid("cursor is not one of ours")));
    let past = Past {
        doctor_id: query.doctor_id.map(id("doctorId")).transpose()?,
        patient_id: query.patient_id.map(id("patientId")).transpose()?,
        status: query.status.as_deref().map(known_status).transpose()?,
        mode: query.mode.as_deref().map(known_mode).transpose()?,
        from,
        to,
        after: after.transpose()?,
        limit: limit(query.limit)?,
        ..Past::default()
    };
    let past = own_part(&caller, past)?;
    let size = usize::try_from(past.limit).unwrap_or(0);
    let more = Past { limit: past.limit + 1, ..past };
    let mut found = state.control.within(state.control.db.past(&caller.0.clinic, &more)).await?;
    let further = found.len() > size;
    found.truncate(size);
    audit::listed(found.iter().map(|consultation| consultation.id));
    let last = found.last().filter(|_| further);
    let next_cursor = last.map(|last| write_cursor(last.scheduled_start, last.id));
    let items = found.iter().map(HistoryItem::new).collect();
    Ok(Json(ListAnswer { items, next_cursor }))
}

/// Narrows what is asked down to what the caller took part in.
fn own_part(caller: &Caller, past: Past) -> Result<Past, Problem> {
    caller.may(Permission::ReadConsultations)?;
    let user = &caller.0.user_id;
    let own = |asked: &Option<String>| asked.as_ref().is_none_or(|asked| asked == user);
    let elses = || Problem::forbidden("these consultations are somebody else's");
    let past = Past { only: caller.0.session, ..past };
    if !caller.is_staff() && !own(&past.user_id) {
        return Err(elses());
    }
    match caller.0.role {
        ApiRole::Service | ApiRole::Admin => Ok(past),
        ApiRole::Doctor if own(&past.doctor_id) => {
            Ok(Past { doctor_id: Some(user.clone()), ..past })
        }
        ApiRole::Patient if own(&past.patient_id) => {
            Ok(Past { patient_id: Some(user.clone()), ..past })
        }
        ApiRole::Doctor | ApiRole::Patient | ApiRole::Guest | ApiRole::Auditor => Err(elses()),
    }
}

fn id(name: &'static str) -> impl Fn(String) -> Result<String, Problem> {
    move |id| {
        if text::is_id(&id) {
            Ok(id)
        } else {
            Err(Problem::invalid(format!("{name} is empty, too long or not text")))
        }
    }
}

fn known_status(word: &str) -> Result<crate::consultation::Status, Problem> {
    status(word).ok_or_else(|| Problem::invalid("status is unknown"))
}

fn known_mode(word: &str) -> Result<Mode, Problem> {
    mode(word).ok_or_else(|| Problem::invalid("mode must be VIDEO, AUDIO or CHAT"))
}

/// Seconds as minutes, rounded to the nearest.
const fn minutes(seconds: i64) -> i64 {
    (seconds + 30) / 60
}

/// What a consultation was, in one look.
#[derive(Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct SummaryView {
    session_id: Uuid,
    appointment_id: Option<String>,
    doctor_name: String,
    /// The doctor's field, if it is known; bookings do not tell it.
    specialization: Option<String>,
    consultation_mode: &'static str,
    /// Planned, in minutes.
    scheduled_duration: i64,
    /// In minutes, rounded.
    actual_duration: Option<i64>,
    /// The same, in seconds.
    actual_duration_seconds: Option<i64>,
    start_time: Option<String>,
    end_time: Option<String>,
    status: &'static str,
    end_reason: Option<String>,
    chat_message_count: i64,
    /// Prescriptions are written elsewhere.
    prescription_id: Option<String>,
    feedback_submitted: bool,
    /// What it costs, if there is a price.
    #[schema(value_type = Option<f64>)]
    amount_charged: Option<Box<serde_json::value::RawValue>>,
    currency: Option<String>,
}

/// What a consultation was, in one look.
#[utoipa::path(get, path = "/api/v1/consultations/sessions/{id}/summary",
    responses((status = 200, body = SummaryView)))]
pub(crate) async fn summary(
    State(state): State<ControlPlane>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<Json<SummaryView>, Problem> {
    let consultation = own(&state, &caller, &id).await?;
    let control = &state.control;
    let messages = control.within(control.db.count_messages(consultation.id)).await?;
    let feedback = control.feedback(&consultation).await?;
    // Money is between the patient and the clinic.
    let charged = match caller.may(Permission::ReadBilling) {
        Ok(()) => control.amount_charged(&consultation).await?,
        Err(_) => None,
    };
    Ok(Json(SummaryView {
        session_id: consultation.id,
        appointment_id: consultation.appointment_id.clone(),
        doctor_name: consultation.doctor_name.reveal().clone(),
        specialization: None,
        consultation_mode: consultation.mode.as_str(),
        scheduled_duration: consultation.scheduled_minutes,
        actual_duration: consultation.duration_seconds.map(minutes),
        actual_duration_seconds: consultation.duration_seconds,
        start_time: consultation.actual_start.map(view::time),
        end_time: consultation.actual_end.map(view::time),
        status: consultation.status.as_str(),
        end_reason: consultation.end_reason.clone(),
        chat_message_count: messages,
        prescription_id: None,
        feedback_submitted: feedback.is_some(),
        // As it is written, `500.00`: no float comes between.
        amount_charged: charged
            .and_then(|charged| serde_json::value::RawValue::from_string(charged.to_string()).ok()),
        currency: charged.map(|charged| charged.currency.as_str().to_owned()),
    }))
}

/// Whose calls, as the older contract asks.
#[derive(Deserialize, utoipa::IntoParams)]
#[serde(rename_all = "camelCase")]
#[into_params(parameter_in = Query)]
pub(crate) struct CallsQuery {
    /// Whose; oneself if absent, the whole clinic for a service.
    #[serde(alias = "user_id")]
    user_id: Option<String>,
    /// The caller's own clinic.
    #[serde(alias = "clinic_id")]
    clinic_id: Option<String>,
    /// Only these; without it everything that is over.
    status: Option<String>,
    /// From 1.
    #[param(minimum = 1, maximum = 1000)]
    page: Option<i64>,
    /// From 1 to 200; 50 if absent.
    #[param(minimum = 1, maximum = 200)]
    limit: Option<i64>,
}

/// The calls of a person.
#[derive(Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct CallsAnswer {
    user_id: Option<String>,
    clinic_id: String,
    calls: Vec<CallView>,
    /// On all pages.
    total: i64,
    page: i64,
    limit: i64,
    retrieved_at: String,
}

/// One call.
#[derive(Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct CallView {
    id: Uuid,
    session_id: Uuid,
    appointment_id: Option<String>,
    patient_id: String,
    doctor_id: String,
    clinic_id: String,
    status: &'static str,
    /// The doctor and the patient.
    participants: Vec<String>,
    settings: CallSettings,
    start_time: Option<String>,
    end_time: Option<String>,
    /// In seconds.
    duration: Option<i64>,
    /// `own`: our nodes carried the media.
    provider: &'static str,
}

/// How a call was set up.
#[derive(Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct CallSettings {
    max_participants: i64,
    recording_enabled: bool,
    screen_sharing_enabled: bool,
    chat_enabled: bool,
    waiting_room_enabled: bool,
    auto_record: bool,
}

impl CallView {
    fn new(consultation: &Consultation) -> Self {
        Self {
            id: consultation.id,
            session_id: consultation.id,
            appointment_id: consultation.appointment_id.clone(),
            patient_id: consultation.patient_id.clone(),
            doctor_id: consultation.doctor_id.clone(),
            clinic_id: consultation.clinic.clone(),
            status: consultation.status.as_str(),
            participants: vec![consultation.doctor_id.clone(), consultation.patient_id.clone()],
            settings: CallSettings {
                max_participants: consultation.max_participants,
                recording_enabled: false,
                screen_sharing_enabled: consultation.mode == Mode::Video,
                chat_enabled: true,
                waiting_room_enabled: true,
                auto_record: false,
            },
            start_time: consultation.actual_start.map(view::time),
            end_time: consultation.actual_end.map(view::time),
            duration: consultation.duration_seconds,
            provider: super::video_view::PROVIDER,
        }
    }
}

/// A person's calls, the newest planned begin first.
#[utoipa::path(get, path = "/api/video/history", tag = "video", params(CallsQuery),
    responses((status = 200, body = CallsAnswer)))]
pub(crate) async fn calls(
    State(state): State<ControlPlane>,
    caller: Caller,
    query: Result<Query<CallsQuery>, QueryRejection>,
) -> Result<Json<CallsAnswer>, Problem> {
    let Query(query) = query.map_err(|_| Problem::invalid("the query does not fit"))?;
    if query.clinic_id.is_some_and(|clinic| clinic != caller.0.clinic) {
        return Err(Problem::not_found("there is no such clinic"));
    }
    let (page, limit) = (query.page.unwrap_or(1), limit(query.limit)?);
    if !(1..=MAX_PAGE).contains(&page) {
        return Err(Problem::invalid("page must be from 1 to 1000"));
    }
    let named = query.user_id.map(id("userId")).transpose()?;
    let past = Past {
        user_id: named.clone(),
        status: query.status.as_deref().map(known_status).transpose()?,
        skip: (page - 1) * limit,
        limit,
        ..Past::default()
    };
    let past = own_part(&caller, past)?;
    let (control, clinic) = (&state.control, &caller.0.clinic);
    let total = control.within(control.db.count_past(clinic, &past)).await?;
    let found = control.within(control.db.past(clinic, &past)).await?;
    audit::listed(found.iter().map(|consultation| consultation.id));
    let own = (!caller.is_staff()).then(|| caller.0.user_id.clone());
    Ok(Json(CallsAnswer {
        user_id: named.or(own),
        clinic_id: clinic.clone(),
        calls: found.iter().map(CallView::new).collect(),
        total,
        page,
        limit,
        retrieved_at: view::time(store::now()),
    }))
}
