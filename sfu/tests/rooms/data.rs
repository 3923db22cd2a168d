//! Data messages.

use bedside_sfu::core::api::{Command, DataChannelKind, Grant, Private, Request};
use bedside_sfu::core::peer::Crypto;
use bytes::Bytes;

use crate::world::{ROOM, World, message};

const RELIABLE: DataChannelKind = DataChannelKind::Reliable;
const LOSSY: DataChannelKind = DataChannelKind::Lossy;

fn heard(world: &World, client: usize) -> Vec<&str> {
    world.clients[client].data.iter().map(|(_, text)| text.as_str()).collect()
}

fn three(crypto: Crypto) -> World {
    let mut world = World::new(crypto);
    for name in ["anna", "ben", "cora"] {
        world.join(name);
    }
    world.run_ms(3_000);
    world
}

fn say(world: &mut World, client: usize, kind: DataChannelKind, message: &Bytes) {
    let now = world.now;
    world.clients[client].send_data(now, kind, message);
    world.run_ms(100);
}

#[test]
fn messages_reach_all_but_the_sender() {
    for crypto in [Crypto::Clear, Crypto::Real] {
        let mut world = three(crypto);
        for at in 1..=20 {
            say(&mut world, 0, RELIABLE, &message("", at, &at.to_string()));
        }
        say(&mut world, 1, LOSSY, &message("", 0, "quick"));
        world.run_ms(1_000);
        let expected: Vec<String> = (1..=20).map(|at| format!("anna:{at}")).collect();
        assert_eq!(heard(&world, 2)[..20], expected);
        assert_eq!(heard(&world, 2)[20], "ben:quick");
        assert_eq!(heard(&world, 1), expected);
        assert_eq!(heard(&world, 0), ["ben:quick"]);
    }
}

#[test]
fn messages_may_be_for_one_person() {
    let mut world = three(Crypto::Clear);
    say(&mut world, 0, RELIABLE, &message("cora", 1, "psst"));
    assert_eq!(heard(&world, 2), ["anna:psst"]);
    assert!(heard(&world, 1).is_empty());
}

#[test]
fn repeated_sequences_are_dropped() {
    let mut world = three(Crypto::Clear);
    for sequence in [1, 2, 2, 1, 3] {
        say(&mut world, 0, RELIABLE, &message("", sequence, &sequence.to_string()));
    }
    assert_eq!(heard(&world, 1), ["anna:1", "anna:2", "anna:3"]);
    assert_eq!(world.core.counters().data_dropped, 2);
}

#[test]
fn who_may_not_send_is_not_heard() {
    let mut world = three(Crypto::Clear);
    let grant = Grant { publish_data: false, ..Grant::default() };
    let identity = Private("anna".into());
    world.command(Command::UpdateGrant { room: ROOM, identity, grant });
    say(&mut world, 0, RELIABLE, &message("", 1, "hello"));
    assert!(heard(&world, 1).is_empty());
}

#[test]
fn a_joiner_gets_what_was_said_before_its_channel_opened() {
    let mut world = three(Crypto::Real);
    say(&mut world, 0, RELIABLE, &message("", 1, "before the join"));
    let late = world.join("late");
    let now = world.now;
    world.clients[0].send_data(now, RELIABLE, &message("", 2, "while connecting"));
    world.run_ms(2_000);
    assert_eq!(heard(&world, late), ["anna:while connecting"]);
    assert_eq!(heard(&world, 1).len(), 2);
}

#[test]
fn a_resuming_client_gets_what_it_has_missed() {
    let mut world = three(Crypto::Clear);
    for at in 1..=4 {
        say(&mut world, 0, RELIABLE, &message("", at, &at.to_string()));
    }
    world.clients[2].data.clear();
    let anna = world.clients[0].me.clone().unwrap();
    world.resume(2);
    let sync = Request::SyncState {
        published: vec![],
        subscription: None,
        disabled: vec![],
        received: vec![(anna, 2)],
    };
    world.request(2, sync);
    world.run_ms(500);
    assert_eq!(heard(&world, 2), ["anna:3", "anna:4"]);
}

#[test]
fn the_server_may_speak_too() {
    let mut world = three(Crypto::Clear);
    let payload = Bytes::from_static(b"notice");
    let to = vec![Private("ben".to_owned())];
    world.command(Command::SendData {
        room: ROOM,
        channel: RELIABLE,
        payload,
        to,
        to_sids: Vec::new(),
    });
    world.run_ms(100);
    assert_eq!(heard(&world, 1), ["notice"]);
    assert!(heard(&world, 0).is_empty() && heard(&world, 2).is_empty());
}
