//! Keys from outside: one change each, the same answer, and nothing of another's.

use std::sync::Arc;

use axum::body::to_bytes;
use axum::http::StatusCode;
use axum::http::header::CONTENT_LENGTH;
use serde_json::{Value, json};
use tower::ServiceExt as _;

use super::*;
use crate::store::Page;
use crate::testing::{Database, World, doctor, keys, on_both_databases, path, service, token_of};
use crate::token::ApiRole;

const SESSIONS: &str = "/api/v1/consultations/sessions";

on_both_databases!(
    a_repeated_request_happens_once,
    at_once_it_happens_once,
    another_request_needs_another_key,
    a_refused_request_may_be_tried_again,
    keys_belong_to_their_callers,
    a_running_request_is_waited_for,
);

async fn ask(world: &World, path: &str, token: &str, key: &str, body: &Value) -> Response {
    let request = Request::post(path)
        .header(AUTHORIZATION, format!("Bearer {token}"))
        .header(&KEY, key)
        .body(Body::from(body.to_string()))
        .unwrap();
    world.plane.router().oneshot(request).await.unwrap()
}

async fn read(answer: Response) -> (StatusCode, bool, Value) {
    let (parts, body) = answer.into_parts();
    let bytes = to_bytes(body, usize::MAX).await.unwrap();
    let replayed = parts.headers.contains_key(&REPLAYED);
    (parts.status, replayed, serde_json::from_slice(&bytes).unwrap_or_default())
}

/// Without an appointment every create makes a consultation of its own.
fn new_session() -> Value {
    json!({"doctorId": "doc", "patientId": "pat", "consultationMode": "VIDEO"})
}

async fn sessions(world: &World) -> usize {
    world
        .plane
        .control
        .db
        .sessions("demo", &Page { limit: 100, ..Page::default() })
        .await
        .unwrap()
        .len()
}

async fn a_repeated_request_happens_once(database: Database) {
    let world = World::new(database).await;
    let first = read(ask(&world, SESSIONS, &service(), "key-1", &new_session()).await).await;
    assert_eq!((first.0, first.1), (StatusCode::CREATED, false));
    for key in ["key-1", "\"key-1\""] {
        let again = ask(&world, SESSIONS, &service(), key, &new_session()).await;
        assert_eq!(again.headers()[CONTENT_TYPE], "application/json");
        assert!(again.headers().get(CONTENT_LENGTH).is_none_or(|length| length != "0"));
        let again = read(again).await;
        assert_eq!((again.0, again.1, &again.2), (StatusCode::CREATED, true, &first.2));
    }
    assert_eq!(sessions(&world).await, 1);
    assert_eq!(world.plane.counters().idempotent_replays.value(), 2);
    // Also by a new process.
    let world = world.restart().await;
    let again = read(ask(&world, SESSIONS, &service(), "key-1", &new_session()).await).await;
    assert_eq!((again.1, again.2), (true, first.2));
    let other = read(ask(&world, SESSIONS, &service(), "key-2", &new_session()).await).await;
    assert_eq!((other.0, other.1), (StatusCode::CREATED, false));
    assert_eq!(sessions(&world).await, 2);
}

async fn at_once_it_happens_once(database: Database) {
    let world = Arc::new(World::new(database).await);
    let mut asking = tokio::task::JoinSet::new();
    for _ in 0..8 {
        let world = Arc::clone(&world);
        asking.spawn(async move {
            read(ask(&world, SESSIONS, &service(), "k", &new_session()).await).await
        });
    }
    let answers = asking.join_all().await;
    assert!(answers.iter().all(|(status, _, _)| *status == StatusCode::CREATED), "{answers:?}");
    assert_eq!(answers.iter().filter(|(_, replayed, _)| !replayed).count(), 1);
    assert!(answers.iter().all(|(_, _, body)| body == &answers[0].2));
    assert_eq!(sessions(&world).await, 1);
}

async fn another_request_needs_another_key(database: Database) {
    let world = World::new(database).await;
    let id = world.session().await;
    let first = ask(&world, &path(id, "/pause"), &doctor(), "k", &json!({})).await;
    assert_eq!(first.status(), StatusCode::CONFLICT);
    let first = ask(&world, SESSIONS, &service(), "k", &new_session()).await;
    assert_eq!(first.status(), StatusCode::CREATED);
    let mut other = new_session();
    other["patientId"] = json!("another");
    let links = path(id, "/links");
    for (path, body) in [(SESSIONS, other), (links.as_str(), new_session())] {
        let (status, _, problem) = read(ask(&world, path, &service(), "k", &body).await).await;
        assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY, "{path}");
        assert_eq!(problem["code"], "idempotency_key_reused");
    }
    assert_eq!(sessions(&world).await, 2);
}

