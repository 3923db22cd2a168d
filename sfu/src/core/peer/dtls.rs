//! The DTLS association of a peer: `rtc-dtls` behind what WebRTC needs and what it lacks.
//!
//! The library sees one constant pair of addresses; the path is ICE's business alone. It is fed
//! only from proved paths, because it makes a connection for whoever sends first.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use rtc_crypto::SecretVec;
use rtc_dtls::config::{ClientAuthType, ConfigBuilder, ExtendedMasterSecretType, HandshakeConfig};
use rtc_dtls::endpoint::{Endpoint, EndpointEvent};
use rtc_dtls::extension::extension_use_srtp::SrtpProtectionProfile;
use rtc_shared::TransportProtocol;
use rtc_shared::error::Error;

use super::identity::{CertificateHash, Identity};
use super::records::{FirstHello, Sieve, Sifted};
use super::{CloseReason, DropReason, DtlsRole, PeerError, SrtpProfile};

const LOCAL: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 1);
/// The other side, for the libraries.
pub(super) const REMOTE: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 2);

/// First retransmission. The library repeats at this interval for ever (seven times, in fact).
const FLIGHT_INTERVAL: Duration = Duration::from_millis(100);
/// Our doubling ends at 32 times that, so that eight silences are 12.7 s in all.
const MAX_DOUBLINGS: u32 = 5;
/// How the callback's refusal is told from the library's own errors.
const WRONG_FINGERPRINT: &str = "certificate does not match the announced fingerprint";

/// What we serve, best first.
const PROFILES: [SrtpProtectionProfile; 3] = [
    SrtpProtectionProfile::Srtp_Aead_Aes_128_Gcm,
    SrtpProtectionProfile::Srtp_Aead_Aes_256_Gcm,
    SrtpProtectionProfile::Srtp_Aes128_Cm_Hmac_Sha1_80,
];

/// What came out of a datagram or a timeout.
#[derive(Debug)]
pub(super) enum DtlsEvent {
    /// The handshake is done; see [`Dtls::keys`].
    Complete,
    /// Decrypted application data: an SCTP packet.
    Data(BytesMut),
    /// The association is over. Nothing must be fed to it any more.
    Ended(CloseReason),
}

/// One DTLS association.
pub(super) struct Dtls {
    settings: Settings,
    endpoint: Option<Endpoint>,
    complete: bool,
    ended: bool,
    sieve: Sieve,
    hello: FirstHello,
    /// Silences since the handshake last moved on.
    silences: u32,
}

/// What a handshake configuration is made from.
struct Settings {
    identity: Arc<Identity>,
    role: DtlsRole,
    remote: CertificateHash,
    allow_cm: bool,
}

impl Settings {
    fn configuration(
        &self,
        profiles: Vec<SrtpProtectionProfile>,
    ) -> Result<Arc<HandshakeConfig>, Error> {
        let remote = self.remote.clone();
        let configuration = ConfigBuilder::default()
            .with_crypto_provider(self.identity.provider.clone())
            .with_certificates(vec![self.identity.certificate.clone()])
            .with_srtp_protection_profiles(profiles)
            .with_extended_master_secret(ExtendedMasterSecretType::Require)
            // Without this a passive peer asks for no certificate, and no fingerprint is checked.
            .with_client_auth(ClientAuthType::RequireAnyClientCert)
            .with_flight_interval(FLIGHT_INTERVAL)
            // There is no chain to verify: the fingerprint is the whole trust.
            .with_insecure_skip_verify(true)
            .with_server_name("bedside".to_owned())
            .with_verify_peer_certificate(Some(Arc::new(move |chain: &[Vec<u8>], _: &[_]| {
                match chain.first() {
                    Some(certificate) if remote.matches(certificate) => Ok(()),
                    Some(_) | None => Err(Error::Other(WRONG_FINGERPRINT.to_owned())),
                }
            })))
            .build(self.role == DtlsRole::Active, None)?;
        Ok(Arc::new(configuration))
    }

