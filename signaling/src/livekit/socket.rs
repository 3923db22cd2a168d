//! A session's task: between one WebSocket, the engine, and the pure [`Session`].

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use axum::extract::ws::{CloseFrame, Message, WebSocket, close_code};
use bedside_sfu::core::api::{
    Command, Join, LeaveReason, ParticipantSid, Private, Refusal, Resume, SessionEvent,
};
use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{SinkExt as _, StreamExt as _};
use livekit_protocol as lk;
use prost::Message as _;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::{sleep_until, timeout};
use tracing::{debug, info};

use super::door::Entry;
use crate::dispatch::{Cut, Place, Shared};
use crate::engine::Busy;
use crate::ice::IceServer;
use crate::limits;
use crate::rooms::DoorRefusal;
use crate::session::{Opening, Output, Session, Tally};
use crate::token::{self, RoomToken};

/// How long the last words may take.
const LAST_WORDS: Duration = Duration::from_secs(2);
/// When nothing is due.
const IDLE: Duration = Duration::from_secs(3_600);

/// Serves one client from the upgrade to the end.
pub(super) async fn serve(socket: WebSocket, shared: Arc<Shared>, mut entry: Entry) {
    let (sink, stream) = socket.split();
    let mut session = Session::new(Instant::now(), opening(&shared, &mut entry));
    let out = Outgoing::start(sink);
    let place = match seat(&shared, &entry) {
        Ok(place) => place,
        Err(NoSeat::Told(refusal)) => {
            session.handle_event(Instant::now(), SessionEvent::Refused(refusal));
            None
        }
        Err(NoSeat::Revoked(reason)) => {
            session.handle_event(Instant::now(), SessionEvent::Left { reason, resume: false });
            None
        }
        Err(NoSeat::Busy) => {
            session.busy();
            None
        }
    };
    let mut task = Task { shared, entry, session, out, place, retried: false };
    let code = task.run(stream).await;
    let Task { out, place, .. } = task;
    // The place first: the engine learns at once that nobody listens here any more.
    drop(place);
    out.finish(code).await;
}

struct Task {
    shared: Arc<Shared>,
    entry: Entry,
    session: Session,
    out: Outgoing,
    /// `None`: there is nothing to join, only a last word to say.
    place: Option<Place>,
    /// The room had closed under our hands once, and was opened again.
    retried: bool,
}

/// Why a session gets no place.
enum NoSeat {
    Told(Refusal),
    Revoked(LeaveReason),
    Busy,
}

/// What woke the task.
enum Woken {
    Event(Option<Box<SessionEvent>>),
    Cut(Option<Cut>),
    Frame(Option<Result<Message, axum::Error>>),
    Time,
}

impl Task {
    /// Runs until the session has ended; the close code.
    async fn run(&mut self, mut stream: SplitStream<WebSocket>) -> u16 {
        let mut code = close_code::NORMAL;
        loop {
            self.carry_out();
            if self.session.is_ended() {
                return code;
            }
            let woken = self.wait(&mut stream).await;
            let now = Instant::now();
            match woken {
                Woken::Event(Some(event)) => self.event(now, *event),
                Woken::Cut(Some(Cut::Superseded)) => self.session.end(),
                Woken::Cut(Some(Cut::Shutdown)) => self.session.shut_down(),
                Woken::Event(None) | Woken::Cut(_) => self.session.cut(),
                Woken::Frame(Some(Ok(frame))) => self.frame(now, frame),
                Woken::Frame(Some(Err(error))) => {
                    code = code_for(&error);
                    self.session.end();
                }
                Woken::Frame(None) => self.session.end(),
                Woken::Time => self.session.handle_timeout(now),
            }
        }
    }

