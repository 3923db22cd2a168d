//! The audit log from outside: what leaves a row, what the chain finds, who may read it.

use axum::http::{Method, StatusCode};
use serde_json::{Value, json};
use uuid::Uuid;

use super::{Deed, Fault, FaultKind, Line, Origin, Outcome, Record, Report, Verifier, Who, export};
use crate::store::{AuditPage, Db, Tx, execute};
use crate::testing::{
    Database, World, doctor, id_of, keys, on_both_databases, path, patient, service, token,
    token_of,
};
use crate::token::ApiRole;

const SESSIONS: &str = "/api/v1/consultations/sessions";

on_both_databases!(
    every_request_of_somebody_known_leaves_one_row,
    a_change_without_its_row_does_not_happen,
    what_was_tampered_with_is_found,
    one_of_two_instances_seals,
    the_export_is_for_auditors_and_is_audited,
    rows_of_many_readers_share_transactions,
    what_leaves_no_trace_is_refused,
    a_flood_waits_for_its_rows_and_loses_none,
);

/// Everything in the log so far, sealed.
async fn log(world: &World, clinic: &str) -> Vec<Record> {
    let control = &world.plane.control;
    control.finish_audit().await;
    control.seal_audit().await;
    let page = AuditPage { limit: 10_000, ..AuditPage::default() };
    let (lines, _) = export::page(&control.db, clinic, &page).await.expect("the log");
    let rows = lines.into_iter().filter_map(|line| match line {
        Line::Row(row) => Some(*row),
        Line::Anchor(_) => None,
    });
    rows.collect()
}

async fn verified(world: &World) -> Report {
    let db = &world.plane.control.db;
    export::verify(db, keys(), None).await.expect("the log is read")
}

async fn every_request_of_somebody_known_leaves_one_row(database: Database) {
    let world = World::new(database).await;
    let id = world.session().await;
    let body = json!({"userId": "pat", "role": "patient"});
    let (_, link) = world.post(&path(id, "/links"), &service(), body).await;
    let secret = link["link"].as_str().unwrap().split_once('#').unwrap().1.to_owned();
    let body = json!({"link": secret});
    let (_, exchanged) = world.call(Method::POST, "/api/v1/links/exchange", None, body).await;
    let me = exchanged["token"].as_str().unwrap().to_owned();
    world.post(&path(id, "/join"), &me, Value::Null).await;
    world.post(&path(id, "/admit"), &doctor(), json!({"userId": "pat"})).await;
    world.post(&path(id, "/join"), &me, Value::Null).await;
    world.get(&path(id, ""), &me).await;
    world.get(&path(id, "/chat"), &doctor()).await;
    world.get(SESSIONS, &doctor()).await;
    world.post(&path(id, "/end"), &patient(), Value::Null).await;
    world.post(&path(id, "/end"), &doctor(), Value::Null).await;
    world.post(&path(id, "/pause"), &doctor(), Value::Null).await;
    world.get(&path(Uuid::nil(), ""), &doctor()).await;
    world.get(&path(id, ""), "nonsense").await;
    let rows = log(&world, "demo").await;
    let told: Vec<_> = rows
        .iter()
        .map(|row| (row.actor_kind.as_str(), row.action.as_str(), row.outcome.as_str()))
        .collect();
    const ONE: &str = "/api/v1/consultations/sessions/{id}";
    let one = |method: &str, rest: &str| format!("{method} {ONE}{rest}");
    let expected = [
        ("service", format!("POST {SESSIONS}"), "done"),
        ("service", one("POST", "/links"), "done"),
        ("link", "POST /api/v1/links/exchange".to_owned(), "done"),
        ("patient", one("POST", "/join"), "done"),
        ("doctor", one("POST", "/admit"), "done"),
        ("patient", one("POST", "/join"), "done"),
        ("patient", one("GET", ""), "done"),
        ("doctor", one("GET", "/chat"), "done"),
        ("doctor", format!("GET {SESSIONS}"), "done"),
        ("patient", one("POST", "/end"), "refused"),
        ("doctor", one("POST", "/end"), "done"),
        ("doctor", one("POST", "/pause"), "rejected"),
        ("doctor", one("GET", ""), "not_found"),
    ];
    let mut told_sorted = told.clone();
    let mut expected: Vec<_> =
        expected.iter().map(|(kind, action, outcome)| (*kind, action.as_str(), *outcome)).collect();
    // A row that was kept for later may come a moment later.
    told_sorted.sort_unstable();
    expected.sort_unstable();
    assert_eq!(told_sorted, expected);
    let about = |action: &str| rows.iter().find(|row| row.action == action).unwrap();
    assert_eq!(about("POST /api/v1/consultations/sessions").session_id, Some(id));
    let join = about(&one("POST", "/join"));
    assert_eq!((join.session_id, join.subject.as_deref()), (Some(id), Some("pat")));
    let link_id = link["linkId"].as_str().unwrap();
    assert_eq!(join.credential, Some(format!("link:{link_id}")));
    assert_eq!(about("GET /api/v1/consultations/sessions").listed, [id]);
    assert!(rows.iter().all(|row| row.request_id.is_some()));
    assert_eq!(rows.last().unwrap().sequence, i64::try_from(rows.len()).unwrap());
    assert_eq!(verified(&world).await.faults, []);
}

