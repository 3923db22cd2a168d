//! Room administration as the server SDKs call it: `POST /twirp/livekit.RoomService/<Method>`.
//!
//! A call is checked from the outside to the inside: that it exists, the form of its messages, the
//! token, the message, and what the token grants. Reading comes from the directory of rooms; a change
//! is a command to the engine, and its answer waits until the engine has done it, so that whoever
//! asks next sees it.
//!
//! Nothing of names, texts or tokens is logged or counted.

mod json;
mod people;
mod rooms;
mod twirp;

use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime};

use axum::Router;
use axum::body::{Body, Bytes, to_bytes};
use axum::extract::{Path, Request as HttpRequest, State};
use axum::http::Method as HttpMethod;
use axum::http::header::{self, HeaderMap};
use axum::middleware;
use axum::response::{IntoResponse as _, Response};
use axum::routing::any;
use bedside_sfu::core::api::RoomKey;
use serde::de::DeserializeOwned;
use tokio::time::timeout;
use tracing::debug;

use self::json::Show;
use self::twirp::{Code, Error, Form, error};
use crate::dispatch::Shared;
use crate::engine::Busy;
use crate::limits;
use crate::livekit::door;
use crate::rooms::Administered;
use crate::token::{self, Claims};

/// How long a body may take to come.
const BODY: Duration = Duration::from_secs(10);
/// How long the engine may take; it answers within a turn of its loop.
const ENGINE: Duration = Duration::from_secs(3);

/// The calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Method {
    CreateRoom,
    ListRooms,
    DeleteRoom,
    ListParticipants,
    GetParticipant,
    RemoveParticipant,
    MutePublishedTrack,
    UpdateParticipant,
    UpdateSubscriptions,
    SendData,
    UpdateRoomMetadata,
    ForwardParticipant,
    MoveParticipant,
    PerformRpc,
}

/// The calls by their names.
const CALLS: [(&str, Method); 14] = [
    ("CreateRoom", Method::CreateRoom),
    ("ListRooms", Method::ListRooms),
    ("DeleteRoom", Method::DeleteRoom),
    ("ListParticipants", Method::ListParticipants),
    ("GetParticipant", Method::GetParticipant),
    ("RemoveParticipant", Method::RemoveParticipant),
    ("MutePublishedTrack", Method::MutePublishedTrack),
    ("UpdateParticipant", Method::UpdateParticipant),
    ("UpdateSubscriptions", Method::UpdateSubscriptions),
    ("SendData", Method::SendData),
    ("UpdateRoomMetadata", Method::UpdateRoomMetadata),
    ("ForwardParticipant", Method::ForwardParticipant),
    ("MoveParticipant", Method::MoveParticipant),
    ("PerformRpc", Method::PerformRpc),
];

/// The call of that name, and the name.
fn named(name: &str) -> Option<(&'static str, Method)> {
    CALLS.into_iter().find(|(known, _)| *known == name)
}

pub(crate) fn router(shared: Arc<Shared>) -> Router {
    let mut router = Router::new();
    for slash in ["", "/"] {
        router = router
            .route(&format!("{slash}/twirp/livekit.RoomService/{{method}}"), any(serve))
            .route(&format!("{slash}/twirp/{{*rest}}"), any(not_here));
    }
    let gate = middleware::from_fn_with_state(Arc::clone(&shared), door::gate);
    router.layer(gate).with_state(shared)
}

const NO_ROUTE: Error = error(Code::BadRoute, "there is no such call");

async fn not_here() -> Error {
    NO_ROUTE
}

async fn serve(
    State(shared): State<Arc<Shared>>,
    Path(name): Path<String>,
    request: HttpRequest,
) -> Response {
    let counters = Arc::clone(&shared.counters);
    counters.admin_requests.up();
    let answer = answer(&shared, &name, request).await;
    answer.unwrap_or_else(|error| {
        match error.code {
            Code::Unauthenticated => counters.admin_refused_token.up(),
            Code::PermissionDenied => counters.admin_refused_grant.up(),
            Code::BadRoute
            | Code::Malformed
            | Code::NotFound
            | Code::InvalidArgument
            | Code::FailedPrecondition
            | Code::DeadlineExceeded
            | Code::Unimplemented
            | Code::Unavailable => counters.admin_failed.up(),
        }
        debug!(code = ?error.code, "an administrator's call failed");
        error.into_response()
    })
}

