//! The consultation channels over real sockets.

use std::net::SocketAddr;
use std::time::Duration;

use axum::extract::ws::Utf8Bytes;
use axum::http::{Method, StatusCode};
use bedside_sfu::core::api::{Grant, ParticipantSid, Profile};
use bedside_signaling::rooms::Fact;
use bedside_signaling::{LeaveReason, ParticipantInfo, ParticipantState, Stay};
use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream};
use uuid::Uuid;

use crate::Private;
use crate::testing::{
    Database, World, doctor, on_both_databases, path, patient, service, token, token_of,
};
use crate::token::{self, ApiRole, ApiToken};

on_both_databases!(
    both_sides_hear_a_whole_visit,
    chat_reaches_those_inside_in_one_order,
    what_rooms_tell_reaches_the_other_person,
    a_connection_that_stays_away_is_told_as_lost,
    what_was_measured_is_stored_after_the_end,
);

/// A control plane with a socket.
struct Served {
    world: World,
    address: SocketAddr,
}

impl Served {
    async fn new(database: Database) -> Self {
        Self::from(World::new(database).await).await
    }

    async fn from(world: World) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("an address");
        let router = world.plane.router();
        tokio::spawn(async move { axum::serve(listener, router).await });
        Self { world, address }
    }

    async fn open(&self, path: &str) -> Client {
        let url = format!("ws://{}{path}", self.address);
        let (socket, _) = tokio_tungstenite::connect_async(url).await.expect("an upgrade");
        Client { socket }
    }

    /// A channel of a consultation, past `READY`.
    async fn channel(&self, id: Uuid, token: &str) -> Client {
        let mut client = self.open(&path(id, "/channel")).await;
        client.send(json!({"type": "AUTH", "payload": {"token": token}})).await;
        let ready = client.next_of("READY").await;
        assert_eq!(ready["sessionId"], id.to_string());
        client
    }

    async fn post(&self, id: Uuid, rest: &str, token: &str, body: Value) -> StatusCode {
        self.world.post(&path(id, rest), token, body).await.0
    }

    /// A visit with the patient let in.
    async fn visit(&self) -> Uuid {
        let id = self.world.session().await;
        self.post(id, "/join", &patient(), Value::Null).await;
        self.post(id, "/join", &doctor(), Value::Null).await;
        let admitted = self.post(id, "/admit", &doctor(), json!({"userId": "pat"})).await;
        assert_eq!(admitted, StatusCode::OK);
        id
    }
}

struct Client {
    socket: WebSocketStream<MaybeTlsStream<TcpStream>>,
}

impl Client {
    async fn send(&mut self, frame: Value) {
        self.send_raw(Message::text(frame.to_string())).await;
    }

    async fn send_raw(&mut self, message: Message) {
        self.socket.send(message).await.expect("it is open");
    }

    /// The next frame: its type and payload.
    async fn next(&mut self) -> (String, Value) {
        loop {
            let next = tokio::time::timeout(Duration::from_secs(5), self.socket.next()).await;
            match next.expect("a frame in time").expect("it is open").expect("no error") {
                Message::Text(text) => {
                    let frame: Value = serde_json::from_str(&text).expect("JSON");
                    let kind = frame["type"].as_str().expect("a type").to_owned();
                    return (kind, frame["payload"].clone());
                }
                Message::Ping(_) | Message::Pong(_) => {}
                other => panic!("unexpected {other:?}"),
            }
        }
    }

    /// The next frame of a type; others on the way are skipped.
    async fn next_of(&mut self, kind: &str) -> Value {
        loop {
            let (found, payload) = self.next().await;
            if found == kind {
                return payload;
            }
            assert_ne!(found, "ERROR", "{payload}");
        }
    }

    /// The next message that somebody wrote.
    async fn next_said(&mut self) -> Value {
        loop {
            let message = self.next_of("CHAT_MESSAGE").await;
            if message["messageType"] != "system" {
                return message;
            }
        }
    }

    /// Nothing of this type comes any more before the answer to a ping.
    async fn hears_no(&mut self, kind: &str) {
        self.send(json!({"type": "PING"})).await;
        loop {
            let (found, payload) = self.next().await;
            assert_ne!(found, kind, "{payload}");
            if found == "PONG" {
                return;
            }
        }
    }

