//! Transport-wide congestion control feedback (draft-holmer-rmcat-transport-wide-cc-extensions-01):
//! a recorder of arrivals that writes it, and a reader.
//!
//! Without this feedback browsers let their upper layers starve. Every packet that carries the
//! extension counts, audio and repair too: probes ride on repair packets.

use std::time::{Duration, Instant};

use super::rtcp;

/// Arrivals remembered, reported ones included: a late packet is reported by going back to it.
const RING: u64 = 2048;
/// Packets covered by one message: at most 2 bytes each, so a message stays below 1,000 bytes.
const MAX_STATUSES: u64 = 400;
/// Lost packets reported before the first received one of a message; a longer gap is skipped.
const MAX_LEADING_LOSS: u64 = 256;
/// Resolution of arrival times.
const TICK_MICROS: u128 = 250;
/// Ticks in one unit of the reference time (64 ms).
const REFERENCE_TICKS: u64 = 256;
/// RTCP header, sender, media, base, count, reference time, message number.
const FIXED: usize = 20;

/// Remembers when packets came and tells the sender.
#[derive(Debug)]
pub struct Recorder {
    epoch: Instant,
    /// Arrival in ticks plus one by sequence number modulo `RING`; 0 = not arrived.
    arrivals: Box<[u64]>,
    /// First sequence number not yet reported, unwrapped.
    next: u64,
    /// One past the highest sequence number seen, unwrapped; 0 = none yet.
    end: u64,
    number: u8,
}

impl Recorder {
    /// A recorder whose times count from `now`.
    #[must_use]
    pub fn new(now: Instant) -> Self {
        let arrivals = vec![0; RING as usize].into_boxed_slice();
        Self { epoch: now, arrivals, next: 0, end: 0, number: 0 }
    }

    /// Notes an arrival. Repeats and packets older than the memory are ignored.
    pub fn record(&mut self, sequence: u16, at: Instant) {
        let unwrapped = self.unwrap(sequence);
        if self.end == 0 {
            self.next = unwrapped;
            self.end = unwrapped;
        }
        if unwrapped + RING < self.end {
            return;
        }
        self.advance(unwrapped + 1);
        let ticks = at.saturating_duration_since(self.epoch).as_micros() / TICK_MICROS;
        if let Some(arrival) = self.slot(unwrapped)
            && *arrival == 0
        {
            *arrival = ticks as u64 + 1;
            self.next = self.next.min(unwrapped);
        }
    }

    /// Whether there is anything to report.
    #[must_use]
    pub const fn pending(&self) -> bool {
        self.next < self.end
    }

    /// Appends one message, if there is anything to report. Call again while it returns true.
    pub fn write(&mut self, out: &mut Vec<u8>, sender: u32, media: u32) -> bool {
        let Some(first_arrived) = (self.next..self.end).find(|at| self.arrival(*at).is_some())
        else {
            return false;
        };
        let Some(first_ticks) = self.arrival(first_arrived) else { return false };
        let begin = self.next.max(first_arrived.saturating_sub(MAX_LEADING_LOSS));
        let reference = first_ticks / REFERENCE_TICKS;
        let end = self.message_end(begin, reference * REFERENCE_TICKS);

        let start = out.len();
        out.extend_from_slice(&[0x80 | rtcp::FORMAT_TWCC, 205, 0, 0]);
        out.extend_from_slice(&sender.to_be_bytes());
        out.extend_from_slice(&media.to_be_bytes());
        out.extend_from_slice(&(begin as u16).to_be_bytes());
        out.extend_from_slice(&((end - begin) as u16).to_be_bytes());
        // 24 bits of reference time, then the message number.
        out.extend_from_slice(&((reference as u32) << 8 | u32::from(self.number)).to_be_bytes());
        self.write_chunks(out, begin..end, reference * REFERENCE_TICKS);
        self.write_deltas(out, begin..end, reference * REFERENCE_TICKS);
        pad(out, start);
        rtcp::patch_length(out, start);
        self.number = self.number.wrapping_add(1);
        self.next = end;
        true
    }

