//! TURN joined to media and to the people it serves. This page alone knows both sides.
//!
//! A relay's datagrams cross to the shards through inlets of the media node, and come back through
//! its outlets. Who is in a room may allocate; who has left has nothing any more. Somebody who holds
//! a token for a room and has not come yet may allocate, too, for as long as the credential says.

mod guests;
mod shown;

use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::time::{Duration, Instant, SystemTime};

use anyhow::Context as _;
use aws_lc_rs::{hmac, rand};
use bedside_sfu::node::{Node as MediaNode, Outlets, RelayInlet, RelayOutlet};
use bedside_signaling::ice::{IceServer, IceServers};
use bedside_signaling::{ParticipantInfo, ParticipantSid, Private};
use bedside_turn::{Backhaul, Config, Media, Node, Quotas, Relay, Secret, StartError, Streams};
use bytes::Bytes;
use tokio::net::TcpListener;

use self::guests::Guests;
pub(crate) use self::shown::Relays;
use crate::config::Turn;

/// Ports of relayed addresses. They are nowhere but in messages, and outside the range that systems
/// give to clients, so that none of them is the address of somebody on this machine.
const RELAYED_PORTS: std::ops::RangeInclusive<u16> = 1_024..=32_767;
/// Who has been given a credential and never came is forgotten this long after its end.
const GRACE: Duration = Duration::from_secs(300);
/// How often those are looked for.
const SWEEP: Duration = Duration::from_secs(10);
/// How often a free UDP port is drawn whose TCP port may be taken.
const DRAWS: usize = 32;

/// The way back to clients, which is there as soon as TURN runs.
#[derive(Clone, Debug, Default)]
pub(crate) struct WayBack(Arc<OnceLock<Backhaul>>);

impl WayBack {
    /// The outlets of the media node.
    pub(crate) fn outlets(&self) -> Outlets {
        let way = self.clone();
        Outlets::new(move |_| Box::new(way.clone()))
    }
}

impl RelayOutlet for WayBack {
    fn send(&mut self, relay: u64, from: SocketAddr, segment: usize, train: Bytes) -> u64 {
        match self.0.get() {
            Some(backhaul) => backhaul.send(Relay(relay), from, segment, train),
            None => 0,
        }
    }
}

/// The way to the media node, of one listener.
struct WayIn(RelayInlet);

impl Media for WayIn {
    fn deliver(&mut self, relay: Relay, from: SocketAddr, to: SocketAddr, data: &[u8]) {
        self.0.push(relay.0, from, to, data);
    }

    fn flush(&mut self) {
        self.0.flush();
    }

    fn closed(&mut self, relay: Relay) {
        self.0.closed(relay.0);
    }
}

/// A bound TCP and UDP port of one number, before TURN runs.
pub(crate) struct Port {
    listener: TcpListener,
    address: SocketAddr,
}

impl Port {
    /// Takes the configured port. `None`: there shall be no relay.
    pub(crate) async fn bind(
        ip: IpAddr,
        turn: &Turn,
        names: Named,
    ) -> anyhow::Result<Option<Self>> {
        if turn.port == 0 {
            return Ok(None);
        }
        if !turn.reaches_browsers() {
            tracing::warn!(
                port = turn.port,
                "browsers take no TURN port below 1024 but 80 and 443"
            );
        }
        let wanted = SocketAddr::new(ip, turn.port);
        let taken = match Self::try_bind(wanted).await {
            Ok(port) => return Ok(Some(port)),
            Err(error) => error,
        };
        if !names.any_other {
            return Err(taken).with_context(|| {
                format!("{wanted} (UDP and TCP) cannot be bound: change {}", names.flag)
            });
        }
        for _ in 0..DRAWS {
            if let Ok(port) = Self::try_bind(SocketAddr::new(ip, 0)).await {
                tracing::warn!(
                    wanted = turn.port,
                    port = port.address.port(),
                    "the TURN port is taken: a free one is used"
                );
                return Ok(Some(port));
            }
        }
        Err(taken).with_context(|| format!("no free port for TURN: change {}", names.flag))
    }

    /// TCP first, and a look whether UDP of the same number is free.
    async fn try_bind(address: SocketAddr) -> std::io::Result<Self> {
        let listener = TcpListener::bind(address).await?;
        let address = listener.local_addr()?;
        drop(std::net::UdpSocket::bind(address)?);
        Ok(Self { listener, address })
    }
}

/// What a person must change when the port is taken.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Named {
    /// The setting's name.
    pub(crate) flag: &'static str,
    /// Any other port does as well.
    pub(crate) any_other: bool,
}

