//! The outbox (events that are to be told) and the inbox (messages that have taken effect).
//!
//! Rows are written in the transaction of the change they belong to. Relays read *unsent* rows in
//! the order of `position`, never "after the last one": commits of different consultations become
//! visible out of order.

use chrono::{DateTime, Utc};
use sqlx::types::Json;
use uuid::Uuid;

use super::{Db, Tx, execute, fetch};
use crate::events::{Event, Sink};

/// A message of a source, by the id that makes it one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct MessageId {
    /// The queue or topic it came from.
    pub(crate) source: String,
    /// Its id there.
    pub(crate) id: String,
    /// Where it lies in a log. Then this is what makes it one: a log is read in order, so how far
    /// it was read says which messages have taken effect.
    pub(crate) place: Option<Place>,
}

/// Where a message lies in a log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    /// Which partition.
    pub(crate) partition: i64,
    /// How far from its beginning.
    pub(crate) offset: i64,
}

/// What is stored in the same transaction as a change.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Along<'a> {
    /// What others are told.
    pub(crate) events: &'a [Event],
    /// Where the events go.
    pub(crate) sinks: &'a [Sink],
    /// The message that caused the change.
    pub(crate) message: Option<&'a MessageId>,
}

/// An event that a sink has not taken yet.
#[derive(Clone, Debug)]
pub(crate) struct Unsent {
    /// Order within the sink.
    pub(crate) position: i64,
    /// How often it was tried.
    pub(crate) attempts: i64,
    /// What it is.
    pub(crate) event: Event,
}

#[derive(sqlx::FromRow)]
struct UnsentRow {
    position: i64,
    attempts: i64,
    data: Json<Event>,
}

#[derive(sqlx::FromRow)]
struct CountRow {
    rows: i64,
}

#[derive(sqlx::FromRow)]
struct WordRow {
    word: String,
}

/// Stores everything of `along`. `false`: the message has taken effect before, and the transaction
/// must not be committed.
pub(super) async fn store_along(
    tx: &mut Tx,
    along: &Along<'_>,
    now: DateTime<Utc>,
) -> Result<bool, sqlx::Error> {
    if let Some(message) = along.message
        && !take_message(tx, message, now).await?
    {
        return Ok(false);
    }
    append(tx, along.events, along.sinks).await?;
    Ok(true)
}

/// Appends events, with one delivery for each sink.
pub(crate) async fn append(
    tx: &mut Tx,
    events: &[Event],
    sinks: &[Sink],
) -> Result<(), sqlx::Error> {
    const EVENT: &str = "INSERT INTO outbox (id, clinic, session_id, event_type, data, created_at) \
        VALUES ($1, $2, $3, $4, $5, $6)";
    const DELIVERY: &str = "INSERT INTO outbox_deliveries (event_id, sink, next_at) \
        VALUES ($1, $2, $3)";
    for event in events {
        let data = Json(event);
        execute!(
            &mut *tx,
            EVENT,
            event.id,
            &event.clinic,
            event.session_id(),
            event.news.name(),
            &data,
            event.at,
        )?;
        for sink in sinks {
            execute!(&mut *tx, DELIVERY, event.id, sink.word(), event.at)?;
        }
    }
    Ok(())
}

/// Remembers a message. `false`: it is known.
pub(crate) async fn take_message(
    tx: &mut Tx,
    message: &MessageId,
    now: DateTime<Utc>,
) -> Result<bool, sqlx::Error> {
    const SQL: &str = "INSERT INTO inbox (source, message_id, received_at) VALUES ($1, $2, $3) \
        ON CONFLICT (source, message_id) DO NOTHING";
    const READ: &str = "INSERT INTO inbox_offsets \
        (source, log_partition, next_offset, updated_at) VALUES ($1, $2, $3 + 1, $4) \
        ON CONFLICT (source, log_partition) DO UPDATE SET next_offset = $3 + 1, updated_at = $4 \
        WHERE inbox_offsets.next_offset <= $3";
    if let Some(Place { partition, offset }) = message.place {
        return Ok(execute!(tx, READ, &message.source, partition, offset, now)? > 0);
    }
    Ok(execute!(tx, SQL, &message.source, &message.id, now)? > 0)
}

