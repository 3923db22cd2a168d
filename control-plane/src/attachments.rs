//! Pictures and files in the chat.
//!
//! What a file is, its content says ([`content`]): its name counts for nothing, and what a browser
//! or an office program would run is refused. It is stored under an id ([`files`]) and given out
//! only as a download, to people who may read the chat.
//!
//! In this order: written down, stored, sent as a message. A process that dies in between leaves a
//! row without a message, and the sweeper removes it with its file.

mod archive;
pub(crate) mod content;
pub(crate) mod files;
mod names;
mod pictures;
pub(crate) mod probe;
#[cfg(test)]
mod tests;

use aws_lc_rs::digest;
use axum::body::Bytes;
use uuid::Uuid;

use crate::Private;
use crate::chat::{Author, ChatError, Draft, Posting, is_client_id};
use crate::consultation::Refusal;
use crate::control::{ChangeError, Control};
use crate::live::may_chat;
use crate::store::{self, AttachmentRow, MessageKind};
use crate::view::MessageView;
use content::{BadContent, Content};
use files::FileError;

pub use files::{Objects, OpenFilesError, S3};

/// How many uploads are read at once; others are asked to come again.
pub(crate) const UPLOADS: usize = 8;

/// A file that somebody sends.
#[derive(Debug)]
pub(crate) struct Upload {
    pub(crate) bytes: Bytes,
    /// As the sender calls it.
    pub(crate) file_name: Private<String>,
    /// What is written to it; may be empty.
    pub(crate) caption: Private<String>,
    pub(crate) client_id: Option<String>,
}

/// Why a file was not taken.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AttachError {
    #[error(transparent)]
    Content(#[from] BadContent),
    #[error("files of this type may have {0} bytes at the most")]
    TooLarge(u64),
    #[error("this consultation has as many files as it may have")]
    TooMany,
    #[error(transparent)]
    Chat(#[from] ChatError),
    #[error(transparent)]
    File(#[from] FileError),
}

impl From<ChangeError> for AttachError {
    fn from(error: ChangeError) -> Self {
        Self::Chat(error.into())
    }
}

/// Can this begin a file that is taken at all?
pub(crate) fn may_begin(head: &[u8]) -> bool {
    content::may_begin(head)
}

/// How much of a file must be there for [`may_begin`].
pub(crate) const HEAD: usize = content::HEAD;

/// The value of `Content-Disposition` for a download.
pub(crate) fn disposition(row: &AttachmentRow) -> String {
    let name = row.file_name.reveal();
    let extension = name.rsplit_once('.').map_or("bin", |(_, extension)| extension);
    names::disposition(row.id, name, extension)
}

/// The name in a `Content-Disposition` that came with a file.
pub(crate) fn name_given(disposition: &str) -> Option<String> {
    names::given(disposition)
}

impl Control {
    /// The size that no file may exceed.
    pub(crate) fn largest_upload(&self) -> u64 {
        self.config.chat.max_file_bytes.max(self.config.chat.max_image_bytes)
    }

    /// May this person send a file here now? Asked before its content is read.
    pub(crate) async fn may_attach(
        &self,
        author: Author<'_>,
        session: Uuid,
    ) -> Result<(), ChatError> {
        let consultation = self.look(author.clinic, session).await?;
        if consultation.status.is_over() {
            return Err(ChangeError::from(Refusal::Over(consultation.status)).into());
        }
        if may_chat(&consultation, author.user_id) { Ok(()) } else { Err(ChatError::NotAdmitted) }
    }

    /// Examines, stores and sends a file.
    pub(crate) async fn attach(
        &self,
        author: Author<'_>,
        session: Uuid,
        upload: Upload,
    ) -> Result<MessageView, AttachError> {
        self.may_attach(author, session).await?;
        if !upload.client_id.as_deref().is_none_or(is_client_id) {
            return Err(ChatError::BadMessage.into());
        }
        let content = content::examine(&upload.bytes)?;
        self.check_size(content.kind.message_kind(), upload.bytes.len())?;
        let row = written_down(author, session, &upload, content);
        let most = self.config.chat.max_files;
        if !self.within(self.db.insert_attachment(&row, most)).await? {
            return Err(AttachError::TooMany);
        }
        let id = row.id;
        if let Err(error) = self.files.put(id, upload.bytes).await {
            // If this fails, too, the sweeper does it.
            let _ = self.within(self.db.remove_attachment(id)).await;
            return Err(error.into());
        }
        let draft = Draft {
            content: upload.caption,
            client_id: upload.client_id,
            attachment: Some((content.kind.message_kind(), row)),
        };
        let posting = match self.submit_draft(author, session, draft).await {
            Ok(ticket) => ticket.settled().await?,
            Err(error) => {
                self.forget_file(id).await;
                return Err(error.into());
            }
        };
        if matches!(posting, Posting::Repeated(_)) {
            self.forget_file(id).await;
        }
        Ok(posting.into_view())
    }

    /// Sends a picture in a person's name; anything else is refused.
    pub(crate) async fn share_image(
        &self,
        clinic: &str,
        session: Uuid,
        user_id: &str,
        bytes: Bytes,
        file_name: &str,
    ) -> Result<MessageView, AttachError> {
        if content::examine(&bytes)?.kind.message_kind() != MessageKind::Image {
            return Err(BadContent::Type.into());
        }
        let upload = Upload {
            bytes,
            file_name: Private::new(file_name.to_owned()),
            caption: Private::default(),
            client_id: None,
        };
        self.attach(Author { clinic, user_id, name: None }, session, upload).await
    }

    fn check_size(&self, kind: MessageKind, length: usize) -> Result<(), AttachError> {
        let most = match kind {
            MessageKind::Image => self.config.chat.max_image_bytes,
            MessageKind::File | MessageKind::Text | MessageKind::System => {
                self.config.chat.max_file_bytes
            }
        };
        let fits = u64::try_from(length).is_ok_and(|length| length <= most);
        if fits { Ok(()) } else { Err(AttachError::TooLarge(most)) }
    }

    /// Takes a file away that no message refers to. What fails here is the sweeper's.
    async fn forget_file(&self, id: Uuid) {
        if self.files.remove(id).await.is_ok() {
            let _ = self.within(self.db.remove_attachment(id)).await;
        }
    }
}

fn written_down(
    author: Author<'_>,
    session: Uuid,
    upload: &Upload,
    content: Content,
) -> AttachmentRow {
    let name = names::shown(upload.file_name.reveal(), content.kind.extension());
    AttachmentRow {
        id: Uuid::new_v4(),
        clinic: author.clinic.to_owned(),
        session_id: session,
        uploaded_by: author.user_id.to_owned(),
        message_id: None,
        file_name: Private::new(name),
        mime_type: content.kind.mime_type().to_owned(),
        size_bytes: i64::try_from(upload.bytes.len()).unwrap_or(i64::MAX),
        width: content.size.map(|size| size.width.into()),
        height: content.size.map(|size| size.height.into()),
        sha256: digest::digest(&digest::SHA256, &upload.bytes).as_ref().to_vec(),
        created_at: store::now(),
    }
}
