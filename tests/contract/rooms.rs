//! Rooms as their clients see them: who comes in, who does not, and who is put out.

use bedside_client::{ConnectError, ConnectOptions, LeaveCause, Participant, ParticipantEvent};
use serde_json::json;
use tokio::sync::mpsc;

use crate::support::{PATIENCE, SESSIONS, Server, text};

/// Somebody in a room.
pub(crate) struct Room {
    runtime: tokio::runtime::Runtime,
    participant: Participant,
    events: mpsc::Receiver<ParticipantEvent>,
}

impl Room {
    /// Joins with a token that was minted on the command line.
    pub(crate) fn join(server: &Server, room: &str, who: &str) -> Result<Self, ConnectError> {
        Self::enter(server, &server.room_token(room, who))
    }

    /// Joins with this token.
    pub(crate) fn enter(server: &Server, token: &str) -> Result<Self, ConnectError> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let options = ConnectOptions::new(format!("ws://{}", server.address), token);
        let (participant, events) = runtime.block_on(Participant::connect(options))?;
        Ok(Self { runtime, participant, events })
    }

    /// Waits until media can flow.
    pub(crate) fn connected(&mut self) {
        self.wait_for(|event| matches!(event, ParticipantEvent::Connected).then_some(()));
    }

    /// Waits for the end, and says what the server gave as its reason.
    pub(crate) fn left(&mut self) -> Option<i32> {
        self.wait_for(|event| match event {
            ParticipantEvent::Left(LeaveCause::Server(reason)) => Some(Some(reason)),
            ParticipantEvent::Left(_) => Some(None),
            _ => None,
        })
    }

    /// Says goodbye.
    pub(crate) fn leave(mut self) {
        self.runtime.block_on(self.participant.leave()).unwrap();
        self.left();
    }

    fn wait_for<T>(&mut self, wanted: impl Fn(ParticipantEvent) -> Option<T>) -> T {
        let events = &mut self.events;
        let waiting = async {
            while let Some(event) = events.recv().await {
                if let Some(found) = wanted(event) {
                    return found;
                }
            }
            panic!("the participant fell silent");
        };
        self.runtime
            .block_on(async { tokio::time::timeout(PATIENCE, waiting).await })
            .expect("it happens in time")
    }
}

/// Admits the patient; the tokens of both.
fn both_in(server: &Server, id: &str) -> (String, String) {
    let (doctor, patient) = (server.api_token("doctor", "dr"), server.api_token("patient", "pat"));
    let first = server.act(id, "join", &doctor, json!({}));
    assert_eq!(server.act(id, "join", &patient, json!({})).status, 202);
    assert_eq!(server.act(id, "admit", &doctor, json!({"userId": "pat"})).status, 200);
    let second = server.act(id, "join", &patient, json!({}));
    assert_eq!(second.status, 200, "{}", second.body);
    (text(&first.json()["accessToken"]), text(&second.json()["accessToken"]))
}

#[test]
fn every_advertised_address_is_told() {
    // One is nobody's: only who hears the other too gets media.
    let server = Server::demo(
        &["--host", "0.0.0.0", "--advertise", "192.0.2.9", "--advertise", "127.0.0.1"],
        &[],
    );
    assert!(text(&server.ready["url"]).starts_with("http://192.0.2.9:"));
    Room::join(&server, "hall", "ada").unwrap().connected();
}

#[test]
fn a_patient_who_was_not_let_in_has_no_way_in() {
    let server = Server::demo(&[], &[]);
    let (id, room) = server.consultation(json!({}));
    let patient = server.api_token("patient", "pat");
    let waiting = server.act(&id, "join", &patient, json!({}));
    assert_eq!(waiting.status, 202);
    assert!(waiting.json().get("accessToken").is_none());
    // A token that is signed well opens nothing either, and an API token is none.
    let early = server.room_token(&room, "pat");
    let asked = server.get(&format!("/rtc/validate?access_token={early}"));
    assert_eq!((asked.status, asked.body.as_str()), (403, "permissions denied"));
    assert!(Room::enter(&server, &early).is_err());
    assert_eq!(server.get(&format!("/rtc/validate?access_token={patient}")).status, 401);
    let stranger = server.room_token(&room, "eve");
    assert_eq!(server.get(&format!("/rtc/validate?access_token={stranger}")).status, 403);
    let doctor = server.api_token("doctor", "dr");
    assert_eq!(server.act(&id, "admit", &doctor, json!({"userId": "pat"})).status, 200);
    let joined = server.act(&id, "join", &patient, json!({}));
    Room::enter(&server, &text(&joined.json()["accessToken"])).unwrap().connected();
}

