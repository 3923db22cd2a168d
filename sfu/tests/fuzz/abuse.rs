//! What one participant must not be able to do, and what must hold after rare turns of events.

use std::time::{Duration, Instant};

use bedside_sfu::core::api::{
    Command, Grant, Input, LayerInfo, LeaveReason, ParticipantSid, Path, Private, Quality, Refusal,
    Request, SessionEvent, Source, TrackPermission, TrackSid,
};
use bedside_sfu::core::rtcp::{self, SenderInfo};
use bedside_sfu::core::sdp::Direction;

use crate::world::{ROOM, World, server};

/// A publisher with one track and a subscriber that receives it.
fn pair(rids: &[&str], video: bool) -> (World, usize, usize, TrackSid) {
    let mut world = World::new(1);
    let alice = world.join("alice");
    world.publish(alice, "cam", 1_000, rids, video);
    let bob = world.join("bob");
    world.run_ms(2_000);
    let track = published(&world, alice, "cam").unwrap();
    assert!(world.people[bob].stream_of(&track).is_some_and(|it| it.seen.len() > 20));
    (world, alice, bob, track)
}

fn published(world: &World, who: usize, wanted: &str) -> Option<TrackSid> {
    world.people[who].log.iter().rev().find_map(|event| match event {
        SessionEvent::TrackPublished { cid, track } if cid == wanted => Some(track.sid.clone()),
        _ => None,
    })
}

fn left(world: &World, who: usize) -> Option<LeaveReason> {
    world.people[who].log.iter().find_map(|event| match event {
        SessionEvent::Left { reason, .. } => Some(*reason),
        _ => None,
    })
}

fn tracks(world: &World) -> usize {
    let rooms = world.core.snapshot();
    rooms.iter().flat_map(|room| &room.participants).map(|(info, _)| info.tracks.len()).sum()
}

#[test]
fn who_never_offers_is_gone_after_a_minute() {
    let mut world = World::new(1);
    let alice = world.enter("alice", Grant::default(), false);
    world.run_ms(59_000);
    assert_eq!(left(&world, alice), None);
    world.run_ms(1_100);
    assert_eq!(left(&world, alice), Some(LeaveReason::JoinFailure));
}

#[test]
fn feedback_begins_when_the_first_track_does() {
    let mut world = World::new(1);
    let alice = world.join("alice");
    world.run_ms(3_000);
    world.publish(alice, "cam", 1_000, &[""], true);
    let since = world.now;
    world.run_ms(400);
    let fed = world.people[alice].feedback.iter().filter(|at| **at > since).count();
    assert!(fed >= 4, "{fed} messages");
}

#[test]
fn a_withdrawn_grant_takes_announcements_too() {
    let mut world = World::new(1);
    let alice = world.join("alice");
    let announced = world.people[alice].publish("cam", 1_000, &[""], true);
    world.request(alice, Request::AddTrack(Box::new(announced)));
    let grant = Grant { publish: false, ..Grant::default() };
    world.command(Command::UpdateGrant { room: ROOM, identity: Private("alice".into()), grant });
    world.offer(alice);
    world.run_ms(200);
    assert_eq!(tracks(&world), 0);
}

#[test]
fn hostile_clocks_in_sender_reports_harm_nobody() {
    let (mut world, alice, _, _) = pair(&[""], true);
    for ntp in [1 << 63, 0, u64::MAX, 1, 1 << 62, (1 << 63) - 1] {
        let info = SenderInfo { ntp, rtp_timestamp: 7, packets: 1, octets: 1 };
        world.people[alice].rtcp(|out| rtcp::write_sender_report(out, 1_000, &info, &[]));
        world.run_ms(1_500);
    }
    assert_eq!(world.core.counters().room_panics, 0);
}

