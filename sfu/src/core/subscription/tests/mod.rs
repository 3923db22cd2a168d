//! Tests of subscriptions.

mod property;

use super::*;
use crate::core::api::{PlayoutDelay, Quality};
use crate::core::codec::Codec;
use crate::core::frames::Frames;
use crate::core::layers::Layer;
use crate::core::rtcp::SenderInfo;
use crate::core::rtp;

const VIDEO: Clocks<'_> = Clocks { rate: 90_000, layers: &[] };

fn subscription() -> Subscription {
    let streams = Streams { ssrc: 1, repair_ssrc: 2, sequences: (99, 499) };
    let wish = Wish { disabled: false, quality: Quality::High, height: 0, fps: 0 };
    let sid = TrackSid("TR_VC".into());
    let mut sub = Subscription::new(0, sid, MediaKind::Video, 0, streams, wish);
    sub.binding = Some(Binding {
        mid: "3".into(),
        payload_type: 96,
        repair_type: Some(97),
        red_type: None,
        descriptor_id: 12,
        playout_id: 9,
        number_id: 0,
    });
    sub.target = Some(Target::whole(0));
    sub
}

fn packet(layer: usize, index: u64, payload: &[u8]) -> Packet<'_> {
    Packet {
        layer,
        index,
        marker: false,
        timestamp: 1_000 * index as u32,
        starts: true,
        restored: false,
        red: None,
        olds: red::Olds::default(),
        descriptor: &[],
        playout: None,
        structure: None,
        frame: Frame::PLAIN,
        ids: Ids::of(Codec::Vp8, payload),
        payload,
    }
}

fn sent(sub: &mut Subscription, now: Instant, packet: &Packet<'_>) -> Option<(Vec<u8>, usize)> {
    let Verdict::Send(shift) = sub.admit(now, &VIDEO, packet) else { return None };
    let mut out = Vec::new();
    let len = sub.write(&mut out, &shift, packet).unwrap();
    Some((out, len))
}

fn numbers(sent: &(Vec<u8>, usize)) -> (u16, u32) {
    let header = rtp::Header::parse(&sent.0).unwrap();
    (header.sequence, header.timestamp)
}

#[test]
fn the_first_number_follows_the_drawn_one_and_the_clock_is_kept() {
    let (mut sub, now) = (subscription(), Instant::now());
    let first = sent(&mut sub, now, &packet(0, 70_000, &[0x10, 0])).unwrap();
    assert_eq!(numbers(&first), (100, 70_000_000));
}

#[test]
fn without_a_keyframe_nothing_starts() {
    let (mut sub, now) = (subscription(), Instant::now());
    let delta = Packet { starts: false, ..packet(0, 70_000, &[0x10, 1]) };
    assert_eq!(sub.admit(now, &VIDEO, &delta), Verdict::NeedsKeyframe);
    assert_eq!(sub.admit(now, &VIDEO, &Packet { layer: 1, ..delta }), Verdict::Drop);
}

#[test]
fn a_switch_goes_on_with_all_numbers() {
    let (mut sub, now) = (subscription(), Instant::now());
    // X, then I and L: picture ids of 15 and of 7 bits.
    let wide = [0x90, 0xC0, 0x81, 0x02, 7, 0];
    sent(&mut sub, now, &packet(0, 70_000, &wide)).unwrap();
    sub.target = Some(Target::whole(1));
    let later = now + Duration::from_millis(100);
    let other = [0x90, 0xC0, 0xA0, 0x00, 200, 0];
    let switched = sent(&mut sub, later, &packet(1, 90_000, &other)).unwrap();
    assert_eq!(numbers(&switched), (101, 70_000_000 + 9_000));
    assert_eq!(switched.0[switched.1..], [0x90, 0xC0, 0x81, 0x03, 8, 0]);
    sub.target = Some(Target::whole(2));
    let narrow = [0x90, 0xC0, 0x05, 100, 0];
    let switched = sent(&mut sub, later, &packet(2, 80_000, &narrow)).unwrap();
    assert_eq!(switched.0[switched.1..], [0x90, 0xC0, 0x04, 9, 0]);
    // What the first layer still owed keeps its place.
    let late = Packet { starts: false, ..packet(0, 70_000, &wide) };
    assert_eq!(numbers(&sent(&mut sub, later, &late).unwrap()).0, 100);
}

