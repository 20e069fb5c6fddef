//! `diff`: what differs in a read model between two moments.

use clap::Args;
use futures::TryStreamExt;
use serde::Serialize;
use serde_json::value::RawValue;
use tokio_postgres::types::ToSql;

use super::{
    App, Exit, Failure,
    database::Database,
    json,
    output::{Output, Reader, print_on},
    projection::{Projection, known},
    rows::{Cells, Past, differing, key_of, refused},
    time::position_or_time,
};
use crate::{AsOf, EventStore, Position};

/// Prints what differs in a read model between two moments
///
/// Rows that came, went, or are others, in the order of their keys. The read model must keep its history. A
/// moment is a time in RFC 3339, a date for the midnight in UTC with which it begins, or a position like 1234.
#[derive(Debug, Args)]
#[command(
    after_help = "Exit code: 0 if it was printed, also if nothing differs; 1 if it could not be; 130 if \
                  it was stopped."
)]
pub(super) struct Arguments {
    #[command(flatten)]
    database: Database,

    /// The read model: the name of its table
    projection: String,

    /// Only the row with this key: a value for each column of it; what begins with a hyphen comes behind --
    #[arg(allow_negative_numbers = true)]
    key: Vec<String>,

    /// The one moment
    #[arg(long, value_name = "TIME|POSITION", value_parser = position_or_time)]
    from: AsOf,

    /// The other moment: how things stand now unless set
    #[arg(long, value_name = "TIME|POSITION", value_parser = position_or_time)]
    to: Option<AsOf>,

    /// How to print it: as text, or a JSON document on each line
    #[arg(long, value_enum, default_value_t)]
    output: Output,
}

pub(super) async fn run(app: &App, arguments: Arguments) -> Result<Exit, Failure> {
    let Arguments { database, projection, key, from, to, output } = arguments;
    let known = known(app, &projection)?;
    let key = if key.is_empty() { key } else { key_of(known, key)? };
    let store = database.open(app).await?;
    let past = Past::of(known, store.database()?)?;
    let reached = past.reached(store.database()?).await?;
    let from = position(&store, Some(from), reached).await?;
    let to = position(&store, to, reached).await?;
    print_all(&store, &past, key, (from, to), output).await?;
    store.close().await;
    Ok(Exit::Success)
}

async fn position(
    store: &EventStore,
    moment: Option<AsOf>,
    reached: Position,
) -> Result<Position, Failure> {
    Ok(match moment {
        Some(AsOf::Time(time)) => store.position_at(time).await?,
        Some(AsOf::Position(position)) => position,
        _ => reached,
    })
}

/// Prints the rows as they come: there may be many.
async fn print_all(
    store: &EventStore,
    past: &Past<'_>,
    key: Vec<String>,
    moments: (Position, Position),
    output: Output,
) -> Result<(), Failure> {
    let mut client = store.database()?.client().await?;
    let transaction = client.transaction().await?;
    transaction.batch_execute("set local timezone to 'UTC'").await?;
    let (from, to) = (moments.0.get(), moments.1.get());
    // Of a row that is looked for by its key, the functions that answer for whole tables are not asked.
    let check = past.sql(
        "select {schema}.check_moment('{projection}', '{label}', moment)
         from unnest($1::bigint[]) moment",
    );
    transaction.query(&check, &[&vec![from, to]]).await.map_err(refused)?;
    let sql = past.sql(include_str!("sql/diff.sql"));
    let side = |number: u32| match key.is_empty() {
        true => past.sql(&format!("{{as_of}}(${number}::bigint)")),
        false => past.sql(&format!(
            "(select v.* from {{versions}}() v where {{key}}
              and v.valid_from <= ${number} and coalesce(v.valid_to > ${number}, true))"
        )),
    };
    let sql = sql.replace("{before}", &side(2)).replace("{after}", &side(3));
    let params: [&(dyn ToSql + Sync); 3] = [&key, &from, &to];
    let rows = transaction.query_raw(&sql, params).await.map_err(refused)?;
    let mut rows = std::pin::pin!(rows);
    let mut told = Told { known: past.known, moments, output, added: 0, removed: 0, changed: 0 };
    while let Some(row) = rows.try_next().await.map_err(refused)? {
        if told.row(row.get(0), row.get(1), row.get(2))? == Reader::Gone {
            return Ok(());
        }
    }
    told.end()
}

/// What has been printed.
struct Told<'a> {
    known: &'a Projection,
    moments: (Position, Position),
    output: Output,
    added: u64,
    removed: u64,
    changed: u64,
}

#[derive(Serialize)]
struct Document {
    change: &'static str,
    key: Box<RawValue>,
    from: Position,
    to: Position,
    before: Option<Box<RawValue>>,
    after: Option<Box<RawValue>>,
}

impl Told<'_> {
    fn row(
        &mut self,
        key: &str,
        before: Option<&str>,
        after: Option<&str>,
    ) -> Result<Reader, Failure> {
        let (change, count) = match (before, after) {
            (None, _) => ("added", &mut self.added),
            (_, None) => ("removed", &mut self.removed),
            // It became another, and is as it was again.
            (before, after) if before == after => return Ok(Reader::There),
            _ => ("changed", &mut self.changed),
        };
        *count += 1;
        if self.output == Output::Text {
            let cells = |row: Option<&str>| row.map(Cells::of).transpose();
            let key = Cells::of(key)?.key(self.known);
            let lines = differing(self.known, cells(before)?.as_ref(), cells(after)?.as_ref())?;
            return print_on(&format!("{change} {key}\n{lines}"));
        }
        let raw = |json: &str| RawValue::from_string(json::compact(json));
        let document = Document {
            change,
            key: raw(key)?,
            from: self.moments.0,
            to: self.moments.1,
            before: before.map(raw).transpose()?,
            after: after.map(raw).transpose()?,
        };
        print_on(&serde_json::to_string(&document)?)
    }

    fn end(self) -> Result<(), Failure> {
        let Self { moments: (from, to), added, removed, changed, .. } = self;
        if self.output == Output::Json {
            return Ok(());
        }
        let between = format!("between the positions {from} and {to}");
        let line = match added + removed + changed {
            0 => format!("Nothing differs {between}."),
            _ => format!("{added} added, {changed} changed, {removed} removed {between}."),
        };
        print_on(&line).map(drop)
    }
}