#[test]
fn absurd_sizes_harm_nobody() {
    let mut world = World::new(1);
    let alice = world.join("alice");
    let mut announced = world.people[alice].publish("cam", 1_000, &["q", "h"], true);
    let layer = |quality, spatial| LayerInfo {
        quality,
        width: u32::MAX,
        height: u32::MAX,
        bitrate_bps: u32::MAX,
        rid: String::new(),
        ssrc: 0,
        repair_ssrc: 0,
        spatial,
    };
    announced.layers = vec![layer(Quality::Low, 0), layer(Quality::Medium, 1)];
    world.request(alice, Request::AddTrack(Box::new(announced)));
    world.offer(alice);
    let bob = world.join("bob");
    world.run_ms(500);
    let track = published(&world, alice, "cam").unwrap();
    let (quality, width, height) = (Quality::High, u32::MAX, u32::MAX);
    let wish = Request::TrackSettings {
        tracks: vec![track],
        disabled: false,
        quality,
        width,
        height,
        fps: 0,
    };
    world.request(bob, wish);
    world.run_ms(500);
    assert_eq!(world.core.counters().room_panics, 0);
    assert_eq!(left(&world, bob), None);
}

#[test]
fn an_address_goes_back_to_whoever_proves_it_last() {
    let (mut world, alice, bob, track) = pair(&[""], false);
    // Bob's checks come from Alice's address for a while: a spoofer, or a NAT that gave it away.
    let (hers, his) = (world.people[alice].address, world.people[bob].address);
    let now = world.now;
    let path = Path::Udp { local: server(), remote: hers };
    world.people[bob].move_to(now, hers);
    let checks: Vec<Vec<u8>> =
        world.people[bob].take_out().into_iter().map(|(_, bytes)| bytes).collect();
    world.people[bob].work(now + Duration::from_millis(60));
    let more = world.people[bob].take_out().into_iter().map(|(_, bytes)| bytes);
    for check in checks.into_iter().chain(more).collect::<Vec<_>>() {
        world.put(path, check);
    }
    world.people[bob].move_to(now, his);
    world.run_ms(6_000);
    let since = world.people[bob].stream_of(&track).unwrap().seen.len();
    world.run_ms(1_000);
    let heard = world.people[bob].stream_of(&track).unwrap().seen.len() - since;
    assert!(heard >= 40, "{heard} packets in a second");
}

#[test]
fn a_new_stream_of_a_layer_never_answers_for_the_old_one() {
    let (mut world, alice, bob, track) = pair(&[""], true);
    let ssrc = world.people[bob].ssrc_of(&track).unwrap();
    let numbers: Vec<u16> =
        world.people[bob].streams[&ssrc].seen.keys().map(|at| *at as u16).collect();
    // The same numbers once more, in a new stream and with other contents.
    let layer = &mut world.people[alice].sources[0].layers[0];
    layer.ssrc = 5_000;
    layer.sequence = (1_000u16).wrapping_mul(7919);
    layer.picture = 9_000;
    world.run_ms(1_000);
    let some: Vec<u16> = numbers.into_iter().take(60).collect();
    world.people[bob].rtcp(|out| rtcp::write_nack(out, 1, ssrc, &some));
    world.run_ms(1_000);
    let stream = world.people[bob].stream_of(&track).unwrap();
    stream.check_order();
    stream.check_pictures();
    assert_eq!(stream.missing(), 0);
}

#[test]
fn packets_of_a_replaced_stream_are_dropped() {
    let (mut world, alice, bob, track) = pair(&[""], true);
    world.people[alice].sources[0].layers[0].ssrc = 5_000;
    world.people[alice].sources[0].layers[0].sequence = 30_000;
    world.run_ms(500);
    // The old one comes back between the new one's packets.
    for number in 0..40u16 {
        let mut packet = Vec::new();
        rtp_packet(&mut packet, 1_000, 30_900 + number * 7);
        world.people[alice].send(packet);
        world.run_ms(40);
    }
    let stream = world.people[bob].stream_of(&track).unwrap();
    stream.check_order();
    assert_eq!(stream.missing(), 0);
    assert!(world.people[alice].reports.iter().all(|block| block.lost < 100));
}

fn rtp_packet(out: &mut Vec<u8>, ssrc: u32, sequence: u16) {
    bedside_sfu::core::rtp::write_header(out, true, 96, sequence, 1, ssrc, &[(4, b"1")]);
    out.extend_from_slice(&[0x90, 0xE0, 0x80, 1, 1, 0, 1, 0, 0]);
}

