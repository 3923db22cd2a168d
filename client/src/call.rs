//! The task behind a participant: signal connection, media, commands and time, one after the other.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bedside_sfu::core::Rng;
use bedside_sfu::core::api::{MediaKind, Private};
use bedside_sfu::core::peer::{Identity, PeerEvent};
use livekit_protocol as proto;
use proto::leave_request::Action;
use proto::signal_request::Message as Request;
use proto::signal_response::Message as Response;
use rand::{Rng as _, SeedableRng as _};
use tokio::sync::{mpsc, watch};
use tokio::time::{sleep_until, timeout};

use crate::data::Data;
use crate::participant::{Command, ConnectError, ConnectOptions, LeaveCause, ParticipantEvent};
use crate::session::{Session, identity};
use crate::signal::{Signal, SignalError, SignalEvent};
use crate::stats::Stats;
use crate::wire::readable;

/// The whole of a join, from the first byte to the server's answer.
const JOIN_TIMEOUT: Duration = Duration::from_secs(10);
/// How long an open connection may take to answer a join or a resume.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a `leave` may take to follow the end of the media transport.
const LAST_WORD: Duration = Duration::from_secs(1);
/// Waits before each attempt to come back; after the last one the participant gives up.
const RETRIES_MS: [u64; 10] = [0, 300, 1200, 2700, 4800, 7000, 7000, 7000, 7000, 7000];
/// How old a snapshot of the counts may be.
const STATS_INTERVAL: Duration = Duration::from_millis(200);
/// How long a goodbye may take to be written.
const GOODBYE: Duration = Duration::from_millis(500);

/// Where the signal connection stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// A join was sent.
    Joining,
    /// A resume was sent.
    Resuming,
    /// In the room.
    Present,
}

enum Turn {
    Signal(SignalEvent),
    Command(Option<Command>),
    Datagrams,
    Time,
}

/// One participant's task.
pub(crate) struct Call {
    options: ConnectOptions,
    commands: mpsc::Receiver<Command>,
    events: mpsc::Sender<ParticipantEvent>,
    publish_stats: watch::Sender<Stats>,
    stats: Stats,
    stats_at: Instant,
    rng: Rng,
    identity: Arc<Identity>,
    session: Session,
    data: Data,
    signal: Signal,
    phase: Phase,
    /// When the join or resume that was sent is given up.
    answer_by: Option<Instant>,
    /// Attempts to come back so far, and when the next one is due.
    retry: Option<(usize, Instant)>,
    /// The presence is lost on the server: come back by a full join.
    rejoin: bool,
    ping_interval: Duration,
    ping_timeout: Duration,
    ping_at: Instant,
    heard_at: Instant,
    round_trip_ms: i64,
    ended: Option<LeaveCause>,
    refused: Option<ConnectError>,
    /// Until when the socket is left alone.
    rests_until: Instant,
}

impl Call {
    pub(crate) fn new(
        options: ConnectOptions,
        commands: mpsc::Receiver<Command>,
        events: mpsc::Sender<ParticipantEvent>,
        publish_stats: watch::Sender<Stats>,
    ) -> Result<Self, ConnectError> {
        let now = Instant::now();
        let mut rng = Rng::from_seed(rand::random());
        let identity = identity()?;
        let session = Session::new(now, identity.clone(), &options, &mut rng);
        let mut call = Self {
            options,
            commands,
            events,
            publish_stats,
            stats: Stats::default(),
            stats_at: now,
            rng,
            identity,
            session,
            data: Data::default(),
            signal: Signal::closed(),
            phase: Phase::Joining,
            answer_by: None,
            retry: None,
            rejoin: false,
            ping_interval: Duration::from_secs(5),
            ping_timeout: Duration::from_secs(15),
            ping_at: now,
            heard_at: now,
            round_trip_ms: 0,
            ended: None,
            refused: None,
            rests_until: now,
        };
        call.open(now);
        Ok(call)
    }