#[test]
fn sending_back_puts_the_patient_out() {
    let server = Server::demo(&[], &[]);
    let (id, _) = server.consultation(json!({}));
    let (_, patient) = both_in(&server, &id);
    let mut inside = Room::enter(&server, &patient).unwrap();
    inside.connected();
    let doctor = server.api_token("doctor", "dr");
    assert_eq!(server.act(&id, "send-back", &doctor, json!({"userId": "pat"})).status, 200);
    // DisconnectReason PARTICIPANT_REMOVED.
    assert_eq!(inside.left(), Some(4));
    assert!(Room::enter(&server, &patient).is_err(), "the old token is of no use");
}

#[test]
fn two_persons_and_no_third() {
    let server = Server::demo(&[], &[]);
    let (id, room) = server.consultation(json!({}));
    let (doctor, patient) = both_in(&server, &id);
    let _doctor = Room::enter(&server, &doctor).unwrap();
    let _patient = Room::enter(&server, &patient).unwrap();
    let service = server.api_token("service", "booking");
    server.act(&id, "join", &service, json!({"userId": "interpreter"})).is_problem(409);
    assert!(Room::join(&server, &room, "interpreter").is_err());
}

#[test]
fn the_limit_can_be_raised_for_one_consultation() {
    let server = Server::demo(&[], &[]);
    let (id, _) = server.consultation(json!({"maxParticipants": 3}));
    let (doctor, patient) = both_in(&server, &id);
    let mut inside = [doctor, patient].map(|token| Room::enter(&server, &token).unwrap());
    let service = server.api_token("service", "booking");
    let body = json!({"userId": "interpreter", "name": "Iris"});
    assert_eq!(server.act(&id, "join", &service, body.clone()).status, 202);
    assert_eq!(server.act(&id, "admit", &service, json!({"userId": "interpreter"})).status, 200);
    let third = server.act(&id, "join", &service, body);
    assert_eq!((third.status, &third.json()["participantType"]), (200, &"GUEST".into()));
    Room::enter(&server, &text(&third.json()["accessToken"])).unwrap().connected();
    inside.iter_mut().for_each(Room::connected);
    // Anybody may wait; there is no fourth place.
    let fourth = json!({"userId": "uncle"});
    assert_eq!(server.act(&id, "join", &service, fourth.clone()).status, 202);
    server.act(&id, "admit", &service, fourth).is_problem(409);
}

#[test]
fn the_end_closes_the_room_and_its_doors() {
    let server = Server::demo(&[], &[]);
    let (id, _) = server.consultation(json!({}));
    let (doctor, patient) = both_in(&server, &id);
    let mut inside = [&doctor, &patient].map(|token| Room::enter(&server, token).unwrap());
    inside.iter_mut().for_each(Room::connected);
    let by = server.api_token("doctor", "dr");
    let ended = server.act(&id, "end", &by, json!({}));
    assert_eq!((ended.status, &ended.json()["status"]), (200, &"COMPLETED".into()));
    // DisconnectReason ROOM_DELETED.
    assert_eq!(inside.each_mut().map(Room::left), [Some(5); 2]);
    for token in [&doctor, &patient] {
        assert!(Room::enter(&server, token).is_err());
    }
    server.act(&id, "join", &by, json!({})).is_problem(409);
    server.act(&id, "join", &server.api_token("patient", "pat"), json!({})).is_problem(409);
    let seen = server.ask("GET", &format!("{SESSIONS}/{id}"), &by, json!(null)).json();
    assert!(seen["actualEndTime"].is_string(), "{seen}");
}

#[test]
fn in_the_demo_any_room_is_made_for_any_number_of_people() {
    let server = Server::demo(&[], &[]);
    for room in ["hall", "consultation-1", "a room/with \u{fc} signs"] {
        let people: Vec<_> =
            ["a", "b", "c", "d"].map(|who| Room::join(&server, room, who).unwrap()).into();
        drop(people);
    }
}

#[test]
fn serve_makes_no_room_unless_it_is_told_to() {
    let server = Server::serve(&[]);
    let token = server.room_token("hall", "ada");
    let asked = server.get(&format!("/rtc/validate?access_token={token}"));
    assert_eq!((asked.status, asked.body.as_str()), (404, "requested room does not exist"));
    assert!(Room::enter(&server, &token).is_err());
    let server = Server::serve(&[("BEDSIDE_ROOMS__AUTO_CREATE", "true")]);
    Room::join(&server, "hall", "ada").unwrap().connected();
}
