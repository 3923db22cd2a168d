//! Relays: each takes the unsent events of one sink to it, in the order they were stored.
//!
//! One instance at a time holds the lease of a sink. An event is marked as sent only after the
//! sink has confirmed it, so a crash in between sends it a second time with the same id:
//! at-least-once, and the id makes it once.
//!
//! Where a sink refuses one event, the later events of that consultation wait for it, for as long
//! as its [`Manner`] says; those of others go on. A sink that does not answer stops everything until it does.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use futures_util::future::BoxFuture;
use uuid::Uuid;

use super::Sink;
use crate::control::Control;
use crate::store;
use crate::store::outbox::Unsent;

/// How long the right to send lasts without being renewed.
const LEASE: chrono::Duration = chrono::Duration::seconds(12);
/// How often it is renewed while a sink takes its time.
const RENEWAL: Duration = Duration::from_secs(4);
/// How long a relay sleeps when nothing rings; also how soon it sees what another process stored.
const NAP: Duration = Duration::from_secs(1);
/// How often the events that wait are counted.
const COUNTING: Duration = Duration::from_secs(5);
/// An endpoint must be away for this long before anything is given up because of it: after a long
/// stop of ours old events get a fair chance.
const FAIR_CHANCE: Duration = Duration::from_secs(3600);

/// What a sink said to one event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// It has it.
    Taken,
    /// It does not want this one now; try this one later, in words for the operator.
    Refused(String),
    /// It does not answer: whether it has it is unknown, and nothing more is sent for a while.
    Away,
}

/// Gives events to a sink; as many outcomes as events. No two events of one call are about the
/// same consultation.
pub(crate) type Deliver =
    Box<dyn Fn(Vec<Unsent>) -> BoxFuture<'static, Vec<Outcome>> + Send + Sync>;

/// How a sink is treated.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Manner {
    /// How many events it is given at once. With one they arrive in one order for all consultations.
    pub(crate) at_once: usize,
    /// How long a refused event waits, after how many attempts; the last one holds for all further.
    pub(crate) pauses: &'static [Duration],
    /// An event that is older than this is given up instead.
    pub(crate) give_up: Option<Duration>,
    /// For so many attempts the later events of its consultation wait for a refused one.
    pub(crate) in_order: i64,
}

impl Default for Manner {
    fn default() -> Self {
        const PAUSES: [Duration; 8] = [
            Duration::from_millis(500),
            Duration::from_secs(1),
            Duration::from_secs(2),
            Duration::from_secs(4),
            Duration::from_secs(8),
            Duration::from_secs(16),
            Duration::from_secs(32),
            Duration::from_secs(60),
        ];
        Self { at_once: 256, pauses: &PAUSES, give_up: None, in_order: i64::MAX }
    }
}

impl Manner {
    /// How long to wait after so many failures before this one.
    fn pause(&self, failures: i64) -> Duration {
        let index = usize::try_from(failures).unwrap_or(usize::MAX);
        let pause = self.pauses.get(index).or_else(|| self.pauses.last());
        pause.copied().unwrap_or(NAP)
    }

    fn is_too_old(&self, at: DateTime<Utc>, now: DateTime<Utc>) -> bool {
        let age = (now - at).to_std().unwrap_or_default();
        self.give_up.is_some_and(|limit| age >= limit)
    }
}

/// Sends for one sink until the process ends. Cancelling it is safe at any point.
pub(crate) async fn run(control: Arc<Control>, sink: Sink, deliver: Deliver) {
    run_with(control, sink, Manner::default(), deliver).await;
}

/// [`run`], for a sink that is treated in a manner of its own.
pub(crate) async fn run_with(control: Arc<Control>, sink: Sink, manner: Manner, deliver: Deliver) {
    let mut relay = Relay::new(Arc::clone(&control), sink, manner, deliver);
    loop {
        // Made before the table is read: what is stored meanwhile rings it.
        let rang = control.outbox_rang.notified();
        match relay.turn().await {
            Turn::Sent => {}
            Turn::Idle => {
                // Rung, or time to look: either way the next turn reads the table.
                let _rung = tokio::time::timeout(NAP, rang).await;
            }
            Turn::Away => tokio::time::sleep(relay.pause_of_absence()).await,
        }
    }
}

/// How a turn went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Turn {
    Sent,
    Idle,
    Away,
}

