//! How large a picture is, read from its first bytes: nothing is decoded.
//!
//! Pure. A picture whose size cannot be read is none.

/// Width and height in pixels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Size {
    pub(super) width: u32,
    pub(super) height: u32,
}

/// The pictures that people may send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Format {
    Png,
    Jpeg,
    Gif,
    Webp,
}

/// Reads the size from the headers of a picture.
pub(super) fn size(format: Format, bytes: &[u8]) -> Option<Size> {
    let size = match format {
        Format::Png => png(bytes),
        Format::Jpeg => jpeg(bytes),
        Format::Gif => gif(bytes),
        Format::Webp => webp(bytes),
    }?;
    (size.width > 0 && size.height > 0).then_some(size)
}

fn array<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..at.checked_add(N)?)?.try_into().ok()
}

fn be16(bytes: &[u8], at: usize) -> Option<u32> {
    array(bytes, at).map(|two| u32::from(u16::from_be_bytes(two)))
}

fn le16(bytes: &[u8], at: usize) -> Option<u32> {
    array(bytes, at).map(|two| u32::from(u16::from_le_bytes(two)))
}

fn le24(bytes: &[u8], at: usize) -> Option<u32> {
    let [a, b, c] = array(bytes, at)?;
    Some(u32::from_le_bytes([a, b, c, 0]))
}

/// The header chunk comes first (PNG, third edition, §5.6).
fn png(bytes: &[u8]) -> Option<Size> {
    let known = bytes.starts_with(b"\x89PNG\r\n\x1a\n") && array(bytes, 12)? == *b"IHDR";
    let width = u32::from_be_bytes(array(bytes, 16)?);
    let height = u32::from_be_bytes(array(bytes, 20)?);
    known.then_some(Size { width, height })
}

/// The logical screen; frames that reach beyond it are cut by whoever shows them.
fn gif(bytes: &[u8]) -> Option<Size> {
    let known = bytes.starts_with(b"GIF87a") || bytes.starts_with(b"GIF89a");
    known.then_some(Size { width: le16(bytes, 6)?, height: le16(bytes, 8)? })
}

/// Goes from marker to marker until a frame begins (ITU-T T.81, annex B).
fn jpeg(bytes: &[u8]) -> Option<Size> {
    if !bytes.starts_with(&[0xff, 0xd8]) {
        return None;
    }
    let mut at = 2;
    loop {
        if *bytes.get(at)? != 0xff {
            return None;
        }
        let marker = *bytes.get(at + 1)?;
        match marker {
            // Fill bytes.
            0xff => at += 1,
            // Markers without a segment.
            0x01 | 0xd0..=0xd7 => at += 2,
            // A frame: precision, height, width.
            0xc0..=0xc3 | 0xc5..=0xc7 | 0xc9..=0xcb | 0xcd..=0xcf => {
                return Some(Size { height: be16(bytes, at + 5)?, width: be16(bytes, at + 7)? });
            }
            // The picture begins or ends without a frame before it.
            0xd8..=0xda => return None,
            0x00..=0xfe => {
                let length = be16(bytes, at + 2)?;
                if length < 2 {
                    return None;
                }
                at = at.checked_add(2 + usize::try_from(length).ok()?)?;
            }
        }
    }
}

