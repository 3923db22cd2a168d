//! Prices and what consultations cost, over HTTP.

use axum::http::{Method, StatusCode};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::consultation::{Mode, Step};
use crate::testing::{
    Database, World, doctor, on_both_databases, path, patient, service, token, token_of,
};
use crate::token::ApiRole;

on_both_databases!(
    a_price_is_set_read_and_replaced,
    prices_are_for_staff_and_the_own_doctor,
    prices_that_do_not_fit_are_refused,
    the_end_fixes_the_amount_and_no_later_price_moves_it,
    minutes_and_tiers_are_charged_by_the_time_that_it_took,
    what_did_not_take_place_costs_nothing,
    a_missed_visit_costs_where_the_clinic_says_so,
);

const PRICE: &str = "/api/v1/consultations/pricing/doc";

async fn put(world: &World, token: &str, body: Value) -> (StatusCode, Value) {
    world.call(Method::PUT, PRICE, Some(token), body).await
}

async fn set_price(world: &World, body: Value) -> Value {
    let (status, price) = put(world, &service(), body).await;
    assert_eq!(status, StatusCode::OK, "{price}");
    price
}

async fn billing(world: &World, session: Uuid, token: &str) -> (StatusCode, Value) {
    world.get(&path(session, "/billing"), token).await
}

/// A visit that began, so many seconds ago, and ends now.
async fn visit(world: &World, seconds: i64) -> Uuid {
    let session = world.session().await;
    world.post(&path(session, "/join"), &patient(), Value::Null).await;
    let body = json!({"userId": "pat"});
    let (status, _) = world.post(&path(session, "/admit"), &doctor(), body).await;
    assert_eq!(status, StatusCode::OK);
    let live = world.plane.control.live.enter(session);
    let begun = live.consultation().expect("it runs");
    let mut earlier = crate::consultation::Consultation::clone(&begun);
    earlier.actual_start = begun.actual_start.map(|at| at - chrono::TimeDelta::seconds(seconds));
    live.inner().consultation = Some(std::sync::Arc::new(earlier));
    let step = Step::End(None);
    world.plane.step("demo", session, &step).await.expect("it ends");
    session
}

async fn a_price_is_set_read_and_replaced(database: Database) {
    let world = World::new(database).await;
    let (status, _) = world.get(PRICE, &service()).await;
    assert_eq!(status, StatusCode::NOT_FOUND, "no price yet");
    let price = set_price(&world, json!({"consultationMode": "VIDEO", "flatFee": 500})).await;
    assert_eq!(
        (&price["pricingType"], &price["flatFee"], &price["currency"], &price["isActive"]),
        (&json!("FLAT"), &json!("500.00"), &json!("INR"), &json!(true))
    );
    // The names of the tables do as well.
    let body = json!({"consultation_mode": "AUDIO", "pricing_type": "PER_MINUTE",
        "per_minute_rate": "12.5", "currency": "jpy"});
    let price = set_price(&world, body).await;
    assert_eq!(
        (&price["perMinuteRate"], &price["minimumMinutes"], &price["currency"]),
        (&json!("12.5"), &json!(5), &json!("JPY"))
    );
    let tiers = json!([{"upToMinutes": 15, "price": 500}, {"upToMinutes": 30, "price": "800.5"}]);
    let body = json!({"consultationMode": "VIDEO", "pricingType": "TIERED", "tierConfig": tiers});
    let replaced = set_price(&world, body).await;
    assert_eq!(replaced["flatFee"], Value::Null);
    assert_eq!(
        replaced["tierConfig"],
        json!([{"upToMinutes": 15, "price": "500.00"}, {"upToMinutes": 30, "price": "800.50"}])
    );
    let (status, list) = world.get(PRICE, &doctor()).await;
    assert_eq!(status, StatusCode::OK);
    let modes: Vec<&Value> =
        list["items"].as_array().expect("a list").iter().map(|p| &p["consultationMode"]).collect();
    assert_eq!(modes, [&json!("AUDIO"), &json!("VIDEO")]);
    assert_eq!(list["items"][1], replaced);
}

