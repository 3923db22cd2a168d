//! Peers that were here first, come later, are missing, or are written in Python.

use lapin::options::QueueDeleteOptions;

use super::*;
use crate::testing::broker::Broker;

const CREATE: &str = "appointment.video.create";

#[tokio::test]
async fn what_a_spring_service_declared_first_is_taken_as_it_is() {
    let vhost = Broker::shared().await;
    let spring = Peer::new(&vhost).await;
    spring.declare_exchange().await;
    spring.declare_queue(REQUESTS, &[CREATE]).await;
    spring.declare_queue(ANSWERS, &["video.session.created"]).await;
    let mut third = spring.listen("somebody-elses", &["appointment.#"]).await;
    spring.send(CREATE, &create("early")).await;
    let _scene = Scene::new(&vhost).await;
    let mut answers = spring.consume(ANSWERS).await;
    let (created, _) = answers.next_of("video.session.created").await;
    assert_eq!(created["data"]["appointment_id"], "early");
    // Our own queue got the bindings it lacked; theirs kept its own.
    let start = json!({"data": {"appointment_id": "early", "doctor_id": "doc123"}});
    spring.send("appointment.video.start", &start).await;
    assert_eq!(third.next().await.routing_key.as_str(), CREATE);
    assert_eq!(third.next().await.routing_key.as_str(), "appointment.video.start");
    assert!(answers.is_quiet().await);
}

#[tokio::test]
async fn a_spring_service_may_declare_after_us() {
    let vhost = Broker::shared().await;
    let _scene = Scene::new(&vhost).await;
    let sender = Peer::new(&vhost).await;
    // Its answer is kept until it comes.
    sender.send(CREATE, &create("before-you")).await;
    until("an answer", async || sender.messages(ANSWERS).await == 1).await;
    let spring = Peer::new(&vhost).await;
    spring.declare_exchange().await;
    let keys = ["video.session.created", "video.session.started", "video.session.completed"];
    spring.declare_queue(ANSWERS, &keys).await;
    let mut answers = spring.consume(ANSWERS).await;
    let (created, _) = answers.next_of("video.session.created").await;
    assert_eq!(created["data"]["appointment_id"], "before-you");
}

/// BEH-04.
#[tokio::test]
async fn two_servers_share_the_queue() {
    let vhost = Broker::shared().await;
    let scene = Scene::with(Database::postgres().await, vhost.config(), |_| {}).await;
    let config = scene.world.plane.control.config.clone();
    let second = crate::ControlPlane::open(config).await.unwrap();
    let (_facts, heard) = mpsc::channel(8);
    let _running = Running(tokio::spawn(second.clone().run(heard)));
    let peer = Peer::new(&vhost).await;
    until("two consumers", async || peer.count(REQUESTS).await.is_some_and(|(_, n)| n == 2)).await;
    let mut answers = peer.consume(ANSWERS).await;
    for number in 0..40 {
        peer.send(CREATE, &create(&format!("a-{number}"))).await;
    }
    let mut told = std::collections::BTreeSet::new();
    for _ in 0..40 {
        let (created, _) = answers.next_of("video.session.created").await;
        told.insert(created["data"]["appointment_id"].as_str().unwrap().to_owned());
    }
    assert_eq!(told.len(), 40);
    assert!(answers.is_quiet().await);
    let (one, two) =
        (scene.counters().amqp_consumed.value(), second.counters().amqp_consumed.value());
    assert_eq!(one + two, 40);
    assert!(one > 0 && two > 0, "{one} and {two}");
}

#[tokio::test]
async fn an_answer_that_no_queue_takes_stays_and_is_told() {
    let vhost = Broker::shared().await;
    let scene = Scene::new(&vhost).await;
    let peer = Peer::new(&vhost).await;
    let key = "video.session.created";
    let unbind = peer.channel.queue_unbind(ANSWERS.into(), EXCHANGE.into(), key.into(), none());
    unbind.await.unwrap();
    peer.send(CREATE, &create("unheard")).await;
    until("a returned message", async || scene.counters().amqp_returned.value() > 0).await;
    assert_eq!(scene.backlog().await, 1);
    // Without a queue it is the same; with a binding it arrives.
    peer.channel.queue_delete(ANSWERS.into(), QueueDeleteOptions::default()).await.unwrap();
    peer.declare_queue(ANSWERS, &[key]).await;
    let mut answers = peer.consume(ANSWERS).await;
    let (created, _) = answers.next_of(key).await;
    assert_eq!(created["data"]["appointment_id"], "unheard");
    until("an empty outbox", async || scene.backlog().await == 0).await;
}

