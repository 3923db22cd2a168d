//! Every query on SQLite, and on PostgreSQL where one is given.

use super::outbox::{Along, MessageId};
use super::*;
use crate::Private;
use crate::billing::BillingConfig;
use crate::consultation::{
    Actor, Consultation, Device, Happening, Mode, PersonRole, Status, Step, Transition,
};
use crate::events::{Event, News, Sink};
use crate::testing::{Database, on_both_databases};
use uuid::Uuid;

on_both_databases!(
    a_consultation_comes_back_as_it_was_stored,
    an_appointment_has_one_consultation_per_clinic,
    the_older_revision_loses,
    racing_writers_all_get_their_turn,
    messages_are_numbered_without_gaps_and_stored_once,
    pages_show_everything_once_and_only_the_own_clinic,
    the_end_of_a_consultation_ends_its_links,
    every_change_has_its_row,
    the_schema_of_the_future_is_refused,
    counts_are_by_status,
    events_wait_for_each_sink_in_the_order_they_were_stored,
    a_message_takes_effect_once,
    one_relay_sends_for_a_sink,
);

fn told(of: &Consultation, news: News) -> Event {
    Event::of(of, now(), news)
}

async fn events_wait_for_each_sink_in_the_order_they_were_stored(database: Database) {
    let db = database.open().await;
    let one = consultation("demo", None);
    let sinks = [Sink::RabbitMq, Sink::Webhook("ehr".to_owned())];
    let events = [told(&one, News::SessionCreated {}), told(&one, News::PatientWaiting {})];
    let along = Along { events: &events, sinks: &sinks, message: None };
    assert!(db.append_events(&along, now()).await.expect("stores"));
    let late = now() + chrono::Duration::seconds(1);
    for sink in &sinks {
        let unsent = db.unsent(sink, late, 8, 10).await.expect("reads");
        assert_eq!(
            unsent.iter().map(|u| &u.event).collect::<Vec<_>>(),
            events.iter().collect::<Vec<_>>()
        );
    }
    let first = db.unsent(&Sink::RabbitMq, late, 8, 1).await.expect("reads").remove(0);
    db.mark_sent(&[first.position], now()).await.expect("marks");
    let rest = db.unsent(&Sink::RabbitMq, late, 8, 10).await.expect("reads");
    assert_eq!(rest.len(), 1);
    let later = late + chrono::Duration::seconds(9);
    db.mark_failed(rest[0].position, "not now", later).await.expect("marks");
    assert!(db.unsent(&Sink::RabbitMq, late, 8, 10).await.expect("reads").is_empty());
    let again = db.unsent(&Sink::RabbitMq, later, 8, 10).await.expect("reads");
    assert_eq!((again.len(), again[0].attempts), (1, 1));
    assert_eq!(db.backlog(&Sink::RabbitMq).await.expect("counts"), 1);
    assert_eq!(db.backlog(&sinks[1]).await.expect("counts"), 2);
    // Only what every sink has taken is forgotten.
    assert_eq!(db.sweep_mailboxes(later, 10).await.expect("sweeps"), 0);
    for unsent in db.unsent(&sinks[1], later, 8, 10).await.expect("reads") {
        db.mark_sent(&[unsent.position], now()).await.expect("marks");
    }
    assert_eq!(db.sweep_mailboxes(later, 10).await.expect("sweeps"), 1);
    assert_eq!(db.backlog(&Sink::RabbitMq).await.expect("counts"), 1);
}

async fn a_message_takes_effect_once(database: Database) {
    let db = database.open().await;
    let visit = consultation("demo", Some("a-1"));
    let message = MessageId { source: "requests".to_owned(), id: "m-1".to_owned(), place: None };
    let along = Along { message: Some(&message), ..Along::default() };
    assert!(db.insert_session(&visit, &created(&visit), &along).await.expect("inserts"));
    let other = consultation("demo", Some("a-2"));
    assert!(!db.insert_session(&other, &created(&other), &along).await.expect("does nothing"));
    assert!(db.session("demo", other.id).await.expect("reads").is_none());
    let mut after = visit.clone();
    after.revision += 1;
    let billing = BillingConfig::default();
    let saved = db.save_session(&after, visit.revision, &[], &along, billing, now());
    let saved = saved.await.expect("reads");
    assert_eq!(saved, Saved::Repeated);
    let stored = db.session("demo", visit.id).await.expect("reads").expect("there");
    assert_eq!(stored.revision, visit.revision);
}

