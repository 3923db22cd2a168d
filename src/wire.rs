//! Puts the parts together. Only this page knows that they run in one process.
//!
//! The order: bind both ports (so that an error names them before anything else happens), open the
//! database, start the shards' event loop and the control plane's, open the doors. It ends in the
//! opposite order: rooms are closed with a reason while people can still be told.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use axum::Router;
use bedside_control_plane::backup::Lasting;
use bedside_control_plane::{
    ControlConfig, ControlPlane, KafkaConfig, KafkaSasl, KeyPair, Mechanism, Objects,
    PaymentsConfig, RabbitConfig, Webhook, WebhookConfig,
};
use bedside_sfu::core::api::Event;
use bedside_sfu::node::{Node, NodeConfig, NodeHandle, Outlets, StartError};
use bedside_signaling::ice::{IceServers, NoIceServers};
use bedside_signaling::{Signaling, SignalingConfig};
use bedside_turn::Streams;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

use crate::config::{self, CertificateSource, Config, ConfigError, Media, Note, Sasl};
use crate::edge::{self, Crowd, Doors, Edge, Expiry, Secure};
use crate::metrics::Metrics;
use crate::relay::{Named, Port, Reach, TurnServer, WayBack};
use crate::shutdown::{Ending, Hangup, Signals};
use crate::{assets, doctor, http, telemetry, tokens};

/// Commands that may wait for a shard, and events for their reader: a second of a busy node.
const COMMANDS: usize = 1024;
const EVENTS: usize = 4096;
const FACTS: usize = 1024;
/// Connections of the operator: a few programs that look now and then.
const ADMIN_CONNECTIONS: usize = 64;
/// How long each part may take to say goodbye: rooms, connections, the database.
const GOODBYE: Duration = Duration::from_secs(2);

/// What a person must change when a port is taken.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Names {
    /// Of the HTTP address.
    pub(crate) http: &'static str,
    /// Of the address with TLS.
    pub(crate) tls: &'static str,
    /// Of the media ports.
    pub(crate) media: &'static str,
    /// Of the advertised addresses.
    pub(crate) advertise: &'static str,
    /// Of the TURN port, and whether another one does as well.
    pub(crate) turn: Named,
}

/// The settings' own names.
pub(crate) const SETTINGS: Names = Names {
    http: "http.listen",
    tls: "tls.listen",
    media: "media.port",
    advertise: "media.advertise",
    turn: Named { flag: "turn.port", any_other: false },
};

/// Everything, running.
pub(crate) struct Server {
    /// Where people reach it: `http.public_url`, or the bound address.
    pub(crate) url: String,
    /// The address with TLS that we serve ourselves.
    pub(crate) tls_url: Option<String>,
    /// The consultations.
    pub(crate) control: ControlPlane,
    signaling: Signaling,
    node: Node,
    turn: Option<Arc<TurnServer>>,
    stop: watch::Sender<bool>,
    secure: Option<Secure>,
    edges: Vec<JoinHandle<()>>,
}

/// `bedside serve`: runs until a signal, then drains.
pub(crate) async fn serve(config: &Config) -> anyhow::Result<()> {
    let mut signals = Signals::listen()?;
    let mut hangup = Hangup::listen()?;
    telemetry::start(&config.log)?;
    let server = Server::start(config, SETTINGS).await?;
    tracing::info!(url = server.url, "ready");
    loop {
        tokio::select! {
            () = signals.next() => break,
            () = hangup.next() => server.reload(),
        }
    }
    tracing::info!(rooms = server.signaling.size().0, "draining");
    if signals.bound(config.drain_timeout, server.drain()).await != Ending::Signal {
        signals.bound(GOODBYE * 3, server.stop()).await;
    }
    Ok(())
}

