//! The picture: stacked areas, drawn as SVG. Pure.

use std::fmt::Write;

use chrono::{DateTime, Utc};

use super::{Sample, axis};
use crate::report::grouped;

/// What is stacked, from the bottom up, and its colour: what was granted, what is open, and what came to
/// nothing. Hues are those of Okabe and Ito; neighbours also differ in lightness, for all who cannot tell
/// hues apart.
const BANDS: [(&str, &str); 11] = [
    ("activated", "#00573f"),
    ("approved", "#009e73"),
    ("registered", "#7fd1b6"),
    ("finalized", "#0b4a80"),
    ("accepted", "#2a7ab9"),
    ("preaccepted", "#67aede"),
    ("partlysubmitted", "#a9d3f1"),
    ("submitted", "#e2f1fc"),
    ("unknown", "#e6c619"),
    ("cancelled", "#a6a6a6"),
    ("declined", "#d55e00"),
];

const WIDTH: f64 = 960.0;
const HEIGHT: f64 = 540.0;
/// The edges of the plot.
const LEFT: f64 = 72.0;
const RIGHT: f64 = 748.0;
const TOP: f64 = 84.0;
const BOTTOM: f64 = 496.0;
/// Between two lines of the legend, at least.
const LINE: f64 = 20.0;

/// Draws how many applications stood in each status at each of the moments.
pub(crate) fn draw(samples: &[Sample]) -> String {
    let [first, .., last] = samples else {
        // One moment is as good as two of the same.
        return samples.first().map(|one| draw(&[one.clone(), one.clone()])).unwrap_or_default();
    };
    let most = samples.iter().map(Sample::total).max().unwrap_or(0);
    let ticks = axis::numbers(most);
    let scale = Scale { first: first.at, last: last.at, top: ticks.last().copied().unwrap_or(1) };
    let shown: Vec<_> = BANDS
        .into_iter()
        .filter(|(status, _)| samples.iter().any(|sample| sample.of(status) > 0))
        .collect();

    let mut svg = String::new();
    // Writing to a string cannot fail.
    let _ = head(&mut svg, first, last, samples.len(), &shown)
        .and_then(|()| axes(&mut svg, &scale, &ticks))
        .and_then(|()| areas(&mut svg, &scale, samples, &shown))
        .and_then(|()| legend(&mut svg, &scale, last, &shown));
    svg.push_str("</svg>\n");
    svg
}

type Band = (&'static str, &'static str);

/// From what is counted to where it is drawn.
struct Scale {
    first: DateTime<Utc>,
    last: DateTime<Utc>,
    top: u64,
}

impl Scale {
    fn x(&self, at: DateTime<Utc>) -> f64 {
        let span = (self.last - self.first).num_milliseconds().max(1) as f64;
        LEFT + (at - self.first).num_milliseconds() as f64 / span * (RIGHT - LEFT)
    }

    fn y(&self, count: u64) -> f64 {
        BOTTOM - count as f64 / self.top as f64 * (BOTTOM - TOP)
    }
}

fn head(
    svg: &mut String,
    first: &Sample,
    last: &Sample,
    moments: usize,
    shown: &[Band],
) -> std::fmt::Result {
    let (from, to) = (first.at.format("%-d %B %Y"), last.at.format("%-d %B %Y"));
    let total = grouped(last.total());
    let end: Vec<_> = shown
        .iter()
        .map(|(status, _)| format!("{} {}", grouped(last.of(status)), escaped(status)))
        .collect();
    writeln!(
        svg,
        r##"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-labelledby="title desc" font-family="system-ui, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, 'DejaVu Sans', sans-serif" font-size="13" fill="#33383d">
<title id="title">Loan applications by status, {from} to {to}</title>
<desc id="desc">Stacked areas over time. At the end, of {total} applications: {}.</desc>
<rect width="{WIDTH}" height="{HEIGHT}" fill="#ffffff"/>
<text x="{LEFT}" y="36" font-size="21" font-weight="600" fill="#15181b">Loan applications by status</text>
<text x="{LEFT}" y="60" fill="#5c646c">{total} applications, {from} to {to} (UTC): the read model, as of {moments} moments</text>"##,
        end.join(", ")
    )
}

