//! Profile files: what the network does, in each direction and over time.
//!
//! `[both]` holds for both directions, `[up]` (near to far) and `[down]` change it for one. A
//! `step` changes some of it from a moment on; what it does not name stays.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use serde::Deserialize;
use toml::{Table, Value};

/// A whole profile.
#[derive(Clone, Debug)]
pub(crate) struct Profile {
    /// Largest packet of the devices.
    pub(crate) mtu: u16,
    /// When the near side leaves its first link for the second one.
    pub(crate) swap_at: Option<Duration>,
    /// One link, or two where they are swapped.
    pub(crate) links: Vec<Directions>,
}

/// Both ways of one link.
#[derive(Clone, Debug)]
pub(crate) struct Directions {
    /// From the near to the far namespace: the uplink of who sits near.
    pub(crate) up: Timeline,
    /// From far to near.
    pub(crate) down: Timeline,
}

/// One way of a link over time.
#[derive(Clone, Debug, Default)]
pub(crate) struct Timeline {
    /// Conditions, and the moment from which they hold; the first holds from the start.
    steps: Vec<(Duration, Conditions)>,
    windows: Vec<Window>,
}

/// What happens to packets at one moment.
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Conditions {
    /// Share of the packets that are lost.
    pub(crate) loss_percent: f64,
    /// Mean length of the runs in which they are lost; 0: each packet by itself.
    pub(crate) burst: f64,
    /// Shortest and longest run, all lengths alike likely; instead of `burst`.
    pub(crate) burst_between: Option<(u64, u64)>,
    /// Time on the way.
    pub(crate) delay_ms: f64,
    /// The delay varies evenly by so much up and down; the order of packets is kept.
    pub(crate) jitter_ms: f64,
    /// What passes in a second, in kbit of IP packets; 0: no limit.
    pub(crate) rate_kbit: f64,
    /// What waits for the rate before packets are dropped; 0: 500 ms.
    pub(crate) queue_ms: f64,
    /// Share of the packets that are held back and overtaken.
    pub(crate) reorder_percent: f64,
    /// For so long; 0: 20 ms.
    pub(crate) reorder_ms: f64,
    /// Share of the packets that arrive twice.
    pub(crate) duplicate_percent: f64,
}

/// How long the runs of lost packets are.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Runs {
    /// Geometric with this mean.
    Mean(f64),
    /// Even between the two.
    Between(u64, u64),
}

impl Runs {
    pub(crate) fn mean(&self) -> f64 {
        match *self {
            Self::Mean(mean) => mean,
            Self::Between(low, high) => (low + high) as f64 / 2.0,
        }
    }
}

/// A time in which nothing passes.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
struct Window {
    at_s: f64,
    for_s: f64,
    /// Comes again after so long; 0: once.
    #[serde(default)]
    every_s: f64,
}

impl Window {
    fn holds(&self, at: f64) -> bool {
        let since = at - self.at_s;
        if since < 0.0 {
            return false;
        }
        let since = if self.every_s > 0.0 { since % self.every_s } else { since };
        since < self.for_s
    }
}

impl Conditions {
    /// How losses cluster; none: they do not.
    pub(crate) fn runs(&self) -> Option<Runs> {
        if self.loss_percent <= 0.0 {
            return None;
        }
        let between = self.burst_between.map(|(low, high)| Runs::Between(low, high));
        between.or_else(|| (self.burst > 0.0).then_some(Runs::Mean(self.burst)))
    }

    /// How much may wait for the rate.
    pub(crate) fn queue(&self) -> Duration {
        millis(if self.queue_ms > 0.0 { self.queue_ms } else { 500.0 })
    }

