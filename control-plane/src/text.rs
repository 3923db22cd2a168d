//! What text from outside must look like.

/// The longest id of a user, a clinic or an appointment.
const MAX_ID_LEN: usize = 255;
/// The longest display name, in characters.
const MAX_NAME_CHARS: usize = 200;
/// The longest reason, in characters.
const MAX_REASON_CHARS: usize = 100;
/// The longest chat message, in characters.
pub(crate) const MAX_MESSAGE_CHARS: usize = 4_000;

/// An id: not empty, of bounded length, without control characters.
pub(crate) fn is_id(text: &str) -> bool {
    !text.trim().is_empty() && text.len() <= MAX_ID_LEN && !text.chars().any(char::is_control)
}

/// A display name; it may be empty.
pub(crate) fn is_name(text: &str) -> bool {
    text.chars().count() <= MAX_NAME_CHARS && !text.chars().any(char::is_control)
}

/// A reason for ending something.
pub(crate) fn is_reason(text: &str) -> bool {
    !text.trim().is_empty()
        && text.chars().count() <= MAX_REASON_CHARS
        && !text.chars().any(char::is_control)
}

/// A chat message: something to read, line breaks and tabs allowed.
pub(crate) fn is_message(text: &str) -> bool {
    !text.trim().is_empty()
        && text.chars().count() <= MAX_MESSAGE_CHARS
        && !text.chars().any(|c| c.is_control() && !matches!(c, '\n' | '\r' | '\t'))
}