    /// The code that the server closes with.
    async fn closed(&mut self) -> u16 {
        loop {
            let next = tokio::time::timeout(Duration::from_secs(8), self.socket.next()).await;
            match next.expect("an end in time") {
                Some(Ok(Message::Close(frame))) => return frame.expect("a code").code.into(),
                Some(Ok(_)) => {}
                other => panic!("no goodbye: {other:?}"),
            }
        }
    }

    async fn say(&mut self, text: &str, client_id: &str) {
        let payload = json!({"content": text, "messageType": "text", "clientId": client_id});
        self.send(json!({"type": "CHAT_MESSAGE", "payload": payload})).await;
    }
}

async fn both_sides_hear_a_whole_visit(database: Database) {
    let served = Served::new(database).await;
    let id = served.world.session().await;
    let mut list = served.open("/api/v1/consultations/channel").await;
    list.send(json!({"type": "AUTH", "payload": {"token": doctor()}})).await;
    list.next_of("READY").await;
    let sessions = list.next_of("SESSIONS").await;
    assert_eq!(sessions["items"][0]["sessionId"], id.to_string());

    let mut pat = served.channel(id, &patient()).await;
    served.post(id, "/join", &patient(), Value::Null).await;
    assert_eq!(pat.next_of("WAITING").await["position"], 1);
    let changed = list.next_of("SESSION_CHANGED").await;
    assert_eq!(changed["session"]["waiting"][0]["userId"], "pat");
    let mut doc = served.channel(id, &doctor()).await;
    let status = doc.next_of("SESSION_STATUS").await;
    assert_eq!(status["status"], "WAITING");
    assert_eq!(
        status["participants"][0],
        json!({
            "userId": "pat", "name": "Ms. Lindqvist", "role": "patient", "status": "waiting",
        })
    );
    served.post(id, "/join", &doctor(), Value::Null).await;
    served.post(id, "/admit", &doctor(), json!({"userId": "pat"})).await;
    pat.next_of("ADMITTED").await;
    let status = pat.next_of("SESSION_STATUS").await;
    assert_eq!(status["status"], "IN_PROGRESS");
    // A reload in between: the admission is told again until the person is in the room.
    drop(pat);
    let mut pat = served.channel(id, &patient()).await;
    pat.next_of("ADMITTED").await;
    served.post(id, "/send-back", &doctor(), json!({"userId": "pat"})).await;
    pat.next_of("SENT_BACK").await;
    assert_eq!(pat.next_of("WAITING").await["position"], 1);
    served.post(id, "/admit", &doctor(), json!({"userId": "pat"})).await;
    pat.next_of("ADMITTED").await;
    served.post(id, "/end", &doctor(), Value::Null).await;
    for client in [&mut pat, &mut doc] {
        loop {
            let status = client.next_of("SESSION_STATUS").await;
            if status["status"] == "COMPLETED" {
                break;
            }
        }
    }
    loop {
        if list.next_of("SESSION_CHANGED").await["session"]["status"] == "COMPLETED" {
            break;
        }
    }
}

async fn chat_reaches_those_inside_in_one_order(database: Database) {
    let served = Served::new(database).await;
    let id = served.visit().await;
    let mut pat = served.channel(id, &patient()).await;
    let mut doc = served.channel(id, &doctor()).await;
    let mut outside = served.channel(id, &service()).await;
    for number in 0..20 {
        pat.say(&format!("p{number}"), &format!("c{number}")).await;
        doc.say(&format!("d{number}"), &format!("c{number}")).await;
    }
    let mut heard = Vec::new();
    for client in [&mut pat, &mut doc, &mut outside] {
        let mut messages = Vec::new();
        for _ in 0..40 {
            let message = client.next_said().await;
            assert!(message["messageId"].is_string() && message["timestamp"].is_string());
            assert_eq!(message["sessionId"], id.to_string());
            messages.push((message["messageId"].clone(), message["content"].clone()));
        }
        heard.push(messages);
    }
    assert_eq!(heard[0], heard[1]);
    assert_eq!(heard[0], heard[2]);
    let (_, history) = served.world.get(&path(id, "/chat?limit=200"), &patient()).await;
    let stored: Vec<_> = history["items"]
        .as_array()
        .expect("messages")
        .iter()
        .filter(|m| m["messageType"] != "system")
        .map(|m| (m["messageId"].clone(), m["content"].clone()))
        .collect();
    assert_eq!(stored, heard[0], "what was heard is what is there after a reload");
    // The same message again, from another device: only its sender hears of it.
    let mut second = served.channel(id, &patient()).await;
    second.say("p0", "c0").await;
    let again = second.next_of("CHAT_MESSAGE").await;
    assert_eq!(again["content"], "p0");
    assert_eq!(
        history["items"]
            .as_array()
            .unwrap()
            .iter()
            .filter(|m| m["messageId"] == again["messageId"])
            .count(),
        1
    );
    pat.hears_no("CHAT_MESSAGE").await;
    assert_eq!(served.world.plane.counters().chat_messages.value(), 40);
}

