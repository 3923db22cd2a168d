//! Requests that must happen once: who runs one now, and what was answered.

use chrono::{DateTime, Utc};
use uuid::Uuid;

use super::{Db, execute, fetch};

/// A request under its caller's key.
#[derive(Clone, Debug)]
pub(crate) struct Claim {
    pub(crate) clinic: String,
    /// Role and id.
    pub(crate) caller: String,
    pub(crate) key: String,
    /// Of method, path and body.
    pub(crate) request_hash: Vec<u8>,
    /// Who runs it now.
    pub(crate) holder: Uuid,
}

/// What is known of a key.
#[derive(Debug, sqlx::FromRow)]
pub(crate) struct KnownRequest {
    pub(crate) request_hash: Vec<u8>,
    /// Sealed; none while the request runs.
    pub(crate) answer: Option<Vec<u8>>,
}

impl Db {
    /// Takes the key for `claim.holder`: one that is new, has expired, or whose holder has died
    /// over the same request. Otherwise gives what is known of it.
    pub(crate) async fn claim_request(
        &self,
        claim: &Claim,
        now: DateTime<Utc>,
        held_until: DateTime<Utc>,
        expires_at: DateTime<Utc>,
    ) -> Result<Option<KnownRequest>, sqlx::Error> {
        const CLAIM: &str = "INSERT INTO idempotency_keys (clinic, caller, idempotency_key, \
            request_hash, holder, held_until, created_at, expires_at) \
            VALUES ($1, $2, $3, $4, $5, $6, $7, $8) \
            ON CONFLICT (clinic, caller, idempotency_key) DO UPDATE SET \
            request_hash = excluded.request_hash, holder = excluded.holder, answer = NULL, \
            held_until = excluded.held_until, created_at = excluded.created_at, \
            expires_at = excluded.expires_at \
            WHERE idempotency_keys.expires_at <= excluded.created_at \
            OR (idempotency_keys.answer IS NULL \
                AND idempotency_keys.held_until <= excluded.created_at \
                AND idempotency_keys.request_hash = excluded.request_hash)";
        const READ: &str = "SELECT request_hash, answer FROM idempotency_keys \
            WHERE clinic = $1 AND caller = $2 AND idempotency_key = $3";
        let mut tx = self.begin().await?;
        let taken = execute!(
            &mut tx,
            CLAIM,
            &claim.clinic,
            &claim.caller,
            &claim.key,
            &claim.request_hash,
            claim.holder,
            held_until,
            now,
            expires_at,
        )?;
        let known = if taken == 1 {
            None
        } else {
            let row = fetch!(
                &mut tx,
                fetch_one,
                KnownRequest,
                READ,
                &claim.clinic,
                &claim.caller,
                &claim.key,
            );
            Some(row?)
        };
        tx.commit_alone().await?;
        Ok(known)
    }

    /// Keeps the answer, if the key is still the holder's.
    pub(crate) async fn answer_request(
        &self,
        claim: &Claim,
        answer: &[u8],
    ) -> Result<(), sqlx::Error> {
        const SQL: &str = "UPDATE idempotency_keys SET answer = $5 WHERE clinic = $1 \
            AND caller = $2 AND idempotency_key = $3 AND holder = $4";
        let mut tx = self.begin().await?;
        let Claim { clinic, caller, key, holder, .. } = claim;
        execute!(&mut tx, SQL, clinic, caller, key, *holder, answer)?;
        tx.commit_alone().await
    }

    /// Gives the key back: nothing has happened under it.
    pub(crate) async fn release_request(&self, claim: &Claim) -> Result<(), sqlx::Error> {
        const SQL: &str = "DELETE FROM idempotency_keys WHERE clinic = $1 AND caller = $2 \
            AND idempotency_key = $3 AND holder = $4";
        let mut tx = self.begin().await?;
        let Claim { clinic, caller, key, holder, .. } = claim;
        execute!(&mut tx, SQL, clinic, caller, key, *holder)?;
        tx.commit_alone().await
    }

    /// Forgets what has expired; how many.
    pub(crate) async fn expire_requests(&self, now: DateTime<Utc>) -> Result<u64, sqlx::Error> {
        const SQL: &str = "DELETE FROM idempotency_keys WHERE expires_at <= $1";
        let mut tx = self.begin().await?;
        let gone = execute!(&mut tx, SQL, now)?;
        tx.commit_alone().await?;
        Ok(gone)
    }
}

#[cfg(test)]
mod tests {
    use chrono::Duration;

    use super::*;
    use crate::store;
    use crate::testing::{Database, on_both_databases};

    fn claim(clinic: &str, key: &str, request: u8) -> Claim {
        Claim {
            clinic: clinic.to_owned(),
            caller: "service:s".to_owned(),
            key: key.to_owned(),
            request_hash: vec![request; 32],
            holder: Uuid::now_v7(),
        }
    }

    on_both_databases!(a_key_has_one_holder_and_one_answer, dead_holders_and_old_answers_give_way);

    async fn a_key_has_one_holder_and_one_answer(database: Database) {
        let db = database.open().await;
        let now = store::now();
        let (soon, late) = (now + Duration::seconds(60), now + Duration::hours(24));
        let first = claim("a", "k", 1);
        assert!(db.claim_request(&first, now, soon, late).await.unwrap().is_none());
        let second = claim("a", "k", 1);
        let known = db.claim_request(&second, now, soon, late).await.unwrap().unwrap();
        assert_eq!((known.request_hash.as_slice(), known.answer), (&[1; 32][..], None));
        // Another clinic's key is another key.
        assert!(db.claim_request(&claim("b", "k", 1), now, soon, late).await.unwrap().is_none());
        // Who does not hold it changes nothing.
        db.answer_request(&second, b"forged").await.unwrap();
        db.release_request(&second).await.unwrap();
        db.answer_request(&first, b"sealed").await.unwrap();
        let known = db.claim_request(&second, now, soon, late).await.unwrap().unwrap();
        assert_eq!(known.answer.as_deref(), Some(&b"sealed"[..]));
        // A key of another request stays what it was, also when it is asked for after the lease.
        let other = db.claim_request(&claim("a", "k", 2), soon, late, late).await.unwrap().unwrap();
        assert_eq!(other.request_hash, [1; 32]);
        db.release_request(&first).await.unwrap();
        assert!(db.claim_request(&second, now, soon, late).await.unwrap().is_none());
    }

    async fn dead_holders_and_old_answers_give_way(database: Database) {
        let db = database.open().await;
        let now = store::now();
        let (soon, late) = (now + Duration::seconds(60), now + Duration::hours(24));
        let dead = claim("a", "k", 1);
        assert!(db.claim_request(&dead, now, soon, late).await.unwrap().is_none());
        let before = soon - Duration::milliseconds(1);
        let heir = claim("a", "k", 1);
        assert!(db.claim_request(&heir, before, late, late).await.unwrap().is_some());
        assert!(db.claim_request(&heir, soon, late, late).await.unwrap().is_none());
        db.answer_request(&dead, b"too late").await.unwrap();
        db.answer_request(&heir, b"sealed").await.unwrap();
        let known = db.claim_request(&claim("a", "k", 1), soon, late, late).await.unwrap();
        assert_eq!(known.unwrap().answer.as_deref(), Some(&b"sealed"[..]));

        assert_eq!(db.expire_requests(before).await.unwrap(), 0);
        assert!(db.claim_request(&claim("a", "k", 2), late, late, late).await.unwrap().is_none());
        assert_eq!(db.expire_requests(late).await.unwrap(), 1);
    }
}
