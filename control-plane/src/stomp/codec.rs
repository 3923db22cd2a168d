//! STOMP 1.0, 1.1 and 1.2 as bytes: <https://stomp.github.io/stomp-specification-1.2.html>.
//!
//! Pure. Data may come in any pieces: a frame in several, several frames in one. Whatever comes, the
//! answer is a frame, "more", or an error; the work that a byte can ask for is bounded.

/// The largest frame, headers and body together.
pub(super) const MAX_FRAME: usize = 64 * 1024;
/// The longest block of headers.
const MAX_HEAD: usize = 8 * 1024;
/// Most headers of a frame.
const MAX_HEADERS: usize = 64;

/// What a client may say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Command {
    /// `CONNECT` or `STOMP`.
    Connect,
    Send,
    Subscribe,
    Unsubscribe,
    Ack,
    Nack,
    Begin,
    Commit,
    Abort,
    Disconnect,
}

/// The version that both sides speak.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Version {
    V10,
    V11,
    #[default]
    V12,
}

impl Version {
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::V10 => "1.0",
            Self::V11 => "1.1",
            Self::V12 => "1.2",
        }
    }

    /// The newest of those that a client accepts; who names none speaks 1.0.
    pub(super) fn agreed(accepted: Option<&str>) -> Option<Self> {
        let Some(accepted) = accepted else { return Some(Self::V10) };
        let names = || accepted.split(',').map(str::trim);
        [Self::V12, Self::V11, Self::V10]
            .into_iter()
            .find(|version| names().any(|name| name == version.as_str()))
    }
}

/// One frame from a client.
#[derive(PartialEq, Eq)]
pub(super) struct Frame {
    pub(super) command: Command,
    headers: Vec<(String, String)>,
    pub(super) body: Vec<u8>,
}

impl std::fmt::Debug for Frame {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Headers hold tokens, bodies what people write.
        write!(
            f,
            "Frame({:?}, {} headers, {} bytes)",
            self.command,
            self.headers.len(),
            self.body.len()
        )
    }
}

impl Frame {
    /// A header; of several with one name the first counts.
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    /// [`Self::header`] whatever the case of its name.
    pub(super) fn header_of_any_case(&self, name: &str) -> Option<&str> {
        let known = self.headers.iter().find(|(known, _)| known.eq_ignore_ascii_case(name));
        known.map(|(_, value)| value.as_str())
    }
}

/// What the bytes mean.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Heard {
    Frame(Frame),
    /// An empty line: the client is there.
    Beat,
}

/// Bytes that are no STOMP.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum BadStomp {
    #[error("the frame is larger than 64 KiB")]
    TooLarge,
    #[error("the headers are too many or too long")]
    HeadTooLarge,
    #[error("the command is unknown")]
    Command,
    #[error("a header is malformed")]
    Header,
    #[error("content-length is not the length of the body")]
    Length,
}

/// Takes bytes in as they come and gives frames.
#[derive(Debug, Default)]
pub(super) struct Decoder {
    buffer: Vec<u8>,
    /// Where the next frame begins.
    start: usize,
    /// Up to here no end of a frame was found.
    scanned: usize,
    /// The whole frame is not there before the buffer has this length.
    wanted: usize,
    version: Version,
}

impl Decoder {
    /// From the `CONNECT` frame on the agreed version says how headers are escaped.
    pub(super) const fn speak(&mut self, version: Version) {
        self.version = version;
    }

    /// Takes in what came.
    pub(super) fn feed(&mut self, bytes: &[u8]) {
        if self.start > 0 {
            self.buffer.drain(..self.start);
            self.scanned = self.scanned.saturating_sub(self.start);
            self.wanted = self.wanted.saturating_sub(self.start);
            self.start = 0;
        }
        self.buffer.extend_from_slice(bytes);
    }

    /// The next frame or beat; none = more is needed.
    pub(super) fn next(&mut self) -> Result<Option<Heard>, BadStomp> {
        let rest = self.buffer.get(self.start..).unwrap_or_default();
        let Some(first) = rest.first() else { return Ok(None) };
        let line_end = match first {
            b'\n' => 1,
            b'\r' if rest.get(1) == Some(&b'\n') => 2,
            b'\r' if rest.len() == 1 => return Ok(None),
            _ => 0,
        };
        if line_end > 0 {
            self.start += line_end;
            self.scanned = self.start;
            return Ok(Some(Heard::Beat));
        }
        let length = rest.len();
        let frame = self.frame()?;
        if frame.is_none() && length > MAX_FRAME {
            return Err(BadStomp::TooLarge);
        }
        Ok(frame.map(Heard::Frame))
    }

