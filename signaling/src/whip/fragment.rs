//! SDP fragments of trickle ICE (RFC 8840): candidates, or new credentials that restart ICE.

use std::fmt::Write as _;

/// A user name and password of one side's ICE.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IceNames {
    /// User name fragment.
    pub ufrag: String,
    /// Password.
    pub pwd: String,
}

/// What a fragment says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fragment {
    /// Whose candidates these are; without them those of the session at hand.
    pub names: Option<IceNames>,
}

/// The fragment cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("this is not a fragment of trickle ICE")]
pub struct Unreadable;

/// Reads a client's fragment. Its candidates are passed over: the server checks none, it is checked.
///
/// # Errors
/// When there is nothing in it, or half of the credentials, or impossible ones.
pub fn read(text: &str) -> Result<Fragment, Unreadable> {
    let (mut ufrag, mut pwd, mut speaks) = (None, None, false);
    for line in text.lines() {
        let Some(line) = line.trim_end().strip_prefix("a=") else { continue };
        let (name, value) = line.split_once(':').unwrap_or((line, ""));
        match name {
            // In a bundle all sections repeat the same ones.
            "ice-ufrag" => ufrag = ufrag.or(Some(value)),
            "ice-pwd" => pwd = pwd.or(Some(value)),
            "candidate" | "end-of-candidates" => speaks = true,
            _ => {}
        }
    }
    let names = match (ufrag, pwd) {
        (Some(ufrag), Some(pwd)) if proper(ufrag, 4) && proper(pwd, 22) => {
            Some(IceNames { ufrag: ufrag.to_owned(), pwd: pwd.to_owned() })
        }
        // Some say whose candidates they are by the user name alone.
        (None | Some(_), None) if speaks => None,
        (None, None) | (Some(_), _) | (None, Some(_)) => return Err(Unreadable),
    };
    Ok(Fragment { names })
}

/// `ice-char` and lengths of RFC 8839 §5.4.
fn proper(value: &str, least: usize) -> bool {
    let letter = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'+' || byte == b'/';
    (least..=256).contains(&value.len()) && value.bytes().all(letter)
}

/// The credentials that a description names first.
pub fn names_of(sdp: &str) -> Option<IceNames> {
    let value = |prefix: &str| sdp.lines().find_map(|line| line.strip_prefix(prefix));
    let (ufrag, pwd) = (value("a=ice-ufrag:")?, value("a=ice-pwd:")?);
    Some(IceNames { ufrag: ufrag.trim_end().to_owned(), pwd: pwd.trim_end().to_owned() })
}

/// The same description with other credentials.
pub fn rename(sdp: &str, names: &IceNames) -> String {
    let mut renamed = String::with_capacity(sdp.len() + 64);
    for line in sdp.lines() {
        let written = if line.starts_with("a=ice-ufrag:") {
            write!(renamed, "a=ice-ufrag:{}\r\n", names.ufrag)
        } else if line.starts_with("a=ice-pwd:") {
            write!(renamed, "a=ice-pwd:{}\r\n", names.pwd)
        } else {
            write!(renamed, "{}\r\n", line.trim_end())
        };
        // Writing to a string cannot fail.
        debug_assert!(written.is_ok());
    }
    renamed
}

