//! The older HTTP contracts: names, roles, waiting room, and that they are one model with the
//! native API.

use std::sync::Arc;

use axum::body::Body;
use axum::http::{Method, Request, StatusCode};
use serde_json::{Value, json};
use tower::ServiceExt as _;
use uuid::Uuid;

use crate::consultation::PersonRole;
use crate::events::{News, Sink};
use crate::testing::{
    Database, World, doctor, id_of, on_both_databases, path, patient, service, token, token_of,
};
use crate::token::ApiRole;

const SESSIONS: &str = "/api/video/sessions";

fn video(session: Uuid, rest: &str) -> String {
    format!("{SESSIONS}/{session}{rest}")
}

/// A session of appointment `A-1` with doctor `doc` and patient `pat`.
async fn booked(world: &World) -> Uuid {
    let body = json!({"appointment_id": "A-1", "doctor_id": "doc", "patient_id": "pat",
        "scheduled_time": "2026-01-25T14:00:00"});
    let (status, session) = world.post(SESSIONS, &service(), body).await;
    assert_eq!(status, StatusCode::CREATED, "{session}");
    id_of(&session["session_id"])
}

async fn admit(world: &World, session: Uuid, user: &str) {
    let body = json!({"userId": user});
    let (status, answer) = world.post(&path(session, "/admit"), &doctor(), body).await;
    assert_eq!(status, StatusCode::OK, "{answer}");
}

on_both_databases! {
    a_session_is_made_once_per_appointment,
    a_join_tells_the_token_under_all_its_names,
    history_is_paged_filtered_and_own,
    a_report_is_stored_with_its_event,
}

async fn a_session_is_made_once_per_appointment(database: Database) {
    let world = World::new(database).await;
    let session = booked(&world).await;
    let again = json!({"appointmentId": "A-1", "doctorId": "doc", "patientId": "pat",
        "startTime": "2026-01-25T14:00:00Z", "appointmentType": "VIRTUAL"});
    let (status, answer) = world.post(SESSIONS, &service(), again).await;
    assert_eq!(status, StatusCode::OK);
    assert_eq!(id_of(&answer["session_id"]), session);
    assert_eq!(answer["status"], "SCHEDULED");
    assert_eq!(answer["scheduled_time"], "2026-01-25T14:00:00.000Z");
    assert_eq!(answer["meeting_id"], answer["room_name"]);
    assert_eq!(answer["meeting"]["external_meeting_id"], json!(session));
    let (_, native) = world.get(&path(session, ""), &doctor()).await;
    assert_eq!(native["roomName"], answer["room_name"]);
    assert_eq!(native["appointmentId"], "A-1");
}

#[tokio::test]
async fn a_doctor_makes_an_instant_session_of_their_own() {
    let world = World::new(Database::sqlite()).await;
    let (status, session) = world.post(SESSIONS, &doctor(), Value::Null).await;
    assert_eq!(status, StatusCode::CREATED, "{session}");
    assert_eq!(session["doctor_id"], "doc");
    assert_eq!(session["appointment_id"], Value::Null);
    let link = session["attendee_url"].as_str().expect("a link for whoever comes");
    assert!(link.starts_with("https://clinic.example/visit#") && link.len() <= 500, "{link}");
    let secret = link.split('#').nth(1).expect("a secret");
    let exchange = json!({"link": secret});
    let (status, claims) = world.call(Method::POST, "/api/v1/links/exchange", None, exchange).await;
    assert_eq!(status, StatusCode::OK);
    assert_eq!(claims["userId"], session["patient_id"]);
    // A second one is another one.
    let (_, second) = world.post(SESSIONS, &doctor(), json!({})).await;
    assert_ne!(second["session_id"], session["session_id"]);
    for (who, body, code) in [
        (doctor(), json!({"doctor_id": "other"}), StatusCode::FORBIDDEN),
        (patient(), json!({}), StatusCode::FORBIDDEN),
        (service(), json!({}), StatusCode::UNPROCESSABLE_ENTITY),
        (service(), json!({"doctor_id": "a", "doctorId": "b"}), StatusCode::UNPROCESSABLE_ENTITY),
        (doctor(), json!({"service_type": "IN_PERSON"}), StatusCode::UNPROCESSABLE_ENTITY),
        (doctor(), json!({"scheduled_time": "soon"}), StatusCode::UNPROCESSABLE_ENTITY),
        (doctor(), json!([]), StatusCode::UNPROCESSABLE_ENTITY),
    ] {
        let (status, answer) = world.post(SESSIONS, &who, body.clone()).await;
        assert_eq!(status, code, "{body} {answer}");
    }
}

