//! The connection that the server offers: what is answered badly, late or not at all.

use std::time::Duration;

use bedside_sfu::core::api::{
    Command, LeaveReason, ParticipantState, Request, SessionEvent, TrackSid, Unreceived,
};
use bedside_sfu::core::peer::Crypto;
use bedside_sfu::core::sdp::Direction;

use crate::forwarding::{call, publish};
use crate::source::Source;
use crate::world::World;

fn offers(world: &World, client: usize) -> usize {
    world.told(client, |event| matches!(event, SessionEvent::Offer { .. }))
}

fn subscribe(world: &mut World, client: usize, track: &TrackSid, subscribe: bool) {
    let tracks = vec![track.clone()];
    world.request(client, Request::Subscribe { tracks, subscribe });
}

#[test]
fn the_first_offer_comes_with_the_join_and_carries_what_is_there() {
    let (mut world, _, _, voice, face) = call(Crypto::Real);
    world.run_ms(500);
    let guest = world.join("guest");
    assert_eq!(offers(&world, guest), 1, "at once");
    assert_eq!(world.clients[guest].carried.len(), 2);
    world.run_ms(1_500);
    assert_eq!(offers(&world, guest), 1);
    for track in [voice, face] {
        world.clients[guest].stream_of(&track).unwrap().check_whole();
    }
}

#[test]
fn who_publishes_nothing_needs_no_connection_for_it() {
    let (mut world, _, _, _, face) = call(Crypto::Real);
    let guest = world.join_quietly("guest");
    world.clients[guest].quiet = false;
    // The first offer went by unread; a resume brings another.
    world.resume_without_offer(guest);
    world.run_ms(1_500);
    assert!(world.clients[guest].peer.is_none());
    let me = world.clients[guest].me.clone().unwrap();
    assert_eq!(world.clients[guest].others[&me].state, ParticipantState::Active);
    world.clients[guest].stream_of(&face).unwrap().check_whole();
}

#[test]
fn a_section_that_cannot_be_read_is_told_once_and_given_up() {
    let mut world = World::new(Crypto::Clear);
    let doctor =
        world.join_as("doctor", Default::default(), |client| client.has_video_codec = false);
    let patient = world.join("patient");
    world.run_ms(500);
    let now = world.now;
    let face = publish(&mut world, patient, Source::video(now, "cam", "", 2_000, &[]));
    world.run_ms(1_000);
    let failed = |world: &World| {
        world.told(doctor, |event| {
            matches!(event, SessionEvent::SubscriptionFailed { track, why: Unreceived::Codec } if *track == face)
        })
    };
    assert_eq!(failed(&world), 1);
    // The room goes on, and so do its offers.
    let now = world.now;
    let voice = publish(&mut world, patient, Source::audio(now, "mic", "", 1_000));
    world.run_ms(1_000);
    world.clients[doctor].stream_of(&voice).unwrap().check_whole();
    assert_eq!(failed(&world), 1);
    assert!(offers(&world, doctor) <= 5, "{}", offers(&world, doctor));
}

#[test]
fn a_section_is_shown_idle_before_it_takes_another_track() {
    let (mut world, doctor, patient, voice, face) = call(Crypto::Clear);
    world.run_ms(500);
    let sections = |world: &World| world.clients[doctor].incoming().unwrap().sections.len();
    let before = sections(&world);
    for round in 0..4u32 {
        subscribe(&mut world, doctor, &face, false);
        world.run_ms(300);
        let incoming = world.clients[doctor].incoming().unwrap();
        let idle = incoming.sections.iter().filter(|s| s.direction == Direction::Inactive);
        assert_eq!(idle.count(), 1, "round {round}");
        subscribe(&mut world, doctor, &face, true);
        world.run_ms(700);
        world.clients[doctor].stream_of(&face).unwrap().check_whole();
    }
    assert_eq!(sections(&world), before, "it is used again");
    // At one stroke, one goes and another comes: that takes a section of its own.
    let now = world.now;
    subscribe(&mut world, doctor, &face, false);
    let other = publish(&mut world, patient, Source::video(now, "screen", "", 5_000, &[]));
    world.run_ms(1_000);
    world.clients[doctor].stream_of(&other).unwrap().check_whole();
    world.clients[doctor].stream_of(&voice).unwrap().check_whole();
    assert_eq!(sections(&world), before + 1);
}

