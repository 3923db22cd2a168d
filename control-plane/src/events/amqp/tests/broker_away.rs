//! The broker dies, or takes nothing for a while.

use std::collections::BTreeSet;

use super::*;
use crate::health::Part;
use crate::testing::broker::Broker;

const CREATE: &str = "appointment.video.create";

#[tokio::test]
async fn nothing_is_lost_or_doubled_when_the_broker_dies() {
    let (vhost, _turn) = Broker::restless().await;
    let scene = Scene::new(&vhost).await;
    let mut asked = BTreeSet::new();
    let mut peer = Peer::new(&vhost).await;
    for number in 0..30 {
        let appointment = format!("a-{number}");
        let properties = || {
            BasicProperties::default()
                .with_delivery_mode(2)
                .with_message_id(format!("m-{number}").into())
        };
        let body = create(&appointment).to_string();
        if number == 10 {
            vhost.kill().await;
            until("degraded", async || scene.world.plane.health().await.broker == Part::Down).await;
            // While it is away people come all the same, and what happens is kept to be told.
            let by_hand = json!({"doctorId": "doc", "patientId": "pat", "appointmentId": "by-hand",
                "consultationMode": "VIDEO"});
            let (status, _) = scene
                .world
                .post("/api/v1/consultations/sessions", &crate::testing::service(), by_hand)
                .await;
            assert!(status.is_success());
            asked.insert("by-hand".to_owned());
            vhost.start_again().await;
            peer = Peer::new(&vhost).await;
        }
        // Unconfirmed is sent again, as a sender does that wants to be sure.
        while peer.try_send(CREATE, body.as_bytes(), properties()).await.is_err() {
            tokio::time::sleep(Duration::from_millis(200)).await;
            peer = Peer::new(&vhost).await;
        }
        asked.insert(appointment);
        if number == 20 {
            vhost.kill().await;
            vhost.start_again().await;
            peer = Peer::new(&vhost).await;
        }
    }
    let mut answers = peer.consume(ANSWERS).await;
    let mut told: BTreeSet<String> = BTreeSet::new();
    let mut ids = BTreeSet::new();
    while told.len() < asked.len() {
        let delivery = answers.next().await;
        // The same message may come twice; it is known by its id.
        let id = delivery.properties.message_id().as_ref().unwrap().as_str().to_owned();
        if ids.insert(id) {
            let appointment = body_of(&delivery)["data"]["appointment_id"].clone();
            assert!(told.insert(appointment.as_str().unwrap().to_owned()), "{appointment} twice");
        }
    }
    assert_eq!(told, asked);
    until("an empty outbox", async || scene.backlog().await == 0).await;
    let late = tokio::time::timeout(Duration::from_secs(2), answers.consumer.next()).await;
    if let Ok(Some(Ok(late))) = late {
        let id = late.properties.message_id().as_ref().unwrap().as_str().to_owned();
        assert!(ids.contains(&id), "a second answer for one appointment");
    }
    assert_eq!(scene.sessions().await.len(), asked.len());
    assert_eq!(scene.world.plane.health().await.broker, Part::Up);
}

#[tokio::test]
async fn a_broker_without_memory_stops_no_one_but_the_relay() {
    let (vhost, _turn) = Broker::restless().await;
    let scene = Scene::new(&vhost).await;
    let peer = Peer::new(&vhost).await;
    let mut answers = peer.consume(ANSWERS).await;
    peer.send(CREATE, &create("before")).await;
    answers.next_of("video.session.created").await;
    vhost.starve().await;
    for number in 0..5 {
        let body = json!({"doctorId": "doc", "patientId": "pat", "consultationMode": "VIDEO",
            "appointmentId": format!("starved-{number}")});
        let asked = Instant::now();
        let path = "/api/v1/consultations/sessions";
        let (status, _) = scene.world.post(path, &crate::testing::service(), body).await;
        assert!(status.is_success());
        assert!(asked.elapsed() < Duration::from_secs(5), "the API waits for the broker");
    }
    until("blocked", async || scene.counters().amqp_blocked.value() > 0).await;
    assert!(scene.backlog().await > 0);
    vhost.feed().await;
    let mut told = BTreeSet::new();
    for _ in 0..5 {
        let (created, _) = answers.next_of("video.session.created").await;
        told.insert(created["data"]["appointment_id"].as_str().unwrap().to_owned());
    }
    assert_eq!(told.len(), 5, "each once: {told:?}");
    assert!(answers.is_quiet().await, "nothing twice");
    until("unblocked", async || scene.counters().amqp_blocked.value() == 0).await;
    assert_eq!(scene.backlog().await, 0);
}
