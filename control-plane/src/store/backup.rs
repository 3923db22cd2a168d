//! Copies of the whole database: SQLite by its own `VACUUM INTO`, which takes a snapshot while others
//! write; PostgreSQL by its own programs.

use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::str::FromStr as _;
use std::time::Duration;

use sqlx::postgres::PgConnectOptions;
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{ConnectOptions as _, Connection as _};

use super::{POSTGRES_MIGRATIONS, SQLITE_MIGRATIONS};
use crate::backup::BackupError;

/// A database that is copied or put back, apart from the server that may be using it.
#[derive(Clone, Debug)]
pub(crate) enum Whole {
    Sqlite(Box<SqliteConnectOptions>),
    Postgres { url: String, options: Box<PgConnectOptions> },
}

impl Whole {
    pub(crate) fn new(url: &str) -> Result<Self, BackupError> {
        if url.starts_with("postgres:") || url.starts_with("postgresql:") {
            let options = PgConnectOptions::from_str(url).map_err(|_| BackupError::Url)?;
            return Ok(Self::Postgres { url: url.to_owned(), options: Box::new(options) });
        }
        if !url.starts_with("sqlite:") || url.contains(":memory:") {
            return Err(BackupError::Url);
        }
        let options = SqliteConnectOptions::from_str(url).map_err(|_| BackupError::Url)?;
        let options = options.create_if_missing(false).busy_timeout(Duration::from_secs(30));
        Ok(Self::Sqlite(Box::new(options)))
    }

    /// As a backup names it.
    pub(crate) const fn kind(&self) -> &'static str {
        match self {
            Self::Sqlite(_) => "sqlite",
            Self::Postgres { .. } => "postgres",
        }
    }

    /// The newest schema that this program knows.
    pub(crate) fn known_schema(&self) -> i64 {
        let migrations = match self {
            Self::Sqlite(_) => &SQLITE_MIGRATIONS,
            Self::Postgres { .. } => &POSTGRES_MIGRATIONS,
        };
        migrations.iter().map(|migration| migration.version).max().unwrap_or_default()
    }

    /// Where it is, for a file; nothing for a server.
    pub(crate) fn path(&self) -> Option<PathBuf> {
        match self {
            Self::Sqlite(options) => Some(options.get_filename().to_owned()),
            Self::Postgres { .. } => None,
        }
    }

    /// The schema that the database has.
    pub(crate) async fn schema(&self) -> Result<i64, BackupError> {
        const SQL: &str = "SELECT COALESCE(MAX(version), 0) FROM _sqlx_migrations";
        match self {
            Self::Sqlite(options) => sqlite_schema(options).await,
            Self::Postgres { options, .. } => {
                let mut connection = options.connect().await?;
                let (schema,): (i64,) = sqlx::query_as(SQL).fetch_one(&mut connection).await?;
                connection.close().await?;
                Ok(schema)
            }
        }
    }

    /// Writes a copy to `to`, which must not exist yet.
    pub(crate) async fn copy(&self, to: &Path) -> Result<(), BackupError> {
        match self {
            Self::Sqlite(options) => {
                let mut connection = options.connect().await?;
                let to = to.to_str().ok_or(BackupError::Url)?;
                sqlx::query("VACUUM INTO $1").bind(to).execute(&mut connection).await?;
                connection.close().await?;
                Ok(())
            }
            Self::Postgres { url, .. } => {
                let mut command = tool("pg_dump", url);
                command.arg("--format=custom").arg("--file").arg(to);
                run("pg_dump", command).await
            }
        }
    }

    /// Is there nothing yet that putting a copy back would overwrite?
    pub(crate) async fn is_free(&self) -> Result<bool, BackupError> {
        match self {
            Self::Sqlite(options) => Ok(!options.get_filename().exists()),
            Self::Postgres { options, .. } => {
                const SQL: &str = "SELECT COUNT(*) FROM pg_catalog.pg_tables WHERE tablename IN \
                    ('_sqlx_migrations', 'consultation_sessions')";
                let mut connection = options.connect().await?;
                let (tables,): (i64,) = sqlx::query_as(SQL).fetch_one(&mut connection).await?;
                connection.close().await?;
                Ok(tables == 0)
            }
        }
    }

    /// Puts a copy back. A SQLite's takes the copy's file itself, unless another is there.
    pub(crate) async fn put_back(&self, copy: tempfile::TempPath) -> Result<(), BackupError> {
        match self {
            Self::Sqlite(options) => {
                let path = options.get_filename();
                copy.persist_noclobber(path)
                    .map_err(|error| BackupError::Io(path.to_owned(), error.error))
            }
            Self::Postgres { url, .. } => {
                let mut command = tool("pg_restore", url);
                command.args(["--exit-on-error", "--single-transaction"]).arg(&copy);
                run("pg_restore", command).await
            }
        }
    }
}

/// The schema of a SQLite file, which must also be whole.
pub(crate) async fn check_sqlite(path: &Path) -> Result<i64, BackupError> {
    let options = SqliteConnectOptions::new().filename(path).create_if_missing(false);
    let mut connection = options.connect().await?;
    let (found,): (String,) =
        sqlx::query_as("PRAGMA integrity_check(1)").fetch_one(&mut connection).await?;
    connection.close().await?;
    if found != "ok" {
        return Err(BackupError::Damaged("its database is not whole"));
    }
    sqlite_schema(&options).await
}

