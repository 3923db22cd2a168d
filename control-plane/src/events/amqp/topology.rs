//! Exchange, queues and bindings.
//!
//! A declaration that differs from what is there closes the channel, and the other side may well
//! have been first. So each thing is asked for passively, on a channel of its own; what is found
//! is taken as it is, and only what is missing is made. Our own queues are then quorum queues with
//! a dead-letter exchange and a delivery limit. The peer's answer queue is made plain, because a
//! Spring service declares it so and would fail on anything else; it is made at all so that answers
//! from before the peer's first start are kept.

use std::sync::Arc;
use std::time::Duration;

use lapin::options::{ExchangeDeclareOptions, QueueBindOptions, QueueDeclareOptions};
use lapin::types::{AMQPValue, FieldTable, ShortString};
use lapin::{ErrorKind, ExchangeKind};

use super::RabbitConfig;
use super::connection::Line;

/// Where creates, starts and ends come in.
pub(super) const REQUESTS: &str = "video-session-requests";
/// Where the appointments' own events come in.
pub(super) const LIFECYCLE: &str = "video-appointment-lifecycle";
/// Where the appointment service takes its answers from.
pub(super) const ANSWERS: &str = "video-session-responses-appointments";

/// How often a message is delivered before it is put aside.
pub(super) const MAX_DELIVERIES: i64 = 5;

const REQUEST_KEYS: [&str; 3] =
    ["appointment.video.create", "appointment.video.start", "appointment.video.end"];
const LIFECYCLE_KEYS: [&str; 3] =
    ["appointment.created", "appointment.cancelled", "appointment.confirmed"];
const ANSWER_KEYS: [&str; 4] = [
    "video.session.created",
    "video.session.started",
    "video.session.completed",
    "video.session.creation.failed",
];

/// AMQP's "there is no such thing".
const NOT_FOUND: u16 = 404;

/// Where a message goes that can never be followed.
pub(super) fn dead_letters(config: &RabbitConfig) -> String {
    format!("{}.dlx", config.exchange)
}

/// Where a message waits before it comes back to `queue`.
pub(super) fn waiting_room(queue: &str, wait: Duration) -> String {
    let ms = wait.as_millis();
    if ms >= 60_000 && ms.is_multiple_of(60_000) {
        format!("{queue}.retry.{}m", ms / 60_000)
    } else if ms.is_multiple_of(1_000) {
        format!("{queue}.retry.{}s", ms / 1_000)
    } else {
        format!("{queue}.retry.{ms}ms")
    }
}

/// Makes what is missing.
pub(super) async fn declare(line: &Arc<Line>, config: &RabbitConfig) -> Result<(), lapin::Error> {
    let dlx = dead_letters(config);
    exchange(line, &config.exchange, kind_of(&config.exchange_type)).await?;
    exchange(line, &dlx, ExchangeKind::Topic).await?;
    let dlq = format!("{REQUESTS}.dlq");
    queue(line, &dlq, quorum()).await?;
    bind(line, &dlq, &dlx, &["#"]).await?;
    for (name, keys) in [(REQUESTS, &REQUEST_KEYS), (LIFECYCLE, &LIFECYCLE_KEYS)] {
        let mut arguments = quorum();
        arguments.insert("x-dead-letter-exchange".into(), text(&dlx));
        arguments.insert("x-delivery-limit".into(), AMQPValue::LongLongInt(MAX_DELIVERIES));
        queue(line, name, arguments).await?;
        bind(line, name, &config.exchange, keys).await?;
        for wait in config.retries {
            queue(line, &waiting_room(name, wait), back_to(name, wait)).await?;
        }
    }
    // Found, it has the bindings that its owner wants.
    if queue(line, ANSWERS, FieldTable::default()).await? == Found::No {
        bind(line, ANSWERS, &config.exchange, &ANSWER_KEYS).await?;
    }
    Ok(())
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Found {
    Yes,
    No,
}

async fn exchange(line: &Line, name: &str, kind: ExchangeKind) -> Result<Found, lapin::Error> {
    let passive = ExchangeDeclareOptions { passive: true, ..ExchangeDeclareOptions::default() };
    let asked = line.channel().await?;
    let answer = asked.exchange_declare(name.into(), kind.clone(), passive, none()).await;
    if is_there(answer)? {
        return Ok(Found::Yes);
    }
    let durable = ExchangeDeclareOptions { durable: true, ..ExchangeDeclareOptions::default() };
    line.channel().await?.exchange_declare(name.into(), kind, durable, none()).await?;
    tracing::info!(exchange = name, "exchange made");
    Ok(Found::No)
}

async fn queue(line: &Line, name: &str, arguments: FieldTable) -> Result<Found, lapin::Error> {
    let passive = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
    let asked = line.channel().await?;
    let answer = asked.queue_declare(name.into(), passive, none()).await;
    if is_there(answer)? {
        return Ok(Found::Yes);
    }
    let durable = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
    line.channel().await?.queue_declare(name.into(), durable, arguments).await?;
    tracing::info!(queue = name, "queue made");
    Ok(Found::No)
}

/// Binding again what is bound changes nothing.
async fn bind(line: &Line, queue: &str, exchange: &str, keys: &[&str]) -> Result<(), lapin::Error> {
    let channel = line.channel().await?;
    for key in keys {
        let options = QueueBindOptions::default();
        let (queue, exchange): (ShortString, ShortString) = (queue.into(), exchange.into());
        channel.queue_bind(queue, exchange, (*key).into(), options, none()).await?;
    }
    Ok(())
}

/// The answer to a passive declaration.
fn is_there<T>(answer: Result<T, lapin::Error>) -> Result<bool, lapin::Error> {
    match answer {
        Ok(_) => Ok(true),
        Err(error) => match error.kind() {
            ErrorKind::ProtocolError(cause) if cause.get_id() == NOT_FOUND => Ok(false),
            _ => Err(error),
        },
    }
}

fn none() -> FieldTable {
    FieldTable::default()
}

fn text(text: &str) -> AMQPValue {
    AMQPValue::LongString(text.into())
}

fn quorum() -> FieldTable {
    let mut arguments = FieldTable::default();
    arguments.insert("x-queue-type".into(), text("quorum"));
    arguments
}

/// A queue whose messages go to another one after a while. Classic: quorum queues know no such
/// time before 3.10, and a message is settled in its own queue only once it is safe in here.
fn back_to(queue: &str, wait: Duration) -> FieldTable {
    let ms = i64::try_from(wait.as_millis()).unwrap_or(i64::MAX);
    let mut arguments = FieldTable::default();
    arguments.insert("x-message-ttl".into(), AMQPValue::LongLongInt(ms));
    arguments.insert("x-dead-letter-exchange".into(), text(""));
    arguments.insert("x-dead-letter-routing-key".into(), text(queue));
    arguments
}

fn kind_of(word: &str) -> ExchangeKind {
    match word {
        "topic" => ExchangeKind::Topic,
        "direct" => ExchangeKind::Direct,
        "fanout" => ExchangeKind::Fanout,
        "headers" => ExchangeKind::Headers,
        other => ExchangeKind::Custom(other.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waiting_rooms_are_named_by_how_long_one_waits() {
        let name = |ms| waiting_room("q", Duration::from_millis(ms));
        assert_eq!(name(5_000), "q.retry.5s");
        assert_eq!(name(30_000), "q.retry.30s");
        assert_eq!(name(120_000), "q.retry.2m");
        assert_eq!(name(200), "q.retry.200ms");
    }
}
