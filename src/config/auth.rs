//! Section `auth`: whose tokens and keys are taken beside those of `api_key`.

use std::collections::BTreeMap;
use std::time::Duration;

use bedside_control_plane::token::ApiRole;
use bedside_control_plane::{ClaimNames, ConfiguredKey, ForeignAlgorithm, JwksConfig, KeyPair};
use bedside_sfu::core::api::Private;
use serde::{Deserialize, Serialize};

use super::{ConfigError, SECRET_BYTES};

/// Whose tokens and keys are taken.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Auth {
    /// API keys that sign no more and still verify, `NAME:SECRET` each, one a line or with `;`
    /// between them: while keys are rotated.
    #[serde(with = "super::forms::secret")]
    pub(crate) previous_keys: Private<String>,
    /// Service keys, `CLINIC NAME SCOPE,SCOPE… KEY` each, one a line or with `;` between them. `KEY`
    /// is `bsk_…`, or `sha256:` and the hash of it.
    #[serde(with = "super::forms::secret")]
    pub(crate) service_keys: Private<String>,
    /// Where an identity service publishes its keys (a JWK set); empty = no foreign tokens.
    pub(crate) jwks_url: String,
    /// What `iss` of its tokens must be.
    pub(crate) issuer: String,
    /// What `aud` of its tokens must be, or name.
    pub(crate) audience: String,
    /// Signature algorithms of its tokens: `RS256`, `ES256`.
    pub(crate) algorithms: Vec<String>,
    /// The claim with the user's id; a name or a path with dots.
    pub(crate) subject_claim: String,
    /// The claim with the display name.
    pub(crate) name_claim: String,
    /// The claim with the role or the roles.
    pub(crate) role_claim: String,
    /// The claim with the clinic.
    pub(crate) clinic_claim: String,
    /// Its words for our roles, `THEIRS=OURS` each; our own words need no entry.
    pub(crate) roles: Vec<String>,
    /// The clinic of its tokens that name none; empty = they are refused.
    pub(crate) clinic: String,
    /// How long a doctor or administrator may do nothing before the channels end and the token is
    /// refused; a call counts as doing something. `0s` = for ever.
    #[serde(with = "super::forms::period")]
    pub(crate) idle_logoff: Duration,
}

impl Default for Auth {
    fn default() -> Self {
        let claims = ClaimNames::default();
        Self {
            previous_keys: Private::default(),
            service_keys: Private::default(),
            jwks_url: String::new(),
            issuer: String::new(),
            audience: "bedside".to_owned(),
            algorithms: vec!["RS256".to_owned(), "ES256".to_owned()],
            subject_claim: claims.subject,
            name_claim: claims.name,
            role_claim: claims.role,
            clinic_claim: claims.clinic,
            roles: Vec::new(),
            clinic: String::new(),
            idle_logoff: Duration::from_secs(15 * 60),
        }
    }
}

fn invalid(text: impl Into<String>) -> ConfigError {
    ConfigError::Invalid(text.into())
}

impl Auth {
    /// The keys that still verify.
    pub(crate) fn previous(&self) -> Result<Vec<KeyPair>, ConfigError> {
        let entries = self.previous_keys.reveal().split(['\n', ';']).map(str::trim);
        entries
            .filter(|entry| !entry.is_empty())
            .map(|entry| match entry.split_once(':') {
                Some((key, secret)) if !key.is_empty() && secret.len() >= SECRET_BYTES => {
                    Ok(KeyPair { key: key.to_owned(), secret: Private::new(secret.to_owned()) })
                }
                Some(_) | None => Err(invalid(format!(
                    "auth.previous_keys must be NAME:SECRET with {SECRET_BYTES} bytes or more of \
                     secret, one a line"
                ))),
            })
            .collect()
    }

    /// The service keys that are written down.
    pub(crate) fn keys(&self) -> Result<Vec<ConfiguredKey>, ConfigError> {
        ConfiguredKey::read_all(self.service_keys.reveal())
            .map_err(|error| invalid(format!("auth.service_keys: {error}")))
    }