async fn prices_are_for_staff_and_the_own_doctor(database: Database) {
    let world = World::new(database).await;
    let body = json!({"consultationMode": Mode::Video.as_str(), "flatFee": 500});
    for refused in [doctor(), patient(), token(ApiRole::Doctor, "other")] {
        let (status, _) = put(&world, &refused, body.clone()).await;
        assert_eq!(status, StatusCode::FORBIDDEN);
    }
    let (status, _) = put(&world, &token(ApiRole::Admin, "chief"), body).await;
    assert_eq!(status, StatusCode::OK);
    for refused in [patient(), token(ApiRole::Doctor, "other")] {
        let (status, _) = world.get(PRICE, &refused).await;
        assert_eq!(status, StatusCode::FORBIDDEN);
    }
    let (status, _) = world.get(PRICE, &token_of(ApiRole::Service, "backend", "south")).await;
    assert_eq!(status, StatusCode::NOT_FOUND, "another clinic sees nothing");
    let (status, _) = world.get(PRICE, &doctor()).await;
    assert_eq!(status, StatusCode::OK);
    let (status, _) = world.call(Method::GET, PRICE, None, Value::Null).await;
    assert_eq!(status, StatusCode::UNAUTHORIZED);
}

async fn prices_that_do_not_fit_are_refused(database: Database) {
    let world = World::new(database).await;
    let tier = |minutes: i64| json!({"upToMinutes": minutes, "price": 1});
    for body in [
        json!({}),
        json!({"consultationMode": "VIDEO"}),
        json!({"consultationMode": "VISIT", "flatFee": 1}),
        json!({"consultationMode": "VIDEO", "flatFee": -1}),
        json!({"consultationMode": "VIDEO", "flatFee": 0.001}),
        json!({"consultationMode": "VIDEO", "flatFee": "1e3"}),
        json!({"consultationMode": "VIDEO", "flatFee": 100_000_000}),
        json!({"consultationMode": "VIDEO", "flatFee": 1, "currency": "RUPEES"}),
        json!({"consultationMode": "VIDEO", "flatFee": 0.5, "currency": "JPY"}),
        json!({"consultationMode": "VIDEO", "pricingType": "FREE"}),
        json!({"consultationMode": "VIDEO", "pricingType": "PER_MINUTE", "flatFee": 1}),
        json!({"consultationMode": "VIDEO", "pricingType": "PER_MINUTE", "perMinuteRate": 1,
            "minimumMinutes": -1}),
        json!({"consultationMode": "VIDEO", "pricingType": "TIERED", "tierConfig": []}),
        json!({"consultationMode": "VIDEO", "pricingType": "TIERED",
            "tierConfig": [tier(30), tier(15)]}),
        json!({"consultationMode": "VIDEO", "pricingType": "TIERED", "tierConfig": [tier(0)]}),
    ] {
        let (status, answer) = put(&world, &service(), body.clone()).await;
        assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY, "{body} {answer}");
    }
    let (status, _) = world.get(PRICE, &service()).await;
    assert_eq!(status, StatusCode::NOT_FOUND, "none of them was kept");
}

