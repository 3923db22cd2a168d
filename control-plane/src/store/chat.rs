//! Chat messages: numbered per consultation, each stored once; who has got and read them.
//!
//! Many messages share one transaction: [`Tx::post`] and [`Tx::mark`] are called once for each, and
//! count only when that transaction is committed.

use chrono::{DateTime, Utc};
use uuid::Uuid;

use super::{Db, Tx, execute, fetch};
use crate::Private;
use crate::audit::Entry;

macro_rules! columns {
    () => {
        "SELECT m.id, m.session_id, m.sequence, m.sender_id, m.sender_name, m.sender_type, \
         m.message_type, m.content, m.client_id, m.created_at, m.status, m.delivered_at, \
         m.read_at, m.system_event, m.attachment_id, a.file_name, a.mime_type, a.size_bytes, \
         a.width, a.height \
         FROM chat_messages m LEFT JOIN chat_attachments a ON a.id = m.attachment_id "
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
    pub(crate) status: String,
    pub(crate) delivered_at: Option<DateTime<Utc>>,
    pub(crate) read_at: Option<DateTime<Utc>>,
    pub(crate) system_event: Option<String>,
    pub(crate) attachment_id: Option<Uuid>,
    pub(crate) file_name: Option<String>,
    pub(crate) mime_type: Option<String>,
    pub(crate) size_bytes: Option<i64>,
    pub(crate) width: Option<i64>,
    pub(crate) height: Option<i64>,
}

/// What a message is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum MessageKind {
    Text,
    Image,
    File,
    System,
}

impl MessageKind {
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Text => "text",
            Self::Image => "image",
            Self::File => "file",
            Self::System => "system",
        }
    }
}

/// A file or picture as it is written down beside its message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct AttachmentRow {
    pub(crate) id: Uuid,
    pub(crate) clinic: String,
    pub(crate) session_id: Uuid,
    pub(crate) uploaded_by: String,
    /// None until its message is stored.
    pub(crate) message_id: Option<Uuid>,
    pub(crate) file_name: Private<String>,
    pub(crate) mime_type: String,
    pub(crate) size_bytes: i64,
    pub(crate) width: Option<i64>,
    pub(crate) height: Option<i64>,
    pub(crate) sha256: Vec<u8>,
    pub(crate) created_at: DateTime<Utc>,
}

/// A message to store.
#[derive(Clone)]
pub(crate) struct NewMessage {
    pub(crate) session_id: Uuid,
    pub(crate) sender_id: String,
    pub(crate) sender_name: String,
    /// `patient`, `doctor`, `guest`, `system`.
    pub(crate) sender_type: &'static str,
    pub(crate) kind: MessageKind,
    pub(crate) content: String,
    /// The sender's own id of the message: a repeat is stored once.
    pub(crate) client_id: Option<String>,
    /// What a line of the server is about.
    pub(crate) system_event: Option<&'static str>,
    /// Stored before the message, and belongs to it from then on.
    pub(crate) attachment: Option<AttachmentRow>,
    pub(crate) at: DateTime<Utc>,
    /// The row of whoever asked for it.
    pub(crate) audit: Option<Entry>,
}

/// What became of a message.
pub(crate) enum Posted {
    /// Stored now.
    New(MessageRow),
    /// Stored before under the same client id.
    Known(MessageRow),
    /// There is no such consultation.
    NoSession,
}

/// How far somebody has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Receipt {
    /// It is on the person's device.
    Delivered,
    /// The person has seen it.
    Read,
}

impl Receipt {
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Delivered => "delivered",
            Self::Read => "read",
        }
    }
}

/// A person has got, or read, everything up to a message.
#[derive(Clone, Debug)]
pub(crate) struct NewMark {
    pub(crate) session_id: Uuid,
    pub(crate) user_id: String,
    pub(crate) receipt: Receipt,
    pub(crate) message_id: Uuid,
    pub(crate) at: DateTime<Utc>,
}

/// What became of a mark.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Marked {
    /// It went on, to this number.
    Moved(i64),
    /// It was there, or further, before.
    Known,
    /// There is no such message.
    NoMessage,
}

#[derive(sqlx::FromRow)]
struct SequenceRow {
    sequence: i64,
}

#[derive(sqlx::FromRow)]
struct MarksRow {
    delivered_sequence: i64,
    read_sequence: i64,
}

#[derive(sqlx::FromRow)]
struct ExpiredRow {
    id: Uuid,
    attachment_id: Option<Uuid>,
}

/// A message past its time.
pub(crate) struct Expired {
    pub(crate) id: Uuid,
    pub(crate) attachment_id: Option<Uuid>,
}

