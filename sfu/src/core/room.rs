//! A room: its participants and tracks, who comes, who goes, and when.

use std::sync::Arc;
use std::time::{Duration, Instant};

use slab::Slab;

use super::api::{
    Grant, Join, LeaveReason, NodeEvent, ParticipantInfo, ParticipantSid, ParticipantState,
    PlayoutDelay, Private, Refusal, Resume, RoomInfo, RoomKey, RoomSid, RoomSnapshot, RoomSpec,
    SessionEvent, SessionKey, Source,
};
use super::context::Context;
use super::data::Mailbox;
use super::data_tracks::DataTracks;
use super::link::{Route, Way};
use super::participant::Participant;
use super::presence::Bulletin;
use super::quality::WINDOW;
use super::track::Track;

/// Room facts are told at the most this often.
const INFO_DISTANCE: Duration = Duration::from_secs(5);
/// A participant whose media fell silent must resume within this.
const RESUME_LIMIT: Duration = Duration::from_secs(5);
/// After a resume, media must answer within this.
const RECOVER_LIMIT: Duration = Duration::from_secs(20);

/// One room.
#[derive(Debug)]
pub(super) struct Room {
    /// Its key for commands.
    pub(super) key: RoomKey,
    /// Its slab key in the engine.
    pub(super) index: usize,
    /// Everyone in it.
    pub(super) participants: Slab<Participant>,
    /// Everything published in it.
    pub(super) tracks: Slab<Track>,
    /// Data tracks published in it.
    pub(super) data_tracks: DataTracks,
    /// Reliable messages kept for those who come late.
    pub(super) mailbox: Mailbox,
    /// Number of the next subscription.
    pub(super) order: u64,
    /// When [`Self::handle_timeout`] is needed.
    pub(super) deadline: Option<Instant>,
    /// Not before this: what is due within a moment is done together.
    pub(super) rested_at: Instant,
    /// Next feedback to publishers.
    pub(super) feedback_at: Instant,
    /// Next sharing out of links.
    pub(super) shares_at: Instant,
    /// Next reports.
    pub(super) reports_at: Instant,
    /// Next comparison of speakers.
    pub(super) speakers_at: Instant,
    /// Next valuation of connections.
    pub(super) quality_at: Instant,
    /// Reused by repair requests.
    pub(super) numbers: Vec<u16>,
    /// Its end; the engine removes it then.
    pub(super) finished: Option<LeaveReason>,
    /// Makes the next input panic.
    #[cfg(test)]
    pub(super) sabotaged: bool,
    sid: RoomSid,
    name: Private<String>,
    metadata: Private<String>,
    /// Header extension of all pictures, where one is set.
    pub(super) playout_delay: Option<[u8; 3]>,
    max_participants: u32,
    created_at_ms: i64,
    empty_timeout: Option<Duration>,
    departure_timeout: Option<Duration>,
    /// Somebody has been in it.
    visited: bool,
    empty_since: Option<Instant>,
    info_told: (Instant, u32, bool),
    /// Changes of participants that not everybody knows of yet.
    pub(super) bulletin: Bulletin,
    /// The newest version of those who have left.
    version_left: u32,
}

impl Room {
    /// Opens a room and tells so.
    pub(super) fn open(ctx: &mut Context<'_>, index: usize, spec: RoomSpec) -> Self {
        let sid = RoomSid(ctx.sid("RM_"));
        let mut room = Self {
            key: spec.room,
            index,
            participants: Slab::new(),
            tracks: Slab::new(),
            data_tracks: DataTracks::default(),
            mailbox: Mailbox::default(),
            order: 0,
            deadline: None,
            rested_at: ctx.now,
            feedback_at: ctx.now,
            shares_at: ctx.now,
            reports_at: ctx.now,
            speakers_at: ctx.now,
            quality_at: ctx.now + WINDOW,
            numbers: Vec::new(),
            finished: None,
            #[cfg(test)]
            sabotaged: false,
            sid,
            name: spec.name,
            metadata: spec.metadata,
            playout_delay: spec.playout_delay.map(PlayoutDelay::bytes),
            max_participants: spec.max_participants,
            created_at_ms: ctx.unix_ms(),
            empty_timeout: spec.empty_timeout,
            departure_timeout: spec.departure_timeout,
            visited: false,
            empty_since: Some(ctx.now),
            info_told: (ctx.now, 0, false),
            bulletin: Bulletin::default(),
            version_left: 0,
        };
        ctx.report(room.key, NodeEvent::RoomStarted { info: room.info() });
        room.plan();
        room
    }

