//! What the estimate must do on the links of a consultation.

use std::fmt;
use std::path::Path;

use super::link::{Link, Loss, Profile};
use super::sender::{Moment, Setup, run};

fn between(moments: &[Moment], from: f64, to: f64) -> impl Iterator<Item = &Moment> {
    moments.iter().filter(move |moment| moment.second > from && moment.second <= to)
}

fn mean(values: impl Iterator<Item = f64>) -> f64 {
    let (sum, count) = values.fold((0.0, 0.0), |(sum, count), value| (sum + value, count + 1.0));
    sum / f64::max(count, 1.0)
}

/// The value that `share` of all stay below.
fn quantile(values: impl Iterator<Item = f64>, share: f64) -> f64 {
    let mut sorted: Vec<f64> = values.collect();
    sorted.sort_by(f64::total_cmp);
    sorted[((sorted.len() - 1) as f64 * share) as usize]
}

/// When the target first reaches `bps` after `from`.
fn reaches(moments: &[Moment], from: f64, bps: f64) -> f64 {
    between(moments, from, 1e9)
        .find(|moment| moment.target >= bps)
        .map_or(f64::INFINITY, |moment| moment.second - from)
}

/// For whoever runs this with `--nocapture`.
#[expect(clippy::print_stderr, reason = "figures beside the assertions, hidden unless asked for")]
fn figures(figures: fmt::Arguments<'_>) {
    eprintln!("{figures}");
}

/// Writes the whole run into the folder that `BWE_TRACES` names, for whoever tunes.
fn show(name: &str, moments: &[Moment]) {
    let Some(folder) = std::env::var_os("BWE_TRACES") else { return };
    let mut text = format!("--- {name}\n");
    for moment in moments {
        text += &format!(
            "{:5.1} target {:5.0} sent {:5.0} arrived {:5.0} queue {:4.0} rung {:?}\n",
            moment.second,
            moment.target / 1e3,
            moment.sent_bps / 1e3,
            moment.arrived_bps / 1e3,
            moment.queue_ms,
            moment.rung
        );
    }
    std::fs::write(Path::new(&folder).join(format!("bwe-{name}.txt")), text).unwrap();
}

/// So many runs, or as many as `BWE_SEEDS` says, for whoever tunes; every other one is elastic.
fn seeds(count: u8) -> impl Iterator<Item = (u8, bool)> {
    let asked = std::env::var("BWE_SEEDS").ok().and_then(|asked| asked.parse().ok());
    (1..=asked.unwrap_or(count)).map(|seed| (seed, seed % 2 == 0))
}

const NEED: f64 = 1_740_000.0;

#[test]
fn a_free_link_gives_what_is_needed_at_once() {
    for (delay_ms, within) in [(20.0, 1.5), (100.0, 2.5), (250.0, 4.0)] {
        let setup = Setup { back_ms: delay_ms, ..Setup::default() };
        let moments = run(Profile { delay_ms, ..Profile::default() }, setup);
        show(&format!("free{delay_ms}"), &moments);
        let reached = reaches(&moments, 0.0, NEED * 1.05);
        assert!(reached <= within, "{delay_ms}: {reached}");
        assert!(between(&moments, within, 30.0).all(|moment| moment.target >= NEED));
    }
}

#[test]
fn a_narrow_link_is_filled_without_a_queue() {
    for (seed, elastic) in seeds(4) {
        let profile = Profile { rate: vec![(0.0, 200e3)], jitter_ms: 3.0, ..Profile::default() };
        let moments = run(profile, Setup { seconds: 60.0, seed, elastic, ..Setup::default() });
        show(&format!("cap200-{seed}"), &moments);
        let late = || between(&moments, 3.0, 60.0);
        let typical = quantile(late().map(|moment| moment.queue_ms), 0.8);
        let worst = quantile(late().map(|moment| moment.queue_ms), 0.995);
        let target = mean(late().map(|moment| moment.target));
        let least = quantile(late().map(|moment| moment.target), 0.01);
        figures(format_args!(
            "cap200 {seed}: typical {typical} worst {worst} target {target} least {least}"
        ));
        assert!(typical <= 100.0 && worst <= 250.0, "{seed}: {typical} {worst}");
        assert!((140e3..=195e3).contains(&target) && least >= 100e3, "{seed}: {target} {least}");
    }
}

