//! Plots as inline SVG: lines told apart by colour, dashes and marks, colours from the page's style, so
//! that they suit light and dark.

use std::fmt::Write as _;

use super::page::escape;

const WIDTH: f64 = 640.0;
const HEIGHT: f64 = 320.0;
/// Room for the words around: left, right, above, below.
const AROUND: (f64, f64, f64, f64) = (64.0, 16.0, 12.0, 48.0);
/// About so many marks on an axis.
const TICKS: f64 = 5.0;
/// A line of more points has no marks.
const MOST_MARKS: usize = 24;
/// Lines that can be told apart.
pub(super) const KINDS: usize = 5;
const DASHES: [&str; KINDS] = ["", "7 4", "2 3", "10 3 2 3", "4 2"];

/// A line.
#[derive(Clone, Debug)]
pub(super) struct Line {
    /// What it shows.
    pub(super) name: String,
    /// Its points, from left to right.
    pub(super) points: Vec<(f64, f64)>,
}

/// A plot.
#[derive(Clone, Debug)]
pub(super) struct Plot {
    /// What it shows, in a few words.
    pub(super) title: String,
    /// Names of the axes.
    pub(super) axes: (String, String),
    /// What it shows.
    pub(super) lines: Vec<Line>,
    /// Where the bound lies.
    pub(super) bound: Option<f64>,
    /// Powers of ten upwards.
    pub(super) logarithmic: bool,
    /// Words for places on the axis to the right, instead of numbers.
    pub(super) places: Vec<(f64, &'static str)>,
}

/// From numbers to places.
struct Scale {
    x: (f64, f64),
    y: (f64, f64),
    logarithmic: bool,
}

impl Scale {
    fn x(&self, x: f64) -> f64 {
        let (left, right, ..) = AROUND;
        left + part(x, self.x) * (WIDTH - left - right)
    }

    fn y(&self, y: f64) -> f64 {
        let (_, _, above, below) = AROUND;
        let part = if self.logarithmic {
            part(y.max(self.y.0).log10(), (self.y.0.log10(), self.y.1.log10()))
        } else {
            part(y, self.y)
        };
        HEIGHT - below - part * (HEIGHT - above - below)
    }
}

fn part(value: f64, (low, high): (f64, f64)) -> f64 {
    if high > low { ((value - low) / (high - low)).clamp(0.0, 1.0) } else { 0.5 }
}

impl Plot {
    /// Whether there is anything to show.
    pub(super) fn is_empty(&self) -> bool {
        self.lines.iter().all(|line| line.points.is_empty())
    }

    /// The drawing. `id` is unique on the page.
    pub(super) fn svg(&self, id: &str) -> String {
        let scale = self.scale();
        let mut out = format!(
            "<svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-labelledby=\"{id}-t {id}-d\">\n\
             <title id=\"{id}-t\">{}</title><desc id=\"{id}-d\">{}</desc>\n",
            escape(&self.title),
            escape(&self.words()),
        );
        self.frame(&scale, &mut out);
        if let Some(bound) = self.bound {
            let (x1, x2, y) = (scale.x(scale.x.0), scale.x(scale.x.1), scale.y(bound));
            let _ = writeln!(
                out,
                "<line class=\"bound\" x1=\"{x1:.1}\" x2=\"{x2:.1}\" y1=\"{y:.1}\" y2=\"{y:.1}\"/>\
                 <text class=\"bound\" x=\"{x2:.1}\" y=\"{:.1}\" text-anchor=\"end\">bound</text>",
                y - 4.0
            );
        }
        for (kind, line) in self.lines.iter().enumerate() {
            draw(line, kind % KINDS, &scale, &mut out);
        }
        out.push_str("</svg>\n");
        out
    }

    /// What the drawing says, for those who do not see it.
    fn words(&self) -> String {
        let mut words = format!("{} over {}.", self.axes.1, self.axes.0);
        for line in &self.lines {
            if let (Some(first), Some(last)) = (line.points.first(), line.points.last()) {
                let _ = write!(
                    words,
                    " {}: {} at {}, {} at {}.",
                    line.name,
                    number(first.1),
                    number(first.0),
                    number(last.1),
                    number(last.0)
                );
            }
        }
        words
    }

