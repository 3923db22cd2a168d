//! Events for readers over the API, and forgetting those that nobody needs any more.

use std::sync::Arc;
use std::time::Duration;

use super::Sink;
use crate::control::{ChangeError, Control};
use crate::store;
use crate::store::replay::Numbered;

/// How many events are numbered, or forgotten, in one transaction.
const AT_ONCE: i64 = 500;
/// How often what is new is numbered, at the most.
const STAMPING: Duration = Duration::from_secs(1);
/// How often old events are looked for.
const SWEEPING: Duration = Duration::from_secs(3600);

impl Control {
    /// A page of a clinic's events, with all that are stored by now.
    pub(crate) async fn events_after(
        &self,
        clinic: &str,
        after: i64,
        limit: i64,
    ) -> Result<Vec<Numbered>, ChangeError> {
        self.stamp_events().await?;
        self.within(self.db.events_after(clinic, after, limit)).await
    }

    async fn stamp_events(&self) -> Result<(), ChangeError> {
        while self.within(self.db.stamp_events(AT_ONCE)).await? == AT_ONCE.unsigned_abs() {}
        Ok(())
    }

    /// Forgets messages and events whose time is over. Undelivered ones stay, except for sinks that
    /// are no longer configured.
    async fn sweep_mailboxes(&self) -> Result<(), ChangeError> {
        let Ok(retention) = chrono::Duration::from_std(self.config.events_retention) else {
            return Ok(());
        };
        let now = store::now();
        let Some(before) = now.checked_sub_signed(retention) else { return Ok(()) };
        let sinks: Vec<Sink> = self.sinks.iter().chain(&self.room_sinks).cloned().collect();
        let orphans = self.within(self.db.park_orphans(&sinks, before, now)).await?;
        if orphans > 0 {
            tracing::warn!(orphans, "events for sinks that are no longer configured are given up");
        }
        loop {
            let swept = self.within(self.db.sweep_mailboxes(before, AT_ONCE)).await?;
            if swept == 0 {
                return Ok(());
            }
            tracing::info!(swept, "old events and messages are forgotten");
        }
    }
}

/// Numbers what is new and forgets what is old, until the process ends.
pub(crate) async fn keep(control: Arc<Control>) {
    let mut sweep = tokio::time::interval(SWEEPING);
    sweep.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        let rang = control.outbox_rang.notified();
        // What fails was counted and logged, and is tried again.
        let _again = control.stamp_events().await;
        // Many events in one second are numbered together.
        tokio::time::sleep(STAMPING).await;
        tokio::select! {
            () = rang => {}
            _ = sweep.tick() => {
                let _again = control.sweep_mailboxes().await;
            }
        }
    }
}

#[cfg(test)]
mod tests;
