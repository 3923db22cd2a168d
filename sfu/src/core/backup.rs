//! Backup codecs: a second encoding of a published picture, for those who cannot read the first.
//!
//! A publisher names a backup when it announces its track, and sends it when it is told that somebody
//! needs it. It is a track of its own here, with the id of the first and never shown beside it; each
//! subscription gets the one or the other. Where the publisher wants no two encoders at work
//! (regression), everybody gets the backup from then on, and nobody wants the first any more.

use super::api::{AddTrack, MediaKind, Refusal, SessionEvent, TrackSid, Unreceived};
use super::context::Context;
use super::room::Room;
use super::track::Track;

/// The publisher's wish to send both codecs side by side, as the protocol numbers it.
const SIMULCAST: i32 = 1;

impl Track {
    /// The announced codec, without its media type, that it can also be had in.
    pub(super) fn backup_codec(&self) -> Option<&str> {
        let names = self.info.announced.codecs.iter().map(|codec| short(&codec.codec));
        let mut others = names.filter(|name| !name.eq_ignore_ascii_case(&self.codec_name));
        others.find(|name| !name.is_empty()).filter(|_| self.primary.is_none())
    }
}

/// A codec's name without `video/`.
fn short(name: &str) -> &str {
    name.rsplit_once('/').map_or(name, |(_, name)| name)
}

impl Room {
    /// Why a track cannot be taken as another one's backup. `None`: it can.
    pub(super) fn refuses_backup(&self, key: usize, announced: &AddTrack) -> Option<Refusal> {
        let of = announced.backup_of.as_ref()?;
        let main = self.by_sid(of).and_then(|at| self.tracks.get(at));
        let Some(main) = main.filter(|main| main.owner == key) else {
            return Some(Refusal::NoTrack);
        };
        let video = announced.kind == MediaKind::Video && main.kind() == MediaKind::Video;
        (!video || main.backup.is_some()).then_some(Refusal::NotAllowed)
    }

    /// A track that was announced as a backup is there: it belongs to the one it is a backup of.
    /// `false`: that one is gone.
    pub(super) fn join_backup(&mut self, key: usize, of: &TrackSid) -> bool {
        let Some(main) = self.main_of(of, key) else { return false };
        let Some(backup) = self.tracks.get_mut(key) else { return false };
        backup.primary = Some(main);
        let (name, mid) = (backup.codec_name.clone(), backup.info.mid.clone());
        let announced = backup.info.announced.clone();
        let Some(main) = self.tracks.get_mut(main) else { return false };
        main.backup = Some(key);
        let mut codecs = main.info.announced.codecs.iter_mut();
        if let Some(codec) = codecs.find(|codec| short(&codec.codec).eq_ignore_ascii_case(&name)) {
            (codec.cid, codec.mid, codec.layers) = (announced.cid, mid, announced.layers);
        }
        true
    }

    fn main_of(&self, sid: &TrackSid, backup: usize) -> Option<usize> {
        let owner = self.tracks.get(backup)?.owner;
        let main = self
            .tracks
            .iter()
            .find(|(at, track)| *at != backup && track.primary.is_none() && track.info.sid == *sid);
        main.filter(|(_, track)| track.owner == owner && track.backup.is_none()).map(|(at, _)| at)
    }

    /// A backup is sent no more. Returns the track it was a backup of.
    pub(super) fn leave_backup(&mut self, track: &Track) -> Option<usize> {
        let at = track.primary?;
        let main = self.tracks.get_mut(at)?;
        (main.backup, main.regressed) = (None, false);
        for codec in &mut main.info.announced.codecs {
            codec.mid.clear();
        }
        Some(at)
    }

    /// A backup can be had from now on: those who need it get it, or everybody.
    pub(super) fn backup_came(&mut self, ctx: &mut Context<'_>, backup: usize) {
        let Some(at) = self.tracks.get(backup).and_then(|track| track.primary) else { return };
        let Some(main) = self.tracks.get_mut(at) else { return };
        main.regressed = main.info.announced.backup_codec_policy != SIMULCAST;
        let (all, subscribers) = (main.regressed, main.subscribers.clone());
        for (person, subscription) in subscribers {
            let sub = self.participants.get(person);
            let sub = sub.and_then(|person| person.subscriptions.get(subscription));
            if sub.is_some_and(|sub| sub.awaits_backup || all && !sub.unreadable) {
                self.exchange(ctx, person, subscription, backup);
            }
        }
        self.review_demand(ctx, at);
    }

    /// A subscriber has no codec for what it is subscribed to: it gets the backup, or waits for it, or
    /// is told that there is none for it.
    pub(super) fn unreadable(&mut self, ctx: &mut Context<'_>, subscriber: usize, at: usize) {
        let Some(person) = self.participants.get_mut(subscriber) else { return };
        let session = person.session;
        let Some(sub) = person.subscriptions.get_mut(at) else { return };
        sub.unreadable = true;
        let (sid, track, kind) = (sub.sid.clone(), sub.track, sub.kind);
        let main = self.tracks.get(track);
        let backup = main.and_then(|main| {
            let codec = main.backup_codec()?;
            self.can_read(subscriber, kind, codec).then_some(main.backup)
        });
        match backup {
            Some(Some(backup)) => self.exchange(ctx, subscriber, at, backup),
            Some(None) => {
                let person = self.participants.get_mut(subscriber);
                if let Some(sub) = person.and_then(|person| person.subscriptions.get_mut(at)) {
                    sub.awaits_backup = true;
                }
                self.review_demand(ctx, track);
            }
            None => {
                let why = Unreceived::Codec;
                ctx.tell(session, SessionEvent::SubscriptionFailed { track: sid, why });
            }
        }
    }

    /// Gives a subscriber another track in place of the one it has.
    fn exchange(&mut self, ctx: &mut Context<'_>, subscriber: usize, at: usize, track: usize) {
        let Some(person) = self.participants.get(subscriber) else { return };
        if person.watch.is_some() {
            return self.follow(ctx, subscriber);
        }
        let Some(sub) = person.subscriptions.get(at) else { return };
        let (order, before) = (sub.order, sub.track);
        self.unsubscribe(subscriber, at);
        self.attach(ctx, subscriber, track, order);
        self.offer_instead(subscriber, order, track);
        self.review_demand(ctx, before);
    }
}
