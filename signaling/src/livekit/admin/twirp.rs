//! Twirp: a call is a POST with one message, an error is a word and a sentence.
//!
//! Both forms of messages are served: protobuf, and JSON as proto3 writes it. JSON is read in both
//! spellings of names; it is written with the names of the definitions, unset fields included, and
//! 64-bit numbers as strings.

use axum::http::StatusCode;
use axum::http::header::{self, HeaderMap, HeaderValue};
use axum::response::{IntoResponse, Response};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::json::Show;

/// The words for errors that we use, with their HTTP status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Code {
    /// There is no such call.
    BadRoute,
    /// The message cannot be read.
    Malformed,
    /// No token, or none that verifies.
    Unauthenticated,
    /// The token does not grant it.
    PermissionDenied,
    /// No such room, participant or track.
    NotFound,
    /// The message cannot be meant so.
    InvalidArgument,
    /// Not in this state, or not by this configuration.
    FailedPrecondition,
    /// What was asked for did not come about in time.
    DeadlineExceeded,
    /// The call is known, and not served here.
    Unimplemented,
    /// Not now.
    Unavailable,
}

impl Code {
    const fn word(self) -> (&'static str, StatusCode) {
        match self {
            Self::BadRoute => ("bad_route", StatusCode::NOT_FOUND),
            Self::Malformed => ("malformed", StatusCode::BAD_REQUEST),
            Self::Unauthenticated => ("unauthenticated", StatusCode::UNAUTHORIZED),
            Self::PermissionDenied => ("permission_denied", StatusCode::FORBIDDEN),
            Self::NotFound => ("not_found", StatusCode::NOT_FOUND),
            Self::InvalidArgument => ("invalid_argument", StatusCode::BAD_REQUEST),
            Self::FailedPrecondition => ("failed_precondition", StatusCode::PRECONDITION_FAILED),
            Self::DeadlineExceeded => ("deadline_exceeded", StatusCode::REQUEST_TIMEOUT),
            Self::Unimplemented => ("unimplemented", StatusCode::NOT_IMPLEMENTED),
            Self::Unavailable => ("unavailable", StatusCode::SERVICE_UNAVAILABLE),
        }
    }
}

/// Why a call failed. The sentence goes to the caller and repeats nothing of what was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Error {
    pub(super) code: Code,
    pub(super) text: &'static str,
}

impl Error {
    /// The status of the answer.
    pub(super) fn status(&self) -> u16 {
        self.code.word().1.as_u16()
    }
}

/// An error.
pub(super) const fn error(code: Code, text: &'static str) -> Error {
    Error { code, text }
}

impl IntoResponse for Error {
    fn into_response(self) -> Response {
        let (word, status) = self.code.word();
        let body = json!({ "code": word, "msg": self.text });
        (status, [(header::CONTENT_TYPE, "application/json")], body.to_string()).into_response()
    }
}

/// How the messages of a call are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    Json,
    Protobuf,
}

impl Form {
    /// As the headers say.
    pub(super) fn of(headers: &HeaderMap) -> Result<Self, Error> {
        let kind = headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
        let kind = kind.and_then(|kind| kind.split(';').next()).unwrap_or_default().trim();
        if kind.eq_ignore_ascii_case("application/json") {
            Ok(Self::Json)
        } else if kind.eq_ignore_ascii_case("application/protobuf") {
            Ok(Self::Protobuf)
        } else {
            Err(error(Code::BadRoute, "application/json or application/protobuf is served"))
        }
    }

    /// Reads a message.
    pub(super) fn read<T>(self, body: &[u8]) -> Result<T, Error>
    where
        T: prost::Message + Default + DeserializeOwned,
    {
        let read = match self {
            Self::Protobuf => T::decode(body).ok(),
            // An empty body is the empty message, as in the other form.
            Self::Json if body.is_empty() => Some(T::default()),
            Self::Json => serde_json::from_slice::<Value>(body)
                .ok()
                .and_then(|value| serde_json::from_value(without_nulls(value)).ok()),
        };
        read.ok_or_else(|| error(Code::Malformed, "the message cannot be read"))
    }

    /// Writes a message.
    pub(super) fn write<T: prost::Message + Show>(self, message: &T) -> Response {
        let (kind, body) = match self {
            Self::Protobuf => ("application/protobuf", message.encode_to_vec()),
            Self::Json => ("application/json", message.json().to_string().into_bytes()),
        };
        let mut response = body.into_response();
        response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
        response
    }
}

/// A null stands for an unset field.
pub(super) fn without_nulls(value: Value) -> Value {
    match value {
        Value::Object(fields) => {
            let fields = fields.into_iter().filter(|(_, value)| !value.is_null());
            Value::Object(fields.map(|(name, value)| (name, without_nulls(value))).collect())
        }
        Value::Array(values) => Value::Array(values.into_iter().map(without_nulls).collect()),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => value,
    }
}

#[cfg(test)]
mod tests {
    use livekit_protocol as lk;

    use super::*;

    #[test]
    fn both_spellings_and_all_forms_of_numbers_are_read() {
        for text in [
            r#"{"name":"ward","empty_timeout":60,"maxParticipants":"2","metadata":null}"#,
            r#"{"name":"ward","emptyTimeout":"60","max_participants":2,"of_the_future":{}}"#,
        ] {
            let read: lk::CreateRoomRequest = Form::Json.read(text.as_bytes()).unwrap();
            assert_eq!((read.name.as_str(), read.empty_timeout), ("ward", 60));
            assert_eq!((read.max_participants, read.metadata.as_str()), (2, ""));
        }
        let empty: lk::ListRoomsRequest = Form::Json.read(b"").unwrap();
        assert!(empty.names.is_empty());
        let data: lk::SendDataRequest = Form::Json
            .read(br#"{"data":"aGk=","kind":"LOSSY","destinationIdentities":["a"]}"#)
            .unwrap();
        assert_eq!((data.data.as_slice(), data.kind), (&b"hi"[..], 1));
    }

    #[test]
    fn what_cannot_be_read_is_malformed_and_never_a_panic() {
        let good = br#"{"room":"ward","data":"aGk=","kind":0,"topic":"t","nonce":""}"#;
        for cut in 0..good.len() {
            let _unread = Form::Json.read::<lk::SendDataRequest>(&good[..cut]);
            let _unread = Form::Protobuf.read::<lk::SendDataRequest>(&good[..cut]);
        }
        for bad in [
            &b"[]"[..],
            b"1",
            b"{\"room\":1}",
            b"{\"data\":\"%\"}",
            b"{\"kind\":\"LOUD\"}",
            b"\xff\xff",
            &[b'['; 100_000],
        ] {
            let read = Form::Json.read::<lk::SendDataRequest>(bad);
            assert_eq!(read.unwrap_err().code, Code::Malformed);
        }
        let read = Form::Protobuf.read::<lk::SendDataRequest>(&[0xff; 40]);
        assert_eq!(read.unwrap_err().code, Code::Malformed);
    }

    #[test]
    fn the_form_is_what_the_header_says() {
        let of = |kind: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
            Form::of(&headers)
        };
        assert_eq!(of("application/json"), Ok(Form::Json));
        assert_eq!(of("Application/JSON; charset=utf-8"), Ok(Form::Json));
        assert_eq!(of("application/protobuf"), Ok(Form::Protobuf));
        for bad in ["", "text/plain", "application/jsonp", "application/grpc"] {
            assert_eq!(of(bad).unwrap_err().code, Code::BadRoute, "{bad}");
        }
        assert_eq!(Form::of(&HeaderMap::new()).unwrap_err().code, Code::BadRoute);
    }
}
