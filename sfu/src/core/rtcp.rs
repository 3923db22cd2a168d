//! RTCP (RFC 3550 §6, RFC 4585, RFC 5104): reading compound packets in place, writing our own.
//!
//! Reading never allocates; writing appends to the caller's buffer. A malformed packet ends the
//! walk through its compound with one [`Malformed`], so a caller counts it once.

/// Packet types, RFC 3550 §12.1.
const SENDER_REPORT: u8 = 200;
const RECEIVER_REPORT: u8 = 201;
const SOURCE_DESCRIPTION: u8 = 202;
const BYE: u8 = 203;
/// RFC 4585 §6.2: feedback about the transport.
const TRANSPORT_FEEDBACK: u8 = 205;
/// RFC 4585 §6.3: feedback about the payload.
const PAYLOAD_FEEDBACK: u8 = 206;
/// Format of transport-wide congestion control feedback.
pub(crate) const FORMAT_TWCC: u8 = 15;
const FORMAT_NACK: u8 = 1;
const FORMAT_PLI: u8 = 1;
const FORMAT_FIR: u8 = 4;
/// Application layer feedback: where REMB lives.
const FORMAT_APPLICATION: u8 = 15;
/// A header's count field has five bits.
const MAX_COUNT: usize = 31;
/// Length of one report block.
const REPORT_BLOCK: usize = 24;

/// One packet of a compound.
#[derive(Clone, Debug)]
pub enum Rtcp<'a> {
    /// What a sender has sent, and how it receives.
    SenderReport {
        /// Who.
        ssrc: u32,
        /// What it has sent.
        info: SenderInfo,
        /// What it receives.
        reports: Reports<'a>,
    },
    /// How someone receives.
    ReceiverReport {
        /// Who.
        ssrc: u32,
        /// What it receives.
        reports: Reports<'a>,
    },
    /// Packets to send again.
    Nack {
        /// Who asks.
        sender: u32,
        /// Of which stream.
        media: u32,
        /// Sequence numbers.
        lost: NackIter<'a>,
    },
    /// A keyframe is needed.
    Pli {
        /// Who asks.
        sender: u32,
        /// Of which stream.
        media: u32,
    },
    /// A keyframe is demanded (RFC 5104 §4.3.1).
    Fir {
        /// Who asks.
        sender: u32,
        /// Of which streams.
        entries: FirEntries<'a>,
    },
    /// A receiver's estimate in the older form.
    Remb {
        /// Bits per second.
        bitrate_bps: u64,
    },
    /// Transport-wide feedback: the whole packet, for [`super::twcc::parse`].
    Twcc(&'a [u8]),
    /// Streams that ended.
    Bye {
        /// Which.
        ssrcs: Ssrcs<'a>,
    },
    /// Something we have no use for (source descriptions among it).
    Other {
        /// RTCP packet type.
        kind: u8,
    },
}

/// What a sender says of itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SenderInfo {
    /// NTP time, 32.32 fixed point.
    pub ntp: u64,
    /// The same instant in the media clock.
    pub rtp_timestamp: u32,
    /// Packets sent.
    pub packets: u32,
    /// Payload octets sent.
    pub octets: u32,
}

/// How one stream is received.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReportBlock {
    /// The stream.
    pub ssrc: u32,
    /// Lost since the last report, in 1/256.
    pub fraction_lost: u8,
    /// Lost in all; 24 bits, signed (duplicates can make it negative).
    pub lost: i32,
    /// Extended highest sequence number.
    pub highest: u32,
    /// Interarrival jitter in media clock units.
    pub jitter: u32,
    /// Middle 32 bits of the last sender report's NTP time; 0 = none yet.
    pub lsr: u32,
    /// Delay since that report, in 1/65536 s.
    pub dlsr: u32,
}

/// A compound that says something impossible of its own lengths.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("malformed RTCP")]
pub struct Malformed;

/// The packets of a compound (reduced-size RTCP included, RFC 5506).
#[must_use]
pub const fn packets(compound: &[u8]) -> Packets<'_> {
    Packets { rest: compound }
}

