//! Feedback, over HTTP.

use axum::http::{Method, StatusCode};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::events::Event;
use crate::testing::{
    Database, World, doctor, on_both_databases, path, patient, service, token, token_of,
};
use crate::token::ApiRole;

on_both_databases!(
    the_patient_speaks_once_after_the_end,
    every_spelling_of_the_form_is_read,
    only_the_patient_speaks_and_only_of_what_took_place,
    fields_that_do_not_fit_are_refused,
    the_doctor_answers_and_the_clinic_hides,
    a_doctors_public_feedback_is_paged_and_averaged,
);

/// A visit that took place, in this mode.
async fn visit(world: &World, mode: &str) -> Uuid {
    let body = json!({"doctorId": "doc", "patientId": "pat", "consultationMode": mode});
    let (_, made) = world.post("/api/v1/consultations/sessions", &service(), body).await;
    let session = crate::testing::id_of(&made["sessionId"]);
    world.post(&path(session, "/join"), &patient(), Value::Null).await;
    world.post(&path(session, "/admit"), &doctor(), json!({"userId": "pat"})).await;
    let (status, _) = world.post(&path(session, "/end"), &doctor(), json!({})).await;
    assert_eq!(status, StatusCode::OK);
    session
}

#[derive(sqlx::FromRow)]
struct EventRow {
    data: sqlx::types::Json<Event>,
}

/// What others were told under this name.
async fn told(world: &World, name: &str) -> Vec<Event> {
    const SQL: &str = "SELECT data FROM outbox WHERE event_type = $1 ORDER BY id";
    let mut reader = world.plane.control.db.read().await.expect("a connection");
    let rows = crate::store::fetch!(&mut reader, fetch_all, EventRow, SQL, name);
    rows.expect("reads").into_iter().map(|row| row.data.0).collect()
}

async fn say(world: &World, session: Uuid, token: &str, body: Value) -> (StatusCode, Value) {
    world.post(&path(session, "/feedback"), token, body).await
}

async fn the_patient_speaks_once_after_the_end(database: Database) {
    let world = World::new(database).await;
    let session = visit(&world, "VIDEO").await;
    let (status, _) = world.get(&path(session, "/feedback"), &patient()).await;
    assert_eq!(status, StatusCode::NOT_FOUND);
    let form = json!({
        "overallRating": 5, "audioQuality": 4, "videoQuality": 3, "doctorBehaviour": 5,
        "reviewText": "Took her time.\nThank you!",
        "feedbackTags": ["Professional", "On-time", "ON TIME", "helpful"], "wouldRecommend": true,
    });
    let (status, given) = say(&world, session, &patient(), form.clone()).await;
    assert_eq!(status, StatusCode::CREATED, "{given}");
    for name in ["overallRating", "audioQuality", "videoQuality", "doctorBehaviour", "reviewText"] {
        assert_eq!(given[name], form[name], "{name}");
    }
    assert_eq!(given["feedbackTags"], json!(["professional", "on-time", "helpful"]));
    assert_eq!((&given["isPublic"], &given["isVerified"]), (&json!(true), &json!(true)));
    let (status, problem) = say(&world, session, &patient(), form).await;
    assert_eq!((status, &problem["code"]), (StatusCode::CONFLICT, &json!("feedback_given")));
    let world = world.restart().await;
    for reader in [patient(), doctor(), service()] {
        let (status, read) = world.get(&path(session, "/feedback"), &reader).await;
        assert_eq!((status, &read), (StatusCode::OK, &given));
    }
    let (_, summary) = world.get(&path(session, "/summary"), &patient()).await;
    assert_eq!(summary["feedbackSubmitted"], true);
    let [event] = told(&world, "consultation.feedback.submitted").await.try_into().expect("one");
    assert_eq!(event.session_id(), Some(session));
    assert_eq!(
        serde_json::to_value(&event.news).expect("JSON"),
        json!({"kind": "feedback_submitted", "overall_rating": 5, "would_recommend": true,
            "tags": ["professional", "on-time", "helpful"]})
    );
    let asked = told(&world, "consultation.feedback.requested").await;
    assert_eq!(asked.len(), 1, "asked for at the end");
}

