//! Who is calling, and what it may do with a consultation.

use axum::extract::FromRequestParts;
use axum::http::header::AUTHORIZATION;
use axum::http::request::Parts;

use crate::ControlPlane;
use crate::api::problem::Problem;
use crate::chat::Author;
use crate::consultation::{Actor, Consultation};
use crate::control::{ChangeError, Control};
use crate::live::may_chat;
use crate::store::{self, Page};
use crate::token::{self, ApiRole, ApiToken};
use crate::view::Viewer;

/// A verified caller.
#[derive(Clone, Debug)]
pub(crate) struct Caller(pub(crate) ApiToken);

/// Why somebody is not a caller.
#[derive(Debug)]
pub(crate) enum NoCaller {
    /// The token is not valid (any more). Nothing says why.
    Unauthorized,
    /// Its link could not be looked up.
    Unavailable(ChangeError),
}

impl Caller {
    /// Who it is in the record of a consultation.
    pub(crate) fn actor(&self) -> Actor {
        match self.0.role {
            ApiRole::Doctor | ApiRole::Patient | ApiRole::Guest => {
                Actor::Person(self.0.user_id.clone())
            }
            ApiRole::Service | ApiRole::Admin => Actor::Service(self.0.user_id.clone()),
        }
    }

    /// Works for the clinic as a whole.
    pub(crate) const fn is_staff(&self) -> bool {
        matches!(self.0.role, ApiRole::Service | ApiRole::Admin)
    }

    /// Takes part in this consultation, or works for its clinic.
    pub(crate) fn takes_part(&self, consultation: &Consultation) -> bool {
        let bound = self.0.session.is_none_or(|session| session == consultation.id);
        let own = match self.0.role {
            ApiRole::Service | ApiRole::Admin => true,
            ApiRole::Doctor => consultation.doctor_id == self.0.user_id,
            ApiRole::Patient => consultation.patient_id == self.0.user_id,
            // A link to this very consultation is what makes a guest.
            ApiRole::Guest => self.0.session.is_some(),
        };
        consultation.clinic == self.0.clinic && bound && own
    }

    /// May let people in, send them back, end: its doctor, a service, an administrator.
    pub(crate) fn leads(&self, consultation: &Consultation) -> bool {
        let leader = match self.0.role {
            ApiRole::Service | ApiRole::Admin | ApiRole::Doctor => true,
            ApiRole::Patient | ApiRole::Guest => false,
        };
        leader && self.takes_part(consultation)
    }

    /// Who writes, in the chat.
    pub(crate) fn author(&self) -> Author<'_> {
        let name = self.0.name.as_ref();
        Author { clinic: &self.0.clinic, user_id: &self.0.user_id, name }
    }

    /// May read the chat.
    pub(crate) fn reads_chat(&self, consultation: &Consultation) -> bool {
        self.is_staff() || may_chat(consultation, &self.0.user_id)
    }

    /// A page of everything it takes part in.
    pub(crate) fn page(&self) -> Page {
        let user = &self.0.user_id;
        Page {
            doctor_id: (self.0.role == ApiRole::Doctor).then(|| user.clone()),
            patient_id: (self.0.role == ApiRole::Patient).then(|| user.clone()),
            only: self.0.session,
            ..Page::default()
        }
    }

    /// How much of a consultation it may see.
    pub(crate) fn viewer(&self, consultation: &Consultation) -> Viewer<'_> {
        if self.leads(consultation) {
            Viewer::Staff
        } else if self.reads_chat(consultation) {
            Viewer::Everything
        } else {
            Viewer::Outside(&self.0.user_id)
        }
    }
}

impl Control {
    /// Checks a token, and the link it came from.
    pub(crate) async fn caller(&self, jwt: &str) -> Result<Caller, NoCaller> {
        let verified = token::verify(&self.config.keys, jwt, store::now());
        let Ok(claims) = verified else {
            self.counters.refused_auth.add();
            return Err(NoCaller::Unauthorized);
        };
        if let Some(link) = claims.link
            && !self.link_is_good(link).await.map_err(NoCaller::Unavailable)?
        {
            self.counters.refused_auth.add();
            return Err(NoCaller::Unauthorized);
        }
        Ok(Caller(claims))
    }
}

impl FromRequestParts<ControlPlane> for Caller {
    type Rejection = Problem;

    async fn from_request_parts(
        parts: &mut Parts,
        state: &ControlPlane,
    ) -> Result<Self, Self::Rejection> {
        // Found good on the way here.
        if let Some(caller) = parts.extensions.get::<Self>() {
            return Ok(caller.clone());
        }
        let bearer = parts.headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok());
        let jwt = bearer.and_then(|value| {
            let (scheme, token) = value.split_once(' ')?;
            scheme.eq_ignore_ascii_case("bearer").then_some(token.trim())
        });
        let Some(jwt) = jwt else {
            state.control.counters.refused_auth.add();
            return Err(Problem::unauthorized());
        };
        let caller = state.control.caller(jwt).await.map_err(|error| match error {
            NoCaller::Unauthorized => Problem::unauthorized(),
            NoCaller::Unavailable(error) => error.into(),
        })?;
        state.control.limiters.caller(&caller.0, caller.is_staff()).inspect_err(|_| {
            state.control.counters.rate_limited.add();
        })?;
        Ok(caller)
    }
}
