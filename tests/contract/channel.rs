//! The consultation channel, frame by frame.

use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::Message;

use crate::support::{Channel, SESSIONS, Server, keys, text};

fn path(id: &str) -> String {
    format!("{SESSIONS}/{id}/channel")
}

/// The next message that a person has written; the server's own lines are passed over.
fn said_to(channel: &mut Channel) -> Value {
    loop {
        let message = channel.hear_of("CHAT_MESSAGE");
        if message["messageType"] != "system" {
            return message;
        }
    }
}

#[test]
fn a_visit_as_both_sides_hear_it() {
    let server = Server::demo(&[], &[]);
    let (id, _) = server.consultation(Value::Null);
    let (doctor, patient) = (server.api_token("doctor", "dr"), server.api_token("patient", "pat"));
    let mut list = server.channel("/api/v1/consultations/channel", &doctor);
    assert_eq!(list.hear_of("SESSIONS")["items"][0]["sessionId"], id);
    let mut theirs = server.channel(&path(&id), &doctor);
    let ready = theirs.hear();
    assert_eq!(ready["type"], "READY");
    assert_eq!(keys(&ready["payload"]), ["role", "sessionId", "status", "userId"]);

    let waiting = server.act(&id, "join", &patient, json!({})).json();
    assert_eq!(keys(&waiting), ["channelUrl", "position", "status"]);
    assert_eq!(text(&waiting["channelUrl"]), format!("ws://{}{}", server.address, path(&id)));
    let mut own = server.channel(&path(&id), &patient);
    assert_eq!(own.hear_of("WAITING"), json!({"position": 1}));
    assert_eq!(list.hear_of("SESSION_CHANGED")["session"]["waiting"][0]["userId"], "pat");

    assert_eq!(server.act(&id, "admit", &doctor, json!({"userId": "pat"})).status, 200);
    assert_eq!(own.hear_of("ADMITTED"), json!({}));
    let status = theirs.hear_of("PARTICIPANT_STATUS");
    assert_eq!(keys(&status), ["participantId", "status"]);
    assert_eq!(status["participantId"], "pat");
    server.act(&id, "join", &doctor, json!({}));
    let status = own.hear_of("SESSION_STATUS");
    assert_eq!(keys(&status), ["participants", "sessionId", "status"]);
    assert_eq!(keys(&status["participants"][0]), ["name", "role", "status", "userId"]);

    assert_eq!(server.act(&id, "send-back", &doctor, json!({"userId": "pat"})).status, 200);
    assert_eq!(own.hear_of("SENT_BACK"), json!({}));
    assert_eq!(server.act(&id, "end", &doctor, json!({})).status, 200);
    while own.hear_of("SESSION_STATUS")["status"] != "COMPLETED" {}
}

#[test]
fn chat_crosses_and_stays() {
    let server = Server::demo(&[], &[]);
    let (id, _) = server.consultation(Value::Null);
    let (doctor, patient) = (server.api_token("doctor", "dr"), server.api_token("patient", "pat"));
    server.act(&id, "join", &doctor, json!({}));
    server.act(&id, "join", &patient, json!({}));
    let mut theirs = server.channel(&path(&id), &doctor);
    let mut own = server.channel(&path(&id), &patient);
    let said = json!({"type": "CHAT_MESSAGE",
        "payload": {"sessionId": id, "content": "hunter2 <b>", "messageType": "text"}});
    own.say(&said);
    assert!(own.hear_of("ERROR")["code"].is_string(), "nobody writes from the waiting room");
    server.act(&id, "admit", &doctor, json!({"userId": "pat"}));
    own.hear_of("ADMITTED");
    own.say(&said);
    let heard = said_to(&mut theirs);
    let expected = [
        "content",
        "messageId",
        "messageType",
        "senderId",
        "senderName",
        "senderType",
        "sessionId",
        "timestamp",
    ];
    assert!(expected.iter().all(|key| keys(&heard).contains(key)), "{heard}");
    assert_eq!((&heard["content"], &heard["senderId"]), (&"hunter2 <b>".into(), &"pat".into()));
    assert_eq!((&heard["senderType"], &heard["messageType"]), (&"patient".into(), &"text".into()));
    assert_eq!(said_to(&mut own)["messageId"], heard["messageId"]);

    // The client's own id makes a repeat harmless.
    let twice = json!({"type": "CHAT_MESSAGE",
        "payload": {"content": "once", "messageType": "text", "clientId": "c-1"}});
    theirs.say(&twice);
    theirs.say(&twice);
    assert_eq!(said_to(&mut theirs)["clientId"], "c-1");
    assert_eq!(said_to(&mut own)["clientId"], "c-1");
    let history = server.ask("GET", &format!("{SESSIONS}/{id}/chat"), &patient, Value::Null);
    let contents: Vec<_> = history.json()["items"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|item| item["messageType"] != "system")
        .map(|item| text(&item["content"]))
        .collect();
    assert_eq!(contents, ["hunter2 <b>", "once"]);
    let page = server.ask("GET", &format!("{SESSIONS}/{id}/chat?limit=1"), &patient, Value::Null);
    let cursor = text(&page.json()["nextCursor"]);
    let path = format!("{SESSIONS}/{id}/chat?limit=1&before={cursor}");
    let older = server.ask("GET", &path, &patient, Value::Null).json();
    assert_eq!(older["items"][0]["content"], "hunter2 <b>");
}

