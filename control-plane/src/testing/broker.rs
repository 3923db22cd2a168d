//! RabbitMQ for the tests: a node of its own, with its own ports, files and port mapper, gone with
//! the process that started it. Works as root and as any user; a missing program is a failure,
//! never a skip.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpListener;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, OnceLock};
use std::time::{Duration, Instant};

use lapin::uri::{AMQPAuthority, AMQPQueryString, AMQPUri, AMQPUserInfo};
use lapin::{Connection, ConnectionProperties};

use crate::{Private, RabbitConfig};

/// How many tests may have a virtual host of their own.
const VHOSTS: u64 = 64;
/// How long a node may take to come up on a busy machine.
const START_TIMEOUT: Duration = Duration::from_secs(180);

/// A node. Lives as long as its script's standard input, which ends with this process.
pub(crate) struct Broker {
    port: u16,
    next_vhost: AtomicU64,
    script: Mutex<Script>,
    _child: Child,
}

struct Script {
    orders: ChildStdin,
    answers: BufReader<ChildStdout>,
}

/// A virtual host: exchanges and queues that no other test sees.
pub(crate) struct Vhost<'a> {
    pub(crate) broker: &'a Broker,
    pub(crate) name: String,
}

impl Broker {
    /// The node that tests share which leave it as it is.
    pub(crate) async fn shared() -> Vhost<'static> {
        static SHARED: OnceLock<Broker> = OnceLock::new();
        Self::of(&SHARED).await
    }

    /// The node of tests that stop it or take its memory; they hold the lock that comes with it.
    pub(crate) async fn restless() -> (Vhost<'static>, tokio::sync::MutexGuard<'static, ()>) {
        static RESTLESS: OnceLock<Broker> = OnceLock::new();
        static ONE: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());
        let turn = ONE.lock().await;
        (Self::of(&RESTLESS).await, turn)
    }

    async fn of(cell: &'static OnceLock<Self>) -> Vhost<'static> {
        let broker = tokio::task::spawn_blocking(|| cell.get_or_init(Self::start))
            .await
            .expect("the broker starts");
        let number = broker.next_vhost.fetch_add(1, Ordering::Relaxed);
        assert!(number < VHOSTS, "more tests than virtual hosts");
        let vhost = Vhost { broker, name: format!("t{number}") };
        vhost.wait_until_up().await;
        vhost
    }

    fn start() -> Self {
        let [port, dist, epmd] = free_ports();
        let mut child = Command::new("bash")
            .args(["-c", SCRIPT])
            .env_clear()
            .env("PATH", "/usr/local/bin:/usr/bin:/bin:/usr/local/sbin:/usr/sbin:/sbin")
            .env("LANG", "C.UTF-8")
            .env("PORT", port.to_string())
            .env("DIST", dist.to_string())
            .env("ERL_EPMD_PORT", epmd.to_string())
            .env("ERL_EPMD_ADDRESS", "127.0.0.1")
            .env("VHOSTS", VHOSTS.to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("a shell for RabbitMQ starts");
        let orders = child.stdin.take().expect("piped");
        let answers = BufReader::new(child.stdout.take().expect("piped"));
        let script = Mutex::new(Script { orders, answers });
        let broker = Self { port, next_vhost: AtomicU64::new(0), script, _child: child };
        broker.hear("started");
        broker
    }

    fn hear(&self, expected: &str) {
        let mut line = String::new();
        let mut script = self.script.lock().expect("no test panics with this lock");
        script.answers.read_line(&mut line).expect("the broker's script speaks");
        assert_eq!(line.trim(), expected, "is rabbitmq-server installed?");
    }

    async fn order(&'static self, order: &'static str, expected: &'static str) {
        let obey = move || {
            let mut script = self.script.lock().expect("no test panics with this lock");
            writeln!(script.orders, "{order}").expect("the broker's script listens");
            drop(script);
            self.hear(expected);
        };
        tokio::task::spawn_blocking(obey).await.expect("the order is followed");
    }
}

impl Vhost<'static> {
    /// How Bedside gets here.
    pub(crate) fn config(&self) -> RabbitConfig {
        RabbitConfig {
            host: "127.0.0.1".to_owned(),
            port: self.broker.port,
            username: "bedside".to_owned(),
            password: Private::new("bedside".to_owned()),
            vhost: self.name.clone(),
            retries: [200, 300, 400].map(Duration::from_millis),
            ..RabbitConfig::default()
        }
    }

    /// Kills the node where it stands.
    pub(crate) async fn kill(&self) {
        self.broker.order("kill", "killed").await;
    }

    /// Starts it again, with its files.
    pub(crate) async fn start_again(&self) {
        self.broker.order("start", "started").await;
        self.wait_until_up().await;
    }

    /// Tells the node that it has no memory left: it reads from no publisher any more.
    pub(crate) async fn starve(&self) {
        self.broker.order("starve", "starved").await;
    }

    /// Gives it its memory back.
    pub(crate) async fn feed(&self) {
        self.broker.order("feed", "fed").await;
    }

    /// A connection of a peer's.
    pub(crate) async fn connect(&self) -> Connection {
        self.try_connect().await.expect("the broker answers")
    }

    async fn try_connect(&self) -> lapin::Result<Connection> {
        let uri = AMQPUri {
            authority: AMQPAuthority {
                userinfo: AMQPUserInfo {
                    username: "bedside".to_owned(),
                    password: "bedside".to_owned(),
                },
                host: "127.0.0.1".to_owned(),
                port: self.broker.port,
            },
            vhost: self.name.clone(),
            query: AMQPQueryString::default(),
            ..AMQPUri::default()
        };
        Connection::connect_uri(uri, ConnectionProperties::default()).await
    }

    async fn wait_until_up(&self) {
        let start = Instant::now();
        while let Err(error) = self.try_connect().await {
            assert!(start.elapsed() < START_TIMEOUT, "RabbitMQ does not come up: {error}");
            tokio::time::sleep(Duration::from_millis(250)).await;
        }
    }

    /// As a URL, for peers that are other programs.
    pub(crate) fn url(&self) -> String {
        format!("amqp://bedside:bedside@127.0.0.1:{}/{}", self.broker.port, self.name)
    }
}

