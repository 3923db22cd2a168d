//! One signal session as a pure state machine: what the client says and what the engine tells go
//! in; requests, messages and the end come out. Time is an argument.
//!
//! ```text
//! Waiting ──Joined | Resumed──▶ Open ──leave, Left, silence, too much──▶ Ended
//!    └────────Refused, no answer in time────────────────────────────────▶
//! ```
//!
//! The rule that keeps clients alive: the first message is `join`, `reconnect` or `leave`, and
//! nothing comes before it. A message that is not understood is counted and answered where the
//! protocol has an answer for it; it never ends the session by itself.

mod said;
mod told;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bedside_sfu::core::api::{
    Grant, LeaveReason, ParticipantInfo, ParticipantSid, ParticipantState, Profile, Refusal,
    Request, RoomInfo, SessionEvent,
};
use livekit_protocol as lk;
use livekit_protocol::request_response::{self, Reason};
use livekit_protocol::signal_response::Message as Tell;
use prost::Message as _;

use crate::limits::{self, Pace};
use crate::livekit::{convert, validate};

/// Our version as clients see it. They compare it with versions of another server and change how
/// they publish above 1.13.6, so it is plain and low.
pub const SERVER_VERSION: &str = "1.9.0";
/// The signal protocol that we speak.
pub const PROTOCOL: i32 = 17;

/// How long the engine may take to answer a join. Clients wait 5 s for the first message.
const FIRST_ANSWER: Duration = Duration::from_secs(4);
/// Between WebSocket pings.
const PING: Duration = Duration::from_secs(10);
/// A client that was not heard of this long is gone. (Pongs count.)
const SILENCE: Duration = Duration::from_secs(35);
/// Between fresh tokens.
const FRESH_TOKEN: Duration = Duration::from_secs(300);

/// What a session starts with.
#[derive(Clone, Debug, Default)]
pub struct Opening {
    /// Comes back to this participant instead of joining.
    pub resume: Option<ParticipantSid>,
    /// Tracks announced within the join.
    pub add_tracks: Vec<lk::AddTrackRequest>,
    /// The offer that came within the join.
    pub offer: Option<lk::SessionDescription>,
    /// What the client believes, where it came within the resume.
    pub sync_state: Option<lk::SyncState>,
    /// Seconds between a client's pings.
    pub ping_interval: i32,
    /// Seconds after which a client gives up.
    pub ping_timeout: i32,
    /// Serve `simulate`.
    pub simulate: bool,
    /// The client receives on a connection of its own, which we offer.
    pub two_connections: bool,
    /// Wall clock at the start, milliseconds since 1970.
    pub wall_ms: i64,
}

/// What the owner of the session must do.
#[derive(Clone, Debug)]
pub enum Output {
    /// Send this to the engine.
    Ask(Request),
    /// Send this to the client.
    Tell(Box<lk::SignalResponse>),
    /// Sign a token with these rights and send it as `refresh_token`.
    FreshToken(Arc<Profile>, Grant),
    /// The session speaks for this participant now.
    Speaks(ParticipantSid),
    /// The participant's media is up.
    Active,
    /// Send a WebSocket ping.
    Ping,
    /// Count this.
    Count(Tally),
    /// Close the connection after everything before was sent.
    End,
}

/// What a session counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tally {
    /// Not a message of the protocol.
    Malformed,
    /// A kind of message that is not known or not served.
    Unknown,
    /// Too large or too many.
    OverLimit,
    /// A text frame.
    TextFrame,
    /// The client fell silent.
    Silent,
    /// A `join` was held back.
    InvalidJoin,
    /// A join succeeded.
    Joined,
    /// A resume succeeded.
    Resumed,
    /// A resume found no participant.
    ResumeUnknown,
}

/// The state of one session.
#[derive(Debug)]
pub struct Session {
    opening: Opening,
    /// STUN and TURN servers to tell.
    ice_servers: Vec<lk::IceServer>,
    started: Instant,
    stage: Stage,
    outputs: VecDeque<Output>,
    pace: Pace,
    heard: Instant,
    next_ping: Instant,
    malformed: u32,
    /// Announced tracks without an answer yet.
    pending_tracks: usize,
    /// Profile changes without an answer yet, to echo.
    pending_updates: BTreeMap<u32, lk::UpdateParticipantMetadata>,
}