/// A Spring service that binds its queue to the answers that it knows, and no others.
#[tokio::test]
async fn an_answer_that_nobody_wants_holds_up_none_that_is_wanted() {
    let vhost = Broker::shared().await;
    let spring = Peer::new(&vhost).await;
    spring.declare_exchange().await;
    spring.declare_queue(ANSWERS, &["video.session.created", "video.session.completed"]).await;
    let mut told = spring.listen("listener", &["video.consultation.started"]).await;
    let scene = Scene::new(&vhost).await;
    let mut answers = spring.consume(ANSWERS).await;
    spring.send(CREATE, &create("half-deaf")).await;
    answers.next_of("video.session.created").await;
    let which = json!({"data": {"appointment_id": "half-deaf", "doctor_id": "doc123"}});
    spring.send("appointment.video.start", &which).await;
    spring.send("appointment.video.end", &which).await;
    told.next_of("video.consultation.started").await;
    // The answer to the start is given back and tried again; its other half has arrived.
    until("some attempts", async || scene.counters().amqp_returned.value() >= 4).await;
    assert!(told.is_quiet().await, "told once, not once for each attempt");
    let (completed, _) = answers.next_of("video.session.completed").await;
    assert_eq!(completed["data"]["appointment_id"], "half-deaf");
    // It waits, should somebody bind a queue to it yet.
    until("all but one", async || scene.backlog().await == 1).await;
}

/// An exchange that brings everything to everybody, our own words too.
#[tokio::test]
async fn an_exchange_of_another_type_is_taken_as_it_is() {
    for kind in [ExchangeKind::Fanout, ExchangeKind::Headers, ExchangeKind::Direct] {
        let vhost = Broker::shared().await;
        let peer = Peer::new(&vhost).await;
        let options = ExchangeDeclareOptions { durable: true, ..Default::default() };
        let (name, none) = (EXCHANGE.into(), none());
        peer.channel.exchange_declare(name, kind.clone(), options, none).await.unwrap();
        let scene = Scene::new(&vhost).await;
        let mut answers = peer.consume(ANSWERS).await;
        peer.send(CREATE, &create("anyhow")).await;
        answers.next_of("video.session.created").await;
        let start = json!({"data": {"appointment_id": "anyhow", "doctor_id": "doc123"}});
        peer.send("appointment.video.start", &start).await;
        answers.next_of("video.session.started").await;
        until("an empty outbox", async || scene.backlog().await == 0).await;
        for queue in [REQUESTS, super::super::topology::LIFECYCLE] {
            until("an empty queue", async || peer.messages(queue).await == 0).await;
        }
        assert_eq!(
            scene.counters().amqp_poison.value(),
            0,
            "{kind:?}: our own words are no poison"
        );
        assert_eq!(scene.sessions().await.len(), 1);
    }
}

/// Where nothing is there yet, each question for it closes a channel, and no connection.
#[tokio::test]
async fn a_question_that_is_answered_no_is_no_lost_connection() {
    let vhost = Broker::shared().await;
    let scene = Scene::new(&vhost).await;
    let open = || scene.counters().amqp_connections.value();
    assert_eq!(open(), 1, "the one that listens");
    let peer = Peer::new(&vhost).await;
    let mut answers = peer.consume(ANSWERS).await;
    peer.send(CREATE, &create("first")).await;
    answers.next_of("video.session.created").await;
    assert_eq!(open(), 2, "and the one that sends");
}

/// What aio-pika sends by default: no content type, delivery mode 1, an aware `isoformat()`.
#[tokio::test]
#[ignore = "needs Python with aio-pika; scripts/test interop gives its path in E2E_PYTHON"]
async fn a_python_service_is_understood() {
    let vhost = Broker::shared().await;
    let _scene = Scene::new(&vhost).await;
    let python = std::env::var("E2E_PYTHON").expect("E2E_PYTHON names a Python with aio-pika");
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/interop/python/appointments.py");
    let url = vhost.url();
    let ran = tokio::task::spawn_blocking(move || {
        std::process::Command::new(python).args([script, &url]).output().expect("Python runs")
    });
    let ran = ran.await.unwrap();
    let told = String::from_utf8_lossy(&ran.stderr);
    assert!(ran.status.success(), "{told}");
    assert!(String::from_utf8_lossy(&ran.stdout).contains("whole visit"), "{told}");
}
