//! Timers: when they are due, and who rings.

use chrono::Duration as Span;
use serde_json::{Value, json};

use super::*;
use crate::consultation::{Device, Happening};
use crate::sessions::NewSession;
use crate::store::now;
use crate::testing::{Database, World, doctor, on_both_databases, path, patient};

on_both_databases!(
    nobody_comes_and_a_restart_does_not_matter,
    everyone_leaves_and_it_ends,
    of_two_processes_one_acts,
    old_times_are_corrected_and_ring_nothing,
    a_lost_connection_is_told_after_a_crash,
    the_history_is_read_in_pages,
    everything_of_a_person_is_stored,
    links_live_on_when_it_is_reopened,
);

fn timers() -> Timers {
    Timers {
        no_show_after: Duration::from_secs(600),
        idle_end_after: Duration::from_secs(300),
        overrun_end_after: Duration::from_secs(3600),
        reconnect_timeout: Duration::from_secs(60),
        reconnect_attempts: 3,
    }
}

/// A consultation that begins at second 0 and is planned for 15 minutes.
async fn visit() -> Consultation {
    let world = World::new(Database::sqlite()).await;
    let new = NewSession {
        appointment_id: None,
        doctor_id: Some("doc".to_owned()),
        doctor_name: None,
        patient_id: Some("pat".to_owned()),
        patient_name: None,
        mode: Mode::Video,
        scheduled_start: Some(at(0)),
        scheduled_minutes: None,
        max_participants: None,
    };
    let made = world.plane.control.create("demo", &Actor::Server, &new).await.expect("is made");
    Consultation::clone(&made.0)
}

fn at(second: i64) -> DateTime<Utc> {
    DateTime::from_timestamp(1_800_000_000 + second, 0).expect("a time")
}

fn arrive(user_id: &str) -> Step {
    Step::Arrive { user_id: user_id.to_owned(), name: None, device: Device::default() }
}

fn take(visit: &mut Consultation, steps: &[(i64, Step)]) {
    for (second, step) in steps {
        visit.apply(at(*second), &Actor::Server, step).expect("possible");
    }
}

fn next(visit: &Consultation) -> Option<(i64, Step)> {
    due(visit, &timers()).map(|due| ((due.at - at(0)).num_seconds(), due.step))
}

fn pat() -> String {
    "pat".to_owned()
}

#[tokio::test]
async fn no_shows_are_called_by_who_is_missing() {
    let missing = |reason: &str| Step::NoShow(Some(reason.to_owned()));
    let mut visit = visit().await;
    assert_eq!(next(&visit), Some((1500, missing("nobody_came"))));
    let mut doctor_came = visit.clone();
    take(&mut doctor_came, &[(5, arrive("doc"))]);
    // It is still here: it may wait for as long as an overrun may last.
    assert_eq!(next(&doctor_came), Some((4500, missing("patient_no_show"))));
    take(&mut doctor_came, &[(900, Step::Leave("doc".to_owned()))]);
    assert_eq!(next(&doctor_came), Some((1500, missing("patient_no_show"))));
    take(&mut visit, &[(5, arrive("pat")), (800, Step::GoAway(pat()))]);
    assert_eq!(next(&visit), Some((1500, missing("doctor_no_show"))));
    take(&mut visit, &[(6000, Step::NoShow(None))]);
    assert_eq!(next(&visit), None);
    take(&mut visit, &[(7000, Step::Reopen)]);
    assert_eq!(next(&visit).map(|(second, _)| second), Some(8500), "counted from the reopening");
    assert_eq!(due(&visit, &Timers { no_show_after: Duration::ZERO, ..timers() }), None);
}

