//! Prices, amounts, payments and feedback on both databases.

use rust_decimal::Decimal;

use super::outbox::Along;
use super::tests::{arrive, consultation, insert};
use super::*;
use crate::Private;
use crate::billing::{BillingConfig, Currency, Plan, Pricing, Tier};
use crate::consultation::{Actor, Consultation, Mode, Step};
use crate::payments::{AppointmentFacts, PaymentStatus};
use crate::testing::{Database, on_both_databases};
use uuid::Uuid;

on_both_databases!(
    prices_come_back_as_they_were_stored,
    a_second_end_replaces_what_the_first_one_fixed,
    a_failure_fixes_the_amount,
    an_end_that_is_not_stored_fixes_nothing,
    a_payment_is_completed_once,
    feedback_comes_back_as_it_was_given,
);

fn price(mode: Mode, currency: &str, plan: Plan) -> DoctorPrice {
    let currency = Currency::parse(currency).expect("a currency");
    let now = now();
    DoctorPrice {
        doctor_id: "doc".to_owned(),
        mode,
        pricing: Pricing::checked(currency, plan).expect("a price"),
        is_active: true,
        created_at: now,
        updated_at: now,
    }
}

fn flat(fee: i64) -> Plan {
    Plan::Flat { fee: Decimal::from(fee) }
}

async fn prices_come_back_as_they_were_stored(database: Database) {
    let db = database.open().await;
    let most = Decimal::from(99_999_999);
    let tiers: Vec<Tier> =
        (1..=50).map(|n| Tier { up_to_minutes: n, price: Decimal::new(n * 7 + 1, 3) }).collect();
    let rate = Decimal::from_str_exact("0.1234567").expect("a decimal");
    for plan in [
        flat(0),
        Plan::Flat { fee: most },
        Plan::PerMinute { rate, minimum_minutes: 0 },
        Plan::PerMinute { rate: most, minimum_minutes: 1_440 },
        Plan::Tiered(tiers),
    ] {
        let price = price(Mode::Audio, "KWD", plan);
        let stored = db.put_price("north", &price, "chief").await.expect("stores");
        assert_eq!(stored.pricing, price.pricing);
        let read = db.prices("north", "doc").await.expect("reads");
        assert_eq!(read, [stored], "one for each mode, the newest");
    }
    db.put_price("north", &price(Mode::Video, "INR", flat(500)), "chief").await.expect("stores");
    assert_eq!(db.prices("north", "doc").await.expect("reads").len(), 2);
    assert!(db.prices("south", "doc").await.expect("reads").is_empty());
    assert!(db.prices("north", "other").await.expect("reads").is_empty());
}

/// Takes a step and stores it.
async fn take(db: &Db, visit: &mut Consultation, step: &Step) {
    let before = visit.revision;
    let made = visit.apply(now(), &Actor::Server, step).expect("possible");
    visit.revision += 1;
    let along = Along::default();
    let saved =
        db.save_session(visit, before, &made, &along, BillingConfig::default(), now()).await;
    assert_eq!(saved.expect("saves"), Saved::Yes);
}

async fn begun(db: &Db) -> Consultation {
    let mut visit = consultation("north", None);
    assert!(insert(db, &visit).await);
    take(db, &mut visit, &arrive("pat")).await;
    take(db, &mut visit, &Step::Admit("pat".to_owned())).await;
    visit
}

async fn a_second_end_replaces_what_the_first_one_fixed(database: Database) {
    let db = database.open().await;
    db.put_price("north", &price(Mode::Audio, "INR", flat(500)), "chief").await.expect("stores");
    let mut visit = begun(&db).await;
    assert_eq!(db.bill("north", visit.id).await.expect("reads"), None, "not before the end");
    take(&db, &mut visit, &Step::End(None)).await;
    let bill = db.bill("north", visit.id).await.expect("reads").expect("fixed");
    assert_eq!(bill.amount.expect("an amount").minor, 50_000);
    assert_eq!((bill.billed_seconds, bill.pricing_type.as_deref()), (Some(0), Some("FLAT")));
    assert_eq!(db.bill("south", visit.id).await.expect("reads"), None);
    db.put_price("north", &price(Mode::Audio, "JPY", flat(9)), "chief").await.expect("stores");
    assert_eq!(db.bill("north", visit.id).await.expect("reads"), Some(bill.clone()));
    // Stored again without ending again, the amount stays.
    let mut late = visit.clone();
    late.revision += 1;
    let along = Along::default();
    let saved =
        db.save_session(&late, visit.revision, &[], &along, BillingConfig::default(), now()).await;
    assert_eq!(saved.expect("saves"), Saved::Yes);
    assert_eq!(db.bill("north", visit.id).await.expect("reads"), Some(bill));
    // Opened again, it has no end; it ends again under the price of then.
    let mut visit = late;
    let reopened = visit.revision;
    take(&db, &mut visit, &Step::Reopen).await;
    assert!(visit.revision > reopened && visit.actual_end.is_none());
    let mut missed = visit.clone();
    take(&db, &mut visit, &Step::Admit("pat".to_owned())).await;
    take(&db, &mut visit, &Step::End(None)).await;
    let bill = db.bill("north", visit.id).await.expect("reads").expect("fixed");
    assert_eq!(bill.amount.expect("an amount").to_string(), "9");
    // Nobody came back to it: what it cost before stays.
    missed.revision = visit.revision;
    take(&db, &mut missed, &Step::NoShow(None)).await;
    assert_eq!(db.bill("north", missed.id).await.expect("reads"), Some(bill));
}

