//! What every request goes through, from outside: limits, refusals, methods, the switch.

use std::net::IpAddr;

use axum::body::{Body, to_bytes};
use axum::http::header::{ALLOW, AUTHORIZATION, CONTENT_TYPE, RETRY_AFTER};
use axum::http::{HeaderMap, Method, Request, StatusCode};
use serde_json::Value;
use tower::ServiceExt as _;
use uuid::Uuid;

use super::{Rate, RequestLimits};
use crate::address::ClientAddress;
use crate::testing::{Database, World, doctor, path, patient, service, token_of};
use crate::token::ApiRole;

const SESSIONS: &str = "/api/v1/consultations/sessions";

async fn ask(world: &World, request: Request<Body>) -> (StatusCode, HeaderMap, Value) {
    let answer = world.plane.router().oneshot(request).await.unwrap();
    let (parts, body) = answer.into_parts();
    let bytes = to_bytes(body, usize::MAX).await.unwrap();
    (parts.status, parts.headers, serde_json::from_slice(&bytes).unwrap_or_default())
}

fn get(token: &str) -> Request<Body> {
    let bearer = format!("Bearer {token}");
    Request::get(SESSIONS).header(AUTHORIZATION, bearer).body(Body::empty()).unwrap()
}

fn from(address: &str, mut request: Request<Body>) -> Request<Body> {
    let address: IpAddr = address.parse().unwrap();
    request.extensions_mut().insert(ClientAddress(address));
    request
}

async fn limited(limits: RequestLimits) -> World {
    World::with(Database::sqlite(), |config| config.limits = limits).await
}

#[tokio::test]
async fn a_caller_gets_a_burst_and_then_a_rate() {
    let person = Rate { per_second: 1, burst: 3 };
    let world = limited(RequestLimits { person, ..RequestLimits::default() }).await;
    // On a busy machine seconds pass meanwhile, and each of them brings one more.
    let mut passed = 0;
    let (status, headers, problem) = loop {
        let answer = ask(&world, get(&doctor())).await;
        if answer.0 != StatusCode::OK {
            break answer;
        }
        passed += 1;
        assert!(passed < 1_000, "there is no limit");
    };
    assert!(passed >= 3, "{passed}");
    assert_eq!(status, StatusCode::TOO_MANY_REQUESTS);
    assert_eq!(problem["code"], "too_many_requests");
    assert_eq!(headers[RETRY_AFTER], "1");
    assert_eq!(headers[CONTENT_TYPE], "application/problem+json");
    assert_eq!(world.plane.counters().rate_limited.value(), 1);
    // Nobody else is meant: not another person, not the same id elsewhere, no service.
    let elsewhere = token_of(ApiRole::Doctor, "doc", "another");
    for token in [patient(), elsewhere, service(), service(), service(), service()] {
        assert_eq!(ask(&world, get(&token)).await.0, StatusCode::OK);
    }
    tokio::time::sleep(std::time::Duration::from_millis(1100)).await;
    assert_eq!(ask(&world, get(&doctor())).await.0, StatusCode::OK);
}

#[tokio::test]
async fn an_address_is_limited_before_anything_is_read() {
    let address = Rate { per_second: 1, burst: 2 };
    let world = limited(RequestLimits { address, ..RequestLimits::default() }).await;
    let knock = |place: &str| ask(&world, from(place, get("a guess")));
    for _ in 0..2 {
        assert_eq!(knock("2001:db8::1").await.0, StatusCode::UNAUTHORIZED);
    }
    // A network of IPv6 is one house; each second that passes meanwhile brings one more.
    let limited = async |from: &str| {
        for passed in 0..1_000_u64 {
            if knock(from).await.0 == StatusCode::TOO_MANY_REQUESTS {
                return passed;
            }
        }
        panic!("there is no limit for {from}");
    };
    let more = limited("2001:db8::2").await;
    assert_eq!(world.plane.counters().refused_auth.value(), 2 + more);
    assert_eq!(knock("2001:db8:0:1::1").await.0, StatusCode::UNAUTHORIZED);
    assert_eq!(knock("192.0.2.1").await.0, StatusCode::UNAUTHORIZED);
    // What has no address came by no network.
    assert_eq!(ask(&world, get(&doctor())).await.0, StatusCode::OK);
    world.plane.control.limiters.sweep();
    limited("2001:db8::3").await;
}

