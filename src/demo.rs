//! `bedside demo`: the server with defaults that need nothing, and a clinic to try it with.
//!
//! The database is a temporary file unless one is configured. One doctor has two consultations: one
//! with a synthetic patient, one with whoever opens the patient's link.

use std::io::Write as _;
use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, SystemTime};

use anyhow::Context as _;
use bedside_control_plane::consultation::{Mode, PersonRole};
use bedside_control_plane::token::{ApiRole, DEFAULT_CLINIC};
use bedside_control_plane::{ControlPlane, Link, NewLink, NewSession, Private};
use serde::Serialize;

use crate::bot;
use crate::cli::Demo;
use crate::config::{Config, Sources};
use crate::relay::Named;
use crate::selfmade::Selfmade;
use crate::shutdown::Signals;
use crate::wire::{Names, Server};
use crate::{selfmade, telemetry, tokens};

/// The demo is gone this long after a signal, whatever is still open.
const END: Duration = Duration::from_millis(4500);
/// Life of the API token that is printed.
const TOKEN_LIFE: Duration = Duration::from_secs(24 * 3600);

const DOCTOR: &str = "doctor-osei";
const PATIENT: &str = "patient-haddad";

const FLAGS: Names = Names {
    http: "--port",
    tls: "--tls-port",
    media: "--media-port",
    advertise: "--advertise",
    turn: Named { flag: "--turn-port", any_other: true },
};

/// Runs until a signal.
pub(crate) async fn run(demo: &Demo) -> anyhow::Result<()> {
    let mut signals = Signals::listen()?;
    let mut config = configuration(demo)?;
    telemetry::start(&config.log)?;
    // Removed with everything in it when this function ends.
    let folder = tempfile::Builder::new().prefix("bedside-demo-").tempdir();
    let folder = folder.context("a temporary folder cannot be made")?;
    if config.database_url.reveal().is_empty() {
        let path = folder.path().join("bedside.db");
        config.database_url = Private::new(format!("sqlite:{}", path.display()));
    }
    let made = match demo.tls_port {
        Some(port) => Some(secure(demo, port, folder.path(), &mut config)?),
        None => None,
    };
    let server = Server::start(&config, FLAGS).await?;
    let clinic = seed(&server.control).await?;
    tell(demo, &config, &server, &clinic, made.as_ref())?;
    let bot =
        (!demo.no_bot).then(|| tokio::spawn(bot::stay(server.control.clone(), clinic.bot_session)));
    signals.next().await;
    tracing::info!("stopping");
    if let Some(bot) = bot {
        bot.abort();
    }
    signals.bound(END, server.stop()).await;
    Ok(())
}

/// The flags win over file and environment, but where they say nothing those do.
fn configuration(demo: &Demo) -> anyhow::Result<Config> {
    let without_flags = Sources { file: demo.file.config.clone(), demo: true, flags: Vec::new() };
    let listen = Config::load(&without_flags)?.http.listen;
    Ok(Config::load(&demo.sources(listen))?)
}

/// Makes a certificate for the port with TLS.
fn secure(demo: &Demo, port: u16, folder: &Path, config: &mut Config) -> anyhow::Result<Selfmade> {
    let host = config.http.listen.ip();
    let name = match &demo.tls_name {
        Some(name) => name.clone(),
        None if host.is_loopback() => "localhost".to_owned(),
        None => anyhow::bail!("{host} needs a name for its certificate: give it with --tls-name"),
    };
    let mut addresses = config.media.advertise.clone();
    addresses.push(host);
    addresses.retain(|address| !address.is_unspecified());
    addresses.sort_unstable();
    addresses.dedup();
    let made = selfmade::make(folder, std::slice::from_ref(&name), &addresses, SystemTime::now())?;
    config.tls.listen = Some(SocketAddr::new(host, port));
    config.tls.names = vec![name];
    config.tls.acme = false;
    config.tls.certificate_path = made.certificate.display().to_string();
    config.tls.key_path = made.key.display().to_string();
    Ok(made)
}

/// What the demo's people use.
struct Clinic {
    doctor: Link,
    patient: Link,
    bot_session: uuid::Uuid,
}

