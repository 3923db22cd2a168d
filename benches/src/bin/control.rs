//! The control plane under a steady load: how long do making a consultation and getting a token
//! take, how much can it take, and how fast does it take in events?
//!
//! Requests leave on a fixed schedule and are timed from when they *should* have left, so a stall
//! counts for everybody behind it. Beside it stands the floor of the same run: one durable
//! transaction on the same database (an `INSERT` and its `COMMIT`), the least that making a
//! consultation can cost.

#![allow(
    clippy::print_stdout,
    clippy::indexing_slicing,
    reason = "a program to be run by hand; indexing JSON does not panic"
)]

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use bedside_control_plane::token::ApiRole;
use bedside_faults::postgres::Postgres;
use bedside_faults::rabbit::Rabbit;
use bedside_faults::server::Server;
use clap::Parser;
use lapin::options::{BasicPublishOptions, ConfirmSelectOptions};
use lapin::{BasicProperties, Connection, ConnectionProperties};
use serde_json::{Value, json};
use tokio::sync::Mutex;
use tokio::task::JoinSet;

/// What the users asked for, in milliseconds: session creation, token generation.
const TARGETS_MS: [f64; 2] = [500.0, 100.0];

/// Latency of the API under a steady load, its limit, and the intake of events.
#[derive(Parser)]
struct Options {
    /// The server's binary.
    #[arg(long, default_value = "target/release/bedside")]
    binary: PathBuf,
    /// Requests a second: half make a consultation, half get a token.
    #[arg(long, default_value_t = 200)]
    rate: u32,
    /// Length of the steady load.
    #[arg(long, default_value_t = 20)]
    seconds: u32,
    /// Messages for the intake; 0 = none.
    #[arg(long, default_value_t = 5_000)]
    messages: usize,
    /// `sqlite`, `postgres`, or both in turn.
    #[arg(long, default_values = ["sqlite", "postgres"])]
    on: Vec<String>,
}

#[tokio::main]
async fn main() -> Result<()> {
    let options = Options::parse();
    ensure!(options.binary.exists(), "{} is not there: scripts/build", options.binary.display());
    for database in &options.on {
        match database.as_str() {
            "sqlite" => {
                let folder = tempfile::tempdir()?;
                let url = |name: &str| format!("sqlite:{}", folder.path().join(name).display());
                let floor = floor_of_sqlite(&folder.path().join("floor.db")).await?;
                measure(&options, database, &url("bedside.db"), floor).await?;
            }
            "postgres" => {
                let postgres = Postgres::start()?;
                let floor = floor_of_postgres(&postgres.url()).await?;
                measure(&options, database, &postgres.url(), floor).await?;
            }
            other => bail!("{other} is neither sqlite nor postgres"),
        }
    }
    Ok(())
}

async fn measure(options: &Options, name: &str, url: &str, floor: Times) -> Result<()> {
    // No limits: one caller stands for a whole clinic here.
    let rabbit = if options.messages > 0 { Some(Rabbit::start()?) } else { None };
    let mut settings: Vec<(&str, String)> = [
        "BEDSIDE_LIMITS__CALLER_PER_SECOND",
        "BEDSIDE_LIMITS__SERVICE_PER_SECOND",
        "BEDSIDE_LIMITS__ADDRESS_PER_SECOND",
    ]
    .map(|name| (name, "0".to_owned()))
    .into();
    if let Some(rabbit) = &rabbit {
        settings.push(("RABBITMQ_HOST", "127.0.0.1".to_owned()));
        settings.push(("RABBITMQ_PORT", rabbit.port().to_string()));
    }
    let server = Server::start(options.binary.clone(), url, &settings)?;
    let load = Arc::new(Load::new(&server)?);
    println!("{name}: floor (one durable transaction) {floor}");
    let (created, tokens) = steady(options, &load).await?;
    for ((what, times), target) in
        [("make a consultation", &created), ("get a token", &tokens)].into_iter().zip(TARGETS_MS)
    {
        println!(
            "{name}: {what:<20} {times}; p50 {:.1} × the floor; p99 is 1/{:.0} of {target} ms",
            times.at(0.5) / floor.at(0.5),
            target / times.at(0.99)
        );
    }
    let (all, seconds) = flat_out(&load).await?;
    println!("{name}: flat out, 32 callers: {:.0} requests/s", f64::from(all) / seconds);
    if let Some(rabbit) = &rabbit {
        intake(name, options.messages, rabbit, &load).await?;
    }
    Ok(())
}

