//! The room door over real sockets, with a scripted engine behind it.

mod support;

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bedside_sfu::core::api::{Command, Event, LeaveReason, ParticipantState, SessionEvent};
use bedside_signaling::rooms::{DoorRefusal, Fact, RoomPlan};
use bedside_signaling::token::VideoGrant;
use livekit_protocol as lk;
use livekit_protocol::signal_request::Message as Said;
use livekit_protocol::signal_response::Message as Tell;
use prost::Message as _;
use support::{House, join_request, resume_request, token, ward, wrap};
use tokio::io::AsyncWriteExt as _;
use tokio_tungstenite::{MaybeTlsStream, tungstenite};

fn reason(reason: lk::DisconnectReason) -> i32 {
    reason as i32
}

const DISCONNECT: i32 = lk::leave_request::Action::Disconnect as i32;
const RESUME: i32 = lk::leave_request::Action::Resume as i32;
const RECONNECT: i32 = lk::leave_request::Action::Reconnect as i32;

#[tokio::test]
async fn two_clients_meet_offer_and_leave() {
    let mut house = House::open().await;
    let (mut ann, join) = house.join("ann").await;
    assert_eq!(join.room.as_ref().unwrap().name, "ward");
    assert_eq!(join.participant.as_ref().unwrap().name, "ANN");
    assert_eq!((join.ping_interval, join.ping_timeout), (5, 15));
    let (mut bob, join) = house.join("bob").await;
    assert_eq!(join.other_participants[0].identity, "ann");
    let Tell::Update(update) = ann.next().await else { panic!() };
    assert_eq!(update.participants[0].identity, "bob");

    let offer = lk::SessionDescription { sdp: "v=0".into(), id: 11, ..Default::default() };
    bob.say(Said::Offer(offer)).await;
    let Tell::Answer(answer) = bob.next().await else { panic!() };
    assert_eq!((answer.id, answer.sdp.as_str()), (11, "answer to v=0"));
    assert_eq!(answer.mid_to_track_id["0"], "TR_AM1");
    bob.say(Said::AddTrack(lk::AddTrackRequest { cid: "c".into(), ..Default::default() })).await;
    let Tell::TrackPublished(published) = bob.next().await else { panic!() };
    assert_eq!((published.cid.as_str(), published.track.unwrap().sid.as_str()), ("c", "TR_VC1"));
    bob.say(Said::PingReq(lk::Ping { timestamp: 5, rtt: 0 })).await;
    let Tell::PongResp(pong) = bob.next().await else { panic!() };
    assert_eq!(pong.last_ping_timestamp, 5);

    bob.say(Said::Leave(lk::LeaveRequest::default())).await;
    let left = (reason(lk::DisconnectReason::ClientInitiated), DISCONNECT, Some(1000));
    assert_eq!(bob.leave().await, left);
    let Some(Fact::RoomStarted { room, .. }) = house.facts.recv().await else { panic!() };
    assert_eq!(room, "ward");
    loop {
        match house.facts.recv().await.unwrap() {
            Fact::Participant { info, .. } if info.profile.identity.reveal() == "bob" => {
                if let ParticipantState::Disconnected(why) = info.state {
                    assert_eq!(why, LeaveReason::ClientInitiated);
                    break;
                }
            }
            _ => {}
        }
    }
    let counters = house.signaling.counters();
    assert_eq!((counters.joins.value(), house.signaling.size()), (2, (1, 1)));
}

#[tokio::test]
async fn what_came_within_the_join_is_answered_after_it() {
    let house = House::open().await;
    let request = lk::JoinRequest {
        add_track_requests: vec![lk::AddTrackRequest { cid: "c".into(), ..Default::default() }],
        publisher_offer: Some(lk::SessionDescription {
            sdp: "v=0".into(),
            id: 1,
            ..Default::default()
        }),
        ..join_request()
    };
    let mut ann = house.connect(&ward("ann"), &request).await.unwrap();
    assert!(matches!(ann.next().await, Tell::Join(_)));
    assert!(matches!(ann.next().await, Tell::RefreshToken(_)));
    assert!(matches!(ann.next().await, Tell::TrackPublished(_)));
    assert!(matches!(ann.next().await, Tell::Answer(_)));
}

