//! What rooms tell, as events for whoever listens to rooms: opened and gone, who came and left, what
//! is published.
//!
//! A [`Book`] compares each fact with what it knew. So a fact that comes twice tells nothing twice,
//! and what was lost on the way is told when the next whole truth shows it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use aws_lc_rs::digest::{SHA256, digest};
use bedside_signaling::livekit::webhook::{self, RoomNews};
use bedside_signaling::rooms::Fact;
use bedside_signaling::{
    LeaveReason, ParticipantInfo, ParticipantSid, ParticipantState, RoomInfo, TrackInfo,
};
use chrono::{DateTime, Utc};
use tokio::sync::mpsc;
use uuid::Uuid;

use super::{Event, News, Told};
use crate::control::Control;
use crate::store::outbox::Along;
use crate::{checks, store};

/// So many events may wait for the database.
const QUEUE: usize = 10_000;
/// So many are stored together.
const BATCH: usize = 256;
/// How often storing them is tried while the database is away.
const ATTEMPTS: u32 = 600;
const PAUSE: Duration = Duration::from_secs(1);

/// Every open room with everyone in it, as it was told.
#[derive(Debug, Default)]
pub(crate) struct Book {
    rooms: BTreeMap<String, Page>,
}

#[derive(Debug)]
struct Page {
    info: RoomInfo,
    people: BTreeMap<ParticipantSid, ParticipantInfo>,
}

impl Book {
    /// Takes note of a fact; what it tells.
    pub(crate) fn hear(&mut self, fact: &Fact, at: DateTime<Utc>) -> Vec<Event> {
        let mut told = Vec::new();
        match fact {
            Fact::RoomStarted { room, info } => self.started(room, info, at, &mut told),
            Fact::RoomChanged { room, info } => {
                if let Some(page) = self.rooms.get_mut(room) {
                    page.info = info.clone();
                }
            }
            Fact::Participant { room, info } => {
                if let Some(page) = self.rooms.get_mut(room) {
                    page.note(info, at, &mut told);
                }
            }
            Fact::RoomFinished { room, reason } => self.finished(room, *reason, at, &mut told),
            Fact::Snapshot { rooms } => self.compare(rooms, at, &mut told),
            Fact::Reachable { .. } | Fact::Measured { .. } => {}
        }
        told
    }

    fn started(&mut self, room: &str, info: &RoomInfo, at: DateTime<Utc>, told: &mut Vec<Event>) {
        // A stranger's connection check is nobody's room.
        if checks::is_room(room) || self.rooms.get(room).is_some_and(|p| p.info.sid == info.sid) {
            return;
        }
        self.finished(room, LeaveReason::RoomClosed, at, told);
        let page = Page { info: info.clone(), people: BTreeMap::new() };
        told.push(page.event(&RoomNews::Started, at));
        self.rooms.insert(room.to_owned(), page);
    }

    fn finished(&mut self, room: &str, why: LeaveReason, at: DateTime<Utc>, told: &mut Vec<Event>) {
        let Some(mut page) = self.rooms.remove(room) else { return };
        let people: Vec<ParticipantInfo> = page.people.values().cloned().collect();
        for mut info in people {
            info.state = ParticipantState::Disconnected(why);
            page.note(&info, at, told);
        }
        told.push(page.event(&RoomNews::Finished(why), at));
    }

    fn compare(
        &mut self,
        rooms: &[(String, Option<RoomInfo>, Vec<ParticipantInfo>)],
        at: DateTime<Utc>,
        told: &mut Vec<Event>,
    ) {
        let known: Vec<String> = self.rooms.keys().cloned().collect();
        for room in known.iter().filter(|room| rooms.iter().all(|(name, ..)| name != *room)) {
            self.finished(room, LeaveReason::RoomClosed, at, told);
        }
        for (room, info, people) in rooms {
            if let Some(info) = info {
                self.started(room, info, at, told);
            }
            let Some(page) = self.rooms.get_mut(room) else { continue };
            let here = |sid: &ParticipantSid| people.iter().any(|info| info.sid == *sid);
            let gone = page.people.values().filter(|info| !here(&info.sid)).cloned();
            for mut info in gone.collect::<Vec<_>>() {
                info.state = ParticipantState::Disconnected(LeaveReason::ConnectionTimeout);
                page.note(&info, at, told);
            }
            for info in people {
                page.note(info, at, told);
            }
        }
    }
}