async fn seed(control: &ControlPlane) -> anyhow::Result<Clinic> {
    let bot_session = consultation(control, bot::USER, "Robin (synthetic patient)").await?;
    let session = consultation(control, PATIENT, "Noor Haddad").await?;
    let link = async |user: &str, role| {
        let new = NewLink { user_id: user.to_owned(), role, name: None };
        control.create_link(DEFAULT_CLINIC, session, &new).await
    };
    Ok(Clinic {
        doctor: link(DOCTOR, PersonRole::Doctor).await?,
        patient: link(PATIENT, PersonRole::Patient).await?,
        bot_session,
    })
}

async fn consultation(
    control: &ControlPlane,
    patient: &str,
    name: &str,
) -> anyhow::Result<uuid::Uuid> {
    let new = NewSession {
        appointment_id: None,
        doctor_id: Some(DOCTOR.to_owned()),
        doctor_name: Some("Dr. Ama Osei".to_owned()),
        patient_id: Some(patient.to_owned()),
        patient_name: Some(name.to_owned()),
        mode: Mode::Video,
        scheduled_start: None,
        scheduled_minutes: Some(30),
        max_participants: None,
    };
    let (session, _) = control.create_session(DEFAULT_CLINIC, &new).await?;
    Ok(session.session_id)
}

/// The line that `--json` prints; scripts read it.
#[derive(Serialize)]
struct Ready<'a> {
    url: &'a str,
    doctor_link: &'a str,
    patient_link: &'a str,
    api_key: &'a str,
    api_secret: &'a str,
    api_token: &'a str,
    turn_urls: &'a [String],
    /// These are there with `--tls-port` only.
    #[serde(skip_serializing_if = "Option::is_none")]
    tls_url: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ca_file: Option<&'a Path>,
    #[serde(skip_serializing_if = "Option::is_none")]
    spki_sha256: Option<&'a str>,
}

/// The only place where the links are written down: the person's own terminal.
fn tell(
    demo: &Demo,
    config: &Config,
    server: &Server,
    clinic: &Clinic,
    made: Option<&Selfmade>,
) -> anyhow::Result<()> {
    let (doctor, patient) = (clinic.doctor.url.reveal(), clinic.patient.url.reveal());
    let keys = tokens::keys(config);
    let now = SystemTime::now();
    let api_token =
        tokens::api_token(&keys, ApiRole::Service, "demo", DEFAULT_CLINIC, TOKEN_LIFE, now);
    let mut out = std::io::stdout().lock();
    if demo.json {
        let ready = Ready {
            url: &server.url,
            doctor_link: doctor,
            patient_link: patient,
            api_key: &keys.key,
            api_secret: keys.secret.reveal(),
            api_token: &api_token,
            turn_urls: server.turn_urls(),
            tls_url: server.tls_url.as_deref(),
            ca_file: made.map(|made| made.authority.as_path()),
            spki_sha256: made.map(|made| made.spki_sha256.as_str()),
        };
        writeln!(out, "{}", serde_json::to_string(&ready)?)?;
    } else {
        // Cameras ask for TLS: where there is some, that is the address to give to people.
        let url = server.tls_url.as_deref().filter(|_| made.is_some()).unwrap_or(&server.url);
        let with = |link: &str| link.replacen(&server.url, url, 1);
        writeln!(out, "\nBedside is ready at {url}\n")?;
        writeln!(out, "  doctor   {}\n  patient  {}\n", with(doctor), with(patient))?;
        if let Some(made) = made {
            writeln!(
                out,
                "The certificate is made for today: browsers warn of it, unless they trust\n{}.\n",
                made.authority.display()
            )?;
        }
        if !demo.no_bot {
            writeln!(
                out,
                "Open the doctor's link and admit Robin, who is made of software: a call."
            )?;
        }
        writeln!(out, "Open the patient's link in another window, join, and let yourself in.")?;
        writeln!(out, "Ctrl-C ends the demo and leaves nothing behind.\n")?;
        if !config.http.listen.ip().is_loopback() && !url.starts_with("https:") {
            writeln!(
                out,
                "Other machines get no camera over http: see docs/operations.md, HTTPS.\n"
            )?;
        }
    }
    Ok(out.flush()?)
}
