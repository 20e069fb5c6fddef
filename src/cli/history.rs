//! `history`: all that a row of a read model ever was.

use std::fmt::Write;

use chrono::{DateTime, Utc};
use clap::Args;
use serde::Serialize;
use serde_json::value::RawValue;

use super::{
    App, Exit, Failure,
    database::Database,
    json,
    output::{Output, print},
    projection::{Projection, known},
    rows::{Cells, Past, differing, key_of, refused},
    time::shown,
};
use crate::Position;

/// Prints all versions of a row of a read model
///
/// Each with the position that it is of, the time when that was recorded, and what it changed. The read model
/// must keep its history.
#[derive(Debug, Args)]
#[command(
    after_help = "Exit code: 0 if it was printed, 1 if there never was such a row, or it could not be \
                  looked for, 130 if it was stopped."
)]
pub(super) struct Arguments {
    #[command(flatten)]
    database: Database,

    /// The read model: the name of its table
    projection: String,

    /// The key of the row: a value for each column of it; what begins with a hyphen comes behind --
    #[arg(required = true, allow_negative_numbers = true)]
    key: Vec<String>,

    /// How to print it
    #[arg(long, value_enum, default_value_t)]
    output: Output,
}

/// A version of a row.
#[derive(Debug)]
struct Held {
    row: String,
    from: Moment,
    /// Up to before when; `None` if it still holds.
    to: Option<Moment>,
}

#[derive(Clone, Copy, Debug)]
struct Moment {
    position: Position,
    /// `None` if there is no event: what was parked has its effect at a later position.
    recorded_at: Option<DateTime<Utc>>,
}

pub(super) async fn run(app: &App, arguments: Arguments) -> Result<Exit, Failure> {
    let Arguments { database, projection, key, output } = arguments;
    let known = known(app, &projection)?;
    let key = key_of(known, key)?;
    let store = database.open(app).await?;
    let database = store.database()?;
    let past = Past::of(known, database)?;
    let reached = past.reached(database).await?;
    let mut client = database.client().await?;
    let transaction = client.transaction().await?;
    transaction.batch_execute("set local timezone to 'UTC'").await?;
    let sql = past.sql(include_str!("sql/history.sql"));
    let rows = transaction.query(&sql, &[&key]).await.map_err(refused)?;
    transaction.rollback().await?;
    drop(client);
    let held: Vec<_> = rows
        .iter()
        .map(|row| Held {
            row: row.get(0),
            from: Moment { position: Position::new(row.get(1)), recorded_at: row.get(2) },
            to: row.get::<_, Option<i64>>(3).map(|position| Moment {
                position: Position::new(position),
                recorded_at: row.get(4),
            }),
        })
        .collect();
    store.close().await;
    if held.is_empty() {
        return Err(Failure(format!("{projection} never had a row {}", key.join(" "))));
    }
    print(&match output {
        Output::Text => text(known, reached, &held)?,
        Output::Json => document(known, reached, &held)?,
    })?;
    Ok(Exit::Success)
}

fn text(known: &Projection, reached: Position, held: &[Held]) -> Result<String, Failure> {
    let mut text = String::new();
    let key = Cells::of(&held[0].row)?.key(known);
    let versions = if held.len() == 1 { "version" } else { "versions" };
    let table = known.table;
    writeln!(text, "{table} {key}: {} {versions}, up to position {reached}", held.len())?;
    let title = |moment: Moment| match moment.recorded_at {
        Some(time) => format!("position {}, {}", moment.position, shown(time)),
        None => format!("position {}", moment.position),
    };
    let mut before: Option<Cells> = None;
    let mut gone = None;
    for version in held {
        if let Some(gone) = gone.take_if(|gone: &mut Moment| gone.position != version.from.position)
        {
            writeln!(text, "\n{}\n    removed", title(gone))?;
            before = None;
        }
        let row = Cells::of(&version.row)?;
        let differing = differing(known, before.as_ref(), Some(&row))?;
        let lines = if differing.is_empty() { "    as it was\n" } else { &differing };
        write!(text, "\n{}\n{lines}", title(version.from))?;
        before = Some(row);
        gone = version.to;
    }
    if let Some(gone) = gone {
        writeln!(text, "\n{}\n    removed", title(gone))?;
    }
    Ok(text)
}

