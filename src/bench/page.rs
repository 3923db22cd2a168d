//! The report as one page that needs nothing else: no script, no font, no picture from anywhere.

use std::fmt::Write as _;

use super::plot::{Line, Plot, number, sample};
use super::report::{Level, Report};

const STYLE: &str = "\
:root{color-scheme:light dark;--paper:#fff;--ink:#1b1f24;--soft:#57606a;--line:#d0d7de;--bad:#b42318;\
--k0:#0b5fc1;--k1:#a3480b;--k2:#1a7f37;--k3:#7a3ea8;--k4:#0f766e}\
@media(prefers-color-scheme:dark){:root{--paper:#14181d;--ink:#e6edf3;--soft:#a3adb8;--line:#3a434d;\
--bad:#ff8a7a;--k0:#7ab8ff;--k1:#ffb077;--k2:#6fdd8b;--k3:#d2a8ff;--k4:#5fd6c8}}\
body{background:var(--paper);color:var(--ink);font:16px/1.5 system-ui,sans-serif;max-width:72rem;\
margin:0 auto;padding:1.5rem}h1{font-size:1.6rem;margin:0}h2{font-size:1.15rem;margin:2rem 0 .5rem}\
.result{font-size:1.15rem}.soft,figcaption{color:var(--soft)}.warn{color:var(--bad);font-weight:600}\
.plots{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(28rem,100%),1fr));gap:1.5rem}\
figure{margin:0}figcaption{font-weight:600}svg{width:100%;height:auto}\
svg text{fill:var(--soft);font-size:14px}svg .grid{stroke:var(--line)}\
svg line.bound{stroke:var(--bad);stroke-dasharray:3 3}svg text.bound{fill:var(--bad)}\
polyline{fill:none;stroke-width:2}\
.k0{stroke:var(--k0)}.k1{stroke:var(--k1)}.k2{stroke:var(--k2)}.k3{stroke:var(--k3)}.k4{stroke:var(--k4)}\
.m0{fill:var(--k0)}.m1{fill:var(--k1)}.m2{fill:var(--k2)}.m3{fill:var(--k3)}.m4{fill:var(--k4)}\
.sample{width:2.25rem;height:.75rem;vertical-align:middle;margin-right:.4rem}\
.legend{list-style:none;padding:0;display:flex;flex-wrap:wrap;gap:.25rem 1.5rem}\
.wide{overflow-x:auto}table{border-collapse:collapse;font-variant-numeric:tabular-nums;font-size:.9rem}\
caption{text-align:left;font-weight:600;padding:.5rem 0}th,td{border-bottom:1px solid var(--line);\
padding:.3rem .6rem;text-align:right;white-space:nowrap}td:last-child,th:last-child{text-align:left}\
@media print{body{max-width:none}}";

const COLUMNS: [&str; 14] = [
    "people",
    "packets/s",
    "delay p50, ms",
    "p99, ms",
    "p99.9, ms",
    "lost, %",
    "join p99, ms",
    "first packet p99, ms",
    "server, % of a core",
    "µs/packet",
    "KiB/person",
    "µs/join",
    "load, % of a core",
    "verdict",
];

/// Text that means itself.
pub(super) fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            c => out.push(c),
        }
    }
    out
}

/// The page of one run, or of several of one scenario side by side.
pub(super) fn page(reports: &[Report]) -> String {
    let scenario = reports.first().map_or("", |report| report.scenario.name());
    let title = format!("How much it carries: {scenario}");
    let mut out = format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width,initial-scale=1\">\
         <title>{title}</title><style>{STYLE}</style></head>\n<body><main>\n<h1>{title}</h1>\n"
    );
    for report in reports {
        let _ = writeln!(out, "<p class=\"result\">{}</p>", escape(&report.sentence()));
    }
    if reports.iter().any(|report| report.build == "debug") {
        out.push_str(
            "<p class=\"warn\">Measured by a debug build: these numbers say nothing.</p>\n",
        );
    }
    if reports.len() > 1 {
        out.push_str("<ul class=\"legend\" aria-label=\"Lines\">");
        for (kind, report) in reports.iter().enumerate() {
            let _ = write!(out, "<li>{}{}</li>", sample(kind), escape(&report.name));
        }
        out.push_str("</ul>\n");
    }
    out.push_str("<section class=\"plots\" aria-label=\"Plots\">\n");
    for (at, plot) in plots(reports).iter().filter(|plot| !plot.is_empty()).enumerate() {
        let caption = escape(&plot.title);
        let svg = plot.svg(&format!("plot{at}"));
        let _ = writeln!(out, "<figure><figcaption>{caption}</figcaption>\n{svg}</figure>");
    }
    out.push_str("</section>\n");
    for report in reports {
        table(report, &mut out);
    }
    notes(reports, &mut out);
    out.push_str("</main></body></html>\n");
    out
}

