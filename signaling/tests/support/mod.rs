//! What the tests of the room door share: a scripted engine, a doorkeeper, and a client that
//! speaks WebSocket and plain HTTP.

#![allow(dead_code, reason = "each test file uses a part of it")]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE;
use bedside_sfu::core::api::{
    Command, Event, LeaveReason, NodeEvent, ParticipantInfo, ParticipantSid, ParticipantState,
    Private, Profile, Refusal, Request, RoomInfo, RoomKey, RoomSid, RoomSpec, SessionEvent,
    SessionKey, TrackInfo, TrackSid,
};
use bedside_signaling::engine::{Busy, Engine};
use bedside_signaling::rooms::{DoorRefusal, Doorkeeper, Fact, RoomPlan};
use bedside_signaling::token::{Claims, KeyPair, RoomToken, VideoGrant, issue};
use bedside_signaling::{Signaling, SignalingConfig};
use futures_util::future::BoxFuture;
use futures_util::{FutureExt as _, SinkExt as _, StreamExt as _};
use livekit_protocol as lk;
use livekit_protocol::signal_request::Message as Said;
use livekit_protocol::signal_response::Message as Tell;
use prost::Message as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio_tungstenite::tungstenite;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream};

pub(crate) fn keys() -> KeyPair {
    KeyPair { key: "devkey".into(), secret: Private::new("secret-of-the-test-0123456789".into()) }
}

pub(crate) fn token(identity: &str, grant: VideoGrant) -> String {
    let token = RoomToken {
        identity: Private::new(identity.into()),
        name: Private::new(identity.to_uppercase()),
        grant,
        ..RoomToken::default()
    };
    issue(&keys(), &token, Duration::from_secs(600), SystemTime::now())
}

/// Claims that [`issue`] does not write, signed.
pub(crate) fn sign(claims: &serde_json::Value) -> String {
    let key = jsonwebtoken::EncodingKey::from_secret(keys().secret.reveal().as_bytes());
    jsonwebtoken::encode(&jsonwebtoken::Header::default(), claims, &key).unwrap()
}

pub(crate) fn ward(identity: &str) -> String {
    token(identity, VideoGrant::join("ward"))
}

/// Lets in whom the test lets in.
#[derive(Default)]
pub(crate) struct Door {
    pub(crate) answer: Mutex<Option<Result<RoomPlan, DoorRefusal>>>,
    /// What an administrator is told who wants to make a room.
    pub(crate) made: Mutex<Option<Result<RoomPlan, DoorRefusal>>>,
}

impl Doorkeeper for Door {
    fn room<'a>(&'a self, _: &'a Claims) -> BoxFuture<'a, Result<RoomPlan, DoorRefusal>> {
        let answer = self.answer.lock().unwrap().clone();
        async move { answer.unwrap_or_else(|| Ok(RoomPlan::default())) }.boxed()
    }

    fn create<'a>(&'a self, _: &'a str) -> BoxFuture<'a, Result<RoomPlan, DoorRefusal>> {
        let answer = self.made.lock().unwrap().clone();
        async move { answer.unwrap_or_else(|| Ok(RoomPlan::default())) }.boxed()
    }
}

/// An engine that behaves as the contract says, without media.
#[derive(Clone)]
pub(crate) struct Script {
    state: Arc<Mutex<State>>,
    next: Arc<AtomicU64>,
    events: mpsc::Sender<Event>,
}

#[derive(Default)]
struct State {
    rooms: BTreeMap<RoomKey, BTreeMap<ParticipantSid, (ParticipantInfo, SessionKey)>>,
    log: Vec<Command>,
    silent: bool,
    busy: bool,
}

impl Engine for Script {
    fn mint_room(&self) -> RoomKey {
        RoomKey(self.next.fetch_add(1, Ordering::Relaxed))
    }

    fn mint_session(&self) -> SessionKey {
        SessionKey(self.next.fetch_add(1, Ordering::Relaxed))
    }

    fn send(&self, _: RoomKey, command: Command) -> Result<(), Busy> {
        let mut state = self.state.lock().unwrap();
        if state.busy {
            return Err(Busy);
        }
        state.log.push(command.clone());
        if !state.silent {
            for event in state.react(command) {
                self.events.try_send(event).unwrap();
            }
        }
        Ok(())
    }
}

impl Script {
    pub(crate) fn log(&self) -> Vec<Command> {
        self.state.lock().unwrap().log.clone()
    }

    pub(crate) fn be_silent(&self) {
        self.state.lock().unwrap().silent = true;
    }

