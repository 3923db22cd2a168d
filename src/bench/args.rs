//! The command line of `bedside bench`.

use std::path::PathBuf;
use std::time::Duration;

use bedside_sfu::core::api::Private;
use clap::{Args, Subcommand};

use crate::cli::ConfigFile;
use crate::config::parse_period;

/// What to measure, or what to do with what was measured.
#[derive(Debug, Subcommand)]
pub(crate) enum Bench {
    /// Rooms of two with sound and picture both ways. A level is so many rooms.
    Consultations(Load),
    /// One who sends sound and picture, many who receive. A level is so many receivers.
    Fanout(Load),
    /// One room in which everybody sends and receives. A level is so many people.
    Meeting(Load),
    /// Rooms of two with sound alone. A level is so many rooms.
    Audio(Load),
    /// People who come, stay a moment and go, beside some consultations. A level is so many joins a second.
    Churn(Load),
    /// Put reports of earlier runs side by side.
    Compare(Compare),
}

/// Flags of a scenario.
#[derive(Clone, Debug, Args)]
pub(crate) struct Load {
    /// Server, `http://host:port` or `ws://host:port`; any that speaks the client protocol.
    #[arg(long)]
    pub(crate) url: String,
    /// Key that signs room tokens [default: as `serve` would].
    #[arg(long, requires = "api_secret")]
    pub(crate) api_key: Option<String>,
    /// Its secret. Others on this machine see it in the list of processes: better name a file with --config.
    #[arg(long, value_parser = private, requires = "api_key")]
    pub(crate) api_secret: Option<Private<String>>,
    #[command(flatten)]
    pub(crate) file: ConfigFile,
    /// Process of the server on this machine, to tell its CPU time and memory.
    #[arg(long, value_name = "PID")]
    pub(crate) server_pid: Option<u32>,
    /// What the server is called in the report [default: its URL].
    #[arg(long)]
    pub(crate) name: Option<String>,
    /// Levels to measure, ascending, instead of searching: 10,20,50.
    #[arg(long, value_delimiter = ',', value_name = "N,…")]
    pub(crate) levels: Vec<u64>,
    /// First level of the search.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) from: u64,
    /// Highest level of the search.
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) most: u64,
    /// How long a level is measured.
    #[arg(long, default_value = "5s", value_parser = period)]
    pub(crate) time: Duration,
    /// How long a level runs before it is measured.
    #[arg(long, default_value = "2s", value_parser = period)]
    pub(crate) warm_up: Duration,
    /// A level is broken when so many measurements of it are.
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..=10))]
    pub(crate) tries: u32,
    /// Bound: 99 of 100 packets are forwarded within.
    #[arg(long, default_value = "50ms", value_parser = period)]
    pub(crate) max_delay: Duration,
    /// Bound: of a hundred packets so many are lost.
    #[arg(long, default_value_t = 0.1, value_name = "PERCENT")]
    pub(crate) max_loss: f64,
    /// Bound: 99 of 100 joins, and first packets after one, take no longer.
    #[arg(long, default_value = "1s", value_parser = period)]
    pub(crate) max_join: Duration,
    /// People who join in a second while a level is built up.
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub(crate) join_rate: u32,
    /// Threads of the load.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=256))]
    pub(crate) threads: u16,
    #[command(flatten)]
    pub(crate) output: Output,
}

/// Flags of `bedside bench compare`.
#[derive(Clone, Debug, Args)]
pub(crate) struct Compare {
    /// Reports that `--json` wrote, of one scenario.
    #[arg(required = true, num_args = 2..=5)]
    pub(crate) reports: Vec<PathBuf>,
    /// Write a page with plots.
    #[arg(long, value_name = "FILE")]
    pub(crate) html: Option<PathBuf>,
}

/// Where reports go.
#[derive(Clone, Debug, Args)]
pub(crate) struct Output {
    /// Write the report as JSON.
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,
    /// Write the report as a page with plots.
    #[arg(long, value_name = "FILE")]
    pub(crate) html: Option<PathBuf>,
}

// Clap wants any error type of a parser; reading a secret has none.
#[allow(clippy::unnecessary_wraps, reason = "the signature is clap's")]
fn private(text: &str) -> Result<Private<String>, String> {
    Ok(Private::new(text.to_owned()))
}

fn period(text: &str) -> Result<Duration, String> {
    let read = parse_period(text).filter(|period| *period <= Duration::from_secs(3600));
    read.ok_or_else(|| "a number with ms, s or m, such as 500ms; an hour at the most".to_owned())
}
