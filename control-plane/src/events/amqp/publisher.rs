//! Publishing: sent is what the broker has confirmed.
//!
//! Messages that somebody must get are published `mandatory`: the broker gives one back if no queue
//! takes it, and it stays in the outbox. A confirm that does not come in time is waited for again
//! by the next attempt, instead of publishing a second time, for as long as the connection lives.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use lapin::options::{BasicPublishOptions, ConfirmSelectOptions};
use lapin::types::{AMQPValue, FieldTable, ShortString};
use lapin::{BasicProperties, Channel, Confirmation, PublisherConfirm};
use tokio::sync::Mutex;
use tokio::time::Instant;
use uuid::Uuid;

use super::connection::{ConnectError, Line};
use super::{RabbitConfig, topology};
use crate::control::{ChangeError, Control};
use crate::events::encode::rabbit::{self, RabbitMessage};
use crate::events::relay::{Deliver, Outcome};
use crate::store::outbox::Unsent;

/// How long one batch may take. Shorter than the relay's lease: another process must not begin to
/// send what this one still waits for.
const BATCH_TIMEOUT: Duration = Duration::from_secs(10);

/// How many messages of unfinished events are remembered.
const MAX_ARRIVED: usize = 10_000;

/// Who publishes, as the broker's pages show it.
pub(super) const APP_ID: &str = "bedside";

/// A way to the exchange. It connects when it is first used, and again when it must.
pub(super) struct Publisher {
    control: Arc<Control>,
    config: RabbitConfig,
    purpose: &'static str,
    session: Mutex<Option<Session>>,
    /// Messages that the broker has, of events that it has not all messages of: they are not sent
    /// again when those are.
    arrived: std::sync::Mutex<HashSet<Uuid>>,
}

struct Session {
    line: Arc<Line>,
    channel: Channel,
    /// Published, and not confirmed yet.
    pending: HashMap<Uuid, PublisherConfirm>,
    /// Given back by the broker, and not reported yet.
    returned: HashSet<Uuid>,
}

/// One message with its address.
pub(super) struct Post {
    /// Names it in `pending`; the message id too, unless `properties` has another.
    pub(super) id: Uuid,
    pub(super) exchange: String,
    pub(super) routing_key: String,
    pub(super) mandatory: bool,
    pub(super) properties: BasicProperties,
    pub(super) body: Vec<u8>,
}

/// What became of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    /// The broker has it.
    Confirmed,
    /// No queue takes it.
    Returned,
    /// The broker could not keep it.
    Nacked,
    /// Nobody knows; ask again with the same id.
    Unknown,
}

impl Publisher {
    pub(super) fn new(control: Arc<Control>, config: RabbitConfig, purpose: &'static str) -> Self {
        Self { control, config, purpose, session: Mutex::default(), arrived: Default::default() }
    }

    fn arrived(&self) -> std::sync::MutexGuard<'_, HashSet<Uuid>> {
        self.arrived.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Connects anew before the next message, and so looks whether all queues are there.
    pub(super) async fn begin_anew(&self) {
        *self.session.lock().await = None;
    }

    /// Publishes, and waits for the broker's word; as many fates as posts.
    pub(super) async fn publish(&self, posts: &[Post]) -> Vec<Fate> {
        let mut slot = self.session.lock().await;
        let session = match slot.take().filter(|session| session.line.is_open()) {
            Some(session) => slot.insert(session),
            None => match self.open().await {
                Ok(session) => slot.insert(session),
                Err(error) => {
                    tracing::warn!(%error, purpose = self.purpose, "no way to the broker");
                    return vec![Fate::Unknown; posts.len()];
                }
            },
        };
        let deadline = Instant::now() + BATCH_TIMEOUT;
        let sent = session.send(posts, deadline).await;
        let fates = session.settle(posts, deadline).await;
        // Silent for no reason that it told us: begin anew. What was on its way is sent again.
        let silent = fates.contains(&Fate::Unknown) && !session.line.is_blocked();
        if silent || sent.is_err() {
            *slot = None;
        }
        self.count(&fates);
        fates
    }

