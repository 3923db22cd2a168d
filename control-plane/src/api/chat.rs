//! `/api/v1/consultations/sessions/{id}/chat` and `…/attachments`: what the channel does, by HTTP.

use std::time::Duration;

use axum::Json;
use axum::body::Bytes;
use axum::extract::{FromRequest as _, Multipart, Path, Request, State};
use axum::http::header::{
    CACHE_CONTROL, CONTENT_DISPOSITION, CONTENT_LENGTH, CONTENT_SECURITY_POLICY, CONTENT_TYPE,
    X_CONTENT_TYPE_OPTIONS,
};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use futures_util::StreamExt as _;
use serde::Deserialize;
use uuid::Uuid;

use super::problem::Problem;
use super::sessions::own;
use super::{Body, id_in_path};
use crate::access::Caller;
use crate::attachments::content::BadContent;
use crate::attachments::files::FileError;
use crate::attachments::{AttachError, HEAD, Upload, disposition, may_begin, name_given};
use crate::chat::{ChatError, Posting};
use crate::consultation::Consultation;
use crate::frames::{ChatText, ServerFrame};
use crate::permissions::Permission;
use crate::store::{self, Receipt};
use crate::view::MessageView;
use crate::{ControlPlane, Private};

/// The longest text beside a file, in bytes.
const MAX_FIELD: usize = 16 * 1024;
static CLIENT_ID: HeaderName = HeaderName::from_static("x-client-id");

/// A message to send.
#[derive(Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct MessageRequest {
    /// The text.
    content: String,
    /// Only `text`.
    message_type: Option<String>,
    /// The sender's own id of it: a repeat is stored once.
    client_id: Option<String>,
}

/// How far one has come.
#[derive(Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct MarkRequest {
    /// The message, and with it everything before.
    message_id: Uuid,
}

/// Sends a message.
#[utoipa::path(post, path = "/api/v1/consultations/sessions/{id}/chat",
    request_body = MessageRequest,
    responses((status = 201, body = MessageView), (status = 200, body = MessageView),
        (status = 429)))]
pub(crate) async fn send(
    State(state): State<ControlPlane>,
    caller: Caller,
    Path(id): Path<String>,
    Body(request): Body<MessageRequest>,
) -> Result<Response, Problem> {
    let consultation = as_oneself(&state, &caller, &id).await?;
    let message = ChatText {
        session_id: None,
        content: request.content,
        message_type: request.message_type,
        client_id: request.client_id,
    };
    let ticket = state.control.submit(caller.author(), consultation.id, &message).await?;
    Ok(match ticket.settled().await? {
        Posting::Delivered(view) => (StatusCode::CREATED, Json(*view)).into_response(),
        Posting::Repeated(view) => Json(*view).into_response(),
    })
}

/// Says that everything up to a message is on one's device.
#[utoipa::path(post, path = "/api/v1/consultations/sessions/{id}/chat/delivered",
    request_body = MarkRequest, responses((status = 204)))]
pub(crate) async fn delivered(
    state: State<ControlPlane>,
    caller: Caller,
    path: Path<String>,
    body: Body<MarkRequest>,
) -> Result<StatusCode, Problem> {
    mark(state, caller, path, body, Receipt::Delivered).await
}

/// Says that one has read everything up to a message.
#[utoipa::path(post, path = "/api/v1/consultations/sessions/{id}/chat/read",
    request_body = MarkRequest, responses((status = 204)))]
pub(crate) async fn read(
    state: State<ControlPlane>,
    caller: Caller,
    path: Path<String>,
    body: Body<MarkRequest>,
) -> Result<StatusCode, Problem> {
    mark(state, caller, path, body, Receipt::Read).await
}

async fn mark(
    State(state): State<ControlPlane>,
    caller: Caller,
    Path(id): Path<String>,
    Body(request): Body<MarkRequest>,
    receipt: Receipt,
) -> Result<StatusCode, Problem> {
    let consultation = as_oneself(&state, &caller, &id).await?;
    let (author, id) = (caller.author(), consultation.id);
    let ticket = state.control.submit_mark(author, id, receipt, request.message_id).await?;
    ticket.settled().await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Takes a message back: its sender, or who leads the consultation.
#[utoipa::path(delete, path = "/api/v1/consultations/sessions/{id}/chat/{message}",
    responses((status = 204)))]
