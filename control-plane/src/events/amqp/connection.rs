//! One connection to the broker, and what the broker says of it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::StreamExt as _;
use lapin::uri::{AMQPAuthority, AMQPQueryString, AMQPScheme, AMQPUri, AMQPUserInfo};
use lapin::{Channel, Connection, ConnectionProperties, Event};

use super::RabbitConfig;
use crate::control::Control;

/// How long a broker may take to let us in.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub(super) enum ConnectError {
    #[error("the broker does not answer")]
    Timeout,
    #[error("{}", super::kind_of(.0))]
    Broker(#[from] lapin::Error),
}

/// An open connection.
pub(super) struct Line {
    connection: Connection,
    state: Arc<State>,
}

#[derive(Default)]
struct State {
    /// The broker reads nothing from us: it is short of memory or disk.
    blocked: AtomicBool,
}

impl Line {
    /// Connects; `purpose` is what the broker's own pages show.
    pub(super) async fn open(
        control: &Arc<Control>,
        config: &RabbitConfig,
        purpose: &str,
    ) -> Result<Self, ConnectError> {
        let properties = ConnectionProperties::default()
            .with_connection_name(format!("bedside {purpose}").into());
        let connecting = Connection::connect_uri(uri(config), properties);
        let connection = tokio::time::timeout(CONNECT_TIMEOUT, connecting)
            .await
            .map_err(|_| ConnectError::Timeout)??;
        let state = Arc::new(State::default());
        tokio::spawn(watch(Arc::clone(control), connection.events_listener(), Arc::clone(&state)));
        control.counters.amqp_connections.add();
        Ok(Self { connection, state })
    }

    /// A new channel.
    pub(super) async fn channel(&self) -> Result<Channel, lapin::Error> {
        self.connection.create_channel().await
    }

    /// Does the broker read nothing from us?
    pub(super) fn is_blocked(&self) -> bool {
        self.state.blocked.load(Ordering::Relaxed)
    }

    /// Is it still open?
    pub(super) fn is_open(&self) -> bool {
        self.connection.status().connected()
    }
}

/// Listens to what the broker says until the connection has ended.
async fn watch(
    control: Arc<Control>,
    events: impl futures_util::Stream<Item = Event>,
    state: Arc<State>,
) {
    let counters = &control.counters;
    let mut events = std::pin::pin!(events);
    while let Some(event) = events.next().await {
        match event {
            Event::ConnectionBlocked(_) if !state.blocked.swap(true, Ordering::Relaxed) => {
                counters.amqp_blocked.add();
                tracing::warn!("the broker takes no messages: it is short of memory or disk");
            }
            Event::ConnectionUnblocked if state.blocked.swap(false, Ordering::Relaxed) => {
                counters.amqp_blocked.take();
                tracing::info!("the broker takes messages again");
            }
            // One channel's own: what was asked for is not there, or may not be asked for.
            Event::Error(error) if error.is_amqp_soft_error() => {}
            Event::Error(error) => {
                tracing::warn!(error = super::kind_of(&error), "connection to the broker lost");
                break;
            }
            _ => {}
        }
    }
    if state.blocked.swap(false, Ordering::Relaxed) {
        counters.amqp_blocked.take();
    }
    counters.amqp_connections.take();
}

pub(super) fn uri(config: &RabbitConfig) -> AMQPUri {
    AMQPUri {
        scheme: if config.tls { AMQPScheme::AMQPS } else { AMQPScheme::AMQP },
        authority: AMQPAuthority {
            userinfo: AMQPUserInfo {
                username: config.username.clone(),
                password: config.password.reveal().clone(),
            },
            host: config.host.clone(),
            port: config.port,
        },
        vhost: config.vhost.clone(),
        query: AMQPQueryString {
            heartbeat: u16::try_from(config.heartbeat.as_secs()).ok(),
            ..AMQPQueryString::default()
        },
    }
}
