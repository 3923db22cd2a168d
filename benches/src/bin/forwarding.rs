//! CPU time per forwarded packet of the release server, beside the kernel floor of the same run.
//!
//! Two tables. The first checks the floor itself: with constant packets and no gathering, its cost
//! beside plain `recvfrom` and `sendto` must be what it was when the design was chosen. The second
//! is the measurement: a browser's packets, the floor with the server's own rule of gathering, and
//! the server. Both processes are children of this one and run on one core; the load comes from
//! another.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a program that prints a table")]

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Result, bail};
use bedside_benches::floor::{self, Kind};
use bedside_benches::generator::{Generator, Measured, Shape};
use bedside_benches::load::Load;
use bedside_benches::process::{Ask, Process, pin};
use bedside_benches::report::{HEADER, Row};
use bedside_benches::server;
use clap::{Parser, Subcommand};
use serde::Serialize;

/// The shapes that are measured. Each carries more than 20,000 forwarded packets per second.
const SHAPES: [Shape; 3] = [
    Shape { name: "1 to 10, 7 rooms", rooms: 7, people: 11, publishers: 1 },
    Shape { name: "1 to 50, 2 rooms", rooms: 2, people: 51, publishers: 1 },
    Shape { name: "50 rooms of two", rooms: 50, people: 2, publishers: 2 },
];

/// The shapes that the floor is checked with, packets per second of each publisher, and the ratio
/// of offload to plain system calls that it must show again.
const CHECKS: [(Shape, f64, f64); 3] = [
    (Shape { name: "1 to 10", rooms: 1, people: 11, publishers: 1 }, 2_000.0, 1.7 / 3.1),
    (Shape { name: "1 to 50", rooms: 1, people: 51, publishers: 1 }, 400.0, 1.4 / 2.9),
    (Shape { name: "50 times 1 to 1", rooms: 50, people: 2, publishers: 1 }, 400.0, 4.6 / 6.7),
];

#[derive(Debug, Parser)]
#[command(about = "CPU time per forwarded packet, beside the kernel floor")]
struct Arguments {
    #[command(subcommand)]
    child: Option<Child>,
    /// Seconds of each measurement.
    #[arg(long, default_value_t = 5.0)]
    seconds: f64,
    /// Measurements of each cell, alternating between server and floor.
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Only shapes whose name contains this.
    #[arg(long, default_value = "")]
    only: String,
    /// Leave out the check of the floor.
    #[arg(long)]
    no_check: bool,
    /// Write the rows to this file too.
    #[arg(long)]
    json: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
enum Child {
    /// What a child of this program runs as.
    #[command(hide = true)]
    Floor {
        /// Which.
        kind: Kind,
    },
    /// What a child of this program runs as.
    #[command(hide = true)]
    Server,
}

#[derive(Debug, Serialize)]
struct Results {
    checks: Vec<Check>,
    rows: Vec<Row>,
}

#[derive(Debug, Serialize)]
struct Check {
    plain: Row,
    offload: Row,
    ratio: f64,
    ratio_wanted: f64,
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    match arguments.child {
        Some(Child::Floor { kind }) => return floor::run(kind),
        Some(Child::Server) => return server::run(),
        None => {}
    }
    if cfg!(debug_assertions) {
        eprintln!("This is a debug build: its numbers say nothing. Use scripts/bench.");
    }
    pin(1);
    let checks = if arguments.no_check { Vec::new() } else { check(&arguments)? };
    let rows = compare(&arguments)?;
    if let Some(path) = &arguments.json {
        std::fs::write(path, serde_json::to_string_pretty(&Results { checks, rows })?)?;
    }
    Ok(())
}

/// The floor beside plain system calls.
fn check(arguments: &Arguments) -> Result<Vec<Check>> {
    println!("The floor beside recvfrom and sendto, bursts of four packets of 1,200 bytes:\n");
    println!("{HEADER}");
    let mut checks = Vec::new();
    for (shape, rate, ratio_wanted) in &CHECKS {
        if !shape.name.contains(&arguments.only) {
            continue;
        }
        let load = Load::Constant { rate: *rate };
        let kinds = [["floor", "plain"].as_slice(), &["floor", "offload"]];
        let [plain, offload] = cell(arguments, shape, load, kinds, ["plain", "floor"])?;
        let ratio = offload.us_per_packet / plain.us_per_packet;
        println!("{}", plain.line(plain.us_per_packet));
        println!("{}", offload.line(plain.us_per_packet));
        checks.push(Check { plain, offload, ratio, ratio_wanted: *ratio_wanted });
    }
    println!();
    for check in &checks {
        let off = check.ratio / check.ratio_wanted - 1.0;
        println!(
            "{}: ratio {:.2}, was {:.2} ({:+.0} %): {}",
            check.plain.shape,
            check.ratio,
            check.ratio_wanted,
            off * 100.0,
            if off.abs() <= 0.1 { "the floor is as low as it was" } else { "NOT within 10 %" },
        );
    }
    println!();
    Ok(checks)
}

/// The server beside the floor.
fn compare(arguments: &Arguments) -> Result<Vec<Row>> {
    println!("The server beside the floor, a browser's packets:\n");
    println!("{HEADER}");
    let mut rows = Vec::new();
    for shape in &SHAPES {
        if !shape.name.contains(&arguments.only) {
            continue;
        }
        let kinds = [["floor", "collect"].as_slice(), &["server"]];
        let cells = cell(arguments, shape, Load::Browser, kinds, ["floor", "server"])?;
        let floor = cells.first().map_or(1.0, |row| row.us_per_packet);
        for row in cells {
            println!("{}", row.line(floor));
            if row.packets_per_second < 20_000.0 {
                println!("  below 20,000 packets per second: this line does not count");
            }
            rows.push(row);
        }
    }
    Ok(rows)
}

/// Two kinds of process under one load, in turn.
fn cell(
    arguments: &Arguments,
    shape: &Shape,
    load: Load,
    kinds: [&[&str]; 2],
    names: [&str; 2],
) -> Result<[Row; 2]> {
    let mut measured: [Vec<Measured>; 2] = Default::default();
    for _ in 0..arguments.rounds.max(1) {
        for (kind, measured) in kinds.iter().zip(&mut measured) {
            measured.push(run(arguments, *shape, load, kind)?);
        }
    }
    let [first, second] = measured;
    let [one, two] = names;
    Ok([Row::new(shape, one, &first), Row::new(shape, two, &second)])
}

fn run(arguments: &Arguments, shape: Shape, load: Load, kind: &[&str]) -> Result<Measured> {
    let mut process = Process::start(kind)?;
    let server = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), process.port);
    let mut generator = Generator::new(shape, server)?;
    if kind.contains(&"server") {
        generator.join(&mut process)?;
    } else {
        process.ask(&Ask::Routes(generator.routes()))?;
    }
    generator.begin(load);
    generator.warm_up(&mut process, Duration::from_secs(2))?;
    let deaf = generator.deaf();
    if deaf > 0 {
        bail!("{deaf} bots receive nothing");
    }
    generator.measure(&mut process, Duration::from_secs_f64(arguments.seconds))
}