/// Sorted times in milliseconds.
struct Times(Vec<f64>);

impl Times {
    fn new(mut ms: Vec<f64>) -> Self {
        ms.sort_by(f64::total_cmp);
        Self(ms)
    }

    fn at(&self, part: f64) -> f64 {
        let last = self.0.len().saturating_sub(1);
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            clippy::cast_precision_loss,
            reason = "an index between 0 and the last one"
        )]
        let index = (last as f64 * part).round() as usize;
        self.0.get(index).copied().unwrap_or(f64::NAN)
    }
}

impl std::fmt::Display for Times {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let [p50, p99, max] = [0.5, 0.99, 1.0].map(|part| self.at(part));
        write!(f, "n {}, p50 {p50:.2} ms, p99 {p99:.2} ms, max {max:.2} ms", self.0.len())
    }
}

fn ms_since(begun: Instant) -> f64 {
    begun.elapsed().as_secs_f64() * 1e3
}

async fn floor_of_sqlite(path: &Path) -> Result<Times> {
    use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqliteSynchronous};
    let options = SqliteConnectOptions::new()
        .filename(path)
        .create_if_missing(true)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Full);
    let pool = sqlx::SqlitePool::connect_with(options).await?;
    sqlx::query("CREATE TABLE floor (id BIGINT PRIMARY KEY, text TEXT)").execute(&pool).await?;
    let mut times = Vec::new();
    for id in 0..300_i64 {
        let begun = Instant::now();
        let mut tx = pool.begin_with("BEGIN IMMEDIATE").await?;
        sqlx::query("INSERT INTO floor VALUES ($1, $2)")
            .bind(id)
            .bind("x")
            .execute(&mut *tx)
            .await?;
        tx.commit().await?;
        times.push(ms_since(begun));
    }
    Ok(Times::new(times))
}

async fn floor_of_postgres(url: &str) -> Result<Times> {
    let pool = sqlx::PgPool::connect(url).await?;
    sqlx::query("CREATE TABLE floor (id BIGINT PRIMARY KEY, text TEXT)").execute(&pool).await?;
    let mut times = Vec::new();
    for id in 0..300_i64 {
        let begun = Instant::now();
        let mut tx = pool.begin().await?;
        sqlx::query("INSERT INTO floor VALUES ($1, $2)")
            .bind(id)
            .bind("x")
            .execute(&mut *tx)
            .await?;
        tx.commit().await?;
        times.push(ms_since(begun));
    }
    sqlx::query("DROP TABLE floor").execute(&pool).await?;
    Ok(Times::new(times))
}

/// Somebody who calls.
struct Load {
    http: reqwest::Client,
    url: String,
    service: String,
    doctor: String,
    next: std::sync::atomic::AtomicU64,
    made: Mutex<Vec<String>>,
}

impl Load {
    fn new(server: &Server) -> Result<Self> {
        Ok(Self {
            http: reqwest::Client::builder().timeout(Duration::from_secs(30)).build()?,
            url: server.url(),
            service: Server::token(ApiRole::Service, "bench"),
            doctor: Server::token(ApiRole::Doctor, "doc"),
            next: std::sync::atomic::AtomicU64::new(0),
            made: Mutex::new(Vec::new()),
        })
    }

    async fn post(&self, path: &str, token: &str, body: &Value) -> Result<Value> {
        let url = format!("{}/api/v1/consultations/sessions{path}", self.url);
        let answer = self.http.post(url).bearer_auth(token).json(body).send().await?;
        let status = answer.status();
        let body: Value = answer.json().await?;
        ensure!(status.is_success(), "{path}: {status} {body}");
        Ok(body)
    }

    async fn create(&self) -> Result<()> {
        let number = self.next.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let body = json!({"appointmentId": format!("bench-{number}"), "doctorId": "doc",
            "patientId": format!("pat-{number}"), "consultationMode": "VIDEO"});
        let made = self.post("", &self.service, &body).await?;
        let id = made["sessionId"].as_str().context("sessionId")?.to_owned();
        self.made.lock().await.push(id);
        Ok(())
    }

