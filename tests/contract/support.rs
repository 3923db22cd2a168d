//! A server process, a small HTTP client and a WebSocket.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::{self, Message, WebSocket};

/// Long enough for a machine that builds something else at the same time.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) const KEY: &str = "clinic";
pub(crate) const SECRET: &str = "0123456789abcdef0123456789abcdef";

/// The binary, with nothing of the tester's own settings.
pub(crate) fn bedside(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_bedside"));
    command.args(arguments).env_clear().current_dir(std::env::temp_dir()).stdin(Stdio::null());
    command
}

/// Runs a command that ends by itself.
pub(crate) fn run(arguments: &[&str], variables: &[(&str, &str)]) -> Output {
    bedside(arguments).envs(variables.iter().copied()).output().unwrap()
}

pub(crate) fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

pub(crate) fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

/// A server, killed and swept away at the end of its test.
pub(crate) struct Server {
    pub(crate) child: Child,
    pub(crate) address: SocketAddr,
    /// What `--json` printed; null for `serve`.
    pub(crate) ready: Value,
    pub(crate) folder: TempDir,
    keys: (String, String),
    log: Arc<Mutex<String>>,
}

impl Server {
    /// A demo without its synthetic patient.
    pub(crate) fn demo(arguments: &[&str], variables: &[(&str, &str)]) -> Self {
        let mut all = vec!["demo", "--json", "--no-bot", "--port", "0"];
        if !arguments.contains(&"--media-port") {
            all.extend(["--media-port", "0"]);
        }
        all.extend(arguments);
        let folder = tempfile::tempdir().unwrap();
        let (child, mut lines, log) = spawn(&all, variables, &folder);
        let mut line = String::new();
        lines.read_line(&mut line).unwrap();
        let ready: Value = serde_json::from_str(&line)
            .unwrap_or_else(|_| panic!("no JSON but {line:?}; {}", log.lock().unwrap()));
        let text = |key: &str| ready[key].as_str().unwrap().to_owned();
        let port = text("url").rsplit(':').next().unwrap().parse().unwrap();
        let keys = (text("api_key"), text("api_secret"));
        Self { child, address: ([127, 0, 0, 1], port).into(), ready, folder, keys, log }
    }

    /// A server with keys of its own and a database in its folder.
    pub(crate) fn serve(variables: &[(&str, &str)]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let database = format!("sqlite:{}", folder.path().join("clinic.db").display());
        let mut all = vec![
            ("BEDSIDE_API_KEY", KEY),
            ("BEDSIDE_API_SECRET", SECRET),
            ("BEDSIDE_HTTP__LISTEN", "127.0.0.1:0"),
            ("BEDSIDE_MEDIA__BIND", "127.0.0.1"),
            ("BEDSIDE_MEDIA__PORT", "0"),
            ("BEDSIDE_TURN__PORT", "0"),
            ("DATABASE_URL", &database),
        ];
        all.extend(variables);
        let (child, _, log) = spawn(&["serve"], &all, &folder);
        let keys = (KEY.to_owned(), SECRET.to_owned());
        let address = ([127, 0, 0, 1], 0).into();
        let mut server = Self { child, address, ready: Value::Null, folder, keys, log };
        let line = server.wait_for_log("bound http=");
        let at = line.split("bound http=").nth(1).unwrap().split(' ').next().unwrap();
        server.address = at.parse().unwrap();
        server.wait_for_log("ready");
        server
    }

    /// What the demo says of TURN.
    pub(crate) fn turn_urls(&self) -> Vec<String> {
        serde_json::from_value(self.ready["turn_urls"].clone()).unwrap()
    }

    pub(crate) fn log(&self) -> String {
        self.log.lock().unwrap().clone()
    }

    /// The first line of the log with this text in it.
    pub(crate) fn wait_for_log(&self, text: &str) -> String {
        until(|| self.log().lines().find(|line| line.contains(text)).map(str::to_owned))
            .unwrap_or_else(|| panic!("{text:?} was never logged: {}", self.log()))
    }

