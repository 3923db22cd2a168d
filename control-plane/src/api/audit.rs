//! `/api/v1/audit`: the clinic's audit log.

use axum::body::Body;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderName, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use uuid::Uuid;

use super::problem::Problem;
use crate::access::Caller;
use crate::audit::{self, Line, export};
use crate::permissions::Permission;
use crate::store::AuditPage;
use crate::{ControlPlane, text};

const DEFAULT_LIMIT: i64 = 1_000;
const MAX_LIMIT: i64 = 10_000;

static NEXT_AFTER: HeaderName = HeaderName::from_static("x-next-after");

/// Which rows.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct AuditQuery {
    after: Option<i64>,
    limit: Option<i64>,
    session_id: Option<Uuid>,
    actor_id: Option<String>,
}

/// The audit log, sealed rows in the order of the chain, one JSON object a line
/// (`application/x-ndjson`). With a filter by consultation or actor rows are left out, and the
/// chain cannot be checked over them.
#[utoipa::path(get, path = "/api/v1/audit",
    params(
        ("after" = Option<i64>, Query, minimum = 0, description = "Only rows behind this place."),
        ("limit" = Option<i64>, Query, minimum = 1, maximum = 10_000),
        ("sessionId" = Option<Uuid>, Query),
        ("actorId" = Option<String>, Query)),
    responses((status = 200, body = String, content_type = "application/x-ndjson",
        headers(("x-next-after" = i64, description = "`after` of the next page, if there may be one"))),
        (status = 401), (status = 403), (status = 422)))]
pub(crate) async fn read(
    State(state): State<ControlPlane>,
    caller: Caller,
    query: Result<Query<AuditQuery>, QueryRejection>,
) -> Result<Response, Problem> {
    caller.may(Permission::ReadAudit)?;
    let Query(query) = query.map_err(|_| Problem::invalid("the query does not fit"))?;
    let limit = query.limit.unwrap_or(DEFAULT_LIMIT);
    let after = query.after.unwrap_or(0);
    if !(1..=MAX_LIMIT).contains(&limit) || after < 0 {
        return Err(Problem::invalid("limit must be from 1 to 10000, after not below 0"));
    }
    if !query.actor_id.as_deref().is_none_or(text::is_id) {
        return Err(Problem::invalid("actorId is empty, too long or not text"));
    }
    if let Some(session_id) = query.session_id {
        audit::about(session_id);
    }
    let page = AuditPage { after, session_id: query.session_id, actor_id: query.actor_id, limit };
    let control = &state.control;
    let (lines, last) = control.within(export::page(&control.db, &caller.0.clinic, &page)).await?;
    let mut body = Vec::with_capacity(lines.len() * 512);
    let mut rows = 0;
    for line in &lines {
        rows += i64::from(matches!(line, Line::Row(_)));
        serde_json::to_writer(&mut body, line).expect("rows of texts and numbers are JSON");
        body.push(b'\n');
    }
    let kind = HeaderValue::from_static("application/x-ndjson");
    let mut response = (StatusCode::OK, [(CONTENT_TYPE, kind)], Body::from(body)).into_response();
    if let Some(last) = last.filter(|_| rows == limit) {
        response.headers_mut().insert(NEXT_AFTER.clone(), HeaderValue::from(last));
    }
    Ok(response)
}
