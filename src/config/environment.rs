//! The environment as a layer: `BEDSIDE_…`, names that other software uses too, and `…_FILE`.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::{Map, Value};

use super::layers::{merge, nested, read};
use super::{Config, ConfigError, Note};

/// Names that other software gives to what we need too. Of two names for one key the later wins.
const PLAIN_NAMES: &[(&str, &str)] = &[
    ("DATABASE_URL", "database_url"),
    ("KAFKA_BOOTSTRAP_SERVERS", "kafka.bootstrap_servers"),
    ("RABBITMQ_HOST", "rabbitmq.host"),
    ("RABBITMQ_PORT", "rabbitmq.port"),
    ("RABBITMQ_USER", "rabbitmq.username"),
    ("RABBITMQ_USERNAME", "rabbitmq.username"),
    ("RABBITMQ_PASSWORD", "rabbitmq.password"),
    ("RABBITMQ_VHOST", "rabbitmq.vhost"),
    ("RABBITMQ_EXCHANGE", "rabbitmq.exchange"),
    ("VIDEO_ENABLED", "video.enabled"),
    ("VIDEO_PROVIDER", "video.provider"),
    ("VAULT_ADDR", "vault.address"),
    ("VAULT_TOKEN", "vault.token"),
    ("VAULT_NAMESPACE", "vault.namespace"),
    ("VAULT_CACERT", "vault.ca_path"),
    ("VAULT_MOUNT", "vault.mount"),
    ("AWS_S3_BUCKET", "objects.s3_bucket"),
    ("AWS_REGION", "objects.s3_region"),
    ("AWS_S3_REGION", "objects.s3_region"),
    ("AWS_ENDPOINT_URL_S3", "objects.s3_endpoint"),
    ("AWS_ACCESS_KEY_ID", "objects.s3_access_key_id"),
    ("AWS_SECRET_ACCESS_KEY", "objects.s3_secret_access_key"),
    ("EVENT_NAIVE_TIMEZONE", "events.naive_timezone"),
];

/// A PostgreSQL in pieces, as compose files have it; `DATABASE_URL` wins over them.
const POSTGRES_HOST: &str = "POSTGRES_HOST";
const POSTGRES_PORT: &str = "POSTGRES_PORT";
const POSTGRES_DATABASE: [&str; 2] = ["POSTGRES_DATABASE", "POSTGRES_DB"];
const POSTGRES_USER: &str = "POSTGRES_USER";
const POSTGRES_PASSWORD: &str = "POSTGRES_PASSWORD";

/// Settings of the services and stores that Bedside takes the place of. They may stay where they
/// are; none of them changes anything.
const UNUSED: [&str; 9] = [
    "AGORA_",
    "CHIME_",
    "JITSI_",
    "MONGODB_",
    "OPENVIDU_",
    "REDIS_",
    "STREAM_API_",
    "TWILIO_",
    "ZOOM_",
];

/// What the environment says: each setting's variable and its text, ready to become a layer.
#[derive(Debug, Default)]
pub(super) struct Environment {
    /// (variable, dotted key, text), in the order in which they win.
    pub(super) texts: Vec<(String, String, String)>,
    /// Pieces of a database's address.
    pub(super) postgres: BTreeMap<&'static str, String>,
    /// What the operator should know.
    pub(super) notes: Vec<Note>,
}

