//! Service keys: made once, stored as a hash, limited by their scopes.

use axum::body::Body;
use axum::http::{Method, Request, StatusCode};
use serde_json::{Value, json};
use tower::ServiceExt as _;

use super::*;
use crate::testing::{
    Database, World, doctor, on_both_databases, path, patient, service, token, token_of,
};

on_both_databases!(a_key_lives_from_making_to_revoking, a_key_does_what_its_scopes_say);

fn admin() -> String {
    token(ApiRole::Admin, "boss")
}

async fn make(world: &World, body: Value) -> (StatusCode, Value) {
    world.post("/api/v1/keys", &admin(), body).await
}

async fn a_key_lives_from_making_to_revoking(database: Database) {
    let world = World::new(database).await;
    let body = json!({"name": "booking", "scopes": ["consultations:read", "links:manage"]});
    for refused in [doctor(), patient(), service(), token(ApiRole::Auditor, "auditor")] {
        let (status, _) = world.post("/api/v1/keys", &refused, body.clone()).await;
        assert_eq!(status, StatusCode::FORBIDDEN);
        assert_eq!(world.get("/api/v1/keys", &refused).await.0, StatusCode::FORBIDDEN);
    }
    let (status, made) = make(&world, body).await;
    assert_eq!(status, StatusCode::CREATED);
    let key = made["key"].as_str().expect("a key").to_owned();
    assert!(key.starts_with("bsk_") && key.len() == 47, "{}", key.len());
    let id = world.session().await;
    assert_eq!(world.get(&path(id, ""), &key).await.0, StatusCode::OK);
    let other = Request::get(path(id, "")).header("x-api-key", &key).body(Body::empty());
    let answer = world.plane.router().oneshot(other.expect("a request")).await.expect("answers");
    assert_eq!(answer.status(), StatusCode::OK);
    // A header for keys takes no tokens.
    let wrong = Request::get(path(id, "")).header("x-api-key", doctor()).body(Body::empty());
    let answer = world.plane.router().oneshot(wrong.expect("a request")).await.expect("answers");
    assert_eq!(answer.status(), StatusCode::UNAUTHORIZED);
    let (_, list) = world.get("/api/v1/keys", &admin()).await;
    assert_eq!(list["items"][0]["name"], "booking");
    assert_eq!(list["items"][0]["createdBy"], "boss");
    assert!(!list.to_string().contains("bsk_"), "a key is shown once");
    let south = token_of(ApiRole::Admin, "boss", "south");
    let (_, theirs) = world.get("/api/v1/keys", &south).await;
    assert_eq!(theirs["items"], json!([]));
    let uri = format!("/api/v1/keys/{}", made["keyId"].as_str().expect("an id"));
    let revoke = |by: String| {
        let (world, uri) = (&world, &uri);
        async move { world.call(Method::DELETE, uri, Some(&by), Value::Null).await.0 }
    };
    assert_eq!(revoke(south).await, StatusCode::NOT_FOUND);
    assert_eq!(revoke(admin()).await, StatusCode::NO_CONTENT);
    assert_eq!(revoke(admin()).await, StatusCode::NO_CONTENT, "again");
    assert_eq!(world.get(&path(id, ""), &key).await.0, StatusCode::UNAUTHORIZED);
    let (_, list) = world.get("/api/v1/keys", &admin()).await;
    assert!(list["items"][0]["revokedAt"].is_string());
    let world = world.restart().await;
    assert_eq!(world.get(&path(id, ""), &key).await.0, StatusCode::UNAUTHORIZED);
    for bad in ["bsk_", "bsk_x", "bsk_' OR 1=1 --", &format!("bsk_{}", "A".repeat(43))] {
        assert_eq!(world.get(&path(id, ""), bad).await.0, StatusCode::UNAUTHORIZED);
    }
}

