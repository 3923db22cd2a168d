//! The edge as clients find it: real sockets, hostile ones among them.

mod acme;
mod certificates;
mod hostile;
mod served;

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, SystemTime};

use axum::Router;
use axum::body::Bytes;
use axum::routing::{get, post};
use bedside_control_plane::address::TrustedProxies;
use bedside_sfu::core::counters::Counters;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::*;
use crate::config::CertificateSource;
use crate::http;
use crate::selfmade::{self, Selfmade};

/// Nothing here takes so long, whatever else the machine does.
const PATIENCE: Duration = Duration::from_secs(120);
/// The host name of every certificate here.
const NAME: &str = "localhost";

/// A running edge with a certificate in a folder.
struct Site {
    address: SocketAddr,
    folder: tempfile::TempDir,
    made: Selfmade,
    metrics: Metrics,
    secure: Secure,
    stop: watch::Sender<bool>,
    running: JoinHandle<()>,
}

/// What a site is made with.
struct Settings {
    places: usize,
    per_address: usize,
}

impl Default for Settings {
    fn default() -> Self {
        Self { places: 10_000, per_address: 10_000 }
    }
}

fn certificate(folder: &Path) -> Selfmade {
    let here = [IpAddr::from([127, 0, 0, 1])];
    selfmade::make(folder, &[NAME.to_owned()], &here, SystemTime::now()).unwrap()
}

/// Requests for the slow page that have begun.
static SLOW: AtomicUsize = AtomicUsize::new(0);

async fn slow() -> &'static str {
    SLOW.fetch_add(1, Ordering::Relaxed);
    tokio::time::sleep(Duration::from_millis(500)).await;
    "slowly"
}

/// What people come for: a page, a body that is counted, an answer that is long.
fn pages() -> Router {
    Router::new()
        .route("/hello", get(|| async { "hello" }))
        .route("/slow", get(slow))
        .route("/long", get(|| async { vec![b'x'; 32 << 20] }))
        .route("/count", post(|body: Bytes| async move { body.len().to_string() }))
}

impl Site {
    fn open(settings: Settings) -> Self {
        let edge = Edge::bind(([127, 0, 0, 1], 0).into(), "tests").unwrap();
        let folder = tempfile::tempdir().unwrap();
        let made = certificate(folder.path());
        let source = CertificateSource::Files {
            certificate: made.certificate.clone(),
            key: made.key.clone(),
        };
        Self { folder, made, ..Self::with(edge, settings, &source) }
    }

    /// With a certificate from elsewhere.
    fn with(edge: Edge, settings: Settings, source: &CertificateSource) -> Self {
        bedside_control_plane::crypto::use_one();
        // Why something failed is in the log, which a failing test shows.
        let _there_already = tracing_subscriber::fmt().with_test_writer().try_init();
        let folder = tempfile::tempdir().unwrap();
        let made = certificate(folder.path());
        let metrics = Metrics::new(Arc::new(Counters::default), Arc::default()).unwrap();
        let counters = metrics.edge().unwrap();
        let (stop, stopped) = watch::channel(false);
        let secure = Secure::start(source.clone(), &counters, stopped.clone()).unwrap();
        metrics.certificate(Expiry::new(Arc::clone(secure.tls.shown())).unwrap()).unwrap();
        let address = edge.address();
        let proxies = TrustedProxies::default();
        let operator = Router::new().route("/livez", get(|| async { "ok" }));
        let wrap = |router| http::router(router, metrics.clone(), proxies.clone(), "");
        let doors = Doors {
            plain: wrap(http::redirecting(operator, "https://video.example/")),
            secure: http::strict(wrap(pages()), Duration::from_secs(3600)),
            tls: Some(secure.tls.clone()),
            turn: None,
            media: None,
            crowd: Crowd::new(settings.places, settings.per_address, proxies.clone()),
            metrics: metrics.clone(),
            counters,
        };
        let running = tokio::spawn(edge.run(doors, stopped));
        Self { address, folder, made, metrics, secure, stop, running }
    }

    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }

    /// A TLS connection of a client with this list of protocols.
    async fn tls(&self, protocols: &[&str]) -> io::Result<TlsStream<TcpStream>> {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(&self.made.authority).unwrap()).unwrap();
        let mut config =
            ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
        config.alpn_protocols =
            protocols.iter().map(|protocol| protocol.as_bytes().to_vec()).collect();
        let name = ServerName::try_from(NAME).unwrap();
        TlsConnector::from(Arc::new(config)).connect(name, self.connect().await).await
    }

    /// The value of one metric.
    fn metric(&self, line: &str) -> u64 {
        let text = self.metrics.text().unwrap();
        let found = text.lines().find_map(|found| found.strip_prefix(line)?.strip_prefix(' '));
        found.unwrap_or_else(|| panic!("{line} is not in\n{text}")).parse().unwrap()
    }

    /// Waits until something was counted `value` times, or more.
    async fn counts(&self, line: &str, value: u64) {
        self.until(line, |found| found >= value).await;
    }

    /// Waits until nobody has an HTTP connection.
    async fn empties(&self) {
        self.until("bedside_http_connections", |found| found == 0).await;
    }

    async fn until(&self, line: &str, is: impl Fn(u64) -> bool) {
        let found = async {
            while !is(self.metric(line)) {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        let late = tokio::time::timeout(PATIENCE, found).await;
        assert!(late.is_ok(), "{line} is {}", self.metric(line));
    }
}

/// Sends a request that ends the connection, and reads all of the answer.
async fn ask<S: AsyncRead + AsyncWrite + Unpin>(stream: &mut S, request: &str) -> String {
    let request = format!("{request} HTTP/1.1\r\nhost: here\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    rest(stream).await
}

/// All that comes until the end.
async fn rest<S: AsyncRead + Unpin>(stream: &mut S) -> String {
    let mut all = Vec::new();
    let read = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut all)).await;
    // A peer that hangs up without a goodbye has said all it had to say.
    let _hung_up = read.expect("an end within the limit");
    String::from_utf8_lossy(&all).into_owned()
}
