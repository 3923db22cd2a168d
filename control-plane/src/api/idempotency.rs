//! `Idempotency-Key`: a request that is sent again happens once, and is answered as the first time.
//!
//! A key is a caller's own, within its clinic, for a day. Only success is kept: a refused request has
//! changed nothing and may be tried again. Answers hold tokens and links, so they are sealed (AES-256-GCM)
//! under the API secret. While the first request runs, a second one waits; one whose process has
//! died is run again when its lease is over, which is where "once" ends: a crash between the change and
//! the answer. The request runs to its end also when its sender has gone.

use std::time::Duration;

use aws_lc_rs::aead::{AES_256_GCM, Aad, NONCE_LEN, Nonce, RandomizedNonceKey};
use aws_lc_rs::{digest, hmac};
use axum::body::{Body, Bytes, HttpBody as _};
use axum::extract::{DefaultBodyLimit, FromRequest as _, FromRequestParts as _, Request, State};
use axum::http::header::{AUTHORIZATION, CONTENT_TYPE, LOCATION};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, request};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use tokio::time::Instant;
use tracing::Instrument as _;
use uuid::Uuid;

use super::problem::Problem;
use crate::access::{API_KEY, Caller};
use crate::control::Control;
use crate::store::{self, Claim};
use crate::{ControlPlane, KeyPair};

/// The header of the request.
pub(super) static KEY: HeaderName = HeaderName::from_static("idempotency-key");
/// The header of an answer that was given before.
static REPLAYED: HeaderName = HeaderName::from_static("idempotency-replayed");

const MAX_KEY_LEN: usize = 255;
/// The longest body under a key; what the route takes is still the route's own limit.
const MAX_BODY: usize = 64 * 1024 * 1024;
/// The longest answer that is kept.
const MAX_ANSWER: u64 = 1024 * 1024;
/// How long an answer is kept.
const KEPT: Duration = Duration::from_secs(24 * 3600);
/// How long a request may run before it counts as dead.
const LEASE: Duration = Duration::from_secs(60);
/// How long the same request waits for the first one.
const WAIT: Duration = Duration::from_secs(10);
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// Lets each request under a key happen once.
pub(super) async fn once(
    State(state): State<ControlPlane>,
    request: Request,
    next: Next,
) -> Response {
    let headers = request.headers();
    // Without a caller there is nobody whose key it could be; the handler says so if it needs one.
    let known = headers.contains_key(AUTHORIZATION) || headers.contains_key(&API_KEY);
    let keyed = request.method() == Method::POST && known;
    if !keyed || !headers.contains_key(&KEY) {
        return next.run(request).await;
    }
    let Some(key) = key(headers) else {
        let detail = "Idempotency-Key must be one value of 1 to 255 visible ASCII characters";
        return Problem::new(StatusCode::BAD_REQUEST, "bad_idempotency_key", detail)
            .into_response();
    };
    run_once(&state, key, request, next).await.unwrap_or_else(IntoResponse::into_response)
}

/// The key, with or without the quotes of a structured field.
fn key(headers: &HeaderMap) -> Option<String> {
    let mut lines = headers.get_all(&KEY).iter();
    let (Some(line), None) = (lines.next(), lines.next()) else { return None };
    let text = line.to_str().ok()?.trim();
    let text = text.strip_prefix('"').and_then(|text| text.strip_suffix('"')).unwrap_or(text);
    let good =
        (1..=MAX_KEY_LEN).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_graphic());
    good.then(|| text.to_owned())
}

async fn run_once(
    state: &ControlPlane,
    key: String,
    request: Request,
    next: Next,
) -> Result<Response, Problem> {
    let (mut parts, body) = request.into_parts();
    let caller = Caller::from_request_parts(&mut parts, state).await?;
    let bytes = whole(body).await?;
    let claim = Claim {
        clinic: caller.0.clinic.clone(),
        caller: format!("{}:{}", caller.0.role.as_str(), caller.0.user_id),
        key,
        request_hash: request_hash(&parts, &bytes),
        holder: Uuid::now_v7(),
    };
    if let Some(answer) = state.control.claim(&claim).await? {
        state.control.counters.idempotent_replays.add();
        return Ok(answer);
    }
    // The handler finds the caller here and need not ask again.
    parts.extensions.insert(caller);
    let request = Request::from_parts(parts, Body::from(bytes));
    let state = state.clone();
    let running = async move {
        let answer = next.run(request).await;
        state.control.keep(&claim, answer).await
    };
    // A task of its own: it ends also when the sender hangs up.
    tokio::spawn(crate::audit::along(running).in_current_span()).await.map_err(|_| {
        Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", "the request failed")
    })
}

/// The whole body, under the longest limit of any route.
async fn whole(body: Body) -> Result<Bytes, Problem> {
    let mut holder = Request::new(body);
    DefaultBodyLimit::max(MAX_BODY).apply(&mut holder);
    Bytes::from_request(holder, &()).await.map_err(|rejection| match rejection.status() {
        StatusCode::PAYLOAD_TOO_LARGE => Problem::too_large(),
        _ => Problem::new(StatusCode::BAD_REQUEST, "malformed", "the body could not be read"),
    })
}

fn request_hash(parts: &request::Parts, body: &[u8]) -> Vec<u8> {
    let mut hash = digest::Context::new(&digest::SHA256);
    let target = parts.uri.path_and_query().map_or("", |target| target.as_str());
    // The line cannot hold the byte that ends it.
    hash.update(format!("{} {target}\n", parts.method).as_bytes());
    hash.update(body);
    hash.finish().as_ref().to_vec()
}

