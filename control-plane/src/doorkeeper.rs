//! Who may enter a room: asked by signaling at every join. And what rooms tell us.

use std::sync::Arc;
use std::time::Duration;

use axum::http::StatusCode;
use bedside_signaling::rooms::{Administered, DoorRefusal, Doorkeeper, Fact, RoomPlan};
use bedside_signaling::token::Claims;
use bedside_signaling::{LeaveReason, ParticipantInfo, ParticipantState, Source, Stay};
use futures_util::future::BoxFuture;

use crate::Private;
use crate::audit::{Entry, Outcome, Who};
use crate::consultation::{Actor, Consultation, Figures, Presence, Sense, Step};
use crate::control::Control;
use crate::live::LiveSession;
use crate::{checks, rooms};

/// How long the door waits for the database about a room that nobody remembers.
const LOOK_UP: Duration = Duration::from_secs(2);

/// How long a room stands empty before it closes.
const EMPTY_TIMEOUT: Duration = Duration::from_secs(300);

/// How long a room without a consultation stays when everybody has left.
const DEPARTURE_TIMEOUT: Duration = Duration::from_secs(20);

/// The doorkeeper of every room of this process.
pub(crate) struct Door(pub(crate) Arc<Control>);

impl Doorkeeper for Door {
    fn room<'a>(&'a self, claims: &'a Claims) -> BoxFuture<'a, Result<RoomPlan, DoorRefusal>> {
        Box::pin(async move {
            let answer = self.0.open_door(claims.room(), claims.identity()).await;
            if answer.is_err() {
                self.0.counters.refused_doors.add();
            }
            answer
        })
    }

    fn create<'a>(&'a self, room: &'a str) -> BoxFuture<'a, Result<RoomPlan, DoorRefusal>> {
        Box::pin(self.0.may_open(room))
    }

    fn administered(&self, call: &Administered<'_>) {
        // Rooms without a consultation hold nothing of a clinic's.
        let live = self.0.live.of_room(call.room);
        let Some(consultation) = live.and_then(|live| live.consultation()) else { return };
        let who = Who {
            clinic: consultation.clinic.clone(),
            id: call.claims.issuer.clone(),
            kind: "operator",
            credential: None,
        };
        let outcome = StatusCode::from_u16(call.status).map_or(Outcome::Failed, Outcome::of);
        let mut entry = Entry::new(who, format!("room {}", call.call), outcome);
        entry.session_id = Some(consultation.id);
        // The row waits for the database where it must: rooms do not.
        self.0.audit(entry);
    }
}

impl Control {
    /// Consultations are answered from memory; only one that nobody has touched since the start
    /// is looked up.
    async fn open_door(&self, room: &str, identity: &str) -> Result<RoomPlan, DoorRefusal> {
        if let Some(answer) = checks::open_door(room, crate::store::now()) {
            return answer;
        }
        if !rooms::is_consultation(room) {
            let open = self.config.auto_create;
            return open.then(plan_of_others).ok_or(DoorRefusal::NoRoom);
        }
        let consultation = self.consultation_of(room).await.ok_or(DoorRefusal::NoRoom)?;
        if !consultation.may_enter(identity) {
            return Err(DoorRefusal::NotAllowed);
        }
        Ok(plan_of(&consultation))
    }

    /// The plan of a room that an administrator wants to be there.
    async fn may_open(&self, room: &str) -> Result<RoomPlan, DoorRefusal> {
        if checks::is_room(room) {
            return Err(DoorRefusal::NotAllowed);
        }
        if !rooms::is_consultation(room) {
            let may = self.config.auto_create || self.config.create_by_call;
            return may.then(plan_of_others).ok_or(DoorRefusal::NotAllowed);
        }
        let consultation = self.consultation_of(room).await.ok_or(DoorRefusal::NoRoom)?;
        if consultation.status.is_over() {
            return Err(DoorRefusal::NoRoom);
        }
        Ok(plan_of(&consultation))
    }

    /// The consultation that a room belongs to.
    async fn consultation_of(&self, room: &str) -> Option<Arc<Consultation>> {
        match self.live.of_room(room).and_then(|live| live.consultation()) {
            Some(consultation) => Some(consultation),
            None => self.look_up_room(room).await.map(Arc::new),
        }
    }

