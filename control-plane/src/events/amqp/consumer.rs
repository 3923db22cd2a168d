//! Consuming: a message is settled only after its effect is stored.
//!
//! Each queue is read in order. What cannot be followed yet (a start that was faster than its
//! create) waits in a queue of its own and comes back; what can never be followed goes to the
//! dead letters with the reason; while the database is away, messages wait where they are.
//! Deliveries are counted: by the broker where its queue does so, else by us.

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use lapin::BasicProperties;
use lapin::message::Delivery;
use lapin::options::{BasicAckOptions, BasicConsumeOptions, BasicQosOptions, BasicRejectOptions};
use lapin::types::{AMQPValue, FieldTable, ShortString};
use uuid::Uuid;

use super::backoff::Backoff;
use super::connection::{ConnectError, Line};
use super::effects::{self, Effect};
use super::publisher::{APP_ID, Fate, Post, Publisher};
use super::{RabbitConfig, topology};
use crate::control::Control;
use crate::events::inbound::{self, Inbound, Message, Poison};

/// How many messages of a queue are here at once.
const PREFETCH: u16 = 16;
/// How long to wait before the database, or the way to the dead letters, is tried again.
const PAUSE: Duration = Duration::from_secs(1);

/// How often a message has come back from waiting.
const ATTEMPTS: &str = "x-bedside-attempts";
/// The address that it had before it waited.
const ROUTING_KEY: &str = "x-bedside-routing-key";
/// Why it is a dead letter.
const REASON: &str = "x-reject-reason";
/// How often a quorum queue has delivered it in vain.
const DELIVERY_COUNT: &str = "x-delivery-count";

/// Listens until the process ends.
pub(super) async fn run(control: Arc<Control>, config: RabbitConfig) {
    let aside = Publisher::new(Arc::clone(&control), config.clone(), "set aside");
    let listener = Listener { control, config, aside };
    let mut backoff = Backoff::default();
    loop {
        let ended = listener.listen(&mut backoff).await;
        listener.control.pulse.broker(false);
        match ended {
            Ok(()) => tracing::warn!("a queue of the broker is gone; looking for it again"),
            Err(error) => tracing::warn!(%error, "messages are not taken from the broker"),
        }
        tokio::time::sleep(backoff.after_failure()).await;
    }
}

/// Makes the queues in which messages wait until somebody listens.
pub(super) async fn park(control: Arc<Control>, config: RabbitConfig) {
    let mut backoff = Backoff::default();
    loop {
        let declared: Result<(), ConnectError> = async {
            let line = Arc::new(Line::open(&control, &config, "consumer").await?);
            topology::declare(&line, &config).await.map_err(ConnectError::from)
        }
        .await;
        match declared {
            Ok(()) => return control.pulse.broker(true),
            Err(error) => tracing::warn!(%error, "the queues cannot be made"),
        }
        control.pulse.broker(false);
        tokio::time::sleep(backoff.after_failure()).await;
    }
}

struct Listener {
    control: Arc<Control>,
    config: RabbitConfig,
    /// Where messages are put that wait or are dead: a connection of its own, so that a broker
    /// that takes no messages still hears what was settled.
    aside: Publisher,
}

impl Listener {
    /// Until the connection breaks or a queue is gone.
    async fn listen(&self, backoff: &mut Backoff) -> Result<(), ConnectError> {
        let line = Arc::new(Line::open(&self.control, &self.config, "consumer").await?);
        topology::declare(&line, &self.config).await?;
        backoff.reset();
        self.control.pulse.broker(true);
        tracing::info!("listening to the broker");
        let both = tokio::select! {
            ended = self.drain(&line, topology::REQUESTS) => ended,
            ended = self.drain(&line, topology::LIFECYCLE) => ended,
        };
        both.map_err(ConnectError::from)
    }

    async fn drain(&self, line: &Line, queue: &'static str) -> Result<(), lapin::Error> {
        let channel = line.channel().await?;
        channel.basic_qos(PREFETCH, BasicQosOptions::default()).await?;
        let options = BasicConsumeOptions::default();
        let tag = ShortString::from(format!("bedside-{}", Uuid::new_v4()));
        let none = FieldTable::default();
        let mut deliveries = channel.basic_consume(queue.into(), tag, options, none).await?;
        while let Some(delivery) = deliveries.next().await {
            self.take(queue, delivery?).await?;
        }
        Ok(())
    }

