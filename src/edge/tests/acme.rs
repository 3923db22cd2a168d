//! Certificates from an authority: Pebble, which `tests/acme/fetch` has built, and a name server that
//! says that every name is here.

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use super::*;
use crate::config::Acme;

/// The name that is proved.
const CLINIC: &str = "video.clinic.example";
const GOOD: &str = "bedside_tls_certificates_total{result=\"good\"}";
const BAD: &str = "bedside_tls_certificates_total{result=\"bad\"}";
const ASKED: &str = "bedside_edge_connections_total{kind=\"acme\"}";

/// An authority that asks `tls_port` for proofs.
struct Authority {
    process: Child,
    directory: String,
    made: Selfmade,
    _folder: tempfile::TempDir,
    _names: JoinHandle<()>,
}

impl Drop for Authority {
    fn drop(&mut self) {
        let _gone = self.process.kill();
        let _status = self.process.wait();
    }
}

impl Authority {
    async fn start(tls_port: u16, seconds: u64) -> Self {
        let program = Path::new(env!("CARGO_MANIFEST_DIR")).join(".cache/acme/pebble");
        assert!(program.is_file(), "Pebble is missing: run tests/acme/fetch");
        let folder = tempfile::tempdir().unwrap();
        let made = certificate(folder.path());
        let names = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let names_at = names.local_addr().unwrap();
        let free = || std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let (listen, manage) = (free(), free());
        let config = serde_json::json!({ "pebble": {
            "listenAddress": listen.to_string(),
            "managementListenAddress": manage.to_string(),
            "certificate": made.certificate,
            "privateKey": made.key,
            "httpPort": 1,
            "tlsPort": tls_port,
            "retryAfter": { "authz": 1, "order": 1 },
            "keyAlgorithm": "ecdsa",
            "profiles": { "default": { "description": "for a test", "validityPeriod": seconds } },
        }});
        let path = folder.path().join("pebble.json");
        std::fs::write(&path, config.to_string()).unwrap();
        let process = Command::new(program)
            .args(["-config".into(), path.display().to_string()])
            .args(["-dnsserver".into(), names_at.to_string()])
            .env("PEBBLE_VA_NOSLEEP", "1")
            // A refused nonce now and then is borne, but several in a row are not.
            .env("PEBBLE_WFE_NONCEREJECT", "0")
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let authority = Self {
            process,
            directory: format!("https://localhost:{}/dir", listen.port()),
            made,
            _folder: folder,
            _names: tokio::spawn(all_names_are_here(names)),
        };
        let listening = async {
            while TcpStream::connect(listen).await.is_err() {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        tokio::time::timeout(PATIENCE, listening).await.expect("Pebble listens");
        authority
    }

    fn asked_by(&self, folder: &Path) -> CertificateSource {
        CertificateSource::Acme(Acme {
            names: vec![CLINIC.to_owned()],
            directory: self.directory.clone(),
            contact: Some("mailto:it@clinic.example".to_owned()),
            ca: Some(self.made.authority.clone()),
            folder: folder.to_owned(),
        })
    }
}

/// Answers 127.0.0.1 to questions for an IPv4 address, and nothing to others (RFC 1035 §4); over TCP,
/// as Pebble asks.
async fn all_names_are_here(listener: TcpListener) {
    while let Ok((stream, _)) = listener.accept().await {
        tokio::spawn(answer_names(stream));
    }
}

async fn answer_names(mut stream: TcpStream) {
    while let Ok(len) = stream.read_u16().await {
        let mut question = vec![0; usize::from(len)];
        stream.read_exact(&mut question).await.unwrap();
        let end = 12 + question[12..].iter().position(|byte| *byte == 0).unwrap() + 5;
        let is_address = question[end - 4..end - 2] == [0, 1];
        // The same number and question; recursion is there; answers, if any.
        let mut answer = question[..end].to_vec();
        answer[2..4].copy_from_slice(&[0x81, 0x80]);
        answer[6..12].copy_from_slice(&[0, u8::from(is_address), 0, 0, 0, 0]);
        if is_address {
            answer.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 127, 0, 0, 1]);
        }
        stream.write_u16(u16::try_from(answer.len()).unwrap()).await.unwrap();
        stream.write_all(&answer).await.unwrap();
    }
}

