//! How the service stands, in the words of the older contracts: their health, and which providers
//! there are. `/health` is our own.
//!
//! Health tells nothing about anybody, so it needs no token. It is cheap enough to be asked before
//! every call, as one of the contracts does.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::Serialize;

use super::problem::Problem;
use super::video_view::PROVIDER;
use crate::access::Caller;
use crate::health::Part;
use crate::{ControlPlane, store, view};

/// Providers that systems of the older contracts may ask about; none of them is ours.
const OTHERS: [&str; 6] = ["openvidu", "jitsi", "stream", "chime", "twilio", "agora"];

/// Can calls be made?
#[derive(Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct VideoHealth {
    /// `healthy`, `degraded` (the broker is away), `unhealthy`, or `disabled` where video is
    /// switched off.
    status: &'static str,
    is_healthy: bool,
    /// `up` or `down`.
    database: &'static str,
    /// `up` or `down`: the nodes that carry picture and sound.
    media: &'static str,
    /// `up`, `down` or `not_configured`.
    broker: &'static str,
    /// `own`: our nodes carry the media.
    provider: &'static str,
    version: &'static str,
    timestamp: String,
}

/// Health in the words of Spring's actuator.
#[derive(Serialize, utoipa::ToSchema)]
pub(crate) struct ActuatorHealth {
    /// `UP` or `DOWN`.
    status: &'static str,
}

/// Which providers there are.
#[derive(Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ProvidersView {
    /// Is video switched on?
    enabled: bool,
    is_healthy: bool,
    /// `own`.
    current_provider: &'static str,
    /// None: nothing but our own nodes is configured.
    fallback_provider: Option<String>,
    providers: Vec<ProviderView>,
    checked_at: String,
}

/// One provider.
#[derive(Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ProviderView {
    name: &'static str,
    /// `healthy`, `unhealthy`, `not_configured`.
    status: &'static str,
    primary: bool,
    /// Open rooms.
    #[serde(skip_serializing_if = "Option::is_none")]
    rooms: Option<usize>,
    /// People in them.
    #[serde(skip_serializing_if = "Option::is_none")]
    participants: Option<usize>,
}

/// Can calls be made now? 503 if not, or if video is switched off.
#[utoipa::path(get, path = "/api/video/health", tag = "health",
    responses((status = 200, body = VideoHealth), (status = 503, body = VideoHealth)))]
pub(crate) async fn video_health(State(state): State<ControlPlane>) -> Response {
    let health = state.health().await;
    let enabled = state.control.config.video_enabled;
    let is_healthy = enabled && health.is_ready();
    let status = if is_healthy { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let answer = VideoHealth {
        status: if enabled { health.word() } else { "disabled" },
        is_healthy,
        database: health.database.word(),
        media: health.media.word(),
        broker: health.broker.word(),
        provider: PROVIDER,
        version: env!("CARGO_PKG_VERSION"),
        timestamp: view::time(store::now()),
    };
    (status, Json(answer)).into_response()
}

/// The health of the server for monitors that expect a Spring service.
#[utoipa::path(get, path = "/actuator/health", tag = "health",
    responses((status = 200, body = ActuatorHealth), (status = 503, body = ActuatorHealth)))]
pub(crate) async fn actuator(State(state): State<ControlPlane>) -> Response {
    let (status, word) = if state.health().await.is_ready() {
        (StatusCode::OK, "UP")
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, "DOWN")
    };
    (status, Json(ActuatorHealth { status: word })).into_response()
}

/// Which providers carry calls, and how they are. Only our own nodes do.
#[utoipa::path(get, path = "/api/video/providers/status", tag = "health",
    responses((status = 200, body = ProvidersView)))]
pub(crate) async fn providers(
    State(state): State<ControlPlane>,
    _caller: Caller,
) -> Result<Json<ProvidersView>, Problem> {
    let running = state.health().await.media == Part::Up;
    let (rooms, participants) = state.control.rooms.size();
    let own = ProviderView {
        name: PROVIDER,
        status: if running { "healthy" } else { "unhealthy" },
        primary: true,
        rooms: Some(rooms),
        participants: Some(participants),
    };
    let others = OTHERS.into_iter().map(|name| ProviderView {
        name,
        status: "not_configured",
        primary: false,
        rooms: None,
        participants: None,
    });
    let enabled = state.control.config.video_enabled;
    Ok(Json(ProvidersView {
        enabled,
        is_healthy: enabled && running,
        current_provider: PROVIDER,
        fallback_provider: None,
        providers: std::iter::once(own).chain(others).collect(),
        checked_at: view::time(store::now()),
    }))
}