    fn check(&self) -> Result<()> {
        for (name, percent) in [
            ("loss_percent", self.loss_percent),
            ("reorder_percent", self.reorder_percent),
            ("duplicate_percent", self.duplicate_percent),
        ] {
            ensure!((0.0..=100.0).contains(&percent), "{name} is not between 0 and 100");
        }
        for (name, value) in [
            ("burst", self.burst),
            ("delay_ms", self.delay_ms),
            ("jitter_ms", self.jitter_ms),
            ("rate_kbit", self.rate_kbit),
            ("queue_ms", self.queue_ms),
            ("reorder_ms", self.reorder_ms),
        ] {
            ensure!((0.0..=1e7).contains(&value), "{name} is out of range");
        }
        if let Some((low, high)) = self.burst_between {
            ensure!((1..=high).contains(&low) && high <= 10_000, "burst_between is out of order");
        }
        Ok(())
    }
}

/// Milliseconds, a part of them too.
pub(crate) fn millis(ms: f64) -> Duration {
    Duration::from_secs_f64(ms.max(0.0) / 1000.0)
}

impl Timeline {
    /// What holds at a moment after the start.
    pub(crate) fn at(&self, moment: Duration) -> Option<&Conditions> {
        self.steps.iter().rev().find(|(from, _)| *from <= moment).map(|(_, holds)| holds)
    }

    /// Does nothing pass at that moment?
    pub(crate) fn is_dark(&self, moment: Duration) -> bool {
        self.windows.iter().any(|window| window.holds(moment.as_secs_f64()))
    }

    fn read(sections: &[Option<&Value>]) -> Result<Self> {
        let mut holds = Table::new();
        let (mut steps, mut windows) = (Vec::new(), Vec::new());
        for section in sections.iter().flatten() {
            let mut table = section.as_table().context("a direction is a table")?.clone();
            if let Some(list) = table.remove("step") {
                steps = list.try_into::<Vec<Table>>().context("step")?;
            }
            if let Some(list) = table.remove("blackhole") {
                windows = list.try_into().context("blackhole")?;
            }
            holds.extend(table);
        }
        let mut timeline = Self { steps: vec![(Duration::ZERO, conditions(&holds)?)], windows };
        for mut step in steps {
            let at = seconds(&step.remove("at_s").context("a step without at_s")?)?;
            let last = timeline.steps.last().map_or(Duration::ZERO, |(at, _)| *at);
            ensure!(at >= last, "steps are out of order");
            holds.extend(step);
            timeline.steps.push((at, conditions(&holds)?));
        }
        Ok(timeline)
    }
}

fn conditions(table: &Table) -> Result<Conditions> {
    let conditions: Conditions = table.clone().try_into()?;
    conditions.check()?;
    Ok(conditions)
}

fn seconds(value: &Value) -> Result<Duration> {
    let number = value.as_float().or_else(|| value.as_integer().map(|whole| whole as f64));
    let number = number.context("a time is a number of seconds")?;
    ensure!((0.0..=1e6).contains(&number), "a time is out of range");
    Ok(Duration::from_secs_f64(number))
}

impl Profile {
    /// Reads a profile file.
    pub(crate) fn load(path: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path)
            .with_context(|| format!("{} cannot be read", path.display()))?;
        Self::parse(&text).with_context(|| path.display().to_string())
    }

    pub(crate) fn parse(text: &str) -> Result<Self> {
        let table: Table = text.parse()?;
        let known = ["about", "mtu", "swap_at_s", "both", "up", "down", "second"];
        if let Some(key) = table.keys().find(|key| !known.contains(&key.as_str())) {
            bail!("{key} is no key of a profile");
        }
        let mtu = table.get("mtu").and_then(Value::as_integer).unwrap_or(1500);
        ensure!((576..=9000).contains(&mtu), "mtu is out of range");
        let swap_at = table.get("swap_at_s").map(seconds).transpose()?;
        let mut links = vec![Directions::read(&[&table])?];
        match (swap_at, table.get("second")) {
            (Some(_), None) => links.push(Directions::read(&[&table])?),
            (Some(_), Some(second)) => {
                let second = second.as_table().context("second is a table")?;
                links.push(Directions::read(&[&table, second])?);
            }
            (None, Some(_)) => bail!("there is a second link, but no swap_at_s"),
            (None, None) => {}
        }
        Ok(Self { mtu: mtu.try_into()?, swap_at, links })
    }
}

