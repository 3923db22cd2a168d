//! Who comes, who goes, and what the others learn of it.

use std::time::Duration;

use bedside_sfu::core::api::{
    Command, Grant, LeaveReason, NodeEvent, ParticipantState, ParticipantUpdate, Private, Refusal,
    Request, Resume, RoomSpec, SessionEvent, TrackPermission, TrackSid,
};
use bedside_sfu::core::ice::shard_of;
use bedside_sfu::core::peer::Crypto;

use crate::client::announcement;
use crate::forwarding::{call, publish};
use crate::source::Source;
use crate::world::{ROOM, SHARD, World};

fn refused(world: &World, client: usize) -> Option<Refusal> {
    world.clients[client].log.iter().find_map(|event| match event {
        SessionEvent::Refused(refusal) => Some(*refusal),
        _ => None,
    })
}

#[test]
fn a_leave_is_told_to_all() {
    let (mut world, doctor, patient, ..) = call(Crypto::Clear);
    world.request(patient, Request::Leave);
    world.run_ms(100);
    assert_eq!(world.left(patient), Some((LeaveReason::ClientInitiated, false)));
    let gone = world.clients[doctor]
        .others
        .values()
        .find(|info| info.state == ParticipantState::Disconnected(LeaveReason::ClientInitiated));
    assert!(gone.is_some_and(|info| info.tracks.is_empty()));
    assert_eq!(world.core.counters().tracks, 0);
    assert_eq!(world.core.counters().participants, 1);
}

#[test]
fn a_goodbye_of_the_peer_is_a_leave() {
    let (mut world, doctor, patient, ..) = call(Crypto::Real);
    let now = world.now;
    world.clients[patient].peer.as_mut().unwrap().close(now);
    world.run_ms(300);
    assert_eq!(world.left(patient), Some((LeaveReason::ClientInitiated, false)));
    assert_eq!(world.clients[doctor].tracks_of_others().len(), 0);
}

#[test]
fn a_second_join_replaces_the_first() {
    let (mut world, doctor, patient, ..) = call(Crypto::Clear);
    let again = world.join_as("patient", Grant::default(), |client| client.receive_on(1, 1));
    world.run_ms(500);
    assert_eq!(world.left(patient), Some((LeaveReason::DuplicateIdentity, false)));
    assert_eq!(world.left(again), None);
    assert_eq!(world.core.counters().participants, 2);
    let me = world.clients[again].me.clone().unwrap();
    assert_eq!(world.clients[doctor].others[&me].state, ParticipantState::Active);
}

#[test]
fn a_mute_by_the_administration_counts_at_once() {
    let (mut world, doctor, patient, voice, _) = call(Crypto::Clear);
    world.run_ms(500);
    let muted = |world: &World| {
        let tracks = world.clients[doctor].tracks_of_others();
        tracks.iter().find(|track| track.sid == voice).unwrap().muted
    };
    world.command(Command::MuteTrack { room: ROOM, track: voice.clone(), muted: true });
    world.run_ms(100);
    assert!(muted(&world), "whether or not the client says that it did it");
    let log = &world.clients[patient].log;
    let asked = |event: &SessionEvent| matches!(event, SessionEvent::MuteRequested { .. });
    let told = |event: &SessionEvent| matches!(event, SessionEvent::Participants(_));
    let order = [log.iter().position(asked), log.iter().rposition(told)];
    assert!(order[0].is_some() && order[0] < order[1], "it is asked before it is told");
    // Who may be heard again decides for itself.
    world.command(Command::MuteTrack { room: ROOM, track: voice.clone(), muted: false });
    world.run_ms(100);
    assert!(muted(&world));
    world.request(patient, Request::Mute { track: voice.clone(), muted: false });
    world.run_ms(100);
    assert!(!muted(&world));
}

#[test]
fn whoever_joins_again_is_newer_than_before() {
    let (mut world, doctor, patient, ..) = call(Crypto::Clear);
    world.run_ms(500);
    let seen = |world: &World, client: usize| {
        let me = world.clients[client].me.clone().unwrap();
        world.clients[doctor].others[&me].version
    };
    let before = seen(&world, patient);
    let again = world.join("patient");
    let joined = world.clients[again].log.iter().find_map(|event| match event {
        SessionEvent::Joined { me, .. } => Some(me.version),
        _ => None,
    });
    assert!(joined.unwrap() > before, "the client itself compares, too");
    world.run_ms(500);
    assert!(seen(&world, again) > before);
}