    pub(crate) fn be_busy(&self, busy: bool) {
        self.state.lock().unwrap().busy = busy;
    }

    /// Forgets a room as if it had closed a moment ago and the event was still on its way.
    pub(crate) fn lose_rooms(&self) {
        self.state.lock().unwrap().rooms.clear();
    }

    pub(crate) fn emit(&self, event: Event) {
        self.events.try_send(event).unwrap();
    }

    /// Something for the newest session of somebody.
    pub(crate) fn to(&self, identity: &str, event: SessionEvent) {
        let state = self.state.lock().unwrap();
        let mut everyone = state.rooms.values().flat_map(BTreeMap::values);
        let session = everyone.find(|(info, _)| info.profile.identity.reveal() == identity);
        let session = session.expect("is in a room").1;
        self.events.try_send(Event::Session { session, event }).unwrap();
    }
}

impl State {
    fn react(&mut self, command: Command) -> Vec<Event> {
        match command {
            Command::OpenRoom(spec) => self.open(*spec),
            Command::Join(join) => {
                let Some(people) = self.rooms.get_mut(&join.room) else {
                    return vec![to(join.session, SessionEvent::Refused(Refusal::NoRoom))];
                };
                let mut events = Vec::new();
                let same = |info: &ParticipantInfo| info.profile.identity == join.profile.identity;
                let old = people.values().find(|(info, _)| same(info)).cloned();
                if let Some((info, session)) = old {
                    people.remove(&info.sid);
                    let reason = LeaveReason::DuplicateIdentity;
                    events.push(to(session, SessionEvent::Left { reason, resume: false }));
                    events.push(gone(join.room, info, reason));
                }
                let me = info(join.session, join.profile, join.grant);
                let others = people.values().map(|(info, _)| info.clone()).collect();
                let others: Vec<ParticipantInfo> = others;
                people.insert(me.sid.clone(), (me.clone(), join.session));
                let room = room_info(join.room, people.len());
                let fact = NodeEvent::Participant { info: me.clone() };
                let told = people.values().filter(|(info, _)| info.sid != me.sid);
                let update = |s: &SessionKey| to(*s, SessionEvent::Participants(vec![me.clone()]));
                events.extend(told.map(|(_, session)| update(session)));
                events.push(to(join.session, SessionEvent::Joined { room, me, others }));
                events.push(Event::Node { room: join.room, event: fact });
                events
            }
            Command::Resume(resume) => {
                let people = self.rooms.entry(resume.room).or_default();
                let Some(seat) = people.get_mut(&resume.participant) else {
                    return vec![to(resume.session, SessionEvent::Refused(Refusal::NoParticipant))];
                };
                seat.1 = resume.session;
                let participants = people.values().map(|(info, _)| info.clone()).collect();
                let room = room_info(resume.room, people.len());
                let event = SessionEvent::Resumed { last_data_sequence: 3, room, participants };
                vec![to(resume.session, event)]
            }
            Command::Request { session, request } => self.request(session, request),
            Command::Remove { room, identity, reason } => {
                let Some(people) = self.rooms.get_mut(&room) else { return Vec::new() };
                let who = people.values().find(|(info, _)| info.profile.identity == identity);
                let Some((info, session)) = who.cloned() else { return Vec::new() };
                people.remove(&info.sid);
                let left = SessionEvent::Left { reason, resume: false };
                vec![to(session, left), gone(room, info, reason)]
            }
            Command::CloseRoom { room, reason } => {
                let people = self.rooms.remove(&room).unwrap_or_default();
                let left = SessionEvent::Left { reason, resume: false };
                let told = people.values().map(|(_, session)| to(*session, left.clone()));
                let mut events: Vec<_> = told.collect();
                events.push(Event::Node { room, event: NodeEvent::RoomFinished { reason } });
                events
            }
            Command::Confirm { room, number } => {
                vec![Event::Node { room, event: NodeEvent::Confirmed { number } }]
            }
            _ => Vec::new(),
        }
    }

    fn open(&mut self, spec: RoomSpec) -> Vec<Event> {
        let room = spec.room;
        let is_new = self.rooms.insert(room, self.rooms.get(&room).cloned().unwrap_or_default());
        let info = RoomInfo {
            name: spec.name,
            metadata: spec.metadata,
            max_participants: spec.max_participants,
            empty_timeout: spec.empty_timeout,
            departure_timeout: spec.departure_timeout,
            publishers: 0,
            ..room_info(room, 0)
        };
        let event = match is_new {
            None => NodeEvent::RoomStarted { info },
            Some(_) => NodeEvent::RoomChanged { info },
        };
        vec![Event::Node { room, event }]
    }

