//! Data tracks: published, asked for, carried, and taken away.

use bedside_sfu::core::api::{
    Command, DataChannelKind, DataHandle, DataTrack, DataTrackEvent, Grant, Private, Refusal,
    Request, SessionEvent, TrackSid,
};
use bedside_sfu::core::peer::Crypto;
use bytes::Bytes;

use crate::world::{ROOM, World};

/// A packet with the given handle and content.
fn packet(handle: u16, content: &[u8]) -> Bytes {
    let [high, low] = handle.to_be_bytes();
    let header = [0x18, 0, high, low, 0, 1, 0, 2, 0, 0, 0, 3];
    Bytes::from([&header[..], content].concat())
}

fn two(crypto: Crypto) -> (World, usize, usize) {
    let mut world = World::new(crypto);
    let (anna, ben) = (world.join("anna"), world.join("ben"));
    world.run_ms(3_000);
    (world, anna, ben)
}

fn publish(world: &mut World, client: usize, handle: u16, name: &str) {
    let name = Private(name.to_owned());
    let format = Bytes::from_static(b"as it is");
    let track = DataTrack { handle, name, encryption: 1, format };
    world.request(client, Request::PublishDataTrack(Box::new(track)));
}

/// The track of this name as a client sees it.
fn seen(world: &World, client: usize, name: &str) -> Option<TrackSid> {
    let mut tracks = world.clients[client].others.values().flat_map(|info| &info.data_tracks);
    let track = tracks.find(|track| track.announced.name.reveal() == name)?;
    assert_eq!((track.announced.encryption, &track.announced.format[..]), (1, &b"as it is"[..]));
    Some(track.sid.clone())
}

fn subscribe(world: &mut World, client: usize, track: &TrackSid, wants: bool) {
    let tracks = vec![(track.clone(), wants)];
    world.request(client, Request::SubscribeData { tracks });
}

/// What the session was last told of handles.
fn handles(world: &World, client: usize) -> Option<&Vec<DataHandle>> {
    world.clients[client].log.iter().rev().find_map(|event| match event {
        SessionEvent::DataTrack(DataTrackEvent::Handles(handles)) => Some(handles),
        _ => None,
    })
}

fn send(world: &mut World, client: usize, packet: &Bytes) {
    let now = world.now;
    world.clients[client].send_data(now, DataChannelKind::Track, packet);
    world.run_ms(200);
}

#[test]
fn packets_reach_those_who_asked_for_them_under_a_handle_of_their_own() {
    for crypto in [Crypto::Clear, Crypto::Real] {
        let (mut world, anna, ben) = two(crypto);
        let cora = world.join("cora");
        world.run_ms(3_000);
        publish(&mut world, anna, 7, "pulse");
        publish(&mut world, ben, 7, "breath");
        world.run_ms(300);
        let (pulse, breath) =
            (seen(&world, cora, "pulse").unwrap(), seen(&world, cora, "breath").unwrap());
        subscribe(&mut world, cora, &pulse, true);
        subscribe(&mut world, cora, &breath, true);
        subscribe(&mut world, ben, &pulse, true);
        let named = |world: &World, client, track: &TrackSid| {
            let handles = handles(world, client).unwrap();
            handles.iter().find(|named| named.track == *track).unwrap().clone()
        };
        let (first, second) = (named(&world, cora, &pulse), named(&world, cora, &breath));
        assert_ne!(first.handle, second.handle);
        assert_eq!(
            (first.identity.reveal().as_str(), second.identity.reveal().as_str()),
            ("anna", "ben")
        );
        send(&mut world, anna, &packet(7, b"72"));
        send(&mut world, ben, &packet(7, b"14"));
        assert_eq!(
            world.clients[cora].packets,
            [packet(first.handle, b"72"), packet(second.handle, b"14")]
        );
        assert_eq!(world.clients[ben].packets, [packet(named(&world, ben, &pulse).handle, b"72")]);
        assert!(world.clients[anna].packets.is_empty());
        // Handles that are nobody's, and what is no packet at all.
        let dropped = world.core.counters().data_dropped;
        for odd in [packet(8, b"x"), Bytes::from_static(b"short"), Bytes::from_static(&[0xFF; 40])]
        {
            send(&mut world, anna, &odd);
        }
        assert_eq!(world.core.counters().data_dropped, dropped + 3);
        subscribe(&mut world, cora, &pulse, false);
        send(&mut world, anna, &packet(7, b"73"));
        assert_eq!((world.clients[cora].packets.len(), world.clients[ben].packets.len()), (2, 2));
        world.request(anna, Request::UnpublishDataTrack { handle: 7 });
        world.run_ms(300);
        assert_eq!(seen(&world, ben, "pulse"), None);
        send(&mut world, anna, &packet(7, b"74"));
        assert_eq!(world.clients[ben].packets.len(), 2);
    }
}