async fn one_relay_sends_for_a_sink(database: Database) {
    let db = database.open().await;
    let (first, second) = (Uuid::new_v4(), Uuid::new_v4());
    let at = now();
    let end = at + chrono::Duration::seconds(10);
    let lease = async |holder, at, until| {
        db.lease("kafka", holder, at, until).await.expect("the database answers")
    };
    assert!(lease(first, at, end).await);
    assert!(!lease(second, at, end).await);
    assert!(lease(first, at, end).await, "the holder renews");
    assert!(lease(second, end + chrono::Duration::seconds(1), end).await, "it has ended");
    db.release_leases(second).await.expect("releases");
    assert!(lease(first, at, end).await);
}

pub(super) fn consultation(clinic: &str, appointment_id: Option<&str>) -> Consultation {
    let now = now();
    Consultation {
        id: Uuid::new_v4(),
        clinic: clinic.to_owned(),
        appointment_id: appointment_id.map(str::to_owned),
        mode: Mode::Audio,
        scheduled_start: now,
        scheduled_minutes: 30,
        room_name: crate::rooms::new_room_name(),
        room_sid: None,
        status: Status::Scheduled,
        doctor_id: "doc".to_owned(),
        doctor_name: Private::new("Dr. Ösei \u{1F9D1}".to_owned()),
        patient_id: "pat".to_owned(),
        patient_name: Private::new("O'Brien; DROP TABLE".to_owned()),
        max_participants: 3,
        people: Vec::new(),
        patient_joined_at: None,
        doctor_joined_at: None,
        actual_start: None,
        started_by: None,
        both_connected_at: None,
        paused_at: None,
        paused_seconds: 0,
        actual_end: None,
        duration_seconds: None,
        end_reason: None,
        ended_by: None,
        ended_by_role: None,
        reopened_at: None,
        quiet_since: None,
        due_at: None,
        created_at: now,
        revision: 0,
    }
}

fn created(consultation: &Consultation) -> Transition {
    Transition {
        happening: Happening::Created,
        user_id: None,
        from: Status::Scheduled,
        to: Status::Scheduled,
        actor: Actor::Server,
        at: consultation.created_at,
        reason: None,
    }
}

pub(super) async fn insert(db: &Db, consultation: &Consultation) -> bool {
    db.insert_session(consultation, &created(consultation), &Along::default())
        .await
        .expect("inserts")
}

async fn take(db: &Db, consultation: &mut Consultation, step: &Step) -> Saved {
    let before = consultation.revision;
    let made = consultation.apply(now(), &Actor::Server, step).expect("possible");
    consultation.revision += 1;
    let (along, billing) = (Along::default(), BillingConfig::default());
    let saved = db.save_session(consultation, before, &made, &along, billing, now());
    saved.await.expect("saves")
}

pub(super) fn arrive(user_id: &str) -> Step {
    Step::Arrive { user_id: user_id.to_owned(), name: None, device: Device::default() }
}

fn admit(user_id: &str) -> Step {
    Step::Admit(user_id.to_owned())
}

async fn a_consultation_comes_back_as_it_was_stored(database: Database) {
    let db = database.open().await;
    let mut visit = consultation("north", Some("appointment-1"));
    assert!(insert(&db, &visit).await);
    assert_eq!(db.session("north", visit.id).await.expect("reads").as_ref(), Some(&visit));
    let connect = Step::Connect("pat".to_owned());
    let steps = [arrive("pat"), arrive("aunt"), arrive("doc"), admit("pat"), connect, Step::Pause];
    for step in steps {
        assert_eq!(take(&db, &mut visit, &step).await, Saved::Yes);
    }
    let by_id = db.session("north", visit.id).await.expect("reads");
    assert_eq!(by_id.as_ref(), Some(&visit));
    let by_appointment = db.session_of_appointment("north", "appointment-1").await;
    assert_eq!(by_appointment.expect("reads"), by_id);
    assert_eq!(db.session_of_room(&visit.room_name).await.expect("reads"), by_id);
    assert_eq!(db.running_sessions().await.expect("reads"), [visit.clone()]);
    assert_eq!(db.session("south", visit.id).await.expect("reads"), None);
    assert_eq!(take(&db, &mut visit, &Step::End(None)).await, Saved::Yes);
    assert_eq!(db.session("north", visit.id).await.expect("reads"), Some(visit));
    assert!(db.running_sessions().await.expect("reads").is_empty());
}

