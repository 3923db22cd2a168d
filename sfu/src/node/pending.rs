//! Stands where the engine will be, until it lands.
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use crate::core::api::{Input, Output, RelayFn, RoomSnapshot};
use crate::core::counters::Counters;
use crate::core::peer::{Crypto, Identity};

#[derive(Default)]
pub(super) struct Limits;
pub(super) struct WallClock {
    pub(super) at: Instant,
    pub(super) unix_micros: u64,
}
pub(super) struct CoreConfig {
    pub(super) candidates: Vec<SocketAddr>,
    pub(super) identity: Arc<Identity>,
    pub(super) relay: RelayFn,
    pub(super) wall: WallClock,
    pub(super) limits: Limits,
    pub(super) crypto: Crypto,
}
pub(super) struct Core(Counters, CoreConfig);
impl Core {
    pub(super) fn new(_now: Instant, config: CoreConfig, _seed: [u8; 32]) -> Self {
        Self(Counters::default(), config)
    }
    pub(super) fn handle_input(&mut self, _now: Instant, _input: Input<'_>) {
        let c = &self.1;
        let _ = (
            &c.candidates,
            &c.identity,
            &c.relay,
            c.wall.at,
            c.wall.unix_micros,
            &c.limits,
            &c.crypto,
        );
        self.0.dropped_unknown += 1;
    }
    pub(super) fn poll_output(&mut self) -> Output<'_> {
        Output::Timeout(None)
    }
    pub(super) fn counters(&self) -> &Counters {
        &self.0
    }
    pub(super) fn snapshot(&self) -> Vec<RoomSnapshot> {
        Vec::new()
    }
}