#[test]
fn a_full_room_lets_nobody_in_but_a_returning_person() {
    let mut world = World::with(Crypto::Clear, 2, None);
    world.join("doctor");
    let patient = world.join("patient");
    let guest = world.join("guest");
    assert_eq!(refused(&world, guest), Some(Refusal::RoomFull));
    let again = world.join("patient");
    assert_eq!(refused(&world, again), None);
    assert!(world.left(patient).is_some());
}

#[test]
fn a_resume_keeps_media_flowing_and_restarts_ice() {
    for crypto in [Crypto::Clear, Crypto::Real] {
        let (mut world, doctor, patient, voice, face) = call(crypto);
        world.run_ms(1_000);
        let ufrag = world.clients[patient].answer.as_ref().unwrap().ufrag.clone();
        let session = world.clients[patient].session;
        world.command(Command::SessionGone { session });
        world.run_ms(2_000);
        world.resume(patient);
        world.request(
            patient,
            Request::SyncState {
                published: vec![voice.clone(), face.clone()],
                subscription: Some((vec![], false)),
                disabled: vec![],
                received: vec![],
            },
        );
        world.run_ms(2_000);
        assert_eq!(world.left(patient), None);
        assert!(matches!(
            world.clients[patient].log.iter().rev().find(|event| {
                matches!(event, SessionEvent::Resumed { .. })
            }),
            Some(SessionEvent::Resumed { participants, .. }) if participants.len() == 2
        ));
        assert_ne!(world.clients[patient].answer.as_ref().unwrap().ufrag, ufrag);
        for track in [&voice, &face] {
            let stream = world.clients[doctor].stream_of(track).unwrap();
            stream.check_whole();
            let last = stream.seen.last_key_value().unwrap().1.at;
            assert!(world.now - last < Duration::from_millis(100), "media never stopped");
        }
    }
}

#[test]
fn every_connection_is_named_for_its_shard() {
    let (mut world, _, patient, ..) = call(Crypto::Clear);
    for _ in 0..2 {
        world.run_ms(1_000);
        let client = &world.clients[patient];
        let ufrags =
            [client.answer.as_ref(), client.incoming()].map(|said| said.unwrap().ufrag.as_str());
        // A first packet over TCP has nothing else to be routed by.
        assert_eq!(ufrags.map(shard_of), [Some(SHARD); 2]);
        world.resume(patient);
    }
}

#[test]
fn a_resume_must_name_a_participant_that_is_here() {
    let (mut world, doctor, patient, ..) = call(Crypto::Clear);
    let stranger = world.clients[doctor].me.clone().unwrap();
    let session = world.session();
    world.clients[patient].session = session;
    let identity = Private("patient".to_owned());
    let resume = Resume { room: ROOM, session, participant: stranger, identity };
    world.command(Command::Resume(Box::new(resume)));
    assert_eq!(refused(&world, patient), Some(Refusal::NoParticipant));
}

#[test]
fn a_client_that_believes_too_much_must_join_again() {
    let (mut world, _, patient, ..) = call(Crypto::Clear);
    let published = vec![TrackSid("TR_AMunknown".into())];
    let sync =
        Request::SyncState { published, subscription: None, disabled: vec![], received: vec![] };
    world.request(patient, sync);
    assert_eq!(world.left(patient), Some((LeaveReason::StateMismatch, false)));
}

