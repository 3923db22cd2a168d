//! Feedback: the patient's word, the doctor's answer, and what the clinic shows of it.

use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::problem::Problem;
use super::sessions::{limit, own, read_cursor, write_cursor};
use super::{Body, id_in_path};
use crate::access::Caller;
use crate::feedback::{self, FeedbackError, NewFeedback};
use crate::permissions::Permission;
use crate::store::Feedback;
use crate::token::ApiRole;
use crate::{ControlPlane, Private, text, view};

/// How a consultation was. Every name may also be written in snake case.
#[derive(Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct FeedbackRequest {
    /// 1 to 5 stars.
    #[serde(alias = "overall_rating", alias = "rating")]
    #[schema(minimum = 1, maximum = 5)]
    overall_rating: i64,
    /// 1 to 5.
    #[serde(alias = "audio_quality", alias = "audioQualityRating", alias = "audio_quality_rating")]
    #[schema(minimum = 1, maximum = 5)]
    audio_quality: Option<i64>,
    /// 1 to 5; not kept for a consultation without picture.
    #[serde(alias = "video_quality", alias = "videoQualityRating", alias = "video_quality_rating")]
    #[schema(minimum = 1, maximum = 5)]
    video_quality: Option<i64>,
    /// 1 to 5.
    #[serde(
        alias = "doctor_behaviour",
        alias = "doctorBehaviourRating",
        alias = "doctor_behaviour_rating",
        alias = "doctorBehavior",
        alias = "doctor_behavior"
    )]
    #[schema(minimum = 1, maximum = 5)]
    doctor_behaviour: Option<i64>,
    /// In the patient's own words, up to 5000 characters.
    #[serde(alias = "review_text")]
    #[schema(max_length = 5000)]
    review_text: Option<String>,
    /// Up to 20; case, spaces and dashes make no difference.
    #[serde(default, alias = "feedback_tags", alias = "tags")]
    #[schema(max_items = 20)]
    feedback_tags: Option<Vec<String>>,
    /// Would the patient recommend the doctor?
    #[serde(alias = "would_recommend")]
    would_recommend: Option<bool>,
}

/// The doctor's answer.
#[derive(Deserialize, utoipa::ToSchema)]
pub(crate) struct AnswerRequest {
    /// Up to 5000 characters.
    #[serde(alias = "doctorResponse", alias = "doctor_response")]
    #[schema(min_length = 1, max_length = 5000)]
    response: String,
}

/// What others see.
#[derive(Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct VisibilityRequest {
    /// Do others of the clinic see it?
    #[serde(alias = "is_public")]
    is_public: Option<bool>,
    /// Does the clinic vouch for it?
    #[serde(alias = "is_verified")]
    is_verified: Option<bool>,
}

/// Which page.
#[derive(Deserialize)]
pub(crate) struct PageQuery {
    limit: Option<i64>,
    cursor: Option<String>,
}

/// What the patient said of a consultation.
#[derive(Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct FeedbackView {
    feedback_id: Uuid,
    session_id: Uuid,
    doctor_id: String,
    patient_id: String,
    overall_rating: i64,
    audio_quality: Option<i64>,
    video_quality: Option<i64>,
    doctor_behaviour: Option<i64>,
    review_text: Option<String>,
    /// In one spelling: `on-time`, `clear-explanations`.
    feedback_tags: Vec<String>,
    would_recommend: Option<bool>,
    doctor_response: Option<String>,
    doctor_responded_at: Option<String>,
    is_public: bool,
    is_verified: bool,
    created_at: String,
}

/// What others of the clinic see: nothing that says whose it is.
#[derive(Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct PublicFeedbackView {
    feedback_id: Uuid,
    overall_rating: i64,
    review_text: Option<String>,
    feedback_tags: Vec<String>,
    would_recommend: Option<bool>,
    doctor_response: Option<String>,
    doctor_responded_at: Option<String>,
    is_verified: bool,
    created_at: String,
}

