//! Join links: one person, one consultation (a doctor's: the doctor's own day), no account.
//!
//! A link carries 256 random bits in its URL fragment, which browsers send to nobody; a page
//! exchanges them for an API token. Only their SHA-256 is stored. A link is good for a reload and
//! a second device until soon after its consultation has ended, and it can be revoked: that ends
//! its tokens, its channels and its person's stay in the room.

use std::time::{Duration, Instant};

use aws_lc_rs::rand::SecureRandom as _;
use aws_lc_rs::{digest, hmac};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use chrono::{DateTime, Utc};
use uuid::Uuid;

use crate::audit::{self, Who};
use crate::consultation::{Actor, Consultation, PersonRole, Refusal, Step};
use crate::control::{ChangeError, Control};
use crate::sessions::LINK_GRACE;
use crate::store::{self, LinkRow, Revocation};
use crate::token::{self, ApiRole, ApiToken};
use crate::{KeyPair, Private, text};

/// The longest life of a token that came from a link.
const MAX_TOKEN_LIFE: chrono::Duration = chrono::Duration::hours(12);

/// How long what is known of a link counts without asking the database.
const KNOWN_FOR: Duration = Duration::from_secs(5);

/// `links.created_by` of the link that other services are told to hand on.
const ATTENDEE: &str = "attendee_url";

/// How often that link may be replaced: each time after it was revoked or its key retired.
const MAX_ATTENDEE_LINKS: u32 = 64;

/// How many links are remembered.
const MAX_KNOWN: usize = 10_000;

/// A link to make.
#[derive(Clone, Debug)]
pub struct NewLink {
    /// Whose.
    pub user_id: String,
    /// What it is in the consultation.
    pub role: PersonRole,
    /// Display name; what the consultation knows if absent.
    pub name: Option<String>,
}

/// A link that was made. This is the only time its secret is seen.
#[derive(Clone, Debug)]
pub struct Link {
    /// Names it for revoking.
    pub id: Uuid,
    /// The whole URL.
    pub url: Private<String>,
    /// When it ends at the latest.
    pub expires_at: DateTime<Utc>,
}

/// What a link was exchanged for.
#[derive(Clone, Debug)]
pub struct Exchanged {
    /// The API token.
    pub token: Private<String>,
    /// What the token says.
    pub claims: ApiToken,
}

