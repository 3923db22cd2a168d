//! The sessions behind the doors: how one is opened, and the task that keeps it.
//!
//! A session has no way to speak to its client, so the task takes the engine's events and acts for it:
//! it resumes when events were lost or media fell silent, and it ends when the participant does.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use axum::http::StatusCode;
use bedside_sfu::core::api::{
    AddTrack, Command, Grant, Join, LeaveReason, ParticipantInfo, ParticipantSid, ParticipantState,
    Private, Profile, Refusal, Request, Resume, SessionEvent,
};
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;
use tracing::{debug, info};

use super::fragment::{self, Fragment, IceNames};
use crate::dispatch::{Cut, Place, Shared};
use crate::engine::Busy;
use crate::livekit::door::{Reject, refuse};
use crate::quirks;
use crate::rooms::RoomPlan;

/// How long the engine may take for an answer; it takes milliseconds.
const ANSWER: Duration = Duration::from_secs(5);
/// Requests of one client that may wait.
const ASKS: usize = 8;

/// All sessions that are open, by their secret names.
#[derive(Default)]
pub(super) struct Table {
    sessions: Mutex<HashMap<Arc<str>, Handle>>,
}

/// A session as requests see it.
#[derive(Clone)]
pub(super) struct Handle {
    /// The room's name.
    pub(super) room: Arc<str>,
    /// Whose it is.
    pub(super) identity: Private<Arc<str>>,
    /// A token that was good then is good for this session.
    pub(super) opened: SystemTime,
    asks: mpsc::Sender<Ask>,
}

/// What a request asks of a session's task.
enum Ask {
    Patch(Fragment, Precondition, oneshot::Sender<Result<Patched, Unpatched>>),
    Close,
}

/// Which ICE session a fragment is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Precondition {
    /// Whichever it is.
    Any,
    /// One of these.
    Tags(Vec<String>),
}

/// What became of a fragment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Patched {
    /// Candidates were taken note of.
    Trickled,
    /// ICE has begun anew.
    Restarted {
        /// Our side of it.
        fragment: String,
        /// Names the new ICE session.
        etag: String,
    },
}

/// Why a fragment was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unpatched {
    /// It is for another ICE session than the one at hand.
    Stale,
    /// The session is over.
    Gone,
    /// The engine does not answer.
    Busy,
}

/// Somebody who may come in.
pub(super) struct Visit {
    pub(super) room: String,
    pub(super) plan: RoomPlan,
    pub(super) profile: Profile,
    pub(super) grant: Grant,
    pub(super) offer: String,
    pub(super) purpose: Purpose,
    /// When the request came.
    pub(super) asked: Instant,
}

/// What somebody comes for.
pub(super) enum Purpose {
    /// To publish these.
    Publish(Vec<AddTrack>),
    /// To watch somebody; `None`: whoever is first to have a picture.
    Watch(Option<Private<String>>),
}

/// A session that has its answer.
pub(super) struct Opened {
    pub(super) id: Arc<str>,
    pub(super) participant: ParticipantSid,
    pub(super) answer: String,
    pub(super) etag: String,
}

