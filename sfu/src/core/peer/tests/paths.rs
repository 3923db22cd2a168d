//! Restarts, address changes and silence.

use super::*;

fn restarted(link: &mut Link) {
    let mut rng = Rng::seed_from_u64(99);
    let (client, server) = (Credentials::random(&mut rng), Credentials::random(&mut rng));
    let now = link.now;
    link.peer(Side::Server).restart_ice(server.clone());
    link.peer(Side::Client).restart_ice(client);
    link.peer(Side::Client).set_remote(now, &server, vec![udp(1000, 2000)]);
}

#[test]
fn a_restart_changes_credentials_and_loses_no_packet() {
    let mut link = Link::joined(PLAIN);
    let old: Vec<String> = link.peer(Side::Server).ufrags().map(str::to_owned).collect();
    restarted(&mut link);
    assert_eq!(link.peer(Side::Server).ufrags().count(), 2, "old and new are valid");
    let mut sequence = 0;
    for _ in 0..100 {
        sequence += 1;
        assert!(link.send_rtp(Side::Client, 5, sequence, b"x"));
        assert!(link.send_rtp(Side::Server, 5, sequence, b"x"));
        link.run(Duration::from_millis(1));
    }
    link.run(Duration::from_millis(20));
    assert_eq!((link.got[0].rtp.len(), link.got[1].rtp.len()), (100, 100));
    for peer in &link.peers {
        assert_eq!(peer.ufrags().count(), 1, "the old ones are gone");
        assert_ne!(peer.ufrags().next(), old.first().map(String::as_str));
    }
    assert!(link.got(Side::Server).events.contains(&PeerEvent::UfragsChanged));
    // The same path was proved again, so it is not forgotten.
    link.run(Duration::from_secs(40));
    assert!(!link.got(Side::Server).events.iter().any(|e| matches!(e, PeerEvent::Forgot(_))));
    assert!(link.send_rtp(Side::Server, 5, 200, b"x"));
}

#[test]
fn a_nat_rebind_moves_the_path() {
    let mut link = Link::joined(PLAIN);
    assert_eq!(link.peer(Side::Server).path(), Some(udp(2000, 1000)));
    link.rebound = Some(1001);
    // Packets from a path that no check has proved are not believed, whoever sealed them.
    assert!(link.send_rtp(Side::Client, 5, 1, b"x"));
    link.run(Duration::from_millis(20));
    assert_eq!(link.got(Side::Server).drops, [DropReason::UnprovedPath]);
    assert_eq!(link.peer(Side::Server).path(), Some(udp(2000, 1000)));
    // The next check moves it.
    link.run(Duration::from_secs(3));
    assert_eq!(link.peer(Side::Server).path(), Some(udp(2000, 1001)));
    assert!(link.got(Side::Server).events.contains(&PeerEvent::Proved(udp(2000, 1001))));
    assert!(link.send_rtp(Side::Client, 5, 2, b"x") && link.send_rtp(Side::Server, 5, 2, b"x"));
    link.run(Duration::from_millis(20));
    assert_eq!((link.got[0].rtp.len(), link.got[1].rtp.len()), (1, 1));
    // A straggler of the old path still counts.
    let mut late = rtp_packet(5, 3, b"late");
    assert!(link.peer(Side::Client).seal_rtp(&mut late, 0, 12));
    link.deliver(Side::Server, udp(2000, 1000), &mut late);
    assert_eq!(link.got(Side::Server).rtp.len(), 2);
}

#[test]
fn our_own_new_address_is_checked_and_taken() {
    let mut link = Link::joined(PLAIN);
    let remote = link.peer(Side::Server).credentials().clone();
    let now = link.now;
    link.peer(Side::Client).set_remote(now, &remote, vec![udp(1500, 2000)]);
    link.run(Duration::from_millis(100));
    assert_eq!(link.peer(Side::Server).path(), Some(udp(2000, 1500)));
    assert_eq!(link.peer(Side::Client).path(), Some(udp(1500, 2000)));
    assert!(link.send_rtp(Side::Server, 5, 1, b"x"));
    link.run(Duration::from_millis(20));
    assert_eq!(link.got(Side::Client).rtp.len(), 1);
}

#[test]
fn silence_stops_sending_and_a_packet_starts_it_again() {
    for crypto in [Crypto::Real, Crypto::Clear] {
        let mut link = Link::joined(Setup { crypto, ..PLAIN });
        let path = link.peer(Side::Server).path();
        link.cut = true;
        link.run(Duration::from_secs(12));
        assert_eq!(link.peer(Side::Server).path(), path, "not yet");
        link.run(Duration::from_secs(4));
        for side in [Side::Client, Side::Server] {
            assert_eq!(link.got(side).events.last(), Some(&PeerEvent::Unreachable));
            assert_eq!(link.peer(side).path(), None);
        }
        link.cut = false;
        link.run(Duration::from_secs(2));
        for side in [Side::Client, Side::Server] {
            assert_eq!(link.got(side).events.last(), Some(&PeerEvent::Reachable));
        }
        assert_eq!(link.peer(Side::Server).path(), path);
        assert!(link.send_rtp(Side::Client, 5, 1, b"x") && link.send_rtp(Side::Server, 5, 1, b"x"));
        link.run(Duration::from_millis(20));
        assert_eq!((link.got[0].rtp.len(), link.got[1].rtp.len()), (1, 1));
    }
}

#[test]
fn media_alone_keeps_consent() {
    let mut link = Link::joined(PLAIN);
    for sequence in 0..40 {
        // No check gets through; a packet a second does.
        let mut packet = rtp_packet(5, sequence, b"x");
        assert!(link.peer(Side::Client).seal_rtp(&mut packet, 0, 12));
        link.cut = true;
        link.run(Duration::from_secs(1));
        link.cut = false;
        link.deliver(Side::Server, udp(2000, 1000), &mut packet);
    }
    assert_eq!(link.got(Side::Server).rtp.len(), 40);
    assert!(link.peer(Side::Server).path().is_some());
    assert!(!link.got(Side::Server).events.contains(&PeerEvent::Unreachable));
}

#[test]
fn a_check_played_back_from_elsewhere_moves_nothing() {
    let mut link = Link::joined(PLAIN);
    let mut checks = Vec::new();
    for _ in 0..10 {
        let now = link.now + Duration::from_secs(3);
        link.now = now;
        let client = link.peer(Side::Client);
        client.handle_timeout(now);
        checks.extend(std::iter::from_fn(|| client.poll_transmit()).map(|(_, bytes)| bytes));
    }
    checks.retain(|bytes| bytes.first().is_some_and(|first| *first < 4));
    assert!(!checks.is_empty());
    for check in &mut checks {
        link.deliver(Side::Server, udp(2000, 1000), check);
    }
    for check in &mut checks {
        link.deliver(Side::Server, udp(2000, 6666), check);
    }
    assert_eq!(link.peer(Side::Server).path(), Some(udp(2000, 1000)));
    assert!(!link.peer(Side::Server).is_proved(udp(2000, 6666)));
}