    /// One past the last packet that the message can tell: its length is limited, and so is the time
    /// between two arrivals (16 bits of ticks).
    fn message_end(&self, begin: u64, mut clock: u64) -> u64 {
        let limit = self.end.min(begin + MAX_STATUSES);
        let mut end = begin;
        for at in begin..limit {
            if let Some(ticks) = self.arrival(at) {
                if i16::try_from(ticks.wrapping_sub(clock) as i64).is_err() {
                    break;
                }
                clock = ticks;
                end = at + 1;
            }
        }
        // Losses behind the last arrival wait: the packets may still come.
        end
    }

    fn write_chunks(&self, out: &mut Vec<u8>, range: std::ops::Range<u64>, mut clock: u64) {
        let (mut word, mut filled) = (0xC000_u16, 0);
        for at in range {
            if let Some(ticks) = self.arrival(at) {
                let symbol = if short(ticks, clock) { 1 } else { 2 };
                word |= symbol << (12 - 2 * filled);
                clock = ticks;
            }
            filled += 1;
            if filled == 7 {
                out.extend_from_slice(&word.to_be_bytes());
                (word, filled) = (0xC000, 0);
            }
        }
        if filled > 0 {
            out.extend_from_slice(&word.to_be_bytes());
        }
    }

    fn write_deltas(&self, out: &mut Vec<u8>, range: std::ops::Range<u64>, mut clock: u64) {
        for at in range {
            let Some(ticks) = self.arrival(at) else { continue };
            let delta = ticks.wrapping_sub(clock);
            if short(ticks, clock) {
                out.push(delta as u8);
            } else {
                out.extend_from_slice(&(delta as i16).to_be_bytes());
            }
            clock = ticks;
        }
    }

    /// Nearest unwrapped number to the highest seen. Starts one cycle up, so that going back from the
    /// first packet stays positive.
    const fn unwrap(&self, sequence: u16) -> u64 {
        if self.end == 0 {
            return 65_536 + sequence as u64;
        }
        let highest = self.end - 1;
        let distance = sequence.wrapping_sub(highest as u16) as i16;
        highest.saturating_add_signed(distance as i64)
    }

    /// Moves the memory on to `end`, forgetting what falls out of it.
    fn advance(&mut self, end: u64) {
        if end <= self.end {
            return;
        }
        for at in self.end.max(end.saturating_sub(RING))..end {
            if let Some(arrival) = self.slot(at) {
                *arrival = 0;
            }
        }
        self.end = end;
        self.next = self.next.max(end.saturating_sub(RING));
    }

    fn slot(&mut self, at: u64) -> Option<&mut u64> {
        self.arrivals.get_mut((at % RING) as usize)
    }

    fn arrival(&self, at: u64) -> Option<u64> {
        self.arrivals.get((at % RING) as usize)?.checked_sub(1)
    }
}

/// Whether the time between two arrivals fits one unsigned byte.
const fn short(ticks: u64, clock: u64) -> bool {
    ticks.wrapping_sub(clock) < 256
}

/// Pads to a word boundary, as RFC 3550 wants it said.
fn pad(out: &mut Vec<u8>, start: usize) {
    let missing = (out.len() - start).next_multiple_of(4) - (out.len() - start);
    if missing > 0 {
        out.resize(out.len() + missing - 1, 0);
        out.push(missing as u8);
        if let Some(first) = out.get_mut(start) {
            *first |= 0x20;
        }
    }
}

/// A received feedback message.
#[derive(Clone, Copy, Debug)]
pub struct Feedback<'a> {
    /// Who tells.
    pub sender: u32,
    /// A stream of the transport.
    pub media: u32,
    /// First sequence number covered.
    pub base: u16,
    /// Packets covered.
    pub count: u16,
    /// Number of the message; a gap means that a message was lost.
    pub number: u8,
    /// Reference time of the receiver, in units of 64 ms (24 bits, wraps).
    pub reference: u32,
    chunks: &'a [u8],
    deltas: &'a [u8],
}

/// How many packets a feedback message covers, by its own word.
#[must_use]
pub fn count(packet: &[u8]) -> Option<u16> {
    Some(u16::from_be_bytes(*packet.get(14..)?.first_chunk()?))
}

