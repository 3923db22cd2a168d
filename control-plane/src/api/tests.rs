//! The API from outside: one router, both stores, every role.

use axum::http::{Method, Request, StatusCode};
use bedside_signaling::rooms::{DoorRefusal, RoomPlan};
use bedside_signaling::token::{RoomToken, VideoGrant};
use serde_json::{Value, json};
use tower::ServiceExt as _;
use uuid::Uuid;

use crate::testing::{
    Database, World, doctor, id_of, keys, on_both_databases, path, patient, service, token,
    token_of,
};
use crate::token::ApiRole;
use crate::{ControlPlane, Private};

const SESSIONS: &str = "/api/v1/consultations/sessions";

on_both_databases!(
    a_visit_from_link_to_end,
    a_call_is_paused_resumed_and_left,
    create_checks_every_field,
    create_is_idempotent_per_appointment,
    every_endpoint_knows_its_roles,
    the_mode_decides_what_may_be_published,
    another_clinic_does_not_exist,
    nobody_enters_without_being_let_in,
    guests_need_a_place,
    a_link_opens_one_consultation_until_it_is_revoked,
    lists_are_paged_and_own,
    chat_history_is_paged_and_only_for_those_inside,
    a_restart_forgets_nothing,
    two_creates_at_once_make_one,
);

/// What the door says to an identity in a consultation's room.
async fn door(plane: &ControlPlane, room: &str, identity: &str) -> Result<RoomPlan, DoorRefusal> {
    let token = RoomToken {
        identity: Private::new(identity.to_owned()),
        grant: VideoGrant::join(room),
        ..RoomToken::default()
    };
    let now = std::time::SystemTime::now();
    let minute = std::time::Duration::from_secs(60);
    let jwt = bedside_signaling::token::issue(&keys()[0], &token, minute, now);
    let claims = bedside_signaling::token::verify(&keys(), &jwt, now).expect("a room token");
    plane.doorkeeper().room(&claims).await
}

async fn admit(world: &World, id: Uuid, user_id: &str) -> StatusCode {
    world.post(&path(id, "/admit"), &doctor(), json!({"userId": user_id})).await.0
}

async fn link(world: &World, id: Uuid, role: &str, user_id: &str) -> (String, String) {
    let body = json!({"userId": user_id, "role": role, "name": "Given Name"});
    let (status, made) = world.post(&path(id, "/links"), &service(), body).await;
    assert_eq!(status, StatusCode::CREATED, "{made}");
    let url = made["link"].as_str().expect("a URL");
    let (page, secret) = url.split_once('#').expect("a fragment");
    let expected = if role == "doctor" { "doctor" } else { "visit" };
    assert_eq!(page, format!("https://clinic.example/{expected}"));
    assert!(secret.len() >= 43);
    (secret.to_owned(), made["linkId"].as_str().expect("an id").to_owned())
}

async fn exchange(world: &World, secret: &str) -> (StatusCode, Value) {
    let body = json!({"link": secret});
    world.call(Method::POST, "/api/v1/links/exchange", None, body).await
}

async fn a_visit_from_link_to_end(database: Database) {
    let world = World::new(database).await;
    let id = world.session().await;
    let (secret, _) = link(&world, id, "patient", "pat").await;
    let (status, exchanged) = exchange(&world, &secret).await;
    assert_eq!(status, StatusCode::OK);
    assert_eq!(exchanged["role"], "patient");
    assert_eq!(exchanged["userId"], "pat");
    assert_eq!(exchanged["name"], "Given Name");
    assert_eq!(exchanged["clinic"], "demo");
    assert_eq!(id_of(&exchanged["sessionId"]), id);
    let me = exchanged["token"].as_str().expect("a token").to_owned();

    let (status, waiting) = world.post(&path(id, "/join"), &me, Value::Null).await;
    assert_eq!(status, StatusCode::ACCEPTED);
    assert_eq!(waiting["status"], "WAITING");
    assert_eq!(waiting["position"], 1);
    let channel = format!("wss://clinic.example{}", path(id, "/channel"));
    assert_eq!(waiting["channelUrl"], channel);
    let (_, seen) = world.get(&path(id, ""), &doctor()).await;
    assert_eq!(seen["status"], "WAITING");
    assert_eq!(seen["waiting"][0]["userId"], "pat");
    assert_eq!(seen["waiting"][0]["name"], "Given Name");

    let (status, room) = world.post(&path(id, "/join"), &doctor(), json!({})).await;
    assert_eq!((status, &room["participantType"]), (StatusCode::OK, &json!("DOCTOR")));
    assert_eq!(admit(&world, id, "pat").await, StatusCode::OK);
    assert_eq!(admit(&world, id, "pat").await, StatusCode::OK, "again");
    let (status, room) = world.post(&path(id, "/join"), &me, Value::Null).await;
    assert_eq!(status, StatusCode::OK);
    assert_eq!(room["participantType"], "PATIENT");
    assert_eq!(room["identity"], "pat");
    assert_eq!(room["url"], "wss://clinic.example");
    assert_eq!(room["provider"], "own");
    assert_eq!(room["iceServers"], json!([]));
    assert!(room["tokenExpiresAt"].is_string());
    let jwt = room["accessToken"].as_str().expect("a token");
    let now = std::time::SystemTime::now();
    let claims = bedside_signaling::token::verify(&keys(), jwt, now).expect("a room token");
    assert_eq!((claims.room(), claims.identity()), (room["roomName"].as_str().unwrap(), "pat"));
    assert_eq!(claims.token.name.reveal(), "Given Name");

    let (_, begun) = world.get(&path(id, ""), &me).await;
    assert_eq!(begun["status"], "IN_PROGRESS");
    assert!(begun["actualStartTime"].is_string());
    let end = json!({"reason": "done"});
    let (status, ended) = world.post(&path(id, "/end"), &doctor(), end).await;
    assert_eq!(status, StatusCode::OK);
    assert_eq!((&ended["status"], &ended["endReason"]), (&json!("COMPLETED"), &json!("done")));
    assert!(ended["totalDurationSeconds"].is_number());
    assert_eq!(world.plane.control.rooms.asked.lock().unwrap().as_slice(), ["close"]);
    let (status, _) = world.post(&path(id, "/end"), &doctor(), Value::Null).await;
    assert_eq!(status, StatusCode::OK, "again");
    let (status, over) = world.post(&path(id, "/join"), &me, Value::Null).await;
    assert_eq!((status, &over["code"]), (StatusCode::CONFLICT, &json!("session_over")));
    // Whoever looks back within a quarter of an hour may.
    assert_eq!(world.get(&path(id, ""), &me).await.0, StatusCode::OK);
    assert_eq!(exchange(&world, &secret).await.0, StatusCode::OK);
}

