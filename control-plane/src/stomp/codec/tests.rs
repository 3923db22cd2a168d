//! Frames whole, in pieces, several at once, and garbage.

use super::*;

fn all(bytes: &[u8], piece: usize, version: Version) -> Result<Vec<Heard>, BadStomp> {
    let mut decoder = Decoder::default();
    decoder.speak(version);
    let mut heard = Vec::new();
    for piece in bytes.chunks(piece) {
        decoder.feed(piece);
        while let Some(next) = decoder.next()? {
            heard.push(next);
        }
    }
    Ok(heard)
}

fn frames(heard: Vec<Heard>) -> Vec<Frame> {
    heard
        .into_iter()
        .filter_map(|heard| match heard {
            Heard::Frame(frame) => Some(frame),
            Heard::Beat => None,
        })
        .collect()
}

const CONNECT: &[u8] = b"CONNECT\naccept-version:1.0,1.1,1.2\nlogin:a\\b:c\nheart-beat:0,0\n\n\0";
const SEND: &[u8] = b"\nSEND\r\ndestination:/app/chat.send\r\nx:a\\nb\\cc\\\\d\\re\r\nx:later\r\n\r\n{\"a\":1}\0\n\n";
const COUNTED: &[u8] = b"SEND\ndestination:d\ncontent-length:5\n\na\0b\0c\0";

#[test]
fn frames_are_read_in_any_pieces() {
    let bytes = [CONNECT, SEND, COUNTED, b"\n", b"DISCONNECT\nreceipt:7\n\n\0"].concat();
    for piece in [1, 2, 3, 7, 64, bytes.len()] {
        let found = frames(all(&bytes, piece, Version::V12).expect("good frames"));
        let commands: Vec<Command> = found.iter().map(|frame| frame.command).collect();
        let expected = [Command::Connect, Command::Send, Command::Send, Command::Disconnect];
        assert_eq!(commands, expected, "pieces of {piece}");
        // Nothing is unescaped in CONNECT, and the first of two headers counts.
        assert_eq!(found[0].header("login"), Some("a\\b:c"));
        assert_eq!(found[1].header("x"), Some("a\nb:c\\d\re"));
        assert_eq!(found[1].body, b"{\"a\":1}");
        assert_eq!(found[2].body, b"a\0b\0c");
        assert_eq!(found[3].header("receipt"), Some("7"));
    }
    let beats = all(b"\n\r\n\n", 1, Version::V12).expect("beats");
    assert_eq!(beats, [Heard::Beat, Heard::Beat, Heard::Beat]);
}

#[test]
fn each_version_has_its_escapes() {
    let send = |escaped: &str| format!("SEND\ndestination:{escaped}\n\n\0").into_bytes();
    let read = |escaped: &str, version| {
        let found = all(&send(escaped), 999, version).map(frames);
        found.map(|found| found[0].header("destination").map(str::to_owned).unwrap_or_default())
    };
    assert_eq!(read("a\\cb", Version::V10).as_deref(), Ok("a\\cb"));
    assert_eq!(read("a\\cb", Version::V11).as_deref(), Ok("a:b"));
    assert_eq!(read("a\\rb", Version::V11), Err(BadStomp::Header));
    assert_eq!(read("a\\rb", Version::V12).as_deref(), Ok("a\rb"));
    for bad in ["\\t", "\\", "\\x"] {
        assert_eq!(read(bad, Version::V12), Err(BadStomp::Header), "{bad}");
    }
    assert_eq!(Version::agreed(None), Some(Version::V10));
    assert_eq!(Version::agreed(Some("1.1,1.0")), Some(Version::V11));
    assert_eq!(Version::agreed(Some(" 1.2 , 2.0")), Some(Version::V12));
    assert_eq!(Version::agreed(Some("2.0")), None);
}

#[test]
fn what_is_written_is_read_again() {
    let headers = [("destination", "/topic/a:b\\c\r\nd"), ("subscription", "s\0")];
    let text = encode("SEND", &headers, "körper\0", Version::V12);
    let found = frames(all(text.as_bytes(), 5, Version::V12).expect("it is good"));
    assert_eq!(found[0].header("destination"), Some("/topic/a:b\\c\r\nd"));
    assert_eq!(found[0].header("subscription"), Some("s "));
    assert_eq!(found[0].body, "körper\0".as_bytes());
    let connected = encode("CONNECTED", &[("version", "1.2"), ("server", "a:b")], "", Version::V12);
    assert_eq!(connected, "CONNECTED\nversion:1.2\nserver:a:b\n\n\0");
}

#[test]
fn what_is_too_large_or_malformed_is_refused() {
    let long = "x".repeat(MAX_FRAME);
    let cases = [
        (format!("SEND\n\n{long}\0"), BadStomp::TooLarge),
        (format!("SEND\n\n{long}{long}"), BadStomp::TooLarge),
        ("SEND\ncontent-length:999999999\n\nx\0".to_owned(), BadStomp::TooLarge),
        ("SEND\ncontent-length:-1\n\nx\0".to_owned(), BadStomp::Length),
        ("SEND\ncontent-length:99999999999999999999999\n\nx\0".to_owned(), BadStomp::Length),
        ("SEND\ncontent-length:1\n\nxyz\0".to_owned(), BadStomp::Length),
        (format!("SEND\na:{}\n\n\0", "x".repeat(MAX_HEAD)), BadStomp::HeadTooLarge),
        (format!("SEND\n{}\n\0", "a:b\n".repeat(65)), BadStomp::HeadTooLarge),
        ("HELLO\n\n\0".to_owned(), BadStomp::Command),
        ("send\n\n\0".to_owned(), BadStomp::Command),
        ("SEND\nno colon\n\n\0".to_owned(), BadStomp::Header),
        ("SEND\n:value\n\n\0".to_owned(), BadStomp::Header),
        ("SEND\0".to_owned(), BadStomp::Header),
        ("SEND\na:b\n\0".to_owned(), BadStomp::Header),
    ];
    for (text, error) in cases {
        let result = all(text.as_bytes(), 4_096, Version::V12);
        assert_eq!(result, Err(error), "{:.40}", text);
    }
}

#[test]
fn garbage_never_panics_and_ends() {
    let good = [CONNECT, SEND, COUNTED].concat();
    for end in 0..good.len() {
        let _ = all(&good[..end], 9, Version::V12);
    }
    for at in 0..good.len() {
        for value in [0, b'\n', b':', b'\\', 0xff, good[at] ^ 0x20] {
            let mut bytes = good.clone();
            bytes[at] = value;
            let _ = all(&bytes, 11, Version::V12);
        }
    }
    let mut state = 99_u64;
    let mut next = || {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize
    };
    let alphabet = b"SENDCONECTACK\n\n\n\r\0\0:\\ncontent-length:0123456789\xff\xc3";
    for _ in 0..3_000 {
        let length = next() % 400;
        let bytes: Vec<u8> = (0..length).map(|_| alphabet[next() % alphabet.len()]).collect();
        let _ = all(&bytes, 1 + next() % 50, Version::V12);
    }
    // A frame that comes byte by byte, and one of many ends, cost no more than their length.
    let start = std::time::Instant::now();
    let slow = [
        b"SEND\ncontent-length:60000\n".to_vec(),
        b"a:b\n".repeat(60),
        b"\n".to_vec(),
        vec![0; 60_001],
    ]
    .concat();
    assert_eq!(frames(all(&slow, 1, Version::V12).expect("it is good"))[0].body.len(), 60_000);
    assert!(start.elapsed().as_secs() < 5, "{:?}", start.elapsed());
}
