//! Signed webhooks: events to the URLs of others, by the Standard Webhooks specification 1.0.0.
//!
//! Every endpoint has a relay of its own, so one that fails holds up nobody else. It gets one event
//! at a time, in the order in which they were stored. What it refuses is tried again for three days;
//! meanwhile only the events of the same consultation wait.

mod guard;
mod key;
mod sign;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use reqwest::{Client, RequestBuilder, StatusCode, Url};

use super::encode::{kafka, webhook};
use super::relay::{Deliver, Manner, Outcome};
use super::{Event, News, Sink, Told, relay};
use crate::control::Control;
use crate::{KeyPair, Private, store};
use sign::Secret;

/// How long an endpoint may take to answer.
const TIMEOUT: Duration = Duration::from_secs(10);
/// How long it may take to accept a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// For how long an event is tried.
const PATIENCE: Duration = Duration::from_secs(3 * 86_400);
/// The pauses between attempts; the specification's own proposal.
const PAUSES: [Duration; 9] = [
    Duration::from_secs(5),
    Duration::from_secs(5 * 60),
    Duration::from_secs(30 * 60),
    Duration::from_secs(2 * 3600),
    Duration::from_secs(5 * 3600),
    Duration::from_secs(10 * 3600),
    Duration::from_secs(14 * 3600),
    Duration::from_secs(20 * 3600),
    Duration::from_secs(24 * 3600),
];

/// An endpoint as it is configured.
#[derive(Clone, Debug, Default)]
pub struct WebhookConfig {
    /// The operator's name for it: it is in the tables, the logs and the metrics.
    pub name: String,
    /// Where requests go.
    pub url: String,
    /// `whsec_…`; the second one while they change.
    pub secrets: Vec<Private<String>>,
    /// Names of events, with or without version; `consultation.*` is a beginning. Empty = all.
    pub events: Vec<String>,
    /// Only the events of this clinic; none = of all.
    pub clinic: Option<String>,
    /// The endpoint may have an address of a private network.
    pub allow_private: bool,
    /// It is told what happens in rooms, not of consultations: in the form of the server SDKs'
    /// receivers, signed with the API key.
    pub rooms: bool,
}

/// Why an endpoint cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum WebhookError {
    /// Names are words in tables and metrics.
    #[error("a name of 1 to 60 characters a-z, 0-9, - and _ is expected")]
    Name,
    /// Two endpoints have one name.
    #[error("another endpoint has the same name")]
    SameName,
    /// No URL that can be called.
    #[error("url must be https://…, or http:// to this machine")]
    Url,
    /// An address inside.
    #[error("url names a private address: set allow_private if that is meant")]
    Inside,
    /// What is told of rooms is signed with the API key, and rooms are of no clinic.
    #[error("an endpoint that is told of rooms has neither secret nor clinic")]
    Rooms,
    /// No secret, or not one of the specification's form.
    #[error("secret must be whsec_ and the base64 of 24 to 64 random bytes")]
    Secret,
}

/// An endpoint that can be used.
#[derive(Clone, Debug)]
pub struct Webhook {
    name: String,
    url: Url,
    secrets: Vec<Secret>,
    events: Vec<String>,
    clinic: Option<String>,
    allow_private: bool,
    rooms: bool,
}

impl Webhook {
    /// Checks all endpoints; an error is told with the endpoint's name.
    pub fn all(configs: &[WebhookConfig]) -> Result<Vec<Self>, (String, WebhookError)> {
        let mut endpoints: Vec<Self> = Vec::with_capacity(configs.len());
        for config in configs {
            let endpoint = Self::new(config).map_err(|error| (config.name.clone(), error))?;
            if endpoints.iter().any(|known| known.name == endpoint.name) {
                return Err((endpoint.name, WebhookError::SameName));
            }
            endpoints.push(endpoint);
        }
        Ok(endpoints)
    }

    fn new(config: &WebhookConfig) -> Result<Self, WebhookError> {
        let name = &config.name;
        let is_plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "-_".contains(c);
        if !(1..=60).contains(&name.len()) || !name.chars().all(is_plain) {
            return Err(WebhookError::Name);
        }
        let url = Url::parse(&config.url).map_err(|_| WebhookError::Url)?;
        check_url(&url, config.allow_private)?;
        let secrets: Result<Vec<Secret>, WebhookError> =
            config.secrets.iter().map(Secret::parse).collect();
        let secrets = secrets?;
        if config.rooms && (!secrets.is_empty() || config.clinic.is_some()) {
            return Err(WebhookError::Rooms);
        }
        if secrets.is_empty() && !config.rooms {
            return Err(WebhookError::Secret);
        }
        Ok(Self {
            name: name.clone(),
            url,
            secrets,
            events: config.events.iter().map(|name| plain_name(name)).collect(),
            clinic: config.clinic.clone(),
            allow_private: config.allow_private,
            rooms: config.rooms,
        })
    }

    /// Where it stands in the outbox.
    pub(crate) fn sink(&self) -> Sink {
        Sink::Webhook(self.name.clone())
    }

    /// It is told what happens in rooms.
    pub(crate) const fn is_about_rooms(&self) -> bool {
        self.rooms
    }

