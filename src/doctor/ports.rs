//! Ports: free, or already our own server's. Nothing is kept bound, and nothing is sent to a stranger
//! but one request for its version.

use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr, TcpListener, UdpSocket};
use std::time::Duration;

use super::finding::Finding;
use crate::config::Config;
use crate::wire;

const PATIENCE: Duration = Duration::from_secs(3);
/// A version that is longer is none.
const VERSION_BYTES: usize = 64;

/// What a port carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Carries {
    Udp,
    Tcp,
}

impl Carries {
    const fn word(self) -> &'static str {
        match self {
            Self::Udp => "UDP",
            Self::Tcp => "TCP",
        }
    }
}

/// What stood in the way of binding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Bound {
    Free,
    Taken,
    /// Ports below 1024 need a right.
    Forbidden,
    /// This machine has no such address.
    NotHere,
    Other,
}

/// Binds for a moment.
pub(super) fn try_bind(address: SocketAddr, carries: Carries) -> Bound {
    let tried = match carries {
        Carries::Udp => UdpSocket::bind(address).map(drop),
        Carries::Tcp => TcpListener::bind(address).map(drop),
    };
    match tried.map_err(|error| error.kind()) {
        Ok(()) => Bound::Free,
        Err(ErrorKind::AddrInUse) => Bound::Taken,
        Err(ErrorKind::PermissionDenied) => Bound::Forbidden,
        Err(ErrorKind::AddrNotAvailable) => Bound::NotHere,
        Err(_) => Bound::Other,
    }
}

/// Is it a Bedside that answers at this address? Then: its version.
pub(super) async fn version_at(scheme: &str, address: SocketAddr) -> Option<String> {
    let ip = match address.ip() {
        ip if !ip.is_unspecified() => ip,
        IpAddr::V4(_) => IpAddr::from([127, 0, 0, 1]),
        IpAddr::V6(_) => IpAddr::from([0, 0, 0, 0, 0, 0, 0, 1]),
    };
    let client = reqwest::Client::builder()
        .timeout(PATIENCE)
        .no_proxy()
        // It is asked by its address, and nothing is told to it.
        .tls_danger_accept_invalid_certs(true)
        .redirect(reqwest::redirect::Policy::none())
        .build()
        .ok()?;
    let url = format!("{scheme}://{}/version", SocketAddr::new(ip, address.port()));
    let mut answer = client.get(url).send().await.ok()?;
    // Whatever else listens there may talk without end.
    let mut body = Vec::new();
    while let Ok(Some(chunk)) = answer.chunk().await {
        body.extend_from_slice(&chunk);
        if body.len() > VERSION_BYTES {
            return None;
        }
    }
    let version = std::str::from_utf8(&body).ok()?.trim();
    let numbers = version.split('.').count() == 3
        && version.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'+'));
    (answer.status().is_success() && numbers).then(|| version.to_owned())
}

/// What a bound port means; `ours` = our own server runs.
pub(super) fn judge(
    check: &'static str,
    setting: &str,
    address: SocketAddr,
    carries: Carries,
    bound: Bound,
    ours: bool,
) -> Finding {
    let port = address.port();
    let what = format!("{address} ({})", carries.word());
    match (bound, ours) {
        (Bound::Free, false) => Finding::ok(check, format!("{what} is free.")),
        (Bound::Free, true) => Finding::warning(
            check,
            format!("{what} is free although a server runs: it uses other settings."),
            "systemctl restart bedside",
        ),
        (Bound::Taken, true) => Finding::ok(check, format!("{what} is held; our server runs.")),
        (Bound::Taken, false) => {
            let list = if carries == Carries::Udp { "ss -lunp" } else { "ss -ltnp" };
            Finding::error(
                check,
                format!("{what} is taken by another program."),
                format!("{list} 'sport = :{port}' names it; stop it or change {setting}"),
            )
        }
        (Bound::Forbidden, _) => Finding::error(
            check,
            format!("{what} may not be bound by this user."),
            "AmbientCapabilities=CAP_NET_BIND_SERVICE in the unit, or run doctor as the service does",
        ),
        (Bound::NotHere, _) => Finding::error(
            check,
            format!("{what} cannot be bound: this machine has no such address."),
            format!("ip addr shows those it has; change {setting}"),
        ),
        (Bound::Other, _) => {
            Finding::error(check, format!("{what} cannot be bound."), format!("change {setting}"))
        }
    }
}

