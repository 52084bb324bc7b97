//! Line charts as SVG: axes with labels, a legend, and colours for light and for dark pages.

use std::fmt::Write as _;

const WIDTH: f64 = 880.0;
const HEIGHT: f64 = 470.0;
const LEFT: f64 = 78.0;
const RIGHT: f64 = 236.0;
const TOP: f64 = 52.0;
const BOTTOM: f64 = 62.0;

/// Bytes of colour: for a light page, and for a dark one. They differ in lightness too, for those
/// who see fewer colours.
const COLOURS: [(&str, &str); 10] = [
    ("#0b62a8", "#58a6ff"),
    ("#d1650a", "#ffa657"),
    ("#1a7f4b", "#56d364"),
    ("#8250df", "#d2a8ff"),
    ("#57606a", "#c9d1d9"),
    ("#8c959f", "#8b949e"),
    ("#0e8a96", "#39c5cf"),
    ("#bf3989", "#ff9bce"),
    ("#9a6700", "#e3b341"),
    ("#cf222e", "#ff7b72"),
];

/// How numbers are laid out along an axis.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scale {
    Linear,
    Log,
}

/// An axis.
#[derive(Debug, Clone)]
pub(crate) struct Axis {
    pub(crate) label: String,
    pub(crate) scale: Scale,
    /// Where ticks are; chosen by the data if empty.
    pub(crate) ticks: Vec<f64>,
}

/// A line.
#[derive(Debug, Clone)]
pub(crate) struct Series {
    pub(crate) name: String,
    /// The place of its colour.
    pub(crate) colour: usize,
    pub(crate) stroke: Stroke,
    /// By x.
    pub(crate) points: Vec<(f64, f64)>,
    /// The least and the most at each point, if they are to be seen.
    pub(crate) ranges: Vec<(f64, f64)>,
}

/// How a line is drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stroke {
    Solid,
    Dashed,
    Dotted,
}

/// A chart.
#[derive(Debug, Clone)]
pub(crate) struct Chart {
    pub(crate) title: String,
    pub(crate) note: String,
    pub(crate) x: Axis,
    pub(crate) y: Axis,
    pub(crate) series: Vec<Series>,
}

/// Where numbers of an axis come to lie, from pixel to pixel.
#[derive(Debug, Clone, Copy)]
struct Span {
    scale: Scale,
    low: f64,
    high: f64,
    from: f64,
    to: f64,
}

impl Span {
    fn at(&self, value: f64) -> f64 {
        let place = |value: f64| match self.scale {
            Scale::Linear => value,
            Scale::Log => value.max(f64::MIN_POSITIVE).ln(),
        };
        let (low, high) = (place(self.low), place(self.high));
        self.from + (self.to - self.from) * (place(value) - low) / (high - low)
    }
}

impl Chart {
    /// The document.
    pub(crate) fn svg(&self) -> String {
        let xs: Vec<f64> = self.all(|(x, _)| x);
        let ys: Vec<f64> = self.all(|(_, y)| y);
        let (x_ticks, x) = span(&self.x, &xs, LEFT, WIDTH - RIGHT);
        let (y_ticks, y) = span(&self.y, &ys, HEIGHT - BOTTOM, TOP);
        let mut svg = head(&self.title);
        for tick in &x_ticks {
            let at = x.at(*tick);
            line(&mut svg, "grid", (at, TOP), (at, HEIGHT - BOTTOM));
            text(&mut svg, "tick", "middle", (at, HEIGHT - BOTTOM + 18.0), &number(*tick));
        }
        for tick in &y_ticks {
            let at = y.at(*tick);
            line(&mut svg, "grid", (LEFT, at), (WIDTH - RIGHT, at));
            text(&mut svg, "tick", "end", (LEFT - 8.0, at + 4.0), &number(*tick));
        }
        line(&mut svg, "axis", (LEFT, HEIGHT - BOTTOM), (WIDTH - RIGHT, HEIGHT - BOTTOM));
        line(&mut svg, "axis", (LEFT, TOP), (LEFT, HEIGHT - BOTTOM));
        text(&mut svg, "title", "start", (LEFT, 24.0), &self.title);
        text(&mut svg, "note", "start", (LEFT, 41.0), &self.note);
        let middle = f64::midpoint(LEFT, WIDTH - RIGHT);
        text(&mut svg, "label", "middle", (middle, HEIGHT - 18.0), &self.x.label);
        let middle = f64::midpoint(TOP, HEIGHT - BOTTOM);
        // Writing to a string cannot fail.
        let _written = writeln!(
            svg,
            r#"<text class="label" text-anchor="middle" transform="translate(20 {middle:.1}) rotate(-90)">{}</text>"#,
            escape(&self.y.label)
        );
        for series in &self.series {
            draw(&mut svg, series, x, y);
        }
        self.legend(&mut svg);
        svg.push_str("</svg>\n");
        svg
    }

