//! The signal connection: one WebSocket whose reading and writing can be awaited beside media
//! without either waiting for the other.

use std::collections::VecDeque;
use std::future::{Future, poll_fn};
use std::io::Write;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE;
use bedside_sfu::core::api::Private;
use flate2::Compression;
use flate2::write::GzEncoder;
use futures_util::{Sink, Stream};
use livekit_protocol as proto;
use prost::Message as _;
use proto::signal_request::Message as Request;
use proto::signal_response::Message as Response;
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::http::HeaderValue;
use tokio_tungstenite::tungstenite::http::header::AUTHORIZATION;
use tokio_tungstenite::tungstenite::{self, Message};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async};

/// How long opening may take.
const OPEN_TIMEOUT: Duration = Duration::from_secs(5);
/// Messages waiting to be written; more means that the server does not read.
const MAX_QUEUE: usize = 512;

type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;
type Opening = Pin<Box<dyn Future<Output = Result<Socket, SignalError>> + Send>>;

/// Why a signal connection could not be opened, or ended.
#[derive(Debug, thiserror::Error)]
pub enum SignalError {
    /// The URL or the token cannot be used in a request.
    #[error("url or token cannot be used in a request")]
    BadRequest,
    /// The server refused the connection.
    #[error("server refused the connection with status {0}")]
    Refused(u16),
    /// The connection failed.
    #[error("signal connection failed")]
    Failed(#[source] Box<tungstenite::Error>),
    /// The server did not answer in time.
    #[error("server did not answer in time")]
    TimedOut,
    /// The connection is closed.
    #[error("signal connection is closed")]
    Closed,
}

/// What a signal connection tells.
#[derive(Debug)]
pub(crate) enum SignalEvent {
    Message(Box<Response>),
    /// Gone; it must be opened again.
    Lost(SignalError),
}

/// One signal connection, opening, open or closed.
pub(crate) struct Signal {
    state: State,
    queue: VecDeque<Message>,
    unflushed: bool,
}

enum State {
    Closed,
    Opening(Opening),
    Open(Box<Socket>),
}

impl Signal {
    /// Begins to open a connection.
    pub(crate) fn open(url: &str, token: &Private<String>, request: &proto::JoinRequest) -> Self {
        let state = match http_request(url, token, request) {
            Ok(request) => State::Opening(Box::pin(open(request))),
            Err(error) => State::Opening(Box::pin(async { Err(error) })),
        };
        Self { state, queue: VecDeque::new(), unflushed: false }
    }

    /// A connection that is closed.
    pub(crate) const fn closed() -> Self {
        Self { state: State::Closed, queue: VecDeque::new(), unflushed: false }
    }

    /// Whether messages can be sent.
    pub(crate) const fn is_open(&self) -> bool {
        matches!(self.state, State::Open(_))
    }

    /// Queues a message; it is lost when the connection is.
    pub(crate) fn send(&mut self, message: Request) {
        let request = proto::SignalRequest { message: Some(message) };
        if self.is_open() && self.queue.len() < MAX_QUEUE {
            self.queue.push_back(Message::Binary(request.encode_to_vec().into()));
        }
    }

    /// Writes what is queued and waits for the next event. May be dropped and called again at any
    /// point. Never ready while closed.
    pub(crate) async fn next(&mut self) -> SignalEvent {
        poll_fn(|context| self.poll(context)).await
    }

    /// Writes what is queued, as far as the connection takes it within `limit`.
    pub(crate) async fn flush(&mut self, limit: Duration) {
        let flushed = poll_fn(|context| match self.poll_write(context) {
            Ok(()) if self.queue.is_empty() && !self.unflushed => Poll::Ready(()),
            Ok(()) => Poll::Pending,
            Err(_) => Poll::Ready(()),
        });
        let _ = tokio::time::timeout(limit, flushed).await;
    }