fn axes(svg: &mut String, scale: &Scale, ticks: &[u64]) -> std::fmt::Result {
    writeln!(svg, r#"<g class="counts" text-anchor="end">"#)?;
    for tick in ticks {
        let y = scale.y(*tick);
        let colour = if *tick == 0 { "#5c646c" } else { "#e4e7ea" };
        writeln!(
            svg,
            r#"<line x1="{LEFT}" x2="{RIGHT}" y1="{y:.1}" y2="{y:.1}" stroke="{colour}"/><text x="{:.1}" y="{:.1}">{}</text>"#,
            LEFT - 10.0,
            y + 4.5,
            grouped(tick)
        )?;
    }
    writeln!(svg, "</g>\n<g class=\"times\" text-anchor=\"middle\">")?;
    for (time, label) in axis::times(scale.first, scale.last) {
        let x = scale.x(time);
        writeln!(
            svg,
            r##"<line x1="{x:.1}" x2="{x:.1}" y1="{BOTTOM}" y2="{:.1}" stroke="#5c646c"/><text x="{x:.1}" y="{:.1}">{}</text>"##,
            BOTTOM + 6.0,
            BOTTOM + 23.0,
            escaped(&label)
        )?;
    }
    writeln!(svg, "</g>")
}

/// Each band from the top of the one below to its own top, from left to right and back.
fn areas(svg: &mut String, scale: &Scale, samples: &[Sample], shown: &[Band]) -> std::fmt::Result {
    writeln!(
        svg,
        r##"<g class="areas" stroke="#ffffff" stroke-width="0.75" stroke-linejoin="round">"##
    )?;
    let mut below = vec![0; samples.len()];
    for (status, colour) in shown {
        let above: Vec<_> =
            samples.iter().zip(&below).map(|(sample, below)| below + sample.of(status)).collect();
        let edge = |counts: &[u64]| -> Vec<String> {
            let points = samples.iter().zip(counts);
            points
                .map(|(sample, count)| format!("{:.1} {:.1}", scale.x(sample.at), scale.y(*count)))
                .collect()
        };
        let (mut points, mut back) = (edge(&above), edge(&below));
        back.reverse();
        points.append(&mut back);
        let name = escaped(status);
        writeln!(
            svg,
            r#"<path fill="{colour}" d="M{}Z"><title>{name}</title></path>"#,
            points.join("L")
        )?;
        below = above;
    }
    writeln!(svg, "</g>")
}

/// The names of the bands beside their right ends, in their order, with what they have come to.
fn legend(svg: &mut String, scale: &Scale, last: &Sample, shown: &[Band]) -> std::fmt::Result {
    let mut below = 0;
    let mut middles = Vec::with_capacity(shown.len());
    for (status, _) in shown {
        let above = below + last.of(status);
        middles.push((scale.y(below) + scale.y(above)) / 2.0);
        below = above;
    }
    writeln!(svg, r#"<g class="legend">"#)?;
    for (((status, colour), middle), y) in shown.iter().zip(&middles).zip(spread(&middles)) {
        let (count, text, name) = (last.of(status), y + 4.5, escaped(status));
        if count > 0 {
            writeln!(
                svg,
                r##"<path d="M{:.1} {middle:.1}L{:.1} {y:.1}" stroke="#b6bcc2" fill="none"/>"##,
                RIGHT + 3.0,
                RIGHT + 20.0
            )?;
        }
        writeln!(
            svg,
            r##"<rect x="{:.1}" y="{:.1}" width="12" height="12" rx="2" fill="{colour}" stroke="#8a9199" stroke-width="0.5"/><text x="{:.1}" y="{text:.1}">{name}</text><text x="{:.1}" y="{text:.1}" text-anchor="end">{}</text>"##,
            RIGHT + 23.0,
            y - 6.0,
            RIGHT + 42.0,
            WIDTH - 22.0,
            grouped(count)
        )?;
    }
    writeln!(svg, "</g>")
}

/// Where lines of text stand that want to be at these heights, from the bottom up, and need room.
fn spread(wanted: &[f64]) -> Vec<f64> {
    let mut placed: Vec<f64> = Vec::with_capacity(wanted.len());
    for y in wanted {
        let room = placed.last().map_or(BOTTOM, |below| below - LINE);
        placed.push(y.min(room));
    }
    // What that pushed out at the top comes back down.
    let mut room = TOP;
    for y in placed.iter_mut().rev() {
        *y = y.max(room);
        room = *y + LINE;
    }
    placed
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests;
