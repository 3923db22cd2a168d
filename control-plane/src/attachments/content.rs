//! What a file is, by its content alone: neither its name nor what its sender says counts.
//!
//! Pure. Only what is on the list passes; everything that a browser or an office program would run
//! (SVG, HTML, scripts, macros, programs) is not on it.

use super::archive::{self, Document};
use super::pictures::{self, Format, Size};
use crate::store::MessageKind;

/// How much is enough to know most types.
pub(super) const HEAD: usize = 8 * 1024;
/// The longest side of a picture.
const MAX_SIDE: u32 = 16_384;
/// Most pixels of a picture.
const MAX_PIXELS: u64 = 64_000_000;

/// What people may send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Picture(Format),
    Document(Document),
    Pdf,
    Text,
    Dicom,
}

/// Why it is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum BadContent {
    #[error("files of this type are not taken")]
    Type,
    #[error("the picture has too many pixels")]
    TooManyPixels,
}

/// What a file turned out to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Content {
    pub(super) kind: Kind,
    pub(super) size: Option<Size>,
}

impl Kind {
    pub(super) const fn mime_type(self) -> &'static str {
        match self {
            Self::Picture(Format::Png) => "image/png",
            Self::Picture(Format::Jpeg) => "image/jpeg",
            Self::Picture(Format::Gif) => "image/gif",
            Self::Picture(Format::Webp) => "image/webp",
            Self::Document(Document::Docx) => {
                "application/vnd.openxmlformats-officedocument.wordprocessingml.document"
            }
            Self::Document(Document::Xlsx) => {
                "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet"
            }
            Self::Document(Document::Pptx) => {
                "application/vnd.openxmlformats-officedocument.presentationml.presentation"
            }
            Self::Document(Document::Odt) => "application/vnd.oasis.opendocument.text",
            Self::Document(Document::Ods) => "application/vnd.oasis.opendocument.spreadsheet",
            Self::Document(Document::Odp) => "application/vnd.oasis.opendocument.presentation",
            Self::Pdf => "application/pdf",
            Self::Text => "text/plain; charset=utf-8",
            Self::Dicom => "application/dicom",
        }
    }

    /// The end that a file of this type should have.
    pub(super) const fn extension(self) -> &'static str {
        match self {
            Self::Picture(Format::Png) => "png",
            Self::Picture(Format::Jpeg) => "jpg",
            Self::Picture(Format::Gif) => "gif",
            Self::Picture(Format::Webp) => "webp",
            Self::Document(Document::Docx) => "docx",
            Self::Document(Document::Xlsx) => "xlsx",
            Self::Document(Document::Pptx) => "pptx",
            Self::Document(Document::Odt) => "odt",
            Self::Document(Document::Ods) => "ods",
            Self::Document(Document::Odp) => "odp",
            Self::Pdf => "pdf",
            Self::Text => "txt",
            Self::Dicom => "dcm",
        }
    }

    pub(super) const fn message_kind(self) -> MessageKind {
        match self {
            Self::Picture(_) => MessageKind::Image,
            Self::Document(_) | Self::Pdf | Self::Text | Self::Dicom => MessageKind::File,
        }
    }
}

/// Can this begin a file that we take? Asked as soon as [`HEAD`] bytes are there.
pub(super) fn may_begin(head: &[u8]) -> bool {
    head.starts_with(b"PK\x03\x04") || by_head(head).is_ok()
}

/// What the whole file is.
pub(super) fn examine(bytes: &[u8]) -> Result<Content, BadContent> {
    if bytes.starts_with(b"PK\x03\x04") {
        let document = archive::document(bytes).ok_or(BadContent::Type)?;
        return Ok(Content { kind: Kind::Document(document), size: None });
    }
    let head = bytes.get(..HEAD).unwrap_or(bytes);
    match by_head(head)? {
        Kind::Picture(format) => {
            let size = pictures::size(format, bytes).ok_or(BadContent::Type)?;
            let pixels = u64::from(size.width) * u64::from(size.height);
            if size.width > MAX_SIDE || size.height > MAX_SIDE || pixels > MAX_PIXELS {
                return Err(BadContent::TooManyPixels);
            }
            Ok(Content { kind: Kind::Picture(format), size: Some(size) })
        }
        Kind::Text if !is_plain_text(bytes) => Err(BadContent::Type),
        kind @ (Kind::Document(_) | Kind::Pdf | Kind::Text | Kind::Dicom) => {
            Ok(Content { kind, size: None })
        }
    }
}

fn by_head(head: &[u8]) -> Result<Kind, BadContent> {
    // A container of the older office formats: their macros cannot be told from the outside.
    if head.starts_with(&[0xd0, 0xcf, 0x11, 0xe0]) || head.is_empty() {
        return Err(BadContent::Type);
    }
    match infer::get(head).map(|found| found.mime_type()) {
        Some("image/png") => Ok(Kind::Picture(Format::Png)),
        Some("image/jpeg") => Ok(Kind::Picture(Format::Jpeg)),
        Some("image/gif") => Ok(Kind::Picture(Format::Gif)),
        Some("image/webp") => Ok(Kind::Picture(Format::Webp)),
        Some("application/pdf") => Ok(Kind::Pdf),
        Some("application/dicom") => Ok(Kind::Dicom),
        Some(_) => Err(BadContent::Type),
        None if is_plain_text_so_far(head) => Ok(Kind::Text),
        None => Err(BadContent::Type),
    }
}

/// A head may end within a character.
fn is_plain_text_so_far(head: &[u8]) -> bool {
    let whole = match std::str::from_utf8(head) {
        Ok(_) => head,
        Err(error) if error.error_len().is_none() => {
            head.get(..error.valid_up_to()).unwrap_or_default()
        }
        Err(_) => return false,
    };
    is_plain_text(whole)
}