    /// Runs until the server has let the participant in.
    pub(crate) async fn join(&mut self) -> Result<(), ConnectError> {
        let joined = timeout(JOIN_TIMEOUT, async {
            while self.phase != Phase::Present && self.ended.is_none() && self.refused.is_none() {
                self.turn().await;
            }
        });
        joined.await.map_err(|_| ConnectError::TimedOut)?;
        match (self.refused.take(), self.ended) {
            (Some(error), _) => Err(error),
            (None, Some(LeaveCause::Server(reason))) => Err(ConnectError::Refused(reason)),
            (None, Some(LeaveCause::Asked | LeaveCause::Unreachable)) => {
                Err(ConnectError::TimedOut)
            }
            (None, None) => Ok(()),
        }
    }

    /// Runs until the end.
    pub(crate) async fn run(mut self) {
        while self.ended.is_none() {
            self.turn().await;
        }
        let now = Instant::now();
        if let Some(peer) = &mut self.session.wire.peer {
            peer.close(now);
        }
        self.session.wire.flush();
        self.signal.flush(GOODBYE).await;
        self.publish_stats(now);
        if let Some(cause) = self.ended {
            let _ = timeout(GOODBYE, self.events.send(ParticipantEvent::Left(cause))).await;
        }
    }

    /// Waits for the next thing to happen and deals with it.
    async fn turn(&mut self) {
        let rests = Instant::now() < self.rests_until;
        let deadline = self.deadline();
        let deadline = if rests { deadline.min(self.rests_until) } else { deadline };
        let turn = tokio::select! {
            event = self.signal.next() => Turn::Signal(event),
            command = self.commands.recv() => Turn::Command(command),
            () = readable(self.session.wire.socket()), if !rests => Turn::Datagrams,
            () = sleep_until(deadline.into()) => Turn::Time,
        };
        let now = Instant::now();
        match turn {
            Turn::Signal(SignalEvent::Message(message)) => self.message(now, *message),
            Turn::Signal(SignalEvent::Lost(error)) => self.lost(now, error),
            Turn::Command(Some(command)) => self.command(now, command),
            Turn::Command(None) => self.command(now, Command::Leave),
            Turn::Datagrams => {
                self.session.receive(now);
                self.rests_until = now + self.options.rest;
            }
            Turn::Time => {}
        }
        self.session.tick(now);
        while let Some(event) = self.session.peer_event() {
            self.peer_event(now, event);
        }
        self.session.wire.flush();
        self.clock(now);
        self.negotiate();
    }

    fn deadline(&self) -> Instant {
        let session = self.session.due();
        let retry = self.retry.map(|(_, at)| at);
        let ping = self.signal.is_open().then_some(self.ping_at);
        let due = session.into_iter().chain(retry).chain(ping).chain(self.answer_by);
        due.fold(self.stats_at, Instant::min)
    }

    /// What time alone brings.
    fn clock(&mut self, now: Instant) {
        if self.stats_at <= now {
            // Nobody reads those of a load so often, and they are copied each time.
            let times = if self.options.ear.is_some() { 5 } else { 1 };
            self.stats_at = now + STATS_INTERVAL * times;
            self.publish_stats(now);
        }
        if self.retry.is_some_and(|(_, at)| at <= now) {
            self.open(now);
        }
        if self.answer_by.is_some_and(|by| by <= now) {
            self.lost(now, SignalError::TimedOut);
        }
        if self.phase != Phase::Present || !self.signal.is_open() {
            return;
        }
        if now.saturating_duration_since(self.heard_at) > self.ping_timeout {
            self.lost(now, SignalError::TimedOut);
        } else if self.ping_at <= now {
            self.ping_at = now + self.ping_interval;
            let ping = proto::Ping { timestamp: unix_ms(), rtt: self.round_trip_ms };
            self.signal.send(Request::PingReq(ping));
        }
    }