async fn sqlite_schema(options: &SqliteConnectOptions) -> Result<i64, BackupError> {
    let mut connection = options.connect().await?;
    let sql = "SELECT COALESCE(MAX(version), 0) FROM _sqlx_migrations";
    let (schema,): (i64,) = sqlx::query_as(sql).fetch_one(&mut connection).await?;
    connection.close().await?;
    Ok(schema)
}

/// A program of PostgreSQL's, told where to connect. Everybody can read a command line, so the
/// password goes another way.
fn tool(name: &str, url: &str) -> Command {
    let (url, password) = without_password(url);
    let mut command = Command::new(name);
    command.args(["--no-owner", "--no-privileges", "--no-password", "--dbname"]).arg(url);
    if let Some(password) = password {
        command.env("PGPASSWORD", password);
    }
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    command
}

/// An address as PostgreSQL's own programs take it, and the password that was in it.
fn without_password(url: &str) -> (String, Option<String>) {
    let (address, query) = url.split_once('?').unwrap_or((url, ""));
    let mut password = None;
    let mut pairs = Vec::new();
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        match pair.split_once('=') {
            Some(("password", value)) => password = Some(unquoted(value)),
            // A setting of the driver, which the programs refuse.
            Some(("statement-cache-capacity", _)) => {}
            _ => pairs.push(pair),
        }
    }
    let address = match address.split_once("://") {
        Some((scheme, rest)) => {
            let (who, place) =
                rest.rsplit_once('@').map_or(("", rest), |(who, place)| (who, place));
            let user = match who.split_once(':') {
                Some((user, word)) => {
                    password = Some(unquoted(word));
                    user
                }
                None => who,
            };
            let at = if user.is_empty() { "" } else { "@" };
            format!("{scheme}://{user}{at}{place}")
        }
        None => address.to_owned(),
    };
    let mark = if pairs.is_empty() { "" } else { "?" };
    (format!("{address}{mark}{}", pairs.join("&")), password)
}

/// A text without percent signs (RFC 3986 §2.1).
fn unquoted(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, tail)) = rest.split_first() {
        let digits = tail.get(..2).and_then(|pair| std::str::from_utf8(pair).ok());
        match digits.and_then(|pair| u8::from_str_radix(pair, 16).ok()) {
            Some(byte) if *first == b'%' => {
                bytes.push(byte);
                rest = tail.get(2..).unwrap_or_default();
            }
            _ => {
                bytes.push(*first);
                rest = tail;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

async fn run(name: &'static str, mut command: Command) -> Result<(), BackupError> {
    let ended = tokio::task::spawn_blocking(move || command.output()).await;
    let output = match ended.map_err(io::Error::other).and_then(|output| output) {
        Ok(output) => output,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err(BackupError::NoTool(name));
        }
        Err(error) => return Err(BackupError::Io(name.into(), error)),
    };
    if output.status.success() {
        return Ok(());
    }
    let told = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    Err(BackupError::Tool(name, told))
}

#[cfg(test)]
impl super::Db {
    /// Notes a migration that no program knows yet.
    pub(crate) async fn pretend_newer_schema(&self) {
        const SQL: &str = "INSERT INTO _sqlx_migrations (version, description, installed_on, \
            success, checksum, execution_time) SELECT 9999, 'newer', installed_on, success, \
            checksum, 0 FROM _sqlx_migrations WHERE version = 1";
        let mut tx = self.begin().await.expect("a transaction");
        super::execute!(&mut tx, SQL).expect("a row");
        tx.commit().await.expect("a commit");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords_leave_the_command_line() {
        for (url, plain, password) in [
            ("postgres://u:p%40s%2Fs@db:5433/x", "postgres://u@db:5433/x", Some("p@s/s")),
            ("postgres://u@db/x", "postgres://u@db/x", None),
            ("postgres://db/x?host=/run&password=p", "postgres://db/x?host=/run", Some("p")),
            ("postgresql:///x?statement-cache-capacity=0", "postgresql:///x", None),
            ("postgres://u:a%zz%@db/x", "postgres://u@db/x", Some("a%zz%")),
        ] {
            let found = without_password(url);
            assert_eq!((found.0.as_str(), found.1.as_deref()), (plain, password));
            let command = format!("{:?}", tool("pg_dump", url).get_args().collect::<Vec<_>>());
            assert!(
                password.is_none_or(|word| !command.contains(&format!(":{word}"))),
                "{command}"
            );
        }
    }

    #[tokio::test]
    async fn a_missing_program_is_named() {
        let error = run("pg_dump", Command::new("bedside-no-such-program")).await.unwrap_err();
        assert!(error.to_string().contains("postgresql-client"), "{error}");
        let mut fails = Command::new("sh");
        fails.args(["-c", "echo why >&2; exit 3"]).stderr(Stdio::piped());
        let error = run("pg_restore", fails).await.unwrap_err().to_string();
        assert!(error.contains("pg_restore") && error.contains("why"), "{error}");
    }
}
