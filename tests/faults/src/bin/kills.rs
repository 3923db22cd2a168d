//! Events in, events out, and the server killed again and again: is each applied once?
//!
//! A sender books appointments, starts and ends their consultations by messages, with repeats of
//! the same message in between. The server is killed (SIGKILL) at random moments and started again
//! on what it left. A second consumer hears every answer. At the end a checker reads the tables
//! and what was heard, prints the counts, and fails on anything lost or doubled.

#![allow(clippy::print_stdout, reason = "what this program is for")]

use std::collections::{HashMap, HashSet};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use bedside_faults::postgres::Postgres;
use bedside_faults::rabbit::Rabbit;
use bedside_faults::server::Server;
use clap::Parser;
use futures_util::StreamExt as _;
use lapin::Confirmation;
use lapin::options::{
    BasicAckOptions, BasicConsumeOptions, BasicPublishOptions, BasicQosOptions,
    ConfirmSelectOptions, ExchangeDeclareOptions, QueueBindOptions, QueueDeclareOptions,
};
use lapin::types::{FieldTable, ShortString};
use lapin::{BasicProperties, Channel, Connection, ConnectionProperties, Consumer, ExchangeKind};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng as _, SeedableRng as _};
use serde_json::{Value, json};
use sqlx::Row as _;
use uuid::Uuid;

const EXCHANGE: &str = "appointments-exchange";
/// How many appointments may be between booking and end at once.
const AT_ONCE: usize = 200;
/// Nothing heard for so long: something is lost.
const PATIENCE: Duration = Duration::from_secs(90);

/// Kills the server while events flow, and counts what was applied.
#[derive(Parser)]
struct Options {
    /// The server's binary.
    #[arg(long, default_value = "target/debug/bedside")]
    binary: PathBuf,
    /// Events to send at least, three for each appointment; repeats come on top.
    #[arg(long, default_value_t = 10_000)]
    events: usize,
    /// How often the server is killed.
    #[arg(long, default_value_t = 20)]
    kills: u32,
    /// The same seed kills after the same pauses.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// `sqlite`, `postgres`, or both in turn.
    #[arg(long, default_values = ["sqlite", "postgres"])]
    on: Vec<String>,
}

#[tokio::main]
async fn main() -> Result<()> {
    let options = Options::parse();
    let rabbit = Rabbit::start()?;
    for database in &options.on {
        match database.as_str() {
            "sqlite" => {
                let folder = tempfile::tempdir()?;
                let url = format!("sqlite:{}", folder.path().join("bedside.db").display());
                run(&options, &rabbit, database, &url).await?;
            }
            "postgres" => {
                let postgres = Postgres::start()?;
                run(&options, &rabbit, database, &postgres.url()).await?;
            }
            other => bail!("{other} is neither sqlite nor postgres"),
        }
    }
    Ok(())
}

/// What the checker heard of one appointment: message ids of each answer.
#[derive(Default)]
struct Heard {
    answers: HashMap<String, HashSet<String>>,
    session: Option<String>,
}

/// The other side of the broker.
struct Clinic {
    channel: Channel,
    heard: HashMap<String, Heard>,
    deliveries: usize,
    sent: usize,
    repeated: usize,
    rng: ChaCha8Rng,
}

async fn run(options: &Options, rabbit: &Rabbit, name: &str, url: &str) -> Result<()> {
    let vhost = "/".to_owned();
    let settings = [
        ("RABBITMQ_HOST", "127.0.0.1".to_owned()),
        ("RABBITMQ_PORT", rabbit.port().to_string()),
        ("RABBITMQ_VHOST", vhost),
    ];
    let (mut clinic, mut answers) = Clinic::open(rabbit, options.seed).await?;
    let mut server = Server::start(options.binary.clone(), url, &settings)?;
    let appointments = options.events.div_ceil(3);
    let begun = Instant::now();
    let (mut kills, mut next_kill) = (0, clinic.pause());
    let (mut booked, mut done) = (0, 0);
    let mut heard_at = Instant::now();
    while done < appointments {
        while booked < appointments && booked - done < AT_ONCE {
            clinic.book(booked).await?;
            booked += 1;
        }
        let answer = tokio::time::timeout(Duration::from_millis(100), answers.next()).await;
        if let Ok(Some(delivery)) = answer {
            let delivery = delivery?;
            heard_at = Instant::now();
            done += usize::from(clinic.hear(&delivery).await?);
            delivery.ack(BasicAckOptions::default()).await?;
        }
        ensure!(heard_at.elapsed() < PATIENCE, "{name}: silence after {done} of {appointments}");
        if kills < options.kills && Instant::now() >= next_kill {
            server.kill()?;
            kills += 1;
            server.start_again()?;
            next_kill = clinic.pause();
        }
    }
    ensure!(kills == options.kills, "{name}: over after {kills} kills: send more events");
    clinic.listen_on(&mut answers).await?;
    let seconds = begun.elapsed().as_secs_f64();
    server.kill()?;
    let applied = Applied::read(url).await?;
    report(name, &clinic, &applied, kills, seconds);
    judge(&clinic, &applied, appointments)
}

