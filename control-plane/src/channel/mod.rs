//! The channels: WebSockets that tell people what happens in their consultation, or in all of a
//! doctor's, and that carry the chat.
//!
//! The first frame says who comes (`AUTH`, within five seconds). From then on a client hears
//! everything in the order it happened. A client that does not read is cut, one that says too much
//! or only nonsense is cut too; whatever comes in, the answer is an `ERROR` frame or the end.

pub(crate) mod limits;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::extract::ws::{CloseFrame, Message, Utf8Bytes, WebSocket, WebSocketUpgrade};
use axum::extract::{Path, State};
use axum::http::header::ORIGIN;
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use futures_util::StreamExt as _;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use uuid::Uuid;

use crate::access::{Caller, NoCaller};
use crate::api::id_in_path;
use crate::api::problem::Problem;
use crate::audit::{Deed, Origin, Outcome};
use crate::chat::{ChatError, Posting};
use crate::consultation::{Consultation, Device, PersonRole, Presence, Step};
use crate::control::{ChangeError, Control};
use crate::frames::{BadFrame, ChatText, ClientFrame, MarkPayload, Notice, ServerFrame};
use crate::idle::Idleness;
use crate::live::{
    CloseReason, Inbox, ListListener, Listener, LiveSession, Mailbox, Outgoing, status_frame,
    viewer,
};
use crate::permissions::Permission;
use crate::store::{Page, Receipt};
use crate::token::ApiRole;
use crate::{ControlPlane, view};
use limits::{Allowance, Verdict};

/// What is read from a socket at once.
const READ_BUFFER: usize = 8 * 1024;
/// The largest frame.
const MAX_FRAME: usize = 64 * 1024;
/// How long the first frame may take.
const AUTH_TIMEOUT: Duration = Duration::from_secs(5);
/// How often a quiet client is asked whether it is there.
const PING_INTERVAL: Duration = Duration::from_secs(20);
/// How long a client may say nothing at all.
const IDLE_TIMEOUT: Duration = Duration::from_secs(60);
/// How long one frame may take to leave.
const SEND_TIMEOUT: Duration = Duration::from_secs(10);
/// How many missed messages are told again; more are in the history.
const MAX_MISSED: i64 = 500;
/// How many consultations a list begins with.
const LIST_LIMIT: i64 = 100;
/// What the audit log says of an opened list.
const LIST_DEED: &str = "OPEN /api/v1/consultations/channel";

impl CloseReason {
    pub(crate) const fn words(self) -> (u16, &'static str) {
        match self {
            Self::Unauthorized => (4401, "a valid token is needed"),
            Self::Forbidden => (4403, "not allowed (any more)"),
            Self::Policy => (1008, "too many bad frames"),
            Self::TooSlow => (1013, "too slow; connect again"),
            Self::Idle => (1001, "nothing was heard"),
            Self::SignedOut => (4408, "nobody did anything for long; sign in again"),
        }
    }

    const fn frame(self) -> CloseFrame {
        let (code, reason) = self.words();
        CloseFrame { code, reason: Utf8Bytes::from_static(reason) }
    }
}

/// `GET …/sessions/{id}/channel`
pub(crate) async fn session(
    State(state): State<ControlPlane>,
    Path(id): Path<String>,
    headers: HeaderMap,
    origin: Origin,
    upgrade: Result<WebSocketUpgrade, axum::extract::ws::rejection::WebSocketUpgradeRejection>,
) -> Result<Response, Problem> {
    let id = id_in_path(&id)?;
    let upgrade = bounded(&state, &headers, upgrade)?;
    Ok(upgrade.on_upgrade(move |socket| async move {
        let mut line = Line::new(socket, Arc::clone(&state.control), origin);
        line.control.counters.channels.add();
        let end = serve_session(&mut line, id).await;
        line.hang_up(end).await;
        line.control.counters.channels.take();
    }))
}