#[tokio::test]
async fn what_runs_ends_by_itself_in_the_end() {
    let end = |reason: &str| Step::End(Some(reason.to_owned()));
    let mut visit = visit().await;
    take(&mut visit, &[(60, Step::Start)]);
    assert_eq!(next(&visit), Some((360, end("timeout"))), "nobody has ever been there");
    let connect = |user: &str| Step::Connect(user.to_owned());
    take(&mut visit, &[(70, arrive("doc")), (70, arrive("pat")), (80, Step::Admit(pat()))]);
    take(&mut visit, &[(90, connect("doc")), (95, connect("pat"))]);
    assert_eq!(next(&visit), Some((60 + 900 + 3600, end("timeout"))));
    let leave = |user: &str| Step::Leave(user.to_owned());
    let lost = |user: &str| [Step::Lose(user.to_owned()), Step::GiveUp(user.to_owned())];
    let ended = |steps: Vec<Step>| {
        let mut visit = visit.clone();
        for (second, step) in (200..).zip(steps) {
            take(&mut visit, &[(second, step)]);
        }
        next(&visit).map(|(_, step)| step)
    };
    assert_eq!(ended(vec![leave("pat"), leave("doc")]), Some(end("patient_left")));
    assert_eq!(ended(vec![leave("doc"), leave("pat")]), Some(end("doctor_left")));
    let mut steps = lost("pat").to_vec();
    steps.push(leave("doc"));
    assert_eq!(ended(steps), Some(end("doctor_left")));
    let steps = [lost("pat"), lost("doc")].concat();
    assert_eq!(ended(steps), Some(end("timeout")));
    // Who only writes is not missed.
    let mut chat = visit.clone();
    chat.mode = Mode::Chat;
    take(&mut chat, &[(200, leave("doc")), (201, leave("pat"))]);
    assert_eq!(next(&chat).map(|(second, _)| second), Some(4560));
}

#[tokio::test]
async fn a_lost_connection_has_a_minute_or_three_attempts() {
    let mut visit = visit().await;
    take(&mut visit, &[(1, arrive("pat")), (2, Step::Admit(pat())), (3, Step::Connect(pat()))]);
    take(&mut visit, &[(100, Step::Lose(pat()))]);
    let give_up = Step::GiveUp(pat());
    assert_eq!(next(&visit), Some((160, give_up.clone())));
    let attempt = (105, Step::Attempt(pat()));
    take(&mut visit, &[attempt.clone(), attempt.clone(), attempt.clone()]);
    assert_eq!(next(&visit), Some((160, give_up.clone())));
    take(&mut visit, &[attempt]);
    assert_eq!(next(&visit), Some((100, give_up)), "three did not help");
    take(&mut visit, &[(110, Step::Connect(pat()))]);
    assert_ne!(next(&visit).map(|(second, _)| second), Some(100));
}

#[test]
fn alarms_ring_in_order_and_once() {
    let alarms = Alarms::default();
    let ids: Vec<Uuid> = (0..4).map(|_| Uuid::new_v4()).collect();
    for (second, id) in [30, 10, 20, 40].into_iter().zip(&ids) {
        alarms.set(*id, "demo", Some(at(second)));
    }
    alarms.set(ids[2], "demo", None);
    alarms.set(ids[3], "demo", Some(at(5)));
    assert_eq!(alarms.next(), Some(at(5)));
    let rung =
        |second| alarms.take_due(at(second)).into_iter().map(|(_, id)| id).collect::<Vec<_>>();
    assert_eq!(rung(10), [ids[3], ids[1]]);
    assert!(rung(29).is_empty());
    assert_eq!(rung(1000), [ids[0]]);
    assert_eq!(alarms.next(), None);
}

async fn stored(world: &World, id: Uuid) -> Consultation {
    world.plane.control.db.session("demo", id).await.expect("reads").expect("there")
}

async fn happened(world: &World, id: Uuid, happening: Happening) -> usize {
    let rows = world.plane.control.db.session_events(id, None, 1000).await.expect("reads");
    rows.iter().filter(|row| row.event_type == happening.as_str()).count()
}

async fn call(world: &World) -> Uuid {
    let id = world.session().await;
    world.post(&path(id, "/join"), &patient(), Value::Null).await;
    world.post(&path(id, "/join"), &doctor(), Value::Null).await;
    world.post(&path(id, "/admit"), &doctor(), json!({"userId": "pat"})).await;
    id
}

