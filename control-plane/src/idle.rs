//! Automatic logoff: a doctor or an administrator who does nothing for a while is signed out.
//!
//! What is watched are tokens that have opened a channel: somebody sits in front of a page. (A
//! program that calls now and then with a person's token is none.) Requests, messages and the page's
//! word of a key or a pointer count as doing something; so does being in a call, however still. A
//! minute before the end the page is told. Then the channels end, and the token is refused; the
//! person signs in anew. It is the server's clock that counts, so a page that is not ours, or does
//! not keep to it, is signed out like any other.
//!
//! Each instance watches the channels that it has. Patients and guests are not watched: they wait,
//! sometimes for long, and see one consultation.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};

use crate::access::{Caller, Credential};
use crate::consultation::Presence;
use crate::control::Control;
use crate::store;
use crate::token::ApiRole;

/// How long before the end the page is told.
const WARNING: Duration = Duration::from_secs(60);

/// What an open channel should do now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Idleness {
    /// Nothing.
    Active,
    /// Tell that it ends in so many seconds.
    Soon(u64),
    /// End.
    Over,
}

struct Watched {
    last: Instant,
    over: bool,
    /// By then the token has ended by itself.
    ends: DateTime<Utc>,
}

/// Everybody that is watched, by the name of the token.
#[derive(Default)]
pub(crate) struct Idle(Mutex<HashMap<String, Watched>>);

impl Idle {
    fn lock(&self) -> MutexGuard<'_, HashMap<String, Watched>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Was it signed out?
    pub(crate) fn is_over(&self, credential: &Credential) -> bool {
        self.lock().get(credential.of_token()).is_some_and(|watched| watched.over)
    }

    /// It did something.
    pub(crate) fn touch(&self, credential: &Credential) {
        if let Some(watched) = self.lock().get_mut(credential.of_token()) {
            watched.last = Instant::now();
        }
    }
}

impl Control {
    /// A channel was opened: from now on its holder must do something now and then.
    pub(crate) fn attend(&self, caller: &Caller) {
        let person = match caller.0.role {
            ApiRole::Doctor | ApiRole::Admin => caller.1.scopes.is_none(),
            ApiRole::Patient | ApiRole::Guest | ApiRole::Service | ApiRole::Auditor => false,
        };
        if !person || self.config.idle_logoff.is_zero() {
            return;
        }
        let now = store::now();
        let mut watched = self.idle.lock();
        watched.retain(|_, watched| watched.ends > now);
        let entry = watched.entry(caller.1.of_token().to_owned());
        let new = || Watched { last: Instant::now(), over: false, ends: caller.0.expires_at };
        entry.or_insert_with(new).last = Instant::now();
    }

    /// How often a channel looks after its client, and whether that does nothing.
    pub(crate) fn ping_interval(&self, usual: Duration) -> Duration {
        let limit = self.config.idle_logoff;
        if limit.is_zero() { usual } else { usual.min(limit / 4) }
    }

    /// What a caller's channel should do now.
    pub(crate) fn idleness(&self, caller: &Caller) -> Idleness {
        let limit = self.config.idle_logoff;
        let name = caller.1.of_token();
        let idle = match self.idle.lock().get(name) {
            Some(watched) if watched.over => return Idleness::Over,
            Some(watched) => watched.last.elapsed(),
            None => return Idleness::Active,
        };
        let Some(left) = limit.checked_sub(idle).filter(|left| !left.is_zero()) else {
            return if self.is_in_a_call(caller) {
                self.idle.touch(&caller.1);
                Idleness::Active
            } else {
                if let Some(watched) = self.idle.lock().get_mut(name) {
                    watched.over = true;
                }
                tracing::info!("somebody was signed out after doing nothing");
                Idleness::Over
            };
        };
        if left > WARNING || self.is_in_a_call(caller) {
            return Idleness::Active;
        }
        Idleness::Soon(left.as_secs())
    }

    fn is_in_a_call(&self, caller: &Caller) -> bool {
        let sits = |presence| matches!(presence, Presence::Connected | Presence::Reconnecting);
        self.live.all().iter().filter_map(|live| live.consultation()).any(|consultation| {
            consultation.clinic == caller.0.clinic
                && !consultation.status.is_over()
                && consultation
                    .person(&caller.0.user_id)
                    .is_some_and(|person| sits(person.presence))
        })
    }
}

#[cfg(test)]
mod tests;
