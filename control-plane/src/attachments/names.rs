//! What is left of a file's name: something to show. Files are stored under ids.

/// The longest name, in characters, without its end.
const MAX_STEM: usize = 100;

/// A name to show: the sender's, without paths, control and direction characters, with the end
/// that the content asks for.
pub(super) fn shown(given: &str, extension: &str) -> String {
    let file = given.rsplit(['/', '\\']).next().unwrap_or_default();
    let stem = match file.rsplit_once('.') {
        Some((stem, _)) => stem,
        None => file,
    };
    let clean: String =
        stem.chars().map(|c| if is_harmless(c) { c } else { '_' }).take(MAX_STEM).collect();
    let clean = clean.trim_matches(|c: char| c == '.' || c == '_' || c.is_whitespace());
    let device = clean.split('.').next().unwrap_or_default().to_ascii_uppercase();
    if clean.is_empty() || is_device(&device) {
        return format!("file.{extension}");
    }
    format!("{clean}.{extension}")
}

/// Letters, digits, marks and a few signs; no control characters, nothing that turns the direction
/// of writing or is not seen.
fn is_harmless(c: char) -> bool {
    c.is_alphanumeric()
        || matches!(c, ' ' | '-' | '_' | '.' | ',' | '(' | ')' | '+')
        // Marks that scripts of India and South-East Asia, Arabic and Hebrew write with.
        || matches!(c, '\u{300}'..='\u{36f}' | '\u{591}'..='\u{5c7}' | '\u{610}'..='\u{61a}'
            | '\u{64b}'..='\u{65f}' | '\u{900}'..='\u{dff}' | '\u{e31}'..='\u{e4e}')
}

/// Names that mean a device to Windows.
fn is_device(name: &str) -> bool {
    matches!(name, "CON" | "PRN" | "AUX" | "NUL")
        || (name.len() == 4
            && (name.starts_with("COM") || name.starts_with("LPT"))
            && name.ends_with(|c: char| c.is_ascii_digit()))
}

/// The value of `Content-Disposition` (RFC 6266): a plain name for old programs, the whole for others.
pub(super) fn disposition(id: uuid::Uuid, name: &str, extension: &str) -> String {
    let mut encoded = String::new();
    for byte in name.bytes() {
        // RFC 8187 §3.2.1: attr-char.
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'+') {
            encoded.push(char::from(byte));
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
    }
    format!("attachment; filename=\"{id}.{extension}\"; filename*=UTF-8''{encoded}")
}

/// The name in a `Content-Disposition` that came with a file.
pub(super) fn given(disposition: &str) -> Option<String> {
    let mut plain = None;
    for part in disposition.split(';') {
        let Some((key, value)) = part.split_once('=') else { continue };
        let (key, value) = (key.trim().to_ascii_lowercase(), value.trim());
        if key == "filename*" {
            let encoded = value.get(..7).filter(|start| start.eq_ignore_ascii_case("utf-8''"));
            if encoded.is_some()
                && let Some(name) = value.get(7..).and_then(decoded)
            {
                return Some(name);
            }
        } else if key == "filename" {
            plain = Some(value.trim_matches('"').to_owned());
        }
    }
    plain
}

fn decoded(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte == b'%' {
            let (high, low) = (char::from(rest.next()?), char::from(rest.next()?));
            let value = high.to_digit(16)? * 16 + low.to_digit(16)?;
            bytes.push(u8::try_from(value).ok()?);
        } else {
            bytes.push(byte);
        }
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_cleaned_and_get_the_end_of_their_content() {
        let cases = [
            ("report.pdf", "report.pdf"),
            ("evil.html", "evil.pdf"),
            ("../../etc/passwd", "passwd.pdf"),
            ("C:\\Users\\a\\scan.final.PDF", "scan.final.pdf"),
            ("Größe 12 (neu).pdf", "Größe 12 (neu).pdf"),
            ("\u{202e}fdp.exe", "fdp.pdf"),
            ("a\0b\r\nSet-Cookie: x.pdf", "a_b__Set-Cookie_ x.pdf"),
            ("CON", "file.pdf"),
            ("nul.txt", "file.pdf"),
            ("lpt1.a.b", "file.pdf"),
            ("", "file.pdf"),
            ("...", "file.pdf"),
            ("<script>.pdf", "script.pdf"),
            ("\"; rm -rf.pdf", "rm -rf.pdf"),
        ];
        for (given, expected) in cases {
            let name = shown(given, "pdf");
            assert_eq!(name.trim_start_matches([' ', '_']), expected, "{given:?}");
        }
        assert_eq!(shown(&"x".repeat(4_096), "pdf").chars().count(), 104);
    }

    #[test]
    fn the_disposition_is_plain_ascii_and_comes_back() {
        let name = "Größe \u{1F600}'\"%.pdf";
        let value = disposition(uuid::Uuid::nil(), name, "pdf");
        assert!(value.is_ascii() && !value.contains('\u{1F600}'));
        assert!(value.starts_with("attachment; filename=\"00000000-"));
        assert_eq!(given(&value).as_deref(), Some(name));
        assert_eq!(given("form-data; name=\"file\"; filename=\"a.png\"").as_deref(), Some("a.png"));
        for bad in ["", "attachment", "filename*=UTF-8''%", "filename*=UTF-8''%ff", "filename*=x"] {
            assert_eq!(given(bad), None, "{bad}");
        }
    }
}
