//! Checks from their beginning to their code, over HTTP.

use axum::http::{Method, StatusCode};
use chrono::Duration;
use serde_json::{Value, json};

use super::*;
use crate::testing::{
    Database, World, doctor, keys, on_both_databases, patient, service, token_of,
};
use crate::token::ApiRole;

on_both_databases!(
    a_report_is_looked_up_by_its_code,
    only_tickets_of_ours_are_taken,
    reports_that_no_page_sends_are_refused,
);

fn report() -> Value {
    json!({
        "browser": {"name": "chrome", "version": 142, "system": "android"},
        "findings": [{"subject": "udp", "outcome": "failed", "reason": "blocked"}],
    })
}

async fn begin(world: &World) -> (StatusCode, Value) {
    world.call(Method::POST, "/api/v1/checks", None, Value::Null).await
}

async fn send(world: &World, body: Value) -> (StatusCode, Value) {
    world.call(Method::POST, "/api/v1/checks/results", None, body).await
}

async fn a_report_is_looked_up_by_its_code(database: Database) {
    let world = World::new(database).await;
    let (status, begun) = begin(&world).await;
    assert_eq!(status, StatusCode::CREATED);
    assert_eq!(begun["url"], "wss://clinic.example");
    let body = json!({"ticket": begun["ticket"], "report": report()});
    let (status, stored) = send(&world, body.clone()).await;
    assert_eq!(status, StatusCode::CREATED, "{stored}");
    let (_, again) = send(&world, body).await;
    assert_eq!(again, stored, "a check is stored once");
    let code = stored["code"].as_str().unwrap();
    assert_eq!(code.len(), code::CODE_LEN);

    let typed = format!("{}-{}", &code[..4].to_lowercase(), &code[4..]);
    for token in [doctor(), service(), token_of(ApiRole::Admin, "boss", "south")] {
        let (status, shown) = world.get(&format!("/api/v1/checks/{typed}"), &token).await;
        assert_eq!(status, StatusCode::OK, "without a clinic its code is enough");
        assert_eq!((&shown["report"], &shown["code"]), (&report(), &stored["code"]));
    }
    let path = format!("/api/v1/checks/{code}");
    assert_eq!(world.get(&path, &patient()).await.0, StatusCode::FORBIDDEN);
    let (status, _) = world.call(Method::GET, &path, None, Value::Null).await;
    assert_eq!(status, StatusCode::UNAUTHORIZED);
    for other in ["CCCCCCCC", "nothing", "%00", "CCCC%2FCCC"] {
        let (status, _) = world.get(&format!("/api/v1/checks/{other}"), &doctor()).await;
        assert_eq!(status, StatusCode::NOT_FOUND, "{other}");
    }
}

async fn only_tickets_of_ours_are_taken(database: Database) {
    let world = World::new(database).await;
    let (_, begun) = begin(&world).await;
    let good = begun["ticket"].as_str().unwrap();
    let (name, mac) = good.split_once('.').unwrap();
    let late = CheckRoom { id: Uuid::new_v4(), ends: 1_000_000_000 }.name();
    let late = format!("{late}.{}", signature(&keys()[0], &late));
    let longer = name.replacen("check-", "check-f", 1);
    let mut bad = vec![
        String::new(),
        name.to_owned(),
        format!("{longer}.{mac}"),
        format!("{}.{mac}", name.to_uppercase()),
        format!("{name}.{mac}="),
        format!("{name}."),
        "\u{0}.\u{0}".to_owned(),
        "x".repeat(10_000),
        late,
        begun["probeToken"].as_str().unwrap().to_owned(),
    ];
    bad.extend((0..good.len()).step_by(7).map(|end| good[..end].to_owned()));
    for ticket in bad {
        let body = json!({"ticket": ticket, "report": report()});
        assert_eq!(send(&world, body).await.0, StatusCode::GONE, "{ticket}");
    }
    let (status, _) = send(&world, json!({"ticket": good, "report": report()})).await;
    assert_eq!(status, StatusCode::CREATED);
}

async fn reports_that_no_page_sends_are_refused(database: Database) {
    let world = World::new(database).await;
    let (_, begun) = begin(&world).await;
    let body = |clinic: Value, report: Value| json!({"ticket": begun["ticket"], "clinic": clinic, "report": report});
    let mut twice = report();
    twice["findings"] = json!([twice["findings"][0], twice["findings"][0]]);
    let mut words = report();
    words["findings"][0]["reason"] = json!("my doctor is late");
    for (clinic, report) in [
        (json!("c".repeat(256)), report()),
        (json!("a\u{0}b"), report()),
        (json!(null), twice),
        (json!(null), words),
        (json!(null), json!({})),
    ] {
        let (status, answer) = send(&world, body(clinic, report)).await;
        assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY, "{answer}");
    }
}

#[tokio::test]
async fn checks_are_bounded_and_can_be_turned_off() {
    let few = |config: &mut crate::ControlConfig| config.checks.concurrent = 2;
    let world = World::with(Database::sqlite(), few).await;
    let (_, first) = begin(&world).await;
    assert_eq!(begin(&world).await.0, StatusCode::CREATED);
    let (status, full) = begin(&world).await;
    assert_eq!((status, &full["code"]), (StatusCode::SERVICE_UNAVAILABLE, &json!("checks_full")));
    // Whoever is done makes room, once.
    for _ in 0..2 {
        send(&world, json!({"ticket": first["ticket"], "report": report()})).await;
    }
    assert_eq!(begin(&world).await.0, StatusCode::CREATED);
    assert_eq!(begin(&world).await.0, StatusCode::SERVICE_UNAVAILABLE);
    let off = world.restart_with(|config| config.checks.enabled = false).await;
    assert_eq!(begin(&off).await.0, StatusCode::NOT_FOUND);
}

#[test]
fn places_are_free_again_after_their_time() {
    let running = Running::default();
    let now = Instant::now();
    assert!(running.take(now, 1));
    assert!(!running.take(now + ROOM_LIFE - std::time::Duration::from_millis(1), 1));
    assert!(running.take(now + ROOM_LIFE, 1));
}

#[test]
fn the_door_of_a_check_is_open_until_its_end() {
    let now = store::now();
    let room = CheckRoom { id: Uuid::new_v4(), ends: (now + Duration::seconds(5)).timestamp() };
    let plan = open_door(&room.name(), now).unwrap().unwrap();
    assert_eq!((plan.max_participants, plan.empty_timeout), (2, Some(EMPTY_TIMEOUT)));
    let late = now + Duration::seconds(6);
    assert_eq!(open_door(&room.name(), late).unwrap().unwrap_err(), DoorRefusal::NoRoom);
    for name in ["check-", "check-7fffffffffffffff-x", &format!("{} ", room.name())] {
        assert_eq!(open_door(name, now).unwrap().unwrap_err(), DoorRefusal::NoRoom, "{name}");
    }
    // The same check spelled otherwise would be another room.
    let other = room.name().replacen("check-", "check-0", 1);
    assert!(open_door(&other, now).unwrap().is_err());
    for name in ["consultation-1", "demo", "Check-1"] {
        assert!(open_door(name, now).is_none(), "{name}");
    }
}
