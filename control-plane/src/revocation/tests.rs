//! Revoked on one instance, out on the other within a second: channel, room, requests.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use axum::http::{Method, StatusCode};
use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream};
use uuid::Uuid;

use crate::revocation::INTERVAL;
use crate::testing::{Database, World, doctor, on_both_databases, path, service, token};
use crate::token::ApiRole;
use crate::watch;

on_both_databases!(
    a_revoked_link_is_out_everywhere,
    a_revoked_token_is_out_everywhere,
    a_revoked_key_is_out_everywhere,
    an_instance_that_starts_later_knows,
);

/// How long it may take here, where the machine may be busy with other tests. It is looked for more
/// than twice a second, which is what makes it a second elsewhere.
const WITHIN: Duration = Duration::from_secs(30);
const _: () = assert!(INTERVAL.as_millis() < 500);

type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

/// Two instances on one database, both at work; people are on the second.
struct Pair {
    near: World,
    far: World,
    address: SocketAddr,
    _work: [tokio::task::JoinSet<()>; 2],
}

impl Pair {
    async fn new(database: Database) -> Self {
        let near = World::new(database).await;
        let far = near.beside().await;
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("an address");
        let router = far.plane.router();
        tokio::spawn(async move { axum::serve(listener, router).await });
        let work = [watch::start(&near.plane.control), watch::start(&far.plane.control)];
        Self { near, far, address, _work: work }
    }

    /// A channel on the second instance, past its first frame.
    async fn channel(&self, path: &str, token: &str) -> Socket {
        let url = format!("ws://{}{path}", self.address);
        let (mut socket, _) = tokio_tungstenite::connect_async(url).await.expect("an upgrade");
        let hello = json!({"type": "AUTH", "payload": {"token": token}}).to_string();
        socket.send(Message::text(hello)).await.expect("it is open");
        let first = socket.next().await.expect("a frame").expect("no error");
        assert!(first.to_text().expect("text").contains("READY"), "{first}");
        socket
    }

    fn removed(&self) -> Vec<String> {
        let asked = self.far.plane.control.rooms.asked.lock().expect("no panic");
        asked.iter().filter(|asked| asked.starts_with("remove")).cloned().collect()
    }

