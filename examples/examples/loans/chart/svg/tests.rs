use super::*;

fn sample(day: u32, counts: &[(&str, u64)]) -> Sample {
    let at = format!("2011-10-{day:02}T08:00:00Z").parse().unwrap();
    let by_status = counts.iter().map(|(status, count)| ((*status).to_owned(), *count));
    Sample { at, by_status: by_status.collect() }
}

fn samples() -> [Sample; 4] {
    [
        sample(1, &[("submitted", 2), ("unknown", 1)]),
        sample(2, &[("submitted", 1), ("accepted", 3), ("declined", 1)]),
        sample(3, &[("accepted", 2), ("declined", 4)]),
        sample(6, &[("accepted", 1), ("activated", 1_200), ("declined", 5)]),
    ]
}

/// The elements with their attributes and the text that follows each, after seeing to it that they nest.
fn elements(svg: &str) -> Vec<(String, String)> {
    let mut open = Vec::new();
    let mut elements = Vec::new();
    let mut rest = svg;
    while let Some((text, tag)) = rest.split_once('<') {
        assert!(!text.contains('>'), "{text}");
        let entities = ["&amp;", "&lt;", "&gt;", "&quot;"];
        let bare = entities.iter().fold(text.to_owned(), |text, entity| text.replace(entity, ""));
        assert!(!bare.contains('&'), "{text}");
        let (tag, after) = tag.split_once('>').unwrap();
        let name = tag.trim_start_matches('/').split([' ', '/']).next().unwrap().to_owned();
        if tag.starts_with('/') {
            assert_eq!(open.pop(), Some(name), "in {tag}");
        } else {
            assert_eq!(tag.matches('"').count() % 2, 0, "{tag}");
            let content = after.split('<').next().unwrap_or_default();
            elements.push((tag.to_owned(), content.to_owned()));
            if !tag.ends_with('/') {
                open.push(name);
            }
        }
        rest = after;
    }
    assert!(open.is_empty() && rest.trim().is_empty(), "{open:?} {rest}");
    elements
}

fn texts(svg: &str) -> Vec<String> {
    elements(svg).into_iter().filter(|(tag, _)| tag.starts_with("text ")).map(|(_, t)| t).collect()
}

/// For each band its name, and its edges: above from left to right, below from right to left.
fn bands(svg: &str) -> Vec<(String, Vec<(f64, f64)>)> {
    let elements = elements(svg);
    let bands = elements.windows(2).filter(|pair| pair[0].0.starts_with("path fill"));
    bands
        .map(|pair| {
            let (_, path) = pair[0].0.split_once(" d=\"M").unwrap();
            let points = path.trim_end_matches("Z\"").split('L').map(|point| {
                let (x, y) = point.split_once(' ').unwrap();
                (x.parse().unwrap(), y.parse().unwrap())
            });
            (pair[1].1.clone(), points.collect())
        })
        .collect()
}

#[test]
fn the_bands_lie_on_each_other_and_add_up_to_the_total() {
    let samples = samples();
    let bands = bands(&draw(&samples));
    let names: Vec<_> = bands.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["activated", "accepted", "submitted", "unknown", "declined"]);
    let top = *axis::numbers(1_206).last().unwrap();
    let scale = Scale { first: samples[0].at, last: samples[3].at, top };
    // To what is written of a number.
    let near = |left: f64, right: f64| (left - right).abs() < 0.051;
    let mut below = [BOTTOM; 4];
    for (status, points) in &bands {
        let (above, back) = points.split_at(4);
        for (index, sample) in samples.iter().enumerate() {
            let ((x, upper), (same_x, lower)) = (above[index], back[3 - index]);
            assert!(near(x, scale.x(sample.at)) && x == same_x, "{status} {x}");
            assert!(near(lower, below[index]), "{status} lies on what is below");
            let height = sample.of(status) as f64 / top as f64 * (BOTTOM - TOP);
            assert!((lower - upper - height).abs() < 0.11, "{status} {lower} {upper}");
            below[index] = upper;
        }
    }
    for (y, sample) in below.iter().zip(&samples) {
        assert!(near(*y, scale.y(sample.total())), "the top is the total");
    }
}

#[test]
fn every_status_of_the_model_has_a_band() {
    let model = crate::model::Status::ALL.map(|status| status.name());
    for status in model.into_iter().chain(["unknown"]) {
        assert!(BANDS.iter().any(|(name, _)| *name == status), "{status}");
    }
    assert_eq!(BANDS.len(), model.len() + 1);
}

#[test]
fn it_is_labelled() {
    let svg = draw(&samples());
    let texts = texts(&svg);
    for label in ["Loan applications by status", "0", "1,400", "2 Oct", "declined", "5", "1,200"] {
        assert!(texts.iter().any(|text| text == label), "{label}: {texts:?}");
    }
    // What is not there any more keeps its name, what never was has none.
    assert!(texts.contains(&"submitted".to_owned()) && !texts.contains(&"cancelled".to_owned()));
    let elements = elements(&svg);
    assert!(elements[0].0.contains("role=\"img\" aria-labelledby=\"title desc\""));
    assert_eq!(elements[1].1, "Loan applications by status, 1 October 2011 to 6 October 2011");
    let end = "At the end, of 1,206 applications: 1,200 activated, 1 accepted, 0 submitted, 0 unknown, \
               5 declined.";
    assert!(elements[2].1.ends_with(end), "{}", elements[2].1);
}

#[test]
fn one_moment_and_none_are_no_harm() {
    let one = draw(&[sample(1, &[("submitted", 1)])]);
    assert_eq!(bands(&one).len(), 1);
    assert!(!one.contains("NaN") && !one.contains("inf"));
    assert!(texts(&draw(&[sample(1, &[]), sample(2, &[])])).len() > 2);
    assert_eq!(draw(&[]), "");
}

#[test]
fn lines_of_the_legend_have_room_and_stay_within_the_plot() {
    assert_eq!(spread(&[400.0, 300.0]), [400.0, 300.0]);
    for wanted in [[BOTTOM; 11], [TOP; 11], [300.0; 11]] {
        let placed = spread(&wanted);
        assert!(placed.windows(2).all(|pair| pair[0] - pair[1] >= LINE), "{placed:?}");
        assert!(placed.iter().all(|y| (TOP..=BOTTOM).contains(y)), "{placed:?}");
    }
}

/// How light a colour is, to anybody's eyes, as WCAG has it.
fn luminance(colour: &str) -> f64 {
    let part = |at: usize| {
        let value = f64::from(u8::from_str_radix(&colour[at..at + 2], 16).unwrap()) / 255.0;
        if value <= 0.04045 { value / 12.92 } else { ((value + 0.055) / 1.055).powf(2.4) }
    };
    0.2126 * part(1) + 0.7152 * part(3) + 0.0722 * part(5)
}

#[test]
fn neighbours_differ_in_lightness() {
    for left in 0..BANDS.len() {
        let ((name, one), (other_name, other)) = (BANDS[left], BANDS[(left + 1) % BANDS.len()]);
        let (dark, light) =
            (luminance(one).min(luminance(other)), luminance(one).max(luminance(other)));
        let contrast = (light + 0.05) / (dark + 0.05);
        assert!(contrast > 1.3, "{name} and {other_name}: {contrast:.2}");
    }
}