    /// Opens a signal connection: for a join, or for a resume of this presence.
    fn open(&mut self, now: Instant) {
        if self.rejoin {
            self.rejoin = false;
            self.stats.rejoins += 1;
            self.session.media.end_all(now);
            let identity = self.identity.clone();
            self.session = Session::new(now, identity, &self.options, &mut self.rng);
            self.data.restart();
        }
        if let Some((attempts, at)) = &mut self.retry {
            *attempts += 1;
            // Only a failure sets the next attempt; this one has its own time limit.
            *at = now + JOIN_TIMEOUT * 2;
        }
        let mut request = proto::JoinRequest {
            client_info: Some(proto::ClientInfo {
                // Nothing that a server would make allowances for: all that it offers is read.
                sdk: proto::client_info::Sdk::Rust.into(),
                version: env!("CARGO_PKG_VERSION").to_owned(),
                protocol: 17,
                os: std::env::consts::OS.to_owned(),
                ..Default::default()
            }),
            connection_settings: Some(proto::ConnectionSettings {
                auto_subscribe: self.options.subscribe,
                ..Default::default()
            }),
            ..Default::default()
        };
        if self.session.sid.is_empty() {
            self.phase = Phase::Joining;
            // An offer of an attempt that failed is made again.
            self.session.negotiation.forget();
            self.session.negotiation.want();
            request.publisher_offer = self.session.offer();
        } else {
            self.phase = Phase::Resuming;
            request.reconnect = true;
            request.reconnect_reason = proto::ReconnectReason::RrSignalDisconnected.into();
            request.participant_sid.clone_from(&self.session.sid);
        }
        self.answer_by = Some(now + ANSWER_TIMEOUT * 2);
        self.signal = Signal::open(&self.options.url, &self.options.token, &request);
    }

    /// The signal connection is gone, or of no use.
    fn lost(&mut self, now: Instant, error: SignalError) {
        self.signal = Signal::closed();
        self.answer_by = None;
        if self.phase == Phase::Joining && self.retry.is_none() && self.stats.rejoins == 0 {
            self.refused = Some(ConnectError::Signal(error));
            return;
        }
        tracing::debug!(%error, "signal connection lost");
        // A refused resume is not worth another try; a full join may be.
        self.rejoin |= matches!(error, SignalError::Refused(_)) && self.phase == Phase::Resuming;
        let attempts = match self.retry {
            Some((attempts, _)) => attempts,
            None => {
                self.tell(ParticipantEvent::Reconnecting);
                0
            }
        };
        let Some(wait) = RETRIES_MS.get(attempts) else {
            self.ended = Some(LeaveCause::Unreachable);
            return;
        };
        let jitter = u64::from(self.rng.next_u32() % 200);
        self.retry = Some((attempts, now + Duration::from_millis(wait + jitter)));
        self.phase = Phase::Resuming;
    }

    fn message(&mut self, now: Instant, message: Response) {
        self.heard_at = now;
        match message {
            Response::Join(join) if self.phase == Phase::Joining => self.joined(now, join),
            Response::Reconnect(answer) if self.phase == Phase::Resuming => {
                self.resumed(now, &answer);
            }
            Response::Leave(leave) => self.told_to_leave(now, &leave),
            // Nothing else counts before the server has answered.
            _ if self.phase != Phase::Present => {}
            Response::Answer(answer) => {
                for sid in self.session.answer(now, &answer) {
                    self.tell(ParticipantEvent::Subscribed { sid });
                }
            }
            Response::Trickle(trickle) if trickle.target() == proto::SignalTarget::Publisher => {
                self.session.candidate(now, &trickle.candidate_init);
            }
            Response::TrackPublished(published) => self.published(published),
            Response::MediaSectionsRequirement(needed) => {
                self.session.negotiation.add_receivers(needed.num_audios, needed.num_videos);
            }
            Response::Update(update) => {
                let tracks = update.participants.iter().flat_map(|other| &other.tracks);
                for track in tracks {
                    self.session.media.pause(now, &track.sid, None, Some(track.muted));
                }
                self.tell(ParticipantEvent::Participants(update.participants));
            }
            Response::StreamStateUpdate(update) => {
                for state in update.stream_states {
                    let paused = state.state() == proto::StreamState::Paused;
                    self.session.media.pause(now, &state.track_sid, Some(paused), None);
                }
            }
            Response::SubscribedQualityUpdate(update) => self.wanted(&update),
            Response::Mute(mute) => {
                let mut known = false;
                let senders = self.session.media.senders.iter_mut();
                for sender in senders.filter(|sender| sender.sid == mute.sid) {
                    sender.muted = mute.muted;
                    known = true;
                }
                if known {
                    self.signal.send(Request::Mute(mute));
                }
            }
            Response::RefreshToken(token) => self.options.token = Private::new(token),
            Response::PongResp(pong) => {
                self.round_trip_ms = unix_ms().saturating_sub(pong.last_ping_timestamp);
            }
            // Of no use to a participant without a screen; newer kinds among them.
            _ => {}
        }
    }

