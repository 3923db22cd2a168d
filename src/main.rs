//! The `bedside` command.

mod assets;
mod bench;
mod bot;
mod cli;
mod config;
mod demo;
mod doctor;
mod edge;
mod http;
mod metrics;
mod operator;
mod relay;
mod selfmade;
mod shutdown;
mod telemetry;
mod tokens;
mod wire;

use std::io::Write as _;
use std::process::ExitCode;

use bedside_control_plane::backup::{self, Summary};
use clap::Parser as _;

use crate::cli::{Cli, Command, ConfigCommand};
use crate::config::Config;

fn main() -> ExitCode {
    bedside_control_plane::crypto::use_one();
    edge::raise_file_limit();
    match run(Cli::parse().command) {
        Ok(code) => code,
        Err(error) => {
            // The one place where an error of the whole command is told.
            let _closed = writeln!(std::io::stderr(), "bedside: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// What a command's process ends with.
fn run(command: Command) -> anyhow::Result<ExitCode> {
    let done = match command {
        // The one that says more than that it has failed.
        Command::Doctor(args) => return runtime()?.block_on(doctor::run(&args)),
        Command::Serve(serve) => {
            let config = Config::load(&serve.sources())?;
            config.check_secrets()?;
            runtime()?.block_on(wire::serve(&config))
        }
        Command::Backup(copy) => {
            let config = Config::load(&copy.config.sources())?;
            let done = runtime()?.block_on(backup::save(&wire::lasting(&config), &copy.file))?;
            print(&told("saved", &done))
        }
        Command::Restore(copy) => {
            let config = Config::load(&copy.config.sources())?;
            let done = runtime()?.block_on(backup::restore(&wire::lasting(&config), &copy.file))?;
            print(&told("restored", &done))
        }
        Command::Bench(wanted) => bench::run(*wanted),
        Command::Demo(demo) => runtime()?.block_on(demo::run(&demo)),
        Command::Token(token) => print(&tokens::mint(token)?),
        Command::Keys(command) => print(&runtime()?.block_on(operator::keys(command))?),
        Command::Audit(command) => {
            let told = runtime()?.block_on(operator::audit(command))?;
            if told.is_empty() { Ok(()) } else { print(&told) }
        }
        Command::Config(ConfigCommand::Print { file, .. }) => {
            print(&Config::load(&file.sources())?.redacted())
        }
    };
    done.map(|()| ExitCode::SUCCESS)
}

fn told(what: &str, done: &Summary) -> String {
    let Summary { schema, objects, made_at } = done;
    format!("{what}: database of schema {schema}, {objects} files, as of {made_at}")
}

fn runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    Ok(tokio::runtime::Builder::new_multi_thread().enable_all().build()?)
}

fn print(text: &str) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{}", text.trim_end())?;
    Ok(out.flush()?)
}
