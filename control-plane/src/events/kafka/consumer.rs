//! The appointments' topic: a confirmed appointment gets its consultation, a cancelled one loses it.
//!
//! One instance at a time reads all partitions. How far it has read is stored in the transaction of
//! each effect, so a record takes effect once, whoever dies in between. Nothing is told to the
//! cluster: its own offsets would only be a second truth.

use std::time::Duration;

use futures_util::future::join_all;
use rskafka::client::error::{Error, ProtocolError};
use rskafka::client::partition::{OffsetAt, PartitionClient};
use rskafka::record::{Record, RecordAndOffset};

use super::KafkaConfig;
use super::connection::{self, ConnectError, kind_of};
use crate::control::{ChangeError, Control};
use crate::events::amqp::effects::{self, Effect};
use crate::events::inbound::{self, Kind, Message};
use crate::store;
use crate::store::outbox::{Along, MessageId, Place};

/// The right to read, in the table of leases.
const LEASE: &str = "kafka-appointments";
const LEASE_PERIOD: chrono::Duration = chrono::Duration::seconds(45);
/// How long to wait before somebody else's right, a topic or the cluster is looked for again.
const PAUSE: Duration = Duration::from_secs(5);
/// How long a broker may hold a question to which there is no answer yet.
const POLL_MS: i32 = 1_000;
/// How long any question may take. A connection that says nothing does not say so.
const PATIENCE: Duration = Duration::from_secs(15);
/// How much of a partition is read at once.
const CHUNK: std::ops::Range<i32> = 1..4_000_000;

