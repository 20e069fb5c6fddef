//! A picture of all loan applications by status over time, drawn from as-of queries only: the read model
//! is asked how things stood at each of many moments.

mod axis;
mod svg;

use std::{collections::BTreeMap, path::Path};

use annals::{Aggregate, EventQuery, EventStore};
use anyhow::Context;
use chrono::{DateTime, Utc};
use futures::{StreamExt, TryStreamExt, stream};

use crate::model::LoanApplication;

/// How many moments are asked for.
const MOMENTS: i32 = 80;
/// How many are asked for at a time.
const AT_A_TIME: usize = 4;

/// How many applications stood in each status at a moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Sample {
    pub(crate) at: DateTime<Utc>,
    pub(crate) by_status: BTreeMap<String, u64>,
}

impl Sample {
    fn of(&self, status: &str) -> u64 {
        self.by_status.get(status).copied().unwrap_or(0)
    }

    fn total(&self) -> u64 {
        self.by_status.values().sum()
    }
}

/// Draws the chart into a file.
pub(crate) async fn draw(store: &EventStore, path: &Path) -> anyhow::Result<()> {
    let query = || EventQuery::log().category(LoanApplication::CATEGORY).limit(1);
    let first = store.cursor(query()).next_page().await?.pop();
    let last = store.cursor(query().backward()).next_page().await?.pop();
    let (Some(first), Some(last)) = (first, last) else {
        anyhow::bail!("there is nothing to draw: the log has no events");
    };
    let moments = moments(first.recorded_at, last.recorded_at);
    let samples = stream::iter(moments).map(|at| sample(store, at)).buffered(AT_A_TIME);
    let samples: Vec<_> = samples.try_collect().await?;
    std::fs::write(path, svg::draw(&samples))
        .with_context(|| format!("cannot write {}", path.display()))?;
    eprintln!("drawn: {} as-of queries, in {}", samples.len(), path.display());
    Ok(())
}

/// From the first to the last, both among them, at even distances.
fn moments(first: DateTime<Utc>, last: DateTime<Utc>) -> Vec<DateTime<Utc>> {
    let step = (last - first) / (MOMENTS - 1);
    let mut moments: Vec<_> = (0..MOMENTS - 1).map(|index| first + step * index).collect();
    moments.push(last);
    moments.dedup();
    moments
}

/// Asks how things stood. The same from `psql`, as for any other tool.
async fn sample(store: &EventStore, at: DateTime<Utc>) -> anyhow::Result<Sample> {
    let database = store.database()?;
    let sql = database.read_models().sql(
        "select coalesce(status, 'unknown'), count(*)
         from {schema}.loan_applications_as_of($1::timestamptz) group by 1",
    );
    let client = database.client().await?;
    let rows = client.query(&sql, &[&at]).await;
    let rows = rows.with_context(|| format!("cannot ask how things stood at {at}"))?;
    let by_status = rows.iter().map(|row| (row.get(0), row.get::<_, i64>(1).unsigned_abs()));
    Ok(Sample { at, by_status: by_status.collect() })
}

#[cfg(test)]
mod tests {
    use chrono::TimeDelta;

    use super::*;

    #[test]
    fn the_moments_reach_from_the_first_to_the_last() {
        let first: DateTime<Utc> = "2011-10-01T00:00:00Z".parse().unwrap();
        for seconds in [1, 79, 14_256_271] {
            let last = first + TimeDelta::seconds(seconds);
            let moments = moments(first, last);
            assert_eq!((moments.len(), moments[0], moments[79]), (80, first, last));
            assert!(moments.is_sorted());
        }
        assert_eq!(moments(first, first), [first]);
    }
}