/// Free a moment ago; another process could take one, but hardly does.
fn free_ports() -> [u16; 3] {
    let listeners = [(); 3].map(|()| TcpListener::bind(("127.0.0.1", 0)).expect("a free port"));
    listeners.map(|listener| listener.local_addr().expect("bound").port())
}

/// Takes orders, one word a line, and answers each with a word. Everything ends with its input.
const SCRIPT: &str = r#"
    home=$(ls -d /usr/lib/rabbitmq/lib/rabbitmq_server-*/sbin | sort -V | tail -n 1)
    dir=$(mktemp -d /tmp/bedside-broker.XXXXXX)
    export HOME=$dir RABBITMQ_CONF_ENV_FILE=/dev/null RABBITMQ_NODENAME=bedside@localhost
    export RABBITMQ_MNESIA_BASE=$dir/data RABBITMQ_LOG_BASE=$dir/log RABBITMQ_LOGS=$dir/log/node
    export RABBITMQ_DIST_PORT=$DIST RABBITMQ_CONFIG_FILE=$dir/rabbitmq.conf
    export RABBITMQ_ENABLED_PLUGINS_FILE=$dir/plugins RABBITMQ_PID_FILE=$dir/pid
    export RABBITMQ_ADVANCED_CONFIG_FILE=$dir/none RABBITMQ_GENERATED_CONFIG_DIR=$dir/generated
    export RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS='+S 1:1 +sbwt none +sbwtdcpu none +sbwtdio none'
    export RABBITMQ_CTL_ERL_ARGS='+S 1:1'
    echo '[].' > $dir/plugins
    cat > $dir/rabbitmq.conf <<END
listeners.tcp.1 = 127.0.0.1:$PORT
load_definitions = $dir/definitions.json
disk_free_limit.absolute = 1MB
vm_memory_high_watermark.absolute = 4GB
END
    {
        echo '{"users":[{"name":"bedside","password":"bedside","tags":"administrator","limits":{}}],'
        echo '"vhosts":[{"name":"/"}'
        for n in $(seq 0 $((VHOSTS - 1))); do echo ",{\"name\":\"t$n\"}"; done
        echo '],"permissions":[{"user":"bedside","vhost":"/","configure":".*","write":".*","read":".*"}'
        for n in $(seq 0 $((VHOSTS - 1))); do
            echo ",{\"user\":\"bedside\",\"vhost\":\"t$n\",\"configure\":\".*\",\"write\":\".*\",\"read\":\".*\"}"
        done
        echo ']}'
    } > $dir/definitions.json
    epmd=$(command -v epmd || ls /usr/lib/erlang/erts*/bin/epmd | head -n 1)
    "$epmd" -port $ERL_EPMD_PORT -address 127.0.0.1 </dev/null >/dev/null 2>&1 &
    mapper=$!
    start() {
        setsid "$home/rabbitmq-server" </dev/null >$dir/out 2>&1 &
        node=$!
        until [ -s $dir/pid ] || ! kill -0 $node 2>/dev/null; do sleep 0.1; done
    }
    end() {
        # The script that started it and the node itself: one process group.
        kill -$1 -- -$node 2>/dev/null
        wait $node 2>/dev/null
        rm -f $dir/pid
    }
    start
    echo started
    while read -r order; do
        case $order in
            kill) end KILL; echo killed ;;
            start) start; echo started ;;
            starve) "$home/rabbitmqctl" -q set_vm_memory_high_watermark 0 >/dev/null; echo starved ;;
            feed) "$home/rabbitmqctl" -q set_vm_memory_high_watermark 0.4 >/dev/null; echo fed ;;
        esac
    done
    end KILL
    kill $mapper
    wait $mapper 2>/dev/null
    rm -rf $dir
"#;