    fn all(&self, pick: fn((f64, f64)) -> f64) -> Vec<f64> {
        self.series.iter().flat_map(|series| series.points.iter().copied().map(pick)).collect()
    }

    /// In the order in which the lines end, so that eyes find across.
    fn legend(&self, svg: &mut String) {
        let last = |series: &Series| series.points.last().map_or(0.0, |(_, y)| *y);
        let mut sorted: Vec<&Series> = self.series.iter().collect();
        sorted.sort_by(|one, other| last(other).total_cmp(&last(one)));
        let left = WIDTH - RIGHT + 20.0;
        for (place, series) in sorted.into_iter().enumerate() {
            let at = TOP + 8.0 + 22.0 * place as f64;
            let class = class(series);
            line(svg, &class, (left, at), (left + 28.0, at));
            circle(svg, series.colour, (left + 14.0, at));
            text(svg, "legend", "start", (left + 36.0, at + 4.0), &series.name);
        }
    }
}

fn class(series: &Series) -> String {
    let stroke = match series.stroke {
        Stroke::Solid => "",
        Stroke::Dashed => " dashed",
        Stroke::Dotted => " dotted",
    };
    format!("line s{}{stroke}", series.colour % COLOURS.len())
}

fn draw(svg: &mut String, series: &Series, x: Span, y: Span) {
    for ((at, _), (low, high)) in series.points.iter().zip(&series.ranges) {
        let at = x.at(*at);
        let class = format!("range s{}", series.colour % COLOURS.len());
        line(svg, &class, (at, y.at(low.max(y.low))), (at, y.at(*high)));
    }
    let points: Vec<String> = series
        .points
        .iter()
        .map(|(one, other)| format!("{:.1},{:.1}", x.at(*one), y.at(*other)))
        .collect();
    let _written =
        writeln!(svg, r#"<polyline class="{}" points="{}"/>"#, class(series), points.join(" "));
    for (one, other) in &series.points {
        circle(svg, series.colour, (x.at(*one), y.at(*other)));
    }
}

/// The ticks, and what lies between the first and the last of them.
fn span(axis: &Axis, values: &[f64], from: f64, to: f64) -> (Vec<f64>, Span) {
    let finite = values.iter().copied().filter(|value| value.is_finite() && *value > 0.0);
    let low = finite.clone().fold(f64::INFINITY, f64::min);
    let high = finite.fold(0.0, f64::max);
    let (low, high) = if high > 0.0 { (low, high) } else { (1.0, 10.0) };
    let mut ticks = match (axis.ticks.is_empty(), axis.scale) {
        (false, _) => axis.ticks.clone(),
        (true, Scale::Linear) => linear_ticks(high),
        (true, Scale::Log) => log_ticks(low, high),
    };
    ticks.sort_by(f64::total_cmp);
    let first = ticks.first().copied().unwrap_or(low);
    let last = ticks.last().copied().unwrap_or(high);
    (ticks, Span { scale: axis.scale, low: first, high: last, from, to })
}

/// From zero, in steps of 1, 2 or 5 of a power of ten.
fn linear_ticks(high: f64) -> Vec<f64> {
    let rough = high / 6.0;
    let power = 10_f64.powf(rough.log10().floor());
    let step =
        [1.0, 2.0, 5.0, 10.0].map(|step| step * power).into_iter().find(|step| *step >= rough);
    let step = step.unwrap_or(power);
    let count = (high / step).ceil() as u32;
    (0..=count).map(|n| f64::from(n) * step).collect()
}

/// 1, 2, 5 of each power of ten, from below the least to above the most.
fn log_ticks(low: f64, high: f64) -> Vec<f64> {
    let powers = low.log10().floor() as i32..=high.log10().ceil() as i32;
    let all: Vec<f64> =
        powers.flat_map(|power| [1.0, 2.0, 5.0].map(|digit| digit * 10_f64.powi(power))).collect();
    let first = all.iter().rposition(|tick| *tick <= low).unwrap_or(0);
    let last = all.iter().position(|tick| *tick >= high).unwrap_or(all.len() - 1);
    all[first..=last].to_vec()
}

/// `2k` for thousands, so that labels stay short.
fn number(value: f64) -> String {
    if value >= 10_000.0 { format!("{}k", value / 1_000.0) } else { format!("{value}") }
}

fn head(title: &str) -> String {
    let mut light = String::new();
    let mut dark = String::new();
    for (place, (on_light, on_dark)) in COLOURS.iter().enumerate() {
        let _written = write!(light, ".s{place}{{stroke:{on_light}}}.d{place}{{fill:{on_light}}}");
        let _written = write!(dark, ".s{place}{{stroke:{on_dark}}}.d{place}{{fill:{on_dark}}}");
    }
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" width=\"{WIDTH}\" \
         height=\"{HEIGHT}\" role=\"img\" aria-label=\"{title}\">\n<style>\n\
         text{{font-family:-apple-system,BlinkMacSystemFont,'Segoe UI',Helvetica,Arial,sans-serif;fill:#1f2328}}\n\
         .title{{font-size:16px;font-weight:600}}.note{{font-size:12px;fill:#59636e}}.label{{font-size:13px}}\n\
         .tick{{font-size:12px;fill:#59636e}}.legend{{font-size:13px}}.page{{fill:#ffffff}}\n\
         .grid{{stroke:#d1d9e0;stroke-width:1}}.axis{{stroke:#59636e;stroke-width:1}}\n\
         .line{{fill:none;stroke-width:2.2;stroke-linejoin:round}}.dashed{{stroke-dasharray:6 4}}.dotted{{stroke-dasharray:1.5 4;stroke-linecap:round}}\n\
         .range{{stroke-width:1.2;opacity:.55}}\n{light}\n@media (prefers-color-scheme: dark){{\n\
         text{{fill:#f0f6fc}}.note,.tick{{fill:#9198a1}}.page{{fill:#0d1117}}.grid{{stroke:#2a313c}}.axis{{stroke:#9198a1}}\n\
         {dark}\n}}\n</style>\n<rect class=\"page\" width=\"{WIDTH}\" height=\"{HEIGHT}\" rx=\"6\"/>\n",
        title = escape(title)
    )
}

