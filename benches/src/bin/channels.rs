//! A thousand people on the consultation channels, in twos, and in one consultation two of them who
//! write fifty messages a second each: does any message get lost, how long does each take to the
//! other person, and what memory does it cost?
//!
//! A message is timed from when it *should* have left until the other person has it. Every other
//! consultation says something, too, spread over the run. At the end what was heard is compared
//! with what was sent and with what the history holds.

#![allow(
    clippy::print_stdout,
    clippy::indexing_slicing,
    reason = "a program to be run by hand; indexing JSON does not panic"
)]

use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use bedside_control_plane::token::ApiRole;
use bedside_faults::postgres::Postgres;
use bedside_faults::server::Server;
use clap::Parser;
use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async};

type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

/// Channels under load: nothing lost, latency, memory.
#[derive(Parser)]
struct Options {
    /// The server's binary.
    #[arg(long, default_value = "target/release/bedside")]
    binary: PathBuf,
    /// Consultations, with two people each.
    #[arg(long, default_value_t = 500)]
    sessions: usize,
    /// Messages a second of each of the two who write.
    #[arg(long, default_value_t = 50)]
    rate: u32,
    /// How long they write.
    #[arg(long, default_value_t = 20)]
    seconds: u32,
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
                let url = format!("sqlite:{}", folder.path().join("bedside.db").display());
                measure(&options, database, &url).await?;
            }
            "postgres" => {
                let postgres = Postgres::start()?;
                measure(&options, database, &postgres.url()).await?;
            }
            other => bail!("{other} is neither sqlite nor postgres"),
        }
    }
    Ok(())
}

async fn measure(options: &Options, name: &str, url: &str) -> Result<()> {
    // One caller stands for a whole clinic here; what a person may write stays bounded.
    let settings: Vec<(&str, String)> = [
        "BEDSIDE_LIMITS__CALLER_PER_SECOND",
        "BEDSIDE_LIMITS__SERVICE_PER_SECOND",
        "BEDSIDE_LIMITS__ADDRESS_PER_SECOND",
    ]
    .map(|name| (name, "0".to_owned()))
    .into();
    let server = Server::start(options.binary.clone(), url, &settings)?;
    let clinic = Arc::new(Clinic { http: reqwest::Client::new(), url: server.url() });
    let sessions = clinic.visits(options.sessions).await?;
    let before = memory(&server)?;
    let begun = Instant::now();
    let mut people = connect_all(&clinic, &sessions).await?;
    let connected = begun.elapsed().as_secs_f64();
    let after = memory(&server)?;
    println!(
        "{name}: {} channels over {} consultations in {connected:.1} s; memory {:.0} MiB before, \
         {:.0} MiB with them ({:.0} KiB each)",
        people.len(),
        sessions.len(),
        before / 1024.0,
        after / 1024.0,
        (after - before) / people.len() as f64
    );
    let [first, second] = [people.remove(0), people.remove(0)];
    let others = whisper(people, options.seconds);
    let heard = duet(options, first, second).await?;
    let others = others.await.context("the others")??;
    let history = clinic.history(&sessions[0]).await?;
    let sent = 2 * options.rate * options.seconds;
    let lost = sent as usize - heard.messages.len();
    let missing = heard.messages.iter().filter(|text| !history.contains(*text)).count();
    println!(
        "{name}: 2 × {}/s for {} s in one of them: {sent} sent, {lost} lost, {} doubled, {missing} \
         not in the history; to the other person {}",
        options.rate, options.seconds, heard.doubled, heard.times
    );
    println!(
        "{name}: {} of the others' messages meanwhile, none lost; memory {:.0} MiB at the end",
        others,
        memory(&server)? / 1024.0
    );
    ensure!(lost == 0 && heard.doubled == 0 && missing == 0, "messages were lost or doubled");
    Ok(())
}

/// Resident memory of the server in KiB.
fn memory(server: &Server) -> Result<f64> {
    let pid = server.pid().context("the server runs")?;
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).context("VmRSS")?;
    Ok(line.split_whitespace().nth(1).context("a number")?.parse()?)
}

/// Sorted times in milliseconds.
struct Times(Vec<f64>);