async fn the_mode_decides_what_may_be_published(database: Database) {
    let world = World::new(database).await;
    for (mode, publish, sources) in [
        ("VIDEO", None, vec![]),
        ("AUDIO", None, vec!["microphone"]),
        ("CHAT", Some(false), vec![]),
    ] {
        let body = json!({"doctorId": "doc", "patientId": "pat", "consultationMode": mode});
        let (_, made) = world.post("/api/v1/consultations/sessions", &service(), body).await;
        let id = id_of(&made["sessionId"]);
        let (status, room) = world.post(&path(id, "/join"), &doctor(), json!({})).await;
        assert_eq!(status, StatusCode::OK, "{room}");
        let now = std::time::SystemTime::now();
        let jwt = room["accessToken"].as_str().expect("a token");
        let claims = bedside_signaling::token::verify(&keys(), jwt, now).expect("a room token");
        let grant = &claims.token.grant;
        assert_eq!(
            (grant.can_publish, &grant.can_publish_sources),
            (publish, &sources.iter().map(ToString::to_string).collect()),
            "{mode}"
        );
    }
}

async fn a_call_is_paused_resumed_and_left(database: Database) {
    let world = World::new(database).await;
    let id = world.session().await;
    let (early, _) = world.post(&path(id, "/pause"), &doctor(), Value::Null).await;
    assert_eq!(early, StatusCode::CONFLICT, "it has not begun");
    world.post(&path(id, "/join"), &patient(), Value::Null).await;
    assert_eq!(admit(&world, id, "pat").await, StatusCode::OK);
    for (step, expected) in [("/pause", "PAUSED"), ("/resume", "IN_PROGRESS")] {
        let (status, session) = world.post(&path(id, step), &doctor(), Value::Null).await;
        assert_eq!((status, &session["status"]), (StatusCode::OK, &json!(expected)));
    }
    let (status, _) = world.post(&path(id, "/leave"), &patient(), Value::Null).await;
    assert_eq!(status, StatusCode::OK);
    let (_, seen) = world.get(&path(id, ""), &doctor()).await;
    assert_eq!(
        (&seen["status"], &seen["participants"][0]["status"]),
        (&json!("IN_PROGRESS"), &json!("left"))
    );
    // Leaving is not ending: the admission holds.
    let (status, _) = world.post(&path(id, "/join"), &patient(), Value::Null).await;
    assert_eq!(status, StatusCode::OK);
}

