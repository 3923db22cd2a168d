//! Whatever the link does and the receiver says, the estimate stays within its bounds.

use std::time::{Duration, Instant};

use rand_chacha::rand_core::{Rng as _, SeedableRng as _};

use super::link::{Loss, Profile};
use super::sender::{Setup, run};
use crate::core::Rng;
use crate::core::bwe::{Cargo, Estimator, MAX_BPS, MIN_BPS};
use crate::core::twcc::Recorder;

fn check(estimator: &Estimator) {
    let target = estimator.target_bps();
    assert!((MIN_BPS..=MAX_BPS).contains(&target), "{target}");
    assert!(estimator.pacing_bps() >= target);
    assert!((0.0..=1.0).contains(&estimator.loss()));
}

#[test]
fn any_link_leaves_the_estimate_within_its_bounds() {
    let mut rng = Rng::from_seed([11; 32]);
    for seed in 0..12 {
        let mut some = |from: f64, to: f64| {
            from + (to - from) * f64::from(rng.next_u32()) / f64::from(u32::MAX)
        };
        let profile = Profile {
            rate: vec![(0.0, some(3e4, 5e6)), (3.0, some(1e4, 5e6)), (6.0, some(3e4, 5e6))],
            queue_ms: some(5.0, 2_000.0),
            delay_ms: some(1.0, 400.0),
            jitter_ms: some(0.0, 100.0),
            ordered: seed % 2 == 0,
            loss: Loss::Runs(some(0.0, 0.4), some(1.0, 30.0)),
            outages: vec![(some(2.0, 8.0), some(2.0, 8.0))],
            other: (seed % 3 == 0).then_some((1e6, 2.0, 7.0)),
        };
        let setup = Setup {
            seconds: 10.0,
            feedback_us: 50_000 + 10_000 * u64::from(seed % 6),
            feedback_loss: some(0.0, 0.5),
            seed,
            ..Setup::default()
        };
        for moment in run(profile, setup) {
            assert!(moment.target >= MIN_BPS as f64 && moment.target <= MAX_BPS as f64);
        }
    }
}

/// A message that says what it likes of numbers around `number`.
fn lie(rng: &mut Rng, number: u16) -> Vec<u8> {
    let count = rng.next_u32() as u16 % 300 + 1;
    let base = match rng.next_u32() % 3 {
        0 => rng.next_u32() as u16,
        _ => number.wrapping_sub(rng.next_u32() as u16 % 200),
    };
    let mut packet = vec![0x8F, 205, 0, 0, 0, 0, 0, 1, 0, 0, 0, 2];
    packet.extend(base.to_be_bytes());
    packet.extend(count.to_be_bytes());
    packet.extend(rng.next_u32().to_be_bytes());
    let symbol = rng.next_u32() as u16 % 3;
    packet.extend((symbol << 13 | count).to_be_bytes());
    for _ in 0..usize::from(count) * usize::from(symbol) {
        packet.push(if rng.next_u32().is_multiple_of(4) { rng.next_u32() as u8 } else { 0 });
    }
    packet.resize(packet.len().next_multiple_of(4), 0);
    packet
}

#[test]
fn lies_do_no_harm() {
    let start = Instant::now();
    for seed in 0..8 {
        let mut rng = Rng::from_seed([seed; 32]);
        let mut estimator = Estimator::new(start, 300_000);
        let mut now = start;
        for _ in 0..10_000 {
            now += Duration::from_micros(u64::from(rng.next_u32() % 20_000));
            let earlier = now - Duration::from_micros(u64::from(rng.next_u32() % 50_000));
            let probe = estimator.poll_probe(now).map(|probe| probe.id);
            let at = if rng.next_u32().is_multiple_of(20) { earlier.max(start) } else { now };
            let number = estimator.sent(at, rng.next_u32() as usize % 1_500, Cargo::Media, probe);
            match rng.next_u32() % 12 {
                0..3 => estimator.feedback(at, &lie(&mut rng, number)),
                3 => estimator.report(at, rng.next_u32() as u8, Some(Duration::MAX)),
                4 => estimator.remb(at, u64::from(rng.next_u32()) << 8),
                5 => estimator.needs(at, u64::from(rng.next_u32()), u64::MAX),
                6 if rng.next_u32().is_multiple_of(500) => estimator.path_changed(at),
                _ => estimator.handle_timeout(at),
            }
            check(&estimator);
            assert!(estimator.poll_timeout().is_none_or(|due| due >= start));
        }
    }
}

#[test]
fn claims_of_a_great_rate_are_held_against_what_was_sent() {
    let start = Instant::now();
    let mut estimator = Estimator::new(start, 300_000);
    for step in 0..3_000_u64 {
        let now = start + Duration::from_millis(step * 20);
        let number = estimator.sent(now, 1_000, Cargo::Media, None);
        if step % 4 == 3 {
            // Everything arrived at the same moment, again and again.
            let mut recorder = Recorder::new(start);
            for back in 0..4 {
                recorder.record(number.wrapping_sub(back), now);
            }
            let mut packet = Vec::new();
            assert!(recorder.write(&mut packet, 1, 2));
            estimator.feedback(now, &packet);
        }
        check(&estimator);
    }
    // 400 kbit/s were sent.
    assert!(estimator.target_bps() < 800_000, "{}", estimator.target_bps());
}

