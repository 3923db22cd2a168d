//! Endpoints of the tests' own, over real sockets.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};

use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode as Status};
use axum::response::{IntoResponse, Redirect, Response};
use base64::Engine as _;
use serde_json::Value;

use super::*;
use crate::events::{News, samples};
use crate::testing::{Database, World};

const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
const OLDER: &str = "whsec_b2xkZXIgc2VjcmV0IG9mIHRoZSB0ZXN0cyEhISE=";

/// What an endpoint got, and what it says to the next requests.
#[derive(Default)]
struct Receiver {
    got: Mutex<Vec<(HeaderMap, Vec<u8>)>>,
    says: Mutex<VecDeque<Status>>,
}

fn locked<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn receive(
    State(receiver): State<Arc<Receiver>>,
    headers: HeaderMap,
    body: axum::body::Bytes,
) -> Response {
    let status = locked(&receiver.says).pop_front().unwrap_or(Status::NO_CONTENT);
    if status.is_redirection() {
        return Redirect::temporary("/elsewhere").into_response();
    }
    if status.is_success() {
        locked(&receiver.got).push((headers, body.to_vec()));
    }
    status.into_response()
}

/// An endpoint on a free port, and its URL.
async fn endpoint(says: impl IntoIterator<Item = Status>) -> (Arc<Receiver>, String) {
    let receiver = Arc::new(Receiver::default());
    locked(&receiver.says).extend(says);
    let router = Router::new()
        .route("/hook", axum::routing::post(receive))
        .route("/elsewhere", axum::routing::post(receive))
        .with_state(Arc::clone(&receiver));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/hook", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, router).await });
    (receiver, url)
}

fn config(url: &str) -> WebhookConfig {
    WebhookConfig {
        name: "ehr".to_owned(),
        url: url.to_owned(),
        secrets: vec![Private::new(SECRET.to_owned())],
        ..WebhookConfig::default()
    }
}

fn webhook(config: &WebhookConfig) -> Webhook {
    Webhook::all(std::slice::from_ref(config)).unwrap().remove(0)
}

async fn send(hook: &Webhook, event: &Event) -> Outcome {
    let keys = KeyPair {
        key: "api".to_owned(),
        secret: Private::new("secret-of-the-test-0123456789abcdef".to_owned()),
    };
    post(&client(hook).unwrap(), hook, Some(&keys), event).await
}

/// As a receiver does it that knows one secret.
fn verifies(secret: &str, headers: &HeaderMap, body: &[u8]) -> bool {
    let text = |name: &str| headers[name].to_str().unwrap().to_owned();
    let secret = secret.strip_prefix("whsec_").unwrap();
    let key = base64::engine::general_purpose::STANDARD.decode(secret).unwrap();
    let key = aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA256, &key);
    let mut signed = format!("{}.{}.", text("webhook-id"), text("webhook-timestamp")).into_bytes();
    signed.extend_from_slice(body);
    text("webhook-signature").split(' ').any(|signature| {
        let signature = signature.strip_prefix("v1,").unwrap();
        let bytes = base64::engine::general_purpose::STANDARD.decode(signature).unwrap();
        aws_lc_rs::hmac::verify(&key, &signed, &bytes).is_ok()
    })
}

#[tokio::test]
async fn a_webhook_is_signed_with_both_secrets() {
    let (receiver, url) = endpoint([]).await;
    let mut config = config(&url);
    config.secrets.push(Private::new(OLDER.to_owned()));
    let event = samples::all().remove(7);
    assert_eq!(send(&webhook(&config), &event).await, Outcome::Taken);
    let (headers, mut body) = locked(&receiver.got).remove(0);
    assert_eq!(headers["webhook-id"], event.id.to_string().as_str());
    assert_eq!(headers["content-type"], "application/json");
    let seconds: i64 = headers["webhook-timestamp"].to_str().unwrap().parse().unwrap();
    assert!((store::now().timestamp() - seconds).abs() < 60);
    assert!(verifies(SECRET, &headers, &body) && verifies(OLDER, &headers, &body));
    let told: Value = serde_json::from_slice(&body).unwrap();
    assert_eq!(told["type"], "consultation.ended.v1");
    assert_eq!((&told["timestamp"], &told["eventType"]), (&told["eventTime"], &told["type"]));
    assert_eq!(told["data"]["durationSeconds"], 900);
    body[10] ^= 1;
    assert!(!verifies(SECRET, &headers, &body));
}

