//! What a test client with two connections has beside the one it publishes by: the one that it
//! receives on, which the server offers.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use bedside_sfu::core::Rng;
use bedside_sfu::core::api::Path;
use bedside_sfu::core::ice::Credentials;
use bedside_sfu::core::peer::{ChannelRole, Crypto, DtlsRole, IceRole, Identity, Peer, PeerConfig};
use bedside_sfu::core::sdp::{self, Description, Fill, Local, OpusWish, Section, SectionKind};
use rand_chacha::rand_core::SeedableRng as _;

use crate::world::server;

pub struct Receiver {
    pub address: SocketAddr,
    pub peer: Option<Peer>,
    /// The last offer.
    pub offer: Option<Description>,
    /// Offers answered.
    pub answers: u32,
    /// Answers no more.
    pub mute: bool,
    crypto: Crypto,
    identity: Arc<Identity>,
    credentials: Credentials,
    rng: Rng,
}

impl Receiver {
    pub fn new(number: usize, crypto: Crypto, identity: Arc<Identity>) -> Self {
        let mut rng = Rng::from_seed([number as u8 + 150; 32]);
        Self {
            address: SocketAddr::from(([127, 0, 0, 1], 41_000 + number as u16)),
            peer: None,
            offer: None,
            answers: 0,
            mute: false,
            crypto,
            identity,
            credentials: Credentials::random(&mut rng),
            rng,
        }
    }

    /// Answers an offer, as browsers do: everything is taken that can be read.
    pub fn answer(
        &mut self,
        now: Instant,
        text: &str,
        reads: impl Fn(&Section) -> bool,
        reads_red: bool,
    ) -> String {
        let offer = sdp::parse(text).unwrap();
        assert!(text.contains("a=ice-lite"), "the server checks nothing");
        assert_eq!(offer.sections[0].kind, SectionKind::Application);
        if let Some(before) = &self.offer {
            let mids = |of: &Description| -> Vec<String> {
                of.sections.iter().map(|section| section.mid.clone()).collect()
            };
            assert!(mids(&offer).starts_with(&mids(before)), "sections never go or move");
        }
        let fills: Vec<Fill> = offer
            .sections
            .iter()
            .map(|section| {
                if section.kind == SectionKind::Application {
                    return Fill::Idle;
                }
                let named =
                    |name| section.codecs.iter().any(|codec| codec.name.eq_ignore_ascii_case(name));
                let media = ["opus", "VP8", "VP9", "H264", "AV1", "H265"];
                let codec = media.into_iter().find(|name| named(name));
                match codec.filter(|_| reads(section)) {
                    Some(codec) if section.sends() => Fill::Receive {
                        codec: codec.into(),
                        rtx: true,
                        red: reads_red,
                        opus: OpusWish::default(),
                    },
                    Some(_) => Fill::Idle,
                    None => Fill::Reject,
                }
            })
            .collect();
        self.connect(now, &offer);
        self.answers += 1;
        let local = Local {
            credentials: &self.credentials,
            fingerprint: self.identity.fingerprint(),
            setup: DtlsRole::Active,
            candidates: &[],
            tcp_candidates: &[],
            session: 8,
            version: self.answers,
        };
        let answer = sdp::write_answer(&offer, &local, &fills);
        self.offer = Some(offer);
        answer
    }

    fn connect(&mut self, now: Instant, offer: &Description) {
        let remote = Credentials { ufrag: offer.ufrag.clone(), pwd: offer.pwd.clone() };
        let candidates = vec![Path::Udp { local: self.address, remote: server() }];
        let Some(peer) = &mut self.peer else {
            let local = self.credentials.clone();
            let config = PeerConfig {
                identity: Arc::clone(&self.identity),
                role: DtlsRole::Active,
                remote_fingerprint: offer.fingerprint.clone(),
                ice: IceRole::Controlling { local, remote, candidates },
                allow_cm: false,
                crypto: self.crypto,
                channels: ChannelRole::Take,
            };
            self.peer = Some(Peer::new(now, config).unwrap());
            return;
        };
        if self.offer.as_ref().is_some_and(|before| before.ufrag != offer.ufrag) {
            self.credentials = Credentials::random(&mut self.rng);
            peer.restart_ice(self.credentials.clone());
            peer.set_remote(now, &remote, candidates);
        }
    }

    /// Another address from now on.
    pub fn move_to(&mut self, now: Instant, address: SocketAddr) {
        self.address = address;
        if let Some((peer, offer)) = self.peer.as_mut().zip(self.offer.as_ref()) {
            let remote = Credentials { ufrag: offer.ufrag.clone(), pwd: offer.pwd.clone() };
            let path = Path::Udp { local: address, remote: server() };
            peer.set_remote(now, &remote, vec![path]);
        }
    }
}
