//! The codec against the vectors of RFC 5769 and against damaged bytes.

use super::*;
use crate::auth::{PasswordAlgorithm, long_term_key};

/// RFC 5769 §2.1, a Binding request with short-term credentials.
const SAMPLE: &str = "000100582112a442b7e7a701bc34d686fa87dfae802200105354554e207465737420636c69656e74002400046e0001ff80290008932ff9b151263b36000600096576746a3a68367659202020000800149aeaa70cbfd8cb56781ef2b5b2d3f249c1b571a280280004e57a3bcf";
/// RFC 5769 §2.3, its IPv6 answer.
const ANSWER_V6: &str = "010100482112a442b7e7a701bc34d686fa87dfae8022000b7465737420766563746f7220002000140002a1470113a9faa5d3f179bc25f4b5bed2b9d900080014a382954e4be67bf11784c97c8292c275bfe3ed4180280004c8fb0b4c";

fn bytes(text: &str) -> Vec<u8> {
    (0..text.len()).step_by(2).map(|i| u8::from_str_radix(&text[i..i + 2], 16).unwrap()).collect()
}

#[test]
fn reads_the_request_of_rfc_5769() {
    let raw = bytes(SAMPLE);
    let message = Message::parse(&raw).unwrap();
    assert_eq!((message.method, message.class), (Method::Binding, Class::Request));
    assert_eq!(message.attribute(attribute::USERNAME), Some(&b"evtj:h6vY"[..]));
    assert!(message.verify(&short_term_key("VOkJxbRl1RmTxUk/WvJxBt")));
    assert!(!message.verify(&short_term_key("another password")));
}

#[test]
fn reads_the_ipv6_answer_of_rfc_5769() {
    let raw = bytes(ANSWER_V6);
    let message = Message::parse(&raw).unwrap();
    assert_eq!(message.class, Class::Success);
    let want: SocketAddr = "[2001:db8:1234:5678:11:2233:4455:6677]:32853".parse().unwrap();
    assert_eq!(message.address(attribute::XOR_MAPPED_ADDRESS), Some(want));
    assert!(message.verify(&short_term_key("VOkJxbRl1RmTxUk/WvJxBt")));
}

#[test]
fn what_is_written_is_read_back() {
    let key = short_term_key("secret");
    let peer: SocketAddr = "203.0.113.9:4000".parse().unwrap();
    let raw = Writer::new(Method::Allocate, Class::Error, [7; 12])
        .error(486, "Allocation Quota Reached")
        .address(attribute::XOR_PEER_ADDRESS, peer)
        .attribute(attribute::LIFETIME, &600u32.to_be_bytes())
        .attribute(attribute::REALM, b"odd")
        .integrity(Integrity::Sha1, &key)
        .fingerprint();
    let message = Message::parse(&raw).unwrap();
    assert_eq!((message.method, message.class), (Method::Allocate, Class::Error));
    assert_eq!(message.error_code(), Some(486));
    assert_eq!(message.address(attribute::XOR_PEER_ADDRESS), Some(peer));
    assert_eq!(message.word(attribute::LIFETIME), Some(600));
    assert_eq!(message.attribute(attribute::REALM), Some(&b"odd"[..]));
    assert!(message.verify(&key));
}

#[test]
fn every_method_and_class_survives() {
    use Class::{Error, Indication, Request, Success};
    use Method::{
        Allocate, Binding, ChannelBind, CreatePermission, Data, Refresh, Send as SendMethod,
    };
    for method in [Binding, Allocate, Refresh, SendMethod, Data, CreatePermission, ChannelBind] {
        for class in [Request, Indication, Success, Error] {
            let raw = Writer::new(method, class, [1; 12]).finish();
            let message = Message::parse(&raw).unwrap();
            assert_eq!((message.method, message.class), (method, class));
        }
    }
}

#[test]
fn attributes_behind_the_signature_do_not_count() {
    let raw = Writer::new(Method::Binding, Class::Request, [1; 12])
        .integrity(Integrity::Sha1, &short_term_key("x"))
        .attribute(attribute::USERNAME, b"forged")
        .finish();
    assert_eq!(Message::parse(&raw).unwrap().attribute(attribute::USERNAME), None);
}

#[test]
fn damaged_messages_are_refused_and_never_panic() {
    let raw = bytes(SAMPLE);
    let key = short_term_key("VOkJxbRl1RmTxUk/WvJxBt");
    for cut in 0..raw.len() {
        assert!(Message::parse(&raw[..cut]).is_err(), "cut at {cut}");
    }
    // FINGERPRINT itself is not signed: without its number it is an attribute to ignore.
    for bit in 0..(raw.len() - 8) * 8 {
        let mut bad = raw.clone();
        bad[bit / 8] ^= 1 << (bit % 8);
        let accepted = Message::parse(&bad).is_ok_and(|m| m.verify(&key));
        assert!(!accepted, "bit {bit} flipped and still authentic");
    }
}

#[test]
fn channel_data_goes_both_ways() {
    let mut raw = channel_data_head(0x4001, 3).to_vec();
    raw.extend(b"abc\0");
    assert_eq!(parse_channel_data(&raw), Some((0x4001, &b"abc"[..])));
    assert_eq!(parse_channel_data(&raw[..6]), None);
    assert_eq!(parse_channel_data(&[0x80, 0, 0, 0]), None);
}

#[test]
fn reads_the_request_of_rfc_8489_with_sha_256() {
    // RFC 8489 appendix B.1, as its erratum has it.
    let raw = bytes(concat!(
        "000100902112a44278ad3433c6ad72c029da412e001e00204a3cf38fef6992bda952c67804",
        "17da0f24819415569e60b205c46e41407f1704001500296f62",
        "4d61744a6f7332414141436",
        "62f2f3439396b393534643",
        "64f4c33346f4c394653547679363473",
        "410000000014000b6578616d706c652e6f726700001d000400020000001c0020b5c7bf005b6c",
        "52a21c51c5e892f81924136296cb927c43149309278cc6518e65"
    ));
    let message = Message::parse(&raw).unwrap();
    assert_eq!(message.integrity(), Some(Integrity::Sha256));
    let (user, realm, password) =
        ("\u{30DE}\u{30C8}\u{30EA}\u{30C3}\u{30AF}\u{30B9}", "example.org", "TheMatrIX");
    let key = |algorithm| long_term_key(algorithm, user, realm, password);
    assert!(message.verify(&key(PasswordAlgorithm::Sha256)));
    assert!(!message.verify(&key(PasswordAlgorithm::Md5)));
}

#[test]
fn a_cut_sha_256_signature_counts_from_sixteen_bytes_on() {
    let key = short_term_key("x");
    for (length, good) in [(12, false), (16, true), (28, true), (32, true), (36, false)] {
        // The signer counts its own attribute with the length that it gives it.
        let filler = Writer::new(Method::Binding, Class::Request, [1; 12])
            .attribute(attribute::SOFTWARE, b"")
            .attribute(attribute::MESSAGE_INTEGRITY_SHA256, &vec![0; length])
            .finish();
        let signing = hmac::Key::new(hmac::HMAC_SHA256, b"x");
        let tag = hmac::sign(&signing, &filler[..24]);
        let mut raw = filler.clone();
        for (to, from) in raw[28..].iter_mut().zip(tag.as_ref()) {
            *to = *from;
        }
        assert_eq!(Message::parse(&raw).unwrap().verify(&key), good, "{length}");
    }
}
