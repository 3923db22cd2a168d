//! Against Apache Kafka itself: one node of one's own (KRaft), from the jars that
//! `tests/kafka/fetch` has fetched.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rskafka::client::partition::{Compression, PartitionClient, UnknownTopicHandling};
use rskafka::record::Record;
use serde_json::{Value, json};
use tempfile::TempDir;
use uuid::Uuid;

use super::*;
use crate::events::encode::kafka as words;
use crate::events::{About, Event, samples};
use crate::store;
use crate::store::outbox::Along;
use crate::testing::{Database, World};

/// A node that can be killed and started again on what it has kept.
struct Broker {
    folder: TempDir,
    libs: PathBuf,
    port: u16,
    child: Option<Child>,
}

fn free_port() -> u16 {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener.local_addr().expect("an address").port()
}

impl Broker {
    fn start() -> Self {
        let libs = Path::new(env!("CARGO_MANIFEST_DIR")).join("../.cache/kafka/libs");
        assert!(libs.is_dir(), "Kafka is missing: run tests/kafka/fetch");
        let folder = tempfile::tempdir().expect("a folder");
        let (port, controller) = (free_port(), free_port());
        let settings = format!(
            "process.roles=broker,controller\nnode.id=1\n\
             controller.quorum.voters=1@127.0.0.1:{controller}\n\
             listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller}\n\
             advertised.listeners=PLAINTEXT://127.0.0.1:{port}\n\
             controller.listener.names=CONTROLLER\n\
             listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT\n\
             log.dirs={}/data\noffsets.topic.replication.factor=1\n\
             auto.create.topics.enable=false\n",
            folder.path().display()
        );
        std::fs::write(folder.path().join("settings"), settings).expect("writes");
        let mut broker = Self { folder, libs, port, child: None };
        let id = ["format", "--cluster-id", "MkU3OEVBNTcwNTJENDM2Qg", "--config"];
        let format =
            broker.java("kafka.tools.StorageTool").args(id).arg(broker.settings()).status();
        assert!(format.expect("java runs").success(), "the storage is formatted");
        broker.start_again();
        broker
    }

    fn settings(&self) -> PathBuf {
        self.folder.path().join("settings")
    }

    fn java(&self, class: &str) -> Command {
        let mut command = Command::new("java");
        command
            .args(["-Xmx384m", "-XX:TieredStopAtLevel=1", "-cp"])
            .arg(format!("{}/*", self.libs.display()))
            .arg(class)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        command
    }

    fn start_again(&mut self) {
        let settings = self.settings();
        self.child = Some(self.java("kafka.Kafka").arg(settings).spawn().expect("java runs"));
    }

    fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().expect("it is killed");
            child.wait().expect("it is gone");
        }
    }

    fn config(&self) -> KafkaConfig {
        let bootstrap_servers = vec![format!("127.0.0.1:{}", self.port)];
        KafkaConfig { bootstrap_servers, partitions: 3, ..KafkaConfig::default() }
    }

    /// The partitions of a topic, as soon as it is there.
    async fn topic(&self, name: &str) -> Vec<PartitionClient> {
        let deadline = Instant::now() + Duration::from_secs(90);
        loop {
            if let Ok(client) = connection::connect(&self.config()).await
                && let Ok(found) = connection::partitions(&client, name).await
                && !found.is_empty()
            {
                return found;
            }
            assert!(Instant::now() < deadline, "the topic {name} is not there");
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }

    /// Makes a topic with one partition.
    async fn make(&self, name: &str) -> PartitionClient {
        let deadline = Instant::now() + Duration::from_secs(90);
        let client = loop {
            match connection::connect(&self.config()).await {
                Ok(client) => break client,
                Err(error) => assert!(Instant::now() < deadline, "{error}"),
            }
        };
        let controller = client.controller_client().expect("a controller");
        controller.create_topic(name, 1, 1, 5_000).await.expect("the topic is made");
        let handling = UnknownTopicHandling::Retry;
        client.partition_client(name, 0, handling).await.expect("its partition")
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        self.kill();
    }
}

