//! Who does nothing is signed out; who does something, or is in a call, is not.

use std::time::{Duration, Instant};

use axum::http::StatusCode;
use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream};

use crate::consultation::Step;
use crate::testing::{Database, World, doctor, path, patient, token};
use crate::token::ApiRole;

const LIST: &str = "/api/v1/consultations/channel";
const LIMIT: Duration = Duration::from_millis(1_200);

type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

async fn served() -> (World, String) {
    let world = World::with(Database::sqlite(), |config| config.idle_logoff = LIMIT).await;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let url = format!("ws://{}", listener.local_addr().expect("an address"));
    let router = world.plane.router();
    tokio::spawn(async move { axum::serve(listener, router).await });
    (world, url)
}

async fn channel(url: &str, path: &str, token: &str) -> Socket {
    let (mut socket, _) =
        tokio_tungstenite::connect_async(format!("{url}{path}")).await.expect("an upgrade");
    let hello = json!({"type": "AUTH", "payload": {"token": token}}).to_string();
    socket.send(Message::text(hello)).await.expect("it is open");
    socket
}

/// The code that it ends with within `time`; what was said on the way.
async fn ended(socket: &mut Socket, time: Duration) -> (Option<u16>, String) {
    let (mut said, end) = (String::new(), Instant::now() + time);
    loop {
        let left = end.saturating_duration_since(Instant::now());
        let Ok(next) = tokio::time::timeout(left, socket.next()).await else { return (None, said) };
        match next {
            Some(Ok(Message::Close(frame))) => {
                return (frame.map(|frame| frame.code.into()), said);
            }
            Some(Ok(Message::Text(text))) => said.push_str(&text),
            Some(Ok(_)) => {}
            other => panic!("no goodbye: {other:?}"),
        }
    }
}

#[tokio::test]
async fn who_does_nothing_is_told_and_signed_out() {
    let (world, url) = served().await;
    let id = world.session().await;
    for role in [ApiRole::Doctor, ApiRole::Admin] {
        let me = token(role, "doc");
        let mut socket = channel(&url, LIST, &me).await;
        let (code, said) = ended(&mut socket, LIMIT * 3).await;
        assert_eq!(code, Some(4408));
        assert!(said.contains(r#""code":"idle""#) && said.contains(r#""code":"signed_out""#));
        assert_eq!(world.get(&path(id, ""), &me).await.0, StatusCode::UNAUTHORIZED);
    }
    // A new token is a new sign-in, and a token without a channel is a program's.
    assert_eq!(world.get(&path(id, ""), &doctor()).await.0, StatusCode::OK);
    let mut waits = channel(&url, &path(id, "/channel"), &patient()).await;
    assert_eq!(ended(&mut waits, LIMIT * 2).await.0, None, "patients may wait");
}

#[tokio::test]
async fn who_does_something_stays() {
    let (world, url) = served().await;
    let id = world.session().await;
    let me = doctor();
    let mut socket = channel(&url, LIST, &me).await;
    for round in 0..6 {
        // By the page's word, or by any request.
        if round % 2 == 0 {
            let word = json!({"type": "ACTIVITY"}).to_string();
            socket.send(Message::text(word)).await.expect("it is open");
        } else {
            assert_eq!(world.get(&path(id, ""), &me).await.0, StatusCode::OK);
        }
        assert_eq!(ended(&mut socket, LIMIT / 2).await.0, None);
    }
    // A ping is the page's own, whether anybody is there or not.
    let end = Instant::now() + LIMIT * 3;
    let code = loop {
        let ping = json!({"type": "PING"}).to_string();
        if socket.send(Message::text(ping)).await.is_err() {
            break None;
        }
        if let (Some(code), _) = ended(&mut socket, LIMIT / 5).await {
            break Some(code);
        }
        assert!(Instant::now() < end, "pings keep nobody signed in");
    };
    assert_eq!(code, Some(4408));
}

#[tokio::test]
async fn a_call_counts_as_doing_something() {
    let (world, url) = served().await;
    let id = world.session().await;
    let me = doctor();
    world.post(&path(id, "/join"), &me, Value::Null).await;
    let live = world.plane.control.live.find(id).expect("it is live");
    let connected = Step::Connect("doc".to_owned());
    world.plane.control.note(&live, connected);
    let mut socket = channel(&url, LIST, &me).await;
    assert_eq!(ended(&mut socket, LIMIT * 2).await.0, None, "in a call, however still");
    assert_eq!(world.get(&path(id, ""), &me).await.0, StatusCode::OK);
}
