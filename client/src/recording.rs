//! Video with layers, recorded once from a browser (`client/media/make-layers`), to be played in a
//! loop by the headless participant and by the tests of the engine.
//!
//! A file holds one loop, all numbers big-endian: `BRTP`, version 1, codec (0 VP8, 1 VP9, 2 AV1,
//! 3 H.264), number of streams, 0, length of the loop in ticks of 90 kHz (32 bits); for each stream
//! width and height (16 bits each); then packets in the order of sending: a byte with the stream and
//! the marker as its highest bit, length of the dependency descriptor (8 bits), length of the payload
//! (16 bits), RTP timestamp since the loop's start (32 bits), descriptor, payload.
//!
//! A loop begins with a keyframe in every stream and has one each second. Simulcast is one stream for
//! each size, the smallest first; spatial layers are inside one stream. Picture ids and frame numbers
//! are as recorded: [`Recording::play`] makes them go on from lap to lap as a sender's would.

use bedside_sfu::core::codec::{Codec, Vp8, Vp9, keyframe_start};

/// Ticks of the clock in a second.
pub const CLOCK: u32 = 90_000;

/// The loops in the tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Loop {
    /// VP8, three streams with three temporal layers each, told by picture id and TL0PICIDX.
    Vp8Simulcast,
    /// The same, told by the dependency descriptor alone: Chromium then leaves out the others.
    Vp8Described,
    /// H.264, constrained baseline, three streams; with descriptors, without temporal layers.
    H264Simulcast,
    /// VP9, three spatial layers that meet at keyframes, with three temporal layers each.
    Vp9L3T3Key,
    /// AV1, the same.
    Av1L3T3Key,
    /// AV1, three temporal layers.
    Av1L1T3,
}

impl Loop {
    /// All of them.
    pub const ALL: [Self; 6] = [
        Self::Vp8Simulcast,
        Self::Vp8Described,
        Self::H264Simulcast,
        Self::Vp9L3T3Key,
        Self::Av1L3T3Key,
        Self::Av1L1T3,
    ];

    /// Its file.
    #[must_use]
    pub const fn file(self) -> &'static [u8] {
        match self {
            Self::Vp8Simulcast => include_bytes!("../media/vp8-simulcast.rtp"),
            Self::Vp8Described => include_bytes!("../media/vp8-described.rtp"),
            Self::H264Simulcast => include_bytes!("../media/h264-simulcast.rtp"),
            Self::Vp9L3T3Key => include_bytes!("../media/vp9-l3t3-key.rtp"),
            Self::Av1L3T3Key => include_bytes!("../media/av1-l3t3-key.rtp"),
            Self::Av1L1T3 => include_bytes!("../media/av1-l1t3.rtp"),
        }
    }

    /// What the file holds.
    #[must_use]
    pub fn read(self) -> Recording {
        Recording::read(self.file()).expect("the files in the tree are well-formed")
    }
}

/// One packet of a loop, as recorded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packet {
    /// Index of its stream.
    pub stream: u8,
    /// The RTP marker.
    pub marker: bool,
    /// RTP timestamp since the loop's start; also when it is sent.
    pub ticks: u32,
    /// First packet of a keyframe.
    pub keyframe_start: bool,
    /// Value of the dependency descriptor extension; empty = none.
    pub descriptor: &'static [u8],
    /// The payload.
    pub payload: &'static [u8],
}

/// One packet in some lap, with the numbers a sender would give it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Played {
    /// RTP timestamp since the first lap's start.
    pub ticks: u64,
    /// Value of the dependency descriptor extension; empty = none.
    pub descriptor: Vec<u8>,
    /// The payload.
    pub payload: Vec<u8>,
}

/// A loop.
#[derive(Clone, Debug)]
pub struct Recording {
    /// What the payloads are.
    pub codec: Codec,
    /// Ticks from the first packet to the first packet of the next lap.
    pub length: u32,
    /// Width and height of each stream's (highest) layer.
    pub sizes: Vec<(u16, u16)>,
    /// The packets, in the order of sending. Packets of one `ticks` are sent together.
    pub packets: Vec<Packet>,
    /// What a lap adds to frame numbers, over all streams.
    frames: u16,
    /// What a lap adds to picture id and TL0PICIDX of each stream.
    pictures: Vec<(u16, u8)>,
}

