//! One published track: packets out of the loops, a history to repair from, sender reports.

use std::time::{Duration, Instant};

use bedside_sfu::core::api::MediaKind;
use bedside_sfu::core::rtcp::{ReportBlock, SenderInfo};
use bedside_sfu::core::rtp;

use crate::loops::{AUDIO_PACKET_MS, FRAME_RATE, Loops};
use crate::stats::SentTrack;

/// Largest RTP packet before protection, as browsers have it.
const MAX_PACKET: usize = 1200;
/// VP8 payload descriptor: extended, with a picture id of 15 bits.
const VP8_DESCRIPTOR: usize = 4;
/// A repair packet repeats the sequence number in its payload (RFC 4588 §4).
const RTX_OVERHEAD: usize = 2;
/// Video packets that can be repaired: several seconds.
const HISTORY: usize = 512;
/// Audio packets that can be repaired: a bit more than a second.
const SEALED: usize = 64;
/// Loudness that we announce: voice, 18 dB below overload (RFC 6464 §3).
const AUDIO_LEVEL: u8 = 0x80 | 18;

/// What the answer says about sending this track.
#[derive(Clone, Debug)]
pub(crate) struct SendParameters {
    pub(crate) payload_type: u8,
    pub(crate) rtx_payload_type: Option<u8>,
    pub(crate) mid_id: Option<u8>,
    pub(crate) abs_send_time_id: Option<u8>,
    pub(crate) transport_cc_id: Option<u8>,
    pub(crate) audio_level_id: Option<u8>,
}

/// A packet as the loops can make it again.
#[derive(Clone, Copy, Debug)]
struct Sent {
    sequence: u16,
    timestamp: u32,
    /// Place in the loop.
    index: usize,
    picture_id: u16,
    /// Part of the frame.
    part: u16,
    parts: u16,
}

/// A track that is being sent.
#[derive(Debug)]
pub(crate) struct Sender {
    pub(crate) kind: MediaKind,
    pub(crate) cid: String,
    pub(crate) mid: String,
    pub(crate) sid: String,
    pub(crate) ssrc: u32,
    pub(crate) rtx_ssrc: u32,
    pub(crate) muted: bool,
    parameters: Option<SendParameters>,
    /// The mid is sent until the other side has reported on the stream, as browsers do.
    announce_mid: bool,
    sequence: u16,
    rtx_sequence: u16,
    timestamp: u32,
    sent_at: Option<Instant>,
    next_at: Option<Instant>,
    index: usize,
    picture_id: u16,
    history: Box<[Option<Sent>]>,
    /// Audio has no repair stream: its packets are kept as they went out and sent once more, since
    /// a second packet under one sequence number must not differ from the first.
    sealed: Box<[(u16, Vec<u8>)]>,
    totals: SentTrack,
}

/// What takes packets: seals and sends them.
pub(crate) trait Outlet {
    /// Sends one RTP packet that `write` appends to a buffer, returning the header's length. Gives
    /// the datagram as it went out, or `None` when nothing can be sent now.
    fn rtp(&mut self, write: &mut dyn FnMut(&mut Vec<u8>) -> usize) -> Option<&[u8]>;
    /// Sends a datagram of [`Outlet::rtp`] once more.
    fn again(&mut self, datagram: &[u8]);
    /// The next transport-wide sequence number.
    fn transport_sequence(&mut self) -> u16;
}

impl Sender {
    pub(crate) fn new(kind: MediaKind, mid: String, cid: String, numbers: [u32; 4]) -> Self {
        let [ssrc, rtx_ssrc, start, timestamp] = numbers;
        Self {
            kind,
            cid,
            mid,
            sid: String::new(),
            ssrc: ssrc | 1,
            rtx_ssrc: rtx_ssrc & !1,
            muted: false,
            parameters: None,
            announce_mid: true,
            // Start below the middle: no wrap before the key exchange settles (RFC 3711 §3.3.1).
            sequence: start as u16 & 0x7FFF,
            rtx_sequence: (start >> 16) as u16 & 0x7FFF,
            timestamp,
            sent_at: None,
            next_at: None,
            index: 0,
            picture_id: (timestamp >> 8) as u16 & 0x7FFF,
            history: match kind {
                MediaKind::Audio => Box::default(),
                MediaKind::Video => vec![None; HISTORY].into_boxed_slice(),
            },
            sealed: match kind {
                MediaKind::Audio => vec![(0, Vec::new()); SEALED].into_boxed_slice(),
                MediaKind::Video => Box::default(),
            },
            totals: SentTrack { kind, ..SentTrack::default() },
        }
    }

