//! `bedside doctor`: looks at a deployment as its server would find it, and says what mends it.
//!
//! It reads the same settings as `serve`, changes nothing, and may run beside a server: ports are
//! bound for a moment only where they are free, the database is looked at without bringing its schema
//! up to date, and brokers are asked for names without making them. Nobody else's server is asked
//! anything: what the world sees of this machine, `/check` tells from a browser out there.

mod addresses;
mod certificate;
mod finding;
mod ports;
mod settings;
mod stores;
mod system;

use std::io::Write as _;
use std::net::IpAddr;
use std::process::ExitCode;
use std::time::{Duration, SystemTime};

use bedside_control_plane::probe;

use crate::cli::Doctor;
use crate::config::{CertificateSource, Config};
use crate::wire;
use finding::{Finding, Report};

pub(crate) use addresses::is_local;

/// How long this machine's resolver may take.
const RESOLVE: Duration = Duration::from_secs(5);

/// Runs it; the exit code is 0 when all is well, 1 with warnings, 2 with errors.
pub(crate) async fn run(args: &Doctor) -> anyhow::Result<ExitCode> {
    let report = match Config::load(&args.file.sources()) {
        Ok(config) => Report::new(examine(&config).await),
        Err(error) => {
            let fix = "bedside config print --redacted, with the same file and environment";
            Report::new(vec![Finding::error("configuration", format!("{error}."), fix)])
        }
    };
    let text = if args.json { serde_json::to_string(&report)? } else { report.text() };
    writeln!(std::io::stdout().lock(), "{text}")?;
    Ok(ExitCode::from(report.level.exit_code()))
}

/// Everything, in the order in which one would look.
async fn examine(config: &Config) -> Vec<Finding> {
    let url = opened(config);
    let page = page_addresses(&url).await;
    let advertise = wire::advertised(&config.media, wire::SETTINGS).unwrap_or_default();
    let database = probe::database(config.database_url.reveal()).await;
    let ahead_ms = database.as_ref().ok().and_then(|facts| facts.ahead_ms);
    let (rabbitmq, kafka, objects, (http, ours)) = tokio::join!(
        stores::rabbitmq(config),
        stores::kafka(config),
        stores::objects(config),
        ports::http(config),
    );
    let mut findings = settings::secrets(config);
    findings.extend(settings::contradictions(config));
    findings.extend(addresses::page(&url, &page));
    findings.extend(addresses::media(config, &advertise, &page));
    findings.extend(http);
    findings.extend(ports::media(config, ours));
    findings.extend(ports::turn(config, ours));
    findings.extend(secured(config, ours));
    findings.extend(system::clock(system::clock_follows(), ahead_ms));
    findings.extend(stores::database(&database));
    findings.extend(rabbitmq);
    findings.extend(kafka);
    findings.push(objects);
    findings.extend(system::disks(&stores::places(config, &database)));
    findings.extend(system::buffers());
    findings.extend(system::offload());
    findings.extend(system::files());
    findings
}

/// The port that gets through, and its certificate.
fn secured(config: &Config, ours: bool) -> Vec<Finding> {
    const CHECK: &str = "tls_port";
    let (listen, source) = match config.secured() {
        Ok(Some(secured)) => secured,
        Ok(None) => {
            let says = "there is no TLS port: networks that let nothing else out get no calls.";
            let fix = "set tls.listen = \"0.0.0.0:443\", and tls.acme = true or a certificate";
            return vec![Finding::warning(CHECK, says, fix)];
        }
        Err(error) => return vec![Finding::error(CHECK, format!("{error}."), "set tls.… whole")],
    };
    let bound = ports::try_bind(listen, ports::Carries::Tcp);
    let port = ports::judge(CHECK, "tls.listen", listen, ports::Carries::Tcp, bound, ours);
    let mut findings = vec![port];
    if listen.port() != 443 {
        findings.push(Finding::warning(
            CHECK,
            format!("TLS is on port {}, which strict networks do not let out.", listen.port()),
            "set tls.listen to port 443, or forward 443 to it",
        ));
    }
    match source {
        CertificateSource::Files { certificate, key } => {
            let now = SystemTime::now();
            findings.extend(certificate::files(&certificate, &key, &config.tls.names, now));
        }
        CertificateSource::Acme(acme) => findings.push(Finding::ok(
            "certificate",
            format!("it is fetched for {} from {}.", acme.names.join(", "), acme.directory),
        )),
    }
    findings
}

/// What people open; empty = the bound address.
fn opened(config: &Config) -> String {
    match (config.http.public_url.is_empty(), config.tls.names.first()) {
        (true, Some(name)) if config.tls.listen.is_some() => format!("https://{name}"),
        _ => config.http.public_url.clone(),
    }
}

/// Where the name of the page leads, by this machine's own resolver.
async fn page_addresses(url: &str) -> Vec<IpAddr> {
    let Some(address) = addresses::public_address(url) else { return Vec::new() };
    let resolve = tokio::net::lookup_host((address.host.as_str(), 443));
    match tokio::time::timeout(RESOLVE, resolve).await {
        Ok(Ok(found)) => {
            let mut found: Vec<_> = found.map(|address| address.ip()).collect();
            found.sort();
            found.dedup();
            found
        }
        Ok(Err(_)) | Err(_) => Vec::new(),
    }
}
