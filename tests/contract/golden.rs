//! Golden exchanges: what each HTTP contract asks and is answered, field by field.
//!
//! A folder of `golden/` is one contract, its files one walk through it, in the order of their
//! names. Ids, times, tokens and addresses differ from run to run and are replaced by what they are.
//! After a wanted change `GOLDEN=write cargo test --test contract golden` writes the answers anew.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::support::{Server, text};

#[test]
fn booking() {
    walk("booking");
}

#[test]
fn calls() {
    walk("calls");
}

#[test]
fn consultations() {
    walk("consultations");
}

#[test]
fn video_service() {
    walk("video-service");
}

#[test]
fn every_contract_is_walked() {
    let mut folders: Vec<String> = fs::read_dir(root())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    folders.sort();
    assert_eq!(folders, ["booking", "calls", "consultations", "video-service"]);
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/contract/golden")
}

fn walk(contract: &str) {
    let server = Server::serve(&[]);
    let mut files: Vec<PathBuf> =
        fs::read_dir(root().join(contract)).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    let mut kept = HashMap::new();
    let mut tokens = HashMap::new();
    for file in files {
        let mut exchange: Value =
            serde_json::from_str(&fs::read_to_string(&file).unwrap()).unwrap();
        let by = text(&exchange["by"]);
        let token = tokens.entry(by.clone()).or_insert_with(|| match by.split_once(' ') {
            Some((role, user)) => server.api_token(role, user),
            None => String::new(),
        });
        let path = filled(&text(&exchange["path"]), &kept);
        let body = exchange.get("body").cloned().unwrap_or_default();
        let answer = server.ask(&text(&exchange["method"]), &path, token, body);
        let heard = answer.json();
        for (name, pointer) in exchange["keep"].as_object().into_iter().flatten() {
            kept.insert(name.clone(), text(heard.pointer(&text(pointer)).unwrap()));
        }
        let name = file.strip_prefix(root()).unwrap().display().to_string();
        assert_eq!(answer.status, exchange["status"], "{name}: {heard}");
        let plain = plain(heard, &server.address.to_string());
        if std::env::var_os("GOLDEN").is_some_and(|word| word == "write") {
            exchange["answer"] = plain;
            let written = serde_json::to_string_pretty(&exchange).unwrap() + "\n";
            fs::write(&file, written).unwrap();
        } else {
            assert_eq!(exchange["answer"], plain, "{name}: {plain:#}");
        }
    }
}

/// A path with what earlier answers told.
fn filled(path: &str, kept: &HashMap<String, String>) -> String {
    let mut path = path.to_owned();
    for (name, value) in kept {
        path = path.replace(&format!("{{{name}}}"), value);
    }
    path
}

/// How long something lasted.
const LASTED: [&str; 4] =
    ["duration", "duration_seconds", "totalDurationSeconds", "actualDurationSeconds"];

/// An answer with nothing in it that is different next time.
fn plain(value: Value, address: &str) -> Value {
    match value {
        Value::String(text) => Value::String(plain_text(&text.replace(address, "<server>"))),
        Value::Array(items) => items.into_iter().map(|item| plain(item, address)).collect(),
        Value::Object(fields) => {
            let field = |(key, value): (String, Value)| {
                // A walk takes a moment, more of it on a busy machine.
                let lasted = LASTED.contains(&key.as_str()) && value.is_number();
                let value = if lasted { json!("<seconds>") } else { plain(value, address) };
                (key, value)
            };
            fields.into_iter().map(field).collect()
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => value,
    }
}

/// Times of this year and later are of now; planned ones are far ahead.
fn plain_text(text: &str) -> String {
    if text == env!("CARGO_PKG_VERSION") {
        return "<version>".to_owned();
    }
    if text.len() > 100 && text.split('.').count() == 3 {
        return "<token>".to_owned();
    }
    if is_time(text) && !text.starts_with("2096-") {
        return "<time>".to_owned();
    }
    let mut plain = String::new();
    let mut rest = text;
    while let Some(at) = rest.find(|c: char| c.is_ascii_alphanumeric()) {
        let (before, word) = rest.split_at(at);
        let end = word
            .find(|c: char| !(c.is_ascii_alphanumeric() || matches!(c, '-' | '_')))
            .unwrap_or(word.len());
        let (word, after) = word.split_at(end);
        plain.push_str(before);
        plain.push_str(&plain_word(word, before.ends_with('#')));
        rest = after;
    }
    plain + rest
}

fn plain_word(word: &str, secret: bool) -> String {
    let hex = |text: &str| text.len() == 32 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    if secret && word.len() >= 40 {
        return "<secret>".to_owned();
    }
    for known in ["consultation-", "adhoc-"] {
        if word.strip_prefix(known).is_some_and(hex) {
            return format!("{known}<random>");
        }
    }
    // The appointment's own id is the asker's and stays.
    let appointment = "6f1c2f0e-6d0b-4a53-9a0c-8f5f5f0d7a11";
    if word != appointment && word.len() == 36 && hex(&word.replace('-', "")) {
        return "<id>".to_owned();
    }
    word.to_owned()
}

fn is_time(text: &str) -> bool {
    let form = "2096-01-25T14:00:00.000Z";
    text.len() == form.len()
        && text.bytes().zip(form.bytes()).all(|(byte, known)| {
            if known.is_ascii_digit() { byte.is_ascii_digit() } else { byte == known }
        })
}

#[test]
fn what_differs_is_replaced_and_nothing_else() {
    let answer = json!({
        "id": "0b6c7d0a-5f5e-4c8e-9a39-2a6c9f1f7b22",
        "appointment": "6f1c2f0e-6d0b-4a53-9a0c-8f5f5f0d7a11",
        "url": "http://127.0.0.1:1/visit#0123456789012345678901234567890123456789abc",
        "room": "consultation-0123456789abcdef0123456789abcdef",
        "at": "2026-11-21T20:00:00.000Z", "planned": "2096-01-25T14:00:00.000Z",
        "name": "Dr. John Smith", "number": 7, "nothing": null,
    });
    let expected = json!({
        "id": "<id>",
        "appointment": "6f1c2f0e-6d0b-4a53-9a0c-8f5f5f0d7a11",
        "url": "http://<server>/visit#<secret>",
        "room": "consultation-<random>",
        "at": "<time>", "planned": "2096-01-25T14:00:00.000Z",
        "name": "Dr. John Smith", "number": 7, "nothing": null,
    });
    assert_eq!(plain(answer, "127.0.0.1:1"), expected);
}
