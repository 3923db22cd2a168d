//! Sound and picture stay together: what a receiver computes from sender reports.

use std::time::{Duration, Instant};

use bedside_sfu::core::api::TrackSid;
use bedside_sfu::core::peer::Crypto;

use crate::forwarding::call;
use crate::stream::Stream;
use crate::world::World;

/// Where a packet was in the publisher's time by the newest report before it, less where it really
/// was, in milliseconds, for each packet.
fn errors(
    stream: &Stream,
    rate: f64,
    made: impl Fn(&[u8]) -> Option<Duration>,
) -> Vec<(Instant, f64)> {
    let error = |seen: &crate::stream::Seen| {
        let (_, report) = stream.reports.iter().rev().find(|(at, _)| *at <= seen.at)?;
        let ntp = report.ntp as f64 / f64::from(u32::MAX);
        let later = f64::from(seen.timestamp.wrapping_sub(report.rtp_timestamp) as i32) / rate;
        Some((seen.at, (ntp + later - made(&seen.payload)?.as_secs_f64()) * 1_000.0))
    };
    stream.seen.values().filter_map(error).collect()
}

/// The widest distance of sound and picture, and when both were known first.
fn apart(world: &World, doctor: usize, voice: &TrackSid, face: &TrackSid) -> (f64, Instant) {
    let client = &world.clients[doctor];
    let patient = world.clients.iter().find(|client| !client.sources.is_empty()).unwrap();
    let since = |source: usize| patient.sources[source].started - world.start;
    let be32 = |bytes: &[u8]| Some(u32::from_be_bytes(*bytes.first_chunk()?));
    let sound = errors(client.stream_of(voice).unwrap(), 48_000.0, |payload| {
        Some(since(0) + Duration::from_millis(be32(payload)?.into()))
    });
    let picture = errors(client.stream_of(face).unwrap(), 90_000.0, |payload| {
        let frame = be32(payload.get(7..)?)?;
        Some(since(1) + Duration::from_millis(40) * (frame - 1))
    });
    let first = sound[0].0.max(picture[0].0);
    let mut widest = 0f64;
    for (at, picture) in picture.iter().filter(|(at, _)| *at >= first) {
        let (_, sound) = sound.iter().rev().find(|(heard, _)| heard <= at).unwrap();
        widest = widest.max((picture - sound).abs());
    }
    (widest, first)
}

/// Skewed clocks of sound, picture and wall, reports at different times, uneven delays, and a switch
/// each second: 10 ms at the most.
#[test]
fn sound_and_picture_stay_together_through_switches() {
    for (sound_ppm, picture_ppm, wall_ppm) in [(0, 0, 0), (200, -200, 100), (-300, 300, 0)] {
        let (mut world, doctor, patient, voice, face) = call(Crypto::Clear);
        for (source, ppm) in world.clients[patient].sources.iter_mut().zip([sound_ppm, picture_ppm])
        {
            for encoding in &mut source.encodings {
                encoding.skew_ppm = ppm;
            }
        }
        for second in 0..30u64 {
            world.send_reports_of(patient, wall_ppm, |source| source.video || second % 5 == 0);
            world.wish(doctor, &face, (second * 7 % 3) as usize);
            world.delay = Duration::from_millis(5 + second * 37 % 60);
            world.run_ms(1_000);
        }
        let (widest, _) = apart(&world, doctor, &voice, &face);
        assert!(widest <= 10.0, "{widest} ms with {sound_ppm} {picture_ppm} {wall_ppm}");
    }
}

#[test]
fn a_newcomer_is_in_step_at_once() {
    let (mut world, _, patient, voice, face) = call(Crypto::Clear);
    for _ in 0..3 {
        world.send_reports(patient);
        world.run_ms(1_130);
    }
    let guest = world.join_as("guest", Default::default(), |client| client.receive_on(2, 2));
    world.run_ms(900);
    let client = &world.clients[guest];
    for track in [&voice, &face] {
        let stream = client.stream_of(track).unwrap();
        let first = stream.seen.values().map(|seen| seen.at).min().unwrap();
        let (told, _) = stream.reports[0];
        assert!(told <= first + Duration::from_millis(60), "{:?}", told - first);
    }
    let (widest, _) = apart(&world, guest, &voice, &face);
    assert!(widest <= 10.0, "{widest} ms");
}

#[test]
fn a_switch_is_reported_at_once_and_once() {
    let (mut world, doctor, patient, voice, face) = call(Crypto::Clear);
    world.send_reports(patient);
    world.run_ms(2_050);
    let reports =
        |world: &World, track| world.clients[doctor].stream_of(track).unwrap().reports.len();
    let before = (reports(&world, &voice), reports(&world, &face));
    world.wish(doctor, &face, 0);
    world.run_ms(200);
    let after = (reports(&world, &voice), reports(&world, &face));
    assert!(after.1 - before.1 <= 2, "not each 50 ms");
    assert!(after.1 > before.1 && after.0 - before.0 == after.1 - before.1, "both together");
}