async fn a_join_tells_the_token_under_all_its_names(database: Database) {
    let world = World::new(database).await;
    let session = booked(&world).await;
    let join = video(session, "/join");
    let body = json!({"user_id": "doc", "attendee_name": "Dr. John Smith", "role": "HOST"});
    let (status, joined) = world.post(&join, &service(), body).await;
    assert_eq!(status, StatusCode::OK, "{joined}");
    let token = joined["join_token"].as_str().expect("a token");
    assert!(token.split('.').count() == 3);
    for name in ["token", "accessToken"] {
        assert_eq!(joined[name], joined["join_token"], "{name}");
    }
    assert_eq!(joined["api_key"], "test");
    assert_eq!(joined["apiKey"], "test");
    assert_eq!(joined["attendee_id"], "doc");
    assert_eq!(joined["meeting"]["meeting_id"], joined["room_name"]);
    assert_eq!(joined["room_url"], "wss://clinic.example");
    assert_eq!(joined["status"], "JOINED");
    assert_eq!(joined.get("iceServers"), None);
    assert_eq!(joined["call_id"], json!(session));

    // The patient waits, and has no token until the doctor lets it in.
    let body = json!({"userId": "pat", "role": "patient"});
    let (status, waits) = world.post(&join, &patient(), body.clone()).await;
    assert_eq!(status, StatusCode::ACCEPTED);
    assert_eq!(waits["status"], "WAITING");
    assert_eq!(waits["position"], 1);
    for name in ["join_token", "token", "accessToken", "token_expires_at"] {
        assert_eq!(waits[name], Value::Null, "{name}");
    }
    assert!(waits["attendee_url"].as_str().is_some_and(|url| url.contains("/visit#")));
    admit(&world, session, "pat").await;
    let (status, inside) = world.post(&join, &patient(), body).await;
    assert_eq!(status, StatusCode::OK);
    assert!(inside["token"].is_string());

    // Ended: nobody joins any more, and ending again does no harm.
    for _ in 0..2 {
        let (status, ended) = world.post(&video(session, "/end"), &doctor(), Value::Null).await;
        assert_eq!(status, StatusCode::OK);
        assert_eq!(ended["status"], "COMPLETED");
        assert_eq!(ended["attendee_url"], Value::Null);
    }
    let (status, problem) = world.post(&join, &patient(), Value::Null).await;
    assert_eq!((status, &problem["code"]), (StatusCode::CONFLICT, &json!("session_over")));
}

