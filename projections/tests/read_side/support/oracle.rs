//! What a read model must hold: the plainest fold of the log, and the laws of its history.

use std::collections::HashMap;

use annals_eventstore::{EventQuery, EventStore, Position, Recorded};
use annals_projections::{Change, History, QueryReadModels, ReadModel};
use futures::TryStreamExt;
use tokio_postgres::Client;

/// The whole log, with what is archived.
pub(crate) async fn log(store: &EventStore) -> Vec<Recorded> {
    store.read(EventQuery::log().include_archived()).try_collect().await.unwrap()
}

/// The rows that a log leads to, and all versions that they went through.
pub(crate) struct Folded<R: ReadModel> {
    pub(crate) rows: HashMap<R::Key, R>,
    versions: Vec<(R, i64, i64)>,
}

/// Folds the log up to a position, one event after the other.
pub(crate) fn fold<R: ReadModel>(log: &[Recorded], up_to: Position) -> Folded<R> {
    let sources = R::sources();
    let mut rows: HashMap<R::Key, (R, i64)> = HashMap::new();
    let mut versions = Vec::new();
    for event in log.iter().take_while(|event| event.position <= up_to) {
        let category = event.stream.category();
        let Some(source) = sources.iter().find(|s| s.category() == category) else { continue };
        let at = event.position.get();
        for step in source.step(event.clone()).unwrap() {
            for key in step.keys.as_slice() {
                let before = rows.get(key).map(|(row, _)| row.clone());
                let next = match step.project(key, before) {
                    Change::Keep => continue,
                    Change::Set(row) => Some(row),
                    Change::Delete => None,
                };
                // What a part of an event makes and another part of it changes was never there.
                if let Some((row, from)) = rows.remove(key)
                    && from != at
                {
                    versions.push((row, from, at));
                }
                if let Some(row) = next {
                    rows.insert(key.clone(), (row, at));
                }
            }
        }
    }
    versions.extend(rows.values().map(|(row, from)| (row.clone(), *from, i64::MAX)));
    Folded { rows: rows.into_iter().map(|(key, (row, _))| (key, row)).collect(), versions }
}

/// In an order that both sides share.
pub(crate) fn sorted<T: std::fmt::Debug>(values: impl IntoIterator<Item = T>) -> Vec<String> {
    let mut values: Vec<_> = values.into_iter().map(|value| format!("{value:?}")).collect();
    values.sort_unstable();
    values
}

/// Checks the rows, and the history if there is one, against a fold of the whole log.
pub(crate) async fn assert_exact<R: ReadModel + std::fmt::Debug>(
    store: &EventStore,
    client: &Client,
) {
    let log = log(store).await;
    let expected = fold::<R>(&log, Position::new(i64::MAX));
    let rows = store.query::<R>().all().await.unwrap();
    similar("rows", sorted(rows), sorted(expected.rows.into_values()));
    if R::HISTORY == History::Kept {
        similar("versions", sorted(history::<R>(client).await), sorted(expected.versions));
        assert_sound::<R>(client).await;
    }
}

fn similar(what: &str, found: Vec<String>, expected: Vec<String>) {
    if found == expected {
        return;
    }
    let missing: Vec<_> = expected.iter().filter(|value| !found.contains(value)).take(5).collect();
    let surplus: Vec<_> = found.iter().filter(|value| !expected.contains(value)).take(5).collect();
    assert!(
        found == expected,
        "{what}: {} instead of {}; missing {missing:#?}, surplus {surplus:#?}",
        found.len(),
        expected.len(),
    );
}

/// All versions of all rows, as they are stored.
async fn history<R: ReadModel>(client: &Client) -> Vec<(R, i64, i64)> {
    let columns: Vec<_> = R::COLUMNS.iter().map(|column| format!("\"{}\"", column.name)).collect();
    let columns = columns.join(", ");
    let sql = format!(
        "select {columns}, valid_from, coalesce(valid_to, {}) from \"{}_versions\"()",
        i64::MAX,
        R::TABLE
    );
    let rows = client.query(&sql, &[]).await.unwrap();
    let width = R::COLUMNS.len();
    rows.iter().map(|row| (R::from_row(row).unwrap(), row.get(width), row.get(width + 1))).collect()
}

/// Checks the laws of a history: no empty range, no two that overlap, and none that overlaps with what
/// its row is now.
pub(crate) async fn assert_sound<R: ReadModel>(client: &Client) {
    let keys: Vec<_> = R::COLUMNS.iter().filter(|column| column.key).collect();
    let keys: Vec<_> = keys.iter().map(|column| format!("\"{}\"", column.name)).collect();
    let (keys, table) = (keys.join(", "), R::TABLE);
    for (law, sql) in [
        (
            "no range is empty",
            format!("select count(*) from \"{table}_history\" where valid_from >= valid_to"),
        ),
        (
            "no two ranges overlap",
            format!(
                "select count(*) from (
                     select valid_to > lead(valid_from) over (partition by {keys} order by valid_from)
                         as overlapping
                     from \"{table}_history\"
                 ) pairs where overlapping"
            ),
        ),
        (
            "what a row was ends before it is as it is",
            format!(
                "select count(*) from \"{table}_history\" join \"{table}\" t using ({keys})
                 where valid_to > t.valid_from"
            ),
        ),
    ] {
        let violations: i64 = client.query_one(&sql, &[]).await.unwrap().get(0);
        assert_eq!(violations, 0, "{law}");
    }
}