    async fn look_up_room(&self, room: &str) -> Option<Consultation> {
        match tokio::time::timeout(LOOK_UP, self.db.session_of_room(room)).await {
            Ok(Ok(found)) => found,
            Ok(Err(_)) | Err(_) => {
                self.counters.database_failures.add();
                tracing::warn!("the database did not answer the doorkeeper");
                None
            }
        }
    }

    /// Takes in what a room tells.
    pub(crate) fn hear(self: &Arc<Self>, fact: Fact) {
        self.report(&fact);
        match fact {
            Fact::RoomStarted { room, info } => {
                if let Some(live) = self.live.of_room(&room) {
                    self.note(&live, Step::OpenRoom { sid: info.sid.0.to_string() });
                }
            }
            Fact::Participant { room, info } => {
                let Some(live) = self.live.of_room(&room) else { return };
                if let Some(step) = attempt_of(&live, &info) {
                    self.note(&live, step);
                }
                if let Some(step) = step_of(&info).filter(|_| !is_still_silent(&live, &info)) {
                    self.note(&live, step);
                }
                for step in mutes_of(&live, &info) {
                    self.note(&live, step);
                }
            }
            // Clients are told by the room itself.
            Fact::RoomChanged { .. } => {}
            Fact::Reachable { room, identity, reachable } => {
                let Some(live) = self.live.of_room(&room) else { return };
                let who = identity.reveal().clone();
                let step = if reachable {
                    live.inner().silent.remove(&who);
                    Step::Connect(who)
                } else {
                    let since = crate::store::now().timestamp_millis();
                    live.inner().silent.insert(who.clone(), since);
                    Step::Lose(who)
                };
                self.note(&live, step);
            }
            Fact::Measured { room, identity, stay } => self.measured(room, &identity, &stay),
            Fact::RoomFinished { room, reason: _ } => {
                if let Some(live) = self.live.of_room(&room) {
                    self.reconcile(&live, &[]);
                }
            }
            Fact::Snapshot { rooms } => {
                for live in self.live.all() {
                    let Some(consultation) = live.consultation() else { continue };
                    let room = rooms.iter().find(|(name, ..)| *name == consultation.room_name);
                    self.reconcile(&live, room.map_or(&[], |(_, _, people)| people.as_slice()));
                }
            }
        }
    }

    /// What was measured of a stay. It mostly comes when a consultation has just ended and nobody
    /// has it in memory any more.
    fn measured(self: &Arc<Self>, room: String, identity: &Private<String>, stay: &Stay) {
        if !rooms::is_consultation(&room) {
            return;
        }
        let figures = Figures {
            seconds: i64::from(stay.seconds),
            score: Some(stay.score),
            packet_loss_percent: stay.lost_percent,
            video_bitrate_bps: stay.video_bps.and_then(|bps| i64::try_from(bps).ok()),
            audio_level: stay.audio_level,
        };
        let step = Step::Measure { user_id: identity.reveal().clone(), figures };
        if let Some(live) = self.live.of_room(&room) {
            self.note(&live, step);
            return;
        }
        let control = Arc::clone(self);
        tokio::spawn(async move {
            let Some(consultation) = control.look_up_room(&room).await else { return };
            let (clinic, id) = (&consultation.clinic, consultation.id);
            if let Err(error) = control.step(clinic, id, &Actor::Server, &step).await {
                tracing::warn!(%error, session = %id, "what was measured could not be stored");
            }
        });
    }

    /// The whole truth about one room: whoever is not in it without a word has lost its connection,
    /// or the process that carried it; it may come back.
    fn reconcile(self: &Arc<Self>, live: &Arc<LiveSession>, present: &[ParticipantInfo]) {
        let Some(consultation) = live.consultation() else { return };
        for person in &consultation.people {
            let here = present.iter().any(|info| {
                *info.profile.identity.reveal() == person.user_id
                    && matches!(info.state, ParticipantState::Joined | ParticipantState::Active)
            });
            let believed = matches!(person.presence, Presence::Connected | Presence::Reconnecting);
            if believed && !here {
                live.inner().silent.remove(&person.user_id);
                self.note(live, Step::Lose(person.user_id.clone()));
            }
        }
        for info in present.iter().filter(|info| !is_still_silent(live, info)) {
            if let Some(step) = step_of(info) {
                self.note(live, step);
            }
        }
    }
}

