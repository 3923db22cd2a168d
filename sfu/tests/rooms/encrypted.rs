//! What is encrypted from end to end passes as it is, or not at all.

use bedside_sfu::core::api::{Grant, Refusal, Request, SessionEvent, TrackSid, Unreceived};
use bedside_sfu::core::peer::Crypto;

use crate::source::{RED, Source};
use crate::world::World;

/// A patient whose camera and microphone are encrypted, and a doctor.
fn pair() -> (World, usize, usize, TrackSid, TrackSid) {
    let mut world = World::new(Crypto::Clear);
    let doctor = world.join_as("doctor", Grant::default(), |client| {
        client.reads_red = true;
        client.receive_on(1, 1);
    });
    let patient = world.join("patient");
    world.run_ms(500);
    let mut sids = Vec::new();
    for (source, cid) in [
        (Source::audio(world.now, "mic", "", 1_000), "mic"),
        (Source::video(world.now, "cam", "", 2_000, &["q", "h", "f"]), "cam"),
    ] {
        let mut announced = world.clients[patient].publish(source);
        // A client that forgets to say that it wants no redundancy.
        (announced.encryption, announced.disable_red) = (1, false);
        world.request(patient, Request::AddTrack(Box::new(announced)));
        world.offer(patient);
        world.run_ms(300);
        sids.push(world.clients[patient].published[cid].sid.clone());
    }
    let face = sids.pop().unwrap();
    (world, doctor, patient, sids.pop().unwrap(), face)
}

#[test]
fn nothing_of_it_is_wrapped_or_unwrapped() {
    let (mut world, doctor, patient, voice, face) = pair();
    // Loss would bring redundancy to anybody else.
    for _ in 0..20 {
        world.report_loss(doctor, 60);
        world.run_ms(100);
    }
    let offered = world.clients[patient].answer.as_ref().unwrap();
    let red = offered.sections.iter().flat_map(|section| &section.codecs);
    assert!(red.clone().all(|codec| codec.name != "red"), "its publisher is not to make any");
    let stream = world.clients[doctor].stream_of(&voice).unwrap();
    assert!(stream.len() > 50);
    for seen in stream.seen.values() {
        assert_ne!(seen.payload_type, RED);
        // Four bytes of time, then the filling: as it was sent.
        assert!(seen.payload.len() == 84 && seen.payload[4..].iter().all(|byte| *byte == 0xA0));
    }
    stream.check_order();
    // Of a picture the numbers in the clear descriptor go on through switches, and nothing else.
    for rung in [0, 2, 1] {
        world.wish(doctor, &face, rung);
        world.run_ms(600);
    }
    let stream = world.clients[doctor].stream_of(&face).unwrap();
    stream.check_whole();
    for seen in stream.seen.values().filter(|seen| !seen.payload.is_empty()) {
        // Seven bytes of descriptor and header, a frame number, a rid, then the filling.
        let filling = &seen.payload[12..];
        assert!(b"qhf".contains(&seen.payload[11]));
        assert!(filling.iter().all(|byte| *byte == filling[0] && *byte < 3));
    }
}

#[test]
fn a_recorder_is_told_that_there_is_nothing_to_record() {
    let (mut world, doctor, patient, ..) = pair();
    let recorder = || Grant { recorder: true, hidden: true, ..Grant::default() };
    let refused = |world: &World, client: usize| {
        let encrypted =
            |event: &SessionEvent| matches!(event, SessionEvent::Refused(Refusal::Encrypted));
        world.told(client, encrypted) == 1
    };
    let late = world.join_as("late", recorder(), |client| client.receive_on(1, 1));
    assert!(refused(&world, late));
    world.run_ms(500);
    assert_eq!(world.core.counters().participants, 2);
    // It may be there before anything is encrypted, and then does not get what is.
    world.request(patient, Request::Leave);
    world.run_ms(200);
    let early = world.join_as("early", recorder(), |client| client.receive_on(1, 1));
    let patient = world.join("patient");
    world.run_ms(1_000);
    let mut announced = world.clients[patient].publish(Source::audio(world.now, "mic", "", 7_000));
    announced.encryption = 1;
    world.request(patient, Request::AddTrack(Box::new(announced)));
    world.offer(patient);
    world.run_ms(1_000);
    let voice = world.clients[patient].published["mic"].sid.clone();
    assert!(!refused(&world, early) && world.left(early).is_none());
    let told = |event: &SessionEvent| matches!(event, SessionEvent::SubscriptionFailed { track, why: Unreceived::Encrypted } if *track == voice);
    assert!(world.told(early, told) > 0);
    assert!(world.clients[early].stream_of(&voice).is_none());
    assert!(world.clients[doctor].stream_of(&voice).unwrap().len() > 10);
}