async fn create_checks_every_field(database: Database) {
    let world = World::new(database).await;
    let good = json!({"doctorId": "doc", "patientId": "pat", "consultationMode": "AUDIO"});
    let (status, made) = world.post(SESSIONS, &service(), good.clone()).await;
    assert_eq!(status, StatusCode::CREATED);
    assert_eq!(made["scheduledDurationMinutes"], 15);
    assert_eq!(made["maxParticipants"], 2);
    assert_eq!(made["appointmentId"], Value::Null);
    assert!(made["scheduledStartTime"].is_string());
    let room = made["roomName"].as_str().expect("a room");
    assert!(room.len() > 32 && room.len() <= 100);
    let with = |name: &str, value: Value| {
        let mut body = good.clone();
        body[name] = value;
        body
    };
    for body in [
        json!({}),
        json!({"consultationMode": "VIDEO"}),
        json!({"consultationMode": "VIDEO", "appointmentId": "unknown"}),
        json!({"consultationMode": "VIDEO", "doctorId": "doc"}),
        json!({"consultationMode": "VIDEO", "patientId": "pat"}),
        with("consultationMode", json!("smoke signals")),
        with("consultationMode", json!(null)),
        with("scheduledDurationMinutes", json!(0)),
        with("scheduledDurationMinutes", json!(121)),
        with("scheduledDurationMinutes", json!("15")),
        with("scheduledStartTime", json!("tomorrow")),
        with("maxParticipants", json!(1)),
        with("maxParticipants", json!(17)),
        with("doctorId", json!("")),
        with("doctorId", json!("pat")),
        with("patientId", json!("x".repeat(256))),
        with("patientId", json!("a\u{0}b")),
        with("patientName", json!("\u{1b}[2J")),
        with("appointmentId", json!("")),
        with("appointmentId", json!(7.5)),
        with("appointmentId", json!(true)),
        json!([]),
        json!("text"),
    ] {
        let (status, problem) = world.post(SESSIONS, &service(), body.clone()).await;
        assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY, "{body}");
        assert_eq!(problem["status"], 422);
        assert!(problem["detail"].as_str().is_some_and(|detail| detail.len() > 10));
    }
    let longest = with("scheduledDurationMinutes", json!(120));
    assert_eq!(world.post(SESSIONS, &service(), longest).await.0, StatusCode::CREATED);
    let late = with("scheduledStartTime", json!("2027-03-01T10:30:00+02:00"));
    let (_, made) = world.post(SESSIONS, &service(), late).await;
    assert_eq!(made["scheduledStartTime"], "2027-03-01T08:30:00.000Z");
}

async fn create_is_idempotent_per_appointment(database: Database) {
    let world = World::new(database).await;
    let body = json!({"appointmentId": "a-1", "doctorId": "doc", "patientId": "pat",
        "consultationMode": "VIDEO"});
    let (status, first) = world.post(SESSIONS, &service(), body).await;
    assert_eq!(status, StatusCode::CREATED);
    assert!(first["sessionId"].is_string() && first["roomName"].is_string());
    assert_eq!(
        [&first["appointmentId"], &first["status"], &first["consultationMode"]],
        ["a-1", "SCHEDULED", "VIDEO"]
    );
    let known = json!({"appointmentId": "a-1", "consultationMode": "VIDEO"});
    let (status, second) = world.post(SESSIONS, &service(), known.clone()).await;
    assert_eq!((status, &second), (StatusCode::OK, &first));
    let (status, _) = world.post(SESSIONS, &token(ApiRole::Doctor, "other"), known.clone()).await;
    assert_eq!(status, StatusCode::FORBIDDEN);
    let elsewhere = token_of(ApiRole::Service, "backend", "south");
    let (status, _) = world.post(SESSIONS, &elsewhere, known).await;
    assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY);
}

async fn two_creates_at_once_make_one(database: Database) {
    let world = World::new(database).await;
    let body = json!({"appointmentId": "a-1", "doctorId": "doc", "patientId": "pat",
        "consultationMode": "VIDEO"});
    let creator = service();
    let creates = (0..8).map(|_| world.post(SESSIONS, &creator, body.clone()));
    let answers = futures_util::future::join_all(creates).await;
    let made = answers.iter().filter(|(status, _)| *status == StatusCode::CREATED).count();
    assert_eq!(made, 1);
    assert!(answers.iter().all(|(_, session)| session["sessionId"] == answers[0].1["sessionId"]));
}

