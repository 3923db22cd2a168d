//! What happens when nobody does anything: no-shows, empty rooms, lost connections, overruns.
//!
//! Nothing here counts down. When a timer is due follows from the stored times of a consultation
//! ([`due`]), so a restart changes nothing: whatever fell due meanwhile is done at the start. The
//! time of the next one is stored with each change. A process rings its own consultations from
//! memory; now and then it asks the database, by an index, for those that nobody rang, be it that
//! they are not in memory or that the process that had them is gone. Where several processes ring
//! at once, the stored revision lets one of them win, and the others notice nothing.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use chrono::{DateTime, Utc};
use futures_util::StreamExt as _;
use uuid::Uuid;

use crate::consultation::{Actor, Consultation, Mode, Person, PersonRole, Presence, Status, Step};
use crate::control::{ChangeError, Control, Tried};
use crate::store;

/// How often the database is asked for what nobody rang.
const LOOK_INTERVAL: Duration = Duration::from_secs(15);
/// Whoever has a consultation in memory rings it first.
const HEAD_START: Duration = Duration::from_secs(5);
/// How many due consultations are read at once.
const LOOK_LIMIT: i64 = 200;
/// How many are rung at the same time.
const AT_ONCE: usize = 8;
/// When to ring again what could not be stored.
const AGAIN: Duration = Duration::from_secs(5);

/// When what nobody ends is ended. Zero = never.
#[derive(Clone, Debug)]
pub struct Timers {
    /// After the planned end of what never began.
    pub no_show_after: Duration,
    /// After the last person of a running consultation has gone.
    pub idle_end_after: Duration,
    /// After the planned end (counted from the real begin) of what still runs, and of what never
    /// began while somebody waits.
    pub overrun_end_after: Duration,
    /// How long a lost connection is waited for.
    pub reconnect_timeout: Duration,
    /// How often a person may try to come back meanwhile.
    pub reconnect_attempts: i64,
}

impl Default for Timers {
    fn default() -> Self {
        Self {
            no_show_after: Duration::from_secs(15 * 60),
            idle_end_after: Duration::from_secs(15 * 60),
            overrun_end_after: Duration::from_secs(2 * 3600),
            reconnect_timeout: Duration::from_secs(60),
            reconnect_attempts: 3,
        }
    }
}

/// The next thing that happens by itself.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Due {
    /// When.
    pub(crate) at: DateTime<Utc>,
    /// What.
    pub(crate) step: Step,
}

/// What happens next to a consultation if nobody does anything.
pub(crate) fn due(consultation: &Consultation, timers: &Timers) -> Option<Due> {
    let course = match consultation.status {
        Status::Scheduled | Status::Waiting => no_show(consultation, timers).into_iter().collect(),
        Status::InProgress | Status::Paused => running(consultation, timers),
        Status::Completed | Status::Cancelled | Status::NoShow | Status::Failed => return None,
    };
    let losses = consultation.people.iter().filter_map(|person| loss(person, timers));
    course.into_iter().chain(losses).min_by_key(|due| due.at)
}

/// Where somebody waits, nobody is called missing for as long as an overrun may last.
fn no_show(consultation: &Consultation, timers: &Timers) -> Option<Due> {
    let somebody = consultation.people.iter().any(|person| person.presence != Presence::Left);
    let grace = if somebody { timers.overrun_end_after } else { timers.no_show_after };
    let came = (consultation.patient_joined_at.is_some(), consultation.doctor_joined_at.is_some());
    let reason = match came {
        (false, false) => "nobody_came",
        (false, true) => "patient_no_show",
        (true, false) => "doctor_no_show",
        (true, true) => "timeout",
    };
    let at = later(planned_end(consultation), grace)?;
    Some(Due { at, step: Step::NoShow(Some(reason.to_owned())) })
}

fn running(consultation: &Consultation, timers: &Timers) -> Vec<Due> {
    let end = |at, reason: &str| Due { at, step: Step::End(Some(reason.to_owned())) };
    let overrun = later(planned_end(consultation), timers.overrun_end_after);
    // Who only writes has no media to be missed.
    let quiet = consultation.quiet_since.filter(|_| consultation.mode != Mode::Chat);
    let idle = quiet.and_then(|since| later(since, timers.idle_end_after));
    let overrun = overrun.map(|at| end(at, "timeout"));
    overrun.into_iter().chain(idle.map(|at| end(at, who_left(consultation)))).collect()
}

