//! Section `vault`, and the references `${vault:path/key}` in any other value.
//!
//! A reference is replaced before values are typed, in the file's texts and in variables alike. It
//! names a secret of the key-value engine, version 2, and a key of it: `${vault:clinic/db/password}` is
//! the key `password` of the secret `clinic/db`. Each secret is fetched once. Where nothing refers to
//! a secret, nobody is asked.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::Duration;

use bedside_sfu::core::api::Private;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::ConfigError;
use super::environment::Environment;
use super::layers::{merge, read};

/// How long one question may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// Questions in all, and the pause between them: a vault that restarts is back by then.
const ATTEMPTS: u32 = 3;
const PAUSE: Duration = Duration::from_secs(1);
/// The longest answer.
const ANSWER_BYTES: usize = 1024 * 1024;

const OPEN: &str = "${vault:";

/// Where secrets are kept. Its own values cannot be references.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Vault {
    /// `https://host[:port]`; empty = there is none.
    pub(crate) address: String,
    /// Token that may read what is referred to.
    #[serde(with = "super::forms::secret")]
    pub(crate) token: Private<String>,
    /// File with that token, as an agent keeps it; read where `token` is empty.
    pub(crate) token_path: PathBuf,
    /// Where the key-value engine is mounted.
    pub(crate) mount: String,
    /// Namespace; empty = none.
    pub(crate) namespace: String,
    /// Certificates (PEM) that are trusted besides the system's; empty = none.
    pub(crate) ca_path: PathBuf,
}

impl Default for Vault {
    fn default() -> Self {
        Self {
            address: String::new(),
            token: Private::default(),
            token_path: PathBuf::new(),
            mount: "secret".to_owned(),
            namespace: String::new(),
            ca_path: PathBuf::new(),
        }
    }
}

/// A key of a secret.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Reference {
    path: String,
    key: String,
}

/// The secrets that were fetched.
#[derive(Debug, Default)]
struct Secrets(BTreeMap<Reference, Private<String>>);

/// Replaces the references in a file's layer and in variables.
pub(super) fn resolve(
    mut file: Option<Value>,
    mut environment: Environment,
) -> Result<(Option<Value>, Environment), ConfigError> {
    let mut found = Vec::new();
    if let Some(file) = &file {
        texts(file, "", &mut found);
    }
    for (name, _, text) in &environment.texts {
        found.push((name.clone(), text));
    }
    for (name, text) in &environment.postgres {
        found.push(((*name).to_owned(), text));
    }
    found.retain(|(_, text)| refers(text));
    if found.is_empty() {
        return Ok((file, environment));
    }
    if let Some((name, _)) = found.iter().find(|(name, _)| is_own(name)) {
        return Err(ConfigError::Vault(format!("{name} leads to the vault and cannot be in it")));
    }
    let vault = settings(file.as_ref(), &environment)?;
    let secrets = fetch(&vault, &found)?;
    if let Some(file) = &mut file {
        secrets.fill_tree(file);
    }
    for (_, _, text) in &mut environment.texts {
        *text = secrets.fill(text);
    }
    for text in environment.postgres.values_mut() {
        *text = secrets.fill(text);
    }
    Ok((file, environment))
}

/// Is it one of this section's own settings?
fn is_own(name: &str) -> bool {
    ["vault.", "VAULT_", "BEDSIDE_VAULT__"].iter().any(|prefix| name.starts_with(prefix))
}

/// This section alone, before the others can be read.
fn settings(file: Option<&Value>, environment: &Environment) -> Result<Vault, ConfigError> {
    let own = |(name, _, _): &&(String, String, String)| is_own(name);
    let texts = environment.texts.iter().filter(own).cloned().collect();
    let own = Environment { texts, ..Environment::default() };
    let mut section = file.and_then(|file| file.get("vault")).cloned().unwrap_or_default();
    if section.is_null() {
        section = Value::Object(serde_json::Map::new());
    }
    if let Some(from_environment) = own.layer()?.get("vault") {
        merge(&mut section, from_environment.clone());
    }
    serde_json::from_value(section).map_err(|error| ConfigError::Invalid(format!("vault: {error}")))
}

/// Does a text refer to a secret?
fn refers(text: &str) -> bool {
    text.contains(OPEN)
}

/// Does any text of a tree refer to a secret?
pub(super) fn tree_refers(value: &Value) -> bool {
    match value {
        Value::String(text) => refers(text),
        Value::Array(list) => list.iter().any(tree_refers),
        Value::Object(map) => map.values().any(tree_refers),
        Value::Null | Value::Bool(_) | Value::Number(_) => false,
    }
}

