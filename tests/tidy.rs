//! Rules of the tree that no compiler checks: see "Invariants" in ARCHITECTURE.md.
//!
//! Each rule has a test that finds nothing in the tree, and one that finds a planted breach.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// One file of the tree.
struct File {
    path: String,
    text: String,
}

impl File {
    fn new(path: &str, text: &str) -> Self {
        Self { path: path.to_owned(), text: text.to_owned() }
    }

    fn is_rust(&self) -> bool {
        self.path.ends_with(".rs")
    }

    fn is_test(&self) -> bool {
        self.path.split('/').any(|part| matches!(part, "tests" | "benches" | "tests.rs"))
    }

    /// The code in front of the unit tests, without comments and the text of strings, with line
    /// numbers.
    fn code(&self) -> impl Iterator<Item = (usize, String)> {
        let end = self.text.find("#[cfg(test)]\nmod ").unwrap_or(self.text.len());
        self.text.get(..end).unwrap_or_default().lines().enumerate().map(|(index, line)| {
            let bare = without_strings(line);
            (index + 1, bare.split("//").next().unwrap_or_default().to_owned())
        })
    }
}

/// A line with nothing between its quotes.
fn without_strings(line: &str) -> String {
    let (mut inside, mut escaped) = (false, false);
    let mut bare = String::with_capacity(line.len());
    for c in line.chars() {
        match c {
            '"' if !escaped => {
                inside = !inside;
                bare.push(c);
            }
            _ if !inside => bare.push(c),
            _ => {}
        }
        escaped = c == '\\' && !escaped;
    }
    bare
}

/// Every file that git knows or would add.
fn tree() -> Vec<File> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let listed = Command::new("git")
        .args(["ls-files", "--cached", "--others", "--exclude-standard", "-z"])
        .current_dir(root)
        .output()
        .expect("git lists the tree");
    assert!(listed.status.success(), "git ls-files failed: the tests need the repository");
    let names = String::from_utf8(listed.stdout).expect("paths are UTF-8");
    let paths: BTreeSet<&str> = names.split('\0').filter(|name| !name.is_empty()).collect();
    let files: Vec<File> = paths
        .into_iter()
        .filter_map(|path| {
            let text = fs::read_to_string(root.join(PathBuf::from(path))).ok()?;
            Some(File { path: path.to_owned(), text })
        })
        .collect();
    assert!(files.iter().any(|file| file.path == "src/main.rs"), "the tree was not found");
    files
}

fn assert_clean(breaches: &[String]) {
    assert!(breaches.is_empty(), "\n{}\n", breaches.join("\n"));
}

/// Lines of code that hold one of these words as a whole word.
fn find_words(files: &[&File], words: &[&str], why: &str) -> Vec<String> {
    let mut found = Vec::new();
    for file in files {
        for (number, line) in file.code() {
            for word in words.iter().filter(|word| holds_word(&line, word)) {
                found.push(format!("{}:{number}: `{word}`: {why}", file.path));
            }
        }
    }
    found
}

fn holds_word(line: &str, word: &str) -> bool {
    let part_of_name = |c: char| c.is_alphanumeric() || c == '_';
    line.match_indices(word).any(|(at, _)| {
        let before = line.get(..at).and_then(|text| text.chars().next_back());
        let after = line.get(at + word.len()..).and_then(|text| text.chars().next());
        !before.is_some_and(part_of_name) && !after.is_some_and(part_of_name)
    })
}

// ---- Invariant 1: the pure parts have no clock, socket, thread, lock or randomness ----

const PURE: [&str; 11] = [
    "sfu/src/core/",
    "turn/src/message",
    "turn/src/auth.rs",
    "turn/src/quota.rs",
    "turn/src/server",
    "signaling/src/session.rs",
    "control-plane/src/consultation",
    "control-plane/src/events/encode/rabbit",
    "control-plane/src/events/inbound",
    "control-plane/src/billing",
    "control-plane/src/placement.rs",
];