/// The planned end, counted from the latest begin that there was.
fn planned_end(consultation: &Consultation) -> DateTime<Utc> {
    let begins = [consultation.actual_start, consultation.reopened_at];
    let begin = begins.into_iter().flatten().fold(consultation.scheduled_start, DateTime::max);
    let minutes = consultation.scheduled_minutes.clamp(0, 24 * 60);
    begin.checked_add_signed(chrono::Duration::minutes(minutes)).unwrap_or(begin)
}

/// Whose leaving ended it: whoever went first, if the other one was there. A connection that was
/// lost is nobody's leaving.
fn who_left(consultation: &Consultation) -> &'static str {
    let left = |role: PersonRole| {
        let mut people = consultation.people.iter();
        let person = people.find(|person| person.role == role)?;
        person.joined_at?;
        Some(person.left_at.filter(|_| !person.connection_lost))
    };
    match (left(PersonRole::Patient), left(PersonRole::Doctor)) {
        (Some(Some(patient)), Some(Some(doctor))) if doctor < patient => "doctor_left",
        (Some(Some(_)), Some(_)) => "patient_left",
        (Some(None), Some(Some(_))) => "doctor_left",
        (Some(None), Some(None)) | (None, _) | (_, None) => "timeout",
    }
}

fn loss(person: &Person, timers: &Timers) -> Option<Due> {
    let since = person.lost_since?;
    let used_up =
        timers.reconnect_attempts > 0 && person.reconnect_attempts > timers.reconnect_attempts;
    let at = if used_up { since } else { later(since, timers.reconnect_timeout)? };
    Some(Due { at, step: Step::GiveUp(person.user_id.clone()) })
}

/// Zero is never, and so is what no calendar holds.
fn later(from: DateTime<Utc>, after: Duration) -> Option<DateTime<Utc>> {
    let after = chrono::Duration::from_std(after).ok().filter(|after| !after.is_zero())?;
    from.checked_add_signed(after)
}

/// The consultations in memory, by when they are due.
#[derive(Default)]
pub(crate) struct Alarms {
    state: Mutex<AlarmState>,
    /// Rung when an earlier one was set.
    set: tokio::sync::Notify,
}

#[derive(Default)]
struct AlarmState {
    by_time: BTreeSet<(DateTime<Utc>, Uuid)>,
    by_id: HashMap<Uuid, (DateTime<Utc>, String)>,
}

impl Alarms {
    fn state(&self) -> MutexGuard<'_, AlarmState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sets the alarm of a consultation, or takes it away.
    pub(crate) fn set(&self, id: Uuid, clinic: &str, at: Option<DateTime<Utc>>) {
        let mut state = self.state();
        if let Some((before, _)) = state.by_id.remove(&id) {
            state.by_time.remove(&(before, id));
        }
        let Some(at) = at else { return };
        let first = state.by_time.first().is_none_or(|(earliest, _)| at < *earliest);
        state.by_time.insert((at, id));
        state.by_id.insert(id, (at, clinic.to_owned()));
        if first {
            self.set.notify_one();
        }
    }

    fn next(&self) -> Option<DateTime<Utc>> {
        self.state().by_time.first().map(|(at, _)| *at)
    }

    /// Takes out everything that is due.
    fn take_due(&self, now: DateTime<Utc>) -> Vec<(String, Uuid)> {
        let mut state = self.state();
        let mut due = Vec::new();
        while let Some((at, id)) = state.by_time.first().copied().filter(|(at, _)| *at <= now) {
            state.by_time.remove(&(at, id));
            due.extend(state.by_id.remove(&id).map(|(_, clinic)| (clinic, id)));
        }
        due
    }
}

impl Control {
    /// Sets the alarm of a consultation that is in memory.
    pub(crate) fn arm(&self, consultation: &Consultation) {
        let due = due(consultation, &self.config.timers);
        self.alarms.set(consultation.id, &consultation.clinic, due.map(|due| due.at));
    }

