//! What is in an office document, read from the directory at the end of its ZIP: nothing is unpacked.
//!
//! Pure. Refused are documents that would unpack to much more than they are, that hold programs, or
//! whose directory is not in order.

/// How much a document may unpack to.
const MAX_UNPACKED: u64 = 256 * 1024 * 1024;
/// How often larger than packed that may be.
const MAX_RATIO: u64 = 200;
/// Small documents may unpack to this much whatever the ratio.
const HARMLESS: u64 = 16 * 1024 * 1024;
/// How many entries it may have.
const MAX_ENTRIES: usize = 10_000;
/// The longest comment behind the directory.
const MAX_COMMENT: usize = 65_535;
const END_LEN: usize = 22;
const ENTRY_LEN: usize = 46;

/// The documents that people may send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Document {
    Docx,
    Xlsx,
    Pptx,
    Odt,
    Ods,
    Odp,
}

fn le16(bytes: &[u8], at: usize) -> Option<usize> {
    let two: [u8; 2] = bytes.get(at..at.checked_add(2)?)?.try_into().ok()?;
    Some(usize::from(u16::from_le_bytes(two)))
}

fn le32(bytes: &[u8], at: usize) -> Option<u32> {
    let four: [u8; 4] = bytes.get(at..at.checked_add(4)?)?.try_into().ok()?;
    Some(u32::from_le_bytes(four))
}

/// The document, if it is one of ours and unpacks to something reasonable.
pub(super) fn document(bytes: &[u8]) -> Option<Document> {
    let (count, mut at) = directory(bytes)?;
    let mut unpacked: u64 = 0;
    let mut found = None;
    let mut has_types = false;
    for _ in 0..count {
        if le32(bytes, at)? != 0x0201_4b50 {
            return None;
        }
        let size = le32(bytes, at + 24)?;
        // Sizes beyond 4 GiB stand elsewhere: nobody's document has them.
        if size == u32::MAX || le32(bytes, at + 20)? == u32::MAX {
            return None;
        }
        unpacked = unpacked.checked_add(u64::from(size))?;
        let name_len = le16(bytes, at + 28)?;
        let name = bytes.get(at + ENTRY_LEN..(at + ENTRY_LEN).checked_add(name_len)?)?;
        if is_program(name) {
            return None;
        }
        has_types |= name == b"[Content_Types].xml";
        found = found.or(match name {
            b"word/document.xml" => Some(Document::Docx),
            b"xl/workbook.xml" => Some(Document::Xlsx),
            b"ppt/presentation.xml" => Some(Document::Pptx),
            _ => None,
        });
        let rest = le16(bytes, at + 30)? + le16(bytes, at + 32)?;
        at = at.checked_add(ENTRY_LEN + name_len + rest)?;
    }
    let packed = u64::try_from(bytes.len()).ok()?;
    let too_much = unpacked > MAX_UNPACKED
        || (unpacked > HARMLESS && unpacked > packed.saturating_mul(MAX_RATIO));
    if too_much {
        return None;
    }
    found.filter(|_| has_types).or_else(|| open_document(bytes))
}

/// How many entries there are, and where the first one is.
fn directory(bytes: &[u8]) -> Option<(usize, usize)> {
    if !bytes.starts_with(b"PK\x03\x04") {
        return None;
    }
    let last = bytes.len().checked_sub(END_LEN)?;
    let first = last.saturating_sub(MAX_COMMENT);
    let end = (first..=last).rev().find(|at| le32(bytes, *at) == Some(0x0605_4b50))?;
    let count = le16(bytes, end + 10)?;
    let at = usize::try_from(le32(bytes, end + 16)?).ok()?;
    (count > 0 && count <= MAX_ENTRIES && at < end).then_some((count, at))
}

/// Macros, and what else runs when a document is opened.
fn is_program(name: &[u8]) -> bool {
    let name = name.to_ascii_lowercase();
    let file = name.rsplit(|b| *b == b'/').next().unwrap_or_default();
    let ends = [b".exe".as_slice(), b".dll", b".js", b".vbs", b".class", b".jar", b".zip", b".bat"];
    file == b"vbaproject.bin"
        || name.starts_with(b"basic/")
        || name.starts_with(b"scripts/")
        || name.windows(3).any(|part| part == b"../")
        || ends.iter().any(|end| file.ends_with(end))
}

