//! `bedside bench`: how much a server carries, measured by people made of software who join by the
//! client protocol, as anybody does. So it measures any server that speaks it.
//!
//! A level (so many consultations, say) is built up, runs for a moment, and is measured: how long each
//! packet was on its way, how many never came, how long joins took, what the server's process used. The
//! level is good while all bounds hold; levels rise until one breaks.

mod args;
mod fleet;
mod gauge;
mod page;
mod plot;
mod ramp;
mod report;
mod scenario;
mod show;
mod usage;

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::Context as _;
use bedside_signaling::token::KeyPair;
use tokio::time::{sleep, sleep_until};
use uuid::Uuid;

pub(crate) use self::args::Bench;
use self::args::{Compare, Load, Output};
use self::fleet::{Door, Fleet, come_and_go};
use self::gauge::{Gauge, Seen};
use self::ramp::Ramp;
use self::report::{Bounds, Joins, Level, Machine, Quantiles, Report, Server, Tool, curve};
use self::scenario::Scenario;
use self::show::Progress;
use self::usage::{Meter, Used};
use crate::config::Config;
use crate::tokens;

/// So long before a measurement begins or ends everybody is told.
const NOTICE: Duration = Duration::from_millis(30);
/// What left last has so long to come.
const DRAIN: Duration = Duration::from_millis(800);
/// People's first connections are waited for before memory is read as that of nobody.
const EMPTY: Duration = Duration::from_millis(200);

/// Runs what the command line asks for.
pub(crate) fn run(bench: Bench) -> anyhow::Result<()> {
    let (scenario, load) = match bench {
        Bench::Consultations(load) => (Scenario::Consultations, load),
        Bench::Fanout(load) => (Scenario::Fanout, load),
        Bench::Meeting(load) => (Scenario::Meeting, load),
        Bench::Audio(load) => (Scenario::Audio, load),
        Bench::Churn(load) => (Scenario::Churn, load),
        Bench::Compare(compare) => return side_by_side(&compare),
    };
    let threads = usize::from(load.threads);
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    let runtime = runtime.worker_threads(threads).enable_all().build()?;
    let report = runtime.block_on(measure(scenario, &load))?;
    runtime.shutdown_timeout(Duration::from_secs(1));
    write(&load.output, std::slice::from_ref(&report))?;
    crate::print(&show::table(std::slice::from_ref(&report)))
}

fn side_by_side(compare: &Compare) -> anyhow::Result<()> {
    let mut reports = Vec::new();
    for path in &compare.reports {
        let text = fs::read_to_string(path).with_context(|| path.display().to_string())?;
        let report: Report = serde_json::from_str(&text)
            .with_context(|| format!("{} is no report of this tool", path.display()))?;
        reports.push(report);
    }
    let scenario = reports.first().map(|report| report.scenario);
    anyhow::ensure!(
        reports.iter().all(|report| Some(report.scenario) == scenario),
        "reports of different scenarios cannot stand side by side"
    );
    write(&Output { json: None, html: compare.html.clone() }, &reports)?;
    crate::print(&show::table(&reports))
}

fn write(output: &Output, reports: &[Report]) -> anyhow::Result<()> {
    let save = |path: &Path, text: String| {
        fs::write(path, text).with_context(|| format!("{} cannot be written", path.display()))
    };
    if let (Some(path), [report]) = (&output.json, reports) {
        save(path, serde_json::to_string_pretty(report)? + "\n")?;
    }
    if let Some(path) = &output.html {
        save(path, page::page(reports))?;
    }
    Ok(())
}

