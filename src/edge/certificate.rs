//! The certificate that is shown, and where it is read from.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, SystemTime};

use rustls::crypto::aws_lc_rs::default_provider;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use tokio::sync::{Notify, watch};
use x509_parser::parse_x509_certificate;

use super::counters::EdgeCounters;

/// How often files are looked at.
const LOOK: Duration = Duration::from_secs(2);
/// A chain longer than this is no certificate.
const FILE_BYTES: u64 = 1 << 20;
/// Time enough to do something about it.
const SOON: Duration = Duration::from_secs(3 * 86_400);

/// What is wrong with a certificate or its key.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CertificateError {
    /// A file cannot be read.
    #[error("{path}: {source}")]
    File {
        /// Which.
        path: String,
        /// Why not.
        source: std::io::Error,
    },
    /// The certificate's PEM holds none.
    #[error("there is no certificate in it")]
    NoCertificate,
    /// The key's PEM holds none.
    #[error("there is no private key in it")]
    NoKey,
    /// The certificate is not X.509.
    #[error("the certificate cannot be read")]
    Unreadable,
    /// It has ended.
    #[error("the certificate has expired")]
    Expired,
    /// Key and certificate are not of one pair, or the key's kind is not known.
    #[error("the key does not fit the certificate ({0})")]
    Key(rustls::Error),
}

/// A certificate with its key.
#[derive(Clone)]
pub(crate) struct Certificate {
    key: Arc<CertifiedKey>,
    from: SystemTime,
    until: SystemTime,
    names: Vec<String>,
}

impl fmt::Debug for Certificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Certificate").field("until", &self.until).finish_non_exhaustive()
    }
}

impl Certificate {
    /// Reads chain and key, as they are at this time.
    pub(crate) fn read(
        chain: &[u8],
        key: &[u8],
        now: SystemTime,
    ) -> Result<Self, CertificateError> {
        let chain: Vec<CertificateDer<'static>> = CertificateDer::pem_slice_iter(chain)
            .collect::<Result<_, _>>()
            .map_err(|_| CertificateError::NoCertificate)?;
        let leaf = chain.first().ok_or(CertificateError::NoCertificate)?;
        let (_, parsed) = parse_x509_certificate(leaf).map_err(|_| CertificateError::Unreadable)?;
        let moment = |time: x509_parser::time::ASN1Time| {
            let seconds = u64::try_from(time.timestamp()).unwrap_or(0);
            SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
        };
        let (from, until) =
            (moment(parsed.validity().not_before), moment(parsed.validity().not_after));
        if until <= now {
            return Err(CertificateError::Expired);
        }
        let names = names(&parsed);
        let key = PrivateKeyDer::from_pem_slice(key).map_err(|_| CertificateError::NoKey)?;
        let key = CertifiedKey::from_der(chain, key, &default_provider())
            .map_err(CertificateError::Key)?;
        Ok(Self { key: Arc::new(key), from, until, names })
    }

    /// When it ends.
    pub(crate) const fn until(&self) -> SystemTime {
        self.until
    }

    /// How long it was made for.
    pub(super) fn life(&self) -> Duration {
        self.until.duration_since(self.from).unwrap_or_default()
    }

    /// Whether it is for all of these.
    pub(super) fn covers(&self, names: &[String]) -> bool {
        names.iter().all(|name| self.names.iter().any(|own| own.eq_ignore_ascii_case(name)))
    }
}

fn names(certificate: &x509_parser::certificate::X509Certificate<'_>) -> Vec<String> {
    use x509_parser::extensions::GeneralName;
    let Ok(Some(names)) = certificate.subject_alternative_name() else { return Vec::new() };
    let name = |name: &GeneralName<'_>| match name {
        GeneralName::DNSName(name) => Some((*name).to_owned()),
        _ => None,
    };
    names.value.general_names.iter().filter_map(name).collect()
}

/// The certificate that new connections get. Nothing at first, where an authority must be asked.
#[derive(Default)]
pub(crate) struct Shown {
    current: RwLock<Option<Certificate>>,
}

impl fmt::Debug for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Shown").field(&self.current()).finish()
    }
}

impl Shown {
    /// What is shown now.
    pub(crate) fn current(&self) -> Option<Certificate> {
        self.current.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Shows another one from here on; open connections go on.
    pub(super) fn change(&self, certificate: Certificate) {
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = Some(certificate);
    }
}

impl ResolvesServerCert for Shown {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        // Whatever name was asked for: there is one certificate, and an old client asks for none.
        Some(self.current()?.key)
    }
}

/// Two files.
#[derive(Clone, Debug)]
pub(super) struct Files {
    certificate: PathBuf,
    key: PathBuf,
}

impl Files {
    /// Chain and key.
    pub(super) const fn new(certificate: PathBuf, key: PathBuf) -> Self {
        Self { certificate, key }
    }

    fn content(&self) -> Result<[Vec<u8>; 2], CertificateError> {
        Ok([read(&self.certificate)?, read(&self.key)?])
    }

    /// Reads them for the first time.
    pub(super) fn load(&self) -> Result<Certificate, CertificateError> {
        let [chain, key] = self.content()?;
        Certificate::read(&chain, &key, SystemTime::now())
    }

    /// Shows what they hold whenever that has changed, and when `again` rings.
    pub(super) async fn watch(
        self,
        shown: Arc<Shown>,
        again: Arc<Notify>,
        counters: EdgeCounters,
        mut stop: watch::Receiver<bool>,
    ) {
        let mut seen = self.content().ok();
        loop {
            let asked = tokio::select! {
                () = tokio::time::sleep(LOOK) => false,
                () = again.notified() => true,
                () = super::told(&mut stop) => return,
            };
            let files = self.clone();
            let Ok(content) = tokio::task::spawn_blocking(move || files.content()).await else {
                continue;
            };
            if !asked && content.as_ref().ok() == seen.as_ref() {
                continue;
            }
            // Both are rarely replaced at once: what is still changing is looked at later.
            let stable = asked || content.as_ref().ok() == self.content_later().await.as_ref();
            if !stable {
                continue;
            }
            let first_miss = content.is_ok() || seen.is_some();
            seen = content.as_ref().ok().cloned();
            let read =
                content.and_then(|[chain, key]| Certificate::read(&chain, &key, SystemTime::now()));
            match read {
                Ok(certificate) => {
                    warn_if_ending(&certificate, SystemTime::now());
                    shown.change(certificate);
                    counters.reloaded(true);
                    tracing::info!("the certificate was read again");
                }
                Err(error) if asked || first_miss => {
                    counters.reloaded(false);
                    tracing::warn!(%error, "the new certificate is no good: the old one stays");
                }
                Err(_) => {}
            }
        }
    }

    async fn content_later(&self) -> Option<[Vec<u8>; 2]> {
        tokio::time::sleep(LOOK / 8).await;
        let files = self.clone();
        tokio::task::spawn_blocking(move || files.content()).await.ok()?.ok()
    }
}

/// Says so where the end is near.
pub(super) fn warn_if_ending(certificate: &Certificate, now: SystemTime) {
    if certificate.until() <= now + SOON {
        tracing::warn!("the certificate ends within three days");
    }
}

fn read(path: &Path) -> Result<Vec<u8>, CertificateError> {
    use std::io::Read as _;
    let failed = |source| CertificateError::File { path: path.display().to_string(), source };
    let file = std::fs::File::open(path).map_err(failed)?;
    let mut content = Vec::new();
    file.take(FILE_BYTES).read_to_end(&mut content).map_err(failed)?;
    Ok(content)
}
