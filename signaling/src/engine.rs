//! The engine as signaling sees it: keys to mint and commands to send.

use bedside_sfu::core::api::{Command, RoomKey, SessionKey};
use bedside_sfu::node::{self, NodeHandle};

/// The engine's queue of commands is full; try again later.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the media node is busy")]
pub struct Busy;

/// Takes commands. The node's handle in the server, a script in tests.
pub trait Engine: Send + Sync + 'static {
    /// A key for a room that is about to be opened.
    fn mint_room(&self) -> RoomKey;

    /// A key for a session that is about to join.
    fn mint_session(&self) -> SessionKey;

    /// Hands a command to the shard of `room` without blocking.
    fn send(&self, room: RoomKey, command: Command) -> Result<(), Busy>;
}

impl Engine for NodeHandle {
    fn mint_room(&self) -> RoomKey {
        Self::mint_room(self)
    }

    fn mint_session(&self) -> SessionKey {
        Self::mint_session(self)
    }

    fn send(&self, room: RoomKey, command: Command) -> Result<(), Busy> {
        Self::send(self, room, command).map_err(|node::Busy| Busy)
    }
}