#[test]
fn a_step_down_is_followed_and_so_is_the_step_up() {
    for (seed, elastic) in seeds(4) {
        let rate = vec![(0.0, 2e6), (30.0, 200e3), (60.0, 2e6)];
        let profile = Profile { rate, jitter_ms: 3.0, ..Profile::default() };
        let moments = run(profile, Setup { seconds: 90.0, seed, elastic, ..Setup::default() });
        show(&format!("step-{seed}"), &moments);
        let down = between(&moments, 30.0, 60.0).find(|moment| moment.target < 200e3);
        let down = down.map_or(99.0, |moment| moment.second - 30.0);
        let queue = between(&moments, 32.0, 60.0).map(|moment| moment.queue_ms);
        let drained = quantile(queue, 0.98);
        let up = reaches(&moments, 60.0, 0.8 * NEED);
        figures(format_args!("step {seed}: down {down} queue {drained} up {up}"));
        assert!(down <= 1.0 && drained <= 250.0 && up <= 5.0, "{seed}: {down} {drained} {up}");
    }
}

#[test]
fn losses_that_have_nothing_to_do_with_the_rate_do_not_starve_the_stream() {
    for (name, loss) in [
        ("l5", Loss::Random(0.05)),
        ("l10", Loss::Random(0.1)),
        ("l20", Loss::Random(0.2)),
        ("l30", Loss::Random(0.3)),
        ("burst", Loss::Runs(0.1, 8.0)),
    ] {
        for (seed, elastic) in seeds(2) {
            let profile = Profile { loss, jitter_ms: 3.0, delay_ms: 50.0, ..Profile::default() };
            let setup = Setup {
                seconds: 40.0,
                back_ms: 50.0,
                feedback_loss: 0.1,
                seed,
                elastic,
                ..Setup::default()
            };
            let moments = run(profile, setup);
            show(&format!("{name}-{seed}"), &moments);
            let target = mean(between(&moments, 5.0, 40.0).map(|moment| moment.target));
            let low = between(&moments, 5.0, 40.0).filter(|moment| moment.target < 1e6).count();
            let top = between(&moments, 5.0, 40.0).filter(|moment| moment.rung == Some(2)).count();
            figures(format_args!("{name} {seed}: target {target} low {low} top {top} of 350"));
            assert!(
                target >= 1.5e6 && low <= 35 && top >= 230,
                "{name} {seed}: {target} {low} {top}"
            );
        }
    }
}

#[test]
fn jitter_is_no_queue() {
    for (jitter_ms, ordered) in [(10.0, true), (40.0, true), (40.0, false)] {
        for (seed, elastic) in seeds(2) {
            let profile = Profile { jitter_ms, ordered, ..Profile::default() };
            let moments = run(profile, Setup { seconds: 40.0, seed, elastic, ..Setup::default() });
            show(&format!("jitter{jitter_ms}-{ordered}-{seed}"), &moments);
            let low = between(&moments, 5.0, 40.0).filter(|moment| moment.target < 1e6).count();
            let top = between(&moments, 5.0, 40.0).filter(|moment| moment.rung == Some(2)).count();
            figures(format_args!(
                "jitter {jitter_ms} {ordered} {seed}: low {low} top {top} of 350"
            ));
            assert!(low <= 20 && top >= 280, "{jitter_ms} {ordered} {seed}: {low} {top}");
        }
    }
}