/// `GET /api/v1/consultations/channel`
pub(crate) async fn list(
    State(state): State<ControlPlane>,
    headers: HeaderMap,
    origin: Origin,
    upgrade: Result<WebSocketUpgrade, axum::extract::ws::rejection::WebSocketUpgradeRejection>,
) -> Result<Response, Problem> {
    let upgrade = bounded(&state, &headers, upgrade)?;
    Ok(upgrade.on_upgrade(move |socket| async move {
        let mut line = Line::new(socket, Arc::clone(&state.control), origin);
        line.control.counters.channels.add();
        let end = serve_list(&mut line).await;
        line.hang_up(end).await;
        line.control.counters.channels.take();
    }))
}

/// Checks the page it comes from and bounds what may come.
pub(crate) fn bounded(
    state: &ControlPlane,
    headers: &HeaderMap,
    upgrade: Result<WebSocketUpgrade, axum::extract::ws::rejection::WebSocketUpgradeRejection>,
) -> Result<WebSocketUpgrade, Problem> {
    let allowed = &state.control.config.allowed_origins;
    if !allowed.is_empty() {
        let origin = headers.get(ORIGIN).and_then(|value| value.to_str().ok());
        let known = origin.is_some_and(|origin| allowed.iter().any(|known| known == origin));
        if !known {
            return Err(Problem::forbidden("this page may not use the channel"));
        }
    }
    let upgrade = upgrade.map_err(|_| {
        Problem::new(StatusCode::UPGRADE_REQUIRED, "websocket_only", "this is a WebSocket")
    })?;
    Ok(upgrade
        // A thousand people who listen cost a thousand of these.
        .read_buffer_size(READ_BUFFER)
        .max_message_size(MAX_FRAME)
        .max_frame_size(MAX_FRAME)
        .max_write_buffer_size(4 * MAX_FRAME))
}

/// How a channel ends.
#[derive(Clone, Copy, Debug)]
pub(crate) enum End {
    /// The client went, or its connection broke.
    Gone,
    /// It sent more than fits.
    TooLarge,
    /// We end it.
    Ours(CloseReason),
}

/// One client's WebSocket.
struct Line {
    socket: WebSocket,
    control: Arc<Control>,
    allowance: Allowance,
    heard: Instant,
    /// What was submitted and is not settled yet: the frames that answer it.
    pending: FuturesUnordered<BoxFuture<'static, Option<Utf8Bytes>>>,
    origin: Origin,
}

async fn serve_session(line: &mut Line, id: Uuid) -> End {
    let (caller, after) = match line.authenticate().await {
        Ok(caller) => caller,
        Err(end) => return end,
    };
    let control = Arc::clone(&line.control);
    let deed = line.deed(&caller, "OPEN /api/v1/consultations/sessions/{id}/channel");
    match control.open_channel(&caller, id, &deed).await {
        Ok(true) => {}
        Ok(false) => {
            return line.refuse("forbidden", "this consultation is somebody else's").await;
        }
        Err(error) => return line.refuse_change(&error).await,
    }
    let (mailbox, inbox) = Mailbox::new();
    let listener_id = match control.welcome(&mailbox, &caller, id, after).await {
        Ok(listener_id) => listener_id,
        Err(error) => return line.refuse_change(&error).await,
    };
    let end = line.converse(&caller, Some(id), inbox).await;
    control.farewell(id, listener_id, &caller.0.user_id);
    end
}

