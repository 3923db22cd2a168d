//! Events as webhooks and readers over the API get them: the envelope of the log with the names of
//! the Standard Webhooks specification (`type`, `timestamp`, `data`) beside its own.

use serde_json::{Map, Value};

use super::kafka;
use crate::events::Event;

/// The event as a JSON object.
pub(crate) fn body(event: &Event) -> Map<String, Value> {
    let mut body = kafka::envelope(event);
    body.insert("type".to_owned(), Value::String(kafka::event_type(&event.news)));
    body.insert("timestamp".to_owned(), Value::String(crate::view::time(event.at)));
    body
}