async fn the_end_fixes_the_amount_and_no_later_price_moves_it(database: Database) {
    let world = World::new(database).await;
    let without = visit(&world, 60).await;
    set_price(&world, json!({"consultationMode": "VIDEO", "flatFee": "500.00"})).await;
    let planned = world.session().await;
    let (status, early) = billing(&world, planned, &patient()).await;
    assert_eq!((status, &early["isFinal"]), (StatusCode::OK, &json!(false)));
    assert_eq!(early["amountCharged"], Value::Null);
    let with = visit(&world, 61).await;
    set_price(&world, json!({"consultationMode": "VIDEO", "flatFee": "900.00"})).await;
    let world = world.restart().await;
    for token in [patient(), doctor(), service()] {
        let (status, bill) = billing(&world, with, &token).await;
        assert_eq!(status, StatusCode::OK);
        assert_eq!(
            (&bill["isFinal"], &bill["amountCharged"], &bill["amountMinor"], &bill["currency"]),
            (&json!(true), &json!("500.00"), &json!(50_000), &json!("INR"))
        );
        assert_eq!((&bill["pricingType"], &bill["billedMinutes"]), (&json!("FLAT"), &json!(2)));
    }
    let (_, free) = billing(&world, without, &service()).await;
    assert_eq!((&free["isFinal"], &free["amountCharged"]), (&json!(true), &Value::Null));
    let ended = world.plane.control.look("demo", with).await.expect("there");
    let charged = world.plane.control.amount_charged(&ended).await.expect("answers");
    assert_eq!(charged.expect("an amount").to_string(), "500.00");
    let (_, summary) = world.get(&path(with, "/summary"), &patient()).await;
    assert_eq!(
        (&summary["amountCharged"], &summary["currency"], &summary["feedbackSubmitted"]),
        (&json!(500.0), &json!("INR"), &json!(false))
    );
    let (status, _) = billing(&world, with, &token(ApiRole::Patient, "other")).await;
    assert_eq!(status, StatusCode::FORBIDDEN);
    let (status, _) = billing(&world, with, &token_of(ApiRole::Service, "b", "south")).await;
    assert_eq!(status, StatusCode::NOT_FOUND);
}

async fn minutes_and_tiers_are_charged_by_the_time_that_it_took(database: Database) {
    let world = World::new(database).await;
    let rate = json!({"consultationMode": "VIDEO", "pricingType": "PER_MINUTE",
        "perMinuteRate": "10.255", "minimumMinutes": 5});
    let tiers = json!([{"upToMinutes": 15, "price": 500}, {"upToMinutes": 30, "price": 800}]);
    let tiers = json!({"consultationMode": "VIDEO", "pricingType": "TIERED", "tierConfig": tiers});
    // The time of the test itself comes on top of the seconds.
    for (price, seconds, amount) in [
        (&rate, 10, "51.28"),
        (&rate, 350, "61.53"),
        (&tiers, 850, "500.00"),
        (&tiers, 901, "800.00"),
        (&tiers, 3_700, "800.00"),
    ] {
        set_price(&world, price.clone()).await;
        let session = visit(&world, seconds).await;
        let (_, bill) = billing(&world, session, &service()).await;
        assert_eq!(bill["amountCharged"], amount, "{seconds} s: {bill}");
        let billed = bill["billedSeconds"].as_i64().expect("seconds");
        assert!((seconds..seconds + 10).contains(&billed), "{bill}");
    }
    let inactive = json!({"consultationMode": "VIDEO", "flatFee": 1, "isActive": false});
    set_price(&world, inactive).await;
    let session = visit(&world, 60).await;
    let (_, bill) = billing(&world, session, &service()).await;
    assert_eq!(bill["amountCharged"], Value::Null, "a price that does not count");
}

async fn what_did_not_take_place_costs_nothing(database: Database) {
    let world = World::new(database).await;
    set_price(&world, json!({"consultationMode": "VIDEO", "flatFee": 500})).await;
    for step in ["/cancel", "/no-show", "/end"] {
        let session = world.session().await;
        let (status, _) = world.post(&path(session, step), &doctor(), json!({})).await;
        assert_eq!(status, StatusCode::OK);
        let (_, bill) = billing(&world, session, &patient()).await;
        assert_eq!((&bill["isFinal"], &bill["amountCharged"]), (&json!(true), &json!("0.00")));
        assert_eq!(bill["billedSeconds"], Value::Null, "{step}");
    }
}

async fn a_missed_visit_costs_where_the_clinic_says_so(database: Database) {
    let world = World::with(database, |config| config.billing.charge_no_show = true).await;
    let rate = json!({"consultationMode": "VIDEO", "pricingType": "PER_MINUTE",
        "perMinuteRate": 10, "currency": "KWD"});
    set_price(&world, rate).await;
    for (step, amount) in [("/cancel", "0.000"), ("/no-show", "50.000")] {
        let session = world.session().await;
        world.post(&path(session, step), &doctor(), json!({})).await;
        let (_, bill) = billing(&world, session, &service()).await;
        assert_eq!(bill["amountCharged"], amount);
    }
}