async fn serve_list(line: &mut Line) -> End {
    let (caller, _) = match line.authenticate().await {
        Ok(caller) => caller,
        Err(end) => return end,
    };
    let doctor_id = match caller.0.role {
        ApiRole::Doctor => Some(caller.0.user_id.clone()),
        ApiRole::Service | ApiRole::Admin => None,
        ApiRole::Patient | ApiRole::Guest | ApiRole::Auditor => {
            let deed = line.deed(&caller, LIST_DEED);
            line.control.settle_deed(&deed, Outcome::Refused);
            return line.refuse("forbidden", "the list is for doctors").await;
        }
    };
    let control = Arc::clone(&line.control);
    let (mailbox, inbox) = Mailbox::new();
    let listener = Listener::new(&mailbox, None, &caller, true);
    let listener_id = listener.id;
    let clinic = caller.0.clinic.clone();
    let person = listener.clone();
    if doctor_id.is_some() {
        control.live.listen_person(&clinic, person.clone());
    }
    // It listens before the list is read: what changes meanwhile waits in its queue.
    control.live.listen_list(ListListener { clinic: clinic.clone(), doctor_id, listener });
    let page = Page { limit: LIST_LIMIT, ..caller.page() };
    let deed = line.deed(&caller, LIST_DEED);
    let shown = match deed.run(control.page(&clinic, page)).await {
        Ok(shown) => control.close_deed(&deed, Outcome::Done).await.map(|()| shown),
        Err(error) => Err(error),
    };
    let end = match shown {
        Ok((sessions, _)) => {
            let items = sessions.iter().map(|c| view::session(c, caller.viewer(c))).collect();
            let role = caller.0.role.as_str();
            let user_id = &caller.0.user_id;
            let ready = ServerFrame::Ready { session_id: None, user_id, role, status: None };
            let first = [ready.text(), ServerFrame::Sessions { items }.text()];
            line.converse_after(first, &caller, inbox).await
        }
        Err(error) => line.refuse_change(&error).await,
    };
    control.live.unlisten_list(listener_id);
    control.live.unlisten_person(&clinic, &person);
    end
}

impl Control {
    /// Somebody wants to hear what happens in a consultation; `false` = it may not. Either way the
    /// audit log has it before anything is told.
    pub(crate) async fn open_channel(
        &self,
        caller: &Caller,
        id: Uuid,
        deed: &Arc<Deed>,
    ) -> Result<bool, ChangeError> {
        let found = deed.run(self.look(&caller.0.clinic, id)).await;
        let consultation = found.inspect_err(|error| {
            self.settle_deed(deed, Outcome::of_error(error));
        })?;
        let part = caller.takes_part(&consultation);
        let outcome = if part { Outcome::Done } else { Outcome::Refused };
        self.close_deed(deed, outcome).await?;
        Ok(part)
    }

    /// Takes a listener in, between two changes: it misses nothing and hears nothing twice. Gives
    /// the id to say [farewell](Self::farewell) with.
    pub(crate) async fn welcome(
        self: &Arc<Self>,
        mailbox: &Mailbox,
        caller: &Caller,
        id: Uuid,
        after: Option<i64>,
    ) -> Result<u64, ChangeError> {
        let live = self.live.enter(id);
        let result = {
            let _gate = live.gate.lock().await;
            self.welcome_in_turn(&live, mailbox, caller, id, after).await
        };
        drop(live);
        if result.is_err() {
            self.live.let_go(id);
        }
        result
    }

    async fn welcome_in_turn(
        &self,
        live: &LiveSession,
        mailbox: &Mailbox,
        caller: &Caller,
        id: Uuid,
        after: Option<i64>,
    ) -> Result<u64, ChangeError> {
        let user_id = caller.0.user_id.as_str();
        let clinic = caller.0.clinic.as_str();
        let was_away = live.inner().away.remove(user_id);
        let consultation = if was_away {
            let step =
                Step::Arrive { user_id: user_id.to_owned(), name: None, device: Device::default() };
            self.step_in_turn(live, clinic, id, &caller.actor(), &step, None).await
        } else {
            self.load(live, clinic, id).await
        };
        let consultation = match consultation {
            Ok(consultation) => consultation,
            // It cannot come back to what is over; it may listen all the same.
            Err(ChangeError::Refused(_)) => self.load(live, clinic, id).await?,
            Err(error) => return Err(error),
        };
        let mut listener = Listener::new(mailbox, Some(id), caller, caller.is_staff());
        let listener_id = listener.id;
        for frame in self.greeting(&consultation, caller, &listener) {
            listener.tell(frame);
        }
        if caller.reads_chat(&consultation) {
            self.tell_unread(&listener, id).await?;
        }
        {
            let _telling = live.telling.lock().await;
            if let Some(after) = after.filter(|_| caller.reads_chat(&consultation)) {
                let missed = self.within(self.db.messages_after(id, after, MAX_MISSED)).await?;
                for row in missed {
                    listener.has_heard(row.sequence);
                    listener.tell(ServerFrame::ChatMessage(&view::message(row)).text());
                }
            }
            live.listen(listener);
        }
        live.tell_presence(&consultation);
        Ok(listener_id)
    }