async fn every_endpoint_knows_its_roles(database: Database) {
    let world = World::new(database).await;
    let other_doctor = token(ApiRole::Doctor, "other");
    let other_patient = token(ApiRole::Patient, "other");
    let admin = token(ApiRole::Admin, "boss");
    // Which callers are let through, for each path: doctor, patient, service, admin.
    let steps: [(&str, Value, [bool; 4]); 14] = [
        ("/join", json!({"userId": "pat"}), [false, true, true, true]),
        ("/admit", json!({"userId": "pat"}), [true, false, true, true]),
        ("/send-back", json!({"userId": "pat"}), [true, false, true, true]),
        ("/admit", json!({"userId": "pat"}), [true, false, true, true]),
        ("/start", Value::Null, [true, false, true, true]),
        ("/pause", Value::Null, [true, false, true, true]),
        ("/resume", Value::Null, [true, false, true, true]),
        ("/leave", json!({"userId": "pat"}), [false, true, true, true]),
        ("/links", json!({"userId": "pat", "role": "patient"}), [true, false, true, true]),
        ("/end", Value::Null, [true, false, true, true]),
        ("/reopen", Value::Null, [true, false, true, true]),
        ("/cancel", Value::Null, [true, false, true, true]),
        ("/no-show", Value::Null, [true, false, true, true]),
        ("/end", json!({"reason": "x"}), [true, false, true, true]),
    ];
    let id = world.session().await;
    for (rest, body, allowed) in steps {
        let path = path(id, rest);
        let (status, _) = world.call(Method::POST, &path, None, body.clone()).await;
        assert_eq!(status, StatusCode::UNAUTHORIZED, "{rest}");
        for foreign in [&other_doctor, &other_patient] {
            let (status, _) = world.post(&path, foreign, body.clone()).await;
            assert_eq!(status, StatusCode::FORBIDDEN, "{rest}");
        }
        let callers = [doctor(), patient(), service(), admin.clone()];
        for (caller, allowed) in callers.iter().zip(allowed) {
            let (status, answer) = world.post(&path, caller, body.clone()).await;
            assert_eq!(status == StatusCode::FORBIDDEN, !allowed, "{rest}: {status} {answer}");
            assert!(!status.is_server_error());
        }
    }
    for rest in ["", "/chat"] {
        let path = path(id, rest);
        for foreign in [&other_doctor, &other_patient] {
            assert_eq!(world.get(&path, foreign).await.0, StatusCode::FORBIDDEN);
        }
        for known in [doctor(), patient(), service(), admin.clone()] {
            assert_eq!(world.get(&path, &known).await.0, StatusCode::OK, "{rest}");
        }
        let (status, _) = world.call(Method::GET, &path, None, Value::Null).await;
        assert_eq!(status, StatusCode::UNAUTHORIZED);
    }
    let own = json!({"doctorId": "doc", "patientId": "pat", "consultationMode": "CHAT"});
    assert_eq!(world.post(SESSIONS, &doctor(), own.clone()).await.0, StatusCode::CREATED);
    for refused in [&patient(), &other_doctor] {
        assert_eq!(world.post(SESSIONS, refused, own.clone()).await.0, StatusCode::FORBIDDEN);
    }
}

async fn another_clinic_does_not_exist(database: Database) {
    let world = World::new(database).await;
    let id = world.session().await;
    let (_, link_id) = link(&world, id, "patient", "pat").await;
    for role in [ApiRole::Doctor, ApiRole::Patient, ApiRole::Service, ApiRole::Admin] {
        // The same user ids in another clinic are other people.
        let user = if role == ApiRole::Doctor { "doc" } else { "pat" };
        let foreign = token_of(role, user, "south");
        assert_eq!(world.get(&path(id, ""), &foreign).await.0, StatusCode::NOT_FOUND);
        assert_eq!(world.get(&path(id, "/chat"), &foreign).await.0, StatusCode::NOT_FOUND);
        assert_eq!(world.get(&path(id, "/events"), &foreign).await.0, StatusCode::NOT_FOUND);
        let steps = ["/join", "/admit", "/send-back", "/leave", "/start", "/end", "/reopen"];
        for rest in steps.into_iter().chain(["/pause", "/links"]) {
            let body = json!({"userId": "pat", "role": "patient"});
            let (status, _) = world.post(&path(id, rest), &foreign, body).await;
            assert_eq!(status, StatusCode::NOT_FOUND, "{rest}");
        }
        let (_, list) = world.get(SESSIONS, &foreign).await;
        assert_eq!(list["items"], json!([]));
        let revoke = format!("/api/v1/links/{link_id}");
        let (status, _) = world.call(Method::DELETE, &revoke, Some(&foreign), Value::Null).await;
        assert_eq!(status, StatusCode::NOT_FOUND);
    }
    for strange in ["00000000-0000-0000-0000-000000000000", "1", "..%2f", "a%00b"] {
        let path = format!("{SESSIONS}/{strange}");
        assert_eq!(world.get(&path, &service()).await.0, StatusCode::NOT_FOUND, "{strange}");
    }
}

