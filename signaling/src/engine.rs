//! The engine as signaling sees it: keys to mint and commands to send.

use bedside_sfu::core::api::{Command, RoomKey, SessionKey};

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

    /// Do both rooms live on one shard, and so share one queue of events?
    fn same_shard(&self, one: RoomKey, other: RoomKey) -> bool;
}
