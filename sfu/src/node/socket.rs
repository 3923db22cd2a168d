//! One UDP socket: batches in (GRO), one call per train out (GSO), answers from the address they
//! came to.
//!
//! Nothing that the kernel says about a datagram is an error for the caller: what cannot be sent
//! is counted and gone, as on any network. Datagrams that nobody can have sent honestly (source
//! port 0, a source that is no unicast address) never leave this file: answering one of them fails
//! with `EINVAL`, which would cost the whole socket its segmentation offload.

use std::io::{self, IoSliceMut};
use std::net::{IpAddr, Ipv6Addr, SocketAddr, TcpListener, UdpSocket};
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant, SystemTime};

use quinn_udp::{BATCH_SIZE, RecvMeta, Transmit, UdpSocketState};
use socket2::{Domain, Protocol, Type};

/// Room for one receive: the kernel coalesces up to this much into one buffer.
const SLOT: usize = 64 * 1024;
/// The longest train in bytes; an IP packet cannot carry more.
const MAX_TRAIN: usize = 65_000;
/// What we ask of the kernel for each direction; it may give less (`net.core.rmem_max`).
const BUFFER: usize = 4 << 20;
/// TCP connections that may wait to be accepted.
const BACKLOG: i32 = 256;
/// One odd route makes the kernel refuse a train, and offload is given up. Try again this much
/// later, so that one participant's route does not slow all others for ever.
const OFFLOAD_RETRY: Duration = Duration::from_secs(10);
/// A kernel time stamp older than this is a clock step, not a late packet.
const MAX_AGE: Duration = Duration::from_secs(1);

/// A UDP socket with offload.
#[derive(Debug)]
pub struct Socket {
    io: UdpSocket,
    state: UdpSocketState,
    local: SocketAddr,
    offload_lost: Option<Instant>,
    failures: u64,
}