impl Clinic {
    async fn open(rabbit: &Rabbit, seed: u64) -> Result<(Self, Consumer)> {
        let connection =
            Connection::connect(&rabbit.url(), ConnectionProperties::default()).await?;
        let channel = connection.create_channel().await?;
        channel.confirm_select(ConfirmSelectOptions::default()).await?;
        let durable = ExchangeDeclareOptions { durable: true, ..ExchangeDeclareOptions::default() };
        channel
            .exchange_declare(EXCHANGE.into(), ExchangeKind::Topic, durable, FieldTable::default())
            .await?;
        let queue = format!("checker-{}", Uuid::new_v4());
        let durable = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
        let name = ShortString::from(queue.as_str());
        channel.queue_declare(name.clone(), durable, FieldTable::default()).await?;
        channel
            .queue_bind(
                name.clone(),
                EXCHANGE.into(),
                "video.session.#".into(),
                QueueBindOptions::default(),
                FieldTable::default(),
            )
            .await?;
        channel.basic_qos(500, BasicQosOptions::default()).await?;
        let consumer = channel
            .basic_consume(
                name,
                "checker".into(),
                BasicConsumeOptions::default(),
                FieldTable::default(),
            )
            .await?;
        let rng = ChaCha8Rng::seed_from_u64(seed);
        let clinic =
            Self { channel, heard: HashMap::new(), deliveries: 0, sent: 0, repeated: 0, rng };
        Ok((clinic, consumer))
    }

    /// When the next kill comes: 0.2 to 3 seconds from now.
    fn pause(&mut self) -> Instant {
        let ms = 200 + u64::from(self.rng.next_u32() % 2_800);
        Instant::now() + Duration::from_millis(ms)
    }

    async fn book(&mut self, number: usize) -> Result<()> {
        let appointment = format!("appointment-{number}");
        let body = json!({
            "event_type": "appointment.video.create",
            "timestamp": "2026-01-24T10:30:00",
            "data": {
                "appointment_id": appointment, "doctor_id": format!("doc{}", number % 50),
                "patient_id": format!("pat{number}"), "scheduled_time": "2027-01-25T14:00:00",
            },
        });
        self.heard.entry(appointment).or_default();
        self.send("appointment.video.create", &body).await
    }

