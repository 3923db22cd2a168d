//! The doors of the protocol: `/rtc/v1`, `/rtc` and what validates beside them.
//!
//! Who sends a `join_request` has one connection for both directions, by whichever door; who comes to
//! `/rtc` without one says what it wants in the query, and has two.
//!
//! Every check runs before the upgrade and again, the same way, for `validate`: a client that
//! could not upgrade asks there why. The texts and numbers are those that the SDKs classify.
//! Nothing of a token is ever repeated in an answer or a log.

use std::collections::{BTreeMap, HashMap};
use std::io::Read as _;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use axum::Router;
use axum::extract::rejection::QueryRejection;
use axum::extract::ws::rejection::WebSocketUpgradeRejection;
use axum::extract::ws::{WebSocket, WebSocketUpgrade};
use axum::extract::{Query, Request as HttpRequest, State};
use axum::http::header::{self, HeaderMap, HeaderValue};
use axum::http::{Method, StatusCode};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{any, get};
use base64::Engine as _;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use bedside_sfu::core::api::{ClientTraits, Grant, Private, Profile};
use livekit_protocol as lk;
use livekit_protocol::wrapped_join_request::Compression;
use prost::Message as _;
use tokio::time::timeout;

use crate::counters::Counter;
use crate::dispatch::Shared;
use crate::livekit::{convert, query, socket};
use crate::rooms::{DoorRefusal, RoomPlan};
use crate::token::{self, Claims};
use crate::{limits, quirks};

/// How long the doorkeeper may take. Clients give up after 5 s.
pub(super) const DOORKEEPER: Duration = Duration::from_secs(3);

/// URL-safe, with or without padding.
pub(super) const BASE64: GeneralPurpose = GeneralPurpose::new(
    &alphabet::URL_SAFE,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

pub(crate) fn router(shared: Arc<Shared>) -> Router {
    let mut router = Router::new();
    // Some clients join a base path and ours with two slashes.
    for slash in ["", "/"] {
        router = router
            .route(&format!("{slash}/rtc/v1"), get(signal_v1))
            .route(&format!("{slash}/rtc/validate"), get(validate_any))
            .route(&format!("{slash}/rtc/v1/validate"), get(validate_v1))
            .route(&format!("{slash}/rtc"), get(signal_any))
            .route(&format!("{slash}/rtc/{{*rest}}"), any(not_here));
    }
    router.layer(middleware::from_fn_with_state(Arc::clone(&shared), gate)).with_state(shared)
}

/// Somebody who may come in.
pub(super) struct Entry {
    pub(super) claims: Claims,
    pub(super) plan: RoomPlan,
    pub(super) request: lk::JoinRequest,
    pub(super) profile: Profile,
    pub(super) grant: Grant,
    pub(super) client: ClientTraits,
    /// The doorkeeper does not want a resuming person back.
    pub(super) revoked: Option<DoorRefusal>,
    /// When the request came.
    pub(super) asked: Instant,
}

/// What goes back instead of an upgrade.
pub(crate) struct Reject(pub(crate) StatusCode, pub(crate) &'static str);

impl IntoResponse for Reject {
    fn into_response(self) -> Response {
        (self.0, self.1).into_response()
    }
}

/// A query that cannot be read holds no token, and is refused for that.
type Parameters = Result<Query<HashMap<String, String>>, QueryRejection>;

type Upgrade = Result<WebSocketUpgrade, WebSocketUpgradeRejection>;

/// What a door demands of those who come.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Door {
    /// A join request.
    V1,
    /// A join request or parameters.
    Any,
    /// As [`Self::Any`], and a version need not be said: nothing is begun.
    AnyQuestion,
}

async fn signal_any(
    State(shared): State<Arc<Shared>>,
    headers: HeaderMap,
    query: Parameters,
    upgrade: Upgrade,
) -> Response {
    signal(shared, headers, query, upgrade, Door::Any).await
}

async fn signal_v1(
    State(shared): State<Arc<Shared>>,
    headers: HeaderMap,
    query: Parameters,
    upgrade: Upgrade,
) -> Response {
    signal(shared, headers, query, upgrade, Door::V1).await
}

async fn signal(
    shared: Arc<Shared>,
    headers: HeaderMap,
    query: Parameters,
    upgrade: Upgrade,
    door: Door,
) -> Response {
    let asked = Instant::now();
    let Ok(upgrade) = upgrade else { return StatusCode::NOT_FOUND.into_response() };
    let entry = match admit(&shared, &headers, query, door, asked).await {
        Ok(entry) => entry,
        Err(reject) => return reject.into_response(),
    };
    upgrade
        .max_message_size(limits::MESSAGE)
        .max_frame_size(limits::MESSAGE)
        .on_upgrade(move |socket: WebSocket| socket::serve(socket, shared, entry))
}

async fn validate_any(
    State(shared): State<Arc<Shared>>,
    headers: HeaderMap,
    query: Parameters,
) -> Result<&'static str, Reject> {
    admit(&shared, &headers, query, Door::AnyQuestion, Instant::now()).await.map(|_| "success")
}