    /// Takes what the answer says; media flows from the next [`Sender::play`] on.
    pub(crate) fn configure(&mut self, parameters: Option<SendParameters>) {
        self.parameters = parameters;
    }

    /// When the next frame is due.
    pub(crate) fn due(&self) -> Option<Instant> {
        self.next_at.filter(|_| self.parameters.is_some())
    }

    /// Starts the clock of this track; `phase` keeps the participants of a process from sending all
    /// at one instant.
    pub(crate) fn start(&mut self, at: Instant) {
        self.next_at.get_or_insert(at);
    }

    /// Sends what is due.
    pub(crate) fn play(&mut self, now: Instant, outlet: &mut dyn Outlet) {
        while let Some(due) = self.due().filter(|due| *due <= now) {
            let interval = self.interval();
            // After a long stall the missed frames are gone; the media clock goes on.
            let behind = now.saturating_duration_since(due) > Duration::from_millis(500);
            self.next_at = Some(if behind { now + interval } else { due + interval });
            self.timestamp = self.timestamp.wrapping_add(self.ticks());
            if !self.muted {
                self.sent_at = Some(now);
                self.frame(now, outlet);
            }
        }
    }

    const fn interval(&self) -> Duration {
        match self.kind {
            MediaKind::Audio => Duration::from_millis(AUDIO_PACKET_MS as u64),
            MediaKind::Video => Duration::from_micros(1_000_000 / FRAME_RATE as u64),
        }
    }

    const fn ticks(&self) -> u32 {
        match self.kind {
            MediaKind::Audio => 48 * AUDIO_PACKET_MS,
            MediaKind::Video => 90_000 / FRAME_RATE,
        }
    }

    fn frame(&mut self, now: Instant, outlet: &mut dyn Outlet) {
        let parts = match self.kind {
            MediaKind::Audio => 1,
            MediaKind::Video => {
                let size = Loops::shared().frame(self.index).map_or(0, |frame| frame.data.len());
                size.div_ceil(self.capacity()).max(1)
            }
        };
        for part in 0..parts {
            let sent = Sent {
                sequence: self.sequence,
                timestamp: self.timestamp,
                index: self.index,
                picture_id: self.picture_id,
                part: part as u16,
                parts: parts as u16,
            };
            self.sequence = self.sequence.wrapping_add(1);
            if let Some(slot) = self.history.get_mut(usize::from(sent.sequence) % HISTORY) {
                *slot = Some(sent);
            }
            self.packet(now, sent, None, outlet);
        }
        self.index += 1;
        self.picture_id = self.picture_id.wrapping_add(1) & 0x7FFF;
        self.totals.frames += 1;
    }

    /// Media bytes that fit one packet. Counted with every extension, so that a frame is cut the same
    /// way when it is sent again without the mid.
    fn capacity(&self) -> usize {
        let extensions = 4 + (2 + self.mid.len() + 4 + 3).next_multiple_of(4);
        MAX_PACKET - rtp::MIN_HEADER - extensions - RTX_OVERHEAD - VP8_DESCRIPTOR
    }

