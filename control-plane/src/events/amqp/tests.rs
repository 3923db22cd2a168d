//! Against a real broker. Each test has a virtual host of its own; peers are played by a plain
//! client that declares and sends as Spring and aio-pika do.

mod broker_away;
mod effects;
mod looked_at;
mod peers;
mod walk;

use std::time::{Duration, Instant};

use bedside_signaling::rooms::Fact;
use futures_util::StreamExt as _;
use lapin::message::Delivery;
use lapin::options::{
    BasicAckOptions, BasicConsumeOptions, BasicPublishOptions, ConfirmSelectOptions,
    ExchangeDeclareOptions, QueueBindOptions, QueueDeclareOptions,
};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{BasicProperties, Channel, Connection, ExchangeKind};
use serde_json::{Value, json};
use tokio::sync::mpsc;

use super::topology::{ANSWERS, REQUESTS};
use crate::testing::broker::Vhost;
use crate::testing::{Database, World};
use crate::{ControlConfig, RabbitConfig};

const EXCHANGE: &str = "appointments-exchange";
/// Anything that should happen happens within this, also on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// Bedside with a broker, running.
struct Scene {
    world: World,
    /// Held: without it the control plane would end.
    _facts: mpsc::Sender<Fact>,
    running: Running,
}

struct Running(tokio::task::JoinHandle<()>);

impl Scene {
    /// Listening to the broker already.
    async fn new(vhost: &Vhost<'static>) -> Self {
        let scene = Self::with(Database::sqlite(), vhost.config(), |_| {}).await;
        Peer::new(vhost).await.until_listened_to().await;
        scene
    }

    async fn with(
        database: Database,
        rabbitmq: RabbitConfig,
        change: impl FnOnce(&mut ControlConfig),
    ) -> Self {
        let world = World::with(database, |config| {
            config.rabbitmq = Some(rabbitmq);
            change(config);
        })
        .await;
        Self::run(world)
    }

    /// The process ends here, and another one begins on the same database.
    async fn restart(self, change: impl FnOnce(&mut ControlConfig)) -> Self {
        drop(self.running);
        let world = self.world.restart_with(change).await;
        Self::run(world)
    }

    fn run(world: World) -> Self {
        let (facts, heard) = mpsc::channel(8);
        let running = Running(tokio::spawn(world.plane.clone().run(heard)));
        Self { world, _facts: facts, running }
    }

    fn counters(&self) -> &crate::counters::ControlCounters {
        self.world.plane.counters()
    }

    async fn sessions(&self) -> Vec<Value> {
        let path = "/api/v1/consultations/sessions?limit=100";
        let (status, page) = self.world.get(path, &crate::testing::service()).await;
        assert!(status.is_success(), "{page}");
        page["items"].as_array().cloned().expect("a page")
    }

