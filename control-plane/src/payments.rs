//! The payment gate: who has not paid does not come in, where the clinic wants it so.
//!
//! Booking and payment belong to another service. It says that an appointment is paid
//! ([`Control::verify_payment`]); a patient's own word is no proof. While the gate is up, patient
//! and guests of an appointment that is not paid are turned away at the door, before the waiting
//! room. The doctor always comes in, and so does whoever was let in before. A consultation without
//! an appointment is an instant one of its doctor: nobody pays for it beforehand.

use std::sync::Arc;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::consultation::{Actor, Consultation, Mode, PersonRole};
use crate::control::{ChangeError, Control};
use crate::sessions::{CreateError, NewSession};
use crate::store::{self, Payment};
use crate::text;

/// The payment gate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PaymentsConfig {
    /// Must an appointment be paid before its patient comes in?
    pub required: bool,
}

/// Where a payment stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PaymentStatus {
    /// Nobody has said that it is paid.
    Pending,
    /// Verified.
    Completed,
}

impl PaymentStatus {
    /// The word used in the API and in the tables.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "PENDING",
            Self::Completed => "COMPLETED",
        }
    }

    /// Reads the word back.
    pub(crate) fn parse(word: &str) -> Option<Self> {
        [Self::Pending, Self::Completed].into_iter().find(|status| status.as_str() == word)
    }
}

/// What a consultation is made of, kept for an appointment that has none yet.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct AppointmentFacts {
    pub(crate) doctor_id: String,
    pub(crate) doctor_name: Option<String>,
    pub(crate) patient_id: String,
    pub(crate) patient_name: Option<String>,
    /// `VIDEO`, `AUDIO`, `CHAT`.
    pub(crate) mode: String,
    pub(crate) scheduled_start: Option<DateTime<Utc>>,
    pub(crate) scheduled_minutes: Option<i64>,
    pub(crate) max_participants: Option<i64>,
}

/// Shows nothing: it names people.
impl std::fmt::Debug for AppointmentFacts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("AppointmentFacts")
    }
}

impl AppointmentFacts {
    /// What of a consultation to make is worth keeping; none = it could not be made of it.
    pub(crate) fn of(new: &NewSession) -> Option<Self> {
        Some(Self {
            doctor_id: new.doctor_id.clone()?,
            doctor_name: new.doctor_name.clone(),
            patient_id: new.patient_id.clone()?,
            patient_name: new.patient_name.clone(),
            mode: new.mode.as_str().to_owned(),
            scheduled_start: new.scheduled_start,
            scheduled_minutes: new.scheduled_minutes,
            max_participants: new.max_participants,
        })
    }

    fn into_new(self, appointment_id: &str) -> NewSession {
        NewSession {
            appointment_id: Some(appointment_id.to_owned()),
            doctor_id: Some(self.doctor_id),
            doctor_name: self.doctor_name,
            patient_id: Some(self.patient_id),
            patient_name: self.patient_name,
            mode: Mode::parse(&self.mode).unwrap_or(Mode::Video),
            scheduled_start: self.scheduled_start,
            scheduled_minutes: self.scheduled_minutes,
            max_participants: self.max_participants,
        }
    }
}

/// Why a payment was not taken as verified.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PaymentError {
    /// An id is empty, too long or not text.
    #[error("{0}")]
    Invalid(&'static str),
    /// Only the clinic's services and administrators say what is paid.
    #[error("only a service or an administrator verifies payments")]
    Forbidden,
    /// The payment is noted, but there is no consultation, and nobody told what to make it of.
    #[error("the payment is noted, but nothing else is known of this appointment")]
    UnknownAppointment,
    /// The consultation could not be made or looked up.
    #[error(transparent)]
    Create(#[from] CreateError),
}

impl From<ChangeError> for PaymentError {
    fn from(error: ChangeError) -> Self {
        Self::Create(error.into())
    }
}

/// A verified payment with the consultation that it opens.
#[derive(Clone, Debug)]
pub(crate) struct Paid {
    pub(crate) payment: Payment,
    pub(crate) consultation: Arc<Consultation>,
    /// Was the consultation made now, because it was missing?
    pub(crate) created: bool,
}

impl Control {
    /// May this user come in as far as payment goes? Asked at the door, once per person: whoever
    /// was let in comes back even while the database is away.
    pub(crate) async fn must_be_paid(
        &self,
        consultation: &Consultation,
        user_id: &str,
    ) -> Result<(), ChangeError> {
        if !self.config.payments.required || consultation.status.is_over() {
            return Ok(());
        }
        let admitted = consultation.person(user_id).is_some_and(|person| person.admitted);
        if admitted || consultation.role_of(user_id) == PersonRole::Doctor {
            return Ok(());
        }
        let Some(appointment_id) = &consultation.appointment_id else { return Ok(()) };
        let payment = self.payment(&consultation.clinic, appointment_id).await?;
        // Of which nothing is known is not paid.
        match payment.map_or(PaymentStatus::Pending, |payment| payment.status) {
            PaymentStatus::Completed => Ok(()),
            PaymentStatus::Pending => Err(ChangeError::PaymentRequired),
        }
    }

    /// What is known of an appointment's payment.
    pub(crate) async fn payment(
        &self,
        clinic: &str,
        appointment_id: &str,
    ) -> Result<Option<Payment>, ChangeError> {
        self.within(self.db.payment(clinic, appointment_id)).await
    }

    /// Keeps what an appointment is, so that its consultation can be made once it is paid.
    pub(crate) async fn remember_appointment(
        &self,
        clinic: &str,
        new: &NewSession,
    ) -> Result<(), ChangeError> {
        let Some((appointment_id, facts)) =
            new.appointment_id.as_ref().zip(AppointmentFacts::of(new))
        else {
            return Ok(());
        };
        let now = store::now();
        let kept = self.db.remember_appointment(clinic, appointment_id, &facts, now);
        self.within(kept).await
    }

    /// A service or an administrator says that an appointment is paid: a second time changes
    /// nothing. Makes the consultation, if it is missing and enough is known of the appointment.
    pub(crate) async fn verify_payment(
        &self,
        clinic: &str,
        appointment_id: &str,
        payment_id: &str,
        actor: &Actor,
    ) -> Result<Paid, PaymentError> {
        let by = match actor {
            Actor::Service(id) | Actor::Reported { service: id, .. } => id.as_str(),
            Actor::Server => "bedside",
            Actor::Person(_) => return Err(PaymentError::Forbidden),
        };
        if !text::is_id(appointment_id) || !text::is_id(payment_id) {
            return Err(PaymentError::Invalid(
                "appointmentId or paymentId is empty, too long or not text",
            ));
        }
        let now = store::now();
        let noted = self.db.complete_payment(clinic, appointment_id, payment_id, by, now);
        let payment = self.within(noted).await?;
        if let Some(consultation) = self.of_appointment(clinic, appointment_id).await? {
            return Ok(Paid { payment, consultation, created: false });
        }
        let facts = payment.appointment.clone().ok_or(PaymentError::UnknownAppointment)?;
        let new = facts.into_new(appointment_id);
        let (consultation, created) = self.create(clinic, actor, &new).await?;
        Ok(Paid { payment, consultation, created })
    }
}