/// Why something about a link did not work.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// No such link.
    #[error("there is no such link")]
    NotFound,
    /// It was revoked, or its time is over.
    #[error("the link is not valid any more")]
    Gone,
    /// The person or its role does not fit the consultation.
    #[error("{0}")]
    Invalid(&'static str),
    /// Every place in the consultation is taken.
    #[error("the consultation has no place for another person")]
    Full,
    /// The consultation or the database.
    #[error(transparent)]
    Change(#[from] ChangeError),
}

/// What is known of a link.
#[derive(Clone, Copy)]
pub(crate) struct Known {
    revoked: bool,
    at: Instant,
}

impl Control {
    /// Makes a link for somebody of a consultation.
    pub(crate) async fn create_link(
        &self,
        clinic: &str,
        session_id: Uuid,
        created_by: &str,
        new: &NewLink,
    ) -> Result<Link, LinkError> {
        let consultation = self.look(clinic, session_id).await?;
        if consultation.status.is_over() {
            return Err(ChangeError::from(Refusal::Over(consultation.status)).into());
        }
        if !text::is_id(&new.user_id) || !new.name.as_deref().is_none_or(text::is_name) {
            return Err(LinkError::Invalid("userId or name is empty, too long or not text"));
        }
        if consultation.role_of(&new.user_id) != new.role {
            return Err(LinkError::Invalid("userId does not have this role in the consultation"));
        }
        let now = store::now();
        if new.role == PersonRole::Guest {
            let guests = self.within(self.db.invited_guests(session_id, now)).await?;
            let others = guests.iter().filter(|guest| **guest != new.user_id).count();
            let places = usize::try_from(consultation.max_participants).unwrap_or(2);
            if others + 3 > places {
                return Err(LinkError::Full);
            }
        }
        let known_name = match new.role {
            PersonRole::Doctor => consultation.doctor_name.reveal().clone(),
            PersonRole::Patient => consultation.patient_name.reveal().clone(),
            PersonRole::Guest => new.user_id.clone(),
        };
        let planned_end = consultation.planned_end();
        let row = LinkRow {
            id: Uuid::new_v4(),
            clinic: clinic.to_owned(),
            session_id: (new.role != PersonRole::Doctor).then_some(session_id),
            user_id: new.user_id.clone(),
            user_name: new.name.clone().filter(|name| !name.is_empty()).unwrap_or(known_name),
            role: new.role.as_str().to_owned(),
            created_by: created_by.to_owned(),
            created_at: now,
            expires_at: good_until(planned_end.max(now)),
            revoked_at: None,
        };
        let secret = new_secret();
        self.within(self.db.insert_link(&row, &hash(&secret))).await?;
        let page = if new.role == PersonRole::Doctor { "doctor" } else { "visit" };
        let base = self.config.public_url.trim_end_matches('/');
        Ok(Link {
            id: row.id,
            url: Private::new(format!("{base}/{page}#{secret}")),
            expires_at: row.expires_at,
        })
    }

    /// The patient's join link that other services hand on: the same one each time, as long as it
    /// is not revoked. Its secret is made from its id and the API key, so that it can be told again
    /// although, like any other's, only its hash is stored.
    pub(crate) async fn attendee_url(
        &self,
        consultation: &Consultation,
    ) -> Result<String, ChangeError> {
        for turn in 0..MAX_ATTENDEE_LINKS {
            let id = attendee_link(consultation.id, turn);
            let secret = match self.within(self.db.link_hash(id)).await? {
                Some(known) if known.revoked_at.is_none() => {
                    let secrets = self.config.keys.iter().map(|keys| attendee_secret(keys, id));
                    secrets.into_iter().find(|secret| hash(secret) == known.secret_hash)
                }
                Some(_) => None,
                None => {
                    let keys = self.config.keys.first().ok_or(ChangeError::Busy)?;
                    let secret = attendee_secret(keys, id);
                    let row = attendee_row(id, consultation);
                    self.within(self.db.insert_link_once(&row, &hash(&secret))).await?;
                    // Another process with another key may have been faster.
                    let known = self.within(self.db.link_hash(id)).await?;
                    known.filter(|known| hash(&secret) == known.secret_hash).map(|_| secret)
                }
            };
            if let Some(secret) = secret {
                let base = self.config.public_url.trim_end_matches('/');
                return Ok(format!("{base}/visit#{secret}"));
            }
        }
        Err(ChangeError::Busy)
    }

    /// Turns a link's secret into an API token.
    pub(crate) async fn exchange(&self, secret: &str) -> Result<Exchanged, LinkError> {
        let row = self.within(self.db.link_by_hash(&hash(secret))).await?;
        let row = row.ok_or(LinkError::NotFound)?;
        if let Some(session_id) = row.session_id {
            audit::about(session_id);
        }
        audit::asked_by(Who {
            clinic: row.clinic.clone(),
            id: row.user_id.clone(),
            kind: "link",
            credential: Some(format!("link:{}", row.id)),
        });
        let now = store::now();
        if row.revoked_at.is_some() || row.expires_at <= now {
            return Err(LinkError::Gone);
        }
        let role = match PersonRole::parse(&row.role) {
            Some(PersonRole::Doctor) => ApiRole::Doctor,
            Some(PersonRole::Patient) => ApiRole::Patient,
            Some(PersonRole::Guest) => ApiRole::Guest,
            None => return Err(LinkError::NotFound),
        };
        let claims = ApiToken {
            user_id: row.user_id,
            name: Some(Private::new(row.user_name)),
            role,
            clinic: row.clinic,
            session: row.session_id,
            link: Some(row.id),
            expires_at: row.expires_at.min(now + MAX_TOKEN_LIFE),
        };
        let keys = self.config.keys.first().ok_or(LinkError::NotFound)?;
        let token = Private::new(token::issue(keys, &claims));
        self.remember(row.id, false);
        Ok(Exchanged { token, claims })
    }

    /// One link of a clinic.
    pub(crate) async fn link(&self, clinic: &str, id: Uuid) -> Result<LinkRow, LinkError> {
        let row = self.within(self.db.link(id)).await?;
        row.filter(|row| row.clinic == clinic).ok_or(LinkError::NotFound)
    }

    /// Revokes a link and puts its person out, wherever it is.
    pub(crate) async fn revoke_link(&self, row: &LinkRow, actor: &Actor) -> Result<(), LinkError> {
        let now = store::now();
        let revocation = Revocation {
            credential: format!("link:{}", row.id),
            clinic: row.clinic.clone(),
            user_id: Some(row.user_id.clone()),
            session_id: row.session_id,
            at: now,
            forget_at: row.expires_at.max(now) + MAX_TOKEN_LIFE,
        };
        self.within(self.db.revoke_link(row.id, &revocation)).await?;
        self.remember(row.id, true);
        let remove = Step::Remove(row.user_id.clone());
        for id in self.consultations_of(row) {
            match self.step(&row.clinic, id, actor, &remove).await {
                // Not there: nobody to put out.
                Ok(_) | Err(ChangeError::Refused(_) | ChangeError::NotFound) => {}
                Err(error) => return Err(error.into()),
            }
        }
        self.take_revocation(&revocation).await;
        tracing::info!(link = %row.id, "link revoked");
        Ok(())
    }

    /// Where the holder of a link may be now.
    fn consultations_of(&self, row: &LinkRow) -> Vec<Uuid> {
        if let Some(id) = row.session_id {
            return vec![id];
        }
        let live = self.live.all().into_iter().filter_map(|live| live.consultation());
        live.filter(|c| c.clinic == row.clinic && c.doctor_id == row.user_id)
            .map(|consultation| consultation.id)
            .collect()
    }

    /// Is the link that a token came from still good? What was known a moment ago counts, and
    /// what was known at all counts while the database is away.
    pub(crate) async fn link_is_good(&self, id: Uuid) -> Result<bool, ChangeError> {
        let known = self.links().get(&id).copied();
        if let Some(known) = known
            && (known.revoked || known.at.elapsed() < KNOWN_FOR)
        {
            return Ok(!known.revoked);
        }
        match self.within(self.db.link(id)).await {
            Ok(row) => {
                let good = row.is_some_and(|row| row.revoked_at.is_none());
                self.remember(id, !good);
                Ok(good)
            }
            Err(error) => known.map(|known| !known.revoked).ok_or(error),
        }
    }

    /// A link was revoked, here or by another instance.
    pub(crate) fn forget_link(&self, id: Uuid) {
        self.remember(id, true);
    }

    fn remember(&self, id: Uuid, revoked: bool) {
        let mut links = self.links();
        if links.len() >= MAX_KNOWN {
            links.clear();
        }
        links.insert(id, Known { revoked, at: Instant::now() });
    }

    fn links(&self) -> std::sync::MutexGuard<'_, std::collections::HashMap<Uuid, Known>> {
        self.links.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

fn new_secret() -> String {
    let mut bytes = [0; 32];
    aws_lc_rs::rand::SystemRandom::new()
        .fill(&mut bytes)
        .expect("the operating system's random numbers do not fail after the start");
    URL_SAFE_NO_PAD.encode(bytes)
}

/// The id of a consultation's n-th attendee link; v8, made from both (RFC 9562 §5.8).
fn attendee_link(session_id: Uuid, turn: u32) -> Uuid {
    let mut context = digest::Context::new(&digest::SHA256);
    context.update(b"bedside attendee link id");
    context.update(session_id.as_bytes());
    context.update(&turn.to_be_bytes());
    let hash = context.finish();
    let bytes = hash.as_ref().first_chunk().copied().unwrap_or_default();
    uuid::Builder::from_custom_bytes(bytes).into_uuid()
}

/// What is signed can never be the text of a token: those have no zero byte.
fn attendee_secret(keys: &KeyPair, id: Uuid) -> String {
    let key = hmac::Key::new(hmac::HMAC_SHA256, keys.secret.reveal().as_bytes());
    let mut context = hmac::Context::with_key(&key);
    context.update(b"bedside attendee link\0");
    context.update(id.as_bytes());
    URL_SAFE_NO_PAD.encode(context.sign())
}

/// A while after the planned end.
fn good_until(end: DateTime<Utc>) -> DateTime<Utc> {
    let grace = chrono::Duration::from_std(LINK_GRACE).unwrap_or(MAX_TOKEN_LIFE);
    end.checked_add_signed(grace).unwrap_or(end)
}

fn attendee_row(id: Uuid, consultation: &Consultation) -> LinkRow {
    let now = store::now();
    let planned_end = consultation.planned_end();
    LinkRow {
        id,
        clinic: consultation.clinic.clone(),
        session_id: Some(consultation.id),
        user_id: consultation.patient_id.clone(),
        user_name: consultation.patient_name.reveal().clone(),
        role: PersonRole::Patient.as_str().to_owned(),
        created_by: ATTENDEE.to_owned(),
        created_at: now,
        // Told again of one that is over: the page says so.
        expires_at: consultation.actual_end.unwrap_or_else(|| good_until(planned_end.max(now))),
        revoked_at: None,
    }
}

fn hash(secret: &str) -> Vec<u8> {
    digest::digest(&digest::SHA256, secret.as_bytes()).as_ref().to_vec()
}

#[cfg(test)]
mod tests;