struct Relay {
    control: Arc<Control>,
    sink: Sink,
    manner: Manner,
    deliver: Deliver,
    /// Ours until then.
    held_until: Option<DateTime<Utc>>,
    /// Taken by the sink, but not yet marked because the database was away.
    unmarked: Vec<i64>,
    /// Since when, and how often in a row, the sink did not answer.
    away_since: Option<tokio::time::Instant>,
    absences: i64,
    counted: Option<tokio::time::Instant>,
}

impl Relay {
    fn new(control: Arc<Control>, sink: Sink, manner: Manner, deliver: Deliver) -> Self {
        Self {
            control,
            sink,
            manner,
            deliver,
            held_until: None,
            unmarked: Vec::new(),
            away_since: None,
            absences: 0,
            counted: None,
        }
    }

    /// Everything that can be sent now.
    async fn turn(&mut self) -> Turn {
        self.count().await;
        if self.mark_taken().await.is_err() {
            return self.absent();
        }
        let Ok(mut unsent) = self.unsent().await else { return self.absent() };
        if unsent.is_empty() {
            return Turn::Idle;
        }
        if !self.holds() {
            match self.renew().await {
                Ok(true) => {}
                Ok(false) => return Turn::Idle,
                Err(()) => return self.absent(),
            }
            // Whoever held it before us may have sent some of these.
            let Ok(again) = self.unsent().await else { return self.absent() };
            unsent = again;
        }
        self.send(unsent).await
    }

    /// Gives all of `unsent` to the sink, batch by batch.
    async fn send(&mut self, mut unsent: Vec<Unsent>) -> Turn {
        let mut held_up = HashSet::new();
        loop {
            let (batch, rest) = next_batch(unsent, self.manner.at_once, &held_up);
            unsent = rest;
            if batch.is_empty() {
                return Turn::Sent;
            }
            let Some(outcomes) = self.deliver(batch.clone()).await else { return Turn::Idle };
            match self.settle(&batch, outcomes, &mut held_up).await {
                Turn::Sent => {
                    self.away_since = None;
                    self.absences = 0;
                }
                turn @ (Turn::Idle | Turn::Away) => return turn,
            }
        }
    }

    /// None: meanwhile the right to send went to somebody else.
    async fn deliver(&mut self, batch: Vec<Unsent>) -> Option<Vec<Outcome>> {
        if !self.keep().await {
            return None;
        }
        let mut delivery = (self.deliver)(batch);
        let start = tokio::time::Instant::now() + RENEWAL;
        let mut renewal = tokio::time::interval_at(start, RENEWAL);
        loop {
            tokio::select! {
                outcomes = &mut delivery => return Some(outcomes),
                _ = renewal.tick() => {
                    if !self.keep().await {
                        return None;
                    }
                }
            }
        }
    }

    /// Marks what was taken and what was refused.
    async fn settle(
        &mut self,
        batch: &[Unsent],
        outcomes: Vec<Outcome>,
        held_up: &mut HashSet<Uuid>,
    ) -> Turn {
        let mut turn = Turn::Sent;
        let missing = std::iter::repeat_n(Outcome::Away, batch.len());
        for (unsent, outcome) in batch.iter().zip(outcomes.into_iter().chain(missing)) {
            match outcome {
                Outcome::Taken => self.unmarked.push(unsent.position),
                Outcome::Refused(reason) => {
                    held_up.extend(unsent.event.session_id());
                    if self.put_off(unsent, &reason).await.is_err() {
                        turn = self.absent();
                    }
                }
                Outcome::Away => {
                    // What follows may have arrived all the same, and then is not sent again.
                    if turn == Turn::Sent {
                        turn = self.absent();
                        self.give_up_with(unsent).await;
                    }
                }
            }
        }
        if self.mark_taken().await.is_err() { self.absent() } else { turn }
    }

    async fn mark_taken(&mut self) -> Result<(), ()> {
        if self.unmarked.is_empty() {
            return Ok(());
        }
        let marked = self.control.db.mark_sent(&self.unmarked, store::now());
        self.control.within(marked).await.map_err(|_| ())?;
        let sent = self.unmarked.len();
        self.control.counters.of_sink(&self.sink, |counts| counts.sent += sent as u64);
        self.unmarked.clear();
        Ok(())
    }

    async fn put_off(&self, unsent: &Unsent, reason: &str) -> Result<(), ()> {
        let now = store::now();
        if self.manner.is_too_old(unsent.event.at, now) {
            return self.park(unsent, reason).await;
        }
        let pause = spread(self.manner.pause(unsent.attempts));
        let next = now + chrono::Duration::from_std(pause).unwrap_or(LEASE);
        let marked = self.control.db.mark_failed(unsent.position, reason, next);
        self.control.within(marked).await.map_err(|_| ())?;
        self.control.counters.of_sink(&self.sink, |counts| counts.refused += 1);
        Ok(())
    }

