//! One UDP socket: batches in (GRO), one call per train out (GSO), answers from the address they
//! came to.
//!
//! Nothing that the kernel says about a datagram ends anything: what cannot be sent is counted and
//! gone. Datagrams that nobody can have sent honestly never leave this file.

use std::io::{self, IoSliceMut};
use std::net::{IpAddr, Ipv6Addr, SocketAddr, UdpSocket};
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

use quinn_udp::{BATCH_SIZE, RecvMeta, Transmit, UdpSocketState};
use socket2::{Domain, Protocol, Type};

/// Room for one receive: the kernel coalesces up to this much into one buffer.
const SLOT: usize = 64 * 1024;
/// The longest train in bytes; an IP packet cannot carry more.
const MAX_TRAIN: usize = 65_000;
/// What we ask of the kernel for each direction; it may give less.
const BUFFER: usize = 4 << 20;
/// One odd route makes the kernel refuse a train, and then `quinn-udp` gives offload up for the
/// whole socket. Try again this much later.
const OFFLOAD_RETRY: Duration = Duration::from_secs(10);

/// A UDP socket with offload.
#[derive(Debug)]
pub(crate) struct Socket {
    io: UdpSocket,
    state: UdpSocketState,
    local: SocketAddr,
    offload_lost: Option<Instant>,
    pub(crate) failures: u64,
}

impl Socket {
    /// Binds. An unspecified IPv6 address takes IPv4, too.
    pub(crate) fn bind(address: SocketAddr) -> io::Result<Self> {
        let kind = (Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP));
        let io = socket2::Socket::new(kind.0, kind.1, kind.2)?;
        if address.is_ipv6() {
            io.set_only_v6(!address.ip().is_unspecified())?;
        }
        io.bind(&address.into())?;
        let io = UdpSocket::from(io);
        let state = UdpSocketState::new((&io).into())?;
        // Best effort: an unprivileged process gets what the system's limit allows.
        let _ = state.set_recv_buffer_size((&io).into(), BUFFER);
        let _ = state.set_send_buffer_size((&io).into(), BUFFER);
        let local = io.local_addr()?;
        Ok(Self { io, state, local, offload_lost: None, failures: 0 })
    }

    pub(crate) const fn local(&self) -> SocketAddr {
        self.local
    }

    /// Fills the batch with what waits. `WouldBlock`: nothing waits.
    pub(crate) fn receive(&self, batch: &mut Batch) -> io::Result<()> {
        batch.count = 0;
        batch.bound = self.local;
        let mut slots = batch.buffer.chunks_exact_mut(SLOT);
        let mut buffers: [IoSliceMut<'_>; BATCH_SIZE] =
            std::array::from_fn(|_| IoSliceMut::new(slots.next().unwrap_or_default()));
        batch.count = self.state.recv((&self.io).into(), &mut buffers, &mut batch.metas)?;
        Ok(())
    }

    /// Sends datagrams of `segment` bytes each (the last may be shorter) from one of our addresses.
    pub(crate) fn send(
        &mut self,
        now: Instant,
        local: IpAddr,
        remote: SocketAddr,
        segment: usize,
        contents: &[u8],
    ) {
        if segment == 0 {
            return;
        }
        self.retry_offload(now);
        // A socket that is bound to one address has no other to answer from.
        let choose = self.local.ip().is_unspecified() && !local.is_unspecified();
        let source = choose.then(|| self.on_wire(local));
        let remote = SocketAddr::new(self.on_wire(remote.ip()), remote.port());
        let at_once = self.state.max_gso_segments().min(MAX_TRAIN / segment).max(1);
        for train in contents.chunks(segment.saturating_mul(at_once)) {
            if self.transmit(source, remote, segment, train).is_ok() {
                continue;
            }
            if train.len() <= segment {
                self.failures += 1;
                continue;
            }
            if self.state.max_gso_segments() == 1 && self.offload_lost.is_none() {
                self.offload_lost = Some(now);
            }
            for datagram in train.chunks(segment) {
                let sent = self.transmit(source, remote, segment, datagram);
                self.failures += u64::from(sent.is_err());
            }
        }
    }

    fn transmit(
        &self,
        src_ip: Option<IpAddr>,
        destination: SocketAddr,
        segment: usize,
        contents: &[u8],
    ) -> io::Result<()> {
        let segment_size = (contents.len() > segment).then_some(segment);
        let transmit = Transmit { destination, ecn: None, contents, segment_size, src_ip };
        self.state.try_send((&self.io).into(), &transmit)
    }

    fn retry_offload(&mut self, now: Instant) {
        let Some(since) = self.offload_lost else { return };
        if now.saturating_duration_since(since) >= OFFLOAD_RETRY
            && let Ok(state) = UdpSocketState::new((&self.io).into())
        {
            self.offload_lost = None;
            self.state = state;
        }
    }

    /// An address in the family of this socket.
    const fn on_wire(&self, address: IpAddr) -> IpAddr {
        match (self.local, address) {
            (SocketAddr::V6(_), IpAddr::V4(v4)) => IpAddr::V6(v4.to_ipv6_mapped()),
            (SocketAddr::V6(_) | SocketAddr::V4(_), other) => other,
        }
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.io.as_fd()
    }
}

