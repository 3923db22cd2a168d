//! The frames of the consultation channels: `{"type": …, "payload": {…}}` as text.

use axum::extract::ws::Utf8Bytes;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::store::Receipt;
use crate::view::{MessageView, PersonView, SessionView};

/// What a client says.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum ClientFrame {
    /// Who it is; the first frame, and only the first.
    Auth {
        /// An API token.
        token: String,
        /// The number of the last message that it has; newer ones are told again.
        after: Option<i64>,
    },
    /// A chat message.
    Chat(ChatText),
    /// It has, or has read, everything up to a message.
    Mark(Receipt, MarkPayload),
    /// Is anybody there?
    Ping,
    /// Somebody touched the page: nobody need be signed out.
    Activity,
}

/// A chat message as a client sends it.
#[derive(PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ChatText {
    /// The consultation; the channel's own if absent.
    pub(crate) session_id: Option<Uuid>,
    /// The text.
    pub(crate) content: String,
    /// Only `text`.
    pub(crate) message_type: Option<String>,
    /// The client's own id of the message: a repeat is stored once.
    pub(crate) client_id: Option<String>,
}

impl std::fmt::Debug for ChatText {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // What people write to each other is nobody else's.
        f.write_str("ChatText(…)")
    }
}

/// A message of the consultation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct MarkPayload {
    /// The consultation; the channel's own if absent.
    pub(crate) session_id: Option<Uuid>,
    /// The message.
    pub(crate) message_id: Uuid,
}

/// A frame that is none of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum BadFrame {
    #[error("the frame is not JSON with a type and a payload")]
    NotAFrame,
    #[error("the frame has an unknown type")]
    UnknownType,
    #[error("the payload does not fit the type")]
    BadPayload,
}

#[derive(Deserialize)]
struct Envelope {
    #[serde(rename = "type")]
    kind: String,
    #[serde(default)]
    payload: serde_json::Value,
}

#[derive(Deserialize)]
struct AuthPayload {
    token: String,
    after: Option<i64>,
}

impl ClientFrame {
    /// Reads a frame; whatever comes, it answers and never panics.
    pub(crate) fn parse(text: &str) -> Result<Self, BadFrame> {
        let envelope: Envelope = serde_json::from_str(text).map_err(|_| BadFrame::NotAFrame)?;
        match envelope.kind.as_str() {
            "AUTH" => serde_json::from_value::<AuthPayload>(envelope.payload)
                .map(|payload| Self::Auth { token: payload.token, after: payload.after })
                .map_err(|_| BadFrame::BadPayload),
            "CHAT_MESSAGE" => serde_json::from_value::<ChatText>(envelope.payload)
                .map(Self::Chat)
                .map_err(|_| BadFrame::BadPayload),
            "DELIVERED" => mark(Receipt::Delivered, envelope.payload),
            "READ" => mark(Receipt::Read, envelope.payload),
            "PING" => Ok(Self::Ping),
            "ACTIVITY" => Ok(Self::Activity),
            _ => Err(BadFrame::UnknownType),
        }
    }
}

fn mark(receipt: Receipt, payload: serde_json::Value) -> Result<ClientFrame, BadFrame> {
    serde_json::from_value(payload)
        .map(|payload| ClientFrame::Mark(receipt, payload))
        .map_err(|_| BadFrame::BadPayload)
}

/// What concerns one person; it holds no text that anybody wrote.
#[derive(Clone, Debug, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub(crate) enum Notice {
    /// It was let in.
    Admitted,
    /// It was put back into the waiting room.
    SentBack,
    /// Its place among all who wait for the doctor has changed.
    Position { position: usize },
    /// Somebody wrote in a consultation whose channel it has not open.
    #[serde(rename_all = "camelCase")]
    Message { message_id: Uuid, sender_type: String },
    /// So much was written while it was away.
    Unread { count: i64 },
    /// Somebody came into its waiting room.
    Waiting { waiting: usize },
    /// The consultation is over.
    Ended { status: &'static str },
}

