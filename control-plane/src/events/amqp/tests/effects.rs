//! Messages that are not followed at once, or never.

use super::super::topology::{LIFECYCLE, MAX_DELIVERIES};
use super::*;
use crate::testing::broker::Broker;

const CREATE: &str = "appointment.video.create";
const DLQ: &str = "video-session-requests.dlq";

#[tokio::test]
async fn a_message_many_times_has_one_effect() {
    let vhost = Broker::shared().await;
    let scene = Scene::new(&vhost).await;
    let peer = Peer::new(&vhost).await;
    let mut answers = peer.consume(ANSWERS).await;
    let body = create("a-1").to_string();
    for _ in 0..100 {
        let properties = BasicProperties::default().with_message_id("m-1".into());
        peer.send_with(CREATE, body.as_bytes(), properties).await;
    }
    answers.next_of("video.session.created").await;
    until("all taken", async || scene.counters().amqp_consumed.value() >= 100).await;
    assert!(answers.is_quiet().await);
    assert_eq!(scene.sessions().await.len(), 1);
}

#[tokio::test]
async fn a_start_that_is_faster_than_its_create_waits_for_it() {
    let vhost = Broker::shared().await;
    let scene = Scene::new(&vhost).await;
    let peer = Peer::new(&vhost).await;
    let mut answers = peer.consume(ANSWERS).await;
    let start = json!({"data": {"appointment_id": "late", "doctor_id": "doc123"}});
    peer.send("appointment.video.start", &start).await;
    until("a retry", async || scene.counters().amqp_retried.value() > 0).await;
    peer.send(CREATE, &create("late")).await;
    let (started, _) = answers.next_of("video.session.started").await;
    assert_eq!(started["data"]["appointment_id"], "late");
    // One that nothing ever comes for is a dead letter at last, with its own key.
    let mut dead = peer.consume(DLQ).await;
    let end = json!({"data": {"appointment_id": "never", "ended_by": "doc123"}});
    peer.send("appointment.video.end", &end).await;
    let letter = dead.next().await;
    assert_eq!(letter.routing_key.as_str(), "appointment.video.end");
    let reason = header(&letter, "x-reject-reason").unwrap();
    assert_eq!(reason, "there is no such consultation");
    assert_eq!(body_of(&letter), end);
}

#[tokio::test]
async fn poison_is_put_aside_and_the_queue_goes_on() {
    let vhost = Broker::shared().await;
    let scene = Scene::new(&vhost).await;
    let peer = Peer::new(&vhost).await;
    let mut dead = peer.consume(DLQ).await;
    let mut answers = peer.consume(ANSWERS).await;
    let huge = vec![b'x'; 16 << 20];
    let java = [0xac, 0xed, 0x00, 0x05, 0x73, 0x72, 0x00, 0x1a];
    let deep = "{\"data\":".repeat(10_000);
    let cases: [(&[u8], &str); 5] = [
        (b"not json", "the body is not JSON"),
        (b"{\"data\":{}}", "there is no usable appointment_id"),
        (&java, "the body is a serialised Java object; send JSON"),
        (deep.as_bytes(), "the body is not JSON"),
        (&huge, "the body is longer than 1 MiB"),
    ];
    for (body, reason) in cases {
        // A sender's own name and time limit must not keep it from the dead letters.
        let properties = BasicProperties::default()
            .with_user_id("bedside".into())
            .with_expiration("600000".into())
            .with_message_id("mine".into());
        peer.send_with(CREATE, body, properties).await;
        let letter = dead.next().await;
        assert_eq!(header(&letter, "x-reject-reason").as_deref(), Some(reason));
        assert_eq!(letter.data, body);
        assert_eq!(letter.properties.message_id().as_ref().unwrap().as_str(), "mine");
    }
    // An appointment whose consultation cannot be made: its sender hears it.
    let mut body = create("no-doctor");
    body["data"]["doctor_id"] = Value::Null;
    peer.send(CREATE, &body).await;
    let (failed, _) = answers.next_of("video.session.creation.failed").await;
    assert_eq!(failed["data"]["appointment_id"], "no-doctor");
    assert_eq!(failed["data"]["error"], "doctor_id is missing or not usable");
    assert_eq!(dead.next().await.routing_key.as_str(), CREATE);
    peer.send(CREATE, &create("after")).await;
    answers.next_of("video.session.created").await;
    assert_eq!(scene.counters().amqp_poison.value(), 6);
}

