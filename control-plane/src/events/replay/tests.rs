//! Reading events over the API.

use axum::http::{Method, StatusCode};
use serde_json::{Value, json};
use tokio::task::JoinSet;

use super::*;
use crate::testing::{
    Database, World, doctor, on_both_databases, path, patient, service, token_of,
};
use crate::token::ApiRole;

on_both_databases!(
    events_are_read_in_order_and_without_a_sink,
    only_a_clinics_own_staff_reads_them,
    numbers_never_come_twice,
    many_stampers_leave_no_gap,
);

const EVENTS: &str = "/api/v1/events";

async fn read(world: &World, query: &str) -> (Vec<Value>, i64) {
    let (status, page) = world.get(&format!("{EVENTS}{query}"), &service()).await;
    assert_eq!(status, StatusCode::OK, "{page}");
    let next = page["nextCursor"].as_str().expect("a cursor").parse().expect("a number");
    (page["items"].as_array().expect("a list").clone(), next)
}

fn types(items: &[Value]) -> Vec<&str> {
    items.iter().map(|item| item["type"].as_str().expect("a type")).collect()
}

async fn events_are_read_in_order_and_without_a_sink(database: Database) {
    let world = World::new(database).await;
    assert!(world.plane.control.sinks.is_empty());
    assert_eq!(read(&world, "").await, (Vec::new(), 0));
    let session = world.session().await;
    world.post(&path(session, "/join"), &patient(), Value::Null).await;
    world.post(&path(session, "/cancel"), &doctor(), Value::Null).await;
    let (items, next) = read(&world, "").await;
    let expected = [
        "consultation.session.created.v1",
        "consultation.waiting.patient.v1",
        "consultation.ended.v1",
    ];
    assert_eq!(types(&items), expected);
    assert!(items.iter().all(|item| item["data"]["sessionId"] == json!(session)));
    assert_eq!(items[2]["data"]["status"], "CANCELLED");
    assert_eq!(read(&world, &format!("?after={next}")).await, (Vec::new(), next));

    let (first, one) = read(&world, "?limit=1").await;
    let (rest, end) = read(&world, &format!("?cursor={one}&limit=5")).await;
    assert_eq!(([first, rest].concat(), end), (items, next));
}

async fn only_a_clinics_own_staff_reads_them(database: Database) {
    let world = World::new(database).await;
    world.session().await;
    for token in [doctor(), patient()] {
        let (status, _) = world.get(EVENTS, &token).await;
        assert_eq!(status, StatusCode::FORBIDDEN);
    }
    let (status, _) = world.call(Method::GET, EVENTS, None, Value::Null).await;
    assert_eq!(status, StatusCode::UNAUTHORIZED);
    let other = token_of(ApiRole::Service, "backend", "other");
    let (status, page) = world.get(EVENTS, &other).await;
    assert_eq!((status, page), (StatusCode::OK, json!({ "items": [], "nextCursor": "0" })));
    for query in ["?after=-1", "?after=x", "?limit=0", "?limit=1001", "?after=99999999999999999999"]
    {
        let (status, _) = world.get(&format!("{EVENTS}{query}"), &service()).await;
        assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY, "{query}");
    }
    let (status, document) = world.get("/api/asyncapi.json", &service()).await;
    assert_eq!((status, &document["asyncapi"]), (StatusCode::OK, &json!("3.0.0")));
}

async fn numbers_never_come_twice(database: Database) {
    let world = World::new(database).await;
    world.session().await;
    let (_, before) = read(&world, "").await;
    let control = &world.plane.control;
    let late = store::now() + chrono::Duration::seconds(1);
    assert_eq!(control.db.sweep_mailboxes(late, 10).await.expect("sweeps"), 1);
    world.session().await;
    let (items, after) = read(&world, &format!("?after={before}")).await;
    assert_eq!(items.len(), 1);
    assert!(after > before, "what is forgotten leaves its number behind");
}

async fn many_stampers_leave_no_gap(database: Database) {
    let world = World::new(database).await;
    let mut tasks = JoinSet::new();
    for _ in 0..4 {
        let control = Arc::clone(&world.plane.control);
        tasks.spawn(async move {
            for _ in 0..10 {
                control.stamp_events().await.expect("stamps");
                tokio::task::yield_now().await;
            }
        });
    }
    for _ in 0..12 {
        world.session().await;
    }
    while let Some(done) = tasks.join_next().await {
        done.expect("no stamper fails");
    }
    let (items, next) = read(&world, "").await;
    let numbers: Vec<i64> = items.iter().filter_map(|item| item["seq"].as_i64()).collect();
    assert_eq!(numbers, (1..=12).collect::<Vec<_>>());
    assert_eq!(next, 12);
}

#[tokio::test]
async fn what_is_old_is_forgotten() {
    let world = World::with(Database::sqlite(), |config| {
        config.events_retention = Duration::ZERO;
    })
    .await;
    world.session().await;
    tokio::time::sleep(Duration::from_millis(5)).await;
    world.plane.control.sweep_mailboxes().await.expect("sweeps");
    assert_eq!(read(&world, "").await, (Vec::new(), 0));
}
