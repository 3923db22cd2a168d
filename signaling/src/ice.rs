//! What clients are told of STUN and TURN servers, and who tells it.

use std::fmt;

use bedside_sfu::core::api::{ParticipantInfo, ParticipantSid, Private};

/// A STUN or TURN server that clients are told of.
#[derive(Clone, Debug, Default)]
pub struct IceServer {
    /// `turn:…`, `turns:…`, `stun:…`.
    pub urls: Vec<String>,
    /// Name for TURN.
    pub username: String,
    /// Password for TURN.
    pub credential: Private<String>,
}

/// Tells of servers, and is told who is there to use them. Nothing here may wait.
pub trait IceServers: fmt::Debug + Send + Sync + 'static {
    /// For a participant, with fresh credentials; asked at its join and at each resume, which is
    /// when clients take them.
    fn for_participant(&self, participant: &ParticipantSid) -> Vec<IceServer>;

    /// For somebody who holds a token for a room, and is not in it yet.
    fn for_bearer(&self, room: &str, identity: &str) -> Vec<IceServer>;

    /// Somebody is in a room. Told again whenever something about it changes.
    fn present(&self, room: &str, participant: &ParticipantInfo);

    /// Somebody has left, for whatever reason.
    fn left(&self, participant: &ParticipantSid);

    /// News were lost: whoever is not on the list has left.
    fn all(&self, there: &mut dyn Iterator<Item = (&str, &ParticipantInfo)>);
}

/// Without STUN and TURN clients come directly or not at all.
#[derive(Clone, Copy, Debug)]
pub struct NoIceServers;

impl IceServers for NoIceServers {
    fn for_participant(&self, _: &ParticipantSid) -> Vec<IceServer> {
        Vec::new()
    }

    fn for_bearer(&self, _: &str, _: &str) -> Vec<IceServer> {
        Vec::new()
    }

    fn present(&self, _: &str, _: &ParticipantInfo) {}

    fn left(&self, _: &ParticipantSid) {}

    fn all(&self, _: &mut dyn Iterator<Item = (&str, &ParticipantInfo)>) {}
}
