//! The certificate: its dates, its names, its chain, and whether the key is its own.

use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use x509_parser::certificate::X509Certificate;
use x509_parser::prelude::FromDer as _;

use super::finding::Finding;

const CHECK: &str = "certificate";
const DAY: i64 = 86_400;
/// Authorities renew a month before the end; what is nearer was forgotten.
const SOON: i64 = 14 * DAY;

/// What is to be done about a certificate that is no good.
const RENEW: &str = "certbot renew (or your authority's way), or set tls.acme = true";

/// Looks at the two files.
pub(super) fn files(
    certificate: &Path,
    key: &Path,
    names: &[String],
    now: SystemTime,
) -> Vec<Finding> {
    let read = |path: &Path| {
        std::fs::read(path).map_err(|error| {
            let path = path.display();
            Finding::error(
                CHECK,
                format!("{path} cannot be read ({error})."),
                format!("ls -l {path}; the service's user must be able to read it"),
            )
        })
    };
    match (read(certificate), read(key)) {
        (Ok(certificate), Ok(key)) => judge(&certificate, &key, names, now),
        (certificate, key) => [certificate.err(), key.err()].into_iter().flatten().collect(),
    }
}

/// What the texts of the files say.
fn judge(certificate: &[u8], key: &[u8], names: &[String], now: SystemTime) -> Vec<Finding> {
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(certificate).collect();
    let chain = chain.unwrap_or_default();
    let Some(first) = chain.first() else {
        let says = "the certificate's file holds no certificate (PEM).";
        return vec![Finding::error(CHECK, says, RENEW)];
    };
    let Ok((_, leaf)) = X509Certificate::from_der(first) else {
        return vec![Finding::error(CHECK, "the certificate cannot be read.", RENEW)];
    };
    let now = now.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let now = i64::try_from(now).unwrap_or(i64::MAX);
    let mut findings: Vec<_> = dates(&leaf, now).into_iter().collect();
    findings.extend(names_of(first, names));
    findings.extend(links(&leaf, &chain));
    findings.extend(key_of(&chain, key));
    if findings.is_empty() {
        let days = (leaf.validity().not_after.timestamp() - now) / DAY;
        findings.push(Finding::ok(CHECK, format!("it is good for {days} days more.")));
    }
    findings
}

fn dates(leaf: &X509Certificate<'_>, now: i64) -> Option<Finding> {
    let validity = leaf.validity();
    let (from, to) = (validity.not_before.timestamp(), validity.not_after.timestamp());
    if now < from {
        let says = format!("the certificate is good from {} only.", validity.not_before);
        let fix = "look at this machine's clock (timedatectl), or wait";
        return Some(Finding::error(CHECK, says, fix));
    }
    if now >= to {
        let says = format!("the certificate has ended on {}.", validity.not_after);
        return Some(Finding::error(CHECK, says, RENEW));
    }
    // Short-lived ones are renewed late, too.
    let soon = SOON.min((to - from) / 4);
    let days = (to - now) / DAY;
    (to - now < soon)
        .then(|| Finding::warning(CHECK, format!("the certificate ends in {days} days."), RENEW))
}

fn names_of(leaf: &CertificateDer<'_>, names: &[String]) -> Vec<Finding> {
    let Ok(parsed) = rustls::server::ParsedCertificate::try_from(leaf) else {
        return vec![Finding::error(CHECK, "the certificate cannot be used for TLS.", RENEW)];
    };
    let fits = |name: &&String| {
        ServerName::try_from(name.as_str())
            .is_ok_and(|name| rustls::client::verify_server_name(&parsed, &name).is_ok())
    };
    let wrong = names.iter().filter(|name| !fits(name));
    wrong
        .map(|name| {
            let fix = format!("get one whose subject alternative names have {name}");
            Finding::error(CHECK, format!("the certificate is not for {name}."), fix)
        })
        .collect()
}

/// Does each certificate come from the next one, and is there a next one at all?
fn links(leaf: &X509Certificate<'_>, chain: &[CertificateDer<'_>]) -> Option<Finding> {
    let parsed = chain.iter().filter_map(|der| X509Certificate::from_der(der).ok());
    let parsed: Vec<_> = parsed.map(|(_, certificate)| certificate).collect();
    let broken = parsed.iter().zip(parsed.iter().skip(1)).any(|(child, parent)| {
        child.issuer() != parent.subject()
            || child.verify_signature(Some(parent.public_key())).is_err()
    });
    if broken || parsed.len() != chain.len() {
        let fix = "put the server's certificate first, then those between it and its authority";
        return Some(Finding::error(
            CHECK,
            "the certificates of the chain do not belong together.",
            fix,
        ));
    }
    let own = leaf.issuer() == leaf.subject();
    if own {
        let says = "the certificate has signed itself: browsers warn, and phones may refuse calls.";
        return Some(Finding::warning(
            CHECK,
            says,
            "set tls.acme = true, or get one from an authority",
        ));
    }
    (chain.len() == 1).then(|| {
        Finding::warning(
            CHECK,
            "the file holds one certificate alone: where the authority's is not known, TLS fails.",
            "use the full chain (certbot: fullchain.pem)",
        )
    })
}