#[test]
fn a_jump_of_the_publisher_is_no_gap_for_subscribers() {
    for jump in [300u16, 5_000, 20_000, 32_000] {
        for video in [false, true] {
            let (mut world, alice, bob, track) = pair(&[""], video);
            for _ in 0..4 {
                let layer = &mut world.people[alice].sources[0].layers[0];
                layer.sequence = layer.sequence.wrapping_add(jump);
                world.run_ms(1_000);
            }
            let stream = world.people[bob].stream_of(&track).unwrap();
            stream.check_order();
            stream.check_pictures();
            assert_eq!(stream.missing(), 0, "jump {jump}, video {video}");
            assert!(stream.seen.len() > 230, "{} packets", stream.seen.len());
        }
    }
}

#[test]
fn repair_never_outgrows_what_was_sent() {
    let (mut world, _, bob, track) = pair(&[""], true);
    let ssrc = world.people[bob].ssrc_of(&track).unwrap();
    let numbers: Vec<u16> =
        world.people[bob].streams[&ssrc].seen.keys().map(|at| *at as u16).collect();
    let (sent, before) = (numbers.len() as u64, world.core.counters().rtx_out);
    for _ in 0..200 {
        for numbers in numbers.chunks(100) {
            world.people[bob].rtcp(|out| rtcp::write_nack(out, 1, ssrc, numbers));
        }
        world.run_ms(5);
    }
    let repairs = world.core.counters().rtx_out - before;
    assert!(repairs >= 50, "honest requests are met: {repairs}");
    assert!(repairs <= 2 * sent + 200, "{repairs} repairs of {sent} packets");
}

#[test]
fn a_subscriber_without_a_path_asks_for_no_keyframes() {
    let (mut world, alice, _, _) = pair(&[""], true);
    let eve = world.enter("eve", Grant::default(), false);
    world.people[eve].receive_on(0, 1);
    let (id, sdp) = world.people[eve].write_offer();
    // Its packets never arrive.
    world.people[eve].address = "10.9.9.9:9".parse().unwrap();
    world.request(eve, Request::Offer { id, sdp });
    world.people[eve].peer = None;
    let before = world.people[alice].asked.len();
    world.run_ms(10_000);
    let asked = world.people[alice].asked.len() - before;
    assert!(asked <= 1, "{asked} keyframes for somebody who is not there");
}

#[test]
fn a_keyframe_is_asked_for_as_soon_as_the_newcomer_is_there() {
    let (mut world, alice, _, track) = pair(&[""], true);
    // A still picture: nothing flows, but a keyframe would come if it was asked for.
    world.people[alice].sources[0].muted = true;
    world.run_ms(1_000);
    let carol = world.enter("carol", Grant::default(), false);
    world.people[carol].receive_on(0, 1);
    let before = world.people[alice].asked.len();
    world.offer(carol);
    let since = world.now;
    world.run_ms(25);
    assert!(world.people[carol].carried.iter().any(|(_, sid)| *sid == track));
    let asked: Vec<Duration> =
        world.people[alice].asked[before..].iter().map(|(at, _)| *at - since).collect();
    assert!(asked.iter().any(|after| *after <= Duration::from_millis(20)), "{asked:?}");
}

#[test]
fn disabled_subscriptions_ask_for_no_keyframes() {
    let (mut world, alice, bob, track) = pair(&[""], true);
    let ssrc = world.people[bob].ssrc_of(&track).unwrap();
    let settings = |disabled| Request::TrackSettings {
        tracks: vec![track.clone()],
        disabled,
        quality: Quality::High,
        width: 0,
        height: 0,
        fps: 0,
    };
    world.request(bob, settings(true));
    let before = world.people[alice].asked.len();
    for _ in 0..100 {
        world.people[bob].rtcp(|out| rtcp::write_pli(out, 1, ssrc));
        world.run_ms(20);
    }
    assert_eq!(world.people[alice].asked.len(), before);
    world.request(bob, settings(false));
    world.run_ms(500);
    let stream = world.people[bob].stream_of(&track).unwrap();
    stream.check_order();
    stream.check_pictures();
    assert_eq!(stream.missing(), 0);
}