async fn validate_v1(
    State(shared): State<Arc<Shared>>,
    headers: HeaderMap,
    query: Parameters,
) -> Result<&'static str, Reject> {
    admit(&shared, &headers, query, Door::V1, Instant::now()).await.map(|_| "success")
}

async fn not_here() -> StatusCode {
    StatusCode::NOT_FOUND
}

/// Length and origin of a request, preflights, and the headers that let web pages read answers.
pub(crate) async fn gate(
    State(shared): State<Arc<Shared>>,
    request: HttpRequest,
    next: Next,
) -> Response {
    let origin = request.headers().get(header::ORIGIN).cloned();
    let allowed = &shared.config.allowed_origins;
    let known = origin
        .as_ref()
        .and_then(|origin| origin.to_str().ok())
        .is_some_and(|origin| allowed.iter().any(|allowed| allowed.eq_ignore_ascii_case(origin)));
    let length = request.uri().path_and_query().map_or(0, |line| line.as_str().len());
    let mut response = if length > limits::REQUEST_LINE {
        StatusCode::URI_TOO_LONG.into_response()
    } else if origin.is_some() && !allowed.is_empty() && !known {
        shared.counters.refused_not_allowed.up();
        StatusCode::FORBIDDEN.into_response()
    } else if request.method() == Method::OPTIONS {
        preflight()
    } else {
        next.run(request).await
    };
    let headers = response.headers_mut();
    match origin {
        _ if allowed.is_empty() => {
            headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
        }
        Some(origin) if known => {
            headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
            headers.insert(header::VARY, HeaderValue::from_static("origin"));
        }
        Some(_) | None => {}
    }
    response
}

fn preflight() -> Response {
    let headers = [
        (header::ACCESS_CONTROL_ALLOW_METHODS, "GET, POST, OPTIONS"),
        (header::ACCESS_CONTROL_ALLOW_HEADERS, "authorization, content-type"),
        (header::ACCESS_CONTROL_MAX_AGE, "86400"),
    ];
    (StatusCode::NO_CONTENT, headers).into_response()
}

/// Every check of somebody who wants in.
async fn admit(
    shared: &Shared,
    headers: &HeaderMap,
    query: Parameters,
    door: Door,
    asked: Instant,
) -> Result<Entry, Reject> {
    let counters = &shared.counters;
    let query = query.map(|Query(query)| query).unwrap_or_default();
    let claims = bearer(shared, headers, &query)?;
    let packed = query.get("join_request");
    let request = match (packed, door) {
        (Some(text), _) => join_request(text),
        (None, Door::V1) => Err("join_request is required"),
        (None, Door::Any | Door::AnyQuestion) => query::join_request(&query),
    };
    let request = request
        .map_err(|text| refuse(&counters.refused_bad_request, StatusCode::BAD_REQUEST, text))?;
    let client = request.client_info.clone().unwrap_or_default();
    if door != Door::AnyQuestion && client.protocol < quirks::MIN_PROTOCOL {
        let text = "this client is too old for this server";
        return Err(refuse(&counters.refused_bad_request, StatusCode::BAD_REQUEST, text));
    }
    let agent = headers.get(header::USER_AGENT).and_then(|agent| agent.to_str().ok());
    let (profile, grant) = person(shared, &claims, &request, &client)
        .map_err(|text| refuse(&counters.refused_not_allowed, StatusCode::UNAUTHORIZED, text))?;
    let (mut plan, revoked) = ask_doorkeeper(shared, &claims, request.reconnect).await?;
    // Who opens a room says what it is to be like, unless that is decided elsewhere.
    if !plan.fixed {
        claims.settings.apply(&mut plan);
    }
    Ok(Entry {
        claims,
        plan,
        profile,
        grant,
        client: ClientTraits {
            two_connections: packed.is_none(),
            ..quirks::traits(&client, agent.unwrap_or_default())
        },
        request,
        revoked,
        asked,
    })
}

