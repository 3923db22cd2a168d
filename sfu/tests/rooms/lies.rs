//! Publishers and subscribers that lie, or do what is allowed in an order nobody thought of.

use std::net::SocketAddr;

use bedside_sfu::core::api::{
    Input, Path, Quality, Request, SessionEvent, TrackPermission, TrackSid,
};
use bedside_sfu::core::peer::Crypto;
use bedside_sfu::core::red::{self, Old};
use bedside_sfu::core::{rtcp, rtp};

use crate::client::Client;
use crate::forwarding::{call, publish};
use crate::source::{MID, OPUS, RED, Source};
use crate::world::{World, server};

/// A packet of a client that writes its own; only without keys.
fn throw(world: &mut World, from: SocketAddr, mut packet: Vec<u8>) {
    let path = Path::Udp { local: server(), remote: from };
    let (received, data) = (world.now, &mut packet[..]);
    world.core.handle_input(received, Input::Datagram { path, received, data });
    world.run_ms(1);
}

fn settings(track: &TrackSid, disabled: bool) -> Request {
    Request::TrackSettings {
        tracks: vec![track.clone()],
        disabled,
        quality: Quality::High,
        width: 0,
        height: 0,
        fps: 0,
    }
}

#[test]
fn an_impossible_clock_rate_harms_nobody() {
    let (mut world, doctor, patient, voice, _) = call(Crypto::Clear);
    let liar = world.join_as("liar", Default::default(), |client| client.receive_on(3, 3));
    world.run_ms(1_000);
    for (at, rate) in ["4294967295/2", "1/2", "0/2", "99999999999/2"].into_iter().enumerate() {
        let source = Source::audio(world.now, &format!("mic{at}"), "", 70_000 + at as u32);
        let announced = world.clients[liar].publish(source);
        let client: &mut Client = &mut world.clients[liar];
        let section = client.sections.last_mut().unwrap();
        for codec in &mut section.codecs {
            codec.rate = rate.to_owned();
        }
        world.request(liar, Request::AddTrack(Box::new(announced)));
        world.offer(liar);
        world.run_ms(1_000);
        // Another stream under the same name, with another clock: shifts are reckoned anew.
        world.request(doctor, settings(&voice, true));
        world.run_ms(200);
        world.send_reports(liar);
        world.request(doctor, settings(&voice, false));
        world.run_ms(1_500);
    }
    assert_eq!(world.core.counters().room_panics, 0);
    assert_eq!(world.left(patient), None);
    let before = world.now;
    world.run_ms(1_000);
    assert!(world.clients[doctor].stream_of(&voice).unwrap().since(before).count() > 40);
}

/// A sound with those before it, by hand.
fn sound(mid: &str, ssrc: u32, number: u16, distance: u16) -> Vec<u8> {
    let payload = |number: u16| vec![number as u8; 20];
    let mut olds = red::Olds::default();
    let earlier: Vec<Vec<u8>> = (1..=distance).map(|back| payload(number - back)).collect();
    for (place, (back, payload)) in olds.iter_mut().rev().zip((1..).zip(&earlier)) {
        *place = Some(Old { distance: back, offset: 960 * u32::from(back), payload });
    }
    let (mut body, mut packet) = (Vec::new(), Vec::new());
    red::write(&mut body, OPUS, &olds, &payload(number));
    let (mid, at) = ((MID, mid.as_bytes()), 960 * u32::from(number));
    rtp::write_header(&mut packet, false, RED, number, at, ssrc, &[mid]);
    packet.extend_from_slice(&body);
    packet
}