impl Recording {
    /// Reads a file; `None` when it is not one.
    #[must_use]
    pub fn read(file: &'static [u8]) -> Option<Self> {
        let (&[b'B', b'R', b'T', b'P', 1, codec, streams, _], rest) = file.split_first_chunk()?
        else {
            return None;
        };
        let codec = [Codec::Vp8, Codec::Vp9, Codec::Av1, Codec::H264].get(usize::from(codec))?;
        let (length, mut rest) = rest.split_first_chunk()?;
        let mut sizes = Vec::new();
        for _ in 0..streams {
            let (&[w1, w0, h1, h0], tail) = rest.split_first_chunk()?;
            sizes.push((u16::from_be_bytes([w1, w0]), u16::from_be_bytes([h1, h0])));
            rest = tail;
        }
        let mut packets = Vec::new();
        while let Some((&[stream, described, l1, l0, t3, t2, t1, t0], tail)) =
            rest.split_first_chunk()
        {
            let (descriptor, tail) = tail.split_at_checked(usize::from(described))?;
            let length = usize::from(u16::from_be_bytes([l1, l0]));
            let (payload, tail) = tail.split_at_checked(length)?;
            rest = tail;
            let shown = Some(descriptor).filter(|descriptor| !descriptor.is_empty());
            packets.push(Packet {
                stream: stream & 0x7F,
                marker: stream & 0x80 != 0,
                ticks: u32::from_be_bytes([t3, t2, t1, t0]),
                keyframe_start: keyframe_start(*codec, payload, shown),
                descriptor,
                payload,
            });
        }
        let length = u32::from_be_bytes(*length);
        let mut made =
            Self { codec: *codec, length, sizes, packets, frames: 0, pictures: Vec::new() };
        made.measure();
        (rest.is_empty() && length > 0).then_some(made)
    }

    /// Finds what a lap adds to the numbers.
    fn measure(&mut self) {
        let numbers = self.packets.iter().filter_map(|packet| frame_number(packet.descriptor));
        self.frames = span(numbers, u16::MAX);
        self.pictures = (0u8..)
            .zip(&self.sizes)
            .map(|(stream, _)| {
                let own = || self.packets.iter().filter(move |packet| packet.stream == stream);
                let found = |packet: &Packet| numbers_of(self.codec, packet.payload);
                let ids = own().filter_map(|packet| found(packet).0).map(|(_, id, _)| id);
                let tl0 = own().filter_map(|packet| found(packet).1);
                let tl0 = tl0.map(|(_, index)| u16::from(index) << 8);
                (span(ids, 0x7FFF), (span(tl0, u16::MAX).div_ceil(256) & 0xFF) as u8)
            })
            .collect();
    }

    /// The packet at a place that goes on counting through the laps; `None` in an empty recording.
    #[must_use]
    pub fn play(&self, index: usize) -> Option<(&Packet, Played)> {
        let laps = index.checked_div(self.packets.len())?;
        let packet = self.packets.get(index % self.packets.len())?;
        let mut played = Played {
            ticks: laps as u64 * u64::from(self.length) + u64::from(packet.ticks),
            descriptor: packet.descriptor.to_vec(),
            payload: packet.payload.to_vec(),
        };
        // All of these numbers wrap.
        let laps = laps as u16;
        if let Some(number) = frame_number(packet.descriptor) {
            let number = number.wrapping_add(laps.wrapping_mul(self.frames));
            put(&mut played.descriptor, 1, &number.to_be_bytes());
        }
        let (pictures, tl0s) = self.pictures.get(usize::from(packet.stream)).copied()?;
        let (picture_id, tl0_index) = numbers_of(self.codec, packet.payload);
        if let Some((at, id, wide)) = picture_id {
            let id = id.wrapping_add(laps.wrapping_mul(pictures));
            let long = (id | 0x8000).to_be_bytes();
            let short = [id as u8 & 0x7F];
            put(&mut played.payload, at, if wide { &long } else { &short });
        }
        if let Some((at, index)) = tl0_index {
            let index = index.wrapping_add((laps as u8).wrapping_mul(tl0s));
            put(&mut played.payload, at, &[index]);
        }
        Some((packet, played))
    }
}

type Numbers = (Option<(usize, u16, bool)>, Option<(usize, u8)>);

/// Offsets and values of picture id and TL0PICIDX.
fn numbers_of(codec: Codec, payload: &[u8]) -> Numbers {
    let numbers = match codec {
        Codec::Vp8 => Vp8::parse(payload).map(|found| (found.picture_id, found.tl0_picture_index)),
        Codec::Vp9 => Vp9::parse(payload).map(|found| (found.picture_id, found.tl0_picture_index)),
        Codec::Av1 | Codec::H264 | Codec::Opus | Codec::Red | Codec::Other => None,
    };
    numbers.unwrap_or_default()
}

/// The frame number of a dependency descriptor.
fn frame_number(descriptor: &[u8]) -> Option<u16> {
    descriptor.get(1..3)?.try_into().ok().map(u16::from_be_bytes)
}

/// How far numbers go, the last included, when they wrap behind `mask`.
fn span(numbers: impl Iterator<Item = u16>, mask: u16) -> u16 {
    let mut numbers = numbers.peekable();
    let first = numbers.peek().copied().unwrap_or_default();
    let distances = numbers.map(|number| number.wrapping_sub(first) & mask);
    distances.max().map_or(0, |most| most.wrapping_add(1) & mask)
}

fn put(bytes: &mut [u8], at: usize, value: &[u8]) {
    if let Some(place) = bytes.get_mut(at..at + value.len()) {
        place.copy_from_slice(value);
    }
}

#[cfg(test)]
mod tests;
