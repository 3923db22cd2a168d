//! What the tests of this crate share: databases, a control plane on one of them, a caller.

pub(crate) mod broker;

use std::io::{BufRead as _, BufReader};
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use axum::body::Body;
use axum::http::{Method, Request, StatusCode, header};
use serde_json::Value;
use tempfile::TempDir;
use tower::ServiceExt as _;
use uuid::Uuid;

use crate::consultation::{Consultation, Mode};
use crate::store::Db;
use crate::token::{self, ApiRole, ApiToken};
use crate::{ControlConfig, ControlPlane, KeyPair, NewSession, Objects, Private};

/// A database of a test's own.
pub(crate) struct Database {
    pub(crate) url: String,
    /// For the file of SQLite and for files that are sent; gone with the test.
    pub(crate) dir: TempDir,
}

impl Database {
    pub(crate) fn sqlite() -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let url = format!("sqlite:{}", dir.path().join("bedside.db").display());
        Self { url, dir }
    }

    pub(crate) async fn postgres() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let socket = tokio::task::spawn_blocking(cluster).await.expect("the cluster starts");
        let name = format!("test_{}", NEXT.fetch_add(1, Ordering::Relaxed));
        let url = |name: &str| format!("postgres://bedside@localhost/{name}?host={socket}");
        let pool = sqlx::PgPool::connect(&url("postgres")).await.expect("PostgreSQL answers");
        let create = sqlx::AssertSqlSafe(format!("CREATE DATABASE {name}"));
        sqlx::raw_sql(create).execute(&pool).await.expect("a new database");
        pool.close().await;
        let dir = tempfile::tempdir().expect("a temporary directory");
        Self { url: url(&name), dir }
    }

    pub(crate) async fn open(&self) -> Db {
        Db::open(&self.url).await.expect("the database opens")
    }
}