    fn wants(&self, event: &Event) -> bool {
        if self.clinic.as_ref().is_some_and(|clinic| *clinic != event.clinic) {
            return false;
        }
        let name = match &event.news {
            News::Room { name, .. } => name.as_str(),
            other => other.name(),
        };
        self.events.is_empty()
            || self.events.iter().any(|wanted| match wanted.strip_suffix('*') {
                Some(beginning) => name.starts_with(beginning),
                None => name == wanted,
            })
    }
}

/// Without version; the contract's other word for an end (CON-12) means the same.
fn plain_name(name: &str) -> String {
    let name = name.trim();
    match name.strip_suffix(".v1").unwrap_or(name) {
        "consultation.completed" => "consultation.ended".to_owned(),
        name => name.to_owned(),
    }
}

fn check_url(url: &Url, allow_private: bool) -> Result<(), WebhookError> {
    let host = url.host_str().ok_or(WebhookError::Url)?;
    let literal: Option<std::net::IpAddr> = host.trim_matches(['[', ']']).parse().ok();
    let this_machine = host == "localhost" || literal.is_some_and(|ip| ip.is_loopback());
    match url.scheme() {
        "https" => {}
        "http" if this_machine => {}
        _ => return Err(WebhookError::Url),
    }
    // A literal address is never looked up, so it is judged here.
    let inside = literal.is_some_and(|ip| !guard::is_public(ip)) && !this_machine;
    if inside && !allow_private { Err(WebhookError::Inside) } else { Ok(()) }
}

/// Sends to one endpoint until the process ends. Cancelling it is safe at any point.
pub(crate) async fn run(control: Arc<Control>, endpoint: Webhook) {
    let client = match client(&endpoint) {
        Ok(client) => client,
        Err(error) => {
            tracing::error!(webhook = endpoint.name, %error, "webhooks cannot be sent");
            return;
        }
    };
    let manner =
        Manner { at_once: 1, pauses: &PAUSES, give_up: Some(PATIENCE), ..Manner::default() };
    let sink = endpoint.sink();
    let keys = control.config.keys.first().cloned();
    relay::run_with(control, sink, manner, deliver(client, endpoint, keys)).await;
}

/// A redirect could lead anywhere, and a proxy would look names up for us: neither is followed.
fn client(endpoint: &Webhook) -> reqwest::Result<Client> {
    crate::crypto::use_one();
    Client::builder()
        .redirect(reqwest::redirect::Policy::none())
        .no_proxy()
        .timeout(TIMEOUT)
        .connect_timeout(CONNECT_TIMEOUT)
        .dns_resolver(Arc::new(guard::Outside { allow_private: endpoint.allow_private }))
        .user_agent(concat!("Bedside/", env!("CARGO_PKG_VERSION")))
        .build()
}

fn deliver(client: Client, endpoint: Webhook, keys: Option<KeyPair>) -> Deliver {
    let endpoint = Arc::new((endpoint, keys));
    Box::new(move |unsent| {
        let (client, endpoint) = (client.clone(), Arc::clone(&endpoint));
        Box::pin(async move {
            let (endpoint, keys) = &*endpoint;
            let mut outcomes = Vec::with_capacity(unsent.len());
            for unsent in unsent {
                outcomes.push(post(&client, endpoint, keys.as_ref(), &unsent.event).await);
            }
            outcomes
        })
    })
}

/// The request without its URL's answer: what is told of rooms has a form of its own.
fn request(
    client: &Client,
    endpoint: &Webhook,
    keys: Option<&KeyPair>,
    event: &Event,
) -> RequestBuilder {
    let seconds = store::now().timestamp();
    let request = client.post(endpoint.url.clone());
    if let (News::Room { body: Told(body), .. }, Some(keys)) = (&event.news, keys) {
        return request
            .header("content-type", "application/webhook+json")
            .header("authorization", key::authorization(keys, body.as_bytes(), seconds))
            .body(body.clone());
    }
    let body = serde_json::to_vec(&webhook::body(event)).expect("JSON values are JSON");
    let id = event.id.to_string();
    request
        .header("content-type", "application/json")
        .header("webhook-id", &id)
        .header("webhook-timestamp", seconds)
        .header("webhook-signature", sign::signature(&endpoint.secrets, &id, seconds, &body))
        .body(body)
}

async fn post(
    client: &Client,
    endpoint: &Webhook,
    keys: Option<&KeyPair>,
    event: &Event,
) -> Outcome {
    if !endpoint.wants(event) {
        return Outcome::Taken;
    }
    let outcome = match request(client, endpoint, keys, event).send().await {
        Ok(answer) => judge(answer.status()),
        Err(error) if guard::is_inside(&error) => Outcome::Refused(guard::Inside.to_string()),
        Err(error) if error.is_timeout() && !error.is_connect() => {
            Outcome::Refused(format!("no answer within {} s", TIMEOUT.as_secs()))
        }
        Err(_) => Outcome::Away,
    };
    if outcome != Outcome::Taken {
        let (id, event_type) = (event.id, kafka::event_type(&event.news));
        tracing::warn!(webhook = endpoint.name, event = %id, event_type, ?outcome, "not delivered");
    }
    outcome
}

/// An endpoint that is overloaded, or behind a gateway that cannot reach it, is away; everything
/// else but a success is about this event.
fn judge(status: StatusCode) -> Outcome {
    match status.as_u16() {
        200..=299 => Outcome::Taken,
        429 | 502..=504 => Outcome::Away,
        _ => Outcome::Refused(format!("answered {}", status.as_u16())),
    }
}