#[tokio::test]
async fn only_a_success_is_taken_and_no_redirect_is_followed() {
    let answers = [
        (Status::OK, Outcome::Taken),
        (Status::TEMPORARY_REDIRECT, Outcome::Refused("answered 307".to_owned())),
        (Status::BAD_REQUEST, Outcome::Refused("answered 400".to_owned())),
        (Status::GONE, Outcome::Refused("answered 410".to_owned())),
        (Status::INTERNAL_SERVER_ERROR, Outcome::Refused("answered 500".to_owned())),
        (Status::TOO_MANY_REQUESTS, Outcome::Away),
        (Status::SERVICE_UNAVAILABLE, Outcome::Away),
    ];
    let (receiver, url) = endpoint(answers.iter().map(|(status, _)| *status)).await;
    let hook = webhook(&config(&url));
    let event = samples::all().remove(0);
    for (status, outcome) in &answers {
        assert_eq!(send(&hook, &event).await, *outcome, "{status}");
    }
    assert_eq!(locked(&receiver.got).len(), 1);
    let nobody = webhook(&config("http://127.0.0.1:9/"));
    assert_eq!(send(&nobody, &event).await, Outcome::Away);
}

#[tokio::test]
async fn names_do_not_lead_inside() {
    let resolver = |allow_private| guard::Outside { allow_private };
    let name = || "localhost.localdomain".parse::<reqwest::dns::Name>().unwrap();
    let found = reqwest::dns::Resolve::resolve(&resolver(false), name()).await;
    // Where this name is unknown that is an error as well.
    assert!(found.is_err());
    let named = "localhost".parse::<reqwest::dns::Name>().unwrap();
    let found = reqwest::dns::Resolve::resolve(&resolver(false), named).await;
    assert!(found.is_ok_and(|mut addresses| addresses.all(|a| a.ip().is_loopback())));
}

#[test]
fn endpoints_are_checked() {
    let refused = |change: &dyn Fn(&mut WebhookConfig)| {
        let mut config = config("https://ehr.example/hook");
        change(&mut config);
        Webhook::all(&[config]).map_err(|(_, error)| error)
    };
    assert!(refused(&|_| {}).is_ok());
    assert!(refused(&|c| c.url = "http://localhost:8080/x".to_owned()).is_ok());
    assert!(refused(&|c| c.url = "http://[::1]:8080/x".to_owned()).is_ok());
    for url in ["", "ehr.example", "http://ehr.example/", "ftp://ehr.example/", "https://"] {
        let error = refused(&|c| c.url = url.to_owned()).unwrap_err();
        assert!(matches!(error, WebhookError::Url), "{url}: {error}");
    }
    for url in ["https://10.0.0.1/", "https://169.254.169.254/", "https://[fd00::1]/"] {
        let error = refused(&|c| c.url = url.to_owned()).unwrap_err();
        assert!(matches!(error, WebhookError::Inside), "{url}: {error}");
        assert!(refused(&|c| (c.url, c.allow_private) = (url.to_owned(), true)).is_ok());
    }
    // Another way to write 127.0.0.1 is the same address.
    assert!(refused(&|c| c.url = "http://2130706433/".to_owned()).is_ok());
    for name in ["", "EHR", "e h r", &"x".repeat(61)] {
        assert!(matches!(refused(&|c| c.name = name.to_owned()), Err(WebhookError::Name)));
    }
    assert!(matches!(refused(&|c| c.secrets.clear()), Err(WebhookError::Secret)));
    let twice = [config("https://a.example/"), config("https://b.example/")];
    assert!(matches!(Webhook::all(&twice), Err((_, WebhookError::SameName))));
}

#[test]
fn an_endpoint_gets_what_it_wants() {
    let wants = |events: &[&str], clinic: Option<&str>| {
        let config = WebhookConfig {
            events: events.iter().map(|name| (*name).to_owned()).collect(),
            clinic: clinic.map(str::to_owned),
            ..config("https://ehr.example/")
        };
        let hook = webhook(&config);
        let all = samples::all();
        all.iter()
            .filter(|event| hook.wants(event))
            .map(|event| event.news.name())
            .collect::<Vec<_>>()
    };
    assert_eq!(wants(&[], None).len(), 13);
    assert_eq!(wants(&[], Some("demo")).len(), 13);
    assert_eq!(wants(&[], Some("other")).len(), 0);
    assert_eq!(wants(&["consultation.ended.v1"], None), ["consultation.ended"]);
    // CON-12: the other word for it.
    assert_eq!(wants(&["consultation.completed"], None), ["consultation.ended"]);
    assert_eq!(wants(&["consultation.feedback.*", "consultation.paused"], None).len(), 3);
}