fn line(svg: &mut String, class: &str, from: (f64, f64), to: (f64, f64)) {
    let ((x1, y1), (x2, y2)) = (from, to);
    let _written = writeln!(
        svg,
        r#"<line class="{class}" x1="{x1:.1}" y1="{y1:.1}" x2="{x2:.1}" y2="{y2:.1}"/>"#
    );
}

fn circle(svg: &mut String, colour: usize, (x, y): (f64, f64)) {
    let colour = colour % COLOURS.len();
    let _written = writeln!(svg, r#"<circle class="d{colour}" cx="{x:.1}" cy="{y:.1}" r="3.2"/>"#);
}

fn text(svg: &mut String, class: &str, anchor: &str, (x, y): (f64, f64), words: &str) {
    let _written = writeln!(
        svg,
        r#"<text class="{class}" text-anchor="{anchor}" x="{x:.1}" y="{y:.1}">{}</text>"#,
        escape(words)
    );
}

fn escape(words: &str) -> String {
    words.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chart() -> Chart {
        let axis = |label: &str, scale| Axis { label: label.to_owned(), scale, ticks: Vec::new() };
        let series = |name: &str, colour, stroke, factor: f64| Series {
            name: name.to_owned(),
            colour,
            stroke,
            points: [1.0, 10.0, 100.0].map(|x| (x, x * factor)).to_vec(),
            ranges: [1.0, 10.0, 100.0].map(|x| (x * factor * 0.9, x * factor * 1.1)).to_vec(),
        };
        Chart {
            title: "A < B & C".to_owned(),
            note: String::new(),
            x: axis("x", Scale::Log),
            y: axis("y", Scale::Linear),
            series: vec![
                series("low", 0, Stroke::Solid, 1.0),
                series("high", 1, Stroke::Dashed, 3.0),
            ],
        }
    }

    #[test]
    fn a_chart_is_well_formed_with_every_point_inside_and_the_highest_line_first_in_the_legend() {
        let svg = chart().svg();
        assert!(svg.contains("A &lt; B &amp; C"));
        assert_eq!(svg.matches("<polyline").count(), 2);
        let legend: Vec<_> = ["high", "low"].map(|name| svg.find(&format!(">{name}<"))).to_vec();
        assert!(legend[0].unwrap() < legend[1].unwrap());
        for circle in svg.lines().filter(|line| line.starts_with("<circle")) {
            let number = |name: &str| {
                let (_, rest) = circle.split_once(&format!("{name}=\"")).unwrap();
                rest.split_once('"').unwrap().0.parse::<f64>().unwrap()
            };
            assert!((LEFT..=WIDTH).contains(&number("cx")), "{circle}");
            assert!((0.0..=HEIGHT - BOTTOM).contains(&number("cy")), "{circle}");
        }
    }

    #[test]
    fn ticks_enclose_what_is_shown() {
        assert_eq!(log_ticks(3.0, 120.0), [2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0]);
        assert_eq!(log_ticks(1.0, 1.0), [1.0]);
        assert_eq!(
            linear_ticks(5_500.0),
            [0.0, 1_000.0, 2_000.0, 3_000.0, 4_000.0, 5_000.0, 6_000.0]
        );
        assert_eq!(number(25_000.0), "25k");
        assert_eq!(number(0.5), "0.5");
    }

    #[test]
    fn on_a_log_axis_equal_ratios_are_equal_lengths() {
        let span = Span { scale: Scale::Log, low: 1.0, high: 100.0, from: 0.0, to: 200.0 };
        assert!((span.at(10.0) - 100.0).abs() < 1e-9);
    }
}
