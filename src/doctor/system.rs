//! The machine: buffers of UDP, segmentation offload, files, room on its disks, its clock.

use std::net::UdpSocket;
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::sys::resource::{Resource, getrlimit};
use nix::sys::statvfs::statvfs;
use quinn_udp::UdpSocketState;

use super::finding::Finding;

/// What the media sockets ask for.
const BUFFER: u64 = 4 << 20;
/// The unit in `deploy/` sets this many. Each call by TCP and each page takes some.
const FILES: u64 = 65_536;
/// Below this a busy day's connections do not fit.
const FEW_FILES: u64 = 4_096;
const MIB: u64 = 1 << 20;
/// From here on somebody should look.
const LITTLE_DISK: u64 = 1024 * MIB;
/// From here on writes fail soon.
const NO_DISK: u64 = 100 * MIB;
/// Tokens tolerate seconds; logs of several machines are read side by side.
const CLOCK_MS: u64 = 2_000;

/// What the kernel keeps for UDP sockets at the most.
pub(super) fn buffers() -> Vec<Finding> {
    let limit = |name: &str| {
        let text = std::fs::read_to_string(format!("/proc/sys/net/core/{name}")).ok()?;
        text.trim().parse().ok()
    };
    vec![judge_buffers(limit("rmem_max"), limit("wmem_max"))]
}

fn judge_buffers(receive: Option<u64>, send: Option<u64>) -> Finding {
    const CHECK: &str = "udp_buffers";
    let fix = format!("sysctl -w net.core.rmem_max={BUFFER} net.core.wmem_max={BUFFER}");
    let (Some(receive), Some(send)) = (receive, send) else {
        let says = "what the kernel keeps for UDP cannot be read here (a container?).";
        return Finding::warning(CHECK, says, format!("on the host: {fix}"));
    };
    if receive.min(send) < BUFFER {
        let says = format!(
            "the kernel keeps {} KiB in and {} KiB out for UDP: bursts of many calls are lost.",
            receive / 1024,
            send / 1024
        );
        return Finding::warning(CHECK, says, fix);
    }
    Finding::ok(CHECK, "the kernel keeps enough for bursts.")
}

/// Many datagrams by one call (GSO, GRO).
pub(super) fn offload() -> Vec<Finding> {
    let state =
        UdpSocket::bind("127.0.0.1:0").and_then(|socket| UdpSocketState::new((&socket).into()));
    let counts = state.map(|state| (state.max_gso_segments(), state.gro_segments()));
    vec![judge_offload(counts.ok())]
}

fn judge_offload(counts: Option<(usize, usize)>) -> Finding {
    const CHECK: &str = "udp_offload";
    match counts {
        Some((send, receive)) if send > 1 && receive > 1 => {
            Finding::ok(CHECK, "the kernel sends and takes many datagrams by one call (GSO, GRO).")
        }
        Some(_) | None => Finding::warning(
            CHECK,
            "the kernel takes datagrams one by one: media costs several times the processor.",
            "uname -r: run a Linux of 5.0 or newer, without a sandbox that hides UDP_SEGMENT",
        ),
    }
}

/// How many files, which connections are too, this process may open.
pub(super) fn files() -> Vec<Finding> {
    let limit = getrlimit(Resource::RLIMIT_NOFILE).map(|(soft, _)| soft);
    vec![judge_files(limit.unwrap_or(0))]
}

fn judge_files(limit: u64) -> Finding {
    const CHECK: &str = "open_files";
    let fix =
        format!("LimitNOFILE={FILES} in the unit, or --ulimit nofile={FILES} for a container");
    if limit < FEW_FILES {
        let says = format!("a process may open {limit} files, and each connection is one.");
        return Finding::warning(CHECK, says, fix);
    }
    Finding::ok(CHECK, format!("a process may open {limit} files."))
}

/// Room where the database and files lie.
pub(super) fn disks(places: &[PathBuf]) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut seen = Vec::new();
    for place in places {
        // What is not made yet will lie on the disk of the folder above.
        let Some(there) = place.ancestors().find(|above| is_folder(above)) else { continue };
        let there = if there.as_os_str().is_empty() { Path::new(".") } else { there };
        let Ok(stat) = statvfs(there) else { continue };
        if seen.contains(&stat.filesystem_id()) {
            continue;
        }
        seen.push(stat.filesystem_id());
        let free = stat.blocks_available().saturating_mul(stat.fragment_size());
        findings.push(judge_disk(there, free));
    }
    findings
}

fn is_folder(path: &Path) -> bool {
    path.as_os_str().is_empty() || path.is_dir()
}

