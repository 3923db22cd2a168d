//! The configuration: one TOML file and the environment, read here and nowhere else.
//!
//! Layers, later ones win: built-in defaults, the demo's defaults (only for `bedside demo`), the
//! file, plain environment names that other software uses too (`DATABASE_URL`, `RABBITMQ_HOST` …),
//! `BEDSIDE_…` names, command-line flags. `BEDSIDE_HTTP__LISTEN` is the key `listen` of the section
//! `http`. Any of these names with `_FILE` at its end names a file that holds the value, and any value
//! may refer to a secret in a vault (`${vault:path/key}`).
//!
//! A key that is not known is an error that names the key: a typing mistake in a security setting
//! must not pass for "not set".

mod admin;
mod auth;
mod billing;
mod chat;
mod checks;
mod environment;
mod events;
mod forms;
mod http;
mod kafka;
mod layers;
mod limits;
mod log;
mod media;
mod objects;
mod proxies;
mod rabbitmq;
mod rooms;
#[cfg(test)]
mod tests;
mod timers;
mod tls;
mod turn;
mod vault;
mod video;
mod webhooks;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use bedside_sfu::core::api::Private;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

pub(crate) use admin::Admin;
pub(crate) use auth::Auth;
pub(crate) use billing::{Billing, Payments};
pub(crate) use chat::Chat;
pub(crate) use checks::Checks;
pub(crate) use events::Events;
pub(crate) use forms::parse_period;
pub(crate) use http::Http;
pub(crate) use kafka::{Kafka, Sasl};
pub(crate) use limits::Limits;
pub(crate) use log::{Log, LogFormat};
pub(crate) use media::Media;
pub(crate) use objects::Objects;
pub(crate) use proxies::Proxies;
pub(crate) use rabbitmq::RabbitMq;
pub(crate) use rooms::Rooms;
pub(crate) use timers::Timers;
pub(crate) use tls::{Acme, CertificateSource, Tls};
pub(crate) use turn::Turn;
pub(crate) use vault::Vault;
pub(crate) use video::Video;
pub(crate) use webhooks::Webhook;

use environment::Environment;
use layers::{merge, nested, read};

/// The key pair that everybody knows; for trying things on one's own machine.
pub(crate) const DEMO_KEY: &str = "devkey";
/// See [`DEMO_KEY`].
pub(crate) const DEMO_SECRET: &str = "secret";

/// HS256 wants a key at least as long as its hash (RFC 7518 §3.2).
const SECRET_BYTES: usize = 32;

/// Everything that can be set. A section is a struct in a file of its own beside this one.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Config {
    /// Name of the key that signs room tokens and API tokens (their `iss`).
    pub(crate) api_key: String,
    /// The secret of that key.
    #[serde(with = "forms::secret")]
    pub(crate) api_secret: Private<String>,
    /// `sqlite:PATH` or `postgres://…`.
    #[serde(with = "forms::database_url")]
    pub(crate) database_url: Private<String>,
    /// How long a stopping server waits for its rooms to end.
    #[serde(with = "forms::period")]
    pub(crate) drain_timeout: Duration,
    /// The operator's own listener.
    pub(crate) admin: Admin,
    /// Pages, API and signaling.
    pub(crate) http: Http,
    /// How many requests the API takes.
    pub(crate) limits: Limits,
    /// Audio and video.
    pub(crate) media: Media,
    /// Whose tokens and keys are taken.
    pub(crate) auth: Auth,
    /// Rooms and the tokens that open them.
    pub(crate) rooms: Rooms,
    /// What is logged, and how.
    pub(crate) log: Log,
    /// Who stands in front of us.
    pub(crate) proxies: Proxies,
    /// The message broker; used only where `host` is set.
    pub(crate) rabbitmq: RabbitMq,
    /// The event log; used only where `bootstrap_servers` are set.
    pub(crate) kafka: Kafka,
    /// What other services' messages leave open.
    pub(crate) events: Events,
    /// When what nobody ends is ended.
    pub(crate) timers: Timers,
    /// The port that gets through, and its certificate.
    pub(crate) tls: Tls,
    /// The relay for networks that let no UDP out.
    pub(crate) turn: Turn,
    /// Where secrets are kept.
    pub(crate) vault: Vault,
    /// The switch of the older deployments.
    pub(crate) video: Video,
    /// Who is told of events over HTTP.
    pub(crate) webhooks: Vec<Webhook>,
    /// What the operator should know at start.
    #[serde(skip)]
    pub(crate) notes: Vec<Note>,
    /// What costs something although it was not completed.
    pub(crate) billing: Billing,
    /// Who must have paid before coming in.
    pub(crate) payments: Payments,
    /// Messages, files and pictures of consultations.
    pub(crate) chat: Chat,
    /// Connection checks.
    pub(crate) checks: Checks,
    /// Where files and pictures are kept.
    pub(crate) objects: Objects,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            api_key: String::new(),
            api_secret: Private::default(),
            database_url: Private::new("sqlite:bedside.db".to_owned()),
            drain_timeout: Duration::from_secs(30),
            admin: Admin::default(),
            http: Http::default(),
            limits: Limits::default(),
            media: Media::default(),
            auth: Auth::default(),
            rooms: Rooms::default(),
            log: Log::default(),
            proxies: Proxies::default(),
            rabbitmq: RabbitMq::default(),
            timers: Timers::default(),
            tls: Tls::default(),
            turn: Turn::default(),
            kafka: Kafka::default(),
            vault: Vault::default(),
            video: Video::default(),
            webhooks: Vec::new(),
            notes: Vec::new(),
            events: Events::default(),
            billing: Billing::default(),
            payments: Payments::default(),
            chat: Chat::default(),
            checks: Checks::default(),
            objects: Objects::default(),
        }
    }
}