impl Directions {
    fn read(tables: &[&Table]) -> Result<Self> {
        let sections = |own: &str| -> Vec<Option<&Value>> {
            tables.iter().flat_map(|table| [table.get("both"), table.get(own)]).collect()
        };
        Ok(Self {
            up: Timeline::read(&sections("up")).context("up")?,
            down: Timeline::read(&sections("down")).context("down")?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(timeline: &Timeline, seconds: f64) -> &Conditions {
        timeline.at(Duration::from_secs_f64(seconds)).unwrap()
    }

    #[test]
    fn directions_change_what_holds_for_both() {
        let text = "[both]\ndelay_ms = 20\nloss_percent = 5\n[up]\nloss_percent = 60";
        let link = &Profile::parse(text).unwrap().links[0];
        assert_eq!(at(&link.up, 0.0).loss_percent, 60.0);
        assert_eq!(at(&link.up, 0.0).delay_ms, 20.0);
        assert_eq!(at(&link.down, 0.0).loss_percent, 5.0);
    }

    #[test]
    fn a_step_keeps_what_it_does_not_name() {
        let text = "[both]\ndelay_ms = 20\nrate_kbit = 2000\n\
                    step = [{ at_s = 30, rate_kbit = 200 }, { at_s = 60, rate_kbit = 2000 }]";
        let up = &Profile::parse(text).unwrap().links[0].up;
        let rates = [29.9, 30.0, 59.9, 60.0].map(|s| at(up, s).rate_kbit);
        assert_eq!(rates, [2000.0, 200.0, 200.0, 2000.0]);
        assert_eq!(at(up, 40.0).delay_ms, 20.0);
    }

    #[test]
    fn windows_repeat_when_asked() {
        let text = "[both]\nblackhole = [{ at_s = 30, for_s = 2, every_s = 30 }]\n\
                    [down]\nblackhole = [{ at_s = 20, for_s = 6 }]";
        let link = &Profile::parse(text).unwrap().links[0];
        let dark = |timeline: &Timeline, s| timeline.is_dark(Duration::from_secs_f64(s));
        for (moment, expected) in [(29.9, false), (30.0, true), (32.1, false), (61.0, true)] {
            assert_eq!(dark(&link.up, moment), expected, "{moment}");
        }
        for (moment, expected) in [(19.0, false), (20.0, true), (26.0, false), (50.5, false)] {
            assert_eq!(dark(&link.down, moment), expected, "{moment}");
        }
    }

    #[test]
    fn the_second_link_begins_as_the_first_one() {
        let text = "swap_at_s = 20\n[both]\ndelay_ms = 10\n[second.both]\nloss_percent = 2";
        let profile = Profile::parse(text).unwrap();
        assert_eq!(profile.links.len(), 2);
        assert_eq!(at(&profile.links[1].up, 0.0).delay_ms, 10.0);
        assert_eq!(at(&profile.links[1].up, 0.0).loss_percent, 2.0);
        assert_eq!(at(&profile.links[0].up, 0.0).loss_percent, 0.0);
    }

    #[test]
    fn mistakes_are_refused() {
        for wrong in [
            "mtu = 100",
            "speed = 3",
            "[both]\nlos_percent = 3",
            "[both]\nloss_percent = 101",
            "[both]\ndelay_ms = -1",
            "[both]\nburst_between = [9, 3]",
            "[both]\nstep = [{ rate_kbit = 3 }]",
            "[both]\nstep = [{ at_s = 9 }, { at_s = 3 }]",
            "[both]\nblackhole = [{ at_s = 9 }]",
            "[second.both]\ndelay_ms = 3",
        ] {
            assert!(Profile::parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn every_profile_of_the_tree_can_be_read() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("profiles");
        let mut read = 0;
        for entry in std::fs::read_dir(folder).unwrap() {
            Profile::load(&entry.unwrap().path()).unwrap();
            read += 1;
        }
        assert!(read >= 24, "only {read} profiles were found");
    }
}
