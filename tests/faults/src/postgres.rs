//! A PostgreSQL of one's own.

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use tempfile::TempDir;

/// A cluster in a temporary folder, on a TCP port of 127.0.0.1, with fsync on.
pub struct Postgres {
    folder: TempDir,
    bin: PathBuf,
    port: u16,
    child: Option<Child>,
}

impl Postgres {
    /// Makes a cluster and starts it.
    pub fn start() -> Result<Self> {
        let bin = binaries()?;
        let folder = tempfile::Builder::new().prefix("bedside-postgres-").tempdir()?;
        if crate::is_root()? {
            let owned = Command::new("chown").arg("postgres:").arg(folder.path()).status()?;
            ensure!(owned.success(), "the folder cannot be given to postgres");
        }
        let data = folder.path().join("data");
        let made = crate::as_user("postgres", &bin.join("initdb"))?
            .args(["-U", "bedside", "-A", "trust", "-E", "UTF8", "--locale=C", "-D"])
            .arg(&data)
            .current_dir("/")
            .stdout(Stdio::null())
            .status()?;
        ensure!(made.success(), "initdb failed");
        let mut postgres = Self { folder, bin, port: crate::free_port()?, child: None };
        postgres.start_again()?;
        Ok(postgres)
    }

    /// Starts the cluster on what is in its folder.
    pub fn start_again(&mut self) -> Result<()> {
        let mut child = crate::as_user("postgres", &self.bin.join("postgres"))?
            .arg("-D")
            .arg(self.folder.path().join("data"))
            .arg("-k")
            .arg(self.folder.path())
            .args(["-c", "listen_addresses=127.0.0.1", "-p", &self.port.to_string()])
            .current_dir("/")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .context("postgres starts")?;
        let port = self.port.to_string();
        let ready = self.bin.join("pg_isready");
        crate::wait_until("PostgreSQL", &mut child, Duration::from_secs(60), || {
            Command::new(&ready)
                .args(["-q", "-h", "127.0.0.1", "-U", "bedside", "-d", "postgres", "-p", &port])
                .status()
                .is_ok_and(|status| status.success())
        })?;
        self.child = Some(child);
        Ok(())
    }

    /// Kills it: nothing is flushed, nobody is told.
    pub fn kill(&mut self) -> Result<()> {
        if let Some(mut child) = self.child.take() {
            crate::kill(&mut child)?;
        }
        Ok(())
    }

    /// `postgres://…` of its only database.
    pub fn url(&self) -> String {
        format!("postgres://bedside@127.0.0.1:{}/postgres", self.port)
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        let _already_gone = self.kill();
    }
}

fn binaries() -> Result<PathBuf> {
    let mut found: Vec<PathBuf> = std::fs::read_dir("/usr/lib/postgresql")
        .context("PostgreSQL is not installed (Debian: postgresql)")?
        .filter_map(|entry| Some(entry.ok()?.path().join("bin")))
        .filter(|bin| bin.join("initdb").exists())
        .collect();
    found.sort();
    found.pop().context("PostgreSQL has no initdb")
}
