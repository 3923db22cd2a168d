//! SCTP packets of a hostile, but authenticated, other side: sound checksums, wrong contents.

use super::*;

/// CRC-32C, as SCTP has it (RFC 9260 §A).
fn checksum(packet: &[u8]) -> [u8; 4] {
    let mut sum = u32::MAX;
    for byte in packet {
        sum ^= u32::from(*byte);
        for _ in 0..8 {
            sum = if sum & 1 == 1 { sum >> 1 ^ 0x82F6_3B78 } else { sum >> 1 };
        }
    }
    (!sum).to_le_bytes()
}

fn mutilate(rng: &mut Rng, packet: &mut Vec<u8>) {
    for _ in 0..=rng.next_u32() % 3 {
        let place = 12 + rng.next_u32() as usize % packet.len().saturating_sub(12).max(1);
        match (rng.next_u32() % 4, packet.get_mut(place)) {
            (0, Some(byte)) => *byte = rng.next_u32() as u8,
            (1, Some(byte)) => *byte ^= 1 << (rng.next_u32() % 8),
            (2, Some(byte)) => *byte = [0, 1, 127, 128, 255][rng.next_u32() as usize % 5],
            (_, _) => packet.truncate(place.max(12)),
        }
    }
    packet[8..12].fill(0);
    let sum = checksum(packet);
    packet[8..12].copy_from_slice(&sum);
}

#[test]
fn mutilated_sctp_never_panics() {
    for seed in 0..60 {
        let mut rng = Rng::seed_from_u64(seed);
        let mut now = Instant::now();
        let mut pair = [
            Channels::new(DtlsRole::Active, ChannelRole::Open),
            Channels::new(DtlsRole::Passive, ChannelRole::Wait),
        ];
        pair[0].start(now);
        // Sound at first, so that all states are reached.
        let calm = rng.next_u32() % 40;
        for round in 0..120 {
            for from in [0, 1] {
                while let Some(packet) = pair[from].poll_transmit() {
                    let mut packet = packet.to_vec();
                    if round > calm && rng.next_u32().is_multiple_of(3) {
                        mutilate(&mut rng, &mut packet);
                    }
                    pair[1 - from].handle(now, packet.into());
                }
                while pair[from].poll_event().is_some() {}
                let length = rng.next_u32() as usize % 3000;
                let message = Bytes::from(vec![5; length]);
                let kind = [DataChannelKind::Reliable, DataChannelKind::Lossy][round as usize % 2];
                let _ = pair[from].send(now, kind, &message);
            }
            now += Duration::from_millis(u64::from(rng.next_u32() % 1500));
            pair.iter_mut().for_each(|channels| channels.handle_timeout(now));
        }
    }
}