    fn request(&mut self, session: SessionKey, request: Request) -> Vec<Event> {
        match request {
            Request::Offer { id, sdp } => {
                let mid_to_track = vec![("0".to_owned(), TrackSid("TR_AM1".into()))];
                let sdp = format!("answer to {sdp}");
                vec![to(session, SessionEvent::Answer { id, sdp, mid_to_track })]
            }
            Request::AddTrack(announced) => {
                let track = TrackInfo {
                    sid: TrackSid("TR_VC1".into()),
                    muted: announced.muted,
                    mid: String::new(),
                    mime_type: String::new(),
                    simulcast: false,
                    announced: *announced.clone(),
                };
                vec![to(session, SessionEvent::TrackPublished { cid: announced.cid, track })]
            }
            Request::UpdateProfile { request_id, .. } => {
                vec![to(session, SessionEvent::ProfileUpdated { request_id, refusal: None })]
            }
            Request::Leave => {
                let mut events = Vec::new();
                for (room, people) in &mut self.rooms {
                    let who = people.values().find(|(_, of)| *of == session).cloned();
                    if let Some((info, _)) = who {
                        people.remove(&info.sid);
                        events.push(gone(*room, info, LeaveReason::ClientInitiated));
                    }
                }
                events
            }
            _ => Vec::new(),
        }
    }
}

fn to(session: SessionKey, event: SessionEvent) -> Event {
    Event::Session { session, event }
}

fn gone(room: RoomKey, mut info: ParticipantInfo, reason: LeaveReason) -> Event {
    info.state = ParticipantState::Disconnected(reason);
    Event::Node { room, event: NodeEvent::Participant { info } }
}

fn info(
    session: SessionKey,
    profile: Profile,
    grant: bedside_sfu::core::api::Grant,
) -> ParticipantInfo {
    ParticipantInfo {
        sid: ParticipantSid(format!("PA_{}", session.0).into()),
        profile: Arc::new(profile),
        grant,
        state: ParticipantState::Joined,
        tracks: Vec::new(),
        data_tracks: Vec::new(),
        joined_at_ms: 1,
        version: 1,
    }
}

pub(crate) fn room_info(room: RoomKey, participants: usize) -> RoomInfo {
    RoomInfo {
        sid: RoomSid(format!("RM_{}", room.0).into()),
        name: Private::new("ward".into()),
        metadata: Private::default(),
        max_participants: 0,
        created_at_ms: 1,
        participants: u32::try_from(participants).unwrap(),
        publishers: 1,
        empty_timeout: Some(Duration::from_secs(300)),
        departure_timeout: Some(Duration::from_secs(20)),
        recording: false,
    }
}

/// A door on a free port.
pub(crate) struct House {
    pub(crate) address: SocketAddr,
    pub(crate) engine: Script,
    pub(crate) door: Arc<Door>,
    pub(crate) signaling: Signaling,
    pub(crate) facts: mpsc::Receiver<Fact>,
}

impl House {
    pub(crate) async fn open() -> Self {
        Self::with(|_| {}).await
    }

    pub(crate) async fn with(change: impl FnOnce(&mut SignalingConfig)) -> Self {
        let mut config = SignalingConfig { keys: vec![keys()], ..SignalingConfig::default() };
        change(&mut config);
        let (events, to_read) = mpsc::channel(10_000);
        let (facts, to_keep) = mpsc::channel(1_000);
        let engine = Script { state: Arc::default(), next: Arc::new(AtomicU64::new(1)), events };
        let door = Arc::new(Door::default());
        let keeper: Arc<dyn Doorkeeper> = Arc::clone(&door) as _;
        let signaling = Signaling::new(config, engine.clone(), keeper, facts);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let router = signaling.router();
        tokio::spawn(async move { axum::serve(listener, router).await });
        tokio::spawn(signaling.clone().run(to_read));
        Self { address, engine, door, signaling, facts: to_keep }
    }

    /// A GET without upgrade: status line, head, body.
    pub(crate) async fn get(&self, path: &str, headers: &str) -> (u16, String, String) {
        self.http("GET", path, headers).await
    }

