//! What must not take a room down: broken and lying packets, from outside and from inside.

use bedside_sfu::core::api::{Input, LeaveReason, Path, Request};
use bedside_sfu::core::peer::Crypto;

use crate::forwarding::call;
use crate::world::{World, server};

/// A small generator of our own: these tests must repeat themselves.
struct Noise(u64);

impl Noise {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }
    fn bytes(&mut self, len: usize) -> Vec<u8> {
        (0..len).map(|_| self.next() as u8).collect()
    }
}

fn throw(world: &mut World, path: Path, mut bytes: Vec<u8>) {
    let received = world.now;
    world.core.handle_input(received, Input::Datagram { path, received, data: &mut bytes });
}

#[test]
fn random_datagrams_change_nothing() {
    for crypto in [Crypto::Clear, Crypto::Real] {
        let (mut world, doctor, patient, voice, face) = call(crypto);
        let mut noise = Noise(7);
        let known = Path::Udp { local: server(), remote: world.clients[patient].address };
        let unknown = Path::Udp { local: server(), remote: "127.0.0.1:9".parse().unwrap() };
        for round in 0..3_000 {
            let len = noise.next() as usize % 200;
            let mut bytes = noise.bytes(len);
            if let Some(first) = bytes.first_mut() {
                // Of each protocol; in clear the goodbye is not authenticated, so it is left out.
                *first = [0, 1, 22, 24, 64, 128, 129, 144, 191, 200][round % 10];
            }
            throw(&mut world, if round % 3 == 0 { unknown } else { known }, bytes);
        }
        let before = world.now;
        world.run_ms(1_000);
        for track in [&voice, &face] {
            let stream = world.clients[doctor].stream_of(track).unwrap();
            assert!(stream.since(before).count() > 40);
            stream.check_order();
        }
        assert_eq!(world.core.counters().room_panics, 0);
        assert!(world.core.counters().dropped_unknown >= 900);
    }
}

#[test]
fn cut_and_flipped_packets_change_nothing() {
    let (mut world, doctor, patient, voice, _) = call(Crypto::Clear);
    let path = Path::Udp { local: server(), remote: world.clients[patient].address };
    let mut noise = Noise(9);
    let ssrcs: Vec<u32> = world.clients[patient]
        .sources
        .iter()
        .flat_map(|source| {
            source.encodings.iter().flat_map(|encoding| [encoding.ssrc, encoding.repair_ssrc])
        })
        .collect();
    for round in 0..5_000usize {
        let len = noise.next() as usize % 120;
        let mut bytes = noise.bytes(len.max(12));
        bytes[0] = 0x80 | (bytes[0] & 0x3F);
        // A stream that exists, so that the packet gets as deep as it can; RTCP of all kinds.
        let ssrc = ssrcs[round % ssrcs.len()];
        bytes[8..12].copy_from_slice(&ssrc.to_be_bytes());
        if round % 2 == 0 {
            bytes[1] = 200 + (round / 2 % 8) as u8;
            let words = (bytes.len() / 4 - 1) as u16;
            bytes[2..4].copy_from_slice(&words.to_be_bytes());
            bytes.truncate(bytes.len() / 4 * 4);
        }
        throw(&mut world, path, bytes);
    }
    assert_eq!(world.core.counters().room_panics, 0);
    world.run_ms(3_000);
    let now = world.now;
    world.run_ms(500);
    assert!(world.clients[doctor].stream_of(&voice).unwrap().since(now).count() > 0);
}

#[test]
fn bad_offers_end_their_client_and_nobody_else() {
    let (mut world, doctor, patient, voice, _) = call(Crypto::Clear);
    world.run_ms(500);
    let good = world.clients[doctor].write_offer().1;
    let mut bad = vec![
        String::new(),
        "v=0\r\n".into(),
        good.replace("a=ice-ufrag", "a=nothing"),
        good.replace("a=fingerprint:sha-256 ", "a=fingerprint:sha-256 zz"),
        good.replace("sha-256", "sha-1"),
        "v=0\r\n".repeat(200_000),
        "m=audio 9 UDP/TLS/RTP/SAVPF 111\r\n".repeat(1_000),
    ];
    let mut noise = Noise(3);
    for _ in 0..60 {
        let mut bytes = good.clone().into_bytes();
        for _ in 0..20 {
            let at = noise.next() as usize % bytes.len();
            bytes[at] = b' ' + noise.next() as u8 % 90;
        }
        bytes.truncate(noise.next() as usize % good.len());
        bad.push(String::from_utf8(bytes).unwrap());
    }
    for (at, sdp) in bad.into_iter().enumerate() {
        let fool = world.join_quietly(&format!("fool{at}"));
        world.request(fool, Request::Offer { id: 1, sdp });
        if let Some((reason, resume)) = world.left(fool) {
            assert!(matches!(reason, LeaveReason::StateMismatch | LeaveReason::MediaFailure));
            assert!(!resume);
        } else {
            // A flip can leave an offer that is still good.
            world.request(fool, Request::Leave);
        }
    }
    assert!(world.core.counters().bad_offers >= 20, "{}", world.core.counters().bad_offers);
    assert_eq!(world.core.counters().room_panics, 0);
    let now = world.now;
    world.run_ms(500);
    assert!(world.clients[doctor].stream_of(&voice).unwrap().since(now).count() > 20);
    assert_eq!(world.left(patient), None);
}

#[test]
fn lists_have_an_end() {
    use bedside_sfu::core::api::{Quality, SessionEvent, TrackSid};
    let mut world = World::new(Crypto::Clear);
    let doctor = world.join("doctor");
    let source = crate::source::Source::audio(world.now, "mic", "", 1);
    let announced = crate::client::announcement(&source);
    for at in 0..100 {
        let announced =
            bedside_sfu::core::api::AddTrack { cid: at.to_string(), ..announced.clone() };
        world.request(doctor, Request::AddTrack(Box::new(announced)));
    }
    let refused = |event: &SessionEvent| matches!(event, SessionEvent::TrackRefused { .. });
    assert_eq!(world.told(doctor, refused), 80);
    let tracks: Vec<TrackSid> = (0..10_000).map(|at| TrackSid(at.to_string().into())).collect();
    world.request(doctor, Request::Subscribe { tracks: tracks.clone(), subscribe: true });
    let (disabled, quality) = (true, Quality::Low);
    world.request(
        doctor,
        Request::TrackSettings { tracks, disabled, quality, width: 0, height: 0, fps: 0 },
    );
    world.run_ms(100);
    assert_eq!(world.left(doctor), None);
}
