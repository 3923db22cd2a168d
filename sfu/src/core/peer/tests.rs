//! Two peers joined by a link in virtual time.

mod crypto;
mod faults;
mod handshake;
mod hostile;
mod paths;

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use rand_chacha::rand_core::{Rng as _, SeedableRng as _};

use super::*;
use crate::core::Rng;

const DELAY: Duration = Duration::from_millis(10);
/// Reliable, lossy, and of data tracks.
const CHANNELS: usize = 3;

pub(super) fn udp(local: u16, remote: u16) -> Path {
    let at = |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    Path::Udp { local: at(local), remote: at(remote) }
}

fn mirrored(path: Path) -> Path {
    match path {
        Path::Udp { local, remote } => Path::Udp { local: remote, remote: local },
        Path::Tcp { .. } | Path::Relay { .. } => unreachable!("the link is UDP"),
    }
}

/// What a side has got, in order.
#[derive(Default)]
pub(super) struct Got {
    pub(super) events: Vec<PeerEvent>,
    pub(super) rtp: Vec<Vec<u8>>,
    pub(super) rtcp: Vec<Vec<u8>>,
    pub(super) drops: Vec<DropReason>,
}

impl Got {
    pub(super) fn connected(&self) -> Option<SrtpProfile> {
        self.events.iter().find_map(|event| match event {
            PeerEvent::Connected { profile } => Some(*profile),
            _ => None,
        })
    }

    pub(super) fn closed(&self) -> Option<CloseReason> {
        self.events.iter().find_map(|event| match event {
            PeerEvent::Closed(reason) => Some(*reason),
            _ => None,
        })
    }

    pub(super) fn open_channels(&self) -> usize {
        self.events.iter().filter(|event| matches!(event, PeerEvent::ChannelOpen(_))).count()
    }

    pub(super) fn data(&self, wanted: DataChannelKind) -> Vec<Bytes> {
        let matching = |event: &PeerEvent| match event {
            PeerEvent::Data { kind, payload } if *kind == wanted => Some(payload.clone()),
            _ => None,
        };
        self.events.iter().filter_map(matching).collect()
    }
}

/// Which side of the link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    Client = 0,
    Server = 1,
}

impl Side {
    fn other(self) -> Self {
        match self {
            Self::Client => Self::Server,
            Self::Server => Self::Client,
        }
    }
}

/// A controlling client (port 1000) and a lite server (port 2000).
pub(super) struct Link {
    pub(super) now: Instant,
    pub(super) peers: [Peer; 2],
    pub(super) got: [Got; 2],
    pub(super) rng: Rng,
    wire: BTreeMap<(Instant, u64), (Side, Path, Vec<u8>)>,
    sent: u64,
    /// Percentage of DTLS datagrams lost, each way.
    pub(super) dtls_loss: u32,
    /// Nothing gets through.
    pub(super) cut: bool,
    /// What the server sees in place of the client's port.
    pub(super) rebound: Option<u16>,
}

/// What differs from the plain case.
#[derive(Clone, Copy)]
pub(super) struct Setup {
    pub(super) seed: u64,
    pub(super) server_role: DtlsRole,
    pub(super) crypto: Crypto,
    pub(super) allow_cm: bool,
    pub(super) wrong_fingerprint_at: Option<Side>,
}

pub(super) const PLAIN: Setup = Setup {
    seed: 1,
    server_role: DtlsRole::Passive,
    crypto: Crypto::Real,
    allow_cm: false,
    wrong_fingerprint_at: None,
};

pub(super) fn identity() -> Arc<Identity> {
    static ONE: std::sync::OnceLock<Arc<Identity>> = std::sync::OnceLock::new();
    ONE.get_or_init(|| Arc::new(Identity::generate().unwrap())).clone()
}

impl Link {
    pub(super) fn new(setup: Setup) -> Self {
        let now = Instant::now();
        let mut rng = Rng::seed_from_u64(setup.seed);
        let (client, server) = (Credentials::random(&mut rng), Credentials::random(&mut rng));
        let client_role = match setup.server_role {
            DtlsRole::Active => DtlsRole::Passive,
            DtlsRole::Passive => DtlsRole::Active,
        };
        let fingerprint = |side| {
            let wrong = setup.wrong_fingerprint_at == Some(side);
            let value = if wrong { ["00"; 32].join(":") } else { identity().fingerprint().into() };
            Fingerprint { algorithm: "sha-256".into(), value }
        };
        let config = |side, role, ice| PeerConfig {
            identity: identity(),
            role,
            remote_fingerprint: fingerprint(side),
            ice,
            allow_cm: setup.allow_cm,
            crypto: setup.crypto,
            channels: if side == Side::Client { ChannelRole::Open } else { ChannelRole::Wait },
        };
        let lite = IceRole::Lite { local: server.clone() };
        let controlling = IceRole::Controlling {
            local: client,
            remote: server,
            candidates: vec![udp(1000, 2000)],
        };
        let peers = [
            Peer::new(now, config(Side::Client, client_role, controlling)).unwrap(),
            Peer::new(now, config(Side::Server, setup.server_role, lite)).unwrap(),
        ];
        Self {
            now,
            peers,
            got: [Got::default(), Got::default()],
            rng,
            wire: BTreeMap::new(),
            sent: 0,
            dtls_loss: 0,
            cut: false,
            rebound: None,
        }
    }

