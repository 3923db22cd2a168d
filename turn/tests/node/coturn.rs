//! coturn's own client tools against the node with real relay sockets, on loopback: nothing may be
//! lost. They come with Debian's package `coturn`; `scripts/test` installs it.

use std::net::{SocketAddr, UdpSocket};
use std::process::{Child, Command, Output, Stdio};
use std::sync::Arc;
use std::time::SystemTime;

use bedside_turn::{Config, Node, Transport, credential};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};

use crate::{address, config, secret, sockets};

/// Echoes what it gets.
struct Peer {
    child: Child,
    at: SocketAddr,
}

impl Peer {
    fn start() -> Self {
        let free = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let child = Command::new("turnutils_peer")
            .args(["-L", "127.0.0.1", "-p", &free.port().to_string()])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("turnutils_peer of Debian's package coturn");
        Self { child, at: free }
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Many clients share one address and one name here.
fn crowded() -> Config {
    let mut config = config();
    config.relayed = vec![address("127.0.0.1:0").ip()];
    // Above those that the system gives to others.
    config.ports = 61_000..=65_535;
    let quotas = &mut config.quotas;
    quotas.allocations_of_participant = 2_000;
    quotas.allocations_from_address = 2_000;
    quotas.strangers_per_second = 10_000;
    quotas.streams_from_address = 4_000;
    config
}

/// Runs the client tool in a thread of its own, which may wait.
async fn tool(name: &'static str, arguments: Vec<String>) -> Output {
    let run = move || Command::new(name).args(&arguments).output();
    let output = tokio::task::spawn_blocking(run).await.unwrap();
    output.unwrap_or_else(|error| panic!("{name} of Debian's package coturn: {error}"))
}

/// How many messages were sent, got back and lost.
fn counts(output: &Output) -> (u64, u64, u64) {
    let text = String::from_utf8_lossy(&output.stdout);
    let after = |line: &str, word: &str| -> Option<u64> {
        let rest = line.split_once(word)?.1.trim_start_matches([' ', '=', ':']);
        rest.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
    };
    let last = |word: &str| text.lines().filter_map(|line| after(line, word)).next_back();
    let found = (last("tot_send_msgs="), last("tot_recv_msgs="), last("Total lost packets"));
    let (Some(sent), Some(received), Some(lost)) = found else {
        panic!("{text}{}", String::from_utf8_lossy(&output.stderr));
    };
    (sent, received, lost)
}

/// Where the tool finds the server, and how it is told.
struct Door {
    port: u16,
    flags: &'static [&'static str],
}

/// UDP, TCP and TLS.
async fn doors(node: &Node) -> [Door; 3] {
    let udp = Door { port: node.local()[0].port(), flags: &[] };
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let tcp = Door { port: listener.local_addr().unwrap().port(), flags: &["-t"] };
    let streams = node.streams();
    tokio::spawn(async move { streams.listen(listener).await });
    let tls = Door { port: listen_tls(node).await, flags: &["-t", "-S"] };
    [udp, tcp, tls]
}

async fn listen_tls(node: &Node) -> u16 {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(made.signing_key.serialize_der()));
    let provider = Arc::new(tokio_rustls::rustls::crypto::aws_lc_rs::default_provider());
    let server = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key)
        .unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(server));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let local = listener.local_addr().unwrap();
    let streams = node.streams();
    tokio::spawn(async move {
        while let Ok((stream, client)) = listener.accept().await {
            let (acceptor, streams) = (acceptor.clone(), streams.clone());
            let _ = stream.set_nodelay(true);
            tokio::spawn(async move {
                let Ok(stream) = acceptor.accept(stream).await else { return };
                streams.serve(stream, client, local, Transport::Tls).await;
            });
        }
    });
    local.port()
}

/// `clients` × `messages` through each door, by channels and by indications, `at_once` of these six.
async fn nothing_is_lost(clients: u64, messages: u64, at_once: usize, more: &[&str]) {
    // A machine that stands still for a second loses datagrams in the kernel's buffers, between
    // tool, server and peer. A server that loses some does so each time.
    for _ in 0..3 {
        if relays_all(clients, messages, at_once, more).await {
            return;
        }
    }
    panic!("messages are lost each time");
}

/// Says whether every message came back.
async fn relays_all(clients: u64, messages: u64, at_once: usize, more: &[&str]) -> bool {
    let peer = Peer::start();
    // The tool's second flow goes to the port behind.
    let second = SocketAddr::new(peer.at.ip(), peer.at.port() + 1);
    let node = sockets::start(crowded(), vec![peer.at, second]);
    node.allow("tool");
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
    let (user, password) = credential(&secret(), "tool", now.as_secs() + 3_600);
    let mut running = Vec::new();
    let places = Arc::new(Semaphore::new(at_once));
    for door in doors(&node).await {
        for way in [&[][..], &["-s"]] {
            let mut arguments: Vec<String> = ["-e", "127.0.0.1", "-r", &peer.at.port().to_string()]
                .into_iter()
                .chain(["-p", &door.port.to_string(), "-u", &user, "-w", &password])
                .chain(["-m", &clients.to_string(), "-n", &messages.to_string()])
                .map(str::to_owned)
                .collect();
            let flags = door.flags.iter().chain(way).chain(more);
            arguments.extend(flags.map(|flag| (*flag).to_owned()));
            arguments.push("127.0.0.1".to_owned());
            let places = Arc::clone(&places);
            let run = async move {
                let _place = places.acquire().await;
                tool("turnutils_uclient", arguments).await
            };
            running.push((door.flags, way, tokio::spawn(run)));
        }
    }
    let mut all = true;
    for (flags, way, output) in running {
        let (sent, received, lost) = counts(&output.await.unwrap());
        println!("{flags:?} {way:?} {more:?}: {sent} sent, {received} back, {lost} lost");
        let want = clients * messages;
        all &= (sent, received, lost) == (want, want, 0);
    }
    let counters = node.counters();
    println!("{counters:?}");
    all && (counters.dropped, counters.send_failures) == (0, 0)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_message_of_turnutils_uclient_is_lost() {
    // The tool counts in pairs.
    nothing_is_lost(4, 50, 6, &["-l", "170", "-D"]).await;
    nothing_is_lost(2, 20, 6, &["-l", "1171", "-c", "-g"]).await;
}

/// Some minutes: `cargo test -p bedside-turn --test node -- --ignored --nocapture uclient`.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "long; the short one runs always"]
async fn no_message_of_fifty_turnutils_uclients_is_lost() {
    nothing_is_lost(50, 500, 1, &["-l", "170"]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn turnutils_natdiscovery_and_stunclient_see_their_address() {
    let node = sockets::start(crowded(), vec![address("127.0.0.1:9")]);
    let port = node.local()[0].port().to_string();
    for name in ["turnutils_natdiscovery", "turnutils_stunclient"] {
        let mut arguments = vec!["-p", &port, "-L", "127.0.0.1", "127.0.0.1"];
        if name == "turnutils_natdiscovery" {
            arguments.insert(0, "-m");
        }
        let output = tool(name, arguments.into_iter().map(str::to_owned).collect()).await;
        let text = String::from_utf8_lossy(&output.stdout).into_owned()
            + &String::from_utf8_lossy(&output.stderr);
        println!("{name}: {text}");
        assert!(text.contains("127.0.0.1:"), "{name}: {text}");
    }
}