impl Page {
    fn note(&mut self, info: &ParticipantInfo, at: DateTime<Utc>, told: &mut Vec<Event>) {
        let was_active = |info: &ParticipantInfo| info.state == ParticipantState::Active;
        let before = match info.state {
            ParticipantState::Disconnected(_) => self.people.remove(&info.sid),
            ParticipantState::Joined | ParticipantState::Active => {
                self.people.insert(info.sid.clone(), info.clone())
            }
        };
        let active = before.as_ref().is_some_and(was_active);
        let tracks = before.map(|before| before.tracks).unwrap_or_default();
        let has =
            |tracks: &[TrackInfo], track: &TrackInfo| tracks.iter().any(|t| t.sid == track.sid);
        match info.state {
            ParticipantState::Joined => {}
            ParticipantState::Active => {
                if !active {
                    told.push(self.event(&RoomNews::Joined(info), at));
                }
                for track in tracks.iter().filter(|track| active && !has(&info.tracks, track)) {
                    told.push(self.event(&RoomNews::Unpublished(info, track), at));
                }
                for track in info.tracks.iter().filter(|track| !active || !has(&tracks, track)) {
                    told.push(self.event(&RoomNews::Published(info, track), at));
                }
            }
            ParticipantState::Disconnected(_) if active => {
                for track in &tracks {
                    told.push(self.event(&RoomNews::Unpublished(info, track), at));
                }
                told.push(self.event(&RoomNews::Left(info), at));
            }
            ParticipantState::Disconnected(_) => {
                told.push(self.event(&RoomNews::Aborted(info), at));
            }
        }
    }

    fn event(&self, news: &RoomNews<'_>, at: DateTime<Utc>) -> Event {
        let counted =
            || self.people.values().filter(|info| !info.grant.hidden && !info.grant.recorder);
        let publishers = counted().filter(|info| !info.tracks.is_empty()).count();
        let room = RoomInfo {
            participants: u32::try_from(counted().count()).unwrap_or(u32::MAX),
            publishers: u32::try_from(publishers).unwrap_or(u32::MAX),
            recording: self.people.values().any(|info| info.grant.recorder),
            ..self.info.clone()
        };
        let id = Uuid::now_v7();
        let body = webhook::message(news, &room, id.to_string(), at.timestamp());
        let news = News::Room {
            name: news.name().to_owned(),
            room: room_id(&self.info),
            body: Told(body),
        };
        Event { id, at, clinic: String::new(), correlation_id: None, about: None, news }
    }
}

/// Stands for one life of a room, where consultations have their id: what is refused holds up only
/// what comes after it in the same room.
fn room_id(info: &RoomInfo) -> Uuid {
    let hash = digest(&SHA256, info.sid.0.as_bytes());
    let mut bytes = [0; 16];
    bytes.iter_mut().zip(hash.as_ref()).for_each(|(byte, hashed)| *byte = *hashed);
    uuid::Builder::from_custom_bytes(bytes).into_uuid()
}

/// The book, and the way from it to the outbox.
pub(crate) struct Reporter {
    book: Mutex<Book>,
    queue: mpsc::Sender<Event>,
    to_store: tokio::sync::Mutex<mpsc::Receiver<Event>>,
}

impl Default for Reporter {
    fn default() -> Self {
        let (queue, to_store) = mpsc::channel(QUEUE);
        Self { book: Mutex::default(), queue, to_store: tokio::sync::Mutex::new(to_store) }
    }
}

impl Control {
    /// Tells those who listen to rooms. Never waits: rooms go on while the database is away.
    pub(crate) fn report(&self, fact: &Fact) {
        if self.room_sinks.is_empty() {
            return;
        }
        let mut book = self.reporter.book.lock().unwrap_or_else(PoisonError::into_inner);
        for event in book.hear(fact, store::now()) {
            if self.reporter.queue.try_send(event).is_err() {
                self.counters.room_events_lost.add();
            }
        }
    }
}

/// Stores what rooms tell until the process ends.
pub(crate) async fn keep(control: Arc<Control>) {
    let mut to_store = control.reporter.to_store.lock().await;
    let mut events = Vec::with_capacity(BATCH);
    while to_store.recv_many(&mut events, BATCH).await > 0 {
        let along = Along { events: &events, sinks: &control.room_sinks, message: None };
        let mut attempts = 0;
        while control.within(control.db.append_events(&along, store::now())).await.is_err() {
            attempts += 1;
            if attempts >= ATTEMPTS {
                events.iter().for_each(|_| control.counters.room_events_lost.add());
                tracing::error!(events = events.len(), "what rooms told could not be stored");
                break;
            }
            tokio::time::sleep(PAUSE).await;
        }
        events.clear();
        control.outbox_rang.notify_waiters();
    }
}

#[cfg(test)]
mod tests;
