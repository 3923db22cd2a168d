//! One connection: finds out what it is, and hands it to who serves that.

use std::io;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::Router;
use axum::extract::ConnectInfo;
use axum::http::Request;
use bedside_turn::Transport;
use bytes::Bytes;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::watch;
use tokio::time::{Instant, timeout, timeout_at};
use tokio_rustls::LazyConfigAcceptor;
use tokio_rustls::server::TlsStream;
use tower::ServiceExt as _;

use super::ahead::Ahead;
use super::counters::{Kind, Refusal};
use super::crowd::Seat;
use super::first::{First, look};
use super::pace::{Pace, PacedBody};
use super::tls::{Tls, Wanted};
use super::{Doors, told};

/// Who has not said by then what it is, is cut.
const FIRST_LIMIT: Duration = Duration::from_secs(5);
/// A TLS handshake takes no longer, over any line.
const HANDSHAKE_LIMIT: Duration = Duration::from_secs(10);
/// A client that has not sent a whole header by then is cut.
const HEADER_LIMIT: Duration = Duration::from_secs(10);
/// Longest request head. A room door's request line carries an SDP offer; that takes 32 KiB.
const HEAD_BYTES: usize = 64 * 1024;
/// How long a client may take nothing at all, and how slowly it may go on for longer.
const READER: (Duration, u32) = (Duration::from_secs(20), 4 * 1024);
/// The same for the body of a request.
const BODY: (Duration, u32) = (Duration::from_secs(30), 1024);

/// A connection that was taken.
pub(super) struct Connection<S> {
    stream: Seated<S>,
    seat: Arc<Seat>,
    remote: SocketAddr,
    local: SocketAddr,
    doors: Arc<Doors>,
}

/// The part of a connection that outlives its stream's changes of hands.
struct Host {
    remote: SocketAddr,
    local: SocketAddr,
    doors: Arc<Doors>,
    seat: Arc<Seat>,
}

impl<S: AsyncRead + AsyncWrite + Unpin + Send + 'static> Connection<S> {
    /// From `remote`, to our address `local`.
    pub(super) fn new(
        stream: S,
        remote: SocketAddr,
        local: SocketAddr,
        doors: Arc<Doors>,
        seat: Seat,
    ) -> Self {
        let seat = Arc::new(seat);
        let stream =
            Seated { stream, pace: Pace::new(READER.0, READER.1), _seat: Arc::clone(&seat) };
        Self { stream, seat, remote, local, doors }
    }

    /// To its end, or to its becoming a WebSocket.
    pub(super) async fn serve(self, stop: watch::Receiver<bool>) {
        let Self { stream, seat, remote, local, doors } = self;
        let counters = doors.counters.clone();
        let host = Host { remote, local, doors, seat: Arc::clone(&seat) };
        tokio::select! {
            refused = host.welcome(stream, stop) => {
                if let Err(refusal) = refused {
                    counters.refused(refusal);
                }
            }
            () = seat.sent_away() => counters.refused(Refusal::Crowded),
        }
    }
}