impl Tx {
    /// Stores a message. Counting it up locks the consultation's row, so that numbers have neither
    /// gaps nor doubles and a repeat sees what the first attempt stored.
    pub(crate) async fn post(&mut self, message: &NewMessage) -> Result<Posted, sqlx::Error> {
        const COUNT: &str = "UPDATE consultation_sessions SET message_count = message_count + 1 \
            WHERE id = $1 RETURNING message_count AS sequence";
        const TAKE_BACK: &str =
            "UPDATE consultation_sessions SET message_count = message_count - 1 WHERE id = $1";
        const INSERT: &str = "INSERT INTO chat_messages (id, session_id, sequence, sender_id, \
            sender_name, sender_type, message_type, content, client_id, is_deleted, created_at, \
            updated_at, status, attachment_id, system_event) \
            VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $11, 'sent', $12, $13) \
            ON CONFLICT (session_id, sender_id, client_id) DO NOTHING";
        const KNOWN: &str = concat!(
            columns!(),
            "WHERE m.session_id = $1 AND m.sender_id = $2 AND m.client_id = $3"
        );
        const SENT: &str = "UPDATE chat_attachments SET message_id = $2 WHERE id = $1";
        let counted = fetch!(self, fetch_optional, SequenceRow, COUNT, message.session_id)?;
        let Some(SequenceRow { sequence }) = counted else { return Ok(Posted::NoSession) };
        if let Some(entry) = &message.audit {
            super::audit::insert(self, entry).await?;
        }
        let row = message.row(Uuid::now_v7(), sequence);
        let inserted = execute!(
            self,
            INSERT,
            row.id,
            row.session_id,
            row.sequence,
            &row.sender_id,
            &row.sender_name,
            &row.sender_type,
            &row.message_type,
            &row.content,
            &row.client_id,
            false,
            row.created_at,
            row.attachment_id,
            message.system_event,
        )?;
        if inserted == 0 {
            execute!(self, TAKE_BACK, message.session_id)?;
            let (session, sender) = (message.session_id, &message.sender_id);
            let client_id = &message.client_id;
            let known = fetch!(self, fetch_one, MessageRow, KNOWN, session, sender, client_id)?;
            return Ok(Posted::Known(known));
        }
        if let Some(attachment) = row.attachment_id {
            execute!(self, SENT, attachment, row.id)?;
        }
        Ok(Posted::New(row))
    }

    /// Remembers how far a person has come, and marks what others wrote up to there.
    pub(crate) async fn mark(&mut self, mark: &NewMark) -> Result<Marked, sqlx::Error> {
        const NUMBER: &str = "SELECT sequence FROM chat_messages WHERE id = $1 AND session_id = $2";
        const BEFORE: &str = "SELECT delivered_sequence, read_sequence FROM chat_receipts \
            WHERE session_id = $1 AND user_id = $2";
        const REMEMBER: &str = "INSERT INTO chat_receipts (session_id, user_id, \
            delivered_sequence, read_sequence, updated_at) VALUES ($1, $2, $3, $4, $5) \
            ON CONFLICT (session_id, user_id) DO UPDATE SET delivered_sequence = $3, \
            read_sequence = $4, updated_at = $5";
        const DELIVERED: &str = "UPDATE chat_messages SET status = 'delivered', \
            delivered_at = $5, updated_at = $5 WHERE session_id = $1 AND sequence > $2 \
            AND sequence <= $3 AND sender_id <> $4 AND message_type <> 'system' \
            AND status = 'sent'";
        const READ: &str = "UPDATE chat_messages SET status = 'read', read_at = $5, \
            delivered_at = COALESCE(delivered_at, $5), updated_at = $5 WHERE session_id = $1 \
            AND sequence > $2 AND sequence <= $3 AND sender_id <> $4 \
            AND message_type <> 'system' AND status <> 'read'";
        let (session, user) = (mark.session_id, &mark.user_id);
        let found =
            fetch!(self, fetch_optional, SequenceRow, NUMBER, mark.message_id, mark.session_id)?;
        let Some(SequenceRow { sequence }) = found else { return Ok(Marked::NoMessage) };
        let before = fetch!(self, fetch_optional, MarksRow, BEFORE, session, user)?
            .unwrap_or(MarksRow { delivered_sequence: 0, read_sequence: 0 });
        let (from, read) = match mark.receipt {
            Receipt::Delivered => (before.delivered_sequence, before.read_sequence),
            Receipt::Read => (before.read_sequence, sequence),
        };
        if sequence <= from {
            return Ok(Marked::Known);
        }
        let delivered = before.delivered_sequence.max(sequence);
        execute!(self, REMEMBER, session, user, delivered, read, mark.at)?;
        match mark.receipt {
            Receipt::Delivered => {
                execute!(self, DELIVERED, session, from, sequence, user, mark.at)?;
            }
            Receipt::Read => {
                execute!(self, READ, session, from, sequence, user, mark.at)?;
            }
        }
        Ok(Marked::Moved(sequence))
    }
}

