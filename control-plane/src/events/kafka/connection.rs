//! Reaching the cluster: addresses, TLS, SASL, and how long to try.

use std::sync::Arc;
use std::time::Duration;

use rskafka::BackoffConfig;
use rskafka::client::error::{Error, ProtocolError};
use rskafka::client::partition::{PartitionClient, UnknownTopicHandling};
use rskafka::client::{Client, ClientBuilder, Credentials, SaslConfig};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use rustls_platform_verifier::ConfigVerifierExt as _;

use super::{KafkaConfig, Mechanism};

/// How long one request is tried again before we are told.
const DEADLINE: Duration = Duration::from_secs(8);
/// The largest answer that is read. A batch of a sender may be a few MiB.
const MAX_ANSWER: usize = 64 << 20;
/// How long the cluster may take to make a topic.
const TOPIC_TIMEOUT_MS: i32 = 5_000;
/// How often a topic that was just made is looked for.
const LOOKS: usize = 20;

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub(super) enum ConnectError {
    #[error("TLS: {0}")]
    Tls(String),
    #[error("{}", kind_of(.0))]
    Kafka(#[from] Error),
    #[error("the topic has not come to be")]
    NoTopic,
}

/// A client of the cluster.
pub(super) async fn connect(config: &KafkaConfig) -> Result<Client, ConnectError> {
    let backoff = BackoffConfig {
        init_backoff: Duration::from_millis(100),
        max_backoff: Duration::from_secs(2),
        base: 2.0,
        deadline: Some(DEADLINE),
    };
    let mut builder = ClientBuilder::new(config.bootstrap_servers.clone())
        .client_id("bedside")
        .max_message_size(MAX_ANSWER)
        .backoff_config(backoff);
    if let Some(authority) = &config.tls {
        builder = builder.tls_config(Arc::new(tls(authority.as_deref())?));
    }
    if let Some(sasl) = &config.sasl {
        let known = Credentials::new(sasl.username.clone(), sasl.password.reveal().clone());
        builder = builder.sasl_config(match sasl.mechanism {
            Mechanism::Plain => SaslConfig::Plain(known),
            Mechanism::ScramSha256 => SaslConfig::ScramSha256(known),
            Mechanism::ScramSha512 => SaslConfig::ScramSha512(known),
        });
    }
    Ok(builder.build().await?)
}

/// Trusts the system's authorities, or only those of the PEM text.
pub(super) fn tls(authority: Option<&str>) -> Result<rustls::ClientConfig, ConnectError> {
    crate::crypto::use_one();
    let wrong = |error: String| ConnectError::Tls(error);
    let Some(pem) = authority else {
        return rustls::ClientConfig::with_platform_verifier().map_err(|e| wrong(e.to_string()));
    };
    let mut roots = rustls::RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(pem.as_bytes()) {
        let certificate = certificate.map_err(|error| wrong(error.to_string()))?;
        roots.add(certificate).map_err(|error| wrong(error.to_string()))?;
    }
    if roots.is_empty() {
        return Err(wrong("tls_ca holds no certificate".to_owned()));
    }
    Ok(rustls::ClientConfig::builder().with_root_certificates(roots).with_no_client_auth())
}

/// The partitions of a topic in their order; none if there is no such topic.
pub(super) async fn partitions(
    client: &Client,
    topic: &str,
) -> Result<Vec<PartitionClient>, ConnectError> {
    let topics = client.list_topics().await?;
    let Some(found) = topics.into_iter().find(|known| known.name == topic) else {
        return Ok(Vec::new());
    };
    let mut partitions = Vec::with_capacity(found.partitions.len());
    for partition in found.partitions {
        let handling = UnknownTopicHandling::Error;
        partitions.push(client.partition_client(topic, partition, handling).await?);
    }
    Ok(partitions)
}

/// The same; a topic that is not there is made.
pub(super) async fn partitions_of_own(
    client: &Client,
    config: &KafkaConfig,
) -> Result<Vec<PartitionClient>, ConnectError> {
    let found = partitions(client, &config.topic).await?;
    if !found.is_empty() {
        return Ok(found);
    }
    // Zero is the cluster's own number, which the protocol writes as -1 (KIP-464).
    let count = if config.partitions == 0 { -1 } else { i32::from(config.partitions) };
    let copies = if config.replication == 0 { -1 } else { i16::from(config.replication) };
    let controller = client.controller_client()?;
    let made = controller.create_topic(&config.topic, count, copies, TOPIC_TIMEOUT_MS).await;
    match made {
        Ok(()) => tracing::info!(topic = config.topic, "the topic is made"),
        // Another process was quicker.
        Err(Error::ServerError { protocol_error: ProtocolError::TopicAlreadyExists, .. }) => {}
        Err(error) => return Err(error.into()),
    }
    for _ in 0..LOOKS {
        match partitions(client, &config.topic).await {
            Ok(found) if !found.is_empty() => return Ok(found),
            // Not every broker knows it at once.
            Ok(_) | Err(ConnectError::Kafka(Error::ServerError { .. })) => {}
            Err(error) => return Err(error),
        }
        tokio::time::sleep(Duration::from_millis(250)).await;
    }
    Err(ConnectError::NoTopic)
}

/// An error in words that quote nothing.
pub(super) fn kind_of(error: &Error) -> String {
    match error {
        Error::Connection(error) => format!("connection: {error}"),
        Error::Request(_) => "the connection broke".to_owned(),
        Error::InvalidResponse(_) => "an answer that is none".to_owned(),
        Error::ServerError { protocol_error, .. } => format!("the broker says {protocol_error:?}"),
        _ => "no answer in time".to_owned(),
    }
}