/// One of three chunks comes first (RFC 9649 §2).
fn webp(bytes: &[u8]) -> Option<Size> {
    if !bytes.starts_with(b"RIFF") || array(bytes, 8)? != *b"WEBP" {
        return None;
    }
    match &array(bytes, 12)? {
        b"VP8 " => {
            let key = array(bytes, 23)? == [0x9d, 0x01, 0x2a];
            let (width, height) = (le16(bytes, 26)? & 0x3fff, le16(bytes, 28)? & 0x3fff);
            key.then_some(Size { width, height })
        }
        b"VP8L" => {
            let bits = u32::from_le_bytes(array(bytes, 21)?);
            let (width, height) = ((bits & 0x3fff) + 1, ((bits >> 14) & 0x3fff) + 1);
            (*bytes.get(20)? == 0x2f).then_some(Size { width, height })
        }
        b"VP8X" => Some(Size { width: le24(bytes, 24)? + 1, height: le24(bytes, 27)? + 1 }),
        _ => None,
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in crate::attachments) fn a_png(width: u32, height: u32) -> Vec<u8> {
        let mut bytes = b"\x89PNG\r\n\x1a\n\0\0\0\x0dIHDR".to_vec();
        bytes.extend(width.to_be_bytes());
        bytes.extend(height.to_be_bytes());
        bytes.extend([8, 2, 0, 0, 0, 1, 2, 3, 4]);
        bytes
    }

    fn a_jpeg(width: u16, height: u16) -> Vec<u8> {
        let mut bytes = vec![0xff, 0xd8, 0xff, 0xe0, 0, 4, 1, 2, 0xff, 0xff, 0xdb, 0, 3, 9];
        bytes.extend([0xff, 0xc2, 0, 11, 8]);
        bytes.extend(height.to_be_bytes());
        bytes.extend(width.to_be_bytes());
        bytes.extend([1, 1, 17, 0, 0xff, 0xda, 0, 2]);
        bytes
    }

    fn a_webp(chunk: &[u8], rest: &[u8]) -> Vec<u8> {
        [b"RIFF\0\0\0\0WEBP".as_slice(), chunk, &[0, 0, 0, 0], rest].concat()
    }

    fn all() -> Vec<(Format, Vec<u8>)> {
        let mut gif = b"GIF89a".to_vec();
        gif.extend([0x2c, 1, 200, 0, 0]);
        let lossy = [0, 0, 0, 0x9d, 0x01, 0x2a, 0x2c, 0x41, 200, 0x80];
        let bits = (299_u32 | (199 << 14)).to_le_bytes();
        let lossless = [0x2f, bits[0], bits[1], bits[2], bits[3]];
        let extended = [0, 0, 0, 0, 0x2b, 1, 0, 199, 0, 0];
        vec![
            (Format::Png, a_png(300, 200)),
            (Format::Jpeg, a_jpeg(300, 200)),
            (Format::Gif, gif),
            (Format::Webp, a_webp(b"VP8 ", &lossy)),
            (Format::Webp, a_webp(b"VP8L", &lossless)),
            (Format::Webp, a_webp(b"VP8X", &extended)),
        ]
    }

    #[test]
    fn sizes_are_read_from_every_format() {
        for (format, bytes) in all() {
            assert_eq!(size(format, &bytes), Some(Size { width: 300, height: 200 }), "{format:?}");
        }
        assert_eq!(size(Format::Png, &a_png(0, 5)), None);
        assert_eq!(size(Format::Png, &a_png(u32::MAX, 1)).map(|s| s.width), Some(u32::MAX));
    }

    #[test]
    fn damaged_headers_give_no_size_and_no_panic() {
        for (format, bytes) in all() {
            for end in 0..bytes.len() {
                let _ = size(format, &bytes[..end]);
            }
            for at in 0..bytes.len() {
                for value in [0, 0xff, 0xd8, bytes[at] ^ 0x40] {
                    let mut bytes = bytes.clone();
                    bytes[at] = value;
                    let _ = size(format, &bytes);
                }
            }
            for other in [Format::Png, Format::Jpeg, Format::Gif, Format::Webp] {
                if other != format {
                    assert_eq!(size(other, &bytes), None);
                }
            }
        }
        // Markers without an end.
        assert_eq!(size(Format::Jpeg, &[&[0xff, 0xd8][..], &[0xff; 100_000]].concat()), None);
        assert_eq!(
            size(Format::Jpeg, &[&[0xff, 0xd8][..], &[0xff, 0x01].repeat(50_000)].concat()),
            None
        );
    }
}
