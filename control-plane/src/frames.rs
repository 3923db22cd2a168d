//! The frames of the consultation channels: `{"type": …, "payload": {…}}` as text.

use axum::extract::ws::Utf8Bytes;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::view::{MessageView, PersonView, SessionView};

/// What a client says.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum ClientFrame {
    /// Who it is; the first frame, and only the first.
    Auth {
        /// An API token.
        token: String,
    },
    /// A chat message.
    Chat(ChatText),
    /// Is anybody there?
    Ping,
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
}

impl ClientFrame {
    /// Reads a frame; whatever comes, it answers and never panics.
    pub(crate) fn parse(text: &str) -> Result<Self, BadFrame> {
        let envelope: Envelope = serde_json::from_str(text).map_err(|_| BadFrame::NotAFrame)?;
        match envelope.kind.as_str() {
            "AUTH" => serde_json::from_value::<AuthPayload>(envelope.payload)
                .map(|payload| Self::Auth { token: payload.token })
                .map_err(|_| BadFrame::BadPayload),
            "CHAT_MESSAGE" => serde_json::from_value::<ChatText>(envelope.payload)
                .map(Self::Chat)
                .map_err(|_| BadFrame::BadPayload),
            "PING" => Ok(Self::Ping),
            _ => Err(BadFrame::UnknownType),
        }
    }
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
            ServerFrame::error("bad_frame", "why").as_str(),
            r#"{"type":"ERROR","payload":{"code":"bad_frame","detail":"why"}}"#
        );
    }

    #[test]
    fn client_frames_are_read() {
        assert_eq!(ClientFrame::parse(r#"{"type":"PING"}"#), Ok(ClientFrame::Ping));
        assert_eq!(
            ClientFrame::parse(r#"{"type":"AUTH","payload":{"token":"t","more":1}}"#),
            Ok(ClientFrame::Auth { token: "t".to_owned() })
        );
        let chat = ClientFrame::parse(
            r#"{"type":"CHAT_MESSAGE","payload":{"content":"hi","messageType":"text","clientId":"c"}}"#,
        );
        let Ok(ClientFrame::Chat(chat)) = chat else { panic!("not a chat frame") };
        assert_eq!((chat.content.as_str(), chat.client_id.as_deref()), ("hi", Some("c")));
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
            &"[".repeat(60_000),
            &format!("{{\"type\":\"AUTH\",\"payload\":{}", "{\"a\":".repeat(10_000)),
        ] {
            assert!(ClientFrame::parse(text).is_err(), "{}", &text[..text.len().min(60)]);
        }
    }
}