    async fn tell_unread(&self, listener: &Listener, id: Uuid) -> Result<(), ChangeError> {
        if listener.observer {
            return Ok(());
        }
        let count = self.within(self.db.unread(id, &listener.user_id)).await?;
        if count > 0 {
            let notice = Notice::Unread { count };
            listener.tell(ServerFrame::Notification { session_id: id, notice }.text());
        }
        Ok(())
    }

    /// A listener has gone.
    pub(crate) fn farewell(self: &Arc<Self>, id: Uuid, listener_id: u64, user_id: &str) {
        let Some(live) = self.live.find(id) else { return };
        if live.unlisten(listener_id, user_id) {
            if let Some(consultation) = live.consultation() {
                live.tell_presence(&consultation);
            }
            self.miss(&live, user_id.to_owned());
        }
        drop(live);
        self.live.let_go(id);
    }

    /// The first frames of a listener.
    fn greeting(
        &self,
        consultation: &Consultation,
        caller: &Caller,
        listener: &Listener,
    ) -> Vec<Utf8Bytes> {
        let me = caller.0.user_id.as_str();
        let role = if caller.is_staff() {
            caller.0.role.as_str()
        } else {
            consultation.role_of(me).as_str()
        };
        let status = consultation.status.as_str();
        let ready = ServerFrame::Ready {
            session_id: Some(consultation.id),
            user_id: me,
            role,
            status: Some(status),
        };
        let mut frames = vec![ready.text()];
        if let Some(person) = consultation.person(me)
            && person.role != PersonRole::Doctor
        {
            match person.presence {
                Presence::Waiting => {
                    let position = self.live.place(consultation, me).unwrap_or(1);
                    frames.push(ServerFrame::Waiting { position }.text());
                }
                Presence::Admitted => frames.push(ServerFrame::Admitted {}.text()),
                Presence::Connected | Presence::Reconnecting | Presence::Left => {}
            }
        }
        frames.push(status_frame(consultation, viewer(consultation, listener)));
        frames
    }

    /// The last page of a person has gone. If it waits and does not come back, it leaves the
    /// queue; its place is kept.
    pub(crate) fn miss(self: &Arc<Self>, live: &LiveSession, user_id: String) {
        let waits = |consultation: &Consultation| {
            consultation.person(&user_id).is_some_and(|p| p.presence == Presence::Waiting)
        };
        let Some(consultation) = live.consultation().filter(|c| waits(c)) else { return };
        let id = consultation.id;
        let control = Arc::clone(self);
        tokio::spawn(async move {
            tokio::time::sleep(control.config.waiting_grace).await;
            let Some(live) = control.live.find(id) else { return };
            if !live.is_listening(&user_id) {
                live.inner().away.insert(user_id.clone());
                control.note(&live, Step::GoAway(user_id));
            }
        });
    }
}

impl Line {
    fn new(socket: WebSocket, control: Arc<Control>, origin: Origin) -> Self {
        let now = Instant::now();
        let allowance = Allowance::new(now);
        Self { socket, control, allowance, heard: now, pending: FuturesUnordered::new(), origin }
    }

    /// Something that a known client asks for.
    fn deed(&self, caller: &Caller, action: &str) -> Arc<Deed> {
        Deed::of(caller.who(), action, self.origin.clone())
    }

