//! A RabbitMQ of one's own.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use tempfile::TempDir;

/// A node with its own name, ports, port mapper and folder.
pub struct Rabbit {
    folder: TempDir,
    port: u16,
    dist_port: u16,
    epmd_port: u16,
    child: Option<Child>,
}

impl Rabbit {
    /// Makes a node and starts it.
    pub fn start() -> Result<Self> {
        let folder = tempfile::Builder::new().prefix("bedside-rabbit-").tempdir()?;
        if crate::is_root()? {
            let owned = Command::new("chown").arg("rabbitmq:").arg(folder.path()).status()?;
            ensure!(owned.success(), "the folder cannot be given to rabbitmq");
        }
        let mut rabbit = Self {
            folder,
            port: crate::free_port()?,
            dist_port: crate::free_port()?,
            epmd_port: crate::free_port()?,
            child: None,
        };
        rabbit.start_again()?;
        Ok(rabbit)
    }

    /// Starts the node on what is in its folder.
    pub fn start_again(&mut self) -> Result<()> {
        let mut child = self
            .command("rabbitmq-server")?
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .context("rabbitmq-server starts (Debian: rabbitmq-server)")?;
        let ping = || {
            let mut command = self.control(&["-q", "ping"])?;
            let pinged = command.stdout(Stdio::null()).stderr(Stdio::null()).status()?;
            anyhow::Ok(
                pinged.success() && std::net::TcpStream::connect(("127.0.0.1", self.port)).is_ok(),
            )
        };
        crate::wait_until("RabbitMQ", &mut child, Duration::from_secs(120), || {
            ping().unwrap_or(false)
        })?;
        self.child = Some(child);
        Ok(())
    }

    /// Kills the node: the wrapper script would leave its virtual machine alive.
    pub fn kill(&mut self) -> Result<()> {
        let Some(mut child) = self.child.take() else { return Ok(()) };
        let pid_file = self.folder.path().join("pid");
        if let Ok(pid) = std::fs::read_to_string(&pid_file) {
            let pid = pid.trim();
            ensure!(pid.parse::<u32>().is_ok(), "the pid file holds no number");
            let _already_gone = Command::new("kill").args(["-KILL", pid]).status()?;
        }
        crate::kill(&mut child)
    }

    /// A command line tool that talks to this node.
    fn control(&self, arguments: &[&str]) -> Result<Command> {
        let mut command = self.command("rabbitmq-diagnostics")?;
        command.args(["-n", &self.name()]).args(arguments);
        Ok(command)
    }

    /// The AMQP port on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// `amqp://…` of the vhost `/`.
    pub fn url(&self) -> String {
        format!("amqp://guest:guest@127.0.0.1:{}/%2f", self.port)
    }

    fn name(&self) -> String {
        format!("bedside{}@localhost", self.port)
    }

    fn command(&self, program: &str) -> Result<Command> {
        let path = Path::new("/usr/lib/rabbitmq/bin").join(program);
        let folder = self.folder.path();
        let mut command = crate::as_user("rabbitmq", &path)?;
        command
            .current_dir(folder)
            .env("HOME", folder)
            .env("RABBITMQ_NODENAME", self.name())
            .env("RABBITMQ_NODE_IP_ADDRESS", "127.0.0.1")
            .env("RABBITMQ_NODE_PORT", self.port.to_string())
            .env("RABBITMQ_DIST_PORT", self.dist_port.to_string())
            .env("ERL_EPMD_PORT", self.epmd_port.to_string())
            .env("ERL_EPMD_ADDRESS", "127.0.0.1")
            .env("RABBITMQ_MNESIA_BASE", folder.join("mnesia"))
            .env("RABBITMQ_LOG_BASE", folder.join("log"))
            .env("RABBITMQ_PID_FILE", folder.join("pid"))
            .env("RABBITMQ_CONFIG_FILE", folder.join("none"))
            .env("RABBITMQ_ENABLED_PLUGINS_FILE", folder.join("plugins"))
            .env(
                "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS",
                "-kernel inet_dist_use_interface {127,0,0,1}",
            );
        Ok(command)
    }
}

impl Drop for Rabbit {
    fn drop(&mut self) {
        let _already_gone = self.kill();
        // Its port mapper stays otherwise.
        let _nobody = Command::new("epmd")
            .args(["-port", &self.epmd_port.to_string(), "-kill"])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status();
    }
}