#[test]
fn sections_are_never_asked_for_beyond_what_an_offer_may_have() {
    let mut world = World::new(1);
    let bob = world.join("bob");
    for publisher in 0..5 {
        let who = world.join(&format!("p{publisher}"));
        world.people[who].obeys = false;
        for track in 0..28u32 {
            let cid = format!("{publisher}-{track}");
            let ssrc = 10_000 * (publisher + 1) + track;
            let announced = world.people[who].publish(&cid, ssrc, &[""], false);
            world.request(who, Request::AddTrack(Box::new(announced)));
            if track % 14 == 13 {
                world.offer(who);
            }
        }
    }
    world.run_ms(20_000);
    assert_eq!(tracks(&world), 140);
    assert_eq!(left(&world, bob), None);
    assert_eq!(world.people[bob].sections.len(), 80);
    let offers = world.people[bob].log.len();
    world.run_ms(20_000);
    assert!(world.people[bob].log.len() - offers < 20, "no questions without end");
}

#[test]
fn a_track_whose_section_is_gone_ends() {
    let (mut world, alice, _, _) = pair(&[""], true);
    world.people[alice].sections.retain(|section| section.direction != Direction::SendOnly);
    world.people[alice].sources.clear();
    world.offer(alice);
    world.run_ms(500);
    assert_eq!(tracks(&world), 0);
}

#[test]
fn a_section_that_changes_its_kind_ends_its_track() {
    let (mut world, alice, _, _) = pair(&[""], true);
    let audio = crate::person::section(
        "1",
        bedside_sfu::core::sdp::SectionKind::Audio,
        Direction::SendOnly,
    );
    let at = world.people[alice].sections.iter().position(|section| section.mid == "1").unwrap();
    world.people[alice].sections[at] = audio;
    world.offer(alice);
    world.run_ms(500);
    assert_eq!(tracks(&world), 0);
    assert_eq!(left(&world, alice), None);
}

#[test]
fn a_newcomer_gets_no_message_from_before_it_came() {
    let (mut world, alice, bob, _) = pair(&[""], false);
    let said = |body: &[u8]| [&1u32.to_be_bytes()[..], body].concat();
    let message = [&[23, 0][..], &said(b"secret")].concat();
    world.people[alice].send(message);
    world.run_ms(50);
    let before = world.core.counters().data_out;
    let sender: ParticipantSid = world.people[alice].sid.clone().unwrap();
    let carol = world.join("carol");
    world.run_ms(100);
    let sync = Request::SyncState {
        published: vec![],
        subscription: None,
        disabled: vec![],
        received: vec![(sender, 0)],
    };
    world.request(carol, sync.clone());
    world.run_ms(50);
    assert_eq!(world.core.counters().data_out, before, "it was not there");
    world.request(bob, sync);
    assert_eq!(world.core.counters().data_out, before + 1, "he was, and says he missed it");
}

#[test]
fn a_full_room_keeps_the_one_whose_place_is_not_taken() {
    let mut world = World::with(1, crate::world::identity(), 1, None);
    let recorder = Grant { recorder: true, hidden: true, ..Grant::default() };
    let first = world.enter("alice", recorder, false);
    let bob = world.enter("bob", Grant::default(), false);
    let second = world.enter("alice", Grant::default(), false);
    let refused = |world: &World, who: usize| {
        let full = |event: &SessionEvent| matches!(event, SessionEvent::Refused(Refusal::RoomFull));
        world.people[who].log.iter().any(full)
    };
    assert!(refused(&world, second) && !refused(&world, bob));
    assert_eq!(left(&world, first), None, "a refused join replaces nobody");
}

