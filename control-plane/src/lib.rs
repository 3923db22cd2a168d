//! # Control plane
//!
//! Consultations between a doctor and a patient: who may come, who waits, who is let in, what they
//! write to each other, and when it is over. It owns the database; the rooms that carry picture
//! and sound belong to signaling and the engine behind it.
//!
//! - [`consultation`]: the pure state machine.
//! - `store`: SQLite or PostgreSQL, one SQL text per query.
//! - `control`: where every change is decided, stored and told, in that order.
//! - `timers`: what happens when nobody does anything.
//! - `live`: what is in memory, and who listens.
//! - `api`, `channel`: HTTP and WebSocket.
//! - `events`: what others are told (outbox, relays, encoders) and tell us (messages, inbox).
//! - `doorkeeper`: signaling's question at every join, and the facts that rooms tell.
//! - [`address`]: where a request comes from, behind proxies.
//! - [`backup`]: everything lasting in one file, and back.
//! - [`crypto`]: what TLS is made of.
//! - [`token`], `access`, `links`: who is calling, and join links that need no account.
//!
//! Two rules shape it. Nobody is in a room without having been let in: a room token is signed only
//! for an admitted person, and the doorkeeper asks again at the door. And running calls never wait
//! for the database: the doorkeeper answers from memory, and facts about rooms take effect at once
//! and are stored when the database is back.

pub mod address;
pub mod backup;
pub mod consultation;
pub mod counters;
pub mod crypto;
pub mod health;
pub mod permissions;
pub mod probe;
pub mod token;

mod access;
mod api;
mod attachments;
mod audit;
mod billing;
#[cfg(test)]
mod canary;
mod channel;
mod chat;
mod checks;
mod control;
mod doorkeeper;
mod events;
mod feedback;
mod frames;
mod idle;
mod jwks;
mod links;
mod live;
mod notices;
mod operator;
mod payments;
mod prices;
mod queue;
mod revocation;
mod rooms;
mod service_keys;
mod sessions;
mod stomp;
mod store;
#[cfg(test)]
mod tenants;
#[cfg(test)]
mod testing;
mod text;
mod timers;
mod view;
mod watch;

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bedside_signaling::Signaling;
use bedside_signaling::rooms::{Doorkeeper, Fact};
use tokio::sync::{Semaphore, mpsc};
use uuid::Uuid;

pub use api::{Rate, RequestLimits, as_problems};
pub use attachments::{Objects, OpenFilesError, S3};
pub use audit::{Anchor, Fault, FaultKind, Hash, Line, Record, Report, Verifier};
pub use bedside_signaling::Private;
pub use bedside_signaling::token::KeyPair;
pub use billing::{BillingConfig, Currency, Money};
pub use checks::ChecksConfig;
pub use chrono_tz::Tz as Timezone;
pub use control::ChangeError;
pub use events::amqp::RabbitConfig;
pub use events::kafka::{KafkaConfig, KafkaSasl, Mechanism};
pub use events::webhooks::{Webhook, WebhookConfig, WebhookError};
pub use jwks::{ClaimNames, ForeignAlgorithm, JwksConfig};
pub use links::{Exchanged, Link, LinkError, NewLink};
pub use operator::KeySummary;
pub use payments::PaymentsConfig;
pub use service_keys::{BadKey, ConfiguredKey, KeyError, MadeKey, NewKey};
pub use sessions::{CreateError, IceServerView, Joined, NewSession, RoomAccess};
pub use store::OpenError;
pub use timers::Timers;
pub use view::{
    AttachmentView, EventView, MessageView, NamedView, PersonDetails, PersonView, SessionView,
    WaitingView,
};

use attachments::files::Files;
use audit::ledger::Ledger;
use chat::writer::Writer;
use consultation::{Actor, Device, Step};
use control::Control;
use counters::ControlCounters;
use doorkeeper::Door;
use idle::Idle;
use jwks::Jwks;
use live::Live;
use revocation::Revoked;
use rooms::Rooms;
use service_keys::KnownKeys;
use store::Db;