impl Socket {
    /// Binds. An unspecified IPv6 address takes IPv4 too.
    pub fn bind(address: SocketAddr) -> io::Result<Self> {
        let io =
            socket2::Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
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

    /// Where it is bound.
    pub const fn local(&self) -> SocketAddr {
        self.local
    }

    /// Datagrams that the kernel would not take.
    pub const fn failures(&self) -> u64 {
        self.failures
    }

    /// How many bytes the kernel keeps for us until we read them.
    pub fn receive_buffer(&self) -> io::Result<usize> {
        self.state.recv_buffer_size((&self.io).into())
    }

    /// Fills the batch with what waits. `WouldBlock` = nothing waits.
    pub fn receive(&self, batch: &mut Batch) -> io::Result<()> {
        batch.count = 0;
        let mut slots = batch.buffer.chunks_exact_mut(SLOT);
        let mut buffers: [IoSliceMut<'_>; BATCH_SIZE] =
            std::array::from_fn(|_| IoSliceMut::new(slots.next().unwrap_or_default()));
        batch.count = self.state.recv((&self.io).into(), &mut buffers, &mut batch.metas)?;
        batch.clock = (Instant::now(), SystemTime::now());
        batch.bound = self.local;
        Ok(())
    }

    /// Sends datagrams of `segment_size` each (the last may be shorter) from one of our addresses.
    pub fn send(
        &mut self,
        now: Instant,
        local: IpAddr,
        remote: SocketAddr,
        segment_size: usize,
        contents: &[u8],
    ) {
        if segment_size == 0 {
            return;
        }
        self.retry_offload(now);
        // A socket that is bound to one address has no other to answer from.
        let choose = self.local.ip().is_unspecified() && !local.is_unspecified();
        let source = choose.then(|| self.on_wire(local));
        let destination = SocketAddr::new(self.on_wire(remote.ip()), remote.port());
        let per_train = self.state.max_gso_segments().min(MAX_TRAIN / segment_size).max(1);
        for train in contents.chunks(segment_size.saturating_mul(per_train)) {
            let sent = self.transmit(source, destination, segment_size, train);
            if sent.is_ok() {
                continue;
            }
            if train.len() <= segment_size {
                self.failures += 1;
            } else {
                self.send_singly(now, source, destination, segment_size, train);
            }
        }
    }

    /// After a refused train: each datagram for itself, unless the buffer is full.
    fn send_singly(
        &mut self,
        now: Instant,
        source: Option<IpAddr>,
        destination: SocketAddr,
        segment_size: usize,
        train: &[u8],
    ) {
        if self.state.max_gso_segments() == 1 && self.offload_lost.is_none() {
            self.offload_lost = Some(now);
        }
        for datagram in train.chunks(segment_size) {
            if self.transmit(source, destination, segment_size, datagram).is_err() {
                self.failures += 1;
            }
        }
    }

    fn transmit(
        &self,
        src_ip: Option<IpAddr>,
        destination: SocketAddr,
        segment_size: usize,
        contents: &[u8],
    ) -> io::Result<()> {
        let segment_size = (contents.len() > segment_size).then_some(segment_size);
        let transmit = Transmit { destination, ecn: None, contents, segment_size, src_ip };
        self.state.try_send((&self.io).into(), &transmit)
    }

    fn retry_offload(&mut self, now: Instant) {
        let Some(since) = self.offload_lost else { return };
        if now.saturating_duration_since(since) < OFFLOAD_RETRY {
            return;
        }
        self.offload_lost = None;
        if let Ok(state) = UdpSocketState::new((&self.io).into()) {
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

/// Listens on TCP. An unspecified IPv6 address takes IPv4 too.
pub(super) fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let io = socket2::Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    if address.is_ipv6() {
        io.set_only_v6(!address.ip().is_unspecified())?;
    }
    // A restart must not wait for connections of before to be forgotten.
    io.set_reuse_address(true)?;
    io.set_nonblocking(true)?;
    io.bind(&address.into())?;
    io.listen(BACKLOG)?;
    Ok(io.into())
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.io.as_fd()
    }
}

/// Room for one batch of received datagrams; made once, used for ever.
#[derive(Debug)]
pub struct Batch {
    buffer: Vec<u8>,
    metas: [RecvMeta; BATCH_SIZE],
    count: usize,
    clock: (Instant, SystemTime),
    bound: SocketAddr,
}

impl Batch {
    /// An empty batch.
    pub fn new() -> Self {
        Self {
            buffer: vec![0; SLOT * BATCH_SIZE],
            metas: [RecvMeta::default(); BATCH_SIZE],
            count: 0,
            clock: (Instant::now(), SystemTime::now()),
            bound: SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), 0),
        }
    }

    /// Whether the last receive filled every slot, so that more may wait.
    pub const fn is_full(&self) -> bool {
        self.count == BATCH_SIZE
    }

    /// When the last receive returned.
    pub const fn received_at(&self) -> Instant {
        self.clock.0
    }

    /// The datagrams of the last receive; those from impossible sources are `Err`.
    pub fn datagrams(&mut self) -> impl Iterator<Item = Result<Datagram<'_>, ImpossibleSource>> {
        let (clock, bound) = (self.clock, self.bound);
        let metas = self.metas.iter().take(self.count);
        metas.zip(self.buffer.chunks_exact_mut(SLOT)).flat_map(move |(meta, slot)| {
            let remote = SocketAddr::new(meta.addr.ip().to_canonical(), meta.addr.port());
            let local = meta.dst_ip.map_or_else(|| bound.ip(), |ip| ip.to_canonical());
            let local = SocketAddr::new(local, bound.port());
            let received = arrival(clock, meta.timestamp);
            let possible = is_possible(remote);
            slot.get_mut(..meta.len).unwrap_or_default().chunks_mut(meta.stride.max(1)).map(
                move |data| {
                    possible
                        .then_some(Datagram { local, remote, received, data })
                        .ok_or(ImpossibleSource)
                },
            )
        })
    }
}

impl Default for Batch {
    fn default() -> Self {
        Self::new()
    }
}

/// One received datagram.
#[derive(Debug)]
pub struct Datagram<'a> {
    /// The address of ours that it came to.
    pub local: SocketAddr,
    /// Where it came from.
    pub remote: SocketAddr,
    /// When the kernel got it.
    pub received: Instant,
    /// Its bytes.
    pub data: &'a mut [u8],
}

/// A datagram with a source that nobody can answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ImpossibleSource;

