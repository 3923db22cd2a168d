//! `bedside bench` against a server: each scenario, at a level that any machine carries. What it
//! measures depends on the machine; that it adds up does not.

use std::io::{BufRead as _, BufReader, Read as _};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

/// Nothing here takes so long, whatever else the machine does.
const PATIENCE: Duration = Duration::from_secs(120);

/// A server that makes the rooms that tokens name.
struct Demo {
    process: Child,
    ready: Value,
}

impl Drop for Demo {
    fn drop(&mut self) {
        let _gone = self.process.kill();
        let _status = self.process.wait();
    }
}

impl Demo {
    fn start() -> Self {
        let line = "demo --json --no-bot --port 0 --media-port 0 --turn-port 0";
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
        Self { process, ready: serde_json::from_str(&ready).expect("JSON") }
    }

    fn word(&self, name: &str) -> &str {
        self.ready.get(name).and_then(Value::as_str).expect("a word")
    }

    /// One run, and its report.
    fn bench(&self, scenario: &str, levels: &str, folder: &Path) -> Value {
        let file = |kind: &str| folder.join(format!("{scenario}.{kind}")).display().to_string();
        let (json, html) = (file("json"), file("html"));
        let pid = self.process.id().to_string();
        // No bound that a slow machine breaks.
        let line =
            "--time 1s --warm-up 500ms --tries 1 --max-delay 1m --max-loss 100 --max-join 1m";
        let mut arguments = vec!["bench", scenario, "--levels", levels];
        arguments.extend(line.split_whitespace());
        arguments.extend(["--url", self.word("url"), "--server-pid", &pid, "--name", scenario]);
        arguments.extend(["--api-key", self.word("api_key")]);
        arguments.extend(["--api-secret", self.word("api_secret")]);
        arguments.extend(["--json", &json, "--html", &html]);
        let (good, words) = run(&arguments);
        assert!(good, "{words}");
        let page = std::fs::read_to_string(&html).expect("a page");
        assert!(page.contains("<svg") && page.trim_end().ends_with("</html>"));
        serde_json::from_str(&std::fs::read_to_string(&json).expect("a report")).expect("JSON")
    }
}

/// Runs the program; whether it succeeded, and what it said.
fn run(arguments: &[&str]) -> (bool, String) {
    let mut child = Command::new(env!("CARGO_BIN_EXE_bedside"))
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("it starts");
    let deadline = Instant::now() + PATIENCE;
    let status = loop {
        if let Some(status) = child.try_wait().expect("a status") {
            break status;
        }
        if Instant::now() > deadline {
            let _gone = child.kill();
            panic!("it does not end: {arguments:?}");
        }
        std::thread::sleep(Duration::from_millis(50));
    };
    // A few lines: they fit the pipes.
    let mut words = String::new();
    child.stdout.take().expect("output").read_to_string(&mut words).expect("text");
    child.stderr.take().expect("errors").read_to_string(&mut words).expect("text");
    (status.success(), words)
}

fn number(value: &Value, path: &str) -> f64 {
    let found = value.pointer(path).and_then(Value::as_f64);
    found.unwrap_or_else(|| panic!("{path} is no number in {value}"))
}

/// What holds on every machine.
fn adds_up(report: &Value, people: &[u64], listeners: &[u64]) {
    let levels = report.get("levels").and_then(Value::as_array).expect("levels");
    assert_eq!(levels.len(), people.len(), "{report}");
    for ((level, people), listeners) in levels.iter().zip(people).zip(listeners) {
        let count = |path: &str| number(level, path) as u64;
        assert_eq!(count("/people"), *people);
        let (sent, received) = (count("/sent"), count("/received"));
        assert!(sent > 0 && received > 0, "{level}");
        assert_eq!(count("/expected"), sent * listeners, "{level}");
        assert_eq!(received + count("/lost"), count("/expected"), "{level}");
        assert_eq!(count("/delay_ms/count"), received, "{level}");
        assert_eq!(count("/late_ms/count"), sent, "{level}");
        assert!(count("/repaired") <= received);
        // Nobody sends more than a browser: 50 sounds and 150 parts of pictures a second, and once
        // more what a busy machine has kept back.
        assert!(sent <= people * 200 * 2, "{level}");
        for times in ["delay_ms", "late_ms"] {
            let at = |name: &str| number(level, &format!("/{times}/{name}"));
            let row = ["p50", "p90", "p99", "p999", "max"].map(at);
            assert!(
                row.is_sorted() && row.iter().all(|ms| (0.0..60_100.0).contains(ms)),
                "{level}"
            );
        }
        assert_eq!((count("/joins/failed"), count("/joins/deaf")), (0, 0), "{level}");
        assert!(number(level, "/server/core") > 0.0 && number(level, "/tool/core") > 0.0);
        assert!(number(level, "/server/resident_bytes") > 1e6);
        assert!(number(level, "/tool/us_per_packet") > 0.0);
    }
}

#[test]
fn every_scenario_adds_up() {
    let demo = Demo::start();
    let folder = tempfile::tempdir().expect("a folder");
    let folder = folder.path();
    let report = demo.bench("consultations", "1,2", folder);
    adds_up(&report, &[2, 4], &[1, 1]);
    assert!(number(&report, "/levels/0/server/us_per_packet") > 0.0);
    assert_eq!(number(&report, "/levels/1/joins/tried") as u64, 2, "those who are there stay");
    adds_up(&demo.bench("fanout", "2", folder), &[3], &[2]);
    adds_up(&demo.bench("meeting", "3", folder), &[3], &[2]);
    adds_up(&demo.bench("audio", "1", folder), &[2], &[1]);
    let churn = demo.bench("churn", "2", folder);
    adds_up(&churn, &[10], &[1]);
    assert!((1..=4).contains(&(number(&churn, "/levels/0/joins/tried") as u64)), "{churn}");
    assert!(number(&churn, "/levels/0/joins/connected_ms/count") >= 1.0);

    let file = |name: &str| folder.join(name).display().to_string();
    let (one, page) = (file("audio.json"), file("both.html"));
    let (good, words) = run(&["bench", "compare", &one, &one, "--html", &page]);
    assert!(good && words.matches("audio").count() >= 2, "{words}");
    assert!(std::fs::read_to_string(&page).expect("a page").contains("class=\"legend\""));
    let (good, words) = run(&["bench", "compare", &one, &file("churn.json")]);
    assert!(!good && words.contains("different scenarios"), "{words}");
}

#[test]
fn what_cannot_be_measured_is_told() {
    let keys = ["--api-key", "key", "--api-secret", "a secret that is long enough, of course"];
    let bench = |url: &str, more: &[&str]| {
        let mut arguments = vec!["bench", "consultations", "--levels", "1", "--url", url];
        arguments.extend(keys);
        arguments.extend(more);
        run(&arguments)
    };
    let (good, words) = bench("https://127.0.0.1:1", &[]);
    assert!(!good && words.contains("no TLS"), "{words}");
    // Port 1 is nobody's.
    let (good, words) = bench("http://127.0.0.1:1", &[]);
    assert!(!good && words.contains("nobody could come in"), "{words}");
    let (good, words) = bench("http://127.0.0.1:1", &["--server-pid", "4294967295"]);
    assert!(!good && words.contains("--server-pid"), "{words}");
}
