//! The pictures of the docs are drawn from the text beside them: `docs/pictures/NAME.txt` makes `NAME.svg`.
//!
//! ```text
//! sequence: Title                           boxes: Title
//! lanes: Client | Coordinator               box a 0 1: Name | second line
//! Client > Coordinator: a message           arrow a > b: label    (<> for both ways)
//! == a heading over the whole width         group a b: what they have in common
//! note Coordinator: what happens there
//! ```
//!
//! `UPDATE=1` draws them anew. A box stands in a column and a row, counted from 0.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::PathBuf;

use crate::tidy::root;

const STYLE: &str = "\
text{font:13px system-ui,sans-serif;fill:#1f2328}.b{font-weight:600}.in{font-size:12px}.s{font-size:12px;fill:#57606a;paint-order:stroke;stroke:#fff;stroke-width:5px}\
.page{fill:#fff}.box{fill:#eef4fb;stroke:#0b62a8;stroke-width:1.2}.group{fill:none;stroke:#8c959f;stroke-dasharray:5 4}\
.lane{stroke:#c4cad1}.line{stroke:#0b62a8;stroke-width:1.4;fill:none}.tip{fill:#0b62a8}\
.note{fill:#fff4d6;stroke:#9a6700}.head{fill:#f0f2f4}\
@media(prefers-color-scheme:dark){text{fill:#e6edf3}.s{fill:#9aa4af;stroke:#161b22}.page{fill:#161b22}.box{fill:#10263d;stroke:#58a6ff}\
.group{stroke:#6e7681}.lane{stroke:#3d444d}.line{stroke:#58a6ff}.tip{fill:#58a6ff}\
.note{fill:#332a12;stroke:#e3b341}.head{fill:#21262d}}";

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

fn text(x: i32, y: i32, anchor: &str, class: &str, words: &str) -> String {
    let words = escaped(words);
    format!("<text x=\"{x}\" y=\"{y}\" text-anchor=\"{anchor}\" class=\"{class}\">{words}</text>\n")
}

fn rect(x: i32, y: i32, width: i32, height: i32, class: &str) -> String {
    format!(
        "<rect x=\"{x}\" y=\"{y}\" width=\"{width}\" height=\"{height}\" rx=\"6\" class=\"{class}\"/>\n"
    )
}

/// A line with a tip at its end, and at its start too if it goes both ways.
fn arrow(from: (i32, i32), to: (i32, i32), both: bool) -> String {
    let ((x1, y1), (x2, y2)) = (from, to);
    let start = if both { " marker-start=\"url(#tip)\"" } else { "" };
    format!(
        "<line x1=\"{x1}\" y1=\"{y1}\" x2=\"{x2}\" y2=\"{y2}\" class=\"line\" marker-end=\"url(#tip)\"{start}/>\n"
    )
}

/// The whole file: the title is what a screen reader says.
fn svg(title: &str, width: i32, height: i32, body: &str) -> String {
    let title = escaped(title);
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" width=\"{width}\" role=\"img\">\n\
         <title>{title}</title>\n<style>{STYLE}</style>\n\
         <defs><marker id=\"tip\" viewBox=\"0 0 8 8\" refX=\"7.5\" refY=\"4\" markerWidth=\"8\" markerHeight=\"8\" \
         orient=\"auto-start-reverse\"><path d=\"M0 0 8 4 0 8z\" class=\"tip\"/></marker></defs>\n\
         <rect width=\"{width}\" height=\"{height}\" rx=\"10\" class=\"page\"/>\n{body}</svg>\n"
    )
}

/// Splits `a SEPARATOR b`, and says which line lacks it.
fn split<'a>(line: &'a str, separator: &str) -> (&'a str, &'a str) {
    let halves = line.split_once(separator);
    let (a, b) = halves.unwrap_or_else(|| panic!("{line:?} has no {separator:?}"));
    (a.trim(), b.trim())
}

fn pixels(count: usize) -> i32 {
    i32::try_from(count).unwrap()
}

/// Lanes from left to right, messages from top to bottom.
fn sequence(title: &str, lines: &[&str]) -> String {
    const LANE: i32 = 164;
    const STEP: i32 = 34;
    let (_, names) = split(lines.first().unwrap(), ":");
    let lanes: Vec<&str> = names.split('|').map(str::trim).collect();
    let width = LANE * pixels(lanes.len()) + 20;
    let x_of = |name: &str| {
        let lane = lanes.iter().position(|lane| *lane == name);
        10 + LANE / 2 + LANE * pixels(lane.unwrap_or_else(|| panic!("no lane {name:?}")))
    };
    let mut y = 68;
    let mut body = String::new();
    for line in lines.iter().skip(1) {
        if let Some(heading) = line.strip_prefix("==") {
            body += &rect(10, y - 8, width - 20, 22, "head");
            body += &text(20, y + 7, "start", "b", heading.trim());
        } else if let Some(note) = line.strip_prefix("note ") {
            let (lane, words) = split(note, ":");
            let wide = 7 * pixels(words.chars().count()) + 16;
            // A note at the edge is moved inwards.
            let x = x_of(lane).clamp(wide / 2 + 8, width - wide / 2 - 8);
            body += &rect(x - wide / 2, y - 11, wide, 24, "note");
            body += &text(x, y + 5, "middle", "", words);
        } else {
            let (ends, words) = split(line, ":");
            let (from, to) = split(ends, ">");
            let (x1, x2) = (x_of(from), x_of(to));
            body += &text(i32::midpoint(x1, x2), y - 5, "middle", "s", words);
            body += &arrow((x1, y + 2), (x2, y + 2), false);
        }
        y += STEP;
    }
    let mut lane_lines = String::new();
    for lane in &lanes {
        let x = x_of(lane);
        let _ = writeln!(lane_lines, "<path d=\"M{x} 44V{y}\" class=\"lane\"/>");
        lane_lines += &rect(x - LANE / 2 + 10, 14, LANE - 20, 30, "box");
        lane_lines += &text(x, 34, "middle", "b", lane);
    }
    svg(title, width, y + 6, &(lane_lines + &body))
}