/// How long what runs behind the requests may take to end.
const RUN_END: Duration = Duration::from_secs(1);

/// How often what could not be stored is tried again.
const RETRY_INTERVAL: Duration = Duration::from_secs(5);

/// How often is forgotten what nobody needs any more: idle callers' limits, old answers.
const SWEEP_INTERVAL: Duration = Duration::from_secs(300);

/// How the control plane is set up.
#[derive(Clone, Debug)]
pub struct ControlConfig {
    /// `sqlite:PATH` or `postgres://…`.
    pub database_url: String,
    /// Keys that API tokens are verified with; the first one signs ours and the room tokens.
    pub keys: Vec<KeyPair>,
    /// Where people's browsers find us (`https://host[:port]`); links and room URLs begin with it.
    pub public_url: String,
    /// Is a room that is no consultation made when somebody joins it?
    pub auto_create: bool,
    /// Make a room without a consultation where a room administrator asks for it.
    pub create_by_call: bool,
    /// Life of the room tokens.
    pub room_token_ttl: Duration,
    /// Web pages that may open a channel (`https://host[:port]`); empty = any.
    pub allowed_origins: Vec<String>,
    /// Whose tokens are taken beside our own.
    pub jwks: Option<JwksConfig>,
    /// How long somebody of the staff may do nothing before the channels end; zero = for ever.
    pub idle_logoff: Duration,
    /// Service keys that the operator has written down.
    pub service_keys: Vec<ConfiguredKey>,
    /// How long a waiting person whose page has gone stays in the queue.
    pub waiting_grace: Duration,
    /// When what nobody ends is ended.
    pub timers: Timers,
    /// The event log; none = it is told nothing.
    pub kafka: Option<KafkaConfig>,
    /// Where signed webhooks go.
    pub webhooks: Vec<Webhook>,
    /// How long events and messages are kept for readers over the API.
    pub events_retention: Duration,
    /// How many requests the API takes.
    pub limits: RequestLimits,
    /// Are consultations served at all?
    pub video_enabled: bool,
    /// The message broker; none = no messages in or out.
    pub rabbitmq: Option<RabbitConfig>,
    /// The clinic of messages that name none.
    pub events_clinic: String,
    /// The zone of times in messages that name none.
    pub naive_timezone: Timezone,
    /// What costs something although it was not completed.
    pub billing: BillingConfig,
    /// Who must have paid before coming in.
    pub payments: PaymentsConfig,
    /// The chat.
    pub chat: ChatConfig,
    /// Connection checks.
    pub checks: ChecksConfig,
    /// Where files and pictures are kept.
    pub objects: Objects,
}

/// How the chat is set up.
#[derive(Clone, Debug)]
pub struct ChatConfig {
    /// How long messages, files and pictures are kept.
    pub retention: Duration,
    /// How often what is past its time is looked for.
    pub sweep_every: Duration,
    /// The largest picture, in bytes.
    pub max_image_bytes: u64,
    /// The largest file, in bytes.
    pub max_file_bytes: u64,
    /// How many files and pictures one consultation may have.
    pub max_files: i64,
}

impl Default for ChatConfig {
    fn default() -> Self {
        Self {
            retention: Duration::from_secs(31_536_000),
            sweep_every: Duration::from_secs(3_600),
            max_image_bytes: 10 * 1024 * 1024,
            max_file_bytes: 25 * 1024 * 1024,
            max_files: 100,
        }
    }
}

