//! References, against a server of the tests that stands for a vault: it checks token and path.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;
use crate::config::{Config, Sources};

const TOKEN: &str = "a token of the tests";

/// What stands for a vault: knows two secrets, wants the token, counts questions.
struct TestVault {
    address: String,
    questions: Arc<AtomicUsize>,
}

impl TestVault {
    /// The first answers are `broken` ones.
    fn start(broken: usize) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let questions = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&questions);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let broken = counted.fetch_add(1, Ordering::SeqCst) < broken;
                answer(stream.unwrap(), broken);
            }
        });
        Self { address, questions }
    }

    fn load(&self, file: &str, variables: &[(&str, &str)]) -> Result<Config, ConfigError> {
        let given = [("VAULT_ADDR", self.address.as_str()), ("VAULT_TOKEN", TOKEN)];
        load(file, given.into_iter().chain(variables.iter().copied()))
    }
}

fn answer(mut stream: TcpStream, broken: bool) {
    let mut lines = BufReader::new(stream.try_clone().unwrap()).lines();
    let line = lines.next().unwrap().unwrap();
    let path = line.split(' ').nth(1).unwrap();
    let head = lines.map(Result::unwrap).take_while(|line| !line.is_empty());
    let known = head
        .filter_map(|line| {
            line.split_once(": ").map(|(name, value)| (name.to_lowercase(), value.to_owned()))
        })
        .any(|header| header == ("x-vault-token".to_owned(), TOKEN.to_owned()));
    let (status, body) = match (broken, known) {
        (true, _) => ("503 Service Unavailable", String::new()),
        (false, false) => ("403 Forbidden", r#"{"errors":["permission denied"]}"#.to_owned()),
        (false, true) => secret_at(path),
    };
    let length = body.len();
    let head =
        format!("HTTP/1.1 {status}\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n");
    let _gone = stream.write_all((head + &body).as_bytes());
}

fn secret_at(path: &str) -> (&'static str, String) {
    let data = match path {
        "/v1/secret/data/postgres" => {
            r#"{"host":"db.internal","password":"p@ss/word","port":5433,"nothing":null}"#
        }
        "/v1/clinics/data/kafka/main" => r#"{"password":"from another mount"}"#,
        "/v1/secret/data/odd" => return ("200 OK", r#"{"data":{"password":"v1"}}"#.to_owned()),
        "/v1/secret/data/moved" => return ("307 Temporary Redirect", String::new()),
        "/v1/secret/data/long" => return ("200 OK", "x".repeat(ANSWER_BYTES + 1)),
        _ => return ("404 Not Found", r#"{"errors":[]}"#.to_owned()),
    };
    ("200 OK", format!(r#"{{"data":{{"data":{data},"metadata":{{"version":1}}}}}}"#))
}

fn load<'a>(
    file: &str,
    variables: impl Iterator<Item = (&'a str, &'a str)>,
) -> Result<Config, ConfigError> {
    bedside_control_plane::crypto::use_one();
    let variables = variables.map(|(name, text)| (name.into(), text.into())).collect();
    Config::from_layers(&Sources::default(), Some(("bedside.toml", file)), &variables)
}

#[test]
fn references_in_file_and_variables_are_replaced() {
    let vault = TestVault::start(0);
    let file = "[rabbitmq]\npassword = \"${vault:postgres/password}\"\n\
                host = \"mq-${vault:postgres/port}.${vault:postgres/host}\"";
    let variables = [
        ("POSTGRES_HOST", "${vault:postgres/host}"),
        ("POSTGRES_PASSWORD", "${vault:postgres/password}"),
        ("POSTGRES_DATABASE", "consultation_db"),
        ("RABBITMQ_PORT", "${vault:postgres/port}"),
    ];
    let config = vault.load(file, &variables).unwrap();
    assert_eq!(config.rabbitmq.password.reveal(), "p@ss/word");
    assert_eq!(config.rabbitmq.host, "mq-5433.db.internal");
    assert_eq!(config.rabbitmq.port, 5433);
    assert_eq!(
        config.database_url.reveal(),
        "postgres://postgres:p%40ss%2Fword@db.internal:5432/consultation_db"
    );
    let shown = format!("{} {config:?}", config.redacted());
    assert!(!shown.contains("p@ss") && !shown.contains("p%40"), "{shown}");
    assert!(!shown.contains(TOKEN), "{shown}");
    // One secret, one question.
    assert_eq!(vault.questions.load(Ordering::SeqCst), 1);
}

#[test]
fn mount_and_token_come_from_settings_and_files() {
    let vault = TestVault::start(0);
    let token = tempfile::NamedTempFile::new().unwrap().into_temp_path();
    std::fs::write(&token, format!("{TOKEN}\n")).unwrap();
    let file = format!(
        "[vault]\naddress = \"{}/\"\nmount = \"clinics\"\n\
         [rabbitmq]\npassword = \"${{vault:kafka/main/password}}\"",
        vault.address
    );
    for name in ["VAULT_TOKEN_FILE", "BEDSIDE_VAULT__TOKEN_FILE", "BEDSIDE_VAULT__TOKEN_PATH"] {
        let config = load(&file, [(name, token.to_str().unwrap())].into_iter()).unwrap();
        assert_eq!(config.rabbitmq.password.reveal(), "from another mount", "{name}");
    }
}

#[test]
fn a_vault_that_restarts_is_asked_again() {
    let vault = TestVault::start(1);
    let config = vault.load("", &[("RABBITMQ_PASSWORD", "${vault:postgres/password}")]).unwrap();
    assert_eq!(config.rabbitmq.password.reveal(), "p@ss/word");
    assert_eq!(vault.questions.load(Ordering::SeqCst), 2);
}

#[test]
fn what_cannot_be_had_is_told_and_holds_no_secret() {
    let vault = TestVault::start(0);
    for (text, expected) in [
        ("${vault:postgres/user}", "the secret postgres has no text under the key user"),
        ("${vault:postgres/nothing}", "no text under the key nothing"),
        ("${vault:mongo/uri}", "the secret mongo is not there"),
        ("${vault:odd/password}", "does not look like one of a version-2 engine"),
        ("${vault:moved/password}", "the vault answers 307"),
        ("${vault:long/password}", "is too long"),
        ("${vault:password}", "RABBITMQ_PASSWORD: a reference is written ${vault:path/key}"),
        ("${vault:../sys/key}", "a reference is written"),
        ("${vault:postgres/../x}", "a reference is written"),
        ("${vault:postgres?x/y}", "a reference is written"),
        ("${vault:postgres/password", "a reference is written"),
        ("${vault:}", "a reference is written"),
    ] {
        let error = vault.load("", &[("RABBITMQ_PASSWORD", text)]).unwrap_err().to_string();
        assert!(error.contains(expected), "{text}: {error}");
        assert!(!error.contains(TOKEN), "{error}");
    }
    let wrong = [("VAULT_ADDR", vault.address.as_str()), ("VAULT_TOKEN", "guessed")];
    let wanted = ("RABBITMQ_PASSWORD", "${vault:postgres/password}");
    let error = load("", wrong.into_iter().chain([wanted])).unwrap_err().to_string();
    assert!(error.contains("may not be read with this vault.token"), "{error}");
    assert!(!error.contains("guessed"), "{error}");
}

#[test]
fn without_a_vault_references_are_an_error() {
    let wanted = ("RABBITMQ_PASSWORD", "${vault:postgres/password}");
    let error = load("", [wanted].into_iter()).unwrap_err().to_string();
    assert!(error.contains("VAULT_ADDR"), "{error}");
    let address = ("VAULT_ADDR", "http://127.0.0.1:9");
    let error = load("", [address, wanted].into_iter()).unwrap_err().to_string();
    assert!(error.contains("VAULT_TOKEN"), "{error}");
    let itself = ("VAULT_TOKEN", "${vault:a/b}");
    let error = load("", [address, itself].into_iter()).unwrap_err().to_string();
    assert!(error.contains("VAULT_TOKEN leads to the vault"), "{error}");
}

#[test]
fn texts_without_references_stay_as_they_are() {
    for text in ["", "plain", "${HOME}", "{vault:a/b}", "$vault:a/b"] {
        assert!(!refers(text), "{text}");
        assert_eq!(Secrets::default().fill(text), text);
    }
    let parts: Vec<Part<'_>> = split("a${vault:b/c}${vault:d/e}f").collect();
    let expected =
        [Part::Text("a"), Part::Reference("b/c"), Part::Reference("d/e"), Part::Text("f")];
    assert_eq!(parts, expected);
}