pub(crate) async fn remove(
    State(state): State<ControlPlane>,
    caller: Caller,
    Path((id, message)): Path<(String, String)>,
) -> Result<StatusCode, Problem> {
    let consultation = own(&state, &caller, &id).await?;
    if !caller.reads_chat(&consultation) {
        return Err(ChatError::NotAdmitted.into());
    }
    let message_id = id_in_path(&message)?;
    let only_of = (!caller.leads(&consultation)).then_some(caller.0.user_id.as_str());
    let control = &state.control;
    let session_id = consultation.id;
    let deleted = control.db.delete_message(session_id, message_id, only_of, store::now());
    if !control.within(deleted).await? {
        return Err(Problem::not_found("there is no such message of yours"));
    }
    if let Some(live) = control.live.find(session_id) {
        let frame = ServerFrame::MessageDeleted { session_id, message_id };
        live.tell_message(&consultation, None, &frame.text());
    }
    Ok(StatusCode::NO_CONTENT)
}

/// Sends a file or picture: the raw content, or a form with `file`, `content` and `clientId`.
#[utoipa::path(post, path = "/api/v1/consultations/sessions/{id}/attachments",
    request_body(content = Vec<u8>, content_type = "application/octet-stream"),
    responses((status = 201, body = MessageView), (status = 413), (status = 415)))]
pub(crate) async fn upload(
    State(state): State<ControlPlane>,
    caller: Caller,
    Path(id): Path<String>,
    request: Request,
) -> Result<Response, Problem> {
    let consultation = as_oneself(&state, &caller, &id).await?;
    state.control.may_attach(caller.author(), consultation.id).await?;
    let most = state.control.largest_upload();
    let declared = request.headers().get(CONTENT_LENGTH).and_then(|value| value.to_str().ok());
    let declared = declared.and_then(|length| length.parse::<u64>().ok());
    if declared.is_some_and(|length| length > most + 64 * 1024) {
        return Err(AttachError::TooLarge(most).into());
    }
    let _place = state.control.uploads.try_acquire().map_err(|_| Problem::busy())?;
    let upload = received(request, most).await?;
    let view = state.control.attach(caller.author(), consultation.id, upload).await?;
    Ok((StatusCode::CREATED, Json(view)).into_response())
}

/// One file or picture, as a download and nothing else.
#[utoipa::path(get, path = "/api/v1/consultations/sessions/{id}/attachments/{attachment}",
    responses((status = 200, body = Vec<u8>, content_type = "application/octet-stream")))]
pub(crate) async fn download(
    State(state): State<ControlPlane>,
    caller: Caller,
    Path((id, attachment)): Path<(String, String)>,
) -> Result<Response, Problem> {
    let consultation = own(&state, &caller, &id).await?;
    if !caller.reads_chat(&consultation) {
        return Err(ChatError::NotAdmitted.into());
    }
    let control = &state.control;
    let id = id_in_path(&attachment)?;
    let row = control.within(control.db.attachment(consultation.id, id)).await?;
    let row = row.ok_or_else(|| Problem::not_found("there is no such file"))?;
    let (body, length) = control.files.get(id).await.map_err(AttachError::from)?;
    let value = |text: &str| {
        HeaderValue::from_str(text).unwrap_or(HeaderValue::from_static("application/octet-stream"))
    };
    let mut response = Response::new(body);
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, value(&row.mime_type));
    headers.insert(CONTENT_LENGTH, HeaderValue::from(length));
    headers.insert(CONTENT_DISPOSITION, value(&disposition(&row)));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(
        CONTENT_SECURITY_POLICY,
        HeaderValue::from_static("sandbox; default-src 'none'; frame-ancestors 'none'"),
    );
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("private, no-store"));
    Ok(response)
}

/// The consultation, for somebody who is a person in it: services write in nobody's name here.
async fn as_oneself(
    state: &ControlPlane,
    caller: &Caller,
    id: &str,
) -> Result<std::sync::Arc<Consultation>, Problem> {
    let consultation = own(state, caller, id).await?;
    caller.may(Permission::WriteChat)?;
    if caller.is_staff() {
        return Err(Problem::forbidden("only people in the consultation chat"));
    }
    Ok(consultation)
}

async fn received(request: Request, most: u64) -> Result<Upload, Problem> {
    let kind = request.headers().get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
    if kind.is_some_and(|kind| kind.to_ascii_lowercase().starts_with("multipart/form-data")) {
        return form(request, most).await;
    }
    let header = |headers: &HeaderMap, name: &HeaderName| {
        headers.get(name).and_then(|value| value.to_str().ok()).map(str::to_owned)
    };
    let name = header(request.headers(), &CONTENT_DISPOSITION).and_then(|text| name_given(&text));
    let client_id = header(request.headers(), &CLIENT_ID);
    let mut stream = request.into_body().into_data_stream();
    let mut content = Content::new(most);
    while let Some(chunk) = stream.next().await {
        content.take(&chunk.map_err(|_| unreadable())?)?;
    }
    Ok(Upload {
        bytes: content.whole()?,
        file_name: Private::new(name.unwrap_or_default()),
        caption: Private::default(),
        client_id,
    })
}

