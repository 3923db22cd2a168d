//! The HTTP API: consultations, roles, clinics, links.

use serde_json::{Value, json};

use crate::support::{SESSIONS, Server, keys, text};

fn create(server: &Server, token: &str, body: Value) -> crate::support::Answer {
    server.ask("POST", SESSIONS, token, body)
}

#[test]
fn a_consultation_is_made_once_per_appointment() {
    let server = Server::demo(&[], &[]);
    let service = server.api_token("service", "booking");
    let body = json!({"appointmentId": "A-1", "doctorId": "dr", "patientId": "pat",
        "consultationMode": "VIDEO", "scheduledStartTime": "2030-01-02T03:04:05Z",
        "scheduledDurationMinutes": 20});
    let made = create(&server, &service, body.clone());
    assert_eq!(made.status, 201);
    let session = made.json();
    for key in [
        "sessionId",
        "appointmentId",
        "status",
        "consultationMode",
        "scheduledStartTime",
        "roomName",
    ] {
        assert!(session[key].is_string(), "{key}: {session}");
    }
    assert_eq!(
        (&session["status"], &session["appointmentId"]),
        (&"SCHEDULED".into(), &"A-1".into())
    );
    assert!(text(&session["scheduledStartTime"]).starts_with("2030-01-02T03:04:05"));
    // Again, and with the appointment alone.
    for body in [body, json!({"appointmentId": "A-1", "consultationMode": "VIDEO"})] {
        let again = create(&server, &service, body);
        assert_eq!(
            (again.status, again.json()["sessionId"].clone()),
            (200, session["sessionId"].clone())
        );
    }
    // The same appointment of another clinic is another one.
    let other = server.api_token_of("north", "service", "booking");
    create(&server, &other, json!({"appointmentId": "A-1", "consultationMode": "VIDEO"}))
        .is_problem(422);
}

#[test]
fn what_does_not_fit_is_422_and_what_is_no_json_400() {
    let server = Server::demo(&[], &[]);
    let service = server.api_token("service", "booking");
    let whole = json!({"doctorId": "dr", "patientId": "pat", "consultationMode": "VIDEO"});
    let with = |key: &str, value: Value| {
        let mut body = whole.clone();
        body[key] = value;
        body
    };
    for body in [
        json!({}),
        json!({"consultationMode": "VIDEO"}),
        json!({"appointmentId": "unknown", "consultationMode": "VIDEO"}),
        json!({"appointmentId": "half", "doctorId": "dr", "consultationMode": "VIDEO"}),
        json!({"doctorId": "dr", "consultationMode": "VIDEO"}),
        json!({"doctorId": "dr", "patientId": "pat"}),
        json!([]),
        with("consultationMode", "TELEPATHY".into()),
        with("doctorId", "".into()),
        with("doctorId", json!([7])),
        with("doctorId", 7.5.into()),
        with("doctorId", true.into()),
        with("doctorId", "pat".into()),
        with("patientId", "x".repeat(4096).into()),
        with("patientId", "a\u{0}b".into()),
        with("scheduledStartTime", "tomorrow".into()),
        with("scheduledDurationMinutes", 0.into()),
        with("scheduledDurationMinutes", (-5).into()),
        with("scheduledDurationMinutes", 1e300.into()),
        with("maxParticipants", 1.into()),
    ] {
        create(&server, &service, body).is_problem(422);
    }
    let bearer = format!("Bearer {service}");
    let headers = [("authorization", bearer.as_str())];
    for body in ["{", "\u{feff}", "garbage"] {
        server.request("POST", SESSIONS, &headers, body).is_problem(400);
    }
    let large = format!("{{\"x\":\"{}\"}}", "y".repeat(300 * 1024));
    server.request("POST", SESSIONS, &headers, &large).is_problem(413);
    server.ask("GET", &format!("{SESSIONS}/no-id"), &service, Value::Null).is_problem(404);
    server.ask("GET", "/api/v1/nothing", &service, Value::Null).is_problem(404);
    server.ask("PUT", SESSIONS, &service, Value::Null).is_problem(405);
    assert_eq!(create(&server, &service, whole).status, 201);
}

