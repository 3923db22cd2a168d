//! What a participant's peer tells, and what follows from it in the room.

use super::api::{LeaveReason, Path};
use super::context::Context;
use super::peer::{CloseReason, PeerEvent};
use super::room::Room;

impl Room {
    /// Takes all events of a participant's peer, then what it wants to send.
    pub(super) fn peer_events(&mut self, ctx: &mut Context<'_>, key: usize) {
        self.take_events(ctx, key);
        let link = self.participants.get_mut(key).and_then(|other| other.link.as_mut());
        let Some(link) = link else { return };
        link.flush(ctx.departures, ctx.counters);
        link.note_path(ctx.now);
        if let Some(at) = link.peer.poll_timeout() {
            self.wake(at);
        }
    }

    /// Takes all events of a participant's peer.
    pub(super) fn take_events(&mut self, ctx: &mut Context<'_>, key: usize) {
        while let Some(event) = self.next_event(key) {
            self.peer_event(ctx, key, event);
        }
    }

    /// An authenticated check came over a path. An address can change hands and come back, so the
    /// newest check says whose it is.
    pub(super) fn route_here(&self, ctx: &mut Context<'_>, key: usize, path: Path) {
        let link = self.participants.get(key).and_then(|other| other.link.as_ref());
        if link.is_some_and(|link| link.peer.is_proved(path)) {
            ctx.routes.prove(path, self.route(key));
        }
    }

    /// The connection behind a path has ended.
    pub(super) fn path_closed(&mut self, ctx: &mut Context<'_>, key: usize, path: Path) {
        let link = self.participants.get_mut(key).and_then(|other| other.link.as_mut());
        let Some(link) = link else { return };
        link.peer.forget_path(path);
        self.peer_events(ctx, key);
    }

    fn next_event(&mut self, key: usize) -> Option<PeerEvent> {
        self.participants.get_mut(key)?.link.as_mut()?.peer.poll_event()
    }

    fn peer_event(&mut self, ctx: &mut Context<'_>, key: usize, event: PeerEvent) {
        let route = self.route(key);
        match event {
            PeerEvent::Proved(path) => {
                ctx.routes.prove(path, route);
            }
            PeerEvent::Forgot(path) => {
                if ctx.routes.paths.get(&path) == Some(&route) {
                    ctx.routes.unprove(path);
                }
            }
            PeerEvent::UfragsChanged => {
                let link = self.participants.get(key).and_then(|other| other.link.as_ref());
                let Some(link) = link else { return };
                ctx.routes.ufrags.retain(|_, other| *other != route);
                let valid = link.peer.ufrags().map(|ufrag| (ufrag.to_owned(), route));
                ctx.routes.ufrags.extend(valid);
            }
            PeerEvent::Connected { profile: _ } => {
                ctx.counters.peers_connected += 1;
                self.became_active(ctx, key);
            }
            PeerEvent::ChannelOpen(kind) => self.channel_open(ctx, key, kind),
            PeerEvent::Data { kind, payload } => self.data(ctx, key, kind, &payload),
            // Clients of the protocols we serve speak on the two labels only.
            PeerEvent::OtherData { label: _, payload: _ } => ctx.counters.data_dropped += 1,
            PeerEvent::Unreachable => self.reachable(ctx, key, false),
            PeerEvent::Reachable => self.reachable(ctx, key, true),
            PeerEvent::Closed(reason) => self.peer_closed(ctx, key, reason),
        }
    }

    fn peer_closed(&mut self, ctx: &mut Context<'_>, key: usize, reason: CloseReason) {
        let reason = match reason {
            // Ours; the participant is being removed.
            CloseReason::Local => return,
            CloseReason::Remote => LeaveReason::ClientInitiated,
            CloseReason::WrongFingerprint
            | CloseReason::HandshakeFailed
            | CloseReason::HandshakeTimeout
            | CloseReason::NoKeys => {
                ctx.counters.dtls_failures += 1;
                LeaveReason::MediaFailure
            }
        };
        self.remove(ctx, key, reason);
    }
}