impl Environment {
    /// Picks our variables out of all, and reads the files that those with `_FILE` name.
    pub(super) fn read(variables: &BTreeMap<String, String>) -> Result<Self, ConfigError> {
        let mut found = Self::default();
        for (plain, key) in PLAIN_NAMES {
            for name in [(*plain).to_owned(), format!("{plain}_FILE")] {
                if let Some(text) = variables.get(&name) {
                    found.texts.push((name.clone(), (*key).to_owned(), content(&name, text)?));
                }
            }
        }
        let pieces = [POSTGRES_HOST, POSTGRES_PORT, POSTGRES_USER, POSTGRES_PASSWORD];
        for plain in pieces.into_iter().chain(POSTGRES_DATABASE) {
            for name in [plain.to_owned(), format!("{plain}_FILE")] {
                if let Some(text) = variables.get(&name).filter(|text| !text.is_empty()) {
                    found.postgres.insert(plain, content(&name, text)?);
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
            found.texts.push((name.clone(), key.to_owned(), content(name, text)?));
        }
        let unused = |name: &&String| UNUSED.iter().any(|prefix| name.starts_with(prefix));
        let unused: Vec<&str> = variables.keys().filter(unused).map(String::as_str).collect();
        if !unused.is_empty() {
            let names = unused.join(", ");
            found.notes.push(Note::Info(format!("these variables are not used (yet): {names}")));
        }
        Ok(found)
    }

    /// All of it as one layer.
    pub(super) fn layer(&self) -> Result<Value, ConfigError> {
        let known = serde_json::to_value(Config::default())
            .expect("the defaults are representable in JSON");
        let mut layer = Value::Object(Map::new());
        if let Some(url) = self.postgres_url() {
            merge(&mut layer, nested("database_url", Value::String(url)));
        }
        for (name, key, text) in &self.texts {
            merge(&mut layer, variable(&known, name, key, text)?);
        }
        Ok(layer)
    }

    /// `postgres://…` out of the pieces; without a host there is none.
    fn postgres_url(&self) -> Option<String> {
        let piece = |name: &str| self.postgres.get(name).map(String::as_str);
        let host = piece(POSTGRES_HOST)?;
        let user = piece(POSTGRES_USER).unwrap_or("postgres");
        let database = POSTGRES_DATABASE.into_iter().find_map(piece).unwrap_or(user);
        let password = piece(POSTGRES_PASSWORD)
            .map_or_else(String::new, |password| format!(":{}", quoted(password)));
        let host = if host.contains(':') { format!("[{host}]") } else { quoted(host) };
        let port = piece(POSTGRES_PORT).unwrap_or("5432");
        Some(format!(
            "postgres://{}{password}@{host}:{}/{}",
            quoted(user),
            quoted(port),
            quoted(database)
        ))
    }
}

/// The text that a variable stands for: its own, or that of the file it names.
fn content(name: &str, text: &str) -> Result<String, ConfigError> {
    match name.strip_suffix("_FILE") {
        Some(_) if text.is_empty() => Ok(String::new()),
        Some(_) => Ok(read(Path::new(text))?.trim_end().to_owned()),
        None => Ok(text.to_owned()),
    }
}

/// One variable as a layer; its type is that of the default.
fn variable(known: &Value, name: &str, key: &str, text: &str) -> Result<Value, ConfigError> {
    let bad = |expected| ConfigError::BadVariable { variable: name.to_owned(), expected };
    let default = key.split('.').try_fold(known, |at, part| at.get(part));
    // As compose files write a variable that nobody set.
    if text.is_empty() && default.is_some() {
        return Ok(Value::Object(Map::new()));
    }
    let value = match default {
        None | Some(Value::Object(_)) => {
            return Err(ConfigError::UnknownVariable(name.to_owned()));
        }
        Some(Value::Bool(_)) => Value::Bool(truth(name, text).ok_or_else(|| bad("true or false"))?),
        Some(Value::Number(_)) => {
            Value::from(text.parse::<u64>().map_err(|_| bad("a whole number"))?)
        }
        Some(Value::Array(_)) if text.trim_start().starts_with('[') => {
            serde_json::from_str(text)
                .map_err(|_| bad("a list: words with commas between them, or JSON"))?
        }
        Some(Value::Array(_)) => {
            text.split(',').map(str::trim).filter(|part| !part.is_empty()).collect()
        }
        Some(Value::String(_) | Value::Null) => Value::String(text.to_owned()),
    };
    // Alone it tells which variable is wrong; together with the others it no longer would.
    let layer = nested(key, value);
    serde_json::from_value::<Config>(layer.clone()).map_err(|error| ConfigError::Syntax {
        path: name.to_owned(),
        reason: error.to_string(),
    })?;
    Ok(layer)
}

/// Our names take `true` and `false`; the older ones whatever their programs took.
fn truth(name: &str, text: &str) -> Option<bool> {
    let text = if name.starts_with("BEDSIDE_") { text.to_owned() } else { text.to_lowercase() };
    match text.as_str() {
        "true" => Some(true),
        "false" => Some(false),
        "1" | "yes" | "on" if !name.starts_with("BEDSIDE_") => Some(true),
        "0" | "no" | "off" if !name.starts_with("BEDSIDE_") => Some(false),
        _ => None,
    }
}

/// A text as a part of an URL (RFC 3986 §2.1).
fn quoted(text: &str) -> String {
    let byte = |byte: u8| {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b'~') {
            char::from(byte).to_string()
        } else {
            format!("%{byte:02X}")
        }
    };
    text.bytes().map(byte).collect()
}