#[test]
fn the_descriptors_frame_number_goes_on_too() {
    let (mut sub, now) = (subscription(), Instant::now());
    let first = Packet {
        descriptor: &[0x80, 0x01, 0x00, 0x80],
        ids: Ids::default(),
        ..packet(0, 70_000, &[1])
    };
    sent(&mut sub, now, &first).unwrap();
    sub.target = Some(Target::whole(1));
    let second = Packet {
        descriptor: &[0x80, 0x77, 0x77, 0x80],
        ids: Ids::default(),
        ..packet(1, 90_000, &[1])
    };
    let (out, _) = sent(&mut sub, now, &second).unwrap();
    let (id, descriptor) = rtp::extensions(&out).next().unwrap();
    assert_eq!((id, descriptor), (12, &[0x80, 0x01, 0x01, 0x80][..]));
}

#[test]
fn a_repair_names_the_original_and_repeats_its_bytes() {
    let (mut sub, now) = (subscription(), Instant::now());
    let payload = [0x90, 0x80, 0x81, 0x02, 0];
    let original = packet(0, 70_000, &payload);
    sent(&mut sub, now, &original).unwrap();
    (0..2).for_each(|_| sub.count(&Shift::default(), &original, &[]));
    let round_trip = Duration::from_millis(50);
    let (layer, index, shift) = sub.asked_again(now, 100, round_trip).unwrap();
    assert_eq!((layer, index), (0, 70_000));
    let mut out = Vec::new();
    let len = sub.write_repair(&mut out, &shift, &packet(0, 70_000, &payload)).unwrap();
    let header = rtp::Header::parse(&out).unwrap();
    assert_eq!((header.payload_type, header.ssrc, header.sequence), (97, 2, 500));
    assert_eq!(out[len..], [[0, 100].as_slice(), &payload].concat());
    assert_eq!(sub.asked_again(now, 100, round_trip), None, "once in a round trip");
    assert_eq!(sub.asked_again(now, 101, round_trip), None, "never sent");
    assert!(sub.asked_again(now + round_trip, 100, round_trip).is_some());
}

#[test]
fn repair_has_a_budget() {
    let (mut sub, now) = (subscription(), Instant::now());
    for index in 70_000..71_000 {
        let packet = packet(0, index, &[0x10, 0]);
        sub.admit(now, &VIDEO, &packet);
        sub.count(&Shift::default(), &packet, &[]);
    }
    let asked = (100..1_100).filter(|at| sub.asked_again(now, *at, Duration::ZERO).is_some());
    assert_eq!(asked.count(), MAX_CREDIT as usize);
    let hour = Duration::from_secs(3_600);
    assert_eq!(sub.asked_again(now + hour, 1_000, Duration::ZERO), None, "time earns nothing");
    sub.count(&Shift::default(), &packet(0, 71_000, &[0x10, 0]), &[]);
    assert!(sub.asked_again(now, 1_000, Duration::ZERO).is_some());
}

#[test]
fn padding_after_a_gap_leaves_the_gap_its_numbers() {
    let (mut sub, now) = (subscription(), Instant::now());
    let payload = [0x90, 0x80, 0x81, 0x02, 0];
    sent(&mut sub, now, &packet(0, 70_000, &payload)).unwrap();
    let padding = Packet { starts: false, ids: Ids::default(), ..packet(0, 70_003, &[]) };
    assert_eq!(sub.admit(now, &VIDEO, &padding), Verdict::Drop);
    sub.target = Some(Target::whole(1));
    let next = sent(&mut sub, now, &packet(1, 80_000, &payload)).unwrap();
    assert_eq!(numbers(&next).0, 103, "101 and 102 may still come");
    let late = Packet { starts: false, ..packet(0, 70_002, &payload) };
    assert_eq!(numbers(&sent(&mut sub, now, &late).unwrap()).0, 102);
}

