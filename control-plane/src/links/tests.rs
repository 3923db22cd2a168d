//! The join link that other services hand on.

use axum::http::{Method, StatusCode};
use serde_json::json;

use super::*;
use crate::testing::{Database, World, on_both_databases, service};
use crate::{ControlConfig, Private};

async fn url_of(world: &World, session: Uuid) -> String {
    let control = &world.plane.control;
    let consultation = control.look("demo", session).await.unwrap();
    control.attendee_url(&consultation).await.unwrap()
}

async fn exchanged(world: &World, url: &str) -> (StatusCode, serde_json::Value) {
    let secret = url.split_once('#').unwrap().1;
    let body = json!({ "link": secret });
    world.call(Method::POST, "/api/v1/links/exchange", None, body).await
}

async fn an_attendee_url_is_the_same_each_time(database: Database) {
    let world = World::new(database).await;
    let session = world.session().await;
    let url = url_of(&world, session).await;
    assert!(url.starts_with("https://clinic.example/visit#") && url.len() <= 500, "{url}");
    let (one, two) = tokio::join!(url_of(&world, session), url_of(&world, session));
    assert_eq!((&one, &two), (&url, &url));
    assert_ne!(url_of(&world, world.session().await).await, url);
    // A second click, another device.
    for _ in 0..3 {
        let (status, answer) = exchanged(&world, &url).await;
        assert_eq!(status, StatusCode::OK, "{answer}");
        assert_eq!(answer["userId"], "pat");
    }
    let world = world.restart().await;
    assert_eq!(url_of(&world, session).await, url);
}

async fn a_new_key_keeps_the_url_and_a_revoked_one_is_replaced(database: Database) {
    let world = World::new(database).await;
    let session = world.session().await;
    let url = url_of(&world, session).await;
    let rotate = |config: &mut ControlConfig| {
        let secret = Private::new("another secret of the tests, long enough".to_owned());
        config.keys.insert(0, KeyPair { key: "new".to_owned(), secret });
    };
    let world = world.restart_with(rotate).await;
    assert_eq!(url_of(&world, session).await, url);
    // Revoked: it is dead, and there is another one.
    let id = attendee_link(session, 0);
    let path = format!("/api/v1/links/{id}");
    let token = service();
    let (status, answer) =
        world.call(Method::DELETE, &path, Some(&token), serde_json::Value::Null).await;
    assert_eq!(status, StatusCode::NO_CONTENT, "{answer}");
    assert_eq!(exchanged(&world, &url).await.0, StatusCode::GONE);
    let next = url_of(&world, session).await;
    assert_ne!(next, url);
    assert_eq!(exchanged(&world, &next).await.0, StatusCode::OK);
    assert_eq!(url_of(&world, session).await, next);
    // The key it was made with is gone: nobody could tell it again.
    let world = world.restart_with(|config| drop(config.keys.remove(0))).await;
    assert_ne!(url_of(&world, session).await, next);
}

on_both_databases!(
    an_attendee_url_is_the_same_each_time,
    a_new_key_keeps_the_url_and_a_revoked_one_is_replaced,
);