impl Server {
    /// Starts all parts and opens the doors.
    pub(crate) async fn start(config: &Config, names: Names) -> anyhow::Result<Self> {
        tracing::info!(version = env!("CARGO_PKG_VERSION"), config = config.one_line(), "starting");
        tell_notes(&config.notes);
        if !assets::are_built() {
            tracing::warn!("the pages are not in this binary: run ./scripts/build");
        }
        let advertise = advertised(&config.media, names)?;
        let Bound { edge, secured, admin, turn } = Bound::bind(config, names).await?;
        let tls_url = secured.as_ref().map(|(edge, _)| tls_url(config, edge.address(), &advertise));
        let url = public_url(config, edge.address(), tls_url.as_deref(), &advertise);
        let local = advertise.iter().copied().all(doctor::is_local);
        let shared_tcp = secured.as_ref().map(|(edge, _)| edge.address().port());
        let back = WayBack::default();
        let (node, events) =
            start_node(&config.media, advertise.clone(), shared_tcp, back.outlets(), names)?;
        let tls = config.tls.names.first().map(String::as_str).zip(shared_tcp);
        let reach = Reach { advertise: &advertise, tls };
        let turn = turn.map(|port| TurnServer::start(port, &config.turn, reach, &node, &back));
        let turn = turn.transpose()?;
        tracing::info!(http = %edge.address(), media = ?node.ports(), "bound");

        let keys = keys(config)?;
        let allowed_origins = allowed_origins(config, &url);
        let mut control = control_config(config, &url, allowed_origins.clone())?;
        control.checks.local_network = local;
        let control = ControlPlane::open(control).await.context("database_url")?;
        let running = node.handle();
        control.watch_media(move || running.is_running());
        let ice_servers: Arc<dyn IceServers> = match &turn {
            Some(turn) => Arc::clone(turn) as _,
            None => Arc::new(NoIceServers),
        };
        let (facts, heard) = mpsc::channel(FACTS);
        let signaling = Signaling::new(
            SignalingConfig {
                keys,
                allowed_origins,
                ice_servers,
                token_ttl: config.rooms.token_ttl,
                allow_simulate: config.rooms.allow_simulate,
                allow_remote_unmute: config.rooms.allow_remote_unmute,
                ..SignalingConfig::default()
            },
            node.handle(),
            control.doorkeeper(),
            facts,
        );
        control.attach(signaling.clone());
        let handle = node.handle();
        let metrics = Metrics::new(Arc::new(move || handle.counters()), signaling.counters())?;
        metrics.watch(control.clone())?;
        if let Some(turn) = &turn {
            metrics.turn(Arc::clone(turn))?;
        }
        tokio::spawn(signaling.clone().run(events));
        tokio::spawn(control.clone().run(heard));

        let (stop, stopped) = watch::channel(false);
        let doors = signaling.router().merge(control.router()).merge(assets::router());
        let behind = Behind {
            doors: doors.merge(http::version()),
            operator: http::operator(metrics.clone(), readiness(&control)),
            media: node.handle(),
            turn: turn.as_ref().map(|turn| turn.streams()),
            metrics,
            url: &url,
            tls_url: tls_url.as_deref(),
        };
        let bound = Bound { edge, secured, admin, turn: None };
        let (secure, edges) = behind.open(config, bound, &stopped)?;
        Ok(Self { url, tls_url, control, signaling, node, turn, stop, secure, edges })
    }

    /// Where clients reach TURN, best first.
    pub(crate) fn turn_urls(&self) -> &[String] {
        self.turn.as_ref().map_or(&[], |turn| turn.urls())
    }

    /// Looks at files that may have changed.
    pub(crate) fn reload(&self) {
        if let Some(secure) = &self.secure {
            secure.reload();
        }
    }

    /// Takes no new rooms, and waits for the open ones to end.
    pub(crate) async fn drain(&self) {
        self.control.drain();
        self.signaling.drain();
        self.empty().await;
    }

    /// Tells everybody that it is over, and ends.
    pub(crate) async fn stop(self) {
        self.control.drain();
        self.signaling.shutdown();
        if tokio::time::timeout(GOODBYE, self.empty()).await.is_err() {
            tracing::warn!(rooms = self.signaling.size().0, "rooms did not end in time");
        }
        // Nobody listens any more if the edge has ended by itself.
        let _nobody = self.stop.send(true);
        let edges = async {
            for edge in self.edges {
                // One that has panicked has nothing open any more.
                let _ended = edge.await;
            }
        };
        if tokio::time::timeout(GOODBYE, edges).await.is_err() {
            tracing::debug!("connections were still open");
        }
        if tokio::time::timeout(GOODBYE, self.control.close()).await.is_err() {
            tracing::warn!("the database did not take everything in time");
        }
        // Joins threads, each within one turn of its loop.
        self.node.stop();
        tracing::info!("stopped");
    }