fn judge_disk(place: &Path, free: u64) -> Finding {
    const CHECK: &str = "disk";
    let place = place.display();
    let says = format!("{} MiB are free at {place}.", free / MIB);
    let fix = format!("df -h {place}; make room, or shorten chat.retention");
    if free < NO_DISK {
        Finding::error(CHECK, says, fix)
    } else if free < LITTLE_DISK {
        Finding::warning(CHECK, says, fix)
    } else {
        Finding::ok(CHECK, says)
    }
}

/// Does the kernel's clock follow a better one? None: nobody here knows, as in most containers.
pub(super) fn clock_follows() -> Option<bool> {
    if Path::new("/run/systemd/timesync/synchronized").exists() {
        return Some(true);
    }
    // It reads the kernel's own state (adjtimex), whoever keeps it.
    let told =
        Command::new("timedatectl").args(["show", "-p", "NTPSynchronized", "--value"]).output();
    match told.ok().filter(|told| told.status.success())?.stdout.trim_ascii() {
        b"yes" => Some(true),
        b"no" => Some(false),
        _ => None,
    }
}

/// The clock; `ahead_ms` is by how much the database's is ahead.
pub(super) fn clock(follows: Option<bool>, ahead_ms: Option<i64>) -> Vec<Finding> {
    const CHECK: &str = "clock";
    let fix = "timedatectl set-ntp true (or: apt-get install chrony), on both machines";
    let mut findings = Vec::new();
    if let Some(ahead) = ahead_ms.filter(|ahead| ahead.unsigned_abs() > CLOCK_MS) {
        let says = format!(
            "the database's clock is {} ms {} ours: times and tokens of one are wrong at the other.",
            ahead.unsigned_abs(),
            if ahead > 0 { "ahead of" } else { "behind" },
        );
        findings.push(Finding::error(CHECK, says, fix));
    }
    if follows == Some(false) {
        let says = "the clock follows no time server: links and tokens end at wrong times.";
        findings.push(Finding::warning(CHECK, says, fix));
    }
    if findings.is_empty() {
        findings.push(Finding::ok(
            CHECK,
            match (follows, ahead_ms) {
                (Some(_), _) => "it follows a time server.",
                (None, Some(_)) => "it agrees with the database's.",
                (None, None) => "nobody here says whether it follows a time server.",
            },
        ));
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::super::finding::Level;
    use super::*;

    #[test]
    fn small_limits_are_warnings_with_their_command() {
        assert_eq!(judge_buffers(Some(BUFFER), Some(BUFFER)).level, Level::Ok);
        for (receive, send) in
            [(Some(212_992), Some(BUFFER)), (Some(BUFFER), Some(212_992)), (None, None)]
        {
            let finding = judge_buffers(receive, send);
            assert_eq!(finding.level, Level::Warning);
            assert!(finding.fix.unwrap().contains("sysctl -w net.core.rmem_max=4194304"));
        }
        assert_eq!(judge_files(FILES).level, Level::Ok);
        assert_eq!(judge_files(1024).level, Level::Warning);
        assert_eq!(judge_offload(Some((64, 64))).level, Level::Ok);
        for counts in [Some((1, 64)), Some((64, 1)), None] {
            assert_eq!(judge_offload(counts).level, Level::Warning);
        }
    }

    #[test]
    fn a_full_disk_is_an_error_before_it_is_full() {
        let place = Path::new("/var/lib/bedside");
        assert_eq!(judge_disk(place, LITTLE_DISK).level, Level::Ok);
        assert_eq!(judge_disk(place, LITTLE_DISK - 1).level, Level::Warning);
        assert_eq!(judge_disk(place, NO_DISK - 1).level, Level::Error);
        let here = tempfile::tempdir().unwrap();
        let places = [here.path().join("not/made/yet"), here.path().to_owned()];
        assert_eq!(disks(&places).len(), 1, "one disk is told once");
        assert_eq!(disks(&[PathBuf::from("bedside.db")]).len(), 1, "beside us");
    }

    #[test]
    fn two_clocks_agree_or_not() {
        let level = |follows, ahead| clock(follows, ahead)[0].level;
        assert_eq!(level(Some(true), Some(-1_000)), Level::Ok);
        assert_eq!(level(None, None), Level::Ok);
        assert_eq!(level(Some(false), None), Level::Warning);
        assert_eq!(level(Some(true), Some(2_001)), Level::Error);
        assert_eq!(level(None, Some(-60_000)), Level::Error);
    }

    #[test]
    fn this_machine_can_be_looked_at() {
        for findings in [buffers(), offload(), files()] {
            assert_eq!(findings.len(), 1);
        }
    }
}
