//! `/health`: the parts of the server, for people and for programs that look now and then; and the
//! switch that turns consultations off.

use axum::Json;
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use serde::Serialize;

use super::problem::Problem;
use crate::ControlPlane;
use crate::health::Health;

/// How the server is.
#[derive(Serialize, utoipa::ToSchema)]
pub(crate) struct HealthAnswer {
    /// `healthy`, `degraded` (people are served, the broker is away) or `unhealthy`.
    #[schema(example = "healthy")]
    status: &'static str,
    /// The version of the program.
    version: &'static str,
    /// The server is about to stop.
    draining: bool,
    parts: PartsAnswer,
}

/// Each part: `up`, `down` or `not_configured`.
#[derive(Serialize, utoipa::ToSchema)]
pub(crate) struct PartsAnswer {
    database: &'static str,
    broker: &'static str,
    media: &'static str,
}

impl From<Health> for HealthAnswer {
    fn from(health: Health) -> Self {
        Self {
            status: health.word(),
            version: env!("CARGO_PKG_VERSION"),
            draining: health.draining,
            parts: PartsAnswer {
                database: health.database.word(),
                broker: health.broker.word(),
                media: health.media.word(),
            },
        }
    }
}

/// How the server is; 503 when people cannot be served.
#[utoipa::path(get, path = "/health", tag = "health",
    responses((status = 200, body = HealthAnswer), (status = 503, body = HealthAnswer)))]
pub(crate) async fn show(State(state): State<ControlPlane>) -> Response {
    let health = state.health().await;
    let status = if health.is_ready() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, Json(HealthAnswer::from(health))).into_response()
}

/// What is answered while consultations are turned off.
const ALWAYS: [&str; 9] = [
    "/health",
    "/actuator/health",
    "/api/openapi.json",
    "/openapi.json",
    "/swagger-ui.html",
    "/api/asyncapi.json",
    "/api/video/health",
    "/api/video/providers/status",
    "/docs",
];

/// Refuses everything about consultations where they are turned off (CON-15).
pub(super) async fn switched_on(
    State(state): State<ControlPlane>,
    request: Request,
    next: Next,
) -> Response {
    let path = request.uri().path();
    if state.control.config.video_enabled || ALWAYS.iter().any(|always| path.starts_with(always)) {
        return next.run(request).await;
    }
    let detail = "video consultations are turned off";
    Problem::new(StatusCode::SERVICE_UNAVAILABLE, "video_disabled", detail).into_response()
}