/// Iterator over a compound; ends after the first error.
#[derive(Clone, Debug)]
pub struct Packets<'a> {
    rest: &'a [u8],
}

impl<'a> Iterator for Packets<'a> {
    type Item = Result<Rtcp<'a>, Malformed>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let rest = std::mem::take(&mut self.rest);
        let Some((packet, tail)) = split_packet(rest) else {
            return Some(Err(Malformed));
        };
        let parsed = parse_one(packet);
        if parsed.is_some() {
            self.rest = tail;
        }
        Some(parsed.ok_or(Malformed))
    }
}

fn split_packet(rest: &[u8]) -> Option<(&[u8], &[u8])> {
    let [first, _, high, low] = *rest.first_chunk()?;
    if first >> 6 != 2 {
        return None;
    }
    rest.split_at_checked(4 + 4 * usize::from(u16::from_be_bytes([high, low])))
}

/// Reads one packet whose length is already right.
fn parse_one(packet: &[u8]) -> Option<Rtcp<'_>> {
    let ([first, kind, _, _], body) = packet.split_first_chunk()?;
    let count = first & 0x1F;
    let body = if first & 0x20 == 0 {
        body
    } else {
        let padding = usize::from(*body.last()?);
        body.get(..body.len().checked_sub(padding.max(1))?)?
    };
    match *kind {
        SENDER_REPORT => sender_report(body, count),
        RECEIVER_REPORT => {
            let (ssrc, rest) = take_u32(body)?;
            Some(Rtcp::ReceiverReport { ssrc, reports: reports(rest, count)? })
        }
        BYE => {
            let ssrcs = body.get(..4 * usize::from(count))?;
            Some(Rtcp::Bye { ssrcs: Ssrcs { rest: ssrcs } })
        }
        TRANSPORT_FEEDBACK if count == FORMAT_TWCC => Some(Rtcp::Twcc(packet)),
        TRANSPORT_FEEDBACK if count == FORMAT_NACK => {
            let (sender, rest) = take_u32(body)?;
            let (media, rest) = take_u32(rest)?;
            Some(Rtcp::Nack { sender, media, lost: NackIter { rest, first: 0, mask: 0 } })
        }
        PAYLOAD_FEEDBACK => payload_feedback(body, count),
        kind => Some(Rtcp::Other { kind }),
    }
}

fn sender_report(body: &[u8], count: u8) -> Option<Rtcp<'_>> {
    let (ssrc, rest) = take_u32(body)?;
    let (ntp, rest) = rest.split_first_chunk()?;
    let (rtp_timestamp, rest) = take_u32(rest)?;
    let (packets, rest) = take_u32(rest)?;
    let (octets, rest) = take_u32(rest)?;
    let info = SenderInfo { ntp: u64::from_be_bytes(*ntp), rtp_timestamp, packets, octets };
    Some(Rtcp::SenderReport { ssrc, info, reports: reports(rest, count)? })
}

fn payload_feedback(body: &[u8], format: u8) -> Option<Rtcp<'_>> {
    let (sender, rest) = take_u32(body)?;
    let (media, rest) = take_u32(rest)?;
    match format {
        FORMAT_PLI => Some(Rtcp::Pli { sender, media }),
        FORMAT_FIR => Some(Rtcp::Fir { sender, entries: FirEntries { rest } }),
        FORMAT_APPLICATION => {
            let Some((b"REMB", rest)) = rest.split_first_chunk() else {
                return Some(Rtcp::Other { kind: PAYLOAD_FEEDBACK });
            };
            let (word, _) = take_u32(rest)?;
            let (exponent, mantissa) = (word >> 18 & 0x3F, u64::from(word & 0x3_FFFF));
            let bitrate_bps = mantissa.checked_shl(exponent).unwrap_or(u64::MAX);
            Some(Rtcp::Remb { bitrate_bps })
        }
        _ => Some(Rtcp::Other { kind: PAYLOAD_FEEDBACK }),
    }
}