    async fn open(&self) -> Result<Session, ConnectError> {
        let line = Arc::new(Line::open(&self.control, &self.config, self.purpose).await?);
        topology::declare(&line, &self.config).await?;
        let channel = line.channel().await?;
        channel.confirm_select(ConfirmSelectOptions::default()).await?;
        Ok(Session { line, channel, pending: HashMap::new(), returned: HashSet::new() })
    }

    fn count(&self, fates: &[Fate]) {
        let counters = &self.control.counters;
        for fate in fates {
            match fate {
                Fate::Confirmed => counters.amqp_published.add(),
                Fate::Returned => counters.amqp_returned.add(),
                Fate::Nacked | Fate::Unknown => {}
            }
        }
    }
}

impl Session {
    /// Hands everything to the broker that is not with it already.
    async fn send(&mut self, posts: &[Post], deadline: Instant) -> Result<(), lapin::Error> {
        for post in posts {
            if self.pending.contains_key(&post.id) {
                continue;
            }
            if self.line.is_blocked() {
                return Ok(());
            }
            let mut properties = post.properties.clone();
            if properties.message_id().is_none() {
                properties = properties.with_message_id(post.id.to_string().into());
            }
            // Ours, whatever the message's own id is: a returned one is known by it.
            let mut headers = properties.headers().clone().unwrap_or_default();
            headers.insert(POST_ID.into(), AMQPValue::LongString(post.id.to_string().into()));
            let options = BasicPublishOptions { mandatory: post.mandatory, immediate: false };
            let publishing = self.channel.basic_publish(
                post.exchange.as_str().into(),
                post.routing_key.as_str().into(),
                options,
                &post.body,
                properties.with_headers(headers),
            );
            let Ok(published) = tokio::time::timeout_at(deadline, publishing).await else {
                return Ok(());
            };
            self.pending.insert(post.id, published?);
        }
        Ok(())
    }

    /// Waits for the broker's word on each post.
    async fn settle(&mut self, posts: &[Post], deadline: Instant) -> Vec<Fate> {
        let mut settled: HashMap<Uuid, bool> = HashMap::new();
        for post in posts {
            let Some(mut confirm) = self.pending.remove(&post.id) else { continue };
            let ended = loop {
                // It may become blocked while we wait; then the word comes later.
                let soon = deadline.min(Instant::now() + Duration::from_millis(250));
                match tokio::time::timeout_at(soon, &mut confirm).await {
                    Ok(ended) => break Some(ended),
                    Err(_) if Instant::now() >= deadline || self.line.is_blocked() => break None,
                    Err(_) => {}
                }
            };
            match ended {
                None => {
                    self.pending.insert(post.id, confirm);
                }
                Some(Err(_)) => {}
                Some(Ok(confirmation)) => {
                    settled.insert(post.id, !confirmation.is_nack());
                    self.remember_returned(confirmation);
                }
            }
        }
        let returned = &mut self.returned;
        let fate = |post: &Post| match settled.get(&post.id) {
            None => Fate::Unknown,
            Some(_) if returned.remove(&post.id) => Fate::Returned,
            Some(true) => Fate::Confirmed,
            Some(false) => Fate::Nacked,
        };
        posts.iter().map(fate).collect()
    }

    /// Which confirm carries a returned message depends on how the broker grouped its words, so a
    /// returned message is known by its own header.
    fn remember_returned(&mut self, confirmation: Confirmation) {
        let Some(message) = confirmation.take_message() else { return };
        let headers = message.properties.headers().as_ref().map(FieldTable::inner);
        let id = headers.and_then(|headers| match headers.get(POST_ID)? {
            AMQPValue::LongString(id) => Uuid::try_parse_ascii(id.as_bytes()).ok(),
            _ => None,
        });
        self.returned.extend(id);
    }
}

/// Names a post.
const POST_ID: &str = "x-bedside-post";

/// How the relay of the outbox gives events to the broker.
pub(super) fn deliver(publisher: Arc<Publisher>) -> Deliver {
    Box::new(move |unsent| {
        let publisher = Arc::clone(&publisher);
        Box::pin(async move { deliver_batch(&publisher, unsent).await })
    })
}

