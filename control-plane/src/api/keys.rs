//! `/api/v1/keys` and `/api/v1/tokens`: credentials of a clinic, for its administrator.

use std::collections::BTreeSet;

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::problem::Problem;
use super::{Body, id_in_path};
use crate::access::Caller;
use crate::permissions::Permission;
use crate::service_keys::{KeyError, NewKey};
use crate::store::KeyRow;
use crate::{ControlPlane, audit, text, view};

/// A service key to make.
#[derive(Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct KeyRequest {
    /// What it is called; who acts by it in the records.
    name: String,
    /// What it may do.
    scopes: BTreeSet<Permission>,
    /// When it ends; never, if absent.
    expires_at: Option<DateTime<Utc>>,
}

/// A service key, without the key.
#[derive(Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct KeyView {
    key_id: Uuid,
    name: String,
    scopes: BTreeSet<Permission>,
    created_by: String,
    created_at: String,
    expires_at: Option<String>,
    revoked_at: Option<String>,
}

/// A service key that was made. The key is shown this once.
#[derive(Serialize, utoipa::ToSchema)]
pub(crate) struct MadeKeyView {
    key: String,
    #[serde(flatten)]
    about: KeyView,
}

/// The clinic's keys.
#[derive(Serialize, utoipa::ToSchema)]
pub(crate) struct KeyList {
    items: Vec<KeyView>,
}

/// A token that is good no more: the token itself, or its `jti` and its holder.
#[derive(Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct RevokeRequest {
    /// The whole token.
    token: Option<String>,
    /// Its `jti`.
    jti: Option<String>,
}

/// Makes a service key.
#[utoipa::path(post, path = "/api/v1/keys", request_body = KeyRequest,
    responses((status = 201, body = MadeKeyView), (status = 403), (status = 422)))]
pub(crate) async fn create(
    State(state): State<ControlPlane>,
    caller: Caller,
    Body(request): Body<KeyRequest>,
) -> Result<Response, Problem> {
    caller.may(Permission::ManageKeys)?;
    let new = NewKey { name: request.name, scopes: request.scopes, expires_at: request.expires_at };
    let by = caller.0.user_id.as_str();
    let (row, made) = state.control.create_key(&caller.0.clinic, by, &new).await?;
    let answer = MadeKeyView { key: made.key.0, about: shown(row) };
    Ok((StatusCode::CREATED, Json(answer)).into_response())
}

/// The clinic's service keys, the newest first.
#[utoipa::path(get, path = "/api/v1/keys",
    responses((status = 200, body = KeyList), (status = 403)))]
pub(crate) async fn list(
    State(state): State<ControlPlane>,
    caller: Caller,
) -> Result<Json<KeyList>, Problem> {
    caller.may(Permission::ManageKeys)?;
    let control = &state.control;
    let rows = control.within(control.db.keys(&caller.0.clinic)).await?;
    Ok(Json(KeyList { items: rows.into_iter().map(shown).collect() }))
}

/// Revokes a service key: within a second it is refused everywhere, its channels end, and whoever
/// came in by it is put out.
#[utoipa::path(delete, path = "/api/v1/keys/{key}",
    responses((status = 204), (status = 403), (status = 404)))]
pub(crate) async fn revoke(
    State(state): State<ControlPlane>,
    caller: Caller,
    Path(key): Path<String>,
) -> Result<StatusCode, Problem> {
    caller.may(Permission::ManageKeys)?;
    if state.control.revoke_key(&caller.0.clinic, id_in_path(&key)?).await? {
        Ok(StatusCode::NO_CONTENT)
    } else {
        Err(Problem::not_found("there is no such key"))
    }
}

/// Revokes a token before its time: within a second it is refused everywhere, its channels end,
/// and whoever came in by it is put out.
#[utoipa::path(post, path = "/api/v1/tokens/revoke", request_body = RevokeRequest,
    responses((status = 204), (status = 403), (status = 404), (status = 422)))]
pub(crate) async fn revoke_token(
    State(state): State<ControlPlane>,
    caller: Caller,
    Body(request): Body<RevokeRequest>,
) -> Result<StatusCode, Problem> {
    caller.may(Permission::ManageKeys)?;
    let clinic = &caller.0.clinic;
    match (request.token, request.jti) {
        (Some(token), None) => {
            let token = state.control.token_to_revoke(&token).await?;
            let token = token.filter(|(token, _)| token.clinic == *clinic);
            let (token, id) = token.ok_or_else(|| Problem::not_found("there is no such token"))?;
            audit::subject(&id);
            state.control.revoke_token(clinic, &id, Some(token.expires_at)).await?;
        }
        (None, Some(jti)) if text::is_id(&jti) => {
            audit::subject(&jti);
            state.control.revoke_token(clinic, &jti, None).await?;
        }
        (Some(_) | None, Some(_) | None) => {
            return Err(Problem::invalid("either token or jti says which token"));
        }
    }
    Ok(StatusCode::NO_CONTENT)
}

fn shown(row: KeyRow) -> KeyView {
    KeyView {
        key_id: row.id,
        name: row.name,
        scopes: row.scopes.0,
        created_by: row.created_by,
        created_at: view::time(row.created_at),
        expires_at: row.expires_at.map(view::time),
        revoked_at: row.revoked_at.map(view::time),
    }
}

impl From<KeyError> for Problem {
    fn from(error: KeyError) -> Self {
        match error {
            KeyError::Invalid(detail) => Self::invalid(detail),
            KeyError::Change(error) => error.into(),
        }
    }
}