/// The listener for pages, and whether our server is behind it.
pub(super) async fn http(config: &Config) -> (Vec<Finding>, bool) {
    const CHECK: &str = "http_port";
    let address = config.http.listen;
    let bound = try_bind(address, Carries::Tcp);
    let mut version = None;
    if bound == Bound::Taken {
        version = version_at("http", address).await;
        // What is there may only send people on to the port with TLS.
        if let (None, Some(secured)) = (&version, config.tls.listen) {
            version = version_at("https", secured).await;
        }
    }
    let ours = version.is_some();
    let mut findings = vec![judge(CHECK, "http.listen", address, Carries::Tcp, bound, ours)];
    if let Some(version) = version.filter(|version| version != env!("CARGO_PKG_VERSION")) {
        findings.push(Finding::warning(
            CHECK,
            format!("the server that runs is version {version}, this program another one."),
            "systemctl restart bedside",
        ));
    }
    if let Some(admin) = config.admin.listen {
        let bound = try_bind(admin, Carries::Tcp);
        findings.push(judge("admin_port", "admin.listen", admin, Carries::Tcp, bound, ours));
    }
    (findings, ours)
}

/// The media ports.
pub(super) fn media(config: &Config, ours: bool) -> Vec<Finding> {
    const CHECK: &str = "media_ports";
    let media = &config.media;
    if media.port == 0 {
        let says =
            "media.port is 0: ports are other ones after each start, which no firewall knows.";
        return vec![Finding::warning(CHECK, says, "set media.port = 7882")];
    }
    let kinds: &[Carries] = if media.tcp { &[Carries::Udp, Carries::Tcp] } else { &[Carries::Udp] };
    let last = usize::from(media.port) + wire::shards(media) - 1;
    let last = u16::try_from(last).unwrap_or(u16::MAX);
    let ports = (media.port..=last).flat_map(|port| kinds.iter().map(move |kind| (port, *kind)));
    let mut findings: Vec<Finding> = ports
        .map(|(port, kind)| {
            let address = SocketAddr::new(media.bind, port);
            judge(CHECK, "media.port", address, kind, try_bind(address, kind), ours)
        })
        .collect();
    if findings.iter().all(|finding| finding.fix.is_none()) {
        let word = if ours { "held by our server" } else { "free" };
        let kinds = if media.tcp { "UDP and TCP" } else { "UDP" };
        let says = format!("{}:{}-{last} ({kinds}) are {word}.", media.bind, media.port);
        findings = vec![Finding::ok(CHECK, says)];
    }
    findings.retain(|finding| finding.fix.is_some() || finding.says.contains(" are "));
    findings
}

