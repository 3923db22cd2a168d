//! What connection checks found, under their codes.

use chrono::{DateTime, Utc};
use sqlx::types::Json;
use uuid::Uuid;

use super::{Db, execute, fetch};
use crate::checks::report::CheckReport;

/// A check that was stored.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Check {
    pub(crate) code: String,
    pub(crate) check_id: Uuid,
    /// Empty = no clinic was named: whoever was told the code may look.
    pub(crate) clinic: String,
    pub(crate) report: CheckReport,
    pub(crate) created_at: DateTime<Utc>,
    pub(crate) expires_at: DateTime<Utc>,
}

#[derive(sqlx::FromRow)]
struct CheckRow {
    code: String,
    check_id: Uuid,
    clinic: String,
    report: Json<CheckReport>,
    created_at: DateTime<Utc>,
    expires_at: DateTime<Utc>,
}

#[derive(sqlx::FromRow)]
struct CodeRow {
    code: String,
    expires_at: DateTime<Utc>,
}

impl From<CheckRow> for Check {
    fn from(row: CheckRow) -> Self {
        Self {
            code: row.code,
            check_id: row.check_id,
            clinic: row.clinic,
            report: row.report.0,
            created_at: row.created_at,
            expires_at: row.expires_at,
        }
    }
}

impl Db {
    /// Stores what a check found. A check is stored once: the code and the end that count come back,
    /// which are those of the first time. None: another check has this code already.
    pub(crate) async fn insert_check(
        &self,
        check: &Check,
    ) -> Result<Option<(String, DateTime<Utc>)>, sqlx::Error> {
        const INSERT: &str = "INSERT INTO connection_checks \
            (code, check_id, clinic, report, created_at, expires_at) \
            VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT DO NOTHING";
        const KNOWN: &str = "SELECT code, expires_at FROM connection_checks WHERE check_id = $1";
        let Check { code, check_id, clinic, report, created_at, expires_at } = check;
        let mut tx = self.begin().await?;
        let report = Json(report);
        execute!(&mut tx, INSERT, code, *check_id, clinic, report, *created_at, *expires_at)?;
        let known = fetch!(&mut tx, fetch_optional, CodeRow, KNOWN, *check_id)?;
        // A stranger did it, who leaves no row in the audit log.
        tx.commit_alone().await?;
        Ok(known.map(|row| (row.code, row.expires_at)))
    }

    /// What a check found, for a clinic that was told its code.
    pub(crate) async fn check(
        &self,
        clinic: &str,
        code: &str,
        now: DateTime<Utc>,
    ) -> Result<Option<Check>, sqlx::Error> {
        const SQL: &str = "SELECT code, check_id, clinic, report, created_at, expires_at \
            FROM connection_checks \
            WHERE code = $1 AND (clinic = $2 OR clinic = '') AND expires_at > $3";
        let mut reader = self.read().await?;
        let row = fetch!(&mut reader, fetch_optional, CheckRow, SQL, code, clinic, now)?;
        Ok(row.map(Check::from))
    }

    /// Forgets what is past its time; how many.
    pub(crate) async fn expire_checks(&self, now: DateTime<Utc>) -> Result<u64, sqlx::Error> {
        const SQL: &str = "DELETE FROM connection_checks WHERE expires_at <= $1";
        let mut tx = self.begin().await?;
        let gone = execute!(&mut tx, SQL, now)?;
        tx.commit_alone().await?;
        Ok(gone)
    }
}

#[cfg(test)]
mod tests {
    use chrono::Duration;
    use serde_json::json;

    use super::*;
    use crate::store;
    use crate::testing::{Database, on_both_databases};

    on_both_databases!(a_check_is_stored_once_found_by_its_clinic_and_forgotten);

    fn check(code: &str, clinic: &str) -> Check {
        let now = store::now();
        let report = json!({
            "browser": {"name": "chrome", "version": 142, "system": "android"},
            "findings": [{"subject": "udp", "outcome": "failed", "reason": "blocked"}],
        });
        Check {
            code: code.to_owned(),
            check_id: Uuid::new_v4(),
            clinic: clinic.to_owned(),
            report: serde_json::from_value(report).unwrap(),
            created_at: now,
            expires_at: now + Duration::days(7),
        }
    }

    async fn a_check_is_stored_once_found_by_its_clinic_and_forgotten(database: Database) {
        let db = database.open().await;
        let now = store::now();
        let of_north = check("CDFH3479", "north");
        let told = (of_north.code.clone(), of_north.expires_at);
        assert_eq!(db.insert_check(&of_north).await.unwrap(), Some(told.clone()));
        // The same check sent again keeps its code; another one does not get that code.
        let again = Check { code: "XXXX3333".to_owned(), ..of_north.clone() };
        assert_eq!(db.insert_check(&again).await.unwrap(), Some(told));
        assert_eq!(db.insert_check(&check("CDFH3479", "south")).await.unwrap(), None);
        let of_nobody = check("CCCC3333", "");
        assert!(db.insert_check(&of_nobody).await.unwrap().is_some());

        assert_eq!(db.check("north", "CDFH3479", now).await.unwrap(), Some(of_north.clone()));
        assert_eq!(db.check("south", "CDFH3479", now).await.unwrap(), None);
        assert_eq!(db.check("south", "CCCC3333", now).await.unwrap(), Some(of_nobody));
        assert_eq!(db.check("north", "XXXX3333", now).await.unwrap(), None);

        let over = of_north.expires_at;
        assert_eq!(db.check("north", "CDFH3479", over).await.unwrap(), None);
        assert_eq!(db.expire_checks(now).await.unwrap(), 0);
        assert_eq!(db.expire_checks(over + Duration::seconds(60)).await.unwrap(), 2);
    }
}