impl NewMessage {
    fn row(&self, id: Uuid, sequence: i64) -> MessageRow {
        let attachment = self.attachment.as_ref();
        MessageRow {
            id,
            session_id: self.session_id,
            sequence,
            sender_id: self.sender_id.clone(),
            sender_name: self.sender_name.clone(),
            sender_type: self.sender_type.to_owned(),
            message_type: self.kind.as_str().to_owned(),
            content: self.content.clone(),
            client_id: self.client_id.clone(),
            created_at: self.at,
            status: "sent".to_owned(),
            delivered_at: None,
            read_at: None,
            system_event: self.system_event.map(str::to_owned),
            attachment_id: attachment.map(|a| a.id),
            file_name: attachment.map(|a| a.file_name.reveal().clone()),
            mime_type: attachment.map(|a| a.mime_type.clone()),
            size_bytes: attachment.map(|a| a.size_bytes),
            width: attachment.and_then(|a| a.width),
            height: attachment.and_then(|a| a.height),
        }
    }
}

impl Db {
    /// The newest messages before a number, oldest first.
    pub(crate) async fn messages(
        &self,
        session_id: Uuid,
        before: Option<i64>,
        limit: i64,
    ) -> Result<Vec<MessageRow>, sqlx::Error> {
        const SQL: &str = concat!(
            columns!(),
            "WHERE m.session_id = $1 AND m.sequence < $2 AND m.is_deleted = $3 \
             ORDER BY m.sequence DESC LIMIT $4"
        );
        let mut reader = self.read().await?;
        let before = before.unwrap_or(i64::MAX);
        let mut rows =
            fetch!(&mut reader, fetch_all, MessageRow, SQL, session_id, before, false, limit)?;
        rows.reverse();
        Ok(rows)
    }

    /// The oldest messages after a number, oldest first.
    pub(crate) async fn messages_after(
        &self,
        session_id: Uuid,
        after: i64,
        limit: i64,
    ) -> Result<Vec<MessageRow>, sqlx::Error> {
        const SQL: &str = concat!(
            columns!(),
            "WHERE m.session_id = $1 AND m.sequence > $2 AND m.is_deleted = $3 \
             ORDER BY m.sequence LIMIT $4"
        );
        let mut reader = self.read().await?;
        fetch!(&mut reader, fetch_all, MessageRow, SQL, session_id, after, false, limit)
    }

    /// How many messages of others a person has not read.
    pub(crate) async fn unread(&self, session_id: Uuid, user_id: &str) -> Result<i64, sqlx::Error> {
        const SQL: &str = "SELECT COUNT(*) AS sequence FROM chat_messages WHERE session_id = $1 \
            AND sender_id <> $2 AND message_type <> 'system' AND is_deleted = $3 \
            AND sequence > COALESCE((SELECT read_sequence FROM chat_receipts \
            WHERE session_id = $1 AND user_id = $2), 0)";
        let mut reader = self.read().await?;
        let row = fetch!(&mut reader, fetch_one, SequenceRow, SQL, session_id, user_id, false)?;
        Ok(row.sequence)
    }

    /// Hides a message from everyone; the row stays until its time is over. `false` = it is not
    /// there (any more), or not this person's.
    pub(crate) async fn delete_message(
        &self,
        session_id: Uuid,
        message_id: Uuid,
        only_of: Option<&str>,
        at: DateTime<Utc>,
    ) -> Result<bool, sqlx::Error> {
        const SQL: &str = "UPDATE chat_messages SET is_deleted = $3, updated_at = $4 \
            WHERE id = $1 AND session_id = $2 AND is_deleted <> $3 AND message_type <> 'system' \
            AND sender_id = COALESCE($5, sender_id)";
        let mut tx = self.begin().await?;
        let touched = execute!(&mut tx, SQL, message_id, session_id, true, at, only_of)?;
        tx.commit().await?;
        Ok(touched > 0)
    }

    /// Writes a file down before its content is stored; refused (`false`) where the consultation
    /// has as many as it may have.
    pub(crate) async fn insert_attachment(
        &self,
        row: &AttachmentRow,
        most: i64,
    ) -> Result<bool, sqlx::Error> {
        const COUNT: &str =
            "SELECT COUNT(*) AS sequence FROM chat_attachments WHERE session_id = $1";
        const INSERT: &str = "INSERT INTO chat_attachments (id, clinic, session_id, uploaded_by, \
            file_name, mime_type, size_bytes, width, height, sha256, created_at) \
            VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)";
        let mut tx = self.begin().await?;
        let count = fetch!(&mut tx, fetch_one, SequenceRow, COUNT, row.session_id)?.sequence;
        if count >= most {
            return Ok(false);
        }
        execute!(
            &mut tx,
            INSERT,
            row.id,
            &row.clinic,
            row.session_id,
            &row.uploaded_by,
            row.file_name.reveal(),
            &row.mime_type,
            row.size_bytes,
            row.width,
            row.height,
            &row.sha256,
            row.created_at,
        )?;
        tx.commit().await?;
        Ok(true)
    }

