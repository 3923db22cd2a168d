//! Secrets that others can guess, and settings that do not go together.

use std::collections::BTreeSet;

use super::addresses::public_address;
use super::finding::Finding;
use crate::config::{Config, Note};
use crate::wire;

/// A secret with fewer different bytes was not drawn at random.
const VARIETY: usize = 8;

/// How to make a secret.
const NEW_SECRET: &str = "head -c 32 /dev/urandom | base64 > FILE, and name it by \
                          BEDSIDE_API_SECRET_FILE";

/// Secrets: too short, left as they were, or of no variety.
pub(super) fn secrets(config: &Config) -> Vec<Finding> {
    const CHECK: &str = "secrets";
    let mut findings = Vec::new();
    if let Err(error) = config.check_secrets() {
        findings.push(Finding::error(CHECK, format!("{error}."), NEW_SECRET));
    } else if variety(config.api_secret.reveal()) < VARIETY {
        let says = "api_secret is long enough and hardly random: it repeats a few characters.";
        findings.push(Finding::error(CHECK, says, NEW_SECRET));
    }
    if let Err(error) = config.auth.previous() {
        let fix = "take the pair out of auth.previous_keys, or write it whole";
        findings.push(Finding::error(CHECK, format!("{error}."), fix));
    }
    if let Err(error) = config.auth.keys() {
        let fix = "bedside keys create --clinic CLINIC --name NAME --scope SCOPES";
        findings.push(Finding::error(CHECK, format!("{error}."), fix));
    }
    let broker = &config.rabbitmq;
    let default = broker.username == "guest" && broker.password.reveal() == "guest";
    if !broker.host.is_empty() && default {
        findings.push(Finding::warning(
            CHECK,
            "RabbitMQ is used with its default name and password.",
            "rabbitmqctl add_user bedside PASSWORD, then set rabbitmq.username and .password",
        ));
    }
    if findings.is_empty() {
        findings.push(Finding::ok(CHECK, "they are long enough and not the defaults."));
    }
    findings
}

fn variety(secret: &str) -> usize {
    secret.bytes().collect::<BTreeSet<_>>().len()
}

/// Settings that contradict each other, or that few would want.
pub(super) fn contradictions(config: &Config) -> Vec<Finding> {
    const CHECK: &str = "settings";
    let mut findings = Vec::new();
    let mut warn = |says: String, fix: &str| findings.push(Finding::warning(CHECK, says, fix));
    let page = public_address(&config.http.public_url);
    let https = page.as_ref().is_some_and(|page| page.https);
    if https && config.http.listen.ip().is_loopback() && config.proxies.trusted.is_empty() {
        warn(
            "a proxy stands in front (http.listen is this machine only) and none is trusted: all \
             people share one address and its limits."
                .to_owned(),
            "set proxies.trusted = [\"127.0.0.1\"]",
        );
    }
    for origin in &config.http.allowed_origins {
        let parts = origin.split('/').count();
        if public_address(origin).is_none() || parts != 3 {
            warn(
                format!("http.allowed_origins has {origin:?}, which no browser ever says."),
                "write it as https://host or https://host:port",
            );
        }
    }
    if config.admin.listen.is_none() && page.is_some() {
        warn(
            "/metrics and /readyz are on the public port.".to_owned(),
            "set admin.listen = \"127.0.0.1:9090\", or keep /metrics out at the proxy",
        );
    }
    if config.rooms.auto_create {
        warn(
            "rooms.auto_create makes any room that a token names.".to_owned(),
            "set rooms.auto_create = false, unless your own programs make rooms so",
        );
    }
    if config.rooms.allow_simulate {
        warn(
            "rooms.allow_simulate lets clients break their own connections, for tests.".to_owned(),
            "set rooms.allow_simulate = false",
        );
    }
    let limits = &config.limits;
    if limits.caller_per_second == 0 || limits.address_per_second == 0 {
        warn(
            "requests of a caller or of an address have no limit.".to_owned(),
            "take limits.caller_per_second and limits.address_per_second out: the defaults are good",
        );
    }
    for note in &config.notes {
        match note {
            Note::Info(_) => {}
            Note::Warning(note) => warn(format!("{note}."), "take the setting out"),
        }
    }
    findings.extend(impossible(config));
    if findings.is_empty() {
        findings.push(Finding::ok(CHECK, "none contradicts another."));
    }
    findings
}