    /// A DTLS server picks the profile, and browsers as servers like AES_CM best: offering it to
    /// them would give up AES-GCM.
    fn offered(&self) -> Vec<SrtpProtectionProfile> {
        let [gcm_128, _, cm] = PROFILES;
        if self.allow_cm { vec![gcm_128, cm] } else { vec![gcm_128] }
    }
}

impl Dtls {
    /// An association that waits for [`Dtls::start`].
    pub(super) fn new(
        identity: Arc<Identity>,
        role: DtlsRole,
        remote: CertificateHash,
        allow_cm: bool,
    ) -> Result<Self, PeerError> {
        let settings = Settings { identity, role, remote, allow_cm };
        settings.configuration(PROFILES.to_vec()).map_err(|e| PeerError::Dtls(e.to_string()))?;
        let sieve = match role {
            DtlsRole::Active => Sieve::of_client(),
            DtlsRole::Passive => Sieve::default(),
        };
        Ok(Self {
            settings,
            endpoint: None,
            complete: false,
            ended: false,
            sieve,
            hello: FirstHello::default(),
            silences: 0,
        })
    }

    pub(super) fn role(&self) -> DtlsRole {
        self.settings.role
    }

    /// The first authenticated check came: the active side says hello.
    pub(super) fn start(&mut self, now: Instant) -> Option<DtlsEvent> {
        if self.settings.role == DtlsRole::Passive || self.endpoint.is_some() || self.ended {
            return None;
        }
        let mut endpoint = Endpoint::new(LOCAL, TransportProtocol::UDP, None);
        let connected = self
            .settings
            .configuration(self.settings.offered())
            .and_then(|configuration| endpoint.connect(now, REMOTE, configuration, None));
        self.endpoint = Some(endpoint);
        connected.is_err().then(|| self.end(CloseReason::HandshakeFailed))
    }

    /// Takes a datagram of a proved path.
    pub(super) fn handle(
        &mut self,
        now: Instant,
        datagram: &[u8],
        events: &mut Vec<DtlsEvent>,
    ) -> Result<(), DropReason> {
        if self.ended {
            return Err(DropReason::Closed);
        }
        if self.endpoint.is_some() {
            return self.read(now, datagram, events);
        }
        match self.settings.role {
            // It starts with the first check, and only then are paths proved.
            DtlsRole::Active => Err(DropReason::BadDtls),
            DtlsRole::Passive => self.accept(now, datagram, events),
        }
    }

    /// In the passive role the library takes the first profile of the *client's* list that it
    /// knows, which is AES_CM for some browsers. So the hello is read first, and the library is
    /// told to know only the best of those offered.
    fn accept(
        &mut self,
        now: Instant,
        datagram: &[u8],
        events: &mut Vec<DtlsEvent>,
    ) -> Result<(), DropReason> {
        let before = self.hello.datagrams.len();
        let Some(offered) = self.hello.add(datagram) else {
            let grown = self.hello.datagrams.len() > before;
            return if grown { Ok(()) } else { Err(DropReason::BadDtls) };
        };
        let best = PROFILES.into_iter().find(|profile| offered.contains(&(*profile as u16)));
        let profiles = best.map_or_else(|| PROFILES.to_vec(), |best| vec![best]);
        let Ok(configuration) = self.settings.configuration(profiles) else {
            events.push(self.end(CloseReason::HandshakeFailed));
            return Ok(());
        };
        self.endpoint = Some(Endpoint::new(LOCAL, TransportProtocol::UDP, Some(configuration)));
        for datagram in std::mem::take(&mut self.hello).datagrams {
            // A repeat among them is no fault of the datagram in hand.
            let _ = self.read(now, &datagram, events);
        }
        Ok(())
    }