    /// A frame ends with a NUL; nothing is read before there is one where it may end.
    fn frame(&mut self) -> Result<Option<Frame>, BadStomp> {
        if self.buffer.len() < self.wanted {
            return Ok(None);
        }
        let from = self.scanned.max(self.start);
        let unscanned = self.buffer.get(from..).unwrap_or_default();
        if self.wanted == 0 && !unscanned.contains(&0) {
            self.scanned = self.buffer.len();
            return Ok(None);
        }
        let bytes = self.buffer.get(self.start..).unwrap_or_default();
        let Some((head_len, body_at)) = head(bytes) else {
            // There is a NUL, and no empty line before it.
            return Err(BadStomp::Header);
        };
        if head_len > MAX_HEAD {
            return Err(BadStomp::HeadTooLarge);
        }
        let (command, headers) =
            read_head(bytes.get(..head_len).unwrap_or_default(), self.version)?;
        let frame = Frame { command, headers, body: Vec::new() };
        let body = bytes.get(body_at..).unwrap_or_default();
        let length = match frame.header("content-length") {
            Some(text) => {
                let length: usize = text.trim().parse().map_err(|_| BadStomp::Length)?;
                if length > MAX_FRAME {
                    return Err(BadStomp::TooLarge);
                }
                if body.len() <= length {
                    self.wanted = self.start + body_at + length + 1;
                    return Ok(None);
                }
                length
            }
            None => match body.iter().position(|byte| *byte == 0) {
                Some(length) => length,
                None => return Ok(None),
            },
        };
        if body.get(length) != Some(&0) {
            return Err(BadStomp::Length);
        }
        if body_at + length > MAX_FRAME {
            return Err(BadStomp::TooLarge);
        }
        let body = body.get(..length).unwrap_or_default().to_vec();
        self.start += body_at + length + 1;
        self.scanned = self.start;
        self.wanted = 0;
        Ok(Some(Frame { body, ..frame }))
    }
}

/// How long command and headers are, and where the body begins; none if no empty line comes before
/// the first NUL.
fn head(bytes: &[u8]) -> Option<(usize, usize)> {
    let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
    let bytes = bytes.get(..end)?;
    let mut from = 0;
    loop {
        let line = bytes.get(from..)?.iter().position(|byte| *byte == b'\n')?;
        let next = from + line + 1;
        match bytes.get(next..)? {
            [b'\n', ..] => return Some((next, next + 1)),
            [b'\r', b'\n', ..] => return Some((next, next + 2)),
            _ => from = next,
        }
    }
}

type Head = (Command, Vec<(String, String)>);

fn read_head(bytes: &[u8], version: Version) -> Result<Head, BadStomp> {
    let text = std::str::from_utf8(bytes).map_err(|_| BadStomp::Header)?;
    let mut lines = text.split('\n').map(|line| line.strip_suffix('\r').unwrap_or(line));
    let command = command(lines.next().unwrap_or_default()).ok_or(BadStomp::Command)?;
    let version = if command == Command::Connect { Version::V10 } else { version };
    let mut headers = Vec::new();
    for line in lines.filter(|line| !line.is_empty()) {
        if headers.len() >= MAX_HEADERS {
            return Err(BadStomp::HeadTooLarge);
        }
        let (name, value) = line.split_once(':').ok_or(BadStomp::Header)?;
        if name.is_empty() {
            return Err(BadStomp::Header);
        }
        headers.push((unescaped(name, version)?, unescaped(value, version)?));
    }
    Ok((command, headers))
}

fn command(word: &str) -> Option<Command> {
    Some(match word {
        "CONNECT" | "STOMP" => Command::Connect,
        "SEND" => Command::Send,
        "SUBSCRIBE" => Command::Subscribe,
        "UNSUBSCRIBE" => Command::Unsubscribe,
        "ACK" => Command::Ack,
        "NACK" => Command::Nack,
        "BEGIN" => Command::Begin,
        "COMMIT" => Command::Commit,
        "ABORT" => Command::Abort,
        "DISCONNECT" => Command::Disconnect,
        _ => return None,
    })
}

/// Undoes the escapes of a version; one that it does not have is an error.
fn unescaped(text: &str, version: Version) -> Result<String, BadStomp> {
    if version == Version::V10 || !text.contains('\\') {
        return Ok(text.to_owned());
    }
    let mut plain = String::with_capacity(text.len());
    let mut characters = text.chars();
    while let Some(c) = characters.next() {
        if c != '\\' {
            plain.push(c);
            continue;
        }
        plain.push(match characters.next() {
            Some('n') => '\n',
            Some('c') => ':',
            Some('\\') => '\\',
            Some('r') if version == Version::V12 => '\r',
            Some(_) | None => return Err(BadStomp::Header),
        });
    }
    Ok(plain)
}

/// A frame of the server as text. `CONNECTED` is never escaped, so that every version reads it.
pub(super) fn encode(
    command: &str,
    headers: &[(&str, &str)],
    body: &str,
    version: Version,
) -> String {
    let escaping = version != Version::V10 && command != "CONNECTED";
    let mut text = String::with_capacity(command.len() + body.len() + 200);
    text.push_str(command);
    text.push('\n');
    for (name, value) in headers {
        escape(&mut text, name, escaping);
        text.push(':');
        escape(&mut text, value, escaping);
        text.push('\n');
    }
    if !body.is_empty() {
        text.push_str("content-length:");
        text.push_str(&body.len().to_string());
        text.push('\n');
    }
    text.push('\n');
    text.push_str(body);
    text.push('\0');
    text
}

fn escape(into: &mut String, text: &str, escaping: bool) {
    for c in text.chars() {
        match c {
            '\\' if escaping => into.push_str("\\\\"),
            '\n' if escaping => into.push_str("\\n"),
            '\r' if escaping => into.push_str("\\r"),
            ':' if escaping => into.push_str("\\c"),
            // They would end the header, or the frame.
            '\n' | '\r' | '\0' => into.push(' '),
            c => into.push(c),
        }
    }
}

#[cfg(test)]
mod tests;
