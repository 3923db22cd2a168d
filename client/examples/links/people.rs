//! Participants, each on a thread of its own, in a network namespace if one is named.

use std::fs::File;
use std::sync::mpsc::{RecvTimeoutError, sync_channel};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use bedside_client::{ConnectError, ConnectOptions, Participant, ParticipantEvent, Publish, Stats};
use nix::sched::{CloneFlags, setns};
use tokio::sync::mpsc;

use crate::Failure;
use crate::link::{Clinic, token};

/// Between two samples.
const INTERVAL: Duration = Duration::from_millis(200);
/// How often a join is tried, and the longest that it may take in all.
const ATTEMPTS: u32 = 5;
const PATIENCE: Duration = Duration::from_secs(60);

/// What is known of a participant at one time.
#[derive(Clone, Debug)]
pub(crate) struct Sample {
    pub(crate) at: Instant,
    pub(crate) stats: Stats,
}

/// What happened to a participant.
#[derive(Clone, Debug, Default)]
pub(crate) struct Record {
    pub(crate) samples: Vec<Sample>,
    /// Lost the signal connection so often.
    pub(crate) reconnections: u64,
    /// Was put out, or gave up.
    pub(crate) left: bool,
}

/// A participant in the call.
#[derive(Debug)]
pub(crate) struct Person {
    /// When joining began.
    pub(crate) click: Instant,
    record: Arc<Mutex<Record>>,
    orders: mpsc::Sender<Order>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Clone, Copy, Debug)]
enum Order {
    ChangeNetwork,
    Leave,
}

impl Person {
    /// Joins; returns once the server has let the person in.
    pub(crate) fn join(
        clinic: &Clinic,
        identity: &str,
        inside: Option<&str>,
        publish: Publish,
    ) -> Result<Self, Failure> {
        let mut options = ConnectOptions::new(clinic.url.replace("http", "ws"), token(identity)?);
        options.publish = publish;
        let record = Arc::new(Mutex::new(Record::default()));
        let (orders, orders_taken) = mpsc::channel(4);
        let (joined, has_joined) = sync_channel(1);
        let (kept, namespace) = (record.clone(), inside.map(str::to_owned));
        let click = Instant::now();
        let thread = std::thread::spawn(move || {
            if let Err(error) = live(namespace, options, orders_taken, &kept, &joined) {
                let _ = joined.try_send(Err(error));
            }
        });
        match has_joined.recv_timeout(PATIENCE) {
            Ok(result) => result?,
            Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {
                return Err("nobody joined".into());
            }
        }
        Ok(Self { click, record, orders, thread: Some(thread) })
    }

    /// Goes to another network, as the system would tell.
    pub(crate) fn change_network(&self) {
        let _ = self.orders.try_send(Order::ChangeNetwork);
    }

    /// What happened until now.
    pub(crate) fn record(&self) -> Record {
        self.record.lock().map(|record| record.clone()).unwrap_or_default()
    }

    /// The newest counts.
    pub(crate) fn now(&self) -> Option<Stats> {
        self.record.lock().ok()?.samples.last().map(|sample| sample.stats.clone())
    }
}

impl Drop for Person {
    fn drop(&mut self) {
        let _ = self.orders.try_send(Order::Leave);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Joins, as often as an application would try.
async fn connect(
    options: ConnectOptions,
) -> Result<(Participant, mpsc::Receiver<ParticipantEvent>), ConnectError> {
    let mut attempt = 1;
    loop {
        match Participant::connect(options.clone()).await {
            Err(error) if attempt == ATTEMPTS => return Err(error),
            Err(_) => attempt += 1,
            Ok(joined) => return Ok(joined),
        }
    }
}

/// The life of a participant, to the end.
fn live(
    namespace: Option<String>,
    options: ConnectOptions,
    mut orders: mpsc::Receiver<Order>,
    record: &Mutex<Record>,
    joined: &std::sync::mpsc::SyncSender<Result<(), Failure>>,
) -> Result<(), Failure> {
    if let Some(namespace) = namespace {
        setns(File::open(format!("/run/netns/{namespace}"))?, CloneFlags::CLONE_NEWNET)?;
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let (participant, mut events) = connect(options).await?;
        let _ = joined.try_send(Ok(()));
        let mut clock = tokio::time::interval(INTERVAL);
        loop {
            tokio::select! {
                _ = clock.tick() => {
                    let sample = Sample { at: Instant::now(), stats: participant.stats() };
                    if let Ok(mut record) = record.lock() {
                        record.samples.push(sample);
                    }
                }
                event = events.recv() => {
                    let Ok(mut record) = record.lock() else { continue };
                    match event {
                        Some(ParticipantEvent::Reconnecting) => record.reconnections += 1,
                        Some(ParticipantEvent::Left(_)) | None => {
                            record.left = true;
                            return Ok(());
                        }
                        Some(_) => {}
                    }
                }
                order = orders.recv() => match order {
                    Some(Order::ChangeNetwork) => participant.change_network().await?,
                    Some(Order::Leave) | None => {
                        participant.leave().await?;
                        tokio::time::sleep(Duration::from_millis(200)).await;
                        return Ok(());
                    }
                },
            }
        }
    })
}
