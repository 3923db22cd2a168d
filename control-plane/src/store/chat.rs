//! Chat messages: numbered per consultation, each stored once.

use chrono::{DateTime, Utc};
use uuid::Uuid;

use super::{Db, execute, fetch};

macro_rules! columns {
    () => {
        "SELECT id, session_id, sequence, sender_id, sender_name, sender_type, message_type, \
         content, client_id, created_at FROM chat_messages "
    };
}

/// A stored message.
#[derive(Clone, PartialEq, Eq, sqlx::FromRow)]
pub(crate) struct MessageRow {
    pub(crate) id: Uuid,
    pub(crate) session_id: Uuid,
    pub(crate) sequence: i64,
    pub(crate) sender_id: String,
    pub(crate) sender_name: String,
    pub(crate) sender_type: String,
    pub(crate) message_type: String,
    pub(crate) content: String,
    pub(crate) client_id: Option<String>,
    pub(crate) created_at: DateTime<Utc>,
}

/// A message to store.
pub(crate) struct NewMessage<'a> {
    pub(crate) session_id: Uuid,
    pub(crate) sender_id: &'a str,
    pub(crate) sender_name: &'a str,
    pub(crate) sender_type: &'a str,
    pub(crate) content: &'a str,
    /// The sender's own id of the message: a repeat is stored once.
    pub(crate) client_id: Option<&'a str>,
    pub(crate) at: DateTime<Utc>,
}

/// What became of a message.
pub(crate) enum Posted {
    /// Stored now.
    New(MessageRow),
    /// Stored before under the same client id.
    Known(MessageRow),
}

#[derive(sqlx::FromRow)]
struct SequenceRow {
    message_count: i64,
}

impl Db {
    /// Stores a message. Counting it up locks the consultation's row, so that numbers have neither
    /// gaps nor doubles and a repeat sees what the first attempt stored.
    pub(crate) async fn post_message(
        &self,
        message: &NewMessage<'_>,
    ) -> Result<Posted, sqlx::Error> {
        const COUNT: &str = "UPDATE consultation_sessions SET message_count = message_count + 1 \
            WHERE id = $1 RETURNING message_count";
        const KNOWN: &str =
            concat!(columns!(), "WHERE session_id = $1 AND sender_id = $2 AND client_id = $3");
        const INSERT: &str = "INSERT INTO chat_messages (id, session_id, sequence, sender_id, \
            sender_name, sender_type, message_type, content, client_id, created_at) \
            VALUES ($1, $2, $3, $4, $5, $6, 'text', $7, $8, $9)";
        let mut tx = self.begin().await?;
        let sequence =
            fetch!(&mut tx, fetch_one, SequenceRow, COUNT, message.session_id)?.message_count;
        if let Some(client_id) = message.client_id {
            let known = fetch!(
                &mut tx,
                fetch_optional,
                MessageRow,
                KNOWN,
                message.session_id,
                message.sender_id,
                client_id,
            )?;
            if let Some(row) = known {
                return Ok(Posted::Known(row));
            }
        }
        let row = MessageRow {
            id: Uuid::now_v7(),
            session_id: message.session_id,
            sequence,
            sender_id: message.sender_id.to_owned(),
            sender_name: message.sender_name.to_owned(),
            sender_type: message.sender_type.to_owned(),
            message_type: "text".to_owned(),
            content: message.content.to_owned(),
            client_id: message.client_id.map(str::to_owned),
            created_at: message.at,
        };
        execute!(
            &mut tx,
            INSERT,
            row.id,
            row.session_id,
            row.sequence,
            &row.sender_id,
            &row.sender_name,
            &row.sender_type,
            &row.content,
            &row.client_id,
            row.created_at,
        )?;
        tx.commit().await?;
        Ok(Posted::New(row))
    }

    /// The newest messages before a number, oldest first.
    pub(crate) async fn messages(
        &self,
        session_id: Uuid,
        before: Option<i64>,
        limit: i64,
    ) -> Result<Vec<MessageRow>, sqlx::Error> {
        const SQL: &str = concat!(
            columns!(),
            "WHERE session_id = $1 AND sequence < $2 AND is_deleted = $3 \
             ORDER BY sequence DESC LIMIT $4"
        );
        let mut reader = self.read().await?;
        let before = before.unwrap_or(i64::MAX);
        let mut rows =
            fetch!(&mut reader, fetch_all, MessageRow, SQL, session_id, before, false, limit)?;
        rows.reverse();
        Ok(rows)
    }
}
