//! Watching: one publisher's media on the sections of the only offer, whoever it is by now.
//!
//! Who watches has no way to be told of tracks, and none to offer again. So each section that it receives
//! on is an *outlet* with a stream of its own, there before anything flows. What flows through it may
//! change: a subscription is put aside when its track ends and goes on with another, with the same stream
//! and without a gap in its numbers.

use super::api::{MediaKind, ParticipantSid, Private, SessionEvent, Source, TrackSid};
use super::context::Context;
use super::layers::Wish;
use super::negotiation::{bind, media_kind};
use super::participant::Participant;
use super::room::Room;
use super::sdp::{Description, Fill, Section};
use super::subscription::{Binding, Streams, Subscription};
use super::track::Track;

/// Codecs that an outlet may carry, one after the other.
const CODECS: [&str; 8] = ["opus", "VP8", "H264", "VP9", "AV1", "H265", "PCMU", "PCMA"];

/// Somebody who watches.
#[derive(Debug)]
pub(super) struct Watch {
    /// Whom; `None`: the first that has a picture.
    publisher: Option<Private<String>>,
    /// Whom it is shown now.
    shown: Option<ParticipantSid>,
    outlets: Vec<Outlet>,
}

/// A section that media leaves by.
#[derive(Debug)]
struct Outlet {
    section: Section,
    kind: MediaKind,
    ssrc: u32,
    repair_ssrc: u32,
    /// What will go on, while nothing flows.
    aside: Option<Subscription>,
}

impl Watch {
    /// Nothing is known yet but whom.
    pub(super) const fn new(publisher: Option<Private<String>>) -> Self {
        Self { publisher, shown: None, outlets: Vec::new() }
    }

    /// Puts a subscription aside until there is something for it again.
    pub(super) fn put_aside(&mut self, subscription: Subscription) {
        let mut outlets = self.outlets.iter_mut();
        if let Some(outlet) = outlets.find(|outlet| outlet.ssrc == subscription.ssrc) {
            outlet.aside = Some(subscription);
        }
    }
}

/// What an outlet is to carry.
struct Choice {
    outlet: usize,
    track: usize,
    sid: TrackSid,
    binding: Binding,
}

impl Room {
    /// Makes an outlet of each section that the watcher's offer receives on. Later offers restart ICE and
    /// change nothing else.
    pub(super) fn open_outlets(&mut self, ctx: &mut Context<'_>, key: usize, offer: &Description) {
        let Some(participant) = self.participants.get_mut(key) else { return };
        let Some(watch) = participant.watch.as_mut().filter(|watch| watch.outlets.is_empty())
        else {
            return;
        };
        for section in offer.sections.iter().filter(|section| section.receives()) {
            let Some(kind) = media_kind(section.kind) else { continue };
            let streams = Streams::random(ctx);
            let (ssrc, repair_ssrc) = (streams.ssrc, streams.repair_ssrc);
            let (sid, wish) = (TrackSid("".into()), Wish::initial(false));
            let aside = Subscription::new(usize::MAX, sid, kind, self.order, streams, wish);
            self.order += 1;
            let section = section.clone();
            watch.outlets.push(Outlet { section, kind, ssrc, repair_ssrc, aside: Some(aside) });
        }
    }

    /// What the answer says of a section of a watcher's offer; `None`: this is no watcher.
    pub(super) fn fill_watched(&self, key: usize, section: &Section) -> Option<Fill> {
        let participant = self.participants.get(key)?;
        let watch = participant.watch.as_ref()?;
        let outlet = watch.outlets.iter().find(|outlet| outlet.section.mid == section.mid);
        let Some(outlet) = outlet else { return Some(Fill::Idle) };
        Some(Fill::SendAny {
            codecs: &CODECS,
            rtx_ssrc: (outlet.kind == MediaKind::Video).then_some(outlet.repair_ssrc),
            stream: participant.sid.0.to_string(),
            track: format!("{}-{}", participant.sid.0, section.mid),
            ssrc: outlet.ssrc,
        })
    }

    /// Every watcher gets what it is to be shown by now.
    pub(super) fn follow_all(&mut self, ctx: &mut Context<'_>) {
        let watching = |(key, person): (usize, &Participant)| person.watch.is_some().then_some(key);
        let watchers: Vec<usize> = self.participants.iter().filter_map(watching).collect();
        for key in watchers {
            self.follow(ctx, key);
        }
    }

    /// Puts into each outlet of a watcher what it is to carry by now.
    pub(super) fn follow(&mut self, ctx: &mut Context<'_>, key: usize) {
        let (shown, choices) = self.choose_for(key);
        let Some(participant) = self.participants.get_mut(key) else { return };
        let Some(watch) = &mut participant.watch else { return };
        watch.shown = shown;
        let wanted = |track| choices.iter().find(|choice| choice.track == track);
        let is_kept = |sub: &Subscription| {
            wanted(sub.track).is_some_and(|choice| sub.binding.as_ref() == Some(&choice.binding))
        };
        let mut ended = Vec::new();
        for (at, sub) in participant.subscriptions.iter().filter(|(_, sub)| !is_kept(sub)) {
            ended.push((at, sub.track));
        }
        for (at, track) in ended {
            self.unsubscribe(key, at);
            self.review_demand(ctx, track);
        }
        for choice in choices {
            self.carry(ctx, key, choice);
        }
    }

