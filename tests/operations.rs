//! What an operator does with the program itself: backup and restore beside a running server, a schema
//! that is too new, the doors of the operator, proxies. On SQLite and on PostgreSQL.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use bedside_control_plane::token::ApiRole;
use bedside_faults::postgres::Postgres;
use bedside_faults::server::Server;
use serde_json::{Value, json};

const SESSIONS: &str = "/api/v1/consultations/sessions";

fn binary() -> PathBuf {
    env!("CARGO_BIN_EXE_bedside").into()
}

/// A server that answers: it has opened its database by then, which a bound port does not tell.
async fn started(url: &str, more: &[(&str, String)]) -> Server {
    let server = Server::start(binary(), url, more).expect("a server");
    assert_eq!(get(&server, "/version", &[]).await.0, 200);
    server
}

fn run(arguments: &[&str], database_url: &str) -> Output {
    Command::new(binary())
        .args(arguments)
        .env("BEDSIDE_DATABASE_URL", database_url)
        .env("BEDSIDE_API_KEY", "operations")
        .env("BEDSIDE_API_SECRET", "a secret of these tests, which is long enough")
        // The usual ports may be somebody's.
        .env("BEDSIDE_HTTP__LISTEN", "127.0.0.1:0")
        .env("BEDSIDE_MEDIA__BIND", "127.0.0.1")
        .env("BEDSIDE_MEDIA__PORT", "0")
        .env("BEDSIDE_TURN__PORT", "0")
        .output()
        .expect("the program runs")
}

fn words(output: &Output) -> String {
    let out = String::from_utf8_lossy(&output.stdout).into_owned();
    out + &String::from_utf8_lossy(&output.stderr)
}

/// A new consultation's id.
async fn create(server: &Server) -> String {
    let body = json!({"doctorId": "doc", "patientId": "pat", "consultationMode": "VIDEO"});
    let answer = reqwest::Client::new()
        .post(format!("{}{SESSIONS}", server.url()))
        .bearer_auth(Server::token(ApiRole::Service, "backend"))
        .body(body.to_string())
        .send()
        .await
        .expect("an answer");
    assert_eq!(answer.status(), 201);
    let made: Value = serde_json::from_str(&answer.text().await.expect("a body")).expect("JSON");
    made.get("sessionId").and_then(Value::as_str).expect("an id").to_owned()
}

async fn session(server: &Server, id: &str) -> (u16, String) {
    get(server, &format!("{SESSIONS}/{id}"), &[]).await
}

async fn get(server: &Server, path: &str, headers: &[(&str, &str)]) -> (u16, String) {
    let mut request = reqwest::Client::new()
        .get(format!("{}{path}", server.url()))
        .bearer_auth(Server::token(ApiRole::Service, "backend"));
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let answer = request.send().await.expect("an answer");
    (answer.status().as_u16(), answer.text().await.expect("a body"))
}

