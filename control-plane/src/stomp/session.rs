//! One STOMP client: from `CONNECT` to the end.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::body::Bytes;
use axum::extract::ws::{CloseFrame, Message, Utf8Bytes, WebSocket};
use futures_util::StreamExt as _;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use uuid::Uuid;

use super::codec::{BadStomp, Command, Decoder, Frame, Heard, Version, encode};
use super::sockjs;
use super::words::{BEAT, Beats, Destination, JoinPayload, Subscription, body, message};
use crate::access::{Caller, NoCaller};
use crate::audit::{Deed, Origin, Outcome};
use crate::channel::limits::{Allowance, Verdict};
use crate::channel::{End, broken, chat_error};
use crate::chat::{ChatError, Posting};
use crate::consultation::Device;
use crate::control::{ChangeError, Control};
use crate::frames::{ChatText, MarkPayload, Notice, ServerFrame};
use crate::idle::Idleness;
use crate::live::{CloseReason, Inbox, Listener, Mailbox, Outgoing};
use crate::permissions::Permission;
use crate::sessions::Joined;
use crate::store::Receipt;

/// How long `CONNECT` may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long one frame may take to leave.
const SEND_TIMEOUT: Duration = Duration::from_secs(10);
/// How often the client's WebSocket is asked whether it is there.
const PING_INTERVAL: Duration = Duration::from_secs(20);
/// How long a client may say nothing at all.
const IDLE_TIMEOUT: Duration = Duration::from_secs(60);
/// How many subscriptions one client may have.
const MAX_SUBSCRIPTIONS: usize = 64;
/// How many consultations one client may wait in.
const MAX_WAITING: usize = 16;

/// What is around the text of STOMP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wrapping {
    /// Nothing: a WebSocket message is a piece of the stream.
    None,
    /// The frames of SockJS.
    SockJs,
}

/// What was submitted has settled: what to say about it.
struct Settled {
    /// For the consultation's topic, or for the person where there is none.
    answer: Option<(Option<Uuid>, Utf8Bytes)>,
    /// To be confirmed.
    receipt: Option<String>,
}

/// Why a frame ends the connection.
struct Refused {
    message: &'static str,
    detail: String,
    close: CloseReason,
}

impl Refused {
    fn new(message: &'static str, detail: impl Into<String>) -> Self {
        Self { message, detail: detail.into(), close: CloseReason::Policy }
    }
}

impl From<BadStomp> for Refused {
    fn from(error: BadStomp) -> Self {
        Self::new("malformed frame", error.to_string())
    }
}

/// Why it goes on no longer.
enum Stop {
    /// Without another word.
    End(End),
    /// With an `ERROR` frame.
    Refused(Refused, Option<String>),
    /// The client said goodbye.
    Goodbye,
}

impl From<End> for Stop {
    fn from(end: End) -> Self {
        Self::End(end)
    }
}

/// One client.
pub(super) struct Session {
    socket: WebSocket,
    control: Arc<Control>,
    wrapping: Wrapping,
    decoder: Decoder,
    version: Version,
    beats: Beats,
    allowance: Allowance,
    heard: Instant,
    mailbox: Mailbox,
    subscriptions: Vec<Subscription>,
    /// Consultations listened to.
    topics: HashMap<Uuid, u64>,
    /// Listens for itself.
    person: Option<Listener>,
    /// Consultations that it came to wait in.
    waits: Vec<Uuid>,
    pending: FuturesUnordered<BoxFuture<'static, Settled>>,
    next_message: u64,
    origin: Origin,
}

impl Session {
    pub(super) fn new(
        socket: WebSocket,
        control: Arc<Control>,
        wrapping: Wrapping,
        origin: Origin,
    ) -> Self {
        let now = Instant::now();
        Self {
            socket,
            control,
            wrapping,
            decoder: Decoder::default(),
            version: Version::default(),
            beats: Beats { ours: None, theirs: None },
            allowance: Allowance::new(now),
            heard: now,
            mailbox: Mailbox::new().0,
            subscriptions: Vec::new(),
            topics: HashMap::new(),
            person: None,
            waits: Vec::new(),
            pending: FuturesUnordered::new(),
            next_message: 0,
            origin,
        }
    }

