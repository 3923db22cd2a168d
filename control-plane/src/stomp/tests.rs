//! The STOMP door over real sockets.

use std::net::SocketAddr;
use std::time::Duration;

use axum::http::StatusCode;
use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream};
use uuid::Uuid;

use crate::testing::{
    Database, World, doctor, on_both_databases, path, patient, service, token, token_of,
};
use crate::token::ApiRole;

on_both_databases!(two_stomp_clients_chat_and_hear_each_other, what_was_missed_is_told_again);

struct Served {
    world: World,
    address: SocketAddr,
}

impl Served {
    async fn new(database: Database) -> Self {
        let world = World::new(database).await;
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("an address");
        let router = world.plane.router();
        tokio::spawn(async move { axum::serve(listener, router).await });
        Self { world, address }
    }

    async fn open(&self, path: &str) -> Stomp {
        let url = format!("ws://{}{path}", self.address);
        let mut request = url.into_client_request().expect("a request");
        let offered = "v12.stomp, v11.stomp".parse().expect("a header");
        if !path.contains("/srv/") {
            request.headers_mut().insert("sec-websocket-protocol", offered);
        }
        let (socket, answer) = tokio_tungstenite::connect_async(request).await.expect("an upgrade");
        let chosen = answer.headers().get("sec-websocket-protocol");
        assert_eq!(chosen.is_some(), !path.contains("/srv/"));
        Stomp { socket, wrapped: path.contains("/srv/") }
    }

    async fn connected(&self, path: &str, token: &str) -> Stomp {
        let mut client = self.open(path).await;
        if client.wrapped {
            assert_eq!(client.raw().await, "o");
        }
        let bearer = format!("Bearer {token}");
        let headers = [("accept-version", "1.2"), ("Authorization", &bearer), ("host", "x")];
        client.send("CONNECT", &headers, "").await;
        let (command, headers, _) = client.next().await;
        assert_eq!((command.as_str(), header(&headers, "version")), ("CONNECTED", "1.2"));
        client
    }

    async fn visit(&self) -> Uuid {
        let id = self.world.session().await;
        self.world.post(&path(id, "/join"), &patient(), Value::Null).await;
        let admit = json!({"userId": "pat"});
        let (status, _) = self.world.post(&path(id, "/admit"), &doctor(), admit).await;
        assert_eq!(status, StatusCode::OK);
        id
    }
}

type Told = (String, Vec<(String, String)>, String);

fn header<'a>(headers: &'a [(String, String)], name: &str) -> &'a str {
    headers.iter().find(|(known, _)| known == name).map_or("", |(_, value)| value.as_str())
}

struct Stomp {
    socket: WebSocketStream<MaybeTlsStream<TcpStream>>,
    wrapped: bool,
}

impl Stomp {
    async fn put(&mut self, text: &str) {
        let text = if self.wrapped { json!([text]).to_string() } else { text.to_owned() };
        self.socket.send(Message::text(text)).await.expect("it is open");
    }

    async fn send(&mut self, command: &str, headers: &[(&str, &str)], body: &str) {
        let lines: String =
            headers.iter().map(|(name, value)| format!("{name}:{value}\n")).collect();
        self.put(&format!("{command}\n{lines}\n{body}\0")).await;
    }

    async fn subscribe(&mut self, id: &str, destination: &str) {
        let headers = [("id", id), ("destination", destination), ("receipt", id)];
        self.send("SUBSCRIBE", &headers, "").await;
    }

    async fn topic(&mut self, session: Uuid) {
        self.subscribe("topic", &format!("/topic/session.{session}")).await;
        while self.next().await.0 != "RECEIPT" {}
    }

    async fn say(&mut self, session: Uuid, text: &str, client_id: &str) {
        let payload = json!({"sessionId": session, "content": text, "messageType": "text",
            "clientId": client_id});
        let body = json!({"type": "CHAT_MESSAGE", "payload": payload}).to_string();
        let headers = [("destination", "/app/chat.send"), ("receipt", client_id)];
        self.send("SEND", &headers, &body).await;
    }

    async fn raw(&mut self) -> String {
        loop {
            let next = tokio::time::timeout(Duration::from_secs(10), self.socket.next()).await;
            match next.expect("a frame in time").expect("it is open").expect("no error") {
                Message::Text(text) => return text.to_string(),
                Message::Ping(_) | Message::Pong(_) => {}
                other => panic!("unexpected {other:?}"),
            }
        }
    }