/// What is public of a doctor, newest first, and what all of it comes to.
#[derive(Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct DoctorFeedbackView {
    doctor_id: String,
    /// From 1.00 to 5.00; none if there is nothing.
    average_rating: Option<f64>,
    /// How many.
    total: i64,
    /// How many gave 1, 2, 3, 4, 5 stars.
    by_stars: [i64; 5],
    /// How many of those who said so would recommend the doctor, in percent.
    recommend_percent: Option<i64>,
    items: Vec<PublicFeedbackView>,
    next_cursor: Option<String>,
}

/// Says how a consultation was. For its patient, after it took place, once.
#[utoipa::path(post, path = "/api/v1/consultations/sessions/{id}/feedback",
    params(("id" = String, Path)), request_body = FeedbackRequest,
    responses((status = 201, body = FeedbackView), (status = 400), (status = 401), (status = 403),
        (status = 404), (status = 409, description = "It has been given, or it is too early"),
        (status = 422)))]
pub(crate) async fn give(
    State(state): State<ControlPlane>,
    caller: Caller,
    Path(id): Path<String>,
    Body(request): Body<FeedbackRequest>,
) -> Result<(StatusCode, Json<FeedbackView>), Problem> {
    let consultation = own(&state, &caller, &id).await?;
    if caller.0.role != ApiRole::Patient {
        return Err(Problem::forbidden("only the patient gives feedback"));
    }
    let new = NewFeedback {
        overall: request.overall_rating,
        audio: request.audio_quality,
        video: request.video_quality,
        doctor: request.doctor_behaviour,
        review: feedback::words(request.review_text)?,
        tags: request.feedback_tags.unwrap_or_default(),
        would_recommend: request.would_recommend,
    };
    let given = state.control.give_feedback(&consultation, new).await?;
    Ok((StatusCode::CREATED, Json(shown(given))))
}

/// What the patient said. For the patient, the doctor and the staff.
#[utoipa::path(get, path = "/api/v1/consultations/sessions/{id}/feedback",
    params(("id" = String, Path)),
    responses((status = 200, body = FeedbackView), (status = 401), (status = 403),
        (status = 404, description = "There is no feedback")))]
pub(crate) async fn read(
    State(state): State<ControlPlane>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<Json<FeedbackView>, Problem> {
    let consultation = own(&state, &caller, &id).await?;
    caller.may(Permission::ReadFeedback)?;
    let given = state.control.feedback(&consultation).await?.ok_or(FeedbackError::Missing)?;
    Ok(Json(shown(given)))
}

/// The doctor answers; a later answer takes the place of an earlier one.
#[utoipa::path(post, path = "/api/v1/consultations/sessions/{id}/feedback/response",
    params(("id" = String, Path)), request_body = AnswerRequest,
    responses((status = 200, body = FeedbackView), (status = 400), (status = 401), (status = 403),
        (status = 404), (status = 422)))]
pub(crate) async fn answer(
    State(state): State<ControlPlane>,
    caller: Caller,
    Path(id): Path<String>,
    Body(request): Body<AnswerRequest>,
) -> Result<Json<FeedbackView>, Problem> {
    let consultation = own(&state, &caller, &id).await?;
    if caller.0.role != ApiRole::Doctor {
        return Err(Problem::forbidden("only the doctor of the consultation answers"));
    }
    let response: Private<String> = feedback::words(Some(request.response))?
        .ok_or_else(|| Problem::invalid("response is empty"))?;
    Ok(Json(shown(state.control.answer_feedback(&consultation, &response).await?)))
}

/// Shows or hides feedback. For services and administrators.
#[utoipa::path(patch, path = "/api/v1/consultations/sessions/{id}/feedback",
    params(("id" = String, Path)), request_body = VisibilityRequest,
    responses((status = 200, body = FeedbackView), (status = 400), (status = 401), (status = 403),
        (status = 404), (status = 422)))]
pub(crate) async fn show(
    State(state): State<ControlPlane>,
    caller: Caller,
    Path(id): Path<String>,
    Body(request): Body<VisibilityRequest>,
) -> Result<Json<FeedbackView>, Problem> {
    let consultation = state.control.look(&caller.0.clinic, id_in_path(&id)?).await?;
    if !caller.is_staff() {
        return Err(Problem::forbidden("only the clinic's staff shows and hides feedback"));
    }
    caller.may(Permission::ReadFeedback)?;
    let (public, verified) = (request.is_public, request.is_verified);
    Ok(Json(shown(state.control.show_feedback(&consultation, public, verified).await?)))
}