    /// An open room is to be like this from now on. Everyone in it is told what clients can see of
    /// that.
    pub(super) fn replan(&mut self, ctx: &mut Context<'_>, spec: &RoomSpec) {
        let seen = self.metadata != spec.metadata || self.max_participants != spec.max_participants;
        self.metadata.clone_from(&spec.metadata);
        self.max_participants = spec.max_participants;
        self.empty_timeout = spec.empty_timeout;
        self.departure_timeout = spec.departure_timeout;
        self.playout_delay = spec.playout_delay.map(PlayoutDelay::bytes);
        if seen {
            self.tell_facts(ctx);
        }
        ctx.report(self.key, NodeEvent::RoomChanged { info: self.info() });
    }

    /// Tells everyone the room's facts.
    fn tell_facts(&mut self, ctx: &mut Context<'_>) {
        let info = self.info();
        self.info_told = (ctx.now, info.participants, info.recording);
        for (_, participant) in &self.participants {
            ctx.tell(participant.session, SessionEvent::Room(info.clone()));
        }
    }

    /// Takes note that something is to be done at `at`, or a moment later.
    pub(super) fn wake(&mut self, at: Instant) {
        let at = at.max(self.rested_at);
        self.deadline = Some(self.deadline.map_or(at, |deadline| deadline.min(at)));
    }

    /// Where the datagrams of one of a participant's links are to be routed to.
    pub(super) const fn route(&self, participant: usize, way: Way) -> Route {
        Route { room: self.index, participant, way }
    }

    /// A person comes in.
    pub(super) fn join(&mut self, ctx: &mut Context<'_>, join: &Join) {
        let same = self.by_identity(&join.profile.identity);
        let replaced = same.and_then(|old| self.participants.get(old)).is_some_and(counts);
        let full = self.max_participants > 0
            && !join.grant.recorder
            && self.counted() - u32::from(replaced) >= self.max_participants;
        let refusal = if full {
            Some(Refusal::RoomFull)
        } else if join.grant.recorder && self.is_encrypted() {
            Some(Refusal::Encrypted)
        } else {
            None
        };
        if let Some(refusal) = refusal {
            return ctx.tell(Some(join.session), SessionEvent::Refused(refusal));
        }
        if let Some(old) = same {
            self.remove(ctx, old, LeaveReason::DuplicateIdentity);
        }
        let sid = ParticipantSid(ctx.sid("PA_"));
        let others = self.visible();
        let mut participant = Participant::new(ctx.now, ctx.unix_ms(), sid, join);
        participant.version = participant.version.max(self.version_left.saturating_add(1));
        participant.data.waiting_from = self.mailbox.next();
        participant.news_to = self.bulletin.end();
        let key = self.participants.insert(participant);
        ctx.routes.sessions.insert(join.session, self.route(key, Way::Down));
        (self.empty_since, self.visited) = (None, true);
        let Some(me) = self.info_of(key) else { return };
        let room = self.info();
        ctx.tell(Some(join.session), SessionEvent::Joined { room, me, others });
        self.spread(ctx, key);
        for track in self.track_keys() {
            self.reconcile(ctx, key, track);
        }
        self.offer_first(ctx, key);
    }

    /// A new session for a participant that is still here.
    pub(super) fn resume(&mut self, ctx: &mut Context<'_>, resume: &Resume) {
        let known = |participant: &Participant| {
            participant.sid == resume.participant && participant.profile.identity == resume.identity
        };
        let found = self.participants.iter().find(|(_, participant)| known(participant));
        let Some(key) = found.map(|(key, _)| key) else {
            let refused = SessionEvent::Refused(Refusal::NoParticipant);
            return ctx.tell(Some(resume.session), refused);
        };
        let (room, everyone) = (self.info(), self.visible_to(key));
        let route = self.route(key, Way::Down);
        let Some(participant) = self.participants.get_mut(key) else { return };
        if let Some(old) = participant.session.replace(resume.session) {
            ctx.routes.sessions.remove(&old);
        }
        participant.news_to = self.bulletin.end();
        ctx.routes.sessions.insert(resume.session, route);
        participant.negotiation.forget_question();
        if participant.was_active() {
            let silent = !participant.presence.reachable;
            participant.presence.leave_at = silent.then(|| ctx.now + RECOVER_LIMIT);
        }
        let last_data_sequence = participant.data.last_sequence;
        let event = SessionEvent::Resumed { last_data_sequence, room, participants: everyone };
        ctx.tell(Some(resume.session), event);
        self.repeat_handles(ctx, key);
        self.offer_again(ctx, key);
        self.repeat_demand(ctx, key);
        self.repeat_quality(ctx, key);
        if let Some(info) = self.info_of(key) {
            ctx.report(self.key, NodeEvent::Participant { info });
        }
        self.plan();
    }

