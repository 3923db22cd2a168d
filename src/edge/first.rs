//! Who is there: told from the first bytes of a connection, plain or decrypted.

use std::io;

use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncReadExt as _};

/// By so many bytes everybody is known.
const ENOUGH: usize = 10;
/// What is read ahead at the most: a whole ClientHello or request head, usually.
const AHEAD: usize = 2048;
/// "Magic cookie" of every STUN message (RFC 8489 §5).
const COOKIE: [u8; 4] = [0x21, 0x12, 0xa4, 0x42];

/// What a connection's first bytes begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum First {
    /// A TLS handshake.
    Tls,
    /// A STUN message of a TURN client.
    Turn,
    /// A framed STUN message (RFC 4571): ICE-TCP.
    IceTcp,
    /// The name of an HTTP method.
    Http,
    /// None of these.
    Stranger,
}

/// Who is there; nothing while it could still be more than one.
pub(super) fn tell(bytes: &[u8]) -> Option<First> {
    match bytes {
        // Record type 22, major version 3 (RFC 8446 §5.1).
        [0x16, 0x03, ..] => return Some(First::Tls),
        // No STUN message begins with the two upper bits of a letter, and no frame is that long.
        [first, ..] if first.is_ascii_alphabetic() => return Some(First::Http),
        _ => {}
    }
    if bytes.len() < ENOUGH {
        return None;
    }
    Some(if bytes.get(4..8) == Some(&COOKIE) && bytes.first().is_some_and(|first| *first < 0x40) {
        First::Turn
    } else if bytes.get(6..10) == Some(&COOKIE) {
        First::IceTcp
    } else {
        First::Stranger
    })
}

/// Reads until it is clear who is there, and returns what was read for it.
pub(super) async fn look<S: AsyncRead + Unpin>(stream: &mut S) -> io::Result<(First, BytesMut)> {
    let mut read = BytesMut::with_capacity(AHEAD);
    loop {
        if stream.read_buf(&mut read).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        if let Some(first) = tell(&read) {
            return Ok((first, read));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The header of a STUN message, and one in a frame.
    const BINDING: [u8; 20] =
        [0, 1, 0, 0, 0x21, 0x12, 0xa4, 0x42, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12];

    fn framed() -> Vec<u8> {
        [&[0, 20][..], &BINDING].concat()
    }

    #[test]
    fn everybody_is_known_by_the_first_bytes() {
        for (bytes, first) in [
            (&[0x16, 3, 1, 2, 0, 1][..], First::Tls),
            (b"GET / HTTP/1.1\r\n", First::Http),
            (b"PRI * HTTP/2.0\r\n", First::Http),
            (&BINDING, First::Turn),
            (&framed(), First::IceTcp),
            (&[0x16, 2, 0, 0, 0, 0, 0, 0, 0, 0], First::Stranger),
            (&[0; 10], First::Stranger),
            (&[0xff; 10], First::Stranger),
            (b"\r\n\r\n\r\n\r\n\r\n", First::Stranger),
        ] {
            assert_eq!(tell(bytes), Some(first), "{bytes:02x?}");
        }
    }

    #[test]
    fn nobody_is_told_too_early() {
        for bytes in [&BINDING[..], &framed(), &[0; 20]] {
            for len in 0..ENOUGH {
                assert_eq!(tell(&bytes[..len]), None, "{len}");
            }
            assert!(tell(&bytes[..ENOUGH]).is_some());
        }
        assert_eq!(tell(&[0x16]), None);
        assert_eq!(tell(b"G"), Some(First::Http));
    }

    /// A cookie at both places is a TURN client's: its transaction id may be anything.
    #[test]
    fn a_frame_is_not_taken_for_a_message() {
        let mut both = BINDING;
        both[6..10].copy_from_slice(&COOKIE);
        assert_eq!(tell(&both), Some(First::IceTcp), "the first cookie is no longer whole");
        // ChannelData never comes first (RFC 8656 §12.4): its number has the second bit set.
        let mut channel = BINDING;
        channel[0] = 0x40;
        assert_eq!(tell(&channel), Some(First::Stranger));
    }

    #[tokio::test]
    async fn bytes_may_come_one_at_a_time() {
        use tokio::io::AsyncWriteExt as _;
        let (mut near, mut far) = tokio::io::duplex(64);
        let sending = tokio::spawn(async move {
            for byte in framed() {
                near.write_all(&[byte]).await.unwrap();
                tokio::task::yield_now().await;
            }
            near
        });
        let (first, read) = look(&mut far).await.unwrap();
        assert_eq!(first, First::IceTcp);
        assert_eq!(read, framed()[..read.len()]);
        sending.await.unwrap();
        assert!(look(&mut tokio::io::empty()).await.is_err());
    }
}