/// Iterator over report blocks.
#[derive(Clone, Debug)]
pub struct Reports<'a> {
    rest: &'a [u8],
}

fn reports(rest: &[u8], count: u8) -> Option<Reports<'_>> {
    Some(Reports { rest: rest.get(..REPORT_BLOCK * usize::from(count))? })
}

impl Iterator for Reports<'_> {
    type Item = ReportBlock;

    fn next(&mut self) -> Option<ReportBlock> {
        let (block, tail) = self.rest.split_first_chunk::<REPORT_BLOCK>()?;
        self.rest = tail;
        let mut words = block.as_chunks::<4>().0.iter().map(|word| u32::from_be_bytes(*word));
        let ssrc = words.next()?;
        let loss = words.next()?;
        Some(ReportBlock {
            ssrc,
            fraction_lost: (loss >> 24) as u8,
            // Shift up and down again: the 24-bit field is signed.
            lost: (loss << 8) as i32 >> 8,
            highest: words.next()?,
            jitter: words.next()?,
            lsr: words.next()?,
            dlsr: words.next()?,
        })
    }
}

/// Iterator over the sequence numbers of a NACK.
#[derive(Clone, Debug)]
pub struct NackIter<'a> {
    rest: &'a [u8],
    first: u16,
    mask: u16,
}

impl Iterator for NackIter<'_> {
    type Item = u16;

    fn next(&mut self) -> Option<u16> {
        if self.mask != 0 {
            let bit = self.mask.trailing_zeros();
            self.mask &= self.mask - 1;
            return Some(self.first.wrapping_add(1 + bit as u16));
        }
        let ([p0, p1, m0, m1], tail) = self.rest.split_first_chunk()?;
        self.rest = tail;
        self.first = u16::from_be_bytes([*p0, *p1]);
        self.mask = u16::from_be_bytes([*m0, *m1]);
        Some(self.first)
    }
}

/// Iterator over the entries of a FIR: stream and command number.
#[derive(Clone, Debug)]
pub struct FirEntries<'a> {
    rest: &'a [u8],
}

impl Iterator for FirEntries<'_> {
    type Item = (u32, u8);

    fn next(&mut self) -> Option<(u32, u8)> {
        let ([s0, s1, s2, s3, number, ..], tail) = self.rest.split_first_chunk::<8>()?;
        self.rest = tail;
        Some((u32::from_be_bytes([*s0, *s1, *s2, *s3]), *number))
    }
}

/// Iterator over a list of streams.
#[derive(Clone, Debug)]
pub struct Ssrcs<'a> {
    rest: &'a [u8],
}

impl Iterator for Ssrcs<'_> {
    type Item = u32;

    fn next(&mut self) -> Option<u32> {
        let (ssrc, tail) = take_u32(self.rest)?;
        self.rest = tail;
        Some(ssrc)
    }
}

/// Appends a sender report; at most 31 blocks.
pub fn write_sender_report(
    out: &mut Vec<u8>,
    ssrc: u32,
    info: &SenderInfo,
    reports: &[ReportBlock],
) {
    let count = reports.len().min(MAX_COUNT);
    header(out, count as u8, SENDER_REPORT, 6 + 6 * count);
    out.extend_from_slice(&ssrc.to_be_bytes());
    out.extend_from_slice(&info.ntp.to_be_bytes());
    out.extend_from_slice(&info.rtp_timestamp.to_be_bytes());
    out.extend_from_slice(&info.packets.to_be_bytes());
    out.extend_from_slice(&info.octets.to_be_bytes());
    write_blocks(out, reports);
}

/// Appends a receiver report; at most 31 blocks.
pub fn write_receiver_report(out: &mut Vec<u8>, sender: u32, reports: &[ReportBlock]) {
    let count = reports.len().min(MAX_COUNT);
    header(out, count as u8, RECEIVER_REPORT, 1 + 6 * count);
    out.extend_from_slice(&sender.to_be_bytes());
    write_blocks(out, reports);
}

