//! A look at the broker that changes nothing: for `bedside doctor`.

use std::time::Duration;

use lapin::options::{ExchangeDeclareOptions, QueueDeclareOptions};
use lapin::types::FieldTable;
use lapin::{Connection, ConnectionProperties, ErrorKind, ExchangeKind};

use super::connection::uri;
use super::topology::{ANSWERS, LIFECYCLE, REQUESTS, dead_letters};
use super::{RabbitConfig, kind_of};

const PATIENCE: Duration = Duration::from_secs(10);
/// AMQP's "there is no such thing".
const NOT_FOUND: u16 = 404;

/// The names that are not there yet, which a server would make; or why nothing was seen.
pub async fn rabbitmq(config: &RabbitConfig) -> Result<Vec<String>, String> {
    let silent = || "it does not answer in time".to_owned();
    tokio::time::timeout(PATIENCE, look(config)).await.unwrap_or_else(|_| Err(silent()))
}

async fn look(config: &RabbitConfig) -> Result<Vec<String>, String> {
    let properties = ConnectionProperties::default().with_connection_name("bedside doctor".into());
    let connecting = Connection::connect_uri(uri(config), properties);
    let connection = connecting.await.map_err(|error| said(&error))?;
    let mut missing = Vec::new();
    for exchange in [config.exchange.clone(), dead_letters(config)] {
        // A name that is not there closes the channel.
        let channel = connection.create_channel().await.map_err(|error| said(&error))?;
        let passive = ExchangeDeclareOptions { passive: true, ..ExchangeDeclareOptions::default() };
        let name = exchange.as_str().into();
        let asked =
            channel.exchange_declare(name, ExchangeKind::Topic, passive, FieldTable::default());
        note(asked.await, exchange, &mut missing)?;
    }
    for queue in [REQUESTS, LIFECYCLE, ANSWERS] {
        let channel = connection.create_channel().await.map_err(|error| said(&error))?;
        let passive = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
        let asked = channel.queue_declare(queue.into(), passive, FieldTable::default());
        note(asked.await, queue.to_owned(), &mut missing)?;
    }
    // It has told all that was asked of it.
    let _closed = connection.close(200, "done".into()).await;
    Ok(missing)
}

fn note<T>(
    answer: Result<T, lapin::Error>,
    name: String,
    missing: &mut Vec<String>,
) -> Result<(), String> {
    match answer {
        Ok(_) => Ok(()),
        Err(error) => match error.kind() {
            ErrorKind::ProtocolError(cause) if cause.get_id() == NOT_FOUND => {
                missing.push(name);
                Ok(())
            }
            _ => Err(format!("{name}: {}", said(&error))),
        },
    }
}

fn said(error: &lapin::Error) -> String {
    kind_of(error)
}