    /// Something that a known client asks for.
    fn deed(&self, caller: &Caller, action: &str) -> Arc<Deed> {
        Deed::of(caller.who(), action, self.origin.clone())
    }

    pub(super) async fn serve(mut self) {
        if self.wrapping == Wrapping::SockJs && self.put(Message::text(sockjs::OPEN)).await.is_err()
        {
            return;
        }
        let (caller, stop) = match self.connect().await {
            Ok(caller) => {
                let (mailbox, inbox) = Mailbox::new();
                self.mailbox = mailbox;
                let stop = self.converse(&caller, inbox).await;
                (Some(caller), stop)
            }
            Err(stop) => (None, stop),
        };
        if let Some(caller) = &caller {
            self.leave(caller);
        }
        self.hang_up(stop).await;
    }

    /// Takes the client out of everything that it listened to.
    fn leave(&mut self, caller: &Caller) {
        let user_id = &caller.0.user_id;
        for (session, listener) in self.topics.drain() {
            self.control.farewell(session, listener, user_id);
        }
        if let Some(person) = self.person.take() {
            self.control.live.unlisten_person(&caller.0.clinic, &person);
        }
        for session in self.waits.drain(..) {
            if let Some(live) = self.control.live.find(session)
                && !live.is_listening(user_id)
            {
                self.control.miss(&live, user_id.clone());
            }
        }
    }

    /// Asks whether the client is there, and signs out who does nothing.
    async fn look_after(&mut self, caller: &Caller) -> Result<(), Stop> {
        match self.control.idleness(caller) {
            Idleness::Active => self.ping().await,
            Idleness::Soon(seconds) => {
                let detail = format!("signed out in {seconds} s, unless somebody does something");
                self.tell_error(&ServerFrame::error("idle", &detail)).await
            }
            Idleness::Over => Err(Stop::Refused(
                Refused {
                    message: "signed out",
                    detail: "nobody did anything for long; sign in again".to_owned(),
                    close: CloseReason::SignedOut,
                },
                None,
            )),
        }
    }

    /// Waits for `CONNECT` and answers it.
    async fn connect(&mut self) -> Result<Caller, Stop> {
        let deadline = tokio::time::Instant::now() + CONNECT_TIMEOUT;
        let late = || Stop::End(End::Ours(CloseReason::Unauthorized));
        loop {
            while let Some(heard) = self.next_heard()? {
                let Heard::Frame(frame) = heard else { continue };
                return self.greet(&frame).await;
            }
            let message = tokio::time::timeout_at(deadline, self.socket.recv()).await;
            self.take_in(message.map_err(|_| late())?)?;
        }
    }

    async fn greet(&mut self, frame: &Frame) -> Result<Caller, Stop> {
        let stop = |refused| Stop::Refused(refused, None);
        if frame.command != Command::Connect {
            return Err(stop(Refused::new("not connected", "CONNECT comes first")));
        }
        let Some(version) = Version::agreed(frame.header("accept-version")) else {
            let refused = Refused::new("unsupported version", "this server speaks 1.0, 1.1, 1.2");
            return Err(stop(refused));
        };
        let bearer = frame.header_of_any_case("authorization").and_then(|value| {
            let (scheme, token) = value.split_once(' ')?;
            scheme.eq_ignore_ascii_case("bearer").then_some(token.trim())
        });
        let token = bearer.or_else(|| frame.header("passcode")).unwrap_or_default();
        let caller = match self.control.caller(token).await {
            Ok(caller) => caller,
            Err(NoCaller::Unauthorized) => {
                let close = CloseReason::Unauthorized;
                let detail = "a valid token is needed".to_owned();
                return Err(stop(Refused { message: "unauthorized", detail, close }));
            }
            Err(NoCaller::Unavailable(_)) => return Err(stop(unavailable())),
        };
        self.control.attend(&caller);
        self.version = version;
        self.decoder.speak(version);
        self.beats = Beats::agreed(frame.header("heart-beat"));
        let id = Uuid::new_v4().to_string();
        let beat = BEAT.as_millis().to_string();
        let beats = format!("{beat},{beat}");
        let headers = [
            ("version", version.as_str()),
            ("heart-beat", beats.as_str()),
            ("server", "bedside"),
            ("session", id.as_str()),
            ("user-name", caller.0.user_id.as_str()),
        ];
        self.send(&encode("CONNECTED", &headers, "", version)).await?;
        Ok(caller)
    }