/// The verified token, and that it opens a room.
pub(crate) fn bearer(
    shared: &Shared,
    headers: &HeaderMap,
    query: &HashMap<String, String>,
) -> Result<Claims, Reject> {
    let counters = &shared.counters;
    let unauthorized = |text| refuse(&counters.refused_token, StatusCode::UNAUTHORIZED, text);
    let jwt = match headers.get(header::AUTHORIZATION) {
        Some(value) => value
            .to_str()
            .ok()
            .and_then(|value| value.strip_prefix("Bearer "))
            .ok_or_else(|| unauthorized("invalid authorization token"))?,
        None => query
            .get("access_token")
            .filter(|token| !token.is_empty())
            .ok_or_else(|| unauthorized("no permissions to access the room"))?,
    };
    let claims = token::verify(&shared.config.keys, jwt.trim(), SystemTime::now());
    let claims = claims.map_err(|error| unauthorized(token_error(error)))?;
    let denied = |status, text| refuse(&counters.refused_not_allowed, status, text);
    if !claims.token.grant.room_join {
        return Err(denied(StatusCode::UNAUTHORIZED, "permissions denied"));
    }
    if claims.identity().is_empty() {
        return Err(denied(StatusCode::BAD_REQUEST, "identity cannot be empty"));
    }
    if claims.room().is_empty() {
        return Err(denied(StatusCode::BAD_REQUEST, "no room name"));
    }
    Ok(claims)
}

pub(super) const fn token_error(error: token::TokenError) -> &'static str {
    match error {
        token::TokenError::Malformed => "invalid authorization token",
        token::TokenError::UnknownKey => "invalid API key",
        token::TokenError::BadSignature
        | token::TokenError::NotNow
        | token::TokenError::OtherDoor
        | token::TokenError::TooLong => "invalid token",
    }
}

/// `WrappedJoinRequest` in base64, gzipped inside or not.
fn join_request(text: &str) -> Result<lk::JoinRequest, &'static str> {
    const BAD: &str = "join_request cannot be read";
    let wrapped = BASE64.decode(url_safe(text)).map_err(|_| BAD)?;
    let wrapped = lk::WrappedJoinRequest::decode(&wrapped[..]).map_err(|_| BAD)?;
    let bytes = match Compression::try_from(wrapped.compression) {
        Ok(Compression::None) => wrapped.join_request,
        Ok(Compression::Gzip) => inflate(&wrapped.join_request).ok_or(BAD)?,
        Err(_) => return Err(BAD),
    };
    let request = lk::JoinRequest::decode(&bytes[..]).map_err(|_| BAD)?;
    let tracks = request.add_track_requests.len();
    if bytes.len() > limits::JOIN_REQUEST || tracks > limits::PENDING_TRACKS {
        return Err("join_request is too large");
    }
    Ok(request)
}

/// The other alphabet means the same, and a plus may have become a space.
pub(super) fn url_safe(text: &str) -> String {
    let letters = text.chars().map(|letter| match letter {
        '+' | ' ' => '-',
        '/' => '_',
        other => other,
    });
    letters.collect()
}

fn inflate(bytes: &[u8]) -> Option<Vec<u8>> {
    let mut plain = Vec::new();
    let limit = limits::JOIN_REQUEST as u64 + 1;
    flate2::read::GzDecoder::new(bytes).take(limit).read_to_end(&mut plain).ok()?;
    (plain.len() <= limits::JOIN_REQUEST).then_some(plain)
}

/// What others will see of the person, and what it may do.
pub(crate) fn person(
    shared: &Shared,
    claims: &Claims,
    request: &lk::JoinRequest,
    client: &lk::ClientInfo,
) -> Result<(Profile, Grant), &'static str> {
    let token = &claims.token;
    let mut grant = token.grant.rights();
    grant.hidden &= shared.config.allow_hidden;
    let own = !request.metadata.is_empty() || !request.participant_attributes.is_empty();
    if own && !grant.update_own_metadata {
        return Err("permissions denied");
    }
    let mut attributes: BTreeMap<String, String> = token.attributes.reveal().clone();
    attributes.extend(convert::attributes(request.participant_attributes.clone()));
    let length: usize = attributes.iter().map(|(key, value)| key.len() + value.len()).sum();
    if length > limits::ATTRIBUTES || request.metadata.len() > limits::METADATA {
        return Err("permissions denied");
    }
    let metadata = if request.metadata.is_empty() {
        token.metadata.clone()
    } else {
        Private::new(request.metadata.clone())
    };
    let kind = if token.grant.agent { "agent" } else { &token.kind };
    let profile = Profile {
        identity: token.identity.clone(),
        name: token.name.clone(),
        metadata,
        attributes: Private::new(attributes),
        kind: convert::kind(kind),
        client_protocol: client.client_protocol,
        capabilities: client.capabilities.iter().copied().take(limits::RUNGS).collect(),
    };
    Ok((profile, grant))
}

