//! Section `tls`: the port that gets through, and the certificate that it shows.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{Config, ConfigError};

/// Let's Encrypt's directory.
const LETS_ENCRYPT: &str = "https://acme-v02.api.letsencrypt.org/directory";

/// HTTPS, TURN and ICE-TCP on one port.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Tls {
    /// Address and port to listen on, usually port 443; empty = there is no TLS.
    #[serde(with = "super::forms::optional_address")]
    pub(crate) listen: Option<SocketAddr>,
    /// Host names of this machine. The first one is told to clients.
    pub(crate) names: Vec<String>,
    /// The certificate and those between it and its authority (PEM).
    pub(crate) certificate_path: String,
    /// Its private key (PEM).
    pub(crate) key_path: String,
    /// Fetch the certificate from an authority (ACME), whose terms are agreed to by this.
    pub(crate) acme: bool,
    /// The authority's directory.
    pub(crate) acme_directory: String,
    /// Who is told of trouble with the certificate: `name@clinic.example`; empty = nobody.
    pub(crate) acme_contact: String,
    /// A certificate (PEM) that is trusted for the directory instead of the system's.
    pub(crate) acme_ca_path: String,
    /// Where account and certificate are kept; empty = `bedside-acme`, beside the database where that
    /// is a file.
    pub(crate) acme_folder: String,
    /// Send those who come to `http.listen` here.
    pub(crate) redirect: bool,
    /// How long browsers shall refuse to come without TLS; `0s` = they are told nothing.
    #[serde(with = "super::forms::period")]
    pub(crate) hsts: Duration,
}

impl Default for Tls {
    fn default() -> Self {
        Self {
            listen: None,
            names: Vec::new(),
            certificate_path: String::new(),
            key_path: String::new(),
            acme: false,
            acme_directory: LETS_ENCRYPT.to_owned(),
            acme_contact: String::new(),
            acme_ca_path: String::new(),
            acme_folder: String::new(),
            redirect: true,
            hsts: Duration::from_secs(180 * 86_400),
        }
    }
}

/// Where the certificate comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum CertificateSource {
    /// Two files, read again when they change.
    Files {
        /// The chain.
        certificate: PathBuf,
        /// The key.
        key: PathBuf,
    },
    /// An authority that is asked for it.
    Acme(Acme),
}

/// How an authority is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Acme {
    /// The names that the certificate is for.
    pub(crate) names: Vec<String>,
    /// The authority's directory.
    pub(crate) directory: String,
    /// `mailto:…`, or nothing.
    pub(crate) contact: Option<String>,
    /// A certificate that is trusted instead of the system's.
    pub(crate) ca: Option<PathBuf>,
    /// Where account and certificate are kept.
    pub(crate) folder: PathBuf,
}

impl Config {
    /// Where to listen with TLS, and with which certificate; nothing where there is no TLS.
    pub(crate) fn secured(&self) -> Result<Option<(SocketAddr, CertificateSource)>, ConfigError> {
        let tls = &self.tls;
        let wrong = |text: &str| Err(ConfigError::Invalid(text.to_owned()));
        let files = (!tls.certificate_path.is_empty(), !tls.key_path.is_empty());
        let Some(listen) = tls.listen else {
            if tls.acme || files.0 || files.1 {
                return wrong("there is a certificate, but tls.listen is not set");
            }
            return Ok(None);
        };
        if let Some(name) = tls.names.iter().find(|name| !is_host_name(name)) {
            return wrong(&format!("tls.names: {name:?} is not a host name"));
        }
        let source = match (tls.acme, files) {
            (false, (true, true)) => CertificateSource::Files {
                certificate: PathBuf::from(&tls.certificate_path),
                key: PathBuf::from(&tls.key_path),
            },
            (true, (false, false)) => CertificateSource::Acme(self.acme()?),
            (true, _) => return wrong("tls.acme and tls.certificate_path exclude each other"),
            (false, _) => {
                return wrong(
                    "tls.listen needs tls.certificate_path and tls.key_path, or tls.acme = true",
                );
            }
        };
        Ok(Some((listen, source)))
    }

    fn acme(&self) -> Result<Acme, ConfigError> {
        let tls = &self.tls;
        if tls.names.is_empty() {
            return Err(ConfigError::Invalid("tls.acme needs tls.names".to_owned()));
        }
        let some = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        Ok(Acme {
            names: tls.names.iter().map(|name| name.to_ascii_lowercase()).collect(),
            directory: tls.acme_directory.clone(),
            contact: some(&tls.acme_contact).map(|name| format!("mailto:{name}")),
            ca: some(&tls.acme_ca_path).map(PathBuf::from),
            folder: super::objects::beside_database(
                &tls.acme_folder,
                "bedside-acme",
                self.database_url.reveal(),
            ),
        })
    }
}

/// Something that a certificate can be had for, and that `turns:` addresses may name (RFC 1123 §2.1).
fn is_host_name(name: &str) -> bool {
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    name.len() <= 253 && name.parse::<IpAddr>().is_err() && name.split('.').all(label)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(change: impl FnOnce(&mut Tls)) -> Config {
        let mut config = Config::default();
        config.tls.listen = Some(([0, 0, 0, 0], 443).into());
        change(&mut config.tls);
        config
    }

    #[test]
    fn a_port_needs_a_certificate_and_a_certificate_a_port() {
        assert_eq!(Config::default().secured().unwrap(), None);
        let both = |tls: &mut Tls| {
            tls.certificate_path = "c.pem".to_owned();
            tls.key_path = "k.pem".to_owned();
        };
        let (listen, source) = config(both).secured().unwrap().unwrap();
        assert_eq!(listen.port(), 443);
        assert!(matches!(source, CertificateSource::Files { .. }));
        for (config, word) in [
            (config(|_| ()), "tls.certificate_path"),
            (config(|tls| tls.certificate_path = "c.pem".to_owned()), "tls.key_path"),
            (config(|tls| tls.acme = true), "tls.names"),
            (config(|tls| (both(tls), tls.acme = true).1), "exclude"),
            (config(|tls| (both(tls), tls.listen = None).1), "tls.listen"),
            (config(|tls| (tls.acme = true, tls.names = vec!["192.0.2.1".into()]).1), "192.0.2.1"),
        ] {
            let error = config.secured().unwrap_err().to_string();
            assert!(error.contains(word), "{word} is not in {error}");
        }
    }

    #[test]
    fn an_authority_is_asked_for_the_names() {
        let asked = config(|tls| {
            tls.acme = true;
            tls.names = vec!["Video.Clinic.example".to_owned()];
            tls.acme_contact = "it@clinic.example".to_owned();
        });
        let (_, CertificateSource::Acme(acme)) = asked.secured().unwrap().unwrap() else {
            panic!("not the authority")
        };
        assert_eq!(acme.names, ["video.clinic.example"]);
        assert_eq!(acme.contact.as_deref(), Some("mailto:it@clinic.example"));
        assert_eq!(acme.folder, PathBuf::from("bedside-acme"));
        assert!(acme.directory.contains("letsencrypt"));
    }

    #[test]
    fn host_names_are_told_from_other_texts() {
        for good in ["localhost", "video.clinic.example", "xn--bcher-kva.example", "a-b.c1"] {
            assert!(is_host_name(good), "{good}");
        }
        let long = "a".repeat(64);
        for bad in ["", ".", "a.", "-a.b", "a_b", "a b", "*.a", "::1", "10.0.0.1", "a/b", &long] {
            assert!(!is_host_name(bad), "{bad}");
        }
    }
}