#[tokio::test]
async fn who_says_it_in_the_query_has_two_connections() {
    let house = House::open().await;
    let token = ward("ann");
    let query = "protocol=16&sdk=swift&auto_subscribe=0&adaptive_stream=1&client_protocol=1";
    let path = format!("//rtc?access_token={token}&{query}");
    let mut ann = house.connect_at(&path).await.unwrap();
    let Tell::Join(join) = ann.next().await else { panic!() };
    assert!(join.subscriber_primary && join.fast_publish);
    let joins = || {
        let log = house.engine.log().into_iter();
        log.filter_map(|command| match command {
            Command::Join(join) => Some(*join),
            _ => None,
        })
    };
    let asked = joins().next().unwrap();
    assert!(asked.client.two_connections && asked.adaptive_stream && !asked.auto_subscribe);
    assert_eq!(asked.profile.client_protocol, 1);
    // Back with the id of the participant.
    let sid = join.participant.unwrap().sid;
    drop(ann);
    let path = format!("/rtc?access_token={token}&{query}&reconnect=1&sid={sid}");
    let mut again = house.connect_at(&path).await.unwrap();
    assert!(matches!(again.next().await, Tell::Reconnect(_)));
    // A join request makes it one connection by this door too.
    let path = format!("/rtc?access_token={}&join_request={}", ward("bob"), wrap(&join_request()));
    let mut bob = house.connect_at(&path).await.unwrap();
    let Tell::Join(join) = bob.next().await else { panic!() };
    assert!(!join.subscriber_primary);
    assert!(!joins().last().unwrap().client.two_connections);
}

#[tokio::test]
async fn a_query_that_is_too_old_or_unreadable_stays_outside() {
    let house = House::open().await;
    let token = ward("ann");
    for query in ["protocol=8", "", "protocol=16&attributes=%25", "protocol=16&publish=cam"] {
        let path = format!("/rtc?access_token={token}&{query}");
        assert_eq!(house.connect_at(&path).await.map(|_| ()).unwrap_err(), 400, "{query}");
    }
    // Attributes of its own need the right to change them.
    let path = format!("/rtc?access_token={token}&protocol=16&attributes=eyJhIjoiYiJ9");
    assert_eq!(house.connect_at(&path).await.map(|_| ()).unwrap_err(), 401);
    assert!(house.engine.log().is_empty());
}

