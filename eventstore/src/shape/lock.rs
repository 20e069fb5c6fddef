//! The text of a lock file: a block for each stored type and version, sorted.

use std::{collections::BTreeMap, fmt::Write as _};

use super::ShapeKey;

const FORMAT: &str = "format 1";
const INDENT: &str = "  ";
const HEADER: &str = "\
# The shapes of stored events, as Annals knows them. Commit this file. A test fails when a shape
# changes without a new schema version; ANNALS_UPDATE_LOCK=1 adds new types and versions.
";

/// The shapes of a lock file.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Lock(pub(super) BTreeMap<ShapeKey, String>);

impl Lock {
    /// The text of the file, with notes as comments.
    pub(super) fn to_text(&self, notes: &[String]) -> String {
        let mut text = HEADER.to_owned();
        for note in notes {
            text.push_str("# ");
            text.push_str(note);
            text.push('\n');
        }
        text.push_str(FORMAT);
        text.push('\n');
        for (key, shape) in &self.0 {
            // Writing to a string does not fail.
            let _ = writeln!(text, "\n[{key}]");
            for line in shape.lines() {
                text.push_str(INDENT);
                text.push_str(line);
                text.push('\n');
            }
        }
        text
    }

    /// Reads the text of a file.
    ///
    /// # Errors
    /// The number of the line that cannot be read, and why.
    pub(super) fn parse(text: &str) -> Result<Self, (usize, String)> {
        let mut shapes: BTreeMap<ShapeKey, String> = BTreeMap::new();
        let mut current: Option<ShapeKey> = None;
        let mut has_format = false;
        for (number, line) in std::iter::zip(1.., text.lines()) {
            let fail = |reason: &str| Err((number, reason.to_owned()));
            if line.trim().is_empty() || line.starts_with('#') {
                continue;
            }
            if !has_format {
                if line != FORMAT {
                    return fail(
                        "the file does not begin with `format 1`; it is no lock file, or was \
                         written by a newer version of Annals",
                    );
                }
                has_format = true;
            } else if let Some(line) = line.strip_prefix(INDENT) {
                let shape = current.as_ref().and_then(|key| shapes.get_mut(key));
                let Some(shape) = shape else {
                    return fail("a shape stands below a line like `[loan submitted 1]`");
                };
                if !shape.is_empty() {
                    shape.push('\n');
                }
                shape.push_str(line);
            } else {
                let Some(key) = key(line) else {
                    return fail("expected a line like `[loan submitted 1]`, or an indented one");
                };
                if shapes.insert(key.clone(), String::new()).is_some() {
                    return fail("this type and version stand in the file twice");
                }
                current = Some(key);
            }
        }
        Ok(Self(shapes))
    }
}

fn key(line: &str) -> Option<ShapeKey> {
    let mut words = line.strip_prefix('[')?.strip_suffix(']')?.split(' ');
    let key = ShapeKey {
        category: words.next()?.to_owned(),
        event_type: words.next()?.to_owned(),
        version: words.next()?.parse().ok()?,
    };
    words.next().is_none().then_some(key)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(event_type: &str, version: u32) -> ShapeKey {
        ShapeKey { category: "loan".into(), event_type: event_type.into(), version }
    }

    fn lock() -> Lock {
        Lock(BTreeMap::from([
            (key("submitted", 10), "struct {\n  a: i64\n}".into()),
            (key("submitted", 2), "opaque [x]".into()),
            (key("approved", 1), "struct {}".into()),
        ]))
    }

    #[test]
    fn a_lock_file_is_sorted_and_reads_back() {
        let text = lock().to_text(&["a note".into()]);
        let body = text.split_once("a note\n").unwrap().1;
        assert_eq!(
            body,
            "format 1

[loan approved 1]
  struct {}

[loan submitted 2]
  opaque [x]

[loan submitted 10]
  struct {
    a: i64
  }
"
        );
        assert_eq!(Lock::parse(&text).unwrap(), lock());
        // As a checkout on Windows leaves it.
        assert_eq!(Lock::parse(&text.replace('\n', "\r\n")).unwrap(), lock());
        assert_eq!(Lock::parse("").unwrap(), Lock::default());
    }

    #[test]
    fn what_cannot_be_read_is_named_with_its_line() {
        for (text, line, reason) in [
            ("format 2\n", 1, "newer version"),
            ("# x\n[loan a 1]\n", 2, "format 1"),
            ("format 1\n<<<<<<< HEAD\n", 2, "expected"),
            ("format 1\n\n[loan a]\n", 3, "expected"),
            ("format 1\n[loan a 1 2]\n", 2, "expected"),
            ("format 1\n[loan a x]\n", 2, "expected"),
            ("format 1\n  struct {}\n", 2, "stands below"),
            ("format 1\n[loan a 1]\n  x\n[loan a 1]\n  y\n", 4, "twice"),
        ] {
            let (found, why) = Lock::parse(text).unwrap_err();
            assert_eq!(found, line, "{text}");
            assert!(why.contains(reason), "{text}: {why}");
        }
    }
}