    async fn empty(&self) {
        while self.signaling.size().0 > 0 {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

fn tell_notes(notes: &[Note]) {
    for note in notes {
        match note {
            Note::Info(note) => tracing::info!("{note}"),
            Note::Warning(note) => tracing::warn!("{note}"),
        }
    }
}

/// Bound listeners.
struct Bound {
    edge: Edge,
    secured: Option<(Edge, CertificateSource)>,
    admin: Option<Edge>,
    turn: Option<Port>,
}

impl Bound {
    async fn bind(config: &Config, names: Names) -> anyhow::Result<Self> {
        let secured = config.secured()?;
        let edge = Edge::bind(config.http.listen, names.http)?;
        let secured = match secured {
            Some((listen, source)) => Some((Edge::bind(listen, names.tls)?, source)),
            None => None,
        };
        if let Some((edge, _)) = &secured {
            tracing::info!(tls = %edge.address(), "the port that gets through is bound");
        }
        let admin = match config.admin.listen {
            Some(address) => Some(Edge::bind(address, "admin.listen")?),
            None => None,
        };
        if let Some(admin) = &admin {
            tracing::info!(admin = %admin.address(), "the operator's doors are bound");
        }
        let turn = Port::bind(config.media.bind, &config.turn, names.turn).await?;
        Ok(Self { edge, secured, admin, turn })
    }
}

/// What stands behind the listeners.
struct Behind<'a> {
    doors: Router,
    operator: Router,
    media: NodeHandle,
    turn: Option<Streams>,
    metrics: Metrics,
    url: &'a str,
    tls_url: Option<&'a str>,
}

impl Behind<'_> {
    /// Opens the doors of all listeners.
    fn open(
        self,
        config: &Config,
        bound: Bound,
        stopped: &watch::Receiver<bool>,
    ) -> anyhow::Result<(Option<Secure>, Vec<JoinHandle<()>>)> {
        let Bound { edge, secured, admin, turn: _ } = bound;
        let Self { doors, operator, media, turn, metrics, url, tls_url } = self;
        let counters = metrics.edge()?;
        let policy = http::content_security_policy(url);
        let proxies = config.proxies.trust();
        let wrap = |doors| http::router(doors, metrics.clone(), proxies.clone(), &policy);
        let (doors, operator, private) = match &admin {
            Some(_) => (doors, Router::new(), operator),
            None => (doors.merge(operator.clone()), operator, Router::new()),
        };
        let doors = wrap(doors);
        // People are sent to the address that they know, if that has TLS.
        let target = Some(url).filter(|url| url.starts_with("https:")).or(tls_url);
        let redirect = |operator, url: &str| wrap(http::redirecting(operator, url));
        let plain = match target.filter(|_| secured.is_some() && config.tls.redirect) {
            Some(url) => redirect(operator, url),
            None => doors.clone(),
        };
        let http = &config.http;
        let (places, one) = (edge::places(http.max_connections), http.max_connections_per_address);
        let mut open = Doors {
            plain,
            secure: http::strict(doors, config.tls.hsts),
            tls: None,
            turn,
            media: config.media.tcp.then_some(media),
            crowd: Crowd::new(places, one, proxies.clone()),
            metrics: metrics.clone(),
            counters: counters.clone(),
        };
        let mut edges = Vec::new();
        let mut secure = None;
        if let Some((edge, source)) = secured {
            let started = Secure::start(source, &counters, stopped.clone())?;
            metrics.certificate(Expiry::new(Arc::clone(started.tls.shown()))?)?;
            open.tls = Some(started.tls.clone());
            secure = Some(started);
            let plain = redirect(Router::new(), target.unwrap_or(url));
            let doors = Doors { plain, ..open.clone() };
            edges.push(tokio::spawn(edge.run(doors, stopped.clone())));
        }
        if let Some(admin) = admin {
            let crowd = Crowd::new(ADMIN_CONNECTIONS, ADMIN_CONNECTIONS, proxies.clone());
            let doors = Doors {
                plain: wrap(private),
                tls: None,
                turn: None,
                media: None,
                crowd,
                ..open.clone()
            };
            edges.push(tokio::spawn(admin.run(doors, stopped.clone())));
        }
        edges.push(tokio::spawn(edge.run(open, stopped.clone())));
        Ok((secure, edges))
    }
}

/// The control plane's settings: the one place where ours become its own. `url` and
/// `allowed_origins` are known only once the port is.
/// The API keys: the first one signs, all of them verify.
pub(crate) fn keys(config: &Config) -> Result<Vec<KeyPair>, ConfigError> {
    let mut keys = vec![tokens::keys(config)];
    keys.extend(config.auth.previous()?);
    Ok(keys)
}

/// What the control plane is told.
pub(crate) fn control_config(
    config: &Config,
    url: &str,
    allowed_origins: Vec<String>,
) -> Result<ControlConfig, ConfigError> {
    Ok(ControlConfig {
        database_url: config.database_url.reveal().clone(),
        keys: keys(config)?,
        jwks: config.auth.jwks()?,
        service_keys: config.auth.keys()?,
        idle_logoff: config.auth.idle_logoff,
        public_url: url.to_owned(),
        allowed_origins,
        auto_create: config.rooms.auto_create,
        create_by_call: config.rooms.create_by_call,
        room_token_ttl: config.rooms.token_ttl,
        limits: config.limits.rates(),
        timers: config.timers.timers(),
        video_enabled: config.video.enabled,
        rabbitmq: rabbit_config(config),
        events_clinic: config.events.clinic.clone(),
        naive_timezone: config.events.naive_timezone,
        billing: config.billing.charges(),
        payments: PaymentsConfig { required: config.payments.required },
        chat: config.chat.settings(),
        checks: config.checks.settings(),
        objects: config.objects.place(config.database_url.reveal()),
        events_retention: config.events.retention,
        kafka: kafka_config(config),
        webhooks: webhooks(config)?,
        ..ControlConfig::default()
    })
}

/// None without a broker's address.
pub(crate) fn kafka_config(config: &Config) -> Option<KafkaConfig> {
    let log = &config.kafka;
    let authority = Some(log.tls_ca.clone()).filter(|pem| !pem.trim().is_empty());
    let sasl = log.sasl.map(|mechanism| KafkaSasl {
        mechanism: match mechanism {
            Sasl::Plain => Mechanism::Plain,
            Sasl::ScramSha256 => Mechanism::ScramSha256,
            Sasl::ScramSha512 => Mechanism::ScramSha512,
        },
        username: log.username.clone(),
        password: log.password.clone(),
    });
    (!log.bootstrap_servers.is_empty()).then(|| KafkaConfig {
        bootstrap_servers: log.bootstrap_servers.clone(),
        topic: log.topic.clone(),
        partitions: log.partitions,
        replication: log.replication,
        appointments_topic: log.appointments_topic.clone(),
        tls: log.tls.then_some(authority),
        sasl,
    })
}

/// An error names the endpoint.
fn webhooks(config: &Config) -> Result<Vec<Webhook>, ConfigError> {
    let endpoint = |hook: &config::Webhook| WebhookConfig {
        name: hook.name.clone(),
        url: hook.url.clone(),
        secrets: [&hook.secret, &hook.old_secret]
            .into_iter()
            .filter(|secret| !secret.reveal().is_empty())
            .cloned()
            .collect(),
        events: hook.events.clone(),
        clinic: Some(hook.clinic.clone()).filter(|clinic| !clinic.is_empty()),
        allow_private: hook.allow_private,
        rooms: hook.rooms,
    };
    let endpoints: Vec<WebhookConfig> = config.webhooks.iter().map(endpoint).collect();
    Webhook::all(&endpoints)
        .map_err(|(name, error)| ConfigError::Invalid(format!("webhooks: {name:?}: {error}")))
}

/// What `bedside backup` copies.
pub(crate) fn lasting(config: &Config) -> Lasting {
    let objects = match config.objects.place(config.database_url.reveal()) {
        Objects::Folder(folder) => Some(folder),
        // What is in a bucket is its owner's to keep.
        Objects::S3(_) => None,
    };
    Lasting { database_url: config.database_url.clone(), objects }
}

/// None without a host.
pub(crate) fn rabbit_config(config: &Config) -> Option<RabbitConfig> {
    let broker = &config.rabbitmq;
    (!broker.host.is_empty()).then(|| RabbitConfig {
        host: broker.host.clone(),
        port: broker.port,
        tls: broker.tls,
        username: broker.username.clone(),
        password: broker.password.clone(),
        vhost: broker.vhost.clone(),
        exchange: broker.exchange.clone(),
        exchange_type: broker.exchange_type.clone(),
        ..RabbitConfig::default()
    })
}

fn readiness(control: &ControlPlane) -> http::Readiness {
    let control = control.clone();
    Arc::new(move || {
        let control = control.clone();
        Box::pin(async move { control.health().await.missing() })
    })
}

/// How many media threads there are.
pub(crate) fn shards(media: &Media) -> usize {
    match media.shards {
        0 => std::thread::available_parallelism().map_or(1, usize::from),
        shards => shards,
    }
}

fn start_node(
    media: &Media,
    advertise: Vec<IpAddr>,
    shared_tcp: Option<u16>,
    outlets: Outlets,
    names: Names,
) -> anyhow::Result<(Node, mpsc::Receiver<Event>)> {
    let shards = shards(media);
    let config = NodeConfig {
        bind: media.bind,
        first_port: media.port,
        shards,
        tcp: media.tcp,
        advertise,
        shared_tcp: shared_tcp.filter(|_| media.tcp),
        outlets,
        relay: bedside_signaling::livekit::data::relay,
        commands: COMMANDS,
        events: EVENTS,
    };
    Node::start(config).map_err(|error| {
        let port = matches!(
            error,
            StartError::PortTaken { .. }
                | StartError::Bind { .. }
                | StartError::Listen { .. }
                | StartError::Ports { .. }
        );
        let error = anyhow::Error::new(error);
        if port {
            error.context(format!("media cannot start: change {}", names.media))
        } else {
            error
        }
    })
}

/// The addresses that clients are told.
pub(crate) fn advertised(media: &Media, names: Names) -> anyhow::Result<Vec<IpAddr>> {
    let addresses = match (media.advertise.is_empty(), media.bind.is_unspecified()) {
        (false, _) => media.advertise.clone(),
        (true, false) => vec![media.bind],
        (true, true) => own_addresses(media.bind.is_ipv6()),
    };
    if addresses.is_empty() || addresses.iter().any(IpAddr::is_unspecified) {
        anyhow::bail!(
            "clients must be told a real address when {} is bound: name it with {}",
            media.bind,
            names.advertise
        );
    }
    Ok(addresses)
}

/// The addresses that this machine would use towards the internet. Connecting a UDP socket asks
/// the routing table and sends nothing.
fn own_addresses(with_v6: bool) -> Vec<IpAddr> {
    // Documentation addresses: RFC 5737, RFC 3849.
    let v4 = (IpAddr::from(Ipv4Addr::UNSPECIFIED), IpAddr::from([192, 0, 2, 1]));
    let v6 = (IpAddr::from(Ipv6Addr::UNSPECIFIED), IpAddr::from([0x2001, 0xdb8, 0, 0, 0, 0, 0, 1]));
    let wanted = if with_v6 { vec![v4, v6] } else { vec![v4] };
    let address = |(from, to): (IpAddr, IpAddr)| {
        let socket = UdpSocket::bind(SocketAddr::new(from, 0)).ok()?;
        socket.connect(SocketAddr::new(to, 9)).ok()?;
        Some(socket.local_addr().ok()?.ip())
    };
    wanted.into_iter().filter_map(address).filter(|ip| !ip.is_unspecified()).collect()
}

/// What people open: with TLS where plain HTTP only leads there.
fn public_url(
    config: &Config,
    bound: SocketAddr,
    tls_url: Option<&str>,
    advertise: &[IpAddr],
) -> String {
    if !config.http.public_url.is_empty() {
        return config.http.public_url.trim_end_matches('/').to_owned();
    }
    if let Some(url) = tls_url.filter(|_| config.tls.redirect) {
        return url.to_owned();
    }
    format!("http://{}", SocketAddr::new(reached(bound, advertise), bound.port()))
}

/// The address of the listener with TLS, by its name where it has one.
fn tls_url(config: &Config, bound: SocketAddr, advertise: &[IpAddr]) -> String {
    let host = match (config.tls.names.first(), reached(bound, advertise)) {
        (Some(name), _) => name.clone(),
        (None, IpAddr::V4(ip)) => ip.to_string(),
        (None, IpAddr::V6(ip)) => format!("[{ip}]"),
    };
    match bound.port() {
        443 => format!("https://{host}"),
        port => format!("https://{host}:{port}"),
    }
}

/// An address that reaches a listener.
fn reached(bound: SocketAddr, advertise: &[IpAddr]) -> IpAddr {
    match advertise.first() {
        Some(ip) if bound.ip().is_unspecified() => *ip,
        _ => bound.ip(),
    }
}

/// Where there is a list, our own pages are on it: browsers name the origin of a WebSocket always.
fn allowed_origins(config: &Config, url: &str) -> Vec<String> {
    let mut origins = config.http.allowed_origins.clone();
    if !origins.is_empty() {
        // Scheme, nothing, host: a path is no part of an origin.
        origins.push(url.split('/').take(3).collect::<Vec<_>>().join("/"));
    }
    origins
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_address_needs_one_to_tell() {
        let mut media = Media { advertise: vec![[0, 0, 0, 0].into()], ..Media::default() };
        let names = Names { advertise: "--advertise", ..SETTINGS };
        let error = advertised(&media, names).unwrap_err().to_string();
        assert!(error.contains("--advertise"), "{error}");
        media.advertise = vec![[192, 0, 2, 1].into()];
        assert_eq!(advertised(&media, names).unwrap(), media.advertise);
        media = Media { bind: [127, 0, 0, 1].into(), ..Media::default() };
        assert_eq!(advertised(&media, names).unwrap(), [media.bind]);
    }

    #[test]
    fn the_broker_is_the_one_in_the_settings() {
        let mut config = Config::default();
        assert!(rabbit_config(&config).is_none(), "without a host there is none");
        config.rabbitmq.host = "broker".to_owned();
        let used = rabbit_config(&config).unwrap();
        assert_eq!((used.host.as_str(), used.port, used.tls), ("broker", 5672, false));
        assert_eq!((used.username.as_str(), used.password.reveal().as_str()), ("guest", "guest"));
        assert_eq!((used.vhost.as_str(), used.exchange.as_str()), ("/", "appointments-exchange"));
        config.rabbitmq.vhost = "clinic".to_owned();
        config.rabbitmq.port = 5671;
        let used = rabbit_config(&config).unwrap();
        assert_eq!((used.vhost.as_str(), used.port), ("clinic", 5671));
    }

    #[test]
    fn links_name_what_people_can_reach() {
        let mut config = Config::default();
        let advertise = [IpAddr::from([192, 0, 2, 7])];
        let any = SocketAddr::from(([0, 0, 0, 0], 8000));
        assert_eq!(public_url(&config, any, None, &advertise), "http://192.0.2.7:8000");
        let local = SocketAddr::from(([127, 0, 0, 1], 1234));
        assert_eq!(public_url(&config, local, None, &advertise), "http://127.0.0.1:1234");
        let (any, six) = (SocketAddr::from(([0, 0, 0, 0], 443)), "[::1]:8443".parse().unwrap());
        assert_eq!(tls_url(&config, any, &advertise), "https://192.0.2.7");
        assert_eq!(tls_url(&config, six, &advertise), "https://[::1]:8443");
        config.tls.names = vec!["video.example".to_owned()];
        let secure = tls_url(&config, any, &advertise);
        assert_eq!(public_url(&config, local, Some(&secure), &[]), "https://video.example");
        config.tls.redirect = false;
        assert_eq!(public_url(&config, local, Some(&secure), &[]), "http://127.0.0.1:1234");
        config.http.public_url = "https://clinic.example/".to_owned();
        assert_eq!(public_url(&config, local, Some(&secure), &[]), "https://clinic.example");
    }
}
