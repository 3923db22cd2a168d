//! What was measured, kept as JSON and as the table in docs/quality.md.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::PathBuf;

use crate::Failure;
use crate::figures::Received;
use crate::link::root;
use crate::rows::{Course, ROWS, Row, Targets};
use crate::run::Entry;

const MARKS: (&str, &str) = ("<!-- profiles -->\n", "<!-- /profiles -->");

const CHECK_MARKS: (&str, &str) = ("<!-- check -->\n", "<!-- /check -->");

/// Puts something between two marks.
fn put(text: &str, marks: (&str, &str), what: &str) -> Result<String, Failure> {
    let (before, rest) = text.split_once(marks.0).ok_or("docs/quality.md has no mark")?;
    let (_, after) = rest.split_once(marks.1).ok_or("docs/quality.md has no end mark")?;
    Ok([before, marks.0, what, marks.1, after].concat())
}

/// The newest entry of each row.
#[derive(Debug, Default)]
pub(crate) struct Measured(BTreeMap<String, Entry>);

impl Measured {
    /// What was measured before.
    pub(crate) fn load() -> Result<Self, Failure> {
        match fs::read_to_string(file()) {
            Ok(text) => Ok(Self(serde_json::from_str(&text)?)),
            Err(_) => Ok(Self::default()),
        }
    }

    /// Takes a new entry.
    pub(crate) fn take(&mut self, name: &str, entry: Entry) {
        self.0.insert(name.to_owned(), entry);
    }

    /// Writes both.
    pub(crate) fn write(&self) -> Result<(), Failure> {
        fs::write(file(), serde_json::to_string_pretty(&self.0)? + "\n")?;
        let page = root().join("docs/quality.md");
        let text = fs::read_to_string(&page)?;
        let text = put(&text, MARKS, &self.table())?;
        fs::write(page, put(&text, CHECK_MARKS, &self.checks()?)?)?;
        Ok(())
    }

    /// What the model says beside what browsers said of the same links.
    fn checks(&self) -> Result<String, Failure> {
        let browsers = fs::read_to_string(root().join("tests/e2e/links/measured.json"))?;
        let browsers: serde_json::Value = serde_json::from_str(&browsers)?;
        let mut out = String::from(
            "| link | | concealed %, down / up | audio delay, ms | frames/s | frozen % |\n\
             |---|---|---|---|---|---|\n",
        );
        for row in ROWS.iter().filter(|row| row.course == Course::Check) {
            let Some(entry) = self.0.get(row.name) else { continue };
            let (down, up) = (&entry.down, &entry.up);
            let _ = writeln!(
                out,
                "| {} | model | {:.2} / {:.2} | {:.0} / {:.0} | {:.1} / {:.1} | {:.1} / {:.1} |",
                row.name,
                down.concealed,
                up.concealed,
                down.audio_delay,
                up.audio_delay,
                down.frames / 5.0,
                up.frames / 5.0,
                down.frozen,
                up.frozen
            );
            let name = row.name.trim_start_matches("link-");
            let said = |who: &str, what: &str| {
                let found = browsers.pointer(&format!("/{name}/{who}/{what}"));
                found.and_then(serde_json::Value::as_f64).unwrap_or(f64::NAN)
            };
            let pair = |what: &str, digits: usize| {
                let (down, up) = (said("patient", what), said("doctor", what));
                format!("{down:.digits$} / {up:.digits$}")
            };
            let _ = writeln!(
                out,
                "| | browsers | {} | {} | {} | {} |",
                pair("concealed", 2),
                pair("audioDelay", 0),
                pair("fps", 1),
                pair("frozen", 1)
            );
        }
        Ok(out)
    }

    fn table(&self) -> String {
        let mut out = String::from(
            "| profile | | first frame, ms | concealed % (silent %) | audio delay, ms (largest) | queue, ms \
             | frames % | frozen % (longest, ms) | kbit/s, height | MOS trend | back, s | promised | met |\n\
             |---|---|---|---|---|---|---|---|---|---|---|---|---|\n",
        );
        for row in ROWS.iter().filter(|row| row.course != Course::Check) {
            let Some(entry) = self.0.get(row.name) else { continue };
            let names = if row.course == Course::Four { ["good", "bad"] } else { ["down", "up"] };
            line(&mut out, row, entry, names[0], 0);
            line(&mut out, row, entry, names[1], 1);
        }
        out
    }
}

