//! What a run has found, as it is written and read.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::gauge::Times;
use super::scenario::Scenario;

/// A load that leaves so late (99 of 100 packets, in ms) is not the load that was asked for.
const LATE_MS: f64 = 20.0;

/// One run.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Report {
    /// Version of this tool.
    pub(super) version: String,
    /// `release`, or `debug`, whose numbers say nothing.
    pub(super) build: String,
    /// What the server is called.
    pub(super) name: String,
    /// What was measured.
    pub(super) scenario: Scenario,
    /// When it began, in seconds since 1970.
    pub(super) began: u64,
    /// Where it ran.
    pub(super) machine: Machine,
    /// When a level counts as broken.
    pub(super) bounds: Bounds,
    /// Each level, in the order of measuring.
    pub(super) levels: Vec<Level>,
    /// The highest level that held all bounds.
    pub(super) last_good: Option<u64>,
    /// The lowest that did not.
    pub(super) first_broken: Option<u64>,
}

/// Where the load ran.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Machine {
    /// Name of the CPU.
    pub(super) cpu: String,
    /// How many there are.
    pub(super) cores: u64,
    /// Version of the kernel.
    pub(super) kernel: String,
    /// Load average at the beginning: what else ran.
    pub(super) load_average: f64,
}

/// When a level counts as broken.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Bounds {
    /// 99 of 100 packets are on the way for no longer, in ms.
    pub(super) delay_ms: f64,
    /// Part of the packets that may be lost.
    pub(super) loss: f64,
    /// 99 of 100 joins take no longer, in ms.
    pub(super) join_ms: f64,
}

/// One level.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Level {
    /// Which.
    pub(super) level: u64,
    /// People who are there all the time.
    pub(super) people: u64,
    /// How long was measured.
    pub(super) seconds: f64,
    /// Measurements made of it; this is the last.
    pub(super) tries: u32,
    /// Packets that left.
    pub(super) sent: u64,
    /// Packets that should have come.
    pub(super) expected: u64,
    /// Packets that came, each once.
    pub(super) received: u64,
    /// Of those, asked for again.
    pub(super) repaired: u64,
    /// Packets that never came.
    pub(super) lost: u64,
    /// From leaving to the kernel's arrival.
    pub(super) delay_ms: Quantiles,
    /// The same in full: share of the packets, and what those were below of, in ms.
    pub(super) delay_curve: Vec<(f64, f64)>,
    /// How late packets left: the load's own fault.
    pub(super) late_ms: Quantiles,
    /// How people came in.
    pub(super) joins: Joins,
    /// What the server used, where its process was named.
    pub(super) server: Option<Server>,
    /// What the load used.
    pub(super) tool: Tool,
    /// What was wrong; nothing: the level is good.
    pub(super) breaches: Vec<Breach>,
}

/// Parts of a distribution.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Quantiles {
    /// How many there were.
    pub(super) count: u64,
    /// Half are below.
    pub(super) p50: f64,
    /// 90 of 100 are below.
    pub(super) p90: f64,
    /// 99 of 100 are below.
    pub(super) p99: f64,
    /// 999 of 1,000 are below.
    pub(super) p999: f64,
    /// The largest.
    pub(super) max: f64,
}

/// How people came in.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Joins {
    /// Who tried.
    pub(super) tried: u64,
    /// Who could not.
    pub(super) failed: u64,
    /// Why the first of those could not.
    pub(super) why: Option<String>,
    /// From the first byte to media that can flow, in ms.
    pub(super) connected_ms: Quantiles,
    /// From the first byte to the first packet of who was there before, in ms.
    pub(super) first_packet_ms: Quantiles,
    /// Who should hear somebody and did not.
    pub(super) deaf: u64,
    /// Connections that broke and came back.
    pub(super) reconnections: u64,
}

/// What the server used.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Server {
    /// Share of one core.
    pub(super) core: f64,
    /// CPU time for each packet that came.
    pub(super) us_per_packet: Option<f64>,
    /// CPU time for each join with the stay and the leave (`churn` only).
    pub(super) us_per_join: Option<f64>,
    /// Its memory.
    pub(super) resident_bytes: u64,
    /// What that has grown by for each person, since nobody was there.
    pub(super) bytes_per_person: Option<f64>,
}

/// What the load used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Tool {
    /// Share of one core.
    pub(super) core: f64,
    /// CPU time for each packet that left or came.
    pub(super) us_per_packet: f64,
}