async fn a_change_without_its_row_does_not_happen(database: Database) {
    let world = World::new(database).await;
    let id = world.session().await;
    world.post(&path(id, "/join"), &patient(), Value::Null).await;
    let db = &world.plane.control.db;
    run(db, "ALTER TABLE audit_log RENAME TO gone").await;
    let admit = json!({"userId": "pat"});
    let (status, _) = world.post(&path(id, "/admit"), &doctor(), admit.clone()).await;
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
    let (status, _) = world.get(&path(id, ""), &doctor()).await;
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE, "what leaves no trace is not shown");
    run(db, "ALTER TABLE gone RENAME TO audit_log").await;
    let (_, seen) = world.get(&path(id, ""), &doctor()).await;
    assert_eq!(seen["status"], "WAITING");
    assert_eq!(world.post(&path(id, "/admit"), &doctor(), admit).await.0, StatusCode::OK);
}

async fn run(db: &Db, sql: &'static str) {
    let mut tx = db.begin().await.expect("a transaction");
    match &mut tx {
        Tx::Sqlite(tx) => drop(sqlx::raw_sql(sql).execute(&mut **tx).await.expect(sql)),
        Tx::Postgres(tx) => drop(sqlx::raw_sql(sql).execute(&mut **tx).await.expect(sql)),
    }
    tx.commit_alone().await.expect("commits");
}

/// Twelve sealed rows and two anchors.
async fn sealed(database: Database) -> World {
    let world = World::new(database).await;
    let id = world.session().await;
    for _ in 0..5 {
        world.get(&path(id, ""), &doctor()).await;
    }
    world.plane.control.seal_audit().await;
    for _ in 0..6 {
        world.get(&path(id, ""), &doctor()).await;
    }
    assert_eq!(log(&world, "demo").await.len(), 12);
    let report = verified(&world).await;
    assert_eq!((report.rows, report.anchors, report.unsigned), (12, 2, 0));
    assert_eq!(report.faults, []);
    world
}

async fn what_was_tampered_with_is_found(database: Database) {
    let world = sealed(database).await;
    let db = &world.plane.control.db;
    let fault = |sequence, kind| Fault { clinic: "demo".to_owned(), sequence, kind };
    // Changed, and back.
    run(db, "UPDATE audit_log SET outcome = 'failed' WHERE sequence = 5").await;
    assert_eq!(verified(&world).await.faults, [fault(5, FaultKind::Changed)]);
    run(db, "UPDATE audit_log SET outcome = 'done' WHERE sequence = 5").await;
    assert_eq!(verified(&world).await.faults, []);
    // Reordered, and back.
    const SWAP: &str = "UPDATE audit_log SET sequence = -1 WHERE sequence = 7; \
        UPDATE audit_log SET sequence = 7 WHERE sequence = 8; \
        UPDATE audit_log SET sequence = 8 WHERE sequence = -1";
    run(db, SWAP).await;
    let found = verified(&world).await.faults;
    assert_eq!(found.first(), Some(&fault(7, FaultKind::Changed)), "{found:?}");
    run(db, SWAP).await;
    assert_eq!(verified(&world).await.faults, []);
    // Inserted at the end, with any hash.
    run(
        db,
        "INSERT INTO audit_log SELECT room.id, log.clinic, log.at, log.actor_id, log.actor_kind, \
         log.credential, log.action, log.session_id, log.subject, log.listed, log.outcome, \
         log.address, log.request_id, 13, log.hash \
         FROM audit_log AS log, consultation_sessions AS room WHERE log.sequence = 12",
    )
    .await;
    assert_eq!(verified(&world).await.faults, [fault(13, FaultKind::Changed)]);
    // The end of the log with what tells of it.
    run(db, "DELETE FROM audit_log WHERE sequence > 10").await;
    let found = verified(&world).await.faults;
    assert_eq!(found, [fault(12, FaultKind::Missing), fault(12, FaultKind::Anchor)]);
    run(
        db,
        "UPDATE audit_chains SET sequence = 10, hash = (SELECT hash FROM audit_log \
        WHERE sequence = 10)",
    )
    .await;
    assert_eq!(verified(&world).await.faults, [fault(12, FaultKind::Anchor)]);
    run(db, "DELETE FROM audit_anchors WHERE sequence = 12").await;
    // Only who has the anchor from outside knows now.
    let report = verified(&world).await;
    assert_eq!((report.faults.as_slice(), report.heads["demo"].0), (&[][..], 10));
    // Removed in the middle.
    run(db, "DELETE FROM audit_log WHERE sequence = 3").await;
    assert_eq!(verified(&world).await.faults, [fault(4, FaultKind::Missing)]);
    // An anchor that another key has signed.
    run(db, "UPDATE audit_anchors SET hash = (SELECT hash FROM audit_log WHERE sequence = 1)")
        .await;
    let found = verified(&world).await.faults;
    assert!(found.iter().any(|fault| fault.kind == FaultKind::Forged), "{found:?}");
}

