//! What is told about a run: a line per packet, and the sums at the end.

use std::fs::File;
use std::io::{self, BufWriter, Write as _};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result};
use serde::Serialize;

use crate::channel::Fate;

/// Sums of one direction of one link.
#[derive(Clone, Debug, Default, Serialize, PartialEq)]
pub(crate) struct Sums {
    pub(crate) packets: u64,
    pub(crate) bytes: u64,
    pub(crate) delivered: u64,
    pub(crate) delivered_bytes: u64,
    pub(crate) lost: u64,
    pub(crate) queue_full: u64,
    pub(crate) dark: u64,
    pub(crate) doubled: u64,
    pub(crate) overtaken: u64,
    /// Arrived while the device was down.
    pub(crate) refused: u64,
    pub(crate) max_delay_ms: f64,
}

impl Sums {
    /// A packet came in and this became of it.
    pub(crate) fn count(&mut self, now: Duration, bytes: usize, fate: Fate) {
        self.packets += 1;
        self.bytes += bytes as u64;
        match fate {
            Fate::Passes(_) => {}
            Fate::Doubled(_) => self.doubled += 1,
            Fate::Overtaken(_) => self.overtaken += 1,
            Fate::Lost => self.lost += 1,
            Fate::QueueFull => self.queue_full += 1,
            Fate::Dark => self.dark += 1,
        }
        if let Some(due) = fate.due() {
            self.max_delay_ms = self.max_delay_ms.max(delay_ms(now, due));
        }
    }

    /// A packet was handed to the other side.
    pub(crate) fn arrived(&mut self, bytes: usize, taken: bool) {
        if taken {
            self.delivered += 1;
            self.delivered_bytes += bytes as u64;
        } else {
            self.refused += 1;
        }
    }
}

fn delay_ms(now: Duration, due: Duration) -> f64 {
    due.saturating_sub(now).as_secs_f64() * 1000.0
}

/// Which way a packet goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Way {
    Up,
    Down,
}

impl Way {
    const fn name(self) -> &'static str {
        match self {
            Self::Up => "up",
            Self::Down => "down",
        }
    }
}

/// The sums of a run.
#[derive(Debug, Serialize)]
pub(crate) struct Summary<'a> {
    pub(crate) profile: &'a str,
    pub(crate) seed: u64,
    pub(crate) seconds: f64,
    pub(crate) links: Vec<LinkSums>,
}

/// The sums of one link.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct LinkSums {
    pub(crate) up: Sums,
    pub(crate) down: Sums,
}

impl LinkSums {
    pub(crate) const fn way(&mut self, way: Way) -> &mut Sums {
        match way {
            Way::Up => &mut self.up,
            Way::Down => &mut self.down,
        }
    }
}

/// The packet log: comma-separated, one line per packet that came in.
pub(crate) struct Log {
    out: BufWriter<File>,
    number: u64,
}

impl Log {
    pub(crate) fn create(path: &Path) -> Result<Self> {
        let file = File::create(path).with_context(|| path.display().to_string())?;
        let mut out = BufWriter::new(file);
        writeln!(out, "number,seconds,link,direction,bytes,fate,delay_ms")?;
        Ok(Self { out, number: 0 })
    }

    pub(crate) fn write(
        &mut self,
        now: Duration,
        link: usize,
        way: Way,
        bytes: usize,
        fate: Fate,
    ) -> io::Result<()> {
        let (number, seconds) = (self.number, now.as_secs_f64());
        self.number += 1;
        let (way, name) = (way.name(), fate.name());
        write!(self.out, "{number},{seconds:.6},{link},{way},{bytes},{name},")?;
        match fate.due() {
            Some(due) => writeln!(self.out, "{:.3}", delay_ms(now, due)),
            None => writeln!(self.out),
        }
    }

    pub(crate) fn finish(mut self) -> io::Result<()> {
        self.out.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_log_has_a_line_per_packet() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log.csv");
        let mut log = Log::create(&path).unwrap();
        let at = Duration::from_millis(1500);
        log.write(at, 0, Way::Up, 100, Fate::Passes(Duration::from_millis(1520))).unwrap();
        log.write(at, 1, Way::Down, 60, Fate::Lost).unwrap();
        log.finish().unwrap();
        let text = std::fs::read_to_string(path).unwrap();
        let lines: Vec<&str> = text.lines().skip(1).collect();
        assert_eq!(lines, ["0,1.500000,0,up,100,passes,20.000", "1,1.500000,1,down,60,lost,"]);
    }

    #[test]
    fn sums_tell_the_fates_apart() {
        let mut sums = Sums::default();
        let due = Duration::from_millis(30);
        for fate in [Fate::Passes(due), Fate::Doubled(due), Fate::Lost, Fate::QueueFull, Fate::Dark]
        {
            sums.count(Duration::ZERO, 100, fate);
        }
        sums.arrived(100, true);
        sums.arrived(100, false);
        assert_eq!((sums.packets, sums.bytes), (5, 500));
        assert_eq!((sums.lost, sums.queue_full, sums.dark, sums.doubled), (1, 1, 1, 1));
        assert_eq!((sums.delivered, sums.refused), (1, 1));
        assert!((sums.max_delay_ms - 30.0).abs() < 1e-9);
    }
}
