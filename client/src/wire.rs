//! The socket and the peer behind it: what is sealed here goes out there.

use std::future::pending;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Instant;

use bedside_sfu::core::api::Path;
use bedside_sfu::core::bwe::Cargo;
use bedside_sfu::core::peer::Peer;
use socket2::SockRef;
use tokio::net::UdpSocket;

use crate::sender::Outlet;
use crate::uplink::Uplink;

/// Room for any datagram of the media path.
const DATAGRAM: usize = 2048;

/// One participant's socket, and its peer once an answer was read.
pub(crate) struct Wire {
    socket: Option<(UdpSocket, SocketAddr)>,
    pub(crate) peer: Option<Peer>,
    outgoing: Vec<u8>,
    incoming: Vec<u8>,
    /// Once the other side has agreed to transport-wide feedback.
    pub(crate) uplink: Option<Uplink>,
    pub(crate) unsent: u64,
}

impl Wire {
    pub(crate) const fn new() -> Self {
        Self {
            socket: None,
            peer: None,
            outgoing: Vec::new(),
            incoming: Vec::new(),
            uplink: None,
            unsent: 0,
        }
    }

    /// Makes the paths to the server's candidates, binding a socket of their family first.
    pub(crate) fn paths(&mut self, candidates: &[SocketAddr]) -> io::Result<Vec<Path>> {
        if self.socket.is_none() {
            let bind = match candidates.first() {
                Some(SocketAddr::V6(_)) => SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0)),
                Some(SocketAddr::V4(_)) | None => SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)),
            };
            let socket = std::net::UdpSocket::bind(bind)?;
            socket.set_nonblocking(true)?;
            let local = socket.local_addr()?;
            self.socket = Some((UdpSocket::from_std(socket)?, local));
            self.incoming.resize(DATAGRAM, 0);
            self.outgoing.reserve(DATAGRAM);
        }
        let Some((_, local)) = self.socket else { return Ok(Vec::new()) };
        let same_family = candidates.iter().filter(|remote| remote.is_ipv4() == local.is_ipv4());
        Ok(same_family.map(|remote| Path::Udp { local, remote: *remote }).collect())
    }

    /// Forgets the socket: [`Wire::paths`] makes a new one.
    pub(crate) fn unbind(&mut self) {
        self.socket = None;
    }

    /// The socket, once there is one.
    pub(crate) fn socket(&self) -> Option<&UdpSocket> {
        self.socket.as_ref().map(|(socket, _)| socket)
    }

    /// Takes one datagram that is there. `use_it` gets the peer and the datagram.
    pub(crate) fn receive(&mut self, mut use_it: impl FnMut(&mut Peer, Path, &mut [u8])) -> bool {
        let (Some((socket, local)), Some(peer)) = (&self.socket, &mut self.peer) else {
            return false;
        };
        let Ok((length, remote)) = socket.try_recv_from(&mut self.incoming) else { return false };
        if let Some(datagram) = self.incoming.get_mut(..length) {
            use_it(peer, Path::Udp { local: *local, remote }, datagram);
        }
        true
    }

    /// Sends what the peer itself has to send.
    pub(crate) fn flush(&mut self) {
        while let Some((path, datagram)) = self.peer.as_mut().and_then(Peer::poll_transmit) {
            self.transmit(path, &datagram);
        }
    }

    /// Seals and sends RTCP.
    pub(crate) fn rtcp(&mut self, compound: &[u8]) {
        let Some(peer) = &mut self.peer else { return };
        let Some(path) = peer.path() else { return };
        self.outgoing.clear();
        self.outgoing.extend_from_slice(compound);
        if peer.seal_rtcp(&mut self.outgoing, 0) {
            self.unsent += u64::from(!transmit(self.socket.as_ref(), path, &self.outgoing));
        }
    }

    fn transmit(&mut self, path: Path, datagram: &[u8]) {
        self.unsent += u64::from(!transmit(self.socket.as_ref(), path, datagram));
    }
}

impl Outlet for Wire {
    fn rtp(&mut self, write: &mut dyn FnMut(&mut Vec<u8>) -> usize) -> Option<&[u8]> {
        let peer = self.peer.as_mut()?;
        let path = peer.path()?;
        self.outgoing.clear();
        let header_len = write(&mut self.outgoing);
        if !peer.seal_rtp(&mut self.outgoing, 0, header_len) {
            return None;
        }
        self.unsent += u64::from(!transmit(self.socket.as_ref(), path, &self.outgoing));
        Some(&self.outgoing)
    }

    fn again(&mut self, datagram: &[u8]) {
        if let Some(path) = self.peer.as_ref().and_then(Peer::path) {
            self.transmit(path, datagram);
        }
    }

    fn transport_sequence(&mut self, now: Instant, bytes: usize, cargo: Cargo) -> u16 {
        self.uplink.as_mut().map_or(0, |uplink| uplink.sent(now, bytes, cargo))
    }

    fn is_paced(&self) -> bool {
        self.uplink.is_some()
    }
}

/// Waits until datagrams can be taken; for ever while there is no socket.
pub(crate) async fn readable(socket: Option<&UdpSocket>) {
    match socket {
        Some(socket) if socket.readable().await.is_ok() => {}
        _ => pending().await,
    }
}

/// Whether the kernel took the datagram. A full socket buffer is loss, as on any network.
fn transmit(socket: Option<&(UdpSocket, SocketAddr)>, path: Path, datagram: &[u8]) -> bool {
    match (socket, path) {
        (Some((socket, _)), Path::Udp { remote, .. }) => {
            // Past the runtime's idea of readiness, which knows nothing of a socket's first moments:
            // the first check would be lost.
            SockRef::from(socket).send_to(datagram, &remote.into()).is_ok()
        }
        (None, _) | (_, Path::Tcp { .. } | Path::Relay { .. }) => false,
    }
}
