//! Tests of the audio play-out model: streams with known faults and what is heard of them.

use super::*;

const PACKET: u64 = 960;

/// Plays `count` packets of 20 ms; `arrival` says when each comes (in ms after it was made) and how,
/// or that it never comes.
fn play(count: u64, arrival: impl Fn(u64) -> Option<(u64, Origin)>) -> AudioPlayout {
    let start = Instant::now();
    let mut playout = Playout::new(start);
    let mut arrivals: Vec<_> = (0..count)
        .filter_map(|packet| {
            arrival(packet).map(|(late, origin)| (packet * 20 + late, packet, origin))
        })
        .collect();
    arrivals.sort_by_key(|(at, packet, _)| (*at, *packet));
    for (at, packet, origin) in arrivals {
        let timestamp = (packet * PACKET) as u32;
        let timestamp = timestamp.wrapping_add(u32::MAX - 10_000);
        playout.insert(start + Duration::from_millis(at), timestamp, PACKET, origin);
    }
    playout.totals()
}

fn share(totals: &AudioPlayout) -> f64 {
    100.0 * totals.concealed.as_secs_f64() / totals.played.as_secs_f64()
}

#[test]
fn a_clean_stream_is_played_whole_and_soon() {
    let totals = play(1500, |_| Some((20, Origin::Direct)));
    assert!(share(&totals) < 0.1, "{totals:?}");
    assert!(totals.played.as_millis() >= 29_900);
    let mean = totals.waited / u32::try_from(totals.packets).unwrap();
    assert!(mean <= Duration::from_millis(60), "{mean:?}");
    assert_eq!((totals.from_redundancy, totals.late), (0, 0));
}

#[test]
fn what_is_lost_is_concealed_and_nothing_more() {
    let totals = play(5000, |packet| (packet % 10 != 5).then_some((20, Origin::Direct)));
    let share = share(&totals);
    assert!((4.5..11.0).contains(&share), "{share}: {totals:?}");
    assert_eq!(totals.silent, Duration::ZERO);
}

#[test]
fn redundancy_of_the_next_packet_repairs_single_losses() {
    let totals = play(3000, |packet| match packet % 10 {
        // It comes with the next packet, 20 ms later.
        5 => Some((41, Origin::Redundant)),
        _ => Some((20, Origin::Direct)),
    });
    assert!(totals.from_redundancy > 200, "{totals:?}");
    let plain = play(3000, |packet| (packet % 10 != 5).then_some((20, Origin::Direct)));
    assert!(totals.concealed < plain.concealed / 2, "{totals:?} against {plain:?}");
}

#[test]
fn repairs_that_are_often_needed_are_waited_for() {
    let totals = play(5000, |packet| match packet % 8 {
        3 => Some((100, Origin::Repaired)),
        _ => Some((20, Origin::Direct)),
    });
    assert!(totals.target >= Duration::from_millis(80), "{totals:?}");
    assert!(share(&totals) < 1.0, "{totals:?}");
    assert!(totals.from_repair > 550, "{totals:?}");
    let mean = totals.waited / u32::try_from(totals.packets).unwrap();
    assert!(mean >= Duration::from_millis(60), "{mean:?}");
}

#[test]
fn repairs_that_come_too_late_are_counted_as_late() {
    let totals = play(3000, |packet| match packet % 100 {
        50 => Some((600, Origin::Repaired)),
        _ => Some((20, Origin::Direct)),
    });
    assert_eq!(totals.from_repair, 0, "{totals:?}");
    assert!(totals.late >= 28, "{totals:?}");
}

#[test]
fn jitter_is_taken_up_by_delay() {
    let totals = play(3000, |packet| Some((20 + packet * 7919 % 60, Origin::Direct)));
    assert!(share(&totals) < 0.5, "{totals:?}");
    assert!(totals.target >= Duration::from_millis(60), "{totals:?}");
}

#[test]
fn a_long_hole_fades_to_silence_and_the_delay_comes_back_down() {
    let totals =
        play(1500, |packet| (!(500..600).contains(&packet)).then_some((20, Origin::Direct)));
    assert!(totals.silent > Duration::from_millis(1500), "{totals:?}");
    assert!(totals.concealed < Duration::from_millis(400), "{totals:?}");
    // A queue that empties at once: everything is played, and what waits is played faster.
    let totals = play(1500, |packet| {
        let late = if (500..550).contains(&packet) { (550 - packet) * 20 } else { 0 };
        Some((20 + late, Origin::Direct))
    });
    assert!(totals.removed > Duration::from_millis(300), "{totals:?}");
    assert!(totals.longest_delay < Duration::from_millis(1500), "{totals:?}");
}

#[test]
fn the_queue_is_what_direct_packets_waited_for() {
    let totals =
        play(1000, |packet| Some((if packet % 4 == 0 { 120 } else { 20 }, Origin::Direct)));
    assert_eq!(totals.queue_p95.as_millis(), 0, "a packet behind a later one is reordered");
    let totals = play(1000, |packet| Some((20 + packet % 50 * 2, Origin::Direct)));
    assert!((80..110).contains(&totals.queue_p95.as_millis()), "{totals:?}");
}

#[test]
fn opus_says_how_long_it_is() {
    assert_eq!(opus_samples(&[]), 0);
    assert_eq!(opus_samples(&[1 << 3]), 960, "20 ms of SILK");
    assert_eq!(opus_samples(&[3 << 3]), 2880, "60 ms of SILK");
    assert_eq!(opus_samples(&[13 << 3 | 1]), 1920, "two frames of 20 ms, hybrid");
    assert_eq!(opus_samples(&[31 << 3]), 960, "20 ms of CELT");
    assert_eq!(opus_samples(&[16 << 3 | 3, 4]), 480, "four frames of 2.5 ms");
    assert_eq!(opus_samples(&[3 << 3 | 3, 48]), 5760, "too long");
    assert_eq!(opus_samples(&[0xFF]), 0);
}