async fn an_appointment_has_one_consultation_per_clinic(database: Database) {
    let db = database.open().await;
    assert!(insert(&db, &consultation("north", Some("a"))).await);
    assert!(!insert(&db, &consultation("north", Some("a"))).await);
    assert!(insert(&db, &consultation("south", Some("a"))).await);
    for _ in 0..2 {
        assert!(insert(&db, &consultation("north", None)).await);
    }
    let mut visit = consultation("north", None);
    assert!(insert(&db, &visit).await);
    visit.id = Uuid::new_v4();
    let same_room = db.insert_session(&visit, &created(&visit), &Along::default()).await;
    assert!(same_room.is_err(), "a room belongs to one consultation");
}

async fn the_older_revision_loses(database: Database) {
    let db = database.open().await;
    let mut mine = consultation("north", None);
    insert(&db, &mine).await;
    let mut theirs = mine.clone();
    assert_eq!(take(&db, &mut theirs, &arrive("pat")).await, Saved::Yes);
    assert_eq!(take(&db, &mut mine, &Step::Cancel(None)).await, Saved::Stale);
    assert_eq!(db.session("north", theirs.id).await.expect("reads"), Some(theirs));
}

async fn racing_writers_all_get_their_turn(database: Database) {
    let db = database.open().await;
    let visit = consultation("north", None);
    insert(&db, &visit).await;
    let writers: Vec<_> = (0..12)
        .map(|writer| {
            let (db, id) = (db.clone(), visit.id);
            tokio::spawn(async move {
                loop {
                    let mut now = db.session("north", id).await.expect("reads").expect("there");
                    let step = arrive(&format!("guest-{writer}"));
                    if take(&db, &mut now, &step).await == Saved::Yes {
                        break;
                    }
                }
            })
        })
        .collect();
    for writer in writers {
        writer.await.expect("a writer ends");
    }
    let end = db.session("north", visit.id).await.expect("reads").expect("there");
    assert_eq!((end.people.len(), end.revision), (12, 12));
}

async fn messages_are_numbered_without_gaps_and_stored_once(database: Database) {
    let db = database.open().await;
    let visit = consultation("north", None);
    insert(&db, &visit).await;
    let post = |client_id: Option<String>, sender: &'static str| {
        let (db, session_id) = (db.clone(), visit.id);
        tokio::spawn(async move {
            let message = NewMessage {
                session_id,
                sender_id: sender.to_owned(),
                sender_name: "Name".to_owned(),
                sender_type: PersonRole::Patient.as_str(),
                kind: MessageKind::Text,
                content: "Grüße,\n\t\u{1F44B} 'quoted' \"twice\"".to_owned(),
                client_id,
                system_event: None,
                attachment: None,
                at: now(),
                audit: None,
            };
            let mut tx = db.begin().await.expect("a transaction");
            let posted = tx.post(&message).await.expect("posts");
            tx.commit().await.expect("commits");
            match posted {
                Posted::New(row) => (true, row),
                Posted::Known(row) => (false, row),
                Posted::NoSession => panic!("the consultation is there"),
            }
        })
    };
    // Each client id comes four times at once, from two senders; and some messages have none.
    let mut posts = Vec::new();
    for number in 0..10 {
        for sender in ["pat", "doc"] {
            posts.extend((0..4).map(|_| post(Some(format!("c{number}")), sender)));
        }
        posts.push(post(None, "pat"));
    }
    let mut new = 0;
    for post in posts {
        let (is_new, row) = post.await.expect("a post ends");
        new += i64::from(is_new);
        assert!(row.content.starts_with("Grüße"));
    }
    assert_eq!(new, 30);
    let all = db.messages(visit.id, None, 100).await.expect("reads");
    let numbers: Vec<i64> = all.iter().map(|row| row.sequence).collect();
    assert_eq!(numbers, (1..=30).collect::<Vec<_>>());
    let page = db.messages(visit.id, Some(11), 5).await.expect("reads");
    let numbers: Vec<i64> = page.iter().map(|row| row.sequence).collect();
    assert_eq!(numbers, [6, 7, 8, 9, 10]);
    assert!(db.messages(Uuid::new_v4(), None, 10).await.expect("reads").is_empty());
}

