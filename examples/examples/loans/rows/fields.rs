//! Records of quoted and plain fields, put together from lines.

use super::lines::Line;

/// The fields of one record, as RFC 4180 has them.
#[derive(Default)]
pub(super) struct Fields {
    bytes: Vec<u8>,
    /// Where each field ends in `bytes`.
    pub(super) ends: Vec<usize>,
    quoted: bool,
}

/// What a line has done to a record.
pub(super) enum Fed {
    /// It has completed it.
    Complete,
    /// It ends within quotes: the record goes on.
    Open,
}

impl Fields {
    pub(super) fn clear(&mut self) {
        self.bytes.clear();
        self.ends.clear();
        self.quoted = false;
    }

    pub(super) fn get(&self, index: usize) -> &[u8] {
        let start = if index == 0 { 0 } else { self.ends[index - 1] };
        &self.bytes[start..self.ends[index]]
    }

    /// Adds a line. In an error, the field at fault is the one after those in `ends`.
    pub(super) fn feed(&mut self, line: &Line) -> Result<Fed, &'static str> {
        let text = line.bytes.strip_suffix(b"\n").unwrap_or(&line.bytes);
        let text = text.strip_suffix(b"\r").unwrap_or(text);
        let mut rest = text;
        if !self.quoted && rest.first() == Some(&b'"') {
            self.quoted = true;
            rest = &rest[1..];
        }
        loop {
            if self.quoted {
                let Some(quote) = rest.iter().position(|byte| *byte == b'"') else {
                    self.bytes.extend_from_slice(rest);
                    self.bytes.extend_from_slice(&line.bytes[text.len()..]);
                    return if line.cut { Err(TOO_LONG) } else { Ok(Fed::Open) };
                };
                self.bytes.extend_from_slice(&rest[..quote]);
                rest = &rest[quote + 1..];
                match rest.first() {
                    Some(b'"') => {
                        self.bytes.push(b'"');
                        rest = &rest[1..];
                        continue;
                    }
                    None | Some(b',') => self.quoted = false,
                    Some(_) => return Err("text follows the closing quote"),
                }
            } else {
                let end = rest.iter().position(|byte| *byte == b',').unwrap_or(rest.len());
                self.bytes.extend_from_slice(&rest[..end]);
                rest = &rest[end..];
            }
            // A field is complete, and a comma or nothing follows.
            if rest.is_empty() {
                if line.cut {
                    return Err(TOO_LONG);
                }
                self.ends.push(self.bytes.len());
                return Ok(Fed::Complete);
            }
            self.ends.push(self.bytes.len());
            rest = &rest[1..];
            if rest.first() == Some(&b'"') {
                self.quoted = true;
                rest = &rest[1..];
            }
        }
    }
}

const TOO_LONG: &str = "the line is longer than 65536 bytes";
