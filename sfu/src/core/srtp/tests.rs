//! Sessions against `rtc-srtp`, and against wrong input.

use std::time::Instant;

use rtc_crypto::RTCCryptoProvider as _;
use rtc_crypto::providers::AwsLcRsProvider;
use rtc_srtp::context::Context;
use rtc_srtp::protection_profile::ProtectionProfile;

use super::*;

const PROFILES: [(SrtpProfile, ProtectionProfile); 3] = [
    (SrtpProfile::AeadAes128Gcm, ProtectionProfile::AeadAes128Gcm),
    (SrtpProfile::AeadAes256Gcm, ProtectionProfile::AeadAes256Gcm),
    (SrtpProfile::AesCm128HmacSha1_80, ProtectionProfile::Aes128CmHmacSha1_80),
];

fn material(profile: SrtpProfile) -> Vec<u8> {
    (0..profile.keying_length()).map(|n| (n * 37 + 11) as u8).collect()
}

fn pair(profile: SrtpProfile) -> (Session, Session) {
    let material = material(profile);
    let client = Session::new(profile, &material, true).unwrap();
    (client, Session::new(profile, &material, false).unwrap())
}

/// Their contexts of the client's and of the server's keys.
fn theirs(profile: SrtpProfile, name: ProtectionProfile) -> (Context, Context) {
    let material = material(profile);
    let (key, salt) = profile.lengths();
    let (keys, salts) = material.split_at(2 * key);
    let provider = AwsLcRsProvider::new();
    let context = |n: usize| {
        let (key, salt) = (&keys[n * key..][..key], &salts[n * salt..][..salt]);
        Context::new(key, salt, name, None, None, provider.crypto()).unwrap()
    };
    (context(0), context(1))
}

fn rtp(ssrc: u32, sequence: u16, payload: &[u8]) -> Vec<u8> {
    // With a one-byte header extension.
    let mut packet = vec![0x90, 96];
    packet.extend(sequence.to_be_bytes());
    packet.extend([0, 0, 9, 9]);
    packet.extend(ssrc.to_be_bytes());
    packet.extend([0xBE, 0xDE, 0, 1, 0x10, 0x42, 0, 0]);
    packet.extend(payload);
    packet
}

const HEADER: usize = 20;

fn report(ssrc: u32) -> Vec<u8> {
    let mut packet = vec![0x80, 201, 0, 1];
    packet.extend(ssrc.to_be_bytes());
    packet.extend([0x81, 206, 0, 2, 0, 0, 0, 1, 0, 0, 0, 2]);
    packet
}

#[test]
fn what_we_seal_rtc_srtp_opens_and_the_other_way_round() {
    for (profile, name) in PROFILES {
        let (mut client, _) = pair(profile);
        let (mut client_keys, mut server_keys) = theirs(profile, name);
        // Across two wraps of the sequence number, with sizes of all kinds.
        for step in 0..3000_u32 {
            let sequence = (65_000 + 50 * step) as u16;
            let plain = rtp(0xDEAD_BEEF, sequence, &vec![step as u8; (step % 1200) as usize]);
            let mut sealed = plain.clone();
            assert!(client.seal_rtp(&mut sealed, 0, HEADER));
            assert_eq!(client_keys.decrypt_rtp(&sealed).unwrap(), plain, "{profile:?} {step}");

            let mut sealed = server_keys.encrypt_rtp(&plain).unwrap();
            assert_eq!(client.open_rtp(&mut sealed, HEADER), Ok(plain.len()));
            assert_eq!(sealed[..plain.len()], plain);
        }
        for _ in 0..100 {
            let plain = report(5);
            let mut sealed = plain.clone();
            assert!(client.seal_rtcp(&mut sealed, 0));
            assert_eq!(client_keys.decrypt_rtcp(&sealed).unwrap(), plain);
            let mut sealed = server_keys.encrypt_rtcp(&plain).unwrap();
            assert_eq!(client.open_rtcp(&mut sealed), Ok(plain.len()));
            assert_eq!(sealed[..plain.len()], plain);
        }
    }
}

#[test]
fn a_replay_is_refused_and_reordering_is_not() {
    for (profile, _) in PROFILES {
        let (mut client, mut server) = pair(profile);
        let sealed: Vec<Vec<u8>> = (0..2000_u16)
            .map(|n| {
                let mut packet = rtp(1, n.wrapping_add(64_000), b"payload");
                assert!(client.seal_rtp(&mut packet, 0, HEADER));
                packet
            })
            .collect();
        let mut open = |n: usize| server.open_rtp(&mut sealed[n].clone(), HEADER);
        assert!(open(0).is_ok());
        for n in (1..1000).rev() {
            assert!(open(n).is_ok(), "{n}");
        }
        for n in 0..1000 {
            assert_eq!(open(n), Err(Refusal::Replayed), "{n}");
        }
        assert!(open(1999).is_ok() && open(1999 - 1023).is_err() && open(1050).is_ok());

        let mut first = report(1);
        assert!(client.seal_rtcp(&mut first, 0));
        assert!(server.open_rtcp(&mut first.clone()).is_ok());
        assert_eq!(server.open_rtcp(&mut first), Err(Refusal::Replayed));
    }
}

