//! The socket and the peer behind it: what is sealed here goes out there.

use std::cell::RefCell;
use std::future::pending;
use std::io::{self, IoSliceMut};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::{Duration, Instant, SystemTime};

use bedside_sfu::core::api::Path;
use bedside_sfu::core::bwe::Cargo;
use bedside_sfu::core::peer::Peer;
use nix::sys::socket::{setsockopt, sockopt};
use quinn_udp::{BATCH_SIZE, RecvMeta, UdpSocketState};
use socket2::SockRef;
use tokio::io::Interest;
use tokio::net::UdpSocket;

use crate::sender::Outlet;
use crate::uplink::Uplink;

/// Room for any datagram of the media path.
const DATAGRAM: usize = 2048;

/// A time of arrival that is older is a clock that was set.
const MAX_AGE: Duration = Duration::from_secs(1);

thread_local! {
    /// Where many datagrams are received at once, of whichever participant.
    static SLOTS: RefCell<Slots> = RefCell::new(Slots {
        bytes: vec![0; DATAGRAM * BATCH_SIZE],
        metas: [RecvMeta::default(); BATCH_SIZE],
    });
}

struct Slots {
    bytes: Vec<u8>,
    metas: [RecvMeta; BATCH_SIZE],
}

/// One participant's socket, and its peer once an answer was read.
pub(crate) struct Wire {
    /// Arrivals are timed by the kernel.
    timed: bool,
    /// With that, how datagrams are received.
    inlet: Option<UdpSocketState>,
    socket: Option<(UdpSocket, SocketAddr)>,
    pub(crate) peer: Option<Peer>,
    outgoing: Vec<u8>,
    incoming: Vec<u8>,
    /// Once the other side has agreed to transport-wide feedback.
    pub(crate) uplink: Option<Uplink>,
    pub(crate) unsent: u64,
}

impl Wire {
    /// `timed`: datagrams come with the time at which the kernel had them.
    pub(crate) const fn new(timed: bool) -> Self {
        Self {
            timed,
            inlet: None,
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
            if self.timed {
                self.inlet = Some(UdpSocketState::new((&socket).into())?);
                // A sender's train arrives cut into datagrams, as from most network cards: cutting
                // is the sender's cost. A kernel that knows no trains has nothing to turn off.
                let _ = setsockopt(&socket, sockopt::UdpGroSegment, &false);
            }
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

    /// Takes one datagram that is there, or several. `use_it` gets the peer, the datagram and when it
    /// came. False: there is no more.
    pub(crate) fn receive(
        &mut self,
        now: Instant,
        mut use_it: impl FnMut(&mut Peer, Path, Instant, &mut [u8]),
    ) -> bool {
        let (Some((socket, local)), Some(peer)) = (&self.socket, &mut self.peer) else {
            return false;
        };
        if let Some(inlet) = &self.inlet {
            return SLOTS.with_borrow_mut(|slots| {
                receive_many(inlet, socket, slots, |remote, came, datagram| {
                    use_it(peer, Path::Udp { local: *local, remote }, came, datagram);
                })
            });
        }
        let Ok((length, remote)) = socket.try_recv_from(&mut self.incoming) else { return false };
        if let Some(datagram) = self.incoming.get_mut(..length) {
            use_it(peer, Path::Udp { local: *local, remote }, now, datagram);
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

    fn clock(&self) -> Instant {
        Instant::now()
    }
}

/// Takes the datagrams that are there, with the times at which they came. True: there may be more.
fn receive_many(
    inlet: &UdpSocketState,
    socket: &UdpSocket,
    slots: &mut Slots,
    mut use_it: impl FnMut(SocketAddr, Instant, &mut [u8]),
) -> bool {
    let Slots { bytes, metas } = slots;
    let mut chunks = bytes.chunks_exact_mut(DATAGRAM);
    let mut buffers: [IoSliceMut<'_>; BATCH_SIZE] =
        std::array::from_fn(|_| IoSliceMut::new(chunks.next().unwrap_or_default()));
    let received =
        socket.try_io(Interest::READABLE, || inlet.recv(socket.into(), &mut buffers, metas));
    let Ok(count) = received else { return false };
    let clock = (Instant::now(), SystemTime::now());
    for (meta, buffer) in metas.iter().zip(&mut buffers).take(count) {
        if let Some(datagram) = buffer.get_mut(..meta.len) {
            use_it(meta.addr, arrival(clock, meta.timestamp), datagram);
        }
    }
    count == BATCH_SIZE
}

/// The kernel's wall clock time on our monotonic clock.
fn arrival((now, wall): (Instant, SystemTime), stamp: Option<Duration>) -> Instant {
    stamp
        .and_then(|stamp| wall.duration_since(SystemTime::UNIX_EPOCH + stamp).ok())
        .filter(|age| *age < MAX_AGE)
        .and_then(|age| now.checked_sub(age))
        .unwrap_or(now)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn many_datagrams_come_at_once_with_their_times() {
        const WAIT: Duration = Duration::from_millis(800);
        let inbox = std::net::UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        inbox.set_nonblocking(true).unwrap();
        let inlet = UdpSocketState::new((&inbox).into()).unwrap();
        let inbox = UdpSocket::from_std(inbox).unwrap();
        let from = std::net::UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        // The kernel begins to note times a moment after the first socket that asks for them.
        tokio::time::sleep(WAIT).await;
        let before = Instant::now();
        for number in 0..5_u8 {
            from.send_to(&[number; 9], inbox.local_addr().unwrap()).unwrap();
        }
        let sent = Instant::now();
        tokio::time::sleep(WAIT).await;
        let mut slots = Slots {
            bytes: vec![0; DATAGRAM * BATCH_SIZE],
            metas: [RecvMeta::default(); BATCH_SIZE],
        };
        let mut taken = Vec::new();
        while taken.len() < 5 {
            inbox.readable().await.unwrap();
            let more = receive_many(&inlet, &inbox, &mut slots, |remote, came, datagram| {
                assert_eq!(remote, from.local_addr().unwrap());
                taken.push((came, datagram.to_vec()));
            });
            assert!(!more || taken.len() >= BATCH_SIZE);
        }
        for (number, (came, datagram)) in taken.iter().enumerate() {
            assert_eq!(*datagram, [number as u8; 9]);
            // Two clocks are compared, and somebody else may run between them. What was waited is
            // not counted as under way.
            let slack = WAIT / 2;
            assert!(*came + slack >= before && *came <= sent + slack);
        }
    }
}
