//! The audit log: who did what to which consultation, from where, when, and how it ended.
//!
//! Nobody writes a row by hand. A *deed* is opened for each request (`record`, a layer of the
//! router), for each channel and for each message of a broker; whoever is let in names itself
//! ([`asked_by`]), and whoever looks up a consultation names that ([`about`]). What happens then
//! decides where the row is written:
//!
//! - A change: in the transaction that stores it. [`Tx::commit`](crate::store::Tx::commit) takes
//!   the row along, so there is no change without a row.
//! - A look, or a refusal: by the [`ledger`], before the answer leaves. The rows of many requests
//!   share a transaction.
//! - What running calls need while the database is away ([`deferred`]): by the ledger, later.
//!
//! A deed without a verified caller leaves no row: a stranger could fill the database. It is
//! counted instead.

pub(crate) mod chain;
pub(crate) mod export;
pub(crate) mod ledger;
pub(crate) mod sealer;
#[cfg(test)]
mod tests;
mod verify;

use std::convert::Infallible;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use axum::extract::{ConnectInfo, FromRequestParts, MatchedPath, RawPathParams, Request, State};
use axum::http::StatusCode;
use axum::http::request::Parts;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use chrono::{DateTime, Utc};
use uuid::Uuid;

pub(crate) use chain::from_hex;
pub use chain::{Anchor, Hash, Line, Record};
pub use verify::{Fault, FaultKind, Report, Verifier};

use crate::ControlPlane;
use crate::address::ClientAddress;
use crate::api::problem::Problem;
use crate::control::{ChangeError, Control};
use crate::store;

/// The longest part of a path or body that a row repeats.
const MAX_SUBJECT_LEN: usize = 255;

tokio::task_local! {
    static DEED: Arc<Deed>;
}

/// How a deed ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// It was done, or shown.
    Done,
    /// The caller may not do it.
    Refused,
    /// The caller's clinic has no such thing.
    NotFound,
    /// It did not fit: the body, or the state of the consultation.
    Rejected,
    /// The server could not.
    Failed,
}

impl Outcome {
    /// The word in rows.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Refused => "refused",
            Self::NotFound => "not_found",
            Self::Rejected => "rejected",
            Self::Failed => "failed",
        }
    }

    /// What an answer's status says.
    pub(crate) fn of(status: StatusCode) -> Self {
        match status {
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Self::Refused,
            StatusCode::NOT_FOUND => Self::NotFound,
            status if status.is_client_error() => Self::Rejected,
            status if status.is_server_error() => Self::Failed,
            _ => Self::Done,
        }
    }

    /// What a refused or failed change says.
    pub(crate) const fn of_error(error: &ChangeError) -> Self {
        match error {
            ChangeError::NotFound => Self::NotFound,
            ChangeError::Refused(_) | ChangeError::PaymentRequired => Self::Rejected,
            ChangeError::Database(_) | ChangeError::Busy => Self::Failed,
        }
    }
}

/// Who acts, with which credential.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Who {
    /// The only clinic whose log hears of it.
    pub(crate) clinic: String,
    /// The user, the service, the link.
    pub(crate) id: String,
    /// A role of the API, or `link`, `operator`, `server`.
    pub(crate) kind: &'static str,
    /// What it showed, as it can be revoked.
    pub(crate) credential: Option<String>,
}

/// A row to write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) id: Uuid,
    pub(crate) at: DateTime<Utc>,
    pub(crate) who: Who,
    /// Method and route, or what a channel or a broker was asked.
    pub(crate) action: String,
    pub(crate) session_id: Option<Uuid>,
    /// What else it was about: another id of the path, the person that a service spoke for.
    pub(crate) subject: Option<String>,
    /// The consultations that a list showed.
    pub(crate) listed: Vec<Uuid>,
    pub(crate) outcome: Outcome,
    pub(crate) address: Option<IpAddr>,
    pub(crate) request_id: Option<String>,
}

impl Entry {
    /// A row about something that no request asked for.
    pub(crate) fn new(who: Who, action: impl Into<String>, outcome: Outcome) -> Self {
        Self {
            id: Uuid::now_v7(),
            at: store::now(),
            who,
            action: action.into(),
            session_id: None,
            subject: None,
            listed: Vec::new(),
            outcome,
            address: None,
            request_id: None,
        }
    }
}

