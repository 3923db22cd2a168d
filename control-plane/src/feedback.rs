//! What patients say of their consultations, and what doctors answer.
//!
//! Only the patient speaks, once, after a consultation that took place. Others of the clinic see
//! what is public, without the patient's name.

use uuid::Uuid;

use crate::Private;
use crate::consultation::{Consultation, Mode, Refusal, Status};
use crate::control::{ChangeError, Control};
use crate::events::{Event, News};
use crate::store::outbox::Along;
use crate::store::{self, Feedback, FeedbackPage, Impression};

/// The longest review and the longest answer, in characters.
pub(crate) const MAX_TEXT_CHARS: usize = 5_000;
/// The most tags.
const MAX_TAGS: usize = 20;
/// The longest tag, in characters.
const MAX_TAG_CHARS: usize = 40;

/// The tags that our own form offers.
const OFFERED: [&str; 8] = [
    "professional",
    "friendly",
    "knowledgeable",
    "on-time",
    "patient",
    "clear-explanations",
    "good-listener",
    "thorough",
];

/// What a patient says.
#[derive(Clone, Debug, Default)]
pub(crate) struct NewFeedback {
    pub(crate) overall: i64,
    pub(crate) audio: Option<i64>,
    pub(crate) video: Option<i64>,
    pub(crate) doctor: Option<i64>,
    pub(crate) review: Option<Private<String>>,
    pub(crate) tags: Vec<String>,
    pub(crate) would_recommend: Option<bool>,
}

/// Why feedback was not taken.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FeedbackError {
    /// A field does not fit.
    #[error("{0}")]
    Invalid(&'static str),
    /// It has been given before.
    #[error("feedback has been given")]
    Given,
    /// Nobody has given any.
    #[error("there is no feedback")]
    Missing,
    /// The consultation is not one to speak of, or the database does not answer.
    #[error(transparent)]
    Change(#[from] ChangeError),
}

/// Tags in one spelling: lower-case words joined by dashes. Those that our form offers are known
/// however they are written (`On-time`, `on_time`, `ONTIME`); each counts once.
pub(crate) fn tags(given: &[String]) -> Result<Vec<String>, FeedbackError> {
    if given.len() > MAX_TAGS {
        return Err(FeedbackError::Invalid("feedbackTags are more than 20"));
    }
    let mut tags: Vec<String> = Vec::new();
    for text in given {
        let tag = tag(text)?;
        if !tags.iter().any(|known| bare(known) == bare(&tag)) {
            tags.push(tag);
        }
    }
    Ok(tags)
}

fn tag(text: &str) -> Result<String, FeedbackError> {
    let bare = bare(text);
    if bare.is_empty() || text.chars().count() > MAX_TAG_CHARS {
        return Err(FeedbackError::Invalid("a tag is empty or longer than 40 characters"));
    }
    if let Some(offered) = OFFERED.into_iter().find(|offered| self::bare(offered) == bare) {
        return Ok(offered.to_owned());
    }
    let lower = text.to_lowercase();
    let words = lower.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty());
    Ok(words.collect::<Vec<_>>().join("-"))
}

/// Only the letters and digits.
fn bare(text: &str) -> String {
    text.to_lowercase().chars().filter(|c| c.is_alphanumeric()).collect()
}

/// Text of a review or an answer; nothing to read = none.
pub(crate) fn words(text: Option<String>) -> Result<Option<Private<String>>, FeedbackError> {
    let Some(text) = text.filter(|text| !text.trim().is_empty()) else { return Ok(None) };
    let odd = |c: char| c.is_control() && !matches!(c, '\n' | '\r' | '\t');
    if text.chars().count() > MAX_TEXT_CHARS || text.chars().any(odd) {
        return Err(FeedbackError::Invalid("the text is longer than 5000 characters or no text"));
    }
    Ok(Some(Private::new(text)))
}

fn stars(rating: i64) -> Result<i64, FeedbackError> {
    if (1..=5).contains(&rating) {
        Ok(rating)
    } else {
        Err(FeedbackError::Invalid("ratings are whole numbers from 1 to 5"))
    }
}

/// Checks every field. A rating of the picture means nothing where there was none.
fn impression(mode: Mode, new: NewFeedback) -> Result<Impression, FeedbackError> {
    let video = new.video.map(stars).transpose()?;
    Ok(Impression {
        overall: stars(new.overall)?,
        audio: new.audio.map(stars).transpose()?,
        video: match mode {
            Mode::Video => video,
            Mode::Audio | Mode::Chat => None,
        },
        doctor: new.doctor.map(stars).transpose()?,
        review: new.review,
        tags: tags(&new.tags)?,
        would_recommend: new.would_recommend,
    })
}

/// There is something to say of what took place: it was completed, or broke off.
fn must_have_taken_place(consultation: &Consultation) -> Result<(), ChangeError> {
    match consultation.status {
        Status::Completed | Status::Failed if consultation.actual_start.is_some() => Ok(()),
        status @ (Status::Scheduled
        | Status::Waiting
        | Status::InProgress
        | Status::Paused
        | Status::Completed
        | Status::Cancelled
        | Status::NoShow
        | Status::Failed) => Err(Refusal::WrongStatus(status).into()),
    }
}

