//! The loops in the tree, and how they are played.

use std::collections::BTreeMap;

use bedside_sfu::core::descriptor::Descriptors;

use super::*;

#[test]
fn every_loop_is_what_its_name_says() {
    let total: usize = Loop::ALL.into_iter().map(|name| name.file().len()).sum();
    assert!(total < 4_000_000, "{total}");
    for name in Loop::ALL {
        let recording = name.read();
        let (codec, streams) = match name {
            Loop::Vp8Simulcast | Loop::Vp8Described => (Codec::Vp8, 3),
            Loop::H264Simulcast => (Codec::H264, 3),
            Loop::Vp9L3T3Key => (Codec::Vp9, 1),
            Loop::Av1L3T3Key | Loop::Av1L1T3 => (Codec::Av1, 1),
        };
        assert_eq!((recording.codec, recording.sizes.len()), (codec, streams), "{name:?}");
        let spatial = matches!(name, Loop::Vp9L3T3Key | Loop::Av1L3T3Key);
        let size = if spatial { (960, 540) } else { (640, 360) };
        assert_eq!(recording.sizes.last(), Some(&size));
        assert!((440_000..470_000).contains(&recording.length), "{name:?}: {}", recording.length);
        for stream in 0..streams as u8 {
            let own: Vec<&Packet> =
                recording.packets.iter().filter(|packet| packet.stream == stream).collect();
            assert!(own[0].keyframe_start && own[0].ticks == 0, "{name:?} {stream}");
            assert!(own[own.len() - 1].marker, "{name:?} {stream}: the last picture is whole");
            assert!(own.windows(2).all(|pair| pair[0].marker == (pair[0].ticks != pair[1].ticks)));
            assert!(own.iter().all(|packet| (1..=1_200).contains(&packet.payload.len())));
            let keys: Vec<u32> = own
                .iter()
                .filter(|packet| packet.keyframe_start)
                .map(|packet| packet.ticks)
                .chain([recording.length])
                .collect();
            assert!(keys.windows(2).all(|pair| pair[1] - pair[0] < 3 * CLOCK / 2), "{keys:?}");
            let pictures = own.iter().filter(|packet| packet.marker).count();
            assert!((90..=102).contains(&pictures), "{name:?} {stream}: {pictures} pictures");
        }
    }
}

/// Frames by spatial and temporal layer of one stream, by their descriptors.
fn frames(name: Loop, stream: u8) -> BTreeMap<(u8, u8), usize> {
    let recording = name.read();
    let mut descriptors = Descriptors::default();
    let mut found = BTreeMap::new();
    for packet in recording.packets.iter().filter(|packet| packet.stream == stream) {
        let read = descriptors.read(packet.descriptor).expect("every packet has one");
        if read.starts_frame {
            *found.entry((read.spatial, read.temporal)).or_default() += 1;
        }
    }
    found
}

#[test]
fn descriptors_tell_every_layer() {
    for name in [Loop::Vp9L3T3Key, Loop::Av1L3T3Key] {
        let found = frames(name, 0);
        let layers = (0..3).flat_map(|spatial| (0..3).map(move |temporal| (spatial, temporal)));
        for layer in layers {
            let count = found.get(&layer).copied().unwrap_or_default();
            let usual = if layer.1 == 2 { 40..=52 } else { 20..=32 };
            assert!(usual.contains(&count), "{name:?}: {found:?}");
        }
    }
    let found = frames(Loop::Av1L1T3, 0);
    assert_eq!(found.keys().copied().collect::<Vec<_>>(), [(0, 0), (0, 1), (0, 2)]);
    for stream in 0..3 {
        assert_eq!(frames(Loop::Vp8Described, stream).len(), 3);
        assert_eq!(frames(Loop::H264Simulcast, stream).len(), 1);
    }
}

#[test]
fn vp9_payloads_agree_with_their_descriptors() {
    let mut descriptors = Descriptors::default();
    for packet in &Loop::Vp9L3T3Key.read().packets {
        let described = descriptors.read(packet.descriptor).unwrap();
        let found = Vp9::parse(packet.payload).unwrap();
        assert_eq!((found.spatial, found.temporal), (described.spatial, described.temporal));
        assert_eq!(found.starts_frame, described.starts_frame);
        assert_eq!(found.ends_frame, described.ends_frame);
        assert_eq!(found.keyframe_start, described.has_structure);
        assert!(found.structure.is_none() || found.keyframe_start);
    }
}

#[test]
fn numbers_go_on_from_lap_to_lap() {
    for name in Loop::ALL {
        let recording = name.read();
        let mut last: BTreeMap<u8, (u16, u8)> = BTreeMap::new();
        let (mut ticks, mut frame) = (0, None::<u16>);
        for index in 0..recording.packets.len() * 3 {
            let (packet, played) = recording.play(index).unwrap();
            assert!(played.ticks >= ticks, "{name:?}");
            ticks = played.ticks;
            if let Some(number) = frame_number(&played.descriptor) {
                let step = number.wrapping_sub(frame.unwrap_or(number));
                // Two streams may be interleaved within a picture.
                assert!(step.wrapping_add(4) <= 9, "{name:?}: {frame:?} to {number}");
                frame = Some(number);
            }
            let (id, tl0) = numbers_of(recording.codec, &played.payload);
            let Some((_, id, true)) = id else { continue };
            let tl0 = tl0.map(|(_, tl0)| tl0).unwrap_or_default();
            if let Some((last_id, last_tl0)) = last.insert(packet.stream, (id, tl0)) {
                assert!(id.wrapping_sub(last_id) & 0x7FFF <= 1, "{name:?}: {last_id} to {id}");
                assert!(tl0.wrapping_sub(last_tl0) <= 1, "{name:?}: {last_tl0} to {tl0}");
            }
        }
        assert_eq!(recording.play(0).unwrap().1.payload, recording.packets[0].payload);
    }
}

#[test]
fn temporal_layers_are_in_the_payload_where_no_descriptor_tells_them() {
    let recording = Loop::Vp8Simulcast.read();
    let mut layers = [0; 4];
    for packet in &recording.packets {
        assert!(packet.descriptor.is_empty());
        let found = Vp8::parse(packet.payload).unwrap();
        assert!(found.picture_id.is_some() && found.tl0_picture_index.is_some());
        layers[usize::from(found.temporal.unwrap())] += usize::from(packet.marker);
    }
    assert!(layers[..3].iter().all(|pictures| *pictures > 50) && layers[3] == 0, "{layers:?}");
}

#[test]
fn a_file_cut_anywhere_is_refused_or_whole() {
    let file = Loop::Av1L1T3.file();
    for cut in 0..2_000 {
        if let Some(short) = Recording::read(&file[..cut]) {
            assert!(short.packets.len() < 10);
        }
    }
    assert!(Recording::read(b"BRTP\x02\0\x01\0\0\0\0\x01\0\0\0\0").is_none(), "another version");
    assert!(Recording::read(b"BRTP\x01\x09\x01\0\0\0\0\x01\0\0\0\0").is_none(), "no such codec");
}
