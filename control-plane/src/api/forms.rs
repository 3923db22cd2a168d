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