fn key_of(chain: &[CertificateDer<'_>], key: &[u8]) -> Option<Finding> {
    let Ok(key) = PrivateKeyDer::from_pem_slice(key) else {
        let says = "the key's file holds no private key (PEM).";
        return Some(Finding::error(
            CHECK,
            says,
            "set tls.key_path to the key that was made with it",
        ));
    };
    let Ok(key) = rustls::crypto::aws_lc_rs::sign::any_supported_type(&key) else {
        let says = "the private key is of a kind that TLS does not take.";
        return Some(Finding::error(CHECK, says, "use an ECDSA P-256 or an RSA key of 2048 bits"));
    };
    let chain = chain.iter().map(|der| der.clone().into_owned()).collect();
    let fits = rustls::sign::CertifiedKey::new(chain, key).keys_match().is_ok();
    (!fits).then(|| {
        let fix = "set tls.key_path to the key that was made with it";
        Finding::error(CHECK, "the private key is not that of the certificate.", fix)
    })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};

    use super::super::finding::Level;
    use super::*;

    const NAME: &str = "video.clinic.example";

    /// A certificate with its authority's behind it, and its key, as PEM.
    struct Made {
        leaf: String,
        authority: String,
        key: String,
    }

    fn made(days: (i64, i64)) -> Made {
        let authority_key = KeyPair::generate().unwrap();
        let mut authority = CertificateParams::new(Vec::new()).unwrap();
        authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        authority.distinguished_name.push(rcgen::DnType::CommonName, "an authority");
        let authority_pem = authority.self_signed(&authority_key).unwrap().pem();
        let issuer = Issuer::new(authority, authority_key);
        let key = KeyPair::generate().unwrap();
        let mut leaf = CertificateParams::new(vec![NAME.to_owned()]).unwrap();
        leaf.distinguished_name.push(rcgen::DnType::CommonName, "a server");
        let at = |days: i64| {
            let seconds = now().duration_since(UNIX_EPOCH).unwrap().as_secs();
            let seconds = i64::try_from(seconds).unwrap() + days * DAY + 60;
            x509_parser::time::ASN1Time::from_timestamp(seconds).unwrap().to_datetime()
        };
        leaf.not_before = at(days.0);
        leaf.not_after = at(days.1);
        let leaf = leaf.signed_by(&key, &issuer).unwrap().pem();
        Made { leaf, authority: authority_pem, key: key.serialize_pem() }
    }

    fn now() -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(1_800_000_000)
    }

    fn found(chain: &str, key: &str, name: &str) -> Vec<Finding> {
        judge(chain.as_bytes(), key.as_bytes(), &[name.to_owned()], now())
    }

    #[test]
    fn a_good_one_is_good() {
        let Made { leaf, authority, key } = made((-1, 89));
        let findings = found(&format!("{leaf}{authority}"), &key, NAME);
        assert_eq!(findings, [Finding::ok(CHECK, "it is good for 89 days more.")]);
    }

    #[test]
    fn what_is_wrong_with_one_is_said() {
        let whole = |made: &Made| format!("{}{}", made.leaf, made.authority);
        let (good, other) = (made((-1, 89)), made((-1, 89)));
        let (late, early, soon) = (made((-90, -1)), made((1, 90)), made((-80, 5)));
        for (chain, key, name, level, words) in [
            (whole(&late), &late.key, NAME, Level::Error, "has ended"),
            (whole(&early), &early.key, NAME, Level::Error, "is good from"),
            (whole(&soon), &soon.key, NAME, Level::Warning, "ends in 5 days"),
            (whole(&good), &other.key, NAME, Level::Error, "not that of the certificate"),
            (whole(&good), &good.key, "other.example", Level::Error, "not for other.example"),
            (good.leaf.clone(), &good.key, NAME, Level::Warning, "one certificate alone"),
            (
                format!("{}{}", good.leaf, other.authority),
                &good.key,
                NAME,
                Level::Error,
                "do not belong together",
            ),
            (String::new(), &good.key, NAME, Level::Error, "holds no certificate"),
            (whole(&good), &good.leaf, NAME, Level::Error, "no private key"),
        ] {
            let findings = found(&chain, key, name);
            let told = findings.iter().find(|finding| finding.says.contains(words));
            assert_eq!(told.map(|finding| finding.level), Some(level), "{words}: {findings:?}");
            assert!(told.unwrap().fix.is_some());
        }
    }

    #[test]
    fn one_that_signed_itself_is_a_warning() {
        let own = rcgen::generate_simple_self_signed(vec![NAME.to_owned()]).unwrap();
        let (pem, key) = (own.cert.pem(), own.signing_key.serialize_pem());
        let findings = found(&pem, &key, NAME);
        assert!(findings.iter().any(|f| f.says.contains("signed itself")), "{findings:?}");
    }

    #[test]
    fn broken_files_are_told_and_do_no_harm() {
        let Made { leaf, authority, key } = made((-1, 89));
        let chain = format!("{leaf}{authority}");
        for end in (0..chain.len()).step_by(17) {
            let findings = found(&chain[..end], &key[..end.min(key.len())], NAME);
            assert!(findings.iter().all(|finding| !finding.says.is_empty()));
        }
        let missing = Path::new("/nowhere/cert.pem");
        let findings = files(missing, missing, &[], now());
        assert_eq!(findings.len(), 2);
        assert!(findings.iter().all(|finding| finding.level == Level::Error));
    }
}