#[test]
fn without_transport_feedback_the_receivers_estimate_counts() {
    let start = Instant::now();
    let mut estimator = Estimator::new(start, 300_000);
    assert!(!estimator.is_informed() && estimator.poll_timeout().is_none());
    estimator.remb(start, 900_000);
    assert_eq!(estimator.target_bps(), 900_000);
    estimator.report(start, 128, Some(Duration::from_millis(80)));
    assert!(estimator.loss() > 0.1 && estimator.round_trip().is_some());
    let number = estimator.sent(start, 100, Cargo::Media, None);
    let mut recorder = Recorder::new(start);
    recorder.record(number, start);
    let mut packet = Vec::new();
    assert!(recorder.write(&mut packet, 1, 2));
    estimator.feedback(start + Duration::from_millis(40), &packet);
    assert!(estimator.is_informed() && estimator.target_bps() == 300_000);
    for cut in 0..packet.len() {
        estimator.feedback(start, &packet[..cut]);
    }
}

#[test]
fn another_path_starts_anew() {
    let start = Instant::now();
    let mut estimator = Estimator::new(start, 300_000);
    let mut recorder = Recorder::new(start);
    let mut feedback = |estimator: &mut Estimator, at: Instant, number: u16| {
        recorder.record(number, at);
        let mut packet = Vec::new();
        assert!(recorder.write(&mut packet, 1, 2));
        estimator.feedback(at, &packet);
    };
    for step in 0..2_000_u64 {
        let now = start + Duration::from_millis(step * 5);
        let number = estimator.sent(now, 1_000, Cargo::Media, None);
        feedback(&mut estimator, now, number);
    }
    assert!(estimator.target_bps() > 500_000 && estimator.round_trip() == Some(Duration::ZERO));
    let old = estimator.sent(start + Duration::from_secs(10), 1_000, Cargo::Media, None);
    let later = start + Duration::from_secs(11);
    estimator.path_changed(later);
    assert_eq!(estimator.target_bps(), 300_000);
    assert!(estimator.poll_probe(later).is_some(), "the new path is probed at once");
    feedback(&mut estimator, later + Duration::from_secs(1), old);
    assert_eq!(estimator.round_trip(), None, "the old path's news are none");
}

#[test]
fn the_memory_is_bounded_and_made_with_the_first_packet() {
    assert!(size_of::<Estimator>() < 4_096, "{}", size_of::<Estimator>());
    let start = Instant::now();
    let mut estimator = Estimator::new(start, 300_000);
    assert_eq!(estimator.history.footprint(), 0);
    estimator.sent(start, 100, Cargo::Media, None);
    assert!(estimator.history.footprint() + size_of::<Estimator>() <= 48 * 1024);
}

/// A message of runs that covers this many packets, the first of them received.
fn runs(count: u16) -> Vec<u8> {
    let mut packet = vec![0x8F, 205, 0, 0, 0, 0, 0, 1, 0, 0, 0, 2, 0, 0];
    packet.extend(count.to_be_bytes());
    packet.extend([0, 0, 1, 0]);
    packet.extend((1 << 13 | 1u16).to_be_bytes());
    for left in (1..=(count - 1).div_ceil(0x1FFF)).rev() {
        let len = if left > 1 { 0x1FFF } else { (count - 2) % 0x1FFF + 1 };
        packet.extend(len.to_be_bytes());
    }
    packet.push(4);
    packet.resize(packet.len().next_multiple_of(4), 0);
    packet
}

#[test]
fn who_tells_of_far_more_than_was_sent_is_not_listened_to() {
    let start = Instant::now();
    let mut estimator = Estimator::new(start, 300_000);
    for at in 0..10 {
        estimator.sent(start + Duration::from_millis(at), 1_000, Cargo::Media, None);
    }
    let now = start + Duration::from_millis(60);
    assert_eq!(crate::core::twcc::parse(&runs(60_000)).map(|all| all.count), Some(60_000));
    estimator.feedback(now, &runs(60_000));
    assert!(!estimator.is_informed(), "sixty thousand fates of ten packets");
    let before = estimator.fates;
    for _ in 0..1_000 {
        estimator.feedback(now, &runs(2_000));
    }
    assert!(estimator.fates < 2_000 && before > 4_000);
    // Its own packets earn a hearing again.
    for at in 60..300 {
        estimator.sent(start + Duration::from_millis(at), 1_000, Cargo::Media, None);
    }
    estimator.feedback(start + Duration::from_millis(400), &runs(20));
    assert!(estimator.is_informed());
}