/// Reads a feedback message (the whole RTCP packet); `None` when malformed.
#[must_use]
pub fn parse(packet: &[u8]) -> Option<Feedback<'_>> {
    let (fixed, body) = packet.split_first_chunk::<FIXED>()?;
    let [first, kind, _, _, s0, s1, s2, s3, m0, m1, m2, m3, b0, b1, c0, c1, r0, r1, r2, number] =
        *fixed;
    if first >> 6 != 2 || first & 0x1F != rtcp::FORMAT_TWCC || kind != 205 {
        return None;
    }
    let body = if first & 0x20 == 0 {
        body
    } else {
        let padding = usize::from(*body.last()?);
        body.get(..body.len().checked_sub(padding.max(1))?)?
    };
    let count = u16::from_be_bytes([c0, c1]);
    let (chunks, deltas) = split_chunks(body, usize::from(count))?;
    Some(Feedback {
        sender: u32::from_be_bytes([s0, s1, s2, s3]),
        media: u32::from_be_bytes([m0, m1, m2, m3]),
        base: u16::from_be_bytes([b0, b1]),
        count,
        number,
        reference: u32::from_be_bytes([0, r0, r1, r2]),
        chunks,
        deltas,
    })
}

/// Finds where the chunks end, and checks that every delta is there.
fn split_chunks(body: &[u8], count: usize) -> Option<(&[u8], &[u8])> {
    let (mut covered, mut bytes, mut deltas) = (0, 0, 0);
    while covered < count {
        let chunk = Chunk::parse(body.get(bytes..)?)?;
        bytes += 2;
        for symbol in (0..chunk.len().min(count - covered)).map(|index| chunk.symbol(index)) {
            deltas += symbol.delta_len();
        }
        covered += chunk.len();
        // A run of zero length would never end.
        if chunk.len() == 0 {
            return None;
        }
    }
    let (chunks, rest) = body.split_at_checked(bytes)?;
    (rest.len() >= deltas).then_some((chunks, rest))
}

impl<'a> Feedback<'a> {
    /// Every packet covered: its sequence number, and when it arrived (since the reference time's
    /// zero), `None` = not received.
    pub fn packets(&self) -> impl Iterator<Item = (u16, Option<Duration>)> + use<'a> {
        let (base, chunks) = (self.base, self.chunks);
        let mut deltas = self.deltas;
        let mut clock = i64::from(self.reference) * REFERENCE_TICKS as i64;
        let symbols = chunks.as_chunks::<2>().0.iter().flat_map(|word| {
            let chunk = Chunk(u16::from_be_bytes(*word));
            (0..chunk.len()).map(move |index| chunk.symbol(index))
        });
        symbols.take(usize::from(self.count)).zip(0u16..).map(move |(symbol, offset)| {
            let (delta, rest) = symbol.read(deltas);
            deltas = rest;
            let arrival = delta.map(|delta| {
                clock += i64::from(delta);
                Duration::from_micros(clock.max(0) as u64 * TICK_MICROS as u64)
            });
            (base.wrapping_add(offset), arrival)
        })
    }
}

/// One packet status chunk.
#[derive(Clone, Copy)]
struct Chunk(u16);

impl Chunk {
    fn parse(bytes: &[u8]) -> Option<Self> {
        Some(Self(u16::from_be_bytes(*bytes.first_chunk()?)))
    }

    const fn len(self) -> usize {
        match self.0 >> 14 {
            2 => 14,
            3 => 7,
            _ => (self.0 & 0x1FFF) as usize,
        }
    }

    const fn symbol(self, index: usize) -> Symbol {
        let bits = match self.0 >> 14 {
            2 => self.0 >> (13 - index) & 1,
            3 => self.0 >> (12 - 2 * index) & 3,
            _ => self.0 >> 13 & 3,
        };
        match bits {
            1 => Symbol::Small,
            2 => Symbol::Large,
            _ => Symbol::Missing,
        }
    }
}

/// What a chunk says of one packet.
#[derive(Clone, Copy)]
enum Symbol {
    Missing,
    Small,
    Large,
}

impl Symbol {
    const fn delta_len(self) -> usize {
        match self {
            Self::Missing => 0,
            Self::Small => 1,
            Self::Large => 2,
        }
    }

