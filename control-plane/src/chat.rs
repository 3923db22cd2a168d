//! Chat: stored first, then given to everyone who may read it, each message once.
//!
//! A message is checked here, put into the queue of the [`writer`], and told when the writer has
//! stored it together with whatever else came meanwhile. Whoever sent it need not wait for that
//! before the next one: the [`Ticket`] says later what became of it.

pub(crate) mod lines;
pub(crate) mod retention;
pub(crate) mod writer;

use std::sync::Arc;
use std::time::Instant;

use tokio::sync::oneshot;
use uuid::Uuid;

use crate::audit::{self, Outcome};
use crate::consultation::{Consultation, PersonRole, Refusal};
use crate::control::{ChangeError, Control};
use crate::frames::ChatText;
use crate::live::{LiveSession, may_chat};
use crate::store::{self, AttachmentRow, MessageKind, MessageRow, NewMark, NewMessage, Receipt};
use crate::view::{self, MessageView};
use crate::{Private, text};
use writer::Job;

/// The longest client id of a message.
const MAX_CLIENT_ID_LEN: usize = 128;

/// Why a message was not taken.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ChatError {
    #[error("the message is empty, too long or not text")]
    BadMessage,
    #[error("only people who were let in may chat")]
    NotAdmitted,
    #[error("there is no such message")]
    NoMessage,
    #[error("too many messages; slow down")]
    TooMany,
    #[error(transparent)]
    Change(#[from] ChangeError),
}

impl ChatError {
    pub(crate) const fn code(&self) -> &'static str {
        match self {
            Self::BadMessage => "bad_message",
            Self::NotAdmitted => "not_admitted",
            Self::NoMessage | Self::Change(ChangeError::NotFound) => "not_found",
            Self::TooMany => "rate_limited",
            Self::Change(ChangeError::Refused(_)) => "session_over",
            Self::Change(ChangeError::PaymentRequired) => "payment_required",
            Self::Change(ChangeError::Database(_) | ChangeError::Busy) => "unavailable",
        }
    }
}

impl ChatError {
    /// How the attempt ended, for the audit log.
    pub(crate) const fn outcome(&self) -> Outcome {
        match self {
            Self::BadMessage | Self::TooMany => Outcome::Rejected,
            Self::NotAdmitted => Outcome::Refused,
            Self::NoMessage => Outcome::NotFound,
            Self::Change(error) => Outcome::of_error(error),
        }
    }
}

/// What became of a posted message.
#[derive(Debug)]
pub(crate) enum Posting {
    /// Everyone has it, the sender too.
    Delivered(Box<MessageView>),
    /// It was there before: the sender alone is told again.
    Repeated(Box<MessageView>),
}

impl Posting {
    /// The message as it is stored.
    pub(crate) fn into_view(self) -> MessageView {
        match self {
            Self::Delivered(view) | Self::Repeated(view) => *view,
        }
    }
}

/// Says what became of something that the writer was given.
#[derive(Debug)]
pub(crate) struct Ticket<T>(oneshot::Receiver<Result<T, ChatError>>);

impl<T> Ticket<T> {
    /// Waits until it is stored, or is not.
    pub(crate) async fn settled(self) -> Result<T, ChatError> {
        // The writer is gone only when the process ends.
        self.0.await.unwrap_or(Err(ChatError::Change(ChangeError::Busy)))
    }
}

/// Who writes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Author<'a> {
    pub(crate) clinic: &'a str,
    pub(crate) user_id: &'a str,
    /// As the caller's token has it.
    pub(crate) name: Option<&'a Private<String>>,
}

/// A message that nobody has checked yet.
#[derive(Clone, Debug)]
pub(crate) struct Draft {
    pub(crate) content: Private<String>,
    pub(crate) client_id: Option<String>,
    /// Stored already, and to be sent with this message.
    pub(crate) attachment: Option<(MessageKind, AttachmentRow)>,
}

impl std::fmt::Debug for MessageView {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // What people write to each other is nobody else's.
        write!(f, "MessageView({})", self.message_id)
    }
}

/// May a client name its message like this?
pub(crate) fn is_client_id(id: &str) -> bool {
    !id.is_empty() && id.len() <= MAX_CLIENT_ID_LEN && text::is_id(id)
}

impl Control {
    /// Takes a text message from a channel, to be stored and given to everyone who may read it.
    pub(crate) async fn submit(
        &self,
        author: Author<'_>,
        id: Uuid,
        message: &ChatText,
    ) -> Result<Ticket<Posting>, ChatError> {
        let text_only =
            message.message_type.as_deref().is_none_or(|kind| kind.eq_ignore_ascii_case("text"));
        let own = message.session_id.is_none_or(|session| session == id);
        if !text_only || !own {
            return Err(ChatError::BadMessage);
        }
        let draft = Draft {
            content: Private::new(message.content.clone()),
            client_id: message.client_id.clone(),
            attachment: None,
        };
        self.submit_draft(author, id, draft).await
    }