    /// A signal connection is gone. The participant stays while its media lives.
    pub(super) fn session_gone(&mut self, ctx: &mut Context<'_>, key: usize) {
        let Some(participant) = self.participants.get_mut(key) else { return };
        if let Some(session) = participant.session.take() {
            ctx.routes.sessions.remove(&session);
        }
        if !participant.was_active() {
            self.remove(ctx, key, LeaveReason::ConnectionTimeout);
        }
    }

    /// A participant leaves; everyone is told why.
    pub(super) fn remove(&mut self, ctx: &mut Context<'_>, key: usize, reason: LeaveReason) {
        let Some(mut info) = self.info_of(key) else { return };
        info.state = ParticipantState::Disconnected(reason);
        info.version += 1;
        info.tracks.clear();
        info.data_tracks.clear();
        for track in self.tracks_of(key) {
            self.end_track(track);
        }
        self.data_tracks.forget(key);
        let Some(participant) = self.participants.try_remove(key) else { return };
        if let Some(stay) = participant.tally.stay() {
            let identity = participant.profile.identity.clone();
            let participant = participant.sid.clone();
            ctx.report(self.key, NodeEvent::Measured { participant, identity, stay });
        }
        self.version_left = self.version_left.max(info.version);
        for (_, subscription) in &participant.subscriptions {
            if let Some(track) = self.tracks.get_mut(subscription.track) {
                track.subscribers.retain(|(subscriber, _)| *subscriber != key);
            }
        }
        for link in participant.links.down.into_iter().chain(participant.links.up) {
            link.close(ctx.now, ctx.departures, ctx.counters);
        }
        ctx.routes.forget(self.route(key, Way::Down));
        ctx.tell(participant.session, SessionEvent::Left { reason, resume: false });
        self.spread_end(ctx, key, (!info.grant.hidden).then_some(&info));
        ctx.report(self.key, NodeEvent::Participant { info });
        self.follow_all(ctx);
        if self.participants.is_empty() {
            self.empty_since = Some(ctx.now);
        }
        self.plan();
    }

    /// Closes the room.
    pub(super) fn close(&mut self, ctx: &mut Context<'_>, reason: LeaveReason) {
        let everyone: Vec<usize> = self.participants.iter().map(|(key, _)| key).collect();
        for key in everyone {
            // The others go too: no need to tell them of each.
            if let Some(participant) = self.participants.get_mut(key)
                && let Some(session) = participant.session.take()
            {
                ctx.tell(Some(session), SessionEvent::Left { reason, resume: false });
            }
        }
        let everyone: Vec<usize> = self.participants.iter().map(|(key, _)| key).collect();
        for key in everyone {
            self.remove(ctx, key, reason);
        }
        self.finished = Some(reason);
    }

    /// Media transport is up.
    pub(super) fn became_active(&mut self, ctx: &mut Context<'_>, key: usize) {
        let Some(participant) = self.participants.get_mut(key) else { return };
        participant.state = ParticipantState::Active;
        participant.presence.reachable = true;
        participant.presence.leave_at = None;
        self.announce(ctx, key);
        self.start_forwarding(ctx, key);
        self.plan();
    }

    /// Media fell silent or came back.
    pub(super) fn reachable(&mut self, ctx: &mut Context<'_>, key: usize, reachable: bool) {
        let Some(participant) = self.participants.get_mut(key) else { return };
        participant.presence.reachable = reachable;
        participant.presence.leave_at = (!reachable).then(|| ctx.now + RESUME_LIMIT);
        let identity = participant.profile.identity.clone();
        let event =
            NodeEvent::Reachable { participant: participant.sid.clone(), identity, reachable };
        if !reachable && let Some(session) = participant.session.take() {
            ctx.routes.sessions.remove(&session);
            let reason = LeaveReason::ConnectionTimeout;
            ctx.tell(Some(session), SessionEvent::Left { reason, resume: true });
        }
        ctx.report(self.key, event);
        self.note_reachable(ctx, key, reachable);
        self.plan();
    }

