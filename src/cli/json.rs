//! JSON text in another layout. Its values are not read, so that numbers of any length, the order of
//! fields and fields that are named twice stay as they are stored.

use std::fmt::Write;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Layout {
    Compact,
    Pretty,
}

/// On one line.
pub(super) fn compact(json: &str) -> String {
    laid_out(json, Layout::Compact)
}

/// With a line for each value.
pub(super) fn pretty(json: &str) -> String {
    laid_out(json, Layout::Pretty)
}

/// Text as it can be shown on a terminal: what would control that is escaped.
pub(super) fn plain(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    text.chars().for_each(|char| push(&mut plain, char));
    plain
}

/// A character of a string. JSON text may hold a few that control a terminal.
fn push(text: &mut String, char: char) {
    match char.is_control() {
        // Writing to a string cannot fail.
        true => drop(write!(text, "\\u{:04x}", u32::from(char))),
        false => text.push(char),
    }
}

fn laid_out(json: &str, layout: Layout) -> String {
    let mut text = String::with_capacity(json.len());
    let mut depth = 0;
    let new_line = |text: &mut String, depth: usize| {
        if layout == Layout::Pretty {
            text.push('\n');
            (0..depth).for_each(|_| text.push_str("  "));
        }
    };
    let mut chars = json.chars().peekable();
    while let Some(char) = chars.next() {
        match char {
            '"' => {
                text.push('"');
                string(&mut chars, &mut text);
            }
            '{' | '[' => {
                text.push(char);
                while chars.next_if(char::is_ascii_whitespace).is_some() {}
                match chars.next_if(|next| matches!(next, '}' | ']')) {
                    Some(end) => text.push(end),
                    None => {
                        depth += 1;
                        new_line(&mut text, depth);
                    }
                }
            }
            '}' | ']' => {
                depth = depth.saturating_sub(1);
                new_line(&mut text, depth);
                text.push(char);
            }
            ',' => {
                text.push(',');
                new_line(&mut text, depth);
            }
            ':' if layout == Layout::Pretty => text.push_str(": "),
            space if space.is_ascii_whitespace() => {}
            other => text.push(other),
        }
    }
    text
}

/// The rest of a string, up to its closing quote.
fn string(chars: &mut impl Iterator<Item = char>, text: &mut String) {
    while let Some(char) = chars.next() {
        push(text, char);
        match char {
            '"' => return,
            '\\' => chars.next().into_iter().for_each(|escaped| push(text, escaped)),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    const STORED: &str = r#" { "b" : [ 1.50 , { } , [ ] ], "a":"x \" , : {\\", "b": 123456789012345678901234567890,"c":{"d":null}} "#;

    #[test]
    fn on_one_line_only_white_space_goes() {
        let expected = r#"{"b":[1.50,{},[]],"a":"x \" , : {\\","b":123456789012345678901234567890,"c":{"d":null}}"#;
        assert_eq!(compact(STORED), expected);
        assert_eq!(compact(&pretty(STORED)), expected);
        assert_eq!(compact("{\n}"), "{}");
        assert_eq!(compact(" 7\n"), "7");
    }

    #[test]
    fn each_value_has_its_line() {
        let expected = r#"{
  "b": [
    1.50,
    {},
    []
  ],
  "a": "x \" , : {\\",
  "b": 123456789012345678901234567890,
  "c": {
    "d": null
  }
}"#;
        assert_eq!(pretty(STORED), expected);
        assert_eq!(pretty(&compact(STORED)), expected);
    }

    #[test]
    fn what_controls_a_terminal_is_escaped_and_stays_the_same_value() {
        let stored = "{\"a\":\"\u{9b}31m \u{7f}é\"}";
        let shown = compact(stored);
        assert_eq!(shown, r#"{"a":"\u009b31m \u007fé"}"#);
        let value = |json: &str| serde_json::from_str::<Value>(json).unwrap();
        assert_eq!(value(&shown), value(stored));
        assert_eq!(plain("\u{1b}[2J"), "\\u001b[2J");
    }
}