#[test]
fn a_restored_sound_starts_nothing() {
    let mut world = World::new(Crypto::Clear);
    let doctor = world.join_as("doctor", Default::default(), |client| {
        client.receive_on(1, 0);
        client.reads_red = true;
    });
    let patient = world.join("patient");
    world.run_ms(1_000);
    let mut source = Source::audio(world.now, "mic", "", 1_000);
    (source.red, source.muted) = (true, true);
    let voice = publish(&mut world, patient, source);
    world.run_ms(1_000);
    let (from, mid) =
        (world.clients[patient].address, world.clients[patient].sources[0].mid.clone());
    for number in 100..=110 {
        throw(&mut world, from, sound(&mid, 1_000, number, 1));
    }
    world.request(doctor, settings(&voice, true));
    world.run_ms(200);
    // 111 is lost. 112 comes while nobody listens, and repeats nothing.
    throw(&mut world, from, sound(&mid, 1_000, 112, 0));
    world.request(doctor, settings(&voice, false));
    world.run_ms(200);
    for number in 113..120 {
        throw(&mut world, from, sound(&mid, 1_000, number, 2));
    }
    world.run_ms(500);
    let stream = world.clients[doctor].stream_of(&voice).unwrap();
    assert_eq!(world.core.counters().red_restored, 1);
    assert!(stream.len() >= 18, "{}", stream.len());
    stream.check_whole();
}

#[test]
fn flapping_permissions_do_not_drown_the_others() {
    let (mut world, doctor, patient, voice, _) = call(Crypto::Clear);
    world.run_ms(1_000);
    let told = |world: &World| {
        world.told(doctor, |event| matches!(event, SessionEvent::SubscriptionAllowed { .. }))
    };
    let before = told(&world);
    for at in 0..200 {
        let allowed: Vec<TrackPermission> = Vec::new();
        let request = Request::SubscriptionPermission { all_participants: at % 2 == 1, allowed };
        world.request(patient, request);
        world.run_ms(5);
    }
    let flood = told(&world) - before;
    assert!(flood <= 2 * 2 * 11, "{flood} events within a second");
    let now = world.now;
    world.run_ms(2_000);
    let stream = world.clients[doctor].stream_of(&voice).unwrap();
    assert!(stream.since(now).count() > 50, "the last word holds");
}

#[test]
fn many_bad_lines_do_not_wake_a_room_without_end() {
    let mut world = World::new(Crypto::Clear);
    for at in 0..8 {
        let name = format!("person{at}");
        let client = world.join_as(&name, Default::default(), |client| client.receive_on(8, 8));
        let now = world.now;
        let ssrc = 1_000 * (at + 1);
        publish(&mut world, client, Source::audio(now, "mic", "", ssrc));
        publish(&mut world, client, Source::video(now, "cam", "", ssrc + 100, &["q", "h", "f"]));
        world.run_ms(7);
    }
    world.line.jitter = std::time::Duration::from_millis(15);
    world.loss = (0.4, 0.4);
    let before = world.timeouts;
    world.run_ms(2_000);
    let timeouts = world.timeouts - before;
    assert!(timeouts <= 2 * 1_000, "{timeouts} in two seconds");
}

#[test]
fn a_viewer_that_changes_its_mind_without_end_costs_the_others_little() {
    let (mut world, doctor, patient, _, face) = call(Crypto::Clear);
    let liar = world.join_as("liar", Default::default(), |client| client.receive_on(3, 3));
    world.run_ms(3_000);
    let ssrc = world.stream_ssrc(liar, &face);
    let before = world.now;
    for at in 0..1_000 {
        world.request(liar, settings(&face, at / 11 % 2 == 0));
        world.clients[liar].send_rtcp(|out| rtcp::write_pli(out, 1, ssrc));
        world.run_ms(10);
    }
    for encoding in &world.clients[patient].sources[1].encodings {
        let asked = encoding.keyframes_asked.iter().filter(|at| **at >= before).count();
        assert!(asked <= 18, "{asked} keyframes of {} in ten seconds", encoding.rid);
    }
    let stream = world.clients[doctor].stream_of(&face).unwrap();
    assert!(stream.since(before).count() > 700, "{}", stream.since(before).count());
    stream.check_whole();
    // The last word holds before long.
    world.run_ms(1_000);
    let now = world.now;
    world.request(liar, settings(&face, false));
    world.run_ms(2_000);
    assert!(world.clients[liar].stream_of(&face).unwrap().since(now).count() > 30);
}