    pub(crate) fn signal(&self, name: &str) {
        // By the system call: a small installation has no `kill` program.
        let id = Pid::from_raw(self.child.id().try_into().unwrap());
        kill(id, format!("SIG{name}").parse::<Signal>().unwrap()).unwrap();
    }

    /// How and when the process ended.
    pub(crate) fn ended(&mut self) -> (ExitStatus, Duration) {
        let start = Instant::now();
        let status = until(|| self.child.try_wait().unwrap());
        (status.unwrap_or_else(|| panic!("still running: {}", self.log())), start.elapsed())
    }

    /// `bedside token …`, signed with this server's keys.
    fn mint(&self, arguments: &[&str]) -> String {
        let (key, secret) = &self.keys;
        let variables = [("BEDSIDE_API_KEY", key.as_str()), ("BEDSIDE_API_SECRET", secret)];
        let output = run(&[&["token"], arguments].concat(), &variables);
        assert!(output.status.success(), "{}", stderr(&output));
        stdout(&output).trim().to_owned()
    }

    pub(crate) fn api_token(&self, role: &str, user: &str) -> String {
        self.mint(&["api", "--role", role, "--user", user])
    }

    pub(crate) fn api_token_of(&self, clinic: &str, role: &str, user: &str) -> String {
        self.mint(&["api", "--role", role, "--user", user, "--clinic", clinic])
    }

    pub(crate) fn room_token(&self, room: &str, identity: &str) -> String {
        self.mint(&["room", "--room", room, "--identity", identity, "--name", "Somebody"])
    }

    /// A request with or without a bearer token and a body.
    pub(crate) fn ask(&self, method: &str, path: &str, token: &str, body: Value) -> Answer {
        let bearer = format!("Bearer {token}");
        let headers: &[(&str, &str)] =
            if token.is_empty() { &[] } else { &[("authorization", &bearer)] };
        let body = if body.is_null() { String::new() } else { body.to_string() };
        self.request(method, path, headers, &body)
    }

    pub(crate) fn get(&self, path: &str) -> Answer {
        self.request("GET", path, &[], "")
    }

    pub(crate) fn request(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &str,
    ) -> Answer {
        let mut text =
            format!("{method} {path} HTTP/1.1\r\nhost: {}\r\nconnection: close\r\n", self.address);
        for (name, value) in headers {
            text += &format!("{name}: {value}\r\n");
        }
        if !body.is_empty() {
            text += "content-type: application/json\r\n";
        }
        text += &format!("content-length: {}\r\n\r\n{body}", body.len());
        let mut stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.write_all(text.as_bytes()).unwrap();
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes).unwrap();
        Answer::parse(&String::from_utf8_lossy(&bytes))
    }

    /// A consultation of doctor `dr` and patient `pat`, and its id and room.
    pub(crate) fn consultation(&self, more: Value) -> (String, String) {
        let mut body = json!({"doctorId": "dr", "patientId": "pat", "consultationMode": "VIDEO"});
        for (key, value) in more.as_object().into_iter().flatten() {
            body[key] = value.clone();
        }
        let service = self.api_token("service", "booking");
        let made = self.ask("POST", SESSIONS, &service, body);
        assert_eq!(made.status, 201, "{}", made.body);
        let session = made.json();
        (text(&session["sessionId"]), text(&session["roomName"]))
    }

    /// `POST …/{id}/{what}`.
    pub(crate) fn act(&self, id: &str, what: &str, token: &str, body: Value) -> Answer {
        self.ask("POST", &format!("{SESSIONS}/{id}/{what}"), token, body)
    }

    /// A consultation channel; the token is its first frame.
    pub(crate) fn channel(&self, path: &str, token: &str) -> Channel {
        let mut channel = self.silent_channel(path);
        channel.say(&json!({"type": "AUTH", "payload": {"token": token}}));
        channel
    }

    pub(crate) fn silent_channel(&self, path: &str) -> Channel {
        self.try_channel(path).unwrap()
    }

    #[allow(clippy::result_large_err, reason = "the library's error")]
    pub(crate) fn try_channel(&self, path: &str) -> Result<Channel, tungstenite::Error> {
        let stream = TcpStream::connect(self.address)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let request = format!("ws://{}{path}", self.address).into_client_request()?;
        match tungstenite::client(request, stream) {
            Ok((socket, _)) => Ok(Channel(socket)),
            Err(tungstenite::HandshakeError::Failure(error)) => Err(error),
            Err(tungstenite::HandshakeError::Interrupted(_)) => panic!("the upgrade took too long"),
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _gone = self.child.kill();
        let _reaped = self.child.wait();
    }
}

