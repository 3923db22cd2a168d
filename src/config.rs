//! The configuration: one TOML file and the environment, read here and nowhere else.
//!
//! Layers, later ones win: built-in defaults, the demo's defaults (only for `bedside demo`), the
//! file, plain environment names that other software uses too (`DATABASE_URL`, `RABBITMQ_HOST` …),
//! `BEDSIDE_…` names, command-line flags. `BEDSIDE_HTTP__LISTEN` is the key `listen` of the section
//! `http`. Any of these names with `_FILE` at its end names a file that holds the value.
//!
//! A key that is not known is an error that names the key: a typing mistake in a security setting
//! must not pass for "not set".

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use bedside_sfu::core::api::Private;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// The key pair that everybody knows; for trying things on one's own machine.
pub(crate) const DEMO_KEY: &str = "devkey";
/// See [`DEMO_KEY`].
pub(crate) const DEMO_SECRET: &str = "secret";

/// HS256 wants a key at least as long as its hash (RFC 7518 §3.2).
const SECRET_BYTES: usize = 32;

/// Everything that can be set.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Config {
    /// Name of the key that signs room tokens and API tokens (their `iss`).
    pub(crate) api_key: String,
    /// The secret of that key.
    #[serde(with = "secret")]
    pub(crate) api_secret: Private<String>,
    /// `sqlite:PATH` or `postgres://…`.
    #[serde(with = "database_url")]
    pub(crate) database_url: Private<String>,
    /// How long a stopping server waits for its rooms to end.
    #[serde(with = "period")]
    pub(crate) drain_timeout: Duration,
    /// Pages, API and signaling.
    pub(crate) http: Http,
    /// Audio and video.
    pub(crate) media: Media,
    /// Rooms and the tokens that open them.
    pub(crate) rooms: Rooms,
    /// What is logged, and how.
    pub(crate) log: Log,
    /// The message broker; used only where `host` is set.
    pub(crate) rabbitmq: RabbitMq,
}

/// Pages, API and signaling.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Http {
    /// Address and port to listen on.
    pub(crate) listen: SocketAddr,
    /// The address that people open, `https://…`; empty = `http://` and `listen`.
    pub(crate) public_url: String,
    /// Origins that may call the API and the room door; empty = any.
    pub(crate) allowed_origins: Vec<String>,
    /// Open connections at the most; more wait in the kernel.
    pub(crate) max_connections: usize,
}

/// Audio and video.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Media {
    /// Address to bind.
    pub(crate) bind: IpAddr,
    /// First UDP port; shards take it, the next one, and so on. 0 = any free ones.
    pub(crate) port: u16,
    /// Take media over TCP, too, on the ports of the same numbers: for networks that let no UDP out.
    pub(crate) tcp: bool,
    /// How many shards; 0 = one per processor.
    pub(crate) shards: usize,
    /// Addresses that clients are told; empty = `bind`, or the machine's own where that is `0.0.0.0`.
    pub(crate) advertise: Vec<IpAddr>,
}

/// Rooms and the tokens that open them.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Rooms {
    /// Make any room that a valid token names, without a consultation behind it.
    pub(crate) auto_create: bool,
    /// Serve the SDKs' `simulate` requests: for trying out reconnection.
    pub(crate) allow_simulate: bool,
    /// How long a room token from the server is valid.
    #[serde(with = "period")]
    pub(crate) token_ttl: Duration,
}

/// What is logged, and how.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Log {
    /// Directives of `tracing_subscriber`'s `EnvFilter`.
    pub(crate) filter: String,
    /// One JSON object or one line of text per record.
    pub(crate) format: LogFormat,
}

/// Form of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum LogFormat {
    /// For people.
    Text,
    /// For machines.
    Json,
}

/// The message broker.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct RabbitMq {
    /// Host name; empty = no broker.
    pub(crate) host: String,
    /// AMQP port.
    pub(crate) port: u16,
    /// User name.
    pub(crate) username: String,
    /// Password.
    #[serde(with = "secret")]
    pub(crate) password: Private<String>,
    /// Virtual host.
    pub(crate) vhost: String,
    /// Exchange of the appointment events.
    pub(crate) exchange: String,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            api_key: String::new(),
            api_secret: Private::default(),
            database_url: Private::new("sqlite:bedside.db".to_owned()),
            drain_timeout: Duration::from_secs(30),
            http: Http::default(),
            media: Media::default(),
            rooms: Rooms::default(),
            log: Log::default(),
            rabbitmq: RabbitMq::default(),
        }
    }
}