    fn joined(&mut self, now: Instant, join: proto::JoinResponse) {
        self.settled(now);
        let seconds = |value: i32| Duration::from_secs(u64::from(value.max(1).unsigned_abs()));
        self.ping_interval = seconds(join.ping_interval);
        self.ping_timeout = seconds(join.ping_timeout);
        self.ping_at = now + self.ping_interval;
        self.session.sid = join.participant.map(|me| me.sid).unwrap_or_default();
        let sid = self.session.sid.clone();
        self.tell(ParticipantEvent::Joined { sid, others: join.other_participants });
        for request in self.session.publish(self.options.publish, &mut self.rng) {
            self.signal.send(Request::AddTrack(request));
        }
    }

    fn resumed(&mut self, now: Instant, answer: &proto::ReconnectResponse) {
        self.settled(now);
        self.stats.resumes += 1;
        let mut state = self.session.sync_state(self.options.subscribe);
        state.datachannel_receive_states = self.data.receive_states();
        self.signal.send(Request::SyncState(state));
        self.data.replay(answer.last_message_seq);
        self.session.negotiation.forget();
        self.session.restart_ice(&mut self.rng);
        self.tell(ParticipantEvent::Resumed);
    }

    fn settled(&mut self, now: Instant) {
        self.phase = Phase::Present;
        self.retry = None;
        self.answer_by = None;
        self.heard_at = now;
        self.ping_at = now + self.ping_interval;
    }

    fn told_to_leave(&mut self, now: Instant, leave: &proto::LeaveRequest) {
        match Action::try_from(leave.action) {
            Ok(Action::Resume) => self.lost(now, SignalError::Closed),
            Ok(Action::Reconnect) => {
                self.rejoin = true;
                self.lost(now, SignalError::Closed);
            }
            Ok(Action::Disconnect) | Err(_) => self.ended = Some(LeaveCause::Server(leave.reason)),
        }
    }

    fn published(&mut self, published: proto::TrackPublishedResponse) {
        let Some(track) = &published.track else { return };
        let senders = self.session.media.senders.iter_mut();
        let mut kind = None;
        for sender in senders.filter(|sender| sender.cid == published.cid) {
            sender.sid.clone_from(&track.sid);
            kind = Some(sender.kind());
        }
        let Some(kind) = kind else { return };
        let event = ParticipantEvent::Published { sid: track.sid.clone(), kind };
        self.session.published.push(published);
        self.tell(event);
    }