    /// The identity service, if there is one.
    pub(crate) fn jwks(&self) -> Result<Option<JwksConfig>, ConfigError> {
        if self.jwks_url.is_empty() {
            return Ok(None);
        }
        if !is_safe(&self.jwks_url) {
            return Err(invalid(
                "auth.jwks_url must be https: who can change the keys on their way can sign \
                 tokens (http only to this machine)",
            ));
        }
        if self.issuer.is_empty() || self.audience.is_empty() {
            return Err(invalid("auth.jwks_url needs auth.issuer and auth.audience beside it"));
        }
        let algorithms = self.algorithms.iter().map(|word| ForeignAlgorithm::parse(word));
        let algorithms = algorithms.collect::<Option<Vec<_>>>().filter(|list| !list.is_empty());
        Ok(Some(JwksConfig {
            url: self.jwks_url.clone(),
            issuer: self.issuer.clone(),
            audience: self.audience.clone(),
            algorithms: algorithms
                .ok_or_else(|| invalid("auth.algorithms must be of RS256 and ES256"))?,
            claims: ClaimNames {
                subject: self.subject_claim.clone(),
                name: self.name_claim.clone(),
                role: self.role_claim.clone(),
                clinic: self.clinic_claim.clone(),
            },
            roles: self.foreign_roles()?,
            clinic: (!self.clinic.is_empty()).then(|| self.clinic.clone()),
            ..JwksConfig::default()
        }))
    }

    fn foreign_roles(&self) -> Result<BTreeMap<String, ApiRole>, ConfigError> {
        let role = |word: &str| match word {
            "doctor" => Some(ApiRole::Doctor),
            "patient" => Some(ApiRole::Patient),
            "service" => Some(ApiRole::Service),
            "admin" => Some(ApiRole::Admin),
            "auditor" => Some(ApiRole::Auditor),
            _ => None,
        };
        let pair = |entry: &String| {
            let (theirs, ours) = entry.split_once('=')?;
            Some((theirs.trim().to_owned(), role(ours.trim())?))
        };
        self.roles.iter().map(pair).collect::<Option<_>>().ok_or_else(|| {
            invalid("auth.roles must be THEIRS=OURS with doctor, patient, service, admin, auditor")
        })
    }
}

/// Nobody on the way can change what it answers.
fn is_safe(url: &str) -> bool {
    if url.starts_with("https://") {
        return true;
    }
    let host = url.strip_prefix("http://").and_then(|rest| rest.split('/').next());
    let host = host.map(|host| host.rsplit_once(':').map_or(host, |(host, _)| host));
    matches!(host, Some("127.0.0.1" | "localhost" | "[::1]"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_identity_service_needs_all_of_it() {
        let good = Auth {
            jwks_url: "https://id.example/keys".to_owned(),
            issuer: "https://id.example".to_owned(),
            roles: vec!["arzt=doctor".to_owned(), "chef = admin".to_owned()],
            ..Auth::default()
        };
        let jwks = good.jwks().unwrap().unwrap();
        assert_eq!(jwks.algorithms, [ForeignAlgorithm::Rs256, ForeignAlgorithm::Es256]);
        assert_eq!(jwks.roles["arzt"], ApiRole::Doctor);
        assert_eq!((jwks.roles["chef"], jwks.clinic), (ApiRole::Admin, None));
        assert!(Auth::default().jwks().unwrap().is_none());
        let change: [fn(&mut Auth); 8] = [
            |auth| auth.jwks_url = "http://id.example/keys".to_owned(),
            |auth| auth.jwks_url = "http://127.0.0.1.example/keys".to_owned(),
            |auth| auth.jwks_url = "file:///keys".to_owned(),
            |auth| auth.issuer.clear(),
            |auth| auth.audience.clear(),
            |auth| auth.algorithms = vec!["HS256".to_owned()],
            |auth| auth.algorithms.clear(),
            |auth| auth.roles = vec!["boss=root".to_owned()],
        ];
        for change in change {
            let mut bad = good.clone();
            change(&mut bad);
            assert!(bad.jwks().is_err(), "{bad:?}");
        }
        let local = Auth { jwks_url: "http://127.0.0.1:8080/keys".to_owned(), ..good };
        assert!(local.jwks().is_ok());
    }

    #[test]
    fn keys_are_read_and_their_secrets_never_repeated() {
        let long = "s".repeat(SECRET_BYTES);
        let text = format!("old:{long}\nolder:{long};");
        let auth = Auth { previous_keys: Private::new(text), ..Auth::default() };
        let names: Vec<_> = auth.previous().unwrap().into_iter().map(|pair| pair.key).collect();
        assert_eq!(names, ["old", "older"]);
        for bad in ["old", "old:geheim", ":ssssssssssssssssssssssssssssssssssssss"] {
            let auth = Auth { previous_keys: Private::new(bad.to_owned()), ..Auth::default() };
            let error = auth.previous().unwrap_err().to_string();
            assert!(error.contains("auth.previous_keys") && !error.contains("geheim"), "{error}");
        }
        let keys = Private::new("demo booking chat:read bsk_geheim".to_owned());
        let auth = Auth { service_keys: keys, ..Auth::default() };
        let error = auth.keys().unwrap_err().to_string();
        assert!(error.contains("auth.service_keys") && !error.contains("geheim"), "{error}");
    }
}