/// The room of a consultation: its settings are the consultation's to decide.
fn plan_of(consultation: &Consultation) -> RoomPlan {
    RoomPlan {
        max_participants: u32::try_from(consultation.max_participants).unwrap_or(2),
        metadata: String::new(),
        empty_timeout: Some(EMPTY_TIMEOUT),
        departure_timeout: Some(EMPTY_TIMEOUT),
        playout_delay: None,
        fixed: true,
    }
}

/// A room without a consultation, as long as nobody says anything else of it.
fn plan_of_others() -> RoomPlan {
    RoomPlan {
        empty_timeout: Some(EMPTY_TIMEOUT),
        departure_timeout: Some(DEPARTURE_TIMEOUT),
        ..RoomPlan::default()
    }
}

/// Whoever resumes only the signal session is active for the engine, but still not to be heard:
/// that takes media again, or a new presence.
fn is_still_silent(live: &LiveSession, info: &ParticipantInfo) -> bool {
    let who = info.profile.identity.reveal();
    let mut inner = live.inner();
    match (info.state, inner.silent.get(who)) {
        (_, None) | (ParticipantState::Joined, _) => false,
        (ParticipantState::Active, Some(since)) if info.joined_at_ms <= *since => true,
        (ParticipantState::Disconnected(LeaveReason::DuplicateIdentity), _) => false,
        (ParticipantState::Active | ParticipantState::Disconnected(_), Some(_)) => {
            inner.silent.remove(who);
            false
        }
    }
}

/// What a participant's state means for its person.
fn step_of(info: &ParticipantInfo) -> Option<Step> {
    let who = info.profile.identity.reveal().clone();
    match info.state {
        ParticipantState::Joined => None,
        ParticipantState::Active => Some(Step::Connect(who)),
        ParticipantState::Disconnected(reason) => match reason {
            // The same person is in the room by another device.
            LeaveReason::DuplicateIdentity => None,
            LeaveReason::ClientInitiated
            | LeaveReason::ParticipantRemoved
            | LeaveReason::RoomDeleted
            | LeaveReason::RoomClosed => Some(Step::Disconnect(who)),
            // Nobody meant it to go.
            LeaveReason::ServerShutdown
            | LeaveReason::StateMismatch
            | LeaveReason::JoinFailure
            | LeaveReason::ConnectionTimeout
            | LeaveReason::MediaFailure => Some(Step::Lose(who)),
        },
    }
}

/// Whose camera or microphone was muted since the last word about it, or was not any more. What is
/// published unmuted is no news.
fn mutes_of(live: &LiveSession, info: &ParticipantInfo) -> Vec<Step> {
    let who = info.profile.identity.reveal();
    let mut inner = live.inner();
    match info.state {
        ParticipantState::Disconnected(_) => {
            inner.muted.retain(|(user_id, _), _| user_id != who);
            return Vec::new();
        }
        ParticipantState::Joined => return Vec::new(),
        ParticipantState::Active => {}
    }
    let sense = |source| match source {
        Source::Camera => Some(Sense::Video),
        Source::Microphone => Some(Sense::Audio),
        Source::Unknown | Source::Screen | Source::ScreenAudio => None,
    };
    let mut steps = Vec::new();
    for track in &info.tracks {
        let Some(sense) = sense(track.announced.source) else { continue };
        let muted = track.muted;
        let before = inner.muted.insert((who.clone(), sense), muted).unwrap_or(false);
        if before != muted {
            steps.push(Step::Mute { user_id: who.clone(), sense, muted });
        }
    }
    steps
}

/// Somebody comes in anew: an attempt to come back, if its connection is lost. Counted once for
/// each presence.
fn attempt_of(live: &LiveSession, info: &ParticipantInfo) -> Option<Step> {
    let who = info.profile.identity.reveal().clone();
    if info.state != ParticipantState::Joined {
        return None;
    }
    let before = live.inner().presences.insert(who.clone(), info.sid.clone());
    (before.as_ref() != Some(&info.sid)).then_some(Step::Attempt(who))
}

#[cfg(test)]
mod tests;
