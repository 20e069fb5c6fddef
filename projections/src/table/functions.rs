//! Functions in the database for queries about the past, from any tool.

use super::statements::Sql;

const MOMENTS: [&str; 3] = ["text", "timestamptz", "bigint"];

pub(super) fn functions(sql: &Sql, store: &str) -> String {
    let label = sql.table;
    include_str!("../sql/history.sql")
        .replace("{names}", &sql.all_names("h."))
        .replace("{types}", &sql.types())
        .replace("{columns}", &sql.names("h."))
        .replace("{a}", &sql.all_names("a."))
        .replace("{b}", &sql.all_names("b."))
        .replace("{rows_as_of}", &sql.rows_as_of("$1", &sql.all_names("")))
        .replace("{keys}", &sql.keys())
        .replace("{checkpoint}", &format!("projection:{label}"))
        .replace("{label}", label)
        .replace("{table}", &sql.name(""))
        .replace("{history}", &sql.name("_history"))
        .replace("{as_of}", &sql.name("_as_of"))
        .replace("{versions}", &sql.name("_versions"))
        .replace("{changes}", &sql.name("_changes"))
        .replace("{store}", store)
}

pub(super) fn drop(sql: &Sql) -> String {
    let as_of = sql.name("_as_of");
    let mut drop = format!("drop function if exists {}();\n", sql.name("_versions"));
    drop += &drop_changes(sql);
    for moment in MOMENTS {
        drop += &format!("drop function if exists {as_of}({moment});\n");
    }
    drop
}

/// Those that return whole rows, and so are bound to one table.
pub(super) fn drop_changes(sql: &Sql) -> String {
    let drop =
        |moment| format!("drop function if exists {}({moment}, {moment});\n", sql.name("_changes"));
    MOMENTS.map(drop).concat()
}