/// What keeps a server from starting.
fn impossible(config: &Config) -> Vec<Finding> {
    const CHECK: &str = "settings";
    let mut findings = Vec::new();
    // Everything that is made of the settings at start is made here as well.
    if let Err(error) = wire::control_config(config, &config.http.public_url, Vec::new()) {
        let fix = "bedside config print --redacted shows what is in force";
        findings.push(Finding::error(CHECK, format!("{error}."), fix));
    }
    let last = usize::from(config.media.port) + wire::shards(&config.media);
    if config.media.port != 0 && last > usize::from(u16::MAX) + 1 {
        findings.push(Finding::error(
            CHECK,
            format!("media.port is {}, too high for all shards.", config.media.port),
            "set media.port lower, for example 7882",
        ));
    }
    findings
}

#[cfg(test)]
mod tests {
    use bedside_sfu::core::api::Private;

    use super::super::finding::Level;
    use super::*;

    type Change = fn(&mut Config);

    fn good() -> Config {
        let mut config = Config {
            api_key: "clinic".to_owned(),
            api_secret: Private::new("0123456789abcdefghijklmnopqrstuvwxyz".to_owned()),
            ..Config::default()
        };
        config.http.public_url = "https://video.clinic.example".to_owned();
        config.http.listen = ([0, 0, 0, 0], 8000).into();
        config.admin.listen = Some(([127, 0, 0, 1], 9090).into());
        config
    }

    #[test]
    fn weak_secrets_are_found_and_never_shown() {
        assert_eq!(secrets(&good())[0].level, Level::Ok);
        let changes: [(Change, Level); 6] = [
            (|c| c.api_key = "devkey".to_owned(), Level::Error),
            (|c| c.api_secret = Private::new("geheim".to_owned()), Level::Error),
            (|c| c.api_secret = Private::new("geheim".repeat(8)), Level::Error),
            (|c| c.auth.previous_keys = Private::new("old:geheim".to_owned()), Level::Error),
            (|c| c.auth.service_keys = Private::new("demo x geheim".to_owned()), Level::Error),
            (|c| c.rabbitmq.host = "broker".to_owned(), Level::Warning),
        ];
        for (change, level) in changes {
            let mut config = good();
            change(&mut config);
            let findings = secrets(&config);
            assert_eq!(findings[0].level, level, "{findings:?}");
            assert!(!format!("{findings:?}").contains("geheim"), "{findings:?}");
            assert!(findings[0].fix.is_some());
        }
    }

    #[test]
    fn settings_that_do_not_go_together_are_named() {
        assert_eq!(contradictions(&good())[0].level, Level::Ok);
        let changes: [(Change, &str, Level); 8] = [
            (|c| c.http.listen = ([127, 0, 0, 1], 8000).into(), "proxies.trusted", Level::Warning),
            (|c| c.http.allowed_origins = vec!["a.example/x".into()], "a.example", Level::Warning),
            (|c| c.admin.listen = None, "admin.listen", Level::Warning),
            (|c| c.rooms.auto_create = true, "auto_create", Level::Warning),
            (|c| c.rooms.allow_simulate = true, "allow_simulate", Level::Warning),
            (|c| c.limits.address_per_second = 0, "limits.", Level::Warning),
            (|c| c.media.port = 65_535, "media.port", Level::Error),
            (|c| c.auth.jwks_url = "http://id.example".into(), "auth.jwks_url", Level::Error),
        ];
        for (change, word, level) in changes {
            let mut config = good();
            config.media.shards = 4;
            change(&mut config);
            let found = contradictions(&config);
            let told = found.iter().find(|f| format!("{f:?}").contains(word));
            assert_eq!(told.map(|f| f.level), Some(level), "{word} in {found:?}");
        }
    }
}