async fn pages_show_everything_once_and_only_the_own_clinic(database: Database) {
    let db = database.open().await;
    let start = now();
    for minute in 0..7 {
        let mut visit = consultation("north", None);
        // Two at the same minute: the id decides.
        visit.scheduled_start = start + chrono::Duration::minutes(minute / 2);
        insert(&db, &visit).await;
        take(&db, &mut visit, &arrive("pat")).await;
        insert(&db, &consultation("south", None)).await;
    }
    let mut seen = Vec::new();
    let mut page = Page { limit: 3, ..Page::default() };
    loop {
        let sessions = db.sessions("north", &page).await.expect("reads");
        let Some(last) = sessions.last() else { break };
        page.after = Some((last.scheduled_start, last.id));
        assert!(sessions.iter().all(|s| s.clinic == "north" && s.people.len() == 1));
        seen.extend(sessions.iter().map(|session| (session.scheduled_start, session.id)));
    }
    assert_eq!(seen.len(), 7);
    assert!(seen.is_sorted_by(|earlier, later| earlier > later));
    let filtered = |page: Page| {
        let db = db.clone();
        async move { db.sessions("north", &page).await.expect("reads").len() }
    };
    let base = || Page { limit: 100, ..Page::default() };
    assert_eq!(filtered(Page { doctor_id: Some("doc".to_owned()), ..base() }).await, 7);
    assert_eq!(filtered(Page { doctor_id: Some("other".to_owned()), ..base() }).await, 0);
    assert_eq!(filtered(Page { patient_id: Some("pat".to_owned()), ..base() }).await, 7);
    assert_eq!(filtered(Page { status: Some(Status::Waiting), ..base() }).await, 7);
    assert_eq!(filtered(Page { status: Some(Status::Completed), ..base() }).await, 0);
    assert_eq!(filtered(Page { only: Some(seen[0].1), ..base() }).await, 1);
}

async fn the_end_of_a_consultation_ends_its_links(database: Database) {
    let db = database.open().await;
    let mut visit = consultation("north", None);
    insert(&db, &visit).await;
    let link = |role: &str, session_id| LinkRow {
        id: Uuid::new_v4(),
        clinic: "north".to_owned(),
        session_id,
        user_id: role.to_owned(),
        user_name: String::new(),
        role: role.to_owned(),
        created_by: "backend".to_owned(),
        created_at: now(),
        expires_at: now() + chrono::Duration::hours(24),
        revoked_at: None,
    };
    let patient = link("patient", Some(visit.id));
    let guest = link("guest", Some(visit.id));
    let doctor = link("doctor", None);
    for (number, row) in [&patient, &guest, &doctor].into_iter().enumerate() {
        db.insert_link(row, &[u8::try_from(number).expect("few"); 32]).await.expect("inserts");
    }
    let found = db.link_by_hash(&[0; 32]).await.expect("reads").expect("there");
    assert_eq!((found.id, found.expires_at), (patient.id, patient.expires_at));
    assert!(db.link_by_hash(&[9; 32]).await.expect("reads").is_none());
    assert_eq!(db.invited_guests(visit.id, now()).await.expect("reads"), ["guest"]);
    take(&db, &mut visit, &Step::End(None)).await;
    let soon = now() + chrono::Duration::minutes(16);
    for (id, shortened) in [(patient.id, true), (guest.id, true), (doctor.id, false)] {
        let row = db.link(id).await.expect("reads").expect("there");
        assert_eq!(row.expires_at < soon, shortened);
        assert!(row.expires_at > now() + chrono::Duration::minutes(14));
    }
    let first = now();
    let revocation = |at| Revocation {
        credential: format!("link:{}", guest.id),
        clinic: guest.clinic.clone(),
        user_id: Some(guest.user_id.clone()),
        session_id: guest.session_id,
        at,
        forget_at: at + chrono::Duration::days(1),
    };
    db.revoke_link(guest.id, &revocation(first)).await.expect("revokes");
    let later = now() + chrono::Duration::hours(1);
    db.revoke_link(guest.id, &revocation(later)).await.expect("again");
    let row = db.link(guest.id).await.expect("reads").expect("there");
    assert_eq!(row.revoked_at, Some(first));
}

