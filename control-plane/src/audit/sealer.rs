//! Gives rows their places in the chain, a second behind.
//!
//! Rows are written without a place, so that requests do not wait for each other. Of all the
//! instances that share a database one holds the lease of a clinic's chain and seals its rows each
//! second. If two think so at once, the chain's end decides: it moves only from where its mover
//! has seen it.

use std::time::Duration;

use chrono::{DateTime, Utc};
use uuid::Uuid;

use super::chain::{self, Anchor, Hash, Record};
use crate::control::Control;
use crate::store;

/// How often rows are sealed.
pub(crate) const INTERVAL: Duration = Duration::from_secs(1);
/// How long a sealer that says nothing more keeps others out.
const LEASE: chrono::Duration = chrono::Duration::seconds(5);
/// How many rows share a transaction: a writer behind it waits that long.
const BATCH: i64 = 500;
/// How many batches of one clinic are sealed in one go.
const MAX_BATCHES: usize = 20;

impl Control {
    /// Seals what was written, as far as this instance may.
    pub(crate) async fn seal_audit(&self) {
        let clinics = match self.db.unsealed_clinics().await {
            Ok(clinics) => clinics,
            Err(error) => {
                let error = crate::control::kind_of(&error);
                tracing::debug!(error, "the audit log waits to be sealed");
                return;
            }
        };
        for clinic in clinics {
            if let Err(error) = self.seal_clinic(&clinic).await {
                let error = crate::control::kind_of(&error);
                tracing::warn!(error, "an audit log could not be sealed");
            }
        }
    }

    async fn seal_clinic(&self, clinic: &str) -> Result<(), sqlx::Error> {
        for _ in 0..MAX_BATCHES {
            let now = store::now();
            let leased = self.db.lease_chain(clinic, self.instance, now, now + LEASE).await?;
            let Some((from, head)) = leased else { return Ok(()) };
            let mut rows = self.db.unsealed(clinic, BATCH).await?;
            let Some((end, hash)) = chain_up(&mut rows, from, head) else { return Ok(()) };
            let anchor = self.anchor(clinic, end, hash, now);
            if !self.db.seal(self.instance, from, &rows, &anchor, now).await? {
                tracing::debug!("another instance was faster to seal");
                return Ok(());
            }
            if i64::try_from(rows.len()).unwrap_or(0) < BATCH {
                return Ok(());
            }
        }
        Ok(())
    }

    fn anchor(&self, clinic: &str, sequence: i64, hash: Hash, at: DateTime<Utc>) -> Anchor {
        let pair = self.config.keys.first();
        let mut anchor = Anchor {
            clinic: clinic.to_owned(),
            sequence,
            hash,
            at: chain::time(at),
            key: pair.map(|pair| pair.key.clone()).unwrap_or_default(),
            mac: chain::UNKNOWN,
        };
        if let Some(pair) = pair {
            anchor.mac = chain::sign(pair, &anchor);
        }
        anchor
    }

    /// Says the ends of the chains in the log, which is kept elsewhere: who takes rows off the end
    /// of a chain together with their anchors cannot take them out of there.
    pub(crate) async fn tell_heads(&self) {
        let Ok(clinics) = self.db.audited_clinics().await else { return };
        for clinic in clinics {
            if let Ok(Some((sequence, hash))) = self.db.chain_head(&clinic).await {
                let chain = chain::genesis(&clinic);
                tracing::info!(%chain, sequence, %hash, "audit log sealed up to here");
            }
        }
    }
}

/// An instance's name among those that share a database.
pub(crate) fn new_instance() -> Uuid {
    Uuid::new_v4()
}

/// Gives rows their places behind `from`; the new end, if there is any row.
fn chain_up(rows: &mut [Record], from: i64, head: Hash) -> Option<(i64, Hash)> {
    let mut end = None;
    let (mut sequence, mut hash) = (from, head);
    for row in rows {
        sequence += 1;
        row.sequence = sequence;
        row.previous = hash;
        hash = chain::link(hash, row);
        row.hash = hash;
        end = Some((sequence, hash));
    }
    end
}