    /// The next frame: command, headers, body.
    async fn next(&mut self) -> Told {
        loop {
            let mut text = self.raw().await;
            if self.wrapped {
                if text == "h" {
                    continue;
                }
                let list = text.strip_prefix('a').expect("a message");
                let mut list: Vec<String> = serde_json::from_str(list).expect("a list");
                text = list.remove(0);
            }
            if text == "\n" {
                continue;
            }
            let text = text.strip_suffix('\0').expect("an end");
            let (head, body) = text.split_once("\n\n").expect("an empty line");
            let mut lines = head.lines();
            let command = lines.next().expect("a command").to_owned();
            let pair = |line: &str| {
                let (name, value) = line.split_once(':').expect("a header");
                (name.to_owned(), value.to_owned())
            };
            return (command, lines.map(pair).collect(), body.to_owned());
        }
    }

    /// The next message of a type: its payload. Receipts and others on the way are skipped.
    async fn next_of(&mut self, kind: &str) -> Value {
        loop {
            let (command, _, body) = self.next().await;
            assert_ne!(command, "ERROR", "{body}");
            let Ok(frame) = serde_json::from_str::<Value>(&body) else { continue };
            if frame["type"] == kind && frame["payload"]["messageType"] != "system" {
                return frame["payload"].clone();
            }
        }
    }

    async fn ended(&mut self) -> (Told, u16) {
        let mut last = (String::new(), Vec::new(), String::new());
        loop {
            let next = tokio::time::timeout(Duration::from_secs(10), self.socket.next()).await;
            match next.expect("an end in time") {
                Some(Ok(Message::Close(frame))) => {
                    return (last, frame.expect("a code").code.into());
                }
                Some(Ok(Message::Text(text))) if text.starts_with("ERROR") => {
                    let (head, body) = text.split_once("\n\n").expect("an empty line");
                    let headers = head.lines().skip(1).filter_map(|line| line.split_once(':'));
                    let headers = headers.map(|(n, v)| (n.to_owned(), v.to_owned())).collect();
                    last = ("ERROR".to_owned(), headers, body.trim_end_matches('\0').to_owned());
                }
                Some(Ok(_)) => {}
                other => panic!("no goodbye: {other:?}"),
            }
        }
    }
}

async fn two_stomp_clients_chat_and_hear_each_other(database: Database) {
    let served = Served::new(database).await;
    let id = served.visit().await;
    let mut pat = served.connected("/ws/consultation/websocket", &patient()).await;
    let mut doc = served.connected("/ws/consultation/123/srv/websocket", &doctor()).await;
    pat.topic(id).await;
    doc.topic(id).await;
    for number in 0..10 {
        pat.say(id, &format!("p{number}"), &format!("p{number}")).await;
        doc.say(id, &format!("d{number}"), &format!("d{number}")).await;
    }
    let mut heard = Vec::new();
    for client in [&mut pat, &mut doc] {
        let mut contents = Vec::new();
        for _ in 0..20 {
            let message = client.next_of("CHAT_MESSAGE").await;
            assert_eq!(message["sessionId"], id.to_string());
            contents.push((message["content"].clone(), message["messageId"].clone()));
        }
        heard.push(contents);
    }
    assert_eq!(heard[0], heard[1], "everyone hears the same order");
    // Receipts: by SEND, and by ACK of a subscription that acknowledges.
    let last = heard[0][19].1.clone();
    let read = json!({"type": "READ", "payload": {"sessionId": id, "messageId": last}});
    doc.send("SEND", &[("destination", "/app/chat.read")], &read.to_string()).await;
    let receipt = pat.next_of("RECEIPT").await;
    assert_eq!((&receipt["userId"], &receipt["status"]), (&json!("doc"), &json!("read")));
    assert_eq!(receipt["messageId"], last);
    let topic = format!("/topic/session.{id}");
    let mut second = served.connected("/ws/consultation", &patient()).await;
    let headers = [("id", "a"), ("destination", topic.as_str()), ("ack", "client"), ("after", "0")];
    second.send("SUBSCRIBE", &headers, "").await;
    let mut ack = String::new();
    for _ in 0..21 {
        loop {
            let (_, headers, body) = second.next().await;
            if body.contains("CHAT_MESSAGE") {
                ack = header(&headers, "ack").to_owned();
                break;
            }
        }
    }
    second.send("ACK", &[("id", &ack), ("receipt", "acked")], "").await;
    loop {
        let receipt = doc.next_of("RECEIPT").await;
        if receipt["userId"] == "pat" {
            assert_eq!(receipt["status"], "delivered");
            break;
        }
    }
    let (_, history) = served.world.get(&path(id, "/chat?limit=200"), &doctor()).await;
    let messages = history["items"].as_array().expect("messages").iter();
    let of = |who: &str| messages.clone().filter(|m| m["senderId"] == who).collect::<Vec<_>>();
    assert!(of("pat").iter().all(|m| m["status"] == "read" && m["readAt"].is_string()));
    assert!(of("doc").iter().all(|m| m["status"] == "delivered" && m["deliveredAt"].is_string()));
    // Goodbye, confirmed.
    pat.send("DISCONNECT", &[("receipt", "bye")], "").await;
    loop {
        let (command, headers, _) = pat.next().await;
        if command == "RECEIPT" && header(&headers, "receipt-id") == "bye" {
            break;
        }
    }
    assert_eq!(pat.ended().await.1, 1000);
}

