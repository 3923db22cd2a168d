//! What clients ask of their own participant, and what the node's owner asks of a room.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use super::api::{
    AddTrack, LeaveReason, MediaKind, ParticipantUpdate, Private, Profile, Refusal, Request,
    SessionEvent, Source, TrackInfo, TrackSid, Unreceived,
};
use super::context::Context;
use super::layers::Wish;
use super::negotiation::Pending;
use super::room::Room;
use super::track::sid_letters;
use super::watching::Watch;

impl Room {
    /// A client asks something of its participant.
    pub(super) fn request(&mut self, ctx: &mut Context<'_>, key: usize, request: Request) {
        match request {
            Request::Offer { id, sdp } => self.offer(ctx, key, id, &sdp),
            Request::Answer { id, sdp } => self.answer_came(ctx, key, id, &sdp),
            Request::AddTrack(announced) => self.add_track(ctx, key, *announced),
            Request::Mute { track, muted } => {
                self.change_track(ctx, key, &track, |info| info.muted = muted);
            }
            Request::UpdateTrack { track, audio_features, size } => {
                self.change_track(ctx, key, &track, |info| {
                    if let Some(features) = audio_features {
                        info.announced.audio_features = features;
                    }
                    if let Some((width, height)) = size {
                        (info.announced.width, info.announced.height) = (width, height);
                    }
                });
            }
            Request::Subscribe { tracks, subscribe } => {
                for track in tracks {
                    self.say_subscription(ctx, key, track, subscribe);
                }
            }
            Request::Watch { publisher } => {
                let Some(participant) = self.participants.get_mut(key) else { return };
                if participant.negotiation.offer.is_none() && !participant.links.split {
                    participant.watch = Some(Watch::new(publisher));
                }
            }
            Request::TrackSettings { tracks, disabled, quality, width: _, height, fps } => {
                let fps = fps.try_into().unwrap_or(u8::MAX);
                let wish = Wish { disabled, quality, height, fps };
                for track in tracks {
                    self.remember_wish(ctx, key, track, wish);
                }
                self.settle_wishes(ctx, key);
            }
            Request::SubscriptionPermission { all_participants, allowed } => {
                let Some(participant) = self.participants.get_mut(key) else { return };
                let audience = &mut participant.audience;
                (audience.everyone, audience.allowed) = (all_participants, allowed);
                self.settle_audience(ctx, key);
            }
            Request::UpdateProfile { request_id, name, metadata, attributes } => {
                self.update_profile(ctx, key, request_id, name, metadata, attributes);
            }
            Request::PublishDataTrack(track) => self.publish_data_track(ctx, key, *track),
            Request::UnpublishDataTrack { handle } => self.unpublish_data_track(ctx, key, handle),
            Request::SubscribeData { tracks } => self.subscribe_data(ctx, key, tracks),
            Request::SyncState { published, subscription, disabled, received } => {
                let unknown = published.iter().any(|sid| !self.knows_published(key, sid));
                if unknown {
                    return self.remove(ctx, key, LeaveReason::StateMismatch);
                }
                self.sync_subscriptions(ctx, key, subscription, disabled);
                self.replay(ctx, key, &received);
            }
            Request::Leave => self.remove(ctx, key, LeaveReason::ClientInitiated),
        }
    }

    fn add_track(&mut self, ctx: &mut Context<'_>, key: usize, announced: AddTrack) {
        let owned = self.tracks_of(key).len();
        let backup = self.refuses_backup(key, &announced);
        let Some(participant) = self.participants.get_mut(key) else { return };
        participant.negotiation.forget_old(ctx.now);
        let (grant, session) = (&participant.grant, participant.session);
        // A camera announced as a microphone would pass for one.
        let allowed = grant.publish
            && (grant.sources.is_empty()
                || grant.sources.contains(&announced.source)
                    && fits(announced.kind, announced.source));
        let pending = &mut participant.negotiation.pending;
        let limits = &ctx.config.limits;
        let refusal = if !allowed {
            Some(Refusal::NotAllowed)
        } else if backup.is_some() {
            backup
        } else if pending.len() >= limits.pending_tracks || owned >= limits.tracks {
            Some(Refusal::LimitExceeded)
        } else {
            None
        };
        if let Some(refusal) = refusal {
            let announced = Box::new(announced);
            return ctx.tell(session, SessionEvent::TrackRefused { announced, refusal });
        }
        let (cid, kind) = (announced.cid.clone(), announced.kind);
        let same = |other: &AddTrack| other.cid == cid && other.kind == kind;
        let known = pending.iter_mut().find(|other| same(&other.announced));
        let sid = match known {
            // Said again, as after a resume: the first name stays.
            Some(other) => {
                other.announced = announced.clone();
                other.since = ctx.now;
                other.sid.clone()
            }
            None => {
                let letters = sid_letters(kind, announced.source);
                // A backup goes by the name of what it is a backup of.
                let sid = announced.backup_of.clone();
                let sid = sid.unwrap_or_else(|| TrackSid(ctx.sid(&format!("TR_{letters}"))));
                let (announced, since) = (announced.clone(), ctx.now);
                pending.push_back(Pending { sid: sid.clone(), announced, since });
                sid
            }
        };
        let track = TrackInfo {
            sid,
            muted: announced.muted,
            mid: String::new(),
            mime_type: String::new(),
            simulcast: announced.layers.len() > 1,
            announced,
        };
        ctx.tell(session, SessionEvent::TrackPublished { cid, track });
        self.publish_held(ctx, key, kind);
    }