impl Db {
    /// Stores events that belong to no other change, and the message that caused them.
    /// `false`: the message has taken effect before.
    pub(crate) async fn append_events(
        &self,
        along: &Along<'_>,
        now: DateTime<Utc>,
    ) -> Result<bool, sqlx::Error> {
        let mut tx = self.begin().await?;
        if !store_along(&mut tx, along, now).await? {
            return Ok(false);
        }
        tx.commit().await?;
        Ok(true)
    }

    /// Where reading a partition of a log goes on; none if it was never read.
    pub(crate) async fn next_offset(
        &self,
        source: &str,
        partition: i64,
    ) -> Result<Option<i64>, sqlx::Error> {
        const SQL: &str = "SELECT next_offset AS rows FROM inbox_offsets \
            WHERE source = $1 AND log_partition = $2";
        let mut reader = self.read().await?;
        let row = fetch!(&mut reader, fetch_optional, CountRow, SQL, source, partition)?;
        Ok(row.map(|row| row.rows))
    }

    /// Events that a sink has not taken, the oldest first; none of a consultation of which one waits
    /// for a later attempt, unless that was refused `in_order` times.
    pub(crate) async fn unsent(
        &self,
        sink: &Sink,
        now: DateTime<Utc>,
        in_order: i64,
        limit: i64,
    ) -> Result<Vec<Unsent>, sqlx::Error> {
        const SQL: &str = "SELECT d.position, d.attempts, o.data FROM outbox_deliveries d \
            JOIN outbox o ON o.id = d.event_id \
            WHERE d.sink = $1 AND d.sent_at IS NULL AND d.parked_at IS NULL AND d.next_at <= $2 \
            AND (o.session_id IS NULL OR o.session_id NOT IN \
             (SELECT p.session_id FROM outbox_deliveries e JOIN outbox p ON p.id = e.event_id \
              WHERE e.sink = $1 AND e.sent_at IS NULL AND e.parked_at IS NULL \
              AND e.next_at > $2 AND e.attempts < $3 AND p.session_id IS NOT NULL)) \
            ORDER BY d.position LIMIT $4";
        let mut reader = self.read().await?;
        let rows =
            fetch!(&mut reader, fetch_all, UnsentRow, SQL, sink.word(), now, in_order, limit)?;
        let unsent = rows.into_iter().map(|row| Unsent {
            position: row.position,
            attempts: row.attempts,
            event: row.data.0,
        });
        Ok(unsent.collect())
    }

    /// A sink has taken these deliveries.
    pub(crate) async fn mark_sent(
        &self,
        positions: &[i64],
        now: DateTime<Utc>,
    ) -> Result<(), sqlx::Error> {
        const SQL: &str = "UPDATE outbox_deliveries SET sent_at = $2, last_error = NULL \
            WHERE position = $1";
        let mut tx = self.begin().await?;
        for position in positions {
            execute!(&mut tx, SQL, *position, now)?;
        }
        tx.commit_alone().await
    }

    /// A sink has refused a delivery; it is tried again at `next_at`.
    pub(crate) async fn mark_failed(
        &self,
        position: i64,
        error: &str,
        next_at: DateTime<Utc>,
    ) -> Result<(), sqlx::Error> {
        const SQL: &str = "UPDATE outbox_deliveries SET attempts = attempts + 1, \
            last_error = $2, next_at = $3 WHERE position = $1";
        let mut tx = self.begin().await?;
        execute!(&mut tx, SQL, position, error, next_at)?;
        tx.commit_alone().await
    }

    /// A delivery is given up.
    pub(crate) async fn park(
        &self,
        position: i64,
        error: &str,
        now: DateTime<Utc>,
    ) -> Result<(), sqlx::Error> {
        const SQL: &str = "UPDATE outbox_deliveries SET attempts = attempts + 1, \
            last_error = $2, parked_at = $3 WHERE position = $1 AND sent_at IS NULL";
        let mut tx = self.begin().await?;
        execute!(&mut tx, SQL, position, error, now)?;
        tx.commit_alone().await
    }