async fn nobody_enters_without_being_let_in(database: Database) {
    let world = World::new(database).await;
    let id = world.session().await;
    let (_, session) = world.get(&path(id, ""), &service()).await;
    let room = session["roomName"].as_str().expect("a room").to_owned();
    let door = |identity: &'static str| door(&world.plane, &room, identity);
    // A room token that somebody signed early, or with a stolen key, does not open the door.
    for identity in ["pat", "doc", "stranger"] {
        assert_eq!(door(identity).await, Err(DoorRefusal::NotAllowed));
    }
    let (status, answer) = world.post(&path(id, "/join"), &patient(), Value::Null).await;
    assert_eq!(status, StatusCode::ACCEPTED);
    assert_eq!(answer.get("accessToken"), None);
    assert_eq!(door("pat").await, Err(DoorRefusal::NotAllowed));
    world.post(&path(id, "/join"), &doctor(), Value::Null).await;
    assert_eq!(door("doc").await.map(|plan| plan.max_participants), Ok(2));
    assert_eq!(admit(&world, id, "nobody").await, StatusCode::CONFLICT);
    assert_eq!(admit(&world, id, "pat").await, StatusCode::OK);
    assert!(door("pat").await.is_ok());
    assert_eq!(door("stranger").await, Err(DoorRefusal::NotAllowed));

    let back = json!({"userId": "pat"});
    let (status, _) = world.post(&path(id, "/send-back"), &doctor(), back).await;
    assert_eq!(status, StatusCode::OK);
    assert_eq!(door("pat").await, Err(DoorRefusal::NotAllowed));
    assert_eq!(world.plane.control.rooms.asked.lock().unwrap().as_slice(), ["remove pat"]);
    let (status, _) = world.post(&path(id, "/join"), &patient(), Value::Null).await;
    assert_eq!(status, StatusCode::ACCEPTED, "it waits again");
    admit(&world, id, "pat").await;
    world.post(&path(id, "/end"), &doctor(), Value::Null).await;
    for identity in ["pat", "doc"] {
        assert_eq!(door(identity).await, Err(DoorRefusal::NotAllowed));
    }
    // A room that is no consultation exists only where the configuration says so.
    assert_eq!(super::tests::door(&world.plane, "lobby", "x").await, Err(DoorRefusal::NoRoom));
    let unknown = "consultation-00000000000000000000000000000000";
    assert_eq!(super::tests::door(&world.plane, unknown, "x").await, Err(DoorRefusal::NoRoom));
    let open = World::with(Database::sqlite(), |config| config.auto_create = true).await;
    let plan = super::tests::door(&open.plane, "lobby", "x").await.expect("made");
    assert_eq!(plan.max_participants, 0);
    assert_eq!(super::tests::door(&open.plane, unknown, "x").await, Err(DoorRefusal::NoRoom));
}

async fn guests_need_a_place(database: Database) {
    let world = World::new(database).await;
    let small = world.session().await;
    let body = json!({"userId": "aunt", "role": "guest"});
    let (status, problem) = world.post(&path(small, "/links"), &doctor(), body).await;
    assert_eq!((status, &problem["code"]), (StatusCode::CONFLICT, &json!("full")));
    let join = json!({"userId": "aunt"});
    let (status, _) = world.post(&path(small, "/join"), &service(), join.clone()).await;
    assert_eq!(status, StatusCode::CONFLICT);
    let wrong = json!({"userId": "pat", "role": "guest"});
    let (status, _) = world.post(&path(small, "/links"), &doctor(), wrong).await;
    assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY);

    let id = world.session_for(3).await;
    let (secret, _) = link(&world, id, "guest", "aunt").await;
    link(&world, id, "guest", "aunt").await;
    let another = json!({"userId": "uncle", "role": "guest"});
    let (status, _) = world.post(&path(id, "/links"), &doctor(), another).await;
    assert_eq!(status, StatusCode::CONFLICT);
    let (_, exchanged) = exchange(&world, &secret).await;
    assert_eq!(exchanged["role"], "guest");
    let aunt = exchanged["token"].as_str().expect("a token").to_owned();
    let (status, _) = world.post(&path(id, "/join"), &aunt, Value::Null).await;
    assert_eq!(status, StatusCode::ACCEPTED);
    // One outside sees itself and the doctor, not who else is there.
    world.post(&path(id, "/join"), &patient(), Value::Null).await;
    let (_, seen) = world.get(&path(id, ""), &aunt).await;
    assert_eq!(seen["participants"].as_array().map(Vec::len), Some(1));
    assert_eq!(seen["waiting"][0]["userId"], "aunt");
    assert_eq!(world.get(&path(id, "/chat"), &aunt).await.0, StatusCode::FORBIDDEN);
    assert_eq!(world.get(&path(small, ""), &aunt).await.0, StatusCode::FORBIDDEN);
    for person in ["aunt", "pat"] {
        assert_eq!(admit(&world, id, person).await, StatusCode::OK);
    }
    let (status, room) = world.post(&path(id, "/join"), &aunt, Value::Null).await;
    assert_eq!((status, &room["participantType"]), (StatusCode::OK, &json!("GUEST")));
    let (_, seen) = world.get(&path(id, ""), &aunt).await;
    assert_eq!(seen["participants"].as_array().map(Vec::len), Some(2));
    // A fourth person of the service finds no place.
    world.post(&path(id, "/join"), &service(), json!({"userId": "uncle"})).await;
    assert_eq!(admit(&world, id, "uncle").await, StatusCode::CONFLICT);
}