/// The doorkeeper's word. A resume goes on when the doorkeeper does not answer: the person was let
/// in before, and running calls do not wait for anybody.
pub(crate) async fn ask_doorkeeper(
    shared: &Shared,
    claims: &Claims,
    resume: bool,
) -> Result<(RoomPlan, Option<DoorRefusal>), Reject> {
    let counters = &shared.counters;
    let away = |text| refuse(&counters.refused_unavailable, StatusCode::SERVICE_UNAVAILABLE, text);
    let answer = timeout(DOORKEEPER, shared.door.room(claims)).await;
    // An administrator has made it.
    let answer = answer.map(|answer| match answer {
        Err(DoorRefusal::NoRoom) => shared.made_room(claims.room()).ok_or(DoorRefusal::NoRoom),
        Ok(_) | Err(DoorRefusal::NotAllowed | DoorRefusal::Full | DoorRefusal::Draining) => answer,
    });
    let answer =
        answer.map(|answer| answer.and_then(|plan| shared.admits(claims.room()).map(|()| plan)));
    match answer {
        Ok(Ok(plan)) if resume => Ok((plan, None)),
        Ok(Ok(plan)) => {
            if shared.is_full(claims.room(), claims.identity(), &plan) {
                return Err(door_error(shared, DoorRefusal::Full));
            }
            Ok((plan, None))
        }
        Ok(Err(refusal @ (DoorRefusal::NotAllowed | DoorRefusal::NoRoom))) if resume => {
            Ok((RoomPlan::default(), Some(refusal)))
        }
        Ok(Err(DoorRefusal::Full | DoorRefusal::Draining)) | Err(_) if resume => {
            Ok((RoomPlan::default(), None))
        }
        Ok(Err(refusal)) => Err(door_error(shared, refusal)),
        Err(_) => Err(away("the server cannot decide now")),
    }
}

fn door_error(shared: &Shared, refusal: DoorRefusal) -> Reject {
    let counters = &shared.counters;
    let (counter, status, text) = match refusal {
        DoorRefusal::NoRoom => {
            (&counters.refused_no_room, StatusCode::NOT_FOUND, "requested room does not exist")
        }
        DoorRefusal::NotAllowed => {
            (&counters.refused_not_allowed, StatusCode::FORBIDDEN, "permissions denied")
        }
        DoorRefusal::Full => (&counters.refused_full, StatusCode::FORBIDDEN, "room is full"),
        DoorRefusal::Draining => (
            &counters.refused_unavailable,
            StatusCode::SERVICE_UNAVAILABLE,
            "no new rooms are taken now",
        ),
    };
    refuse(counter, status, text)
}

pub(crate) fn refuse(counter: &Counter, status: StatusCode, text: &'static str) -> Reject {
    counter.up();
    Reject(status, text)
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    fn wrap(compression: i32, join_request: Vec<u8>) -> String {
        let wrapped = lk::WrappedJoinRequest { compression, join_request };
        BASE64.encode(wrapped.encode_to_vec())
    }

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    fn request() -> lk::JoinRequest {
        lk::JoinRequest {
            participant_sid: "PA_1?>~".into(),
            reconnect: true,
            ..lk::JoinRequest::default()
        }
    }

    #[test]
    fn join_requests_come_padded_or_not_zipped_or_not() {
        let plain = request().encode_to_vec();
        for text in [wrap(0, plain.clone()), wrap(1, gzip(&plain))] {
            assert_eq!(join_request(&text), Ok(request()));
            assert_eq!(join_request(text.trim_end_matches('=')), Ok(request()));
            let other: String = text
                .chars()
                .map(|c| match c {
                    '-' => '+',
                    '_' => '/',
                    c => c,
                })
                .collect();
            assert_eq!(join_request(&other), Ok(request()));
        }
    }

    #[test]
    fn an_inflate_bomb_stops_at_the_limit() {
        let zeros = vec![0; 64 * limits::JOIN_REQUEST];
        assert!(join_request(&wrap(1, gzip(&zeros))).is_err());
        let metadata = "x".repeat(limits::JOIN_REQUEST + 1);
        let large = lk::JoinRequest { metadata, ..request() }.encode_to_vec();
        assert!(join_request(&wrap(1, gzip(&large))).is_err());
        assert!(join_request(&wrap(0, large)).is_err());
    }

    #[test]
    fn unreadable_join_requests_are_refused() {
        let good = wrap(1, gzip(&request().encode_to_vec()));
        for cut in 1..good.len() {
            _ = join_request(&good[..cut]);
        }
        let texts = ["%%%", "é", "AAAA", &wrap(1, b"no gzip".to_vec()), &wrap(7, Vec::new())];
        for text in texts {
            assert!(join_request(text).is_err(), "{text}");
        }
        assert!(join_request(&wrap(0, b"\xff\xff".to_vec())).is_err());
    }
}
