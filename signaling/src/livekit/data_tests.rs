//! The rules of the data relay, read back with the protocol's own types.

#![allow(deprecated, reason = "older clients read and send deprecated fields")]

use livekit_protocol as lk;
use livekit_protocol::data_packet::Value as Content;
use prost::Message as _;

use super::*;

const ANN: DataSender<'static> = DataSender { sid: "PA_ann", identity: "ann", agent: false };
const AGENT: DataSender<'static> = DataSender { sid: "PA_bot", identity: "bot", agent: true };
const HIDDEN: DataSender<'static> = DataSender { sid: "", identity: "", agent: false };

fn user() -> lk::UserPacket {
    lk::UserPacket {
        participant_sid: "PA_liar".into(),
        participant_identity: "liar".into(),
        payload: b"hello".to_vec(),
        topic: Some("chat".into()),
        id: Some("1".into()),
        nonce: vec![1, 2, 3],
        ..lk::UserPacket::default()
    }
}

fn packet(value: Content) -> lk::DataPacket {
    lk::DataPacket {
        kind: 1,
        participant_identity: "liar".into(),
        participant_sid: "PA_liar".into(),
        sequence: 7,
        value: Some(value),
        ..lk::DataPacket::default()
    }
}

fn relayed(sender: &DataSender<'_>, message: &lk::DataPacket) -> (Relayed, lk::DataPacket) {
    let relayed = relay(sender, DataChannelKind::Reliable, &message.encode_to_vec()).unwrap();
    let read = lk::DataPacket::decode(&relayed.payload[..]).unwrap();
    (relayed, read)
}

#[test]
fn the_sender_is_who_we_know_it_to_be() {
    let (out, read) = relayed(&ANN, &packet(Content::User(user())));
    assert_eq!(
        (read.participant_identity.as_str(), read.participant_sid.as_str()),
        ("ann", "PA_ann")
    );
    assert_eq!((read.sequence, out.sequence), (7, 7));
    let Some(Content::User(inner)) = read.value else { panic!() };
    assert_eq!(
        (inner.participant_identity.as_str(), inner.participant_sid.as_str()),
        ("ann", "PA_ann")
    );
    assert_eq!(
        (inner.payload, inner.topic, inner.nonce),
        (b"hello".to_vec(), Some("chat".into()), vec![1, 2, 3])
    );
    assert!(out.to_identities.is_empty() && out.to_sids.is_empty());
}

#[test]
fn a_hidden_sender_stays_unnamed() {
    let (_, read) = relayed(&HIDDEN, &packet(Content::User(user())));
    assert_eq!((read.participant_identity.as_str(), read.participant_sid.as_str()), ("", ""));
    let Some(Content::User(inner)) = read.value else { panic!() };
    assert_eq!((inner.participant_identity.as_str(), inner.participant_sid.as_str()), ("", ""));
}

#[test]
fn the_channel_decides_the_kind() {
    let message = packet(Content::User(user())).encode_to_vec();
    let kind = |channel| {
        let out = relay(&ANN, channel, &message).unwrap();
        lk::DataPacket::decode(&out.payload[..]).unwrap().kind
    };
    assert_eq!(kind(DataChannelKind::Reliable), 0);
    assert_eq!(kind(DataChannelKind::Lossy), 1);
}

#[test]
fn receivers_are_the_union_of_both_lists_and_stand_in_both() {
    let mut message = packet(Content::User(lk::UserPacket {
        destination_identities: vec!["bob".into(), "eve".into()],
        destination_sids: vec!["PA_z".into()],
        ..user()
    }));
    message.destination_identities = vec!["bob".into()];
    let (out, read) = relayed(&ANN, &message);
    assert_eq!(out.to_identities, ["bob", "eve"]);
    assert_eq!(out.to_sids, ["PA_z"]);
    assert_eq!(read.destination_identities, ["bob", "eve"]);
    let Some(Content::User(inner)) = read.value else { panic!() };
    assert_eq!(inner.destination_identities, ["bob", "eve"]);
    assert_eq!(inner.destination_sids, ["PA_z"]);
}

#[test]
fn what_we_do_not_know_goes_on_unchanged() {
    let mut content = user().encode_to_vec();
    let mut unknown = Vec::new();
    write_bytes_field(&mut unknown, 900, b"of the future");
    write_varint_field(&mut unknown, 901, u64::MAX);
    unknown.extend_from_slice(&[0xe1, 0x38, 1, 2, 3, 4, 5, 6, 7, 8]); // field 908, 8 bytes
    unknown.extend_from_slice(&[0xed, 0x38, 1, 2, 3, 4]); // field 909, 4 bytes
    content.extend_from_slice(&unknown);
    let mut message =
        lk::DataPacket { value: None, ..packet(Content::User(user())) }.encode_to_vec();
    write_bytes_field(&mut message, 2, &content);
    message.extend_from_slice(&unknown);
    let out = relay(&ANN, DataChannelKind::Reliable, &message).unwrap();
    let at = |needle: &[u8]| out.payload.windows(needle.len()).filter(|w| *w == needle).count();
    assert_eq!(at(&unknown), 2, "inside and outside");
    assert!(lk::DataPacket::decode(&out.payload[..]).is_ok());
}

