//! The payment gate, over HTTP.

use axum::http::StatusCode;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::consultation::Actor;
use crate::payments::PaymentError;
use crate::testing::{
    Database, World, doctor, id_of, on_both_databases, path, patient, service, token, token_of,
};
use crate::token::ApiRole;

on_both_databases!(
    who_has_not_paid_does_not_come_in,
    without_the_gate_nobody_is_asked,
    a_patients_own_word_is_no_proof,
    the_first_verified_payment_stays,
    a_verified_payment_makes_the_missing_consultation,
    what_nobody_knows_is_noted_and_told,
    each_clinic_has_its_own_payments,
);

const PAYMENT: &str = "/api/v1/consultations/appointments/appointment-1/payment";

async fn gated(database: Database) -> World {
    World::with(database, |config| config.payments.required = true).await
}

async fn booked(world: &World) -> Uuid {
    let body = json!({
        "appointmentId": "appointment-1", "doctorId": "doc", "patientId": "pat",
        "consultationMode": "VIDEO", "maxParticipants": 3,
    });
    let (status, made) = world.post("/api/v1/consultations/sessions", &service(), body).await;
    assert_eq!(status, StatusCode::CREATED, "{made}");
    id_of(&made["sessionId"])
}

async fn pay(world: &World, token: &str) -> (StatusCode, Value) {
    world.post(PAYMENT, token, json!({"paymentId": "pay-1"})).await
}

async fn who_has_not_paid_does_not_come_in(database: Database) {
    let world = gated(database).await;
    let session = booked(&world).await;
    let join = path(session, "/join");
    let (status, problem) = world.post(&join, &patient(), Value::Null).await;
    assert_eq!(status, StatusCode::PAYMENT_REQUIRED);
    assert_eq!(problem["code"], "payment_required");
    // Neither does a service that joins for the patient, nor a guest.
    for user in ["pat", "aunt"] {
        let (status, _) = world.post(&join, &service(), json!({"userId": user})).await;
        assert_eq!(status, StatusCode::PAYMENT_REQUIRED, "{user}");
    }
    let (_, seen) = world.get(&path(session, ""), &doctor()).await;
    assert_eq!((&seen["status"], &seen["participants"]), (&json!("SCHEDULED"), &json!([])));
    let (status, _) = world.post(&join, &doctor(), Value::Null).await;
    assert_eq!(status, StatusCode::OK, "the doctor always comes in");
    let (status, paid) = pay(&world, &service()).await;
    assert_eq!((status, &paid["paymentStatus"]), (StatusCode::OK, &json!("COMPLETED")));
    assert_eq!(paid["sessionId"], json!(session));
    for (token, body) in [(patient(), Value::Null), (service(), json!({"userId": "aunt"}))] {
        let (status, _) = world.post(&join, &token, body).await;
        assert_eq!(status, StatusCode::ACCEPTED);
    }
    let ad_hoc = world.session().await;
    let (status, _) = world.post(&path(ad_hoc, "/join"), &patient(), Value::Null).await;
    assert_eq!(status, StatusCode::ACCEPTED, "no appointment, nothing to pay beforehand");
    let over = path(session, "/end");
    world.post(&over, &doctor(), json!({})).await;
    let (status, _) = world.post(&join, &patient(), Value::Null).await;
    assert_eq!(status, StatusCode::CONFLICT);
}

async fn without_the_gate_nobody_is_asked(database: Database) {
    let world = World::new(database).await;
    let session = booked(&world).await;
    let (status, _) = world.post(&path(session, "/join"), &patient(), Value::Null).await;
    assert_eq!(status, StatusCode::ACCEPTED);
    let (status, payment) = world.get(PAYMENT, &patient()).await;
    assert_eq!(status, StatusCode::OK);
    assert_eq!(
        (&payment["paymentStatus"], &payment["paymentRequired"]),
        (&json!("PENDING"), &json!(false))
    );
}