impl Control {
    /// Takes the key; `None` = the request is to be run. Waits while the same one runs already.
    async fn claim(&self, claim: &Claim) -> Result<Option<Response>, Problem> {
        let deadline = Instant::now() + WAIT;
        loop {
            let (now, held, kept) = (store::now(), Self::ends_in(LEASE), Self::ends_in(KEPT));
            let known = self.within(self.db.claim_request(claim, now, held, kept)).await?;
            let Some(known) = known else { return Ok(None) };
            if known.request_hash != claim.request_hash {
                return Err(Problem::new(
                    StatusCode::UNPROCESSABLE_ENTITY,
                    "idempotency_key_reused",
                    "this Idempotency-Key was used for another request",
                ));
            }
            if let Some(sealed) = known.answer {
                let answer = open(&self.config.keys, claim, &sealed).ok_or_else(|| {
                    Problem::new(
                        StatusCode::CONFLICT,
                        "idempotency_lost",
                        "this request was answered, and the answer cannot be read any more",
                    )
                })?;
                return Ok(Some(answer));
            }
            if Instant::now() >= deadline {
                return Err(Problem::new(
                    StatusCode::CONFLICT,
                    "in_progress",
                    "the same request is still running",
                )
                .retry_after(Duration::from_secs(1)));
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// Keeps an answer that tells of success, or gives the key back.
    async fn keep(&self, claim: &Claim, answer: Response) -> Response {
        let fits = answer.body().size_hint().upper().is_some_and(|size| size <= MAX_ANSWER);
        if !answer.status().is_success() || !fits {
            // A key that cannot be given back is free when its lease is over.
            let _kept = self.within(self.db.release_request(claim)).await;
            return answer;
        }
        let (parts, body) = answer.into_parts();
        let limit = usize::try_from(MAX_ANSWER).unwrap_or(usize::MAX);
        let Ok(bytes) = axum::body::to_bytes(body, limit).await else {
            return Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", "the answer broke")
                .into_response();
        };
        let header =
            |name| parts.headers.get(name).and_then(|value: &HeaderValue| value.to_str().ok());
        let head = Head {
            status: parts.status.as_u16(),
            kind: header(CONTENT_TYPE).map(str::to_owned),
            location: header(LOCATION).map(str::to_owned),
        };
        if let Some(sealed) = seal(&self.config.keys, claim, &head, &bytes) {
            // The change is made and is answered, stored answer or not.
            let _unanswered = self.within(self.db.answer_request(claim, &sealed)).await;
        }
        Response::from_parts(parts, Body::from(bytes))
    }

    /// Forgets answers that are a day old.
    pub(crate) async fn expire_answers(&self) {
        // It is tried again; `within` has counted and logged it.
        let _later = self.within(self.db.expire_requests(store::now())).await;
    }
}

/// What is kept of an answer besides its body.
#[derive(Serialize, Deserialize)]
struct Head {
    status: u16,
    kind: Option<String>,
    location: Option<String>,
}

fn sealing_key(pair: &KeyPair) -> Option<RandomizedNonceKey> {
    let secret = hmac::Key::new(hmac::HMAC_SHA256, pair.secret.reveal().as_bytes());
    let key = hmac::sign(&secret, b"bedside: answers under an Idempotency-Key");
    RandomizedNonceKey::new(&AES_256_GCM, key.as_ref()).ok()
}

/// What an answer belongs to: sealed for one key, it opens under no other.
fn belongs(claim: &Claim) -> Aad<Vec<u8>> {
    let Claim { clinic, caller, key, request_hash, .. } = claim;
    let names = serde_json::json!([clinic, caller, key]).to_string();
    Aad::from([names.as_bytes(), request_hash].concat())
}

/// The nonce, then the sealed head and body.
fn seal(keys: &[KeyPair], claim: &Claim, head: &Head, body: &[u8]) -> Option<Vec<u8>> {
    let key = sealing_key(keys.first()?)?;
    let mut text = serde_json::to_vec(head).ok()?;
    text.push(b'\n');
    text.extend_from_slice(body);
    let nonce = key.seal_in_place_append_tag(belongs(claim), &mut text).ok()?;
    Some([&nonce.as_ref()[..], &text].concat())
}

fn open(keys: &[KeyPair], claim: &Claim, sealed: &[u8]) -> Option<Response> {
    let (nonce, text) = sealed.split_first_chunk::<NONCE_LEN>()?;
    let text = keys.iter().find_map(|pair| {
        let mut text = text.to_vec();
        let nonce = Nonce::assume_unique_for_key(*nonce);
        let length = sealing_key(pair)?.open_in_place(nonce, belongs(claim), &mut text).ok()?.len();
        text.truncate(length);
        Some(text)
    })?;
    let end = text.iter().position(|byte| *byte == b'\n')?;
    let (head, body) = text.split_at_checked(end)?;
    let head: Head = serde_json::from_slice(head).ok()?;
    let status = StatusCode::from_u16(head.status).ok()?;
    let mut answer = (status, body.get(1..)?.to_vec()).into_response();
    let headers = answer.headers_mut();
    headers.remove(CONTENT_TYPE);
    for (name, text) in [(CONTENT_TYPE, head.kind), (LOCATION, head.location)] {
        if let Some(value) = text.and_then(|text| HeaderValue::from_str(&text).ok()) {
            headers.insert(name, value);
        }
    }
    headers.insert(REPLAYED.clone(), HeaderValue::from_static("true"));
    Some(answer)
}

#[cfg(test)]
mod tests;