#[tokio::test]
async fn people_act_as_themselves_and_services_for_them() {
    let world = World::new(Database::sqlite()).await;
    let session = booked(&world).await;
    let stranger = token(ApiRole::Patient, "else");
    let elsewhere = token_of(ApiRole::Service, "backend", "north");
    for (who, body, code) in [
        (patient(), json!({"user_id": "doc"}), StatusCode::FORBIDDEN),
        (patient(), json!({"role": "HOST"}), StatusCode::FORBIDDEN),
        (stranger.clone(), json!({}), StatusCode::FORBIDDEN),
        (service(), json!({"user_id": "else"}), StatusCode::FORBIDDEN),
        (service(), json!({"user_id": "doc", "role": "patient"}), StatusCode::FORBIDDEN),
        (service(), json!({}), StatusCode::UNPROCESSABLE_ENTITY),
        (service(), json!({"role": "guest"}), StatusCode::UNPROCESSABLE_ENTITY),
        (service(), json!({"role": "root"}), StatusCode::UNPROCESSABLE_ENTITY),
        (elsewhere.clone(), json!({"user_id": "doc"}), StatusCode::NOT_FOUND),
        (service(), json!({"role": "DOCTOR"}), StatusCode::OK),
        (service(), json!({"user_id": "pat"}), StatusCode::ACCEPTED),
    ] {
        let (status, answer) = world.post(&video(session, "/join"), &who, body.clone()).await;
        assert_eq!(status, code, "{body} {answer}");
    }
    for (who, body, code) in [
        (patient(), json!({}), StatusCode::FORBIDDEN),
        (service(), json!({"userId": "pat", "role": "PATIENT"}), StatusCode::FORBIDDEN),
        (elsewhere, json!({}), StatusCode::NOT_FOUND),
        (service(), json!({"reason": "\u{7}"}), StatusCode::UNPROCESSABLE_ENTITY),
        (service(), json!({"userId": "doc", "role": "DOCTOR"}), StatusCode::OK),
    ] {
        let (status, answer) = world.post(&video(session, "/end"), &who, body.clone()).await;
        assert_eq!(status, code, "{body} {answer}");
    }
    let nobody = world.call(Method::GET, &video(session, ""), None, Value::Null).await;
    assert_eq!(nobody.0, StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn appointments_and_sessions_are_not_mixed() {
    let world = World::new(Database::sqlite()).await;
    let session = booked(&world).await;
    let by_session = format!("/api/appointments/{session}/video/status");
    assert_eq!(world.get(&by_session, &doctor()).await.0, StatusCode::NOT_FOUND);
    assert_eq!(world.get(&format!("{SESSIONS}/A-1"), &doctor()).await.0, StatusCode::NOT_FOUND);
    let both = json!({"appointmentId": "A-2", "sessionId": session, "userId": "doc"});
    let (status, _) = world.post("/api/video/token", &doctor(), both).await;
    assert_eq!(status, StatusCode::NOT_FOUND);
    let slot = json!({"sessionId": 789, "userId": "doc"});
    let (status, _) = world.post("/api/video/token", &doctor(), slot).await;
    assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY);
    for id in [session.to_string(), "A-1".to_owned()] {
        let (status, answer) =
            world.get(&format!("/api/video/consultation/{id}/status"), &patient()).await;
        assert_eq!(status, StatusCode::OK, "{answer}");
        assert_eq!(answer["sessionId"], json!(session));
    }
    // An appointment that is called like another's session is still found by its own doors.
    let body = json!({"appointment_id": session, "doctor_id": "doc", "patient_id": "pat"});
    let (_, second) = world.post(SESSIONS, &service(), body).await;
    let (_, found) = world.get(&by_session, &doctor()).await;
    assert_eq!(found["sessionId"], second["session_id"]);
}

#[tokio::test]
async fn a_call_goes_from_token_to_end() {
    let world = World::new(Database::sqlite()).await;
    let session = booked(&world).await;
    let dto = json!({"appointmentId": "A-1", "userId": "pat", "userRole": "patient",
        "userInfo": {"displayName": "Pat", "email": "pat@clinic.example"}});
    let (status, waits) = world.post("/api/video/token", &service(), dto).await;
    assert_eq!(status, StatusCode::ACCEPTED);
    assert_eq!((&waits["status"], &waits["token"]), (&json!("WAITING"), &Value::Null));
    for alias in ["", "/api"] {
        let path = format!("{alias}/appointments/A-1/video/token");
        let (status, token) = world.post(&path, &doctor(), json!({"userRole": "doctor"})).await;
        assert_eq!(status, StatusCode::OK, "{path} {token}");
        assert!(token["token"].is_string() && token["iceServers"].is_array());
        assert_eq!(token["roomId"], token["roomName"]);
        assert_eq!(token["userRole"], "doctor");
    }
    let start = json!({"appointmentId": "A-1", "userId": "doc", "userRole": "doctor"});
    let (status, _) = world
        .post(
            "/api/video/consultation/start",
            &patient(),
            json!({
        "appointmentId": "A-1"}),
        )
        .await;
    assert_eq!(status, StatusCode::FORBIDDEN);
    for path in ["/api/video/consultation/start", "/api/video/consultation/start"] {
        let (status, started) = world.post(path, &service(), start.clone()).await;
        assert_eq!(status, StatusCode::OK, "{started}");
        assert_eq!(started["status"], "IN_PROGRESS");
        assert!(started["startTime"].is_string());
    }
    let booked = |rest: &str| format!("/api/video-consultations/A-1/{rest}");
    let (status, _) = world.post(&booked("start"), &service(), json!({"doctorId": "doc"})).await;
    assert_eq!(status, StatusCode::OK);
    let (status, found) = world.get(&booked("session"), &service()).await;
    assert_eq!(status, StatusCode::OK);
    assert_eq!(found["sessionId"], json!(session));
    assert!(found["meetingLink"].as_str().is_some_and(|link| link.contains("/visit#")));
    let end = json!({"userId": "doc", "role": "DOCTOR"});
    let (status, ended) = world.post(&booked("end"), &service(), end).await;
    assert_eq!(status, StatusCode::OK);
    assert_eq!(ended["status"], "COMPLETED");
    let (status, ended) =
        world.post("/api/video/consultation/end", &doctor(), json!({"appointmentId": "A-1"})).await;
    assert_eq!((status, &ended["status"]), (StatusCode::OK, &json!("COMPLETED")));
    let (status, _) = world.post(&booked("start"), &service(), json!({"doctorId": "doc"})).await;
    assert_eq!(status, StatusCode::CONFLICT);
}

#[tokio::test]
async fn lists_are_own_and_paged() {
    let world = World::new(Database::sqlite()).await;
    for appointment in ["A-1", "A-2", "A-3"] {
        let body = json!({"appointment_id": appointment, "doctor_id": "doc", "patient_id": "pat"});
        world.post(SESSIONS, &service(), body).await;
    }
    let other = json!({"appointment_id": "B", "doctor_id": "doc2", "patient_id": "pat"});
    world.post(SESSIONS, &service(), other).await;
    let count = async |path: &str, who: &str| {
        let (status, list) = world.get(&format!("{SESSIONS}{path}"), who).await;
        (status.as_u16(), list.as_array().map_or(0, Vec::len))
    };
    assert_eq!(count("/doctor/doc", &doctor()).await, (200, 3));
    assert_eq!(count("/doctor/doc?limit=2", &service()).await, (200, 2));
    assert_eq!(count("/patient/pat", &patient()).await, (200, 4));
    assert_eq!(count("/patient/pat", &doctor()).await, (200, 3));
    assert_eq!(count("/patient/pat?status=ENDED", &service()).await, (200, 0));
    assert_eq!(count("/patient/pat?status=created", &service()).await, (200, 4));
    assert_eq!(count("/doctor/doc", &token(ApiRole::Doctor, "doc2")).await, (403, 0));
    assert_eq!(count("/doctor/doc", &patient()).await, (403, 0));
    assert_eq!(count("/patient/else", &patient()).await, (403, 0));
    assert_eq!(count("/doctor/nobody", &service()).await, (200, 0));
    // The next page is one of the same list.
    let path = format!("{SESSIONS}/patient/pat?status=created&limit=3");
    let (_, headers, _) = world.text(&path, &service()).await;
    let link = headers["link"].to_str().expect("text").to_owned();
    let query = link.trim_start_matches('<').split('>').next().expect("a reference");
    assert!(query.contains("status=SCHEDULED"), "{link}");
    assert_eq!(count(&format!("/patient/pat{query}"), &service()).await, (200, 1));
    let north = token_of(ApiRole::Service, "backend", "north");
    assert_eq!(count("/doctor/doc", &north).await, (200, 0));
    for bad in ["?limit=0", "?limit=x", "?cursor=x", "?status=odd"] {
        assert_eq!(count(&format!("/doctor/doc{bad}"), &doctor()).await.0, 422, "{bad}");
    }
}

async fn history_is_paged_filtered_and_own(database: Database) {
    let world = World::new(database).await;
    for (appointment, doctor, when) in
        [("A-1", "doc", "2026-01-01"), ("A-2", "doc", "2026-01-02"), ("B-1", "doc2", "2026-01-03")]
    {
        let body = json!({"appointment_id": appointment, "doctor_id": doctor, "patient_id": "pat",
            "scheduled_time": format!("{when}T10:00:00Z")});
        let (_, session) = world.post(SESSIONS, &service(), body).await;
        let id = id_of(&session["session_id"]);
        world.post(&video(id, "/end"), &service(), Value::Null).await;
    }
    // Still to come: no history.
    let body = json!({"appointment_id": "C", "doctor_id": "doc", "patient_id": "pat"});
    world.post(SESSIONS, &service(), body).await;
    let history = "/api/v1/consultations/history";
    let found = async |query: &str, who: &str| {
        let (status, page) = world.get(&format!("{history}{query}"), who).await;
        assert_eq!(status, StatusCode::OK, "{query} {page}");
        let items = page["items"].as_array().expect("items").clone();
        let ids: Vec<String> =
            items.iter().map(|item| item["appointmentId"].as_str().unwrap_or("-").into()).collect();
        (ids, page["nextCursor"].as_str().map(str::to_owned))
    };
    assert_eq!(found("", &patient()).await.0, ["B-1", "A-2", "A-1"]);
    assert_eq!(found("", &doctor()).await.0, ["A-2", "A-1"]);
    assert_eq!(found("?doctorId=doc2", &patient()).await.0, ["B-1"]);
    assert_eq!(found("?from=2026-01-02T00:00:00Z", &doctor()).await.0, ["A-2"]);
    assert_eq!(found("?to=2026-01-02T10:00:00", &service()).await.0, ["A-1"]);
    assert_eq!(found("?status=CANCELLED", &service()).await.0, [""; 0]);
    assert_eq!(found("?mode=AUDIO", &service()).await.0, [""; 0]);
    assert_eq!(found("?status=SCHEDULED", &service()).await.0, ["C"]);
    let (first, next) = found("?limit=2", &service()).await;
    assert_eq!(first, ["B-1", "A-2"]);
    let (second, end) =
        found(&format!("?limit=2&cursor={}", next.expect("more")), &service()).await;
    assert_eq!((second, end), (vec!["A-1".to_owned()], None));
    for bad in ["?limit=0", "?from=soon", "?status=odd", "?mode=odd", "?cursor=x"] {
        let (status, _) = world.get(&format!("{history}{bad}"), &service()).await;
        assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY, "{bad}");
    }
    let (status, _) = world.get(&format!("{history}?patientId=else"), &patient()).await;
    assert_eq!(status, StatusCode::FORBIDDEN);

    let calls = async |query: &str, who: &str| {
        let (status, page) = world.get(&format!("/api/video/history{query}"), who).await;
        (status.as_u16(), page["calls"].as_array().map_or(0, Vec::len), page["total"].clone())
    };
    assert_eq!(calls("", &patient()).await, (200, 3, json!(3)));
    assert_eq!(calls("?userId=doc2", &service()).await, (200, 1, json!(1)));
    assert_eq!(calls("?userId=pat&limit=2&page=2", &service()).await, (200, 1, json!(3)));
    assert_eq!(calls("?userId=doc2", &doctor()).await.0, 403);
    assert_eq!(calls("?clinicId=north", &doctor()).await.0, 404);
    assert_eq!(calls("?clinicId=demo&page=0", &doctor()).await.0, 422);
}

