//! One presence in a room: what is thrown away at a full rejoin and kept over a resume.

use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use bedside_sfu::core::Rng;
use bedside_sfu::core::api::MediaKind;
use bedside_sfu::core::ice::Credentials;
use bedside_sfu::core::peer::{
    ChannelRole, Crypto, DtlsRole, IceRole, Identity, IdentityError, Peer, PeerConfig, PeerEvent,
    Received,
};
use bedside_sfu::core::sdp::{self, Local, Setup};
use livekit_protocol as proto;
use rand::Rng as _;

use crate::loops::{Content, FRAME_SIZE, LAYER_SIZES};
use crate::media::Media;
use crate::negotiation::{Negotiation, Numbered};
use crate::participant::{ConnectOptions, Publish};
use crate::sender::Sender;
use crate::wire::Wire;

/// What a microphone sends.
const TONE: &[(Content, &str)] = &[(Content::Tone, "")];
/// What is sent for measuring.
const TIMED_SOUND: &[(Content, &str)] = &[(Content::Timed(MediaKind::Audio), "")];
const TIMED_PICTURE: &[(Content, &str)] = &[(Content::Timed(MediaKind::Video), "")];
/// Candidates of a server that are kept.
const MAX_TRICKLED: usize = 16;
/// Datagrams taken before others get their turn.
const BATCH: usize = 64;

/// The certificate of this process: making one for each of hundreds would take seconds.
pub(crate) fn identity() -> Result<Arc<Identity>, IdentityError> {
    static IDENTITY: OnceLock<Arc<Identity>> = OnceLock::new();
    if let Some(identity) = IDENTITY.get() {
        return Ok(identity.clone());
    }
    let made = Arc::new(Identity::generate()?);
    Ok(IDENTITY.get_or_init(|| made).clone())
}

/// One presence.
pub(crate) struct Session {
    identity: Arc<Identity>,
    credentials: Credentials,
    /// The server's side of ICE: its credentials and candidates.
    remote: Option<(Credentials, Vec<SocketAddr>)>,
    /// Candidates that came by themselves: a server need not have them in its answer.
    trickled: Vec<SocketAddr>,
    pub(crate) sid: String,
    pub(crate) negotiation: Negotiation,
    pub(crate) media: Media,
    pub(crate) wire: Wire,
    pub(crate) connected: bool,
    /// Tracks that the server knows, for a resume.
    pub(crate) published: Vec<proto::TrackPublishedResponse>,
}

impl Session {
    pub(crate) fn new(
        now: Instant,
        identity: Arc<Identity>,
        options: &ConnectOptions,
        rng: &mut Rng,
    ) -> Self {
        Self {
            identity,
            credentials: Credentials::random(rng),
            remote: None,
            trickled: Vec::new(),
            sid: String::new(),
            negotiation: Negotiation::new(rng.next_u64(), options.subscribe),
            media: Media::new(now, rng.next_u32() | 1, options.ear.clone()),
            wire: Wire::new(options.ear.is_some()),
            connected: false,
            published: Vec::new(),
        }
    }

    /// Another network carries us: new paths from a new socket.
    pub(crate) fn change_network(&mut self, now: Instant) {
        let Some((remote, candidates)) = &self.remote else { return };
        self.wire.unbind();
        match (self.wire.paths(candidates), &mut self.wire.peer) {
            (Ok(paths), Some(peer)) => peer.set_remote(now, remote, paths),
            (Ok(_), None) => {}
            (Err(error), _) => tracing::warn!(%error, "no socket for media"),
        }
        if let Some(uplink) = &mut self.wire.uplink {
            uplink.path_changed(now);
        }
    }

    /// The next offer as a message, if one is wanted.
    pub(crate) fn offer(&mut self) -> Option<proto::SessionDescription> {
        let local = Local {
            credentials: &self.credentials,
            fingerprint: self.identity.fingerprint(),
            setup: DtlsRole::Active,
            candidates: &[],
            tcp_candidates: &[],
            session: 0,
            version: 0,
        };
        self.negotiation.offer(local).map(|offer| description("offer", offer))
    }