impl Table {
    /// The session of that name.
    pub(super) fn find(&self, id: &str) -> Option<Handle> {
        self.lock().get(id).cloned()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Arc<str>, Handle>> {
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Handle {
    /// Candidates, or new credentials.
    pub(super) async fn patch(
        &self,
        fragment: Fragment,
        condition: Precondition,
    ) -> Result<Patched, Unpatched> {
        let (answer, answered) = oneshot::channel();
        let sent = self.asks.try_send(Ask::Patch(fragment, condition, answer));
        sent.map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => Unpatched::Busy,
            mpsc::error::TrySendError::Closed(_) => Unpatched::Gone,
        })?;
        match timeout(ANSWER, answered).await {
            Ok(Ok(result)) => result,
            // A later restart took its place, or the session ended.
            Ok(Err(_)) if self.asks.is_closed() => Err(Unpatched::Gone),
            Ok(Err(_)) | Err(_) => Err(Unpatched::Busy),
        }
    }

    /// Ends the session; it may have ended already.
    pub(super) async fn close(&self) {
        // The task ends for good, so it takes what waits in time.
        let _gone = self.asks.send(Ask::Close).await;
        let _late = timeout(ANSWER, self.asks.closed()).await;
    }
}

/// Brings somebody in and gets the answer to the offer. Whatever fails, nobody is in the room.
pub(super) async fn open(
    shared: &Arc<Shared>,
    table: &Arc<Table>,
    visit: Visit,
) -> Result<Opened, Reject> {
    let counters = &shared.counters;
    let late = |_| {
        let text = "the media node does not answer";
        refuse(&counters.refused_unavailable, StatusCode::SERVICE_UNAVAILABLE, text)
    };
    let (place, me) = timeout(ANSWER, join(shared, &visit)).await.map_err(late)??;
    let (place, answer) = timeout(ANSWER, ask(shared, place, &visit)).await.map_err(late)??;
    let id = secret(shared)?;
    let etag = format!("\"{}\"", secret(shared)?);
    let names = fragment::names_of(&visit.offer);
    let (asks, to_answer) = mpsc::channel(ASKS);
    let handle = Handle {
        room: visit.room.as_str().into(),
        identity: Private::new(me.profile.identity.reveal().as_str().into()),
        opened: SystemTime::now(),
        asks,
    };
    table.lock().insert(Arc::clone(&id), handle);
    counters.joins.up();
    info!(
        session = place.session.0,
        room = place.room.0,
        participant = &*me.sid.0,
        "a session is open over HTTP"
    );
    let task = Task {
        shared: Arc::clone(shared),
        table: Arc::clone(table),
        id: Arc::clone(&id),
        place,
        participant: me.sid.clone(),
        identity: me.profile.identity.clone(),
        offer: visit.offer,
        names,
        etag: etag.clone(),
        offers: 1,
        restarting: None,
        asked: Some(visit.asked),
    };
    tokio::spawn(task.run(to_answer));
    Ok(Opened { id, participant: me.sid, answer, etag })
}

/// Takes a place and waits until the engine has let it in. A room that closes meanwhile is opened again.
async fn join(shared: &Arc<Shared>, visit: &Visit) -> Result<(Place, ParticipantInfo), Reject> {
    let mut retried = false;
    loop {
        let room = shared.open_room(&visit.room, &visit.plan).map_err(|Busy| busy(shared))?;
        let mut place = shared.seat(room);
        let join = Command::Join(Box::new(Join {
            room,
            session: place.session,
            profile: visit.profile.clone(),
            grant: visit.grant.clone(),
            auto_subscribe: false,
            adaptive_stream: false,
            allow_pause: true,
            client: quirks::http_traits(),
        }));
        shared.send(room, join).map_err(|Busy| busy(shared))?;
        match place.events.recv().await {
            Some(SessionEvent::Joined { me, .. }) => {
                shared.take_over(place.session, &me.sid);
                return Ok((place, me));
            }
            Some(SessionEvent::Refused(Refusal::NoRoom)) if !retried => {
                retried = true;
                shared.forget_room(room);
            }
            Some(SessionEvent::Refused(refusal)) => return Err(refused(shared, refusal)),
            Some(_) | None => return Err(busy(shared)),
        }
    }
}

/// Says what it comes for, hands in the offer and waits for its answer. Who has the place has the
/// participant: when it is dropped before media is up, the engine removes it.
async fn ask(
    shared: &Arc<Shared>,
    mut place: Place,
    visit: &Visit,
) -> Result<(Place, String), Reject> {
    let mut requests: Vec<Request> = match &visit.purpose {
        Purpose::Publish(tracks) => {
            tracks.iter().map(|track| Request::AddTrack(Box::new(track.clone()))).collect()
        }
        Purpose::Watch(publisher) => vec![Request::Watch { publisher: publisher.clone() }],
    };
    requests.push(Request::Offer { id: 1, sdp: visit.offer.clone() });
    for request in requests {
        let command = Command::Request { session: place.session, request };
        shared.send(place.room, command).map_err(|Busy| busy(shared))?;
    }
    loop {
        match place.events.recv().await {
            Some(SessionEvent::Answer { id: 1, sdp, .. }) => return Ok((place, sdp)),
            Some(SessionEvent::TrackRefused { refusal, .. }) => {
                return Err(refused(shared, refusal));
            }
            Some(SessionEvent::Left { reason, .. }) => return Err(ended(shared, reason)),
            Some(_) => {}
            None => return Err(busy(shared)),
        }
    }
}

fn busy(shared: &Shared) -> Reject {
    let counter = &shared.counters.refused_unavailable;
    refuse(counter, StatusCode::SERVICE_UNAVAILABLE, "the media node is busy")
}

fn refused(shared: &Shared, refusal: Refusal) -> Reject {
    let counters = &shared.counters;
    match refusal {
        Refusal::NoRoom | Refusal::NoParticipant | Refusal::NoTrack => refuse(
            &counters.refused_no_room,
            StatusCode::NOT_FOUND,
            "requested room does not exist",
        ),
        Refusal::RoomFull => refuse(&counters.refused_full, StatusCode::FORBIDDEN, "room is full"),
        Refusal::NotAllowed | Refusal::Encrypted => {
            refuse(&counters.refused_not_allowed, StatusCode::FORBIDDEN, "permissions denied")
        }
        Refusal::LimitExceeded
        | Refusal::BadOffer
        | Refusal::InvalidHandle
        | Refusal::DuplicateHandle
        | Refusal::InvalidName
        | Refusal::DuplicateName => unanswerable(shared),
        Refusal::Draining => busy(shared),
    }
}

fn ended(shared: &Shared, reason: LeaveReason) -> Reject {
    match reason {
        LeaveReason::StateMismatch | LeaveReason::MediaFailure | LeaveReason::JoinFailure => {
            unanswerable(shared)
        }
        LeaveReason::ParticipantRemoved | LeaveReason::DuplicateIdentity => {
            refused(shared, Refusal::NotAllowed)
        }
        LeaveReason::RoomDeleted | LeaveReason::RoomClosed => refused(shared, Refusal::NoRoom),
        LeaveReason::ServerShutdown
        | LeaveReason::ClientInitiated
        | LeaveReason::ConnectionTimeout => busy(shared),
    }
}

fn unanswerable(shared: &Shared) -> Reject {
    let text = "the offer cannot be answered";
    refuse(&shared.counters.refused_bad_request, StatusCode::UNPROCESSABLE_ENTITY, text)
}

/// 128 bits that nobody can guess.
fn secret(shared: &Shared) -> Result<Arc<str>, Reject> {
    let mut bytes = [0; 16];
    aws_lc_rs::rand::fill(&mut bytes).map_err(|_| busy(shared))?;
    Ok(format!("{:032x}", u128::from_be_bytes(bytes)).into())
}

/// One session, from its answer to its end.
struct Task {
    shared: Arc<Shared>,
    table: Arc<Table>,
    id: Arc<str>,
    place: Place,
    participant: ParticipantSid,
    identity: Private<String>,
    /// The only offer; restarts change its credentials.
    offer: String,
    names: Option<IceNames>,
    etag: String,
    /// Number of the last offer.
    offers: u32,
    restarting: Option<Restart>,
    /// When its request came, until its media is up.
    asked: Option<Instant>,
}

/// A restart that waits for the engine's answer.
struct Restart {
    offer: u32,
    names: IceNames,
    answer: oneshot::Sender<Result<Patched, Unpatched>>,
}

/// Whether a session goes on.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Flow {
    On,
    End,
}