impl Default for ControlConfig {
    fn default() -> Self {
        Self {
            database_url: String::new(),
            keys: Vec::new(),
            public_url: "http://127.0.0.1:8000".to_owned(),
            auto_create: false,
            create_by_call: false,
            room_token_ttl: Duration::from_secs(600),
            allowed_origins: Vec::new(),
            jwks: None,
            idle_logoff: Duration::from_secs(15 * 60),
            service_keys: Vec::new(),
            waiting_grace: Duration::from_secs(15),
            timers: Timers::default(),
            kafka: None,
            webhooks: Vec::new(),
            events_retention: Duration::from_secs(30 * 86_400),
            limits: RequestLimits::default(),
            video_enabled: true,
            rabbitmq: None,
            events_clinic: token::DEFAULT_CLINIC.to_owned(),
            naive_timezone: Timezone::UTC,
            billing: BillingConfig::default(),
            payments: PaymentsConfig::default(),
            chat: ChatConfig::default(),
            checks: ChecksConfig::default(),
            objects: Objects::default(),
        }
    }
}

/// The control plane. Cheap to clone.
#[derive(Clone)]
pub struct ControlPlane {
    control: Arc<Control>,
}

impl ControlPlane {
    /// Opens the database, brings it up to date and remembers what is running.
    pub async fn open(config: ControlConfig) -> Result<Self, OpenError> {
        let db = Db::open(&config.database_url).await?;
        let files = Files::new(&config.objects)?;
        let jwks = config.jwks.clone().map(Jwks::new).transpose().map_err(OpenError::Keys)?;
        let (sinks, room_sinks) = (events::sinks(&config), events::room_sinks(&config));
        let control = Control {
            limiters: api::Limiters::new(&config.limits, &config.checks),
            pulse: health::Pulse::default(),
            jwks: jwks.map(Arc::new),
            keys: KnownKeys::default(),
            revoked: Revoked::default(),
            idle: Idle::default(),
            checks: checks::Running::default(),
            config,
            instance: audit::sealer::new_instance(),
            ledger: Ledger::new(db.clone()),
            db,
            chat: Writer::new(),
            files,
            uploads: Semaphore::new(attachments::UPLOADS),
            live: Live::default(),
            rooms: Rooms::default(),
            counters: ControlCounters::default(),
            links: Mutex::new(HashMap::new()),
            sinks,
            room_sinks,
            reporter: events::rooms::Reporter::default(),
            outbox_rang: tokio::sync::Notify::new(),
            ending: tokio::sync::watch::Sender::new(false),
            running: tokio::sync::Mutex::default(),
            alarms: timers::Alarms::default(),
        };
        control.counters.start_with(control.db.count_sessions().await?);
        for consultation in control.db.running_sessions().await? {
            control.live.know_room(&consultation);
            control.arm(&consultation);
            control.live.queue_up(&consultation);
            let live = control.live.enter(consultation.id);
            live.inner().consultation = Some(Arc::new(consultation));
        }
        // Known before the first request: a restart must not revive what was revoked.
        control.hear_revocations(0).await;
        Ok(Self { control: Arc::new(control) })
    }

    /// The doors: `/api/…` and `/ws/consultation`.
    pub fn router(&self) -> axum::Router {
        self.control.chat.begin(&self.control);
        api::router(self.clone()).merge(stomp::router(self.clone()))
    }

    /// Decides who may enter a room.
    pub fn doorkeeper(&self) -> Arc<dyn Doorkeeper> {
        Arc::new(Door(Arc::clone(&self.control)))
    }

    /// Makes the way to the rooms known; before that nobody can be taken out of one.
    pub fn attach(&self, signaling: Signaling) {
        self.control.rooms.attach(signaling);
    }

