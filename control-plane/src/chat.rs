//! Chat: stored first, then given to everyone who may read it, each message once.

use uuid::Uuid;

use crate::consultation::{Consultation, PersonRole, Refusal};
use crate::control::{ChangeError, Control};
use crate::frames::{ChatText, ServerFrame};
use crate::live::may_chat;
use crate::store::{self, MessageRow, NewMessage, Posted};
use crate::view::{self, MessageView};
use crate::{Private, text};

/// The longest client id of a message.
const MAX_CLIENT_ID_LEN: usize = 128;

/// Why a message was not taken.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ChatError {
    #[error("the message is empty, too long or not text")]
    BadMessage,
    #[error("only people who were let in may chat")]
    NotAdmitted,
    #[error(transparent)]
    Change(#[from] ChangeError),
}

impl ChatError {
    pub(crate) const fn code(&self) -> &'static str {
        match self {
            Self::BadMessage => "bad_message",
            Self::NotAdmitted => "not_admitted",
            Self::Change(ChangeError::NotFound) => "not_found",
            Self::Change(ChangeError::Refused(_)) => "session_over",
            Self::Change(ChangeError::Database(_) | ChangeError::Busy) => "unavailable",
        }
    }
}

impl Control {
    /// Stores a message and gives it to everyone who may read it. A repeat under the same client
    /// id is given again to nobody but its sender (the answer).
    pub(crate) async fn post(
        &self,
        clinic: &str,
        id: Uuid,
        user_id: &str,
        name: Option<&Private<String>>,
        message: &ChatText,
    ) -> Result<Posting, ChatError> {
        let text_only = message.message_type.as_deref().is_none_or(|kind| kind == "text");
        let own = message.session_id.is_none_or(|session| session == id);
        let client_id = message.client_id.as_deref();
        let client_id_fits = client_id
            .is_none_or(|c| !c.is_empty() && c.len() <= MAX_CLIENT_ID_LEN && text::is_id(c));
        if !text_only || !own || !client_id_fits || !text::is_message(&message.content) {
            return Err(ChatError::BadMessage);
        }
        self.look(clinic, id).await?;
        let live = self.live.enter(id);
        let result = {
            // In turn with every other change, so that all hear the same order.
            let _gate = live.gate.lock().await;
            let consultation = self.look(clinic, id).await?;
            self.post_in_turn(&live, &consultation, user_id, name, message).await
        };
        drop(live);
        self.live.let_go(id);
        result
    }

    async fn post_in_turn(
        &self,
        live: &crate::live::LiveSession,
        consultation: &Consultation,
        user_id: &str,
        name: Option<&Private<String>>,
        message: &ChatText,
    ) -> Result<Posting, ChatError> {
        if consultation.status.is_over() {
            return Err(ChangeError::from(Refusal::Over(consultation.status)).into());
        }
        if !may_chat(consultation, user_id) {
            return Err(ChatError::NotAdmitted);
        }
        let role = consultation.role_of(user_id);
        let new = NewMessage {
            session_id: consultation.id,
            sender_id: user_id,
            sender_name: name_of(consultation, user_id, role, name),
            sender_type: role.as_str(),
            content: &message.content,
            client_id: message.client_id.as_deref(),
            at: store::now(),
        };
        match self.within(self.db.post_message(&new)).await? {
            Posted::Known(row) => Ok(Posting::Repeated(view::message(row))),
            Posted::New(row) => {
                self.counters.chat_messages.add();
                let frame = ServerFrame::ChatMessage(&view::message(row)).text();
                live.tell_message(consultation, &frame);
                Ok(Posting::Delivered)
            }
        }
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
}

/// What became of a posted message.
pub(crate) enum Posting {
    /// Everyone has it, the sender too.
    Delivered,
    /// It was there before: the sender alone is told again.
    Repeated(MessageView),
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