    /// Sends with a confirm; one in ten a second time, with the same message id.
    async fn send(&mut self, key: &str, body: &Value) -> Result<()> {
        let id = Uuid::new_v4().to_string();
        let again = self.rng.next_u32().is_multiple_of(10);
        for _ in 0..1 + u32::from(again) {
            // A message that no queue takes yet comes back: the server has never been there.
            while !self.publish(key, &id, body).await? {
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
        self.sent += 1;
        self.repeated += usize::from(again);
        Ok(())
    }

    /// One message; `false`: it came back.
    async fn publish(&self, key: &str, id: &str, body: &Value) -> Result<bool> {
        let properties = BasicProperties::default()
            .with_content_type("application/json".into())
            .with_delivery_mode(2)
            .with_message_id(id.into());
        let mandatory = BasicPublishOptions { mandatory: true, ..BasicPublishOptions::default() };
        let body = body.to_string();
        let publish = self.channel.basic_publish(
            EXCHANGE.into(),
            key.into(),
            mandatory,
            body.as_bytes(),
            properties,
        );
        match publish.await?.await? {
            Confirmation::Ack(returned) => Ok(returned.is_none()),
            Confirmation::Nack(_) | Confirmation::NotRequested => bail!("the broker refuses"),
        }
    }

    /// Takes one answer and does what follows from it. `true`: its appointment is done.
    async fn hear(&mut self, delivery: &lapin::message::Delivery) -> Result<bool> {
        self.deliveries += 1;
        let body: Value = serde_json::from_slice(&delivery.data).context("answers are JSON")?;
        let kind = delivery.routing_key.to_string();
        let data = body.get("data").context("data")?;
        let appointment = data
            .get("appointment_id")
            .and_then(Value::as_str)
            .context("appointment_id")?
            .to_owned();
        let id = delivery.properties.message_id().as_ref().context("message_id")?.to_string();
        let heard = self.heard.get_mut(&appointment).context("an appointment of ours")?;
        let first = heard.answers.entry(kind.clone()).or_default();
        let is_first = first.is_empty();
        first.insert(id);
        if !is_first {
            return Ok(false);
        }
        let session =
            data.get("session_id").and_then(Value::as_str).context("session_id")?.to_owned();
        match kind.as_str() {
            "video.session.created" => {
                heard.session = Some(session.clone());
                let data = json!({"session_id": session, "doctor_id": "doc",
                    "timestamp": "2027-01-25T14:00:00"});
                let body = json!({"event_type": "appointment.video.start", "data": data});
                self.send("appointment.video.start", &body).await?;
            }
            "video.session.started" => {
                ensure!(heard.session.as_deref() == Some(&session), "another session started");
                let data = json!({"session_id": session, "ended_by": "doc",
                    "ended_by_role": "doctor", "timestamp": "2027-01-25T14:30:00"});
                let body = json!({"event_type": "appointment.video.end", "data": data});
                self.send("appointment.video.end", &body).await?;
            }
            "video.session.completed" => return Ok(true),
            other => bail!("unexpected answer {other}: {body}"),
        }
        Ok(false)
    }

    /// Whatever still comes within a moment.
    async fn listen_on(&mut self, answers: &mut Consumer) -> Result<()> {
        while let Ok(Some(delivery)) =
            tokio::time::timeout(Duration::from_secs(3), answers.next()).await
        {
            let delivery = delivery?;
            self.hear(&delivery).await?;
            delivery.ack(BasicAckOptions::default()).await?;
        }
        Ok(())
    }

    /// Answers with two different ids for the same thing.
    fn doubled(&self) -> usize {
        let answers = self.heard.values().flat_map(|heard| heard.answers.values());
        answers.filter(|ids| ids.len() > 1).count()
    }

    fn answered(&self, kind: &str) -> usize {
        self.heard.values().filter(|heard| heard.answers.contains_key(kind)).count()
    }
}

/// What the tables hold.
struct Applied {
    sessions: i64,
    completed: i64,
    created: i64,
    started: i64,
    ended: i64,
}

impl Applied {
    async fn read(url: &str) -> Result<Self> {
        const SESSIONS: &str = "SELECT CAST(COUNT(DISTINCT appointment_id) AS BIGINT), \
            CAST(COUNT(CASE WHEN status = 'COMPLETED' THEN 1 END) AS BIGINT), \
            CAST(COUNT(*) AS BIGINT) FROM consultation_sessions";
        const EVENTS: &str = "SELECT CAST(COUNT(*) AS BIGINT) FROM session_events \
            WHERE event_type = $1";
        let mut counts = [0_i64; 3];
        let sessions: (i64, i64, i64);
        if url.starts_with("sqlite:") {
            let pool = sqlx::SqlitePool::connect(url).await?;
            sessions = sqlx::query_as(SESSIONS).fetch_one(&pool).await?;
            for (count, kind) in counts.iter_mut().zip(["created", "started", "ended"]) {
                *count = sqlx::query(EVENTS).bind(kind).fetch_one(&pool).await?.get(0);
            }
        } else {
            let pool = sqlx::PgPool::connect(url).await?;
            sessions = sqlx::query_as(SESSIONS).fetch_one(&pool).await?;
            for (count, kind) in counts.iter_mut().zip(["created", "started", "ended"]) {
                *count = sqlx::query(EVENTS).bind(kind).fetch_one(&pool).await?.get(0);
            }
        }
        ensure!(sessions.0 == sessions.2, "an appointment has two consultations");
        let [created, started, ended] = counts;
        Ok(Self { sessions: sessions.2, completed: sessions.1, created, started, ended })
    }
}

fn report(name: &str, clinic: &Clinic, applied: &Applied, kills: u32, seconds: f64) {
    println!(
        "{name}: {} events sent (and {} repeated), {kills} kills, {seconds:.0} s",
        clinic.sent, clinic.repeated
    );
    println!(
        "  applied: {} created, {} started, {} ended; {} consultations, {} completed",
        applied.created, applied.started, applied.ended, applied.sessions, applied.completed
    );
    let kinds = ["created", "started", "completed"]
        .map(|kind| format!("{} {kind}", clinic.answered(&format!("video.session.{kind}"))));
    println!(
        "  answers: {} in {} deliveries, {} doubled with another id",
        kinds.join(", "),
        clinic.deliveries,
        clinic.doubled()
    );
}

fn judge(clinic: &Clinic, applied: &Applied, appointments: usize) -> Result<()> {
    let wanted = i64::try_from(appointments)?;
    let counts =
        [applied.sessions, applied.completed, applied.created, applied.started, applied.ended];
    ensure!(counts == [wanted; 5], "wanted {wanted} of each, found {counts:?}");
    ensure!(clinic.doubled() == 0, "an answer was given twice under two ids");
    Ok(())
}