/// Can an honest sender have this address?
const fn is_possible(source: SocketAddr) -> bool {
    let unicast = match source.ip() {
        IpAddr::V4(ip) => !(ip.is_unspecified() || ip.is_multicast() || ip.is_broadcast()),
        IpAddr::V6(ip) => !(ip.is_unspecified() || ip.is_multicast()),
    };
    unicast && source.port() != 0
}

/// The kernel's wall clock stamp on our monotonic clock.
fn arrival((now, wall): (Instant, SystemTime), stamp: Option<Duration>) -> Instant {
    stamp
        .and_then(|stamp| wall.duration_since(SystemTime::UNIX_EPOCH + stamp).ok())
        .filter(|age| *age < MAX_AGE)
        .and_then(|age| now.checked_sub(age))
        .unwrap_or(now)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn receive_some(socket: &Socket, batch: &mut Batch) {
        let deadline = Instant::now() + Duration::from_secs(2);
        while let Err(error) = socket.receive(batch) {
            assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
            assert!(Instant::now() < deadline, "nothing came");
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    #[test]
    fn a_train_arrives_as_datagrams_with_addresses_and_time() {
        let mut from = Socket::bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let to = Socket::bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let before = Instant::now();
        let train: Vec<u8> = (0..250_u8).collect();
        from.send(before, from.local().ip(), to.local(), 100, &train);
        let mut batch = Batch::new();
        let mut seen = Vec::new();
        while seen.len() < 3 {
            receive_some(&to, &mut batch);
            for datagram in batch.datagrams().map(Result::unwrap) {
                assert_eq!((datagram.remote, datagram.local), (from.local(), to.local()));
                assert!(datagram.received >= before && datagram.received <= Instant::now());
                seen.push(datagram.data.to_vec());
            }
        }
        assert_eq!(seen, train.chunks(100).map(<[u8]>::to_vec).collect::<Vec<_>>());
        assert_eq!(from.failures(), 0);
    }

    #[test]
    fn an_unspecified_ipv6_socket_answers_ipv4_from_the_address_it_was_reached_at() {
        let Ok(mut both) = Socket::bind("[::]:0".parse().unwrap()) else {
            return; // a machine without IPv6
        };
        let mut client = Socket::bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let second = SocketAddr::new("127.0.0.2".parse().unwrap(), both.local().port());
        client.send(Instant::now(), client.local().ip(), second, 5, b"hello");
        let mut batch = Batch::new();
        receive_some(&both, &mut batch);
        let (local, remote) = batch
            .datagrams()
            .map(Result::unwrap)
            .map(|datagram| (datagram.local, datagram.remote))
            .next()
            .unwrap();
        assert_eq!((local, remote), (second, client.local()));
        both.send(Instant::now(), local.ip(), remote, 5, b"world");
        receive_some(&client, &mut batch);
        assert_eq!(batch.datagrams().next().unwrap().unwrap().remote, second);
    }

    #[test]
    fn what_the_kernel_refuses_is_counted_and_offload_comes_back() {
        let mut socket = Socket::bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let ip = socket.local().ip();
        let good = Socket::bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let (nowhere, now) = (SocketAddr::new(ip, 0), Instant::now());
        socket.send(now, ip, nowhere, 10, &[0; 30]);
        assert_eq!(socket.failures(), 3);
        let before = socket.state.max_gso_segments();
        assert_eq!(before, 1, "quinn-udp gives offload up after EINVAL");
        socket.send(now + OFFLOAD_RETRY, ip, good.local(), 10, &[0; 30]);
        assert!(socket.state.max_gso_segments() > 1);
        assert_eq!(socket.failures(), 3);
        let mut batch = Batch::new();
        receive_some(&good, &mut batch);
        assert_eq!(batch.datagrams().count(), 3);
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

    #[test]
    fn a_stepped_clock_does_not_move_arrivals() {
        let (now, wall) = (Instant::now(), SystemTime::now());
        let stamp = |t: SystemTime| t.duration_since(SystemTime::UNIX_EPOCH).ok();
        let ms = Duration::from_millis;
        assert_eq!(arrival((now, wall), stamp(wall - ms(3))), now - ms(3));
        assert_eq!(arrival((now, wall), stamp(wall + ms(3))), now);
        assert_eq!(arrival((now, wall), stamp(wall - ms(3_600_000))), now);
        assert_eq!(arrival((now, wall), None), now);
    }
}
