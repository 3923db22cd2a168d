//! What a process has used, by the kernel's books (`/proc`).

use std::collections::HashMap;
use std::fs;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

/// `/proc` counts times in this, on every machine.
const TICK: Duration = Duration::from_millis(10);

/// What it has used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Used {
    /// CPU time, user and system, since its start.
    pub(super) cpu: Duration,
    /// Memory that is in RAM, in bytes.
    pub(super) resident: u64,
}

/// Reads the books of one process.
#[derive(Debug)]
pub(super) struct Meter {
    folder: PathBuf,
    /// Nanoseconds of each thread that was ever seen: one that has ended is not forgotten.
    threads: HashMap<String, u64>,
}

impl Meter {
    /// Of a process on this machine.
    pub(super) fn of(pid: u32) -> Self {
        Self { folder: PathBuf::from(format!("/proc/{pid}")), threads: HashMap::new() }
    }

    /// Of this process.
    pub(super) fn own() -> Self {
        Self { folder: PathBuf::from("/proc/self"), threads: HashMap::new() }
    }

    /// What was used until now.
    pub(super) fn read(&mut self) -> io::Result<Used> {
        let odd = || io::Error::new(io::ErrorKind::InvalidData, "/proc cannot be read");
        let status = fs::read_to_string(self.folder.join("status"))?;
        let resident = resident(&status).ok_or_else(odd)?;
        let cpu = match self.scheduled() {
            Ok(nanos) if nanos > 0 => Duration::from_nanos(nanos),
            // A kernel without the scheduler's books has coarser ones.
            Ok(_) | Err(_) => {
                ticks(&fs::read_to_string(self.folder.join("stat"))?).ok_or_else(odd)?
            }
        };
        Ok(Used { cpu, resident })
    }

    /// Nanoseconds of all threads by the scheduler's own count.
    fn scheduled(&mut self) -> io::Result<u64> {
        for thread in fs::read_dir(self.folder.join("task"))? {
            let thread = thread?;
            // A thread may end while we look.
            let Ok(text) = fs::read_to_string(thread.path().join("schedstat")) else { continue };
            if let Some(nanos) = run_time(&text) {
                self.threads.insert(thread.file_name().to_string_lossy().into_owned(), nanos);
            }
        }
        Ok(self.threads.values().sum())
    }
}

/// The first number of a `schedstat`: nanoseconds on a CPU.
fn run_time(schedstat: &str) -> Option<u64> {
    schedstat.split_whitespace().next()?.parse().ok()
}

/// User and system time of a `stat`. The name in it may hold anything, brackets too.
fn ticks(stat: &str) -> Option<Duration> {
    let (_, after) = stat.rsplit_once(')')?;
    let mut numbers = after.split_whitespace().skip(11).map(str::parse::<u32>);
    let (user, system) = (numbers.next()?.ok()?, numbers.next()?.ok()?);
    TICK.checked_mul(user.checked_add(system)?)
}

/// `VmRSS` of a `status`, in bytes.
fn resident(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    #[test]
    fn the_books_are_read() {
        let stat = "77 (a ) (b) S 1 77 77 0 -1 4194560 100 0 0 0 250 50 0 0 20 0 4 0 9 8 7";
        assert_eq!(ticks(stat), Some(Duration::from_secs(3)));
        assert_eq!(ticks("77 (a) S 1"), None);
        assert_eq!(resident("Name:\tx\nVmRSS:\t    1234 kB\n"), Some(1234 * 1024));
        assert_eq!(resident("Name:\tx\n"), None);
        assert_eq!(run_time("5000000 12 3\n"), Some(5_000_000));
        assert_eq!(run_time(""), None);
    }

    #[test]
    fn work_shows_in_ones_own_books() {
        let mut meter = Meter::own();
        let before = meter.read().unwrap();
        let thread = std::thread::spawn(|| {
            let start = Instant::now();
            let mut turns = 0_u64;
            while start.elapsed() < Duration::from_millis(200) || turns < 1000 {
                turns = std::hint::black_box(turns + 1);
            }
            turns
        });
        while !thread.is_finished() {
            std::thread::sleep(Duration::from_millis(5));
            meter.read().unwrap();
        }
        let after = meter.read().unwrap();
        // However busy the machine is: some of it was ours.
        assert!(after.cpu > before.cpu, "{before:?} {after:?}");
        assert!(after.resident > 100_000);
    }

    #[test]
    fn a_process_that_is_not_there_is_an_error() {
        assert!(Meter::of(u32::MAX).read().is_err());
    }
}
