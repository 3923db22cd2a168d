//! What relaying costs, beside coturn in one run: packets per second of CPU time.
//!
//! A client sends ChannelData through an allocation and gets everything back. With us it goes client →
//! UDP listener → queue of a shard → client, all in one process; with coturn it goes client → coturn →
//! a socket with a shard's code for batches → client. What answers does nothing but answer, in
//! trains as a shard would, so that the figures are those of the relaying. Packets are counted at the
//! client, and CPU time is that of the processes that serve it.

#![allow(clippy::print_stdout, reason = "a program that prints a table")]

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context as _, Result, bail};
use bedside_benches::process::pin;
use bedside_sfu::core::api::{Input, Path};
use bedside_sfu::node::{Batch, RelayInlet, RelayQueue, Socket};
use bedside_turn::auth::{PasswordAlgorithm, long_term_key};
use bedside_turn::message::{
    Class, Integrity, Key, Message, Method, Writer, attribute, channel_data_head,
};
use bedside_turn::{Backhaul, Config, Media, Node, Relay, Secret};
use bytes::BytesMut;
use clap::{Parser, ValueEnum};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use serde::{Deserialize, Serialize};

/// Packets that are on their way at once.
const IN_FLIGHT: usize = 256;
/// A cell of the table.
const CELLS: [(usize, usize); 4] = [(1_200, 1), (1_200, 200), (120, 1), (120, 200)];
/// What `/proc` counts CPU time in: ticks of 10 ms, on every Linux.
const USER_HZ: f64 = 100.0;
const CHANNEL: u16 = 0x4001;

#[derive(Parser)]
struct Arguments {
    /// Seconds of each measurement.
    #[arg(long, default_value_t = 2.0)]
    seconds: f64,
    /// Measurements of each cell; the table shows the medians.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Where the figures go as JSON.
    #[arg(long)]
    json: Option<std::path::PathBuf>,
    /// Be one of the processes under test.
    #[arg(long, hide = true)]
    child: Option<Role>,
}

#[derive(Clone, Copy, ValueEnum)]
enum Role {
    Ours,
    Answering,
}

/// What a child tells when it is there.
#[derive(Serialize, Deserialize)]
struct Ready {
    /// Where TURN is.
    turn: Option<SocketAddr>,
    /// What answers.
    peer: SocketAddr,
    username: String,
    password: String,
}

#[derive(Serialize)]
struct Row {
    bytes: usize,
    allocations: usize,
    /// Packets per second of CPU time.
    ours: f64,
    coturn: f64,
    /// The same without the process that answers.
    coturn_alone: f64,
    ratio: f64,
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    match arguments.child {
        Some(Role::Ours) => return ours(),
        Some(Role::Answering) => return answering(),
        None => {}
    }
    pin(1);
    let mut rows = Vec::new();
    println!("packets per CPU second, medians of {} rounds", arguments.rounds);
    println!("bytes allocations       ours     coturn   (coturn alone)   ratio");
    for (bytes, allocations) in CELLS {
        let row = cell(&arguments, bytes, allocations)?;
        println!(
            "{bytes:5} {allocations:11} {:10.0} {:10.0} {:16.0} {:7.2}",
            row.ours, row.coturn, row.coturn_alone, row.ratio
        );
        rows.push(row);
    }
    if let Some(path) = &arguments.json {
        std::fs::write(path, serde_json::to_string_pretty(&rows)?)?;
    }
    Ok(())
}

/// Both servers in turn, round by round.
fn cell(arguments: &Arguments, bytes: usize, allocations: usize) -> Result<Row> {
    let (us, told) = spawn(Role::Ours)?;
    let mut ours = Clients::start(&told, allocations, bytes)?;
    let (answering, there) = spawn(Role::Answering)?;
    let coturn = Coturn::start()?;
    let told = Ready { turn: Some(coturn.address), ..there };
    let mut theirs = Clients::start(&told, allocations, bytes)?;
    let (mut us_all, mut them_all, mut them_alone) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..arguments.rounds {
        let before = us.cpu()?;
        let packets = ours.run(arguments.seconds)?;
        us_all.push(packets / (us.cpu()? - before));
        let before = (coturn.child.cpu()?, answering.cpu()?);
        let packets = theirs.run(arguments.seconds)?;
        let alone = coturn.child.cpu()? - before.0;
        them_alone.push(packets / alone);
        them_all.push(packets / (alone + answering.cpu()? - before.1));
    }
    let (ours, coturn) = (median(us_all), median(them_all));
    let coturn_alone = median(them_alone);
    Ok(Row { bytes, allocations, ours, coturn, coturn_alone, ratio: ours / coturn })
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(0.0)
}

/// A process that ends with this value.
struct Served(Child);