async fn every_spelling_of_the_form_is_read(database: Database) {
    let world = World::new(database).await;
    for form in [
        json!({"overall_rating": 4, "audio_quality": 2, "video_quality": 1,
            "doctor_behaviour": 3, "review_text": "fine", "feedback_tags": ["thorough"],
            "would_recommend": false}),
        json!({"rating": 4, "audioQualityRating": 2, "videoQualityRating": 1,
            "doctorBehavior": 3, "reviewText": "fine", "tags": ["Thorough"],
            "wouldRecommend": false}),
        json!({"overallRating": 4, "audio_quality_rating": 2, "video_quality_rating": 1,
            "doctor_behaviour_rating": 3, "reviewText": "fine", "feedbackTags": ["THOROUGH"],
            "wouldRecommend": false}),
    ] {
        let session = visit(&world, "VIDEO").await;
        let (status, given) = say(&world, session, &patient(), form).await;
        assert_eq!(status, StatusCode::CREATED, "{given}");
        let numbers =
            ["overallRating", "audioQuality", "videoQuality", "doctorBehaviour"].map(|n| &given[n]);
        assert_eq!(numbers, [&json!(4), &json!(2), &json!(1), &json!(3)]);
        assert_eq!(
            (&given["reviewText"], &given["feedbackTags"], &given["wouldRecommend"]),
            (&json!("fine"), &json!(["thorough"]), &json!(false))
        );
    }
    let session = visit(&world, "AUDIO").await;
    let form = json!({"overallRating": 3, "videoQuality": 2, "reviewText": "  "});
    let (status, given) = say(&world, session, &patient(), form).await;
    assert_eq!(status, StatusCode::CREATED);
    assert_eq!((&given["videoQuality"], &given["reviewText"]), (&Value::Null, &Value::Null));
    assert_eq!((&given["feedbackTags"], &given["wouldRecommend"]), (&json!([]), &Value::Null));
}

async fn only_the_patient_speaks_and_only_of_what_took_place(database: Database) {
    let world = World::new(database).await;
    let session = visit(&world, "VIDEO").await;
    let form = json!({"overallRating": 1});
    for other in [doctor(), service(), token(ApiRole::Admin, "a"), token(ApiRole::Patient, "x")] {
        let (status, _) = say(&world, session, &other, form.clone()).await;
        assert_eq!(status, StatusCode::FORBIDDEN);
    }
    let south = token_of(ApiRole::Patient, "pat", "south");
    let (status, _) = say(&world, session, &south, form.clone()).await;
    assert_eq!(status, StatusCode::NOT_FOUND);
    let planned = world.session().await;
    let (status, problem) = say(&world, planned, &patient(), form.clone()).await;
    assert_eq!((status, &problem["code"]), (StatusCode::CONFLICT, &json!("wrong_status")));
    for step in ["/cancel", "/end"] {
        let session = world.session().await;
        world.post(&path(session, step), &doctor(), json!({})).await;
        let (status, _) = say(&world, session, &patient(), form.clone()).await;
        assert_eq!(status, StatusCode::CONFLICT, "it never began");
    }
    let (status, _) = world.get(&path(session, "/feedback"), &token(ApiRole::Doctor, "x")).await;
    assert_eq!(status, StatusCode::FORBIDDEN);
}

async fn fields_that_do_not_fit_are_refused(database: Database) {
    let world = World::new(database).await;
    let session = visit(&world, "VIDEO").await;
    for body in [
        json!({}),
        json!({"overallRating": 0}),
        json!({"overallRating": 6}),
        json!({"overallRating": 4.5}),
        json!({"overallRating": "5"}),
        json!({"overallRating": null}),
        json!({"overallRating": 5, "rating": 4}),
        json!({"overallRating": 5, "videoQuality": 0}),
        json!({"overallRating": 5, "doctorBehaviour": 6}),
        json!({"overallRating": 5, "reviewText": "x".repeat(5_001)}),
        json!({"overallRating": 5, "reviewText": "a\u{0}b"}),
        json!({"overallRating": 5, "feedbackTags": [""]}),
        json!({"overallRating": 5, "feedbackTags": ["x".repeat(41)]}),
        json!({"overallRating": 5, "feedbackTags": vec!["x"; 21]}),
        json!({"overallRating": 5, "feedbackTags": "helpful"}),
        json!({"overallRating": 5, "wouldRecommend": "yes"}),
        json!([5]),
    ] {
        let (status, answer) = say(&world, session, &patient(), body.clone()).await;
        assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY, "{body} {answer}");
    }
    let whole = json!({"overallRating": 5, "reviewText": "é".repeat(5_000)});
    let (status, _) = say(&world, session, &patient(), whole).await;
    assert_eq!(status, StatusCode::CREATED);
}