async fn what_was_missed_is_told_again(database: Database) {
    let served = Served::new(database).await;
    let id = served.visit().await;
    let mut doc = served.connected("/ws/consultation/websocket", &doctor()).await;
    doc.topic(id).await;
    let mut pat = served.connected("/ws/consultation/websocket", &patient()).await;
    pat.topic(id).await;
    pat.say(id, "first", "1").await;
    let seen = pat.next_of("CHAT_MESSAGE").await["sequence"].as_i64().expect("a number");
    drop(pat);
    for text in ["while", "you", "were", "away"] {
        doc.say(id, text, text).await;
    }
    for _ in 0..5 {
        doc.next_of("CHAT_MESSAGE").await;
    }
    let mut pat = served.connected("/ws/consultation/websocket", &patient()).await;
    let (topic, after) = (format!("/topic/session.{id}"), seen.to_string());
    let headers = [("id", "t"), ("destination", topic.as_str()), ("after", after.as_str())];
    pat.send("SUBSCRIBE", &headers, "").await;
    assert_eq!(
        pat.next_of("NOTIFICATION").await,
        json!({
            "sessionId": id, "kind": "unread", "count": 4,
        })
    );
    doc.say(id, "now", "now").await;
    let mut contents = Vec::new();
    for _ in 0..5 {
        contents.push(pat.next_of("CHAT_MESSAGE").await["content"].clone());
    }
    assert_eq!(contents, ["while", "you", "were", "away", "now"]);
}

#[tokio::test]
async fn a_person_hears_what_concerns_it_without_a_topic() {
    let served = Served::new(Database::sqlite()).await;
    let first = served.world.session().await;
    let second = served.world.session().await;
    served.world.post(&path(first, "/join"), &patient(), Value::Null).await;
    let mut doc = served.connected("/ws/consultation/websocket", &doctor()).await;
    doc.subscribe("n", "/user/queue/notifications").await;
    assert_eq!(doc.next().await.0, "RECEIPT");
    // The same patient has two consultations with one doctor: it waits in both, in one queue.
    let mut pat = served.connected("/ws/consultation/websocket", &patient()).await;
    pat.subscribe("n", "/user/queue/notifications").await;
    pat.next().await;
    let join = json!({"sessionId": second}).to_string();
    pat.send("SEND", &[("destination", "/app/waiting.join"), ("receipt", "j")], &join).await;
    let told = pat.next_of("NOTIFICATION").await;
    assert_eq!(told, json!({"sessionId": second, "kind": "position", "position": 2}));
    let told = doc.next_of("NOTIFICATION").await;
    assert_eq!(told, json!({"sessionId": second, "kind": "waiting", "waiting": 1}));
    served.world.post(&path(first, "/cancel"), &doctor(), Value::Null).await;
    loop {
        let told = pat.next_of("NOTIFICATION").await;
        if told["kind"] == "position" && told["position"] == 1 {
            break;
        }
    }
    let admit = json!({"userId": "pat"});
    served.world.post(&path(second, "/admit"), &doctor(), admit).await;
    loop {
        let told = pat.next_of("NOTIFICATION").await;
        if told["kind"] == "admitted" {
            break;
        }
        assert_eq!((&told["kind"], &told["sessionId"]), (&json!("ended"), &json!(first)));
    }
    // A message while the topic is not open: that there is one, and not a word of it.
    served.world.post(&path(second, "/chat"), &doctor(), json!({"content": "CANARY"})).await;
    let told = pat.next_of("NOTIFICATION").await;
    assert_eq!((&told["kind"], &told["senderType"]), (&json!("message"), &json!("doctor")));
    assert!(!told.to_string().contains("CANARY"));
    served.world.post(&path(second, "/end"), &doctor(), Value::Null).await;
    let told = pat.next_of("NOTIFICATION").await;
    assert_eq!((&told["kind"], &told["status"]), (&json!("ended"), &json!("COMPLETED")));
}