/// Starts one PostgreSQL for this process, on a socket in a directory of its own. The script lives
/// as long as its standard input, that is as long as this process, and cleans up behind itself.
/// Missing binaries are a failure, never a skip.
fn cluster() -> &'static str {
    static CLUSTER: OnceLock<(String, std::process::Child)> = OnceLock::new();
    const SCRIPT: &str = r#"
        set -e
        cd /
        bin=$(ls -d /usr/lib/postgresql/*/bin 2>/dev/null | sort -V | tail -n 1)
        [ -x "$bin/initdb" ] || bin=$(pg_config --bindir)
        dir=$(mktemp -d /tmp/bedside-test.XXXXXX)
        "$bin/initdb" -D "$dir/data" -U bedside -A trust -E UTF8 --locale=C --no-sync >&2
        "$bin/postgres" -D "$dir/data" -k "$dir" -c listen_addresses= -c fsync=off \
            -c max_connections=300 >&2 &
        pid=$!
        until "$bin/pg_isready" -q -h "$dir" -U bedside -d postgres; do sleep 0.1; done
        echo "$dir"
        cat >/dev/null || true
        kill -INT $pid
        wait $pid || true
        rm -rf "$dir"
    "#;
    let (socket, _) = CLUSTER.get_or_init(|| {
        let id = Command::new("id").arg("-u").output().expect("`id` runs").stdout;
        // PostgreSQL refuses to run as root; Debian's package brings the user `postgres`.
        let mut command = if id.trim_ascii() == b"0" {
            let mut command = Command::new("runuser");
            command.args(["-u", "postgres", "--", "sh", "-c", SCRIPT]);
            command
        } else {
            let mut command = Command::new("sh");
            command.args(["-c", SCRIPT]);
            command
        };
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("a shell for PostgreSQL starts");
        let stdout = child.stdout.take().expect("piped");
        let mut line = String::new();
        BufReader::new(stdout).read_line(&mut line).expect("PostgreSQL's script speaks");
        let socket = line.trim().to_owned();
        assert!(!socket.is_empty(), "PostgreSQL did not start: is it installed?");
        (socket, child)
    });
    socket
}

/// Runs each test on SQLite and on PostgreSQL.
macro_rules! on_both_databases {
    ($($test:ident),* $(,)?) => {
        mod on_sqlite {
            $(#[tokio::test]
            async fn $test() {
                super::$test($crate::testing::Database::sqlite()).await;
            })*
        }
        mod on_postgres {
            $(#[tokio::test]
            async fn $test() {
                super::$test($crate::testing::Database::postgres().await).await;
            })*
        }
    };
}
pub(crate) use on_both_databases;

/// The API key pair of the tests.
pub(crate) fn keys() -> Vec<KeyPair> {
    let secret = "a secret of the tests, long enough".to_owned();
    vec![KeyPair { key: "test".to_owned(), secret: Private::new(secret) }]
}

/// A control plane, and callers for it.
pub(crate) struct World {
    pub(crate) plane: ControlPlane,
    database: Database,
}

impl World {
    pub(crate) async fn new(database: Database) -> Self {
        Self::with(database, |_| {}).await
    }

    pub(crate) async fn with(database: Database, change: impl FnOnce(&mut ControlConfig)) -> Self {
        crate::crypto::use_one();
        let mut config = ControlConfig {
            database_url: database.url.clone(),
            keys: keys(),
            public_url: "https://clinic.example".to_owned(),
            waiting_grace: std::time::Duration::from_millis(200),
            objects: Objects::Folder(database.dir.path().join("objects")),
            ..ControlConfig::default()
        };
        change(&mut config);
        let plane = ControlPlane::open(config).await.expect("the control plane opens");
        Self { plane, database }
    }

    /// The same database with a new process on it.
    pub(crate) async fn restart(self) -> Self {
        self.restart_with(|_| {}).await
    }

    /// The same with other settings.
    pub(crate) async fn restart_with(self, change: impl FnOnce(&mut ControlConfig)) -> Self {
        self.plane.close().await;
        let mut config = self.plane.control.config.clone();
        change(&mut config);
        let plane = ControlPlane::open(config).await.expect("the control plane opens again");
        Self { plane, database: self.database }
    }

    /// Where its files lie.
    pub(crate) fn objects(&self) -> std::path::PathBuf {
        self.database.dir.path().join("objects")
    }

    /// Another instance on the same database, as two servers share one.
    pub(crate) async fn beside(&self) -> Self {
        let config = self.plane.control.config.clone();
        let plane = ControlPlane::open(config).await.expect("a second control plane opens");
        let dir = tempfile::tempdir().expect("a temporary directory");
        let database = Database { url: self.database.url.clone(), dir };
        Self { plane, database }
    }

    /// One request; the answer's status and JSON.
    pub(crate) async fn call(
        &self,
        method: Method,
        path: &str,
        token: Option<&str>,
        body: Value,
    ) -> (StatusCode, Value) {
        let mut request = Request::builder().method(method).uri(path);
        if let Some(token) = token {
            request = request.header(header::AUTHORIZATION, format!("Bearer {token}"));
        }
        let body = if body.is_null() { Body::empty() } else { Body::from(body.to_string()) };
        let request = request.body(body).expect("a request");
        let response = self.plane.router().oneshot(request).await.expect("an answer");
        assert!(response.headers().contains_key("x-request-id"));
        let status = response.status();
        if status.is_client_error() || status.is_server_error() {
            let kind = response.headers().get(header::CONTENT_TYPE).expect("a content type");
            assert_eq!(kind, "application/problem+json", "{path}");
        }
        let bytes =
            axum::body::to_bytes(response.into_body(), 10_000_000).await.expect("a whole body");
        (status, serde_json::from_slice(&bytes).unwrap_or(Value::Null))
    }

    /// One GET; the answer's status, headers and text.
    pub(crate) async fn text(
        &self,
        path: &str,
        token: &str,
    ) -> (StatusCode, axum::http::HeaderMap, String) {
        let request = Request::get(path).header(header::AUTHORIZATION, format!("Bearer {token}"));
        let request = request.body(Body::empty()).expect("a request");
        let response = self.plane.router().oneshot(request).await.expect("an answer");
        let (parts, body) = response.into_parts();
        let bytes = axum::body::to_bytes(body, 10_000_000).await.expect("a whole body");
        (parts.status, parts.headers, String::from_utf8(bytes.to_vec()).expect("text"))
    }

    pub(crate) async fn get(&self, path: &str, token: &str) -> (StatusCode, Value) {
        self.call(Method::GET, path, Some(token), Value::Null).await
    }

    pub(crate) async fn post(&self, path: &str, token: &str, body: Value) -> (StatusCode, Value) {
        self.call(Method::POST, path, Some(token), body).await
    }

    /// A new consultation of doctor `doc` and patient `pat` in clinic `demo`.
    pub(crate) async fn session(&self) -> Uuid {
        self.session_for(2).await
    }

    pub(crate) async fn session_for(&self, persons: i64) -> Uuid {
        let body = serde_json::json!({
            "doctorId": "doc", "doctorName": "Dr. Osei", "patientId": "pat",
            "patientName": "Ms. Lindqvist", "consultationMode": "VIDEO",
            "maxParticipants": persons,
        });
        let path = "/api/v1/consultations/sessions";
        let (status, session) = self.post(path, &service(), body).await;
        assert_eq!(status, StatusCode::CREATED, "{session}");
        id_of(&session["sessionId"])
    }
}

/// A planned consultation that is in no database.
pub(crate) fn planned(clinic: &str, doctor: &str, patient: &str) -> Consultation {
    let new = NewSession {
        appointment_id: None,
        doctor_id: Some(doctor.to_owned()),
        doctor_name: None,
        patient_id: Some(patient.to_owned()),
        patient_name: None,
        mode: Mode::Video,
        scheduled_start: None,
        scheduled_minutes: None,
        max_participants: None,
    };
    crate::sessions::planned(clinic, &new).expect("it fits")
}

pub(crate) fn id_of(value: &Value) -> Uuid {
    value.as_str().expect("an id").parse().expect("a UUID")
}

pub(crate) fn path(session: Uuid, rest: &str) -> String {
    format!("/api/v1/consultations/sessions/{session}{rest}")
}

/// An API token of clinic `demo`.
pub(crate) fn token(role: ApiRole, user: &str) -> String {
    token_of(role, user, "demo")
}

pub(crate) fn token_of(role: ApiRole, user: &str, clinic: &str) -> String {
    let token = ApiToken {
        user_id: user.to_owned(),
        name: None,
        role,
        clinic: clinic.to_owned(),
        session: None,
        link: None,
        expires_at: chrono::Utc::now() + chrono::Duration::hours(1),
    };
    token::issue(&keys()[0], &token)
}

pub(crate) fn service() -> String {
    token(ApiRole::Service, "backend")
}

pub(crate) fn doctor() -> String {
    token(ApiRole::Doctor, "doc")
}

pub(crate) fn patient() -> String {
    token(ApiRole::Patient, "pat")
}

/// Compares a value with the file of this name in `tests/golden`. Where they differ, what it is now
/// is written to `target/golden`, for a reader to judge and to copy.
pub(crate) fn golden(name: &str, value: &Value) {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    let text = serde_json::to_string_pretty(value).expect("JSON") + "\n";
    let kept = std::fs::read_to_string(root.join("tests/golden").join(name)).unwrap_or_default();
    if kept != text {
        let path = root.join("../target/golden").join(name);
        std::fs::create_dir_all(path.parent().expect("a folder")).expect("the folder is made");
        std::fs::write(&path, &text).expect("the file is written");
    }
    assert_eq!(kept, text, "{name} is not as it was; target/golden/{name} is what it is now");
}