async fn a_report_is_stored_with_its_event(database: Database) {
    let mut world = World::new(database).await;
    let control = Arc::get_mut(&mut world.plane.control).expect("nobody else has it yet");
    control.sinks = vec![Sink::Kafka];
    let session = booked(&world).await;
    let events = async || world.plane.control.db.backlog(&Sink::Kafka).await.expect("counted");
    let before = events().await;
    let body = json!({"issueType": "Audio", "description": "I hear myself twice."});
    for path in [
        path(session, "/report"),
        format!("/api/video/consultation/{session}/report"),
        "/api/video/consultation/A-1/report".to_owned(),
        "/appointments/A-1/video/report".to_owned(),
    ] {
        let (status, answer) = world.post(&path, &patient(), body.clone()).await;
        assert_eq!(status, StatusCode::ACCEPTED, "{path} {answer}");
        assert_eq!(answer["issueType"], "audio");
        assert_eq!(answer["userId"], "pat");
    }
    assert_eq!(events().await, before + 4);
    for (who, body, code) in [
        (patient(), json!({}), 422),
        (patient(), json!({"issueType": "smell"}), 422),
        (patient(), json!({"issueType": "audio", "description": "x".repeat(4_001)}), 422),
        (patient(), json!({"issueType": "audio", "userId": "doc"}), 403),
        (token(ApiRole::Patient, "else"), body.clone(), 403),
        (token_of(ApiRole::Service, "b", "north"), body.clone(), 404),
        (service(), json!({"issue_type": "video", "user_id": "doc"}), 202),
    ] {
        let (status, answer) = world.post(&path(session, "/report"), &who, body).await;
        assert_eq!(status.as_u16(), code, "{answer}");
    }
    let (status, list) = world.get(&path(session, "/reports"), &doctor()).await;
    assert_eq!(status, StatusCode::OK);
    let items = list["items"].as_array().expect("items");
    assert_eq!(items.len(), 5);
    assert_eq!((&items[0]["issueType"], &items[0]["userId"]), (&json!("video"), &json!("doc")));
    assert_eq!(items[4]["description"], "I hear myself twice.");
    assert_eq!(world.get(&path(session, "/reports"), &patient()).await.0, StatusCode::FORBIDDEN);
}