/// Saves beside a server that is being written to, restores elsewhere, and asks there.
async fn survives(from: &str, to: &str, home: &Path) {
    let server = started(from, &[]).await;
    let made = create(&server).await;
    let before = session(&server, &made).await;
    assert_eq!(before.0, 200);

    let file = home.join("backup.tar");
    let file = file.to_str().expect("a path");
    let (url, backup) = (from.to_owned(), file.to_owned());
    let saving = tokio::task::spawn_blocking(move || run(&["backup", &backup], &url));
    while !saving.is_finished() {
        create(&server).await;
    }
    let saved = saving.await.expect("it ends");
    assert!(saved.status.success(), "{}", words(&saved));
    assert!(words(&saved).starts_with("saved: database of schema "), "{}", words(&saved));

    let again = run(&["backup", file], from);
    assert!(!again.status.success() && words(&again).contains("is there already"));
    let over = run(&["restore", file], from);
    assert!(
        !over.status.success() && words(&over).contains("is there already"),
        "{}",
        words(&over)
    );
    assert_eq!(session(&server, &made).await, before);
    drop(server);

    let restored = run(&["restore", file], to);
    assert!(restored.status.success(), "{}", words(&restored));
    let server = started(to, &[]).await;
    assert_eq!(session(&server, &made).await, before);
    create(&server).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sqlite_is_saved_while_it_serves_and_comes_back() {
    let home = tempfile::tempdir().expect("a folder");
    let url = |name: &str| format!("sqlite:{}", home.path().join(name).display());
    survives(&url("first.db"), &url("second.db"), home.path()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_postgres_is_saved_while_it_serves_and_comes_back() {
    let home = tempfile::tempdir().expect("a folder");
    let (first, second) = (Postgres::start().expect("one"), Postgres::start().expect("another"));
    survives(&first.url(), &second.url(), home.path()).await;
}

const NEWER: &str = "INSERT INTO _sqlx_migrations (version, description, installed_on, success, \
    checksum, execution_time) SELECT 9999, 'newer', installed_on, success, checksum, 0 \
    FROM _sqlx_migrations WHERE version = 1";

/// Neither serves, nor saves, nor touches what a newer program has written.
fn refuses_newer(url: &str) {
    let home = tempfile::tempdir().expect("a folder");
    let file = home.path().join("backup.tar");
    for arguments in [&["serve"][..], &["backup", file.to_str().expect("a path")]] {
        let output = run(arguments, url);
        let refused = words(&output);
        assert!(!output.status.success(), "{arguments:?}");
        assert!(refused.contains("version 9999") && refused.contains("newer"), "{refused}");
    }
    assert!(!file.exists());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_newer_schema_is_refused_on_sqlite() {
    let home = tempfile::tempdir().expect("a folder");
    let url = format!("sqlite:{}", home.path().join("bedside.db").display());
    drop(started(&url, &[]).await);
    let pool = sqlx::SqlitePool::connect(&url).await.expect("the database");
    sqlx::query(NEWER).execute(&pool).await.expect("a row");
    pool.close().await;
    refuses_newer(&url);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_newer_schema_is_refused_on_postgres() {
    let postgres = Postgres::start().expect("a PostgreSQL");
    let url = postgres.url();
    drop(started(&url, &[]).await);
    let pool = sqlx::PgPool::connect(&url).await.expect("the database");
    sqlx::query(NEWER).execute(&pool).await.expect("a row");
    pool.close().await;
    refuses_newer(&url);
}

/// `bedside doctor --json`: its exit code, and what it found of each kind.
fn doctor(url: &str, listen: &str) -> (Option<i32>, Value) {
    let output = Command::new(binary())
        .args(["doctor", "--json"])
        .env("BEDSIDE_DATABASE_URL", url)
        .env("BEDSIDE_API_KEY", "operations")
        .env("BEDSIDE_API_SECRET", "a secret of these tests, which is long enough")
        .env("BEDSIDE_HTTP__LISTEN", listen)
        .env("BEDSIDE_MEDIA__BIND", "127.0.0.1")
        .env("BEDSIDE_MEDIA__PORT", "0")
        .env("BEDSIDE_TURN__PORT", "0")
        .output()
        .expect("the program runs");
    let report = serde_json::from_slice(&output.stdout).expect("one JSON object");
    (output.status.code(), report)
}

/// The findings of a report.
fn findings(report: &Value) -> &[Value] {
    report.get("findings").and_then(Value::as_array).expect("a list")
}

fn field<'a>(of: &'a Value, name: &str) -> Option<&'a str> {
    of.get(name).and_then(Value::as_str)
}

fn level<'a>(report: &'a Value, check: &str) -> Vec<&'a str> {
    let of_it = findings(report).iter().filter(|finding| field(finding, "check") == Some(check));
    of_it.filter_map(|finding| field(finding, "level")).collect()
}

/// Looks beside a running server, and after a program that is newer.
async fn is_examined(url: &str, make_newer: impl AsyncFnOnce()) {
    let server = started(url, &[]).await;
    let made = create(&server).await;
    let listen = server.url().replace("http://", "");
    let (code, report) = doctor(url, &listen);
    assert_eq!((code, field(&report, "level")), (Some(1), Some("warning")), "{report}");
    for check in ["secrets", "http_port", "clock", "udp_offload", "objects"] {
        assert!(level(&report, check).iter().all(|level| *level != "error"), "{check}: {report}");
    }
    assert_eq!(level(&report, "http_port"), ["ok"], "{report}");
    assert_eq!(level(&report, "database"), ["ok"], "{report}");
    assert_eq!(level(&report, "media_ports"), ["warning"], "{report}");
    let mended = |finding: &Value| field(finding, "fix").is_some();
    let all = findings(&report).iter();
    assert!(all.into_iter().all(|one| field(one, "level") == Some("ok") || mended(one)));
    // The server has not noticed.
    assert_eq!(session(&server, &made).await.0, 200);
    drop(server);

    make_newer().await;
    let taken = std::net::TcpListener::bind(&listen).expect("the port is free again");
    let (code, report) = doctor(url, &listen);
    assert_eq!((code, field(&report, "level")), (Some(2), Some("error")), "{report}");
    assert_eq!(level(&report, "database"), ["error"], "{report}");
    assert_eq!(level(&report, "http_port"), ["error"], "{report}");
    drop(taken);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deployment_on_sqlite_is_examined() {
    let home = tempfile::tempdir().expect("a folder");
    let url = format!("sqlite:{}", home.path().join("bedside.db").display());
    is_examined(&url, async || {
        let pool = sqlx::SqlitePool::connect(&url).await.expect("the database");
        sqlx::query(NEWER).execute(&pool).await.expect("a row");
        pool.close().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deployment_on_postgres_is_examined() {
    let postgres = Postgres::start().expect("a PostgreSQL");
    let url = postgres.url();
    is_examined(&url, async || {
        let pool = sqlx::PgPool::connect(&url).await.expect("the database");
        sqlx::query(NEWER).execute(&pool).await.expect("a row");
        pool.close().await;
    })
    .await;
}

#[test]
fn settings_that_cannot_be_read_are_a_finding() {
    let output = Command::new(binary())
        .args(["doctor", "--json"])
        .env("BEDSIDE_HTTP__LISTENS", "127.0.0.1:1")
        .output()
        .expect("the program runs");
    assert_eq!(output.status.code(), Some(2));
    let report: Value = serde_json::from_slice(&output.stdout).expect("one JSON object");
    assert_eq!(level(&report, "configuration"), ["error"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_operators_doors_leave_the_public_port() {
    let home = tempfile::tempdir().expect("a folder");
    let url = format!("sqlite:{}", home.path().join("bedside.db").display());
    let doors = ["/metrics", "/readyz", "/livez"];
    let server = started(&url, &[]).await;
    for door in doors {
        assert_eq!(get(&server, door, &[]).await.0, 200, "{door}");
    }
    drop(server);

    let admin = format!("127.0.0.1:{}", bedside_faults::free_port().expect("a port"));
    let listen = [("BEDSIDE_ADMIN__LISTEN", admin.clone())];
    let server = started(&url, &listen).await;
    for door in doors {
        assert_eq!(get(&server, door, &[]).await.0, 404, "{door}");
        let answer = reqwest::get(format!("http://{admin}{door}")).await.expect("an answer");
        assert_eq!(answer.status(), 200, "{door}");
    }
    let metrics = reqwest::get(format!("http://{admin}/metrics")).await.expect("an answer");
    let metrics = metrics.text().await.expect("a body");
    for name in ["bedside_rooms ", "bedside_consultations{status=", "bedside_control_joins_total "]
    {
        assert!(metrics.contains(name), "{name} is not in {metrics}");
    }
    let rules = include_str!("../deploy/prometheus/alerts.yml");
    let words = rules.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'));
    let named: Vec<&str> = words.filter(|word| word.starts_with("bedside_")).collect();
    assert!(named.len() > 10, "{named:?}");
    for name in named {
        assert!(metrics.contains(name), "a rule is about {name}, which is not there");
    }
    // Nothing else is served there.
    let pages = reqwest::get(format!("http://{admin}{SESSIONS}")).await.expect("an answer");
    assert_eq!(pages.status(), 404);
    assert_eq!(get(&server, "/health", &[]).await.0, 200);
}

/// How many of ten requests get through, each with an `X-Forwarded-For` of its own.
async fn through(server: &Server) -> usize {
    let mut passed = 0;
    for host in 1..=10 {
        let invented = format!("198.51.100.{host}");
        let (status, _) = get(server, SESSIONS, &[("x-forwarded-for", &invented)]).await;
        passed += usize::from(status == 200);
    }
    passed
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_trusted_proxies_name_addresses() {
    let home = tempfile::tempdir().expect("a folder");
    let url = format!("sqlite:{}", home.path().join("bedside.db").display());
    let limits = [
        ("BEDSIDE_LIMITS__ADDRESS_PER_SECOND", "1".to_owned()),
        ("BEDSIDE_LIMITS__ADDRESS_BURST", "2".to_owned()),
    ];
    let server = started(&url, &limits).await;
    // Invented addresses do not help: all ten come from one.
    assert!(through(&server).await < 5);
    drop(server);

    let [per_second, burst] = limits;
    let trusted = ("BEDSIDE_PROXIES__TRUSTED", "127.0.0.0/8".to_owned());
    let server = started(&url, &[per_second, burst, trusted]).await;
    assert_eq!(through(&server).await, 10);
    // What a client writes left of what its proxy saw is not read.
    let mut refused = 0;
    for host in 1..=10 {
        let line = format!("198.51.100.{host}, 203.0.113.7");
        refused +=
            usize::from(get(&server, SESSIONS, &[("x-forwarded-for", &line)]).await.0 == 429);
    }
    assert!(refused > 5, "{refused}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_stops_gives_its_leases_back() {
    const LEASES: &str = "SELECT COUNT(*) FROM relay_leases";
    let home = tempfile::tempdir().expect("a folder");
    let url = format!("sqlite:{}", home.path().join("bedside.db").display());
    // A broker that is away: what waits for it is tried again and again.
    let broker = [
        ("BEDSIDE_RABBITMQ__HOST", "127.0.0.1".to_owned()),
        ("BEDSIDE_RABBITMQ__PORT", "1".to_owned()),
    ];
    let server = started(&url, &broker).await;
    create(&server).await;
    let pool = sqlx::SqlitePool::connect(&url).await.expect("the database");
    let leases = async || sqlx::query_scalar::<_, i64>(LEASES).fetch_one(&pool).await.expect("one");
    let late = tokio::time::Instant::now() + std::time::Duration::from_secs(60);
    while leases().await == 0 {
        assert!(tokio::time::Instant::now() < late, "nobody sends");
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    let stopped = tokio::task::spawn_blocking(move || server.stop()).await.expect("no panic");
    assert!(stopped.expect("it ends"), "with success");
    assert_eq!(leases().await, 0);
}