    fn scale(&self) -> Scale {
        let points = || self.lines.iter().flat_map(|line| &line.points);
        let ys = || points().map(|(_, y)| *y).chain(self.bound);
        let least = |values: &mut dyn Iterator<Item = f64>| values.fold(f64::INFINITY, f64::min);
        let most = |values: &mut dyn Iterator<Item = f64>| values.fold(f64::NEG_INFINITY, f64::max);
        let (left, right) = (
            least(&mut points().map(|(x, _)| *x)).min(0.0),
            most(&mut points().map(|(x, _)| *x)).max(1.0),
        );
        let y = if self.logarithmic {
            let low = least(&mut ys().filter(|y| *y > 0.0)).clamp(1e-3, 1e6);
            let high = most(&mut ys()).clamp(low, 1e9);
            let (low, high) = (low.log10().floor(), high.log10().ceil());
            (10_f64.powf(low), 10_f64.powf(high.max(low + 1.0)))
        } else {
            let high = most(&mut ys()).max(0.0) * 1.05;
            (0.0, if high > 0.0 { high } else { 1.0 })
        };
        Scale { x: (left, right), y, logarithmic: self.logarithmic }
    }

    /// Axes, their marks and names.
    fn frame(&self, scale: &Scale, out: &mut String) {
        let (left, right, above, below) = AROUND;
        for y in marks(scale.y, self.logarithmic) {
            let at = scale.y(y);
            let _ = writeln!(
                out,
                "<line class=\"grid\" x1=\"{left}\" x2=\"{:.1}\" y1=\"{at:.1}\" y2=\"{at:.1}\"/>\
                 <text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
                WIDTH - right,
                left - 6.0,
                at + 4.0,
                number(y)
            );
        }
        let numbers = || marks(scale.x, false).into_iter().map(|x| (x, number(x)));
        let named: Vec<(f64, String)> = if self.places.is_empty() {
            numbers().collect()
        } else {
            self.places.iter().map(|(x, name)| (*x, (*name).to_owned())).collect()
        };
        for (x, name) in named.iter().filter(|(x, _)| *x >= scale.x.0 && *x <= scale.x.1) {
            let _ = writeln!(
                out,
                "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{}</text>",
                scale.x(*x),
                HEIGHT - below + 18.0,
                escape(name)
            );
        }
        let _ = writeln!(
            out,
            "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{}</text>\
             <text transform=\"translate(14 {:.1}) rotate(-90)\" text-anchor=\"middle\">{}</text>",
            (WIDTH + left - right) / 2.0,
            HEIGHT - 8.0,
            escape(&self.axes.0),
            (HEIGHT + above - below) / 2.0,
            escape(&self.axes.1)
        );
    }
}

/// One line with a mark at each point.
fn draw(line: &Line, kind: usize, scale: &Scale, out: &mut String) {
    let places: Vec<(f64, f64)> =
        line.points.iter().map(|(x, y)| (scale.x(*x), scale.y(*y))).collect();
    let path: Vec<String> = places.iter().map(|(x, y)| format!("{x:.1},{y:.1}")).collect();
    let dash = DASHES.get(kind).copied().unwrap_or_default();
    let _ = writeln!(
        out,
        "<polyline class=\"k{kind}\" stroke-dasharray=\"{dash}\" points=\"{}\"/>",
        path.join(" ")
    );
    // A curve of many points is its own mark.
    if places.len() > MOST_MARKS {
        return;
    }
    for ((x, y), (level, value)) in places.iter().zip(&line.points) {
        let _ = writeln!(
            out,
            "<g class=\"m{kind}\">{}<title>{}: {} at {}</title></g>",
            mark(kind, *x, *y),
            escape(&line.name),
            number(*value),
            number(*level)
        );
    }
}

fn mark(kind: usize, x: f64, y: f64) -> String {
    let path = match kind {
        0 => return format!("<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"3.5\"/>"),
        1 => "m-3.5 -3.5h7v7h-7z",
        2 => "m0 -4.5l4 7.5h-8z",
        3 => "m0 -4.5l4 4.5l-4 4.5l-4 -4.5z",
        _ => "m-4 -3h8l-4 7.5z",
    };
    format!("<path d=\"M{x:.1} {y:.1}{path}\"/>")
}

/// A sample of a line, for the legend.
pub(super) fn sample(kind: usize) -> String {
    let kind = kind % KINDS;
    let dash = DASHES.get(kind).copied().unwrap_or_default();
    format!(
        "<svg class=\"sample\" viewBox=\"0 0 36 12\" aria-hidden=\"true\"><polyline class=\"k{kind}\" \
         stroke-dasharray=\"{dash}\" points=\"1,6 35,6\"/><g class=\"m{kind}\">{}</g></svg>",
        mark(kind, 18.0, 6.0)
    )
}

/// Round numbers along an axis.
fn marks((low, high): (f64, f64), logarithmic: bool) -> Vec<f64> {
    if logarithmic {
        let (low, high) = (low.log10().round() as i32, high.log10().round() as i32);
        return (low..=high).map(|power| 10_f64.powi(power)).collect();
    }
    let rough = (high - low).max(f64::MIN_POSITIVE) / TICKS;
    let power = 10_f64.powf(rough.log10().floor());
    let step = [1.0, 2.0, 5.0, 10.0].into_iter().find(|step| step * power >= rough);
    let step = step.unwrap_or(10.0) * power;
    let first = (low / step).ceil() as i64;
    (first..first + 20).map(|at| at as f64 * step).take_while(|at| *at <= high).collect()
}

/// A number, as short as it may be.
pub(super) fn number(value: f64) -> String {
    let digits = match value.abs() {
        size if size >= 100.0 => 0,
        size if size >= 10.0 => 1,
        size if size >= 1.0 => 2,
        _ => 4,
    };
    let text = format!("{value:.digits$}");
    if text.contains('.') {
        text.trim_end_matches('0').trim_end_matches('.').to_owned()
    } else {
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plot(points: Vec<(f64, f64)>, logarithmic: bool) -> Plot {
        Plot {
            title: "Delay <99>".to_owned(),
            axes: ("rooms".to_owned(), "ms".to_owned()),
            lines: vec![Line { name: "A & B".to_owned(), points }],
            bound: Some(50.0),
            logarithmic,
            places: Vec::new(),
        }
    }

    #[test]
    fn every_point_lies_inside_the_frame() {
        let wild = vec![(1.0, 0.0), (10.0, 1e-9), (1e6, 1e12), (2e6, 50.0)];
        for logarithmic in [false, true] {
            let plot = plot(wild.clone(), logarithmic);
            let scale = plot.scale();
            for (x, y) in &wild {
                assert!((0.0..=WIDTH).contains(&scale.x(*x)), "{x}");
                assert!((0.0..=HEIGHT).contains(&scale.y(*y)), "{y} {logarithmic}");
            }
            assert!(scale.y(50.0) <= scale.y(0.1), "more is higher");
        }
    }

    #[test]
    fn a_plot_speaks_to_those_who_do_not_see_it() {
        let svg = plot(vec![(10.0, 0.5), (20.0, 80.0)], true).svg("p1");
        assert!(svg.contains("role=\"img\" aria-labelledby=\"p1-t p1-d\""));
        assert!(svg.contains("<title id=\"p1-t\">Delay &lt;99&gt;</title>"));
        assert!(svg.contains("A &amp; B: 0.5 at 10, 80 at 20."));
        assert!(!svg.contains("NaN") && !svg.contains("inf"));
    }

    #[test]
    fn nothing_to_show_is_no_harm() {
        let empty = plot(Vec::new(), true);
        assert!(empty.is_empty());
        let svg = empty.svg("p") + &plot(vec![(0.0, 0.0)], false).svg("q");
        assert!(!svg.contains("NaN") && !svg.contains("inf"), "{svg}");
    }

    #[test]
    fn marks_are_round_and_few() {
        assert_eq!(marks((0.0, 50.0), false), [0.0, 10.0, 20.0, 30.0, 40.0, 50.0]);
        assert_eq!(marks((0.01, 10.0), true), [0.01, 0.1, 1.0, 10.0]);
        for high in [0.003, 1.0, 7.0, 99.0, 12_345.0] {
            assert!((3..=7).contains(&marks((0.0, high), false).len()), "{high}");
        }
        let numbers =
            [(0.0, "0"), (12.0, "12"), (12_345.6, "12346"), (1.5, "1.5"), (0.001, "0.001")];
        for (value, text) in numbers {
            assert_eq!(number(value), text);
        }
    }
}
