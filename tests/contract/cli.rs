//! The command line: shapes of its output, exit codes, settings.

use std::net::UdpSocket;
use std::time::{SystemTime, UNIX_EPOCH};

use crate::support::{
    KEY, PATIENCE, SECRET, Server, jwt, keys, run, stderr, stdout, taken_tcp, text, two_free_udp,
};

/// The demo, which is to fail before it is ready.
fn failing_demo(arguments: &[&str], variables: &[(&str, &str)]) -> String {
    let output = run(&[&["demo", "--json", "--no-bot"], arguments].concat(), variables);
    assert!(!output.status.success());
    assert_eq!(stdout(&output), "");
    stderr(&output)
}

#[test]
fn the_first_line_of_the_demo_holds_the_promised_keys_only() {
    let server = Server::demo(&[], &[]);
    let expected =
        ["api_key", "api_secret", "api_token", "doctor_link", "patient_link", "turn_urls", "url"];
    assert_eq!(keys(&server.ready), expected);
    let url = format!("http://{}", server.address);
    assert_eq!(server.ready["url"], url);
    assert!(text(&server.ready["doctor_link"]).starts_with(&format!("{url}/doctor#")));
    assert!(text(&server.ready["patient_link"]).starts_with(&format!("{url}/visit#")));
    assert_eq!(
        (&server.ready["api_key"], &server.ready["api_secret"]),
        (&"devkey".into(), &"secret".into())
    );
    let (_, claims) = jwt(&text(&server.ready["api_token"]));
    assert_eq!(claims["role"], "service");
    assert!(server.log().contains("bound"), "logs go to standard error");
}

#[test]
fn the_demo_takes_every_other_setting_too() {
    let folder = tempfile::tempdir().unwrap();
    let database = folder.path().join("kept.db");
    let file = folder.path().join("demo.toml");
    std::fs::write(&file, "[rooms]\nauto_create = false\n").unwrap();
    let server = Server::demo(
        &["--config", file.to_str().unwrap()],
        &[
            ("BEDSIDE_API_KEY", KEY),
            ("BEDSIDE_API_SECRET", SECRET),
            ("DATABASE_URL", &format!("sqlite:{}", database.display())),
        ],
    );
    assert_eq!(
        (&server.ready["api_key"], &server.ready["api_secret"]),
        (&KEY.into(), &SECRET.into())
    );
    assert!(database.exists());
    let token = server.room_token("hall", "ada");
    assert_eq!(server.get(&format!("/rtc/validate?access_token={token}")).status, 404);
    drop(server);
    // And a kept database is no reason not to start again.
    Server::demo(&[], &[("DATABASE_URL", &format!("sqlite:{}", database.display()))]);
}

#[test]
fn a_taken_port_names_its_flag() {
    let (_tcp, port) = taken_tcp();
    let error = failing_demo(&["--port", &port, "--media-port", "0"], &[]);
    assert!(error.contains("--port") && error.contains(&port), "{error}");

    let (port, first, second) = two_free_udp();
    drop(first);
    // The second shard's port is taken.
    let arguments = ["--port", "0", "--media-port", &port.to_string()];
    let error = failing_demo(&arguments, &[("BEDSIDE_MEDIA__SHARDS", "2")]);
    assert!(error.contains("--media-port"), "{error}");
    assert!(error.contains(&(port + 1).to_string()), "{error}");
    drop(second);
}

#[test]
fn shards_take_the_media_port_and_the_next_ones() {
    let (port, first, second) = two_free_udp();
    drop((first, second));
    let _server =
        Server::demo(&["--media-port", &port.to_string()], &[("BEDSIDE_MEDIA__SHARDS", "2")]);
    for port in [port, port + 1] {
        assert!(UdpSocket::bind(("127.0.0.1", port)).is_err(), "{port} is free");
    }
}

