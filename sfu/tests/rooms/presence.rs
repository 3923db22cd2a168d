//! How soon people are seen, and at what price.

use std::time::{Duration, Instant};

use bedside_sfu::core::api::{
    Command, Grant, ParticipantInfo, ParticipantState, Private, Request, SessionEvent,
};
use bedside_sfu::core::peer::Crypto;

use crate::world::{ROOM, World};

/// What everybody must be seen within, the way included.
const SEEN: u64 = 200;

fn updates(world: &World, client: usize) -> usize {
    world.told(client, |event| matches!(event, SessionEvent::Participants(_)))
}

fn others<'w>(world: &'w World, client: usize, name: &str) -> Option<&'w ParticipantInfo> {
    let mut all = world.clients[client].others.values();
    all.find(|info| {
        info.profile.identity.reveal() == name
            && !matches!(info.state, ParticipantState::Disconnected(_))
    })
}

fn room_of(people: usize) -> (World, Vec<usize>) {
    let mut world = World::new(Crypto::Clear);
    let people: Vec<usize> = (0..people).map(|at| world.join_quietly(&format!("p{at}"))).collect();
    world.run_ms(2_000);
    (world, people)
}

#[test]
fn a_join_a_change_and_a_leave_are_seen_at_once_by_fifty() {
    let (mut world, people) = room_of(49);
    let started = Instant::now();
    let late = world.join_quietly("late");
    assert!(people.iter().all(|seer| others(&world, *seer, "late").is_some()), "without a wait");
    // What comes soon after waits, but not for long.
    let grant = Grant { publish: false, ..Grant::default() };
    let identity = Private("late".to_owned());
    world.command(Command::UpdateGrant { room: ROOM, identity, grant });
    world.run_ms(SEEN - 20);
    let changed =
        |seer: &usize| others(&world, *seer, "late").is_some_and(|info| !info.grant.publish);
    assert!(people.iter().all(changed));
    world.request(late, Request::Leave);
    world.run_ms(SEEN - 20);
    assert!(people.iter().all(|seer| others(&world, *seer, "late").is_none()));
    assert!(started.elapsed() < Duration::from_secs(60), "it is no work either");
}

#[test]
fn fifty_who_come_at_once_are_told_of_together() {
    let (mut world, before) = room_of(1);
    let people: Vec<usize> = (0..49).map(|at| world.join_quietly(&format!("new{at}"))).collect();
    world.run_ms(SEEN - 20);
    let everybody = || before.iter().chain(&people);
    for seer in everybody() {
        let seen = (0..49).filter(|at| others(&world, *seer, &format!("new{at}")).is_some());
        let itself = usize::from(*seer != before[0]);
        assert!(seen.count() >= 49 - itself, "everybody is seen by {seer}");
    }
    let told: usize = everybody().map(|seer| updates(&world, *seer)).sum();
    assert!(told <= 3 * 50, "{told} messages, each by itself would be 1200");
}

#[test]
fn a_crowd_is_told_more_rarely() {
    let (mut world, people) = room_of(60);
    let seer = people[0];
    let before = updates(&world, seer);
    for at in 0..20 {
        world.join_quietly(&format!("late{at}"));
        world.run_ms(100);
    }
    world.run_ms(1_000);
    assert!((0..20).all(|at| others(&world, seer, &format!("late{at}")).is_some()));
    let told = updates(&world, seer) - before;
    assert!((2..=4).contains(&told), "{told}");
}

#[test]
fn who_comes_and_goes_within_a_moment_leaves_nothing_behind() {
    let (mut world, people) = room_of(2);
    world.join_quietly("first");
    let flash = world.join_quietly("flash");
    world.request(flash, Request::Leave);
    // Its place is taken by somebody else.
    world.join_quietly("other");
    // And somebody comes again as another participant.
    let again = world.join_quietly("first");
    world.run_ms(SEEN);
    for seer in people {
        assert!(others(&world, seer, "flash").is_none());
        assert!(others(&world, seer, "other").is_some());
        let first = others(&world, seer, "first").unwrap();
        assert_eq!(Some(&first.sid), world.clients[again].me.as_ref());
    }
}

#[test]
fn hidden_people_come_and_go_unseen_also_in_mid_call() {
    let (mut world, people) = room_of(2);
    let ear = world.join_quietly("ear");
    world.run_ms(SEEN);
    let set = |world: &mut World, hidden| {
        let grant = Grant { hidden, ..Grant::default() };
        let identity = Private("ear".to_owned());
        world.command(Command::UpdateGrant { room: ROOM, identity, grant });
    };
    assert!(people.iter().all(|seer| others(&world, *seer, "ear").is_some()));
    set(&mut world, true);
    world.run_ms(SEEN);
    assert!(people.iter().all(|seer| others(&world, *seer, "ear").is_none()));
    let before = updates(&world, people[0]);
    // What it is told of itself is for itself alone.
    world.request(ear, Request::Leave);
    world.run_ms(SEEN);
    assert_eq!(updates(&world, people[0]), before);
    let ear = world.join_as("ear", Grant { hidden: true, ..Grant::default() }, |_| {});
    world.run_ms(SEEN);
    assert_eq!(updates(&world, people[0]), before);
    set(&mut world, false);
    set(&mut world, true);
    set(&mut world, false);
    world.run_ms(SEEN);
    assert!(people.iter().all(|seer| others(&world, *seer, "ear").is_some()));
    assert!(!world.clients[ear].log.is_empty());
}

#[test]
fn a_recorder_is_told_of_at_once() {
    let (mut world, people) = room_of(2);
    let recording = |world: &World| {
        world.told(
            people[0],
            |event| matches!(event, SessionEvent::Room(room) if room.recording && room.participants == 2),
        )
    };
    let grant = Grant { recorder: true, hidden: true, ..Grant::default() };
    world.join_as("recorder", grant, |_| {});
    world.run_ms(SEEN);
    assert_eq!(recording(&world), 1);
}