#[tokio::test]
async fn refusals_have_the_numbers_and_texts_that_clients_classify() {
    let house = House::open().await;
    let join = wrap(&join_request());
    let foreign = {
        let text = r#"{"iss":"nobody","sub":"x","exp":9999999999}"#;
        format!(
            "{}.{}.x",
            URL_SAFE_NO_PAD.encode(r#"{"alg":"HS256"}"#),
            URL_SAFE_NO_PAD.encode(text)
        )
    };
    let (head, _) =
        ward("ann").rsplit_once('.').map(|(a, b)| (a.to_owned(), b.to_owned())).unwrap();
    let cases = [
        (String::new(), 401, "no permissions to access the room"),
        ("access_token=".to_owned(), 401, "no permissions to access the room"),
        ("access_token=garbage".to_owned(), 401, "invalid authorization token"),
        (format!("access_token={foreign}"), 401, "invalid API key"),
        (format!("access_token={head}.AAAA"), 401, "invalid token"),
        (
            format!(
                "access_token={}",
                token("a", VideoGrant { room: "r".into(), ..Default::default() })
            ),
            401,
            "permissions denied",
        ),
        (
            format!("access_token={}", token("", VideoGrant::join("r"))),
            400,
            "identity cannot be empty",
        ),
        (format!("access_token={}", token("a", VideoGrant::join(""))), 400, "no room name"),
    ];
    for (query, status, text) in cases {
        for path in ["/rtc/validate", "/rtc/v1/validate", "//rtc/v1/validate"] {
            let path = format!("{path}?{query}&join_request={join}&whatever=1");
            let (got, head, body) = house.get(&path, "").await;
            assert_eq!((got, body.as_str()), (status, text), "{query}");
            assert!(head.contains("access-control-allow-origin: *"), "{head}");
        }
    }
    let good = ward("ann");
    let (status, _, body) = house.get(&format!("/rtc/v1/validate?access_token={good}"), "").await;
    assert_eq!((status, body.as_str()), (400, "join_request is required"));
    let path = format!("/rtc/v1/validate?access_token={good}&join_request=%00");
    assert_eq!(house.get(&path, "").await.0, 400);
    let path = format!("/rtc/v1/validate?access_token={good}&join_request={join}");
    assert_eq!(house.get(&path, "").await.2, "success");
    let header = format!("authorization: Bearer {good}\r\n");
    assert_eq!(house.get("/rtc/validate", &header).await.2, "success");
    let basic = format!("authorization: Basic {good}\r\n");
    assert_eq!(house.get(&path, &basic).await.0, 401, "a header that is no bearer");
    assert!(house.engine.log().is_empty(), "nothing of this reached the engine");
}

#[tokio::test]
async fn an_upgrade_is_refused_like_its_validation() {
    let house = House::open().await;
    let refused = |error: Result<support::Client, u16>| error.map(|_| ()).unwrap_err();
    assert_eq!(refused(house.connect("garbage", &join_request()).await), 401);
    let old = lk::JoinRequest {
        client_info: Some(lk::ClientInfo { protocol: 8, ..Default::default() }),
        ..join_request()
    };
    assert_eq!(refused(house.connect(&ward("ann"), &old).await), 400);
    let own = lk::JoinRequest { metadata: "mine".into(), ..join_request() };
    assert_eq!(refused(house.connect(&ward("ann"), &own).await), 401);
    let answers = [
        (DoorRefusal::NoRoom, 404, "requested room does not exist"),
        (DoorRefusal::NotAllowed, 403, "permissions denied"),
        (DoorRefusal::Full, 403, "room is full"),
        (DoorRefusal::Draining, 503, "no new rooms are taken now"),
    ];
    for (refusal, status, text) in answers {
        *house.door.answer.lock().unwrap() = Some(Err(refusal));
        assert_eq!(refused(house.connect(&ward("ann"), &join_request()).await), status);
        let query = format!("access_token={}&join_request={}", ward("ann"), wrap(&join_request()));
        let (got, _, body) = house.get(&format!("/rtc/v1/validate?{query}"), "").await;
        assert_eq!((got, body.as_str()), (status, text));
    }
    assert!(house.engine.log().is_empty());
}

#[tokio::test]
async fn a_full_room_is_full_for_validation_too() {
    let house = House::open().await;
    let plan = RoomPlan { max_participants: 1, ..RoomPlan::default() };
    *house.door.answer.lock().unwrap() = Some(Ok(plan));
    let (_ann, _) = house.join("ann").await;
    wait_for(|| house.signaling.size() == (1, 1)).await;
    let bob = ward("bob");
    assert_eq!(house.connect(&bob, &join_request()).await.map(|_| ()).unwrap_err(), 403);
    let (status, _, body) = house.get(&format!("/rtc/validate?access_token={bob}"), "").await;
    assert_eq!((status, body.as_str()), (403, "room is full"));
    let again = house.get(&format!("/rtc/validate?access_token={}", ward("ann")), "").await;
    assert_eq!(again.2, "success");
}

#[tokio::test]
async fn what_is_not_there_is_a_bare_404() {
    let house = House::open().await;
    for path in
        ["/rtc", "//rtc", "/rtc/", "/rtc/v2", "/rtc/v1", "/rtc/v1/whip", "/rtc?access_token=x"]
    {
        let (status, head, body) = house.get(path, "").await;
        assert_eq!((status, body.as_str()), (404, ""), "{path}");
        assert!(head.contains("access-control-allow-origin: *"));
    }
    let upgrade = "connection: upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\nsec-websocket-key: AAAAAAAAAAAAAAAAAAAAAA==\r\n";
    assert_eq!(house.get("/rtc/v2", upgrade).await.0, 404);
    let doors = ["/rtc", "/rtc/v1"].map(|door| house.connect_at(door));
    for refused in futures_util::future::join_all(doors).await {
        assert_eq!(refused.map(|_| ()).unwrap_err(), 401, "these doors are there");
    }
    let long = format!("/rtc/v1/validate?join_request={}", "A".repeat(33 * 1024));
    assert_eq!(house.get(&long, "").await.0, 414);
    let (status, head, _) =
        house.http("OPTIONS", "/rtc/v1/validate", "origin: https://x\r\n").await;
    assert_eq!(status, 204);
    assert!(head.contains("access-control-max-age: 86400") && head.contains("authorization"));
}

#[tokio::test]
async fn where_origins_are_listed_others_stay_outside() {
    let house =
        House::with(|config| config.allowed_origins = vec!["https://clinic.example".into()]).await;
    let path = format!("/rtc/validate?access_token={}", ward("ann"));
    let from = async |origin: &str| house.get(&path, &format!("origin: {origin}\r\n")).await;
    let (status, head, _) = from("https://clinic.example").await;
    assert_eq!(status, 200);
    assert!(head.contains("access-control-allow-origin: https://clinic.example"));
    for origin in [
        "https://clinic.example.evil.example",
        "null",
        "http://clinic.example",
        "https://x.clinic.example",
    ] {
        let (status, head, _) = from(origin).await;
        assert_eq!(status, 403, "{origin}");
        assert!(!head.contains("access-control-allow-origin"));
    }
    assert_eq!(house.get(&path, "").await.0, 200, "SDKs outside of browsers name no origin");
}

#[tokio::test]
async fn a_cut_client_resumes_and_its_old_socket_is_dropped() {
    let house = House::open().await;
    let (mut old, join) = house.join("ann").await;
    let sid = join.participant.unwrap().sid;
    let mut new = house.connect(&ward("ann"), &resume_request(&sid)).await.unwrap();
    let Tell::Reconnect(reconnect) = new.next().await else { panic!() };
    assert_eq!(reconnect.last_message_seq, 3);
    let Tell::Update(update) = new.next().await else { panic!() };
    assert_eq!(update.participants[0].sid, sid);
    assert!(matches!(new.next().await, Tell::RoomUpdate(_)));
    assert!(matches!(new.next().await, Tell::RefreshToken(_)));
    assert_eq!(old.message().await, Err(Some(1000)), "without a leave");
    // The end of the old session does not end the new one.
    new.say(Said::Ping(1)).await;
    assert!(matches!(new.next().await, Tell::Pong(_)));
    let counters = house.signaling.counters();
    assert_eq!((counters.resumes.value(), counters.sessions.value()), (1, 1));
}

#[tokio::test]
async fn an_unknown_participant_or_room_must_join_again() {
    let house = House::open().await;
    let expected = (reason(lk::DisconnectReason::StateMismatch), RECONNECT, Some(1000));
    let mut stray = house.connect(&ward("ann"), &resume_request("PA_1")).await.unwrap();
    assert_eq!(stray.leave().await, expected, "no room");
    let (_bob, _) = house.join("bob").await;
    let mut stray = house.connect(&ward("ann"), &resume_request("PA_gone")).await.unwrap();
    assert_eq!(stray.leave().await, expected, "no participant");
    assert_eq!(house.signaling.counters().resumes_unknown.value(), 2);
}

#[tokio::test]
async fn a_revoked_person_does_not_resume() {
    let house = House::open().await;
    let (_ann, join) = house.join("ann").await;
    let sid = join.participant.unwrap().sid;
    *house.door.answer.lock().unwrap() = Some(Err(DoorRefusal::NotAllowed));
    let mut back = house.connect(&ward("ann"), &resume_request(&sid)).await.unwrap();
    let removed = (reason(lk::DisconnectReason::ParticipantRemoved), DISCONNECT, Some(1000));
    assert_eq!(back.leave().await, removed);
    let resumes = house.engine.log().into_iter().filter(|c| matches!(c, Command::Resume(_)));
    assert_eq!(resumes.count(), 0, "the engine was not even asked");
}

#[tokio::test]
async fn the_same_identity_again_replaces_the_first() {
    let house = House::open().await;
    let (mut first, _) = house.join("ann").await;
    let (_second, join) = house.join("ann").await;
    assert!(join.other_participants.is_empty());
    let replaced = (reason(lk::DisconnectReason::DuplicateIdentity), DISCONNECT, Some(1000));
    assert_eq!(first.leave().await, replaced);
}

#[tokio::test]
async fn a_room_that_closed_under_a_join_is_opened_again() {
    let house = House::open().await;
    let (_ann, join) = house.join("ann").await;
    house.engine.lose_rooms();
    let (_bob, again) = house.join("bob").await;
    assert_ne!(join.room.unwrap().sid, again.room.unwrap().sid);
}

#[tokio::test]
async fn the_owner_of_the_node_removes_and_closes() {
    let house = House::open().await;
    let (mut ann, _) = house.join("ann").await;
    let (mut bob, _) = house.join("bob").await;
    wait_for(|| house.signaling.size() == (1, 2)).await;
    let why = LeaveReason::ParticipantRemoved;
    assert!(!house.signaling.remove("ward", "eve", why));
    assert!(!house.signaling.remove("other", "ann", why));
    assert!(house.signaling.remove("ward", "ann", why));
    let removed = (reason(lk::DisconnectReason::ParticipantRemoved), DISCONNECT, Some(1000));
    assert_eq!(ann.leave().await, removed);
    assert!(!house.signaling.close_room("other", LeaveReason::RoomDeleted));
    assert!(house.signaling.close_room("ward", LeaveReason::RoomDeleted));
    let deleted = (reason(lk::DisconnectReason::RoomDeleted), DISCONNECT, Some(1000));
    assert_eq!(bob.leave().await, deleted);
    wait_for(|| house.signaling.size() == (0, 0)).await;
}

#[tokio::test]
async fn a_draining_server_takes_no_new_rooms_and_a_stopping_one_nobody() {
    let house = House::open().await;
    let (mut ann, _) = house.join("ann").await;
    house.signaling.drain();
    let elsewhere = token("eve", VideoGrant::join("elsewhere"));
    assert_eq!(house.connect(&elsewhere, &join_request()).await.map(|_| ()).unwrap_err(), 503);
    let (_bob, _) = house.join("bob").await;
    house.signaling.shutdown();
    let stopped = (reason(lk::DisconnectReason::ServerShutdown), DISCONNECT, Some(1000));
    assert_eq!(ann.leave().await, stopped);
    assert_eq!(house.connect(&ward("eve"), &join_request()).await.map(|_| ()).unwrap_err(), 503);
}

#[tokio::test]
async fn bad_input_is_counted_and_the_session_goes_on() {
    let house = House::open().await;
    let (mut ann, _) = house.join("ann").await;
    let (mut bob, _) = house.join("bob").await;
    for bytes in [&b"\xff\xff\xff\xff"[..], b"\x0a\x7fabc", b"\xff"] {
        ann.frame(tungstenite::Message::Binary(bytes.to_vec().into())).await;
    }
    ann.frame(tungstenite::Message::Binary(b"\xc2\x3e\x03abc".to_vec().into())).await;
    ann.frame(tungstenite::Message::Text("{\"ping\":1}".into())).await;
    ann.say(Said::Ping(1)).await;
    ann.until(|message| matches!(message, Tell::Pong(_)).then_some(())).await;
    let counters = house.signaling.counters();
    assert_eq!(counters.malformed.value(), 3);
    assert_eq!((counters.unknown.value(), counters.text_frames.value()), (1, 1));
    // Too much of it ends the session, and nobody else's.
    for _ in 0..50 {
        ann.frame(tungstenite::Message::Binary(b"\xff".to_vec().into())).await;
    }
    assert_eq!(ann.leave().await.1, DISCONNECT);
    bob.say(Said::Ping(1)).await;
    bob.until(|message| matches!(message, Tell::Pong(_)).then_some(())).await;
}

#[tokio::test]
async fn a_message_above_the_limit_closes_with_1009() {
    let house = House::open().await;
    let (mut ann, _) = house.join("ann").await;
    let large = vec![0; 1024 * 1024 + 1];
    ann.frame(tungstenite::Message::Binary(large.into())).await;
    assert_eq!(ann.message().await, Err(Some(1009)));
}

#[tokio::test]
async fn frames_against_the_protocol_close_with_its_codes() {
    let house = House::open().await;
    let (mut bob, _) = house.join("bob").await;
    let mask = [0_u8; 4];
    let masked = |first: u8, payload: &[u8]| {
        let length = 0x80 | u8::try_from(payload.len()).unwrap();
        [&[first, length], &mask[..], payload].concat()
    };
    let cases = [
        (vec![0x82, 0x01, 0x00], 1002, "unmasked"),
        (masked(0xc2, b"x"), 1002, "a reserved bit"),
        (masked(0x83, b"x"), 1002, "an opcode that is not there"),
        (masked(0x80, b"x"), 1002, "a continuation of nothing"),
        (masked(0x81, b"\xff\xfe"), 1007, "a text that is none"),
        ([&[0x89, 0xfe, 0, 126], &mask[..], &[0; 126]].concat(), 1002, "a long ping"),
    ];
    for (bytes, code, what) in cases {
        let (mut ann, _) = house.join("ann").await;
        let MaybeTlsStream::Plain(stream) = ann.socket.get_mut() else { panic!() };
        stream.write_all(&bytes).await.unwrap();
        assert_eq!(ann.message().await, Err(Some(code)), "{what}");
    }
    // Announced and never sent: refused by its length alone.
    let (mut ann, _) = house.join("ann").await;
    let MaybeTlsStream::Plain(stream) = ann.socket.get_mut() else { panic!() };
    stream.write_all(&[0x82, 0xff, 0, 0, 0, 0, 4, 0, 0, 0, 0, 0, 0, 0]).await.unwrap();
    assert_eq!(ann.message().await, Err(Some(1009)));
    bob.say(Said::Ping(1)).await;
    bob.until(|message| matches!(message, Tell::Pong(_)).then_some(())).await;
}

#[tokio::test]
async fn a_flood_is_slowed_and_hurts_nobody_else() {
    let house = House::open().await;
    let (mut ann, _) = house.join("ann").await;
    let (mut bob, _) = house.join("bob").await;
    let flood = tokio::spawn(async move {
        for _ in 0..2_000 {
            ann.say(Said::Trickle(lk::TrickleRequest::default())).await;
        }
        ann.say(Said::Ping(1)).await;
        let answer = ann.until(|message| matches!(message, Tell::Pong(_)).then_some(()));
        tokio::time::timeout(Duration::from_secs(2), answer).await.is_ok()
    });
    for _ in 0..20 {
        let asked = std::time::Instant::now();
        bob.say(Said::Ping(1)).await;
        bob.until(|message| matches!(message, Tell::Pong(_)).then_some(())).await;
        assert!(asked.elapsed() < Duration::from_millis(500));
    }
    assert!(!flood.await.unwrap(), "2,000 messages take longer than two seconds");
}

#[tokio::test]
async fn a_client_that_does_not_read_is_cut_and_others_are_not() {
    let house = House::open().await;
    let (mut ann, join) = house.join("ann").await;
    let (mut bob, _) = house.join("bob").await;
    // Ann stops reading; what she is told piles up, first in the kernel, then in her queue.
    let sdp = "x".repeat(100_000);
    let mut told = 0;
    while house.signaling.counters().slow_readers.value() == 0 {
        let event = SessionEvent::Answer { id: 1, sdp: sdp.clone(), mid_to_track: Vec::new() };
        house.engine.to("ann", event);
        told += 1;
        assert!(told < 2_000, "200 MB were taken for a client that does not read");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    bob.say(Said::Ping(1)).await;
    bob.until(|message| matches!(message, Tell::Pong(_)).then_some(())).await;
    wait_for(|| house.signaling.counters().sessions.value() == 1).await;
    // Reading again she learns that she may come back, or finds the connection gone.
    loop {
        match ann.message().await {
            Ok(Tell::Leave(leave)) => {
                assert_eq!(leave.action, RESUME);
                break;
            }
            Ok(_) => {}
            Err(_) => break,
        }
    }
    let sid = join.participant.unwrap().sid;
    let mut back = house.connect(&ward("ann"), &resume_request(&sid)).await.unwrap();
    assert!(matches!(back.next().await, Tell::Reconnect(_)));
}

#[tokio::test]
async fn lost_events_make_the_shards_clients_resume() {
    let mut house = House::open().await;
    let (mut ann, _) = house.join("ann").await;
    house.engine.emit(Event::Resync { shard: 0, shards: 1, rooms: Vec::new() });
    let cut = (reason(lk::DisconnectReason::ConnectionTimeout), RESUME, Some(1000));
    assert_eq!(ann.leave().await, cut);
    loop {
        if let Fact::Snapshot { rooms } = house.facts.recv().await.unwrap() {
            assert!(rooms.is_empty(), "the shard has no rooms any more");
            break;
        }
    }
}

#[tokio::test]
async fn a_busy_node_sends_clients_round_again() {
    let house = House::open().await;
    let (mut bob, _) = house.join("bob").await;
    house.engine.be_busy(true);
    let mut ann = house.connect(&ward("ann"), &join_request()).await.unwrap();
    assert_eq!(
        ann.leave().await,
        (reason(lk::DisconnectReason::JoinFailure), RECONNECT, Some(1000))
    );
    // A request that is lost would stall its client: it resumes.
    bob.say(Said::Mute(lk::MuteTrackRequest::default())).await;
    assert_eq!(bob.leave().await.1, RESUME);
    house.engine.be_busy(false);
    let (_ann, _) = house.join("ann").await;
}

#[tokio::test]
async fn a_silent_engine_is_not_waited_for_longer_than_the_client_waits() {
    let house = House::open().await;
    house.engine.be_silent();
    let asked = std::time::Instant::now();
    let mut ann = house.connect(&ward("ann"), &join_request()).await.unwrap();
    assert_eq!(ann.leave().await.1, RECONNECT);
    assert!(asked.elapsed() < Duration::from_millis(4_900));
}

#[tokio::test]
async fn a_socket_that_goes_without_a_word_is_told_to_the_engine() {
    let house = House::open().await;
    let (ann, _) = house.join("ann").await;
    drop(ann);
    let told = |command: &Command| matches!(command, Command::SessionGone { .. });
    wait_for(|| house.engine.log().iter().any(told)).await;
    let left = |command: &Command| {
        matches!(command, Command::Request { request: bedside_sfu::core::api::Request::Leave, .. })
    };
    assert!(!house.engine.log().iter().any(left), "the participant may come back");
}

#[tokio::test]
async fn the_fresh_token_opens_the_door_again() {
    let house = House::open().await;
    let mut ann = house.connect(&ward("ann"), &join_request()).await.unwrap();
    let fresh = ann.until(|message| match message {
        Tell::RefreshToken(token) => Some(token),
        _ => None,
    });
    let fresh = fresh.await;
    let (status, ..) = house.get(&format!("/rtc/validate?access_token={fresh}"), "").await;
    assert_eq!(status, 200);
    let mut again = house.connect(&fresh, &join_request()).await.unwrap();
    let Tell::Join(join) = again.next().await else { panic!() };
    assert_eq!(join.participant.unwrap().identity, "ann");
}

#[tokio::test]
async fn hidden_is_not_honoured_unless_configured() {
    let listener = || token("spy", VideoGrant { hidden: true, ..VideoGrant::join("ward") });
    for allow_hidden in [false, true] {
        let house = House::with(|config| config.allow_hidden = allow_hidden).await;
        let mut spy = house.connect(&listener(), &join_request()).await.unwrap();
        let Tell::Join(join) = spy.next().await else { panic!() };
        assert_eq!(join.participant.unwrap().permission.unwrap().hidden, allow_hidden);
    }
}

#[tokio::test]
async fn random_frames_never_break_the_door() {
    let house = House::open().await;
    let (mut bob, _) = house.join("bob").await;
    let mut seed = 0x9e37_79b9_7f4a_7c15_u64;
    let mut random = move || {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        seed
    };
    let good = lk::SignalRequest {
        message: Some(Said::SyncState(lk::SyncState {
            publish_tracks: vec![lk::TrackPublishedResponse::default(); 3],
            track_sids_disabled: vec!["TR_1".into()],
            ..Default::default()
        })),
    }
    .encode_to_vec();
    for round in 0..8 {
        let (mut ann, _) = house.join("ann").await;
        for _ in 0..40 {
            let mut bytes = good.clone();
            let at = usize::try_from(random()).unwrap() % bytes.len();
            bytes[at] = random().to_le_bytes()[round % 8];
            ann.frame(tungstenite::Message::Binary(bytes.into())).await;
        }
        ann.say(Said::Ping(1)).await;
        ann.until(|message| matches!(message, Tell::Pong(_)).then_some(())).await;
    }
    bob.say(Said::Ping(1)).await;
    bob.until(|message| matches!(message, Tell::Pong(_)).then_some(())).await;
    assert_eq!(house.engine.log().iter().filter(|c| matches!(c, Command::Join(_))).count(), 9);
}

async fn wait_for(mut there: impl FnMut() -> bool) {
    for _ in 0..500 {
        if there() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("it did not happen within 5 s");
}