    fn poll(&mut self, context: &mut Context<'_>) -> Poll<SignalEvent> {
        if let State::Opening(opening) = &mut self.state {
            match opening.as_mut().poll(context) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Ok(socket)) => self.state = State::Open(Box::new(socket)),
                Poll::Ready(Err(error)) => return self.lost(error),
            }
        }
        loop {
            if let Err(error) = self.poll_write(context) {
                return self.lost(SignalError::Failed(Box::new(error)));
            }
            let State::Open(socket) = &mut self.state else { return Poll::Pending };
            match Pin::new(socket).poll_next(context) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(None) => return self.lost(SignalError::Closed),
                Poll::Ready(Some(Err(error))) => {
                    return self.lost(SignalError::Failed(Box::new(error)));
                }
                // Frames that are no message of the protocol, and kinds newer than we are, are
                // passed over; answers to pings are written by the library.
                Poll::Ready(Some(Ok(Message::Binary(bytes)))) => {
                    let decoded = proto::SignalResponse::decode(bytes).ok();
                    if let Some(message) = decoded.and_then(|response| response.message) {
                        return Poll::Ready(SignalEvent::Message(Box::new(message)));
                    }
                }
                Poll::Ready(Some(Ok(Message::Close(_)))) => return self.lost(SignalError::Closed),
                Poll::Ready(Some(Ok(_))) => self.unflushed = true,
            }
        }
    }

    fn poll_write(&mut self, context: &mut Context<'_>) -> Result<(), tungstenite::Error> {
        let State::Open(socket) = &mut self.state else { return Ok(()) };
        let mut socket = Pin::new(socket.as_mut());
        while !self.queue.is_empty() {
            match socket.as_mut().poll_ready(context) {
                Poll::Pending => return Ok(()),
                Poll::Ready(ready) => ready?,
            }
            if let Some(message) = self.queue.pop_front() {
                socket.as_mut().start_send(message)?;
                self.unflushed = true;
            }
        }
        if self.unflushed
            && let Poll::Ready(flushed) = socket.poll_flush(context)
        {
            flushed?;
            self.unflushed = false;
        }
        Ok(())
    }

    fn lost(&mut self, error: SignalError) -> Poll<SignalEvent> {
        *self = Self::closed();
        Poll::Ready(SignalEvent::Lost(error))
    }
}

async fn open(request: tungstenite::handshake::client::Request) -> Result<Socket, SignalError> {
    let opened = tokio::time::timeout(OPEN_TIMEOUT, connect_async(request)).await;
    match opened.map_err(|_| SignalError::TimedOut)? {
        Ok((socket, _)) => Ok(socket),
        Err(tungstenite::Error::Http(response)) => {
            Err(SignalError::Refused(response.status().as_u16()))
        }
        Err(error) => Err(SignalError::Failed(Box::new(error))),
    }
}

fn http_request(
    url: &str,
    token: &Private<String>,
    request: &proto::JoinRequest,
) -> Result<tungstenite::handshake::client::Request, SignalError> {
    let base = url.trim_end_matches('/').replacen("http", "ws", 1);
    let address = format!("{base}/rtc/v1?join_request={}", wrap(request));
    let mut request = address.into_client_request().map_err(|_| SignalError::BadRequest)?;
    let mut bearer = HeaderValue::from_str(&format!("Bearer {}", token.reveal()))
        .map_err(|_| SignalError::BadRequest)?;
    bearer.set_sensitive(true);
    request.headers_mut().insert(AUTHORIZATION, bearer);
    Ok(request)
}

/// The join request as it goes into the query: compressed, wrapped, URL-safe.
fn wrap(request: &proto::JoinRequest) -> String {
    let plain = request.encode_to_vec();
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    let compressed = encoder.write_all(&plain).and_then(|()| encoder.finish());
    let (compression, join_request) = match compressed {
        Ok(bytes) => (proto::wrapped_join_request::Compression::Gzip, bytes),
        Err(_) => (proto::wrapped_join_request::Compression::None, plain),
    };
    let wrapped = proto::WrappedJoinRequest { compression: compression.into(), join_request };
    URL_SAFE.encode(wrapped.encode_to_vec())
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    #[test]
    fn the_join_request_can_be_unwrapped_from_the_query() {
        let join = proto::JoinRequest { participant_sid: "PA_1".repeat(100), ..Default::default() };
        let token = Private::new("a.b.c".to_owned());
        let request = http_request("http://127.0.0.1:8000/", &token, &join).unwrap();
        assert_eq!(request.uri().path(), "/rtc/v1");
        assert_eq!(request.uri().scheme_str(), Some("ws"));
        assert_eq!(request.headers()[AUTHORIZATION], "Bearer a.b.c");
        assert!(!format!("{request:?}").contains("a.b.c"), "tokens are kept out of logs");
        let query = request.uri().query().unwrap().strip_prefix("join_request=").unwrap();
        let wrapped =
            proto::WrappedJoinRequest::decode(URL_SAFE.decode(query).unwrap().as_slice()).unwrap();
        assert_eq!(wrapped.compression, 1);
        let mut plain = Vec::new();
        flate2::read::GzDecoder::new(wrapped.join_request.as_slice())
            .read_to_end(&mut plain)
            .unwrap();
        assert_eq!(proto::JoinRequest::decode(plain.as_slice()).unwrap(), join);
    }

    #[test]
    fn a_token_that_no_header_can_carry_is_refused() {
        let token = Private::new("a\nb".to_owned());
        let refused = http_request("ws://h", &token, &proto::JoinRequest::default());
        assert!(matches!(refused, Err(SignalError::BadRequest)));
    }
}