#[test]
fn an_outage_is_not_held_against_the_link() {
    for seconds in [2.0, 4.0, 6.0] {
        for (seed, elastic) in seeds(2) {
            let outages = vec![(20.0, 20.0 + seconds)];
            let profile = Profile { outages, jitter_ms: 3.0, ..Profile::default() };
            let moments = run(profile, Setup { seconds: 40.0, seed, elastic, ..Setup::default() });
            show(&format!("outage{seconds}-{seed}"), &moments);
            let back = reaches(&moments, 20.0 + seconds, NEED);
            let arrives = between(&moments, 21.0 + seconds, 25.0 + seconds);
            let arriving = mean(arrives.map(|moment| moment.arrived_bps));
            figures(format_args!("outage {seconds} {seed}: back {back} arriving {arriving}"));
            assert!(back <= 1.0 && arriving > 1.2e6, "{seconds} {seed}: {back} {arriving}");
        }
    }
}

#[test]
fn what_grows_with_the_rate_bounds_it() {
    // A policer: no queue to speak of, so nothing but losses.
    for (seed, elastic) in seeds(4) {
        let profile = Profile { rate: vec![(0.0, 900e3)], queue_ms: 12.0, ..Profile::default() };
        let moments = run(profile, Setup { seconds: 60.0, seed, elastic, ..Setup::default() });
        show(&format!("policer-{seed}"), &moments);
        let sent = mean(between(&moments, 10.0, 60.0).map(|moment| moment.sent_bps));
        let arrived = mean(between(&moments, 10.0, 60.0).map(|moment| moment.arrived_bps));
        figures(format_args!("policer {seed}: sent {sent} arrived {arrived}"));
        assert!(sent < 1.15 * arrived && arrived > 350e3, "{seed}: {sent} {arrived}");
    }
}

#[test]
fn another_flow_is_neither_bullied_nor_obeyed() {
    let profile = Profile {
        rate: vec![(0.0, 2.5e6)],
        other: Some((1.5e6, 15.0, 45.0)),
        jitter_ms: 3.0,
        ..Profile::default()
    };
    let moments = run(profile, Setup { seconds: 60.0, elastic: true, ..Setup::default() });
    show("other", &moments);
    let beside = mean(between(&moments, 18.0, 45.0).map(|moment| moment.target));
    let queue = quantile(between(&moments, 18.0, 45.0).map(|moment| moment.queue_ms), 0.9);
    let back = reaches(&moments, 45.0, NEED);
    figures(format_args!("other: beside {beside} queue {queue} back {back}"));
    assert!((500e3..1_300e3).contains(&beside) && queue < 150.0 && back < 6.0);
}

#[test]
fn a_voice_alone_keeps_the_estimate_and_pictures_start_on_it() {
    let setup = Setup { seconds: 40.0, pictures_from: 20.0, ..Setup::default() };
    let moments = run(Profile { jitter_ms: 10.0, ..Profile::default() }, setup);
    show("voice", &moments);
    assert!(between(&moments, 1.0, 20.0).all(|moment| moment.target >= 200e3));
    assert!(reaches(&moments, 20.0, NEED) < 2.0);
}

#[test]
fn lost_and_rare_feedback_is_enough() {
    let profile = Profile { rate: vec![(0.0, 1e6)], jitter_ms: 3.0, ..Profile::default() };
    let setup =
        Setup { seconds: 40.0, feedback_us: 100_000, feedback_loss: 0.3, ..Setup::default() };
    let moments = run(profile, setup);
    show("rare", &moments);
    let target = mean(between(&moments, 5.0, 40.0).map(|moment| moment.target));
    let queue = quantile(between(&moments, 5.0, 40.0).map(|moment| moment.queue_ms), 0.9);
    figures(format_args!("rare: target {target} queue {queue}"));
    assert!((600e3..1_100e3).contains(&target) && queue < 150.0);
}