/// Where clients reach us.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reach<'a> {
    /// Media's addresses.
    pub(crate) advertise: &'a [IpAddr],
    /// Name and port of a listener with TLS whose certificate has that name.
    pub(crate) tls: Option<(&'a str, u16)>,
}

/// Running TURN.
#[derive(Debug)]
pub(crate) struct TurnServer {
    node: Node,
    secret: Secret,
    /// Makes names of people whom we have no number for yet.
    namer: hmac::Key,
    urls: Vec<String>,
    ttl: Duration,
    guests: Mutex<Guests>,
}

impl TurnServer {
    /// Starts it before a running media node.
    pub(crate) fn start(
        port: Port,
        turn: &Turn,
        reach: Reach<'_>,
        media: &MediaNode,
        back: &WayBack,
    ) -> anyhow::Result<Arc<Self>> {
        let mut bytes = [0; 32];
        rand::fill(&mut bytes).ok().context("there is no randomness")?;
        let secret = Secret::new(&bytes);
        let peers = media.addresses(reach.advertise);
        let usual = Config::new(secret.clone(), peers, reach.advertise.to_vec());
        let config = Config {
            realm: turn.realm.clone(),
            ports: RELAYED_PORTS,
            quotas: Quotas {
                allocations_of_participant: turn.allocations_per_participant,
                allocations_from_address: turn.allocations_per_address,
                ..usual.quotas
            },
            ..usual
        };
        let inlet = media.handle().relay_inlet();
        let way_in = Mutex::new(inlet);
        let way_in = move |_| -> Box<dyn Media> {
            // Each gets one of its own: what one gathers is not for others.
            Box::new(WayIn(way_in.lock().unwrap_or_else(PoisonError::into_inner).clone()))
        };
        let node = Node::start(config, vec![port.address], way_in).map_err(told)?;
        let _first = back.0.set(node.backhaul());
        rand::fill(&mut bytes).ok().context("there is no randomness")?;
        let server = Arc::new(Self {
            urls: urls(turn, port.address.port(), reach),
            ttl: turn.credential_ttl,
            guests: Mutex::default(),
            namer: hmac::Key::new(hmac::HMAC_SHA256, &bytes),
            secret,
            node,
        });
        let streams = server.streams();
        tokio::spawn(async move { streams.listen(port.listener).await });
        tokio::spawn(sweep(Arc::downgrade(&server)));
        Ok(server)
    }

    /// What clients are told, best first.
    pub(crate) fn urls(&self) -> &[String] {
        &self.urls
    }

    /// The way in for streams that somebody else has accepted.
    pub(crate) fn streams(&self) -> Streams {
        self.node.streams()
    }

    /// What it counts.
    pub(crate) fn counters(&self) -> bedside_turn::Counters {
        self.node.counters()
    }

    fn servers(&self, guest: &str) -> Vec<IceServer> {
        let (username, credential) =
            bedside_turn::credential(&self.secret, guest, unix_now() + self.ttl.as_secs());
        let credential = Private::new(credential);
        vec![IceServer { urls: self.urls.clone(), username, credential }]
    }

    /// The name of somebody who is not in a room yet. It says nothing to others.
    fn name(&self, room: &str, identity: &str) -> String {
        let mut context = hmac::Context::with_key(&self.namer);
        context.update(room.as_bytes());
        context.update(&[0]);
        context.update(identity.as_bytes());
        let tag = context.sign();
        tag.as_ref().iter().take(12).map(|byte| format!("{byte:02x}")).collect()
    }

    fn guests(&self) -> MutexGuard<'_, Guests> {
        self.guests.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Under the lock of the guests, so that nobody who comes again meanwhile is refused.
    fn free(&self, names: &[String]) {
        for name in names {
            self.node.free(name);
        }
    }
}

impl IceServers for TurnServer {
    fn for_participant(&self, participant: &ParticipantSid) -> Vec<IceServer> {
        self.servers(&participant.0)
    }

    fn for_bearer(&self, room: &str, identity: &str) -> Vec<IceServer> {
        let name = self.name(room, identity);
        let mut guests = self.guests();
        guests.expect(&name, Instant::now() + self.ttl + GRACE);
        self.node.allow(&name);
        drop(guests);
        self.servers(&name)
    }