    /// Everything about it has ended on the second instance, in time.
    async fn is_out(&self, mut socket: Socket, token: &str, person: &str, since: Instant) {
        let code = loop {
            let left = WITHIN.saturating_sub(since.elapsed());
            let next = tokio::time::timeout(left, socket.next()).await.expect("an end in time");
            match next {
                Some(Ok(Message::Close(frame))) => break u16::from(frame.expect("a code").code),
                Some(Ok(_)) => {}
                other => panic!("no goodbye: {other:?}"),
            }
        };
        assert_eq!(code, 4403);
        while !self.removed().contains(&format!("remove {person}")) {
            assert!(since.elapsed() < WITHIN, "{person} is still in the room");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        let (status, _) = self.far.get("/api/v1/consultations/sessions", token).await;
        assert_eq!(status, StatusCode::UNAUTHORIZED);
        assert!(since.elapsed() < WITHIN);
    }
}

async fn admitted(world: &World, id: Uuid, token: &str, body: Value, person: &str) {
    world.post(&path(id, "/join"), token, body.clone()).await;
    let admit = json!({"userId": person});
    let (status, _) = world.post(&path(id, "/admit"), &doctor(), admit).await;
    assert_eq!(status, StatusCode::OK);
    let (status, _) = world.post(&path(id, "/join"), token, body).await;
    assert_eq!(status, StatusCode::OK, "{person} may enter the room");
}

async fn a_revoked_link_is_out_everywhere(database: Database) {
    let pair = Pair::new(database).await;
    let id = pair.near.session().await;
    let body = json!({"userId": "pat", "role": "patient"});
    let (_, made) = pair.near.post(&path(id, "/links"), &service(), body).await;
    let secret = made["link"].as_str().unwrap().split_once('#').unwrap().1.to_owned();
    let exchange = "/api/v1/links/exchange";
    let (_, exchanged) = pair.far.call(Method::POST, exchange, None, json!({"link": secret})).await;
    let me = exchanged["token"].as_str().unwrap().to_owned();
    admitted(&pair.far, id, &me, Value::Null, "pat").await;
    let socket = pair.channel(&path(id, "/channel"), &me).await;
    let revoke = format!("/api/v1/links/{}", made["linkId"].as_str().unwrap());
    let since = Instant::now();
    let (status, _) = pair.near.call(Method::DELETE, &revoke, Some(&service()), Value::Null).await;
    assert_eq!(status, StatusCode::NO_CONTENT);
    pair.is_out(socket, &me, "pat", since).await;
    let (status, _) = pair.far.call(Method::POST, exchange, None, json!({"link": secret})).await;
    assert_eq!(status, StatusCode::GONE);
}

async fn a_revoked_token_is_out_everywhere(database: Database) {
    let pair = Pair::new(database).await;
    let admin = token(ApiRole::Admin, "boss");
    let id = pair.near.session().await;
    let (lost, kept) = (token(ApiRole::Patient, "pat"), token(ApiRole::Patient, "pat"));
    admitted(&pair.far, id, &lost, Value::Null, "pat").await;
    let socket = pair.channel(&path(id, "/channel"), &lost).await;
    let revoke = "/api/v1/tokens/revoke";
    for refused in [doctor(), service(), kept.clone()] {
        let (status, _) = pair.near.post(revoke, &refused, json!({"token": lost})).await;
        assert_eq!(status, StatusCode::FORBIDDEN);
    }
    for bad in [json!({}), json!({"token": lost, "jti": "x"}), json!({"jti": ""})] {
        let (status, _) = pair.near.post(revoke, &admin, bad).await;
        assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY);
    }
    let since = Instant::now();
    let (status, _) = pair.near.post(revoke, &admin, json!({"token": lost})).await;
    assert_eq!(status, StatusCode::NO_CONTENT);
    pair.is_out(socket, &lost, "pat", since).await;
    // Another token of the same person is another credential.
    let (status, _) = pair.far.get(&path(id, ""), &kept).await;
    assert_eq!(status, StatusCode::OK);
    let mut list = pair.channel("/api/v1/consultations/channel", &doctor()).await;
    list.close(None).await.expect("it is open");
}

async fn a_revoked_key_is_out_everywhere(database: Database) {
    let pair = Pair::new(database).await;
    let admin = token(ApiRole::Admin, "boss");
    let id = pair.near.session().await;
    let body = json!({"name": "kiosk", "scopes": ["consultations:read", "consultations:join"]});
    let (_, made) = pair.near.post("/api/v1/keys", &admin, body).await;
    let key = made["key"].as_str().unwrap().to_owned();
    admitted(&pair.far, id, &key, json!({"userId": "pat"}), "pat").await;
    let socket = pair.channel(&path(id, "/channel"), &key).await;
    let revoke = format!("/api/v1/keys/{}", made["keyId"].as_str().unwrap());
    let since = Instant::now();
    let (status, _) = pair.near.call(Method::DELETE, &revoke, Some(&admin), Value::Null).await;
    assert_eq!(status, StatusCode::NO_CONTENT);
    pair.is_out(socket, &key, "pat", since).await;
}

async fn an_instance_that_starts_later_knows(database: Database) {
    let world = World::new(database).await;
    let id = world.session().await;
    let lost = doctor();
    let admin = token(ApiRole::Admin, "boss");
    let (status, _) = world.post("/api/v1/tokens/revoke", &admin, json!({"token": lost})).await;
    assert_eq!(status, StatusCode::NO_CONTENT);
    assert_eq!(world.get(&path(id, ""), &lost).await.0, StatusCode::UNAUTHORIZED);
    let world = world.restart().await;
    assert_eq!(world.get(&path(id, ""), &lost).await.0, StatusCode::UNAUTHORIZED);
    assert_eq!(world.get(&path(id, ""), &doctor()).await.0, StatusCode::OK);
}