impl Task {
    async fn run(mut self, mut asks: mpsc::Receiver<Ask>) {
        loop {
            let flow = tokio::select! {
                event = self.place.events.recv() => match event {
                    Some(event) => self.event(event),
                    None => self.resume(),
                },
                changed = self.place.cut.changed() => {
                    match changed.ok().and_then(|()| *self.place.cut.borrow_and_update()) {
                        Some(Cut::Superseded | Cut::Shutdown) => Flow::End,
                        Some(Cut::Resume) | None => self.resume(),
                    }
                }
                ask = asks.recv() => match ask {
                    Some(Ask::Patch(fragment, condition, answer)) => {
                        self.patch(&fragment, &condition, answer);
                        Flow::On
                    }
                    Some(Ask::Close) | None => {
                        self.request(Request::Leave);
                        Flow::End
                    }
                },
            };
            if flow == Flow::End {
                break;
            }
        }
        debug!(session = self.place.session.0, "a session over HTTP has ended");
    }

    fn event(&mut self, event: SessionEvent) -> Flow {
        match event {
            SessionEvent::Answer { id, sdp, mid_to_track: _ } => self.answered(id, &sdp),
            SessionEvent::Participants(everyone) => self.look_for_oneself(&everyone),
            // There is nobody to ask: whoever looks at the track is to see what is wanted of it.
            SessionEvent::MuteRequested { track, muted } => {
                self.request(Request::Mute { track, muted });
            }
            SessionEvent::Left { resume: false, .. } | SessionEvent::Refused(_) => {
                return Flow::End;
            }
            // Its media fell silent. It may come back by itself, or with new credentials.
            SessionEvent::Left { resume: true, .. } => return self.resume(),
            SessionEvent::Joined { .. }
            | SessionEvent::Resumed { .. }
            | SessionEvent::Offer { .. }
            | SessionEvent::SectionsNeeded { .. }
            | SessionEvent::TrackPublished { .. }
            | SessionEvent::TrackRefused { .. }
            | SessionEvent::TrackUnpublished { .. }
            | SessionEvent::TrackSubscribed { .. }
            | SessionEvent::SubscriptionAllowed { .. }
            | SessionEvent::SubscriptionFailed { .. }
            | SessionEvent::ProfileUpdated { .. }
            | SessionEvent::GrantChanged(_)
            | SessionEvent::Speakers(_)
            | SessionEvent::SubscribedQuality { .. }
            | SessionEvent::StreamState { .. }
            | SessionEvent::Quality(_)
            | SessionEvent::DataTrack(_)
            | SessionEvent::Room(_) => {}
        }
        Flow::On
    }

