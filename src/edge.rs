//! The listener: accepts connections, bounds them in number and time, and hands them to the router.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use anyhow::Context as _;
use axum::Router;
use axum::extract::ConnectInfo;
use axum::http::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch};
use tower::ServiceExt as _;

use crate::metrics::{Metrics, Open};

/// A client that has not sent a whole header by then is cut.
const HEADER_TIMEOUT: Duration = Duration::from_secs(10);
/// Longest request head. A room door's request line carries an SDP offer; that takes 32 KiB.
const HEAD_BYTES: usize = 64 * 1024;

/// A bound listener.
#[derive(Debug)]
pub(crate) struct Edge {
    listener: TcpListener,
    address: SocketAddr,
}

impl Edge {
    /// Binds; `flag` is what the error tells the person to change.
    pub(crate) async fn bind(address: SocketAddr, flag: &str) -> anyhow::Result<Self> {
        let listener = TcpListener::bind(address)
            .await
            .with_context(|| format!("{address} (TCP) cannot be bound: change {flag}"))?;
        let address = listener.local_addr().context("the listener has no address")?;
        Ok(Self { listener, address })
    }

    /// Where it listens.
    pub(crate) const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves until `stop` says so; requests that are being answered may end.
    pub(crate) async fn run(
        self,
        router: Router,
        connections: usize,
        metrics: Metrics,
        mut stop: watch::Receiver<bool>,
    ) {
        let permits = Arc::new(Semaphore::new(connections));
        let (alive, mut all_gone) = mpsc::channel::<Infallible>(1);
        loop {
            let permit = Arc::clone(&permits).acquire_owned();
            let accepted = async {
                let permit = permit.await.expect("the semaphore is never closed");
                (permit, self.listener.accept().await)
            };
            let (permit, accepted) = tokio::select! {
                accepted = accepted => accepted,
                () = told(&mut stop) => break,
            };
            match accepted {
                Ok((stream, remote)) => {
                    let stream = Counted { stream, _open: metrics.connection(), _permit: permit };
                    let connection = serve(stream, remote, router.clone(), stop.clone());
                    let alive = alive.clone();
                    tokio::spawn(async move {
                        connection.await;
                        drop(alive);
                    });
                }
                Err(error) => {
                    // Out of descriptors: the connection stays queued, so trying at once spins.
                    tracing::warn!(%error, "a connection could not be accepted");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
        drop((self.listener, alive));
        // Answers `None` once every connection has dropped its sender.
        let _none = all_gone.recv().await;
    }
}

/// One connection, to its end or to its becoming a WebSocket.
async fn serve(
    stream: Counted,
    remote: SocketAddr,
    router: Router,
    mut stop: watch::Receiver<bool>,
) {
    // Signaling is small messages that somebody waits for. A socket that refuses is as good as gone.
    let _refused = stream.stream.set_nodelay(true);
    let service = router.map_request(move |mut request: Request<Incoming>| {
        request.extensions_mut().insert(ConnectInfo(remote));
        request.map(axum::body::Body::new)
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .max_buf_size(HEAD_BYTES)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(service))
        .with_upgrades();
    let mut connection = pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = told(&mut stop) => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "connection ended early");
    }
}

/// Waits for the word to stop, or for the one who would say it to be gone.
async fn told(stop: &mut watch::Receiver<bool>) {
    let _guard = stop.wait_for(|stop| *stop).await;
}

/// A connection that is counted for as long as it is open, also when it has become a WebSocket.
#[derive(Debug)]
struct Counted {
    stream: TcpStream,
    _open: Open,
    _permit: OwnedSemaphorePermit,
}

impl AsyncRead for Counted {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Counted {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, data)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, parts)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
