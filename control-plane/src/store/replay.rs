//! The outbox as readers over the API see it: numbered in the order of becoming visible.

use sqlx::types::Json;

use super::{Db, execute, fetch};
use crate::events::Event;

/// An event with its number.
#[derive(Clone, Debug)]
pub(crate) struct Numbered {
    /// Rises over all clinics.
    pub(crate) seq: i64,
    /// What it is.
    pub(crate) event: Event,
}

#[derive(sqlx::FromRow)]
struct NumberedRow {
    seq: i64,
    data: Json<Event>,
}

#[derive(sqlx::FromRow)]
struct CountRow {
    rows: i64,
}

impl Db {
    /// Numbers events that have none, at most `limit`; how many.
    ///
    /// A number is given only after the event is visible, and the row of the counter is held until
    /// the numbers are: whoever has read up to a number never misses a lower one.
    pub(crate) async fn stamp_events(&self, limit: i64) -> Result<u64, sqlx::Error> {
        const NEW: &str = "SELECT CAST(COUNT(*) AS BIGINT) AS rows FROM \
            (SELECT id FROM outbox WHERE seq IS NULL LIMIT 1) AS one";
        const HOLD: &str = "UPDATE outbox_seq SET last = last WHERE one = 1";
        const STAMP: &str = "UPDATE outbox SET seq = n.number FROM \
            (SELECT u.id, s.last + ROW_NUMBER() OVER (ORDER BY u.position) AS number FROM \
             (SELECT id, position FROM outbox WHERE seq IS NULL ORDER BY position LIMIT $1) AS u \
             CROSS JOIN outbox_seq AS s) AS n WHERE outbox.id = n.id";
        const KEEP: &str = "UPDATE outbox_seq SET last = last + $1 WHERE one = 1";
        let mut reader = self.read().await?;
        if fetch!(&mut reader, fetch_one, CountRow, NEW)?.rows == 0 {
            return Ok(0);
        }
        drop(reader);
        let mut tx = self.begin().await?;
        execute!(&mut tx, HOLD)?;
        let stamped = execute!(&mut tx, STAMP, limit)?;
        execute!(&mut tx, KEEP, i64::try_from(stamped).unwrap_or(i64::MAX))?;
        tx.commit_alone().await?;
        Ok(stamped)
    }

    /// A clinic's events after a number, the lowest first.
    pub(crate) async fn events_after(
        &self,
        clinic: &str,
        after: i64,
        limit: i64,
    ) -> Result<Vec<Numbered>, sqlx::Error> {
        const SQL: &str = "SELECT seq, data FROM outbox WHERE clinic = $1 AND seq > $2 \
            ORDER BY seq LIMIT $3";
        let mut reader = self.read().await?;
        let rows = fetch!(&mut reader, fetch_all, NumberedRow, SQL, clinic, after, limit)?;
        Ok(rows.into_iter().map(|row| Numbered { seq: row.seq, event: row.data.0 }).collect())
    }
}