/// Everything there is to plot; what was not measured stays empty.
fn plots(reports: &[Report]) -> Vec<Plot> {
    let first = reports.first();
    let unit = first.map_or("", |report| report.scenario.unit());
    let bounds = first.map(|report| report.bounds);
    let over = |title: &str, y: &str, value: fn(&Level) -> Option<f64>| Plot {
        title: title.to_owned(),
        axes: (unit.to_owned(), y.to_owned()),
        lines: reports.iter().map(|report| line(report, value)).collect(),
        bound: None,
        logarithmic: false,
        places: Vec::new(),
    };
    let delay = Plot {
        bound: bounds.map(|bounds| bounds.delay_ms),
        logarithmic: true,
        ..over("Delay of 99 of 100 packets", "ms", |level| Some(level.delay_ms.p99))
    };
    let loss = Plot {
        bound: bounds.map(|bounds| bounds.loss * 100.0),
        ..over("Packets lost", "%", |level| Some(level.loss() * 100.0))
    };
    let join = Plot {
        bound: bounds.map(|bounds| bounds.join_ms),
        logarithmic: true,
        ..over("Time of 99 of 100 joins", "ms", |level| {
            Some(level.joins.connected_ms.p99).filter(|_| level.joins.connected_ms.count > 0)
        })
    };
    vec![
        delay,
        loss,
        join,
        over("Server's CPU time for a forwarded packet", "µs", |level| {
            level.server?.us_per_packet
        }),
        over("Server's CPU time for a join", "µs", |level| level.server?.us_per_join),
        over("Server's share of a core", "%", |level| Some(level.server?.core * 100.0)),
        over("Server's memory for each person", "KiB", |level| {
            Some(level.server?.bytes_per_person? / 1024.0)
        }),
        over("The load's own share of a core", "%", |level| Some(level.tool.core * 100.0)),
        distribution(reports),
    ]
}

/// One line over the levels, from left to right.
fn line(report: &Report, value: fn(&Level) -> Option<f64>) -> Line {
    let point = |level: &Level| Some((level.level as f64, value(level)?));
    let mut points: Vec<(f64, f64)> = report.levels.iter().filter_map(point).collect();
    points.sort_by(|a, b| a.0.total_cmp(&b.0));
    Line { name: report.name.clone(), points }
}

/// How the delays are distributed at the last good level: each nine takes as much room as the one before.
fn distribution(reports: &[Report]) -> Plot {
    let line = |report: &Report| {
        let level = report.levels.iter().rfind(|level| Some(level.level) == report.last_good);
        let curve = level.map(|level| level.delay_curve.as_slice()).unwrap_or_default();
        let nines = |share: f64| -(1.0 - share).max(1e-9).log10();
        let points = curve.iter().map(|(share, ms)| (nines(*share), *ms)).collect();
        let level = level.map(|level| format!(" at {}", level.level)).unwrap_or_default();
        Line { name: format!("{}{level}", report.name), points }
    };
    Plot {
        title: "Delays at the last good level".to_owned(),
        axes: ("of the packets, this share is faster".to_owned(), "ms".to_owned()),
        lines: reports.iter().map(line).collect(),
        bound: None,
        logarithmic: true,
        places: vec![
            (0.0, "0"),
            (1.0, "90 %"),
            (2.0, "99 %"),
            (3.0, "99.9 %"),
            (4.0, "99.99 %"),
            (5.0, "99.999 %"),
        ],
    }
}

fn table(report: &Report, out: &mut String) {
    let unit = report.scenario.unit();
    let _ = write!(
        out,
        "<div class=\"wide\" role=\"region\" aria-label=\"Levels of {0}\" tabindex=\"0\"><table>\
         <caption>{0}</caption><thead><tr><th scope=\"col\">{unit}</th>",
        escape(&report.name)
    );
    for column in COLUMNS {
        let _ = write!(out, "<th scope=\"col\">{column}</th>");
    }
    out.push_str("</tr></thead><tbody>\n");
    for level in &report.levels {
        let server = level.server;
        let cells = [
            Some(level.people as f64),
            Some(level.packets_per_second()),
            Some(level.delay_ms.p50),
            Some(level.delay_ms.p99),
            Some(level.delay_ms.p999),
            Some(level.loss() * 100.0),
            Some(level.joins.connected_ms.p99).filter(|_| level.joins.connected_ms.count > 0),
            Some(level.joins.first_packet_ms.p99).filter(|_| level.joins.first_packet_ms.count > 0),
            server.map(|server| server.core * 100.0),
            server.and_then(|server| server.us_per_packet),
            server.and_then(|server| server.bytes_per_person).map(|bytes| bytes / 1024.0),
            server.and_then(|server| server.us_per_join),
            Some(level.tool.core * 100.0),
        ];
        let _ = write!(out, "<tr><th scope=\"row\">{}</th>", level.level);
        for cell in cells {
            let text = cell.map_or_else(|| "–".to_owned(), number);
            let _ = write!(out, "<td>{text}</td>");
        }
        let class = if level.breaches.is_empty() { "" } else { " class=\"warn\"" };
        let _ = writeln!(out, "<td{class}>{}</td></tr>", escape(&level.verdict()));
    }
    out.push_str("</tbody></table></div>\n");
}