impl Default for Http {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 8000)),
            public_url: String::new(),
            allowed_origins: Vec::new(),
            max_connections: 8192,
        }
    }
}

impl Default for Media {
    fn default() -> Self {
        Self {
            bind: IpAddr::from([0, 0, 0, 0]),
            port: 7882,
            tcp: true,
            shards: 0,
            advertise: Vec::new(),
        }
    }
}

impl Default for Rooms {
    fn default() -> Self {
        Self { auto_create: false, allow_simulate: false, token_ttl: Duration::from_secs(600) }
    }
}

impl Default for Log {
    fn default() -> Self {
        // The handshake crates report every refused stranger as an error of their own.
        Self {
            filter: "info,rtc_dtls=off,rtc_sctp=off,sqlx=warn".to_owned(),
            format: LogFormat::Text,
        }
    }
}

impl Default for RabbitMq {
    fn default() -> Self {
        Self {
            host: String::new(),
            port: 5672,
            username: "guest".to_owned(),
            password: Private::new("guest".to_owned()),
            vhost: "/".to_owned(),
            exchange: "appointments-exchange".to_owned(),
        }
    }
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
        let mut layers = Value::Object(Map::new());
        if sources.demo {
            merge(&mut layers, demo_layer());
        }
        if let Some((path, text)) = file {
            merge(&mut layers, file_layer(path, text)?);
        }
        merge(&mut layers, environment_layer(variables)?);
        for (key, value) in &sources.flags {
            merge(&mut layers, nested(key, value.clone()));
        }
        serde_json::from_value(layers).map_err(|error| ConfigError::Invalid(error.to_string()))
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
                Some(name) => section = format!("{name}."),
                None => pairs.push(format!("{section}{line}")),
            }
        }
        pairs.join("; ")
    }
}

/// What `bedside demo` starts from.
fn demo_layer() -> Value {
    serde_json::json!({
        "api_key": DEMO_KEY,
        "api_secret": DEMO_SECRET,
        "database_url": "",
        "media": { "bind": "127.0.0.1", "advertise": ["127.0.0.1"] },
        "rooms": { "auto_create": true, "allow_simulate": true },
    })
}

fn file_layer(path: &str, text: &str) -> Result<Value, ConfigError> {
    // The error's own text quotes the line, and a secret may be what stands there.
    let syntax = |error: toml::de::Error| {
        let before = error.span().and_then(|span| text.get(..span.start)).unwrap_or_default();
        let line = before.matches('\n').count() + 1;
        let reason = format!("line {line}: {}", error.message());
        ConfigError::Syntax { path: path.to_owned(), reason }
    };
    // Read once for the message with line and column, once for the keys that are really there.
    toml::from_str::<Config>(text).map_err(syntax)?;
    toml::from_str::<Value>(text).map_err(syntax)
}

/// Names that other software gives to what we need too.
const PLAIN_NAMES: [(&str, &str); 8] = [
    ("DATABASE_URL", "database_url"),
    ("RABBITMQ_HOST", "rabbitmq.host"),
    ("RABBITMQ_PORT", "rabbitmq.port"),
    ("RABBITMQ_USER", "rabbitmq.username"),
    ("RABBITMQ_USERNAME", "rabbitmq.username"),
    ("RABBITMQ_PASSWORD", "rabbitmq.password"),
    ("RABBITMQ_VHOST", "rabbitmq.vhost"),
    ("RABBITMQ_EXCHANGE", "rabbitmq.exchange"),
];

fn environment_layer(variables: &BTreeMap<String, String>) -> Result<Value, ConfigError> {
    let known =
        serde_json::to_value(Config::default()).expect("the defaults are representable in JSON");
    let mut layer = Value::Object(Map::new());
    for (plain, key) in PLAIN_NAMES {
        for name in [plain.to_owned(), format!("{plain}_FILE")] {
            if let Some(text) = variables.get(&name) {
                merge(&mut layer, variable(&known, &name, key, text)?);
            }
        }
    }
    for (name, text) in variables {
        let Some(rest) = name.strip_prefix("BEDSIDE_") else { continue };
        if rest == "CONFIG" {
            continue;
        }
        let key = rest.to_lowercase().replace("__", ".");
        let key = key.strip_suffix("_file").unwrap_or(&key);
        merge(&mut layer, variable(&known, name, key, text)?);
    }
    Ok(layer)
}

