//! One measurement from start to end.

use std::fmt;
use std::thread::sleep;
use std::time::{Duration, Instant};

use bedside_client::Publish;
use bedside_sfu::core::api::MediaKind;
use serde::{Deserialize, Serialize};

use crate::Failure;
use crate::figures::{Received, back, between, longest_freeze, rates, received};
use crate::link::Clinic;
use crate::people::{Person, Record};
use crate::rows::{Course, Row};

/// The doctor is there so long before the patient.
const LEAD: Duration = Duration::from_secs(3);
/// A first frame may take so long.
const PATIENCE: Duration = Duration::from_secs(20);
/// An application learns of another network after so long.
const NOTICE: Duration = Duration::from_millis(200);

/// What was found on one network.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Entry {
    /// When it was measured, in seconds since 1970, and the load of the machine.
    pub(crate) at: u64,
    pub(crate) load: f64,
    /// Milliseconds from the patient's join to the first frame.
    pub(crate) first_frame: f64,
    /// What came by the bad link downwards, and upwards; with several receivers: the worst of the
    /// good ones, and the bad one.
    pub(crate) down: Received,
    pub(crate) up: Received,
    /// Seconds until the picture, and the voice, were back after what happened: down and up. After a
    /// dip: until four fifths of the bitrate were back; and the longest freeze of the dip after its
    /// first five seconds.
    pub(crate) back: Option<[(f64, f64); 2]>,
    /// Signal connections lost, and calls.
    pub(crate) reconnections: u64,
    pub(crate) dropped: bool,
}

impl fmt::Display for Entry {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "first frame {:.0} ms, load {:.1}", self.first_frame, self.load)?;
        for (name, got) in [("down", &self.down), ("up", &self.up)] {
            write!(
                out,
                "\n  {name}: concealed {:.2} % (silent {:.2} %), delay {:.0} ms (largest {:.0}), queue \
                 {:.0} ms, frames {:.1} %, frozen {:.1} % ({} times, longest {:.0} ms), paused \
                 {:.0} %, {:.0} kbit/s, height {}, MOS {:.2}",
                got.concealed,
                got.silent,
                got.audio_delay,
                got.longest_delay,
                got.queue,
                got.frames,
                got.frozen,
                got.freezes,
                got.longest_freeze,
                got.paused,
                got.kbit,
                got.height,
                got.mos
            )?;
        }
        if let Some(back) = self.back {
            write!(out, "\n  back after {back:.2?}")?;
        }
        write!(out, "\n  {} reconnections, dropped: {}", self.reconnections, self.dropped)
    }
}

/// Measures one row.
pub(crate) fn measure(row: &Row, number: u8) -> Result<Entry, Failure> {
    let clinic = Clinic::open(row.profile, number)?;
    let entry = if row.course == Course::Four { four(row, &clinic) } else { two(row, &clinic) };
    entry.map(|entry| Entry { at: seconds_since_1970(), load: load(), ..entry })
}

fn call(redundancy: u8, camera: bool) -> Publish {
    Publish { microphone: true, camera, layers: 2, redundancy, ..Publish::default() }
}

/// A doctor, and a patient behind the bad link.
fn two(row: &Row, clinic: &Clinic) -> Result<Entry, Failure> {
    let (redundancy, camera) = match row.course {
        Course::Voice(copies) => (copies, false),
        Course::Steady
        | Course::Dip(..)
        | Course::Flap
        | Course::Move(_)
        | Course::Four
        | Course::Check => (1, true),
    };
    let doctor = Person::join(clinic, "doctor", None, call(1, camera))?;
    sleep(LEAD);
    clinic.begin();
    let begin = Instant::now();
    let patient = Person::join(clinic, "patient", Some(&clinic.near), call(redundancy, camera))?;
    let first_frame = wait_for_picture(&patient, camera);
    wait_for_picture(&doctor, camera);
    let (settle, length) = row.seconds;
    sleep(Duration::from_secs(settle));
    let from = if settle == 0 { begin } else { Instant::now() };
    let to = from + Duration::from_secs(length);
    if let Course::Move(at) = row.course {
        sleep_until(begin + Duration::from_secs(at) + NOTICE);
        patient.change_network();
    }
    sleep_until(to);
    let records = [patient.record(), doctor.record()];
    let round_trip = round_trip(row.profile);
    let [down, up] = [0, 1].map(|at: usize| {
        let samples = records.get(at).map(|record| between(record, from, to));
        samples.and_then(|samples| received(samples, round_trip)).unwrap_or_default()
    });
    Ok(Entry {
        first_frame: first_frame.unwrap_or(f64::INFINITY),
        down,
        up,
        back: happened(row, &records, begin),
        reconnections: records.iter().map(|record| record.reconnections).sum(),
        dropped: records.iter().any(|record| record.left),
        ..Entry::default()
    })
}