/// What a run on a link of a given rate has to show: mean and least share of it, and the queue.
fn fills(name: &str, profile: &Profile, setup: &Setup, shares: (f64, f64), queue_ms: f64) {
    for (seed, elastic) in seeds(2) {
        let setup = Setup { seed, elastic, ..setup.clone() };
        let moments = run(profile.clone(), setup);
        show(&format!("{name}-{seed}"), &moments);
        let rate = profile.rate[0].1;
        let target = mean(between(&moments, 5.0, 60.0).map(|moment| moment.target)) / rate;
        let least = quantile(between(&moments, 5.0, 60.0).map(|moment| moment.target), 0.02) / rate;
        let queue = quantile(between(&moments, 5.0, 60.0).map(|moment| moment.queue_ms), 0.9);
        figures(format_args!(
            "{name} {seed}: target {target:.2} least {least:.2} queue {queue:.0}"
        ));
        assert!(
            target >= shares.0 && target <= if elastic { 1.05 } else { 2.0 },
            "{name} {seed}: {target}"
        );
        assert!(least >= shares.1 && queue <= queue_ms, "{name} {seed}: {least} {queue}");
    }
}

#[test]
fn a_long_way_is_no_narrow_one() {
    let profile =
        Profile { rate: vec![(0.0, 1e6)], delay_ms: 250.0, jitter_ms: 3.0, ..Profile::default() };
    let setup = Setup { seconds: 60.0, back_ms: 250.0, ..Setup::default() };
    fills("rtt500", &profile, &setup, (0.6, 0.4), 150.0);
}

#[test]
fn everything_at_once_is_still_a_link() {
    let mixed = Profile {
        rate: vec![(0.0, 600e3)],
        queue_ms: 500.0,
        delay_ms: 40.0,
        jitter_ms: 40.0,
        ordered: false,
        loss: Loss::Runs(0.03, 3.0),
        ..Profile::default()
    };
    let setup = Setup { seconds: 60.0, back_ms: 60.0, feedback_loss: 0.03, ..Setup::default() };
    fills("mixed", &mixed, &setup, (0.6, 0.35), 150.0);
    let lossy = Profile { rate: vec![(0.0, 1e6)], loss: Loss::Random(0.1), ..mixed.clone() };
    fills("lossy", &lossy, &setup, (0.6, 0.35), 150.0);
    let rural =
        Profile { rate: vec![(0.0, 400e3)], delay_ms: 105.0, loss: Loss::Random(0.03), ..mixed };
    let far = Setup { back_ms: 125.0, ..setup };
    fills("rural", &rural, &far, (0.55, 0.3), 180.0);
}

#[test]
fn feedback_each_quarter_of_a_second_will_do() {
    let profile = Profile { rate: vec![(0.0, 200e3)], jitter_ms: 3.0, ..Profile::default() };
    let setup = Setup { seconds: 60.0, feedback_us: 250_000, ..Setup::default() };
    fills("quarter", &profile, &setup, (0.6, 0.45), 200.0);
}

#[test]
fn a_dip_is_over_when_it_is_over() {
    for (seed, elastic) in seeds(2) {
        let rate = vec![(0.0, 100e6), (30.0, 300e3), (50.0, 100e6)];
        let profile = Profile { rate, queue_ms: 500.0, jitter_ms: 3.0, ..Profile::default() };
        let moments = run(profile, Setup { seconds: 65.0, seed, elastic, ..Setup::default() });
        show(&format!("dip-{seed}"), &moments);
        let queue = quantile(between(&moments, 33.0, 50.0).map(|moment| moment.queue_ms), 0.9);
        let back = reaches(&moments, 50.0, NEED);
        figures(format_args!("dip {seed}: queue {queue} back {back}"));
        assert!(queue <= 150.0 && back <= 5.0, "{seed}: {queue} {back}");
    }
}

#[test]
fn the_link_model_carries_what_it_says() {
    let mut link = Link::new(Profile { rate: vec![(0.0, 200e3)], ..Profile::default() }, 1);
    let mut last = 0.0;
    let passed = (0..1_000)
        .filter_map(|step| link.pass(f64::from(step) * 10_000.0, 472))
        .inspect(|at| last = *at)
        .count();
    assert!((490..=520).contains(&passed), "{passed}");
    assert!(link.dropped as usize + passed == 1_000 && (10.0e6..10.4e6).contains(&last));
}
