//! Kafka: events out to a log, confirmed appointments in.
//!
//! - [`connection`]: reaching the cluster.
//! - [`producer`]: the outbox's way to our topic.
//! - [`consumer`]: the appointments' topic.
//! - [`partitioner`]: which partition a consultation belongs to.
//!
//! A cluster that is away is no reason to answer nobody: events wait in the outbox.

mod connection;
mod consumer;
mod partitioner;
pub(crate) mod probe;
mod producer;

use std::sync::Arc;

use crate::Private;
use crate::control::Control;
use crate::events::{Sink, relay};

/// The cluster, and what there is at it.
#[derive(Clone, Debug)]
pub struct KafkaConfig {
    /// `host:port` of some of its brokers.
    pub bootstrap_servers: Vec<String>,
    /// Where our events go.
    pub topic: String,
    /// How many partitions the topic is made with, if it is not there; 0 = the cluster's default.
    pub partitions: u16,
    /// How many copies of it; 0 = the cluster's default.
    pub replication: u8,
    /// Where appointments are confirmed; empty = nothing is read.
    pub appointments_topic: String,
    /// TLS, trusting the system's authorities or those of a PEM text.
    pub tls: Option<Option<String>>,
    /// Who signs in.
    pub sasl: Option<KafkaSasl>,
}

/// Who signs in.
#[derive(Clone, Debug)]
pub struct KafkaSasl {
    /// How.
    pub mechanism: Mechanism,
    /// User name.
    pub username: String,
    /// Password.
    pub password: Private<String>,
}

/// How somebody signs in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mechanism {
    /// RFC 4616; only under TLS worth anything.
    Plain,
    /// RFC 7677.
    ScramSha256,
    /// The same with SHA-512.
    ScramSha512,
}

impl Default for KafkaConfig {
    fn default() -> Self {
        Self {
            bootstrap_servers: Vec::new(),
            topic: "consultation-events".to_owned(),
            partitions: 6,
            replication: 0,
            appointments_topic: "appointment-events".to_owned(),
            tls: None,
            sasl: None,
        }
    }
}

/// Sends and listens until the process ends. Cancelling it is safe at any point.
pub(crate) async fn run(control: Arc<Control>, config: KafkaConfig) {
    crate::crypto::use_one();
    let sending = relay::run(Arc::clone(&control), Sink::Kafka, producer::deliver(config.clone()));
    if config.appointments_topic.is_empty() {
        sending.await;
    } else {
        tokio::join!(sending, consumer::run(&control, &config));
    }
}

#[cfg(test)]
mod tests;
