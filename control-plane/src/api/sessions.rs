//! `/api/v1/consultations/sessions/…`

use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Path, Query, State};
use axum::http::header::USER_AGENT;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::problem::Problem;
use super::video_words::{mode, status, time};
use super::{Body, forms, id_in_path};
use crate::access::Caller;
use crate::consultation::{Consultation, Device, DeviceKind, PersonRole, Step};
use crate::permissions::Permission;
use crate::sessions::{Joined, NewSession, RoomAnswer, WaitingAnswer, socket_url};
use crate::store::Page;
use crate::token::ApiRole;
use crate::view::{self, EventView, MessageView, SessionView};
use crate::{ControlPlane, Private, text};

const DEFAULT_LIMIT: i64 = 50;
const MAX_LIMIT: i64 = 200;

type Session = Result<Json<SessionView>, Problem>;

/// A consultation to make.
#[derive(Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct CreateRequest {
    #[serde(default, alias = "appointment_id", deserialize_with = "forms::id")]
    #[schema(value_type = forms::AnyId, required = false)]
    appointment_id: Option<String>,
    #[serde(default, alias = "doctor_id", deserialize_with = "forms::id")]
    #[schema(value_type = forms::AnyId, required = false)]
    doctor_id: Option<String>,
    #[serde(alias = "doctor_name")]
    doctor_name: Option<String>,
    #[serde(default, alias = "patient_id", deserialize_with = "forms::id")]
    #[schema(value_type = forms::AnyId, required = false)]
    patient_id: Option<String>,
    #[serde(alias = "patient_name")]
    patient_name: Option<String>,
    /// `VIDEO`, `AUDIO`, `CHAT`.
    #[serde(alias = "consultation_mode")]
    consultation_mode: String,
    /// Now if absent. One without a zone is in the configured one.
    #[serde(alias = "scheduled_start_time")]
    #[schema(value_type = forms::AnyTime, required = false)]
    scheduled_start_time: Option<serde_json::Value>,
    #[serde(alias = "scheduled_duration_minutes")]
    scheduled_duration_minutes: Option<i64>,
    #[serde(alias = "max_participants")]
    max_participants: Option<i64>,
}

/// Who joins or leaves; only for services, others speak for themselves.
#[derive(Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct JoinRequest {
    #[serde(default, alias = "user_id", deserialize_with = "forms::id")]
    #[schema(value_type = forms::AnyId, required = false)]
    user_id: Option<String>,
    name: Option<String>,
    /// `web`, `mobile`, `tablet`; what a person's page does not say is read from its `User-Agent`.
    #[serde(alias = "device_type")]
    device_type: Option<String>,
    browser: Option<String>,
    os: Option<String>,
}

impl JoinRequest {
    /// What the person comes with. The header of a service says nothing about a person.
    fn device(&self, headers: &HeaderMap, caller: &Caller) -> Result<Device, Problem> {
        let kind = match self.device_type.as_deref() {
            Some(word) => Some(
                DeviceKind::parse(&word.to_ascii_lowercase())
                    .ok_or_else(|| Problem::invalid("deviceType must be web, mobile or tablet"))?,
            ),
            None => None,
        };
        for word in [&self.browser, &self.os].into_iter().flatten() {
            if !text::is_reason(word) {
                return Err(Problem::invalid("browser or os is empty, too long or not text"));
            }
        }
        let agent = headers.get(USER_AGENT).and_then(|value| value.to_str().ok());
        let read = agent.filter(|_| !caller.is_staff()).map(Device::of_user_agent);
        let read = read.unwrap_or_default();
        Ok(Device {
            kind: kind.or(read.kind),
            browser: self.browser.clone().or(read.browser),
            os: self.os.clone().or(read.os),
        })
    }
}

/// Somebody in a consultation.
#[derive(Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct PersonRequest {
    user_id: String,
}

/// Why.
#[derive(Deserialize, utoipa::ToSchema)]
pub(crate) struct ReasonRequest {
    reason: Option<String>,
}

/// Which consultations to list.
#[derive(Deserialize)]
pub(crate) struct ListQuery {
    status: Option<String>,
    limit: Option<i64>,
    cursor: Option<String>,
}

