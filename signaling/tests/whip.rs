//! WHIP and WHEP over real sockets, with a scripted engine behind the doors.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod support;

use std::sync::Arc;
use std::time::Duration;

use bedside_sfu::core::api::{
    Command, LeaveReason, ParticipantInfo, ParticipantSid, Private, Request, SessionEvent, Source,
    TrackSid,
};
use bedside_signaling::ice::{IceServer, IceServers};
use bedside_signaling::rooms::DoorRefusal;
use bedside_signaling::token::VideoGrant;
use support::{House, token, ward};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

const FRAGMENT: &str = "content-type: application/trickle-ice-sdpfrag\r\n";
const PWD: &str = "0123456789012345678901";

fn offer(direction: &str) -> String {
    let hash = ["AB"; 32].join(":");
    format!(
        "v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\na=group:BUNDLE 0 1\r\n\
         a=ice-ufrag:abcd\r\na=ice-pwd:{PWD}\r\na=fingerprint:sha-256 {hash}\r\n\
         m=audio 9 UDP/TLS/RTP/SAVPF 111\r\na=mid:0\r\na={direction}\r\na=rtpmap:111 opus/48000/2\r\n\
         m=video 9 UDP/TLS/RTP/SAVPF 96\r\na=mid:1\r\na={direction}\r\na=rtpmap:96 VP8/90000\r\n"
    )
}

struct Answer {
    status: u16,
    head: String,
    body: String,
}

impl Answer {
    fn header(&self, name: &str) -> Option<&str> {
        let prefix = format!("{name}: ");
        self.head.lines().find_map(|line| line.strip_prefix(&prefix))
    }
}

