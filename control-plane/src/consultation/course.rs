//! Steps of the whole consultation: it begins, is interrupted, ends, is opened again.

use chrono::{DateTime, Duration, Utc};

use super::{Consultation, Happening, Log, Presence, Refusal, Status};

/// How long after its end a completed consultation may be opened again: as long as its links live.
const REOPEN_WITHIN: Duration = Duration::minutes(15);

/// The longest reason that is kept.
const MAX_REASON: usize = 100;

impl Consultation {
    /// Somebody says that it begins.
    pub(super) fn start(&mut self, log: &mut Log<'_>) -> Result<(), Refusal> {
        self.must_not_be_over()?;
        self.begin(log);
        Ok(())
    }

    /// It begins, if it has not: by a start, the first admission, or because both are connected.
    /// The actual start is set once, and stays when the consultation is opened again.
    pub(super) fn begin(&mut self, log: &mut Log<'_>) {
        match self.status {
            Status::Scheduled | Status::Waiting => {
                self.status = Status::InProgress;
                if self.actual_start.is_none() {
                    self.actual_start = Some(log.now);
                    self.started_by = log.actor.id().map(str::to_owned);
                }
                log.all(Happening::Started, self.status, None);
            }
            Status::InProgress | Status::Paused => {}
            Status::Completed | Status::Cancelled | Status::NoShow | Status::Failed => {}
        }
    }

    pub(super) fn pause(&mut self, log: &mut Log<'_>) -> Result<(), Refusal> {
        self.must_not_be_over()?;
        match self.status {
            Status::Paused => {}
            Status::InProgress => {
                self.status = Status::Paused;
                self.paused_at = Some(log.now);
                log.all(Happening::Paused, self.status, None);
            }
            Status::Scheduled
            | Status::Waiting
            | Status::Completed
            | Status::Cancelled
            | Status::NoShow
            | Status::Failed => return Err(Refusal::WrongStatus(self.status)),
        }
        Ok(())
    }

    pub(super) fn resume(&mut self, log: &mut Log<'_>) -> Result<(), Refusal> {
        self.must_not_be_over()?;
        match self.status {
            Status::InProgress => {}
            Status::Paused => {
                self.status = Status::InProgress;
                self.count_pause(log);
                log.all(Happening::Resumed, self.status, None);
            }
            Status::Scheduled
            | Status::Waiting
            | Status::Completed
            | Status::Cancelled
            | Status::NoShow
            | Status::Failed => return Err(Refusal::WrongStatus(self.status)),
        }
        Ok(())
    }

    fn count_pause(&mut self, log: &Log<'_>) {
        if let Some(since) = self.paused_at.take() {
            self.paused_seconds += (log.now - since).num_seconds().max(0);
        }
    }

    /// Cancelled and no-show are only for what never began.
    pub(super) fn call_off(
        &mut self,
        log: &mut Log<'_>,
        status: Status,
        reason: Option<&str>,
    ) -> Result<(), Refusal> {
        if matches!(self.status, Status::InProgress | Status::Paused) {
            return Err(Refusal::WrongStatus(self.status));
        }
        self.finish(log, status, reason)
    }

    /// The appointment is off: what has begun ends, what has not is cancelled, and what is over
    /// stays as it is.
    pub(super) fn drop_appointment(
        &mut self,
        log: &mut Log<'_>,
        reason: Option<&str>,
    ) -> Result<(), Refusal> {
        match self.status {
            Status::Scheduled | Status::Waiting => self.finish(log, Status::Cancelled, reason),
            Status::InProgress | Status::Paused => {
                self.finish(log, Status::Completed, Some(reason.unwrap_or("cancelled")))
            }
            Status::Completed | Status::Cancelled | Status::NoShow | Status::Failed => Ok(()),
        }
    }

    pub(super) fn finish(
        &mut self,
        log: &mut Log<'_>,
        status: Status,
        reason: Option<&str>,
    ) -> Result<(), Refusal> {
        if self.status == status {
            return Ok(());
        }
        self.must_not_be_over()?;
        let reason = reason.map(|reason| reason.chars().take(MAX_REASON).collect::<String>());
        self.status = status;
        self.count_pause(log);
        self.actual_end = Some(log.now);
        self.duration_seconds =
            Some(self.actual_start.map_or(0, |start| (log.now - start).num_seconds().max(0)));
        self.ended_by = log.actor.id().map(str::to_owned);
        self.ended_by_role = self.role_of_actor(log.actor);
        for person in &mut self.people {
            person.waiting_since = None;
            if person.presence != Presence::Left {
                person.go(log);
            }
        }
        let happening = if status == Status::Failed { Happening::Failed } else { Happening::Ended };
        log.all(happening, status, reason.as_deref());
        self.end_reason = reason;
        Ok(())
    }

    /// Rooms come and go with the people in them: the last one counts.
    pub(super) fn open_room(&mut self, log: &mut Log<'_>, sid: &str) -> Result<(), Refusal> {
        self.must_not_be_over()?;
        if self.room_sid.as_deref() != Some(sid) {
            self.room_sid = Some(sid.to_owned());
            log.all(Happening::RoomOpened, self.status, None);
        }
        Ok(())
    }

    /// What has begun, or is over, keeps the time it was planned for.
    pub(super) fn reschedule(
        &mut self,
        log: &mut Log<'_>,
        start: DateTime<Utc>,
        minutes: Option<i64>,
    ) -> Result<(), Refusal> {
        let minutes = minutes.unwrap_or(self.scheduled_minutes);
        if (start, minutes) == (self.scheduled_start, self.scheduled_minutes) {
            return Ok(());
        }
        match self.status {
            Status::Scheduled | Status::Waiting => {}
            Status::InProgress
            | Status::Paused
            | Status::Completed
            | Status::Cancelled
            | Status::NoShow
            | Status::Failed => return Err(Refusal::WrongStatus(self.status)),
        }
        self.scheduled_start = start;
        self.scheduled_minutes = minutes;
        log.all(Happening::Rescheduled, self.status, None);
        Ok(())
    }

    /// Takes an end back: of somebody who came after all, or of an end by mistake, soon after it.
    pub(super) fn reopen(&mut self, log: &mut Log<'_>) -> Result<(), Refusal> {
        match self.status {
            Status::NoShow => {}
            Status::Completed => {
                let end = self.actual_end.unwrap_or(log.now);
                if log.now - end > REOPEN_WITHIN {
                    return Err(Refusal::TooLate);
                }
            }
            Status::Cancelled | Status::Failed => return Err(Refusal::Over(self.status)),
            Status::Scheduled | Status::Waiting | Status::InProgress | Status::Paused => {
                return Ok(());
            }
        }
        self.status = Status::Waiting;
        self.reopened_at = Some(log.now);
        self.actual_end = None;
        self.duration_seconds = None;
        self.end_reason = None;
        self.ended_by = None;
        self.ended_by_role = None;
        log.all(Happening::Reopened, self.status, None);
        Ok(())
    }
}
