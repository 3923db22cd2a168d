//! Joins, keys, media and data.

use super::*;

const BOTH_ROLES: [DtlsRole; 2] = [DtlsRole::Passive, DtlsRole::Active];
const BOTH_SIDES: [Side; 2] = [Side::Client, Side::Server];

#[test]
fn a_peer_can_live_on_a_thread_of_its_own() {
    fn sends<T: Send>() {}
    sends::<Peer>();
}

#[test]
fn media_flows_both_ways_in_both_roles() {
    for server_role in BOTH_ROLES {
        let mut link = Link::joined(Setup { server_role, ..PLAIN });
        for side in BOTH_SIDES {
            assert_eq!(link.got(side).connected(), Some(SrtpProfile::AeadAes128Gcm));
            for sequence in [65_534, 65_535, 0, 1] {
                assert!(link.send_rtp(side, 7, sequence, b"a frame"));
            }
            let path = link.peer(side).path().unwrap();
            let mut report = receiver_report(7);
            assert!(link.peer(side).seal_rtcp(&mut report, 0));
            assert_ne!(report, receiver_report(7));
            link.send(side, path, report);
        }
        link.run(Duration::from_millis(50));
        for side in BOTH_SIDES {
            let wanted = [65_534, 65_535, 0, 1].map(|s| rtp_packet(7, s, b"a frame"));
            assert_eq!(link.got(side).rtp, wanted);
            assert_eq!(link.got(side).rtcp, [receiver_report(7)]);
            assert_eq!(link.got(side).drops, []);
        }
    }
}

/// As DTLS server we take the best of what is offered, whatever order it is offered in; as client
/// we offer AES_CM only to those who need it.
#[test]
fn the_best_profile_is_chosen() {
    for server_role in BOTH_ROLES {
        let mut link = Link::joined(Setup { server_role, allow_cm: true, ..PLAIN });
        assert_eq!(link.got(Side::Server).connected(), Some(SrtpProfile::AeadAes128Gcm));
        assert!(link.send_rtp(Side::Client, 1, 1, b"x"));
        link.run(Duration::from_millis(20));
        assert_eq!(link.got(Side::Server).rtp.len(), 1);
    }
}

#[test]
fn an_index_is_never_sealed_twice() {
    let mut link = Link::joined(PLAIN);
    let mut seal = |sequence, payload: &[u8]| {
        let mut packet = rtp_packet(9, sequence, payload);
        let plain = packet.clone();
        let sealed = link.peer(Side::Server).seal_rtp(&mut packet, 0, 12);
        assert_eq!(sealed, packet != plain, "refused means untouched");
        sealed
    };
    assert!(seal(100, b"one") && seal(102, b"three") && seal(101, b"two"));
    assert!(!seal(101, b"another"));
    assert!(!seal(102, b"three"));
    assert!(seal(5000, b"much later") && !seal(103, b"too old to tell"));
    assert_eq!(link.peer(Side::Server).counters().seal_refused, 3);
}

#[test]
fn data_goes_both_ways_in_both_roles() {
    for server_role in BOTH_ROLES {
        let mut link = Link::joined(Setup { server_role, ..PLAIN });
        let large = Bytes::from(vec![7; 60_000]);
        for side in BOTH_SIDES {
            let now = link.now;
            let peer = link.peer(side);
            for number in 0..50_u8 {
                let message = Bytes::from(vec![number; 100]);
                peer.send_data(now, DataChannelKind::Reliable, &message).unwrap();
                peer.send_data(now, DataChannelKind::Lossy, &message).unwrap();
            }
            peer.send_data(now, DataChannelKind::Reliable, &large).unwrap();
            peer.send_data(now, DataChannelKind::Reliable, &Bytes::new()).unwrap();
        }
        link.run(Duration::from_secs(2));
        for side in BOTH_SIDES {
            let reliable = link.got(side).data(DataChannelKind::Reliable);
            assert_eq!(reliable.len(), 52);
            for (number, message) in reliable.iter().take(50).enumerate() {
                assert_eq!(*message, vec![number as u8; 100]);
            }
            assert_eq!(reliable[50], large);
            assert_eq!(reliable[51], Bytes::new());
            assert_eq!(link.got(side).data(DataChannelKind::Lossy).len(), 50);
        }
    }
}