    fn present(&self, room: &str, participant: &ParticipantInfo) {
        let mut guests = self.guests();
        // Told at every change; the name costs a hash.
        if guests.is_present(&participant.sid.0) {
            return;
        }
        guests.enter(&participant.sid.0, self.name(room, participant.profile.identity.reveal()));
        self.node.allow(&participant.sid.0);
    }

    fn left(&self, participant: &ParticipantSid) {
        let mut guests = self.guests();
        self.free(&guests.leave(&participant.0));
    }

    fn all(&self, there: &mut dyn Iterator<Item = (&str, &ParticipantInfo)>) {
        let mut kept = std::collections::HashSet::new();
        for (room, participant) in there {
            self.present(room, participant);
            kept.insert(participant.sid.0.to_string());
        }
        let mut guests = self.guests();
        self.free(&guests.leave_but(&kept));
    }
}

/// Frees, now and then, who never came.
async fn sweep(server: Weak<TurnServer>) {
    loop {
        tokio::time::sleep(SWEEP).await;
        let Some(server) = server.upgrade() else { return };
        let mut guests = server.guests();
        server.free(&guests.expire(Instant::now()));
    }
}

fn unix_now() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// The port was free a moment ago.
fn told(error: StartError) -> anyhow::Error {
    anyhow::Error::new(error).context("TURN cannot start")
}

/// What works here, best first: relays over UDP lose least.
fn urls(turn: &Turn, port: u16, reach: Reach<'_>) -> Vec<String> {
    if !turn.urls.is_empty() {
        return turn.urls.clone();
    }
    let hosts = if turn.host.is_empty() {
        let (v4, v6): (Vec<&IpAddr>, Vec<&IpAddr>) =
            reach.advertise.iter().partition(|ip| ip.is_ipv4());
        // One of each family: browsers take their time with every server on the list.
        v4.into_iter().take(1).chain(v6.into_iter().take(1)).map(in_url).collect()
    } else {
        vec![turn.host.clone()]
    };
    let plain = |transport: &'static str| {
        hosts.iter().map(move |host| format!("turn:{host}:{port}?transport={transport}"))
    };
    // Browsers check the certificate against the name, and Firefox takes no address.
    let tls = reach.tls.filter(|(_, port)| matches!(port, 80 | 443 | 1_024..));
    let tls = tls.map(|(name, port)| format!("turns:{name}:{port}?transport=tcp"));
    plain("udp").chain(plain("tcp")).chain(tls).collect()
}

fn in_url(ip: &IpAddr) -> String {
    match ip {
        IpAddr::V4(ip) => ip.to_string(),
        IpAddr::V6(ip) => format!("[{ip}]"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_are_told_what_works_here() {
        let advertise =
            ["192.0.2.1", "192.0.2.2", "2001:db8::1"].map(|text| text.parse::<IpAddr>().unwrap());
        let mut turn = Turn::default();
        let reach = Reach { advertise: &advertise, tls: Some(("video.example", 443)) };
        assert_eq!(
            urls(&turn, 3478, reach),
            [
                "turn:192.0.2.1:3478?transport=udp",
                "turn:[2001:db8::1]:3478?transport=udp",
                "turn:192.0.2.1:3478?transport=tcp",
                "turn:[2001:db8::1]:3478?transport=tcp",
                "turns:video.example:443?transport=tcp",
            ]
        );
        turn.host = "relay.example".to_owned();
        let reach = Reach { advertise: &advertise, tls: Some(("video.example", 442)) };
        assert_eq!(
            urls(&turn, 80, reach),
            ["turn:relay.example:80?transport=udp", "turn:relay.example:80?transport=tcp"]
        );
        turn.urls = vec!["turns:front.example:443?transport=tcp".to_owned()];
        assert_eq!(urls(&turn, 80, reach), turn.urls);
    }

    #[tokio::test]
    async fn a_taken_port_is_an_error_or_another_port() {
        let ip = IpAddr::from([127, 0, 0, 1]);
        let holder = std::net::UdpSocket::bind((ip, 0)).unwrap();
        let turn = Turn { port: holder.local_addr().unwrap().port(), ..Turn::default() };
        let fixed = Named { flag: "turn.port", any_other: false };
        let error = Port::bind(ip, &turn, fixed).await.err().unwrap();
        assert!(format!("{error:#}").contains("turn.port"), "{error:#}");
        let other = Port::bind(ip, &turn, Named { any_other: true, ..fixed }).await.unwrap();
        assert_ne!(other.unwrap().address.port(), turn.port);
        let off = Turn { port: 0, ..turn };
        assert!(Port::bind(ip, &off, fixed).await.unwrap().is_none());
    }
}