/// Where a request came from.
#[derive(Clone, Debug, Default)]
pub(crate) struct Origin {
    address: Option<IpAddr>,
    request_id: Option<String>,
}

impl<S: Send + Sync> FromRequestParts<S> for Origin {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Infallible> {
        Ok(Self::of(parts))
    }
}

impl Origin {
    /// A message of a broker, by its id.
    pub(crate) fn of_message(id: &str) -> Self {
        Self { address: None, request_id: Some(cut(id)) }
    }

    fn of(parts: &Parts) -> Self {
        let client = parts.extensions.get::<ClientAddress>().map(|client| client.0);
        let peer = parts.extensions.get::<ConnectInfo<SocketAddr>>().map(|peer| peer.0.ip());
        let request_id = parts.headers.get("x-request-id").and_then(|value| value.to_str().ok());
        Self { address: client.or(peer), request_id: request_id.map(str::to_owned) }
    }
}

/// One thing that somebody asks for, from its first byte to its answer.
#[derive(Debug)]
pub(crate) struct Deed {
    action: String,
    origin: Origin,
    doing: Mutex<Doing>,
}

#[derive(Debug, Default)]
struct Doing {
    who: Option<Who>,
    session_id: Option<Uuid>,
    subject: Option<String>,
    listed: Vec<Uuid>,
    deferred: bool,
    /// A row is in the database.
    written: bool,
}

impl Deed {
    /// A deed that begins now; nobody is known yet.
    pub(crate) fn new(action: impl Into<String>, origin: Origin) -> Arc<Self> {
        Arc::new(Self { action: action.into(), origin, doing: Mutex::default() })
    }

    /// A deed of somebody who is known: a frame of a channel, a message of a broker.
    pub(crate) fn of(who: Who, action: impl Into<String>, origin: Origin) -> Arc<Self> {
        let deed = Self::new(action, origin);
        deed.doing().who = Some(who);
        deed
    }

    /// Names the consultation that it is about, before anything runs.
    pub(crate) fn about(&self, session_id: Uuid) {
        self.doing().session_id = Some(session_id);
    }

    /// Runs something as part of this deed.
    pub(crate) async fn run<T>(self: &Arc<Self>, future: impl Future<Output = T>) -> T {
        DEED.scope(Arc::clone(self), future).await
    }

    fn doing(&self) -> MutexGuard<'_, Doing> {
        self.doing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn entry(&self, outcome: Outcome) -> Option<Entry> {
        let doing = self.doing();
        let who = doing.who.clone()?;
        Some(Entry {
            session_id: doing.session_id,
            subject: doing.subject.clone(),
            listed: doing.listed.clone(),
            address: self.origin.address,
            request_id: self.origin.request_id.clone(),
            ..Entry::new(who, self.action.clone(), outcome)
        })
    }

    /// The row that is still missing when it ends so.
    fn missing(&self, outcome: Outcome) -> Option<Entry> {
        let told = self.doing().written && outcome == Outcome::Done;
        if told { None } else { self.entry(outcome) }
    }
}

fn with_doing(change: impl FnOnce(&mut Doing)) {
    // Outside a deed nobody asks: timers, relays, what rooms tell.
    let _outside = DEED.try_with(|deed| change(&mut deed.doing()));
}

/// A part of the present deed that goes on in a task of its own.
pub(crate) fn along<T>(future: impl Future<Output = T>) -> impl Future<Output = T> {
    let deed = DEED.try_with(Arc::clone).ok();
    async move {
        match deed {
            Some(deed) => deed.run(future).await,
            None => future.await,
        }
    }
}

/// Names who acts.
pub(crate) fn asked_by(who: Who) {
    with_doing(|doing| doing.who = Some(who));
}

/// Names the consultation that it is about.
pub(crate) fn about(session_id: Uuid) {
    with_doing(|doing| doing.session_id = Some(session_id));
}

/// Names what else it is about.
pub(crate) fn subject(subject: &str) {
    with_doing(|doing| doing.subject = Some(cut(subject)));
}