const IMPURE: [&str; 19] = [
    "Instant::now",
    "SystemTime::now",
    "Utc::now",
    "Local::now",
    "UdpSocket",
    "TcpStream",
    "TcpListener",
    "std::thread",
    "thread::spawn",
    "thread::sleep",
    "Mutex",
    "RwLock",
    "Condvar",
    "tokio",
    "async fn",
    "thread_rng",
    "OsRng",
    "SystemRandom",
    "getrandom",
];

fn impure(files: &[File]) -> Vec<String> {
    let pure: Vec<&File> = files
        .iter()
        .filter(|file| file.is_rust() && !file.is_test())
        .filter(|file| PURE.iter().any(|path| file.path.starts_with(path)))
        .collect();
    find_words(&pure, &IMPURE, "a pure part takes time and randomness as arguments")
}

#[test]
fn pure_parts_are_pure() {
    assert_clean(&impure(&tree()));
}

#[test]
fn an_impure_line_is_found() {
    let text = "//! Docs: Instant::now is fine here.\nlet now = Instant::now();\n#[cfg(test)]\nmod tests { Instant::now() }";
    assert_eq!(impure(&[File::new("sfu/src/core/room.rs", text)]).len(), 1);
    assert_eq!(impure(&[File::new("sfu/src/node/shard.rs", text)]).len(), 0);
    assert_eq!(
        impure(&[File::new("sfu/src/core/a.rs", "let x: TokioMutexes = y_tokio;")]).len(),
        0
    );
}

// ---- Invariant 2: outside names have one home ----

/// Where the parts of webrtc-rs may be named.
const WEBRTC_HOMES: [&str; 5] = [
    "sfu/src/core/peer.rs",
    "sfu/src/core/peer/",
    "sfu/src/core/ice.rs",
    "sfu/src/core/ice/",
    "sfu/src/core/test",
];

const WEBRTC: [&str; 12] = [
    "rtc_dtls",
    "rtc_sctp",
    "rtc_datachannel",
    "rtc_stun",
    "rtc_shared",
    "rtc_crypto",
    "rtc_srtp",
    "rtc_rtp",
    "rtc_rtcp",
    "rtc_sdp",
    "rtc_ice",
    "webrtc",
];

fn strayed_names(files: &[File]) -> Vec<String> {
    let code = || files.iter().filter(|file| file.is_rust() && !file.is_test());
    let outside: Vec<&File> = code()
        .filter(|file| !WEBRTC_HOMES.iter().any(|home| file.path.starts_with(home)))
        .collect();
    let mut found = find_words(&outside, &WEBRTC, "webrtc-rs lives behind sfu/src/core/peer.rs");
    let outside: Vec<&File> = code()
        .filter(|file| !file.path.starts_with("src/config/") && !file.path.ends_with("build.rs"))
        .collect();
    let environment = ["env::var", "env::vars", "env::var_os", "env::vars_os"];
    found.extend(find_words(&outside, &environment, "src/config reads the environment"));
    found
}

#[test]
fn outside_names_have_one_home() {
    assert_clean(&strayed_names(&tree()));
}

#[test]
fn a_strayed_name_is_found() {
    let stray = |path, text| strayed_names(&[File::new(path, text)]).len();
    assert_eq!(stray("sfu/src/core/room.rs", "use rtc_dtls::config;"), 1);
    assert_eq!(stray("sfu/src/core/peer/dtls.rs", "use rtc_dtls::config;"), 0);
    assert_eq!(stray("sfu/tests/interop.rs", "use webrtc::api;"), 0);
    assert_eq!(stray("signaling/src/lib.rs", "std::env::var(\"HOME\")"), 1);
    assert_eq!(stray("src/config/mod.rs", "std::env::vars()"), 0);
}

// ---- The arrows between the crates ----

