//! Every operation of the API and every channel, tried by another clinic.
//!
//! The list of operations is the API's own description, so that a new one without a case here
//! fails the test. To add one: say in [`case`] what somebody of another clinic gets.

use axum::http::{Method, StatusCode};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::audit::{Line, export};
use crate::store::AuditPage;
use crate::testing::{
    Database, World, doctor, on_both_databases, path, patient, service, token_of,
};
use crate::token::ApiRole;

on_both_databases!(nothing_of_another_clinic_is_there);

/// What somebody of another clinic gets.
enum Case {
    /// The ids in path, query and body are another clinic's: 404 and a row in the audit log.
    NotFound {
        /// Behind the path, as it is.
        query: &'static str,
        body: Value,
    },
    /// Nothing of another clinic can be named: the answer, whatever it is, is about the own one.
    Own { query: &'static str, body: Value },
    /// About nobody: a description, a state of health.
    Public,
}

/// What clinic `demo` has, for the other one to ask for.
struct Ids {
    session: Uuid,
    link: Uuid,
    key: Uuid,
    message: Uuid,
    code: String,
}

const APPOINTMENT: &str = "CANARY-appointment";

fn case(method: &str, path: &str) -> Option<Case> {
    let not_found = |body| Some(Case::NotFound { query: "", body });
    let own = |body| Some(Case::Own { query: "", body });
    let person = || json!({"userId": "pat"});
    let session = "/api/v1/consultations/sessions/{id}";
    let rest = path.strip_prefix(session).unwrap_or(path);
    match (method, rest) {
        ("GET", "" | "/chat") => not_found(Value::Null),
        ("POST", "/join" | "/admit" | "/send-back" | "/leave") => not_found(person()),
        ("POST", "/start" | "/pause" | "/resume" | "/end" | "/cancel" | "/no-show" | "/reopen") => {
            not_found(Value::Null)
        }
        ("POST", "/links") => not_found(json!({"userId": "pat", "role": "patient"})),
        ("DELETE", "/api/v1/links/{link}" | "/api/v1/keys/{key}") => not_found(Value::Null),
        ("POST", "/api/v1/tokens/revoke") => not_found(json!({"token": doctor()})),
        ("GET", "/api/v1/consultations/sessions" | "/api/v1/keys") => own(Value::Null),
        ("GET", "/api/v1/audit") => Some(Case::Own { query: "?limit=10000", body: Value::Null }),
        ("POST", "/api/v1/consultations/sessions") => own(json!({
            "appointmentId": APPOINTMENT, "doctorId": "doc", "patientId": "pat",
            "consultationMode": "VIDEO"})),
        ("POST", "/api/v1/keys") => own(json!({"name": "n", "scopes": ["chat:read"]})),
        // Whose it is the secret says, nobody is asked.
        ("POST", "/api/v1/links/exchange" | "/api/v1/checks" | "/api/v1/checks/results") => {
            Some(Case::Public)
        }
        ("GET", "/api/v1/checks/{code}") => not_found(Value::Null),
        _ => other_case(method, rest),
    }
}

/// The older contracts, and what tells nothing about anybody.
fn other_case(method: &str, path: &str) -> Option<Case> {
    let not_found = |body| Some(Case::NotFound { query: "", body });
    let own = |query| Some(Case::Own { query, body: Value::Null });
    let appointment = || json!({"appointmentId": APPOINTMENT, "userId": "doc", "role": "doctor"});
    let words = || json!({"userId": "doc", "role": "doctor"});
    let report = || json!({"userId": "doc", "role": "doctor", "issueType": "audio"});
    match (method, path) {
        (
            _,
            "/health" | "/actuator/health" | "/api/video/health" | "/api/openapi.json"
            | "/api/asyncapi.json",
        )
        | ("GET", "/api/video/providers/status") => Some(Case::Public),
        ("GET", "/api/v1/consultations/history" | "/api/video/history" | "/api/v1/events") => {
            own("")
        }
        ("GET", "/api/video/sessions/doctor/{id}" | "/api/video/sessions/patient/{id}") => own(""),
        ("POST", "/api/video/sessions") => Some(Case::Own {
            query: "",
            body: json!({"appointment_id": APPOINTMENT, "doctor_id": "doc", "patient_id": "pat"}),
        }),
        (
            "POST",
            "/api/video/token" | "/api/video/consultation/start" | "/api/video/consultation/end",
        ) => not_found(appointment()),
        (
            "GET",
            "/api/video/sessions/{id}"
            | "/api/video/consultation/{id}/status"
            | "/api/appointments/{id}/video/status"
            | "/api/video-consultations/{id}/session"
            | "/summary"
            | "/events"
            | "/reports",
        ) => not_found(Value::Null),
        (
            "POST",
            "/api/video/sessions/{id}/join"
            | "/api/video/sessions/{id}/end"
            | "/api/appointments/{id}/video/token"
            | "/api/appointments/{id}/video/start"
            | "/api/appointments/{id}/video/end"
            | "/api/video-consultations/{id}/start"
            | "/api/video-consultations/{id}/end",
        ) => not_found(words()),
        (
            "POST",
            "/api/video/consultation/{id}/report"
            | "/api/appointments/{id}/video/report"
            | "/report",
        ) => not_found(report()),
        ("POST", "/api/video/image/share") => not_found(json!({
            "appointmentId": APPOINTMENT, "userId": "doc", "role": "doctor",
            "imageData": {"data": "iVBORw0KGgo="}})),
        _ => chat_or_money(method, path),
    }
}

fn chat_or_money(method: &str, path: &str) -> Option<Case> {
    let not_found = |body| Some(Case::NotFound { query: "", body });
    let mark = || json!({"messageId": Uuid::nil()});
    match (method, path) {
        ("POST", "/chat") => not_found(json!({"content": "hello"})),
        ("POST", "/chat/delivered" | "/chat/read") => not_found(mark()),
        ("DELETE", "/chat/{message}")
        | ("GET", "/attachments/{attachment}" | "/billing" | "/feedback") => not_found(Value::Null),
        ("POST", "/attachments") => not_found(json!("a file")),
        ("POST", "/feedback") => not_found(json!({"overallRating": 5})),
        ("PATCH", "/feedback") => not_found(json!({"isPublic": true})),
        ("POST", "/feedback/response") => not_found(json!({"response": "thanks"})),
        (
            "GET",
            "/api/v1/consultations/appointments/{appointmentId}/payment"
            | "/api/v1/consultations/pricing/{doctorId}",
        ) => not_found(Value::Null),
        (
            "POST",
            "/api/v1/consultations/appointments/{appointmentId}/payment"
            | "/api/video-consultations/{id}/verify-payment",
        ) => not_found(json!({"paymentId": "p"})),
        ("GET", "/api/v1/consultations/doctors/{doctorId}/feedback") => {
            Some(Case::Own { query: "", body: Value::Null })
        }
        ("PUT", "/api/v1/consultations/pricing/{doctorId}") => Some(Case::Own {
            query: "",
            body: json!({"consultationMode": "VIDEO", "flatFee": "5.00", "currency": "INR"}),
        }),
        _ => None,
    }
}

/// The same route, whatever its parameters are called.
fn bare(route: &str) -> String {
    route
        .split('/')
        .map(|part| if part.starts_with('{') { "{}" } else { part })
        .collect::<Vec<_>>()
        .join("/")
}

/// The route with another clinic's ids in it.
fn filled(route: &str, ids: &Ids) -> String {
    let by_appointment =
        ["/api/appointments/", "/api/video-consultations/"].iter().any(|p| route.starts_with(p));
    let mut filled = String::new();
    let mut before = "";
    for part in route.split('/').skip(1) {
        let value = match part {
            "{id}" if by_appointment => APPOINTMENT.to_owned(),
            "{id}" if before == "doctor" => "doc".to_owned(),
            "{id}" if before == "patient" => "pat".to_owned(),
            "{id}" => ids.session.to_string(),
            "{link}" => ids.link.to_string(),
            "{key}" => ids.key.to_string(),
            "{message}" => ids.message.to_string(),
            "{code}" => ids.code.clone(),
            "{attachment}" => Uuid::nil().to_string(),
            "{doctorId}" => "doc".to_owned(),
            "{appointmentId}" => APPOINTMENT.to_owned(),
            fixed => {
                assert!(!fixed.starts_with('{'), "no id of another clinic for {fixed} in {route}");
                fixed.to_owned()
            }
        };
        filled.push('/');
        filled.push_str(&value);
        before = part;
    }
    filled
}

/// A consultation of clinic `demo` with everything that can be asked for.
async fn furnished(world: &World) -> Ids {
    let body = json!({
        "appointmentId": APPOINTMENT, "doctorId": "doc", "doctorName": "CANARY doctor",
        "patientId": "pat", "patientName": "CANARY patient", "consultationMode": "VIDEO",
    });
    let (_, made) = world.post("/api/v1/consultations/sessions", &service(), body).await;
    let session = crate::testing::id_of(&made["sessionId"]);
    world.post(&path(session, "/join"), &doctor(), Value::Null).await;
    world.post(&path(session, "/join"), &patient(), Value::Null).await;
    world.post(&path(session, "/admit"), &doctor(), json!({"userId": "pat"})).await;
    let words = json!({"content": "CANARY words"});
    let (status, said) = world.post(&path(session, "/chat"), &patient(), words).await;
    assert_eq!(status, StatusCode::CREATED, "{said}");
    let body = json!({"userId": "pat", "role": "patient"});
    let (_, link) = world.post(&path(session, "/links"), &service(), body).await;
    let body = json!({"name": "CANARY key", "scopes": ["chat:read"]});
    let admin = token_of(ApiRole::Admin, "boss", "demo");
    let (status, key) = world.post("/api/v1/keys", &admin, body).await;
    assert_eq!(status, StatusCode::CREATED, "{key}");
    let (_, check) = world.call(Method::POST, "/api/v1/checks", None, Value::Null).await;
    let body = json!({"ticket": check["ticket"], "clinic": "demo", "report": {
        "browser": {"name": "safari", "version": 26, "system": "ios"},
        "findings": [{"subject": "udp", "outcome": "ok"}]}});
    let (status, stored) = world.call(Method::POST, "/api/v1/checks/results", None, body).await;
    assert_eq!(status, StatusCode::CREATED, "{stored}");
    Ids {
        session,
        link: crate::testing::id_of(&link["linkId"]),
        key: crate::testing::id_of(&key["keyId"]),
        message: crate::testing::id_of(&said["messageId"]),
        code: stored["code"].as_str().expect("a code").to_owned(),
    }
}

/// How many rows of clinic `south` say `not_found` of this action.
async fn refusals(world: &World, action: &str) -> usize {
    let control = &world.plane.control;
    control.finish_audit().await;
    control.seal_audit().await;
    let page = AuditPage { limit: 100_000, ..AuditPage::default() };
    let (lines, _) = export::page(&control.db, "south", &page).await.expect("the log");
    let told = |line: &Line| match line {
        Line::Row(row) => bare(&row.action) == bare(action) && row.outcome == "not_found",
        Line::Anchor(_) => false,
    };
    lines.iter().filter(|line| told(line)).count()
}

async fn nothing_of_another_clinic_is_there(database: Database) {
    let world = World::new(database).await;
    let ids = furnished(&world).await;
    let (_, before) = world.get(&path(ids.session, ""), &doctor()).await;
    let (_, chat_before) = world.get(&path(ids.session, "/chat"), &doctor()).await;
    let (_, description) = world.call(Method::GET, "/api/openapi.json", None, Value::Null).await;
    let mut cases = Vec::new();
    for (route, operations) in description["paths"].as_object().expect("paths") {
        for method in operations.as_object().expect("operations").keys() {
            let method = method.to_uppercase();
            if !["GET", "POST", "PUT", "PATCH", "DELETE"].contains(&method.as_str()) {
                continue;
            }
            let case = case(&method, route)
                .unwrap_or_else(|| panic!("{method} {route} has no case in tenants.rs"));
            cases.push((method, route, case));
        }
    }
    assert!(cases.len() >= 20, "only {} operations were found", cases.len());
    // First of all what must find nothing: afterwards the other clinic has things of its own.
    cases.sort_by_key(|(_, _, case)| matches!(case, Case::Own { .. }));
    for (method, route, case) in cases {
        try_one(&world, &method, route, &ids, case).await;
    }
    let (_, after) = world.get(&path(ids.session, ""), &doctor()).await;
    assert_eq!(before, after, "nothing changed");
    let (_, chat_after) = world.get(&path(ids.session, "/chat"), &doctor()).await;
    assert_eq!(chat_before, chat_after);
}

async fn try_one(world: &World, method: &str, route: &str, ids: &Ids, case: Case) {
    let operation = format!("{method} {route}");
    let (query, body, hidden) = match case {
        Case::NotFound { query, body } => (query, body, true),
        Case::Own { query, body } => (query, body, false),
        Case::Public => return,
    };
    let uri = format!("{}{query}", filled(route, ids));
    let verb = Method::from_bytes(method.as_bytes()).expect("a method");
    // The same user ids as theirs: only the clinic differs.
    let callers = [
        (ApiRole::Admin, "boss"),
        (ApiRole::Service, "backend"),
        (ApiRole::Doctor, "doc"),
        (ApiRole::Patient, "pat"),
    ];
    for (role, user) in callers {
        let token = token_of(role, user, "south");
        let logged = refusals(world, &operation).await;
        let (status, answer) = world.call(verb.clone(), &uri, Some(&token), body.clone()).await;
        let text = answer.to_string();
        let shown = ["CANARY doctor", "CANARY patient", "CANARY words", "CANARY key"];
        for canary in shown {
            assert!(!text.contains(canary), "{operation} shows {canary} to {role:?}");
        }
        assert!(!text.contains(&ids.session.to_string()), "{operation} shows the consultation");
        if !hidden {
            continue;
        }
        // Some roles may not do it at all, wherever; the administrator gets past that.
        let forbidden = status == StatusCode::FORBIDDEN && role != ApiRole::Admin;
        assert!(status == StatusCode::NOT_FOUND || forbidden, "{operation}: {role:?} got {status}");
        if status == StatusCode::NOT_FOUND {
            let now = refusals(world, &operation).await;
            assert_eq!(now, logged + 1, "{operation} by {role:?} left no row");
        }
    }
}