#[tokio::test]
async fn every_refusal_is_a_problem() {
    let world = World::new(Database::sqlite()).await;
    let id = world.session().await;
    let request = |method: Method, path: &str, kind: Option<&str>, body: Vec<u8>| {
        let mut request = Request::builder().method(method).uri(path);
        request = request.header(AUTHORIZATION, format!("Bearer {}", service()));
        if let Some(kind) = kind {
            request = request.header(CONTENT_TYPE, kind);
        }
        request.body(Body::from(body)).unwrap()
    };
    let json = Some("application/json");
    let end = path(id, "/end");
    let chat = path(id, "/chat");
    let channel = path(id, "/channel");
    for (method, path, kind, body, expected) in [
        (Method::GET, format!("{SESSIONS}?limit=x"), None, vec![], 422),
        (Method::GET, format!("{chat}?before=x"), None, vec![], 422),
        (Method::GET, format!("{SESSIONS}/%ff"), None, vec![], 400),
        (Method::GET, format!("{SESSIONS}/{}", Uuid::nil()), None, vec![], 404),
        (Method::GET, "/api/nowhere".to_owned(), None, vec![], 404),
        (Method::PUT, SESSIONS.to_owned(), json, vec![], 405),
        (Method::DELETE, end.clone(), None, vec![], 405),
        (Method::POST, end.clone(), json, b"{".to_vec(), 400),
        (Method::POST, end.clone(), json, b"\xff\xfe".to_vec(), 400),
        (Method::POST, end.clone(), json, b"[]".to_vec(), 422),
        (Method::POST, end.clone(), json, vec![b' '; 257 * 1024], 413),
        (Method::POST, end.clone(), Some("text/xml"), b"<a/>".to_vec(), 415),
        (
            Method::POST,
            end.clone(),
            Some("application/x-www-form-urlencoded"),
            b"a=b".to_vec(),
            415,
        ),
        (Method::GET, channel, None, vec![], 426),
    ] {
        let (status, headers, problem) =
            ask(&world, request(method.clone(), &path, kind, body)).await;
        assert_eq!(status.as_u16(), expected, "{method} {path}: {problem}");
        assert_eq!(headers[CONTENT_TYPE], "application/problem+json", "{method} {path}");
        assert_eq!(problem["status"], expected, "{method} {path}");
        assert!(problem["code"].is_string() && problem["detail"].is_string(), "{problem}");
        assert!(headers.contains_key("x-request-id"));
    }
    for kind in
        [None, json, Some("application/json; charset=utf-8"), Some("Application/vnd.a+JSON")]
    {
        let body = br#"{"reason":"over"}"#.to_vec();
        let (status, _, answer) = ask(&world, request(Method::POST, &end, kind, body)).await;
        assert!(status.is_success() || status == StatusCode::CONFLICT, "{kind:?} {answer}");
    }
    // An empty body is an empty object, whatever it is called.
    let (status, ..) = ask(&world, request(Method::POST, &end, Some("text/plain"), vec![])).await;
    assert_ne!(status, StatusCode::UNSUPPORTED_MEDIA_TYPE);
}

#[tokio::test]
async fn methods_are_answered_sensibly() {
    let world = World::new(Database::sqlite()).await;
    let with = |method: Method| {
        let request = Request::builder().method(method).uri(SESSIONS);
        let bearer = format!("Bearer {}", service());
        request.header(AUTHORIZATION, bearer).body(Body::empty()).unwrap()
    };
    let (status, headers, _) = ask(&world, with(Method::OPTIONS)).await;
    assert_eq!(status, StatusCode::NO_CONTENT);
    let allowed = headers[ALLOW].to_str().unwrap();
    assert!(allowed.contains("GET") && allowed.contains("POST"), "{allowed}");
    let (status, headers, _) = ask(&world, with(Method::PATCH)).await;
    assert_eq!(status, StatusCode::METHOD_NOT_ALLOWED);
    assert!(headers.contains_key(ALLOW));
    let (status, headers, body) = ask(&world, with(Method::HEAD)).await;
    assert_eq!((status, body), (StatusCode::OK, Value::Null));
    assert_eq!(headers[CONTENT_TYPE], "application/json");
}

#[tokio::test]
async fn consultations_can_be_turned_off() {
    let world = World::with(Database::sqlite(), |config| config.video_enabled = false).await;
    let (status, headers, problem) = ask(&world, get(&service())).await;
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(problem["code"], "video_disabled");
    assert!(headers.contains_key(RETRY_AFTER));
    let health = Request::get("/health").body(Body::empty()).unwrap();
    let (status, _, health) = ask(&world, health).await;
    assert_eq!(status, StatusCode::OK, "{health}");
}

#[tokio::test]
async fn health_names_its_parts() {
    let world = World::new(Database::sqlite()).await;
    let request = || Request::get("/health").body(Body::empty()).unwrap();
    world.plane.watch_media(|| true);
    let (status, _, health) = ask(&world, request()).await;
    assert_eq!((status, &health["status"]), (StatusCode::OK, &"healthy".into()));
    let parts = serde_json::json!({"database": "up", "broker": "not_configured", "media": "up"});
    assert_eq!(health["parts"], parts);
    world.plane.tell_broker(false);
    let (status, _, health) = ask(&world, request()).await;
    assert_eq!((status, &health["status"]), (StatusCode::OK, &"degraded".into()));
    world.plane.close().await;
    let (status, _, health) = ask(&world, request()).await;
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(
        (&health["status"], &health["parts"]["database"]),
        (&"unhealthy".into(), &"down".into())
    );
}