/// Room for one batch of received datagrams; made once, used for ever.
#[derive(Debug)]
pub(crate) struct Batch {
    buffer: Vec<u8>,
    metas: [RecvMeta; BATCH_SIZE],
    count: usize,
    bound: SocketAddr,
}

impl Batch {
    pub(crate) fn new() -> Self {
        let bound = SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), 0);
        let metas = [RecvMeta::default(); BATCH_SIZE];
        Self { buffer: vec![0; SLOT * BATCH_SIZE], metas, count: 0, bound }
    }

    /// Whether the last receive filled every slot, so that more may wait.
    pub(crate) const fn is_full(&self) -> bool {
        self.count == BATCH_SIZE
    }

    /// The datagrams of the last receive: who, to which address of ours, what.
    pub(crate) fn datagrams(&self) -> impl Iterator<Item = (SocketAddr, SocketAddr, &[u8])> {
        let metas = self.metas.iter().take(self.count);
        metas.zip(self.buffer.chunks_exact(SLOT)).flat_map(|(meta, slot)| {
            let remote = SocketAddr::new(meta.addr.ip().to_canonical(), meta.addr.port());
            let local = meta.dst_ip.map_or_else(|| self.bound.ip(), |ip| ip.to_canonical());
            let local = SocketAddr::new(local, self.bound.port());
            let whole = slot.get(..meta.len).unwrap_or_default();
            let honest = if is_possible(remote) { whole } else { &[] };
            honest.chunks(meta.stride.max(1)).map(move |data| (remote, local, data))
        })
    }
}

/// Can an honest sender have this address?
const fn is_possible(source: SocketAddr) -> bool {
    let unicast = match source.ip() {
        IpAddr::V4(ip) => !(ip.is_unspecified() || ip.is_multicast() || ip.is_broadcast()),
        IpAddr::V6(ip) => !(ip.is_unspecified() || ip.is_multicast()),
    };
    unicast && source.port() != 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_train_arrives_as_datagrams_and_what_is_refused_is_counted() {
        let mut from = Socket::bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let to = Socket::bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let (now, ip) = (Instant::now(), from.local().ip());
        from.send(now, ip, SocketAddr::new(ip, 0), 10, &[0; 30]);
        assert_eq!(from.failures, 3, "nobody has port 0");
        assert_eq!(from.state.max_gso_segments(), 1, "quinn-udp gives offload up after EINVAL");
        let train: Vec<u8> = (0..250_u8).collect();
        from.send(now + OFFLOAD_RETRY, ip, to.local(), 100, &train);
        assert!(from.state.max_gso_segments() > 1);
        assert_eq!(from.failures, 3);
        let mut batch = Batch::new();
        let mut seen = Vec::new();
        while seen.len() < 3 {
            if to.receive(&mut batch).is_err() {
                std::thread::sleep(Duration::from_millis(1));
                continue;
            }
            for (remote, local, data) in batch.datagrams() {
                assert_eq!((remote, local), (from.local(), to.local()));
                seen.push(data.to_vec());
            }
        }
        assert_eq!(seen, train.chunks(100).map(<[u8]>::to_vec).collect::<Vec<_>>());
    }

    #[test]
    fn impossible_sources_are_told_apart() {
        for bad in ["127.0.0.1:0", "0.0.0.0:5", "224.0.0.1:5", "255.255.255.255:5", "[ff02::1]:5"] {
            assert!(!is_possible(bad.parse().unwrap()), "{bad}");
        }
        for good in ["127.0.0.1:5", "10.1.2.3:65535", "[::1]:5", "[2001:db8::1]:1"] {
            assert!(is_possible(good.parse().unwrap()), "{good}");
        }
    }
}