    /// Speaks and listens until one of the two ends it.
    async fn converse(&mut self, caller: &Caller, mut inbox: Inbox) -> Stop {
        self.heard = Instant::now();
        let mut beats = tokio::time::interval(self.beats.ours.unwrap_or(PING_INTERVAL));
        beats.reset();
        let mut pings = tokio::time::interval(self.control.ping_interval(PING_INTERVAL));
        pings.reset();
        let life = (caller.0.expires_at - crate::store::now()).to_std().unwrap_or_default();
        let token_ends = tokio::time::sleep(life);
        tokio::pin!(token_ends);
        loop {
            let result = tokio::select! {
                biased;
                () = inbox.overflow.notified() => Err(End::Ours(CloseReason::TooSlow).into()),
                () = &mut token_ends => Err(End::Ours(CloseReason::Unauthorized).into()),
                outgoing = inbox.queue.recv() => match outgoing {
                    Some(Outgoing::Frame { session, text }) => self.deliver(session, &text).await,
                    Some(Outgoing::Close(reason)) => Err(End::Ours(reason).into()),
                    None => Err(End::Gone.into()),
                },
                Some(settled) = self.pending.next(), if !self.pending.is_empty() => {
                    self.settle(settled).await
                },
                _ = beats.tick(), if self.beats.ours.is_some() => self.send("\n").await,
                _ = pings.tick() => self.look_after(caller).await,
                message = self.socket.recv() => self.hear(caller, message).await,
            };
            if let Err(stop) = result {
                return stop;
            }
        }
    }

    async fn ping(&mut self) -> Result<(), Stop> {
        // Three beats may be lost; whoever promised none answers the pings below.
        let patience = self.beats.theirs.map_or(IDLE_TIMEOUT, |beat| beat.saturating_mul(3));
        if self.heard.elapsed() > patience.max(PING_INTERVAL * 2) {
            return Err(End::Ours(CloseReason::Idle).into());
        }
        if self.wrapping == Wrapping::SockJs {
            self.put(Message::text(sockjs::BEAT)).await?;
        }
        self.put(Message::Ping(Bytes::new())).await
    }

    fn next_heard(&mut self) -> Result<Option<Heard>, Stop> {
        self.decoder.next().map_err(|error| Stop::Refused(error.into(), None))
    }

    /// Puts what came from the socket into the decoder.
    fn take_in(&mut self, message: Option<Result<Message, axum::Error>>) -> Result<(), Stop> {
        match message {
            None | Some(Ok(Message::Close(_))) => Err(End::Gone.into()),
            Some(Err(error)) => Err(broken(&error).into()),
            Some(Ok(Message::Ping(_) | Message::Pong(_))) => Ok(()),
            Some(Ok(Message::Text(text))) => match self.wrapping {
                Wrapping::None => {
                    self.decoder.feed(text.as_bytes());
                    Ok(())
                }
                Wrapping::SockJs => {
                    let Some(messages) = sockjs::messages(&text) else {
                        return Err(End::Ours(CloseReason::Policy).into());
                    };
                    for message in messages {
                        self.decoder.feed(message.as_bytes());
                    }
                    Ok(())
                }
            },
            Some(Ok(Message::Binary(bytes))) => match self.wrapping {
                Wrapping::None => {
                    self.decoder.feed(&bytes);
                    Ok(())
                }
                Wrapping::SockJs => Err(End::Ours(CloseReason::Policy).into()),
            },
        }
    }