    /// A token for the doctor of a consultation that was made before.
    async fn token(&self, number: usize) -> Result<()> {
        let id = {
            let made = self.made.lock().await;
            made.get(number % made.len().max(1)).cloned().context("nothing was made yet")?
        };
        let joined = self.post(&format!("/{id}/join"), &self.doctor, &json!({})).await?;
        ensure!(joined["accessToken"].is_string(), "no token: {joined}");
        Ok(())
    }
}

/// `rate` requests a second, alternating; their times from the planned moment.
async fn steady(options: &Options, load: &Arc<Load>) -> Result<(Times, Times)> {
    for _ in 0..50 {
        load.create().await?;
    }
    let gap = Duration::from_secs(1) / options.rate;
    let begun = Instant::now() + gap;
    let mut tasks = JoinSet::new();
    for number in 0..options.rate * options.seconds {
        let planned = begun + gap * number;
        tokio::time::sleep_until(planned.into()).await;
        let load = Arc::clone(load);
        tasks.spawn(async move {
            let makes = number % 2 == 0;
            if makes {
                load.create().await?
            } else {
                load.token(number as usize).await?
            }
            anyhow::Ok((makes, ms_since(planned)))
        });
    }
    let (mut created, mut tokens) = (Vec::new(), Vec::new());
    while let Some(done) = tasks.join_next().await {
        let (makes, ms) = done??;
        if makes { created.push(ms) } else { tokens.push(ms) }
    }
    Ok((Times::new(created), Times::new(tokens)))
}

/// As fast as it goes: half makes consultations, half gets tokens.
async fn flat_out(load: &Arc<Load>) -> Result<(u32, f64)> {
    const LENGTH: Duration = Duration::from_secs(5);
    let begun = Instant::now();
    let mut tasks = JoinSet::new();
    for caller in 0..32_usize {
        let load = Arc::clone(load);
        tasks.spawn(async move {
            let mut done = 0;
            while begun.elapsed() < LENGTH {
                if caller % 2 == 0 {
                    load.create().await?
                } else {
                    load.token(caller).await?
                }
                done += 1;
            }
            anyhow::Ok(done)
        });
    }
    let mut all = 0;
    while let Some(done) = tasks.join_next().await {
        all += done??;
    }
    Ok((all, begun.elapsed().as_secs_f64()))
}

/// Messages that ask for a consultation, from a full queue until each is stored.
async fn intake(name: &str, messages: usize, rabbit: &Rabbit, load: &Load) -> Result<()> {
    let connection = Connection::connect(&rabbit.url(), ConnectionProperties::default()).await?;
    let channel = connection.create_channel().await?;
    channel.confirm_select(ConfirmSelectOptions::default()).await?;
    let begun = Instant::now();
    let mut confirms = Vec::new();
    for number in 0..messages {
        let body = json!({"event_type": "appointment.video.create", "data": {
            "appointment_id": format!("intake-{number}"), "doctor_id": "intake",
            "patient_id": format!("pat-{number}"), "scheduled_time": "2027-01-25T14:00:00"}});
        let properties = BasicProperties::default()
            .with_content_type("application/json".into())
            .with_delivery_mode(2);
        let confirm = channel
            .basic_publish(
                "appointments-exchange".into(),
                "appointment.video.create".into(),
                BasicPublishOptions::default(),
                body.to_string().as_bytes(),
                properties,
            )
            .await?;
        confirms.push(confirm);
    }
    for confirm in confirms {
        confirm.await?;
    }
    let last = format!("intake-{}", messages - 1);
    let path = format!("{}/api/v1/consultations/sessions?limit=200", load.url);
    let doctor = Server::token(ApiRole::Doctor, "intake");
    loop {
        let page: Value = load.http.get(&path).bearer_auth(&doctor).send().await?.json().await?;
        let items = page["items"].as_array().context("items")?;
        if items.iter().any(|session| session["appointmentId"] == last.as_str()) {
            break;
        }
        ensure!(begun.elapsed() < Duration::from_secs(300), "the queue is not taken in");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let seconds = begun.elapsed().as_secs_f64();
    #[expect(clippy::cast_precision_loss, reason = "a few thousand")]
    let rate = messages as f64 / seconds;
    println!("{name}: {messages} messages taken in {seconds:.1} s: {rate:.0} events/s");
    Ok(())
}