#[test]
fn a_playout_delay_is_written_where_there_is_one_and_the_receiver_reads_it() {
    let (mut sub, now) = (subscription(), Instant::now());
    let delay = PlayoutDelay { min_ms: 100, max_ms: 400 }.bytes();
    assert_eq!(delay, [0x00, 0xA0, 0x28]);
    let wide = PlayoutDelay { min_ms: 65_535, max_ms: 0 };
    assert_eq!(
        wide.bytes(),
        [0xFF, 0xFF, 0xFF],
        "what is too much is cut, and the most is not less"
    );
    let elements = |sent: &(Vec<u8>, usize)| -> Vec<(u8, Vec<u8>)> {
        rtp::extensions(&sent.0).map(|(id, value)| (id, value.to_vec())).collect()
    };
    let plain = sent(&mut sub, now, &packet(0, 70_000, &[0x10, 0])).unwrap();
    assert_eq!(elements(&plain), []);
    let delayed = Packet { playout: Some(delay), ..packet(0, 70_001, &[0x10, 0]) };
    let told = sent(&mut sub, now, &delayed).unwrap();
    assert_eq!(elements(&told), [(9, delay.to_vec())]);
    sub.binding.as_mut().unwrap().playout_id = 0;
    let delayed = Packet { playout: Some(delay), ..packet(0, 70_002, &[0x10, 0]) };
    assert_eq!(elements(&sent(&mut sub, now, &delayed).unwrap()), []);
}

/// A packet as its stream's reader sees it.
fn read<'p>(
    frames: &mut Frames,
    codec: Codec,
    layer: usize,
    index: u64,
    payload: &'p [u8],
) -> Packet<'p> {
    let timestamp = 3_000 * index as u32;
    let read = frames.read(codec, timestamp, payload, &[]);
    let starts = read.keyframe_start;
    Packet { frame: read.frame, ids: read.ids, starts, timestamp, ..packet(layer, index, payload) }
}

/// A VP8 payload with 15-bit picture id, TL0PICIDX and temporal layer; the rest is encrypted.
fn vp8(picture: u8, temporal: u8, sync: bool, key: bool) -> Vec<u8> {
    let layer = temporal << 6 | u8::from(sync) << 5;
    vec![0x90, 0xE0, 0x80, picture, 7, layer, u8::from(!key), 0xEE, 0x1E, picture]
}

#[test]
fn upper_temporal_layers_leave_no_gap_behind() {
    let (mut sub, now, mut frames) = (subscription(), Instant::now(), Frames::default());
    sub.target = Some(Target { stream: 0, spatial: 0, temporal: 0 });
    let mut got = Vec::new();
    for index in 0..12u64 {
        let temporal = [0, 2, 1, 2][index as usize % 4];
        let payload = vp8(index as u8, temporal, temporal > 0, index == 0);
        let packet = read(&mut frames, Codec::Vp8, 0, 70_000 + index, &payload);
        if let Some((bytes, len)) = sent(&mut sub, now, &packet) {
            got.push((rtp::Header::parse(&bytes).unwrap().sequence, bytes[len + 3], index));
        }
    }
    assert_eq!(got, [(100, 0, 0), (101, 1, 4), (102, 2, 8)]);
    // More is taken where a picture says so, layer by layer.
    sub.target = Some(Target::whole(0));
    let mut taken = Vec::new();
    for (at, temporal, sync) in [(12, 2, false), (13, 1, false), (14, 1, true), (15, 2, true)] {
        let payload = vp8(at, temporal, sync, false);
        let packet = read(&mut frames, Codec::Vp8, 0, 70_000 + u64::from(at), &payload);
        if let Some((bytes, len)) = sent(&mut sub, now, &packet) {
            taken.push((rtp::Header::parse(&bytes).unwrap().sequence, bytes[len + 3], at));
        }
    }
    assert_eq!(taken, [(103, 3, 14), (104, 4, 15)]);
}

