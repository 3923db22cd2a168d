//! The database: SQLite in a file, or PostgreSQL.
//!
//! Every query is one SQL text that both understand (`$1` placeholders, BIGINT numbers, words
//! instead of enum types, times bound and never asked of the database); the macros below run it on
//! either side and check at compile time that each placeholder has its argument.
//!
//! SQLite is opened in WAL mode with `synchronous = FULL`: what was acknowledged survives a power
//! cut. It has one writer, whose transactions begin with `BEGIN IMMEDIATE`, so none of them fails
//! half-way for want of the lock.

mod audit;
mod backup;
mod billing;
#[cfg(test)]
mod billing_tests;
mod chat;
mod checks;
mod feedback;
mod happenings;
mod history;
mod idempotency;
mod keys;
mod links;
pub(crate) mod outbox;
mod payments;
mod people;
pub(crate) mod probe;
pub(crate) mod replay;
mod reports;
mod sessions;
#[cfg(test)]
mod tests;

use std::str::FromStr;
use std::time::Duration;

use chrono::{DateTime, SubsecRound, Utc};
use sqlx::migrate::{MigrateError, Migrator};
use sqlx::pool::PoolConnection;
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous};
use sqlx::{PgConnection, PgPool, Postgres, Sqlite, SqliteConnection, SqlitePool, Transaction};

pub(crate) use audit::AuditPage;
pub(crate) use backup::{Whole, check_sqlite};
pub(crate) use billing::{Bill, DoctorPrice};
pub(crate) use chat::{
    AttachmentRow, Marked, MessageKind, MessageRow, NewMark, NewMessage, Posted, Receipt,
};
pub(crate) use checks::Check;
pub(crate) use feedback::{Feedback, FeedbackPage, Impression};
pub(crate) use happenings::EventRow;
pub(crate) use history::Past;
pub(crate) use idempotency::Claim;
pub(crate) use keys::{KeyRow, Revocation};
pub(crate) use links::LinkRow;
pub(crate) use payments::Payment;
pub(crate) use reports::ReportRow;
pub(crate) use sessions::{Page, Saved};

static SQLITE_MIGRATIONS: Migrator = sqlx::migrate!("migrations/sqlite");
static POSTGRES_MIGRATIONS: Migrator = sqlx::migrate!("migrations/postgres");

/// How long a request waits for a connection before it answers that the database is away.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(5);