async fn step(world: &World, id: Uuid, step: Step) {
    world.plane.step("demo", id, &step).await.map(|_| ()).expect("possible");
}

async fn nobody_comes_and_a_restart_does_not_matter(database: Database) {
    let world = World::with(database, |config| config.timers = timers()).await;
    let id = world.session().await;
    let world = world.restart().await;
    let control = &world.plane.control;
    let due_at = stored(&world, id).await.due_at.expect("a timer");
    control.ring_others(due_at).await;
    assert_eq!(stored(&world, id).await.status, Status::Scheduled, "others have a head start");
    assert!(control.live.find(id).is_none(), "the database alone knows it");
    control.ring_others(due_at + Span::seconds(5)).await;
    let over = stored(&world, id).await;
    assert_eq!((over.status, over.due_at), (Status::NoShow, None));
    assert_eq!(over.end_reason.as_deref(), Some("nobody_came"));
    assert_eq!((over.ended_by, over.duration_seconds), (None, Some(0)));
    assert!(control.live.find(id).is_none(), "over and let go");
    control.ring_others(due_at + Span::days(1)).await;
    assert_eq!(happened(&world, id, Happening::Ended).await, 1);
    let (status, back) = world.post(&path(id, "/reopen"), &doctor(), Value::Null).await;
    assert_eq!((status.as_u16(), &back["status"]), (200, &json!("WAITING")));
}

async fn everyone_leaves_and_it_ends(database: Database) {
    let world = World::with(database, |config| config.timers = timers()).await;
    let id = call(&world).await;
    for user in ["pat", "doc"] {
        step(&world, id, Step::Connect(user.to_owned())).await;
    }
    let control = &world.plane.control;
    control.ring_own(now() + Span::seconds(600)).await;
    assert_eq!(stored(&world, id).await.status, Status::InProgress, "they talk");
    for user in ["pat", "doc"] {
        step(&world, id, Step::Disconnect(user.to_owned())).await;
    }
    control.ring_own(now() + Span::seconds(299)).await;
    assert_eq!(stored(&world, id).await.status, Status::InProgress);
    control.ring_own(now() + Span::seconds(301)).await;
    let over = stored(&world, id).await;
    assert_eq!(
        (over.status, over.end_reason.as_deref()),
        (Status::Completed, Some("patient_left"))
    );
    assert_eq!(
        control.rooms.asked.lock().expect("no panic").last().map(String::as_str),
        Some("close")
    );
}

async fn of_two_processes_one_acts(database: Database) {
    let world = World::with(database, |config| config.timers = timers()).await;
    let ids = [call(&world).await, call(&world).await, world.session().await];
    let config = world.plane.control.config.clone();
    let other = crate::ControlPlane::open(config).await.expect("a second process");
    let later = now() + Span::days(1);
    let (one, two) = (&world.plane.control, &other.control);
    for _ in 0..3 {
        // Own ones from memory, all of them from the database, both at the same time.
        tokio::join!(
            one.ring_own(later),
            two.ring_own(later),
            one.ring_others(later),
            two.ring_others(later)
        );
    }
    for id in ids {
        assert!(stored(&world, id).await.status.is_over());
        assert_eq!(happened(&world, id, Happening::Ended).await, 1);
    }
    assert!(one.db.due_sessions(later, 10).await.expect("reads").is_empty());
}

async fn old_times_are_corrected_and_ring_nothing(database: Database) {
    let world = World::with(database, |config| config.timers = timers()).await;
    let id = world.session().await;
    let control = &world.plane.control;
    let before = stored(&world, id).await;
    // As if it had been stored under other settings.
    let long_ago = now() - Span::hours(2);
    control.db.set_due(id, before.revision, Some(long_ago)).await.expect("stores");
    control.ring_others(now()).await;
    assert_eq!(stored(&world, id).await, before);
    control.db.set_due(id, before.revision + 1, Some(long_ago)).await.expect("does nothing");
    assert_eq!(stored(&world, id).await, before);
}

