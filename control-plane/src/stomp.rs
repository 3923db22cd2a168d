//! The STOMP door: `/ws/consultation` for clients built on `@stomp/stompjs`, with or without SockJS.
//!
//! It is another way to the same channels: whoever subscribes to `/topic/session.{id}` is a listener
//! of that consultation like any other, and what it sends goes the same way as from our own pages.
//! Only the wrapping differs.
//!
//! | path | |
//! |---|---|
//! | `/ws/consultation`, `…/websocket` | STOMP on a WebSocket |
//! | `…/info`, `…/{server}/{session}/websocket` | SockJS and its WebSocket |
//!
//! SockJS's other transports are for browsers without WebSocket, and there are none left: they
//! answer 404, as a SockJS server does where they are disabled.

mod codec;
mod session;
mod sockjs;
#[cfg(test)]
mod tests;
mod words;

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::ws::rejection::WebSocketUpgradeRejection;
use axum::extract::ws::{WebSocket, WebSocketUpgrade};
use axum::extract::{Path, State};
use axum::http::header::{
    ACCESS_CONTROL_ALLOW_CREDENTIALS, ACCESS_CONTROL_ALLOW_ORIGIN, CACHE_CONTROL, CONTENT_TYPE,
    ORIGIN, VARY,
};
use axum::http::{HeaderMap, HeaderValue};
use axum::response::{IntoResponse, Response};
use axum::routing::get;

use crate::ControlPlane;
use crate::api::problem::Problem;
use crate::audit::Origin;
use crate::channel::bounded;
use session::{Session, Wrapping};

/// The names of the protocol in a WebSocket's handshake, the best first.
const PROTOCOLS: [&str; 3] = ["v12.stomp", "v11.stomp", "v10.stomp"];

type Upgrade = Result<WebSocketUpgrade, WebSocketUpgradeRejection>;

/// The door's paths.
pub(crate) fn router(control_plane: ControlPlane) -> Router {
    Router::new()
        .route("/ws/consultation", get(base))
        .route("/ws/consultation/", get(base))
        .route("/ws/consultation/websocket", get(raw))
        .route("/ws/consultation/info", get(info))
        .route("/ws/consultation/{server}/{session}/websocket", get(wrapped))
        .with_state(control_plane)
}

/// STOMP on a WebSocket, or SockJS's greeting to who looks by.
async fn base(
    state: State<ControlPlane>,
    headers: HeaderMap,
    origin: Origin,
    upgrade: Upgrade,
) -> Response {
    if upgrade.is_err() {
        return "Welcome to SockJS!\n".into_response();
    }
    raw(state, headers, origin, upgrade).await.into_response()
}

async fn raw(
    State(state): State<ControlPlane>,
    headers: HeaderMap,
    origin: Origin,
    upgrade: Upgrade,
) -> Result<Response, Problem> {
    let upgrade = bounded(&state, &headers, upgrade)?.protocols(PROTOCOLS);
    Ok(upgrade.on_upgrade(move |socket| serve(state, socket, Wrapping::None, origin)))
}

async fn wrapped(
    State(state): State<ControlPlane>,
    Path((_server, _session)): Path<(String, String)>,
    headers: HeaderMap,
    origin: Origin,
    upgrade: Upgrade,
) -> Result<Response, Problem> {
    let upgrade = bounded(&state, &headers, upgrade)?;
    Ok(upgrade.on_upgrade(move |socket| serve(state, socket, Wrapping::SockJs, origin)))
}

async fn serve(state: ControlPlane, socket: WebSocket, wrapping: Wrapping, origin: Origin) {
    let control = Arc::clone(&state.control);
    control.counters.channels.add();
    Session::new(socket, Arc::clone(&control), wrapping, origin).serve().await;
    control.counters.channels.take();
}

/// What SockJS asks first. It asks with credentials, which nothing here rests on; so the answer must
/// name the page's origin.
async fn info(State(state): State<ControlPlane>, headers: HeaderMap) -> Result<Response, Problem> {
    let listed = &state.control.config.allowed_origins;
    let origin = headers.get(ORIGIN).cloned();
    if let Some(origin) = &origin
        && !listed.is_empty()
        && !listed.iter().any(|listed| listed.as_bytes() == origin.as_bytes())
    {
        return Err(Problem::forbidden("this page may not use the channel"));
    }
    let (entropy, _) = uuid::Uuid::new_v4().as_u64_pair();
    let answer = serde_json::json!({
        "websocket": true, "cookie_needed": false, "origins": ["*:*"], "entropy": entropy >> 32,
    });
    let mut response = Response::new(Body::from(answer.to_string()));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json; charset=UTF-8"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(VARY, HeaderValue::from_static("origin"));
    if let Some(origin) = origin {
        headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin);
        headers.insert(ACCESS_CONTROL_ALLOW_CREDENTIALS, HeaderValue::from_static("true"));
    }
    Ok(response)
}