#[test]
fn what_cannot_be_published_is_refused_with_its_reason() {
    let (mut world, anna, _) = two(Crypto::Clear);
    let refused = |world: &World| {
        world.clients[anna].log.iter().rev().find_map(|event| match event {
            SessionEvent::DataTrack(DataTrackEvent::Refused { refusal, .. }) => Some(*refusal),
            _ => None,
        })
    };
    publish(&mut world, anna, 1, "pulse");
    assert_eq!(refused(&world), None);
    for (handle, name, reason) in [
        (1, "other", Refusal::DuplicateHandle),
        (2, "pulse", Refusal::DuplicateName),
        (0, "other", Refusal::InvalidHandle),
        (2, "", Refusal::InvalidName),
    ] {
        publish(&mut world, anna, handle, name);
        assert_eq!(refused(&world), Some(reason));
    }
    world.request(anna, Request::UnpublishDataTrack { handle: 9 });
    let unknown = |event: &SessionEvent| {
        matches!(event, SessionEvent::DataTrack(DataTrackEvent::Unknown { handle: 9 }))
    };
    assert_eq!(world.told(anna, unknown), 1);
    for handle in 2..200 {
        publish(&mut world, anna, handle, &handle.to_string());
    }
    assert_eq!(refused(&world), Some(Refusal::LimitExceeded));
    let me = world.clients[anna].me.clone().unwrap();
    assert_eq!(world.clients[anna].others[&me].data_tracks.len(), 64);
}

#[test]
fn rights_and_permissions_hold_for_data_tracks_too() {
    let (mut world, anna, ben) = two(Crypto::Clear);
    publish(&mut world, anna, 1, "pulse");
    world.run_ms(300);
    let pulse = seen(&world, ben, "pulse").unwrap();
    subscribe(&mut world, ben, &pulse, true);
    let mut number = 0u8;
    let mut gets = |world: &mut World| {
        number += 1;
        send(world, anna, &packet(1, &[number]));
        world.clients[ben].packets.last().is_some_and(|last| last.last() == Some(&number))
    };
    let grant = |world: &mut World, name: &str, grant| {
        let identity = Private(name.to_owned());
        world.command(Command::UpdateGrant { room: ROOM, identity, grant });
        world.run_ms(200);
    };
    assert!(gets(&mut world));
    let nobody = Request::SubscriptionPermission { all_participants: false, allowed: vec![] };
    world.request(anna, nobody);
    assert!(!gets(&mut world));
    let all = Request::SubscriptionPermission { all_participants: true, allowed: vec![] };
    world.request(anna, all);
    world.run_ms(200);
    assert!(gets(&mut world), "what was wanted is not forgotten");
    grant(&mut world, "ben", Grant { subscribe: false, ..Grant::default() });
    assert!(!gets(&mut world));
    grant(&mut world, "ben", Grant { recorder: true, ..Grant::default() });
    assert!(!gets(&mut world), "it is encrypted");
    grant(&mut world, "ben", Grant::default());
    assert!(gets(&mut world));
    grant(&mut world, "anna", Grant { publish_data: false, ..Grant::default() });
    let taken = |event: &SessionEvent| {
        matches!(event, SessionEvent::DataTrack(DataTrackEvent::Unpublished(_)))
    };
    assert_eq!(world.told(anna, taken), 1);
    assert_eq!(seen(&world, ben, "pulse"), None);
    assert!(!gets(&mut world));
    publish(&mut world, anna, 2, "again");
    let refused = |event: &SessionEvent| {
        matches!(
            event,
            SessionEvent::DataTrack(DataTrackEvent::Refused { refusal: Refusal::NotAllowed, .. })
        )
    };
    assert_eq!(world.told(anna, refused), 1);
}

#[test]
fn a_resume_keeps_data_tracks_and_tells_their_handles_again() {
    let (mut world, anna, ben) = two(Crypto::Clear);
    publish(&mut world, anna, 1, "pulse");
    world.run_ms(300);
    let pulse = seen(&world, ben, "pulse").unwrap();
    subscribe(&mut world, ben, &pulse, true);
    let before = handles(&world, ben).cloned();
    world.clients[ben].log.clear();
    world.resume(ben);
    assert_eq!(handles(&world, ben), before.as_ref());
    world.resume(anna);
    let sync = |published| Request::SyncState {
        published,
        subscription: None,
        disabled: vec![],
        received: vec![],
    };
    world.request(anna, sync(vec![pulse.clone()]));
    world.run_ms(1_000);
    assert_eq!(world.left(anna), None);
    send(&mut world, anna, &packet(1, b"72"));
    assert_eq!(world.clients[ben].packets.len(), 1);
    // Who leaves takes its tracks along.
    world.request(anna, Request::Leave);
    world.run_ms(200);
    assert_eq!(seen(&world, ben, "pulse"), None);
}