#[test]
fn silence_of_media_ends_in_a_timeout_unless_it_resumes() {
    for resumes in [false, true] {
        let (mut world, doctor, patient, ..) = call(Crypto::Clear);
        // A cut cable: nothing of it arrives any more.
        let cut = world.clients[patient].vanish();
        let sources = std::mem::take(&mut world.clients[patient].sources);
        world.run_ms(16_000);
        assert_eq!(world.left(patient), Some((LeaveReason::ConnectionTimeout, true)));
        let told = world
            .facts
            .iter()
            .any(|fact| matches!(fact, NodeEvent::Reachable { reachable: false, .. }));
        assert!(told);
        if resumes {
            world.clients[patient].come_back(cut);
            world.clients[patient].sources = sources;
            world.resume(patient);
            world.run_ms(10_000);
            assert_eq!(world.core.counters().participants, 2);
            assert!(
                world
                    .facts
                    .iter()
                    .any(|fact| { matches!(fact, NodeEvent::Reachable { reachable: true, .. }) })
            );
        } else {
            world.run_ms(5_100);
            assert_eq!(world.core.counters().participants, 1);
            let state = ParticipantState::Disconnected(LeaveReason::ConnectionTimeout);
            assert!(world.clients[doctor].others.values().any(|info| info.state == state));
        }
    }
}

#[test]
fn who_never_becomes_active_is_removed() {
    let mut world = World::new(Crypto::Clear);
    let ghost = world.join("ghost");
    world.clients[ghost].vanish();
    world.run_ms(59_000);
    assert_eq!(world.left(ghost), None);
    world.run_ms(1_100);
    assert_eq!(world.left(ghost), Some((LeaveReason::JoinFailure, false)));
}

#[test]
fn without_signal_and_media_nobody_stays() {
    let mut world = World::new(Crypto::Clear);
    let ghost = world.join("ghost");
    let session = world.clients[ghost].session;
    world.command(Command::SessionGone { session });
    world.run_ms(10);
    assert_eq!(world.core.counters().participants, 0);
}

#[test]
fn an_empty_room_closes() {
    let mut world = World::with(Crypto::Clear, 0, Some(Duration::from_secs(30)));
    world.run_ms(29_000);
    let doctor = world.join("doctor");
    world.run_ms(60_000);
    assert_eq!(world.core.counters().rooms, 1);
    world.request(doctor, Request::Leave);
    world.run_ms(29_000);
    assert_eq!(world.core.counters().rooms, 1);
    world.run_ms(2_000);
    assert_eq!(world.core.counters().rooms, 0);
    let reason = LeaveReason::RoomClosed;
    assert!(
        matches!(world.facts.last(), Some(NodeEvent::RoomFinished { reason: last }) if *last == reason)
    );
    let late = world.join("late");
    assert_eq!(refused(&world, late), Some(Refusal::NoRoom));
}

#[test]
fn closing_a_room_sends_everyone_away() {
    let (mut world, doctor, patient, ..) = call(Crypto::Real);
    world.command(Command::CloseRoom { room: ROOM, reason: LeaveReason::RoomDeleted });
    world.run_ms(100);
    for client in [doctor, patient] {
        assert_eq!(world.left(client), Some((LeaveReason::RoomDeleted, false)));
        assert!(world.clients[client].peer.as_ref().unwrap().path().is_none(), "close_notify came");
    }
    assert_eq!(world.core.counters().rooms, 0);
    assert_eq!(world.core.snapshot().len(), 0);
}

#[test]
fn hidden_people_are_not_shown() {
    let mut world = World::new(Crypto::Clear);
    let doctor = world.join("doctor");
    let hidden = Grant { hidden: true, ..Grant::default() };
    let ear = world.join_as("ear", hidden, |client| client.receive_on(1, 1));
    world.run_ms(6_000);
    assert_eq!(world.clients[doctor].others.len(), 1, "only itself");
    assert!(world.clients[ear].others.len() == 2);
    let now = world.now;
    let voice = publish(&mut world, doctor, Source::audio(now, "mic", "", 1_000));
    world.run_ms(500);
    assert!(world.clients[ear].stream_of(&voice).unwrap().len() > 10);
    world.request(ear, Request::Leave);
    world.run_ms(100);
    assert_eq!(world.clients[doctor].others.len(), 1);
}

