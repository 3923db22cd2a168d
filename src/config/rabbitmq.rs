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
    /// User name.
    pub(crate) username: String,
    /// Password.
    #[serde(with = "super::forms::secret")]
    pub(crate) password: Private<String>,
    /// Virtual host.
    pub(crate) vhost: String,
    /// Exchange of the appointment events.
    pub(crate) exchange: String,
}

impl Default for RabbitMq {
    fn default() -> Self {
        Self {
            host: String::new(),
            port: 5672,
            username: "guest".to_owned(),
            password: Private::new("guest".to_owned()),
            vhost: "/".to_owned(),
            exchange: "appointments-exchange".to_owned(),
        }
    }
}