/// Fetches what `texts` refer to; each comes with the name that an error tells.
fn fetch(vault: &Vault, texts: &[(String, &String)]) -> Result<Secrets, ConfigError> {
    let mut wanted = BTreeSet::new();
    for (name, text) in texts {
        for part in split(text) {
            if let Part::Reference(inner) = part {
                wanted.insert(reference(inner).ok_or_else(|| bad_reference(name))?);
            }
        }
    }
    let vault = vault.clone();
    // A thread of its own: the caller may or may not be inside a runtime.
    std::thread::spawn(move || ask_for_all(&vault, wanted))
        .join()
        .map_err(|_| unreachable_vault("the question failed"))?
}

impl Secrets {
    /// A text with its references replaced.
    fn fill(&self, text: &str) -> String {
        let part = |part| match part {
            Part::Text(text) => text.to_owned(),
            // Every reference of every text was fetched, or loading has failed.
            Part::Reference(inner) => reference(inner)
                .and_then(|wanted| self.0.get(&wanted))
                .map_or_else(String::new, |secret| secret.reveal().clone()),
        };
        split(text).map(part).collect()
    }

    /// A tree with the references of all its texts replaced.
    fn fill_tree(&self, value: &mut Value) {
        match value {
            Value::String(text) if refers(text) => *text = self.fill(text),
            Value::Array(list) => list.iter_mut().for_each(|value| self.fill_tree(value)),
            Value::Object(map) => map.values_mut().for_each(|value| self.fill_tree(value)),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
        }
    }
}

