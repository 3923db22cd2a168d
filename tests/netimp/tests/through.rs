//! Real packets through a real network. Needs root, so it is asked for by name:
//! `cargo test -p bedside-netimp -- --ignored`, or `scripts/test namespace`.

#![allow(clippy::indexing_slicing, clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use nix::sched::{CloneFlags, setns};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

const BINARY: &str = env!("CARGO_BIN_EXE_bedside-netimp");

/// A network of one test: namespaces and addresses of its own.
struct Network {
    child: Child,
    near: String,
    far: String,
    number: u8,
    summary: PathBuf,
    _folder: tempfile::TempDir,
}

impl Network {
    fn start(number: u8, seed: u64, profile: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("test.toml");
        std::fs::write(&path, profile).unwrap();
        let summary = folder.path().join("summary.json");
        let (near, far) = (format!("imp-near-{number}"), format!("imp-far-{number}"));
        let mut child = Command::new(BINARY)
            .args(["--profile", path.to_str().unwrap(), "--seed", &seed.to_string()])
            .args(["--near", &near, "--far", &far, "--create"])
            .args(["--number", &number.to_string(), "--summary", summary.to_str().unwrap()])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let ready: Value = serde_json::from_str(&line).expect("it says when it is ready");
        assert_eq!(ready["near"]["namespace"], near.as_str());
        Self { child, near, far, number, summary, _folder: folder }
    }

    /// Runs something in one of the namespaces, on a thread of its own.
    fn inside<T: Send + 'static>(
        namespace: &str,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> thread::JoinHandle<T> {
        let path = format!("/run/netns/{namespace}");
        thread::spawn(move || {
            setns(File::open(path).unwrap(), CloneFlags::CLONE_NEWNET).unwrap();
            work()
        })
    }

    fn far_address(&self, port: u16) -> String {
        format!("10.77.{}.1:{port}", self.number * 2)
    }

    /// Ends it and gives the sums.
    fn stop(mut self) -> Value {
        kill(Pid::from_raw(self.child.id() as i32), Signal::SIGTERM).unwrap();
        assert!(self.child.wait().unwrap().success());
        assert!(!exists(&self.near) && !exists(&self.far), "a namespace was left");
        serde_json::from_slice(&std::fs::read(&self.summary).unwrap()).unwrap()
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        let _ = kill(Pid::from_raw(self.child.id() as i32), Signal::SIGTERM);
        drop(self.child.wait());
    }
}

fn exists(namespace: &str) -> bool {
    PathBuf::from(format!("/run/netns/{namespace}")).exists()
}

/// A socket in the far namespace that is bound when this returns.
fn echo(network: &Network, address: &'static str) -> thread::JoinHandle<BTreeSet<u32>> {
    let (sender, bound) = std::sync::mpsc::channel();
    let handle = Network::inside(&network.far, move || {
        let socket = UdpSocket::bind(address).unwrap();
        socket.set_read_timeout(Some(Duration::from_millis(1500))).unwrap();
        sender.send(()).unwrap();
        let mut seen = BTreeSet::new();
        let mut buffer = [0; 2000];
        while let Ok((length, from)) = socket.recv_from(&mut buffer) {
            seen.insert(u32::from_be_bytes(buffer[..4].try_into().unwrap()));
            socket.send_to(&buffer[..length], from).unwrap();
        }
        seen
    });
    bound.recv().unwrap();
    handle
}

/// Numbers of the datagrams that came through.
fn through(number: u8, seed: u64) -> BTreeSet<u32> {
    let network = Network::start(number, seed, "[both]\nloss_percent = 20\ndelay_ms = 5");
    let server = echo(&network, "0.0.0.0:7000");
    let to = network.far_address(7000);
    // The socket stays open: a closed one would answer the echoes with errors, which are traffic.
    let _open = Network::inside(&network.near, move || {
        let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
        for n in 0..1000_u32 {
            socket.send_to(&n.to_be_bytes(), &to).unwrap();
            thread::sleep(Duration::from_micros(300));
        }
        socket
    })
    .join()
    .unwrap();
    let seen = server.join().unwrap();
    let sums = network.stop();
    assert_eq!(sums["links"][0]["up"]["packets"], 1000);
    assert_eq!(sums["links"][0]["up"]["lost"], 1000 - seen.len());
    seen
}

