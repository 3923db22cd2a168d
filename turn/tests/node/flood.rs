//! A flood of requests that nobody has signed: memory stays flat, and what is answered is small.

use std::net::{Ipv4Addr, UdpSocket};
use std::time::{Duration, Instant};

use bedside_turn::message::{Class, Method, Writer, attribute};

use crate::client::Client;
use crate::{address, config, mirrored};

/// Pages of this process in memory.
fn resident_kib() -> u64 {
    let text = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = text.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// What the sockets of a flood have sent and got.
#[derive(Debug, Default)]
struct Tally {
    sent: u64,
    sent_bytes: u64,
    answers: u64,
    answer_bytes: u64,
}

impl Tally {
    fn read(&mut self, socket: &UdpSocket) {
        let mut buffer = [0; 2_048];
        while let Ok(length) = socket.recv(&mut buffer) {
            self.answers += 1;
            self.answer_bytes += length as u64;
        }
    }
}

/// Sends `per_second` requests from ever new ports of many addresses.
fn flood(per_second: u32, lasting: Duration) {
    let mut config = config();
    config.quotas.strangers_per_second = 10;
    let (node, mirror) = mirrored(config);
    node.allow("ann");
    let server = node.local()[0];
    let mut friend = Client::udp(server, "ann");
    friend.allocate().unwrap();
    let (mut tally, mut random) = (Tally::default(), 1_u64);
    let (start, mut before, mut peak) = (Instant::now(), None, 0);
    while start.elapsed() < lasting {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695);
        let [_, _, a, b, c, ..] = (random >> 16).to_be_bytes().map(|byte| byte.clamp(1, 254));
        // A new port for each ten, and one address for a tenth of all.
        let ip = if a < 25 { Ipv4Addr::new(127, 9, 9, 9) } else { Ipv4Addr::new(127, a, b, c) };
        let socket = UdpSocket::bind((ip, 0)).unwrap();
        socket.set_nonblocking(true).unwrap();
        socket.connect(server).unwrap();
        for number in 0..10_u8 {
            let request = match number % 5 {
                0 => Writer::new(Method::Binding, Class::Request, [number; 12]).finish(),
                1 => Writer::new(Method::Refresh, Class::Request, [number; 12]).finish(),
                _ => Writer::new(Method::Allocate, Class::Request, [number; 12])
                    .attribute(attribute::REQUESTED_TRANSPORT, &[17, 0, 0, 0])
                    .finish(),
            };
            tally.sent += 1;
            tally.sent_bytes += request.len() as u64;
            let _ = socket.send(&request);
        }
        let due = Duration::from_secs_f64(tally.sent as f64 / f64::from(per_second));
        std::thread::sleep(due.saturating_sub(start.elapsed()));
        tally.read(&socket);
        if tally.sent % 1_000 == 0 {
            let now = resident_kib();
            // What a process takes once, it has taken by then.
            let begin = *before.get_or_insert(now);
            peak = peak.max(now.saturating_sub(begin));
        }
    }
    let rate = tally.sent as f64 / start.elapsed().as_secs_f64();
    let ratio = tally.answer_bytes as f64 / tally.sent_bytes as f64;
    println!("{rate:.0} requests/s, {tally:?}, {ratio:.2} : 1, memory +{peak} KiB at the most");
    println!("{:?}", node.counters());
    assert!(tally.answers > 0, "somebody is answered");
    assert!(ratio <= 2.5, "{ratio}");
    assert!(peak <= 16 << 10, "memory grew by {peak} KiB");
    friend.permit(address(crate::PEER)).unwrap();
    friend.send(address(crate::PEER), b"still here");
    assert!(friend.wire.receive(Duration::from_secs(30)).is_some());
    assert_eq!(mirror.seen.lock().unwrap().len(), 1);
}

#[test]
fn strangers_cost_no_memory() {
    // In a process of its own: others take memory, too.
    let output = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--ignored", "--exact", "--nocapture", "flood::a_short_flood_alone"])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    print!("{said}");
    let why = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.contains("1 passed"), "{said}{why}");
}

#[test]
#[ignore = "started by the test above"]
fn a_short_flood_alone() {
    flood(10_000, Duration::from_secs(4));
}

/// `cargo test --release -p bedside-turn --test node -- --ignored --nocapture minute`.
#[test]
#[ignore = "a minute; the short one runs always"]
fn strangers_cost_no_memory_for_a_minute() {
    flood(10_000, Duration::from_secs(60));
}
