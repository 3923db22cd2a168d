//! The HTTP side of the control plane: `/api/v1/consultations/…` and `/api/v1/links/…`.
//!
//! Every answer carries `x-request-id`; every error is a [`problem`]; bodies end at 256 KiB. What
//! belongs to another clinic does not exist (404); what belongs to somebody else of the same
//! clinic is forbidden (403).

mod appointments;
mod audit;
mod billing;
#[cfg(test)]
mod billing_tests;
mod chat;
mod checks;
mod cors;
mod docs;
mod events;
mod feedback;
#[cfg(test)]
mod feedback_tests;
mod forms;
mod health;
mod history;
mod idempotency;
mod images;
mod keys;
mod limits;
mod links;
mod older;
#[cfg(test)]
mod older_tests;
mod openapi;
mod payments;
#[cfg(test)]
mod payments_tests;
pub(crate) mod problem;
mod reports;
#[cfg(test)]
mod requests_tests;
mod sessions;
mod standing;
#[cfg(test)]
mod tests;
mod video;
mod video_bodies;
mod video_calls;
mod video_view;
mod video_words;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, FromRequest, Request};
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use axum::middleware::{Next, from_fn, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::{any, delete, get, post};
use serde::de::DeserializeOwned;
use tracing::Instrument as _;
use uuid::Uuid;

use crate::{ControlPlane, channel};
pub use limits::{Rate, RequestLimits};
pub use problem::as_problems;

pub(crate) use limits::Limiters;

use problem::Problem;

/// The largest request body.
const MAX_BODY: usize = 256 * 1024;
/// The largest with a picture in it; the chat's own limit counts within.
const MAX_IMAGE_BODY: usize = 48 * 1024 * 1024;

static REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

pub(crate) fn router(control_plane: ControlPlane) -> Router {
    let session = Router::new()
        .route("/", get(sessions::read))
        .route("/join", post(sessions::join))
        .route("/admit", post(sessions::admit))
        .route("/send-back", post(sessions::send_back))
        .route("/leave", post(sessions::leave))
        .route("/start", post(sessions::start))
        .route("/pause", post(sessions::pause))
        .route("/resume", post(sessions::resume))
        .route("/end", post(sessions::end))
        .route("/cancel", post(sessions::cancel))
        .route("/no-show", post(sessions::no_show))
        .route("/reopen", post(sessions::reopen))
        .route("/events", get(sessions::events))
        .route("/summary", get(history::summary))
        .route("/report", post(reports::report))
        .route("/reports", get(reports::list))
        .route("/chat", get(sessions::chat).post(chat::send))
        .route("/chat/delivered", post(chat::delivered))
        .route("/chat/read", post(chat::read))
        .route("/chat/{message}", delete(chat::remove))
        .route("/attachments", post(chat::upload).layer(DefaultBodyLimit::disable()))
        .route("/attachments/{attachment}", get(chat::download))
        .route("/links", post(links::create))
        .route("/billing", get(billing::billing))
        .route("/feedback", get(feedback::read).post(feedback::give).patch(feedback::show))
        .route("/feedback/response", post(feedback::answer))
        .route("/channel", get(channel::session));
    Router::new()
        .merge(docs::router())
        .merge(older_contracts())
        .route("/health", get(health::show))
        .route("/actuator/health", get(standing::actuator))
        .route("/api/video/health", get(standing::video_health))
        .route("/api/video/providers/status", get(standing::providers))
        .route("/api/asyncapi.json", get(events::description))
        .route("/api/v1/checks", post(checks::begin))
        .route("/api/v1/checks/results", post(checks::report))
        .route("/api/v1/checks/{code}", get(checks::read))
        .route("/api/v1/events", get(events::list))
        .route("/api/v1/audit", get(audit::read))
        .route("/api/v1/keys", post(keys::create).get(keys::list))
        .route("/api/v1/keys/{key}", delete(keys::revoke))
        .route("/api/v1/tokens/revoke", post(keys::revoke_token))
        .route("/api/v1/links/exchange", post(links::exchange))
        .route("/api/v1/links/{link}", delete(links::revoke))
        .route("/api/v1/consultations/channel", get(channel::list))
        .route("/api/v1/consultations/history", get(history::history))
        .route("/api/v1/consultations/sessions", post(sessions::create).get(sessions::list))
        .nest("/api/v1/consultations/sessions/{id}", session)
        .route("/api/v1/consultations/doctors/{doctor_id}/feedback", get(feedback::of_doctor))
        .route(
            "/api/v1/consultations/pricing/{doctor_id}",
            get(billing::prices).put(billing::put_price),
        )
        .route(
            "/api/v1/consultations/appointments/{appointment_id}/payment",
            get(payments::read).post(payments::verify),
        )
        .route("/api/{*rest}", any(unknown_path))
        .method_not_allowed_fallback(wrong_method)
        .layer(DefaultBodyLimit::max(MAX_BODY))
        .layer(from_fn_with_state(control_plane.clone(), idempotency::once))
        .layer(from_fn_with_state(control_plane.clone(), health::switched_on))
        .layer(from_fn_with_state(control_plane.clone(), limits::by_address))
        .layer(from_fn_with_state(control_plane.clone(), crate::audit::record))
        .layer(from_fn_with_state(control_plane.clone(), cors::gate))
        .layer(from_fn(as_problems))
        .layer(from_fn(with_request_id))
        .with_state(control_plane)
}

/// The doors of the older contracts.
fn older_contracts() -> Router<ControlPlane> {
    let appointment = Router::new()
        .route("/token", post(appointments::token))
        .route("/start", post(appointments::start))
        .route("/end", post(appointments::end))
        .route("/status", get(appointments::status))
        .route("/report", post(appointments::report));
    let booked = Router::new()
        .route("/start", post(appointments::booked_start))
        .route("/end", post(appointments::booked_end))
        .route("/verify-payment", post(appointments::verify_payment))
        .route("/session", get(appointments::booked_session));
    Router::new()
        .route("/api/video/sessions", post(video::create))
        .route("/api/video/sessions/doctor/{id}", get(video::of_doctor))
        .route("/api/video/sessions/patient/{id}", get(video::of_patient))
        .route("/api/video/sessions/{id}", get(video::read))
        .route("/api/video/sessions/{id}/join", post(video::join))
        .route("/api/video/sessions/{id}/end", post(video::end))
        .route("/api/video/token", post(video_calls::token))
        .route("/api/video/consultation/start", post(video_calls::start))
        .route("/api/video/consultation/end", post(video_calls::end))
        .route("/api/video/consultation/{id}/status", get(video_calls::status))
        .route("/api/video/consultation/{id}/report", post(reports::older_report))
        .route("/api/video/history", get(history::calls))
        .route(
            "/api/video/image/share",
            // A third more than the largest picture: Base64.
            post(images::share).layer(DefaultBodyLimit::max(MAX_IMAGE_BODY)),
        )
        .nest("/api/video-consultations/{id}", booked)
        .nest("/api/appointments/{id}/video", appointment.clone())
        .nest("/appointments/{id}/video", appointment)
        .route("/appointments/{id}/video/{*rest}", any(unknown_path))
}

async fn unknown_path() -> Problem {
    Problem::not_found("there is nothing at this path")
}

/// `OPTIONS` is answered by the `Allow` that the router adds; other methods are refused.
async fn wrong_method(method: Method) -> Response {
    if method == Method::OPTIONS {
        return StatusCode::NO_CONTENT.into_response();
    }
    Problem::new(
        StatusCode::METHOD_NOT_ALLOWED,
        "method_not_allowed",
        "this path does not take this method",
    )
    .into_response()
}

/// Gives every request an id, or keeps a harmless one that came with it.
async fn with_request_id(mut request: Request, next: Next) -> Response {
    let given = request.headers().get(&REQUEST_ID).and_then(|value| value.to_str().ok());
    let harmless = |id: &&str| {
        (1..=64).contains(&id.len())
            && id.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
    };
    let id = given.filter(harmless).map_or_else(|| Uuid::now_v7().to_string(), str::to_owned);
    let value = HeaderValue::from_str(&id).ok();
    if let Some(value) = &value {
        request.headers_mut().insert(REQUEST_ID.clone(), value.clone());
    }
    let span = tracing::info_span!("request", id = %id);
    let mut response = next.run(request).instrument(span).await;
    if let Some(value) = value {
        response.headers_mut().insert(REQUEST_ID.clone(), value);
    }
    response
}

/// A JSON body. An empty one counts as `{}`; what is no JSON is 400, what does not fit is 422.
pub(crate) struct Body<T>(pub(crate) T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for Body<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Self::Rejection> {
        let json = is_json(request.headers());
        let bytes = Bytes::from_request(request, state).await.map_err(|rejection| {
            let status = rejection.into_response().status();
            if status == StatusCode::PAYLOAD_TOO_LARGE {
                Problem::too_large()
            } else {
                Problem::new(StatusCode::BAD_REQUEST, "malformed", "the body could not be read")
            }
        })?;
        if !json && !bytes.is_empty() {
            return Err(Problem::new(
                StatusCode::UNSUPPORTED_MEDIA_TYPE,
                "unsupported_media_type",
                "the body must be application/json",
            ));
        }
        let json: &[u8] = if bytes.trim_ascii().is_empty() { b"{}" } else { &bytes };
        // Else it would pass for the fields of the object in their order here.
        if json.trim_ascii_start().starts_with(b"[") {
            return Err(Problem::invalid("the body must be a JSON object"));
        }
        serde_json::from_slice(json).map(Body).map_err(|error| match error.classify() {
            serde_json::error::Category::Data => Problem::invalid(format!("the body: {error}")),
            serde_json::error::Category::Io
            | serde_json::error::Category::Syntax
            | serde_json::error::Category::Eof => {
                Problem::new(StatusCode::BAD_REQUEST, "malformed", "the body is not JSON")
            }
        })
    }
}

/// `application/json` and its relatives. A body that says nothing of its kind is read as one.
fn is_json(headers: &HeaderMap) -> bool {
    let Some(kind) = headers.get(CONTENT_TYPE) else { return true };
    let kind = kind.to_str().unwrap_or_default();
    let kind = kind.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    kind == "application/json" || (kind.starts_with("application/") && kind.ends_with("+json"))
}

/// An id in a path; what is no id names nothing.
pub(crate) fn id_in_path(text: &str) -> Result<Uuid, Problem> {
    Uuid::try_parse(text).map_err(|_| Problem::not_found("there is nothing with this id"))
}