fn write_blocks(out: &mut Vec<u8>, reports: &[ReportBlock]) {
    for report in reports.iter().take(MAX_COUNT) {
        let lost = report.lost.clamp(-0x80_0000, 0x7F_FFFF) as u32 & 0xFF_FFFF;
        out.extend_from_slice(&report.ssrc.to_be_bytes());
        out.extend_from_slice(&(u32::from(report.fraction_lost) << 24 | lost).to_be_bytes());
        out.extend_from_slice(&report.highest.to_be_bytes());
        out.extend_from_slice(&report.jitter.to_be_bytes());
        out.extend_from_slice(&report.lsr.to_be_bytes());
        out.extend_from_slice(&report.dlsr.to_be_bytes());
    }
}

/// Appends a NACK for these sequence numbers, best in ascending order; nothing when there are none.
pub fn write_nack(out: &mut Vec<u8>, sender: u32, media: u32, lost: &[u16]) {
    if lost.is_empty() {
        return;
    }
    let start = out.len();
    header(out, FORMAT_NACK, TRANSPORT_FEEDBACK, 2);
    out.extend_from_slice(&sender.to_be_bytes());
    out.extend_from_slice(&media.to_be_bytes());
    let mut rest = lost.iter().copied().peekable();
    while let Some(first) = rest.next() {
        let mut mask = 0u16;
        while let Some(distance) =
            rest.peek().map(|next| next.wrapping_sub(first)).filter(|distance| *distance <= 16)
        {
            rest.next();
            if distance > 0 {
                mask |= 1 << (distance - 1);
            }
        }
        out.extend_from_slice(&first.to_be_bytes());
        out.extend_from_slice(&mask.to_be_bytes());
    }
    patch_length(out, start);
}

/// Appends an upper bound of what a sender may send (REMB, draft-alvestrand-rmcat-remb §2.2).
pub fn write_remb(out: &mut Vec<u8>, sender: u32, media: u32, bps: u64) {
    let start = out.len();
    header(out, FORMAT_APPLICATION, PAYLOAD_FEEDBACK, 5);
    out.extend_from_slice(&sender.to_be_bytes());
    out.extend_from_slice(&[0; 4]);
    out.extend_from_slice(b"REMB");
    // One stream; 6 bits of exponent and 18 of mantissa.
    let exponent = 46u32.saturating_sub(bps.leading_zeros()).min(63);
    let mantissa = (bps >> exponent) as u32 & 0x3_FFFF;
    out.extend_from_slice(&(1 << 24 | exponent << 18 | mantissa).to_be_bytes());
    out.extend_from_slice(&media.to_be_bytes());
    patch_length(out, start);
}

/// Appends a picture loss indication.
pub fn write_pli(out: &mut Vec<u8>, sender: u32, media: u32) {
    header(out, FORMAT_PLI, PAYLOAD_FEEDBACK, 2);
    out.extend_from_slice(&sender.to_be_bytes());
    out.extend_from_slice(&media.to_be_bytes());
}

/// Appends a full intra request; `number` must change with each new demand.
pub fn write_fir(out: &mut Vec<u8>, sender: u32, media: u32, number: u8) {
    header(out, FORMAT_FIR, PAYLOAD_FEEDBACK, 4);
    out.extend_from_slice(&sender.to_be_bytes());
    out.extend_from_slice(&[0; 4]);
    out.extend_from_slice(&media.to_be_bytes());
    out.extend_from_slice(&[number, 0, 0, 0]);
}

/// Appends a source description with a canonical name (at most 255 bytes of it).
pub fn write_sdes_cname(out: &mut Vec<u8>, ssrc: u32, cname: &str) {
    let start = out.len();
    let name = cname.as_bytes();
    let name = name.get(..255).unwrap_or(name);
    header(out, 1, SOURCE_DESCRIPTION, 0);
    out.extend_from_slice(&ssrc.to_be_bytes());
    out.extend_from_slice(&[1, name.len() as u8]);
    out.extend_from_slice(name);
    // RFC 3550 §6.5: the item list ends in at least one zero octet, up to the word boundary.
    let len = (out.len() + 1 - start).next_multiple_of(4);
    out.resize(start + len, 0);
    patch_length(out, start);
}

