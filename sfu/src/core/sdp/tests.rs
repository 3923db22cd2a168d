//! What is read and written, section by section.

use rand_chacha::rand_core::{Rng as _, SeedableRng as _};

use super::*;
use crate::core::ice::Credentials;
use crate::core::peer::DtlsRole;

const CHROMIUM_JOIN: &str = include_str!("../../../tests/fixtures/chromium-join.sdp");
const CHROMIUM_PUBLISH: &str = include_str!("../../../tests/fixtures/chromium-publish.sdp");
const FIREFOX_JOIN: &str = include_str!("../../../tests/fixtures/firefox-join.sdp");
const FIREFOX_PUBLISH: &str = include_str!("../../../tests/fixtures/firefox-publish.sdp");
const ALL: [&str; 4] = [CHROMIUM_JOIN, CHROMIUM_PUBLISH, FIREFOX_JOIN, FIREFOX_PUBLISH];

fn answer(offer: &str, fills: &[Fill]) -> (String, Description) {
    let credentials = Credentials { ufrag: "ours".to_owned(), pwd: "secret".repeat(4) };
    let fingerprint = ["AB"; 32].join(":");
    let local = Local {
        credentials: &credentials,
        fingerprint: &fingerprint,
        setup: DtlsRole::Passive,
        candidates: &["192.0.2.7:7882".parse().unwrap(), "[2001:db8::7]:7882".parse().unwrap()],
        tcp_candidates: &["192.0.2.7:7882".parse().unwrap()],
        session: 77,
        version: 3,
    };
    let text = write_answer(&parse(offer).unwrap(), &local, fills);
    let read = parse(&text).unwrap();
    (text, read)
}

/// The lines of one section of a description.
fn section<'t>(text: &'t str, mid: &str) -> Vec<&'t str> {
    let wanted = format!("a=mid:{mid}");
    let sections = text.split("\r\nm=").skip(1).map(|section| section.lines().collect::<Vec<_>>());
    sections.into_iter().find(|lines| lines.contains(&wanted.as_str())).unwrap()
}

fn receive(codec: &str) -> Fill {
    Fill::Receive { codec: codec.to_owned(), rtx: true, red: true, opus: OpusWish::default() }
}

fn send(codec: &str, rtx_ssrc: Option<u32>, red: bool) -> Fill {
    let (stream, track) = ("PA_1|TR_1".to_owned(), "TR_1".to_owned());
    Fill::Send { codec: codec.to_owned(), rtx_ssrc, red, stream, track, ssrc: 1000 }
}

#[test]
fn the_encoder_is_asked_for_silence_and_stereo_beside_its_own_parameters() {
    let offer = parse(CHROMIUM_PUBLISH).unwrap();
    let at = offer.sections.iter().position(|s| s.sends() && s.kind == SectionKind::Audio).unwrap();
    let own = offer.sections[at].codec("opus").unwrap().fmtp.clone();
    for (dtx, stereo, more) in [
        (false, false, ""),
        (true, false, ";usedtx=1"),
        (true, true, ";usedtx=1;stereo=1;maxaveragebitrate=510000"),
    ] {
        let mut fills = vec![Fill::Idle; offer.sections.len()];
        let opus = OpusWish { dtx, stereo };
        fills[at] = Fill::Receive { codec: "opus".to_owned(), rtx: false, red: true, opus };
        let (_, read) = answer(CHROMIUM_PUBLISH, &fills);
        let answered = &read.sections[at];
        assert_eq!(answered.codec("opus").unwrap().fmtp, format!("{own}{more}"));
        let red = answered.codecs.iter().find(|codec| codec.name == "red");
        assert!(red.is_none_or(|red| !red.fmtp.contains("usedtx")));
    }
}

