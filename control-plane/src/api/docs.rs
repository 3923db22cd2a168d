//! The description of the API for machines (`/api/openapi.json`, `/openapi.json`), and the page that
//! shows it to people (`/docs`).
//!
//! The handlers' annotations say what is special about each operation. What all of them share is
//! added here, once: who may call, the errors that any of them may answer, the form of ids in
//! paths. The page is Swagger UI, shipped in the binary; it runs under the same content security
//! policy as our own pages.

use std::sync::{Arc, LazyLock};

use axum::extract::Path;
use axum::http::StatusCode;
use axum::http::header::{CACHE_CONTROL, CONTENT_ENCODING, CONTENT_TYPE};
use axum::response::{IntoResponse, Redirect, Response};
use axum::{Json, Router, routing::get};
use serde_json::{Map, Value, json};
use utoipa_swagger_ui::Config;

use super::openapi;
use super::problem::Problem;

/// Operations that need no token: links carry their own secret, health tells nothing, and connection
/// checks are for strangers.
const OPEN: [&str; 7] = [
    "/api/v1/checks",
    "/api/v1/checks/results",
    "/api/v1/links/exchange",
    "/api/openapi.json",
    "/api/video/health",
    "/health",
    "/actuator/health",
];

/// The finished description; made once.
static DOCUMENT: LazyLock<Value> = LazyLock::new(|| {
    let drawn = serde_json::to_value(openapi::description());
    complete(drawn.expect("a description is JSON"))
});

static PAGE: LazyLock<Arc<Config<'static>>> = LazyLock::new(|| {
    let config = Config::from("/api/openapi.json")
        .use_base_layout()
        // Nothing is asked of anybody else's server, and no token is kept in the browser.
        .validator_url("none")
        .persist_authorization(false)
        .deep_linking(true)
        .display_request_duration(true);
    Arc::new(config)
});

/// The doors to the description.
pub(super) fn router<S: Clone + Send + Sync + 'static>() -> Router<S> {
    let to_page = || async { Redirect::permanent("/docs/") };
    Router::new()
        .route("/api/openapi.json", get(document))
        .route("/openapi.json", get(document))
        .route("/docs", get(to_page))
        .route("/swagger-ui.html", get(to_page))
        .route("/docs/", get(|| async { file("index.html") }))
        .route("/docs/{*path}", get(|Path(path): Path<String>| async move { file(&path) }))
}

async fn document() -> Json<&'static Value> {
    Json(&DOCUMENT)
}