#[tokio::test]
async fn only_members_subscribe_and_only_tokens_connect() {
    let served = Served::new(Database::sqlite()).await;
    let id = served.visit().await;
    let topic = format!("/topic/session.{id}");
    let nobody = format!("/topic/session.{}", Uuid::new_v4());
    let cases = [
        (token(ApiRole::Patient, "other"), topic.as_str(), 4403),
        (token(ApiRole::Doctor, "other"), topic.as_str(), 4403),
        (token_of(ApiRole::Patient, "pat", "south"), topic.as_str(), 4403),
        (patient(), nobody.as_str(), 4403),
        (patient(), "/topic/session.x", 1008),
        (patient(), "/topic/session.*", 1008),
        (patient(), "/queue/other", 1008),
    ];
    for (token, destination, code) in cases {
        let mut client = served.connected("/ws/consultation/websocket", &token).await;
        client.subscribe("s", destination).await;
        let ((command, headers, _), closed) = client.ended().await;
        assert_eq!((command.as_str(), closed), ("ERROR", code), "{destination}");
        assert_eq!(header(&headers, "receipt-id"), "s");
    }
    for headers in [
        vec![("accept-version", "1.2"), ("Authorization", "Bearer nonsense")],
        vec![("accept-version", "1.2"), ("login", "pat"), ("passcode", "x")],
        vec![("accept-version", "1.2")],
    ] {
        let mut client = served.open("/ws/consultation/websocket").await;
        client.send("CONNECT", &headers, "").await;
        let ((command, ..), closed) = client.ended().await;
        assert_eq!((command.as_str(), closed), ("ERROR", 4401));
    }
    let mut client = served.open("/ws/consultation/websocket").await;
    let (passcode, user) = (patient(), "pat");
    let headers = [("accept-version", "1.0,1.1"), ("login", user), ("passcode", &passcode)];
    client.send("STOMP", &headers, "").await;
    let (command, headers, _) = client.next().await;
    assert_eq!((command.as_str(), header(&headers, "version")), ("CONNECTED", "1.1"));
    // A service listens, and writes in nobody's name.
    let mut observer = served.connected("/ws/consultation/websocket", &service()).await;
    observer.subscribe("e", "/user/queue/errors").await;
    observer.next().await;
    observer.say(id, "hello", "1").await;
    let (_, _, body) = observer.next().await;
    assert!(body.contains("not_admitted"), "{body}");
}