    async fn hear(
        &mut self,
        caller: &Caller,
        message: Option<Result<Message, axum::Error>>,
    ) -> Result<(), Stop> {
        self.take_in(message)?;
        self.heard = Instant::now();
        while let Some(heard) = self.next_heard()? {
            match heard {
                Heard::Beat => {}
                Heard::Frame(frame) => {
                    let receipt = frame.header("receipt").map(str::to_owned);
                    match self.obey(caller, &frame).await {
                        Ok(()) => {}
                        Err(Stop::Refused(refused, _)) => {
                            return Err(Stop::Refused(refused, receipt));
                        }
                        Err(stop) => return Err(stop),
                    }
                }
            }
        }
        Ok(())
    }

    async fn obey(&mut self, caller: &Caller, frame: &Frame) -> Result<(), Stop> {
        // Messages are counted where they are taken, whatever way they come.
        let says =
            frame.command == Command::Send && frame.header("destination") == Some("/app/chat.send");
        if !says && !self.allow().await? {
            return Ok(());
        }
        match frame.command {
            Command::Send => self.obey_send(caller, frame).await,
            Command::Subscribe => {
                self.subscribe(caller, frame).await?;
                self.confirm(frame.header("receipt")).await
            }
            Command::Unsubscribe => {
                // In 1.0 the destination may stand for the id.
                let id = frame.header("id").or_else(|| frame.header("destination"));
                self.unsubscribe(caller, id.unwrap_or_default());
                self.confirm(frame.header("receipt")).await
            }
            Command::Ack => {
                let id = frame.header("id").or_else(|| frame.header("message-id"));
                self.acknowledge(caller, id.unwrap_or_default(), frame.header("receipt")).await
            }
            Command::Nack => self.confirm(frame.header("receipt")).await,
            Command::Disconnect => {
                self.confirm(frame.header("receipt")).await?;
                Err(Stop::Goodbye)
            }
            Command::Begin | Command::Commit | Command::Abort => {
                Err(refuse("not supported", "there are no transactions"))
            }
            Command::Connect => Err(refuse("already connected", "CONNECT comes once")),
        }
    }

    /// Takes one frame from what the client may send; `false` = it is one too many.
    async fn allow(&mut self) -> Result<bool, Stop> {
        match self.allowance.frame(Instant::now()) {
            Verdict::Take => Ok(true),
            Verdict::Refuse => {
                self.control.counters.refused_frames.add();
                let frame = ServerFrame::error("rate_limited", "too many frames; slow down");
                self.tell_error(&frame).await.map(|()| false)
            }
            Verdict::Drop => {
                self.control.counters.refused_frames.add();
                Ok(false)
            }
            Verdict::End => Err(End::Ours(CloseReason::Policy).into()),
        }
    }

    async fn obey_send(&mut self, caller: &Caller, frame: &Frame) -> Result<(), Stop> {
        self.control.idle.touch(&caller.1);
        if frame.header("transaction").is_some() {
            return Err(refuse("not supported", "there are no transactions"));
        }
        let receipt = frame.header("receipt").map(str::to_owned);
        match frame.header("destination").unwrap_or_default() {
            "/app/chat.send" => self.chat_send(caller, frame, receipt).await,
            "/app/chat.delivered" => self.mark(caller, frame, Receipt::Delivered, receipt).await,
            "/app/chat.read" => self.mark(caller, frame, Receipt::Read, receipt).await,
            "/app/waiting.join" => self.join(caller, frame, receipt).await,
            _ => Err(refuse("unknown destination", "nothing listens there")),
        }
    }