pub(crate) const SESSIONS: &str = "/api/v1/consultations/sessions";

type Lines = BufReader<std::process::ChildStdout>;

fn spawn(
    arguments: &[&str],
    variables: &[(&str, &str)],
    folder: &TempDir,
) -> (Child, Lines, Arc<Mutex<String>>) {
    let mut child = bedside(arguments)
        .env("TMPDIR", folder.path())
        .envs(variables.iter().copied())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let log = Arc::new(Mutex::new(String::new()));
    let (lines, kept) = (BufReader::new(child.stderr.take().unwrap()), Arc::clone(&log));
    std::thread::spawn(move || {
        for line in lines.lines().map_while(Result::ok) {
            let mut log = kept.lock().unwrap();
            log.push_str(&line);
            log.push('\n');
        }
    });
    let lines = BufReader::new(child.stdout.take().unwrap());
    (child, lines, log)
}

/// Asks until there is an answer, or until nobody would wait any longer.
pub(crate) fn until<T>(mut ask: impl FnMut() -> Option<T>) -> Option<T> {
    let start = Instant::now();
    while start.elapsed() < PATIENCE {
        if let Some(answer) = ask() {
            return Some(answer);
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    None
}

/// An HTTP answer.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) body: String,
    headers: Vec<(String, String)>,
}

impl Answer {
    fn parse(text: &str) -> Self {
        let (head, body) = text.split_once("\r\n\r\n").unwrap_or((text, ""));
        let mut lines = head.lines();
        let status = lines.next().and_then(|line| line.split(' ').nth(1)?.parse().ok());
        let headers = lines.filter_map(|line| line.split_once(": "));
        Self {
            status: status.unwrap_or_else(|| panic!("no HTTP: {text:?}")),
            headers: headers.map(|(name, value)| (name.to_lowercase(), value.into())).collect(),
            body: body.to_owned(),
        }
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|_| panic!("no JSON: {self:?}"))
    }

    /// An error of the API: this status, with a body that says so.
    pub(crate) fn is_problem(&self, status: u16) {
        assert_eq!(self.status, status, "{self:?}");
        assert_eq!(self.header("content-type"), Some("application/problem+json"), "{self:?}");
        let body = self.json();
        assert_eq!(keys(&body), ["code", "detail", "status", "title", "type"]);
        assert_eq!(body["status"], status);
    }
}

/// A WebSocket.
pub(crate) struct Channel(WebSocket<TcpStream>);

impl Channel {
    pub(crate) fn say(&mut self, frame: &Value) {
        self.0.send(Message::text(frame.to_string())).unwrap();
    }

    pub(crate) fn say_raw(&mut self, message: Message) {
        self.0.send(message).unwrap();
    }

    #[allow(clippy::result_large_err, reason = "the library's error")]
    fn read(&mut self) -> tungstenite::Result<Message> {
        loop {
            match self.0.read() {
                // A read with a time limit is not taken up again by itself.
                Err(tungstenite::Error::Io(error))
                    if error.kind() == std::io::ErrorKind::Interrupted => {}
                read => return read,
            }
        }
    }

    /// The next frame.
    pub(crate) fn hear(&mut self) -> Value {
        let start = Instant::now();
        loop {
            // Pings keep the line from falling silent.
            assert!(start.elapsed() < PATIENCE, "nothing was said");
            match self.read().unwrap() {
                Message::Text(text) => return serde_json::from_str(&text).unwrap(),
                Message::Ping(_) | Message::Pong(_) => {}
                other => panic!("not a frame: {other:?}"),
            }
        }
    }

