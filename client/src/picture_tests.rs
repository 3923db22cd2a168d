//! Tests of the picture model: frames with known faults and what is seen of them.

use super::*;
use crate::frames::Picture;

const ROUND_TRIP: Duration = Duration::from_millis(100);

/// Shows `count` single-packet frames, 20 a second; `arrival` says when each comes (in ms after it
/// was made) and whether by repair, or that it never comes. A keyframe is the first, and `key`.
fn show(count: u64, key: u64, arrival: impl Fn(u64) -> Option<(u64, bool)>) -> (Screen, Instant) {
    let start = Instant::now();
    let mut screen = Screen::new(start);
    let mut arrivals: Vec<_> = (0..count)
        .filter_map(|frame| {
            arrival(frame).map(|(late, repaired)| (frame * 50 + late, frame, repaired))
        })
        .collect();
    arrivals.sort_unstable();
    for (at, frame, repaired) in arrivals {
        let piece = Piece {
            timestamp: (frame as u32 * 4500).wrapping_sub(9000),
            begins: Some(true),
            ends: true,
            key: frame == 0 || frame == key,
            picture: Picture {
                id: Some((frame as u16 & 0x7F, 7)),
                base: Some(frame as u8),
                temporal: 0,
                syncs: false,
            },
            height: 0,
            repaired,
            filler: false,
        };
        screen.insert(start + Duration::from_millis(at), frame + 1, piece, ROUND_TRIP);
    }
    (screen, start + Duration::from_millis(count * 50))
}

#[test]
fn a_clean_stream_is_shown_whole() {
    let (mut screen, end) = show(600, 0, |_| Some((30, false)));
    screen.advance(end + Duration::from_millis(100));
    let totals = screen.totals(end + Duration::from_millis(50));
    assert_eq!((totals.frames, totals.assembled, totals.freezes), (600, 600, 0));
    assert!(totals.watched >= Duration::from_millis(29_900), "{totals:?}");
    assert!(totals.longest_gap <= Duration::from_millis(130), "{totals:?}");
    assert!(!screen.is_stuck(end));
}

#[test]
fn a_repair_in_time_is_not_seen() {
    // Every tenth frame comes 110 ms late; soon a round trip is waited for.
    let (mut screen, end) =
        show(600, 0, |frame| Some(if frame % 10 == 9 { (110, true) } else { (30, false) }));
    screen.advance(end + Duration::from_millis(300));
    let totals = screen.totals(end + Duration::from_millis(150));
    assert_eq!((totals.frames, totals.freezes), (600, 0), "{totals:?}");
    assert!(totals.target >= ROUND_TRIP, "{totals:?}");
}

#[test]
fn a_hole_is_a_freeze_until_it_is_filled() {
    let (mut screen, end) =
        show(200, 0, |frame| Some(if frame == 100 { (600, true) } else { (30, false) }));
    screen.advance(end + Duration::from_millis(300));
    let totals = screen.totals(end);
    assert_eq!((totals.frames, totals.freezes), (200, 1), "what waited is shown at once");
    assert!((600..680).contains(&totals.frozen.as_millis()), "{totals:?}");
    assert_eq!(totals.log.len(), 1);
}

#[test]
fn what_cannot_be_decoded_waits_for_a_keyframe() {
    let (mut screen, _) = show(180, 170, |frame| (frame != 100).then_some((30, false)));
    let totals = screen.totals(Instant::now());
    assert!(totals.frames >= 108, "{totals:?}");
    let gap = totals.longest_gap.as_millis();
    assert!((3450..3650).contains(&gap), "from frame 99 to frame 170: {gap}");
    assert!(!screen.is_stuck(Instant::now()));
}

#[test]
fn a_stuck_picture_says_so_once_in_a_while() {
    let (mut screen, end) = show(170, 0, |frame| (frame != 100).then_some((30, false)));
    assert!(screen.is_stuck(end));
    assert!(!screen.is_stuck(end + Duration::from_millis(100)));
    let start = Instant::now();
    let mut screen = Screen::new(start);
    let delta = Piece { begins: Some(true), ends: true, ..Piece::default() };
    screen.insert(start, 1, delta, ROUND_TRIP);
    assert!(!screen.is_stuck(start + Duration::from_millis(100)));
    assert!(screen.is_stuck(start + Duration::from_millis(200)), "no keyframe to begin with");
}

#[test]
fn a_paused_picture_is_not_frozen() {
    let (mut screen, end) = show(100, 0, |_| Some((30, false)));
    screen.pause(end, true);
    let later = end + Duration::from_secs(5);
    let totals = screen.totals(later);
    assert_eq!((totals.freezes, totals.paused_now), (0, true), "{totals:?}");
    assert!(totals.paused >= Duration::from_millis(4900), "{totals:?}");
    screen.pause(later, false);
    let piece = Piece {
        timestamp: 110 * 4500,
        begins: Some(true),
        ends: true,
        key: true,
        ..Piece::default()
    };
    screen.insert(later + Duration::from_millis(10), 200, piece, ROUND_TRIP);
    screen.advance(later + Duration::from_secs(6));
    assert_eq!(screen.totals(later).freezes, 0);
}

#[test]
fn a_picture_that_never_comes_back_is_frozen_to_the_end() {
    let (mut screen, end) = show(100, 0, |_| Some((30, false)));
    screen.advance(end);
    let totals = screen.totals(end + Duration::from_secs(4));
    assert_eq!(totals.freezes, 1);
    assert!(totals.frozen >= Duration::from_secs(4), "{totals:?}");
}