#[test]
fn a_second_user_packet_cannot_smuggle_a_name() {
    // Decoders merge repeated messages, so each one must be patched.
    let mut message = packet(Content::User(user())).encode_to_vec();
    write_bytes_field(&mut message, 2, &user().encode_to_vec());
    write_bytes_field(&mut message, 4, b"liar");
    let out = relay(&ANN, DataChannelKind::Reliable, &message).unwrap();
    assert!(!out.payload.windows(4).any(|w| w == b"liar"));
    let read = lk::DataPacket::decode(&out.payload[..]).unwrap();
    assert_eq!(read.participant_identity, "ann");
    let Some(Content::User(inner)) = read.value else { panic!() };
    assert_eq!(inner.participant_identity, "ann");
}

#[test]
fn streams_calls_and_sealed_packets_are_not_looked_into() {
    let contents = [
        Content::RpcRequest(lk::RpcRequest {
            id: "1".into(),
            method: "m".into(),
            ..Default::default()
        }),
        Content::RpcAck(lk::RpcAck { request_id: "1".into() }),
        Content::ChatMessage(lk::ChatMessage { message: "hi".into(), ..Default::default() }),
        Content::StreamChunk(lk::data_stream::Chunk {
            content: vec![9; 100],
            ..Default::default()
        }),
        Content::EncryptedPacket(lk::EncryptedPacket {
            encrypted_value: vec![7; 50],
            ..Default::default()
        }),
    ];
    for content in contents {
        let mut message = packet(content.clone());
        message.destination_identities = vec!["bob".into()];
        let (out, read) = relayed(&ANN, &message);
        assert_eq!(read.value, Some(content));
        assert_eq!(out.to_identities, ["bob"]);
        assert_eq!(read.participant_identity, "ann");
    }
}

#[test]
fn only_an_agent_transcribes_and_speaks_for_others() {
    let transcription = packet(Content::Transcription(lk::Transcription::default()));
    let message = transcription.encode_to_vec();
    assert_eq!(relay(&ANN, DataChannelKind::Reliable, &message), None);
    let (_, read) = relayed(&AGENT, &transcription);
    assert_eq!(read.participant_identity, "liar");
    let stream = packet(Content::StreamHeader(lk::data_stream::Header::default()));
    assert_eq!(relayed(&AGENT, &stream).1.participant_identity, "liar");
    assert_eq!(relayed(&ANN, &stream).1.participant_identity, "ann");
    // Not in plain data.
    assert_eq!(relayed(&AGENT, &packet(Content::User(user()))).1.participant_identity, "bot");
    let unclaimed = lk::DataPacket { participant_identity: String::new(), ..stream };
    assert_eq!(relayed(&AGENT, &unclaimed).1.participant_identity, "bot");
}

#[test]
fn nobody_says_who_speaks_but_the_server() {
    let message = packet(Content::Speaker(lk::ActiveSpeakerUpdate::default())).encode_to_vec();
    assert_eq!(relay(&AGENT, DataChannelKind::Reliable, &message), None);
}

#[test]
fn malformed_messages_are_dropped() {
    let cases: [&[u8]; 10] = [
        b"\x0a",                                         // a length is missing
        b"\x12\x05abc",                                  // too short
        b"\x00\x01",                                     // field zero
        b"\x0b\x0c",                                     // a group
        b"\x0e",                                         // wire type 6
        b"\x22\x02\xff\xfe",                             // an identity that is no text
        b"\x20\x01",                                     // an identity that is a number
        b"\x82\x01\x00",                                 // a sequence that is bytes
        b"\x80\x01\xff\xff\xff\xff\xff\x01",             // a sequence beyond 32 bits
        b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff", // a tag without an end
    ];
    for case in cases {
        assert_eq!(relay(&ANN, DataChannelKind::Reliable, case), None, "{case:x?}");
    }
}

#[test]
fn too_many_receivers_are_too_many() {
    let mut message = packet(Content::User(user()));
    message.destination_identities = (0..=MAX_RECEIVERS).map(|n| n.to_string()).collect();
    assert_eq!(relay(&ANN, DataChannelKind::Reliable, &message.encode_to_vec()), None);
}

#[test]
fn damaged_messages_never_panic_and_never_lie() {
    let mut message = packet(Content::User(lk::UserPacket {
        destination_identities: vec!["bob".into()],
        ..user()
    }));
    message.destination_identities = vec!["bob".into()];
    let good = message.encode_to_vec();
    let check = |bytes: &[u8]| {
        let Some(out) = relay(&ANN, DataChannelKind::Lossy, bytes) else { return };
        if let Ok(read) = lk::DataPacket::decode(&out.payload[..]) {
            assert_eq!(read.participant_identity, "ann");
            assert_eq!(read.participant_sid, "PA_ann");
            if let Some(Content::User(inner)) = read.value {
                assert_eq!(inner.participant_identity, "ann");
            }
        }
    };
    for cut in 0..good.len() {
        check(&good[..cut]);
    }
    for index in 0..good.len() {
        for bit in 0..8 {
            let mut bytes = good.clone();
            bytes[index] ^= 1 << bit;
            check(&bytes);
        }
    }
    let mut seed = 0x2545_f491_4f6c_dd1d_u64;
    for len in (0..400).cycle().take(20_000) {
        let bytes: Vec<u8> = (0..len)
            .map(|_| {
                seed ^= seed << 13;
                seed ^= seed >> 7;
                seed ^= seed << 17;
                (seed >> 32) as u8
            })
            .collect();
        check(&bytes);
    }
}