    pub(crate) async fn http(
        &self,
        method: &str,
        path: &str,
        headers: &str,
    ) -> (u16, String, String) {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        let head =
            format!("{method} {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n{headers}\r\n");
        stream.write_all(head.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        (status, head.to_lowercase(), body.to_owned())
    }

    pub(crate) async fn connect(&self, token: &str, join: &lk::JoinRequest) -> Result<Client, u16> {
        connect(self.address, token, join).await
    }

    pub(crate) async fn connect_at(&self, path: &str) -> Result<Client, u16> {
        connect_at(self.address, path).await
    }

    /// A client that has joined.
    pub(crate) async fn join(&self, identity: &str) -> (Client, lk::JoinResponse) {
        let mut client = self.connect(&ward(identity), &join_request()).await.unwrap();
        let Tell::Join(join) = client.next().await else { panic!("no join first") };
        let Tell::RefreshToken(_) = client.next().await else { panic!("no token second") };
        (client, join)
    }
}

/// A WebSocket client at the door, or the status that it was refused with.
pub(crate) async fn connect(
    address: SocketAddr,
    token: &str,
    join: &lk::JoinRequest,
) -> Result<Client, u16> {
    let join = wrap(join);
    connect_at(address, &format!("/rtc/v1?access_token={token}&join_request={join}")).await
}

/// A WebSocket client at any door.
pub(crate) async fn connect_at(address: SocketAddr, path: &str) -> Result<Client, u16> {
    let url = format!("ws://{address}{path}");
    match tokio_tungstenite::connect_async(url).await {
        Ok((socket, _)) => Ok(Client { socket }),
        Err(tungstenite::Error::Http(response)) => Err(response.status().as_u16()),
        Err(error) => panic!("{error}"),
    }
}

pub(crate) fn join_request() -> lk::JoinRequest {
    lk::JoinRequest {
        client_info: Some(lk::ClientInfo { protocol: 17, ..lk::ClientInfo::default() }),
        connection_settings: Some(lk::ConnectionSettings {
            auto_subscribe: true,
            ..Default::default()
        }),
        ..lk::JoinRequest::default()
    }
}

pub(crate) fn resume_request(participant: &str) -> lk::JoinRequest {
    lk::JoinRequest { reconnect: true, participant_sid: participant.into(), ..join_request() }
}

pub(crate) fn wrap(join: &lk::JoinRequest) -> String {
    let wrapped = lk::WrappedJoinRequest { compression: 0, join_request: join.encode_to_vec() };
    URL_SAFE.encode(wrapped.encode_to_vec())
}

/// One WebSocket client.
pub(crate) struct Client {
    pub(crate) socket: WebSocketStream<MaybeTlsStream<TcpStream>>,
}

impl Client {
    pub(crate) async fn say(&mut self, message: Said) {
        let bytes = lk::SignalRequest { message: Some(message) }.encode_to_vec();
        self.frame(tungstenite::Message::Binary(bytes.into())).await;
    }

    pub(crate) async fn frame(&mut self, frame: tungstenite::Message) {
        self.socket.send(frame).await.unwrap();
    }

    /// The next message of the protocol.
    pub(crate) async fn next(&mut self) -> Tell {
        match self.message().await {
            Ok(message) => message,
            Err(code) => panic!("closed with {code:?}"),
        }
    }

    /// The next message, or the close code.
    pub(crate) async fn message(&mut self) -> Result<Tell, Option<u16>> {
        let wait = Duration::from_secs(10);
        loop {
            let frame = tokio::time::timeout(wait, self.socket.next()).await.expect("in time");
            match frame {
                Some(Ok(tungstenite::Message::Binary(bytes))) => {
                    let response = lk::SignalResponse::decode(&bytes[..]).unwrap();
                    return Ok(response.message.unwrap());
                }
                Some(Ok(tungstenite::Message::Close(frame))) => {
                    return Err(frame.map(|frame| frame.code.into()));
                }
                Some(Ok(_)) => {}
                Some(Err(_)) | None => return Err(None),
            }
        }
    }

    /// Reads on until a message fits.
    pub(crate) async fn until<T>(&mut self, fits: impl Fn(Tell) -> Option<T>) -> T {
        loop {
            if let Some(found) = fits(self.next().await) {
                return found;
            }
        }
    }

    /// Expects a leave and the close behind it: reason, action, close code.
    pub(crate) async fn leave(&mut self) -> (i32, i32, Option<u16>) {
        let leave = self.until(|message| match message {
            Tell::Leave(leave) => Some(leave),
            _ => None,
        });
        let leave = leave.await;
        (leave.reason, leave.action, self.message().await.unwrap_err())
    }
}