    pub(super) fn joined(setup: Setup) -> Self {
        let mut link = Self::new(setup);
        link.run(Duration::from_secs(2));
        assert!(link.got.iter().all(|got| got.connected().is_some()), "both are connected");
        assert!(
            link.got.iter().all(|got| got.open_channels() == CHANNELS),
            "the channels are open"
        );
        link
    }

    pub(super) fn peer(&mut self, side: Side) -> &mut Peer {
        &mut self.peers[side as usize]
    }

    pub(super) fn got(&self, side: Side) -> &Got {
        &self.got[side as usize]
    }

    pub(super) fn forget(&mut self) {
        self.got = [Got::default(), Got::default()];
    }

    /// Puts a datagram on the wire.
    pub(super) fn send(&mut self, from: Side, path: Path, datagram: Vec<u8>) {
        let dtls = matches!(datagram.first(), Some(20..=63));
        let lost = dtls && self.rng.next_u32() % 100 < self.dtls_loss;
        if lost || self.cut {
            return;
        }
        self.sent += 1;
        let path = match (from, self.rebound) {
            (Side::Client, Some(port)) => mirrored(udp(port, 2000)),
            (Side::Client, None) | (Side::Server, _) => mirrored(path),
        };
        self.wire.insert((self.now + DELAY, self.sent), (from.other(), path, datagram));
    }

    pub(super) fn drain(&mut self) {
        for side in [Side::Client, Side::Server] {
            while let Some((path, datagram)) = self.peer(side).poll_transmit() {
                self.send(side, path, datagram);
            }
            while let Some(event) = self.peer(side).poll_event() {
                self.got[side as usize].events.push(event);
            }
        }
    }

    /// Runs until `duration` has passed or nothing is left to do in it.
    pub(super) fn run(&mut self, duration: Duration) {
        let end = self.now + duration;
        loop {
            self.drain();
            let timers = self.peers.iter().filter_map(Peer::poll_timeout);
            let next = timers.chain(self.wire.keys().next().map(|(at, _)| *at)).min();
            let Some(next) = next.filter(|next| *next <= end) else { break };
            self.now = self.now.max(next);
            let now = self.now;
            while let Some(entry) = self.wire.first_entry()
                && entry.key().0 <= now
            {
                let (side, path, mut datagram) = entry.remove();
                self.deliver(side, path, &mut datagram);
                self.drain();
            }
            for peer in &mut self.peers {
                peer.handle_timeout(now);
            }
        }
        self.now = end;
    }

    pub(super) fn deliver(&mut self, side: Side, path: Path, datagram: &mut [u8]) {
        // The server answers to where it saw the client; the forwarder in between translates.
        let path = match (side, self.rebound) {
            (Side::Client, Some(_)) => udp(1000, 2000),
            (Side::Client, None) | (Side::Server, _) => path,
        };
        let now = self.now;
        let got = &mut self.got[side as usize];
        match self.peers[side as usize].handle_datagram(now, path, datagram) {
            Received::Rtp { packet, header_len } => {
                assert_eq!(header_len, 12);
                got.rtp.push(packet.to_vec());
            }
            Received::Rtcp(packet) => got.rtcp.push(packet.to_vec()),
            Received::Handled => {}
            Received::Dropped(reason) => got.drops.push(reason),
        }
    }

    /// Seals an RTP packet and puts it on the wire, if there is a path.
    pub(super) fn send_rtp(
        &mut self,
        side: Side,
        ssrc: u32,
        sequence: u16,
        payload: &[u8],
    ) -> bool {
        let mut packet = b"in front".to_vec();
        packet.extend(rtp_packet(ssrc, sequence, payload));
        let Some(path) = self.peer(side).path() else { return false };
        assert!(self.peer(side).seal_rtp(&mut packet, 8, 12));
        self.send(side, path, packet[8..].to_vec());
        true
    }
}

pub(super) fn rtp_packet(ssrc: u32, sequence: u16, payload: &[u8]) -> Vec<u8> {
    let mut packet = vec![0x80, 111];
    packet.extend(sequence.to_be_bytes());
    packet.extend([0, 0, 0, 1]);
    packet.extend(ssrc.to_be_bytes());
    packet.extend(payload);
    packet
}

pub(super) fn receiver_report(ssrc: u32) -> Vec<u8> {
    let mut packet = vec![0x80, 201, 0, 1];
    packet.extend(ssrc.to_be_bytes());
    packet
}