/// All levels of one run.
async fn measure(scenario: Scenario, load: &Load) -> anyhow::Result<Report> {
    let url = load.url.trim_end_matches('/').to_owned();
    anyhow::ensure!(
        url.starts_with("http://") || url.starts_with("ws://"),
        "--url must begin with http:// or ws://: the load speaks no TLS; name the server's plain port"
    );
    let bounds = Bounds {
        delay_ms: load.max_delay.as_secs_f64() * 1e3,
        loss: load.max_loss / 100.0,
        join_ms: load.max_join.as_secs_f64() * 1e3,
    };
    let door = Door {
        url,
        keys: keys(load)?,
        run: Uuid::new_v4().simple().to_string().get(..8).unwrap_or_default().to_owned(),
        gauge: Arc::new(Gauge::new()?),
        rate: load.join_rate,
    };
    let mut report = Report {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        build: if cfg!(debug_assertions) { "debug" } else { "release" }.to_owned(),
        name: load.name.clone().unwrap_or_else(|| door.url.clone()),
        scenario,
        began: SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs(),
        machine: machine(),
        bounds,
        levels: Vec::new(),
        last_good: None,
        first_broken: None,
    };
    let mut ramp = if load.levels.is_empty() {
        Ramp::search(load.from.max(scenario.least()), load.most)
    } else {
        let least = scenario.least();
        Ramp::these(&load.levels.iter().map(|level| (*level).max(least)).collect::<Vec<_>>())
    };
    let mut stand = Stand::new(scenario, Arc::new(door), load)?;
    let mut progress = Progress::new();
    if report.build == "debug" {
        progress.line("This is a debug build: its numbers say nothing.");
    }
    while let Some(level) = ramp.level() {
        let measured = stand.level(level, &bounds, &mut progress).await?;
        progress.level(scenario, &measured);
        ramp.told(!load.levels.is_empty(), measured.breaches.is_empty());
        let joins = &measured.joins;
        let hopeless = report.levels.is_empty() && joins.tried > 0 && joins.failed == joins.tried;
        let why = joins.why.clone().unwrap_or_default();
        report.levels.push(measured);
        anyhow::ensure!(
            !hopeless,
            "nobody could come in: {why} (a server of ours makes rooms without a consultation with rooms.auto_create = true only)"
        );
    }
    (report.last_good, report.first_broken) = (ramp.good(), ramp.broken());
    Ok(report)
}

/// The key pair of the command line, or the one that the server itself would take.
fn keys(load: &Load) -> anyhow::Result<KeyPair> {
    match (&load.api_key, &load.api_secret) {
        (Some(key), Some(secret)) => Ok(KeyPair { key: key.clone(), secret: secret.clone() }),
        (None, _) | (_, None) => Ok(tokens::keys_or_demo(&Config::load(&load.file.sources())?)),
    }
}

fn machine() -> Machine {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let cpus = read("/proc/cpuinfo");
    let name = cpus.lines().find_map(|line| line.strip_prefix("model name"));
    let name = name.and_then(|line| line.split_once(':')).map(|(_, name)| name.trim().to_owned());
    Machine {
        cpu: name.unwrap_or_default(),
        cores: std::thread::available_parallelism().map_or(0, |cores| cores.get() as u64),
        kernel: read("/proc/sys/kernel/osrelease").trim().to_owned(),
        load_average: read("/proc/loadavg")
            .split_whitespace()
            .next()
            .and_then(|load| load.parse().ok())
            .unwrap_or(0.0),
    }
}

/// Everything that stays from one level to the next.
struct Stand<'l> {
    scenario: Scenario,
    load: &'l Load,
    door: Arc<Door>,
    fleet: Fleet,
    server: Option<Meter>,
    own: Meter,
    /// Memory of the server before anybody came.
    empty: Option<u64>,
    /// What the server used of a core with nobody coming or going.
    calm: Option<f64>,
    /// Breaks of connections that were told already.
    broken_before: u64,
}

/// What one measurement gives.
struct Window {
    seen: Seen,
    seconds: f64,
    server: Option<(Used, Used)>,
    own: (Used, Used),
    churned: Option<Joins>,
}

impl<'l> Stand<'l> {
    fn new(scenario: Scenario, door: Arc<Door>, load: &'l Load) -> anyhow::Result<Self> {
        let mut server = load.server_pid.map(Meter::of);
        let read = server.as_mut().map(|meter| meter.read().context("--server-pid cannot be read"));
        let empty = read.transpose()?.map(|used| used.resident);
        let fleet = Fleet::new(Arc::clone(&door), scenario);
        let own = Meter::own();
        Ok(Self { scenario, load, door, fleet, server, own, empty, calm: None, broken_before: 0 })
    }

    /// Builds a level up and measures it; once more while it is broken, as often as was asked for.
    async fn level(
        &mut self,
        level: u64,
        bounds: &Bounds,
        progress: &mut Progress,
    ) -> anyhow::Result<Level> {
        progress.status(&format!("{level} {}: coming in", self.scenario.unit()));
        let joins = self.fleet.become_level(level).await?;
        if self.scenario == Scenario::Churn && self.calm.is_none() {
            progress.status("nobody comes or goes: measuring what that costs");
            let calm = self.window(0).await?;
            self.calm = calm.server.map(|(before, after)| share(before, after, calm.seconds));
        }
        let mut tried = 0;
        loop {
            tried += 1;
            progress.status(&format!("{level} {}: measuring", self.scenario.unit()));
            let window = self.window(level).await?;
            let mut measured = self.judged(level, &joins, &window);
            measured.tries = tried;
            measured.breaches = measured.judge(bounds);
            if measured.breaches.is_empty() || tried >= self.load.tries || joins.failed > 0 {
                return Ok(measured);
            }
        }
    }

