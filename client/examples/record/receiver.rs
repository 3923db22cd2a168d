//! A WebRTC endpoint that writes down what arrives, and asks for a keyframe each second.

use std::collections::HashMap;
use std::net::UdpSocket;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bedside_sfu::core::api::Path;
use bedside_sfu::core::codec::Codec;
use bedside_sfu::core::peer::{
    ChannelRole, Credentials, Crypto, DtlsRole, IceRole, Identity, Peer, PeerConfig, Received,
};
use bedside_sfu::core::sdp::{self, Extension, Fill, Local, OpusWish};
use bedside_sfu::core::{Rng, rtcp, rtp, twcc};
use rand::{RngExt as _, SeedableRng as _};

use crate::Error;

/// How long layers and bitrate get to settle.
const WARM_UP: Duration = Duration::from_secs(4);
/// How long is recorded after that: the loop, and two chances for its end.
const RECORDED: Duration = Duration::from_secs(8);
const KEYFRAME_EACH: Duration = Duration::from_secs(1);
const FEEDBACK_EACH: Duration = Duration::from_millis(50);

/// One packet as it came.
pub(crate) struct Packet {
    pub(crate) at: Instant,
    pub(crate) header: rtp::Header,
    pub(crate) descriptor: Vec<u8>,
    pub(crate) payload: Vec<u8>,
}

/// All that came.
pub(crate) struct Take {
    pub(crate) codec: Codec,
    /// From here on it may be used.
    pub(crate) settled: Instant,
    /// By stream, the smallest first.
    pub(crate) streams: Vec<Vec<Packet>>,
}

/// The endpoint, once it has answered.
pub(crate) struct Receiver {
    socket: UdpSocket,
    peer: Peer,
    codec: Codec,
    payload_type: u8,
    rids: Vec<String>,
    extensions: Extensions,
    packets: HashMap<u32, Vec<Packet>>,
    rid_of: HashMap<u32, String>,
    arrivals: twcc::Recorder,
}

/// Ids of the header extensions.
struct Extensions {
    rid: u8,
    transport: u8,
    descriptor: u8,
}

impl Receiver {
    /// Answers an offer with one section of video.
    pub(crate) fn answer(offer: &str) -> Result<(Self, String), Error> {
        let offer = sdp::parse(offer)?;
        let section = offer.sections.first().ok_or("no section")?;
        let codec = section.codecs.first().ok_or("no codec")?;
        let rtp_type = section.codec(&codec.name).ok_or("no codec")?.pt;
        let socket = UdpSocket::bind("127.0.0.1:0")?;
        socket2::SockRef::from(&socket).set_recv_buffer_size(4 << 20)?;
        socket.set_read_timeout(Some(Duration::from_millis(5)))?;
        let identity = Arc::new(Identity::generate()?);
        let credentials = Credentials::random(&mut Rng::from_seed(rand::rng().random()));
        let local = Local {
            credentials: &credentials,
            fingerprint: identity.fingerprint(),
            setup: DtlsRole::Passive,
            candidates: &[socket.local_addr()?],
            tcp_candidates: &[],
            session: 1,
            version: 1,
        };
        let fill = Fill::Receive {
            codec: codec.name.clone(),
            rtx: true,
            red: false,
            opus: OpusWish::default(),
        };
        let answer = sdp::write_answer(&offer, &local, &[fill]);
        let id = |extension| offer.extension_id(extension).unwrap_or_default();
        let now = Instant::now();
        let peer = Peer::new(
            now,
            PeerConfig {
                identity: Arc::clone(&identity),
                role: DtlsRole::Passive,
                remote_fingerprint: offer.fingerprint.clone(),
                ice: IceRole::Lite { local: credentials.clone() },
                allow_cm: true,
                crypto: Crypto::Real,
                channels: ChannelRole::Wait,
            },
        )?;
        let made = Self {
            socket,
            peer,
            codec: Codec::from_name(&codec.name),
            payload_type: rtp_type,
            rids: section.rids.clone(),
            extensions: Extensions {
                rid: id(Extension::Rid),
                transport: id(Extension::TransportCc),
                descriptor: id(Extension::DependencyDescriptor),
            },
            packets: HashMap::new(),
            rid_of: HashMap::new(),
            arrivals: twcc::Recorder::new(now),
        };
        Ok((made, answer))
    }

