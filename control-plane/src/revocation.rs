//! Credentials that are good no more: join links, service keys, single tokens.
//!
//! Who revokes writes a row of `revocations` together with the change. Every instance asks that
//! table for new rows several times a second (both databases can be asked, only one of them could
//! tell by itself) and does three things about each: it refuses the credential, ends the channels
//! that came by it, and puts the people who came by it out of the rooms.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use chrono::{DateTime, Utc};
use uuid::Uuid;

use crate::access::Credential;
use crate::consultation::{Actor, Presence, Step};
use crate::control::{ChangeError, Control};
use crate::store::{self, Revocation};

/// How often other instances' revocations are asked for.
pub(crate) const INTERVAL: Duration = Duration::from_millis(300);
/// How far back it asks: rows become visible out of order, and clocks differ.
const LOOK_BACK: chrono::Duration = chrono::Duration::seconds(60);
/// After so many questions for the new ones it asks for all.
const ALL_EVERY: u64 = 200;
/// How long a token is remembered whose end is not known.
const UNKNOWN_END: chrono::Duration = chrono::Duration::days(400);

/// What is known to be revoked, until it has ended by itself.
#[derive(Default)]
pub(crate) struct Revoked(Mutex<HashMap<(String, String), DateTime<Utc>>>);

impl Revoked {
    fn lock(&self) -> MutexGuard<'_, HashMap<(String, String), DateTime<Utc>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Is any of a credential's names revoked?
    pub(crate) fn contains(&self, clinic: &str, credential: &Credential) -> bool {
        let revoked = self.lock();
        if revoked.is_empty() {
            return false;
        }
        let mut names = credential.names();
        names.any(|name| revoked.contains_key(&(clinic.to_owned(), name.to_owned())))
    }

    /// `true` = that is news.
    fn enter(&self, revocation: &Revocation) -> bool {
        let name = (revocation.clinic.clone(), revocation.credential.clone());
        self.lock().insert(name, revocation.forget_at).is_none()
    }

    fn knows(&self, revocation: &Revocation) -> bool {
        let name = (revocation.clinic.clone(), revocation.credential.clone());
        self.lock().contains_key(&name)
    }

    fn forget(&self, now: DateTime<Utc>) {
        self.lock().retain(|_, forget_at| *forget_at > now);
    }
}

impl Control {
    /// Revokes a single token.
    pub(crate) async fn revoke_token(
        &self,
        clinic: &str,
        id: &str,
        ends: Option<DateTime<Utc>>,
    ) -> Result<(), ChangeError> {
        let now = store::now();
        let revocation = Revocation {
            credential: format!("token:{id}"),
            clinic: clinic.to_owned(),
            user_id: None,
            session_id: None,
            at: now,
            // Clocks differ a little; a token's own end is the end of it.
            forget_at: ends.map_or(now + UNKNOWN_END, |end| end + chrono::Duration::minutes(5)),
        };
        self.within(self.db.revoke(&revocation)).await?;
        self.take_revocation(&revocation).await;
        Ok(())
    }

    /// Asks for what was revoked, here or by another instance. `round` counts the questions.
    pub(crate) async fn hear_revocations(&self, round: u64) {
        let now = store::now();
        let all = round.is_multiple_of(ALL_EVERY);
        let since = if all { DateTime::UNIX_EPOCH } else { now - LOOK_BACK };
        let Ok(revocations) = self.db.revocations(since, now).await else {
            // Whatever else uses the database says so.
            return;
        };
        for revocation in &revocations {
            if !self.revoked.knows(revocation) {
                self.take_revocation(revocation).await;
            }
        }
        if all {
            self.revoked.forget(now);
            // A failure leaves rows for the next time.
            let _later = self.db.forget_revocations(now).await;
        }
    }

    /// Acts on a revocation: refuses, hangs up, puts out.
    pub(crate) async fn take_revocation(&self, revocation: &Revocation) {
        if !self.revoked.enter(revocation) {
            return;
        }
        let credential = revocation.credential.as_str();
        let link = credential.strip_prefix("link:").and_then(|id| Uuid::try_parse(id).ok());
        if let Some(link) = link {
            self.forget_link(link);
        }
        if credential.starts_with("key:") {
            self.forget_keys();
        }
        let mut people = self.people_by(revocation).await;
        // Those whose channel it was are known without the database.
        people.extend(self.live.close_credential(&revocation.clinic, credential));
        for (session_id, user_id) in people {
            self.put_out(&revocation.clinic, session_id, user_id).await;
        }
        tracing::info!(kind = credential.split(':').next(), "a credential was revoked");
    }

    /// Who may be in a consultation by this credential.
    async fn people_by(&self, revocation: &Revocation) -> BTreeSet<(Uuid, String)> {
        let (clinic, credential) = (&revocation.clinic, &revocation.credential);
        let mut people = BTreeSet::new();
        if let (Some(user_id), Some(session_id)) = (&revocation.user_id, revocation.session_id) {
            people.insert((session_id, user_id.clone()));
        }
        match self.db.entrances(clinic, credential).await {
            Ok(entrances) => {
                people.extend(entrances.into_iter().map(|e| (e.session_id, e.subject)));
            }
            Err(error) => {
                let error = crate::control::kind_of(&error);
                tracing::warn!(error, "who came by a revoked credential is not known");
            }
        }
        people
    }

    /// Puts a person out of a consultation that this instance has in memory: only there can it be
    /// in a room. Another instance may have stored that before; then what is known here is renewed,
    /// and the room is told all the same.
    async fn put_out(&self, clinic: &str, session_id: Uuid, user_id: String) {
        let Some(live) = self.live.find(session_id) else { return };
        let Some(before) = live.consultation().filter(|c| c.clinic == clinic) else { return };
        let here = before.person(&user_id);
        if !here.is_some_and(|person| person.admitted || person.presence != Presence::Left) {
            return;
        }
        let step = Step::Remove(user_id.clone());
        match self.step(clinic, session_id, &Actor::Server, &step).await {
            Ok(after) => live.tell_change(Some(&before), &after),
            // It is over: nobody to put out of the record.
            Err(ChangeError::Refused(_) | ChangeError::NotFound | ChangeError::PaymentRequired) => {
            }
            Err(error @ (ChangeError::Database(_) | ChangeError::Busy)) => {
                tracing::warn!(%error, "a person could not be put out of the record");
            }
        }
        self.rooms.remove(&before.room_name, &user_id);
    }
}

#[cfg(test)]
mod tests;