impl std::fmt::Display for Times {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let at =
            |part: usize| self.0.get((self.0.len().max(1) - 1) * part / 100).unwrap_or(&f64::NAN);
        write!(f, "p50 {:.1} ms, p99 {:.1} ms, max {:.1} ms", at(50), at(99), at(100))
    }
}

/// The API, and who calls it.
struct Clinic {
    http: reqwest::Client,
    url: String,
}

impl Clinic {
    async fn post(&self, path: &str, token: &str, body: &Value) -> Result<Value> {
        let url = format!("{}/api/v1/consultations/sessions{path}", self.url);
        let answer = self.http.post(url).bearer_auth(token).json(body).send().await?;
        let status = answer.status();
        let body: Value = answer.json().await?;
        ensure!(status.is_success(), "{path}: {status} {body}");
        Ok(body)
    }

    /// Consultations with the patient let in.
    async fn visits(self: &Arc<Self>, count: usize) -> Result<Vec<String>> {
        let mut tasks = JoinSet::new();
        let mut ids = vec![String::new(); count];
        for number in 0..count {
            let clinic = Arc::clone(self);
            tasks.spawn(async move { anyhow::Ok((number, clinic.visit(number).await?)) });
            if tasks.len() >= 16 {
                let (number, id) = tasks.join_next().await.context("a task")???;
                ids[number] = id;
            }
        }
        while let Some(done) = tasks.join_next().await {
            let (number, id) = done??;
            ids[number] = id;
        }
        Ok(ids)
    }

    async fn visit(&self, number: usize) -> Result<String> {
        let service = Server::token(ApiRole::Service, "bench");
        let (doctor, patient) = (format!("doc-{number}"), format!("pat-{number}"));
        let body = json!({"doctorId": doctor, "patientId": patient, "consultationMode": "CHAT"});
        let made = self.post("", &service, &body).await?;
        let id = made["sessionId"].as_str().context("sessionId")?.to_owned();
        let who = json!({"userId": patient});
        self.post(&format!("/{id}/join"), &service, &who).await?;
        self.post(&format!("/{id}/admit"), &service, &who).await?;
        Ok(id)
    }

    /// Every message of a consultation.
    async fn history(&self, id: &str) -> Result<HashSet<String>> {
        let token = Server::token(ApiRole::Service, "bench");
        let (mut texts, mut after) = (HashSet::new(), "0".to_owned());
        loop {
            let path = format!("{}/api/v1/consultations/sessions/{id}/chat", self.url);
            let url = format!("{path}?limit=200&after={after}");
            let page: Value = self.http.get(url).bearer_auth(&token).send().await?.json().await?;
            for item in page["items"].as_array().context("items")? {
                texts.insert(item["content"].as_str().unwrap_or_default().to_owned());
            }
            match page["nextCursor"].as_str() {
                Some(next) => after = next.to_owned(),
                None => return Ok(texts),
            }
        }
    }

    async fn connect(&self, id: &str, role: ApiRole, user: &str) -> Result<Person> {
        let base = self.url.replacen("http", "ws", 1);
        let url = format!("{base}/api/v1/consultations/sessions/{id}/channel");
        let (socket, _) = connect_async(url).await?;
        let (mut says, mut hears) = socket.split();
        let auth = json!({"type": "AUTH", "payload": {"token": Server::token(role, user)}});
        says.send(Message::text(auth.to_string())).await?;
        while next(&mut hears).await?["type"] != "READY" {}
        Ok(Person { says, hears, name: user.to_owned() })
    }
}

/// One person on a channel.
struct Person {
    says: SplitSink<Socket, Message>,
    hears: SplitStream<Socket>,
    name: String,
}

async fn next(hears: &mut SplitStream<Socket>) -> Result<Value> {
    loop {
        match hears.next().await.context("the channel has ended")?? {
            Message::Text(text) => return Ok(serde_json::from_str(&text)?),
            Message::Ping(_) | Message::Pong(_) => {}
            other => bail!("unexpected {other:?}"),
        }
    }
}