#[test]
fn any_address_needs_one_to_advertise() {
    let error = failing_demo(&["--host", "0.0.0.0", "--port", "0", "--media-port", "0"], &[]);
    assert!(error.contains("--advertise"), "{error}");
    let server = Server::demo(
        &["--host", "0.0.0.0", "--advertise", "127.0.0.1", "--advertise", "192.0.2.9"],
        &[],
    );
    assert_eq!(server.ready["url"], format!("http://127.0.0.1:{}", server.address.port()));
}

#[test]
fn serve_refuses_keys_that_others_can_guess() {
    for (key, secret, named) in [
        ("", SECRET, "BEDSIDE_API_KEY"),
        ("devkey", SECRET, "BEDSIDE_API_KEY"),
        (KEY, "", "BEDSIDE_API_SECRET"),
        (KEY, "secret", "BEDSIDE_API_SECRET"),
    ] {
        let variables = [("BEDSIDE_API_KEY", key), ("BEDSIDE_API_SECRET", secret)];
        let output = run(&["serve"], &variables);
        assert!(!output.status.success() && stdout(&output).is_empty());
        assert!(stderr(&output).contains(named), "{}", stderr(&output));
    }
}

#[test]
fn unknown_settings_are_errors_that_name_them() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("bedside.toml");
    std::fs::write(&file, "[http]\nlistn = \"127.0.0.1:1\"\n").unwrap();
    let file = file.to_str().unwrap();
    for command in [&["serve", "--config", file][..], &["demo", "--config", file]] {
        let output = run(command, &[]);
        assert!(!output.status.success());
        let error = stderr(&output);
        assert!(error.contains("listn") && error.contains("line 2"), "{error}");
    }
    let output = run(&["serve"], &[("BEDSIDE_HTTP__LISTN", "x")]);
    assert!(!output.status.success());
    assert!(stderr(&output).contains("BEDSIDE_HTTP__LISTN"), "{}", stderr(&output));
}

#[test]
fn a_mistake_beside_a_secret_does_not_show_the_secret() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("bedside.toml");
    for text in [
        "api_secrt = \"hunter2\"",
        "api_secret = \"hunter2",
        "api_secret = [\"hunter2\"]",
        "api_secret = hunter2",
        "api_secret = \"a\" hunter2",
        "drain_timeout = \"hunter2\"",
    ] {
        std::fs::write(&file, format!("api_key = \"clinic\"\n{text}\n")).unwrap();
        let output = run(&["serve", "--config", file.to_str().unwrap()], &[]);
        let error = stderr(&output);
        assert!(!output.status.success());
        assert!(!error.contains("hunter2"), "{error}");
        assert!(error.contains("line 2"), "{error}");
    }
}

#[test]
fn printed_settings_hold_no_secret() {
    let folder = tempfile::tempdir().unwrap();
    let secret = folder.path().join("secret");
    std::fs::write(&secret, format!("{SECRET}\n")).unwrap();
    let output = run(
        &["config", "print", "--redacted"],
        &[
            ("BEDSIDE_API_KEY", KEY),
            ("BEDSIDE_API_SECRET_FILE", secret.to_str().unwrap()),
            ("RABBITMQ_PASSWORD", "hunter3"),
            ("DATABASE_URL", "postgres://bob:hunter4@db.example/bedside?password=hunter5"),
        ],
    );
    assert!(output.status.success());
    let shown = stdout(&output);
    assert!(!shown.contains("hunter") && !shown.contains(SECRET), "{shown}");
    assert!(shown.contains("api_key = \"clinic\"") && shown.contains("db.example"), "{shown}");
    for odd in ["host=db password=hunter", "postgres:bob:hunter@db/x", "postgres://b:h@x?a=hunter@"]
    {
        let shown = run(&["config", "print", "--redacted"], &[("DATABASE_URL", odd)]);
        assert!(!stdout(&shown).contains("hunter"), "{}", stdout(&shown));
    }
    assert!(!run(&["config", "print"], &[]).status.success());
}