/// Which part of what happened to list.
#[derive(Deserialize)]
pub(crate) struct EventQuery {
    limit: Option<i64>,
    cursor: Option<String>,
}

/// Which messages to list: the newest before a number, or the oldest after one. `cursor` is another
/// word for `before`.
#[derive(Deserialize)]
pub(crate) struct ChatQuery {
    before: Option<i64>,
    after: Option<i64>,
    cursor: Option<i64>,
    limit: Option<i64>,
}

/// One page of a list.
#[derive(Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ListAnswer<T> {
    pub(super) items: Vec<T>,
    pub(super) next_cursor: Option<String>,
}

/// Makes a consultation, or answers the one that the appointment has.
#[utoipa::path(post, path = "/api/v1/consultations/sessions", request_body = CreateRequest,
    responses((status = 201, body = SessionView), (status = 200, body = SessionView)))]
pub(crate) async fn create(
    State(state): State<ControlPlane>,
    caller: Caller,
    Body(request): Body<CreateRequest>,
) -> Result<Response, Problem> {
    caller.may(Permission::CreateConsultations)?;
    let own = request.doctor_id.as_ref().is_none_or(|doctor| *doctor == caller.0.user_id);
    if caller.0.role == ApiRole::Doctor && !own {
        return Err(Problem::forbidden("a doctor creates only consultations of their own"));
    }
    let mode = mode(&request.consultation_mode)
        .ok_or_else(|| Problem::invalid("consultationMode must be VIDEO, AUDIO or CHAT"))?;
    let scheduled_start = match &request.scheduled_start_time {
        None => None,
        Some(value) => {
            let known = "scheduledStartTime must be a time as in 2026-01-24T10:30:00Z";
            let start = time(value, state.control.config.naive_timezone);
            Some(start.ok_or_else(|| Problem::invalid(known))?)
        }
    };
    let new = NewSession {
        appointment_id: request.appointment_id,
        // A doctor's own, at once and without an appointment: who treats goes without saying.
        doctor_id: request
            .doctor_id
            .or_else(|| (caller.0.role == ApiRole::Doctor).then(|| caller.0.user_id.clone())),
        doctor_name: request.doctor_name,
        patient_id: request.patient_id,
        patient_name: request.patient_name,
        mode,
        scheduled_start,
        scheduled_minutes: request.scheduled_duration_minutes,
        max_participants: request.max_participants,
    };
    let (consultation, created) =
        state.control.create(&caller.0.clinic, &caller.actor(), &new).await?;
    if !caller.leads(&consultation) {
        return Err(Problem::forbidden("this appointment's consultation is somebody else's"));
    }
    let status = if created { StatusCode::CREATED } else { StatusCode::OK };
    Ok((status, shown(&caller, &consultation)).into_response())
}

/// The caller's consultations, or the clinic's; the newest planned begin first.
#[utoipa::path(get, path = "/api/v1/consultations/sessions",
    params(("status" = Option<String>, Query), ("limit" = Option<i64>, Query),
        ("cursor" = Option<String>, Query)),
    responses((status = 200, body = ListAnswer<SessionView>)))]
pub(crate) async fn list(
    State(state): State<ControlPlane>,
    caller: Caller,
    query: Result<Query<ListQuery>, QueryRejection>,
) -> Result<Json<ListAnswer<SessionView>>, Problem> {
    caller.may(Permission::ReadConsultations)?;
    let Query(query) = query.map_err(|_| Problem::invalid("the query does not fit"))?;
    let word = query.status.as_deref();
    let status = word.map(|word| status(word).ok_or_else(|| Problem::invalid("status is unknown")));
    let cursor = query.cursor.as_deref();
    let after = cursor
        .map(|text| read_cursor(text).ok_or_else(|| Problem::invalid("cursor is not one of ours")));
    let page = Page {
        status: status.transpose()?,
        after: after.transpose()?,
        limit: limit(query.limit)?,
        ..caller.page()
    };
    let (sessions, next) = state.control.page(&caller.0.clinic, page).await?;
    let items = sessions.iter().map(|c| view::session(c, caller.viewer(c))).collect();
    Ok(Json(ListAnswer { items, next_cursor: next.map(|(at, id)| write_cursor(at, id)) }))
}

/// One consultation.
#[utoipa::path(get, path = "/api/v1/consultations/sessions/{id}",
    responses((status = 200, body = SessionView)))]