#[test]
fn who_becomes_hidden_is_gone_for_the_others() {
    let (mut world, _, bob, _) = pair(&[""], false);
    let grant = Grant { hidden: true, ..Grant::default() };
    let sid = world.people[0].sid.clone().unwrap();
    world.command(Command::UpdateGrant { room: ROOM, identity: Private("alice".into()), grant });
    let gone = world.people[bob].log.iter().any(|event| {
        let SessionEvent::Participants(infos) = event else { return false };
        infos.iter().any(|info| {
            info.sid == sid
                && matches!(info.state, bedside_sfu::core::api::ParticipantState::Disconnected(_))
        })
    });
    assert!(gone);
}

#[test]
fn a_wish_can_be_changed_when_no_more_are_remembered() {
    let (mut world, _, bob, track) = pair(&[""], false);
    let say = |tracks, subscribe| Request::Subscribe { tracks, subscribe };
    world.request(bob, say(vec![track.clone()], true));
    let others = (0..3_000).map(|at| TrackSid(format!("TR_{at}").into())).collect();
    world.request(bob, say(others, false));
    world.request(bob, say(vec![track], false));
    world.run_ms(300);
    assert!(world.people[bob].carried.is_empty());
}

#[test]
fn a_clock_that_seems_to_go_back_changes_no_layer() {
    let (mut world, _, bob, track) = pair(&["q", "h", "f"], true);
    let before = world.people[0].asked.len();
    for _ in 0..40 {
        for active in [true, false] {
            // The best layer is heard last.
            let layers = &mut world.people[0].sources[0].layers;
            layers.iter_mut().take(2).for_each(|layer| layer.active = active);
            world.run_ms(40);
        }
        // A caller that looked at its clock before it read the last datagrams.
        let early: Instant = world.now - Duration::from_micros(300);
        world.core.handle_input(early, Input::Timeout);
    }
    world.run_ms(100);
    assert_eq!(world.people[0].asked.len(), before, "a layer was changed");
    assert_eq!(world.people[bob].stream_of(&track).unwrap().missing(), 0);
}

#[test]
fn permissions_taken_back_stop_media_at_once() {
    let (mut world, alice, bob, track) = pair(&[""], true);
    let allowed: Vec<TrackPermission> = vec![];
    let request = Request::SubscriptionPermission { all_participants: false, allowed };
    let before = world.people[bob].stream_of(&track).unwrap().seen.len();
    world.request(alice, request);
    let ssrc_count = |world: &World| {
        world.people[bob].streams.values().map(|stream| stream.seen.len()).sum::<usize>()
    };
    world.run_ms(1_000);
    assert_eq!(ssrc_count(&world), before);
}

#[test]
fn a_resume_brings_no_right_back() {
    let (mut world, alice, _, _) = pair(&[""], true);
    let grant = Grant { publish: false, ..Grant::default() };
    let identity = Private("alice".into());
    world.command(Command::UpdateGrant { room: ROOM, identity, grant: grant.clone() });
    world.resume(alice);
    let held = world.people[alice].log.iter().rev().find_map(|event| match event {
        SessionEvent::Resumed { participants, .. } => {
            let me = participants
                .iter()
                .find(|info| Some(&info.sid) == world.people[alice].sid.as_ref());
            me.map(|info| info.grant.clone())
        }
        _ => None,
    });
    assert_eq!(held, Some(grant));
    world.publish(alice, "again", 3_000, &[""], true);
    world.run_ms(500);
    assert_eq!(tracks(&world), 0);
}

#[test]
fn a_camera_does_not_pass_for_a_microphone() {
    let mut world = World::new(1);
    let sources = vec![Source::Microphone];
    let alice = world.enter("alice", Grant { sources, ..Grant::default() }, false);
    for (video, source) in
        [(true, Source::Microphone), (true, Source::Camera), (false, Source::Unknown)]
    {
        let mut announced = world.people[alice].publish("cam", 1_000, &[""], video);
        announced.source = source;
        world.request(alice, Request::AddTrack(Box::new(announced)));
    }
    world.offer(alice);
    world.run_ms(200);
    assert_eq!(tracks(&world), 0);
    world.publish(alice, "mic", 2_000, &[""], false);
    assert_eq!(tracks(&world), 1);
}