/// Importer, and what it may import of ours.
const ARROWS: [(&str, &[&str]); 5] = [
    ("sfu", &[]),
    ("turn", &[]),
    ("signaling", &["bedside-sfu"]),
    ("control-plane", &["bedside-signaling"]),
    ("client", &["bedside-sfu", "bedside-turn"]),
];

fn wrong_arrows(manifest: &str, allowed: &[&str]) -> Vec<String> {
    // What only tests and benches use may come from anywhere.
    let (shipped, _) = manifest.split_once("[dev-dependencies]").unwrap_or((manifest, ""));
    shipped
        .lines()
        .filter(|line| line.starts_with("bedside-"))
        .filter_map(|line| line.split([' ', '=', '.']).next())
        .filter(|name| !allowed.contains(name))
        .map(str::to_owned)
        .collect()
}

#[test]
fn crates_import_only_along_the_arrows() {
    let files = tree();
    let mut crates = 0;
    for file in files.iter().filter(|file| file.path.ends_with("/Cargo.toml")) {
        let folder = file.path.trim_end_matches("/Cargo.toml");
        if matches!(folder, "benches" | "tests" | "tests/faults" | "tests/fuzz" | "tests/netimp") {
            continue;
        }
        let (_, allowed) = ARROWS
            .iter()
            .find(|(name, _)| *name == folder)
            .unwrap_or_else(|| panic!("{folder} is a crate that ARCHITECTURE.md does not know"));
        assert_eq!(
            wrong_arrows(&file.text, allowed),
            Vec::<String>::new(),
            "{folder} imports these"
        );
        crates += 1;
    }
    assert_eq!(crates, ARROWS.len());
}

#[test]
fn a_wrong_arrow_is_found() {
    let manifest = "[dependencies]\nbedside-sfu = { path = \"../sfu\" }\nbytes = \"1\"\n\
                    [dev-dependencies]\nbedside-client = { path = \"../client\" }\n";
    assert_eq!(wrong_arrows(manifest, &[]), ["bedside-sfu"]);
    assert!(wrong_arrows(manifest, &["bedside-sfu"]).is_empty());
}

// ---- Invariant 9: personal data is wrapped ----

/// Field names that hold what a person is called, says or signs in with.
const PERSONAL: [&str; 10] = [
    "identity",
    "display_name",
    "access_token",
    "secret",
    "api_secret",
    "password",
    "pwd_hash",
    "content",
    "email",
    "phone",
];

/// `derive(Debug)` structs with a bare `String` under such a name.
fn bare_personal_fields(file: &File) -> Vec<String> {
    let mut found = Vec::new();
    let mut shows_itself = false;
    let mut inside = false;
    for (number, line) in file.code() {
        let trimmed = line.trim();
        if trimmed.starts_with("#[derive(") {
            shows_itself = trimmed.contains("Debug");
        } else if holds_word(&line, "struct") || holds_word(&line, "enum") {
            inside = shows_itself && line.trim_end().ends_with('{');
        } else if line.starts_with('}') {
            (inside, shows_itself) = (false, false);
        } else if inside {
            let field = trimmed.trim_start_matches("pub(crate) ").trim_start_matches("pub ");
            if let Some((name, kind)) = field.split_once(':')
                && PERSONAL.contains(&name)
                && matches!(
                    kind.trim().trim_end_matches(','),
                    "String" | "Option<String>" | "Arc<str>"
                )
            {
                found.push(format!("{}:{number}: `{name}` is not Private", file.path));
            }
        }
    }
    found
}

#[test]
fn personal_data_is_wrapped() {
    let files = tree();
    let code = files.iter().filter(|file| file.is_rust() && !file.is_test());
    // The command line is the person's own terminal.
    let code = code.filter(|file| file.path != "src/cli.rs");
    assert_clean(&code.flat_map(bare_personal_fields).collect::<Vec<_>>());
}