#[test]
fn rights_are_kept_and_taken() {
    let mut world = World::new(Crypto::Clear);
    let mute = Grant { publish: false, ..Grant::default() };
    let guest = world.join_as("guest", mute.clone(), |_| {});
    let doctor = world.join_as("doctor", Grant::default(), |client| client.receive_on(2, 2));
    world.run_ms(500);
    let now = world.now;
    let announced = world.clients[guest].publish(Source::audio(now, "mic", "", 1_000));
    world.request(guest, Request::AddTrack(Box::new(announced.clone())));
    let refusals = |event: &SessionEvent| {
        matches!(event, SessionEvent::TrackRefused { refusal: Refusal::NotAllowed, .. })
    };
    assert_eq!(world.told(guest, refusals), 1);
    let grant =
        |grant| Command::UpdateGrant { room: ROOM, identity: Private("guest".into()), grant };
    world.command(grant(Grant::default()));
    world.request(guest, Request::AddTrack(Box::new(announced)));
    world.offer(guest);
    world.run_ms(300);
    assert_eq!(world.clients[doctor].tracks_of_others().len(), 1);
    world.command(grant(mute));
    world.run_ms(100);
    assert_eq!(world.clients[doctor].tracks_of_others().len(), 0);
    let unpublished = |event: &SessionEvent| matches!(event, SessionEvent::TrackUnpublished { .. });
    assert_eq!(world.told(guest, unpublished), 1);
}

#[test]
fn what_was_taken_back_is_not_what_is_announced_later() {
    let (mut world, doctor, patient, _, face) = call(Crypto::Clear);
    world.run_ms(500);
    for publish in [false, true] {
        let identity = Private("patient".into());
        let grant = Grant { publish, ..Grant::default() };
        world.command(Command::UpdateGrant { room: ROOM, identity, grant });
        world.run_ms(100);
    }
    // Some clients go on sending what was taken from them.
    let mid = |world: &World| world.clients[patient].sources.last().unwrap().mid.clone();
    let old = mid(&world);
    let now = world.now;
    let again = publish(&mut world, patient, Source::video(now, "anew", "", 5_000, &[]));
    let new = mid(&world);
    assert_ne!((&face, old), (&again, new.clone()));
    world.run_ms(500);
    let seen = world.clients[doctor].tracks_of_others();
    assert_eq!(
        seen.iter().map(|track| (&track.sid, &track.mid)).collect::<Vec<_>>(),
        [(&again, &new)]
    );
    world.clients[doctor].stream_of(&again).unwrap().check_whole();
    // The same source may be announced again where it is still sent.
    let announced = announcement(&world.clients[patient].sources[1]);
    world.request(patient, Request::AddTrack(Box::new(announced)));
    world.run_ms(300);
    assert_eq!(world.clients[doctor].tracks_of_others().len(), 2);
}

#[test]
fn publishers_choose_their_audience() {
    let (mut world, doctor, patient, voice, face) = call(Crypto::Clear);
    world.run_ms(500);
    let only_voice = TrackPermission {
        sid: None,
        identity: Some(Private("doctor".into())),
        all_tracks: false,
        tracks: vec![voice.clone()],
    };
    let allowed = vec![only_voice];
    world.request(patient, Request::SubscriptionPermission { all_participants: false, allowed });
    world.run_ms(300);
    let denied = |event: &SessionEvent| matches!(event, SessionEvent::SubscriptionAllowed { track, allowed: false, .. } if *track == face);
    assert_eq!(world.told(doctor, denied), 1);
    assert!(world.clients[doctor].stream_of(&voice).is_some());
    assert!(world.clients[doctor].stream_of(&face).is_none());
    let everyone = Request::SubscriptionPermission { all_participants: true, allowed: vec![] };
    world.request(patient, everyone);
    world.run_ms(500);
    world.clients[doctor].stream_of(&face).unwrap().check_whole();
}

#[test]
fn an_address_may_change_in_mid_call() {
    for crypto in [Crypto::Clear, Crypto::Real] {
        let (mut world, doctor, patient, voice, _) = call(crypto);
        world.run_ms(500);
        let now = world.now;
        world.clients[patient].move_to(now, "127.0.0.1:50001".parse().unwrap());
        world.run_ms(3_000);
        let stream = world.clients[doctor].stream_of(&voice).unwrap();
        stream.check_order();
        let last = stream.seen.last_key_value().unwrap().1.at;
        assert!(world.now - last < Duration::from_millis(100));
        assert_eq!(world.left(patient), None);
    }
}

