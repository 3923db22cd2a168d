//! Reports of technical issues: `/api/v1/consultations/sessions/{id}/report` and the older
//! contract's `/api/video/consultation/{id}/report`.
//!
//! A report is taken in (202), stored with the event that tells of it, and read by whoever leads
//! the consultation. What people write in it is theirs: it goes to no log.

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use uuid::Uuid;

use super::Body;
use super::older::{acting, of_either};
use super::problem::Problem;
use super::sessions::{ListAnswer, own};
use super::video_bodies::IssueReportRequest;
use super::video_words::{DETAILS, ISSUE, USER, Words};
use crate::access::Caller;
use crate::consultation::Consultation;
use crate::events::{Event, News, Told};
use crate::permissions::Permission;
use crate::store::outbox::Along;
use crate::store::{self, ReportRow};
use crate::{ControlPlane, text, view};

/// The most reports that one answer lists.
const MAX_REPORTS: i64 = 200;

/// A report that was taken in.
#[derive(Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ReportAnswer {
    report_id: Uuid,
    session_id: Uuid,
    appointment_id: Option<String>,
    user_id: String,
    /// `audio`, `video`, `connection`, `other`.
    issue_type: String,
    /// `RECEIVED`.
    status: &'static str,
    reported_at: String,
}

/// A report as whoever leads the consultation reads it.
#[derive(Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ReportView {
    report_id: Uuid,
    user_id: String,
    /// `audio`, `video`, `connection`, `other`.
    issue_type: String,
    description: String,
    reported_at: String,
}

/// Takes in what somebody noticed about picture, sound or line.
#[utoipa::path(post, path = "/api/v1/consultations/sessions/{id}/report",
    request_body = IssueReportRequest, responses((status = 202, body = ReportAnswer)))]
pub(crate) async fn report(
    State(state): State<ControlPlane>,
    caller: Caller,
    Path(id): Path<String>,
    Body(words): Body<Words>,
) -> Result<Response, Problem> {
    let consultation = own(&state, &caller, &id).await?;
    take(&state, &caller, &consultation, &words).await
}

/// Takes in a technical issue. The id is the session's or the appointment's.
#[utoipa::path(post, path = "/api/video/consultation/{id}/report", tag = "video",
    request_body = IssueReportRequest, responses((status = 202, body = ReportAnswer)))]
pub(crate) async fn older_report(
    State(state): State<ControlPlane>,
    caller: Caller,
    Path(id): Path<String>,
    Body(words): Body<Words>,
) -> Result<Response, Problem> {
    let consultation = of_either(&state, &caller, &id).await?;
    take(&state, &caller, &consultation, &words).await
}

/// What was reported, the newest first.
#[utoipa::path(get, path = "/api/v1/consultations/sessions/{id}/reports",
    responses((status = 200, body = ListAnswer<ReportView>)))]
pub(crate) async fn list(
    State(state): State<ControlPlane>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<Json<ListAnswer<ReportView>>, Problem> {
    let consultation = own(&state, &caller, &id).await?;
    if !caller.leads(&consultation) {
        return Err(Problem::forbidden("only the doctor of the consultation may do this"));
    }
    caller.may(Permission::ReadIssues)?;
    let control = &state.control;
    let rows = control.db.reports(&caller.0.clinic, consultation.id, MAX_REPORTS);
    let items = control.within(rows).await?.into_iter().map(|row| ReportView {
        report_id: row.id,
        user_id: row.user_id,
        issue_type: row.issue_type,
        description: row.description,
        reported_at: view::time(row.created_at),
    });
    Ok(Json(ListAnswer { items: items.collect(), next_cursor: None }))
}

pub(super) async fn take(
    state: &ControlPlane,
    caller: &Caller,
    consultation: &Consultation,
    words: &Words,
) -> Result<Response, Problem> {
    caller.may(Permission::ReportIssues)?;
    // A service may report on its own behalf, too.
    let user_id = if caller.is_staff() && words.any(USER)?.is_none() && words.role()?.is_none() {
        caller.0.user_id.clone()
    } else {
        acting(caller, consultation, words, USER)?.user_id
    };
    let issue_type = words
        .text(ISSUE)?
        .map(|word| word.trim().to_ascii_lowercase())
        .filter(|word| matches!(word.as_str(), "audio" | "video" | "connection" | "other"))
        .ok_or_else(|| Problem::invalid("issueType must be audio, video, connection or other"))?;
    let description = words.text(DETAILS)?.unwrap_or_default();
    if !description.is_empty() && !text::is_message(&description) {
        return Err(Problem::invalid("description is too long or not text"));
    }
    let now = store::now();
    let report =
        ReportRow { id: Uuid::now_v7(), user_id, issue_type, description, created_at: now };
    let news = News::IssueReported {
        user_id: report.user_id.clone(),
        issue: report.issue_type.clone(),
        description: Told(report.description.clone()),
    };
    let events = [Event::of(consultation, now, news)];
    let control = &state.control;
    let along = Along { events: &events, sinks: &control.sinks, message: None };
    let clinic = &caller.0.clinic;
    control.within(control.db.insert_report(clinic, consultation.id, &report, &along)).await?;
    control.outbox_rang.notify_waiters();
    tracing::info!(session = %consultation.id, issue = report.issue_type, "issue reported");
    let answer = ReportAnswer {
        report_id: report.id,
        session_id: consultation.id,
        appointment_id: consultation.appointment_id.clone(),
        user_id: report.user_id,
        issue_type: report.issue_type,
        status: "RECEIVED",
        reported_at: view::time(now),
    };
    Ok((StatusCode::ACCEPTED, Json(answer)).into_response())
}