/// The two of each consultation, one after the other.
async fn connect_all(clinic: &Arc<Clinic>, sessions: &[String]) -> Result<Vec<Person>> {
    let mut people = Vec::new();
    for (chunk, ids) in sessions.chunks(16).enumerate() {
        let mut tasks = JoinSet::new();
        for (index, id) in ids.iter().enumerate() {
            let (clinic, id, number) = (Arc::clone(clinic), id.clone(), chunk * 16 + index);
            tasks.spawn(async move {
                let doctor = clinic.connect(&id, ApiRole::Doctor, &format!("doc-{number}")).await?;
                let patient =
                    clinic.connect(&id, ApiRole::Patient, &format!("pat-{number}")).await?;
                anyhow::Ok((number, [doctor, patient]))
            });
        }
        let mut pairs = Vec::new();
        while let Some(done) = tasks.join_next().await {
            pairs.push(done??);
        }
        pairs.sort_by_key(|(number, _)| *number);
        people.extend(pairs.into_iter().flat_map(|(_, pair)| pair));
    }
    Ok(people)
}

fn message(content: &str) -> Message {
    let payload = json!({"content": content, "messageType": "text", "clientId": content});
    Message::text(json!({"type": "CHAT_MESSAGE", "payload": payload}).to_string())
}

/// What was heard by both of the two who write.
struct Heard {
    messages: HashSet<String>,
    doubled: usize,
    times: Times,
}

/// Two people write on a fixed schedule, and each hears both.
async fn duet(options: &Options, first: Person, second: Person) -> Result<Heard> {
    let gap = Duration::from_secs(1) / options.rate;
    let count = options.rate * options.seconds;
    let begun = Instant::now() + Duration::from_millis(200);
    let patience = Duration::from_secs(u64::from(options.seconds) + 30);
    let mut tasks = JoinSet::new();
    for person in [first, second] {
        let Person { mut says, mut hears, name } = person;
        let own = name.clone();
        tokio::spawn(async move {
            for number in 0..count {
                tokio::time::sleep_until((begun + gap * number).into()).await;
                says.send(message(&format!("{own}/{number}"))).await?;
            }
            anyhow::Ok(says)
        });
        tasks.spawn(async move {
            let (mut messages, mut doubled, mut times) = (HashSet::new(), 0, Vec::new());
            while messages.len() < 2 * count as usize && begun.elapsed() < patience {
                let heard = tokio::time::timeout(Duration::from_secs(20), next(&mut hears)).await;
                let Ok(frame) = heard else { break };
                let frame = frame?;
                ensure!(frame["type"] != "ERROR", "{frame}");
                let text = frame["payload"]["content"].as_str().unwrap_or_default();
                let Some((who, number)) = text.split_once('/') else { continue };
                if who != name {
                    let planned = begun + gap * number.parse::<u32>()?;
                    times.push(planned.elapsed().as_secs_f64() * 1e3);
                }
                doubled += usize::from(!messages.insert(text.to_owned()));
            }
            anyhow::Ok(Heard { messages, doubled, times: Times(times) })
        });
    }
    let mut both: Option<Heard> = None;
    while let Some(done) = tasks.join_next().await {
        let one = done??;
        both = Some(match both {
            None => one,
            Some(mut other) => {
                other.messages.retain(|text| one.messages.contains(text));
                other.doubled += one.doubled;
                other.times.0.extend(one.times.0);
                other
            }
        });
    }
    let mut both = both.context("nobody heard anything")?;
    both.times.0.sort_by(f64::total_cmp);
    Ok(both)
}

/// Everybody else says one thing, spread over the run, and hears it come back.
fn whisper(people: Vec<Person>, seconds: u32) -> tokio::task::JoinHandle<Result<usize>> {
    tokio::spawn(async move {
        let count = u32::try_from(people.len().max(1))?;
        let gap = Duration::from_secs(u64::from(seconds)) / count;
        let mut tasks = JoinSet::new();
        for (number, mut person) in (0..count).zip(people) {
            tasks.spawn(async move {
                tokio::time::sleep(gap * number).await;
                let text = format!("hello from {}", person.name);
                person.says.send(message(&text)).await?;
                let echo = async {
                    while next(&mut person.hears).await?["payload"]["content"] != text.as_str() {}
                    anyhow::Ok(())
                };
                tokio::time::timeout(Duration::from_secs(20), echo).await??;
                anyhow::Ok(person)
            });
        }
        let mut heard = Vec::new();
        while let Some(done) = tasks.join_next().await {
            heard.push(done??);
        }
        Ok(heard.len())
    })
}
