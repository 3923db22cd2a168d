//! Feedback: one for each consultation.

use chrono::{DateTime, Utc};
use sqlx::types::Json;
use uuid::Uuid;

use super::outbox::{Along, store_along};
use super::{Connected, Db, execute, fetch};
use crate::Private;

macro_rules! columns {
    () => {
        "SELECT id, session_id, clinic, patient_id, doctor_id, overall_rating, \
         audio_quality_rating, video_quality_rating, doctor_behaviour_rating, review_text, \
         feedback_tags, would_recommend, doctor_response, doctor_responded_at, is_public, \
         is_verified, created_at, updated_at FROM consultation_feedback "
    };
}

/// What a patient said. Ratings are from 1 to 5.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Impression {
    pub(crate) overall: i64,
    pub(crate) audio: Option<i64>,
    pub(crate) video: Option<i64>,
    pub(crate) doctor: Option<i64>,
    pub(crate) review: Option<Private<String>>,
    pub(crate) tags: Vec<String>,
    pub(crate) would_recommend: Option<bool>,
}

/// Stored feedback.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Feedback {
    pub(crate) id: Uuid,
    pub(crate) session_id: Uuid,
    pub(crate) clinic: String,
    pub(crate) patient_id: String,
    pub(crate) doctor_id: String,
    pub(crate) impression: Impression,
    pub(crate) response: Option<Private<String>>,
    pub(crate) responded_at: Option<DateTime<Utc>>,
    pub(crate) is_public: bool,
    pub(crate) is_verified: bool,
    pub(crate) created_at: DateTime<Utc>,
    pub(crate) updated_at: DateTime<Utc>,
}

/// What is public of a doctor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct FeedbackPage {
    pub(crate) items: Vec<Feedback>,
    /// Where the next page begins.
    pub(crate) next: Option<(DateTime<Utc>, Uuid)>,
    /// How many gave 1, 2, 3, 4, 5 stars.
    pub(crate) by_stars: [i64; 5],
    /// How many would recommend the doctor, and how many said whether they would.
    pub(crate) recommend: (i64, i64),
}

#[derive(sqlx::FromRow)]
struct FeedbackRow {
    id: Uuid,
    session_id: Uuid,
    clinic: String,
    patient_id: String,
    doctor_id: String,
    overall_rating: i64,
    audio_quality_rating: Option<i64>,
    video_quality_rating: Option<i64>,
    doctor_behaviour_rating: Option<i64>,
    review_text: Option<String>,
    feedback_tags: Json<Vec<String>>,
    would_recommend: Option<bool>,
    doctor_response: Option<String>,
    doctor_responded_at: Option<DateTime<Utc>>,
    is_public: bool,
    is_verified: bool,
    created_at: DateTime<Utc>,
    updated_at: DateTime<Utc>,
}

#[derive(sqlx::FromRow)]
struct StarsRow {
    overall_rating: i64,
    given: i64,
    recommended: i64,
    said: i64,
}

impl From<FeedbackRow> for Feedback {
    fn from(row: FeedbackRow) -> Self {
        Self {
            id: row.id,
            session_id: row.session_id,
            clinic: row.clinic,
            patient_id: row.patient_id,
            doctor_id: row.doctor_id,
            impression: Impression {
                overall: row.overall_rating,
                audio: row.audio_quality_rating,
                video: row.video_quality_rating,
                doctor: row.doctor_behaviour_rating,
                review: row.review_text.map(Private::new),
                tags: row.feedback_tags.0,
                would_recommend: row.would_recommend,
            },
            response: row.doctor_response.map(Private::new),
            responded_at: row.doctor_responded_at,
            is_public: row.is_public,
            is_verified: row.is_verified,
            created_at: row.created_at,
            updated_at: row.updated_at,
        }
    }
}

impl Db {
    /// Stores feedback with what others are told of it. `false`: there is some already.
    pub(crate) async fn insert_feedback(
        &self,
        feedback: &Feedback,
        along: &Along<'_>,
    ) -> Result<bool, sqlx::Error> {
        const SQL: &str = "INSERT INTO consultation_feedback \
            (id, session_id, clinic, patient_id, doctor_id, overall_rating, \
             audio_quality_rating, video_quality_rating, doctor_behaviour_rating, review_text, \
             feedback_tags, would_recommend, is_public, is_verified, created_at, updated_at) \
            VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $15) \
            ON CONFLICT (session_id) DO NOTHING";
        let said = &feedback.impression;
        let mut tx = self.begin().await?;
        let inserted = execute!(
            &mut tx,
            SQL,
            feedback.id,
            feedback.session_id,
            &feedback.clinic,
            &feedback.patient_id,
            &feedback.doctor_id,
            said.overall,
            said.audio,
            said.video,
            said.doctor,
            said.review.as_ref().map(Private::reveal),
            Json(&said.tags),
            said.would_recommend,
            feedback.is_public,
            feedback.is_verified,
            feedback.created_at,
        )?;
        if inserted == 0 || !store_along(&mut tx, along, feedback.created_at).await? {
            return Ok(false);
        }
        tx.commit().await?;
        Ok(true)
    }