/// One variable as a layer; its type is that of the default.
fn variable(known: &Value, name: &str, key: &str, text: &str) -> Result<Value, ConfigError> {
    let bad = |expected| ConfigError::BadVariable { variable: name.to_owned(), expected };
    let default = key.split('.').try_fold(known, |at, part| at.get(part));
    let text = match name.strip_suffix("_FILE") {
        Some(_) => read(Path::new(text))?.trim_end().to_owned(),
        None => text.to_owned(),
    };
    // As compose files write a variable that nobody set.
    if text.is_empty() && default.is_some() {
        return Ok(Value::Object(Map::new()));
    }
    let value = match default {
        None | Some(Value::Object(_)) => {
            return Err(ConfigError::UnknownVariable(name.to_owned()));
        }
        Some(Value::Bool(_)) => Value::Bool(text.parse().map_err(|_| bad("true or false"))?),
        Some(Value::Number(_)) => {
            Value::from(text.parse::<u64>().map_err(|_| bad("a whole number"))?)
        }
        Some(Value::Array(_)) => {
            text.split(',').map(str::trim).filter(|part| !part.is_empty()).collect()
        }
        Some(Value::String(_) | Value::Null) => Value::String(text),
    };
    // Alone it tells which variable is wrong; together with the others it no longer would.
    let layer = nested(key, value);
    serde_json::from_value::<Config>(layer.clone()).map_err(|error| ConfigError::Syntax {
        path: name.to_owned(),
        reason: error.to_string(),
    })?;
    Ok(layer)
}

fn nested(key: &str, value: Value) -> Value {
    key.rsplit('.').fold(value, |inner, part| Value::Object(Map::from_iter([(part.into(), inner)])))
}

fn merge(into: &mut Value, from: Value) {
    match (into, from) {
        (Value::Object(into), Value::Object(from)) => {
            for (key, value) in from {
                match into.get_mut(&key) {
                    Some(old) => merge(old, value),
                    None => {
                        into.insert(key, value);
                    }
                }
            }
        }
        (into, from) => *into = from,
    }
}

fn read(path: &Path) -> Result<String, ConfigError> {
    std::fs::read_to_string(path).map_err(|error| ConfigError::File {
        path: path.display().to_string(),
        reason: error.to_string(),
    })
}

/// The longest time that can be set: ten years, which no clock's arithmetic stumbles over.
const LONGEST_PERIOD: Duration = Duration::from_secs(3650 * 86_400);

/// A length of time: a whole number and `ms`, `s`, `m`, `h` or `d`, ten years at the most.
pub(crate) fn parse_period(text: &str) -> Option<Duration> {
    read_period(text).filter(|period| *period <= LONGEST_PERIOD)
}

fn read_period(text: &str) -> Option<Duration> {
    let split = text.find(|c: char| !c.is_ascii_digit())?;
    let (number, unit) = text.split_at_checked(split)?;
    let number: u64 = number.parse().ok()?;
    let seconds = match unit {
        "ms" => return Some(Duration::from_millis(number)),
        "s" => 1,
        "m" => 60,
        "h" => 3600,
        "d" => 86_400,
        _ => return None,
    };
    number.checked_mul(seconds).map(Duration::from_secs)
}

/// Durations in the file.
mod period {
    use std::time::Duration;

    use serde::{Deserialize as _, Deserializer, Serializer, de};

    pub(super) fn serialize<S: Serializer>(value: &Duration, out: S) -> Result<S::Ok, S::Error> {
        match value.subsec_millis() {
            0 => out.collect_str(&format_args!("{}s", value.as_secs())),
            _ => out.collect_str(&format_args!("{}ms", value.as_millis())),
        }
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Duration, D::Error> {
        let text = String::deserialize(from)?;
        super::parse_period(&text)
            .ok_or_else(|| de::Error::custom("a number with ms, s, m, h or d is expected"))
    }
}

/// Secrets go in and never come out.
mod secret {
    use bedside_sfu::core::api::Private;
    use serde::{Deserialize as _, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(
        value: &Private<String>,
        out: S,
    ) -> Result<S::Ok, S::Error> {
        out.serialize_str(if value.reveal().is_empty() { "" } else { "<redacted>" })
    }

    pub(super) fn deserialize<'de, D>(from: D) -> Result<Private<String>, D::Error>
    where
        D: Deserializer<'de>,
    {
        String::deserialize(from).map(Private::new)
    }
}

/// A database's address is worth seeing; who signs in there is not.
mod database_url {
    use bedside_sfu::core::api::Private;
    use serde::Serializer;