    /// The payload of the next frame of this type; others before it are passed over.
    pub(crate) fn hear_of(&mut self, kind: &str) -> Value {
        loop {
            let frame = self.hear();
            assert_eq!(keys(&frame), ["payload", "type"]);
            if frame["type"] == kind {
                return frame["payload"].clone();
            }
        }
    }

    /// The code it is closed with, whatever comes before that.
    pub(crate) fn close_code(&mut self) -> u16 {
        loop {
            if let Message::Close(frame) = self.read().unwrap() {
                return frame.unwrap().code.into();
            }
        }
    }

    /// Reads until the other side has gone, in whatever way.
    pub(crate) fn outlive(&mut self) {
        while self.read().is_ok() {}
    }
}

pub(crate) fn text(value: &Value) -> String {
    value.as_str().unwrap_or_else(|| panic!("no text: {value}")).to_owned()
}

/// The keys of an object, in the order of the alphabet.
pub(crate) fn keys(value: &Value) -> Vec<&str> {
    let mut keys: Vec<_> = value.as_object().unwrap().keys().map(String::as_str).collect();
    keys.sort_unstable();
    keys
}

/// Header and claims of a JWT, unverified.
pub(crate) fn jwt(token: &str) -> (Value, Value) {
    let parts: Vec<_> = token.split('.').collect();
    assert_eq!(parts.len(), 3, "{token}");
    let read = |part| serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part).unwrap()).unwrap();
    (read(parts[0]), read(parts[1]))
}

/// A TCP port that somebody has.
pub(crate) fn taken_tcp() -> (TcpListener, String) {
    let socket = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = socket.local_addr().unwrap().port().to_string();
    (socket, port)
}

/// Two UDP ports in a row that nobody has.
pub(crate) fn two_free_udp() -> (u16, UdpSocket, UdpSocket) {
    let pair = until(|| {
        let first = UdpSocket::bind("127.0.0.1:0").unwrap();
        let port = first.local_addr().unwrap().port();
        let second = UdpSocket::bind(("127.0.0.1", port.checked_add(1)?)).ok()?;
        Some((port, first, second))
    });
    pair.unwrap()
}

/// A PostgreSQL of this test's own, on a socket in a folder.
pub(crate) struct Postgres {
    script: Child,
    pub(crate) url: String,
}

impl Postgres {
    /// It lives as long as its shell's standard input. Missing binaries are a failure, not a skip.
    pub(crate) fn start() -> Self {
        const SCRIPT: &str = r#"
            set -e
            cd /
            bin=$(ls -d /usr/lib/postgresql/*/bin | sort -V | tail -n 1)
            dir=$(mktemp -d /tmp/bedside-contract.XXXXXX)
            "$bin/initdb" -D "$dir/data" -U bedside -A trust --no-sync >&2
            "$bin/postgres" -D "$dir/data" -k "$dir" -c listen_addresses= -c fsync=off >&2 &
            until "$bin/pg_isready" -q -h "$dir" -U bedside -d postgres; do sleep 0.1; done
            echo "$dir"
            cat > /dev/null || true
            kill -INT %1
            wait %1 || true
            rm -rf "$dir"
        "#;
        let root = Command::new("id").arg("-u").output().unwrap().stdout.trim_ascii() == b"0";
        // PostgreSQL refuses to run as root; its package brings a user for it.
        let (program, before): (_, &[&str]) =
            if root { ("runuser", &["-u", "postgres", "--", "bash"]) } else { ("bash", &[]) };
        let mut script = Command::new(program)
            .args(before)
            .args(["-c", SCRIPT])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut folder = String::new();
        BufReader::new(script.stdout.take().unwrap()).read_line(&mut folder).unwrap();
        assert!(!folder.is_empty(), "PostgreSQL did not start: is it installed?");
        let url = format!("postgres://bedside@localhost/postgres?host={}", folder.trim());
        Self { script, url }
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        drop(self.script.stdin.take());
        let _swept = self.script.wait();
    }
}