async fn a_link_opens_one_consultation_until_it_is_revoked(database: Database) {
    let world = World::new(database).await;
    let id = world.session().await;
    let other = world.session().await;
    let (secret, link_id) = link(&world, id, "patient", "pat").await;
    let (_, exchanged) = exchange(&world, &secret).await;
    let me = exchanged["token"].as_str().expect("a token").to_owned();
    assert_eq!(world.get(&path(id, ""), &me).await.0, StatusCode::OK);
    assert_eq!(world.get(&path(other, ""), &me).await.0, StatusCode::FORBIDDEN);
    let (_, list) = world.get(SESSIONS, &me).await;
    assert_eq!(list["items"].as_array().map(Vec::len), Some(1));
    // A second device may use the same link.
    assert_eq!(exchange(&world, &secret).await.0, StatusCode::OK);
    for wrong in ["", "x", &"A".repeat(43), &"A".repeat(5_000)] {
        assert_eq!(exchange(&world, wrong).await.0, StatusCode::NOT_FOUND);
    }
    world.post(&path(id, "/join"), &me, Value::Null).await;
    admit(&world, id, "pat").await;
    let revoke = format!("/api/v1/links/{link_id}");
    let refused = [patient(), token(ApiRole::Doctor, "other"), me.clone()];
    for caller in &refused {
        let (status, _) = world.call(Method::DELETE, &revoke, Some(caller), Value::Null).await;
        assert_eq!(status, StatusCode::FORBIDDEN);
    }
    let (status, _) = world.call(Method::DELETE, &revoke, Some(&doctor()), Value::Null).await;
    assert_eq!(status, StatusCode::NO_CONTENT);
    assert_eq!(exchange(&world, &secret).await.0, StatusCode::GONE);
    assert_eq!(world.get(&path(id, ""), &me).await.0, StatusCode::UNAUTHORIZED);
    assert_eq!(world.plane.control.rooms.asked.lock().unwrap().as_slice(), ["remove pat"]);
    let (_, seen) = world.get(&path(id, ""), &doctor()).await;
    assert_eq!(seen["participants"][0]["status"], "left");
    // The doctor's link opens the doctor's own day.
    let (secret, link_id) = link(&world, id, "doctor", "doc").await;
    let (_, exchanged) = exchange(&world, &secret).await;
    assert_eq!(exchanged["sessionId"], Value::Null);
    let day = exchanged["token"].as_str().expect("a token").to_owned();
    for session in [id, other] {
        assert_eq!(world.get(&path(session, ""), &day).await.0, StatusCode::OK);
    }
    world.post(&path(id, "/join"), &day, Value::Null).await;
    let revoke = format!("/api/v1/links/{link_id}");
    let (status, _) = world.call(Method::DELETE, &revoke, Some(&day), Value::Null).await;
    assert_eq!(status, StatusCode::NO_CONTENT);
    assert_eq!(world.get(&path(id, ""), &day).await.0, StatusCode::UNAUTHORIZED);
    let asked = world.plane.control.rooms.asked.lock().unwrap().clone();
    assert_eq!(asked, ["remove pat", "remove doc"]);
}

async fn lists_are_paged_and_own(database: Database) {
    let world = World::new(database).await;
    for minute in 10..15 {
        let start = format!("2027-01-01T10:{minute}:00Z");
        let body = json!({"doctorId": "doc", "patientId": "pat", "consultationMode": "VIDEO",
            "scheduledStartTime": start});
        world.post(SESSIONS, &service(), body).await;
    }
    let theirs = json!({"doctorId": "other", "patientId": "else", "consultationMode": "VIDEO"});
    world.post(SESSIONS, &service(), theirs).await;
    let count = |list: &Value| list["items"].as_array().map_or(0, Vec::len);
    for (caller, expected) in [(doctor(), 5), (patient(), 5), (service(), 6)] {
        let (_, list) = world.get(SESSIONS, &caller).await;
        assert_eq!((count(&list), &list["nextCursor"]), (expected, &Value::Null));
    }
    let mut seen = Vec::new();
    let mut cursor = String::new();
    loop {
        let page = format!("{SESSIONS}?limit=2&status=SCHEDULED{cursor}");
        let (status, list) = world.get(&page, &doctor()).await;
        assert_eq!(status, StatusCode::OK);
        seen.extend(list["items"].as_array().expect("a list").clone());
        let Some(next) = list["nextCursor"].as_str() else { break };
        cursor = format!("&cursor={next}");
    }
    let starts: Vec<_> = seen.iter().map(|s| s["scheduledStartTime"].clone()).collect();
    assert_eq!(starts.len(), 5);
    assert_eq!(
        (&starts[0], &starts[4]),
        (&json!("2027-01-01T10:14:00.000Z"), &json!("2027-01-01T10:10:00.000Z"),)
    );
    let bad = ["?limit=0", "?limit=201", "?limit=x", "?status=odd", "?cursor=x", "?cursor="];
    for query in bad {
        let (status, _) = world.get(&format!("{SESSIONS}{query}"), &doctor()).await;
        assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY, "{query}");
    }
}

