//! `/api/video/image/share`: a picture for the chat of a consultation, by the older contract.
//!
//! It comes as a form (`image` or `file`, and which consultation) or as JSON with the picture in
//! Base64 under `imageData`. What it is, its content says; only PNG, JPEG and their like are taken
//! (415), up to the size that the chat takes (413).

use axum::Json;
use axum::body::Bytes;
use axum::extract::{FromRequest as _, Multipart, Request, State};
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Serialize;
use serde_json::{Map, Value};
use uuid::Uuid;

use super::Body;
use super::older::{acting, of_body};
use super::problem::Problem;
use super::video_bodies::ShareImageRequest;
use super::video_words::{USER, Words};
use crate::access::Caller;
use crate::permissions::Permission;
use crate::view::MessageView;
use crate::{ControlPlane, text};

/// Names of the picture in JSON.
const DATA: &[&str] = &["imageData", "image_data"];
/// Names of the Base64 in it.
const BASE64: &[&str] = &["data", "base64", "content"];
/// Names of a file's name.
const FILE: &[&str] = &["fileName", "file_name", "filename"];
/// The longest text of a form's field.
const MAX_FIELD: usize = 4_096;

/// A picture that everybody in the consultation has now.
#[derive(Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct SharedImage {
    success: bool,
    session_id: Uuid,
    appointment_id: Option<String>,
    /// The message of the chat that shows it.
    message_id: Uuid,
    /// The same message, with where its picture is.
    message: MessageView,
}

/// Shares a picture with everybody in the consultation.
///
/// People share as themselves, services for somebody who was let in. A form has `image` and
/// `sessionId` or `appointmentId`; JSON has the picture as Base64 in `imageData.data`.
#[utoipa::path(post, path = "/api/video/image/share", tag = "video",
    request_body(content = ShareImageRequest, description = "Also as `multipart/form-data`."),
    responses((status = 201, body = SharedImage)))]
pub(crate) async fn share(
    State(state): State<ControlPlane>,
    caller: Caller,
    request: Request,
) -> Result<Response, Problem> {
    caller.may(Permission::WriteChat)?;
    let kind = request.headers().get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
    let form = kind.is_some_and(|kind| kind.to_ascii_lowercase().starts_with("multipart/"));
    let most = state.control.config.chat.max_image_bytes;
    let (words, bytes, name) = if form {
        in_form(request, most).await?
    } else {
        let Body(words) = Body::<Words>::from_request(request, &state).await?;
        let (bytes, name) = in_json(&words)?;
        (words, bytes, name)
    };
    let consultation = of_body(&state, &caller, &words).await?;
    let acting = acting(&caller, &consultation, &words, USER)?;
    let name = name.filter(|name| text::is_name(name)).unwrap_or_default();
    let (clinic, id) = (&caller.0.clinic, consultation.id);
    let message = state.control.share_image(clinic, id, &acting.user_id, bytes, &name).await?;
    let answer = SharedImage {
        success: true,
        session_id: id,
        appointment_id: consultation.appointment_id.clone(),
        message_id: message.message_id,
        message,
    };
    Ok((StatusCode::CREATED, Json(answer)).into_response())
}

type Picture = (Bytes, Option<String>);

fn in_json(words: &Words) -> Result<Picture, Problem> {
    let missing = || Problem::invalid("imageData.data holds the picture in Base64");
    let data = words.inner(DATA)?.ok_or_else(missing)?;
    let text = data.text(BASE64)?.ok_or_else(missing)?;
    // A data URL names its kind first; what counts is the content.
    let text = text.rsplit_once(";base64,").map_or(text.as_str(), |(_, text)| text);
    let bytes = STANDARD.decode(text.trim()).map_err(|_| missing())?;
    let name = match data.text(FILE)? {
        Some(name) => Some(name),
        None => words.text(FILE)?,
    };
    Ok((bytes.into(), name))
}

async fn in_form(request: Request, most: u64) -> Result<(Words, Bytes, Option<String>), Problem> {
    let unreadable =
        || Problem::new(StatusCode::BAD_REQUEST, "malformed", "the form could not be read");
    let mut form = Multipart::from_request(request, &()).await.map_err(|_| unreadable())?;
    let mut fields = Map::new();
    let mut picture: Option<Picture> = None;
    while let Some(mut field) = form.next_field().await.map_err(|_| unreadable())? {
        let name = field.name().unwrap_or_default().to_owned();
        let is_file = matches!(name.as_str(), "image" | "file");
        let limit = if is_file { usize::try_from(most).unwrap_or(usize::MAX) } else { MAX_FIELD };
        let file_name = field.file_name().map(str::to_owned);
        let mut bytes = Vec::new();
        while let Some(chunk) = field.chunk().await.map_err(|_| unreadable())? {
            if bytes.len().saturating_add(chunk.len()) > limit {
                return Err(Problem::too_large());
            }
            bytes.extend_from_slice(&chunk);
        }
        if is_file {
            if picture.replace((bytes.into(), file_name)).is_some() {
                return Err(Problem::invalid("the form has more than one picture"));
            }
        } else if fields.len() < 32 {
            let text = String::from_utf8(bytes).map_err(|_| unreadable())?;
            fields.insert(name, Value::String(text));
        }
    }
    let (bytes, name) = picture.ok_or_else(|| Problem::invalid("the form has no image"))?;
    Ok((Words::of(fields), bytes, name))
}
