//! What a room may touch outside itself while it handles one input.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rand_chacha::rand_core::Rng as _;
use rustc_hash::{FxHashMap, FxHashSet};

use super::Rng;
use super::api::{Event, NodeEvent, Path, RoomKey, SessionEvent, SessionKey};
use super::counters::Counters;
use super::engine::CoreConfig;
use super::link::{Departures, Route};

/// Seconds from 1900 (NTP) to 1970 (UNIX).
const NTP_EPOCH: u64 = 2_208_988_800;

/// Who gets what comes in.
#[derive(Debug, Default)]
pub(super) struct Routes {
    /// By proved path.
    pub(super) paths: FxHashMap<Path, Route>,
    /// By local ICE user name: a first packet from an unknown path.
    pub(super) ufrags: FxHashMap<String, Route>,
    /// By signal session.
    pub(super) sessions: FxHashMap<SessionKey, Route>,
    /// Addresses of proved relays: what claims one of them over UDP is forged.
    pub(super) relayed: FxHashSet<SocketAddr>,
}

impl Routes {
    /// An authenticated check came over a path.
    pub(super) fn prove(&mut self, path: Path, route: Route) {
        if let Path::Relay { remote, .. } = path {
            self.relayed.insert(remote);
        }
        self.paths.insert(path, route);
    }

    /// A path is not listened to any more; whose it was.
    pub(super) fn unprove(&mut self, path: Path) -> Option<Route> {
        let route = self.paths.remove(&path);
        if let Path::Relay { .. } = path {
            self.keep_relayed();
        }
        route
    }

    /// The paths of a relay. Asked when one ends, so looking at all of them does.
    pub(super) fn of_relay(&self, number: u64) -> Vec<Path> {
        let is_its = |path: &&Path| matches!(path, Path::Relay { relay, .. } if *relay == number);
        self.paths.keys().filter(is_its).copied().collect()
    }

    /// One relay may reach us at several addresses, so each of its own may stand in several paths.
    fn keep_relayed(&mut self) {
        let addresses = self.paths.keys().filter_map(|path| match path {
            Path::Relay { remote, .. } => Some(*remote),
            Path::Udp { .. } | Path::Tcp { .. } => None,
        });
        self.relayed.clear();
        self.relayed.extend(addresses);
    }

    /// Forgets a participant, by whichever way it is reached.
    pub(super) fn forget(&mut self, route: Route) {
        self.retain(|other| (other.room, other.participant) != (route.room, route.participant));
    }

    /// Forgets a whole room.
    pub(super) fn forget_room(&mut self, room: usize) {
        self.retain(|other| other.room != room);
    }

    fn retain(&mut self, keep: impl Fn(Route) -> bool) {
        self.paths.retain(|_, route| keep(*route));
        if !self.relayed.is_empty() {
            self.keep_relayed();
        }
        self.ufrags.retain(|_, route| keep(*route));
        self.sessions.retain(|_, route| keep(*route));
    }
}

/// Everything around a room.
pub(super) struct Context<'a> {
    /// The time of this input.
    pub(super) now: Instant,
    /// The engine's configuration.
    pub(super) config: &'a CoreConfig,
    /// The engine's randomness.
    pub(super) rng: &'a mut Rng,
    /// The engine's counters.
    pub(super) counters: &'a mut Counters,
    /// What is told.
    pub(super) events: &'a mut VecDeque<Event>,
    /// Who gets what.
    pub(super) routes: &'a mut Routes,
    /// What leaves.
    pub(super) departures: &'a mut Departures,
}

impl Context<'_> {
    /// Tells a session something; without a session nobody is told.
    pub(super) fn tell(&mut self, session: Option<SessionKey>, event: SessionEvent) {
        if let Some(session) = session {
            self.events.push_back(Event::Session { session, event });
        }
    }

    /// Tells the node's owner something.
    pub(super) fn report(&mut self, room: RoomKey, event: NodeEvent) {
        self.events.push_back(Event::Node { room, event });
    }

    /// Wall clock in milliseconds since 1970.
    pub(super) fn unix_ms(&self) -> i64 {
        (self.unix_micros() / 1_000) as i64
    }

    /// Wall clock as NTP writes it, 32.32 fixed point.
    pub(super) fn ntp(&self) -> u64 {
        let micros = self.unix_micros();
        let fraction = ((micros % 1_000_000) << 32) / 1_000_000;
        (micros / 1_000_000 + NTP_EPOCH) << 32 | fraction
    }

    fn unix_micros(&self) -> u64 {
        let wall = &self.config.wall;
        let since = self.now.saturating_duration_since(wall.at).as_micros() as u64;
        wall.unix_micros.saturating_add(since)
    }

    /// A fresh id for clients.
    pub(super) fn sid(&mut self, prefix: &str) -> Arc<str> {
        const LETTERS: &[u8; 58] = b"123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz";
        let mut sid = String::with_capacity(prefix.len() + 12);
        sid.push_str(prefix);
        for _ in 0..12 {
            let at = self.rng.next_u32() as usize % LETTERS.len();
            sid.push(LETTERS.get(at).map_or('x', |letter| char::from(*letter)));
        }
        sid.into()
    }

    /// A fresh stream id; never 0.
    pub(super) fn ssrc(&mut self) -> u32 {
        self.rng.next_u32().max(1)
    }
}

/// The time that media clock ticks take.
pub(super) fn ticks(duration: Duration, clock: u32) -> u32 {
    (duration.as_micros() as u64 * u64::from(clock) / 1_000_000) as u32
}