    async fn chat_send(
        &mut self,
        caller: &Caller,
        frame: &Frame,
        receipt: Option<String>,
    ) -> Result<(), Stop> {
        let Some(chat) = body::<ChatText>(&frame.body) else {
            return self.bad_body().await;
        };
        let Some(id) = chat.session_id else { return self.bad_body().await };
        let client_id = chat.client_id.clone();
        let deed = self.deed(caller, "SEND /app/chat.send");
        deed.about(id);
        let submitted = if caller.is_staff() || caller.may(Permission::WriteChat).is_err() {
            Err(ChatError::NotAdmitted)
        } else {
            deed.run(self.control.submit(caller.author(), id, &chat)).await
        };
        let outcome = submitted.as_ref().map_or_else(ChatError::outcome, |_| Outcome::Done);
        self.control.settle_deed(&deed, outcome);
        match submitted {
            // It comes back on the topic, in order with everybody else's.
            Ok(ticket) => {
                self.pending.push(Box::pin(async move {
                    match ticket.settled().await {
                        Ok(Posting::Delivered(_)) => Settled { answer: None, receipt },
                        Ok(Posting::Repeated(view)) => {
                            let frame = ServerFrame::ChatMessage(&view).text();
                            Settled { answer: Some((Some(id), frame)), receipt }
                        }
                        Err(error) => {
                            let frame = chat_error(&error, client_id.as_deref());
                            Settled { answer: Some((None, frame)), receipt: None }
                        }
                    }
                }));
                Ok(())
            }
            Err(error) => {
                if matches!(error, ChatError::TooMany)
                    && self.allowance.refused(Instant::now()) == Verdict::End
                {
                    return Err(End::Ours(CloseReason::Policy).into());
                }
                self.tell_error(&chat_error(&error, client_id.as_deref())).await
            }
        }
    }

    async fn mark(
        &mut self,
        caller: &Caller,
        frame: &Frame,
        receipt: Receipt,
        confirm: Option<String>,
    ) -> Result<(), Stop> {
        let Some(mark) = body::<MarkPayload>(&frame.body) else {
            return self.bad_body().await;
        };
        let Some(id) = mark.session_id else { return self.bad_body().await };
        self.submit_mark(caller, id, mark.message_id, receipt, confirm).await
    }

    async fn submit_mark(
        &mut self,
        caller: &Caller,
        session: Uuid,
        message: Uuid,
        receipt: Receipt,
        confirm: Option<String>,
    ) -> Result<(), Stop> {
        let submitted = if caller.is_staff() {
            Err(ChatError::NotAdmitted)
        } else {
            self.control.submit_mark(caller.author(), session, receipt, message).await
        };
        match submitted {
            Ok(ticket) => {
                self.pending.push(Box::pin(async move {
                    match ticket.settled().await {
                        Ok(()) => Settled { answer: None, receipt: confirm },
                        Err(error) => Settled {
                            answer: Some((None, chat_error(&error, None))),
                            receipt: None,
                        },
                    }
                }));
                Ok(())
            }
            Err(error) => self.tell_error(&chat_error(&error, None)).await,
        }
    }

    /// `ACK` of a message of a subscription that acknowledges: it is on the device.
    async fn acknowledge(
        &mut self,
        caller: &Caller,
        id: &str,
        confirm: Option<&str>,
    ) -> Result<(), Stop> {
        let named = id.split_once('/');
        let named = named.and_then(|(session, message)| {
            Some((session.parse::<Uuid>().ok()?, message.parse::<Uuid>().ok()?))
        });
        let Some((session, message)) = named else {
            return self.confirm(confirm).await;
        };
        let confirm = confirm.map(str::to_owned);
        self.submit_mark(caller, session, message, Receipt::Delivered, confirm).await
    }

    /// Comes to a consultation: waits, or is let in again.
    async fn join(
        &mut self,
        caller: &Caller,
        frame: &Frame,
        confirm: Option<String>,
    ) -> Result<(), Stop> {
        let Some(JoinPayload { session_id }) = body(&frame.body) else {
            return self.bad_body().await;
        };
        let control = Arc::clone(&self.control);
        let deed = self.deed(caller, "SEND /app/waiting.join");
        let found = deed.run(control.look(&caller.0.clinic, session_id)).await;
        let may = caller.may(Permission::JoinConsultations).is_ok();
        let joined = match found {
            Ok(consultation) if caller.takes_part(&consultation) && !caller.is_staff() && may => {
                let (user, name) = (&caller.0.user_id, caller.0.name.clone());
                let actor = caller.actor();
                let device = Device::default();
                let join = control.join(&caller.0.clinic, session_id, &actor, user, name, device);
                deed.run(join).await
            }
            Ok(_) => Err(ChangeError::NotFound),
            Err(error) => Err(error),
        };
        control
            .settle_deed(&deed, joined.as_ref().map_or_else(Outcome::of_error, |_| Outcome::Done));
        let notice = match joined {
            Ok(Joined::Waiting { position }) => {
                if self.waits.len() < MAX_WAITING && !self.waits.contains(&session_id) {
                    self.waits.push(session_id);
                }
                Notice::Position { position }
            }
            // The room's token is for whoever asks by HTTP.
            Ok(Joined::Room(_)) => Notice::Admitted,
            Err(error) => {
                return self.tell_error(&chat_error(&ChatError::Change(error), None)).await;
            }
        };
        self.tell_person(&ServerFrame::Notification { session_id, notice }.text()).await?;
        self.confirm(confirm.as_deref()).await
    }