#[tokio::test]
async fn a_payment_opens_what_was_missing() {
    let world = World::with(Database::sqlite(), |config| config.payments.required = true).await;
    let verify = "/api/video-consultations/A-1/verify-payment";
    for (who, body, code) in [
        (doctor(), json!({"paymentId": "pay_123xyz"}), 403),
        (service(), json!({}), 422),
        (service(), json!({"paymentId": "pay_123xyz"}), 404),
        (service(), json!({"paymentId": "p", "appointmentId": "A-2"}), 404),
    ] {
        let (status, answer) = world.post(verify, &who, body).await;
        assert_eq!(status.as_u16(), code, "{answer}");
    }
    let body = json!({"payment_id": "pay_123xyz", "doctor_id": "doc", "patient_id": "pat"});
    let (status, paid) = world.post(verify, &service(), body.clone()).await;
    assert_eq!(status, StatusCode::CREATED, "{paid}");
    assert_eq!(paid["paymentStatus"], "COMPLETED");
    assert!(paid["meetingLink"].as_str().is_some_and(|link| link.contains("/visit#")));
    let (status, again) = world.post(verify, &service(), body).await;
    assert_eq!((status, &again["sessionId"]), (StatusCode::OK, &paid["sessionId"]));

    // Unpaid: the older contracts' doors answer 402 as well.
    let body = json!({"appointment_id": "B", "doctor_id": "doc", "patient_id": "pat"});
    let (_, unpaid) = world.post(SESSIONS, &service(), body).await;
    let join = video(id_of(&unpaid["session_id"]), "/join");
    let (status, problem) = world.post(&join, &patient(), Value::Null).await;
    assert_eq!((status.as_u16(), &problem["code"]), (402, &json!("payment_required")));
    assert_eq!(world.post(&join, &doctor(), Value::Null).await.0, StatusCode::OK);
}

