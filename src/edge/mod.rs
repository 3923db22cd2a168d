//! The edge: one listener for everything that people's networks let through.
//!
//! The first bytes of a connection tell what it is (`first`): a TLS handshake, a TURN client, media
//! over TCP (ICE-TCP), or HTTP. Inside TLS the list of protocols in the ClientHello tells (`tls`), and
//! where there is none, the first decrypted bytes do. Every step has a time limit, the number of
//! connections has bounds (`crowd`), and who reads or writes too slowly is cut (`pace`). The
//! certificate comes from files that may change (`certificate`) or from an authority (`acme`).

mod acme;
mod ahead;
mod certificate;
mod connection;
mod counters;
mod crowd;
mod first;
mod pace;
mod secure;
#[cfg(test)]
mod tests;
mod tls;

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use axum::Router;
use bedside_sfu::node::NodeHandle;
use bedside_turn::Streams;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::{mpsc, watch};

pub(crate) use self::counters::{EdgeCounters, Expiry};
pub(crate) use self::crowd::Crowd;
pub(crate) use self::secure::Secure;
pub(crate) use self::tls::Tls;

use self::connection::Connection;
use self::counters::Refusal;
use crate::metrics::Metrics;

/// After an error of the listener (no descriptors left), not at once again.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Connections that wait to be taken: the usual 1,024 are soon full when many come at once, and who does
/// not fit asks again only after a second.
const BACKLOG: u32 = 4096;
/// Files that a process should be able to open; what it may open at the most may be less.
const FILES: u64 = 65_536;

/// A bound listener.
#[derive(Debug)]
pub(crate) struct Edge {
    listener: TcpListener,
    address: SocketAddr,
}

/// What stands behind a listener.
#[derive(Clone)]
pub(crate) struct Doors {
    /// For HTTP without TLS.
    pub(crate) plain: Router,
    /// For HTTP over TLS.
    pub(crate) secure: Router,
    /// TLS, where there is a certificate.
    pub(crate) tls: Option<Tls>,
    /// TURN, where it is served.
    pub(crate) turn: Option<Streams>,
    /// Media, where it is taken over TCP.
    pub(crate) media: Option<NodeHandle>,
    /// How many may be there.
    pub(crate) crowd: Arc<Crowd>,
    /// What counts HTTP connections.
    pub(crate) metrics: Metrics,
    /// What counts all of them.
    pub(crate) counters: EdgeCounters,
}

impl Edge {
    /// Binds; `flag` is what the error tells the person to change.
    pub(crate) fn bind(address: SocketAddr, flag: &str) -> anyhow::Result<Self> {
        let listener = listen(address)
            .with_context(|| format!("{address} (TCP) cannot be bound: change {flag}"))?;
        let address = listener.local_addr().context("the listener has no address")?;
        Ok(Self { listener, address })
    }

    /// Where it listens.
    pub(crate) const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves until `stop` says so; requests that are being answered may end.
    pub(crate) async fn run(self, doors: Doors, mut stop: watch::Receiver<bool>) {
        let doors = Arc::new(doors);
        let (alive, mut all_gone) = mpsc::channel::<Infallible>(1);
        loop {
            let next = tokio::select! {
                next = self.next(&doors) => next,
                () = told(&mut stop) => break,
            };
            let Some(connection) = next else { continue };
            let (alive, stop) = (alive.clone(), stop.clone());
            tokio::spawn(async move {
                connection.serve(stop).await;
                drop(alive);
            });
        }
        drop((self.listener, alive));
        // Answers `None` once every connection has dropped its sender.
        let _none = all_gone.recv().await;
    }

    /// The next connection, once there is a place for it.
    async fn next(&self, doors: &Arc<Doors>) -> Option<Connection<TcpStream>> {
        let (stream, remote) = match self.listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                // Out of descriptors: the connection stays queued, so trying at once spins.
                tracing::warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                return None;
            }
        };
        let Some(seat) = doors.crowd.seat(remote.ip()).await else {
            doors.counters.refused(Refusal::Address);
            return None;
        };
        // What is small is what somebody waits for. A socket that refuses is as good as gone.
        let _refused = stream.set_nodelay(true);
        let local = stream.local_addr().unwrap_or(self.address);
        Some(Connection::new(stream, remote, local, Arc::clone(doors), seat))
    }
}

fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv6() { TcpSocket::new_v6()? } else { TcpSocket::new_v4()? };
    // Not refused because of connections of the one before us that are still being forgotten.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// Connections that the process can afford: of the files that it may open, some belong to media, the
/// database and the disk.
pub(crate) fn places(wanted: usize) -> usize {
    let files = getrlimit(Resource::RLIMIT_NOFILE).map_or(FILES, |(soft, _)| soft);
    usize::try_from(files / 8 * 3).unwrap_or(usize::MAX).min(wanted)
}

/// Lets this process open as many files as it may: the usual first limit is too low for a server.
pub(crate) fn raise_file_limit() {
    if let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE)
        && soft < hard.min(FILES)
    {
        // Best effort: the connections are bounded by what it is.
        let _refused = setrlimit(Resource::RLIMIT_NOFILE, hard.min(FILES), hard);
    }
}

/// Waits for the word to stop, or for the one who would say it to be gone.
async fn told(stop: &mut watch::Receiver<bool>) {
    let _guard = stop.wait_for(|stop| *stop).await;
}
