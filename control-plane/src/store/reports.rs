//! Reports of technical issues, stored together with the events that tell of them.

use chrono::{DateTime, Utc};
use uuid::Uuid;

use super::outbox::{Along, store_along};
use super::{Db, execute, fetch};

/// A report to store, or one that was.
#[derive(Clone, sqlx::FromRow)]
pub(crate) struct ReportRow {
    pub(crate) id: Uuid,
    pub(crate) user_id: String,
    pub(crate) issue_type: String,
    pub(crate) description: String,
    pub(crate) created_at: DateTime<Utc>,
}

impl Db {
    /// Stores a report with its event.
    pub(crate) async fn insert_report(
        &self,
        clinic: &str,
        session: Uuid,
        report: &ReportRow,
        along: &Along<'_>,
    ) -> Result<(), sqlx::Error> {
        const SQL: &str = "INSERT INTO issue_reports \
            (id, clinic, session_id, user_id, issue_type, description, created_at) \
            VALUES ($1, $2, $3, $4, $5, $6, $7)";
        let mut tx = self.begin().await?;
        execute!(
            &mut tx,
            SQL,
            report.id,
            clinic,
            session,
            &report.user_id,
            &report.issue_type,
            &report.description,
            report.created_at,
        )?;
        store_along(&mut tx, along, report.created_at).await?;
        tx.commit().await
    }

    /// The newest reports of a consultation.
    pub(crate) async fn reports(
        &self,
        clinic: &str,
        session: Uuid,
        limit: i64,
    ) -> Result<Vec<ReportRow>, sqlx::Error> {
        const SQL: &str = "SELECT id, user_id, issue_type, description, created_at \
            FROM issue_reports WHERE clinic = $1 AND session_id = $2 \
            ORDER BY created_at DESC, id DESC LIMIT $3";
        let mut reader = self.read().await?;
        fetch!(&mut reader, fetch_all, ReportRow, SQL, clinic, session, limit)
    }
}