    /// One delivery, to its end.
    async fn take(&self, queue: &'static str, delivery: Delivery) -> Result<(), lapin::Error> {
        let post = Incoming::of(&delivery);
        self.control.counters.amqp_consumed.add();
        if post.ours {
            return delivery.ack(BasicAckOptions::default()).await.map(drop);
        }
        let effect = match post.counted() {
            Counted::Fresh => self.effect(&post, &delivery).await,
            Counted::TooOften => Effect::Never("delivered too often without success"),
            // A queue that does not count: this one may be what ended an earlier process.
            Counted::Again => Effect::NotYet("delivered again"),
        };
        match effect {
            Effect::Done => delivery.ack(BasicAckOptions::default()).await.map(drop),
            Effect::Never(reason) => self.bury(queue, &post, delivery, reason).await,
            Effect::NotYet(reason) => match self.wait_for(post.attempts) {
                Some(wait) => {
                    self.control.counters.amqp_retried.add();
                    tracing::info!(reason, attempts = post.attempts, "a message waits");
                    let room = topology::waiting_room(queue, wait);
                    let later = post.again(&delivery, String::new(), room, None);
                    self.move_to(later, delivery).await
                }
                None => self.bury(queue, &post, delivery, reason).await,
            },
            Effect::NotYetOrNever => match self.wait_for(post.attempts) {
                Some(wait) => {
                    self.control.counters.amqp_retried.add();
                    let room = topology::waiting_room(queue, wait);
                    let later = post.again(&delivery, String::new(), room, None);
                    self.move_to(later, delivery).await
                }
                None => delivery.ack(BasicAckOptions::default()).await.map(drop),
            },
        }
    }

