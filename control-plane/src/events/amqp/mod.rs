//! RabbitMQ: messages in, answers out.
//!
//! - [`topology`]: exchange, queues and bindings. What is there is taken as it is.
//! - [`connection`]: one connection and what the broker says of it.
//! - [`publisher`]: the outbox's way to the exchange; sent is what the broker has confirmed.
//! - [`consumer`]: takes messages, and settles each only after its effect is stored.
//! - [`effects`]: what a message that was understood does.
//! - [`backoff`]: how long to wait before the next attempt.
//!
//! Publishing and consuming have a connection each: a broker short of memory stops reading from
//! those that publish, and what was consumed must be settled all the same. A broker that is away
//! is no reason to answer nobody: events wait in the outbox, messages in their queue.

mod backoff;
mod connection;
mod consumer;
pub(in crate::events) mod effects;
pub(crate) mod probe;
mod publisher;
mod topology;

use std::sync::Arc;
use std::time::Duration;

use crate::Private;
use crate::control::Control;
use crate::events::relay::Manner;
use crate::events::{Sink, relay};

/// For so many attempts, a minute or two, what happened later to a consultation waits for a message
/// that no queue takes: long enough for a peer that binds its queue while it starts.
const IN_ORDER: i64 = 8;

/// The broker, and what there is at it.
#[derive(Clone, Debug)]
pub struct RabbitConfig {
    /// Host name or address.
    pub host: String,
    /// AMQP port.
    pub port: u16,
    /// AMQP over TLS.
    pub tls: bool,
    /// User name.
    pub username: String,
    /// Password.
    pub password: Private<String>,
    /// Virtual host.
    pub vhost: String,
    /// Exchange of the appointment events.
    pub exchange: String,
    /// What the exchange is made as, if it is not there.
    pub exchange_type: String,
    /// A connection that is silent for twice as long is given up.
    pub heartbeat: Duration,
    /// How long a message that cannot be followed yet waits, each time.
    pub retries: [Duration; 3],
}

impl Default for RabbitConfig {
    fn default() -> Self {
        Self {
            host: "localhost".to_owned(),
            port: 5672,
            tls: false,
            username: "guest".to_owned(),
            password: Private::new("guest".to_owned()),
            vhost: "/".to_owned(),
            exchange: "appointments-exchange".to_owned(),
            exchange_type: "topic".to_owned(),
            heartbeat: Duration::from_secs(30),
            retries: [Duration::from_secs(5), Duration::from_secs(30), Duration::from_secs(120)],
        }
    }
}

/// Sends and listens until the process ends. Cancelling it is safe at any point.
pub(crate) async fn run(control: Arc<Control>, config: RabbitConfig) {
    let outbox = publisher::Publisher::new(Arc::clone(&control), config.clone(), "outbox");
    let deliver = publisher::deliver(Arc::new(outbox));
    // An answer that nobody listens for must not hold up those that somebody waits for.
    let manner = Manner { in_order: IN_ORDER, ..Manner::default() };
    let sending = relay::run_with(Arc::clone(&control), Sink::RabbitMq, manner, deliver);
    if control.config.video_enabled {
        tokio::join!(sending, consumer::run(control, config));
    } else {
        tracing::warn!("video is disabled: messages of the broker wait in their queues");
        tokio::join!(sending, consumer::park(control, config));
    }
}

/// An error of the client library, without the text of the peer: that may quote a message.
fn kind_of(error: &lapin::Error) -> String {
    match error.kind() {
        lapin::ErrorKind::ProtocolError(error) => format!("AMQP error {}", error.get_id()),
        lapin::ErrorKind::IOError(error) => format!("i/o error: {:?}", error.kind()),
        lapin::ErrorKind::MissingHeartbeatError => "no heartbeat".to_owned(),
        lapin::ErrorKind::InvalidConnectionState(_) | lapin::ErrorKind::InvalidChannelState(..) => {
            "closed".to_owned()
        }
        _ => "other".to_owned(),
    }
}

#[cfg(test)]
mod tests;
