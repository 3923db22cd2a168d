//! Who is told of whom, and when.
//!
//! What changes after a moment of rest is told to everybody at once. What comes soon after is told
//! together: each change sent by itself to each of the others would be a number of messages that grows
//! with the square of those who come. A change waits for [`DISTANCE`] at the most; in a crowd, where
//! nobody looks at everybody, for [`CROWD_DISTANCE`]. A participant itself is told of its own changes
//! without delay, and of those of others at the latest before anything that it can only understand
//! when it knows them.

use std::time::{Duration, Instant};

use super::api::{NodeEvent, ParticipantInfo, SessionEvent};
use super::context::Context;
use super::participant::Participant;
use super::room::Room;

/// The least distance of two tellings.
const DISTANCE: Duration = Duration::from_millis(100);
/// More than so many are a crowd.
const CROWD: usize = 50;
/// The least distance of two tellings there.
const CROWD_DISTANCE: Duration = Duration::from_secs(1);

/// Changes that not everybody knows of yet, in their order.
#[derive(Debug, Default)]
pub(super) struct Bulletin {
    notes: Vec<Note>,
    /// Number of the first one.
    first: u64,
    /// When everybody was last told.
    told: Option<Instant>,
}

/// One change.
#[derive(Debug)]
enum Note {
    /// Of a participant that is here, by its key: what it is by then is told.
    Of(usize),
    /// Somebody is gone, or seems so.
    Gone(Box<ParticipantInfo>),
    /// A later one says it, or it is of somebody who is gone by now.
    Void,
}

impl Bulletin {
    /// The number of the next note.
    pub(super) const fn end(&self) -> u64 {
        self.first + self.notes.len() as u64
    }

    /// The notes from a number on.
    fn since(&self, from: u64) -> &[Note] {
        let read = usize::try_from(from.saturating_sub(self.first)).unwrap_or(usize::MAX);
        self.notes.get(read..).unwrap_or_default()
    }

    /// What is noted of a participant is outdated.
    fn forget(&mut self, key: usize) {
        for note in self.notes.iter_mut().filter(|note| matches!(note, Note::Of(of) if *of == key))
        {
            *note = Note::Void;
        }
    }
}

impl Room {
    /// A participant changed: its version rises, and all who may see it are told, itself first.
    pub(super) fn announce(&mut self, ctx: &mut Context<'_>, key: usize) {
        if let Some(participant) = self.participants.get_mut(key) {
            participant.version += 1;
        }
        let session = self.participants.get(key).and_then(|participant| participant.session);
        if let Some(info) = self.info_of(key).filter(|_| session.is_some()) {
            ctx.tell(session, SessionEvent::Participants(vec![info]));
        }
        self.spread(ctx, key);
    }

    /// The others learn what a participant is now.
    pub(super) fn spread(&mut self, ctx: &mut Context<'_>, key: usize) {
        let Some(info) = self.info_of(key) else { return };
        let shown = !info.grant.hidden;
        ctx.report(self.key, NodeEvent::Participant { info });
        if shown {
            // Whoever has not read an earlier note will read this one.
            self.bulletin.forget(key);
            self.note(ctx, Note::Of(key));
        }
    }

    /// A participant is gone. `info`: what the others learn of it, if they ever saw it.
    pub(super) fn spread_end(
        &mut self,
        ctx: &mut Context<'_>,
        key: usize,
        info: Option<&ParticipantInfo>,
    ) {
        self.bulletin.forget(key);
        if let Some(info) = info {
            self.note(ctx, Note::Gone(Box::new(info.clone())));
        }
    }

    fn note(&mut self, ctx: &mut Context<'_>, note: Note) {
        self.bulletin.notes.push(note);
        match self.news_due() {
            Some(at) if at > ctx.now => self.wake(at),
            Some(_) | None => self.tell_news(ctx),
        }
    }

    /// When everybody is told what not everybody knows yet.
    pub(super) fn news_due(&self) -> Option<Instant> {
        let waiting = !self.bulletin.notes.is_empty();
        let told = self.bulletin.told.filter(|_| waiting)?;
        let crowd = self.participants.len() > CROWD;
        Some(told + if crowd { CROWD_DISTANCE } else { DISTANCE })
    }

    /// Tells everybody.
    pub(super) fn tell_news(&mut self, ctx: &mut Context<'_>) {
        let news = self.news(self.bulletin.first);
        let (first, end) = (self.bulletin.first, self.bulletin.end());
        for (key, participant) in &mut self.participants {
            let read = participant.news_to.saturating_sub(first) as usize;
            let unread = news.get(read..).unwrap_or_default().iter();
            let unread: Vec<_> = unread.filter_map(|item| item.for_participant(key)).collect();
            participant.news_to = end;
            if !unread.is_empty() {
                ctx.tell(participant.session, SessionEvent::Participants(unread));
            }
        }
        self.bulletin.first = end;
        self.bulletin.notes.clear();
        self.bulletin.told = Some(ctx.now);
    }

    /// Tells one participant what it does not know yet.
    pub(super) fn tell_news_to(&mut self, ctx: &mut Context<'_>, key: usize) {
        let Some(participant) = self.participants.get(key) else { return };
        let (session, from) = (participant.session, participant.news_to);
        if from >= self.bulletin.end() {
            return;
        }
        let news = self.news(from);
        let news: Vec<_> = news.iter().filter_map(|item| item.for_participant(key)).collect();
        let end = self.bulletin.end();
        if let Some(participant) = self.participants.get_mut(key) {
            participant.news_to = end;
        }
        if !news.is_empty() {
            ctx.tell(session, SessionEvent::Participants(news));
        }
    }

    /// What the notes from a number on come to by now.
    fn news(&self, from: u64) -> Vec<News> {
        let notes = self.bulletin.since(from).iter();
        let item = |note: &Note| match note {
            Note::Of(key) => {
                News { of: Some(*key), info: self.info_of(*key).filter(|info| !info.grant.hidden) }
            }
            Note::Gone(info) => {
                let hides = |(_, other): &(usize, &Participant)| other.sid == info.sid;
                let of = self.participants.iter().find(hides).map(|(key, _)| key);
                News { of, info: Some(ParticipantInfo::clone(info)) }
            }
            Note::Void => News { of: None, info: None },
        };
        notes.map(item).collect()
    }
}

/// What a note comes to.
struct News {
    of: Option<usize>,
    info: Option<ParticipantInfo>,
}

impl News {
    /// Nobody is told of itself here.
    fn for_participant(&self, key: usize) -> Option<ParticipantInfo> {
        self.info.clone().filter(|_| self.of != Some(key))
    }
}