/// Appends a goodbye for these streams (at most 31).
pub fn write_bye(out: &mut Vec<u8>, ssrcs: &[u32]) {
    let count = ssrcs.len().min(MAX_COUNT);
    header(out, count as u8, BYE, count);
    for ssrc in ssrcs.iter().take(count) {
        out.extend_from_slice(&ssrc.to_be_bytes());
    }
}

/// Appends a common header; `words` is the body's length in 32-bit words.
fn header(out: &mut Vec<u8>, count: u8, kind: u8, words: usize) {
    out.extend_from_slice(&[0x80 | count, kind]);
    out.extend_from_slice(&(words as u16).to_be_bytes());
}

/// Writes the length of the packet that began at `start` and ends here.
pub(crate) fn patch_length(out: &mut [u8], start: usize) {
    let words = ((out.len() - start) / 4).saturating_sub(1) as u16;
    if let Some(length) = out.get_mut(start + 2..start + 4) {
        length.copy_from_slice(&words.to_be_bytes());
    }
}

fn take_u32(bytes: &[u8]) -> Option<(u32, &[u8])> {
    let (word, rest) = bytes.split_first_chunk()?;
    Some((u32::from_be_bytes(*word), rest))
}

#[cfg(test)]
mod tests {
    use rand_chacha::rand_core::{Rng as _, SeedableRng as _};

    use super::*;

    const BLOCK: ReportBlock = ReportBlock {
        ssrc: 9,
        fraction_lost: 128,
        lost: -3,
        highest: 0x0001_FFFF,
        jitter: 77,
        lsr: 0xAABB_CCDD,
        dlsr: 65_536,
    };
    const INFO: SenderInfo =
        SenderInfo { ntp: 0x0123_4567_89AB_CDEF, rtp_timestamp: 1, packets: 2, octets: 3 };

    fn compound() -> Vec<u8> {
        let mut out = Vec::new();
        write_sender_report(&mut out, 5, &INFO, &[BLOCK]);
        write_sdes_cname(&mut out, 5, "PA_x");
        write_receiver_report(&mut out, 6, &[BLOCK, BLOCK]);
        write_nack(&mut out, 1, 2, &[65_534, 65_535, 0, 14, 15, 16, 900]);
        write_pli(&mut out, 3, 4);
        write_fir(&mut out, 3, 4, 200);
        write_bye(&mut out, &[7, 8]);
        out
    }

    #[test]
    fn what_is_written_reads_back() {
        let bytes = compound();
        let all: Vec<_> = packets(&bytes).map(Result::unwrap).collect();
        assert_eq!(all.len(), 7);
        let Rtcp::SenderReport { ssrc: 5, info: INFO, reports } = all[0].clone() else { panic!() };
        assert_eq!(reports.collect::<Vec<_>>(), [BLOCK]);
        assert!(matches!(all[1], Rtcp::Other { kind: SOURCE_DESCRIPTION }));
        let Rtcp::ReceiverReport { ssrc: 6, reports } = all[2].clone() else { panic!() };
        assert_eq!(reports.count(), 2);
        let Rtcp::Nack { sender: 1, media: 2, lost } = all[3].clone() else { panic!() };
        assert_eq!(lost.collect::<Vec<_>>(), [65_534, 65_535, 0, 14, 15, 16, 900]);
        assert!(matches!(all[4], Rtcp::Pli { sender: 3, media: 4 }));
        let Rtcp::Fir { sender: 3, entries } = all[5].clone() else { panic!() };
        assert_eq!(entries.collect::<Vec<_>>(), [(4, 200)]);
        let Rtcp::Bye { ssrcs } = all[6].clone() else { panic!() };
        assert_eq!(ssrcs.collect::<Vec<_>>(), [7, 8]);
    }