/// Every text of a tree with its dotted key.
fn texts<'a>(value: &'a Value, key: &str, into: &mut Vec<(String, &'a String)>) {
    match value {
        Value::String(text) => into.push((key.to_owned(), text)),
        Value::Array(list) => list.iter().for_each(|value| texts(value, key, into)),
        Value::Object(map) => {
            for (name, value) in map {
                let dot = if key.is_empty() { "" } else { "." };
                texts(value, &format!("{key}{dot}{name}"), into);
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

/// A piece of a value.
#[derive(Debug, PartialEq, Eq)]
enum Part<'a> {
    Text(&'a str),
    /// What stands between `${vault:` and `}`.
    Reference(&'a str),
}

fn split(mut text: &str) -> impl Iterator<Item = Part<'_>> {
    let mut parts = Vec::new();
    while let Some((before, rest)) = text.split_once(OPEN) {
        if !before.is_empty() {
            parts.push(Part::Text(before));
        }
        // Without its end it refers to nothing, which `reference` refuses.
        let (inner, after) = rest.split_once('}').unwrap_or(("", ""));
        parts.push(Part::Reference(inner));
        text = after;
    }
    if !text.is_empty() {
        parts.push(Part::Text(text));
    }
    parts.into_iter()
}

/// `path/key`, of characters that need no quoting in an URL and cannot climb.
fn reference(inner: &str) -> Option<Reference> {
    let (path, key) = inner.rsplit_once('/')?;
    let word = |word: &str| {
        !word.is_empty()
            && word != "."
            && word != ".."
            && word.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
    };
    let good = word(key) && path.split('/').all(word);
    good.then(|| Reference { path: path.to_owned(), key: key.to_owned() })
}

fn bad_reference(name: &str) -> ConfigError {
    ConfigError::Vault(format!("{name}: a reference is written ${{vault:path/key}}"))
}

fn unreachable_vault(reason: &str) -> ConfigError {
    ConfigError::Vault(format!("vault.address: {reason}"))
}

fn ask_for_all(vault: &Vault, wanted: BTreeSet<Reference>) -> Result<Secrets, ConfigError> {
    let token = token(vault)?;
    let client = client(vault, &token)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| unreachable_vault(&error.to_string()))?;
    runtime.block_on(async {
        let mut fetched: BTreeMap<String, Value> = BTreeMap::new();
        let mut secrets = BTreeMap::new();
        for wanted in wanted {
            let Reference { path, key } = &wanted;
            if !fetched.contains_key(path) {
                fetched.insert(path.clone(), secret(&client, vault, path).await?);
            }
            let value = fetched.get(path).and_then(|secret| secret.get(key));
            let text = match value {
                Some(Value::String(text)) => text.clone(),
                Some(value @ (Value::Number(_) | Value::Bool(_))) => value.to_string(),
                Some(Value::Null | Value::Array(_) | Value::Object(_)) | None => {
                    return Err(ConfigError::Vault(format!(
                        "the secret {path} has no text under the key {key}"
                    )));
                }
            };
            secrets.insert(wanted, Private::new(text));
        }
        Ok(Secrets(secrets))
    })
}

fn token(vault: &Vault) -> Result<String, ConfigError> {
    if vault.address.is_empty() {
        return Err(ConfigError::Vault(
            "a setting refers to a secret and no vault is known: set vault.address (VAULT_ADDR)"
                .to_owned(),
        ));
    }
    let token = if vault.token.reveal().is_empty() && !vault.token_path.as_os_str().is_empty() {
        read(&vault.token_path)?.trim().to_owned()
    } else {
        vault.token.reveal().clone()
    };
    if token.is_empty() {
        return Err(ConfigError::Vault(
            "no token for the vault: set vault.token (VAULT_TOKEN, VAULT_TOKEN_FILE) or \
             vault.token_path"
                .to_owned(),
        ));
    }
    Ok(token)
}

fn client(vault: &Vault, token: &str) -> Result<reqwest::Client, ConfigError> {
    use reqwest::header::{HeaderMap, HeaderValue};

    let mut headers = HeaderMap::new();
    let mut token = HeaderValue::from_str(token)
        .map_err(|_| ConfigError::Vault("vault.token is no token".to_owned()))?;
    token.set_sensitive(true);
    headers.insert("x-vault-token", token);
    headers.insert("x-vault-request", HeaderValue::from_static("true"));
    if !vault.namespace.is_empty() {
        let namespace = HeaderValue::from_str(&vault.namespace)
            .map_err(|_| ConfigError::Vault("vault.namespace is no name".to_owned()))?;
        headers.insert("x-vault-namespace", namespace);
    }
    let mut builder = reqwest::Client::builder()
        .default_headers(headers)
        .timeout(PATIENCE)
        // Whoever it is sent on to would get the token.
        .redirect(reqwest::redirect::Policy::none());
    if !vault.ca_path.as_os_str().is_empty() {
        let pem = read(&vault.ca_path)?;
        let certificates = reqwest::Certificate::from_pem_bundle(pem.as_bytes())
            .map_err(|error| ConfigError::Vault(format!("vault.ca_path: {error}")))?;
        for certificate in certificates {
            builder = builder.add_root_certificate(certificate);
        }
    }
    builder.build().map_err(|error| unreachable_vault(&error.without_url().to_string()))
}

/// The keys of one secret.
async fn secret(client: &reqwest::Client, vault: &Vault, path: &str) -> Result<Value, ConfigError> {
    let url = format!(
        "{}/v1/{}/data/{path}",
        vault.address.trim_end_matches('/'),
        vault.mount.trim_matches('/')
    );
    let mut attempt = 1;
    loop {
        let failed = match client.get(&url).send().await {
            Ok(answer) if !answer.status().is_server_error() => return keys(answer, path).await,
            Ok(answer) => format!("it answers {} for {path}", answer.status().as_u16()),
            Err(error) => format!("it does not answer ({})", cause(&error.without_url())),
        };
        if attempt == ATTEMPTS {
            return Err(unreachable_vault(&failed));
        }
        attempt += 1;
        tokio::time::sleep(PAUSE).await;
    }
}

async fn keys(mut answer: reqwest::Response, path: &str) -> Result<Value, ConfigError> {
    let refused = |reason: &str| Err(ConfigError::Vault(format!("the secret {path} {reason}")));
    match answer.status().as_u16() {
        200 => {}
        401 | 403 => return refused("may not be read with this vault.token"),
        404 => return refused("is not there (is vault.mount right, and a version-2 engine?)"),
        status => return refused(&format!("cannot be read: the vault answers {status}")),
    }
    let mut body = Vec::new();
    loop {
        match answer.chunk().await {
            Ok(Some(chunk)) if body.len() + chunk.len() <= ANSWER_BYTES => {
                body.extend_from_slice(&chunk);
            }
            Ok(Some(_)) => return refused("is too long"),
            Ok(None) => break,
            Err(_) => return refused("broke off while it was read"),
        }
    }
    let json: Value = serde_json::from_slice(&body).unwrap_or_default();
    match json.pointer("/data/data") {
        Some(keys @ Value::Object(_)) => Ok(keys.clone()),
        _ => refused("does not look like one of a version-2 engine"),
    }
}

/// What lies at the bottom of an error: "connection refused" instead of "error sending request".
fn cause(error: &dyn std::error::Error) -> String {
    let mut deepest = error;
    while let Some(source) = deepest.source() {
        deepest = source;
    }
    deepest.to_string()
}

#[cfg(test)]
mod tests;
