//! Everything else on the origin: pages, the operator's doors, the room door, CORS, the log.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};

use crate::rooms::Room;
use crate::support::{SESSIONS, Server, text};

/// `WrappedJoinRequest { join_request: JoinRequest { client_info: { protocol: 16 } } }`, with an
/// unknown field of so many bytes.
fn join_request(padding: usize) -> String {
    let mut bytes = vec![0x12, 4, 0x0a, 2, 0x18, 16];
    if padding > 0 {
        // Field 100, length-delimited.
        bytes.extend([0xa2, 0x06]);
        bytes.extend([
            (padding & 0x7f) as u8 | 0x80,
            (padding >> 7 & 0x7f) as u8 | 0x80,
            (padding >> 14) as u8,
        ]);
        bytes.resize(bytes.len() + padding, b'x');
    }
    URL_SAFE_NO_PAD.encode(bytes)
}

#[test]
fn pages_are_served_and_locked_down() {
    let server = Server::demo(&[], &[]);
    assert!(!server.get("/").body.contains("not built"), "run ./scripts/build first");
    for path in ["/", "/visit", "/doctor"] {
        let page = server.get(path);
        assert_eq!(page.status, 200, "{path}");
        let policy = page.header("content-security-policy").unwrap();
        assert!(policy.contains("default-src 'self'") && policy.contains("frame-ancestors 'none'"));
        assert!(!policy.contains("unsafe") && !policy.contains("https:"), "{policy}");
        assert_eq!(page.header("x-content-type-options"), Some("nosniff"));
        assert_eq!(page.header("referrer-policy"), Some("no-referrer"));
        assert!(page.header("permissions-policy").unwrap().contains("camera=(self)"));
        assert!(page.header("access-control-allow-origin").is_none(), "pages are ours alone");
        for foreign in ["http://", "https://", "src=\"//"] {
            assert!(!page.body.contains(foreign), "{path} names {foreign}");
        }
    }
    for path in ["/nowhere", "/assets/../Cargo.toml", "/assets/%2e%2e/secret", "/visit.html"] {
        assert_eq!(server.get(path).status, 404, "{path}");
    }
}

#[test]
fn the_operator_sees_that_it_lives_and_what_it_does() {
    let server = Server::demo(&[], &[]);
    assert_eq!(server.get("/livez").status, 200);
    assert_eq!(server.get("/readyz").status, 200);
    let mut room = Room::join(&server, "hunters-hall", "hunter-ada").unwrap();
    room.connected();
    let wanted = [
        "bedside_rooms 1",
        "bedside_participants 1",
        "bedside_tracks",
        "packets",
        "bytes",
        "lost",
        "nack",
        "pli",
        "bedside_join_seconds_bucket",
        "bedside_join_seconds_count 1",
    ];
    let full = crate::support::until(|| {
        let shown = server.get("/metrics");
        assert_eq!(shown.status, 200);
        wanted.iter().all(|word| shown.body.contains(word)).then_some(shown)
    });
    let shown = full.unwrap_or_else(|| panic!("{}", server.get("/metrics").body));
    assert!(shown.header("content-type").unwrap().starts_with("text/plain"));
    assert!(!shown.body.contains("hunter"), "no label names a person or a room");
}

#[test]
fn the_room_door_answers_as_sdks_expect() {
    let server = Server::demo(&[], &[]);
    for path in ["/rtc", "/rtc?access_token=x", "/rtc/v0", "/rtc/v1/other"] {
        let answer = server.get(path);
        assert_eq!((answer.status, answer.body.as_str()), (404, ""), "{path}");
    }
    let token = server.room_token("hall", "ada");
    let api = server.api_token("doctor", "dr");
    let join = join_request(0);
    for (path, status) in [
        (format!("/rtc/validate?access_token={token}"), 200),
        (format!("/rtc/v1/validate?access_token={token}&join_request={join}"), 200),
        (format!("/rtc/v1/validate?access_token={token}"), 400),
        (format!("/rtc/v1/validate?access_token={token}&join_request=!!"), 400),
        ("/rtc/validate".to_owned(), 401),
        ("/rtc/validate?access_token=x".to_owned(), 401),
        (format!("/rtc/validate?access_token={api}"), 401),
        (
            format!("/rtc/v1/validate?access_token={token}&join_request={}", join_request(20_000)),
            200,
        ),
        (
            format!("/rtc/v1/validate?access_token={token}&join_request={}", join_request(40_000)),
            414,
        ),
    ] {
        for origin in ["", "https://elsewhere.example"] {
            let headers = [("origin", origin)];
            let headers = if origin.is_empty() { &headers[..0] } else { &headers };
            let answer = server.request("GET", &path, headers, "");
            assert_eq!(answer.status, status, "{}", answer.body);
            assert_eq!(answer.header("access-control-allow-origin"), Some("*"));
            if status == 200 {
                assert_eq!(answer.body, "success");
            }
        }
    }
    let headers = [("authorization", format!("Bearer {token}"))];
    let headers = headers.each_ref().map(|(name, value)| (*name, value.as_str()));
    assert_eq!(server.request("GET", "/rtc/validate", &headers, "").status, 200);
    // A request line of 32 KiB upgrades.
    let start = format!("/rtc/v1?access_token={token}&join_request=");
    let length = 32 * 1024 - start.len();
    let long = format!("{start}{}", join_request((length - 20) * 3 / 4));
    assert!((32 * 1024 - 64..=32 * 1024).contains(&long.len()), "{}", long.len());
    assert!(server.try_channel(&long).is_ok());
}