    /// Changes one of the participant's own tracks, announced or published.
    fn change_track(
        &mut self,
        ctx: &mut Context<'_>,
        key: usize,
        sid: &TrackSid,
        change: impl FnOnce(&mut TrackInfo),
    ) {
        let own = |track: &super::track::Track| {
            track.owner == key && track.info.sid == *sid && track.primary.is_none()
        };
        if let Some((_, track)) = self.tracks.iter_mut().find(|(_, track)| own(track)) {
            let before = track.info.clone();
            change(&mut track.info);
            let (changed, muted) = (track.info != before, track.info.muted);
            let backup = track.backup.and_then(|backup| self.tracks.get_mut(backup));
            if let Some(backup) = backup {
                backup.info.muted = muted;
            }
            if changed {
                self.announce(ctx, key);
            }
            return;
        }
        let Some(participant) = self.participants.get_mut(key) else { return };
        let mut pending = participant.negotiation.pending.iter_mut();
        if let Some(Pending { sid, announced, since: _ }) = pending.find(|other| other.sid == *sid)
        {
            let mut info = TrackInfo {
                sid: sid.clone(),
                muted: announced.muted,
                mid: String::new(),
                mime_type: String::new(),
                simulcast: false,
                announced: announced.clone(),
            };
            change(&mut info);
            *announced = AddTrack { muted: info.muted, ..info.announced };
        }
    }

    fn say_subscription(&mut self, ctx: &mut Context<'_>, key: usize, sid: TrackSid, want: bool) {
        let track = self.by_sid(&sid);
        let Some(participant) = self.participants.get_mut(key) else { return };
        if track.is_none() && want {
            let failed =
                SessionEvent::SubscriptionFailed { track: sid.clone(), why: Unreceived::NoTrack };
            ctx.tell(participant.session, failed);
        }
        // What was said of a track that is not there (yet) is remembered, within reason.
        let said = &mut participant.wants.said;
        if said.len() < ctx.config.limits.remembered_tracks || said.contains_key(&sid) {
            said.insert(sid, want);
        }
        if let Some(track) = track {
            self.reconcile(ctx, key, track);
        }
    }

    fn remember_wish(&mut self, ctx: &Context<'_>, key: usize, sid: TrackSid, wish: Wish) {
        let Some(participant) = self.participants.get_mut(key) else { return };
        let subscribed = participant.subscriptions.iter().any(|(_, other)| other.sid == sid);
        let settings = &mut participant.wants.settings;
        let room = settings.len() < ctx.config.limits.remembered_tracks;
        if room || subscribed || settings.contains_key(&sid) {
            settings.insert(sid, wish);
        }
    }

    /// Applies what a subscriber wants of its tracks. Each change may cost the others a keyframe.
    fn settle_wishes(&mut self, ctx: &mut Context<'_>, key: usize) {
        let Some(participant) = self.participants.get_mut(key) else { return };
        if let Some(at) = participant.wants.settling.wait(ctx.now) {
            return self.wake(at);
        }
        let mut changed = Vec::new();
        for (_, subscription) in &mut participant.subscriptions {
            let wish = participant.wants.wish(&subscription.sid);
            if wish == subscription.wish {
                continue;
            }
            subscription.wish = wish;
            if wish.disabled {
                subscription.pause();
            }
            changed.push(subscription.track);
        }
        for track in changed {
            self.retarget(ctx, track);
            self.review_demand(ctx, track);
        }
    }

    /// Applies who may receive a participant's tracks. Each change is told to everybody, so a flood of
    /// them would drown the others.
    fn settle_audience(&mut self, ctx: &mut Context<'_>, key: usize) {
        let Some(participant) = self.participants.get_mut(key) else { return };
        if let Some(at) = participant.audience.settling.wait(ctx.now) {
            return self.wake(at);
        }
        for track in self.tracks_of(key) {
            self.reconcile_all(ctx, track);
        }
        self.reconcile_data(ctx);
    }

    /// Applies the settings and permissions that have waited long enough.
    pub(super) fn wishes_due(&mut self, ctx: &mut Context<'_>) {
        let due = |at: Option<Instant>| at.is_some_and(|at| at <= ctx.now);
        let everyone = || self.participants.iter();
        let wishes: Vec<usize> = everyone()
            .filter(|(_, other)| due(other.wants.settling.due()))
            .map(|(key, _)| key)
            .collect();
        let audiences: Vec<usize> = everyone()
            .filter(|(_, other)| due(other.audience.settling.due()))
            .map(|(key, _)| key)
            .collect();
        for key in wishes {
            self.settle_wishes(ctx, key);
        }
        for key in audiences {
            self.settle_audience(ctx, key);
        }
    }