async fn a_lost_connection_is_told_after_a_crash(database: Database) {
    let world = World::with(database, |config| config.timers = timers()).await;
    let id = call(&world).await;
    for user in ["pat", "doc"] {
        step(&world, id, Step::Connect(user.to_owned())).await;
    }
    step(&world, id, Step::Lose(pat())).await;
    let since = stored(&world, id).await.person("pat").and_then(|p| p.lost_since).expect("lost");
    // Nobody closed anything: the process is gone, and the next one reads what was stored.
    let config = world.plane.control.config.clone();
    let next = crate::ControlPlane::open(config).await.expect("the next process");
    next.control.ring_own(since + Span::seconds(59)).await;
    let waits = stored(&world, id).await;
    assert_eq!(waits.person("pat").map(|p| p.presence), Some(Presence::Reconnecting));
    next.control.ring_own(since + Span::seconds(60)).await;
    let seen = stored(&world, id).await;
    let person = seen.person("pat").expect("the patient");
    assert_eq!((person.presence, person.connection_lost), (Presence::Left, true));
    assert_eq!(happened(&world, id, Happening::ConnectionLost).await, 1);
    assert_eq!(seen.status, Status::InProgress, "the doctor is still there");
}

async fn the_history_is_read_in_pages(database: Database) {
    let world = World::new(database).await;
    let id = call(&world).await;
    for rest in ["/pause", "/resume", "/end"] {
        world.post(&path(id, rest), &doctor(), Value::Null).await;
    }
    let (mut seen, mut cursor) = (Vec::new(), String::new());
    loop {
        let page = format!("/events?limit=3{cursor}");
        let (status, answer) = world.get(&path(id, &page), &doctor()).await;
        assert_eq!(status.as_u16(), 200, "{answer}");
        for item in answer["items"].as_array().expect("items") {
            seen.push(item["eventType"].as_str().expect("a type").to_owned());
        }
        let Some(next) = answer["nextCursor"].as_str() else { break };
        cursor = format!("&cursor={next}");
    }
    let all = ["created", "patient_joined", "doctor_joined", "admitted", "started", "paused"];
    assert_eq!(seen[..6], all);
    assert_eq!(seen[6..], ["resumed", "ended"]);
    let (status, answer) = world.get(&path(id, "/events"), &doctor()).await;
    let end = &answer["items"][7]["eventData"];
    assert_eq!(
        (status.as_u16(), &end["actor"], &end["to"]),
        (200, &json!("doc"), &json!("COMPLETED"))
    );
    assert_eq!(world.get(&path(id, "/events"), &patient()).await.0.as_u16(), 403);
    for bad in ["?limit=0", "?cursor=%21", "?cursor=AAAA", "?limit=x"] {
        let path = path(id, &format!("/events{bad}"));
        assert_eq!(world.get(&path, &doctor()).await.0.as_u16(), 422, "{bad}");
    }
}