/// One file of the page.
fn file(path: &str) -> Response {
    match utoipa_swagger_ui::serve(path, Arc::clone(&PAGE)) {
        Ok(Some(file)) => {
            let kind = [(CONTENT_TYPE, file.content_type), (CACHE_CONTROL, "no-cache".to_owned())];
            let packed = file.gzpipped.then_some([(CONTENT_ENCODING, "gzip")]);
            let body = file.bytes.into_owned();
            match packed {
                Some(packed) => (StatusCode::OK, kind, packed, body).into_response(),
                None => (StatusCode::OK, kind, body).into_response(),
            }
        }
        Ok(None) => Problem::not_found("there is nothing at this path").into_response(),
        Err(error) => {
            tracing::error!(%error, "a page of the API's description cannot be made");
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
    }
}

/// Adds what all operations share.
fn complete(mut document: Value) -> Value {
    let root = fields(&mut document);
    root.insert("servers".to_owned(), json!([{"url": "/"}]));
    root.insert("security".to_owned(), json!([{"bearer": []}]));
    let components = member(root, "components");
    components.insert(
        "securitySchemes".to_owned(),
        json!({"bearer": {"type": "http", "scheme": "bearer", "bearerFormat": "JWT",
            "description": "An API token: of a person, of a join link, or of a service."}}),
    );
    let schemas = member(components, "schemas");
    schemas.insert("Problem".to_owned(), problem_schema());
    let lenient = lenient_schemas(schemas);
    for (path, item) in member(root, "paths").iter_mut() {
        for (method, operation) in fields(item).iter_mut() {
            if operation.get("responses").is_some() {
                complete_operation(path, method, fields(operation), &lenient);
            }
        }
    }
    document
}

/// References to the schemas that an empty object fits: a body of theirs may be left out.
fn lenient_schemas(schemas: &Map<String, Value>) -> Vec<String> {
    let lenient = schemas.iter().filter(|(_, schema)| {
        schema.get("required").and_then(Value::as_array).is_none_or(Vec::is_empty)
    });
    lenient.map(|(name, _)| format!("#/components/schemas/{name}")).collect()
}

fn complete_operation(
    path: &str,
    method: &str,
    operation: &mut Map<String, Value>,
    lenient: &[String],
) {
    let open = OPEN.contains(&path);
    if open {
        operation.insert("security".to_owned(), json!([]));
    }
    // Handlers of one name are in several modules; a method and a path are unique.
    operation.insert("operationId".to_owned(), operation_id(method, path).into());
    let parameters = operation.get_mut("parameters").and_then(Value::as_array_mut);
    let mut with_query = false;
    for parameter in parameters.into_iter().flatten() {
        let is_in = |place: &str| parameter.get("in").is_some_and(|known| known == place);
        with_query |= is_in("query");
        if is_in("path") {
            let name = parameter.get("name").and_then(Value::as_str).unwrap_or_default();
            let schema = id_schema(path, name);
            fields(parameter).insert("schema".to_owned(), schema);
        }
    }
    let with_body = operation.contains_key("requestBody");
    if let Some(body) = operation.get_mut("requestBody") {
        let schema = body.pointer("/content/application~1json/schema/$ref").and_then(Value::as_str);
        if schema.is_some_and(|schema| lenient.iter().any(|known| known == schema)) {
            fields(body).insert("required".to_owned(), false.into());
        }
        // Bytes, and not a list of numbers.
        if let Some(schema) = body.pointer_mut("/content/application~1octet-stream/schema") {
            *schema = json!({"type": "string", "format": "binary"});
        }
    }
    let responses = member(operation, "responses");
    for (code, about) in errors(path, method, with_query, with_body) {
        responses.entry(code).or_insert_with(|| json!({"description": about}));
    }
    for (code, response) in responses.iter_mut() {
        if (code.starts_with('4') || code.starts_with('5')) && response.get("content").is_none() {
            let content = json!({"application/problem+json":
                {"schema": {"$ref": "#/components/schemas/Problem"}}});
            fields(response).insert("content".to_owned(), content);
        }
    }
}

/// The errors that an operation may answer by its nature.
fn errors(
    path: &str,
    method: &str,
    with_query: bool,
    with_body: bool,
) -> Vec<(&'static str, &'static str)> {
    let open = OPEN.contains(&path);
    let mut errors = vec![
        ("429", "Too many requests; `retry-after` says when to ask again."),
        ("503", "Cannot be answered now; `retry-after` says when to ask again."),
    ];
    if !open {
        errors.push(("401", "No valid token."));
        errors.push(("403", "Not for this caller."));
    }
    if path.contains('{') || with_query || with_body {
        errors.push(("404", "There is no such thing in this clinic."));
    }
    if with_query || with_body {
        errors.push(("422", "A field or a parameter does not fit."));
    }
    if with_body {
        errors.push(("400", "The body is not JSON."));
        errors.push(("413", "The body is too large."));
        errors.push(("415", "The body is of another kind."));
    }
    if method == "post" && !open {
        errors.push(("402", "The consultation is not paid."));
        errors.push(("409", "Not possible as things stand."));
    }
    errors
}

/// `getApiVideoSessionsId`: unique, and stable while the path is.
fn operation_id(method: &str, path: &str) -> String {
    let parts = path.split(['/', '-', '{', '}', '.']).filter(|part| !part.is_empty());
    let words = parts.map(|part| {
        let mut letters = part.chars();
        let first = letters.next().map(|letter| letter.to_ascii_uppercase());
        first.into_iter().chain(letters).collect::<String>()
    });
    words.fold(method.to_owned(), |id, word| id + &word)
}

/// The form of an id in a path: what is ours is a UUID, what is a clinic's is text.
fn id_schema(path: &str, name: &str) -> Value {
    let of_clinic = [
        "/api/video/sessions/doctor/",
        "/api/video/sessions/patient/",
        "/api/video/consultation/",
        "/api/video-consultations/",
        "/api/appointments/",
    ];
    let names = ["code", "doctor_id", "doctorId", "user_id", "userId", "appointmentId"];
    if of_clinic.iter().any(|start| path.starts_with(start)) || names.contains(&name) {
        json!({"type": "string", "minLength": 1, "maxLength": 255})
    } else {
        json!({"type": "string", "format": "uuid"})
    }
}

fn problem_schema() -> Value {
    json!({
        "type": "object",
        "description": "What went wrong (RFC 9457).",
        "properties": {
            "type": {"type": "string", "description": "`about:blank`."},
            "title": {"type": "string", "description": "The status in words."},
            "status": {"type": "integer", "description": "The status."},
            "detail": {"type": "string", "description": "For people."},
            "code": {"type": "string", "description": "For programs; it does not change."},
        },
        "required": ["type", "title", "status", "code"],
        "example": {"type": "about:blank", "title": "Conflict", "status": 409,
            "detail": "the consultation is over (COMPLETED)", "code": "session_over"},
    })
}

/// The members of an object; what is none becomes an empty one.
fn fields(value: &mut Value) -> &mut Map<String, Value> {
    if !value.is_object() {
        *value = json!({});
    }
    value.as_object_mut().expect("it is an object now")
}

/// The object under a key, made if it is not there.
fn member<'a>(parent: &'a mut Map<String, Value>, key: &str) -> &'a mut Map<String, Value> {
    fields(parent.entry(key).or_insert_with(|| json!({})))
}