async fn ask(house: &House, method: &str, path: &str, headers: &str, body: &str) -> Answer {
    let mut stream = TcpStream::connect(house.address).await.unwrap();
    let head = format!(
        "{method} {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: {}\r\n{headers}\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    // Whoever is refused early may not be read to the end.
    let _refused = stream.write_all(body.as_bytes()).await;
    let mut answer = Vec::new();
    let _reset = stream.read_to_end(&mut answer).await;
    let answer = String::from_utf8(answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    let lower = |line: &str| match line.split_once(": ") {
        Some((name, value)) => format!("{}: {value}", name.to_lowercase()),
        None => line.to_owned(),
    };
    let head: Vec<String> = head.lines().map(lower).collect();
    Answer { status, head: head.join("\n"), body: body.to_owned() }
}

fn bearer(token: &str) -> String {
    format!("authorization: Bearer {token}\r\n")
}

fn sdp(token: &str) -> String {
    format!("{}content-type: application/sdp\r\n", bearer(token))
}

async fn publish(house: &House, identity: &str) -> Answer {
    let answer = ask(house, "POST", "/whip/ward", &sdp(&ward(identity)), &offer("sendonly")).await;
    assert_eq!(answer.status, 201, "{}", answer.body);
    answer
}

/// Waits until something holds of the engine's log.
async fn until(house: &House, holds: impl Fn(&Command) -> bool) {
    for _ in 0..200 {
        if house.engine.log().iter().any(&holds) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("it did not happen in time: {:?}", house.engine.log());
}

fn leaves(command: &Command) -> bool {
    matches!(command, Command::Request { request: Request::Leave, .. })
}

#[tokio::test]
async fn a_publisher_comes_with_one_request_and_goes_with_another() {
    let house = House::open().await;
    let answer = publish(&house, "ann").await;
    assert_eq!(answer.header("content-type"), Some("application/sdp"));
    assert_eq!(answer.header("accept-patch"), Some("application/trickle-ice-sdpfrag"));
    assert!(answer.body.starts_with("answer to v=0"), "{}", answer.body);
    let etag = answer.header("etag").unwrap();
    assert!(etag.starts_with('"') && etag.ends_with('"') && etag.len() == 34, "{etag}");
    let location = answer.header("location").unwrap();
    let id = location.strip_prefix("/whip/ward/session/").unwrap();
    assert_eq!(id.len(), 32);
    let log = house.engine.log();
    let Command::Join(join) = &log[1] else { panic!("{log:?}") };
    assert!(!join.auto_subscribe && join.client.allow_cm && join.grant.publish);
    let sources: Vec<Source> = log
        .iter()
        .filter_map(|command| match command {
            Command::Request { request: Request::AddTrack(track), .. } => Some(track.source),
            _ => None,
        })
        .collect();
    assert_eq!(sources, [Source::Microphone, Source::Camera]);
    assert_eq!(house.signaling.counters().joins.value(), 1);

    let gone = ask(&house, "DELETE", location, &bearer(&ward("ann")), "").await;
    assert_eq!(gone.status, 200);
    until(&house, leaves).await;
    let again = ask(&house, "DELETE", location, &bearer(&ward("ann")), "").await;
    assert_eq!(again.status, 404);
}

#[tokio::test]
async fn whoever_is_refused_leaves_no_trace() {
    let house = House::open().await;
    let text = offer("sendonly");
    let mute = VideoGrant { can_publish: Some(false), ..VideoGrant::join("ward") };
    let voice =
        VideoGrant { can_publish_sources: vec!["microphone".into()], ..VideoGrant::join("ward") };
    let outside = VideoGrant { room_join: false, ..VideoGrant::join("ward") };
    let ann = ward("ann");
    let long = "x".repeat(200 * 1024);
    let cases = [
        (401, "/whip/ward", "content-type: application/sdp\r\n".to_owned(), &*text),
        (401, "/whip/ward", sdp("nonsense"), &text),
        (401, "/whip/ward", sdp(&token("ann", outside)), &text),
        (403, "/whip/other", sdp(&ann), &text),
        (403, "/whip/ward", sdp(&token("ann", mute)), &text),
        (403, "/whip/ward", sdp(&token("ann", voice)), &text),
        (415, "/whip/ward", bearer(&ann), &text),
        (415, "/whip/ward", format!("{}content-type: text/plain\r\n", bearer(&ann)), &text),
        (406, "/whip/ward", format!("{}accept: text/html\r\n", sdp(&ann)), &text),
        (413, "/whip/ward", sdp(&ann), &long),
        (400, "/whip/ward", sdp(&ann), ""),
        (400, "/whip/ward", sdp(&ann), "hello"),
        (422, "/whip/ward", sdp(&ann), "v=0\r\n"),
        (422, "/whip/ward", sdp(&ann), &offer("recvonly")),
        (422, "/whep/ward", sdp(&ann), &text),
        (406, "/whip/ward", sdp(&ann), &text.replace("VP8", "H261")),
    ];
    for (status, path, headers, body) in cases {
        let answer = ask(&house, "POST", path, &headers, body).await;
        assert_eq!(answer.status, status, "{path} {}", answer.body);
        assert_eq!(answer.header("www-authenticate").is_some(), status == 401);
    }
    let query = format!("/whip/ward?access_token={ann}");
    let answer = ask(&house, "POST", &query, "content-type: application/sdp\r\n", &text).await;
    assert_eq!(answer.status, 401, "a token in the URL is none");
    for (refusal, status) in [
        (DoorRefusal::NoRoom, 404),
        (DoorRefusal::NotAllowed, 403),
        (DoorRefusal::Full, 403),
        (DoorRefusal::Draining, 503),
    ] {
        *house.door.answer.lock().unwrap() = Some(Err(refusal));
        let answer = ask(&house, "POST", "/whip/ward", &sdp(&ann), &text).await;
        assert_eq!(answer.status, status);
    }
    assert!(house.engine.log().is_empty(), "{:?}", house.engine.log());
    for method in ["GET", "PUT", "PATCH", "DELETE"] {
        assert_eq!(ask(&house, method, "/whip/ward", &sdp(&ann), "").await.status, 405, "{method}");
    }
}

#[tokio::test]
async fn candidates_are_taken_and_new_names_restart_ice() {
    let house = House::open().await;
    let answer = publish(&house, "ann").await;
    let (location, etag) = (answer.header("location").unwrap(), answer.header("etag").unwrap());
    let headers = |tag: &str| format!("{}{FRAGMENT}if-match: {tag}\r\n", bearer(&ward("ann")));
    let candidate = format!(
        "a=ice-ufrag:abcd\r\na=ice-pwd:{PWD}\r\na=candidate:1 1 udp 1 192.0.2.1 9 typ host\r\n"
    );
    let patch =
        async |headers: String, body: &str| ask(&house, "PATCH", location, &headers, body).await;
    assert_eq!(patch(headers(etag), &candidate).await.status, 204);
    assert_eq!(patch(headers("\"other\""), &candidate).await.status, 412);
    assert_eq!(patch(headers(&format!("\"other\", {etag}")), &candidate).await.status, 204);
    let bare = format!("{}{FRAGMENT}", bearer(&ward("ann")));
    assert_eq!(patch(bare, &candidate).await.status, 428);
    let plain = format!("{}if-match: {etag}\r\n", bearer(&ward("ann")));
    assert_eq!(patch(plain, &candidate).await.status, 415);
    assert_eq!(patch(headers(etag), "nothing").await.status, 400);
    assert_eq!(patch(headers(etag), &"x".repeat(20_000)).await.status, 413);
    let foreign = format!("{}{FRAGMENT}if-match: *\r\n", bearer(&ward("eve")));
    assert_eq!(patch(foreign, &candidate).await.status, 403);
    assert_eq!(patch(format!("{FRAGMENT}if-match: *\r\n"), &candidate).await.status, 401);

    let restart = format!("a=ice-ufrag:new1\r\na=ice-pwd:{PWD}\r\n");
    let answer = patch(headers("*"), &restart).await;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.header("content-type"), Some("application/trickle-ice-sdpfrag"));
    let fresh = answer.header("etag").unwrap();
    assert_ne!(fresh, etag);
    assert!(answer.body.contains("a=ice-ufrag:new1"), "the scripted answer: {}", answer.body);
    let log = house.engine.log();
    let Some(Command::Request { request: Request::Offer { id: 2, sdp }, .. }) = log.last() else {
        panic!("{log:?}")
    };
    assert_eq!(sdp.replace("new1", "abcd"), offer("sendonly"));
    assert_eq!(patch(headers(etag), &candidate).await.status, 412, "the session before");
    let renamed = candidate.replace("abcd", "new1");
    assert_eq!(patch(headers(fresh), &renamed).await.status, 204);
}

#[tokio::test]
async fn a_session_is_over_when_its_participant_is() {
    let house = House::open().await;
    let answer = publish(&house, "ann").await;
    let location = answer.header("location").unwrap();
    let foreign = ask(&house, "DELETE", location, &bearer(&ward("eve")), "").await;
    assert_eq!(foreign.status, 403);
    let elsewhere = location.replace("ward", "other");
    assert_eq!(ask(&house, "DELETE", &elsewhere, &bearer(&ward("ann")), "").await.status, 404);
    // The same identity again replaces the old one.
    let again = publish(&house, "ann").await;
    let old_is_gone = async || {
        for _ in 0..200 {
            let answer = ask(&house, "PATCH", location, &bearer(&ward("ann")), "").await;
            if answer.status == 404 {
                return true;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        false
    };
    assert!(old_is_gone().await);
    assert!(house.signaling.remove("ward", "ann", LeaveReason::ParticipantRemoved));
    let location = again.header("location").unwrap();
    for _ in 0..200 {
        let answer = ask(&house, "DELETE", location, &bearer(&ward("ann")), "").await;
        if answer.status == 404 {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("the session outlived its participant");
}

#[tokio::test]
async fn silence_is_waited_out_and_a_mute_is_echoed() {
    let house = House::open().await;
    let answer = publish(&house, "ann").await;
    let reason = LeaveReason::ConnectionTimeout;
    house.engine.to("ann", SessionEvent::Left { reason, resume: true });
    until(&house, |command| matches!(command, Command::Resume(_))).await;
    house
        .engine
        .to("ann", SessionEvent::MuteRequested { track: TrackSid("TR_VC1".into()), muted: true });
    let muted = |command: &Command| {
        matches!(command, Command::Request { request: Request::Mute { muted: true, .. }, .. })
    };
    until(&house, muted).await;
    let location = answer.header("location").unwrap();
    assert_eq!(ask(&house, "DELETE", location, &bearer(&ward("ann")), "").await.status, 200);
    until(&house, leaves).await;
}

#[tokio::test]
async fn a_watcher_says_whom_it_watches() {
    let house = House::open().await;
    let deaf = VideoGrant { can_subscribe: Some(false), ..VideoGrant::join("ward") };
    let text = offer("recvonly");
    let refused = ask(&house, "POST", "/whep/ward", &sdp(&token("eve", deaf)), &text).await;
    assert_eq!(refused.status, 403);
    assert!(house.engine.log().is_empty());
    let silent = VideoGrant { can_publish: Some(false), ..VideoGrant::join("ward") };
    for (identity, path, whom) in [
        ("bob", "/whep/ward", None),
        ("cid", "/whep/ward/ann%20b", Some(Private::new("ann b".to_owned()))),
    ] {
        let bearer = sdp(&token(identity, silent.clone()));
        let answer = ask(&house, "POST", path, &bearer, &text).await;
        assert_eq!(answer.status, 201, "{}", answer.body);
        let location = answer.header("location").unwrap();
        assert!(location.starts_with("/whep/ward/session/"), "{location}");
        let watches = |command: &Command| match command {
            Command::Request { request: Request::Watch { publisher }, .. } => *publisher == whom,
            _ => false,
        };
        assert!(house.engine.log().iter().any(watches));
    }
}

#[derive(Debug)]
struct OneServer;

impl IceServers for OneServer {
    fn for_participant(&self, _: &ParticipantSid) -> Vec<IceServer> {
        vec![IceServer {
            urls: vec!["stun:turn.example".into(), "turn:turn.example?transport=udp".into()],
            username: "na\"me".into(),
            credential: Private::new("word".into()),
        }]
    }

    fn for_bearer(&self, _: &str, _: &str) -> Vec<IceServer> {
        Vec::new()
    }

    fn present(&self, _: &str, _: &ParticipantInfo) {}

    fn left(&self, _: &ParticipantSid) {}

    fn all(&self, _: &mut dyn Iterator<Item = (&str, &ParticipantInfo)>) {}
}

#[tokio::test]
async fn servers_are_linked_and_pages_may_read_it() {
    let house = House::with(|config| {
        config.ice_servers = Arc::new(OneServer);
        config.allowed_origins = vec!["https://clinic.example".into()];
    })
    .await;
    let origin = "origin: https://clinic.example\r\n";
    let headers = format!("{}{origin}", sdp(&ward("ann")));
    let answer = ask(&house, "POST", "/whip/ward", &headers, &offer("sendonly")).await;
    assert_eq!(answer.status, 201);
    let links: Vec<&str> =
        answer.head.lines().filter_map(|line| line.strip_prefix("link: ")).collect();
    let turn = "<turn:turn.example?transport=udp>; rel=\"ice-server\"; username=\"na\\\"me\"; \
                credential=\"word\"; credential-type=\"password\"";
    assert_eq!(links, ["<stun:turn.example>; rel=\"ice-server\"", turn]);
    let exposed = answer.header("access-control-expose-headers").unwrap();
    assert!(["location", "etag", "link"].iter().all(|name| exposed.contains(name)), "{exposed}");

    let wish = format!("{origin}access-control-request-method: POST\r\n");
    let preflight = ask(&house, "OPTIONS", "/whip/ward", &wish, "").await;
    assert_eq!(preflight.status, 204);
    assert_eq!(preflight.header("accept-post"), Some("application/sdp"));
    let methods = preflight.header("access-control-allow-methods").unwrap();
    assert!(["POST", "PATCH", "DELETE"].iter().all(|method| methods.contains(method)));
    let allowed = preflight.header("access-control-allow-headers").unwrap();
    assert!(allowed.contains("if-match") && allowed.contains("authorization"), "{allowed}");
    let stranger = "origin: https://evil.example\r\n";
    let refused = ask(&house, "OPTIONS", "/whip/ward", stranger, "").await;
    assert_eq!(refused.status, 403);
}
