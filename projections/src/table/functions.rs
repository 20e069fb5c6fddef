//! Functions in the database for queries about the past, from any tool.

use super::statements::Sql;

pub(super) fn functions(sql: &Sql, store: &str) -> String {
    let label = sql.table;
    include_str!("../sql/history.sql")
        .replace("{names}", &sql.all_names("h."))
        .replace("{types}", &sql.types())
        .replace("{columns}", &sql.names("h."))
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
    let (as_of, changes) = (sql.name("_as_of"), sql.name("_changes"));
    let mut drop = format!("drop function if exists {}();\n", sql.name("_versions"));
    for moment in ["text", "timestamptz", "bigint"] {
        drop += &format!("drop function if exists {changes}({moment}, {moment});\n");
        drop += &format!("drop function if exists {as_of}({moment});\n");
    }
    drop
}
