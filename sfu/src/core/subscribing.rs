//! Who receives which track: wishes, rights and permissions, brought together.

use rand_chacha::rand_core::Rng as _;

use super::api::{MediaKind, SessionEvent, TrackSid, Unreceived};
use super::context::Context;
use super::ladder::Target;
use super::room::Room;
use super::subscription::{Streams, Subscription};

impl Streams {
    /// Streams that nobody else has.
    pub(super) fn random(ctx: &mut Context<'_>) -> Self {
        let numbers = ctx.rng.next_u32();
        Self {
            ssrc: ctx.ssrc(),
            repair_ssrc: ctx.ssrc(),
            sequences: ((numbers >> 16) as u16, numbers as u16),
        }
    }
}

impl Room {
    /// Makes or ends one subscription, as wishes, grant and permission have it.
    pub(super) fn reconcile(&mut self, ctx: &mut Context<'_>, subscriber: usize, track: usize) {
        if self.participants.get(subscriber).is_some_and(|person| person.watch.is_some()) {
            return self.follow(ctx, subscriber);
        }
        let Some((person, published)) =
            self.participants.get(subscriber).zip(self.tracks.get(track))
        else {
            return;
        };
        let Some(owner) = self.participants.get(published.owner) else { return };
        if published.owner == subscriber || published.primary.is_some() {
            return;
        }
        let sid = published.info.sid.clone();
        let carrier = published.backup.filter(|_| published.regressed).unwrap_or(track);
        // What is encrypted from end to end is nothing to a recorder.
        let barred = person.grant.recorder && published.info.announced.encryption != 0;
        // Who is hidden cannot be named, and a client drops tracks of people it does not know.
        let wanted = person.grant.subscribe && person.wants.track(&sid) && !owner.grant.hidden;
        let allowed = owner.audience.admits(person, &sid);
        let before = person.subscription_of(&sid);
        if !allowed && (wanted || before.is_some()) {
            // Of people that a client does not know it is told nothing.
            self.tell_news_to(ctx, subscriber);
        }
        let Some(person) = self.participants.get(subscriber) else { return };
        let Some(owner) = self.tracks.get(track).and_then(|t| self.participants.get(t.owner))
        else {
            return;
        };
        let (session, publisher) = (person.session, owner.sid.clone());
        if barred && wanted {
            let (track, why) = (sid.clone(), Unreceived::Encrypted);
            ctx.tell(session, SessionEvent::SubscriptionFailed { track, why });
        }
        let wanted = wanted && !barred;
        let told =
            SessionEvent::SubscriptionAllowed { participant: publisher, track: sid, allowed };
        match (wanted && allowed, before) {
            (true, None) => {
                ctx.tell(session, told);
                self.subscribe(ctx, subscriber, carrier);
            }
            (false, Some(subscription)) => {
                if !allowed {
                    ctx.tell(session, told);
                }
                self.unsubscribe(subscriber, subscription);
                self.needs_offer(ctx.now, subscriber);
            }
            (false, None) if wanted => ctx.tell(session, told),
            (true, Some(_)) | (false, None) => {}
        }
    }

    /// A track's subscriptions, as everyone's wishes have it.
    pub(super) fn reconcile_all(&mut self, ctx: &mut Context<'_>, track: usize) {
        let everyone: Vec<usize> = self.participants.iter().map(|(key, _)| key).collect();
        for subscriber in everyone {
            self.reconcile(ctx, subscriber, track);
        }
    }

    fn subscribe(&mut self, ctx: &mut Context<'_>, subscriber: usize, key: usize) {
        let order = self.order;
        self.order += 1;
        self.attach(ctx, subscriber, key, order);
        let Some(track) = self.tracks.get_mut(key) else { return };
        let first = !std::mem::replace(&mut track.told_subscribed, true);
        let (owner, sid, backup) = (track.owner, track.info.sid.clone(), track.primary.is_some());
        if first
            && !backup
            && let Some(owner) = self.participants.get(owner)
        {
            ctx.tell(owner.session, SessionEvent::TrackSubscribed { track: sid });
        }
        self.introduce_quality(ctx, subscriber, owner);
    }

    /// Makes a subscription; its order says which of a client's sections it gets.
    pub(super) fn attach(
        &mut self,
        ctx: &mut Context<'_>,
        subscriber: usize,
        key: usize,
        order: u64,
    ) {
        let streams = Streams::random(ctx);
        let Some(track) = self.tracks.get_mut(key) else { return };
        let Some(person) = self.participants.get_mut(subscriber) else { return };
        let (sid, kind) = (track.info.sid.clone(), track.kind());
        let wish = person.wants.wish(&sid);
        let subscription = Subscription::new(key, sid, kind, order, streams, wish);
        let subscription = person.subscriptions.insert(subscription);
        person.sending.insert(streams.ssrc, subscription);
        track.subscribers.push((subscriber, subscription));
        self.needs_offer(ctx.now, subscriber);
        self.review_demand(ctx, key);
    }

    /// Ends a subscription. A watcher's is put aside.
    pub(super) fn unsubscribe(&mut self, subscriber: usize, key: usize) {
        let Some(person) = self.participants.get_mut(subscriber) else { return };
        let Some(subscription) = person.subscriptions.try_remove(key) else { return };
        person.sending.remove(&subscription.ssrc);
        if let Some(track) = self.tracks.get_mut(subscription.track) {
            track.subscribers.retain(|pair| *pair != (subscriber, key));
        }
        if let Some(watch) = &mut person.watch {
            watch.put_aside(subscription);
        }
    }

    /// A track ends. Its sections become free; clients learn of it by the publisher's info.
    pub(super) fn end_track(&mut self, key: usize) -> Option<TrackSid> {
        let track = self.tracks.try_remove(key)?;
        if let Some(backup) = track.backup {
            self.end_track(backup);
        }
        self.leave_backup(&track);
        for (subscriber, subscription) in &track.subscribers {
            self.unsubscribe(*subscriber, *subscription);
        }
        if let Some(owner) = self.participants.get_mut(track.owner) {
            owner.streams.forget_track(key);
        }
        Some(track.info.sid)
    }

    /// Chooses anew what the subscriptions of a track get.
    pub(super) fn retarget(&mut self, ctx: &mut Context<'_>, key: usize) {
        let Some(track) = self.tracks.get(key) else { return };
        if track.kind() == MediaKind::Audio {
            return self.retarget_voice(ctx, key);
        }
        // A video shares the link with others, so all of them are looked at.
        let subscribers: Vec<usize> = track.subscribers.iter().map(|(person, _)| *person).collect();
        for subscriber in subscribers {
            self.share_link(ctx, subscriber);
        }
    }

    /// Voices are forwarded whole, whatever else is.
    pub(super) fn retarget_voice(&mut self, ctx: &Context<'_>, key: usize) {
        let Some(track) = self.tracks.get(key) else { return };
        if track.kind() != MediaKind::Audio {
            return;
        }
        for (subscriber, subscription) in &track.subscribers {
            let person = self.participants.get_mut(*subscriber);
            let sub = person.and_then(|person| person.subscriptions.get_mut(*subscription));
            if let Some(sub) = sub {
                let whole = Some(Target::whole(0));
                sub.target = track.ceiling(&sub.wish, ctx.now).or(sub.target).or(whole);
            }
        }
    }
}
