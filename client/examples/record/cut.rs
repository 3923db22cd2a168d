//! Cuts a loop out of a take, from a keyframe to the next one five seconds later.

use std::time::{Duration, Instant};

use bedside_sfu::core::codec::{Codec, keyframe_start};

use crate::Error;
use crate::receiver::{Packet, Take};

/// Least length of a loop, in ticks of the clock.
const LENGTH: u32 = 5 * 90_000 - 9_000;
/// Keyframes of one picture come within this.
const TOGETHER: Duration = Duration::from_millis(400);

/// The bytes of the file.
pub(crate) fn cut(take: &Take, width: u16) -> Result<Vec<u8>, Error> {
    let top = take.streams.last().ok_or("nothing came")?;
    let is_key = |packet: &&Packet| {
        let descriptor = Some(&*packet.descriptor).filter(|bytes| !bytes.is_empty());
        keyframe_start(take.codec, &packet.payload, descriptor)
    };
    let mut keys = top.iter().filter(is_key).filter(|packet| packet.at >= take.settled);
    let start = keys.next().ok_or("no keyframe")?;
    let ticks = |packet: &Packet, from: u32| packet.header.timestamp.wrapping_sub(from);
    let end = keys.find(|packet| ticks(packet, start.header.timestamp) >= LENGTH);
    let length = ticks(end.ok_or("no keyframe at the end")?, start.header.timestamp);

    let mut chosen: Vec<(Instant, u8, u32, &Packet)> = Vec::new();
    for (stream, packets) in (0u8..).zip(&take.streams) {
        let distance = |packet: &&Packet| {
            packet.at.max(start.at).saturating_duration_since(packet.at.min(start.at))
        };
        let first = packets.iter().filter(is_key).min_by_key(distance).ok_or("no keyframe")?;
        if distance(&first) > TOGETHER {
            return Err(format!("stream {stream}: no keyframe at the start").into());
        }
        let from = first.header.timestamp;
        let inside = packets
            .iter()
            .filter(|packet| ticks(packet, from) < length && !packet.payload.is_empty());
        chosen.extend(inside.map(|packet| (packet.at, stream, ticks(packet, from), packet)));
    }
    // Pacing may let a big picture of one stream end behind the next picture of another.
    chosen.sort_by_key(|(at, _, ticks, _)| (*ticks, *at));
    write(take, width, length, &chosen)
}

fn write(
    take: &Take,
    width: u16,
    length: u32,
    chosen: &[(Instant, u8, u32, &Packet)],
) -> Result<Vec<u8>, Error> {
    let codec = match take.codec {
        Codec::Vp8 => 0,
        Codec::Vp9 => 1,
        Codec::Av1 => 2,
        Codec::H264 => 3,
        Codec::Opus | Codec::Red | Codec::Other => return Err("no video".into()),
    };
    let streams = u8::try_from(take.streams.len())?;
    let mut file = b"BRTP\x01".to_vec();
    file.extend([codec, streams, 0]);
    file.extend(length.to_be_bytes());
    for stream in 0..streams {
        let width = width >> (streams - 1 - stream);
        file.extend(width.to_be_bytes());
        file.extend((width / 16 * 9).to_be_bytes());
    }
    for (_, stream, ticks, packet) in chosen {
        file.push(u8::from(packet.header.marker) << 7 | stream);
        file.push(u8::try_from(packet.descriptor.len())?);
        file.extend(u16::try_from(packet.payload.len())?.to_be_bytes());
        file.extend(ticks.to_be_bytes());
        file.extend(&packet.descriptor);
        file.extend(&packet.payload);
    }
    Ok(file)
}