/// What is public of a doctor, newest first. For everybody of the clinic.
#[utoipa::path(get, path = "/api/v1/consultations/doctors/{doctorId}/feedback",
    params(("doctorId" = String, Path), ("limit" = Option<i64>, Query),
        ("cursor" = Option<String>, Query)),
    responses((status = 200, body = DoctorFeedbackView), (status = 401), (status = 422)))]
pub(crate) async fn of_doctor(
    State(state): State<ControlPlane>,
    caller: Caller,
    Path(doctor_id): Path<String>,
    query: Result<Query<PageQuery>, QueryRejection>,
) -> Result<Json<DoctorFeedbackView>, Problem> {
    caller.may(Permission::ReadConsultations)?;
    let Query(query) = query.map_err(|_| Problem::invalid("the query does not fit"))?;
    let cursor = query.cursor.as_deref();
    let after = cursor
        .map(|text| read_cursor(text).ok_or_else(|| Problem::invalid("cursor is not one of ours")));
    let (after, limit) = (after.transpose()?, limit(query.limit)?);
    if !text::is_id(&doctor_id) {
        return Err(Problem::invalid("doctorId is empty, too long or not text"));
    }
    let page = state.control.doctor_feedback(&caller.0.clinic, &doctor_id, after, limit).await?;
    let total: i64 = page.by_stars.iter().sum();
    let stars: i64 = page.by_stars.iter().zip(1..).map(|(given, stars)| given * stars).sum();
    let (recommended, said) = page.recommend;
    Ok(Json(DoctorFeedbackView {
        doctor_id,
        average_rating: average(stars, total),
        total,
        by_stars: page.by_stars,
        recommend_percent: (said > 0).then(|| recommended * 100 / said),
        items: page.items.into_iter().map(shown_to_others).collect(),
        next_cursor: page.next.map(|(at, id)| write_cursor(at, id)),
    }))
}

/// With two digits.
fn average(stars: i64, total: i64) -> Option<f64> {
    use rust_decimal::Decimal;
    use rust_decimal::prelude::ToPrimitive as _;
    let average = Decimal::from(stars).checked_div(Decimal::from(total))?;
    average.round_dp(2).to_f64()
}

fn shown(feedback: Feedback) -> FeedbackView {
    let said = feedback.impression;
    FeedbackView {
        feedback_id: feedback.id,
        session_id: feedback.session_id,
        doctor_id: feedback.doctor_id,
        patient_id: feedback.patient_id,
        overall_rating: said.overall,
        audio_quality: said.audio,
        video_quality: said.video,
        doctor_behaviour: said.doctor,
        review_text: said.review.map(|review| review.reveal().clone()),
        feedback_tags: said.tags,
        would_recommend: said.would_recommend,
        doctor_response: feedback.response.map(|response| response.reveal().clone()),
        doctor_responded_at: feedback.responded_at.map(view::time),
        is_public: feedback.is_public,
        is_verified: feedback.is_verified,
        created_at: view::time(feedback.created_at),
    }
}

fn shown_to_others(feedback: Feedback) -> PublicFeedbackView {
    let said = feedback.impression;
    PublicFeedbackView {
        feedback_id: feedback.id,
        overall_rating: said.overall,
        review_text: said.review.map(|review| review.reveal().clone()),
        feedback_tags: said.tags,
        would_recommend: said.would_recommend,
        doctor_response: feedback.response.map(|response| response.reveal().clone()),
        doctor_responded_at: feedback.responded_at.map(view::time),
        is_verified: feedback.is_verified,
        created_at: view::time(feedback.created_at),
    }
}

impl From<FeedbackError> for Problem {
    fn from(error: FeedbackError) -> Self {
        match error {
            FeedbackError::Invalid(detail) => Self::invalid(detail),
            FeedbackError::Given => Self::new(
                StatusCode::CONFLICT,
                "feedback_given",
                "feedback of this consultation has been given",
            ),
            FeedbackError::Missing => Self::not_found("there is no feedback of this consultation"),
            FeedbackError::Change(error) => error.into(),
        }
    }
}