async fn a_refused_request_may_be_tried_again(database: Database) {
    let world = World::new(database).await;
    let id = world.session().await;
    let end = path(id, "/admit");
    let admit = json!({"userId": "pat"});
    let (status, ..) = read(ask(&world, &end, &doctor(), "k", &admit).await).await;
    assert_eq!(status, StatusCode::CONFLICT);
    world.plane.join("demo", id, "pat").await.unwrap();
    let (status, replayed, _) = read(ask(&world, &end, &doctor(), "k", &admit).await).await;
    assert_eq!((status, replayed), (StatusCode::OK, false));
}

async fn keys_belong_to_their_callers(database: Database) {
    let world = World::new(database).await;
    let mine = read(ask(&world, SESSIONS, &service(), "k", &new_session()).await).await;
    for token in [
        token_of(ApiRole::Service, "backend", "another"),
        token_of(ApiRole::Service, "other", "demo"),
        token_of(ApiRole::Admin, "backend", "demo"),
    ] {
        let (status, replayed, body) =
            read(ask(&world, SESSIONS, &token, "k", &new_session()).await).await;
        assert_eq!((status, replayed), (StatusCode::CREATED, false));
        assert_ne!(body["sessionId"], mine.2["sessionId"]);
    }
    // A bad token gets what it gets without a key, and no key is taken for it.
    let (status, ..) = read(ask(&world, SESSIONS, "forged", "k", &new_session()).await).await;
    assert_eq!(status, StatusCode::UNAUTHORIZED);
}

async fn a_running_request_is_waited_for(database: Database) {
    let world = Arc::new(World::new(database).await);
    let bytes = new_session().to_string();
    let (parts, ()) = Request::post(SESSIONS).body(()).unwrap().into_parts();
    let claim = Claim {
        clinic: "demo".to_owned(),
        caller: "service:backend".to_owned(),
        key: "k".to_owned(),
        request_hash: request_hash(&parts, bytes.as_bytes()),
        holder: Uuid::now_v7(),
    };
    assert!(world.plane.control.claim(&claim).await.unwrap().is_none());
    let second = {
        let world = Arc::clone(&world);
        tokio::spawn(async move {
            read(ask(&world, SESSIONS, &service(), "k", &new_session()).await).await
        })
    };
    tokio::time::sleep(LOOK_EVERY * 2).await;
    assert!(!second.is_finished());
    let answer = (StatusCode::CREATED, axum::Json(json!({"from": "the first"}))).into_response();
    world.plane.control.keep(&claim, answer).await;
    let (status, replayed, body) = second.await.unwrap();
    assert_eq!((status, replayed), (StatusCode::CREATED, true));
    assert_eq!(body["from"], "the first");
    assert_eq!(sessions(&world).await, 0);
}

#[tokio::test]
async fn bad_keys_and_bodies_are_refused() {
    let world = World::new(Database::sqlite()).await;
    let long = "k".repeat(MAX_KEY_LEN + 1);
    for key in ["", "two words", "\u{e9}", "\"\"", long.as_str()] {
        let (status, _, problem) =
            read(ask(&world, SESSIONS, &service(), key, &new_session()).await).await;
        assert_eq!(status, StatusCode::BAD_REQUEST, "{key}");
        assert_eq!(problem["code"], "bad_idempotency_key");
    }
    let big = json!({"x": "y".repeat(300 * 1024)});
    let (status, ..) = read(ask(&world, SESSIONS, &service(), "k", &big).await).await;
    assert_eq!(status, StatusCode::PAYLOAD_TOO_LARGE);
    assert_eq!(sessions(&world).await, 0);
}

#[test]
fn sealed_answers_open_for_their_own_request_only() {
    let claim = |key: &str| Claim {
        clinic: "demo".to_owned(),
        caller: "doctor:doc".to_owned(),
        key: key.to_owned(),
        request_hash: vec![1; 32],
        holder: Uuid::nil(),
    };
    let head = Head { status: 201, kind: Some("application/json".to_owned()), location: None };
    let sealed = seal(&keys(), &claim("k"), &head, b"a secret link").unwrap();
    assert!(!sealed.windows(8).any(|part| part == b"a secret"));
    let opened = |claim: &Claim, sealed: &[u8]| open(&keys(), claim, sealed);
    let answer = opened(&claim("k"), &sealed).unwrap();
    assert_eq!(answer.status(), StatusCode::CREATED);
    assert!(opened(&claim("l"), &sealed).is_none());
    for length in 0..sealed.len() {
        assert!(opened(&claim("k"), &sealed[..length]).is_none(), "{length}");
    }
    for at in 0..sealed.len() {
        let mut flipped = sealed.clone();
        flipped[at] ^= 1;
        assert!(opened(&claim("k"), &flipped).is_none(), "{at}");
    }
    let other = KeyPair { key: "k".into(), secret: crate::Private::new("another".into()) };
    assert!(open(std::slice::from_ref(&other), &claim("k"), &sealed).is_none());
    // A rotated key still opens what it sealed.
    let keys: Vec<KeyPair> = std::iter::once(other).chain(keys()).collect();
    assert!(open(&keys, &claim("k"), &sealed).is_some());
}