#[test]
fn a_join_answers_with_the_promised_fields_only() {
    let server = Server::demo(&[], &[]);
    let (id, room) = server.consultation(Value::Null);
    let doctor = server.api_token("doctor", "dr");
    let joined = server.act(&id, "join", &doctor, Value::Null);
    assert_eq!(joined.status, 200);
    let joined = joined.json();
    let expected = [
        "accessToken",
        "iceServers",
        "identity",
        "participantType",
        "provider",
        "roomName",
        "tokenExpiresAt",
        "url",
    ];
    assert_eq!(keys(&joined), expected);
    assert_eq!((&joined["identity"], &joined["participantType"]), (&"dr".into(), &"DOCTOR".into()));
    assert_eq!(joined["provider"], "own");
    let [relay] = joined["iceServers"].as_array().unwrap().as_slice() else { panic!("{joined}") };
    assert_eq!(keys(relay), ["credential", "urls", "username"]);
    let urls: Vec<String> = relay["urls"].as_array().unwrap().iter().map(text).collect();
    assert_eq!(urls, server.turn_urls());
    assert!(urls[0].starts_with("turn:127.0.0.1:") && urls[0].ends_with("?transport=udp"));
    assert!(urls[1].ends_with("?transport=tcp"), "{urls:?}");
    assert_eq!(
        (&joined["url"], &joined["roomName"]),
        (&format!("ws://{}", server.address).into(), &room.into())
    );
    let (_, claims) = crate::support::jwt(&text(&joined["accessToken"]));
    let life = claims["exp"].as_i64().unwrap() - claims["iat"].as_i64().unwrap();
    assert!((590..=610).contains(&life), "ten minutes, not {life} s");
    assert_eq!(claims["video"]["room"], joined["roomName"]);

    let patient = server.api_token("patient", "pat");
    for _ in 0..2 {
        let waiting = server.act(&id, "join", &patient, json!({}));
        assert_eq!(waiting.status, 202);
        assert_eq!(waiting.json()["status"], "WAITING");
    }
    server.act(&id, "admit", &doctor, json!({"userId": "pat"}));
    let joined = server.act(&id, "join", &patient, json!({}));
    assert_eq!((joined.status, &joined.json()["participantType"]), (200, &"PATIENT".into()));
}

#[test]
fn a_service_joins_for_somebody() {
    let server = Server::demo(&[], &[]);
    let (id, _) = server.consultation(Value::Null);
    let service = server.api_token("service", "booking");
    server.act(&id, "join", &service, json!({})).is_problem(422);
    let doctor = server.act(&id, "join", &service, json!({"userId": "dr"}));
    assert_eq!((doctor.status, &doctor.json()["identity"]), (200, &"dr".into()));
    assert_eq!(server.act(&id, "join", &service, json!({"userId": "pat"})).status, 202);
    assert_eq!(server.act(&id, "admit", &service, json!({"userId": "pat"})).status, 200);
    let patient = server.act(&id, "join", &service, json!({"userId": "pat"}));
    assert_eq!((patient.status, &patient.json()["participantType"]), (200, &"PATIENT".into()));
    assert_eq!(server.act(&id, "leave", &service, json!({"userId": "pat"})).status, 200);
    assert_eq!(server.act(&id, "end", &service, json!({})).status, 200);
}