    /// Which layers anybody wants to see, of the codec that is sent.
    fn wanted(&mut self, update: &proto::SubscribedQualityUpdate) {
        let codec = update.subscribed_codecs.iter().find(|codec| codec.codec.contains("vp8"));
        let Some(codec) = codec else { return };
        let mut qualities = [false; 3];
        for listed in codec.qualities.iter().filter(|listed| listed.enabled) {
            let at = match listed.quality() {
                proto::VideoQuality::Low => 0,
                proto::VideoQuality::Medium => 1,
                proto::VideoQuality::High => 2,
                proto::VideoQuality::Off => continue,
            };
            if let Some(quality) = qualities.get_mut(at) {
                *quality = true;
            }
        }
        self.session.media.wanted(&update.track_sid, qualities);
    }

    fn peer_event(&mut self, now: Instant, event: PeerEvent) {
        match event {
            PeerEvent::Connected { .. } => {
                self.session.connected = true;
                self.session.media.start(now);
                self.tell(ParticipantEvent::Connected);
            }
            PeerEvent::Data { kind, payload } => {
                if let Some(message) = self.data.open(kind, payload) {
                    self.tell(ParticipantEvent::Data(message));
                }
            }
            PeerEvent::Unreachable if self.phase == Phase::Present => {
                self.session.restart_ice(&mut self.rng);
            }
            // The transport is over: only a full join brings a new one. If the server meant it,
            // its word is on the way by the other connection.
            PeerEvent::Closed(_) => {
                self.session.connected = false;
                self.rejoin = true;
                if self.signal.is_open() {
                    self.answer_by = Some(now + LAST_WORD);
                } else {
                    self.lost(now, SignalError::Closed);
                }
            }
            PeerEvent::ChannelOpen(_)
            | PeerEvent::OtherData { .. }
            | PeerEvent::Proved(_)
            | PeerEvent::Forgot(_)
            | PeerEvent::UfragsChanged
            | PeerEvent::Unreachable
            | PeerEvent::Reachable => {}
        }
    }

    fn command(&mut self, now: Instant, command: Command) {
        match command {
            Command::Mute { kind, muted } => self.mute(kind, muted),
            Command::SendData(message) => self.data.push(message),
            Command::CutSignal => self.lost(now, SignalError::Closed),
            Command::RestartIce => self.session.restart_ice(&mut self.rng),
            Command::ChangeNetwork => {
                self.session.change_network(now);
                self.lost(now, SignalError::Closed);
            }
            Command::Leave => {
                let reason = proto::DisconnectReason::ClientInitiated.into();
                self.signal
                    .send(Request::Leave(proto::LeaveRequest { reason, ..Default::default() }));
                self.ended = Some(LeaveCause::Asked);
            }
        }
    }

    fn mute(&mut self, kind: MediaKind, muted: bool) {
        let mut told: Vec<String> = Vec::new();
        let senders = self.session.media.senders.iter_mut();
        for sender in senders.filter(|sender| sender.kind() == kind) {
            sender.muted = muted;
            if !told.contains(&sender.sid) {
                told.push(sender.sid.clone());
            }
        }
        for sid in told {
            self.signal.send(Request::Mute(proto::MuteTrackRequest { sid, muted }));
        }
    }

    /// Sends the next offer if one is wanted, and data that waits.
    fn negotiate(&mut self) {
        if let Some(peer) = &mut self.session.wire.peer {
            self.data.flush(Instant::now(), peer);
            self.session.wire.flush();
        }
        if self.phase == Phase::Present
            && self.signal.is_open()
            && let Some(offer) = self.session.offer()
        {
            self.signal.send(Request::Offer(offer));
        }
    }

    fn publish_stats(&mut self, now: Instant) {
        self.stats.connected = self.session.connected;
        self.stats.unsent = self.session.wire.unsent;
        self.stats.data_sent = self.data.sent;
        self.stats.data_received = self.data.received;
        self.session.media.fill(now, &self.session.wire, &mut self.stats);
        self.publish_stats.send_replace(self.stats.clone());
    }

    /// Tells an event; media does not wait for whoever listens.
    fn tell(&mut self, event: ParticipantEvent) {
        let missed = self.events.try_send(event).is_err();
        self.stats.missed_events += u64::from(missed);
    }
}

fn unix_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}
