//! Our DTLS with foreign endpoints: `rtc-dtls` alone, set up as other software is.

use bytes::BytesMut;
use rtc_dtls::config::{ClientAuthType, ConfigBuilder, ExtendedMasterSecretType};
use rtc_dtls::crypto::Certificate;
use rtc_dtls::endpoint::{Endpoint, EndpointEvent};
use rtc_dtls::extension::extension_use_srtp::SrtpProtectionProfile as Offered;
use rtc_shared::TransportProtocol;

use super::*;
use crate::core::peer::dtls::REMOTE;

const GCM_128: Offered = Offered::Srtp_Aead_Aes_128_Gcm;
const GCM_256: Offered = Offered::Srtp_Aead_Aes_256_Gcm;
const CM: Offered = Offered::Srtp_Aes128_Cm_Hmac_Sha1_80;

/// What the foreign side wants.
struct Wants {
    profiles: Vec<Offered>,
    mtu: usize,
    extended_master_secret: ExtendedMasterSecretType,
    shows_certificate: bool,
}

fn wants(profiles: &[Offered]) -> Wants {
    Wants {
        profiles: profiles.to_vec(),
        mtu: 1200,
        extended_master_secret: ExtendedMasterSecretType::Require,
        shows_certificate: true,
    }
}

struct Outcome {
    ours: Option<(SrtpProfile, Vec<u8>)>,
    theirs: Option<Vec<u8>>,
    ended: Option<CloseReason>,
}

/// Runs a handshake to its end, without loss.
fn shake(role: DtlsRole, allow_cm: bool, wants: Wants) -> Outcome {
    let now = Instant::now();
    let (ours, theirs) = (identity(), Identity::generate().unwrap());
    let fingerprint =
        Fingerprint { algorithm: "sha-256".into(), value: theirs.fingerprint().into() };
    let remote = CertificateHash::parse(&fingerprint).unwrap();
    let mut dtls = Dtls::new(ours, role, remote, allow_cm).unwrap();
    let certificates: Vec<Certificate> =
        wants.shows_certificate.then(|| theirs.certificate.clone()).into_iter().collect();
    let they_are_client = role == DtlsRole::Passive;
    let config = ConfigBuilder::default()
        .with_crypto_provider(theirs.provider)
        .with_certificates(certificates)
        .with_srtp_protection_profiles(wants.profiles)
        .with_extended_master_secret(wants.extended_master_secret)
        .with_client_auth(ClientAuthType::RequireAnyClientCert)
        .with_insecure_skip_verify(true)
        .with_server_name("foreign".into())
        .with_mtu(wants.mtu)
        .build(they_are_client, None)
        .unwrap();
    let config = Arc::new(config);
    let server = (!they_are_client).then(|| config.clone());
    let mut foreign = Endpoint::new(REMOTE, TransportProtocol::UDP, server);
    if they_are_client {
        foreign.connect(now, REMOTE, config, None).unwrap();
    }
    let mut events: Vec<DtlsEvent> = dtls.start(now).into_iter().collect();
    let mut complete = false;
    for _ in 0..20 {
        while let Some(transmit) = foreign.poll_transmit() {
            let _ = dtls.handle(now, &transmit.message, &mut events);
        }
        while let Some(datagram) = dtls.poll_transmit() {
            let read = foreign.read(now, REMOTE, None, BytesMut::from(&datagram[..]));
            let done = |event: &EndpointEvent| matches!(event, EndpointEvent::HandshakeComplete);
            complete |= read.is_ok_and(|events| events.iter().any(done));
        }
    }
    let ours = events
        .iter()
        .any(|event| matches!(event, DtlsEvent::Complete))
        .then(|| dtls.keys().map(|(profile, keys)| (profile, keys.as_ref().to_vec())))
        .flatten();
    let theirs = foreign.get_connection_state(REMOTE).filter(|_| complete).and_then(|state| {
        let length = ours.as_ref().map_or(0, |(_, keys)| keys.len());
        let keys = state.export_keying_material("EXTRACTOR-dtls_srtp", &[], length);
        keys.ok().map(|keys| keys.as_ref().to_vec())
    });
    let ended = events.iter().find_map(|event| match event {
        DtlsEvent::Ended(reason) => Some(*reason),
        DtlsEvent::Complete | DtlsEvent::Data(_) => None,
    });
    Outcome { ours, theirs, ended }
}

fn profile(outcome: &Outcome) -> Option<SrtpProfile> {
    let (profile, keys) = outcome.ours.as_ref()?;
    assert_eq!(outcome.theirs.as_ref(), Some(keys), "both sides have the same keys");
    assert_eq!(outcome.ended, None);
    Some(*profile)
}

#[test]
fn as_server_we_take_the_best_profile_whatever_the_order() {
    let cases: [(&[Offered], SrtpProfile); 6] = [
        (&[CM, GCM_256, GCM_128], SrtpProfile::AeadAes128Gcm),
        (&[GCM_128, CM], SrtpProfile::AeadAes128Gcm),
        (&[GCM_256, GCM_128], SrtpProfile::AeadAes128Gcm),
        (&[CM, GCM_256], SrtpProfile::AeadAes256Gcm),
        (&[CM], SrtpProfile::AesCm128HmacSha1_80),
        (&[Offered::Srtp_Aes128_Cm_Hmac_Sha1_32, CM], SrtpProfile::AesCm128HmacSha1_80),
    ];
    for (offered, wanted) in cases {
        // With a small MTU the ClientHello comes in pieces.
        for mtu in [1200, 60] {
            let outcome = shake(DtlsRole::Passive, false, Wants { mtu, ..wants(offered) });
            assert_eq!(profile(&outcome), Some(wanted), "{offered:?}, mtu {mtu}");
        }
    }
}

#[test]
fn as_client_we_offer_counter_mode_only_where_it_is_allowed() {
    let shake = |allow_cm, profiles: &[Offered]| shake(DtlsRole::Active, allow_cm, wants(profiles));
    let gcm = Some(SrtpProfile::AeadAes128Gcm);
    assert_eq!(profile(&shake(false, &[CM, GCM_256, GCM_128])), gcm);
    let cm = Some(SrtpProfile::AesCm128HmacSha1_80);
    assert_eq!(profile(&shake(true, &[CM])), cm);
    let refused = shake(false, &[CM]);
    assert!(refused.ours.is_none() && refused.ended.is_some());
}

#[test]
fn without_a_common_profile_there_are_no_keys() {
    let outcome = shake(DtlsRole::Passive, true, wants(&[Offered::Srtp_Aes128_Cm_Hmac_Sha1_32]));
    assert!(outcome.ours.is_none());
    assert_eq!(outcome.ended, Some(CloseReason::HandshakeFailed));
    // One that does not speak of SRTP at all may finish, but has no keys for us.
    let outcome = shake(DtlsRole::Passive, true, wants(&[]));
    assert!(outcome.ours.is_none());
}

#[test]
fn the_extended_master_secret_is_required() {
    for role in [DtlsRole::Passive, DtlsRole::Active] {
        let old = Wants {
            extended_master_secret: ExtendedMasterSecretType::Disable,
            ..wants(&[GCM_128])
        };
        let outcome = shake(role, false, old);
        assert!(outcome.ours.is_none(), "{role:?}");
        assert_eq!(outcome.ended, Some(CloseReason::HandshakeFailed), "{role:?}");
    }
}

#[test]
fn a_client_without_a_certificate_is_refused() {
    let bare = Wants { shows_certificate: false, ..wants(&[GCM_128]) };
    let outcome = shake(DtlsRole::Passive, false, bare);
    assert!(outcome.ours.is_none());
}