async fn answer(shared: &Arc<Shared>, name: &str, request: HttpRequest) -> Result<Response, Error> {
    let (name, method) = named(name).ok_or(NO_ROUTE)?;
    if request.method() != HttpMethod::POST {
        return Err(error(Code::BadRoute, "calls are made by POST"));
    }
    let form = Form::of(request.headers())?;
    let claims = bearer(shared, request.headers())?;
    let body = body(request.into_body()).await?;
    let room = OnceLock::new();
    let call = Call { shared: Arc::clone(shared), name, claims, form, body, room };
    match method {
        Method::CreateRoom => call.serve(rooms::create).await,
        Method::ListRooms => call.serve(rooms::list).await,
        Method::DeleteRoom => call.serve(rooms::delete).await,
        Method::UpdateRoomMetadata => call.serve(rooms::update_metadata).await,
        Method::SendData => call.serve(rooms::send_data).await,
        Method::ListParticipants => call.serve(people::list).await,
        Method::GetParticipant => call.serve(people::get).await,
        Method::RemoveParticipant => call.serve(people::remove).await,
        Method::MutePublishedTrack => call.serve(people::mute).await,
        Method::UpdateParticipant => call.serve(people::update).await,
        Method::UpdateSubscriptions => call.serve(people::subscribe).await,
        Method::ForwardParticipant | Method::MoveParticipant | Method::PerformRpc => {
            call.grants(|grant| grant.room_admin)?;
            Err(error(Code::Unimplemented, "this server does not serve this call"))
        }
    }
}

/// The verified token.
fn bearer(shared: &Shared, headers: &HeaderMap) -> Result<Claims, Error> {
    let refused = |text| error(Code::Unauthenticated, text);
    let value = headers.get(header::AUTHORIZATION).ok_or_else(|| refused("a token is missing"))?;
    let jwt = value.to_str().ok().and_then(|value| value.strip_prefix("Bearer "));
    let jwt = jwt.ok_or_else(|| refused("invalid authorization token"))?;
    token::verify(&shared.config.keys, jwt.trim(), SystemTime::now())
        .map_err(|error| refused(door::token_error(error)))
}

async fn body(body: Body) -> Result<Bytes, Error> {
    match timeout(BODY, to_bytes(body, limits::ADMIN_BODY)).await {
        Ok(Ok(bytes)) => Ok(bytes),
        Ok(Err(_)) => Err(error(Code::InvalidArgument, "the message is too long, or ended early")),
        Err(_) => Err(error(Code::DeadlineExceeded, "the message did not come")),
    }
}

/// One call of somebody whose token is good.
struct Call {
    shared: Arc<Shared>,
    name: &'static str,
    claims: Claims,
    form: Form,
    body: Bytes,
    /// The room that it turned out to be about.
    room: OnceLock<String>,
}

impl Call {
    async fn serve<Asked, Told>(
        self,
        with: impl AsyncFnOnce(&Self, Asked) -> Result<Told, Error>,
    ) -> Result<Response, Error>
    where
        Asked: prost::Message + Default + DeserializeOwned,
        Told: prost::Message + Show,
    {
        let asked = self.form.read(&self.body)?;
        let told = with(&self, asked).await;
        if let Some(room) = self.room.get() {
            let status = told.as_ref().map_or_else(Error::status, |_| 200);
            let Self { name: call, claims, .. } = &self;
            self.shared.door.administered(&Administered { room, claims, call, status });
        }
        Ok(self.form.write(&told?))
    }

    /// The token grants something.
    fn grants(&self, what: impl FnOnce(&token::VideoGrant) -> bool) -> Result<(), Error> {
        if what(&self.claims.token.grant) {
            Ok(())
        } else {
            Err(error(Code::PermissionDenied, "the token does not grant this"))
        }
    }

    /// It is about this room: the first one that it names.
    fn about(&self, room: &str) {
        self.room.get_or_init(|| room.to_owned());
    }

    /// The token administers this room.
    fn administers(&self, room: &str) -> Result<(), Error> {
        self.about(room);
        self.grants(|grant| grant.room_admin && grant.room == room)?;
        if room.is_empty() {
            Err(error(Code::InvalidArgument, "a room is missing"))
        } else {
            Ok(())
        }
    }

    /// The open room of that name.
    fn room(&self, name: &str) -> Result<RoomKey, Error> {
        self.shared.room(name).ok_or_else(|| error(Code::NotFound, "no such room"))
    }

    /// Waits until the engine has done all that it was told.
    async fn done(&self, room: RoomKey) -> Result<(), Error> {
        let done = self.shared.confirmed(room).map_err(|Busy| BUSY)?;
        // Where events were lost, the word is missing and the directory is right all the same.
        let _word = timeout(ENGINE, done).await.map_err(|_| BUSY)?;
        Ok(())
    }
}

const BUSY: Error = error(Code::Unavailable, "the media node is busy");

#[cfg(test)]
mod tests;