pub(crate) async fn read(
    State(state): State<ControlPlane>,
    caller: Caller,
    Path(id): Path<String>,
) -> Session {
    let consultation = own(&state, &caller, &id).await?;
    Ok(shown(&caller, &consultation))
}

/// Comes in: the doctor and whoever was let in get a room token, others a place in the queue.
#[utoipa::path(post, path = "/api/v1/consultations/sessions/{id}/join",
    request_body = JoinRequest,
    responses((status = 200, body = RoomAnswer), (status = 202, body = WaitingAnswer)))]
pub(crate) async fn join(
    State(state): State<ControlPlane>,
    caller: Caller,
    Path(id): Path<String>,
    headers: HeaderMap,
    Body(request): Body<JoinRequest>,
) -> Result<Response, Problem> {
    let consultation = own(&state, &caller, &id).await?;
    caller.may(Permission::JoinConsultations)?;
    let device = request.device(&headers, &caller)?;
    let (user_id, name) = if caller.is_staff() {
        let user_id = request
            .user_id
            .ok_or_else(|| Problem::invalid("userId says for whom the service joins"))?;
        (user_id, request.name.map(Private::new))
    } else {
        if request.user_id.is_some_and(|user_id| user_id != caller.0.user_id) {
            return Err(Problem::forbidden("one joins only as oneself"));
        }
        (caller.0.user_id.clone(), caller.0.name.clone())
    };
    if !text::is_id(&user_id) || !name.as_ref().is_none_or(|name| text::is_name(name.reveal())) {
        return Err(Problem::invalid("userId or name is empty, too long or not text"));
    }
    if consultation.role_of(&user_id) == PersonRole::Guest && consultation.max_participants <= 2 {
        return Err(Problem::full());
    }
    let actor = caller.actor();
    let id = consultation.id;
    let joined = state.control.join(&caller.0.clinic, id, &actor, &user_id, name, device).await?;
    Ok(match joined {
        Joined::Room(access) => {
            state.control.tell_token(&consultation, &user_id);
            let ice_servers = state.control.rooms.ice_servers(&access);
            Json(RoomAnswer::new(&access, ice_servers)).into_response()
        }
        Joined::Waiting { position } => {
            let base = socket_url(&state.control.config.public_url);
            let channel_url = format!("{base}/api/v1/consultations/sessions/{id}/channel");
            let answer = WaitingAnswer { status: "WAITING", position, channel_url };
            (StatusCode::ACCEPTED, Json(answer)).into_response()
        }
    })
}

/// Lets a waiting person in.
#[utoipa::path(post, path = "/api/v1/consultations/sessions/{id}/admit",
    request_body = PersonRequest, responses((status = 200, body = SessionView)))]
pub(crate) async fn admit(
    State(state): State<ControlPlane>,
    caller: Caller,
    Path(id): Path<String>,
    Body(request): Body<PersonRequest>,
) -> Session {
    lead(&state, &caller, &id, &Step::Admit(request.user_id)).await
}

/// Puts a person back into the waiting room.
#[utoipa::path(post, path = "/api/v1/consultations/sessions/{id}/send-back",
    request_body = PersonRequest, responses((status = 200, body = SessionView)))]
pub(crate) async fn send_back(
    State(state): State<ControlPlane>,
    caller: Caller,
    Path(id): Path<String>,
    Body(request): Body<PersonRequest>,
) -> Session {
    lead(&state, &caller, &id, &Step::SendBack(request.user_id)).await
}

/// Goes; coming back is allowed.
#[utoipa::path(post, path = "/api/v1/consultations/sessions/{id}/leave",
    request_body = JoinRequest, responses((status = 200, body = SessionView)))]
