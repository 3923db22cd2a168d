//! Nothing that people say, or are called, is in the logs.
//!
//! A whole visit with marked words in every name, id and message, at the finest level of the log.

use std::io;
use std::sync::{Arc, Mutex};

use axum::http::Method;
use serde_json::{Value, json};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;

use crate::testing::{Database, World, id_of, path, service, token, token_of};
use crate::token::ApiRole;

/// In every name, id and message.
const CANARY: &str = "CANARY";

#[derive(Clone, Default)]
struct Written(Arc<Mutex<Vec<u8>>>);

impl io::Write for Written {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().expect("no panic").extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Written {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

#[tokio::test]
async fn a_whole_visit_leaves_nothing_personal_in_the_log() {
    let written = Written::default();
    // Ours at the finest level; others as `log.filter` has them.
    let filter = EnvFilter::new("warn,bedside_control_plane=trace,bedside_signaling=trace");
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(false)
        .with_writer(written.clone())
        .finish();
    let _guard = tracing::subscriber::set_default(log);
    let world = World::new(Database::sqlite()).await;
    visit(&world).await;
    world.plane.control.seal_audit().await;
    // What the database says when it is away may quote a value.
    world.plane.control.db.close().await;
    world.get("/api/v1/consultations/sessions", &token(ApiRole::Doctor, "CANARY-doc")).await;
    let log = String::from_utf8(written.0.lock().expect("no panic").clone()).expect("text");
    assert!(log.contains("consultation created"), "the log was heard");
    let lines: Vec<&str> = log.lines().filter(|line| line.contains(CANARY)).collect();
    assert!(lines.is_empty(), "{lines:#?}");
    for secret in ["bsk_", "eyJ", "/visit#"] {
        assert!(!log.contains(secret), "{secret} is in the log");
    }
}

async fn visit(world: &World) {
    let (doctor, patient) =
        (token(ApiRole::Doctor, "CANARY-doc"), token(ApiRole::Patient, "CANARY-pat"));
    let body = json!({
        "appointmentId": "CANARY-appointment", "doctorId": "CANARY-doc",
        "doctorName": "Dr. CANARY", "patientId": "CANARY-pat", "patientName": "Ms. CANARY",
        "consultationMode": "VIDEO", "maxParticipants": 3,
    });
    let (_, made) = world.post("/api/v1/consultations/sessions", &service(), body).await;
    let id = id_of(&made["sessionId"]);
    let admin = token(ApiRole::Admin, "CANARY-admin");
    let key = json!({"name": "CANARY-key", "scopes": ["consultations:read"]});
    let (_, key) = world.post("/api/v1/keys", &admin, key).await;
    world.get(&path(id, ""), key["key"].as_str().expect("a key")).await;
    let link = json!({"userId": "CANARY-aunt", "role": "guest", "name": "Aunt CANARY"});
    let (_, link) = world.post(&path(id, "/links"), &doctor, link).await;
    let secret = link["link"].as_str().expect("a link").split_once('#').expect("a secret").1;
    let exchange = "/api/v1/links/exchange";
    world.call(Method::POST, exchange, None, json!({"link": secret})).await;
    world.call(Method::POST, exchange, None, json!({"link": CANARY})).await;
    world.post(&path(id, "/join"), &patient, json!({"name": "Ms. CANARY"})).await;
    world.post(&path(id, "/join"), &doctor, Value::Null).await;
    world.post(&path(id, "/admit"), &doctor, json!({"userId": "CANARY-pat"})).await;
    world.post(&path(id, "/chat"), &patient, json!({"content": "CANARY pain"})).await;
    world.get(&path(id, "/chat"), &doctor).await;
    let report = json!({"issueType": "audio", "description": "CANARY noise"});
    world.post(&path(id, "/report"), &patient, report).await;
    world.post(&path(id, "/end"), &doctor, json!({"reason": "CANARY cured"})).await;
    let stars = json!({"overallRating": 5, "reviewText": "CANARY kind"});
    world.post(&path(id, "/feedback"), &patient, stars).await;
    // What is refused, and what is nonsense.
    let foreign = token_of(ApiRole::Admin, "CANARY-boss", "CANARY-clinic");
    world.get(&path(id, ""), &foreign).await;
    world.get("/api/v1/links/CANARY", &doctor).await;
    world.get("/api/v1/CANARY?name=CANARY", &doctor).await;
    world.get(&path(id, ""), "CANARY").await;
    world.post("/api/v1/consultations/sessions", &doctor, json!({"doctorId": CANARY})).await;
    let revoke = format!("/api/v1/links/{}", link["linkId"].as_str().expect("an id"));
    world.call(Method::DELETE, &revoke, Some(&doctor), Value::Null).await;
}
