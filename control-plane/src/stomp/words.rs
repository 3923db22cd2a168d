//! The words of a STOMP session: where subscriptions lead, what beats were agreed, how messages and
//! bodies are written.

use std::time::Duration;

use serde::Deserialize;
use uuid::Uuid;

use super::codec::{Version, encode};

/// How often we are ready to send a beat, and want one.
pub(super) const BEAT: Duration = Duration::from_secs(10);

pub(super) const NOTIFICATIONS: &str = "/user/queue/notifications";
pub(super) const ERRORS: &str = "/user/queue/errors";
pub(super) const TOPIC: &str = "/topic/session.";

/// Where a subscription leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Destination {
    Session(Uuid),
    Notifications,
    Errors,
}

impl Destination {
    pub(super) fn parse(text: &str) -> Option<Self> {
        match text {
            NOTIFICATIONS => Some(Self::Notifications),
            ERRORS => Some(Self::Errors),
            _ => text.strip_prefix(TOPIC)?.parse().ok().map(Self::Session),
        }
    }

    pub(super) fn text(self) -> String {
        match self {
            Self::Session(id) => format!("{TOPIC}{id}"),
            Self::Notifications => NOTIFICATIONS.to_owned(),
            Self::Errors => ERRORS.to_owned(),
        }
    }
}

/// One subscription of the client.
pub(super) struct Subscription {
    pub(super) id: String,
    pub(super) to: Destination,
    /// The client says of each message that it has it.
    pub(super) acknowledges: bool,
}

/// How long a client's beats may be, as agreed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Beats {
    pub(super) ours: Option<Duration>,
    pub(super) theirs: Option<Duration>,
}

impl Beats {
    /// `heart-beat:cx,cy` of the client against what we can.
    pub(super) fn agreed(header: Option<&str>) -> Self {
        let number = |text: Option<&str>| {
            text.and_then(|text| text.trim().parse::<u32>().ok()).unwrap_or_default()
        };
        let mut parts = header.unwrap_or_default().split(',');
        let (sends, wants) = (number(parts.next()), number(parts.next()));
        let agreed = |ms: u32| (ms > 0).then(|| Duration::from_millis(u64::from(ms)).max(BEAT));
        Self { ours: agreed(wants), theirs: agreed(sends) }
    }
}

/// A consultation to come to.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct JoinPayload {
    pub(super) session_id: Uuid,
}

/// What a client sends: `{"type", "payload"}` as on our own channel, or the payload alone.
pub(super) fn body<T: serde::de::DeserializeOwned>(bytes: &[u8]) -> Option<T> {
    #[derive(Deserialize)]
    struct Envelope<T> {
        payload: T,
    }
    serde_json::from_slice::<Envelope<T>>(bytes)
        .map(|envelope| envelope.payload)
        .or_else(|_| serde_json::from_slice(bytes))
        .ok()
}

/// One `MESSAGE` frame.
pub(super) fn message(
    subscription: &Subscription,
    number: u64,
    text: &str,
    version: Version,
) -> String {
    let destination = subscription.to.text();
    let number = number.to_string();
    let mut headers = vec![
        ("destination", destination.as_str()),
        ("subscription", subscription.id.as_str()),
        ("content-type", "application/json"),
    ];
    let acked = if subscription.acknowledges { chat_message_id(text) } else { None };
    match &acked {
        // What comes back in `ACK`: in 1.2 the header `ack`, before the message's own id.
        Some(id) => headers.extend([("message-id", id.as_str()), ("ack", id.as_str())]),
        None => {
            headers.push(("message-id", number.as_str()));
            if subscription.acknowledges {
                headers.push(("ack", number.as_str()));
            }
        }
    }
    encode("MESSAGE", &headers, text, version)
}

/// `{session}/{message}` of a chat message.
pub(super) fn chat_message_id(text: &str) -> Option<String> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Payload {
        session_id: Uuid,
        message_id: Uuid,
    }
    #[derive(Deserialize)]
    struct ChatMessage {
        #[serde(rename = "type")]
        kind: String,
        payload: Payload,
    }
    let message: ChatMessage = serde_json::from_str(text).ok()?;
    let Payload { session_id, message_id } = message.payload;
    (message.kind == "CHAT_MESSAGE").then(|| format!("{session_id}/{message_id}"))
}
