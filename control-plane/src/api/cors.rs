//! Pages of other origins may call the API with a token of theirs: any page, or those on the list.
//!
//! Nothing here rests on cookies, so no answer allows credentials. What has no `Origin` is no page.

use axum::extract::{Request, State};
use axum::http::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
    ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE, ACCESS_CONTROL_REQUEST_METHOD, ORIGIN,
    VARY,
};
use axum::http::{HeaderValue, Method, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use super::problem::Problem;
use crate::ControlPlane;

/// Refuses pages that may not call, answers preflights, lets pages read the answers.
pub(super) async fn gate(
    State(state): State<ControlPlane>,
    request: Request,
    next: Next,
) -> Response {
    let listed = &state.control.config.allowed_origins;
    let origin = request.headers().get(ORIGIN).cloned();
    let known = |origin: &HeaderValue| {
        let origin = origin.as_bytes();
        listed.iter().any(|listed| listed.as_bytes() == origin)
    };
    let readers = match origin {
        _ if listed.is_empty() => Some(HeaderValue::from_static("*")),
        Some(origin) if known(&origin) => Some(origin),
        Some(_) => return Problem::forbidden("this page may not call the API").into_response(),
        None => None,
    };
    let preflight = request.method() == Method::OPTIONS
        && request.headers().contains_key(ACCESS_CONTROL_REQUEST_METHOD);
    let mut response = if preflight { allowed() } else { next.run(request).await };
    let headers = response.headers_mut();
    if let Some(readers) = readers {
        headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, readers);
        let shown =
            HeaderValue::from_static("x-request-id, retry-after, link, idempotency-replayed");
        headers.insert(ACCESS_CONTROL_EXPOSE_HEADERS, shown);
    }
    if !listed.is_empty() {
        headers.insert(VARY, HeaderValue::from_static("origin"));
    }
    response
}

fn allowed() -> Response {
    let headers = [
        (ACCESS_CONTROL_ALLOW_METHODS, "GET, POST, PUT, PATCH, DELETE"),
        (
            ACCESS_CONTROL_ALLOW_HEADERS,
            "authorization, content-disposition, content-type, idempotency-key, x-api-key, \
             x-client-id, x-request-id",
        ),
        (ACCESS_CONTROL_MAX_AGE, "86400"),
    ];
    (StatusCode::NO_CONTENT, headers).into_response()
}