#[test]
fn the_browsers_offers_are_understood() {
    for offer in ALL {
        let read = parse(offer).unwrap();
        assert_eq!((read.ufrag.as_str(), read.setup), ("ufrag001", Setup::ActPass));
        assert_eq!(read.fingerprint.algorithm, "sha-256");
        assert!(read.sections.iter().all(|section| !section.rejected));
        assert_eq!(read.sections[6].kind, SectionKind::Application);
        assert!(read.sections[..6].iter().all(|section| section.receives() && !section.sends()));
    }
    let read = parse(CHROMIUM_PUBLISH).unwrap();
    let video = &read.sections[7];
    assert!(video.sends() && video.ssrcs.is_empty());
    assert_eq!(video.rids, ["q", "h", "f"]);
    assert_eq!(video.msid.as_ref().unwrap().1, "527f18e2-d9a5-4e06-8ae0-57b2862956c8");
    assert_eq!(read.sections[8].ssrcs, [1_894_042_179]);
    assert_eq!(read.extension_id(Extension::RepairedRid), Some(11));
    assert_eq!(read.candidates.len(), 4);
    let firefox = parse(FIREFOX_PUBLISH).unwrap();
    assert_eq!(firefox.sections[7].fid.len(), 3);
    assert_eq!(firefox.sections[7].ssrcs.len(), 6);
    assert_eq!(firefox.sections[7].extension_id(Extension::Rid), Some(9));
    // The TCP candidate is not for us.
    let udp: SocketAddr = "192.0.2.10:46403".parse().unwrap();
    assert_eq!(firefox.candidates, [udp]);
}

#[test]
fn every_live_section_carries_transport_and_extensions() {
    for offer in ALL {
        let (text, read) = answer(offer, &[send("opus", None, false)]);
        let offered = parse(offer).unwrap();
        assert!(text.contains("a=ice-lite\r\n") && text.contains("a=extmap-allow-mixed\r\n"));
        assert!(text.contains("o=- 77 3 IN IP4 127.0.0.1\r\n"));
        assert!(!text.contains("remb"));
        assert_eq!(read.sections.len(), offered.sections.len());
        assert_eq!(read.setup, Setup::Passive);
        assert_eq!(read.candidates.len(), 2);
        for (ours, theirs) in read.sections.iter().zip(&offered.sections) {
            let lines = section(&text, &theirs.mid);
            assert!(lines.contains(&"a=setup:passive") && lines.contains(&"a=ice-ufrag:ours"));
            assert!(lines.contains(&"a=candidate:1 1 udp 2130706431 192.0.2.7 7882 typ host"));
            assert!(lines.contains(&"a=candidate:2 1 udp 2130706175 2001:db8::7 7882 typ host"));
            let tcp = "a=candidate:3 1 tcp 1520435199 192.0.2.7 7882 typ host tcptype passive";
            assert!(lines.contains(&tcp), "{text}");
            for extension in [Extension::Mid, Extension::TransportCc, Extension::Rid] {
                assert_eq!(ours.extension_id(extension), theirs.extension_id(extension));
            }
            if theirs.kind == SectionKind::Application {
                assert!(lines.contains(&"a=max-message-size:65535"));
            }
        }
    }
}

#[test]
fn simulcast_is_received_with_the_offers_letters_and_numbers() {
    let mut fills = vec![Fill::Idle; 7];
    fills.extend([receive("vp8"), receive("OPUS")]);
    let (text, read) = answer(CHROMIUM_PUBLISH, &fills);
    let video = section(&text, "7");
    assert_eq!(video[0], "video 9 UDP/TLS/RTP/SAVPF 96 97");
    for line in [
        "a=recvonly",
        "a=rtpmap:96 VP8/90000",
        "a=fmtp:96 x-google-start-bitrate=1000",
        "a=fmtp:97 apt=96",
        "a=rtcp-fb:96 transport-cc",
        "a=rtcp-fb:96 nack pli",
        "a=rid:q recv",
        "a=simulcast:recv q;h;f",
    ] {
        assert!(video.contains(&line), "{line}");
    }
    assert!(!video.iter().any(|line| line.starts_with("a=rtcp-fb:97")));
    // Redundant audio goes first: the browser sends the first format.
    let audio = section(&text, "8");
    assert_eq!(audio[0], "audio 9 UDP/TLS/RTP/SAVPF 63 111");
    assert!(audio.contains(&"a=fmtp:63 111/111") && audio.contains(&"a=rtcp-fb:111 nack"));
    assert_eq!(read.sections[0].direction, Direction::Inactive);
    // Firefox has no redundant audio, and other numbers.
    let (text, _) = answer(FIREFOX_PUBLISH, &fills);
    assert_eq!(section(&text, "8")[0], "audio 9 UDP/TLS/RTP/SAVPF 109");
    assert_eq!(section(&text, "7")[0], "video 9 UDP/TLS/RTP/SAVPF 120 124");
}

