//! TLS: 1.2 and 1.3, with suites that keep secrets even of whoever gets the key later.
//!
//! rustls refuses a client whose list of protocols (ALPN) holds none of ours. Browsers send a list for
//! HTTPS and none for `turns:`; other TURN clients may send one of their own. So a list is answered only
//! where it names HTTP/1.1, and everybody else is known by the first bytes.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use rustls::ServerConfig;
use rustls::crypto::aws_lc_rs::{Ticketer, default_provider};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::version::{TLS12, TLS13};

use super::certificate::Shown;

const HTTP: &[u8] = b"http/1.1";
/// RFC 8737 §6.2.
const ACME: &[u8] = b"acme-tls/1";

/// What a client wants, told by its ClientHello.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wanted {
    /// HTTPS.
    Http,
    /// An authority's proof that we have the name.
    Challenge,
    /// Told by what it says next.
    Unsaid,
}

/// The settings of all TLS connections.
#[derive(Clone)]
pub(crate) struct Tls {
    http: Arc<ServerConfig>,
    unsaid: Arc<ServerConfig>,
    challenge: Arc<ServerConfig>,
    shown: Arc<Shown>,
    challenges: Arc<Challenges>,
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Tls").field(&self.shown).finish()
    }
}

impl Tls {
    /// Shows what `shown` has.
    pub(crate) fn new(shown: Arc<Shown>) -> Result<Self, rustls::Error> {
        let challenges = Arc::new(Challenges::default());
        let mut unsaid = config(Arc::clone(&shown) as _)?;
        unsaid.ticketer = Ticketer::new()?;
        let mut http = unsaid.clone();
        http.alpn_protocols = vec![HTTP.to_vec()];
        let mut challenge = config(Arc::clone(&challenges) as _)?;
        challenge.alpn_protocols = vec![ACME.to_vec()];
        Ok(Self {
            http: Arc::new(http),
            unsaid: Arc::new(unsaid),
            challenge: Arc::new(challenge),
            shown,
            challenges,
        })
    }

    /// The certificate.
    pub(crate) const fn shown(&self) -> &Arc<Shown> {
        &self.shown
    }

    /// Proofs that an authority may ask for.
    pub(super) const fn challenges(&self) -> &Arc<Challenges> {
        &self.challenges
    }

    /// How to go on with a client that said hello.
    pub(super) fn choose(&self, hello: &ClientHello<'_>) -> (Wanted, Arc<ServerConfig>) {
        let wanted = wanted(hello.alpn());
        let config = match wanted {
            Wanted::Http => &self.http,
            Wanted::Challenge => &self.challenge,
            Wanted::Unsaid => &self.unsaid,
        };
        (wanted, Arc::clone(config))
    }
}

fn wanted<'a>(protocols: Option<impl Iterator<Item = &'a [u8]>>) -> Wanted {
    let protocols: Vec<&[u8]> = protocols.into_iter().flatten().collect();
    if protocols == [ACME] {
        Wanted::Challenge
    } else if protocols.contains(&HTTP) {
        Wanted::Http
    } else {
        Wanted::Unsaid
    }
}

fn config(resolver: Arc<dyn ResolvesServerCert>) -> Result<ServerConfig, rustls::Error> {
    // The provider's own list: AEAD suites with ephemeral keys, nothing else.
    let config = ServerConfig::builder_with_provider(Arc::new(default_provider()))
        .with_protocol_versions(&[&TLS13, &TLS12])?
        .with_no_client_auth()
        .with_cert_resolver(resolver);
    Ok(config)
}

/// Proofs for an authority, by name, while it asks for them.
#[derive(Debug, Default)]
pub(super) struct Challenges(Mutex<HashMap<String, Arc<CertifiedKey>>>);

impl Challenges {
    /// Proves `name` from here on.
    pub(super) fn prove(&self, name: String, key: CertifiedKey) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(name, Arc::new(key));
    }

    /// Proves nothing any more.
    pub(super) fn clear(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }
}

impl ResolvesServerCert for Challenges {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let name = hello.server_name()?;
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(name).cloned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(protocols: &[&'static [u8]]) -> Wanted {
        wanted(Some(protocols.iter().copied()))
    }

    #[test]
    fn only_a_list_with_http_is_answered() {
        assert_eq!(wanted(None::<std::iter::Empty<&[u8]>>), Wanted::Unsaid);
        assert_eq!(list(&[b"h2", b"http/1.1"]), Wanted::Http);
        assert_eq!(list(&[b"acme-tls/1"]), Wanted::Challenge);
        assert_eq!(list(&[b"acme-tls/1", b"http/1.1"]), Wanted::Http);
        for other in [&b"h2"[..], b"stun.turn", b"webrtc", b""] {
            assert_eq!(list(&[other]), Wanted::Unsaid);
        }
    }

    #[test]
    fn no_suite_is_weak() {
        for suite in default_provider().cipher_suites {
            let name = format!("{:?}", suite.suite());
            let strong = name.contains("GCM") || name.contains("CHACHA20_POLY1305");
            assert!(strong && (name.contains("ECDHE") || name.starts_with("TLS13")), "{name}");
        }
    }
}