/// A technical failure is an end too.
async fn a_failure_fixes_the_amount(database: Database) {
    let db = database.open().await;
    db.put_price("north", &price(Mode::Audio, "INR", flat(500)), "chief").await.expect("stores");
    for (charge_failed, amount) in [(false, "0.00"), (true, "500.00")] {
        let mut visit = begun(&db).await;
        let before = visit.revision;
        let made = visit.apply(now(), &Actor::Server, &Step::Fail("power".to_owned()));
        visit.revision += 1;
        let billing = BillingConfig { charge_failed, ..BillingConfig::default() };
        let (made, along) = (made.expect("possible"), Along::default());
        let saved = db.save_session(&visit, before, &made, &along, billing, now()).await;
        assert_eq!(saved.expect("saves"), Saved::Yes);
        let bill = db.bill("north", visit.id).await.expect("reads").expect("fixed");
        assert_eq!(bill.amount.expect("an amount").to_string(), amount);
    }
}

async fn an_end_that_is_not_stored_fixes_nothing(database: Database) {
    let db = database.open().await;
    db.put_price("north", &price(Mode::Audio, "INR", flat(500)), "chief").await.expect("stores");
    let mut visit = begun(&db).await;
    let made = visit.apply(now(), &Actor::Server, &Step::End(None)).expect("possible");
    let stale = visit.revision - 1;
    let along = Along::default();
    let saved =
        db.save_session(&visit, stale, &made, &along, BillingConfig::default(), now()).await;
    assert_eq!(saved.expect("answers"), Saved::Stale);
    assert_eq!(db.bill("north", visit.id).await.expect("reads"), None);
}

async fn a_payment_is_completed_once(database: Database) {
    let db = database.open().await;
    assert_eq!(db.payment("north", "a").await.expect("reads"), None);
    let facts = AppointmentFacts {
        doctor_id: "doc".to_owned(),
        doctor_name: Some("Dr. Ösei".to_owned()),
        patient_id: "pat".to_owned(),
        patient_name: None,
        mode: "VIDEO".to_owned(),
        scheduled_start: Some(now()),
        scheduled_minutes: Some(30),
        max_participants: None,
    };
    assert_eq!(format!("{facts:?}"), "AppointmentFacts", "names go into no log");
    db.remember_appointment("north", "a", &facts, now()).await.expect("stores");
    let pending = db.payment("north", "a").await.expect("reads").expect("known");
    assert_eq!(
        (pending.status, pending.appointment),
        (PaymentStatus::Pending, Some(facts.clone()))
    );
    let first = db.complete_payment("north", "a", "pay-1", "booking", now()).await.expect("stores");
    assert_eq!(first.status, PaymentStatus::Completed);
    assert_eq!(first.appointment.as_ref(), Some(&facts));
    let second = db.complete_payment("north", "a", "pay-2", "other", now()).await.expect("stores");
    assert_eq!(second, first, "the first one stays");
    db.remember_appointment("north", "a", &facts, now()).await.expect("stores");
    assert_eq!(db.payment("north", "a").await.expect("reads"), Some(first));
    assert_eq!(db.payment("south", "a").await.expect("reads"), None);
    let unknown = db.complete_payment("north", "b", "pay-3", "booking", now()).await;
    assert_eq!(unknown.expect("stores").appointment, None);
}