#[test]
fn a_track_is_sent_with_its_repair_stream() {
    let fills = [
        send("opus", None, true),
        send("opus", None, false),
        Fill::Idle,
        send("vp8", Some(2000), false),
        send("H264", None, false),
    ];
    let (text, read) = answer(CHROMIUM_JOIN, &fills);
    assert_eq!(section(&text, "0")[0], "audio 9 UDP/TLS/RTP/SAVPF 63 111");
    assert_eq!(section(&text, "1")[0], "audio 9 UDP/TLS/RTP/SAVPF 111");
    let video = section(&text, "3");
    assert_eq!(video[0], "video 9 UDP/TLS/RTP/SAVPF 96 97");
    assert!(video.contains(&"a=sendonly") && video.contains(&"a=msid:PA_1|TR_1 TR_1"));
    assert!(video.contains(&"a=ssrc-group:FID 1000 2000"));
    assert_eq!(read.sections[3].ssrcs, [1000, 2000]);
    assert_eq!(read.sections[3].fid, [(1000, 2000)]);
    // Constrained baseline, packetization mode 1, not the first that is offered.
    assert_eq!(section(&text, "4")[0], "video 9 UDP/TLS/RTP/SAVPF 108");
    assert!(!section(&text, "4").iter().any(|line| line.contains("FID")));
}

#[test]
fn what_the_offer_does_not_allow_stays_idle() {
    let fills =
        [receive("opus"), Fill::Idle, send("speex", None, false), send("opus", None, false)];
    let (text, read) = answer(CHROMIUM_JOIN, &fills);
    assert!(read.sections[..6].iter().all(|section| section.direction == Direction::Inactive));
    assert!(!text.contains("msid:PA_1"));
    let fills = [&vec![Fill::Idle; 7][..], &[send("vp8", None, false), Fill::Reject]].concat();
    let (text, read) = answer(CHROMIUM_PUBLISH, &fills);
    assert_eq!(read.sections[7].direction, Direction::Inactive);
    assert!(read.sections[8].rejected);
    assert!(section(&text, "8")[0].starts_with("audio 0 "));
    assert!(text.contains("a=group:BUNDLE 0 1 2 3 4 5 6 7\r\n"), "the dead are not bundled");
}

#[test]
fn dead_and_unknown_sections_are_answered_dead() {
    let dead = CHROMIUM_PUBLISH.replacen("m=video 9", "m=video 0", 1);
    let offer = dead.replace("m=application 9 UDP/DTLS/SCTP", "m=text 9 RTP/AVP");
    let fills = vec![send("vp8", None, false); 9];
    let (text, read) = answer(&offer, &fills);
    assert!(read.sections[3].rejected && read.sections[6].rejected);
    assert!(section(&text, "6")[0].starts_with("text 0 RTP/AVP"));
    assert!(text.contains("a=group:BUNDLE 0 1 2 4 5 7 8\r\n"));
}

#[test]
fn h264_ranks_by_what_receivers_decode() {
    let line = |pt: u8, mode: u8, profile: &str| {
        let fmtp = format!("packetization-mode={mode};profile-level-id={profile}");
        PayloadType { pt, name: "H264".to_owned(), fmtp, ..PayloadType::default() }
    };
    let mut found = parse(CHROMIUM_JOIN).unwrap().sections.remove(3);
    found.codecs = vec![line(1, 1, "640c1f"), line(2, 0, "42e01f")];
    assert_eq!(found.codec("h264").unwrap().pt, 2);
    found.codecs.push(line(3, 1, "4d001f"));
    assert_eq!(found.codec("h264").unwrap().pt, 3);
    found.codecs.push(line(4, 1, "42E01F"));
    assert_eq!(found.codec("h264").unwrap().pt, 4);
    found.codecs.truncate(1);
    assert_eq!(found.codec("h264").unwrap().pt, 1, "high, where there is nothing else");
}

