//! Section `rabbitmq`: the message broker of the appointment service.

use bedside_sfu::core::api::Private;
use serde::{Deserialize, Serialize};

/// The message broker.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct RabbitMq {
    /// Host name; empty = no broker.
    pub(crate) host: String,
    /// AMQP port.
    pub(crate) port: u16,
    /// AMQP over TLS (the port is then usually 5671); the certificate must be known to the system.
    pub(crate) tls: bool,
    /// User name.
    pub(crate) username: String,
    /// Password.
    #[serde(with = "super::forms::secret")]
    pub(crate) password: Private<String>,
    /// Virtual host.
    pub(crate) vhost: String,
    /// Exchange of the appointment events.
    pub(crate) exchange: String,
    /// What the exchange is made as, if it is not there: `topic`, `direct` …
    pub(crate) exchange_type: String,
}

impl Default for RabbitMq {
    fn default() -> Self {
        Self {
            host: String::new(),
            port: 5672,
            tls: false,
            username: "guest".to_owned(),
            password: Private::new("guest".to_owned()),
            vhost: "/".to_owned(),
            exchange: "appointments-exchange".to_owned(),
            exchange_type: "topic".to_owned(),
        }
    }
}
