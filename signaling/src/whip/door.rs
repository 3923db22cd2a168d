//! The doors `/whip/{room}` and `/whep/{room}`: WHIP is RFC 9725, WHEP its mirror for those who watch.
//!
//! The bearer is a room token, in the header alone. Whatever is refused is refused before anything is
//! made: no room, no participant.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use axum::Router;
use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{DefaultBodyLimit, Path, Request, State};
use axum::http::header::{self, HeaderMap, HeaderName, HeaderValue};
use axum::http::{Method, StatusCode, Uri};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{patch, post};
use bedside_sfu::core::api::{Grant, Private};
use livekit_protocol as lk;

use super::fragment;
use super::offer::{self, OfferError};
use super::resource::{
    self, Handle, Opened, Patched, Precondition, Purpose, Table, Unpatched, Visit,
};
use crate::dispatch::Shared;
use crate::ice::IceServer;
use crate::limits;
use crate::livekit::door::{Reject, ask_doorkeeper, bearer, gate, person, refuse};
use crate::token::{self, Claims};

const SDP: &str = "application/sdp";
const FRAGMENT: &str = "application/trickle-ice-sdpfrag";
const ACCEPT_POST: HeaderName = HeaderName::from_static("accept-post");
const ACCEPT_PATCH: HeaderName = HeaderName::from_static("accept-patch");
/// What pages may read of our answers.
const EXPOSED: &str = "location, etag, link, accept-post, accept-patch, retry-after";

/// What the doors share.
#[derive(Clone)]
struct House {
    shared: Arc<Shared>,
    table: Arc<Table>,
}

pub(crate) fn router(shared: Arc<Shared>) -> Router {
    let house = House { shared: Arc::clone(&shared), table: Arc::default() };
    let doors = Router::new()
        .route("/whip/{room}", post(publish))
        .route("/whep/{room}", post(watch_first))
        .route("/whep/{room}/{identity}", post(watch))
        .layer(DefaultBodyLimit::max(limits::OFFER));
    let sessions = Router::new()
        .route("/whip/{room}/session/{id}", patch(change).delete(close))
        .route("/whep/{room}/session/{id}", patch(change).delete(close))
        .layer(DefaultBodyLimit::max(limits::FRAGMENT));
    doors
        .merge(sessions)
        .layer(middleware::from_fn_with_state(shared, gate))
        .layer(middleware::from_fn(headers))
        .with_state(house)
}

/// What preflights are told beside the room door's rules, and what pages may read.
async fn headers(request: Request, next: Next) -> Response {
    let preflight = request.method() == Method::OPTIONS;
    let mut response = next.run(request).await;
    let unknown = response.status() == StatusCode::UNAUTHORIZED;
    let headers = response.headers_mut();
    headers.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, HeaderValue::from_static(EXPOSED));
    if preflight {
        let methods = HeaderValue::from_static("POST, PATCH, DELETE, OPTIONS");
        headers.insert(header::ACCESS_CONTROL_ALLOW_METHODS, methods);
        let allowed = HeaderValue::from_static("authorization, content-type, if-match");
        headers.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, allowed);
        headers.insert(ACCEPT_POST, HeaderValue::from_static(SDP));
        headers.insert(ACCEPT_PATCH, HeaderValue::from_static(FRAGMENT));
    }
    if unknown {
        headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    }
    response
}

type Body = Result<Bytes, BytesRejection>;

async fn publish(
    State(house): State<House>,
    Path(room): Path<String>,
    uri: Uri,
    headers: HeaderMap,
    body: Body,
) -> Response {
    answer(come(&house, &room, Wanted::Publish, &uri, &headers, body).await)
}

async fn watch_first(
    State(house): State<House>,
    Path(room): Path<String>,
    uri: Uri,
    headers: HeaderMap,
    body: Body,
) -> Response {
    answer(come(&house, &room, Wanted::Watch(None), &uri, &headers, body).await)
}

async fn watch(
    State(house): State<House>,
    Path((room, identity)): Path<(String, String)>,
    uri: Uri,
    headers: HeaderMap,
    body: Body,
) -> Response {
    let wanted = Wanted::Watch(Some(Private::new(identity)));
    answer(come(&house, &room, wanted, &uri, &headers, body).await)
}

/// What the request is for.
enum Wanted {
    Publish,
    Watch(Option<Private<String>>),
}

/// Why nobody comes in.
enum Refused {
    Reject(Reject),
    Offer(OfferError),
}

impl From<Reject> for Refused {
    fn from(reject: Reject) -> Self {
        Self::Reject(reject)
    }
}

fn answer(result: Result<Response, Refused>) -> Response {
    match result {
        Ok(response) => response,
        Err(Refused::Reject(reject)) => reject.into_response(),
        Err(Refused::Offer(error)) => (error.status(), error.to_string()).into_response(),
    }
}