/// The database could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Neither `sqlite:` with a file nor `postgres:`.
    #[error(
        "the database URL must be sqlite:PATH or postgres://…; an in-memory SQLite is not supported"
    )]
    Url,
    /// A newer Bedside has written this database.
    #[error("the database schema (version {0}) is newer than this program: update the program")]
    NewerSchema(i64),
    /// A migration failed.
    #[error("the database could not be brought up to date: {0}")]
    Migrate(MigrateError),
    /// The client for the identity service's keys could not be made.
    #[error("the identity service cannot be asked: {0}")]
    Keys(#[source] reqwest::Error),
    /// The database does not answer.
    #[error("the database could not be opened: {0}")]
    Connect(#[from] sqlx::Error),
    /// The store of files.
    #[error(transparent)]
    Files(#[from] crate::OpenFilesError),
}

/// The opened database.
#[derive(Clone, Debug)]
pub(crate) enum Db {
    /// One file, one writer, several readers.
    Sqlite { write: SqlitePool, read: SqlitePool },
    /// A pool of connections.
    Postgres(PgPool),
}

/// A connection to read with.
pub(crate) enum Reader {
    Sqlite(PoolConnection<Sqlite>),
    Postgres(PoolConnection<Postgres>),
}

/// An open transaction; dropped without [`Tx::commit`] it is rolled back.
pub(crate) enum Tx {
    Sqlite(Transaction<'static, Sqlite>),
    Postgres(Transaction<'static, Postgres>),
}

/// What a query runs on.
pub(crate) enum Side<'c> {
    Sqlite(&'c mut SqliteConnection),
    Postgres(&'c mut PgConnection),
}

/// Something with a connection.
pub(crate) trait Connected {
    /// The connection.
    fn side(&mut self) -> Side<'_>;
}

impl Connected for Reader {
    fn side(&mut self) -> Side<'_> {
        match self {
            Self::Sqlite(connection) => Side::Sqlite(&mut *connection),
            Self::Postgres(connection) => Side::Postgres(&mut *connection),
        }
    }
}

impl Connected for Tx {
    fn side(&mut self) -> Side<'_> {
        match self {
            Self::Sqlite(transaction) => Side::Sqlite(&mut *transaction),
            Self::Postgres(transaction) => Side::Postgres(&mut *transaction),
        }
    }
}

impl Tx {
    /// Makes everything durable, together with the audit row of whoever asked for it.
    pub(crate) async fn commit(mut self) -> Result<(), sqlx::Error> {
        let Some(entry) = crate::audit::pending() else { return self.commit_alone().await };
        audit::insert(&mut self, &entry).await?;
        self.commit_alone().await?;
        crate::audit::written();
        Ok(())
    }

    /// Makes everything durable and leaves no audit row: for our own bookkeeping (the outbox, the
    /// inbox, idempotency keys, leases), which changes nothing about a patient.
    pub(crate) async fn commit_alone(self) -> Result<(), sqlx::Error> {
        match self {
            Self::Sqlite(transaction) => transaction.commit().await,
            Self::Postgres(transaction) => transaction.commit().await,
        }
    }
}

impl Db {
    /// Opens the database and brings its schema up to date.
    pub(crate) async fn open(url: &str) -> Result<Self, OpenError> {
        let db = if url.starts_with("postgres:") || url.starts_with("postgresql:") {
            Self::connect_postgres(url).await?
        } else if url.starts_with("sqlite:") && !url.contains(":memory:") {
            Self::connect_sqlite(url).await?
        } else {
            return Err(OpenError::Url);
        };
        let migrated = match &db {
            Self::Sqlite { write, .. } => SQLITE_MIGRATIONS.run(write).await,
            Self::Postgres(pool) => POSTGRES_MIGRATIONS.run(pool).await,
        };
        match migrated {
            Ok(()) => Ok(db),
            Err(MigrateError::VersionMissing(version)) => Err(OpenError::NewerSchema(version)),
            Err(error) => Err(OpenError::Migrate(error)),
        }
    }

    async fn connect_sqlite(url: &str) -> Result<Self, OpenError> {
        let options = SqliteConnectOptions::from_str(url)
            .map_err(|_| OpenError::Url)?
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .foreign_keys(true)
            .busy_timeout(Duration::from_secs(5));
        let write = SqlitePoolOptions::new()
            .max_connections(1)
            .acquire_timeout(ACQUIRE_TIMEOUT)
            .connect_with(options.clone())
            .await?;
        let read = SqlitePoolOptions::new()
            .max_connections(4)
            .acquire_timeout(ACQUIRE_TIMEOUT)
            .connect_lazy_with(options.read_only(true).create_if_missing(false));
        Ok(Self::Sqlite { write, read })
    }

    async fn connect_postgres(url: &str) -> Result<Self, OpenError> {
        let options = PgConnectOptions::from_str(url).map_err(|_| OpenError::Url)?;
        let pool = PgPoolOptions::new()
            .max_connections(16)
            .acquire_timeout(ACQUIRE_TIMEOUT)
            .connect_with(options)
            .await?;
        Ok(Self::Postgres(pool))
    }

    /// A connection to read with.
    pub(crate) async fn read(&self) -> Result<Reader, sqlx::Error> {
        match self {
            Self::Sqlite { read, .. } => Ok(Reader::Sqlite(read.acquire().await?)),
            Self::Postgres(pool) => Ok(Reader::Postgres(pool.acquire().await?)),
        }
    }

    /// A transaction to write in.
    pub(crate) async fn begin(&self) -> Result<Tx, sqlx::Error> {
        match self {
            Self::Sqlite { write, .. } => {
                Ok(Tx::Sqlite(write.begin_with("BEGIN IMMEDIATE").await?))
            }
            Self::Postgres(pool) => Ok(Tx::Postgres(pool.begin().await?)),
        }
    }

    /// Closes every connection; later calls fail.
    pub(crate) async fn close(&self) {
        match self {
            Self::Sqlite { write, read } => {
                read.close().await;
                write.close().await;
            }
            Self::Postgres(pool) => pool.close().await,
        }
    }
}

/// The time as the database keeps it: PostgreSQL has microseconds.
pub(crate) fn now() -> DateTime<Utc> {
    Utc::now().trunc_subsecs(6)
}

/// The highest `$n` in a SQL text.
pub(crate) const fn placeholders(sql: &str) -> usize {
    let bytes = sql.as_bytes();
    let mut highest = 0;
    let mut at = 0;
    while let Some((_, rest)) = bytes.split_at_checked(at) {
        let [first, tail @ ..] = rest else { break };
        if *first == b'$' {
            let mut number = 0;
            let mut digits = tail;
            while let [digit @ b'0'..=b'9', more @ ..] = digits {
                number = number * 10 + (*digit - b'0') as usize;
                digits = more;
            }
            if number > highest {
                highest = number;
            }
        }
        at += 1;
    }
    highest
}

/// Counts its arguments.
macro_rules! count {
    () => { 0usize };
    ($head:expr $(, $tail:expr)*) => { 1usize + $crate::store::count!($($tail),*) };
}

/// Runs a statement; gives the number of rows it touched.
macro_rules! execute {
    ($on:expr, $sql:expr $(, $arg:expr)* $(,)?) => {{
        const { assert!($crate::store::placeholders($sql) == $crate::store::count!($($arg),*)) };
        match $crate::store::Connected::side($on) {
            $crate::store::Side::Sqlite(connection) => {
                sqlx::query($sql)$(.bind($arg))*.execute(connection).await
                    .map(|done| done.rows_affected())
            }
            $crate::store::Side::Postgres(connection) => {
                sqlx::query($sql)$(.bind($arg))*.execute(connection).await
                    .map(|done| done.rows_affected())
            }
        }
    }};
}

/// Runs a query that gives rows: `fetch!(on, fetch_all, Row, SQL, …)`.
macro_rules! fetch {
    ($on:expr, $how:ident, $row:ty, $sql:expr $(, $arg:expr)* $(,)?) => {{
        const { assert!($crate::store::placeholders($sql) == $crate::store::count!($($arg),*)) };
        match $crate::store::Connected::side($on) {
            $crate::store::Side::Sqlite(connection) => {
                sqlx::query_as::<_, $row>($sql)$(.bind($arg))*.$how(connection).await
            }
            $crate::store::Side::Postgres(connection) => {
                sqlx::query_as::<_, $row>($sql)$(.bind($arg))*.$how(connection).await
            }
        }
    }};
}

pub(crate) use {count, execute, fetch};

/// A stored word that this program does not know.
fn unknown_word(column: &str, word: &str) -> sqlx::Error {
    sqlx::Error::ColumnDecode {
        index: column.to_owned(),
        source: format!("unknown word {word:?}").into(),
    }
}