    /// The first frame must say who comes.
    async fn authenticate(&mut self) -> Result<(Caller, Option<i64>), End> {
        let deadline = tokio::time::Instant::now() + AUTH_TIMEOUT;
        let text = loop {
            match tokio::time::timeout_at(deadline, self.socket.recv()).await {
                Err(_) => break None,
                Ok(Some(Ok(Message::Text(text)))) => break Some(text),
                Ok(Some(Ok(Message::Ping(_) | Message::Pong(_)))) => {}
                Ok(Some(Ok(Message::Binary(_)))) => break None,
                Ok(Some(Ok(Message::Close(_))) | None) => return Err(End::Gone),
                Ok(Some(Err(error))) => return Err(broken(&error)),
            }
        };
        let (token, after) = match text.as_deref().map(ClientFrame::parse) {
            Some(Ok(ClientFrame::Auth { token, after })) => (token, after),
            Some(
                Ok(
                    ClientFrame::Chat(_)
                    | ClientFrame::Mark(..)
                    | ClientFrame::Ping
                    | ClientFrame::Activity,
                )
                | Err(_),
            )
            | None => {
                self.control.counters.refused_auth.add();
                return Err(self.unauthorized().await);
            }
        };
        match self.control.caller(&token).await {
            Ok(caller) => {
                self.control.attend(&caller);
                Ok((caller, after))
            }
            Err(NoCaller::Unauthorized) => Err(self.unauthorized().await),
            Err(NoCaller::Unavailable(error)) => Err(self.refuse_change(&error).await),
        }
    }

    async fn unauthorized(&mut self) -> End {
        self.say(ServerFrame::error("unauthorized", "a valid token is needed")).await;
        End::Ours(CloseReason::Unauthorized)
    }

    async fn refuse(&mut self, code: &'static str, detail: &str) -> End {
        self.say(ServerFrame::error(code, detail)).await;
        End::Ours(CloseReason::Forbidden)
    }

    async fn refuse_change(&mut self, error: &ChangeError) -> End {
        match error {
            ChangeError::NotFound => {
                self.refuse("not_found", "there is no such consultation").await
            }
            ChangeError::Refused(_)
            | ChangeError::PaymentRequired
            | ChangeError::Database(_)
            | ChangeError::Busy => {
                self.say(ServerFrame::error("unavailable", "try again")).await;
                End::Ours(CloseReason::TooSlow)
            }
        }
    }

    async fn converse_after(
        &mut self,
        first: [Utf8Bytes; 2],
        caller: &Caller,
        inbox: Inbox,
    ) -> End {
        for frame in first {
            if !self.say(frame).await {
                return End::Gone;
            }
        }
        self.converse(caller, None, inbox).await
    }

    /// Speaks and listens until one of the two ends it.
    async fn converse(&mut self, caller: &Caller, session: Option<Uuid>, mut inbox: Inbox) -> End {
        self.heard = Instant::now();
        let mut pings = tokio::time::interval(self.control.ping_interval(PING_INTERVAL));
        pings.reset();
        let life = (caller.0.expires_at - crate::store::now()).to_std().unwrap_or_default();
        let token_ends = tokio::time::sleep(life);
        tokio::pin!(token_ends);
        loop {
            tokio::select! {
                biased;
                () = inbox.overflow.notified() => return End::Ours(CloseReason::TooSlow),
                () = &mut token_ends => return End::Ours(CloseReason::Unauthorized),
                outgoing = inbox.queue.recv() => match outgoing {
                    Some(Outgoing::Frame { session: _, text }) => {
                        let sent = tokio::select! {
                            sent = self.say(text) => sent,
                            () = inbox.overflow.notified() => {
                                return End::Ours(CloseReason::TooSlow);
                            }
                        };
                        if !sent {
                            return End::Gone;
                        }
                    }
                    Some(Outgoing::Close(reason)) => return End::Ours(reason),
                    None => return End::Gone,
                },
                Some(answer) = self.pending.next(), if !self.pending.is_empty() => {
                    if let Some(frame) = answer
                        && !self.say(frame).await
                    {
                        return End::Gone;
                    }
                },
                _ = pings.tick() => {
                    if self.heard.elapsed() > IDLE_TIMEOUT {
                        return End::Ours(CloseReason::Idle);
                    }
                    if let Err(end) = self.tell_idle(caller).await {
                        return end;
                    }
                    if self.socket.send(Message::Ping(axum::body::Bytes::new())).await.is_err() {
                        return End::Gone;
                    }
                },
                message = self.socket.recv() => match message {
                    None | Some(Ok(Message::Close(_))) => return End::Gone,
                    Some(Err(error)) => return broken(&error),
                    Some(Ok(message)) => {
                        if let Err(end) = self.hear(caller, session, message).await {
                            return end;
                        }
                    }
                },
            }
        }
    }