const WIDE: i32 = 176;
const HIGH: i32 = 58;
const GAP: (i32, i32) = (108, 56);

/// The corner of a box.
fn corner((column, row): (i32, i32)) -> (i32, i32) {
    (34 + column * (WIDE + GAP.0), 44 + row * (HIGH + GAP.1))
}

/// A line between the sides that face each other, and its label above the middle.
fn edge(a: (i32, i32), b: (i32, i32), both: bool, label: &str) -> String {
    let ((ax, ay), (bx, by)) = (corner(a), corner(b));
    let (from, to) = if a.0 == b.0 {
        let x = ax + WIDE / 2;
        if a.1 < b.1 { ((x, ay + HIGH), (x, by)) } else { ((x, ay), (x, by + HIGH)) }
    } else {
        let (ay, by) = (ay + HIGH / 2, by + HIGH / 2);
        if a.0 < b.0 { ((ax + WIDE, ay), (bx, by)) } else { ((ax, ay), (bx + WIDE, by)) }
    };
    let (x, y) = (i32::midpoint(from.0, to.0), i32::midpoint(from.1, to.1));
    let words = if a.0 == b.0 {
        text(x - 8, y + 4, "end", "s", label)
    } else {
        let above = if a.1 == b.1 { -7 } else { 4 };
        text(x, y + above, "middle", "s", label)
    };
    arrow(from, to, both) + &words
}

/// Boxes on a grid, with arrows between them.
fn boxes(title: &str, lines: &[&str]) -> String {
    let mut places: BTreeMap<&str, (i32, i32)> = BTreeMap::new();
    let (mut groups, mut drawn) = (String::new(), String::new());
    for line in lines {
        let (head, words) = split(line, ":");
        let head: Vec<&str> = head.split_whitespace().collect();
        match *head {
            ["box", name, column, row] => {
                let place = (column.parse().unwrap(), row.parse().unwrap());
                places.insert(name, place);
                let (x, y) = corner(place);
                drawn += &rect(x, y, WIDE, HIGH, "box");
                for (index, words) in words.split('|').enumerate() {
                    let class = if index == 0 { "b" } else { "in" };
                    let y = y + 24 + 18 * pixels(index);
                    drawn += &text(x + WIDE / 2, y, "middle", class, words.trim());
                }
            }
            ["arrow", a, way, b] => drawn += &edge(places[a], places[b], way == "<>", words),
            ["group", a, b] => {
                let ((x1, y1), (x2, y2)) = (corner(places[a]), corner(places[b]));
                groups +=
                    &rect(x1 - 14, y1 - 28, x2 - x1 + WIDE + 28, y2 - y1 + HIGH + 42, "group");
                groups += &text(x1, y1 - 10, "start", "s", words);
            }
            _ => panic!("{line:?} is no part of a picture"),
        }
    }
    let column = places.values().map(|place| place.0).max().unwrap();
    let row = places.values().map(|place| place.1).max().unwrap();
    let (x, y) = corner((column, row));
    svg(title, x + WIDE + 34, y + HIGH + 30, &(groups + &drawn))
}

fn picture(source: &str) -> String {
    let is_said = |line: &&str| !line.trim().is_empty() && !line.starts_with('#');
    let lines: Vec<&str> = source.lines().filter(is_said).collect();
    let (kind, title) = split(lines.first().unwrap(), ":");
    match kind {
        "sequence" => sequence(title, lines.get(1..).unwrap()),
        "boxes" => boxes(title, lines.get(1..).unwrap()),
        _ => panic!("{kind:?} is no kind of picture"),
    }
}

#[test]
fn the_committed_pictures_are_drawn_from_their_text() {
    let entries = std::fs::read_dir(root().join("docs/pictures")).unwrap();
    let sources: Vec<PathBuf> = entries
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "txt"))
        .collect();
    assert!(sources.len() >= 3, "the pictures have moved: {sources:?}");
    for source in sources {
        let now = picture(&std::fs::read_to_string(&source).unwrap());
        let path = source.with_extension("svg");
        if std::env::var_os("UPDATE").is_some() {
            std::fs::write(&path, &now).unwrap();
        }
        let committed = std::fs::read_to_string(&path).unwrap_or_default();
        assert!(committed == now, "{} is not what its text draws: make fix", path.display());
    }
}
