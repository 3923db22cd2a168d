//! A running TURN server.

use std::io;
use std::net::{SocketAddr, UdpSocket};

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;

use crate::{Config, Counters, Media, Relay, Transport};

/// Why a node does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Someone else has the port.
    #[error("UDP {0} is taken")]
    PortTaken(SocketAddr),
    /// The address cannot be bound for another reason.
    #[error("cannot bind UDP {address}: {source}")]
    Bind {
        /// Where.
        address: SocketAddr,
        /// Why not.
        source: io::Error,
    },
}

/// Running listeners. Dropping it stops them.
#[derive(Debug)]
pub struct Node {
    local: Vec<SocketAddr>,
}

impl Node {
    /// Binds `udp`, then starts a thread for each. `media` is asked once per listener, by its index
    /// in `udp`, and once per stream, with the index behind the last.
    pub fn start(
        _config: Config,
        udp: Vec<SocketAddr>,
        _media: impl Fn(usize) -> Box<dyn Media> + Send + Sync + 'static,
    ) -> Result<Self, StartError> {
        let mut local = Vec::new();
        for address in udp {
            let refused = |source: io::Error| match source.kind() {
                io::ErrorKind::AddrInUse => StartError::PortTaken(address),
                _ => StartError::Bind { address, source },
            };
            let socket = UdpSocket::bind(address).map_err(refused)?;
            local.push(socket.local_addr().map_err(refused)?);
        }
        Ok(Self { local })
    }

    /// Where UDP is bound.
    pub fn local(&self) -> &[SocketAddr] {
        &self.local
    }

    /// The way back to clients.
    pub fn backhaul(&self) -> Backhaul {
        Backhaul {}
    }

    /// The way in for streams.
    pub fn streams(&self) -> Streams {
        Streams {}
    }

    /// Lets a participant allocate.
    pub fn allow(&self, _participant: &str) {}

    /// Takes all allocations of a participant away, and refuses its credential from now on.
    pub fn free(&self, _participant: &str) {}

    /// What was counted so far.
    pub fn counters(&self) -> Counters {
        Counters::default()
    }
}

/// The way back to clients, from any thread.
#[derive(Clone, Debug)]
pub struct Backhaul {}

impl Backhaul {
    /// Datagrams of `segment` bytes each (the last may be shorter) from a media address to the
    /// client of an allocation. Returns how many older ones had to go for them.
    pub fn send(&self, _relay: Relay, _from: SocketAddr, _segment: usize, _train: Bytes) -> u64 {
        0
    }
}

/// The way in for streams.
#[derive(Clone, Debug)]
pub struct Streams {}

impl Streams {
    /// Serves one stream to its end. Bytes that were read already must be read again from it.
    pub async fn serve<S>(
        &self,
        stream: S,
        _client: SocketAddr,
        _local: SocketAddr,
        _transport: Transport,
    ) where
        S: AsyncRead + AsyncWrite + Unpin + Send,
    {
        drop(stream);
        tokio::task::yield_now().await;
    }

    /// Serves all connections of a listener, for ever.
    pub async fn listen(&self, listener: TcpListener) {
        while let Ok((stream, client)) = listener.accept().await {
            let Ok(local) = stream.local_addr() else { continue };
            let streams = self.clone();
            tokio::spawn(async move { streams.serve(stream, client, local, Transport::Tcp).await });
        }
    }
}