async fn a_patients_own_word_is_no_proof(database: Database) {
    let world = gated(database).await;
    let session = booked(&world).await;
    for role in [ApiRole::Patient, ApiRole::Doctor] {
        let user = if role == ApiRole::Patient { "pat" } else { "doc" };
        let (status, _) = pay(&world, &token(role, user)).await;
        assert_eq!(status, StatusCode::FORBIDDEN);
        let (_, payment) = world.get(PAYMENT, &token(role, user)).await;
        assert_eq!(
            (&payment["paymentStatus"], &payment["paymentRequired"]),
            (&json!("PENDING"), &json!(true))
        );
    }
    let control = &world.plane.control;
    let actor = Actor::Person("pat".to_owned());
    let refused = control.verify_payment("demo", "appointment-1", "pay-1", &actor).await;
    assert!(matches!(refused, Err(PaymentError::Forbidden)));
    let (status, _) = world.post(&path(session, "/join"), &patient(), Value::Null).await;
    assert_eq!(status, StatusCode::PAYMENT_REQUIRED);
    for stranger in [token(ApiRole::Patient, "other"), token(ApiRole::Doctor, "other")] {
        let (status, _) = world.get(PAYMENT, &stranger).await;
        assert_eq!(status, StatusCode::FORBIDDEN);
    }
}

async fn the_first_verified_payment_stays(database: Database) {
    let world = gated(database).await;
    booked(&world).await;
    let (_, first) = pay(&world, &service()).await;
    let (status, second) = pay(&world, &service()).await;
    assert_eq!((status, &second), (StatusCode::OK, &first));
    let other = json!({"payment_id": "pay-2"});
    let (status, third) = world.post(PAYMENT, &service(), other).await;
    assert_eq!((status, &third["paymentId"]), (StatusCode::OK, &json!("pay-1")));
    for body in [json!({}), json!({"paymentId": 7}), json!({"paymentId": ""})] {
        let (status, _) = world.post(PAYMENT, &service(), body).await;
        assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY);
    }
    let world = world.restart().await;
    let (_, kept) = world.get(PAYMENT, &service()).await;
    assert_eq!(kept, first);
}

async fn a_verified_payment_makes_the_missing_consultation(database: Database) {
    let world = gated(database).await;
    let body = json!({"paymentId": "pay-1", "appointment": {
        "doctorId": "doc", "doctorName": "Dr. Osei", "patientId": "pat",
        "consultationMode": "AUDIO", "scheduledDurationMinutes": 30,
    }});
    let mut wrong = body.clone();
    wrong["appointment"]["scheduledDurationMinutes"] = json!(500);
    let (status, _) = world.post(PAYMENT, &service(), wrong).await;
    assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY);
    let (status, paid) = world.post(PAYMENT, &service(), body.clone()).await;
    assert_eq!(status, StatusCode::CREATED, "{paid}");
    let session = id_of(&paid["sessionId"]);
    let (_, seen) = world.get(&path(session, ""), &patient()).await;
    assert_eq!(
        (&seen["appointmentId"], &seen["consultationMode"], &seen["scheduledDurationMinutes"]),
        (&json!("appointment-1"), &json!("AUDIO"), &json!(30))
    );
    let (status, again) = world.post(PAYMENT, &service(), body).await;
    assert_eq!(status, StatusCode::OK);
    assert_eq!(id_of(&again["sessionId"]), session, "one consultation per appointment");
    let (status, _) = world.post(&path(session, "/join"), &patient(), Value::Null).await;
    assert_eq!(status, StatusCode::ACCEPTED);
}

async fn what_nobody_knows_is_noted_and_told(database: Database) {
    let world = gated(database).await;
    let (status, _) = world.get(PAYMENT, &service()).await;
    assert_eq!(status, StatusCode::NOT_FOUND);
    let (status, problem) = pay(&world, &service()).await;
    assert_eq!(status, StatusCode::NOT_FOUND);
    assert!(problem["detail"].as_str().expect("a detail").contains("noted"), "{problem}");
    // The appointment is booked late: it counts as paid.
    let session = booked(&world).await;
    let (status, _) = world.post(&path(session, "/join"), &patient(), Value::Null).await;
    assert_eq!(status, StatusCode::ACCEPTED);
}

async fn each_clinic_has_its_own_payments(database: Database) {
    let world = gated(database).await;
    let session = booked(&world).await;
    let south = token_of(ApiRole::Service, "backend", "south");
    let (status, _) = world.get(PAYMENT, &south).await;
    assert_eq!(status, StatusCode::NOT_FOUND);
    let (status, _) = pay(&world, &south).await;
    assert_eq!(status, StatusCode::NOT_FOUND);
    let (status, _) = world.post(&path(session, "/join"), &patient(), Value::Null).await;
    assert_eq!(status, StatusCode::PAYMENT_REQUIRED, "another clinic pays for nobody here");
}
