//! Files and pictures, from the upload to the sweeper.

use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::{Method, Request, StatusCode};
use serde_json::{Value, json};
use tower::ServiceExt as _;
use uuid::Uuid;

use super::pictures::tests::a_png;
use crate::testing::{
    Database, World, doctor, id_of, on_both_databases, path, patient, token, token_of,
};
use crate::token::ApiRole;

on_both_databases!(
    a_picture_goes_from_one_to_the_other_and_to_nobody_else,
    what_is_past_its_time_is_gone_rows_and_files,
);

async fn visit(world: &World) -> Uuid {
    let id = world.session().await;
    world.post(&path(id, "/join"), &patient(), Value::Null).await;
    world.post(&path(id, "/admit"), &doctor(), json!({"userId": "pat"})).await;
    id
}

struct Answer {
    status: StatusCode,
    headers: axum::http::HeaderMap,
    bytes: Bytes,
}

impl Answer {
    fn json(&self) -> Value {
        serde_json::from_slice(&self.bytes).expect("JSON")
    }
}

async fn ask(world: &World, request: axum::http::request::Builder, body: Body) -> Answer {
    let request = request.body(body).expect("a request");
    let response = world.plane.router().oneshot(request).await.expect("an answer");
    let (parts, body) = response.into_parts();
    let bytes = axum::body::to_bytes(body, 50_000_000).await.expect("a body");
    Answer { status: parts.status, headers: parts.headers, bytes }
}

async fn upload(world: &World, id: Uuid, token: &str, name: &str, bytes: Vec<u8>) -> Answer {
    let request = Request::builder()
        .method(Method::POST)
        .uri(path(id, "/attachments"))
        .header("authorization", format!("Bearer {token}"))
        .header("content-disposition", format!("attachment; filename=\"{name}\""));
    ask(world, request, Body::from(bytes)).await
}

async fn download(world: &World, url: &str, token: &str) -> Answer {
    let request = Request::builder().uri(url).header("authorization", format!("Bearer {token}"));
    ask(world, request, Body::empty()).await
}

fn stored_files(world: &World) -> usize {
    fn count(folder: &std::path::Path) -> usize {
        let Ok(entries) = std::fs::read_dir(folder) else { return 0 };
        let entries = entries.map(|entry| entry.expect("an entry").path());
        entries.map(|path| if path.is_dir() { count(&path) } else { 1 }).sum()
    }
    count(&world.objects())
}

async fn a_picture_goes_from_one_to_the_other_and_to_nobody_else(database: Database) {
    let world = World::new(database).await;
    let id = visit(&world).await;
    let png = a_png(640, 480);
    let sent = upload(&world, id, &patient(), "../../knee.html", png.clone()).await;
    assert_eq!(sent.status, StatusCode::CREATED);
    let message = sent.json();
    assert_eq!(message["messageType"], "image");
    let attachment = &message["attachment"];
    assert_eq!(attachment["fileName"], "knee.png");
    assert_eq!(attachment["mimeType"], "image/png");
    assert_eq!(attachment["fileSize"], png.len());
    assert_eq!((&attachment["width"], &attachment["height"]), (&json!(640), &json!(480)));
    assert_eq!(attachment["thumbnailUrl"], attachment["fileUrl"]);
    let (_, history) = world.get(&path(id, "/chat"), &doctor()).await;
    let found =
        history["items"].as_array().expect("items").iter().find(|m| m["messageType"] == "image");
    assert_eq!(found.expect("it is in the history")["attachment"], *attachment);

    let url = attachment["fileUrl"].as_str().expect("a path").to_owned();
    let got = download(&world, &url, &doctor()).await;
    assert_eq!((got.status, &got.bytes[..]), (StatusCode::OK, &png[..]));
    assert_eq!(got.headers["content-type"], "image/png");
    assert_eq!(got.headers["x-content-type-options"], "nosniff");
    assert!(got.headers["content-security-policy"].to_str().unwrap().starts_with("sandbox"));
    assert!(got.headers["cache-control"].to_str().unwrap().contains("no-store"));
    let disposition = got.headers["content-disposition"].to_str().unwrap().to_owned();
    assert!(disposition.starts_with("attachment;") && disposition.ends_with("knee.png"));
    // The name on the disk is an id.
    assert_eq!(stored_files(&world), 1);
    // Nobody else.
    let other = world.session().await;
    let elsewhere = url.replace(&id.to_string(), &other.to_string());
    let refused = [
        (url.clone(), token(ApiRole::Patient, "stranger"), StatusCode::FORBIDDEN),
        (url.clone(), token_of(ApiRole::Doctor, "doc", "south"), StatusCode::NOT_FOUND),
        (url.clone(), "nonsense".to_owned(), StatusCode::UNAUTHORIZED),
        (elsewhere, doctor(), StatusCode::NOT_FOUND),
        (format!("{url}0"), doctor(), StatusCode::NOT_FOUND),
    ];
    for (url, token, status) in refused {
        assert_eq!(download(&world, &url, &token).await.status, status);
    }
    world.post(&path(id, "/send-back"), &doctor(), json!({"userId": "pat"})).await;
    assert_eq!(download(&world, &url, &patient()).await.status, StatusCode::FORBIDDEN);
    // Taken back, it is there for nobody.
    let message_id = message["messageId"].as_str().expect("an id");
    let gone = path(id, &format!("/chat/{message_id}"));
    let (status, _) = world.call(Method::DELETE, &gone, Some(&doctor()), Value::Null).await;
    assert_eq!(status, StatusCode::NO_CONTENT);
    assert_eq!(download(&world, &url, &doctor()).await.status, StatusCode::NOT_FOUND);
    let (status, _) = world.call(Method::DELETE, &gone, Some(&doctor()), Value::Null).await;
    assert_eq!(status, StatusCode::NOT_FOUND);
}

