//! A look at the database that changes nothing: for `bedside doctor`, beside a server that may run.

use std::path::PathBuf;
use std::str::FromStr as _;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use sqlx::postgres::PgConnectOptions;
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{ConnectOptions as _, Connection as _, PgConnection, SqliteConnection};

use super::{POSTGRES_MIGRATIONS, SQLITE_MIGRATIONS};

/// How long the database may take.
const PATIENCE: Duration = Duration::from_secs(8);

const SCHEMA: &str = "SELECT CAST(COALESCE(MAX(version), 0) AS BIGINT) FROM _sqlx_migrations";

/// What was seen of a database.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DatabaseFacts {
    /// SQLite's file; none = PostgreSQL.
    pub file: Option<PathBuf>,
    /// The version of its schema; none = there is none yet, and a server would make it.
    pub schema: Option<i64>,
    /// The version that this program makes.
    pub newest: i64,
    /// Can be written to.
    pub writable: bool,
    /// SQLite's journal, as its file says.
    pub journal: Option<String>,
    /// How far the database's clock is ahead of ours, in milliseconds; none where it has none of its own.
    pub ahead_ms: Option<i64>,
}

/// Why nothing was seen.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DatabaseProblem {
    /// The address is none.
    #[error("the address must be sqlite:PATH or postgres://…")]
    Url,
    /// It does not answer.
    #[error("it does not answer in time")]
    Timeout,
    /// What it says.
    #[error("{0}")]
    Refused(String),
}

impl From<sqlx::Error> for DatabaseProblem {
    fn from(error: sqlx::Error) -> Self {
        Self::Refused(match &error {
            sqlx::Error::Database(said) => said.message().to_owned(),
            sqlx::Error::Io(error) => error.to_string(),
            // Others may quote the address, and the password is in it.
            _ => "the connection failed".to_owned(),
        })
    }
}

/// Looks at the database of this address.
pub async fn database(url: &str) -> Result<DatabaseFacts, DatabaseProblem> {
    let look = async {
        if url.starts_with("postgres:") || url.starts_with("postgresql:") {
            postgres(url).await
        } else if url.starts_with("sqlite:") && !url.contains(":memory:") {
            sqlite(url).await
        } else {
            Err(DatabaseProblem::Url)
        }
    };
    tokio::time::timeout(PATIENCE, look).await.unwrap_or(Err(DatabaseProblem::Timeout))
}

async fn sqlite(url: &str) -> Result<DatabaseFacts, DatabaseProblem> {
    let options = SqliteConnectOptions::from_str(url).map_err(|_| DatabaseProblem::Url)?;
    let options = options.create_if_missing(false).busy_timeout(Duration::from_secs(5));
    let file = options.get_filename().to_path_buf();
    let newest = newest(&SQLITE_MIGRATIONS);
    let missing = DatabaseFacts {
        file: Some(file.clone()),
        schema: None,
        newest,
        writable: true,
        journal: None,
        ahead_ms: None,
    };
    if !file.exists() {
        return Ok(missing);
    }
    let mut db: SqliteConnection = options.connect().await?;
    let journal: String = sqlx::query_scalar("PRAGMA journal_mode").fetch_one(&mut db).await?;
    let table = "SELECT COUNT(*) FROM sqlite_master WHERE name = '_sqlx_migrations'";
    let made: i64 = sqlx::query_scalar(table).fetch_one(&mut db).await?;
    let schema = match made {
        0 => None,
        _ => Some(sqlx::query_scalar(SCHEMA).fetch_one(&mut db).await?),
    };
    // Takes the writer's lock for a moment, as any request does, and writes nothing.
    let writable = sqlx::query("BEGIN IMMEDIATE").execute(&mut db).await.is_ok();
    if writable {
        sqlx::query("ROLLBACK").execute(&mut db).await?;
    }
    db.close().await?;
    Ok(DatabaseFacts { schema, writable, journal: Some(journal), ..missing })
}

async fn postgres(url: &str) -> Result<DatabaseFacts, DatabaseProblem> {
    const STATE: &str = "SELECT CAST(EXTRACT(EPOCH FROM clock_timestamp()) * 1000 AS BIGINT), \
        NOT pg_is_in_recovery() AND current_setting('transaction_read_only') = 'off' \
        AND has_schema_privilege(current_schema(), 'CREATE')";
    let options = PgConnectOptions::from_str(url).map_err(|_| DatabaseProblem::Url)?;
    let mut db: PgConnection = options.connect().await?;
    let asked = now_ms();
    let (clock, writable): (i64, bool) = sqlx::query_as(STATE).fetch_one(&mut db).await?;
    let answered = now_ms();
    let table = "SELECT to_regclass('_sqlx_migrations') IS NOT NULL";
    let made: bool = sqlx::query_scalar(table).fetch_one(&mut db).await?;
    let schema = match made {
        false => None,
        true => Some(sqlx::query_scalar(SCHEMA).fetch_one(&mut db).await?),
    };
    db.close().await?;
    Ok(DatabaseFacts {
        file: None,
        schema,
        newest: newest(&POSTGRES_MIGRATIONS),
        writable,
        journal: None,
        // It was read some time between the question and the answer.
        ahead_ms: Some(if clock < asked { clock - asked } else { (clock - answered).max(0) }),
    })
}

fn newest(migrations: &sqlx::migrate::Migrator) -> i64 {
    migrations.iter().map(|migration| migration.version).max().unwrap_or_default()
}

fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Database, on_both_databases};

    on_both_databases!(a_database_is_seen_before_and_after_its_schema);

    async fn a_database_is_seen_before_and_after_its_schema(db: Database) {
        let before = database(&db.url).await.unwrap();
        assert_eq!(before.schema, None);
        if let Some(file) = &before.file {
            assert!(!file.exists(), "looking makes nothing");
        }
        let open = db.open().await;
        let after = database(&db.url).await.unwrap();
        assert_eq!(after.schema, Some(after.newest));
        assert!(after.newest >= 10 && after.writable);
        match after.file {
            Some(_) => assert_eq!(after.journal.as_deref(), Some("wal")),
            None => assert!(after.ahead_ms.unwrap().abs() < 60_000),
        }
        open.close().await;
    }

    #[tokio::test]
    async fn what_is_no_database_is_told_without_its_password() {
        assert_eq!(database("mysql://x").await, Err(DatabaseProblem::Url));
        assert_eq!(database("sqlite::memory:").await, Err(DatabaseProblem::Url));
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("text.db");
        std::fs::write(&file, "this is no database, however long the text in it may be").unwrap();
        assert!(database(&format!("sqlite:{}", file.display())).await.is_err());
        let nobody = database("postgres://u:geheim@127.0.0.1:1/d").await.unwrap_err();
        assert!(!nobody.to_string().contains("geheim"), "{nobody}");
    }
}