async fn form(request: Request, most: u64) -> Result<Upload, Problem> {
    let mut form = Multipart::from_request(request, &()).await.map_err(|_| unreadable())?;
    let (mut file, mut file_name) = (None, String::new());
    let (mut caption, mut client_id) = (String::new(), None);
    while let Some(mut field) = form.next_field().await.map_err(|_| unreadable())? {
        let name = field.name().unwrap_or_default().to_owned();
        match name.as_str() {
            "file" if file.is_none() => {
                file_name = field.file_name().unwrap_or_default().to_owned();
                let mut content = Content::new(most);
                while let Some(chunk) = field.chunk().await.map_err(|_| unreadable())? {
                    content.take(&chunk)?;
                }
                file = Some(content.whole()?);
            }
            "content" | "clientId" => {
                let mut bytes = Vec::new();
                while let Some(chunk) = field.chunk().await.map_err(|_| unreadable())? {
                    bytes.extend_from_slice(&chunk);
                    if bytes.len() > MAX_FIELD {
                        return Err(Problem::invalid("a field of the form is too long"));
                    }
                }
                let text = String::from_utf8(bytes).map_err(|_| unreadable())?;
                if name == "content" {
                    caption = text;
                } else {
                    client_id = Some(text);
                }
            }
            _ => {
                return Err(Problem::invalid("the form has file, content and clientId, each once"));
            }
        }
    }
    let bytes = file.ok_or_else(|| Problem::invalid("the form has no file"))?;
    let (file_name, caption) = (Private::new(file_name), Private::new(caption));
    Ok(Upload { bytes, file_name, caption, client_id })
}

/// A file as it comes in: refused at its head if it is none of ours, and once it is too large.
struct Content {
    bytes: Vec<u8>,
    most: u64,
    known: bool,
}

impl Content {
    const fn new(most: u64) -> Self {
        Self { bytes: Vec::new(), most, known: false }
    }

    fn take(&mut self, chunk: &[u8]) -> Result<(), Problem> {
        let length = self.bytes.len().saturating_add(chunk.len());
        if !u64::try_from(length).is_ok_and(|length| length <= self.most) {
            return Err(AttachError::TooLarge(self.most).into());
        }
        self.bytes.extend_from_slice(chunk);
        if !self.known
            && let Some(head) = self.bytes.get(..HEAD)
        {
            if !may_begin(head) {
                return Err(AttachError::from(BadContent::Type).into());
            }
            self.known = true;
        }
        Ok(())
    }

    fn whole(self) -> Result<Bytes, Problem> {
        if self.bytes.is_empty() {
            return Err(Problem::new(StatusCode::BAD_REQUEST, "empty", "the file is empty"));
        }
        Ok(self.bytes.into())
    }
}

fn unreadable() -> Problem {
    Problem::new(StatusCode::BAD_REQUEST, "malformed", "the body could not be read")
}

impl From<ChatError> for Problem {
    fn from(error: ChatError) -> Self {
        let code = error.code();
        match error {
            ChatError::BadMessage => Self::new(StatusCode::BAD_REQUEST, code, error.to_string()),
            ChatError::NotAdmitted => Self::new(StatusCode::FORBIDDEN, code, error.to_string()),
            ChatError::NoMessage => Self::not_found("there is no such message"),
            ChatError::TooMany => Self::new(StatusCode::TOO_MANY_REQUESTS, code, error.to_string())
                .retry_after(Duration::from_secs(1)),
            ChatError::Change(error) => error.into(),
        }
    }
}

impl From<AttachError> for Problem {
    fn from(error: AttachError) -> Self {
        let detail = error.to_string();
        match error {
            AttachError::Content(BadContent::Type) => {
                Self::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported_type", detail)
            }
            AttachError::Content(BadContent::TooManyPixels) => {
                Self::new(StatusCode::UNPROCESSABLE_ENTITY, "too_many_pixels", detail)
            }
            AttachError::TooLarge(_) => {
                Self::new(StatusCode::PAYLOAD_TOO_LARGE, "too_large", detail)
            }
            AttachError::TooMany => Self::new(StatusCode::CONFLICT, "too_many_files", detail),
            AttachError::Chat(error) => error.into(),
            AttachError::File(FileError::NotThere) => Self::not_found("there is no such file"),
            AttachError::File(FileError::Away) => Self::busy(),
        }
    }
}