    /// What the patient said of a consultation.
    pub(crate) async fn feedback(
        &self,
        clinic: &str,
        session_id: Uuid,
    ) -> Result<Option<Feedback>, sqlx::Error> {
        feedback_on(&mut self.read().await?, clinic, session_id).await
    }

    /// The doctor's answer. None: there is nothing to answer.
    pub(crate) async fn answer_feedback(
        &self,
        clinic: &str,
        session_id: Uuid,
        response: &Private<String>,
        now: DateTime<Utc>,
    ) -> Result<Option<Feedback>, sqlx::Error> {
        const SQL: &str = "UPDATE consultation_feedback SET doctor_response = $3, \
            doctor_responded_at = $4, updated_at = $4 WHERE clinic = $1 AND session_id = $2";
        let mut tx = self.begin().await?;
        execute!(&mut tx, SQL, clinic, session_id, response.reveal(), now)?;
        let feedback = feedback_on(&mut tx, clinic, session_id).await?;
        tx.commit().await?;
        Ok(feedback)
    }

    /// Who may see it; what is not named stays as it is. None: there is no feedback.
    pub(crate) async fn show_feedback(
        &self,
        clinic: &str,
        session_id: Uuid,
        is_public: Option<bool>,
        is_verified: Option<bool>,
        now: DateTime<Utc>,
    ) -> Result<Option<Feedback>, sqlx::Error> {
        const SQL: &str = "UPDATE consultation_feedback SET is_public = COALESCE($3, is_public), \
            is_verified = COALESCE($4, is_verified), updated_at = $5 \
            WHERE clinic = $1 AND session_id = $2";
        let mut tx = self.begin().await?;
        execute!(&mut tx, SQL, clinic, session_id, is_public, is_verified, now)?;
        let feedback = feedback_on(&mut tx, clinic, session_id).await?;
        tx.commit().await?;
        Ok(feedback)
    }

    /// A page of what is public of a doctor, newest first, and what all of it comes to.
    pub(crate) async fn doctor_feedback(
        &self,
        clinic: &str,
        doctor_id: &str,
        after: Option<(DateTime<Utc>, Uuid)>,
        limit: i64,
    ) -> Result<FeedbackPage, sqlx::Error> {
        const PAGE: &str = concat!(
            columns!(),
            "WHERE clinic = $1 AND doctor_id = $2 AND is_public = TRUE \
             AND ($3 IS NULL OR created_at < $3 OR (created_at = $3 AND id < $4)) \
             ORDER BY created_at DESC, id DESC LIMIT $5"
        );
        const STARS: &str = "SELECT overall_rating, CAST(COUNT(*) AS BIGINT) AS given, \
            CAST(SUM(CASE WHEN would_recommend = TRUE THEN 1 ELSE 0 END) AS BIGINT) AS recommended, \
            CAST(COUNT(would_recommend) AS BIGINT) AS said FROM consultation_feedback \
            WHERE clinic = $1 AND doctor_id = $2 AND is_public = TRUE GROUP BY overall_rating";
        let mut reader = self.read().await?;
        let rows = fetch!(
            &mut reader,
            fetch_all,
            FeedbackRow,
            PAGE,
            clinic,
            doctor_id,
            after.map(|(at, _)| at),
            after.map(|(_, id)| id),
            limit + 1,
        )?;
        let mut items: Vec<Feedback> = rows.into_iter().map(Feedback::from).collect();
        let limit = usize::try_from(limit).unwrap_or(0);
        let more = items.len() > limit;
        items.truncate(limit);
        let next = items.last().filter(|_| more).map(|last| (last.created_at, last.id));
        let mut by_stars = [0; 5];
        let mut recommend = (0, 0);
        for row in fetch!(&mut reader, fetch_all, StarsRow, STARS, clinic, doctor_id)? {
            let place = usize::try_from(row.overall_rating - 1).unwrap_or(usize::MAX);
            if let Some(given) = by_stars.get_mut(place) {
                *given = row.given;
            }
            recommend = (recommend.0 + row.recommended, recommend.1 + row.said);
        }
        Ok(FeedbackPage { items, next, by_stars, recommend })
    }
}

async fn feedback_on(
    on: &mut impl Connected,
    clinic: &str,
    session_id: Uuid,
) -> Result<Option<Feedback>, sqlx::Error> {
    const SQL: &str = concat!(columns!(), "WHERE clinic = $1 AND session_id = $2");
    let row = fetch!(on, fetch_optional, FeedbackRow, SQL, clinic, session_id)?;
    Ok(row.map(Feedback::from))
}
