//! Doors that name an appointment: `/appointments/{id}/video/…` (also below `/api`), as the
//! appointments module of a clinic had them, and `/api/video-consultations/{appointmentId}/…`, as
//! the booking service calls them.

use axum::extract::{Path, State};
use axum::response::Response;

use super::Body;
use super::older::{end as end_it, of_appointment, start as start_it};
use super::problem::Problem;
use super::reports::{ReportAnswer, take};
use super::video_bodies::{
    AppointmentVideoRequest, IssueReportRequest, VideoEndRequest, VideoStartRequest,
};
use super::video_calls::{Call, shown, token_of};
use super::video_view::{VideoConsultation, VideoToken};
use super::video_words::Words;
use crate::ControlPlane;
use crate::access::Caller;

/// A token for the room of an appointment's consultation; see `POST /api/video/token`.
#[utoipa::path(post, path = "/api/appointments/{id}/video/token", tag = "appointments",
    request_body = AppointmentVideoRequest,
    responses((status = 200, body = VideoToken),
        (status = 202, description = "In the waiting room.", body = VideoToken)))]
pub(crate) async fn token(
    State(state): State<ControlPlane>,
    caller: Caller,
    Path(id): Path<String>,
    Body(words): Body<Words>,
) -> Result<Response, Problem> {
    let consultation = of_appointment(&state, &caller, &id).await?;
    token_of(&state, &caller, &consultation, &words).await
}

/// Starts the consultation of an appointment. Asking again does no harm.
#[utoipa::path(post, path = "/api/appointments/{id}/video/start", tag = "appointments",
    request_body = AppointmentVideoRequest,
    responses((status = 200, body = VideoConsultation)))]
pub(crate) async fn start(
    State(state): State<ControlPlane>,
    caller: Caller,
    Path(id): Path<String>,
    Body(words): Body<Words>,
) -> Call {
    let consultation = of_appointment(&state, &caller, &id).await?;
    let started = start_it(&state, &caller, &consultation, &words).await?;
    shown(&state, &caller, &started).await
}

/// Ends the consultation of an appointment. Asking again does no harm.
#[utoipa::path(post, path = "/api/appointments/{id}/video/end", tag = "appointments",
    request_body = AppointmentVideoRequest,
    responses((status = 200, body = VideoConsultation)))]
pub(crate) async fn end(
    State(state): State<ControlPlane>,
    caller: Caller,
    Path(id): Path<String>,
    Body(words): Body<Words>,
) -> Call {
    let consultation = of_appointment(&state, &caller, &id).await?;
    let ended = end_it(&state, &caller, &consultation, &words).await?;
    shown(&state, &caller, &ended).await
}

/// Where the consultation of an appointment stands.
#[utoipa::path(get, path = "/api/appointments/{id}/video/status", tag = "appointments",
    responses((status = 200, body = VideoConsultation)))]
pub(crate) async fn status(
    State(state): State<ControlPlane>,
    caller: Caller,
    Path(id): Path<String>,
) -> Call {
    let consultation = of_appointment(&state, &caller, &id).await?;
    shown(&state, &caller, &consultation).await
}

/// Takes in a technical issue of an appointment's consultation.
#[utoipa::path(post, path = "/api/appointments/{id}/video/report", tag = "appointments",
    request_body = IssueReportRequest, responses((status = 202, body = ReportAnswer)))]
pub(crate) async fn report(
    State(state): State<ControlPlane>,
    caller: Caller,
    Path(id): Path<String>,
    Body(words): Body<Words>,
) -> Result<Response, Problem> {
    let consultation = of_appointment(&state, &caller, &id).await?;
    take(&state, &caller, &consultation, &words).await
}

/// Starts the consultation of an appointment, for the booking service. Asking again does no harm.
#[utoipa::path(post, path = "/api/video-consultations/{id}/start", tag = "appointments",
    request_body = VideoStartRequest, responses((status = 200, body = VideoConsultation)))]
pub(crate) async fn booked_start(
    state: State<ControlPlane>,
    caller: Caller,
    id: Path<String>,
    body: Body<Words>,
) -> Call {
    start(state, caller, id, body).await
}

/// Ends the consultation of an appointment, for the booking service. Asking again does no harm.
#[utoipa::path(post, path = "/api/video-consultations/{id}/end", tag = "appointments",
    request_body = VideoEndRequest, responses((status = 200, body = VideoConsultation)))]
pub(crate) async fn booked_end(
    state: State<ControlPlane>,
    caller: Caller,
    id: Path<String>,
    body: Body<Words>,
) -> Call {
    end(state, caller, id, body).await
}

/// The video session of an appointment, for the booking service.
#[utoipa::path(get, path = "/api/video-consultations/{id}/session", tag = "appointments",
    responses((status = 200, body = VideoConsultation)))]
pub(crate) async fn booked_session(
    state: State<ControlPlane>,
    caller: Caller,
    id: Path<String>,
) -> Call {
    status(state, caller, id).await
}