/// Our side of a restart: what of an answer concerns ICE. In a bundle the first section has it all.
pub fn of_answer(sdp: &str) -> Option<String> {
    let names = names_of(sdp)?;
    let mut fragment =
        format!("a=ice-lite\r\na=ice-ufrag:{}\r\na=ice-pwd:{}\r\n", names.ufrag, names.pwd);
    let mut sections = 0;
    for line in sdp.lines().map(str::trim_end) {
        sections += usize::from(line.starts_with("m="));
        let wanted = ["m=", "a=mid:", "a=candidate:", "a=end-of-candidates"];
        if sections == 1 && wanted.iter().any(|prefix| line.starts_with(prefix)) {
            fragment.push_str(line);
            fragment.push_str("\r\n");
        }
    }
    Some(fragment)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PWD: &str = "0123456789012345678901";

    #[test]
    fn candidates_come_with_and_without_names() {
        let candidate = "a=candidate:1 1 udp 2130706431 192.0.2.1 4000 typ host\r\n";
        let named = format!(
            "a=ice-ufrag:abcd\r\na=ice-pwd:{PWD}\r\nm=audio 9 RTP/AVP 0\r\na=mid:0\r\n{candidate}"
        );
        let names = IceNames { ufrag: "abcd".into(), pwd: PWD.into() };
        assert_eq!(read(&named), Ok(Fragment { names: Some(names) }));
        assert_eq!(read(candidate), Ok(Fragment { names: None }));
        assert_eq!(read("a=ice-ufrag:abcd\na=end-of-candidates\n"), Ok(Fragment { names: None }));
    }

    #[test]
    fn halves_and_impossible_names_are_refused() {
        let long = "x".repeat(257);
        for text in [
            "".to_owned(),
            "m=audio 9 RTP/AVP 0\r\n".to_owned(),
            format!("a=ice-pwd:{PWD}\r\na=end-of-candidates\r\n"),
            "a=ice-ufrag:abcd\r\n".to_owned(),
            format!("a=ice-ufrag:abc\r\na=ice-pwd:{PWD}"),
            format!("a=ice-ufrag:ab cd\r\na=ice-pwd:{PWD}"),
            format!("a=ice-ufrag:ab\u{e9}d\r\na=ice-pwd:{PWD}"),
            format!("a=ice-ufrag:{long}\r\na=ice-pwd:{PWD}"),
            "a=ice-ufrag:abcd\r\na=ice-pwd:short".to_owned(),
        ] {
            assert_eq!(read(&text), Err(Unreadable), "{text}");
        }
    }

    #[test]
    fn whatever_comes_is_read_without_a_panic() {
        let good = format!(
            "a=ice-ufrag:abcd\r\na=ice-pwd:{PWD}\r\na=candidate:1 1 udp 1 ::1 9 typ host\r\n"
        );
        for cut in 0..good.len() {
            _ = read(&good[..cut]);
            let mut flipped = good.clone().into_bytes();
            flipped[cut] ^= 0x15;
            if let Ok(text) = String::from_utf8(flipped)
                && let Ok(Fragment { names: Some(names) }) = read(&text)
            {
                let renamed = rename("v=0\na=ice-ufrag:x\na=ice-pwd:y\n", &names);
                assert_eq!(renamed.lines().count(), 3, "{renamed}");
            }
        }
    }

    #[test]
    fn an_answer_gives_its_ice_and_nothing_else() {
        let answer = "v=0\r\na=ice-lite\r\nm=audio 9 UDP/TLS/RTP/SAVPF 111\r\na=ice-ufrag:serv\r\na=ice-pwd:pass\r\n\
                      a=fingerprint:sha-256 AB\r\na=mid:0\r\na=candidate:1 1 udp 1 192.0.2.1 9 typ host\r\n\
                      a=end-of-candidates\r\nm=video 9 UDP/TLS/RTP/SAVPF 96\r\na=ice-ufrag:serv\r\na=mid:1\r\n";
        let fragment = of_answer(answer).unwrap();
        assert_eq!(
            fragment,
            "a=ice-lite\r\na=ice-ufrag:serv\r\na=ice-pwd:pass\r\nm=audio 9 UDP/TLS/RTP/SAVPF 111\r\na=mid:0\r\n\
             a=candidate:1 1 udp 1 192.0.2.1 9 typ host\r\na=end-of-candidates\r\n"
        );
        assert_eq!(of_answer("v=0\r\n"), None);
    }

    #[test]
    fn a_renamed_offer_differs_in_its_names_alone() {
        let offer = "v=0\na=ice-ufrag:old1\r\na=ice-pwd:oldoldoldoldoldoldoldol\r\na=mid:0\r\n";
        let names = IceNames { ufrag: "new1".into(), pwd: PWD.into() };
        let renamed = rename(offer, &names);
        assert_eq!(names_of(&renamed), Some(names));
        assert!(renamed.starts_with("v=0\r\n") && renamed.ends_with("a=mid:0\r\n"), "{renamed}");
    }
}
