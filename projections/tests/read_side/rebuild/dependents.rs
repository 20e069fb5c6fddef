//! What is built on a read model's tables goes along to those that replace them, or is named.

use annals_projections::ProjectionError;

use super::rebuild;
use crate::support::{
    catch_up,
    database::{TestDatabase, value},
    ledger::{Tally, add},
    oracle::assert_exact,
};

/// A role of the test's own: roles are the whole server's.
struct Role {
    name: String,
    database: Option<TestDatabase>,
}

impl Role {
    async fn create(name: &str) -> Self {
        let database = TestDatabase::create().await;
        let name = format!("annals_{name}_{}", std::process::id());
        let client = database.client().await;
        let create = format!("drop role if exists {name}; create role {name}");
        client.batch_execute(&create).await.unwrap();
        Self { name, database: Some(database) }
    }

    fn database(&self) -> &TestDatabase {
        self.database.as_ref().unwrap()
    }
}

impl Drop for Role {
    fn drop(&mut self) {
        // What the role has there keeps it.
        drop(self.database.take());
        let sql = format!("drop role {}", self.name);
        let dropping = std::thread::spawn(move || {
            tokio::runtime::Runtime::new().unwrap().block_on(async {
                let server = std::env::var("DATABASE_URL").unwrap();
                let (client, connection) =
                    tokio_postgres::connect(&server, tokio_postgres::NoTls).await.unwrap();
                tokio::spawn(connection);
                client.batch_execute(&sql).await.unwrap();
            });
        });
        if dropping.join().is_err() && !std::thread::panicking() {
            panic!("the test's role was not dropped");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn views_and_grants_go_along() {
    let role = Role::create("views").await;
    let (store, client) = (role.database().store().await, role.database().client().await);
    add(&store, "a", 1).await;
    catch_up::<Tally>(&store).await;
    let name = &role.name;
    let set_up = format!(
        r#"create schema "Reports";
        create view "Reports"."All totals" with (security_barrier = true) as
            select ledger, total from tallies where total > 0;
        create view upper_totals as select upper(ledger) as ledger from "Reports"."All totals";
        create view past as
            select a.* from tallies_as_of(1) a join "Reports"."All totals" using (ledger);
        create view versions as select count(*) from tallies_versions();
        create view differences as select change, (after).total from tallies_changes(0, 1);
        create view row_of as select t from tallies t;
        create view several as select 1 as one from upper_totals, past, row_of, tallies_history;
        grant usage on schema "Reports" to {name};
        grant select on "Reports"."All totals", upper_totals, past, versions, differences to {name};
        grant select on tallies to {name} with grant option;
        grant select (ledger), update (total) on tallies_history to public;
        grant execute on function tallies_changes(bigint, bigint) to {name};
        revoke execute on function tallies_as_of(text) from public;"#
    );
    client.batch_execute(&set_up).await.unwrap();
    let state = "
        select string_agg(what, chr(10) order by what) from (
            select format('%s %s %s %s', c.oid::regclass, c.relacl, c.reloptions, pg_get_viewdef(c.oid))
                as what
            from pg_class c where c.relkind = 'v' and c.relnamespace not in (
                'pg_catalog'::regnamespace, 'information_schema'::regnamespace)
            union all
            select format('%s %s', c.relname, c.relacl) from pg_class c
            where c.oid in ('tallies'::regclass, 'tallies_history'::regclass)
            union all
            select format('%s.%s %s', attrelid::regclass, attname, attacl) from pg_attribute
            where attrelid in ('tallies'::regclass, 'tallies_history'::regclass) and attnum > 0
            union all
            select format('%s %s', p.oid::regprocedure,
                (select array_agg(a::text order by a::text) from unnest(p.proacl) a))
            from pg_proc p
            where proname like 'tallies%') s";
    let before: String = value(&client, state).await;
    assert!(before.contains("with grant option") || before.contains("r*"), "{before}");
    for _ in 0..2 {
        rebuild::<Tally>(&store).run().await.unwrap();
        assert_eq!(value::<String>(&client, state).await, before);
        rebuild::<Tally>(&store).rollback().await.unwrap();
        assert_eq!(value::<String>(&client, state).await, before);
    }
    rebuild::<Tally>(&store).run().await.unwrap();
    // They show the new rows.
    client.batch_execute("update tallies set total = 77").await.unwrap();
    let shown = r#"select total from "Reports"."All totals""#;
    assert_eq!(value::<i64>(&client, shown).await, 77);
    client.batch_execute(&format!("set role {name}")).await.unwrap();
    for sql in [shown, "select max(total) from tallies"] {
        value::<i64>(&client, sql).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_moved_is_named_and_nothing_is_changed() {
    let database = TestDatabase::create().await;
    let (store, client) = (database.store().await, database.client().await);
    add(&store, "a", 1).await;
    catch_up::<Tally>(&store).await;
    let rebuild = rebuild::<Tally>(&store);
    rebuild.build().await.unwrap();
    for (create, drop, named) in [
        (
            "create view totals as select total from tallies;
             create materialized view kept as select * from totals",
            "drop view totals cascade",
            "kept",
        ),
        (
            "create materialized view kept as select * from tallies_as_of(1)",
            "drop materialized view kept",
            "kept",
        ),
        (
            "create table notes (ledger text references tallies)",
            "drop table notes",
            "notes_ledger_fkey",
        ),
        (
            "create function tell() returns trigger language plpgsql as 'begin return new; end';
             create trigger told after insert on tallies for each row execute function tell()",
            "drop function tell cascade",
            "told",
        ),
        ("create table kept (before tallies)", "drop table kept", "kept"),
        ("create table kept (before tallies[])", "drop table kept", "kept"),
        (
            "create function newest(tallies) returns bigint language sql as 'select 1::bigint'",
            "drop function newest",
            "newest",
        ),
        ("create table part () inherits (tallies)", "drop table part", "part"),
        ("create policy mine on tallies using (total > 0)", "drop policy mine on tallies", "mine"),
        (
            "create function total() returns bigint begin atomic select sum(total) from tallies; end",
            "drop function total",
            "total",
        ),
    ] {
        client.batch_execute(create).await.unwrap();
        match rebuild.swap().await {
            Err(ProjectionError::InTheWay { projection: "tallies", object }) => {
                assert!(object.contains(named), "{object} for {create}");
            }
            other => panic!("{create}: {other:?}"),
        }
        client.batch_execute(drop).await.unwrap();
        add(&store, "a", 1).await;
        catch_up::<Tally>(&store).await;
        assert_exact::<Tally>(&store, &client).await;
    }
    rebuild.swap().await.unwrap();
    assert_exact::<Tally>(&store, &client).await;
}