/// Every check, then the room.
async fn come(
    house: &House,
    room: &str,
    wanted: Wanted,
    uri: &Uri,
    headers: &HeaderMap,
    body: Body,
) -> Result<Response, Refused> {
    let (shared, asked) = (&house.shared, Instant::now());
    let claims = enter(shared, headers, room)?;
    let offer = posted(headers, body)?;
    let (request, client) = (lk::JoinRequest::default(), lk::ClientInfo::default());
    let rights = person(shared, &claims, &request, &client);
    let (profile, grant) = rights.map_err(|text| {
        refuse(&shared.counters.refused_not_allowed, StatusCode::FORBIDDEN, text)
    })?;
    let purpose = purpose(&offer, &grant, wanted).map_err(|error| {
        count(shared, error);
        Refused::Offer(error)
    })?;
    let (plan, _) = ask_doorkeeper(shared, &claims, false).await?;
    let room = claims.room().to_owned();
    let visit = Visit { room, plan, profile, grant, offer, purpose, asked };
    let opened = resource::open(shared, &house.table, visit).await?;
    Ok(created(shared, uri, &opened))
}

/// What the offer comes to, for those who may.
fn purpose(text: &str, grant: &Grant, wanted: Wanted) -> Result<Purpose, OfferError> {
    let description = offer::read(text)?;
    match wanted {
        Wanted::Publish => offer::published(&description, grant).map(Purpose::Publish),
        Wanted::Watch(_) if !grant.subscribe => Err(OfferError::NotAllowed),
        Wanted::Watch(_) if !offer::receives(&description) => Err(OfferError::WrongWay),
        Wanted::Watch(publisher) => Ok(Purpose::Watch(publisher)),
    }
}

fn count(shared: &Shared, error: OfferError) {
    let counters = &shared.counters;
    let counter = match error {
        OfferError::NotAllowed => &counters.refused_not_allowed,
        OfferError::Malformed
        | OfferError::Incomplete
        | OfferError::Unbundled
        | OfferError::Unserved
        | OfferError::TooMany
        | OfferError::WrongWay => &counters.refused_bad_request,
    };
    counter.up();
}

/// The verified token, and that it opens this room.
fn enter(shared: &Shared, headers: &HeaderMap, room: &str) -> Result<Claims, Reject> {
    let claims = bearer(shared, headers, &HashMap::new())?;
    if claims.room() != room {
        let counter = &shared.counters.refused_not_allowed;
        return Err(refuse(counter, StatusCode::FORBIDDEN, "the token is for another room"));
    }
    Ok(claims)
}

/// The offer as it was posted.
fn posted(headers: &HeaderMap, body: Body) -> Result<String, Reject> {
    if !is(headers, SDP) {
        return Err(Reject(StatusCode::UNSUPPORTED_MEDIA_TYPE, "an offer is application/sdp"));
    }
    if !accepts(headers) {
        return Err(Reject(StatusCode::NOT_ACCEPTABLE, "an answer is application/sdp"));
    }
    text(body)
}

fn text(body: Body) -> Result<String, Reject> {
    let body = body.map_err(|rejection| Reject(rejection.status(), "the body cannot be read"))?;
    let not_text = |_| Reject(StatusCode::BAD_REQUEST, "the body is no text");
    String::from_utf8(body.into()).map_err(not_text)
}

/// Whether the body is of this type, whatever its parameters.
fn is(headers: &HeaderMap, kind: &str) -> bool {
    let value = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let essence = value.and_then(|value| value.split(';').next()).unwrap_or_default();
    essence.trim().eq_ignore_ascii_case(kind)
}

/// Whether an answer in SDP is welcome; most do not say.
fn accepts(headers: &HeaderMap) -> bool {
    let values: Vec<&str> = headers
        .get_all(header::ACCEPT)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .collect();
    let welcome = |range: &&str| {
        let mut parts = range.split(';').map(str::trim);
        let essence = parts.next().unwrap_or_default().to_ascii_lowercase();
        let refused = parts.any(|part| matches!(part, "q=0" | "q=0.0" | "q=0.00" | "q=0.000"));
        !refused && matches!(&*essence, SDP | "application/*" | "*/*")
    };
    values.is_empty() || values.iter().any(welcome)
}