    async fn backlog(&self) -> i64 {
        let control = &self.world.plane.control;
        control.db.backlog(&crate::events::Sink::RabbitMq).await.expect("the database answers")
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Waits until something is so.
async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let start = Instant::now();
    while !holds().await {
        assert!(start.elapsed() < PATIENCE, "{what}: not within {PATIENCE:?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Another service.
struct Peer {
    _connection: Connection,
    channel: Channel,
}

impl Peer {
    async fn new(vhost: &Vhost<'static>) -> Self {
        let connection = vhost.connect().await;
        let channel = connection.create_channel().await.unwrap();
        channel.confirm_select(ConfirmSelectOptions::default()).await.unwrap();
        Self { _connection: connection, channel }
    }

    /// As `new TopicExchange(name)` does.
    async fn declare_exchange(&self) {
        let options = ExchangeDeclareOptions { durable: true, ..Default::default() };
        let name = EXCHANGE.into();
        self.channel.exchange_declare(name, ExchangeKind::Topic, options, none()).await.unwrap();
    }

    /// As `new Queue(name)` and a binding do.
    async fn declare_queue(&self, name: &str, keys: &[&str]) {
        let options = QueueDeclareOptions { durable: true, ..Default::default() };
        self.channel.queue_declare(name.into(), options, none()).await.unwrap();
        self.bind(name, keys).await;
    }

    async fn bind(&self, name: &str, keys: &[&str]) {
        for key in keys {
            let options = QueueBindOptions::default();
            let bound = self.channel.queue_bind(
                name.into(),
                EXCHANGE.into(),
                (*key).into(),
                options,
                none(),
            );
            bound.await.unwrap();
        }
    }

    /// Waits until our consumers are there: then everything is declared and bound.
    async fn until_listened_to(&self) {
        until("a consumer", async || {
            self.count(REQUESTS).await.is_some_and(|(_, consumers)| consumers > 0)
                && self.count(super::topology::LIFECYCLE).await.is_some_and(|(_, c)| c > 0)
        })
        .await;
    }

    /// Messages and consumers of a queue.
    async fn count(&self, queue: &str) -> Option<(u32, u32)> {
        let channel = self._connection.create_channel().await.ok()?;
        let passive = QueueDeclareOptions { passive: true, ..Default::default() };
        let queue = channel.queue_declare(queue.into(), passive, none()).await.ok()?;
        Some((queue.message_count(), queue.consumer_count()))
    }

    async fn messages(&self, queue: &str) -> u32 {
        self.count(queue).await.map_or(0, |(messages, _)| messages)
    }

    /// As a `RabbitTemplate` with a `Jackson2JsonMessageConverter` does.
    async fn send(&self, key: &str, body: &Value) {
        let mut headers = FieldTable::default();
        let class = "com.clinic.events.VideoSessionEvent";
        headers.insert("__TypeId__".into(), AMQPValue::LongString(class.into()));
        let properties = BasicProperties::default()
            .with_content_type("application/json".into())
            .with_content_encoding("UTF-8".into())
            .with_headers(headers)
            .with_priority(0)
            .with_delivery_mode(2);
        self.send_with(key, body.to_string().as_bytes(), properties).await;
    }

    async fn send_with(&self, key: &str, body: &[u8], properties: BasicProperties) {
        self.try_send(key, body, properties).await.expect("the broker takes it");
    }

    async fn try_send(
        &self,
        key: &str,
        body: &[u8],
        properties: BasicProperties,
    ) -> lapin::Result<()> {
        let options = BasicPublishOptions::default();
        let sent =
            self.channel.basic_publish(EXCHANGE.into(), key.into(), options, body, properties);
        assert!(sent.await?.await?.is_ack());
        Ok(())
    }

    /// Listens to a queue of its own with these bindings.
    async fn listen(&self, name: &str, keys: &[&str]) -> Heard {
        self.declare_queue(name, keys).await;
        self.consume(name).await
    }

    async fn consume(&self, queue: &str) -> Heard {
        let (tag, options) = (format!("peer of {queue}"), BasicConsumeOptions::default());
        let consumer = self.channel.basic_consume(queue.into(), tag.into(), options, none());
        Heard { consumer: consumer.await.unwrap() }
    }
}

/// What a peer hears.
struct Heard {
    consumer: lapin::Consumer,
}

impl Heard {
    async fn next(&mut self) -> Delivery {
        let next = tokio::time::timeout(PATIENCE, self.consumer.next()).await;
        let delivery = next.expect("a message in time").expect("the queue is there").unwrap();
        delivery.ack(BasicAckOptions::default()).await.unwrap();
        delivery
    }

    /// The next one with this key; others before it are passed over.
    async fn next_of(&mut self, key: &str) -> (Value, Delivery) {
        loop {
            let delivery = self.next().await;
            if delivery.routing_key.as_str() == key {
                return (body_of(&delivery), delivery);
            }
        }
    }

    /// Nothing more comes for a while.
    async fn is_quiet(&mut self) -> bool {
        tokio::time::timeout(Duration::from_millis(1500), self.consumer.next()).await.is_err()
    }
}

fn body_of(delivery: &Delivery) -> Value {
    serde_json::from_slice(&delivery.data).expect("JSON")
}

fn header(delivery: &Delivery, name: &str) -> Option<String> {
    match delivery.properties.headers().as_ref()?.inner().get(name)? {
        AMQPValue::LongString(text) => Some(String::from_utf8_lossy(text.as_bytes()).into_owned()),
        other => Some(format!("{other:?}")),
    }
}

fn none() -> FieldTable {
    FieldTable::default()
}

/// EV-01, for an appointment of tomorrow.
fn create(appointment: &str) -> Value {
    let tomorrow = chrono::Utc::now() + chrono::Duration::days(1);
    json!({
        "event_type": "appointment.video.create",
        "timestamp": "2026-01-24T10:30:00",
        "data": {
            "appointment_id": appointment,
            "doctor_id": "doc123",
            "patient_id": "pat456",
            "scheduled_time": tomorrow.format("%Y-%m-%dT%H:%M:%S").to_string(),
        }
    })
}