    /// Changes a participant's rights and what follows from them.
    pub(super) fn set_grant(&mut self, ctx: &mut Context<'_>, key: usize, grant: Grant) {
        let Some(participant) = self.participants.get_mut(key) else { return };
        if participant.grant == grant {
            return;
        }
        let vanishes = grant.hidden && !participant.grant.hidden;
        participant.grant = grant.clone();
        let session = participant.session;
        let may = |source: &Source| {
            grant.publish && (grant.sources.is_empty() || grant.sources.contains(source))
        };
        // An announcement is a right not yet used.
        participant.negotiation.pending.retain(|other| {
            let kept = may(&other.announced.source);
            if !kept {
                ctx.tell(session, SessionEvent::TrackUnpublished { track: other.sid.clone() });
            }
            kept
        });
        for track in self.tracks_of(key) {
            let allowed =
                self.tracks.get(track).is_some_and(|track| may(&track.info.announced.source));
            let mid = self.tracks.get(track).map(|track| track.info.mid.clone());
            if !allowed && let Some(sid) = self.end_track(track) {
                if let Some((participant, mid)) = self.participants.get_mut(key).zip(mid) {
                    participant.negotiation.take_back(&mid);
                }
                ctx.tell(session, SessionEvent::TrackUnpublished { track: sid });
            }
        }
        if !grant.publish_data {
            self.end_data_tracks(ctx, key);
        }
        ctx.tell(session, SessionEvent::GrantChanged(grant));
        if vanishes {
            self.vanish(ctx, key);
        }
        self.announce(ctx, key);
        for track in self.track_keys() {
            self.reconcile(ctx, key, track);
        }
        for track in self.tracks_of(key) {
            self.reconcile_all(ctx, track);
        }
        self.reconcile_data(ctx);
        self.follow_all(ctx);
    }

    /// A participant is hidden from now on: for the others it leaves.
    fn vanish(&mut self, ctx: &mut Context<'_>, key: usize) {
        if let Some(participant) = self.participants.get_mut(key) {
            participant.version += 1;
        }
        let Some(mut info) = self.info_of(key) else { return };
        info.state = ParticipantState::Disconnected(LeaveReason::ParticipantRemoved);
        info.grant.hidden = false;
        info.tracks.clear();
        info.data_tracks.clear();
        self.spread_end(ctx, key, Some(&info));
    }

    /// A participant by identity.
    pub(super) fn by_identity(&self, identity: &Private<String>) -> Option<usize> {
        let same = |participant: &Participant| participant.profile.identity == *identity;
        self.participants.iter().find(|(_, participant)| same(participant)).map(|(key, _)| key)
    }

    /// Keys of all tracks.
    pub(super) fn track_keys(&self) -> Vec<usize> {
        self.tracks.iter().map(|(key, _)| key).collect()
    }

    /// Keys of a participant's tracks; backups are part of them.
    pub(super) fn tracks_of(&self, owner: usize) -> Vec<usize> {
        let own = |track: &Track| track.owner == owner && track.primary.is_none();
        self.tracks.iter().filter(|(_, track)| own(track)).map(|(key, _)| key).collect()
    }

    /// A participant as others see it.
    pub(super) fn info_of(&self, key: usize) -> Option<ParticipantInfo> {
        let participant = self.participants.get(key)?;
        let shown = |track: &Track| track.owner == key && track.primary.is_none();
        let tracks = self.tracks.iter().filter(|(_, track)| shown(track));
        Some(ParticipantInfo {
            sid: participant.sid.clone(),
            profile: Arc::clone(&participant.profile),
            grant: participant.grant.clone(),
            state: participant.state,
            tracks: tracks.map(|(_, track)| track.info.clone()).collect(),
            data_tracks: self.data_tracks.of(key),
            joined_at_ms: participant.joined_at_ms,
            version: participant.version,
        })
    }

    fn visible(&self) -> Vec<ParticipantInfo> {
        let shown = self.participants.iter().filter(|(_, participant)| !participant.grant.hidden);
        shown.filter_map(|(key, _)| self.info_of(key)).collect()
    }