#[derive(Serialize)]
struct Document<'a> {
    projection: &'a str,
    position: Position,
    versions: Vec<Version>,
}

#[derive(Serialize)]
struct Version {
    from: Position,
    from_recorded_at: Option<String>,
    to: Option<Position>,
    to_recorded_at: Option<String>,
    row: Box<RawValue>,
}

fn document(known: &Projection, reached: Position, held: &[Held]) -> Result<String, Failure> {
    let time = |moment: Moment| moment.recorded_at.map(shown);
    let versions = held.iter().map(|version| {
        Ok(Version {
            from: version.from.position,
            from_recorded_at: time(version.from),
            to: version.to.map(|to| to.position),
            to_recorded_at: version.to.and_then(time),
            row: RawValue::from_string(json::compact(&version.row))?,
        })
    });
    let versions = versions.collect::<Result<_, Failure>>()?;
    let document = Document { projection: known.table, position: reached, versions };
    Ok(json::pretty(&serde_json::to_string(&document)?))
}

#[cfg(test)]
mod tests {
    use serde::{Deserialize, Serialize};
    use serde_json::Value;

    use super::*;
    use crate::{Aggregate, Apply, Change, Event, Project, ReadModel, Recorded};

    #[derive(Event, Serialize, Deserialize)]
    enum Changed {
        Changed { by: i64 },
    }

    #[derive(Aggregate, Default)]
    #[aggregate(category = "counter", event = Changed)]
    struct Counter;

    impl Apply<Changed> for Counter {
        fn apply(&mut self, _: &Changed) {}
    }

    #[derive(ReadModel, Clone)]
    #[read_model(table = "counts", from(Counter), history)]
    struct Counts {
        #[read_model(key)]
        place: String,
        #[read_model(key)]
        number: i64,
        sum: Option<i64>,
        words: String,
    }

    impl Project<Changed> for Counts {
        fn project(_: Option<Self>, _: &Recorded<Changed>) -> Change<Self> {
            Change::Keep
        }
    }

    fn held(from: i64, to: Option<i64>, sum: &str) -> Held {
        let moment = |position| Moment {
            position: Position::new(position),
            recorded_at: DateTime::from_timestamp(position, 0).filter(|_| position != 9),
        };
        let words = r#""a \"b\" \u001b""#;
        let row = format!(r#"{{"place":"a b","number":-7,"sum":{sum},"words":{words}}}"#);
        Held { row, from: moment(from), to: to.map(moment) }
    }

    #[test]
    fn a_row_may_go_and_come_back() {
        let known = Projection::of::<Counts>();
        let held = [
            held(1, Some(3), "null"),
            held(3, Some(4), "12345678901234567890"),
            held(4, Some(6), "12345678901234567890"),
            held(9, Some(10), "1"),
        ];
        let expected = "\
counts a b -7: 4 versions, up to position 12

position 1, 1970-01-01T00:00:01Z
    sum    null
    words  \"a \\\"b\\\" \\u001b\"

position 3, 1970-01-01T00:00:03Z
    sum    null → 12345678901234567890

position 4, 1970-01-01T00:00:04Z
    as it was

position 6, 1970-01-01T00:00:06Z
    removed

position 9
    sum    1
    words  \"a \\\"b\\\" \\u001b\"

position 10, 1970-01-01T00:00:10Z
    removed
";
        assert_eq!(text(&known, Position::new(12), &held).unwrap(), expected);
        let document = document(&known, Position::new(12), &held[..2]).unwrap();
        assert!(document.contains(r#""sum": 12345678901234567890"#), "{document}");
        let document: Value = serde_json::from_str(&document).unwrap();
        let second = &document["versions"][1];
        assert_eq!((&second["from"], &second["to"]), (&3.into(), &4.into()));
        assert_eq!(second["to_recorded_at"], "1970-01-01T00:00:04Z");
    }
}
