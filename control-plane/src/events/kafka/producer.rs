//! The outbox's way to the log: sent is what all in-sync replicas have (`acks=all`).

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use rskafka::client::error::{Error, ProtocolError};
use rskafka::client::partition::{Compression, PartitionClient};
use rskafka::record::Record;
use tokio::sync::Mutex;

use super::partitioner::partition_of;
use super::{KafkaConfig, connection};
use crate::events::encode::kafka;
use crate::events::relay::{Deliver, Outcome};
use crate::store::outbox::Unsent;

/// How long a batch may take, attempts included. A connection that says nothing does not say so.
const PATIENCE: Duration = Duration::from_secs(15);

/// Writes to one topic.
pub(super) struct Producer {
    config: KafkaConfig,
    /// None: not connected. Nobody else waits for the lock: there is one relay.
    topic: Mutex<Option<Arc<Vec<PartitionClient>>>>,
}

/// How the relay gives events to the log.
pub(super) fn deliver(config: KafkaConfig) -> Deliver {
    let producer = Arc::new(Producer { config, topic: Mutex::new(None) });
    Box::new(move |unsent| {
        let producer = Arc::clone(&producer);
        Box::pin(async move { producer.deliver(&unsent).await })
    })
}

impl Producer {
    async fn deliver(&self, unsent: &[Unsent]) -> Vec<Outcome> {
        let Some(partitions) = self.partitions().await else {
            return vec![Outcome::Away; unsent.len()];
        };
        let mut groups: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
        let mut records = Vec::with_capacity(unsent.len());
        for (index, unsent) in unsent.iter().enumerate() {
            let record = record(unsent);
            let key = record.key.as_deref().unwrap_or_default();
            groups.entry(partition_of(key, partitions.len())).or_default().push(index);
            records.push(record);
        }
        let produce = |(partition, indices): (&usize, &Vec<usize>)| {
            let batch = indices.iter().filter_map(|index| records.get(*index).cloned()).collect();
            let client = partitions.get(*partition);
            async move {
                match client {
                    Some(client) => produce(client, batch).await,
                    None => Outcome::Away,
                }
            }
        };
        let fates = join_all(groups.iter().map(produce)).await;
        if fates.contains(&Outcome::Away) {
            *self.topic.lock().await = None;
        }
        let mut outcomes = vec![Outcome::Away; unsent.len()];
        for (indices, fate) in groups.values().zip(fates) {
            for index in indices {
                if let Some(outcome) = outcomes.get_mut(*index) {
                    *outcome = fate.clone();
                }
            }
        }
        outcomes
    }

    async fn partitions(&self) -> Option<Arc<Vec<PartitionClient>>> {
        let mut topic = self.topic.lock().await;
        if let Some(partitions) = &*topic {
            return Some(Arc::clone(partitions));
        }
        let open = async {
            let client = connection::connect(&self.config).await?;
            connection::partitions_of_own(&client, &self.config).await
        };
        match tokio::time::timeout(PATIENCE, open).await {
            Ok(Ok(partitions)) => {
                let count = partitions.len();
                tracing::info!(topic = self.config.topic, partitions = count, "Kafka is connected");
                Some(Arc::clone(topic.insert(Arc::new(partitions))))
            }
            Ok(Err(error)) => {
                tracing::warn!(%error, "Kafka cannot be reached; events wait");
                None
            }
            Err(_) => {
                tracing::warn!("Kafka does not answer; events wait");
                None
            }
        }
    }
}

/// A batch is taken as a whole or not at all.
async fn produce(client: &PartitionClient, batch: Vec<Record>) -> Outcome {
    let produced = client.produce(batch, Compression::NoCompression);
    match tokio::time::timeout(PATIENCE, produced).await {
        Ok(Ok(_offsets)) => Outcome::Taken,
        Ok(Err(error)) => {
            let reason = connection::kind_of(&error);
            tracing::warn!(error = reason, "Kafka did not take a batch");
            if is_about_records(&error) { Outcome::Refused(reason) } else { Outcome::Away }
        }
        Err(_) => Outcome::Away,
    }
}

/// Trying the same again at once would not help.
fn is_about_records(error: &Error) -> bool {
    let Error::ServerError { protocol_error, .. } = error else { return false };
    matches!(
        protocol_error,
        ProtocolError::MessageTooLarge
            | ProtocolError::RecordListTooLarge
            | ProtocolError::InvalidRecord
    )
}

fn record(unsent: &Unsent) -> Record {
    let message = kafka::encode(&unsent.event);
    let headers = [
        ("event-id", message.id),
        ("event-type", message.event_type),
        ("content-type", "application/json".to_owned()),
    ];
    Record {
        key: Some(message.key.into_bytes()),
        value: Some(message.body),
        headers: headers.into_iter().map(|(n, v)| (n.to_owned(), v.into_bytes())).collect(),
        timestamp: message.at,
    }
}