impl Host {
    /// Plain bytes.
    async fn welcome<S>(
        self,
        mut stream: Seated<S>,
        stop: watch::Receiver<bool>,
    ) -> Result<(), Refusal>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let (first, read) = first(&mut stream).await?;
        let stream = Ahead::new(read, stream);
        match first {
            First::Http => {
                let router = self.doors.plain.clone();
                self.http(stream, Kind::Http, router, stop).await;
            }
            First::Tls => {
                let tls = self.doors.tls.clone().ok_or(Refusal::Stranger)?;
                self.handshake(&tls, stream, stop).await?;
            }
            First::Turn => self.turn(stream, Kind::Turn, stop).await?,
            First::IceTcp => self.media(stream, stop).await?,
            First::Stranger => return Err(Refusal::Stranger),
        }
        Ok(())
    }

    /// What is inside TLS.
    async fn handshake<S>(
        self,
        tls: &Tls,
        stream: Ahead<S>,
        stop: watch::Receiver<bool>,
    ) -> Result<(), Refusal>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let end = Instant::now() + HANDSHAKE_LIMIT;
        let hello = LazyConfigAcceptor::new(rustls::server::Acceptor::default(), stream);
        let start = ended(timeout_at(end, hello).await)?;
        let (wanted, config) = tls.choose(&start.client_hello());
        let mut stream = ended(timeout_at(end, start.into_stream(config)).await)?;
        match wanted {
            Wanted::Challenge => {
                self.doors.counters.taken(Kind::Challenge);
                // The authority has seen the certificate, and hangs up.
                let _gone = timeout(FIRST_LIMIT, look(&mut stream)).await;
                Ok(())
            }
            Wanted::Http => {
                self.secured(Ahead::new(Bytes::new(), stream), stop).await;
                Ok(())
            }
            Wanted::Unsaid => {
                let (first, read) = first(&mut stream).await?;
                let stream = Ahead::new(read, stream);
                match first {
                    First::Http => self.secured(stream, stop).await,
                    First::Turn => self.turn(stream, Kind::Turns, stop).await?,
                    First::IceTcp => self.media(stream, stop).await?,
                    // TLS within TLS is nobody's.
                    First::Tls | First::Stranger => return Err(Refusal::Stranger),
                }
                Ok(())
            }
        }
    }

    async fn secured<S>(self, stream: Ahead<TlsStream<S>>, stop: watch::Receiver<bool>)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let router = self.doors.secure.clone();
        self.http(stream, Kind::Https, router, stop).await;
    }

    /// TURN over TCP or TLS, to its end.
    async fn turn<S>(
        self,
        stream: Ahead<S>,
        kind: Kind,
        mut stop: watch::Receiver<bool>,
    ) -> Result<(), Refusal>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let turn = self.doors.turn.as_ref().ok_or(Refusal::Stranger)?;
        self.doors.counters.taken(kind);
        self.seat.settle();
        let transport = if kind == Kind::Turns { Transport::Tls } else { Transport::Tcp };
        tokio::select! {
            () = turn.serve(stream, self.remote, self.local, transport) => {}
            () = told(&mut stop) => {}
        }
        Ok(())
    }

    /// Media over TCP, to its end.
    async fn media<S>(
        self,
        stream: Ahead<S>,
        mut stop: watch::Receiver<bool>,
    ) -> Result<(), Refusal>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let media = self.doors.media.as_ref().ok_or(Refusal::Stranger)?;
        self.doors.counters.taken(Kind::IceTcp);
        self.seat.settle();
        let (read, stream) = stream.into_parts();
        tokio::select! {
            () = media.accept_tcp(stream, self.remote, read) => {}
            () = told(&mut stop) => {}
        }
        Ok(())
    }

    /// HTTP/1.1, to its end or to its becoming a WebSocket.
    async fn http<S>(
        self,
        stream: Ahead<S>,
        kind: Kind,
        router: Router,
        mut stop: watch::Receiver<bool>,
    ) where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        self.doors.counters.taken(kind);
        let stream = stream.counted(self.doors.metrics.connection());
        let (remote, seat) = (self.remote, self.seat);
        let service = router.map_request(move |mut request: Request<Incoming>| {
            seat.settle();
            request.extensions_mut().insert(ConnectInfo(remote));
            let pace = Pace::new(BODY.0, BODY.1);
            request.map(|body| axum::body::Body::new(PacedBody::new(body, pace)))
        });
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEADER_LIMIT)
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
}

/// Who is there, unless it takes too long to say so.
async fn first<S: AsyncRead + Unpin>(stream: &mut S) -> Result<(First, Bytes), Refusal> {
    match timeout(FIRST_LIMIT, look(stream)).await {
        Ok(Ok((first, read))) => Ok((first, read.freeze())),
        Ok(Err(_)) | Err(_) => Err(Refusal::Silent),
    }
}

fn ended<T, L>(step: Result<io::Result<T>, L>) -> Result<T, Refusal> {
    match step {
        Ok(Ok(done)) => Ok(done),
        Ok(Err(error)) => {
            tracing::debug!(%error, "a TLS handshake failed");
            Err(Refusal::Handshake)
        }
        Err(_late) => Err(Refusal::Handshake),
    }
}

/// A stream that has its place for as long as it is open, and must be read at a pace.
#[derive(Debug)]
struct Seated<S> {
    stream: S,
    pace: Pace,
    _seat: Arc<Seat>,
}

impl<S: AsyncWrite + Unpin> Seated<S> {
    fn paced(
        &mut self,
        cx: &mut Context<'_>,
        written: Poll<io::Result<usize>>,
    ) -> Poll<io::Result<usize>> {
        match written {
            Poll::Ready(written) => {
                self.pace.moved(written.as_ref().map_or(0, |len| *len));
                Poll::Ready(written)
            }
            Poll::Pending => {
                ready!(self.pace.poll_waiting(cx));
                Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
            }
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Seated<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Seated<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, data);
        self.paced(cx, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, parts);
        self.paced(cx, written)
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