    /// Sends one packet, or sends it again (`repair` = its payload type there).
    fn packet(&mut self, now: Instant, sent: Sent, repair: Option<u8>, outlet: &mut dyn Outlet) {
        let Some(parameters) = self.parameters.clone() else { return };
        let (payload_type, sequence, ssrc) = match repair {
            None => (parameters.payload_type, sent.sequence, self.ssrc),
            Some(payload_type) => {
                let sequence = self.rtx_sequence;
                self.rtx_sequence = sequence.wrapping_add(1);
                (payload_type, sequence, self.rtx_ssrc)
            }
        };
        let marker = self.kind == MediaKind::Video && sent.part + 1 == sent.parts;
        let clock = abs_send_time(now);
        let transport =
            parameters.transport_cc_id.map(|_| outlet.transport_sequence().to_be_bytes());
        let mut before = 0;
        let mut body = 0;
        let this = &*self;
        let datagram = outlet.rtp(&mut |out| {
            let mut extensions: [(u8, &[u8]); 4] = [(0, &[]); 4];
            let mid = parameters.mid_id.filter(|_| this.announce_mid);
            let audio = this.kind == MediaKind::Audio;
            // An id of 0 is left out by the writer.
            extensions[0] = (mid.unwrap_or(0), this.mid.as_bytes());
            extensions[1] = (parameters.abs_send_time_id.unwrap_or(0), &clock);
            if let Some(transport) = &transport {
                extensions[2] = (parameters.transport_cc_id.unwrap_or(0), transport);
            }
            let level = parameters.audio_level_id.filter(|_| audio);
            extensions[3] = (level.unwrap_or(0), &[AUDIO_LEVEL]);
            before = out.len();
            let timestamp = sent.timestamp;
            let header = rtp::write_header(
                out,
                marker,
                payload_type,
                sequence,
                timestamp,
                ssrc,
                &extensions,
            );
            if repair.is_some() {
                out.extend_from_slice(&sent.sequence.to_be_bytes());
            }
            this.write_payload(out, sent);
            body = out.len() - before - header;
            header
        });
        let Some(datagram) = datagram else { return };
        let slot = usize::from(sequence) % self.sealed.len().max(1);
        if let Some((kept, bytes)) = self.sealed.get_mut(slot) {
            *kept = sequence;
            bytes.clear();
            bytes.extend_from_slice(datagram);
        }
        if repair.is_some() {
            self.totals.repaired += 1;
        } else {
            self.totals.packets += 1;
            self.totals.bytes += body as u64;
        }
    }

    fn write_payload(&self, out: &mut Vec<u8>, sent: Sent) {
        let loops = Loops::shared();
        match self.kind {
            MediaKind::Audio => {
                out.extend_from_slice(loops.packet(sent.index).unwrap_or_default());
            }
            MediaKind::Video => {
                let data = loops.frame(sent.index).map_or(&[][..], |frame| frame.data);
                let start = if sent.part == 0 { 0x90 } else { 0x80 };
                let [high, low] = sent.picture_id.to_be_bytes();
                out.extend_from_slice(&[start, 0x80, high | 0x80, low]);
                let range = part_of(data.len(), usize::from(sent.part), usize::from(sent.parts));
                out.extend_from_slice(data.get(range).unwrap_or_default());
            }
        }
    }

    /// Answers a NACK from the history: video on the repair stream, audio as it went out.
    pub(crate) fn repair(
        &mut self,
        now: Instant,
        lost: impl Iterator<Item = u16>,
        outlet: &mut dyn Outlet,
    ) {
        let repair = self.parameters.as_ref().and_then(|parameters| parameters.rtx_payload_type);
        for sequence in lost.take(HISTORY) {
            self.totals.nacked += 1;
            let slot = usize::from(sequence) % self.sealed.len().max(1);
            if let Some((kept, bytes)) = self.sealed.get(slot)
                && *kept == sequence
                && !bytes.is_empty()
            {
                outlet.again(bytes);
                self.totals.repaired += 1;
            }
            let slot = self.history.get(usize::from(sequence) % HISTORY).copied().flatten();
            if let (Some(sent), Some(repair)) =
                (slot.filter(|sent| sent.sequence == sequence), repair)
            {
                self.packet(now, sent, Some(repair), outlet);
            }
        }
    }

    /// Answers a keyframe request: the next frame is the next keyframe of the loop.
    pub(crate) fn keyframe(&mut self) {
        if self.kind == MediaKind::Video {
            self.totals.keyframe_requests += 1;
            self.index = Loops::shared().next_keyframe(self.index);
        }
    }

    /// Takes what a receiver reports of this track.
    pub(crate) fn reported(&mut self, report: &ReportBlock, round_trip: Option<Duration>) {
        self.announce_mid = false;
        self.totals.remote_lost = i64::from(report.lost);
        self.totals.remote_fraction_lost = report.fraction_lost;
        self.totals.round_trip = round_trip.or(self.totals.round_trip);
    }

    /// What a sender report says now; nothing before the first packet.
    pub(crate) fn report(&self, now: Instant, ntp: u64) -> Option<SenderInfo> {
        let since = now.saturating_duration_since(self.sent_at?);
        let rate = match self.kind {
            MediaKind::Audio => 48_000,
            MediaKind::Video => 90_000,
        };
        let elapsed = since.as_micros() as u64 * rate / 1_000_000;
        Some(SenderInfo {
            ntp,
            rtp_timestamp: self.timestamp.wrapping_add(elapsed as u32),
            packets: self.totals.packets as u32,
            octets: self.totals.bytes as u32,
        })
    }