#[tokio::test]
async fn a_running_server_rings_in_time_and_misses_who_waited() {
    let quick = |config: &mut crate::ControlConfig| {
        config.timers = Timers { reconnect_timeout: Duration::from_millis(300), ..timers() };
        config.waiting_grace = Duration::from_millis(50);
    };
    let world = World::with(Database::sqlite(), quick).await;
    let id = call(&world).await;
    step(&world, id, Step::Connect(pat())).await;
    let queue = world.session().await;
    world.post(&path(queue, "/join"), &patient(), Value::Null).await;
    let world = world.restart().await;
    let (facts, heard) = tokio::sync::mpsc::channel(1);
    let run = tokio::spawn(world.plane.clone().run(heard));
    let mut tries = 0;
    loop {
        let (lost, waits) = (stored(&world, id).await, stored(&world, queue).await);
        let lost = lost.person("pat").expect("the patient");
        if lost.connection_lost && waits.waiting().is_empty() {
            assert_eq!(lost.presence, Presence::Left);
            let kept = waits.person("pat").and_then(|p| p.waiting_since);
            assert!(kept.is_some(), "its place is kept");
            break;
        }
        tries += 1;
        assert!(tries < 200, "nothing rang: {:?} {:?}", lost.presence, waits.status);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    drop(facts);
    run.await.expect("it ends with the facts");
}

async fn everything_of_a_person_is_stored(database: Database) {
    let world = World::new(database).await;
    let instant = json!({"patientId": "pat", "consultationMode": "VIDEO"});
    let sessions = "/api/v1/consultations/sessions";
    let (status, made) = world.post(sessions, &doctor(), instant).await;
    assert_eq!((status.as_u16(), &made["doctor"]["id"]), (201, &json!("doc")));
    let id = crate::testing::id_of(&made["sessionId"]);
    let device = json!({"deviceType": "Tablet", "browser": "Firefox", "os": "Android"});
    world.post(&path(id, "/join"), &patient(), device).await;
    for bad in [json!({"deviceType": "toaster"}), json!({"browser": "x".repeat(101)})] {
        let (status, _) = world.post(&path(id, "/join"), &patient(), bad).await;
        assert_eq!(status.as_u16(), 422);
    }
    let figures = crate::consultation::Figures {
        seconds: 65,
        score: Some(4.1),
        packet_loss_percent: Some(0.1 + 0.2),
        video_bitrate_bps: Some(1_250_000),
        audio_level: Some(0.375),
    };
    let mut known = stored(&world, id).await;
    for step in [
        arrive("doc"),
        Step::Admit(pat()),
        Step::Connect(pat()),
        Step::Connect("doc".to_owned()),
        Step::Lose(pat()),
        Step::Attempt(pat()),
        Step::Measure { user_id: pat(), figures },
        Step::Pause,
    ] {
        world.plane.step("demo", id, &step).await.map(|_| ()).expect("possible");
        let told = world.plane.control.look("demo", id).await.expect("known");
        known = stored(&world, id).await;
        assert_eq!(known, *told, "{step:?}");
    }
    let person = known.person("pat").expect("the patient");
    assert_eq!((person.reconnect_attempts, person.lost_since.is_some()), (1, true));
    assert!(known.both_connected_at.is_some() && known.paused_at.is_some());
    let (_, shown) = world.get(&path(id, ""), &doctor()).await;
    let details = &shown["participants"][0]["details"];
    assert_eq!(
        (&details["deviceType"], &details["browser"], &details["os"]),
        (&json!("tablet"), &json!("Firefox"), &json!("Android"))
    );
    assert_eq!(details["connectionQuality"], "excellent");
    let (_, seen) = world.get(&path(id, ""), &patient()).await;
    assert_eq!(seen["participants"][0]["details"], Value::Null);
    let by = Actor::Reported { service: "emr".to_owned(), by: Some(pat()), role: None };
    let end = Step::End(Some("patient_left".to_owned()));
    let over = world.plane.control.step("demo", id, &by, &end).await.expect("ends");
    assert_eq!(stored(&world, id).await, *over);
    let (_, shown) = world.get(&path(id, ""), &doctor()).await;
    assert_eq!((&shown["endedBy"], &shown["endedByRole"]), (&json!("pat"), &json!("patient")));
    assert_eq!(shown["durationSeconds"], shown["totalDurationSeconds"]);
}

async fn links_live_on_when_it_is_reopened(database: Database) {
    let world = World::new(database).await;
    let id = call(&world).await;
    let make = json!({"userId": "pat", "role": "patient"});
    let expiry = async |link: Uuid| {
        let row = world.plane.control.db.link(link).await.expect("reads").expect("there");
        row.expires_at
    };
    let (_, living) = world.post(&path(id, "/links"), &doctor(), make).await;
    let living = crate::testing::id_of(&living["linkId"]);
    let long = expiry(living).await;
    world.post(&path(id, "/end"), &doctor(), Value::Null).await;
    let end = stored(&world, id).await.actual_end.expect("over");
    assert_eq!(expiry(living).await, end + Span::minutes(15));
    world.post(&path(id, "/reopen"), &doctor(), Value::Null).await;
    assert!(expiry(living).await > end + Span::hours(23));
    assert!(long > end + Span::hours(23));
}