fn feedback(visit: &Consultation, overall: i64) -> Feedback {
    let now = now();
    Feedback {
        id: Uuid::now_v7(),
        session_id: visit.id,
        clinic: visit.clinic.clone(),
        patient_id: visit.patient_id.clone(),
        doctor_id: visit.doctor_id.clone(),
        impression: Impression {
            overall,
            audio: Some(1),
            video: None,
            doctor: Some(5),
            review: Some(Private::new("O'Brien; DROP TABLE \u{1F642}".to_owned())),
            tags: vec!["on-time".to_owned(), "höflich".to_owned()],
            would_recommend: Some(false),
        },
        response: None,
        responded_at: None,
        is_public: true,
        is_verified: true,
        created_at: now,
        updated_at: now,
    }
}

async fn feedback_comes_back_as_it_was_given(database: Database) {
    let db = database.open().await;
    let visit = consultation("north", None);
    assert!(insert(&db, &visit).await);
    let given = feedback(&visit, 3);
    let along = Along::default();
    assert!(db.insert_feedback(&given, &along).await.expect("stores"));
    assert!(!db.insert_feedback(&feedback(&visit, 5), &along).await.expect("answers"), "once");
    assert_eq!(db.feedback("north", visit.id).await.expect("reads"), Some(given.clone()));
    assert_eq!(db.feedback("south", visit.id).await.expect("reads"), None);
    let answer = Private::new("Thank you.".to_owned());
    let at = now();
    let answered = db.answer_feedback("north", visit.id, &answer, at).await.expect("stores");
    let answered = answered.expect("there");
    assert_eq!((answered.response, answered.responded_at), (Some(answer.clone()), Some(at)));
    assert_eq!(answered.impression, given.impression);
    assert_eq!(db.answer_feedback("south", visit.id, &answer, at).await.expect("answers"), None);
    let shown = db.show_feedback("north", visit.id, None, Some(false), at).await.expect("stores");
    let shown = shown.expect("there");
    assert_eq!((shown.is_public, shown.is_verified), (true, false), "what is not named stays");
    for rating in [0, 6] {
        let other = consultation("north", None);
        assert!(insert(&db, &other).await);
        let refused = db.insert_feedback(&feedback(&other, rating), &along).await;
        assert!(refused.is_err(), "the table checks it too");
    }
}

#[derive(Debug, PartialEq, sqlx::FromRow)]
struct DecimalRow {
    consultation_mode: String,
    flat_fee: Option<String>,
    per_minute_rate: Option<String>,
    tier_config: Option<String>,
}

/// Reports read decimals, in the form that older systems have.
#[tokio::test]
async fn the_view_of_postgresql_shows_decimals() {
    let database = Database::postgres().await;
    let db = database.open().await;
    let rate = Decimal::from_str_exact("12.345").expect("a decimal");
    let tiers = [(15, 50_000), (30, 80_050)]
        .map(|(up_to_minutes, minor)| Tier { up_to_minutes, price: Decimal::new(minor, 2) });
    for price in [
        price(Mode::Audio, "INR", Plan::PerMinute { rate, minimum_minutes: 5 }),
        price(Mode::Chat, "JPY", flat(99_999_999)),
        price(Mode::Video, "INR", Plan::Tiered(tiers.to_vec())),
    ] {
        db.put_price("north", &price, "chief").await.expect("stores");
    }
    let Db::Postgres(pool) = &db else { panic!("PostgreSQL") };
    let rows: Vec<DecimalRow> = sqlx::query_as(
        "SELECT consultation_mode, CAST(flat_fee AS TEXT), CAST(per_minute_rate AS TEXT), \
         CAST(tier_config AS TEXT) FROM consultation_pricing_decimal ORDER BY consultation_mode",
    )
    .fetch_all(pool)
    .await
    .expect("reads");
    let row = |mode: &str, fee: Option<&str>, rate: Option<&str>, tiers: Option<&str>| DecimalRow {
        consultation_mode: mode.to_owned(),
        flat_fee: fee.map(str::to_owned),
        per_minute_rate: rate.map(str::to_owned),
        tier_config: tiers.map(str::to_owned),
    };
    let tiers = r#"[{"price": 500.00, "upToMinutes": 15}, {"price": 800.50, "upToMinutes": 30}]"#;
    assert_eq!(
        rows,
        [
            row("AUDIO", None, Some("12.35"), None),
            row("CHAT", Some("99999999.00"), None, None),
            row("VIDEO", None, None, Some(tiers)),
        ]
    );
}
