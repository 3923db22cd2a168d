//! Doors that name an appointment: `/appointments/{id}/video/…` (also below `/api`), as the
//! appointments module of a clinic had them, and `/api/video-consultations/{appointmentId}/…`, as
//! the booking service calls them.

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use uuid::Uuid;

use super::Body;
use super::older::{end as end_it, link_for, of_appointment, start as start_it};
use super::problem::Problem;
use super::reports::{ReportAnswer, take};
use super::video::new_session;
use super::video_bodies::{
    AppointmentVideoRequest, IssueReportRequest, VerifyPaymentRequest, VideoEndRequest,
    VideoStartRequest,
};
use super::video_calls::{Call, shown, token_of};
use super::video_view::{VideoConsultation, VideoToken};
use super::video_words::{APPOINTMENT, DOCTOR, PATIENT, PAYMENT, Words};
use crate::access::Caller;
use crate::payments::PaymentError;
use crate::permissions::Permission;
use crate::sessions::NewSession;
use crate::{ControlPlane, text};

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

/// A payment, and what it opens.
#[derive(Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct PaidView {
    appointment_id: String,
    payment_id: Option<String>,
    /// `COMPLETED`.
    payment_status: &'static str,
    session_id: Uuid,
    /// The provider's id of the meeting: the room.
    #[schema(max_length = 100)]
    meeting_id: String,
    /// The patient's join link.
    #[schema(max_length = 500)]
    meeting_link: Option<String>,
    status: &'static str,
}

/// Says that an appointment is paid; a second time changes nothing.
///
/// Makes the session if it is missing and enough is known of the appointment: from an event, or
/// from `doctorId` and `patientId` in this body. For services and administrators.
#[utoipa::path(post, path = "/api/video-consultations/{id}/verify-payment", tag = "appointments",
    request_body = VerifyPaymentRequest,
    responses((status = 200, body = PaidView),
        (status = 201, description = "The session was made.", body = PaidView)))]
pub(crate) async fn verify_payment(
    State(state): State<ControlPlane>,
    caller: Caller,
    Path(id): Path<String>,
    Body(words): Body<Words>,
) -> Result<Response, Problem> {
    if !caller.is_staff() {
        return Err(PaymentError::Forbidden.into());
    }
    caller.may(Permission::ManageBilling)?;
    let (control, clinic) = (&state.control, &caller.0.clinic);
    let payment_id =
        words.id(PAYMENT)?.ok_or_else(|| Problem::invalid("paymentId says which payment it is"))?;
    if !text::is_id(&id) || words.id(APPOINTMENT)?.is_some_and(|named| named != id) {
        return Err(Problem::not_found("there is no such appointment"));
    }
    let told = new_session(&state, &caller, &words)?;
    if words.id(DOCTOR)?.is_some() && words.id(PATIENT)?.is_some() {
        let new = NewSession { appointment_id: Some(id.clone()), ..told };
        control.remember_appointment(clinic, &new).await?;
    }
    let paid = control.verify_payment(clinic, &id, &payment_id, &caller.actor()).await?;
    let status = if paid.created { StatusCode::CREATED } else { StatusCode::OK };
    let answer = PaidView {
        appointment_id: id,
        payment_id: paid.payment.payment_id,
        payment_status: paid.payment.status.as_str(),
        session_id: paid.consultation.id,
        meeting_id: paid.consultation.room_name.clone(),
        meeting_link: link_for(&state, &caller, &paid.consultation).await?,
        status: paid.consultation.status.as_str(),
    };
    Ok((status, Json(answer)).into_response())
}