    async fn wait(&mut self, stream: &mut SplitStream<WebSocket>) -> Woken {
        let now = Instant::now();
        let due = self.session.poll_timeout().unwrap_or(now + IDLE);
        let read_at = self.session.read_again_at(now);
        let wake = read_at.map_or(due, |at| at.min(due));
        let Some(place) = &mut self.place else {
            return Woken::Time;
        };
        tokio::select! {
            event = place.events.recv() => Woken::Event(event.map(Box::new)),
            changed = place.cut.changed() => {
                Woken::Cut(changed.ok().and_then(|()| *place.cut.borrow_and_update()))
            }
            frame = stream.next(), if read_at.is_none() => Woken::Frame(frame),
            () = sleep_until(wake.into()) => Woken::Time,
        }
    }

    fn event(&mut self, now: Instant, event: SessionEvent) {
        // The room ended between the look into the directory and the engine's turn: open it again.
        let no_room = matches!(event, SessionEvent::Refused(Refusal::NoRoom));
        if no_room && !self.retried && !self.entry.request.reconnect {
            self.retried = true;
            if let Some(place) = self.place.take() {
                self.shared.forget_room(place.room);
            }
            match seat(&self.shared, &self.entry) {
                Ok(place) => self.place = place,
                Err(_) => self.session.busy(),
            }
            return;
        }
        let participant = match &event {
            SessionEvent::Joined { me, .. } => Some(me.sid.clone()),
            SessionEvent::Resumed { .. } => self.session.resumes().cloned(),
            _ => None,
        };
        if let Some(participant) = participant {
            let servers = self.shared.config.ice_servers.for_participant(&participant);
            self.session.tell_ice_servers(servers.iter().map(ice_server).collect());
        }
        self.session.handle_event(now, event);
    }

    fn frame(&mut self, now: Instant, frame: Message) {
        match frame {
            Message::Binary(bytes) => self.session.handle_message(now, &bytes),
            Message::Text(_) => self.session.handle_text(now),
            Message::Ping(_) | Message::Pong(_) => self.session.handle_heard(now),
            Message::Close(_) => self.session.end(),
        }
    }

    fn carry_out(&mut self) {
        while let Some(output) = self.session.poll() {
            match output {
                Output::Ask(request) => self.ask(request),
                Output::Tell(message) => self.send(Message::Binary(message.encode_to_vec().into())),
                Output::FreshToken(profile, grant) => self.fresh_token(&profile, &grant),
                Output::Speaks(participant) => self.speaks(&participant),
                Output::Active => {
                    if !self.entry.request.reconnect {
                        self.shared.counters.join_times.record(self.entry.asked.elapsed());
                    }
                }
                Output::Ping => self.send(Message::Ping(bytes::Bytes::new())),
                Output::Count(tally) => count(&self.shared, tally),
                // Whoever asks `is_ended` ends.
                Output::End => {}
            }
        }
    }

    fn ask(&mut self, request: bedside_sfu::core::api::Request) {
        let Some(place) = &self.place else { return };
        let command = Command::Request { session: place.session, request };
        if self.shared.send(place.room, command).is_err() {
            // A lost offer would stall the client for long: it resumes instead.
            self.session.cut();
        }
    }

    fn send(&mut self, message: Message) {
        if self.out.push(message).is_err() {
            self.shared.counters.slow_readers.up();
            self.out.give_up();
            self.session.end();
        }
    }

    fn speaks(&mut self, participant: &ParticipantSid) {
        let Some(place) = &self.place else { return };
        self.shared.take_over(place.session, participant);
        info!(
            session = place.session.0,
            room = place.room.0,
            participant = &*participant.0,
            resume = self.entry.request.reconnect,
            "a session is open"
        );
    }