#[test]
fn secrets_come_from_files() {
    let folder = tempfile::tempdir().unwrap();
    let secret = folder.path().join("secret");
    std::fs::write(&secret, format!("{SECRET}\n")).unwrap();
    let variables =
        [("BEDSIDE_API_KEY", KEY), ("BEDSIDE_API_SECRET_FILE", secret.to_str().unwrap())];
    let from_file = run(&["token", "api", "--role", "admin", "--user", "ada"], &variables);
    let server = Server::serve(&[]);
    let answer = server.ask("GET", crate::support::SESSIONS, stdout(&from_file).trim(), ().into());
    assert_eq!(answer.status, 200);
}

#[test]
fn tokens_are_what_others_expect() {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    let minted = |arguments: &[&str], variables: &[(&str, &str)]| {
        let output = run(arguments, variables);
        assert!(output.status.success(), "{}", stderr(&output));
        let printed = stdout(&output);
        assert_eq!(printed.lines().count(), 1);
        let (header, claims) = jwt(printed.trim());
        assert_eq!(header["alg"], "HS256");
        (claims, stderr(&output))
    };
    let room = ["token", "room", "--room", "R", "--identity", "I", "--name", "N"];
    let (claims, told) = minted(&room, &[]);
    assert!(told.contains("devkey") && told.contains("warning"), "{told}");
    assert_eq!(
        (&claims["iss"], &claims["sub"], &claims["name"]),
        (&"devkey".into(), &"I".into(), &"N".into())
    );
    assert_eq!(
        (&claims["video"]["room"], &claims["video"]["roomJoin"]),
        (&"R".into(), &true.into())
    );
    let life = |claims: &serde_json::Value| claims["exp"].as_u64().unwrap() - now;
    let slack = PATIENCE.as_secs();
    assert!((3600..3600 + slack).contains(&life(&claims)), "{claims}");
    let (claims, _) = minted(&[&room[..], &["--ttl", "10m"]].concat(), &[]);
    assert!((600..600 + slack).contains(&life(&claims)), "{claims}");

    let api = ["token", "api", "--role", "patient", "--user", "U"];
    let own = [("BEDSIDE_API_KEY", KEY), ("BEDSIDE_API_SECRET", SECRET)];
    let (claims, told) = minted(&api, &own);
    assert_eq!(told, "");
    let named = ["iss", "sub", "aud", "role", "clinic"].map(|key| claims[key].as_str().unwrap());
    assert_eq!(named, [KEY, "U", "bedside-api", "patient", "demo"]);
    assert!((3600..3600 + slack).contains(&life(&claims)), "{claims}");
    let (claims, _) = minted(&[&api[..], &["--clinic", "north"]].concat(), &own);
    assert_eq!(claims["clinic"], "north");
}

#[test]
fn wrong_flags_are_told_and_not_a_crash() {
    for arguments in [
        &["token", "api", "--role", "nurse", "--user", "u"][..],
        &["token", "api", "--role", "doctor", "--user", ""],
        &["token", "api", "--role", "doctor", "--user", "u", "--clinic", ""],
        &["token", "api", "--role", "doctor", "--user", "u", "--ttl", "213503982334601d"],
        &["token", "room", "--room", "", "--identity", "i"],
        &["token", "room", "--room", "r", "--identity", ""],
        &["token", "room", "--room", "r", "--identity", "i", "--ttl", "99999999999999999s"],
        &["demo", "--port", "65536"],
        &["demo", "--host", "localhost"],
        &["serve", "--config", "/nowhere/bedside.toml"],
        &[],
    ] {
        let output = run(arguments, &[]);
        let code = output.status.code();
        assert!(matches!(code, Some(1 | 2)), "{arguments:?}: {code:?}");
        let told = stderr(&output);
        assert!(!told.is_empty() && !told.contains("panicked"), "{arguments:?}: {told}");
        assert_eq!(stdout(&output), "");
    }
}