/// Two endpoints, one of which refuses everything: the other one gets all, each gets its own order.
#[tokio::test]
async fn a_failing_endpoint_holds_up_nobody_else() {
    let (good, url) = endpoint([]).await;
    let (bad, bad_url) = endpoint(vec![Status::INTERNAL_SERVER_ERROR; 100]).await;
    let hooks = [
        WebhookConfig { name: "good".to_owned(), ..config(&url) },
        WebhookConfig { name: "bad".to_owned(), ..config(&bad_url) },
    ];
    let world = World::with(Database::sqlite(), |config| {
        config.webhooks = Webhook::all(&hooks).unwrap();
    })
    .await;
    let (_facts, heard) = tokio::sync::mpsc::channel(1);
    let running = tokio::spawn(world.plane.clone().run(heard));
    let session = world.session().await;
    world.session().await;
    let doctor = crate::testing::doctor();
    let join = crate::testing::path(session, "/join");
    world.post(&join, &doctor, Value::Null).await;
    let cancel = crate::testing::path(session, "/cancel");
    world.post(&cancel, &doctor, Value::Null).await;
    // A token is told of on the side, whenever the database has time: it may come before the end or after.
    let types = || {
        let mut types: Vec<Value> = locked(&good.got)
            .iter()
            .map(|(_, body)| serde_json::from_slice::<Value>(body).unwrap()["type"].clone())
            .collect();
        types.retain(|name| name != "consultation.token.generated.v1");
        types
    };
    let wait = async {
        while types().len() < 3 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), wait).await.expect("all events arrive");
    let created = "consultation.session.created.v1";
    assert_eq!(types(), [created, created, "consultation.ended.v1"]);
    assert_eq!(locked(&bad.got).len(), 0);
    let refused = |name: &str| {
        let counts = world.plane.control.counters.outbox();
        counts.iter().find(|(sink, _)| sink == name).map_or(0, |(_, counts)| counts.refused)
    };
    let wait = async {
        while refused("webhook:bad") < 2 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), wait).await.expect("both were tried");
    running.abort();
}

#[test]
fn news_without_a_consultation_has_a_body() {
    let failed = samples::all().into_iter().find(|event| event.about.is_none()).unwrap();
    assert!(matches!(failed.news, News::CreationFailed { .. }));
    assert_eq!(webhook::body(&failed)["data"]["appointmentId"], "appt-uuid");
}

/// As the receivers of the server SDKs do it.
fn sdk_takes(headers: &HeaderMap, body: &[u8]) -> bool {
    let jwt = headers["authorization"].to_str().unwrap();
    let key = jsonwebtoken::DecodingKey::from_secret(b"secret-of-the-test-0123456789abcdef");
    let mut validation = jsonwebtoken::Validation::new(jsonwebtoken::Algorithm::HS256);
    validation.set_issuer(&["api"]);
    let claims = jsonwebtoken::decode::<Value>(jwt, &key, &validation).unwrap().claims;
    let hash = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, body);
    claims["sha256"] == base64::engine::general_purpose::STANDARD.encode(hash)
}

#[tokio::test]
async fn what_rooms_tell_goes_to_those_who_listen_to_rooms() {
    let body = r#"{"event":"participant_joined"}"#.to_owned();
    let news = News::Room {
        name: "participant_joined".to_owned(),
        room: uuid::Uuid::nil(),
        body: Told(body.clone()),
    };
    let event = samples::event(samples::at("2026-01-30T14:30:00Z"), None, news);
    let (receiver, url) = endpoint([]).await;
    let rooms = WebhookConfig { rooms: true, secrets: Vec::new(), ..config(&url) };
    let hook = webhook(&rooms);
    assert!(hook.is_about_rooms() && !webhook(&config(&url)).is_about_rooms());
    assert_eq!(send(&hook, &event).await, Outcome::Taken);
    let (headers, mut got) = locked(&receiver.got).remove(0);
    assert_eq!(headers["content-type"], "application/webhook+json");
    assert_eq!(got, body.as_bytes());
    assert!(sdk_takes(&headers, &got));
    got[3] ^= 1;
    assert!(!sdk_takes(&headers, &got), "a changed body");
    let other = webhook(&WebhookConfig { events: vec!["room_*".to_owned()], ..rooms.clone() });
    assert_eq!(send(&other, &event).await, Outcome::Taken);
    assert!(locked(&receiver.got).is_empty(), "it does not want this one");
    for bad in [
        WebhookConfig { secrets: config(&url).secrets, ..rooms.clone() },
        WebhookConfig { clinic: Some("demo".to_owned()), ..rooms },
    ] {
        assert!(matches!(Webhook::all(&[bad]), Err((_, WebhookError::Rooms))));
    }
}