impl Control {
    /// The patient speaks; others are told of it without the text.
    pub(crate) async fn give_feedback(
        &self,
        consultation: &Consultation,
        new: NewFeedback,
    ) -> Result<Feedback, FeedbackError> {
        must_have_taken_place(consultation)?;
        let impression = impression(consultation.mode, new)?;
        let now = store::now();
        let news = News::FeedbackSubmitted {
            overall_rating: impression.overall,
            would_recommend: impression.would_recommend,
            tags: impression.tags.clone(),
        };
        let feedback = Feedback {
            id: Uuid::now_v7(),
            session_id: consultation.id,
            clinic: consultation.clinic.clone(),
            patient_id: consultation.patient_id.clone(),
            doctor_id: consultation.doctor_id.clone(),
            impression,
            response: None,
            responded_at: None,
            is_public: true,
            // Who speaks was there.
            is_verified: true,
            created_at: now,
            updated_at: now,
        };
        let events = [Event::of(consultation, now, news)];
        let along = Along { events: &events, sinks: &self.sinks, ..Along::default() };
        if !self.within(self.db.insert_feedback(&feedback, &along)).await? {
            return Err(FeedbackError::Given);
        }
        self.outbox_rang.notify_waiters();
        Ok(feedback)
    }

    /// What the patient said of a consultation.
    pub(crate) async fn feedback(
        &self,
        consultation: &Consultation,
    ) -> Result<Option<Feedback>, ChangeError> {
        self.within(self.db.feedback(&consultation.clinic, consultation.id)).await
    }

    /// The doctor answers; a later answer takes the place of an earlier one.
    pub(crate) async fn answer_feedback(
        &self,
        consultation: &Consultation,
        response: &Private<String>,
    ) -> Result<Feedback, FeedbackError> {
        let (clinic, id) = (&consultation.clinic, consultation.id);
        let stored = self.db.answer_feedback(clinic, id, response, store::now());
        self.within(stored).await?.ok_or(FeedbackError::Missing)
    }

    /// The clinic decides whether others see it, and whether it is vouched for.
    pub(crate) async fn show_feedback(
        &self,
        consultation: &Consultation,
        is_public: Option<bool>,
        is_verified: Option<bool>,
    ) -> Result<Feedback, FeedbackError> {
        let (clinic, id) = (&consultation.clinic, consultation.id);
        let stored = self.db.show_feedback(clinic, id, is_public, is_verified, store::now());
        self.within(stored).await?.ok_or(FeedbackError::Missing)
    }

    /// What is public of a doctor, newest first, and what it comes to.
    pub(crate) async fn doctor_feedback(
        &self,
        clinic: &str,
        doctor_id: &str,
        after: Option<(chrono::DateTime<chrono::Utc>, Uuid)>,
        limit: i64,
    ) -> Result<FeedbackPage, ChangeError> {
        self.within(self.db.doctor_feedback(clinic, doctor_id, after, limit)).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spelled(given: &[&str]) -> Vec<String> {
        let given: Vec<String> = given.iter().map(ToString::to_string).collect();
        tags(&given).expect("tags")
    }

    #[test]
    fn tags_have_one_spelling_whatever_case_and_dashes_they_came_in() {
        for given in ["On-time", "on-time", "ON TIME", "on_time", "OnTime", "‐on–time "] {
            assert_eq!(spelled(&[given]), ["on-time"], "{given}");
        }
        assert_eq!(
            spelled(&[
                "Clear explanations",
                "Good listener",
                "helpful",
                "Very  Helpful!",
                "Höflich"
            ]),
            ["clear-explanations", "good-listener", "helpful", "very-helpful", "höflich"]
        );
        assert_eq!(spelled(&["Helpful", "help-ful", "HELPFUL"]), ["helpful"], "each counts once");
        for offered in OFFERED {
            assert_eq!(spelled(&[offered]), [offered]);
        }
    }

    #[test]
    fn tags_that_say_nothing_or_too_much_are_refused() {
        for bad in ["", " ", "--", "!?", &"x".repeat(41)] {
            assert!(tags(&[bad.to_owned()]).is_err(), "{bad:?}");
        }
        let many: Vec<String> = (0..21).map(|n| format!("tag{n}")).collect();
        assert!(tags(&many[..20]).is_ok() && tags(&many).is_err());
    }

    #[test]
    fn ratings_are_from_one_to_five() {
        let said = |overall, video| NewFeedback { overall, video, ..NewFeedback::default() };
        for good in 1..=5 {
            assert!(impression(Mode::Video, said(good, Some(good))).is_ok());
        }
        for bad in [i64::MIN, -1, 0, 6, i64::MAX] {
            assert!(impression(Mode::Video, said(bad, None)).is_err());
            assert!(impression(Mode::Audio, said(5, Some(bad))).is_err());
            let audio = NewFeedback { audio: Some(bad), ..said(5, None) };
            assert!(impression(Mode::Video, audio).is_err());
            let doctor = NewFeedback { doctor: Some(bad), ..said(5, None) };
            assert!(impression(Mode::Video, doctor).is_err());
        }
        let seen = |mode| impression(mode, said(4, Some(3))).expect("fits").video;
        assert_eq!((seen(Mode::Video), seen(Mode::Audio), seen(Mode::Chat)), (Some(3), None, None));
    }

    #[test]
    fn a_review_is_text_of_bounded_length() {
        let read = |text: &str| words(Some(text.to_owned())).map(|words| words.is_some());
        assert!(matches!(words(None), Ok(None)));
        assert!(matches!(read(" \n"), Ok(false)));
        assert!(matches!(read("Good.\n\tThank you \u{1F642}"), Ok(true)));
        assert!(matches!(read(&"é".repeat(MAX_TEXT_CHARS)), Ok(true)));
        assert!(read(&"é".repeat(MAX_TEXT_CHARS + 1)).is_err());
        assert!(read("a\u{0}b").is_err() && read("\u{1b}[2J").is_err());
    }
}
