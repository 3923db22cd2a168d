//! Loss, lies and noise.

use super::*;

/// Without `records::Sieve` some of these never connect.
#[test]
fn sixty_of_sixty_joins_connect_at_20_percent_loss_of_dtls() {
    for server_role in [DtlsRole::Passive, DtlsRole::Active] {
        let mut slowest = Duration::ZERO;
        for seed in 0..60 {
            let mut link = Link::new(Setup { seed, server_role, ..PLAIN });
            link.dtls_loss = 20;
            let start = link.now;
            while link.got.iter().any(|got| got.connected().is_none()) {
                link.run(Duration::from_millis(20));
                let waited = link.now - start;
                assert!(waited < Duration::from_secs(30), "{server_role:?}, seed {seed}: stuck");
                assert_eq!(link.got[0].closed(), None, "{server_role:?}, seed {seed}");
                assert_eq!(link.got[1].closed(), None, "{server_role:?}, seed {seed}");
            }
            slowest = slowest.max(link.now - start);
        }
        assert!(slowest < Duration::from_secs(15), "{server_role:?}: {slowest:?}");
    }
}

/// Also the OPEN and ACK of the lossy channel, which are reliable though the channel is not.
#[test]
fn all_channels_open_in_the_end_at_20_percent_loss() {
    for server_role in [DtlsRole::Passive, DtlsRole::Active] {
        for seed in 0..30 {
            let mut link = Link::new(Setup { seed, server_role, ..PLAIN });
            link.dtls_loss = 20;
            let start = link.now;
            while link.got.iter().any(|got| got.open_channels() < CHANNELS) {
                link.run(Duration::from_millis(100));
                let opened = [link.got[0].open_channels(), link.got[1].open_channels()];
                let waited = link.now - start;
                let what = format!("{server_role:?}, seed {seed}: {opened:?} open");
                assert!(waited < Duration::from_secs(90), "{what}");
            }
        }
    }
}

#[test]
fn a_wrong_fingerprint_ends_the_join_in_both_roles() {
    for server_role in [DtlsRole::Passive, DtlsRole::Active] {
        for liar in [Side::Client, Side::Server] {
            let setup = Setup { server_role, wrong_fingerprint_at: Some(liar), ..PLAIN };
            let mut link = Link::new(setup);
            link.run(Duration::from_secs(2));
            let what = format!("server {server_role:?}, {liar:?} expects another");
            assert_eq!(link.got(liar).closed(), Some(CloseReason::WrongFingerprint), "{what}");
            assert_eq!(link.got(liar).connected(), None, "{what}");
            assert_eq!(link.peer(liar).path(), None, "{what}");
            // The alert reached the other side. (A server may have been done by then.)
            assert!(link.got(liar.other()).closed().is_some(), "{what}");
        }
    }
}

#[test]
fn a_handshake_without_an_answer_gives_up_after_12_seconds() {
    let mut link = Link::new(Setup { server_role: DtlsRole::Active, ..PLAIN });
    link.dtls_loss = 100;
    let start = link.now;
    while link.got(Side::Server).closed().is_none() {
        link.run(Duration::from_millis(100));
    }
    assert_eq!(link.got(Side::Server).closed(), Some(CloseReason::HandshakeTimeout));
    let waited = link.now - start;
    assert!((12.0..13.5).contains(&waited.as_secs_f32()), "{waited:?}");
}