    /// Somebody who does nothing is told so, and then signed out.
    async fn tell_idle(&mut self, caller: &Caller) -> Result<(), End> {
        match self.control.idleness(caller) {
            Idleness::Active => Ok(()),
            Idleness::Soon(seconds) => {
                let detail = format!("signed out in {seconds} s, unless somebody does something");
                self.answer(ServerFrame::error("idle", &detail)).await
            }
            Idleness::Over => {
                let detail = "nobody did anything for long; sign in again";
                self.answer(ServerFrame::error("signed_out", detail)).await?;
                Err(End::Ours(CloseReason::SignedOut))
            }
        }
    }

    /// One message from the client.
    async fn hear(
        &mut self,
        caller: &Caller,
        session: Option<Uuid>,
        message: Message,
    ) -> Result<(), End> {
        let now = Instant::now();
        self.heard = now;
        let frame = match &message {
            Message::Text(text) => ClientFrame::parse(text),
            Message::Binary(_) => Err(BadFrame::NotAFrame),
            Message::Ping(_) | Message::Pong(_) | Message::Close(_) => {
                return self.allow(now).await.map(|_| ());
            }
        };
        // Messages are counted where they are taken, whatever way they come.
        if let Ok(ClientFrame::Chat(chat)) = frame {
            self.control.idle.touch(&caller.1);
            return match session {
                Some(id) => self.hear_chat(caller, id, &chat).await,
                None => self.bad_frame("this channel has no chat").await,
            };
        }
        if !self.allow(now).await? {
            return Ok(());
        }
        match (frame, session) {
            (Ok(ClientFrame::Ping), _) => self.answer(ServerFrame::Pong {}.text()).await,
            (Ok(ClientFrame::Activity), _) => {
                self.control.idle.touch(&caller.1);
                Ok(())
            }
            (Ok(ClientFrame::Mark(receipt, mark)), Some(id)) => {
                self.hear_mark(caller, id, receipt, mark).await
            }
            (Ok(ClientFrame::Mark(..) | ClientFrame::Chat(_)), _) => {
                self.bad_frame("this channel has no chat").await
            }
            (Ok(ClientFrame::Auth { .. }), _) => self.bad_frame("who you are is known").await,
            (Err(error), _) => self.bad_frame(&error.to_string()).await,
        }
    }

    /// Takes one frame from what the client may send; `false` = it is one too many.
    async fn allow(&mut self, now: Instant) -> Result<bool, End> {
        match self.allowance.frame(now) {
            Verdict::Take => Ok(true),
            Verdict::Refuse => {
                self.control.counters.refused_frames.add();
                let frame = ServerFrame::error("rate_limited", "too many frames; slow down");
                self.answer(frame).await.map(|()| false)
            }
            Verdict::Drop => {
                self.control.counters.refused_frames.add();
                Ok(false)
            }
            Verdict::End => Err(End::Ours(CloseReason::Policy)),
        }
    }

