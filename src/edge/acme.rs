//! The certificate from an authority (ACME, RFC 8555), proved by TLS-ALPN-01 (RFC 8737): on the
//! port that is there anyway.
//!
//! Account and certificate lie in a folder, so that a restart asks for nothing. A new certificate is
//! asked for when a third of the old one's life is left; while the authority does not answer, the old
//! one stays.

use std::io::Write as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use instant_acme::{
    Account, AccountCredentials, AuthorizationStatus, ChallengeType, Identifier, NewAccount,
    NewOrder, Order, OrderStatus, RetryPolicy,
};
use rcgen::{CertificateParams, CustomExtension, DistinguishedName, KeyPair};
use rustls::crypto::aws_lc_rs::default_provider;
use rustls::pki_types::PrivateKeyDer;
use rustls::sign::CertifiedKey;
use serde::{Deserialize, Serialize};
use tokio::sync::{Notify, watch};

use super::certificate::{Certificate, CertificateError};
use super::counters::EdgeCounters;
use super::tls::{Challenges, Tls};
use crate::config::Acme;

/// How long one order may take in all.
const ORDER_LIMIT: Duration = Duration::from_secs(300);
/// How long the authority may take for each of its steps.
const STEP: RetryPolicy =
    RetryPolicy::new().initial_delay(Duration::from_millis(250)).timeout(Duration::from_secs(90));
/// Authorities count failures by the hour: five of one name are too many.
const FIRST_PAUSE: Duration = Duration::from_secs(60);
const LAST_PAUSE: Duration = Duration::from_secs(6 * 3600);
/// A clock that was set is noticed by then.
const LOOK: Duration = Duration::from_secs(3600);