/// Every cut and every flipped bit of sealed media and of encrypted DTLS changes nothing.
#[test]
fn mutilated_packets_change_nothing() {
    let mut link = Link::joined(PLAIN);
    let now = link.now;
    let mut sealed = Vec::new();
    let mut media = rtp_packet(3, 1, b"payload");
    assert!(link.peer(Side::Client).seal_rtp(&mut media, 0, 12));
    sealed.push(media);
    let mut report = receiver_report(3);
    assert!(link.peer(Side::Client).seal_rtcp(&mut report, 0));
    sealed.push(report);
    let message = Bytes::from_static(b"message");
    link.peer(Side::Client).send_data(now, DataChannelKind::Reliable, &message).unwrap();
    sealed.extend(std::iter::from_fn(|| link.peer(Side::Client).poll_transmit()).map(|t| t.1));
    assert!(sealed.len() > 2);

    let path = udp(2000, 1000);
    link.forget();
    for whole in &sealed {
        for length in 0..whole.len() {
            link.deliver(Side::Server, path, &mut whole[..length].to_vec());
        }
        for bit in 0..8 * whole.len() {
            let mut flipped = whole.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            link.deliver(Side::Server, path, &mut flipped);
        }
    }
    link.drain();
    let got = link.got(Side::Server);
    assert!(got.rtp.is_empty() && got.rtcp.is_empty() && got.events.is_empty());
    // The whole ones still count.
    for mut whole in sealed {
        link.deliver(Side::Server, path, &mut whole);
    }
    link.run(Duration::from_millis(50));
    let got = link.got(Side::Server);
    assert_eq!((got.rtp.len(), got.rtcp.len()), (1, 1));
    assert_eq!(got.data(DataChannelKind::Reliable), [message]);
}

/// Anything may come on a proved path before and during the handshake.
#[test]
fn noise_never_panics() {
    for server_role in [DtlsRole::Passive, DtlsRole::Active] {
        let mut link = Link::new(Setup { server_role, ..PLAIN });
        link.run(Duration::from_millis(15));
        for round in 0..5000_u32 {
            let length = (link.rng.next_u32() % 200) as usize;
            let mut noise = vec![0; length];
            link.rng.fill_bytes(&mut noise);
            if let Some(first) = noise.first_mut() {
                *first = [0, 1, 20, 21, 22, 23, 128, 144][(round % 8) as usize];
            }
            for side in [Side::Client, Side::Server] {
                let path = if side == Side::Client { udp(1000, 2000) } else { udp(2000, 1000) };
                link.deliver(side, path, &mut noise);
            }
        }
        link.forget();
        link.run(Duration::from_secs(2));
        assert!(link.got.iter().all(|got| got.connected().is_some()), "{server_role:?}");
    }
}

/// A mutilated handshake may fail, but never panics, and never connects to somebody else.
#[test]
fn mutilated_handshakes_never_panic() {
    for seed in 0..150 {
        let server_role = if seed % 2 == 0 { DtlsRole::Passive } else { DtlsRole::Active };
        let mut link = Link::new(Setup { seed, server_role, ..PLAIN });
        for _ in 0..40 {
            link.run(Duration::from_millis(10));
            for (_, _, datagram) in link.wire.values_mut() {
                let place = link.rng.next_u32() as usize % datagram.len().max(1);
                if link.rng.next_u32().is_multiple_of(4)
                    && let Some(byte) = datagram.get_mut(place)
                {
                    *byte ^= 1 << (link.rng.next_u32() % 8);
                }
            }
        }
    }
}

#[test]
fn media_before_the_keys_and_from_strangers_is_dropped() {
    let mut link = Link::new(PLAIN);
    link.run(Duration::from_millis(11));
    link.forget();
    link.deliver(Side::Server, udp(2000, 1000), &mut rtp_packet(1, 1, b"early"));
    link.deliver(Side::Server, udp(2000, 1001), &mut rtp_packet(1, 1, b"strange"));
    link.deliver(Side::Server, udp(2000, 1001), &mut [22, 254, 253, 0, 0]);
    link.deliver(Side::Server, udp(2000, 1000), &mut [200; 20]);
    link.deliver(Side::Server, udp(2000, 1000), &mut []);
    let wanted = [
        DropReason::NoKeys,
        DropReason::UnprovedPath,
        DropReason::UnprovedPath,
        DropReason::Malformed,
        DropReason::UnprovedPath,
    ];
    assert_eq!(link.got(Side::Server).drops[..4], wanted[..4]);
    assert_eq!(link.got(Side::Server).drops.len(), 5);
    let counters = *link.peer(Side::Server).counters();
    assert_eq!(counters.dropped(DropReason::UnprovedPath), 2);
    assert_eq!(counters.dropped(DropReason::NoKeys), 1);
}