impl Served {
    /// CPU time so far, in seconds.
    fn cpu(&self) -> Result<f64> {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.0.id()))?;
        // The name before it may hold anything; user and system time are the 14th and 15th field.
        let fields = stat.rsplit_once(") ").context("no stat")?.1;
        let ticks: Vec<f64> =
            fields.split(' ').skip(11).take(2).filter_map(|field| field.parse().ok()).collect();
        Ok(ticks.iter().sum::<f64>() / USER_HZ)
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        // Fails when it has ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn spawn(role: Role) -> Result<(Served, Ready)> {
    let name = role.to_possible_value().context("a role has a name")?;
    let mut child = Command::new(std::env::current_exe()?)
        .args(["--child", name.get_name()])
        .stdout(Stdio::piped())
        .spawn()?;
    let stdout = child.stdout.take().context("stdout is piped")?;
    let child = Served(child);
    let mut line = String::new();
    BufReader::new(stdout).read_line(&mut line)?;
    Ok((child, serde_json::from_str(&line)?))
}

struct Coturn {
    child: Served,
    address: SocketAddr,
}

impl Coturn {
    fn start() -> Result<Self> {
        let address = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?;
        let port = address.port().to_string();
        let flags = "-n --no-cli --no-tls --no-dtls --lt-cred-mech --allow-loopback-peers \
                     --no-stdout-log --log-file /dev/null --pidfile /dev/null -L 127.0.0.1 \
                     -E 127.0.0.1 -r bench -u bench:bench";
        let child = Command::new("taskset")
            .args(["-c", "0", "turnserver"])
            .args(flags.split_whitespace())
            .args(["-p", &port])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .context("coturn is needed for this")?;
        Ok(Self { child: Served(child), address })
    }
}

/// Our relay and what answers, in one process as in the server.
fn ours() -> Result<()> {
    pin(0);
    let peer = SocketAddr::from((Ipv4Addr::LOCALHOST, 9));
    let (inlet, queue) = RelayQueue::open(peer.port())?;
    let secret = Secret::new(b"of a benchmark");
    let mut config = Config::new(secret.clone(), vec![peer], vec![Ipv4Addr::LOCALHOST.into()]);
    config.quotas.allocations_of_participant = 1_000;
    config.quotas.allocations_from_address = 1_000;
    config.quotas.strangers_per_second = 10_000;
    let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let inlet = std::sync::Mutex::new(inlet);
    let node = Node::start(config, vec![any], move |_| -> Box<dyn Media> {
        let inlet = inlet.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        Box::new(WayIn(inlet.clone()))
    })?;
    node.allow("bench");
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?.as_secs();
    let (username, password) = bedside_turn::credential(&secret, "bench", now + 3_600);
    tell(&Ready { turn: node.local().first().copied(), peer, username, password })?;
    let mut train = Train { back: node.backhaul(), arena: BytesMut::new(), open: None };
    loop {
        queue.take(|input| {
            if let Input::Datagram { path: Path::Relay { relay, local, .. }, data, .. } = input {
                train.push(relay, local, data);
            }
        });
        train.send();
    }
}

struct WayIn(RelayInlet);

impl Media for WayIn {
    fn deliver(&mut self, relay: Relay, from: SocketAddr, to: SocketAddr, data: &[u8]) {
        self.0.push(relay.0, from, to, data);
    }

    fn flush(&mut self) {
        self.0.flush();
    }
}

/// Neighbours of one size for one relay leave together, as they do in the engine.
struct Train {
    back: Backhaul,
    arena: BytesMut,
    open: Option<(u64, SocketAddr, usize)>,
}

impl Train {
    fn push(&mut self, relay: u64, from: SocketAddr, data: &[u8]) {
        let next = (relay, from, data.len());
        if self.open != Some(next) || self.arena.len() + data.len() > 60_000 {
            self.send();
            self.open = Some(next);
        }
        if self.arena.capacity() - self.arena.len() < data.len() {
            self.arena.reserve(32 << 10);
        }
        self.arena.extend_from_slice(data);
    }

    fn send(&mut self) {
        if let Some((relay, from, segment)) = self.open.take() {
            self.back.send(Relay(relay), from, segment, self.arena.split().freeze());
        }
    }
}

/// What answers coturn: a socket with a shard's code for batches and trains.
fn answering() -> Result<()> {
    pin(0);
    let mut socket = Socket::bind((Ipv4Addr::LOCALHOST, 0).into())?;
    let peer = socket.local();
    let (username, password) = ("bench".to_owned(), "bench".to_owned());
    tell(&Ready { turn: None, peer, username, password })?;
    let mut batch = Batch::new();
    let mut bytes: Vec<u8> = Vec::new();
    loop {
        if socket.receive(&mut batch).is_err() {
            let mut ready = [PollFd::new(std::os::fd::AsFd::as_fd(&socket), PollFlags::POLLIN)];
            poll(&mut ready, PollTimeout::NONE)?;
            continue;
        }
        let mut open: Option<(SocketAddr, usize)> = None;
        bytes.clear();
        let now = Instant::now();
        for datagram in batch.datagrams().flatten() {
            let next = (datagram.remote, datagram.data.len());
            if let Some((remote, segment)) = open.filter(|open| *open != next) {
                socket.send(now, peer.ip(), remote, segment, &bytes);
                bytes.clear();
            }
            open = Some(next);
            bytes.extend_from_slice(datagram.data);
        }
        if let Some((remote, segment)) = open {
            socket.send(now, peer.ip(), remote, segment, &bytes);
        }
    }
}

