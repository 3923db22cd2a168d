//! What is done with hostile bytes: one function for each parser of the network's data. It must not
//! panic, must end soon, and what it reads must hold together. `tests/fuzz` runs the same functions
//! under a coverage-guided fuzzer.

use std::hint::black_box;
use std::net::SocketAddr;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use bedside_sfu::core::api::Path;
use bedside_sfu::core::bwe::{Cargo, Estimator};
use bedside_sfu::core::codec::{Codec, Vp8, Vp9, keyframe_start};
use bedside_sfu::core::descriptor::{Descriptors, mask_targets};
use bedside_sfu::core::ice;
use bedside_sfu::core::peer::{
    ChannelRole, Credentials, Crypto, DtlsRole, IceRole, Identity, Peer, PeerConfig, Received,
};
use bedside_sfu::core::rtcp::{self, Rtcp};
use bedside_sfu::core::sdp::{self, Extension, Fill, Local, OpusWish, Section, SectionKind};
use bedside_sfu::core::{red, rtp, twcc};

/// A name and what it does.
pub type Target = (&'static str, fn(&[u8]));

/// All of them.
pub const TARGETS: [Target; 11] = [
    ("rtp", rtp_packet),
    ("rtcp", rtcp_compound),
    ("twcc", transport_feedback),
    ("vp8", vp8),
    ("vp9", vp9),
    ("h264", h264),
    ("av1", av1),
    ("red", redundant_audio),
    ("descriptor", descriptors),
    ("sdp", description),
    ("stun", stun),
];

/// The clock that nobody looks at.
fn epoch() -> Instant {
    static EPOCH: OnceLock<Instant> = OnceLock::new();
    *EPOCH.get_or_init(Instant::now)
}

/// What is read of a header is found again in the one that is written from it.
fn rtp_packet(data: &[u8]) {
    let mut patched = data.to_vec();
    rtp::set_first_extension(&mut patched, 0, 3, 7);
    assert_eq!(patched.len(), data.len());
    let Some(header) = rtp::Header::parse(data) else { return };
    assert!(header.len <= data.len());
    let payload = rtp::payload(data, &header);
    assert!(payload.is_none_or(|payload| header.len + payload.len() <= data.len()));
    let elements: Vec<(u8, &[u8])> = rtp::extensions(data).collect();
    let mut out = Vec::new();
    let len = rtp::write_header(
        &mut out,
        header.marker,
        header.payload_type,
        header.sequence,
        header.timestamp,
        header.ssrc,
        &elements,
    );
    let again = rtp::Header::parse(&out).expect("what we write is a header");
    assert_eq!((again.len, again.padding), (len, false));
    let fields = |header: &rtp::Header| {
        (header.marker, header.payload_type, header.sequence, header.timestamp, header.ssrc)
    };
    assert_eq!(fields(&again), fields(&header));
    // Two-byte ids above 14 and long values are carried; nothing was id 0.
    assert_eq!(rtp::extensions(&out).collect::<Vec<_>>(), elements);
}

/// Every packet says no more than its bytes can hold.
fn rtcp_compound(data: &[u8]) {
    let mut packets = 0;
    for packet in rtcp::packets(data) {
        packets += 1;
        assert!(packets <= data.len() / 4 + 1);
        let Ok(packet) = packet else { continue };
        let named = match packet {
            Rtcp::SenderReport { reports, .. } | Rtcp::ReceiverReport { reports, .. } => {
                reports.count()
            }
            Rtcp::Nack { lost, .. } => {
                // Four bytes can ask for 17.
                lost.count() / 5
            }
            Rtcp::Fir { entries, .. } => entries.count(),
            Rtcp::Bye { ssrcs } => ssrcs.count(),
            Rtcp::Twcc(packet) => {
                transport_feedback(packet);
                0
            }
            Rtcp::Pli { .. } | Rtcp::Remb { .. } | Rtcp::Other { .. } => 0,
        };
        assert!(named <= data.len(), "{named} from {} bytes", data.len());
    }
}

/// Feedback names as many packets as it says; and an estimator that gets it stays in its bounds.
fn transport_feedback(data: &[u8]) {
    if let Some(feedback) = twcc::parse(data) {
        assert_eq!(feedback.packets().count(), usize::from(feedback.count));
    }
    let mut now = epoch();
    let mut estimator = Estimator::new(now, 300_000);
    for _ in 0..64 {
        now += Duration::from_millis(5);
        estimator.sent(now, 1_000, Cargo::Media, None);
    }
    for _ in 0..2 {
        now += Duration::from_millis(50);
        estimator.feedback(now, data);
        estimator.handle_timeout(now);
    }
    assert!(estimator.target_bps() > 0 && estimator.target_bps() < 10_000_000_000);
    assert!((0.0..=1.0).contains(&estimator.loss()));
}

/// The bytes that a rewrite touches are there, and hold what was read.
fn assert_picture_id(data: &[u8], id: Option<(usize, u16, bool)>) {
    let Some((at, value, wide)) = id else { return };
    let read = match (wide, data.get(at), data.get(at + 1)) {
        (false, Some(byte), _) => u16::from(*byte),
        (true, Some(high), Some(low)) => u16::from_be_bytes([high & 0x7F, *low]),
        _ => panic!("the id is outside"),
    };
    assert_eq!(read, value);
}

fn vp8(data: &[u8]) {
    let found = Vp8::parse(data);
    let starts = found.is_some_and(|found| found.keyframe_start);
    assert_eq!(keyframe_start(Codec::Vp8, data, None), starts);
    let Some(found) = found else { return };
    assert!(found.starts_frame || !found.keyframe_start);
    assert_picture_id(data, found.picture_id);
    assert!(found.tl0_picture_index.is_none_or(|(at, value)| data.get(at) == Some(&value)));
    let key = found.key_index.and_then(|(at, value)| Some((*data.get(at)?, value)));
    assert!(key.is_none_or(|(byte, value)| byte & 0x1F == value));
    assert!(found.temporal.is_none_or(|temporal| temporal < 4));
}

fn vp9(data: &[u8]) {
    let found = Vp9::parse(data);
    let starts = found.is_some_and(|found| found.keyframe_start);
    assert_eq!(keyframe_start(Codec::Vp9, data, None), starts);
    let Some(found) = found else { return };
    assert!(found.length <= data.len() && found.spatial < 8 && found.temporal < 8);
    assert!(found.starts_frame || !found.keyframe_start);
    assert_picture_id(data, found.picture_id);
    assert!(found.tl0_picture_index.is_none_or(|(at, value)| data.get(at) == Some(&value)));
    let layers = found.structure.map(|structure| structure.spatial_layers);
    assert!(layers.is_none_or(|layers| (1..=8).contains(&layers)));
}

fn h264(data: &[u8]) {
    black_box(keyframe_start(Codec::H264, data, None));
}

fn av1(data: &[u8]) {
    black_box(keyframe_start(Codec::Av1, data, None));
    black_box(keyframe_start(Codec::Av1, &[], Some(data)));
}

/// What is read can be written again and reads the same; renumbering harms nothing.
fn redundant_audio(data: &[u8]) {
    let olds = red::blocks(data);
    let newest = red::primary(data);
    assert!(newest.is_none_or(|newest| newest.len() <= data.len()));
    let mut renumbered = data.to_vec();
    red::retype(&mut renumbered, 96);
    assert_eq!(red::primary(&renumbered).is_some(), newest.is_some());
    let Some(newest) = newest else { return };
    let mut out = Vec::new();
    let carried = red::write(&mut out, 96, &olds, newest);
    assert_eq!(red::primary(&out), Some(newest));
    assert!(carried <= red::MAX_OLD && red::blocks(&out).iter().flatten().count() <= carried);
}

/// The input is a stream of descriptors, each behind its length.
fn descriptors(data: &[u8]) {
    let mut stream = Descriptors::default();
    let mut rest = data;
    while let Some((&length, tail)) = rest.split_first() {
        let (bytes, tail) = tail.split_at(usize::from(length).min(tail.len()));
        rest = tail;
        let before = stream.structure().cloned();
        let Some(found) = stream.read(bytes) else { continue };
        let structure = stream.structure().expect("nothing is understood without one");
        for spatial in 0..4 {
            for temporal in 0..8 {
                black_box(found.switch_at(structure, spatial, temporal));
                black_box(found.needed_for(structure, spatial, temporal));
            }
        }
        assert!(found.spatial < 4 && found.temporal < 8 && found.differences().len() <= 8);
        assert_eq!(stream.active() & !structure.all_targets(), 0);
        let known = before.as_ref().unwrap_or(structure);
        let mut out = [0; 255];
        let len = mask_targets(bytes, known, 0b101, &mut out);
        let Some(masked) = out.get(..len).filter(|masked| !masked.is_empty()) else { continue };
        assert!(len <= bytes.len() + 6, "five flags and 32 targets");
        let mut again = [0; 255];
        assert_eq!(mask_targets(masked, known, 0b101, &mut again), len);
        assert_eq!(again, out);
    }
}

/// What can be read can be answered, and the answer can be read.
fn description(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let Ok(offer) = sdp::parse(&text) else { return };
    assert!(offer.sections.len() <= sdp::MAX_SECTIONS);
    black_box(offer.extension_id(Extension::DependencyDescriptor));
    let fills: Vec<Fill> = offer.sections.iter().map(fill).collect();
    let credentials = credentials("bedside+");
    let local = Local {
        credentials: &credentials,
        fingerprint: FINGERPRINT,
        setup: DtlsRole::Passive,
        candidates: &[SocketAddr::from(([127, 0, 0, 1], 7_900))],
        tcp_candidates: &[],
        session: 1,
        version: 2,
    };
    let answer = sdp::write_answer(&offer, &local, &fills);
    // Where every section is dead there is nothing to say of a transport.
    let dead = |section: &Section| section.rejected || section.kind == SectionKind::Other;
    if offer.sections.iter().all(dead) {
        return;
    }
    let read = sdp::parse(&answer).expect("our own answer can be read");
    assert_eq!(read.sections.len(), offer.sections.len());
}

const FINGERPRINT: &str = "AB:CD:EF:00:11:22:33:44:55:66:77:88:99:AA:BB:CC:\
    AB:CD:EF:00:11:22:33:44:55:66:77:88:99:AA:BB:CC";

fn fill(section: &Section) -> Fill {
    let Some(codec) = section.codecs.first() else { return Fill::Idle };
    let codec = codec.name.clone();
    if section.sends() {
        let opus = OpusWish { dtx: true, stereo: true };
        return Fill::Receive { codec, rtx: true, red: true, opus };
    }
    let (stream, track) = ("PA_a|TR_a".to_owned(), "TR_a".to_owned());
    Fill::Send { codec, rtx_ssrc: Some(2), red: true, stream, track, ssrc: 1 }
}

fn credentials(ufrag: &str) -> Credentials {
    Credentials { ufrag: ufrag.to_owned(), pwd: "abcdefghijklmnopqrstuvwx".to_owned() }
}

/// Both agents: no bytes make a path without the password. Authentic checks are not among the
/// inputs, for they cannot be guessed.
fn stun(data: &[u8]) {
    black_box(ice::stun_username(data));
    let address = |port| SocketAddr::from(([192, 0, 2, 1], port));
    let path = Path::Udp { local: address(1), remote: address(2) };
    let lite = IceRole::Lite { local: credentials("server++") };
    let controlling = IceRole::Controlling {
        local: credentials("client++"),
        remote: credentials("server++"),
        candidates: vec![path],
    };
    for ice in [lite, controlling] {
        let now = epoch();
        let mut peer = Peer::new(now, config(ice)).expect("the configuration is ours");
        let mut bytes = data.to_vec();
        // The other protocols begin with other bytes.
        if bytes.first().is_none_or(|first| *first > 3) {
            return;
        }
        let handled = matches!(peer.handle_datagram(now, path, &mut bytes), Received::Handled);
        assert!(!handled || peer.path().is_none(), "a path without a password");
        peer.handle_timeout(now + Duration::from_secs(1));
    }
}

fn config(ice: IceRole) -> PeerConfig {
    static IDENTITY: OnceLock<std::sync::Arc<Identity>> = OnceLock::new();
    let identity = IDENTITY.get_or_init(|| {
        std::sync::Arc::new(Identity::generate().expect("a certificate can be made"))
    });
    let section = "m=application 9 UDP/DTLS/SCTP webrtc-datachannel\r\na=mid:0\r\n";
    let sdp = format!(
        "v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\na=ice-ufrag:client++\r\n\
         a=ice-pwd:abcdefghijklmnopqrstuvwx\r\na=fingerprint:sha-256 {FINGERPRINT}\r\n\
         a=setup:actpass\r\n{section}"
    );
    PeerConfig {
        identity: std::sync::Arc::clone(identity),
        role: DtlsRole::Passive,
        remote_fingerprint: sdp::parse(&sdp).expect("a description of ours").fingerprint,
        ice,
        allow_cm: true,
        crypto: Crypto::Clear,
        channels: ChannelRole::Wait,
    }
}