#[tokio::test]
async fn hostile_clients_get_errors_and_then_the_end() {
    let served = Served::new(Database::sqlite()).await;
    let id = served.visit().await;
    let raw = "/ws/consultation/websocket";
    for first in ["SEND\n\n\0", "HELLO\n\n\0", "CONNECT\naccept-version:9\n\n\0", "\0"] {
        let mut client = served.open(raw).await;
        client.put(first).await;
        assert!(matches!(client.ended().await.1, 1008 | 4401), "{first:?}");
    }
    for bad in ["SEND\ndestination:/app/other\n\n{}\0", "BEGIN\ntransaction:1\n\n\0", "x\n\n\0"] {
        let mut client = served.connected(raw, &patient()).await;
        client.put(bad).await;
        let ((command, ..), code) = client.ended().await;
        assert_eq!((command.as_str(), code), ("ERROR", 1008), "{bad:?}");
    }
    let mut client = served.connected(raw, &patient()).await;
    client.subscribe("e", "/user/queue/errors").await;
    client.next().await;
    for body in ["{}", "[", r#"{"sessionId":"x"}"#] {
        client.send("SEND", &[("destination", "/app/chat.send")], body).await;
    }
    assert_eq!(client.ended().await.1, 1008, "three strikes");
    let mut client = served.connected("/ws/consultation/9/srv/websocket", &patient()).await;
    client.socket.send(Message::text("{no list")).await.expect("it is open");
    assert_eq!(client.ended().await.1, 1008);
    // A flood of messages: what was confirmed is there, the rest was refused by its name.
    let mut client = served.connected(raw, &patient()).await;
    client.topic(id).await;
    client.subscribe("e", "/user/queue/errors").await;
    let (mut confirmed, mut refused) = (Vec::new(), Vec::new());
    let mut sent = 0;
    // A slow machine may take them all the first time.
    while refused.is_empty() && sent < 6_000 {
        for number in sent..sent + 300 {
            client.say(id, "flood", &format!("n{number}")).await;
        }
        sent += 300;
        while confirmed.len() + refused.len() < sent {
            let (command, headers, body) = client.next().await;
            if command == "RECEIPT" && header(&headers, "receipt-id").starts_with('n') {
                confirmed.push(header(&headers, "receipt-id").to_owned());
            } else if body.contains("rate_limited") {
                let frame: Value = serde_json::from_str(&body).expect("JSON");
                refused.push(frame["payload"]["clientId"].as_str().expect("an id").to_owned());
            }
        }
    }
    assert!(confirmed.len() >= 200 && !refused.is_empty(), "{}", confirmed.len());
    let control = &served.world.plane.control;
    let stored = control.db.count_messages(id).await.expect("counts");
    assert_eq!(usize::try_from(stored), Ok(confirmed.len()));
    // By HTTP it is the same allowance.
    let post = || async {
        let body = json!({"content": "one more"});
        let (status, problem) = served.world.post(&path(id, "/chat"), &patient(), body).await;
        assert!(status == StatusCode::CREATED || problem["code"] == "rate_limited", "{problem}");
        status
    };
    let answers = futures_util::future::join_all((0..400).map(|_| post())).await;
    assert!(answers.contains(&StatusCode::TOO_MANY_REQUESTS));
}

#[tokio::test]
async fn sockjs_finds_what_it_asks_for() {
    let served = Served::new(Database::sqlite()).await;
    let router = served.world.plane.router();
    let get = |path: &'static str| {
        let router = router.clone();
        async move {
            let request = axum::http::Request::builder()
                .uri(path)
                .header("origin", "https://page.example")
                .body(axum::body::Body::empty())
                .expect("a request");
            let answer = tower::ServiceExt::oneshot(router, request).await.expect("an answer");
            let (parts, body) = answer.into_parts();
            let bytes = axum::body::to_bytes(body, 10_000).await.expect("a body");
            (parts, String::from_utf8(bytes.to_vec()).expect("text"))
        }
    };
    let (parts, body) = get("/ws/consultation/info").await;
    let info: Value = serde_json::from_str(&body).expect("JSON");
    assert_eq!((&info["websocket"], &info["cookie_needed"]), (&json!(true), &json!(false)));
    assert!(info["entropy"].as_u64().is_some_and(|n| n <= u64::from(u32::MAX)));
    assert_eq!(parts.headers["access-control-allow-origin"], "https://page.example");
    assert_eq!(parts.headers["access-control-allow-credentials"], "true");
    assert_eq!(get("/ws/consultation").await.1, "Welcome to SockJS!\n");
    assert_eq!(get("/ws/consultation/1/a/xhr_streaming").await.0.status, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn a_client_of_version_1_0_leaves_by_the_destination() {
    let served = Served::new(Database::sqlite()).await;
    let session = served.visit().await;
    let mut client = served.open("/ws/consultation/websocket").await;
    let bearer = format!("Bearer {}", patient());
    client.send("CONNECT", &[("Authorization", &bearer)], "").await;
    assert_eq!(client.next().await.0, "CONNECTED");
    let topic = format!("/topic/session.{session}");
    client.send("SUBSCRIBE", &[("destination", &topic), ("receipt", "in")], "").await;
    while client.next().await.0 != "RECEIPT" {}
    client.send("UNSUBSCRIBE", &[("destination", &topic), ("receipt", "out")], "").await;
    while client.next().await.0 != "RECEIPT" {}
    client.say(session, "who hears this?", "c-1").await;
    let (command, headers, _) = client.next().await;
    assert_eq!((command.as_str(), header(&headers, "receipt-id")), ("RECEIPT", "c-1"));
}