#[test]
fn each_role_has_its_own_and_no_more() {
    let server = Server::demo(&[], &[]);
    let (id, _) = server.consultation(Value::Null);
    let here = format!("{SESSIONS}/{id}");
    let patient = server.api_token("patient", "pat");
    create(
        &server,
        &patient,
        json!({"doctorId": "dr", "patientId": "pat", "consultationMode": "VIDEO"}),
    )
    .is_problem(403);
    for (what, body) in [
        ("admit", json!({"userId": "pat"})),
        ("send-back", json!({"userId": "pat"})),
        ("end", json!({})),
        ("links", json!({"userId": "pat", "role": "patient"})),
        ("join", json!({"userId": "dr"})),
    ] {
        server.act(&id, what, &patient, body).is_problem(403);
    }
    for (role, user) in [("patient", "eve"), ("doctor", "other")] {
        let stranger = server.api_token(role, user);
        server.ask("GET", &here, &stranger, Value::Null).is_problem(403);
        server.act(&id, "join", &stranger, json!({})).is_problem(403);
        server.act(&id, "end", &stranger, json!({})).is_problem(403);
    }
    // What another clinic has does not exist.
    for role in ["doctor", "patient", "service", "admin"] {
        let user = if role == "patient" { "pat" } else { "dr" };
        let elsewhere = server.api_token_of("north", role, user);
        server.ask("GET", &here, &elsewhere, Value::Null).is_problem(404);
        server.act(&id, "join", &elsewhere, json!({"userId": user})).is_problem(404);
        server.act(&id, "end", &elsewhere, json!({})).is_problem(404);
        let list = server.ask("GET", SESSIONS, &elsewhere, Value::Null).json();
        assert_eq!(list["items"], json!([]));
    }
    let room = server.room_token("hall", "dr");
    let forged = {
        let token = server.api_token("admin", "ada");
        let (head, _) = token.rsplit_once('.').unwrap();
        format!("{head}.AAAA")
    };
    for token in ["", "x", &room, &forged] {
        let refused = server.ask("GET", &here, token, Value::Null);
        refused.is_problem(401);
        assert_eq!(refused.header("www-authenticate"), Some("Bearer"));
    }
    let admin = server.api_token("admin", "ada");
    assert_eq!(server.ask("GET", &here, &admin, Value::Null).status, 200);
}

#[test]
fn the_demo_has_one_doctor_with_two_consultations() {
    let server = Server::demo(&[], &[]);
    let exchanged = |link: &str| {
        let (_, secret) = link.split_once('#').unwrap();
        server.ask("POST", "/api/v1/links/exchange", "", json!({"link": secret}))
    };
    // A reload and a second device.
    for _ in 0..2 {
        assert_eq!(exchanged(&text(&server.ready["patient_link"])).status, 200);
    }
    let doctor = exchanged(&text(&server.ready["doctor_link"])).json();
    let patient = exchanged(&text(&server.ready["patient_link"])).json();
    let expected = ["clinic", "expiresAt", "name", "role", "sessionId", "token", "userId"];
    assert_eq!((keys(&doctor), keys(&patient)), (expected.into(), expected.into()));
    assert_eq!((&doctor["role"], &patient["role"]), (&"doctor".into(), &"patient".into()));
    let list = server.ask("GET", SESSIONS, &text(&doctor["token"]), Value::Null).json();
    let ids: Vec<_> = list["items"].as_array().unwrap().iter().map(|s| &s["sessionId"]).collect();
    assert_eq!(ids.len(), 2);
    assert!(ids.contains(&&patient["sessionId"]));
}

#[test]
fn links_are_revocable_and_cannot_be_guessed() {
    let server = Server::demo(&[], &[]);
    let (id, _) = server.consultation(Value::Null);
    let doctor = server.api_token("doctor", "dr");
    let made = server.act(&id, "links", &doctor, json!({"userId": "pat", "role": "patient"}));
    assert_eq!((made.status, keys(&made.json())), (201, vec!["expiresAt", "link", "linkId"]));
    let (page, secret) = text(&made.json()["link"])
        .split_once('#')
        .map(|(a, b)| (a.to_owned(), b.to_owned()))
        .unwrap();
    assert_eq!(page, format!("http://{}/visit", server.address));
    let exchange = |body: Value| server.ask("POST", "/api/v1/links/exchange", "", body);
    for garbage in [
        json!({"link": ""}),
        json!({"link": "x".repeat(5000)}),
        json!({"link": "\u{0}"}),
        json!({"link": "AAAA"}),
    ] {
        exchange(garbage).is_problem(404);
    }
    for garbage in [json!({}), json!({"link": 1}), json!([])] {
        exchange(garbage).is_problem(422);
    }
    let token = text(&exchange(json!({"link": secret})).json()["token"]);
    assert_eq!(server.act(&id, "join", &token, json!({})).status, 202);
    // The link is for one consultation.
    let (other, _) = server.consultation(Value::Null);
    server.act(&other, "join", &token, json!({})).is_problem(403);
    let link = format!("/api/v1/links/{}", text(&made.json()["linkId"]));
    server.ask("DELETE", &link, &token, Value::Null).is_problem(403);
    assert_eq!(server.ask("DELETE", &link, &doctor, Value::Null).status, 204);
    exchange(json!({"link": secret})).is_problem(410);
    server.act(&id, "join", &token, json!({})).is_problem(401);
}
