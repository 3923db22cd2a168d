//! What the terminal shows: a line that changes while a level is measured, one for each level, and the
//! table at the end.

use std::fmt::Write as _;
use std::io::{IsTerminal as _, Write as _};

use super::report::{Level, Report};
use super::scenario::Scenario;

/// The terminal behind standard error. Whoever does not look is no reason to fail.
pub(super) struct Progress {
    terminal: bool,
}

impl Progress {
    /// Knows whether somebody looks.
    pub(super) fn new() -> Self {
        Self { terminal: std::io::stderr().is_terminal() }
    }

    /// What goes on now; on a terminal only, and gone with the next line.
    pub(super) fn status(&mut self, text: &str) {
        if self.terminal {
            let mut out = std::io::stderr().lock();
            let _nobody = write!(out, "\r\x1b[2K{text} …");
            let _nobody = out.flush();
        }
    }

    /// A line that stays.
    pub(super) fn line(&mut self, text: &str) {
        let mut out = std::io::stderr().lock();
        let clear = if self.terminal { "\r\x1b[2K" } else { "" };
        let _nobody = writeln!(out, "{clear}{text}");
    }

    /// A level that was measured.
    pub(super) fn level(&mut self, scenario: Scenario, level: &Level) {
        self.line(&format!("{} {}: {}", level.level, scenario.unit(), brief(level)));
    }
}

fn brief(level: &Level) -> String {
    let server = level.server.map(|server| format!(", server {:.0} %", server.core * 100.0));
    format!(
        "p99 {:.2} ms, loss {:.3} %, {:.0} packets/s{}, load {:.0} % of a core: {}",
        level.delay_ms.p99,
        level.loss() * 100.0,
        level.packets_per_second(),
        server.unwrap_or_default(),
        level.tool.core * 100.0,
        level.verdict(),
    )
}

/// All levels of all runs, with a sentence for each run.
pub(super) fn table(reports: &[Report]) -> String {
    let mut text = String::new();
    for report in reports {
        let _ = writeln!(
            text,
            "\n{}: {}\n\n{:>7} {:>9} {:>18} {:>8} {:>15} {:>8} {:>7} {:>9} {:>10} {:>7}  verdict",
            report.scenario.name(),
            report.name,
            "level",
            "packets/s",
            "delay p50/p99 ms",
            "loss %",
            "join p99/1st ms",
            "server %",
            "µs/pkt",
            "KiB/head",
            "µs/join",
            "load %"
        );
        for level in &report.levels {
            let server = level.server;
            let cell = |value: Option<f64>| {
                value.map_or_else(|| "–".to_owned(), |value| format!("{value:.1}"))
            };
            let _ = writeln!(
                text,
                "{:>7} {:>9.0} {:>18} {:>8.3} {:>15} {:>8} {:>7} {:>9} {:>10} {:>7.1}  {}",
                level.level,
                level.packets_per_second(),
                format!("{:.2} / {:.2}", level.delay_ms.p50, level.delay_ms.p99),
                level.loss() * 100.0,
                format!(
                    "{:.0} / {:.0}",
                    level.joins.connected_ms.p99, level.joins.first_packet_ms.p99
                ),
                cell(server.map(|server| server.core * 100.0)),
                cell(server.and_then(|server| server.us_per_packet)),
                cell(server.and_then(|server| server.bytes_per_person).map(|bytes| bytes / 1024.0)),
                cell(server.and_then(|server| server.us_per_join)),
                level.tool.core * 100.0,
                level.verdict(),
            );
        }
        let _ = writeln!(text, "\n{}", report.sentence());
        if report.build == "debug" {
            let _ = writeln!(text, "The load was a debug build: these numbers say nothing.");
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::super::report::tests::report;
    use super::*;

    #[test]
    fn the_table_has_a_row_for_each_level_and_a_sentence_for_each_run() {
        let text = table(&[report("A"), report("B")]);
        for run in ["A", "B"] {
            assert!(
                text.contains(&format!("{run} carries 10 consultations; at 20 it was: delay."))
            );
        }
        assert_eq!(text.lines().filter(|line| line.trim_end().ends_with("good")).count(), 2);
        assert!(text.contains("5.5") && text.contains("195.3"), "{text}");
        assert!(!text.contains("debug"));
    }
}