    /// A file whose message was stored and not deleted.
    pub(crate) async fn attachment(
        &self,
        session_id: Uuid,
        id: Uuid,
    ) -> Result<Option<AttachmentRow>, sqlx::Error> {
        const SQL: &str = "SELECT a.id, a.clinic, a.session_id, a.uploaded_by, a.message_id, \
            a.file_name, a.mime_type, a.size_bytes, a.width, a.height, a.sha256, a.created_at \
            FROM chat_attachments a JOIN chat_messages m ON m.id = a.message_id \
            WHERE a.id = $1 AND a.session_id = $2 AND m.is_deleted = $3";
        let mut reader = self.read().await?;
        let row: Option<StoredAttachment> =
            fetch!(&mut reader, fetch_optional, StoredAttachment, SQL, id, session_id, false)?;
        Ok(row.map(StoredAttachment::into_row))
    }

    /// Messages older than a time, the oldest first.
    pub(crate) async fn expired_messages(
        &self,
        before: DateTime<Utc>,
        limit: i64,
    ) -> Result<Vec<Expired>, sqlx::Error> {
        const SQL: &str = "SELECT id, attachment_id FROM chat_messages WHERE created_at < $1 \
            ORDER BY created_at LIMIT $2";
        let mut reader = self.read().await?;
        let rows = fetch!(&mut reader, fetch_all, ExpiredRow, SQL, before, limit)?;
        let expired = |row: ExpiredRow| Expired { id: row.id, attachment_id: row.attachment_id };
        Ok(rows.into_iter().map(expired).collect())
    }

    /// Files that were written down before a time and never got a message.
    pub(crate) async fn unsent_attachments(
        &self,
        before: DateTime<Utc>,
        limit: i64,
    ) -> Result<Vec<Uuid>, sqlx::Error> {
        const SQL: &str = "SELECT id FROM chat_attachments \
            WHERE message_id IS NULL AND created_at < $1 ORDER BY created_at LIMIT $2";
        let mut reader = self.read().await?;
        let rows = fetch!(&mut reader, fetch_all, IdRow, SQL, before, limit)?;
        Ok(rows.into_iter().map(|row| row.id).collect())
    }

    /// Removes messages for good, with what was written down of their files.
    pub(crate) async fn remove_messages(&self, expired: &[Expired]) -> Result<(), sqlx::Error> {
        const MESSAGE: &str = "DELETE FROM chat_messages WHERE id = $1";
        const ATTACHMENT: &str = "DELETE FROM chat_attachments WHERE id = $1";
        let mut tx = self.begin().await?;
        for message in expired {
            execute!(&mut tx, MESSAGE, message.id)?;
            if let Some(attachment) = message.attachment_id {
                execute!(&mut tx, ATTACHMENT, attachment)?;
            }
        }
        tx.commit().await
    }

    /// Forgets a file that never got a message.
    pub(crate) async fn remove_attachment(&self, id: Uuid) -> Result<(), sqlx::Error> {
        const SQL: &str = "DELETE FROM chat_attachments WHERE id = $1 AND message_id IS NULL";
        let mut tx = self.begin().await?;
        execute!(&mut tx, SQL, id)?;
        tx.commit().await
    }
}

#[derive(sqlx::FromRow)]
struct IdRow {
    id: Uuid,
}

#[derive(sqlx::FromRow)]
struct StoredAttachment {
    id: Uuid,
    clinic: String,
    session_id: Uuid,
    uploaded_by: String,
    message_id: Option<Uuid>,
    file_name: String,
    mime_type: String,
    size_bytes: i64,
    width: Option<i64>,
    height: Option<i64>,
    sha256: Vec<u8>,
    created_at: DateTime<Utc>,
}

impl StoredAttachment {
    fn into_row(self) -> AttachmentRow {
        AttachmentRow {
            id: self.id,
            clinic: self.clinic,
            session_id: self.session_id,
            uploaded_by: self.uploaded_by,
            message_id: self.message_id,
            file_name: Private::new(self.file_name),
            mime_type: self.mime_type,
            size_bytes: self.size_bytes,
            width: self.width,
            height: self.height,
            sha256: self.sha256,
            created_at: self.created_at,
        }
    }
}