/// Names the consultations that a list shows.
pub(crate) fn listed(sessions: impl IntoIterator<Item = Uuid>) {
    with_doing(|doing| doing.listed.extend(sessions));
}

/// A running call needs the answer even while the database is away: the row may come later.
pub(crate) fn deferred() {
    with_doing(|doing| doing.deferred = true);
}

/// The row that belongs into the transaction that is about to be committed.
pub(crate) fn pending() -> Option<Entry> {
    DEED.try_with(|deed| deed.missing(Outcome::Done)).ok().flatten()
}

/// The row, for a task that stores the change together with those of others; it is written there
/// and nowhere else.
pub(crate) fn hand_over() -> Option<Entry> {
    let entry = pending();
    written();
    entry
}

/// The transaction with the row of [`pending`] was committed.
pub(crate) fn written() {
    with_doing(|doing| doing.written = true);
}

/// What was asked for, in a form that every database keeps and no terminal obeys.
fn cut(text: &str) -> String {
    let end = text.floor_char_boundary(MAX_SUBJECT_LEN);
    let text = text.get(..end).unwrap_or_default();
    text.chars().map(|c| if c.is_control() { char::REPLACEMENT_CHARACTER } else { c }).collect()
}

/// The layer of the router: one deed per request.
pub(crate) async fn record(
    State(state): State<ControlPlane>,
    request: Request,
    next: Next,
) -> Response {
    let (mut parts, body) = request.into_parts();
    let route = parts.extensions.get::<MatchedPath>().map_or("(none)", MatchedPath::as_str);
    let action = format!("{} {route}", parts.method);
    let deed = Deed::new(action, Origin::of(&parts));
    let params = {
        use axum::RequestPartsExt as _;
        parts.extract::<RawPathParams>().await
    };
    if let Ok(params) = params {
        name_params(&deed, &params);
    }
    let response = deed.run(next.run(Request::from_parts(parts, body))).await;
    match state.control.close_deed(&deed, Outcome::of(response.status())).await {
        Ok(()) => response,
        // What left no trace does not leave the house.
        Err(_) if !response.status().is_server_error() => Problem::unavailable().into_response(),
        Err(_) => response,
    }
}

/// The ids of a path, as they were asked for: the first is what it is about, others go along.
fn name_params(deed: &Deed, params: &RawPathParams) {
    let mut doing = deed.doing();
    for (name, value) in params {
        let id = Uuid::try_parse(value).ok().filter(|_| matches!(name, "id" | "session_id"));
        match id {
            Some(id) => doing.session_id = Some(id),
            None => doing.subject = Some(cut(value)),
        }
    }
}

impl Control {
    /// Writes the row of a deed that has ended, unless a transaction has taken it along.
    pub(crate) async fn close_deed(
        &self,
        deed: &Arc<Deed>,
        outcome: Outcome,
    ) -> Result<(), ChangeError> {
        let Some(entry) = deed.missing(outcome) else { return Ok(()) };
        if deed.doing().deferred || outcome == Outcome::Failed {
            // In a flood each waits for its own row: what is kept is kept for when the database is away.
            let waits = self.ledger.is_crowded();
            if !waits || self.within(self.ledger.write(entry.clone())).await.is_err() {
                self.audit(entry);
            }
            return Ok(());
        }
        self.within(self.ledger.write(entry)).await
    }

    /// [`Self::close_deed`] without waiting: for what was refused, or is stored already.
    pub(crate) fn settle_deed(&self, deed: &Arc<Deed>, outcome: Outcome) {
        if let Some(entry) = deed.missing(outcome) {
            self.audit(entry);
        }
    }

    /// Waits a moment for the rows that are on their way.
    pub(crate) async fn finish_audit(&self) {
        for _ in 0..100 {
            if self.ledger.is_empty() {
                return;
            }
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
        tracing::warn!("the database is away: the last audit rows are not written");
    }

    /// Writes a row about something that no request asked for. It returns at once; the row waits
    /// for the database if it must.
    pub(crate) fn audit(&self, entry: Entry) {
        self.ledger.keep(entry);
    }
}