#[test]
fn a_bare_field_is_found() {
    let bare = "#[derive(Clone, Debug)]\npub struct Person {\n    pub identity: String,\n}\n";
    assert_eq!(bare_personal_fields(&File::new("a.rs", bare)).len(), 1);
    for fine in [
        "#[derive(Clone)]\npub struct Person {\n    pub identity: String,\n}\n",
        "#[derive(Debug)]\npub struct Person {\n    pub identity: Private<String>,\n}\n",
    ] {
        assert!(bare_personal_fields(&File::new("a.rs", fine)).is_empty(), "{fine}");
    }
}

// ---- Sizes, docs, words ----

/// Lines of a file at the most.
const MAX_LINES: usize = 800;

/// Longer ones, and how long they may be. A number here only goes down.
const LONG_FILES: [(&str, usize); 0] = [];

#[test]
fn files_are_short() {
    let files = tree();
    let mut breaches = Vec::new();
    for file in files.iter().filter(|file| file.is_rust()) {
        let lines = file.text.lines().count();
        let listed = LONG_FILES.iter().find(|(path, _)| *path == file.path);
        let limit = listed.map_or(MAX_LINES, |(_, limit)| *limit);
        if lines > limit {
            breaches.push(format!("{}: {lines} lines, at most {limit}", file.path));
        }
        if listed.is_some() && lines <= MAX_LINES {
            breaches.push(format!("{}: short again, strike it from LONG_FILES", file.path));
        }
    }
    assert_clean(&breaches);
}

#[test]
fn every_file_says_what_it_is() {
    let files = tree();
    let rust = files.iter().filter(|file| file.is_rust());
    let silent: Vec<String> = rust
        .filter(|file| !file.text.trim_start().starts_with("//!"))
        .map(|file| format!("{}: begins without module docs", file.path))
        .collect();
    assert_clean(&silent);
}

/// Type names that say nothing about what the type decides.
const EMPTY_NAMES: [&str; 4] = ["Manager", "Helper", "Util", "Utils"];

fn empty_names(file: &File) -> Vec<String> {
    let mut found = Vec::new();
    for (number, line) in file.code() {
        let mut words = line.split(|c: char| !c.is_alphanumeric() && c != '_');
        while let Some(word) = words.next() {
            if matches!(word, "struct" | "enum" | "trait")
                && let Some(name) = words.next()
                && EMPTY_NAMES.iter().any(|empty| name.ends_with(empty))
            {
                found.push(format!("{}:{number}: `{name}` says nothing", file.path));
            }
        }
    }
    found
}

#[test]
fn words_we_do_not_use() {
    let files = tree();
    let code: Vec<&File> = files.iter().filter(|file| file.is_rust()).collect();
    let unfinished = [concat!("todo", "!"), concat!("unimplemented", "!")];
    let mut breaches = find_words(&code, &unfinished, "unfinished work is an issue, not code");
    breaches.extend(code.iter().flat_map(|file| empty_names(file)));
    for file in &files {
        let comment =
            |line: &str| line.contains(concat!("TO", "DO")) || line.contains(concat!("FIX", "ME"));
        let lines = file.text.lines().enumerate().filter(|(_, line)| comment(line));
        if !file.path.ends_with("package-lock.json") && !file.path.starts_with("docs/") {
            breaches.extend(lines.map(|(at, _)| format!("{}:{}: unfinished", file.path, at + 1)));
        }
    }
    assert_clean(&breaches);
}

#[test]
fn an_empty_name_is_found() {
    assert_eq!(empty_names(&File::new("a.rs", "pub struct RoomManager;")).len(), 1);
    assert_eq!(empty_names(&File::new("a.rs", "pub struct Room { a: Managers }")).len(), 0);
}

#[test]
fn no_crate_brings_openssl() {
    let lock = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.lock"))
        .expect("the lock file is in the tree");
    for name in ["openssl-sys", "openssl", "native-tls"] {
        assert!(!lock.contains(&format!("name = \"{name}\"\n")), "{name} is in Cargo.lock");
    }
}