async fn one_of_two_instances_seals(database: Database) {
    let world = World::new(database).await;
    let other = world.beside().await;
    let id = world.session().await;
    for round in 0..20 {
        let side = if round % 2 == 0 { &world } else { &other };
        side.get(&path(id, ""), &doctor()).await;
        tokio::join!(world.plane.control.seal_audit(), other.plane.control.seal_audit());
    }
    assert_eq!(log(&world, "demo").await.len(), 21);
    assert_eq!(verified(&world).await.faults, []);
    // Its holder is gone: the other one takes over when the lease has run out.
    let db = &world.plane.control.db;
    let mut tx = db.begin().await.expect("a transaction");
    const TAKE: &str = "UPDATE audit_chains SET holder = $1, lease_until = $2";
    let hour = chrono::Duration::hours(1);
    let soon = crate::store::now() + hour;
    execute!(&mut tx, TAKE, Uuid::nil(), soon).expect("a lease of somebody else");
    tx.commit_alone().await.expect("commits");
    other.get(&path(id, ""), &doctor()).await;
    assert_eq!(log(&other, "demo").await.len(), 21, "the lease holds");
    let mut tx = db.begin().await.expect("a transaction");
    execute!(&mut tx, TAKE, Uuid::nil(), crate::store::now() - hour).expect("it has run out");
    tx.commit_alone().await.expect("commits");
    assert_eq!(log(&other, "demo").await.len(), 22);
    assert_eq!(verified(&other).await.faults, []);
}