    /// A sink that stays away does not keep an old event for ever, if it is that kind of sink.
    async fn give_up_with(&self, unsent: &Unsent) {
        let long = self.away_since.is_some_and(|since| since.elapsed() >= FAIR_CHANCE);
        if long && self.manner.is_too_old(unsent.event.at, store::now()) {
            // Else it is tried again, and given up then.
            let _database_away = self.park(unsent, "no answer").await;
        }
    }

    async fn park(&self, unsent: &Unsent, reason: &str) -> Result<(), ()> {
        let parked = self.control.db.park(unsent.position, reason, store::now());
        self.control.within(parked).await.map_err(|_| ())?;
        let (sink, event) = (self.sink.word(), unsent.event.id);
        tracing::error!(sink, %event, reason, "an event is given up; it can be read over the API");
        self.control.counters.of_sink(&self.sink, |counts| counts.parked += 1);
        Ok(())
    }

    async fn unsent(&self) -> Result<Vec<Unsent>, ()> {
        let window = i64::try_from(self.manner.at_once.saturating_mul(4).clamp(64, 1024));
        let (now, in_order) = (store::now(), self.manner.in_order);
        let read = self.control.db.unsent(&self.sink, now, in_order, window.unwrap_or(64));
        self.control.within(read).await.map_err(|_| ())
    }

    /// For a good while yet.
    fn holds(&self) -> bool {
        self.held_until.is_some_and(|until| until - store::now() > LEASE / 2)
    }

    /// Keeps the right to send. `false`: it is somebody else's.
    async fn keep(&mut self) -> bool {
        if self.holds() {
            return true;
        }
        match self.renew().await {
            Ok(held) => held,
            // Nobody else gets it before then either.
            Err(()) => self.held_until.is_some_and(|until| store::now() < until),
        }
    }

    async fn renew(&mut self) -> Result<bool, ()> {
        let control = &self.control;
        let (now, name) = (store::now(), self.sink.word());
        let lease = control.db.lease(&name, control.instance, now, now + LEASE);
        let held = control.within(lease).await.map_err(|_| ())?;
        self.held_until = held.then_some(now + LEASE);
        Ok(held)
    }

    fn absent(&mut self) -> Turn {
        self.absences = self.absences.saturating_add(1);
        self.away_since.get_or_insert_with(tokio::time::Instant::now);
        Turn::Away
    }

    fn pause_of_absence(&self) -> Duration {
        spread(Manner::default().pause(self.absences.saturating_sub(1)))
    }

    async fn count(&mut self) {
        if self.counted.is_some_and(|at| at.elapsed() < COUNTING) {
            return;
        }
        self.counted = Some(tokio::time::Instant::now());
        if let Ok(backlog) = self.control.within(self.control.db.backlog(&self.sink)).await {
            let backlog = u64::try_from(backlog).unwrap_or(0);
            self.control.counters.of_sink(&self.sink, |counts| counts.backlog = backlog);
        }
    }
}

/// The oldest events, one for each consultation; and the rest, without those that must wait.
fn next_batch(
    unsent: Vec<Unsent>,
    at_once: usize,
    held_up: &HashSet<Uuid>,
) -> (Vec<Unsent>, Vec<Unsent>) {
    let mut taken = HashSet::new();
    let (mut batch, mut rest) = (Vec::new(), Vec::new());
    for unsent in unsent {
        let session = unsent.event.session_id();
        if session.is_some_and(|session| held_up.contains(&session)) {
            continue;
        }
        if batch.len() < at_once && session.is_none_or(|session| taken.insert(session)) {
            batch.push(unsent);
        } else {
            rest.push(unsent);
        }
    }
    (batch, rest)
}

/// Between three quarters of a pause and the pause: many that failed together do not come back as
/// one.
fn spread(pause: Duration) -> Duration {
    // A v4 UUID is random in its last eight bytes.
    let dice = Uuid::new_v4().as_u64_pair().1;
    let quarter = u64::try_from(pause.as_millis() / 4).unwrap_or(u64::MAX).saturating_add(1);
    pause.saturating_sub(Duration::from_millis(dice % quarter))
}

#[cfg(test)]
mod tests;