/// The answer, and where the session is.
fn created(shared: &Shared, uri: &Uri, opened: &Opened) -> Response {
    // The door and the room as the client wrote them.
    let mut parts = uri.path().split('/').skip(1);
    let (door, room) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
    let location = format!("/{door}/{room}/session/{}", opened.id);
    let fixed = [
        (header::CONTENT_TYPE, SDP.to_owned()),
        (header::LOCATION, location),
        (header::ETAG, opened.etag.clone()),
        (ACCEPT_PATCH, FRAGMENT.to_owned()),
    ];
    let mut response = (StatusCode::CREATED, fixed, opened.answer.clone()).into_response();
    let servers = shared.config.ice_servers.for_participant(&opened.participant);
    for link in servers.iter().flat_map(links) {
        if let Ok(link) = HeaderValue::from_str(&link) {
            response.headers_mut().append(header::LINK, link);
        }
    }
    response
}

/// A STUN or TURN server as links (RFC 9725 §4.6), one for each of its addresses.
fn links(server: &IceServer) -> Vec<String> {
    let quoted = |text: &str| text.replace('\\', "\\\\").replace('"', "\\\"");
    let link = |url: &String| {
        let plain = format!("<{url}>; rel=\"ice-server\"");
        if url.starts_with("stun") {
            return plain;
        }
        let (name, password) = (quoted(&server.username), quoted(server.credential.reveal()));
        format!(
            "{plain}; username=\"{name}\"; credential=\"{password}\"; credential-type=\"password\""
        )
    };
    server.urls.iter().map(link).collect()
}

/// The session that a request is about, if it is the bearer's own. A token need not outlive the
/// session that it opened.
fn own(house: &House, headers: &HeaderMap, room: &str, id: &str) -> Result<Handle, Reject> {
    let handle = house.table.find(id);
    let keys = &house.shared.config.keys;
    let earlier = handle.as_ref().and_then(|handle| {
        let jwt = headers.get(header::AUTHORIZATION)?.to_str().ok()?.strip_prefix("Bearer ")?;
        let now = SystemTime::now();
        let valid = |at| token::verify(keys, jwt.trim(), at).ok();
        valid(now).or_else(|| valid(handle.opened))
    });
    let claims = match earlier {
        Some(claims) => claims,
        None => bearer(&house.shared, headers, &HashMap::new())?,
    };
    let gone = Reject(StatusCode::NOT_FOUND, "there is no such session");
    let Some(handle) = handle.filter(|handle| *handle.room == *room) else { return Err(gone) };
    if claims.room() != room || claims.identity() != &**handle.identity.reveal() {
        let counter = &house.shared.counters.refused_not_allowed;
        return Err(refuse(counter, StatusCode::FORBIDDEN, "this session is not yours"));
    }
    Ok(handle)
}

async fn change(
    State(house): State<House>,
    Path((room, id)): Path<(String, String)>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Reject> {
    let handle = own(&house, &headers, &room, &id)?;
    if !is(&headers, FRAGMENT) {
        let text = "a fragment is application/trickle-ice-sdpfrag";
        return Err(Reject(StatusCode::UNSUPPORTED_MEDIA_TYPE, text));
    }
    let condition = condition(&headers)
        .ok_or(Reject(StatusCode::PRECONDITION_REQUIRED, "If-Match must name the ICE session"))?;
    let unreadable = Reject(StatusCode::BAD_REQUEST, "this is not a fragment of trickle ICE");
    let fragment = fragment::read(&text(body)?).map_err(|_| unreadable)?;
    match handle.patch(fragment, condition).await {
        Ok(Patched::Trickled) => Ok(StatusCode::NO_CONTENT.into_response()),
        Ok(Patched::Restarted { fragment, etag }) => {
            let headers = [(header::CONTENT_TYPE, FRAGMENT.to_owned()), (header::ETAG, etag)];
            Ok((headers, fragment).into_response())
        }
        Err(Unpatched::Stale) => {
            Err(Reject(StatusCode::PRECONDITION_FAILED, "this ICE session is over"))
        }
        Err(Unpatched::Gone) => Err(Reject(StatusCode::NOT_FOUND, "there is no such session")),
        Err(Unpatched::Busy) => {
            Err(Reject(StatusCode::SERVICE_UNAVAILABLE, "the media node does not answer"))
        }
    }
}

/// The tags of `If-Match`; weak ones never match (RFC 9110 §13.1.1).
fn condition(headers: &HeaderMap) -> Option<Precondition> {
    let values: Vec<&str> = headers
        .get_all(header::IF_MATCH)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(str::trim)
        .collect();
    match values.as_slice() {
        [] => None,
        ["*"] => Some(Precondition::Any),
        tags => Some(Precondition::Tags(tags.iter().map(|tag| (*tag).to_owned()).collect())),
    }
}

async fn close(
    State(house): State<House>,
    Path((room, id)): Path<(String, String)>,
    headers: HeaderMap,
) -> Result<StatusCode, Reject> {
    own(&house, &headers, &room, &id)?.close().await;
    Ok(StatusCode::OK)
}