    fn update_profile(
        &mut self,
        ctx: &mut Context<'_>,
        key: usize,
        request_id: u32,
        name: Option<Private<String>>,
        metadata: Option<Private<String>>,
        attributes: Private<BTreeMap<String, String>>,
    ) {
        let Some(participant) = self.participants.get_mut(key) else { return };
        let session = participant.session;
        let allowed = participant.grant.update_own_metadata;
        if allowed {
            change_profile(Arc::make_mut(&mut participant.profile), name, metadata, attributes);
            self.announce(ctx, key);
        }
        let refusal = (!allowed).then_some(Refusal::NotAllowed);
        ctx.tell(session, SessionEvent::ProfileUpdated { request_id, refusal });
    }

    /// Changes what others see of a participant, and its rights.
    pub(super) fn update_participant(&mut self, ctx: &mut Context<'_>, update: ParticipantUpdate) {
        let Some(key) = self.by_identity(&update.identity) else { return };
        let Some(participant) = self.participants.get_mut(key) else { return };
        let ParticipantUpdate { room: _, identity: _, name, metadata, attributes, grant } = update;
        let before = Arc::clone(&participant.profile);
        let profile = Arc::make_mut(&mut participant.profile);
        change_profile(profile, name, metadata, attributes);
        if before != participant.profile {
            self.announce(ctx, key);
        }
        if let Some(grant) = grant {
            self.set_grant(ctx, key, grant);
        }
    }

    /// Subscribes a participant to tracks, or unsubscribes it.
    pub(super) fn update_subscriptions(
        &mut self,
        ctx: &mut Context<'_>,
        identity: &Private<String>,
        tracks: Vec<TrackSid>,
        subscribe: bool,
    ) {
        let Some(key) = self.by_identity(identity) else { return };
        for track in tracks {
            self.say_subscription(ctx, key, track, subscribe);
        }
    }

    fn knows_published(&self, key: usize, sid: &TrackSid) -> bool {
        let published =
            self.tracks.iter().any(|(_, track)| track.owner == key && track.info.sid == *sid);
        let pending = self.participants.get(key).map(|other| &other.negotiation.pending);
        published
            || self.data_tracks.owns(key, sid)
            || pending.is_some_and(|pending| pending.iter().any(|other| other.sid == *sid))
    }

    /// A resuming client says what it wants. With auto-subscribe it lists what it does not want.
    fn sync_subscriptions(
        &mut self,
        ctx: &mut Context<'_>,
        key: usize,
        subscription: Option<(Vec<TrackSid>, bool)>,
        disabled: Vec<TrackSid>,
    ) {
        if let Some((tracks, subscribe)) = subscription {
            for track in tracks {
                self.say_subscription(ctx, key, track, subscribe);
            }
        }
        let Some(participant) = self.participants.get(key) else { return };
        let wishes: Vec<(TrackSid, Wish)> = participant
            .subscriptions
            .iter()
            .map(|(_, other)| {
                let disabled = disabled.contains(&other.sid);
                (other.sid.clone(), Wish { disabled, ..other.wish })
            })
            .collect();
        for (sid, wish) in wishes {
            self.remember_wish(ctx, key, sid, wish);
        }
        self.settle_wishes(ctx, key);
    }

    /// Asks a publisher to mute a track. It counts as muted at once, as not every client says that it
    /// did so; to be heard again is for the publisher to say.
    pub(super) fn mute_track(&mut self, ctx: &mut Context<'_>, sid: &TrackSid, muted: bool) {
        let Some(track) = self.by_sid(sid).and_then(|track| self.tracks.get(track)) else { return };
        let key = track.owner;
        let Some(owner) = self.participants.get(key) else { return };
        // In this order: a client that learns first that it is muted says that it is not.
        ctx.tell(owner.session, SessionEvent::MuteRequested { track: sid.clone(), muted });
        if muted {
            self.change_track(ctx, key, sid, |info| info.muted = true);
        }
    }

    /// A track by its id.
    pub(super) fn by_sid(&self, sid: &TrackSid) -> Option<usize> {
        let named = |track: &super::track::Track| track.info.sid == *sid && track.primary.is_none();
        self.tracks.iter().find(|(_, track)| named(track)).map(|(key, _)| key)
    }
}

/// Whether a source can be of this kind.
const fn fits(kind: MediaKind, source: Source) -> bool {
    match source {
        Source::Unknown => true,
        Source::Camera | Source::Screen => matches!(kind, MediaKind::Video),
        Source::Microphone | Source::ScreenAudio => matches!(kind, MediaKind::Audio),
    }
}

fn change_profile(
    profile: &mut Profile,
    name: Option<Private<String>>,
    metadata: Option<Private<String>>,
    attributes: Private<BTreeMap<String, String>>,
) {
    if let Some(name) = name {
        profile.name = name;
    }
    if let Some(metadata) = metadata {
        profile.metadata = metadata;
    }
    for (key, value) in attributes.0 {
        if value.is_empty() {
            profile.attributes.0.remove(&key);
        } else {
            profile.attributes.0.insert(key, value);
        }
    }
}