#[tokio::test]
async fn a_message_that_is_given_back_too_often_goes_to_the_dead_letters() {
    let vhost = Broker::shared().await;
    // Video is disabled: everything is declared, and messages wait (CON-15).
    let deaf = |config: &mut ControlConfig| config.video_enabled = false;
    let scene = Scene::with(Database::sqlite(), vhost.config(), deaf).await;
    let peer = Peer::new(&vhost).await;
    until("the queues", async || peer.count(ANSWERS).await.is_some()).await;
    peer.send(CREATE, &create("parked")).await;
    peer.send(CREATE, &create("crashing")).await;
    assert_eq!(peer.messages(REQUESTS).await, 2);
    // Somebody takes them and dies, again and again.
    for _ in 0..=MAX_DELIVERIES {
        give_back(&peer, REQUESTS).await;
    }
    until("the broker's own limit", async || peer.messages(DLQ).await == 1).await;
    let rest = scene.restart(|config| config.video_enabled = true).await;
    let mut answers = peer.consume(ANSWERS).await;
    let (created, _) = answers.next_of("video.session.created").await;
    assert_eq!(created["data"]["appointment_id"], "crashing");
    drop(rest);
}

/// Takes the first message and gives it back.
async fn give_back(peer: &Peer, queue: &str) {
    use lapin::options::{BasicGetOptions, BasicNackOptions};
    let got = peer.channel.basic_get(queue.into(), BasicGetOptions::default()).await.unwrap();
    let options = BasicNackOptions { requeue: true, multiple: false };
    got.expect("a message").delivery.nack(options).await.unwrap();
}

#[tokio::test]
async fn where_the_queue_does_not_count_we_do() {
    let vhost = Broker::shared().await;
    let peer = Peer::new(&vhost).await;
    peer.declare_exchange().await;
    peer.declare_queue(REQUESTS, &[CREATE]).await;
    peer.send(CREATE, &create("twice")).await;
    give_back(&peer, REQUESTS).await;
    let scene = Scene::new(&vhost).await;
    let mut answers = peer.consume(ANSWERS).await;
    answers.next_of("video.session.created").await;
    assert_eq!(scene.counters().amqp_retried.value(), 1);
}

#[tokio::test]
async fn appointments_of_their_own_make_and_unmake_consultations() {
    let vhost = Broker::shared().await;
    let scene = Scene::new(&vhost).await;
    let peer = Peer::new(&vhost).await;
    let mut answers = peer.consume(ANSWERS).await;
    let mut told = peer.listen("told", &["video.consultation.#"]).await;
    // EV-15, in camelCase and flat; EV-25.
    let appointment = json!({"id": "a-1", "doctorId": "doc123", "patientId": "pat456",
        "appointmentType": "VIDEO", "startTime": "2099-01-25T14:00:00"});
    peer.send("appointment.created", &appointment).await;
    let (created, _) = answers.next_of("video.session.created").await;
    assert_eq!(created["data"]["appointment_id"], "a-1");
    peer.send("appointment.confirmed", &json!({"data": {"appointmentId": "a-1"}})).await;
    let confirmed = json!({"data": {"appointmentId": "a-2", "doctorId": "doc123",
        "patientId": "pat456", "consultationMode": "AUDIO", "scheduledStartTime": "2099-01-25T14:00:00Z"}});
    peer.send("appointment.confirmed", &confirmed).await;
    let (created, _) = answers.next_of("video.session.created").await;
    assert_eq!(created["data"]["appointment_id"], "a-2");
    // EV-16; of an appointment at the clinic we know nothing, and that is no error.
    peer.send("appointment.cancelled", &json!({"appointmentId": "at-the-clinic"})).await;
    peer.send("appointment.cancelled", &json!({"appointmentId": "a-1"})).await;
    let (ended, _) = told.next_of("video.consultation.ended").await;
    assert_eq!(ended["appointmentId"], "a-1");
    assert_eq!(ended["status"], "CANCELLED");
    until("no more retries", async || peer.messages(LIFECYCLE).await == 0).await;
    assert!(answers.is_quiet().await, "a cancelled appointment is not told as completed");
    assert_eq!(scene.counters().amqp_poison.value(), 0);
}