#[derive(sqlx::FromRow)]
struct EventRow {
    event_type: String,
    event_data: sqlx::types::Json<serde_json::Value>,
}

async fn every_change_has_its_row(database: Database) {
    const SQL: &str = "SELECT event_type, event_data FROM session_events WHERE session_id = $1 \
        ORDER BY created_at, id";
    let db = database.open().await;
    let mut visit = consultation("north", None);
    insert(&db, &visit).await;
    let pat = || "pat".to_owned();
    for step in [
        arrive("doc"),
        arrive("pat"),
        admit("pat"),
        Step::Connect(pat()),
        Step::Lose(pat()),
        Step::Connect(pat()),
        Step::Disconnect(pat()),
        Step::End(Some("completed".to_owned())),
    ] {
        take(&db, &mut visit, &step).await;
    }
    let mut reader = db.read().await.expect("a reader");
    let rows = fetch!(&mut reader, fetch_all, EventRow, SQL, visit.id).expect("reads");
    let kinds: Vec<&str> = rows.iter().map(|row| row.event_type.as_str()).collect();
    assert_eq!(
        kinds,
        [
            "created",
            "doctor_joined",
            "patient_joined",
            "admitted",
            "started",
            "participant.connected",
            "participant.reconnecting",
            "participant.reconnected",
            "participant.disconnected",
            "ended",
        ]
    );
    let end = &rows[9].event_data.0;
    assert_eq!((&end["from"], &end["to"]), (&"IN_PROGRESS".into(), &"COMPLETED".into()));
    assert_eq!(end["reason"], "completed");
}

async fn the_schema_of_the_future_is_refused(database: Database) {
    const SQL: &str = "UPDATE _sqlx_migrations SET version = 9999 \
        WHERE version = (SELECT MAX(version) FROM _sqlx_migrations)";
    let db = database.open().await;
    // Opening twice is nothing special.
    database.open().await.close().await;
    let mut tx = db.begin().await.expect("a writer");
    execute!(&mut tx, SQL).expect("updates");
    tx.commit().await.expect("commits");
    db.close().await;
    let refused = Db::open(&database.url).await.expect_err("a newer schema");
    assert!(matches!(refused, OpenError::NewerSchema(9999)), "{refused}");
}

async fn counts_are_by_status(database: Database) {
    let db = database.open().await;
    for steps in [
        vec![],
        vec![arrive("pat")],
        vec![arrive("pat")],
        vec![arrive("pat"), admit("pat")],
        vec![arrive("pat"), admit("pat"), Step::Pause],
        vec![arrive("pat"), admit("pat"), Step::End(None)],
        vec![Step::Cancel(None)],
        vec![Step::NoShow(None)],
        vec![Step::Fail("media".to_owned())],
    ] {
        let mut visit = consultation("north", None);
        insert(&db, &visit).await;
        for step in &steps {
            assert_eq!(take(&db, &mut visit, step).await, Saved::Yes);
        }
    }
    assert_eq!(db.count_sessions().await.expect("counts"), [1, 2, 1, 1, 1, 1, 1, 1]);
}

#[derive(sqlx::FromRow)]
struct ColumnRow {
    table_name: String,
    column_name: String,
}

#[tokio::test]
async fn both_schemas_have_the_same_columns() {
    const SQLITE: &str = "SELECT m.name AS table_name, c.name AS column_name \
        FROM sqlite_schema m, pragma_table_info(m.name) c \
        WHERE m.type = 'table' AND m.name NOT LIKE '\\_sqlx%' ESCAPE '\\' \
        AND m.name NOT LIKE 'sqlite\\_%' ESCAPE '\\' ORDER BY m.name, c.cid";
    const POSTGRES: &str = "SELECT CAST(table_name AS TEXT) AS table_name, \
        CAST(column_name AS TEXT) AS column_name FROM information_schema.columns \
        JOIN information_schema.tables USING (table_schema, table_name) \
        WHERE table_schema = 'public' AND table_name NOT LIKE '\\_sqlx%' \
        AND table_type = 'BASE TABLE' ORDER BY table_name, ordinal_position";
    let sqlite = Database::sqlite();
    let postgres = Database::postgres().await;
    let mut names = Vec::new();
    for db in [sqlite.open().await, postgres.open().await] {
        let mut reader = db.read().await.expect("a reader");
        let rows = match reader.side() {
            Side::Sqlite(c) => sqlx::query_as::<_, ColumnRow>(SQLITE).fetch_all(c).await,
            Side::Postgres(c) => sqlx::query_as::<_, ColumnRow>(POSTGRES).fetch_all(c).await,
        };
        let rows = rows.expect("reads");
        names.push(
            rows.into_iter()
                .map(|row| format!("{}.{}", row.table_name, row.column_name))
                .collect::<Vec<_>>(),
        );
    }
    assert!(names[0].len() > 60, "{:?}", names[0]);
    assert_eq!(names[0], names[1]);
}