async fn a_key_does_what_its_scopes_say(database: Database) {
    let world = World::new(database).await;
    let id = world.session().await;
    let key = async |scopes: &[&str]| {
        let (status, made) = make(&world, json!({"name": "k", "scopes": scopes})).await;
        assert_eq!(status, StatusCode::CREATED, "{made}");
        made["key"].as_str().expect("a key").to_owned()
    };
    let reader = key(&["consultations:read"]).await;
    assert_eq!(world.get(&path(id, ""), &reader).await.0, StatusCode::OK);
    let sessions = "/api/v1/consultations/sessions";
    let person = json!({"userId": "pat"});
    let session = json!({"doctorId": "d", "patientId": "p", "consultationMode": "VIDEO"});
    let link = json!({"userId": "pat", "role": "patient"});
    for (uri, body) in [
        (sessions.to_owned(), session),
        (path(id, "/join"), person.clone()),
        (path(id, "/leave"), person.clone()),
        (path(id, "/admit"), person),
        (path(id, "/end"), Value::Null),
        (path(id, "/links"), link),
        ("/api/v1/keys".to_owned(), json!({"name": "n", "scopes": ["chat:read"]})),
        ("/api/v1/tokens/revoke".to_owned(), json!({"jti": "x"})),
    ] {
        let (status, _) = world.post(&uri, &reader, body).await;
        assert_eq!(status, StatusCode::FORBIDDEN, "{uri}");
    }
    assert_eq!(world.get(&path(id, "/chat"), &reader).await.0, StatusCode::FORBIDDEN);
    assert_eq!(world.get("/api/v1/audit", &reader).await.0, StatusCode::FORBIDDEN);
    let blind = key(&["links:manage"]).await;
    assert_eq!(world.get(&path(id, ""), &blind).await.0, StatusCode::FORBIDDEN);
    assert_eq!(world.get(sessions, &blind).await.0, StatusCode::FORBIDDEN);
    let auditor = key(&["audit:read"]).await;
    assert_eq!(world.text("/api/v1/audit", &auditor).await.0, StatusCode::OK);
    assert_eq!(world.get(&path(id, ""), &auditor).await.0, StatusCode::FORBIDDEN);
    for bad in [
        json!({"name": "k", "scopes": []}),
        json!({"name": "k", "scopes": ["keys:manage"]}),
        json!({"name": "k", "scopes": ["audit:read", "chat:read"]}),
        json!({"name": "k", "scopes": ["everything"]}),
        json!({"name": "", "scopes": ["chat:read"]}),
        json!({"name": "a\nb", "scopes": ["chat:read"]}),
        json!({"name": "k", "scopes": ["chat:read"], "expiresAt": "2001-01-01T00:00:00Z"}),
        json!({"scopes": ["chat:read"]}),
    ] {
        assert_eq!(make(&world, bad).await.0, StatusCode::UNPROCESSABLE_ENTITY);
    }
    let soon = (Utc::now() + chrono::Duration::seconds(4)).to_rfc3339();
    let (_, made) =
        make(&world, json!({"name": "k", "scopes": ["consultations:read"], "expiresAt": soon}))
            .await;
    let short = made["key"].as_str().expect("a key").to_owned();
    assert_eq!(world.get(&path(id, ""), &short).await.0, StatusCode::OK);
    let late = tokio::time::Instant::now() + Duration::from_secs(60);
    while world.get(&path(id, ""), &short).await.0 != StatusCode::UNAUTHORIZED {
        assert!(tokio::time::Instant::now() < late, "it does not end");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

#[tokio::test]
async fn configured_keys_work_as_written_or_as_their_hash() {
    let key = format!("bsk_{}", "k".repeat(43));
    let hex: String = hash(&key).iter().map(|byte| format!("{byte:02x}")).collect();
    let other = format!("bsk_{}", "o".repeat(43));
    let text = format!(
        "# who: what\n demo booking consultations:read,links:manage sha256:{hex}\n\n\
         demo monitor consultations:read {other}"
    );
    let configured = ConfiguredKey::read_all(&text).expect("two keys");
    assert_eq!(configured.len(), 2);
    let world = World::with(Database::sqlite(), |c| c.service_keys = configured).await;
    let id = world.session().await;
    for key in [&key, &other] {
        assert_eq!(world.get(&path(id, ""), key).await.0, StatusCode::OK);
    }
    for bad in [
        "demo booking consultations:read",
        "demo booking everything bsk_kkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkk",
        "demo booking consultations:read secret",
        "demo booking consultations:read sha256:00",
        "demo booking consultations:read bsk_kkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkk more",
    ] {
        assert_eq!(ConfiguredKey::read_all(&format!("# x\n{bad}")).err(), Some(BadKey(1)), "{bad}");
    }
}