#[test]
fn forged_packets_leave_no_trace() {
    for (profile, _) in PROFILES {
        let (mut client, mut server) = pair(profile);
        let mut sealed = rtp(1, 9, b"payload");
        assert!(client.seal_rtp(&mut sealed, 0, HEADER));
        for ssrc in 0..5000_u32 {
            let mut forged = sealed.clone();
            forged[8..12].copy_from_slice(&(ssrc + 2).to_be_bytes());
            assert_eq!(server.open_rtp(&mut forged, HEADER), Err(Refusal::BadTag));
        }
        // A forged jump ahead does not move the window either.
        let mut ahead = sealed.clone();
        ahead[2..4].copy_from_slice(&20_000_u16.to_be_bytes());
        assert_eq!(server.open_rtp(&mut ahead, HEADER), Err(Refusal::BadTag));
        for bit in 0..8 * sealed.len() {
            let mut flipped = sealed.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(server.open_rtp(&mut flipped, HEADER).is_err(), "{profile:?}, bit {bit}");
        }
        for length in 0..sealed.len() {
            assert!(server.open_rtp(&mut sealed[..length].to_vec(), HEADER).is_err());
        }
        assert!(server.open_rtp(&mut sealed, HEADER).is_ok());
        assert_eq!((server.inbound.rtp.len(), server.inbound.rtcp.len()), (1, 0));

        let mut sealed = report(1);
        assert!(client.seal_rtcp(&mut sealed, 0));
        for bit in 0..8 * sealed.len() {
            let mut flipped = sealed.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(server.open_rtcp(&mut flipped).is_err(), "{profile:?}, bit {bit}");
        }
        for length in 0..sealed.len() {
            assert!(server.open_rtcp(&mut sealed[..length].to_vec()).is_err());
        }
        assert!(server.open_rtcp(&mut sealed).is_ok());
        assert_eq!(server.inbound.rtcp.len(), 1);
    }
}

#[test]
fn the_number_of_ssrcs_is_bounded() {
    let (mut client, mut server) = pair(SrtpProfile::AeadAes128Gcm);
    let (mut second, _) = pair(SrtpProfile::AeadAes128Gcm);
    for ssrc in 0..MAX_OUTBOUND as u32 {
        let mut packet = rtp(ssrc, 1, b"x");
        assert!(client.seal_rtp(&mut packet, 0, HEADER));
        assert_eq!(server.open_rtp(&mut packet, HEADER).is_ok(), (ssrc as usize) < MAX_SSRCS);
    }
    let mut packet = rtp(9_999_999, 1, b"x");
    assert!(!client.seal_rtp(&mut packet, 0, HEADER));
    assert!(second.seal_rtp(&mut packet, 0, HEADER));
    assert_eq!(server.open_rtp(&mut packet, HEADER), Err(Refusal::TooManySsrcs));
    let mut known = rtp(7, 2, b"x");
    assert!(client.seal_rtp(&mut known, 0, HEADER));
    assert!(server.open_rtp(&mut known, HEADER).is_ok());
}

#[test]
fn keying_material_must_have_the_right_length() {
    for (profile, _) in PROFILES {
        let material = material(profile);
        assert!(Session::new(profile, &material[1..], true).is_none());
        assert!(Session::new(profile, &[&material[..], &[0]].concat(), true).is_none());
    }
    assert!(Session::new(SrtpProfile::Clear, &[], true).is_none());
}

/// Not a test: prints what a packet costs. Run it in release mode:
/// `cargo test --release -p bedside-sfu --lib -- --ignored --nocapture cost_of_a_packet`.
#[test]
#[ignore = "measures, proves nothing"]
fn cost_of_a_packet() {
    for (profile, _) in PROFILES {
        for size in [100_usize, 1100] {
            let (mut client, mut server) = pair(profile);
            let count = 60_000_u32;
            let plain = rtp(0, 0, &vec![1; size]);
            let mut packets: Vec<Vec<u8>> = (0..count)
                .map(|n| {
                    let mut packet = plain.clone();
                    packet.reserve(16);
                    packet[2..4].copy_from_slice(&((n / 20) as u16).to_be_bytes());
                    packet[8..12].copy_from_slice(&((n % 20) * 7919).to_be_bytes());
                    packet
                })
                .collect();
            let start = Instant::now();
            for packet in &mut packets {
                assert!(client.seal_rtp(packet, 0, HEADER));
            }
            let seal = start.elapsed() / count;
            let start = Instant::now();
            for packet in &mut packets {
                assert!(server.open_rtp(packet, HEADER).is_ok());
            }
            let open = start.elapsed() / count;
            #[allow(clippy::print_stdout, reason = "the figure is the whole purpose")]
            {
                println!("{profile:?} {size} B: seal {seal:?}, open {open:?}");
            }
        }
    }
}
