//! A bad network between two network namespaces, the same one for the same seed.
//!
//! Two TUN devices, one in each namespace, and one loop that carries packets between them as the
//! profile says. Whatever runs in the namespaces goes through it unchanged. See README.md.

mod channel;
mod loss;
mod namespace;
mod profile;
mod record;
mod run;

use std::io::Write as _;
use std::path::PathBuf;

use anyhow::{Context as _, Result};
use clap::Parser;
use nix::sys::prctl;
use nix::sys::signal::Signal;
use serde::Serialize;

use namespace::{Addresses, End, Namespace};
use profile::Profile;
use record::{Log, Summary};
use run::{Link, Run};

/// Joins two network namespaces by a bad network, the same one for the same seed. Needs root.
///
/// Prints one line of JSON with the addresses when it is ready. SIGUSR1 lets the profile begin
/// anew, SIGTERM ends the run; it also ends with its parent.
#[derive(Parser)]
struct Arguments {
    /// What the network does (TOML; see profiles/).
    #[arg(long)]
    profile: PathBuf,
    /// The same seed loses the same packets.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Namespace of the person on the bad network; its default route goes through.
    #[arg(long)]
    near: String,
    /// Namespace of the server; without it, the one that this is started in.
    #[arg(long)]
    far: Option<String>,
    /// Make the namespaces, and remove them at the end.
    #[arg(long)]
    create: bool,
    /// Number of this network, for several at once: it decides the names and addresses.
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u8).range(0..100))]
    number: u8,
    /// Write a line for each packet there (CSV).
    #[arg(long)]
    log: Option<PathBuf>,
    /// Write the sums there at the end (JSON) and not to standard output.
    #[arg(long)]
    summary: Option<PathBuf>,
}

/// What is printed when packets can flow.
#[derive(Serialize)]
struct Ready {
    ready: bool,
    near: Place,
    far: Place,
}

/// One side.
#[derive(Serialize)]
struct Place {
    namespace: Option<String>,
    addresses: Vec<String>,
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let profile = Profile::load(&arguments.profile)?;
    let signals = run::take_signals()?;
    prctl::set_pdeathsig(Signal::SIGTERM).context("asking for the parent's end")?;
    let log = arguments.log.as_deref().map(Log::create).transpose()?;
    let namespace = |name: &str| {
        if arguments.create { Namespace::make(name) } else { Namespace::given(name) }
    };
    let near = namespace(&arguments.near)?;
    let far = arguments.far.as_deref().map(namespace).transpose()?;
    let far_name = far.as_ref().map(Namespace::name);
    let (links, ready) = join(&arguments, &profile, near.name(), far_name)?;
    print(&ready)?;
    let (links, length) = Run::new(links, profile.swap_at, log).go(signals)?;
    let name = arguments.profile.file_stem().unwrap_or_default().to_string_lossy();
    let seconds = length.as_secs_f64();
    let summary = Summary { profile: &name, seed: arguments.seed, seconds, links };
    match &arguments.summary {
        Some(path) => std::fs::write(path, serde_json::to_vec_pretty(&summary)?)
            .with_context(|| path.display().to_string()),
        None => print(&summary),
    }
}

/// Makes the links; the first one is in use.
fn join(
    arguments: &Arguments,
    profile: &Profile,
    near_name: &str,
    far_name: Option<&str>,
) -> Result<(Vec<Link>, Ready)> {
    let mut links = Vec::new();
    let mut ready = Ready {
        ready: true,
        near: Place { namespace: Some(near_name.to_owned()), addresses: Vec::new() },
        far: Place { namespace: far_name.map(str::to_owned), addresses: Vec::new() },
    };
    for (index, ways) in profile.links.iter().enumerate() {
        let place = arguments.number * 2 + u8::try_from(index)?;
        // The server keeps its one address, whichever way people come.
        let (own, peer) = (Addresses::of(place, 2), Addresses::of(arguments.number * 2, 1));
        let near = End::make(Some(near_name), format!("near{place}"), profile.mtu, own, peer)?;
        let far = End::make(far_name, format!("far{place}"), profile.mtu, peer, own)?;
        far.up(false)?;
        if index == 0 {
            near.up(true)?;
            ready.far.addresses.extend([peer.v4.to_string(), peer.v6.to_string()]);
        }
        ready.near.addresses.extend([own.v4.to_string(), own.v6.to_string()]);
        links.push(Link::new(near, far, ways, arguments.seed, index as u64));
    }
    Ok((links, ready))
}

fn print(value: &impl Serialize) -> Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{}", serde_json::to_string(value)?)?;
    Ok(())
}
