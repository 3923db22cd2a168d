//! The description of the API for machines: `/api/openapi.json`.

use axum::Json;
use utoipa::OpenApi as _;

use super::{health, links, sessions};

#[derive(utoipa::OpenApi)]
#[openapi(
    info(
        title = "Bedside consultation API",
        description = "Consultations, waiting room, chat and join links."
    ),
    paths(
        health::show,
        sessions::create,
        sessions::list,
        sessions::read,
        sessions::join,
        sessions::admit,
        sessions::send_back,
        sessions::leave,
        sessions::pause,
        sessions::resume,
        sessions::end,
        sessions::cancel,
        sessions::no_show,
        sessions::chat,
        links::exchange,
        links::create,
        links::revoke,
    )
)]
struct Description;

pub(super) async fn document() -> Json<utoipa::openapi::OpenApi> {
    Json(Description::openapi())
}