/// The relay's ports.
pub(super) fn turn(config: &Config, ours: bool) -> Vec<Finding> {
    const CHECK: &str = "turn_ports";
    if config.turn.port == 0 {
        let says = "turn.port is 0: strict networks get no calls by a relay.";
        return vec![Finding::warning(CHECK, says, "set turn.port = 3478")];
    }
    let address = SocketAddr::new(config.media.bind, config.turn.port);
    let look = |kind| judge(CHECK, "turn.port", address, kind, try_bind(address, kind), ours);
    let mut findings = vec![look(Carries::Udp), look(Carries::Tcp)];
    if !config.turn.reaches_browsers() {
        findings.push(Finding::error(
            CHECK,
            format!("Chromium refuses relays on port {}.", config.turn.port),
            "set turn.port to 3478, or another one from 1024 on, or 80 or 443",
        ));
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::super::finding::Level;
    use super::*;

    fn config(listen: SocketAddr, media_port: u16) -> Config {
        let mut config = Config::default();
        config.http.listen = listen;
        config.media.bind = [127, 0, 0, 1].into();
        config.media.port = media_port;
        config.media.shards = 1;
        config
    }

    /// Somebody who says this to whoever connects.
    fn someone(says: &'static str) -> SocketAddr {
        use std::io::{Read as _, Write as _};
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                let _ = stream.read(&mut [0; 1024]);
                let _ = stream.write_all(says.as_bytes());
            }
        });
        address
    }

    #[tokio::test]
    async fn a_port_is_free_ours_or_a_strangers() {
        let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let (findings, ours) = http(&config(free, 0)).await;
        assert_eq!((findings[0].level, ours), (Level::Ok, false));
        let own = concat!(
            "HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n",
            env!("CARGO_PKG_VERSION"),
            "\n"
        );
        let (findings, ours) = http(&config(someone(own), 0)).await;
        assert_eq!((findings.len(), findings[0].level, ours), (1, Level::Ok, true));
        let older = "HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n0.0.1\n";
        let (findings, ours) = http(&config(someone(older), 0)).await;
        assert_eq!((findings[1].level, ours), (Level::Warning, true));
        for stranger in [
            "HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n<html>",
            "HTTP/1.1 404 Not Found\r\nconnection: close\r\n\r\n1.2.3",
            "SSH-2.0-OpenSSH\r\n",
            "",
        ] {
            let (findings, ours) = http(&config(someone(stranger), 0)).await;
            assert_eq!((findings[0].level, ours), (Level::Error, false), "{stranger}");
            assert!(findings[0].fix.as_ref().unwrap().contains("ss -ltnp"));
        }
        // Of a documentation network (RFC 5737): nobody has it.
        let (findings, _) = http(&config("192.0.2.1:8000".parse().unwrap(), 0)).await;
        assert_eq!(findings[0].level, Level::Error);
    }

    #[test]
    fn media_ports_are_tried_for_both_kinds() {
        let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
        let taken = udp.local_addr().unwrap().port();
        let listen = SocketAddr::from(([127, 0, 0, 1], 0));
        let findings = media(&config(listen, taken), false);
        assert_eq!(findings[0].level, Level::Error);
        assert!(findings[0].says.contains("UDP"), "{findings:?}");
        assert_eq!(media(&config(listen, 0), false)[0].level, Level::Warning);
        drop(udp);
        // Somebody else may have taken it meanwhile, though hardly ever.
        let found = (0..20).map(|_| media(&config(listen, taken), false)[0].level).max();
        assert_eq!(found, Some(Level::Ok));
        assert_eq!(media(&config(listen, taken), true)[0].level, Level::Warning);
    }

    #[test]
    fn the_relay_has_ports_of_its_own() {
        let mut config = config(SocketAddr::from(([127, 0, 0, 1], 0)), 0);
        let level = |config: &Config| turn(config, false).iter().map(|found| found.level).max();
        let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
        config.turn.port = udp.local_addr().unwrap().port();
        assert_eq!(level(&config), Some(Level::Error));
        config.turn.port = 0;
        assert_eq!(level(&config), Some(Level::Warning));
        // Whether this may be bound here or not: browsers would not go there.
        config.turn.port = 444;
        assert_eq!(level(&config), Some(Level::Error));
    }

    #[test]
    fn what_keeps_from_binding_has_its_own_advice() {
        let address = SocketAddr::from(([0, 0, 0, 0], 443));
        let told = |bound, ours| judge("x", "tls.listen", address, Carries::Tcp, bound, ours);
        assert_eq!(told(Bound::Taken, true).level, Level::Ok);
        assert_eq!(told(Bound::Free, true).level, Level::Warning);
        for bound in [Bound::Taken, Bound::Forbidden, Bound::NotHere, Bound::Other] {
            assert_eq!(told(bound, false).level, Level::Error);
        }
        assert!(told(Bound::Forbidden, false).fix.unwrap().contains("CAP_NET_BIND_SERVICE"));
    }
}
