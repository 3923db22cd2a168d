//! The processes under test: children of this program that talk in JSON lines, so that the CPU
//! time of a server is that of the server alone.

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use nix::sched::{CpuSet, sched_setaffinity};
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike as _;
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};

/// What the parent asks.
#[derive(Debug, Serialize, Deserialize)]
pub enum Ask {
    /// Floor: forward from each first address to the others.
    Routes(Vec<(std::net::SocketAddr, Vec<std::net::SocketAddr>)>),
    /// Server: open a room.
    Open {
        /// Its key.
        room: u64,
    },
    /// Server: a person comes in.
    Join {
        /// Where.
        room: u64,
        /// The session's key.
        session: u64,
    },
    /// Server: announce a track.
    AddTrack {
        /// Where.
        room: u64,
        /// Who.
        session: u64,
        /// Audio, else video.
        audio: bool,
        /// The client's id of it.
        cid: String,
    },
    /// Server: an offer.
    Offer {
        /// Where.
        room: u64,
        /// Who.
        session: u64,
        /// Echoed.
        id: u32,
        /// The offer.
        sdp: String,
    },
    /// How much has it cost?
    Report,
}

/// What a child tells.
#[derive(Debug, Serialize, Deserialize)]
pub enum Tell {
    /// It takes datagrams here.
    Ready {
        /// On 127.0.0.1.
        port: u16,
    },
    /// A person is in.
    Joined {
        /// Who.
        session: u64,
    },
    /// An answer.
    Answer {
        /// Whose.
        session: u64,
        /// The answer.
        sdp: String,
    },
    /// Offer again, with more sections.
    Sections {
        /// Who.
        session: u64,
        /// New audio sections.
        audio: u32,
        /// New video sections.
        video: u32,
    },
    /// Something was refused.
    Refused {
        /// Whose, and why.
        what: String,
    },
    /// What it has cost.
    Report(Cost),
}

/// What a process has used and done since it began.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub struct Cost {
    /// User CPU time.
    pub user_us: i64,
    /// System CPU time.
    pub system_us: i64,
    /// RTP packets received.
    pub packets_in: u64,
    /// RTP packets sent.
    pub packets_out: u64,
    /// Datagrams that the kernel did not take.
    pub failures: u64,
    /// Turns of the loop.
    pub turns: u64,
}

impl Cost {
    /// This process until now.
    pub fn now(packets_in: u64, packets_out: u64, failures: u64, turns: u64) -> Result<Self> {
        let usage = getrusage(UsageWho::RUSAGE_SELF)?;
        let user_us = usage.user_time().num_microseconds();
        let system_us = usage.system_time().num_microseconds();
        Ok(Self { user_us, system_us, packets_in, packets_out, failures, turns })
    }

    /// What was used between two reports.
    pub const fn since(&self, earlier: &Self) -> Self {
        Self {
            user_us: self.user_us - earlier.user_us,
            system_us: self.system_us - earlier.system_us,
            packets_in: self.packets_in - earlier.packets_in,
            packets_out: self.packets_out - earlier.packets_out,
            failures: self.failures - earlier.failures,
            turns: self.turns - earlier.turns,
        }
    }

    /// User and system time.
    pub const fn cpu_us(&self) -> f64 {
        (self.user_us + self.system_us) as f64
    }
}

/// Says something to the parent.
pub fn tell(tell: &Tell) -> Result<()> {
    let mut line = serde_json::to_string(tell)?;
    line.push('\n');
    std::io::stdout().lock().write_all(line.as_bytes())?;
    Ok(())
}

/// What the parent asks, until it is gone.
pub fn asked() -> impl Iterator<Item = Result<Ask>> {
    std::io::stdin().lines().map(|line| Ok(serde_json::from_str(&line?)?))
}

/// Keeps this process on one core; where that is not possible, it floats.
pub fn pin(core: usize) {
    let mut set = CpuSet::new();
    if set.set(core).is_ok() {
        let _ = sched_setaffinity(Pid::from_raw(0), &set);
    }
}

/// A running child; killed when dropped.
#[derive(Debug)]
pub struct Process {
    child: Child,
    stdin: ChildStdin,
    told: Receiver<String>,
    /// Where it takes datagrams.
    pub port: u16,
}

impl Process {
    /// Starts this program again as something else, and waits until it is ready.
    pub fn start(arguments: &[&str]) -> Result<Self> {
        let mut child = Command::new(std::env::current_exe()?)
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let stdin = child.stdin.take().context("no standard input")?;
        let stdout = child.stdout.take().context("no standard output")?;
        let (sender, told) = channel();
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(std::io::Result::ok) {
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
        let mut process = Self { child, stdin, told, port: 0 };
        match process.wait(Duration::from_secs(10))? {
            Tell::Ready { port } => process.port = port,
            other => bail!("expected readiness, got {other:?}"),
        }
        Ok(process)
    }

    /// Asks; the answer comes by [`Self::told`].
    pub fn ask(&mut self, ask: &Ask) -> Result<()> {
        let mut line = serde_json::to_string(ask)?;
        line.push('\n');
        self.stdin.write_all(line.as_bytes())?;
        Ok(())
    }

    /// What it has told, if anything.
    pub fn told(&self) -> Result<Option<Tell>> {
        match self.told.try_recv() {
            Ok(line) => Ok(Some(serde_json::from_str(&line)?)),
            Err(_) => Ok(None),
        }
    }

    /// Waits for the next thing told.
    pub fn wait(&self, timeout: Duration) -> Result<Tell> {
        match self.told.recv_timeout(timeout) {
            Ok(line) => Ok(serde_json::from_str(&line)?),
            Err(RecvTimeoutError::Timeout) => bail!("the child says nothing"),
            Err(RecvTimeoutError::Disconnected) => bail!("the child is gone"),
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