async fn records(partitions: &[PartitionClient]) -> Vec<Record> {
    let mut all = Vec::new();
    for partition in partitions {
        let mut next = 0;
        loop {
            let (records, end) =
                partition.fetch_records(next, 1..10_000_000, 500).await.expect("reads");
            next = records.last().map_or(next, |last| last.offset + 1);
            all.extend(records.into_iter().map(|record| record.record));
            if next >= end {
                break;
            }
        }
    }
    all
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).expect("text")
}

/// One of each kind for a consultation of its own, in the order of the samples.
async fn store_all(world: &World) -> Vec<Event> {
    let session_id = Uuid::new_v4();
    let events: Vec<Event> = samples::all()
        .into_iter()
        .map(|event| Event {
            id: Uuid::now_v7(),
            at: store::now(),
            about: event.about.map(|about| About { session_id, ..about }),
            ..event
        })
        .collect();
    let control = &world.plane.control;
    let along = Along { events: &events, sinks: &control.sinks, message: None };
    assert!(control.db.append_events(&along, store::now()).await.expect("stores"));
    control.outbox_rang.notify_waiters();
    events
}

async fn drained(world: &World) {
    let deadline = Instant::now() + Duration::from_secs(120);
    while world.plane.control.db.backlog(&Sink::Kafka).await.expect("counts") > 0 {
        assert!(Instant::now() < deadline, "events wait for ever");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

async fn world_with(broker: &Broker) -> (World, tokio::task::JoinHandle<()>) {
    let world =
        World::with(Database::sqlite(), |config| config.kafka = Some(broker.config())).await;
    let control = Arc::clone(&world.plane.control);
    let running = tokio::spawn(run(control, broker.config()));
    (world, running)
}

/// EV-18 to EV-24: every event is read back, each in its consultation's order, although the broker
/// was killed among them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_event_is_read_back_although_the_broker_dies() {
    let mut broker = Broker::start();
    let (world, running) = world_with(&broker).await;
    let mut stored = store_all(&world).await;
    drained(&world).await;
    for round in 0..60 {
        if round == 20 {
            broker.kill();
        }
        if round == 40 {
            broker.start_again();
        }
        stored.extend(store_all(&world).await);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    drained(&world).await;
    // Looked at, it has our topic, and nobody has made the other one.
    let seen = probe::kafka(&broker.config()).await;
    assert_eq!(seen, Ok(vec!["appointment-events".to_owned()]));
    let topic = broker.topic("consultation-events").await;
    assert_eq!(topic.len(), 3);
    let records = records(&topic).await;
    let mut missing: Vec<String> = Vec::new();
    for event in &stored {
        let expected = words::encode(event);
        let is_it = |record: &&Record| text(&record.headers["event-id"]) == expected.id;
        let Some(record) = records.iter().find(is_it) else {
            missing.push(expected.event_type);
            continue;
        };
        assert_eq!(record.value.as_deref(), Some(expected.body.as_slice()));
        assert_eq!(record.key.as_deref(), Some(expected.key.as_bytes()));
        assert_eq!(text(&record.headers["event-type"]), expected.event_type);
    }
    assert_eq!(missing, Vec::<String>::new(), "of {}", stored.len());
    // In order: repeats are allowed, going back is not.
    for event in stored.iter().filter(|event| event.about.is_some()).step_by(13) {
        let key = words::encode(event).key;
        let mut seen: Vec<Uuid> = Vec::new();
        for record in records.iter().filter(|r| r.key.as_deref() == Some(key.as_bytes())) {
            let id = text(&record.headers["event-id"]).parse().expect("an id");
            if !seen.contains(&id) {
                seen.push(id);
            }
        }
        let of_it = stored.iter().filter(|other| words::encode(other).key == key);
        assert_eq!(seen, of_it.map(|event| event.id).collect::<Vec<_>>());
    }
    running.abort();
}

fn confirmed(appointment: &str, snake: bool) -> Record {
    let when = (store::now() + chrono::Duration::hours(1)).to_rfc3339();
    let body = if snake {
        json!({
            "event_type": "appointment.confirmed", "appointment_id": appointment,
            "doctor_id": "doc", "patient_id": "pat", "scheduled_time": when,
            "appointment_type": "VIDEO", "unknown": { "more": [1, 2] },
        })
    } else {
        json!({
            "eventType": "appointment.confirmed.v1", "eventTime": when, "source": "appointments",
            "data": {
                "appointmentId": appointment, "doctorId": "doc", "patientId": "pat",
                "scheduledStartTime": when, "consultationMode": "VIDEO",
            },
        })
    };
    record(body.to_string().into_bytes())
}

fn record(body: Vec<u8>) -> Record {
    Record {
        key: Some(b"key".to_vec()),
        value: Some(body),
        headers: std::collections::BTreeMap::new(),
        timestamp: store::now(),
    }
}

async fn consultations(world: &World) -> usize {
    let path = "/api/v1/consultations/sessions?limit=200";
    let (_, page) = world.get(path, &crate::testing::service()).await;
    page["items"].as_array().map_or(0, Vec::len)
}

/// EV-25: whatever lies around them, confirmed appointments get one consultation each, over a
/// restart of ours and repeated records, too.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn confirmed_appointments_get_one_consultation_each() {
    let broker = Broker::start();
    let topic = broker.make("appointment-events").await;
    let first = vec![
        record(b"no JSON".to_vec()),
        confirmed("a-1", false),
        record(json!({ "eventType": "appointment.rescheduled" }).to_string().into_bytes()),
        confirmed("a-2", true),
        confirmed("a-1", false),
        record(json!({ "eventType": "appointment.confirmed" }).to_string().into_bytes()),
        record(vec![0xff; 100]),
    ];
    topic.produce(first, Compression::Gzip).await.expect("produces");
    let (world, running) = world_with(&broker).await;
    let read_up_to = async |offset: i64| {
        let deadline = Instant::now() + Duration::from_secs(60);
        let db = &world.plane.control.db;
        while db.next_offset("kafka:appointment-events", 0).await.expect("reads") != Some(offset) {
            assert!(Instant::now() < deadline, "the topic is not read");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    read_up_to(7).await;
    assert_eq!(consultations(&world).await, 2);
    running.abort();
    let compressions = [Compression::Lz4, Compression::Snappy, Compression::Zstd];
    for (index, compression) in compressions.into_iter().enumerate() {
        let batch = vec![confirmed(&format!("b-{index}"), true), confirmed("a-2", true)];
        topic.produce(batch, compression).await.expect("produces");
    }
    let again = tokio::spawn(run(Arc::clone(&world.plane.control), broker.config()));
    read_up_to(13).await;
    assert_eq!(consultations(&world).await, 5);
    again.abort();
    let (_, events) = world.get("/api/v1/events", &crate::testing::service()).await;
    let created = |item: &&Value| item["type"] == "consultation.session.created.v1";
    assert_eq!(events["items"].as_array().expect("a list").iter().filter(created).count(), 5);
}

#[tokio::test]
async fn nobody_there_is_away() {
    let port = free_port();
    let config = KafkaConfig {
        bootstrap_servers: vec![format!("127.0.0.1:{port}")],
        ..KafkaConfig::default()
    };
    let deliver = producer::deliver(config);
    let unsent = samples::all().into_iter().map(|event| store::outbox::Unsent {
        position: 1,
        attempts: 0,
        event,
    });
    let outcomes = deliver(unsent.collect()).await;
    assert_eq!(outcomes, vec![relay::Outcome::Away; 13]);
}

#[test]
fn tls_trusts_what_it_is_told() {
    for bad in
        ["", "no certificate", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----"]
    {
        assert!(connection::tls(Some(bad)).is_err(), "{bad}");
    }
}