/// What the server says.
#[derive(Serialize)]
#[serde(tag = "type", content = "payload", rename_all = "SCREAMING_SNAKE_CASE")]
pub(crate) enum ServerFrame<'a> {
    /// The client is known; everything from here on reaches it.
    #[serde(rename_all = "camelCase")]
    Ready {
        #[serde(skip_serializing_if = "Option::is_none")]
        session_id: Option<Uuid>,
        user_id: &'a str,
        role: &'a str,
        #[serde(skip_serializing_if = "Option::is_none")]
        status: Option<&'a str>,
    },
    /// A message was stored.
    ChatMessage(&'a MessageView),
    /// Somebody has, or has read, everything that others wrote up to a message.
    #[serde(rename_all = "camelCase")]
    Receipt {
        session_id: Uuid,
        user_id: &'a str,
        status: &'a str,
        message_id: Uuid,
        sequence: i64,
        timestamp: String,
    },
    /// A message was taken back.
    #[serde(rename_all = "camelCase")]
    MessageDeleted { session_id: Uuid, message_id: Uuid },
    /// Who has a channel open now.
    #[serde(rename_all = "camelCase")]
    Presence { session_id: Uuid, online: Vec<String> },
    /// Something for the receiver alone.
    #[serde(rename_all = "camelCase")]
    Notification {
        session_id: Uuid,
        #[serde(flatten)]
        notice: Notice,
    },
    /// The consultation or somebody in it changed.
    #[serde(rename_all = "camelCase")]
    SessionStatus { session_id: Uuid, status: &'a str, participants: Vec<PersonView> },
    /// The receiver waits.
    Waiting { position: usize },
    /// The receiver was let in.
    Admitted {},
    /// The receiver was put back into the waiting room.
    SentBack {},
    /// Somebody's presence changed.
    #[serde(rename_all = "camelCase")]
    ParticipantStatus { participant_id: &'a str, status: &'a str },
    /// The doctor's list at the start.
    Sessions { items: Vec<SessionView> },
    /// One consultation of the list changed.
    SessionChanged { session: &'a SessionView },
    /// The answer to a ping.
    Pong {},
    /// Something the client said was refused.
    #[serde(rename_all = "camelCase")]
    Error {
        code: &'a str,
        detail: &'a str,
        /// The chat message it is about.
        #[serde(skip_serializing_if = "Option::is_none")]
        client_id: Option<&'a str>,
    },
}

impl ServerFrame<'_> {
    /// The text on the wire.
    pub(crate) fn text(&self) -> Utf8Bytes {
        serde_json::to_string(self).expect("frames hold only strings and numbers").into()
    }

    /// An error without a message it belongs to.
    pub(crate) fn error(code: &str, detail: &str) -> Utf8Bytes {
        ServerFrame::Error { code, detail, client_id: None }.text()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_have_the_documented_names() {
        assert_eq!(
            ServerFrame::SessionStatus {
                session_id: Uuid::nil(),
                status: "WAITING",
                participants: vec![]
            }
            .text()
            .as_str(),
            r#"{"type":"SESSION_STATUS","payload":{"sessionId":"00000000-0000-0000-0000-000000000000","status":"WAITING","participants":[]}}"#
        );
        assert_eq!(ServerFrame::Pong {}.text().as_str(), r#"{"type":"PONG","payload":{}}"#);
        assert_eq!(
            ServerFrame::SentBack {}.text().as_str(),
            r#"{"type":"SENT_BACK","payload":{}}"#
        );
        assert_eq!(
            ServerFrame::ParticipantStatus { participant_id: "p", status: "RECONNECTING" }
                .text()
                .as_str(),
            r#"{"type":"PARTICIPANT_STATUS","payload":{"participantId":"p","status":"RECONNECTING"}}"#
        );
        assert_eq!(
            ServerFrame::Notification {
                session_id: Uuid::nil(),
                notice: Notice::Position { position: 2 }
            }
            .text()
            .as_str(),
            r#"{"type":"NOTIFICATION","payload":{"sessionId":"00000000-0000-0000-0000-000000000000","kind":"position","position":2}}"#
        );
        assert_eq!(
            ServerFrame::Receipt {
                session_id: Uuid::nil(),
                user_id: "p",
                status: "read",
                message_id: Uuid::nil(),
                sequence: 7,
                timestamp: "t".to_owned(),
            }
            .text()
            .as_str(),
            r#"{"type":"RECEIPT","payload":{"sessionId":"00000000-0000-0000-0000-000000000000","userId":"p","status":"read","messageId":"00000000-0000-0000-0000-000000000000","sequence":7,"timestamp":"t"}}"#
        );
        assert_eq!(
            ServerFrame::error("bad_frame", "why").as_str(),
            r#"{"type":"ERROR","payload":{"code":"bad_frame","detail":"why"}}"#
        );
    }

    #[test]
    fn client_frames_are_read() {
        assert_eq!(ClientFrame::parse(r#"{"type":"PING"}"#), Ok(ClientFrame::Ping));
        assert_eq!(
            ClientFrame::parse(r#"{"type":"AUTH","payload":{"token":"t","more":1}}"#),
            Ok(ClientFrame::Auth { token: "t".to_owned(), after: None })
        );
        let chat = ClientFrame::parse(
            r#"{"type":"CHAT_MESSAGE","payload":{"content":"hi","messageType":"text","clientId":"c"}}"#,
        );
        let Ok(ClientFrame::Chat(chat)) = chat else { panic!("not a chat frame") };
        assert_eq!((chat.content.as_str(), chat.client_id.as_deref()), ("hi", Some("c")));
        let id = Uuid::from_u128(7);
        for (word, receipt) in [("READ", Receipt::Read), ("DELIVERED", Receipt::Delivered)] {
            let frame = format!(r#"{{"type":"{word}","payload":{{"messageId":"{id}"}}}}"#);
            let payload = MarkPayload { session_id: None, message_id: id };
            assert_eq!(ClientFrame::parse(&frame), Ok(ClientFrame::Mark(receipt, payload)));
        }
    }

    #[test]
    fn hostile_frames_are_refused_and_do_no_harm() {
        let good = r#"{"type":"CHAT_MESSAGE","payload":{"content":"hi","clientId":"c"}}"#;
        for end in 0..good.len() {
            assert!(ClientFrame::parse(&good[..end]).is_err());
        }
        for at in 0..good.len() {
            for bit in 0..7 {
                let mut bytes = good.as_bytes().to_vec();
                bytes[at] ^= 1 << bit;
                if let Ok(text) = String::from_utf8(bytes) {
                    let _ = ClientFrame::parse(&text);
                }
            }
        }
        for text in [
            "",
            "null",
            "[]",
            "{}",
            r#"{"type":1}"#,
            r#"{"type":"AUTH"}"#,
            r#"{"type":"AUTH","payload":null}"#,
            r#"{"type":"AUTH","payload":{"token":[]}}"#,
            r#"{"type":"CHAT_MESSAGE","payload":{"content":5}}"#,
            r#"{"type":"CHAT_MESSAGE","payload":{"content":"x","sessionId":"no"}}"#,
            r#"{"type":"READY","payload":{}}"#,
            r#"{"type":"READ","payload":{}}"#,
            r#"{"type":"DELIVERED","payload":{"messageId":"7"}}"#,
            r#"{"type":"AUTH","payload":{"token":"t","after":"1"}}"#,
            &"[".repeat(60_000),
            &format!("{{\"type\":\"AUTH\",\"payload\":{}", "{\"a\":".repeat(10_000)),
        ] {
            assert!(ClientFrame::parse(text).is_err(), "{}", &text[..text.len().min(60)]);
        }
    }
}