    /// Adds the sections of what is published; returns the announcements.
    pub(crate) fn publish(
        &mut self,
        publish: Publish,
        rng: &mut Rng,
    ) -> Vec<proto::AddTrackRequest> {
        let mut requests = Vec::new();
        if publish.microphone {
            let senders = self.track(if publish.timed { TIMED_SOUND } else { TONE }, rng);
            requests.push(announcement(senders, publish));
        }
        if publish.camera {
            let contents = if publish.timed { TIMED_PICTURE } else { contents(publish.layers) };
            let senders = self.track(contents, rng);
            requests.push(announcement(senders, publish));
        }
        for sender in &mut self.media.senders {
            sender.redundancy = if publish.timed { 0 } else { publish.redundancy };
            sender.ear.clone_from(&self.media.ear);
        }
        requests
    }

    /// Adds the section and the streams of one track.
    fn track(&mut self, contents: &[(Content, &str)], rng: &mut Rng) -> &[Sender] {
        let cid = format!("{:016x}", rng.next_u64());
        let mid = self.negotiation.next_mid();
        let from = self.media.senders.len();
        for (content, rid) in contents {
            let numbers = [rng.next_u32(), rng.next_u32(), rng.next_u32(), rng.next_u32()];
            let (rid, mid, cid) = ((*rid).to_owned(), mid.clone(), cid.clone());
            self.media.senders.push(Sender::new(*content, rid, mid, cid, numbers));
        }
        let senders = self.media.senders.get(from..).unwrap_or_default();
        self.negotiation.add_track(senders);
        senders
    }

    /// New local credentials; the next offer carries them.
    pub(crate) fn restart_ice(&mut self, rng: &mut Rng) {
        self.credentials = Credentials::random(rng);
        if let Some(peer) = &mut self.wire.peer {
            peer.restart_ice(self.credentials.clone());
        }
        self.negotiation.want();
    }

    /// Takes an answer; returns the tracks that it brings. An answer that cannot be used is dropped:
    /// the next one may do.
    pub(crate) fn answer(
        &mut self,
        now: Instant,
        answer: &proto::SessionDescription,
    ) -> Vec<String> {
        if !self.negotiation.answered(answer.id, &answer.sdp) {
            return Vec::new();
        }
        let read = match sdp::parse(&answer.sdp) {
            Ok(read) => read,
            Err(error) => {
                tracing::warn!(%error, "answer cannot be read");
                return Vec::new();
            }
        };
        let mut candidates = read.candidates.clone();
        candidates.extend(self.trickled.iter().filter(|one| !read.candidates.contains(one)));
        let paths = match self.wire.paths(&candidates) {
            Ok(paths) => paths,
            Err(error) => {
                tracing::warn!(%error, "no socket for media");
                return Vec::new();
            }
        };
        let remote = Credentials { ufrag: read.ufrag.clone(), pwd: read.pwd.clone() };
        if let Some(peer) = &mut self.wire.peer {
            if self.remote.as_ref().is_none_or(|(known, _)| known.ufrag != remote.ufrag) {
                peer.set_remote(now, &remote, paths);
            }
        } else {
            let config = PeerConfig {
                identity: self.identity.clone(),
                role: match read.setup {
                    Setup::Active => DtlsRole::Passive,
                    Setup::Passive | Setup::ActPass => DtlsRole::Active,
                },
                remote_fingerprint: read.fingerprint.clone(),
                ice: IceRole::Controlling {
                    local: self.credentials.clone(),
                    remote: remote.clone(),
                    candidates: paths,
                },
                allow_cm: true,
                crypto: Crypto::Real,
                channels: ChannelRole::Open,
            };
            match Peer::new(now, config) {
                Ok(peer) => self.wire.peer = Some(peer),
                Err(error) => tracing::warn!(%error, "no peer"),
            }
        }
        self.remote = Some((remote, candidates));
        let added = self.media.apply(now, &read, &mut self.wire);
        if self.connected {
            self.media.start(now);
        }
        added
    }

