//! `/api/video/token`, `/api/video/consultation/…`: the contract of a stand-alone video service,
//! in `camelCase`.
//!
//! `userId` and `userRole` are those of the person that the call is about; a service acts for
//! anybody, people act as themselves.

use axum::Json;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};

use super::Body;
use super::older::{
    acting, arrival, end as end_it, enter, link_for, of_body, of_either, start as start_it,
};
use super::problem::Problem;
use super::video_bodies::{EndVideoConsultation, GenerateVideoToken};
use super::video_view::{VideoConsultation, VideoToken};
use super::video_words::{USER, Words};
use crate::access::Caller;
use crate::consultation::Consultation;
use crate::{ControlPlane, Joined};

/// The answer of most calls here.
pub(super) type Call = Result<Json<VideoConsultation>, Problem>;

/// A token for the room of a consultation.
///
/// The doctor, and whoever was let in, get it at once. Others wait: 202, `status` is `WAITING` and
/// there is no token yet; ask again when the channel says `ADMITTED`.
#[utoipa::path(post, path = "/api/video/token", tag = "video",
    request_body = GenerateVideoToken,
    responses((status = 200, body = VideoToken),
        (status = 202, description = "In the waiting room.", body = VideoToken)))]
pub(crate) async fn token(
    State(state): State<ControlPlane>,
    caller: Caller,
    Body(words): Body<Words>,
) -> Result<Response, Problem> {
    let consultation = of_body(&state, &caller, &words).await?;
    token_of(&state, &caller, &consultation, &words).await
}

pub(super) async fn token_of(
    state: &ControlPlane,
    caller: &Caller,
    consultation: &Consultation,
    words: &Words,
) -> Result<Response, Problem> {
    let acting = acting(caller, consultation, words, USER)?;
    let joined = enter(state, caller, consultation, &acting).await?;
    let (status, arrival) = arrival(state, consultation, &acting, &joined).await?;
    let ice_servers = match &joined {
        Joined::Room(access) => state.control.rooms.ice_servers(access),
        Joined::Waiting { .. } => Vec::new(),
    };
    Ok((status, Json(VideoToken::new(&arrival, ice_servers))).into_response())
}

/// Starts a consultation: it is in progress from now on. Asking again does no harm.
#[utoipa::path(post, path = "/api/video/consultation/start", tag = "video",
    request_body = GenerateVideoToken, responses((status = 200, body = VideoConsultation)))]
pub(crate) async fn start(
    State(state): State<ControlPlane>,
    caller: Caller,
    Body(words): Body<Words>,
) -> Call {
    let consultation = of_body(&state, &caller, &words).await?;
    let started = start_it(&state, &caller, &consultation, &words).await?;
    shown(&state, &caller, &started).await
}

/// Ends a consultation and closes its room. Asking again does no harm.
#[utoipa::path(post, path = "/api/video/consultation/end", tag = "video",
    request_body = EndVideoConsultation, responses((status = 200, body = VideoConsultation)))]
pub(crate) async fn end(
    State(state): State<ControlPlane>,
    caller: Caller,
    Body(words): Body<Words>,
) -> Call {
    let consultation = of_body(&state, &caller, &words).await?;
    let ended = end_it(&state, &caller, &consultation, &words).await?;
    shown(&state, &caller, &ended).await
}

/// Where a consultation stands. The id is the session's or the appointment's.
#[utoipa::path(get, path = "/api/video/consultation/{id}/status", tag = "video",
    responses((status = 200, body = VideoConsultation)))]
pub(crate) async fn status(
    State(state): State<ControlPlane>,
    caller: Caller,
    Path(id): Path<String>,
) -> Call {
    let consultation = of_either(&state, &caller, &id).await?;
    shown(&state, &caller, &consultation).await
}

pub(super) async fn shown(
    state: &ControlPlane,
    caller: &Caller,
    consultation: &Consultation,
) -> Call {
    let link = link_for(state, caller, consultation).await?;
    Ok(Json(VideoConsultation::new(consultation, caller.viewer(consultation), link)))
}