    async fn subscribe(&mut self, caller: &Caller, frame: &Frame) -> Result<(), Stop> {
        let to = frame.header("destination").and_then(Destination::parse);
        let Some(to) = to else {
            return Err(refuse("unknown destination", "nothing is told there"));
        };
        let destination = to.text();
        // In 1.0 the id may be absent, and the destination stands for it.
        let id = frame.header("id").unwrap_or(&destination).to_owned();
        let known = self.subscriptions.iter().any(|known| known.id == id);
        if known || self.subscriptions.len() >= MAX_SUBSCRIPTIONS {
            return Err(refuse("not subscribed", "the id is in use, or there are too many"));
        }
        let acknowledges = frame.header("ack").is_some_and(|ack| ack != "auto");
        self.subscriptions.push(Subscription { id, to, acknowledges });
        match to {
            Destination::Session(session) => {
                let after = frame.header("after").and_then(|number| number.parse().ok());
                self.listen(caller, session, after).await
            }
            Destination::Notifications => {
                if self.person.is_none() {
                    let person = Listener::new(&self.mailbox, None, caller, true);
                    self.control.live.listen_person(&caller.0.clinic, person.clone());
                    self.person = Some(person);
                }
                Ok(())
            }
            Destination::Errors => Ok(()),
        }
    }

    async fn listen(
        &mut self,
        caller: &Caller,
        session: Uuid,
        after: Option<i64>,
    ) -> Result<(), Stop> {
        if self.topics.contains_key(&session) {
            return Ok(());
        }
        let forbidden = || Refused {
            message: "not allowed",
            detail: "this consultation is somebody else's, or there is none".to_owned(),
            close: CloseReason::Forbidden,
        };
        let control = Arc::clone(&self.control);
        let deed = self.deed(caller, "SUBSCRIBE /topic/session.{id}");
        match control.open_channel(caller, session, &deed).await {
            Ok(true) => {}
            Ok(false) | Err(ChangeError::NotFound) => {
                return Err(Stop::Refused(forbidden(), None));
            }
            Err(_) => return Err(Stop::Refused(unavailable(), None)),
        }
        match control.welcome(&self.mailbox, caller, session, after).await {
            Ok(listener) => {
                self.topics.insert(session, listener);
                Ok(())
            }
            Err(_) => Err(Stop::Refused(unavailable(), None)),
        }
    }

    fn unsubscribe(&mut self, caller: &Caller, id: &str) {
        let Some(at) = self.subscriptions.iter().position(|known| known.id == id) else { return };
        let to = self.subscriptions.remove(at).to;
        if self.subscriptions.iter().any(|other| other.to == to) {
            return;
        }
        match to {
            Destination::Session(session) => {
                if let Some(listener) = self.topics.remove(&session) {
                    self.control.farewell(session, listener, &caller.0.user_id);
                }
            }
            Destination::Notifications => {
                if let Some(person) = self.person.take() {
                    self.control.live.unlisten_person(&caller.0.clinic, &person);
                }
            }
            Destination::Errors => {}
        }
    }

    async fn settle(&mut self, settled: Settled) -> Result<(), Stop> {
        match settled.answer {
            Some((Some(session), frame)) => self.deliver(Some(session), &frame).await?,
            Some((None, frame)) => self.tell_error(&frame).await?,
            None => {}
        }
        self.confirm(settled.receipt.as_deref()).await
    }

