//! The guide's whole walk: book, pay, start, join, end.

use axum::http::{Method, StatusCode};
use uuid::Uuid;

use super::*;
use crate::testing::broker::Broker;
use crate::testing::{path, token};
use crate::token::ApiRole;

#[tokio::test]
async fn a_visit_from_booking_to_end() {
    let vhost = Broker::shared().await;
    let scene = Scene::new(&vhost).await;
    let java = Peer::new(&vhost).await;
    let mut answers = java.consume(ANSWERS).await;
    // EV-10: somebody else listens to everything and disturbs nobody.
    let python = Peer::new(&vhost).await;
    let mut all = python.listen("audit-of-everything", &["#"]).await;

    // Booked.
    let appointment = Uuid::new_v4().to_string();
    let booking = create(&appointment);
    java.send("appointment.video.create", &booking).await;
    let (created, delivery) = answers.next_of("video.session.created").await;
    let data = &created["data"];
    assert_eq!(created["event_type"], "video.session.created");
    assert_eq!(data["appointment_id"], appointment.as_str());
    assert_eq!(data["status"], "created");
    let meeting = data["meeting_id"].as_str().unwrap();
    assert!(meeting.starts_with("consultation-") && meeting.len() <= 100, "{meeting}");
    let properties = &delivery.properties;
    assert_eq!(properties.content_type().as_ref().unwrap().as_str(), "application/json");
    assert_eq!(*properties.delivery_mode(), Some(2));
    assert_eq!(properties.kind().as_ref().unwrap().as_str(), "video.session.created");
    assert!(properties.message_id().is_some() && properties.timestamp().is_some());
    assert_eq!(header(&delivery, "__TypeId__"), None);

    // Paid: the sender asks again, to be sure, and is told the same.
    let mut again = booking;
    again["timestamp"] = json!("2026-01-24T11:00:00");
    java.send("appointment.video.create", &again).await;
    let (repeated, _) = answers.next_of("video.session.created").await;
    assert_eq!(repeated, created);
    assert_eq!(scene.sessions().await.len(), 1);

    // Started by the doctor, through the other service.
    let session: Uuid = data["session_id"].as_str().unwrap().parse().unwrap();
    let start = json!({"event_type": "appointment.video.start", "data": {
        "session_id": session, "doctor_id": "doc123", "timestamp": "2026-01-25T14:00:00"}});
    java.send("appointment.video.start", &start).await;
    let (started, _) = answers.next_of("video.session.started").await;
    assert_eq!(started["data"]["session_id"], session.to_string());
    assert_eq!(started["data"]["appointment_id"], appointment.as_str());
    assert_eq!(started["data"]["started_by"], "doc123");
    assert!(started["data"]["started_at"].is_string());

    join_by_link(&scene, session, data["attendee_url"].as_str().unwrap()).await;

    // Ended.
    let end = json!({"event_type": "appointment.video.end", "data": {
        "session_id": session, "ended_by": "doc123", "ended_by_role": "doctor",
        "timestamp": "2026-01-25T14:30:00"}});
    java.send("appointment.video.end", &end).await;
    let (ended, _) = answers.next_of("video.session.completed").await;
    assert_eq!(ended["data"]["appointment_id"], appointment.as_str());
    assert_eq!(ended["data"]["ended_by"], "doc123");
    assert_eq!(ended["data"]["ended_by_role"], "doctor");
    let (status, shown) = scene.world.get(&path(session, ""), &crate::testing::service()).await;
    assert_eq!((status, &shown["status"]), (StatusCode::OK, &json!("COMPLETED")));

    // The other listener has seen all of it, requests and answers.
    let mut seen = std::collections::BTreeSet::new();
    while !seen.contains("video.session.completed") || !seen.contains("video.consultation.ended") {
        seen.insert(all.next().await.routing_key.as_str().to_owned());
    }
    for key in [
        "appointment.video.create",
        "appointment.video.start",
        "appointment.video.end",
        "video.session.created",
        "video.session.started",
        "video.consultation.started",
    ] {
        assert!(seen.contains(key), "{key} is not in {seen:?}");
    }
    until("an empty outbox", async || scene.backlog().await == 0).await;
    assert_eq!(scene.counters().amqp_poison.value(), 0);
}

/// The link works as it is, a second time and on another device, and leads into the room.
async fn join_by_link(scene: &Scene, session: Uuid, url: &str) {
    assert!(url.len() <= 500);
    let secret = url.strip_prefix("https://clinic.example/visit#").expect("a page of ours");
    let mut patient = String::new();
    for _device in 0..2 {
        let body = json!({ "link": secret });
        let exchange = "/api/v1/links/exchange";
        let (status, answer) = scene.world.call(Method::POST, exchange, None, body).await;
        assert_eq!(status, StatusCode::OK, "{answer}");
        let token = answer["token"].as_str().unwrap();
        patient = token.to_owned();
    }
    let join = path(session, "/join");
    let (status, waits) = scene.world.post(&join, &patient, json!({})).await;
    assert_eq!(status, StatusCode::ACCEPTED, "{waits}");
    let doctor = token(ApiRole::Doctor, "doc123");
    let (status, room) = scene.world.post(&join, &doctor, json!({})).await;
    assert_eq!(status, StatusCode::OK, "{room}");
    let admit = path(session, "/admit");
    let (status, answer) = scene.world.post(&admit, &doctor, json!({"userId": "pat456"})).await;
    assert!(status.is_success(), "{answer}");
    let (status, room) = scene.world.post(&join, &patient, json!({})).await;
    assert_eq!(status, StatusCode::OK, "{room}");
    assert_eq!(room["participantType"], "PATIENT");
    assert!(room["accessToken"].is_string());
}