#[test]
fn a_late_packet_that_is_not_wanted_goes_empty() {
    let (mut sub, now, mut frames) = (subscription(), Instant::now(), Frames::default());
    sub.target = Some(Target { stream: 0, spatial: 0, temporal: 0 });
    for (index, temporal) in [(0, 0), (1, 2), (2, 1), (4, 0)] {
        let payload = vp8(index as u8, temporal, false, index == 0);
        let packet = read(&mut frames, Codec::Vp8, 0, 70_000 + index, &payload);
        assert_eq!(sent(&mut sub, now, &packet).is_some(), temporal == 0);
    }
    let payload = vp8(3, 2, false, false);
    let late = read(&mut frames, Codec::Vp8, 0, 70_003, &payload);
    let (bytes, len) = sent(&mut sub, now, &late).unwrap();
    assert_eq!(rtp::Header::parse(&bytes).unwrap().sequence, 101, "between 100 and 102");
    assert_eq!(bytes.len(), len, "no payload");
    sub.count(&Shift::default(), &late, &[]);
    let (_, _, shift) = sub.asked_again(now, 101, Duration::ZERO).unwrap();
    let mut repair = Vec::new();
    let len = sub.write_repair(&mut repair, &shift, &late).unwrap();
    assert_eq!(repair[len..], [0, 101], "the repair is empty too");
}

#[test]
fn vp9_ids_go_on_over_a_switch() {
    let (mut sub, now) = (subscription(), Instant::now());
    let payload = |picture: u8, tl0: u8| [0xAC, 0x81, picture, 0x10, tl0, 0xAA, picture];
    let (first, other) = (payload(200, 9), payload(5, 90));
    let mut streams = [Frames::default(), Frames::default()];
    sent(&mut sub, now, &read(&mut streams[0], Codec::Vp9, 0, 70_000, &first)).unwrap();
    sub.target = Some(Target::whole(1));
    let (bytes, len) =
        sent(&mut sub, now, &read(&mut streams[1], Codec::Vp9, 1, 90_000, &other)).unwrap();
    assert_eq!(bytes[len..], [0xAC, 0x81, 201, 0x10, 10, 0xAA, 5]);
}

#[test]
fn encrypted_bytes_are_forwarded_as_they_came() {
    // With end-to-end encryption only the payload descriptor, which the sender's packetiser wrote in
    // clear, is rewritten; whatever stands behind it does not matter.
    let (mut sub, now, mut frames) = (subscription(), Instant::now(), Frames::default());
    for index in 0..200u64 {
        let mut payload = vp8(index as u8, 0, false, index == 0);
        payload.extend((0..50u64).map(|at| (index * 31 + at * 17) as u8));
        let packet = read(&mut frames, Codec::Vp8, 0, 70_000 + index, &payload);
        let (bytes, len) = sent(&mut sub, now, &packet).unwrap();
        assert_eq!(bytes[len + 6..], payload[6..]);
    }
}

#[test]
fn sender_reports_keep_the_clock_over_a_switch() {
    let (mut sub, now) = (subscription(), Instant::now());
    let report = |rtp_timestamp| SenderInfo { ntp: 1 << 40, rtp_timestamp, packets: 1, octets: 1 };
    let mut layers = [Layer::new(String::new(), 0), Layer::new(String::new(), 0)];
    layers[0].report = Some((report(1_000_000), now));
    layers[1].report = Some((report(7_000_000), now));
    let clocks = Clocks { rate: 90_000, layers: &layers };
    let first = Packet { timestamp: 1_000_000, ..packet(0, 70_000, &[0x10, 0]) };
    assert_eq!(
        sub.admit(now, &clocks, &first),
        Verdict::Send(Shift {
            sequence: (70_000u32 as u16).wrapping_sub(100),
            limit: Limit::of(Target::whole(0)),
            ..Shift::default()
        })
    );
    // Taken 40 ms later, come 100 ms later.
    let late = now + Duration::from_millis(100);
    sub.target = Some(Target::whole(1));
    let other = Packet { timestamp: 7_003_600, ..packet(1, 80_000, &[0x10, 0]) };
    let Verdict::Send(shift) = sub.admit(late, &clocks, &other) else { panic!("not sent") };
    assert_eq!(other.timestamp.wrapping_sub(shift.timestamp), 1_003_600);
}
