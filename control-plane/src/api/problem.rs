//! Errors of the API: `application/problem+json` (RFC 9457) with a stable `code`.

use std::borrow::Cow;
use std::time::Duration;

use axum::Json;
use axum::extract::Request;
use axum::http::header::CONTENT_LENGTH;
use axum::http::header::{CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use axum::http::{HeaderValue, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use serde::Serialize;

use crate::consultation::Refusal;
use crate::control::ChangeError;
use crate::links::LinkError;
use crate::sessions::CreateError;

/// An answer that says what went wrong.
#[derive(Debug)]
pub(crate) struct Problem {
    status: StatusCode,
    code: &'static str,
    detail: Cow<'static, str>,
    retry_after: Option<Duration>,
}

#[derive(Serialize)]
struct Body<'a> {
    #[serde(rename = "type")]
    kind: &'a str,
    title: &'a str,
    status: u16,
    detail: &'a str,
    code: &'a str,
}

impl Problem {
    pub(crate) fn new(
        status: StatusCode,
        code: &'static str,
        detail: impl Into<Cow<'static, str>>,
    ) -> Self {
        let retry_after =
            (status == StatusCode::SERVICE_UNAVAILABLE).then_some(Duration::from_secs(2));
        Self { status, code, detail: detail.into(), retry_after }
    }

    /// The same body for every bad token: it tells nothing about the reason.
    pub(crate) fn unauthorized() -> Self {
        Self::new(StatusCode::UNAUTHORIZED, "unauthorized", "a valid bearer token is needed")
    }

    pub(crate) fn forbidden(detail: &'static str) -> Self {
        Self::new(StatusCode::FORBIDDEN, "forbidden", detail)
    }

    pub(crate) fn not_found(detail: &'static str) -> Self {
        Self::new(StatusCode::NOT_FOUND, "not_found", detail)
    }

    pub(crate) fn invalid(detail: impl Into<Cow<'static, str>>) -> Self {
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, "invalid", detail)
    }

    /// The same with a word on when to try again.
    pub(crate) fn retry_after(mut self, wait: Duration) -> Self {
        self.retry_after = Some(wait);
        self
    }

    /// More requests than one may send.
    pub(crate) fn too_many(wait: Duration) -> Self {
        let detail = "too many requests; try again later";
        Self::new(StatusCode::TOO_MANY_REQUESTS, "too_many_requests", detail).retry_after(wait)
    }

    /// A body that is longer than the path takes.
    pub(crate) fn too_large() -> Self {
        let detail = "the body is larger than this path takes";
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, "too_large", detail)
    }

    /// What a framework refused, in our words.
    fn of_status(status: StatusCode) -> Self {
        let (code, detail) = match status {
            StatusCode::BAD_REQUEST => ("malformed", "the request could not be read"),
            StatusCode::NOT_FOUND => ("not_found", "there is nothing at this path"),
            StatusCode::METHOD_NOT_ALLOWED => {
                ("method_not_allowed", "this path does not take this method")
            }
            StatusCode::REQUEST_TIMEOUT => ("timeout", "the request did not come to its end"),
            StatusCode::PAYLOAD_TOO_LARGE => return Self::too_large(),
            StatusCode::UNSUPPORTED_MEDIA_TYPE => {
                ("unsupported_media_type", "this path does not take a body of this kind")
            }
            StatusCode::UNPROCESSABLE_ENTITY => ("invalid", "the request does not fit"),
            StatusCode::UPGRADE_REQUIRED => ("upgrade_required", "this path takes a WebSocket"),
            other if other.is_client_error() => ("refused", "the request was refused"),
            _ => ("internal", "the server failed"),
        };
        Self::new(status, code, detail)
    }

    /// Something is not there at the moment.
    pub(crate) fn busy() -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "unavailable", "not possible now; try again")
    }

    /// The database is away, or others keep changing the same thing.
    pub(crate) fn unavailable() -> Self {
        Self::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "unavailable",
            "the consultation service cannot answer now; try again",
        )
    }

    /// Every place in the consultation is taken.
    pub(crate) fn full() -> Self {
        Self::new(StatusCode::CONFLICT, "full", "the consultation has no place for another person")
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let body = Body {
            kind: "about:blank",
            title: self.status.canonical_reason().unwrap_or("Error"),
            status: self.status.as_u16(),
            detail: &self.detail,
            code: self.code,
        };
        let mut response = (self.status, Json(body)).into_response();
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        if self.status == StatusCode::UNAUTHORIZED {
            headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        if let Some(wait) = self.retry_after {
            // Whole seconds, and never too early.
            let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
            headers.insert(RETRY_AFTER, HeaderValue::from(seconds));
        }
        response
    }
}

/// Makes problems of the plain texts in which a framework refuses: a bad query, a body over the limit.
/// For paths of the API; others have clients that read such texts.
pub async fn as_problems(request: Request, next: Next) -> Response {
    let path = request.uri().path();
    let ours = path == "/api" || path.starts_with("/api/") || path.starts_with("/appointments/");
    let response = next.run(request).await;
    let status = response.status();
    let failed = status.is_client_error() || status.is_server_error();
    let plain = response
        .headers()
        .get(CONTENT_TYPE)
        .is_none_or(|kind| kind.as_bytes().starts_with(b"text/plain"));
    if !(ours && failed && plain) {
        return response;
    }
    let mut problem = Problem::of_status(status).into_response();
    let headers = problem.headers_mut();
    for (name, value) in response.headers() {
        // `Allow`, `Sec-WebSocket-Version` and the like stay.
        if name != CONTENT_TYPE && name != CONTENT_LENGTH {
            headers.append(name, value.clone());
        }
    }
    problem
}

impl From<Refusal> for Problem {
    fn from(refusal: Refusal) -> Self {
        let code = match refusal {
            Refusal::Over(_) => "session_over",
            Refusal::WrongStatus(_) => "wrong_status",
            Refusal::NotHere => "not_here",
            Refusal::Full => return Self::full(),
            Refusal::Doctor => "doctor",
            Refusal::TooLate => "too_late",
        };
        Self::new(StatusCode::CONFLICT, code, refusal.to_string())
    }
}

impl From<ChangeError> for Problem {
    fn from(error: ChangeError) -> Self {
        match error {
            ChangeError::NotFound => Self::not_found("there is no such consultation"),
            ChangeError::Refused(refusal) => refusal.into(),
            ChangeError::PaymentRequired => Self::new(
                StatusCode::PAYMENT_REQUIRED,
                "payment_required",
                "the payment of this appointment is not confirmed yet",
            ),
            ChangeError::Database(_) | ChangeError::Busy => Self::unavailable(),
        }
    }
}

impl From<CreateError> for Problem {
    fn from(error: CreateError) -> Self {
        match error {
            CreateError::Invalid(detail) => Self::invalid(detail),
            CreateError::Change(error) => error.into(),
        }
    }
}

impl From<LinkError> for Problem {
    fn from(error: LinkError) -> Self {
        match error {
            LinkError::NotFound => Self::not_found("there is no such link"),
            LinkError::Gone => {
                Self::new(StatusCode::GONE, "link_gone", "the link is not valid any more")
            }
            LinkError::Invalid(detail) => Self::invalid(detail),
            LinkError::Full => Self::full(),
            LinkError::Change(error) => error.into(),
        }
    }
}