/// Who is shown what: the names of the certificate on a new connection.
async fn serial(site: &Site) -> Option<Vec<u8>> {
    let mut config = ClientConfig::builder()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Anyone))
        .with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    let name = ServerName::try_from(CLINIC).unwrap();
    let connector = TlsConnector::from(Arc::new(config));
    let stream = connector.connect(name, site.connect().await).await.ok()?;
    let shown = stream.get_ref().1.peer_certificates()?.first()?.clone();
    let (_, parsed) = x509_parser::parse_x509_certificate(&shown).unwrap();
    let names = parsed.subject_alternative_name().unwrap().unwrap();
    assert!(format!("{names:?}").contains(CLINIC));
    Some(parsed.raw_serial().to_vec())
}

/// Pebble makes another root at every start; who it is is not what is tested.
#[derive(Debug)]
struct Anyone;

impl rustls::client::danger::ServerCertVerifier for Anyone {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: rustls::pki_types::UnixTime,
    ) -> Result<rustls::client::danger::ServerCertVerified, rustls::Error> {
        Ok(rustls::client::danger::ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        Ok(rustls::client::danger::HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        Ok(rustls::client::danger::HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
        vec![rustls::SignatureScheme::ECDSA_NISTP256_SHA256]
    }
}

fn kept(folder: &Path) -> Vec<(PathBuf, u32)> {
    use std::os::unix::fs::PermissionsExt as _;
    let mut kept: Vec<(PathBuf, u32)> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .map(|path| (path.clone(), path.metadata().unwrap().permissions().mode() & 0o777))
        .collect();
    kept.sort();
    kept
}

#[tokio::test]
async fn an_authority_gives_a_certificate_renews_it_and_is_not_asked_again() {
    let edge = Edge::bind(([127, 0, 0, 1], 0).into(), "tests").unwrap();
    let port = edge.address().port();
    // A third of it is left after 30 s.
    let authority = Authority::start(port, 45).await;
    let home = tempfile::tempdir().unwrap();
    let folder = home.path().join("acme");
    let site = Site::with(edge, Settings::default(), &authority.asked_by(&folder));
    site.counts(GOOD, 1).await;
    let first = serial(&site).await.unwrap();
    assert!(site.metric(ASKED) >= 1);
    assert_eq!(
        kept(&folder),
        [(folder.join("account.json"), 0o600), (folder.join("certificate.pem"), 0o600)]
    );
    site.counts(GOOD, 2).await;
    assert_ne!(serial(&site).await.unwrap(), first);
    assert_eq!(site.metric(BAD), 0);
}

#[tokio::test]
async fn what_was_kept_is_shown_after_a_restart_without_the_authority() {
    let edge = Edge::bind(([127, 0, 0, 1], 0).into(), "tests").unwrap();
    let authority = Authority::start(edge.address().port(), 86_400).await;
    let home = tempfile::tempdir().unwrap();
    let source = authority.asked_by(home.path());
    let site = Site::with(edge, Settings::default(), &source);
    site.counts(GOOD, 1).await;
    let first = serial(&site).await.unwrap();
    drop((site, authority));
    let edge = Edge::bind(([127, 0, 0, 1], 0).into(), "tests").unwrap();
    let site = Site::with(edge, Settings::default(), &source);
    assert_eq!(serial(&site).await.unwrap(), first);
    assert_eq!((site.metric(GOOD), site.metric(BAD)), (0, 0));
}

#[tokio::test]
async fn without_a_proof_there_is_no_certificate_and_no_connection() {
    let edge = Edge::bind(([127, 0, 0, 1], 0).into(), "tests").unwrap();
    // It asks somewhere else: nobody is there.
    let authority = Authority::start(1, 86_400).await;
    let home = tempfile::tempdir().unwrap();
    let site = Site::with(edge, Settings::default(), &authority.asked_by(home.path()));
    site.counts(BAD, 1).await;
    assert!(serial(&site).await.is_none());
    assert_eq!(site.metric("bedside_tls_certificate_expiry_seconds"), 0);
    assert_eq!(kept(home.path()).len(), 1, "the account");
}
