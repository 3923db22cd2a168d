//! `/api/video/sessions…`: the contract between the booking service, the people's apps and us, in
//! `snake_case`.

use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Path, Query, State};
use axum::http::header::LINK;
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use uuid::Uuid;

use super::older::{acting, arrival, end as end_it, enter, link_for, of_session};
use super::problem::Problem;
use super::sessions::{limit, read_cursor, write_cursor};
use super::video_bodies::{VideoEndRequest, VideoJoinRequest, VideoSessionRequest};
use super::video_view::{VideoJoin, VideoSession};
use super::video_words::{APPOINTMENT, DOCTOR, PATIENT, USER, Words, status};
use super::{Body, id_in_path};
use crate::access::Caller;
use crate::consultation::{Consultation, Mode};
use crate::permissions::Permission;
use crate::sessions::NewSession;
use crate::store::Page;
use crate::token::ApiRole;
use crate::{ControlPlane, text};

/// Which sessions to list.
#[derive(Deserialize)]
pub(crate) struct ListQuery {
    status: Option<String>,
    limit: Option<i64>,
    cursor: Option<String>,
}

/// Makes a session by hand; booking usually does it by an event.
///
/// A doctor who names nobody gets an instant session: the answer's `attendee_url` is the link for
/// whoever is to come.
#[utoipa::path(post, path = "/api/video/sessions", tag = "video",
    request_body = VideoSessionRequest,
    responses((status = 201, body = VideoSession),
        (status = 200, description = "The appointment has this session already.",
            body = VideoSession)))]
pub(crate) async fn create(
    State(state): State<ControlPlane>,
    caller: Caller,
    Body(words): Body<Words>,
) -> Result<Response, Problem> {
    let new = new_session(&state, &caller, &words)?;
    let (consultation, created) =
        state.control.create(&caller.0.clinic, &caller.actor(), &new).await?;
    if !caller.leads(&consultation) {
        return Err(Problem::forbidden("this appointment's consultation is somebody else's"));
    }
    let status = if created { StatusCode::CREATED } else { StatusCode::OK };
    Ok((status, shown(&state, &caller, &consultation).await?).into_response())
}

/// What is to be made, as far as this caller may.
pub(super) fn new_session(
    state: &ControlPlane,
    caller: &Caller,
    words: &Words,
) -> Result<NewSession, Problem> {
    caller.may(Permission::CreateConsultations)?;
    let appointment_id = words.id(APPOINTMENT)?;
    let mut doctor_id = words.id(DOCTOR)?;
    let mut patient_id = words.id(PATIENT)?;
    let mut doctor_name = words.name(&["doctor_name", "doctorName"])?;
    let mut patient_name = words.name(&["patient_name", "patientName"])?;
    match caller.0.role {
        ApiRole::Service | ApiRole::Admin => {}
        ApiRole::Doctor => {
            let own = caller.0.user_id.clone();
            if doctor_id.get_or_insert(own) != &caller.0.user_id {
                return Err(Problem::forbidden("a doctor creates only consultations of their own"));
            }
            doctor_name = doctor_name.or_else(|| caller.0.name.clone());
        }
        ApiRole::Patient | ApiRole::Guest | ApiRole::Auditor => {
            return Err(Problem::forbidden("this role does not create consultations"));
        }
    }
    if appointment_id.is_none() && patient_id.is_none() && doctor_id.is_some() {
        // Nobody knows yet who will come: whoever has the link.
        patient_id = Some(format!("adhoc-{}", Uuid::new_v4().simple()));
        patient_name = patient_name.or_else(|| Some(crate::Private::new("Patient".to_owned())));
    }
    Ok(NewSession {
        appointment_id,
        doctor_id,
        doctor_name: doctor_name.map(|name| name.reveal().clone()),
        patient_id,
        patient_name: patient_name.map(|name| name.reveal().clone()),
        mode: words.mode()?.unwrap_or(Mode::Video),
        scheduled_start: words.start(state.control.config.naive_timezone)?,
        scheduled_minutes: words.minutes()?,
        max_participants: None,
    })
}

/// One session.
#[utoipa::path(get, path = "/api/video/sessions/{id}", tag = "video",
    responses((status = 200, body = VideoSession)))]
pub(crate) async fn read(
    State(state): State<ControlPlane>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<Json<VideoSession>, Problem> {
    let consultation = of_session(&state, &caller, id_in_path(&id)?).await?;
    shown(&state, &caller, &consultation).await
}

/// Comes in.
///
/// The doctor, and whoever was let in, get a room token under all of its names. Others wait: 202,
/// `status` is `WAITING` and there is no token yet; ask again when the channel says `ADMITTED`.
#[utoipa::path(post, path = "/api/video/sessions/{id}/join", tag = "video",
    request_body = VideoJoinRequest,
    responses((status = 200, body = VideoJoin),
        (status = 202, description = "In the waiting room.", body = VideoJoin)))]