    pub(super) use super::secret::deserialize;

    pub(super) fn serialize<S: Serializer>(
        value: &Private<String>,
        out: S,
    ) -> Result<S::Ok, S::Error> {
        let url = value.reveal();
        if url.is_empty() || url.starts_with("sqlite:") {
            return out.serialize_str(url);
        }
        // A query may carry `password=` as well, and what is not understood may carry anything.
        let (address, query) = match url.split_once('?') {
            Some((_, query)) if query.contains('@') => return out.serialize_str("<redacted>"),
            Some((address, _)) => (address, "?<redacted>"),
            None => (url.as_str(), ""),
        };
        let Some((scheme, rest)) = address.split_once("://") else {
            return out.serialize_str("<redacted>");
        };
        let (who, host) =
            rest.rsplit_once('@').map_or(("", rest), |(_, host)| ("<redacted>@", host));
        out.collect_str(&format_args!("{scheme}://{who}{host}{query}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(file: &str, variables: &[(&str, &str)]) -> Result<Config, ConfigError> {
        let variables =
            variables.iter().map(|(name, text)| ((*name).into(), (*text).into())).collect();
        Config::from_layers(&Sources::default(), Some(("bedside.toml", file)), &variables)
    }

    #[test]
    fn layers_override_each_other() {
        let file = "drain_timeout = \"5s\"\n[http]\nlisten = \"0.0.0.0:80\"\n[media]\nport = 9";
        let config = load(
            file,
            &[
                ("DATABASE_URL", "postgres://a"),
                ("BEDSIDE_MEDIA__PORT", "10"),
                ("BEDSIDE_MEDIA__ADVERTISE", "192.0.2.1, 2001:db8::1"),
                ("BEDSIDE_ROOMS__AUTO_CREATE", "true"),
                ("RABBITMQ_HOST", "broker"),
                ("RABBITMQ_QUEUE_NOBODY_KNOWS", "x"),
                ("HOME", "/"),
            ],
        )
        .unwrap();
        assert_eq!(config.drain_timeout, Duration::from_secs(5));
        assert_eq!(config.http.listen.port(), 80);
        assert_eq!(config.media.port, 10);
        assert_eq!(config.media.advertise.len(), 2);
        assert_eq!(config.database_url.reveal(), "postgres://a");
        assert_eq!(config.rabbitmq.host, "broker");
        assert!(config.rooms.auto_create);
    }

    #[test]
    fn our_name_wins_over_the_plain_one() {
        let both = [("BEDSIDE_DATABASE_URL", "sqlite:a"), ("DATABASE_URL", "sqlite:b")];
        assert_eq!(load("", &both).unwrap().database_url.reveal(), "sqlite:a");
        for name in ["RABBITMQ_USER", "RABBITMQ_USERNAME"] {
            assert_eq!(load("", &[(name, "clinic")]).unwrap().rabbitmq.username, "clinic");
        }
    }

    #[test]
    fn without_a_word_it_listens_on_this_machine_only() {
        let config = load("", &[]).unwrap();
        assert_eq!(config.http.listen.to_string(), "127.0.0.1:8000");
        let moved = load("", &[("BEDSIDE_HTTP__LISTEN", "127.0.0.1:8004")]).unwrap();
        assert_eq!(moved.http.listen.port(), 8004);
    }

    #[test]
    fn an_empty_variable_counts_as_unset() {
        let empty =
            [("BEDSIDE_API_SECRET", ""), ("RABBITMQ_HOST", ""), ("BEDSIDE_MEDIA__PORT", "")];
        assert_eq!(load("", &empty).unwrap().one_line(), load("", &[]).unwrap().one_line());
        let error = load("", &[("BEDSIDE_API_SECRT", "")]).unwrap_err();
        assert!(matches!(error, ConfigError::UnknownVariable(_)), "{error}");
    }

    #[test]
    fn unknown_keys_are_named() {
        let error = load("[media]\nportt = 1", &[]).unwrap_err().to_string();
        assert!(error.contains("portt") && error.contains("line 2"), "{error}");
        for name in ["BEDSIDE_MEDIA__PORTT", "BEDSIDE_MEDIA", "BEDSIDE_", "BEDSIDE_HTTP_LISTEN"] {
            let error = load("", &[(name, "1")]).unwrap_err();
            assert!(matches!(&error, ConfigError::UnknownVariable(got) if got == name), "{error}");
        }
    }

    #[test]
    fn wrong_values_name_their_variable() {
        for (name, text) in [
            ("BEDSIDE_MEDIA__PORT", "many"),
            ("BEDSIDE_MEDIA__PORT", "65536"),
            ("BEDSIDE_ROOMS__AUTO_CREATE", "yes"),
            ("BEDSIDE_HTTP__LISTEN", "localhost"),
            ("BEDSIDE_DRAIN_TIMEOUT", "30"),
            ("BEDSIDE_LOG__FORMAT", "xml"),
        ] {
            let error = load("", &[(name, text)]).unwrap_err().to_string();
            assert!(error.starts_with(name), "{error}");
        }
    }

    #[test]
    fn secrets_come_from_files_and_are_never_printed() {
        let path = tempfile::NamedTempFile::new().unwrap().into_temp_path();
        let secret = "0123456789abcdef0123456789abcdef";
        std::fs::write(&path, format!("{secret}\n")).unwrap();
        let config = load(
            "",
            &[
                ("BEDSIDE_API_KEY", "clinic"),
                ("BEDSIDE_API_SECRET_FILE", path.to_str().unwrap()),
                ("DATABASE_URL", "postgres://user:hunter2@db/bedside?password=hunter3"),
                ("RABBITMQ_PASSWORD", "hunter4"),
            ],
        )
        .unwrap();
        assert_eq!(config.api_secret.reveal(), secret);
        config.check_secrets().unwrap();
        let shown = format!("{} {config:?}", config.redacted());
        assert!(!shown.contains("hunter") && !shown.contains(secret), "{shown}");
        assert!(shown.contains("postgres://<redacted>@db/bedside"), "{shown}");
        assert!(config.one_line().contains("; rabbitmq.password = \"<redacted>\"; "));
    }

    #[test]
    fn what_is_printed_is_a_configuration() {
        let config = load("[media]\nport = 77", &[]).unwrap();
        assert_eq!(load(&config.redacted(), &[]).unwrap().media.port, 77);
    }

    #[test]
    fn weak_secrets_are_refused() {
        for (key, secret) in [
            ("", "0123456789abcdef0123456789abcdef"),
            ("devkey", "0123456789abcdef0123456789abcdef"),
            ("clinic", ""),
            ("clinic", "secret"),
            ("clinic", "0123456789abcdef0123456789abcde"),
        ] {
            let variables = [("BEDSIDE_API_KEY", key), ("BEDSIDE_API_SECRET", secret)];
            assert!(load("", &variables).unwrap().check_secrets().is_err(), "{key} {secret}");
        }
    }

    #[test]
    fn demo_has_its_own_defaults_and_flags_win() {
        let flags = vec![("media.port", Value::from(0))];
        let sources = Sources { file: None, demo: true, flags };
        let variables = BTreeMap::from([("BEDSIDE_MEDIA__PORT".to_owned(), "5".to_owned())]);
        let config = Config::from_layers(&sources, None, &variables).unwrap();
        assert_eq!(config.api_key, DEMO_KEY);
        assert!(config.rooms.auto_create);
        assert_eq!(config.media.port, 0);
    }

    #[test]
    fn periods_are_read() {
        assert_eq!(parse_period("1h"), Some(Duration::from_secs(3600)));
        assert_eq!(parse_period("250ms"), Some(Duration::from_millis(250)));
        assert_eq!(parse_period("3650d"), Some(LONGEST_PERIOD));
        for bad in ["", "h", "1", "-1s", "1 s", "1w", "3651d", "99999999999999999999s"] {
            assert_eq!(parse_period(bad), None, "{bad}");
        }
    }
}