    /// Gives up what waits since before `before` for sinks that nobody serves any more.
    pub(crate) async fn park_orphans(
        &self,
        sinks: &[Sink],
        before: DateTime<Utc>,
        now: DateTime<Utc>,
    ) -> Result<u64, sqlx::Error> {
        const SINKS: &str = "SELECT DISTINCT sink AS word FROM outbox_deliveries \
            WHERE sent_at IS NULL AND parked_at IS NULL";
        const SQL: &str = "UPDATE outbox_deliveries SET parked_at = $3 \
            WHERE sink = $1 AND sent_at IS NULL AND parked_at IS NULL AND event_id IN \
            (SELECT id FROM outbox WHERE created_at < $2)";
        let served: Vec<String> = sinks.iter().map(Sink::word).collect();
        let mut tx = self.begin().await?;
        let mut parked = 0;
        for row in fetch!(&mut tx, fetch_all, WordRow, SINKS)? {
            if !served.contains(&row.word) {
                parked += execute!(&mut tx, SQL, &row.word, before, now)?;
            }
        }
        tx.commit_alone().await?;
        Ok(parked)
    }

    /// How many events a sink has not taken.
    pub(crate) async fn backlog(&self, sink: &Sink) -> Result<i64, sqlx::Error> {
        const SQL: &str = "SELECT CAST(COUNT(*) AS BIGINT) AS rows FROM outbox_deliveries \
            WHERE sink = $1 AND sent_at IS NULL AND parked_at IS NULL";
        let mut reader = self.read().await?;
        Ok(fetch!(&mut reader, fetch_one, CountRow, SQL, sink.word())?.rows)
    }

    /// Takes or renews the right to do what only one may do at a time: sending for a sink, reading
    /// a log. `false`: another one holds it.
    pub(crate) async fn lease(
        &self,
        name: &str,
        holder: Uuid,
        now: DateTime<Utc>,
        until: DateTime<Utc>,
    ) -> Result<bool, sqlx::Error> {
        const SQL: &str = "INSERT INTO relay_leases (sink, holder, held_until) \
            VALUES ($1, $2, $4) ON CONFLICT (sink) DO UPDATE \
            SET holder = $2, held_until = $4 \
            WHERE relay_leases.holder = $2 OR relay_leases.held_until < $3";
        let mut tx = self.begin().await?;
        let taken = execute!(&mut tx, SQL, name, holder, now, until)? > 0;
        tx.commit_alone().await?;
        Ok(taken)
    }

    /// Gives all leases of a holder back, so that the next one need not wait.
    pub(crate) async fn release_leases(&self, holder: Uuid) -> Result<(), sqlx::Error> {
        const SQL: &str = "DELETE FROM relay_leases WHERE holder = $1";
        let mut tx = self.begin().await?;
        execute!(&mut tx, SQL, holder)?;
        tx.commit_alone().await
    }

    /// Forgets messages and sent events that are older than `before`; at most `limit` of each.
    pub(crate) async fn sweep_mailboxes(
        &self,
        before: DateTime<Utc>,
        limit: i64,
    ) -> Result<u64, sqlx::Error> {
        const INBOX: &str = "DELETE FROM inbox WHERE (source, message_id) IN \
            (SELECT source, message_id FROM inbox WHERE received_at < $1 LIMIT $2)";
        const OUTBOX: &str = "DELETE FROM outbox WHERE id IN \
            (SELECT o.id FROM outbox o WHERE o.created_at < $1 AND NOT EXISTS \
             (SELECT 1 FROM outbox_deliveries d WHERE d.event_id = o.id \
              AND d.sent_at IS NULL AND d.parked_at IS NULL) \
             LIMIT $2)";
        let mut tx = self.begin().await?;
        let messages = execute!(&mut tx, INBOX, before, limit)?;
        let events = execute!(&mut tx, OUTBOX, before, limit)?;
        tx.commit_alone().await?;
        Ok(messages + events)
    }
}