/// Why reading ended.
#[derive(Debug, thiserror::Error)]
enum Stop {
    #[error("{0}")]
    Connect(#[from] ConnectError),
    #[error("{}", kind_of(.0))]
    Kafka(#[from] Error),
    #[error("no answer in time")]
    Silence(#[from] tokio::time::error::Elapsed),
    #[error("{0}")]
    Change(#[from] ChangeError),
    #[error("there is no such topic")]
    NoTopic,
    #[error("another process reads")]
    NotOurs,
}

/// Reads until the process ends.
pub(super) async fn run(control: &Control, config: &KafkaConfig) {
    let topic = &config.appointments_topic;
    let mut told_of_absence = false;
    loop {
        let stop = match read(control, config).await {
            Err(stop) => stop,
            Ok(never) => match never {},
        };
        match stop {
            // It may come later, or never.
            Stop::NoTopic if told_of_absence => {}
            Stop::NoTopic => {
                told_of_absence = true;
                tracing::info!(topic, "no appointments are read: there is no such topic (yet)");
            }
            Stop::NotOurs => tracing::debug!(topic, "another process reads"),
            Stop::Connect(_) | Stop::Kafka(_) | Stop::Silence(_) | Stop::Change(_) => {
                tracing::warn!(topic, error = %stop, "reading of appointments was interrupted");
            }
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// One partition and where reading goes on.
struct Partition {
    client: PartitionClient,
    next: i64,
}

async fn read(control: &Control, config: &KafkaConfig) -> Result<std::convert::Infallible, Stop> {
    hold(control).await?;
    let topic = &config.appointments_topic;
    let source = format!("kafka:{topic}");
    let open = async {
        let client = connection::connect(config).await?;
        connection::partitions(&client, topic).await
    };
    let mut partitions = Vec::new();
    for client in tokio::time::timeout(PATIENCE, open).await?? {
        let number = i64::from(client.partition());
        let stored = control.within(control.db.next_offset(&source, number)).await?;
        let next = match stored {
            Some(next) => next,
            None => earliest(&client).await?,
        };
        partitions.push(Partition { client, next });
    }
    if partitions.is_empty() {
        return Err(Stop::NoTopic);
    }
    tracing::info!(topic, partitions = partitions.len(), "appointments are read");
    loop {
        hold(control).await?;
        let chunks = join_all(partitions.iter().map(chunk)).await;
        for (partition, records) in partitions.iter_mut().zip(chunks) {
            match records? {
                Some(records) => follow(control, &source, partition, records).await?,
                // What was to be read next is gone: the topic keeps less than we were away.
                None => {
                    tracing::warn!(topic, "records were deleted before they were read");
                    partition.next = earliest(&partition.client).await?;
                }
            }
        }
    }
}

async fn hold(control: &Control) -> Result<(), Stop> {
    let now = store::now();
    let lease = control.db.lease(LEASE, control.instance, now, now + LEASE_PERIOD);
    if control.within(lease).await? { Ok(()) } else { Err(Stop::NotOurs) }
}

async fn earliest(client: &PartitionClient) -> Result<i64, Stop> {
    Ok(tokio::time::timeout(PATIENCE, client.get_offset(OffsetAt::Earliest)).await??)
}

/// None: there is nothing at this place.
async fn chunk(partition: &Partition) -> Result<Option<Vec<RecordAndOffset>>, Stop> {
    let fetched = partition.client.fetch_records(partition.next, CHUNK, POLL_MS);
    match tokio::time::timeout(PATIENCE, fetched).await? {
        Ok((records, _)) => Ok(Some(records)),
        Err(Error::ServerError { protocol_error: ProtocolError::OffsetOutOfRange, .. }) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Every record takes effect; then the place after the last one is stored.
async fn follow(
    control: &Control,
    source: &str,
    partition: &mut Partition,
    records: Vec<RecordAndOffset>,
) -> Result<(), Stop> {
    let number = i64::from(partition.client.partition());
    let id = |offset| MessageId {
        source: source.to_owned(),
        id: String::new(),
        place: Some(Place { partition: number, offset }),
    };
    let mut last = None;
    for RecordAndOffset { record, offset } in records {
        apply(control, &record, id(offset)).await?;
        last = Some(offset);
    }
    if let Some(offset) = last {
        let message = id(offset);
        let along = Along { message: Some(&message), ..Along::default() };
        // The last one may have stored it with its effect.
        control.within(control.db.append_events(&along, store::now())).await?;
        partition.next = offset + 1;
    }
    Ok(())
}

/// What is no event of ours, or cannot be followed, is passed over: a log cannot be given back.
async fn apply(control: &Control, record: &Record, id: MessageId) -> Result<(), Stop> {
    let header = |names: &[&str]| {
        let found = names.iter().find_map(|name| record.headers.get(*name));
        found.and_then(|value| std::str::from_utf8(value).ok())
    };
    let message = Message {
        event_type: header(&["event-type", "eventType", "event_type", "ce_type", "type"]),
        message_id: header(&["event-id", "eventId", "ce_id", "id"]),
        correlation_id: header(&["correlationId", "correlation-id", "correlation_id"]),
        content_type: header(&["content-type", "contentType"]),
        body: record.value.as_deref().unwrap_or_default(),
        ..Message::default()
    };
    let place = id.place;
    let inbound = match inbound::read(&message, control.config.naive_timezone) {
        Ok(inbound) => inbound,
        Err(poison) => {
            tracing::debug!(?place, reason = poison.reason(), "a record is passed over");
            return Ok(());
        }
    };
    match inbound.kind {
        Kind::AppointmentConfirmed { .. } | Kind::AppointmentCancelled { .. } => {}
        // The questions and answers of the other broker's contract are not asked here.
        Kind::Create(_)
        | Kind::Unusable { .. }
        | Kind::Start { .. }
        | Kind::End { .. }
        | Kind::AppointmentCreated(_)
        | Kind::NotOurs => return Ok(()),
    }
    match effects::apply_once(control, &inbound, id).await? {
        Effect::Done | Effect::NotYetOrNever => {}
        Effect::NotYet(reason) | Effect::Never(reason) => {
            tracing::warn!(?place, event = inbound.kind.name(), reason, "not followed");
        }
    }
    Ok(())
}