#[test]
fn the_first_frame_says_who_comes() {
    let server = Server::demo(&[], &[]);
    let (id, room) = server.consultation(Value::Null);
    // Nothing at all, within five seconds.
    let mut silent = server.silent_channel(&path(&id));
    let mut other = server.silent_channel(&path(&id));
    other.say(&json!({"type": "PING", "payload": {}}));
    assert_eq!(other.close_code(), 4401);
    for token in ["", "x.y.z", &server.room_token(&room, "dr")] {
        assert_eq!(server.channel(&path(&id), token).close_code(), 4401);
    }
    let elsewhere = server.api_token_of("north", "doctor", "dr");
    let mut channel = server.channel(&path(&id), &elsewhere);
    assert_eq!(channel.hear_of("ERROR")["code"], "not_found");
    let stranger = server.api_token("patient", "eve");
    let mut channel = server.channel(&path(&id), &stranger);
    assert_eq!(channel.hear_of("ERROR")["code"], "forbidden");
    assert_eq!(silent.close_code(), 4401);
}

#[test]
fn nonsense_is_answered_and_then_ended() {
    let server = Server::demo(&[], &[]);
    let (id, _) = server.consultation(Value::Null);
    let doctor = server.api_token("doctor", "dr");
    let mut channel = server.channel(&path(&id), &doctor);
    channel.hear_of("READY");
    channel.say(&json!({"type": "PING", "payload": {}}));
    assert_eq!(channel.hear_of("PONG"), json!({}));
    channel.say_raw(Message::text("{"));
    assert_eq!(keys(&channel.hear_of("ERROR")), ["code", "detail"]);
    channel.say(&json!({"type": "PING"}));
    channel.hear_of("PONG");
    channel.say(&json!({"type": "REBOOT", "payload": {}}));
    channel.hear_of("ERROR");
    channel.say_raw(Message::binary(vec![0; 8]));
    assert_eq!(channel.close_code(), 1008);
    let mut channel = server.channel(&path(&id), &doctor);
    channel.hear_of("READY");
    channel.say_raw(Message::text("x".repeat(64 * 1024 + 1)));
    channel.outlive();
    assert_eq!(server.get("/livez").status, 200);
}

#[test]
fn presence_in_the_room_reaches_the_other_person() {
    let server = Server::demo(&[], &[]);
    let (id, _) = server.consultation(Value::Null);
    let (doctor, patient) = (server.api_token("doctor", "dr"), server.api_token("patient", "pat"));
    server.act(&id, "join", &patient, json!({}));
    let token = text(&server.act(&id, "join", &doctor, json!({})).json()["accessToken"]);
    let mut own = server.channel(&path(&id), &patient);
    own.hear_of("READY");
    // In capitals here, in small letters in lists of participants.
    let room = crate::rooms::Room::enter(&server, &token).unwrap();
    let told = |status: &str| json!({"participantId": "dr", "status": status});
    while own.hear_of("PARTICIPANT_STATUS") != told("CONNECTED") {}
    room.leave();
    while own.hear_of("PARTICIPANT_STATUS") != told("LEFT") {}
}