    /// Rings what is due, for ever.
    pub(crate) async fn keep_time(self: Arc<Self>) {
        let mut look = tokio::time::interval(LOOK_INTERVAL);
        look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            let until = self.alarms.next().map_or(LOOK_INTERVAL, |at| {
                (at - store::now()).to_std().unwrap_or_default().min(LOOK_INTERVAL)
            });
            tokio::select! {
                () = tokio::time::sleep(until) => self.ring_own(store::now()).await,
                () = self.alarms.set.notified() => {}
                _ = look.tick() => self.ring_others(store::now()).await,
            }
        }
    }

    /// Rings what is in memory and due.
    pub(crate) async fn ring_own(&self, now: DateTime<Utc>) {
        let due = self.alarms.take_due(now);
        self.ring_all(due, now).await;
    }

    /// Rings what the database knows to be due, and nobody has rung.
    pub(crate) async fn ring_others(&self, now: DateTime<Utc>) {
        let Some(before) = chrono::Duration::from_std(HEAD_START)
            .ok()
            .and_then(|head_start| now.checked_sub_signed(head_start))
        else {
            return;
        };
        // Without an answer it is asked again in a moment.
        if let Ok(due) = self.within(self.db.due_sessions(before, LOOK_LIMIT)).await {
            self.ring_all(due, now).await;
        }
    }

    async fn ring_all(&self, due: Vec<(String, Uuid)>, now: DateTime<Utc>) {
        futures_util::stream::iter(due)
            .for_each_concurrent(AT_ONCE, |(clinic, id)| async move {
                if let Err(error) = self.ring(&clinic, id, now).await {
                    tracing::warn!(%error, session = %id, "a timer waits for the database");
                    let again = later(now, AGAIN);
                    self.alarms.set(id, &clinic, again);
                }
            })
            .await;
    }

    /// One consultation is said to be due: does what is due now, and sets the next alarm.
    pub(crate) async fn ring(
        &self,
        clinic: &str,
        id: Uuid,
        now: DateTime<Utc>,
    ) -> Result<(), ChangeError> {
        let seen = self.look(clinic, id).await?;
        let next = due(&seen, &self.config.timers);
        if next.as_ref().is_none_or(|next| next.at > now) {
            // Other settings, or somebody was faster: only the stored time is old.
            let at = next.map(|next| next.at);
            if self.live.find(id).is_some() {
                self.alarms.set(id, clinic, at);
            }
            if seen.due_at != at {
                self.within(self.db.set_due(id, seen.revision, at)).await?;
            }
            return Ok(());
        }
        let live = self.live.enter(id);
        let result = {
            let _gate = live.gate.lock().await;
            let before = self.load(&live, clinic, id).await?;
            match due(&before, &self.config.timers).filter(|due| due.at <= now) {
                Some(due) => {
                    let tried = self.try_step(&live, &before, now, &Actor::Server, &due.step, None);
                    tried.await
                }
                None => {
                    self.arm(&before);
                    Ok(Tried::Nothing)
                }
            }
        };
        drop(live);
        self.live.let_go(id);
        match result {
            // One step at a time: whatever else is due rings at once.
            Ok(Tried::Done(_) | Tried::Nothing) => Ok(()),
            // Somebody was faster; whether anything is left to do shows the new state.
            Ok(Tried::Stale) => {
                self.alarms.set(id, clinic, Some(now));
                Ok(())
            }
            Err(ChangeError::Refused(_)) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// After a restart: whoever was waiting and shows no page within the usual grace has gone. Its
    /// place is kept.
    pub(crate) async fn miss_the_waiting(self: Arc<Self>) {
        let mut waiting = Vec::new();
        for live in self.live.all() {
            let Some(consultation) = live.consultation() else { continue };
            let queue = consultation.waiting();
            waiting.extend(queue.iter().map(|p| (consultation.id, p.user_id.clone())));
        }
        tokio::time::sleep(self.config.waiting_grace).await;
        for (id, user_id) in waiting {
            let Some(live) = self.live.find(id) else { continue };
            if !live.is_listening(&user_id) {
                live.inner().away.insert(user_id.clone());
                self.note(&live, Step::GoAway(user_id));
            }
        }
    }
}

#[cfg(test)]
mod tests;