#[test]
fn a_section_stays_open_for_whoever_stops_inactive_ones() {
    for stays in [true, false] {
        let (mut world, _, patient, voice, _) = call(Crypto::Clear);
        let guest = world.join_as("guest", Default::default(), |client| {
            client.idle_stays_open = stays;
        });
        world.run_ms(500);
        subscribe(&mut world, guest, &voice, false);
        world.run_ms(500);
        let offer = world.clients[guest].incoming().unwrap();
        let idle: Vec<_> = offer.sections.iter().filter(|one| one.ssrcs.is_empty()).collect();
        let open = if stays { Direction::SendOnly } else { Direction::Inactive };
        // The first one carries data.
        assert_eq!(idle[1..].iter().map(|one| one.direction).collect::<Vec<_>>(), [open]);
        assert!(idle[1].msid.is_none());
        let now = world.now;
        let again = publish(&mut world, patient, Source::audio(now, "again", "", 3_000));
        world.run_ms(1_000);
        world.clients[guest].stream_of(&again).unwrap().check_whole();
    }
}

#[test]
fn an_offer_without_an_answer_ends_in_a_new_join() {
    let (mut world, doctor, patient, ..) = call(Crypto::Clear);
    world.run_ms(500);
    world.clients[doctor].receiver.as_mut().unwrap().mute = true;
    let now = world.now;
    publish(&mut world, patient, Source::audio(now, "mic2", "", 4_000));
    world.run_ms(14_500);
    assert_eq!(world.left(doctor), None);
    world.run_ms(1_000);
    assert_eq!(world.left(doctor), Some((LeaveReason::StateMismatch, false)));
    assert_eq!(world.left(patient), None);
}

#[test]
fn who_is_away_is_offered_to_when_it_comes_back() {
    let (mut world, doctor, patient, voice, _) = call(Crypto::Clear);
    world.run_ms(500);
    let session = world.clients[doctor].session;
    world.command(Command::SessionGone { session });
    let before = offers(&world, doctor);
    let now = world.now;
    let second = publish(&mut world, patient, Source::audio(now, "mic2", "", 4_000));
    world.run(Duration::from_secs(30));
    assert_eq!((offers(&world, doctor), world.left(doctor)), (before, None));
    let ufrag = world.clients[doctor].incoming().unwrap().ufrag.clone();
    world.resume(doctor);
    world.run_ms(1_500);
    assert_ne!(world.clients[doctor].incoming().unwrap().ufrag, ufrag, "ICE is restarted");
    for track in [&voice, &second] {
        world.clients[doctor].stream_of(track).unwrap().check_whole();
    }
}

#[test]
fn strange_answers_do_no_harm_to_others() {
    let (mut world, doctor, patient, ..) = call(Crypto::Clear);
    world.run_ms(500);
    // Of an offer that is not open, whatever it says.
    for id in [0, 1, 77] {
        world.request(doctor, Request::Answer { id, sdp: "nonsense".into() });
    }
    world.run_ms(500);
    assert_eq!(world.left(doctor), None);
    for (at, sdp) in
        ["", "nonsense", "v=0", "v=0\r\nm=audio 9 UDP/TLS/RTP/SAVPF 0\r\n"].into_iter().enumerate()
    {
        let fool = world.join_quietly(&format!("fool{at}"));
        world.request(fool, Request::Answer { id: 1, sdp: sdp.into() });
        assert_eq!(world.left(fool), Some((LeaveReason::StateMismatch, false)), "{sdp}");
    }
    assert_eq!((world.left(doctor), world.left(patient)), (None, None));
    assert_eq!(world.core.counters().room_panics, 0);
}

#[test]
fn old_clients_do_not_name_the_offer() {
    let mut world = World::new(Crypto::Clear);
    let guest = world.join_quietly("guest");
    let Some(SessionEvent::Offer { sdp, .. }) = world.clients[guest].log.last().cloned() else {
        panic!("no offer")
    };
    let now = world.now;
    let receiver = world.clients[guest].receiver.as_mut().unwrap();
    let sdp = receiver.answer(now, &sdp, |_| true, false);
    world.request(guest, Request::Answer { id: 0, sdp });
    world.run_ms(1_000);
    assert_eq!(world.core.counters().peers_connected, 1);
}

#[test]
fn one_connection_silent_is_enough_to_resume() {
    let (mut world, doctor, patient, voice, _) = call(Crypto::Real);
    world.run_ms(500);
    let cut = world.clients[patient].receiver.as_mut().unwrap().peer.take();
    world.run_ms(16_000);
    assert_eq!(world.left(patient), Some((LeaveReason::ConnectionTimeout, true)));
    world.clients[patient].receiver.as_mut().unwrap().peer = cut;
    world.resume(patient);
    world.run_ms(3_000);
    assert_eq!(world.core.counters().participants, 2);
    let now = world.now;
    world.run_ms(1_000);
    assert!(world.clients[doctor].stream_of(&voice).unwrap().since(now).count() > 40);
}
