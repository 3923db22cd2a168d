//! What happened to a consultation, row by row: the record of the visit, not a log.

use chrono::{DateTime, Utc};
use sqlx::types::Json;
use uuid::Uuid;

use super::{Db, Tx, execute, fetch};
use crate::consultation::Transition;

/// A stored happening.
#[derive(Clone, Debug, PartialEq, Eq, sqlx::FromRow)]
pub(crate) struct EventRow {
    pub(crate) id: Uuid,
    pub(crate) event_type: String,
    pub(crate) user_id: Option<String>,
    pub(crate) event_data: Json<serde_json::Value>,
    pub(crate) created_at: DateTime<Utc>,
}

impl Db {
    /// What happened to a consultation after a row, oldest first.
    pub(crate) async fn session_events(
        &self,
        session_id: Uuid,
        after: Option<(DateTime<Utc>, Uuid)>,
        limit: i64,
    ) -> Result<Vec<EventRow>, sqlx::Error> {
        const SQL: &str = "SELECT id, event_type, user_id, event_data, created_at \
            FROM session_events WHERE session_id = $1 \
            AND ($2 IS NULL OR created_at > $2 OR (created_at = $2 AND id > $3)) \
            ORDER BY created_at, id LIMIT $4";
        let (at, id) = after.unzip();
        let mut reader = self.read().await?;
        fetch!(&mut reader, fetch_all, EventRow, SQL, session_id, at, id, limit)
    }
}

/// Appends what happened.
pub(super) async fn append(
    tx: &mut Tx,
    session_id: Uuid,
    transition: &Transition,
) -> Result<(), sqlx::Error> {
    const SQL: &str = "INSERT INTO session_events \
        (id, session_id, event_type, user_id, event_data, created_at) \
        VALUES ($1, $2, $3, $4, $5, $6)";
    let data = Json(serde_json::json!({
        "from": transition.from.as_str(),
        "to": transition.to.as_str(),
        "actor": transition.actor.id(),
        "reason": transition.reason,
    }));
    execute!(
        tx,
        SQL,
        Uuid::now_v7(),
        session_id,
        transition.happening.as_str(),
        &transition.user_id,
        &data,
        transition.at,
    )?;
    Ok(())
}