/// How both came through what the row does to the link.
fn happened(row: &Row, records: &[Record; 2], begin: Instant) -> Option<[(f64, f64); 2]> {
    let second = |second: u64| begin + Duration::from_secs(second);
    match row.course {
        Course::Steady | Course::Voice(_) | Course::Four | Course::Check => None,
        Course::Dip(start, end) => Some(records.each_ref().map(|record| {
            let rates = rates(record, begin, row.seconds.1);
            let mean = |from: u64, to: u64| {
                let part = rates.get(from as usize..to as usize).unwrap_or_default();
                part.iter().sum::<f64>() / part.len().max(1) as f64
            };
            let before = mean(start - 10, start);
            let back = (end..row.seconds.1 - 1).find(|at| mean(*at, at + 2) >= 0.8 * before);
            let still = longest_freeze(record, second(start + 5), second(end));
            (back.map_or(f64::INFINITY, |at| (at + 1 - end) as f64), still)
        })),
        Course::Move(at) => {
            Some(records.each_ref().map(|record| back(record, second(at), second(at))))
        }
        Course::Flap => Some(records.each_ref().map(|record| {
            let flaps = (30..row.seconds.1 - 8).step_by(30);
            let backs = flaps.map(|at| back(record, second(at), second(at + 2)));
            backs.fold((0.0, 0.0), |(a, b), (c, d)| (f64::max(a, c), f64::max(b, d)))
        })),
    }
}

/// One who sends; three receivers beside the server, one behind the bad link.
fn four(row: &Row, clinic: &Clinic) -> Result<Entry, Failure> {
    let _doctor = Person::join(clinic, "doctor", None, call(1, true))?;
    let mut good = Vec::new();
    for name in ["nurse", "student", "relative"] {
        good.push(Person::join(clinic, name, None, Publish::default())?);
    }
    sleep(LEAD);
    clinic.begin();
    let bad = Person::join(clinic, "patient", Some(&clinic.near), Publish::default())?;
    let first_frame = wait_for_picture(&bad, true);
    sleep(Duration::from_secs(row.seconds.0));
    let from = Instant::now();
    sleep(Duration::from_secs(row.seconds.1));
    let figures = |person: &Person| {
        let record = person.record();
        received(between(&record, from, Instant::now()), round_trip(row.profile))
            .unwrap_or_default()
    };
    let worst = good.iter().map(figures).min_by(|a, b| a.frames.total_cmp(&b.frames));
    Ok(Entry {
        first_frame: first_frame.unwrap_or(f64::INFINITY),
        down: worst.unwrap_or_default(),
        up: figures(&bad),
        dropped: bad.record().left,
        ..Entry::default()
    })
}

/// Waits for the first frame, or the first sound; gives the milliseconds since the join.
fn wait_for_picture(person: &Person, camera: bool) -> Option<f64> {
    let until = Instant::now() + PATIENCE;
    while Instant::now() < until {
        let stats = person.now().unwrap_or_default();
        let seen = stats.received.iter().filter_map(|track| track.video.first_frame).min();
        if let Some(seen) = seen {
            return Some(seen.saturating_duration_since(person.click).as_secs_f64() * 1000.0);
        }
        let heard =
            |kind| stats.received.iter().any(|track| track.kind == kind && track.packets > 0);
        if !camera && heard(MediaKind::Audio) {
            return Some(person.click.elapsed().as_secs_f64() * 1000.0);
        }
        sleep(Duration::from_millis(50));
    }
    None
}

fn sleep_until(at: Instant) {
    sleep(at.saturating_duration_since(Instant::now()));
}

/// The round trip of a profile's link without queues, in ms.
fn round_trip(profile: &str) -> f64 {
    match profile {
        "good" => 20.0,
        "l5" | "l10" | "burst" | "l60-up" => 100.0,
        "l20" => 150.0,
        "l30" => 200.0,
        "rtt500" => 500.0,
        "rural" => 250.0,
        _ => 40.0,
    }
}

fn load() -> f64 {
    let text = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split(' ').next().and_then(|first| first.parse().ok()).unwrap_or(0.0)
}

fn seconds_since_1970() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.unwrap_or_default().as_secs()
}
