//! Writes the rows that no transaction takes along.
//!
//! Readers come many at a time, and SQLite has one writer whose every commit waits for the disk.
//! So rows gather while a commit is under way, and the next one takes all of them: a reader waits
//! for one commit, or two, however many there are.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::oneshot;

use super::Entry;
use crate::store::Db;

/// How many rows may wait for an answer; more are refused.
const MAX_WAITING: usize = 4_096;
/// How many rows may wait for the database to come back; more are lost and counted.
const MAX_KEPT: usize = 10_000;
/// From so many on, rows come faster than they are written.
const CROWDED: usize = MAX_KEPT / 2;
/// How many rows share a transaction.
const BATCH: usize = 256;
/// How long it waits before it tries again while the database is away.
const PAUSE: Duration = Duration::from_millis(500);

/// Rows on their way into the database. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Ledger {
    db: Db,
    rows: Arc<Mutex<Rows>>,
}

#[derive(Default)]
struct Rows {
    /// Somebody waits for these.
    waiting: VecDeque<(Entry, oneshot::Sender<()>)>,
    /// These wait for the database.
    kept: VecDeque<Entry>,
    /// A task is writing.
    writing: bool,
    lost: u64,
    #[cfg(test)]
    transactions: u64,
    /// Writes nothing: to see what writing costs.
    #[cfg(test)]
    muted: bool,
}

impl Ledger {
    pub(crate) fn new(db: Db) -> Self {
        Self { db, rows: Arc::default() }
    }

    fn rows(&self) -> MutexGuard<'_, Rows> {
        self.rows.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes a row and returns once it is durable.
    pub(crate) async fn write(&self, entry: Entry) -> Result<(), sqlx::Error> {
        #[cfg(test)]
        if self.rows().muted {
            return Ok(());
        }
        let (sender, receiver) = oneshot::channel();
        {
            let mut rows = self.rows();
            if rows.waiting.len() >= MAX_WAITING {
                return Err(sqlx::Error::PoolTimedOut);
            }
            rows.waiting.push_back((entry, sender));
        }
        self.begin();
        receiver.await.map_err(|_| sqlx::Error::PoolTimedOut)
    }

    /// Takes a row that will be written when the database answers.
    pub(crate) fn keep(&self, entry: Entry) {
        {
            let mut rows = self.rows();
            if rows.kept.len() >= MAX_KEPT {
                rows.lost += 1;
                if rows.lost.is_power_of_two() {
                    tracing::error!(lost = rows.lost, "audit rows are lost: no database for long");
                }
                return;
            }
            rows.kept.push_back(entry);
        }
        self.begin();
    }

    /// Do so many wait for the database that more are better waited for than kept?
    pub(crate) fn is_crowded(&self) -> bool {
        self.rows().kept.len() >= CROWDED
    }

    /// Until [`Self::go_on`], rows wait as if the database took its time.
    #[cfg(test)]
    pub(crate) fn hold(&self) {
        self.rows().writing = true;
    }

    /// Writes again; how many rows were kept, and how many lost.
    #[cfg(test)]
    pub(crate) fn go_on(&self) -> (usize, u64) {
        let (kept, lost) = {
            let mut rows = self.rows();
            rows.writing = false;
            (rows.kept.len(), rows.lost)
        };
        self.begin();
        (kept, lost)
    }

    /// From here on nothing is written.
    #[cfg(test)]
    pub(crate) fn mute(&self) {
        self.rows().muted = true;
    }

    /// How many transactions have written rows.
    #[cfg(test)]
    pub(crate) fn transactions(&self) -> u64 {
        self.rows().transactions
    }

    /// Is everything written?
    pub(crate) fn is_empty(&self) -> bool {
        let rows = self.rows();
        rows.waiting.is_empty() && rows.kept.is_empty() && !rows.writing
    }

    fn begin(&self) {
        if std::mem::replace(&mut self.rows().writing, true) {
            return;
        }
        let ledger = self.clone();
        tokio::spawn(async move { ledger.write_all().await });
    }

    /// Rows that could not be written wait on. `true` = there are any.
    fn take_back(&self, kept: Vec<Entry>) -> bool {
        let mut rows = self.rows();
        for entry in kept.into_iter().rev() {
            rows.kept.push_front(entry);
        }
        !rows.kept.is_empty()
    }

    async fn write_all(&self) {
        loop {
            let (waiting, kept) = {
                let mut rows = self.rows();
                let count = rows.waiting.len().min(BATCH);
                let waiting: Vec<_> = rows.waiting.drain(..count).collect();
                let count = rows.kept.len().min(BATCH - count);
                let kept: Vec<_> = rows.kept.drain(..count).collect();
                if waiting.is_empty() && kept.is_empty() {
                    rows.writing = false;
                    return;
                }
                (waiting, kept)
            };
            let entries = waiting.iter().map(|(entry, _)| entry).chain(&kept);
            if self.db.insert_audit(entries).await.is_ok() {
                #[cfg(test)]
                {
                    self.rows().transactions += 1;
                }
                for (_, waiter) in waiting {
                    // Whoever does not wait any more has its row all the same.
                    let _gone = waiter.send(());
                }
                continue;
            }
            // Those who wait are told by the loss of their senders.
            drop(waiting);
            if !self.take_back(kept) {
                continue;
            }
            tokio::time::sleep(PAUSE).await;
        }
    }
}
