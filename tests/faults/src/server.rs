//! `bedside serve` as a process.

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, SystemTime};

use anyhow::{Context as _, Result};
use bedside_control_plane::token::{self, ApiRole, ApiToken};
use bedside_control_plane::{KeyPair, Private};

/// The key pair of the server under test.
pub const KEY: &str = "faults";
const SECRET: &str = "a secret of the fault tests, long enough";

/// The clinic of everything that happens.
pub const CLINIC: &str = "demo";

/// A server that can be killed and started again.
pub struct Server {
    binary: PathBuf,
    variables: Vec<(String, String)>,
    http: u16,
    child: Option<Child>,
}

impl Server {
    /// Starts `binary` on a free port with more settings.
    pub fn start(binary: PathBuf, database_url: &str, more: &[(&str, String)]) -> Result<Self> {
        let http = crate::free_port()?;
        let mut variables = vec![
            ("BEDSIDE_API_KEY".to_owned(), KEY.to_owned()),
            ("BEDSIDE_API_SECRET".to_owned(), SECRET.to_owned()),
            ("BEDSIDE_DATABASE_URL".to_owned(), database_url.to_owned()),
            ("BEDSIDE_HTTP__LISTEN".to_owned(), format!("127.0.0.1:{http}")),
            ("BEDSIDE_MEDIA__BIND".to_owned(), "127.0.0.1".to_owned()),
            ("BEDSIDE_MEDIA__PORT".to_owned(), "0".to_owned()),
            ("BEDSIDE_TURN__PORT".to_owned(), "0".to_owned()),
            ("BEDSIDE_LOG__FILTER".to_owned(), "warn".to_owned()),
        ];
        variables.extend(more.iter().map(|(name, value)| ((*name).to_owned(), value.clone())));
        let mut server = Self { binary, variables, http, child: None };
        server.start_again()?;
        Ok(server)
    }

    /// Starts it with the same settings.
    pub fn start_again(&mut self) -> Result<()> {
        let mut child = Command::new(&self.binary)
            .arg("serve")
            .envs(self.variables.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .with_context(|| format!("{} starts", self.binary.display()))?;
        let address = ("127.0.0.1", self.http);
        crate::wait_until("the server", &mut child, Duration::from_secs(60), || {
            std::net::TcpStream::connect(address).is_ok()
        })?;
        self.child = Some(child);
        Ok(())
    }

    /// Kills it (SIGKILL).
    pub fn kill(&mut self) -> Result<()> {
        if let Some(mut child) = self.child.take() {
            crate::kill(&mut child)?;
        }
        Ok(())
    }

    /// Asks it to end (SIGTERM) and waits until it has. `true` = with success.
    pub fn stop(mut self) -> Result<bool> {
        let mut child = self.child.take().context("it runs")?;
        Command::new("kill").args(["-TERM", &child.id().to_string()]).status()?;
        Ok(child.wait()?.success())
    }

    /// Its process, while it runs.
    pub fn pid(&self) -> Option<u32> {
        self.child.as_ref().map(Child::id)
    }

    /// `http://…`
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.http)
    }

    /// A bearer token.
    pub fn token(role: ApiRole, user: &str) -> String {
        let keys = KeyPair { key: KEY.to_owned(), secret: Private::new(SECRET.to_owned()) };
        let expires_at = (SystemTime::now() + Duration::from_secs(6 * 3600)).into();
        let token = ApiToken {
            user_id: user.to_owned(),
            name: None,
            role,
            clinic: CLINIC.to_owned(),
            session: None,
            link: None,
            expires_at,
        };
        token::issue(&keys, &token)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _already_gone = self.kill();
    }
}
