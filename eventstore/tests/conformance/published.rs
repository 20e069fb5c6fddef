//! The suite itself: it is complete, its report says what failed, and it can fail.

use std::{collections::HashSet, time::Duration};

use annals_eventstore::{
    Error, EventStore, Options,
    conformance::{
        self, InMemory, Postgres, Report, Stores, Suite,
        broken::{Broken, Fault},
    },
};
use async_trait::async_trait;

use crate::support::TestDatabase;

/// The names that the page of the suite gives behaviours, and no others.
fn on_the_page() -> HashSet<&'static str> {
    let page = include_str!("../../src/conformance/README.md");
    let (_, lines) = page.split_once("# What is held by what").unwrap();
    let quoted = lines.split('`').skip(1).step_by(2);
    quoted.filter(|name| name.contains("::") && !name.contains('/')).collect()
}

#[test]
fn the_page_names_every_behaviour_and_no_other() {
    let behaviours: Vec<_> =
        conformance::suite().behaviours().iter().map(ToString::to_string).collect();
    let names: HashSet<_> = behaviours.iter().map(String::as_str).collect();
    assert_eq!(names.len(), behaviours.len(), "a behaviour is in the suite twice");
    let page = on_the_page();
    let missing: Vec<_> = names.difference(&page).collect();
    assert!(missing.is_empty(), "not on the page of the suite: {missing:?}");
    let unknown: Vec<_> = page.difference(&names).collect();
    assert!(unknown.is_empty(), "on the page and not in the suite: {unknown:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_good_store_is_green() {
    let report = conformance::run(InMemory).await;
    assert!(report.is_green(), "{report}");
    assert_eq!(report.outcomes.len(), conformance::suite().behaviours().len());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_over_postgres_is_green_and_leaves_nothing_behind() {
    let database = TestDatabase::create().await;
    let suite = conformance::suite().only(|behaviour| behaviour.theme == "load");
    let report = suite.run(Postgres::at(database.url())).await;
    assert!(report.is_green(), "{report}");
    let left = "select count(*) from pg_namespace where nspname like 'conformance%'";
    let left: i64 = database.client().await.query_one(left, &[]).await.unwrap().get(0);
    assert_eq!(left, 0);
}

/// Who caught it. A hang does not count: on a busy machine a good store may seem to hang.
fn caught(report: &Report) -> Vec<String> {
    let failures = report.failures().filter(|(_, failure)| !failure.is_hang());
    failures.map(|(behaviour, _)| behaviour.to_string()).collect()
}

/// What must catch each fault, whatever else does.
fn must_catch(fault: Fault) -> &'static [&'static str] {
    const READERS: &str = "order::readers_see_every_event_once_and_in_order";
    match fault {
        Fault::LosesAppends | Fault::RepeatsAppends => {
            &[READERS, "append::many_writers_to_any_version_lose_nothing"]
        }
        Fault::LosesReads | Fault::RepeatsReads | Fault::ReordersReads => {
            &[READERS, "laws::pages_of_any_size_make_up_the_log"]
        }
        Fault::ReordersAppends => &[READERS, "read::more_than_a_page_is_read_in_order"],
        Fault::TearsAppends => &[READERS, "append::opposite_orders_of_streams_do_not_deadlock"],
        Fault::IgnoresVersions => &[
            "append::each_expectation_meets_each_state",
            "append::one_of_two_writers_on_a_version_wins",
            "laws::concurrent_appends_are_as_if_one_after_the_other",
        ],
        Fault::ForgetsKeys => &[
            "idempotency::the_same_append_again_returns_the_recorded_outcome",
            "laws::a_retried_append_counts_once",
        ],
        Fault::TurnsTimeBack => &[READERS, "clock::a_position_as_of_a_time_is_that_of_a_fold"],
        Fault::IgnoresCategories => {
            &[READERS, "order::a_reader_of_one_category_passes_what_it_does_not_match"]
        }
        Fault::ReadsTooFar => &["order::a_reader_of_one_category_passes_what_it_does_not_match"],
        other => panic!("say what must catch {other:?}"),
    }
}

/// With so much time for each, what makes its smallest case included.
async fn assert_red(fault: Fault, suite: Suite, stores: impl Stores, patience: Duration) {
    let report = suite.patience(patience).run(Broken::new(stores, fault)).await;
    assert!(!report.is_green());
    let caught = caught(&report);
    println!("{fault:?} is caught by {} of {}: {caught:#?}", caught.len(), report.outcomes.len());
    for name in must_catch(fault) {
        assert!(caught.iter().any(|caught| caught == name), "{fault:?}, {name}: {report}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_suite_is_red_on_every_broken_store() {
    for fault in Fault::ALL {
        // Making the smallest case of every law takes long; those that must catch it are enough.
        let suite = conformance::suite().only(|it| {
            !["laws", "model"].contains(&it.theme)
                || must_catch(fault).contains(&it.to_string().as_str())
        });
        assert_red(fault, suite, InMemory, Duration::from_secs(30)).await;
    }
}

/// The same faults around the store on PostgreSQL: lost, repeated, reordered.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_suite_is_red_on_broken_stores_on_postgres() {
    let database = TestDatabase::create().await;
    for fault in [Fault::LosesAppends, Fault::RepeatsAppends, Fault::ReordersReads] {
        let names = must_catch(fault);
        let suite = conformance::suite().only(|it| names.contains(&it.to_string().as_str()));
        let patience = Duration::from_secs(180);
        assert_red(fault, suite, Postgres::at(database.url()), patience).await;
    }
}

/// Stores that are never there.
struct Never(Option<Error>);

#[async_trait]
impl Stores for Never {
    async fn open(&self, options: Options) -> Result<EventStore, Error> {
        match &self.0 {
            Some(_) => options.connect("no url").await,
            None => std::future::pending().await,
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_behaviour_that_hangs_or_finds_no_store_is_an_entry_of_the_report() {
    let appends = || conformance::suite().only(|behaviour| behaviour.theme == "append");
    let hanging = appends().patience(Duration::from_millis(10)).run(Never(None)).await;
    let refused = appends().run(Never(Some(Error::Closed))).await;
    let count = appends().behaviours().len();
    assert!(hanging.failures().filter(|(_, failure)| failure.is_hang()).count() == count);
    assert!(refused.failures().filter(|(_, failure)| !failure.is_hang()).count() == count);
    let text = refused.to_string();
    assert!(text.starts_with("FAILED append::each_expectation_meets_each_state\n"), "{text}");
    assert!(text.contains("no store can be opened: the database URL is not valid"), "{text}");
    assert!(text.ends_with(&format!("0 behaviours hold, {count} do not")), "{text}");
    let nothing = conformance::suite().only(|_| false).run(InMemory).await;
    assert!(!nothing.is_green(), "nothing was looked at");
}
