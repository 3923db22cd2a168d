//! `/api/v1/events`: what happened in a clinic, for services that poll instead of being told, or
//! that missed something. `/api/asyncapi.json`: what is told, where, and in which words.

use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::problem::Problem;
use crate::ControlPlane;
use crate::access::Caller;
use crate::events::{asyncapi, encode};
use crate::permissions::Permission;
use crate::store::replay::Numbered;

const DEFAULT_LIMIT: i64 = 100;
const MAX_LIMIT: i64 = 1_000;

/// From where on; `cursor` is another word for `after`.
#[derive(Deserialize)]
pub(crate) struct EventsQuery {
    after: Option<i64>,
    cursor: Option<i64>,
    limit: Option<i64>,
}

/// Events in the order in which they became known.
#[derive(Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct EventsAnswer {
    /// Each with its number (`seq`), its `id`, its `type`, and the words that webhooks get.
    #[schema(value_type = Vec<Object>)]
    items: Vec<Map<String, Value>>,
    /// Where to read on; the number that was asked for if there is nothing new.
    next_cursor: String,
}

/// What happened in the caller's clinic after a number.
#[utoipa::path(get, path = "/api/v1/events",
    params(("after" = Option<i64>, Query, minimum = 0), ("cursor" = Option<i64>, Query, minimum = 0),
        ("limit" = Option<i64>, Query, minimum = 1, maximum = 1000)),
    responses((status = 200, body = EventsAnswer)))]
pub(crate) async fn list(
    State(state): State<ControlPlane>,
    caller: Caller,
    query: Result<Query<EventsQuery>, QueryRejection>,
) -> Result<Json<EventsAnswer>, Problem> {
    caller.may(Permission::ReadEvents)?;
    let Query(query) = query.map_err(|_| Problem::invalid("the query does not fit"))?;
    let after = query.after.or(query.cursor).unwrap_or(0);
    if after < 0 {
        return Err(Problem::invalid("after must not be negative"));
    }
    let limit = query.limit.unwrap_or(DEFAULT_LIMIT);
    if !(1..=MAX_LIMIT).contains(&limit) {
        return Err(Problem::invalid("limit must be from 1 to 1000"));
    }
    let events = state.control.events_after(&caller.0.clinic, after, limit).await?;
    let next = events.last().map_or(after, |last| last.seq);
    let items = events.iter().map(shown).collect();
    Ok(Json(EventsAnswer { items, next_cursor: next.to_string() }))
}

fn shown(numbered: &Numbered) -> Map<String, Value> {
    let mut item = encode::webhook::body(&numbered.event);
    item.insert("seq".to_owned(), Value::from(numbered.seq));
    item.insert("id".to_owned(), Value::String(numbered.event.id.to_string()));
    item
}

/// The description of all messages for machines.
pub(super) async fn description() -> Json<Value> {
    Json(asyncapi::document())
}