fn line(out: &mut String, row: &Row, entry: &Entry, name: &str, side: usize) {
    let got = if side == 0 { &entry.down } else { &entry.up };
    let voice = matches!(row.course, Course::Voice(_));
    let title = if side == 0 { format!("{}: {}", row.name, row.words) } else { String::new() };
    let first = if side == 0 { format!("{:.0}", entry.first_frame) } else { String::new() };
    let video = |text: String| if voice { "–".to_owned() } else { text };
    let missed = missed(row, entry, side);
    let judged = row.course != Course::Four || side == 0;
    let met = match (judged, missed.is_empty()) {
        (false, _) => "–".to_owned(),
        (true, true) => "yes".to_owned(),
        (true, false) => format!("**no**: {}", missed.join(", ")),
    };
    let _ = writeln!(
        out,
        "| {title} | {name} | {first} | {:.2} ({:.1}) | {:.0} ({:.0}) | {:.0} | {} | {} | {} | {:.1} | {} | {} | {met} |",
        got.concealed,
        got.silent,
        got.audio_delay,
        got.longest_delay,
        got.queue,
        video(format!("{:.0}", got.frames)),
        video(format!("{:.1} ({:.0})", got.frozen, got.longest_freeze)),
        video(format!("{:.0}, {:.0}", got.kbit, got.height)),
        got.mos,
        back(row, entry, side),
        if side == 0 { promised(&row.targets, row.course) } else { String::new() },
    );
}

fn back(row: &Row, entry: &Entry, side: usize) -> String {
    let Some((one, other)) = entry.back.and_then(|back| back.get(side).copied()) else {
        return "–".to_owned();
    };
    match row.course {
        Course::Dip(..) => format!("{one:.0}; freeze ≤ {other:.1}"),
        _ => format!("picture {one:.1}, voice {other:.1}"),
    }
}

fn promised(targets: &Targets, course: Course) -> String {
    let mut words = Vec::new();
    let mut say = |value: Option<f64>, text: &dyn Fn(f64) -> String| {
        words.extend(value.map(text));
    };
    say(targets.concealed, &|value| format!("concealed ≤ {value} %"));
    say(targets.frames, &|value| format!("frames ≥ {value:.0} %"));
    say(targets.frozen, &|value| format!("frozen ≤ {value} %"));
    say(targets.join, &|value| format!("first frame ≤ {value:.0} ms"));
    say(targets.queue, &|value| format!("queue ≤ {value} ms"));
    say(targets.mos, &|value| format!("MOS ≥ {value}"));
    say(targets.back, &|value| match course {
        Course::Dip(..) => {
            format!("80 % of the bitrate ≤ {value} s after, no freeze > 1 s from the 5th s on")
        }
        _ => format!("back ≤ {value} s"),
    });
    words.join(", ")
}

/// What is not as promised.
fn missed(row: &Row, entry: &Entry, side: usize) -> Vec<&'static str> {
    let targets = &row.targets;
    let got: &Received = if side == 0 { &entry.down } else { &entry.up };
    let voice = matches!(row.course, Course::Voice(_));
    let over = |target: Option<f64>, value: f64| target.is_some_and(|most| value > most);
    let under = |target: Option<f64>, value: f64| target.is_some_and(|least| value < least);
    let mut missed = Vec::new();
    let mut note = |is: bool, what| missed.extend(is.then_some(what));
    note(over(targets.concealed, got.concealed), "concealed");
    note(!voice && under(targets.frames, got.frames + got.paused), "frames");
    note(over(targets.frozen, got.frozen), "frozen");
    note(side == 0 && over(targets.join, entry.first_frame), "first frame");
    note(over(targets.queue, got.queue), "queue");
    note(under(targets.mos, got.mos), "MOS");
    if let (Some(most), Some((one, other))) =
        (targets.back, entry.back.and_then(|b| b.get(side).copied()))
    {
        let dip = matches!(row.course, Course::Dip(..));
        note(one > most || !dip && other > most, "back");
        note(dip && other > 1.0, "freeze");
    }
    note(entry.dropped, "dropped");
    missed
}

fn file() -> PathBuf {
    root().join("client/examples/links/measured.json")
}