#[tokio::test]
async fn an_appointment_that_was_moved_is_held_at_its_new_time() {
    let vhost = Broker::shared().await;
    let scene = Scene::new(&vhost).await;
    let peer = Peer::new(&vhost).await;
    let mut answers = peer.consume(ANSWERS).await;
    let at = |time: &str| {
        let mut body = create("moved");
        body["data"]["scheduled_time"] = json!(time);
        body
    };
    peer.send(CREATE, &at("2090-01-25T14:00:00")).await;
    let (first, _) = answers.next_of("video.session.created").await;
    peer.send(CREATE, &at("2090-03-01T09:30:00")).await;
    let (moved, _) = answers.next_of("video.session.created").await;
    assert_eq!(moved["data"]["attendee_url"], first["data"]["attendee_url"]);
    assert_eq!(moved["data"]["session_id"], first["data"]["session_id"]);
    assert_eq!(moved["data"]["scheduled_start_utc"], "2090-03-01T09:30:00.000Z");
    let session = scene.sessions().await.remove(0);
    assert_eq!(session["scheduledStartTime"], "2090-03-01T09:30:00.000Z");
    // Stored, with all that follows from it: nobody is missed at the old time, and the link lives.
    let world = scene.restart(|_| {}).await;
    let control = &world.world.plane.control;
    let stored = control.of_appointment("demo", "moved").await.unwrap().expect("it is there");
    assert_eq!(stored.scheduled_start.to_rfc3339(), "2090-03-01T09:30:00+00:00");
    assert!(stored.due_at.expect("a timer") > stored.scheduled_start);
    let url = first["data"]["attendee_url"].as_str().unwrap();
    let exchanged = control.exchange(url.split('#').nth(1).unwrap()).await.expect("it is good");
    let link = control.link("demo", exchanged.claims.link.unwrap()).await.unwrap();
    assert!(link.expires_at > stored.scheduled_start);
    // What has begun is not moved, and is answered all the same.
    peer.send("appointment.video.start", &json!({"data": {"appointment_id": "moved"}})).await;
    answers.next_of("video.session.started").await;
    peer.send(CREATE, &at("2090-04-01T09:30:00")).await;
    let (late, _) = answers.next_of("video.session.created").await;
    assert_eq!(late["data"]["scheduled_start_utc"], "2090-03-01T09:30:00.000Z");
}

#[tokio::test]
async fn a_queue_that_was_deleted_meanwhile_is_made_again() {
    use lapin::options::QueueDeleteOptions;
    let vhost = Broker::shared().await;
    let peer = Peer::new(&vhost).await;
    // A queue of somebody else's: what it gives back is lost.
    peer.declare_exchange().await;
    peer.declare_queue(REQUESTS, &[CREATE]).await;
    let scene = Scene::new(&vhost).await;
    peer.send(CREATE, &json!({"poison": 1})).await;
    until("a first dead letter", async || peer.messages(DLQ).await == 1).await;
    let options = QueueDeleteOptions::default();
    peer.channel.queue_delete(DLQ.into(), options).await.unwrap();
    peer.send(CREATE, &json!({"poison": 2})).await;
    until("a second one", async || peer.messages(DLQ).await == 1).await;
    let mut dead = peer.consume(DLQ).await;
    assert_eq!(body_of(&dead.next().await), json!({"poison": 2}));
    assert_eq!(scene.counters().amqp_poison.value(), 2);
}
