//! Relays: each takes the unsent events of one sink to it, in the order they were stored.
//!
//! One instance at a time holds the lease of a sink. An event is marked as sent only after the
//! sink has confirmed it, so a crash in between sends it a second time with the same id:
//! at-least-once, and the id makes it once.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use uuid::Uuid;

use super::Sink;
use crate::control::Control;
use crate::store;
use crate::store::outbox::Unsent;

/// How many events are given to a sink at once.
const BATCH: i64 = 256;
/// How long the right to send lasts without being renewed.
const LEASE: chrono::Duration = chrono::Duration::seconds(15);
/// How long a relay sleeps when nothing rings; also how soon it sees what another process stored.
const NAP: Duration = Duration::from_secs(1);
/// The longest pause between two attempts.
const MAX_PAUSE: chrono::Duration = chrono::Duration::seconds(60);

/// What a sink said to one event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// It has it.
    Taken,
    /// It does not want this one now; try this one later, in words for the operator.
    Refused(String),
    /// It does not answer: neither this one nor what follows has arrived.
    Away,
}

/// Gives events to a sink; as many outcomes as events.
pub(crate) type Deliver =
    Box<dyn Fn(Vec<Unsent>) -> BoxFuture<'static, Vec<Outcome>> + Send + Sync>;

/// Sends for one sink until the process ends.
pub(crate) async fn run(control: Arc<Control>, sink: Sink, deliver: Deliver) {
    let holder = Uuid::new_v4();
    let mut away = 0_u32;
    loop {
        let rang = control.outbox_rang.notified();
        let pause = match turn(&control, &sink, holder, &deliver).await {
            Turn::Sent => {
                away = 0;
                continue;
            }
            Turn::Idle => {
                away = 0;
                NAP
            }
            Turn::Away => {
                away = away.saturating_add(1);
                pause_after(away).to_std().unwrap_or(NAP)
            }
        };
        if away > 0 {
            tokio::time::sleep(pause).await;
        } else {
            // Rung, or time to look: either way the next turn reads the table.
            let _rung = tokio::time::timeout(pause, rang).await;
        }
    }
}

enum Turn {
    Sent,
    Idle,
    Away,
}

async fn turn(control: &Control, sink: &Sink, holder: Uuid, deliver: &Deliver) -> Turn {
    let now = store::now();
    let lease = control.db.lease_relay(sink, holder, now, now + LEASE);
    match control.within(lease).await {
        Ok(true) => {}
        Ok(false) => return Turn::Idle,
        Err(_) => return Turn::Away,
    }
    let unsent = match control.within(control.db.unsent(sink, now, BATCH)).await {
        Ok(unsent) if unsent.is_empty() => return Turn::Idle,
        Ok(unsent) => unsent,
        Err(_) => return Turn::Away,
    };
    let outcomes = deliver(unsent.clone()).await;
    settle(control, &unsent, &outcomes).await
}

/// Marks what was taken and what was refused.
async fn settle(control: &Control, unsent: &[Unsent], outcomes: &[Outcome]) -> Turn {
    let mut taken = Vec::with_capacity(unsent.len());
    let mut turn = Turn::Sent;
    for (unsent, outcome) in unsent.iter().zip(outcomes) {
        match outcome {
            Outcome::Taken => taken.push(unsent.position),
            Outcome::Refused(reason) => {
                let next = store::now() + pause_after(u32::try_from(unsent.attempts).unwrap_or(9));
                let marked = control.db.mark_failed(unsent.position, reason, next);
                if control.within(marked).await.is_err() {
                    turn = Turn::Away;
                }
            }
            Outcome::Away => {
                turn = Turn::Away;
                break;
            }
        }
    }
    let marked = control.db.mark_sent(&taken, store::now());
    if control.within(marked).await.is_err() { Turn::Away } else { turn }
}

/// Doubles from half a second to a minute.
fn pause_after(attempts: u32) -> chrono::Duration {
    let ms = 500_i64.saturating_mul(1_i64.checked_shl(attempts.min(20)).unwrap_or(i64::MAX));
    chrono::Duration::milliseconds(ms).min(MAX_PAUSE)
}