    /// Everyone that a participant may see, and itself.
    fn visible_to(&self, viewer: usize) -> Vec<ParticipantInfo> {
        let shown = |key: usize, other: &Participant| key == viewer || !other.grant.hidden;
        let shown = self.participants.iter().filter(|(key, other)| shown(*key, other));
        shown.filter_map(|(key, _)| self.info_of(key)).collect()
    }

    fn counted(&self) -> u32 {
        self.participants.iter().filter(|(_, participant)| counts(participant)).count() as u32
    }

    fn publishers(&self) -> u32 {
        let counted = self.participants.iter().filter(|(_, participant)| counts(participant));
        let publishes = |key: usize| self.tracks.iter().any(|(_, track)| track.owner == key);
        counted.filter(|(key, _)| publishes(*key)).count() as u32
    }

    /// Something in it is encrypted from end to end.
    fn is_encrypted(&self) -> bool {
        self.tracks.iter().any(|(_, track)| track.info.announced.encryption != 0)
    }

    fn recording(&self) -> bool {
        self.participants.iter().any(|(_, participant)| participant.grant.recorder)
    }

    /// The room's facts.
    pub(super) fn info(&self) -> RoomInfo {
        RoomInfo {
            sid: self.sid.clone(),
            name: self.name.clone(),
            metadata: self.metadata.clone(),
            max_participants: self.max_participants,
            created_at_ms: self.created_at_ms,
            participants: self.counted(),
            publishers: self.publishers(),
            empty_timeout: self.empty_timeout,
            departure_timeout: self.departure_timeout,
            recording: self.recording(),
        }
    }

    /// The whole truth about the room.
    pub(super) fn snapshot(&self) -> RoomSnapshot {
        let everyone = self.participants.iter();
        let everyone = everyone
            .filter_map(|(key, participant)| Some((self.info_of(key)?, participant.session)));
        RoomSnapshot { room: self.key, info: self.info(), participants: everyone.collect() }
    }

    /// Does what time demands of people and room.
    pub(super) fn lifecycle(&mut self, ctx: &mut Context<'_>) {
        let overdue = |participant: &Participant| {
            participant.presence.leave_at.is_some_and(|at| at <= ctx.now)
        };
        let late: Vec<usize> = self
            .participants
            .iter()
            .filter(|(_, participant)| overdue(participant))
            .map(|(key, _)| key)
            .collect();
        for key in late {
            let active = self.participants.get(key).is_some_and(Participant::was_active);
            let reason =
                if active { LeaveReason::ConnectionTimeout } else { LeaveReason::JoinFailure };
            self.remove(ctx, key, reason);
        }
        if self.info_due().is_some_and(|at| at <= ctx.now) {
            self.tell_facts(ctx);
        }
        if self.news_due().is_some_and(|at| at <= ctx.now) {
            self.tell_news(ctx);
        }
        if self.empty_at().is_some_and(|at| at <= ctx.now) {
            self.close(ctx, LeaveReason::RoomClosed);
        }
    }

    fn info_due(&self) -> Option<Instant> {
        let (at, participants, recording) = self.info_told;
        // Whoever is being recorded is to know it at once.
        let at = if recording == self.recording() { at + INFO_DISTANCE } else { at };
        let changed = participants != self.counted() || recording != self.recording();
        (changed && !self.participants.is_empty()).then_some(at)
    }

    fn empty_at(&self) -> Option<Instant> {
        let timeout = if self.visited { self.departure_timeout } else { self.empty_timeout };
        Some(self.empty_since? + timeout?)
    }

    /// When [`Self::lifecycle`] has something to do.
    pub(super) fn lifecycle_due(&self) -> Option<Instant> {
        let leaving = self.participants.iter().filter_map(|(_, other)| other.presence.leave_at);
        leaving.chain(self.info_due()).chain(self.news_due()).chain(self.empty_at()).min()
    }

    /// Sessions that are attached, for when the room ends in a hurry.
    pub(super) fn sessions(&self) -> Vec<SessionKey> {
        self.participants.iter().filter_map(|(_, participant)| participant.session).collect()
    }
}

/// Whether it takes one of the room's places.
const fn counts(participant: &Participant) -> bool {
    !participant.grant.hidden && !participant.grant.recorder
}