#[tokio::test]
async fn a_picture_is_shared_and_nothing_else() {
    let world = World::new(Database::sqlite()).await;
    let session = booked(&world).await;
    world.post(&video(session, "/join"), &doctor(), Value::Null).await;
    let png = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg==";
    let share = "/api/video/image/share";
    let body = |data: &str| json!({"callId": session, "imageData": {"data": data}});
    let (status, shared) = world.post(share, &doctor(), body(png)).await;
    assert_eq!(status, StatusCode::CREATED, "{shared}");
    assert_eq!(shared["message"]["messageType"], "image");
    let url = format!("data:image/png;base64,{png}");
    let by_service = json!({"appointmentId": "A-1", "userId": "doc", "imageData": {"data": url}});
    assert_eq!(world.post(share, &service(), by_service).await.0, StatusCode::CREATED);
    for (who, body, code) in [
        (doctor(), body("bm8gcGljdHVyZSBhdCBhbGwsIG5vdCBldmVuIGEgbGl0dGxl"), 415),
        (doctor(), body("!!"), 422),
        (doctor(), json!({"callId": session}), 422),
        // Not let in: nothing to share with anybody.
        (patient(), body(png), 403),
        (token(ApiRole::Patient, "else"), body(png), 403),
        (token_of(ApiRole::Service, "b", "north"), body(png), 404),
    ] {
        let (status, answer) = world.post(share, &who, body).await;
        assert_eq!(status.as_u16(), code, "{answer}");
    }
    let form = |bytes: &[u8]| {
        let mut form = format!(
            "--x\r\ncontent-disposition: form-data; name=\"sessionId\"\r\n\r\n{session}\r\n--x\r\n\
             content-disposition: form-data; name=\"image\"; filename=\"a.png\"\r\n\r\n"
        )
        .into_bytes();
        form.extend_from_slice(bytes);
        form.extend_from_slice(b"\r\n--x--\r\n");
        Request::post(share)
            .header("authorization", format!("Bearer {}", doctor()))
            .header("content-type", "multipart/form-data; boundary=x")
            .body(Body::from(form))
            .expect("a request")
    };
    let picture = base64::Engine::decode(&base64::engine::general_purpose::STANDARD, png);
    let picture = picture.expect("the picture above");
    let router = world.plane.router();
    let answer = router.clone().oneshot(form(&picture)).await.expect("an answer");
    assert_eq!(answer.status(), StatusCode::CREATED);
    let large = vec![0; 40_000_000];
    let answer = router.oneshot(form(&large)).await.expect("an answer");
    assert_eq!(answer.status(), StatusCode::PAYLOAD_TOO_LARGE);
}

