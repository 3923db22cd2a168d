//! A certificate for trying things: of an authority that nobody knows, good for a week.
//!
//! The authority's key is forgotten at once, so its certificate may be trusted without harm: it will
//! never sign anything else.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use anyhow::Context as _;
use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyPair, KeyUsagePurpose, PublicKeyData as _,
};

/// For how long it is good.
const LIFE: Duration = Duration::from_secs(7 * 86_400);
/// Clocks differ.
const BEFORE: Duration = Duration::from_secs(3600);

/// Where the certificate was written, and how to trust it.
#[derive(Debug)]
pub(crate) struct Selfmade {
    /// The certificate (PEM).
    pub(crate) certificate: PathBuf,
    /// Its key (PEM).
    pub(crate) key: PathBuf,
    /// The authority's certificate (PEM): to be trusted by programs.
    pub(crate) authority: PathBuf,
    /// SHA-256 of the public key, as Chromium's `--ignore-certificate-errors-spki-list` takes it.
    pub(crate) spki_sha256: String,
}

/// Makes a certificate for these names and addresses, and writes it to `folder`.
pub(crate) fn make(
    folder: &Path,
    names: &[String],
    addresses: &[IpAddr],
    now: SystemTime,
) -> anyhow::Result<Selfmade> {
    let mut authority = params(Vec::new(), "Bedside demo", now)?;
    authority.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    authority.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let authority = CertifiedIssuer::self_signed(authority, KeyPair::generate()?)?;

    let mut known: Vec<String> = names.to_vec();
    known.extend(addresses.iter().map(IpAddr::to_string));
    let name = known.first().cloned().unwrap_or_default();
    let mut server = params(known, &name, now)?;
    server.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    server.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    server.use_authority_key_identifier_extension = true;
    let key = KeyPair::generate()?;
    let certificate = server.signed_by(&key, &authority)?;

    let spki = digest(&SHA256, &key.subject_public_key_info());
    Ok(Selfmade {
        certificate: write(folder, "certificate.pem", &certificate.pem())?,
        key: write(folder, "key.pem", &key.serialize_pem())?,
        authority: write(folder, "ca.pem", &authority.pem())?,
        spki_sha256: STANDARD.encode(spki),
    })
}

fn params(names: Vec<String>, title: &str, now: SystemTime) -> anyhow::Result<CertificateParams> {
    let mut params = CertificateParams::new(names)?;
    params.not_before = (now - BEFORE).into();
    params.not_after = (now + LIFE).into();
    params.distinguished_name.push(DnType::CommonName, title);
    Ok(params)
}

/// The folder is its owner's alone.
fn write(folder: &Path, name: &str, text: &str) -> anyhow::Result<PathBuf> {
    let path = folder.join(name);
    std::fs::write(&path, text).with_context(|| format!("{} cannot be written", path.display()))?;
    Ok(path)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use rustls::RootCertStore;
    use rustls::client::WebPkiServerVerifier;
    use rustls::pki_types::pem::PemObject as _;
    use rustls::pki_types::{CertificateDer, ServerName, UnixTime};

    use super::*;

    #[test]
    fn it_is_good_for_its_names_with_its_authority() {
        bedside_control_plane::crypto::use_one();
        let folder = tempfile::tempdir().unwrap();
        let now = SystemTime::now();
        let made = make(folder.path(), &["localhost".into()], &[[127, 0, 0, 1].into()], now);
        let made = made.unwrap();
        let read = |path: &Path| CertificateDer::from_pem_file(path).unwrap();
        let mut roots = RootCertStore::empty();
        roots.add(read(&made.authority)).unwrap();
        let verifier = WebPkiServerVerifier::builder(Arc::new(roots)).build().unwrap();
        let leaf = read(&made.certificate);
        let good = |name: &str, at: SystemTime| {
            use rustls::client::danger::ServerCertVerifier as _;
            let name = ServerName::try_from(name.to_owned()).unwrap();
            let since = at.duration_since(SystemTime::UNIX_EPOCH).unwrap();
            verifier
                .verify_server_cert(&leaf, &[], &name, &[], UnixTime::since_unix_epoch(since))
                .is_ok()
        };
        assert!(good("localhost", now) && good("127.0.0.1", now));
        assert!(!good("example.org", now) && !good("localhost", now + 2 * LIFE));
        assert_eq!(STANDARD.decode(&made.spki_sha256).unwrap().len(), 32);
    }
}
