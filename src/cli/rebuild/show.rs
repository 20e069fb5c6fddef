//! What a rebuild came to, in words and as a document.

use std::{fmt::Write, time::Duration};

use serde_json::{Value, json};

use crate::{
    Built, Comparison, Difference,
    cli::{
        Failure,
        json::plain,
        output::{Output, print, print_json},
        projection::Projection,
        rows::{Cells, differing},
    },
};

/// What a rebuild came to.
#[derive(Debug)]
pub(super) struct Outcome {
    known: Projection,
    pub(super) built: Option<Built>,
    /// How long it took to build.
    pub(super) took: Duration,
    pub(super) comparison: Option<Comparison>,
    pub(super) swapped: bool,
    pub(super) rolled_back: bool,
    pub(super) discarded: bool,
}

impl Outcome {
    pub(super) fn new(known: Projection) -> Self {
        Self {
            known,
            built: None,
            took: Duration::ZERO,
            comparison: None,
            swapped: false,
            rolled_back: false,
            discarded: false,
        }
    }

    /// Whether no difference was found.
    pub(super) fn is_same(&self) -> bool {
        self.comparison.as_ref().is_none_or(Comparison::is_same)
    }

    pub(super) fn is_well(&self) -> bool {
        self.is_same() && self.built.is_none_or(|built| built.parked == 0)
    }

    pub(super) fn print(&self, output: Output) -> Result<(), Failure> {
        match output {
            Output::Text => print(&self.text()?),
            Output::Json => print_json(&self.document()),
        }
    }

    fn text(&self) -> Result<String, Failure> {
        let table = self.known.table;
        let mut text = String::new();
        if let Some(built) = &self.built {
            let Built { position, events, parked, .. } = built;
            let seconds = self.took.as_secs_f64();
            let rate = if seconds > 0.0 { *events as f64 / seconds } else { 0.0 };
            writeln!(
                text,
                "Built {table} up to position {position}: {events} events in {seconds:.1} s, \
                 {rate:.0} events/s."
            )?;
            if *parked > 0 {
                writeln!(
                    text,
                    "An event failed in each of {parked} streams, which are parked there."
                )?;
            }
        }
        if let Some(comparison) = &self.comparison {
            self.compared(comparison, &mut text)?;
        }
        if self.swapped {
            writeln!(
                text,
                "It is in use now; `rebuild {table} --rollback` brings the old one back."
            )?;
        } else if self.built.is_some() {
            writeln!(
                text,
                "It is not in use; `rebuild {table}` brings it up to date and puts it into its place, \
                 --discard drops it."
            )?;
        }
        if self.rolled_back {
            writeln!(
                text,
                "The {table} that was replaced last is in use again; the worker brings it up to date."
            )?;
        }
        if self.discarded {
            writeln!(text, "Nothing of {table} is kept beside what is in use.")?;
        }
        Ok(text)
    }

    fn compared(&self, comparison: &Comparison, text: &mut String) -> Result<(), Failure> {
        let Comparison { position, live_rows, rebuilt_rows, different, differences, .. } =
            comparison;
        write!(
            text,
            "Compared as of position {position}: {live_rows} rows in use, {rebuilt_rows} new ones, "
        )?;
        match different {
            0 => writeln!(text, "which are the same.")?,
            1 => writeln!(text, "of which 1 differs:\n")?,
            many => writeln!(text, "of which {many} differ:\n")?,
        }
        for Difference { key, live, rebuilt, .. } in differences {
            let cells = |row: &Option<Value>| row.as_ref().map(Cells::of_value);
            let (before, after) = (cells(live), cells(rebuilt));
            let kind = match (live, rebuilt) {
                (None, _) => "only new ",
                (_, None) => "only in use ",
                _ => "",
            };
            writeln!(text, "{kind}{}", plain(&Cells::of_value(key).key(&self.known)))?;
            text.push_str(&differing(&self.known, before.as_ref(), after.as_ref())?);
        }
        let left_out = different.saturating_sub(differences.len() as u64);
        if left_out > 0 {
            writeln!(text, "... and {left_out} more")?;
        }
        if *different > 0 {
            writeln!(text)?;
        }
        Ok(())
    }

    fn document(&self) -> Value {
        let built = self.built.map(|built| {
            json!({
                "position": built.position,
                "events": built.events,
                "parked": built.parked,
                "seconds": self.took.as_secs_f64(),
            })
        });
        let difference =
            |one: &Difference| json!({ "key": one.key, "live": one.live, "rebuilt": one.rebuilt });
        let comparison = self.comparison.as_ref().map(|comparison| {
            json!({
                "position": comparison.position,
                "same": comparison.is_same(),
                "live_rows": comparison.live_rows,
                "rebuilt_rows": comparison.rebuilt_rows,
                "different": comparison.different,
                "differences": comparison.differences.iter().map(difference).collect::<Vec<_>>(),
            })
        });
        json!({
            "projection": self.known.table,
            "built": built,
            "comparison": comparison,
            "swapped": self.swapped,
            "rolled_back": self.rolled_back,
            "discarded": self.discarded,
        })
    }
}