/// What was wrong with a level.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Breach {
    /// Packets took too long.
    Delay,
    /// Too many were lost.
    Loss,
    /// Joins took too long.
    Join,
    /// Somebody could not come in.
    Refused,
    /// Somebody heard nothing.
    Deaf,
    /// A connection broke.
    Reconnected,
    /// No packets: nothing was measured.
    Nothing,
    /// The load itself came too late: the level says nothing about the server.
    Tool,
}

impl fmt::Display for Breach {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Delay => "delay",
            Self::Loss => "loss",
            Self::Join => "slow joins",
            Self::Refused => "failed joins",
            Self::Deaf => "nothing heard",
            Self::Reconnected => "broken connections",
            Self::Nothing => "no packets",
            Self::Tool => "the load itself was late",
        })
    }
}

impl Quantiles {
    /// Of times in microseconds, in ms.
    pub(super) fn of(times: &Times) -> Self {
        if times.is_empty() {
            return Self::default();
        }
        let at = |part| times.value_at_quantile(part) as f64 / 1e3;
        Self {
            count: times.len(),
            p50: at(0.5),
            p90: at(0.9),
            p99: at(0.99),
            p999: at(0.999),
            max: times.max() as f64 / 1e3,
        }
    }
}

/// The whole distribution, finer towards its end: 10 points for each nine.
pub(super) fn curve(times: &Times) -> Vec<(f64, f64)> {
    if times.is_empty() {
        return Vec::new();
    }
    let nines = (times.len() as f64).log10().clamp(1.0, 5.0);
    let points = (nines * 10.0) as u32;
    let share = |point: u32| 1.0 - 10_f64.powf(-f64::from(point) / 10.0);
    (0..=points)
        .map(share)
        .map(|share| (share, times.value_at_quantile(share) as f64 / 1e3))
        .collect()
}

impl Level {
    /// Part of the packets that never came.
    pub(super) fn loss(&self) -> f64 {
        self.lost as f64 / self.expected.max(1) as f64
    }

    /// Packets that came in a second.
    pub(super) fn packets_per_second(&self) -> f64 {
        self.received as f64 / self.seconds.max(f64::MIN_POSITIVE)
    }

    /// What is wrong with it.
    pub(super) fn judge(&self, bounds: &Bounds) -> Vec<Breach> {
        let joins = &self.joins;
        let slow = |times: &Quantiles| times.count > 0 && times.p99 > bounds.join_ms;
        let checks = [
            (self.late_ms.p99 > LATE_MS, Breach::Tool),
            (self.expected == 0, Breach::Nothing),
            (self.delay_ms.p99 > bounds.delay_ms, Breach::Delay),
            (self.loss() > bounds.loss, Breach::Loss),
            (slow(&joins.connected_ms) || slow(&joins.first_packet_ms), Breach::Join),
            (joins.failed > 0, Breach::Refused),
            (joins.deaf > 0, Breach::Deaf),
            (joins.reconnections > 0, Breach::Reconnected),
        ];
        checks.into_iter().filter(|(wrong, _)| *wrong).map(|(_, breach)| breach).collect()
    }

    /// What is told of the bounds, in words.
    pub(super) fn verdict(&self) -> String {
        if self.breaches.is_empty() {
            return "good".to_owned();
        }
        let words: Vec<String> = self.breaches.iter().map(Breach::to_string).collect();
        words.join(", ")
    }
}