    /// A new session of the same participant. It takes over before the old one is gone: without a
    /// session, who has no media yet would be removed.
    fn resume(&mut self) -> Flow {
        let place = self.shared.seat(self.place.room);
        let resume = Command::Resume(Box::new(Resume {
            room: place.room,
            session: place.session,
            participant: self.participant.clone(),
            identity: self.identity.clone(),
        }));
        if self.shared.send(place.room, resume).is_err() {
            return Flow::End;
        }
        self.shared.take_over(place.session, &self.participant);
        self.place = place;
        Flow::On
    }

    fn patch(
        &mut self,
        fragment: &Fragment,
        condition: &Precondition,
        answer: oneshot::Sender<Result<Patched, Unpatched>>,
    ) {
        let meant = match condition {
            Precondition::Any => true,
            Precondition::Tags(tags) => tags.contains(&self.etag),
        };
        let fresh = fragment.names.as_ref().filter(|names| self.names.as_ref() != Some(*names));
        let told = match fresh {
            _ if !meant => Err(Unpatched::Stale),
            // The server is checked and checks nobody: candidates are not needed.
            None => Ok(Patched::Trickled),
            Some(names) => {
                self.offers += 1;
                let sdp = fragment::rename(&self.offer, names);
                self.restarting =
                    Some(Restart { offer: self.offers, names: names.clone(), answer });
                if !self.request(Request::Offer { id: self.offers, sdp }) {
                    self.restarting = None;
                }
                return;
            }
        };
        // Whoever asked has gone away.
        let _nobody = answer.send(told);
    }

    fn answered(&mut self, id: u32, sdp: &str) {
        let Some(restart) = self.restarting.take_if(|restart| restart.offer == id) else { return };
        let tag = secret(&self.shared).ok();
        let told = match tag.zip(fragment::of_answer(sdp)) {
            Some((tag, fragment)) => {
                self.etag = format!("\"{tag}\"");
                self.names = Some(restart.names);
                Ok(Patched::Restarted { fragment, etag: self.etag.clone() })
            }
            None => Err(Unpatched::Busy),
        };
        let _nobody = restart.answer.send(told);
    }

    fn look_for_oneself(&mut self, everyone: &[ParticipantInfo]) {
        let mut me = everyone.iter().filter(|info| info.sid == self.participant);
        if me.any(|info| info.state == ParticipantState::Active)
            && let Some(asked) = self.asked.take()
        {
            self.shared.counters.join_times.record(asked.elapsed());
        }
    }

    fn request(&self, request: Request) -> bool {
        let command = Command::Request { session: self.place.session, request };
        self.shared.send(self.place.room, command).is_ok()
    }
}

impl Drop for Task {
    fn drop(&mut self) {
        self.table.lock().remove(&self.id);
    }
}