fn notes(reports: &[Report], out: &mut String) {
    out.push_str("<h2>How it was measured</h2>\n<ul>\n");
    for report in reports {
        let (machine, bounds) = (&report.machine, &report.bounds);
        let _ = writeln!(
            out,
            "<li>{}: {}, load from {} cores of {}, kernel {}, load average {} before; good means p99 \
             delay ≤ {} ms, loss ≤ {} %, p99 join ≤ {} ms; version {} ({}).</li>",
            escape(&report.name),
            day(report.began),
            machine.cores,
            escape(if machine.cpu.is_empty() { "an unknown CPU" } else { &machine.cpu }),
            escape(&machine.kernel),
            number(machine.load_average),
            number(bounds.delay_ms),
            number(bounds.loss * 100.0),
            number(bounds.join_ms),
            escape(&report.version),
            escape(&report.build),
        );
    }
    out.push_str(
        "<li>Delay: from a packet's leaving to the kernel's time of its arrival; it holds the server and \
         the network, not the load.</li>\n<li>Lost: never came, repairs counted as come. Only a level \
         whose packets left in time counts; otherwise its verdict says that the load was late.</li>\n\
         <li>Numbers of two runs are comparable where machine, load and time are.</li>\n</ul>\n",
    );
}

/// The day of a time, in the calendar of the world.
fn day(seconds: u64) -> String {
    // Counted from a first of March, so that a leap day ends its year.
    let days = seconds / 86_400 + 719_468;
    let (era, of_era) = (days / 146_097, days % 146_097);
    let year = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let shifted = (5 * of_year + 2) / 153;
    let (day, month) = (of_year - (153 * shifted + 2) / 5 + 1, (shifted + 2) % 12 + 1);
    let year = year + era * 400 + u64::from(month <= 2);
    format!("{year}-{month:02}-{day:02}")
}

#[cfg(test)]
mod tests {
    use super::super::report::tests::report;
    use super::*;

    #[test]
    fn the_page_needs_nothing_else() {
        let page = page(&[report("A <b>"), report("B")]);
        for outside in ["http:", "https:", "<script", "<link", "<img", "url(", "@import", "src="] {
            assert!(!page.contains(outside), "{outside}");
        }
        assert!(!page.contains("<b>") && page.contains("A &lt;b&gt;"), "names are text");
        assert!(page.contains("prefers-color-scheme:dark") && page.contains("lang=\"en\""));
    }

    #[test]
    fn everything_measured_has_a_plot_and_a_cell() {
        let one = page(&[report("A")]);
        // No µs per join in this scenario; a caption and a title for each other plot.
        assert_eq!(one.matches("<figure>").count(), 7);
        assert_eq!(one.matches("role=\"img\"").count(), 7);
        assert_eq!(one.matches("scope=\"row\"").count(), 2);
        assert_eq!(one.matches("scope=\"col\"").count(), COLUMNS.len() + 1);
        for row in one.lines().filter(|line| line.starts_with("<tr><th scope=\"row\"")) {
            assert_eq!(row.matches("<td").count(), COLUMNS.len());
        }
        assert!(!one.contains("class=\"legend\""), "one line needs no legend");
        assert!(page(&[report("A"), report("B")]).contains("class=\"legend\""));
        let mut debug = report("A");
        debug.build = "debug".to_owned();
        assert!(page(&[debug]).contains("these numbers say nothing"));
    }

    #[test]
    fn a_run_without_levels_or_process_is_no_harm() {
        let mut bare = report("A");
        bare.levels.iter_mut().for_each(|level| level.server = None);
        assert!(!page(&[bare.clone()]).contains("NaN"));
        bare.levels.clear();
        bare.last_good = None;
        assert!(!page(&[bare]).contains("NaN"));
        assert!(page(&[]).ends_with("</html>\n"));
    }

    #[test]
    fn days_are_those_of_the_calendar() {
        for (seconds, text) in [
            (0, "1970-01-01"),
            (951_782_400, "2000-02-29"),
            (1_709_251_199, "2024-02-29"),
            (1_709_251_200, "2024-03-01"),
            (1_795_305_600, "2026-11-22"),
            (4_107_542_399, "2100-02-28"),
            (4_107_542_400, "2100-03-01"),
        ] {
            assert_eq!(day(seconds), text);
        }
    }
}
