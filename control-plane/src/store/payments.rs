//! Payments of appointments.

use chrono::{DateTime, Utc};
use sqlx::types::Json;

use super::{Connected, Db, execute, fetch, unknown_word};
use crate::payments::{AppointmentFacts, PaymentStatus};

/// The stored payment of an appointment.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Payment {
    pub(crate) appointment_id: String,
    pub(crate) status: PaymentStatus,
    pub(crate) payment_id: Option<String>,
    pub(crate) verified_by: Option<String>,
    pub(crate) verified_at: Option<DateTime<Utc>>,
    /// What a consultation could be made of, if somebody told.
    pub(crate) appointment: Option<AppointmentFacts>,
}

impl Payment {
    /// Of which nothing is stored.
    pub(crate) const fn pending(appointment_id: String) -> Self {
        Self {
            appointment_id,
            status: PaymentStatus::Pending,
            payment_id: None,
            verified_by: None,
            verified_at: None,
            appointment: None,
        }
    }
}

#[derive(sqlx::FromRow)]
struct PaymentRow {
    appointment_id: String,
    status: String,
    payment_id: Option<String>,
    verified_by: Option<String>,
    verified_at: Option<DateTime<Utc>>,
    appointment: Option<Json<AppointmentFacts>>,
}

impl Db {
    /// What is known of an appointment's payment.
    pub(crate) async fn payment(
        &self,
        clinic: &str,
        appointment_id: &str,
    ) -> Result<Option<Payment>, sqlx::Error> {
        payment_on(&mut self.read().await?, clinic, appointment_id).await
    }

    /// Keeps what an appointment is, so that a consultation can be made when it is paid. A payment
    /// that is there stays as it is.
    pub(crate) async fn remember_appointment(
        &self,
        clinic: &str,
        appointment_id: &str,
        facts: &AppointmentFacts,
        now: DateTime<Utc>,
    ) -> Result<(), sqlx::Error> {
        const SQL: &str = "INSERT INTO appointment_payments \
            (clinic, appointment_id, status, appointment, created_at, updated_at) \
            VALUES ($1, $2, 'PENDING', $3, $4, $4) \
            ON CONFLICT (clinic, appointment_id) DO UPDATE SET \
            appointment = excluded.appointment, updated_at = excluded.updated_at";
        let mut tx = self.begin().await?;
        execute!(&mut tx, SQL, clinic, appointment_id, Json(facts), now)?;
        tx.commit().await
    }

    /// An appointment is paid; the first payment that was verified stays.
    pub(crate) async fn complete_payment(
        &self,
        clinic: &str,
        appointment_id: &str,
        payment_id: &str,
        by: &str,
        now: DateTime<Utc>,
    ) -> Result<Payment, sqlx::Error> {
        const SQL: &str = "INSERT INTO appointment_payments \
            (clinic, appointment_id, status, payment_id, verified_by, verified_at, created_at, \
             updated_at) \
            VALUES ($1, $2, 'COMPLETED', $3, $4, $5, $5, $5) \
            ON CONFLICT (clinic, appointment_id) DO UPDATE SET status = excluded.status, \
            payment_id = excluded.payment_id, verified_by = excluded.verified_by, \
            verified_at = excluded.verified_at, updated_at = excluded.updated_at \
            WHERE appointment_payments.status = 'PENDING'";
        let mut tx = self.begin().await?;
        execute!(&mut tx, SQL, clinic, appointment_id, payment_id, by, now)?;
        let payment = payment_on(&mut tx, clinic, appointment_id).await?;
        tx.commit().await?;
        payment.ok_or(sqlx::Error::RowNotFound)
    }
}

async fn payment_on(
    on: &mut impl Connected,
    clinic: &str,
    appointment_id: &str,
) -> Result<Option<Payment>, sqlx::Error> {
    const SQL: &str = "SELECT appointment_id, status, payment_id, verified_by, verified_at, \
        appointment FROM appointment_payments WHERE clinic = $1 AND appointment_id = $2";
    let row = fetch!(on, fetch_optional, PaymentRow, SQL, clinic, appointment_id)?;
    let Some(row) = row else { return Ok(None) };
    let status =
        PaymentStatus::parse(&row.status).ok_or_else(|| unknown_word("status", &row.status))?;
    Ok(Some(Payment {
        appointment_id: row.appointment_id,
        status,
        payment_id: row.payment_id,
        verified_by: row.verified_by,
        verified_at: row.verified_at,
        appointment: row.appointment.map(|Json(facts)| facts),
    }))
}
