//! Clients that are slow on purpose, or say nothing at all: everybody else is served, and when they
//! are gone nothing of them is left.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use serde_json::Value;

/// Nothing here takes so long, whatever else the machine does.
const PATIENCE: Duration = Duration::from_secs(120);
/// Connections that say nothing.
const SILENT: usize = 2_000;
/// Descriptors that come and go by themselves: the database's, and those of the one who looks.
const SLACK: usize = 8;

/// A demo with a port for HTTP and one for TLS.
struct Demo {
    process: Child,
    http: SocketAddr,
    tls: SocketAddr,
}

impl Drop for Demo {
    fn drop(&mut self) {
        let _gone = self.process.kill();
        let _status = self.process.wait();
    }
}

impl Demo {
    fn start() -> Self {
        let line = "demo --json --no-bot --port 0 --media-port 0 --tls-port 0";
        let mut process = Command::new(env!("CARGO_BIN_EXE_bedside"))
            .args(line.split_whitespace())
            .env("BEDSIDE_LOG__FILTER", "warn")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .expect("the demo starts");
        let mut ready = String::new();
        let out = process.stdout.take().expect("its output");
        BufReader::new(out).read_line(&mut ready).expect("a line");
        let ready: Value = serde_json::from_str(&ready).expect("JSON");
        let address = |name: &str| {
            let url = ready.get(name).and_then(Value::as_str).expect("an address");
            let port = url.rsplit(':').next().expect("a port").parse().expect("a number");
            SocketAddr::from(([127, 0, 0, 1], port))
        };
        Self { http: address("url"), tls: address("tls_url"), process }
    }

    fn descriptors(&self) -> usize {
        let folder = format!("/proc/{}/fd", self.process.id());
        std::fs::read_dir(folder).expect("its descriptors").count()
    }

    /// How long an answer about its health takes. Harm and question come from one address: when that
    /// has too many connections, ours may be the one that makes way, and asks again.
    fn health(&self) -> Duration {
        let start = Instant::now();
        let mut answer = self.asked();
        for _ in 0..5 {
            if answer.is_ok() {
                break;
            }
            answer = self.asked();
        }
        let answer = answer.expect("an answer");
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        start.elapsed()
    }

    fn asked(&self) -> std::io::Result<String> {
        let mut stream = TcpStream::connect(self.http)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.write_all(b"GET /livez HTTP/1.1\r\nhost: here\r\nconnection: close\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    }

    /// Does something and asks for its health all the while; then nothing of it may be left.
    #[expect(clippy::print_stdout, reason = "how long answers take is told, not judged")]
    fn bears(&self, what: &str, harm: impl FnOnce()) {
        let before = self.descriptors();
        let over = AtomicBool::new(false);
        let mut took = std::thread::scope(|scope| {
            let asking = scope.spawn(|| {
                let mut took = vec![self.health()];
                while !over.load(Ordering::Relaxed) {
                    took.push(self.health());
                    std::thread::sleep(Duration::from_millis(50));
                }
                took
            });
            harm();
            over.store(true, Ordering::Relaxed);
            asking.join().expect("every answer came")
        });
        took.sort_unstable();
        let (median, most) = (took.get(took.len() / 2), took.last());
        println!("{what}: {} answers, median {median:?}, the slowest {most:?}", took.len());
        let start = Instant::now();
        while self.descriptors() > before + SLACK {
            assert!(start.elapsed() < PATIENCE, "{} and not {before}", self.descriptors());
            std::thread::sleep(Duration::from_millis(100));
        }
    }
}

/// Opens connections, and waits until the other side has had enough of them.
fn silence(addresses: [SocketAddr; 2]) {
    let open = |number: usize| {
        let address = addresses.get(number % 2).expect("one of both");
        let stream = TcpStream::connect(address).expect("a connection");
        stream.set_read_timeout(Some(PATIENCE)).expect("a limit");
        stream
    };
    let streams: Vec<TcpStream> = (0..SILENT).map(open).collect();
    for mut stream in streams {
        // Nothing, or an error because it was cut.
        assert_eq!(stream.read(&mut [0]).unwrap_or(0), 0);
    }
}

fn slowhttptest(url: &str, mode: &str) {
    let line = format!("-c 300 -r 300 -l 15 -p 5 -u {url} {mode}");
    let done = Command::new("slowhttptest")
        .args(line.split_whitespace())
        .stdin(Stdio::null())
        .output()
        .expect("slowhttptest is missing: Debian's package of this name");
    let told = String::from_utf8_lossy(&done.stdout);
    // Whether it got its answers in time is not asked: that depends on the machine.
    assert!(told.contains("service available:"), "{told}");
}

#[test]
fn the_slow_and_the_silent_harm_nobody() {
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE).expect("a limit");
    setrlimit(Resource::RLIMIT_NOFILE, most.min(65_536), most).expect("as many files as we may");
    let demo = Demo::start();
    let (http, tls) = (format!("http://{}", demo.http), format!("https://{}", demo.tls));
    // It has opened what it opens once.
    demo.health();
    demo.bears("2,000 silent connections", || silence([demo.http, demo.tls]));
    demo.bears("slow heads, bodies and readers", || {
        std::thread::scope(|scope| {
            let exchange = format!("{http}/api/v1/consultations/links/exchange");
            scope.spawn(|| slowhttptest(&http, "-H -i 2 -x 24"));
            scope.spawn(|| slowhttptest(&tls, "-H -i 2 -x 24"));
            scope.spawn(move || slowhttptest(&exchange, "-B -i 2 -s 200 -x 10 -t POST"));
            scope.spawn(|| slowhttptest(&http, "-X -w 512 -y 1024 -n 3 -z 32 -k 3"));
        });
    });
}