#[test]
fn any_page_may_call_with_a_token_of_its_own() {
    let server = Server::demo(&[], &[]);
    let service = text(&server.ready["api_token"]);
    let bearer = format!("Bearer {service}");
    let origin = ("origin", "https://portal.example");
    for path in [SESSIONS, "/api/v1/links/exchange", "/rtc/v1/validate"] {
        let headers = [
            origin,
            ("access-control-request-method", "POST"),
            ("access-control-request-headers", "authorization,content-type"),
        ];
        let asked = server.request("OPTIONS", path, &headers, "");
        assert!(matches!(asked.status, 200 | 204), "{path}: {asked:?}");
        assert_eq!(asked.header("access-control-allow-origin"), Some("*"), "{path}");
        let allowed = asked.header("access-control-allow-headers").unwrap().to_lowercase();
        assert!(allowed.contains("authorization") && allowed.contains("content-type"));
        assert!(asked.header("access-control-allow-methods").unwrap().contains("POST"));
        assert!(asked.header("access-control-allow-credentials").is_none());
    }
    let answer = server.request("GET", SESSIONS, &[origin, ("authorization", &bearer)], "");
    assert_eq!((answer.status, answer.header("access-control-allow-origin")), (200, Some("*")));
    assert!(answer.header("access-control-allow-credentials").is_none());
    // A page reads errors, too.
    let refused = server.request("GET", SESSIONS, &[origin], "");
    assert_eq!((refused.status, refused.header("access-control-allow-origin")), (401, Some("*")));
}

#[test]
fn only_listed_pages_may_call_where_there_is_a_list() {
    let listed = "https://portal.example";
    let server = Server::serve(&[("BEDSIDE_HTTP__ALLOWED_ORIGINS", listed)]);
    let bearer = format!("Bearer {}", server.api_token("service", "booking"));
    let ask = |origin| {
        server.request("GET", SESSIONS, &[("origin", origin), ("authorization", &bearer)], "")
    };
    let known = ask(listed);
    assert_eq!((known.status, known.header("access-control-allow-origin")), (200, Some(listed)));
    assert_eq!(known.header("vary").map(str::to_lowercase).as_deref(), Some("origin"));
    let other = ask("https://elsewhere.example");
    assert_eq!((other.status, other.header("access-control-allow-origin")), (403, None));
    // Our own pages need no entry, and what is no page at all has no origin.
    let own = format!("http://{}", server.address);
    assert_eq!(ask(&own).status, 200);
    let plain = server.request("GET", SESSIONS, &[("authorization", &bearer)], "");
    assert_eq!(plain.status, 200);
}

#[test]
fn nothing_personal_reaches_the_log() {
    let server = Server::demo(&[], &[("BEDSIDE_LOG__FILTER", "debug")]);
    let (id, room) =
        server.consultation(json!({"doctorName": "Dr. Hunter", "patientName": "Hunter Pat"}));
    let (doctor, patient) = (server.api_token("doctor", "dr"), server.api_token("patient", "pat"));
    let link = server.act(&id, "links", &doctor, json!({"userId": "pat", "role": "patient"}));
    let link = text(&link.json()["link"]);
    let (_, secret) = link.split_once('#').unwrap();
    server.ask("POST", "/api/v1/links/exchange", "", json!({"link": secret}));
    server.act(&id, "join", &patient, json!({}));
    server.act(&id, "admit", &doctor, json!({"userId": "pat"}));
    let access = text(&server.act(&id, "join", &patient, json!({})).json()["accessToken"]);
    let mut inside = Room::enter(&server, &access).unwrap();
    inside.connected();
    let mut channel = server.channel(&format!("{SESSIONS}/{id}/channel"), &patient);
    channel.hear_of("READY");
    let said = json!({"type": "CHAT_MESSAGE", "payload": {"content": "hunter text", "messageType": "text"}});
    channel.say(&said);
    channel.hear_of("CHAT_MESSAGE");
    let minted = server.room_token(&room, "pat");
    server.get(&format!("/rtc/validate?access_token={minted}&hunter=1"));
    server.get(&format!("/hunter/{minted}?hunter=2"));
    server.ask("GET", &format!("{SESSIONS}/hunter?limit=hunter"), &doctor, Value::Null);
    server.act(&id, "end", &doctor, json!({"reason": "hunter reason"}));
    inside.left();
    let log = server.log();
    assert!(log.contains("answered"), "the filter lets everything through");
    for private in [&doctor, &patient, &access, &minted, secret, "Somebody"] {
        assert!(!log.contains(private), "{private} was logged");
    }
    let found: Vec<_> = log.lines().filter(|line| line.to_lowercase().contains("hunter")).collect();
    assert!(found.is_empty(), "{found:#?}");
}