    /// One measurement of what is there, with `level` people a second who come and go.
    async fn window(&mut self, level: u64) -> anyhow::Result<Window> {
        let start = Instant::now() + self.load.warm_up.max(EMPTY);
        let end = start + self.load.time;
        let churn = (self.scenario == Scenario::Churn && level > 0)
            .then(|| tokio::spawn(come_and_go(Arc::clone(&self.door), level, start, end)));
        sleep_until((start - NOTICE).into()).await;
        self.door.gauge.open(start);
        sleep_until(start.into()).await;
        let before = (self.read_server()?, self.own.read()?, Instant::now());
        sleep_until((end - NOTICE).into()).await;
        self.door.gauge.close(end);
        sleep_until(end.into()).await;
        let after = (self.read_server()?, self.own.read()?, Instant::now());
        sleep(DRAIN).await;
        let seen = self.door.gauge.take()?;
        let churned = match churn {
            Some(churn) => Some(churn.await??),
            None => None,
        };
        Ok(Window {
            seen,
            seconds: after.2.saturating_duration_since(before.2).as_secs_f64(),
            server: before.0.zip(after.0),
            own: (before.1, after.1),
            churned,
        })
    }

    fn read_server(&mut self) -> anyhow::Result<Option<Used>> {
        let read = self.server.as_mut().map(Meter::read);
        read.transpose().context("the server's process is gone")
    }

    fn judged(&mut self, level: u64, joins: &Joins, window: &Window) -> Level {
        let Window { seen, seconds, server, own, churned } = window;
        let expected = seen.sent * self.scenario.listeners(level);
        let people = self.scenario.people(level);
        let broken = self.fleet.reconnections();
        // What happened to those who stay counts in each scenario.
        let mut joins = match churned {
            Some(churned) => {
                Joins { failed: churned.failed + joins.failed, deaf: joins.deaf, ..churned.clone() }
            }
            None => joins.clone(),
        };
        joins.reconnections = broken.saturating_sub(self.broken_before);
        self.broken_before = broken;
        let cpu = |(before, after): &(Used, Used)| after.cpu.saturating_sub(before.cpu);
        let server = server.map(|used| {
            let (core, micros) = (share(used.0, used.1, *seconds), cpu(&used).as_secs_f64() * 1e6);
            let each = |count: u64, micros: f64| (count > 0).then(|| micros / count as f64);
            let grown = self.empty.map(|empty| used.1.resident.saturating_sub(empty) as f64);
            let churns = churned.is_some();
            let more = self.calm.map(|calm| (core - calm).max(0.0) * seconds * 1e6);
            Server {
                core,
                us_per_packet: each(seen.came, micros).filter(|_| !churns),
                us_per_join: more.filter(|_| churns).and_then(|more| each(joins.tried, more)),
                resident_bytes: used.1.resident,
                bytes_per_person: grown
                    .filter(|_| !churns && people > 0)
                    .map(|grown| grown / people as f64),
            }
        });
        let packets = (seen.sent + seen.came).max(1) as f64;
        Level {
            level,
            people,
            seconds: self.load.time.as_secs_f64(),
            tries: 1,
            sent: seen.sent,
            expected,
            received: seen.came,
            repaired: seen.repaired,
            lost: expected.saturating_sub(seen.came),
            delay_ms: Quantiles::of(&seen.delays),
            delay_curve: curve(&seen.delays),
            late_ms: Quantiles::of(&seen.late),
            joins,
            server,
            tool: Tool {
                core: share(own.0, own.1, *seconds),
                us_per_packet: cpu(own).as_secs_f64() * 1e6 / packets,
            },
            breaches: Vec::new(),
        }
    }
}

/// Part of a core that was used.
fn share(before: Used, after: Used, seconds: f64) -> f64 {
    after.cpu.saturating_sub(before.cpu).as_secs_f64() / seconds.max(f64::MIN_POSITIVE)
}
