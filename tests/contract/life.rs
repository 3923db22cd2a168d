//! The process from its start to its end: signals, draining, what it leaves behind.

use std::time::Duration;

use serde_json::Value;

use crate::rooms::Room;
use crate::support::{PATIENCE, Postgres, SESSIONS, Server, run, stderr, until};

/// The promise is five seconds; a loaded machine gets two more.
const DEMO_ENDS: Duration = Duration::from_secs(7);

#[test]
fn the_demo_is_gone_soon_after_a_signal_whoever_is_still_there() {
    for signal in ["TERM", "INT"] {
        let mut server = Server::demo(&[], &[]);
        let (id, _) = server.consultation(Value::Null);
        let doctor = server.api_token("doctor", "dr");
        let mut channel = server.channel(&format!("{SESSIONS}/{id}/channel"), &doctor);
        channel.hear_of("READY");
        let _silent = server.silent_channel(&format!("{SESSIONS}/{id}/channel"));
        let mut list = server.channel("/api/v1/consultations/channel", &doctor);
        list.hear_of("SESSIONS");
        let room = Room::join(&server, "hall", "ada").unwrap();
        // A request that is never finished.
        let half = std::net::TcpStream::connect(server.address).unwrap();
        std::io::Write::write_all(&mut &half, b"POST /api/v1/links/exchange HTTP/1.1\r\n").unwrap();
        server.signal(signal);
        let (status, took) = server.ended();
        assert!(status.success(), "{status}");
        assert!(took < DEMO_ENDS, "{took:?}");
        drop(room);
        let left = std::fs::read_dir(server.folder.path()).unwrap().count();
        assert_eq!(left, 0, "the demo leaves nothing behind");
    }
}

#[test]
fn people_in_a_room_are_told_why_it_ends() {
    let mut server = Server::demo(&[], &[]);
    let mut room = Room::join(&server, "hall", "ada").unwrap();
    server.signal("TERM");
    // DisconnectReason SERVER_SHUTDOWN.
    assert_eq!(room.left(), Some(3));
    server.ended();
}

#[test]
fn serve_drains_until_the_last_room_has_ended() {
    let mut server = Server::serve(&[("BEDSIDE_ROOMS__AUTO_CREATE", "true")]);
    let room = Room::join(&server, "hall", "ada").unwrap();
    assert_eq!(server.get("/readyz").status, 200);
    server.signal("TERM");
    server.wait_for_log("draining");
    let ready = until(|| Some(server.get("/readyz")).filter(|answer| answer.status == 503));
    assert!(ready.unwrap().body.contains("draining"));
    assert_eq!(server.get("/livez").status, 200);
    // No new room; into the open one people still come.
    let path = |room| format!("/rtc/validate?access_token={}", server.room_token(room, "bob"));
    assert_eq!(server.get(&path("other")).status, 503);
    assert_eq!(server.get(&path("hall")).status, 200);
    room.leave();
    let (status, _) = server.ended();
    assert!(status.success(), "{status}");
}

#[test]
fn serve_drains_for_no_longer_than_it_is_told() {
    let mut server =
        Server::serve(&[("BEDSIDE_ROOMS__AUTO_CREATE", "true"), ("BEDSIDE_DRAIN_TIMEOUT", "1s")]);
    let mut room = Room::join(&server, "hall", "ada").unwrap();
    server.signal("TERM");
    assert_eq!(room.left(), Some(3));
    let (status, _) = server.ended();
    assert!(status.success(), "{status}");
}

#[test]
fn a_second_signal_ends_it_at_once() {
    let mut server =
        Server::serve(&[("BEDSIDE_ROOMS__AUTO_CREATE", "true"), ("BEDSIDE_DRAIN_TIMEOUT", "1h")]);
    let _room = Room::join(&server, "hall", "ada").unwrap();
    server.signal("TERM");
    server.wait_for_log("draining");
    std::thread::sleep(Duration::from_millis(300));
    assert!(server.child.try_wait().unwrap().is_none(), "it waits for the room");
    server.signal("TERM");
    let (_, took) = server.ended();
    assert!(took < PATIENCE);
}

/// A consultation that one process made is there for the next one.
fn outlives_the_process(database: &str) {
    let first = Server::serve(&[("DATABASE_URL", database)]);
    let (id, _) = first.consultation(Value::Null);
    drop(first);
    let second = Server::serve(&[("DATABASE_URL", database)]);
    let doctor = second.api_token("doctor", "dr");
    let found = second.ask("GET", &format!("{SESSIONS}/{id}"), &doctor, Value::Null);
    assert_eq!((found.status, &found.json()["sessionId"]), (200, &Value::from(id)));
}

#[test]
fn consultations_outlive_the_process_on_sqlite() {
    let folder = tempfile::tempdir().unwrap();
    outlives_the_process(&format!("sqlite:{}", folder.path().join("clinic.db").display()));
}

#[test]
fn consultations_outlive_the_process_on_postgresql() {
    outlives_the_process(&Postgres::start().url);
}

#[test]
fn a_database_that_is_not_there_is_told() {
    for url in ["postgres://nobody@127.0.0.1:1/nothing", "mysql://a/b", "sqlite:/nowhere/at/all.db"]
    {
        let output = run(
            &["serve"],
            &[
                ("BEDSIDE_API_KEY", "clinic"),
                ("BEDSIDE_API_SECRET", "0123456789abcdef0123456789abcdef"),
                ("BEDSIDE_HTTP__LISTEN", "127.0.0.1:0"),
                ("BEDSIDE_MEDIA__PORT", "0"),
                ("BEDSIDE_TURN__PORT", "0"),
                ("DATABASE_URL", url),
            ],
        );
        assert_eq!(output.status.code(), Some(1));
        assert!(stderr(&output).contains("database_url"), "{}", stderr(&output));
    }
}