#[test]
fn an_administrator_changes_a_person() {
    let (mut world, doctor, patient, voice, _) = call(Crypto::Clear);
    world.run_ms(300);
    let update = |metadata: Option<&str>, value: &str, grant| {
        Command::UpdateParticipant(Box::new(ParticipantUpdate {
            room: ROOM,
            identity: Private("patient".into()),
            name: None,
            metadata: metadata.map(|text| Private(text.into())),
            attributes: Private([("role".to_owned(), value.to_owned())].into()),
            grant,
        }))
    };
    world.command(update(Some("m"), "PATIENT", None));
    world.run_ms(100);
    let seen = |world: &World| {
        let me = world.clients[patient].me.clone().unwrap();
        let profile = world.clients[doctor].others[&me].profile.clone();
        let role = profile.attributes.reveal().get("role").cloned();
        (profile.metadata.reveal().clone(), role, profile.name.reveal().clone())
    };
    let name = seen(&world).2;
    assert_eq!(seen(&world), ("m".to_owned(), Some("PATIENT".to_owned()), name.clone()));
    assert!(world.clients[doctor].stream_of(&voice).is_some());
    let mute = Grant { publish: false, ..Grant::default() };
    world.command(update(None, "", Some(mute)));
    world.run_ms(100);
    assert_eq!(seen(&world), ("m".to_owned(), None, name));
    assert_eq!(world.clients[doctor].tracks_of_others().len(), 0);
    let told = |event: &SessionEvent| matches!(event, SessionEvent::GrantChanged(_));
    assert_eq!(world.told(patient, told), 1);
}

#[test]
fn an_administrator_changes_subscriptions() {
    let (mut world, doctor, _, voice, face) = call(Crypto::Clear);
    world.run_ms(500);
    let update = |subscribe| Command::UpdateSubscriptions {
        room: ROOM,
        identity: Private("doctor".into()),
        tracks: vec![face.clone()],
        subscribe,
    };
    world.command(update(false));
    world.run_ms(500);
    assert!(world.clients[doctor].stream_of(&face).is_none());
    assert!(world.clients[doctor].stream_of(&voice).is_some());
    world.command(update(true));
    world.run_ms(500);
    assert!(world.clients[doctor].stream_of(&face).is_some());
}

#[test]
fn a_confirmation_follows_what_was_commanded_before() {
    let (mut world, ..) = call(Crypto::Clear);
    let identity = Private("patient".to_owned());
    let reason = LeaveReason::ParticipantRemoved;
    world.command(Command::Remove { room: ROOM, identity, reason });
    world.command(Command::Confirm { room: ROOM, number: 7 });
    world.run_ms(100);
    let is_gone = |fact: &NodeEvent| {
        matches!(fact, NodeEvent::Participant { info }
            if matches!(info.state, ParticipantState::Disconnected(_)))
    };
    let gone = world.facts.iter().position(is_gone).unwrap();
    let confirmed = |fact: &NodeEvent| matches!(fact, NodeEvent::Confirmed { number: 7 });
    assert!(world.facts.iter().position(confirmed).unwrap() > gone);
}

#[test]
fn a_room_takes_new_settings_and_tells_them() {
    let mut world = World::with(Crypto::Clear, 0, Some(Duration::from_secs(60)));
    let doctor = world.join("doctor");
    world.run_ms(500);
    world.command(Command::OpenRoom(Box::new(RoomSpec {
        room: ROOM,
        name: Private("ward".into()),
        metadata: Private("new".into()),
        max_participants: 1,
        empty_timeout: Some(Duration::from_secs(60)),
        departure_timeout: Some(Duration::from_secs(5)),
        playout_delay: None,
    })));
    world.run_ms(100);
    let told = |event: &SessionEvent| {
        matches!(event, SessionEvent::Room(room)
            if room.metadata.reveal() == "new" && room.max_participants == 1)
    };
    assert_eq!(world.told(doctor, told), 1);
    let late = world.join_as("late", Grant::default(), |_| {});
    world.run_ms(100);
    assert_eq!(refused(&world, late), Some(Refusal::RoomFull));
    world.request(doctor, Request::Leave);
    world.run_ms(4_000);
    let finished = |fact: &NodeEvent| matches!(fact, NodeEvent::RoomFinished { .. });
    assert!(!world.facts.iter().any(finished), "not before its time");
    world.run_ms(2_000);
    assert!(
        world.facts.iter().any(finished),
        "the time after a departure, not that before anybody"
    );
}