    #[test]
    fn a_nack_packs_neighbours_into_masks() {
        let mut out = Vec::new();
        write_nack(&mut out, 1, 2, &(100..117).collect::<Vec<_>>());
        assert_eq!(out.len(), 16);
        assert_eq!(out[12..], [0, 100, 0xFF, 0xFF]);
        out.clear();
        write_nack(&mut out, 1, 2, &[]);
        assert!(out.is_empty());
    }

    #[test]
    fn lengths_and_ends_are_right_for_every_name() {
        for len in [0, 1, 2, 3, 4, 5, 254, 255, 300] {
            let mut out = Vec::new();
            write_sdes_cname(&mut out, 5, &"n".repeat(len));
            assert_eq!(out.len() % 4, 0);
            assert_eq!(out.last(), Some(&0));
            assert_eq!(packets(&out).map(Result::unwrap).count(), 1);
        }
        let mut out = Vec::new();
        write_receiver_report(&mut out, 1, &[BLOCK; 40]);
        let Some(Ok(Rtcp::ReceiverReport { reports, .. })) = packets(&out).next() else { panic!() };
        assert_eq!(reports.count(), 31);
    }

    #[test]
    fn a_bound_is_read_as_it_was_written() {
        for bps in [0, 60_000, 262_143, 262_144, 1_000_000_000] {
            let mut out = Vec::new();
            write_remb(&mut out, 1, 2, bps);
            let Some(Ok(Rtcp::Remb { bitrate_bps })) = packets(&out).next() else { panic!() };
            assert!(bitrate_bps <= bps && bps - bitrate_bps <= bps >> 17, "{bps}: {bitrate_bps}");
        }
    }

    #[test]
    fn remb_reads_as_bits_per_second() {
        let head = [0x8F, 206, 0, 4, 0, 0, 0, 1, 0, 0, 0, 0];
        let with = |word: u32| [&head[..], b"REMB", &word.to_be_bytes()].concat();
        let read = |bytes: &[u8]| match packets(bytes).next() {
            Some(Ok(Rtcp::Remb { bitrate_bps })) => bitrate_bps,
            other => panic!("{other:?}"),
        };
        assert_eq!(read(&with(1 << 24 | 3 << 18 | 1000)), 8_000);
        assert_eq!(read(&with(1 << 24 | 63 << 18 | 2)), 0, "shifted out, not wrapped");
    }

    #[test]
    fn a_count_beyond_the_body_is_malformed_and_ends_the_walk() {
        let mut bytes = Vec::new();
        write_receiver_report(&mut bytes, 1, &[BLOCK]);
        bytes[0] += 1;
        write_pli(&mut bytes, 1, 2);
        let all: Vec<_> = packets(&bytes).collect();
        assert_eq!(all.len(), 1);
        assert_eq!(all[0].as_ref().unwrap_err(), &Malformed);
    }

    #[test]
    fn every_truncation_and_random_bytes_are_survived() {
        let whole = compound();
        for cut in 0..whole.len() {
            let good = packets(&whole[..cut]).filter(Result::is_ok).count();
            assert!(good < 7);
        }
        let mut rng = crate::core::Rng::from_seed([2; 32]);
        for _ in 0..20_000 {
            let mut bytes = whole.clone();
            for _ in 0..1 + rng.next_u32() % 6 {
                let at = rng.next_u32() as usize % bytes.len();
                bytes[at] = rng.next_u32() as u8;
            }
            for packet in packets(&bytes).flatten() {
                match packet {
                    Rtcp::SenderReport { reports, .. } | Rtcp::ReceiverReport { reports, .. } => {
                        assert!(reports.count() <= 31);
                    }
                    Rtcp::Nack { lost, .. } => assert!(lost.count() <= 17 * bytes.len()),
                    Rtcp::Fir { entries, .. } => assert!(entries.count() < bytes.len()),
                    Rtcp::Bye { ssrcs } => assert!(ssrcs.count() <= 31),
                    Rtcp::Twcc(_) | Rtcp::Pli { .. } | Rtcp::Remb { .. } | Rtcp::Other { .. } => {}
                }
            }
        }
    }
}