#[derive(Debug)]
enum Stage {
    /// The engine has not answered yet.
    Waiting,
    Open(Open),
    Ended,
}

/// What an open session knows of its participant.
#[derive(Debug)]
struct Open {
    sid: ParticipantSid,
    profile: Arc<Profile>,
    grant: Grant,
    active: bool,
    next_token: Instant,
}

impl Session {
    /// A session whose join or resume was just handed to the engine.
    pub fn new(now: Instant, opening: Opening) -> Self {
        Self {
            opening,
            started: now,
            ice_servers: Vec::new(),
            stage: Stage::Waiting,
            outputs: VecDeque::new(),
            pace: Pace::new(now),
            heard: now,
            next_ping: now + PING,
            malformed: 0,
            pending_tracks: 0,
            pending_updates: BTreeMap::new(),
        }
    }

    /// The participant that it comes back to.
    pub const fn resumes(&self) -> Option<&ParticipantSid> {
        self.opening.resume.as_ref()
    }

    /// What the first message is to say of STUN and TURN. Their credentials name the participant,
    /// which is known only when the engine has answered.
    pub fn tell_ice_servers(&mut self, servers: Vec<lk::IceServer>) {
        self.ice_servers = servers;
    }

    /// The next thing to do.
    pub fn poll(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// When [`Session::handle_timeout`] wants to be called.
    pub fn poll_timeout(&self) -> Option<Instant> {
        match &self.stage {
            Stage::Waiting => Some(self.started + FIRST_ANSWER),
            Stage::Open(open) => {
                Some(self.next_ping.min(open.next_token).min(self.heard + SILENCE))
            }
            Stage::Ended => None,
        }
    }

    /// `Some`: the client sends too fast; read from it again at that instant.
    pub fn read_again_at(&self, now: Instant) -> Option<Instant> {
        self.pace.wait_until(now)
    }

    /// The session has ended; only what [`Session::poll`] still holds is left to do.
    pub fn is_ended(&self) -> bool {
        matches!(self.stage, Stage::Ended)
    }

    /// Anything came from the client, a pong for example.
    pub fn handle_heard(&mut self, now: Instant) {
        self.heard = now;
    }

    /// A binary frame came from the client.
    pub fn handle_message(&mut self, now: Instant, bytes: &[u8]) {
        self.heard = now;
        self.pace.take(now);
        match lk::SignalRequest::decode(bytes) {
            Ok(lk::SignalRequest { message: Some(message) }) => match self.stage {
                Stage::Open(_) => self.said(now, message),
                // Nothing can be meant before the first message of ours.
                Stage::Waiting => self.count(Tally::Unknown),
                Stage::Ended => {}
            },
            Ok(lk::SignalRequest { message: None }) => self.count(Tally::Unknown),
            Err(_) => {
                self.malformed += 1;
                self.count(Tally::Malformed);
                if self.malformed >= limits::MALFORMED {
                    self.leave(LeaveReason::StateMismatch, lk::leave_request::Action::Disconnect);
                }
            }
        }
    }

    /// A text frame came from the client. The protocol has a JSON form that no SDK uses.
    pub fn handle_text(&mut self, now: Instant) {
        self.heard = now;
        self.pace.take(now);
        self.count(Tally::TextFrame);
        if matches!(self.stage, Stage::Open(_)) {
            self.respond(0, Reason::UnsupportedType, "binary frames only", None);
        }
    }

    /// The engine told something.
    pub fn handle_event(&mut self, now: Instant, event: SessionEvent) {
        match (&self.stage, event) {
            (Stage::Ended, _) => {}
            (Stage::Waiting, SessionEvent::Joined { room, me, others }) => {
                self.joined(now, &room, me, &others);
            }
            (Stage::Waiting, SessionEvent::Resumed { last_data_sequence, room, participants }) => {
                self.resumed(now, last_data_sequence, &room, &participants);
            }
            (Stage::Waiting, SessionEvent::Refused(refusal)) => self.refused(refusal),
            (_, SessionEvent::Left { reason, resume }) => {
                self.leave(reason, convert::leave_action(reason, resume));
            }
            // The engine's first event is one of the above.
            (Stage::Waiting, _) => {}
            (Stage::Open(_), event) => self.told(event),
        }
    }

    /// The instant of [`Session::poll_timeout`] has come.
    pub fn handle_timeout(&mut self, now: Instant) {
        match &mut self.stage {
            Stage::Waiting if now >= self.started + FIRST_ANSWER => {
                self.leave(LeaveReason::JoinFailure, lk::leave_request::Action::Reconnect);
            }
            Stage::Open(_) if now >= self.heard + SILENCE => {
                self.count(Tally::Silent);
                self.end();
            }
            Stage::Open(open) => {
                if now >= open.next_token {
                    open.next_token = now + FRESH_TOKEN;
                    self.fresh_token();
                }
                if now >= self.next_ping {
                    self.next_ping = now + PING;
                    self.outputs.push_back(Output::Ping);
                }
            }
            Stage::Waiting | Stage::Ended => {}
        }
    }

    /// Ends the session; the client may come back to its participant.
    pub fn cut(&mut self) {
        self.leave(LeaveReason::ConnectionTimeout, lk::leave_request::Action::Resume);
    }

    /// Ends the session because the engine takes nothing now; the client joins again.
    pub fn busy(&mut self) {
        self.leave(LeaveReason::JoinFailure, lk::leave_request::Action::Reconnect);
    }

    /// Ends the session because the server stops.
    pub fn shut_down(&mut self) {
        self.leave(LeaveReason::ServerShutdown, lk::leave_request::Action::Disconnect);
    }

    /// Ends the session without a word.
    pub fn end(&mut self) {
        if !self.is_ended() {
            self.stage = Stage::Ended;
            self.outputs.push_back(Output::End);
        }
    }

    fn joined(
        &mut self,
        now: Instant,
        room: &RoomInfo,
        me: ParticipantInfo,
        others: &[ParticipantInfo],
    ) {
        let join = lk::JoinResponse {
            room: Some(convert::room(room)),
            participant: Some(convert::participant(&me)),
            other_participants: others.iter().map(convert::participant).collect(),
            ice_servers: std::mem::take(&mut self.ice_servers),
            ping_interval: self.opening.ping_interval,
            ping_timeout: self.opening.ping_timeout,
            server_version: SERVER_VERSION.into(),
            server_info: Some(server_info()),
            // The connection that it receives on is always there, as data comes on it too; the other
            // one may wait until there is something to publish.
            subscriber_primary: self.opening.two_connections,
            fast_publish: self.opening.two_connections
                && (me.grant.publish || me.grant.publish_data),
            ..lk::JoinResponse::default()
        };
        if validate::join(&join).is_err() {
            self.count(Tally::InvalidJoin);
            self.ask(Request::Leave);
            self.leave(LeaveReason::JoinFailure, lk::leave_request::Action::Disconnect);
            return;
        }
        self.open(now, me);
        self.count(Tally::Joined);
        self.tell(Tell::Join(join));
        self.fresh_token();
        // Announcements first: the offer refers to them.
        for request in std::mem::take(&mut self.opening.add_tracks) {
            self.add_track(request);
        }
        if let Some(offer) = self.opening.offer.take() {
            self.offer(offer);
        }
    }

    fn resumed(
        &mut self,
        now: Instant,
        last_message_seq: u32,
        room: &RoomInfo,
        participants: &[ParticipantInfo],
    ) {
        let is_me = |info: &&ParticipantInfo| Some(&info.sid) == self.opening.resume.as_ref();
        let Some(me) = participants.iter().find(is_me) else {
            self.leave(LeaveReason::StateMismatch, lk::leave_request::Action::Reconnect);
            return;
        };
        self.open(now, me.clone());
        self.count(Tally::Resumed);
        let ice_servers = std::mem::take(&mut self.ice_servers);
        self.tell(Tell::Reconnect(lk::ReconnectResponse {
            ice_servers,
            server_info: Some(server_info()),
            last_message_seq,
            ..lk::ReconnectResponse::default()
        }));
        self.update(participants);
        self.tell(Tell::RoomUpdate(lk::RoomUpdate { room: Some(convert::room(room)) }));
        self.fresh_token();
        if let Some(state) = self.opening.sync_state.take() {
            self.synchronise(state);
        }
        if let Some(offer) = self.opening.offer.take() {
            self.offer(offer);
        }
    }

    fn open(&mut self, now: Instant, me: ParticipantInfo) {
        self.outputs.push_back(Output::Speaks(me.sid.clone()));
        self.next_ping = now + PING;
        self.heard = now;
        self.stage = Stage::Open(Open {
            sid: me.sid,
            profile: me.profile,
            grant: me.grant,
            active: me.state == ParticipantState::Active,
            next_token: now + FRESH_TOKEN,
        });
    }

    fn refused(&mut self, refusal: Refusal) {
        use lk::leave_request::Action;
        let (reason, action) = match refusal {
            Refusal::NoRoom | Refusal::NoParticipant if self.opening.resume.is_some() => {
                self.count(Tally::ResumeUnknown);
                (LeaveReason::StateMismatch, Action::Reconnect)
            }
            Refusal::NotAllowed if self.opening.resume.is_some() => {
                (LeaveReason::ParticipantRemoved, Action::Disconnect)
            }
            Refusal::NoRoom
            | Refusal::NoParticipant
            | Refusal::RoomFull
            | Refusal::NotAllowed
            | Refusal::NoTrack
            | Refusal::LimitExceeded
            | Refusal::BadOffer
            | Refusal::Draining
            | Refusal::Encrypted
            | Refusal::InvalidHandle
            | Refusal::DuplicateHandle
            | Refusal::InvalidName
            | Refusal::DuplicateName => (LeaveReason::JoinFailure, Action::Disconnect),
        };
        self.leave(reason, action);
    }

    /// Tells the client to leave, and ends. Nothing follows a leave.
    fn leave(&mut self, reason: LeaveReason, action: lk::leave_request::Action) {
        if self.is_ended() {
            return;
        }
        self.tell(Tell::Leave(lk::LeaveRequest {
            can_reconnect: action != lk::leave_request::Action::Disconnect,
            reason: convert::disconnect_reason(reason) as i32,
            action: action as i32,
            regions: None,
        }));
        self.end();
    }

    fn update(&mut self, participants: &[ParticipantInfo]) {
        for some in participants.chunks(limits::UPDATE_CHUNK) {
            let participants = some.iter().map(convert::participant).collect();
            self.tell(Tell::Update(lk::ParticipantUpdate { participants }));
        }
    }

    fn respond(
        &mut self,
        request_id: u32,
        reason: Reason,
        message: &str,
        request: Option<request_response::Request>,
    ) {
        self.tell(Tell::RequestResponse(lk::RequestResponse {
            request_id,
            reason: reason as i32,
            message: message.into(),
            request,
        }));
    }

    fn fresh_token(&mut self) {
        if let Stage::Open(open) = &self.stage {
            let fresh = Output::FreshToken(Arc::clone(&open.profile), open.grant.clone());
            self.outputs.push_back(fresh);
        }
    }

    fn tell(&mut self, message: Tell) {
        let message = Box::new(lk::SignalResponse { message: Some(message) });
        self.outputs.push_back(Output::Tell(message));
    }

    fn ask(&mut self, request: Request) {
        self.outputs.push_back(Output::Ask(request));
    }

    fn count(&mut self, tally: Tally) {
        self.outputs.push_back(Output::Count(tally));
    }

    fn wall_ms(&self, now: Instant) -> i64 {
        let since = now.saturating_duration_since(self.started).as_millis();
        self.opening.wall_ms.saturating_add(i64::try_from(since).unwrap_or(i64::MAX))
    }
}

fn server_info() -> lk::ServerInfo {
    lk::ServerInfo {
        version: SERVER_VERSION.into(),
        protocol: PROTOCOL,
        ..lk::ServerInfo::default()
    }
}

#[cfg(test)]
mod tests;