async fn the_doctor_answers_and_the_clinic_hides(database: Database) {
    let world = World::new(database).await;
    let session = visit(&world, "VIDEO").await;
    let answer = path(session, "/feedback/response");
    let body = json!({"response": "Thank you."});
    let (status, _) = world.post(&answer, &doctor(), body.clone()).await;
    assert_eq!(status, StatusCode::NOT_FOUND, "nothing to answer");
    say(&world, session, &patient(), json!({"overallRating": 2})).await;
    for other in [patient(), service(), token(ApiRole::Doctor, "other")] {
        let (status, _) = world.post(&answer, &other, body.clone()).await;
        assert_eq!(status, StatusCode::FORBIDDEN);
    }
    for bad in [json!({}), json!({"response": " "}), json!({"response": "x".repeat(5_001)})] {
        let (status, _) = world.post(&answer, &doctor(), bad).await;
        assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY);
    }
    let (status, answered) = world.post(&answer, &doctor(), body).await;
    assert_eq!((status, &answered["doctorResponse"]), (StatusCode::OK, &json!("Thank you.")));
    assert!(answered["doctorRespondedAt"].is_string());
    let body = json!({"doctorResponse": "Thank you, we have fixed it."});
    let (_, again) = world.post(&answer, &doctor(), body).await;
    assert_eq!(again["doctorResponse"], "Thank you, we have fixed it.");

    let feedback = path(session, "/feedback");
    let hide = json!({"isPublic": false});
    for other in [patient(), doctor()] {
        let (status, _) = world.call(Method::PATCH, &feedback, Some(&other), hide.clone()).await;
        assert_eq!(status, StatusCode::FORBIDDEN);
    }
    let (status, hidden) = world.call(Method::PATCH, &feedback, Some(&service()), hide).await;
    assert_eq!(status, StatusCode::OK);
    assert_eq!((&hidden["isPublic"], &hidden["isVerified"]), (&json!(false), &json!(true)));
    let public = "/api/v1/consultations/doctors/doc/feedback";
    let (_, page) = world.get(public, &patient()).await;
    assert_eq!((&page["total"], &page["items"]), (&json!(0), &json!([])));
    let (status, _) = world.get(&feedback, &doctor()).await;
    assert_eq!(status, StatusCode::OK, "those it is about still see it");
    let south = token_of(ApiRole::Service, "backend", "south");
    let (status, _) = world.call(Method::PATCH, &feedback, Some(&south), json!({})).await;
    assert_eq!(status, StatusCode::NOT_FOUND);
}

async fn a_doctors_public_feedback_is_paged_and_averaged(database: Database) {
    let world = World::new(database).await;
    let public = "/api/v1/consultations/doctors/doc/feedback";
    let (status, none) = world.get(public, &patient()).await;
    assert_eq!((status, &none["averageRating"]), (StatusCode::OK, &Value::Null));
    for (rating, recommend) in [(5, json!(true)), (4, json!(false)), (4, Value::Null)] {
        let session = visit(&world, "VIDEO").await;
        let form = json!({"overallRating": rating, "wouldRecommend": recommend});
        let (status, _) = say(&world, session, &patient(), form).await;
        assert_eq!(status, StatusCode::CREATED);
    }
    let (_, all) = world.get(public, &token(ApiRole::Patient, "somebody")).await;
    assert_eq!(
        (&all["averageRating"], &all["total"], &all["byStars"], &all["recommendPercent"]),
        (&json!(4.33), &json!(3), &json!([0, 0, 0, 2, 1]), &json!(50))
    );
    assert!(all["items"][0].get("patientId").is_none(), "nothing says whose it is: {all}");
    assert!(all["items"][0].get("sessionId").is_none());
    let ratings = |page: &Value| {
        let items = page["items"].as_array().expect("a list").clone();
        items.iter().map(|item| item["overallRating"].as_i64().unwrap_or(0)).collect::<Vec<_>>()
    };
    assert_eq!(ratings(&all), [4, 4, 5], "newest first");
    let (_, first) = world.get(&format!("{public}?limit=2"), &doctor()).await;
    assert_eq!((ratings(&first), &first["total"]), (vec![4, 4], &json!(3)));
    let cursor = first["nextCursor"].as_str().expect("more");
    let (_, rest) = world.get(&format!("{public}?limit=2&cursor={cursor}"), &doctor()).await;
    assert_eq!((ratings(&rest), &rest["nextCursor"]), (vec![5], &Value::Null));
    for bad in ["?limit=0", "?limit=201", "?limit=x", "?cursor=nonsense"] {
        let (status, _) = world.get(&format!("{public}{bad}"), &doctor()).await;
        assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY, "{bad}");
    }
    let (_, south) = world.get(public, &token_of(ApiRole::Doctor, "doc", "south")).await;
    assert_eq!(south["total"], 0);
}
