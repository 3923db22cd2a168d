//! Logs: one line of text or one JSON object per record, on standard error.
//!
//! Records carry ids and numbers. Names, tokens, message text and query strings never reach this
//! point: they are wrapped in `Private`, which shows nothing.

use std::io::IsTerminal as _;

use anyhow::Context as _;
use tracing_subscriber::EnvFilter;

use crate::config::{Log, LogFormat};

/// Starts logging; call once.
pub(crate) fn start(log: &Log) -> anyhow::Result<()> {
    let filter = EnvFilter::builder()
        .parse(&log.filter)
        .with_context(|| format!("log.filter: {:?} cannot be understood", log.filter))?;
    // The broker's client would show whole messages, and those hold join links.
    let filter = ["lapin=error", "lapin::returned_messages=off"]
        .into_iter()
        .filter_map(|directive| directive.parse().ok())
        .fold(filter, EnvFilter::add_directive);
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    let started = match log.format {
        LogFormat::Json => builder.json().flatten_event(true).try_init(),
        LogFormat::Text => builder.with_ansi(std::io::stderr().is_terminal()).try_init(),
    };
    started.map_err(|error| anyhow::anyhow!("logging cannot be started: {error}"))?;
    std::panic::set_hook(Box::new(log_panic));
    Ok(())
}

/// Panics go into the log like everything else: where, and the text if it is part of the program.
/// A text made at run time may hold anything, so it is left out.
fn log_panic(panic: &std::panic::PanicHookInfo<'_>) {
    let place = panic.location().map(ToString::to_string).unwrap_or_default();
    let text = panic.payload().downcast_ref::<&'static str>().copied().unwrap_or("(not shown)");
    let thread = std::thread::current();
    tracing::error!(place, text, thread = thread.name().unwrap_or_default(), "panic");
}