    /// Takes this packet's delta; the lengths were checked when the message was parsed.
    fn read(self, deltas: &[u8]) -> (Option<i16>, &[u8]) {
        match self {
            Self::Missing => (None, deltas),
            Self::Small => deltas
                .split_first()
                .map_or((None, deltas), |(delta, rest)| (Some(i16::from(*delta)), rest)),
            Self::Large => deltas
                .split_first_chunk()
                .map_or((None, deltas), |(delta, rest)| (Some(i16::from_be_bytes(*delta)), rest)),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use rand_chacha::rand_core::{Rng as _, SeedableRng as _};

    use super::*;

    fn drain(recorder: &mut Recorder) -> Vec<Vec<u8>> {
        let mut messages = Vec::new();
        loop {
            let mut out = vec![7, 7];
            if !recorder.write(&mut out, 1, 2) {
                assert_eq!(out, [7, 7]);
                return messages;
            }
            messages.push(out.split_off(2));
        }
    }

    fn read(message: &[u8]) -> Vec<(u16, Option<Duration>)> {
        assert_eq!(message.len() % 4, 0);
        assert!(message.len() <= 1_000);
        let mut walk = rtcp::packets(message);
        let Some(Ok(rtcp::Rtcp::Twcc(packet))) = walk.next() else { panic!("not feedback") };
        assert!(walk.next().is_none());
        let feedback = parse(packet).unwrap();
        assert_eq!((feedback.sender, feedback.media), (1, 2));
        feedback.packets().collect()
    }

    const fn ms(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    #[test]
    fn arrivals_and_losses_are_told_across_the_wrap() {
        let start = Instant::now();
        let mut recorder = Recorder::new(start);
        assert!(!recorder.pending() && drain(&mut recorder).is_empty());
        for (sequence, at) in [(65_533, 10), (65_534, 12), (0, 12), (2, 500), (1, 501)] {
            recorder.record(sequence, start + ms(at));
        }
        let messages = drain(&mut recorder);
        assert_eq!(messages.len(), 1);
        let expected = [
            (65_533, Some(ms(10))),
            (65_534, Some(ms(12))),
            (65_535, None),
            (0, Some(ms(12))),
            (1, Some(ms(501))),
            (2, Some(ms(500))),
        ];
        assert_eq!(read(&messages[0]), expected);
        // Nothing new, nothing said; then the numbering goes on.
        assert!(drain(&mut recorder).is_empty());
        recorder.record(5, start + ms(600));
        let next = drain(&mut recorder);
        assert_eq!(read(&next[0]), [(3, None), (4, None), (5, Some(ms(600)))]);
        assert_eq!((messages[0][19], next[0][19]), (0, 1));
    }

    #[test]
    fn a_late_packet_is_told_by_going_back_to_it_and_a_repeat_is_not() {
        let start = Instant::now();
        let mut recorder = Recorder::new(start);
        for sequence in [10, 11, 13] {
            recorder.record(sequence, start + ms(u64::from(sequence)));
        }
        assert_eq!(drain(&mut recorder).len(), 1);
        recorder.record(13, start + ms(80));
        assert!(!recorder.pending());
        recorder.record(12, start + ms(90));
        let messages = drain(&mut recorder);
        assert_eq!(read(&messages[0]), [(12, Some(ms(90))), (13, Some(ms(13)))]);
        // Older than the first ever seen is late, too; older than the memory is forgotten.
        recorder.record(3, start + ms(95));
        assert_eq!(read(&drain(&mut recorder)[0])[0], (3, Some(ms(95))));
        recorder.record(4_000, start + ms(96));
        drain(&mut recorder);
        recorder.record(4, start + ms(97));
        assert!(!recorder.pending());
    }

    #[test]
    fn long_waits_and_long_gaps_are_split() {
        let start = Instant::now();
        let mut recorder = Recorder::new(start);
        for sequence in 0..1_000_u16 {
            recorder.record(sequence, start + ms(u64::from(sequence)));
        }
        recorder.record(1_000, start + ms(60_000));
        let messages = drain(&mut recorder);
        assert_eq!(messages.len(), 4);
        let told: Vec<_> = messages.iter().flat_map(|message| read(message)).collect();
        assert_eq!(told.len(), 1_001);
        assert!(told.iter().all(|(_, at)| at.is_some()));
        assert_eq!(told[1_000], (1_000, Some(ms(60_000))));
        // A gap longer than the memory: only its end is told as lost.
        recorder.record(31_000, start + ms(60_100));
        let told = read(&drain(&mut recorder)[0]);
        assert_eq!(told.len() as u64, MAX_LEADING_LOSS + 1);
        assert_eq!(told.last(), Some(&(31_000, Some(ms(60_100)))));
    }

    #[test]
    fn any_order_and_loss_reads_back_as_it_happened() {
        let start = Instant::now();
        let mut rng = crate::core::Rng::from_seed([4; 32]);
        let mut recorder = Recorder::new(start);
        let (mut happened, mut told) = (BTreeMap::new(), BTreeMap::new());
        let mut micros = 0;
        for step in 0..20_000_u64 {
            micros += u64::from(rng.next_u32() % 3_000);
            let sequence = step + u64::from(rng.next_u32() % 30);
            if rng.next_u32() % 10 > 0 {
                recorder.record(sequence as u16, start + Duration::from_micros(micros));
                happened.entry(sequence).or_insert(micros / 250 * 250);
            }
            if step % 97 == 0 {
                for message in drain(&mut recorder) {
                    for (short, at) in read(&message) {
                        let near =
                            sequence as i64 + i64::from(short.wrapping_sub(sequence as u16) as i16);
                        if let Some(at) = at {
                            told.insert(near as u64, at.as_micros() as u64);
                        }
                    }
                }
            }
        }
        drain(&mut recorder);
        let last = *told.keys().next_back().unwrap();
        happened.retain(|sequence, _| *sequence <= last - 40);
        told.retain(|sequence, _| *sequence <= last - 40);
        assert_eq!(happened, told);
    }

    #[test]
    fn runs_and_one_bit_vectors_read() {
        let mut packet = vec![0x8F, 205, 0, 7, 0, 0, 0, 1, 0, 0, 0, 2];
        packet.extend(10_u16.to_be_bytes());
        packet.extend(20_u16.to_be_bytes());
        packet.extend([0, 0, 1, 42]);
        packet.extend((0x2000_u16 | 3).to_be_bytes());
        packet.extend(2_u16.to_be_bytes());
        packet.extend(0b1010_0000_0000_0001_u16.to_be_bytes());
        packet.extend(0b1110_0000_0000_0000_u16.to_be_bytes());
        packet.extend([4, 0, 4, 4, 4, 0xFF, 0xFC, 0]);
        let feedback = parse(&packet).unwrap();
        assert_eq!((feedback.number, feedback.reference), (42, 1));
        let told: Vec<_> = feedback.packets().collect();
        assert_eq!(told.len(), 20);
        assert_eq!(told[0], (10, Some(ms(65))));
        assert_eq!(told[2], (12, Some(ms(66))));
        assert_eq!(told[3], (13, None));
        assert_eq!(told[5], (15, Some(ms(67))));
        assert_eq!(told[18], (28, Some(ms(68))));
        assert_eq!(told[19], (29, Some(ms(67))), "a large delta may go back");
        // A run of nothing would never cover the count.
        packet[20..22].copy_from_slice(&[0x20, 0]);
        assert!(parse(&packet).is_none());
    }

    #[test]
    fn every_truncation_and_random_bytes_are_survived() {
        let start = Instant::now();
        let mut recorder = Recorder::new(start);
        for sequence in (0..300).step_by(3) {
            recorder.record(sequence, start + ms(u64::from(sequence) * 70));
        }
        let whole = drain(&mut recorder).remove(0);
        let padding = usize::from(*whole.last().unwrap());
        for cut in 0..whole.len() {
            let read = parse(&whole[..cut]);
            assert!(read.is_none() || cut + padding >= whole.len());
        }
        let mut rng = crate::core::Rng::from_seed([5; 32]);
        for _ in 0..20_000 {
            let mut bytes = whole.clone();
            for _ in 0..4 {
                let at = 1 + rng.next_u32() as usize % 60;
                bytes[at] = rng.next_u32() as u8;
            }
            if let Some(feedback) = parse(&bytes) {
                assert_eq!(feedback.packets().count(), usize::from(feedback.count));
            }
        }
    }
}