    async fn hear_chat(&mut self, caller: &Caller, id: Uuid, chat: &ChatText) -> Result<(), End> {
        let deed = self.deed(caller, "SEND /api/v1/consultations/sessions/{id}/channel");
        deed.about(id);
        let submitted = if caller.is_staff() || caller.may(Permission::WriteChat).is_err() {
            Err(ChatError::NotAdmitted)
        } else {
            deed.run(self.control.submit(caller.author(), id, chat)).await
        };
        let outcome = submitted.as_ref().map_or_else(ChatError::outcome, |_| Outcome::Done);
        self.control.settle_deed(&deed, outcome);
        let client_id = chat.client_id.clone();
        match submitted {
            // It comes back through the queue, in order with everybody else's.
            Ok(ticket) => {
                self.pending.push(Box::pin(async move {
                    match ticket.settled().await {
                        Ok(Posting::Delivered(_)) => None,
                        Ok(Posting::Repeated(view)) => Some(ServerFrame::ChatMessage(&view).text()),
                        Err(error) => Some(chat_error(&error, client_id.as_deref())),
                    }
                }));
                Ok(())
            }
            Err(error) => {
                if matches!(error, ChatError::TooMany)
                    && self.allowance.refused(Instant::now()) == Verdict::End
                {
                    return Err(End::Ours(CloseReason::Policy));
                }
                self.answer(chat_error(&error, client_id.as_deref())).await
            }
        }
    }

    async fn hear_mark(
        &mut self,
        caller: &Caller,
        id: Uuid,
        receipt: Receipt,
        mark: MarkPayload,
    ) -> Result<(), End> {
        let own = mark.session_id.is_none_or(|session| session == id);
        let submitted = if caller.is_staff() || !own {
            Err(ChatError::NotAdmitted)
        } else {
            self.control.submit_mark(caller.author(), id, receipt, mark.message_id).await
        };
        match submitted {
            Ok(ticket) => {
                self.pending.push(Box::pin(async move {
                    ticket.settled().await.err().map(|error| chat_error(&error, None))
                }));
                Ok(())
            }
            Err(error) => self.answer(chat_error(&error, None)).await,
        }
    }

    async fn bad_frame(&mut self, detail: &str) -> Result<(), End> {
        self.control.counters.refused_frames.add();
        let verdict = self.allowance.strike(Instant::now());
        self.answer(ServerFrame::error("bad_frame", detail)).await?;
        if verdict == Verdict::End { Err(End::Ours(CloseReason::Policy)) } else { Ok(()) }
    }

    async fn answer(&mut self, frame: Utf8Bytes) -> Result<(), End> {
        if self.say(frame).await { Ok(()) } else { Err(End::Gone) }
    }

    async fn say(&mut self, frame: Utf8Bytes) -> bool {
        let sending = self.socket.send(Message::Text(frame));
        matches!(tokio::time::timeout(SEND_TIMEOUT, sending).await, Ok(Ok(())))
    }

    /// Says goodbye, briefly.
    async fn hang_up(&mut self, end: End) {
        let frame = match end {
            End::Gone => return,
            End::TooLarge => {
                CloseFrame { code: 1009, reason: Utf8Bytes::from_static("the frame is too large") }
            }
            End::Ours(reason) => {
                if reason == CloseReason::TooSlow {
                    self.control.counters.slow_channels.add();
                }
                reason.frame()
            }
        };
        let goodbye = self.socket.send(Message::Close(Some(frame)));
        let _ = tokio::time::timeout(Duration::from_secs(1), goodbye).await;
        // Read on until the client has closed, or its last words would reset the connection and
        // take our goodbye with them.
        let drain = async { while let Some(Ok(_)) = self.socket.recv().await {} };
        let _ = tokio::time::timeout(Duration::from_secs(1), drain).await;
    }
}

/// What was refused of the chat, as a frame.
pub(crate) fn chat_error(error: &ChatError, client_id: Option<&str>) -> Utf8Bytes {
    let (code, detail) = (error.code(), error.to_string());
    ServerFrame::Error { code, detail: &detail, client_id }.text()
}

/// Too large, or just gone.
pub(crate) fn broken(error: &axum::Error) -> End {
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        if cause.to_string().contains("too long") {
            return End::TooLarge;
        }
        source = cause.source();
    }
    End::Gone
}
