//! `bedside keys …` and `bedside audit …`: the operator's commands on the database of a server,
//! which may be running.

use std::fmt::Write as _;
use std::io::Write as _;
use std::path::Path;

use anyhow::Context as _;
use bedside_control_plane::permissions::Permission;
use bedside_control_plane::{ControlPlane, KeySummary, NewKey, Report, Verifier};

use crate::cli::{AuditCommand, ConfigFile, KeysCommand};
use crate::config::Config;
use crate::wire;

/// `bedside keys …`; what it prints.
pub(crate) async fn keys(command: KeysCommand) -> anyhow::Result<String> {
    match command {
        KeysCommand::Create { clinic, name, scope, expires, file } => {
            let scopes = scope.iter().map(|word| {
                Permission::parse(word)
                    .with_context(|| format!("--scope {word} is none of {}", all_scopes()))
            });
            let scopes = scopes.collect::<anyhow::Result<_>>()?;
            let expires_at = expires.map(|life| (std::time::SystemTime::now() + life).into());
            let plane = open(&file).await?;
            let made = plane.create_key(&clinic, &NewKey { name, scopes, expires_at }).await;
            plane.close().await;
            let made = made?;
            tell(&format!("key {} made; it is shown this once:", made.id));
            Ok(made.key.reveal().clone())
        }
        KeysCommand::List { clinic, file } => {
            let plane = open(&file).await?;
            let keys = plane.keys(&clinic).await;
            plane.close().await;
            Ok(keys?.iter().map(line).collect::<Vec<_>>().join("\n"))
        }
        KeysCommand::Revoke { id, clinic, file } => {
            let plane = open(&file).await?;
            let known = plane.revoke_key(&clinic, id).await;
            plane.close().await;
            anyhow::ensure!(known?, "clinic {clinic} has no key {id}");
            Ok(format!("key {id} is revoked"))
        }
    }
}

/// `bedside audit …`; what it prints.
pub(crate) async fn audit(command: AuditCommand) -> anyhow::Result<String> {
    match command {
        AuditCommand::Verify { file: Some(path), config, .. } => {
            let config = Config::load(&config.sources())?;
            let mut verifier = Verifier::new(wire::keys(&config)?);
            read_lines(&path, |text| verifier.line(text))?;
            judge(&verifier.finish())
        }
        AuditCommand::Verify { file: None, clinic, config } => {
            let plane = open(&config).await?;
            let report = plane.verify_audit(clinic.as_deref()).await;
            plane.close().await;
            judge(&report?)
        }
        AuditCommand::Export { clinic, config } => {
            let plane = open(&config).await?;
            let mut out = std::io::BufWriter::new(std::io::stdout().lock());
            let done = plane
                .export_audit(&clinic, |lines| {
                    lines.iter().try_for_each(|line| {
                        serde_json::to_writer(&mut out, line)?;
                        out.write_all(b"\n")
                    })
                })
                .await;
            let flushed = out.flush();
            plane.close().await;
            done??;
            flushed?;
            Ok(String::new())
        }
    }
}

async fn open(file: &ConfigFile) -> anyhow::Result<ControlPlane> {
    let config = Config::load(&file.sources())?;
    let control = wire::control_config(&config, &config.http.public_url, Vec::new())?;
    ControlPlane::open(control).await.context("database_url")
}

fn read_lines(path: &Path, mut take: impl FnMut(&str)) -> anyhow::Result<()> {
    use std::io::BufRead as _;
    let named = || path.display().to_string();
    let file = std::fs::File::open(path).with_context(named)?;
    let mut reader = std::io::BufReader::new(file);
    let mut line = Vec::new();
    while reader.read_until(b'\n', &mut line).with_context(named)? > 0 {
        // What is no text is no row either.
        take(&String::from_utf8_lossy(&line));
        line.clear();
    }
    Ok(())
}

/// What was found; a log with faults is an error of the command.
fn judge(report: &Report) -> anyhow::Result<String> {
    let mut text = format!("{} rows, {} anchors", report.rows, report.anchors);
    if report.unsigned > 0 {
        write!(text, " ({} by keys that are not configured here)", report.unsigned)?;
    }
    for (clinic, (sequence, hash)) in &report.heads {
        write!(text, "\n{clinic}: up to {sequence}, {hash}")?;
    }
    if report.faults.is_empty() {
        text.push_str("\nthe log holds together");
        return Ok(text);
    }
    for fault in &report.faults {
        let place = if fault.clinic.is_empty() { "line" } else { fault.clinic.as_str() };
        write!(text, "\n{place} {}: {}", fault.sequence, fault.kind.as_str())?;
    }
    anyhow::bail!("{text}\nthe log does not hold together");
}

fn line(key: &KeySummary) -> String {
    let scopes: Vec<_> = key.scopes.iter().map(|scope| scope.as_str()).collect();
    let state = match (&key.revoked_at, &key.expires_at) {
        (Some(at), _) => format!("revoked {at}"),
        (None, Some(at)) => format!("until {at}"),
        (None, None) => "good".to_owned(),
    };
    format!("{}  {}  {}  made {}  {state}", key.id, key.name, scopes.join(","), key.created_at)
}

fn all_scopes() -> String {
    Permission::ALL.map(Permission::as_str).join(", ")
}

fn tell(text: &str) {
    // Standard output carries the key alone. Nobody to read it is no reason to fail.
    let _closed = writeln!(std::io::stderr(), "{text}");
}
