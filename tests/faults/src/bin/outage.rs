//! A call while PostgreSQL, and then RabbitMQ, is dead: does the call go on, and is everything
//! that was acknowledged there afterwards?
//!
//! Two headless participants with sound and picture meet in a consultation. Then the database is
//! killed and stays away, then the broker. Each second the media of both must have moved. Writes
//! are tried all the time; those that the server acknowledged are looked for at the end, and the
//! events of what happened meanwhile must all have reached a consumer.

#![allow(
    clippy::print_stdout,
    clippy::indexing_slicing,
    reason = "a program to be run by hand; indexing JSON does not panic"
)]

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use bedside_client::{ConnectOptions, Participant, Publish};
use bedside_control_plane::token::ApiRole;
use bedside_faults::postgres::Postgres;
use bedside_faults::rabbit::Rabbit;
use bedside_faults::server::Server;
use clap::Parser;
use serde_json::{Value, json};

/// The longest time that a track of either side may stand still.
const STILL: Duration = Duration::from_secs(2);

/// How many consultations are made while the broker is away.
const BOOKED: u64 = 5;

/// Kills the database and the broker during a call.
#[derive(Parser)]
struct Options {
    /// The server's binary.
    #[arg(long, default_value = "target/debug/bedside")]
    binary: PathBuf,
    /// How long each of the two stays away, in seconds.
    #[arg(long, default_value_t = 60)]
    seconds: u64,
}