    /// Receives until there is enough.
    pub(crate) fn record(mut self) -> Result<Take, Error> {
        let start = Instant::now();
        let (mut keyframe_at, mut feedback_at) = (start, start);
        let local = self.socket.local_addr()?;
        let mut buffer = [0; 2048];
        while start.elapsed() < WARM_UP + RECORDED {
            if let Ok((length, remote)) = self.socket.recv_from(&mut buffer) {
                let datagram = buffer.get_mut(..length).unwrap_or_default();
                self.take(Path::Udp { local, remote }, datagram);
            }
            let now = Instant::now();
            self.peer.handle_timeout(now);
            if now >= keyframe_at && !self.packets.is_empty() {
                keyframe_at = now + KEYFRAME_EACH;
                let mut compound = Vec::new();
                for ssrc in self.packets.keys() {
                    rtcp::write_pli(&mut compound, 1, *ssrc);
                }
                self.control(compound)?;
            }
            if now >= feedback_at {
                feedback_at = now + FEEDBACK_EACH;
                let mut feedback = Vec::new();
                let media = self.packets.keys().next().copied().unwrap_or_default();
                while self.arrivals.write(&mut feedback, 1, media) {
                    self.control(std::mem::take(&mut feedback))?;
                }
            }
            while self.peer.poll_event().is_some() {}
            while let Some((path, datagram)) = self.peer.poll_transmit() {
                let Path::Udp { remote, .. } = path else { continue };
                self.socket.send_to(&datagram, remote)?;
            }
        }
        self.finish(start + WARM_UP)
    }

    fn take(&mut self, path: Path, datagram: &mut [u8]) {
        let now = Instant::now();
        let Received::Rtp { packet, .. } = self.peer.handle_datagram(now, path, datagram) else {
            return;
        };
        let Some(header) = rtp::Header::parse(packet) else { return };
        let mut descriptor = Vec::new();
        for (id, value) in rtp::extensions(packet) {
            if id == self.extensions.transport
                && let Some(number) = value.first_chunk()
            {
                self.arrivals.record(u16::from_be_bytes(*number), now);
            } else if id == self.extensions.descriptor {
                descriptor = value.to_vec();
            } else if id == self.extensions.rid {
                self.rid_of.insert(header.ssrc, String::from_utf8_lossy(value).into_owned());
            }
        }
        if header.payload_type == self.payload_type
            && let Some(payload) = rtp::payload(packet, &header)
        {
            let payload = payload.to_vec();
            let packets = self.packets.entry(header.ssrc).or_default();
            packets.push(Packet { at: now, header, descriptor, payload });
        }
    }

    fn control(&mut self, mut compound: Vec<u8>) -> Result<(), Error> {
        if let Some(Path::Udp { remote, .. }) = self.peer.path()
            && self.peer.seal_rtcp(&mut compound, 0)
        {
            self.socket.send_to(&compound, remote)?;
        }
        Ok(())
    }

    /// Orders what came, and makes sure that it is all.
    fn finish(mut self, settled: Instant) -> Result<Take, Error> {
        let mut streams = Vec::new();
        if self.rids.is_empty() {
            streams.extend(self.packets.drain().map(|(_, packets)| packets));
        }
        for rid in &self.rids {
            let ssrc =
                self.rid_of.iter().find(|(ssrc, of)| *of == rid && self.packets.contains_key(ssrc));
            let (ssrc, _) = ssrc.ok_or_else(|| format!("layer {rid} did not come"))?;
            streams.extend(self.packets.remove(ssrc));
        }
        for packets in &mut streams {
            let first = packets.first().map(|packet| packet.header.sequence).unwrap_or_default();
            let order = |packet: &Packet| packet.header.sequence.wrapping_sub(first) as i16;
            packets.sort_by_key(order);
            let gaps = packets.windows(2).filter(|pair| {
                let [one, two] = pair else { return false };
                two.header.sequence != one.header.sequence.wrapping_add(1)
            });
            let gaps = gaps.count();
            if gaps > 0 {
                return Err(format!("{gaps} gaps; record again").into());
            }
        }
        Ok(Take { codec: self.codec, settled, streams })
    }
}