    pub(crate) fn totals(&self) -> SentTrack {
        SentTrack { sid: self.sid.clone(), muted: self.muted, ..self.totals.clone() }
    }
}

/// The bytes of one part of a frame that is cut about evenly, the last parts being one byte longer.
const fn part_of(size: usize, part: usize, parts: usize) -> std::ops::Range<usize> {
    let (base, longer) = (size / parts, size % parts);
    let shorter = parts - longer;
    let start = part * base + part.saturating_sub(shorter);
    let len = base + (part >= shorter) as usize;
    start..start + len
}

/// Seconds in 6.18 fixed point, wrapping each 64 s.
fn abs_send_time(now: Instant) -> [u8; 3] {
    static ZERO: std::sync::OnceLock<Instant> = std::sync::OnceLock::new();
    let since = now.saturating_duration_since(*ZERO.get_or_init(|| now));
    let ticks = (since.as_micros() << 18) / 1_000_000;
    let [.., b2, b1, b0] = (ticks as u32).to_be_bytes();
    [b2, b1, b0]
}

#[cfg(test)]
mod tests {
    use bedside_sfu::core::codec::Vp8;

    use super::*;

    #[derive(Default)]
    struct Taken {
        packets: Vec<Vec<u8>>,
        transport: u16,
    }

    impl Outlet for Taken {
        fn rtp(&mut self, write: &mut dyn FnMut(&mut Vec<u8>) -> usize) -> Option<&[u8]> {
            let mut out = Vec::new();
            assert_eq!(Some(write(&mut out)), rtp::header_len(&out));
            self.packets.push(out);
            self.packets.last().map(Vec::as_slice)
        }

        fn again(&mut self, datagram: &[u8]) {
            self.packets.push(datagram.to_vec());
        }

        fn transport_sequence(&mut self) -> u16 {
            self.transport += 1;
            self.transport
        }
    }

    fn sender(kind: MediaKind) -> Sender {
        let mut sender =
            Sender::new(kind, "7".to_owned(), "cid".to_owned(), [11, 12, 0x0001_FFF0, 5]);
        sender.configure(Some(SendParameters {
            payload_type: 96,
            rtx_payload_type: Some(97),
            mid_id: Some(4),
            abs_send_time_id: Some(2),
            transport_cc_id: Some(3),
            audio_level_id: Some(1),
        }));
        sender
    }

    fn play(sender: &mut Sender, span: Duration) -> Vec<Vec<u8>> {
        let start = Instant::now();
        let mut taken = Taken::default();
        sender.start(start);
        for step in 0..span.as_millis() as u64 {
            sender.play(start + Duration::from_millis(step), &mut taken);
        }
        taken.packets
    }

    fn body(packet: &[u8]) -> (rtp::Header, &[u8]) {
        let header = rtp::Header::parse(packet).unwrap();
        (header, rtp::payload(packet, &header).unwrap())
    }

    #[test]
    fn parts_are_about_even_and_cover_the_frame() {
        for size in [1, 7, 1165, 1166, 5000, 9336] {
            for parts in 1..=8_usize.min(size) {
                let cut: Vec<_> = (0..parts).map(|part| part_of(size, part, parts)).collect();
                assert_eq!((cut[0].start, cut[parts - 1].end), (0, size));
                assert!(cut.windows(2).all(|two| two[0].end == two[1].start));
                assert!(cut.windows(2).all(|two| two[0].len() <= two[1].len()));
                assert!(cut[parts - 1].len() - cut[0].len() <= 1);
            }
        }
    }

    #[test]
    fn a_loop_of_pictures_reassembles_into_the_frames() {
        let mut sender = sender(MediaKind::Video);
        let packets = play(&mut sender, Duration::from_secs(6));
        assert_eq!(sender.totals().frames, 120);
        let (mut frame, mut frames, mut last) = (Vec::new(), Vec::new(), None);
        for packet in &packets {
            assert!(packet.len() <= MAX_PACKET);
            let (header, payload) = body(packet);
            let sequence = header.sequence;
            assert!(last.is_none_or(|last: u16| sequence == last.wrapping_add(1)));
            last = Some(sequence);
            let descriptor = Vp8::parse(payload).unwrap();
            assert!(descriptor.picture_id.is_some_and(|(at, _, wide)| at == 2 && wide));
            frame.extend_from_slice(&payload[VP8_DESCRIPTOR..]);
            if header.marker {
                frames.push(std::mem::take(&mut frame));
            }
        }
        let loops = Loops::shared();
        assert!(
            frames.iter().enumerate().all(|(at, frame)| frame == loops.frame(at).unwrap().data)
        );
    }