    /// What the message does. While the database is away it is tried again and again.
    async fn effect(&self, post: &Incoming, delivery: &Delivery) -> Effect {
        let inbound = match post.read(delivery, &self.control) {
            Ok(inbound) => inbound,
            Err(poison) => return Effect::Never(poison.reason()),
        };
        tracing::info!(event = inbound.kind.name(), "received event");
        loop {
            match effects::apply(&self.control, &inbound).await {
                Ok(effect) => return effect,
                Err(error) => {
                    tracing::warn!(%error, "a message waits for the database");
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
    }

    /// How long a message waits that has waited `attempts` times; None: often enough.
    fn wait_for(&self, attempts: i64) -> Option<Duration> {
        if attempts + 1 >= topology::MAX_DELIVERIES {
            return None;
        }
        let index = usize::try_from(attempts).unwrap_or(0);
        self.config.retries.get(index).or_else(|| self.config.retries.last()).copied()
    }

    /// To the dead letters, with the reason.
    async fn bury(
        &self,
        queue: &str,
        post: &Incoming,
        delivery: Delivery,
        reason: &str,
    ) -> Result<(), lapin::Error> {
        self.control.counters.amqp_poison.add();
        tracing::warn!(reason, queue, "a message goes to the dead letters");
        let exchange = topology::dead_letters(&self.config);
        let key = post.routing_key.clone();
        let dead = post.again(&delivery, exchange, key, Some(reason));
        self.move_to(dead, delivery).await
    }

    /// Publishes elsewhere, then settles here: in this order nothing is lost.
    async fn move_to(&self, post: Post, delivery: Delivery) -> Result<(), lapin::Error> {
        let post = [post];
        let mut looked_again = false;
        loop {
            match self.aside.publish(&post).await.first() {
                Some(Fate::Confirmed) => {
                    return delivery.ack(BasicAckOptions::default()).await.map(drop);
                }
                // Somebody has deleted the queue since we made it: it is made again.
                Some(Fate::Returned) if !looked_again => {
                    looked_again = true;
                    self.aside.begin_anew().await;
                }
                // Nowhere to put it: the queue's own dead-letter rule is what is left.
                Some(Fate::Returned) => {
                    tracing::error!("no queue takes what is set aside; the broker decides");
                    let options = BasicRejectOptions { requeue: false };
                    return delivery.reject(options).await.map(drop);
                }
                Some(Fate::Nacked | Fate::Unknown) | None => tokio::time::sleep(PAUSE).await,
            }
        }
    }
}

/// How a message came.
struct Incoming {
    /// The address that the sender gave it.
    routing_key: String,
    /// How often it has waited.
    attempts: i64,
    /// How often the broker has delivered it in vain; None where it does not count.
    delivered: Option<i64>,
    redelivered: bool,
    /// We have sent it ourselves: some exchanges and bindings bring everything to every queue.
    ours: bool,
}

enum Counted {
    Fresh,
    Again,
    TooOften,
}

impl Incoming {
    fn of(delivery: &Delivery) -> Self {
        let headers = delivery.properties.headers().as_ref().map(FieldTable::inner);
        let header = |name: &str| headers.and_then(|headers| headers.get(name));
        let routing_key = match header(ROUTING_KEY) {
            Some(AMQPValue::LongString(key)) => {
                String::from_utf8_lossy(key.as_bytes()).into_owned()
            }
            _ => delivery.routing_key.as_str().to_owned(),
        };
        Self {
            routing_key,
            attempts: header(ATTEMPTS).and_then(whole).unwrap_or(0).max(0),
            delivered: header(DELIVERY_COUNT).and_then(whole),
            redelivered: delivery.redelivered,
            ours: delivery.properties.app_id().as_ref().is_some_and(|app| app.as_str() == APP_ID),
        }
    }

    fn counted(&self) -> Counted {
        match self.delivered {
            Some(count) if count >= topology::MAX_DELIVERIES => Counted::TooOften,
            Some(_) => Counted::Fresh,
            None if self.redelivered => Counted::Again,
            None => Counted::Fresh,
        }
    }

    fn read(&self, delivery: &Delivery, control: &Control) -> Result<Inbound, Poison> {
        let properties = &delivery.properties;
        let text = |text: &'_ Option<ShortString>| text.as_ref().map(|t| t.as_str().to_owned());
        let (message_id, correlation_id) =
            (text(properties.message_id()), text(properties.correlation_id()));
        let (content_type, encoding) =
            (text(properties.content_type()), text(properties.content_encoding()));
        let event_type = text(properties.kind());
        let message = Message {
            routing_key: &self.routing_key,
            message_id: message_id.as_deref(),
            correlation_id: correlation_id.as_deref(),
            content_type: content_type.as_deref(),
            content_encoding: encoding.as_deref(),
            event_type: event_type.as_deref(),
            body: &delivery.data,
        };
        inbound::read(&message, control.config.naive_timezone)
    }

    /// The same message, for another address.
    fn again(
        &self,
        delivery: &Delivery,
        exchange: String,
        routing_key: String,
        reason: Option<&str>,
    ) -> Post {
        let mut headers = carried_headers(&delivery.properties);
        let text = |text: &str| AMQPValue::LongString(text.into());
        headers.insert(ROUTING_KEY.into(), text(&self.routing_key));
        let (name, value) = match reason {
            Some(reason) => (REASON, text(reason)),
            None => (ATTEMPTS, AMQPValue::LongLongInt(self.attempts + 1)),
        };
        headers.insert(name.into(), value);
        Post {
            id: Uuid::new_v4(),
            exchange,
            routing_key,
            mandatory: true,
            properties: carried(&delivery.properties).with_headers(headers),
            body: delivery.data.clone(),
        }
    }
}

/// What goes along when a message moves. Not the sender's `user_id`, which the broker would refuse
/// from us, and no `expiration`: a dead letter stays.
fn carried(from: &BasicProperties) -> BasicProperties {
    let mut to = BasicProperties::default().with_delivery_mode(2);
    macro_rules! carry {
        ($($get:ident, $with:ident;)*) => {
            $(if let Some(value) = from.$get() { to = to.$with(value.clone()); })*
        };
    }
    carry! {
        content_type, with_content_type;
        content_encoding, with_content_encoding;
        priority, with_priority;
        correlation_id, with_correlation_id;
        reply_to, with_reply_to;
        message_id, with_message_id;
        timestamp, with_timestamp;
        kind, with_type;
        app_id, with_app_id;
    }
    to
}

/// The headers without those that the broker acts on: `CC` and `BCC` would send copies.
fn carried_headers(from: &BasicProperties) -> FieldTable {
    let mut to = FieldTable::default();
    for (name, value) in from.headers().iter().flat_map(|headers| headers.inner()) {
        if !matches!(name.as_str(), "CC" | "BCC" | DELIVERY_COUNT) {
            to.insert(name.clone(), value.clone());
        }
    }
    to
}

fn whole(value: &AMQPValue) -> Option<i64> {
    match value {
        AMQPValue::ShortShortInt(n) => Some(i64::from(*n)),
        AMQPValue::ShortShortUInt(n) => Some(i64::from(*n)),
        AMQPValue::ShortInt(n) => Some(i64::from(*n)),
        AMQPValue::ShortUInt(n) => Some(i64::from(*n)),
        AMQPValue::LongInt(n) => Some(i64::from(*n)),
        AMQPValue::LongUInt(n) => Some(i64::from(*n)),
        AMQPValue::LongLongInt(n) => Some(*n),
        _ => None,
    }
}
