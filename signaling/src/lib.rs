//! # Signaling
//!
//! Speaks to clients on behalf of the sfu: room tokens ([`token`]), the doors that clients come in
//! by ([`livekit`], [`whip`]), and the state of each signal session ([`session`]). It works with LiveKit
//! client SDKs. It stores nothing: rooms live in the engine, people and their rights in the
//! control plane.
//!
//! A join, from outside to inside:
//!
//! 1. [`livekit::door`] reads the token and the join request, asks the [`rooms::Doorkeeper`], opens
//!    the room if it must, and upgrades to a WebSocket.
//! 2. The session's task sends `Command::Join` to the engine and feeds what the client says and
//!    what the engine tells into a [`session::Session`], a pure state machine, whose outputs it
//!    carries out: requests to the engine, messages to the client.
//! 3. [`Signaling::run`] takes the engine's events: those of sessions go to their tasks, those of
//!    rooms into the [`rooms::Directory`](rooms) and on as [`rooms::Fact`]s.
//!
//! Nothing here blocks on anybody: every queue is bounded, a client that does not read is cut and
//! may resume, and a keeper of books that does not listen gets a snapshot later.

pub mod counters;
pub mod engine;
pub mod ice;
pub mod limits;
pub mod livekit;
pub mod quirks;
pub mod rooms;
pub mod session;
pub mod token;
pub mod whip;

mod dispatch;

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bedside_sfu::core::api::{Command, Event, Grant};
use tokio::sync::mpsc;

use crate::counters::SignalingCounters;
use crate::dispatch::Shared;
use crate::engine::Engine;
use crate::ice::{IceServer, IceServers, NoIceServers};
use crate::rooms::{Doorkeeper, Fact};
use crate::token::{KeyPair, RoomToken};

/// What facts and commands are made of, for who imports signaling alone.
pub use bedside_sfu::core::api::{
    LeaveReason, ParticipantInfo, ParticipantSid, ParticipantState, Private, RoomInfo, Source,
    Stay, TrackInfo,
};

/// How signaling is set up.
#[derive(Clone, Debug)]
pub struct SignalingConfig {
    /// Keys that room tokens are verified with; the first one signs ours.
    pub keys: Vec<KeyPair>,
    /// What clients are told of STUN and TURN.
    pub ice_servers: Arc<dyn IceServers>,
    /// How often clients are to ping (whole seconds, at least one).
    pub ping_interval: Duration,
    /// After how long without an answer clients give up (whole seconds, at least one).
    pub ping_timeout: Duration,
    /// Web pages that may come in (`https://host[:port]`); empty = any.
    pub allowed_origins: Vec<String>,
    /// Life of the tokens we issue.
    pub token_ttl: Duration,
    /// Honour `hidden` in grants. Without it nobody listens unseen.
    pub allow_hidden: bool,
    /// Serve the SDKs' `simulate` requests (tests only).
    pub allow_simulate: bool,
    /// An administrator may unmute what a participant has muted.
    pub allow_remote_unmute: bool,
}

impl Default for SignalingConfig {
    fn default() -> Self {
        Self {
            keys: Vec::new(),
            ice_servers: Arc::new(NoIceServers),
            ping_interval: Duration::from_secs(5),
            ping_timeout: Duration::from_secs(15),
            allowed_origins: Vec::new(),
            token_ttl: Duration::from_secs(600),
            allow_hidden: false,
            allow_simulate: false,
            allow_remote_unmute: false,
        }
    }
}

/// The signaling of one node. Cheap to clone.
#[derive(Clone)]
pub struct Signaling {
    shared: Arc<Shared>,
}

impl Signaling {
    /// Puts the parts together; nothing runs before [`Signaling::run`].
    pub fn new(
        config: SignalingConfig,
        node: impl Engine,
        door: Arc<dyn Doorkeeper>,
        facts: mpsc::Sender<Fact>,
    ) -> Self {
        Self { shared: Arc::new(Shared::new(config, Arc::new(node), door, facts)) }
    }

    /// The doors: `/rtc…`, `/whip…` and `/whep…` for clients, `/twirp/…` for administrators.
    pub fn router(&self) -> axum::Router {
        let doors = livekit::door::router(Arc::clone(&self.shared));
        let doors = doors.merge(livekit::admin_router(Arc::clone(&self.shared)));
        doors.merge(whip::door::router(Arc::clone(&self.shared)))
    }

    /// Carries the engine's events to sessions, directory and facts, until the engine is gone.
    pub async fn run(self, mut events: mpsc::Receiver<Event>) {
        while let Some(event) = events.recv().await {
            self.shared.dispatch(event);
        }
        self.shared.cut_all();
    }

    /// Signs a room token with the first key and the configured life.
    ///
    /// # Panics
    ///
    /// When the configuration holds no key: the server refuses to start so.
    pub fn issue_token(&self, token: &RoomToken) -> String {
        let keys = self.shared.config.keys.first().expect("configured with at least one key");
        token::issue(keys, token, self.shared.config.token_ttl, SystemTime::now())
    }

    /// Removes a participant; `false` = no such room or person, or the node is busy.
    pub fn remove(&self, room: &str, identity: &str, reason: LeaveReason) -> bool {
        self.shared.command_participant(room, identity, |room, identity| Command::Remove {
            room,
            identity,
            reason,
        })
    }

    /// Closes a room and tells everyone in it why; `false` = no such room, or the node is busy.
    pub fn close_room(&self, room: &str, reason: LeaveReason) -> bool {
        self.shared.command_room(room, |room| Command::CloseRoom { room, reason })
    }

    /// Changes a participant's rights; `false` = no such room or person, or the node is busy.
    pub fn update_grant(&self, room: &str, identity: &str, grant: Grant) -> bool {
        self.shared.command_participant(room, identity, |room, identity| Command::UpdateGrant {
            room,
            identity,
            grant,
        })
    }

    /// From now on new rooms are refused; those that are open go on and let people in.
    pub fn drain(&self) {
        self.shared.drain();
    }

    /// Closes every room with [`LeaveReason::ServerShutdown`] and refuses everybody from now on.
    pub fn shutdown(&self) {
        self.shared.shutdown();
    }

    /// STUN and TURN servers for somebody who was just given a token for a room.
    pub fn ice_servers(&self, room: &str, identity: &str) -> Vec<IceServer> {
        self.shared.config.ice_servers.for_bearer(room, identity)
    }

    /// Open rooms, and participants in them.
    pub fn size(&self) -> (usize, usize) {
        self.shared.size()
    }

    /// What is counted.
    pub fn counters(&self) -> Arc<SignalingCounters> {
        Arc::clone(&self.shared.counters)
    }
}
