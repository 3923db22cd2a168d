//! The processes of a measurement: the bad network, and the server beside it.

use std::io::{BufRead as _, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use crate::Failure;

/// A process that ends with its owner.
#[derive(Debug)]
struct Process(Child);

impl Process {
    /// Starts it; gives the first line it prints, which is JSON.
    fn start(command: &mut Command) -> Result<(Self, Value), Failure> {
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn()?;
        let output = child.stdout.take();
        let process = Self(child);
        let mut line = String::new();
        BufReader::new(output.ok_or("no output")?).read_line(&mut line)?;
        let ready = serde_json::from_str(&line).map_err(|_| format!("not ready: {line:?}"))?;
        Ok((process, ready))
    }

    fn signal(&self, signal: Signal) {
        if let Ok(id) = i32::try_from(self.0.id()) {
            let _ = kill(Pid::from_raw(id), signal);
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.signal(Signal::SIGTERM);
        let _ = self.0.wait();
    }
}

/// A server whose patients come through a bad network.
#[derive(Debug)]
pub(crate) struct Clinic {
    // Dropped in this order: the server leaves before its network.
    _server: Process,
    network: Process,
    /// Base URL of the server.
    pub(crate) url: String,
    /// The namespace behind the bad network.
    pub(crate) near: String,
}

impl Clinic {
    /// Starts the network of a profile with this number, and a server.
    pub(crate) fn open(profile: &str, number: u8) -> Result<Self, Failure> {
        let near = format!("quality-{number}-{}", std::process::id());
        let file = root().join(format!("tests/netimp/profiles/{profile}.toml"));
        let mut netimp = Command::new(root().join("target/debug/bedside-netimp"));
        netimp.arg("--profile").arg(file).args(["--near", &near, "--create"]);
        netimp.args(["--seed", "1", "--number", &number.to_string()]);
        netimp.args(["--summary", "/dev/null"]);
        let (network, ready) = Process::start(&mut netimp)?;
        let addresses = ready.pointer("/far/addresses").and_then(Value::as_array);
        let addresses = addresses.ok_or("no addresses")?;
        let mut texts = addresses.iter().filter_map(Value::as_str);
        let host = texts.find(|text| text.contains('.')).ok_or("no IPv4 address")?;
        let host = host.split('/').next().unwrap_or(host);
        let mut demo = Command::new(root().join("target/debug/bedside"));
        demo.args(["demo", "--json", "--no-bot", "--port", "0", "--media-port", "0"]);
        demo.args(["--host", host]).stderr(Stdio::null());
        let (server, ready) = Process::start(&mut demo)?;
        let url = ready.get("url").and_then(Value::as_str).ok_or("no URL")?.to_owned();
        Ok(Self { _server: server, network, url, near })
    }

    /// The times of the profile count from now.
    pub(crate) fn begin(&self) {
        self.network.signal(Signal::SIGUSR1);
    }
}

/// A token for the room of this measurement.
pub(crate) fn token(identity: &str) -> Result<String, Failure> {
    let mut bedside = Command::new(root().join("target/debug/bedside"));
    let output =
        bedside.args(["token", "room", "--room", "quality", "--identity", identity]).output()?;
    Ok(String::from_utf8(output.stdout)?.trim().to_owned())
}

/// The top of the tree.
pub(crate) fn root() -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
}
