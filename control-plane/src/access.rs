//! Who is calling, and what it may do with a consultation.

use std::sync::Arc;

use axum::extract::FromRequestParts;
use axum::http::HeaderName;
use axum::http::header::AUTHORIZATION;
use axum::http::request::Parts;

use crate::api::problem::Problem;
use crate::audit::Who;
use crate::chat::Author;
use crate::consultation::{Actor, Consultation};
use crate::control::{ChangeError, Control};
use crate::jwks::ForeignError;
use crate::live::may_chat;
use crate::permissions::{Permission, Scopes};
use crate::store::{self, Page};
use crate::token::{self, ApiRole, ApiToken};
use crate::view::Viewer;
use crate::{ControlPlane, audit, service_keys};

/// Where a service key may stand instead of `authorization`.
pub(crate) static API_KEY: HeaderName = HeaderName::from_static("x-api-key");

/// A verified caller: who it is, and by which credential.
#[derive(Clone, Debug)]
pub(crate) struct Caller(pub(crate) ApiToken, pub(crate) Credential);

/// What a caller showed.
#[derive(Clone, Debug)]
pub(crate) struct Credential {
    /// Names it for revocations and the audit log: `token:…`, `link:…`, `key:…`. No secret.
    pub(crate) name: String,
    /// Of a link's token: the name of this very token.
    pub(crate) token: Option<String>,
    /// Of a service key: all that it may do.
    pub(crate) scopes: Option<Arc<Scopes>>,
}

impl Credential {
    /// The name of the very token, or of what else was shown.
    pub(crate) fn of_token(&self) -> &str {
        self.token.as_deref().unwrap_or(&self.name)
    }

    /// Everything that it can be revoked by.
    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        std::iter::once(self.name.as_str()).chain(self.token.as_deref())
    }
}

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
            ApiRole::Service | ApiRole::Admin | ApiRole::Auditor => {
                Actor::Service(self.0.user_id.clone())
            }
        }
    }

    /// May it do this kind of thing at all? By the table of roles and, for a service key, by its
    /// scopes.
    pub(crate) fn may(&self, permission: Permission) -> Result<(), Problem> {
        if self.can(permission) {
            Ok(())
        } else {
            Err(Problem::forbidden("this role or key does not have the permission"))
        }
    }

    fn can(&self, permission: Permission) -> bool {
        let scoped = self.1.scopes.as_ref().is_none_or(|scopes| scopes.contains(&permission));
        scoped && permission.granted_to(self.0.role)
    }

    /// Who it is in the audit log.
    pub(crate) fn who(&self) -> Who {
        Who {
            clinic: self.0.clinic.clone(),
            id: self.0.user_id.clone(),
            kind: self.0.role.as_str(),
            credential: Some(self.1.name.clone()),
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
            ApiRole::Auditor => false,
        };
        let may = self.can(Permission::ReadConsultations);
        consultation.clinic == self.0.clinic && bound && own && may
    }

    /// May let people in, send them back, end: its doctor, a service, an administrator.
    pub(crate) fn leads(&self, consultation: &Consultation) -> bool {
        self.can(Permission::LeadConsultations) && self.takes_part(consultation)
    }

    /// Who writes, in the chat.
    pub(crate) fn author(&self) -> Author<'_> {
        let name = self.0.name.as_ref();
        Author { clinic: &self.0.clinic, user_id: &self.0.user_id, name }
    }

    /// May read the chat.
    pub(crate) fn reads_chat(&self, consultation: &Consultation) -> bool {
        let inside = self.is_staff() || may_chat(consultation, &self.0.user_id);
        inside && self.can(Permission::ReadChat)
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
    /// Checks a token or a service key, and that it was not revoked.
    pub(crate) async fn caller(&self, bearer: &str) -> Result<Caller, NoCaller> {
        let caller = self.good_caller(bearer).await;
        if matches!(caller, Err(NoCaller::Unauthorized)) {
            self.counters.refused_auth.add();
        }
        caller
    }

    async fn good_caller(&self, bearer: &str) -> Result<Caller, NoCaller> {
        let caller = if bearer.starts_with(service_keys::PREFIX) {
            self.key_caller(bearer).await?
        } else {
            self.token_caller(bearer).await?
        };
        // From here on the audit log knows whose deed it is, also if it is refused now.
        audit::asked_by(caller.who());
        if self.revoked.contains(&caller.0.clinic, &caller.1) || self.idle.is_over(&caller.1) {
            return Err(NoCaller::Unauthorized);
        }
        self.idle.touch(&caller.1);
        match caller.0.link {
            Some(link) if !self.link_is_good(link).await.map_err(NoCaller::Unavailable)? => {
                Err(NoCaller::Unauthorized)
            }
            Some(_) | None => Ok(caller),
        }
    }

    /// A token that somebody wants to be good no more, with its name; none if it is none now.
    pub(crate) async fn token_to_revoke(
        &self,
        jwt: &str,
    ) -> Result<Option<(ApiToken, String)>, ChangeError> {
        match self.token_caller(jwt).await {
            Ok(Caller(token, credential)) => {
                let id = credential.token.unwrap_or(credential.name);
                Ok(Some((token, id.trim_start_matches("token:").to_owned())))
            }
            Err(NoCaller::Unauthorized) => Ok(None),
            Err(NoCaller::Unavailable(error)) => Err(error),
        }
    }

    /// Our own token, or one of the identity service: its algorithm says whose it must be, and
    /// each side checks it with its own keys only.
    async fn token_caller(&self, jwt: &str) -> Result<Caller, NoCaller> {
        let now = store::now();
        let header = token::header(jwt).ok_or(NoCaller::Unauthorized)?;
        let verified = match &self.jwks {
            Some(jwks) if header.alg != token::OWN_ALGORITHM => {
                jwks.verify(jwt, &header, now).await.map_err(|error| match error {
                    ForeignError::Invalid => NoCaller::Unauthorized,
                    ForeignError::Unavailable => NoCaller::Unavailable(ChangeError::Busy),
                })?
            }
            Some(_) | None => token::verify_own(&self.config.keys, jwt, &header, now)
                .map_err(|token::InvalidToken| NoCaller::Unauthorized)?,
        };
        let token = format!("token:{}", verified.id);
        let credential = match verified.token.link {
            Some(link) => {
                Credential { name: format!("link:{link}"), token: Some(token), scopes: None }
            }
            None => Credential { name: token, token: None, scopes: None },
        };
        Ok(Caller(verified.token, credential))
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
        let Some(bearer) = shown(parts) else {
            state.control.counters.refused_auth.add();
            return Err(Problem::unauthorized());
        };
        let caller = state.control.caller(bearer).await.map_err(|error| match error {
            NoCaller::Unauthorized => Problem::unauthorized(),
            NoCaller::Unavailable(error) => error.into(),
        })?;
        state.control.limiters.caller(&caller.0, caller.is_staff()).inspect_err(|_| {
            state.control.counters.rate_limited.add();
        })?;
        Ok(caller)
    }
}

/// What a request shows: a bearer token or key, or a key in the header that other software uses.
fn shown(parts: &Parts) -> Option<&str> {
    let text = |name: &HeaderName| parts.headers.get(name).and_then(|value| value.to_str().ok());
    if let Some(value) = text(&AUTHORIZATION) {
        let (scheme, bearer) = value.split_once(' ')?;
        return scheme.eq_ignore_ascii_case("bearer").then_some(bearer.trim());
    }
    text(&API_KEY).filter(|key| key.starts_with(service_keys::PREFIX))
}