    /// Whom a watcher is shown, and which track in which outlet.
    fn choose_for(&self, key: usize) -> (Option<ParticipantSid>, Vec<Choice>) {
        let Some(person) = self.participants.get(key) else { return (None, Vec::new()) };
        let Some(watch) = &person.watch else { return (None, Vec::new()) };
        let permitted = |owner: &Participant, track: &Track| {
            let barred = person.grant.recorder && track.info.announced.encryption != 0;
            let admitted = owner.audience.admits(person, &track.info.sid);
            person.grant.subscribe && !owner.grant.hidden && admitted && !barred
        };
        let tracks_of = |at: usize, owner: &Participant| {
            let own = |track: &Track| track.owner == at && track.primary.is_none();
            let tracks = self.tracks.iter().filter(|(_, track)| own(track));
            let mut tracks: Vec<_> = tracks.filter(|(_, track)| permitted(owner, track)).collect();
            tracks.sort_by_key(|(_, track)| rank(track.info.announced.source));
            tracks
        };
        let named = |owner: &Participant| {
            watch.publisher.as_ref().is_none_or(|name| owner.profile.identity == *name)
        };
        let others = self.participants.iter().filter(|(at, owner)| *at != key && named(owner));
        let others = others.map(|(at, owner)| (at, owner, tracks_of(at, owner)));
        // Somebody with a picture goes before somebody with a voice alone, who is shown before who is
        // not, who came first before who came later.
        let best =
            others.filter(|(.., tracks)| !tracks.is_empty()).min_by_key(|(at, owner, tracks)| {
                let pictures = tracks.iter().any(|(_, track)| track.kind() == MediaKind::Video);
                (!pictures, watch.shown.as_ref() != Some(&owner.sid), owner.joined_at_ms, *at)
            });
        let Some((_, owner, mut tracks)) = best else { return (None, Vec::new()) };
        let mut choices = Vec::new();
        for (outlet, place) in watch.outlets.iter().enumerate() {
            let mut found = tracks.iter().enumerate().filter_map(|(at, (key, track))| {
                let (carrier, binding) = self.carrier(*key, track, place)?;
                Some((at, carrier, binding))
            });
            let Some((at, track, binding)) = found.next() else { continue };
            let (_, published) = tracks.remove(at);
            choices.push(Choice { outlet, track, sid: published.info.sid.clone(), binding });
        }
        (Some(owner.sid.clone()), choices)
    }

    /// What of a track an outlet can carry: its own codec or its backup.
    fn carrier(&self, key: usize, track: &Track, outlet: &Outlet) -> Option<(usize, Binding)> {
        let backup = track.backup.map(|backup| (backup, self.tracks.get(backup)));
        let backup = backup.and_then(|(backup, track)| Some((backup, track?)));
        let both = [Some((key, track)), backup];
        let order = if track.regressed { [1, 0] } else { [0, 1] };
        let mut carriers = order.into_iter().filter_map(|at| both.get(at).copied().flatten());
        carriers.find_map(|(at, track)| {
            let same = track.kind() == outlet.kind;
            same.then(|| bind(track, &outlet.section, false)).flatten().map(|binding| (at, binding))
        })
    }

    /// Lets an outlet go on with a track, if it is not at it already.
    fn carry(&mut self, ctx: &mut Context<'_>, key: usize, choice: Choice) {
        let Choice { outlet, track, sid, binding } = choice;
        let Some(person) = self.participants.get_mut(key) else { return };
        let outlet = person.watch.as_mut().and_then(|watch| watch.outlets.get_mut(outlet));
        let Some(mut sub) = outlet.and_then(|outlet| outlet.aside.take()) else { return };
        let Some(published) = self.tracks.get_mut(track) else { return };
        sub.redirect(track, sid.clone(), binding);
        person.described.remove(&sub.ssrc);
        let ssrc = sub.ssrc;
        let at = person.subscriptions.insert(sub);
        person.sending.insert(ssrc, at);
        published.subscribers.push((key, at));
        let owner = published.owner;
        let first = !std::mem::replace(&mut published.told_subscribed, true);
        let backup = published.primary.is_some();
        if first
            && !backup
            && let Some(owner) = self.participants.get(owner)
        {
            ctx.tell(owner.session, SessionEvent::TrackSubscribed { track: sid });
        }
        self.learn_receiver(ctx.now, key);
        self.review_demand(ctx, track);
        self.introduce_quality(ctx, key, owner);
        self.retarget(ctx, track);
    }
}

/// Faces before screens, voices before their sound.
const fn rank(source: Source) -> u8 {
    match source {
        Source::Camera | Source::Microphone => 0,
        Source::Screen | Source::ScreenAudio => 1,
        Source::Unknown => 2,
    }
}