#[test]
fn reliable_data_survives_loss() {
    let mut link = Link::joined(PLAIN);
    link.dtls_loss = 20;
    let now = link.now;
    for number in 0..50_u8 {
        let message = Bytes::from(vec![number; 1000]);
        link.peer(Side::Server).send_data(now, DataChannelKind::Reliable, &message).unwrap();
    }
    link.run(Duration::from_secs(60));
    let got = link.got(Side::Client).data(DataChannelKind::Reliable);
    let numbers: Vec<u8> = got.iter().map(|message| message[0]).collect();
    assert_eq!(numbers, (0..50).collect::<Vec<u8>>());
}

/// Lost messages of the lossy channel are given up (FORWARD-TSN), and what follows arrives.
#[test]
fn lossy_data_goes_on_after_loss() {
    let mut link = Link::joined(PLAIN);
    link.dtls_loss = 30;
    let message = Bytes::from_static(b"lossy");
    let send = |link: &mut Link| {
        let now = link.now;
        link.peer(Side::Server).send_data(now, DataChannelKind::Lossy, &message).unwrap();
        link.run(Duration::from_millis(20));
    };
    (0..300).for_each(|_| send(&mut link));
    link.dtls_loss = 0;
    link.run(Duration::from_secs(10));
    let before = link.got(Side::Client).data(DataChannelKind::Lossy).len();
    assert!((100..300).contains(&before), "{before} of 300 at 30 % loss");
    (0..10).for_each(|_| send(&mut link));
    link.run(Duration::from_millis(20));
    assert_eq!(link.got(Side::Client).data(DataChannelKind::Lossy).len(), before + 10);
}

#[test]
fn the_send_buffer_is_bounded() {
    let mut link = Link::joined(PLAIN);
    link.cut = true;
    let now = link.now;
    let peer = link.peer(Side::Server);
    let large = Bytes::from(vec![0; MAX_MESSAGE + 1]);
    let refused = peer.send_data(now, DataChannelKind::Reliable, &large);
    assert_eq!(refused, Err(SendDataError::TooLarge));
    let message = large.slice(..MAX_MESSAGE);
    let taken = (0..100)
        .take_while(|_| peer.send_data(now, DataChannelKind::Reliable, &message).is_ok())
        .count();
    assert!((1..10).contains(&taken), "{taken} taken");
    let refused = peer.send_data(now, DataChannelKind::Reliable, &message);
    assert_eq!(refused, Err(SendDataError::Full));
}

#[test]
fn clear_peers_do_the_same_without_cryptography() {
    let mut link = Link::joined(Setup { crypto: Crypto::Clear, ..PLAIN });
    let now = link.now;
    for side in BOTH_SIDES {
        assert_eq!(link.got(side).connected(), Some(SrtpProfile::Clear));
        assert!(link.send_rtp(side, 1, 1, b"plain"));
        let message = Bytes::from_static(b"hello");
        link.peer(side).send_data(now, DataChannelKind::Lossy, &message).unwrap();
    }
    link.run(Duration::from_millis(50));
    for side in BOTH_SIDES {
        assert_eq!(link.got(side).rtp, [rtp_packet(1, 1, b"plain")]);
        assert_eq!(link.got(side).data(DataChannelKind::Lossy), [Bytes::from_static(b"hello")]);
    }
    link.peer(Side::Client).close(now);
    link.run(Duration::from_millis(50));
    assert_eq!(link.got(Side::Server).closed(), Some(CloseReason::Remote));
}

#[test]
fn goodbye_ends_both_and_nothing_follows() {
    for (server_role, first) in
        [(DtlsRole::Passive, Side::Client), (DtlsRole::Active, Side::Server)]
    {
        let mut link = Link::joined(Setup { server_role, ..PLAIN });
        let now = link.now;
        link.peer(first).close(now);
        link.run(Duration::from_secs(1));
        assert_eq!(link.got(first).closed(), Some(CloseReason::Local));
        assert_eq!(link.got(first.other()).closed(), Some(CloseReason::Remote));
        for side in BOTH_SIDES {
            let peer = link.peer(side);
            assert_eq!((peer.path(), peer.poll_timeout()), (None, None));
            let message = Bytes::from_static(b"late");
            let refused = peer.send_data(now, DataChannelKind::Reliable, &message);
            assert_eq!(refused, Err(SendDataError::NoChannel));
            let mut datagram = [22; 30];
            let late = peer.handle_datagram(now, udp(1, 2), &mut datagram);
            assert!(matches!(late, Received::Dropped(DropReason::Closed)));
        }
    }
}