    async fn confirm(&mut self, receipt: Option<&str>) -> Result<(), Stop> {
        let Some(receipt) = receipt else { return Ok(()) };
        self.send(&encode("RECEIPT", &[("receipt-id", receipt)], "", self.version)).await
    }

    /// Gives a frame to the subscriptions it is for.
    async fn deliver(&mut self, session: Option<Uuid>, text: &str) -> Result<(), Stop> {
        let to = session.map_or(Destination::Notifications, Destination::Session);
        let frames: Vec<String> = self
            .subscriptions
            .iter()
            .filter(|subscription| subscription.to == to)
            .map(|subscription| {
                self.next_message += 1;
                message(subscription, self.next_message, text, self.version)
            })
            .collect();
        for frame in frames {
            self.send(&frame).await?;
        }
        Ok(())
    }

    async fn tell_person(&mut self, text: &str) -> Result<(), Stop> {
        self.deliver(None, text).await
    }

    /// Tells the client what was refused, where it listens for that; else by the last frame.
    async fn tell_error(&mut self, text: &str) -> Result<(), Stop> {
        let to = [Destination::Errors, Destination::Notifications];
        let listens = |to: &Destination| self.subscriptions.iter().any(|s| s.to == *to);
        let Some(to) = to.into_iter().find(listens) else {
            return Err(refuse("refused", text));
        };
        let subscription = self.subscriptions.iter().find(|known| known.to == to);
        let Some(subscription) = subscription else { return Ok(()) };
        self.next_message += 1;
        let frame = message(subscription, self.next_message, text, self.version);
        self.send(&frame).await
    }

    async fn bad_body(&mut self) -> Result<(), Stop> {
        self.control.counters.refused_frames.add();
        if self.allowance.strike(Instant::now()) == Verdict::End {
            return Err(End::Ours(CloseReason::Policy).into());
        }
        self.tell_error(&ServerFrame::error("bad_frame", "the body does not fit")).await
    }

    async fn send(&mut self, text: &str) -> Result<(), Stop> {
        let message = match self.wrapping {
            Wrapping::None => Message::text(text),
            Wrapping::SockJs => Message::text(sockjs::message(text)),
        };
        self.put(message).await
    }

    async fn put(&mut self, message: Message) -> Result<(), Stop> {
        let sending = self.socket.send(message);
        match tokio::time::timeout(SEND_TIMEOUT, sending).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) | Err(_) => Err(End::Gone.into()),
        }
    }

    /// Says goodbye, briefly.
    async fn hang_up(&mut self, stop: Stop) {
        let (code, reason) = match stop {
            Stop::End(End::Gone) => return,
            Stop::End(End::TooLarge) => (1009, "the frame is too large"),
            Stop::End(End::Ours(reason)) => {
                if reason == CloseReason::TooSlow {
                    self.control.counters.slow_channels.add();
                }
                reason.words()
            }
            Stop::Goodbye => (1000, "goodbye"),
            Stop::Refused(refused, receipt) => {
                let mut headers =
                    vec![("message", refused.message), ("content-type", "text/plain")];
                if let Some(receipt) = &receipt {
                    headers.push(("receipt-id", receipt));
                }
                let frame = encode("ERROR", &headers, &refused.detail, self.version);
                // Whoever does not hear it sees the end of the connection.
                let _ = self.send(&frame).await;
                refused.close.words()
            }
        };
        if self.wrapping == Wrapping::SockJs {
            let _ = self.put(Message::text(sockjs::close(code, reason))).await;
        }
        let frame = CloseFrame { code, reason: Utf8Bytes::from_static(reason) };
        let _ = self.put(Message::Close(Some(frame))).await;
        // Read on until the client has closed, or its last words would reset the connection and
        // take our goodbye with them.
        let drain = async { while let Some(Ok(_)) = self.socket.recv().await {} };
        let _ = tokio::time::timeout(Duration::from_secs(1), drain).await;
    }
}

fn refuse(message: &'static str, detail: &str) -> Stop {
    Stop::Refused(Refused::new(message, detail), None)
}

fn unavailable() -> Refused {
    let close = CloseReason::TooSlow;
    Refused { message: "unavailable", detail: "try again".to_owned(), close }
}
