//! From RTP payloads back to what a decoder reads.

use bedside_sfu::core::codec::{Codec, Vp8, Vp9};

/// The payloads of one picture time, as the packets of a file: one for each layer frame of VP9 (a
/// decoder takes them singly), one for all else.
pub fn pictures(codec: Codec, payloads: &[&[u8]]) -> Vec<Vec<u8>> {
    match codec {
        Codec::Vp8 => vec![
            payloads.iter().flat_map(|payload| &payload[vp8_head(payload)..]).copied().collect(),
        ],
        Codec::Vp9 => vp9(payloads),
        Codec::H264 => vec![h264(payloads)],
        Codec::Av1 => vec![av1(payloads)],
        Codec::Opus | Codec::Red | Codec::Other => unreachable!("video only"),
    }
}

/// RFC 7741 §4.2.
fn vp8_head(payload: &[u8]) -> usize {
    assert!(Vp8::parse(payload).is_some());
    if payload[0] & 0x80 == 0 {
        return 1;
    }
    let (fields, mut len) = (payload[1], 2);
    if fields & 0x80 != 0 {
        len += if payload[2] & 0x80 != 0 { 2 } else { 1 };
    }
    len += usize::from(fields & 0x40 != 0);
    len + usize::from(fields & 0x30 != 0)
}

fn vp9(payloads: &[&[u8]]) -> Vec<Vec<u8>> {
    let mut frames: Vec<Vec<u8>> = Vec::new();
    for payload in payloads {
        let head = Vp9::parse(payload).expect("a descriptor");
        if head.starts_frame {
            frames.push(Vec::new());
        }
        let frame = frames.last_mut().expect("a frame starts before it goes on");
        frame.extend_from_slice(&payload[head.length..]);
    }
    frames
}

/// RFC 6184: single units, STAP-A and FU-A to Annex B.
fn h264(payloads: &[&[u8]]) -> Vec<u8> {
    const START: [u8; 4] = [0, 0, 0, 1];
    let mut out = Vec::new();
    for payload in payloads {
        match payload[0] & 0x1F {
            24 => {
                let mut rest = &payload[1..];
                while rest.len() > 2 {
                    let len = usize::from(u16::from_be_bytes([rest[0], rest[1]]));
                    out.extend_from_slice(&START);
                    out.extend_from_slice(&rest[2..2 + len]);
                    rest = &rest[2 + len..];
                }
            }
            28 => {
                if payload[1] & 0x80 != 0 {
                    out.extend_from_slice(&START);
                    out.push(payload[0] & 0xE0 | payload[1] & 0x1F);
                }
                out.extend_from_slice(&payload[2..]);
            }
            _ => {
                out.extend_from_slice(&START);
                out.extend_from_slice(payload);
            }
        }
    }
    out
}

/// The AV1 RTP specification §4.4: a temporal unit in the low-overhead format.
fn av1(payloads: &[&[u8]]) -> Vec<u8> {
    let mut units: Vec<Vec<u8>> = Vec::new();
    for payload in payloads {
        let head = payload[0];
        let (continues, count) = (head & 0x80 != 0, usize::from(head >> 4 & 3));
        let mut rest = &payload[1..];
        let mut element = 0;
        while !rest.is_empty() {
            element += 1;
            let len = if count > 0 && element == count { rest.len() } else { leb128(&mut rest) };
            let (unit, tail) = rest.split_at(len);
            if element == 1 && continues {
                units.last_mut().expect("it goes on").extend_from_slice(unit);
            } else {
                units.push(unit.to_vec());
            }
            rest = tail;
        }
    }
    // A temporal delimiter, then every unit with its size.
    let mut out = vec![0x12, 0];
    for unit in units.iter().filter(|unit| !unit.is_empty()) {
        let header = if unit[0] & 4 != 0 { 2 } else { 1 };
        assert_eq!(unit[0] & 2, 0, "senders leave the size out");
        out.push(unit[0] | 2);
        out.extend_from_slice(&unit[1..header]);
        let mut len = unit.len() - header;
        while len >= 0x80 {
            out.push(len as u8 | 0x80);
            len >>= 7;
        }
        out.push(len as u8);
        out.extend_from_slice(&unit[header..]);
    }
    out
}

fn leb128(rest: &mut &[u8]) -> usize {
    let mut value = 0;
    for shift in 0..4 {
        let (byte, tail) = rest.split_first().expect("a length");
        *rest = tail;
        value |= usize::from(byte & 0x7F) << (7 * shift);
        if byte & 0x80 == 0 {
            break;
        }
    }
    value
}