/// Text to read: UTF-8 without control characters, and nothing that a browser or a shell would run.
fn is_plain_text(bytes: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(bytes) else { return false };
    let text = text.trim_start_matches('\u{feff}');
    let start = text.trim_start();
    if start.is_empty() || start.starts_with("#!") || start.starts_with('<') {
        return false;
    }
    if text.chars().any(|c| c.is_control() && !matches!(c, '\n' | '\r' | '\t' | '\u{c}')) {
        return false;
    }
    !holds_markup(text.as_bytes())
}

/// `<` and one of the words that make a browser take a text for a page or a program.
fn holds_markup(text: &[u8]) -> bool {
    const WORDS: [&[u8]; 12] = [
        b"!doctype",
        b"?xml",
        b"?php",
        b"html",
        b"head",
        b"body",
        b"script",
        b"svg",
        b"iframe",
        b"object",
        b"embed",
        b"foreignobject",
    ];
    text.iter().enumerate().filter(|(_, byte)| **byte == b'<').any(|(at, _)| {
        let rest = text.get(at + 1..).unwrap_or_default();
        WORDS.iter().any(|word| {
            rest.get(..word.len()).is_some_and(|start| start.eq_ignore_ascii_case(word))
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::attachments::archive::tests::a_zip;
    use crate::attachments::pictures::tests::a_png;

    #[test]
    fn what_is_on_the_list_passes() {
        let picture = examine(&a_png(640, 480)).expect("a picture");
        assert_eq!(picture.kind.mime_type(), "image/png");
        assert_eq!(picture.size, Some(Size { width: 640, height: 480 }));
        let mut dicom = vec![0; 128];
        dicom.extend(b"DICM and more");
        let docx = a_zip(&[("[Content_Types].xml", b"<x/>", 4), ("word/document.xml", b"w", 1)]);
        let known: [(&[u8], Kind); 5] = [
            (b"%PDF-1.7\n...", Kind::Pdf),
            (&dicom, Kind::Dicom),
            (&docx, Kind::Document(Document::Docx)),
            ("\u{feff}Grüße, 5 < 6 & 7 > 2\n".as_bytes(), Kind::Text),
            (b"a;b;c\r\n1;2;3\r\n", Kind::Text),
        ];
        for (bytes, kind) in known {
            assert_eq!(examine(bytes), Ok(Content { kind, size: None }), "{kind:?}");
            assert!(may_begin(&bytes[..bytes.len().min(HEAD)]));
        }
    }

    #[test]
    fn what_runs_is_refused_whatever_its_name() {
        let refused: [&[u8]; 22] = [
            b"",
            b" \n\t",
            b"<svg xmlns='http://www.w3.org/2000/svg' onload='x()'/>",
            b"\xef\xbb\xbf  <?xml version='1.0'?><svg/>",
            b"<!DOCTYPE html><title>x</title>",
            b"<b>bold</b>",
            b"some text\n<ScRiPt>alert(1)</sCrIpT>",
            b"text <IFRAME src=javascript:alert(1)>",
            b"#!/bin/sh\nrm -rf /",
            b"MZ\x90\0\x03\0\0\0\x04",
            b"\x7fELF\x02\x01\x01\0",
            b"\xca\xfe\xba\xbe\0\0\0\x34",
            b"PK\x03\x04\x14\0",
            b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1",
            b"Rar!\x1a\x07\0",
            b"\x1f\x8b\x08\0",
            b"7z\xbc\xaf\x27\x1c",
            b"{\\rtf1 x}",
            b"BM\x9a\x02\0\0\0\0",
            b"text with \0 in it",
            b"\xff\xfeH\0i\0",
            b"\x80\x81\x82\x83",
        ];
        for bytes in refused {
            assert_eq!(
                examine(bytes),
                Err(BadContent::Type),
                "{:?}",
                String::from_utf8_lossy(bytes)
            );
        }
        // Markup behind the head is seen, too.
        let late = [vec![b'a'; 3 * HEAD], b"<script>".to_vec()].concat();
        assert!(may_begin(&late[..HEAD]));
        assert_eq!(examine(&late), Err(BadContent::Type));
        // A head that ends within a character is text all the same.
        let umlauts = "ü".repeat(HEAD);
        assert!(may_begin(&umlauts.as_bytes()[..HEAD - 1]));
    }

    #[test]
    fn pixel_bombs_are_refused_without_being_decoded() {
        let start = std::time::Instant::now();
        for (width, height) in
            [(100_000, 100_000), (u32::MAX, u32::MAX), (20_000, 1), (8_001, 8_001)]
        {
            assert_eq!(examine(&a_png(width, height)), Err(BadContent::TooManyPixels));
        }
        assert!(examine(&a_png(8_160, 6_120)).is_ok(), "a good telephone's photograph");
        assert!(start.elapsed().as_millis() < 100);
    }

    #[test]
    fn random_bytes_do_no_harm() {
        // A small generator, so that the same bytes come again.
        let mut state = 7_u64;
        let mut next = || {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            (state >> 56) as u8
        };
        let magics: [&[u8]; 6] = [
            b"\x89PNG\r\n\x1a\n",
            b"\xff\xd8\xff",
            b"GIF89a",
            b"RIFF\0\0\0\0WEBP",
            b"PK\x03\x04",
            b"",
        ];
        for round in 0..2_000 {
            let mut bytes = magics[round % magics.len()].to_vec();
            let length = usize::from(next()) * 4;
            bytes.extend((0..length).map(|_| next()));
            let _ = examine(&bytes);
            let _ = may_begin(&bytes);
        }
    }
}