#[tokio::test]
async fn a_token_is_told() {
    let mut world = World::new(Database::sqlite()).await;
    let control = Arc::get_mut(&mut world.plane.control).expect("nobody else has it yet");
    control.sinks = vec![Sink::Kafka];
    let session = booked(&world).await;
    world.post(&video(session, "/join"), &doctor(), Value::Null).await;
    world.post(&path(session, "/join"), &doctor(), Value::Null).await;
    world.post(&path(session, "/join"), &patient(), Value::Null).await;
    // Told apart from the join itself: it takes a moment.
    let mut told = Vec::new();
    for _ in 0..100 {
        let now = crate::store::now() + chrono::Duration::seconds(1);
        let unsent = world.plane.control.db.unsent(&Sink::Kafka, now, 8, 100).await.expect("read");
        told = unsent.into_iter().map(|unsent| unsent.event.news).collect();
        told.retain(|news| matches!(news, News::TokenGenerated { .. }));
        if told.len() == 2 {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    let doctor = News::TokenGenerated { user_id: "doc".to_owned(), role: PersonRole::Doctor };
    assert_eq!(told, [doctor.clone(), doctor], "the waiting patient has none");
}

#[tokio::test]
async fn a_summary_adds_up_a_consultation() {
    let world = World::new(Database::sqlite()).await;
    let session = world.session().await;
    let (status, summary) = world.get(&path(session, "/summary"), &patient()).await;
    assert_eq!(status, StatusCode::OK);
    assert_eq!(summary["doctorName"], "Dr. Osei");
    assert_eq!(summary["specialization"], Value::Null);
    assert_eq!(summary["scheduledDuration"], 15);
    assert_eq!(summary["actualDuration"], Value::Null);
    assert_eq!(summary["chatMessageCount"], 0);
    assert_eq!(summary["feedbackSubmitted"], false);
    world.post(&path(session, "/end"), &doctor(), Value::Null).await;
    let (_, summary) = world.get(&path(session, "/summary"), &doctor()).await;
    assert_eq!((&summary["status"], &summary["actualDuration"]), (&json!("COMPLETED"), &json!(0)));
    let other = token(ApiRole::Patient, "else");
    assert_eq!(world.get(&path(session, "/summary"), &other).await.0, StatusCode::FORBIDDEN);
}

#[tokio::test]
async fn video_switched_off_answers_503() {
    let world = World::with(Database::sqlite(), |config| config.video_enabled = false).await;
    for (path, body) in [
        (SESSIONS, json!({"doctor_id": "doc", "patient_id": "pat"})),
        ("/api/video/token", json!({"appointmentId": "A-1"})),
        ("/appointments/A-1/video/token", json!({})),
        ("/api/video-consultations/A-1/start", json!({})),
        ("/api/v1/consultations/sessions", json!({"consultationMode": "VIDEO"})),
    ] {
        let (status, problem) = world.post(path, &service(), body).await;
        assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE, "{path}");
        assert_eq!(problem["code"], "video_disabled");
    }
    let (status, providers) = world.get("/api/video/providers/status", &service()).await;
    assert_eq!((status, &providers["enabled"]), (StatusCode::OK, &json!(false)));
}

#[tokio::test]
async fn providers_are_ours_and_nobody_elses() {
    let world = World::new(Database::sqlite()).await;
    world.plane.watch_media(|| false);
    let (status, answer) = world.get("/api/video/providers/status", &patient()).await;
    assert_eq!(status, StatusCode::OK);
    assert_eq!(answer["currentProvider"], "own");
    assert_eq!(answer["fallbackProvider"], Value::Null);
    let others = answer["providers"].as_array().expect("providers");
    let configured: Vec<&Value> =
        others.iter().filter(|one| one["status"] != "not_configured").collect();
    assert_eq!(configured.len(), 1);
    // Where the media node is down nothing is healthy, and health says so without a token.
    assert_eq!(configured[0]["status"], "unhealthy");
    for path in ["/health", "/api/video/health", "/actuator/health"] {
        let request = Request::get(path).body(Body::empty()).expect("a request");
        let answer = world.plane.router().oneshot(request).await.expect("an answer");
        assert_eq!(answer.status(), StatusCode::SERVICE_UNAVAILABLE, "{path}");
    }
}