/// An OpenDocument says its type in its first entry, stored as it is (ODF 1.3 part 2 §3.3).
fn open_document(bytes: &[u8]) -> Option<Document> {
    let start = bytes.get(..200.min(bytes.len()))?;
    let name = start.get(30..38)?;
    let kind = start.get(38 + le16(start, 28)?..)?;
    if name != b"mimetype" {
        return None;
    }
    let kinds = [
        (b"application/vnd.oasis.opendocument.text".as_slice(), Document::Odt),
        (b"application/vnd.oasis.opendocument.spreadsheet", Document::Ods),
        (b"application/vnd.oasis.opendocument.presentation", Document::Odp),
    ];
    kinds.into_iter().find(|(word, _)| kind.starts_with(word)).map(|(_, document)| document)
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A ZIP of stored entries that claim to unpack to a size.
    pub(in crate::attachments) fn a_zip(entries: &[(&str, &[u8], u32)]) -> Vec<u8> {
        let mut bytes = Vec::new();
        let mut directory = Vec::new();
        for (name, content, claimed) in entries {
            let at = u32::try_from(bytes.len()).expect("small");
            let length = u32::try_from(content.len()).expect("small");
            let name_len = u16::try_from(name.len()).expect("short");
            bytes.extend(b"PK\x03\x04\x14\0\0\0\0\0\0\0\0\0\0\0\0\0");
            bytes.extend(length.to_le_bytes());
            bytes.extend(claimed.to_le_bytes());
            bytes.extend(name_len.to_le_bytes());
            bytes.extend([0, 0]);
            bytes.extend(name.as_bytes());
            bytes.extend(*content);
            directory.extend(b"PK\x01\x02\x14\0\x14\0\0\0\0\0\0\0\0\0\0\0\0\0");
            directory.extend(length.to_le_bytes());
            directory.extend(claimed.to_le_bytes());
            directory.extend(name_len.to_le_bytes());
            directory.extend([0; 12]);
            directory.extend(at.to_le_bytes());
            directory.extend(name.as_bytes());
        }
        let at = u32::try_from(bytes.len()).expect("small");
        let count = u16::try_from(entries.len()).expect("few").to_le_bytes();
        let length = u32::try_from(directory.len()).expect("small");
        bytes.extend(directory);
        bytes.extend(b"PK\x05\x06\0\0\0\0");
        bytes.extend(count);
        bytes.extend(count);
        bytes.extend(length.to_le_bytes());
        bytes.extend(at.to_le_bytes());
        bytes.extend([0, 0]);
        bytes
    }

    fn docx() -> Vec<u8> {
        a_zip(&[("[Content_Types].xml", b"<x/>", 4), ("word/document.xml", b"<w/>", 4)])
    }

    #[test]
    fn office_documents_are_known_by_what_is_in_them() {
        assert_eq!(document(&docx()), Some(Document::Docx));
        let kind = b"application/vnd.oasis.opendocument.spreadsheet";
        assert_eq!(document(&a_zip(&[("mimetype", kind, 46)])), Some(Document::Ods));
        assert_eq!(document(&a_zip(&[("photo.jpg", b"x", 1)])), None, "any archive");
        let mut commented = docx();
        let length = commented.len();
        commented[length - 2] = 5;
        commented.extend(b"12345");
        assert_eq!(document(&commented), Some(Document::Docx));
    }

    #[test]
    fn bombs_and_programs_are_refused() {
        let with = |name: &str, claimed: u32| {
            let types = ("[Content_Types].xml", b"<x/>".as_slice(), 4);
            document(&a_zip(&[types, ("word/document.xml", b"<w/>", 4), (name, b"0", claimed)]))
        };
        assert_eq!(with("word/media/a.png", 1_000), Some(Document::Docx));
        assert_eq!(with("word/media/a.png", 17 * 1024 * 1024), None, "a ratio of thousands");
        assert_eq!(with("word/media/a.png", u32::MAX - 1), None);
        assert_eq!(with("word/media/a.png", u32::MAX), None);
        for name in ["word/vbaProject.bin", "a/run.EXE", "../../etc/passwd", "Basic/x", "in.zip"] {
            assert_eq!(with(name, 1), None, "{name}");
        }
    }

    #[test]
    fn damaged_directories_do_no_harm() {
        let good = docx();
        for end in 0..good.len() {
            let _ = document(&good[..end]);
        }
        for at in 0..good.len() {
            for value in [0, 0xff, good[at] ^ 1] {
                let mut bytes = good.clone();
                bytes[at] = value;
                let _ = document(&bytes);
            }
        }
        let mut long = b"PK\x03\x04".to_vec();
        long.extend(vec![b'P'; 300_000]);
        assert_eq!(document(&long), None);
    }
}