async fn what_is_past_its_time_is_gone_rows_and_files(database: Database) {
    let world =
        World::with(database, |config| config.chat.retention = Duration::from_secs(8)).await;
    let id = visit(&world).await;
    let control = &world.plane.control;
    let old = upload(&world, id, &patient(), "a.png", a_png(1, 1)).await;
    assert_eq!(old.status, StatusCode::CREATED);
    control.chat.flush().await;
    assert!(!control.sweep_chat().await, "nothing is past its time");
    assert_eq!(control.db.count_messages(id).await.expect("counts"), 1);
    tokio::time::sleep(Duration::from_millis(8_200)).await;
    let (status, _) = world.post(&path(id, "/chat"), &doctor(), json!({"content": "new"})).await;
    assert_eq!(status, StatusCode::CREATED);
    control.sweep_chat().await;
    let left = control.db.messages(id, None, 100).await.expect("reads");
    assert_eq!(left.len(), 1, "the lines of the server are gone, too");
    assert_eq!(left[0].content, "new");
    assert_eq!(stored_files(&world), 0);
    // Numbers go on where they were.
    assert!(left[0].sequence > 2);
}

#[tokio::test]
async fn what_is_no_good_is_refused_and_leaves_nothing() {
    let world = World::with(Database::sqlite(), |config| {
        config.chat.max_image_bytes = 1_000;
        config.chat.max_file_bytes = 100_000;
        config.chat.max_files = 2;
    })
    .await;
    let id = visit(&world).await;
    let big_png = [a_png(10, 10), vec![0; 2_000]].concat();
    let cases = [
        (b"<svg xmlns='x'/>".to_vec(), StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported_type"),
        (b"MZ\x90\0".to_vec(), StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported_type"),
        (a_png(60_000, 60_000), StatusCode::UNPROCESSABLE_ENTITY, "too_many_pixels"),
        (big_png, StatusCode::PAYLOAD_TOO_LARGE, "too_large"),
        (vec![b'a'; 100_001], StatusCode::PAYLOAD_TOO_LARGE, "too_large"),
        (Vec::new(), StatusCode::BAD_REQUEST, "empty"),
    ];
    for (bytes, status, code) in cases {
        let answer = upload(&world, id, &patient(), "holiday.png", bytes).await;
        assert_eq!((answer.status, &answer.json()["code"]), (status, &json!(code)));
    }
    assert_eq!(stored_files(&world), 0);
    let stranger = token(ApiRole::Patient, "stranger");
    let answer = upload(&world, id, &stranger, "a.png", a_png(1, 1)).await;
    assert_eq!(answer.status, StatusCode::FORBIDDEN);
    for status in [StatusCode::CREATED, StatusCode::CREATED, StatusCode::CONFLICT] {
        assert_eq!(upload(&world, id, &patient(), "a.png", a_png(1, 1)).await.status, status);
    }
    world.post(&path(id, "/end"), &doctor(), Value::Null).await;
    assert_eq!(
        upload(&world, id, &doctor(), "a.png", a_png(1, 1)).await.status,
        StatusCode::CONFLICT
    );
}

#[tokio::test]
async fn a_form_brings_name_caption_and_client_id_and_a_repeat_is_stored_once() {
    let world = World::new(Database::sqlite()).await;
    let id = visit(&world).await;
    let form = || {
        let mut body = Vec::new();
        for (name, value) in [("content", "my knee"), ("clientId", "c1")] {
            body.extend(
                format!(
                    "--b\r\ncontent-disposition: form-data; name=\"{name}\"\r\n\r\n{value}\r\n"
                )
                .bytes(),
            );
        }
        body.extend(b"--b\r\ncontent-disposition: form-data; name=\"file\"; filename=\"k.png\"\r\ncontent-type: text/html\r\n\r\n");
        body.extend(a_png(2, 2));
        body.extend(b"\r\n--b--\r\n");
        Request::builder()
            .method(Method::POST)
            .uri(path(id, "/attachments"))
            .header("authorization", format!("Bearer {}", patient()))
            .header("content-type", "multipart/form-data; boundary=b")
            .body(Body::from(body))
            .expect("a request")
    };
    let mut ids = Vec::new();
    for _ in 0..2 {
        let response = world.plane.router().oneshot(form()).await.expect("an answer");
        assert_eq!(response.status(), StatusCode::CREATED);
        let bytes = axum::body::to_bytes(response.into_body(), 100_000).await.expect("a body");
        let message: Value = serde_json::from_slice(&bytes).expect("JSON");
        assert_eq!((&message["content"], &message["clientId"]), (&json!("my knee"), &json!("c1")));
        ids.push(id_of(&message["messageId"]));
    }
    assert_eq!(ids[0], ids[1]);
    assert_eq!(stored_files(&world), 1, "the second copy was taken away");
    let broken = Request::builder()
        .method(Method::POST)
        .uri(path(id, "/attachments"))
        .header("authorization", format!("Bearer {}", patient()))
        .header("content-type", "multipart/form-data; boundary=b");
    let answer = ask(&world, broken, Body::from("--b\r\nnonsense")).await;
    assert_eq!(answer.status, StatusCode::BAD_REQUEST);
}

#[tokio::test]
async fn a_shared_picture_is_a_message() {
    let world = World::new(Database::sqlite()).await;
    let id = visit(&world).await;
    let control = &world.plane.control;
    let png = Bytes::from(a_png(3, 3));
    let view = control.share_image("demo", id, "doc", png, "scan.png").await.expect("it is shared");
    assert_eq!(view.message_type, "image");
    let text = Bytes::from_static(b"only text");
    assert!(control.share_image("demo", id, "doc", text, "scan.png").await.is_err());
}

/// A bucket as an S3 service shows it: objects by their paths, and only for signed requests.
async fn bucket()
-> (String, std::sync::Arc<std::sync::Mutex<std::collections::BTreeMap<String, Bytes>>>) {
    use axum::extract::{Request as Asked, State};
    use axum::response::{IntoResponse as _, Response};
    type Kept = std::sync::Arc<std::sync::Mutex<std::collections::BTreeMap<String, Bytes>>>;
    async fn serve(State(kept): State<Kept>, request: Asked) -> Response {
        let signed = request.headers().get("authorization").and_then(|value| value.to_str().ok());
        if !signed.is_some_and(|value| value.starts_with("AWS4-HMAC-SHA256 Credential=key/")) {
            return StatusCode::FORBIDDEN.into_response();
        }
        let (parts, body) = request.into_parts();
        let path = parts.uri.path().to_owned();
        let bytes = axum::body::to_bytes(body, 1_000_000).await.expect("a body");
        let mut kept = kept.lock().expect("nobody panics");
        let tag = [("etag", "\"1\""), ("last-modified", "Sat, 21 Nov 2026 10:00:00 GMT")];
        match parts.method {
            Method::PUT => {
                kept.insert(path, bytes);
                (tag, "").into_response()
            }
            Method::GET => match kept.get(&path) {
                Some(bytes) => (tag, bytes.clone()).into_response(),
                None => StatusCode::NOT_FOUND.into_response(),
            },
            Method::DELETE => {
                kept.remove(&path);
                StatusCode::NO_CONTENT.into_response()
            }
            _ => StatusCode::METHOD_NOT_ALLOWED.into_response(),
        }
    }
    let kept = Kept::default();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("an address");
    let router = axum::Router::new().fallback(serve).with_state(std::sync::Arc::clone(&kept));
    tokio::spawn(async move { axum::serve(listener, router).await });
    (format!("http://{address}"), kept)
}

#[tokio::test]
async fn a_bucket_keeps_files_under_ids() {
    let (endpoint, kept) = bucket().await;
    let world = World::with(Database::sqlite(), |config| {
        config.objects = super::Objects::S3(Box::new(super::S3 {
            bucket: "chat-files".to_owned(),
            region: "eu-north-1".to_owned(),
            endpoint,
            access_key_id: "key".to_owned(),
            secret_access_key: crate::Private::new("secret".to_owned()),
            prefix: "/bedside/".to_owned(),
            kms_key_id: String::new(),
        }));
        config.chat.retention = Duration::from_secs(1);
    })
    .await;
    let id = visit(&world).await;
    let png = a_png(5, 5);
    let sent = upload(&world, id, &patient(), "private name.png", png.clone()).await;
    assert_eq!(sent.status, StatusCode::CREATED);
    let url = sent.json()["attachment"]["fileUrl"].as_str().expect("a path").to_owned();
    assert_eq!(download(&world, &url, &doctor()).await.bytes[..], png[..]);
    {
        let kept = kept.lock().expect("nobody panics");
        let paths: Vec<&String> = kept.keys().collect();
        assert_eq!(paths.len(), 1);
        assert!(paths[0].starts_with("/chat-files/bedside/chat/"), "{paths:?}");
        assert!(!paths[0].contains("private"));
    }
    tokio::time::sleep(Duration::from_millis(1_200)).await;
    world.plane.control.sweep_chat().await;
    assert!(kept.lock().expect("nobody panics").is_empty());
    assert_eq!(download(&world, &url, &doctor()).await.status, StatusCode::NOT_FOUND);
}
