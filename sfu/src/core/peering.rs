//! What a participant's peers tell, and what follows from it in the room.

use super::api::{DataChannelKind, LeaveReason, Path};
use super::context::Context;
use super::link::Way;
use super::peer::{CloseReason, PeerEvent};
use super::room::Room;

impl Room {
    /// Takes all events of one of a participant's peers, then what it wants to send.
    pub(super) fn peer_events(&mut self, ctx: &mut Context<'_>, key: usize, way: Way) {
        self.take_events(ctx, key, way);
        let link = self.participants.get_mut(key).and_then(|other| other.links.get_mut(way));
        let Some(link) = link else { return };
        link.flush(ctx.departures, ctx.counters);
        link.note_path(ctx.now);
        if let Some(at) = link.peer.poll_timeout() {
            self.wake(at);
        }
    }

    /// Takes all events of one of a participant's peers.
    pub(super) fn take_events(&mut self, ctx: &mut Context<'_>, key: usize, way: Way) {
        while let Some(event) = self.next_event(key, way) {
            self.peer_event(ctx, key, way, event);
        }
    }

    /// An authenticated check came over a path. An address can change hands and come back, so the
    /// newest check says whose it is.
    pub(super) fn route_here(&self, ctx: &mut Context<'_>, key: usize, way: Way, path: Path) {
        let link = self.participants.get(key).and_then(|other| other.links.get(way));
        if link.is_some_and(|link| link.peer.is_proved(path)) {
            ctx.routes.prove(path, self.route(key, way));
        }
    }

    /// The connection behind a path has ended.
    pub(super) fn path_closed(&mut self, ctx: &mut Context<'_>, key: usize, way: Way, path: Path) {
        let link = self.participants.get_mut(key).and_then(|other| other.links.get_mut(way));
        let Some(link) = link else { return };
        link.peer.forget_path(path);
        self.peer_events(ctx, key, way);
    }

    fn next_event(&mut self, key: usize, way: Way) -> Option<PeerEvent> {
        self.participants.get_mut(key)?.links.get_mut(way)?.peer.poll_event()
    }

    fn peer_event(&mut self, ctx: &mut Context<'_>, key: usize, way: Way, event: PeerEvent) {
        let route = self.route(key, way);
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
                let link = self.participants.get(key).and_then(|other| other.links.get(way));
                let Some(link) = link else { return };
                ctx.routes.ufrags.retain(|_, other| *other != route);
                let valid = link.peer.ufrags().map(|ufrag| (ufrag.to_owned(), route));
                ctx.routes.ufrags.extend(valid);
            }
            PeerEvent::Connected { profile: _ } => {
                ctx.counters.peers_connected += 1;
                if way == Way::Down {
                    self.became_active(ctx, key);
                }
            }
            // What it opens on a way of its own only leads to us.
            PeerEvent::ChannelOpen(kind) if way == Way::Down => self.channel_open(ctx, key, kind),
            PeerEvent::ChannelOpen(_) => {}
            PeerEvent::Data { kind: DataChannelKind::Track, payload } => {
                self.data_packet(ctx, key, payload);
            }
            PeerEvent::Data { kind, payload } => self.data(ctx, key, kind, &payload),
            // Clients of the protocols we serve speak on the two labels only.
            PeerEvent::OtherData { label: _, payload: _ } => ctx.counters.data_dropped += 1,
            PeerEvent::Unreachable | PeerEvent::Reachable => self.review_reach(ctx, key),
            PeerEvent::Closed(reason) => self.peer_closed(ctx, key, reason),
        }
    }

    /// A peer fell silent or answers again. Who has two is there while both are: one is of no use
    /// without the other, and an ICE restart mends it.
    fn review_reach(&mut self, ctx: &mut Context<'_>, key: usize) {
        let Some(participant) = self.participants.get(key) else { return };
        let reachable = participant.links.all().all(|link| link.peer.is_reachable());
        if participant.presence.reachable != reachable && participant.was_active() {
            self.reachable(ctx, key, reachable);
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