pub(crate) async fn join(
    State(state): State<ControlPlane>,
    caller: Caller,
    Path(id): Path<String>,
    Body(words): Body<Words>,
) -> Result<Response, Problem> {
    let consultation = of_session(&state, &caller, id_in_path(&id)?).await?;
    let acting = acting(&caller, &consultation, &words, USER)?;
    let joined = enter(&state, &caller, &consultation, &acting).await?;
    let (status, arrival) = arrival(&state, &consultation, &acting, &joined).await?;
    Ok((status, Json(VideoJoin::new(&arrival))).into_response())
}

/// Ends the session and closes its room. Asking again does no harm.
#[utoipa::path(post, path = "/api/video/sessions/{id}/end", tag = "video",
    request_body = VideoEndRequest, responses((status = 200, body = VideoSession)))]
pub(crate) async fn end(
    State(state): State<ControlPlane>,
    caller: Caller,
    Path(id): Path<String>,
    Body(words): Body<Words>,
) -> Result<Json<VideoSession>, Problem> {
    let consultation = of_session(&state, &caller, id_in_path(&id)?).await?;
    let ended = end_it(&state, &caller, &consultation, &words).await?;
    shown(&state, &caller, &ended).await
}

/// A doctor's sessions, the newest planned begin first. The header `link` has the next page.
#[utoipa::path(get, path = "/api/video/sessions/doctor/{id}", tag = "video",
    params(("status" = Option<String>, Query), ("limit" = Option<i64>, Query),
        ("cursor" = Option<String>, Query)),
    responses((status = 200, body = Vec<VideoSession>)))]
pub(crate) async fn of_doctor(
    State(state): State<ControlPlane>,
    caller: Caller,
    Path(id): Path<String>,
    query: Result<Query<ListQuery>, QueryRejection>,
) -> Result<Response, Problem> {
    let own = caller.0.role == ApiRole::Doctor && caller.0.user_id == id;
    if !(own || caller.is_staff()) {
        return Err(Problem::forbidden("these sessions are somebody else's"));
    }
    let page = Page { doctor_id: Some(id.clone()), ..caller.page() };
    listed(&state, &caller, &id, query, page).await
}

/// A patient's sessions, the newest planned begin first. A doctor sees those with themselves. The
/// header `link` has the next page.
#[utoipa::path(get, path = "/api/video/sessions/patient/{id}", tag = "video",
    params(("status" = Option<String>, Query), ("limit" = Option<i64>, Query),
        ("cursor" = Option<String>, Query)),
    responses((status = 200, body = Vec<VideoSession>)))]
pub(crate) async fn of_patient(
    State(state): State<ControlPlane>,
    caller: Caller,
    Path(id): Path<String>,
    query: Result<Query<ListQuery>, QueryRejection>,
) -> Result<Response, Problem> {
    let may = match caller.0.role {
        ApiRole::Service | ApiRole::Admin | ApiRole::Doctor => true,
        ApiRole::Patient => caller.0.user_id == id,
        ApiRole::Guest | ApiRole::Auditor => false,
    };
    if !may {
        return Err(Problem::forbidden("these sessions are somebody else's"));
    }
    let page = Page { patient_id: Some(id.clone()), ..caller.page() };
    listed(&state, &caller, &id, query, page).await
}

async fn listed(
    state: &ControlPlane,
    caller: &Caller,
    id: &str,
    query: Result<Query<ListQuery>, QueryRejection>,
    page: Page,
) -> Result<Response, Problem> {
    caller.may(Permission::ReadConsultations)?;
    let Query(query) = query.map_err(|_| Problem::invalid("the query does not fit"))?;
    if !text::is_id(id) {
        return Err(Problem::not_found("there is nothing with this id"));
    }
    let status = query
        .status
        .as_deref()
        .map(|word| status(word).ok_or_else(|| Problem::invalid("status is unknown")))
        .transpose()?;
    let cursor = query.cursor.as_deref();
    let after = cursor
        .map(|text| read_cursor(text).ok_or_else(|| Problem::invalid("cursor is not one of ours")))
        .transpose()?;
    let page = Page { status, after, limit: limit(query.limit)?, ..page };
    let size = page.limit;
    let (sessions, next) = state.control.page(&caller.0.clinic, page).await?;
    let base = &state.control.config.public_url;
    let items: Vec<VideoSession> = sessions
        .iter()
        .map(|session| VideoSession::new(session, caller.viewer(session), base, None))
        .collect();
    let mut headers = HeaderMap::new();
    if let Some((at, last)) = next {
        // Whose sessions they are is in the path that was asked.
        let only = status.map(|status| format!("&status={}", status.as_str())).unwrap_or_default();
        let cursor = write_cursor(at, last);
        let more = format!("<?limit={size}{only}&cursor={cursor}>; rel=\"next\"");
        if let Ok(more) = HeaderValue::from_str(&more) {
            headers.insert(LINK, more);
        }
    }
    Ok((headers, Json(items)).into_response())
}

async fn shown(
    state: &ControlPlane,
    caller: &Caller,
    consultation: &Consultation,
) -> Result<Json<VideoSession>, Problem> {
    let link = link_for(state, caller, consultation).await?;
    let base = &state.control.config.public_url;
    Ok(Json(VideoSession::new(consultation, caller.viewer(consultation), base, link)))
}