    fn fresh_token(
        &mut self,
        profile: &bedside_sfu::core::api::Profile,
        grant: &bedside_sfu::core::api::Grant,
    ) {
        let shared = Arc::clone(&self.shared);
        let Some(keys) = shared.config.keys.first() else { return };
        let now = SystemTime::now();
        let left = self.entry.claims.expires.duration_since(now).unwrap_or_default();
        let old = &self.entry.claims.token;
        let token = RoomToken {
            identity: profile.identity.clone(),
            name: profile.name.clone(),
            metadata: profile.metadata.clone(),
            attributes: profile.attributes.clone(),
            kind: old.kind.clone(),
            grant: old.grant.with_rights(grant),
        };
        let jwt = token::issue(keys, &token, left.max(shared.config.token_ttl), now);
        let message = Some(lk::signal_response::Message::RefreshToken(jwt));
        let bytes = lk::SignalResponse { message }.encode_to_vec();
        self.send(Message::Binary(bytes.into()));
    }
}

/// Finds or opens the room, takes a place and tells the engine who comes.
fn seat(shared: &Arc<Shared>, entry: &Entry) -> Result<Option<Place>, NoSeat> {
    if let Some(refusal) = entry.revoked {
        return Err(NoSeat::Revoked(match refusal {
            DoorRefusal::NoRoom => LeaveReason::RoomClosed,
            DoorRefusal::NotAllowed | DoorRefusal::Full | DoorRefusal::Draining => {
                LeaveReason::ParticipantRemoved
            }
        }));
    }
    let name = entry.claims.room();
    let place = if entry.request.reconnect {
        let room = shared.room(name).ok_or(NoSeat::Told(Refusal::NoRoom))?;
        let place = shared.seat(room);
        let participant = ParticipantSid(entry.request.participant_sid.as_str().into());
        let resume = Command::Resume(Box::new(Resume {
            room,
            session: place.session,
            participant,
            identity: Private::new(entry.claims.identity().to_owned()),
        }));
        shared.send(room, resume).map_err(|Busy| NoSeat::Busy)?;
        place
    } else {
        let room = shared.open_room(name, &entry.plan).map_err(|Busy| NoSeat::Busy)?;
        let place = shared.seat(room);
        let settings = entry.request.connection_settings.unwrap_or_default();
        let join = Command::Join(Box::new(Join {
            room,
            session: place.session,
            profile: entry.profile.clone(),
            grant: entry.grant.clone(),
            auto_subscribe: settings.auto_subscribe,
            adaptive_stream: settings.adaptive_stream,
            allow_pause: settings.subscriber_allow_pause.unwrap_or(true),
            client: entry.client.clone(),
        }));
        shared.send(room, join).map_err(|Busy| NoSeat::Busy)?;
        place
    };
    Ok(Some(place))
}

fn opening(shared: &Shared, entry: &mut Entry) -> Opening {
    let config = &shared.config;
    let seconds = |time: Duration| i32::try_from(time.as_secs().max(1)).unwrap_or(i32::MAX);
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let request = &mut entry.request;
    let participant = || ParticipantSid(request.participant_sid.as_str().into());
    Opening {
        resume: request.reconnect.then(participant),
        add_tracks: std::mem::take(&mut request.add_track_requests),
        offer: request.publisher_offer.take(),
        sync_state: request.sync_state.take(),
        ping_interval: seconds(config.ping_interval),
        ping_timeout: seconds(config.ping_timeout),
        simulate: config.allow_simulate,
        two_connections: entry.client.two_connections,
        wall_ms: i64::try_from(since_epoch.as_millis()).unwrap_or(i64::MAX),
    }
}

fn ice_server(server: &IceServer) -> lk::IceServer {
    lk::IceServer {
        urls: server.urls.clone(),
        username: server.username.clone(),
        credential: server.credential.reveal().clone(),
    }
}

fn count(shared: &Shared, tally: Tally) {
    let counters = &shared.counters;
    let counter = match tally {
        Tally::Malformed => &counters.malformed,
        Tally::Unknown => &counters.unknown,
        Tally::OverLimit => &counters.over_limit,
        Tally::TextFrame => &counters.text_frames,
        Tally::Silent => &counters.silent,
        Tally::InvalidJoin => {
            tracing::error!("a join message was held back");
            &counters.invalid_joins
        }
        Tally::Joined => &counters.joins,
        Tally::Resumed => &counters.resumes,
        Tally::ResumeUnknown => &counters.resumes_unknown,
    };
    counter.up();
}