    /// Takes a candidate of the server's that comes after its answer, or before it.
    pub(crate) fn candidate(&mut self, now: Instant, init: &str) {
        let Some(address) = candidate(init) else { return };
        if self.trickled.contains(&address) || self.trickled.len() >= MAX_TRICKLED {
            return;
        }
        self.trickled.push(address);
        let Some((remote, candidates)) = &mut self.remote else { return };
        if candidates.contains(&address) || self.connected {
            return;
        }
        candidates.push(address);
        if let (Ok(paths), Some(peer)) = (self.wire.paths(candidates), &mut self.wire.peer) {
            peer.set_remote(now, remote, paths);
        }
    }

    /// Takes the datagrams that are there.
    pub(crate) fn receive(&mut self, now: Instant) {
        let media = &mut self.media;
        let mut rtcp = Vec::new();
        for _ in 0..BATCH {
            let taken = self.wire.receive(now, |peer, path, came, datagram| {
                match peer.handle_datagram(now, path, datagram) {
                    Received::Rtp { packet, .. } => media.rtp(came, packet),
                    // Answering needs the peer, which is lent out here.
                    Received::Rtcp(compound) => rtcp.push(compound.to_vec()),
                    Received::Handled | Received::Dropped(_) => {}
                }
            });
            for compound in rtcp.drain(..) {
                media.rtcp(now, &compound, &mut self.wire);
            }
            if !taken {
                break;
            }
        }
    }

    /// Does what is due at `now`.
    pub(crate) fn tick(&mut self, now: Instant) {
        if let Some(peer) = &mut self.wire.peer
            && peer.poll_timeout().is_some_and(|at| at <= now)
        {
            peer.handle_timeout(now);
        }
        if self.connected && self.media.due(&self.wire) <= now {
            self.media.tick(now, &mut self.wire);
        }
        self.wire.flush();
    }

    /// When [`Session::tick`] has something to do.
    pub(crate) fn due(&self) -> Option<Instant> {
        let media = self.connected.then(|| self.media.due(&self.wire));
        let peer = self.wire.peer.as_ref().and_then(Peer::poll_timeout);
        media.into_iter().chain(peer).min()
    }

    pub(crate) fn peer_event(&mut self) -> Option<PeerEvent> {
        self.wire.peer.as_mut().and_then(Peer::poll_event)
    }

    /// What a resuming client believes.
    pub(crate) fn sync_state(&self, subscribe: bool) -> proto::SyncState {
        let (offer, answer) = self.negotiation.last();
        let channel = |(label, id): (&str, u32)| proto::DataChannelInfo {
            label: label.to_owned(),
            id,
            target: proto::SignalTarget::Publisher.into(),
        };
        proto::SyncState {
            answer: answer.map(|answer| description("answer", answer)),
            offer: offer.map(|offer| description("offer", offer)),
            // With automatic subscription: the unwanted ones, of which there are none.
            subscription: Some(proto::UpdateSubscription {
                subscribe: !subscribe,
                ..Default::default()
            }),
            publish_tracks: self.published.clone(),
            data_channels: [("_reliable", 1), ("_lossy", 3)].map(channel).to_vec(),
            ..Default::default()
        }
    }
}

fn description(kind: &str, (id, sdp): Numbered) -> proto::SessionDescription {
    proto::SessionDescription { r#type: kind.to_owned(), sdp, id, ..Default::default() }
}

/// The address of a UDP host candidate of the first component, in JSON as browsers have it.
fn candidate(init: &str) -> Option<SocketAddr> {
    let (_, rest) = init.split_once("candidate:")?;
    let mut words = rest.split('"').next()?.split_whitespace();
    let (_foundation, component, transport) = (words.next()?, words.next()?, words.next()?);
    let (_priority, address, port) = (words.next()?, words.next()?, words.next()?);
    let (label, kind) = (words.next()?, words.next()?);
    let wanted = component == "1"
        && transport.eq_ignore_ascii_case("udp")
        && (label, kind) == ("typ", "host");
    let address = SocketAddr::new(address.parse().ok()?, port.parse().ok()?);
    (wanted && address.port() != 0).then_some(address)
}

/// The loops of a picture with so many simulcast layers, and what browsers call those.
const fn contents(layers: u8) -> &'static [(Content, &'static str)] {
    match layers {
        0 | 1 => &[(Content::Face, "")],
        2 => &[(Content::Layer(1), "q"), (Content::Layer(2), "h")],
        _ => &[(Content::Layer(0), "q"), (Content::Layer(1), "h"), (Content::Layer(2), "f")],
    }
}