#[test]
#[ignore = "needs root"]
fn the_same_seed_loses_the_same_datagrams() {
    let first = through(10, 5);
    assert!((750..=850).contains(&first.len()), "{}", first.len());
    assert_eq!(first, through(10, 5));
    assert_ne!(first, through(10, 6));
}

#[test]
#[ignore = "needs root"]
fn both_ip_versions_are_delayed() {
    let network = Network::start(11, 1, "[both]\ndelay_ms = 50\njitter_ms = 3");
    for (bind, own, to) in [
        ("0.0.0.0:7000", "0.0.0.0:0", network.far_address(7000)),
        ("[::]:7001", "[::]:0", format!("[fd77:0:0:{:x}::1]:7001", 22)),
    ] {
        let server = echo(&network, bind);
        let trip = Network::inside(&network.near, move || {
            let socket = UdpSocket::bind(own).unwrap();
            socket.set_read_timeout(Some(Duration::from_secs(3))).unwrap();
            let start = Instant::now();
            socket.send_to(&[0, 0, 0, 7], &to).unwrap();
            socket.recv(&mut [0; 9]).unwrap();
            start.elapsed()
        });
        let trip = trip.join().unwrap().as_millis();
        assert!((94..200).contains(&trip), "{bind}: {trip} ms");
        assert_eq!(server.join().unwrap(), BTreeSet::from([7]));
    }
    network.stop();
}

#[test]
#[ignore = "needs root"]
fn a_stream_takes_the_time_that_the_rate_gives() {
    let network = Network::start(12, 1, "[both]\nrate_kbit = 1000\nqueue_ms = 200\ndelay_ms = 10");
    let (sender, bound) = std::sync::mpsc::channel();
    let server = Network::inside(&network.far, move || {
        let listener = TcpListener::bind("0.0.0.0:7000").unwrap();
        sender.send(()).unwrap();
        let (mut stream, _) = listener.accept().unwrap();
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes).unwrap();
        bytes.len()
    });
    bound.recv().unwrap();
    let to = network.far_address(7000);
    let start = Instant::now();
    Network::inside(&network.near, move || {
        TcpStream::connect(to).unwrap().write_all(&[7; 200_000]).unwrap();
    });
    assert_eq!(server.join().unwrap(), 200_000);
    let seconds = start.elapsed().as_secs_f64();
    // 1.6 Mbit and the headers at 1 Mbit/s; a dropped window may cost a little.
    assert!((1.6..4.0).contains(&seconds), "{seconds}");
    network.stop();
}

#[test]
#[ignore = "needs root"]
fn the_near_side_gets_another_address() {
    let network = Network::start(13, 1, "swap_at_s = 0.5\n[both]\ndelay_ms = 1");
    let server = echo(&network, "0.0.0.0:7000");
    let to = network.far_address(7000);
    let own = Network::inside(&network.near, move || {
        let own = || {
            let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
            socket.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
            socket.connect(&to).unwrap();
            socket.send(&[0, 0, 0, 1]).unwrap();
            socket.recv(&mut [0; 9]).unwrap();
            socket.local_addr().unwrap().ip().to_string()
        };
        let before = own();
        thread::sleep(Duration::from_millis(800));
        (before, own())
    });
    assert_eq!(own.join().unwrap(), ("10.77.26.2".to_owned(), "10.77.27.2".to_owned()));
    server.join().unwrap();
    network.stop();
}

#[test]
#[ignore = "needs root"]
fn nothing_is_left_when_the_parent_dies() {
    let profile = concat!(env!("CARGO_MANIFEST_DIR"), "/profiles/good.toml");
    let script = format!(
        "{BINARY} --profile {profile} --near imp-orphan --create --number 14 --summary /dev/null & wait"
    );
    let mut parent =
        Command::new("sh").args(["-c", &script]).stdout(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(parent.stdout.take().unwrap()).read_line(&mut line).unwrap();
    assert!(exists("imp-orphan"));
    parent.kill().unwrap();
    parent.wait().unwrap();
    let end = Instant::now() + Duration::from_secs(5);
    while exists("imp-orphan") {
        assert!(Instant::now() < end, "the namespace outlived its makers");
        thread::sleep(Duration::from_millis(50));
    }
}