#[tokio::main]
async fn main() -> Result<()> {
    let options = Options::parse();
    let mut postgres = Postgres::start()?;
    let mut rabbit = Rabbit::start()?;
    let settings =
        [("RABBITMQ_HOST", "127.0.0.1".to_owned()), ("RABBITMQ_PORT", rabbit.port().to_string())];
    let server = Server::start(options.binary.clone(), &postgres.url(), &settings)?;
    let mut visit = Visit::begin(&server).await?;
    visit.watch("everything is there", Duration::from_secs(5)).await?;

    postgres.kill()?;
    visit.watch("without the database", Duration::from_secs(options.seconds)).await?;
    postgres.start_again()?;
    visit.settle().await?;
    visit.check().await?;

    rabbit.kill()?;
    visit.watch("without the broker", Duration::from_secs(options.seconds)).await?;
    visit.book(BOOKED).await?;
    let waiting = visit.backlog().await?;
    ensure!(waiting >= BOOKED, "{waiting} events wait for the broker, {BOOKED} were made");
    rabbit.start_again()?;
    let begun = Instant::now();
    while visit.backlog().await? > 0 {
        ensure!(begun.elapsed() < Duration::from_secs(90), "the outbox does not drain");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    println!(
        "the broker is back: {waiting} events waited, all taken {:.1} s later",
        begun.elapsed().as_secs_f64()
    );
    visit.check().await?;
    visit.end().await
}

/// One consultation with two people in it.
struct Visit {
    http: reqwest::Client,
    base: String,
    url: String,
    id: String,
    doctor: String,
    service: String,
    people: Vec<Participant>,
    /// Chat messages that were acknowledged, by their ids.
    acknowledged: Vec<String>,
    refused: usize,
}

impl Visit {
    async fn begin(server: &Server) -> Result<Self> {
        let url = server.url();
        let base = format!("{url}/api/v1/consultations/sessions");
        let service = Server::token(ApiRole::Service, "faults");
        let mut visit = Self {
            http: reqwest::Client::builder().timeout(Duration::from_secs(15)).build()?,
            base,
            url,
            id: String::new(),
            doctor: Server::token(ApiRole::Doctor, "doc"),
            service: service.clone(),
            people: Vec::new(),
            acknowledged: Vec::new(),
            refused: 0,
        };
        let new = json!({"doctorId": "doc", "patientId": "pat", "consultationMode": "VIDEO",
            "appointmentId": "outage"});
        let made = visit.call("", &service, &new).await?;
        visit.id = made["sessionId"].as_str().context("sessionId")?.to_owned();
        let patient = Server::token(ApiRole::Patient, "pat");
        visit.call("/join", &patient, &json!({})).await?;
        visit.call("/admit", &visit.doctor, &json!({"userId": "pat"})).await?;
        for token in [visit.doctor.clone(), patient] {
            let joined = visit.call("/join", &token, &json!({})).await?;
            let room = joined["accessToken"].as_str().context("accessToken")?;
            let mut options = ConnectOptions::new(visit.url.clone(), room);
            options.publish = Publish { microphone: true, camera: true, ..Publish::default() };
            let (participant, mut events) = Participant::connect(options).await?;
            tokio::spawn(async move { while events.recv().await.is_some() {} });
            visit.people.push(participant);
        }
        visit.flows().await?;
        Ok(visit)
    }

    /// Waits until everybody receives sound and picture.
    async fn flows(&self) -> Result<()> {
        let end = Instant::now() + Duration::from_secs(20);
        loop {
            let tracks = self.people.iter().map(|person| person.stats().received);
            let ready = tracks
                .map(|received| received.iter().filter(|track| track.frames > 10).count())
                .all(|flowing| flowing >= 2);
            if ready {
                return Ok(());
            }
            ensure!(Instant::now() < end, "no media after 20 s");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// Lets time pass: media must move, writes are tried.
    async fn watch(&mut self, what: &str, long: Duration) -> Result<()> {
        let end = Instant::now() + long;
        let mut moved: Vec<Vec<(u64, Instant)>> = vec![Vec::new(); self.people.len()];
        let (before, mut longest) = (self.acknowledged.len(), Duration::ZERO);
        let mut next_write = Instant::now();
        let refused = self.refused;
        let mut writes = tokio::task::JoinSet::new();
        while Instant::now() < end {
            if Instant::now() >= next_write {
                writes.spawn(self.writer());
                next_write = Instant::now() + Duration::from_millis(500);
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
            for (person, moved) in self.people.iter().zip(&mut moved) {
                let received = person.stats().received;
                moved.resize(received.len(), (0, Instant::now()));
                for (track, (frames, at)) in received.iter().zip(moved.iter_mut()) {
                    if track.frames > *frames {
                        (*frames, *at) = (track.frames, Instant::now());
                    }
                    longest = longest.max(at.elapsed());
                }
            }
            ensure!(longest < STILL, "{what}: media stood still for {longest:?}");
        }
        while let Some(written) = writes.join_next().await {
            match written? {
                Some(id) => self.acknowledged.push(id),
                None => self.refused += 1,
            }
        }
        println!(
            "{what}, {} s: longest time without a frame {} ms, {} writes acknowledged, {} refused",
            long.as_secs(),
            longest.as_millis(),
            self.acknowledged.len() - before,
            self.refused - refused
        );
        Ok(())
    }

    /// One chat message; its id if the server acknowledged it.
    fn writer(&self) -> impl Future<Output = Option<String>> + Send + 'static {
        let request = self
            .http
            .post(format!("{}/{}/chat", self.base, self.id))
            .bearer_auth(&self.doctor)
            .json(&json!({"content": "Is it better today?"}));
        async move {
            let answer = request.send().await.ok()?;
            if !answer.status().is_success() {
                return None;
            }
            let body: Value = answer.json().await.ok()?;
            Some(body["messageId"].as_str()?.to_owned())
        }
    }

    /// Until the server is whole again.
    async fn settle(&self) -> Result<()> {
        let end = Instant::now() + Duration::from_secs(60);
        while self.writer().await.is_none() {
            ensure!(Instant::now() < end, "no write is taken a minute after the database is back");
            tokio::time::sleep(Duration::from_millis(250)).await;
        }
        Ok(())
    }

    /// Everything that was acknowledged is stored.
    async fn check(&self) -> Result<()> {
        let mut stored = Vec::new();
        let mut cursor = String::new();
        loop {
            let path = format!("{}/{}/chat?limit=200{cursor}", self.base, self.id);
            let page = self.get(&path, &self.doctor).await?;
            let items = page["items"].as_array().context("items")?;
            stored.extend(items.iter().filter_map(|m| Some(m["messageId"].as_str()?.to_owned())));
            match page["nextCursor"].as_str() {
                Some(next) => cursor = format!("&cursor={next}"),
                None => break,
            }
        }
        let lost = self.acknowledged.iter().filter(|id| !stored.contains(id)).count();
        println!(
            "{} messages acknowledged, {} stored, {lost} lost",
            self.acknowledged.len(),
            stored.len()
        );
        ensure!(lost == 0, "{lost} acknowledged messages are lost");
        Ok(())
    }

    /// Makes consultations of other appointments: each is an event for the broker.
    async fn book(&self, how_many: u64) -> Result<()> {
        for number in 0..how_many {
            let new = json!({"doctorId": "doc", "patientId": format!("pat-{number}"),
                "consultationMode": "VIDEO", "appointmentId": format!("later-{number}")});
            let request = self.http.post(&self.base).bearer_auth(&self.service).json(&new);
            let answer = request.send().await?;
            ensure!(answer.status().is_success(), "POST: {}", answer.status());
        }
        // The relay looks once a second, the gauge is measured every five.
        tokio::time::sleep(Duration::from_secs(6)).await;
        Ok(())
    }

    /// Events that the broker has not taken, as the metrics say.
    async fn backlog(&self) -> Result<u64> {
        let text = self.http.get(format!("{}/metrics", self.url)).send().await?.text().await?;
        let line = text
            .lines()
            .find(|line| line.starts_with("bedside_outbox_backlog") && line.contains("rabbitmq"))
            .context("no bedside_outbox_backlog of rabbitmq")?;
        let value = line.rsplit(' ').next().context("a value")?;
        Ok(value.parse::<f64>()?.round() as u64)
    }

    async fn end(self) -> Result<()> {
        let ended = self.call("/end", &self.doctor, &json!({})).await?;
        ensure!(ended["status"] == "COMPLETED", "it ended as {}", ended["status"]);
        for person in &self.people {
            let stats = person.stats();
            println!("resumes {}, rejoins {}", stats.resumes, stats.rejoins);
        }
        Ok(())
    }

    async fn call(&self, path: &str, token: &str, body: &Value) -> Result<Value> {
        let id = if self.id.is_empty() { String::new() } else { format!("/{}", self.id) };
        let request = self.http.post(format!("{}{id}{path}", self.base)).bearer_auth(token);
        let answer = request.json(body).send().await?;
        let status = answer.status();
        let body: Value = answer.json().await?;
        ensure!(status.is_success(), "POST {path}: {status} {body}");
        Ok(body)
    }

    async fn get(&self, url: &str, token: &str) -> Result<Value> {
        let answer = self.http.get(url).bearer_auth(token).send().await?;
        let status = answer.status();
        let body: Value = answer.json().await?;
        ensure!(status.is_success(), "GET: {status} {body}");
        Ok(body)
    }
}