fn announcement(senders: &[Sender], publish: Publish) -> proto::AddTrackRequest {
    let cid = senders.first().map(|sender| sender.cid.clone()).unwrap_or_default();
    let request = proto::AddTrackRequest { cid: cid.clone(), ..Default::default() };
    let qualities =
        [proto::VideoQuality::Low, proto::VideoQuality::Medium, proto::VideoQuality::High];
    let layer = |(sender, quality): (&Sender, proto::VideoQuality)| {
        let (width, height) = match sender.content {
            Content::Layer(layer) => LAYER_SIZES.get(layer).copied().unwrap_or(FRAME_SIZE),
            Content::Tone | Content::Face | Content::Timed(_) => FRAME_SIZE,
        };
        // A picture without simulcast is the best there is.
        let only = sender.rid.is_empty();
        proto::VideoLayer {
            quality: if only { proto::VideoQuality::High } else { quality }.into(),
            width,
            height,
            bitrate: sender.full_rate() as u32,
            ..Default::default()
        }
    };
    if senders.iter().any(|sender| sender.kind() == MediaKind::Audio) {
        return proto::AddTrackRequest {
            name: "microphone".to_owned(),
            r#type: proto::TrackType::Audio.into(),
            source: proto::TrackSource::Microphone.into(),
            disable_red: publish.redundancy == 0,
            ..request
        };
    }
    let layers: Vec<proto::VideoLayer> = senders.iter().zip(qualities).map(layer).collect();
    let codec = proto::SimulcastCodec {
        codec: "vp8".to_owned(),
        cid,
        layers: layers.clone(),
        ..Default::default()
    };
    let (width, height) = FRAME_SIZE;
    proto::AddTrackRequest {
        name: "camera".to_owned(),
        r#type: proto::TrackType::Video.into(),
        source: proto::TrackSource::Camera.into(),
        width,
        height,
        layers,
        simulcast_codecs: vec![codec],
        ..request
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn candidates_are_read_out_of_their_json() {
        let init =
            |line: &str| format!(r#"{{"candidate":"{line}","sdpMid":"0","sdpMLineIndex":0}}"#);
        let good = init("candidate:4 1 udp 2130706431 127.0.0.1 7882 typ host ufrag ab");
        assert_eq!(candidate(&good), Some(SocketAddr::from(([127, 0, 0, 1], 7882))));
        for other in [
            "candidate:4 2 udp 2130706431 127.0.0.1 7882 typ host",
            "candidate:4 1 tcp 2130706431 127.0.0.1 7882 typ host tcptype passive",
            "candidate:4 1 udp 2130706431 here.local 7882 typ host",
            "candidate:4 1 udp 2130706431 127.0.0.1 0 typ host",
            "candidate:4 1 udp 2130706431 127.0.0.1 99999 typ host",
            "candidate:4 1 udp 2130706431 127.0.0.1 7882 typ relay",
            "candidate:4 1 udp",
            "",
        ] {
            assert_eq!(candidate(&init(other)), None, "{other}");
        }
        for cut in 0..good.len() {
            let _any = candidate(&good[..cut]);
        }
    }

    #[test]
    fn what_trickles_in_is_bounded() {
        let mut rng = <Rng as rand::SeedableRng>::from_seed([5; 32]);
        let options = ConnectOptions::new("ws://127.0.0.1", "token");
        let now = Instant::now();
        let mut session = Session::new(now, identity().unwrap(), &options, &mut rng);
        for port in 1..100 {
            let line = format!("candidate:1 1 udp 1 127.0.0.1 {port} typ host");
            session.candidate(now, &line);
            session.candidate(now, &line);
        }
        assert_eq!(session.trickled.len(), MAX_TRICKLED);
    }
}
