//! The frames of SockJS: <https://github.com/sockjs/sockjs-protocol>. Around the text of STOMP it
//! puts JSON, so that other transports could carry it; we serve its WebSocket.
//!
//! Pure.

/// The connection is open.
pub(super) const OPEN: &str = "o";
/// The server is there.
pub(super) const BEAT: &str = "h";

/// One message of the server.
pub(super) fn message(text: &str) -> String {
    let json = serde_json::to_string(&[text]).expect("a string is JSON");
    format!("a{json}")
}

/// The last word of the server.
pub(super) fn close(code: u16, reason: &str) -> String {
    let json = serde_json::to_string(&(code, reason)).expect("a number and a string are JSON");
    format!("c{json}")
}

/// What the client sent: a list of messages, or one alone; an empty frame holds none.
pub(super) fn messages(text: &str) -> Option<Vec<String>> {
    if text.is_empty() {
        return Some(Vec::new());
    }
    serde_json::from_str::<Vec<String>>(text)
        .ok()
        .or_else(|| serde_json::from_str::<String>(text).ok().map(|one| vec![one]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_those_of_sockjs() {
        assert_eq!(message("A\n\n\0\"\u{1F44B}"), "a[\"A\\n\\n\\u0000\\\"\u{1F44B}\"]");
        assert_eq!(close(3000, "Go away!"), "c[3000,\"Go away!\"]");
        let two = messages(r#"["a","b\u0000"]"#).expect("two");
        assert_eq!(two, ["a", "b\0"]);
        assert_eq!(messages(r#""one""#).expect("one"), ["one"]);
        assert_eq!(messages("").map(|none| none.len()), Some(0));
    }

    #[test]
    fn what_is_no_frame_is_none() {
        for text in ["[", "{}", "[1]", "null", "a[\"x\"]", &"[".repeat(60_000)] {
            assert_eq!(messages(text), None, "{:.20}", text);
        }
    }
}