pub(crate) async fn leave(
    State(state): State<ControlPlane>,
    caller: Caller,
    Path(id): Path<String>,
    Body(request): Body<JoinRequest>,
) -> Session {
    let consultation = own(&state, &caller, &id).await?;
    caller.may(Permission::JoinConsultations)?;
    let user_id = match request.user_id {
        Some(user_id) if caller.is_staff() || user_id == caller.0.user_id => user_id,
        Some(_) => return Err(Problem::forbidden("one leaves only for oneself")),
        None if caller.is_staff() => return Err(Problem::invalid("userId says who leaves")),
        None => caller.0.user_id.clone(),
    };
    // Whoever never came, or whose consultation is over, has left: asking twice does no harm.
    if consultation.status.is_over() || consultation.person(&user_id).is_none() {
        return Ok(shown(&caller, &consultation));
    }
    let step = Step::Leave(user_id);
    let actor = caller.actor();
    let after = state.control.step(&caller.0.clinic, consultation.id, &actor, &step).await?;
    Ok(shown(&caller, &after))
}

/// Begins, whoever is here; a second time changes nothing.
#[utoipa::path(post, path = "/api/v1/consultations/sessions/{id}/start",
    responses((status = 200, body = SessionView)))]
pub(crate) async fn start(
    State(state): State<ControlPlane>,
    caller: Caller,
    Path(id): Path<String>,
) -> Session {
    lead(&state, &caller, &id, &Step::Start).await
}

/// Interrupts.
#[utoipa::path(post, path = "/api/v1/consultations/sessions/{id}/pause",
    responses((status = 200, body = SessionView)))]
pub(crate) async fn pause(
    State(state): State<ControlPlane>,
    caller: Caller,
    Path(id): Path<String>,
) -> Session {
    lead(&state, &caller, &id, &Step::Pause).await
}

/// Goes on.
#[utoipa::path(post, path = "/api/v1/consultations/sessions/{id}/resume",
    responses((status = 200, body = SessionView)))]
pub(crate) async fn resume(
    State(state): State<ControlPlane>,
    caller: Caller,
    Path(id): Path<String>,
) -> Session {
    lead(&state, &caller, &id, &Step::Resume).await
}

/// Ends the consultation and closes its room.
#[utoipa::path(post, path = "/api/v1/consultations/sessions/{id}/end",
    request_body = ReasonRequest, responses((status = 200, body = SessionView)))]
pub(crate) async fn end(
    State(state): State<ControlPlane>,
    caller: Caller,
    Path(id): Path<String>,
    Body(request): Body<ReasonRequest>,
) -> Session {
    lead(&state, &caller, &id, &Step::End(reason(request)?)).await
}

/// Calls off what has not begun.
#[utoipa::path(post, path = "/api/v1/consultations/sessions/{id}/cancel",
    request_body = ReasonRequest, responses((status = 200, body = SessionView)))]
pub(crate) async fn cancel(
    State(state): State<ControlPlane>,
    caller: Caller,
    Path(id): Path<String>,
    Body(request): Body<ReasonRequest>,
) -> Session {
    lead(&state, &caller, &id, &Step::Cancel(reason(request)?)).await
}

/// Somebody did not come.
#[utoipa::path(post, path = "/api/v1/consultations/sessions/{id}/no-show",
    request_body = ReasonRequest, responses((status = 200, body = SessionView)))]
pub(crate) async fn no_show(
    State(state): State<ControlPlane>,
    caller: Caller,
    Path(id): Path<String>,
    Body(request): Body<ReasonRequest>,
) -> Session {
    lead(&state, &caller, &id, &Step::NoShow(reason(request)?)).await
}

/// Takes an end back: of a no-show, or of what was completed less than 15 minutes ago.
#[utoipa::path(post, path = "/api/v1/consultations/sessions/{id}/reopen",
    responses((status = 200, body = SessionView)))]
pub(crate) async fn reopen(
    State(state): State<ControlPlane>,
    caller: Caller,
    Path(id): Path<String>,
) -> Session {
    lead(&state, &caller, &id, &Step::Reopen).await
}

/// What happened, oldest first.
#[utoipa::path(get, path = "/api/v1/consultations/sessions/{id}/events",
    params(("limit" = Option<i64>, Query), ("cursor" = Option<String>, Query)),
    responses((status = 200, body = ListAnswer<EventView>)))]