fn fact(room: &str, identity: &str, state: ParticipantState) -> Fact {
    let profile = Profile { identity: Private::new(identity.to_owned()), ..Profile::default() };
    let info = ParticipantInfo {
        sid: ParticipantSid("PA_x".into()),
        profile: std::sync::Arc::new(profile),
        grant: Grant::default(),
        state,
        tracks: Vec::new(),
        data_tracks: Vec::new(),
        joined_at_ms: 0,
        version: 1,
    };
    Fact::Participant { room: room.to_owned(), info }
}

async fn what_rooms_tell_reaches_the_other_person(database: Database) {
    let served = Served::new(database).await;
    let id = served.visit().await;
    let (_, session) = served.world.get(&path(id, ""), &doctor()).await;
    let room = session["roomName"].as_str().expect("a room").to_owned();
    let (tell, facts) = tokio::sync::mpsc::channel(16);
    tokio::spawn(served.world.plane.clone().run(facts));
    let mut doc = served.channel(id, &doctor()).await;
    let mut pat = served.channel(id, &patient()).await;
    let reach = |reachable: bool| Fact::Reachable {
        room: room.clone(),
        identity: Private::new("pat".to_owned()),
        reachable,
    };
    let gone = |reason| fact(&room, "pat", ParticipantState::Disconnected(reason));
    let told = [
        (fact(&room, "pat", ParticipantState::Joined), None),
        (fact(&room, "pat", ParticipantState::Active), Some("CONNECTED")),
        (fact(&room, "stranger", ParticipantState::Active), None),
        (reach(false), Some("RECONNECTING")),
        (reach(true), Some("CONNECTED")),
        // Only the signal session is back: nothing is to be heard yet.
        (reach(false), Some("RECONNECTING")),
        (fact(&room, "pat", ParticipantState::Active), None),
        (gone(LeaveReason::DuplicateIdentity), None),
        (gone(LeaveReason::ClientInitiated), Some("LEFT")),
        (fact(&room, "pat", ParticipantState::Active), Some("CONNECTED")),
        // Gone without a word: perhaps it comes back.
        (Fact::Snapshot { rooms: Vec::new() }, Some("RECONNECTING")),
        (fact("consultation-none", "pat", ParticipantState::Active), None),
        (fact(&room, "pat", ParticipantState::Active), Some("CONNECTED")),
        (gone(LeaveReason::ConnectionTimeout), Some("RECONNECTING")),
        (fact(&room, "pat", ParticipantState::Active), Some("CONNECTED")),
        (
            Fact::RoomFinished { room: room.clone(), reason: LeaveReason::RoomClosed },
            Some("RECONNECTING"),
        ),
    ];
    for (fact, expected) in told {
        tell.send(fact).await.expect("it listens");
        let Some(expected) = expected else { continue };
        for client in [&mut doc, &mut pat] {
            let status = client.next_of("PARTICIPANT_STATUS").await;
            assert_eq!(status, json!({"participantId": "pat", "status": expected}));
        }
    }
    doc.hears_no("PARTICIPANT_STATUS").await;
    // It is stored too, and came back once; the rest was one stay with gaps.
    drop(tell);
    let late = tokio::time::Instant::now() + Duration::from_secs(60);
    loop {
        let stored = served.world.plane.control.db.session("demo", id).await.expect("reads");
        let person = stored.as_ref().and_then(|s| s.person("pat")).expect("the patient").clone();
        let found = (person.presence.as_str(), person.rejoin_count);
        if found == ("reconnecting", 1) {
            break;
        }
        assert!(tokio::time::Instant::now() < late, "{found:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn a_connection_that_stays_away_is_told_as_lost(database: Database) {
    let quick = |config: &mut crate::ControlConfig| {
        config.timers.reconnect_timeout = Duration::from_secs(120);
    };
    let served = Served::from(World::with(database, quick).await).await;
    let id = served.visit().await;
    let (_, session) = served.world.get(&path(id, ""), &doctor()).await;
    let room = session["roomName"].as_str().expect("a room").to_owned();
    let control = &served.world.plane.control;
    let mut doc = served.channel(id, &doctor()).await;
    control.hear(fact(&room, "pat", ParticipantState::Active));
    control.hear(fact(&room, "pat", ParticipantState::Disconnected(LeaveReason::MediaFailure)));
    for expected in ["CONNECTED", "RECONNECTING"] {
        assert_eq!(doc.next_of("PARTICIPANT_STATUS").await["status"], expected);
    }
    // Each new presence is an attempt, told how often it may be; the fourth is one too many.
    for presence in 0..4 {
        let Fact::Participant { room, mut info } = fact(&room, "pat", ParticipantState::Joined)
        else {
            panic!("a participant")
        };
        info.sid = ParticipantSid(format!("PA_{presence}").into());
        for _ in 0..3 {
            control.hear(Fact::Participant { room: room.clone(), info: info.clone() });
        }
    }
    let attempts = async {
        loop {
            let (_, events) = served.world.get(&path(id, "/events"), &doctor()).await;
            let attempt = json!("participant.reconnect_attempt");
            let items = events["items"].as_array().expect("items");
            let seen = items.iter().filter(|item| item["eventType"] == attempt).count();
            if seen == 4 {
                break;
            }
            assert!(seen < 4, "a presence is one attempt");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), attempts).await.expect("stored in time");
    control.ring_own(crate::store::now()).await;
    assert_eq!(doc.next_of("PARTICIPANT_STATUS").await["status"], "CONNECTION_LOST");
    let (_, session) = served.world.get(&path(id, ""), &doctor()).await;
    let pat = &session["participants"][0];
    assert_eq!((&pat["status"], &pat["connectionLost"]), (&json!("left"), &json!(true)));
    // It comes back by itself, with its place and its rights.
    assert_eq!(served.post(id, "/join", &patient(), Value::Null).await, StatusCode::OK);
    control.hear(fact(&room, "pat", ParticipantState::Active));
    for expected in ["ADMITTED", "CONNECTED"] {
        assert_eq!(doc.next_of("PARTICIPANT_STATUS").await["status"], expected);
    }
}

async fn what_was_measured_is_stored_after_the_end(database: Database) {
    let served = Served::new(database).await;
    let id = served.visit().await;
    let (_, session) = served.world.get(&path(id, ""), &doctor()).await;
    let room = session["roomName"].as_str().expect("a room").to_owned();
    let control = &served.world.plane.control;
    assert_eq!(served.post(id, "/end", &doctor(), Value::Null).await, StatusCode::OK);
    // The line about the end is written first.
    control.chat.flush().await;
    assert!(control.live.find(id).is_none(), "nobody has it in memory");
    let stay = Stay {
        seconds: 60,
        score: 3.5,
        lost_percent: Some(1.25),
        video_bps: Some(800_000),
        audio_level: Some(0.5),
    };
    for identity in ["pat", "stranger"] {
        let identity = Private::new(identity.to_owned());
        control.hear(Fact::Measured { room: room.clone(), identity, stay: stay.clone() });
    }
    let details = async {
        loop {
            let (_, session) = served.world.get(&path(id, ""), &doctor()).await;
            let details = session["participants"][0]["details"].clone();
            if details["connectionQuality"] == "good" {
                break details;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let details = tokio::time::timeout(Duration::from_secs(10), details).await.expect("stored");
    assert_eq!(details["packetLossPercent"], json!(1.25));
    assert_eq!(
        (&details["avgVideoBitrate"], &details["avgAudioLevel"]),
        (&json!(800_000), &json!(0.5))
    );
    let (_, seen) = served.world.get(&path(id, ""), &patient()).await;
    assert_eq!(seen["participants"][0]["details"], Value::Null, "patients see nobody's details");
}

#[tokio::test]
async fn facts_take_effect_without_the_database_and_are_stored_later() {
    let served = Served::new(Database::sqlite()).await;
    let id = served.visit().await;
    let (_, session) = served.world.get(&path(id, ""), &doctor()).await;
    let room = session["roomName"].as_str().expect("a room").to_owned();
    let control = &served.world.plane.control;
    let mut doc = served.channel(id, &doctor()).await;
    // Somebody holds the only writer.
    let writer = control.db.begin().await.expect("the writer");
    control.hear(fact(&room, "pat", ParticipantState::Active));
    let status = doc.next_of("PARTICIPANT_STATUS").await;
    assert_eq!(status["status"], "CONNECTED");
    drop(writer);
    control.retry_unsaved().await;
    let stored = control.db.session("demo", id).await.expect("reads").expect("there");
    assert_eq!(stored.person("pat").map(|p| p.presence.as_str()), Some("connected"));
}

#[tokio::test]
async fn a_page_that_goes_leaves_the_queue_and_keeps_its_place() {
    let served = Served::new(Database::sqlite()).await;
    let id = served.world.session_for(3).await;
    let mut doc = served.channel(id, &doctor()).await;
    let pat = served.channel(id, &patient()).await;
    served.post(id, "/join", &patient(), Value::Null).await;
    served.post(id, "/join", &service(), json!({"userId": "aunt"})).await;
    assert_eq!(doc.next_of("PARTICIPANT_STATUS").await["participantId"], "pat");
    assert_eq!(doc.next_of("PARTICIPANT_STATUS").await["participantId"], "aunt");
    drop(pat);
    let left = doc.next_of("PARTICIPANT_STATUS").await;
    assert_eq!(left, json!({"participantId": "pat", "status": "LEFT"}));
    let mut pat = served.channel(id, &patient()).await;
    assert_eq!(pat.next_of("WAITING").await["position"], 1, "before the aunt, as it was");
    let back = doc.next_of("PARTICIPANT_STATUS").await;
    assert_eq!(back, json!({"participantId": "pat", "status": "WAITING"}));
    // A reload within the grace is not noticed by anybody.
    drop(pat);
    let pat = served.channel(id, &patient()).await;
    tokio::time::sleep(Duration::from_millis(400)).await;
    doc.hears_no("PARTICIPANT_STATUS").await;
    drop(pat);
}

#[tokio::test]
async fn only_who_may_gets_in() {
    let served = Served::new(Database::sqlite()).await;
    let id = served.world.session().await;
    let refused = [
        (patient(), Uuid::new_v4(), 4403, "not_found"),
        (token_of(ApiRole::Patient, "pat", "south"), id, 4403, "not_found"),
        (token(ApiRole::Patient, "other"), id, 4403, "forbidden"),
        (token(ApiRole::Doctor, "other"), id, 4403, "forbidden"),
        ("nonsense".to_owned(), id, 4401, "unauthorized"),
    ];
    for (token, id, code, error) in refused {
        let mut client = served.open(&path(id, "/channel")).await;
        client.send(json!({"type": "AUTH", "payload": {"token": token}})).await;
        let (kind, payload) = client.next().await;
        assert_eq!((kind.as_str(), &payload["code"]), ("ERROR", &json!(error)));
        assert_eq!(client.closed().await, code);
    }
    let mut list = served.open("/api/v1/consultations/channel").await;
    list.send(json!({"type": "AUTH", "payload": {"token": patient()}})).await;
    assert_eq!(list.next().await.1["code"], "forbidden");
    assert_eq!(list.closed().await, 4403);
    // The first frame must be AUTH, and must come.
    for first in [
        Message::text(r#"{"type":"PING"}"#),
        Message::text("nonsense"),
        Message::binary(vec![0, 1, 2]),
    ] {
        let mut client = served.open(&path(id, "/channel")).await;
        client.send_raw(first).await;
        assert_eq!(client.closed().await, 4401);
    }
    let mut silent = served.open(&path(id, "/channel")).await;
    let before = std::time::Instant::now();
    assert_eq!(silent.closed().await, 4401);
    assert!((4..7).contains(&before.elapsed().as_secs()));
}

#[tokio::test]
async fn a_channel_ends_with_its_token_and_with_its_link() {
    let served = Served::new(Database::sqlite()).await;
    let id = served.world.session().await;
    let short = ApiToken {
        user_id: "pat".to_owned(),
        name: None,
        role: ApiRole::Patient,
        clinic: "demo".to_owned(),
        session: None,
        link: None,
        expires_at: chrono::Utc::now() + chrono::Duration::seconds(2),
    };
    let short = token::issue(&crate::testing::keys()[0], &short);
    let mut client = served.channel(id, &short).await;
    assert_eq!(client.closed().await, 4401);

    let body = json!({"userId": "pat", "role": "patient"});
    let (_, made) = served.world.post(&path(id, "/links"), &service(), body).await;
    let secret = made["link"].as_str().and_then(|url| url.split_once('#')).expect("a link").1;
    let body = json!({"link": secret});
    let exchange = "/api/v1/links/exchange";
    let (_, exchanged) = served.world.call(Method::POST, exchange, None, body).await;
    let mut client = served.channel(id, exchanged["token"].as_str().expect("a token")).await;
    let revoke = format!("/api/v1/links/{}", made["linkId"].as_str().expect("an id"));
    served.world.call(Method::DELETE, &revoke, Some(&service()), Value::Null).await;
    assert_eq!(client.closed().await, 4403);
}

#[tokio::test]
async fn hostile_frames_get_errors_and_then_the_end() {
    let served = Served::new(Database::sqlite()).await;
    let id = served.visit().await;
    let mut doc = served.channel(id, &doctor()).await;
    let mut pat = served.channel(id, &patient()).await;
    for bad in ["{", r#"{"type":"CHAT_MESSAGE"}"#] {
        pat.send_raw(Message::text(bad)).await;
    }
    for _ in 0..2 {
        loop {
            let (kind, payload) = pat.next().await;
            if kind == "ERROR" {
                assert_eq!(payload["code"], "bad_frame");
                break;
            }
        }
    }
    // Refused messages are no strikes: they fit the protocol.
    for number in 0..5 {
        pat.say("", &format!("empty{number}")).await;
        let (kind, payload) = pat.next().await;
        assert_eq!((kind.as_str(), &payload["code"]), ("ERROR", &json!("bad_message")));
        assert_eq!(payload["clientId"], format!("empty{number}"));
    }
    pat.send_raw(Message::binary(vec![0xff; 100])).await;
    assert_eq!(pat.closed().await, 1008);

    let mut pat = served.channel(id, &patient()).await;
    pat.send_raw(Message::text("x".repeat(64 * 1024 + 1))).await;
    assert_eq!(pat.closed().await, 1009);

    let mut pat = served.channel(id, &patient()).await;
    for number in 0..20 {
        pat.say("hello", &format!("n{number}")).await;
    }
    for _ in 0..1_000 {
        pat.send(json!({"type": "PING"})).await;
    }
    loop {
        let (kind, payload) = pat.next().await;
        if kind == "ERROR" {
            assert_eq!(payload["code"], "rate_limited");
            break;
        }
    }
    // What was taken is not lost, and the other side is well.
    served.world.plane.control.chat.flush().await;
    assert_eq!(served.world.plane.counters().chat_messages.value(), 20);
    for _ in 0..20 {
        doc.next_said().await;
    }
}

#[tokio::test]
async fn a_client_that_does_not_read_is_cut_and_nobody_waits_for_it() {
    let served = Served::new(Database::sqlite()).await;
    let id = served.visit().await;
    let stuck = served.channel(id, &doctor()).await;
    let mut doc = served.channel(id, &doctor()).await;
    let control = &served.world.plane.control;
    let frame: Utf8Bytes = json!({"type": "BIG", "payload": "x".repeat(60_000)}).to_string().into();
    let live = control.live.find(id).expect("it is live");
    let consultation = live.consultation().expect("it is known");
    // However slow the machine is: the one who reads is never far behind.
    for number in 0..3_000 {
        live.tell_message(&consultation, Some(1_000 + number), &frame);
        if number % 50 == 49 {
            for _ in 0..50 {
                doc.next_of("BIG").await;
            }
        }
    }
    let late = tokio::time::Instant::now() + Duration::from_secs(60);
    while control.counters.slow_channels.value() == 0 {
        assert!(tokio::time::Instant::now() < late, "the one who does not read is not cut");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(control.counters.slow_channels.value(), 1);
    drop(stuck);
}

#[tokio::test]
async fn foreign_pages_are_refused_where_origins_are_named() {
    let world = World::with(Database::sqlite(), |config| {
        config.allowed_origins = vec!["https://clinic.example".to_owned()];
    });
    let served = Served::from(world.await).await;
    let id = served.world.session().await;
    let open = |origin: Option<&'static str>| {
        let url = format!("ws://{}{}", served.address, path(id, "/channel"));
        async move {
            let mut request = url.into_client_request().expect("a request");
            if let Some(origin) = origin {
                request.headers_mut().insert("origin", origin.parse().expect("a header"));
            }
            tokio_tungstenite::connect_async(request).await.is_ok()
        }
    };
    assert!(open(Some("https://clinic.example")).await);
    for foreign in [
        None,
        Some("null"),
        Some("https://evil.example"),
        Some("https://clinic.example.evil.example"),
        Some("HTTPS://CLINIC.EXAMPLE"),
        Some("http://clinic.example"),
    ] {
        assert!(!open(foreign).await, "{foreign:?}");
    }
}