fn tell(ready: &Ready) -> Result<()> {
    let mut out = std::io::stdout();
    writeln!(out, "{}", serde_json::to_string(ready)?)?;
    Ok(out.flush()?)
}

/// Allocations with a channel each, and what is on its way.
struct Clients {
    sockets: Vec<UdpSocket>,
    packet: Vec<u8>,
    each: usize,
    buffer: Vec<u8>,
}

impl Clients {
    fn start(server: &Ready, allocations: usize, bytes: usize) -> Result<Self> {
        let turn = server.turn.context("there is TURN")?;
        let sockets = (0..allocations).map(|_| allocate(turn, server)).collect::<Result<_>>()?;
        let mut packet = channel_data_head(CHANNEL, u16::try_from(bytes)?).to_vec();
        packet.resize(4 + bytes, 0x55);
        let each = (IN_FLIGHT / allocations).max(1);
        Ok(Self { sockets, packet, each, buffer: vec![0; 2_048] })
    }

    /// Keeps packets on their way for some time; how many came back.
    fn run(&mut self, seconds: f64) -> Result<f64> {
        let end = Instant::now() + Duration::from_secs_f64(seconds);
        let (mut back, mut heard) = (0_u64, Instant::now());
        self.fill()?;
        loop {
            let before = back;
            for socket in &self.sockets {
                for _ in 0..self.each {
                    match socket.recv(&mut self.buffer) {
                        Ok(len) if self.buffer.get(..len) == Some(self.packet.as_slice()) => {
                            back += 1;
                            send(socket, &self.packet)?;
                        }
                        Ok(_) => {}
                        Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => break,
                        Err(error) => return Err(error.into()),
                    }
                }
            }
            let now = Instant::now();
            if now >= end {
                break;
            }
            if back != before {
                heard = now;
            } else if now.duration_since(heard) > Duration::from_millis(200) {
                // All were lost.
                self.fill()?;
                heard = now;
            }
        }
        if back == 0 {
            bail!("nothing came back");
        }
        Ok(back as f64)
    }

    fn fill(&self) -> Result<()> {
        for socket in &self.sockets {
            for _ in 0..self.each {
                send(socket, &self.packet)?;
            }
        }
        Ok(())
    }
}

/// A full buffer is a lost packet.
fn send(socket: &UdpSocket, packet: &[u8]) -> Result<()> {
    match socket.send(packet) {
        Ok(_) => Ok(()),
        Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// A socket with an allocation and a channel to what answers.
fn allocate(turn: SocketAddr, server: &Ready) -> Result<UdpSocket> {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
    socket.connect(turn)?;
    socket.set_read_timeout(Some(Duration::from_millis(500)))?;
    let udp = [17, 0, 0, 0];
    let ask = |request: Writer, key: Option<&Key>| -> Result<Vec<u8>> {
        let bytes = match key {
            Some(key) => request.integrity(Integrity::Sha1, key).finish(),
            None => request.finish(),
        };
        let mut answer = vec![0; 2_048];
        for _ in 0..40 {
            // A server that has just been started refuses at first.
            if let Ok(len) = socket.send(&bytes).and_then(|_| socket.recv(&mut answer)) {
                answer.truncate(len);
                return Ok(answer);
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        bail!("{turn} does not answer")
    };
    let request = |method, number: u8| Writer::new(method, Class::Request, [number; 12]);
    let stranger =
        ask(request(Method::Allocate, 1).attribute(attribute::REQUESTED_TRANSPORT, &udp), None)?;
    let refused = Message::parse(&stranger)?;
    let nonce = refused.attribute(attribute::NONCE).context("no nonce")?;
    let realm = refused.attribute(attribute::REALM).context("no realm")?;
    let (name, words) = (&server.username, &server.password);
    let key = long_term_key(PasswordAlgorithm::Md5, name, std::str::from_utf8(realm)?, words);
    let signed = |request: Writer| {
        let request = request.attribute(attribute::USERNAME, name.as_bytes());
        request.attribute(attribute::REALM, realm).attribute(attribute::NONCE, nonce)
    };
    let allocation = request(Method::Allocate, 2).attribute(attribute::REQUESTED_TRANSPORT, &udp);
    let channel = request(Method::ChannelBind, 3)
        .attribute(attribute::CHANNEL_NUMBER, &[0x40, 1, 0, 0])
        .address(attribute::XOR_PEER_ADDRESS, server.peer);
    for request in [allocation, channel] {
        let answer = ask(signed(request), Some(&key))?;
        if let Some(code) = Message::parse(&answer)?.error_code() {
            bail!("{turn} refuses: {code}");
        }
    }
    socket.set_nonblocking(true)?;
    Ok(socket)
}