pub(crate) async fn events(
    State(state): State<ControlPlane>,
    caller: Caller,
    Path(id): Path<String>,
    query: Result<Query<EventQuery>, QueryRejection>,
) -> Result<Json<ListAnswer<EventView>>, Problem> {
    let Query(query) = query.map_err(|_| Problem::invalid("the query does not fit"))?;
    let limit = limit(query.limit)?;
    let cursor = query.cursor.as_deref();
    let after = cursor
        .map(|text| read_cursor(text).ok_or_else(|| Problem::invalid("cursor is not one of ours")));
    let consultation = own(&state, &caller, &id).await?;
    if !caller.leads(&consultation) {
        return Err(Problem::forbidden("only the doctor of the consultation may read this"));
    }
    let (rows, next) = state.control.events(consultation.id, after.transpose()?, limit).await?;
    let items = rows.into_iter().map(view::event).collect();
    Ok(Json(ListAnswer { items, next_cursor: next.map(|(at, id)| write_cursor(at, id)) }))
}

/// A page of the chat, newest last.
#[utoipa::path(get, path = "/api/v1/consultations/sessions/{id}/chat",
    params(("before" = Option<i64>, Query), ("limit" = Option<i64>, Query)),
    responses((status = 200, body = ListAnswer<MessageView>)))]
pub(crate) async fn chat(
    State(state): State<ControlPlane>,
    caller: Caller,
    Path(id): Path<String>,
    query: Result<Query<ChatQuery>, QueryRejection>,
) -> Result<Json<ListAnswer<MessageView>>, Problem> {
    let Query(query) = query.map_err(|_| Problem::invalid("the query does not fit"))?;
    let limit = limit(query.limit)?;
    let consultation = own(&state, &caller, &id).await?;
    if !caller.reads_chat(&consultation) {
        return Err(Problem::forbidden("only people who were let in read the chat"));
    }
    let before = query.before.or(query.cursor);
    let (items, next) = match query.after {
        Some(_) if before.is_some() => {
            return Err(Problem::invalid("before and after are not possible together"));
        }
        Some(after) => state.control.history_after(consultation.id, after, limit).await?,
        None => state.control.history(consultation.id, before, limit).await?,
    };
    Ok(Json(ListAnswer { items, next_cursor: next.map(|sequence| sequence.to_string()) }))
}

/// A step that only the one who leads the consultation may take.
async fn lead(state: &ControlPlane, caller: &Caller, id: &str, step: &Step) -> Session {
    let consultation = own(state, caller, id).await?;
    if !caller.leads(&consultation) {
        return Err(Problem::forbidden("only the doctor of the consultation may do this"));
    }
    let actor = caller.actor();
    let after = state.control.step(&caller.0.clinic, consultation.id, &actor, step).await?;
    Ok(shown(caller, &after))
}

/// The consultation, if the caller takes part in it.
pub(super) async fn own(
    state: &ControlPlane,
    caller: &Caller,
    id: &str,
) -> Result<std::sync::Arc<Consultation>, Problem> {
    let consultation = state.control.look(&caller.0.clinic, id_in_path(id)?).await?;
    if caller.takes_part(&consultation) {
        Ok(consultation)
    } else {
        Err(Problem::forbidden("this consultation is somebody else's"))
    }
}

fn shown(caller: &Caller, consultation: &Consultation) -> Json<SessionView> {
    Json(view::session(consultation, caller.viewer(consultation)))
}

fn reason(request: ReasonRequest) -> Result<Option<String>, Problem> {
    match request.reason {
        Some(reason) if !text::is_reason(&reason) => {
            Err(Problem::invalid("reason is empty, too long or not text"))
        }
        reason => Ok(reason),
    }
}

pub(super) fn limit(asked: Option<i64>) -> Result<i64, Problem> {
    match asked.unwrap_or(DEFAULT_LIMIT) {
        limit @ 1..=MAX_LIMIT => Ok(limit),
        _ => Err(Problem::invalid("limit must be from 1 to 200")),
    }
}

pub(super) fn write_cursor(at: DateTime<Utc>, id: Uuid) -> String {
    URL_SAFE_NO_PAD.encode(format!("{}/{}", at.timestamp_micros(), id.simple()))
}

pub(super) fn read_cursor(text: &str) -> Option<(DateTime<Utc>, Uuid)> {
    let bytes = URL_SAFE_NO_PAD.decode(text).ok()?;
    let (micros, id) = std::str::from_utf8(&bytes).ok()?.split_once('/')?;
    Some((DateTime::from_timestamp_micros(micros.parse().ok()?)?, Uuid::try_parse(id).ok()?))
}