/// The WebSocket library says what went wrong only in words.
fn code_for(error: &axum::Error) -> u16 {
    let text = error.to_string();
    if text.contains("Space limit exceeded") {
        close_code::SIZE
    } else if text.contains("UTF-8") {
        close_code::INVALID
    } else {
        close_code::PROTOCOL
    }
}

/// The queue of messages towards one client, and the task that empties it.
struct Outgoing {
    queue: mpsc::Sender<Message>,
    bytes: Arc<AtomicUsize>,
    give_up: watch::Sender<bool>,
    writer: JoinHandle<()>,
}

/// The client does not read.
struct Slow;

impl Outgoing {
    fn start(sink: SplitSink<WebSocket, Message>) -> Self {
        let (queue, to_write) = mpsc::channel(limits::QUEUED_MESSAGES);
        let bytes = Arc::new(AtomicUsize::new(0));
        let (give_up, given_up) = watch::channel(false);
        let writer = tokio::spawn(write(sink, to_write, Arc::clone(&bytes), given_up));
        Self { queue, bytes, give_up, writer }
    }

    fn push(&self, message: Message) -> Result<(), Slow> {
        let length = length(&message);
        let before = self.bytes.fetch_add(length, Ordering::Relaxed);
        // One message may be larger than the limit, a queue may not.
        if before != 0 && before + length > limits::QUEUED_BYTES {
            return Err(Slow);
        }
        match self.queue.try_send(message) {
            Err(mpsc::error::TrySendError::Full(_)) => Err(Slow),
            // A closed connection shows itself to the reading half.
            Ok(()) | Err(mpsc::error::TrySendError::Closed(_)) => Ok(()),
        }
    }

    /// Stops writing what waits.
    fn give_up(&self) {
        self.give_up.send_replace(true);
    }

    /// Says goodbye and waits, not for long, until everything is written.
    async fn finish(self, code: u16) {
        let close = CloseFrame { code, reason: "".into() };
        let _unless_full = self.queue.try_send(Message::Close(Some(close)));
        drop(self.queue);
        let mut writer = self.writer;
        if timeout(LAST_WORDS, &mut writer).await.is_err() {
            debug!("a client did not take our last words");
            writer.abort();
        }
    }
}

async fn write(
    mut sink: SplitSink<WebSocket, Message>,
    mut queue: mpsc::Receiver<Message>,
    bytes: Arc<AtomicUsize>,
    mut given_up: watch::Receiver<bool>,
) {
    while let Some(message) = queue.recv().await {
        let length = length(&message);
        tokio::select! {
            biased;
            _ = given_up.wait_for(|given_up| *given_up) => break,
            sent = sink.send(message) => {
                if sent.is_err() {
                    return;
                }
            }
        }
        bytes.fetch_sub(length, Ordering::Relaxed);
    }
    // Whoever reads again in time learns that it may come back.
    if *given_up.borrow() {
        let leave = lk::LeaveRequest {
            can_reconnect: true,
            reason: lk::DisconnectReason::SignalClose as i32,
            action: lk::leave_request::Action::Resume as i32,
            regions: None,
        };
        let message = Some(lk::signal_response::Message::Leave(leave));
        let bytes = lk::SignalResponse { message }.encode_to_vec();
        if sink.send(Message::Binary(bytes.into())).await.is_err() {
            return;
        }
        let close = CloseFrame { code: close_code::NORMAL, reason: "".into() };
        let _whether_or_not = sink.send(Message::Close(Some(close))).await;
    }
}

fn length(message: &Message) -> usize {
    match message {
        Message::Binary(bytes) | Message::Ping(bytes) | Message::Pong(bytes) => bytes.len(),
        Message::Text(text) => text.len(),
        Message::Close(_) => 0,
    }
}
