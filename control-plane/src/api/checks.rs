//! Connection checks: begun and reported by strangers, looked up by the clinic's staff.

use std::time::Duration;

use axum::Json;
use axum::extract::{Extension, Path, State};
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};

use super::Body;
use super::problem::Problem;
use crate::access::Caller;
use crate::address::ClientAddress;
use crate::checks::CheckError;
use crate::checks::report::CheckReport;
use crate::permissions::Permission;
use crate::{ControlPlane, view};

/// When somebody who found no place may ask again.
const FULL_PAUSE: Duration = Duration::from_secs(20);

/// A check that has begun.
#[derive(Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct CheckBegun {
    /// Where to connect.
    url: String,
    /// Room token of the side that sends.
    probe_token: String,
    /// Room token of the side that receives.
    echo_token: String,
    /// When the room closes.
    expires_at: String,
    /// Goes with the report.
    ticket: String,
    /// Does media come from addresses of a local network only? The browser may ask for leave then.
    local_network: bool,
}

/// What a check found.
#[derive(Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct CheckReportRequest {
    /// From the check's beginning.
    #[schema(max_length = 200)]
    ticket: String,
    /// Whose page it was; only this clinic can look it up. Without one, whoever was told the code.
    #[serde(default)]
    #[schema(max_length = 255)]
    clinic: Option<String>,
    report: CheckReport,
}

/// Where it can be looked up.
#[derive(Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct StoredCheck {
    /// Eight letters and digits that nobody confuses.
    code: String,
    expires_at: String,
}

/// What a check found.
#[derive(Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct CheckView {
    code: String,
    created_at: String,
    expires_at: String,
    report: CheckReport,
}

impl From<CheckError> for Problem {
    fn from(error: CheckError) -> Self {
        match error {
            CheckError::Off => Self::not_found("connection checks are turned off"),
            CheckError::Full => Self::new(
                StatusCode::SERVICE_UNAVAILABLE,
                "checks_full",
                "too many connection checks are running; try again in a moment",
            )
            .retry_after(FULL_PAUSE),
            CheckError::Ticket => Self::new(
                StatusCode::GONE,
                "ticket_invalid",
                "the ticket is not valid; begin a new check",
            ),
            CheckError::Invalid(detail) => Self::invalid(detail),
            CheckError::Database => Self::unavailable(),
        }
    }
}

/// Begins a check: two tokens for a room that is open for three minutes. Needs no account.
#[utoipa::path(post, path = "/api/v1/checks",
    responses((status = 201, body = CheckBegun),
        (status = 404, description = "Checks are turned off")))]
pub(crate) async fn begin(
    State(state): State<ControlPlane>,
    address: Option<Extension<ClientAddress>>,
) -> Result<(StatusCode, Json<CheckBegun>), Problem> {
    if let Some(Extension(address)) = address {
        let counted = state.control.limiters.check(address);
        if counted.is_err() {
            state.control.counters.rate_limited.add();
        }
        counted?;
    }
    let begun = state.control.begin_check()?;
    let answer = CheckBegun {
        url: begun.url,
        probe_token: begun.probe.0,
        echo_token: begun.echo.0,
        expires_at: view::time(begun.ends_at),
        ticket: begun.ticket.0,
        local_network: state.control.config.checks.local_network,
    };
    Ok((StatusCode::CREATED, Json(answer)))
}

/// Stores what a check found. The same ticket sent again gets the same code; nothing changes.
#[utoipa::path(post, path = "/api/v1/checks/results", request_body = CheckReportRequest,
    responses((status = 201, body = StoredCheck),
        (status = 410, description = "The ticket is not valid (any more)")))]
pub(crate) async fn report(
    State(state): State<ControlPlane>,
    Body(request): Body<CheckReportRequest>,
) -> Result<(StatusCode, Json<StoredCheck>), Problem> {
    let clinic = request.clinic.unwrap_or_default();
    let stored = state.control.store_check(&request.ticket, &clinic, request.report).await;
    let (code, expires_at) = stored?;
    Ok((StatusCode::CREATED, Json(StoredCheck { code, expires_at: view::time(expires_at) })))
}

/// What somebody's check found. For doctors and the clinic's staff.
#[utoipa::path(get, path = "/api/v1/checks/{code}",
    params(("code" = String, Path)),
    responses((status = 200, body = CheckView)))]
pub(crate) async fn read(
    State(state): State<ControlPlane>,
    caller: Caller,
    Path(code): Path<String>,
) -> Result<Json<CheckView>, Problem> {
    caller.may(Permission::ReadIssues)?;
    let found = state.control.check(&caller.0.clinic, &code).await?;
    let check = found.ok_or_else(|| Problem::not_found("there is no check with this code"))?;
    Ok(Json(CheckView {
        code: check.code,
        created_at: view::time(check.created_at),
        expires_at: view::time(check.expires_at),
        report: check.report,
    }))
}