#[test]
fn an_offer_of_our_own_reads_back_and_can_be_answered() {
    let credentials = Credentials { ufrag: "mine".to_owned(), pwd: "p".repeat(24) };
    let fingerprint = ["0F"; 32].join(":");
    let local = Local {
        credentials: &credentials,
        fingerprint: &fingerprint,
        setup: DtlsRole::Active,
        candidates: &[],
        tcp_candidates: &[],
        session: 1,
        version: 1,
    };
    let vp8 = PayloadType {
        pt: 96,
        name: "VP8".to_owned(),
        rate: "90000".to_owned(),
        fmtp: String::new(),
        feedback: vec!["nack".to_owned(), "nack pli".to_owned()],
    };
    let rtx = PayloadType {
        pt: 97,
        name: "rtx".to_owned(),
        rate: "90000".to_owned(),
        fmtp: "apt=96".to_owned(),
        feedback: Vec::new(),
    };
    let video = OfferSection {
        kind: SectionKind::Video,
        mid: "v".to_owned(),
        direction: Direction::SendOnly,
        codecs: vec![vp8.clone(), rtx],
        extensions: vec![(4, Extension::Mid), (3, Extension::TransportCc)],
        rids: Vec::new(),
        msid: Some(("stream".to_owned(), "cid".to_owned())),
        ssrc: Some(5),
        rtx_ssrc: Some(6),
    };
    let data =
        OfferSection { kind: SectionKind::Application, mid: "d".to_owned(), ..video.clone() };
    let text = write_offer(&local, &[data, video]);
    assert!(!text.contains("ice-lite") && !text.contains("candidate"));
    let read = parse(&text).unwrap();
    assert_eq!(read.setup, Setup::ActPass);
    assert_eq!(read.sections[1].codecs[0], vp8);
    assert_eq!(read.sections[1].fid, [(5, 6)]);
    assert_eq!(read.sections[1].extension_id(Extension::TransportCc), Some(3));
    let (answer, _) = answer(&text, &[Fill::Idle, receive("vp8")]);
    assert_eq!(section(&answer, "v")[0], "video 9 UDP/TLS/RTP/SAVPF 96 97");
}

#[test]
fn descriptions_that_cannot_work_are_refused() {
    let without = |needle: &str| {
        CHROMIUM_JOIN
            .lines()
            .filter(|line| !line.starts_with(needle))
            .collect::<Vec<_>>()
            .join("\n")
    };
    assert_eq!(parse(""), Err(SdpError::NotSdp));
    assert_eq!(parse("v=0\r\n"), Err(SdpError::NoSection));
    assert_eq!(parse(&without("a=ice-pwd")), Err(SdpError::NoCredentials));
    assert_eq!(parse(&without("a=mid:3")), Err(SdpError::BadMid));
    assert_eq!(parse(&CHROMIUM_JOIN.replace("a=mid:3", "a=mid:2")), Err(SdpError::BadMid));
    let weak = CHROMIUM_JOIN.replace("sha-256", "sha-1");
    assert_eq!(parse(&weak), Err(SdpError::NoFingerprint));
    let short = CHROMIUM_JOIN.replace(":1E:1F", "");
    assert_eq!(parse(&short), Err(SdpError::NoFingerprint));
    let many = format!("v=0\r\n{}", "m=audio 9 UDP/TLS/RTP/SAVPF 0\r\n".repeat(129));
    assert_eq!(parse(&many), Err(SdpError::TooManySections));
    let long = format!("v=0\r\n{}", "x=1\r\n".repeat(120_000));
    assert_eq!(parse(&long), Err(SdpError::TooLong));
}

#[test]
fn a_line_end_cannot_be_smuggled_into_the_answer() {
    let offer = CHROMIUM_JOIN
        .replace("a=rtpmap:111 opus/48000/2", "a=rtpmap:111 opus/48000/2\ra=evil:1")
        .replace("a=fmtp:111 minptime", "a=fmtp:111 \u{85}minptime");
    let (text, _) = answer(&offer, &[send("opus", None, false)]);
    assert!(!text.contains("evil") && !text.contains('\u{85}'));
}

#[test]
fn every_truncation_and_random_edit_is_survived() {
    let mut rng = crate::core::Rng::from_seed([6; 32]);
    for offer in ALL {
        for cut in (0..offer.len()).step_by(7).filter(|cut| offer.is_char_boundary(*cut)) {
            if parse(&offer[..cut]).is_ok() {
                answer(&offer[..cut], &[send("opus", None, false), receive("opus")]);
            }
        }
        for _ in 0..100 {
            let mut bytes = offer.as_bytes().to_vec();
            for _ in 0..1 + rng.next_u32() % 20 {
                let at = rng.next_u32() as usize % bytes.len();
                bytes[at] = b" :/=a=\r\n09;m"[rng.next_u32() as usize % 12];
            }
            let text = String::from_utf8_lossy(&bytes);
            if parse(&text).is_ok() {
                let fills = vec![receive("VP8"); 9];
                answer(&text, &fills);
            }
        }
    }
}
