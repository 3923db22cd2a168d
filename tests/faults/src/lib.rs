//! What fault tests and benchmarks of the control plane share: a PostgreSQL, a RabbitMQ and the
//! server itself, each a process of its own that can be killed and started again on what it left.
//!
//! Everything binds 127.0.0.1, lives in a temporary folder, and ends with its value.

pub mod postgres;
pub mod rabbit;
pub mod server;

use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

/// A TCP port that nobody has at this moment.
pub fn free_port() -> Result<u16> {
    Ok(TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port())
}

/// Are we root? PostgreSQL refuses to run as root.
fn is_root() -> Result<bool> {
    Ok(Command::new("id").arg("-u").output()?.stdout.trim_ascii() == b"0")
}

/// `program`, run as the user `user` if we are root.
fn as_user(user: &str, program: &Path) -> Result<Command> {
    if !is_root()? {
        return Ok(Command::new(program));
    }
    let mut command = Command::new("setpriv");
    command.arg(format!("--reuid={user}")).arg(format!("--regid={user}")).arg("--clear-groups");
    command.arg("--").arg(program);
    Ok(command)
}

/// Waits until `ready` says so, or the child has ended.
fn wait_until(
    what: &str,
    child: &mut Child,
    limit: Duration,
    mut ready: impl FnMut() -> bool,
) -> Result<()> {
    let end = Instant::now() + limit;
    while Instant::now() < end {
        if ready() {
            return Ok(());
        }
        if let Some(status) = child.try_wait()? {
            bail!("{what} ended while it was starting: {status}");
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    bail!("{what} did not answer within {} s", limit.as_secs())
}

/// Ends a child at once (SIGKILL) and takes its status.
fn kill(child: &mut Child) -> Result<()> {
    child.kill().context("a child can be killed")?;
    child.wait().context("a killed child ends")?;
    Ok(())
}