    fn read(
        &mut self,
        now: Instant,
        datagram: &[u8],
        events: &mut Vec<DtlsEvent>,
    ) -> Result<(), DropReason> {
        if !self.complete {
            match self.sieve.sift(datagram) {
                Sifted::Fresh => self.silences = 0,
                Sifted::Repeat => return Err(DropReason::RepeatedFlight),
                Sifted::Bad => return Err(DropReason::BadDtls),
            }
        }
        let Some(endpoint) = &mut self.endpoint else { return Err(DropReason::BadDtls) };
        match endpoint.read(now, REMOTE, None, BytesMut::from(datagram)) {
            Ok(found) => {
                for event in found {
                    match event {
                        EndpointEvent::HandshakeComplete => {
                            self.complete = true;
                            self.sieve = Sieve::default();
                            events.push(DtlsEvent::Complete);
                        }
                        EndpointEvent::ApplicationData(data) => events.push(DtlsEvent::Data(data)),
                        EndpointEvent::PeerClosed => {
                            // A server endpoint would take the next datagram for a new client.
                            events.push(self.end(CloseReason::Remote));
                        }
                        _ => {}
                    }
                }
                Ok(())
            }
            Err(error) => match self.fate(&error) {
                Some(reason) => {
                    events.push(self.end(reason));
                    Ok(())
                }
                None => Err(DropReason::BadDtls),
            },
        }
    }

    /// What an error of the library means; `None`: this datagram was bad, nothing else.
    fn fate(&self, error: &Error) -> Option<CloseReason> {
        match error {
            Error::Other(text) if text == WRONG_FINGERPRINT => Some(CloseReason::WrongFingerprint),
            // A fatal alert that was decrypted.
            Error::ErrAlertFatalOrClose if self.complete => Some(CloseReason::Remote),
            _ if self.complete => None,
            // The sieve let only sound records through: the handshake itself went wrong.
            _ => Some(CloseReason::HandshakeFailed),
        }
    }

    fn end(&mut self, reason: CloseReason) -> DtlsEvent {
        self.ended = true;
        DtlsEvent::Ended(reason)
    }

    /// The profile and the keying material for it (RFC 5764 §4.2), once complete.
    pub(super) fn keys(&self) -> Option<(SrtpProfile, SecretVec)> {
        let state = self.endpoint.as_ref()?.get_connection_state(REMOTE)?;
        let profile = match state.srtp_protection_profile() {
            SrtpProtectionProfile::Srtp_Aead_Aes_128_Gcm => SrtpProfile::AeadAes128Gcm,
            SrtpProtectionProfile::Srtp_Aead_Aes_256_Gcm => SrtpProfile::AeadAes256Gcm,
            SrtpProtectionProfile::Srtp_Aes128_Cm_Hmac_Sha1_80 => SrtpProfile::AesCm128HmacSha1_80,
            _ => return None,
        };
        let length = profile.keying_length();
        let material = state.export_keying_material("EXTRACTOR-dtls_srtp", &[], length).ok()?;
        Some((profile, material))
    }

    /// Encrypts application data; `false` if it cannot.
    pub(super) fn write(&mut self, now: Instant, data: &[u8]) -> bool {
        !self.ended
            && self.endpoint.as_mut().is_some_and(|dtls| dtls.write(now, REMOTE, data).is_ok())
    }

    /// The next datagram to send; alerts come even after the end.
    pub(super) fn poll_transmit(&mut self) -> Option<Vec<u8>> {
        self.endpoint.as_mut()?.poll_transmit().map(|transmit| transmit.message.into())
    }

    /// The library's deadline, put off by our doubling.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        // A complete association has no timer; asking costs the library a look-up.
        if self.ended || self.complete {
            return None;
        }
        let due = self.endpoint.as_ref()?.poll_timeout(&REMOTE)?;
        let doublings = self.silences.min(MAX_DOUBLINGS);
        Some(due + FLIGHT_INTERVAL * ((1 << doublings) - 1))
    }

    pub(super) fn handle_timeout(&mut self, now: Instant) -> Option<DtlsEvent> {
        if self.poll_timeout().is_none_or(|due| due > now) {
            return None;
        }
        self.silences += 1;
        let result = self.endpoint.as_mut()?.handle_timeout(REMOTE, now);
        result.is_err().then(|| self.end(CloseReason::HandshakeTimeout))
    }

    /// Queues a close_notify.
    pub(super) fn close(&mut self, now: Instant) {
        if !self.ended
            && let Some(endpoint) = &mut self.endpoint
        {
            // It has no way to fail.
            let _ = endpoint.close(now);
        }
        self.ended = true;
    }
}