async fn deliver_batch(publisher: &Publisher, unsent: Vec<Unsent>) -> Vec<Outcome> {
    let mut posts = Vec::new();
    // The posts that each event is, or why it is none.
    let mut parts: Vec<Result<Vec<Uuid>, Outcome>> = Vec::with_capacity(unsent.len());
    for unsent in &unsent {
        match encoded(&publisher.control, unsent).await {
            Ok(messages) => {
                parts.push(Ok(messages.iter().map(|message| message.id).collect()));
                posts.extend(messages.into_iter().map(|m| post(&publisher.config, m)));
            }
            Err(outcome) => parts.push(Err(outcome)),
        }
    }
    {
        let arrived = publisher.arrived();
        posts.retain(|post| !arrived.contains(&post.id));
    }
    let fates = if posts.is_empty() { Vec::new() } else { publisher.publish(&posts).await };
    let mut outcomes: HashMap<Uuid, Outcome> =
        posts.iter().zip(fates).map(|(post, fate)| (post.id, outcome_of(post, fate))).collect();
    let mut arrived = publisher.arrived();
    if arrived.len() > MAX_ARRIVED {
        arrived.clear();
    }
    let outcome = |part: Result<Vec<Uuid>, Outcome>| {
        let ids = match part {
            Err(outcome) => return outcome,
            Ok(ids) => ids,
        };
        let all: Vec<(Uuid, Outcome)> =
            ids.iter().map(|id| (*id, outcomes.remove(id).unwrap_or(Outcome::Taken))).collect();
        let taken = all.iter().filter(|(_, outcome)| *outcome == Outcome::Taken);
        let taken: Vec<Uuid> = taken.map(|(id, _)| *id).collect();
        if taken.len() == ids.len() {
            arrived.retain(|id| !ids.contains(id));
        } else {
            arrived.extend(taken);
        }
        all.into_iter().map(|(_, outcome)| outcome).max_by_key(rank).unwrap_or(Outcome::Taken)
    };
    parts.into_iter().map(outcome).collect()
}

fn outcome_of(post: &Post, fate: Fate) -> Outcome {
    match fate {
        Fate::Confirmed => Outcome::Taken,
        Fate::Returned => {
            let key = &post.routing_key;
            tracing::error!(routing_key = key, "no queue takes this message: is one bound to it?");
            Outcome::Refused(format!("no queue is bound to {key}"))
        }
        Fate::Nacked => Outcome::Refused("the broker could not keep it".to_owned()),
        Fate::Unknown => Outcome::Away,
    }
}

/// Of several outcomes of one event the worst counts.
const fn rank(outcome: &Outcome) -> u8 {
    match outcome {
        Outcome::Taken => 0,
        Outcome::Refused(_) => 1,
        Outcome::Away => 2,
    }
}

/// An event in the contract's words; the join link is looked up now, it is not in the outbox.
async fn encoded(control: &Control, unsent: &Unsent) -> Result<Vec<RabbitMessage>, Outcome> {
    let event = &unsent.event;
    let link = match rabbit::needs_link(event) {
        None => None,
        Some(about) => {
            let known = control.look(&event.clinic, about.session_id).await;
            let url = match known {
                Ok(consultation) => control.attendee_url(&consultation).await,
                Err(error) => Err(error),
            };
            match url {
                Ok(url) => Some(url),
                Err(ChangeError::Database(_)) => return Err(Outcome::Away),
                Err(error) => return Err(Outcome::Refused(error.to_string())),
            }
        }
    };
    Ok(rabbit::encode(event, link.as_deref()))
}

fn post(config: &RabbitConfig, message: RabbitMessage) -> Post {
    let mut headers = FieldTable::default();
    headers.insert("x-event-version".into(), AMQPValue::LongInt(1));
    let mut properties = BasicProperties::default()
        .with_content_type("application/json".into())
        .with_content_encoding("UTF-8".into())
        .with_delivery_mode(2)
        .with_type(message.routing_key.into())
        .with_app_id(APP_ID.into())
        .with_headers(headers);
    if let Ok(seconds) = u64::try_from(message.at.timestamp()) {
        properties = properties.with_timestamp(seconds);
    }
    if let Some(id) = message.correlation_id {
        properties = properties.with_correlation_id(ShortString::from(id));
    }
    Post {
        id: message.id,
        exchange: config.exchange.clone(),
        routing_key: message.routing_key.to_owned(),
        mandatory: message.must_arrive,
        properties,
        body: message.body,
    }
}