    /// [`Self::submit`], of whatever kind. A repeat under the same client id is given again to
    /// nobody but its sender (the answer).
    pub(crate) async fn submit_draft(
        &self,
        author: Author<'_>,
        id: Uuid,
        draft: Draft,
    ) -> Result<Ticket<Posting>, ChatError> {
        let client_id_fits = draft.client_id.as_deref().is_none_or(is_client_id);
        let content = draft.content.reveal();
        let content_fits =
            text::is_message(content) || (draft.attachment.is_some() && content.trim().is_empty());
        if !client_id_fits || !content_fits {
            return Err(ChatError::BadMessage);
        }
        let (live, consultation) = self.at_chat(author, id).await?;
        if consultation.status.is_over() {
            return Err(ChangeError::from(Refusal::Over(consultation.status)).into());
        }
        if !live.may_write(author.user_id, Instant::now()) {
            self.counters.refused_messages.add();
            return Err(ChatError::TooMany);
        }
        let role = consultation.role_of(author.user_id);
        let name = name_of(&consultation, author.user_id, role, author.name);
        let (kind, attachment) = match draft.attachment {
            Some((kind, attachment)) => (kind, Some(attachment)),
            None => (MessageKind::Text, None),
        };
        let message = NewMessage {
            session_id: consultation.id,
            sender_id: author.user_id.to_owned(),
            sender_name: name.to_owned(),
            sender_type: role.as_str(),
            kind,
            content: draft.content.reveal().clone(),
            client_id: draft.client_id,
            system_event: None,
            attachment,
            at: store::now(),
            // The writer's transaction takes it along.
            audit: audit::hand_over(),
        };
        let (reply, ticket) = oneshot::channel();
        let message = Box::new(message);
        self.chat.give(Job::Post { live, consultation, message, reply: Some(reply) })?;
        Ok(Ticket(ticket))
    }

    /// [`Self::submit`] that waits for the end.
    #[cfg(test)]
    pub(crate) async fn post(
        &self,
        clinic: &str,
        id: Uuid,
        user_id: &str,
        name: Option<&Private<String>>,
        message: &ChatText,
    ) -> Result<Posting, ChatError> {
        self.submit(Author { clinic, user_id, name }, id, message).await?.settled().await
    }

    /// Remembers that a person has, or has read, everything up to a message.
    pub(crate) async fn submit_mark(
        &self,
        author: Author<'_>,
        id: Uuid,
        receipt: Receipt,
        message_id: Uuid,
    ) -> Result<Ticket<()>, ChatError> {
        let (live, consultation) = self.at_chat(author, id).await?;
        let user_id = author.user_id.to_owned();
        let session_id = consultation.id;
        let mark = NewMark { session_id, user_id, receipt, message_id, at: store::now() };
        let (reply, ticket) = oneshot::channel();
        self.chat.give(Job::Mark { live, consultation, mark, reply })?;
        Ok(Ticket(ticket))
    }

    /// The consultation in memory, if this person may write in it.
    async fn at_chat(
        &self,
        author: Author<'_>,
        id: Uuid,
    ) -> Result<(Arc<LiveSession>, Arc<Consultation>), ChatError> {
        let consultation = self.look(author.clinic, id).await?;
        if !may_chat(&consultation, author.user_id) {
            return Err(ChatError::NotAdmitted);
        }
        Ok((self.live.enter(id), consultation))
    }

    /// A page of history, newest last, and where the page before it begins.
    pub(crate) async fn history(
        &self,
        session_id: Uuid,
        before: Option<i64>,
        limit: i64,
    ) -> Result<(Vec<MessageView>, Option<i64>), ChangeError> {
        let mut rows: Vec<MessageRow> =
            self.within(self.db.messages(session_id, before, limit + 1)).await?;
        let more = i64::try_from(rows.len()).unwrap_or(i64::MAX) > limit;
        if more {
            rows.remove(0);
        }
        let next = rows.first().filter(|_| more).map(|row| row.sequence);
        Ok((rows.into_iter().map(view::message).collect(), next))
    }

    /// What came after a message that a client has, oldest first, and where the next page begins.
    pub(crate) async fn history_after(
        &self,
        session_id: Uuid,
        after: i64,
        limit: i64,
    ) -> Result<(Vec<MessageView>, Option<i64>), ChangeError> {
        let mut rows: Vec<MessageRow> =
            self.within(self.db.messages_after(session_id, after, limit + 1)).await?;
        let more = i64::try_from(rows.len()).unwrap_or(i64::MAX) > limit;
        if more {
            rows.pop();
        }
        let next = rows.last().filter(|_| more).map(|row| row.sequence);
        Ok((rows.into_iter().map(view::message).collect(), next))
    }
}

fn name_of<'a>(
    consultation: &'a Consultation,
    user_id: &str,
    role: PersonRole,
    name: Option<&'a Private<String>>,
) -> &'a str {
    if let Some(person) = consultation.person(user_id) {
        return person.name.reveal();
    }
    match role {
        PersonRole::Doctor => consultation.doctor_name.reveal(),
        PersonRole::Patient => consultation.patient_name.reveal(),
        PersonRole::Guest => name.map_or("", |name| name.reveal().as_str()),
    }
}
