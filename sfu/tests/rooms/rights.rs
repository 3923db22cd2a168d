//! Rights that change in mid-call, with all that follows for the person and for the others.

use bedside_sfu::core::api::{
    Command, DataChannelKind, Grant, Private, Request, SessionEvent, Source as Shows,
};
use bedside_sfu::core::peer::Crypto;

use crate::forwarding::{call, publish};
use crate::source::Source;
use crate::world::{ROOM, World, message};

fn set(world: &mut World, name: &str, grant: Grant) {
    let identity = Private(name.to_owned());
    world.command(Command::UpdateGrant { room: ROOM, identity, grant });
    world.run_ms(400);
}

#[test]
fn a_source_that_is_taken_away_goes_and_the_others_stay() {
    let (mut world, doctor, patient, voice, face) = call(Crypto::Clear);
    world.run_ms(500);
    let only_voice = Grant { sources: vec![Shows::Microphone], ..Grant::default() };
    set(&mut world, "patient", only_voice.clone());
    let left: Vec<_> =
        world.clients[doctor].tracks_of_others().into_iter().map(|track| track.sid).collect();
    assert_eq!(left, std::slice::from_ref(&voice));
    let taken = |event: &SessionEvent| matches!(event, SessionEvent::TrackUnpublished { track } if *track == face);
    let told = |event: &SessionEvent| matches!(event, SessionEvent::GrantChanged(grant) if *grant == only_voice);
    assert_eq!((world.told(patient, taken), world.told(patient, told)), (1, 1));
    // What its camera still sends goes nowhere, and its voice is heard without a gap.
    let pictures =
        |world: &World| world.clients[doctor].stream_of(&face).map_or(0, |stream| stream.len());
    let before = pictures(&world);
    world.run_ms(500);
    assert_eq!(pictures(&world), before);
    world.clients[doctor].stream_of(&voice).unwrap().check_whole();
    let seen = world.clients[doctor].others.values().find(|info| info.tracks.len() == 1).unwrap();
    assert_eq!(seen.grant, only_voice, "the others know it, too");
    // Given back, the camera is announced and offered again.
    set(&mut world, "patient", Grant::default());
    let now = world.now;
    let again = publish(&mut world, patient, Source::video(now, "again", "", 9_000, &[]));
    world.run_ms(800);
    world.clients[doctor].stream_of(&again).unwrap().check_whole();
}

#[test]
fn who_may_not_receive_any_more_receives_nothing_until_it_may_again() {
    let (mut world, doctor, patient, voice, face) = call(Crypto::Clear);
    world.run_ms(500);
    set(&mut world, "doctor", Grant { subscribe: false, ..Grant::default() });
    for track in [&voice, &face] {
        assert!(world.clients[doctor].stream_of(track).is_none());
    }
    let sent = world.core.counters().rtp_packets_out;
    world.request(doctor, Request::Subscribe { tracks: vec![face.clone()], subscribe: true });
    world.run_ms(1_000);
    assert_eq!(world.core.counters().rtp_packets_out, sent);
    assert_eq!(world.left(patient), None);
    set(&mut world, "doctor", Grant::default());
    world.run_ms(800);
    for track in [&voice, &face] {
        world.clients[doctor].stream_of(track).unwrap().check_whole();
    }
}

#[test]
fn who_is_hidden_in_mid_call_vanishes_and_speaks_without_a_name() {
    let (mut world, doctor, patient, voice, face) = call(Crypto::Clear);
    world.run_ms(500);
    let say = |world: &mut World, number: u32| {
        let now = world.now;
        let text = message("", number, "psst");
        world.clients[patient].send_data(now, DataChannelKind::Reliable, &text);
        world.run_ms(200);
    };
    say(&mut world, 1);
    set(&mut world, "patient", Grant { hidden: true, ..Grant::default() });
    assert!(world.clients[doctor].tracks_of_others().is_empty());
    for track in [&voice, &face] {
        assert!(world.clients[doctor].stream_of(track).is_none());
    }
    say(&mut world, 2);
    let heard: Vec<&str> =
        world.clients[doctor].data.iter().map(|(_, text)| text.as_str()).collect();
    assert_eq!(heard, ["patient:psst", ":psst"]);
    // It hears and sees the others as before.
    let now = world.now;
    let doctors = publish(&mut world, doctor, Source::audio(now, "mic", "", 8_000));
    world.run_ms(800);
    world.clients[patient].stream_of(&doctors).unwrap().check_whole();
    set(&mut world, "patient", Grant::default());
    world.run_ms(800);
    assert_eq!(world.clients[doctor].tracks_of_others().len(), 2);
    assert!(world.clients[doctor].stream_of(&voice).is_some());
}

#[test]
fn a_server_mutes_and_the_client_says_so() {
    let (mut world, doctor, patient, voice, _) = call(Crypto::Clear);
    world.command(Command::MuteTrack { room: ROOM, track: voice.clone(), muted: true });
    let asked = |event: &SessionEvent| matches!(event, SessionEvent::MuteRequested { track, muted: true } if *track == voice);
    assert_eq!(world.told(patient, asked), 1);
    // Its client obeys, and echoes.
    world.request(patient, Request::Mute { track: voice.clone(), muted: true });
    world.run_ms(200);
    let tracks = world.clients[doctor].tracks_of_others();
    assert!(tracks.iter().all(|track| track.muted == (track.sid == voice)));
}
