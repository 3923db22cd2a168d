//! `/api/v1/links/…` and the making of links.

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::problem::Problem;
use super::sessions::own;
use super::{Body, id_in_path};
use crate::access::Caller;
use crate::consultation::PersonRole;
use crate::links::NewLink;
use crate::permissions::Permission;
use crate::token::ApiRole;
use crate::{ControlPlane, view};

/// The longest secret that is looked at.
const MAX_SECRET_LEN: usize = 128;

/// The secret from a link's URL fragment.
#[derive(Deserialize, utoipa::ToSchema)]
pub(crate) struct ExchangeRequest {
    link: String,
}

/// What a link is good for.
#[derive(Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ExchangeAnswer {
    token: String,
    expires_at: String,
    role: &'static str,
    user_id: String,
    name: String,
    session_id: Option<Uuid>,
    clinic: String,
}

/// A link to make.
#[derive(Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct LinkRequest {
    user_id: String,
    /// `patient`, `doctor`, `guest`.
    role: String,
    name: Option<String>,
}

/// A link that was made. Its secret is shown this once.
#[derive(Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct LinkAnswer {
    link: String,
    link_id: Uuid,
    expires_at: String,
}

/// Turns a link's secret into an API token.
#[utoipa::path(post, path = "/api/v1/links/exchange", request_body = ExchangeRequest,
    responses((status = 200, body = ExchangeAnswer), (status = 404), (status = 410)))]
pub(crate) async fn exchange(
    State(state): State<ControlPlane>,
    Body(request): Body<ExchangeRequest>,
) -> Result<Json<ExchangeAnswer>, Problem> {
    if request.link.is_empty() || request.link.len() > MAX_SECRET_LEN {
        return Err(Problem::not_found("there is no such link"));
    }
    let exchanged = state.control.exchange(&request.link).await?;
    let claims = exchanged.claims;
    Ok(Json(ExchangeAnswer {
        token: exchanged.token.0,
        expires_at: view::time(claims.expires_at),
        role: claims.role.as_str(),
        user_id: claims.user_id,
        name: claims.name.map(|name| name.0).unwrap_or_default(),
        session_id: claims.session,
        clinic: claims.clinic,
    }))
}

/// Makes a link for somebody of a consultation.
#[utoipa::path(post, path = "/api/v1/consultations/sessions/{id}/links",
    request_body = LinkRequest, responses((status = 201, body = LinkAnswer)))]
pub(crate) async fn create(
    State(state): State<ControlPlane>,
    caller: Caller,
    Path(id): Path<String>,
    Body(request): Body<LinkRequest>,
) -> Result<Response, Problem> {
    let consultation = own(&state, &caller, &id).await?;
    caller.may(Permission::ManageLinks)?;
    if !caller.leads(&consultation) {
        return Err(Problem::forbidden("only the doctor of the consultation may do this"));
    }
    let role = PersonRole::parse(&request.role)
        .ok_or_else(|| Problem::invalid("role must be patient, doctor or guest"))?;
    let new = NewLink { user_id: request.user_id, role, name: request.name };
    let by = caller.0.user_id.as_str();
    let link = state.control.create_link(&caller.0.clinic, consultation.id, by, &new).await?;
    let answer =
        LinkAnswer { link: link.url.0, link_id: link.id, expires_at: view::time(link.expires_at) };
    Ok((StatusCode::CREATED, Json(answer)).into_response())
}

/// Revokes a link and puts its person out.
#[utoipa::path(delete, path = "/api/v1/links/{link}", responses((status = 204)))]
pub(crate) async fn revoke(
    State(state): State<ControlPlane>,
    caller: Caller,
    Path(link): Path<String>,
) -> Result<StatusCode, Problem> {
    let row = state.control.link(&caller.0.clinic, id_in_path(&link)?).await?;
    caller.may(Permission::ManageLinks)?;
    let may = match caller.0.role {
        ApiRole::Service | ApiRole::Admin => true,
        ApiRole::Doctor => match row.session_id {
            Some(id) => caller.leads(&*state.control.look(&caller.0.clinic, id).await?),
            None => row.user_id == caller.0.user_id,
        },
        ApiRole::Patient | ApiRole::Guest | ApiRole::Auditor => false,
    };
    if !may {
        return Err(Problem::forbidden("only the doctor of the consultation may do this"));
    }
    state.control.revoke_link(&row, &caller.actor()).await?;
    Ok(StatusCode::NO_CONTENT)
}
