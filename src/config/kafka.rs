//! Section `kafka`: the event log.

use bedside_sfu::core::api::Private;
use serde::{Deserialize, Serialize};

/// The event log.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Kafka {
    /// `host:port` of some of its brokers; none = no log.
    pub(crate) bootstrap_servers: Vec<String>,
    /// Where our events go; made if it is not there.
    pub(crate) topic: String,
    /// How many partitions it is made with; 0 = the cluster's default.
    pub(crate) partitions: u16,
    /// How many copies of it; 0 = the cluster's default.
    pub(crate) replication: u8,
    /// Where `appointment.confirmed` is read; empty = nowhere.
    pub(crate) appointments_topic: String,
    /// TLS to the brokers.
    pub(crate) tls: bool,
    /// The authority that signed their certificates, as PEM text; empty = the system's.
    pub(crate) tls_ca: String,
    /// How to sign in; none = not at all.
    pub(crate) sasl: Option<Sasl>,
    /// User name.
    pub(crate) username: String,
    /// Password.
    #[serde(with = "super::forms::secret")]
    pub(crate) password: Private<String>,
}

/// How somebody signs in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Sasl {
    /// The password as it is; only under TLS worth anything.
    #[serde(rename = "PLAIN")]
    Plain,
    /// A challenge.
    #[serde(rename = "SCRAM-SHA-256")]
    ScramSha256,
    /// A challenge.
    #[serde(rename = "SCRAM-SHA-512")]
    ScramSha512,
}

impl Default for Kafka {
    fn default() -> Self {
        Self {
            bootstrap_servers: Vec::new(),
            topic: "consultation-events".to_owned(),
            partitions: 6,
            replication: 0,
            appointments_topic: "appointment-events".to_owned(),
            tls: false,
            tls_ca: String::new(),
            sasl: None,
            username: String::new(),
            password: Private::default(),
        }
    }
}