impl Report {
    /// The result in one sentence.
    pub(super) fn sentence(&self) -> String {
        let unit = self.scenario.unit();
        let carried = match self.last_good {
            Some(level) => format!("{} carries {level} {unit}", self.name),
            None => format!("{} carries none of the levels measured", self.name),
        };
        let broken = self
            .first_broken
            .and_then(|broken| self.levels.iter().rev().find(|level| level.level == broken));
        let tool = broken.is_some_and(|level| level.breaches.contains(&Breach::Tool));
        match broken {
            Some(level) if tool => format!(
                "{carried} at least; at {} the load itself could not keep up, which says nothing about the server.",
                level.level
            ),
            Some(level) => format!("{carried}; at {} it was: {}.", level.level, level.verdict()),
            None => format!("{carried} at least: no higher level was measured."),
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::bench::gauge::times;

    /// A good level.
    pub(in crate::bench) fn level(level: u64) -> Level {
        Level {
            level,
            people: level * 2,
            seconds: 5.0,
            tries: 1,
            sent: 1000 * level,
            expected: 1000 * level,
            received: 1000 * level,
            repaired: 1,
            lost: 0,
            delay_ms: Quantiles { count: 9, p50: 0.1, p90: 0.2, p99: 0.5, p999: 1.0, max: 2.0 },
            delay_curve: vec![(0.0, 0.05), (0.5, 0.1), (0.9, 0.2), (0.99, 0.5)],
            late_ms: Quantiles { count: 9, p50: 0.5, p90: 0.9, p99: 1.1, p999: 1.3, max: 4.0 },
            joins: Joins { tried: level * 2, ..Joins::default() },
            server: Some(Server {
                core: 0.01 * level as f64,
                us_per_packet: Some(5.5),
                us_per_join: None,
                resident_bytes: 50 << 20,
                bytes_per_person: Some(200_000.0),
            }),
            tool: Tool { core: 0.02 * level as f64, us_per_packet: 9.0 },
            breaches: Vec::new(),
        }
    }

    pub(in crate::bench) const BOUNDS: Bounds =
        Bounds { delay_ms: 50.0, loss: 0.001, join_ms: 1000.0 };

    /// A run of two levels.
    pub(in crate::bench) fn report(name: &str) -> Report {
        let mut broken = level(20);
        broken.delay_ms.p99 = 80.0;
        broken.breaches = vec![Breach::Delay];
        Report {
            version: "0".to_owned(),
            build: "release".to_owned(),
            name: name.to_owned(),
            scenario: Scenario::Consultations,
            began: 1_795_305_600,
            machine: Machine::default(),
            bounds: BOUNDS,
            levels: vec![level(10), broken],
            last_good: Some(10),
            first_broken: Some(20),
        }
    }

    #[test]
    fn each_bound_breaks_by_itself() {
        type Case = (fn(&mut Level), Breach);
        assert_eq!(level(10).judge(&BOUNDS), []);
        let broken: [Case; 8] = [
            (|level| level.delay_ms.p99 = 50.1, Breach::Delay),
            (|level| level.lost = 11, Breach::Loss),
            (|level| level.joins.connected_ms = slow(), Breach::Join),
            (|level| level.joins.first_packet_ms = slow(), Breach::Join),
            (|level| level.joins.failed = 1, Breach::Refused),
            (|level| level.joins.deaf = 1, Breach::Deaf),
            (|level| level.joins.reconnections = 1, Breach::Reconnected),
            (|level| level.late_ms.p99 = 20.1, Breach::Tool),
        ];
        for (break_it, breach) in broken {
            let mut level = level(10);
            break_it(&mut level);
            assert_eq!(level.judge(&BOUNDS), [breach]);
        }
        let mut silent = level(10);
        silent.expected = 0;
        assert_eq!(silent.judge(&BOUNDS), [Breach::Nothing]);
        let mut edge = level(10);
        edge.lost = 10;
        edge.delay_ms.p99 = 50.0;
        assert_eq!(edge.judge(&BOUNDS), [], "the bounds themselves are held");
    }

    fn slow() -> Quantiles {
        Quantiles { count: 1, p99: 1000.5, ..Quantiles::default() }
    }

    #[test]
    fn quantiles_and_curve_are_of_the_same_times() {
        let mut some = times().unwrap();
        for micros in 1..=10_000 {
            some.record(micros).unwrap();
        }
        let quantiles = Quantiles::of(&some);
        for (is, should) in [
            (quantiles.p50, 5.0),
            (quantiles.p90, 9.0),
            (quantiles.p99, 9.9),
            (quantiles.max, 10.0),
        ] {
            assert!((is / should - 1.0).abs() < 0.002, "{is} {should}");
        }
        let curve = curve(&some);
        assert!(curve.is_sorted() && curve.len() == 41);
        assert_eq!(
            curve.iter().find(|(share, _)| (share - 0.9).abs() < 1e-9).unwrap().1,
            quantiles.p90
        );
        let none = times().unwrap();
        assert_eq!(Quantiles::of(&none), Quantiles::default());
        assert!(super::curve(&none).is_empty());
    }

    #[test]
    fn the_sentence_says_what_held_and_what_broke() {
        let mut run = report("A");
        assert_eq!(run.sentence(), "A carries 10 consultations; at 20 it was: delay.");
        run.levels.last_mut().unwrap().breaches.push(Breach::Tool);
        assert!(run.sentence().contains("at least; at 20 the load itself"));
        run.first_broken = None;
        assert!(run.sentence().contains("no higher level"));
        run.last_good = None;
        assert!(run.sentence().contains("none of the levels"));
    }

    #[test]
    fn a_report_is_read_as_it_was_written() {
        let text = serde_json::to_string(&report("A")).unwrap();
        let read: Report = serde_json::from_str(&text).unwrap();
        assert_eq!(serde_json::to_string(&read).unwrap(), text);
        assert!(text.contains(r#""scenario":"consultations""#) && text.contains(r#"["delay"]"#));
    }
}