#[derive(sqlx::FromRow)]
struct WordRow {
    word: String,
}

#[tokio::test]
async fn both_schemas_have_the_same_indexes() {
    const SQLITE: &str = "SELECT name AS word FROM sqlite_schema \
        WHERE type = 'index' AND name LIKE 'idx%' ORDER BY name";
    const POSTGRES: &str = "SELECT CAST(indexname AS TEXT) AS word FROM pg_indexes \
        WHERE schemaname = 'public' AND indexname LIKE 'idx%' ORDER BY indexname";
    const OLDEST: [&str; 9] = [
        "idx_links_session",
        "idx_session_events_session",
        "idx_session_events_type",
        "idx_sessions_appointment",
        "idx_sessions_doctor",
        "idx_sessions_patient",
        "idx_sessions_room",
        "idx_sessions_scheduled_time",
        "idx_sessions_status",
    ];
    let mut both = Vec::new();
    for database in [Database::sqlite(), Database::postgres().await] {
        let db = database.open().await;
        let mut reader = db.read().await.expect("a reader");
        let rows = match reader.side() {
            Side::Sqlite(c) => sqlx::query_as::<_, WordRow>(SQLITE).fetch_all(c).await,
            Side::Postgres(c) => sqlx::query_as::<_, WordRow>(POSTGRES).fetch_all(c).await,
        };
        let mut names: Vec<String> = rows.expect("reads").into_iter().map(|row| row.word).collect();
        names.sort();
        assert!(OLDEST.iter().all(|name| names.iter().any(|known| known == name)), "{names:?}");
        both.push(names);
    }
    assert_eq!(both[0], both[1]);
}

#[tokio::test]
async fn sqlite_is_opened_so_that_nothing_acknowledged_is_lost() {
    let database = Database::sqlite();
    let Db::Sqlite { write, .. } = database.open().await else { panic!("not SQLite") };
    let word = |sql: &'static str| {
        let write = write.clone();
        async move { sqlx::query_as::<_, WordRow>(sql).fetch_one(&write).await.expect("reads").word }
    };
    assert_eq!(word("SELECT journal_mode AS word FROM pragma_journal_mode").await, "wal");
    let level = word("SELECT CAST(synchronous AS TEXT) AS word FROM pragma_synchronous").await;
    assert_eq!(level, "2", "FULL");
    let strict = "SELECT CAST(COUNT(*) AS TEXT) AS word FROM pragma_table_list \
        WHERE schema = 'main' AND strict = 0 AND type = 'table' AND name NOT LIKE 'sqlite%' \
        AND name NOT LIKE '%sqlx%'";
    assert_eq!(word(strict).await, "0");
}

#[tokio::test]
async fn strange_urls_are_refused() {
    for url in ["", "mysql://x", "sqlite::memory:", "sqlite://:memory:", "/a/path"] {
        assert!(matches!(Db::open(url).await, Err(OpenError::Url)), "{url}");
    }
    let missing = Db::open("sqlite:/no/such/folder/bedside.db").await;
    assert!(matches!(missing, Err(OpenError::Connect(_))));
}

#[test]
fn placeholders_are_counted() {
    assert_eq!(placeholders("SELECT 1"), 0);
    assert_eq!(placeholders("a = $1 AND b = $3 OR c = $2"), 3);
    assert_eq!(placeholders("($1, $12)"), 12);
    assert_eq!(placeholders("price $"), 0);
}