/// What the operator should know about settings that are there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Note {
    /// Worth knowing.
    Info(String),
    /// Something will not be as the setting says.
    Warning(String),
}

/// Where the settings come from.
#[derive(Clone, Debug, Default)]
pub(crate) struct Sources {
    /// The TOML file, if one was named on the command line (`BEDSIDE_CONFIG` names one too).
    pub(crate) file: Option<PathBuf>,
    /// Start from the demo's defaults.
    pub(crate) demo: bool,
    /// Flags, as (dotted key, value).
    pub(crate) flags: Vec<(&'static str, Value)>,
}

/// What keeps a configuration from being used. Every message names the key to change.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConfigError {
    /// The file, or one that a `_FILE` variable names, cannot be read.
    #[error("{path}: cannot be read ({reason})")]
    File { path: String, reason: String },
    /// The file is not TOML, or a key in it is unknown or of the wrong type.
    #[error("{path}: {reason}")]
    Syntax { path: String, reason: String },
    /// A variable names no setting.
    #[error("{0}: there is no such setting (`bedside config print --redacted` lists them all)")]
    UnknownVariable(String),
    /// A variable's text is not what the setting takes.
    #[error("{variable}: {expected} is expected")]
    BadVariable { variable: String, expected: &'static str },
    /// A value refers to a secret that cannot be had.
    #[error("vault: {0}")]
    Vault(String),
    /// The layers together make no sense.
    #[error("configuration: {0}")]
    Invalid(String),
}

impl Config {
    /// Reads the file and the environment of this process.
    pub(crate) fn load(sources: &Sources) -> Result<Self, ConfigError> {
        let variables: BTreeMap<String, String> = std::env::vars().collect();
        let file = sources.file.clone().or_else(|| variables.get("BEDSIDE_CONFIG").map(Into::into));
        let text = match &file {
            Some(path) => Some((path.display().to_string(), read(path)?)),
            None => None,
        };
        let text = text.as_ref().map(|(path, text)| (path.as_str(), text.as_str()));
        Self::from_layers(sources, text, &variables)
    }

    fn from_layers(
        sources: &Sources,
        file: Option<(&str, &str)>,
        variables: &BTreeMap<String, String>,
    ) -> Result<Self, ConfigError> {
        let environment = Environment::read(variables)?;
        let file = file.map(|(path, text)| layers::file(path, text)).transpose()?;
        let (file, environment) = vault::resolve(file, environment)?;
        let mut layers = Value::Object(Map::new());
        if sources.demo {
            merge(&mut layers, layers::demo());
        }
        if let Some(file) = file {
            merge(&mut layers, file);
        }
        merge(&mut layers, environment.layer()?);
        for (key, value) in &sources.flags {
            merge(&mut layers, nested(key, value.clone()));
        }
        let mut config: Self = serde_json::from_value(layers)
            .map_err(|error| ConfigError::Invalid(error.to_string()))?;
        config.notes = environment.notes;
        config.note();
        Ok(config)
    }

    /// Notes what a setting says and we do otherwise.
    fn note(&mut self) {
        if self.video.names_another() {
            self.notes.push(Note::Warning(format!(
                "video.provider is {:?}: every consultation runs in our own rooms all the same",
                self.video.provider
            )));
        }
        if !self.video.enabled {
            self.notes.push(Note::Warning(
                "video.enabled is false: consultations are answered with 503".to_owned(),
            ));
        }
    }

    /// Refuses a key pair that others can guess.
    pub(crate) fn check_secrets(&self) -> Result<(), ConfigError> {
        if self.api_key.is_empty() || self.api_key == DEMO_KEY {
            return Err(ConfigError::Invalid(
                "api_key is not set or is the demo's: set api_key (BEDSIDE_API_KEY)".to_owned(),
            ));
        }
        if self.api_secret.reveal().len() < SECRET_BYTES {
            return Err(ConfigError::Invalid(format!(
                "api_secret is weak: set api_secret (BEDSIDE_API_SECRET or \
                 BEDSIDE_API_SECRET_FILE) to {SECRET_BYTES} random bytes or more, for example \
                 from `head -c 32 /dev/urandom | base64`"
            )));
        }
        Ok(())
    }

    /// The settings as a TOML file, with `<redacted>` for every secret.
    pub(crate) fn redacted(&self) -> String {
        toml::to_string(self).expect("a struct of plain values is representable in TOML")
    }

    /// The same for the log: dotted keys on one line.
    pub(crate) fn one_line(&self) -> String {
        let mut section = String::new();
        let mut pairs = Vec::new();
        for line in self.redacted().lines().filter(|line| !line.is_empty()) {
            match line.strip_prefix('[').and_then(|name| name.strip_suffix(']')) {
                // A list of tables has two brackets.
                Some(name) => section = format!("{}.", name.trim_matches(['[', ']'])),
                None => pairs.push(format!("{section}{line}")),
            }
        }
        pairs.join("; ")
    }
}