async fn chat_history_is_paged_and_only_for_those_inside(database: Database) {
    let world = World::new(database).await;
    let id = world.session().await;
    let control = &world.plane.control;
    let say = |user: &'static str, text: String| async move {
        let message = crate::frames::ChatText {
            session_id: None,
            content: text,
            message_type: None,
            client_id: None,
        };
        control.post("demo", id, user, None, &message).await.is_ok()
    };
    world.post(&path(id, "/join"), &patient(), Value::Null).await;
    assert!(!say("pat", "may I?".to_owned()).await, "it waits");
    assert_eq!(world.get(&path(id, "/chat"), &patient()).await.0, StatusCode::FORBIDDEN);
    assert!(say("doc", "0".to_owned()).await);
    admit(&world, id, "pat").await;
    for number in 1..5 {
        assert!(say("pat", number.to_string()).await);
    }
    assert!(say("doc", "x".repeat(4_000)).await);
    for bad in [String::new(), " \n".to_owned(), "x".repeat(4_001), "a\u{0}b".to_owned()] {
        assert!(!say("doc", bad).await);
    }
    assert!(!say("stranger", "hi".to_owned()).await);
    let (_, newest) = world.get(&path(id, "/chat?limit=2"), &patient()).await;
    assert_eq!(newest["items"][0]["content"], "4");
    assert_eq!(newest["items"][0]["senderType"], "patient");
    assert_eq!(newest["items"][1]["senderName"], "Dr. Osei");
    let before = newest["nextCursor"].as_str().expect("there are older ones");
    let (_, older) = world.get(&path(id, &format!("/chat?before={before}")), &doctor()).await;
    let contents: Vec<_> =
        older["items"].as_array().unwrap().iter().map(|m| &m["content"]).collect();
    assert_eq!(contents, ["0", "Ms. Lindqvist was let in.", "1", "2", "3"]);
    assert_eq!(older["items"][1]["messageType"], "system");
    assert_eq!(older["items"][1]["event"], "admitted");
    assert_eq!(older["nextCursor"], Value::Null);
    world.post(&path(id, "/end"), &doctor(), Value::Null).await;
    assert!(!say("doc", "too late".to_owned()).await);
    control.chat.flush().await;
    let (_, after) = world.get(&path(id, "/chat"), &patient()).await;
    assert_eq!(after["items"].as_array().map(Vec::len), Some(8));
    assert_eq!(after["items"][7]["content"], "The consultation has ended.");
    let (_, page) = world.get(&path(id, "/chat?after=6&limit=1"), &patient()).await;
    assert_eq!((&page["items"][0]["sequence"], &page["nextCursor"]), (&json!(7), &json!("7")));
    let (_, page) = world.get(&path(id, "/chat?after=7"), &patient()).await;
    assert_eq!(
        (page["items"].as_array().map(Vec::len), &page["nextCursor"]),
        (Some(1), &Value::Null)
    );
    let (status, _) = world.get(&path(id, "/chat?after=7&before=9"), &patient()).await;
    assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY);
}

async fn a_restart_forgets_nothing(database: Database) {
    let world = World::new(database).await;
    let id = world.session().await;
    world.post(&path(id, "/join"), &patient(), Value::Null).await;
    world.post(&path(id, "/join"), &doctor(), Value::Null).await;
    admit(&world, id, "pat").await;
    let (_, before) = world.get(&path(id, ""), &doctor()).await;
    let world = world.restart().await;
    let (_, after) = world.get(&path(id, ""), &doctor()).await;
    assert_eq!(before, after);
    let room = after["roomName"].as_str().expect("a room").to_owned();
    assert!(door(&world.plane, &room, "pat").await.is_ok());
    let counts = world.plane.counters().sessions_by_status();
    assert_eq!(counts.iter().map(|(_, count)| count).sum::<u64>(), 1);
    // Calls that run need no database: the door answers, and an admitted person may join again.
    world.plane.control.db.close().await;
    assert!(door(&world.plane, &room, "pat").await.is_ok());
    assert_eq!(door(&world.plane, &room, "stranger").await, Err(DoorRefusal::NotAllowed));
    let (status, _) = world.post(&path(id, "/join"), &patient(), Value::Null).await;
    assert_eq!(status, StatusCode::OK);
    let back = json!({"userId": "pat"});
    let (status, problem) = world.post(&path(id, "/send-back"), &doctor(), back).await;
    assert_eq!(
        (status, &problem["code"]),
        (StatusCode::SERVICE_UNAVAILABLE, &json!("unavailable"))
    );
    assert!(door(&world.plane, &room, "pat").await.is_ok(), "refused means nothing changed");
}