async fn the_export_is_for_auditors_and_is_audited(database: Database) {
    let world = sealed(database).await;
    let foreign = token_of(ApiRole::Admin, "boss", "south");
    world.get(SESSIONS, &foreign).await;
    for refused in [doctor(), patient(), service()] {
        assert_eq!(world.get("/api/v1/audit", &refused).await.0, StatusCode::FORBIDDEN);
    }
    let auditor = token(ApiRole::Auditor, "auditor");
    let (status, _) = world.get(SESSIONS, &auditor).await;
    assert_eq!(status, StatusCode::FORBIDDEN, "an auditor sees no patient");
    for bad in ["limit=0", "limit=10001", "after=-1", "after=x", "sessionId=x", "actorId="] {
        let (status, _) = world.get(&format!("/api/v1/audit?{bad}"), &auditor).await;
        assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY, "{bad}");
    }
    let sealed = log(&world, "demo").await.len();
    let mut verifier = Verifier::new(keys());
    let (mut after, mut lines, mut pages) = (0, 0, 0);
    loop {
        let uri = format!("/api/v1/audit?after={after}&limit=7");
        let (status, headers, text) = world.text(&uri, &auditor).await;
        assert_eq!(status, StatusCode::OK);
        assert_eq!(headers["content-type"], "application/x-ndjson");
        text.lines().for_each(|line| verifier.line(line));
        lines += text.lines().filter(|line| line.contains(r#""kind":"row""#)).count();
        pages += 1;
        let Some(next) = headers.get("x-next-after") else { break };
        after = next.to_str().unwrap().parse().unwrap();
    }
    let report = verifier.finish();
    assert_eq!(report.faults, []);
    assert_eq!(lines, sealed);
    assert_eq!(report.heads.keys().collect::<Vec<_>>(), ["demo"], "no other clinic's rows");
    let reads = log(&world, "demo").await;
    let reads = reads.iter().filter(|r| r.action == "GET /api/v1/audit" && r.outcome == "done");
    assert_eq!(reads.count(), pages, "reading the log is in the log");
    // Who saw what of one patient.
    let id = world.session().await;
    world.get(&path(id, ""), &doctor()).await;
    log(&world, "demo").await;
    let (_, _, text) = world.text(&format!("/api/v1/audit?sessionId={id}"), &auditor).await;
    assert_eq!(text.lines().count(), 2);
    let (_, _, text) = world.text("/api/v1/audit?actorId=doc&limit=3", &auditor).await;
    assert!(text.lines().all(|line| line.contains(r#""actorId":"doc""#)));
    let (_, _, theirs) = world.text("/api/v1/audit", &foreign).await;
    assert!(!theirs.contains(&id.to_string()) && !theirs.contains("demo"));
}

async fn rows_of_many_readers_share_transactions(database: Database) {
    let world = World::new(database).await;
    let id = world.session().await;
    let uri = path(id, "");
    let token = doctor();
    let reads = (0..200).map(|_| world.get(&uri, &token));
    for (status, _) in futures_util::future::join_all(reads).await {
        assert_eq!(status, StatusCode::OK);
    }
    assert_eq!(log(&world, "demo").await.len(), 201);
    let transactions = world.plane.control.ledger.transactions();
    // How many depends on how busy the machine is; one for each would be 201.
    assert!(transactions < 180, "200 readers took {transactions} transactions");
}

async fn what_leaves_no_trace_is_refused(database: Database) {
    let world = World::new(database).await;
    let id = world.session().await;
    world.post(&path(id, "/join"), &doctor(), Value::Null).await;
    world.post(&path(id, "/join"), &patient(), Value::Null).await;
    world.post(&path(id, "/admit"), &doctor(), json!({"userId": "pat"})).await;
    let (_, seen) = world.get(&path(id, ""), &doctor()).await;
    assert_eq!(id_of(&seen["sessionId"]), id);
    world.plane.control.db.close().await;
    let (status, problem) = world.get(&path(id, ""), &doctor()).await;
    assert_eq!(
        (status, &problem["code"]),
        (StatusCode::SERVICE_UNAVAILABLE, &json!("unavailable"))
    );
    assert_eq!(problem.get("sessionId"), None);
    // Whoever is in the call may come back into it: media never wait for the database.
    let (status, _) = world.post(&path(id, "/join"), &patient(), Value::Null).await;
    assert_eq!(status, StatusCode::OK);
    assert!(!world.plane.control.ledger.is_empty(), "its row waits");
}

async fn a_flood_waits_for_its_rows_and_loses_none(database: Database) {
    const FLOOD: usize = 6_000;
    let world = World::new(database).await;
    let control = &world.plane.control;
    control.finish_audit().await;
    control.ledger.hold();
    let deed = |_| async {
        let who = Who {
            clinic: "demo".to_owned(),
            id: "doc".to_owned(),
            kind: "doctor",
            credential: None,
        };
        let deed = Deed::of(who, "POST /join", Origin::default());
        deed.run(async { super::deferred() }).await;
        control.close_deed(&deed, Outcome::Done).await
    };
    let mut flood = Box::pin(futures_util::future::join_all((0..FLOOD).map(deed)));
    let first = futures_util::poll!(&mut flood);
    assert!(first.is_pending(), "the later ones wait");
    let (kept, lost) = control.ledger.go_on();
    assert!(kept < FLOOD, "{kept}");
    assert_eq!(lost, 0);
    assert!(flood.await.iter().all(Result::is_ok));
    control.finish_audit().await;
    assert_eq!(control.ledger.go_on().1, 0);
}

/// Reads per second with 32 readers at once.
async fn pace(world: &World, reads: usize) -> f64 {
    use futures_util::StreamExt as _;
    let id = world.session().await;
    let (uri, token) = (path(id, ""), service());
    let begin = std::time::Instant::now();
    let asked = futures_util::stream::iter(0..reads).map(|_| world.get(&uri, &token));
    let mut asked = asked.buffer_unordered(32);
    while let Some((status, _)) = asked.next().await {
        assert_eq!(status, StatusCode::OK);
    }
    #[expect(clippy::cast_precision_loss, reason = "a few thousand")]
    let reads = reads as f64;
    reads / begin.elapsed().as_secs_f64()
}

#[tokio::test]
#[ignore = "a measurement, for a machine that does nothing else"]
async fn rows_do_not_halve_the_pace_of_readers() {
    use std::io::Write as _;
    for postgres in [false, true] {
        let database =
            || async { if postgres { Database::postgres().await } else { Database::sqlite() } };
        let free = |config: &mut crate::ControlConfig| {
            let free = crate::Rate { per_second: 0, burst: 0 };
            config.limits = crate::RequestLimits { person: free, service: free, address: free };
        };
        let world = World::with(database().await, free).await;
        let with = pace(&world, 4_000).await;
        let world = World::with(database().await, free).await;
        world.plane.control.ledger.mute();
        let without = pace(&world, 4_000).await;
        let _closed = writeln!(
            std::io::stderr(),
            "postgres {postgres}: {with:.0} reads/s with rows, {without:.0} without, ratio {:.2}",
            with / without
        );
        assert!(with > without / 2.0, "rows cost more than half");
    }
}