    #[test]
    fn extensions_say_section_time_and_loudness() {
        let mut sender = sender(MediaKind::Audio);
        let packets = play(&mut sender, Duration::from_millis(100));
        assert_eq!(packets.len(), 5);
        let found: Vec<_> = rtp::extensions(&packets[2]).collect();
        assert_eq!(found[0], (4, &b"7"[..]));
        assert_eq!((found[1].0, found[1].1.len()), (2, 3));
        assert_eq!(found[2], (3, &[0, 3][..]));
        assert_eq!(found[3], (1, &[AUDIO_LEVEL][..]));
        let step = body(&packets[1]).0.timestamp.wrapping_sub(body(&packets[0]).0.timestamp);
        assert_eq!(step, 960);
        assert_eq!(body(&packets[0]).1, Loops::shared().packet(0).unwrap());
        // Once the stream is reported on, its section is known.
        sender.reported(&ReportBlock::default(), None);
        let mut taken = Taken::default();
        sender.play(Instant::now() + Duration::from_secs(1), &mut taken);
        assert!(rtp::extensions(&taken.packets[0]).all(|(id, _)| id != 4));
    }

    #[test]
    fn a_repair_is_the_packet_that_was_lost() {
        let mut sender = sender(MediaKind::Video);
        let packets = play(&mut sender, Duration::from_secs(2));
        let (lost, original) = body(&packets[3]);
        sender.reported(&ReportBlock::default(), None);
        let mut taken = Taken::default();
        let ask = [lost.sequence, lost.sequence.wrapping_add(300)].into_iter();
        sender.repair(Instant::now(), ask, &mut taken);
        assert_eq!(taken.packets.len(), 1, "what was never sent cannot be repaired");
        let (header, payload) = body(&taken.packets[0]);
        assert_eq!((header.ssrc, header.payload_type), (sender.rtx_ssrc, 97));
        assert_eq!((header.timestamp, header.marker), (lost.timestamp, lost.marker));
        assert_eq!(payload[..2], lost.sequence.to_be_bytes());
        assert_eq!(&payload[2..], original);
        assert_eq!((sender.totals().nacked, sender.totals().repaired), (2, 1));
    }

    #[test]
    fn lost_audio_is_sent_again_unchanged() {
        let mut sender = sender(MediaKind::Audio);
        let packets = play(&mut sender, Duration::from_millis(200));
        let lost = body(&packets[4]).0.sequence;
        let mut taken = Taken::default();
        sender.repair(Instant::now(), [lost, lost.wrapping_add(64)].into_iter(), &mut taken);
        assert_eq!(taken.packets, [packets[4].clone()]);
    }

    #[test]
    fn a_keyframe_request_is_answered_by_the_next_frame() {
        let mut sender = sender(MediaKind::Video);
        let start = Instant::now();
        let mut taken = Taken::default();
        sender.start(start);
        sender.play(start + Duration::from_millis(120), &mut taken);
        taken.packets.clear();
        sender.keyframe();
        sender.play(start + Duration::from_millis(150), &mut taken);
        let (_, payload) = body(&taken.packets[0]);
        assert!(Vp8::parse(payload).unwrap().keyframe_start);
        assert_eq!(sender.totals().keyframe_requests, 1);
    }

    #[test]
    fn a_muted_track_is_silent_and_its_clock_goes_on() {
        let mut sender = sender(MediaKind::Audio);
        let start = Instant::now();
        let mut taken = Taken::default();
        sender.start(start);
        sender.play(start, &mut taken);
        sender.muted = true;
        for step in 1..10 {
            sender.play(start + Duration::from_millis(20 * step), &mut taken);
        }
        sender.muted = false;
        sender.play(start + Duration::from_millis(200), &mut taken);
        assert_eq!(taken.packets.len(), 2);
        let (first, second) = (body(&taken.packets[0]).0, body(&taken.packets[1]).0);
        assert_eq!(second.sequence, first.sequence.wrapping_add(1));
        assert_eq!(second.timestamp.wrapping_sub(first.timestamp), 9600);
    }
}