#[tokio::test]
async fn keys_rotate_while_tokens_live_on() {
    let pair = |key: &str| crate::KeyPair {
        key: key.to_owned(),
        secret: Private::new(format!("a secret of the {key} key, long enough")),
    };
    let token_by = |key: &str| {
        let token = crate::token::ApiToken {
            user_id: "doc".to_owned(),
            name: None,
            role: ApiRole::Doctor,
            clinic: "demo".to_owned(),
            session: None,
            link: None,
            expires_at: chrono::Utc::now() + chrono::Duration::hours(1),
        };
        crate::token::issue(&pair(key), &token)
    };
    let keys = vec![pair("old"), keys()[0].clone()];
    let world = World::with(Database::sqlite(), |config| config.keys = keys).await;
    let id = world.session().await;
    let (old, new) = (token_by("old"), token_by("new"));
    assert_eq!(world.get(&path(id, ""), &old).await.0, StatusCode::OK);
    assert_eq!(world.get(&path(id, ""), &new).await.0, StatusCode::UNAUTHORIZED);
    let room = async |world: &World, token: &str| {
        let (_, room) = world.post(&path(id, "/join"), token, Value::Null).await;
        room["accessToken"].as_str().expect("a room token").to_owned()
    };
    let opens = |keys: &[crate::KeyPair], jwt: &str| {
        bedside_signaling::token::verify(keys, jwt, std::time::SystemTime::now())
            .map(|claims| claims.issuer)
    };
    let before = room(&world, &old).await;
    assert_eq!(opens(&[pair("old")], &before), Ok("old".to_owned()));
    // The new key signs; the old one verifies as long as its tokens live.
    let both = vec![pair("new"), pair("old")];
    let world = world.restart_with(|config| config.keys = both.clone()).await;
    for token in [&old, &new] {
        assert_eq!(world.get(&path(id, ""), token).await.0, StatusCode::OK);
    }
    assert_eq!(opens(&both, &before), Ok("old".to_owned()));
    assert_eq!(opens(&both, &room(&world, &old).await), Ok("new".to_owned()));
    // What the old key anchored in the audit log is still checked.
    world.plane.control.seal_audit().await;
    let report = world.plane.verify_audit(None).await.expect("the log is read");
    assert_eq!((report.faults.len(), report.unsigned), (0, 0));
    let world = world.restart_with(|config| config.keys = vec![pair("new")]).await;
    assert_eq!(world.get(&path(id, ""), &old).await.0, StatusCode::UNAUTHORIZED);
    assert_eq!(world.get(&path(id, ""), &new).await.0, StatusCode::OK);
    assert!(opens(&[pair("new")], &before).is_err());
}

#[tokio::test]
async fn bodies_and_paths_that_do_not_fit_are_refused() {
    let world = World::new(Database::sqlite()).await;
    let raw = |body: Vec<u8>| {
        let request = Request::post(SESSIONS)
            .header("authorization", format!("Bearer {}", service()))
            .header("x-request-id", "given-id")
            .body(axum::body::Body::from(body))
            .expect("a request");
        world.plane.router().oneshot(request)
    };
    let large = raw(vec![b' '; 256 * 1024 + 1]).await.expect("an answer");
    assert_eq!(large.status(), StatusCode::PAYLOAD_TOO_LARGE);
    assert_eq!(large.headers()["x-request-id"], "given-id");
    for body in [&b"{"[..], b"\xff\xfe", b"nonsense", b"{\"a\":"] {
        let answer = raw(body.to_vec()).await.expect("an answer");
        assert_eq!(answer.status(), StatusCode::BAD_REQUEST);
    }
    let deep = "[".repeat(100_000);
    assert!(raw(deep.into_bytes()).await.expect("an answer").status().is_client_error());
    assert_eq!(world.get("/api/v1/nothing", &service()).await.0, StatusCode::NOT_FOUND);
    let wrong = world.call(Method::PATCH, SESSIONS, Some(&service()), Value::Null).await;
    assert_eq!(wrong.0, StatusCode::METHOD_NOT_ALLOWED);
    let id = world.session().await;
    let wrong = world.get(&path(id, "/join"), &service()).await;
    assert_eq!(wrong.0, StatusCode::METHOD_NOT_ALLOWED);
    // The channel wants a WebSocket.
    assert_eq!(world.get(&path(id, "/channel"), &service()).await.0, StatusCode::UPGRADE_REQUIRED);
}

#[tokio::test]
async fn bad_bearers_all_get_the_same_answer() {
    let world = World::new(Database::sqlite()).await;
    let id = world.session().await;
    let room_token = {
        let token = RoomToken { grant: VideoGrant::join("r"), ..RoomToken::default() };
        let minute = std::time::Duration::from_secs(60);
        bedside_signaling::token::issue(&keys()[0], &token, minute, std::time::SystemTime::now())
    };
    let (_, expected) = world.call(Method::GET, &path(id, ""), None, Value::Null).await;
    let long = "x".repeat(50_000);
    for bad in ["x", "a.b.c", "", &room_token, &long] {
        let (status, problem) = world.get(&path(id, ""), bad).await;
        assert_eq!((status, &problem), (StatusCode::UNAUTHORIZED, &expected));
    }
    assert!(world.plane.counters().refused_auth.value() >= 6);
}

#[tokio::test]
async fn the_description_names_every_path() {
    let world = World::new(Database::sqlite()).await;
    let (status, description) =
        world.call(Method::GET, "/api/openapi.json", None, Value::Null).await;
    assert_eq!(status, StatusCode::OK);
    let paths = description["paths"].as_object().expect("paths");
    assert!(paths.contains_key("/api/v1/consultations/sessions/{id}/join"));
    assert!(paths.len() >= 15);
}
