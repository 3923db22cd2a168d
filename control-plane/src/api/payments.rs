//! Payments of appointments: said by the service that takes them.

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::Body;
use super::problem::Problem;
use super::video_words::mode;
use crate::access::Caller;
use crate::consultation::{Consultation, Mode};
use crate::payments::{PaymentError, PaymentStatus};
use crate::permissions::Permission;
use crate::sessions::NewSession;
use crate::store::Payment;
use crate::{ControlPlane, text, view};

/// What a consultation is made of, should it be missing.
#[derive(Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct AppointmentRequest {
    doctor_id: String,
    doctor_name: Option<String>,
    patient_id: String,
    patient_name: Option<String>,
    /// `VIDEO` (if absent), `AUDIO`, `CHAT`.
    consultation_mode: Option<String>,
    scheduled_start_time: Option<DateTime<Utc>>,
    scheduled_duration_minutes: Option<i64>,
    max_participants: Option<i64>,
}

/// A payment that was made.
#[derive(Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct PaymentRequest {
    /// Its id at the service that took it.
    #[serde(alias = "payment_id")]
    payment_id: String,
    /// The appointment, so that its consultation can be made if it is missing.
    appointment: Option<AppointmentRequest>,
}

/// Where the payment of an appointment stands.
#[derive(Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct PaymentView {
    appointment_id: String,
    /// `PENDING`, `COMPLETED`.
    payment_status: &'static str,
    payment_id: Option<String>,
    verified_at: Option<String>,
    /// Does nobody come in before it is paid?
    payment_required: bool,
    /// The consultation of the appointment, if there is one.
    session_id: Option<Uuid>,
}

/// Where the payment of an appointment stands. For its patient, its doctor and the staff.
#[utoipa::path(get, path = "/api/v1/consultations/appointments/{appointmentId}/payment",
    params(("appointmentId" = String, Path)),
    responses((status = 200, body = PaymentView), (status = 401), (status = 403), (status = 404)))]
pub(crate) async fn read(
    State(state): State<ControlPlane>,
    caller: Caller,
    Path(appointment_id): Path<String>,
) -> Result<Json<PaymentView>, Problem> {
    let control = &state.control;
    let clinic = &caller.0.clinic;
    caller.may(Permission::ReadBilling)?;
    if !text::is_id(&appointment_id) {
        return Err(unknown());
    }
    let consultation = control.of_appointment(clinic, &appointment_id).await?;
    match &consultation {
        Some(consultation) if !caller.takes_part(consultation) => {
            return Err(Problem::forbidden("this appointment is somebody else's"));
        }
        None if !caller.is_staff() => return Err(unknown()),
        Some(_) | None => {}
    }
    let payment = control.payment(clinic, &appointment_id).await?;
    if consultation.is_none() && payment.is_none() {
        return Err(unknown());
    }
    let payment = payment.unwrap_or_else(|| Payment::pending(appointment_id));
    Ok(Json(shown(&state, payment, consultation.as_deref())))
}

/// Says that an appointment is paid; a second time changes nothing. Makes the consultation, if it
/// is missing and the appointment is known or told here. For services and administrators.
#[utoipa::path(post, path = "/api/v1/consultations/appointments/{appointmentId}/payment",
    params(("appointmentId" = String, Path)), request_body = PaymentRequest,
    responses((status = 200, body = PaymentView),
        (status = 201, body = PaymentView, description = "The consultation was made"),
        (status = 400), (status = 401), (status = 403),
        (status = 404, description = "The payment is noted, but the appointment has no \
            consultation and nothing is known that one could be made of"),
        (status = 422, description = "A field does not fit")))]
pub(crate) async fn verify(
    State(state): State<ControlPlane>,
    caller: Caller,
    Path(appointment_id): Path<String>,
    Body(request): Body<PaymentRequest>,
) -> Result<(StatusCode, Json<PaymentView>), Problem> {
    caller.may(Permission::ManageBilling)?;
    let control = &state.control;
    let clinic = &caller.0.clinic;
    if let Some(appointment) = request.appointment {
        control.remember_appointment(clinic, &planned(&appointment_id, appointment)?).await?;
    }
    let actor = caller.actor();
    let paid = control.verify_payment(clinic, &appointment_id, &request.payment_id, &actor).await?;
    let status = if paid.created { StatusCode::CREATED } else { StatusCode::OK };
    Ok((status, Json(shown(&state, paid.payment, Some(&paid.consultation)))))
}

fn planned(appointment_id: &str, request: AppointmentRequest) -> Result<NewSession, Problem> {
    let mode = match request.consultation_mode.as_deref() {
        None => Mode::Video,
        Some(word) => mode(word)
            .ok_or_else(|| Problem::invalid("consultationMode must be VIDEO, AUDIO or CHAT"))?,
    };
    if !text::is_id(appointment_id) {
        return Err(Problem::invalid("appointmentId is empty, too long or not text"));
    }
    let new = NewSession {
        appointment_id: Some(appointment_id.to_owned()),
        doctor_id: Some(request.doctor_id),
        doctor_name: request.doctor_name,
        patient_id: Some(request.patient_id),
        patient_name: request.patient_name,
        mode,
        scheduled_start: request.scheduled_start_time,
        scheduled_minutes: request.scheduled_duration_minutes,
        max_participants: request.max_participants,
    };
    new.check()?;
    Ok(new)
}

fn unknown() -> Problem {
    Problem::not_found("nothing is known of this appointment")
}

fn shown(
    state: &ControlPlane,
    payment: Payment,
    consultation: Option<&Consultation>,
) -> PaymentView {
    PaymentView {
        appointment_id: payment.appointment_id,
        payment_status: payment.status.as_str(),
        payment_id: payment.payment_id,
        verified_at: payment.verified_at.map(view::time),
        payment_required: state.control.config.payments.required
            && payment.status == PaymentStatus::Pending,
        session_id: consultation.map(|consultation| consultation.id),
    }
}

impl From<PaymentError> for Problem {
    fn from(error: PaymentError) -> Self {
        match error {
            PaymentError::Invalid(detail) => Self::invalid(detail),
            PaymentError::Forbidden => {
                Self::forbidden("only a service or an administrator verifies payments")
            }
            PaymentError::UnknownAppointment => Self::not_found(
                "the payment is noted, but the appointment has no consultation and nothing is \
                 known that one could be made of",
            ),
            PaymentError::Create(error) => error.into(),
        }
    }
}