    /// Takes in what rooms tell, until nobody tells any more or all is closed.
    pub async fn run(self, mut facts: mpsc::Receiver<Fact>) {
        let _running = self.control.running.lock().await;
        let mut ending = self.control.ending.subscribe();
        let every = self.control.config.chat.sweep_every;
        tokio::spawn(Control::sweep_chat_for_ever(Arc::downgrade(&self.control), every));
        let _watch = watch::start(&self.control);
        // Nobody is in a room of a process that has just begun.
        self.control.hear(Fact::Snapshot { rooms: Vec::new() });
        tokio::spawn(Arc::clone(&self.control).miss_the_waiting());
        let clock = tokio::spawn(Arc::clone(&self.control).keep_time());
        // They end with this function, also if it is dropped.
        let mut others = events::start(&self.control);
        let mut retry = tokio::time::interval(RETRY_INTERVAL);
        retry.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut sweep = tokio::time::interval(SWEEP_INTERVAL);
        sweep.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                fact = facts.recv() => match fact {
                    Some(fact) => self.control.hear(fact),
                    None => break,
                },
                _ = ending.wait_for(|ending| *ending) => break,
                _ = retry.tick() => {
                    let control = Arc::clone(&self.control);
                    tokio::spawn(async move {
                        control.retry_unsaved().await;
                        control.measure_backlog().await;
                    });
                }
                _ = sweep.tick() => {
                    let control = Arc::clone(&self.control);
                    control.limiters.sweep();
                    tokio::spawn(async move {
                        control.expire_answers().await;
                        control.expire_checks().await;
                    });
                }
            }
        }
        // Whoever still sent would take its lease again.
        others.shutdown().await;
        clock.abort();
        while let Ok(fact) = facts.try_recv() {
            self.control.hear(fact);
        }
        self.control.retry_unsaved().await;
    }

    /// Ends what runs behind the requests and closes the database; whatever is asked afterwards
    /// fails.
    pub async fn close(&self) {
        self.control.ending.send_replace(true);
        // What does not end in time loses its lease by time.
        let _ended = tokio::time::timeout(RUN_END, self.control.running.lock()).await;
        self.control.retry_unsaved().await;
        self.control.chat.begin(&self.control);
        self.control.chat.flush().await;
        self.control.finish_audit().await;
        self.control.seal_audit().await;
        // Another process need not wait for the leases of this one to end.
        let _ended_by_time = self.control.db.release_leases(self.control.instance).await;
        self.control.db.close().await;
    }

    /// Does the database answer?
    pub async fn is_ready(&self) -> bool {
        // Nothing has this id: the cheapest question there is.
        self.control.within(self.control.db.link(Uuid::nil())).await.is_ok()
    }

    /// What is counted.
    pub fn counters(&self) -> &ControlCounters {
        &self.control.counters
    }

    /// Makes a consultation, or finds the one of its appointment. `true` = made now.
    pub async fn create_session(
        &self,
        clinic: &str,
        new: &NewSession,
    ) -> Result<(SessionView, bool), CreateError> {
        let (consultation, created) = self.control.create(clinic, &Actor::Server, new).await?;
        Ok((view::session(&consultation, view::Viewer::Staff), created))
    }

    /// The consultation as its doctor sees it.
    pub async fn session(&self, clinic: &str, id: Uuid) -> Result<SessionView, ChangeError> {
        let consultation = self.control.look(clinic, id).await?;
        Ok(view::session(&consultation, view::Viewer::Staff))
    }

    /// Makes a join link for somebody of a consultation.
    pub async fn create_link(
        &self,
        clinic: &str,
        session: Uuid,
        new: &NewLink,
    ) -> Result<Link, LinkError> {
        self.control.create_link(clinic, session, "bedside", new).await
    }

    /// Joins for somebody: a room token, or a place in the waiting room. Ask again after an
    /// admission.
    pub async fn join(
        &self,
        clinic: &str,
        session: Uuid,
        user_id: &str,
    ) -> Result<Joined, ChangeError> {
        self.control.join(clinic, session, &Actor::Server, user_id, None, Device::default()).await
    }

    /// Takes a step with a consultation in the server's own name.
    pub async fn step(
        &self,
        clinic: &str,
        session: Uuid,
        step: &Step,
    ) -> Result<SessionView, ChangeError> {
        let consultation = self.control.step(clinic, session, &Actor::Server, step).await?;
        Ok(view::session(&consultation, view::Viewer::Staff))
    }
}