/// Why there is no new certificate.
#[derive(Debug, thiserror::Error)]
enum OrderError {
    #[error("{0}")]
    Authority(#[from] instant_acme::Error),
    #[error("the authority takes no proof by TLS-ALPN-01")]
    NoChallenge,
    #[error("the authority does not believe that we have the name{0}")]
    Refused(String),
    #[error("{0}")]
    Made(#[from] rcgen::Error),
    #[error("the authority's certificate is no good: {0}")]
    Certificate(#[from] CertificateError),
    #[error("a proof cannot be made: {0}")]
    Proof(rustls::Error),
    #[error("the folder of accounts and certificates: {0}")]
    Folder(#[from] std::io::Error),
    #[error("the authority did not answer in time")]
    Late,
}

/// Keeps the certificate good.
pub(super) struct Keeper {
    authority: Acme,
    tls: Tls,
    counters: EdgeCounters,
}

impl Keeper {
    /// Shows what lies in the folder, if it is still good.
    pub(super) fn new(authority: Acme, tls: Tls, counters: EdgeCounters) -> std::io::Result<Self> {
        use std::os::unix::fs::DirBuilderExt as _;
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&authority.folder)?;
        let keeper = Self { authority, tls, counters };
        if let Some(kept) = keeper.kept() {
            keeper.tls.shown().change(kept);
        }
        Ok(keeper)
    }

    /// Asks whenever it is time to, until `stop`; `again` makes it look at once.
    pub(super) async fn run(self, again: Arc<Notify>, mut stop: watch::Receiver<bool>) {
        let mut pause = FIRST_PAUSE;
        loop {
            let now = SystemTime::now();
            let due = self.tls.shown().current().map_or(now, |current| renewal(&current));
            let wait = if due > now {
                due.duration_since(now).unwrap_or_default().min(LOOK)
            } else if self.renew().await {
                pause = FIRST_PAUSE;
                continue;
            } else {
                let wait = pause;
                pause = (pause * 3).min(LAST_PAUSE);
                wait
            };
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                () = again.notified() => {}
                () = super::told(&mut stop) => return,
            }
        }
    }

    /// Says whether there is a new one.
    async fn renew(&self) -> bool {
        let order = tokio::time::timeout(ORDER_LIMIT, self.order()).await;
        self.tls.challenges().clear();
        match order.unwrap_or(Err(OrderError::Late)) {
            Ok(certificate) => {
                self.counters.reloaded(true);
                self.tls.shown().change(certificate);
                tracing::info!(names = ?self.authority.names, "there is a new certificate");
                true
            }
            Err(error) => {
                self.counters.reloaded(false);
                self.forget_lost_account(&error);
                tracing::warn!(%error, "the authority gave no certificate");
                false
            }
        }
    }

    async fn order(&self) -> Result<Certificate, OrderError> {
        let account = self.account().await?;
        let names: Vec<Identifier> =
            self.authority.names.iter().cloned().map(Identifier::Dns).collect();
        let mut order = account.new_order(&NewOrder::new(&names)).await?;
        prove(&mut order, self.tls.challenges()).await?;
        match order.poll_ready(&STEP).await? {
            OrderStatus::Ready | OrderStatus::Valid => {}
            OrderStatus::Invalid | OrderStatus::Pending | OrderStatus::Processing => {
                return Err(OrderError::Refused(reasons(&mut order).await));
            }
        }
        let key = KeyPair::generate()?;
        let mut wanted = CertificateParams::new(self.authority.names.clone())?;
        wanted.distinguished_name = DistinguishedName::new();
        order.finalize_csr(wanted.serialize_request(&key)?.der()).await?;
        let chain = order.poll_certificate(&STEP).await?;
        let key = key.serialize_pem();
        let certificate = Certificate::read(chain.as_bytes(), key.as_bytes(), SystemTime::now())?;
        self.keep("certificate.pem", &format!("{key}{chain}"))?;
        Ok(certificate)
    }

    async fn account(&self) -> Result<Account, OrderError> {
        let builder = || match &self.authority.ca {
            Some(path) => Account::builder_with_root(path),
            None => Account::builder(),
        };
        let kept = std::fs::read(self.path("account.json")).ok();
        let kept = kept.and_then(|text| serde_json::from_slice::<KeptAccount>(&text).ok());
        if let Some(kept) = kept.filter(|kept| kept.directory == self.authority.directory) {
            return Ok(builder()?.from_credentials(kept.credentials).await?);
        }
        let contact: Vec<&str> = self.authority.contact.as_deref().into_iter().collect();
        let new = NewAccount {
            contact: &contact,
            terms_of_service_agreed: true,
            only_return_existing: false,
        };
        let directory = self.authority.directory.clone();
        let (account, credentials) = builder()?.create(&new, directory.clone(), None).await?;
        let kept = KeptAccount { directory, credentials };
        let text = serde_json::to_string(&kept).map_err(instant_acme::Error::from)?;
        self.keep("account.json", &text)?;
        Ok(account)
    }

    /// An account that the authority no longer knows is made anew the next time.
    fn forget_lost_account(&self, error: &OrderError) {
        let OrderError::Authority(instant_acme::Error::Api(problem)) = error else { return };
        let kind = problem.r#type.as_deref().unwrap_or_default();
        if kind.ends_with(":accountDoesNotExist") {
            // Where it cannot be removed, the next attempt fails with the same words.
            let _kept = std::fs::remove_file(self.path("account.json"));
        }
    }

    fn kept(&self) -> Option<Certificate> {
        let text = std::fs::read(self.path("certificate.pem")).ok()?;
        let certificate = Certificate::read(&text, &text, SystemTime::now()).ok()?;
        certificate.covers(&self.authority.names).then_some(certificate)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.authority.folder.join(name)
    }

    /// For our eyes only, whole or not at all.
    fn keep(&self, name: &str, text: &str) -> std::io::Result<()> {
        let mut file = tempfile::NamedTempFile::new_in(&self.authority.folder)?;
        file.write_all(text.as_bytes())?;
        file.as_file().sync_all()?;
        file.persist(self.path(name)).map_err(|error| error.error)?;
        Ok(())
    }
}

/// What is kept of an account.
#[derive(Serialize, Deserialize)]
struct KeptAccount {
    directory: String,
    credentials: AccountCredentials,
}

/// When to ask for the next one.
fn renewal(certificate: &Certificate) -> SystemTime {
    certificate.until() - certificate.life() / 3
}

/// Says that all names are ours, where the authority does not know it already.
async fn prove(order: &mut Order, challenges: &Challenges) -> Result<(), OrderError> {
    let mut authorizations = order.authorizations();
    while let Some(authorization) = authorizations.next().await {
        let mut authorization = authorization?;
        if authorization.status == AuthorizationStatus::Valid {
            continue;
        }
        let mut challenge =
            authorization.challenge(ChallengeType::TlsAlpn01).ok_or(OrderError::NoChallenge)?;
        let name = challenge.identifier().to_string();
        let key = proof(&name, challenge.key_authorization().digest().as_ref())?;
        challenges.prove(name, key);
        challenge.set_ready().await?;
    }
    Ok(())
}

/// A certificate that says what only the account's owner knows (RFC 8737 §3).
fn proof(name: &str, digest: &[u8]) -> Result<CertifiedKey, OrderError> {
    let key = KeyPair::generate()?;
    let mut params = CertificateParams::new(vec![name.to_owned()])?;
    params.custom_extensions.push(CustomExtension::new_acme_identifier(digest));
    let certificate = params.self_signed(&key)?;
    let key = PrivateKeyDer::Pkcs8(key.serialize_der().into());
    let key = default_provider().key_provider.load_private_key(key).map_err(OrderError::Proof)?;
    // Not compared with its key: it is critical that it is a proof, and rustls reads no such thing.
    Ok(CertifiedKey::new(vec![certificate.der().clone()], key))
}

/// What the authority says against us.
async fn reasons(order: &mut Order) -> String {
    let mut reasons = String::new();
    let mut authorizations = order.authorizations();
    while let Some(Ok(mut authorization)) = authorizations.next().await {
        let Ok(state) = authorization.refresh().await else { continue };
        for error in state.challenges.iter().filter_map(|challenge| challenge.error.as_ref()) {
            reasons.push_str(": ");
            reasons.push_str(error.detail.as_deref().unwrap_or("no reason is given"));
        }
    }
    reasons
}