#[tokio::test]
async fn pages_of_others_may_use_every_method_and_read_every_header() {
    let world = World::new(Database::sqlite()).await;
    let preflight = Request::options(SESSIONS)
        .header("origin", "https://desk.example")
        .header("access-control-request-method", "PUT")
        .body(Body::empty())
        .unwrap();
    let (status, headers, _) = ask(&world, preflight).await;
    assert_eq!(status, StatusCode::NO_CONTENT);
    let lists = |name: &str, word: &str| {
        let listed = headers[name].to_str().unwrap().split(',');
        listed.map(str::trim).any(|one| one.eq_ignore_ascii_case(word))
    };
    // Prices are PUT, feedback is shown by PATCH, lists go on by `link`.
    for method in ["GET", "POST", "PUT", "PATCH", "DELETE"] {
        assert!(lists("access-control-allow-methods", method), "{method}");
    }
    for header in ["authorization", "content-type", "idempotency-key", "x-api-key"] {
        assert!(lists("access-control-allow-headers", header), "{header}");
    }
    for header in ["x-request-id", "retry-after", "link"] {
        assert!(lists("access-control-expose-headers", header), "{header}");
    }
}

#[tokio::test]
async fn what_is_no_object_is_no_body() {
    let world = World::new(Database::sqlite()).await;
    let positional = serde_json::json!([null, "doc", null, "pat", null, "VIDEO", null, null, null]);
    let (status, problem) = world.post(SESSIONS, &service(), positional).await;
    assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY, "{problem}");
    assert_eq!(problem["detail"], "the body must be a JSON object");
}

#[tokio::test]
async fn a_time_that_no_calendar_holds_is_refused() {
    let world = World::new(Database::sqlite()).await;
    let at = |time: &str| {
        serde_json::json!({"doctorId": "doc", "patientId": "pat", "consultationMode": "VIDEO",
            "scheduledStartTime": time})
    };
    for time in [
        "+262142-12-31T23:59:59Z",
        "+10000-01-01T00:00:00Z",
        "9999-12-31T23:59:59Z",
        "1969-12-31T23:59:59Z",
        "-0001-01-01T00:00:00Z",
    ] {
        let (status, problem) = world.post(SESSIONS, &service(), at(time)).await;
        assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY, "{time}: {problem}");
        // By the other doors, too.
        let payment = serde_json::json!({"paymentId": "p", "appointment": at(time)});
        let door = "/api/v1/consultations/appointments/A-1/payment";
        let (status, problem) = world.post(door, &service(), payment).await;
        assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY, "{time}: {problem}");
    }
    let (status, last) = world.post(SESSIONS, &service(), at("9998-12-31T23:59:59Z")).await;
    assert_eq!(status, StatusCode::CREATED, "{last}");
    let id = crate::testing::id_of(&last["sessionId"]);
    let link = serde_json::json!({"userId": "pat", "role": "patient"});
    let (status, link) = world.post(&path(id, "/links"), &service(), link).await;
    assert_eq!(status, StatusCode::CREATED);
    assert!(link["expiresAt"].as_str().unwrap().starts_with("9999-01-0"), "{link}");
}

#[tokio::test]
async fn a_consultation_is_made_from_any_spelling() {
    let world = World::with(Database::sqlite(), |config| {
        config.naive_timezone = chrono_tz::Asia::Kolkata;
    })
    .await;
    let bodies = [
        serde_json::json!({"appointmentId": 789, "doctorId": 12, "patientId": 345,
            "consultationMode": "video", "scheduledStartTime": "2026-01-25T14:00:00"}),
        serde_json::json!({"appointment_id": "789", "doctor_id": "12", "patient_id": "345",
            "consultation_mode": "VIRTUAL", "scheduled_start_time": [2026, 1, 25, 14, 0]}),
        serde_json::json!({"appointmentId": "789", "doctorId": "12", "patientId": "345",
            "consultationMode": "Video", "scheduledStartTime": "2026-01-25T14:00:00+05:30"}),
    ];
    for (number, body) in bodies.into_iter().enumerate() {
        let (status, session) = world.post(SESSIONS, &service(), body).await;
        let expected = if number == 0 { StatusCode::CREATED } else { StatusCode::OK };
        assert_eq!(status, expected, "{session}");
        assert_eq!(session["appointmentId"], "789");
        assert_eq!(session["doctor"]["id"], "12");
        assert_eq!(session["consultationMode"], "VIDEO");
        assert_eq!(session["scheduledStartTime"], "2026-01-25T08:30:00.000Z");
    }
    for status in ["scheduled", "SCHEDULED", "created"] {
        let (code, page) = world.get(&format!("{SESSIONS}?status={status}"), &service()).await;
        assert_eq!(code, StatusCode::OK, "{page}");
        assert_eq!(page["items"].as_array().map(Vec::len), Some(1));
    }
}

#[tokio::test]
async fn a_text_is_one_in_any_case() {
    let world = World::new(Database::sqlite()).await;
    let id = world.session().await;
    for kind in ["text", "TEXT"] {
        let body = serde_json::json!({"content": "good morning", "messageType": kind});
        let (status, message) = world.post(&path(id, "/chat"), &doctor(), body).await;
        assert_eq!(status, StatusCode::CREATED, "{message}");
        assert_eq!(message["messageType"], "text");
    }
    let image = serde_json::json!({"content": "x", "messageType": "image"});
    let (status, _) = world.post(&path(id, "/chat"), &doctor(), image).await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
}
