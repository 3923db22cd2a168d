//! Fields of JSON bodies that come in more than one form.

use serde::de::{Deserialize as _, Deserializer, Error as _};
use serde_json::Value;

/// An id: text, or a whole number that is read as its digits. To be used with `default`.
pub(super) fn id<'de, D: Deserializer<'de>>(from: D) -> Result<Option<String>, D::Error> {
    match Value::deserialize(from)? {
        Value::Null => Ok(None),
        Value::String(text) => Ok(Some(text)),
        Value::Number(number) if !number.is_f64() => Ok(Some(number.to_string())),
        Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_) => {
            Err(D::Error::custom("an id is text or a whole number"))
        }
    }
}

/// What the description of the API says of such an id.
pub(super) struct AnyId;

impl utoipa::PartialSchema for AnyId {
    fn schema() -> utoipa::openapi::RefOr<utoipa::openapi::Schema> {
        let schema = serde_json::json!({ "type": ["string", "integer", "null"] });
        serde_json::from_value(schema).expect("the schema above is one")
    }
}

impl utoipa::ToSchema for AnyId {}

/// What it says of a time: text, or seconds or milliseconds since 1970.
pub(super) struct AnyTime;

impl utoipa::PartialSchema for AnyTime {
    fn schema() -> utoipa::openapi::RefOr<utoipa::openapi::Schema> {
        let schema = serde_json::json!({
            "anyOf": [
                { "type": "string", "format": "date-time" },
                { "type": "integer" },
                { "type": "null" },
            ],
        });
        serde_json::from_value(schema).expect("the schema above is one")
    }
}

impl utoipa::ToSchema for AnyTime {}
