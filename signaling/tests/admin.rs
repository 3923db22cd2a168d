//! Room administration, over HTTP: every call with right, weaker and no grants, in both forms.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test that cannot go on fails")]

mod support;

use bedside_sfu::core::api::{Command, DataChannelKind, LeaveReason};
use bedside_signaling::rooms::{DoorRefusal, RoomPlan};
use bedside_signaling::token::VideoGrant;
use livekit_protocol as lk;
use livekit_protocol::signal_response::Message as Tell;
use prost::Message as _;
use serde_json::{Value, json};
use support::{House, connect, join_request, token, ward};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

fn create() -> VideoGrant {
    VideoGrant { room_create: true, ..VideoGrant::default() }
}

fn list() -> VideoGrant {
    VideoGrant { room_list: true, ..VideoGrant::default() }
}

fn admin(room: &str) -> VideoGrant {
    VideoGrant { room_admin: true, room: room.into(), ..VideoGrant::default() }
}

/// One call; status and body.
async fn raw(house: &House, method: &str, head: &str, body: &[u8]) -> (u16, Vec<u8>) {
    let mut stream = TcpStream::connect(house.address).await.unwrap();
    let head = format!(
        "POST /twirp/livekit.RoomService/{method} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\
         content-length: {}\r\n{head}\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    // A refusal may come before the whole body was read.
    let _refused_early = stream.write_all(body).await;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.unwrap();
    let at = answer.windows(4).position(|four| four == b"\r\n\r\n").unwrap();
    let status = String::from_utf8_lossy(&answer[9..12]).parse().unwrap();
    (status, answer[at + 4..].to_vec())
}

async fn call(house: &House, method: &str, grant: VideoGrant, body: Value) -> (u16, Value) {
    let jwt = token("", grant);
    let head = format!("content-type: application/json\r\nauthorization: Bearer {jwt}\r\n");
    let (status, body) = raw(house, method, &head, body.to_string().as_bytes()).await;
    (status, serde_json::from_slice(&body).unwrap())
}

#[tokio::test]
async fn every_call_keeps_its_grant() {
    let house = House::open().await;
    let (_ann, _) = house.join("ann").await;
    let who = json!({"room": "ward", "identity": "ann"});
    let calls = [
        ("CreateRoom", create(), json!({"name": "ward"})),
        ("ListRooms", list(), json!({})),
        ("ListParticipants", admin("ward"), json!({"room": "ward"})),
        ("GetParticipant", admin("ward"), who.clone()),
        ("UpdateParticipant", admin("ward"), who.clone()),
        ("UpdateSubscriptions", admin("ward"), who.clone()),
        ("SendData", admin("ward"), json!({"room": "ward"})),
        ("UpdateRoomMetadata", admin("ward"), json!({"room": "ward"})),
        ("RemoveParticipant", admin("ward"), who),
        ("DeleteRoom", create(), json!({"room": "ward"})),
    ];
    for (method, right, body) in &calls {
        let weaker = [VideoGrant::join("ward"), admin("other"), create(), list(), admin("ward")];
        for grant in weaker.into_iter().filter(|grant| grant != right) {
            let (status, told) = call(&house, method, grant, body.clone()).await;
            assert_eq!((status, &told["code"]), (403, &"permission_denied".into()), "{method}");
        }
        for head in ["", "authorization: Bearer x.y.z\r\n", "authorization: Basic eDp5\r\n"] {
            let head = format!("content-type: application/json\r\n{head}");
            let (status, told) = raw(&house, method, &head, b"{}").await;
            let told: Value = serde_json::from_slice(&told).unwrap();
            assert_eq!((status, &told["code"]), (401, &"unauthenticated".into()), "{method}");
        }
    }
    assert!(house.engine.log().iter().all(|command| !matches!(command, Command::Remove { .. })));
    for (method, right, body) in calls {
        let (status, told) = call(&house, method, right, body).await;
        assert_eq!(status, 200, "{method}: {told}");
    }
    let counters = house.signaling.counters();
    assert_eq!(counters.admin_refused_token.value(), 30);
    assert_eq!(counters.admin_refused_grant.value(), 40);
    assert_eq!(counters.admin_requests.value(), 80);
}

#[tokio::test]
async fn a_room_is_made_once_changed_and_deleted() {
    let house = House::open().await;
    let made = json!({"name": "ward", "emptyTimeout": 60, "max_participants": 1, "metadata": "m"});
    let (status, first) = call(&house, "CreateRoom", create(), made).await;
    assert_eq!(status, 200);
    assert_eq!((&first["name"], &first["empty_timeout"]), (&"ward".into(), &60.into()));
    assert_eq!((&first["max_participants"], &first["metadata"]), (&1.into(), &"m".into()));
    let (_, again) = call(&house, "CreateRoom", create(), json!({"name": "ward"})).await;
    assert_eq!(again, first, "the same room");
    let (_, rooms) = call(&house, "ListRooms", list(), json!({"names": ["ward", "no"]})).await;
    assert_eq!(rooms["rooms"].as_array().unwrap().len(), 1);
    let (_, none) = call(&house, "ListRooms", list(), json!({"names": ["no"]})).await;
    assert_eq!(none, json!({"rooms": []}));
    let (_ann, join) = house.join("ann").await;
    let refused = connect(house.address, &ward("eve"), &join_request()).await;
    assert_eq!(refused.map(|_| ()).unwrap_err(), 403, "one place only");
    let text = json!({"room": "ward", "metadata": "new"});
    let (_, changed) = call(&house, "UpdateRoomMetadata", admin("ward"), text).await;
    assert_eq!((&changed["metadata"], &changed["num_participants"]), (&"new".into(), &1.into()));
    assert_eq!(changed["sid"], join.room.unwrap().sid);
    let (status, gone) = call(&house, "DeleteRoom", create(), json!({"room": "ward"})).await;
    assert_eq!((status, gone), (200, json!({})));
    assert_eq!(house.signaling.size().0, 0);
    let closed =
        |c: &Command| matches!(c, Command::CloseRoom { reason: LeaveReason::RoomDeleted, .. });
    assert_eq!(house.engine.log().iter().filter(|c| closed(c)).count(), 1);
    let (status, told) = call(&house, "DeleteRoom", create(), json!({"room": "ward"})).await;
    assert_eq!((status, &told["code"]), (404, &"not_found".into()));
}

#[tokio::test]
async fn a_room_that_may_not_be_is_not_made() {
    let house = House::open().await;
    for (refusal, status) in
        [(DoorRefusal::NotAllowed, 403), (DoorRefusal::NoRoom, 404), (DoorRefusal::Draining, 503)]
    {
        *house.door.made.lock().unwrap() = Some(Err(refusal));
        let (got, _) = call(&house, "CreateRoom", create(), json!({"name": "ward"})).await;
        assert_eq!(got, status);
    }
    *house.door.made.lock().unwrap() = None;
    for body in [json!({}), json!({"name": "n".repeat(257)})] {
        assert_eq!(call(&house, "CreateRoom", create(), body).await.0, 400);
    }
    let egress = json!({"name": "ward", "egress": {"tracks": {}}});
    assert_eq!(call(&house, "CreateRoom", create(), egress).await.0, 501);
    assert!(house.engine.log().is_empty());
}

/// Where only administrators make rooms, the tokens of theirs open them, and nothing else.
#[tokio::test]
async fn a_made_room_lets_people_in() {
    let house = House::open().await;
    *house.door.answer.lock().unwrap() = Some(Err(DoorRefusal::NoRoom));
    let ann = ward("ann");
    let join = join_request();
    assert_eq!(connect(house.address, &ann, &join).await.map(|_| ()).unwrap_err(), 404);
    call(&house, "CreateRoom", create(), json!({"name": "ward"})).await;
    assert!(connect(house.address, &ann, &join).await.is_ok());
}

#[tokio::test]
async fn a_fixed_room_keeps_its_settings() {
    let house = House::open().await;
    let plan = RoomPlan { max_participants: 2, fixed: true, ..RoomPlan::default() };
    *house.door.made.lock().unwrap() = Some(Ok(plan));
    let asked = json!({"name": "ward", "maxParticipants": 50, "emptyTimeout": 1, "metadata": "m"});
    for _ in 0..2 {
        let (_, room) = call(&house, "CreateRoom", create(), asked.clone()).await;
        assert_eq!((&room["max_participants"], &room["empty_timeout"]), (&2.into(), &0.into()));
        assert_eq!(room["metadata"], "m");
    }
}

#[tokio::test]
async fn people_are_listed_and_removed() {
    let house = House::open().await;
    let (mut ann, join) = house.join("ann").await;
    let (_bob, _) = house.join("bob").await;
    let (_, told) = call(&house, "ListParticipants", admin("ward"), json!({"room": "ward"})).await;
    let people = told["participants"].as_array().unwrap();
    let mut names: Vec<_> = people.iter().map(|one| one["identity"].as_str().unwrap()).collect();
    names.sort_unstable();
    assert_eq!(names, ["ann", "bob"]);
    let who = json!({"room": "ward", "identity": "ann"});
    let (_, one) = call(&house, "GetParticipant", admin("ward"), who.clone()).await;
    assert_eq!(one["sid"], join.participant.unwrap().sid);
    assert_eq!((&one["name"], &one["state"]), (&"ANN".into(), &"JOINED".into()));
    let (status, _) = call(&house, "RemoveParticipant", admin("ward"), who.clone()).await;
    assert_eq!(status, 200);
    assert_eq!(ann.leave().await.0, lk::DisconnectReason::ParticipantRemoved as i32);
    for method in ["GetParticipant", "RemoveParticipant", "UpdateParticipant"] {
        let (status, told) = call(&house, method, admin("ward"), who.clone()).await;
        assert_eq!((status, &told["code"]), (404, &"not_found".into()), "{method}");
    }
    let nobody = json!({"room": "empty"});
    let (_, told) = call(&house, "ListParticipants", admin("empty"), nobody).await;
    assert_eq!(told, json!({"participants": []}));
}

#[tokio::test]
async fn what_is_too_long_is_refused() {
    let house = House::open().await;
    let (_ann, _) = house.join("ann").await;
    let long = "x".repeat(512 * 1024 + 1);
    let pairs: serde_json::Map<String, Value> =
        (0..70).map(|n| (n.to_string(), Value::String("y".repeat(1_000)))).collect();
    let who = |field: &str, value: Value| json!({"room": "ward", "identity": "ann", field: value});
    for (method, body) in [
        ("UpdateParticipant", who("metadata", long.clone().into())),
        ("UpdateParticipant", who("name", "n".repeat(257).into())),
        ("UpdateParticipant", who("attributes", pairs.into())),
        ("UpdateRoomMetadata", json!({"room": "ward", "metadata": long})),
        ("SendData", json!({"room": "ward", "data": "AAAA".repeat(20_001)})),
        ("SendData", json!({"room": "ward", "nonce": "AAAA"})),
    ] {
        let (status, told) = call(&house, method, admin("ward"), body).await;
        assert_eq!((status, &told["code"]), (400, &"invalid_argument".into()), "{method}");
    }
    let head = format!(
        "content-type: application/json\r\nauthorization: Bearer {}\r\n",
        token("", admin("ward"))
    );
    let (status, _) = raw(&house, "SendData", &head, &vec![b' '; 3 * 1024 * 1024]).await;
    assert_eq!(status, 400);
}

#[tokio::test]
async fn data_is_sent_once_and_in_the_envelope_of_clients() {
    let house = House::open().await;
    let (_ann, _) = house.join("ann").await;
    let asked = lk::SendDataRequest {
        room: "ward".into(),
        data: b"hello".to_vec(),
        kind: lk::data_packet::Kind::Lossy as i32,
        destination_identities: vec!["ann".into()],
        topic: Some("t".into()),
        nonce: vec![7; 16],
        ..lk::SendDataRequest::default()
    };
    let jwt = token("", admin("ward"));
    let head = format!("content-type: application/protobuf\r\nauthorization: Bearer {jwt}\r\n");
    for _ in 0..2 {
        let (status, body) = raw(&house, "SendData", &head, &asked.encode_to_vec()).await;
        assert_eq!((status, body.len()), (200, 0));
    }
    let sent: Vec<_> = house
        .engine
        .log()
        .into_iter()
        .filter_map(|command| match command {
            Command::SendData { channel, payload, to, .. } => Some((channel, payload, to)),
            _ => None,
        })
        .collect();
    let [(DataChannelKind::Lossy, payload, to)] = sent.as_slice() else { panic!("once: {sent:?}") };
    assert_eq!(to[0].reveal(), "ann");
    let packet = lk::DataPacket::decode(&payload[..]).unwrap();
    let Some(lk::data_packet::Value::User(user)) = packet.value else { panic!("a user packet") };
    assert_eq!((user.payload.as_slice(), user.topic.as_deref()), (&b"hello"[..], Some("t")));
    assert_eq!(packet.destination_identities, ["ann"]);
}

#[tokio::test]
async fn what_is_no_call_is_a_bad_route() {
    let house = House::open().await;
    let jwt = token("", admin("ward"));
    let json = format!("content-type: application/json\r\nauthorization: Bearer {jwt}\r\n");
    let text = format!("content-type: text/plain\r\nauthorization: Bearer {jwt}\r\n");
    for (method, head) in [("Create", &json), ("createRoom", &json), ("ListParticipants", &text)] {
        let (status, body) = raw(&house, method, head, b"{}").await;
        let told: Value = serde_json::from_slice(&body).unwrap();
        assert_eq!((status, &told["code"]), (404, &"bad_route".into()), "{method}");
    }
    for path in ["/twirp/livekit.Egress/ListEgress", "/twirp/livekit.RoomService/ListRooms"] {
        let (status, head, body) = house.get(path, "").await;
        assert!(status == 404 && body.contains("bad_route"), "{body}");
        assert!(head.contains("access-control-allow-origin: *"));
    }
    for method in ["ForwardParticipant", "MoveParticipant", "PerformRpc"] {
        let (status, told) = call(&house, method, admin("ward"), json!({})).await;
        assert_eq!((status, &told["code"]), (501, &"unimplemented".into()), "{method}");
        assert_eq!(call(&house, method, list(), json!({})).await.0, 403);
    }
    let (status, body) = raw(&house, "ListParticipants", &json, b"{\"room\":").await;
    assert!(status == 400 && String::from_utf8_lossy(&body).contains("malformed"));
}

#[tokio::test]
async fn a_token_s_configuration_opens_the_room_and_changes_no_open_one() {
    let house = House::open().await;
    let join = |identity: &str, limit: u32| {
        let claims = json!({
            "iss": "devkey", "sub": identity, "exp": 4_000_000_000_u64,
            "video": {"roomJoin": true, "room": "ward"},
            "roomConfig": {"maxParticipants": limit, "metadata": "of the token"},
        });
        support::sign(&claims)
    };
    let mut ann = connect(house.address, &join("ann", 1), &join_request()).await.unwrap();
    let Tell::Join(_) = ann.next().await else { panic!("no join first") };
    let (_, rooms) = call(&house, "ListRooms", list(), json!({})).await;
    assert_eq!(rooms["rooms"][0]["metadata"], "of the token");
    let eve = connect(house.address, &join("eve", 9), &join_request()).await;
    assert_eq!(eve.map(|_| ()).unwrap_err(), 403);
}
